//! What an operator asked for that takes a while: sending stored events again, reading stored deliveries anew.
//!
//! Invariant: how far a job has come moves in the transaction that adds what it found, so a crash repeats no step and leaves none out.
//!
//! Not here: taking the steps (`again`), what a step adds (`normalize`).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::transaction::integer;
use super::{LedgerError, Reader, Transaction};
use crate::event::Name;

/// Jobs that have ended stay as long as [`ENDED_MAX`] newer ones have not.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, work TEXT NOT NULL, next INTEGER NOT NULL, until INTEGER NOT NULL, found INTEGER NOT NULL, state TEXT NOT NULL);
";
/// Ended jobs that are still shown.
const ENDED_MAX: u32 = 100;

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Sends stored events to one sink again.
    Replay {
        /// The sink.
        sink: Name,
        /// Events that were received from then on.
        since: Timestamp,
        /// And before then; none up to the latest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// A condition in jq over the event as OCSF.
        #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
    },
    /// Reads stored deliveries of one source with the adapter of today.
    Renormalize {
        /// The source.
        source: Name,
        /// Deliveries that were received from then on.
        since: Timestamp,
    },
}

impl Work {
    /// What kind of work it is, and the sink or source that it is about: of each there is one at a time.
    pub const fn target(&self) -> (bool, &Name) {
        match self {
            Self::Replay { sink, .. } => (true, sink),
            Self::Renormalize { source, .. } => (false, source),
        }
    }
}

/// One job and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Sequence of the request.
    #[serde(serialize_with = "super::id_as_text")]
    pub id: u64,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
    /// Everything up to here is done: a position of events, or a sequence of deliveries.
    #[serde(skip)]
    pub next: u64,
    /// Where it ends: what came later is not meant.
    #[serde(skip)]
    pub until: u64,
    /// Events that it added.
    pub found: u64,
    /// Whether it goes on.
    pub state: JobState,
}

/// Whether a job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It does.
    Running,
    /// It came to its end.
    Done,
    /// An operator stopped it.
    Stopped,
}

impl JobState {
    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }

    fn of(word: &str) -> Self {
        [Self::Running, Self::Done].into_iter().find(|state| state.word() == word).unwrap_or(Self::Stopped)
    }
}

impl Transaction<'_> {
    /// Begins a job, or sets down how far it has come.
    pub fn put_job(&mut self, job: &Job) -> Result<(), LedgerError> {
        let work = serde_json::to_string(&job.work)?;
        self.execute(
            "INSERT OR REPLACE INTO jobs (id, work, next, until, found, state) VALUES (?, ?, ?, ?, ?, ?)",
            params![integer(job.id), work, integer(job.next), integer(job.until), integer(job.found), job.state.word()],
        )?;
        self.execute(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state != 'running' ORDER BY id DESC LIMIT -1 OFFSET ?)",
            [ENDED_MAX],
        )
    }

    /// One job.
    pub fn job(&self, id: u64) -> Result<Option<Job>, LedgerError> {
        Ok(self.sqlite.query_row(&format!("{JOB} WHERE id = ?"), [integer(id)], read).optional()?)
    }
}

impl Reader {
    /// Every job that is known, oldest first.
    pub fn jobs(&self) -> Result<Vec<Job>, LedgerError> {
        self.noted(all(self.connection()).map_err(LedgerError::from))
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<Job>> {
    connection.prepare_cached(&format!("{JOB} ORDER BY id"))?.query_map([], read)?.collect()
}

const JOB: &str = "SELECT id, work, next, until, found, state FROM jobs";

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let whole = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
    let work = serde_json::from_str(row.get_ref(1)?.as_str()?);
    let work = work
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error)))?;
    let state = JobState::of(row.get_ref(5)?.as_str()?);
    Ok(Job { id: whole(0)?, work, next: whole(2)?, until: whole(3)?, found: whole(4)?, state })
}
