//! The real program as a child process, senders that sign unique messages, and the checker that compares what was acknowledged
//! with what arrived.
//!
//! The senders are written from the specification of Standard Webhooks, not with the program's own code. Nothing here knows how the
//! program works inside; it sees listeners, files, signals and the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The secret of every source, as bytes.
const SECRET: &[u8] = b"thirty-two bytes, for these tests";
/// Longest wait for anything that should happen soon: a debug build on a busy machine, not a bound of the program.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// First analysis of every subject: 2026-03-23T12:00:00Z.
const ANALYSED_AT: i64 = 1_774_267_200_000;

/// The program: this build's, or the one that `VERDICT_RELAY_PROGRAM` names, like a release build for figures.
fn program() -> PathBuf {
    std::env::var_os("VERDICT_RELAY_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_verdict-relay").into(), PathBuf::from)
}

/// Where a service lives: its store, its config and the file that its sink writes.
pub struct Site {
    /// Goes when the test ends.
    pub folder: TempDir,
    /// Folder of the store.
    pub store: PathBuf,
    /// File of the sink `local`.
    pub sink: PathBuf,
    /// More config: other sinks.
    pub more: String,
    /// More keys of the table `store`.
    pub store_keys: String,
    /// More arguments of `serve`.
    pub arguments: Vec<String>,
    /// File for its standard output; nowhere by default.
    pub output: Option<PathBuf>,
}

impl Site {
    /// A fresh store beside everything else.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, sink) = (folder.path().join("data"), folder.path().join("verdicts.ndjson"));
        Self {
            folder,
            store,
            sink,
            more: String::new(),
            store_keys: String::new(),
            arguments: Vec::new(),
            output: None,
        }
    }

    /// A store at this place, which may be a file system of its own.
    pub fn with_store(store: &Path) -> Self {
        Self { store: store.to_owned(), ..Self::new() }
    }

    /// The files of the journal, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut segments: Vec<_> = fs::read_dir(self.store.join("journal"))
            .expect("the journal is there")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        segments.sort();
        segments
    }

    fn write_config(&self) -> PathBuf {
        let (path, secret) = (self.folder.path().join("relay.toml"), self.folder.path().join("secret"));
        fs::write(&secret, format!("whsec_{}", STANDARD.encode(SECRET))).expect("written");
        let config = format!(
            r#"
[receiver]
listen = "127.0.0.1:0"
body_max = "512KiB"
[api]
listen = "127.0.0.1:0"
[store]
path = "{store}"
segment_size = "1MiB"
{store_keys}
[sources.portal]
adapter = "native"
verify = {{ scheme = "hmac", preset = "standard-webhooks", secrets = ["file:{secret}"] }}
[sinks.local]
type = "file"
path = "{sink}"
start = "earliest"
{more}
"#,
            store = self.store.display(),
            sink = self.sink.display(),
            secret = secret.display(),
            store_keys = self.store_keys,
            more = self.more,
        );
        fs::write(&path, config).expect("written");
        path
    }

    /// Starts the service and waits until it is ready.
    pub fn start(&self) -> Service {
        match self.try_start() {
            Ok(service) => service,
            Err((status, log)) => panic!("the service did not start ({status}):\n{log}"),
        }
    }

    /// Starts the service; its exit status and log if it ends before it is ready.
    pub fn try_start(&self) -> Result<Service, (ExitStatus, String)> {
        self.launch(|service| {
            service.look_for_addresses() && get(service.receiver, "/readyz").is_ok_and(|answer| answer.status == 200)
        })
    }

    /// Starts the service and waits until it listens, ready or not.
    pub fn start_without_waiting(&self) -> Service {
        match self.launch(Service::look_for_addresses) {
            Ok(service) => service,
            Err((status, log)) => panic!("the service did not start ({status}):\n{log}"),
        }
    }

    fn launch(&self, mut up: impl FnMut(&mut Service) -> bool) -> Result<Service, (ExitStatus, String)> {
        let config = self.write_config();
        let started = Instant::now();
        // Of standard output is kept what the sink `console` writes.
        let output = self.output.as_ref().map_or_else(Stdio::null, |path| File::create(path).expect("made").into());
        let mut child = Command::new(program())
            .arg("--config")
            .arg(config)
            .arg("serve")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let kept = log.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                lock(&kept).push(line);
            }
        });
        let reader = Some(reader);
        let mut service = Service { child, ready_after: Duration::ZERO, log, reader, receiver: NOWHERE, api: NOWHERE };
        while started.elapsed() < PATIENCE {
            if let Some(status) = service.child.try_wait().expect("a child of ours") {
                service.join_reader();
                return Err((status, service.log()));
            }
            if up(&mut service) {
                service.ready_after = started.elapsed();
                return Ok(service);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the service is not ready after {PATIENCE:?}:\n{}", service.log());
    }

    /// What is in the sink's file: the events in order, and how many lines are torn.
    pub fn arrived(&self) -> Arrived {
        arrived(&self.sink)
    }
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A running service. Killed when it is dropped.
pub struct Service {
    child: Child,
    /// From the start of the process to the first good answer of `/readyz`.
    pub ready_after: Duration,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// Where senders reach it.
    pub receiver: SocketAddr,
    /// Where operators reach it.
    pub api: SocketAddr,
}

impl Service {
    /// Its log up to now.
    pub fn log(&self) -> String {
        lock(&self.log).join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Most memory that it ever held, in MiB.
    pub fn rss_peak_mib(&self) -> u64 {
        self.memory_kib("VmHWM:") / 1024
    }

    /// Memory that it holds now, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("not zero");
        kill_process(pid, signal).expect("it is there");
    }

    /// Ends it as a crash would, at once.
    pub fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
        self.join_reader();
        self.assert_no_panic();
    }

    /// Tells it to stop, and waits: its exit status and how long it took.
    pub fn stop(mut self) -> (ExitStatus, Duration) {
        let told = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended_within(PATIENCE);
        (status, told.elapsed())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end.
    pub fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                self.join_reader();
                self.assert_no_panic();
                return status;
            }
            assert!(Instant::now() < until, "the service has not ended after {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A page of the private listener.
    pub fn page(&self, path: &str) -> String {
        let answer = get(self.api, path).expect("the API answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// The sum of a metric over the lines that hold all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        metric_of(&self.page("/metrics"), name, labels)
    }

    /// The counts of a sink.
    pub fn counts(&self, sink: &str) -> Counts {
        let (page, label) = (self.page("/metrics"), format!("sink=\"{sink}\""));
        let outcome =
            |word: &str| metric_of(&page, "verdict_relay_sink_events_total", &[&label, &format!("outcome=\"{word}\"")]);
        Counts {
            entered: metric_of(&page, "verdict_relay_sink_entered_total", &[&label]),
            delivered: outcome("delivered"),
            dead: outcome("dead"),
            filtered: outcome("filtered"),
            pending: metric_of(&page, "verdict_relay_sink_pending_events", &[&label]),
        }
    }

    /// The addresses stand in the log line that says it runs.
    fn look_for_addresses(&mut self) -> bool {
        let log = lock(&self.log);
        let Some(line) = log.iter().find(|line| line.contains("is running")) else { return self.api.port() > 0 };
        let line: Value = serde_json::from_str(line).expect("the log is JSON");
        let address = |key: &str| line[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (self.receiver, self.api) = (address("receiver"), address("api"));
        true
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log was read");
        }
    }

    fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked at"), "the service panicked:\n{log}");
    }
}

impl Drop for Service {
    #[expect(clippy::print_stderr, reason = "only of a test that fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the service ends with:\n{}", tail(&self.log()));
        }
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

/// The counts of one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that came up for it.
    pub entered: u64,
    /// Taken by the receiver.
    pub delivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Kept out by its rule.
    pub filtered: u64,
    /// Not settled.
    pub pending: u64,
}

impl Counts {
    /// Fails unless every event is in exactly one state.
    pub fn assert_they_add_up(self) {
        assert_eq!(self.entered, self.delivered + self.dead + self.filtered + self.pending, "{self:?}");
    }
}

fn metric_of(page: &str, name: &str, labels: &[&str]) -> u64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines = page.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")).sum()
}

/// What the sink's file holds.
#[derive(Debug, Default)]
pub struct Arrived {
    /// The provider's id and our uid of every event, in order.
    pub events: Vec<(String, String)>,
    /// Lines that a crash cut short.
    pub torn: usize,
}

impl Arrived {
    /// The ids without repetition.
    pub fn ids(&self) -> HashSet<&str> {
        self.events.iter().map(|(id, _)| id.as_str()).collect()
    }

    /// Events that stand there more than once.
    pub fn repeated(&self) -> usize {
        self.events.len() - self.ids().len()
    }
}

/// What the checker reads of an OCSF event.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    uid: &'a str,
    original_event_uid: &'a str,
}

/// Reads the file of a sink.
pub fn arrived(sink: &Path) -> Arrived {
    let mut arrived = Arrived::default();
    // A file that is not there yet is an empty one.
    for line in fs::read_to_string(sink).unwrap_or_default().lines() {
        match serde_json::from_str::<Line<'_>>(line) {
            Ok(Line { metadata }) => {
                arrived.events.push((metadata.original_event_uid.to_owned(), metadata.uid.to_owned()));
            }
            Err(_) => arrived.torn += 1,
        }
    }
    arrived
}

/// One message of a sender: a verdict with an id of its own.
#[derive(Debug, Clone)]
pub struct Message {
    /// The id that the event carries to the sink.
    pub id: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// The `number`th message of a writer. Every writer speaks of three subjects in turn.
    pub fn new(writer: usize, number: u64) -> Self {
        let id = format!("w{writer:03}-{number:07}");
        let analysed_at = Timestamp::from_millisecond(ANALYSED_AT + i64::try_from(number).expect("small"));
        let subject = hex::encode(Sha256::digest(format!("{writer} {}", number % 3)));
        let verdict = ["clean", "suspicious", "malicious"][usize::try_from(number % 7 % 3).expect("small")];
        let body = json!({
            "id": id,
            "subject": { "type": "file", "sha256": subject, "name": format!("sample-{number}.bin"), "size": 4711 },
            "verdict": verdict,
            "score": number % 101,
            "analysed_at": analysed_at.expect("in range").to_string(),
            "detections": [{ "engine": "engine-one", "name": "Test.Sample.A", "verdict": verdict }],
            "tenant": "acme",
        });
        Self { id, body: body.to_string().into_bytes() }
    }
}

/// A sender's connection.
pub struct Sender {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Sender {
    /// Connects to the receiver.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Signs and posts a message as of now, and waits for the answer.
    pub fn post(&mut self, message: &Message) -> io::Result<Answer> {
        let bytes = signed(message);
        self.send(&bytes)?;
        self.answer()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = HashMap::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if headers.contains_key("transfer-encoding") {
            body = read_chunks(&mut self.stream)?;
        } else {
            self.stream.read_exact(&mut body)?;
        }
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk)?;
        body.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Ok(body);
        }
    }
}

/// The whole request to the source of every site.
pub fn signed(message: &Message) -> Vec<u8> {
    signed_for("portal", &message.id, &message.body)
}

/// The whole request to a source, signed as Standard Webhooks says: HMAC-SHA256 over `id.timestamp.body`.
pub fn signed_for(source: &str, id: &str, body: &[u8]) -> Vec<u8> {
    let now = Timestamp::now().as_second();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length will do");
    mac.update(format!("{id}.{now}.").as_bytes());
    mac.update(body);
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let mut request = format!(
        "POST /v1/hooks/{source} HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         webhook-id: {id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: v1,{signature}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut sender = Sender::connect(address)?;
    sender.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    sender.answer()
}

/// What the senders know: what they sent, and what was acknowledged.
#[derive(Default)]
pub struct Book {
    sent: Mutex<HashSet<String>>,
    acknowledged: Mutex<HashMap<String, String>>,
    /// Answers that no sender should ever see.
    strange: Mutex<Vec<String>>,
    unavailable: AtomicU64,
}

impl Book {
    /// How many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        lock(&self.acknowledged).len()
    }

    /// How often a sender was asked to come again.
    pub fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed)
    }

    /// What is acknowledged up to now.
    pub fn snapshot(&self) -> HashSet<String> {
        lock(&self.acknowledged).keys().cloned().collect()
    }

    /// The delivery id that each message was acknowledged with.
    pub fn deliveries(&self) -> HashMap<String, String> {
        lock(&self.acknowledged).clone()
    }

    /// Posts one message that may be acknowledged or not.
    pub fn offer(&self, sender: &mut Sender, message: &Message) -> Answer {
        lock(&self.sent).insert(message.id.clone());
        let answer = sender.post(message).expect("an answer");
        self.note(message, &answer);
        answer
    }

    /// Posts one message that has to be acknowledged.
    pub fn post(&self, sender: &mut Sender, message: &Message) {
        let answer = self.offer(sender, message);
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Posts this many messages of one writer, which all have to be acknowledged.
    pub fn post_all(&self, service: &Service, writer: usize, numbers: std::ops::Range<u64>) {
        let mut sender = Sender::connect(service.receiver).expect("connects");
        for number in numbers {
            self.post(&mut sender, &Message::new(writer, number));
        }
    }

    /// Whether it was acknowledged.
    fn note(&self, message: &Message, answer: &Answer) -> bool {
        match answer.status {
            202 => {
                let id: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let id = id["id"].as_str().unwrap_or_default().to_owned();
                lock(&self.acknowledged).insert(message.id.clone(), id);
                return true;
            }
            503 if answer.headers.contains_key("retry-after") => {
                self.unavailable.fetch_add(1, Ordering::Relaxed);
            }
            _ => lock(&self.strange).push(format!("{answer:?}")),
        }
        false
    }

    /// Compares what was acknowledged with what arrived: nothing is missing, nothing is invented, order by subject is kept, and what
    /// came twice came with the same uid. `lost` is what may be missing.
    pub fn check(&self, arrived: &Arrived, lost: &HashSet<String>) {
        let strange = lock(&self.strange);
        assert!(strange.is_empty(), "senders were told strange things: {:?}", &strange[..strange.len().min(5)]);
        let ids = arrived.ids();
        let acknowledged = lock(&self.acknowledged);
        let missing: Vec<_> =
            acknowledged.keys().filter(|id| !ids.contains(id.as_str()) && !lost.contains(*id)).collect();
        assert!(missing.is_empty(), "{} of {} acknowledged are lost: {missing:?}", missing.len(), acknowledged.len());
        let sent = lock(&self.sent);
        let mut uids: HashMap<&str, &str> = HashMap::new();
        let mut latest: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for (id, uid) in &arrived.events {
            assert!(sent.contains(id), "{id} arrived and was never sent");
            if let Some(first) = uids.insert(id, uid) {
                assert_eq!(first, uid, "{id} came twice with two identities");
                continue;
            }
            let (writer, number) = id.split_once('-').expect("an id of ours");
            let number: u64 = number.parse().expect("an id of ours");
            let before = latest.insert((writer, number % 3), number);
            assert!(before.is_none_or(|before| before < number), "{id} came after a later one of its subject");
        }
    }

    /// Waits until everything acknowledged has arrived and nothing is pending, then checks all of it.
    pub fn settle(&self, site: &Site, service: &Service) -> Arrived {
        self.settle_without(site, service, &HashSet::new())
    }

    /// As [`Book::settle`], where `lost` is known to be gone.
    pub fn settle_without(&self, site: &Site, service: &Service, lost: &HashSet<String>) -> Arrived {
        let acknowledged = self.snapshot();
        // Long backlogs take long: what counts is that there is less and less of them.
        let (mut until, mut least) = (Instant::now() + PATIENCE, usize::MAX);
        let whole = loop {
            let arrived = site.arrived();
            let missing = {
                let ids = arrived.ids();
                acknowledged.iter().filter(|id| !ids.contains(id.as_str()) && !lost.contains(*id)).count()
            };
            if missing == 0 && service.counts("local").pending == 0 || Instant::now() > until {
                break site.arrived();
            }
            if missing < least {
                (least, until) = (missing, Instant::now() + PATIENCE);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.check(&whole, lost);
        let counts = service.counts("local");
        counts.assert_they_add_up();
        assert_eq!(counts.pending, 0, "{}", tail(&service.log()));
        assert_eq!(counts.delivered, whole.ids().len() as u64, "each event settles once; {counts:?}");
        whole
    }
}

/// Senders that post one message after the other until they are told to stop.
pub struct Load {
    /// Where the service is now: it changes with every restart.
    pub address: Arc<Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `writers` senders. What they know goes into the book.
    pub fn start(address: SocketAddr, writers: usize, book: &Arc<Book>) -> Self {
        let (address, stop) = (Arc::new(Mutex::new(address)), Arc::new(AtomicBool::new(false)));
        let writers = (0..writers)
            .map(|writer| {
                let (address, stop, book) = (address.clone(), stop.clone(), book.clone());
                std::thread::spawn(move || write(writer, &address, &stop, &book))
            })
            .collect();
        Self { address, stop, writers }
    }

    /// The service is somewhere else now.
    pub fn moved_to(&self, service: &Service) {
        *lock(&self.address) = service.receiver;
    }

    /// Ends the senders; each finishes what it waits for.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.join().expect("no sender failed");
        }
    }
}

/// One sender. What got no answer is sent again or given up, by chance: both happen.
fn write(writer: usize, address: &Mutex<SocketAddr>, stop: &AtomicBool, book: &Book) {
    let mut connection = None;
    let mut number = 0;
    let mut message = Message::new(writer, number);
    while !stop.load(Ordering::Relaxed) {
        if connection.is_none() {
            let to = *lock(address);
            connection = Sender::connect(to).ok();
        }
        let Some(sender) = &mut connection else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        lock(&book.sent).insert(message.id.clone());
        let answer = sender.post(&message);
        let acknowledged = answer.as_ref().map_or_else(|_| fastrand::bool(), |answer| book.note(&message, answer));
        if !answer.is_ok_and(|answer| answer.status == 202) {
            // Every refusal closes the connection, and whoever refuses is not to be stormed.
            connection = None;
            std::thread::sleep(Duration::from_millis(10));
        }
        if acknowledged {
            number += 1;
            message = Message::new(writer, number);
        }
    }
}

/// Waits until `done`; fails with `what` when it takes too long.
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < until, "{what}: not after {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program that has to succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}; install it"));
    assert!(
        output.status.success(),
        "{program} {}: {}; this test needs root, because it {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr),
        "makes disks and disk errors of its own"
    );
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(20)..] {
        writeln!(text, "{line}").expect("memory");
    }
    text
}

/// The lock, whatever another thread's failed assertion left behind.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
