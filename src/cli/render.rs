//! `render`: shows what a source's adapter makes of a payload, as a sink would get it.
//!
//! Invariants: no network, nothing written, no store: every item is taken for the first of its subject.
//!
//! Not here: what a payload means (`adapter`), how an event looks (`format`).

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use sha2::Digest;

use super::send::{headers_of, source_of};
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD};
use crate::adapter::Outcome;
use crate::config::SourcePlan;
use crate::delivery::Delivery;
use crate::event::{Event, Finding, Hash, Position, SourceId, uid_by_position, uid_of};
use crate::format::{Format, Style, hec};
use crate::ranking::{Candidate, rank};
use crate::secret::{Key, Secret, SecretRef};
use crate::verify::{Found, Headers, NoPublicKeys, Request, Scheme, TokenPlace, verify};

/// Show what a source's adapter makes of a payload. No network, and nothing is written.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay render --source portal --as cef verdict.json\n\n\
    What is no verdict says its class on standard error. Exit code 1 if something in the payload could not be read.")]
pub(super) struct Render {
    /// The source whose adapter reads it.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The format.
    #[arg(long = "as", value_enum, value_name = "FORMAT", default_value = "ocsf")]
    format: As,
    /// One event a line, instead of JSON laid out for a person.
    #[arg(long)]
    json: bool,
    /// A header that came with it, "NAME: VALUE", for adapters that read some; may be given several times.
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The payload; "-" reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum As {
    Ocsf,
    Cef,
    Leef,
    Ecs,
    Hec,
}

impl Render {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let plan = files.plan()?;
        let source = source_of(&plan, &self.source)?;
        let body = read_payload(&self.file)?;
        let received_at = Timestamp::now();
        let kept = source.adapter.headers();
        let delivery = delivery(&source.id, kept, body.into(), &self.headers, received_at)?;
        let outcomes = match source.adapter.normalize(&delivery) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                terminal.say(format_args!("error: {error}; the service would keep it as a dead letter"));
                return Ok(BAD);
            }
        };
        let style = Style::new("verdict-relay");
        let mut code = GOOD;
        for (index, outcome) in (0..).zip(outcomes) {
            match outcome {
                Ok(Outcome::Verdict(finding)) => {
                    let event = first_event(source, &delivery, *finding, Position::new(1, index));
                    self.print(&event, &style, terminal)?;
                }
                Ok(other) => terminal.say(format_args!("item {index}: {}", other.class())),
                Err(error) => {
                    terminal.say(format_args!("error: {error}; the service would keep it as a dead letter"));
                    code = BAD;
                }
            }
        }
        Ok(code)
    }

    fn print(&self, event: &Event, style: &Style, terminal: &mut Terminal) -> anyhow::Result<()> {
        let mut out = Vec::new();
        let format = match self.format {
            As::Ocsf => Some(Format::Ocsf),
            As::Cef => Some(Format::Cef),
            As::Leef => Some(Format::Leef),
            As::Ecs => Some(Format::Ecs),
            As::Hec => None,
        };
        match format {
            Some(format) => format.render(event, style, &mut out),
            None => hec::render(event, style, None, &mut out),
        }
        let is_json = format.is_none_or(Format::is_json);
        if is_json && !self.json {
            let value: serde_json::Value = serde_json::from_slice(&out).context("a rendering is JSON")?;
            terminal.json(&value, true)?;
        } else {
            // A rendering holds no hazard, so this shows it byte for byte.
            terminal.line(String::from_utf8_lossy(&out))?;
        }
        Ok(())
    }
}

/// The file, or standard input for `-`.
pub(super) fn read_payload(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(PAYLOAD_BYTES_MAX).read_to_end(&mut body).context("cannot read standard input")?;
        return Ok(body);
    }
    let file = std::fs::File::open(path).and_then(|file| file.take(PAYLOAD_BYTES_MAX).read_to_end(&mut body));
    file.with_context(|| format!("cannot read {}: check the path", path.display()))?;
    Ok(body)
}

/// The payload as if it had been received. A delivery only exists with a proof, so it gets one of our own.
pub(super) fn delivery(
    source: &SourceId,
    headers_kept: &[&'static str],
    body: Bytes,
    headers: &[String],
    at: Timestamp,
) -> anyhow::Result<Delivery> {
    let scheme = Scheme::Token(TokenPlace::Header { name: PROOF.to_owned(), prefix: String::new() });
    let key = Key { id: SecretRef("render".to_owned()), secret: Secret::new(PROOF.into()) };
    let given: Vec<(String, Vec<u8>)> = headers_of(headers)?
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .chain([(PROOF.to_owned(), PROOF.into())])
        .collect();
    let request = Request {
        headers: &Given(given),
        method: "POST",
        public_url: "",
        target: "",
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certificate_names: &[],
        headers_kept,
        coding: None,
        decoded_bytes_max: 0,
        public_keys: &NoPublicKeys,
    };
    let proven = verify(&scheme, &[key], &request, body, at).map_err(|refusal| anyhow!("{refusal}"))?;
    Ok(Delivery::new(proven, source, at))
}

/// Name and value of the header that proves it to ourselves.
const PROOF: &str = "x-verdict-relay-render";

/// Headers of the command line.
struct Given(Vec<(String, Vec<u8>)>);

impl Headers for Given {
    fn find(&self, name: &str) -> Found<'_> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        match (found.next(), found.next()) {
            (None, _) => Found::Nothing,
            (Some((_, value)), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

/// The event of a finding that is the first of its subject, proven as the source's scheme would have it.
fn first_event(source: &SourcePlan, delivery: &Delivery, finding: Finding, position: Position) -> Event {
    let (auth, received_at) = (source.scheme.auth(), delivery.received_at());
    let uid = uid_of(&source.id, &finding).unwrap_or_else(|| uid_by_position(&source.id, &finding, position));
    let ranked = rank(None, &Candidate { finding: &finding, auth, received_at, position, uid });
    Event {
        uid,
        source: source.id.clone(),
        provider: source.adapter.provider().to_owned(),
        auth,
        received_at,
        effective_at: ranked.effective_at,
        clock_suspect: ranked.clock_suspect,
        raw_sha256: Hash(sha2::Sha256::digest(delivery.body()).into()),
        raw_size: delivery.body().len() as u64,
        finding,
        activity: ranked.activity,
        standing: ranked.standing,
        previous: ranked.previous,
        again: None,
        corrects: None,
        topic: crate::event::Topic::Verdict,
    }
}

/// The largest body that a receiver can be set to take.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;
