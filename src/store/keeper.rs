//! Keeps the store within its bounds: mirrors cursors, forgets what is old, refuses senders when the rest is undelivered.
//!
//! Invariant: nothing that a sink has yet to settle, or normalize has yet to read, is ever removed.

use std::sync::Arc;
use std::time::Duration;

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
    /// The subject up to which verdict records were looked at; empty at the beginning.
    pub swept: String,
}

/// How often cursors are mirrored and bounds are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Rows removed in one transaction, so that nobody waits long for it.
const ROWS_MAX: u32 = 2000;
/// At this share of the cap an operator is told.
const WARN_PERCENT: u64 = 80;

impl Keeper {
    /// Keeps the bounds until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let mut warned = false;
        while !*stop.borrow_and_update() {
            block_in_place(|| self.step(Timestamp::now(), &mut warned))?;
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    /// One look at all bounds.
    fn step(&mut self, now: Timestamp, warned: &mut bool) -> Result<(), LedgerError> {
        let space_low = self.folder.keep_reserve(self.ledger.was_full())?;
        let short = match self.forget(now) {
            Ok(()) => space_low,
            // Rows can't be removed without room to write that down.
            Err(LedgerError::Full) => true,
            Err(error) => return Err(error),
        };
        // What was freed in the ledger's file is used again, but stays with the file: the journal gives way first.
        let bytes = self.journal.bytes() + self.ledger.bytes();
        let full = short || bytes > self.bytes_max;
        if short && !self.journal.is_full() {
            tracing::error!("the disk of the store is full, senders are answered 503");
        } else if full && !self.journal.is_full() {
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
        let refuses = full || self.journal.is_starved();
        self.ready.send_if_modified(|ready| std::mem::replace(ready, !refuses) == refuses);
        Ok(())
    }

    /// Mirrors the cursors and removes what is old, or settled where the cap is reached.
    fn forget(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.ledger.save_mirror()?;
        let settled = self.settled()?;
        // Before anything is written: it makes room in the write-ahead log.
        let done = self.done(settled)?;
        self.forget_old(now, settled, done)?;
        let bytes = self.journal.bytes() + self.ledger.bytes();
        if bytes > self.bytes_max { self.forget_settled(now, settled, done, bytes - self.bytes_max) } else { Ok(()) }
    }

    /// Everything up to here is settled by every sink.
    fn settled(&self) -> Result<Position, LedgerError> {
        let head = self.ledger.head().borrow().position;
        let cursors = self.ledger.reader()?.cursors()?;
        let ours = cursors.iter().filter(|(name, _)| self.sinks.contains(name));
        Ok(ours.map(|(_, cursor)| cursor.position).min().unwrap_or(head))
    }

    fn forget_old(&mut self, now: Timestamp, settled: Position, done: u64) -> Result<(), LedgerError> {
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let older = Retention {
            events: before(self.retention),
            dedup: before(self.dedup),
            dead_letters: before(self.dead_letters),
        };
        let swept = self.ledger.transact(|transaction| {
            transaction.prune(settled, &older, ROWS_MAX)?;
            transaction.prune_dead_letters(self.dead_letters_bytes, ROWS_MAX)?;
            transaction.sweep_verdicts(&self.swept, before(self.verdicts), ROWS_MAX)
        })?;
        self.swept = swept.unwrap_or_default();
        let old = self.journal.sealed().into_iter().take_while(|(last, at, _)| *last <= done && *at < older.events);
        if let Some((last, ..)) = old.last() {
            self.journal.prune(last)?;
        }
        Ok(())
    }

    /// Frees at least `bytes`, oldest first, if that much is settled.
    fn forget_settled(&self, now: Timestamp, settled: Position, done: u64, bytes: u64) -> Result<(), LedgerError> {
        let mut freed = 0;
        let mut last = None;
        for (sequence, _, size) in self.journal.sealed() {
            if sequence > done || freed >= bytes {
                break;
            }
            freed += size;
            last = Some(sequence);
        }
        if let Some(last) = last {
            self.journal.prune(last)?;
            tracing::warn!(
                freed,
                "store.size_max is reached, {freed} bytes of delivered messages are gone before their retention"
            );
        }
        let settled_now = Retention { events: now, dedup: Timestamp::MIN, dead_letters: Timestamp::MIN };
        self.ledger.transact(|transaction| transaction.prune(settled, &settled_now, ROWS_MAX)).map(|_| ())
    }

    /// Everything that the journal may forget: normalized, in the ledger's file, and its events settled.
    fn done(&self, settled: Position) -> Result<u64, LedgerError> {
        let head = *self.ledger.head().borrow();
        self.ledger.checkpoint()?;
        // With everything settled, deliveries after the last event (all of them duplicates, say) are done, too.
        let events = if settled >= head.position { head.sequence } else { settled.sequence().saturating_sub(1) };
        Ok(head.sequence.min(events))
    }
}
