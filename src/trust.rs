//! Trust: the public keys that messages name and somebody else publishes: certificates of Amazon SNS, keys of an identity provider.
//!
//! Invariants: a key is believed only from whom the config pins, over a verified connection, never after a redirect; what a stranger
//! writes into a message can make us ask at most one question at a time, and one every two seconds in the long run, and keys that are here
//! go on working meanwhile; answers, caches and waits are bounded. A request waits for a fetch only as long as its own deadline allows,
//! and the fetch goes on for those that come after it.
//!
//! Not here: which key a message names, and whether it may (`verify`); how each publisher is asked (`trust/sns`, `trust/issuer`).

mod issuer;
mod sns;
mod web;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::event::SourceId;
use crate::tls::ClientTls;
use crate::verify::{KeyName, PublicKey, PublicKeys, SubscribeUrl, TopicArn};

use self::web::Web;

/// Whose keys a source believes, and how they are reached.
#[derive(Debug, Clone)]
pub struct TrustPlan {
    /// Who publishes them.
    pub publisher: Publisher,
    /// TLS towards them.
    pub tls: ClientTls,
}

/// Who publishes keys.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// Amazon SNS, in the regions of these topics.
    Sns(Vec<TopicArn>),
    /// The identity provider that calls itself so.
    Issuer(String),
}

/// The published keys of one source. Cheap to clone; all clones share one cache.
#[derive(Debug, Clone)]
pub struct Trust {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: SourceId,
    publisher: Publisher,
    web: Web,
    state: Mutex<State>,
    /// Where fetches run: they outlive the request that began them.
    runtime: Handle,
}

#[derive(Debug)]
struct State {
    known: HashMap<KeyName, Known>,
    /// Names that brought nothing, until when they are not asked for again, and what is said of them until then.
    missed: HashMap<KeyName, (Instant, NoKey)>,
    /// No question before this: the last one found nobody.
    rests_until: Option<Instant>,
    /// The fetch that is on its way; ends when its sender is dropped.
    under_way: Option<watch::Receiver<()>>,
    /// Questions that may still be asked now.
    allowance: f64,
    allowance_at: Instant,
    /// Whether the log knows of the trouble.
    told: bool,
    /// The latest subscriptions that were confirmed, or are being: whoever repeats such a message makes us visit nothing twice.
    confirmed: VecDeque<SubscribeUrl>,
    /// Topics of which the log was told that their subscription ended; at most those that are pinned.
    ended: HashSet<String>,
}

#[derive(Debug)]
struct Known {
    key: PublicKey,
    until: Timestamp,
}

/// Keys as a publisher gave them: each with its name, and until when it may be used.
type Found = Vec<(KeyName, PublicKey, Timestamp)>;

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// The publisher says that it has none of this name: whoever named it made it up.
    Absent,
    /// Nobody could be asked, or not now.
    NotNow,
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// The publisher says that there is nothing under this name.
    #[error("there is nothing under this name")]
    Absent,
    /// What came is none of what a publisher may give: words for the operator.
    #[error("{0}")]
    Unusable(String),
    /// Nobody answered, or with an error of its own.
    #[error("{0}")]
    Unreachable(String),
}

impl Trust {
    /// The keys of one source. Fetches run on the runtime that this is called on; nothing is fetched yet.
    pub fn new(source: &SourceId, plan: &TrustPlan) -> Self {
        let now = Instant::now();
        let state = State {
            known: HashMap::new(),
            missed: HashMap::new(),
            rests_until: None,
            under_way: None,
            allowance: FETCHES.burst,
            allowance_at: now,
            told: false,
            confirmed: VecDeque::new(),
            ended: HashSet::new(),
        };
        let shared = Shared {
            source: source.clone(),
            publisher: plan.publisher.clone(),
            web: Web::new(plan.tls.clone()),
            state: Mutex::new(state),
            runtime: Handle::current(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The keys that are here at this time, for `verify`.
    pub fn at(&self, now: Timestamp) -> impl PublicKeys + '_ {
        KeysAt { trust: self, now }
    }

    /// Brings the key, if it is not here yet; waits for it no longer than until `deadline`.
    pub async fn bring(&self, name: &KeyName, now: Timestamp, deadline: Instant) -> Result<(), NoKey> {
        loop {
            let mut under_way = match self.next(name, now) {
                Next::Here => return Ok(()),
                Next::None(none) => return Err(none),
                Next::Wait(under_way) => under_way,
            };
            // Ends with an error when the fetch is done: its sender is gone then.
            if timeout_at(deadline, under_way.changed()).await.is_err() {
                return Err(NoKey::NotNow);
            }
        }
    }

    /// What to do about this name now; begins a fetch where one may begin.
    fn next(&self, name: &KeyName, now: Timestamp) -> Next {
        let mut state = self.shared.state();
        if state.known.get(name).is_some_and(|known| known.until > now) {
            return Next::Here;
        }
        let at = Instant::now();
        if let Some((_, why)) = state.missed.get(name).filter(|(until, _)| *until > at) {
            return Next::None(*why);
        }
        if let Some(under_way) = &state.under_way {
            return Next::Wait(under_way.clone());
        }
        if state.rests_until.is_some_and(|until| until > at) || !state.may_ask(at) {
            return Next::None(NoKey::NotNow);
        }
        let (done, under_way) = watch::channel(());
        state.under_way = Some(under_way.clone());
        drop(state);
        let (shared, name) = (self.shared.clone(), name.clone());
        self.shared.runtime.spawn(async move {
            let found = tokio::time::timeout(FETCH_MAX, shared.fetch(&name, now)).await;
            let late = || Err(FetchError::Unreachable(format!("no answer within {} s", FETCH_MAX.as_secs())));
            shared.settle(&name, found.unwrap_or_else(|_| late()), now);
            drop(done);
        });
        Next::Wait(under_way)
    }

    /// Visits the URL by which SNS lets a subscription begin, in the background and a few times: SNS does not ask again by itself.
    pub fn confirm(&self, url: SubscribeUrl, topic: String) {
        let shared = self.shared.clone();
        {
            let mut state = shared.state();
            if state.confirmed.contains(&url) {
                return;
            }
            state.confirmed.truncate(CONFIRMED_MAX - 1);
            state.confirmed.push_front(url.clone());
            state.ended.remove(&topic);
        }
        self.shared.runtime.spawn(async move {
            let source = &shared.source;
            let mut pause = CONFIRM_PAUSE;
            for left in (0..CONFIRM_TRIES).rev() {
                match sns::confirm(&shared.web, &url).await {
                    Ok(()) => {
                        info!(source = %source, %topic, "source {source}: the subscription of {topic} is confirmed");
                        return;
                    }
                    Err(error) if left > 0 => debug!(source = %source, %topic, "not confirmed yet: {error}"),
                    Err(error) => {
                        // A message that comes again after this is a new try.
                        shared.state().confirmed.retain(|other| *other != url);
                        warn!(source = %source, %topic, "source {source}: the subscription of {topic} could not be confirmed, so nothing will come: {error}; let this machine reach sns.*.amazonaws.com, then choose \"Request confirmation\" of the subscription in AWS, or confirm it there by hand");
                        return;
                    }
                }
                tokio::time::sleep(pause).await;
                pause *= 4;
            }
        });
    }

    /// Tells the log, once, that SNS has ended the subscription of a topic.
    pub fn ended(&self, topic: &str) {
        let source = &self.shared.source;
        if self.shared.state().ended.insert(topic.to_owned()) {
            warn!(source = %source, %topic, "source {source}: the subscription of {topic} was ended, so nothing more will come from it: subscribe again in AWS if this was not meant");
        }
    }

    /// Asks the publisher, for `check --online`: what was found, or what to mend.
    pub async fn probe(&self, now: Timestamp) -> Result<String, String> {
        let asked = match &self.shared.publisher {
            Publisher::Sns(topics) => sns::probe(&self.shared.web, topics).await,
            Publisher::Issuer(issuer) => issuer::fetch(&self.shared.web, issuer, now)
                .await
                .map(|found| format!("{issuer} publishes {} key(s) for RS256", found.len())),
        };
        asked.map_err(|error| error.to_string())
    }
}

/// What to do about a name.
enum Next {
    Here,
    None(NoKey),
    Wait(watch::Receiver<()>),
}

impl Shared {
    async fn fetch(&self, name: &KeyName, now: Timestamp) -> Result<Found, FetchError> {
        match (&self.publisher, name) {
            (Publisher::Sns(_), KeyName::Certificate(url)) => sns::fetch(&self.web, url, now).await,
            (Publisher::Issuer(issuer), KeyName::Issued { .. }) => issuer::fetch(&self.web, issuer, now).await,
            (Publisher::Sns(_) | Publisher::Issuer(_), _) => Err(FetchError::Absent),
        }
    }

    /// Takes over what a fetch brought, and says once what is wrong.
    fn settle(&self, name: &KeyName, fetched: Result<Found, FetchError>, now: Timestamp) {
        let (at, source) = (Instant::now(), &self.source);
        let mut state = self.state();
        state.under_way = None;
        let error = match fetched {
            Ok(found) => {
                // A set of keys replaces the one before: what the publisher took out is believed no longer.
                if matches!(self.publisher, Publisher::Issuer(_)) {
                    state.known.clear();
                }
                state.take(found, now);
                if std::mem::take(&mut state.told) {
                    info!(source = %source, "source {source}: public keys can be fetched again");
                }
                if state.known.contains_key(name) {
                    return;
                }
                FetchError::Absent
            }
            Err(error) => error,
        };
        match error {
            FetchError::Absent => {
                debug!(source = %source, "a message names a key that its publisher does not have");
                state.miss(name, at, ABSENT_FOR, NoKey::Absent);
            }
            FetchError::Unusable(words) => {
                state.miss(name, at, UNUSABLE_FOR, NoKey::NotNow);
                state.tell(source, &words);
            }
            FetchError::Unreachable(words) => {
                state.rests_until = Some(at + UNREACHABLE_FOR);
                state.tell(source, &words);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete in itself, so a panic of another holder leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes one question of the allowance.
    fn may_ask(&mut self, at: Instant) -> bool {
        let passed = at.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance = passed.mul_add(FETCHES.per_second, self.allowance).min(FETCHES.burst);
        self.allowance_at = at;
        let may = self.allowance >= 1.0;
        self.allowance -= if may { 1.0 } else { 0.0 };
        may
    }

    fn take(&mut self, found: Found, now: Timestamp) {
        self.known.retain(|_, known| known.until > now);
        for (name, key, until) in found {
            if self.known.len() >= KEYS_MAX && !self.known.contains_key(&name) {
                let first = self.known.iter().min_by_key(|(_, known)| known.until).map(|(name, _)| name.clone());
                first.and_then(|name| self.known.remove(&name));
            }
            self.missed.remove(&name);
            self.known.insert(name, Known { key, until });
        }
    }

    fn miss(&mut self, name: &KeyName, at: Instant, rest: Duration, why: NoKey) {
        self.missed.retain(|_, (until, _)| *until > at);
        // Where there is no room, the allowance alone holds back whoever makes names up.
        if self.missed.len() < MISSED_MAX {
            self.missed.insert(name.clone(), (at + rest, why));
        }
    }

    fn tell(&mut self, source: &SourceId, words: &str) {
        if !std::mem::replace(&mut self.told, true) {
            warn!(source = %source, "source {source}: a public key could not be fetched, senders are answered 503 until it is: {words}");
        }
    }
}

/// The keys as of one moment: one that has run out is not there.
struct KeysAt<'t> {
    trust: &'t Trust,
    now: Timestamp,
}

impl PublicKeys for KeysAt<'_> {
    fn find(&self, name: &KeyName) -> Option<PublicKey> {
        let state = self.trust.shared.state();
        state.known.get(name).filter(|known| known.until > self.now).map(|known| known.key.clone())
    }
}

/// How often a publisher may be asked.
struct Fetches {
    per_second: f64,
    burst: f64,
}

/// SNS changes its certificate about once a year, an issuer its keys every few weeks: this is for the moment after a start with many
/// topics, and for genuine messages to get their turn among made-up ones.
const FETCHES: Fetches = Fetches { per_second: 0.5, burst: 10.0 };

/// Keys that are kept: Entra publishes about eight, SNS one a region.
const KEYS_MAX: usize = 64;

/// Names that are remembered to have brought nothing.
const MISSED_MAX: usize = 256;

/// How long a name that its publisher does not have is not asked for again. A key is published before it is used.
const ABSENT_FOR: Duration = Duration::from_mins(1);

/// How long something that is published and of no use is not looked at again.
const UNUSABLE_FOR: Duration = Duration::from_secs(30);

/// How long nobody is asked after nobody answered: senders come again in about that time.
const UNREACHABLE_FOR: Duration = Duration::from_secs(3);

/// Longest fetch, all of its questions together.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// Tries and first pause of a confirmation; each pause is four times the one before: 1 s, 4 s, 16 s, 64 s, 256 s.
const CONFIRM_TRIES: u32 = 6;
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// Confirmations that are remembered: a topic has one a subscription.
const CONFIRMED_MAX: usize = 32;

#[cfg(test)]
mod tests;
