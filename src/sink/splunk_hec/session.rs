//! One session with the collectors: client, channel, whose turn it is, and a batch's way until it is final.
//!
//! Invariants: a batch goes to each endpoint at most once; a token is tried once with each value it has; nothing that a server leaves
//! open is taken for a yes.
//!
//! Not here: what an answer means (`answer`), the order of batches (`splunk_hec`).

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response};
use rustls::RootCertStore;

use super::super::{Stop, root_cause};
use super::answer::{Acked, Answer, judge, judge_ack};
use super::{Acks, HecPlan, IN_FLIGHT_MAX};
use crate::event::Name;
use crate::secret::{Key, KeyRing};
use crate::setting::Span;
use crate::tls::{self, Stamp};

/// How the delivery of a batch ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Delivered,
    Refused { event: Option<usize>, reason: String },
    Stop(Stop),
}

/// Everything that requests share between two openings.
#[derive(Debug)]
pub(super) struct Session {
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
    pub(super) fn new(plan: &Arc<HecPlan>, name: &Name, tokens: KeyRing) -> Result<Self, Stop> {
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
    pub(super) fn files_changed(&self, plan: &HecPlan) -> bool {
        let mut files = self.files.lock().expect("nothing panics while holding it");
        if files.1.elapsed() < FILES_EVERY {
            return false;
        }
        files.1 = Instant::now();
        files.0 != plan.tls.stamp()
    }

    /// Brings a batch to one of the endpoints, and waits until it is final.
    pub(super) async fn deliver(&self, body: Vec<u8>) -> Outcome {
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

    /// Asks every endpoint whether it takes one of our tokens, with a request that holds no event: a collector looks at the token first.
    pub(super) async fn probe(&self) -> Result<(), Stop> {
        let nothing = Bytes::from(if self.plan.compression { gzip(b"") } else { Vec::new() });
        for endpoint in &self.endpoints {
            match self.post(endpoint, &nothing).await {
                // "No data" is what a collector says that would have taken some.
                Ok(_) | Err(Failure::Refused { .. }) => {}
                Err(Failure::Stop(stop)) => return Err(stop),
            }
        }
        Ok(())
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
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
