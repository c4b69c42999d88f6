//! Elastic Common Schema 9.4.0 as JSON.
//!
//! Invariants: field names and their nesting are ECS's own; what ECS has no field for stands in `labels`, as texts.
//! A subject is an indicator (`threat.indicator`) only while a finding on it is open.
//!
//! Not here: data streams and index names, which the receiver's pipeline chooses.

use std::fmt::Display;

use super::json::{Object, Shown, object};
use super::{
    Keep, PRODUCT, Severity, Style, Summary, awaited_id, hashes, is_alert, is_failure, is_mime, kind, threat_name,
    time_of,
};
use crate::event::{Activity, Approval, Event, Standing, SubjectId};

/// Appends the event as far as `keep` allows.
pub(super) fn write(event: &Event, style: &Style, keep: &Keep, out: &mut Vec<u8>) {
    let view = View { event, style, keep };
    object(out, |json| {
        json.show("@timestamp", format_args!("{:.3}", time_of(event)));
        json.nest("ecs", |json| json.put("version", "9.4.0"));
        if !keep.core {
            json.show("message", Summary(event, keep));
        }
        json.values("tags", event.finding.tags.iter().take(keep.tags).map(|tag| keep.text(tag)));
        json.nest("event", |json| view.event(json));
        if !keep.core {
            view.parties(json);
        }
        view.subject(json);
        json.nest("labels", |json| view.labels(json));
        if !keep.core {
            view.rule(json);
            view.threat(json);
        }
    });
}

struct View<'a> {
    event: &'a Event,
    style: &'a Style,
    keep: &'a Keep,
}

impl View<'_> {
    fn event(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, &self.event.finding, self.keep);
        json.put("kind", if is_alert(event) { "alert" } else { "event" });
        let category = match (event.activity, kind(event)) {
            (Activity::Scan, "url") => "web",
            (Activity::Scan, "message") => "email",
            (Activity::Scan, _) => "file",
            _ => "malware",
        };
        json.values("category", [category]);
        json.values("type", ["info"]);
        json.put("outcome", if is_failure(event) { "failure" } else { "success" });
        json.put("code", event.code());
        json.show("id", event.uid);
        json.put("severity", Severity::of(event).ecs);
        if keep.core {
            return;
        }
        json.put("action", if event.topic.is_verdict() { "analysis-complete" } else { "analysis-overdue" });
        json.put("provider", keep.text(&event.provider));
        json.put("module", "verdict_relay");
        json.put("dataset", "verdict_relay.analysis");
        json.show("created", format_args!("{:.3}", event.received_at));
        json.show("end", format_args!("{:.3}", time_of(event)));
        json.put_some("risk_score", finding.score.map(f32::from));
        json.put_some("reference", finding.report_url.as_deref().map(|url| keep.url(url)));
        json.put_some("reason", finding.reason.as_deref().map(|text| keep.text(text)));
        json.show("hash", event.raw_sha256);
    }

    /// Who observed it, who passed it on, whose it is.
    fn parties(&self, json: &mut Object<'_>) {
        let provider = self.keep.text(&self.event.provider);
        json.nest("observer", |json| {
            json.put("vendor", provider);
            json.put("product", provider);
            json.put("type", "malware-analysis");
        });
        json.nest("agent", |json| {
            json.put("name", self.style.hostname());
            json.put("type", PRODUCT);
            json.put("version", self.style.version.as_str());
        });
        if let Some(tenant) = &self.event.finding.tenant {
            json.nest("organization", |json| json.put("id", self.keep.text(tenant)));
        }
    }

    fn subject(&self, json: &mut Object<'_>) {
        let (subject, keep) = (&self.event.finding.subject, self.keep);
        let (sha256, sha1, md5) = hashes(subject);
        if matches!(subject.kind(), "file" | "object") {
            json.nest("file", |json| {
                json.put_some("name", subject.name.as_deref().filter(|_| !keep.core).map(|name| keep.text(name)));
                let file_type = subject.file_type.as_deref().filter(|text| is_mime(text) && !keep.core);
                json.put_some("mime_type", file_type.map(|text| keep.text(text)));
                json.put_some("size", subject.size.filter(|_| !keep.core));
                json.put("type", "file");
                self.file_hash(json);
            });
        }
        if let Some(url) = subject.url() {
            json.nest("url", |json| json.put("original", keep.url(url)));
        }
        if let (SubjectId::Message(id), None) = (subject.id(), awaited_id(self.event)) {
            json.nest("email", |json| json.put("local_id", keep.text(id)));
        }
        if keep.repeats && (sha256.is_some() || sha1.is_some() || md5.is_some()) {
            let all =
                [sha256.map(|h| h as &dyn Display), sha1.map(|h| h as &dyn Display), md5.map(|h| h as &dyn Display)];
            json.nest("related", |json| json.values("hash", all.into_iter().flatten().map(Shown)));
        }
    }

    /// The hashes; of the core only the strongest.
    fn file_hash(&self, json: &mut Object<'_>) {
        let (sha256, sha1, md5) = hashes(&self.event.finding.subject);
        let sha1 = sha1.filter(|_| !self.keep.core || sha256.is_none());
        let md5 = md5.filter(|_| !self.keep.core || sha256.is_none() && sha1.is_none());
        if sha256.is_some() || sha1.is_some() || md5.is_some() {
            json.nest("hash", |json| {
                json.put_some("sha256", sha256.map(Shown));
                json.put_some("sha1", sha1.map(Shown));
                json.put_some("md5", md5.map(Shown));
            });
        }
    }

    fn labels(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, &self.event.finding, self.keep);
        json.put("verdict", finding.verdict.word());
        json.put_some("previous_verdict", event.previous.map(|previous| previous.verdict.word()));
        json.put("auth", event.auth.word());
        json.put_some("policy", finding.policy.map(Approval::word));
        json.put("source", event.source.as_str());
        let flags = [
            ("superseded", event.standing == Standing::Superseded),
            ("contested", event.standing == Standing::Contested),
            ("replay", event.again.is_some()),
            ("truncated", keep.cut || finding.truncated),
            ("clock_suspect", event.clock_suspect),
        ];
        for (key, _) in flags.into_iter().filter(|(_, set)| *set) {
            json.put(key, "true");
        }
        if let Some(id) = awaited_id(event) {
            json.put("analysis_id", keep.text(id));
        }
        if !keep.core {
            json.put_some("correlation_uid", finding.reference.as_deref().map(|id| keep.text(id)));
            json.put_some("tlp", finding.tlp.as_deref().map(|mark| keep.text(mark)));
            json.put_some("corrects", event.corrects.map(Shown));
            json.put_some("original_event_uid", finding.event_id.as_deref().map(|id| keep.text(id)));
        }
    }

    /// The rule of a hunt, else the worst hit.
    fn rule(&self, json: &mut Object<'_>) {
        let (finding, keep) = (&self.event.finding, self.keep);
        match (&finding.hunting_rule, finding.detections.first().filter(|_| keep.detections > 0)) {
            (Some(rule), _) => json.nest("rule", |json| json.put("name", keep.text(rule))),
            (None, Some(hit)) => json.nest("rule", |json| {
                json.put("ruleset", keep.text(&hit.engine));
                json.put_some("name", hit.name.as_deref().map(|name| keep.text(name)));
            }),
            (None, None) => {}
        }
    }

    fn threat(&self, json: &mut Object<'_>) {
        let (event, finding, keep) = (self.event, &self.event.finding, self.keep);
        let software = finding.families.first().map(String::as_str).or_else(|| threat_name(finding));
        let techniques = || finding.techniques.iter().take(keep.list).map(|id| keep.text(id));
        if software.is_none() && techniques().next().is_none() && !is_alert(event) {
            return;
        }
        json.nest("threat", |json| {
            if let Some(name) = software {
                json.nest("software", |json| json.put("name", keep.text(name)));
            }
            if techniques().next().is_some() {
                json.nest("technique", |json| {
                    json.values("id", techniques().map(|id| id.split_once('.').map_or(id, |(technique, _)| technique)));
                    if techniques().any(|id| id.contains('.')) {
                        json.nest("subtechnique", |json| json.values("id", techniques().filter(|id| id.contains('.'))));
                    }
                });
            }
            if is_alert(event) && !matches!(finding.subject.id(), SubjectId::Message(_)) {
                json.nest("indicator", |json| self.indicator(json));
            }
        });
    }

    fn indicator(&self, json: &mut Object<'_>) {
        let (finding, keep) = (&self.event.finding, self.keep);
        json.put("type", if finding.subject.kind() == "url" { "url" } else { "file" });
        json.put("provider", keep.text(&self.event.provider));
        json.put("scanner_stats", finding.hits);
        if let Some(mark) = finding.tlp.as_deref().and_then(tlp) {
            json.nest("marking", |json| json.put("tlp", mark));
        }
        json.show("last_seen", format_args!("{:.3}", time_of(self.event)));
        json.put_some("reference", finding.report_url.as_deref().map(|url| keep.url(url)).filter(|_| keep.repeats));
        if let Some(url) = finding.subject.url() {
            json.nest("url", |json| json.put("original", keep.url(url)));
        } else {
            json.nest("file", |json| self.file_hash(json));
        }
    }
}

/// The mark as ECS writes it (`threat.indicator.marking.tlp`); none if it is no mark that ECS knows.
fn tlp(mark: &str) -> Option<&'static str> {
    let word = mark.strip_prefix("TLP:").unwrap_or(mark);
    ["WHITE", "CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED"].into_iter().find(|known| *known == word)
}
