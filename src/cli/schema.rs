//! `schema`: the JSON Schema of the config file.

use clap::Args;

use super::terminal::Terminal;
use super::{Code, GOOD};
use crate::config;

/// Print the JSON Schema of the config file, for editors.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay schema > schema.json\n\n\
    An editor with a TOML language server checks a config whose first line is: #:schema schema.json")]
pub(super) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "every command runs the same way")]
    pub(super) fn run(self, terminal: &mut Terminal) -> anyhow::Result<Code> {
        terminal.file(&config::schema())?;
        Ok(GOOD)
    }
}
