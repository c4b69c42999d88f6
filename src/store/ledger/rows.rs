//! What the ledger keeps beside events: how far each sink has come, and what an operator has to decide about.
//!
//! Not here: how rows are written and read (`transaction`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::transaction::integer;
use crate::event::{Name, Position};

/// How far a sink has come, and what became of the events up to there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to and with this position is settled.
    pub position: Position,
    /// Ordinal at that position.
    pub ordinal: u64,
    /// Ordinal at which the sink began: `ordinal` less everything that is settled. Below zero where a rebuild counts anew and what this
    /// sink has settled is gone from the journal.
    pub began_at: i64,
    /// Events that the receiver took.
    pub delivered: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that the sink's rule keeps out.
    pub filtered: u64,
    /// Dead letters that an operator sent again and the receiver took; they stand apart from the three above.
    pub redriven: u64,
    /// Events that an operator had replayed and that are settled; they stand apart too.
    #[serde(default)]
    pub replayed: u64,
}

impl Cursor {
    /// Events that came up for the sink until the ledger had `ordinal` of them.
    pub fn entered(&self, ordinal: u64) -> u64 {
        ordinal.saturating_add_signed(self.began_at.saturating_neg())
    }

    /// As it is where the ledger has only `ordinal` events, all of them before this cursor's position: what it has settled stays settled.
    pub(super) fn counted_anew(self, ordinal: u64) -> Self {
        let settled = self.delivered + self.dead + self.filtered;
        Self { ordinal, began_at: integer(ordinal) - integer(settled), ..self }
    }
}

/// A message or event that could not be read or delivered, kept until an operator decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its id, the same after a rebuild: stage, position and sink.
    pub id: String,
    /// Where it failed.
    pub stage: Stage,
    /// The sink that refused it; none for a message that could not be read.
    pub sink: Option<Name>,
    /// The source it came from.
    pub source: Name,
    /// Where it stands.
    pub position: Position,
    /// Why, in the adapter's or the receiver's own words.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed.
    pub first_at: Timestamp,
    /// When it last failed.
    pub last_at: Timestamp,
    /// The attempt that is under way, if one is: the sequence of the request.
    #[serde(serialize_with = "id_as_text")]
    pub attempt: Option<u64>,
    /// The stored delivery, the id of the report, or the event as JSON; empty in a list.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// An id as the API writes it everywhere: a text, which no reader of JSON rounds.
pub(super) fn id_as_text<S: serde::Serializer>(
    id: &(impl Copy + Into<Option<u64>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let id: Option<u64> = (*id).into();
    id.map(|id| id.to_string()).serialize(serializer)
}

/// Where something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The adapter could not read it.
    Normalize,
    /// The report that a message pointed to could not be fetched.
    Fetch,
    /// A receiver refused it alone.
    Deliver,
}

impl Stage {
    /// The word that users and metrics see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normalize => "normalize",
            Self::Fetch => "fetch",
            Self::Deliver => "deliver",
        }
    }

    /// The stage of this word; an unknown one is [`Stage::Normalize`], whose redrive harms nothing.
    pub(super) fn of(word: &str) -> Self {
        [Self::Deliver, Self::Fetch].into_iter().find(|stage| stage.word() == word).unwrap_or(Self::Normalize)
    }
}
