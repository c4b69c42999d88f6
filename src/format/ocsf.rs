//! OCSF 1.8.0 as JSON: Detection Finding 2004 for what opens, updates or closes a finding, Scan Activity 6007 for all else.
//!
//! Invariants: every record is valid against the published schema, at every step of shrinking; a score is written only where the
//! source gave one. Both classes carry the subject in `osint[0]`; a finding repeats it in `evidences[0]`, where its readers look.
//! Hits stand in `finding_info.related_analytics` of a finding and in `osint[0].related_analytics` of a scan.
//!
//! Not here: which events open a finding (`normalize`), the bytes of JSON (`json`).

use std::fmt::Display;

use sha2::{Digest, Sha256};

use super::json::{Object, Shown, object};
use super::{
    Code, Keep, PRODUCT, Severity, Style, Summary, VENDOR, awaited_id, disposition, fit, is_alert, is_failure, is_mime,
    kinds, time_of,
};
use crate::event::{Activity, Approval, Event, Finding, Hash, Standing, Subject, SubjectId, Topic, Uid, Verdict};

/// Most bytes of an event (contract 5): Splunk extracts fields from about the first 10,000 characters only.
pub const BYTES_MAX: usize = 9 * 1024;

/// Appends the event within `bytes_max` bytes, and never more than [`BYTES_MAX`].
pub(super) fn render_within(event: &Event, style: &Style, bytes_max: usize, out: &mut Vec<u8>) {
    fit(bytes_max.min(BYTES_MAX), out, |keep, out| {
        let view = View { event, finding: &event.finding, subject: &event.finding.subject, style, keep };
        object(out, |json| if keep.core { view.core(json) } else { view.whole(json) });
    });
}

struct View<'a> {
    event: &'a Event,
    finding: &'a Finding,
    subject: &'a Subject,
    style: &'a Style,
    keep: &'a Keep,
}

impl View<'_> {
    fn whole(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, self.finding, self.keep);
        self.classification(json);
        json.show("message", Summary(event, keep));
        json.put("is_alert", is_alert(event));
        json.code("action_id", "action", OBSERVED);
        json.code("disposition_id", "disposition", disposition(finding.verdict));
        if let Some(score) = finding.score {
            json.put("risk_score", score);
            json.code("risk_level_id", "risk_level", risk_level(score));
        }
        json.put_some("status_detail", finding.reason.as_deref().map(|text| keep.text(text)));
        json.nest("metadata", |json| self.metadata(json));
        if self.is_finding() {
            json.nest("finding_info", |json| self.finding_info(json));
            json.objects("evidences", [()], |json, ()| self.evidence(json));
        } else {
            self.scan(json);
        }
        json.objects("osint", [()], |json, ()| self.osint(json));
        self.malware(json);
        self.attacks(json);
        if keep.repeats {
            self.observables(json);
        }
        json.nest("raw_data_hash", |json| fingerprint(json, SHA256, event.raw_sha256));
        json.put("raw_data_size", long(event.raw_size));
        json.nest("unmapped", |json| self.unmapped(json));
    }

    /// What the schema and a gate cannot do without, without any profile.
    fn core(&self, json: &mut Object<'_>) {
        let event = self.event;
        self.classification(json);
        json.nest("metadata", |json| {
            json.put("version", OCSF_VERSION);
            json.show("uid", event.uid);
            json.nest("product", |json| json.put("name", self.keep.text(&event.provider)));
        });
        if self.is_finding() {
            json.nest("finding_info", |json| json.show("uid", finding_uid(event)));
        } else {
            json.nest("scan", |json| {
                json.show("uid", event.uid);
                json.put("type_id", UNKNOWN.0);
            });
        }
        self.main_observable(json);
        json.nest("unmapped", |json| {
            json.put("verdict", self.finding.verdict.word());
            json.put("auth", event.auth.word());
            json.put("source", event.source.as_str());
            json.put("superseded", event.standing == Standing::Superseded);
            json.put("replay", event.again.is_some());
            json.put("truncated", true);
        });
    }

    const fn is_finding(&self) -> bool {
        !matches!(self.event.activity, Activity::Scan)
    }

    fn classification(&self, json: &mut Object<'_>) {
        let activity = match self.event.activity {
            Activity::Create => Code(1, "Create"),
            Activity::Update => Code(2, "Update"),
            Activity::Close => Code(3, "Close"),
            Activity::Scan if self.event.topic == Topic::Overdue => Code(4, "Duration Violation"),
            Activity::Scan if self.finding.verdict == Verdict::Error => Code(6, "Error"),
            Activity::Scan => Code(2, "Completed"),
        };
        let (class, category) = if self.is_finding() {
            (Code(2004, "Detection Finding"), Code(2, "Findings"))
        } else {
            (Code(6007, "Scan Activity"), Code(6, "Application Activity"))
        };
        let kind = u32::from(class.0) * 100 + u32::from(activity.0);
        let (time, severity) = (time_of(self.event).as_millisecond(), Severity::of(self.event).ocsf);
        if self.keep.core {
            json.put("activity_id", activity.0);
            json.put("category_uid", category.0);
            json.put("class_uid", class.0);
            json.put("type_uid", kind);
            json.put("time", time);
            json.put("severity_id", severity.0);
            return;
        }
        json.code("activity_id", "activity_name", activity);
        json.code("category_uid", "category_name", category);
        json.code("class_uid", "class_name", class);
        json.put("type_uid", kind);
        json.show("type_name", format_args!("{}: {}", class.1, activity.1));
        json.put("time", time);
        json.code("severity_id", "severity", severity);
    }

    fn metadata(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, self.finding, self.keep);
        json.put("version", OCSF_VERSION);
        json.show("uid", event.uid);
        json.put_some("original_event_uid", finding.event_id.as_deref().map(|id| keep.text(id)));
        json.put_some("original_time", finding.analysed_at.map(Shown));
        json.put_some("correlation_uid", finding.reference.as_deref().map(|id| keep.text(id)));
        json.put("event_code", event.code());
        json.nest("product", |json| self.product(json));
        json.values("profiles", ["osint", "security_control"]);
        json.put("log_provider", PRODUCT);
        json.put("log_name", LOG_NAME);
        json.put("logged_time", event.received_at.as_millisecond());
        json.put_some("tenant_uid", finding.tenant.as_deref().map(|id| keep.text(id)));
        json.values("labels", finding.tags.iter().take(keep.tags).map(|tag| keep.text(tag)));
        json.put_true("is_truncated", self.truncated());
        json.objects("loggers", [()], |json, ()| {
            json.put("name", self.style.hostname());
            json.put("uid", self.style.hostname());
            json.put("log_name", LOG_NAME);
            json.put("log_provider", PRODUCT);
            json.nest("product", |json| {
                json.put("vendor_name", VENDOR);
                json.put("name", PRODUCT);
                json.put("version", self.style.version.as_str());
            });
            json.put("logged_time", event.received_at.as_millisecond());
        });
    }

    /// The platform. It is its own vendor to us: we know one name of it, and readers ask for both.
    fn product(&self, json: &mut Object<'_>) {
        let provider = self.keep.text(&self.event.provider);
        json.put("vendor_name", provider);
        json.put("name", provider);
    }

    fn finding_info(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, self.finding, self.keep);
        let time = time_of(event).as_millisecond();
        json.show("uid", finding_uid(event));
        let label = self.subject.label();
        json.show(
            "title",
            format_args!("{} {}: {}", title_word(finding.verdict), self.subject.kind(), keep.text(&label)),
        );
        json.values("types", ["Malware"]);
        json.put_some("src_url", finding.report_url.as_deref().map(|url| keep.url(url)));
        json.values("data_sources", [keep.text(&event.provider)]);
        json.put_some("created_time", (event.activity == Activity::Create).then_some(time));
        json.put_some("modified_time", (event.activity != Activity::Create).then_some(time));
        json.put_some("last_seen_time", finding.verdict.is_detection().then_some(time));
        json.nest("product", |json| self.product(json));
        json.nest("analytic", |json| {
            if let Some(rule) = &finding.hunting_rule {
                hunting_rule(json, keep.text(rule));
            } else {
                json.put("name", keep.text(&event.provider));
                json.code("type_id", "type", UNKNOWN);
            }
        });
        self.detections(json);
        if keep.repeats {
            self.attacks(json);
        }
    }

    /// The hits, worst first. Whether one is an engine's or a rule's the event does not say.
    fn detections(&self, json: &mut Object<'_>) {
        let hits = self.finding.detections.iter().take(self.keep.detections);
        let rule = self.finding.hunting_rule.as_deref().filter(|_| !self.is_finding());
        json.objects("related_analytics", rule.map(Err).into_iter().chain(hits.map(Ok)), |json, item| match item {
            Err(rule) => hunting_rule(json, self.keep.text(rule)),
            Ok(hit) => {
                json.put("name", self.keep.text(&hit.engine));
                json.code("type_id", "type", UNKNOWN);
                json.put("category", hit.verdict.word());
                json.put_some("desc", hit.name.as_deref().map(|name| self.keep.text(name)));
            }
        });
    }

    fn evidence(&self, json: &mut Object<'_>) {
        let label = self.subject.label();
        json.put("name", self.keep.text(&label));
        match self.subject.id() {
            SubjectId::Sha256(_) | SubjectId::Sha1(_) | SubjectId::Md5(_) | SubjectId::Object { .. } => {
                json.nest("file", |json| self.file(json));
            }
            SubjectId::Url(url) => json.nest("url", |json| json.put("url_string", self.keep.url(url))),
            SubjectId::Message(id) => json.nest("data", |json| json.put("message_uid", self.keep.text(id))),
        }
        json.code("verdict_id", "verdict", evidence_verdict(self.finding.verdict));
    }

    fn scan(&self, json: &mut Object<'_>) {
        let (event, finding) = (self.event, self.finding);
        json.nest("scan", |json| {
            json.put_some("uid", finding.event_id.as_deref().map(|id| self.keep.text(id)));
            json.put("name", self.keep.text(&event.provider));
            json.code("type_id", "type", UNKNOWN);
        });
        json.put_some("num_files", matches!(self.subject.kind(), "file" | "object").then_some(1_u8));
        json.put("num_detections", finding.hits);
        json.put("total", u8::from(event.topic.is_verdict()));
        let failed = is_failure(event);
        json.code("status_id", "status", if failed { Code(2, "Failure") } else { Code(1, "Success") });
    }

    fn osint(&self, json: &mut Object<'_>) {
        let (finding, keep) = (self.finding, self.keep);
        match self.subject.id() {
            SubjectId::Sha256(hash) => osint_value(json, OSINT_FILE, hash),
            SubjectId::Sha1(hash) => osint_value(json, OSINT_FILE, hash),
            SubjectId::Md5(hash) => osint_value(json, OSINT_FILE, hash),
            SubjectId::Object { url, .. } => osint_value(json, OSINT_FILE, keep.url(url)),
            SubjectId::Url(url) => osint_value(json, OSINT_URL, keep.url(url)),
            SubjectId::Message(id) if self.is_awaited() => osint_value(json, OSINT_ANALYSIS, keep.text(id)),
            SubjectId::Message(id) => osint_value(json, OSINT_MESSAGE, keep.text(id)),
        }
        json.put_some("name", self.subject.name.as_deref().map(|name| keep.text(name)));
        json.put("vendor_name", keep.text(&self.event.provider));
        json.put_some("src_url", finding.report_url.as_deref().map(|url| keep.url(url)));
        json.put_some("external_uid", finding.event_id.as_deref().map(|id| keep.text(id)).filter(|_| keep.repeats));
        json.put_some("tlp", finding.tlp.as_deref().and_then(tlp));
        if matches!(self.subject.kind(), "file" | "object") {
            json.nest("file", |json| self.file(json));
        }
        if let Some(score) = finding.score {
            json.nest("reputation", |json| {
                json.put("base_score", f32::from(score));
                json.code("score_id", "score", reputation(finding.verdict));
                json.put("provider", keep.text(&self.event.provider));
            });
        }
        if !self.is_finding() {
            self.detections(json);
        }
    }

    fn file(&self, json: &mut Object<'_>) {
        let (subject, keep) = (self.subject, self.keep);
        let label = subject.label();
        json.put("name", keep.text(&label));
        json.code("type_id", "type", Code(1, "Regular File"));
        json.put_some("size", subject.size.map(long));
        let file_type = subject.file_type.as_deref().map(|text| keep.text(text));
        let (mime, words) = if file_type.is_some_and(is_mime) { (file_type, None) } else { (None, file_type) };
        json.put_some("mime_type", mime);
        json.put_some("desc", words);
        if let SubjectId::Object { url, etag } = subject.id() {
            json.put("uri", keep.url(url));
            json.put_some("version", Some(keep.text(etag)).filter(|etag| !etag.is_empty()));
        }
        let hashes = hashes(subject).into_iter().flatten();
        json.objects("hashes", hashes, |json, (algorithm, hash)| fingerprint(json, algorithm, hash));
    }

    /// The provider's label of the threat with the kinds it names, then the families.
    fn malware(&self, json: &mut Object<'_>) {
        let label = self.finding.threat.iter();
        let families = self.finding.families.iter().take(self.keep.list);
        json.objects(
            "malware",
            label.chain(families.filter(|f| Some(*f) != self.finding.threat.as_ref())),
            |json, name| {
                json.put("name", self.keep.text(name));
                if kinds(name).next().is_some() {
                    json.values("classification_ids", kinds(name).map(|kind| kind.0));
                    json.values("classifications", kinds(name).map(|kind| kind.1));
                } else {
                    json.values("classification_ids", [UNKNOWN.0]);
                }
                json.put("provider", self.keep.text(&self.event.provider));
            },
        );
    }

    /// Technique ids only: one technique has several tactics, and the sender did not say which.
    fn attacks(&self, json: &mut Object<'_>) {
        json.objects("attacks", self.finding.techniques.iter().take(self.keep.list), |json, id| {
            let id = self.keep.text(id);
            let technique = id.split_once('.').map_or(id, |(technique, _)| technique);
            json.nest("technique", |json| json.put("uid", technique));
            if technique != id {
                json.nest("sub_technique", |json| json.put("uid", id));
            }
        });
    }

    fn observables(&self, json: &mut Object<'_>) {
        let hashes = hashes(self.subject).into_iter().flatten();
        let hashes = hashes.map(|(_, hash)| (OBSERVABLE_HASH, "osint.file.hashes.value", hash));
        let name = self.subject.name.as_deref().map(|name| self.keep.text(name));
        let name = name.as_ref().map(|name| (OBSERVABLE_FILE_NAME, "osint.name", name as &dyn Display));
        let other = self.subject_text();
        let other = other.as_ref().map(|(code, text)| (*code, "osint.value", text as &dyn Display));
        json.objects("observables", hashes.chain(name).chain(other), |json, (code, path, value)| {
            json.put("name", path);
            json.code("type_id", "type", code);
            json.show("value", value);
        });
    }

    /// The identifier of the subject, in a field that needs no profile.
    fn main_observable(&self, json: &mut Object<'_>) {
        let text = self.subject_text();
        let text = text.as_ref().map(|(code, text)| (*code, text as &dyn Display));
        let hash = hashes(self.subject).into_iter().flatten().next().map(|(_, hash)| (OBSERVABLE_HASH, hash));
        json.objects("observables", text.or(hash), |json, (code, value)| {
            json.code("type_id", "type", code);
            json.show("value", value);
        });
    }

    /// The identifier of a subject that is known by a text.
    fn subject_text(&self) -> Option<(Code, &str)> {
        match self.subject.id() {
            SubjectId::Url(url) | SubjectId::Object { url, .. } => Some((OBSERVABLE_URL, self.keep.url(url))),
            SubjectId::Message(id) if self.is_awaited() => Some((OBSERVABLE_RESOURCE, self.keep.text(id))),
            SubjectId::Message(id) => Some((OBSERVABLE_MESSAGE, self.keep.text(id))),
            SubjectId::Sha256(_) | SubjectId::Sha1(_) | SubjectId::Md5(_) => None,
        }
    }

    /// What the contract promises and OCSF has no place for.
    fn unmapped(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, self.finding, self.keep);
        json.put("verdict", finding.verdict.word());
        if let Some(previous) = event.previous {
            json.put("previous_verdict", previous.verdict.word());
            json.put("previous_verdict_time", previous.analysed_at.as_millisecond());
        }
        json.put("auth", event.auth.word());
        json.put_some("policy", finding.policy.map(Approval::word));
        json.put("source", event.source.as_str());
        json.put("provider", keep.text(&event.provider));
        json.put("superseded", event.standing == Standing::Superseded);
        json.put_true("contested", event.standing == Standing::Contested);
        json.put("replay", event.again.is_some());
        json.put_some("corrects", event.corrects.map(Shown));
        json.put("truncated", self.truncated());
        json.put_true("clock_suspect", event.clock_suspect);
        json.put_some("engines_total", finding.engines);
        let counted = finding.engines.is_some() || finding.hits > 0;
        json.put_some("engines_detected", counted.then_some(finding.hits));
        json.put_some("notification_id", finding.notification_id.as_deref().map(|id| keep.text(id)));
        json.put_some("tlp", finding.tlp.as_deref().filter(|mark| tlp(mark).is_none()).map(|mark| keep.text(mark)));
    }

    fn is_awaited(&self) -> bool {
        awaited_id(self.event).is_some()
    }

    const fn truncated(&self) -> bool {
        self.keep.cut || self.finding.truncated
    }
}

/// Identity of a finding: the same over all analyses of a subject by one source. Neither part holds a line break.
fn finding_uid(event: &Event) -> Uid {
    let digest = Sha256::new().chain_update(event.source.as_str()).chain_update("\n");
    let digest: [u8; 32] = digest.chain_update(event.finding.subject.key()).finalize().into();
    let mut uid = [0; 16];
    uid.copy_from_slice(&digest[..16]);
    Hash(uid)
}

/// The hashes of a file with their algorithms, strongest first.
fn hashes(subject: &Subject) -> [Option<(Code, &dyn Display)>; 3] {
    let (sha256, sha1, md5) = super::hashes(subject);
    [
        sha256.map(|hash| (SHA256, hash as &dyn Display)),
        sha1.map(|hash| (Code(2, "SHA-1"), hash as &dyn Display)),
        md5.map(|hash| (Code(1, "MD5"), hash as &dyn Display)),
    ]
}

fn fingerprint(json: &mut Object<'_>, algorithm: Code, hash: impl Display) {
    json.code("algorithm_id", "algorithm", algorithm);
    json.show("value", hash);
}

fn hunting_rule(json: &mut Object<'_>, rule: &str) {
    json.put("name", rule);
    json.code("type_id", "type", Code(1, "Rule"));
}

fn osint_value(json: &mut Object<'_>, kind: Code, value: impl Display) {
    json.code("type_id", "type", kind);
    json.show("value", value);
}

const fn title_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Malicious => "Malicious",
        Verdict::Suspicious => "Suspicious",
        Verdict::Pua => "Potentially unwanted",
        Verdict::Error => "Unexamined",
        Verdict::Clean => "Clean",
        Verdict::Unknown => "Unknown",
    }
}

const fn evidence_verdict(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Malicious | Verdict::Pua => Code(8, "Security Risk"),
        Verdict::Suspicious => Code(4, "Suspicious"),
        Verdict::Clean => Code(5, "Benign"),
        Verdict::Unknown | Verdict::Error => Code(7, "Insufficient Data"),
    }
}

const fn reputation(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Malicious => Code(10, "Malicious"),
        Verdict::Suspicious => Code(7, "Suspicious/Risky"),
        Verdict::Pua => Code(6, "Exercise Caution"),
        Verdict::Clean => Code(2, "Safe"),
        Verdict::Unknown | Verdict::Error => UNKNOWN,
    }
}

const fn risk_level(score: u8) -> Code {
    match score {
        90.. => Code(4, "Critical"),
        70.. => Code(3, "High"),
        40.. => Code(2, "Medium"),
        20.. => Code(1, "Low"),
        _ => Code(0, "Info"),
    }
}

/// The mark as OCSF writes it; none if it is no mark that OCSF knows.
fn tlp(mark: &str) -> Option<&'static str> {
    let word = mark.strip_prefix("TLP:").unwrap_or(mark);
    match word {
        "AMBER+STRICT" => Some("AMBER STRICT"),
        _ => ["AMBER", "AMBER STRICT", "CLEAR", "GREEN", "RED", "WHITE"].into_iter().find(|known| *known == word),
    }
}

/// OCSF counts in signed 64 bits.
fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const OCSF_VERSION: &str = "1.8.0";
const LOG_NAME: &str = "analysis-complete";
const UNKNOWN: Code = Code(0, "Unknown");
const OBSERVED: Code = Code(3, "Observed");
const SHA256: Code = Code(3, "SHA-256");
const OSINT_FILE: Code = Code(11, "File");
const OSINT_URL: Code = Code(5, "URL");
const OSINT_MESSAGE: Code = Code(99, "Message");
const OSINT_ANALYSIS: Code = Code(99, "Analysis");
const OBSERVABLE_URL: Code = Code(6, "URL String");
const OBSERVABLE_FILE_NAME: Code = Code(7, "File Name");
const OBSERVABLE_HASH: Code = Code(8, "Hash");
const OBSERVABLE_RESOURCE: Code = Code(10, "Resource UID");
const OBSERVABLE_MESSAGE: Code = Code(42, "Message UID");
