//! What an operator asks of the running parts: state, dead letters, readiness.
//!
//! Invariant: what is answered to an operator went through the journal first, like a delivery.
//!
//! Reading blocks for a moment: the API has a worker thread of its own, and nobody else waits for it.
//!
//! Not here: routes and permissions (`api`).

mod jobs;
mod submissions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::deliver::State;
use crate::delivery::Expectation;
use crate::event::Name;
use crate::poll::{KeyView, PollState};
use crate::receive::ServerTls;
use crate::secret::KeyRing;
use crate::store::journal::DiskJournal;
use crate::store::ledger::{Cursor, DeadLetter, EXPECTATIONS_MAX, Ledger, LedgerError, Reader};
use crate::store::{AppendError, Draft, Journal as _, Kind};
use crate::telemetry::{Metrics, SourceCounts};
use crate::verify::Refusal;

pub use self::jobs::Redrives;
pub use self::submissions::{Submission, Submissions, SubmitError};
pub use crate::delivery::Wanted;
pub use crate::poll::NotSubmitted;
pub use crate::store::ledger::Work;

/// The handles of the running parts.
pub struct Ops {
    /// The journal.
    pub journal: Arc<DiskJournal>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Every sink of the config, and how it is doing.
    pub sinks: BTreeMap<Name, watch::Receiver<State>>,
    /// Every source of the config, by name: its platform, and how it is proven in a word.
    pub sources: BTreeMap<Name, (String, &'static str)>,
    /// Every source whose platform is asked.
    pub polls: BTreeMap<Name, PollHandle>,
    /// All key rings, for the age of secrets.
    pub secrets: Vec<KeyRing>,
    /// Where the counts are.
    pub metrics: Arc<Metrics>,
    /// The certificate of the receiver, if it has one.
    pub certificate: Option<Arc<ServerTls>>,
    /// How many dead letters may be tried again.
    pub redrives: Redrives,
    /// Whether senders are told to come.
    pub ready: watch::Receiver<bool>,
}

/// What an operator may know of the loop that asks a platform.
#[derive(Debug, Clone)]
pub struct PollHandle {
    /// How it stands.
    pub state: watch::Receiver<PollState>,
    /// Whether it can be asked about a file of which only the hash is known.
    pub asks_by_hash: bool,
}

/// How asking a platform is going, without its keys.
#[derive(Debug, Clone, Serialize)]
pub struct PollSummary {
    /// `ok`, `backoff`, `quota`, `auth_failed`, `tls_failed` or `misconfigured`; empty before the first question.
    pub state: &'static str,
    /// Why it is not `ok`.
    pub reason: String,
    /// Reports that wait to be fetched.
    pub waiting: u64,
}

impl PollHandle {
    fn summary(&self) -> PollSummary {
        let PollState { state, reason, waiting, .. } = self.state.borrow().clone();
        PollSummary { state, reason, waiting }
    }
}

/// How one API key stands.
#[derive(Debug, Clone, Serialize)]
pub struct KeyOf {
    /// The source whose platform it opens.
    pub source: Name,
    /// How it stands; never its value.
    #[serde(flatten)]
    pub key: KeyView,
}

/// How one sink stands.
#[derive(Debug, Clone, Serialize)]
pub struct SinkState {
    /// Its name.
    pub name: Name,
    /// `ok`, `backoff`, `auth_failed`, `tls_failed`, `paused`, or `removed` where the config no longer has it.
    pub state: &'static str,
    /// Why it is not `ok`.
    pub reason: String,
    /// Events that came up for it.
    pub entered: u64,
    /// Events that the receiver took.
    pub delivered: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that its rule keeps out.
    pub filtered: u64,
    /// Events that are not settled.
    pub pending: u64,
    /// Dead letters that an operator sent again and the receiver took.
    pub redriven: u64,
    /// Events that an operator had replayed and that are settled.
    pub replayed: u64,
    /// When the oldest pending event was received.
    pub oldest_pending_at: Option<Timestamp>,
}

/// How one source stands; all counts are since the service started.
#[derive(Debug, Clone, Serialize)]
pub struct SourceState {
    /// Its name.
    pub name: Name,
    /// The platform.
    pub provider: String,
    /// How its messages are proven: `signature`, `mtls`, `token` or `none`.
    pub auth: &'static str,
    /// When it last sent something that was proven; none where nothing came yet.
    pub last_delivery_at: Option<Timestamp>,
    /// How asking its platform is going; none where it is not asked.
    pub poll: Option<PollSummary>,
    /// Requests, refusals and items.
    #[serde(flatten)]
    pub counts: SourceCounts,
}

/// How the store stands.
#[derive(Debug, Clone, Serialize)]
pub struct StoreState {
    /// Bytes on disk, journal and ledger.
    pub bytes: u64,
    /// Whether senders are refused for want of space.
    pub full: bool,
    /// Sequence of the last durable record.
    pub sequence: u64,
    /// Records that are durable and not normalized.
    pub behind: u64,
    /// Events for every sink since the store was begun.
    pub events: u64,
    /// Damaged records found since the start.
    pub damaged: u64,
}

/// Why an operator's request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// There is no dead letter, or job, with this id.
    #[error("there is nothing with this id")]
    Unknown,
    /// It is being done: the attempt or job that is under way.
    #[error("attempt {0} is under way: wait until it has ended")]
    Running(u64),
    /// The job has ended.
    #[error("it has ended already")]
    Ended,
    /// Dead letters are tried again at a bounded rate.
    #[error("dead letters are tried again at most {0:?} apart: go on then")]
    TooFast(Duration),
    /// No such sink.
    #[error("there is no sink of this name in the config")]
    UnknownSink,
    /// The condition is no jq.
    #[error("where: {0}")]
    Condition(String),
    /// Its sink is not in the config.
    #[error("the sink of this dead letter is not in the config any more: add it again and redrive, or drop the letter")]
    SinkRemoved,
    /// No such source.
    #[error("there is no source of this name")]
    UnknownSource,
    /// The platform of the source cannot be asked, or not for this.
    #[error("{0}")]
    Unpollable(&'static str),
    /// More analyses are awaited than a source may announce.
    #[error("{EXPECTATIONS_MAX} analyses of this source are awaited already: try again when some have reported")]
    TooMany,
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] AppendError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Ops {
    /// Every sink that has a cursor, those of the config with their state.
    pub fn sinks(&self) -> Result<Vec<SinkState>, LedgerError> {
        let reader = self.ledger.reader()?;
        reader.cursors()?.into_iter().map(|(name, cursor)| self.sink(&reader, name, &cursor)).collect()
    }

    fn sink(&self, reader: &Reader, name: Name, cursor: &Cursor) -> Result<SinkState, LedgerError> {
        let state = self.sinks.get(&name).map(|state| state.borrow().clone());
        let state = state.unwrap_or(State { word: "removed", reason: "not in the config any more".to_owned() });
        // Read after the cursor, so it can only be ahead of it.
        let head = *self.ledger.head().borrow();
        let pending = head.ordinal.saturating_sub(cursor.ordinal);
        let oldest_pending_at = if pending > 0 { reader.oldest_after(cursor.position)? } else { None };
        Ok(SinkState {
            name,
            state: state.word,
            reason: state.reason,
            entered: cursor.entered(head.ordinal),
            delivered: cursor.delivered,
            dead: cursor.dead,
            filtered: cursor.filtered,
            pending,
            redriven: cursor.redriven,
            replayed: cursor.replayed,
            oldest_pending_at,
        })
    }

    /// Every source of the config.
    pub fn sources(&self) -> Vec<SourceState> {
        let state = |(name, (provider, auth)): (&Name, &(String, &'static str))| {
            let reasons = Refusal::ALL.into_iter().map(Refusal::word);
            let counts = self.metrics.source_counts(name.as_str(), reasons);
            #[expect(clippy::cast_possible_truncation, reason = "our own clock, in milliseconds")]
            let ms = (counts.last_delivery * 1000.0) as i64;
            let last_delivery_at = Timestamp::from_millisecond(ms).ok().filter(|at| *at > Timestamp::UNIX_EPOCH);
            let poll = self.polls.get(name).map(PollHandle::summary);
            SourceState { name: name.clone(), provider: provider.clone(), auth, last_delivery_at, poll, counts }
        };
        self.sources.iter().map(state).collect()
    }

    /// How the store stands.
    pub fn store(&self) -> StoreState {
        let (sequence, head) = (*self.journal.durable().borrow(), *self.ledger.head().borrow());
        StoreState {
            bytes: self.journal.bytes() + self.ledger.bytes(),
            full: self.journal.is_full(),
            sequence,
            behind: sequence.saturating_sub(head.sequence),
            events: head.ordinal,
            damaged: self.journal.damaged(),
        }
    }

    /// Dead letters by id, beginning after `after`.
    pub fn dead_letters(&self, after: Option<&str>, max: usize) -> Result<Vec<DeadLetter>, LedgerError> {
        self.ledger.reader()?.dead_letters(after, max)
    }

    /// One dead letter with what it keeps.
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, LedgerError> {
        self.ledger.reader()?.dead_letter(id)
    }

    /// Announces an analysis that must report within a time; the id of the announcement.
    pub async fn expect(
        &self,
        source: &Name,
        wanted: Wanted,
        within: Duration,
        now: Timestamp,
    ) -> Result<u64, OpsError> {
        if !self.sources.contains_key(source) {
            return Err(OpsError::UnknownSource);
        }
        let handle = self.polls.get(source).ok_or(OpsError::Unpollable(
            "the platform of this source cannot be asked, so nobody would notice a lost result: give it confirm or poll in the config",
        ))?;
        if matches!(wanted, Wanted::Sha256(_)) && !handle.asks_by_hash {
            let words = "the platform of this source cannot be asked by a hash: announce the analysis_id, or let its list be read with reconcile";
            return Err(OpsError::Unpollable(words));
        }
        if self.ledger.reader()?.expectations(source)? >= EXPECTATIONS_MAX {
            return Err(OpsError::TooMany);
        }
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let body =
            serde_json::to_vec(&Expectation::Expect { wanted, within_ms }).expect("an expectation is plain data");
        let draft = Draft {
            kind: Kind::Expect,
            source: source.clone(),
            at: now,
            head: Vec::new(),
            body: Bytes::from(body),
            repeat: None,
        };
        Ok(self.journal.append(draft).await?.sequence)
    }

    /// Every API key, by source.
    pub fn keys(&self) -> Vec<KeyOf> {
        let of = |(source, handle): (&Name, &PollHandle)| {
            let keys = handle.state.borrow().keys.clone();
            keys.into_iter().map(|key| KeyOf { source: source.clone(), key }).collect::<Vec<_>>()
        };
        self.polls.iter().flat_map(of).collect()
    }

    /// All metrics, as text, with what the store knows brought up to date.
    pub async fn metrics(&self, now: Timestamp) -> Result<String, LedgerError> {
        for sink in self.sinks()? {
            let name = sink.name.as_str();
            let outcomes = [
                ("delivered", sink.delivered),
                ("dead", sink.dead),
                ("filtered", sink.filtered),
                ("redriven", sink.redriven),
                ("replayed", sink.replayed),
            ];
            self.metrics.sink_counts(name, sink.entered, &outcomes, sink.pending);
            let age = sink.oldest_pending_at.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
            self.metrics.sink_oldest(name, age);
            if sink.state != "removed" {
                self.metrics.sink_state(name, sink.state);
            }
        }
        let counts = self.ledger.reader()?.dead_letter_counts()?;
        self.metrics.dead_letters(&counts);
        let store = self.store();
        self.metrics.store(store.bytes, store.damaged);
        if let Some(certificate) = &self.certificate {
            self.metrics.certificate_expiry("receiver", certificate.expires_at().as_duration().as_secs_f64());
        }
        for ring in &self.secrets {
            for state in ring.states().await {
                if let Some(since) = state.since {
                    self.metrics.secret_age(&state.reference.0, now.duration_since(since).as_secs_f64());
                }
            }
        }
        Ok(self.metrics.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Position, Verdict, sample};
    use crate::store::journal::Options;
    use crate::store::ledger::Stage;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_is_not_sent_again_to_a_sink_that_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { folder: folder.path().join("journal"), segment_bytes: 1 << 20, sequence_floor: 0 };
        let (_, ready) = watch::channel(true);
        let (_, state) = watch::channel(State { word: "ok", reason: String::new() });
        let ops = Ops {
            journal: Arc::new(DiskJournal::open(&options).expect("opens")),
            ledger: Arc::new(Ledger::open(folder.path()).expect("opens")),
            sinks: BTreeMap::from([("lake".parse().expect("a name"), state)]),
            sources: BTreeMap::new(),
            polls: BTreeMap::new(),
            secrets: Vec::new(),
            metrics: Arc::default(),
            certificate: None,
            redrives: Redrives::default(),
            ready,
        };
        for sink in ["lake", "gone"] {
            let letter = DeadLetter {
                id: sink.to_owned(),
                stage: Stage::Deliver,
                sink: Some(sink.parse().expect("a name")),
                source: "portal".parse().expect("a name"),
                position: Position::new(1, 0),
                reason: String::new(),
                attempts: 1,
                first_at: Timestamp::UNIX_EPOCH,
                last_at: Timestamp::UNIX_EPOCH,
                attempt: None,
                raw: serde_json::to_vec(&sample::event(Verdict::Clean)).expect("plain data"),
            };
            ops.ledger.transact(|transaction| transaction.put_dead_letter(&letter)).expect("committed");
        }
        assert!(ops.redrive("lake".to_owned()).await.is_ok());
        let refused = ops.redrive("gone".to_owned()).await;
        assert!(matches!(refused, Err(OpsError::SinkRemoved)), "{refused:?}");
        assert!(ops.drop_letter("gone".to_owned()).await.is_ok());
    }
}
