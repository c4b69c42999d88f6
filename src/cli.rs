//! The command line: one file a command.
//!
//! Data goes to standard output, words and progress to standard error.

mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Plan};

/// Takes malware-analysis verdicts in by webhook, proves and stores them, and delivers them to Kafka, Splunk and syslog.
#[derive(Debug, Parser)]
#[command(name = "verdict-relay", version, max_term_width = 100)]
struct Cli {
    /// Config file; may be given several times, later ones win. Default: verdict-relay.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(serve::Serve),
}

/// Runs the command that the arguments ask for.
pub fn run() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let files = Files(config);
    let result = match command {
        Command::Serve(serve) => serve.run(&files),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The config files that were named.
struct Files(Vec<PathBuf>);

impl Files {
    /// The config as written.
    fn config(&self) -> anyhow::Result<Config> {
        if self.0.is_empty() { Ok(Config::load(&["verdict-relay.toml".into()])?) } else { Ok(Config::load(&self.0)?) }
    }

    /// The config, validated.
    fn plan(&self) -> anyhow::Result<Plan> {
        Ok(self.config()?.plan()?)
    }
}

/// Tells what went wrong, and what lies behind it.
#[expect(clippy::print_stderr, reason = "this is the command line's voice")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}
