//! The commands that ask a running service, or look at its folder.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::app::{App, Roles};

const BODY: &str = include_str!("../demo/malicious.json");
const OTHER: &str = include_str!("../demo/clean.json");
/// Authentic, and not readable: no file in it.
const UNREADABLE: &str = "{\"event\": \"analysis.completed\", \"note\": \"\u{202e}\\u001b[2J\"}";

/// A service in a thread of its own, on free ports, with its folder.
struct Service {
    folder: TempDir,
    config: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "secret", "a-secret-of-thirty-two-characters");
        Self::start_in(folder, "store", "")
    }

    /// With this store in the folder, and these sources beside.
    fn start_in(folder: TempDir, store: &str, more: &str) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let path = write_config(folder.path(), store, any, any, more);
        let plan = Files(vec![path]).plan().expect("a plan");
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            wait_for(async {
                let app = App::build(plan, Roles::default()).await?;
                tell.send((app.receiver_address().expect("it receives"), app.api_address()))?;
                app.run(async { drop(stopped.await) }).await
            })
        });
        let (receiver, api) = told.recv().expect("the service starts");
        let config = write_config(folder.path(), store, receiver, api, more).to_str().expect("text").to_owned();
        Self { folder, config, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs a command with this service's config.
    fn run(&self, arguments: &[&str]) -> (Code, String, String) {
        run(&[&["--config", &self.config], arguments].concat())
    }

    fn send(&self, body: &str) -> (Code, String, String) {
        let path = write(self.folder.path(), "body.json", body);
        self.run(&["send", "--source", "portal", &path])
    }

    /// Runs a command until its output satisfies `is_done`: the loops behind the answer need a moment.
    fn run_until(&self, arguments: &[&str], is_done: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (code, data, words) = self.run(arguments);
            if code == GOOD && is_done(&data) {
                return data;
            }
            assert!(Instant::now() < deadline, "{arguments:?}: {data}{words}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a good end");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn write_config(folder: &Path, store: &str, receiver: SocketAddr, api: SocketAddr, more: &str) -> PathBuf {
    let (secret, store, lines) = (folder.join("secret"), folder.join(store), folder.join("out.ndjson"));
    let text = format!(
        "[receiver]\nlisten = \"{receiver}\"\nbody_max = \"64KiB\"\n[api]\nlisten = \"{api}\"\n\
         [store]\npath = {store:?}\nsegment_size = \"1MiB\"\n[sources.portal]\nadapter = \"vileanalyziz\"\n\
         verify = {{ scheme = \"hmac\", preset = \"github\", secrets = [\"file:{secret}\"] }}\n\
         [sources.url_grid]\nadapter = \"native\"\n\
         verify = {{ scheme = \"event-grid\", secret_query = \"code\", secrets = [\"file:{secret}\"] }}\n\
         {more}[sinks.local]\ntype = \"file\"\npath = {lines:?}\n",
        secret = secret.display()
    );
    write(folder, "verdict-relay.toml", &text).into()
}

#[test]
fn what_send_posts_arrives_and_sinks_counts_it() {
    let service = Service::start();
    let (code, data, words) = service.send(BODY);
    assert!(code == GOOD && data.starts_with("202 {\"id\":"), "{data}{words}");
    let table = service.run_until(&["sinks"], |data| data.contains("local  ok     1        1 "));
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..5], ["local", "ok", "1", "1", "0"], "{table}");
    let json: serde_json::Value = serde_json::from_str(&service.run(&["sinks", "--json"]).1).expect("JSON");
    assert_eq!(json[0]["delivered"], 1);

    let path = write(service.folder.path(), "body.json", OTHER);
    let (code, data, _) = service.run(&["send", "--source", "portal", "--count", "3", &path]);
    assert_eq!((code, data.lines().filter(|line| line.starts_with("202 ")).count()), (GOOD, 3));
}

/// A VirusTotal that answers only for keys with `good` in them, for as long as the test runs.
fn platform() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let Ok(read @ 1..) = stream.read(&mut buffer) else { break };
                request.extend_from_slice(&buffer[..read]);
            }
            let (status, body) = match String::from_utf8_lossy(&request) {
                asked if !asked.contains("good") => {
                    (401, r#"{"error": {"code": "WrongCredentialsError", "message": "m"}}"#)
                }
                asked if asked.contains("overall_quotas") => {
                    (200, include_str!("../../../tests/payloads/virustotal/v3_user_overall_quotas.json"))
                }
                _ => (200, r#"{"data": []}"#),
            };
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // A client that gave up is no trouble of the platform's.
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    });
    address
}

#[test]
fn keys_and_check_tell_how_each_api_key_stands_and_none_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "secret", "a-secret-of-thirty-two-characters");
    let refused = write(folder.path(), "refused", "refused-value-of-thirty-characters");
    let good = write(folder.path(), "accepted", "good-value-of-thirty-characters");
    let source = format!(
        "[sources.vt]\nadapter = \"virustotal\"\n\
         poll = {{ keys = [\"file:{refused}\", \"file:{good}\"], url = \"http://{}\", streams = [\"ioc_stream\"] }}\n",
        platform()
    );
    let service = Service::start_in(folder, "store", &source);
    let table = service.run_until(&["keys"], |table| table.contains("active") && table.contains("of 500"));
    let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(row("refused").contains("bad") && row("refused").contains("401"), "{table}");
    assert!(row("accepted").contains("active"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&service.run(&["keys", "--json"]).1).expect("JSON");
    assert_eq!(
        (&json[0]["source"], &json[0]["state"], &json[1]["state"]),
        (&"vt".into(), &"bad".into(), &"active".into())
    );
    let (_, plan, _) = service.run(&["check"]);
    assert!(plan.contains("source vt (VirusTotal, takes no webhooks)"), "{plan}");
    let (code, told, words) = service.run(&["check", "--online"]);
    assert_eq!(code, BAD, "{told}{words}");
    for told_of in ["refuses the key: it answers 401", "the key is taken; left: api_requests_daily 463 of 500"] {
        assert!(told.contains(told_of), "{told_of} is not in:\n{told}{words}");
    }
    for shown in [table, json.to_string(), plan, told, words] {
        assert!(!shown.contains("of-thirty"), "{shown}");
    }
}

#[test]
fn send_puts_a_secret_into_the_url_and_shows_it_nowhere() {
    let service = Service::start();
    let path = write(service.folder.path(), "body.json", BODY);
    let (code, data, words) = service.run(&["send", "--source", "url_grid", &path]);
    assert!(code == GOOD && data.starts_with("202 "), "{data}{words}");
    write(service.folder.path(), "other", "another-secret-of-thirty-two-chars");
    let text = std::fs::read_to_string(&service.config).expect("readable").replace("/secret\"", "/other\"");
    let config = write(service.folder.path(), "other.toml", &text);
    let (code, refused, told) = run(&["--config", &config, "send", "--source", "url_grid", &path]);
    assert!(code == BAD && refused.starts_with("401 "), "{refused}{told}");
    let away = "http://127.0.0.1:1";
    let (code, nothing, gone) = run(&["--config", &config, "send", "--source", "url_grid", "--url", away, &path]);
    assert!(code == BAD && gone.contains("cannot send to http://127.0.0.1:1/v1/hooks/url_grid"), "{gone}");
    let (_, rows, _) = service.run(&["check"]);
    assert!(rows.contains("?code=SECRET"), "{rows}");
    for shown in [data, words, refused, told, nothing, gone, rows] {
        assert!(!shown.contains("secret-of-thirty"), "{shown}");
    }
}

#[test]
fn send_with_another_secret_is_refused_and_says_what_to_compare() {
    let service = Service::start();
    write(service.folder.path(), "other", "another-secret-of-thirty-two-chars");
    let text = std::fs::read_to_string(&service.config).expect("readable").replace("/secret\"", "/other\"");
    let config = write(service.folder.path(), "other.toml", &text);
    let body = write(service.folder.path(), "body.json", BODY);
    let (code, data, words) = run(&["--config", &config, "send", "--source", "portal", &body]);
    assert!(code == BAD && data.starts_with("401 ") && words.contains("Compare the secrets"), "{data}{words}");
    let (code, _, words) =
        run(&["--config", &config, "send", "--source", "portal", "--url", "http://127.0.0.1:1", &body]);
    assert!(code == BAD && words.contains("cannot send to http://127.0.0.1:1/v1/hooks/portal"), "{words}");
}

#[test]
fn dead_letters_are_listed_shown_redriven_and_dropped() {
    let service = Service::start();
    let (code, _, words) = service.run(&["dead-letters", "list"]);
    assert!(code == GOOD && words.contains("there are no dead letters"), "{words}");
    assert_eq!(service.send(UNREADABLE).0, GOOD);
    let table = service.run_until(&["dead-letters", "list"], |data| data.contains("n-1"));
    assert!(table.contains("normalize  -     portal  1"), "{table}");

    let (code, shown, words) = service.run(&["dead-letters", "show", "n-1"]);
    assert!(code == GOOD && shown.contains("analysis.completed") && shown.contains("\\u{202e}"), "{shown}{words}");
    assert!(shown.chars().all(|c| c == '\n' || !crate::format::is_hazard(c)), "{shown:?}");

    let (code, data, words) = service.run(&["dead-letters", "redrive", "--all"]);
    assert!(code == GOOD && data.starts_with("n-1 attempt "), "{data}{words}");
    let list = service.run_until(&["dead-letters", "list", "--json"], |data| data.contains("\"attempts\": 2"));
    let letters: Vec<serde_json::Value> = serde_json::from_str(&list).expect("JSON");
    assert_eq!((letters.len(), &letters[0]["id"]), (1, &serde_json::json!("n-1")));

    let (code, data, words) = service.run(&["dead-letters", "drop", "n-404", "n-1"]);
    assert!(code == BAD && data.starts_with("n-1 attempt ") && words.contains("dead letter n-404"), "{data}{words}");
    service.run_until(&["dead-letters", "list"], |data| !data.contains("n-1"));
}

#[test]
fn a_replay_reaches_its_sink_once_more_and_reading_again_finds_nothing_new() {
    let service = Service::start();
    assert_eq!((service.send(BODY).0, service.send(OTHER).0), (GOOD, GOOD));
    service.run_until(&["sinks"], |data| data.contains("local  ok     2        2 "));
    let (code, data, words) = service.run(&["replay", "--sink", "local", "--since", "1h"]);
    assert!(code == GOOD && data.ends_with(" done 2 events\n"), "{data}{words}");
    service.run_until(&["sinks", "--json"], |data| data.contains("\"replayed\": 2"));
    let lines = std::fs::read_to_string(service.folder.path().join("out.ndjson")).expect("readable");
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let uids: Vec<_> = lines.iter().map(|line| line["metadata"]["uid"].as_str().expect("a uid")).collect();
    let replays: Vec<_> = lines.iter().map(|line| line["unmapped"]["replay"] == true).collect();
    assert_eq!((replays, &uids[..2]), (vec![false, false, true, true], &uids[2..]));

    let (code, data, words) = service.run(&["renormalize", "--source", "portal", "--since", "2020-01-01T00:00:00Z"]);
    assert!(code == GOOD && data.ends_with(" done 0 events\n"), "{data}{words}");
    let (code, data, _) = service.run(&["replay", "--list"]);
    assert!(code == GOOD && data.contains("replay       local") && data.contains("renormalize  portal"), "{data}");

    for (arguments, told) in [
        (["replay", "--sink", "nosuch", "--since", "1h"].as_slice(), "there is no sink of this name"),
        (&["replay", "--sink", "local", "--since", "1h", "--where", ".severity_id >="], "where: "),
        (&["replay", "--stop", "4711"], "there is nothing with this id"),
        (&["renormalize", "--source", "nosuch", "--since", "1h"], "there is no source of this name"),
    ] {
        let (code, _, words) = service.run(arguments);
        assert!(code == BAD && words.contains(told), "{arguments:?}: {words}");
    }
}

#[test]
fn changing_something_needs_the_right_token() {
    let service = Service::start();
    let wrong = write(service.folder.path(), "wrong", "vr_wrong");
    let token = format!("file:{wrong}");
    let (code, _, words) = service.run(&["dead-letters", "drop", "--token", &token, "n-1"]);
    assert!(code == BAD && words.contains("answered 401") && !words.contains("vr_wrong"), "{words}");
    let (code, _, words) = service.run(&["sinks", "--token", "vr_literal_token"]);
    assert!(code == BAD && words.contains("is named by a reference") && !words.contains("vr_literal"), "{words}");
    let (code, _, words) = service.run(&["sinks", "--url", "http://127.0.0.1:1"]);
    assert!(code == BAD && words.contains("is the service running"), "{words}");
}

#[test]
fn a_backup_of_a_running_store_is_whole_and_starts() {
    let mut service = Service::start();
    assert_eq!(service.send(BODY).0, GOOD);
    service.run_until(&["sinks"], |data| data.contains("local  ok     1        1 "));
    let (code, inspected, _) = service.run(&["store", "inspect"]);
    assert!(code == GOOD && inspected.contains(&format!("by process {}", std::process::id())), "{inspected}");
    let (code, _, words) = service.run(&["store", "verify"]);
    assert_eq!(code, GOOD, "{words}");

    let target = service.folder.path().join("backup").to_str().expect("text").to_owned();
    let (code, data, words) = service.run(&["store", "backup", &target]);
    assert_eq!((code, data.trim()), (GOOD, target.as_str()), "{words}");
    let (code, _, words) = service.run(&["store", "backup", &target]);
    assert!(code == BAD && words.contains("exists already"), "{words}");
    let (code, data, words) = service.run(&["store", "verify", "--path", &target]);
    assert!(code == GOOD && data.contains("1 records, 1 events"), "{data}{words}");
    service.stop();

    let folder = std::mem::replace(&mut service.folder, tempfile::tempdir().expect("a folder"));
    let mut restored = Service::start_in(folder, "backup", "");
    // Known from before, so it is a duplicate; the other one is new.
    assert_eq!((restored.send(BODY).0, restored.send(OTHER).0), (GOOD, GOOD));
    restored.run_until(&["sinks"], |data| data.contains("local  ok     2        2 "));
    restored.stop();
}

#[test]
fn damage_is_found_and_named() {
    let mut service = Service::start();
    assert_eq!((service.send(BODY).0, service.send(OTHER).0), (GOOD, GOOD));
    service.run_until(&["sinks"], |data| data.contains("local  ok     2        2 "));
    service.stop();
    let (code, inspected, words) = service.run(&["store", "inspect", "--json"]);
    assert_eq!(code, GOOD, "{words}");
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(
        (&inspected["held_by"], &inspected["sequence"], &inspected["events"]),
        (&serde_json::Value::Null, &2.into(), &2.into())
    );
    assert_eq!(service.run(&["store", "verify"]).0, GOOD);

    let segment = inspected["segments"][0]["file"].as_str().expect("a file");
    let mut bytes = std::fs::read(segment).expect("readable");
    let at = bytes.windows(11).position(|window| window == b"evt_01DEMO1").expect("the first body");
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).expect("written");
    let ledger = service.folder.path().join("store/ledger.db");
    let mut bytes = std::fs::read(&ledger).expect("readable");
    let at = bytes.windows(11).position(|window| window == b"evt_01DEMO2").expect("the second event");
    bytes[at] ^= 1;
    std::fs::write(&ledger, bytes).expect("written");
    let (code, data, words) = service.run(&["store", "verify"]);
    assert_eq!(code, BAD, "{data}{words}");
    assert!(data.contains(&format!("damage: {segment}: bytes 4096 to ")), "{data}");
    assert!(data.contains("damage: event 2.0: its checksum does not hold"), "{data}");
    assert!(data.contains("1 records, 2 events"), "{data}");

    std::fs::remove_file(segment).expect("removed");
    let (code, data, _) = service.run(&["store", "verify"]);
    assert!(code == BAD && data.contains("the ledger knows sequence 2, the journal ends at 0"), "{data}");
}

#[test]
fn sources_tells_what_came_and_why_something_was_refused() {
    let service = Service::start();
    let (code, data, words) = service.run(&["sources", "test", "portal"]);
    assert_eq!((code, data.lines().nth(1)), (GOOD, Some("normalized")), "{data}{words}");
    write(service.folder.path(), "other", "another-secret-of-thirty-two-chars");
    let text = std::fs::read_to_string(&service.config).expect("readable").replace("/secret\"", "/other\"");
    let config = write(service.folder.path(), "other.toml", &text);
    let (code, data, _) = run(&["--config", &config, "sources", "test", "portal"]);
    assert!(code == BAD && data.starts_with("401 "), "{data}");
    let odd = write(service.folder.path(), "odd.json", "{\"event\":\"analysis.completed\"}");
    let (code, data, words) = service.run(&["sources", "test", "portal", &odd]);
    assert!(code == BAD && data.ends_with("dead\n") && words.contains("dead-letters list"), "{data}{words}");

    let (_, table, _) = service.run(&["sources"]);
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split("  ").filter(|cell| !cell.is_empty()).collect();
    assert_eq!((row[0], row[1].trim(), row[2].trim()), ("portal", "Vile Analyziz", "signature"), "{table}");
    assert!(table.contains("mismatch 1"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&service.run(&["sources", "--json"]).1).expect("JSON");
    assert_eq!((&json[0]["requests"]["accepted"], &json[0]["items"]["normalized"]), (&2.into(), &1.into()));
    let (code, _, words) = service.run(&["sources", "test", "nobody"]);
    assert!(code == BAD && words.contains("the config has no source \"nobody\"; it has portal"), "{words}");
}
