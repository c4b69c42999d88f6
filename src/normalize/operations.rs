//! What an operator asked for: dead letters tried again or dropped, events replayed, deliveries read anew.
//!
//! Invariants: an event that is told again says so, and one that is corrected names the event it corrects; a dead letter stays until its
//! sink has taken it; a step of a job is applied once.
//!
//! Not here: taking the steps of a job (`again`), reading a message the first time (`normalize`).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Item, Message, Normalizer, Read, Reading, Tally, apply_finding, apply_items, interpret, pointers, told};
use crate::adapter::Outcome;
use crate::event::{Again, Event, Finding, Position, SourceId, Topic, Uid, uid_by_position, uid_of, uid_of_details};
use crate::ranking::{self, Candidate, Record as Latest};
use crate::store::Record;
use crate::store::ledger::{DeadLetter, Job, JobState, LedgerError, Stage, Transaction, Work};

/// What an operator asked for, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// Try a dead letter again.
    Redrive {
        /// Its id.
        id: String,
    },
    /// Forget a dead letter.
    Drop {
        /// Its id.
        id: String,
    },
    /// Begin a job; its id is the sequence of this record.
    Begin {
        /// What it does.
        work: Work,
        /// Where it ends: a position of events, or a sequence of deliveries.
        until: u64,
    },
    /// A step of a job.
    Step {
        /// The job.
        job: u64,
        /// Everything up to here is done.
        next: u64,
        /// Whether that was all.
        done: bool,
        /// The events to send again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        positions: Vec<u64>,
    },
    /// Take no further step of a job.
    Stop {
        /// The job.
        job: u64,
    },
}

/// A stored delivery that is to be read with the adapter of today, because it says something else.
#[derive(Debug)]
pub struct Reread {
    head: RereadHead,
    source: SourceId,
    stored: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
struct RereadHead {
    job: u64,
    /// Sequence of the delivery.
    of: u64,
    /// When it was received.
    received_at: Timestamp,
}

/// Bytes of the length that stands before a head.
const LENGTH: usize = 4;

impl Reread {
    /// What stands before the stored delivery in the record that asks for it.
    pub fn stored_head(job: u64, delivery: &Record) -> Vec<u8> {
        let head = RereadHead { job, of: delivery.sequence, received_at: delivery.at };
        let head = serde_json::to_vec(&head).expect("numbers and a time are plain data");
        let length = u32::try_from(head.len()).expect("some hundred bytes");
        [&length.to_le_bytes(), head.as_slice()].concat()
    }

    pub(super) fn from_stored(source: SourceId, stored: &Bytes) -> Option<Self> {
        let (length, rest) = stored.split_first_chunk::<LENGTH>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let head = serde_json::from_slice(rest.get(..length)?).ok()?;
        Some(Self { head, source, stored: stored.slice(LENGTH + length..) })
    }
}

/// A stored delivery, as the adapter of today reads it.
pub struct Rereading {
    sequence: u64,
    message: Message,
}

impl Rereading {
    /// Reads it, without the ledger.
    pub fn new(sources: &HashMap<SourceId, Reading>, delivery: &Record) -> Self {
        let message = interpret(sources, &delivery.source, delivery.at, delivery.stored.clone());
        Self { sequence: delivery.sequence, message }
    }

    /// Whether it says something that the ledger does not have.
    pub fn has_news(&self, transaction: &Transaction<'_>) -> Result<bool, LedgerError> {
        for (position, finding) in findings(&self.message, self.sequence) {
            if !matches!(novelty(transaction, &self.message.source, position, finding)?, Novelty::None) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The findings of a message, and where each stands if it was read like this the first time.
fn findings(message: &Message, sequence: u64) -> impl Iterator<Item = (Position, &Finding)> {
    let items = message.read.as_deref().unwrap_or_default();
    (0..).zip(items).filter_map(move |(index, item)| match item {
        Ok(Item { outcome: Outcome::Verdict(finding), .. }) => Some((Position::new(sequence, index), &**finding)),
        _ => None,
    })
}

/// What a finding is to the ledger.
enum Novelty {
    /// It is there.
    None,
    /// Nothing was read there the first time.
    New,
    /// Something else was read there the first time: the event, and the identity of the one that corrects it.
    Corrects(Arc<Event>, Uid),
}

fn novelty(
    transaction: &Transaction<'_>,
    source: &SourceId,
    position: Position,
    finding: &Finding,
) -> Result<Novelty, LedgerError> {
    let natural = uid_of(source, finding).unwrap_or_else(|| uid_by_position(source, finding, position));
    let Some(first) = transaction.event_at(position)?.filter(|event| event.topic == Topic::Verdict) else {
        return Ok(if transaction.position_of(natural)?.is_some() { Novelty::None } else { Novelty::New });
    };
    if first.finding == *finding {
        return Ok(Novelty::None);
    }
    // Where verdict, subject and time are the same, only details differ: that event needs an identity of its own.
    let uid = if natural == first.uid { uid_of_details(first.uid, finding) } else { natural };
    let is_known = transaction.position_of(uid)?.is_some();
    Ok(if is_known { Novelty::None } else { Novelty::Corrects(first, uid) })
}

impl Normalizer {
    pub(super) fn apply_operation(
        &self,
        transaction: &mut Transaction<'_>,
        read: &Read,
        operation: Option<&Operation>,
        tally: &mut Tally,
    ) -> Result<(), LedgerError> {
        match operation {
            None => {
                tracing::error!(
                    sequence = read.sequence,
                    "an operator's request in the journal is not readable, passed over"
                );
                Ok(())
            }
            Some(Operation::Drop { id }) => transaction.remove_dead_letter(id).map(|_| ()),
            Some(Operation::Redrive { id }) => match transaction.dead_letter(id)? {
                None => Ok(()),
                Some(letter) if letter.stage == Stage::Deliver => redrive_event(transaction, read, &letter),
                Some(letter) if letter.stage == Stage::Fetch => pointers::redrive(transaction, read, &letter),
                Some(letter) => self.redrive_message(transaction, read, letter, tally),
            },
            Some(Operation::Begin { work, until }) => {
                let (id, state) = (read.sequence, JobState::Running);
                transaction.put_job(&Job { id, work: work.clone(), next: 0, until: *until, found: 0, state })
            }
            Some(Operation::Step { job, next, done, positions }) => {
                let Some(job) = running(transaction, *job)? else { return Ok(()) };
                let found = job.found + replay(transaction, read.sequence, &job.work, positions)?;
                let state = if *done { JobState::Done } else { job.state };
                transaction.put_job(&Job { next: *next, found, state, ..job })
            }
            Some(Operation::Stop { job }) => match running(transaction, *job)? {
                Some(job) => transaction.put_job(&Job { state: JobState::Stopped, ..job }),
                None => Ok(()),
            },
        }
    }

    /// Reads a message again, with the adapter of today. What came through the first time is known by its identity.
    fn redrive_message(
        &self,
        transaction: &mut Transaction<'_>,
        read: &Read,
        letter: DeadLetter,
        tally: &mut Tally,
    ) -> Result<(), LedgerError> {
        let message = interpret(&self.sources, &letter.source, letter.first_at, letter.raw.clone().into());
        let again = Again::Redrive { letter: letter.id.clone() };
        let odd = apply_items(transaction, read.sequence, message, Some(&again), tally)?;
        if odd.is_empty() {
            return transaction.remove_dead_letter(&letter.id).map(|_| ());
        }
        transaction.put_dead_letter(&DeadLetter { reason: told(&odd), attempts: 1, last_at: read.at, ..letter })
    }

    /// Emits what the adapter of today reads in a delivery and the ledger does not have.
    pub(super) fn apply_reread(
        &self,
        transaction: &mut Transaction<'_>,
        read: &Read,
        reread: Option<&Reread>,
        tally: &mut Tally,
    ) -> Result<(), LedgerError> {
        let Some(Reread { head, source, stored }) = reread else {
            tracing::error!(sequence = read.sequence, "a request to read a delivery anew is not readable, passed over");
            return Ok(());
        };
        let Some(job) = running(transaction, head.job)? else { return Ok(()) };
        let message = interpret(&self.sources, source, head.received_at, stored.clone());
        let mut found = 0;
        for (was_at, finding) in findings(&message, head.of) {
            // In the order of the first reading, behind everything that was read since.
            let position = Position::new(read.sequence, was_at.index());
            match novelty(transaction, source, was_at, finding)? {
                Novelty::None => continue,
                Novelty::New => apply_finding(transaction, position, &message, finding.clone(), None, tally)?,
                Novelty::Corrects(first, uid) => {
                    correct(transaction, position, &message, finding.clone(), &first, uid)?;
                    tally.delivery(source, "normalized");
                    tally.verdicts.push((source.clone(), finding.verdict.word()));
                }
            }
            found += 1;
        }
        transaction.put_job(&Job { next: head.of, found: job.found + found, ..job })
    }
}

/// The job, if it goes on.
fn running(transaction: &Transaction<'_>, id: u64) -> Result<Option<Job>, LedgerError> {
    Ok(transaction.job(id)?.filter(|job| job.state == JobState::Running))
}

/// Sends a refused event again to the one sink that refused it. Its letter stays until the sink has taken it.
fn redrive_event(transaction: &mut Transaction<'_>, read: &Read, letter: &DeadLetter) -> Result<(), LedgerError> {
    if letter.attempt.is_some() {
        return Ok(());
    }
    let Ok(event) = serde_json::from_slice::<Event>(&letter.raw) else {
        let reason =
            "the event it keeps is not readable, so it cannot be sent again; its delivery is in the journal".to_owned();
        return transaction.put_dead_letter(&DeadLetter { reason, attempts: 1, last_at: read.at, ..letter.clone() });
    };
    let again = Some(Again::Redrive { letter: letter.id.clone() });
    transaction.put_event(Position::new(read.sequence, 0), letter.sink.as_ref(), Event { again, ..event })?;
    transaction.begin_attempt(&letter.id, read.sequence)
}

/// Adds stored events once more, for one sink; how many were still there.
fn replay(
    transaction: &mut Transaction<'_>,
    sequence: u64,
    work: &Work,
    positions: &[u64],
) -> Result<u64, LedgerError> {
    let Work::Replay { sink, .. } = work else { return Ok(0) };
    let mut found = 0;
    for position in positions {
        let Some(event) = transaction.event_at(Position(*position))? else { continue };
        let event = Event { again: Some(Again::Replay), ..Event::clone(&event) };
        transaction.put_event(Position::new(sequence, found), Some(sink), event)?;
        found += 1;
    }
    Ok(found)
}

/// Adds the event that takes the place of `first`.
fn correct(
    transaction: &mut Transaction<'_>,
    position: Position,
    message: &Message,
    finding: Finding,
    first: &Event,
    uid: Uid,
) -> Result<(), LedgerError> {
    let source = &message.source;
    let key = finding.subject.key();
    let known = transaction.known(&key, source)?;
    let latest: Option<Latest> = known.record();
    let candidate = Candidate { finding: &finding, auth: first.auth, received_at: message.received_at, position, uid };
    let ranked = match &latest {
        Some(latest) if latest.uid == first.uid => ranking::correct(latest, &candidate),
        latest => ranking::rank(latest.as_ref(), &candidate),
    };
    if let Some(record) = &ranked.record {
        transaction.put_record(&known, position, record)?;
    }
    transaction.claim(uid, position)?;
    let event = Event {
        uid,
        effective_at: ranked.effective_at,
        clock_suspect: ranked.clock_suspect,
        finding,
        activity: ranked.activity,
        standing: ranked.standing,
        previous: ranked.previous,
        again: None,
        corrects: Some(first.uid),
        ..first.clone()
    };
    transaction.put_event(position, None, event)
}
