//! The config: as written (files and environment), then planned (validated, still without I/O).
//!
//! Layers: defaults, then the files in order, then the environment (`VERDICT_RELAY__SINKS__LAKE__TOPIC`). Secrets are never values here,
//! only references, so nothing in a `Config` is secret.
//!
//! Not here: what the parts do with their plan. Nothing else knows the `config` crate.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::{ApiConfig, ApiPlan};
use crate::event::Name;
use crate::receive::{ReceiverConfig, ReceiverPlan};
use crate::setting::{Problem, Size, Span};
use crate::sink::{SinkConfig, SinkPlan};
use crate::verify::Scheme;

pub use crate::poll::PollPlan;

mod adapter_of;
mod source;

pub use adapter_of::table_file;
pub use source::{SourceConfig, SourcePlan};

/// Prefix of environment variables. Two underscores between all parts: Kubernetes sets variables with one for every service.
const ENV_PREFIX: &str = "VERDICT_RELAY";

/// The config as written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The public listener that senders reach.
    pub receiver: ReceiverConfig,
    /// The private listener: metrics, state, dead letters.
    pub api: ApiConfig,
    /// Where deliveries and events are kept.
    pub store: StoreConfig,
    /// How the log is written.
    pub log: LogConfig,
    /// Who may send: one table a source.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Who receives events: one table a sink.
    pub sinks: BTreeMap<String, SinkConfig>,
}

/// How the log is written, on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `json` (one object a line) or `text`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// The store, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `disk`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Folder of the store, on a local disk. Created with mode 0700.
    pub path: PathBuf,
    /// Most bytes of the store. At the mark, delivered events go first, oldest first; when the rest is undelivered, senders get 503.
    pub size_max: Size,
    /// How long deliveries and delivered events are kept.
    pub retention: Span,
    /// How long the identities of events are remembered; at least 4d, because senders retry for over 3 days.
    pub dedup: Span,
    /// How long the latest verdict of a subject is kept.
    pub verdicts: Span,
    /// How long dead letters are kept.
    pub dead_letters: DeadLetterConfig,
    /// Size of one journal file.
    pub segment_size: Size,
}

/// Bounds of the dead letters.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterConfig {
    /// Longest time that one is kept.
    pub age: Span,
    /// Most bytes of all; the oldest go first.
    pub size: Size,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        Self { age: Span(DAY * 30), size: Size(1 << 30) }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: "disk".to_owned(),
            path: "data".into(),
            size_max: Size(20 << 30),
            retention: Span(DAY * 7),
            dedup: Span(DAY * 7),
            verdicts: Span(DAY * 90),
            dead_letters: DeadLetterConfig::default(),
            segment_size: Size(64 << 20),
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

/// The config, validated: every part can be built from it, and only I/O can still go wrong.
#[derive(Debug)]
pub struct Plan {
    /// The public listener.
    pub receiver: ReceiverPlan,
    /// The private listener.
    pub api: ApiPlan,
    /// The store.
    pub store: StoreConfig,
    /// The log.
    pub log: LogConfig,
    /// The sources.
    pub sources: Vec<SourcePlan>,
    /// The sinks.
    pub sinks: Vec<(Name, SinkPlan)>,
}

impl Plan {
    /// Scheme, host, port and path prefix by which senders reach us: the configured one, else where we listen.
    pub fn receiver_url(&self) -> String {
        let ReceiverPlan { public_url, listen, tls, .. } = &self.receiver;
        if public_url.is_empty() {
            format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(*listen))
        } else {
            public_url.clone()
        }
    }

    /// Where the API of a service with this config is reached from this machine.
    pub fn api_url(&self) -> String {
        format!("http://{}", reachable(self.api.listen))
    }

    /// File of the token that a running service writes for the command line.
    pub fn api_token_file(&self) -> PathBuf {
        crate::api::token_file(&self.store.path)
    }
}

/// An address that one can connect to: "all addresses" is none.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

/// Why there is no plan: everything that is wrong, in the order of the config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the config file {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file is no TOML, or a key is unknown or of another type.
    #[error("{0}")]
    Written(String),
    /// Everything can be read, and some of it makes no sense.
    #[error("{}", listed(.0))]
    Problems(Vec<Problem>),
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads the files in order and the environment on top.
    pub fn load(files: &[PathBuf]) -> Result<Self, ConfigError> {
        Self::layered(files, &std::env::vars().collect())
    }

    /// As [`Config::load`], with this environment.
    pub fn layered(files: &[PathBuf], environment: &HashMap<String, String>) -> Result<Self, ConfigError> {
        let mut builder = ::config::Config::builder();
        for path in files {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Unreadable { path: path.clone(), reason: reason_of(&error) })?;
            // Read by itself first: only this way the error names the line, and the file, that it is in.
            toml::from_str::<Self>(&text).map_err(|error| ConfigError::Written(in_file(path, &error)))?;
            builder = builder.add_source(::config::File::from_str(&text, ::config::FileFormat::Toml));
        }
        let environment = ::config::Environment::with_prefix(ENV_PREFIX)
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .source(Some(environment.clone().into_iter().collect()));
        let written = builder.add_source(environment).build().and_then(::config::Config::try_deserialize::<Self>);
        let mut config = written.map_err(|error| ConfigError::Written(with_nearest(&error.to_string())))?;
        for source in config.sources.values_mut() {
            source.adapter_text = source.adapter_file.as_deref().map(adapter_of::text);
        }
        Ok(config)
    }

    /// Validates everything that can be validated without I/O, and tells all problems at once.
    pub fn plan(self) -> Result<Plan, ConfigError> {
        let mut problems = Vec::new();
        let receiver = kept(self.receiver.plan("receiver"), &mut problems);
        let api = kept(self.api.plan("api"), &mut problems);
        if let Some(receiver) = &receiver {
            check_store(&self.store, receiver.body_bytes_max as u64, &mut problems);
        }
        let loopback = receiver.as_ref().is_some_and(|receiver| receiver.listen.ip().is_loopback());
        let mut sources = Vec::new();
        for (name, source) in self.sources {
            match source.plan(&name, loopback, self.store.dedup.0) {
                Ok(source) => sources.push(source),
                Err(found) => problems.extend(found),
            }
        }
        let names: Vec<Name> = sources.iter().map(|source| source.id.clone()).collect();
        let mut sinks = Vec::new();
        for (name, sink) in self.sinks {
            let key = format!("sinks.{name}");
            let id = name.parse::<Name>().map_err(|error| vec![Problem::new(&key, error.to_string())]);
            match (id, sink.plan(&key, &names)) {
                (Ok(id), Ok(sink)) => sinks.push((id, sink)),
                (id, sink) => problems.extend(id.err().into_iter().chain(sink.err()).flatten()),
            }
        }
        let signs_url = |source: &SourcePlan| source.scheme.signs_url();
        if let Some(source) = sources.iter().find(|source| signs_url(source))
            && receiver.as_ref().is_some_and(|receiver| receiver.public_url.is_empty())
        {
            problems.push(Problem::new(
                "receiver.public_url",
                format!("source \"{}\" signs the URL: set the base URL by which its sender reaches us", source.id),
            ));
        }
        let mtls = |source: &&SourcePlan| matches!(source.scheme, Scheme::Mtls { .. });
        if let Some(source) = sources.iter().find(mtls)
            && receiver.as_ref().is_some_and(|plan| plan.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()))
        {
            problems.push(Problem::new(
                "receiver.tls.client_ca",
                format!(
                    "source \"{}\" is proven by client certificates: name the authority that issues them",
                    source.id
                ),
            ));
        }
        match (receiver, api) {
            (Some(receiver), Some(api)) if problems.is_empty() => {
                Ok(Plan { receiver, api, store: self.store, log: self.log, sources, sinks })
            }
            _ => Err(ConfigError::Problems(problems)),
        }
    }
}

fn check_store(store: &StoreConfig, body_bytes_max: u64, problems: &mut Vec<Problem>) {
    let mut check = |good: bool, key: &str, words: &str| {
        if !good {
            problems.push(Problem::new(format!("store.{key}"), words));
        }
    };
    check(store.kind != "kafka", "type", "a store on Kafka is planned and not built yet: use \"disk\"");
    check(matches!(store.kind.as_str(), "disk" | "kafka"), "type", "use \"disk\"");
    check(
        store.dedup.0 >= DAY * 4,
        "dedup",
        "at least \"4d\": senders retry for over 3 days, and would be taken for new",
    );
    check((1 << 20..=1 << 30).contains(&store.segment_size.0), "segment_size", "between \"1MiB\" and \"1GiB\"");
    let room = body_bytes_max + (256 << 10);
    check(
        store.segment_size.0 > room,
        "segment_size",
        "larger than receiver.body_max and 256KiB: a body has to fit one file",
    );
    check(store.size_max.0 >= store.segment_size.0 * 4, "size_max", "at least four times store.segment_size");
    check(!store.retention.0.is_zero(), "retention", "more than nothing: an operator may want to look at what came in");
}

fn kept<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn reason_of(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "there is no such file; name one with --config, or begin with config/quickstart.toml".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The error with its file and line, and the nearest known key.
fn in_file(path: &Path, error: &toml::de::Error) -> String {
    format!("{}: {}", path.display(), with_nearest(error.to_string().trim_end()))
}

/// Adds the nearest known key to an error about an unknown one.
fn with_nearest(error: &str) -> String {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let Some((_, rest)) = error.split_once("unknown field ") else { return error.to_owned() };
    let names = quoted(rest);
    let Some((wrong, known)) = names.split_first() else { return error.to_owned() };
    match known.iter().min_by_key(|known| strsim::damerau_levenshtein(wrong, known)) {
        Some(nearest) if strsim::damerau_levenshtein(wrong, nearest) <= 1 + nearest.len() / 3 => {
            format!("{error}\ndid you mean `{nearest}`?")
        }
        _ => error.to_owned(),
    }
}

/// The JSON Schema of the config file, for editors.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Config);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
