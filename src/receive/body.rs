//! Reads a request's body as it comes over the wire, within bounds of size, time and memory.
//!
//! Invariants: at most the limit and one chunk is ever held; a body that stands still, or trickles, is cut off; the bodies that
//! are being read together stay within a budget, whoever sends them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;

/// The bounds of bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    /// Largest body.
    pub(super) bytes_max: usize,
    /// Longest time from the head to the last byte.
    pub(super) timeout: Duration,
    /// Bytes of all bodies that came in more than one piece and are not complete yet.
    pub(super) held_bytes: AtomicUsize,
}

impl Bodies {
    /// The whole body. One that came in a single piece is not copied.
    pub(super) async fn read(
        &self,
        payload: &mut web::Payload,
        declared: Option<u64>,
        draining: &watch::Sender<bool>,
    ) -> Result<Bytes, Answer> {
        let start = Instant::now();
        let Some(first) = self.next_chunk(payload, start, 0, draining).await? else { return Ok(Bytes::new()) };
        if first.len() > self.bytes_max {
            return Err(Answer::TooLarge);
        }
        let Some(second) = self.next_chunk(payload, start, first.len(), draining).await? else { return Ok(first) };
        let mut held = Held { budget: self, bytes: 0 };
        let expected = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = BytesMut::with_capacity(expected.min(RESERVED_BYTES_MAX));
        body.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > self.bytes_max {
                return Err(Answer::TooLarge);
            }
            body.extend_from_slice(&chunk);
            held.grow(body.len())?;
            next = self.next_chunk(payload, start, body.len(), draining).await?;
        }
        Ok(body.freeze())
    }

    /// The next piece, or none at the end. Waits no longer than what has arrived so far earned.
    async fn next_chunk(
        &self,
        payload: &mut web::Payload,
        start: Instant,
        bytes_read: usize,
        draining: &watch::Sender<bool>,
    ) -> Result<Option<Bytes>, Answer> {
        // Mostly it is here already, and no timer is needed.
        let next = if let Some(next) = payload.next().now_or_never() {
            next
        } else {
            let earned = Duration::from_secs((bytes_read / RATE_MIN_BYTES_PER_S) as u64);
            let deadline = start + (RATE_GRACE + earned).min(self.timeout);
            let mut news = draining.subscribe();
            tokio::select! {
                next = timeout_at(deadline, payload.next()) => next.map_err(|_| Answer::BrokenBody)?,
                // A half-sent body would hold up the exit; its sender comes again.
                _ = news.wait_for(|draining| *draining) => return Err(Answer::Unavailable),
            }
        };
        next.transpose().map_err(|_| Answer::BrokenBody)
    }
}

/// One body's part of the budget, given back when it is dropped.
struct Held<'a> {
    budget: &'a Bodies,
    bytes: usize,
}

impl Held<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Answer> {
        let more = bytes - self.bytes;
        self.bytes = bytes;
        let all = self.budget.held_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if all > HELD_BYTES_MAX.max(self.budget.bytes_max * 2) { Err(Answer::Unavailable) } else { Ok(()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reserved at once for what a sender only announced; more follows with the bytes themselves.
const RESERVED_BYTES_MAX: usize = 256 << 10;

/// Bodies that are being read, all together: a third of the memory that the whole process may take.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Slower than any modem: below this a sender only holds the connection.
const RATE_MIN_BYTES_PER_S: usize = 1024;

/// How long a body may stand still before its rate counts: a slow start, a lost packet or two.
const RATE_GRACE: Duration = Duration::from_secs(5);
