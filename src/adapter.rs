//! What a platform's payload means: one pure function a platform, from a delivery to findings.
//!
//! Invariants: an adapter never panics, whatever the bytes; it does no I/O and knows no clock; a bad item spoils no other;
//! what it does not understand is an error, never a clean verdict.
//!
//! Not here: identity, duplicates and history (`normalize`), proof (`verify`).

use crate::delivery::Delivery;
use crate::event::Finding;

/// One platform's payloads.
pub trait Adapter: Send + Sync {
    /// The platform, as users know it (`VirusTotal`): `Event::provider`.
    fn provider(&self) -> &'static str;

    /// Headers, in lower case, that [`Adapter::normalize`] reads; the receiver keeps them with the delivery.
    fn headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// What the delivery says, in the order it says it. One message may carry several outcomes.
    fn normalize(&self, delivery: &Delivery) -> Result<Vec<Result<Outcome, ItemError>>, NormalizeError>;
}

/// What one item of a message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A finished analysis.
    Verdict(Box<Finding>),
    /// An analysis that has not finished: never a verdict, whatever its counters say.
    NotReady,
    /// Only an id: the report has to be fetched.
    Pointer(FetchId),
    /// A job (a retrohunt, a storage scan) ended; its results come by another way.
    Job,
    /// Nothing for us: a ping, a work order, an API's own answer.
    Ignore,
}

impl Outcome {
    /// The class in one word, as `render` and metrics show it.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Verdict(_) => "verdict",
            Self::NotReady => "not_ready",
            Self::Pointer(_) => "pointer",
            Self::Job => "job",
            Self::Ignore => "ignore",
        }
    }
}

/// The platform's id of a report that has to be fetched, validated by the adapter: never a URL out of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FetchId(pub String);

/// Why one item of a message could not be read. Its neighbours go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item {index}: {reason}")]
pub struct ItemError {
    /// Place of the item in the message, from 0.
    pub index: usize,
    /// What was wrong, with the path of the field; never the value, which the sender chose.
    pub reason: String,
}

/// Why a whole message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// Not JSON, or JSON that we refuse to interpret (too deep, keys twice).
    #[error("not readable JSON: {0}")]
    Json(String),
    /// JSON, but no message that this adapter knows.
    #[error("no message of this platform: {0}")]
    Unknown(String),
    /// A message that this adapter knows, with a field that is missing or odd.
    #[error("{0}")]
    Field(String),
}
