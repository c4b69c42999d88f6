//! Deliver: moves one sink's cursor forward.
//!
//! Invariants: the cursor never passes an event that was neither taken by the receiver, nor filtered by the sink's rule, nor
//! dead-lettered after it was refused alone; a dead letter and the cursor that passes it are one transaction. A sink that can't go on
//! waits for ever and delays no other.
//!
//! Not here: how a receiver is spoken to (`sink`), what an event looks like there (`format`).

mod condition;
mod pending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::event::{Event, Name, Position};
use crate::route::Route;
use crate::sink::{Batch, Render, Rendered, Settled, Sink, Stop};
use crate::store::ledger::{Cursor, Head, Ledger, LedgerError, Reader, Stored};

use self::pending::{Fate, Lane, Pending, Repair, Settlement, letter_of};

pub use self::condition::Condition;

/// What a deliverer is made of.
pub struct Parts {
    /// Name of the sink.
    pub name: Name,
    /// The receiver.
    pub sink: Box<dyn Sink>,
    /// Which events it wants.
    pub route: Route,
    /// What else it asks of an event.
    pub condition: Option<Condition>,
    /// An event as the receiver gets it, appended to the buffer; whatever it needs beside the event it has with it.
    pub render: Render,
    /// Bounds of a batch.
    pub batch: Batch,
    /// Where the events come from.
    pub ledger: Arc<Ledger>,
    /// Where the state goes: shown by metrics and `sinks`.
    pub state: watch::Sender<State>,
}

/// How a sink is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `ok`, `backoff`, `auth_failed`, `tls_failed` or `paused`.
    pub word: &'static str,
    /// Why, in words; empty while all is well.
    pub reason: String,
}

/// One sink's loop.
pub struct Deliverer {
    parts: Parts,
    reader: Reader,
    news: watch::Receiver<Head>,
    /// What is settled, as the ledger has it.
    cursor: Cursor,
    /// Events up to here were read and stand in `pending`.
    read_to: Position,
    /// The receiver took everything up to here; the cursor follows, at the latest after [`SETTLE_PACE`] or as soon as the ledger has room.
    taken: Position,
    /// When the cursor was last written.
    settled_at: Instant,
    /// Events that were read and are not settled, in order.
    pending: VecDeque<Pending>,
    /// Batches in flight.
    in_flight: usize,
    /// Places where a batch has to end, because something at or after them was refused.
    splits: BTreeSet<Position>,
    repair: Repair,
    /// Events that were refused alone, and why: dead letters once everything before them is settled.
    condemned: BTreeMap<Position, String>,
    /// When the last batch went out.
    sent_at: Instant,
    /// Whether events wait for a fuller batch.
    held_back: bool,
    open: bool,
    backoff: Backoff,
}

/// What a step did, and so what to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something moved: step again.
    Moved,
    /// Nothing to do until the sink settles something or news comes.
    Idle,
    /// The sink can't go on for this long.
    Wait(Duration),
}

/// First and longest wait of a sink that is not reachable. The cap bounds how long a recovered receiver waits for us.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// While more goes out, the cursor is written this often: a write waits for the ledger's writer and its sync, and what it leaves out is only
/// sent again after a crash.
const SETTLE_PACE: Duration = Duration::from_millis(100);
/// Pause before the next try on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// How long a sink may flush when the service stops.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// A batch is not filled any further once its conditions took this long: a slow one must not hold up a stop.
const CONDITIONS_MAX: Duration = Duration::from_millis(250);
/// Most bytes of a reason that a dead letter keeps.
const REASON_BYTES_MAX: usize = 1024;

impl Deliverer {
    /// Takes the sink's cursor up where it stood; begins one where there is none, at the oldest event or (`from_now`) after the latest.
    pub fn new(parts: Parts, from_now: bool) -> Result<Self, LedgerError> {
        let cursor = parts.ledger.transact(|transaction| {
            if let Some(mut cursor) = transaction.cursor(&parts.name)? {
                // A sink that was out of the config holds nothing back: what is gone meanwhile never came up for it.
                let gone = transaction.before_oldest()?.1.saturating_sub(cursor.ordinal);
                if gone > 0 {
                    tracing::warn!(sink = %parts.name, gone, "sink {} is back in the config; {gone} events grew too old meanwhile", parts.name);
                    cursor.ordinal += gone;
                    cursor.began_at = cursor.began_at.saturating_add_unsigned(gone);
                    transaction.put_cursor(&parts.name, &cursor)?;
                }
                return Ok(cursor);
            }
            let head = transaction.head();
            let (position, ordinal) =
                if from_now { (head.position, head.ordinal) } else { transaction.before_oldest()? };
            let cursor = Cursor { position, ordinal, began_at: ordinal.cast_signed(), ..Cursor::default() };
            transaction.put_cursor(&parts.name, &cursor)?;
            Ok(cursor)
        })?;
        let mut news = parts.ledger.head();
        news.mark_changed();
        Ok(Self {
            reader: parts.ledger.reader()?,
            news,
            read_to: cursor.position,
            taken: cursor.position,
            settled_at: Instant::now(),
            cursor,
            pending: VecDeque::new(),
            in_flight: 0,
            splits: BTreeSet::new(),
            repair: Repair::default(),
            condemned: BTreeMap::new(),
            sent_at: Instant::now(),
            held_back: false,
            open: false,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            parts,
        })
    }

    /// Delivers until `stop` says so, then lets the sink flush.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), LedgerError> {
        while !*stop.borrow_and_update() {
            let progress = tokio::select! {
                progress = self.step() => progress,
                _ = stop.changed() => break,
            };
            let progress = match progress {
                Ok(Progress::Idle) => self.wait(&mut stop).await,
                progress => progress,
            };
            let pause = match progress {
                Ok(Progress::Wait(pause)) => pause,
                Ok(Progress::Moved | Progress::Idle) => continue,
                Err(LedgerError::Full) => {
                    tracing::error!(sink = %self.parts.name, "the disk of the ledger is full, sink {} waits", self.parts.name);
                    FULL_PAUSE
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.parts.sink.mended() => {}
                _ = stop.changed() => {}
            }
        }
        self.close().await
    }

    /// Settles what is in flight, so that the next start does not send it again, and lets the sink flush.
    async fn close(mut self) -> Result<(), LedgerError> {
        let until = Instant::now() + CLOSE_GRACE;
        // An error is only that it took too long: then the wait below is over at once.
        drop(tokio::time::timeout_at(until, self.parts.sink.finish()).await);
        while self.in_flight > 0 {
            let Ok(settled) = tokio::time::timeout_at(until, self.parts.sink.settled()).await else { break };
            match self.take(settled) {
                Ok(_) => {}
                Err(LedgerError::Full) => break,
                Err(error) => return Err(error),
            }
        }
        self.settle_what_fits()?;
        self.parts.sink.close(until.saturating_duration_since(Instant::now())).await;
        Ok(())
    }

    /// Does one thing: connects, sends one batch, or takes one answer. Does not wait for news.
    pub async fn step(&mut self) -> Result<Progress, LedgerError> {
        self.settle_in_time()?;
        if !self.open {
            match self.parts.sink.open(self.cursor.position).await {
                Ok(_) => self.open = true,
                Err(stop) => return self.stopped(&stop),
            }
        }
        // What is known goes first: while there is always more to send, the cursor would stand still until the sink takes no more.
        if self.in_flight > 0
            && let Some(settled) = self.parts.sink.settled().now_or_never()
        {
            return self.take(settled);
        }
        if self.in_flight < self.parts.sink.in_flight_max() {
            match self.send_batch().await? {
                Some(progress) => return Ok(progress),
                None if self.in_flight == 0 => return Ok(Progress::Idle),
                None => {}
            }
        }
        if self.news_allows_more() {
            return Ok(Progress::Idle);
        }
        let settle_at = self.settled_at + SETTLE_PACE;
        let settled = tokio::select! {
            settled = self.parts.sink.settled() => settled,
            () = tokio::time::sleep_until(settle_at), if self.owes() => return Ok(Progress::Moved),
        };
        self.take(settled)
    }

    /// How far the sink has come.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether another batch could go out as soon as events come: then `wait` listens for both.
    fn news_allows_more(&self) -> bool {
        self.in_flight > 0 && self.in_flight < self.parts.sink.in_flight_max()
    }

    /// After [`Progress::Idle`]: waits until events come or the sink settles something.
    pub async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Progress, LedgerError> {
        let full_at = self.sent_at + self.parts.batch.wait_max;
        let settle_at = self.settled_at + SETTLE_PACE;
        let settled = tokio::select! {
            settled = self.parts.sink.settled(), if self.in_flight > 0 => settled,
            () = tokio::time::sleep_until(settle_at), if self.owes() => return Ok(Progress::Idle),
            () = tokio::time::sleep_until(full_at), if self.held_back => return Ok(Progress::Idle),
            _ = self.news.changed() => return Ok(Progress::Idle),
            _ = stop.changed() => return Ok(Progress::Idle),
        };
        self.take(settled)
    }

    /// Reads, filters, renders and hands over the next batch; none if there is nothing to read.
    async fn send_batch(&mut self) -> Result<Option<Progress>, LedgerError> {
        let Batch { events_max, bytes_max, wait_max } = self.parts.batch;
        let bytes_max = bytes_max.min(self.parts.sink.batch_bytes_max());
        let stored =
            block_in_place(|| self.reader.events_after(self.read_to, &self.parts.name, events_max, bytes_max))?;
        // Everything that there is, and still not a full batch: while another one is in flight, more may come along.
        let short =
            stored.len() < events_max && stored.last().is_some_and(|last| last.position >= self.news.borrow().position);
        self.held_back = self.in_flight > 0 && short && self.sent_at.elapsed() < wait_max;
        if stored.is_empty() || self.held_back {
            return Ok(None);
        }
        let split = self.splits.range(self.read_to..).find(|end| **end > self.read_to).copied();
        let (mut batch, mut bytes, began) = (Vec::new(), 0, Instant::now());
        // Each body is copied out of here, which costs less than to let it grow.
        let mut room = Vec::new();
        for stored in stored {
            let is_long = self.parts.condition.is_some() && began.elapsed() > CONDITIONS_MAX;
            if split.is_some_and(|end| stored.position > end) || bytes >= bytes_max || is_long {
                break;
            }
            self.read_to = stored.position;
            let fate = self.fate(&stored);
            if let (Fate::Sent, Some(event)) = (&fate, &stored.event) {
                room.clear();
                (self.parts.render)(event, &mut room);
                bytes += room.len();
                batch.push(Rendered { position: stored.position, event: event.clone(), body: room.clone() });
            }
            let (lane, Stored { position, ordinal, .. }) = (Lane::of(&stored), stored);
            pending::push(&mut self.pending, Pending { position, ordinal, lane, fate });
        }
        if batch.is_empty() {
            // Only filtered or dead ones: they are settled as soon as everything before them is.
            self.settle_in_time()?;
            return Ok(Some(Progress::Moved));
        }
        match self.parts.sink.send(&batch).await {
            Ok(()) => {
                self.in_flight += 1;
                self.sent_at = Instant::now();
                Ok(Some(Progress::Moved))
            }
            Err(stop) => self.stopped(&stop).map(Some),
        }
    }

    fn fate(&self, stored: &Stored) -> Fate {
        let dead = |reason: &str| Fate::Dead(Box::new(letter_of(stored, &self.parts.name, reason, now())));
        let Some(event) = &stored.event else { return dead("its row in the ledger is damaged") };
        match self.condemned.get(&stored.position) {
            Some(reason) => dead(reason),
            // What an operator sends again to this sink is wanted there, whatever the rule says today.
            _ if stored.sink.is_some() || self.wants(event) => Fate::Sent,
            _ => Fate::Filtered(1),
        }
    }

    fn wants(&self, event: &Event) -> bool {
        self.parts.route.passes(event) && self.parts.condition.as_ref().is_none_or(|condition| condition.holds(event))
    }

    /// Acts on what the sink said of the batches in flight.
    fn take(&mut self, settled: Result<Settled, Stop>) -> Result<Progress, LedgerError> {
        match settled {
            Ok(Settled::Through(position)) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.backoff.reset();
                self.set_state("ok", String::new());
                self.taken = self.taken.max(position);
                self.settle_in_time()?;
                Ok(Progress::Moved)
            }
            Ok(Settled::Alive) => {
                self.set_state("ok", String::new());
                Ok(Progress::Moved)
            }
            Ok(Settled::Silent { reason }) => {
                self.set_state("backoff", reason);
                Ok(Progress::Moved)
            }
            Ok(Settled::Rewind(_)) => {
                self.rewind()?;
                self.open = false;
                Ok(Progress::Wait(self.backoff.wait(fastrand::f64())))
            }
            Ok(Settled::Refused { from, through, suspect, reason }) => {
                self.isolate(from, through, suspect, &reason)?;
                Ok(Progress::Moved)
            }
            Err(stop) => self.stopped(&stop),
        }
    }

    /// Writes the cursor if nothing more is on its way, or it was not written for a while.
    fn settle_in_time(&mut self) -> Result<(), LedgerError> {
        let is_busy = self.in_flight > 0 || self.news.borrow().position > self.read_to;
        if is_busy && self.settled_at.elapsed() < SETTLE_PACE { Ok(()) } else { self.settle() }
    }

    /// Writes the cursor now, unless the disk is full: then what was taken is sent again.
    fn settle_what_fits(&mut self) -> Result<(), LedgerError> {
        match self.settle() {
            Err(LedgerError::Full) => Ok(()),
            settled => settled,
        }
    }

    /// Whether the cursor could move.
    fn owes(&self) -> bool {
        self.pending.front().is_some_and(|first| first.is_settled(self.taken))
    }

    /// Moves the cursor over what was taken, and over whatever needs no receiver right behind it. Where the ledger has no room nothing is
    /// forgotten, and the next try does the same.
    fn settle(&mut self) -> Result<(), LedgerError> {
        let mut settlement = Settlement::of(&self.pending, self.taken, &self.cursor);
        if settlement.count == 0 {
            return Ok(());
        }
        block_in_place(|| {
            self.parts.ledger.transact(|transaction| {
                settlement.write_letters(transaction)?;
                let cursor = &mut settlement.cursor;
                // While the ledger was rebuilt, it moved the count along.
                if let Some(stored) = transaction.cursor(&self.parts.name)? {
                    cursor.began_at = stored.began_at;
                }
                transaction.put_cursor(&self.parts.name, cursor)
            })
        })?;
        let Settlement { count, cursor, letters, .. } = settlement;
        for letter in &letters {
            tracing::error!(sink = %self.parts.name, id = %letter.id, reason = %letter.reason, "sink {} refused an event, kept as dead letter {}", self.parts.name, letter.id);
        }
        self.condemned.retain(|position, _| *position > cursor.position);
        self.splits = self.splits.split_off(&cursor.position);
        self.pending.drain(..count);
        self.cursor = cursor;
        self.settled_at = Instant::now();
        Ok(())
    }

    /// Something between `from` and `through` will never be taken: sends that range again in parts, or condemns the one event in it.
    fn isolate(
        &mut self,
        from: Position,
        through: Position,
        suspect: Option<Position>,
        reason: &str,
    ) -> Result<(), LedgerError> {
        self.settle_what_fits()?;
        let sent = |pending: &&Pending| {
            matches!(pending.fate, Fate::Sent) && pending.position >= from && pending.position <= through
        };
        let range: Vec<Position> = self.pending.iter().filter(sent).map(|pending| pending.position).collect();
        if range.len() > 1 {
            tracing::warn!(sink = %self.parts.name, events = range.len(), reason, "sink {} refused a batch, sending it in parts", self.parts.name);
        }
        let suspect = suspect.filter(|_| range.len() > 1 && self.repair.believes(from, through));
        if let [alone] = range[..] {
            let mut reason = reason.to_owned();
            crate::event::shorten(&mut reason, REASON_BYTES_MAX);
            self.condemned.insert(alone, reason);
        } else if let Some(index) = suspect.and_then(|suspect| range.iter().position(|one| *one == suspect)) {
            // The one before it ends a batch, and so does it: it goes alone.
            self.splits.extend(range[..index].last());
            self.splits.insert(range[index]);
            self.splits.extend(range.last());
        } else if !range.is_empty() {
            self.splits.insert(range[range.len() / 2 - 1]);
            self.splits.extend(range.last());
        }
        if let Some(before) = range.first().and_then(|first| self.pending.iter().rfind(|one| one.position < *first)) {
            self.splits.insert(before.position);
        }
        self.rewind()
    }

    /// Everything unsettled is read and sent again.
    fn rewind(&mut self) -> Result<(), LedgerError> {
        self.settle_what_fits()?;
        self.pending.clear();
        self.taken = self.cursor.position;
        self.in_flight = 0;
        self.read_to = self.cursor.position;
        Ok(())
    }

    fn stopped(&mut self, stop: &Stop) -> Result<Progress, LedgerError> {
        self.rewind()?;
        self.open = false;
        self.set_state(stop.state(), stop.to_string());
        let asked = match stop {
            Stop::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        let own = self.backoff.wait(fastrand::f64());
        Ok(Progress::Wait(asked.map_or(own, |asked| asked.clamp(own, RETRY_AFTER_MAX))))
    }

    /// Publishes the state, and logs it once a change.
    fn set_state(&self, word: &'static str, reason: String) {
        let state = State { word, reason };
        self.parts.state.send_if_modified(|current| {
            let changed = current.word != state.word;
            if changed && word == "ok" {
                tracing::info!(sink = %self.parts.name, state = word, "sink {} is well again", self.parts.name);
            } else if changed {
                tracing::warn!(sink = %self.parts.name, state = word, reason = %state.reason, "sink {} waits: {}", self.parts.name, state.reason);
            }
            std::mem::replace(current, state.clone()) != state
        });
    }
}

/// Longest wait that a receiver may ask for: a wrong clock or a hostile answer must not stop delivery for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// When a dead letter was made. Nothing but its age hangs on this clock.
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
