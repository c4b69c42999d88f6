//! The way of one event: from a webhook that a third party signed to Kafka, Splunk HEC, rsyslog and syslog-ng, as one and the same event.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use verdict_relay::app::{App, Roles};
use verdict_relay::config::Config;

use crate::peers::{Hec, Kafka, Rsyslog, SyslogNg, http, parse_cef, signed_by, wait_for};

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TEXT_SECRET: &str = "a-secret-of-more-than-24-bytes";
const HIGH_RISK: &str = "vileanalyziz/analysis_completed_high_risk.json";
const CLEAN: &str = "vileanalyziz/analysis_completed_clean.json";
const VT: &str = "virustotal/v3_file_report_malicious.json";

fn payload(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads").join(name)
}

/// The service in this process, in a folder of its own.
struct Service {
    folder: TempDir,
    receiver: u16,
    api: u16,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Starts it with these sinks; the sources sign with the schemes of four third-party libraries.
    async fn start(sinks: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, sinks).await
    }

    async fn start_in(folder: TempDir, sinks: &str) -> Self {
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("whsec"), WHSEC).expect("written");
        fs::write(path("text"), TEXT_SECRET).expect("written");
        let mut config = format!(
            "[receiver]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {:?}\n\
             [sinks.local]\ntype = \"file\"\npath = {:?}\nstart = \"earliest\"\n",
            path("data"),
            path("local.ndjson")
        );
        for (source, adapter, preset, secret) in [
            ("standard-webhooks", "vileanalyziz", "standard-webhooks", "whsec"),
            ("svix", "vileanalyziz", "svix", "whsec"),
            ("stripe", "virustotal", "stripe", "text"),
            ("github", "virustotal", "github", "text"),
        ] {
            writeln!(
                config,
                "[sources.{source}]\nadapter = \"{adapter}\"\nverify = {{ scheme = \"hmac\", preset = \"{preset}\", secrets = [\"file:{}\"] }}",
                path(secret)
            )
            .expect("memory takes every write");
        }
        config.push_str(sinks);
        fs::write(path("config.toml"), config).expect("written");
        let plan = Config::layered(&[path("config.toml").into()], &std::collections::HashMap::new());
        let plan = plan.and_then(Config::plan).unwrap_or_else(|error| panic!("{error}"));
        let app = App::build(plan, Roles::default()).await.expect("builds");
        let receiver = app.receiver_address().expect("receives").port();
        let api = app.api_address().port();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async {
            drop(stopped.await);
        }));
        Self { folder, receiver, api, stop: Some(stop), running }
    }

    /// Posts a payload that the library of `program` signed now; the status line.
    fn post(&self, program: &str, source: &str, file: &Path, id: &str) -> String {
        let secret = if matches!(source, "stripe" | "github") { TEXT_SECRET } else { WHSEC };
        let headers = signed_by(program, source, file, secret, id, Timestamp::now().as_second());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = fs::read_to_string(file).expect("readable");
        let answer = http(self.receiver, &format!("POST /v1/hooks/{source}"), &headers, &body);
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// A number of `/metrics`, by the whole name with labels.
    fn metric(&self, name: &str) -> u64 {
        let text = http(self.api, "GET /metrics", &[], "");
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(u64::MAX)
    }

    /// Waits until no sink has anything pending, and holds the counts of each together.
    fn settle(&self, sinks: &[&str], events: u64) {
        for sink in sinks {
            wait_for(&format!("sink {sink} to settle"), Duration::from_mins(1), || {
                let count = |outcome: &str| {
                    self.metric(&format!("verdict_relay_sink_events_total{{sink=\"{sink}\",outcome=\"{outcome}\"}}"))
                };
                let pending = self.metric(&format!("verdict_relay_sink_pending_events{{sink=\"{sink}\"}}"));
                let entered = self.metric(&format!("verdict_relay_sink_entered_total{{sink=\"{sink}\"}}"));
                let [delivered, dead, filtered] = ["delivered", "dead", "filtered"].map(count);
                let settled = delivered.saturating_add(dead).saturating_add(filtered);
                let sums = entered == events && entered == settled.saturating_add(pending);
                let state = format!(
                    "entered {entered}, delivered {delivered}, dead {dead}, filtered {filtered}, pending {pending}"
                );
                if sums && pending == 0 { Ok(()) } else { Err(state) }
            });
        }
    }

    /// The events in the file sink.
    fn local(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("local.ndjson")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Stops it cleanly, and gives its folder for another start.
    async fn stop(mut self) -> TempDir {
        drop(self.stop.take());
        self.running.await.expect("no panic").expect("a clean stop");
        self.folder
    }
}

fn uid(event: &Value) -> &str {
    event["metadata"]["uid"].as_str().expect("every event has a uid")
}

#[expect(clippy::too_many_lines, reason = "one event at seven receivers reads best in one piece")]
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_the_same_in_kafka_splunk_rsyslog_and_syslog_ng() {
    let (kafka, hec, rsyslog, syslog_ng) = (Kafka::start(), Hec::start(true), Rsyslog::start(), SyslogNg::start());
    kafka.create_topic("verdicts", 3, &[]);
    let certificates = |folder: PathBuf| {
        format!(
            "ca = {:?}, certificate = {:?}, key = {:?}, server_name = \"localhost\"",
            folder.join("ca.pem"),
            folder.join("client.pem"),
            folder.join("client.key")
        )
    };
    let token = tempfile::NamedTempFile::new().expect("a file");
    fs::write(token.path(), Hec::TOKEN).expect("written");
    let sinks = format!(
        "[sinks.lake]\ntype = \"kafka\"\nbrokers = [{:?}]\ntopic = \"verdicts\"\nstart = \"earliest\"\noptions = {{ \"compression.type\" = \"zstd\" }}\n\
         [sinks.splunk]\ntype = \"splunk_hec\"\nendpoints = [{:?}]\ntokens = [\"file:{}\"]\nacks = \"required\"\nindex = \"main\"\nstart = \"earliest\"\n\
         [sinks.arcsight]\ntype = \"syslog\"\nprofile = \"arcsight\"\naddress = \"tcp://127.0.0.1:{}\"\nresend = {{ time = \"1s\" }}\nstart = \"earliest\"\n\
         [sinks.qradar]\ntype = \"syslog\"\nprofile = \"qradar\"\naddress = \"tls://127.0.0.1:{}\"\nhostname = \"relay-1\"\nresend = {{ time = \"1s\" }}\nstart = \"earliest\"\ntls = {{ {} }}\n\
         [sinks.datagrams]\ntype = \"syslog\"\nprofile = \"qradar\"\naddress = \"udp://127.0.0.1:{}\"\nstart = \"earliest\"\n\
         [sinks.cee]\ntype = \"syslog\"\nprofile = \"rsyslog\"\naddress = \"tls://127.0.0.1:{}\"\nresend = {{ time = \"1s\" }}\nstart = \"earliest\"\ntls = {{ {} }}\n",
        kafka.broker(),
        hec.url(),
        token.path().display(),
        rsyslog.tcp,
        syslog_ng.tls,
        certificates(syslog_ng.certificates()),
        rsyslog.udp,
        rsyslog.tls,
        certificates(rsyslog.certificates()),
    );
    let service = Service::start(&sinks).await;
    for (program, source, file) in [
        ("sign.mjs", "standard-webhooks", HIGH_RISK),
        ("sign.py", "svix", CLEAN),
        ("sign.mjs", "stripe", VT),
        ("sign.mjs", "github", VT),
    ] {
        assert!(service.post(program, source, &payload(file), "msg_1").contains("202"), "{source}");
    }
    let all = ["local", "lake", "splunk", "arcsight", "qradar", "datagrams", "cee"];
    service.settle(&all, 4);

    let local = service.local();
    let mut uids: Vec<&str> = local.iter().map(uid).collect();
    uids.sort_unstable();
    assert_eq!(uids.len(), 4);

    let records = kafka.read("verdicts", 4);
    let mut in_kafka: Vec<String> = Vec::new();
    for record in &records {
        let value: Value = serde_json::from_str(record["value"].as_str().expect("a text")).expect("OCSF");
        let header = |name: &str| {
            let headers = record["headers"].as_array().expect("a list");
            headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap_or_default()
        };
        assert_eq!(header("ce_id"), uid(&value));
        assert_eq!(header("ce_specversion"), "1.0");
        assert!(record["key"].as_str().expect("a text").starts_with("file:"), "{record}");
        assert!(local.contains(&value), "Kafka and the file hold the same bytes");
        in_kafka.push(uid(&value).to_owned());
    }
    in_kafka.sort_unstable();
    assert_eq!(in_kafka, uids);

    let mut in_splunk: Vec<_> = hec.received(4);
    in_splunk.sort_by_key(|line| line["envelope"]["fields"]["event_id"].to_string());
    for (line, expected) in in_splunk.iter().zip(&uids) {
        let envelope = &line["envelope"];
        assert_eq!((&envelope["fields"]["event_id"], uid(&envelope["event"])), (&Value::from(*expected), *expected));
        assert_eq!((&envelope["sourcetype"], &envelope["index"]), (&"ocsf:verdict-relay".into(), &"main".into()));
        assert!(envelope["time"].is_number() && line["encoding"] == "gzip", "{line}");
    }

    let at_rsyslog = rsyslog.received(12);
    let text = |line: &Value, field: &str| line[field].as_str().expect("a text").to_owned();
    let of = |input: &'static str| at_rsyslog.iter().filter(move |line| line["input"] == input);
    let mut in_cef: Vec<String> = Vec::new();
    for line in of("tcp") {
        let cef = parse_cef(&text(line, "msg"));
        assert_eq!(cef["header"]["DeviceVendor"], "Verdict Relay");
        assert_eq!(cef["header"]["SignatureID"], line["msgid"]);
        in_cef.push(text(&cef["extensions"], "externalId"));
    }
    in_cef.sort_unstable();
    assert_eq!(in_cef, uids, "CEF over TCP");
    let leef_uid = |line: &Value| {
        let message = text(line, "msg");
        assert!(message.starts_with("LEEF:2.0|Verdict Relay|verdict-relay|"), "{message}");
        message.split('^').find_map(|pair| pair.strip_prefix("eventUid=")).expect("an identity").to_owned()
    };
    let mut over_udp: Vec<_> = of("udp").map(leef_uid).collect();
    over_udp.sort_unstable();
    assert_eq!(over_udp, uids, "LEEF over UDP");
    let mut in_cee: Vec<_> = of("tls")
        .map(|line| {
            let json = text(line, "msg");
            let json: Value = serde_json::from_str(json.trim_start().trim_start_matches("@cee:")).expect("OCSF");
            uid(&json).to_owned()
        })
        .collect();
    in_cee.sort_unstable();
    assert_eq!(in_cee, uids, "@cee: over TLS with a client certificate");

    let at_syslog_ng = syslog_ng.received(4);
    let mut over_tls: Vec<_> = at_syslog_ng.iter().map(leef_uid).collect();
    over_tls.sort_unstable();
    assert_eq!(over_tls, uids, "LEEF over TLS with a client certificate");
    assert!(at_syslog_ng.iter().all(|line| line["host"] == "relay-1" && line["app"] == "verdict-relay"));

    // The same messages again, with their old ids: known by their proof or by their uid, and nothing more comes out.
    assert!(service.post("sign.py", "svix", &payload(CLEAN), "msg_1").contains("202"));
    assert!(service.post("sign.mjs", "github", &payload(VT), "msg_1").contains("202"));
    service.settle(&all, 4);
    // A wrong secret is refused.
    let forged = signed_by("sign.mjs", "github", &payload(VT), "another-secret-of-24-bytes!", "m", 0);
    let forged: Vec<_> = forged.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = fs::read_to_string(payload(VT)).expect("readable");
    assert!(http(service.receiver, "POST /v1/hooks/github", &forged, &body).contains(" 401 "));
    assert_eq!(service.metric("verdict_relay_signature_failures_total{source=\"github\",reason=\"mismatch\"}"), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_going_away_delays_its_sink_alone_and_loses_nothing_over_a_restart() {
    let mut kafka = Kafka::start();
    kafka.create_topic("verdicts", 1, &[]);
    let sinks = format!(
        "[sinks.lake]\ntype = \"kafka\"\nbrokers = [{:?}]\ntopic = \"verdicts\"\nstart = \"earliest\"\noptions = {{ \"message.timeout.ms\" = 5000 }}\n",
        kafka.broker()
    );
    let service = Service::start(&sinks).await;
    assert!(service.post("sign.py", "svix", &payload(HIGH_RISK), "a").contains("202"));
    service.settle(&["local", "lake"], 1);
    kafka.kill();
    assert!(service.post("sign.py", "svix", &payload(CLEAN), "b").contains("202"));
    assert!(service.post("sign.mjs", "stripe", &payload(VT), "c").contains("202"));
    service.settle(&["local"], 3);
    wait_for("the sink to say so", Duration::from_secs(90), || {
        let state = service.metric("verdict_relay_sink_state{sink=\"lake\",state=\"backoff\"}");
        if state == 1 { Ok(()) } else { Err(format!("state backoff is {state}")) }
    });
    assert_eq!(service.metric("verdict_relay_sink_pending_events{sink=\"lake\"}"), 2);
    let folder = service.stop().await;
    kafka.resume();
    let service = Service::start_in(folder, &sinks).await;
    service.settle(&["local", "lake"], 3);
    let mut uids: Vec<String> = kafka.read("verdicts", 3).iter().map(|record| record["headers"].to_string()).collect();
    uids.dedup();
    assert_eq!(uids.len(), 3);
    assert_eq!(service.local().len(), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_is_refused_alone_is_a_dead_letter_that_an_operator_redrives() {
    let kafka = Kafka::start();
    // The broker takes no record over 4,000 bytes: the report of VirusTotal is poison for it, its neighbours are not.
    kafka.create_topic("verdicts", 1, &["max.message.bytes=4000"]);
    let sinks = format!(
        "[sinks.lake]\ntype = \"kafka\"\nbrokers = [{:?}]\ntopic = \"verdicts\"\nstart = \"earliest\"\n",
        kafka.broker()
    );
    let service = Service::start(&sinks).await;
    let odd = service.folder.path().join("odd.json");
    fs::write(&odd, "{\"event\":\"analysis.completed\",\"file\":{\"sha256\":7}}").expect("written");
    for (source, file, id) in [("svix", payload(CLEAN), "a"), ("stripe", payload(VT), "b"), ("svix", odd, "c")] {
        assert!(service.post("sign.mjs", source, &file, id).contains("202"));
    }
    service.settle(&["local", "lake"], 2);
    assert_eq!(service.metric("verdict_relay_sink_events_total{sink=\"lake\",outcome=\"dead\"}"), 1);
    assert_eq!(service.metric("verdict_relay_dead_letters{stage=\"normalize\",sink=\"\"}"), 1);
    assert_eq!(service.metric("verdict_relay_dead_letters{stage=\"deliver\",sink=\"lake\"}"), 1);
    let listed = http(service.api, "GET /v1/dead-letters", &[], "");
    let listed: Value = serde_json::from_str(listed.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    let letters = listed["dead_letters"].as_array().expect("a list");
    let refused = letters.iter().find(|letter| letter["stage"] == "deliver").expect("one of the sink");
    assert!(refused["reason"].as_str().expect("words").to_lowercase().contains("size"), "{refused}");

    let redrive = format!("POST /v1/dead-letters/{}/redrive", refused["id"].as_str().expect("a text"));
    assert!(http(service.api, &redrive, &[], "").contains(" 401 "), "an operator has to prove himself");
    let token = fs::read_to_string(service.folder.path().join("data/api.token")).expect("written");
    let bearer = format!("Bearer {token}");
    assert!(http(service.api, &redrive, &[("Authorization", &bearer)], "").contains(" 202 "));
    // Still too large: it stays the same dead letter with one more attempt, and the first counts stay.
    wait_for("the second refusal", Duration::from_mins(1), || {
        let listed = http(service.api, "GET /v1/dead-letters", &[], "");
        let listed: Value = serde_json::from_str(listed.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        let mut letters = listed["dead_letters"].as_array().expect("a list").iter();
        let again = letters.any(|letter| letter["id"] == refused["id"] && letter["attempts"] == 2);
        if again { Ok(()) } else { Err(listed.to_string()) }
    });
    service.settle(&["local", "lake"], 2);
    service.stop().await;
}
