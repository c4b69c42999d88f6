//! Assemblyline 4: the webhook of a post-process action, `{is_cache, score, submission}`, and a submission as the API answers it,
//! `{api_response}`.
//!
//! The score belongs to the submission, and so does the verdict: the first file is its subject, every further one is named by a tag
//! `related:<sha256>`. A submission that was answered from the cache (`is_cache`) comes in another, shorter form. Thresholds are those of
//! the platform's defaults: malicious from 1000, suspicious from 300, else clean ("info" and "safe").
//!
//! Invariants: clean needs a score, a submission that completed, and no service that failed; a score that stands twice stands alike.

use super::items::{Outcomes, one};
use super::json::{Document, Fault, Value};
use super::shared::{reference_of, tlp_of};
use super::{Adapter, FetchId, NormalizeError, Outcome};
use crate::delivery::Delivery;
use crate::event::{Finding, LIST_MAX, Sha256, Subject, SubjectId, TEXT_BYTES_MAX, Verdict};

/// The adapter. It has no options.
pub(super) struct Assemblyline;

impl Adapter for Assemblyline {
    fn provider(&self) -> &'static str {
        "Assemblyline"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let document = Document::read(delivery.body())?;
        let root = document.root();
        one(root, message(root))
    }

    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        let id = finding.event_id.as_deref()?;
        FetchId::new("submission", id.strip_suffix(CACHED).unwrap_or(id))
    }
}

fn message(root: Value<'_>) -> Result<Outcome, Fault> {
    let [is_cache, score, submission, answer] = root.fields(["is_cache", "score", "submission", "api_response"])?;
    let submission = submission.or(answer).ok_or_else(|| root.unknown("no submission of Assemblyline"))?;
    let is_cache = is_cache.is_some_and(Value::is_true);
    let [sid, files, max_score, times] = submission.fields(["sid", "files", "max_score", "times"])?;
    let score = match (score, max_score) {
        (Some(score), Some(max)) if score.integer()? != max.integer()? => {
            return Err(max.fault("another score than the one beside the submission"));
        }
        (Some(score), _) | (None, Some(score)) => score.integer()?,
        (None, None) => return Err(root.missing("score")),
    };
    let Some((verdict, reason)) = verdict_of(submission, score, is_cache)? else { return Ok(Outcome::NotReady) };
    let (subject, related) = subjects(submission, files.ok_or_else(|| submission.missing("files"))?)?;
    let mut finding = Finding::new(subject, verdict);
    finding.reason = reason;
    if verdict != Verdict::Error {
        // A tenth, half up: 1000 and more is 100.
        finding.score = u8::try_from((score.clamp(0, MALICIOUS_MIN) + 5) / 10).ok();
    }
    finding.tags.extend(related.map(|hash| format!("related:{hash}")));
    let [completed] = times.map_or(Ok([None]), |times| times.fields(["completed"]))?;
    finding.analysed_at = completed.map(Value::instant).transpose()?;
    let sid = sid.map(Value::id).transpose()?;
    finding.event_id = sid.map(|sid| if is_cache { sid + CACHED } else { sid }).filter(|id| id.len() <= TEXT_BYTES_MAX);
    describe(submission, &mut finding)?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// The verdict, and why; none while the submission goes on.
fn verdict_of(submission: Value<'_>, score: i64, is_cache: bool) -> Result<Option<(Verdict, Option<String>)>, Fault> {
    let [state, error_count, errors] = submission.fields(["state", "error_count", "errors"])?;
    let by_score = match score {
        MALICIOUS_MIN.. => Verdict::Malicious,
        SUSPICIOUS_MIN.. => Verdict::Suspicious,
        _ => Verdict::Clean,
    };
    let state_word = state.map(Value::text).transpose()?;
    match (state, state_word.as_deref()) {
        (_, Some("completed")) => {}
        (Some(state), Some(_)) if is_cache => {
            return Err(state.fault("an answer from the cache is of a submission that completed"));
        }
        (_, Some("submitted")) => return Ok(None),
        (_, Some("failed")) if !by_score.is_detection() => {
            return Ok(Some((Verdict::Error, Some("the submission failed".to_owned()))));
        }
        (_, Some("failed")) => {}
        (Some(state), Some(_)) => return Err(state.fault("expected submitted, completed or failed")),
        // The form of a cache hit has no state: it is the result of a submission that completed before.
        _ if is_cache || by_score.is_detection() => return Ok(Some((by_score, None))),
        _ => return Err(submission.missing("state")),
    }
    if by_score.is_detection() {
        return Ok(Some((by_score, None)));
    }
    let error_count = error_count.ok_or_else(|| submission.missing("error_count"))?;
    let failed = error_count.count()?;
    let listed = errors.map(Value::list).transpose()?.into_iter().flatten().count();
    match failed {
        _ if u64::from(failed) < listed as u64 => Err(error_count.fault("fewer errors than are listed")),
        0 => Ok(Some((by_score, None))),
        _ => Ok(Some((Verdict::Error, Some(format!("{failed} services failed, so a low score says little"))))),
    }
}

/// The first file, and the hashes of the further ones.
fn subjects<'d>(submission: Value<'d>, files: Value<'d>) -> Result<(Subject, impl Iterator<Item = Sha256>), Fault> {
    let mut files = files.list()?;
    let first = files.next().ok_or_else(|| submission.missing("files"))?;
    let [sha256, name, size] = first.fields(["sha256", "name", "size"])?;
    let mut subject = Subject::of(SubjectId::Sha256(sha256.ok_or_else(|| first.missing("sha256"))?.hash()?));
    subject.name = name.map(Value::text).transpose()?.map(Into::into);
    subject.size = size.map(Value::whole).transpose()?;
    let mut related = Vec::new();
    for file in files.take(LIST_MAX + 1) {
        let [sha256] = file.fields(["sha256"])?;
        related.push(sha256.ok_or_else(|| file.missing("sha256"))?.hash()?);
    }
    Ok((subject, related.into_iter()))
}

/// Marks, references and who submitted it.
fn describe(submission: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [classification, metadata, params] = submission.fields(["classification", "metadata", "params"])?;
    let [groups, params_classification] =
        params.map_or(Ok([None; 2]), |params| params.fields(["groups", "classification"]))?;
    if let Some(classification) = classification.or(params_classification).and_then(Value::filled) {
        let mark = classification.text()?;
        // Markings beyond TLP (who it may be released to) must not be lost on the way.
        if mark.contains("//") {
            finding.tags.push(format!("classification:{mark}"));
        }
        finding.tlp = Some(tlp_of(&mark).unwrap_or_else(|| mark.to_uppercase()));
    }
    finding.reference = metadata.and_then(reference_of);
    finding.tenant = groups.map_or(Ok(Vec::new()), |groups| groups.texts(1))?.pop();
    Ok(())
}

const MALICIOUS_MIN: i64 = 1000;
const SUSPICIOUS_MIN: i64 = 300;
/// Ends the id of an answer from the cache: the same submission may be answered again and again.
const CACHED: &str = ":cache";
