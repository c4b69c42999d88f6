//! A batch on its way: the requests that carry it, and how far each of them has come.
//!
//! Invariants: a request ends with one outcome; one that leaves none was stopped by a fault of ours, and its events are sent again.
//!
//! Not here: HTTP (`session`), which batches there are (`splunk_hec`).

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::{Settled, Stop};
use crate::event::Position;

/// A batch on the way: its own request for what was not under way already, and those that carry the rest.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) from: Position,
    pub(super) through: Position,
    /// It was not sent after all, because another one failed: that one's report ends this.
    pub(super) is_void: bool,
    pub(super) own: Option<Arc<Request>>,
    pub(super) adopted: Vec<Arc<Request>>,
}

/// One HTTP request on its way; dropped, it is given up.
#[derive(Debug)]
pub(super) struct Request {
    /// Its events, ascending; at least one.
    pub(super) positions: Vec<Position>,
    /// Their size before compression.
    pub(super) bytes: usize,
    pub(super) way: Arc<Way>,
    pub(super) task: AbortHandle,
}

/// How far a request has come.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// When a collector took it.
    taken_at: OnceLock<Instant>,
    outcome: OnceLock<Outcome>,
}

/// How the delivery of a batch ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Delivered,
    Refused { event: Option<usize>, reason: String, is_too_large: bool },
    Stop(Stop),
}

/// Where a request leaves how far it has come. Dropped without an outcome, it was a fault of ours.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) way: Arc<Way>,
    /// Told of each step.
    pub(super) changed: Arc<Notify>,
    /// The place among the requests that wait to be taken.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Flight {
    pub(super) fn requests(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.own.iter().chain(&self.adopted)
    }

    /// Whether all of it was delivered.
    pub(super) fn is_delivered(&self) -> bool {
        !self.is_void && self.requests().all(|request| matches!(request.outcome(), Some(Outcome::Delivered)))
    }

    pub(super) fn failure(&self) -> Option<Result<Settled, Stop>> {
        let (from, through) = (self.from, self.through);
        self.requests().find_map(|request| match request.outcome()? {
            Outcome::Delivered => None,
            Outcome::Stop(stop) => Some(Err(stop.clone())),
            Outcome::Refused { event, reason, .. }
                if self.own.as_ref().is_some_and(|own| Arc::ptr_eq(own, request)) =>
            {
                let suspect = event.and_then(|event| request.positions.get(event).copied());
                Some(Ok(Settled::Refused { from, through, suspect, reason: reason.clone() }))
            }
            // It was made for another batch than this: which event is meant shows when they are sent as batches of today.
            Outcome::Refused { .. } => Some(Ok(Settled::Rewind(from))),
        })
    }
}

impl Request {
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.way.outcome.get()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.outcome().is_some_and(|outcome| !matches!(outcome, Outcome::Delivered))
    }

    /// Whether a batch of its size is too large; one event alone says nothing about batches.
    pub(super) fn is_too_large(&self) -> bool {
        self.positions.len() > 1 && matches!(self.outcome(), Some(Outcome::Refused { is_too_large: true, .. }))
    }

    /// When a collector took it.
    pub(super) fn taken_at(&self) -> Option<Instant> {
        self.way.taken_at.get().copied()
    }

    pub(super) fn through(&self) -> Position {
        self.positions[self.positions.len() - 1]
    }

    pub(super) fn touches(&self, from: Position, through: Position) -> bool {
        self.positions[0] <= through && self.through() >= from
    }

    pub(super) fn holds(&self, position: Position) -> bool {
        self.positions.binary_search(&position).is_ok()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Report {
    /// A collector took it; what may follow is the acknowledgement.
    pub(super) fn taken(&mut self) {
        self.way.taken_at.get_or_init(Instant::now);
        self.slot = None;
        self.changed.notify_one();
    }

    /// Who gets the slot of one that failed sees that it did.
    pub(super) fn is(self, outcome: Outcome) {
        self.way.outcome.get_or_init(|| outcome);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.way
            .outcome
            .get_or_init(|| Outcome::Stop(Stop::unavailable("the request ended in a fault of ours; sending it again")));
        self.changed.notify_one();
    }
}
