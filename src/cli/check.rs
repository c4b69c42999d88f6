//! `check`: whether the config is good, what to enter at each sender, and with `--online` whether everything outside plays along.
//!
//! Not here: what makes a config valid (`config`), what is odd about a valid one (`odd`), asking the outside (`online`).

mod odd;
mod online;

use clap::Args;

use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};
use crate::config::{Plan, SourcePlan};
use crate::event::{Name, Verdict};
use crate::sink::{Kind, SinkPlan};
use crate::verify::SchemeName;

/// Validate the config, and print each source's webhook URL with what to enter at the sender.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay --config verdict-relay.toml check --online\n\n\
    Exit code: 0 if all is good, 1 otherwise. Warnings are told and do not count.\n\
    Without --online nothing is read but the config: no secret, no certificate, no network.")]
pub(super) struct Check {
    /// Also read every secret and certificate, look at the store's disk, and ask every sink whether it would take events. Sends none.
    #[arg(long)]
    online: bool,
}

impl Check {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let config = files.config()?;
        let plan = files.plan()?;
        for source in &plan.sources {
            tell_source(source, &plan, terminal)?;
        }
        for (name, sink) in &plan.sinks {
            terminal.line(format_args!("sink {name} ({})", kind_of(sink)))?;
            terminal.line(format_args!("  gets          {}", wanted(sink, &plan)))?;
        }
        for odd in odd::of(&config, &plan) {
            terminal.say(format_args!("warning: {odd}"));
        }
        let failures = if self.online { wait_for(online::ask(&config, &plan, terminal))? } else { 0 };
        if failures > 0 {
            let (things, them) = if failures == 1 { ("thing is", "it") } else { ("things are", "them") };
            terminal
                .say(format_args!("the config is valid, but {failures} {things} not as it says: mend {them} first"));
            return Ok(BAD);
        }
        let rest = if self.online { "" } else { "; see also check --online" };
        let (sources, sinks) = (plan.sources.len(), plan.sinks.len());
        terminal.say(format_args!("all good: {sources} source(s), {sinks} sink(s){rest}"));
        Ok(GOOD)
    }
}

/// The source's URL and what its sender has to be told.
fn tell_source(source: &SourcePlan, plan: &Plan, terminal: &mut Terminal) -> anyhow::Result<()> {
    let SourcePlan { id, adapter, scheme, secrets, codings, verify, poll, .. } = source;
    let proof = verify.as_ref().map_or("takes no webhooks", |verify| scheme_word(verify.scheme));
    terminal.line(format_args!("source {id} ({}, {proof})", adapter.provider()))?;
    let mut rows = Vec::new();
    if verify.is_some() {
        let compressed = if codings.is_empty() { "and not compressed" } else { "as it is or with gzip" };
        rows.push(("webhook URL", format!("{}/v1/hooks/{id}", plan.receiver_url())));
        rows.push(("method", format!("POST, the body as JSON {compressed}")));
    }
    rows.extend(scheme.sender_settings());
    if scheme.signs_url() {
        rows.push(("url", "signed as it stands above, so no proxy may change it".to_owned()));
    }
    let references: Vec<&str> = secrets.iter().map(|secret| secret.0.as_str()).collect();
    if !references.is_empty() {
        rows.push(("kept in", references.join(", ")));
    }
    if let Some(poll) = poll {
        let keys: Vec<String> = poll.secrets().into_iter().map(|key| key.0).collect();
        rows.push(("asks", format!("{} for {}", poll.origin(), poll.words())));
        rows.extend(poll.submit_words().map(|words| ("submit", words)));
        rows.push(("API key in", keys.join(", ")));
    }
    for (what, value) in rows {
        terminal.line(format_args!("  {what:<13} {value}"))?;
    }
    Ok(())
}

/// Which events a sink gets, in words.
fn wanted(sink: &SinkPlan, plan: &Plan) -> String {
    let sources: Vec<&Name> = plan.sources.iter().map(|source| &source.id).collect();
    let passes = |verdict: Verdict| sources.iter().any(|source| sink.route.may_pass(source, verdict));
    let verdicts: Vec<&str> =
        Verdict::ALL.into_iter().rev().filter(|verdict| passes(*verdict)).map(Verdict::word).collect();
    let comes = |source: &&&Name| Verdict::ALL.into_iter().any(|verdict| sink.route.may_pass(source, verdict));
    let from: Vec<&str> = sources.iter().filter(comes).map(|source| source.as_str()).collect();
    let verdicts = if verdicts.len() == Verdict::ALL.len() { "every verdict".to_owned() } else { verdicts.join(", ") };
    let condition = if sink.route.condition().is_some() { ", where its jq holds" } else { "" };
    match from.len() {
        0 => "nothing".to_owned(),
        all if all == sources.len() => format!("{verdicts} of every source{condition}"),
        _ => format!("{verdicts} of {}{condition}", from.join(", ")),
    }
}

const fn scheme_word(scheme: SchemeName) -> &'static str {
    match scheme {
        SchemeName::Hmac => "hmac",
        SchemeName::Token => "token",
        SchemeName::Mtls => "mtls",
        SchemeName::None => "none",
        SchemeName::Ed25519 => "ed25519",
        SchemeName::Rsa => "rsa",
        SchemeName::Sns => "sns",
        SchemeName::EventGrid => "event-grid",
    }
}

const fn kind_of(sink: &SinkPlan) -> &'static str {
    match sink.kind {
        Kind::Kafka(_) => "kafka",
        Kind::SplunkHec(_) => "splunk_hec",
        Kind::Syslog(_) => "syslog",
        Kind::Http(_) => "http",
        Kind::File(_) => "file",
        Kind::Console(_) => "console",
    }
}
