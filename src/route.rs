//! Which events a sink wants: its `where`, as written and as checked.
//!
//! Conditions are ANDed; a `where` without conditions, or none at all, passes everything. What it stops is counted as filtered by the
//! rule's name, so a rule always has one.
//!
//! Not here: the counting (`deliver`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, SourceId, Verdict};
use crate::setting::Problem;

/// `where = { ... }` of a sink, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Where {
    /// Name of the rule in metrics and tables: what was filtered is counted by it. `where` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only these verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<Vec<Verdict>>,
    /// Only events of these sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// Only events with at least this risk score; those without a score pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub score_min: Option<u8>,
    /// A jq condition. Planned, not built yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jq: Option<String>,
}

/// The rule of one sink, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    name: String,
    /// Indexed by the order of [`Verdict::ALL`].
    verdicts: [bool; Verdict::ALL.len()],
    sources: Option<Vec<SourceId>>,
    score_min: u8,
}

impl Default for Route {
    /// The rule of a sink without `where`: everything passes.
    fn default() -> Self {
        Self { name: NAME.to_owned(), verdicts: [true; Verdict::ALL.len()], sources: None, score_min: 0 }
    }
}

impl Where {
    /// Checks the rule at `key` (`sinks.qradar.where`) against the sources that the config has.
    pub fn plan(&self, key: &str, known: &[SourceId]) -> Result<Route, Problem> {
        let problem = |field: &str, message: String| Err(Problem::new(format!("{key}.{field}"), message));
        if self.jq.is_some() {
            return problem("jq", "is planned but not built yet; use verdicts, sources and score_min".to_owned());
        }
        let mut route = Route::default();
        if let Some(name) = &self.name {
            match name.parse::<SourceId>() {
                Ok(name) => name.as_str().clone_into(&mut route.name),
                Err(error) => return problem("name", error.to_string()),
            }
        }
        if let Some(verdicts) = &self.verdicts {
            if verdicts.is_empty() {
                return problem(
                    "verdicts",
                    "is empty, so nothing would ever pass: name a verdict or leave it out".to_owned(),
                );
            }
            route.verdicts = Verdict::ALL.map(|verdict| verdicts.contains(&verdict));
        }
        if let Some(sources) = &self.sources {
            if sources.is_empty() {
                return problem(
                    "sources",
                    "is empty, so nothing would ever pass: name a source or leave it out".to_owned(),
                );
            }
            let mut wanted = Vec::with_capacity(sources.len());
            for name in sources {
                match known.iter().find(|source| source.as_str() == name) {
                    Some(source) => wanted.push(source.clone()),
                    None => return problem("sources", unknown_source(name, known)),
                }
            }
            route.sources = Some(wanted);
        }
        if let Some(score_min) = self.score_min {
            if score_min > 100 {
                return problem("score_min", "must be at most 100: that is the worst score there is".to_owned());
            }
            route.score_min = score_min;
        }
        Ok(route)
    }
}

impl Route {
    /// Whether the sink wants this event.
    pub fn passes(&self, event: &Event) -> bool {
        let finding = &event.finding;
        self.verdicts[finding.verdict as usize]
            && self.sources.as_ref().is_none_or(|sources| sources.contains(&event.source))
            && finding.score.is_none_or(|score| score >= self.score_min)
    }

    /// The rule's name: what it stops is accounted for by it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn unknown_source(name: &str, known: &[SourceId]) -> String {
    let nearest = known.iter().map(|source| (strsim::damerau_levenshtein(name, source.as_str()), source)).min();
    let name: String = name.chars().take(80).collect();
    match nearest {
        Some((edits, source)) if edits <= source.as_str().len() / 3 => {
            format!("there is no source \"{name}\"; did you mean \"{source}\"?")
        }
        _ => format!("there is no source \"{name}\": add [sources.{name}] or take it out"),
    }
}

const NAME: &str = "where";

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Activity, Auth, Finding, Hash, Standing, Subject, SubjectId};

    fn event(source: &str, verdict: Verdict, score: Option<u8>) -> Event {
        let subject = Subject::of(SubjectId::Sha256(Hash([1; 32])));
        Event {
            uid: Hash([0; 16]),
            source: source.parse().expect("a name"),
            provider: "test".to_owned(),
            auth: Auth::Signature,
            received_at: Timestamp::UNIX_EPOCH,
            effective_at: Timestamp::UNIX_EPOCH,
            clock_suspect: false,
            raw_sha256: Hash([0; 32]),
            raw_size: 0,
            finding: Finding { score, ..Finding::new(subject, verdict) },
            activity: Activity::Scan,
            standing: Standing::Latest,
            previous: None,
            replay: false,
        }
    }

    fn sources() -> Vec<SourceId> {
        ["portal", "vt"].map(|name| name.parse().expect("a name")).to_vec()
    }

    #[test]
    fn conditions_are_anded_and_a_score_only_counts_where_there_is_one() {
        let rule = r#"{"name":"soc","verdicts":["malicious","suspicious"],"sources":["portal"],"score_min":50}"#;
        let rule: Where = serde_json::from_str(rule).expect("a rule");
        let route = rule.plan("sinks.a.where", &sources()).expect("a good rule");
        assert_eq!(route.name(), "soc");
        for (source, verdict, score, passes) in [
            ("portal", Verdict::Malicious, Some(50), true),
            ("portal", Verdict::Malicious, None, true),
            ("portal", Verdict::Malicious, Some(49), false),
            ("portal", Verdict::Pua, Some(99), false),
            ("vt", Verdict::Malicious, Some(99), false),
        ] {
            assert_eq!(route.passes(&event(source, verdict, score)), passes, "{source} {verdict} {score:?}");
        }
    }

    #[test]
    fn without_conditions_everything_passes() {
        let planned = Where::default().plan("sinks.a.where", &[]).expect("a good rule");
        assert_eq!((planned.name(), &planned), ("where", &Route::default()));
        for (place, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, place, "the order of the list is that of the enum");
            assert!(planned.passes(&event("portal", verdict, Some(0))));
        }
    }

    #[test]
    fn a_rule_that_can_not_work_is_refused_with_words() {
        for (rule, wanted) in [
            (r#"{"jq":".severity_id >= 3"}"#, "sinks.a.where.jq: is planned but not built yet"),
            (r#"{"verdicts":[]}"#, "sinks.a.where.verdicts: is empty"),
            (r#"{"sources":[]}"#, "sinks.a.where.sources: is empty"),
            (r#"{"sources":["portl"]}"#, "did you mean \"portal\"?"),
            (r#"{"sources":["elsewhere"]}"#, "add [sources.elsewhere]"),
            (r#"{"score_min":101}"#, "sinks.a.where.score_min: must be at most 100"),
            (r#"{"name":"SOC!"}"#, "sinks.a.where.name: \"SOC!\" is not a name"),
        ] {
            let rule: Where = serde_json::from_str(rule).expect("written as a rule");
            let problem = rule.plan("sinks.a.where", &sources()).expect_err("refused").to_string();
            assert!(problem.contains(wanted), "{problem}");
        }
        assert!(serde_json::from_str::<Where>(r#"{"verdict":["clean"]}"#).is_err());
        assert!(serde_json::from_str::<Where>(r#"{"verdicts":["bad"]}"#).is_err());
    }
}
