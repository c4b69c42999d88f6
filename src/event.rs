//! The one vocabulary: what an analysis said about a subject, and what normalize made of it.
//!
//! An adapter makes a [`Finding`]; normalize gives it an identity and its place in the subject's history and so makes
//! an [`Event`]. An `Event` never changes after that: routing, rendering and delivery only read it.
//!
//! Not here: how a payload is read (`adapter`), how an event looks to a receiver (`format`).

mod hash;
mod identity;
mod name;
mod subject;
mod topic;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use hash::{Hash, HashError, Md5, Sha1, Sha256};
use identity::digest_of_parts;
pub use identity::{Uid, uid_by_position, uid_of, uid_of_details};
pub use name::{Name, NameError, SourceId};
pub use subject::{Subject, SubjectId};
pub use topic::{Topic, overdue_uid};

/// What the analysis found, in order of severity: the worst of two verdicts is their `max`.
///
/// `Unknown` (no opinion) and `Error` (could not be examined) never count as clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No opinion.
    Unknown,
    /// Examined, and nothing found.
    Clean,
    /// Could not be examined; `Finding::reason` says why.
    Error,
    /// Potentially unwanted: adware, grayware, hack tools.
    Pua,
    /// Some signs of malice, not enough to be sure.
    Suspicious,
    /// Malware.
    Malicious,
}

impl Verdict {
    /// Every verdict, mildest first.
    pub const ALL: [Self; 6] = [Self::Unknown, Self::Clean, Self::Error, Self::Pua, Self::Suspicious, Self::Malicious];

    /// The word that users, sinks and metrics see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Clean => "clean",
            Self::Error => "error",
            Self::Pua => "pua",
            Self::Suspicious => "suspicious",
            Self::Malicious => "malicious",
        }
    }

    /// Whether this verdict is a detection (OCSF Detection Finding) and not merely a finished scan.
    pub const fn is_detection(self) -> bool {
        matches!(self, Self::Pua | Self::Suspicious | Self::Malicious)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The platform's own approval, next to its verdict and never mixed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// The platform's rules let it pass.
    Approved,
    /// The platform's rules stop it.
    NotApproved,
    /// A person has yet to decide.
    PendingReview,
}

impl Approval {
    /// The word that users and sinks see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::NotApproved => "not_approved",
            Self::PendingReview => "pending_review",
        }
    }
}

/// How the event was proven, weakest first: the order is used, a weaker proof never overturns a stronger one towards clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Only the sender's network address.
    None,
    /// A shared token or password in a header.
    Token,
    /// A client certificate with a pinned subject.
    Mtls,
    /// Fetched by us from the provider.
    Confirmed,
    /// A signature over the body.
    Signature,
}

impl Auth {
    /// The word that users and sinks see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::Mtls => "mtls",
            Self::Confirmed => "confirmed",
            Self::Signature => "signature",
        }
    }
}

/// One engine's or rule's hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detection {
    /// Engine or rule set.
    pub engine: String,
    /// What the engine calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How bad: `Malicious`, `Suspicious` or `Pua`.
    pub verdict: Verdict,
}

/// What one analysis said, as an adapter read it: facts of the provider, nothing of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// The verdict.
    pub verdict: Verdict,
    /// Risk from 0 (safe) to 100 (worst); absent where the source has none, never invented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// When the analysis ended, by the provider's clock; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysed_at: Option<Timestamp>,
    /// The provider's own id of this event (`original_event_uid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The provider's id of a notification about an entity, where one entity can be notified several times (VirusTotal's IoC stream).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_id: Option<String>,
    /// The platform's own approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Approval>,
    /// Why there is no verdict, for `Error` and `Unknown`; why it is what it is, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Hits, worst first, at most [`DETECTIONS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detections: Vec<Detection>,
    /// How many engines or rules hit, before the list was cut.
    #[serde(default)]
    pub hits: u32,
    /// How many engines answered at all; absent where the source does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engines: Option<u32>,
    /// Malware families or threat names, most likely first, at most [`LIST_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// Threat label in the provider's words (`trojan.emotet/kryptik`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threat: Option<String>,
    /// MITRE ATT&CK technique ids (`T1055`, `T1055.012`), at most [`LIST_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub techniques: Vec<String>,
    /// Tags of the provider, at most [`LIST_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Where a person can read the whole report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_url: Option<String>,
    /// The rule of a hunt that this subject matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunting_rule: Option<String>,
    /// Tenant or organization at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The caller's own reference, echoed by the provider (a CI run).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Traffic Light Protocol mark, upper case (`TLP:AMBER`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlp: Option<String>,
    /// Whether something was left out or shortened to stay within bounds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncated: bool,
}

/// Most detections that an event keeps; the count of all stays in [`Finding::hits`].
pub const DETECTIONS_MAX: usize = 32;
/// Most entries of any other list of a finding.
pub const LIST_MAX: usize = 32;
/// Most bytes of any text of a finding: sample names of 64 KiB exist, and every sink has a size budget.
pub const TEXT_BYTES_MAX: usize = 512;
/// Most bytes of a URL: longer ones are data, not addresses.
pub const URL_BYTES_MAX: usize = 2048;

impl Finding {
    /// A finding with nothing but what every one has.
    pub fn new(subject: Subject, verdict: Verdict) -> Self {
        Self {
            subject,
            verdict,
            score: None,
            analysed_at: None,
            event_id: None,
            notification_id: None,
            policy: None,
            reason: None,
            detections: Vec::new(),
            hits: 0,
            engines: None,
            families: Vec::new(),
            threat: None,
            techniques: Vec::new(),
            tags: Vec::new(),
            report_url: None,
            hunting_rule: None,
            tenant: None,
            reference: None,
            tlp: None,
            truncated: false,
        }
    }

    /// Brings every text and list within its bound, worst detections first, and marks what it had to cut.
    ///
    /// Identifiers are not cut: a subject that is too long is the adapter's to refuse.
    #[must_use]
    pub fn within_bounds(mut self) -> Self {
        self.hits = self.hits.max(u32::try_from(self.detections.len()).unwrap_or(u32::MAX));
        self.detections.sort_by_key(|hit| std::cmp::Reverse(hit.verdict));
        let mut cut = shorten_list(&mut self.detections, DETECTIONS_MAX);
        for hit in &mut self.detections {
            cut |= shorten(&mut hit.engine, TEXT_BYTES_MAX);
            cut |= hit.name.as_mut().is_some_and(|name| shorten(name, TEXT_BYTES_MAX));
        }
        for list in [&mut self.families, &mut self.techniques, &mut self.tags] {
            cut |= shorten_list(list, LIST_MAX);
            for text in list {
                cut |= shorten(text, TEXT_BYTES_MAX);
            }
        }
        let subject = &mut self.subject;
        for text in [
            &mut subject.name,
            &mut subject.file_type,
            &mut self.event_id,
            &mut self.notification_id,
            &mut self.reason,
            &mut self.threat,
            &mut self.hunting_rule,
            &mut self.tenant,
            &mut self.reference,
            &mut self.tlp,
        ] {
            cut |= text.as_mut().is_some_and(|text| shorten(text, TEXT_BYTES_MAX));
        }
        cut |= self.report_url.as_mut().is_some_and(|url| shorten(url, URL_BYTES_MAX));
        self.truncated |= cut;
        self
    }
}

/// Cuts `text` to at most `bytes_max` bytes, on a character boundary; whether it had to.
pub fn shorten(text: &mut String, bytes_max: usize) -> bool {
    if text.len() <= bytes_max {
        return false;
    }
    text.truncate(text.floor_char_boundary(bytes_max));
    true
}

fn shorten_list<T>(list: &mut Vec<T>, max: usize) -> bool {
    let cut = list.len() > max;
    list.truncate(max);
    cut
}

/// Where an event stands in the ledger: journal sequence and index within the delivery, in one ordered number.
///
/// It is derived from the journal alone, so a ledger that is rebuilt gives every event its old position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// Most events of one delivery: 2^20. A body of 10 MiB holds fewer items than that.
    pub const INDEX_MAX: u64 = (1 << 20) - 1;

    /// The `index`th event of the delivery with this sequence.
    pub const fn new(sequence: u64, index: u64) -> Self {
        Self(sequence << 20 | index)
    }

    /// Journal sequence of the delivery that the event came in.
    pub const fn sequence(self) -> u64 {
        self.0 >> 20
    }

    /// Which event of that delivery it is.
    pub const fn index(self) -> u64 {
        self.0 & Self::INDEX_MAX
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.sequence(), self.index())
    }
}

/// What a detection does to the finding of its (source, subject): OCSF's life cycle of a Detection Finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// A detection, and no finding was open: 2004 Create.
    Create,
    /// A detection, and one was open: 2004 Update.
    Update,
    /// Clean, and a finding was open: 2004 Close.
    Close,
    /// Everything else: 6007 Scan Activity.
    Scan,
}

/// How this event relates to the latest record of its (source, subject).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is the latest.
    Latest,
    /// A newer analysis was known already.
    Superseded,
    /// It would turn a better proven record towards clean, so it does not take effect.
    Contested,
}

/// The verdict that this one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// What it was.
    pub verdict: Verdict,
    /// Since when: by the provider's clock, or by receipt where it gave no time.
    pub analysed_at: Timestamp,
}

/// One normalized event: a finding with its identity, its proof and its place in the subject's history. Never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Identity and deduplication key.
    pub uid: Uid,
    /// The source it came from.
    pub source: SourceId,
    /// The platform, as the adapter calls it (`VirusTotal`).
    pub provider: String,
    /// How it was proven.
    pub auth: Auth,
    /// When its delivery was received.
    pub received_at: Timestamp,
    /// When the analysis ended: the provider's time, but never later than the receipt; the receipt where there is none.
    pub effective_at: Timestamp,
    /// Whether the provider's clock is more than five minutes ahead of ours.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clock_suspect: bool,
    /// SHA-256 of the raw body.
    pub raw_sha256: Sha256,
    /// Size of the raw body in bytes.
    pub raw_size: u64,
    /// What the analysis said.
    pub finding: Finding,
    /// What it does to the finding's life cycle.
    pub activity: Activity,
    /// How it relates to the latest record.
    pub standing: Standing,
    /// The verdict it replaces, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Why it is told once more; none the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// The event that this one corrects: the same message, read with a later adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrects: Option<Uid>,
    /// What it tells.
    #[serde(default, skip_serializing_if = "Topic::is_verdict")]
    pub topic: Topic,
}

/// Why an event is told once more, at an operator's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Again {
    /// It was a dead letter.
    Redrive {
        /// Id of the letter.
        letter: String,
    },
    /// A receiver wanted what it had been sent before.
    Replay,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(event_id: Option<&str>) -> Finding {
        let subject = Subject::of(SubjectId::Url("https://example.com/".to_owned()));
        Finding { event_id: event_id.map(str::to_owned), ..Finding::new(subject, Verdict::Clean) }
    }

    #[test]
    fn parts_that_run_into_each_other_give_other_identities() {
        let mut moved = finding(Some("a"));
        moved.notification_id = Some("b".to_owned());
        let source: SourceId = "portal".parse().expect("a name");
        assert_ne!(uid_of(&source, &moved), uid_of(&source, &finding(Some("ab"))));
        assert_eq!(uid_of(&source, &finding(None)), None);
    }

    #[test]
    fn texts_are_cut_on_a_character_and_the_event_says_so() {
        let mut long = finding(None);
        long.subject.name = Some("é".repeat(TEXT_BYTES_MAX));
        let cut = long.within_bounds();
        assert_eq!(cut.subject.name.as_deref().map(str::len), Some(TEXT_BYTES_MAX));
        assert!(cut.truncated);
        assert!(!finding(None).within_bounds().truncated);
    }
}
