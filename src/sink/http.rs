//! Any HTTP receiver: one signed webhook an event (Standard Webhooks), or lines of LEEF for QRadar's HTTP Receiver.
//!
//! Invariants: an event is delivered only when the receiver answered 2xx to the request that carried it; events of a subject are posted one
//! after the other, in order, and nothing goes out beside a batch that is not done; what is posted again has the same `webhook-id`; a secret or
//! token goes to the configured address only: no redirects, no proxy from the environment.
//!
//! Not here: what an answer means (`answer`), requests (`session`), the signature (`verify`), splitting a refused batch (`deliver`).

mod answer;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Url;
use reqwest::header::HeaderName;
use serde::Deserialize;
use tokio::task::JoinHandle;

use self::session::{Message, Outcome, Session};
use super::{Batch, Render, Rendered, Settled, Sink, Stop, refused_for_line_end};
use crate::event::{Name, Position};
use crate::format::rfc5424::{Framing, Header, Profile, SIZE_MIN};
use crate::format::{Format, Style};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::{Problem, Size, Span};
use crate::tls::{ClientTls, ClientTlsConfig, Stamp};

sink_config! {
    /// Any HTTP receiver: a signed webhook for each event, or QRadar's HTTP Receiver.
    pub struct HttpConfig {
        /// What receives, and so what a request is.
        #[serde(default)]
        pub profile: Receiver,
        /// Where to post, `https://host/path`. Logs and tables show only scheme, host and port of it.
        pub url: String,
        /// For `webhook`: references to the secrets that sign each request (`whsec_` and base64). With several every one signs, so the receiver can change over when it likes.
        #[serde(default)]
        pub secrets: Vec<SecretRef>,
        /// For `webhook`: reference to a token that the receiver wants beside the signature, sent as `Authorization: Bearer`.
        pub token: Option<SecretRef>,
        /// Header that carries the token as it is, instead of `Authorization: Bearer`: `X-API-Key`.
        pub token_header: Option<String>,
        /// For `webhook`: how an event is written; default `ocsf`. QRadar gets LEEF.
        pub format: Option<Format>,
        /// Our host name. QRadar finds the log source by it, so it has to be the same on every replica.
        pub hostname: Option<String>,
        /// For `qradar-http`: most bytes of a line, 1KiB to 32767B, the default; not more than the log source's Max Payload Length.
        pub size_max: Option<Size>,
        /// Longest wait for an answer, 1s to 5m; default 30s.
        pub timeout: Option<Span>,
        /// For `webhook`: most requests on the way at once, 1 to 64; default 8. Those about one subject go one after the other.
        #[schemars(range(min = 1, max = 64))]
        pub in_flight_max: Option<u32>,
        /// TLS, for `https://`.
        #[serde(default)]
        pub tls: ClientTlsConfig,
    }
}

/// What receives the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Receiver {
    /// One event a request, signed after Standard Webhooks 1.0.0; `webhook-id` is the event's uid.
    #[default]
    Webhook,
    /// QRadar's HTTP Receiver: one event a line, LEEF behind a full RFC 5424 header, many lines a request.
    QradarHttp,
}

/// Small enough that a refused batch is taken apart soon, large enough to keep all requests busy.
pub(super) const BATCH: Batch = Batch { events_max: 500, bytes_max: 1 << 20, wait_max: Duration::from_millis(100) };

/// A valid config of an HTTP sink.
#[derive(Debug, Clone)]
pub struct HttpPlan {
    url: Url,
    /// Scheme, host and port, for words: path and query may hold a key.
    place: String,
    body: Body,
    secrets: Vec<SecretRef>,
    /// The token, and the header for it where it is not `Authorization: Bearer`.
    token: Option<(SecretRef, Option<HeaderName>)>,
    hostname: Option<String>,
    timeout: Duration,
    in_flight_max: usize,
    tls: ClientTls,
}

/// What stands in a request.
#[derive(Debug, Clone)]
enum Body {
    /// One event, signed.
    Event(Format),
    /// Lines, each an event with a syslog header.
    Lines(Profile),
}

impl HttpConfig {
    pub(super) fn plan(self, key: &str) -> Result<HttpPlan, Vec<Problem>> {
        let mut problems = self.problems_of_profile(key);
        let mut problem =
            |name: &str, words: &str| problems.push(Problem::new(format!("{key}.{name}"), words.to_owned()));
        let url = url_of(&self.url).map_err(|words| problem("url", &words)).ok();
        if !self.tls.is_default() && url.as_ref().is_some_and(|url| url.scheme() == "http") {
            problem("tls", "the address has no TLS: write \"https://...\", or remove this table");
        }
        for (at, secret) in self.secrets.iter().enumerate() {
            if let Err(error) = secret.check() {
                problem(&format!("secrets[{at}]"), &error.to_string());
            }
        }
        if let Some(Err(error)) = self.token.as_ref().map(SecretRef::check) {
            problem("token", &error.to_string());
        }
        let header = self.token_header.as_deref().and_then(|name| {
            let name = name.parse::<HeaderName>().ok().filter(|name| !is_ours(name));
            if name.is_none() {
                problem("token_header", "no header, or one that this sink sets by itself: use one like \"X-API-Key\"");
            }
            name
        });
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        if !(Duration::from_secs(1)..=Duration::from_mins(5)).contains(&timeout) {
            problem("timeout", "use \"1s\" to \"5m\"");
        }
        let in_flight_max = self.in_flight_max.map_or(IN_FLIGHT, |max| max as usize);
        if !(1..=IN_FLIGHT_MAX).contains(&in_flight_max) {
            problem("in_flight_max", "use 1 to 64");
        }
        let size_max = self.size_max.map_or(LINE_BYTES_MAX, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        if !(SIZE_MIN..=LINE_BYTES_MAX).contains(&size_max) {
            problem("size_max", "use \"1KiB\" to \"32767B\", which is the most that QRadar can be set to");
        }
        let body = match self.profile {
            Receiver::Webhook => Body::Event(self.format.unwrap_or(Format::Ocsf)),
            Receiver::QradarHttp => Body::Lines(Profile {
                format: Format::Leef,
                header: Header::Rfc5424,
                framing: Framing::Lf,
                size_max,
                cee: false,
            }),
        };
        match (url, self.tls.plan(&format!("{key}.tls"))) {
            (Some(url), Ok(tls)) if problems.is_empty() => Ok(HttpPlan {
                place: url.origin().ascii_serialization(),
                url,
                body,
                secrets: self.secrets,
                token: self.token.map(|token| (token, header)),
                hostname: self.hostname,
                timeout,
                in_flight_max,
                tls,
            }),
            (_, tls) => {
                problems.extend(tls.err().into_iter().flatten());
                Err(problems)
            }
        }
    }

    /// Settings that the profile needs, and those that mean nothing with it.
    fn problems_of_profile(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |is_wrong: bool, name: &str, words: &str| {
            if is_wrong {
                problems.push(Problem::new(format!("{key}.{name}"), words));
            }
        };
        match self.profile {
            Receiver::Webhook => {
                let words = "name at least one, like \"env:SOAR_SECRET\": without a signature a receiver takes events from anybody";
                check(self.secrets.is_empty(), "secrets", words);
                check(
                    self.token_header.is_some() && self.token.is_none(),
                    "token_header",
                    "there is no `token` for it",
                );
                check(self.size_max.is_some(), "size_max", "only the profile \"qradar-http\" has it: remove it");
            }
            Receiver::QradarHttp => {
                let words =
                    "QRadar's receiver looks at no signature and no token: it knows us by tls.certificate; remove it";
                check(!self.secrets.is_empty(), "secrets", words);
                check(self.token.is_some(), "token", words);
                check(self.token_header.is_some(), "token_header", words);
                let is_other = self.format.is_some_and(|format| format != Format::Leef);
                check(is_other, "format", "QRadar gets \"leef\": remove it");
                check(
                    self.in_flight_max.is_some(),
                    "in_flight_max",
                    "lines go out one request after the other: remove it",
                );
            }
        }
        problems
    }
}

/// The address, or what is wrong with it; a path or query may hold a key, so they are not shown.
fn url_of(text: &str) -> Result<Url, String> {
    if text.contains('@') {
        return Err("an address holds no user or password: a token goes into `token`".to_owned());
    }
    let wrong =
        |why: &str| format!("this is no address ({why}): write it like \"https://soar.example.com/hooks/verdicts\"");
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it needs https and a host"));
    }
    if url.fragment().is_some() { Err(wrong("no fragment")) } else { Ok(url) }
}

/// Whether a header is one that a request has anyway.
fn is_ours(name: &HeaderName) -> bool {
    let ours = ["host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent"];
    ours.contains(&name.as_str()) || name.as_str().starts_with("webhook-")
}

impl HttpPlan {
    pub(super) fn secrets(&self) -> Vec<SecretRef> {
        self.secrets.iter().chain(self.token.iter().map(|(token, _)| token)).cloned().collect()
    }

    pub(super) fn render(&self, style: Style) -> Render {
        let style = self.hostname.as_deref().map_or(style, Style::new);
        match self.body.clone() {
            Body::Event(format) => Box::new(move |event, out| format.render(event, &style, out)),
            Body::Lines(profile) => Box::new(move |event, out| profile.render(event, &style, out)),
        }
    }

    pub(super) fn build(self, name: &Name, keys: KeyRing) -> HttpSink {
        HttpSink { plan: Arc::new(self), name: name.clone(), keys, live: None, flight: None, taken: BTreeSet::new() }
    }

    const fn content_type(&self) -> &'static str {
        match &self.body {
            Body::Event(format) if format.is_json() => "application/json",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// The batch as requests, in lanes: a lane's requests follow each other.
    fn lanes(&self, batch: &[Rendered], taken: &BTreeSet<Position>) -> Vec<Vec<Message>> {
        let mut lanes: Vec<Vec<Message>> = Vec::new();
        match &self.body {
            Body::Event(_) => {
                let mut lane_of = HashMap::new();
                for Rendered { position, event, body } in batch.iter().filter(|one| !taken.contains(&one.position)) {
                    let lane = *lane_of.entry(event.finding.subject.key()).or_insert_with(|| {
                        lanes.push(Vec::new());
                        lanes.len() - 1
                    });
                    let (id, body) = (event.uid.to_string(), Bytes::copy_from_slice(body));
                    lanes[lane].push(Message { from: *position, through: *position, id, body });
                }
            }
            Body::Lines(_) => {
                let mut lines = Vec::with_capacity(batch.iter().map(|one| one.body.len() + 1).sum());
                for one in batch {
                    lines.extend_from_slice(&one.body);
                    lines.push(b'\n');
                }
                if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
                    let (from, through) = (first.position, last.position);
                    lanes.push(vec![Message { from, through, id: String::new(), body: lines.into() }]);
                }
            }
        }
        lanes
    }
}

/// An HTTP receiver.
#[derive(Debug)]
pub(super) struct HttpSink {
    plan: Arc<HttpPlan>,
    name: Name,
    keys: KeyRing,
    live: Option<Live>,
    flight: Option<Flight>,
    /// Events of a batch that was not taken whole, which the receiver has: they are not posted again.
    taken: BTreeSet<Position>,
}

/// A client, and what its TLS files looked like when it was made.
#[derive(Debug)]
struct Live {
    session: Arc<Session>,
    files: Stamp,
    looked_at: Instant,
}

/// The batch on the way.
#[derive(Debug)]
struct Flight(JoinHandle<Outcome>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.flight = None;
        self.live = Some(self.start()?);
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let Some(last) = batch.last() else { return Ok(()) };
        let session = self.session()?;
        if matches!(self.plan.body, Body::Lines(_))
            && let Some(refused) = refused_for_line_end(batch)
        {
            let outcome = Outcome { taken: Vec::new(), end: Ok(refused) };
            self.flight = Some(Flight(tokio::spawn(std::future::ready(outcome))));
            return Ok(());
        }
        let (lanes, last) = (self.plan.lanes(batch, &self.taken), last.position);
        self.flight = Some(Flight(tokio::spawn(async move { session.deliver(lanes, last).await })));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        let Some(Flight(flight)) = &mut self.flight else { return std::future::pending().await };
        let outcome = flight.await;
        self.flight = None;
        let Ok(Outcome { taken, end }) = outcome else {
            return Err(Stop::unavailable("the request ended in a fault of ours; sending it again"));
        };
        match &end {
            // What comes next lies behind it.
            Ok(Settled::Through(through)) => self.taken = self.taken.split_off(through),
            _ => self.taken.extend(taken),
        }
        end
    }

    /// Connects and agrees on TLS, no more: a request could be taken for an event.
    async fn probe(&mut self) -> Result<(), Stop> {
        self.start()?.session.probe().await
    }

    async fn close(&mut self, grace: Duration) {
        if let Some(Flight(flight)) = &mut self.flight {
            // An answer that comes too late only means that these events are posted again after the restart.
            drop(tokio::time::timeout(grace, flight).await);
        }
        self.flight = None;
        self.live = None;
    }
}

impl HttpSink {
    fn start(&self) -> Result<Live, Stop> {
        let files = self.plan.tls.stamp();
        let session = Arc::new(Session::new(&self.plan, &self.name, self.keys.clone())?);
        Ok(Live { session, files, looked_at: Instant::now() })
    }

    /// The session; a new one where its TLS files changed.
    fn session(&mut self) -> Result<Arc<Session>, Stop> {
        let live = self.live.as_mut().ok_or_else(|| Stop::unavailable("the sink is not open"))?;
        if live.looked_at.elapsed() >= FILES_EVERY {
            live.looked_at = Instant::now();
            if live.files != self.plan.tls.stamp() {
                self.live = Some(self.start()?);
            }
        }
        Ok(Arc::clone(&self.live.as_ref().expect("it was just there").session))
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// Enough that a receiver 20 ms away takes some hundred events a second.
const IN_FLIGHT: usize = 8;
const IN_FLIGHT_MAX: usize = 64;
/// The most that Max Payload Length of QRadar's HTTP Receiver can be; a longer event is split into two, of which none can be read.
const LINE_BYTES_MAX: usize = 32_767;
/// Contract 5: a certificate file that changes is taken up within 10 s.
const FILES_EVERY: Duration = Duration::from_secs(5);
