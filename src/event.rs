//! The one vocabulary: what an analysis said about a subject, and what normalize made of it.
//!
//! An adapter makes a [`Finding`]; normalize gives it an identity and its place in the subject's history and so makes
//! an [`Event`]. An `Event` never changes after that: routing, rendering and delivery only read it.
//!
//! Not here: how a payload is read (`adapter`), how an event looks to a receiver (`format`).

mod identity;
mod topic;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Sha256Hasher};

use identity::digest_of_parts;
pub use identity::{Uid, uid_by_position, uid_of, uid_of_details};
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

/// Name of a source or sink: `[a-z0-9][a-z0-9_-]*`, at most 63 bytes, so that it fits file names, labels and environment overrides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// A source of deliveries, as named in the config.
pub type SourceId = Name;

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`Name`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a name: use a-z, 0-9, _ and -, begin with a letter or digit, at most 63 characters")]
pub struct NameError(String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let starts_well = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let all_well = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if starts_well && all_well && bytes.len() <= 63 {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash of `N` bytes, written as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash<const N: usize>(pub [u8; N]);

/// SHA-256 of a file.
pub type Sha256 = Hash<32>;
/// SHA-1 of a file.
pub type Sha1 = Hash<20>;
/// MD5 of a file.
pub type Md5 = Hash<16>;

/// Why a text is no hash of the expected length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {} hexadecimal digits", N * 2)]
pub struct HashError<const N: usize>;

impl<const N: usize> FromStr for Hash<N> {
    type Err = HashError<N>;

    /// Accepts either case, because senders use both; nothing else is tolerated.
    fn from_str(text: &str) -> Result<Self, HashError<N>> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| HashError)?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> TryFrom<String> for Hash<N> {
    type Error = HashError<N>;

    fn try_from(text: String) -> Result<Self, HashError<N>> {
        text.parse()
    }
}

impl<const N: usize> From<Hash<N>> for String {
    fn from(hash: Hash<N>) -> Self {
        hex::encode(hash.0)
    }
}

impl<const N: usize> fmt::Display for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        let text = &mut text[..N * 2];
        hex::encode_to_slice(self.0, text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
    }
}

impl<const N: usize> fmt::Debug for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the verdict is about. At least one identifier is always present: see the constructors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    id: SubjectId,
    /// SHA-1, where the sender gave it beside a stronger identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<Sha1>,
    /// MD5, where the sender gave it beside a stronger identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5>,
    /// File name, chosen by whoever made the file: never trusted, at most [`TEXT_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Type of the file in the sender's words (`Win32 EXE`, `application/pdf`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<String>,
}

/// The identifier a subject is known by: the strongest one that the sender gave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectId {
    /// A file, by SHA-256.
    Sha256(Sha256),
    /// A file of which only the SHA-1 is known.
    Sha1(Sha1),
    /// A file of which only the MD5 is known.
    Md5(Md5),
    /// A URL, domain or address, as the sender wrote it.
    Url(String),
    /// An object in a store, known by its URL and entity tag.
    Object {
        /// Where it lies.
        url: String,
        /// Which version of it; empty where the sender gave none.
        etag: String,
    },
    /// A mail or chat message, by the sender's id.
    Message(String),
}

impl Subject {
    /// A file known by the strongest of the given hashes; none if there is no hash at all.
    pub fn file(sha256: Option<Sha256>, sha1: Option<Sha1>, md5: Option<Md5>) -> Option<Self> {
        let id = match (sha256, sha1, md5) {
            (Some(hash), _, _) => SubjectId::Sha256(hash),
            (None, Some(hash), _) => SubjectId::Sha1(hash),
            (None, None, Some(hash)) => SubjectId::Md5(hash),
            (None, None, None) => return None,
        };
        Some(Self { sha1, md5, ..Self::of(id) })
    }

    /// Any other subject, known by `id`.
    pub const fn of(id: SubjectId) -> Self {
        Self { id, sha1: None, md5: None, name: None, size: None, file_type: None }
    }

    /// The identifier.
    pub const fn id(&self) -> &SubjectId {
        &self.id
    }

    /// SHA-256, if that is what the file is known by.
    pub const fn sha256(&self) -> Option<Sha256> {
        match self.id {
            SubjectId::Sha256(hash) => Some(hash),
            _ => None,
        }
    }

    /// The URL of a `url` or `object` subject.
    pub fn url(&self) -> Option<&str> {
        match &self.id {
            SubjectId::Url(url) | SubjectId::Object { url, .. } => Some(url),
            _ => None,
        }
    }

    /// `file`, `url`, `object` or `message`.
    pub const fn kind(&self) -> &'static str {
        match self.id {
            SubjectId::Sha256(_) | SubjectId::Sha1(_) | SubjectId::Md5(_) => "file",
            SubjectId::Url(_) => "url",
            SubjectId::Object { .. } => "object",
            SubjectId::Message(_) => "message",
        }
    }

    /// The key of the verdict index and of Kafka: short, printable, without anything that the sender chose.
    pub fn key(&self) -> String {
        let digest = |parts: &[&str]| hex::encode(digest_of_parts(parts.iter().map(|part| part.as_bytes())));
        match &self.id {
            SubjectId::Sha256(hash) => format!("file:{hash}"),
            SubjectId::Sha1(hash) => format!("file:sha1:{hash}"),
            SubjectId::Md5(hash) => format!("file:md5:{hash}"),
            SubjectId::Url(url) => format!("url:{}", hex::encode(Sha256Hasher::digest(url))),
            SubjectId::Object { url, etag } => format!("object:{}", digest(&[url, etag])),
            SubjectId::Message(id) => format!("message:{}", digest(&[id])),
        }
    }

    /// How a person would call it: the file name, else the URL, else the identifier.
    pub fn label(&self) -> std::borrow::Cow<'_, str> {
        match (&self.name, &self.id) {
            (Some(name), _) => name.into(),
            (None, SubjectId::Url(url) | SubjectId::Object { url, .. }) => url.into(),
            (None, SubjectId::Message(id)) => id.into(),
            (None, SubjectId::Sha256(hash)) => hash.to_string().into(),
            (None, SubjectId::Sha1(hash)) => hash.to_string().into(),
            (None, SubjectId::Md5(hash)) => hash.to_string().into(),
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
    fn a_name_holds_nothing_that_would_need_an_escape() {
        for good in ["a", "0", "portal", "vt-2_x", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a/b", "ü", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hash_is_read_in_either_case_and_shown_in_lower() {
        let upper: Md5 = "44D88612FEA8A8F36DE82E1278ABB02F".parse().expect("32 digits");
        assert_eq!(upper.to_string(), "44d88612fea8a8f36de82e1278abb02f");
        assert!("44d8".parse::<Md5>().is_err());
        assert!("zz".repeat(16).parse::<Md5>().is_err());
    }

    #[test]
    fn the_strongest_hash_names_the_file() {
        assert!(Subject::file(None, None, None).is_none());
        let both = Subject::file(None, Some(Hash([1; 20])), Some(Hash([2; 16]))).expect("has hashes");
        assert_eq!(both.key(), format!("file:sha1:{}", "01".repeat(20)));
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
