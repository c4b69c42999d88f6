//! Bodies of our own for the adapters of MetaDefender, Event Grid, AWS, Assemblyline, CAPE, and for what of VirusTotal is no report: each
//! status that their senders document, and odd ones, with what they have to become.

use serde_json::{Value as Json, json};

use super::{EICAR, Own};

/// Name, adapter, body, outcome in short.
pub(super) fn bodies() -> Vec<Own> {
    let groups = [
        ("virustotal", virustotal()),
    ];
    let named = |(adapter, cases): (&'static str, Vec<Case>)| {
        cases.into_iter().map(move |(name, body, wanted)| (name, adapter, body, wanted))
    };
    groups.into_iter().flat_map(named).collect()
}

/// Name, body, outcome in short.
type Case = (&'static str, String, &'static str);

fn virustotal() -> Vec<Case> {
    vec![
        ("a private analysis without a state", json!({"data": {"type": "private_analysis", "id": "abc", "attributes": {}}}).to_string(), "data.attributes.status is missing"),
        ("a private analysis that runs", json!({"data": {"type": "private_analysis", "id": "abc", "attributes": {"status": "in-progress"}}}).to_string(), "not_ready"),
        ("a private file", json!({"data": {"type": "private_file", "id": EICAR, "attributes": {"threat_verdict": "VERDICT_SUSPICIOUS"}}}).to_string(), "suspicious -"),
        ("a private file in which nothing was seen", json!({"data": {"type": "private_file", "id": EICAR, "attributes": {"threat_verdict": "VERDICT_UNDETECTED", "last_analysis_date": 1}}}).to_string(), "unknown -"),
        ("an older notification", json!({"data": {"type": "hunting_notification", "id": "1-2-3", "attributes": {"rule_name": "r", "tags": ["r", EICAR]}}}).to_string(), "pointer file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"),
        ("an older notification of no file", json!({"data": {"type": "hunting_notification", "id": "1-2-3", "attributes": {"tags": ["r"]}}}).to_string(), "data.attributes.tags: expected the SHA-256 of one file among the tags"),
    ]
}

/// Puts what `more` says over what `body` says; null takes away.
fn merge(body: &mut Json, more: Json) {
    match (body, more) {
        (Json::Object(body), Json::Object(more)) => {
            for (key, value) in more {
                merge(body.entry(key).or_insert(Json::Null), value);
            }
        }
        (body, more) => *body = more,
    }
}

fn merged(mut body: Json, more: Json) -> Json {
    merge(&mut body, more);
    body
}
