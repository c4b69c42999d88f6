//! `send`: posts a file as a source's sender would, signed, to try a source out or to deliver something again.
//!
//! Not here: how a sender signs (`verify`).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};

use super::ask::{TlsFiles, answer_of, client};
use super::render::read_payload;
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};
use crate::config::{Plan, SourcePlan};
use crate::secret::{Key, KeyRing};
use crate::verify::{Outgoing, Scheme, sign, sign_query};

/// Sign a file as a source's sender would, and post it to the receiver.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay send --source portal verdict.json\n\n\
    The answer is printed; exit code 0 if every one was 2xx. Each delivery has an id of its own, so none is an exact repeat.")]
pub(super) struct Send {
    /// The source whose sender to be.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The body; "-" reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The receiver. Default: receiver.public_url of the config, else receiver.listen.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// A header to add, "NAME: VALUE", for adapters that read some; may be given several times.
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    #[command(flatten)]
    tls: TlsFiles,
}

impl Send {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let plan = files.plan()?;
        let source = source_of(&plan, &self.source)?;
        let body = read_payload(&self.file)?;
        let extra = headers_of(&self.headers)?;
        wait_for(async {
            let (sender, keys) = sender(&plan, source, self.url.as_deref(), &self.tls, terminal).await?;
            let mut code = GOOD;
            for _ in 0..self.count {
                let sent = sender.post(&keys, extra.clone(), &body).await;
                let (status, answer) = sent.with_context(|| format!("cannot send to {}", sender.url))?;
                terminal.line(format_args!("{status} {}", String::from_utf8_lossy(&answer).trim()))?;
                if !(200..300).contains(&status) {
                    terminal.say(meaning(status));
                    code = BAD;
                }
            }
            Ok(code)
        })
    }
}

/// A sender of this source, and the keys it signs with. `receiver` is where to, if not where the config says.
pub(super) async fn sender(
    plan: &Plan,
    source: &SourcePlan,
    receiver: Option<&str>,
    tls: &TlsFiles,
    terminal: &mut Terminal,
) -> anyhow::Result<(Sender, Arc<Vec<Key>>)> {
    if let Some(why) = source.scheme.why_not_signed() {
        bail!(
            "{why}, so there is nothing to sign with here: try the adapter with `render`, or send from a source with another proof and the same adapter"
        );
    }
    let target = format!("/v1/hooks/{}", source.id);
    let base = receiver.map_or_else(|| plan.receiver_url(), str::to_owned);
    let base = base.trim_end_matches('/').trim_end_matches(&target);
    let url = Url::parse(&format!("{base}{target}")).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url =
        url.with_context(|| format!("{base} is no address of a receiver: write it like http://127.0.0.1:8080"))?;
    // What is signed is the URL that the receiver believes to have, whichever way we reach it.
    let signed_url = format!("{}{target}", plan.receiver.public_url);
    let client = client(&url, &tls.config())?;
    let ring = KeyRing::open(source.secrets.clone(), source.allow_short_secret, Timestamp::now()).await;
    for error in ring.states().await.into_iter().filter_map(|state| state.error) {
        terminal.say(format_args!("warning: {error}"));
    }
    Ok((Sender { client, url, signed_url, scheme: source.scheme.clone() }, ring.keys()))
}

/// Sends as one source's sender would.
pub(super) struct Sender {
    pub(super) client: Client,
    /// Where to.
    pub(super) url: Url,
    /// What is signed as the URL, where the scheme signs it.
    pub(super) signed_url: String,
    /// How it signs.
    pub(super) scheme: Scheme,
}

impl Sender {
    /// Posts the body once, signed with the first of the keys under a new id; status and answer.
    pub(super) async fn post(&self, keys: &[Key], extra: HeaderMap, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let id = format!("msg_{:032x}", fastrand::u128(..));
        let message = Outgoing { method: "POST", url: &self.signed_url, id: &id, body };
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for (name, value) in sign(&self.scheme, keys, &message, Timestamp::now())? {
            let mut value = HeaderValue::from_str(&value).context("the secret makes no valid header")?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).context("the header of the proof")?, value);
        }
        headers.extend(extra);
        let mut url = self.url.clone();
        if let Some(query) = sign_query(&self.scheme, keys)? {
            url.set_query(Some(&query));
        }
        answer_of(self.client.post(url).headers(headers).body(body.to_vec())).await
    }
}

/// The source of this name.
pub(super) fn source_of<'p>(plan: &'p Plan, name: &str) -> anyhow::Result<&'p SourcePlan> {
    if let Some(source) = plan.sources.iter().find(|source| source.id.as_str() == name) {
        return Ok(source);
    }
    let known: Vec<&str> = plan.sources.iter().map(|source| source.id.as_str()).collect();
    bail!(
        "the config has no source \"{name}\"; it has {}",
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )
}

/// Headers as they are written on a command line.
pub(super) fn headers_of(written: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for text in written {
        let pair = text.split_once(':').and_then(|(name, value)| {
            Some((HeaderName::try_from(name.trim()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = pair.with_context(|| format!("{text} is no header: write it like \"ce-id: 4711\""))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What an answer that is no success means, and what to do.
pub(super) const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "400: the request did not arrive whole: look for a proxy between here and the receiver",
        401 => {
            "401: not proven. The receiver does not say why; its log does, once a source and reason. Compare the secrets, the clocks and the source's name of this config and the running one"
        }
        404 => "404: this is not the receiver: check the address and the path",
        405 => "405: something between here and the receiver changed the method",
        413 => "413: the body is larger than receiver.body_max",
        415 => "415: the source takes no bodies that are compressed so: see its verify.over",
        429 => "429: over the source's rate_limit: come again later",
        503 => {
            "503: the receiver's own trouble: its log says which; `verdict-relay store inspect` shows whether the store is full"
        }
        _ => "the answer is none of a Verdict Relay's receiver: check the address",
    }
}
