//! The Kafka sink against a real broker that dies, lacks replicas, refuses records, users and permissions: nothing is lost, the order of
//! a subject stays, and what comes twice has the same uid.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use crate::peers::Kafka;
use crate::service::{Arrived, Book, Load, PATIENCE, Sender, Service, Site, signed_for, wait_until};

#[test]
fn a_broker_that_is_killed_under_load_costs_nothing_and_keeps_the_order() {
    let mut kafka = Kafka::start();
    for topic in ["patient", "hasty"] {
        kafka.create_topic(topic, 3, &[]);
    }
    let (mut site, book) = (Site::new(), Arc::new(Book::default()));
    // One waits the outage out, one gives up and sends all again several times.
    site.more = sink("patient", &kafka.broker(), "patient", "")
        + &sink("hasty", &kafka.broker(), "hasty", "options = { \"message.timeout.ms\" = 1000 }\n");
    let service = site.start();
    let load = Load::start(service.receiver, 2, &book);
    sleep(Duration::from_secs(1));
    kafka.kill();
    sleep(Duration::from_millis(2500));
    kafka.resume();
    sleep(Duration::from_millis(500));
    load.stop();
    for name in ["patient", "hasty"] {
        let arrived = whole(&service, &kafka, &book, name);
        // At most what was on the way, each time that it was given up.
        assert!(arrived.repeated() <= 20_000, "{name}: {} of {}", arrived.repeated(), arrived.events.len());
        note(name, &arrived);
    }
}

#[test]
fn a_cluster_without_enough_replicas_gets_everything_once_it_has_them() {
    let mut kafka = Kafka::start_pair();
    for topic in ["patient", "hasty"] {
        kafka.create_topic(topic, 3, &["min.insync.replicas=2"]);
    }
    let (mut site, book) = (Site::new(), Arc::new(Book::default()));
    site.more = sink("patient", &kafka.broker(), "patient", "")
        + &sink("hasty", &kafka.broker(), "hasty", "options = { \"message.timeout.ms\" = 2000 }\n");
    let service = site.start();
    let load = Load::start(service.receiver, 2, &book);
    let delivered = || ["patient", "hasty"].map(|name| service.counts(name).delivered);
    wait_until("both get events", PATIENCE, || delivered().iter().all(|count| *count > 100));
    kafka.kill_second();
    // What was confirmed before may still be on its way to us.
    sleep(Duration::from_millis(500));
    let before = delivered();
    wait_until("the broker refuses", PATIENCE, || kafka.log().contains("NotEnoughReplicasException"));
    wait_until("one sink says so", PATIENCE, || state(&service, "hasty", "backoff"));
    sleep(Duration::from_secs(2));
    assert_eq!(delivered(), before, "nothing counts that one broker alone has");
    assert!(service.counts("hasty").pending > 0);
    kafka.resume_second();
    load.stop();
    for name in ["patient", "hasty"] {
        let arrived = whole(&service, &kafka, &book, name);
        note(&format!("{name}, too few replicas"), &arrived);
    }
    // Said once, though it was tried again and again.
    assert_eq!(service.log().matches("sink hasty waits").count(), 1, "{}", service.log());
}

#[test]
fn a_missing_topic_and_records_that_are_too_large_cost_no_neighbour() {
    let kafka = Kafka::start();
    kafka.create_topic("small", 2, &["max.message.bytes=6000"]);
    let (mut site, book) = (Site::new(), Book::default());
    site.more = sink("absent", &kafka.broker(), "absent", "")
        // Two events a request: a broker's limit is one of the request.
        + &sink("small", &kafka.broker(), "small", "options = { \"batch.size\" = 5000 }\n");
    let service = site.start();
    book.post_all(&service, 0, 0..150);
    let detection =
        |n: u32| serde_json::json!({"engine": format!("engine-{n}"), "name": "x".repeat(200), "verdict": "malicious"});
    for number in 0..2 {
        let poison = serde_json::json!({
            "id": format!("poison-{number}"), "verdict": "malicious", "analysed_at": "2026-03-23T12:00:00Z",
            "subject": {"type": "file", "sha256": hex::encode([number; 32])}, "detections": (0..32).map(detection).collect::<Vec<_>>(),
        });
        let mut sender = Sender::connect(service.receiver).expect("connects");
        sender.send(&signed_for("portal", &format!("poison-{number}"), poison.to_string().as_bytes())).expect("sent");
        assert_eq!(sender.answer().expect("an answer").status, 202);
        book.post_all(&service, usize::from(number) + 1, 0..75);
    }
    settled(&service, "small");
    let counts = service.counts("small");
    assert_eq!((counts.entered, counts.delivered, counts.dead), (302, 300, 2));
    let letters: Value = serde_json::from_str(&service.page("/v1/dead-letters")).expect("JSON");
    let letters = letters["dead_letters"].as_array().expect("a list");
    assert_eq!(letters.len(), 2);
    assert!(
        letters.iter().all(|letter| letter["reason"].as_str().is_some_and(|words| words.contains("too large"))),
        "{letters:?}"
    );
    let taken = arrived(&kafka, "small");
    book.check(&taken, &HashSet::new());
    note("small", &taken);

    wait_until("the other sink says what is wrong", PATIENCE, || state(&service, "absent", "paused"));
    let counts = service.counts("absent");
    assert_eq!((counts.delivered, counts.dead, counts.pending), (0, 0, 302));
    kafka.create_topic("absent", 1, &[]);
    settled(&service, "absent");
    assert_eq!((service.counts("absent").delivered, service.counts("absent").dead), (302, 0));
    let mut all = arrived(&kafka, "absent");
    all.events.retain(|(id, _)| !id.starts_with("poison"));
    book.check(&all, &HashSet::new());
}

#[test]
fn every_way_to_prove_who_we_are_works_and_a_refusal_costs_nothing() {
    let kafka = Kafka::start_secured();
    kafka.create_topic("verdicts", 1, &[]);
    kafka.create_topic("guarded", 1, &[]);
    let [sasl, tls, both] = kafka.secured.expect("it has them").map(|port| format!("127.0.0.1:{port}"));
    let (mut site, book) = (Site::new(), Book::default());
    let folder = site.folder.path().to_owned();
    let file = |name: &str, value: &str| {
        fs::write(folder.join(name), value).expect("written");
        format!("file:{}", folder.join(name).display())
    };
    let (right, wrong) = (file("right", Kafka::PASSWORD), file("wrong", "not-the-password-of-the-broker"));
    let token = file("token", &jwt(Timestamp::now().as_second() + 3600));
    let pem = |name: &str| kafka.certificates().join(name).display().to_string();
    let ca = format!("ca = {:?}", pem("ca.pem"));
    let user = |mechanism: &str, password: &str| {
        format!(
            "options = {{ \"sasl.mechanism\" = \"{mechanism}\", \"sasl.username\" = \"relay\", \"sasl.password\" = \"{password}\" }}\n"
        )
    };
    let good = [
        ("plain", &sasl, user("PLAIN", &right)),
        ("scram256", &sasl, user("SCRAM-SHA-256", &right)),
        ("scram512", &sasl, user("SCRAM-SHA-512", &right)),
        ("oauth", &sasl, format!("token = \"{token}\"\n")),
        ("oauth-tls", &both, format!("token = \"{token}\"\ntls = {{ {ca} }}\n")),
        ("scram-tls", &both, format!("{}tls = {{ {ca} }}\n", user("SCRAM-SHA-512", &right))),
        (
            "mtls",
            &tls,
            format!("tls = {{ {ca}, certificate = {:?}, key = {:?} }}\n", pem("client.pem"), pem("client.key")),
        ),
    ];
    site.more = good.iter().map(|(name, brokers, more)| sink(name, brokers, "verdicts", more)).collect::<String>()
        + &sink("guarded", &sasl, "guarded", &user("PLAIN", &right))
        + &sink("impostor", &sasl, "guarded", &user("SCRAM-SHA-512", &wrong))
        + &sink("nobody", &tls, "guarded", &format!("tls = {{ {ca} }}\n"))
        + &sink(
            "stranger",
            &both,
            "guarded",
            &format!("{}tls = {{ ca = {:?} }}\n", user("PLAIN", &right), pem("other-ca.pem")),
        );
    kafka.forbid("guarded", true);
    let service = site.start();
    book.post_all(&service, 0, 0..20);
    for (name, ..) in &good {
        settled(&service, name);
    }
    let taken = arrived(&kafka, "verdicts");
    assert_eq!((taken.events.len(), taken.ids().len()), (20 * good.len(), 20));
    wait_until("the others say what is wrong", PATIENCE, || {
        state(&service, "guarded", "paused")
            && state(&service, "impostor", "auth_failed")
            && state(&service, "nobody", "tls_failed")
            && state(&service, "stranger", "tls_failed")
    });
    for name in ["guarded", "impostor", "nobody", "stranger"] {
        let counts = service.counts(name);
        assert_eq!((counts.delivered, counts.dead, counts.pending), (0, 0, 20), "{name}");
    }
    assert!(!service.log().contains("not-the-password"), "a secret in the log");
    // What was wrong is mended while we run: the password in its file, the permission at the broker.
    file("wrong", Kafka::PASSWORD);
    kafka.forbid("guarded", false);
    for name in ["guarded", "impostor"] {
        settled(&service, name);
    }
    let taken = arrived(&kafka, "guarded");
    assert_eq!((taken.events.len(), taken.ids().len()), (40, 20));
    // And the permission goes away in the middle.
    kafka.forbid("guarded", true);
    book.post_all(&service, 0, 20..40);
    wait_until("it pauses", PATIENCE, || state(&service, "guarded", "paused"));
    assert_eq!(service.counts("guarded").dead, 0);
    kafka.forbid("guarded", false);
    settled(&service, "guarded");
    let counts = service.counts("guarded");
    assert_eq!((counts.delivered, counts.dead), (40, 0));
}

/// A token that no one signed, which this broker takes.
fn jwt(until: i64) -> String {
    let claims = serde_json::json!({"sub": "relay", "iat": until - 7200, "exp": until});
    format!("{}.{}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn sink(name: &str, brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "[sinks.{name}]\ntype = \"kafka\"\nbrokers = [\"{brokers}\"]\ntopic = \"{topic}\"\nstart = \"earliest\"\n{more}"
    )
}

fn settled(service: &Service, sink: &str) {
    wait_until(&format!("{sink} has settled all"), PATIENCE, || {
        let counts = service.counts(sink);
        counts.pending == 0 && counts.entered > 0
    });
}

/// What arrived in the topic of this name: everything, in order, and counted.
fn whole(service: &Service, kafka: &Kafka, book: &Book, name: &str) -> Arrived {
    settled(service, name);
    let arrived = arrived(kafka, name);
    book.check(&arrived, &HashSet::new());
    let counts = service.counts(name);
    counts.assert_they_add_up();
    assert_eq!((counts.delivered, counts.dead), (arrived.ids().len() as u64, 0), "{name}");
    arrived
}

fn state(service: &Service, sink: &str, word: &str) -> bool {
    service.metric("verdict_relay_sink_state", &[&format!("sink=\"{sink}\""), &format!("state=\"{word}\"")]) == 1
}

/// All records of a topic, as Kafka's own client reads them.
fn arrived(kafka: &Kafka, topic: &str) -> Arrived {
    let records = kafka.read(topic, kafka.count(topic));
    let event = |record: &Value| {
        let value: Value = serde_json::from_str(record["value"].as_str().expect("a text")).expect("OCSF");
        let text = |name: &str| value["metadata"][name].as_str().expect("a text").to_owned();
        (text("original_event_uid"), text("uid"))
    };
    Arrived { events: records.iter().map(event).collect(), torn: 0 }
}

/// Keeps the numbers of a run where `KAFKA_NOTES` names a file for them.
fn note(topic: &str, arrived: &Arrived) {
    let Some(path) = std::env::var_os("KAFKA_NOTES") else { return };
    let before = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let line = format!("{topic}: {} events, {} came again\n", arrived.ids().len(), arrived.repeated());
    fs::write(path, before + &line).expect("written");
}
