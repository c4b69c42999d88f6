//! `serve`: runs the service until it is told to stop.

use clap::{Args, ValueEnum};

use super::{Code, Files, GOOD, wait_for};
use crate::app::{App, Roles};
use crate::config::LogFormat;
use crate::telemetry;

/// Run the service.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: verdict-relay --config verdict-relay.toml serve\n\nStops cleanly on SIGTERM and Ctrl-C."
)]
pub(super) struct Serve {
    /// Which loops to run in this process; all by default.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLES")]
    roles: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Receive,
    Normalize,
    Deliver,
    /// Planned.
    Gate,
}

impl Serve {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<Code> {
        let plan = files.plan()?;
        telemetry::log_to_stderr(plan.log.format == LogFormat::Json, "info");
        let has = |role| self.roles.is_empty() || self.roles.contains(&role);
        let roles = Roles { receive: has(Role::Receive), normalize: has(Role::Normalize), deliver: has(Role::Deliver) };
        wait_for(async {
            let app = App::build(plan, roles).await?;
            let receiver = app.receiver_address().map(|address| address.to_string()).unwrap_or_default();
            tracing::info!(receiver, api = %app.api_address(), "verdict-relay {} is running", env!("CARGO_PKG_VERSION"));
            app.run(told_to_stop()).await
        })?;
        Ok(GOOD)
    }
}

/// Done at the first SIGTERM or Ctrl-C; a second one ends the process at once.
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be listened to, the service only ends when it is killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
}
