//! The servers that are measured: each a process of its own with a new store, started, watched through `/proc`, and ended.
//!
//! Invariant: a process that was started here is ended here, also when the bench gives up.
//!
//! Not here: the load (`generator`), the table (`report`).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::arrivals::{Arrivals, Protocol, Receiver};
use crate::handler::{self, Handler};
use crate::kafka::Topic;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    Bare,
    Proof,
    Ceiling,
    Receive,
    File,
    Console,
    Syslog,
    Hec,
    Kafka,
}

impl Subject {
    /// As the table calls it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare handler",
            Self::Proof => "bare + proof",
            Self::Ceiling => "bare + proof + JSON tree + group sync",
            Self::Receive => "--roles receive",
            Self::File => "all roles, to a file",
            Self::Console => "all roles, to the console",
            Self::Syslog => "all roles, to syslog (TCP)",
            Self::Hec => "all roles, to Splunk HEC",
            Self::Kafka => "all roles, to Kafka",
        }
    }

    /// Whether it forgets what it has seen, so that the same deliveries can be sent again.
    pub(crate) const fn is_stateless(self) -> bool {
        matches!(self, Self::Bare | Self::Proof)
    }

    /// Whether events leave it again.
    pub(crate) const fn delivers(self) -> bool {
        self.handler().is_none() && !matches!(self, Self::Receive)
    }

    const fn handler(self) -> Option<Handler> {
        match self {
            Self::Bare => Some(Handler::Bare),
            Self::Proof => Some(Handler::Proof),
            Self::Ceiling => Some(Handler::Ceiling),
            _ => None,
        }
    }
}

/// What every start has in common.
pub(crate) struct Site {
    /// Where the stores go: the disk that is measured.
    pub(crate) folder: PathBuf,
    /// Brokers, if there are any.
    pub(crate) kafka: Option<String>,
    /// The secret as a source is given it.
    pub(crate) secret: String,
}

/// A running server.
pub(crate) struct Server {
    subject: Subject,
    child: Child,
    folder: TempDir,
    /// Where deliveries go.
    pub(crate) address: SocketAddr,
    api: SocketAddr,
    receiver: Option<Receiver>,
    topic: Option<Topic>,
}

impl Server {
    /// Starts it and waits until it takes deliveries.
    pub(crate) fn start(subject: Subject, site: &Site) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("load-").tempdir_in(&site.folder)?;
        let (address, api) = (free_address()?, free_address()?);
        let protocol = match subject {
            Subject::Syslog => Some(Protocol::Syslog),
            Subject::Hec => Some(Protocol::Hec),
            _ => None,
        };
        let receiver = protocol.map(|protocol| Receiver::start(protocol, folder.path())).transpose()?;
        let topic = match (subject, &site.kafka) {
            (Subject::Kafka, Some(brokers)) => Some(Topic::create(brokers)?),
            _ => None,
        };
        let mut command = if let Some(handler) = subject.handler() {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--handler", handler_word(handler), "--listen", &address.to_string(), "--folder"]);
            command.arg(folder.path());
            command
        } else {
            let config = folder.path().join("verdict-relay.toml");
            let sink = sink_config(subject, folder.path(), receiver.as_ref(), topic.as_ref());
            fs::write(&config, service_config(address, api, folder.path()) + &sink)?;
            let mut command = Command::new(env!("CARGO_BIN_EXE_verdict-relay"));
            command.arg("--config").arg(config).arg("serve");
            if subject == Subject::Receive {
                command.args(["--roles", "receive"]);
            }
            command
        };
        command.env(SECRET_VARIABLE, &site.secret).env(TOKEN_VARIABLE, "8f0d3c5e-0000-4000-8000-000000000001");
        command.stdin(Stdio::null());
        command.stdout(File::create(folder.path().join("stdout"))?).stderr(File::create(folder.path().join("stderr"))?);
        let child = command.spawn().with_context(|| format!("cannot start \"{}\"", subject.title()))?;
        let mut server = Self { subject, child, folder, address, api, receiver, topic };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let ready = match self.subject.handler() {
                Some(_) => TcpStream::connect(self.address).is_ok(),
                None => get(self.address, "/readyz").is_ok_and(|(status, _)| status == 200),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("\"{}\" ended at its start ({status}):\n{}", self.subject.title(), self.last_words());
            }
            if began.elapsed() > START_MAX {
                bail!("\"{}\" is not ready after {START_MAX:?}:\n{}", self.subject.title(), self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(self.folder.path().join("stderr")).unwrap_or_default();
        let end = log.len().saturating_sub(3_000);
        String::from_utf8_lossy(&log[end..]).into_owned()
    }

    /// Processor time of the process so far, user and system, all threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Resident memory now and at its peak, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib: u64 = line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok())?;
            Some(kib << 10)
        };
        Ok((field("VmRSS:").context("no VmRSS")?, field("VmHWM:").context("no VmHWM")?))
    }

    /// Waits until the sink has settled this many events.
    pub(crate) fn wait_until_settled(&self, events: usize, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let (status, metrics) = get(self.api, "/metrics")?;
            if status != 200 {
                bail!("/metrics answered {status}");
            }
            let settled = sum_of(&metrics, "verdict_relay_sink_events_total{");
            if settled >= events as f64 && sum_of(&metrics, "verdict_relay_sink_pending_events{") == 0.0 {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("after {limit:?} the sink has settled {settled} of {events} events:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it in an orderly way, then looks at what arrived; none where nothing is kept.
    pub(crate) fn finish(mut self) -> anyhow::Result<Option<Arrivals>> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("cannot end the server")?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > STOP_MAX {
                bail!(
                    "\"{}\" does not end within {STOP_MAX:?} of SIGTERM:\n{}",
                    self.subject.title(),
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut arrivals = Arrivals::default();
        let path = self.folder.path();
        match self.subject {
            Subject::Bare | Subject::Proof => return Ok(None),
            Subject::Ceiling => read_journal(path, &mut arrivals)?,
            Subject::Receive => read_journal(&path.join("data/journal"), &mut arrivals)?,
            Subject::File => arrivals.read(File::open(path.join("events"))?)?,
            Subject::Console => arrivals.read(File::open(path.join("stdout"))?)?,
            Subject::Syslog | Subject::Hec => {
                arrivals = self.receiver.take().context("this subject has a receiver")?.finish()?;
            }
            Subject::Kafka => arrivals = self.topic.take().context("this subject has a topic")?.read()?,
        }
        Ok(Some(arrivals))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After an orderly end both do nothing; otherwise there is nobody to tell.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Processor time of a process so far, user and system, all threads.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything; after it come state, and 11 numbers on utime and stime.
    let (_, fields) = stat.rsplit_once(") ").context("no process name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Counts what a journal keeps, after its process ended.
fn read_journal(folder: &Path, arrivals: &mut Arrivals) -> anyhow::Result<()> {
    let journal = handler::open_journal(folder)?;
    let mut reader = journal.reader(0);
    loop {
        let (records, _) = reader.read(1000, 16 << 20)?;
        if records.is_empty() {
            return Ok(());
        }
        for record in &records {
            arrivals.look(&record.stored);
        }
    }
}

const fn handler_word(handler: Handler) -> &'static str {
    match handler {
        Handler::Bare => "bare",
        Handler::Proof => "proof",
        Handler::Ceiling => "ceiling",
    }
}

fn service_config(address: SocketAddr, api: SocketAddr, folder: &Path) -> String {
    let verify = format!(
        "{{ scheme = \"hmac\", preset = \"standard-webhooks\", secrets = [\"{}\"], tolerance = \"1h\" }}",
        handler::SECRET_REFERENCE
    );
    let source = |adapter| format!("[sources.{adapter}]\nadapter = \"{adapter}\"\nverify = {verify}\n");
    [
        format!("[receiver]\nlisten = \"{address}\"\n[api]\nlisten = \"{api}\"\n"),
        format!("[store]\npath = {}\n", quoted(&folder.join("data"))),
        source("virustotal"),
        source("vileanalyziz"),
    ]
    .concat()
}

/// A path as a literal string of TOML.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

fn sink_config(subject: Subject, folder: &Path, receiver: Option<&Receiver>, topic: Option<&Topic>) -> String {
    let address = receiver.map(|receiver| receiver.address.to_string()).unwrap_or_default();
    let settings = match subject {
        Subject::Console => "type = \"console\"\nformat = \"ocsf\"".to_owned(),
        // The time of the resend window is no work: what is measured is the way of the last event to the receiver's kernel.
        Subject::Syslog => format!(
            "type = \"syslog\"\nprofile = \"qradar\"\naddress = \"tcp://{address}\"\nresend = {{ time = \"0s\" }}"
        ),
        Subject::Hec => format!(
            "type = \"splunk_hec\"\nendpoints = [\"http://{address}\"]\ntokens = [\"env:{TOKEN_VARIABLE}\"]\nacks = \"off\""
        ),
        Subject::Kafka => topic.map(Topic::sink_config).unwrap_or_default(),
        _ => format!("type = \"file\"\npath = {}\nformat = \"ocsf\"", quoted(&folder.join("events"))),
    };
    format!("[sinks.out]\n{settings}\nstart = \"earliest\"\n")
}

/// An address that nobody listens on. Another process could take it before ours does; then the start fails with its words.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Status and body of a small answer.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).context("no status line")?.parse()?;
    Ok((status, answer))
}

/// The sum of all series that begin like this.
fn sum_of(metrics: &str, series: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The variable behind [`handler::SECRET_REFERENCE`].
pub(crate) const SECRET_VARIABLE: &str = "LOAD_SECRET";
const TOKEN_VARIABLE: &str = "LOAD_TOKEN";
/// `USER_HZ` is 100 on every architecture that this is built for.
const TICK_MS: u64 = 10;
const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(5);
