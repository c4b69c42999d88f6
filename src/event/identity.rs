//! Identity: which events are the same one, however often and by whichever way they come (contract: Identity).
//!
//! Not here: what is done with a second one (`normalize`).

use sha2::{Digest, Sha256 as Sha256Hasher};

use super::{Approval, Finding, Hash, Position, SourceId};

/// The identity of an event and its deduplication key: 16 bytes, lower-case hexadecimal (contract: Identity).
pub type Uid = Hash<16>;

/// Identity of a finding: the first 16 bytes of SHA-256 over the length-prefixed parts version, source, subject key, time of
/// the analysis in ms (else the provider's event id), verdict, policy, notification id. A length is 4 bytes, big endian; an absent part is empty.
///
/// None where the provider gives neither a time nor an id: such a message has no identity of its own, and is a duplicate
/// only of what it repeats.
pub fn uid_of(source: &SourceId, finding: &Finding) -> Option<Uid> {
    let when = match (finding.analysed_at, &finding.event_id) {
        (Some(at), _) => at.as_millisecond().to_string(),
        (None, Some(id)) => id.clone(),
        (None, None) => return None,
    };
    Some(uid_with(source, finding, &when))
}

/// Identity of a finding without a time or an id: the delivery it came in stands in for them.
pub fn uid_by_position(source: &SourceId, finding: &Finding, position: Position) -> Uid {
    uid_with(source, finding, &format!("position:{}", position.0))
}

fn uid_with(source: &SourceId, finding: &Finding, when: &str) -> Uid {
    let subject = finding.subject.key();
    let digest = digest_of_parts([
        b"v1".as_slice(),
        source.as_str().as_bytes(),
        subject.as_bytes(),
        when.as_bytes(),
        finding.verdict.word().as_bytes(),
        finding.policy.map_or("", Approval::word).as_bytes(),
        finding.notification_id.as_deref().unwrap_or_default().as_bytes(),
    ]);
    first_half(&digest)
}

/// Identity of an event that corrects another in its details only: the same for the same details.
pub fn uid_of_details(corrected: Uid, finding: &Finding) -> Uid {
    let details = serde_json::to_vec(finding).expect("a finding is plain data");
    first_half(&digest_of_parts([b"v1-details".as_slice(), &corrected.0, &details]))
}

fn first_half(digest: &[u8; 32]) -> Uid {
    let mut uid = [0; 16];
    uid.copy_from_slice(&digest[..16]);
    Hash(uid)
}

pub(super) fn digest_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = Sha256Hasher::new();
    for part in parts {
        hasher.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
