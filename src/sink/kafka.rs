//! Apache Kafka: an idempotent producer that waits for all in-sync replicas.
//!
//! Invariants: an event is settled only when its delivery report says so; what no broker confirmed in time is unknown, so it is sent
//! again; permissions and topics stop the sink and never cost an event; log lines of the library hold no secret. Events of a subject keep
//! their order, also when they are sent again: one key is one partition, and nothing follows an event that failed. For that
//! - the producer ends at the first failure (`enable.gapless.guarantee`);
//! - no message times out by itself while a later one lives on: the sink gives up all of them at once;
//! - a broker that has nothing of this producer yet takes any sequence number, so also the second request where it refused the first: until
//!   each partition has taken something, an event waits for the one before it of the same subject.
//!
//! Not here: what an error means (`errors`), which options are accepted (`options`), resending one by one (`deliver`).

mod errors;
mod options;
mod reports;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::task::spawn_blocking;

use self::errors::{Class, class, stop};
pub use self::options::OptionValue;
use self::options::Options;
use self::reports::{Context, Failure, Next, Reports};
use super::{Batch, Render, Rendered, Settled, Sink, Stop, words_of_receiver};
use crate::event::{Event, Name, Position};
use crate::format::{Format, Style};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::Problem;
use crate::tls::ClientTlsConfig;

sink_config! {
    /// Apache Kafka and what speaks its protocol.
    pub struct KafkaConfig {
        /// Brokers to begin with, `host:port`; the others are found through them.
        pub brokers: Vec<String>,
        /// Topic for all events. It has to exist.
        pub topic: String,
        /// How an event is written.
        #[serde(default = "crate::sink::default_format")]
        pub format: Format,
        /// Options of librdkafka by name. A secret is written as a reference (`env:NAME`, `file:PATH`). What could lose events or switch verification off is refused.
        #[serde(default)]
        pub options: BTreeMap<String, OptionValue>,
        /// Reference to the token for SASL OAUTHBEARER: a file that something keeps fresh. It is read again before it runs out.
        pub token: Option<SecretRef>,
        /// TLS to the brokers; a table switches it on.
        pub tls: Option<ClientTlsConfig>,
    }
}

/// librdkafka makes its own batches of these.
pub(super) const BATCH: Batch = Batch { events_max: 500, bytes_max: 1 << 20, wait_max: Duration::from_millis(50) };

/// A valid config of a Kafka sink.
#[derive(Debug, Clone)]
pub struct KafkaPlan {
    brokers: String,
    topic: String,
    options: Options,
    token: Option<SecretRef>,
    format: Format,
}

impl KafkaConfig {
    pub(super) fn plan(self, key: &str) -> Result<KafkaPlan, Vec<Problem>> {
        let mut problems = Vec::new();
        let is_broker = |broker: &String| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains(['/', ',', ' ', '@'])
                    && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        };
        if self.brokers.is_empty() || !self.brokers.iter().all(is_broker) {
            problems
                .push(Problem::new(format!("{key}.brokers"), "name at least one as host:port, like [\"kafka:9092\"]"));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=249).contains(&self.topic.len()) || !self.topic.bytes().all(legal) {
            problems
                .push(Problem::new(format!("{key}.topic"), "a topic has 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"));
        }
        let mut sorted = options::sort(self.options, key).unwrap_or_else(|found| {
            problems.extend(found);
            Options::default()
        });
        if let Some(Err(error)) = self.token.as_ref().map(SecretRef::check) {
            problems.push(Problem::new(format!("{key}.token"), error.to_string()));
        }
        let protocol = if self.tls.is_some() { "sasl_ssl" } else { "sasl_plaintext" };
        problems.extend(sorted.add_sasl(self.token.is_some(), protocol, key));
        if let Some(tls) = self.tls {
            problems.extend(add_tls(&mut sorted.plain, tls, key));
        }
        let (brokers, topic, token) = (self.brokers.join(","), self.topic, self.token);
        let plan = KafkaPlan { brokers, topic, options: sorted, token, format: self.format };
        // The library knows its options best. Secrets are only known later; a stand-in shows that the option exists.
        if problems.is_empty()
            && let Err(error) = plan
                .client_config(|_| Some("stand-in".to_owned()))
                .and_then(|config| config.create_native_config().map_err(words))
        {
            problems.push(Problem::new(format!("{key}.options"), error));
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }
}

/// Says the TLS table in librdkafka's words.
fn add_tls(plain: &mut BTreeMap<String, String>, tls: ClientTlsConfig, key: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if tls.dangerous_skip_verify {
        problems.push(Problem::new(
            format!("{key}.tls.dangerous_skip_verify"),
            "the brokers' certificates are always verified; set `tls.ca` to the CA that signed them",
        ));
    }
    if tls.server_name.is_some() {
        problems.push(Problem::new(
            format!("{key}.tls.server_name"),
            "every broker is verified by its own name, as the cluster advertises it; remove it",
        ));
    }
    match tls.plan(&format!("{key}.tls")) {
        Ok(tls) => {
            let mut set =
                |name: &str, path: &std::path::Path| plain.insert(name.to_owned(), path.to_string_lossy().into_owned());
            if let Some(ca) = tls.ca() {
                set("ssl.ca.location", ca);
            }
            if let Some((certificate, private_key)) = tls.identity() {
                set("ssl.certificate.location", certificate);
                set("ssl.key.location", private_key);
            }
        }
        Err(found) => problems.extend(found),
    }
    let configured = plain.entry("security.protocol".to_owned()).or_insert_with(|| "ssl".to_owned());
    if !configured.to_ascii_lowercase().ends_with("ssl") {
        problems.push(Problem::new(
            format!("{key}.tls"),
            format!("security.protocol = \"{configured}\" has no TLS: remove one of the two"),
        ));
    }
    problems
}

impl KafkaPlan {
    pub(super) fn secrets(&self) -> Vec<SecretRef> {
        self.options.secret.values().chain(&self.token).cloned().collect()
    }

    pub(super) fn render(&self, style: Style) -> Render {
        let format = self.format;
        Box::new(move |event, out| format.render(event, &style, out))
    }

    pub(super) fn build(self, name: &Name, secrets: KeyRing) -> KafkaSink {
        KafkaSink {
            plan: self,
            name: name.clone(),
            secrets,
            live: None,
            next_number: 0,
            alone_until: None,
            taken: BTreeSet::new(),
        }
    }

    /// What the producer is made with; a secret that `value_of` does not have is an error that names it.
    fn client_config(&self, value_of: impl Fn(&SecretRef) -> Option<String>) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        for (name, value) in &self.options.plain {
            config.set(name, value);
        }
        for (name, reference) in &self.options.secret {
            let value = value_of(reference).ok_or_else(|| format!("{reference} of option {name} could not be read"))?;
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in ALWAYS {
            config.set(name, value);
        }
        Ok(config)
    }

    /// `application/json` unless the format is no JSON.
    fn content_type(&self) -> &'static str {
        if self.format.is_json() { "application/json" } else { "text/plain; charset=utf-8" }
    }

    /// How long a batch may be without the broker's word.
    fn give_up(&self) -> Duration {
        self.options.give_up.unwrap_or(GIVE_UP)
    }

    fn stop(&self, class: Class, words: &str) -> Stop {
        stop(class, words, &self.brokers, &self.topic)
    }
}

/// Apache Kafka.
pub(super) struct KafkaSink {
    plan: KafkaPlan,
    name: Name,
    secrets: KeyRing,
    live: Option<Live>,
    /// Number of the next message; never reused, so a late report of an earlier try is known as such.
    next_number: usize,
    /// Until this is settled, batches travel one at a time. A broker refuses all records that the library put together, so a
    /// refusal only means something for a batch that had no company; and a refusal that ended the producer may be told after that end.
    alone_until: Option<Position>,
    /// Events that a partition has, of batches that were not taken whole: they are not sent again.
    taken: BTreeSet<Position>,
}

struct Live {
    producer: Arc<ThreadedProducer<Context>>,
    reports: Arc<Reports>,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.connect().await?;
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        // After a refusal the producer has done its work, and nobody calls `open`.
        if self.live.as_ref().is_none_or(|live| live.reports.is_over()) {
            self.connect().await?;
        }
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let Some(live) = &self.live else { return Err(Stop::unavailable("the sink is not open")) };
        let until = Instant::now() + self.plan.give_up();
        // What is not handed over is not reported either: then `settled` says why.
        let is_over = || live.reports.has_failed() || Instant::now() >= until;
        let is_new = |rendered: &&Rendered| !self.taken.contains(&rendered.position);
        let subject = |rendered: &Rendered| rendered.event.finding.subject.key();
        let sent: Vec<_> = batch.iter().filter(is_new).map(|rendered| (rendered, subject(rendered))).collect();
        let numbers = self.next_number..;
        self.next_number += sent.len();
        // Registered before the first message leaves: its report may come at once.
        live.reports.expect(numbers.start, (first.position, last.position), &sent);
        for (number, (rendered, subject)) in numbers.zip(&sent) {
            while !is_over() && live.reports.must_wait(subject) {
                live.reports.wait_for_room().await;
            }
            while !is_over() {
                match produce(&live.producer, &self.plan, number, subject, rendered) {
                    Ok(()) => break,
                    // The library's queue is full: it empties with the next report.
                    Err(RDKafkaErrorCode::QueueFull) => live.reports.wait_for_room().await,
                    Err(code) => live.reports.refuse(rendered.position, code),
                }
            }
        }
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        let Some(live) = &self.live else { return std::future::pending().await };
        let failure = match live.reports.next(self.plan.give_up()).await {
            Next::Through(position) => {
                if self.alone_until.is_some_and(|until| until <= position) {
                    self.alone_until = None;
                }
                // What comes next lies behind it.
                self.taken = self.taken.split_off(&position);
                return Ok(Settled::Through(position));
            }
            Next::Failed(failure) => failure,
        };
        self.taken.extend(live.reports.end());
        let Failure { class, words, from, through, is_exact } = failure;
        match class {
            Class::Poison if self.alone_until.is_some() || is_exact => {
                Ok(Settled::Refused { from, through, suspect: None, reason: words })
            }
            Class::Poison => {
                self.alone_until = Some(through);
                Ok(Settled::Rewind(from))
            }
            class => {
                if class == Class::Fatal {
                    self.alone_until = self.alone_until.max(Some(through));
                }
                Err(self.plan.stop(class, &words))
            }
        }
    }

    async fn close(&mut self, grace: Duration) {
        let Some(live) = self.live.take() else { return };
        let flush = move || {
            if let Err(error) = live.producer.flush(grace) {
                tracing::info!("some events are sent to Kafka again after the restart ({error})");
            }
        };
        drop(spawn_blocking(flush).await);
    }

    fn in_flight_max(&self) -> usize {
        if self.alone_until.is_some() { 1 } else { IN_FLIGHT_MAX }
    }
}

impl KafkaSink {
    /// A new producer, and the topic found.
    async fn connect(&mut self) -> Result<(), Stop> {
        if let Some(live) = self.live.take() {
            // Purges what is queued, and waits for the library's threads.
            drop(spawn_blocking(move || drop(live)).await);
        }
        self.secrets.refresh().await;
        let live = self.start()?;
        let (producer, reports, topic) =
            (Arc::clone(&live.producer), Arc::clone(&live.reports), self.plan.topic.clone());
        self.live = Some(live);
        let found = spawn_blocking(move || find_topic(&producer, &reports, &topic)).await;
        found
            .unwrap_or_else(|_| Err((Class::Unknown, "the look-up of the topic failed".to_owned())))
            .map_err(|(class, words)| self.plan.stop(class, &words))
    }

    /// A new producer with the secrets as they are now.
    fn start(&self) -> Result<Live, Stop> {
        let keys = self.secrets.keys();
        let value_of = |reference: &SecretRef| {
            let key = keys.iter().find(|key| key.id == *reference)?;
            String::from_utf8(key.secret.expose().to_vec()).ok()
        };
        let config = self.plan.client_config(value_of).map_err(|words| self.plan.stop(Class::Unauthorized, &words))?;
        let reports = Arc::new(Reports::default());
        let (secrets, token) = (self.secrets.clone(), self.plan.token.clone());
        let context = Context { reports: Arc::clone(&reports), sink: self.name.clone(), secrets, token };
        let producer = config.create_with_context::<_, ThreadedProducer<_>>(context).map_err(|error| {
            let words = words(error);
            let class = if words.contains("ssl.") { Class::Tls } else { Class::Setup };
            self.plan.stop(class, &words)
        })?;
        Ok(Live { producer: Arc::new(producer), reports })
    }
}

/// Hands one message to the library, which copies it.
fn produce(
    producer: &ThreadedProducer<Context>,
    plan: &KafkaPlan,
    number: usize,
    key: &str,
    rendered: &Rendered,
) -> Result<(), RDKafkaErrorCode> {
    let headers = headers(&rendered.event, key, plan.content_type());
    let record = BaseRecord::with_opaque_to(&plan.topic, number).key(key).payload(&rendered.body).headers(headers);
    producer.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

/// CloudEvents 1.0, binary mode.
fn headers(event: &Event, key: &str, content_type: &str) -> OwnedHeaders {
    let (id, time) = (event.uid.to_string(), event.effective_at.to_string());
    let source = format!("/sources/{}", event.source);
    let all = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", &source),
        ("ce_type", event.code()),
        ("ce_subject", key),
        ("ce_time", &time),
        ("ce_partitionkey", key),
        ("content-type", content_type),
    ];
    let empty = OwnedHeaders::new_with_capacity(all.len());
    all.into_iter().fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Waits until the brokers know the topic, or say why we can't have it.
fn find_topic(producer: &ThreadedProducer<Context>, reports: &Reports, topic: &str) -> Result<(), (Class, String)> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        // In slices, to hear early of credentials or certificates that are refused.
        let outcome = match producer.client().fetch_metadata(Some(topic), OPEN_SLICE) {
            Ok(metadata) => {
                match metadata.topics().iter().find(|known| known.name() == topic).map(|known| (known, known.error())) {
                    Some((known, None)) => {
                        reports.begin(known.partitions().len());
                        return Ok(());
                    }
                    Some((_, Some(code))) => {
                        let code = RDKafkaErrorCode::from(code);
                        (class(code), code.to_string())
                    }
                    None => (Class::Setup, "the brokers do not know it".to_owned()),
                }
            }
            Err(error) => (error.rdkafka_error_code().map_or(Class::Unknown, class), words(error)),
        };
        if let Some(trouble) = reports.state().trouble.clone().filter(|(class, _)| *class >= Class::Tls) {
            return Err(trouble);
        }
        if outcome.0 != Class::Unknown {
            return Err(outcome);
        }
        if Instant::now() >= deadline {
            return Err(reports.state().trouble.clone().unwrap_or(outcome));
        }
    }
}

/// The library's words, without the values that some of its errors carry.
fn words(error: KafkaError) -> String {
    match error {
        // The last part is the value.
        KafkaError::ClientConfig(_, _, name, _) => format!("option {name} does not exist or does not take this value"),
        other => words_of_receiver(&other.to_string()),
    }
}

/// What is set unless the config says otherwise.
const DEFAULTS: [(&str, &str); 5] = [
    ("client.id", "verdict-relay"),
    // More than the batches in flight can hold.
    ("queue.buffering.max.messages", "50000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("linger.ms", "5"),
    ("socket.keepalive.enable", "true"),
];
/// What is set whatever the config says.
const ALWAYS: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // A message that failed ends the producer, so that none of the same key gets ahead of it.
    ("enable.gapless.guarantee", "true"),
    // None: a message that ends alone would be overtaken by its followers. The sink ends all of them.
    ("message.timeout.ms", "0"),
];
/// The store is the queue, not the library's memory: what is not delivered in a minute is sent again from there.
const GIVE_UP: Duration = Duration::from_mins(1);
/// Batches that overlap, so that the network's round trip does not show.
const IN_FLIGHT_MAX: usize = 4;
/// Longest wait for the brokers to tell of the topic.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const OPEN_SLICE: Duration = Duration::from_millis(500);
