//! Where the rows of a table that is only appended to stand, by key: in memory while they are few enough, by an index of the table beyond.
//!
//! Keys come in random order. A tree kept in their order would write a page an event; appended rows and a map in memory write none.
//!
//! Invariant: two keys that share their short form are told apart by the row itself, so a collision costs a look and never mixes two up.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::transaction::integer;
use crate::event::{Name, Position, Uid};

/// The places of both tables.
#[derive(Debug)]
pub(super) struct Places {
    /// Rows of `dedup`, by identity.
    pub(super) uids: Keys,
    /// Rows of `latest`, by subject and source.
    pub(super) subjects: Keys,
    /// Makes the short keys of subjects unforeseeable: senders choose subjects, and must not be able to choose two alike.
    salt: i64,
}

/// What is known of a subject, as one source sees it.
#[derive(Debug)]
pub struct Known<'a> {
    pub(super) subject: &'a str,
    pub(super) source: &'a Name,
    /// The short key of both.
    pub(super) key: i64,
    /// Its latest record, and where that stands.
    pub(super) latest: Option<(i64, Vec<u8>)>,
}

impl Known<'_> {
    /// The latest record, if there is one. A damaged one costs the subject its history, not everyone their events.
    pub fn record<T: DeserializeOwned>(&self) -> Option<T> {
        let (_, bytes) = self.latest.as_ref()?;
        let (source, read) = (self.source, serde_json::from_slice(bytes));
        read.inspect_err(
            |error| tracing::error!(%source, %error, "the latest record of a subject is not readable, begun anew"),
        )
        .ok()
    }
}

/// The rows of one table.
#[derive(Debug)]
pub(super) enum Keys {
    /// The short key of each row, and where it stands.
    Memory(HashMap<i64, Position>),
    /// Too many to hold: one random page write a row, which is the price of the memory bound.
    Index,
}

/// A table, and its index.
struct Table {
    all: &'static str,
    create_index: &'static str,
    drop_index: &'static str,
}

const DEDUP: Table = Table {
    all: "SELECT position, uid FROM dedup",
    create_index: "CREATE INDEX IF NOT EXISTS dedup_uid ON dedup (uid)",
    drop_index: "DROP INDEX IF EXISTS dedup_uid",
};
const LATEST: Table = Table {
    all: "SELECT position, key FROM latest",
    create_index: "CREATE INDEX IF NOT EXISTS latest_key ON latest (key)",
    drop_index: "DROP INDEX IF EXISTS latest_key",
};

/// Keys of a table held in memory: what a map of 2^19 places takes before it doubles, some 9 MB; to make the index takes three times that
/// for a moment. At 20 events a second and 7 days there are over twenty times as many.
const MEMORY_MAX: usize = if cfg!(test) { 50 } else { 450_000 };

impl Places {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let found =
            connection.query_row("SELECT value FROM meta WHERE name = 'salt'", [], |row| row.get(0)).optional()?;
        let salt = if let Some(salt) = found {
            salt
        } else {
            let salt = RandomState::new().hash_one(0).cast_signed();
            connection.execute("INSERT INTO meta (name, value) VALUES ('salt', ?)", [salt])?;
            salt
        };
        let uids = Keys::load(connection, &DEDUP, |row| Ok(short(&row.get::<_, [u8; 16]>(1)?)))?;
        let subjects = Keys::load(connection, &LATEST, |row| row.get(1))?;
        Ok(Self { uids, subjects, salt })
    }

    /// The short key of a subject and source.
    fn key(&self, subject: &str, source: &Name) -> i64 {
        let mut digest = Sha256::new();
        digest.update(self.salt.to_le_bytes());
        digest.update(source.as_str());
        // No name holds one, so that no two pairs are written alike.
        digest.update([0]);
        digest.update(subject);
        short(&digest.finalize())
    }

    /// What is known of a subject and source, with what `added` has put there since.
    pub(super) fn known<'s>(
        &self,
        connection: &Connection,
        added: &Added,
        subject: &'s str,
        source: &'s Name,
    ) -> rusqlite::Result<Known<'s>> {
        let key = self.key(subject, source);
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let latest = match &self.subjects {
            Keys::Memory(keys) => match added.subjects.get(&key).or_else(|| keys.get(&key)) {
                None => None,
                Some(position) => connection
                    .prepare_cached("SELECT position, record FROM records WHERE position = ? AND subject = ? AND source = ?")?
                    .query_row(params![integer(position.0), subject, source.as_str()], read)
                    .optional()?,
            },
            Keys::Index => connection
                .prepare_cached(
                    "SELECT position, record FROM latest JOIN records USING (position) WHERE key = ? AND subject = ? AND source = ?",
                )?
                .query_row(params![key, subject, source.as_str()], read)
                .optional()?,
        };
        Ok(Known { subject, source, key, latest })
    }

    /// Where the event with this identity stands.
    pub(super) fn of_uid(&self, connection: &Connection, uid: Uid) -> rusqlite::Result<Option<Position>> {
        let place: Option<i64> = match &self.uids {
            Keys::Memory(keys) => {
                let Some(position) = keys.get(&short(&uid.0)) else { return Ok(None) };
                connection
                    .prepare_cached("SELECT position FROM dedup WHERE position = ? AND uid = ?")?
                    .query_row(params![integer(position.0), uid.0], |row| row.get(0))
                    .optional()?
            }
            Keys::Index => connection
                .prepare_cached("SELECT position FROM dedup WHERE uid = ?")?
                .query_row([uid.0], |row| row.get(0))
                .optional()?,
        };
        Ok(place.map(|position| Position(position.unsigned_abs())))
    }
}

impl Keys {
    fn load(
        connection: &Connection,
        table: &Table,
        key: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<i64>,
    ) -> rusqlite::Result<Self> {
        let mut keys = HashMap::new();
        {
            let mut statement = connection.prepare(table.all)?;
            let mut rows = statement.query([])?;
            while keys.len() <= MEMORY_MAX
                && let Some(row) = rows.next()?
            {
                keys.insert(key(row)?, Position(row.get::<_, i64>(0)?.unsigned_abs()));
            }
        }
        if keys.len() > MEMORY_MAX {
            connection.execute(table.create_index, [])?;
            return Ok(Self::Index);
        }
        connection.execute(table.drop_index, [])?;
        Ok(Self::Memory(keys))
    }

    /// Makes the index where `more` keys would not fit; whether it did. It counts only once that is committed.
    fn begin_index(&self, connection: &Connection, table: &Table, more: usize) -> rusqlite::Result<bool> {
        let Self::Memory(keys) = self else { return Ok(false) };
        let begins = keys.len() + more > MEMORY_MAX;
        if begins {
            connection.execute(table.create_index, [])?;
        }
        Ok(begins)
    }

    fn extend(&mut self, begins_index: bool, more: impl IntoIterator<Item = (i64, Position)>) {
        match self {
            _ if begins_index => *self = Self::Index,
            Self::Memory(keys) => keys.extend(more),
            Self::Index => {}
        }
    }
}

/// What one transaction adds: it counts once that is committed.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) uids: HashMap<Uid, Position>,
    pub(super) subjects: HashMap<i64, Position>,
}

impl Added {
    /// Makes the indexes that are needed from now on; gives what to do after the commit.
    pub(super) fn prepare(self, places: &Places, connection: &Connection) -> rusqlite::Result<Prepared> {
        Ok(Prepared {
            uids_index: places.uids.begin_index(connection, &DEDUP, self.uids.len())?,
            subjects_index: places.subjects.begin_index(connection, &LATEST, self.subjects.len())?,
            added: self,
        })
    }
}

/// What is committed, and not in memory yet.
pub(super) struct Prepared {
    added: Added,
    uids_index: bool,
    subjects_index: bool,
}

impl Prepared {
    pub(super) fn enter(self, places: &mut Places) {
        let uids = self.added.uids.into_iter().map(|(uid, position)| (short(&uid.0), position));
        places.uids.extend(self.uids_index, uids);
        places.subjects.extend(self.subjects_index, self.added.subjects);
    }
}

/// The first 8 bytes.
fn short(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}
