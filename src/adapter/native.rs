//! Our own event as JSON, so that anyone can send verdicts without an adapter.
//!
//! ```json
//! {
//!   "id": "scan-4711",
//!   "subject": {"type": "file", "sha256": "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f",
//!               "sha1": "3395856ce81f2b7382dee72602f798b642f14140", "md5": "44d88612fea8a8f36de82e1278abb02f",
//!               "name": "eicar.com", "size": 68, "file_type": "text/plain"},
//!   "verdict": "malicious",
//!   "score": 92,
//!   "analysed_at": "2026-03-23T12:02:00Z",
//!   "policy": "not_approved",
//!   "detections": [{"engine": "clamav", "name": "Win.Test.EICAR_HDB-1", "verdict": "malicious"}],
//!   "families": ["eicar"], "techniques": ["T1204.002"], "tags": ["test"],
//!   "reason": "matched a test signature",
//!   "report_url": "https://scanner.example.com/scan-4711",
//!   "tenant": "acme", "reference": "build-17", "tlp": "AMBER"
//! }
//! ```
//!
//! Required are `verdict` (`unknown`, `clean`, `error`, `pua`, `suspicious`, `malicious`) and one identifier in `subject`: `sha256`, `sha1`
//! or `md5` (type `file`); `url` (type `url`, also for domains and addresses); `url` and perhaps `etag` (type `object`); or `message_id` (type
//! `message`). `score` is a risk from 0 to 100. A body is one event or a list of events, each bare or as `data` of a CloudEvent; a
//! CloudEvent's `id` and `time` stand in where the event itself has none. Only structured mode counts: the headers of binary mode are not
//! covered by a signature over the body, and whoever repeats a signed body could give it another id and time.
//!
//! Invariant: a word that is not listed here is an error; keys that are not listed are ignored.

use jiff::Timestamp;

use super::items::{Outcomes, each, one};
use super::json::{Document, Fault, Value};
use super::shared::tlp_of;
use super::{Adapter, Hits, NormalizeError, Outcome, score_of};
use crate::delivery::Delivery;
use crate::event::{Approval, Finding, LIST_MAX, Subject, SubjectId, Verdict};

/// The adapter. It has no options.
pub(super) struct Native;

impl Adapter for Native {
    fn provider(&self) -> &'static str {
        "native"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let document = Document::read(delivery.body())?;
        let root = document.root();
        if root.is_list() {
            return each(root, root, |item| message(item, Envelope::default()));
        }
        one(root, message(root, Envelope::default()))
    }
}

/// What a CloudEvent says around an event.
#[derive(Default)]
struct Envelope {
    id: Option<String>,
    time: Option<Timestamp>,
}

/// One event, bare or in a CloudEvent.
fn message(root: Value<'_>, envelope: Envelope) -> Result<Outcome, Fault> {
    let [specversion, id, time, data] = root.fields(["specversion", "id", "time", "data"])?;
    if specversion.is_none() {
        return event(root, envelope);
    }
    let data = data.ok_or_else(|| root.missing("data"))?;
    event(data, Envelope { id: id.map(Value::id).transpose()?, time: time.map(Value::instant).transpose()? })
}

fn event(event: Value<'_>, envelope: Envelope) -> Result<Outcome, Fault> {
    let [id, about, verdict, score, analysed_at, policy] =
        event.fields(["id", "subject", "verdict", "score", "analysed_at", "policy"])?;
    let verdict = verdict_of(verdict.ok_or_else(|| event.missing("verdict"))?)?;
    let subject = subject(about.ok_or_else(|| event.missing("subject"))?)?;
    let mut finding = Finding::new(subject, verdict);
    finding.score = score.map(Value::percent).transpose()?.map(score_of);
    finding.event_id = id.map(Value::id).transpose()?.or(envelope.id);
    finding.analysed_at = analysed_at.map(Value::instant).transpose()?.or(envelope.time);
    finding.policy = policy.map(policy_of).transpose()?;
    describe(event, &mut finding)?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

fn subject(about: Value<'_>) -> Result<Subject, Fault> {
    let [kind, sha256, sha1, md5, url, etag, message_id] =
        about.fields(["type", "sha256", "sha1", "md5", "url", "etag", "message_id"])?;
    let sha1 = sha1.map(Value::hash).transpose()?;
    let md5 = md5.map(Value::hash).transpose()?;
    let file = Subject::file(sha256.map(Value::hash).transpose()?, sha1, md5);
    let etag = etag.map(Value::id).transpose()?;
    let kind_word = kind.map(Value::text).transpose()?;
    let is_object = etag.is_some() || kind_word.as_deref() == Some("object");
    let mut subject = match (file, url, message_id) {
        (Some(file), _, _) => file,
        (None, Some(url), _) if is_object => {
            Subject::of(SubjectId::Object { url: url.subject_url()?, etag: etag.unwrap_or_default() })
        }
        (None, Some(url), _) => Subject::of(SubjectId::Url(url.subject_url()?)),
        (None, None, Some(id)) => Subject::of(SubjectId::Message(id.id()?)),
        (None, None, None) => return Err(about.fault("no identifier: give sha256, sha1, md5, url or message_id")),
    };
    if let (Some(kind), Some(word)) = (kind, kind_word)
        && word != subject.kind()
    {
        return Err(
            kind.fault("does not fit the identifiers (file: a hash, url and object: a url, message: message_id)")
        );
    }
    let [name, size, file_type] = about.fields(["name", "size", "file_type"])?;
    subject.name = name.map(Value::text).transpose()?.map(Into::into);
    subject.size = size.map(Value::whole).transpose()?;
    subject.file_type = file_type.map(Value::text).transpose()?.map(Into::into);
    Ok(subject)
}

/// Everything that is neither subject nor verdict.
fn describe(event: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [detections, engines, families, threat, techniques, tags] =
        event.fields(["detections", "engines", "families", "threat", "techniques", "tags"])?;
    let [reason, report_url, hunting_rule, tenant, reference, tlp] =
        event.fields(["reason", "report_url", "hunting_rule", "tenant", "reference", "tlp"])?;
    if let Some(detections) = detections {
        let mut hits = Hits::default();
        for detection in detections.list()? {
            hit(detection, finding.verdict, &mut hits)?;
        }
        hits.put_into(finding);
    }
    let text = |value: Option<Value<'_>>| value.map(|value| value.text().map(Into::into)).transpose();
    let list = |value: Option<Value<'_>>| value.map_or(Ok(Vec::new()), |value| value.texts(LIST_MAX + 1));
    finding.engines = engines.map(Value::count).transpose()?;
    finding.families = list(families)?;
    finding.threat = text(threat)?;
    finding.techniques = list(techniques)?;
    if let Some(techniques) = techniques
        && !finding.techniques.iter().all(|technique| is_technique(technique))
    {
        return Err(techniques.fault("expected ids of MITRE ATT&CK techniques like T1055 or T1055.012"));
    }
    finding.tags = list(tags)?;
    finding.reason = text(reason)?;
    finding.report_url = report_url.map_or(Ok(None), Value::link)?;
    finding.hunting_rule = text(hunting_rule)?;
    finding.tenant = tenant.map(Value::id).transpose()?;
    finding.reference = reference.map(Value::id).transpose()?;
    finding.tlp = tlp.map(mark_of).transpose()?;
    Ok(())
}

fn verdict_of(word: Value<'_>) -> Result<Verdict, Fault> {
    let text = word.text()?;
    let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.word() == text);
    verdict.ok_or_else(|| word.fault("expected unknown, clean, error, pua, suspicious or malicious"))
}

fn policy_of(word: Value<'_>) -> Result<Approval, Fault> {
    let text = word.text()?;
    let all = [Approval::Approved, Approval::NotApproved, Approval::PendingReview];
    let policy = all.into_iter().find(|policy| policy.word() == text);
    policy.ok_or_else(|| word.fault("expected approved, not_approved or pending_review"))
}

/// A hit whose own verdict is not given is as bad as the event.
fn hit(detection: Value<'_>, verdict: Verdict, hits: &mut Hits) -> Result<(), Fault> {
    let [engine, name, own] = detection.fields(["engine", "name", "verdict"])?;
    let verdict = match own.map(verdict_of).transpose()? {
        Some(own) if !own.is_detection() => return Ok(()),
        Some(own) => own,
        None if verdict.is_detection() => verdict,
        None => Verdict::Suspicious,
    };
    hits.add(verdict, || {
        let engine = engine.ok_or_else(|| detection.missing("engine"))?.text()?.into_owned();
        Ok((engine, name.map(Value::text).transpose()?.map(Into::into)))
    })
}

pub(super) fn mark_of(mark: Value<'_>) -> Result<String, Fault> {
    tlp_of(&mark.text()?).ok_or_else(|| mark.fault("expected CLEAR, WHITE, GREEN, AMBER, AMBER+STRICT or RED"))
}

/// `T` and four digits, then perhaps a dot and three digits.
pub(super) fn is_technique(id: &str) -> bool {
    let are_digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = id.strip_prefix('T') else { return false };
    match number.split_once('.') {
        Some((technique, part)) => are_digits(technique, 4) && are_digits(part, 3),
        None => are_digits(number, 4),
    }
}
