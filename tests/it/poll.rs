//! Platforms that are asked: lost callbacks, pointers, analyses that were announced, over crashes and beside platforms that are down.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::platform::Platform;
use crate::service::{PATIENCE, Sender, Service, Site, lock, signed_for, wait_until};

const KEY: &str = "an-api-key-of-more-than-24-bytes";
const CAPE_REPORT: &str = include_str!("../payloads/cape/report_trimmed.json");
const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

/// A site with the API key in a file, and these sources.
fn site(sources: &str) -> Site {
    let mut site = Site::new();
    let key = site.folder.path().join("api-key");
    fs::write(&key, KEY).expect("written");
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    site.more = sources.replace("KEY", &format!("file:{}", path("api-key")));
    // Where a site keeps the secret of its own source.
    site.more = site.more.replace("SECRET", &path("secret")).replace("ALERTS", &path("alerts.ndjson"));
    site
}

/// The events in the sink's file.
fn events(sink: &Path) -> Vec<Value> {
    let text = fs::read_to_string(sink).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The sink's events of one source.
fn events_of(site: &Site, source: &str) -> Vec<Value> {
    events(&site.sink).into_iter().filter(|event| event["unmapped"]["source"] == source).collect()
}

/// One analysis of Vile Analyziz, as its list has it.
fn analysis(number: u64) -> Value {
    let verdict = ["Clean", "Caution", "High Risk"][usize::try_from(number % 3).expect("small")];
    json!({
        "id": format!("fil_{number}"), "fileName": format!("sample-{number}.exe"), "sha256": format!("{number:064x}"),
        "status": "completed", "analyzedAt": jiff::Timestamp::now().to_string(), "trustScore": 50, "verdict": verdict,
        "approvalStatus": "Pending Review",
    })
}

#[test]
fn every_finished_analysis_arrives_exactly_once_though_a_third_of_the_callbacks_is_lost() {
    const ANALYSES: u64 = 400;
    // Latest first, a hundred a page, as the platform lists them.
    let finished: Arc<Mutex<Vec<Value>>> = Arc::default();
    let listed = finished.clone();
    let platform = Platform::start(&format!("authorization: Bearer {KEY}"), move |path| {
        if !path.starts_with("/v1/files?") {
            return Some((404, "{}".to_owned()));
        }
        let from: usize = path.split_once("cursor=").map_or(0, |(_, cursor)| cursor.parse().expect("a cursor of ours"));
        let listed = lock(&listed);
        let page: Vec<_> = listed.iter().rev().skip(from).take(100).collect();
        let next = (from + page.len() < listed.len()).then(|| (from + page.len()).to_string());
        Some((200, json!({ "files": page, "nextCursor": next }).to_string()))
    });
    let site = site(&format!(
        "[sources.vile]\nadapter = \"vileanalyziz\"\n\
         verify = {{ scheme = \"hmac\", preset = \"standard-webhooks\", secrets = [\"file:SECRET\"] }}\n\
         confirm = {{ url = \"{}\", key = \"KEY\" }}\nreconcile = {{ every = \"1s\" }}\n",
        platform.url()
    ));
    let service = site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let mut chance = fastrand::Rng::with_seed(7);
    let mut lost = 0;
    for number in 0..ANALYSES {
        let analysis = analysis(number);
        lock(&finished).push(analysis.clone());
        if chance.u8(0..10) < 3 {
            lost += 1;
            continue;
        }
        let body =
            json!({"event": "analysis.completed", "eventId": format!("evt_{number}"), "file": analysis}).to_string();
        // Some senders are not sure and send again; with another id it is no exact repeat.
        for copy in 0..=u8::from(chance.u8(0..10) < 1) {
            let request = signed_for("vile", &format!("msg_{number}_{copy}"), body.as_bytes());
            sender.send(&request).expect("sent");
            assert_eq!(sender.answer().expect("an answer").status, 202);
        }
        if number % 40 == 0 {
            // Rounds fall between, before and after the callbacks.
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    assert!((90..150).contains(&lost), "{lost} of {ANALYSES}");
    let arrived = |site: &Site| events_of(site, "vile");
    wait_until("all analyses arrive", PATIENCE, || arrived(&site).len() as u64 >= ANALYSES);
    // More rounds, which must bring nothing.
    let before = platform.asked().len();
    wait_until("two more rounds", PATIENCE, || platform.asked().len() > before + 8);
    let events = arrived(&site);
    let subjects: HashSet<_> = events.iter().map(|event| event["osint"][0]["value"].to_string()).collect();
    let uids: HashSet<_> = events.iter().map(|event| event["metadata"]["uid"].to_string()).collect();
    assert_eq!((events.len() as u64, subjects.len() as u64, uids.len() as u64), (ANALYSES, ANALYSES, ANALYSES));
    let by_auth = events.iter().fold(HashMap::new(), |mut count: HashMap<String, u64>, event| {
        *count.entry(event["unmapped"]["auth"].as_str().expect("a word").to_owned()).or_default() += 1;
        count
    });
    assert!(by_auth["confirmed"] >= lost && by_auth["signature"] > 0, "{by_auth:?} of which {lost} were lost");
    let counts = service.counts("local");
    counts.assert_they_add_up();
    assert_eq!((counts.delivered, counts.pending, counts.dead), (ANALYSES, 0, 0));
}

#[test]
fn a_platform_that_is_down_or_silent_stops_no_other_source() {
    let good = Platform::start(&format!("authorization: Bearer {KEY}"), |_| {
        Some((200, json!({"files": [analysis(1)], "nextCursor": null}).to_string()))
    });
    let silent = Platform::start(&format!("authorization: Bearer {KEY}"), |_| None);
    let wrong = Platform::start("authorization: Bearer another", |_| None);
    let source = |name: &str, url: &str| {
        format!(
            "[sources.{name}]\nadapter = \"vileanalyziz\"\nconfirm = {{ url = \"{url}\", key = \"KEY\", timeout = \"5m\" }}\n\
             reconcile = {{ every = \"1s\" }}\n"
        )
    };
    // Nobody listens on port 1.
    let sources =
        [("down", "http://127.0.0.1:1"), ("silent", &silent.url()), ("refused", &wrong.url()), ("good", &good.url())];
    let site = site(&sources.map(|(name, url)| source(name, url)).concat());
    let service = site.start();
    wait_until("the good platform is heard", PATIENCE, || events_of(&site, "good").len() == 1);
    wait_until("the silent one was asked", PATIENCE, || !silent.asked().is_empty());
    let sources = json_of(&service, "/v1/sources");
    let state = |name: &str| -> String {
        let sources = sources["sources"].as_array().expect("a list");
        let source = sources.iter().find(|source| source["name"] == name).expect("there");
        source["poll"]["state"].as_str().expect("a word").to_owned()
    };
    assert_eq!(["down", "refused", "good"].map(state), ["backoff", "auth_failed", "ok"]);
    let keys = json_of(&service, "/v1/keys");
    let bad: Vec<_> = keys["keys"].as_array().expect("a list").iter().filter(|key| key["state"] == "bad").collect();
    assert_eq!((bad.len(), bad[0]["source"].as_str()), (1, Some("refused")));
    assert!(!keys.to_string().contains(KEY) && !service.log().contains(KEY), "no key is shown");
    // A source that takes no webhooks is none to the receiver.
    let mut sender = Sender::connect(service.receiver).expect("connects");
    sender.send(&signed_for("good", "msg_1", b"{}")).expect("sent");
    assert_eq!(sender.answer().expect("an answer").status, 401);
    let (status, took) = service.stop();
    assert!(
        status.success() && took < Duration::from_secs(8),
        "a question on its way delays no end: {status} after {took:?}"
    );
}

#[test]
fn a_cape_callback_is_fetched_and_confirmed_over_kills() {
    let ready = Arc::new(Mutex::new(false));
    let is_ready = ready.clone();
    let platform = Platform::start(&format!("authorization: Token {KEY}"), move |path| {
        let body = match path {
            "/apiv2/tasks/get/report/1234/json/" if *lock(&is_ready) => CAPE_REPORT.to_owned(),
            _ => json!({"error": true, "error_value": "Task is still being analyzed"}).to_string(),
        };
        Some((200, body))
    });
    let site = site(&format!(
        "[sources.cape]\nadapter = \"cape\"\nverify = {{ scheme = \"none\", networks = [\"127.0.0.0/8\"] }}\n\
         confirm = {{ url = \"{}\", key = \"KEY\" }}\n",
        platform.url()
    ));
    let service = site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let body = r#"{"task_id": 1234}"#;
    let request = format!(
        "POST /v1/hooks/cape HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    sender.send(request.as_bytes()).expect("sent");
    assert_eq!(sender.answer().expect("an answer").status, 202);
    // Right after the answer, perhaps before the message was read.
    service.kill();
    let service = site.start();
    wait_until("the platform is asked", PATIENCE, || !platform.asked().is_empty());
    wait_until("the pointer is counted", PATIENCE, || {
        service.metric("verdict_relay_fetches_waiting", &["source=\"cape\""]) == 1
    });
    assert!(events(&site.sink).is_empty(), "the callback alone says nothing");
    service.kill();
    *lock(&ready) = true;
    let service = site.start();
    wait_until("the report arrives", PATIENCE, || events(&site.sink).len() == 1);
    let event = &events(&site.sink)[0];
    assert_eq!(event["unmapped"]["auth"], "confirmed");
    assert_eq!((&event["unmapped"]["verdict"], &event["osint"][0]["value"]), (&json!("malicious"), &json!(SHA256)));
    wait_until("nothing waits", PATIENCE, || {
        service.metric("verdict_relay_fetches_waiting", &["source=\"cape\""]) == 0
    });
    assert!(platform.asked().iter().all(|path| path == "/apiv2/tasks/get/report/1234/json/"));
}

#[test]
fn an_announced_analysis_that_does_not_report_is_overdue_at_every_sink() {
    let platform = Platform::start(&format!("authorization: Token {KEY}"), |_| {
        Some((200, json!({"error": true, "error_value": "Task is still being analyzed"}).to_string()))
    });
    let site = site(&format!(
        "[sources.cape]\nadapter = \"cape\"\nconfirm = {{ url = \"{}\", key = \"KEY\" }}\n\
         [sinks.alerts]\ntype = \"file\"\npath = \"ALERTS\"\nwhere = {{ verdicts = [\"malicious\"] }}\n",
        platform.url()
    ));
    let service = site.start();
    let expect = |body: &Value| {
        let body = body.to_string();
        let mut api = Sender::connect(service.api).expect("connects");
        let head = format!(
            "POST /v1/expect HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            service.api,
            body.len()
        );
        api.send(format!("{head}{body}").as_bytes()).expect("sent");
        api.answer().expect("an answer")
    };
    for (body, status) in [
        (json!({"source": "cape", "analysis_id": "1234", "within": "1s"}), 202),
        (json!({"source": "nobody", "analysis_id": "1234"}), 422),
        (json!({"source": "portal", "analysis_id": "1234"}), 422),
        (json!({"source": "cape", "sha256": SHA256}), 422),
        (json!({"source": "cape", "analysis_id": "../x"}), 400),
        (json!({"source": "cape", "analysis_id": "1", "within": "8d"}), 400),
        (json!({"source": "cape", "analysis_id": "1", "within": "0s"}), 400),
        (json!({"source": "cape"}), 400),
        (json!({"source": "cape", "analysis_id": "1", "sha256": SHA256}), 400),
        (json!({"source": "cape", "analysis": "1"}), 400),
    ] {
        let answer = expect(&body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    wait_until("it is overdue", PATIENCE, || events(&site.sink).len() == 1);
    let event = &events(&site.sink)[0];
    assert_eq!((&event["class_uid"], &event["activity_name"]), (&json!(6007), &json!("Duration Violation")));
    assert_eq!((&event["metadata"]["event_code"], &event["scan"]["uid"]), (&json!("analysis.overdue"), &json!("1234")));
    assert!(event["status_detail"].as_str().expect("says why").contains("has not finished it"), "{event}");
    assert_eq!(platform.asked(), ["/apiv2/tasks/get/report/1234/json/"], "asked once more");
    // A choice of verdicts is one among verdicts.
    wait_until("the alert is delivered", PATIENCE, || service.counts("alerts").delivered == 1);
}

/// A page of the private listener.
fn json_of(service: &Service, path: &str) -> Value {
    serde_json::from_str(&service.page(path)).expect("JSON")
}
