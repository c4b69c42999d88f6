//! A source in the config: as written, and as planned.
//!
//! Invariant: planning is pure, and tells all that is wrong with a source at once.
//!
//! Not here: how messages are proven (`verify`), what an adapter is told (`config/adapter_of`), how a platform is asked (`poll`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::kept;
use crate::adapter::pack::PackTable;
use crate::adapter::{self, Adapter, AdapterName};
use crate::delivery::Coding;
use crate::event::SourceId;
use crate::poll::{Asked, Audience, ConfirmConfig, PollConfig, PollPlan, ReconcileConfig};
use crate::receive::RateLimit;
use crate::secret::SecretRef;
use crate::setting::Problem;
use crate::trust::{Publisher, TrustPlan};
use crate::verify::{GridProof, Scheme, VerifyConfig};

/// A source, as written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The platform; `native` for senders of our own event, `jq` for an adapter of your own as data.
    pub adapter: AdapterName,
    /// Settings of the adapter.
    #[serde(default)]
    pub options: adapter::Options,
    /// How its messages are proven; may be left out where its results are fetched (`reconcile`, `poll`).
    #[serde(default)]
    pub verify: Option<VerifyConfig>,
    /// Most proven requests; none by default.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// Fetching the report that a callback points to, or that nothing proves.
    #[serde(default)]
    pub confirm: Option<ConfirmConfig>,
    /// Finding finished analyses whose callback was lost.
    #[serde(default)]
    pub reconcile: Option<ReconcileConfig>,
    /// Polling VirusTotal.
    #[serde(default)]
    pub poll: Option<PollConfig>,
    /// Whether files may be sent to the platform for analysis, and who sees them there; off unless set.
    #[serde(default)]
    pub submit: Option<Audience>,
    /// With `adapter = "jq"`: the adapter as a table of jq expressions.
    #[serde(default)]
    pub jq: Option<PackTable>,
    /// With `adapter = "jq"`: the file of that table, or the folder of a pack.
    #[serde(default)]
    pub adapter_file: Option<PathBuf>,
    /// What stands in that file, or why it cannot be read.
    #[serde(skip)]
    pub adapter_text: Option<Result<String, String>>,
}

/// A source whose config is valid.
pub struct SourcePlan {
    /// Its name.
    pub id: SourceId,
    /// What understands its payloads.
    pub adapter: Arc<dyn Adapter>,
    /// How its messages are proven.
    pub scheme: Scheme,
    /// Its secrets.
    pub secrets: Vec<SecretRef>,
    /// Whether secrets under 24 bytes are taken.
    pub allow_short_secret: bool,
    /// The public keys that its messages name.
    pub trust: Option<TrustPlan>,
    /// How its sender may compress bodies.
    pub codings: Vec<Coding>,
    /// Most proven requests.
    pub rate_limit: Option<RateLimit>,
    /// As written, for `check`: what to enter at the sender; none where no message is taken.
    pub verify: Option<VerifyConfig>,
    /// How its platform is asked, if it is.
    pub poll: Option<PollPlan>,
}

impl SourcePlan {
    /// Its platform, and how it is proven in a word.
    pub fn kind(&self) -> (String, &'static str) {
        (self.adapter.provider().to_owned(), self.scheme.auth().word())
    }
}

impl std::fmt::Debug for SourcePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourcePlan").field("id", &self.id).field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl SourceConfig {
    pub(super) fn plan(self, name: &str, loopback: bool, dedup: Duration) -> Result<SourcePlan, Vec<Problem>> {
        let key = format!("sources.{name}");
        let mut problems = Vec::new();
        let id = kept(name.parse::<SourceId>().map_err(|error| Problem::new(&key, error.to_string())), &mut problems);
        let adapter = self.plan_adapter(&key, name).map_err(|found| problems.extend(found)).ok();
        let is_asked = self.confirm.is_some() || self.reconcile.is_some() || self.poll.is_some();
        let asked = Asked { confirm: self.confirm, reconcile: self.reconcile, poll: self.poll };
        let poll = asked.plan(&key, &self.adapter.0, dedup).map_err(|found| problems.extend(found)).ok();
        let poll =
            poll.and_then(|mut poll| match self.submit.map(|who| who.plan(&key, &self.adapter.0, poll.as_mut())) {
                Some(Err(problem)) => {
                    problems.push(problem);
                    None
                }
                _ => Some(poll),
            });
        let scheme = if let Some(verify) = &self.verify {
            kept(verify.plan(&format!("{key}.verify"), loopback), &mut problems)
        } else if is_asked {
            Some(Scheme::Closed)
        } else {
            let words = "say how its messages are proven, like { scheme = \"hmac\", preset = \"standard-webhooks\", secrets = [\"env:SECRET\"] }, or how its platform is asked (confirm, reconcile, poll)";
            problems.push(Problem::new(format!("{key}.verify"), words));
            None
        };
        let limit = self.rate_limit.map(|limit| limit.plan(&format!("{key}.rate_limit"))).transpose();
        let rate_limit = kept(limit, &mut problems);
        let verify = self.verify;
        let trust = match (&scheme, &verify) {
            (Some(scheme), Some(verify)) => {
                trust_plan(scheme, verify, &key).map_err(|found| problems.extend(found)).unwrap_or_default()
            }
            _ => None,
        };
        match (id, adapter, scheme, poll, rate_limit) {
            (Some(id), Some(adapter), Some(scheme), Some(poll), Some(rate_limit)) if problems.is_empty() => {
                let secrets = verify.as_ref().map_or_else(Vec::new, VerifyConfig::references);
                let codings = verify.as_ref().map_or_else(Vec::new, VerifyConfig::codings);
                let allow_short_secret = verify.as_ref().is_some_and(|verify| verify.allow_short_secret);
                Ok(SourcePlan {
                    id,
                    adapter,
                    scheme,
                    secrets,
                    allow_short_secret,
                    trust,
                    codings,
                    rate_limit,
                    verify,
                    poll,
                })
            }
            _ => Err(problems),
        }
    }
}

/// Whom a source believes that publishes keys. Whoever could pretend to be him could prove anything, so there his certificate counts.
fn trust_plan(scheme: &Scheme, verify: &VerifyConfig, key: &str) -> Result<Option<TrustPlan>, Vec<Problem>> {
    let publisher = match scheme {
        Scheme::Sns(sns) => Publisher::Sns(sns.topics().to_vec()),
        Scheme::EventGrid { proof: GridProof::Issuer(jwt), .. } => Publisher::Issuer(jwt.issuer().to_owned()),
        _ => return Ok(None),
    };
    let key = format!("{key}.verify.tls");
    let tls = verify.tls.clone();
    if tls.dangerous_skip_verify || tls.server_name.is_some() {
        let words = "the proof is made of what is fetched there, so the server has to be the one of the address: remove dangerous_skip_verify and server_name; ca may stay";
        return Err(vec![Problem::new(key, words)]);
    }
    Ok(Some(TrustPlan { publisher, tls: tls.plan(&key)? }))
}
