//! The condition in jq of a sink's `where`, asked of each event as OCSF.
//!
//! Invariant: what cannot be decided passes and is counted: a fault in a condition must not keep events from a receiver.
//!
//! Not here: processes and deadlines (`sandbox`), the rest of `where` (`route`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::block_in_place;

use crate::adapter::jq::{Evaluate, condition};
use crate::event::{Event, Name};
use crate::format::{Format, Style};
use crate::telemetry::Metrics;

/// A condition and what runs it.
pub struct Condition {
    /// Name of the sink.
    pub sink: Name,
    /// What runs it.
    pub evaluate: Arc<dyn Evaluate>,
    /// How the events are written for it.
    pub style: Style,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
    /// Whether the last one failed: a condition that always does is logged once.
    pub failing: AtomicBool,
}

impl Condition {
    /// Whether it holds, or could not be decided.
    pub(super) fn holds(&self, event: &Event) -> bool {
        let mut body = Vec::with_capacity(4096);
        Format::Ocsf.render(event, &self.style, &mut body);
        let decided = block_in_place(|| condition(&*self.evaluate, &body));
        let was_failing = self.failing.swap(decided.is_err(), Ordering::Relaxed);
        match decided {
            Ok(holds) => holds,
            Err(reason) => {
                self.metrics.condition_error(self.sink.as_str());
                if !was_failing {
                    tracing::warn!(sink = %self.sink, %reason, "where.jq of sink {} failed, so its events pass: {reason}", self.sink);
                }
                true
            }
        }
    }
}
