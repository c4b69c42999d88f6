//! Keeps the store within its bounds: mirrors cursors, forgets what is old, refuses senders when the rest is undelivered.
//!
//! Invariant: nothing that a sink has yet to settle, or normalize has yet to read, is ever removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::event::{Name, Position};
use crate::store::folder::Folder;
use crate::store::journal::DiskJournal;
use crate::store::ledger::{Ledger, LedgerError, Retention};

/// The keeper's parts and bounds.
pub struct Keeper {
    /// The folder of the store.
    pub folder: Folder,
    /// The journal.
    pub journal: Arc<DiskJournal>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The sinks of the config: what they have not settled stays.
    pub sinks: Vec<Name>,
    /// Most bytes of the store.
    pub bytes_max: u64,
    /// How long deliveries and delivered events are kept.
    pub retention: Duration,
    /// How long identities are kept.
    pub dedup: Duration,
    /// How long verdict records are kept.
    pub verdicts: Duration,
    /// How long dead letters are kept.
    pub dead_letters: Duration,
    /// Most bytes of all dead letters.
    pub dead_letters_bytes: u64,
    /// Whether senders may come.
    pub ready: watch::Sender<bool>,
}

/// How often cursors are mirrored and bounds are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Rows removed in one transaction, so that nobody waits long for it.
const ROWS_MAX: u32 = 2000;
/// Pages given back in one transaction: 16 MiB.
const PAGES_MAX: u32 = 1024;
/// How long one look may remove rows and pages, transaction after transaction: what comes in within a second is old one day, too.
const REMOVE_MAX: Duration = Duration::from_millis(500);
/// Between two of those transactions, so that whoever waits to write gets his turn.
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// At this share of the cap an operator is told.
const WARN_PERCENT: u64 = 80;

impl Keeper {
    /// Keeps the bounds until `stop` says so.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let mut warned = false;
        let mut starved = self.journal.starved();
        while !*stop.borrow_and_update() {
            block_in_place(|| self.step(Timestamp::now(), &mut warned))?;
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = starved.changed() => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    /// One look at all bounds.
    fn step(&self, now: Timestamp, warned: &mut bool) -> Result<(), LedgerError> {
        let was_full = self.journal.is_full();
        if self.ledger.was_full() {
            // First: what is freed now is the ledger's, not the next segment's.
            self.journal.set_full(true);
            self.folder.give_up_reserve()?;
        }
        let short = match self.forget(now) {
            Ok(()) => self.folder.lacking()? > 0,
            // Rows can't be removed without room to write that down.
            Err(LedgerError::Full) => true,
            Err(error) => return Err(error),
        };
        let bytes = self.bytes();
        let full = short || bytes > self.bytes_max;
        if short && !was_full {
            tracing::error!("the disk of the store is full, senders are answered 503");
        } else if full && !was_full {
            tracing::error!(
                bytes,
                max = self.bytes_max,
                "the store is full of undelivered events, senders are answered 503"
            );
        }
        let many = bytes > self.bytes_max / 100 * WARN_PERCENT;
        if many && !*warned {
            tracing::warn!(
                bytes,
                max = self.bytes_max,
                "the store is over {WARN_PERCENT} % of store.size_max; see which sink is behind"
            );
        }
        *warned = many;
        self.journal.set_full(full);
        let refuses = full || *self.journal.starved().borrow();
        self.ready.send_if_modified(|ready| std::mem::replace(ready, !refuses) == refuses);
        Ok(())
    }

    /// Mirrors the cursors and removes what is old, or settled where the cap is reached or the disk is full.
    fn forget(&self, now: Timestamp) -> Result<(), LedgerError> {
        self.ledger.save_mirror()?;
        let settled = self.settled()?;
        // Before anything is written: it makes room in the write-ahead log.
        let done = self.done(settled)?;
        self.forget_old(now, settled, done)?;
        if self.excess()? > 0 { self.forget_settled(settled, done) } else { Ok(()) }
    }

    /// Bytes that have to go: what is over the cap, or what the disk lacks.
    fn excess(&self) -> Result<u64, LedgerError> {
        Ok(self.bytes().saturating_sub(self.bytes_max).max(self.folder.lacking()?))
    }

    /// Bytes of the whole store.
    fn bytes(&self) -> u64 {
        self.journal.bytes() + self.ledger.bytes()
    }

    /// Everything up to here is settled by every sink.
    fn settled(&self) -> Result<Position, LedgerError> {
        let head = self.ledger.head().borrow().position;
        let cursors = self.ledger.reader()?.cursors()?;
        let ours = cursors.iter().filter(|(name, _)| self.sinks.contains(name));
        Ok(ours.map(|(_, cursor)| cursor.position).min().unwrap_or(head))
    }

    fn forget_old(&self, now: Timestamp, settled: Position, done: u64) -> Result<(), LedgerError> {
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let older = Retention {
            events: before(self.retention),
            dedup: before(self.dedup),
            verdicts: before(self.verdicts),
            dead_letters: before(self.dead_letters),
        };
        again_and_again(|| {
            let removed = self.ledger.transact(|transaction| {
                transaction.prune_dead_letters(self.dead_letters_bytes, ROWS_MAX)?;
                transaction.prune(settled, &older, ROWS_MAX)
            })?;
            Ok(removed >= u64::from(ROWS_MAX))
        })?;
        let old = self.journal.sealed().into_iter().take_while(|(last, at, _)| *last <= done && *at < older.events);
        if let Some((last, ..)) = old.last() {
            self.journal.prune(last)?;
        }
        Ok(())
    }

    /// Frees what has to go: first what the ledger's file holds for nothing, then what is settled, oldest first.
    fn forget_settled(&self, settled: Position, done: u64) -> Result<(), LedgerError> {
        // On a full disk that comes last, because it writes before it frees.
        if self.folder.lacking()? == 0 {
            again_and_again(|| Ok(self.ledger.shrink(PAGES_MAX)? > 0 && self.excess()? > 0))?;
        }
        let excess = self.excess()?;
        let mut freed = 0;
        let mut last = None;
        for (sequence, _, size) in self.journal.sealed() {
            if sequence > done || freed >= excess {
                break;
            }
            freed += size;
            last = Some(sequence);
        }
        if let Some(last) = last {
            self.journal.prune(last)?;
            tracing::warn!(
                freed,
                "store.size_max is reached, or its disk is full: {freed} bytes of delivered messages are gone before their retention"
            );
        }
        let never = Timestamp::MIN;
        let all = Retention { events: Timestamp::MAX, dedup: never, verdicts: never, dead_letters: never };
        again_and_again(|| {
            if self.excess()? == 0 {
                return Ok(false);
            }
            let removed = self.ledger.transact(|transaction| transaction.prune(settled, &all, ROWS_MAX))?;
            Ok(self.ledger.shrink(PAGES_MAX)? > 0 || removed > 0)
        })
    }

    /// Everything that the journal may forget: normalized, in the ledger's file, and its events settled.
    fn done(&self, settled: Position) -> Result<u64, LedgerError> {
        let head = *self.ledger.head().borrow();
        if !self.ledger.checkpoint()? {
            return Ok(0);
        }
        // With everything settled, deliveries after the last event (all of them duplicates, say) are done, too.
        let events = if settled >= head.position { head.sequence } else { settled.sequence().saturating_sub(1) };
        Ok(head.sequence.min(events))
    }
}

/// Does `one` transaction after the other until it says that there is nothing more, or the time for it is over.
fn again_and_again(mut one: impl FnMut() -> Result<bool, LedgerError>) -> Result<(), LedgerError> {
    let begun = Instant::now();
    while one()? && begun.elapsed() < REMOVE_MAX {
        std::thread::sleep(REMOVE_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Verdict, sample};
    use crate::store::journal::Options;

    const MEGA: u64 = 1 << 20;

    fn keeper(folder: &std::path::Path, bytes_max: u64) -> Keeper {
        let ledger = Arc::new(Ledger::open(folder).expect("opens"));
        let options = Options { folder: folder.join("journal"), segment_bytes: MEGA, sequence_floor: 0 };
        let day = Duration::from_hours(24);
        Keeper {
            folder: Folder::open(folder).expect("opens"),
            journal: Arc::new(DiskJournal::open(&options).expect("opens")),
            ledger,
            sinks: Vec::new(),
            bytes_max,
            retention: day,
            dedup: day,
            verdicts: day,
            dead_letters: day,
            dead_letters_bytes: MEGA,
            ready: watch::Sender::new(true),
        }
    }

    /// Adds events that were received just now, a millisecond apart, some 8 KiB each.
    fn fill(ledger: &Ledger, count: u64) {
        let now = Timestamp::now();
        let put = |transaction: &mut crate::store::ledger::Transaction<'_>| {
            for number in 1..=count {
                let received_at = now + Duration::from_millis(number);
                let mut event = Event { received_at, ..sample::event(Verdict::Malicious) };
                event.finding.reason = Some("x".repeat(8000));
                transaction.put_event(Position::new(number, 0), None, event)?;
            }
            transaction.set_sequence(count, now + Duration::from_millis(count));
            Ok(())
        };
        ledger.transact(put).expect("committed");
    }

    #[test]
    fn a_ledger_that_outgrew_the_cap_shrinks_and_senders_may_come_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 50 * MEGA);
        fill(&keeper.ledger, 12_000);
        assert!(keeper.ledger.bytes() > keeper.bytes_max);
        let later = Timestamp::now() + Duration::from_mins(1);
        for _ in 0..60 {
            keeper.step(later, &mut false).expect("works");
            if !keeper.journal.is_full() {
                return;
            }
        }
        panic!("still full with {} bytes", keeper.ledger.bytes());
    }

    #[test]
    fn old_events_go_as_fast_as_they_come() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), 1000 * MEGA);
        fill(&keeper.ledger, 12_000);
        keeper.step(Timestamp::now() + Duration::from_hours(25), &mut false).expect("works");
        let reader = keeper.ledger.reader().expect("opens");
        let left = reader.oldest_after(Position::new(2 * u64::from(ROWS_MAX), 0)).expect("readable");
        let first = reader.oldest_after(Position::default()).expect("readable");
        assert_eq!(first, left, "one look removes more than a few thousand");
    }
}
