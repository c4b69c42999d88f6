//! What was read and is not settled, and the books of what settling it means.
//!
//! Not here: when it is written down (`deliver`).

use std::collections::VecDeque;

use crate::event::{Again, Position};
use crate::store::ledger::{Cursor, DeadLetter, LedgerError, Stored, Transaction};

/// One event between the cursor and what was read.
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
    /// Kept out by the sink's rule.
    Filtered,
    /// Refused alone, or unreadable: what the dead letter will say and keep.
    Dead(Box<DeadLetter>),
}

impl Pending {
    /// Whether the cursor may pass it, once the receiver took everything up to `taken`.
    pub(super) fn is_settled(&self, taken: Position) -> bool {
        !matches!(self.fate, Fate::Sent) || self.position <= taken
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
                (Lane::First, Fate::Filtered) => cursor.filtered += 1,
                (Lane::First, Fate::Dead(_)) => cursor.dead += 1,
                (Lane::Redriven { letter }, Fate::Sent | Fate::Filtered) => {
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
