//! `submit`: sends files for analysis, through the running service, to the platform of a source.
//!
//! Invariants: where the files go, and who may see them there, is said before the first byte is sent; one file that fails does not keep
//! the others back, and the command ends with 1.
//!
//! Not here: what the service does with them (`ops`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::ask::{Api, Service};
use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD, wait_for};
use crate::setting::Span;
use crate::upload::{FileBody, file_name};

/// Send files for analysis to the platform of a source, where its `submit` is switched on.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay submit --source vt invoice.exe setup.msi\n\n\
    What the platform or the service knows by its hash is not sent again. The results come as events; one that does not come in time is asked for.\n\
    Needs a token with the scope submit, or to be run as the service's user with its --config. Exit code 1 if any file failed.")]
pub(super) struct Submit {
    #[command(flatten)]
    service: Service,
    /// The source to whose platform the files go.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Within which time each result must come.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    within: Span,
    /// Print JSON, one object a file.
    #[arg(long)]
    json: bool,
}

impl Submit {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        wait_for(async {
            let api = self.service.api(files).await?;
            let told = api.ask(Method::GET, &["submissions"], &[("source", &self.source)]).await;
            let told = told.with_context(|| format!("nothing was sent to source \"{}\"", self.source))?;
            terminal.say(destination(&told));
            let bytes_max = told["bytes_max"].as_u64().unwrap_or(u64::MAX);
            let mut code = GOOD;
            for path in &self.files {
                let sent = self.send(&api, path, bytes_max, terminal).await;
                if sent.is_err() {
                    code = BAD;
                }
                self.tell(path, sent, terminal)?;
            }
            Ok(code)
        })
    }

    async fn send(&self, api: &Api, path: &Path, bytes_max: u64, terminal: &mut Terminal) -> anyhow::Result<Value> {
        let file = File::open(path).context("it cannot be read")?;
        let about = file.metadata().context("it cannot be read")?;
        if !about.is_file() {
            bail!("it is no file");
        }
        let bytes = about.len();
        if bytes > bytes_max {
            bail!("it has {bytes} bytes, and the platform takes at most {bytes_max}");
        }
        let name = file_name(&path.to_string_lossy());
        let within = self.within.to_string();
        let query = [("source", self.source.as_str()), ("name", &name), ("within", &within)];
        let body = FileBody::new(Arc::new(file), bytes);
        let sent = body.sent();
        if !terminal.is_watched() {
            terminal.say(format_args!("{}: sending {bytes} bytes", path.display()));
        }
        let answer = with_progress(api.upload(&["submissions"], &query, body, bytes), || {
            terminal.progress(progress(path, &sent, bytes));
        });
        let answer = answer.await;
        terminal.end_progress();
        answer
    }

    fn tell(&self, path: &Path, sent: anyhow::Result<Value>, terminal: &mut Terminal) -> anyhow::Result<()> {
        let file = path.display().to_string();
        match sent {
            Ok(mut answer) if self.json => {
                answer["file"] = json!(file);
                terminal.json(&answer, false)?;
            }
            Ok(answer) => {
                let text = |name: &str| answer[name].as_str().unwrap_or("-").to_owned();
                let state = match (answer["known"].as_bool(), answer["verdict"].as_str()) {
                    (Some(true), Some(verdict)) => format!("known ({verdict})"),
                    (Some(true), None) => "known".to_owned(),
                    _ => "sent".to_owned(),
                };
                terminal.line(format_args!("{}  {file}  {state}  {}", text("sha256"), text("analysis_id")))?;
            }
            Err(error) => {
                terminal.say(format_args!("error: {file}: {error:#}"));
                if self.json {
                    terminal.json(&json!({ "file": file, "error": format!("{error:#}") }), false)?;
                }
            }
        }
        Ok(())
    }
}

/// Where the files go, and who may see them there.
fn destination(told: &Value) -> String {
    let text = |name: &str| told[name].as_str().unwrap_or("?").to_owned();
    let who = match told["submit"].as_str() {
        Some("private") => "for the account of this key alone (submit = \"private\")",
        _ => "where EVERYBODY with an account can download them (submit = \"public\")",
    };
    format!("files go to {} at {}, {who}", text("platform"), text("origin"))
}

fn progress(path: &Path, sent: &AtomicU64, bytes: u64) -> String {
    let sent = sent.load(Ordering::Relaxed);
    let percent = sent * 100 / bytes.max(1);
    let then = if sent >= bytes { ", the platform is asked" } else { "" };
    format!("{}: {sent} of {bytes} bytes, {percent} %{then}", path.display())
}

/// Waits, and shows how far it is.
async fn with_progress<T>(work: impl Future<Output = T>, mut show: impl FnMut()) -> T {
    let mut work = pin!(work);
    let mut ticks = tokio::time::interval(SHOWN_EVERY);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => show(),
        }
    }
}

const SHOWN_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sends_a_file_is_told_who_can_see_it() {
        let told = |submit: &str| {
            destination(&json!({"platform": "VirusTotal", "origin": "https://www.virustotal.com", "submit": submit}))
        };
        assert!(told("public").contains("at https://www.virustotal.com, where EVERYBODY with an account can download"));
        assert!(told("private").contains("for the account of this key alone"));
        assert!(told("something new").contains("EVERYBODY"), "what is not known is told as the worst");
    }

    #[test]
    fn progress_has_bytes_and_percent() {
        let sent = AtomicU64::new(10_000_000);
        assert_eq!(progress(Path::new("a.exe"), &sent, 40_000_000), "a.exe: 10000000 of 40000000 bytes, 25 %");
        assert!(progress(Path::new("empty"), &AtomicU64::new(0), 0).starts_with("empty: 0 of 0 bytes, 0 %"));
    }
}
