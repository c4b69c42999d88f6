//! What an operator asks for that is written down now and done next: dead letters tried again or dropped, replays, renormalizations.
//!
//! Not here: doing it (`normalize`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Ops, OpsError};
use crate::adapter::jq::{Program, condition_script};
use crate::normalize::{Operation, draft_of};
use crate::receive::{Bucket, Rate};
use crate::store::Journal as _;
use crate::store::ledger::{DeadLetter, Job, JobState, LedgerError, Stage, Work};

/// How many dead letters may be tried again: a receiver that just came back is not to be flooded with what it refused.
#[derive(Debug)]
pub struct Redrives(Mutex<Bucket>);

const REDRIVES: Rate = Rate { per_second: 50.0, burst: 200.0 };

impl Default for Redrives {
    fn default() -> Self {
        Self(Mutex::new(Bucket::full(REDRIVES, Instant::now())))
    }
}

impl Redrives {
    fn take(&self) -> Result<(), Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(REDRIVES, Instant::now())
    }
}

impl Ops {
    /// Asks for a dead letter to be tried again; the attempt's id. It is under way once normalize has passed the request.
    pub async fn redrive(&self, id: String) -> Result<u64, OpsError> {
        let letter = self.letter(&id)?;
        // The letter would wait for nobody.
        if letter.sink.as_ref().is_some_and(|sink| !self.sinks.contains_key(sink)) {
            return Err(OpsError::SinkRemoved);
        }
        if letter.stage == Stage::Deliver
            && let Some(attempt) = letter.attempt
        {
            return Err(OpsError::Running(attempt));
        }
        self.redrives.take().map_err(OpsError::TooFast)?;
        self.write(&Operation::Redrive { id }).await
    }

    /// Asks for a dead letter to be forgotten; the request's id.
    pub async fn drop_letter(&self, id: String) -> Result<u64, OpsError> {
        self.letter(&id)?;
        self.write(&Operation::Drop { id }).await
    }

    fn letter(&self, id: &str) -> Result<DeadLetter, OpsError> {
        self.dead_letter(id)?.ok_or(OpsError::Unknown)
    }

    /// Begins a job; its id.
    pub async fn begin(&self, work: Work) -> Result<u64, OpsError> {
        let until = match &work {
            Work::Replay { sink, condition, .. } => {
                if !self.sinks.contains_key(sink) {
                    return Err(OpsError::UnknownSink);
                }
                if let Some(jq) = condition
                    && let Err(mistakes) = Program::compile(condition_script("where", jq))
                {
                    let words = mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>().join("; ");
                    return Err(OpsError::Condition(words));
                }
                self.ledger.head().borrow().position.0
            }
            Work::Renormalize { source, .. } => {
                if !self.sources.contains_key(source) {
                    return Err(OpsError::UnknownSource);
                }
                *self.journal.durable().borrow()
            }
        };
        let is_same = |job: &Job| job.state == JobState::Running && job.work.target() == work.target();
        let running = self.jobs()?.into_iter().find(is_same);
        if let Some(job) = running {
            return Err(OpsError::Running(job.id));
        }
        self.write(&Operation::Begin { work, until }).await
    }

    /// Every job that is known, oldest first.
    pub fn jobs(&self) -> Result<Vec<Job>, LedgerError> {
        self.ledger.reader()?.jobs()
    }

    /// Stops a job; the request's id. What it has added stays.
    pub async fn stop_job(&self, id: u64) -> Result<u64, OpsError> {
        let job = self.jobs()?.into_iter().find(|job| job.id == id).ok_or(OpsError::Unknown)?;
        if job.state != JobState::Running {
            return Err(OpsError::Ended);
        }
        self.write(&Operation::Stop { job: id }).await
    }

    async fn write(&self, operation: &Operation) -> Result<u64, OpsError> {
        Ok(self.journal.append(draft_of(operation)).await?.sequence)
    }
}
