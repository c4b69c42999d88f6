//! Replays and renormalizations by the command line, over a crash in the middle: complete, in order, counted apart.

use std::collections::HashMap;
use std::process::Command;

use crate::service::{Book, PATIENCE, Service, Site, wait_until};

/// Events of the test; at 500 a second they take long enough to be interrupted.
const EVENTS: u64 = 1200;

fn run(site: &Site, service: &Service, arguments: &[&str]) -> String {
    let (url, token) = (format!("http://{}", service.api), format!("file:{}", site.store.join("api.token").display()));
    let output = Command::new(env!("CARGO_BIN_EXE_verdict-relay"))
        .args(arguments)
        .args(["--url", &url, "--token", &token])
        .output()
        .expect("runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {words}");
    String::from_utf8(output.stdout).expect("text")
}

fn replayed(service: &Service) -> u64 {
    service.metric("verdict_relay_sink_events_total", &["sink=\"local\"", "outcome=\"replayed\""])
}

#[test]
fn a_replay_goes_on_after_a_kill_and_tells_everything_in_order() {
    let site = Site::new();
    let service = site.start();
    let book = Book::default();
    book.post_all(&service, 0, 0..EVENTS);
    let first = book.settle(&site, &service);
    run(&site, &service, &["replay", "--sink", "local", "--since", "1h", "--no-wait"]);
    wait_until("some of it has come", PATIENCE, || replayed(&service) > 0);
    assert!(replayed(&service) < EVENTS, "the crash is in the middle");
    service.kill();

    let service = site.start();
    wait_until("all of it has come", PATIENCE, || replayed(&service) == EVENTS);
    let list = run(&site, &service, &["replay", "--list", "--json"]);
    assert!(list.contains("\"state\": \"done\"") && list.contains(&format!("\"found\": {EVENTS}")), "{list}");
    let counts = service.counts("local");
    counts.assert_they_add_up();
    assert_eq!((counts.delivered, counts.pending), (EVENTS, 0), "what was replayed counts apart");
    let arrived = site.arrived();
    let mut times = HashMap::<&str, usize>::new();
    for (_, uid) in &arrived.events {
        *times.entry(uid).or_default() += 1;
    }
    assert_eq!(times.len() as u64, EVENTS, "every event keeps its uid");
    assert!(times.values().all(|times| *times >= 2), "each came once more");
    // What came first came again first; the crash may have repeated the end of what was told before it.
    let mut again: Vec<&str> = Vec::new();
    for (_, uid) in &arrived.events[first.events.len()..] {
        if !again.contains(&uid.as_str()) {
            again.push(uid);
        }
    }
    assert!(first.events.iter().map(|(_, uid)| uid.as_str()).eq(again), "in another order");

    let line = run(&site, &service, &["renormalize", "--source", "portal", "--since", "1h"]);
    assert!(line.ends_with(" done 0 events\n"), "today's adapter reads the same: {line}");
    let picked = ["replay", "--sink", "local", "--since", "1h", "--where", ".unmapped.verdict == \"malicious\""];
    let malicious = run(&site, &service, &picked);
    let found: u64 = malicious.split_whitespace().nth(2).and_then(|found| found.parse().ok()).expect("a count");
    assert!(found > 0 && found < EVENTS, "{malicious}");
}
