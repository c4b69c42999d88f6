//! `jq-worker`: what the service starts for each script that a user wrote. Nobody else has a use for it.
//!
//! Not here: what it does (`sandbox/worker`).

use clap::Args;

use super::{Code, GOOD};

/// Read bodies from standard input and answer with what a script makes of them. The service starts this by itself.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay jq-worker")]
pub(super) struct JqWorker {}

impl JqWorker {
    #[expect(clippy::unused_self, reason = "every command is run this way")]
    pub(super) fn run(self) -> anyhow::Result<Code> {
        crate::sandbox::worker::work()?;
        Ok(GOOD)
    }
}
