//! Reports that messages point to: fetched one after the other, each until it is there or its time is over.
//!
//! Invariants: a report that is not finished is not stored; a row leaves the ledger when normalize has read its report, or here together
//! with the dead letter that says why there is none.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::{Flow, PollStopped, Poller, TooLarge, after};
use crate::adapter::Outcome;
use crate::delivery::Delivery;
use crate::setting::Span;
use crate::store::ledger::{DeadLetter, Fetch, Stage};
use crate::verify::Proven;

/// Reports of one look: between two looks the other questions get their turn.
const BATCH_MAX: usize = 16;
/// First and longest wait for a report that is not there or not finished.
const LATER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
/// A report that the platform does not know after this time will not come.
const ABSENT_MAX: Duration = Duration::from_hours(1);
/// After this time, or so many tries, an operator decides.
const AGE_MAX: Duration = Duration::from_hours(24);
const ATTEMPTS_MAX: u32 = 200;

impl Poller {
    /// Fetches what is due.
    pub(super) async fn fetch_due(&mut self, now: Timestamp) -> Result<Flow, PollStopped> {
        let due = self.reader.fetches_due(&self.source, now, BATCH_MAX)?;
        for fetch in due {
            if !self.in_flight.contains_key(&fetch.id) && self.fetch(&fetch, now).await? == Flow::Rest {
                return Ok(Flow::Rest);
            }
        }
        Ok(Flow::Go)
    }

    async fn fetch(&mut self, fetch: &Fetch, now: Timestamp) -> Result<Flow, PollStopped> {
        let Some(question) = self.plan.platform.report(&fetch.id) else {
            let words = format!("{} has no reports of the kind {}", self.plan.platform.name(), fetch.id.kind());
            return self.give_up(fetch, &words, now);
        };
        let answer = self.session.ask(&question, now).await;
        let answer = match self.heed(answer, now) {
            Ok(answer) => answer,
            Err(flow) => {
                if now.duration_since(fetch.first_at).unsigned_abs() >= AGE_MAX {
                    let reason = self.state.borrow().reason.clone();
                    self.give_up(fetch, &reason, now)?;
                }
                return Ok(flow);
            }
        };
        match answer {
            Answer::Found(body) => {
                let proven = Proven::confirmed(body, &self.plan.origin(), Some(fetch.id.clone()), None);
                let delivery = Delivery::new(proven, &self.source, self.now());
                self.take(fetch, &delivery, now).await
            }
            Answer::NotYet(wait) => self.later(fetch, wait, "the platform says that it is not finished", AGE_MAX, now),
            Answer::Absent(reason) => self.later(fetch, None, &reason, ABSENT_MAX, now),
            Answer::Forbidden(reason) | Answer::Misconfigured(reason) => {
                self.later(fetch, Some(LATER.1), &reason, AGE_MAX, now)
            }
            Answer::Never(reason) => self.give_up(fetch, &reason, now),
            // The whole source rests: `heed` has seen to it.
            _ => Ok(Flow::Rest),
        }
    }

    /// Keeps a report, unless it says that it is not finished.
    async fn take(&mut self, fetch: &Fetch, delivery: &Delivery, now: Timestamp) -> Result<Flow, PollStopped> {
        let is_unfinished = self.outcomes(delivery).is_some_and(|outcomes| is_unfinished(&outcomes));
        if is_unfinished {
            return self.later(fetch, None, "the platform's report says that it is not finished", AGE_MAX, now);
        }
        match self.append(delivery).await {
            Ok(Some(sequence)) => {
                self.in_flight.insert(fetch.id.clone(), sequence);
                Ok(Flow::Go)
            }
            Ok(None) => Ok(Flow::Rest),
            Err(TooLarge) => {
                self.give_up(fetch, "the report is larger than store.segment_size allows: set that higher", now)
            }
        }
    }

    /// Tries it again later, if it is not over.
    fn later(
        &self,
        fetch: &Fetch,
        wait: Option<Duration>,
        reason: &str,
        age_max: Duration,
        now: Timestamp,
    ) -> Result<Flow, PollStopped> {
        let age = now.duration_since(fetch.first_at).unsigned_abs();
        if age >= age_max || fetch.attempts >= ATTEMPTS_MAX {
            return self.give_up(fetch, &format!("{reason}, after {} tries", fetch.attempts + 1), now);
        }
        let own = LATER.0.saturating_mul(2_u32.saturating_pow(fetch.attempts)).min(LATER.1);
        let wait = wait.unwrap_or(own).max(own).mul_f64(1.0 + fastrand::f64() / 10.0);
        let (source, next_at) = (self.source.clone(), after(now, wait));
        self.transact(|transaction| transaction.delay_fetch(&source, &fetch.id, next_at))?;
        tracing::debug!(%source, fetch = %fetch.id, wait = %Span(Duration::from_secs(wait.as_secs())), "not yet fetched: {reason}");
        Ok(Flow::Go)
    }

    /// Leaves it to an operator.
    pub(super) fn give_up(&self, fetch: &Fetch, reason: &str, now: Timestamp) -> Result<Flow, PollStopped> {
        let source = &self.source;
        let digest = Sha256::new().chain_update(source.as_str()).chain_update("\n").chain_update(fetch.id.as_str());
        let letter = DeadLetter {
            id: format!("f-{}", hex::encode(&digest.finalize()[..8])),
            stage: Stage::Fetch,
            sink: None,
            source: source.clone(),
            position: fetch.position,
            reason: format!("a report ({}) could not be fetched: {reason}; redrive this to try again", fetch.id.kind()),
            attempts: fetch.attempts + 1,
            first_at: fetch.first_at,
            last_at: now,
            attempt: None,
            raw: fetch.id.as_str().into(),
        };
        tracing::warn!(%source, id = %letter.id, reason = %letter.reason, "a report of source {source} is given up, kept as dead letter {}", letter.id);
        self.transact(|transaction| {
            transaction.remove_fetch(source, &fetch.id)?;
            transaction.put_dead_letter(&letter)
        })?;
        self.metrics.deliveries(source.as_str(), "dead", 1);
        Ok(Flow::Go)
    }
}

/// Whether a report says nothing but that it is not finished.
pub(super) fn is_unfinished(outcomes: &[Outcome]) -> bool {
    !outcomes.is_empty() && outcomes.iter().all(|outcome| matches!(outcome, Outcome::NotReady))
}
