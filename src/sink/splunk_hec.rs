//! Splunk's HTTP Event Collector: batches of envelopes by HTTP, several endpoints, several tokens, indexer acknowledgements.
//!
//! Invariants: a batch counts as delivered only when a HEC said so, and with `acks` only when the indexers acknowledged it; the
//! channel is new after each trouble, so an acknowledgement of an earlier try is never taken for one of this; a token goes to the
//! configured endpoints only: no redirects, no proxy from the environment. Requests overlap, so a later batch can be indexed
//! before an earlier one: Splunk orders by `time`.
//!
//! Not here: the envelope (`format`), what an answer means (`answer`), splitting a refused batch (`deliver`).

mod answer;
mod session;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use serde::Deserialize;
use tokio::task::JoinHandle;

use self::session::{Outcome, Session};
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
        /// Most batches on the way at once, 1 to 64; default 4. With acknowledgements a batch is on the way until it is acknowledged.
        #[schemars(range(min = 1, max = 64))]
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
    in_flight_max: usize,
    tls: ClientTls,
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
        let in_flight_max = self.in_flight_max.map_or(IN_FLIGHT, |max| max as usize);
        if !(1..=IN_FLIGHT_MAX).contains(&in_flight_max) {
            problems.push(Problem::new(format!("{key}.in_flight_max"), "use 1 to 64"));
        }
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
                tls,
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
        HecSink { plan: Arc::new(self), name: name.clone(), tokens, session: None, flights: VecDeque::new() }
    }
}

/// A Splunk HTTP Event Collector.
#[derive(Debug)]
pub(super) struct HecSink {
    plan: Arc<HecPlan>,
    name: Name,
    tokens: KeyRing,
    session: Option<Arc<Session>>,
    /// Batches on the way, in order of their positions.
    flights: VecDeque<Flight>,
}

/// A batch on the way.
#[derive(Debug)]
struct Flight {
    positions: Vec<Position>,
    outcome: JoinHandle<Outcome>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.outcome.abort();
    }
}

#[async_trait]
impl Sink for HecSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.flights.clear();
        self.session = None;
        self.session = Some(Arc::new(Session::new(&self.plan, &self.name, self.tokens.clone())?));
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        if batch.is_empty() {
            return Ok(());
        }
        let session = self.session()?;
        let mut body = Vec::with_capacity(batch.iter().map(|rendered| rendered.body.len()).sum());
        for rendered in batch {
            body.extend_from_slice(&rendered.body);
        }
        let outcome = tokio::spawn(async move { session.deliver(body).await });
        self.flights.push_back(Flight { positions: batch.iter().map(|rendered| rendered.position).collect(), outcome });
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        let Some(front) = self.flights.front_mut() else { return std::future::pending().await };
        let outcome = (&mut front.outcome).await;
        let flight = self.flights.pop_front().expect("it was just looked at");
        let outcome = outcome.unwrap_or_else(|_| {
            Outcome::Stop(Stop::unavailable("the request ended in a fault of ours; sending it again"))
        });
        let (from, through) = (flight.positions[0], flight.positions[flight.positions.len() - 1]);
        match outcome {
            Outcome::Delivered => Ok(Settled::Through(through)),
            Outcome::Refused { event, reason } => {
                self.flights.clear();
                let suspect = event.and_then(|event| flight.positions.get(event).copied());
                Ok(Settled::Refused { from, through, suspect, reason })
            }
            Outcome::Stop(stop) => {
                self.flights.clear();
                Err(stop)
            }
        }
    }

    async fn probe(&mut self) -> Result<(), Stop> {
        self.open(Position::default()).await?;
        self.session()?.probe().await
    }

    async fn close(&mut self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        for flight in &mut self.flights {
            // Answers that come too late only mean that these events are sent again after the restart.
            drop(tokio::time::timeout_at(deadline, &mut flight.outcome).await);
        }
        self.flights.clear();
        self.session = None;
    }

    fn in_flight_max(&self) -> usize {
        self.plan.in_flight_max
    }
}

impl HecSink {
    /// The session; with new TLS files a new one, which old requests do not disturb.
    fn session(&mut self) -> Result<Arc<Session>, Stop> {
        let session = self.session.as_ref().ok_or_else(|| Stop::unavailable("the sink is not open"))?;
        if session.files_changed(&self.plan) {
            self.session = Some(Arc::new(Session::new(&self.plan, &self.name, self.tokens.clone())?));
        }
        Ok(Arc::clone(self.session.as_ref().expect("it was just there")))
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// Enough that the network's round trip does not show; each costs a batch of memory.
const IN_FLIGHT: usize = 4;
const IN_FLIGHT_MAX: usize = 64;
