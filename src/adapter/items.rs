//! From the items of a message to its outcomes: one bad item spoils no other, and no message becomes more than a bounded number of errors.
//!
//! Invariant: every item becomes an outcome, an error, or is counted in the last error.
//!
//! Not here: how an item is read (the adapters).

use super::json::{Fault, Value};
use super::{ItemError, NormalizeError, Outcome};
use crate::event::Position;

/// What a message with one item says.
pub(super) fn one(root: Value<'_>, outcome: Result<Outcome, Fault>) -> Result<Outcomes, NormalizeError> {
    match outcome {
        Ok(outcome) => Ok(vec![Ok(outcome)]),
        Err(fault) => Err(fault.refuses(root)),
    }
}

/// What a message with many items says: each is read by itself.
pub(super) fn each<'d>(
    root: Value<'d>,
    items: Value<'d>,
    read: impl Fn(Value<'d>) -> Result<Outcome, Fault>,
) -> Result<Outcomes, NormalizeError> {
    let mut outcomes = Gathered::default();
    for item in items.list().map_err(|fault| fault.refuses(root))? {
        outcomes.add(read(item).map_err(|fault| move || fault.words(item)))?;
    }
    Ok(outcomes.finish())
}

/// The outcomes of a delivery, as [`super::Adapter::normalize`] returns them.
pub(super) type Outcomes = Vec<Result<Outcome, ItemError>>;

/// Outcomes of many items, within bounds.
#[derive(Default)]
pub(super) struct Gathered {
    outcomes: Outcomes,
    items: usize,
    odd: usize,
    odd_more: usize,
}

impl Gathered {
    /// Takes the next item's outcome, or what is wrong with it (put into words only if it is told).
    pub(super) fn add(&mut self, outcome: Result<Outcome, impl FnOnce() -> String>) -> Result<(), NormalizeError> {
        let index = self.items;
        self.items += 1;
        if index as u64 > Position::INDEX_MAX {
            return Err(NormalizeError::Field(format!("more than {} items in one message", Position::INDEX_MAX)));
        }
        match outcome {
            Ok(outcome) => self.outcomes.push(Ok(outcome)),
            Err(_) if self.odd == ODD_ITEMS_MAX => self.odd_more += 1,
            Err(reason) => {
                self.odd += 1;
                self.outcomes.push(Err(ItemError { index, reason: reason() }));
            }
        }
        Ok(())
    }

    /// How many items there were so far.
    pub(super) const fn count(&self) -> usize {
        self.items
    }

    /// All outcomes; the odd items beyond [`ODD_ITEMS_MAX`] are one error that counts them, and an empty list is nothing for us.
    pub(super) fn finish(mut self) -> Outcomes {
        if self.odd_more > 0 {
            let reason =
                format!("this and other items, {} of them, are odd like the {ODD_ITEMS_MAX} before", self.odd_more);
            self.outcomes.push(Err(ItemError { index: self.items - 1, reason }));
        }
        if self.items == 0 {
            self.outcomes.push(Ok(Outcome::Ignore));
        }
        self.outcomes
    }
}

/// Most odd items of one message that get an error, and so a dead letter, each: pages have 40 items, and a body of a million wrong items must
/// not become a million dead letters.
pub(super) const ODD_ITEMS_MAX: usize = 100;
