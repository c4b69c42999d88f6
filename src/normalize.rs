//! Normalize: turns what the journal holds into events, in order.
//!
//! Invariants: events, identities, verdict records, dead letters and the journal position of a batch are one transaction, so a crash
//! repeats a batch and never half of it; the outcome depends on the journal alone, so a lost ledger comes back the same; one odd
//! item becomes one dead letter and its neighbours go on.
//!
//! Not here: what a payload means (`adapter`), which record is the latest (`ranking`), what has to be asked of a platform
//! (`normalize/pointers`, `normalize/expectations`), delivery.

mod expectations;
mod jobs;
mod operations;
mod pointers;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::Digest;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::adapter::{Adapter, FetchId, NormalizeError, Outcome};
use crate::delivery::{Delivery, Expectation, Mark};
use crate::event::{
    Again, Auth, Event, Finding, Hash, Name, Position, Sha256, SourceId, Topic, shorten, uid_by_position, uid_of,
};
use crate::ranking::{self, Candidate, Record as Latest};
use crate::store::journal::Reader;
use crate::store::ledger::{DeadLetter, Ledger, LedgerError, Stage, Transaction};
use crate::store::{Kind, Record};
use crate::telemetry::Metrics;

pub use jobs::Jobs;
pub(crate) use jobs::draft_of;
pub use operations::{Operation, Reread, Rereading};
pub use pointers::Reading;

/// The loop's parts.
pub struct Normalizer {
    /// Where deliveries come from, at the place where the ledger stands.
    pub reader: Reader,
    /// News of more.
    pub durable: watch::Receiver<u64>,
    /// Where events go.
    pub ledger: Arc<Ledger>,
    /// How every source is read.
    pub sources: HashMap<SourceId, Reading>,
    /// Where the counts go.
    pub metrics: Arc<Metrics>,
    /// A batch that the ledger had no room for.
    pub waiting: Vec<Record>,
}

/// Why the loop ends.
#[derive(Debug, thiserror::Error)]
pub enum NormalizeStopped {
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] std::io::Error),
    /// The ledger cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Deliveries and bytes of one batch: enough that a sync serves many, little enough that memory stays flat where each message is a long
/// list: an event takes ten times the bytes of its shortest JSON.
const BATCH_MAX: (usize, usize) = (1024, 2 << 20);
/// A batch ends early once it took this long: a user's jq may take a quarter of a second a message, and no cursor moves meanwhile.
const BATCH_TIME_MAX: Duration = Duration::from_millis(250);
/// Shortest time from one transaction to the next that is not full: so under load one sync serves many events, here and at every sink that
/// follows. A message that comes after a quiet moment is read at once.
const PACE: Duration = Duration::from_millis(10);
/// Pause before the next try on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

impl Normalizer {
    /// Normalizes until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), NormalizeStopped> {
        while !*stop.borrow_and_update() {
            let next_at = Instant::now() + PACE;
            let wait = match block_in_place(|| self.step()) {
                Ok(Step::Nothing) => Wait::News,
                Ok(Step::Full) => continue,
                Ok(Step::Some) => Wait::Until(next_at),
                Err(NormalizeStopped::Ledger(LedgerError::Full)) => {
                    tracing::error!("the disk of the ledger is full, normalize waits");
                    Wait::Until(Instant::now() + FULL_PAUSE)
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                _ = self.durable.changed(), if matches!(wait, Wait::News) => {}
                () = wait.sleep() => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    /// Reads one batch and commits what it means.
    pub fn step(&mut self) -> Result<Step, NormalizeStopped> {
        if self.waiting.is_empty() {
            self.durable.mark_unchanged();
            (self.waiting, _) = self.reader.read(BATCH_MAX.0, BATCH_MAX.1)?;
        }
        if self.waiting.is_empty() {
            return Ok(Step::Nothing);
        }
        let (mut tally, mut done) = (Tally::default(), 0);
        self.ledger.transact(|transaction| {
            let began = Instant::now();
            // One after the other: a body of ten MiB may hold a hundred thousand findings, and only one such body is in memory.
            for record in &self.waiting {
                self.apply(transaction, self.read(record), &mut tally)?;
                transaction.set_sequence(record.sequence, record.at);
                done += 1;
                if began.elapsed() > BATCH_TIME_MAX {
                    break;
                }
            }
            Ok(())
        })?;
        tally.report(&self.metrics);
        let bytes: usize = self.waiting.iter().map(|record| record.stored.len()).sum();
        let full = self.waiting.len() >= BATCH_MAX.0 || bytes >= BATCH_MAX.1 || done < self.waiting.len();
        self.waiting.drain(..done);
        Ok(if full { Step::Full } else { Step::Some })
    }

    /// What a record says, without the ledger.
    fn read(&self, record: &Record) -> Read {
        let meaning = match record.kind {
            Kind::Operator => Meaning::Operator(serde_json::from_slice(&record.stored).ok()),
            Kind::Delivery => {
                Meaning::Delivery(Box::new(interpret(&self.sources, &record.source, record.at, record.stored.clone())))
            }
            Kind::Expect => Meaning::Expect(record.source.clone(), expectations::read(&record.stored)),
            Kind::Reread => Meaning::Reread(Reread::from_stored(record.source.clone(), &record.stored)),
        };
        Read { sequence: record.sequence, at: record.at, meaning }
    }

    fn apply(&self, transaction: &mut Transaction<'_>, read: Read, tally: &mut Tally) -> Result<(), LedgerError> {
        match read.meaning {
            Meaning::Delivery(message) => apply_message(transaction, read.sequence, *message, tally),
            Meaning::Expect(ref source, ref expectation) => {
                self.apply_expectation(transaction, &read, source, expectation.as_ref())
            }
            Meaning::Operator(ref operation) => self.apply_operation(transaction, &read, operation.as_ref(), tally),
            Meaning::Reread(ref reread) => self.apply_reread(transaction, &read, reread.as_ref(), tally),
        }
    }
}

/// Runs the adapter of the source. A panic in it is a fault of ours, and costs this message only.
fn interpret(
    sources: &HashMap<SourceId, Reading>,
    source: &SourceId,
    received_at: Timestamp,
    stored: Bytes,
) -> Message {
    let mut message = Message::unread(source.clone(), received_at, stored);
    let delivery = match Delivery::from_stored(source.clone(), received_at, &message.stored) {
        Ok(delivery) => delivery,
        Err(error) => return Message { read: Err(error.to_string()), ..message },
    };
    message.fetched.clone_from(&delivery.evidence().fetch);
    message.mark.clone_from(&delivery.evidence().mark);
    let Some(reading) = sources.get(source) else {
        let reason = format!("source \"{source}\" is not in the config any more; add it again and redrive");
        return Message { read: Err(reason), ..message };
    };
    let adapter = reading.adapter.as_ref();
    message.read = match catch_unwind(AssertUnwindSafe(|| Item::all(adapter, &delivery))) {
        Ok(Ok(items)) => Ok(items),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the adapter failed on this message; this is a fault of ours, please report it".to_owned()),
    };
    let sha256 = Hash(sha2::Sha256::digest(delivery.body()).into());
    message.raw = Some(Raw {
        provider: adapter.provider().to_owned(),
        auth: delivery.auth(),
        sha256,
        size: delivery.body().len() as u64,
        asks: reading.asks,
        remembers: reading.remembers,
    });
    message
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to read.
    Nothing,
    /// Everything that there was.
    Some,
    /// As much as one batch holds: there is more.
    Full,
}

/// What the loop waits for.
enum Wait {
    News,
    Until(Instant),
}

impl Wait {
    async fn sleep(&self) {
        match self {
            Self::News => std::future::pending().await,
            Self::Until(at) => tokio::time::sleep_until(*at).await,
        }
    }
}

/// One record of the journal, read.
struct Read {
    sequence: u64,
    at: Timestamp,
    meaning: Meaning,
}

enum Meaning {
    Delivery(Box<Message>),
    Operator(Option<Operation>),
    /// A delivery to be read anew; none if the record is not readable.
    Reread(Option<Reread>),
    /// The source it is about, and what it says; none if it is not readable.
    Expect(SourceId, Option<Expectation>),
}

/// One message and what its adapter made of it.
struct Message {
    source: SourceId,
    received_at: Timestamp,
    stored: Bytes,
    /// The items in order, or why the whole message could not be read.
    read: Result<Vec<Result<Item, String>>, String>,
    raw: Option<Raw>,
    /// The report that it is, where we fetched it.
    fetched: Option<FetchId>,
    /// How far a stream is read with it.
    mark: Option<Mark>,
}

impl Message {
    fn unread(source: SourceId, received_at: Timestamp, stored: Bytes) -> Self {
        Self { source, received_at, stored, read: Err(String::new()), raw: None, fetched: None, mark: None }
    }
}

/// One item of a message, and under which id the platform keeps its report.
struct Item {
    outcome: Outcome,
    report: Option<FetchId>,
}

impl Item {
    fn all(adapter: &dyn Adapter, delivery: &Delivery) -> Result<Vec<Result<Self, String>>, NormalizeError> {
        let item = |outcome: Outcome| {
            let report = match &outcome {
                Outcome::Verdict(finding) => adapter.fetch_of(finding),
                _ => None,
            };
            Self { outcome, report }
        };
        let outcomes = adapter.normalize(delivery)?.into_iter();
        Ok(outcomes.map(|outcome| outcome.map(item).map_err(|error| error.to_string())).collect())
    }
}

/// Facts about the raw message that every event of it carries.
struct Raw {
    provider: String,
    auth: Auth,
    sha256: Sha256,
    size: u64,
    /// Whether the platform can be asked for a report.
    asks: bool,
    /// Whether it is of use to know which reports were read.
    remembers: bool,
}

/// Applies a message; what is odd in it becomes one dead letter that keeps the whole message.
fn apply_message(
    transaction: &mut Transaction<'_>,
    sequence: u64,
    message: Message,
    tally: &mut Tally,
) -> Result<(), LedgerError> {
    let (source, received_at, stored) = (message.source.clone(), message.received_at, message.stored.clone());
    let odd = apply_items(transaction, sequence, message, None, tally)?;
    let Some((index, _)) = odd.first() else { return Ok(()) };
    let letter = DeadLetter {
        id: format!("n-{sequence}"),
        stage: Stage::Normalize,
        sink: None,
        source,
        position: Position::new(sequence, *index),
        reason: told(&odd),
        attempts: 1,
        first_at: received_at,
        last_at: received_at,
        attempt: None,
        raw: stored.to_vec(),
    };
    tracing::warn!(source = %letter.source, id = %letter.id, reason = %letter.reason, "a message of source {} could not be read, kept as dead letter {}", letter.source, letter.id);
    transaction.put_dead_letter(&letter)
}

/// Applies every item of a message; gives the odd ones, by their place.
fn apply_items(
    transaction: &mut Transaction<'_>,
    sequence: u64,
    mut message: Message,
    again: Option<&Again>,
    tally: &mut Tally,
) -> Result<Vec<(u64, String)>, LedgerError> {
    let read = std::mem::replace(&mut message.read, Ok(Vec::new()));
    let items = read.unwrap_or_else(|reason| vec![Err(reason)]);
    let mut odd = Vec::new();
    let mut waits = !items.is_empty();
    for (index, item) in (0..).zip(items) {
        let position = Position::new(sequence, index);
        waits &= matches!(item, Ok(Item { outcome: Outcome::NotReady, .. }));
        match item {
            Ok(Item { outcome: Outcome::Verdict(finding), report }) => {
                // What nothing proves is only a hint at a report that we can fetch ourselves.
                let to_confirm = report.clone().filter(|_| message.is_hearsay());
                if let Some(id) = to_confirm {
                    odd.extend(pointers::put(transaction, position, &message, id, tally)?.map(|words| (index, words)));
                } else {
                    pointers::note(transaction, &message, &finding, report)?;
                    apply_finding(transaction, position, &message, *finding, again, tally)?;
                }
            }
            Ok(Item { outcome: Outcome::NotReady | Outcome::Job | Outcome::Request | Outcome::Ignore, .. }) => {
                tally.delivery(&message.source, "ignored");
            }
            Ok(Item { outcome: Outcome::Pointer(id), .. }) => {
                odd.extend(pointers::put(transaction, position, &message, id, tally)?.map(|words| (index, words)));
            }
            Err(reason) => odd.push((index, reason)),
        }
    }
    pointers::settle(transaction, &message, waits)?;
    for _ in &odd {
        tally.delivery(&message.source, "dead");
    }
    Ok(odd)
}

/// Most bytes of a reason: a page may hold a thousand odd items, and a person reads the first few.
const REASON_BYTES_MAX: usize = 1024;

/// The reasons in one text.
fn told(odd: &[(u64, String)]) -> String {
    let mut reason = odd.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>().join("; ");
    if shorten(&mut reason, REASON_BYTES_MAX) { format!("{reason} ... ({} odd items)", odd.len()) } else { reason }
}

/// Gives a finding its identity and its place in the subject's history.
fn apply_finding(
    transaction: &mut Transaction<'_>,
    position: Position,
    message: &Message,
    finding: Finding,
    again: Option<&Again>,
    tally: &mut Tally,
) -> Result<(), LedgerError> {
    let raw = message.raw.as_ref().expect("an adapter ran, or there would be no finding");
    let source = &message.source;
    let key = finding.subject.key();
    let known = transaction.known(&key, source)?;
    let latest: Option<Latest> = known.record();
    let uid = uid_of(source, &finding);
    let duplicate = match uid {
        Some(uid) => transaction.position_of(uid)?.is_some(),
        // Without a time or an id, only what repeats the latest record says nothing new.
        None => latest.as_ref().is_some_and(|latest| latest.repeats(&finding)),
    };
    if duplicate {
        tally.delivery(source, "duplicate");
        return Ok(());
    }
    if latest.as_ref().is_some_and(|latest| finding.event_id.is_some() && latest.event_id == finding.event_id) {
        tally.conflicts.push(source.clone());
    }
    let uid = uid.unwrap_or_else(|| uid_by_position(source, &finding, position));
    let candidate = Candidate { finding: &finding, auth: raw.auth, received_at: message.received_at, position, uid };
    let ranked = ranking::rank(latest.as_ref(), &candidate);
    if let Some(record) = &ranked.record {
        transaction.put_record(&known, position, record)?;
    }
    tally.delivery(source, "normalized");
    tally.verdicts.push((source.clone(), finding.verdict.word()));
    transaction.claim(uid, position)?;
    let event = Event {
        uid,
        source: source.clone(),
        provider: raw.provider.clone(),
        auth: raw.auth,
        received_at: message.received_at,
        effective_at: ranked.effective_at,
        clock_suspect: ranked.clock_suspect,
        raw_sha256: raw.sha256,
        raw_size: raw.size,
        finding,
        activity: ranked.activity,
        standing: ranked.standing,
        previous: ranked.previous,
        again: again.cloned(),
        corrects: None,
        topic: Topic::Verdict,
    };
    transaction.put_event(position, None, event)
}

/// What a batch adds to the metrics, once it is committed.
#[derive(Default)]
struct Tally {
    deliveries: HashMap<(Name, &'static str), u64>,
    verdicts: Vec<(Name, &'static str)>,
    conflicts: Vec<Name>,
}

impl Tally {
    fn delivery(&mut self, source: &Name, outcome: &'static str) {
        *self.deliveries.entry((source.clone(), outcome)).or_default() += 1;
    }

    fn report(self, metrics: &Metrics) {
        for ((source, outcome), count) in self.deliveries {
            metrics.deliveries(source.as_str(), outcome, count);
        }
        for (source, verdict) in self.verdicts {
            metrics.event(source.as_str(), verdict);
        }
        for source in self.conflicts {
            metrics.dedup_conflict(source.as_str());
        }
    }
}

#[cfg(test)]
mod tests;
