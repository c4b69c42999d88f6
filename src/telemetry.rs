//! Every metric of the program, in one list, and the set-up of the log.
//!
//! Names and labels are the contract's. Labels are bounded: sources and sinks come from the config, everything else is an enum.
//! What has to add up over restarts (the counts of sinks) is kept by the ledger and only copied here when someone asks.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

/// A gauge of seconds or time stamps.
type Seconds = Gauge<f64, AtomicU64>;

macro_rules! labels {
    ($name:ident { $($label:ident),+ }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $($label: String),+
        }
    };
}
labels!(BySource { source });
labels!(BySourceOutcome { source, outcome });
labels!(BySourceReason { source, reason });
labels!(BySourceVerdict { source, verdict });
labels!(BySink { sink });
labels!(BySinkOutcome { sink, outcome });
labels!(BySinkState { sink, state });
labels!(ByStageSink { stage, sink });
labels!(BySecret { secret });
labels!(ByRole { role });
labels!(BySourceQuota { source, quota });
labels!(BySourceStream { source, stream });

/// The states of a sink, as `sink_state` shows them.
pub const SINK_STATES: [&str; 5] = ["ok", "backoff", "auth_failed", "tls_failed", "paused"];

/// All metrics. Cheap to share; every method may be called from anywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ingest_requests: Family<BySourceOutcome, Counter>,
    signature_failures: Family<BySourceReason, Counter>,
    deliveries: Family<BySourceOutcome, Counter>,
    dedup_conflicts: Family<BySource, Counter>,
    last_delivery: Family<BySource, Seconds>,
    events: Family<BySourceVerdict, Counter>,
    sink_entered: Family<BySink, Counter>,
    sink_events: Family<BySinkOutcome, Counter>,
    sink_pending: Family<BySink, Gauge>,
    sink_oldest_pending_age: Family<BySink, Seconds>,
    sink_state: Family<BySinkState, Gauge>,
    condition_errors: Family<BySink, Counter>,
    dead_letters: Family<ByStageSink, Gauge>,
    store_bytes: Gauge,
    store_corrupt_records: Counter,
    secret_age: Family<BySecret, Seconds>,
    certificate_expiry: Family<ByRole, Seconds>,
    api_quota_remaining: Family<BySourceQuota, Gauge>,
    poll_lag: Family<BySourceStream, Seconds>,
    fetches_waiting: Family<BySource, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("verdict_relay");
        macro_rules! registered {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        Self {
            ingest_requests: registered!("ingest_requests", "Requests to the receiver"),
            signature_failures: registered!("signature_failures", "Requests whose proof did not hold"),
            deliveries: registered!("deliveries", "Deliveries that normalize has read"),
            dedup_conflicts: registered!(
                "dedup_conflicts",
                "Events with a provider's id that is known with another content"
            ),
            last_delivery: registered!(
                "source_last_delivery_timestamp_seconds",
                "When the source last sent something that was proven; 0 where nothing came since the start"
            ),
            events: registered!("events", "Verdict events"),
            sink_entered: registered!("sink_entered", "Events that came up for the sink"),
            sink_events: registered!("sink_events", "Events of the sink by what became of them"),
            sink_pending: registered!("sink_pending_events", "Events that the sink has yet to settle"),
            sink_oldest_pending_age: registered!("sink_oldest_pending_age_seconds", "Age of the oldest pending event"),
            sink_state: registered!("sink_state", "1 for the state that the sink is in"),
            condition_errors: registered!("where_errors", "Events that passed because the sink's jq could not decide"),
            dead_letters: registered!("dead_letters", "Dead letters that wait for an operator"),
            store_bytes: registered!("store_bytes", "Bytes of the store on disk"),
            store_corrupt_records: registered!("store_corrupt_records", "Damaged records found in the store"),
            secret_age: registered!("secret_age_seconds", "Time since the secret was last read"),
            certificate_expiry: registered!("tls_certificate_expiry_timestamp_seconds", "When the certificate expires"),
            api_quota_remaining: registered!("api_quota_remaining", "What is left of a quota of the platform's API"),
            poll_lag: registered!("poll_lag_seconds", "How far behind a stream of the platform is read"),
            fetches_waiting: registered!("fetches_waiting", "Reports that wait to be fetched"),
            registry,
        }
    }
}

/// The handles of one source, for the path where a look-up by name would count.
#[derive(Debug, Clone)]
pub struct SourceMeters {
    accepted: Counter,
    last_delivery: Seconds,
}

impl SourceMeters {
    /// One delivery that is proven and durable, at this time in seconds since the epoch.
    pub fn accepted(&self, at: f64) {
        self.accepted.inc();
        self.last_delivery.set(at);
    }
}

/// What a source has sent since the start, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct SourceCounts {
    /// When it last sent something that was proven, in seconds since the epoch; 0 for never.
    #[serde(skip)]
    pub last_delivery: f64,
    /// Its requests, by how they were answered.
    pub requests: BTreeMap<&'static str, u64>,
    /// Requests whose proof did not hold, by reason; only reasons that occurred.
    pub refused: BTreeMap<&'static str, u64>,
    /// Items of its messages, by what became of them.
    pub items: BTreeMap<&'static str, u64>,
}

/// How a request is answered, in a word.
const REQUEST_OUTCOMES: [&str; 4] = ["accepted", "unauthorized", "rejected", "unavailable"];
/// What becomes of an item of a message, in a word.
const ITEM_OUTCOMES: [&str; 5] = ["normalized", "duplicate", "ignored", "dead", "fetching"];

impl Metrics {
    /// The handles of one source.
    pub fn source_meters(&self, source: &str) -> SourceMeters {
        let accepted = BySourceOutcome { source: source.into(), outcome: "accepted".into() };
        SourceMeters {
            accepted: self.ingest_requests.get_or_create(&accepted).clone(),
            last_delivery: self.last_delivery.get_or_create(&BySource { source: source.into() }).clone(),
        }
    }

    /// What a source has sent since the start. `reasons` are all for which a proof can fail.
    pub fn source_counts(&self, source: &str, reasons: impl Iterator<Item = &'static str>) -> SourceCounts {
        let outcome = |word: &str| BySourceOutcome { source: source.into(), outcome: word.into() };
        let reason = |word: &str| BySourceReason { source: source.into(), reason: word.into() };
        let requests = REQUEST_OUTCOMES.map(|word| (word, count_of(&self.ingest_requests, &outcome(word))));
        let items = ITEM_OUTCOMES.map(|word| (word, count_of(&self.deliveries, &outcome(word))));
        let refused = reasons.map(|word| (word, count_of(&self.signature_failures, &reason(word))));
        SourceCounts {
            last_delivery: self.last_delivery.get(&BySource { source: source.into() }).map_or(0.0, |at| at.get()),
            requests: requests.into(),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            items: items.into(),
        }
    }

    /// One request to the receiver: `accepted`, `unauthorized`, `rejected` or `unavailable`; unknown sources as `_unknown`.
    pub fn ingest(&self, source: &str, outcome: &str) {
        count(&self.ingest_requests, &BySourceOutcome { source: source.into(), outcome: outcome.into() });
    }

    /// One proof that did not hold, with the reason in one word.
    pub fn signature_failure(&self, source: &str, reason: &str) {
        count(&self.signature_failures, &BySourceReason { source: source.into(), reason: reason.into() });
    }

    /// Items of deliveries that were read: `normalized`, `duplicate`, `ignored`, `dead` or `fetching`.
    pub fn deliveries(&self, source: &str, outcome: &str, count: u64) {
        self.deliveries
            .get_or_create(&BySourceOutcome { source: source.into(), outcome: outcome.into() })
            .inc_by(count);
    }

    /// One event with a known id and another content.
    pub fn dedup_conflict(&self, source: &str) {
        count(&self.dedup_conflicts, &BySource { source: source.into() });
    }

    /// One verdict event.
    pub fn event(&self, source: &str, verdict: &str) {
        count(&self.events, &BySourceVerdict { source: source.into(), verdict: verdict.into() });
    }

    /// The counts of a sink as the ledger has them.
    pub fn sink_counts(&self, sink: &str, entered: u64, outcomes: &[(&str, u64)], pending: u64) {
        let by_sink = BySink { sink: sink.into() };
        set(&self.sink_entered, &by_sink, entered);
        for (outcome, value) in outcomes {
            set(&self.sink_events, &BySinkOutcome { sink: sink.into(), outcome: (*outcome).into() }, *value);
        }
        self.sink_pending.get_or_create(&by_sink).set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// Age of the oldest pending event of a sink, in seconds; 0 where there is none.
    pub fn sink_oldest(&self, sink: &str, seconds: f64) {
        self.sink_oldest_pending_age.get_or_create(&BySink { sink: sink.into() }).set(seconds);
    }

    /// The state that a sink is in now.
    pub fn sink_state(&self, sink: &str, state: &str) {
        for one in SINK_STATES {
            let labels = BySinkState { sink: sink.into(), state: one.into() };
            self.sink_state.get_or_create(&labels).set(i64::from(one == state));
        }
    }

    /// One event that passed because the condition in jq of the sink could not be decided.
    pub fn condition_error(&self, sink: &str) {
        count(&self.condition_errors, &BySink { sink: sink.into() });
    }

    /// How many dead letters there are, by stage and sink (empty for a message that could not be read).
    pub fn dead_letters(&self, counts: &[(String, Option<String>, u64)]) {
        self.dead_letters.clear();
        for (stage, sink, count) in counts {
            let labels = ByStageSink { stage: stage.clone(), sink: sink.clone().unwrap_or_default() };
            self.dead_letters.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Size of the store, and damage found in it since the start.
    pub fn store(&self, bytes: u64, corrupt_records: u64) {
        self.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store_corrupt_records.inner().store(corrupt_records, std::sync::atomic::Ordering::Relaxed);
    }

    /// Seconds since a secret was last read; named by its reference.
    pub fn secret_age(&self, secret: &str, seconds: f64) {
        self.secret_age.get_or_create(&BySecret { secret: secret.into() }).set(seconds);
    }

    /// When the certificate of this role expires, in seconds since the epoch.
    pub fn certificate_expiry(&self, role: &str, at: f64) {
        self.certificate_expiry.get_or_create(&ByRole { role: role.into() }).set(at);
    }

    /// What is left of a quota of a platform's API.
    pub fn api_quota(&self, source: &str, quota: &str, remaining: u64) {
        let labels = BySourceQuota { source: source.into(), quota: quota.into() };
        self.api_quota_remaining.get_or_create(&labels).set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }

    /// How far behind a stream of a platform is read, in seconds.
    pub fn poll_lag(&self, source: &str, stream: &str, seconds: f64) {
        let labels = BySourceStream { source: source.into(), stream: stream.into() };
        self.poll_lag.get_or_create(&labels).set(seconds);
    }

    /// How many reports of a source wait to be fetched.
    pub fn fetches_waiting(&self, source: &str, count: u64) {
        let labels = BySource { source: source.into() };
        self.fetches_waiting.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("writing to memory cannot fail");
        text
    }
}

/// Sends the log to stderr: as JSON lines, or as plain text for a terminal. `RUST_LOG` sets what is shown.
///
/// actix-http is silent by default: it logs an error for every malformed request that a stranger sends.
pub fn log_to_stderr(json: bool, default_level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},actix_http=off,actix_server=warn")));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second set-up in one process (tests) keeps the first one.
    let _already_set = if json {
        log.json().flatten_event(true).with_target(false).try_init()
    } else {
        log.without_time().with_target(false).with_ansi(false).try_init()
    };
}

fn count<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Counter>, labels: &L) {
    family.get_or_create(labels).inc();
}

/// The count under these labels, without making an entry for them.
fn count_of<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Counter>, labels: &L) -> u64 {
    family.get(labels).map_or(0, |counter| counter.get())
}

fn set<L: Clone + std::hash::Hash + Eq>(family: &Family<L, Counter>, labels: &L, value: u64) {
    family.get_or_create(labels).inner().store(value, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_the_contracts() {
        let metrics = Metrics::default();
        metrics.ingest("portal", "accepted");
        metrics.sink_counts("lake", 3, &[("delivered", 2)], 1);
        metrics.sink_state("lake", "backoff");
        metrics.store(10, 1);
        let text = metrics.text();
        for line in [
            "verdict_relay_ingest_requests_total{source=\"portal\",outcome=\"accepted\"} 1",
            "verdict_relay_sink_entered_total{sink=\"lake\"} 3",
            "verdict_relay_sink_events_total{sink=\"lake\",outcome=\"delivered\"} 2",
            "verdict_relay_sink_pending_events{sink=\"lake\"} 1",
            "verdict_relay_sink_state{sink=\"lake\",state=\"backoff\"} 1",
            "verdict_relay_sink_state{sink=\"lake\",state=\"ok\"} 0",
            "verdict_relay_store_corrupt_records_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
