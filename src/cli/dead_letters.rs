//! `dead-letters`: what could not be read or delivered, and what becomes of it.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::ask::{Api, Service};
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};

/// List, show, redrive or drop what could not be read or delivered.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay dead-letters list\n\n\
    A dead letter keeps what failed, with the reason, until an operator decides or store.dead_letters.age has passed.")]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all of them, with the reason.
    #[command(after_help = "Example: verdict-relay dead-letters list --json")]
    List {
        #[command(flatten)]
        service: Service,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show one with what it keeps: the message as it was received, or the event.
    #[command(after_help = "Example: verdict-relay dead-letters show n-4711")]
    Show {
        #[command(flatten)]
        service: Service,
        /// Its id.
        #[arg(value_name = "ID")]
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try again: a message with today's adapter, an event at the sink that refused it.
    #[command(after_help = "Example: verdict-relay dead-letters redrive n-4711\n\n\
        The service has written the request down when this ends, and does it next, at most 50 a second. A letter stays until it has\n\
        gone through; what fails again keeps its id and counts one more try.")]
    Redrive {
        #[command(flatten)]
        service: Service,
        /// Their ids.
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that are not being tried already.
        #[arg(long)]
        all: bool,
    },
    /// Forget some for good.
    #[command(after_help = "Example: verdict-relay dead-letters drop n-4711")]
    Drop {
        #[command(flatten)]
        service: Service,
        /// Their ids.
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

impl DeadLetters {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        wait_for(async {
            match self.action {
                Action::List { service, json } => list(&service.api(files).await?, json, terminal).await,
                Action::Show { service, id, json } => show(&service.api(files).await?, &id, json, terminal).await,
                Action::Redrive { service, ids, all } => {
                    let api = service.api(files).await?;
                    let ids = if all { all_ids(&api).await? } else { ids };
                    each(&api, &ids, &Method::POST, terminal).await
                }
                Action::Drop { service, ids } => {
                    each(&service.api(files).await?, &ids, &Method::DELETE, terminal).await
                }
            }
        })
    }
}

async fn list(api: &Api, json: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let letters = all(api).await?;
    if json {
        terminal.json(&letters, true)?;
        return Ok(GOOD);
    }
    let row = |letter: &Value| {
        ["id", "stage", "sink", "source", "attempts", "last_at", "reason"].map(|key| cell(&letter[key]))
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    if rows.is_empty() {
        terminal.say("there are no dead letters");
    } else {
        terminal.table(["ID", "STAGE", "SINK", "SOURCE", "TRIES", "LAST", "REASON"], &rows)?;
    }
    Ok(GOOD)
}

/// A value in a table: texts bare, nothing as a dash.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every dead letter, page by page.
async fn all(api: &Api) -> anyhow::Result<Vec<Value>> {
    let mut letters: Vec<Value> = Vec::new();
    loop {
        let last = letters.last().and_then(|letter| letter["id"].as_str()).map(str::to_owned);
        let after = last.as_deref().map(|id| ("after", id));
        let mut answer = api.ask(Method::GET, &["dead-letters"], after.as_slice()).await?;
        let Value::Array(page) = answer["dead_letters"].take() else { bail!("the service answered without a list") };
        if page.is_empty() || letters.len() >= LETTERS_MAX {
            return Ok(letters);
        }
        letters.extend(page);
    }
}

async fn all_ids(api: &Api) -> anyhow::Result<Vec<String>> {
    let letters = all(api).await?;
    let waits = letters.iter().filter(|letter| letter["attempt"].is_null());
    Ok(waits.filter_map(|letter| letter["id"].as_str().map(str::to_owned)).collect())
}

async fn show(api: &Api, id: &str, json: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let letter = api.ask(Method::GET, &["dead-letters", id], &[]).await.with_context(|| format!("dead letter {id}"))?;
    if json {
        terminal.json(&letter, true)?;
        return Ok(GOOD);
    }
    for key in ["id", "stage", "sink", "source", "position", "attempts", "first_at", "last_at", "attempt", "reason"] {
        terminal.line(format_args!("{key:<9} {}", cell(&letter[key])))?;
    }
    terminal.line("")?;
    for line in letter["raw"].as_str().unwrap_or_default().lines() {
        terminal.line(line)?;
    }
    Ok(GOOD)
}

/// Redrives or drops each; one that fails does not keep the others back.
async fn each(api: &Api, ids: &[String], method: &Method, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let mut code = GOOD;
    for id in ids {
        let path: &[&str] =
            if *method == Method::DELETE { &["dead-letters", id] } else { &["dead-letters", id, "redrive"] };
        match api.ask(method.clone(), path, &[]).await {
            Ok(answer) => terminal.line(format_args!("{id} attempt {}", cell(&answer["attempt"])))?,
            Err(error) => {
                terminal.say(format_args!("error: dead letter {id}: {error:#}"));
                code = BAD;
            }
        }
    }
    if ids.is_empty() {
        terminal.say("there are no dead letters");
    }
    Ok(code)
}

/// More than anybody looks through; the rest is there for the next call.
const LETTERS_MAX: usize = 100_000;
