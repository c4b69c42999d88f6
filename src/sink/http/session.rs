//! One client of an HTTP receiver: signed requests in lanes, and what became of them.
//!
//! Invariants: every request is signed as of the moment it leaves, with every secret that is loaded then; after the first failure no lane begins
//! another request; refused credentials are read again and tried once more before they count as refused.
//!
//! Not here: what an answer means (`answer`), which events share a lane (`http`).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::{Settled, Stop, root_cause};
use super::answer::{Failure, judge};
use super::{Body, HttpPlan};
use crate::event::{Name, Position};
use crate::secret::{Key, KeyRing};
use crate::setting::Span;
use crate::tls;
use crate::verify;

/// One request.
#[derive(Debug)]
pub(super) struct Message {
    /// First and last event in it.
    pub(super) from: Position,
    pub(super) through: Position,
    /// The same at each try; without a dot.
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Last events of the requests that were taken.
    pub(super) taken: Vec<Position>,
    /// What `settled` says.
    pub(super) end: Result<Settled, Stop>,
}

/// A client and its credentials.
#[derive(Debug)]
pub(super) struct Session {
    plan: Arc<HttpPlan>,
    client: Client,
    keys: KeyRing,
}

impl Session {
    pub(super) fn new(plan: &Arc<HttpPlan>, name: &Name, keys: KeyRing) -> Result<Self, Stop> {
        let session = Self { plan: Arc::clone(plan), client: client(plan)?, keys };
        let live = session.keys.keys();
        for key in
            session.signing(&live).filter(|key| verify::sign_event([*key], "", b"", Timestamp::UNIX_EPOCH).is_err())
        {
            tracing::warn!(sink = %name, secret = %key.id, "{} signs nothing: it is no \"whsec_\" and base64", key.id);
        }
        Ok(session)
    }

    /// Posts all lanes, and waits until each is done or something stopped them.
    pub(super) async fn deliver(&self, lanes: Vec<Vec<Message>>, last: Position) -> Outcome {
        let halted = AtomicBool::new(false);
        let lanes: Vec<_> = lanes.into_iter().map(|lane| self.run(lane, &halted)).collect();
        let mut lanes = stream::iter(lanes).buffer_unordered(self.plan.in_flight_max);
        let (mut taken, mut worst) = (Vec::new(), None);
        while let Some((done, failed)) = lanes.next().await {
            taken.extend(done);
            if failed.is_some() && failed.as_ref().map(gravity) > worst.as_ref().map(gravity) {
                worst = failed;
            }
        }
        Outcome { taken, end: worst.unwrap_or(Ok(Settled::Through(last))) }
    }

    /// Posts one request after the other: what was taken, and what ended it early.
    async fn run(&self, lane: Vec<Message>, halted: &AtomicBool) -> (Vec<Position>, Option<Result<Settled, Stop>>) {
        let mut taken = Vec::with_capacity(lane.len());
        for message in lane {
            if halted.load(Ordering::Relaxed) {
                break;
            }
            let Message { from, through, .. } = message;
            let failed = match self.post(&message).await {
                Ok(()) => {
                    taken.push(through);
                    continue;
                }
                Err(Failure::Refused(reason)) => Ok(Settled::Refused { from, through, suspect: None, reason }),
                Err(Failure::Stop(stop)) => Err(stop),
            };
            halted.store(true, Ordering::Relaxed);
            return (taken, Some(failed));
        }
        (taken, None)
    }

    async fn post(&self, message: &Message) -> Result<(), Failure> {
        let keys = self.keys.keys();
        let answer = self.post_with(message, &keys).await;
        if !matches!(answer, Err(Failure::Stop(Stop::Unauthorized { .. }))) {
            return answer;
        }
        self.keys.refresh().await;
        let fresh = self.keys.keys();
        // A refresh publishes only what changed.
        if Arc::ptr_eq(&keys, &fresh) { answer } else { self.post_with(message, &fresh).await }
    }

    async fn post_with(&self, message: &Message, keys: &[Key]) -> Result<(), Failure> {
        let headers = self.headers(message, keys).map_err(Failure::Stop)?;
        let request = self.client.post(self.plan.url.clone()).headers(headers).body(message.body.clone());
        match answer_of(request).await {
            Ok((status, retry_after, body)) => judge(&self.plan.place, status, retry_after, &body),
            Err(error) => Err(Failure::Stop(self.stop(error))),
        }
    }

    fn headers(&self, message: &Message, keys: &[Key]) -> Result<HeaderMap, Stop> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.plan.content_type()));
        if matches!(self.plan.body, Body::Event(_)) {
            let signed = verify::sign_event(self.signing(keys), &message.id, &message.body, Timestamp::now());
            let signed = signed.map_err(|_| {
                let names: Vec<&str> = self.plan.secrets.iter().map(|secret| secret.0.as_str()).collect();
                Stop::Unauthorized {
                    reason: format!(
                        "there is no secret to sign with: {} has to be \"whsec_\" and base64, as the receiver shows it",
                        names.join(" or ")
                    ),
                }
            })?;
            for (name, value) in signed {
                headers.insert(name, HeaderValue::from_str(&value).expect("base64, digits and hexadecimal"));
            }
        }
        if let Some((reference, header)) = &self.plan.token {
            let token = keys.iter().find(|key| key.id == *reference).map(|key| key.secret.expose().trim_ascii());
            let prefix: &[u8] = if header.is_some() { b"" } else { b"Bearer " };
            let value = token.and_then(|token| HeaderValue::from_bytes(&[prefix, token].concat()).ok());
            let mut value = value.ok_or_else(|| Stop::Unauthorized {
                reason: format!("{reference} could not be read, or holds characters that no header can"),
            })?;
            value.set_sensitive(true);
            headers.insert(header.clone().unwrap_or(AUTHORIZATION), value);
        }
        Ok(headers)
    }

    /// The keys that sign, in the order of the config.
    fn signing<'k>(&self, keys: &'k [Key]) -> impl Iterator<Item = &'k Key> {
        keys.iter().filter(|key| self.plan.secrets.contains(&key.id))
    }

    fn stop(&self, error: reqwest::Error) -> Stop {
        // Path and query may hold a key.
        let (error, place) = (error.without_url(), &self.plan.place);
        if let Some(why) = tls::why(&error) {
            return Stop::Tls { reason: format!("{place}: {why}") };
        }
        if error.is_timeout() && !error.is_connect() {
            return Stop::unavailable(format!("{place} gave no answer within {}", Span(self.plan.timeout)));
        }
        let what = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
        Stop::unavailable(format!("{what} {place}: {}", root_cause(&error)))
    }

    /// Connects as the requests do, and ends without one.
    pub(super) async fn probe(&self) -> Result<(), Stop> {
        let (url, place) = (&self.plan.url, &self.plan.place);
        let stop = |error: &io::Error| match tls::why(error) {
            Some(why) => Stop::Tls { reason: format!("{place}: {why}") },
            None => Stop::unavailable(format!("cannot connect to {place}: {error}")),
        };
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(443);
        let connect = async {
            let stream = TcpStream::connect((host, port)).await.map_err(|error| stop(&error))?;
            if url.scheme() == "http" {
                return Ok(());
            }
            let config = self.plan.tls.load().map_err(|error| Stop::Tls { reason: error.to_string() })?;
            let name = self.plan.tls.name_for(host).map_err(|error| Stop::Tls { reason: error.to_string() })?;
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect(name, stream).await.map_err(|error| stop(&error))?;
            // Under TLS 1.3 our side is done before the receiver has judged our certificate: its refusal is the next thing to read.
            match timeout(VERDICT_WAIT, stream.read(&mut [0; 1])).await {
                Ok(Err(error)) => Err(stop(&error)),
                Ok(Ok(_)) | Err(_) => Ok(()),
            }
        };
        timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(stop(&ErrorKind::TimedOut.into())))
    }
}

/// Which failure counts where lanes failed in different ways. What concerns the whole sink goes before what concerns an event, which shows
/// itself again; what waiting does not mend goes before what it does.
const fn gravity(failed: &Result<Settled, Stop>) -> u8 {
    match failed {
        Ok(_) => 0,
        Err(Stop::Unavailable { .. }) => 1,
        Err(Stop::Tls { .. }) => 2,
        Err(Stop::Misconfigured { .. }) => 3,
        Err(Stop::Unauthorized { .. }) => 4,
    }
}

fn client(plan: &HttpPlan) -> Result<Client, Stop> {
    let tls = if plan.url.scheme() == "https" {
        plan.tls.load().map_err(|error| Stop::Tls { reason: error.to_string() })?
    } else {
        tls::trusting_nobody()
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(plan.timeout)
        // Events and credentials are for the address in the config, and for nobody it points to.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(plan.in_flight_max)
        .tcp_keepalive(KEEPALIVE)
        .build()
        .map_err(|error| Stop::Misconfigured { reason: format!("cannot set up HTTP: {}", root_cause(&error)) })
}

/// Status, Retry-After and the beginning of the body.
async fn answer_of(request: reqwest::RequestBuilder) -> Result<(u16, Option<Duration>, Vec<u8>), reqwest::Error> {
    let mut response: Response = request.send().await?;
    let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers(), Timestamp::now()));
    let (mut body, mut read) = (Vec::new(), 0);
    // The status has said it: a body that breaks off changes nothing. Read to its end, the connection serves the next request.
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        let room = WORDS_BYTES_MAX.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((status, retry_after, body))
}

/// The wait that a receiver asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().duration_since(now);
    Duration::try_from(wait).ok()
}

const AGENT: &str = concat!("verdict-relay/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a receiver may take to refuse our certificate.
const VERDICT_WAIT: Duration = Duration::from_millis(200);
/// As much of a receiver's words as a reason can hold.
const WORDS_BYTES_MAX: usize = 1024;
/// A longer answer costs the connection.
const ANSWER_BYTES_MAX: usize = 64 << 10;
