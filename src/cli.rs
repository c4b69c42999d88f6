//! The command line: one file a command.
//!
//! Invariants: data goes to standard output, words and progress to standard error; everything that is printed passes the one
//! escaping writer (`terminal`); 0 is good and 1 is everything else, also for a command line that cannot be read.
//!
//! Not here: what the service does (`app`), who may ask the running one for what (`api`).

mod adapter;
mod ask;
mod check;
mod completions;
mod dead_letters;
mod demo;
mod jq_worker;
mod keys;
mod render;
mod replay;
mod schema;
mod send;
mod serve;
mod sinks;
mod sources;
mod store;
mod submit;
mod terminal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::terminal::Terminal;
use crate::config::{Config, ConfigError, Plan};

/// Takes malware-analysis verdicts in by webhook, proves and stores them, and delivers them to Kafka, Splunk and syslog.
#[derive(Debug, Parser)]
#[command(
    name = "verdict-relay",
    version,
    max_term_width = 100,
    after_help = "Example: verdict-relay --config config/quickstart.toml check\n\nExit code: 0 if all is good, 1 otherwise."
)]
struct Cli {
    /// Config file; may be given several times, later ones win. Default: verdict-relay.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Check(check::Check),
    Send(send::Send),
    Submit(submit::Submit),
    Render(render::Render),
    Adapter(adapter::AdapterCommand),
    Sources(sources::Sources),
    Sinks(sinks::Sinks),
    Keys(keys::Keys),
    DeadLetters(dead_letters::DeadLetters),
    Replay(replay::Replay),
    Renormalize(replay::Renormalize),
    Store(store::Store),
    Schema(schema::Schema),
    Completions(completions::Completions),
    #[command(hide = true)]
    JqWorker(jq_worker::JqWorker),
}

/// How a command ended: the exit code of the process.
type Code = u8;
/// All is good.
const GOOD: Code = 0;
/// The command worked and has bad news, or it did not work.
const BAD: Code = 1;

/// Runs the command that the arguments ask for.
pub fn run() -> ExitCode {
    ExitCode::from(match Cli::try_parse() {
        Ok(cli) => cli.run(&mut Terminal::standard()),
        Err(refusal) => {
            // Help that nobody reads to its end is no failure.
            let _unread = refusal.print();
            if refusal.use_stderr() { BAD } else { GOOD }
        }
    })
}

impl Cli {
    fn run(self, terminal: &mut Terminal) -> Code {
        let files = Files(self.config);
        let result = match self.command {
            Command::Serve(command) => command.run(&files),
            Command::Demo(command) => command.run(terminal),
            Command::Check(command) => command.run(&files, terminal),
            Command::Send(command) => command.run(&files, terminal),
            Command::Submit(command) => command.run(&files, terminal),
            Command::Render(command) => command.run(&files, terminal),
            Command::Adapter(command) => command.run(terminal),
            Command::Sources(command) => command.run(&files, terminal),
            Command::Sinks(command) => command.run(&files, terminal),
            Command::Keys(command) => command.run(&files, terminal),
            Command::DeadLetters(command) => command.run(&files, terminal),
            Command::Replay(command) => command.run(&files, terminal),
            Command::Renormalize(command) => command.run(&files, terminal),
            Command::Store(command) => command.run(&files, terminal),
            Command::Schema(command) => command.run(terminal),
            Command::Completions(command) => command.run(terminal),
            Command::JqWorker(command) => command.run(),
        };
        result.unwrap_or_else(|error| {
            complain(&error, terminal);
            BAD
        })
    }
}

/// The config files that were named.
#[derive(Debug)]
struct Files(Vec<PathBuf>);

impl Files {
    /// The files: those that were named, or the default one.
    fn paths(&self) -> Vec<PathBuf> {
        if self.0.is_empty() { vec![DEFAULT_CONFIG.into()] } else { self.0.clone() }
    }

    /// The config as written.
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.paths())?)
    }

    /// The config, validated.
    fn plan(&self) -> anyhow::Result<Plan> {
        self.config()?.plan().map_err(|error| match error {
            ConfigError::Problems(problems) => {
                let paths: Vec<String> = self.paths().iter().map(|path| path.display().to_string()).collect();
                let paths = paths.join(" + ");
                let told: Vec<String> = problems.iter().map(|problem| format!("{paths}: {problem}")).collect();
                anyhow::anyhow!("{}", told.join("\n"))
            }
            other => other.into(),
        })
    }
}

/// Where the config is, unless one is named.
const DEFAULT_CONFIG: &str = "verdict-relay.toml";

/// Runs what has to wait for others.
fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(work)
}

/// Tells what went wrong, and what lies behind it.
fn complain(error: &anyhow::Error, terminal: &mut Terminal) {
    let mut told = error.to_string();
    terminal.say_lines("error: ", &told);
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors repeat their cause in their own words.
        if !told.contains(&cause) {
            terminal.say_lines("  because ", &cause);
        }
        told = cause;
    }
}
