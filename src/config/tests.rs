//! The config: layers, mistakes and what is said of them.

use super::*;

const GOOD: &str = r#"
[store]
path = "data"

[sources.portal]
adapter = "vileanalyziz"
verify = { scheme = "hmac", preset = "standard-webhooks", secrets = ["env:PORTAL_SECRET"] }

[sinks.local]
type = "file"
path = "verdicts.ndjson"
"#;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("verdict-relay.toml");
    std::fs::write(&path, text).expect("written");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::layered(&[path], &environment)
}

#[test]
fn a_small_config_is_a_plan() {
    let plan = load(GOOD, &[]).expect("readable").plan().expect("valid");
    assert_eq!((plan.sources.len(), plan.sinks.len()), (1, 1));
    assert_eq!(plan.store.size_max.0, 20 << 30);
}

#[test]
fn the_environment_overrides_the_files_with_numbers_as_well() {
    let environment = [
        ("VERDICT_RELAY__STORE__SIZE_MAX", "2GiB"),
        ("VERDICT_RELAY__SINKS__LOCAL__BATCH__EVENTS_MAX", "7"),
        // What Kubernetes sets for a service of our name is not ours.
        ("VERDICT_RELAY_PORT", "tcp://10.0.0.1:8080"),
    ];
    let plan = load(GOOD, &environment).expect("readable").plan().expect("valid");
    assert_eq!(plan.store.size_max.0, 2 << 30);
    assert_eq!(plan.sinks[0].1.batch.events_max, 7);
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (wrong, words) in [
        ("[store]\npaht = \"data\"", &["unknown field `paht`", "line 2", "did you mean `path`?"][..]),
        ("[store]\nsize_max = \"2GB\"", &["size_max", "is no size"][..]),
        ("[stroe]\npath = \"data\"", &["did you mean `store`?"][..]),
        ("[store", &["line 1"][..]),
    ] {
        let error = load(wrong, &[]).expect_err(wrong).to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"
[store]
type = "kafka"
dedup = "1d"
[sources.Portal]
adapter = "virustotl"
[sources.none]
adapter = "native"
verify = { scheme = "none" }
poll = { every = "1m" }
[sinks.local]
type = "file"
path = "a"
on_full = "dead_letter"
"#;
    let error = load(text, &[]).expect("readable").plan().expect_err("problems").to_string();
    for words in [
        "store.type: a store on Kafka is planned",
        "store.dedup: at least",
        "sources.Portal: \"Portal\" is not a name",
        "sources.Portal.adapter: ",
        "\"virustotal\"",
        "sources.Portal.verify: say how",
        "sources.none.poll: adapter \"native\" has no API",
        "sources.none.verify",
        "sinks.local.on_full: ",
    ] {
        assert!(error.contains(words), "{words} is not in:\n{error}");
    }
}

#[test]
fn the_schema_in_the_repository_is_that_of_this_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == schema(), "config/schema.json is out of date: cargo run -- schema > config/schema.json");
}
