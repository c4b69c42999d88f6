//! `demo`: the service on loopback, real-shaped signed payloads in, and each event as it comes out.
//!
//! Invariants: nothing but loopback and one temporary folder is touched, and the folder goes when the demo ends; `--once` is good only
//! if every event arrived in all three forms and the forged request was refused.
//!
//! Not here: how the parts are set up (`stage`), the syslog receiver (`receiver`).

mod receiver;
mod stage;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::receiver::{Arrival, Form};
use self::stage::Stage;
use super::serve::told_to_stop;
use super::terminal::Terminal;
use super::{BAD, Code, GOOD, wait_for};
use crate::secret::{Key, Secret, SecretRef};
use crate::telemetry;

/// Start the service on loopback, send it signed payloads, and show each event as it comes out. Needs no config.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay demo --once\n\n\
    Runs until Ctrl-C; with --once it does one round, and exits 0 only if every event arrived as OCSF, CEF and LEEF.\n\
    It listens on loopback only, and keeps everything in a temporary folder that goes with it.")]
pub(super) struct Demo {
    /// One round, then end.
    #[arg(long)]
    once: bool,
}

impl Demo {
    pub(super) fn run(self, terminal: &mut Terminal) -> anyhow::Result<Code> {
        telemetry::log_to_stderr(false, "warn");
        wait_for(show(self.once, terminal))
    }
}

/// One payload of the round.
struct Act {
    title: &'static str,
    name: &'static str,
    body: &'static str,
}

const ACTS: [Act; 4] = [
    Act {
        title: "a file is malicious: a finding is created",
        name: "malicious.json",
        body: include_str!("demo/malicious.json"),
    },
    Act { title: "a file is clean: a scan is told", name: "clean.json", body: include_str!("demo/clean.json") },
    Act {
        title: "a file is suspicious: a finding is created",
        name: "suspicious.json",
        body: include_str!("demo/suspicious.json"),
    },
    Act {
        title: "the same file, looked at again, is clean: its finding is closed",
        name: "cleared.json",
        body: include_str!("demo/cleared.json"),
    },
];

async fn show(once: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let mut stage = Stage::build().await.context("the demo cannot be set up")?;
    terminal.say(format_args!("the service runs on loopback, its store is in {}", stage.folder().display()));
    let round = timeout(ROUND_MAX, round(&mut stage, terminal)).await;
    let code = match round {
        Ok(Ok(())) => GOOD,
        Ok(Err(error)) => {
            terminal.say_lines("error: ", &format!("{error:#}"));
            BAD
        }
        Err(_) => {
            terminal.say("error: not everything arrived within 30 s; the log above says what failed");
            BAD
        }
    };
    terminal.say("");
    terminal.say("not built yet, so not shown: the gate for CI, the dashboard, polling of platforms' APIs");
    if !once {
        tell_what_there_is(&stage, terminal);
        terminal.say("it goes on until Ctrl-C, and shows what else arrives");
        go_on(&mut stage, terminal).await?;
    }
    stage.end().await.context("the service did not end well")?;
    if once {
        terminal.say(if code == GOOD { "every event arrived in all three forms" } else { "something did not arrive" });
    }
    Ok(code)
}

/// Sends every payload and waits for its event in all forms; then a forged one, which has to be refused.
async fn round(stage: &mut Stage, terminal: &mut Terminal) -> anyhow::Result<()> {
    for (at, act) in (1..).zip(&ACTS) {
        terminal.say("");
        terminal.say(format_args!("{at}. {}", act.title));
        let (status, answer) = stage.sender.post(&stage.keys.keys(), HeaderMap::new(), act.body.as_bytes()).await?;
        terminal.line(format_args!("sent   {} -> {} {}", act.name, status, String::from_utf8_lossy(&answer).trim()))?;
        if status != 202 {
            bail!("{} was answered {status}, not 202", act.name);
        }
        let mut forms = HashMap::new();
        let mut uid = None;
        while forms.len() < Form::ALL.len() {
            let arrival = stage.arrivals.recv().await.context("the receivers are gone")?;
            // Every form has to be of the same event, and an event comes once.
            if *uid.get_or_insert_with(|| arrival.uid.clone()) != arrival.uid || forms.contains_key(&arrival.form) {
                bail!("event {} arrived as {} out of turn", arrival.uid, arrival.form.word());
            }
            forms.insert(arrival.form, arrival.line);
        }
        for form in Form::ALL {
            terminal.line(format_args!("{:<6} {}", form.word(), forms[&form]))?;
        }
    }
    terminal.say("");
    terminal.say("5. somebody without the secret sends a clean verdict: it is refused");
    let forger = Key { id: SecretRef("forger".to_owned()), secret: Secret::new(FORGED_SECRET.into()) };
    let (status, answer) = stage.sender.post(&[forger], HeaderMap::new(), ACTS[1].body.as_bytes()).await?;
    terminal.line(format_args!("forged {} -> {status} {}", ACTS[1].name, String::from_utf8_lossy(&answer).trim()))?;
    if status == 401 { Ok(()) } else { bail!("the forged request was answered {status}, not 401") }
}

fn tell_what_there_is(stage: &Stage, terminal: &mut Terminal) {
    let (api, config) = (stage.api_url(), stage.config_path().display().to_string());
    terminal.say(format_args!("metrics  curl {api}/metrics"));
    terminal.say(format_args!("sinks    verdict-relay --config {config} sinks"));
    terminal.say(format_args!("send     verdict-relay --config {config} send --source portal FILE"));
}

/// Prints what arrives until somebody says stop, or nobody reads any more.
async fn go_on(stage: &mut Stage, terminal: &mut Terminal) -> anyhow::Result<()> {
    let stop = told_to_stop();
    tokio::pin!(stop);
    while terminal.is_read() {
        tokio::select! {
            () = &mut stop => break,
            ended = &mut stage.service => return ended.context("the service panicked")?.context("the service failed"),
            arrival = stage.arrivals.recv() => {
                let Arrival { form, line, .. } = arrival.context("the receivers are gone")?;
                terminal.line(format_args!("{:<6} {line}", form.word()))?;
            }
        }
    }
    Ok(())
}

/// What arrives, from all receivers.
type Arrivals = mpsc::Receiver<Arrival>;

/// Some events of three forms each; a receiver waits when nobody shows what it got.
const ARRIVALS_MAX: usize = 256;
/// A round takes about a second; a machine that needs longer than this has another problem.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// `whsec_` and base64, as every other one; only not the right one.
const FORGED_SECRET: &str = "whsec_Zm9yZ2VkLWZvcmdlZC1mb3JnZWQtZm9yZ2VkLTEyMzQ=";
