//! What a platform's payload means: one pure function a platform, from a delivery to findings.
//!
//! Invariants: an adapter never panics, whatever the bytes; it does no I/O and knows no clock; a bad item spoils no other;
//! what it does not understand is an error, never a clean verdict.
//!
//! Not here: identity, duplicates and history (`normalize`), proof (`verify`).

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::event::{Detection, Finding, Verdict};
use crate::json::{self, Fault, FaultKind, NotJson};
use crate::setting::Problem;
use pack::PackTable;

mod assemblyline;
mod aws;
mod cape;
mod event_grid;
mod fetch_id;
mod items;
pub mod jq;
mod metadefender;
mod native;
pub mod pack;
mod shared;
mod vileanalyziz;
mod virustotal;

#[cfg(test)]
mod tests;

pub use fetch_id::FetchId;

/// One platform's payloads.
pub trait Adapter: Send + Sync {
    /// The platform, as users know it (`VirusTotal`): `Event::provider`.
    fn provider(&self) -> &str;

    /// Headers, in lower case, that [`Adapter::normalize`] reads; the receiver keeps them with the delivery.
    fn headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// What the delivery says, in the order it says it. One message may carry several outcomes.
    fn normalize(&self, delivery: &Delivery) -> Result<Vec<Result<Outcome, ItemError>>, NormalizeError>;

    /// By which id the platform can be asked for this finding once more: a source whose callbacks prove nothing confirms them so.
    /// None where the platform has no such id.
    fn fetch_of(&self, finding: &Finding) -> Option<FetchId> {
        let _ = finding;
        None
    }
}

/// What one item of a message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A finished analysis.
    Verdict(Box<Finding>),
    /// An analysis that has not finished: never a verdict, whatever its counters say.
    NotReady,
    /// Only an id: the report has to be fetched.
    Pointer(FetchId),
    /// A job (a retrohunt, a storage scan) ended; its results come by another way.
    Job,
    /// A work order for an engine, and no result.
    Request,
    /// Nothing for us: a ping, a handshake, an API's own answer.
    Ignore,
}

impl Outcome {
    /// The class in one word, as `render` and metrics show it.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Verdict(_) => "verdict",
            Self::NotReady => "not_ready",
            Self::Pointer(_) => "pointer",
            Self::Job => "job",
            Self::Request => "request",
            Self::Ignore => "ignore",
        }
    }
}

/// Why one item of a message could not be read. Its neighbours go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item {index}: {reason}")]
pub struct ItemError {
    /// Place of the item in the message, from 0.
    pub index: usize,
    /// What was wrong, with the path of the field; never the value, which the sender chose.
    pub reason: String,
}

/// Why a whole message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// Not JSON, or JSON that we refuse to interpret (too deep, keys twice).
    #[error("not readable JSON: {0}")]
    Json(String),
    /// JSON, but no message that this adapter knows.
    #[error("no message of this platform: {0}")]
    Unknown(String),
    /// A message that this adapter knows, with a field that is missing or odd.
    #[error("{0}")]
    Field(String),
}

impl From<NotJson> for NormalizeError {
    fn from(error: NotJson) -> Self {
        Self::Json(error.to_string())
    }
}

impl Fault {
    /// Refuses the whole message that begins at `root`.
    fn refuses(self, root: json::Value<'_>) -> NormalizeError {
        let words = self.words(root);
        match self.kind() {
            FaultKind::Field => NormalizeError::Field(words),
            FaultKind::Ambiguous => NormalizeError::Json(words),
            FaultKind::Unknown => NormalizeError::Unknown(words),
        }
    }
}

/// `adapter = "..."` of a source, as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct AdapterName(pub String);

/// `options = { ... }` of a source, as written. Which ones an adapter takes is checked by [`plan`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `virustotal`: malicious from this many malicious engines; 3 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub malicious_min: Option<u32>,
    /// `virustotal`: clean needs this many engines that answered; 10 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub clean_min: Option<u32>,
}

/// The adapter of the source whose settings stand at `key` (`sources.portal`). This match lists all there are.
pub fn plan(key: &str, name: &AdapterName, options: &Options) -> Result<Arc<dyn Adapter>, Problem> {
    let name = name.0.as_str();
    let adapter: Arc<dyn Adapter> = match name {
        "virustotal" => return virustotal::VirusTotal::plan(key, options).map(|adapter| Arc::new(adapter) as _),
        "vileanalyziz" => Arc::new(vileanalyziz::VileAnalyziz),
        "metadefender" => Arc::new(metadefender::MetaDefender),
        "event_grid" => Arc::new(event_grid::EventGrid),
        "aws" => Arc::new(aws::Aws),
        "assemblyline" => Arc::new(assemblyline::Assemblyline),
        "cape" => Arc::new(cape::Cape),
        "native" => Arc::new(native::Native),
        "jq" => return Err(Problem::new(format!("{key}.adapter"), JQ_WITHOUT_TABLE)),
        name if pack::find(name).is_some() => pack::plan_shipped(name),
        _ => return Err(Problem::new(format!("{key}.adapter"), refusal(name))),
    };
    if *options != Options::default() {
        return Err(Problem::new(
            format!("{key}.options"),
            format!("adapter \"{name}\" takes no options: remove them"),
        ));
    }
    Ok(adapter)
}

/// The adapter of a source that brings its own table; `key` is what stands before the table's keys (`sources.acme.jq.`). `isolate` makes what runs its expressions, because
/// they are a user's; `provider` is the platform's name if the table has none.
pub fn plan_jq(
    key: &str,
    table: &PackTable,
    provider: &str,
    isolate: pack::Isolate<'_>,
) -> Result<Arc<dyn Adapter>, Vec<Problem>> {
    pack::Pack::plan(key, table, provider, Some(isolate)).map(|pack| Arc::new(pack) as _)
}

/// Why there is no adapter of this name, and which one may have been meant.
fn refusal(name: &str) -> String {
    let known = || names().chain(["jq"]);
    let built = known().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let nearest = known().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match nearest {
        Some((edits, known)) if edits <= known.len() / 3 => {
            format!("there is no adapter of this name; did you mean \"{known}\"? This version has {built}")
        }
        _ => format!("there is no adapter of this name; this version has {built}"),
    }
}

/// Every adapter that is built, and that [`plan`] takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT.into_iter().chain(pack::names())
}

/// The adapters that are code.
const BUILT: [&str; 8] =
    ["assemblyline", "aws", "cape", "event_grid", "metadefender", "native", "vileanalyziz", "virustotal"];
const JQ_WITHOUT_TABLE: &str =
    "adapter \"jq\" wants a table: write [sources.NAME.jq], or name its file with adapter_file";

impl JsonSchema for AdapterName {
    fn schema_name() -> Cow<'static, str> {
        "AdapterName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": names().chain(["jq"]).collect::<Vec<_>>()})
    }
}

/// Collects hits within bounds: the worst are kept, all are counted.
#[derive(Default)]
struct Hits {
    kept: Vec<Detection>,
    /// Malicious, suspicious, potentially unwanted.
    counts: [u32; 3],
}

impl Hits {
    /// Counts a hit; `verdict` is a detection. `named` gives engine and name if there is still room for one as bad as this.
    fn add<E>(
        &mut self,
        verdict: Verdict,
        named: impl FnOnce() -> Result<(String, Option<String>), E>,
    ) -> Result<(), E> {
        let count = match verdict {
            Verdict::Malicious => &mut self.counts[0],
            Verdict::Suspicious => &mut self.counts[1],
            _ => &mut self.counts[2],
        };
        *count = count.saturating_add(1);
        if *count as usize <= crate::event::DETECTIONS_MAX {
            let (engine, name) = named()?;
            self.kept.push(Detection { engine, name, verdict });
        }
        Ok(())
    }

    const fn malicious(&self) -> u32 {
        self.counts[0]
    }

    const fn suspicious(&self) -> u32 {
        self.counts[1]
    }

    fn total(&self) -> u32 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Gives the hits to a finding.
    fn put_into(self, finding: &mut Finding) {
        finding.hits = finding.hits.max(self.total());
        finding.truncated |= self.total() as usize > self.kept.len();
        finding.detections = self.kept;
    }
}

/// A score as events have it: whole, half up. The argument is from 0 to 100.
fn score_of(risk: f64) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 100")]
    let score = risk.clamp(0.0, 100.0).round() as u8;
    score
}
