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
use crate::format::{Format, Style};
use crate::route::{Route, RouteConfig};
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
            /// Which events it gets; all by default.
            #[serde(default, rename = "where")]
            pub route: $crate::route::RouteConfig,
        }

        impl $name {
            /// The keys that every sink has.
            pub(in crate::sink) fn common(&self) -> $crate::sink::CommonConfig {
                let (start, on_full, batch) = (self.start, self.on_full, self.batch);
                $crate::sink::CommonConfig { start, on_full, batch, route: self.route.clone() }
            }
        }
    };
}

pub mod file;
pub mod http;
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
    /// Any HTTP receiver: a signed webhook for each event, or QRadar's HTTP Receiver.
    Http(http::HttpConfig),
    /// One event a line, appended to a file.
    File(file::FileConfig),
    /// One event a line, on standard output.
    Console(file::ConsoleConfig),
}

impl SinkConfig {
    /// Validates everything that can be validated without I/O; `key` is the path in the config (`sinks.lake`), `sources` are all that there are.
    pub fn plan(self, key: &str, sources: &[Name]) -> Result<SinkPlan, Vec<Problem>> {
        let (common, defaults) = match &self {
            Self::Kafka(config) => (config.common(), kafka::BATCH),
            Self::SplunkHec(config) => (config.common(), splunk_hec::BATCH),
            Self::Syslog(config) => (config.common(), syslog::BATCH),
            Self::Http(config) => (config.common(), http::BATCH),
            Self::File(config) => (config.common(), file::BATCH),
            Self::Console(config) => (config.common(), file::CONSOLE_BATCH),
        };
        let kind = match self {
            Self::Kafka(config) => config.plan(key).map(Kind::Kafka),
            Self::SplunkHec(config) => config.plan(key).map(Kind::SplunkHec),
            Self::Syslog(config) => config.plan(key).map(Kind::Syslog),
            Self::Http(config) => config.plan(key).map(Kind::Http),
            Self::File(config) => config.plan(key).map(Kind::File),
            Self::Console(config) => Ok(Kind::Console(config.plan())),
        };
        let route = common.route.plan(&format!("{key}.where"), sources);
        let kind = match common.on_full {
            OnFull::Block => kind,
            OnFull::DeadLetter => {
                let words =
                    "setting a sink's events aside when the store is full is planned and not built yet: use \"block\"";
                Err(kind.err().into_iter().flatten().chain([Problem::new(format!("{key}.on_full"), words)]).collect())
            }
        };
        match (kind, common.batch.plan(defaults, key), route) {
            (Ok(kind), Ok(batch), Ok(route)) => Ok(SinkPlan { start: common.start, batch, route, kind }),
            (kind, batch, route) => {
                Err(kind.err().into_iter().chain(batch.err()).chain(route.err()).flatten().collect())
            }
        }
    }
}

/// A sink whose config is valid.
#[derive(Debug, Clone)]
pub struct SinkPlan {
    /// Where it begins when it has no cursor yet.
    pub start: Start,
    /// How many events travel together.
    pub batch: Batch,
    /// Which events it gets.
    pub route: Route,
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
    /// Any HTTP receiver.
    Http(http::HttpPlan),
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
            Kind::Http(plan) => plan.secrets(),
            Kind::Syslog(_) | Kind::File(_) | Kind::Console(_) => Vec::new(),
        }
    }

    /// How an event is written for this sink. `style` is ours, unless the sink has a host name of its own.
    pub fn render(&self, style: Style) -> Render {
        match &self.kind {
            Kind::Kafka(plan) => plan.render(style),
            Kind::SplunkHec(plan) => plan.render(style),
            Kind::Syslog(plan) => plan.render(style),
            Kind::Http(plan) => plan.render(style),
            Kind::File(plan) => plan.render(style),
            Kind::Console(plan) => plan.render(style),
        }
    }

    /// Puts the live sink together; nothing is connected before [`Sink::open`].
    pub fn build(self, name: &Name, secrets: KeyRing) -> Box<dyn Sink> {
        match self.kind {
            Kind::Kafka(plan) => Box::new(plan.build(name, secrets)),
            Kind::SplunkHec(plan) => Box::new(plan.build(name, secrets)),
            Kind::Syslog(plan) => Box::new(plan.build()),
            Kind::Http(plan) => Box::new(plan.build(name, secrets)),
            Kind::File(plan) => Box::new(plan.build()),
            Kind::Console(plan) => Box::new(plan.build()),
        }
    }
}

/// Appends an event as its receiver gets it, complete and within the receiver's budget.
pub type Render = Box<dyn Fn(&Event, &mut Vec<u8>) + Send>;

/// The format of a sink whose config names none.
const fn default_format() -> Format {
    Format::Ocsf
}

/// The keys that every sink has.
#[derive(Debug, Clone)]
struct CommonConfig {
    start: Start,
    on_full: OnFull,
    batch: BatchConfig,
    route: RouteConfig,
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
    /// What is sent again after it need not go over the wire again, where the sink still learns what became of the first time.
    ///
    /// A sink that keeps its own cursor (exactly once) answers with it; every other one answers with `from`.
    async fn open(&mut self, from: Position) -> Result<Position, Stop>;

    /// Hands a batch over. It may return before the receiver has it: then the batch is in flight until `settled` speaks of it.
    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop>;

    /// Waits until the receiver has taken or refused the oldest batch in flight: one answer for each batch, in order. [`Settled::Alive`]
    /// and [`Settled::Silent`] may come at any time besides.
    ///
    /// Cancel safe: dropping the future loses no answer. Waits for ever when nothing is in flight.
    async fn settled(&mut self) -> Result<Settled, Stop>;

    /// Whether the receiver can be reached and would take our events, without sending one: for `check --online`.
    async fn probe(&mut self) -> Result<(), Stop> {
        self.open(Position::default()).await.map(drop)
    }

    /// No batch follows any more: does what lets `settled` tell of those in flight soon.
    async fn finish(&mut self) {}

    /// Waits until something changed that may mend the last [`Stop`], like a new value of a secret that was refused; for ever where nothing is
    /// known to. Then the next try need not wait any longer. Cancel safe.
    async fn mended(&mut self) {
        std::future::pending::<()>().await;
    }

    /// Takes leave: flushes what the protocol lets it flush, within `grace`. In-flight batches that are not settled by then are sent again after the restart.
    async fn close(&mut self, grace: Duration);

    /// Most batches in flight at once; at least 1.
    fn in_flight_max(&self) -> usize {
        1
    }

    /// Most bytes of the next batch, where the receiver was seen to take less than the config allows. One event always travels.
    fn batch_bytes_max(&self) -> usize {
        usize::MAX
    }
}

/// How far the receiver has taken what is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Everything up to and with this position.
    Through(Position),
    /// Nothing is settled yet, but the receiver takes what is sent: the sink is well.
    Alive,
    /// Nothing is settled and nothing has to be sent again, but the receiver owes its word for too long: `backoff` until it settles something.
    Silent {
        /// What is missing, and for how long.
        reason: String,
    },
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
    // Looks at every byte where the first line's end would do, so that the compiler can compare many at once.
    let is_torn = |body: &[u8]| body.iter().fold(0, |found, &b| found | u8::from(b == b'\n')) != 0;
    let torn = batch.iter().find(|rendered| is_torn(&rendered.body))?;
    Some(Settled::Refused {
        from: batch.first()?.position,
        through: batch.last()?.position,
        suspect: Some(torn.position),
        reason: "the rendered event holds a line's end, which would make two events of it".to_owned(),
    })
}

/// What [`Settled::Refused`] and [`Stop`] carry of a receiver's answer.
const WORDS_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<SinkConfig, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    const ONE_OF_EACH: [&str; 7] = [
        r#"type = "kafka"
           brokers = ["localhost:9092"]
           topic = "verdicts"
           format = "ocsf"
           options = { "compression.type" = "zstd", "linger.ms" = 5, "sasl.password" = "env:KAFKA_PASSWORD" }"#,
        r#"type = "splunk_hec"
           endpoints = ["https://splunk:8088"]
           tokens = ["env:HEC_TOKEN", "env:HEC_TOKEN_NEXT"]
           acks = "auto"
           index = "security"
           batch = { events_max = 500, bytes_max = "1MiB", wait_max = "1s" }
           tls = { ca = "splunk-ca.pem" }"#,
        r#"type = "syslog"
           profile = "qradar"
           address = "tls://qradar:6514"
           hostname = "verdict-relay"
           where = { name = "soc", verdicts = ["malicious", "suspicious"] }"#,
        r#"type = "file"
           path = "verdicts.ndjson"
           format = "ocsf"
           start = "earliest"
           on_full = "block""#,
        r#"type = "console""#,
        r#"type = "http"
           url = "https://soar.example.com/hooks"
           secrets = ["env:SOAR_SECRET", "env:SOAR_SECRET_NEXT"]
           token = "env:SOAR_TOKEN"
           token_header = "X-API-Key"
           in_flight_max = 4"#,
        r#"type = "http"
           profile = "qradar-http"
           url = "https://qradar:12469"
           hostname = "verdict-relay"
           size_max = "8KiB""#,
    ];

    #[test]
    fn the_sinks_of_the_handbook_are_valid() {
        let plans = ONE_OF_EACH.map(|toml| parse(toml).expect("is a config").plan("sinks.x", &[]).expect("is valid"));
        assert_eq!(plans[0].secrets(), [SecretRef("env:KAFKA_PASSWORD".to_owned())]);
        assert_eq!(plans[1].secrets().len(), 2);
        assert_eq!(plans[1].batch, splunk_hec::BATCH);
        assert_eq!(plans[3].start, Start::Earliest);
        assert_eq!(plans[4].start, Start::Now);
        assert_eq!((plans[5].secrets().len(), plans[6].secrets().len()), (3, 0));
    }

    #[test]
    fn every_valid_sink_fits_the_schema_and_a_misspelt_one_does_not() {
        let schema = serde_json::to_value(schemars::schema_for!(SinkConfig)).expect("is JSON");
        let validator = jsonschema::validator_for(&schema).expect("is a schema");
        for sink in ONE_OF_EACH {
            let mut json: serde_json::Value = toml::from_str(sink).expect("is TOML");
            if let Some(error) = validator.iter_errors(&json).next() {
                panic!("{sink}: {error}");
            }
            json["bach"] = serde_json::json!({});
            assert!(!validator.is_valid(&json), "{sink}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_the_known_ones() {
        for (toml, words) in [
            ("type = \"file\"\npath = \"x\"\nbach = 1", ["unknown field `bach`", "`batch`"]),
            ("type = \"file\"\npath = \"x\"\nbatch = { events = 1 }", ["unknown field `events`", "`events_max`"]),
            ("type = \"splunk\"", ["unknown variant `splunk`", "`splunk_hec`"]),
        ] {
            let error = parse(toml).expect_err(toml);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_batch_has_bounds_and_all_mistakes_are_told_at_once() {
        let toml = r#"type = "file"
            path = "/"
            batch = { events_max = 0, bytes_max = "1GiB", wait_max = "2m" }"#;
        let problems = parse(toml).expect("is a config").plan("sinks.x", &[]).expect_err("four mistakes");
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        let batch = ["sinks.x.batch.events_max", "sinks.x.batch.bytes_max", "sinks.x.batch.wait_max"];
        assert_eq!(keys, [&["sinks.x.path"][..], &batch].concat());
    }

    #[test]
    fn a_number_from_the_environment_counts_as_one() {
        let variables = [
            ("VERDICT_RELAY__SINKS__X__TYPE", "file"),
            ("VERDICT_RELAY__SINKS__X__PATH", "x.ndjson"),
            ("VERDICT_RELAY__SINKS__X__BATCH__EVENTS_MAX", "7"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = config::Environment::with_prefix("VERDICT_RELAY")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .source(Some(variables.into_iter().collect()));
        let layered = config::Config::builder().add_source(environment).build().expect("builds");
        let sink: SinkConfig = layered.get("sinks.x").expect("is a sink");
        assert_eq!(sink.plan("sinks.x", &[]).expect("is valid").batch.events_max, 7);
    }
}

/// What the tests of the sinks share.
#[cfg(test)]
mod testing {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Hash, SubjectId, Verdict, sample};

    /// An event at a position; its uid and its subject repeat the position.
    pub(super) fn rendered(position: u64, body: &str) -> Rendered {
        let digit = u8::try_from(position % 256).expect("is below 256");
        let mut event = sample::bare(SubjectId::Sha256(Hash([digit; 32])), Verdict::Malicious);
        event.uid = Hash([digit; 16]);
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

    /// A TLS server with the certificate `server` of [`certificates`]; asks for one of the same CA if `wants_client`.
    pub(super) fn acceptor(folder: &std::path::Path, wants_client: bool) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        let pem = |name: &str| CertificateDer::from_pem_file(folder.join(name)).expect("is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites");
        let builder = if wants_client {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(pem("ca.pem")).expect("is a CA");
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("has a root"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("is a key");
        let config = builder.with_single_cert(vec![pem("server.pem")], key).expect("belong together");
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}
