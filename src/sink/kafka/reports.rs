//! Delivery reports: which messages the brokers have, batch by batch; and what else the library calls back for.
//!
//! Invariants: a batch is concluded once, when every message of it is reported; a report for a message of an earlier try finds no
//! batch and means nothing; waiting for a batch can be dropped at any time and loses nothing.
//!
//! Not here: producing (`kafka`), what an error means (`errors`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use super::super::{Rendered, Settled, Stop, words_of_receiver};
use super::KafkaPlan;
use super::errors::{Class, class};
use crate::event::{Name, Position};
use crate::secret::Secret;

/// What the library calls back; it runs on the library's thread.
pub(super) struct Context {
    pub(super) reports: Arc<Reports>,
    pub(super) sink: Name,
    /// Values that no log line may hold.
    pub(super) hidden: Vec<Secret>,
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
    pub(super) fn without_secrets(&self, line: &str) -> String {
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
pub(super) struct Reports {
    state: Mutex<ReportState>,
    /// A batch is complete, or there is trouble that concerns all.
    complete: Notify,
    /// A message left the library's queue.
    room: Notify,
}

#[derive(Default)]
pub(super) struct ReportState {
    flights: VecDeque<Flight>,
    /// The last thing that the library said about connections.
    pub(super) trouble: Option<(Class, String)>,
}

/// A batch in flight.
pub(super) struct Flight {
    first_number: usize,
    positions: Vec<Position>,
    /// How many reports are still to come.
    open: usize,
    /// Index and error of what failed.
    failures: Vec<(usize, RDKafkaErrorCode)>,
}

/// What happened next.
pub(super) enum Next {
    Flight(Flight),
    Refused(Class, String),
}

impl Reports {
    pub(super) fn state(&self) -> MutexGuard<'_, ReportState> {
        self.state.lock().expect("nothing panics while holding it")
    }

    pub(super) fn expect(&self, first_number: usize, batch: &[Rendered]) {
        let positions: Vec<Position> = batch.iter().map(|rendered| rendered.position).collect();
        if !positions.is_empty() {
            let flight = Flight { first_number, open: positions.len(), positions, failures: Vec::new() };
            self.state().flights.push_back(flight);
        }
    }

    pub(super) fn take(&self, number: usize, failure: Option<RDKafkaErrorCode>) {
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

    pub(super) fn forget(&self) {
        self.state().flights.clear();
    }

    /// The oldest batch, when all of it is reported. Refused credentials are told at once: waiting for time-outs helps nobody.
    pub(super) async fn next(&self) -> Next {
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

    pub(super) async fn wait_for_room(&self) {
        drop(tokio::time::timeout(ROOM_WAIT, self.room.notified()).await);
    }
}

impl Flight {
    /// The one answer for a batch. What concerns the whole sink goes before what concerns an event: a poisoned batch shows itself again.
    pub(super) fn conclude(self, reports: &Reports, plan: &KafkaPlan) -> Result<Settled, Stop> {
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

/// Guards against a report that came between a full queue and the wait for room.
const ROOM_WAIT: Duration = Duration::from_millis(100);
