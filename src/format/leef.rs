//! Log Event Extended Format 2.0: `LEEF:2.0|vendor|product|version|event id|^|key=value^key=value`.
//!
//! Invariants: LEEF has no escapes, so what would end a value is replaced: `^` and `|` by `_` (by `%5E` and `%7C` in a URL), CR, LF and
//! TAB by a space, every other hazard by the text `\uXXXX`. The delimiter is always sent: a TAB does not survive every relay.
//! Keys are single words from this file, each once. The exact values are in OCSF.
//! `url` is the address of the subject; the provider's report is `reportUrl`, so that no rule takes it for an indicator.
//!
//! Not here: the syslog header around it (`rfc5424`).

use std::fmt::{self, Display, Write};

use super::{
    Keep, PRODUCT, Severity, Style, Summary, VENDOR, awaited_id, disposition, escape_into, hashes, kind, push_code,
    threat_name, time_of,
};
use crate::event::{Approval, Event, Standing, SubjectId};

/// Appends the event as far as `keep` allows.
pub(super) fn write(event: &Event, style: &Style, keep: &Keep, out: &mut Vec<u8>) {
    for part in ["LEEF:2.0|", VENDOR, "|", PRODUCT, "|", &style.version, "|", event.code(), "|^|"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut line = Line { out, empty: true };
    identity(&mut line, event, keep);
    flags(&mut line, event, keep);
    if !keep.core {
        details(&mut line, event, keep);
        line.field("msg", Summary(event, keep));
    }
}

fn identity(line: &mut Line<'_>, event: &Event, keep: &Keep) {
    let (finding, subject) = (&event.finding, &event.finding.subject);
    line.field("devTime", DevTime(event));
    line.field("devTimeFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSZ");
    // QRadar looks events up by id and category: both come from short, fixed lists.
    line.field("cat", kind(event));
    line.field("sev", Severity::of(event).ten);
    line.field("eventUid", event.uid);
    line.field("verdict", finding.verdict.word());
    let (sha256, sha1, md5) = hashes(subject);
    line.some("fileHash", sha256);
    line.some("sha1", sha1);
    line.some("md5", md5);
    line.url("url", subject.url().map(|url| keep.url(url)));
    if let SubjectId::Message(id) = subject.id() {
        line.field(if awaited_id(event).is_some() { "analysisId" } else { "messageId" }, keep.text(id));
    }
    line.some("resource", subject.name.as_deref().filter(|_| !keep.core).map(|name| keep.text(name)));
}

/// What the contract promises beside the verdict, and what qualifies it.
fn flags(line: &mut Line<'_>, event: &Event, keep: &Keep) {
    line.field("source", &event.source);
    line.field("auth", event.auth.word());
    // Not `policy`: that key is QRadar's own, for the rule of a firewall.
    line.some("approval", event.finding.policy.map(Approval::word));
    line.some("previousVerdict", event.previous.map(|previous| previous.verdict.word()));
    line.flag("superseded", event.standing == Standing::Superseded);
    line.flag("contested", event.standing == Standing::Contested);
    line.flag("replay", event.again.is_some());
    line.flag("truncated", keep.cut || event.finding.truncated);
    line.flag("clockSuspect", event.clock_suspect);
}

fn details(line: &mut Line<'_>, event: &Event, keep: &Keep) {
    let (finding, subject) = (&event.finding, &event.finding.subject);
    line.some("corrects", event.corrects);
    line.some("fileSize", subject.size);
    line.some("fileType", subject.file_type.as_deref().map(|text| keep.text(text)));
    line.field("provider", keep.text(&event.provider));
    line.some("threatName", threat_name(finding).map(|text| keep.text(text)));
    line.some("riskScore", finding.score);
    line.field("detections", finding.hits);
    line.some("engines", finding.engines);
    line.field("disposition", disposition(finding.verdict).1);
    line.some("correlationUid", finding.reference.as_deref().map(|id| keep.text(id)));
    line.some("tlp", finding.tlp.as_deref().map(|mark| keep.text(mark)));
    line.some("tenant", finding.tenant.as_deref().map(|id| keep.text(id)));
    line.url("reportUrl", finding.report_url.as_deref().map(|url| keep.url(url)));
    line.some("reason", finding.reason.as_deref().map(|text| keep.text(text)));
}

/// The time as IBM's own samples have it: milliseconds, and a zone without a colon.
struct DevTime<'a>(&'a Event);

impl Display for DevTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut zulu = String::with_capacity(32);
        write!(zulu, "{:.3}", time_of(self.0))?;
        write!(f, "{}+0000", zulu.trim_end_matches('Z'))
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    /// Whether no field was written yet.
    empty: bool,
}

impl Line<'_> {
    /// `key=value`; nothing where the value is empty.
    fn field(&mut self, key: &'static str, value: impl Display) {
        self.put(key, value, false);
    }

    fn some(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(key, value, false);
        }
    }

    fn url(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(key, value, true);
        }
    }

    fn flag(&mut self, key: &'static str, set: bool) {
        self.some(key, set.then_some("true"));
    }

    fn put(&mut self, key: &'static str, value: impl Display, is_url: bool) {
        let start = self.out.len();
        if !self.empty {
            self.out.push(b'^');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'=');
        let value_at = self.out.len();
        write!(Replace { out: self.out, is_url }, "{value}").expect("memory takes every write");
        if self.out.len() == value_at {
            self.out.truncate(start);
        } else {
            self.empty = false;
        }
    }
}

/// Replaces what would end a value or a line in what is written through it.
struct Replace<'a> {
    out: &'a mut Vec<u8>,
    is_url: bool,
}

impl Write for Replace<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_url = self.is_url;
        let replace = |out: &mut Vec<u8>, c| {
            out.extend_from_slice(match c {
                '^' if is_url => b"%5E",
                '|' if is_url => b"%7C",
                '^' | '|' => b"_",
                '\r' | '\n' | '\t' => b" ",
                _ => b"\\",
            });
            if matches!(c, '^' | '|' | '\r' | '\n' | '\t') { Ok(()) } else { push_code(out, c) }
        };
        escape_into(self.out, text, |c| matches!(c, '^' | '|'), replace)
    }
}
