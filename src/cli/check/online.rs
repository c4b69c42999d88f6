//! `check --online`: everything outside the config that the service will need, asked once and without changing anything there.
//!
//! Invariants: no value of a secret is shown; no event is sent and no file is made; each question has its time limit.

use std::time::Duration;

use jiff::Timestamp;

use crate::app;
use crate::cli::terminal::Terminal;
use crate::config::{Config, Plan, PollPlan, SourcePlan};
use crate::event::Name;
use crate::secret::{KeyRing, SecretRef};
use crate::setting::Size;
use crate::sink::{SinkConfig, SinkPlan, Stop};
use crate::store::folder;
use crate::trust::Trust;

/// Asks everything and prints one line for each answer; how many were bad.
pub(super) async fn ask(config: &Config, plan: &Plan, terminal: &mut Terminal) -> anyhow::Result<usize> {
    let mut report = Report { terminal, failures: 0 };
    store(plan, &mut report)?;
    match app::certificate_expiry(&plan.receiver) {
        Ok(None) => {}
        Ok(Some(at)) if at < Timestamp::now() => {
            report.bad("receiver.tls", format_args!("the certificate has expired at {at}: renew it"))?;
        }
        Ok(Some(at)) => report.good("receiver.tls", format_args!("the certificate is good until {at}"))?,
        Err(error) => report.bad("receiver.tls", format_args!("{error:#}"))?,
    }
    for token in &plan.api.tokens {
        secrets(&format!("api token {}", token.name), vec![token.secret.clone()], false, &mut report).await?;
    }
    for source in &plan.sources {
        let ring =
            secrets(&format!("source {}", source.id), source.secrets.clone(), source.allow_short_secret, &mut report)
                .await?;
        key_forms(source, &ring, &mut report)?;
        publisher(source, &mut report).await?;
        if let Some(poll) = &source.poll {
            ask_platform(&source.id, poll, &mut report).await?;
        }
    }
    for (name, sink) in &plan.sinks {
        let tells = !matches!(config.sinks.get(name.as_str()),
            Some(SinkConfig::Syslog(syslog)) if syslog.address.0.iter().any(|address| address.starts_with("udp://")));
        let good =
            if tells { "would take events" } else { "can be sent to; UDP does not tell whether anybody listens" };
        ask_sink(name, sink.clone(), good, &mut report).await?;
    }
    Ok(report.failures)
}

struct Report<'a> {
    terminal: &'a mut Terminal,
    failures: usize,
}

impl Report<'_> {
    fn good(&mut self, what: &str, words: impl std::fmt::Display) -> std::io::Result<()> {
        self.terminal.line(format_args!("good  {what}: {words}"))
    }

    fn bad(&mut self, what: &str, words: impl std::fmt::Display) -> std::io::Result<()> {
        self.failures += 1;
        self.terminal.line(format_args!("BAD   {what}: {words}"))
    }
}

/// Whether the folder can be written, and whether the disk holds what the store may grow to.
fn store(plan: &Plan, report: &mut Report<'_>) -> std::io::Result<()> {
    let path = plan.store.path.display().to_string();
    let size_max = plan.store.size_max;
    match folder::room(&plan.store.path) {
        Err(error) => report.bad(&format!("store {path}"), format_args!("{error}: check store.path")),
        Ok(room) if !room.is_writable => report.bad(
            &format!("store {path}"),
            "this user may not write there: run check as the service's user, or give it the folder",
        ),
        Ok(room) => {
            let free = Size(room.free_bytes >> 20 << 20);
            if room.free_bytes + room.used_bytes < size_max.0 {
                // Not a failure: a full disk is answered like a full store.
                report.terminal.say(format_args!(
                    "warning: store.size_max is {size_max}, and the disk has only {free} left: the disk fills up first"
                ));
            }
            report.good(&format!("store {path}"), format_args!("writable, {free} free"))
        }
    }
}

/// Reads secrets and says for each whether there is one; the ring holds those that there are.
async fn secrets(
    whose: &str,
    references: Vec<SecretRef>,
    allow_short: bool,
    report: &mut Report<'_>,
) -> std::io::Result<KeyRing> {
    let ring = KeyRing::open(references, allow_short, Timestamp::now()).await;
    for state in ring.states().await {
        match state.error {
            None => report.good(&format!("{whose}, secret {}", state.reference), "present")?,
            // The error names the reference, unless that is none and so perhaps a secret.
            Some(error) => report.bad(&format!("{whose}, secret"), error)?,
        }
    }
    Ok(ring)
}

/// Whether present secrets have the form that the scheme needs.
fn key_forms(source: &SourcePlan, ring: &KeyRing, report: &mut Report<'_>) -> std::io::Result<()> {
    for key in ring.keys().iter() {
        if let Some(problem) = source.scheme.key_problem(key) {
            report.bad(&format!("source {}, secret {}", source.id, key.id), problem)?;
        }
    }
    Ok(())
}

/// Whether those who publish the source's public keys can be reached, and do.
async fn publisher(source: &SourcePlan, report: &mut Report<'_>) -> std::io::Result<()> {
    let Some(plan) = &source.trust else { return Ok(()) };
    let whose = format!("source {}, public keys", source.id);
    report.terminal.say(format_args!("asking who publishes the public keys of source {} ...", source.id));
    let probe = Trust::new(&source.id, plan);
    match tokio::time::timeout(ASK_MAX, probe.probe(Timestamp::now())).await {
        Ok(Ok(words)) => report.good(&whose, words),
        Ok(Err(words)) => report.bad(&whose, words),
        Err(_) => report.bad(&whose, "no answer within 20s: check the address, the route and the firewalls"),
    }
}

/// Asks a source's platform whether it takes our keys.
async fn ask_platform(source: &Name, plan: &PollPlan, report: &mut Report<'_>) -> std::io::Result<()> {
    let whose = format!("source {source}, API");
    let ring = secrets(&whose, plan.secrets(), true, report).await?;
    report.terminal.say(format_args!("asking the platform of source {source} ..."));
    for (key, answer) in app::probe_keys(plan, &ring).await {
        match answer {
            Ok(words) => report.good(&format!("{whose} with {key}"), words)?,
            Err(words) => report.bad(&format!("{whose} with {key}"), words)?,
        }
    }
    Ok(())
}

/// Asks a sink's receiver whether it would take events.
async fn ask_sink(name: &Name, plan: SinkPlan, good: &str, report: &mut Report<'_>) -> std::io::Result<()> {
    let whose = format!("sink {name}");
    let failures = report.failures;
    let ring = secrets(&whose, plan.secrets(), true, report).await?;
    if report.failures > failures && ring.keys().is_empty() {
        return report.bad(&whose, "not asked, because there is no secret to ask with");
    }
    report.terminal.say(format_args!("asking {whose} ..."));
    let mut sink = plan.build(name, ring);
    let answer = tokio::time::timeout(ASK_MAX, sink.probe()).await;
    sink.close(CLOSE_MAX).await;
    match answer {
        Ok(Ok(())) => report.good(&whose, good),
        Ok(Err(stop)) => report.bad(&whose, format_args!("{}: {stop}", what_kind(&stop))),
        Err(_) => report.bad(&whose, "no answer within 20s: check the address, the route and the firewalls"),
    }
}

const fn what_kind(stop: &Stop) -> &'static str {
    match stop {
        Stop::Unavailable { .. } => "not available now (is the address right, and is it running?)",
        Stop::Unauthorized { .. } => "our credentials are refused",
        Stop::Tls { .. } => "no trusted connection",
        Stop::Misconfigured { .. } => "set up wrongly, here or there",
    }
}

/// Longer than Kafka's own search for its topic.
const ASK_MAX: Duration = Duration::from_secs(20);
/// Nothing was sent, so there is nothing to flush.
const CLOSE_MAX: Duration = Duration::from_secs(1);
