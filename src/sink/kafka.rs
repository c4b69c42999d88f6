//! Apache Kafka: an idempotent producer that waits for all in-sync replicas.
//!
//! Invariants: an event is settled only when its delivery report says so; a report that says "timed out" means unknown, so the event
//! is sent again; permissions and topics stop the sink and never cost an event; events of a subject keep their order (one
//! key, one partition, idempotence); log lines of the library hold no secret.
//!
//! Not here: what an error means (`errors`), which options are accepted (`options`), resending one by one (`deliver`).

mod errors;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use self::errors::{Class, class, stop};
pub use self::options::OptionValue;
use self::options::Options;
use super::{Batch, Render, Rendered, Settled, Sink, Stop, words_of_receiver};
use crate::event::{Event, Name, Position};
use crate::format::{Format, Style};
use crate::secret::{KeyRing, Secret, SecretRef};
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
        if let Some(tls) = self.tls {
            problems.extend(add_tls(&mut sorted.plain, tls, key));
        }
        let plan =
            KafkaPlan { brokers: self.brokers.join(","), topic: self.topic, options: sorted, format: self.format };
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
    let has_sasl = plain.keys().any(|name| name.starts_with("sasl."));
    let protocol = if has_sasl { "sasl_ssl" } else { "ssl" };
    let configured = plain.entry("security.protocol".to_owned()).or_insert_with(|| protocol.to_owned());
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
        self.options.secret.values().cloned().collect()
    }

    pub(super) fn render(&self, style: Style) -> Render {
        let format = self.format;
        Box::new(move |event, out| format.render(event, &style, out))
    }

    pub(super) fn build(self, name: &Name, secrets: KeyRing) -> KafkaSink {
        KafkaSink { plan: self, name: name.clone(), secrets, live: None, next_number: 0, alone_until: None }
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
        config.set("bootstrap.servers", &self.brokers).set("enable.idempotence", "true").set("acks", "all");
        Ok(config)
    }

    /// `application/json` unless the format is no JSON.
    fn content_type(&self) -> &'static str {
        if self.format.is_json() { "application/json" } else { "text/plain; charset=utf-8" }
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
    /// refusal only means something for a batch that had no company.
    alone_until: Option<Position>,
}

struct Live {
    producer: Arc<ThreadedProducer<Context>>,
    reports: Arc<Reports>,
}

#[async_trait]
impl Sink for KafkaSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        if let Some(live) = self.live.take() {
            // Purges what is queued, and waits for the library's threads.
            drop(spawn_blocking(move || drop(live)).await);
        }
        let live = self.start()?;
        let (producer, reports, topic) =
            (Arc::clone(&live.producer), Arc::clone(&live.reports), self.plan.topic.clone());
        self.live = Some(live);
        let found = spawn_blocking(move || find_topic(&producer, &reports, &topic)).await;
        match found.unwrap_or_else(|_| Err((Class::Unknown, "the look-up of the topic failed".to_owned()))) {
            Ok(()) => Ok(from),
            Err((class, words)) => Err(self.plan.stop(class, &words)),
        }
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let Some(live) = &self.live else { return Err(Stop::unavailable("the sink is not open")) };
        let first = self.next_number;
        self.next_number += batch.len();
        // Registered before the first message leaves: its report may come at once.
        live.reports.expect(first, batch);
        for (number, rendered) in (first..).zip(batch) {
            loop {
                match produce(&live.producer, &self.plan, number, rendered) {
                    Ok(()) => break,
                    // The library's queue is full: it empties with the next report, at the latest when messages time out.
                    Err(RDKafkaErrorCode::QueueFull) => live.reports.wait_for_room().await,
                    Err(code) => {
                        live.reports.take(number, Some(code));
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        let Some(live) = &self.live else { return std::future::pending().await };
        let answer = match live.reports.next().await {
            Next::Flight(flight) => flight.conclude(&live.reports, &self.plan),
            Next::Refused(class, words) => Err(self.plan.stop(class, &words)),
        };
        if !matches!(answer, Ok(Settled::Through(_))) {
            // Nothing is in flight any more: reports that come late mean nothing.
            live.reports.forget();
        }
        match (&answer, self.alone_until) {
            (Ok(Settled::Through(position)), Some(until)) if *position >= until => self.alone_until = None,
            (Ok(Settled::Refused { from, through, .. }), None) => {
                self.alone_until = Some(*through);
                return Ok(Settled::Rewind(*from));
            }
            _ => {}
        }
        answer
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
    /// A new producer with the secrets as they are now.
    fn start(&self) -> Result<Live, Stop> {
        let keys = self.secrets.keys();
        let value_of = |reference: &SecretRef| {
            let key = keys.iter().find(|key| key.id == *reference)?;
            String::from_utf8(key.secret.expose().to_vec()).ok()
        };
        let config = self.plan.client_config(value_of).map_err(|words| self.plan.stop(Class::Unauthorized, &words))?;
        let reports = Arc::new(Reports::default());
        let hidden = keys.iter().map(|key| Secret::new(key.secret.expose().to_vec())).collect();
        let context = Context { reports: Arc::clone(&reports), sink: self.name.clone(), hidden };
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
    rendered: &Rendered,
) -> Result<(), RDKafkaErrorCode> {
    let key = rendered.event.finding.subject.key();
    let headers = headers(&rendered.event, &key, plan.content_type());
    let record = BaseRecord::with_opaque_to(&plan.topic, number).key(&key).payload(&rendered.body).headers(headers);
    producer.send(record).map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

/// CloudEvents 1.0, binary mode.
fn headers(event: &Event, key: &str, content_type: &str) -> OwnedHeaders {
    let (id, time) = (event.uid.to_string(), event.effective_at.to_string());
    let (source, kind) = (format!("/sources/{}", event.source), format!("verdict.{}", event.finding.verdict));
    let all = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", &source),
        ("ce_type", &kind),
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
                match metadata.topics().iter().find(|known| known.name() == topic).map(MetadataTopic::error) {
                    Some(None) => return Ok(()),
                    Some(Some(code)) => {
                        let code = RDKafkaErrorCode::from(code);
                        (class(code), code.to_string())
                    }
                    None => (Class::Setup, "the brokers do not know it".to_owned()),
                }
            }
            Err(error) => (error.rdkafka_error_code().map_or(Class::Unknown, class), words(error)),
        };
        if let Some(trouble) = reports.state().trouble.clone().filter(|(class, _)| *class > Class::Fatal) {
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

/// What the library calls back; it runs on the library's thread.
struct Context {
    reports: Arc<Reports>,
    sink: Name,
    /// Values that no log line may hold.
    hidden: Vec<Secret>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = self.without_secrets(line);
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(sink = %self.sink, facility, "kafka client: {line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(sink = %self.sink, facility, "kafka client: {line}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let class = error.rdkafka_error_code().map_or(Class::Unknown, class);
        let reason = words_of_receiver(&self.without_secrets(reason));
        tracing::debug!(sink = %self.sink, "kafka client: {reason}");
        self.reports.trouble(class, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        let failure =
            report.as_ref().err().map(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
        self.reports.take(number, failure);
    }
}

impl Context {
    fn without_secrets(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in &self.hidden {
            if let Ok(value) = std::str::from_utf8(secret.expose())
                && !value.is_empty()
                && line.contains(value)
            {
                line = line.replace(value, "[redacted]");
            }
        }
        line
    }
}

/// Delivery reports of one producer.
#[derive(Default)]
struct Reports {
    state: Mutex<ReportState>,
    /// A batch is complete, or there is trouble that concerns all.
    complete: Notify,
    /// A message left the library's queue.
    room: Notify,
}

#[derive(Default)]
struct ReportState {
    flights: VecDeque<Flight>,
    /// The last thing that the library said about connections.
    trouble: Option<(Class, String)>,
}

/// A batch in flight.
struct Flight {
    first_number: usize,
    positions: Vec<Position>,
    /// How many reports are still to come.
    open: usize,
    /// Index and error of what failed.
    failures: Vec<(usize, RDKafkaErrorCode)>,
}

/// What happened next.
enum Next {
    Flight(Flight),
    Refused(Class, String),
}

impl Reports {
    fn state(&self) -> MutexGuard<'_, ReportState> {
        self.state.lock().expect("nothing panics while holding it")
    }

    fn expect(&self, first_number: usize, batch: &[Rendered]) {
        let positions: Vec<Position> = batch.iter().map(|rendered| rendered.position).collect();
        if !positions.is_empty() {
            let flight = Flight { first_number, open: positions.len(), positions, failures: Vec::new() };
            self.state().flights.push_back(flight);
        }
    }

    fn take(&self, number: usize, failure: Option<RDKafkaErrorCode>) {
        let mut state = self.state();
        if failure.is_none() {
            state.trouble = None;
        }
        let flight = state.flights.iter_mut().find_map(|flight| {
            let index = number.checked_sub(flight.first_number).filter(|index| *index < flight.positions.len())?;
            Some((flight, index))
        });
        if let Some((flight, index)) = flight {
            flight.failures.extend(failure.map(|code| (index, code)));
            flight.open -= 1;
            if flight.open == 0 {
                self.complete.notify_one();
            }
        }
        self.room.notify_one();
    }

    fn trouble(&self, class: Class, words: String) {
        let mut state = self.state();
        // A broker that is down must not hide that our credentials were refused.
        if state.trouble.as_ref().is_none_or(|(known, _)| *known <= class) {
            state.trouble = Some((class, words));
        }
        if class == Class::Unauthorized {
            self.complete.notify_one();
        }
    }

    fn forget(&self) {
        self.state().flights.clear();
    }

    /// The oldest batch, when all of it is reported. Refused credentials are told at once: waiting for time-outs helps nobody.
    async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state();
                if state.flights.front().is_some_and(|flight| flight.open == 0)
                    && let Some(flight) = state.flights.pop_front()
                {
                    // There may be more than this one; a permit that is left over only costs a look.
                    self.complete.notify_one();
                    return Next::Flight(flight);
                }
                if state.trouble.as_ref().is_some_and(|(class, _)| *class == Class::Unauthorized)
                    && !state.flights.is_empty()
                    && let Some((class, words)) = state.trouble.take()
                {
                    return Next::Refused(class, words);
                }
            }
            self.complete.notified().await;
        }
    }

    async fn wait_for_room(&self) {
        // The time-out only guards against a report that came between the refusal and this wait.
        drop(tokio::time::timeout(ROOM_WAIT, self.room.notified()).await);
    }
}

impl Flight {
    /// The one answer for a batch. What concerns the whole sink goes before what concerns an event: a poisoned batch shows itself again.
    fn conclude(self, reports: &Reports, plan: &KafkaPlan) -> Result<Settled, Stop> {
        let indexes = self.failures.iter().map(|(index, _)| *index);
        let (Some(first), Some(last)) = (indexes.clone().min(), indexes.max()) else {
            return Ok(Settled::Through(self.positions[self.positions.len() - 1]));
        };
        let worst = self.failures.iter().map(|(_, code)| *code).max_by_key(|code| class(*code));
        let worst = worst.expect("there is a failure");
        match class(worst) {
            Class::Poison => Ok(Settled::Refused {
                from: self.positions[first],
                through: self.positions[last],
                // A broker blames all that travelled together.
                suspect: (first == last).then(|| self.positions[first]),
                reason: words_of_receiver(&worst.to_string()),
            }),
            Class::Unknown => {
                let trouble = reports.state().trouble.clone();
                let (class, words) = trouble.unwrap_or_else(|| (Class::Unknown, worst.to_string()));
                Err(plan.stop(class, &words))
            }
            class => Err(plan.stop(class, &worst.to_string())),
        }
    }
}

/// What is set unless the config says otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "verdict-relay"),
    // The store is the queue, not the library's memory: what is not delivered in a minute is sent again from there.
    ("message.timeout.ms", "60000"),
    // More than the batches in flight can hold.
    ("queue.buffering.max.messages", "50000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("linger.ms", "5"),
    ("socket.keepalive.enable", "true"),
];
/// Batches that overlap, so that the network's round trip does not show.
const IN_FLIGHT_MAX: usize = 4;
/// Longest wait for the brokers to tell of the topic.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const OPEN_SLICE: Duration = Duration::from_millis(500);
const ROOM_WAIT: Duration = Duration::from_millis(100);
