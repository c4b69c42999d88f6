//! One proven message as it was received, and the form in which the journal keeps it.
//!
//! Invariant: a `Delivery` exists only for a message whose proof held: it is made from a [`Proven`], or read back from the journal,
//! where nothing else is written. Its evidence never holds a credential: no Authorization, cookie, token header or query.
//!
//! What is stored is what was signed: where that is compressed, the stored bytes are too, and what they say is read out of them each time.
//!
//! Not here: how a proof is checked (`verify`), frames and checksums (`store/journal`), decompression (`delivery/coding`).

mod coding;
mod expectation;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::adapter::FetchId;
use crate::event::{Auth, SourceId};
use crate::verify::{How, Proven};

pub use self::coding::{Coding, Undecoded};
pub use self::expectation::{Expectation, Wanted};

/// One message of a source, byte for byte as it was signed, with how it was proven.
#[derive(Debug, Clone)]
pub struct Delivery {
    source: SourceId,
    received_at: Timestamp,
    evidence: Evidence,
    /// As it was signed.
    wire: Bytes,
    /// What that says.
    body: Bytes,
}

/// What is kept of a request beside its body. Everything is optional but the proof itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How it was proven, and by which key.
    pub how: How,
    /// The time that the sender signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
    /// The sender's own id of this delivery (`webhook-id`, `X-GitHub-Delivery`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Network address of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Content type as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How the stored body is compressed, if it is: a signature over the compressed bytes can be checked again only with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<Coding>,
    /// Headers that the source's adapter declares to need, lower-case names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The report that this is, where we fetched one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FetchId>,
    /// How far a stream of the platform is read with this, where it is a page of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// How far a stream was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which stream of the source (`ioc_stream`).
    pub stream: String,
    /// Where to go on, as the loop that reads it understands it.
    pub value: String,
}

impl Delivery {
    /// A message whose proof held.
    pub fn new(proven: Proven, source: &SourceId, received_at: Timestamp) -> Self {
        let (wire, body, evidence) = proven.into_parts();
        Self { source: source.clone(), received_at, evidence, wire, body }
    }

    /// The source whose proof it carried.
    pub const fn source(&self) -> &SourceId {
        &self.source
    }

    /// When its last byte arrived.
    pub const fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// How it was proven, and what else is kept of the request.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What the message says: the body as it was signed, or where that is compressed, what was compressed.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as it was signed: what is stored.
    pub const fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The strength of its proof.
    pub const fn auth(&self) -> Auth {
        self.evidence.how.auth()
    }

    /// The stored form before the body: a version byte, the length of the evidence (4 bytes, little endian), the evidence as JSON.
    /// The body follows it unchanged; source and time stand in the frame around both.
    pub fn stored_head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
        // Writing to memory cannot fail, and neither can serializing this struct of texts.
        serde_json::to_writer(&mut head, &self.evidence).expect("evidence is plain data");
        let length = u32::try_from(head.len() - PREFIX).expect("evidence is bounded by the header limit");
        head[1..PREFIX].copy_from_slice(&length.to_le_bytes());
        head
    }

    /// Reads the stored form back: what [`Delivery::stored_head`] and the body are together.
    pub fn from_stored(source: SourceId, received_at: Timestamp, stored: &Bytes) -> Result<Self, StoredError> {
        if stored.first() != Some(&VERSION) {
            return Err(StoredError::Version(stored.first().copied()));
        }
        let length: [u8; 4] = stored.get(1..PREFIX).and_then(|b| b.try_into().ok()).ok_or(StoredError::Short)?;
        let body_at = PREFIX.saturating_add(u32::from_le_bytes(length) as usize);
        let evidence = stored.get(PREFIX..body_at).ok_or(StoredError::Short)?;
        let evidence: Evidence = serde_json::from_slice(evidence).map_err(StoredError::Evidence)?;
        let wire = stored.slice(body_at..);
        // What cannot be decoded is kept all the same, and is for the adapter to refuse.
        let decoded = evidence.coding.and_then(|coding| coding.decode(&wire, DECODED_BYTES_MAX).ok());
        let body = decoded.unwrap_or_else(|| wire.clone());
        Ok(Self { source, received_at, evidence, wire, body })
    }

    /// The whole stored form in one piece, for the copy that a dead letter keeps.
    pub fn stored(&self) -> Bytes {
        let mut stored = BytesMut::from(self.stored_head().as_slice());
        stored.extend_from_slice(&self.wire);
        stored.freeze()
    }
}

/// Why a stored delivery could not be read. The checksum held, so this is another version's form or a fault of ours.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Written by another version.
    #[error("stored delivery has version {0:?}, this program reads {VERSION}")]
    Version(Option<u8>),
    /// Ends before its evidence does.
    #[error("stored delivery ends within its evidence")]
    Short,
    /// The evidence is not what this program writes.
    #[error("evidence of a stored delivery: {0}")]
    Evidence(serde_json::Error),
}

const VERSION: u8 = 1;
const PREFIX: usize = 5;

/// No body is larger, compressed or not: the largest `receiver.body_max`. The limit of the day was kept to when it was received.
const DECODED_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_gives_the_delivery_back() {
        let evidence = Evidence {
            how: How::Signature { key_id: "env:A".to_owned() },
            signed_at: None,
            sender_id: Some("msg_1".to_owned()),
            peer: None,
            content_type: None,
            coding: None,
            headers: vec![("x-a".to_owned(), "b".to_owned())],
            fetch: FetchId::new("task", "1234"),
            mark: Some(Mark { stream: "ioc_stream".to_owned(), value: "1".to_owned() }),
        };
        let source: SourceId = "portal".parse().expect("a name");
        let delivery = Delivery {
            source: source.clone(),
            received_at: Timestamp::UNIX_EPOCH,
            evidence,
            wire: Bytes::from_static(b"\xff\x00{}"),
            body: Bytes::from_static(b"\xff\x00{}"),
        };
        let stored = delivery.stored();
        let back = Delivery::from_stored(source.clone(), Timestamp::UNIX_EPOCH, &stored).expect("reads back");
        assert_eq!((back.evidence(), back.body()), (delivery.evidence(), delivery.body()));
        for cut in 0..stored.len() - delivery.body().len() {
            assert!(Delivery::from_stored(source.clone(), Timestamp::UNIX_EPOCH, &stored.slice(..cut)).is_err());
        }

        // A body that was signed compressed is stored so, and says what was compressed; one that is broken is kept as it is.
        for (wire, says) in [(&GZIPPED[..], &b"{}"[..]), (&GZIPPED[..9], &GZIPPED[..9])] {
            let evidence = Evidence { coding: Some(Coding::Gzip), ..delivery.evidence().clone() };
            let sent = Delivery { evidence, wire: Bytes::copy_from_slice(wire), ..delivery.clone() };
            let back =
                Delivery::from_stored(source.clone(), Timestamp::UNIX_EPOCH, &sent.stored()).expect("reads back");
            assert_eq!((&back.wire()[..], &back.body()[..]), (wire, says));
            assert_eq!(back.stored(), sent.stored());
        }
    }

    /// gzip of `{}`, made with another program.
    const GZIPPED: [u8; 22] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xab, 0xae, 0x05, 0x00, 0x43, 0xbf, 0xa6, 0xa3,
        0x02, 0x00, 0x00, 0x00,
    ];
}
