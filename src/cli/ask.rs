//! Asks a running service: by its API with a token, or at its receiver as a sender would.
//!
//! Invariants: a token goes to the named address only (no redirects, no proxy); it is named by a reference, and its value stands
//! in no argument, line or error; every request has its time limit, every answer its bound.
//!
//! Not here: what is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Client, Method, RequestBuilder, Url};
use serde_json::Value;

use super::Files;
use super::terminal::shown;
use crate::secret::{KeyRing, SecretRef};
use crate::tls::{self, ClientTlsConfig};
use crate::upload::FileBody;

/// Which service to ask, and by which right.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// The service's private listener. Default: api.listen of the config.
    #[arg(long, env = "VERDICT_RELAY_URL", value_name = "URL")]
    url: Option<String>,
    /// Reference to a token: env:NAME or file:PATH. Default: VERDICT_RELAY_TOKEN (such a reference, or the token itself), else the
    /// token that the running service keeps for its own user in the folder of its store.
    #[arg(long, value_name = "REF")]
    token: Option<String>,
}

/// A service's API.
pub(super) struct Api {
    base: Url,
    token: Option<HeaderValue>,
    client: Client,
}

impl Service {
    /// The API of the service that is meant.
    pub(super) async fn api(&self, files: &Files) -> anyhow::Result<Api> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => files.plan().context("say which service with --url, or name its config with --config")?.api_url(),
        };
        let base = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base =
            base.with_context(|| format!("{url} is no address of a service: write it like http://127.0.0.1:8081"))?;
        let client = client(&base, &ClientTlsConfig::default())?;
        Ok(Api { token: self.token(files, &base).await?, base, client })
    }

    async fn token(&self, files: &Files, base: &Url) -> anyhow::Result<Option<HeaderValue>> {
        if let Some(reference) = &self.token {
            return value_of(reference).await.map(Some);
        }
        let in_environment = KeyRing::open(vec![SecretRef(VARIABLE.to_owned())], true, Timestamp::now()).await;
        if let Some(key) = in_environment.keys().first() {
            let text = String::from_utf8_lossy(key.secret.expose()).into_owned();
            return match SecretRef(text.clone()).check() {
                Ok(()) => value_of(&text).await.map(Some),
                Err(_) => header_of(VARIABLE, key.secret.expose()).map(Some),
            };
        }
        // Without the token of a service on this machine, what is open to loopback can still be asked.
        let Ok(plan) = files.plan() else { return Ok(None) };
        let is_here = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if self.url.is_some() && !is_here {
            // The token of the service on this machine is nobody else's.
            return Ok(None);
        }
        let file = plan.api_token_file();
        if file.exists() { value_of(&format!("file:{}", file.display())).await.map(Some) } else { Ok(None) }
    }
}

async fn value_of(reference: &str) -> anyhow::Result<HeaderValue> {
    let ring = KeyRing::open(vec![SecretRef(reference.to_owned())], true, Timestamp::now()).await;
    match ring.keys().first() {
        Some(key) => header_of(reference, key.secret.expose()),
        None => match ring.states().await.into_iter().find_map(|state| state.error) {
            Some(error) => Err(error).context("the token cannot be read"),
            None => bail!("the token cannot be read"),
        },
    }
}

fn header_of(reference: &str, token: &[u8]) -> anyhow::Result<HeaderValue> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat());
    let mut value =
        value.ok().with_context(|| format!("{reference} is no token: it holds characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Api {
    /// Asks for `path` (segments without slashes) and gives the JSON of a good answer.
    pub(super) async fn ask(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.answer(self.request(method, path, query)).await
    }

    /// Posts JSON, and gives the JSON of a good answer.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path, &[]).header(CONTENT_TYPE, "application/json");
        self.answer(request.body(body.to_string())).await
    }

    /// Posts a file of that many bytes, and gives the JSON of a good answer.
    pub(super) async fn upload(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        file: FileBody,
        bytes: u64,
    ) -> anyhow::Result<Value> {
        // To the service, and from there to the platform, each on a slow line.
        let timeout = UPLOAD_TIMEOUT + Duration::from_secs(bytes / (64 << 10));
        let request = self.request(Method::POST, path, query).header(CONTENT_TYPE, "application/octet-stream");
        self.answer(request.timeout(timeout).body(Body::wrap(file))).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("http has a path").pop_if_empty().push("v1").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(method, url).header(ACCEPT, "application/json");
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token),
            None => request,
        }
    }

    async fn answer(&self, mut request: RequestBuilder) -> anyhow::Result<Value> {
        let mut tries = 0;
        let (status, body) = loop {
            // One that streams a file cannot be sent again.
            let again = request.try_clone().filter(|_| tries < PATIENCE);
            let answer = answer_of(request).await.with_context(|| {
                format!("no answer from {}: is the service running, and is this its api.listen?", self.base)
            })?;
            match again {
                Some(again) if answer.0 == 429 => request = again,
                _ => break answer,
            }
            tries += 1;
            tokio::time::sleep(RATE_PAUSE).await;
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) && !answer.is_null() {
            return Ok(answer);
        }
        let words = answer["detail"].as_str().unwrap_or("not by a Verdict Relay, it seems: check the address");
        let next = match status {
            401 if self.token.is_none() => {
                "; name a token with --token, or run this as the service's user with its --config"
            }
            401 => "; the token is not one of this service: a restart makes a new one for the command line",
            _ => "",
        };
        bail!("{} answered {status}: {}{next}", self.base, shown(words))
    }
}

/// A client for `url`, without redirects, and without a proxy where the address is on this machine.
pub(super) fn client(url: &Url, tls: &ClientTlsConfig) -> anyhow::Result<Client> {
    let mut builder =
        Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "https" {
        let tls = tls.clone().plan("tls").map_err(|problems| anyhow::anyhow!("{}", problems[0]))?.load()?;
        builder = builder.tls_backend_preconfigured(tls);
    } else {
        builder = builder.tls_backend_preconfigured(tls::trusting_nobody()).no_proxy();
    }
    builder.build().context("cannot set up HTTP")
}

/// Status and body of the answer; of a body that is too large, the beginning.
pub(super) async fn answer_of(request: RequestBuilder) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut response = request.send().await.map_err(|error| told(&error))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((status, body))
}

/// The error in the words of its innermost cause, and what to mend where it is TLS.
fn told(error: &reqwest::Error) -> anyhow::Error {
    if let Some(why) = tls::why(error) {
        return anyhow::anyhow!("{why}");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    anyhow::anyhow!("{cause}")
}

/// TLS of a client whose files stand on the command line.
#[derive(Debug, Args)]
pub(super) struct TlsFiles {
    /// PEM file with the authorities of the receiver's certificate, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate, for sources with scheme = "mtls".
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl TlsFiles {
    /// As a config would say it.
    pub(super) fn config(&self) -> ClientTlsConfig {
        let own = |path: &Option<PathBuf>| path.as_deref().map(Path::to_owned);
        ClientTlsConfig {
            ca: own(&self.ca),
            certificate: own(&self.certificate),
            key: own(&self.key),
            ..ClientTlsConfig::default()
        }
    }
}

const VARIABLE: &str = "env:VERDICT_RELAY_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the receiver's own deadline of 3 s and a slow upload of a large body.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Beside the time that the bytes take: the platform answers each of three questions within its own timeout of at most 5 minutes.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(20);
/// A page of dead letters with reasons of 1 KiB each, and one dead letter with a body of 10 MiB.
/// How often, and how far apart, to come back to a service that limits the rate of what is asked.
const PATIENCE: u32 = 60;
const RATE_PAUSE: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 64 << 20;
