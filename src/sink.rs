//! The port of the sinks: what a receiver of events has to do, and nothing about how; and the one list of all sinks.
//!
//! A sink sends batches and reports how far the receiver has taken them. It never sleeps, retries or drops: `deliver` decides
//! that, once for all sinks.
//!
//! Invariants: planning is pure (no I/O, no clock), so `check` stops there; building only puts parts together, every connection
//! is made by [`Sink::open`].
//!
//! Not here: what an event looks like (`format`), cursors and dead letters (`deliver`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::event::{Event, Name, Position, shorten};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::{Problem, Size, Span};

/// Declares the config of one sink: its own keys and those that every sink has.
///
/// A macro, because `flatten` and `deny_unknown_fields` do not mix in serde, and a typing error has to be told by name.
macro_rules! sink_config {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            /// Where a sink that is new begins: `now`, or `earliest` for all that the store still has.
            #[serde(default)]
            pub start: $crate::sink::Start,
            /// What happens to this sink's events when the store is full: `block` keeps them and refuses new deliveries,
            /// `dead_letter` sets this sink's oldest ones aside.
            #[serde(default)]
            pub on_full: $crate::sink::OnFull,
            /// How many events travel together.
            #[serde(default)]
            pub batch: $crate::sink::BatchConfig,
        }

        impl $name {
            /// The keys that every sink has.
            pub(in crate::sink) fn common(&self) -> $crate::sink::CommonConfig {
                $crate::sink::CommonConfig { start: self.start, on_full: self.on_full, batch: self.batch }
            }
        }
    };
}

pub mod file;
pub mod kafka;
pub mod splunk_hec;
pub mod syslog;

/// A sink as written in the config.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// Apache Kafka and what speaks its protocol.
    Kafka(kafka::KafkaConfig),
    /// Splunk's HTTP Event Collector.
    SplunkHec(splunk_hec::HecConfig),
    /// Syslog over UDP, TCP or TLS: QRadar, ArcSight, Sentinel, SC4S, rsyslog, syslog-ng.
    Syslog(syslog::SyslogConfig),
    /// One event a line, appended to a file.
    File(file::FileConfig),
    /// One event a line, on standard output.
    Console(file::ConsoleConfig),
}

impl SinkConfig {
    /// Validates everything that can be validated without I/O; `key` is the path in the config (`sinks.lake`).
    pub fn plan(self, key: &str) -> Result<SinkPlan, Vec<Problem>> {
        let (common, defaults) = match &self {
            Self::Kafka(config) => (config.common(), kafka::BATCH),
            Self::SplunkHec(config) => (config.common(), splunk_hec::BATCH),
            Self::Syslog(config) => (config.common(), syslog::BATCH),
            Self::File(config) => (config.common(), file::BATCH),
            Self::Console(config) => (config.common(), file::CONSOLE_BATCH),
        };
        let kind = match self {
            Self::Kafka(config) => config.plan(key).map(Kind::Kafka),
            Self::SplunkHec(config) => config.plan(key).map(Kind::SplunkHec),
            Self::Syslog(config) => config.plan(key).map(Kind::Syslog),
            Self::File(config) => config.plan(key).map(Kind::File),
            Self::Console(config) => Ok(Kind::Console(config.plan())),
        };
        match (kind, common.batch.plan(defaults, key)) {
            (Ok(kind), Ok(batch)) => Ok(SinkPlan { start: common.start, on_full: common.on_full, batch, kind }),
            (kind, batch) => Err(kind.err().into_iter().chain(batch.err()).flatten().collect()),
        }
    }
}

/// A sink whose config is valid.
#[derive(Debug, Clone)]
pub struct SinkPlan {
    /// Where it begins when it has no cursor yet.
    pub start: Start,
    /// What happens to its events when the store is full.
    pub on_full: OnFull,
    /// How many events travel together.
    pub batch: Batch,
    /// What it is.
    pub kind: Kind,
}

/// What a planned sink is: the list of all sinks.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Apache Kafka.
    Kafka(kafka::KafkaPlan),
    /// Splunk's HTTP Event Collector.
    SplunkHec(splunk_hec::HecPlan),
    /// Syslog.
    Syslog(syslog::SyslogPlan),
    /// A file.
    File(file::FilePlan),
    /// Standard output.
    Console(file::ConsolePlan),
}

impl SinkPlan {
    /// The secrets that it needs, for the ring that [`SinkPlan::build`] takes.
    pub fn secrets(&self) -> Vec<SecretRef> {
        match &self.kind {
            Kind::Kafka(plan) => plan.secrets(),
            Kind::SplunkHec(plan) => plan.secrets(),
            Kind::Syslog(_) | Kind::File(_) | Kind::Console(_) => Vec::new(),
        }
    }

    /// Puts the live sink together; nothing is connected before [`Sink::open`].
    pub fn build(self, name: &Name, secrets: KeyRing) -> Box<dyn Sink> {
        match self.kind {
            Kind::Kafka(plan) => Box::new(plan.build(name, secrets)),
            Kind::SplunkHec(plan) => Box::new(plan.build(name, secrets)),
            Kind::Syslog(plan) => Box::new(plan.build()),
            Kind::File(plan) => Box::new(plan.build()),
            Kind::Console(plan) => Box::new(plan.build()),
        }
    }
}

/// The keys that every sink has.
#[derive(Debug, Clone, Copy)]
struct CommonConfig {
    start: Start,
    on_full: OnFull,
    batch: BatchConfig,
}

/// Where a sink begins when it has no cursor yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the next event.
    #[default]
    Now,
    /// With the oldest event that the store still has.
    Earliest,
}

/// What happens to a sink's events when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// They stay, and new deliveries are refused with 503: nothing is lost.
    #[default]
    Block,
    /// The oldest ones become dead letters, so that one dead receiver does not stop the others.
    DeadLetter,
}

/// How many events travel together, as written; what is absent depends on the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Most events of a batch, 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub events_max: Option<u32>,
    /// Most bytes of a batch before compression, 1KiB to 16MiB. A larger single event travels alone.
    pub bytes_max: Option<Size>,
    /// Longest wait for a batch to fill, at most 1m.
    pub wait_max: Option<Span>,
}

impl BatchConfig {
    fn plan(self, defaults: Batch, key: &str) -> Result<Batch, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut check = |good: bool, name: &str, message: &str| {
            if !good {
                problems.push(Problem::new(format!("{key}.batch.{name}"), message));
            }
        };
        let events_max = self.events_max.map_or(defaults.events_max, |events| events as usize);
        check((1..=BATCH_EVENTS_MAX).contains(&events_max), "events_max", "use 1 to 10000");
        let bytes_max = self.bytes_max.map_or(defaults.bytes_max, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        check((1 << 10..=BATCH_BYTES_MAX).contains(&bytes_max), "bytes_max", "use \"1KiB\" to \"16MiB\"");
        let wait_max = self.wait_max.map_or(defaults.wait_max, |span| span.0);
        check(wait_max <= BATCH_WAIT_MAX, "wait_max", "use at most \"1m\": every event of a batch waits that long");
        if problems.is_empty() { Ok(Batch { events_max, bytes_max, wait_max }) } else { Err(problems) }
    }
}

/// How many events travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Most events; at least 1.
    pub events_max: usize,
    /// Most bytes of the rendered events together; a larger single event travels alone.
    pub bytes_max: usize,
    /// Longest wait for a batch to fill.
    pub wait_max: Duration,
}

/// A batch is rendered in memory, for each sink and each batch in flight.
const BATCH_EVENTS_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Beyond a minute a batch is a delay, not an economy.
const BATCH_WAIT_MAX: Duration = Duration::from_mins(1);

/// One event as the receiver gets it.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Where it stands; positions of a batch ascend.
    pub position: Position,
    /// The event, for what stands beside the body (Kafka's key and headers, HEC's time).
    pub event: Arc<Event>,
    /// The event in the sink's format, complete and within the sink's size budget.
    pub body: Vec<u8>,
}

/// A receiver of events.
#[async_trait]
pub trait Sink: Send {
    /// Connects, and forgets whatever was in flight. Called before the first `send` and again after a [`Stop`] or [`Settled::Rewind`].
    ///
    /// A sink that keeps its own cursor (exactly once) answers with it; every other one answers with `from`.
    async fn open(&mut self, from: Position) -> Result<Position, Stop>;

    /// Hands a batch over. It may return before the receiver has it: then the batch is in flight until `settled` speaks of it.
    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop>;

    /// Waits until the receiver has taken or refused something that is in flight.
    ///
    /// Cancel safe: dropping the future loses no answer. Waits for ever when nothing is in flight.
    async fn settled(&mut self) -> Result<Settled, Stop>;

    /// Takes leave: flushes what the protocol lets it flush, within `grace`. In-flight batches that are not settled by then are sent again after the restart.
    async fn close(&mut self, grace: Duration);

    /// Most batches in flight at once; at least 1.
    fn in_flight_max(&self) -> usize {
        1
    }
}

/// How far the receiver has taken what is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Everything up to and with this position.
    Through(Position),
    /// Uncertain from this position on (a connection was lost): it has to be sent again. Nothing is in flight any more.
    Rewind(Position),
    /// The receiver will never take something in this range of one batch. Nothing is in flight any more.
    ///
    /// `deliver` sends the range again in smaller parts, `suspect` alone, and dead-letters what is refused alone.
    Refused {
        /// First position of the refused batch.
        from: Position,
        /// Last position of the refused batch.
        through: Position,
        /// The event that the receiver named, if it named one.
        suspect: Option<Position>,
        /// The receiver's own words, at most 1 KiB.
        reason: String,
    },
}

/// Why a sink can't go on now. It waits for ever, each with its state; nothing is ever dropped for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Not reachable, overloaded or closed: `backoff`.
    #[error("{reason}")]
    Unavailable {
        /// How long the receiver asked us to wait.
        retry_after: Option<Duration>,
        /// What happened, in words.
        reason: String,
    },
    /// The receiver refused our credentials: `auth_failed`. Secrets are read again at each attempt.
    #[error("{reason}")]
    Unauthorized {
        /// What was refused and which secret to check.
        reason: String,
    },
    /// No trusted TLS connection: `tls_failed`.
    #[error("{reason}")]
    Tls {
        /// Which check failed and what to mend.
        reason: String,
    },
    /// The receiver or our config is set up wrongly (no such topic, index or channel): `paused`.
    #[error("{reason}")]
    Misconfigured {
        /// What to mend, and where.
        reason: String,
    },
}

impl Stop {
    /// Not reachable, overloaded or closed, without a word on when to come back.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { retry_after: None, reason: reason.into() }
    }

    /// The state that metrics and `sinks` show.
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "backoff",
            Self::Unauthorized { .. } => "auth_failed",
            Self::Tls { .. } => "tls_failed",
            Self::Misconfigured { .. } => "paused",
        }
    }
}

/// The receiver's own words within their bound of 1 KiB, and on one line: they go to logs, tables and dead letters.
fn words_of_receiver(text: &str) -> String {
    let mut words: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&mut words, WORDS_BYTES_MAX);
    words
}

/// The innermost cause of an error: the outer layers only say which layer they are.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Refuses the batch where an event holds a line's end: formats never write one, and a line protocol would make two events of it.
fn refused_for_line_end(batch: &[Rendered]) -> Option<Settled> {
    let torn = batch.iter().find(|rendered| rendered.body.contains(&b'\n'))?;
    Some(Settled::Refused {
        from: batch.first()?.position,
        through: batch.last()?.position,
        suspect: Some(torn.position),
        reason: "the rendered event holds a line's end, which would make two events of it".to_owned(),
    })
}

/// What [`Settled::Refused`] and [`Stop`] carry of a receiver's answer.
const WORDS_BYTES_MAX: usize = 1024;

/// What the tests of the sinks share.
#[cfg(test)]
mod testing {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Activity, Auth, Finding, Hash, Standing, Subject, Verdict};

    /// An event at a position; its subject is a file whose SHA-256 repeats the position.
    pub(super) fn rendered(position: u64, body: &str) -> Rendered {
        let digit = u8::try_from(position % 256).expect("is below 256");
        let subject = Subject::file(Some(Hash([digit; 32])), None, None).expect("has a hash");
        let event = Event {
            uid: Hash([digit; 16]),
            source: "portal".parse().expect("a name"),
            provider: "Portal".to_owned(),
            auth: Auth::Signature,
            received_at: Timestamp::UNIX_EPOCH,
            effective_at: Timestamp::UNIX_EPOCH,
            clock_suspect: false,
            raw_sha256: Hash([0; 32]),
            raw_size: 2,
            finding: Finding::new(subject, Verdict::Malicious),
            activity: Activity::Create,
            standing: Standing::Latest,
            previous: None,
            replay: false,
        };
        Rendered { position: Position(position), event: Arc::new(event), body: body.as_bytes().to_vec() }
    }

    pub(super) fn batch(events: &[(u64, &str)]) -> Vec<Rendered> {
        events.iter().map(|(position, body)| rendered(*position, body)).collect()
    }

    /// A secret in a file of `folder`, and the reference to it.
    pub(super) fn secret(folder: &std::path::Path, name: &str, value: &str) -> SecretRef {
        let path = folder.join(name);
        std::fs::write(&path, value).expect("writes");
        SecretRef(format!("file:{}", path.display()))
    }

    /// The live values of some references.
    pub(super) async fn ring(references: Vec<SecretRef>) -> KeyRing {
        KeyRing::open(references, true, Timestamp::UNIX_EPOCH).await
    }

    /// A folder with certificates made by the `openssl` program: `ca`, `server` (localhost, 127.0.0.1), `client`, and `rogue`, whose CA nobody trusts.
    pub(super) fn certificates() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/certs.sh");
        let made = std::process::Command::new("bash").arg(script).arg(folder.path()).output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    }
}
