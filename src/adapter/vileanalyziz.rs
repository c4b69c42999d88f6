//! Vile Analyziz: its webhook, one file, or the list of `/v1/files`.
//!
//! The webhook is `{event, eventId, occurredAt, organizationId, file}`; the file object also comes bare. Keys are read in camelCase and
//! snake_case, words in any case, with space, underscore or hyphen. The platform's trust score counts the other way round: our risk is
//! 100 - trust. Its approval is `Finding::policy`, never a verdict.
//!
//! Invariant: the verdict comes from the verdict word alone; neither a score nor an approval ever makes a file clean.

use super::items::{Outcomes, each, one};
use super::json::{Document, Fault, Value};
use super::shared::{file_subject, letters};
use super::{Adapter, FetchId, Hits, NormalizeError, Outcome, score_of};
use crate::delivery::Delivery;
use crate::event::{Approval, Finding, LIST_MAX, Subject, Verdict};

/// The adapter. It has no options.
pub(super) struct VileAnalyziz;

impl Adapter for VileAnalyziz {
    fn provider(&self) -> &'static str {
        "Vile Analyziz"
    }

    fn normalize(&self, delivery: &Delivery) -> Result<Outcomes, NormalizeError> {
        let document = Document::read(delivery.body())?;
        let root = document.root();
        if root.is_list() {
            return each(root, root, message);
        }
        let [files, inner] = root.fields_in_any_spelling(["files", "file"]).map_err(|fault| fault.refuses(root))?;
        match (files, inner) {
            (Some(files), None) => each(root, files, |item| file(item, &Envelope::default())),
            (Some(files), Some(_)) => {
                Err(files.fault("stands beside a file, so which one is meant is a guess").refuses(root))
            }
            (None, _) => one(root, message(root)),
        }
    }

    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        FetchId::new("file", &finding.subject.sha256()?.to_string())
    }
}

/// What stands around a file.
#[derive(Default)]
struct Envelope<'d> {
    /// How the analysis ended, if the event's name says that it did.
    end: Option<End>,
    event_id: Option<Value<'d>>,
    occurred_at: Option<Value<'d>>,
    organization: Option<Value<'d>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
}

/// An envelope, a bare file, or an answer of the API.
fn message(root: Value<'_>) -> Result<Outcome, Fault> {
    let [event, event_id, occurred_at, organization, inner] =
        root.fields_in_any_spelling(["event", "event_id", "occurred_at", "organization_id", "file"])?;
    let Some(event) = event else {
        let envelope = Envelope { end: None, event_id, occurred_at, organization };
        return inner.map_or_else(|| bare(root), |inner| file(inner, &envelope));
    };
    let event_word = letters(&event.text()?);
    let end = match event_word.as_str() {
        word if word.ends_with("completed") => Some(End::Completed),
        word if word.ends_with("failed") => Some(End::Failed),
        _ => None,
    };
    match (event_word.as_str(), inner) {
        ("ping" | "test" | "webhook.ping" | "webhook.test", _) => Ok(Outcome::Ignore),
        ("analysis.queued" | "analysis.started" | "analysis.progress", _) => Ok(Outcome::NotReady),
        (_, Some(inner)) => file(inner, &Envelope { end, event_id, occurred_at, organization }),
        (word, None) if word.starts_with("analysis.") || word.starts_with("file.") => Err(root.missing("file")),
        // Something about the account (a key, a member), not about a file.
        (_, None) => Ok(Outcome::Ignore),
    }
}

/// An object without an envelope: a file, or what the API says to an upload.
fn bare(root: Value<'_>) -> Result<Outcome, Fault> {
    let [verdict, status, trust_score, upload_url, error] =
        root.fields_in_any_spelling(["verdict", "status", "trust_score", "upload_url", "error"])?;
    if verdict.or(status).or(trust_score).is_some() {
        return file(root, &Envelope::default());
    }
    match upload_url.or(error) {
        Some(_) => Ok(Outcome::Ignore),
        None => Err(root.unknown("neither an event, a file nor a list of files")),
    }
}

fn file(file: Value<'_>, envelope: &Envelope<'_>) -> Result<Outcome, Fault> {
    let [status, analyzed_at, verdict, trust_score] =
        file.fields_in_any_spelling(["status", "analyzed_at", "verdict", "trust_score"])?;
    let status_word = status.map(|status| status.text().map(|word| letters(&word))).transpose()?;
    let verdict = match (status_word.as_deref(), verdict) {
        _ if envelope.end == Some(End::Failed) => Verdict::Error,
        (Some("completed") | None, Some(verdict)) => verdict_of(verdict)?,
        (Some("completed") | None, None) => return Err(file.missing("verdict")),
        (Some("failed" | "error"), _) => Verdict::Error,
        (Some(_), _) => return Ok(Outcome::NotReady),
    };
    let is_ended = status.is_some() || analyzed_at.is_some() || envelope.end.is_some();
    if verdict == Verdict::Clean && !is_ended {
        // Without any sign that the analysis ended, "clean" may be a placeholder.
        return Err(file.missing("status"));
    }
    let mut finding = Finding::new(subject(file)?, verdict);
    if verdict == Verdict::Error {
        finding.reason = Some("the platform could not analyse the file".to_owned());
    } else {
        let risk = trust_score.map(|trust| trust.percent().map(|trust| score_of(100.0 - trust))).transpose()?;
        finding.score = risk;
    }
    finding.analysed_at = analyzed_at.or(envelope.occurred_at).map(Value::instant).transpose()?;
    finding.event_id = match (envelope.event_id, finding.analysed_at, finding.subject.sha256()) {
        (Some(id), _, _) => Some(id.id()?),
        (None, Some(at), Some(sha256)) => Some(format!("{sha256}:{at}")),
        _ => None,
    };
    finding.tenant = envelope.organization.map(Value::id).transpose()?;
    describe(file, &mut finding)?;
    Ok(Outcome::Verdict(Box::new(finding.within_bounds())))
}

fn subject(file: Value<'_>) -> Result<Subject, Fault> {
    let names = ["sha256", "sha1", "md5", "file_name", "size_bytes", "content_type"];
    file_subject(file, file.fields_in_any_spelling(names)?)
}

/// Everything that is neither subject nor verdict.
fn describe(file: Value<'_>, finding: &mut Finding) -> Result<(), Fault> {
    let [approval, sanctioned, detections, tags, report_url] =
        file.fields_in_any_spelling(["approval_status", "sanctioned_status", "detections", "tags", "report_url"])?;
    finding.policy = policy(approval, sanctioned)?;
    if let Some(detections) = detections {
        let mut hits = Hits::default();
        for detection in detections.list()? {
            hit(detection, &mut hits)?;
        }
        hits.put_into(finding);
    }
    finding.tags = tags.map_or(Ok(Vec::new()), |tags| tags.texts(LIST_MAX + 1))?;
    finding.report_url = report_url.map_or(Ok(None), Value::link)?;
    Ok(())
}

fn verdict_of(verdict: Value<'_>) -> Result<Verdict, Fault> {
    match letters(&verdict.text()?).as_str() {
        "clean" => Ok(Verdict::Clean),
        "caution" => Ok(Verdict::Suspicious),
        "highrisk" => Ok(Verdict::Malicious),
        "unknown" => Ok(Verdict::Unknown),
        _ => {
            Err(verdict.fault("a verdict that this version does not know (known: Clean, Caution, High Risk, Unknown)"))
        }
    }
}

/// A prohibited file is not approved, whatever else is said of it.
fn policy(approval: Option<Value<'_>>, sanctioned: Option<Value<'_>>) -> Result<Option<Approval>, Fault> {
    let sanctioned = match sanctioned {
        None => None,
        Some(sanctioned) => match letters(&sanctioned.text()?).as_str() {
            "approved" => Some(Approval::Approved),
            "prohibited" => return Ok(Some(Approval::NotApproved)),
            "none" | "" => None,
            _ => return Err(sanctioned.fault("a status that this version does not know (known: approved, prohibited)")),
        },
    };
    let Some(approval) = approval else { return Ok(sanctioned) };
    match letters(&approval.text()?).as_str() {
        "approved" => Ok(Some(Approval::Approved)),
        "notapproved" | "blocked" => Ok(Some(Approval::NotApproved)),
        "pendingreview" | "pending" => Ok(Some(Approval::PendingReview)),
        _ => Err(approval.fault(
            "a status that this version does not know (known: Approved, Not Approved, Blocked, Pending Review)",
        )),
    }
}

/// One entry of `detections`. Entries that say of themselves that they found nothing are no hits.
fn hit(detection: Value<'_>, hits: &mut Hits) -> Result<(), Fault> {
    let [engine, name, severity, category] =
        detection.fields_in_any_spelling(["engine", "name", "severity", "category"])?;
    let word = |value: Option<Value<'_>>| value.map(|value| value.text().map(|word| letters(&word))).transpose();
    let verdict = match (word(category)?.as_deref(), word(severity)?.as_deref()) {
        (Some("clean" | "harmless" | "undetected"), _) => return Ok(()),
        (Some("malicious" | "malware"), _) | (None, Some("critical" | "high")) => Verdict::Malicious,
        (Some("pua" | "pup" | "adware" | "grayware" | "greyware" | "unwanted"), _) => Verdict::Pua,
        _ => Verdict::Suspicious,
    };
    hits.add(verdict, || {
        let engine = engine.ok_or_else(|| detection.missing("engine"))?.text()?.into_owned();
        Ok((engine, name.map(Value::text).transpose()?.map(Into::into)))
    })
}
