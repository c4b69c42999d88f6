//! The real peers, each started in a folder of its own on free loopback ports and killed when its value is dropped.
//!
//! Invariants: a start waits at most [`START_WAIT_MAX`] and then fails with what the peer wrote to its standard error; a peer that is not
//! installed fails with what to do; what a peer received is read from its own file, never from anything of ours.
//!
//! Not here: how a peer is installed and configured (`tests/peers`, whose README says what each of them writes).

pub mod uploads;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio, id};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Apache Kafka in KRaft mode, one node or two. Topics are never made on their own: [`Kafka::create_topic`].
#[derive(Debug)]
pub struct Kafka {
    process: Option<Process>,
    folder: TempDir,
    /// Port of the broker; the controller has one of its own.
    pub port: u16,
    controller: u16,
    /// Ports for those who prove who they are: by SASL, by a TLS certificate, by SASL over TLS.
    pub secured: Option<[u16; 3]>,
    /// A second broker, which is no controller.
    second: Option<Second>,
}

#[derive(Debug)]
struct Second {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
}

impl Kafka {
    /// Any 22 letters and digits.
    const CLUSTER: &str = "aClusterOfTwoBrokers02";

    /// Of the user `relay` of [`Kafka::start_secured`].
    pub const PASSWORD: &str = "a-password-of-the-broker";

    /// Starts a broker with empty storage.
    pub fn start() -> Self {
        let [port, controller] = free_ports();
        let mut kafka = Self { process: None, folder: folder(), port, controller, secured: None, second: None };
        kafka.resume();
        kafka
    }

    /// Starts two brokers. Every topic has two replicas, and one that stops following is out of the set within 2 s.
    pub fn start_pair() -> Self {
        let mut kafka = Self::start();
        let [port] = free_ports();
        kafka.second = Some(Second { process: None, folder: folder(), port });
        kafka.resume_second();
        kafka
    }

    /// The same with further listeners, which know the user `relay` and the certificates of [`Kafka::certificates`], and with ACLs.
    pub fn start_secured() -> Self {
        let [port, controller, sasl, tls, both] = free_ports();
        let secured = Some([sasl, tls, both]);
        let mut kafka = Self { process: None, folder: folder(), port, controller, secured, second: None };
        kafka.resume();
        kafka
    }

    /// Starts it again after [`Kafka::kill`], with the same storage and port.
    pub fn resume(&mut self) {
        let mut command = script("kafka.sh", "kafka");
        command.arg(self.folder.path()).args([self.port, self.controller].map(|port| port.to_string()));
        command.args(self.secured.iter().flatten().map(u16::to_string)).env("KAFKA_PASSWORD", Self::PASSWORD);
        command.env("KAFKA_CLUSTER", Self::CLUSTER).env("KAFKA_PROPS", LAG_MAX);
        self.process =
            Some(Process::start("Kafka", command, self.folder.path(), |log| log.contains("Kafka Server started")));
    }

    /// Ends it as a power cut would: `SIGKILL`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The same of the second broker.
    pub fn kill_second(&mut self) {
        self.second.as_mut().expect("there are two").process = None;
    }

    /// Starts the second broker, for the first time or again.
    pub fn resume_second(&mut self) {
        let controller = self.controller;
        let second = self.second.as_mut().expect("there are two");
        let mut command = script("kafka.sh", "kafka");
        command.arg(second.folder.path()).args([second.port, controller].map(|port| port.to_string()));
        command.env("KAFKA_CLUSTER", Self::CLUSTER).env("KAFKA_PROPS", LAG_MAX).env("KAFKA_NODE", "2");
        let ready = |log: &str| log.contains("Kafka Server started");
        second.process = Some(Process::start("the second broker", command, second.folder.path(), ready));
    }

    /// What the first broker wrote since it was started: warnings and errors.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr.log")).expect("it was started")
    }

    /// `host:port`, as a client's `bootstrap.servers` takes it.
    pub fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a topic, with settings like `max.message.bytes=1000`.
    pub fn create_topic(&self, topic: &str, partitions: u16, settings: &[&str]) {
        let mut command = script("kafka-topic.sh", "kafka");
        command.args([&self.port.to_string(), topic, &partitions.to_string()]).args(settings);
        command.env("REPLICAS", if self.second.is_some() { "2" } else { "1" });
        output_of(command);
    }

    /// The folder of `ca.pem`, `client.pem`, `client.key` and the rest that `tests/peers/certs.sh` makes.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Forbids the user `relay` to write to a topic, or no longer does.
    pub fn forbid(&self, topic: &str, forbidden: bool) {
        let how: &[&str] = if forbidden { &["--add"] } else { &["--remove", "--force"] };
        let what = ["--deny-principal", "User:relay", "--operation", "Write", "--topic", topic];
        self.tool("kafka.admin.AclCommand", &[how, &what].concat());
    }

    /// How many records a topic has.
    pub fn count(&self, topic: &str) -> usize {
        let ends = self.tool("org.apache.kafka.tools.GetOffsetShell", &["--topic", topic]);
        // A line a partition: `topic:partition:offset`.
        ends.lines()
            .map(|line| line.rsplit(':').next().and_then(|end| end.parse::<usize>().ok()).expect("an offset"))
            .sum()
    }

    /// What one of Kafka's own tools prints.
    fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut command = script("kafka-tool.sh", "kafka");
        command.args([&self.port.to_string(), class]).args(arguments);
        String::from_utf8_lossy(&output_of(command).stdout).into_owned()
    }

    /// Writes each line as a record, with Kafka's own tool.
    pub fn write(&self, topic: &str, lines: &str) {
        let mut command = script("kafka-write.sh", "kafka");
        // A file and no pipe: the tool may not read while it connects.
        let input = self.folder.path().join("lines");
        fs::write(&input, lines).expect("the folder of a peer is writable");
        command.args([&self.port.to_string(), topic]).stdin(File::open(&input).expect("just written"));
        output_of(command);
    }

    /// Reads exactly this many committed records of a topic with Kafka's Java client. Fails when fewer are there within 20 s.
    pub fn read(&self, topic: &str, records: usize) -> Vec<Value> {
        let mut command = script("kafka-read.sh", "kafka");
        command.args([&self.port.to_string(), topic, &records.to_string()]);
        json_lines(&output_of(command).stdout)
    }
}

/// rsyslog. Each port takes both framings; what it wrote for a message is in `tests/peers/README.md`.
#[derive(Debug)]
pub struct Rsyslog {
    process: Option<Process>,
    folder: TempDir,
    /// The network namespace that it runs in, and its address there.
    elsewhere: Option<(String, Ipv4Addr)>,
    /// UDP port.
    pub udp: u16,
    /// Plain TCP port.
    pub tcp: u16,
    /// TLS port that wants the certificate `client` of [`Rsyslog::certificates`].
    pub tls: u16,
}

impl Rsyslog {
    /// Starts it, with certificates of its own.
    pub fn start() -> Self {
        Self::begin(None)
    }

    /// Starts it in a network namespace, at an address that this one can reach.
    pub fn start_in(namespace: &str, address: Ipv4Addr) -> Self {
        Self::begin(Some((namespace.to_owned(), address)))
    }

    fn begin(elsewhere: Option<(String, Ipv4Addr)>) -> Self {
        let [udp, tcp, tls] = free_ports();
        let mut rsyslog = Self { process: None, folder: folder(), elsewhere, udp, tcp, tls };
        rsyslog.resume();
        rsyslog
    }

    /// Starts it again after [`Rsyslog::kill`] or [`Rsyslog::end`], with the same files and ports.
    pub fn resume(&mut self) {
        let (udp, tcp) = (self.udp, self.tcp);
        let program = script("rsyslog.sh", "apt");
        let address = self.elsewhere.as_ref().map_or(Ipv4Addr::LOCALHOST, |(_, address)| *address);
        let mut command = match &self.elsewhere {
            None => program,
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program.get_program());
                command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
                command
            }
        };
        command.env("LISTEN", address.to_string()).arg(self.folder.path());
        command.args([udp, tcp, self.tls].map(|port| port.to_string()));
        let reached = SocketAddr::from((address, tcp));
        let ready = |_: &str| {
            let accepts = TcpStream::connect_timeout(&reached, ANSWER_WAIT_MAX).is_ok();
            accepts && (!address.is_loopback() || is_taken(udp))
        };
        self.process = Some(Process::start("rsyslog", command, self.folder.path(), ready));
    }

    /// Ends it as a crash would: `SIGKILL`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it as an operator would: `SIGTERM`, and it writes what it has read.
    pub fn end(&mut self) {
        self.signal(Signal::TERM);
        let process = self.process.as_mut().expect("it runs");
        wait_for("rsyslog to end", START_WAIT_MAX, || {
            process.child.try_wait().ok().flatten().map(drop).ok_or_else(|| "it still runs".to_owned())
        });
        self.process = None;
    }

    /// It hangs: neither reads nor ends, while its kernel takes what comes.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on after [`Rsyslog::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        let pid = i32::try_from(process.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is there");
    }

    /// The folder of `ca.pem`, `client.pem`, `client.key` and the rest that `tests/peers/certs.sh` makes.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Waits until it has written at least this many messages and returns all of them.
    pub fn received(&self, messages: usize) -> Vec<Value> {
        received(self.folder.path(), messages)
    }

    /// What it has written up to now, a message after the other; where it was killed, a line may be torn and is left out.
    pub fn written(&self) -> impl Iterator<Item = Value> {
        let file = File::open(self.folder.path().join("received.jsonl")).ok();
        let lines = file.into_iter().flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok));
        lines.filter_map(|line| serde_json::from_str(&String::from_utf8_lossy(&line)).ok())
    }
}

/// syslog-ng. Unlike rsyslog it keeps each framing to its own port.
#[derive(Debug)]
pub struct SyslogNg {
    _process: Process,
    folder: TempDir,
    /// UDP port.
    pub udp: u16,
    /// Plain TCP port, octet-counted frames only.
    pub octet: u16,
    /// Plain TCP port, frames end with a line feed.
    pub line: u16,
    /// TLS port, octet-counted, that wants the certificate `client` of [`SyslogNg::certificates`].
    pub tls: u16,
}

impl SyslogNg {
    /// Starts it, with certificates of its own.
    pub fn start() -> Self {
        let folder = folder();
        let [udp, octet, line, tls] = free_ports();
        let mut command = script("syslog-ng.sh", "syslog-ng");
        command.arg(folder.path()).args([udp, octet, line, tls].map(|port| port.to_string()));
        let ready = |_: &str| accepts(octet) && accepts(line) && is_taken(udp);
        let process = Process::start("syslog-ng", command, folder.path(), ready);
        Self { _process: process, folder, udp, octet, line, tls }
    }

    /// The folder of `ca.pem`, `client.pem`, `client.key` and the rest that `tests/peers/certs.sh` makes.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Waits until it has written at least this many messages and returns all of them.
    pub fn received(&self, messages: usize) -> Vec<Value> {
        received(self.folder.path(), messages)
    }
}

/// The HEC receiver. It is ours, written after Splunk's documents: `tests/peers/README.md` says what that proves and what not.
#[derive(Debug)]
pub struct Hec {
    _process: Process,
    folder: TempDir,
    /// Port, plain HTTP.
    pub port: u16,
}

impl Hec {
    /// The token that it takes from the start.
    pub const TOKEN: &str = "8f0d3c5e-0000-4000-8000-000000000001";

    /// Starts it, with indexer acknowledgement or without.
    pub fn start(acks: bool) -> Self {
        let folder = folder();
        let [port] = free_ports();
        let mut command = script("hec.sh", "python");
        command.arg(folder.path()).arg(port.to_string()).args(acks.then_some("acks"));
        let ready = |_: &str| http(port, "GET /services/collector/health", &[], "").starts_with("HTTP/1.1 200 ");
        let process = Process::start("the HEC receiver", command, folder.path(), ready);
        Self { _process: process, folder, port }
    }

    /// `http://host:port`, as the sink's `endpoints` take it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Steers it while it runs, by the files that its README names: `busy`, `hold-acks`, `tokens`, `indexes`. `None` takes the file away.
    pub fn steer(&self, file: &str, content: Option<&str>) {
        let path = self.folder.path().join(file);
        match content {
            Some(content) => fs::write(path, content).expect("the folder of a running peer is writable"),
            None => fs::remove_file(path).expect("the file was written before"),
        }
    }

    /// Waits until it has written at least this many events and returns all of them.
    pub fn received(&self, events: usize) -> Vec<Value> {
        received(self.folder.path(), events)
    }

    /// What it has written up to now, a line an event.
    pub fn written(&self) -> String {
        let mut written = fs::read_to_string(self.folder.path().join("received.jsonl")).unwrap_or_default();
        written.truncate(written.rfind('\n').map_or(0, |end| end + 1));
        written
    }
}

/// Writes a file that a peer reads, in one piece: it may be reading.
fn steer(folder: &TempDir, file: &str, content: &str) {
    let (path, new) = (folder.path().join(file), folder.path().join("new"));
    fs::write(&new, content).and_then(|()| fs::rename(new, path)).expect("the folder of a peer is writable");
}

/// What a peer has written to a file, as far as the lines are complete.
fn complete_lines(folder: &TempDir, file: &str) -> Vec<Value> {
    let written = fs::read(folder.path().join(file)).unwrap_or_default();
    let complete = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    json_lines(&written[..complete])
}

/// A VirusTotal. It is ours, written after its reference; VirusTotal's own client has to accept it.
#[derive(Debug)]
pub struct VirusTotal {
    _process: Process,
    folder: TempDir,
    /// Port, plain HTTP.
    pub port: u16,
}

impl VirusTotal {
    /// Starts it with these keys, one a line (`KEY`, `KEY inactive` or `KEY forbidden`).
    pub fn start(keys: &str) -> Self {
        let folder = folder();
        let [port] = free_ports();
        fs::write(folder.path().join("keys"), keys).expect("the folder of a peer is writable");
        let mut command = script("virustotal.sh", "python");
        command.arg(folder.path()).arg(port.to_string());
        let process = Process::start("VirusTotal", command, folder.path(), |_| accepts(port));
        Self { _process: process, folder, port }
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Steers it while it runs, by the files that `virustotal/server.py` names.
    pub fn steer(&self, file: &str, content: &str) {
        steer(&self.folder, file, content);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Value> {
        complete_lines(&self.folder, "requests.jsonl")
    }

    /// What VirusTotal's own client (vt-py) reads from it.
    pub fn read_by_its_client(&self, key: &str, sha256: &str, analysis: &str) -> Value {
        let mut command = interpreted(&script("virustotal/client.py", "python"), "venv/bin/python");
        command.args([&self.url(), key, sha256, analysis]);
        serde_json::from_slice(&output_of(command).stdout).expect("the client prints JSON")
    }
}

/// The headers by which a sender nobody here wrote signs this file: `standard-webhooks`, `svix`, `github` or `stripe`, by the npm
/// (`sign.mjs`) or PyPI (`sign.py`) library.
pub fn signed_by(program: &str, scheme: &str, file: &Path, secret: &str, id: &str, unix: i64) -> Vec<(String, String)> {
    let python = program == "sign.py";
    let script = script(program, if python { "python" } else { "npm" });
    let mut command = interpreted(&script, if python { "venv/bin/python" } else { "node" });
    command.arg(scheme).arg(file).args([secret, id, &unix.to_string()]);
    let headers: Value = serde_json::from_slice(&output_of(command).stdout).expect("the signer prints JSON");
    let headers = headers.as_object().expect("an object of headers").iter();
    headers.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}

/// Which of these requests the official library of Standard Webhooks takes: `{"secret", "headers", "body"}` each.
pub fn verified(requests: &[Value]) -> Vec<bool> {
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    let verdicts = fed(interpreted(&script("verify.py", "python"), "venv/bin/python"), &lines.join("\n"));
    json_lines(&verdicts).iter().map(|verdict| verdict.as_bool().expect("true or false")).collect()
}

/// What a CEF parser nobody here wrote makes of a line: `header` and `extensions`.
pub fn parse_cef(line: &str) -> Value {
    parse_cef_lines("lognorm", &[line.to_owned()]).swap_remove(0)
}

/// The same of many lines, by `lognorm` or `parcefone`.
pub fn parse_cef_lines(parser: &str, lines: &[String]) -> Vec<Value> {
    let mut command = interpreted(&script("parse_cef.py", "cef"), "python3");
    command.arg(parser);
    let parsed = json_lines(&fed(command, &(lines.join("\n") + "\n")));
    assert_eq!(parsed.len(), lines.len(), "{parser} answered something else");
    parsed
}

/// What a program makes of its standard input.
fn fed(mut command: Command, input: &str) -> Vec<u8> {
    // A file and no pipe: it may write before it has read everything.
    let mut file = tempfile::tempfile().expect("the folder for temporary files is writable");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("just made");
    command.stdin(file);
    output_of(command).stdout
}

/// One HTTP/1.1 exchange without any HTTP client of ours: the whole answer as text, or nothing where nobody answers.
pub fn http(port: u16, method_and_path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!(
        "{method_and_path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let exchange = || -> std::io::Result<String> {
        let mut answer = String::new();
        let mut stream = TcpStream::connect_timeout(&loopback(port), ANSWER_WAIT_MAX)?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    // Not yet listening is the common case while a peer starts; the caller sees the empty answer.
    exchange().unwrap_or_default()
}

/// Waits until `probe` gives a value, and fails with `what` when it takes longer than `at_most`.
pub fn wait_for<T>(what: &str, at_most: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + at_most;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= until => panic!("{what}: not within {at_most:?}: {state}"),
            Err(_) => sleep(PROBE_PAUSE),
        }
    }
}

/// A running peer. Dropping it kills it by its own process id: the start scripts `exec`, so that is the peer itself.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    /// Spawns the command and waits until `is_ready`, which is given what the peer wrote to standard error so far.
    fn start(name: &str, mut command: Command, folder: &Path, is_ready: impl Fn(&str) -> bool) -> Self {
        let log = folder.join("stderr.log");
        // A restart begins with an empty file, or the ready line of the first life would be taken for the second's.
        let file = File::create(&log).expect("the folder of a peer is writable");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut process =
            Self { child: command.spawn().unwrap_or_else(|error| panic!("{name}: {command:?}: {error}")) };
        wait_for(name, START_WAIT_MAX, || {
            let written = fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = process.child.try_wait().map_err(|error| error.to_string())? {
                panic!("{name} ended at once ({status}); its last words:\n{}", tail(&written));
            }
            if is_ready(&written) { Ok(()) } else { Err(format!("not ready; its last words:\n{}", tail(&written))) }
        });
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left after this.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A start script of `tests/peers`, after a look whether what it needs is installed.
fn script(file: &str, part: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let peers = std::env::var_os("PEERS").map_or_else(|| root.join(".peers"), PathBuf::from);
    assert!(
        peers.join("stamps").join(part).exists(),
        "the test peers are not installed ({part} is missing in {}): run `make test`",
        peers.display()
    );
    let mut command = Command::new(root.join("tests/peers").join(file));
    command.env("PEERS", peers);
    command
}

/// A script that is no program by itself, run by an interpreter of the system or of the peers' folder.
fn interpreted(script: &Command, interpreter: &str) -> Command {
    let environment = script.get_envs().find_map(|(name, value)| (name == "PEERS").then_some(value?));
    let peers = PathBuf::from(environment.expect("`script` names the folder"));
    let program = if interpreter.contains('/') { peers.join(interpreter) } else { interpreter.into() };
    let mut command = Command::new(program);
    command.arg(script.get_program()).env("PEERS", peers);
    command
}

/// What a tool wrote, once it has ended well.
fn output_of(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// The lines of `received.jsonl`, once there are at least `count`.
fn received(folder: &Path, count: usize) -> Vec<Value> {
    let file = folder.join("received.jsonl");
    wait_for(&format!("{count} lines in {}", file.display()), RECEIVE_WAIT_MAX, || {
        let written = fs::read(&file).unwrap_or_default();
        // The last line may be half written.
        let complete = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = json_lines(&written[..complete]);
        if lines.len() >= count { Ok(lines) } else { Err(format!("{} so far", lines.len())) }
    })
}

/// One JSON value a line. rsyslog writes bytes that are no UTF-8 as they came, so they are replaced here.
fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Ports that nobody listens on, UDP and TCP, each given out once by this process.
///
/// Below the range that the system takes for outgoing connections, which could otherwise take one before the peer does.
fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin at different places.
    let begin = u16::try_from(id() % u32::from(PORTS)).expect("less than a u16");
    std::array::from_fn(|_| {
        (0..PORTS)
            .map(|_| FIRST_PORT + (begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed))) % PORTS)
            .find(|port| !is_taken(*port) && TcpListener::bind(loopback(*port)).is_ok())
            .expect("a free port among thousands")
    })
}

fn is_taken(udp: u16) -> bool {
    UdpSocket::bind(loopback(udp)).is_err()
}

fn accepts(tcp: u16) -> bool {
    TcpStream::connect_timeout(&loopback(tcp), ANSWER_WAIT_MAX).is_ok()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("verdict-relay-peer-")
        .tempdir()
        .expect("the folder for temporary files is writable")
}

/// The end of a log, enough to see why.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Ten times what the slowest of them, Kafka, needs on a busy machine with two cores.
const START_WAIT_MAX: Duration = Duration::from_mins(1);
/// Kafka takes a replica out of the set after 30 s by default.
const LAG_MAX: &str = "replica.lag.time.max.ms=2000";
/// Peers write at once; this is for a machine that is busy with other tests.
const RECEIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// A loopback peer answers in milliseconds or not at all.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const PROBE_PAUSE: Duration = Duration::from_millis(20);
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 18_000;
