//! Receive: takes a sender's message in, proves it, and answers once it is durable.
//!
//! Invariants: a 202 leaves after the journal's sync has returned; nothing is written before its proof held; the proof is over the
//! bytes of the wire, which nothing here decompresses or reads; the answer depends on the store alone, never on a sink; our own
//! trouble is a 503, never a word about the sender's message; nobody outside can tell an unknown source from a wrong proof.
//!
//! Not here: what a proof is (`verify`), what a message means (`normalize`).

mod answer;
mod body;
mod config;
mod limit;
mod listener;
mod peer;
mod tls;

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::delivery::Delivery;
use crate::event::SourceId;
use crate::secret::KeyRing;
use crate::store::{AppendError, Draft, Journal, Kind};
use crate::telemetry::{Metrics, SourceMeters};
use crate::verify::{Found, Headers, Proven, Refusal, Request, Scheme, verify};

use self::answer::Answer;
use self::body::Bodies;
use self::limit::{Bucket, Rate, Strangers};

pub use self::config::{RateLimit, ReceiverConfig, ReceiverPlan, TlsConfig, TlsPlan};
pub use self::listener::{PeerNames, listen};
pub use self::tls::{ServerTls, TlsError};

/// A source as the receiver needs it.
#[derive(Debug)]
pub struct Source {
    id: SourceId,
    scheme: Scheme,
    keys: KeyRing,
    headers_kept: &'static [&'static str],
    rate: Option<(Rate, Mutex<Bucket>)>,
    meters: SourceMeters,
    /// One bit a refusal that was logged: each is told once, not once a request.
    told: AtomicU16,
}

impl Source {
    /// A source with its proof. `headers_kept` are those that its adapter reads.
    pub fn new(
        id: SourceId,
        scheme: Scheme,
        keys: KeyRing,
        headers_kept: &'static [&'static str],
        rate_limit: Option<RateLimit>,
        metrics: &Metrics,
    ) -> Self {
        let meters = metrics.source_meters(id.as_str());
        let rate = rate_limit.map(|limit| {
            let rate = Rate { per_second: f64::from(limit.per_second), burst: f64::from(limit.burst) };
            (rate, Mutex::new(Bucket::full(rate, Instant::now())))
        });
        Self { id, scheme, keys, headers_kept, rate, meters, told: AtomicU16::new(0) }
    }
}

/// The receiver's live part: what every request is answered with.
pub struct Receiver {
    sources: RwLock<Arc<HashMap<String, Arc<Source>>>>,
    journal: Arc<dyn Journal>,
    metrics: Arc<Metrics>,
    public_url: String,
    trusted_proxies: Vec<IpNet>,
    bodies: Bodies,
    strangers: Strangers,
    /// Whether the log was told of a request to a source that does not exist.
    told_unknown: AtomicBool,
    draining: watch::Sender<bool>,
    ready: watch::Receiver<bool>,
}

impl Receiver {
    /// The receiver of these sources. `ready` is what `/readyz` says.
    pub fn new(
        plan: &ReceiverPlan,
        sources: Vec<Source>,
        journal: Arc<dyn Journal>,
        metrics: Arc<Metrics>,
        ready: watch::Receiver<bool>,
    ) -> Self {
        let receiver = Self {
            sources: RwLock::default(),
            journal,
            metrics,
            public_url: plan.public_url.clone(),
            trusted_proxies: plan.trusted_proxies.clone(),
            bodies: Bodies {
                bytes_max: plan.body_bytes_max,
                timeout: plan.body_timeout,
                held_bytes: AtomicUsize::new(0),
            },
            strangers: Strangers::new(Instant::now()),
            told_unknown: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            ready,
        };
        receiver.replace_sources(sources);
        receiver
    }

    /// Takes other sources from the next request on: after a reload.
    pub fn replace_sources(&self, sources: Vec<Source>) {
        let sources = sources.into_iter().map(|source| (source.id.as_str().to_owned(), Arc::new(source))).collect();
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sources);
    }

    /// Answers 503 from now on, to half-sent bodies at once: the way out begins.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// One request to `/v1/hooks/{source}`.
    async fn receive(&self, request: &HttpRequest, mut payload: web::Payload) -> HttpResponse {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        let source = sources.get(hook_of(request.path()).unwrap_or_default());
        let mut read_whole = false;
        let answered = self.answer(request, &mut payload, source, &sources, &mut read_whole).await;
        match answered {
            Ok(sequence) => accepted(sequence),
            Err(answer) => {
                let label = source.map_or(UNKNOWN_SOURCE, |source| source.id.as_str());
                self.metrics.ingest(label, answer.outcome());
                answer.respond((!read_whole).then_some(payload))
            }
        }
    }

    /// The steps in their order: what costs least is asked first, and nothing is written before the proof held.
    ///
    /// The answer is a journal sequence, or none where there was nothing to keep.
    async fn answer(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        source: Option<&Arc<Source>>,
        sources: &HashMap<String, Arc<Source>>,
        read_whole: &mut bool,
    ) -> Result<Option<u64>, Answer> {
        if self.is_draining() {
            return Err(Answer::Unavailable);
        }
        let headers = request.headers();
        if headers.get_all(CONTENT_ENCODING).any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Answer::Encoded);
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if declared.is_some_and(|length| length > self.bodies.bytes_max as u64) {
            return Err(Answer::TooLarge);
        }
        let socket = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let peer = peer::peer_of(socket, headers, &self.trusted_proxies);
        if self.strangers.is_limited(peer, Instant::now()) {
            return Err(Answer::Unproven);
        }
        let body = self.bodies.read(payload, declared, &self.draining).await?;
        *read_whole = true;
        let received = Instant::now();
        let now = Timestamp::now();

        // An unknown source costs what a known one costs, so that time tells nothing either.
        let checked = source.or_else(|| sources.values().next());
        let proof = checked.map(|checked| self.prove(checked, request, peer, body, now));
        let (Some(source), Some(proof)) = (source, proof) else { return Err(self.no_source(peer, received)) };
        let proven = match proof {
            Ok(proven) => proven,
            Err(refusal) => return Err(self.refused(source, refusal, peer, received)),
        };
        self.strangers.proved(peer, received);
        if let Some((rate, bucket)) = &source.rate {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(*rate, received).map_err(|retry_after| Answer::TooMany { retry_after })?;
        }
        let sequence = if proven.is_ping() { None } else { Some(self.keep(source, proven, now, received).await?) };
        source.meters.accepted(now.as_duration().as_secs_f64());
        Ok(sequence)
    }

    fn prove(
        &self,
        source: &Source,
        request: &HttpRequest,
        peer: IpAddr,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Proven, Refusal> {
        let uri = request.uri();
        let proof = Request {
            headers: &WireHeaders(request.headers()),
            method: request.method().as_str(),
            public_url: &self.public_url,
            target: uri.path_and_query().map_or(uri.path(), |target| target.as_str()),
            peer,
            certificate_names: request.conn_data::<PeerNames>().map_or(&[], |names| names.0.as_slice()),
            headers_kept: source.headers_kept,
        };
        verify(&source.scheme, &source.keys.keys(), &proof, body, now)
    }

    /// Counts a refusal, tells the log of the first of its kind, and finds the answer.
    fn refused(&self, source: &Source, refusal: Refusal, peer: IpAddr, now: Instant) -> Answer {
        self.metrics.signature_failure(source.id.as_str(), refusal.word());
        let bit = 1 << refusal as u16;
        if source.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let (id, reason) = (&source.id, refusal.word());
            warn!(source = %id, reason, %peer, "source {id}: a message was refused, more of this kind are only counted: {refusal}");
        }
        if refusal == Refusal::SecretUnavailable {
            return Answer::Unavailable;
        }
        self.strangers.failed(peer, now);
        Answer::Unproven
    }

    /// Counts a request to a source that does not exist. Its name is the stranger's, so it is not shown.
    fn no_source(&self, peer: IpAddr, now: Instant) -> Answer {
        if !self.told_unknown.swap(true, Ordering::Relaxed) {
            warn!(%peer, "a message for a source that is not configured was refused, more of this kind are only counted");
        }
        self.strangers.failed(peer, now);
        Answer::Unproven
    }

    /// Makes a proven message durable, within the time that senders wait.
    async fn keep(&self, source: &Source, proven: Proven, at: Timestamp, received: Instant) -> Result<u64, Answer> {
        let repeat = proven.repeat();
        let delivery = Delivery::new(proven, &source.id, at);
        let draft = Draft {
            kind: Kind::Delivery,
            source: source.id.clone(),
            at,
            head: delivery.stored_head(),
            body: delivery.body().clone(),
            repeat,
        };
        match timeout_at(received + DURABLE_WITHIN, self.journal.append(draft)).await {
            Ok(Ok(appended)) => Ok(appended.sequence),
            Ok(Err(error)) => Err(unavailable(&source.id, error)),
            Err(_) => {
                debug!(source = %source.id, "not durable in time");
                Err(Answer::Unavailable)
            }
        }
    }
}

/// Every trouble of the journal is ours. The journal itself says so in the log, once; here it would be once a request.
fn unavailable(source: &SourceId, error: AppendError) -> Answer {
    debug!(%source, "not kept: {error}");
    Answer::Unavailable
}

/// The answer to what is kept, or to a ping.
fn accepted(sequence: Option<u64>) -> HttpResponse {
    match sequence {
        Some(sequence) => {
            HttpResponse::Accepted().content_type("application/json").body(format!("{{\"id\":\"{sequence}\"}}"))
        }
        None => HttpResponse::Ok().content_type("application/json").body("{}"),
    }
}

/// The routes of the public listener.
pub fn routes(receiver: &Arc<Receiver>) -> impl FnOnce(&mut web::ServiceConfig) + use<> {
    let (hooks, ready) = (receiver.clone(), receiver.clone());
    let hook = move |request: HttpRequest, payload: web::Payload| {
        let receiver = hooks.clone();
        async move {
            match (hook_of(request.path()), request.method()) {
                (None, _) => Answer::NoSuchPath.respond(Some(payload)),
                (Some(_), &Method::POST | &Method::PUT) => receiver.receive(&request, payload).await,
                (Some(_), _) => Answer::WrongMethod { allow: "POST, PUT" }.respond(Some(payload)),
            }
        }
    };
    let readyz = move || {
        let ready = *ready.ready.borrow() && !ready.is_draining();
        async move { if ready { health() } else { Answer::Unavailable.respond(None) } }
    };
    move |app| {
        app.service(
            web::resource("/livez")
                .route(web::get().to(|| async { health() }))
                .route(web::head().to(|| async { health() }))
                .default_service(web::to(|payload| refuse(Answer::WrongMethod { allow: "GET, HEAD" }, payload))),
        )
        .service(
            web::resource("/readyz")
                .route(web::get().to(readyz.clone()))
                .route(web::head().to(readyz))
                .default_service(web::to(|payload| refuse(Answer::WrongMethod { allow: "GET, HEAD" }, payload))),
        )
        .default_service(web::to(hook));
    }
}

/// The source that a path names. Read by hand, because a pattern with a name in it is a regular expression to the router.
fn hook_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/hooks/").filter(|name| !name.is_empty() && !name.contains('/'))
}

fn refuse(answer: Answer, payload: web::Payload) -> Ready<HttpResponse> {
    ready(answer.respond(Some(payload)))
}

fn health() -> HttpResponse {
    HttpResponse::Ok().force_close().content_type("text/plain").body("ok\n")
}

/// The headers of a request, with every value that was sent.
struct WireHeaders<'a>(&'a HeaderMap);

impl Headers for WireHeaders<'_> {
    fn find(&self, name: &str) -> Found<'_> {
        // A look at each of a dozen names costs less than making a key for the table.
        let mut found = self.0.iter().filter(|(other, _)| other.as_str() == name);
        match (found.next(), found.next()) {
            (None, _) => Found::Nothing,
            (Some((_, value)), None) => Found::One(value.as_bytes()),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

/// Label of requests to sources that do not exist.
const UNKNOWN_SOURCE: &str = "_unknown";

/// From the last byte of the body to the answer: some senders wait no longer, and never come again.
const DURABLE_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
