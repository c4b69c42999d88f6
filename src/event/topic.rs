//! What an event tells, where it is no verdict, and the identity of such an event.

use serde::{Deserialize, Serialize};

use super::{Event, Hash, SourceId, Uid, Verdict, digest_of_parts};

/// What an event tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// What an analysis said.
    #[default]
    Verdict,
    /// That an analysis which was announced has not reported in time. Its finding has no opinion, and its reason says what the platform
    /// answered.
    Overdue,
}

impl Topic {
    /// Whether it is a verdict; everything else passes rules that are about verdicts.
    pub const fn is_verdict(&self) -> bool {
        matches!(self, Self::Verdict)
    }
}

impl Event {
    /// What kind of event it is, as receivers look it up (contract 5): `verdict.WORD` or `analysis.overdue`.
    pub const fn code(&self) -> &'static str {
        match (self.topic, self.finding.verdict) {
            (Topic::Overdue, _) => "analysis.overdue",
            (Topic::Verdict, Verdict::Unknown) => "verdict.unknown",
            (Topic::Verdict, Verdict::Clean) => "verdict.clean",
            (Topic::Verdict, Verdict::Error) => "verdict.error",
            (Topic::Verdict, Verdict::Pua) => "verdict.pua",
            (Topic::Verdict, Verdict::Suspicious) => "verdict.suspicious",
            (Topic::Verdict, Verdict::Malicious) => "verdict.malicious",
        }
    }
}

/// Identity of the event that tells of a late analysis: what was awaited, and by which announcement.
pub fn overdue_uid(source: &SourceId, wanted: &str, sequence: u64) -> Uid {
    let sequence = sequence.to_string();
    let parts = [b"v1".as_slice(), b"overdue", source.as_str().as_bytes(), wanted.as_bytes(), sequence.as_bytes()];
    let digest = digest_of_parts(parts);
    let mut uid = [0; 16];
    uid.copy_from_slice(&digest[..16]);
    Hash(uid)
}
