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
fn adapters_as_data_are_compiled_with_the_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let pack = folder.path().join("pack.toml");
    let (pack_path, folder_path) = (pack.display().to_string(), folder.path().display().to_string());
    let table =
        "jq = { fields = { verdict = '.v', url = '.u' }, verdicts = { \"High Risk\" = 'malicious', -1 = 'error' } }";
    let problems = |source: &str| {
        let text =
            format!("[sources.a]\nverify = {{ scheme = \"token\", bearer = true, secrets = [\"env:A\"] }}\n{source}");
        load(&text, &[]).expect("readable").plan().err().map_or(String::new(), |error| error.to_string())
    };
    assert_eq!(problems("adapter = 'scanii'"), "");
    assert_eq!(problems(&format!("adapter = 'jq'\n{table}")), "");
    for (source, wanted) in [
        ("adapter = 'jq'".to_owned(), "sources.a.adapter: adapter \"jq\" wants a table"),
        (format!("adapter = 'scanii'\n{table}"), "sources.a.jq: only adapter = \"jq\" reads this table"),
        (format!("adapter = 'scanii'\nadapter_file = '{pack_path}'"), "sources.a.adapter_file: only adapter"),
        (format!("adapter = 'jq'\nadapter_file = 'x'\n{table}"), "sources.a.adapter_file: stands beside a table"),
        (format!("adapter = 'jq'\nadapter_file = '{pack_path}'"), "sources.a.adapter_file: cannot read"),
        (
            format!("adapter = 'jq'\noptions = {{ clean_min = 1 }}\n{table}"),
            "sources.a.options: adapter \"jq\" takes no options",
        ),
        (
            "adapter = 'jq'\njq = { class = '$ENV.A', fields = { verdict = '.v |', url = 'env' } }".to_owned(),
            "sources.a.jq.fields.verdict: column 5: expected term, but the expression ends here",
        ),
        (
            "adapter = 'jq'\njq = { class = '$ENV.A', fields = { verdict = '.v', url = 'env' } }".to_owned(),
            "sources.a.jq.class: column 1: there is no variable $ENV here\nsources.a.jq.fields.url: column 1: there is no function env/0 here",
        ),
    ] {
        assert!(problems(&source).contains(wanted), "{wanted} is not in: {}", problems(&source));
    }
    for (text, wanted) in [
        ("[fields]\nverdict = '.v'\nurl = '.u'", ""),
        ("[fields]\nverdict = '.v'\nurl = 'now'", "/pack.toml: fields.url: column 1: there is no function now/0 here"),
        ("[fields]\nverdikt = '.v'", "did you mean `verdict`?"),
    ] {
        std::fs::write(&pack, text).expect("written");
        for path in [&pack_path, &folder_path] {
            let told = problems(&format!("adapter = 'jq'\nadapter_file = '{path}'"));
            assert!(told.contains(wanted) && told.is_empty() == wanted.is_empty(), "{wanted} is not in: {told}");
        }
    }
}

#[test]
fn the_schema_in_the_repository_is_that_of_this_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema.json");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == schema(), "config/schema.json is out of date: cargo run -- schema > config/schema.json");
}
