//! Bodies in, findings out: every recorded body against what it has to become, many odd ones, and properties of all adapters.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::event::{SubjectId, sample};
use crate::format::{Format, OCSF_BYTES_MAX, Style};

#[cfg(test)]
mod own;

#[test]
fn every_recorded_body_becomes_what_it_has_to() {
    let expected: Json = serde_json::from_slice(&read("EXPECTED.json")).expect("EXPECTED.json is JSON");
    let expected = expected["files"].as_object().expect("a map by file");
    let recorded: BTreeSet<_> = bodies().into_iter().map(|(path, _)| path).collect();
    assert_eq!(recorded, expected.keys().cloned().collect(), "bodies and expectations");
    for (path, wanted) in expected {
        let outcomes =
            normalize(adapter_of(path).as_ref(), &read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let wanted = wanted.as_array().expect("a list of outcomes");
        assert_eq!(outcomes.len(), wanted.len(), "{path}");
        for (outcome, wanted) in outcomes.iter().zip(wanted) {
            let outcome = outcome.as_ref().unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_outcome(path, outcome, wanted);
        }
    }
}

fn assert_outcome(path: &str, outcome: &Outcome, wanted: &Json) {
    let class = match &wanted["class"] {
        // An answer of an API, and a handshake, which the receiver answers.
        class if class == "api_response" || class == "handshake" => "ignore",
        class => class.as_str().expect("a class"),
    };
    assert_eq!(outcome.class(), class, "{path}");
    let Outcome::Verdict(finding) = outcome else { return };
    let time = wanted["time"].as_str().map(|time| time.parse::<Timestamp>().expect("a time"));
    assert_eq!(finding.analysed_at, time, "{path}");
    let is = json!({
        "event_id": finding.event_id, "verdict": finding.verdict, "score": finding.score, "sha256": finding.subject.sha256(),
        "detections": finding.hits, "families": finding.families, "policy": finding.policy, "hunting_rule": finding.hunting_rule,
    });
    for (key, value) in is.as_object().expect("an object") {
        assert_eq!(*value, wanted[key], "{path}: {key}");
    }
    if let Some(techniques) = wanted["techniques"].as_array() {
        assert_eq!(json!(finding.techniques), json!(techniques), "{path}");
    }
}

#[test]
fn the_findings_of_every_recorded_body_are_reviewed() {
    for (path, body) in bodies() {
        let outcomes = normalize(adapter_of(&path).as_ref(), &body).expect("reads");
        insta::assert_json_snapshot!(path.replace(['/', '.'], "_"), shown(&outcomes));
    }
}

#[test]
fn what_every_recorded_body_becomes_is_valid_ocsf() {
    let schema = include_str!("../../tests/schema/ocsf-1.8.0.strict.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).expect("JSON")).expect("a schema");
    let mut checked = 0;
    for (path, body) in bodies() {
        for outcome in normalize(adapter_of(&path).as_ref(), &body).expect("reads") {
            let Ok(Outcome::Verdict(finding)) = outcome else { continue };
            let mut event = sample::bare(finding.subject.id().clone(), finding.verdict);
            event.finding = *finding;
            let mut line = Vec::new();
            Format::Ocsf.render(&event, &Style::new("relay.example.com"), &mut line);
            assert!(line.len() <= OCSF_BYTES_MAX, "{path}: {}", line.len());
            let value = serde_json::from_slice(&line).expect("a rendering is JSON");
            let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{path}: {errors:#?}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn bodies_of_our_own_become_what_they_have_to() {
    let odd = all_bodies_of_our_own();
    for (name, adapter, body, wanted) in &odd {
        let shown = match normalize(built(adapter).as_ref(), body.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(outcomes) => outcomes.iter().map(in_short).collect::<Vec<_>>().join("; "),
        };
        assert_eq!(shown, *wanted, "{name}");
    }
}

fn all_bodies_of_our_own() -> Vec<Own> {
    bodies_of_our_own().into_iter().chain(own::bodies()).collect()
}

/// Name, adapter, body, outcome in short.
type Own = (&'static str, &'static str, String, &'static str);

fn bodies_of_our_own() -> Vec<Own> {
    let stats = |malicious: u32, suspicious: u32, harmless: u32, undetected: u32| json!({"malicious": malicious, "suspicious": suspicious, "harmless": harmless, "undetected": undetected, "timeout": 3});
    let file = |attributes: Json| json!({"data": {"type": "file", "id": EICAR, "attributes": attributes}}).to_string();
    let gti = |verdict: &str| json!({"verdict": {"value": verdict}, "threat_score": {"value": 88}});
    let v2 = |positives: u32, total: u32| {
        json!({"response_code": 1, "resource": EICAR, "sha256": EICAR, "positives": positives, "total": total})
            .to_string()
    };
    let vile = |file: Json| json!({"event": "analysis.completed", "eventId": "e", "file": file}).to_string();
    let native = |event: Json| {
        let mut whole = json!({"id": "1", "subject": {"sha256": EICAR}, "verdict": "clean"});
        whole.as_object_mut().expect("an object").extend(event.as_object().expect("an object").clone());
        whole.to_string()
    };
    vec![
        // VirusTotal: counts.
        ("no counts at all", "virustotal", file(json!({"last_analysis_stats": {}})), "unknown -"),
        ("never analysed", "virustotal", file(json!({"size": 1})), "unknown -"),
        ("analysed, but no counts", "virustotal", file(json!({"last_analysis_date": 1})), "data.attributes.last_analysis_stats is missing"),
        ("all timed out", "virustotal", file(json!({"last_analysis_stats": {"malicious": 0, "suspicious": 0, "harmless": 0, "undetected": 0, "timeout": 70}})), "unknown -"),
        ("nine saw nothing", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 4, 5)})), "unknown -"),
        ("ten saw nothing", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 4, 6)})), "clean 0"),
        ("one suspicious", "virustotal", file(json!({"last_analysis_stats": stats(0, 1, 4, 60)})), "suspicious 1"),
        ("two malicious", "virustotal", file(json!({"last_analysis_stats": stats(2, 0, 4, 60)})), "suspicious 3"),
        ("three malicious", "virustotal", file(json!({"last_analysis_stats": stats(3, 0, 4, 60)})), "malicious 4"),
        ("clean, but one count is missing", "virustotal", file(json!({"last_analysis_stats": {"suspicious": 0, "undetected": 60}})), "data.attributes.last_analysis_stats.malicious is missing"),
        ("malicious, and one count is missing", "virustotal", file(json!({"last_analysis_stats": {"malicious": 47, "undetected": 18}})), "malicious 72"),
        ("a count as text", "virustotal", file(json!({"last_analysis_stats": {"malicious": "3"}})), "data.attributes.last_analysis_stats.malicious: expected a whole number"),
        ("a count of 2^64", "virustotal", r#"{"data":{"type":"file","id":"x","attributes":{"last_analysis_stats":{"malicious":18446744073709551616}}}}"#.to_owned(), "data.attributes.last_analysis_stats.malicious: expected a whole number from 0 to 2^64 - 1"),
        ("a count of 1e400", "virustotal", r#"{"data":{"type":"file","id":"x","attributes":{"last_analysis_stats":{"malicious":1e400}}}}"#.to_owned(), "data.attributes.last_analysis_stats.malicious: expected a whole number from 0 to 2^64 - 1"),
        ("the list of engines says more than the counts", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 0, 60), "last_analysis_results": {"A": {"category": "malicious"}, "B": {"category": "malicious"}, "C": {"category": "malicious"}}})), "malicious 5"),
        // VirusTotal: Google's assessment.
        ("assessed malicious over clean counts", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 4, 60), "gti_assessment": gti("VERDICT_MALICIOUS")})), "malicious 88"),
        ("assessed benign over malicious counts", "virustotal", file(json!({"last_analysis_stats": stats(30, 0, 4, 60), "gti_assessment": gti("VERDICT_BENIGN")})), "clean 88"),
        ("assessed undetected", "virustotal", file(json!({"last_analysis_stats": stats(30, 0, 4, 60), "gti_assessment": gti("VERDICT_UNDETECTED")})), "malicious 88"),
        ("assessed unknown, without counts", "virustotal", file(json!({"gti_assessment": gti("VERDICT_UNKNOWN")})), "unknown 88"),
        ("assessed with a new word", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 4, 60), "gti_assessment": gti("VERDICT_FINE")})), "data.attributes.gti_assessment.verdict.value: an assessment that this version does not know"),
        ("assessed without a word", "virustotal", file(json!({"last_analysis_stats": stats(0, 0, 4, 60), "gti_assessment": {}})), "data.attributes.gti_assessment.verdict is missing"),
        // VirusTotal: other objects.
        ("a URL", "virustotal", json!({"data": {"type": "url", "id": EICAR, "attributes": {"url": "https://example.com/", "last_analysis_stats": stats(9, 0, 0, 60)}}}).to_string(), "malicious 13"),
        ("a URL without its URL", "virustotal", json!({"data": {"type": "url", "id": "x", "attributes": {"last_analysis_stats": stats(9, 0, 0, 60)}}}).to_string(), "data.attributes.url is missing"),
        ("an address", "virustotal", json!({"type": "ip_address", "id": "192.0.2.1", "attributes": {"last_analysis_stats": stats(0, 0, 50, 30)}}).to_string(), "clean 0"),
        ("an address that is none", "virustotal", json!({"type": "ip_address", "id": "192.0.2.256", "attributes": {"last_analysis_stats": stats(0, 0, 50, 30)}}).to_string(), "neither the id nor the link names the domain or address"),
        ("an analysis of a URL", "virustotal", json!({"data": {"type": "analysis", "id": "u-1", "attributes": {"status": "completed", "stats": stats(0, 0, 70, 9), "date": 1}}, "meta": {"url_info": {"url": "https://example.com/"}}}).to_string(), "clean 0"),
        ("an analysis of something unnamed", "virustotal", json!({"data": {"type": "analysis", "id": "u-1", "attributes": {"status": "completed", "stats": stats(0, 0, 70, 9)}}}).to_string(), "data: no hash or URL in meta.file_info, meta.url_info or links.item"),
        ("an analysis in progress", "virustotal", json!({"data": {"type": "analysis", "id": "u-1", "attributes": {"status": "in-progress", "stats": stats(0, 0, 70, 9)}}}).to_string(), "not_ready"),
        ("an analysis without a state", "virustotal", json!({"data": {"type": "analysis", "id": "u-1", "attributes": {"stats": stats(0, 0, 70, 9)}}}).to_string(), "data.attributes.status is missing"),
        ("a private analysis", "virustotal", json!({"data": {"type": "private_analysis", "id": "abc==", "attributes": {"status": "completed"}}}).to_string(), "pointer private_analysis:abc=="),
        ("a private analysis with a path for an id", "virustotal", json!({"data": {"type": "private_analysis", "id": "../users", "attributes": {"status": "completed"}}}).to_string(), "data: an id with characters that no id of VirusTotal has"),
        ("a notification", "virustotal", json!({"data": {"type": "ioc_stream_notification", "id": "1", "attributes": {"entity_type": "file", "entity_id": EICAR}}}).to_string(), "pointer file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"),
        ("a sandbox that hit", "virustotal", json!({"data": {"type": "file_behaviour", "id": format!("{EICAR}_Zenbox"), "attributes": {"verdicts": ["CLEAN", "TROJAN"], "mitre_attack_techniques": [{"id": "T1055"}, {"id": "x"}]}}}).to_string(), "malicious -"),
        ("a sandbox that saw nothing", "virustotal", json!({"data": {"type": "file_behaviour", "id": format!("{EICAR}_Zenbox"), "attributes": {"verdicts": ["CLEAN"]}}}).to_string(), "ignore"),
        ("a retrohunt that runs", "virustotal", json!({"data": {"type": "retrohunt_job", "id": "1", "attributes": {"status": "running"}}}).to_string(), "not_ready"),
        ("an unknown type", "virustotal", json!({"data": {"type": "graph", "id": "1", "attributes": {}}}).to_string(), "no message of this platform: data.type: an object of a type that this version does not know"),
        ("a page with an odd item", "virustotal", json!({"data": [{"type": "file", "id": "x", "attributes": {}}, {"type": "file", "id": EICAR, "attributes": {"last_analysis_stats": stats(3, 0, 0, 0)}}]}).to_string(), "item 0: attributes.sha256 is missing; malicious 100"),
        ("an empty page", "virustotal", json!({"data": []}).to_string(), "ignore"),
        ("an empty object as data", "virustotal", json!({"data": {}}).to_string(), "data.type is missing"),
        ("a feed with a broken line", "virustotal", format!("{{\"a\":\n{{\"type\":\"file\",\"id\":\"{EICAR}\",\"attributes\":{{\"last_analysis_stats\":{}}}}}\n", stats(3, 0, 0, 0)), "item 0: not readable JSON: byte 5: ends where a value should be; malicious 100"),
        // VirusTotal v2.
        ("v2: nothing of ten", "virustotal", v2(0, 10), "clean 0"),
        ("v2: nothing of nine", "virustotal", v2(0, 9), "unknown -"),
        ("v2: more hits than engines", "virustotal", v2(10, 9), "positives: more engines than there can be, or than total says"),
        ("v2: queued", "virustotal", json!({"response_code": -2, "resource": EICAR}).to_string(), "not_ready"),
        ("v2: a code as text", "virustotal", json!({"response_code": "x", "resource": EICAR}).to_string(), "response_code: expected 1, 0 or -2"),
        ("v2: an unknown URL", "virustotal", json!({"response_code": 0, "resource": "https://example.com/"}).to_string(), "unknown -"),
        // Vile Analyziz.
        ("any spelling", "vileanalyziz", json!({"SHA256": EICAR.to_uppercase(), "trust_score": 8, "verdict": "HIGH_RISK", "status": "Completed", "approval_status": "not-approved"}).to_string(), "malicious 92 not_approved"),
        ("two spellings", "vileanalyziz", json!({"sha256": EICAR, "verdict": "Clean", "Verdict": "High Risk", "status": "completed"}).to_string(), "not readable JSON: verdict: this key stands twice or in two spellings, so which one is meant is a guess"),
        ("a prohibited file", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": "Clean", "trustScore": 95, "approvalStatus": "Approved", "sanctionedStatus": "Prohibited"})), "clean 5 not_approved"),
        ("a bare word that it is clean", "vileanalyziz", json!({"sha256": EICAR, "verdict": "Clean"}).to_string(), "status is missing"),
        ("still processing", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": "Clean", "status": "processing"})), "not_ready"),
        ("failed", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": null, "status": "failed"})), "error -"),
        ("an event that says it failed", "vileanalyziz", json!({"event": "analysis.failed", "file": {"sha256": EICAR, "verdict": "Clean"}}).to_string(), "error -"),
        ("a new verdict", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": "Fine"})), "file.verdict: a verdict that this version does not know (known: Clean, Caution, High Risk, Unknown)"),
        ("no verdict", "vileanalyziz", vile(json!({"sha256": EICAR, "trustScore": 99})), "file.verdict is missing"),
        ("a trust score as text", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": "Clean", "trustScore": "8"})), "file.trustScore: expected a number from 0 to 100"),
        ("a trust score out of range", "vileanalyziz", vile(json!({"sha256": EICAR, "verdict": "Clean", "trustScore": 101})), "file.trustScore: expected a number from 0 to 100"),
        ("half a hash", "vileanalyziz", vile(json!({"sha256": "275a", "verdict": "Clean"})), "file.sha256: not the hexadecimal digits of this kind of hash"),
        ("no hash", "vileanalyziz", vile(json!({"verdict": "Clean", "id": "fil_1"})), "file.sha256 is missing"),
        ("an event without its file", "vileanalyziz", json!({"event": "analysis.completed", "error": {}}).to_string(), "file is missing"),
        ("a ping", "vileanalyziz", json!({"event": "ping"}).to_string(), "ignore"),
        ("a rotated key", "vileanalyziz", json!({"event": "api_key.rotated"}).to_string(), "ignore"),
        ("a list beside a file", "vileanalyziz", json!({"files": [], "file": {}}).to_string(), "files: stands beside a file, so which one is meant is a guess"),
        // Native.
        ("bare", "native", native(json!({})), "clean -"),
        ("a score with a fraction", "native", native(json!({"verdict": "pua", "score": 42.5})), "pua 43"),
        ("an unknown word", "native", native(json!({"verdict": "Clean"})), "verdict: expected unknown, clean, error, pua, suspicious or malicious"),
        ("a key in another case", "native", native(json!({"Verdict": "malicious"})), "not readable JSON: Verdict: this key stands twice or in two spellings, so which one is meant is a guess"),
        ("a list", "native", format!("[{}, 1]", native(json!({}))), "clean -; item 1: expected an object"),
        ("a CloudEvent", "native", json!({"specversion": "1.0", "id": "ce", "data": {"verdict": "error", "subject": {"url": "https://example.com/"}}}).to_string(), "error -"),
        ("an object", "native", native(json!({"subject": {"type": "object", "url": "s3://b/k"}})), "clean -"),
        ("a type that does not fit", "native", native(json!({"subject": {"type": "file", "url": "s3://b/k"}})), "subject.type: does not fit the identifiers (file: a hash, url and object: a url, message: message_id)"),
        ("no identifier", "native", native(json!({"subject": {"name": "a.exe"}})), "subject: no identifier: give sha256, sha1, md5, url or message_id"),
        ("a prototype", "native", native(json!({"__proto__": {"verdict": "clean"}, "verdict": "malicious"})), "malicious -"),
        ("no technique", "native", native(json!({"techniques": ["T1"]})), "techniques: expected ids of MITRE ATT&CK techniques like T1055 or T1055.012"),
        // Any adapter.
        ("a key twice", "native", format!(r#"{{"subject":{{"sha256":"{EICAR}"}},"verdict":"clean","verd\u0069ct":"malicious"}}"#), "not readable JSON: *: this key stands twice or in two spellings, so which one is meant is a guess"),
        ("nothing", "native", String::new(), "not readable JSON: byte 0: the body is empty"),
        ("a byte order mark", "native", "\u{feff}{}".to_owned(), "not readable JSON: byte 0: begins with a byte order mark"),
        ("not a number", "native", r#"{"score":NaN}"#.to_owned(), "not readable JSON: byte 9: expected a value"),
        ("two values", "native", "{} {}".to_owned(), "not readable JSON: byte 3: something follows the end of the JSON value"),
        ("half a surrogate pair", "native", r#"{"x":"\ud800"}"#.to_owned(), "not readable JSON: byte 6: half of a surrogate pair"),
        ("an array too deep", "native", "[".repeat(100_000), "not readable JSON: byte 64: nested deeper than 64 levels"),
        ("a text", "virustotal", "\"x\"".to_owned(), "expected an object"),
        ("null", "vileanalyziz", "null".to_owned(), "expected an object"),
    ]
}

#[test]
fn values_of_the_sender_never_reach_an_error() {
    let canary = "canary-4711";
    for adapter in BUILT.map(built) {
        for body in [
            json!({canary: canary}),
            json!({"verdict": canary, "subject": {"sha256": canary}, "sha256": canary, "status": "completed"}),
            json!({"data": {"type": canary, "id": canary, "attributes": {}}}),
            json!({"data": {"type": "file", "id": EICAR, "attributes": {"last_analysis_results": {"canary 4711 \u{1b}": 1}}}}),
        ] {
            let error = normalize(adapter.as_ref(), body.to_string().as_bytes()).expect_err("an odd body").to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}

#[test]
fn headers_that_no_signature_covers_lend_nothing() {
    let body = json!({"subject": {"sha256": EICAR}, "verdict": "clean"}).to_string();
    let headers = [("ce-id", "abc"), ("ce-time", "2026-03-23T12:00:00Z")];
    let outcomes = built("native").normalize(&delivery(body.as_bytes(), &headers)).expect("reads");
    let [Ok(Outcome::Verdict(finding))] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!((finding.event_id.as_deref(), finding.analysed_at), (None, None));
    assert!(built("native").headers().is_empty());
}

#[test]
fn numeric_ids_keep_every_digit() {
    for (id, kept) in
        [("18446744073709551617", Some("18446744073709551617")), ("\"007\"", Some("007")), ("1e3", None), ("1.0", None)]
    {
        let body = format!(r#"{{"id":{id},"subject":{{"sha256":"{EICAR}"}},"verdict":"clean"}}"#);
        let outcomes = normalize(built("native").as_ref(), body.as_bytes());
        match kept {
            None => assert!(outcomes.is_err(), "{id}"),
            Some(kept) => match outcomes.expect("reads").as_slice() {
                [Ok(Outcome::Verdict(finding))] => assert_eq!(finding.event_id.as_deref(), Some(kept)),
                other => panic!("{other:?}"),
            },
        }
    }
}

#[test]
fn a_finding_can_be_asked_for_once_more() {
    for (path, wanted) in [
        ("assemblyline/webhook_submission_completed.json", "submission:4fXkUaBZLpL1TNcFqFhVvF"),
        ("assemblyline/webhook_cache_hit.json", "submission:5gYlVbCamQM2UOdGrGiWwG"),
        ("aws_guardduty_s3/eventbridge_threats_found.json", "-"),
        ("azure_defender_storage/event_grid_malicious.json", "-"),
        ("cape/report_trimmed.json", "task:1234"),
        ("metadefender/core_callback_clean.json", "data:61dffeaa728844adbf49eb090e4ece0e"),
        ("metadefender/storage_security_file_scanned.json", "-"),
        (
            "vileanalyziz/analysis_completed_high_risk.json",
            "file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f",
        ),
        (
            "virustotal/v3_analysis_completed.json",
            "analysis:NDRkODg2MTJmZWE4YThmMzZkZTgyZTEyNzhhYmIwMmY6MTc3NDI2NzA4MA==",
        ),
        (
            "virustotal/v3_ioc_stream_page.json",
            "file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f domain:malware.example.com",
        ),
        ("virustotal/v2_file_report.json", "file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"),
        ("virustotal/v3_private_file.json", "-"),
    ] {
        let adapter = adapter_of(path);
        let outcomes = normalize(adapter.as_ref(), &read(path)).expect("reads");
        let ids = outcomes.iter().map(|outcome| match outcome {
            Ok(Outcome::Verdict(finding)) => adapter.fetch_of(finding).map_or("-".to_owned(), |id| id.to_string()),
            other => panic!("{other:?}"),
        });
        assert_eq!(ids.collect::<Vec<_>>().join(" "), wanted, "{path}");
    }
}

#[test]
fn a_url_is_asked_for_by_virustotals_id_or_by_itself() {
    let url = |event_id: Option<&str>, url: &str| {
        let mut finding = Finding::new(crate::event::Subject::of(SubjectId::Url(url.to_owned())), Verdict::Clean);
        finding.event_id = event_id.map(str::to_owned);
        built("virustotal").fetch_of(&finding).map(|id| id.to_string())
    };
    assert_eq!(url(Some("url:abc-1:1774267080"), "https://example.com/").as_deref(), Some("url:abc-1"));
    assert_eq!(url(Some("21769600967"), "http://m").as_deref(), Some("url:aHR0cDovL20"));
    assert_eq!(url(None, &format!("https://example.com/{}", "x".repeat(500))), None);
    assert_eq!(url(None, "192.0.2.1").as_deref(), Some("ip_address:192.0.2.1"));
    assert_eq!(url(None, "2001:db8::1"), None);
    assert_eq!(url(None, "example.com/path"), None);
}

#[test]
fn a_domain_is_known_by_its_bare_name() {
    let outcomes = normalize(built("virustotal").as_ref(), &read("virustotal/v3_ioc_stream_page.json")).expect("reads");
    let Some(Ok(Outcome::Verdict(domain))) = outcomes.get(1) else { panic!("{outcomes:?}") };
    assert_eq!(*domain.subject.id(), SubjectId::Url("malware.example.com".to_owned()));
}

/// Half a second is far above what an optimized build needs (under 60 ms), and far below what quadratic work would take.
#[test]
fn huge_bodies_end_in_bounded_time_and_few_outcomes() {
    let bodies = [
        format!("[{}1]", "1,".repeat(1_000_000)),
        format!("{{\"files\":[{}1]}}", "1,".repeat(1_000_000)),
        format!("{{\"data\":[{}{{}}]}}", "{},".repeat(900_000)),
        format!("{{{}\"b\":1}}", "\"a\":1,".repeat(1_000_000)),
        format!("\"{}\"", "x".repeat(10_000_000)),
        format!("{{\"verdict\":{}}}", "1".repeat(1_000_000)),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
    ];
    for body in bodies {
        for adapter in BUILT.map(built) {
            let seconds_max = if cfg!(debug_assertions) { 10.0 } else { 0.5 };
            let time = || {
                let start = Instant::now();
                let outcomes = normalize(adapter.as_ref(), body.as_bytes()).unwrap_or_default();
                assert!(outcomes.len() <= items::ODD_ITEMS_MAX + 1, "{}", outcomes.len());
                start.elapsed().as_secs_f64()
            };
            // A busy machine can stop us for seconds, but hardly three times.
            let is_fast = std::iter::repeat_with(time).take(3).any(|seconds| seconds < seconds_max);
            assert!(is_fast, "{}: three times over {seconds_max} s for {}", adapter.provider(), &body[..20]);
        }
    }
}

/// Three things are left out, because what remains is an ordinary clean report: the whole of Google's assessment where it overrules clean
/// counts, a list of engines that contradicts the counts, and what says of a clean file that there is more (a file within an archive, an
/// error of the analysis).
#[test]
fn deleting_a_field_never_makes_a_bad_or_unknown_file_clean() {
    let own = all_bodies_of_our_own()
        .into_iter()
        .filter(|(name, ..)| !name.contains("says more"))
        .map(|(name, adapter, body, _)| (format!("{adapter}/{name}"), body.into_bytes()));
    let mut deletions = 0;
    for (path, body) in bodies().into_iter().chain(own) {
        let adapter = adapter_of(&path);
        let Ok(whole) = serde_json::from_slice::<Json>(&body) else { continue };
        let verdicts = verdicts(&normalize(adapter.as_ref(), &body));
        if verdicts.is_empty() || verdicts.contains(&Verdict::Clean) {
            continue;
        }
        for pointer in pointers(&whole).into_iter().filter(|pointer| !pointer.ends_with("/gti_assessment")) {
            let shorter = without(&whole, &pointer).to_string();
            let left = self::verdicts(&normalize(adapter.as_ref(), shorter.as_bytes()));
            assert!(!left.contains(&Verdict::Clean), "{path} without {pointer}");
            deletions += 1;
        }
    }
    assert!(deletions > 500, "{deletions}");
}

#[test]
fn names_of_adapters_are_checked_with_words() {
    let plan = |name: &str, options: Options| {
        plan("sources.a", &AdapterName(name.to_owned()), &options).err().map(|p| p.to_string())
    };
    let none = Options::default;
    assert_eq!(plan("virustotal", none()), None);
    assert_eq!(plan("virustotal", Options { malicious_min: Some(5), clean_min: Some(1) }), None);
    for (name, options, wanted) in [
        ("jq", none(), "sources.a.adapter: adapter \"jq\" wants a table"),
        (
            "scanii",
            Options { malicious_min: Some(1), clean_min: None },
            "sources.a.options: adapter \"scanii\" takes no options",
        ),
        ("virustotl", none(), "did you mean \"virustotal\"?"),
        ("hybrid_analysis", none(), "did you mean \"hybrid-analysis\"?"),
        ("zzzzzz", none(), "there is no adapter of this name; this version has \"assemblyline\", \"aws\", \"cape\""),
        (
            "native",
            Options { malicious_min: Some(1), clean_min: None },
            "sources.a.options: adapter \"native\" takes no options",
        ),
        (
            "virustotal",
            Options { malicious_min: Some(0), clean_min: None },
            "sources.a.options.malicious_min: must be at least 1",
        ),
    ] {
        let problem = plan(name, options).expect("refused");
        assert!(problem.contains(wanted), "{problem}");
    }
    assert!(serde_json::from_str::<Options>(r#"{"malicious": 3}"#).is_err());
}

#[test]
fn json_that_is_read_is_what_another_parser_reads() {
    for text in [
        "0",
        "-0",
        "1.5e+10",
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "tru",
        "true",
        "nulll",
        "[]",
        "[1,]",
        "[,1]",
        "{}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1 2]",
        "\"\\u00e9\\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0041\"",
        "\"\\udc00\"",
        "\"\t\"",
        "\"",
        " \n[ 1 , {\"a\" : [ ] } ]\r\t",
        "]",
        "[}",
        "{]",
        "\u{a0}1",
        "1 1",
        "\"\\u0000\"",
    ] {
        assert_same_reading(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_like_json_is_read_as_another_parser_reads_it(text in r#"[\[\]{}",:\\u0-9eE+.a-f \-]{0,40}"#) {
        assert_same_reading(text.as_bytes());
    }

    #[test]
    fn any_json_value_is_read_back(value in any_json()) {
        assert_same_reading(value.to_string().as_bytes());
        assert_same_reading(serde_json::to_string_pretty(&value).expect("a value").as_bytes());
    }

    #[test]
    fn no_bytes_make_an_adapter_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for adapter in BUILT.map(built) {
            assert_eq!(normalize(adapter.as_ref(), &bytes), normalize(adapter.as_ref(), &bytes));
        }
    }

    #[test]
    fn no_damaged_body_makes_an_adapter_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..4),
    ) {
        let bodies = bodies();
        let (path, mut body) = bodies[which.index(bodies.len())].clone();
        for (place, byte, how) in damage {
            let at = place.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.truncate(at.max(1)),
                2 => body.insert(at, b"\"{}[]:,0e\\"[usize::from(byte) % 10]),
                _ => {
                    let end = (at + usize::from(byte)).min(body.len());
                    body.copy_within(at..end, 0);
                }
            }
        }
        let adapter = adapter_of(&path);
        assert_eq!(normalize(adapter.as_ref(), &body), normalize(adapter.as_ref(), &body));
    }

    /// Any value in any place: an error or a verdict within bounds, never a panic.
    #[test]
    fn no_odd_value_in_any_place_makes_an_adapter_panic(
        which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), value in any_json(),
    ) {
        let bodies = bodies();
        let (path, body) = &bodies[which.index(bodies.len())];
        let Ok(mut whole) = serde_json::from_slice::<Json>(body) else { return Ok(()) };
        let pointers = pointers(&whole);
        *whole.pointer_mut(&pointers[place.index(pointers.len())]).expect("it was listed") = value;
        for outcome in normalize(adapter_of(path).as_ref(), whole.to_string().as_bytes()).unwrap_or_default() {
            if let Ok(Outcome::Verdict(finding)) = outcome {
                prop_assert_eq!(finding.as_ref(), &finding.clone().within_bounds());
                prop_assert!(finding.score.is_none_or(|score| score <= 100));
            }
        }
    }
}

/// Both parsers refuse the text, or both read the same value. Numbers beyond the other parser's range are not compared.
fn assert_same_reading(text: &[u8]) {
    match (json::Document::read(text), serde_json::from_slice::<Json>(text)) {
        (Ok(document), Ok(value)) => assert_eq!(back(document.root()), value, "{}", String::from_utf8_lossy(text)),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
        (ours, other) => panic!("{}: {:?} {other:?}", String::from_utf8_lossy(text), ours.err()),
    }
}

/// The value as the other parser's type; the last of equal keys wins there.
fn back(value: json::Value<'_>) -> Json {
    if let Ok(items) = value.list() {
        items.map(back).collect()
    } else if let Ok(entries) = value.entries() {
        Json::Object(entries.map(|(key, value)| (key.into_owned(), back(value))).collect())
    } else if let Ok(text) = value.text() {
        text.into()
    } else {
        serde_json::from_str(value.raw()).expect("numbers and words are read alike")
    }
}

pub(super) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1e9..1e9).prop_map(|number: f64| Json::from(number)),
        ".{0,12}".prop_map(Json::from),
        "[a-z0-9]{64}".prop_map(Json::from),
        Just(Json::from("x".repeat(3000))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map("[a-z_]{1,9}|.{0,5}", inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn verdicts(outcomes: &Result<Vec<Result<Outcome, ItemError>>, NormalizeError>) -> Vec<Verdict> {
    let outcomes = outcomes.iter().flatten().flatten();
    outcomes
        .filter_map(|outcome| if let Outcome::Verdict(finding) = outcome { Some(finding.verdict) } else { None })
        .collect()
}

/// Every place of a value but the outermost, as JSON pointers.
pub(super) fn pointers(value: &Json) -> Vec<String> {
    let children: Vec<(String, &Json)> = match value {
        Json::Object(map) => {
            map.iter().map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child)).collect()
        }
        Json::Array(list) => list.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    let below = |(key, child): (String, &Json)| {
        let here = format!("/{key}");
        let deeper: Vec<_> = pointers(child).into_iter().map(|rest| format!("{here}{rest}")).collect();
        std::iter::once(here).chain(deeper)
    };
    children.into_iter().flat_map(below).collect()
}

pub(super) fn without(whole: &Json, pointer: &str) -> Json {
    let mut shorter = whole.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
    match shorter.pointer_mut(parent).expect("it was listed") {
        Json::Object(map) => drop(map.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Json::Array(list) => drop(list.remove(key.parse().expect("an index"))),
        _ => unreachable!("only containers have children"),
    }
    shorter
}

fn in_short(outcome: &Result<Outcome, ItemError>) -> String {
    match outcome {
        Err(error) => error.to_string(),
        Ok(Outcome::Verdict(finding)) => {
            let score = finding.score.map_or("-".to_owned(), |score| score.to_string());
            let policy = finding.policy.map_or(String::new(), |policy| format!(" {}", policy.word()));
            format!("{} {score}{policy}", finding.verdict)
        }
        Ok(Outcome::Pointer(id)) => format!("pointer {id}"),
        Ok(other) => other.class().to_owned(),
    }
}

fn shown(outcomes: &[Result<Outcome, ItemError>]) -> Vec<Json> {
    let shown = outcomes.iter().map(|outcome| match outcome {
        Ok(Outcome::Verdict(finding)) => serde_json::to_value(finding).expect("a finding is plain data"),
        other => in_short(other).into(),
    });
    shown.collect()
}

fn normalize(adapter: &dyn Adapter, body: &[u8]) -> Result<Vec<Result<Outcome, ItemError>>, NormalizeError> {
    adapter.normalize(&delivery(body, &[]))
}

pub(super) fn delivery(body: &[u8], headers: &[(&str, &str)]) -> Delivery {
    let evidence = json!({"how": "network", "headers": headers}).to_string();
    let length = u32::try_from(evidence.len()).expect("short").to_le_bytes();
    let stored = [&[1], &length[..], evidence.as_bytes(), body].concat();
    let source = "test".parse().expect("a name");
    Delivery::from_stored(source, Timestamp::UNIX_EPOCH, &Bytes::from(stored)).expect("the stored form of a delivery")
}

fn built(name: &str) -> Arc<dyn Adapter> {
    plan("sources.test", &AdapterName(name.to_owned()), &Options::default()).expect("a built adapter")
}

fn adapter_of(path: &str) -> Arc<dyn Adapter> {
    let folder = path.split('/').next().expect("a folder");
    built(FOLDERS.iter().find(|(known, _)| *known == folder).map_or(folder, |(_, adapter)| adapter))
}

/// Folders of payloads, and whose they are.
const FOLDERS: [(&str, &str); 7] = [
    ("assemblyline", "assemblyline"),
    ("aws_guardduty_s3", "aws"),
    ("azure_defender_storage", "event_grid"),
    ("cape", "cape"),
    ("metadefender", "metadefender"),
    ("vileanalyziz", "vileanalyziz"),
    ("virustotal", "virustotal"),
];

fn bodies() -> Vec<(String, Vec<u8>)> {
    let mut bodies = Vec::new();
    for (folder, _) in FOLDERS {
        for entry in payloads().join(folder).read_dir().expect("the folder of payloads") {
            let name = entry.expect("readable").file_name().into_string().expect("plain names");
            if name == "SOURCES.md" {
                continue;
            }
            bodies.push((format!("{folder}/{name}"), read(&format!("{folder}/{name}"))));
        }
    }
    bodies.sort();
    bodies
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(payloads().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn payloads() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads")
}

const EICAR: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
