//! What was read and is not settled, the books of what settling it means, and whom to believe about a refused batch.
//!
//! Not here: when it is written down (`deliver`).

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::event::{Again, Name, Position};
use crate::store::ledger::{Cursor, DeadLetter, LedgerError, Stage, Stored, Transaction};

/// One event between the cursor and what was read, or a run of those that no receiver gets.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) position: Position,
    pub(super) ordinal: u64,
    pub(super) lane: Lane,
    pub(super) fate: Fate,
}

/// In which book an event is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lane {
    /// It came up for every sink.
    First,
    /// It is a dead letter of this sink that is tried again.
    Redriven { letter: String },
    /// An operator wants it at this sink once more.
    Replayed,
}

impl Lane {
    pub(super) fn of(stored: &Stored) -> Self {
        let again = stored.event.as_ref().and_then(|event| event.again.as_ref());
        match (&stored.sink, again) {
            (None, _) => Self::First,
            (Some(_), Some(Again::Redrive { letter })) => Self::Redriven { letter: letter.clone() },
            (Some(_), _) => Self::Replayed,
        }
    }
}

/// What becomes of an event.
#[derive(Debug)]
pub(super) enum Fate {
    /// Handed to the sink.
    Sent,
    /// So many in a row kept out by the sink's rule, up to this one.
    Filtered(u64),
    /// Refused alone, or unreadable: what the dead letter will say and keep.
    Dead(Box<DeadLetter>),
}

/// The dead letter of an event that `sink` refused alone, or whose row is damaged. One that was redriven goes back to its letter.
pub(super) fn letter_of(stored: &Stored, sink: &Name, reason: &str, now: Timestamp) -> DeadLetter {
    let id = match Lane::of(stored) {
        Lane::Redriven { letter } => letter,
        Lane::First | Lane::Replayed => format!("d-{}-{sink}", stored.position),
    };
    let event = stored.event.as_deref();
    DeadLetter {
        id,
        stage: Stage::Deliver,
        sink: Some(sink.clone()),
        source: event.map_or(sink, |event| &event.source).clone(),
        position: stored.position,
        reason: reason.to_owned(),
        attempts: 1,
        first_at: now,
        last_at: now,
        attempt: None,
        raw: event.map(|event| serde_json::to_vec(event).unwrap_or_default()).unwrap_or_default(),
    }
}

impl Pending {
    /// Whether the cursor may pass it, once the receiver took everything up to `taken`.
    pub(super) fn is_settled(&self, taken: Position) -> bool {
        !matches!(self.fate, Fate::Sent) || self.position <= taken
    }
}

/// Adds the next event. A run of filtered ones is one entry: a receiver that is slow to settle must not make a rule that keeps
/// nearly everything out a matter of memory.
pub(super) fn push(pending: &mut VecDeque<Pending>, next: Pending) {
    match (pending.back_mut(), &next.fate) {
        (Some(Pending { position, ordinal, lane: Lane::First, fate: Fate::Filtered(run) }), Fate::Filtered(events))
            if next.lane == Lane::First =>
        {
            *run += events;
            (*position, *ordinal) = (next.position, next.ordinal);
        }
        _ => pending.push_back(next),
    }
}

/// What settling the first events of `pending` means.
pub(super) struct Settlement<'p> {
    /// How many they are.
    pub(super) count: usize,
    /// The cursor after them.
    pub(super) cursor: Cursor,
    /// Dead letters among them.
    pub(super) letters: Vec<&'p DeadLetter>,
    /// Dead letters that the receiver took this time.
    redriven: Vec<&'p str>,
}

impl<'p> Settlement<'p> {
    /// Counts the first events that are settled, once the receiver took everything up to `taken`.
    pub(super) fn of(pending: &'p VecDeque<Pending>, taken: Position, cursor: &Cursor) -> Self {
        let mut all = Self { count: 0, cursor: cursor.clone(), letters: Vec::new(), redriven: Vec::new() };
        let cursor = &mut all.cursor;
        for one in pending.iter().take_while(|one| one.is_settled(taken)) {
            all.count += 1;
            // Each first event counts once, whatever becomes of it when it is told again.
            match (&one.lane, &one.fate) {
                (Lane::First, Fate::Sent) => cursor.delivered += 1,
                (Lane::First, Fate::Filtered(events)) => cursor.filtered += events,
                (Lane::First, Fate::Dead(_)) => cursor.dead += 1,
                (Lane::Redriven { letter }, Fate::Sent | Fate::Filtered(_)) => {
                    cursor.redriven += 1;
                    all.redriven.push(letter);
                }
                (Lane::Redriven { .. }, Fate::Dead(_)) => {}
                (Lane::Replayed, _) => cursor.replayed += 1,
            }
            if let Fate::Dead(letter) = &one.fate {
                all.letters.push(letter);
            }
            (cursor.position, cursor.ordinal) = (one.position, one.ordinal);
        }
        all
    }

    /// Writes all of it but the cursor.
    pub(super) fn write_letters(&self, transaction: &mut Transaction<'_>) -> Result<(), LedgerError> {
        for letter in &self.letters {
            transaction.put_dead_letter(letter)?;
        }
        for id in &self.redriven {
            transaction.remove_dead_letter(id)?;
        }
        Ok(())
    }
}

/// The batch that is sent in parts because something in it was refused.
#[derive(Debug, Default)]
pub(super) struct Repair {
    end: Position,
    /// How many of its events the receiver named.
    named: u32,
}

impl Repair {
    /// Whether to send alone what the receiver named in the refused range. One that names event after event of a batch may name the wrong
    /// ones: then halves find them.
    pub(super) fn believes(&mut self, from: Position, through: Position) -> bool {
        if from > self.end {
            *self = Self { end: through, named: 0 };
        }
        self.named += 1;
        self.named <= NAMED_MAX
    }
}

/// How many events of one batch go alone because the receiver named them.
const NAMED_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_filtered_events_is_one_entry_and_every_event_is_counted() {
        let mut pending = VecDeque::new();
        for ordinal in 1..=100_000 {
            let fate = if ordinal % 50_000 == 1 { Fate::Sent } else { Fate::Filtered(1) };
            push(&mut pending, Pending { position: Position(ordinal), ordinal, lane: Lane::First, fate });
        }
        assert_eq!(pending.len(), 4);
        let counts = |taken: u64| {
            let Settlement { count, cursor, .. } = Settlement::of(&pending, Position(taken), &Cursor::default());
            (count, cursor.delivered, cursor.filtered, cursor.ordinal)
        };
        assert_eq!(counts(0), (0, 0, 0, 0));
        assert_eq!(counts(1), (2, 1, 49_999, 50_000));
        assert_eq!(counts(50_001), (4, 2, 99_998, 100_000));
    }
}
