//! The ports of the store: the journal that every acknowledgement waits for, and the ledger that is derived from it.
//!
//! Invariants: what `append` answered survives a power cut; a sequence is never used twice; readers never see what is not durable;
//! an event, its deduplication key, its verdict record and the journal position move in one transaction.
//!
//! Not here: the files themselves (`store/journal`, `store/ledger`), what a record means (`delivery`, `normalize`).

pub mod folder;
pub mod journal;
pub mod keeper;
pub mod ledger;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::event::Name;

/// What goes into the journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What kind of record it is.
    pub kind: Kind,
    /// The source it belongs to.
    pub source: Name,
    /// When it was received.
    pub at: Timestamp,
    /// The part before the body, such as `Delivery::stored_head`.
    pub head: Vec<u8>,
    /// The body, byte for byte.
    pub body: Bytes,
    /// Identifies an exact repeat: a draft whose value is remembered with the same source is answered with the first one's sequence and not written.
    pub repeat: Option<[u8; 16]>,
}

/// Kinds of journal records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A proven message of a source.
    Delivery = 1,
    /// An operator's request to send a dead letter again, or to drop it.
    Operator = 2,
    /// An analysis that must report, or that has not in time.
    Expect = 3,
    /// A delivery that is to be read anew.
    Reread = 4,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Delivery),
            2 => Some(Self::Operator),
            3 => Some(Self::Expect),
            4 => Some(Self::Reread),
            _ => None,
        }
    }
}

/// What `append` answers once the record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Sequence of the record; of the first one, for a repeat.
    pub sequence: u64,
    /// Whether it was an exact repeat, so that nothing was written.
    pub repeat: bool,
}

/// Why a draft is not durable. All of it is our own trouble: the sender is asked to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Undelivered data has reached `store.size_max`, or the disk is full.
    #[error("the store is full of undelivered data, or its disk is full")]
    Full,
    /// More requests wait for the disk than the queue holds.
    #[error("the disk does not keep up with the requests")]
    Busy,
    /// The disk refuses to write or to sync.
    #[error("the disk refuses to write")]
    Unwritable,
    /// The process is on its way out.
    #[error("the service is stopping")]
    Stopping,
    /// Larger than a segment can hold; the configuration check makes sure that no body can be.
    #[error("the record is larger than a segment")]
    TooLarge,
}

/// One durable record of the journal.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its sequence: ascending, never used twice, gaps allowed.
    pub sequence: u64,
    /// What kind it is.
    pub kind: Kind,
    /// The source it belongs to.
    pub source: Name,
    /// When it was received.
    pub at: Timestamp,
    /// Head and body in one piece.
    pub stored: Bytes,
}

/// The journal: everything that was acknowledged to someone outside, in order.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Answers once the record would survive a power cut. Dropping the future does not undo the write: the record may still be kept.
    async fn append(&self, draft: Draft) -> Result<Appended, AppendError>;
}
