//! Amazon Web Services: results of GuardDuty Malware Protection for S3, as EventBridge events, bare or within SNS notifications.
//!
//! An SNS envelope carries its message as JSON in a text; the event within is what counts, so the same event by EventBridge and by SNS
//! is one. An object is known by its URL (`s3://bucket/key`) and entity tag: GuardDuty gives no hash. SNS's own handshakes are nothing
//! here: the receiver confirms a subscription.
//!
//! Invariants: clean needs a scan that completed and says so; envelopes within envelopes are followed a fixed number of times.

use jiff::Timestamp;

use super::items::{Outcomes, each, one};
use super::json::{Document, Fault, Value};
use super::shared::{letters, name_in};
use super::{Adapter, Hits, NormalizeError, Outcome};
use crate::delivery::Delivery;
use crate::event::{Finding, LIST_MAX, Subject, SubjectId, URL_BYTES_MAX, Verdict};

/// The adapter. It has no options.
pub(super) struct Aws;

impl Adapter for Aws {
    fn provider(&self) -> &'static str {
        "Amazon GuardDuty"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        message(delivery.body(), &Envelope::default(), ENVELOPES_MAX)
    }
}

/// What SNS says around a message, for one that says less itself.
#[derive(Default)]
struct Envelope {
    id: Option<String>,
    time: Option<Timestamp>,
}

/// A notification of SNS, an event or a list of events; `envelopes` is how many more may be opened.
fn message(body: &[u8], outer: &Envelope, envelopes: usize) -> Result<Outcomes, NormalizeError> {
    let document = Document::read(body)?;
    let root = document.root();
    if root.is_list() {
        return each(root, root, |item| event(item, outer));
    }
    let [kind, text, id, time] =
        root.fields(["Type", "Message", "MessageId", "Timestamp"]).map_err(|fault| fault.refuses(root))?;
    let Some(kind) = kind else { return one(root, event(root, outer)) };
    let open = || match &*kind.text()? {
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => Ok(None),
        "Notification" => {
            let text = text.ok_or_else(|| root.missing("Message"))?;
            let inner = Envelope { id: id.map(Value::id).transpose()?, time: time.map(Value::instant).transpose()? };
            let left = envelopes.checked_sub(1).ok_or_else(|| text.fault("an envelope within too many others"))?;
            Ok(Some((text.text()?, inner, left)))
        }
        _ => Err(kind.unknown("a message of SNS of a type that this version does not know")),
    };
    let Some((text, inner, left)) = open().map_err(|fault: Fault| fault.refuses(root))? else {
        return Ok(vec![Ok(Outcome::Ignore)]);
    };
    message(text.as_bytes(), &inner, left).map_err(within_message)
}

/// Says that the fault is in the message of an envelope.
fn within_message(error: NormalizeError) -> NormalizeError {
    let tell = |words: String| format!("Message: {words}");
    match error {
        NormalizeError::Json(words) => NormalizeError::Json(tell(words)),
        NormalizeError::Unknown(words) => NormalizeError::Unknown(tell(words)),
        NormalizeError::Field(words) => NormalizeError::Field(tell(words)),
    }
}

/// An event of EventBridge.
fn event(event: Value<'_>, envelope: &Envelope) -> Result<Outcome, Fault> {
    let [kind, id, time, account, detail] = event.fields(["detail-type", "id", "time", "account", "detail"])?;
    let kind = kind.ok_or_else(|| event.unknown("neither an event of EventBridge nor a notification of SNS"))?;
    match &*kind.text()? {
        "GuardDuty Malware Protection Object Scan Result" => {}
        // The state of a protection plan, a tag that could not be set.
        other if other.starts_with("GuardDuty Malware Protection") => return Ok(Outcome::Ignore),
        _ => return Err(kind.unknown("an event of a type that this version does not know")),
    }
    let mut finding = scan_result(detail.ok_or_else(|| event.missing("detail"))?)?;
    finding.event_id = id.map(Value::id).transpose()?.or_else(|| envelope.id.clone());
    finding.analysed_at = time.map(Value::instant).transpose()?.or(envelope.time);
    finding.tenant = account.map(Value::id).transpose()?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

fn scan_result(detail: Value<'_>) -> Result<Finding, Fault> {
    let [scan_status, resource, object, result] =
        detail.fields_in_any_spelling(["scanStatus", "resourceType", "s3ObjectDetails", "scanResultDetails"])?;
    if let Some(resource) = resource
        && resource.text()? != "S3_OBJECT"
    {
        return Err(resource.unknown("the scan of something else than an object of S3"));
    }
    let [status, threats, reasons] = result.map_or(Ok([None; 3]), |result| {
        result.fields_in_any_spelling(["scanResultStatus", "threats", "statusReasons"])
    })?;
    let (verdict, reason) = verdict_of(detail, scan_status, status)?;
    let (subject, version) = subject(object.ok_or_else(|| detail.missing("s3ObjectDetails"))?)?;
    let mut finding = Finding::new(subject, verdict);
    finding.tags.extend(version);
    let mut hits = Hits::default();
    for threat in threats.map(Value::list).transpose()?.into_iter().flatten() {
        if verdict == Verdict::Clean {
            return Err(threat.fault("a threat stands beside a result that says there is none"));
        }
        let [name] = threat.fields(["name"])?;
        hits.add(Verdict::Malicious, || {
            Ok(("GuardDuty".to_owned(), name.map(Value::text).transpose()?.map(Into::into)))
        })?;
    }
    hits.put_into(&mut finding);
    let told = reasons.map_or(Ok(Vec::new()), |reasons| reasons.texts(LIST_MAX))?;
    finding.reason = match (reason, told.is_empty()) {
        (Some(reason), false) => Some(format!("{reason}: {}", told.join(", "))),
        (reason, true) => reason.map(Into::into),
        (None, false) => Some(told.join(", ")),
    };
    Ok(finding)
}

/// The verdict, with the reason of an error. AWS's own type definitions spell some words otherwise than the service does.
fn verdict_of(
    detail: Value<'_>,
    scan_status: Option<Value<'_>>,
    status: Option<Value<'_>>,
) -> Result<(Verdict, Option<&'static str>), Fault> {
    let word = |value: Option<Value<'_>>| value.map(|value| value.text().map(|word| letters(&word))).transpose();
    let scan_word = word(scan_status)?;
    let is_completed = scan_word.as_deref() == Some("completed");
    let verdict = match (word(status)?.as_deref(), scan_word.as_deref()) {
        (Some("threatsfound" | "threatfound"), _) => return Ok((Verdict::Malicious, None)),
        (Some("nothreatsfound" | "nothreatfound"), Some(_)) if is_completed => return Ok((Verdict::Clean, None)),
        (Some("nothreatsfound" | "nothreatfound"), Some(_)) => "the scan did not complete",
        (Some("nothreatsfound" | "nothreatfound"), None) => return Err(detail.missing("scanStatus")),
        (Some("unsupported"), _) => "an object that GuardDuty does not support",
        (Some("accessdenied"), _) => "GuardDuty may not read the object",
        (Some("failed"), _) | (None, Some("failed")) => "the scan failed",
        (Some("skipped"), _) | (None, Some("skipped")) => "the scan was skipped",
        (None, _) => return Err(detail.missing("scanResultDetails.scanResultStatus")),
        (Some(_), _) => {
            return Err(status.unwrap_or(detail).fault("a result that this version does not know"));
        }
    };
    Ok((Verdict::Error, Some(verdict)))
}

/// The object, and its version as a tag.
fn subject(object: Value<'_>) -> Result<(Subject, Option<String>), Fault> {
    let [bucket, key, etag, version] =
        object.fields_in_any_spelling(["bucketName", "objectKey", "eTag", "versionId"])?;
    let bucket = bucket.ok_or_else(|| object.missing("bucketName"))?.text()?;
    let key = key.ok_or_else(|| object.missing("objectKey"))?;
    let key_text = key.text()?;
    let url = format!("s3://{bucket}/{key_text}");
    if url.len() > URL_BYTES_MAX {
        return Err(key.fault("the URL of the object is longer than 2048 bytes"));
    }
    let etag = etag.and_then(Value::filled).map(Value::id).transpose()?;
    // A bucket without versions says so with the word.
    let version = version.and_then(Value::filled).map(Value::id).transpose()?.filter(|version| version != "null");
    let etag = etag.or_else(|| version.clone()).unwrap_or_default();
    let mut subject = Subject::of(SubjectId::Object { url, etag });
    subject.name = name_in(&key_text);
    Ok((subject, version.map(|version| format!("version:{version}"))))
}

/// SNS puts a message into one envelope; a topic that feeds a topic puts it into another.
const ENVELOPES_MAX: usize = 3;
