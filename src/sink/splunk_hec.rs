//! Splunk's HTTP Event Collector: batches of envelopes by HTTP, several endpoints, several tokens, indexer acknowledgements.
//!
//! Invariants: a batch counts as delivered only when a HEC said so, and with `acks` only when the indexers acknowledged it; the
//! channel is new after each trouble, so an acknowledgement of an earlier try is never taken for one of this; a token goes to the
//! configured endpoints only: no redirects, no proxy from the environment. Requests overlap, so a later batch can be indexed
//! before an earlier one: Splunk orders by `time`.
//!
//! Not here: the envelope (`format`), what an answer means (`answer`), splitting a refused batch (`deliver`).

mod answer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use rustls::RootCertStore;
use serde::Deserialize;
use tokio::task::JoinHandle;

use self::answer::{Acked, Answer, judge, judge_ack};
use super::{Batch, Render, Rendered, Settled, Sink, Stop, root_cause};
use crate::event::{Name, Position};
use crate::format::{Style, hec};
use crate::secret::{Key, KeyRing, SecretRef};
use crate::setting::{Problem, Span};
use crate::tls::{self, ClientTls, ClientTlsConfig, Stamp};

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

/// How the delivery of a batch ended.
#[derive(Debug)]
enum Outcome {
    Delivered,
    Refused { event: Option<usize>, reason: String },
    Stop(Stop),
}

/// Everything that requests share between two openings.
#[derive(Debug)]
struct Session {
    plan: Arc<HecPlan>,
    name: Name,
    client: Client,
    tokens: KeyRing,
    /// GUID that our acknowledgements are counted under.
    channel: String,
    endpoints: Vec<Endpoint>,
    /// Endpoint of the next batch.
    next: AtomicUsize,
    files: Mutex<(Stamp, Instant)>,
}

/// A collector and its breaker.
#[derive(Debug)]
struct Endpoint {
    base: String,
    /// Until when others go first.
    rests_until: Mutex<Option<Instant>>,
}

/// A batch that a collector took, and what to ask it.
struct Taken<'a> {
    endpoint: &'a Endpoint,
    token: HeaderValue,
    ack_id: Option<u64>,
}

impl Session {
    fn new(plan: &Arc<HecPlan>, name: &Name, tokens: KeyRing) -> Result<Self, Stop> {
        let files = (plan.tls.stamp(), Instant::now());
        let client = client(plan)?;
        let endpoint = |base: &String| Endpoint { base: base.clone(), rests_until: Mutex::new(None) };
        Ok(Self {
            plan: Arc::clone(plan),
            name: name.clone(),
            client,
            tokens,
            channel: guid(),
            endpoints: plan.endpoints.iter().map(endpoint).collect(),
            next: AtomicUsize::new(0),
            files: Mutex::new(files),
        })
    }

    /// Whether a TLS file changed; looked up at most every [`FILES_EVERY`].
    fn files_changed(&self, plan: &HecPlan) -> bool {
        let mut files = self.files.lock().expect("nothing panics while holding it");
        if files.1.elapsed() < FILES_EVERY {
            return false;
        }
        files.1 = Instant::now();
        files.0 != plan.tls.stamp()
    }

    /// Brings a batch to one of the endpoints, and waits until it is final.
    async fn deliver(&self, body: Vec<u8>) -> Outcome {
        let body = if self.plan.compression { gzip(&body) } else { body };
        let body = Bytes::from(body);
        let mut worst: Option<Stop> = None;
        for endpoint in self.endpoints_in_turn() {
            let stop = match self.post(endpoint, &body).await {
                Ok(taken) => return self.acknowledged(taken).await,
                Err(Failure::Refused { event, reason }) => return Outcome::Refused { event, reason },
                Err(Failure::Stop(stop)) => stop,
            };
            endpoint.rest(&stop);
            if worst.as_ref().is_none_or(|worst| gravity(worst) < gravity(&stop)) {
                worst = Some(stop);
            }
        }
        Outcome::Stop(worst.unwrap_or_else(|| Stop::unavailable("there is no endpoint")))
    }

    /// All endpoints: from the one whose turn it is, those that rest last.
    fn endpoints_in_turn(&self) -> Vec<&Endpoint> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len();
        let mut in_turn: Vec<&Endpoint> = self.endpoints[first..].iter().chain(&self.endpoints[..first]).collect();
        let now = Instant::now();
        // Absent is less than any time; a rest that is over is none.
        in_turn.sort_by_key(|endpoint| endpoint.resting_at(now));
        in_turn
    }

    /// Posts the batch with one token after the other, until one is good.
    async fn post<'a>(&self, endpoint: &'a Endpoint, body: &Bytes) -> Result<Taken<'a>, Failure> {
        let mut refused: Vec<Arc<Vec<Key>>> = Vec::new();
        let mut words = "no token could be read".to_owned();
        for is_fresh in [false, true] {
            if is_fresh {
                self.tokens.refresh().await;
            }
            let keys = self.tokens.keys();
            for key in keys.iter() {
                let value = key.secret.expose();
                if refused.iter().flat_map(|keys| keys.iter()).any(|known| known.secret.expose() == value) {
                    continue;
                }
                let Some(token) = authorization(value) else {
                    words = format!("{} is no token: it holds characters that no header can", key.id);
                    continue;
                };
                match self.post_with(endpoint, &token, body.clone()).await {
                    Answer::Taken { ack_id, crowded } => {
                        if crowded {
                            tracing::warn!(sink = %self.name, "{} says that its queues are nearly full", endpoint.base);
                        }
                        return Ok(Taken { endpoint, token, ack_id });
                    }
                    Answer::Refused { event, reason } => return Err(Failure::Refused { event, reason }),
                    Answer::Stop(stop) => return Err(Failure::Stop(stop)),
                    Answer::Token { reason } => words = reason,
                }
            }
            refused.push(keys);
        }
        let names: Vec<&str> = self.plan.tokens.iter().map(|token| token.0.as_str()).collect();
        Err(Failure::Stop(Stop::Unauthorized {
            reason: format!(
                "{} accepts no token ({words}); check {}, and that the token exists and is enabled there",
                endpoint.base,
                names.join(", ")
            ),
        }))
    }

    async fn post_with(&self, endpoint: &Endpoint, token: &HeaderValue, body: Bytes) -> Answer {
        let mut request = self.request(endpoint, "event", token).header(CONTENT_TYPE, "application/json");
        if self.plan.compression {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        match answer_of(request.body(body)).await {
            Ok((status, retry_after, body)) => {
                judge(&endpoint.base, self.plan.index.as_deref(), status, retry_after, &body)
            }
            Err(error) => Answer::Stop(self.stop(endpoint, &error)),
        }
    }

    /// Waits until what a collector took is final. Whatever is not said is not true: then all of it is sent again, under a new channel.
    async fn acknowledged(&self, taken: Taken<'_>) -> Outcome {
        let place = &taken.endpoint.base;
        let ack_id = match (self.plan.acks, taken.ack_id) {
            (Acks::Off, _) | (Acks::Auto, None) => return Outcome::Delivered,
            (Acks::Required, None) => {
                return Outcome::Stop(Stop::Misconfigured {
                    reason: format!(
                        "{place} took events without offering an acknowledgement: enable indexer acknowledgement for the token, or set acks = \"auto\""
                    ),
                });
            }
            (Acks::Auto | Acks::Required, Some(ack_id)) => ack_id,
        };
        let deadline = tokio::time::Instant::now() + ACK_WAIT_MAX;
        let mut wait = ACK_POLL_FIRST;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(ACK_POLL_LAST);
            let question = format!("{{\"acks\":[{ack_id}]}}");
            let request = self.request(taken.endpoint, "ack", &taken.token).header(CONTENT_TYPE, "application/json");
            if let Ok((status, _, body)) = answer_of(request.body(question)).await {
                match judge_ack(place, ack_id, status, &body) {
                    Acked::Yes => return Outcome::Delivered,
                    Acked::NotYet => {}
                    Acked::Never(stop) => return Outcome::Stop(stop),
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Outcome::Stop(Stop::unavailable(format!(
                    "{place} took events but its indexers have not acknowledged them within 5m; sending them again under a new channel"
                )));
            }
        }
    }

    fn request(&self, endpoint: &Endpoint, what: &str, token: &HeaderValue) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/services/collector/{what}", endpoint.base))
            .header(AUTHORIZATION, token)
            .header("X-Splunk-Request-Channel", &self.channel)
    }

    fn stop(&self, endpoint: &Endpoint, error: &reqwest::Error) -> Stop {
        let place = &endpoint.base;
        if let Some(why) = tls::why(error) {
            return Stop::Tls { reason: format!("{place}: {why}") };
        }
        if error.is_timeout() && !error.is_connect() {
            return Stop::unavailable(format!("{place} gave no answer within {}", Span(self.plan.timeout)));
        }
        let what = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
        Stop::unavailable(format!("{what} {place}: {}", root_cause(error)))
    }
}

/// Why a batch was not taken.
enum Failure {
    Refused { event: Option<usize>, reason: String },
    Stop(Stop),
}

impl Endpoint {
    fn rest(&self, stop: &Stop) {
        let wait = match stop {
            Stop::Unavailable { retry_after: Some(wait), .. } => *wait,
            _ => REST,
        };
        *self.rests_until.lock().expect("nothing panics while holding it") = Some(Instant::now() + wait);
    }

    /// When its rest ends; None if it does not rest.
    fn resting_at(&self, now: Instant) -> Option<Instant> {
        self.rests_until.lock().expect("nothing panics while holding it").filter(|until| *until > now)
    }
}

/// What an operator has to see first when endpoints fail in different ways: what waiting does not mend.
const fn gravity(stop: &Stop) -> u8 {
    match stop {
        Stop::Unavailable { .. } => 0,
        Stop::Tls { .. } => 1,
        Stop::Misconfigured { .. } => 2,
        Stop::Unauthorized { .. } => 3,
    }
}

fn client(plan: &HecPlan) -> Result<Client, Stop> {
    let tls = if plan.endpoints.iter().any(|base| base.starts_with("https://")) {
        plan.tls.load().map_err(|error| Stop::Tls { reason: error.to_string() })?
    } else {
        // Never used; named so that a machine without certificate authorities can speak plain HTTP on loopback.
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(plan.timeout)
        // A token is for the endpoints in the config, and for nobody they point to.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(IN_FLIGHT_MAX)
        .tcp_keepalive(KEEPALIVE)
        .build()
        .map_err(|error| Stop::Misconfigured { reason: format!("cannot set up HTTP: {}", root_cause(&error)) })
}

/// Status, Retry-After and the body as far as it can matter.
async fn answer_of(request: reqwest::RequestBuilder) -> Result<(u16, Option<Duration>, Vec<u8>), reqwest::Error> {
    let mut response: Response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            // No HEC writes so much: whatever it is, it will not parse.
            break;
        }
    }
    Ok((status, retry_after, body))
}

/// The wait that a server asks for, in seconds; dates are not understood. Bounded, because a wrong one would stop the sink for good.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn authorization(token: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Splunk ", token.trim_ascii()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(GZIP_LEVEL));
    encoder.write_all(body).expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}

/// A random GUID, version 4.
fn guid() -> String {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Enough that the network's round trip does not show; each costs a batch of memory.
const IN_FLIGHT: usize = 4;
const IN_FLIGHT_MAX: usize = 64;
/// How long an endpoint that failed lets the others go first.
const REST: Duration = Duration::from_secs(10);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// A HEC answers in under 200 bytes, an acknowledgement in some more.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// JSON shrinks to a fifth at level 1; more effort saves little and costs much.
const GZIP_LEVEL: u32 = 1;
/// Contract 5: a certificate file that changes is taken up within 10 s.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// Acknowledgements are asked for after 1, 2, 4, 8, 10, 10... seconds, and given up after 5 minutes, as Splunk advises.
const ACK_POLL_FIRST: Duration = Duration::from_secs(1);
const ACK_POLL_LAST: Duration = Duration::from_secs(10);
const ACK_WAIT_MAX: Duration = Duration::from_mins(5);
