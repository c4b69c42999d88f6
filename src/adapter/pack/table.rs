//! The table of a pack: which expression gives which field, what the words mean, how the score is scaled.
//!
//! Invariants: a table that is planned compiles, names what the verdict is and what it is about, and has no way to call an unknown word
//! clean; every problem names its key.
//!
//! Not here: what the expressions give (`pack`), jq itself (`jq`).

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::coerce::Scale;
use crate::adapter::jq::{Expression, Program, Script, Unwrap};
use crate::event::Verdict;
use crate::setting::Problem;

/// An adapter as data: the file `pack.toml`, and the table `[sources.NAME.jq]`. Every value in `fields` is a jq expression over one item of a message; jq selects, and
/// times, hashes, numbers and words are read afterwards. `$envelope` is what an SNS message, an event of Event Grid or a CloudEvent stood in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackTable {
    /// The platform, as events name it; the name of the source if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What a message is wrapped in.
    #[serde(default)]
    pub unwrap: Unwrap,
    /// jq: from a message to its items, for messages that hold several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<String>,
    /// jq: what an item is: `verdict`, `verdict_changed`, `not_ready`, `pointer`, `job`, `request`, `handshake`, `api_response` or `ignore`. Without it
    /// every item is a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Where the report is that an item of the class `pointer` points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<PointerTable>,
    /// What is read from a verdict.
    #[serde(default)]
    pub fields: Fields,
    /// What the platform's verdict words mean, in any case; `_default` is for all others. Without this table the words have to be ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub verdicts: BTreeMap<String, Verdict>,
    /// The platform's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreTable>,
}

/// Where a report is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PointerTable {
    /// What the id names.
    pub kind: PointerKind,
    /// jq: the platform's id of the report.
    pub id: String,
}

/// What the id of a pointer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PointerKind {
    /// An analysis.
    Analysis,
    /// A report.
    Report,
    /// A sample.
    Sample,
    /// A submission.
    Submission,
    /// A task of a sandbox.
    Task,
}

impl PointerKind {
    /// The word, as [`crate::adapter::FetchId`] has it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Analysis => "analysis",
            Self::Report => "report",
            Self::Sample => "sample",
            Self::Submission => "submission",
            Self::Task => "task",
        }
    }
}

/// How the platform's score becomes a risk of 0 to 100.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreTable {
    /// jq: the score.
    pub expr: String,
    /// The largest score there is.
    #[serde(default = "default_max")]
    pub max: f64,
    /// Whether the largest score is the best one.
    #[serde(default)]
    pub invert: bool,
}

const fn default_max() -> f64 {
    100.0
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What is read from a verdict, each by a jq expression.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Fields {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<String>,)+
        }

        impl Fields {
            /// Those that are given, by name.
            fn given(&self) -> Vec<(&'static str, &str)> {
                let all = [$((stringify!($name), &self.$name)),+];
                all.into_iter().filter_map(|(name, jq)| Some((name, jq.as_deref()?))).collect()
            }
        }
    };
}

fields! {
    /// The platform's word, number or truth value for its verdict; see `verdicts`.
    verdict,
    /// SHA-256 of the file.
    sha256,
    /// SHA-1 of the file.
    sha1,
    /// MD5 of the file.
    md5,
    /// URL of an object in a store, where no hash is known.
    object,
    /// Which version of the object it is.
    etag,
    /// The URL, domain or address that was examined, where it is no file.
    url,
    /// The platform's id of the message that was examined, where it is neither.
    message,
    /// File name.
    name,
    /// Size in bytes.
    size,
    /// Type of the file.
    file_type,
    /// When the analysis ended: seconds or milliseconds since 1970, ISO 8601, or as HTTP writes it.
    time,
    /// The platform's id of this event.
    event_id,
    /// The platform's id of a notification, where one analysis is notified several times.
    notification_id,
    /// A list of hits: texts, or objects with `engine`, `name` and `verdict`.
    detections,
    /// How many engines answered.
    engines,
    /// Malware families, a list or one.
    families,
    /// The threat in the platform's words.
    threat,
    /// MITRE ATT&CK technique ids, a list or one; what is none is left out.
    techniques,
    /// Tags, a list or one.
    tags,
    /// The platform's approval: `approved`, `not_approved` or `pending_review`.
    policy,
    /// Why the verdict is what it is, or why there is none.
    reason,
    /// Where a person can read the report.
    report_url,
    /// The rule of a hunt that matched.
    hunting_rule,
    /// Tenant or account at the platform.
    tenant,
    /// The caller's own reference, echoed by the platform: a text, a number, or an object of such.
    correlation,
    /// Traffic Light Protocol mark.
    tlp,
}

/// What to do with the answers of a script.
#[derive(Debug)]
pub(super) struct Rules {
    /// In lower case; none where the words are ours.
    pub(super) verdicts: Option<HashMap<String, Verdict>>,
    /// For every other word.
    pub(super) default: Option<Verdict>,
    pub(super) scale: Option<Scale>,
    pub(super) pointer: Option<PointerKind>,
}

impl PackTable {
    /// The expressions of the table, for errors as they stand in it.
    pub(super) fn script(&self) -> Script {
        let single = |key: &str, jq: &Option<String>| jq.as_ref().map(|jq| Expression::new(key, jq));
        let fields = self.fields.given().into_iter();
        let score = self.score.iter().map(|score| ("score", Expression::new("score.expr", &score.expr)));
        Script {
            unwrap: self.unwrap,
            foreach: single("foreach", &self.foreach),
            class: single("class", &self.class),
            pointer: self.pointer.as_ref().map(|pointer| Expression::new("pointer.id", &pointer.id)),
            parts: fields
                .map(|(name, jq)| (name, Expression::new(format!("fields.{name}"), jq)))
                .chain(score)
                .map(|(name, expression)| (name.to_owned(), expression))
                .collect(),
            // The verdict stands first, and without it nothing else matters.
            needs_first: true,
        }
    }

    /// Validates and compiles the table; `key` is what stands before its own keys (`sources.acme.jq.`, `acme/pack.toml: `).
    pub(super) fn plan(&self, key: &str) -> Result<(Program, Rules), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |name: &str, words: &str| problems.push(Problem::new(format!("{key}{name}"), words));
        let Fields { verdict, sha256, sha1, md5, object, url, message, .. } = &self.fields;
        if verdict.is_none() {
            problem("fields.verdict", "missing: say where the platform's verdict stands, like \".verdict\"");
        }
        if [sha256, sha1, md5, object, url, message].iter().all(|field| field.is_none()) {
            problem("fields", "say what a verdict is about: give sha256, sha1, md5, object, url or message");
        }
        if self.score.as_ref().is_some_and(|score| !(score.max.is_finite() && score.max > 0.0)) {
            problem("score.max", "the largest score there is: a number above 0");
        }
        let default = self.verdicts.get(DEFAULT).copied();
        if default == Some(Verdict::Clean) {
            problem(
                "verdicts._default",
                "a word that nobody knows must not become clean: use \"unknown\", or name the words",
            );
        }
        let words = self.verdicts.iter().filter(|(word, _)| *word != DEFAULT);
        let mut verdicts: HashMap<String, Verdict> = HashMap::new();
        for (word, verdict) in words {
            let plain = word.trim().to_lowercase();
            if verdicts.insert(plain, *verdict).is_some_and(|other| other != *verdict) {
                problem(&format!("verdicts.{word}"), "stands twice, with two meanings: case does not count");
            }
        }
        let program = Program::compile(self.script());
        if let Err(mistakes) = &program {
            for mistake in mistakes {
                problem(&mistake.key, &mistake.message);
            }
        }
        match program {
            Ok(program) if problems.is_empty() => {
                let scale = self.score.as_ref().map(|score| Scale { max: score.max, invert: score.invert });
                let verdicts = (!self.verdicts.is_empty()).then_some(verdicts);
                Ok((
                    program,
                    Rules { verdicts, default, scale, pointer: self.pointer.as_ref().map(|pointer| pointer.kind) },
                ))
            }
            _ => Err(problems),
        }
    }
}

/// The key for all other words.
const DEFAULT: &str = "_default";
