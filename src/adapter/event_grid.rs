//! Azure Event Grid, in its own schema and as CloudEvents 1.0: results of the malware scan of Microsoft Defender for Storage.
//!
//! A body is a list of events or one event. A blob whose SHA-256 is given is known by that, any other by its URL and entity tag.
//! What Event Grid says of itself (the handshake of a new subscription, its end) and what a storage account does (a blob was created)
//! is no result. The receiver answers handshakes; here they are nothing.
//!
//! Invariant: the verdict comes from `scanResultType` alone, and "no threats" beside the name of one is refused.

use jiff::Timestamp;

use super::items::{Outcomes, each, one};
use super::json::{Document, Fault, Value};
use super::shared::{letters, name_in};
use super::{Adapter, Hits, NormalizeError, Outcome};
use crate::delivery::Delivery;
use crate::event::{Finding, Subject, SubjectId, Verdict};

/// The adapter. It has no options.
pub(super) struct EventGrid;

impl Adapter for EventGrid {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let document = Document::read(delivery.body())?;
        let root = document.root();
        if root.is_list() { each(root, root, event) } else { one(root, event(root)) }
    }
}

/// What stands around a result.
struct Envelope {
    id: Option<String>,
    time: Option<Timestamp>,
    /// The topic or source: a resource of the subscription that sent it.
    tenant: Option<String>,
}

fn event(event: Value<'_>) -> Result<Outcome, Fault> {
    let [own_type, own_time, topic, data] = event.fields(["eventType", "eventTime", "topic", "data"])?;
    let [specversion, cloud_type, cloud_time, source, id] =
        event.fields(["specversion", "type", "time", "source", "id"])?;
    let (kind, time, tenant) = match (own_type, specversion) {
        (Some(kind), None) => (kind, own_time, topic),
        (None, Some(_)) => (cloud_type.ok_or_else(|| event.missing("type"))?, cloud_time, source),
        (Some(_), Some(version)) => {
            return Err(version.fault("stands beside an eventType, so which of two schemas is meant is a guess"));
        }
        (None, None) => return Err(event.unknown("neither an Event Grid event nor a CloudEvent")),
    };
    match &*kind.text()? {
        "Microsoft.Security.MalwareScanningResult" => {}
        other if NO_RESULTS.iter().any(|prefix| other.starts_with(prefix)) => return Ok(Outcome::Ignore),
        _ => return Err(kind.unknown("an event of a type that this version does not know")),
    }
    let envelope = Envelope {
        id: id.map(Value::id).transpose()?,
        time: time.map(Value::instant).transpose()?,
        tenant: tenant.and_then(Value::filled).map(Value::id).transpose()?,
    };
    scan_result(data.ok_or_else(|| event.missing("data"))?, envelope)
}

fn scan_result(data: Value<'_>, envelope: Envelope) -> Result<Outcome, Fault> {
    let [kind, details, finished_at, correlation_id] =
        data.fields_in_any_spelling(["scanResultType", "scanResultDetails", "scanFinishedTimeUtc", "correlationId"])?;
    let kind = kind.ok_or_else(|| data.missing("scanResultType"))?;
    let verdict = match letters(&kind.text()?).as_str() {
        "nothreatsfound" | "nothreatfound" => Verdict::Clean,
        "malicious" => Verdict::Malicious,
        "error" | "notscanned" => Verdict::Error,
        _ => return Err(kind.fault("a result that this version does not know")),
    };
    let [names, sha256, not_scanned] = details.map_or(Ok([None; 3]), |details| {
        details.fields_in_any_spelling(["malwareNamesFound", "sha256", "notScannedReason"])
    })?;
    let (subject, place) = subject(data, sha256.and_then(Value::filled))?;
    let mut finding = Finding::new(subject, verdict);
    if let Some(names) = names {
        let mut hits = Hits::default();
        for name in names.list()? {
            if verdict == Verdict::Clean {
                return Err(name.fault("malware stands beside a result that says there is none"));
            }
            hits.add(Verdict::Malicious, || Ok((PROVIDER.to_owned(), Some(name.text()?.into_owned()))))?;
        }
        hits.put_into(&mut finding);
    }
    finding.reason = match verdict {
        Verdict::Error => {
            let told = not_scanned.and_then(Value::filled).map(Value::text).transpose()?;
            Some(told.map_or_else(|| "the blob could not be scanned".to_owned(), Into::into))
        }
        // A file that is known by its hash: where it lies would be lost otherwise.
        _ => finding.subject.sha256().and(place).map(|place| format!("scanned at {place}")),
    };
    finding.event_id = match (envelope.id, correlation_id) {
        (None, Some(id)) => Some(id.id()?),
        (id, _) => id,
    };
    finding.analysed_at = finished_at.map(Value::instant).transpose()?.or(envelope.time);
    finding.tenant = envelope.tenant;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

/// The blob, and where it lies.
fn subject(data: Value<'_>, sha256: Option<Value<'_>>) -> Result<(Subject, Option<String>), Fault> {
    let [uri, etag] = data.fields_in_any_spelling(["blobUri", "eTag"])?;
    let place = uri.and_then(Value::filled).map(Value::subject_url).transpose()?;
    let id = match (sha256, &place) {
        (Some(sha256), _) => SubjectId::Sha256(sha256.hash()?),
        (None, Some(url)) => {
            let etag = etag.and_then(Value::filled).map(Value::id).transpose()?;
            SubjectId::Object { url: url.clone(), etag: etag.unwrap_or_default() }
        }
        (None, None) => return Err(data.missing("blobUri")),
    };
    let mut subject = Subject::of(id);
    subject.name = place.as_deref().and_then(name_in);
    Ok((subject, place))
}

const PROVIDER: &str = "Microsoft Defender for Storage";
/// Events that are no results: Event Grid's own (the handshake), and those of a storage account.
const NO_RESULTS: [&str; 2] = ["Microsoft.EventGrid.", "Microsoft.Storage."];
