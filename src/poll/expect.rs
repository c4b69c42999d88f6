//! Analyses that were announced and are late: the platform is asked once more, and then they are called overdue.
//!
//! Invariants: nothing is called overdue without a question, unless the platform cannot be asked; what was called overdue goes through the
//! journal, so it is told once and after any report that came before it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::answer::Answer;
use super::fetch::is_unfinished;
use super::platform::Question;
use super::{PollStopped, Poller, after};
use crate::adapter::FetchId;
use crate::delivery::{Delivery, Expectation, Wanted};
use crate::store::ledger::Expected;
use crate::store::{Draft, Kind};
use crate::verify::Proven;

/// What was asked about late analyses, by the sequence of their announcement.
#[derive(Debug, Default)]
pub(super) struct Late(HashMap<u64, Asked>);

#[derive(Debug, Clone)]
struct Asked {
    /// What the platform said.
    reason: String,
    /// Whether it said anything.
    answered: bool,
    /// Until then its answer may still be read, and the analysis reported.
    until: Timestamp,
    /// Whether it was called overdue.
    told: bool,
}

/// Late analyses of one look.
const BATCH_MAX: usize = 16;
/// How long an answer has to be read and normalized.
const GRACE: Duration = Duration::from_mins(1);
/// Longest wait for our own pace before an analysis is called overdue without a question.
const PACE_MAX: Duration = Duration::from_mins(5);

impl Poller {
    /// Asks for late analyses, and calls overdue what was asked for in vain.
    pub(super) async fn ask_for_late(&mut self, now: Timestamp) -> Result<(), PollStopped> {
        let due = self.reader.expectations_due(&self.source, now, BATCH_MAX)?;
        self.late.0.retain(|sequence, _| due.iter().any(|due| due.sequence == *sequence));
        for expected in due {
            match self.late.0.get(&expected.sequence).cloned() {
                None => {
                    if let Some(asked) = self.ask_once(&expected, now).await {
                        self.late.0.insert(expected.sequence, asked);
                    }
                }
                Some(asked) if asked.told || now < asked.until => {}
                Some(asked) => self.call_overdue(&expected, asked, now).await,
            }
        }
        Ok(())
    }

    /// When to look at late analyses again.
    pub(super) fn next_late(&self, now: Timestamp) -> Result<Option<Timestamp>, PollStopped> {
        let next = self.reader.next_expectation(&self.source, now)?;
        let due = self.reader.expectations_due(&self.source, now, BATCH_MAX)?;
        let again = due.iter().filter_map(|due| match self.late.0.get(&due.sequence) {
            // It waits for our own pace.
            None => Some(self.rests(now).unwrap_or_else(|| after(now, Duration::from_secs(1)))),
            Some(asked) => (!asked.told).then_some(asked.until.max(now)),
        });
        Ok(again.chain(next).min())
    }

    /// Asks the platform; nothing where that has to wait for a moment.
    async fn ask_once(&mut self, expected: &Expected, now: Timestamp) -> Option<Asked> {
        let in_vain = |reason: String, answered| Some(Asked { reason, answered, until: now, told: false });
        if let Some(until) = self.rests(now) {
            let state = self.state.borrow().clone();
            let is_pace = matches!(state.state, "" | "ok") && until.duration_since(now).unsigned_abs() <= PACE_MAX;
            return if is_pace { None } else { in_vain(format!("it cannot be asked: {}", state.reason), false) };
        }
        let Some((question, fetch)) = self.question_of(&expected.wanted) else {
            // Only a list can tell; what is new on it is fetched in the time that is left.
            self.rounds.hurry(now);
            let reason = "its list of recent analyses has none of this file".to_owned();
            return Some(Asked { reason, answered: true, until: after(now, GRACE), told: false });
        };
        let answer = self.session.ask(&question, now).await;
        match self.heed(answer, now) {
            Ok(Answer::Found(body)) => self.keep_late(body, fetch, now).await,
            Ok(Answer::Absent(_)) => in_vain("the platform does not know it".to_owned(), true),
            Ok(Answer::NotYet(_)) => in_vain("the platform has not finished it".to_owned(), true),
            Ok(Answer::Never(reason) | Answer::Forbidden(reason) | Answer::Misconfigured(reason)) => {
                in_vain(reason, true)
            }
            _ => {
                let state = self.state.borrow().clone();
                let is_pace = matches!(state.state, "" | "ok");
                if is_pace { None } else { in_vain(format!("it cannot be asked: {}", state.reason), false) }
            }
        }
    }

    /// Keeps what the platform answered; it has a moment to be read.
    async fn keep_late(&mut self, body: Bytes, fetch: Option<FetchId>, now: Timestamp) -> Option<Asked> {
        let proven = Proven::confirmed(body, &self.plan.origin(), fetch, None);
        let delivery = Delivery::new(proven, &self.source, self.now());
        if self.outcomes(&delivery).is_some_and(|outcomes| is_unfinished(&outcomes)) {
            let reason = "the platform has not finished it".to_owned();
            return Some(Asked { reason, answered: true, until: now, told: false });
        }
        match self.append(&delivery).await {
            Ok(Some(_)) => {
                let reason = "the platform's report is not about it, or could not be read".to_owned();
                Some(Asked { reason, answered: true, until: after(now, GRACE), told: false })
            }
            // The store takes nothing now, an overdue analysis neither.
            Ok(None) => None,
            Err(_) => {
                let reason = "the platform's report is larger than the store takes".to_owned();
                Some(Asked { reason, answered: true, until: now, told: false })
            }
        }
    }

    /// What to ask, and which report that would be; nothing where only a list can tell.
    fn question_of(&self, wanted: &str) -> Option<(Question, Option<FetchId>)> {
        let platform = self.plan.platform;
        match Wanted::of_key(wanted)? {
            Wanted::Id(id) => {
                let fetch = FetchId::new(self.plan.analysis_kind(), &id)?;
                Some((platform.report(&fetch)?, Some(fetch)))
            }
            Wanted::Sha256(hash) => Some((platform.by_hash(hash)?, None)),
        }
    }

    async fn call_overdue(&mut self, expected: &Expected, asked: Asked, now: Timestamp) {
        let overdue = Expectation::Overdue {
            sequence: expected.sequence,
            reason: asked.reason.clone(),
            answered: asked.answered,
        };
        let draft = Draft {
            kind: Kind::Expect,
            source: self.source.clone(),
            at: now,
            head: Vec::new(),
            body: serde_json::to_vec(&overdue).expect("it is plain data").into(),
            repeat: None,
        };
        if let Ok(Some(_)) = self.put(draft).await {
            self.late.0.insert(expected.sequence, Asked { told: true, ..asked });
        }
    }
}
