//! The port of the sinks: what a receiver of events has to do, and nothing about how.
//!
//! A sink sends batches and reports how far the receiver has taken them. It never sleeps, retries or drops: `deliver` decides
//! that, once for all sinks.
//!
//! Not here: what an event looks like (`format`), cursors and dead letters (`deliver`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::event::{Event, Position};

/// One event as the receiver gets it.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Where it stands; positions of a batch ascend.
    pub position: Position,
    /// The event, for what stands beside the body (Kafka's key and headers, HEC's time).
    pub event: Arc<Event>,
    /// The event in the sink's format, complete and within the sink's size budget.
    pub body: Vec<u8>,
}

/// A receiver of events.
#[async_trait]
pub trait Sink: Send {
    /// Connects, and forgets whatever was in flight. Called before the first `send` and again after a [`Stop`] or [`Settled::Rewind`].
    ///
    /// A sink that keeps its own cursor (exactly once) answers with it; every other one answers with `from`.
    async fn open(&mut self, from: Position) -> Result<Position, Stop>;

    /// Hands a batch over. It may return before the receiver has it: then the batch is in flight until `settled` speaks of it.
    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop>;

    /// Waits until the receiver has taken or refused something that is in flight.
    ///
    /// Cancel safe: dropping the future loses no answer. Waits for ever when nothing is in flight.
    async fn settled(&mut self) -> Result<Settled, Stop>;

    /// Takes leave: flushes what the protocol lets it flush, within `grace`. In-flight batches that are not settled by then are sent again after the restart.
    async fn close(&mut self, grace: Duration);

    /// Most batches in flight at once; at least 1.
    fn in_flight_max(&self) -> usize {
        1
    }
}

/// How far the receiver has taken what is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Everything up to and with this position.
    Through(Position),
    /// Uncertain from this position on (a connection was lost): it has to be sent again. Nothing is in flight any more.
    Rewind(Position),
    /// The receiver will never take something in this range of one batch. Nothing is in flight any more.
    ///
    /// `deliver` sends the range again in smaller parts, `suspect` alone, and dead-letters what is refused alone.
    Refused {
        /// First position of the refused batch.
        from: Position,
        /// Last position of the refused batch.
        through: Position,
        /// The event that the receiver named, if it named one.
        suspect: Option<Position>,
        /// The receiver's own words, at most 1 KiB.
        reason: String,
    },
}

/// Why a sink can't go on now. It waits for ever, each with its state; nothing is ever dropped for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Not reachable, overloaded or closed: `backoff`.
    #[error("{reason}")]
    Unavailable {
        /// How long the receiver asked us to wait.
        retry_after: Option<Duration>,
        /// What happened, in words.
        reason: String,
    },
    /// The receiver refused our credentials: `auth_failed`. Secrets are read again at each attempt.
    #[error("{reason}")]
    Unauthorized {
        /// What was refused and which secret to check.
        reason: String,
    },
    /// No trusted TLS connection: `tls_failed`.
    #[error("{reason}")]
    Tls {
        /// Which check failed and what to mend.
        reason: String,
    },
    /// The receiver or our config is set up wrongly (no such topic, index or channel): `paused`.
    #[error("{reason}")]
    Misconfigured {
        /// What to mend, and where.
        reason: String,
    },
}

impl Stop {
    /// The state that metrics and `sinks` show.
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "backoff",
            Self::Unauthorized { .. } => "auth_failed",
            Self::Tls { .. } => "tls_failed",
            Self::Misconfigured { .. } => "paused",
        }
    }
}
