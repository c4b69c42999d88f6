//! `keys`: how each API key stands that we ask platforms with; never its value.

use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use super::ask::Service;
use super::terminal::Terminal;
use super::{Code, Files, GOOD, wait_for};

/// Show how each API key stands: state, age, last use, what is left of its quotas.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay keys\n\n\
    States: probing (not tried yet), active, draining (replaced by a value that was not taken yet), bad (refused; tried again every 5 minutes).\n\
    LEFT is the quota of which least is left; --json has all of them.")]
pub(super) struct Keys {
    #[command(flatten)]
    service: Service,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Keys {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let answer = wait_for(async { self.service.api(files).await?.ask(Method::GET, &["keys"], &[]).await })?;
        if self.json {
            terminal.json(&answer["keys"], true)?;
            return Ok(GOOD);
        }
        let now = Timestamp::now();
        let row = |key: &Value| {
            let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
            let ago = |name: &str| {
                let at = key[name].as_str().and_then(|at| at.parse::<Timestamp>().ok());
                at.map_or_else(|| "-".to_owned(), |at| format!("{} s", now.duration_since(at).as_secs().max(0)))
            };
            let (age, used) = (ago("since"), ago("last_used_at"));
            [
                text("source"),
                text("key"),
                text("state"),
                age,
                used,
                text("group"),
                least(&key["quotas"]),
                text("reason"),
            ]
        };
        let rows: Vec<_> = answer["keys"].as_array().into_iter().flatten().map(row).collect();
        terminal.table(["SOURCE", "KEY", "STATE", "AGE", "LAST USE", "GROUP", "LEFT", "REASON"], &rows)?;
        Ok(GOOD)
    }
}

/// The quota of requests of which the smallest share is left.
fn least(quotas: &Value) -> String {
    let requests = quotas.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("api_requests_"));
    let left = requests.filter_map(|(name, quota)| {
        let (allowed, used) = (quota["allowed"].as_u64()?, quota["used"].as_u64()?);
        let left = allowed.saturating_sub(used);
        Some((u128::from(left) * 1_000_000 / u128::from(allowed.max(1)), format!("{name} {left} of {allowed}")))
    });
    left.min().map_or_else(|| "-".to_owned(), |(_, words)| words)
}
