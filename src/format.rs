//! How an event looks to a receiver: total functions from `&Event` to bytes.
//!
//! Invariants: rendering cannot fail; it adds exactly one record, never a line break or another control character, whatever the
//! sender put into a name; keys come from fixed tables; a text is shortened on a character, never within an escape, and an event
//! that lost something says `truncated`.
//!
//! Not here: frames on a connection (`sink/syslog`), batches and requests (`sink/splunk_hec`), which events a sink wants (`route`).

pub mod hec;
pub mod rfc5424;

mod cef;
mod ecs;
mod json;
mod leef;
mod ocsf;

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{
    Activity, DETECTIONS_MAX, Event, Finding, LIST_MAX, Md5, Sha1, Sha256, Subject, SubjectId, TEXT_BYTES_MAX, Topic,
    URL_BYTES_MAX, Verdict,
};

pub use ocsf::BYTES_MAX as OCSF_BYTES_MAX;

/// What an event can be rendered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OCSF 1.8.0 as JSON, the canonical form; at most [`OCSF_BYTES_MAX`] bytes.
    Ocsf,
    /// Elastic Common Schema 9.4.0 as JSON.
    Ecs,
    /// Common Event Format, version 0.
    Cef,
    /// Log Event Extended Format 2.0 with the delimiter `^`.
    Leef,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Ocsf, Self::Ecs, Self::Cef, Self::Leef];

    /// The word of the config and of the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
            Self::Cef => "cef",
            Self::Leef => "leef",
        }
    }

    /// Appends the event to `out`: one record on one line, without the line's end.
    pub fn render(self, event: &Event, style: &Style, out: &mut Vec<u8>) {
        self.render_within(event, style, usize::MAX, out);
    }

    /// As [`Format::render`], within `bytes_max` bytes: whole optional fields go first, then long texts.
    ///
    /// Below [`CORE_BYTES_MAX`] it may be longer: an event without its identity, verdict and subject is none.
    pub fn render_within(self, event: &Event, style: &Style, bytes_max: usize, out: &mut Vec<u8>) {
        match self {
            Self::Ocsf => ocsf::render_within(event, style, bytes_max, out),
            Self::Ecs => fit(bytes_max, out, |keep, out| ecs::write(event, style, keep, out)),
            Self::Cef => fit(bytes_max, out, |keep, out| cef::write(event, style, keep, out)),
            Self::Leef => fit(bytes_max, out, |keep, out| leef::write(event, style, keep, out)),
        }
    }

    /// Whether a record is a JSON object.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Ocsf | Self::Ecs)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a text is no [`Format`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no such format: use one of ocsf, ecs, cef, leef")]
pub struct FormatError;

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(word: &str) -> Result<Self, FormatError> {
        Self::ALL.into_iter().find(|format| format.word() == word).ok_or(FormatError)
    }
}

/// What a rendering says about us; everything else comes from the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    hostname: String,
    version: String,
}

impl Style {
    /// With our host name as receivers know it. `QRadar` finds the log source by it, so it has to be stable, and the same on all
    /// replicas.
    ///
    /// What RFC 5424 forbids in a host name becomes `-`; no name at all is `-`.
    pub fn new(hostname: &str) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() { c } else { '-' };
        let mut hostname: String = hostname.chars().take(HOSTNAME_CHARS_MAX).map(printable).collect();
        if hostname.is_empty() {
            hostname.push('-');
        }
        Self { hostname, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Our host name: 1 to 255 printable ASCII characters.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// Who we are in every format that asks for a vendor (contract 5).
const VENDOR: &str = "Verdict Relay";
/// Our product, log provider and syslog APP-NAME.
const PRODUCT: &str = "verdict-relay";
/// RFC 5424: HOSTNAME.
const HOSTNAME_CHARS_MAX: usize = 255;
/// What an event takes at most, in any format, when everything optional is gone and every text is short.
pub const CORE_BYTES_MAX: usize = 694;

/// How much of an event is written: one of [`STEPS`].
struct Keep {
    /// Whether the budget took something away; the event then says `truncated`.
    cut: bool,
    /// Whether to write what only repeats another field, where consumers look for it.
    repeats: bool,
    detections: usize,
    /// Families and techniques.
    list: usize,
    tags: usize,
    text_bytes: usize,
    url_bytes: usize,
    /// Whether to write nothing but identity, verdict and subject.
    core: bool,
}

/// From everything to the core: repetitions go first, then the mildest detections, tags, the rest of the lists, long texts.
const STEPS: [Keep; 12] = [
    step(DETECTIONS_MAX, LIST_MAX, LIST_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX).whole(),
    step(DETECTIONS_MAX, LIST_MAX, LIST_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(24, LIST_MAX, LIST_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(16, LIST_MAX, LIST_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(8, LIST_MAX, LIST_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(8, LIST_MAX, 0, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(4, 8, 0, TEXT_BYTES_MAX, URL_BYTES_MAX),
    step(4, 4, 0, 256, 1024),
    step(2, 2, 0, 128, 512),
    step(1, 1, 0, 64, 256),
    step(0, 0, 0, 32, 128),
    step(0, 0, 0, 8, 32).core(),
];

const fn step(detections: usize, list: usize, tags: usize, text_bytes: usize, url_bytes: usize) -> Keep {
    Keep { cut: true, repeats: false, detections, list, tags, text_bytes, url_bytes, core: false }
}

impl Keep {
    const fn whole(self) -> Self {
        Self { cut: false, repeats: true, ..self }
    }

    const fn core(self) -> Self {
        Self { core: true, ..self }
    }

    /// The text within this step's bound.
    fn text<'a>(&self, text: &'a str) -> &'a str {
        cut(text, self.text_bytes)
    }

    /// The URL within this step's bound.
    fn url<'a>(&self, url: &'a str) -> &'a str {
        cut(url, self.url_bytes)
    }
}

/// The beginning of `text`, at most `bytes_max` bytes, ending on a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Writes with the first of [`STEPS`] whose result fits; with the last one, if none does.
fn fit(bytes_max: usize, out: &mut Vec<u8>, write: impl Fn(&Keep, &mut Vec<u8>)) {
    let start = out.len();
    for keep in &STEPS {
        out.truncate(start);
        write(keep, out);
        if out.len() - start <= bytes_max {
            break;
        }
    }
}

/// A number of a schema with the words that belong to it: they stand together here, so they cannot disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Code(u16, &'static str);

/// How bad an event is, in every scale that a receiver uses.
struct Severity {
    ocsf: Code,
    /// RFC 5424 severity; never 0 or 1, which common configurations write to every terminal.
    syslog: u8,
    /// CEF's and LEEF's scale, 1 to 10.
    ten: u8,
    /// Elastic's convention.
    ecs: u8,
}

impl Severity {
    fn of(event: &Event) -> &'static Self {
        match event.finding.verdict {
            // Nobody knows what the analysis would have said, as with one that failed.
            _ if event.topic == Topic::Overdue => &LOW,
            Verdict::Malicious if spreads_or_destroys(&event.finding) => &CRITICAL,
            Verdict::Malicious => &HIGH,
            Verdict::Suspicious => &MEDIUM,
            Verdict::Pua | Verdict::Error => &LOW,
            Verdict::Clean | Verdict::Unknown => &INFORMATIONAL,
        }
    }
}

const CRITICAL: Severity = Severity { ocsf: Code(5, "Critical"), syslog: 2, ten: 10, ecs: 99 };
const HIGH: Severity = Severity { ocsf: Code(4, "High"), syslog: 3, ten: 8, ecs: 73 };
const MEDIUM: Severity = Severity { ocsf: Code(3, "Medium"), syslog: 4, ten: 5, ecs: 47 };
const LOW: Severity = Severity { ocsf: Code(2, "Low"), syslog: 5, ten: 3, ecs: 21 };
const INFORMATIONAL: Severity = Severity { ocsf: Code(1, "Informational"), syslog: 6, ten: 1, ecs: 1 };

/// Kinds of malware (OCSF `classification_ids`) by the words that providers' threat labels use for them.
const KINDS: [(&str, Code); 20] = [
    ("adware", Code(1, "Adware")),
    ("backdoor", Code(2, "Backdoor")),
    ("bot", Code(3, "Bot")),
    ("botnet", Code(3, "Bot")),
    ("downloader", Code(6, "Downloader")),
    ("dropper", Code(7, "Dropper")),
    ("keylogger", Code(9, "Keylogger")),
    ("ransom", RANSOMWARE),
    ("ransomware", RANSOMWARE),
    ("rat", Code(11, "Remote-Access-Trojan")),
    ("miner", Code(13, "Resource-Exploitation")),
    ("coinminer", Code(13, "Resource-Exploitation")),
    ("rootkit", Code(15, "Rootkit")),
    ("spyware", Code(17, "Spyware")),
    ("stealer", Code(17, "Spyware")),
    ("trojan", Code(18, "Trojan")),
    ("virus", Code(19, "Virus")),
    ("webshell", Code(20, "Webshell")),
    ("wiper", WIPER),
    ("worm", WORM),
];
const RANSOMWARE: Code = Code(10, "Ransomware");
const WIPER: Code = Code(21, "Wiper");
const WORM: Code = Code(22, "Worm");

/// The kinds that a threat label names, in its order.
fn kinds(threat: &str) -> impl Iterator<Item = Code> {
    threat
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind))
}

fn spreads_or_destroys(finding: &Finding) -> bool {
    kinds(finding.threat.as_deref().unwrap_or_default()).any(|kind| [RANSOMWARE, WIPER, WORM].contains(&kind))
}

/// What became of the subject, as far as we know: we see verdicts, not actions (OCSF `disposition_id`).
const fn disposition(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Malicious | Verdict::Suspicious | Verdict::Pua => Code(15, "Detected"),
        Verdict::Clean => Code(16, "No Action"),
        Verdict::Unknown => Code(17, "Logged"),
        Verdict::Error => Code(27, "Error"),
    }
}

/// The platform's id of an analysis that is awaited and of which nothing else is known.
fn awaited_id(event: &Event) -> Option<&str> {
    match event.finding.subject.id() {
        SubjectId::Message(id) if event.topic == Topic::Overdue => Some(id),
        _ => None,
    }
}

/// What the event is about, in one word.
fn kind(event: &Event) -> &'static str {
    if awaited_id(event).is_some() { "analysis" } else { event.finding.subject.kind() }
}

/// Whether there is no verdict where there should be one.
fn is_failure(event: &Event) -> bool {
    event.finding.verdict == Verdict::Error || event.topic == Topic::Overdue
}

/// Whether the event calls for attention: a finding that is open.
const fn is_alert(event: &Event) -> bool {
    matches!(event.activity, Activity::Create | Activity::Update)
}

/// When the analysis ended. Receivers take no year before 1970, and no analysis ended then.
fn time_of(event: &Event) -> Timestamp {
    event.effective_at.max(Timestamp::UNIX_EPOCH)
}

/// The hashes of a file, strongest first. An identifier counts also where the field beside it is empty.
fn hashes(subject: &Subject) -> (Option<&Sha256>, Option<&Sha1>, Option<&Md5>) {
    let (mut sha256, mut sha1, mut md5) = (None, subject.sha1.as_ref(), subject.md5.as_ref());
    match subject.id() {
        SubjectId::Sha256(hash) => sha256 = Some(hash),
        SubjectId::Sha1(hash) => sha1 = Some(hash),
        SubjectId::Md5(hash) => md5 = Some(hash),
        SubjectId::Url(_) | SubjectId::Object { .. } | SubjectId::Message(_) => {}
    }
    (sha256, sha1, md5)
}

/// Whether a file type is a media type (`application/pdf`) and not words (`Win32 EXE`).
fn is_mime(file_type: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
    file_type.split_once('/').is_some_and(|(kind, name)| part(kind) && part(name))
}

/// The threat in one name: the provider's label, else the likeliest family, else what the worst detection calls it.
fn threat_name(finding: &Finding) -> Option<&str> {
    let detection = || finding.detections.iter().find_map(|hit| hit.name.as_deref());
    finding.threat.as_deref().or_else(|| finding.families.first().map(String::as_str)).or_else(detection)
}

/// The event in one English line, for people: `VirusTotal: malicious verdict for a.exe (54/68 engines, score 79) - trojan.emotet`.
struct Summary<'a>(&'a Event, &'a Keep);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, keep) = *self;
        let finding = &event.finding;
        let label = finding.subject.label();
        if event.topic == Topic::Overdue {
            let reason = finding.reason.as_deref().unwrap_or("no report");
            let (provider, label) = (keep.text(&event.provider), keep.text(&label));
            return write!(f, "{provider}: the analysis of {label} is overdue ({})", keep.text(reason));
        }
        write!(f, "{}: {} verdict for {}", keep.text(&event.provider), finding.verdict, keep.text(&label))?;
        match (finding.engines, finding.hits, finding.score) {
            (Some(engines), hits, Some(score)) => write!(f, " ({hits}/{engines} engines, score {score})")?,
            (Some(engines), hits, None) => write!(f, " ({hits}/{engines} engines)")?,
            (None, 0, Some(score)) => write!(f, " (score {score})")?,
            (None, 0, None) => {}
            (None, hits, Some(score)) => write!(f, " ({hits} hits, score {score})")?,
            (None, hits, None) => write!(f, " ({hits} hits)")?,
        }
        if let Some(threat) = threat_name(finding) {
            write!(f, " - {}", keep.text(threat))?;
        }
        match event.previous {
            Some(previous) => write!(f, ", was {}", previous.verdict),
            None => Ok(()),
        }
    }
}

/// Whether a character would break a line, steer a terminal or reverse what a person reads: C0 and C1 controls, the line and
/// paragraph separators, marks of writing direction, the byte order mark. No format lets them through as they are.
pub(crate) const fn is_hazard(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// Appends `text`, with what `escape` makes of every hazard and of what is special to the format; the runs between are copied.
fn escape_into(
    out: &mut Vec<u8>,
    text: &str,
    is_special: impl Fn(char) -> bool,
    escape: impl Fn(&mut Vec<u8>, char) -> fmt::Result,
) -> fmt::Result {
    let mut written = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| is_special(*c) || is_hazard(*c)) {
        out.extend_from_slice(&text.as_bytes()[written..at]);
        escape(out, c)?;
        written = at + c.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[written..]);
    Ok(())
}

/// The code of a character, as the text that stands for it.
fn push_code(out: &mut Vec<u8>, c: char) -> fmt::Result {
    write!(out, "u{:04x}", u32::from(c)).map_err(|_| fmt::Error)
}

#[cfg(test)]
mod tests;
