//! The shipped packs against their bodies, odd tables, and coercions that never panic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::coerce::Scale;
use super::shipped::SHIPPED;
use super::*;
use crate::adapter::items::ODD_ITEMS_MAX;
use crate::adapter::jq::Program;
use crate::adapter::tests::{any_json, delivery, pointers, without};
use crate::event::sample;
use crate::format::{Format, Style};

fn expectations(pack: &Shipped) -> BTreeMap<String, Vec<Json>> {
    serde_json::from_str(pack.expected).unwrap_or_else(|error| panic!("{}: {error}", pack.name))
}

/// The adapter of a pack, compiled once for all cases.
fn shipped_adapter(name: &str) -> Arc<dyn Adapter> {
    static ADAPTERS: LazyLock<BTreeMap<&str, Arc<dyn Adapter>>> =
        LazyLock::new(|| SHIPPED.iter().map(|pack| (pack.name, plan_shipped(pack.name))).collect());
    ADAPTERS[name].clone()
}

fn normalize(adapter: &dyn Adapter, body: &[u8]) -> Result<Outcomes, NormalizeError> {
    adapter.normalize(&delivery(body, &[]))
}

#[test]
fn every_body_of_every_pack_becomes_what_it_has_to() {
    for pack in &SHIPPED {
        let adapter = shipped_adapter(pack.name);
        let expected = expectations(pack);
        for (name, body) in pack.bodies {
            let outcomes = normalize(adapter.as_ref(), body);
            let differences = expected::differences(&expected::shown(&outcomes), &expected[*name]);
            assert_eq!(differences, [], "{}/{name}", pack.name);
        }
    }
}

#[test]
fn what_every_body_becomes_is_valid_ocsf() {
    let schema = include_str!("../../../tests/schema/ocsf-1.8.0.strict.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).expect("JSON")).expect("a schema");
    let mut checked = 0;
    for pack in &SHIPPED {
        for (name, body) in pack.bodies {
            for outcome in normalize(shipped_adapter(pack.name).as_ref(), body).into_iter().flatten() {
                let Ok(Outcome::Verdict(finding)) = outcome else { continue };
                let mut event = sample::bare(finding.subject.id().clone(), finding.verdict);
                event.finding = *finding;
                let mut line = Vec::new();
                Format::Ocsf.render(&event, &Style::new("relay.example.com"), &mut line);
                let value: Json = serde_json::from_slice(&line).expect("JSON");
                let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{}/{name}: {errors:?}", pack.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

/// The packs with the most to ask, or that take lists apart. A debug build needs some twenty times as long as an optimized one.
#[test]
fn long_lists_end_in_bounded_time_and_few_outcomes() {
    let bodies = [
        format!("[{}1]", "1,".repeat(50_000)),
        format!("{{\"data\":[{}{{}}]}}", "{},".repeat(12_000)),
        format!("{{\"results\":[{}{{}}],\"tasks\":[{}{{}}]}}", "{},".repeat(12_000), "{},".repeat(12_000)),
        format!(
            "{{\"findings\":[{}\"a\"],\"checksum\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"}}",
            "\"a\",".repeat(50_000)
        ),
        "{}\n".repeat(12_000),
        "{\"data\":{\"analysis\":{\"scores\":{\"verdict\":{\"threatLevel\":2}}}},\"status\":\"x\"}\n".repeat(1000),
    ];
    for name in ["anyrun", "reversinglabs", "scanii", "vmray", "vxcube"] {
        for body in &bodies {
            let began = Instant::now();
            let outcomes = normalize(shipped_adapter(name).as_ref(), body.as_bytes()).unwrap_or_default();
            assert!(outcomes.len() <= ODD_ITEMS_MAX + 1, "{name}: {}", outcomes.len());
            assert!(began.elapsed().as_secs() < 10, "{name}: {:?} for {:.20}", began.elapsed(), body);
        }
    }
    let error = normalize(shipped_adapter("vmray").as_ref(), bodies[1].as_bytes()).expect_err("too many").to_string();
    assert_eq!(error, "jq: more than 10000 items in one message");
}

#[test]
fn what_is_compiled_in_is_what_lies_in_the_folders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters");
    let listed = |folder: &Path| -> BTreeSet<String> {
        let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("plain names")).collect()
    };
    let plain = |names: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> { names.map(str::to_owned).collect() };
    assert_eq!(listed(&root), plain(&mut names()));
    for pack in &SHIPPED {
        let folder = root.join(pack.name);
        assert_eq!(
            listed(&folder),
            plain(&mut ["SOURCES.md", "bodies", "expected.json", "pack.toml"].into_iter()),
            "{}",
            pack.name
        );
        let bodies = plain(&mut pack.bodies.iter().map(|(name, _)| *name));
        assert_eq!(listed(&folder.join("bodies")), bodies, "{}", pack.name);
        assert_eq!(expectations(pack).into_keys().collect::<BTreeSet<_>>(), bodies, "{}", pack.name);
        let verdicts: BTreeSet<_> =
            expectations(pack).values().flatten().map(|item| item["verdict"].to_string()).collect();
        assert!(verdicts.len() > 2, "{}: bodies of more than one verdict", pack.name);
    }
}

/// They run in this process, without a deadline.
#[test]
fn shipped_expressions_end_whatever_they_read() {
    for pack in &SHIPPED {
        for word in [
            "fromjson",
            "repeat",
            "recurse",
            "range",
            "while",
            "until",
            "def ",
            "walk",
            "combinations",
            "..",
            "$ENV",
            "limit",
        ] {
            let code = pack.table.lines().map(|line| line.split('#').next().unwrap_or_default());
            assert!(!code.clone().any(|line| line.contains(word)), "{}: {word}", pack.name);
        }
        assert!(pack.parsed().provider.is_some(), "{}", pack.name);
    }
}

/// What remains without the only hit of a list is an ordinary clean report, so list items are left out where the list is all there is.
#[test]
fn deleting_a_field_never_makes_a_bad_or_unknown_file_clean() {
    let mut deletions = 0;
    for pack in &SHIPPED {
        let adapter = shipped_adapter(pack.name);
        for (name, body) in pack.bodies {
            let Ok(whole) = serde_json::from_slice::<Json>(body) else { continue };
            let verdicts = verdicts(&normalize(adapter.as_ref(), body));
            if verdicts.is_empty() || verdicts.contains(&Verdict::Clean) {
                continue;
            }
            for shorter in deletions_of(&whole) {
                let left = self::verdicts(&normalize(adapter.as_ref(), shorter.to_string().as_bytes()));
                assert!(!left.contains(&Verdict::Clean), "{}/{name} as {shorter}", pack.name);
                deletions += 1;
            }
        }
    }
    assert!(deletions > 1000, "{deletions}");
}

/// The body without each of its fields in turn, also within the text that SNS carries.
fn deletions_of(whole: &Json) -> Vec<Json> {
    let is_only_hit =
        |pointer: &str| ["/findings/0", "/scanning_result/Findings/0", "/scanning_result/Codes/0"].contains(&pointer);
    let fields = pointers(whole).into_iter().filter(|pointer| !is_only_hit(pointer));
    let mut shorter: Vec<_> = fields.map(|pointer| without(whole, &pointer)).collect();
    if let Some(inner) = whole["Message"].as_str().and_then(|text| serde_json::from_str::<Json>(text).ok()) {
        for inner in deletions_of(&inner) {
            let mut outer = whole.clone();
            outer["Message"] = Json::from(inner.to_string());
            shorter.push(outer);
        }
    }
    shorter
}

fn verdicts(outcomes: &Result<Outcomes, NormalizeError>) -> Vec<Verdict> {
    let outcomes = outcomes.iter().flatten().flatten();
    outcomes
        .filter_map(|outcome| if let Outcome::Verdict(finding) = outcome { Some(finding.verdict) } else { None })
        .collect()
}

/// An adapter of this table; its program runs in this process.
fn adapter(table: &str) -> Pack {
    let table = toml::from_str(table).unwrap_or_else(|error| panic!("{error}"));
    Pack::plan("sources.acme.jq", &table, "acme", None).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// An adapter that takes every field from the key of the same name.
fn plain() -> Pack {
    let names = [
        "verdict",
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
        "time",
        "event_id",
        "notification_id",
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
    ];
    let fields = names.map(|name| format!("{name} = \".{name}\"\n")).concat();
    adapter(&format!("class = '.class // \"verdict\"'\n[fields]\n{fields}[score]\nexpr = \".score\"\nmax = 10\n"))
}

fn plain_with(more: &Json) -> Vec<Json> {
    let mut body = json!({"verdict": "malicious", "sha256": EICAR});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body.as_object_mut().expect("an object").retain(|_, value| *value != json!("absent"));
    expected::shown(&normalize(&plain(), body.to_string().as_bytes()))
}

#[test]
fn facts_are_read_however_platforms_write_them() {
    for (more, field, wanted) in [
        (json!({"verdict": " MaliCious "}), "verdict", json!("malicious")),
        (json!({"sha256": format!("sha256:{}", EICAR.to_uppercase())}), "sha256", json!(EICAR)),
        (json!({"sha256": format!("SHA-256:{EICAR}")}), "sha256", json!(EICAR)),
        (
            json!({"sha256": "", "sha1": "sha1:3395856CE81F2B7382DEE72602F798B642F14140"}),
            "sha1",
            json!("3395856ce81f2b7382dee72602f798b642f14140"),
        ),
        (
            json!({"sha256": null, "md5": "44D88612FEA8A8F36DE82E1278ABB02F"}),
            "md5",
            json!("44d88612fea8a8f36de82e1278abb02f"),
        ),
        (json!({"sha256": "absent", "object": "s3://b/k", "etag": 7}), "etag", json!("7")),
        (json!({"sha256": "absent", "url": "https://example.com/"}), "url", json!("https://example.com/")),
        (json!({"sha256": "absent", "message": "m-1"}), "message", json!("m-1")),
        (json!({"size": "68"}), "size", json!(68)),
        (json!({"score": 9.6}), "score", json!(96)),
        (json!({"score": "9"}), "score", json!(90)),
        (json!({"score": 11}), "score", json!(100)),
        (json!({"score": -1}), "score", json!(0)),
        (json!({"score": 9, "verdict": "error"}), "score", json!(null)),
        (json!({"event_id": 18_446_744_073_709_551_615_u64}), "event_id", json!("18446744073709551615")),
        (json!({"event_id": " "}), "event_id", json!(null)),
        (
            json!({"detections": ["a", {"name": "b", "engine": "E", "verdict": "PUA"}, {"verdict": "clean"}, null, {}]}),
            "detections",
            json!(3),
        ),
        (json!({"families": ["b", "a", "b", "", null, 7]}), "families", json!(["b", "a", "7"])),
        (json!({"families": "one"}), "families", json!(["one"])),
        (json!({"techniques": ["T1055", "x", "T1055.012"]}), "techniques", json!(["T1055", "T1055.012"])),
        (json!({"policy": "Not-Approved"}), "policy", json!("not_approved")),
        (json!({"tlp": "amber"}), "tlp", json!("TLP:AMBER")),
        (json!({"report_url": "javascript:alert(1)"}), "report_url", json!(null)),
        (json!({"correlation": "x".repeat(600)}), "correlation", json!(null)),
        (json!({"reason": 5}), "reason", json!("5")),
        (json!({"class": "not_ready", "verdict": "absent"}), "class", json!("not_ready")),
        (json!({"class": "request"}), "class", json!("ignore")),
    ] {
        let shown = plain_with(&more);
        assert_eq!(shown[0].get(field).cloned().unwrap_or_default(), wanted, "{more}: {shown:?}");
    }
}

#[test]
fn odd_facts_are_named_and_never_quoted() {
    let canary = "canary-4711";
    for (more, wanted) in [
        (json!({"verdict": canary}), "verdict: a verdict that the table does not know"),
        (json!({"verdict": "absent"}), "verdict is missing"),
        (json!({"verdict": "  "}), "verdict is missing"),
        (json!({"verdict": [canary]}), "verdict: expected a text or a number"),
        (json!({"sha256": canary}), "sha256: not the hexadecimal digits of this kind of hash"),
        (json!({"sha256": &EICAR[..63]}), "sha256: not the hexadecimal digits of this kind of hash"),
        (json!({"sha256": format!("sha1:{EICAR}")}), "sha256: not the hexadecimal digits of this kind of hash"),
        (
            json!({"sha256": "absent"}),
            "nothing says what the verdict is about: no sha256, sha1, md5, object, url or message",
        ),
        (json!({"sha256": "absent", "object": 7}), "object: expected a text"),
        (json!({"sha256": "absent", "object": "x".repeat(2049)}), "object: the URL is longer than 2048 bytes"),
        (
            json!({"time": canary}),
            "time: expected a time: seconds or milliseconds since 1970, 2026-03-23T12:00:00Z, or Mon, 23 Mar 2026 12:00:00 GMT",
        ),
        (json!({"score": canary}), "score: expected a number"),
        (json!({"size": -1}), "size: expected a whole number from 0 to 2^64 - 1"),
        (json!({"engines": 5_000_000_000_u64}), "engines: the count is too large"),
        (json!({"event_id": "x".repeat(513)}), "event_id: the id is longer than 512 bytes"),
        (json!({"detections": {"a": canary}}), "detections: expected a list"),
        (json!({"detections": [{"verdict": canary}]}), "detections[0].verdict: a verdict that the table does not know"),
        (json!({"policy": canary}), "policy: expected approved, not_approved or pending_review"),
        (json!({"tlp": canary}), "tlp: expected CLEAR, WHITE, GREEN, AMBER, AMBER+STRICT or RED"),
        (
            json!({"class": canary}),
            "class: expected verdict, verdict_changed, not_ready, pointer, job, request, handshake, api_response or ignore",
        ),
        (json!({"class": "pointer"}), "pointer is missing"),
        (json!({"class": 1}), "class: expected a text"),
        (json!({"families": {"a": canary}}), "families: expected a text or a number"),
    ] {
        assert_eq!(plain_with(&more), [json!({"class": "dead_letter", "reason": wanted})], "{more}");
    }
}

#[test]
fn times_are_read_in_every_form() {
    let table = "[fields]\nverdict = '\"unknown\"'\nmessage = '\"m\"'\ntime = \".\"";
    let adapter = adapter(table);
    let read =
        |body: &str| expected::shown(&normalize(&adapter, body.as_bytes()))[0]["time"].as_str().map(str::to_owned);
    for (body, wanted) in [
        ("1774267200", Some("2026-03-23T12:00:00Z")),
        ("1774267200.123", Some("2026-03-23T12:00:00.123Z")),
        ("1774267200.048127912345", Some("2026-03-23T12:00:00.048127912Z")),
        ("1.774267200123e9", Some("2026-03-23T12:00:00.123Z")),
        ("1774267200123", Some("2026-03-23T12:00:00.123Z")),
        ("1774267200123.5", Some("2026-03-23T12:00:00.1235Z")),
        ("1774267200123456", Some("2026-03-23T12:00:00.123456Z")),
        ("1774267200123456789", Some("2026-03-23T12:00:00.123456789Z")),
        ("\"1774267200\"", Some("2026-03-23T12:00:00Z")),
        ("0", Some("1970-01-01T00:00:00Z")),
        ("\"2026-03-23T12:00:00Z\"", Some("2026-03-23T12:00:00Z")),
        ("\"2026-03-23T12:00:00\"", Some("2026-03-23T12:00:00Z")),
        ("\"2026-03-23 12:00:00.5\"", Some("2026-03-23T12:00:00.5Z")),
        ("\"2026-03-23 12:00:00 UTC\"", Some("2026-03-23T12:00:00Z")),
        ("\"2026-03-23t12:00:00z\"", Some("2026-03-23T12:00:00Z")),
        ("\"2026-03-23T12:00:00.0481279Z\"", Some("2026-03-23T12:00:00.0481279Z")),
        ("\"2026-03-23T12:00:00.123456789012Z\"", Some("2026-03-23T12:00:00.123456789Z")),
        ("\"2026-03-23T14:00:00+02:00\"", Some("2026-03-23T12:00:00Z")),
        ("\"2026-03-23T14:00:00.5+0200\"", Some("2026-03-23T12:00:00.5Z")),
        ("\"Mon, 23 Mar 2026 12:00:42 GMT\"", Some("2026-03-23T12:00:42Z")),
        ("\"2026-03-23\"", None),
        ("\"2026-03-23T12:00:00.\"", None),
        ("\"2026-13-23T12:00:00Z\"", None),
        ("-1", None),
        ("1e300", None),
        ("99999999999999999999999", None),
        ("true", None),
        ("\"yesterday\"", None),
    ] {
        assert_eq!(read(body).as_deref(), wanted, "{body}");
    }
}

#[test]
fn scores_are_scaled_turned_and_kept_in_range() {
    for (max, invert, score, risk) in [
        (100.0, false, "92", 92),
        (100.0, true, "8", 92),
        (10.0, false, "9.55", 96),
        (1000.0, false, "1500", 100),
        (1.0, true, "0.25", 75),
        (10.0, true, "-3", 100),
        (0.5, false, "1e-9", 0),
    ] {
        let table = format!(
            "[fields]\nverdict = '\"unknown\"'\nmessage = '\"m\"'\n[score]\nexpr = \".\"\nmax = {max:?}\ninvert = {invert}"
        );
        let shown = expected::shown(&normalize(&adapter(&table), score.as_bytes()));
        assert_eq!(shown[0]["score"], json!(risk), "{score} of {max}");
    }
}

#[test]
fn words_of_the_table_count_and_no_others() {
    let adapter = adapter(
        "[fields]\nverdict = \".\"\nmessage = '\"m\"'\n[verdicts]\nInfected = \"malicious\"\nclean = \"clean\"\n-100 = \"error\"\ntrue = \"pua\"\n_default = \"unknown\"",
    );
    for (body, verdict) in [
        ("\"INFECTED\"", "malicious"),
        ("\"clean\"", "clean"),
        ("-100", "error"),
        ("100", "unknown"),
        ("true", "pua"),
        ("\"malicious\"", "unknown"),
        ("\"_default\"", "unknown"),
    ] {
        assert_eq!(expected::shown(&normalize(&adapter, body.as_bytes()))[0]["verdict"], json!(verdict), "{body}");
    }
}

#[test]
fn tables_that_make_no_sense_are_refused_with_their_keys() {
    let problems = |table: &str| {
        let table: PackTable = toml::from_str(table).unwrap_or_else(|error| panic!("{error}"));
        let problems = Pack::plan("k.", &table, "acme", None).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems("[fields]\nverdict = \".\"\nurl = \".\""), Vec::<String>::new());
    for (table, wanted) in [
        ("", &["k.fields.verdict: missing", "k.fields: say what"][..]),
        ("[fields]\nverdict = \".\"\nurl = \".a |\"", &["k.fields.url: column 5: expected term"][..]),
        (
            "class = \"env\"\n[fields]\nverdict = \".\"\nurl = \".\"",
            &["k.class: column 1: there is no function env/0 here"][..],
        ),
        (
            "[fields]\nverdict = \".\"\nurl = \".\"\n[verdicts]\n_default = \"clean\"",
            &["k.verdicts._default: a word that nobody knows"][..],
        ),
        (
            "[fields]\nverdict = \".\"\nurl = \".\"\n[verdicts]\nA = \"pua\"\na = \"clean\"",
            &["k.verdicts.a: stands twice"][..],
        ),
        (
            "[fields]\nverdict = \".\"\nurl = \".\"\n[score]\nexpr = \"foo\"\nmax = 0",
            &["k.score.max: ", "k.score.expr: column 1"][..],
        ),
    ] {
        let problems = problems(table);
        assert_eq!(problems.len(), wanted.len(), "{table}: {problems:?}");
        for (problem, wanted) in problems.iter().zip(wanted) {
            assert!(problem.starts_with(wanted), "{problem}");
        }
    }
    for wrong in [
        "fields = 1",
        "[fields]\nsha265 = \".\"",
        "unwrap = \"xml\"",
        "[verdicts]\na = \"bad\"",
        "[pointer]\nkind = \"x\"\nid = \".\"",
    ] {
        assert!(toml::from_str::<PackTable>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn expectations_that_do_not_hold_are_told_by_field() {
    let pack = find("scanii").expect("shipped");
    let adapter = shipped_adapter("scanii");
    let (_, body) = pack.bodies.iter().find(|(name, _)| *name == "callback_clean.json").expect("a body");
    let actual = expected::shown(&normalize(adapter.as_ref(), body));
    let differences = |expected: Json| {
        let expected = expected.as_array().expect("a list").clone();
        let found = expected::differences(&actual, &expected);
        found.iter().map(|difference| format!("{} {}", difference.item, difference.field)).collect::<Vec<_>>()
    };
    assert_eq!(
        differences(json!([{"verdict": "clean", "time": "2026-03-23T13:00:38+01:00", "families": []}])),
        Vec::<String>::new()
    );
    assert_eq!(differences(json!([{"verdict": "malicious", "score": 0}])), ["0 score", "0 verdict"]);
    assert_eq!(differences(json!([{"class": "not_ready"}])), ["0 class"]);
    assert_eq!(differences(json!([])), ["0 item"]);
    assert_eq!(differences(json!([{}, {}])), ["1 item"]);
    assert_eq!(differences(json!([{"verdikt": "clean"}])), ["0 verdikt"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any value in any place of any body: an error or a verdict within bounds, never a panic.
    #[test]
    fn no_odd_value_makes_a_pack_panic(
        which in any::<prop::sample::Index>(), body in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), value in any_json(),
    ) {
        let pack = &SHIPPED[which.index(SHIPPED.len())];
        let (_, body) = pack.bodies[body.index(pack.bodies.len())];
        let Ok(mut whole) = serde_json::from_slice::<Json>(body) else { return Ok(()) };
        let pointers = pointers(&whole);
        *whole.pointer_mut(&pointers[place.index(pointers.len())]).expect("it was listed") = value;
        for outcome in normalize(shipped_adapter(pack.name).as_ref(), whole.to_string().as_bytes()).into_iter().flatten() {
            if let Ok(Outcome::Verdict(finding)) = outcome {
                prop_assert_eq!(finding.as_ref(), &finding.clone().within_bounds());
                prop_assert!(finding.score.is_none_or(|score| score <= 100));
            }
        }
    }

    /// Every coercion, with any value.
    #[test]
    fn no_value_makes_a_coercion_panic(value in any_json()) {
        read_all(value.to_string().as_bytes());
    }

    #[test]
    fn no_text_makes_a_coercion_panic(text in r"([0-9TZ:. +\-]{0,40}|.{0,80})") {
        read_all(Json::from(text).to_string().as_bytes());
    }

    #[test]
    fn no_number_makes_a_coercion_panic(text in r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+\-]?[0-9]{1,5})?") {
        read_all(text.as_bytes());
    }

    /// An instant that is written is the instant that is read, whatever the digits of its fraction.
    #[test]
    fn times_are_read_to_the_nanosecond(nanoseconds in 0_i64..4_000_000_000_000_000_000) {
        let instant = Timestamp::from_nanosecond(nanoseconds.into()).expect("in range");
        let text = format!("\"{instant}\"");
        let document = Document::read(text.as_bytes()).expect("JSON");
        prop_assert_eq!(time(document.root()).expect("a time"), Some(instant));
    }
}

fn read_all(text: &[u8]) {
    static PROGRAM: LazyLock<Program> =
        LazyLock::new(|| Program::compile(crate::adapter::jq::condition_script("k", "[., tostring]")).expect("jq"));

    let document = Document::read(text).expect("JSON");
    let value = document.root();
    let texts = [coerce::text(value), id(value), word(value)];
    let numbers = (coerce::texts(value), approval(value), size(value), count(value), time(value), hash::<32>(value));
    drop((texts, numbers));
    for scale in [Scale { max: 1e-300, invert: true }, Scale { max: 1e300, invert: false }] {
        assert!(scale.risk(value).ok().flatten().is_none_or(|risk| risk <= 100));
    }
    drop(PROGRAM.run(text));
}

const EICAR: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
