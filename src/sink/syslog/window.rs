//! The resend window: what was written to a connection and may still be unread at its other end.
//!
//! TCP acknowledges what the receiver's kernel took, not what the receiver read. What it had not read is gone when it dies. So a
//! batch is settled only when its bytes were acknowledged, and then either more bytes were acknowledged after it than the
//! receive buffer there can hold, or it stood in the window for some time while the connection was good. Before that, a lost
//! connection means that all of the window is sent again.
//!
//! Invariants: only positions and counts are kept, never a message: those are read from the ledger again.
//!
//! Not here: the connection (`wire`), what is acknowledged (`queue`). The clock is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Position;

#[derive(Debug)]
pub(super) struct Window {
    /// How many bytes have to be acknowledged after a batch.
    bytes: u64,
    /// How long an acknowledged batch stays otherwise.
    time: Duration,
    batches: VecDeque<Written>,
    /// Bytes written to this connection.
    written: u64,
}

/// One batch in the window: some 40 bytes for the many kilobytes that it was.
#[derive(Debug)]
struct Written {
    first: Position,
    last: Position,
    /// Bytes of the connection up to its end.
    end: u64,
    at: Instant,
}

impl Window {
    pub(super) const fn new(bytes: u64, time: Duration) -> Self {
        Self { bytes, time, batches: VecDeque::new(), written: 0 }
    }

    /// A new connection: nothing was written to it.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.written = 0;
    }

    pub(super) fn push(&mut self, (first, last): (Position, Position), bytes: usize, at: Instant) {
        self.written += bytes as u64;
        self.batches.push_back(Written { first, last, end: self.written, at });
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Where sending begins again when the connection is lost.
    pub(super) fn first(&self) -> Option<Position> {
        self.batches.front().map(|batch| batch.first)
    }

    /// The last position in it.
    pub(super) fn last(&self) -> Option<Position> {
        self.batches.back().map(|batch| batch.last)
    }

    /// Whether so much was written after the oldest batch that it must have been acknowledged, and `bytes` after it too: our own
    /// kernel holds no more than [`QUEUE_BYTES_MAX`].
    pub(super) fn is_full(&self) -> bool {
        self.batches.front().is_some_and(|oldest| oldest.end + self.bytes + QUEUE_BYTES_MAX <= self.written)
    }

    /// When the oldest batch has been there for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.batches.front().map(|oldest| oldest.at + self.time)
    }

    /// Bytes written to this connection.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of this connection that were acknowledged, while `queued` were not.
    pub(super) const fn acknowledged(&self, queued: u64) -> u64 {
        self.written.saturating_sub(queued)
    }

    /// Whether the oldest batch was acknowledged, while `queued` bytes of the connection were not. Under TLS more bytes are on the
    /// wire than are counted here, so it errs on the safe side.
    pub(super) fn is_acknowledged(&self, queued: u64) -> bool {
        self.batches.front().is_some_and(|oldest| oldest.end <= self.acknowledged(queued))
    }

    /// Lets the oldest batch go: up to where it reached.
    pub(super) fn settle(&mut self) -> Option<Position> {
        self.batches.pop_front().map(|oldest| oldest.last)
    }
}

/// Bytes that a connection may have asked our kernel to hold.
pub(super) const SEND_BUFFER_BYTES: usize = 64 << 10;
/// What it holds then: the kernel doubles the number for its own books, and goes over it by one packet at most (64 KiB). 128,027 bytes
/// were measured.
const QUEUE_BYTES_MAX: u64 = 4 * SEND_BUFFER_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 20;
    const TIME: Duration = Duration::from_mins(1);

    fn places(number: u64) -> (Position, Position) {
        (Position(number * 10), Position(number * 10 + 9))
    }

    #[test]
    fn a_batch_leaves_when_enough_was_acknowledged_after_it() {
        let (mut window, now) = (Window::new(BYTES, TIME), Instant::now());
        let batch = 100_000;
        let most = (BYTES + QUEUE_BYTES_MAX).div_ceil(batch as u64);
        for number in 0..=most {
            assert!(!window.is_full(), "{number}");
            window.push(places(number), batch, now);
        }
        assert!(window.is_full());
        assert_eq!((window.settle(), window.first()), (Some(Position(9)), Some(Position(10))));
        assert!(!window.is_full());
    }

    #[test]
    fn time_alone_settles_nothing_that_is_not_acknowledged() {
        let (mut window, now) = (Window::new(BYTES, TIME), Instant::now());
        window.push(places(1), 500, now);
        window.push(places(2), 500, now + TIME);
        assert_eq!(window.due(), Some(now + TIME));
        for (queued, acknowledged) in [(1001, false), (1000, false), (501, false), (500, true), (0, true)] {
            assert_eq!(window.is_acknowledged(queued), acknowledged, "{queued}");
        }
        window.settle();
        assert_eq!(window.due(), Some(now + TIME + TIME));
        assert!(!window.is_acknowledged(1) && window.is_acknowledged(0));
        assert_eq!((window.len(), window.last()), (1, Some(Position(29))));
        window.clear();
        assert_eq!((window.due(), window.first(), window.is_acknowledged(0)), (None, None, false));
    }
}
