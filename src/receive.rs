//! Receive: takes a sender's message in, proves it, and answers once it is durable.
//!
//! Invariants: a 202 leaves after the journal's sync has returned; nothing is written before its proof held; the proof is over the
//! bytes of the wire (or where the source says so, over what was compressed in them); the answer depends on the store alone, never on a
//! sink; our own trouble is a 503, never a word about the sender's message; nobody outside can tell an unknown source from a wrong proof.
//!
//! Not here: what a proof or a handshake is (`verify`), fetching public keys (`trust`), what a message means (`normalize`).

mod answer;
mod body;
mod config;
mod limit;
mod listener;
mod peer;
mod proof;
mod tls;

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::delivery::{Coding, Delivery};
use crate::event::SourceId;
use crate::secret::KeyRing;
use crate::store::{AppendError, Draft, Journal, Kind};
use crate::telemetry::{Metrics, SourceMeters};
use crate::trust::Trust;
use crate::verify::{Handshake, Proven, Refusal, Scheme};

use self::answer::Answer;
use self::body::Bodies;
use self::limit::Strangers;
use self::proof::Fetching;

pub use self::config::{RateLimit, ReceiverConfig, ReceiverPlan, TlsConfig, TlsPlan};
pub(crate) use self::limit::{Bucket, Rate};
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
    /// The public keys that its messages name; none where they name none.
    trust: Option<Trust>,
    /// How its sender may compress bodies.
    codings: Vec<Coding>,
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
        let (trust, codings) = (None, Vec::new());
        Self { id, scheme, keys, headers_kept, rate, meters, trust, codings, told: AtomicU16::new(0) }
    }

    /// The same source, whose messages name public keys that are found there.
    #[must_use]
    pub fn trusting(self, trust: Option<Trust>) -> Self {
        Self { trust, ..self }
    }

    /// The same source, whose sender may compress bodies so.
    #[must_use]
    pub fn allowing(self, codings: Vec<Coding>) -> Self {
        Self { codings, ..self }
    }
}

/// A request that was read whole.
struct Arrived {
    peer: IpAddr,
    body: Bytes,
    coding: Option<Coding>,
    at: Timestamp,
    received: Instant,
}

/// What a proven request is answered with.
enum Accepted {
    /// It is durable, under this sequence of the journal.
    Kept(u64),
    /// There was nothing to keep; the sender wants this JSON.
    Handshake(String),
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
            Ok(what) => accepted(what),
            Err(answer) => {
                let label = source.map_or(UNKNOWN_SOURCE, |source| source.id.as_str());
                self.metrics.ingest(label, answer.outcome());
                answer.respond((!read_whole).then_some(payload))
            }
        }
    }

    /// The steps in their order: what costs least is asked first, and nothing is written before the proof held.
    async fn answer(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        source: Option<&Arc<Source>>,
        sources: &HashMap<String, Arc<Source>>,
        read_whole: &mut bool,
    ) -> Result<Accepted, Answer> {
        if self.is_draining() {
            return Err(Answer::Unavailable);
        }
        let headers = request.headers();
        let coding = coding_of(headers, source)?;
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if declared.is_some_and(|length| length > self.bodies.bytes_max as u64) {
            return Err(Answer::TooLarge);
        }
        let peer = self.peer_of(request)?;
        let body = self.bodies.read(payload, declared, &self.draining).await?;
        *read_whole = true;
        let arrived = Arrived { peer, body, coding, at: Timestamp::now(), received: Instant::now() };

        let Some(source) = source else {
            // An unknown source costs what a known one costs, so that time tells nothing either.
            if let Some(other) = sources.values().next() {
                let _refused = self.prove(other, request, &arrived, Fetching::Never).await;
            }
            return Err(self.no_source(peer, arrived.received));
        };
        let proven = self.prove(source, request, &arrived, Fetching::Allowed).await;
        let proven = proven.map_err(|refusal| self.refused(source, refusal, peer, arrived.received))?;
        self.strangers.proved(peer, arrived.received);
        if let Some((rate, bucket)) = &source.rate {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(*rate, arrived.received).map_err(|retry_after| Answer::TooMany { retry_after })?;
        }
        let what = match proven.handshake() {
            Some(handshake) => Accepted::Handshake(source.shake(handshake)),
            None => Accepted::Kept(self.keep(source, proven, arrived.at, arrived.received).await?),
        };
        source.meters.accepted(arrived.at.as_duration().as_secs_f64());
        Ok(what)
    }

    /// Who sent the request, unless he has used up his failures.
    fn peer_of(&self, request: &HttpRequest) -> Result<IpAddr, Answer> {
        let socket = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let peer = peer::peer_of(socket, request.headers(), &self.trusted_proxies);
        if self.strangers.is_limited(peer, Instant::now()) { Err(Answer::Unproven) } else { Ok(peer) }
    }

    /// Counts a refusal, tells the log of the first of its kind, and finds the answer.
    fn refused(&self, source: &Source, refusal: Refusal, peer: IpAddr, now: Instant) -> Answer {
        self.metrics.signature_failure(source.id.as_str(), refusal.word());
        let bit = 1 << refusal as u16;
        if source.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let (id, reason) = (&source.id, refusal.word());
            warn!(source = %id, reason, %peer, "source {id}: a message was refused, more of this kind are only counted: {refusal}");
        }
        if refusal.is_ours() {
            return Answer::Unavailable;
        }
        if refusal == Refusal::TooLarge {
            return Answer::TooLarge;
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
            body: delivery.wire().clone(),
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

impl Source {
    /// Does what a handshake asks for, and says what the sender wants to hear.
    fn shake(&self, handshake: &Handshake) -> String {
        match handshake {
            Handshake::Ping => {}
            Handshake::Answer(answer) => return answer.clone(),
            Handshake::Subscription { url, topic } => {
                if let Some(trust) = &self.trust {
                    trust.confirm(url.clone(), topic.clone());
                }
            }
            Handshake::Unsubscribed { topic } => {
                if let Some(trust) = &self.trust {
                    trust.ended(topic);
                }
            }
        }
        "{}".to_owned()
    }
}

/// How the body is compressed; an encoding that the source does not allow is refused, and so is one on top of another.
fn coding_of(headers: &HeaderMap, source: Option<&Arc<Source>>) -> Result<Option<Coding>, Answer> {
    let mut coding = None;
    for value in headers.get_all(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        if value.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        let allowed = Coding::named(value).filter(|named| source.is_some_and(|source| source.codings.contains(named)));
        if allowed.is_none() || coding.is_some() {
            return Err(Answer::Encoded);
        }
        coding = allowed;
    }
    Ok(coding)
}

/// Every trouble of the journal is ours. The journal itself says so in the log, once; here it would be once a request.
fn unavailable(source: &SourceId, error: AppendError) -> Answer {
    debug!(%source, "not kept: {error}");
    Answer::Unavailable
}

/// The answer to what is kept, and to a handshake. Always JSON: what a handshake echoes must never be read as a page.
fn accepted(what: Accepted) -> HttpResponse {
    match what {
        Accepted::Kept(sequence) => {
            HttpResponse::Accepted().content_type("application/json").body(format!("{{\"id\":\"{sequence}\"}}"))
        }
        Accepted::Handshake(answer) => HttpResponse::Ok()
            .content_type("application/json")
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(answer),
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
                (Some(_), &Method::OPTIONS) => receiver.preflight(&request, payload).await,
                (Some(_), _) => WRONG_METHOD.respond(Some(payload)),
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

/// The answer to a method that no source takes.
const WRONG_METHOD: Answer = Answer::WrongMethod { allow: "POST, PUT" };

/// Label of requests to sources that do not exist.
const UNKNOWN_SOURCE: &str = "_unknown";

/// From the last byte of the body to the answer: some senders wait no longer, and never come again.
const DURABLE_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
