//! HTTP to a collector: the client, an answer within its bounds, and what stands in headers.
//!
//! Invariants: a token goes to the configured endpoints only: no redirect is followed, and no proxy from the environment is used.
//!
//! Not here: what an answer means (`answer`), when a request is made (`session`).

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response};

use super::super::{Stop, root_cause};
use super::{HecPlan, POSTS_MAX};
use crate::tls;

/// An answer as far as it can matter.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A client for all endpoints; nothing is connected yet.
pub(super) fn client(plan: &HecPlan) -> Result<Client, Stop> {
    let tls = if plan.endpoints.iter().any(|base| base.starts_with("https://")) {
        plan.tls.load().map_err(|error| Stop::Tls { reason: error.to_string() })?
    } else {
        tls::trusting_nobody()
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(plan.timeout)
        // A token is for the endpoints in the config, and for nobody they point to.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(POSTS_MAX)
        .tcp_keepalive(KEEPALIVE)
        .build()
        .map_err(|error| Stop::Misconfigured { reason: format!("cannot set up HTTP: {}", root_cause(&error)) })
}

/// Sends a request and reads the answer to it.
pub(super) async fn reply_to(request: RequestBuilder) -> Result<Reply, reqwest::Error> {
    let mut response: Response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            // No HEC writes so much: whatever it is, it will not parse.
            break;
        }
    }
    Ok(Reply { status, headers, body })
}

impl Reply {
    /// The wait that a server asks for, in seconds; dates are not understood. Bounded, because a wrong one would stop the sink for good.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
    }
}

/// The header of a token; none if it holds what no header can.
pub(super) fn authorization(token: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Splunk ", token.trim_ascii()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The body, compressed.
pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(GZIP_LEVEL));
    encoder.write_all(body).expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}

/// Whether nothing listens there.
pub(super) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = error.source();
    }
    false
}

/// A random GUID, version 4.
pub(super) fn guid() -> String {
    let mut bytes = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(15);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// A HEC answers in under 200 bytes; an answer to a question for acknowledgements has some 20 for each of at most 1024.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// JSON shrinks to a fifth at level 1; more effort saves little and costs much.
const GZIP_LEVEL: u32 = 1;
