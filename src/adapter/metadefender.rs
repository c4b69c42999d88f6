//! MetaDefender by OPSWAT: results of Core and Cloud as their callbacks post them, and the notifications of Storage Security.
//!
//! A result is what `GET /file/{data_id}` answers. Its code is the verdict (`metadefender/code`); what the platform's own rules made of
//! it (`process_info.result`) is `Finding::policy`, never a verdict. A result of an archive lists the files within
//! (`metadefender/within`). Storage Security writes its keys in PascalCase, says codes in words and knows no hashes: a file is known by
//! its path and id there. The end of a whole storage scan is a job, its results come one by one.
//!
//! Invariants: clean needs a code that says so and a progress of 100; an archive is never better than a file within that has no hash
//! of its own.

use jiff::Timestamp;

use super::items::{Gathered, Outcomes, one};
use super::json::{Document, Fault, Value};
use super::shared::{letters, reference_of};
use super::{Adapter, FetchId, Hits, NormalizeError, Outcome};
use crate::delivery::Delivery;
use crate::event::{Approval, Finding, Subject, SubjectId, Verdict};

mod code;
mod within;

use code::{State, said, verdict_of};
use within::Within;

/// The adapter. It has no options.
pub(super) struct MetaDefender;

impl Adapter for MetaDefender {
    fn provider(&self) -> &'static str {
        "MetaDefender"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let document = Document::read(delivery.body())?;
        let root = document.root();
        let [file_id, scan_id, scan_results, process_info] =
            root.fields(["FileId", "ScanId", "scan_results", "process_info"]).map_err(|fault| fault.refuses(root))?;
        match (file_id, scan_id) {
            (Some(_), _) => one(root, storage_file(root)),
            (None, Some(_)) => one(root, Ok(Outcome::Job)),
            (None, None) if scan_results.or(process_info).is_some() => result(root),
            (None, None) => one(root, answer(root)),
        }
    }

    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        // What Storage Security reports has no id that Core or Cloud would know.
        let is_result = !matches!(finding.subject.id(), SubjectId::Object { .. });
        FetchId::new("data", finding.event_id.as_deref().filter(|_| is_result)?)
    }
}

/// What the API says where there is no result yet.
fn answer(root: Value<'_>) -> Result<Outcome, Fault> {
    let [data_id, status, in_queue, error] = root.fields(["data_id", "status", "in_queue", "error"])?;
    match data_id {
        Some(_) if status.or(in_queue).is_some() => Ok(Outcome::NotReady),
        Some(id) => FetchId::new("data", &id.id()?)
            .map(Outcome::Pointer)
            .ok_or_else(|| id.fault("an id with characters that no id of MetaDefender has")),
        None if error.is_some() => Ok(Outcome::Ignore),
        None => Err(root.unknown("neither a result nor a notification of MetaDefender")),
    }
}

/// A result, and where it is of an archive, one of each file within that has a hash.
fn result(root: Value<'_>) -> Result<Outcomes, NormalizeError> {
    let read = || {
        let scan = Scan::read(root)?;
        let within = Within::read(root, &scan)?;
        Ok((whole(root, &scan, &within), within))
    };
    let (whole, within) = read().map_err(|fault: Fault| fault.refuses(root))?;
    if within.own.is_empty() {
        return one(root, whole);
    }
    let mut outcomes = Gathered::default();
    for outcome in std::iter::once(whole).chain(within.own) {
        outcomes.add(outcome.map_err(|fault| move || fault.words(root)))?;
    }
    Ok(outcomes.finish())
}

/// What a result says once, for the file and for all within it.
struct Scan {
    started_at: Option<Timestamp>,
    name: Option<String>,
    tenant: Option<String>,
    reference: Option<String>,
}

impl Scan {
    fn read(root: Value<'_>) -> Result<Self, Fault> {
        let [scan, process, file, metadata] = root.fields(["scan_results", "process_info", "file_info", "metadata"])?;
        let [started_at] = scan.map_or(Ok([None]), |scan| scan.fields(["start_time"]))?;
        let [uploaded_at, name] =
            file.map_or(Ok([None; 2]), |file| file.fields(["upload_timestamp", "display_name"]))?;
        let [user, profile] = process.map_or(Ok([None; 2]), |process| process.fields(["username", "profile"]))?;
        let at = started_at.and_then(Value::filled).or(uploaded_at.and_then(Value::filled));
        let tenant = user.and_then(Value::filled).or(profile.and_then(Value::filled));
        Ok(Self {
            started_at: at.map(Value::instant).transpose()?,
            name: name.map(Value::text).transpose()?.map(Into::into),
            tenant: tenant.map(Value::text).transpose()?.map(Into::into),
            reference: metadata.and_then(reference_of),
        })
    }

    /// A finding of this scan; `id` is the `data_id`.
    fn finding(&self, subject: Subject, verdict: Verdict, id: Option<Value<'_>>) -> Result<Finding, Fault> {
        let mut finding = Finding::new(subject, verdict);
        finding.event_id = id.map(Value::id).transpose()?;
        finding.analysed_at = self.started_at;
        finding.tenant.clone_from(&self.tenant);
        finding.reference.clone_from(&self.reference);
        Ok(finding)
    }
}

/// The file that was handed in.
fn whole(root: Value<'_>, scan: &Scan, within: &Within) -> Result<Outcome, Fault> {
    let [results, process, file, data_id] = root.fields(["scan_results", "process_info", "file_info", "data_id"])?;
    let results = results.ok_or_else(|| root.missing("scan_results"))?;
    let [code, progress, details, total] =
        results.fields(["scan_all_result_i", "progress_percentage", "scan_details", "total_avs"])?;
    let [process_progress] = process.map_or(Ok([None]), |process| process.fields(["progress_percentage"]))?;
    let own = said(results, code, [progress, process_progress])?;
    let State::Ended(verdict, reason) = within.worsens(own)? else { return Ok(Outcome::NotReady) };
    let file = file.ok_or_else(|| root.missing("file_info"))?;
    let mut subject = hashes(file)?.ok_or_else(|| file.missing("sha256"))?;
    describe(file, &mut subject)?;
    let mut finding = scan.finding(subject, verdict, data_id)?;
    finding.reason = reason;
    finding.policy = process.map_or(Ok(None), policy)?;
    finding.engines = total.map(Value::count).transpose()?;
    if let Some(details) = details {
        let (hits, answered) = engines(details)?;
        hits.put_into(&mut finding);
        finding.engines = Some(answered);
    }
    finding.engines = finding.engines.filter(|answered| *answered > 0);
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// The file of these hashes, which come in either case; none if there is no hash.
fn hashes(file: Value<'_>) -> Result<Option<Subject>, Fault> {
    let [sha256, sha1, md5] = file.fields(["sha256", "sha1", "md5"])?.map(|hash| hash.and_then(Value::filled));
    Ok(Subject::file(
        sha256.map(Value::hash).transpose()?,
        sha1.map(Value::hash).transpose()?,
        md5.map(Value::hash).transpose()?,
    ))
}

fn describe(file: Value<'_>, subject: &mut Subject) -> Result<(), Fault> {
    let [name, size, kind] = file.fields(["display_name", "file_size", "file_type"])?;
    subject.name = name.map(Value::text).transpose()?.map(Into::into);
    subject.size = size.map(Value::whole).transpose()?;
    subject.file_type = kind.and_then(Value::filled).map(Value::text).transpose()?.map(Into::into);
    Ok(())
}

/// What the platform's own rules made of it. Any other word is no approval.
fn policy(process: Value<'_>) -> Result<Option<Approval>, Fault> {
    let [result] = process.fields(["result"])?;
    result.map_or(Ok(None), approval)
}

fn approval(word: Value<'_>) -> Result<Option<Approval>, Fault> {
    Ok(match letters(&word.text()?).as_str() {
        "allowed" => Some(Approval::Approved),
        "blocked" => Some(Approval::NotApproved),
        _ => None,
    })
}

/// The engines that hit, and how many had an opinion, out of the map by engine.
fn engines(details: Value<'_>) -> Result<(Hits, u32), Fault> {
    let (mut hits, mut answered) = (Hits::default(), 0);
    for (engine, said) in details.entries()? {
        let [code, threat] = said.fields(["scan_result_i", "threat_found"])?;
        let Some(code) = code else { continue };
        let State::Ended(verdict, _) = State::of(code.whole()?) else { continue };
        answered += u32::from(verdict != Verdict::Error);
        if verdict.is_detection() {
            let threat = threat.and_then(Value::filled);
            hits.add(verdict, || Ok((engine.into_owned(), threat.map(Value::text).transpose()?.map(Into::into))))?;
        }
    }
    Ok((hits, answered))
}

/// A file as Storage Security reports it.
fn storage_file(root: Value<'_>) -> Result<Outcome, Fault> {
    let [id, name, path, result, state, status, at, exception] = root.fields([
        "FileId",
        "FileName",
        "FilePath",
        "CoreScanResult",
        "FileState",
        "FileStatus",
        "ScanCompletedTimeStamp",
        "ExceptionDetails",
    ])?;
    let state_word = state.map(|state| state.text().map(|word| letters(&word))).transpose()?;
    let has_failed = matches!(state_word.as_deref(), Some("failed" | "canceled" | "cancelled"));
    let said = match result.and_then(Value::filled) {
        Some(result) => verdict_of(result)?,
        None if has_failed => State::Ended(Verdict::Error, None),
        None => return Err(root.missing("CoreScanResult")),
    };
    let State::Ended(mut verdict, mut reason) = said else { return Ok(Outcome::NotReady) };
    if has_failed && !verdict.is_detection() {
        verdict = Verdict::Error;
    } else if verdict == Verdict::Clean && state.is_none() {
        return Err(root.missing("FileState"));
    }
    if verdict == Verdict::Error {
        let told = exception.and_then(Value::filled).map(Value::text).transpose()?;
        reason = told.map(Into::into).or(reason).or_else(|| Some("the file could not be scanned".to_owned()));
    }
    let path = path.and_then(Value::filled).or(name).ok_or_else(|| root.missing("FilePath"))?;
    let id = id.ok_or_else(|| root.missing("FileId"))?.id()?;
    let mut subject = Subject::of(SubjectId::Object { url: path.subject_url()?, etag: id.clone() });
    subject.name = name.map(Value::text).transpose()?.map(Into::into);
    let mut finding = Finding::new(subject, verdict);
    finding.reason = reason;
    finding.event_id = Some(id);
    finding.analysed_at = at.map(Value::instant).transpose()?;
    finding.policy = status.map_or(Ok(None), approval)?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}
