//! `completions`: completions for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::terminal::Terminal;
use super::{Cli, Code, GOOD};

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay completions bash > /etc/bash_completion.d/verdict-relay")]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "verdict-relay", &mut script);
        terminal.file(&String::from_utf8_lossy(&script))?;
        Ok(GOOD)
    }
}
