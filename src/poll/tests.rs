//! The loop against a scriptable platform on loopback, a real journal and a real ledger.
//!
//! `step` is given the time, so a wait of a day takes no time here.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::adapter::{AdapterName, Options as AdapterOptions};
use crate::delivery::{Expectation, Wanted};
use crate::event::{Auth, Event, Name, Position, Topic};
use crate::normalize::{Normalizer, Operation, Reading, Step};
use crate::store::journal::{DiskJournal, Options};
use crate::store::ledger::{DeadLetter, Stage};
use crate::verify::How;

mod errors;
mod late;
mod lists;
mod pointers;
mod streams;

const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";
const VT_FILE: &str = include_str!("../../tests/payloads/virustotal/v3_file_report_malicious.json");
/// Enough that our own pace stands in nobody's way.
const QUOTAS: &str =
    r#"{"data": {"api_requests_hourly": {"group": {"allowed": 360000, "used": 12, "inherited_from": "g"}}}}"#;
const QUOTAS_OF: &str = "/overall_quotas";

/// Noon of the day after the recorded analyses.
fn noon() -> Timestamp {
    "2026-03-24T12:00:00Z".parse().expect("a time")
}

/// One answer of the platform.
#[derive(Debug, Clone)]
struct Answered {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn ok(body: &(impl ToString + ?Sized)) -> Answered {
    Answered { status: 200, headers: Vec::new(), body: body.to_string() }
}

fn error(status: u16, code: &str) -> Answered {
    let body = json!({"error": {"code": code, "message": "example message"}}).to_string();
    Answered { status, headers: Vec::new(), body }
}

/// A platform that answers what it is told to, by the beginning of the path with its query.
struct Platform {
    port: u16,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// Answers for paths that contain this text; of several the first that has one left. The last answer of each stays.
    answers: Vec<(String, VecDeque<Answered>)>,
    /// Answers for a key, before all others.
    keys: HashMap<String, Answered>,
    /// What was asked: path with query, and the headers as they came.
    asked: Vec<(String, String)>,
}

impl Platform {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    let Ok(read @ 1..) = stream.read(&mut buffer).await else { break };
                    request.extend_from_slice(&buffer[..read]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let Answered { status, headers, body } = shared.lock().expect("not poisoned").answer(&path, &request);
                let mut head =
                    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.extend([name, ": ", &value, "\r\n"]);
                }
                // A client that gave up is no trouble of the platform's.
                drop(stream.write_all(format!("{head}\r\n{body}").as_bytes()).await);
            }
        });
        Self { port, script }
    }

    /// Answers paths with `part` by these, one after the other, and by the last one from then on.
    fn on(&self, part: &str, answers: impl IntoIterator<Item = Answered>) {
        let mut script = self.script.lock().expect("not poisoned");
        script.answers.retain(|(known, _)| known != part);
        script.answers.insert(0, (part.to_owned(), answers.into_iter().collect()));
    }

    /// Answers every question with this key by this.
    fn on_key(&self, key: &str, answer: Answered) {
        self.script.lock().expect("not poisoned").keys.insert(key.to_owned(), answer);
    }

    fn forgive(&self, key: &str) {
        self.script.lock().expect("not poisoned").keys.remove(key);
    }

    /// The paths that were asked for since this was last called, but for quotas.
    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.script.lock().expect("not poisoned").asked);
        asked.into_iter().map(|(path, _)| path).filter(|path| !path.ends_with(QUOTAS_OF)).collect()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Script {
    fn answer(&mut self, path: &str, request: &str) -> Answered {
        self.asked.push((path.to_owned(), request.to_owned()));
        let by_key = self.keys.iter().find(|(key, _)| request.contains(key.as_str())).map(|(_, answer)| answer.clone());
        if let Some(answer) = by_key {
            return answer;
        }
        for (part, answers) in &mut self.answers {
            if path.contains(part.as_str()) && !answers.is_empty() {
                return if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
                    .expect("it is not empty");
            }
        }
        if path.ends_with(QUOTAS_OF) { ok(QUOTAS) } else { error(404, "NotFoundError") }
    }
}

/// The store, normalize and one poller.
struct Bench {
    folder: tempfile::TempDir,
    journal: Arc<DiskJournal>,
    ledger: Arc<Ledger>,
    normalizer: Normalizer,
    poller: Poller,
    state: watch::Receiver<PollState>,
    plan: PollPlan,
    adapter: Arc<dyn Adapter>,
}

impl Bench {
    /// `confirm`, `reconcile` and `poll` of the source `s`, which is read by this adapter.
    async fn new(adapter: &str, asked: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for key in ["key", "other"] {
            fs::write(folder.path().join(key), format!("{key}-of-more-than-twenty-four-bytes")).expect("written");
        }
        Self::open(folder, adapter, asked).await
    }

    async fn open(folder: tempfile::TempDir, adapter: &str, asked: &Value) -> Self {
        let table = |name: &str| asked.get(name).map(|table| with_keys(table, folder.path()));
        let asked = Asked {
            confirm: table("confirm").map(|table| serde_json::from_value(table).expect("a config")),
            reconcile: table("reconcile").map(|table| serde_json::from_value(table).expect("a config")),
            poll: table("poll").map(|table| serde_json::from_value(table).expect("a config")),
        };
        let plan = asked.plan("sources.s", adapter, Duration::from_hours(168)).expect("valid").expect("is asked");
        let adapter = crate::adapter::plan("sources.s", &AdapterName(adapter.to_owned()), &AdapterOptions::default());
        let adapter = adapter.expect("built");
        let options = Options { folder: folder.path().join("journal"), segment_bytes: 1 << 20, sequence_floor: 0 };
        let journal = Arc::new(DiskJournal::open(&options).expect("opens"));
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let reading = Reading { adapter: adapter.clone(), asks: true, remembers: plan.remembers() };
        let normalizer = Normalizer {
            reader: journal.reader(ledger.head().borrow().sequence),
            durable: journal.durable(),
            ledger: ledger.clone(),
            sources: HashMap::from([(source(), reading)]),
            metrics: Arc::default(),
            waiting: Vec::new(),
        };
        let (poller, state) = poller(&plan, &adapter, &journal, &ledger).await;
        Self { folder, journal, ledger, normalizer, poller, state, plan, adapter }
    }

    /// The loop begins anew, as after a restart.
    async fn restart(&mut self) {
        (self.poller, self.state) = poller(&self.plan, &self.adapter, &self.journal, &self.ledger).await;
    }

    async fn deliver(&self, how: How, body: &(impl ToString + ?Sized)) -> u64 {
        let mut head = vec![1, 0, 0, 0, 0];
        head.extend(serde_json::to_vec(&json!({ "how": how })).expect("plain data"));
        let length = u32::try_from(head.len() - 5).expect("short");
        head[1..5].copy_from_slice(&length.to_le_bytes());
        self.append(Kind::Delivery, head, body.to_string(), noon()).await
    }

    async fn append(&self, kind: Kind, head: Vec<u8>, body: String, at: Timestamp) -> u64 {
        let draft = Draft { kind, source: source(), at, head, body: body.into(), repeat: None };
        self.journal.append(draft).await.expect("durable").sequence
    }

    fn settle(&mut self) {
        while self.normalizer.step().expect("the store works") != Step::Nothing {}
    }

    /// Steps the poller once at this time, and normalize after it.
    async fn step(&mut self, now: Timestamp) -> Timestamp {
        let next = self.poller.step(now).await.expect("the ledger works");
        self.settle();
        next
    }

    /// Steps until nothing is due before `until`; the times of the steps.
    async fn run_until(&mut self, from: Timestamp, until: Timestamp) -> usize {
        let (mut now, mut steps) = (from, 0);
        while now < until {
            let next = self.step(now).await;
            steps += 1;
            assert!(steps < 100_000, "it turns in a circle at {now}");
            // What is in flight was normalized above, so the shortest wait is a moment.
            now = next.max(after(now, Duration::from_millis(50)));
        }
        steps
    }

    fn events(&self) -> Vec<Arc<Event>> {
        let reader = self.ledger.reader().expect("opens");
        let stored = reader.events_after(Position::default(), &source(), 1000, 16 << 20).expect("readable");
        stored.into_iter().map(|stored| stored.event.expect("sound")).collect()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        self.ledger.reader().expect("opens").dead_letters(None, 100).expect("readable")
    }

    fn waiting(&self) -> u64 {
        self.ledger.reader().expect("opens").fetches(&source()).expect("readable")
    }

    fn state(&self) -> PollState {
        self.state.borrow().clone()
    }

    fn sequence(&self) -> u64 {
        *self.journal.durable().borrow()
    }

    fn count(&self, metric: &str) -> u64 {
        let both = [&self.normalizer.metrics, &self.poller.metrics].map(|metrics| {
            let text = metrics.text();
            text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<u64>().ok()).unwrap_or_default()
        });
        both.iter().sum()
    }
}

async fn poller(
    plan: &PollPlan,
    adapter: &Arc<dyn Adapter>,
    journal: &Arc<DiskJournal>,
    ledger: &Arc<Ledger>,
) -> (Poller, watch::Receiver<PollState>) {
    let (state, seen) = watch::channel(PollState::default());
    let parts = Parts {
        source: source(),
        plan: plan.clone(),
        keys: KeyRing::open(plan.secrets(), true, noon()).await,
        adapter: adapter.clone(),
        journal: journal.clone(),
        ledger: ledger.clone(),
        metrics: Arc::default(),
        state,
    };
    (Poller::new(parts, noon()).expect("opens"), seen)
}

fn source() -> Name {
    "s".parse().expect("a name")
}

/// The references of the bench instead of `key` and `other`.
fn with_keys(table: &Value, folder: &Path) -> Value {
    let reference = |key: &str| format!("file:{}", folder.join(key).display());
    let mut table = table.clone();
    if let Some(keys) = table.get_mut("keys").and_then(Value::as_array_mut) {
        for key in keys {
            *key = reference(key.as_str().expect("a name")).into();
        }
    }
    if let Some(key) = table.get_mut("key") {
        *key = reference(key.as_str().expect("a name")).into();
    }
    table
}

/// A notification of VirusTotal that names a file and says nothing about it.
fn notification(id: &str) -> Value {
    json!({"data": {"type": "ioc_stream_notification", "id": "1", "attributes": {"entity_type": "file", "entity_id": id}}})
}

async fn vt(platform: &Platform, more: &Value) -> Bench {
    let mut poll = json!({"keys": ["key"], "url": platform.url(), "timeout": "5s"});
    for (name, value) in more.as_object().expect("a table") {
        poll[name] = value.clone();
    }
    Bench::new("virustotal", &json!({ "poll": poll })).await
}

fn signed() -> How {
    How::Signature { key_id: "env:A".to_owned() }
}
