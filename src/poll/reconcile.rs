//! Finished analyses whose callback was lost: the platform's list of recent ones is read in rounds, and what is not known is fetched, or
//! kept where the list holds the reports themselves.
//!
//! A round goes back an hour before the one before it, because a list is ordered by when an analysis was sent in and not by when it ended.
//! Once an hour, and after a start, it goes back as far as `look_back`.
//!
//! Invariants: what is known is neither fetched nor stored again, whichever way it came first; a round that failed is begun anew; a list
//! that never ends is given up.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::config::PollPlan;
use super::platform::Page;
use super::{Flow, PollStopped, Poller, TooLarge, after};
use crate::adapter::Outcome;
use crate::delivery::{Delivery, Mark};
use crate::event::uid_of;
use crate::store::ledger::{Fetch, Put};
use crate::verify::Proven;

/// The rounds of one source.
#[derive(Debug)]
pub(super) struct Rounds {
    next_at: Timestamp,
    /// When to go back as far as `look_back` again.
    deep_at: Timestamp,
    /// Everything that ended before then was seen.
    complete_to: Option<Timestamp>,
    walk: Option<Walk>,
    /// Pages that were stored or found to hold nothing new.
    pages: VecDeque<[u8; 32]>,
}

/// A round on its way.
#[derive(Debug, Clone)]
struct Walk {
    began: Timestamp,
    since: Timestamp,
    is_deep: bool,
    cursor: Option<String>,
    pages: u32,
}

/// How much earlier than the round before a round begins.
const OVERLAP: Duration = Duration::from_hours(1);
const DEEP_EVERY: Duration = Duration::from_hours(1);
/// Pages of one look: between two looks the other questions get their turn.
const PAGES_EACH: u32 = 5;
/// Pages of one round: a hundred entries each.
const PAGES_MAX: u32 = 500;
/// How long a list rests that the platform does not give us: waiting alone mends nothing there.
pub(super) const HOLD: Duration = Duration::from_hours(1);
/// Hashes of pages that are remembered: those of a deep round.
const PAGES_SEEN_MAX: usize = PAGES_MAX as usize;

impl Rounds {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { next_at: now, deep_at: now, complete_to: None, walk: None, pages: VecDeque::new() }
    }

    /// When the next round is due.
    pub(super) fn next(&self, plan: &PollPlan) -> Option<Timestamp> {
        plan.reconcile.map(|_| if self.walk.is_some() { Timestamp::MIN } else { self.next_at })
    }

    /// The next round begins now: somebody waits for a result.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.next_at = self.next_at.min(now);
    }

    /// The round on its way, or a new one where it is time.
    fn walk(&mut self, now: Timestamp, look_back: Duration) -> Option<Walk> {
        if let Some(walk) = &self.walk {
            return Some(walk.clone());
        }
        if now < self.next_at {
            return None;
        }
        let back = |at: Timestamp, by: Duration| at.checked_sub(by).unwrap_or(Timestamp::UNIX_EPOCH);
        let (is_deep, since) = match self.complete_to {
            Some(to) if now < self.deep_at => (false, back(to, OVERLAP)),
            _ => (true, back(now, look_back)),
        };
        Some(Walk { began: now, since, is_deep, cursor: None, pages: 0 })
    }

    fn finish(&mut self, walk: &Walk, every: Duration) {
        self.walk = None;
        self.complete_to = Some(walk.began);
        self.next_at = after(walk.began, every);
        if walk.is_deep {
            self.deep_at = after(walk.began, DEEP_EVERY);
        }
    }

    fn abandon(&mut self, now: Timestamp, wait: Duration) {
        self.walk = None;
        self.next_at = after(now, wait);
    }

    /// Whether this very page was looked at before; it is from now on.
    pub(super) fn knows_page(&mut self, body: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(body).into();
        if self.pages.contains(&hash) {
            return true;
        }
        self.pages.push_back(hash);
        if self.pages.len() > PAGES_SEEN_MAX {
            self.pages.pop_front();
        }
        false
    }

    fn forget_page(&mut self) {
        self.pages.pop_back();
    }
}

impl Poller {
    /// Goes on with a round, or begins one.
    pub(super) async fn reconcile_due(&mut self, now: Timestamp) -> Result<Flow, PollStopped> {
        let Some(every) = self.plan.reconcile else { return Ok(Flow::Go) };
        let Some(mut walk) = self.rounds.walk(now, every.look_back) else { return Ok(Flow::Go) };
        for _ in 0..PAGES_EACH {
            let Some(question) = self.plan.platform.list(walk.since, walk.cursor.as_deref()) else {
                return Ok(Flow::Go);
            };
            let answer = self.session.ask(&question, now).await;
            let body = match self.heed(answer, now) {
                Ok(Answer::Found(body)) => body,
                Ok(_) => {
                    self.rounds.abandon(now, HOLD);
                    return Ok(Flow::Go);
                }
                Err(flow) => {
                    self.rounds.walk = Some(walk);
                    return Ok(flow);
                }
            };
            let page = match self.plan.platform.read_list(&body, walk.since, walk.cursor.as_deref()) {
                Ok(page) => page,
                Err(reason) => {
                    self.tell("misconfigured", &reason);
                    self.rounds.abandon(now, HOLD);
                    return Ok(Flow::Go);
                }
            };
            if self.take_list(&page, body, now).await? == Flow::Rest {
                // Not walked on: this page is asked for again.
                self.rounds.walk = Some(walk);
                return Ok(Flow::Rest);
            }
            walk.pages += 1;
            let Page { is_old, next, .. } = page;
            if is_old || next.is_none() || next == walk.cursor || walk.pages >= PAGES_MAX {
                self.rounds.finish(&walk, every.every);
                return Ok(Flow::Go);
            }
            walk.cursor = next;
        }
        self.rounds.walk = Some(walk);
        Ok(Flow::Go)
    }

    /// Asks for the reports of a page that are not known, or keeps the page where it holds the reports.
    async fn take_list(&mut self, page: &Page, body: Bytes, now: Timestamp) -> Result<Flow, PollStopped> {
        if page.is_whole {
            return self.keep_page(body, None).await;
        }
        let known = self.reader.known_reports(&self.source, &page.reports)?;
        let new: Vec<_> = page.reports.iter().filter(|id| !known.contains(*id)).collect();
        if new.is_empty() {
            return Ok(Flow::Go);
        }
        let (source, position) = (self.source.clone(), self.ledger.head().borrow().position);
        tracing::debug!(%source, new = new.len(), "finished analyses of which nothing was heard");
        self.transact(|transaction| {
            for id in new {
                let fetch = Fetch { id: id.clone(), position, first_at: now, next_at: now, attempts: 0 };
                if transaction.put_fetch(&source, &fetch)? == Put::Full {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(Flow::Go)
    }

    /// Keeps a page of reports, if something on it is new.
    pub(super) async fn keep_page(&mut self, body: Bytes, mark: Option<Mark>) -> Result<Flow, PollStopped> {
        if self.rounds.knows_page(&body) {
            return Ok(Flow::Go);
        }
        let delivery =
            Delivery::new(Proven::confirmed(body, &self.plan.origin(), None, mark), &self.source, self.now());
        if !self.is_news(&delivery)? {
            return Ok(Flow::Go);
        }
        match self.append(&delivery).await {
            Ok(Some(_)) => Ok(Flow::Go),
            Ok(None) => {
                self.rounds.forget_page();
                Ok(Flow::Rest)
            }
            Err(TooLarge) => {
                self.tell("misconfigured", "a page is larger than store.segment_size allows: set that higher");
                Ok(Flow::Go)
            }
        }
    }

    /// Whether a page says something that is not known: a finding without an identity, or with one that nobody claimed, or what cannot be
    /// read.
    fn is_news(&self, delivery: &Delivery) -> Result<bool, PollStopped> {
        let Some(outcomes) = self.outcomes(delivery) else { return Ok(true) };
        let mut uids = Vec::new();
        for outcome in &outcomes {
            match outcome {
                Outcome::Verdict(finding) => match uid_of(&self.source, finding) {
                    Some(uid) => uids.push(uid),
                    None => return Ok(true),
                },
                Outcome::Pointer(_) => return Ok(true),
                Outcome::NotReady | Outcome::Job | Outcome::Request | Outcome::Ignore => {}
            }
        }
        if uids.is_empty() {
            return Ok(false);
        }
        self.transact(|transaction| transaction.knows_all(&uids)).map(|known| !known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_774_267_200 + 60 * minute).expect("in range")
    }

    #[test]
    fn a_round_goes_back_an_hour_and_once_an_hour_as_far_as_it_may() {
        let (every, look_back) = (Duration::from_mins(5), Duration::from_hours(24));
        let mut rounds = Rounds::new(at(0));
        let mut walked = Vec::new();
        for minute in [0, 3, 5, 10, 59, 60, 65] {
            if let Some(walk) = rounds.walk(at(minute), look_back) {
                let back = walk.began.duration_since(walk.since).as_mins();
                walked.push((minute, back));
                rounds.finish(&walk, every);
            }
        }
        assert_eq!(walked, [(0, 1440), (5, 65), (10, 65), (59, 109), (65, 1440)]);
        rounds.abandon(at(65), HOLD);
        assert!(rounds.walk(at(120), look_back).is_none());
        rounds.hurry(at(121));
        assert!(rounds.walk(at(121), look_back).is_some());
    }

    #[test]
    fn a_page_is_known_once_it_was_looked_at_and_the_memory_is_bounded() {
        let mut rounds = Rounds::new(at(0));
        assert!(!rounds.knows_page(b"a"));
        assert!(rounds.knows_page(b"a"));
        for number in 0..PAGES_SEEN_MAX {
            assert!(!rounds.knows_page(&number.to_be_bytes()));
        }
        assert!(!rounds.knows_page(b"a"));
        assert_eq!(rounds.pages.len(), PAGES_SEEN_MAX);
    }
}
