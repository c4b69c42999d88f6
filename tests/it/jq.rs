//! jq that a user wrote, in its process: it answers, and whatever it does instead costs its own message and nothing else.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use verdict_relay::adapter::jq::{Evaluate, condition, condition_script};
use verdict_relay::sandbox::{PATIENCE as MESSAGE_PATIENCE, Sandbox};

use crate::service::{PATIENCE, Service, Site, wait_until};

fn sandbox(jq: &str) -> Sandbox {
    Sandbox::with_program(condition_script("where.jq", jq), env!("CARGO_BIN_EXE_verdict-relay"))
}

/// What an expression that nobody should write does, as the parent sees it.
#[test]
fn whatever_an_expression_does_ends_in_bounded_time_and_the_next_message_is_answered() {
    let deep = "[".repeat(100_000);
    let bombs = [
        ("def f: f; f", "ran longer than 250 ms"),
        ("[range(1e15)] | length", "more memory"),
        ("last(range(1e15))", "ran longer than 250 ms"),
        ("[limit(1e9; repeat(\"x\"))]", "more memory"),
        ("def f: 1 + f; f", "deeper stack"),
        ("\"x\" * 1000000000", "more memory"),
        ("\"x\" * 9223372036854775807", "a fault of jq"),
        ("(.deep | fromjson)", "deeper stack"),
        ("reduce range(1e6) as $i (0; [.]) | empty", "deeper stack"),
        ("[range(2000000) | \"xxxxxxxxxx\"]", "gave more than 16 MiB"),
        ("until(false; .)", "ran longer than 250 ms"),
        ("[recurse(.)] | length", "more memory"),
        ("\"a\" | test(\"(a{1000}){1000}{1000}\")", ""),
        ("[.[] | select(. > 1)", ""),
    ];
    for (bomb, words) in bombs {
        let jq = format!("if .deep then ({bomb}) else true end");
        let sandbox = sandbox(&jq);
        let good = |what: &str| assert_eq!(condition(&sandbox, b"{}"), Ok(true), "{bomb}: {what}");
        if verdict_relay::adapter::jq::Program::compile(condition_script("where.jq", &jq)).is_err() {
            assert!(condition(&sandbox, b"{}").is_err(), "{bomb}");
            continue;
        }
        good("before");
        let began = Instant::now();
        let refusal = condition(&sandbox, json!({"deep": deep}).to_string().as_bytes()).expect_err(bomb).to_string();
        let took = began.elapsed();
        assert!(took < MESSAGE_PATIENCE + Duration::from_secs(2), "{bomb}: {took:?}");
        let told = [words, "ran longer than 250 ms"].iter().any(|words| refusal.contains(words));
        assert!(told, "{bomb}: {refusal}");
        good("after");
    }
}

#[test]
fn an_expression_that_always_fails_rests_so_that_its_loop_goes_on() {
    let sandbox = sandbox("if .good then true else def f: f; f end");
    let began = Instant::now();
    for _ in 0..3 {
        assert!(condition(&sandbox, b"{}").expect_err("endless").to_string().contains("ran longer"));
    }
    assert!(began.elapsed() > Duration::from_millis(700), "each was tried");
    let began = Instant::now();
    for _ in 0..1000 {
        assert!(condition(&sandbox, b"{\"good\":1}").expect_err("it rests").to_string().contains("rest for 5 s"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    wait_until("the rest is over", PATIENCE, || condition(&sandbox, b"{\"good\":1}") == Ok(true));
}

/// A message of ten MiB goes through the socket in both directions while neither side waits for the other.
#[test]
fn large_bodies_go_through() {
    let sandbox = sandbox(".");
    let body = json!({"text": "x".repeat(10 << 20)}).to_string();
    let answer = sandbox.evaluate(body.as_bytes());
    // A debug build may need longer than the deadline; what must not happen is that both wait for ever.
    match answer {
        Ok(answer) => assert!(answer.len() > 10 << 20),
        Err(refusal) => assert!(refusal.to_string().contains("ran longer"), "{refusal}"),
    }
    assert_eq!(condition(&sandbox, b"{}"), Ok(true));
}

#[test]
fn a_process_that_was_killed_while_idle_costs_no_message() {
    let sandbox = sandbox(".a == 1");
    for _ in 0..3 {
        assert_eq!(condition(&sandbox, b"{\"a\":1}"), Ok(true));
        let child = sandbox.process().expect("it runs");
        assert!(arguments(child).contains("jq-worker"));
        assert!(fs::read(format!("/proc/{child}/environ")).expect("readable").is_empty(), "its environment is empty");
        assert_eq!(fs::read_link(format!("/proc/{child}/cwd")).expect("readable"), PathBuf::from("/"));
        let limits = fs::read_to_string(format!("/proc/{child}/limits")).expect("readable");
        let address_space = limits.lines().find(|line| line.starts_with("Max address space")).expect("a limit");
        assert!(address_space.contains("268435456"), "{address_space}");
        let child_pid = Pid::from_raw(i32::try_from(child).expect("a pid")).expect("not zero");
        kill_process(child_pid, Signal::KILL).expect("it is there");
    }
}

/// What the files of a process lead to.
fn files(process: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let links = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let line = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after = line.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    processes.filter(is_child).collect()
}

fn arguments(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default()
}

const ACME: &str = r#"
[sources.acme]
adapter = "jq"
verify = { scheme = "none", networks = ["127.0.0.0/8"] }
[sources.acme.jq]
provider = "Acme"
foreach = ".results[]"
class = 'if .state == "queued" then "not_ready" elif .state == "done" then "verdict" else null end'
[sources.acme.jq.fields]
event_id = ".id"
time = ".at"
sha256 = ".file.hash"
name = ".file.name"
verdict = 'if .hang then def f: f; f else .rating end'
detections = '[.engines | to_entries[]? | select(.value.hit) | {engine: .key, name: .value.name}]'
[sources.acme.jq.verdicts]
"High Risk" = "malicious"
Safe = "clean"
-1 = "error"
[sources.acme.jq.score]
expr = ".trust"
invert = true

[sinks.severe]
type = "file"
path = "SEVERE"
start = "earliest"
where = { name = "severe", jq = 'if .severity_id == null then def f: f; f else .severity_id >= 4 end' }

[sinks.broken]
type = "file"
path = "BROKEN"
start = "earliest"
where = { name = "broken", jq = '.severity_id | keys' }
"#;

fn item(id: &str, more: &Value) -> Value {
    let mut item = json!({
        "id": id, "state": "done", "at": 1_774_267_200.5, "rating": "HIGH RISK", "trust": 8,
        "file": {"hash": "sha256:275A021BBFB6489E54D471899F7DB9D1663FC695EC2FE2A2C4538AABF651FD0F", "name": "eicar.com"},
        "engines": {"one": {"hit": true, "name": "EICAR"}, "two": {"hit": false}},
    });
    item.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    item
}

fn post(service: &Service, items: &[Value]) {
    let body = json!({"results": items}).to_string();
    let mut stream = TcpStream::connect(service.receiver).expect("connects");
    let head = format!(
        "POST /v1/hooks/acme HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

fn events(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[test]
fn a_source_and_a_sink_with_jq_of_their_own_work_and_survive_it() {
    let mut site = Site::new();
    let (severe, broken) = (site.folder.path().join("severe.ndjson"), site.folder.path().join("broken.ndjson"));
    site.more = ACME.replace("SEVERE", &severe.display().to_string()).replace("BROKEN", &broken.display().to_string());
    let service = site.start();
    post(
        &service,
        &[item("a", &json!({})), item("b", &json!({"state": "queued"})), item("c", &json!({"rating": "new"}))],
    );
    post(&service, &[item("d", &json!({"rating": "Safe", "at": "2026-03-23 13:00:00"}))]);
    let began = Instant::now();
    post(&service, &[item("hangs", &json!({"hang": true}))]);
    post(&service, &[item("e", &json!({"at": "2026-03-23T14:00:00Z", "rating": -1}))]);
    wait_until("the events of the good messages", PATIENCE, || events(&site.sink).len() == 3);
    assert!(began.elapsed() < Duration::from_secs(10), "the endless one held the others up for {:?}", began.elapsed());

    let all = events(&site.sink);
    let of = |id: &str| all.iter().find(|event| event["metadata"]["original_event_uid"] == id).unwrap_or(&Value::Null);
    assert_eq!(of("a")["unmapped"]["verdict"], "malicious");
    assert_eq!(of("a")["unmapped"]["provider"], "Acme");
    assert_eq!(of("a")["risk_score"], 92);
    assert_eq!(of("a")["time"], 1_774_267_200_500_u64);
    assert_eq!((&of("d")["unmapped"]["verdict"], &of("e")["unmapped"]["verdict"]), (&json!("clean"), &json!("error")));

    let deliveries = |outcome: &str| {
        service.metric("verdict_relay_deliveries_total", &["source=\"acme\"", &format!("outcome=\"{outcome}\"")])
    };
    assert_eq!((deliveries("normalized"), deliveries("ignored"), deliveries("dead")), (3, 1, 2));
    let letters = service.page("/v1/dead-letters");
    assert!(letters.contains("jq: the expressions ran longer than 250 ms and were stopped"), "{letters}");
    assert!(letters.contains("verdict: a verdict that the table does not know"), "{letters}");

    // The condition keeps out what it does not want; the one that fails keeps out nothing, and is counted.
    wait_until("both other sinks", PATIENCE, || events(&broken).len() == 3 && service.counts("severe").pending == 0);
    assert_eq!(events(&severe).len(), 1);
    assert_eq!(service.counts("severe").filtered, 2);
    assert_eq!(service.metric("verdict_relay_where_errors_total", &["sink=\"broken\""]), 3);
    assert_eq!(service.metric("verdict_relay_where_errors_total", &["sink=\"severe\""]), 0);

    // The processes end with the service, also where it is killed.
    let workers: Vec<u32> = children(service.pid());
    assert_eq!(workers.len(), 3, "one a source or sink with jq");
    let inherited = files(std::process::id());
    for worker in &workers {
        let own: Vec<String> = files(*worker).into_iter().filter(|file| !inherited.contains(file)).collect();
        let sockets = own.iter().filter(|file| file.starts_with("socket:")).collect::<std::collections::HashSet<_>>();
        assert!(sockets.len() == 1, "the one to its parent: {own:?}");
        assert!(own.iter().all(|file| file.starts_with("socket:") || file == "/dev/null"), "{own:?}");
    }
    service.kill();
    let is_gone = |process: &u32| !arguments(*process).contains("jq-worker");
    wait_until("the processes of jq end", PATIENCE, || workers.iter().all(is_gone));
}

#[test]
fn a_pack_of_ones_own_is_tested_as_the_service_would_run_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    let run = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_verdict-relay")).args(arguments).output().expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    fs::create_dir(folder.path().join("bodies")).expect("made");
    write("bodies/.swp", "not a body");
    write("bodies/a.json", r#"{"rating": "bad", "url": "https://example.com/"}"#);
    let table = "[fields]\nverdict = '.rating'\nurl = '.url'\n[verdicts]\nbad = 'malicious'\n";
    write("pack.toml", table);
    let (good, data, words) = run(&["adapter", "test", &path]);
    assert!(!good && words.contains("1 of 1 bodies"), "{words}");
    let becomes = data.lines().last().expect("a last line").trim_start_matches("  becomes  ");
    write("expected.json", &format!("{{{becomes}}}"));
    for name in [path.clone(), format!("{path}/pack.toml")] {
        let (good, data, words) = run(&["adapter", "test", &name]);
        assert!(good, "{data}{words}");
    }
    write("expected.json", r#"{"a.json": [{"verdict": "clean"}]}"#);
    let (good, data, _) = run(&["adapter", "test", &path]);
    assert!(
        !good && data.contains("a.json, item 0: verdict\n  expected \"clean\"\n  is       \"malicious\""),
        "{data}"
    );
    for (more, told) in [
        ("time = 'def f: f; f'", "would be a dead letter: jq: the expressions ran longer"),
        ("time = '.rating'", "would be a dead letter: time: expected a time"),
        ("time = 'env'", "pack.toml: fields.time: column 1: there is no function env/0 here"),
        ("tiem = '.'", "unknown field `tiem`"),
    ] {
        write("pack.toml", &table.replace("url =", &format!("{more}\nurl =")));
        let (good, data, words) = run(&["adapter", "test", &path]);
        assert!(!good && format!("{data}{words}").contains(told), "{told} is not in: {data}{words}");
    }
}
