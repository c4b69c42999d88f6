//! What a body has to become, as `expected.json` of a pack says it, held against what it becomes.
//!
//! The file maps each body to a list with one object an item: `class` (`verdict` if not given) and any of the fields of an event. Only what
//! is named is compared. An item that must be refused has the class `dead_letter` and perhaps a part of the `reason`.
//!
//! Not here: who runs the bodies and prints the differences (`cli/adapter`).

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::Outcomes;
use crate::adapter::{NormalizeError, Outcome};
use crate::event::{Finding, SubjectId};

/// What is not as expected.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Place of the item in the message, from 0.
    pub item: usize,
    /// The field.
    pub field: String,
    /// What `expected.json` says.
    pub expected: Json,
    /// What it is.
    pub actual: Json,
}

/// What a body became, one object an item, in the words of `expected.json`.
pub fn shown(outcomes: &Result<Outcomes, NormalizeError>) -> Vec<Json> {
    let dead = |reason: String| json!({"class": "dead_letter", "reason": reason});
    match outcomes {
        Err(error) => vec![dead(error.to_string())],
        Ok(outcomes) => outcomes
            .iter()
            .map(|outcome| match outcome {
                Ok(Outcome::Verdict(finding)) => facts(finding),
                Ok(Outcome::Pointer(id)) => json!({"class": "pointer", "pointer": id}),
                Ok(other) => json!({"class": other.class()}),
                Err(error) => dead(error.reason.clone()),
            })
            .collect(),
    }
}

/// Only what is there.
fn facts(finding: &Finding) -> Json {
    let subject = &finding.subject;
    let (mut object, mut etag, mut url, mut message, mut own_sha1, mut own_md5) = (None, None, None, None, None, None);
    match subject.id() {
        SubjectId::Object { url, etag: version } => {
            object = Some(url);
            etag = Some(version).filter(|version| !version.is_empty());
        }
        SubjectId::Url(address) => url = Some(address),
        SubjectId::Message(id) => message = Some(id),
        SubjectId::Sha1(hash) => own_sha1 = Some(*hash),
        SubjectId::Md5(hash) => own_md5 = Some(*hash),
        SubjectId::Sha256(_) => {}
    }
    let Json::Object(all) = json!({
        "class": "verdict", "verdict": finding.verdict, "score": finding.score, "time": finding.analysed_at, "event_id": finding.event_id,
        "notification_id": finding.notification_id, "sha256": subject.sha256(), "sha1": subject.sha1.or(own_sha1),
        "md5": subject.md5.or(own_md5), "object": object, "etag": etag, "url": url, "message": message, "name": subject.name,
        "size": subject.size, "file_type": subject.file_type, "detections": finding.hits, "engines": finding.engines,
        "families": finding.families, "threat": finding.threat, "techniques": finding.techniques, "tags": finding.tags,
        "policy": finding.policy, "reason": finding.reason, "report_url": finding.report_url, "hunting_rule": finding.hunting_rule,
        "tenant": finding.tenant, "correlation": finding.reference, "tlp": finding.tlp,
    }) else {
        return Json::Null;
    };
    let given =
        all.into_iter().filter(|(_, value)| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    Json::Object(given.collect())
}

/// What is not as expected, in the order of the items. `actual` is from [`shown`].
pub fn differences(actual: &[Json], expected: &[Json]) -> Vec<Difference> {
    let mut found = Vec::new();
    let empty = Map::new();
    for item in 0..actual.len().max(expected.len()) {
        let (Some(actual), Some(expected)) = (actual.get(item), expected.get(item)) else {
            let whole = |side: &[Json]| side.get(item).cloned().unwrap_or(Json::Null);
            found.push(Difference { item, field: "item".to_owned(), expected: whole(expected), actual: whole(actual) });
            continue;
        };
        let class = json!("verdict");
        let expected = expected.as_object().unwrap_or(&empty);
        let with_class = std::iter::once(("class", expected.get("class").unwrap_or(&class)));
        let others =
            expected.iter().map(|(field, value)| (field.as_str(), value)).filter(|(field, _)| *field != "class");
        for (field, wanted) in with_class.chain(others) {
            let is = actual.get(field).unwrap_or(&Json::Null);
            if !FIELDS.contains(&field) {
                let actual = json!(format!("there is no field of this name; there are {}", FIELDS.join(", ")));
                found.push(Difference { item, field: field.to_owned(), expected: wanted.clone(), actual });
            } else if !is_same(field, is, wanted) {
                found.push(Difference { item, field: field.to_owned(), expected: wanted.clone(), actual: is.clone() });
            }
        }
    }
    found
}

/// Times are compared as instants, classes by what becomes of them, a list that is empty is none, and of a reason a part is enough for a
/// dead letter.
fn is_same(field: &str, actual: &Json, expected: &Json) -> bool {
    if actual == expected {
        return true;
    }
    match (field, actual, expected) {
        (_, Json::Null, Json::Array(list)) => list.is_empty(),
        ("class", Json::String(actual), Json::String(expected)) => match expected.as_str() {
            "verdict_changed" => actual == "verdict",
            "request" | "handshake" | "api_response" => actual == "ignore",
            _ => false,
        },
        ("time", Json::String(actual), Json::String(expected)) => {
            let [actual, expected] = [actual, expected].map(|time| time.parse::<Timestamp>().ok());
            actual.is_some() && actual == expected
        }
        ("reason", Json::String(actual), Json::String(expected)) => actual.contains(expected),
        _ => false,
    }
}

/// The fields of an expectation.
const FIELDS: [&str; 31] = [
    "class",
    "verdict",
    "score",
    "time",
    "event_id",
    "notification_id",
    "sha256",
    "sha1",
    "md5",
    "object",
    "etag",
    "url",
    "message",
    "name",
    "size",
    "file_type",
    "detections",
    "engines",
    "families",
    "threat",
    "techniques",
    "tags",
    "policy",
    "reason",
    "report_url",
    "hunting_rule",
    "tenant",
    "correlation",
    "tlp",
    "pointer",
    "note",
];
