//! The HTTP client towards one platform: one configured origin, one key a request, bounded answers.
//!
//! Invariants: a request goes to the configured origin only, without redirects and without a proxy from the environment; what stands in
//! a path was escaped; a key stands in a header that is marked sensitive, or in the one path whose errors are never told; an answer
//! that is larger than its bound is given up.
//!
//! Not here: which paths there are (`platform`), what an answer means (`answer`), which key is used (`keys`).

mod upload;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};

use super::platform::{Platform, Question};
use crate::setting::Span;
use crate::tls::{self, ClientTls, Stamp};

pub(super) use self::upload::{Content, Place};

/// Where an API is: scheme, host, port, and the path before the API's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base(Url);

impl Base {
    /// Reads it as an operator writes it; what is wrong with it, otherwise.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            // Not shown: a password may stand there.
            return Err("a URL holds no user or password: the key is a reference of its own".to_owned());
        }
        let wrong =
            |why: &str| format!("\"{text}\" is no address of an API ({why}): write it like \"https://cape.internal\"");
        let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it needs https and a host"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("no query and no fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }

    /// Whether requests travel without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Whether it is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    fn url_of(&self, question: &Question) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&question.path);
        }
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&question.query);
        }
        url
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// What a platform answered.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: u16,
    /// Whether it is a web page and no answer of an API.
    pub(super) is_page: bool,
    /// How long it asks us to wait.
    pub(super) retry_after: Option<Duration>,
    /// What is left of a quota, where a header says it.
    pub(super) remaining: Option<u64>,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It cannot be reached now.
    Unavailable(String),
    /// There is no trusted connection.
    Tls(String),
    /// The answer is larger than its bound.
    TooLarge,
    /// The key cannot stand in a header.
    Key,
}

/// A client with its TLS files.
#[derive(Debug)]
pub(super) struct Client {
    base: Base,
    platform: Platform,
    user: Option<String>,
    timeout: Duration,
    tls: ClientTls,
    http: Option<reqwest::Client>,
    files: (Stamp, Instant),
}

impl Client {
    pub(super) fn new(base: Base, platform: Platform, user: Option<String>, timeout: Duration, tls: ClientTls) -> Self {
        let files = (tls.stamp(), Instant::now());
        Self { base, platform, user, timeout, tls, http: None, files }
    }

    /// Asks one question with this key.
    pub(super) async fn ask(&mut self, question: &Question, key: &[u8], now: Timestamp) -> Result<Raw, Failure> {
        let headers = self.headers(key)?;
        let url = self.base.url_of(question);
        let http = self.http()?;
        let response = http.get(url).headers(headers).send().await.map_err(|error| self.failure(error))?;
        self.read(response, question.bytes_max, now).await
    }

    /// The headers of a question, with its key.
    fn headers(&self, key: &[u8]) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.platform.headers(key, self.user.as_deref()) {
            let mut value = HeaderValue::from_bytes(&value).map_err(|_| Failure::Key)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(headers)
    }

    /// What came back; of a good answer at most `bytes_max`.
    async fn read(&self, mut response: reqwest::Response, bytes_max: usize, now: Timestamp) -> Result<Raw, Failure> {
        let status = response.status().as_u16();
        let found = response.headers();
        let (retry_after, remaining) = waits(found, now);
        let kind = found.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_page = kind.trim_start().to_ascii_lowercase().starts_with("text/html");
        // A refusal in many words says no more than its beginning.
        let bytes_max = if status == 200 { bytes_max } else { REFUSAL_BYTES_MAX };
        if status == 200 && response.content_length().is_some_and(|length| length > bytes_max as u64) {
            return Err(Failure::TooLarge);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(error))? {
            let room = bytes_max.saturating_sub(body.len());
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                if status == 200 {
                    return Err(Failure::TooLarge);
                }
                break;
            }
        }
        Ok(Raw { status, is_page, retry_after, remaining, body: body.freeze() })
    }

    /// The client; a new one where its TLS files changed.
    fn http(&mut self) -> Result<reqwest::Client, Failure> {
        if self.files.1.elapsed() >= FILES_EVERY {
            let stamp = self.tls.stamp();
            if stamp != self.files.0 {
                self.http = None;
            }
            self.files = (stamp, Instant::now());
        }
        if let Some(http) = &self.http {
            return Ok(http.clone());
        }
        let tls = if self.base.is_plain() {
            tls::trusting_nobody()
        } else {
            self.tls.load().map_err(|error| Failure::Tls(error.to_string()))?
        };
        let http = http_with(tls, self.timeout)?;
        self.http = Some(http.clone());
        Ok(http)
    }

    fn failure(&self, error: reqwest::Error) -> Failure {
        // The URL may hold the key: VirusTotal's quotas are asked for by it.
        let error = error.without_url();
        let place = self.base.origin();
        if let Some(why) = tls::why(&error) {
            return Failure::Tls(format!("{place}: {why}"));
        }
        Failure::Unavailable(if error.is_timeout() && !error.is_connect() {
            format!("{place} gave no answer within {}", Span(self.timeout))
        } else {
            let what = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
            format!("{what} {place}: {}", cause(&error))
        })
    }
}

fn http_with(tls: rustls::ClientConfig, timeout: Duration) -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        // A key is for the platform in the config, and for nobody it points to.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| Failure::Unavailable(format!("cannot set up HTTP: {}", cause(&error))))
}

/// The innermost cause in its own words.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The wait that a platform asks for, and what is left of its quota: `Retry-After` in seconds or as a date, else the reset of a quota
/// that is used up. Known names are `X-RateLimit-*`, `X-Rate-Limit-*` and `RateLimit-*` (IETF draft); a reset is an epoch, a span or a
/// time.
fn waits(headers: &HeaderMap, now: Timestamp) -> (Option<Duration>, Option<u64>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let any = |end: &str| {
        ["x-ratelimit-", "x-rate-limit-", "ratelimit-"].into_iter().find_map(|begin| text(&format!("{begin}{end}")))
    };
    let remaining: Option<u64> = any("remaining").and_then(|left| left.parse().ok());
    let told = text("retry-after").and_then(|wait| wait_of(wait, now));
    let reset = any("reset").filter(|_| remaining == Some(0)).and_then(|reset| wait_of(reset, now));
    (told.or(reset), remaining)
}

/// A wait that is written as seconds, epoch, ISO time or HTTP date; never longer than a month.
fn wait_of(text: &str, now: Timestamp) -> Option<Duration> {
    let until = |at: Timestamp| at.duration_since(now);
    let wait = match text.parse::<i64>() {
        Ok(number) if number > EPOCH_MIN => until(Timestamp::from_second(number).ok()?),
        Ok(number) => SignedDuration::from_secs(number),
        Err(_) => match text.parse::<Timestamp>() {
            Ok(at) => until(at),
            Err(_) => until(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()),
        },
    };
    Some(wait.unsigned_abs().min(WAIT_MAX)).filter(|_| !wait.is_negative())
}

const AGENT: &str = concat!("verdict-relay/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Contract 5: a certificate file that changes is taken up within 10 s.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// Of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// A larger number is no span of seconds but a time.
const EPOCH_MIN: i64 = 1_000_000_000;
/// The longest window of a quota.
const WAIT_MAX: Duration = Duration::from_hours(24 * 31);

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_774_267_200).expect("in range")
    }

    #[test]
    fn a_wait_is_read_in_every_form_that_platforms_use() {
        let wait = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
            headers.insert(name, HeaderValue::from_str(value).expect("a header"));
            waits(&headers, now()).0.map(|wait| wait.as_secs())
        };
        for (name, value, seconds) in [
            ("retry-after", "30", Some(30)),
            ("retry-after", "Mon, 23 Mar 2026 12:01:00 GMT", Some(60)),
            ("retry-after", "soon", None),
            ("retry-after", "-5", None),
            ("x-ratelimit-reset", "1774267290", Some(90)),
            ("x-rate-limit-reset", "2026-03-23T12:02:00Z", Some(120)),
            ("ratelimit-reset", "45", Some(45)),
            ("x-ratelimit-reset", "99999999999", Some(WAIT_MAX.as_secs())),
        ] {
            assert_eq!(wait(name, value), seconds, "{name}: {value}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("7"));
        headers.insert("x-ratelimit-reset", HeaderValue::from_static("60"));
        assert_eq!(waits(&headers, now()), (None, Some(7)), "there is something left, so nobody has to wait");
    }

    #[test]
    fn an_id_stays_in_its_segment_and_the_origin_stays_the_configured_one() {
        let base = Base::parse("https://private.tria.ge/api/").expect("a URL");
        let question = Question {
            path: ["v0", "samples", "../..//evil?x#y%", "overview.json"].map(str::to_owned).into(),
            query: vec![("filter", "date:2026-03-23T12:00:00+ a&b=c".to_owned())],
            bytes_max: 1,
        };
        let url = base.url_of(&question);
        assert_eq!(
            url.as_str(),
            "https://private.tria.ge/api/v0/samples/..%2F..%2F%2Fevil%3Fx%23y%25/overview.json?filter=date%3A2026-03-23T12%3A00%3A00%2B+a%26b%3Dc"
        );
        let slash = Question { path: ["a", ""].map(str::to_owned).into(), query: Vec::new(), bytes_max: 1 };
        assert_eq!(Base::parse("http://[::1]:81").expect("a URL").url_of(&slash).as_str(), "http://[::1]:81/a/");
    }
}
