//! The commands as a user runs them: arguments in, output and exit code out.

mod service;

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::CommandFactory;

use super::*;
use crate::config;

/// Catches what a command prints.
#[derive(Clone, Default)]
pub(super) struct Screen {
    data: Arc<Mutex<Vec<u8>>>,
    words: Arc<Mutex<Vec<u8>>>,
}

struct Catch(Arc<Mutex<Vec<u8>>>);

impl Write for Catch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    pub(super) fn terminal(&self) -> Terminal {
        Terminal::new(Box::new(Catch(self.data.clone())), Box::new(Catch(self.words.clone())))
    }

    pub(super) fn data(&self) -> String {
        String::from_utf8(self.data.lock().expect("not poisoned").clone()).expect("text")
    }

    pub(super) fn words(&self) -> String {
        String::from_utf8(self.words.lock().expect("not poisoned").clone()).expect("text")
    }
}

/// Runs a command line: exit code, data, words.
pub(in crate::cli) fn run(arguments: &[&str]) -> (Code, String, String) {
    let screen = Screen::default();
    let cli = Cli::try_parse_from([&["verdict-relay"], arguments].concat()).expect("a command line");
    let code = cli.run(&mut screen.terminal());
    (code, screen.data(), screen.words())
}

#[test]
fn every_command_shows_an_example() {
    fn visit(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example: verdict-relay"), "{path} has no example:\n{help}");
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            visit(inner, &path);
        }
    }
    Cli::command().debug_assert();
    let mut all = Cli::command();
    all.build();
    visit(&mut all, "verdict-relay");
}

#[test]
fn a_missing_config_says_where_to_begin() {
    for command in ["check", "serve"] {
        let (code, data, words) = run(&["--config", "nowhere.toml", command]);
        assert_eq!((code, data.as_str()), (BAD, ""));
        assert!(words.contains("nowhere.toml") && words.contains("config/quickstart.toml"), "{words}");
    }
}

#[test]
fn the_schema_is_json_and_completions_know_the_commands() {
    let (code, data, words) = run(&["schema"]);
    assert_eq!((code, words.as_str()), (GOOD, ""));
    serde_json::from_str::<serde_json::Value>(&data).expect("JSON");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, data, _) = run(&["completions", shell]);
        assert!(code == GOOD && data.contains("schema"), "{shell}");
    }
}

/// A config file in the repository.
fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name).to_str().expect("text").to_owned()
}

/// Writes a file into a folder; its path.
fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path.to_str().expect("text").to_owned()
}

#[test]
fn the_shipped_configs_are_good_and_the_full_one_has_every_option() {
    for name in ["quickstart.toml", "full.toml"] {
        let (code, data, words) = run(&["--config", &shipped(name), "check"]);
        assert_eq!(code, GOOD, "{name}: {words}");
        assert!(data.contains("/v1/hooks/portal\n"), "{data}");
        assert!(data.contains("webhook-signature: v1,base64(HMAC-SHA256)"), "{data}");
    }
    let full = std::fs::read_to_string(shipped("full.toml")).expect("readable");
    let schema: serde_json::Value = serde_json::from_str(&config::schema()).expect("JSON");
    let mut keys = std::collections::BTreeSet::new();
    option_names(&schema, &mut keys);
    for key in keys {
        let written = [format!("{key} ="), format!("[{key}]"), format!("[{key}."), format!(".{key}]")];
        assert!(written.iter().any(|written| full.contains(written)), "config/full.toml says nothing of `{key}`");
    }
}

/// The names of all options in a JSON Schema.
fn option_names(schema: &serde_json::Value, names: &mut std::collections::BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(fields) => {
            if let Some(serde_json::Value::Object(properties)) = fields.get("properties") {
                names.extend(properties.keys().cloned());
            }
            fields.values().for_each(|inner| option_names(inner, names));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|inner| option_names(inner, names)),
        _ => {}
    }
}

#[test]
fn send_says_where_only_the_sender_can_sign() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = write(folder.path(), "body.json", "{}");
    for (verify, words) in [
        ("scheme = \"ed25519\", public_key = \"a.pub\"", "a private key that only it has"),
        ("scheme = \"rsa\", public_key = \"a.pem\", tenant = \"t\"", "a private key that only it has"),
        ("scheme = \"sns\", topics = [\"arn:aws:sns:eu-west-1:123456789012:a\"]", "publish to the topic"),
        ("scheme = \"event-grid\", issuer = \"https://a\", audience = \"b\"", "only the issuer can sign"),
    ] {
        let text = format!(
            "[receiver]\npublic_url = \"https://a\"\n[sources.a]\nadapter = \"native\"\nverify = {{ {verify} }}"
        );
        let path = write(folder.path(), "verdict-relay.toml", &text);
        let (code, data, told) = run(&["--config", &path, "send", "--source", "a", &body]);
        assert!(code == BAD && data.is_empty() && told.contains(words), "{verify}: {data}{told}");
    }
}

#[test]
fn check_tells_mistakes_with_file_and_key_and_what_is_odd() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "adapter = \"native\"\nverify = { scheme = \"token\", bearer = true, secrets = [\"env:A\"] }";
    for (text, code, told) in [
        (
            "[sinks.local]\ntype = \"file\"\npath = \"a\"\non_full = \"dead_letter\"".to_owned(),
            BAD,
            "sinks.local.on_full: ",
        ),
        ("[sinks.local]\ntype = \"file\"\npaht = \"a\"".to_owned(), BAD, "unknown field `paht`"),
        (format!("[sources.a]\n{source}\npoll = {{}}"), BAD, "sources.a.poll: adapter \"native\" has no API"),
        (
            "[sources.vt]\nadapter = \"virustotal\"\npoll = { keys = [\"env:K\"], url = \"http://vt.internal\" }".to_owned(),
            BAD,
            "sources.vt.poll.url: the key would travel without TLS",
        ),
        (
            "[sources.vt]\nadapter = \"virustotal\"\npoll = { keys = [\"env:K\"], url = \"http://vt.internal\", allow_plaintext = true }".to_owned(),
            GOOD,
            "warning: sources.vt: its API key travels without TLS",
        ),
        (format!("[sources.a]\n{source}"), GOOD, "warning: sinks: there is none"),
        (format!("[sources.a]\n{source}"), GOOD, "warning: receiver.listen: senders reach this address without TLS"),
        (format!("[sources.a]\n{source}"), GOOD, "warning: sources.a.verify.scheme: the token travels without TLS"),
        (
            "[sources.a]\nadapter = \"native\"\nverify = { scheme = \"rsa\", public_key = \"a.pem\", tenant = \"t\" }".to_owned(),
            BAD,
            "receiver.public_url: source \"a\" signs the URL",
        ),
        (
            "[sources.a]\nadapter = \"native\"\n[sources.a.verify]\nscheme = \"sns\"\ntopics = [\"arn:aws:sns:eu-west-1:123456789012:a\"]\ntls = { dangerous_skip_verify = true }".to_owned(),
            BAD,
            "sources.a.verify.tls: the proof is made of what is fetched there",
        ),
        (
            "[sources.a]\nadapter = \"native\"\nverify = { scheme = \"event-grid\", issuer = \"https://a\", audience = \"b\" }".to_owned(),
            GOOD,
            "warning: sources.a.verify.applications: every application",
        ),
        (
            "[sources.a]\nadapter = \"native\"\nverify = { scheme = \"event-grid\", secret_query = \"env:A\" }".to_owned(),
            GOOD,
            "warning: sources.a.verify.secret_query: the secret stands in the URL",
        ),
        ("[sinks.s]\ntype = \"syslog\"\naddress = \"udp://siem\"".to_owned(), GOOD, "warning: sinks.s.address: UDP"),
        (
            format!("[sources.a]\n{source}\n[sinks.s]\ntype = \"console\"\nwhere = {{ verdicts = [\"malicious\"] }}"),
            GOOD,
            "warning: sources.a: no sink gets its events that are unknown, clean, error, pua, suspicious",
        ),
    ] {
        let path = write(folder.path(), "verdict-relay.toml", &text);
        let (ended, _, words) = run(&["--config", &path, "check"]);
        assert_eq!(ended, code, "{text}\n{words}");
        assert!(words.contains(told), "{told} is not in:\n{words}");
        assert!(code == GOOD || words.contains(&path), "{words}");
    }
}

#[test]
fn check_online_says_of_each_secret_and_sink_what_to_mend() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = write(folder.path(), "good", "whsec_Zm9yZ2VkLWZvcmdlZC1mb3JnZWQtZm9yZ2VkLTEyMzQ=");
    let short = write(folder.path(), "short", "hunter2");
    let odd = write(folder.path(), "odd", "no base64 but long enough to be a secret");
    let (store, lines) = (folder.path().join("store"), folder.path().join("a.ndjson"));
    let config = |secrets: &str, sink: &str| {
        let text = format!(
            "[receiver]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {store:?}\n[sources.portal]\nadapter = \"native\"\n\
             verify = {{ scheme = \"hmac\", preset = \"standard-webhooks\", secrets = [{secrets}] }}\n[sinks.one]\n{sink}"
        );
        write(folder.path(), "verdict-relay.toml", &text)
    };
    // Bound and not listening to HTTP: a port that refuses would do as well, but may be taken by another test.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let file_sink = format!("type = \"file\"\npath = {lines:?}");
    for (secrets, sink, code, told) in [
        (format!("\"file:{good}\""), file_sink.clone(), GOOD, ["secret file:", "good  sink one: would take events"]),
        (
            "\"env:NO_SUCH_VARIABLE_ANYWHERE\"".to_owned(),
            file_sink.clone(),
            BAD,
            ["NO_SUCH_VARIABLE_ANYWHERE", "no such variable"],
        ),
        (format!("\"file:{short}\""), file_sink.clone(), BAD, ["has 7 bytes", "allow_short_secret"]),
        (format!("\"file:{odd}\""), file_sink, BAD, ["secret file:", "whsec_"]),
        (
            format!("\"file:{good}\""),
            "type = \"file\"\npath = \"/nowhere/at/all/a.ndjson\"".to_owned(),
            BAD,
            ["BAD   sink one: set up wrongly", "its folder does not exist"],
        ),
        (
            format!("\"file:{good}\""),
            format!("type = \"syslog\"\naddress = \"tcp://{closed}\""),
            BAD,
            ["BAD   sink one: not available", "is the receiver running"],
        ),
        (
            format!("\"file:{good}\""),
            format!(
                "type = \"splunk_hec\"\nendpoints = [\"http://{closed}\"]\ntokens = [\"env:NO_SUCH_VARIABLE_ANYWHERE\"]"
            ),
            BAD,
            ["no such variable", "not asked"],
        ),
    ] {
        let path = config(&secrets, &sink);
        let (ended, data, words) = run(&["--config", &path, "check", "--online"]);
        assert_eq!(ended, code, "{data}{words}");
        for told in told {
            assert!(data.contains(told), "{told} is not in:\n{data}{words}");
        }
        assert!(!format!("{data}{words}").contains("hunter2"));
        assert!(!store.exists() && !lines.exists(), "check made something");
    }
}

#[test]
fn a_hostile_file_name_stays_one_harmless_line_in_every_rendering() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = serde_json::json!({
        "event": "analysis.completed", "eventId": "evt_1", "occurredAt": "2026-03-23T12:02:00Z",
        "file": {
            "fileName": "a\u{202e}fdp.exe\r\n<131>1 - - - - - - CEF:0|Evil|x|1|1|forged|0|act=pass\u{1b}[2J\u{9b}|=^\\ suser=root\u{2028}\u{0}end",
            "sha256": "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f", "status": "completed",
            "analyzedAt": "2026-03-23T12:02:00Z", "verdict": "High Risk",
        },
    });
    let payload = write(folder.path(), "payload.json", &body.to_string());
    let config = shipped("quickstart.toml");
    for format in ["ocsf", "cef", "leef", "ecs", "hec"] {
        let (code, data, words) =
            run(&["--config", &config, "render", "--source", "portal", "--as", format, "--json", &payload]);
        assert_eq!((code, words.as_str()), (GOOD, ""), "{format}");
        assert_eq!(data.trim_end_matches('\n').lines().count(), 1, "{data}");
        assert!(data.trim_end_matches('\n').chars().all(|c| !crate::format::is_hazard(c)), "{data:?}");
        // The others carry the time of receipt.
        if matches!(format, "cef" | "leef") {
            insta::assert_snapshot!(format!("hostile-{format}"), data);
        }
        let (_, pretty, _) = run(&["--config", &config, "render", "--source", "portal", "--as", format, &payload]);
        assert!(pretty.chars().all(|c| c == '\n' || !crate::format::is_hazard(c)), "{pretty:?}");
        if !matches!(format, "cef" | "leef") {
            serde_json::from_str::<serde_json::Value>(&pretty).expect("pretty JSON is JSON");
        }
    }
}

#[test]
fn render_says_the_class_of_what_is_no_verdict() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = shipped("quickstart.toml");
    for (body, code, told) in [
        (r#"{"event": "analysis.queued"}"#, GOOD, "item 0: not_ready"),
        (r#"{"event": "ping"}"#, GOOD, "item 0: ignore"),
        (r#"{"event": "analysis.completed"}"#, BAD, "dead letter"),
        ("{", BAD, "not readable JSON"),
    ] {
        let payload = write(folder.path(), "payload.json", body);
        let (ended, data, words) = run(&["--config", &config, "render", "--source", "portal", &payload]);
        assert_eq!((ended, data.as_str()), (code, ""), "{body}");
        assert!(words.contains(told), "{told} is not in: {words}");
    }
    let (code, _, words) = run(&["--config", &config, "render", "--source", "prtal", "x"]);
    assert!(code == BAD && words.contains("it has portal"), "{words}");
}

#[test]
fn every_shipped_pack_can_be_tested_and_copied() {
    for name in crate::adapter::pack::names() {
        let (code, data, words) = run(&["adapter", "test", name]);
        assert!(code == GOOD && words.starts_with("all ") && data.contains("as expected"), "{name}: {data}{words}");
        let (code, data, _) = run(&["adapter", "show", name]);
        assert_eq!(code, GOOD);
        toml::from_str::<crate::adapter::pack::PackTable>(&data).expect("a table");
    }
    let (code, data, words) = run(&["adapter", "test", "scanii", "--json"]);
    let tested: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    assert!(code == GOOD && tested[0]["becomes"][0]["class"].is_string(), "{data}{words}");
    for action in ["test", "show"] {
        let (code, _, words) = run(&["adapter", action, "scanni"]);
        assert!(code == BAD && words.contains("there is no pack \"scanni\"") && words.contains("scanii"), "{words}");
    }
}

#[test]
fn the_demo_shows_every_event_in_three_forms() {
    let (code, data, words) = run(&["demo", "--once"]);
    assert_eq!(code, GOOD, "{data}{words}");
    let begins = |what: &str| data.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!(["sent ", "OCSF ", "CEF ", "LEEF ", "forged "].map(begins), [4, 4, 4, 4, 1], "{data}");
    for activity in ["Create", "Close", "Scan Activity"] {
        assert!(data.contains(activity), "{activity} is not in: {data}");
    }
    assert!(words.contains("not built yet"), "{words}");
}
