//! The config: as written (files and environment), then planned (validated, still without I/O).
//!
//! Layers: defaults, then the files in order, then the environment (`VERDICT_RELAY__SINKS__LAKE__TOPIC`). Secrets are never values here,
//! only references, so nothing in a `Config` is secret.
//!
//! Not here: what the parts do with their plan. Nothing else knows the `config` crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::adapter::AdapterPlan;
use crate::api::ApiConfig;
use crate::event::{Name, SourceId};
use crate::receive::{RateLimit, ReceiverConfig, ReceiverPlan};
use crate::route::{Route, RouteConfig};
use crate::setting::{Problem, Size, Span};
use crate::sink::{SinkConfig, SinkPlan};
use crate::verify::{Scheme, VerifyConfig};

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

const DAY: std::time::Duration = std::time::Duration::from_hours(24);

/// A source, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The platform: `vileanalyziz`, `virustotal` or `native`.
    pub adapter: String,
    /// Settings of the adapter.
    #[serde(default)]
    pub options: Option<crate::adapter::AdapterOptions>,
    /// How its messages are proven.
    #[serde(default)]
    pub verify: Option<VerifyConfig>,
    /// Most proven requests; none by default.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// Planned: fetching the report that a callback points to.
    #[serde(default)]
    #[schemars(skip)]
    pub confirm: Option<serde_json::Value>,
    /// Planned: finding analyses whose callback was lost.
    #[serde(default)]
    #[schemars(skip)]
    pub reconcile: Option<serde_json::Value>,
    /// Planned: polling the platform's API.
    #[serde(default)]
    #[schemars(skip)]
    pub poll: Option<serde_json::Value>,
    /// Planned: sending files to the platform.
    #[serde(default)]
    #[schemars(skip)]
    pub submit: Option<serde_json::Value>,
    /// Planned: an adapter as data.
    #[serde(default)]
    #[schemars(skip)]
    pub jq: Option<serde_json::Value>,
    /// Planned: an adapter as data, in a file.
    #[serde(default)]
    #[schemars(skip)]
    pub adapter_file: Option<serde_json::Value>,
}

/// The config, validated: every part can be built from it, and only I/O can still go wrong.
#[derive(Debug)]
pub struct Plan {
    /// The public listener.
    pub receiver: ReceiverPlan,
    /// The private listener.
    pub api: crate::api::ApiPlan,
    /// The store.
    pub store: StoreConfig,
    /// The log.
    pub log: LogConfig,
    /// The sources.
    pub sources: Vec<SourcePlan>,
    /// The sinks.
    pub sinks: Vec<(Name, SinkPlan)>,
}
