//! Splunk's HTTP Event Collector: batches of envelopes by HTTP, several endpoints, several tokens, indexer acknowledgements.
//!
//! Invariants: a batch counts as delivered only when a HEC said so, and with `acks` only when the indexers acknowledged it; what is under
//! way is not sent again because another batch failed; a token goes to the configured endpoints only. Requests overlap, so a later batch can
//! be indexed before an earlier one: Splunk orders by `time`.
//!
//! Not here: the envelope (`format`), what an answer means (`answer`), the way of one batch (`session`), splitting a refused batch (`deliver`).

mod acks;
mod answer;
#[cfg(test)]
mod collector;
mod endpoint;
mod fit;
mod flight;
mod http;
mod pace;
#[cfg(test)]
mod promise;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use self::fit::Fit;
use self::flight::{Flight, Report, Request};
use self::session::Session;
use super::{Batch, Render, Rendered, Settled, Sink, Stop};
use crate::event::{Name, Position};
use crate::format::{Style, hec};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::{Problem, Span};
use crate::tls::{ClientTls, ClientTlsConfig};

sink_config! {
    /// Splunk's HTTP Event Collector.
    pub struct HecConfig {
        /// The collectors, `https://host:8088`; the path `/services/collector/event` is added. One that fails rests, the others go on.
        pub endpoints: Vec<String>,
        /// References to the tokens. When one is refused the next is tried, so a new token can be added before the old one ends.
        pub tokens: Vec<SecretRef>,
        /// Whether an event is delivered when the collector took it (`off`), when the indexers acknowledged it (`required`), or the latter where the token has acknowledgements (`auto`).
        #[serde(default)]
        pub acks: Acks,
        /// Index for all events, instead of the token's default.
        pub index: Option<String>,
        /// Host in the envelope, instead of our host name.
        pub host: Option<String>,
        /// Whether requests are compressed with gzip; default true.
        pub compression: Option<bool>,
        /// Longest wait for an answer, 1s to 5m; default 30s.
        pub timeout: Option<Span>,
        /// Most batches on the way at once, 1 to 256, of which at most 64 are not answered yet; default 4. With acknowledgements a batch is on the way until it is acknowledged: then the default is 256, of which 4 are not answered yet.
        #[schemars(range(min = 1, max = 256))]
        pub in_flight_max: Option<u32>,
        /// TLS to all endpoints. `server_name` is what their certificates have to carry; what they are asked for stays the URL's host.
        #[serde(default)]
        pub tls: ClientTlsConfig,
    }
}

/// When an event counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// When the indexers acknowledged it, where the answer offers that; else when the collector took it.
    #[default]
    Auto,
    /// Only when the indexers acknowledged it.
    Required,
    /// When the collector took it: it can still lose it before it is indexed.
    Off,
}

/// The size that Splunk's own exporters use.
pub(super) const BATCH: Batch = Batch { events_max: 500, bytes_max: 1 << 20, wait_max: Duration::from_secs(1) };

/// A valid config of a HEC sink.
#[derive(Debug, Clone)]
pub struct HecPlan {
    /// Scheme, host, port and what stands before `/services/collector`, without a slash at the end.
    endpoints: Vec<String>,
    tokens: Vec<SecretRef>,
    acks: Acks,
    index: Option<String>,
    host: Option<String>,
    compression: bool,
    timeout: Duration,
    /// Most batches on the way.
    in_flight_max: usize,
    /// Most of them that no collector has taken yet: those are in memory.
    posts_max: usize,
    tls: ClientTls,
    waits: Waits,
}

/// How long this sink waits for what; tests wait less.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// First and longest wait between two questions for one acknowledgement; each is twice the one before.
    ack_first: Duration,
    ack_last: Duration,
    /// Least time between two questions on a channel.
    ack_gap: Duration,
    /// How long no acknowledgement may come while some are due, until the sink's state says so.
    ack_silence: Duration,
    /// When a batch is sent again because nobody acknowledged it.
    ack_max: Duration,
    /// The same after an answer was lost in which the acknowledgement may have been.
    ack_doubt: Duration,
    /// How long no acknowledgements are expected of a collector that said that the token has none.
    acks_off: Duration,
    /// First and longest rest of a collector that failed.
    rest_first: Duration,
    rest_last: Duration,
    /// How often tokens are read again while all are refused.
    tokens_every: Duration,
}

impl Waits {
    /// The real ones. Splunk advises to take for lost what is not acknowledged after 5 minutes.
    const REAL: Self = Self {
        ack_first: Duration::from_secs(1),
        ack_last: Duration::from_secs(10),
        ack_gap: Duration::from_millis(500),
        ack_silence: Duration::from_secs(30),
        ack_max: Duration::from_mins(5),
        ack_doubt: Duration::from_mins(1),
        acks_off: Duration::from_mins(10),
        rest_first: Duration::from_secs(1),
        rest_last: Duration::from_secs(30),
        tokens_every: Duration::from_secs(1),
    };
}

impl HecConfig {
    pub(super) fn plan(self, key: &str) -> Result<HecPlan, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut endpoints = Vec::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            match base_of(endpoint) {
                Ok(base) => endpoints.push(base),
                Err(message) => problems.push(Problem::new(format!("{key}.endpoints[{at}]"), message)),
            }
        }
        if self.endpoints.is_empty() {
            problems.push(Problem::new(format!("{key}.endpoints"), "name at least one, like \"https://splunk:8088\""));
        }
        if self.tokens.is_empty() {
            problems.push(Problem::new(format!("{key}.tokens"), "name at least one, like \"env:HEC_TOKEN\""));
        }
        for (at, token) in self.tokens.iter().enumerate() {
            if let Err(error) = token.check() {
                problems.push(Problem::new(format!("{key}.tokens[{at}]"), error.to_string()));
            }
        }
        if self.index.as_deref().is_some_and(|index| !is_index_name(index)) {
            problems.push(Problem::new(
                format!("{key}.index"),
                "an index has a-z, 0-9, _ and -, and begins with a letter or digit",
            ));
        }
        if !self.tls.is_default() && endpoints.iter().all(|base| base.starts_with("http://")) {
            problems.push(Problem::new(
                format!("{key}.tls"),
                "no endpoint uses TLS: write \"https://...\", or remove this table",
            ));
        }
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        if !(Duration::from_secs(1)..=Duration::from_mins(5)).contains(&timeout) {
            problems.push(Problem::new(format!("{key}.timeout"), "use \"1s\" to \"5m\""));
        }
        let own = self.in_flight_max.map(|max| max as usize);
        if own.is_some_and(|own| !(1..=IN_FLIGHT_MAX).contains(&own)) {
            problems.push(Problem::new(format!("{key}.in_flight_max"), "use 1 to 256"));
        }
        let in_flight_max = own.unwrap_or(if self.acks == Acks::Off { POSTS } else { IN_FLIGHT_MAX });
        match self.tls.plan(&format!("{key}.tls")) {
            Ok(tls) if problems.is_empty() => Ok(HecPlan {
                endpoints,
                tokens: self.tokens,
                acks: self.acks,
                index: self.index,
                host: self.host,
                compression: self.compression.unwrap_or(true),
                timeout,
                in_flight_max,
                posts_max: own.unwrap_or(POSTS).min(POSTS_MAX),
                tls,
                waits: Waits::REAL,
            }),
            tls => {
                problems.extend(tls.err().into_iter().flatten());
                Err(problems)
            }
        }
    }
}

/// What stands before `/services/collector` in an endpoint.
fn base_of(endpoint: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("\"{endpoint}\" is no endpoint ({why}): write it like \"https://splunk:8088\"");
    if endpoint.contains('@') {
        // Not shown: a password may stand there.
        return Err("an endpoint holds no user or password: the token goes into `tokens`".to_owned());
    }
    let url = Url::parse(endpoint).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it needs https and a host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("no query and no fragment"));
    }
    let base = url.as_str().trim_end_matches('/');
    let base = base.strip_suffix("/event").unwrap_or(base);
    Ok(base.strip_suffix("/services/collector").unwrap_or(base).to_owned())
}

fn is_index_name(index: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    index.bytes().next().is_some_and(word) && index.bytes().all(|b| word(b) || matches!(b, b'_' | b'-'))
}

impl HecPlan {
    pub(super) fn secrets(&self) -> Vec<SecretRef> {
        self.tokens.clone()
    }

    pub(super) fn render(&self, style: Style) -> Render {
        let style = self.host.as_deref().map_or(style, Style::new);
        let index = self.index.clone();
        Box::new(move |event, out| hec::render(event, &style, index.as_deref(), out))
    }

    pub(super) fn build(self, name: &Name, tokens: KeyRing) -> HecSink {
        HecSink {
            slots: Arc::new(Semaphore::new(self.posts_max)),
            plan: Arc::new(self),
            name: name.clone(),
            tokens,
            session: None,
            changed: Arc::new(Notify::new()),
            flights: VecDeque::new(),
            under_way: Vec::new(),
            careful_to: Position::default(),
            suspects: BTreeSet::new(),
            fit: Fit::new(),
            silence_told_at: None,
        }
    }
}

/// A Splunk HTTP Event Collector.
#[derive(Debug)]
pub(super) struct HecSink {
    plan: Arc<HecPlan>,
    name: Name,
    tokens: KeyRing,
    session: Option<Arc<Session>>,
    /// One for each request that may wait to be taken.
    slots: Arc<Semaphore>,
    /// Some request was taken, or ended.
    changed: Arc<Notify>,
    /// The batches that `deliver` waits for, in order of their positions.
    flights: VecDeque<Flight>,
    /// Requests whose events are not all settled. They outlast a rewind: when one batch fails, what the collector has of the others
    /// is not sent again.
    under_way: Vec<Arc<Request>>,
    /// Up to here something was refused: what is sent again of it goes one request after the other, because a collector may index what
    /// stands before an event that it refuses, each time.
    careful_to: Position,
    /// Events that a collector took and nobody acknowledged: sent again, they say so.
    suspects: BTreeSet<Position>,
    /// What was learned about the size of a batch.
    fit: Fit,
    /// When the state last said that no acknowledgement comes.
    silence_told_at: Option<Instant>,
}

#[async_trait]
impl Sink for HecSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.flights.clear();
        self.forget_failed();
        self.under_way.retain(|request| request.through() > from);
        match &self.session {
            Some(session) => session.renew(true)?,
            None => self.session = Some(Arc::new(Session::new(&self.plan, &self.name, self.tokens.clone())?)),
        }
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let session = self.session.clone().ok_or_else(|| Stop::unavailable("the sink is not open"))?;
        session.renew(false)?;
        let (from, through) = (first.position, last.position);
        self.forget_failed();
        let near: Vec<&Arc<Request>> = self.under_way.iter().filter(|request| request.touches(from, through)).collect();
        let (mut adopted, mut positions, mut body) = (Vec::<Arc<Request>>::new(), Vec::new(), Vec::new());
        for rendered in batch {
            if let Some(known) = near.iter().find(|request| request.holds(rendered.position)) {
                if !adopted.iter().any(|one| Arc::ptr_eq(one, known)) {
                    adopted.push(Arc::clone(known));
                }
            } else {
                positions.push(rendered.position);
                if self.suspects.contains(&rendered.position) {
                    hec::write_suspect(&rendered.body, &mut body);
                } else {
                    body.extend_from_slice(&rendered.body);
                }
            }
        }
        let mut flight = Flight { from, through, is_void: false, own: None, adopted };
        if !positions.is_empty() {
            let slots = if from <= self.careful_to { self.plan.posts_max } else { 1 };
            let slots = u32::try_from(slots).expect("at most 64");
            let slot = Arc::clone(&self.slots).acquire_many_owned(slots).await.expect("it is never closed");
            flight.is_void = self.flights.iter().any(|flight| flight.failure().is_some());
            if !flight.is_void {
                let request = self.start(session, positions, body, slot);
                self.under_way.push(Arc::clone(&request));
                flight.own = Some(request);
            }
        }
        self.flights.push_back(flight);
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        loop {
            if let Some(settled) = self.news() {
                return settled;
            }
            let silent_at = self.silent_at();
            tokio::select! {
                () = self.changed.notified() => {}
                // Never reached where nothing waits.
                () = sleep_until(silent_at.unwrap_or_else(Instant::now)), if silent_at.is_some() => return Ok(self.silence()),
            }
        }
    }

    async fn probe(&mut self) -> Result<(), Stop> {
        self.open(Position::default()).await?;
        let session = self.session.clone().expect("it was just opened");
        session.probe().await
    }

    async fn mended(&mut self) {
        match self.session.clone() {
            Some(session) => session.has_other_tokens().await,
            None => std::future::pending().await,
        }
    }

    async fn close(&mut self, _grace: Duration) {
        // What is not settled by now is sent again after the restart, whatever becomes of it.
        self.flights.clear();
        self.under_way.clear();
        self.session = None;
    }

    fn in_flight_max(&self) -> usize {
        self.session.as_ref().map_or(1, |session| session.in_flight_max())
    }

    fn batch_bytes_max(&self) -> usize {
        self.fit.bytes_max()
    }
}

impl HecSink {
    fn start(
        &self,
        session: Arc<Session>,
        positions: Vec<Position>,
        body: Vec<u8>,
        slot: OwnedSemaphorePermit,
    ) -> Arc<Request> {
        let mut report = Report { way: Arc::default(), changed: Arc::clone(&self.changed), slot: Some(slot) };
        let (way, bytes) = (Arc::clone(&report.way), body.len());
        let task = tokio::spawn(async move {
            let outcome = session.deliver(body, &mut report).await;
            report.is(outcome);
        });
        Arc::new(Request { positions, bytes, way, task: task.abort_handle() })
    }

    /// What there is to say now: that the oldest batch was delivered, or that any one failed.
    fn news(&mut self) -> Option<Result<Settled, Stop>> {
        let front = self.flights.front()?;
        if front.is_delivered() {
            let through = front.through;
            front.own.iter().for_each(|own| self.fit.taken(own.bytes));
            self.flights.pop_front();
            self.under_way.retain(|request| request.through() > through);
            // What comes next lies behind it.
            self.suspects = self.suspects.split_off(&through);
            return Some(Ok(Settled::Through(through)));
        }
        let failure = self.flights.iter().find_map(Flight::failure)?;
        if let Ok(Settled::Refused { through, .. }) = &failure {
            self.careful_to = self.careful_to.max(*through);
        }
        self.flights.clear();
        self.forget_failed();
        Some(failure)
    }

    /// Forgets the requests that failed, but not what they teach.
    fn forget_failed(&mut self) {
        for failed in self.under_way.extract_if(.., |request| request.has_failed()) {
            if failed.is_too_large() {
                self.fit.refused(failed.bytes);
            }
            if failed.taken_at().is_some() {
                self.suspects.extend(&failed.positions);
            }
        }
    }

    /// Since when acknowledgements are due and none came, and how many.
    fn waits_since(&self) -> Option<(Instant, usize)> {
        let waiting = || self.under_way.iter().filter(|request| request.outcome().is_none());
        let taken_at = waiting().filter_map(|request| request.taken_at());
        let (oldest, count) = (taken_at.clone().min()?, taken_at.count());
        Some((oldest.max(self.session.as_ref()?.acknowledged_at()), count))
    }

    /// When to say that no acknowledgement comes.
    fn silent_at(&self) -> Option<Instant> {
        let (since, _) = self.waits_since()?;
        Some(self.silence_told_at.map_or(since, |told| told.max(since)) + self.plan.waits.ack_silence)
    }

    fn silence(&mut self) -> Settled {
        self.silence_told_at = Some(Instant::now());
        let (since, count) = self.waits_since().unwrap_or((Instant::now(), 0));
        let (batches, seconds) = (if count == 1 { "batch" } else { "batches" }, since.elapsed().as_secs());
        Settled::Silent {
            reason: format!(
                "the collector has not acknowledged {count} {batches} for {seconds} s: are its indexers well? What is not acknowledged after {} is sent again",
                Span(self.plan.waits.ack_max)
            ),
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// Enough that the network's round trip does not show; each costs a batch of memory. It is also what a new session begins with.
const POSTS: usize = 4;
const POSTS_MAX: usize = 64;
/// Indexers acknowledge after seconds: this many batches of 500 in 10 s are over 10,000 events/s. Each costs 16 bytes an event, no body.
const IN_FLIGHT_MAX: usize = 256;
