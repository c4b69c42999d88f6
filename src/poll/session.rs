//! Asks a platform: with the first key that may be used now, at the pace of its group, and with the next one when it is refused.
//!
//! Invariants: each key is tried at most once a question; a missing privilege changes no key; the words that leave here hold no key.
//!
//! Not here: HTTP (`client`), what an answer means (`answer`), what is asked (`fetch`, `reconcile`, `virustotal`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::answer::{Answer, judge};
use super::client::Client;
use super::config::PollPlan;
use super::keys::{KeyView, Keys};
use super::platform::{Platform, Question, quotas};
use super::quota::{Pool, Told, next_day};
use crate::event::SourceId;
use crate::secret::{Key, KeyRing};
use crate::telemetry::Metrics;

/// Everything that questions share.
pub(super) struct Session {
    platform: Platform,
    client: Client,
    keys: Keys,
    pools: BTreeMap<String, Pool>,
}

/// What one key brought.
enum Tried {
    /// An answer that another key would not change.
    Final(Answer),
    /// Another key may do better; this answer, if none does.
    Next(Answer),
}

impl Session {
    pub(super) fn new(plan: &PollPlan, ring: KeyRing) -> Self {
        let PollPlan { platform, base, user, timeout, tls, .. } = plan.clone();
        Self {
            platform,
            client: Client::new(base, platform, user, timeout, tls),
            keys: Keys::new(ring),
            pools: BTreeMap::new(),
        }
    }

    /// Asks one question.
    pub(super) async fn ask(&mut self, question: &Question, now: Timestamp) -> Answer {
        self.keys.sync(now);
        let mut best: Option<Answer> = None;
        let mut tried = Vec::new();
        // A refused key is read again once: perhaps it was replaced this minute.
        for is_fresh in [false, true] {
            if is_fresh {
                self.keys.refresh().await;
                self.keys.sync(now);
            }
            while let Some(at) = self.next_slot(&tried) {
                tried.push(hash_of(self.keys.slots[at].value()));
                match self.try_with(at, question, now).await {
                    Tried::Final(answer) => return answer,
                    Tried::Next(answer) => best = Some(better(best, answer)),
                }
            }
            if !matches!(best, None | Some(Answer::Key(_))) {
                break;
            }
        }
        match best {
            Some(answer) => answer,
            None => Answer::Key("no key can be used: check the secret and whether it is refused".to_owned()),
        }
    }

    /// How to wait until a refused or missing key may be there again.
    pub(super) fn next_probe(&self, now: Timestamp) -> Duration {
        self.keys.next_probe(now)
    }

    /// Reads the secrets again, as their ring does every few seconds.
    #[cfg(test)]
    pub(super) async fn refresh_keys(&self) {
        self.keys.refresh().await;
    }

    /// News of other keys.
    pub(super) fn key_news(&self) -> watch::Receiver<Arc<Vec<Key>>> {
        self.keys.news()
    }

    /// Whether there are keys that were not tried.
    pub(super) fn has_new_keys(&self) -> bool {
        self.keys.has_news()
    }

    /// How each key stands.
    pub(super) fn views(&self) -> Vec<KeyView> {
        self.keys.views()
    }

    /// Shows what is left of the quotas of the key that is used.
    pub(super) fn report(&self, source: &SourceId, metrics: &Metrics) {
        let Some(slot) = self.keys.slots.iter().find(|slot| slot.is_usable()) else { return };
        for (name, quota) in slot.told.tightest() {
            metrics.api_quota(source.as_str(), &name, quota.remaining());
        }
    }

    fn next_slot(&self, tried: &[u64]) -> Option<usize> {
        self.keys.slots.iter().position(|slot| slot.is_usable() && !tried.contains(&hash_of(slot.value())))
    }

    async fn try_with(&mut self, at: usize, question: &Question, now: Timestamp) -> Tried {
        if self.platform == Platform::VirusTotal
            && let Some(refused) = self.read_quotas(at, now).await
        {
            return refused;
        }
        let slot = &mut self.keys.slots[at];
        let used_up = slot.told.used_up_until(now).map(|until| until.duration_since(now).unsigned_abs());
        let pool = self.pools.entry(slot.pool()).or_insert_with(|| Pool::new(now));
        if let Some(wait) = used_up.or_else(|| pool.take(now)) {
            return Tried::Next(Answer::Wait(wait));
        }
        slot.told.count();
        let answer = self.send(at, question, now).await;
        self.act(at, answer, now)
    }

    /// What an answer means for the key and its pool.
    fn act(&mut self, at: usize, answer: Answer, now: Timestamp) -> Tried {
        let pool = self.keys.slots[at].pool();
        let pool = self.pools.entry(pool).or_insert_with(|| Pool::new(now));
        match answer {
            Answer::Key(reason) => {
                self.keys.refused(at, &reason, now);
                Tried::Next(Answer::Key(reason))
            }
            Answer::TooFast(wait) => {
                pool.pause(wait.unwrap_or(TOO_FAST), now, fastrand::f64());
                self.keys.took(at, now);
                Tried::Next(Answer::TooFast(wait))
            }
            Answer::Quota(wait) => {
                // Of several windows the platform does not say which; its quotas do, and else it is most often the day's.
                let until = self.keys.slots[at].told.used_up_until(now).unwrap_or_else(|| next_day(now));
                let wait = wait.unwrap_or_else(|| until.duration_since(now).unsigned_abs());
                pool.pause(wait, now, fastrand::f64());
                // They are read again before the next request: what we counted was too little.
                self.keys.slots[at].told_at = None;
                self.keys.took(at, now);
                Tried::Next(Answer::Quota(Some(wait)))
            }
            // Nothing of this is about the key.
            Answer::Unavailable { .. } | Answer::Tls(_) | Answer::Wait(_) => Tried::Final(answer),
            answer => {
                self.keys.took(at, now);
                Tried::Final(answer)
            }
        }
    }

    /// Reads the quotas of a VirusTotal key when they are old; an answer, where the key turned out to be of no use.
    async fn read_quotas(&mut self, at: usize, now: Timestamp) -> Option<Tried> {
        let slot = &self.keys.slots[at];
        let age = slot.told_at.map(|told_at| now.duration_since(told_at).unsigned_abs());
        if age.is_some_and(|age| age < QUOTAS_EVERY) {
            return None;
        }
        let question = quotas(slot.value());
        let answer = self.send(at, &question, now).await;
        let slot = &mut self.keys.slots[at];
        slot.told_at = Some(now);
        match answer {
            Answer::Found(body) => {
                match Told::read(&body) {
                    Ok(told) => slot.told = told,
                    Err(reason) => tracing::warn!("the quotas of an API key could not be read: {reason}"),
                }
                let pool = self.pools.entry(slot.pool()).or_insert_with(|| Pool::new(now));
                pool.take_pace(&slot.told);
                self.keys.took(at, now);
                None
            }
            Answer::Key(_) | Answer::Unavailable { .. } | Answer::Tls(_) => {
                slot.told_at = None;
                Some(self.act(at, answer, now))
            }
            // It does not tell them: the key may be good all the same.
            _ => {
                let pool = self.pools.entry(slot.pool()).or_insert_with(|| Pool::new(now));
                pool.go_carefully();
                None
            }
        }
    }

    async fn send(&mut self, at: usize, question: &Question, now: Timestamp) -> Answer {
        let key = self.keys.slots[at].value();
        let asked = self.client.ask(question, key, now).await;
        if let Ok(raw) = &asked
            && let (Some(0), Some(wait)) = (raw.remaining, raw.retry_after)
            && raw.status == 200
        {
            let pool = self.keys.slots[at].pool();
            self.pools.entry(pool).or_insert_with(|| Pool::new(now)).pause(wait, now, fastrand::f64());
        }
        without(judge(self.platform, asked), self.keys.slots[at].value())
    }
}

/// Which of two answers an operator and the loop should go by: what passes soonest. That a group is paused because of the one is no news
/// beside it.
fn better(one: Option<Answer>, other: Answer) -> Answer {
    let wait_of = |answer: &Answer| match answer {
        Answer::Wait(wait) => Some(*wait),
        Answer::TooFast(wait) => Some(wait.unwrap_or(TOO_FAST)),
        Answer::Quota(wait) => Some(wait.unwrap_or_default()),
        _ => None,
    };
    let Some(one) = one else { return other };
    match (wait_of(&one), wait_of(&other)) {
        (Some(before), Some(after)) if before <= after => one,
        (Some(_), None) => one,
        _ => other,
    }
}

/// A platform that repeats our key in its words does not get it into our log.
pub(super) fn without(answer: Answer, key: &[u8]) -> Answer {
    let Ok(key) = std::str::from_utf8(key.trim_ascii()) else { return answer };
    let hide = |words: String| if key.is_empty() { words } else { words.replace(key, "[key]") };
    match answer {
        Answer::Absent(words) => Answer::Absent(hide(words)),
        Answer::Never(words) => Answer::Never(hide(words)),
        Answer::Key(words) => Answer::Key(hide(words)),
        Answer::Forbidden(words) => Answer::Forbidden(hide(words)),
        Answer::Misconfigured(words) => Answer::Misconfigured(hide(words)),
        Answer::Unavailable { reason, retry_after } => Answer::Unavailable { reason: hide(reason), retry_after },
        other => other,
    }
}

/// Tells values apart that were tried, without keeping them.
fn hash_of(value: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}

/// Where the platform does not say how long: its window is a minute.
const TOO_FAST: Duration = Duration::from_mins(1);
/// How often quotas are read again: others draw on them, too.
const QUOTAS_EVERY: Duration = Duration::from_mins(10);
