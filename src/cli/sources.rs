//! `sources`: how each source stands, and a sample sent through one.
//!
//! Not here: how a sender signs (`verify`), what is counted (`telemetry`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use super::ask::{Api, Service, TlsFiles};
use super::render::read_payload;
use super::send::{meaning, sender, source_of};
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};

/// Show how each source stands: last delivery, what came, what was refused and why.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example: verdict-relay sources\n\n\
    Counts are since the service started. A refusal's reason is told to nobody but you: a sender only ever sees 401."
)]
pub(super) struct Sources {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    service: Service,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    Test(Test),
}

/// Send one signed sample through a source, and tell what became of it.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay sources test portal\n\n\
    The sample says that the empty file is clean: it goes to the sinks like any other verdict, and no gate stops for it.\n\
    Exit code 0 if it was accepted and read.")]
struct Test {
    /// The source whose sender to be.
    #[arg(value_name = "NAME")]
    source: String,
    /// A body of your own; "-" reads standard input. Default: the platform's sample, where this version has one.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The receiver. Default: receiver.public_url of the config, else receiver.listen.
    #[arg(long, value_name = "URL")]
    receiver: Option<String>,
    #[command(flatten)]
    tls: TlsFiles,
    #[command(flatten)]
    service: Service,
}

impl Sources {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        match self.what {
            Some(What::Test(test)) => test.run(files, terminal),
            None => self.list.run(files, terminal),
        }
    }
}

impl List {
    fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let answer = wait_for(async { self.service.api(files).await?.ask(Method::GET, &["sources"], &[]).await })?;
        if self.json {
            terminal.json(&answer["sources"], true)?;
            return Ok(GOOD);
        }
        let now = Timestamp::now();
        let row = |source: &Value| {
            let text = |name: &str| source[name].as_str().unwrap_or_default().to_owned();
            let items = |name: &str| source["items"][name].to_string();
            let last = source["last_delivery_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            let last = last.map_or_else(|| "-".to_owned(), |at| format!("{} s ago", now.duration_since(at).as_secs()));
            let refused = source["refused"].as_object().into_iter().flatten();
            let refused: Vec<String> = refused.map(|(reason, count)| format!("{reason} {count}")).collect();
            [
                text("name"),
                text("provider"),
                text("auth"),
                last,
                source["requests"]["accepted"].to_string(),
                items("normalized"),
                items("duplicate"),
                items("ignored"),
                items("dead"),
                refused.join(", "),
            ]
        };
        let rows: Vec<_> = answer["sources"].as_array().into_iter().flatten().map(row).collect();
        let head =
            ["SOURCE", "PROVIDER", "AUTH", "LAST", "ACCEPTED", "EVENTS", "DUPLICATE", "IGNORED", "DEAD", "REFUSED"];
        terminal.table(head, &rows)?;
        Ok(GOOD)
    }
}

impl Test {
    fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let plan = files.plan()?;
        let source = source_of(&plan, &self.source)?;
        let body = match &self.file {
            Some(file) => read_payload(file)?,
            None => sample(source.adapter.provider(), Timestamp::now())?,
        };
        wait_for(async {
            let api = self.service.api(files).await?;
            let before = items(&api, &self.source).await?;
            let (sender, keys) = sender(&plan, source, self.receiver.as_deref(), &self.tls, terminal).await?;
            let (status, answer) =
                sender.post(&keys, reqwest::header::HeaderMap::new(), &body).await.context("cannot send the sample")?;
            terminal.line(format_args!("{status} {}", String::from_utf8_lossy(&answer).trim()))?;
            if !(200..300).contains(&status) {
                terminal.say(meaning(status));
                return Ok(BAD);
            }
            let Some((word, _)) = became(&api, &self.source, &before).await? else {
                terminal
                    .say("accepted and durable, but not read within 10 s: does the service run the role normalize?");
                return Ok(BAD);
            };
            terminal.line(format_args!("{word}"))?;
            if word == "dead" {
                terminal.say("the adapter could not read it: `verdict-relay dead-letters list` says why");
                return Ok(BAD);
            }
            Ok(GOOD)
        })
    }
}

/// What became of the items of a source's messages, by word.
async fn items(api: &Api, source: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let answer = api.ask(Method::GET, &["sources"], &[]).await?;
    let one = answer["sources"].as_array().into_iter().flatten().find(|one| one["name"] == source);
    let one = one.with_context(|| {
        format!("the running service has no source \"{source}\": restart it with this config, or name its --url")
    })?;
    let items = one["items"].as_object().into_iter().flatten();
    Ok(items.map(|(word, count)| (word.clone(), count.as_u64().unwrap_or_default())).collect())
}

/// Waits for the count that rises first.
async fn became(api: &Api, source: &str, before: &[(String, u64)]) -> anyhow::Result<Option<(String, u64)>> {
    for _ in 0..100 {
        let now = items(api, source).await?;
        if let Some(risen) = now.into_iter().zip(before).find(|(now, before)| now.1 > before.1) {
            return Ok(Some(risen.0));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}

/// A message of this platform that says that the empty file is clean.
fn sample(provider: &str, now: Timestamp) -> anyhow::Result<Vec<u8>> {
    let Some((_, body)) = SAMPLES.iter().find(|(name, _)| *name == provider) else {
        let names: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
        bail!(
            "this version has no sample of {provider} (it has {}): name a file with one of its messages",
            names.join(", ")
        )
    };
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Ok(body.replace("@TIME", &at).replace("@EPOCH", &now.as_second().to_string()).into_bytes())
}

/// Platforms and their messages, without line ends so that they can be compared with what arrives.
const SAMPLES: [(&str, &str); 3] = [
    (
        "Vile Analyziz",
        r#"{"event":"analysis.completed","eventId":"evt_sample_@EPOCH","file":{"fileName":"empty","sizeBytes":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","status":"completed","analyzedAt":"@TIME","verdict":"Clean","trustScore":100}}"#,
    ),
    (
        "native",
        r#"{"subject":{"type":"file","sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","name":"empty"},"verdict":"clean","analysed_at":"@TIME","event_id":"sample-@EPOCH"}"#,
    ),
    (
        "VirusTotal",
        r#"{"data":{"type":"file","id":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","attributes":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"meaningful_name":"empty","last_analysis_date":@EPOCH,"last_analysis_stats":{"malicious":0,"suspicious":0,"undetected":60,"harmless":0}}}}"#,
    ),
];
