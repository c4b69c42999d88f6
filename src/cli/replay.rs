//! `replay` and `renormalize`: tell a receiver again what it was told, or read again what a source sent.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::ask::{Api, Service};
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};
use crate::setting::Span;

/// Send stored events to one sink again, marked as replayed.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay replay --sink splunk --since 2h --where '.severity_id >= 4'\n\n\
    The events keep their uid and carry unmapped.replay = true (replay=true in LEEF, verdictRelayReplay in CEF), so a receiver can tell\n\
    them apart. The sink's own `where` does not apply. At most 500 a second are sent, behind what is waiting; the service goes on with it\n\
    when this command is interrupted, and after a restart.")]
pub(super) struct Replay {
    #[command(flatten)]
    service: Service,
    /// The sink.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["stop", "list"])]
    sink: Option<String>,
    /// Events that were received from then on: a time (2026-03-23T12:00:00Z), or how long ago (2h).
    #[arg(long, value_name = "TIME", requires = "sink", required_unless_present_any = ["stop", "list"], value_parser = time)]
    since: Option<Timestamp>,
    /// Events that were received before then; all by default.
    #[arg(long, value_name = "TIME", requires = "sink", value_parser = time)]
    until: Option<Timestamp>,
    /// Only events for which this jq holds; it sees an event as OCSF.
    #[arg(long = "where", value_name = "JQ", requires = "sink")]
    condition: Option<String>,
    /// End as soon as the service has written it down.
    #[arg(long)]
    no_wait: bool,
    /// Stop a replay or renormalization; what it has sent stays sent.
    #[arg(long, value_name = "ID", conflicts_with_all = ["sink", "list"])]
    stop: Option<String>,
    /// List replays and renormalizations.
    #[arg(long, conflicts_with = "sink")]
    list: bool,
    /// With --list: print JSON instead of a table.
    #[arg(long, requires = "list")]
    json: bool,
}

/// Read a source's stored deliveries with today's adapter, and emit only what differs.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay renormalize --source portal --since 7d\n\n\
    For use after an adapter, its options or a pack was mended. Each event that differs is emitted to every sink with a uid of its own and\n\
    names the uid it corrects in unmapped.corrects. Reaches back as far as store.retention. `replay --list` and `replay --stop` show and\n\
    stop it.")]
pub(super) struct Renormalize {
    #[command(flatten)]
    service: Service,
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Deliveries that were received from then on: a time (2026-03-23T12:00:00Z), or how long ago (7d).
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Timestamp,
    /// End as soon as the service has written it down.
    #[arg(long)]
    no_wait: bool,
}

impl Replay {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        wait_for(async {
            let api = self.service.api(files).await?;
            if let Some(id) = &self.stop {
                api.ask(Method::DELETE, &["replays", id], &[]).await.with_context(|| format!("job {id}"))?;
                terminal.line(format_args!("{id} stopped"))?;
                return Ok(GOOD);
            }
            if self.list {
                return list(&api, self.json, terminal).await;
            }
            let body = json!({
                "sink": self.sink, "since": self.since, "until": self.until, "where": self.condition,
            });
            begin(&api, "replays", &body, !self.no_wait, terminal).await
        })
    }
}

impl Renormalize {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        wait_for(async {
            let api = self.service.api(files).await?;
            let body = json!({ "source": self.source, "since": self.since });
            begin(&api, "renormalizations", &body, !self.no_wait, terminal).await
        })
    }
}

/// A time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: Span = text.parse().map_err(|_| {
        format!("\"{text}\" is no time: write it like 2026-03-23T12:00:00Z, or like 2h for two hours ago")
    })?;
    Timestamp::now().checked_sub(ago.0).map_err(|_| "that long ago there was nothing".to_owned())
}

/// Begins a job and follows it to its end.
async fn begin(api: &Api, path: &str, body: &Value, wait: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let answer = api.post(&[path], body).await?;
    let id = answer["attempt"].as_str().unwrap_or_default().to_owned();
    if !wait {
        terminal.line(format_args!("{id} running"))?;
        return Ok(GOOD);
    }
    terminal.say(format_args!("job {id}; the service goes on with it if this is interrupted"));
    loop {
        tokio::time::sleep(LOOK).await;
        let jobs = jobs(api).await?;
        // Written down and not begun yet, or so long ended that nobody knows it any more.
        let Some(job) = jobs.iter().find(|job| job["id"] == id.as_str()) else { continue };
        let found = job["found"].as_u64().unwrap_or_default();
        match job["state"].as_str() {
            Some("running") => terminal.progress(format_args!("{found} events")),
            state => {
                let state = state.unwrap_or("in an unknown state");
                terminal.line(format_args!("{id} {state} {found} events"))?;
                return Ok(if state == "done" { GOOD } else { BAD });
            }
        }
    }
}

async fn jobs(api: &Api) -> anyhow::Result<Vec<Value>> {
    let mut answer = api.ask(Method::GET, &["replays"], &[]).await?;
    let Value::Array(jobs) = answer["replays"].take() else { bail!("the service answered without a list") };
    Ok(jobs)
}

async fn list(api: &Api, json: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let jobs = jobs(api).await?;
    if json {
        terminal.json(&jobs, true)?;
        return Ok(GOOD);
    }
    let row = |job: &Value| {
        let text = |key: &str| job[key].as_str().unwrap_or("-").to_owned();
        let of = job["sink"].as_str().or(job["source"].as_str()).unwrap_or("-").to_owned();
        [text("id"), text("work"), of, text("since"), text("until"), job["found"].to_string(), text("state")]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    if rows.is_empty() {
        terminal.say("there are no replays and no renormalizations");
    } else {
        terminal.table(["ID", "WORK", "OF", "SINCE", "UNTIL", "EVENTS", "STATE"], &rows)?;
    }
    Ok(GOOD)
}

const LOOK: Duration = Duration::from_millis(500);
