//! VirusTotal as its own client reads it, and the real program beside it: streams, quotas, keys that are replaced, over a kill.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::peers::VirusTotal;
use crate::service::{PATIENCE, Service, Site, wait_until};

const FILE: &str = include_str!("../payloads/virustotal/v3_file_report_malicious.json");
const ANALYSIS: &str = include_str!("../payloads/virustotal/v3_analysis_completed.json");
const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
const ANALYSIS_ID: &str = "NDRkODg2MTJmZWE4YThmMzZkZTgyZTEyNzhhYmIwMmY6MTc3NDI2NzA4MA==";
const OLD: &str = "old-key-of-more-than-24-bytes-000000000000000000000000000000000000";
const NEW: &str = "new-key-of-more-than-24-bytes-000000000000000000000000000000000000";

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A line of the stream: notification `id`, some seconds ago, about a file of its own.
fn notification(id: u64, seconds_ago: i64) -> String {
    let mut file = json(FILE)["data"].clone();
    let sha256 = format!("{id:064x}");
    file["id"] = sha256.clone().into();
    file["attributes"]["sha256"] = sha256.into();
    file["context_attributes"] = json!({
        "notification_id": id.to_string(), "notification_date": Timestamp::now().as_second() - seconds_ago, "origin": "hunting",
        "hunting_info": {"rule_name": "my_rule"}, "sources": [], "tags": ["my_rule"],
    });
    file.to_string()
}

fn start(platform: &VirusTotal, site: &mut Site) -> Service {
    let path = |name: &str| site.folder.path().join(name).display().to_string();
    site.more = format!(
        "[sources.vt]\nadapter = \"virustotal\"\n\
         poll = {{ every = \"1s\", keys = [\"file:{}\", \"file:{}\"], url = \"{}\", streams = [\"ioc_stream\", \"retrohunt\"] }}\n",
        path("first"),
        path("second"),
        platform.url()
    );
    site.start()
}

/// The notifications that arrived at the sink.
fn arrived(site: &Site) -> Vec<String> {
    let text = fs::read_to_string(&site.sink).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter_map(|event| event["unmapped"]["notification_id"].as_str().map(str::to_owned)).collect()
}

fn distinct(ids: &[String]) -> BTreeSet<String> {
    ids.iter().cloned().collect()
}

#[test]
fn its_own_client_and_our_poller_read_the_same_from_it() {
    let platform = VirusTotal::start(&format!("{OLD}\n"));
    let matches = json!({"data": [json(FILE)["data"]], "meta": {}});
    let objects = json!({
        format!("files/{SHA256}"): json(FILE),
        format!("analyses/{ANALYSIS_ID}"): json(ANALYSIS),
        "intelligence/retrohunt_jobs": {"data": [{"type": "retrohunt_job", "id": "user-1", "attributes": {
            "status": "finished", "finish_date": Timestamp::now().as_second() - 60}}]},
        "intelligence/retrohunt_jobs/user-1/matching_files": matches,
    });
    platform.steer("objects.json", &objects.to_string());
    // More than two pages of ours, some on the same second, and one that VirusTotal has forgotten.
    let lines: Vec<String> =
        (1..=90).map(|id| notification(id, i64::try_from(3000 - id / 3).expect("small"))).collect();
    let forgotten = notification(91, 8 * 86_400);
    platform.steer("notifications.jsonl", &[lines.join("\n"), forgotten].join("\n"));
    let read = platform.read_by_its_client(OLD, SHA256, ANALYSIS_ID);
    assert_eq!(
        (&read["type"], &read["malicious"]),
        (&json!("file"), &json(FILE)["data"]["attributes"]["last_analysis_stats"]["malicious"])
    );
    assert_eq!((&read["analysis"], &read["quotas"]), (&json!("completed"), &json!(360_000)));
    assert_eq!((&read["unknown"], &read["wrong_key"]), (&json!("NotFoundError"), &json!("WrongCredentialsError")));
    let by_client: Vec<String> = serde_json::from_value(read["notifications"].clone()).expect("a list of ids");
    assert_eq!(by_client.len(), 90);

    let mut site = Site::new();
    fs::write(site.folder.path().join("first"), OLD).expect("written");
    fs::write(site.folder.path().join("second"), "a-second-key-that-nobody-knows-yet").expect("written");
    let service = start(&platform, &mut site);
    wait_until("the whole stream arrives", PATIENCE, || distinct(&arrived(&site)) == distinct(&by_client));
    wait_until("the match of the retrohunt arrives", PATIENCE, || service.counts("local").delivered == 91);
    // Killed, and more comes: nothing twice, nothing lost.
    service.kill();
    let more: Vec<String> = (100..130).map(|id| notification(id, 10)).collect();
    platform.steer("notifications.jsonl", &[lines.join("\n"), more.join("\n")].join("\n"));
    let service = start(&platform, &mut site);
    wait_until("the rest arrives", PATIENCE, || distinct(&arrived(&site)).len() == 120);
    let rounds = platform.requests().len();
    wait_until("some more rounds", PATIENCE, || platform.requests().len() > rounds + 6);
    assert_eq!(service.counts("local").delivered, 121);
    let requests = platform.requests();
    let ours: Vec<_> = requests
        .iter()
        .filter(|request| request["agent"].as_str().is_some_and(|agent| agent.starts_with("verdict-relay/")))
        .collect();
    assert!(ours.iter().all(|request| request["status"] == 200), "it never asks what VirusTotal refuses");
    assert!(
        service
            .page("/metrics")
            .contains("verdict_relay_api_quota_remaining{source=\"vt\",quota=\"api_requests_hourly\"}")
    );
}

#[test]
fn a_key_that_ends_is_replaced_without_a_restart_and_no_entry_is_lost() {
    let platform = VirusTotal::start(&format!("{OLD}\n"));
    let entry = notification(1, 100);
    platform.steer("notifications.jsonl", &entry);
    let mut site = Site::new();
    let [first, second] = ["first", "second"].map(|name| site.folder.path().join(name));
    fs::write(&first, OLD).expect("written");
    fs::write(&second, "a-second-key-that-nobody-knows-yet").expect("written");
    let service = start(&platform, &mut site);
    wait_until("the first entry arrives", PATIENCE, || arrived(&site).len() == 1);
    // The account ends; the second key is refused, too.
    platform.steer("keys", &format!("{OLD} inactive\n"));
    platform.steer("notifications.jsonl", &[entry, notification(2, 50)].join("\n"));
    let states = || -> Vec<String> {
        let keys: Value = serde_json::from_str(&service.page("/v1/keys")).expect("JSON");
        let keys = keys["keys"].as_array().expect("a list").clone();
        keys.iter().map(|key| key["state"].as_str().expect("a word").to_owned()).collect()
    };
    wait_until("both keys are bad", PATIENCE, || states() == ["bad", "bad"]);
    let asked = platform.requests().len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(platform.requests().len(), asked, "nobody knocks while the keys are known to be bad");
    // A new value for the second reference is taken up by itself, within ten seconds.
    platform.steer("keys", &format!("{NEW}\n"));
    fs::write(&second, NEW).expect("written");
    wait_until("the second entry arrives", PATIENCE, || arrived(&site).len() == 2);
    assert_eq!(states(), ["bad", "active"]);
    let shown = [service.log(), service.page("/v1/keys"), service.page("/metrics")].concat();
    assert!(!shown.contains(OLD) && !shown.contains(NEW), "no key is shown");
}

#[test]
fn a_quota_that_is_used_up_is_waited_for_and_said() {
    // The quota is that of an hour, and all of this has to be in the same one.
    let left = 3600 - Timestamp::now().as_second() % 3600;
    if left < 90 {
        std::thread::sleep(Duration::from_secs(left.unsigned_abs()));
    }
    let platform = VirusTotal::start(&format!("{OLD}\n"));
    // A request a second, a minute's worth at once; three are left.
    platform.steer("quota", "3600");
    platform.steer("used", "3597");
    platform.steer("notifications.jsonl", &notification(1, 100));
    let mut site = Site::new();
    fs::write(site.folder.path().join("first"), OLD).expect("written");
    fs::write(site.folder.path().join("second"), OLD).expect("written");
    let service = start(&platform, &mut site);
    let used_up = "verdict_relay_api_quota_remaining{source=\"vt\",quota=\"api_requests_hourly\"} 0";
    wait_until("the quota is used up", PATIENCE, || service.page("/metrics").lines().any(|line| line == used_up));
    let asked = platform.requests().len();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(platform.requests().len(), asked, "it waits for the end of the hour");
    assert!(platform.requests().iter().all(|request| request["status"] != 429), "it stops before it is told to");
}
