//! CAPE sandbox, and what of Cuckoo is alike: the callback, which is only the number of a task, and the report that it points to.
//!
//! Times have no zone and are UTC. The score of 0 to 10 becomes one of 0 to 100; signatures are no hits of engines and do not count as
//! such. `info.tlp` is the mark of the submitter, `info.custom` the submitter's own reference.
//!
//! Invariants: the verdict comes from `malstatus`; without it the score can only make it worse, never clean; an analysis that had
//! errors and found nothing is an error.
//!
//! Not here: fetching the report (`poll`).

use super::items::{Outcomes, one};
use super::json::{Document, Fault, Value};
use super::native::is_technique;
use super::shared::{file_subject, letters, tlp_of};
use super::{Adapter, FetchId, NormalizeError, Outcome, score_of};
use crate::delivery::Delivery;
use crate::event::{Finding, LIST_MAX, Subject, SubjectId, TEXT_BYTES_MAX, Verdict};

/// The adapter. It has no options.
pub(super) struct Cape;

impl Adapter for Cape {
    fn provider(&self) -> &'static str {
        "CAPE"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        if let Some(pointer) = form(delivery.body()) {
            return Ok(vec![Ok(Outcome::Pointer(pointer?))]);
        }
        let document = Document::read(delivery.body())?;
        let root = document.root();
        one(root, message(root))
    }

    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        task(finding.event_id.as_deref()?.strip_prefix(EVENT)?)
    }
}

/// The task of a form as Cuckoo sends it (`task_id=7&identifier=..`); none if the body is no such form.
fn form(body: &[u8]) -> Option<Result<FetchId, NormalizeError>> {
    if !body.first()?.is_ascii_alphabetic() {
        return None;
    }
    let mut tasks = body.split(|&byte| byte == b'&').filter_map(|field| field.strip_prefix(b"task_id="));
    let id = std::str::from_utf8(tasks.next()?).ok().and_then(task).filter(|_| tasks.next().is_none());
    Some(id.ok_or_else(|| NormalizeError::Field("task_id: expected the number of one task".to_owned())))
}

fn task(id: &str) -> Option<FetchId> {
    FetchId::new("task", id).filter(|_| id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A report, a callback, or what the API says instead of a report.
fn message(root: Value<'_>) -> Result<Outcome, Fault> {
    let [info, task_id, error, error_value] = root.fields(["info", "task_id", "error", "error_value"])?;
    match (info, task_id, error) {
        (Some(info), _, _) => report(root, info),
        (None, Some(id), _) => {
            let pointer = task(&id.id()?).map(Outcome::Pointer);
            pointer.ok_or_else(|| id.fault("expected the number of a task"))
        }
        (None, None, Some(error)) if error.is_true() => match error_value.map(Value::text).transpose()?.as_deref() {
            Some("Task is still being analyzed") => Ok(Outcome::NotReady),
            _ => Err(error.fault("CAPE answered with an error instead of a report: look for the task there")),
        },
        (None, None, Some(_)) => Ok(Outcome::Ignore),
        (None, None, None) => Err(root.unknown("neither a callback nor a report of CAPE")),
    }
}

fn report(root: Value<'_>, info: Value<'_>) -> Result<Outcome, Fault> {
    let [status, score, target, debug] = root.fields(["malstatus", "malscore", "target", "debug"])?;
    let score = match score {
        Some(score) => {
            let number = score.number(SCORE_MAX);
            Some(number.ok_or_else(|| score.fault("expected a number from 0 to 10"))?)
        }
        None => None,
    };
    let trouble = debug.map_or(Ok(None), first_error)?;
    let (verdict, reason) = verdict_of(root, status, score, trouble)?;
    let mut finding = Finding::new(subject(target.ok_or_else(|| root.missing("target"))?)?, verdict);
    finding.reason = reason;
    finding.score = match verdict {
        Verdict::Error => None,
        // Nothing that was seen is no "0, safe".
        Verdict::Unknown => score.filter(|score| *score > 0.0),
        _ => score,
    }
    .map(|score| score_of(score * 100.0 / SCORE_MAX));
    let [id, ended, tlp, custom] = info.fields(["id", "ended", "tlp", "custom"])?;
    let event_id = id.map(|id| id.id().map(|id| format!("{EVENT}{id}"))).transpose()?;
    finding.event_id = event_id.filter(|id| id.len() <= TEXT_BYTES_MAX);
    finding.analysed_at = ended.and_then(Value::filled).map(Value::instant_or_utc).transpose()?;
    finding.reference = custom.and_then(Value::filled).map(Value::text).transpose()?.map(Into::into);
    if let Some(tlp) = tlp.and_then(Value::filled) {
        let mark = tlp.text()?;
        finding.tlp = Some(tlp_of(&mark).unwrap_or_else(|| mark.to_uppercase()));
    }
    describe(root, &mut finding)?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// The verdict, and why. `trouble` is the first error of the analysis.
fn verdict_of(
    root: Value<'_>,
    status: Option<Value<'_>>,
    score: Option<f64>,
    trouble: Option<String>,
) -> Result<(Verdict, Option<String>), Fault> {
    let word = status.map(|status| status.text().map(|word| letters(&word))).transpose()?;
    let (verdict, reason) = match (word.as_deref(), score) {
        // CAPE gives no status to what is no executable. Then its own bounds for a score count.
        (Some("malicious"), _) | (None, Some(MALICIOUS_MIN..)) => (Verdict::Malicious, None),
        (Some("suspicious"), _) | (None, Some(SUSPICIOUS_MIN..)) => (Verdict::Suspicious, None),
        (Some("clean"), _) => (Verdict::Clean, None),
        (Some("undetected"), _) => (Verdict::Unknown, Some("no signature matched")),
        (Some("failed"), _) => (Verdict::Error, Some("the sample did not run")),
        (Some(_), _) => return Err(status.unwrap_or(root).fault("a status that this version does not know")),
        (None, Some(_)) => (Verdict::Unknown, Some("CAPE gave a low score and no status")),
        (None, None) => return Err(root.missing("malstatus")),
    };
    match trouble {
        Some(trouble) if !verdict.is_detection() => Ok((Verdict::Error, Some(trouble))),
        _ => Ok((verdict, reason.map(Into::into))),
    }
}

/// What went wrong in the analysis, if anything did.
fn first_error(debug: Value<'_>) -> Result<Option<String>, Fault> {
    let [errors] = debug.fields(["errors"])?;
    let Some(error) = errors.map(Value::list).transpose()?.and_then(|mut errors| errors.next()) else {
        return Ok(None);
    };
    let words = error.text().ok().filter(|words| !words.is_empty());
    Ok(Some(words.map_or_else(|| "the analysis had errors".to_owned(), Into::into)))
}

fn subject(target: Value<'_>) -> Result<Subject, Fault> {
    let [file, url] = target.fields(["file", "url"])?;
    let Some(file) = file else {
        let url = url.ok_or_else(|| target.missing("file"))?;
        return Ok(Subject::of(SubjectId::Url(url.subject_url()?)));
    };
    file_subject(file, file.fields(["sha256", "sha1", "md5", "name", "size", "type"])?)
}

/// Families and techniques, in the forms of several versions.
fn describe(root: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [detections, ttps] = root.fields(["detections", "ttps"])?;
    match detections {
        Some(list) if list.is_list() => {
            for detection in list.list()?.take(LIST_MAX + 1) {
                let [family] = detection.fields(["family"])?;
                finding.families.extend(family.map(Value::text).transpose()?.map(String::from));
            }
        }
        Some(family) => finding.families.extend(family.filled().map(Value::text).transpose()?.map(String::from)),
        None => {}
    }
    let Some(ttps) = ttps.filter(|ttps| ttps.is_list()) else { return Ok(()) };
    for entry in ttps.list()? {
        let [several, single] = entry.fields(["ttps", "ttp"])?;
        let mut ids = several.map_or(Ok(Vec::new()), |ids| ids.texts(LIST_MAX))?;
        ids.extend(single.map(Value::text).transpose()?.map(String::from));
        for id in ids.into_iter().filter(|id| is_technique(id)) {
            if finding.techniques.len() <= LIST_MAX && !finding.techniques.contains(&id) {
                finding.techniques.push(id);
            }
        }
    }
    Ok(())
}

const SCORE_MAX: f64 = 10.0;
const MALICIOUS_MIN: f64 = 7.0;
const SUSPICIOUS_MIN: f64 = 4.0;
/// Begins the id of an event: the number of a task alone says little where several sources meet.
const EVENT: &str = "cape:";
