//! What was read and is not settled, and the books of what settling it means.
//!
//! Not here: when it is written down (`deliver`).

use std::collections::VecDeque;

use crate::event::Position;
use crate::store::ledger::{Cursor, DeadLetter};

/// One event between the cursor and what was read.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) position: Position,
    pub(super) ordinal: u64,
    /// An operator sent it again to this sink: counted apart.
    pub(super) redriven: bool,
    pub(super) fate: Fate,
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

/// The first events of `pending` that are settled: how many, the cursor after them, and their dead letters.
pub(super) fn settled<'p>(
    pending: &'p VecDeque<Pending>,
    taken: Position,
    cursor: &Cursor,
) -> (usize, Cursor, Vec<&'p DeadLetter>) {
    let (mut count, mut cursor, mut letters) = (0, cursor.clone(), Vec::new());
    for one in pending.iter().take_while(|one| one.is_settled(taken)) {
        count += 1;
        match &one.fate {
            Fate::Sent if one.redriven => cursor.redriven += 1,
            Fate::Sent => cursor.delivered += 1,
            Fate::Filtered => cursor.filtered += 1,
            Fate::Dead(letter) => {
                // A redriven one goes back to the letter it came from; it was counted as dead the first time.
                cursor.dead += u64::from(!one.redriven);
                letters.push(&**letter);
            }
        }
        (cursor.position, cursor.ordinal) = (one.position, one.ordinal);
    }
    (count, cursor, letters)
}
