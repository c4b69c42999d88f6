//! Reports of VirusTotal's API v2: still sent by many tools.
//!
//! Invariant: what VirusTotal does not know is an unknown verdict without a time or id, never a clean one.
//!
//! Not here: v3 and the choice between the two (`virustotal`).

use std::borrow::Cow;

use jiff::{civil::DateTime, tz::TimeZone};

use super::VirusTotal;
use super::opinion::{Counts, ENGINES_MAX, Opinion};
use crate::adapter::json::{Fault, Value};
use crate::adapter::{Hits, Outcome};
use crate::event::{Finding, Subject, SubjectId, TEXT_BYTES_MAX, Verdict};

impl VirusTotal {
    /// A report of a file or URL; `code` is its `response_code`: 1 known, 0 not known, -2 still queued.
    pub(super) fn report_v2(&self, report: Value<'_>, code: Value<'_>) -> Result<Outcome, Fault> {
        match code.id()?.as_str() {
            "1" => self.known(report),
            "0" => unknown(report),
            "-2" => Ok(Outcome::NotReady),
            _ => Err(code.fault("expected 1, 0 or -2")),
        }
    }

    fn known(&self, report: Value<'_>) -> Result<Outcome, Fault> {
        let [positives, total, scans, scan_id, scan_date, permalink] =
            report.fields(["positives", "total", "scans", "scan_id", "scan_date", "permalink"])?;
        let hits = scans.map_or(Ok(Hits::default()), hits_of_scans)?;
        let positives = positives.ok_or_else(|| report.missing("positives"))?;
        let malicious = positives.count()?.max(hits.malicious());
        let total = total.map_or(Ok(malicious), Value::count)?;
        if malicious > total || total > ENGINES_MAX {
            return Err(positives.fault("more engines than there can be, or than total says"));
        }
        let counts = Counts { malicious, undetected: total - malicious, ..Counts::default() };
        let opinion = Opinion { counts, hits, assessment: None, missing: None };
        let mut finding = self.judge(subject(report)?, opinion)?;
        finding.analysed_at = match scan_date {
            // Without a zone; it is UTC.
            Some(date) => {
                let at = date.text()?.parse::<DateTime>().ok().and_then(|at| at.to_zoned(TimeZone::UTC).ok());
                Some(at.ok_or_else(|| date.fault("expected a time like 2026-03-23 11:58:00"))?.timestamp())
            }
            None => None,
        };
        let in_scan_id = scan_id.map(Value::text).transpose()?;
        let epoch = in_scan_id.as_deref().and_then(|id| id.rsplit_once('-')).map(|(_, epoch)| epoch);
        let epoch =
            epoch.filter(|epoch| !epoch.is_empty() && epoch.len() <= 20 && epoch.bytes().all(|b| b.is_ascii_digit()));
        let epoch = epoch.map(Cow::from).or_else(|| Some(finding.analysed_at?.as_second().to_string().into()));
        finding.event_id = epoch.and_then(|epoch| {
            let id = match finding.subject.id() {
                SubjectId::Sha256(hash) => format!("file:{hash}:{epoch}"),
                SubjectId::Sha1(hash) => format!("file:{hash}:{epoch}"),
                SubjectId::Md5(hash) => format!("file:{hash}:{epoch}"),
                _ => format!("url:{}:{epoch}", in_scan_id.as_deref()?.split('-').next()?),
            };
            (id.len() <= TEXT_BYTES_MAX).then_some(id)
        });
        finding.report_url = permalink.map_or(Ok(None), Value::link)?;
        Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
    }
}

/// VirusTotal does not know it: an answer without a time.
fn unknown(report: Value<'_>) -> Result<Outcome, Fault> {
    let mut finding = Finding::new(subject(report)?, Verdict::Unknown);
    finding.reason = Some("not known to VirusTotal".to_owned());
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// Its hashes, else its URL, else what was asked for.
fn subject(report: Value<'_>) -> Result<Subject, Fault> {
    let [sha256, sha1, md5, url, resource] = report.fields(["sha256", "sha1", "md5", "url", "resource"])?;
    let file = Subject::file(
        sha256.map(Value::hash).transpose()?,
        sha1.map(Value::hash).transpose()?,
        md5.map(Value::hash).transpose()?,
    );
    if let Some(file) = file {
        return Ok(file);
    }
    if let Some(url) = url {
        return Ok(Subject::of(SubjectId::Url(url.subject_url()?)));
    }
    let resource = resource.ok_or_else(|| report.missing("resource"))?;
    let text = resource.text()?;
    let asked = Subject::file(text.parse().ok(), text.parse().ok(), text.parse().ok());
    match asked {
        Some(file) => Ok(file),
        None if text.contains("://") => Ok(Subject::of(SubjectId::Url(resource.subject_url()?))),
        None => Err(resource.fault("neither a hash nor a URL")),
    }
}

/// The engines that hit, out of the map by engine.
fn hits_of_scans(scans: Value<'_>) -> Result<Hits, Fault> {
    let mut hits = Hits::default();
    for (engine, scan) in scans.entries()? {
        let [detected, result] = scan.fields(["detected", "result"])?;
        if detected.is_some_and(Value::is_true) {
            let result = result.map(Value::text).transpose()?;
            hits.add(Verdict::Malicious, || Ok((engine.into_owned(), result.map(Into::into))))?;
        }
    }
    Ok(hits)
}
