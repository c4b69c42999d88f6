//! Delivery reports: which messages the brokers have, batch by batch; and what else the library calls back for.
//!
//! Invariants: a batch counts as taken when every message of it is reported as delivered; the first message that fails ends all batches in
//! flight, because what follows it may not overtake it; a report for a message of an earlier try finds no batch and means nothing;
//! waiting can be dropped at any time and loses nothing.
//!
//! Not here: producing (`kafka`), what an error means (`errors`).

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::{Rendered, words_of_receiver};
use super::errors::{Class, class, class_of_connection, is_consequence};
use super::token;
use crate::event::{Name, Position};
use crate::secret::{KeyRing, SecretRef};
use crate::setting::Span;

/// What the library calls back; it runs on the library's thread.
pub(super) struct Context {
    pub(super) reports: Arc<Reports>,
    pub(super) sink: Name,
    /// The live secrets: no log line may hold one.
    pub(super) secrets: KeyRing,
    /// Which of them is the token for OAUTHBEARER.
    pub(super) token: Option<SecretRef>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Asked for at the start and when four fifths of the token's life are over; after an error again in ten seconds.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let reference = self.token.as_ref().ok_or("there is no `token` in the config")?;
        let keys = self.secrets.keys();
        let key = keys.iter().find(|key| key.id == *reference);
        let key = key.ok_or_else(|| format!("{reference} could not be read"))?;
        token::read(key.secret.expose(), Timestamp::now()).map_err(|words| format!("{reference} {words}").into())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = self.without_secrets(line);
        // That the producer ends at a refusal is meant so, and the sink tells of it in its own words.
        let is_meant = facility == "FATAL" || line.contains("enable.gapless.guarantee");
        match level {
            _ if is_meant => tracing::debug!(sink = %self.sink, facility, "kafka client: {line}"),
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
        let class = class_of_connection(error.rdkafka_error_code(), reason);
        let reason = words_of_receiver(&self.without_secrets(reason));
        tracing::debug!(sink = %self.sink, "kafka client: {reason}");
        self.reports.trouble(class, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        let taken_by = match report {
            Ok(message) => Ok(message.partition()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        self.reports.take(number, taken_by);
    }
}

impl Context {
    pub(super) fn without_secrets(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for key in self.secrets.keys().iter() {
            if let Ok(value) = std::str::from_utf8(key.secret.expose())
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
pub(super) struct Reports {
    state: Mutex<ReportState>,
    /// A batch is complete, a message failed, or there is trouble that concerns all.
    news: Notify,
    /// A message left the library's queue.
    room: Notify,
}

#[derive(Default)]
pub(super) struct ReportState {
    flights: VecDeque<Flight>,
    /// How many partitions there are, and which of them have taken something of this producer.
    partitions: usize,
    begun: BTreeSet<i32>,
    /// Subjects on the way, while there is another one.
    flying: HashSet<String>,
    /// The worst that a report said since the last answer.
    failure: Option<Failure>,
    /// The last thing that the library said about connections.
    pub(super) trouble: Option<(Class, String)>,
    /// When the library gave the producer up.
    fatal_at: Option<Instant>,
    /// Whether a failure was told: the producer has done its work.
    over: bool,
}

/// A batch in flight.
struct Flight {
    first_number: usize,
    /// Its events, as far as they are sent, and which of those are taken.
    positions: Vec<Position>,
    subjects: Vec<String>,
    taken: Vec<Position>,
    /// First and last event.
    range: (Position, Position),
    /// How many reports are still to come.
    open: usize,
    /// Whether a message of it was not delivered.
    failed: bool,
    since: Instant,
}

/// Why the batches in flight have to be sent again.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) words: String,
    /// First and last event of the batch that it was said of.
    pub(super) from: Position,
    pub(super) through: Position,
    /// Whether the library itself said it, of this one event.
    pub(super) is_exact: bool,
}

/// What happened next.
pub(super) enum Next {
    /// All events up to this one are delivered.
    Through(Position),
    Failed(Failure),
}

impl Reports {
    pub(super) fn state(&self) -> MutexGuard<'_, ReportState> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// A batch is on its way from `range.0` through `range.1`: these of its events are sent, from this number on.
    pub(super) fn expect(&self, first_number: usize, range: (Position, Position), sent: &[(&Rendered, String)]) {
        let positions: Vec<Position> = sent.iter().map(|(rendered, _)| rendered.position).collect();
        let subjects = sent.iter().map(|(_, subject)| subject.clone()).collect();
        let (open, since, taken) = (positions.len(), Instant::now(), Vec::new());
        let flight = Flight { first_number, positions, subjects, taken, range, open, failed: false, since };
        self.state().flights.push_back(flight);
        if open == 0 {
            self.news.notify_one();
        }
    }

    /// The topic was found, with so many partitions.
    pub(super) fn begin(&self, partitions: usize) {
        self.state().partitions = partitions;
    }

    /// Whether an event of this subject has to wait for the one before it; if not, it counts as on the way.
    pub(super) fn must_wait(&self, subject: &str) -> bool {
        let mut state = self.state();
        state.begun.len() < state.partitions && !state.flying.insert(subject.to_owned())
    }

    /// One message was taken by a partition, or failed.
    pub(super) fn take(&self, number: usize, taken_by: Result<i32, RDKafkaErrorCode>) {
        let mut state = self.state();
        let state = &mut *state;
        if let Ok(partition) = taken_by {
            state.trouble = None;
            state.begun.insert(partition);
        }
        let found = state.flights.iter_mut().find_map(|flight| {
            let index = number.checked_sub(flight.first_number).filter(|index| *index < flight.positions.len())?;
            Some((flight, index))
        });
        if let Some((flight, index)) = found {
            state.flying.remove(&flight.subjects[index]);
            flight.open -= 1;
            flight.failed |= taken_by.is_err();
            if taken_by.is_ok() {
                flight.taken.push(flight.positions[index]);
            }
            if let Some(code) = taken_by.err().filter(|code| !is_consequence(*code)) {
                let failure = flight.failure(class(code), words_of_receiver(&code.to_string()));
                if state.failure.as_ref().is_none_or(|known| known.class < failure.class) {
                    state.failure = Some(failure);
                }
            }
            if flight.open == 0 || flight.failed {
                self.news.notify_one();
            }
        }
        self.room.notify_one();
    }

    /// One event was refused by the library itself, before any broker saw it.
    pub(super) fn refuse(&self, position: Position, code: RDKafkaErrorCode) {
        let words = words_of_receiver(&code.to_string());
        let failure = Failure { class: class(code), words, from: position, through: position, is_exact: true };
        self.state().failure = Some(failure);
        self.news.notify_one();
    }

    fn trouble(&self, class: Class, words: String) {
        let mut state = self.state();
        // A broker that is down must not hide that our credentials were refused.
        if state.trouble.as_ref().is_none_or(|(known, _)| *known <= class) {
            state.trouble = Some((class, words));
        }
        if class == Class::Fatal {
            state.fatal_at.get_or_insert_with(Instant::now);
        }
        if class >= Class::Fatal {
            self.news.notify_one();
        }
    }

    /// Nothing is in flight any more, and nothing more is said of what was: the events that were taken all the same.
    pub(super) fn end(&self) -> Vec<Position> {
        let mut state = self.state();
        state.over = true;
        state.flights.drain(..).flat_map(|flight| flight.taken).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Whether there is a failure to tell of, so that nothing more should be handed over.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.state();
        let is_refused = matches!(&state.trouble, Some((Class::Unauthorized, _)));
        state.failure.is_some() || state.fatal_at.is_some() || is_refused
    }

    /// The oldest batch, when all of it is delivered; or why it will not be. Refused credentials are told at once: waiting helps nobody. After
    /// `give_up` without the broker's word nobody knows what it has.
    pub(super) async fn next(&self, give_up: Duration) -> Next {
        loop {
            let deadline = {
                let mut state = self.state();
                if let Some(next) = state.next(give_up, Instant::now()) {
                    // There may be more than this one; a permit that is left over only costs a look.
                    self.news.notify_one();
                    return next;
                }
                state.deadline(give_up)
            };
            match deadline {
                Some(deadline) => drop(timeout_at(deadline, self.news.notified()).await),
                None => self.news.notified().await,
            }
        }
    }

    pub(super) async fn wait_for_room(&self) {
        drop(tokio::time::timeout(ROOM_WAIT, self.room.notified()).await);
    }
}

impl ReportState {
    fn next(&mut self, give_up: Duration, now: Instant) -> Option<Next> {
        let front = self.flights.front()?;
        if front.open == 0 && !front.failed {
            return self.flights.pop_front().map(|front| Next::Through(front.range.1));
        }
        if let Some(failure) = self.failure.take() {
            return Some(Next::Failed(failure));
        }
        let front = self.flights.front()?;
        let last = self.flights.back()?.range.1;
        let all = |class, words| Some(Next::Failed(Failure { through: last, ..front.failure(class, words) }));
        match &self.trouble {
            Some((class @ Class::Unauthorized, words)) => return all(*class, words.clone()),
            Some((class @ Class::Fatal, words)) if front.open == 0 => return all(*class, words.clone()),
            _ if front.open == 0 => return all(Class::Fatal, "it dropped what it had".to_owned()),
            _ => {}
        }
        if self.deadline(give_up).is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (class, words) = self.trouble.clone().unwrap_or_else(|| {
            let words = format!(
                "not within {}; are enough replicas of each partition in sync (min.insync.replicas)?",
                Span(give_up)
            );
            (Class::Unknown, words)
        });
        all(class, words)
    }

    /// When the oldest batch is given up. A producer that is given up reports the rest of its messages soon, or never.
    fn deadline(&self, give_up: Duration) -> Option<Instant> {
        let regular = self.flights.front()?.since + give_up;
        Some(self.fatal_at.map_or(regular, |at| regular.min(at + FATAL_WAIT)))
    }
}

impl Flight {
    /// A broker blames all that travelled together, so all of a batch is in doubt.
    fn failure(&self, class: Class, words: String) -> Failure {
        Failure { class, words, from: self.range.0, through: self.range.1, is_exact: false }
    }
}

/// Guards against a report that came between a full queue and the wait for room.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// How long the cause of a fatal error may take to be reported after it.
const FATAL_WAIT: Duration = Duration::from_secs(1);
