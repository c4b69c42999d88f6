//! Questions to publishers over HTTP: GET, without redirects, within a size and a time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, StatusCode};

use super::FetchError;
use crate::tls::{self, ClientTls, Stamp};

/// A client that is made anew when a file of its TLS changes.
#[derive(Debug)]
pub(super) struct Web {
    tls: ClientTls,
    client: Mutex<Option<(Stamp, Client)>>,
}

impl Web {
    pub(super) const fn new(tls: ClientTls) -> Self {
        Self { tls, client: Mutex::new(None) }
    }

    /// The TLS that connections are made with.
    pub(super) const fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// The body of a good answer, at most `bytes_max` of it.
    pub(super) async fn get(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let mut response = self.client()?.get(url).send().await.map_err(|error| unreachable_at(url, &error))?;
        match response.status() {
            StatusCode::OK => {}
            // S3 says 403 for what is not there.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => return Err(FetchError::Absent),
            status => return Err(FetchError::Unreachable(format!("{} answered {}", host_of(url), status.as_u16()))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_at(url, &error))? {
            body.extend_from_slice(&chunk);
            if body.len() > bytes_max {
                return Err(FetchError::Unusable(format!(
                    "{} answered with more than {bytes_max} bytes",
                    host_of(url)
                )));
            }
        }
        Ok(body)
    }

    /// Whether anything answers there, whatever it says.
    pub(super) async fn reach(&self, url: &str) -> Result<(), FetchError> {
        self.client()?.get(url).send().await.map(|_| ()).map_err(|error| unreachable_at(url, &error))
    }

    fn client(&self) -> Result<Client, FetchError> {
        let mut live = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.tls.stamp();
        if let Some((made_of, client)) = live.as_ref()
            && *made_of == stamp
        {
            return Ok(client.clone());
        }
        let trouble = |words: String| FetchError::Unreachable(words);
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // Questions are rare; a connection that is kept would mostly be found closed.
            .pool_max_idle_per_host(0)
            .tls_backend_preconfigured(self.tls.load().map_err(|error| trouble(error.to_string()))?)
            .build()
            .map_err(|error| trouble(format!("cannot set up HTTP: {error}")))?;
        *live = Some((stamp, client.clone()));
        Ok(client)
    }
}

/// The trouble in the words of its cause. Never the URL, which may hold a token.
fn unreachable_at(url: &str, error: &reqwest::Error) -> FetchError {
    let words = tls::why(error).unwrap_or_else(|| {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        cause.to_string()
    });
    FetchError::Unreachable(format!("{} cannot be reached: {words}", host_of(url)))
}

/// The host of a URL, for words.
pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
