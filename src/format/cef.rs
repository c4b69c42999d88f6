//! Common Event Format, version 0: `CEF:0|vendor|product|version|class|name|severity|key=value key=value`.
//!
//! Invariants: keys are those of the CEF dictionary, or begin with `verdictRelay` as the format wants it for one's own; a label is
//! written only with its value; identifying keys come first and `msg` last. A value holds no bare `=`, `\` or line break.
//! `request` is the address of the subject; the provider's report is `flexString1`, so that no rule takes it for an indicator.
//!
//! Not here: the syslog header around it (`rfc5424`).

use std::fmt::{self, Display, Write};

use super::{
    Keep, PRODUCT, Severity, Style, Summary, VENDOR, awaited_id, disposition, escape_into, hashes, is_failure, kind,
    push_code, threat_name, time_of,
};
use crate::event::{Approval, Event, Standing, SubjectId, Topic};

/// Appends the event as far as `keep` allows.
pub(super) fn write(event: &Event, style: &Style, keep: &Keep, out: &mut Vec<u8>) {
    let finding = &event.finding;
    let mut line = Line { out, empty: true };
    let severity = Severity::of(event);
    line.header("CEF:0", false);
    line.header(VENDOR, true);
    line.header(PRODUCT, true);
    line.header(&style.version, true);
    line.header(event.code(), true);
    match event.topic {
        Topic::Verdict => line.header(format_args!("Analysis complete: {}", finding.verdict), true),
        Topic::Overdue => line.header("Analysis overdue", true),
    }
    line.header(severity.ten, true);
    line.out.push(b'|');
    identity(&mut line, event, keep);
    flags(&mut line, event, keep);
    if !keep.core {
        details(&mut line, event, style, keep);
        line.field("msg", Summary(event, keep));
    }
}

fn identity(line: &mut Line<'_>, event: &Event, keep: &Keep) {
    let (finding, subject) = (&event.finding, &event.finding.subject);
    line.field("rt", time_of(event).as_millisecond());
    line.field("externalId", event.uid);
    line.field("cat", format_args!("malware/{}", kind(event)));
    line.labelled("cs6", "verdict", Some(finding.verdict.word()));
    match hashes(subject) {
        (Some(hash), ..) => line.field("fileHash", hash),
        (None, Some(hash), _) => line.field("fileHash", hash),
        (None, None, Some(hash)) => line.field("fileHash", hash),
        (None, None, None) => {}
    }
    line.some("request", subject.url().map(|url| keep.url(url)));
    if let SubjectId::Message(id) = subject.id() {
        let is_awaited = awaited_id(event).is_some();
        line.field(if is_awaited { "verdictRelayAnalysisId" } else { "verdictRelayMessageId" }, keep.text(id));
    }
    line.some("fname", subject.name.as_deref().filter(|_| !keep.core).map(|name| keep.text(name)));
}

/// What the contract promises beside the verdict, and what qualifies it.
fn flags(line: &mut Line<'_>, event: &Event, keep: &Keep) {
    line.field("verdictRelaySource", &event.source);
    line.field("verdictRelayAuth", event.auth.word());
    line.some("verdictRelayPolicy", event.finding.policy.map(Approval::word));
    line.labelled("flexString2", "previousVerdict", event.previous.map(|previous| previous.verdict.word()));
    line.flag("verdictRelaySuperseded", event.standing == Standing::Superseded);
    line.flag("verdictRelayContested", event.standing == Standing::Contested);
    line.flag("verdictRelayReplay", event.again.is_some());
    line.flag("verdictRelayTruncated", keep.cut || event.finding.truncated);
    line.flag("verdictRelayClockSuspect", event.clock_suspect);
}

fn details(line: &mut Line<'_>, event: &Event, style: &Style, keep: &Keep) {
    let (finding, subject) = (&event.finding, &event.finding.subject);
    line.field("act", disposition(finding.verdict).1);
    line.field("outcome", if is_failure(event) { "failure" } else { "success" });
    line.field("dvchost", style.hostname());
    line.some("verdictRelayCorrects", event.corrects);
    line.some("fsize", subject.size);
    line.some("fileType", subject.file_type.as_deref().map(|text| keep.text(text)));
    line.labelled("cs1", "threatName", threat_name(finding).map(|text| keep.text(text)));
    line.labelled("cs2", "provider", Some(keep.text(&event.provider)));
    let techniques = Joined(&finding.techniques, keep);
    line.labelled("cs3", "attackTechniques", Some(techniques));
    line.labelled("cs4", "md5", hashes(subject).2);
    line.labelled("cs5", "correlationUid", finding.reference.as_deref().map(|id| keep.text(id)));
    line.labelled("cn1", "detections", Some(finding.hits));
    line.labelled("cn2", "engines", finding.engines);
    line.labelled("cn3", "riskScore", finding.score);
    line.labelled("flexString1", "reportUrl", finding.report_url.as_deref().map(|url| keep.url(url)));
    line.some("verdictRelayTlp", finding.tlp.as_deref().map(|mark| keep.text(mark)));
    line.some("deviceExternalId", finding.tenant.as_deref().map(|id| keep.text(id)));
    line.some("reason", finding.reason.as_deref().map(|text| keep.text(text)));
}

/// Technique ids, with commas between them.
struct Joined<'a>(&'a [String], &'a Keep);

impl Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, text) in self.0.iter().take(self.1.list).enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, self.1.text(text))?;
        }
        Ok(())
    }
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    /// Whether no field was written yet.
    empty: bool,
}

impl Line<'_> {
    fn header(&mut self, value: impl Display, after_another: bool) {
        if after_another {
            self.out.push(b'|');
        }
        write!(HeaderText(self.out), "{value}").expect(MEMORY);
    }

    /// `key=value`; nothing where the value is empty.
    fn field(&mut self, key: &'static str, value: impl Display) {
        let start = self.out.len();
        if !self.empty {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'=');
        let value_at = self.out.len();
        write!(ValueText(self.out), "{value}").expect(MEMORY);
        if self.out.len() == value_at {
            self.out.truncate(start);
        } else {
            self.empty = false;
        }
    }

    fn some(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(key, value);
        }
    }

    fn flag(&mut self, key: &'static str, set: bool) {
        self.some(key, set.then_some("true"));
    }

    /// A custom key and its label, which stand and fall together.
    fn labelled(&mut self, key: &'static str, label: &'static str, value: Option<impl Display>) {
        let Some(value) = value else { return };
        let start = self.out.len();
        self.field(key, value);
        if self.out.len() > start {
            for part in [" ", key, "Label=", label] {
                self.out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

/// Escapes what is written into a header field: `\` and `|`. A header has no escape for anything else: a hazard becomes a space.
struct HeaderText<'a>(&'a mut Vec<u8>);

impl Write for HeaderText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let escape = |out: &mut Vec<u8>, c| {
            out.extend_from_slice(match c {
                '\\' => br"\\",
                '|' => br"\|",
                _ => b" ",
            });
            Ok(())
        };
        escape_into(self.0, text, |c| matches!(c, '\\' | '|'), escape)
    }
}

/// Escapes what is written into a value: `\`, `=`, CR and LF. Any other hazard becomes the text `\uXXXX`, its backslash escaped like
/// every other.
struct ValueText<'a>(&'a mut Vec<u8>);

impl Write for ValueText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let escape = |out: &mut Vec<u8>, c| {
            out.extend_from_slice(match c {
                '=' => br"\=",
                '\n' => br"\n",
                '\r' => br"\r",
                _ => br"\\",
            });
            if matches!(c, '\\' | '=' | '\n' | '\r') { Ok(()) } else { push_code(out, c) }
        };
        escape_into(self.0, text, |c| matches!(c, '\\' | '='), escape)
    }
}

const MEMORY: &str = "memory takes every write";
