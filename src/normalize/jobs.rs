//! Jobs: takes the steps of what an operator asked for and that takes a while, one after the other, at a pace that disturbs nobody.
//!
//! Invariants: every step goes through the journal, so it is applied once, and a job goes on after a restart where it stood; a sink gets
//! the next events only when it has taken the last ones, so one that is away piles up nothing.
//!
//! Not here: what a step adds (`normalize/operations`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::{NormalizeStopped, Operation, Reading, Reread, Rereading};
use crate::adapter::jq::{Evaluate, condition, condition_script};
use crate::event::{Event, Name, Position, SourceId};
use crate::format::{Format, Style};
use crate::sandbox::Sandbox;
use crate::store::journal::{DiskJournal, Reader as JournalReader};
use crate::store::ledger::{Job, JobState, Ledger, LedgerError, Reader, Work};
use crate::store::{AppendError, Draft, Journal as _, Kind};

/// The loop's parts.
pub struct Jobs {
    journal: Arc<DiskJournal>,
    ledger: Arc<Ledger>,
    reader: Reader,
    /// How every source is read today.
    sources: HashMap<SourceId, Reading>,
    /// How events are written for a condition.
    style: Style,
    open: HashMap<u64, Open>,
}

/// What is known of a running job beside its row.
struct Open {
    /// Everything up to here was looked at.
    at: u64,
    /// The step that is not known to be applied.
    sent: u64,
    /// The last event that was given to the sink.
    handed: Position,
    journal: Option<JournalReader>,
    condition: Option<Sandbox>,
}

/// Events of one step, and how long until the next: a replay takes at most 500 events a second from the receiver.
const STEP_EVENTS: usize = 250;
const STEP_BYTES: usize = 2 << 20;
const PACE: Duration = Duration::from_millis(500);
/// How often to look for new jobs.
const LOOK: Duration = Duration::from_secs(1);
/// Stretches of the store that one step looks through in search of something to do.
const STRETCHES: usize = 16;

impl Jobs {
    /// Takes up what an earlier run left.
    pub fn new(
        journal: Arc<DiskJournal>,
        ledger: Arc<Ledger>,
        sources: HashMap<SourceId, Reading>,
        style: Style,
    ) -> Result<Self, LedgerError> {
        Ok(Self { journal, reader: ledger.reader()?, ledger, sources, style, open: HashMap::new() })
    }

    /// Works until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), NormalizeStopped> {
        while !*stop.borrow_and_update() {
            let pause = tokio::select! {
                pause = self.step() => pause,
                _ = stop.changed() => break,
            };
            let pause = match pause {
                Err(NormalizeStopped::Ledger(LedgerError::Full)) => LOOK,
                pause => pause?,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    /// Takes one step of each running job; how long to wait then.
    pub async fn step(&mut self) -> Result<Duration, NormalizeStopped> {
        let mut jobs = block_in_place(|| self.reader.jobs())?;
        jobs.retain(|job| job.state == JobState::Running);
        self.open.retain(|id, _| jobs.iter().any(|job| job.id == *id));
        for job in &jobs {
            let mut open = self.open.remove(&job.id).unwrap_or_else(|| self.begin(job));
            if self.ledger.head().borrow().sequence >= open.sent {
                let drafts = match &job.work {
                    Work::Replay { sink, .. } => block_in_place(|| self.replay(job, sink, &mut open))?,
                    Work::Renormalize { source, .. } => block_in_place(|| self.renormalize(job, source, &mut open))?,
                };
                if let Err(error) = send(&self.journal, drafts, &mut open).await {
                    // Looked at again from where the row says.
                    tracing::warn!(job = job.id, "a step of job {} has to wait: {error}", job.id);
                    open = self.begin(job);
                }
            }
            self.open.insert(job.id, open);
        }
        Ok(if jobs.is_empty() { LOOK } else { PACE })
    }

    fn begin(&self, job: &Job) -> Open {
        let condition = match &job.work {
            Work::Replay { condition: Some(jq), .. } => Some(Sandbox::new(condition_script("where", jq))),
            _ => None,
        };
        let journal = matches!(job.work, Work::Renormalize { .. }).then(|| self.journal.reader(job.next));
        Open { at: job.next, sent: 0, handed: Position::default(), journal, condition }
    }

    /// The next events of a replay, once the sink has what it was given before.
    fn replay(&self, job: &Job, sink: &Name, open: &mut Open) -> Result<Vec<Draft>, NormalizeStopped> {
        let head = self.ledger.head().borrow().position;
        let cursors = self.reader.cursors()?;
        let is_through = |(name, cursor): &(Name, _)| {
            let cursor: &crate::store::ledger::Cursor = cursor;
            name == sink && (cursor.position >= open.handed || cursor.position >= head)
        };
        if !cursors.iter().any(is_through) {
            return Ok(Vec::new());
        }
        let (mut positions, mut done) = (Vec::new(), false);
        for _ in 0..STRETCHES {
            let stored = self.reader.events_after(Position(open.at), sink, STEP_EVENTS, STEP_BYTES)?;
            done = stored.is_empty();
            for stored in stored {
                if stored.position.0 > job.until {
                    done = true;
                    break;
                }
                open.at = stored.position.0;
                // What was told this sink again is no new event.
                let event = stored.event.filter(|event| stored.sink.is_none() && self.wants(&job.work, open, event));
                positions.extend(event.map(|_| stored.position.0));
                if positions.len() == STEP_EVENTS {
                    break;
                }
            }
            if done || positions.len() == STEP_EVENTS {
                break;
            }
        }
        let is_step = done || !positions.is_empty();
        let step = Operation::Step { job: job.id, next: open.at, done, positions };
        Ok(if is_step { vec![draft_of(&step)] } else { Vec::new() })
    }

    fn wants(&self, work: &Work, open: &Open, event: &Event) -> bool {
        let Work::Replay { since, until, .. } = work else { return false };
        let in_time = event.received_at >= *since && until.is_none_or(|until| event.received_at < until);
        in_time && open.condition.as_ref().is_none_or(|sandbox| self.holds(sandbox, event))
    }

    /// As in a sink's `where`: what cannot be decided passes.
    fn holds(&self, evaluate: &dyn Evaluate, event: &Event) -> bool {
        let mut body = Vec::with_capacity(4096);
        Format::Ocsf.render(event, &self.style, &mut body);
        condition(evaluate, &body).unwrap_or_else(|reason| {
            tracing::warn!(uid = %event.uid, "the condition of a replay failed, so the event passes: {reason}");
            true
        })
    }

    /// The next deliveries of the source that say something else today.
    fn renormalize(&self, job: &Job, source: &SourceId, open: &mut Open) -> Result<Vec<Draft>, NormalizeStopped> {
        let Work::Renormalize { since, .. } = &job.work else { return Ok(Vec::new()) };
        let Some(journal) = &mut open.journal else { return Ok(Vec::new()) };
        let (mut drafts, mut done) = (Vec::new(), false);
        for _ in 0..STRETCHES {
            let (records, _) = journal.read(STEP_EVENTS, STEP_BYTES)?;
            done = records.is_empty();
            for record in records {
                if record.sequence > job.until {
                    done = true;
                    break;
                }
                open.at = record.sequence;
                if record.kind == Kind::Delivery && record.source == *source && record.at >= *since {
                    let rereading = Rereading::new(&self.sources, &record);
                    if self.ledger.transact(|transaction| rereading.has_news(transaction))? {
                        drafts.push(Draft {
                            kind: Kind::Reread,
                            source: source.clone(),
                            at: now(),
                            head: Reread::stored_head(job.id, &record),
                            body: record.stored,
                            repeat: None,
                        });
                    }
                }
            }
            if done || !drafts.is_empty() {
                break;
            }
        }
        if done || !drafts.is_empty() {
            drafts.push(draft_of(&Operation::Step { job: job.id, next: open.at, done, positions: Vec::new() }));
        }
        Ok(drafts)
    }
}

async fn send(journal: &DiskJournal, drafts: Vec<Draft>, open: &mut Open) -> Result<(), AppendError> {
    for draft in drafts {
        open.sent = journal.append(draft).await?.sequence;
        open.handed = Position::new(open.sent, 0);
    }
    Ok(())
}

/// An operator's request, as it goes into the journal.
pub(crate) fn draft_of(operation: &Operation) -> Draft {
    Draft {
        kind: Kind::Operator,
        source: "operator".parse().expect("a name"),
        at: now(),
        head: Vec::new(),
        body: Bytes::from(serde_json::to_vec(operation).expect("an operation is plain data")),
        repeat: None,
    }
}

/// When a step was written down. Nothing but retention hangs on this clock.
fn now() -> Timestamp {
    Timestamp::now()
}
