//! `sinks`: how each sink stands.

use clap::Args;
use jiff::Timestamp;
use reqwest::Method;

use super::ask::Service;
use super::terminal::Terminal;
use super::{Code, Files, GOOD, wait_for};

/// Show how each sink stands: state, counts, oldest undelivered event, last error.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay sinks\n\n\
    States: ok, backoff, auth_failed, tls_failed, paused; removed, where the config no longer has it.\n\
    At rest entered = delivered + dead + filtered + pending.")]
pub(super) struct Sinks {
    #[command(flatten)]
    service: Service,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Sinks {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        let answer = wait_for(async { self.service.api(files).await?.ask(Method::GET, &["sinks"], &[]).await })?;
        if self.json {
            terminal.json(&answer["sinks"], true)?;
            return Ok(GOOD);
        }
        let now = Timestamp::now();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let row = |sink: &serde_json::Value| {
            let count = |name: &str| sink[name].to_string();
            let oldest = sink["oldest_pending_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            let oldest =
                oldest.map_or_else(|| "-".to_owned(), |at| format!("{} s", now.duration_since(at).as_secs().max(0)));
            let [entered, delivered, pending, filtered, dead] =
                ["entered", "delivered", "pending", "filtered", "dead"].map(count);
            [
                text(&sink["name"]),
                text(&sink["state"]),
                entered,
                delivered,
                pending,
                oldest,
                filtered,
                dead,
                text(&sink["reason"]),
            ]
        };
        let rows: Vec<_> = answer["sinks"].as_array().into_iter().flatten().map(row).collect();
        let head = ["SINK", "STATE", "ENTERED", "DELIVERED", "PENDING", "OLDEST", "FILTERED", "DEAD", "REASON"];
        terminal.table(head, &rows)?;
        Ok(GOOD)
    }
}
