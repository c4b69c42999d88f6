//! How fast a platform may be asked: quotas as it tells them, and one pace for all keys of a group.
//!
//! Invariants: no limit is written here, all are read; a pool that is used up waits for the end of its window, so a queue that is larger
//! than its quota takes longer and never turns in a circle; chance spreads what waits for the same moment.
//!
//! Not here: asking (`session`), which key is used (`keys`).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// One quota: what is allowed in its window, and what of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// What is allowed in one window.
    pub allowed: u64,
    /// What of it is used.
    pub used: u64,
}

impl Quota {
    /// What is left.
    pub const fn remaining(self) -> u64 {
        self.allowed.saturating_sub(self.used)
    }
}

/// Quotas by their names (`api_requests_daily`).
pub type Quotas = BTreeMap<String, Quota>;

/// What VirusTotal tells of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Of the user alone.
    pub(super) user: Quotas,
    /// Of the group, which all of its keys share.
    pub(super) group: Quotas,
    /// The name of the group.
    pub(super) group_name: Option<String>,
}

impl Told {
    /// Reads an answer of `overall_quotas`.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let answer: Overall =
            serde_json::from_slice(body).map_err(|error| format!("its quotas are not readable ({error})"))?;
        let mut told = Self::default();
        for (name, Both { user, group }) in answer.data {
            if let Some(user) = user {
                told.user.insert(name.clone(), user);
            }
            if let Some(GroupQuota { allowed, used, inherited_from }) = group {
                told.group.insert(name, Quota { allowed, used });
                told.group_name = told.group_name.or(inherited_from);
            }
        }
        Ok(told)
    }

    /// What is left of each quota: what the tighter of user and group leaves.
    pub(super) fn tightest(&self) -> Quotas {
        let mut tightest = self.user.clone();
        for (name, quota) in &self.group {
            let entry = tightest.entry(name.clone()).or_insert(*quota);
            if quota.remaining() < entry.remaining() {
                *entry = *quota;
            }
        }
        tightest
    }

    /// Counts one request of ours until the platform is asked again.
    pub(super) fn count(&mut self) {
        let of_requests = |(name, quota): (&String, &mut Quota)| {
            if window_of(name).is_some() {
                quota.used = quota.used.saturating_add(1);
            }
        };
        self.user.iter_mut().for_each(of_requests);
        self.group.iter_mut().for_each(of_requests);
    }

    /// Until when nothing is left of the requests, if nothing is.
    pub(super) fn used_up_until(&self, now: Timestamp) -> Option<Timestamp> {
        let empty = |(name, quota): (&String, &Quota)| {
            let window = window_of(name)?;
            (quota.remaining() == 0).then(|| window.end(now))
        };
        self.user.iter().chain(&self.group).filter_map(empty).max()
    }

    /// Requests an hour, by the tighter of user and group.
    fn hourly(&self) -> Option<u64> {
        self.tightest().get(HOURLY).map(|quota| quota.allowed)
    }
}

const HOURLY: &str = "api_requests_hourly";

/// When a quota begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    Hour,
    /// At 00:00 UTC.
    Day,
    /// On the first, at 00:00 UTC.
    Month,
}

fn window_of(name: &str) -> Option<Window> {
    match name.strip_prefix("api_requests_")? {
        "hourly" => Some(Window::Hour),
        "daily" => Some(Window::Day),
        "monthly" => Some(Window::Month),
        _ => None,
    }
}

impl Window {
    fn end(self, now: Timestamp) -> Timestamp {
        let date = now.to_zoned(TimeZone::UTC).date();
        let midnight = |date: Option<Date>| {
            let zoned = date.and_then(|date| date.to_zoned(TimeZone::UTC).ok());
            zoned.map_or(now, |zoned| zoned.timestamp())
        };
        match self {
            Self::Hour => Timestamp::from_second((now.as_second().div_euclid(3600) + 1) * 3600).unwrap_or(now),
            Self::Day => midnight(date.tomorrow().ok()),
            Self::Month => midnight(date.last_of_month().tomorrow().ok()),
        }
    }
}

/// The next 00:00 UTC: when a daily quota of unknown size begins anew.
pub(super) fn next_day(now: Timestamp) -> Timestamp {
    Window::Day.end(now)
}

/// The pace of all keys of one group.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    /// Until when nobody asks.
    paused_until: Option<Timestamp>,
    pace: Option<Pace>,
    /// Requests that may go now, with the part of the next one.
    tokens: f64,
    filled_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    per_second: f64,
    burst: f64,
}

impl Pool {
    /// A pool without a pace.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { paused_until: None, pace: None, tokens: 1.0, filled_at: now }
    }

    /// Takes the pace from what the platform tells: its requests an hour, evenly, at most a minute's worth at once.
    pub(super) fn take_pace(&mut self, told: &Told) {
        let Some(hourly) = told.hourly() else { return };
        #[expect(clippy::cast_precision_loss, reason = "a quota is far below 2^52")]
        let per_second = hourly as f64 / 3600.0;
        let burst = (per_second * 60.0).max(1.0);
        if self.pace.is_none() {
            self.tokens = burst;
        }
        self.pace = Some(Pace { per_second, burst });
    }

    /// The platform does not tell its quotas: one request a minute, the smallest limit that was ever seen.
    pub(super) fn go_carefully(&mut self) {
        self.pace.get_or_insert(Pace { per_second: 1.0 / 60.0, burst: 1.0 });
    }

    /// Nobody asks before then; `chance`, from 0 to 1, adds up to a tenth of the wait, so that many who wait do not come back together.
    pub(super) fn pause(&mut self, wait: Duration, now: Timestamp, chance: f64) {
        let wait = wait.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 10.0);
        let until = now.checked_add(wait).unwrap_or(now);
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// How long to wait before the next request; none if it may go now, which then is counted.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Duration> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Some(until.duration_since(now).unsigned_abs());
        }
        self.paused_until = None;
        let Pace { per_second, burst } = self.pace?;
        if per_second <= 0.0 {
            return Some(EMPTY);
        }
        let passed = now.duration_since(self.filled_at).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + passed * per_second).min(burst);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64(((1.0 - self.tokens) / per_second).min(EMPTY.as_secs_f64())))
    }
}

/// Longest wait between two looks at a pool that allows nothing.
const EMPTY: Duration = Duration::from_hours(1);

#[derive(Deserialize)]
struct Overall {
    data: BTreeMap<String, Both>,
}

#[derive(Deserialize)]
struct Both {
    #[serde(default)]
    user: Option<Quota>,
    #[serde(default)]
    group: Option<GroupQuota>,
}

#[derive(Deserialize)]
struct GroupQuota {
    allowed: u64,
    used: u64,
    #[serde(default)]
    inherited_from: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn told() -> Told {
        Told::read(include_bytes!("../../tests/payloads/virustotal/v3_user_overall_quotas.json")).expect("readable")
    }

    #[test]
    fn quotas_are_what_the_tighter_of_user_and_group_leaves() {
        let told = told();
        assert_eq!(told.group_name.as_deref(), Some("example-group"));
        let left = |name: &str| told.tightest()[name].remaining();
        assert_eq!((left("api_requests_hourly"), left("api_requests_daily")), (237, 463));
        assert_eq!(left("intelligence_searches_monthly"), 0);
        assert_eq!(told.used_up_until(at("2026-03-23T12:00:00Z")), None, "what is no request holds none back");
        assert!(Told::read(b"{}").is_err());
    }

    #[test]
    fn a_used_up_quota_begins_anew_at_the_end_of_its_window() {
        let now = at("2026-02-27T22:30:00Z");
        for (name, until) in [
            ("api_requests_hourly", "2026-02-27T23:00:00Z"),
            ("api_requests_daily", "2026-02-28T00:00:00Z"),
            ("api_requests_monthly", "2026-03-01T00:00:00Z"),
        ] {
            for pool in 0..2 {
                let mut told = told();
                let quotas = if pool == 0 { &mut told.user } else { &mut told.group };
                let quota = quotas.get_mut(name).expect("there");
                quota.used = quota.allowed - 1;
                assert_eq!(told.used_up_until(now), None);
                told.count();
                assert_eq!(told.used_up_until(now), Some(at(until)), "{name}");
            }
        }
        assert_eq!(next_day(at("2026-12-31T23:59:59Z")), at("2027-01-01T00:00:00Z"));
    }

    #[test]
    fn requests_go_evenly_and_at_most_a_minutes_worth_at_once() {
        let start = at("2026-03-23T12:00:00Z");
        let mut pool = Pool::new(start);
        assert_eq!(pool.take(start), None, "without a pace nobody waits");
        pool.take_pace(&told());
        // 240 an hour: 4 a minute, one every 15 s.
        let later = start + Duration::from_hours(1);
        let at_once = (0..10).take_while(|_| pool.take(later).is_none()).count();
        assert_eq!(at_once, 4);
        assert_eq!(pool.take(later).map(|wait| wait.as_secs()), Some(15));
        assert_eq!(pool.take(later + Duration::from_secs(15)), None);
        assert_eq!(pool.take(later + Duration::from_secs(20)).map(|wait| wait.as_secs()), Some(10));
    }

    #[test]
    fn a_pause_holds_for_all_and_ends() {
        let start = at("2026-03-23T12:00:00Z");
        let mut pool = Pool::new(start);
        pool.pause(Duration::from_secs(100), start, 1.0);
        pool.pause(Duration::from_secs(10), start, 0.0);
        assert_eq!(pool.take(start).map(|wait| wait.as_secs()), Some(110), "the longer one counts, with its chance");
        assert_eq!(pool.take(start + Duration::from_secs(111)), None);
        pool.go_carefully();
        assert_eq!(pool.take(start + Duration::from_secs(112)), None, "there was one left");
        assert!(pool.take(start + Duration::from_secs(112)).expect("waits") <= Duration::from_mins(1));
    }

    #[test]
    fn a_key_that_may_ask_nothing_asks_nothing() {
        let start = at("2026-03-23T12:00:00Z");
        let mut none = told();
        none.user.insert(HOURLY.to_owned(), Quota { allowed: 0, used: 0 });
        let mut pool = Pool::new(start);
        pool.take_pace(&none);
        assert_eq!(pool.take(start), Some(EMPTY));
    }
}
