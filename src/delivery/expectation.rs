//! Analyses that were announced, in the form in which the journal keeps them.
//!
//! Not here: who waits for what (`store/ledger/fetches`), when one is late (`poll`).

use serde::{Deserialize, Serialize};

use crate::event::Sha256;

/// What the journal keeps about an announced analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Expectation {
    /// It has to report.
    Expect {
        /// Which one.
        wanted: Wanted,
        /// Within this time.
        within_ms: u64,
    },
    /// It has not, and the platform was asked.
    Overdue {
        /// Sequence of the record that announced it.
        sequence: u64,
        /// What the platform said.
        reason: String,
        /// Whether the platform answered at all.
        answered: bool,
    },
}

/// Which analysis is awaited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The one with this id at the platform.
    Id(String),
    /// Any of this file.
    Sha256(Sha256),
}

impl Wanted {
    /// As the ledger keeps it.
    pub fn key(&self) -> String {
        match self {
            Self::Id(id) => Self::key_of_id(id),
            Self::Sha256(hash) => Self::key_of_subject(&format!("file:{hash}")),
        }
    }

    /// The key of whoever waits for this id.
    pub fn key_of_id(id: &str) -> String {
        format!("{ID}{id}")
    }

    /// The key of whoever waits for a subject, by `Subject::key`.
    pub fn key_of_subject(subject: &str) -> String {
        format!("{SUBJECT}{subject}")
    }

    /// Reads [`Wanted::key`] back.
    pub fn of_key(key: &str) -> Option<Self> {
        match (key.strip_prefix(ID), key.strip_prefix(SUBJECT)) {
            (Some(id), _) => Some(Self::Id(id.to_owned())),
            (None, Some(subject)) => subject.strip_prefix("file:")?.parse().ok().map(Self::Sha256),
            (None, None) => None,
        }
    }
}

const ID: &str = "id:";
const SUBJECT: &str = "subject:";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Hash;

    #[test]
    fn a_key_reads_back_and_nothing_else_does() {
        for wanted in [Wanted::Id("1234".to_owned()), Wanted::Id("file:x".to_owned()), Wanted::Sha256(Hash([7; 32]))] {
            assert_eq!(Wanted::of_key(&wanted.key()), Some(wanted));
        }
        for odd in ["", "1234", "subject:url:1", "subject:file:12"] {
            assert_eq!(Wanted::of_key(odd), None, "{odd}");
        }
    }
}
