//! Which events a sink wants: the `where` of its config.
//!
//! Not here: running a condition in jq, which is a user's program (`deliver/condition`, `sandbox`).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::adapter::jq::{Program, Script, condition_script};
use crate::event::{Event, Name, Verdict};
use crate::setting::Problem;

/// `where` as written. Conditions are all needed; an absent one is always true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// What the rule is called where filtered events are counted.
    #[serde(default)]
    pub name: Option<String>,
    /// Only these verdicts.
    #[serde(default)]
    pub verdicts: Option<Vec<Verdict>>,
    /// Only these sources.
    #[serde(default)]
    pub sources: Option<Vec<String>>,
    /// Only from this risk score on, 0 to 100; an event without a score passes.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub score_min: Option<u8>,
    /// Only where this jq holds for the event as OCSF, like `.severity_id >= 3`. It runs in a process of its own; where it fails the event passes.
    #[serde(default)]
    pub jq: Option<String>,
}

impl RouteConfig {
    /// Validates; `key` is the path in the config (`sinks.qradar.where`), `sources` are all that there are.
    pub fn plan(self, key: &str, sources: &[Name]) -> Result<Route, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |name: &str, message: String| problems.push(Problem::new(format!("{key}.{name}"), message));
        let condition = self.jq.as_ref().map(|jq| condition_script("where.jq", jq));
        if let Some(Err(mistakes)) = condition.clone().map(Program::compile) {
            for mistake in mistakes {
                problem("jq", mistake.message);
            }
        }
        if self.score_min.is_some_and(|score| score > 100) {
            problem("score_min", "a risk score is 0 to 100".to_owned());
        }
        if self.verdicts.as_ref().is_some_and(Vec::is_empty) {
            problem("verdicts", "an empty list lets no event pass: name the verdicts, or remove the key".to_owned());
        }
        let mut named = Vec::new();
        for source in self.sources.iter().flatten() {
            match sources.iter().find(|known| known.as_str() == source) {
                Some(known) => named.push(known.clone()),
                None => problem("sources", format!("there is no source of the name \"{}\"", source.escape_default())),
            }
        }
        if problems.is_empty() {
            let Self { name, verdicts, sources, score_min, .. } = self;
            Ok(Route { name, verdicts, sources: sources.map(|_| named), score_min, condition })
        } else {
            Err(problems)
        }
    }
}

/// Which events a sink wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    name: Option<String>,
    verdicts: Option<Vec<Verdict>>,
    sources: Option<Vec<Name>>,
    score_min: Option<u8>,
    condition: Option<Script>,
}

impl Route {
    /// Whether the sink wants this event, but for its condition in jq. What is no verdict passes a choice of verdicts.
    pub fn passes(&self, event: &Event) -> bool {
        let Self { name: _, verdicts, sources, score_min, condition: _ } = self;
        let wants = |wanted: &Vec<Verdict>| !event.topic.is_verdict() || wanted.contains(&event.finding.verdict);
        verdicts.as_ref().is_none_or(wants)
            && sources.as_ref().is_none_or(|wanted| wanted.contains(&event.source))
            && score_min.is_none_or(|least| event.finding.score.is_none_or(|score| score >= least))
    }

    /// Whether an event of this source and verdict can pass, whatever else it says.
    pub fn may_pass(&self, source: &Name, verdict: Verdict) -> bool {
        self.verdicts.as_ref().is_none_or(|wanted| wanted.contains(&verdict))
            && self.sources.as_ref().is_none_or(|wanted| wanted.contains(source))
    }

    /// The condition in jq, if there is one: whoever runs it asks it of the events that pass everything else.
    pub const fn condition(&self) -> Option<&Script> {
        self.condition.as_ref()
    }

    /// What the rule is called.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("where")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Topic, sample};

    #[test]
    fn all_conditions_are_needed_and_a_missing_score_passes() {
        let mut event = sample::event(Verdict::Malicious);
        event.finding.score = Some(60);
        let source = event.source.clone();
        let plan = |config: RouteConfig| config.plan("sinks.a.where", std::slice::from_ref(&source)).expect("valid");
        let config = RouteConfig {
            verdicts: Some(vec![Verdict::Malicious]),
            sources: Some(vec![source.to_string()]),
            score_min: Some(60),
            ..RouteConfig::default()
        };
        assert!(plan(RouteConfig::default()).passes(&event));
        assert!(plan(config.clone()).passes(&event));
        assert!(!plan(RouteConfig { score_min: Some(61), ..config.clone() }).passes(&event));
        assert!(!plan(RouteConfig { verdicts: Some(vec![Verdict::Clean]), ..config.clone() }).passes(&event));
        event.finding.score = None;
        assert!(plan(RouteConfig { score_min: Some(61), ..config.clone() }).passes(&event));
        event.finding.verdict = Verdict::Unknown;
        assert!(!plan(config.clone()).passes(&event));
        event.topic = Topic::Overdue;
        assert!(plan(config.clone()).passes(&event), "verdicts are chosen among verdicts");
        let other = RouteConfig { sources: Some(vec!["other".to_owned()]), ..config };
        let sources = [source, "other".parse().expect("a name")];
        assert!(!other.plan("sinks.a.where", &sources).expect("valid").passes(&event));
    }

    #[test]
    fn what_can_never_pass_is_refused_with_its_key() {
        let config = RouteConfig {
            verdicts: Some(Vec::new()),
            sources: Some(vec!["nobody".to_owned()]),
            jq: Some(".a |".to_owned()),
            ..RouteConfig::default()
        };
        let problems = config.plan("sinks.a.where", &[]).expect_err("three problems");
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["sinks.a.where.jq", "sinks.a.where.verdicts", "sinks.a.where.sources"]);
    }
}
