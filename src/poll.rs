//! Poll: asks platforms, and appends what they answer as deliveries: reports that a message pointed to, analyses whose callback was lost,
//! VirusTotal's streams. One loop a source.
//!
//! Invariants: what a platform answered goes through the journal like everything else, with the proof that we fetched it; nothing waits
//! in memory alone, so a crash repeats a question and loses no answer; a platform that is down, slow or out of quota stops only its own
//! source; a list or page that says nothing new is not stored.
//!
//! Not here: what a report means (`adapter`), what becomes of it (`normalize`), which rows there are (`store/ledger/fetches`).

mod answer;
mod client;
mod config;
mod expect;
mod fetch;
mod keys;
mod platform;
mod probe;
mod quota;
mod reconcile;
mod session;
mod submit;
#[cfg(test)]
mod tests;
mod virustotal;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::adapter::{Adapter, FetchId, Outcome};
use crate::backoff::Backoff;
use crate::delivery::Delivery;
use crate::event::SourceId;
use crate::secret::KeyRing;
use crate::store::ledger::{Ledger, LedgerError, Reader};
use crate::store::{AppendError, Draft, Journal, Kind};
use crate::telemetry::Metrics;

use self::answer::Answer;
use self::session::Session;

pub use self::config::{Asked, ConfirmConfig, PollConfig, PollPlan, ReconcileConfig};
pub use self::keys::{KeyState, KeyView};
pub use self::probe::probe;
pub use self::quota::{Quota, Quotas};
pub use self::submit::{Audience, Destination, NotSubmitted, Sample, Submitted, Submitter};

/// What a poller is made of.
pub struct Parts {
    /// Name of the source.
    pub source: SourceId,
    /// Whom to ask for what.
    pub plan: PollPlan,
    /// The keys of its API.
    pub keys: KeyRing,
    /// What understands the answers, to see which are not finished or not new.
    pub adapter: Arc<dyn Adapter>,
    /// Where answers go.
    pub journal: Arc<dyn Journal>,
    /// What has to be asked.
    pub ledger: Arc<Ledger>,
    /// Where the counts go.
    pub metrics: Arc<Metrics>,
    /// Where the state goes: shown by `keys` and `sources`.
    pub state: watch::Sender<PollState>,
}

/// How asking a platform is going.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PollState {
    /// `ok`, `backoff`, `quota`, `auth_failed`, `tls_failed` or `misconfigured`; empty before the first question.
    pub state: &'static str,
    /// Why, in words; empty while all is well.
    pub reason: String,
    /// Reports that wait to be fetched.
    pub waiting: u64,
    /// How each key stands.
    pub keys: Vec<KeyView>,
}

/// Why the loop ends.
#[derive(Debug, thiserror::Error)]
pub enum PollStopped {
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// One source's loop.
pub struct Poller {
    source: SourceId,
    plan: PollPlan,
    session: Session,
    adapter: Arc<dyn Adapter>,
    journal: Arc<dyn Journal>,
    ledger: Arc<Ledger>,
    reader: Reader,
    metrics: Arc<Metrics>,
    state: watch::Sender<PollState>,
    backoff: Backoff,
    /// Nothing is asked before then.
    rest_until: Option<Timestamp>,
    /// Reports that are in the journal and not normalized, by its sequence.
    in_flight: HashMap<FetchId, u64>,
    late: expect::Late,
    rounds: reconcile::Rounds,
    streams: virustotal::Streams,
    /// The time that the step was given, and when it began: a question may take a minute.
    clock: (Timestamp, Instant),
}

/// Whether the platform can be asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Go,
    /// It has to be left alone until `rest_until`.
    Rest,
}

/// First and longest wait for a platform that is not there.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Pause after the store refused an answer: the question is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How soon to look again whether normalize has read what was appended.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(200);
/// Longest sleep: times in the ledger may be changed by a redrive.
const IDLE_MAX: Duration = Duration::from_mins(1);

impl Poller {
    /// Takes up what the ledger says has to be asked.
    pub fn new(parts: Parts, now: Timestamp) -> Result<Self, LedgerError> {
        let Parts { source, plan, keys, adapter, journal, ledger, metrics, state } = parts;
        Ok(Self {
            session: Session::new(&plan, keys),
            reader: ledger.reader()?,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            rest_until: None,
            in_flight: HashMap::new(),
            late: expect::Late::default(),
            rounds: reconcile::Rounds::new(now),
            streams: virustotal::Streams::new(now),
            clock: (now, Instant::now()),
            source,
            plan,
            adapter,
            journal,
            ledger,
            metrics,
            state,
        })
    }

    /// Asks until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), PollStopped> {
        let (mut wants, mut keys) = (self.ledger.wants(), self.session.key_news());
        while !*stop.borrow_and_update() {
            // Before looking: a row may be put in between.
            wants.mark_unchanged();
            keys.mark_unchanged();
            let next = tokio::select! {
                next = self.step(Timestamp::now()) => next,
                // Nothing is lost: what was asked is asked again.
                _ = stop.changed() => break,
            };
            let wait = match next {
                Ok(next) => next.duration_since(Timestamp::now()).max(jiff::SignedDuration::ZERO).unsigned_abs(),
                Err(PollStopped::Ledger(LedgerError::Full)) => STORE_PAUSE,
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = tokio::time::sleep(wait.min(IDLE_MAX)) => {}
                _ = wants.changed() => {}
                _ = keys.changed() => {}
                _ = stop.changed() => {}
            }
        }
        Ok(())
    }

    /// Asks what is due at `now`; when there is more to ask.
    pub async fn step(&mut self, now: Timestamp) -> Result<Timestamp, PollStopped> {
        self.clock = (now, Instant::now());
        let normalized = self.ledger.head().borrow().sequence;
        self.in_flight.retain(|_, sequence| *sequence > normalized);
        if self.state.borrow().state == "auth_failed" && self.session.has_new_keys() {
            self.rest_until = None;
        }
        self.ask_for_late(now).await?;
        if self.rests(now).is_none() {
            self.ask_what_is_due(now).await?;
        }
        self.report(now)?;
        self.next(now)
    }

    async fn ask_what_is_due(&mut self, now: Timestamp) -> Result<(), PollStopped> {
        if self.fetch_due(now).await? == Flow::Rest {
            return Ok(());
        }
        if self.reconcile_due(now).await? == Flow::Rest {
            return Ok(());
        }
        self.read_streams(now).await.map(|_| ())
    }

    /// When there is more to ask.
    fn next(&self, now: Timestamp) -> Result<Timestamp, PollStopped> {
        let mut next = vec![after(now, IDLE_MAX)];
        next.extend(self.next_late(now)?);
        if let Some(until) = self.rests(now) {
            next.push(until);
        } else {
            next.extend(self.rounds.next(&self.plan));
            next.extend(self.streams.next(&self.plan));
            if let Some(at) = self.reader.next_fetch(&self.source)? {
                next.push(if self.in_flight.is_empty() { at } else { at.max(after(now, IN_FLIGHT_PAUSE)) });
            }
        }
        Ok(next.into_iter().min().unwrap_or(now))
    }

    fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        self.rest_until.filter(|until| *until > now)
    }

    /// The time, with what the step took so far.
    fn now(&self) -> Timestamp {
        after(self.clock.0, self.clock.1.elapsed())
    }

    /// Acts on what an answer means for the whole source; the answer, if it is only about what was asked.
    fn heed(&mut self, answer: Answer, now: Timestamp) -> Result<Answer, Flow> {
        let (word, reason, wait) = match answer {
            Answer::Wait(wait) => {
                // Our own pace is no trouble.
                self.rest_until = Some(after(now, wait));
                return Err(Flow::Rest);
            }
            Answer::Key(reason) => ("auth_failed", reason, self.session.next_probe(now)),
            Answer::Tls(reason) => ("tls_failed", reason, self.backoff.wait(fastrand::f64())),
            Answer::Quota(wait) => {
                ("quota", "its quota is used up, waiting until it begins anew".to_owned(), wait.unwrap_or(BACKOFF.1))
            }
            Answer::TooFast(wait) => {
                let own = self.backoff.wait(fastrand::f64());
                ("backoff", "it is asked too fast".to_owned(), wait.unwrap_or(own).max(own))
            }
            Answer::Unavailable { reason, retry_after } => {
                let own = self.backoff.wait(fastrand::f64());
                ("backoff", reason, retry_after.unwrap_or(own).max(own))
            }
            answer => {
                self.backoff.reset();
                match &answer {
                    Answer::Forbidden(reason) => self.tell(
                        "misconfigured",
                        &format!(
                            "{reason}: the key is good and lacks the privilege; another key of its group lacks it, too"
                        ),
                    ),
                    Answer::Misconfigured(reason) => self.tell("misconfigured", reason),
                    _ => self.tell("ok", ""),
                }
                return Ok(answer);
            }
        };
        self.rest(word, &reason, wait, now);
        Err(Flow::Rest)
    }

    /// Leaves the platform alone for this long.
    fn rest(&mut self, word: &'static str, reason: &str, wait: Duration, now: Timestamp) {
        self.rest_until = Some(after(now, wait));
        self.tell(word, reason);
    }

    /// Notes the state, and logs where it changes.
    fn tell(&self, word: &'static str, reason: &str) {
        let before = self.state.borrow().state;
        if before != word {
            let source = &self.source;
            match word {
                "ok" if before.is_empty() => tracing::info!(%source, "source {source}: its platform answers"),
                "ok" => tracing::info!(%source, "source {source}: its platform answers again"),
                "backoff" | "quota" => {
                    tracing::warn!(%source, state = word, "source {source}: its platform cannot be asked now: {reason}");
                }
                _ => tracing::error!(%source, state = word, "source {source}: its platform cannot be asked: {reason}"),
            }
        }
        self.state.send_if_modified(|state| {
            let changed = state.state != word || state.reason != reason;
            state.state = word;
            reason.clone_into(&mut state.reason);
            changed
        });
    }

    /// Shows what waits and how the keys stand.
    fn report(&mut self, now: Timestamp) -> Result<(), PollStopped> {
        let waiting = self.reader.fetches(&self.source)?;
        let keys = self.session.views();
        self.state.send_if_modified(|state| {
            let changed = state.waiting != waiting || state.keys != keys;
            state.waiting = waiting;
            state.keys = keys;
            changed
        });
        self.metrics.fetches_waiting(self.source.as_str(), waiting);
        self.session.report(&self.source, &self.metrics);
        self.streams.report(&self.plan, &self.source, &self.metrics, now);
        Ok(())
    }

    /// Puts an answer into the journal; its sequence, or nothing where the store does not take it now.
    async fn append(&mut self, delivery: &Delivery) -> Result<Option<u64>, TooLarge> {
        let draft = Draft {
            kind: Kind::Delivery,
            source: self.source.clone(),
            at: delivery.received_at(),
            head: delivery.stored_head(),
            body: delivery.body().clone(),
            repeat: None,
        };
        self.put(draft).await
    }

    async fn put(&mut self, draft: Draft) -> Result<Option<u64>, TooLarge> {
        match self.journal.append(draft).await {
            Ok(appended) => Ok(Some(appended.sequence)),
            Err(AppendError::TooLarge) => Err(TooLarge),
            Err(error) => {
                let now = self.now();
                self.rest(
                    "backoff",
                    &format!("an answer could not be kept, so it is asked for again: {error}"),
                    STORE_PAUSE,
                    now,
                );
                Ok(None)
            }
        }
    }

    /// What the adapter makes of an answer; nothing where it cannot read it. A panic in it is normalize's to tell.
    fn outcomes(&self, delivery: &Delivery) -> Option<Vec<Outcome>> {
        let run = catch_unwind(AssertUnwindSafe(|| self.adapter.normalize(delivery)));
        run.ok()?.ok()?.into_iter().collect::<Result<_, _>>().ok()
    }

    /// One transaction of the ledger, off the async threads.
    fn transact<T>(
        &self,
        work: impl FnOnce(&mut crate::store::ledger::Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, PollStopped> {
        Ok(block_in_place(|| self.ledger.transact(work))?)
    }
}

/// The answer fits no file of the journal.
#[derive(Debug)]
struct TooLarge;

/// `at` and this long after it.
fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}
