//! What one transaction of the ledger can do, and how rows look.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::places::{Added, Known, Places};
use super::times;
use super::{Cursor, DeadLetter, Head, LedgerError, Stage, Stored, Tail};
use crate::event::{Event, Name, Position, Uid};

/// One open transaction. Dropped without `commit`, it changes nothing.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(super) sqlite: rusqlite::Transaction<'a>,
    /// Whether there is something new to ask a platform for.
    pub(super) wants: bool,
    inserts: Inserts<'a>,
    places: &'a mut Places,
    ahead: &'a mut Vec<(Name, Cursor)>,
    /// How many of this transaction's events stand before each cursor of `ahead`.
    passed: Vec<u64>,
    /// The head as it was.
    began: Head,
    head: Head,
    /// When the record of the head's sequence was received, if this transaction moved it there.
    received_at: Option<Timestamp>,
    /// The latest of the events that it added.
    events: Tail,
    /// Keys of this transaction's rows: they enter the memory of all keys when it commits.
    added: Added,
}

/// The rows of an event, prepared once a transaction: to look a statement up costs half as much as to run it.
struct Inserts<'a> {
    event: CachedStatement<'a>,
    claim: CachedStatement<'a>,
    latest: CachedStatement<'a>,
    record: CachedStatement<'a>,
}

impl fmt::Debug for Inserts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inserts").finish_non_exhaustive()
    }
}

impl<'a> Inserts<'a> {
    fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            event: connection.prepare_cached(
                "INSERT INTO events (position, ordinal, sink, at, crc, event) VALUES (?, ?, ?, ?, ?, ?)",
            )?,
            claim: connection.prepare_cached("INSERT INTO dedup (position, uid) VALUES (?, ?)")?,
            latest: connection.prepare_cached("INSERT INTO latest (position, key) VALUES (?, ?)")?,
            record: connection
                .prepare_cached("INSERT INTO records (position, subject, source, record) VALUES (?, ?, ?, ?)")?,
        })
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(
        connection: &'a Connection,
        places: &'a mut Places,
        ahead: &'a mut Vec<(Name, Cursor)>,
        head: Head,
    ) -> rusqlite::Result<Self> {
        let inserts = Inserts::prepare(connection)?;
        // Unchecked, because the statements borrow the connection too; the writer's lock lets only one transaction be.
        let sqlite = connection.unchecked_transaction()?;
        let passed = vec![0; ahead.len()];
        let (events, added) = (Tail::default(), Added::default());
        let (began, wants, received_at) = (head, false, None);
        Ok(Self { sqlite, wants, inserts, places, ahead, passed, began, head, received_at, events, added })
    }

    /// Rolls back.
    pub(super) fn abandon(self) {
        if let Err(error) = self.sqlite.rollback() {
            tracing::warn!(%error, "a transaction of the ledger could not be rolled back");
        }
    }

    /// Commits: gives the latest of the events that were added, and the new head.
    pub(super) fn commit(self) -> Result<(Tail, Head), LedgerError> {
        let Self { sqlite, wants: _, inserts: _, places, ahead, passed, began, head, received_at, events, added } =
            self;
        let mut moved = ahead.clone();
        for ((sink, cursor), passed) in moved.iter_mut().zip(passed) {
            if passed > 0 {
                cursor.ordinal += passed;
                cursor.began_at += integer(passed);
                write_cursor(&sqlite, sink, cursor)?;
            }
        }
        if head != began {
            let mut statement = sqlite.prepare_cached(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )?;
            for (name, value) in [("position", head.position.0), ("ordinal", head.ordinal), ("sequence", head.sequence)]
            {
                statement.execute(params![name, integer(value)])?;
            }
        }
        if let Some(at) = received_at {
            times::mark(&sqlite, at, Position::new(head.sequence, Position::INDEX_MAX))?;
        }
        let prepared = added.prepare(places, &sqlite)?;
        sqlite.commit()?;
        moved.retain(|(_, cursor)| cursor.position > head.position);
        *ahead = moved;
        prepared.enter(places);
        Ok((events, head))
    }

    /// The journal up to this sequence, whose record was received at `at`, is normalized.
    pub const fn set_sequence(&mut self, sequence: u64, at: Timestamp) {
        self.head.sequence = sequence;
        self.received_at = Some(at);
    }

    /// How far the ledger had come when this transaction began, and what it added.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Where the event with this identity stands, if there is one.
    pub fn position_of(&self, uid: Uid) -> Result<Option<Position>, LedgerError> {
        if let Some(position) = self.added.uids.get(&uid) {
            return Ok(Some(*position));
        }
        Ok(self.places.of_uid(&self.sqlite, uid)?)
    }

    /// Claims an identity for the event at `position`.
    pub fn claim(&mut self, uid: Uid, position: Position) -> Result<(), LedgerError> {
        self.inserts.claim.execute(params![integer(position.0), uid.0])?;
        self.added.uids.insert(uid, position);
        Ok(())
    }

    /// Adds an event for every sink, or for one only.
    pub fn put_event(&mut self, position: Position, sink: Option<&Name>, event: Event) -> Result<(), LedgerError> {
        if sink.is_none() {
            self.head.ordinal += 1;
            // A rebuild: what the sink has settled comes again, and its count moves along.
            for ((_, cursor), passed) in self.ahead.iter().zip(&mut self.passed) {
                *passed += u64::from(position <= cursor.position);
            }
        }
        let mut bytes = Vec::with_capacity(EVENT_BYTES);
        serde_json::to_writer(&mut bytes, &event)?;
        let size = bytes.len();
        self.inserts.event.execute(params![
            integer(position.0),
            integer(self.head.ordinal),
            sink.map(Name::as_str),
            event.received_at.as_millisecond(),
            crc32fast::hash(&bytes),
            bytes
        ])?;
        self.head.position = self.head.position.max(position);
        let stored = Stored { position, ordinal: self.head.ordinal, sink: sink.cloned(), event: Some(Arc::new(event)) };
        self.events.push(stored, size);
        Ok(())
    }

    /// What is known of a subject, as one source sees it.
    pub fn known<'s>(&self, subject: &'s str, source: &'s Name) -> Result<Known<'s>, LedgerError> {
        Ok(self.places.known(&self.sqlite, &self.added, subject, source)?)
    }

    /// Makes `record` the latest of this subject and source; the event at `position` says so.
    pub fn put_record(
        &mut self,
        known: &Known<'_>,
        position: Position,
        record: &impl Serialize,
    ) -> Result<(), LedgerError> {
        let mut row = Vec::with_capacity(RECORD_BYTES);
        serde_json::to_writer(&mut row, record)?;
        if let Some((before, _)) = &known.latest {
            self.execute("DELETE FROM latest WHERE position = ?", [before])?;
            self.execute("DELETE FROM records WHERE position = ?", [before])?;
        }
        let Known { subject, source, key, .. } = known;
        self.inserts.latest.execute(params![integer(position.0), key])?;
        self.inserts.record.execute(params![integer(position.0), subject, source.as_str(), row])?;
        self.added.subjects.insert(*key, position);
        Ok(())
    }

    /// The cursor of a sink.
    pub fn cursor(&self, sink: &Name) -> Result<Option<Cursor>, LedgerError> {
        let bytes: Option<Vec<u8>> = self
            .sqlite
            .query_row("SELECT cursor FROM cursors WHERE sink = ?", [sink.as_str()], |row| row.get(0))
            .optional()?;
        Ok(bytes.and_then(|bytes| read_cursor(&bytes)))
    }

    /// Moves the cursor of a sink.
    pub fn put_cursor(&mut self, sink: &Name, cursor: &Cursor) -> Result<(), LedgerError> {
        Ok(write_cursor(&self.sqlite, sink, cursor)?)
    }

    /// Position and ordinal right before the oldest event that is still there: where a sink that wants everything begins.
    pub fn before_oldest(&self) -> Result<(Position, u64), LedgerError> {
        let oldest = self
            .sqlite
            .query_row("SELECT position, ordinal FROM events WHERE sink IS NULL ORDER BY position LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .optional()?;
        Ok(oldest.map_or((self.head.position, self.head.ordinal), |(position, ordinal)| {
            (Position(position.saturating_sub(1)), ordinal.saturating_sub(1))
        }))
    }

    /// Keeps a dead letter. One that is there already failed once more: its attempts are counted on and its first time stays.
    pub fn put_dead_letter(&mut self, letter: &DeadLetter) -> Result<(), LedgerError> {
        self.execute(
            "INSERT INTO dead_letters (id, stage, sink, source, position, reason, attempts, first_at, last_at, crc, raw)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, attempts = attempts + excluded.attempts, last_at = excluded.last_at, attempt = NULL",
            params![
                letter.id,
                letter.stage.word(),
                letter.sink.as_ref().map(Name::as_str),
                letter.source.as_str(),
                integer(letter.position.0),
                letter.reason,
                letter.attempts,
                letter.first_at.as_millisecond(),
                letter.last_at.as_millisecond(),
                crc32fast::hash(&letter.raw),
                letter.raw
            ],
        )
    }

    /// One dead letter.
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, LedgerError> {
        Ok(read_dead_letter(&self.sqlite, id)?)
    }

    /// An attempt to deliver a dead letter is under way.
    pub fn begin_attempt(&mut self, id: &str, attempt: u64) -> Result<(), LedgerError> {
        self.execute("UPDATE dead_letters SET attempt = ? WHERE id = ?", params![integer(attempt), id])
    }

    /// The event at a position, as it is stored.
    pub fn event_at(&self, position: Position) -> Result<Option<Arc<Event>>, LedgerError> {
        let mut statement =
            self.sqlite.prepare_cached("SELECT position, ordinal, sink, crc, event FROM events WHERE position = ?")?;
        let stored = statement.query_row([integer(position.0)], read_event).optional()?;
        Ok(stored.and_then(|(stored, _)| stored.event))
    }

    /// Forgets a dead letter; whether there was one.
    pub fn remove_dead_letter(&mut self, id: &str) -> Result<bool, LedgerError> {
        let removed = self.sqlite.execute("DELETE FROM dead_letters WHERE id = ?", [id])?;
        Ok(removed > 0)
    }

    /// Forgets what is older than its retention, at most `rows_max` rows a table, so that no transaction grows long. Events only up to `settled`.
    pub fn prune(&mut self, settled: Position, older: &Retention, rows_max: u32) -> Result<u64, LedgerError> {
        let Retention { events, dedup, verdicts, dead_letters } = *older;
        let before = |at| times::position_before(&self.sqlite, at).map(Option::unwrap_or_default);
        let (deduplicated, recorded) = (before(dedup)?, before(verdicts)?);
        let mut removed = 0;
        for (sql, through) in FORGET.into_iter().zip([before(events)?.min(settled), deduplicated, recorded, recorded]) {
            let values = params![integer(through.0), rows_max];
            removed += self.sqlite.prepare_cached(sql)?.execute(values)? as u64;
        }
        // What was fetched and how far streams were read is of use as long as a second reading would be recognized.
        for (sql, at) in FORGET_TIMED.into_iter().zip([dead_letters, dedup, dedup]) {
            let values = params![at.as_millisecond(), rows_max];
            removed += self.sqlite.prepare_cached(sql)?.execute(values)? as u64;
        }
        times::forget(&self.sqlite, events.min(dedup).min(verdicts))?;
        Ok(removed)
    }

    /// Forgets the oldest dead letters until what all of them keep is at most `bytes_max`.
    pub fn prune_dead_letters(&mut self, bytes_max: u64, rows_max: u32) -> Result<(), LedgerError> {
        let sum = "SELECT coalesce(sum(length(raw)), 0) FROM dead_letters INDEXED BY dead_letters_size";
        let mut bytes = self.sqlite.prepare_cached(sum)?.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs();
        if bytes <= bytes_max {
            return Ok(());
        }
        let mut ids = Vec::new();
        {
            let mut statement =
                self.sqlite.prepare_cached("SELECT id, length(raw) FROM dead_letters ORDER BY last_at LIMIT ?")?;
            let mut rows = statement.query([rows_max])?;
            while bytes > bytes_max
                && let Some(row) = rows.next()?
            {
                ids.push(row.get::<_, String>(0)?);
                bytes = bytes.saturating_sub(row.get::<_, i64>(1)?.unsigned_abs());
            }
        }
        for id in ids {
            self.remove_dead_letter(&id)?;
        }
        Ok(())
    }

    pub(super) fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), LedgerError> {
        self.sqlite.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// Room for most events and records as they are stored.
const EVENT_BYTES: usize = 4096;
const RECORD_BYTES: usize = 512;

/// Forgets at most ?2 rows up to position ?1. They run every second while nobody else can write, so each goes by its key and looks at no more
/// rows than that.
pub(super) const FORGET: [&str; 4] = [
    "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE position <= ?1 ORDER BY position LIMIT ?2)",
    "DELETE FROM dedup WHERE position IN (SELECT position FROM dedup WHERE position <= ?1 ORDER BY position LIMIT ?2)",
    "DELETE FROM records WHERE position IN (SELECT position FROM latest WHERE position <= ?1 ORDER BY position LIMIT ?2)",
    "DELETE FROM latest WHERE position IN (SELECT position FROM latest WHERE position <= ?1 ORDER BY position LIMIT ?2)",
];

/// The same for rows that are older than ?1, by an index.
pub(super) const FORGET_TIMED: [&str; 3] = [
    "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE last_at < ?1 ORDER BY last_at LIMIT ?2)",
    "DELETE FROM reported WHERE (source, fetch) IN (SELECT source, fetch FROM reported WHERE at < ?1 ORDER BY at LIMIT ?2)",
    "DELETE FROM marks WHERE (source, name) IN (SELECT source, name FROM marks WHERE at < ?1 ORDER BY at LIMIT ?2)",
];

/// What is older than this goes.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events.
    pub events: Timestamp,
    /// Deduplication keys.
    pub dedup: Timestamp,
    /// Verdict records.
    pub verdicts: Timestamp,
    /// Dead letters.
    pub dead_letters: Timestamp,
}

/// SQLite's integers are signed; positions and sequences stay far below the sign.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn write_cursor(connection: &Connection, sink: &Name, cursor: &Cursor) -> rusqlite::Result<()> {
    let text = serde_json::to_vec(cursor).expect("a cursor is numbers");
    let mut bytes = crc32fast::hash(&text).to_le_bytes().to_vec();
    bytes.extend_from_slice(&text);
    connection
        .prepare_cached("INSERT OR REPLACE INTO cursors (sink, cursor) VALUES (?, ?)")?
        .execute(params![sink.as_str(), bytes])
        .map(|_| ())
}

/// A cursor as `write_cursor` wrote it; none if its row is damaged.
pub(super) fn read_cursor(row: &[u8]) -> Option<Cursor> {
    let (crc, text) = row.split_first_chunk()?;
    (u32::from_le_bytes(*crc) == crc32fast::hash(text)).then(|| serde_json::from_slice(text).ok()).flatten()
}

/// An event and the size of its row. A row whose checksum does not hold has no event, and keeps its place.
pub(super) fn read_event(row: &Row<'_>) -> rusqlite::Result<(Stored, usize)> {
    let bytes = row.get_ref(4)?.as_blob()?;
    let sound = row.get::<_, i64>(3)? == i64::from(crc32fast::hash(bytes));
    let event = sound.then(|| serde_json::from_slice(bytes).ok()).flatten().map(Arc::new);
    let sink: Option<String> = row.get(2)?;
    let stored = Stored {
        position: Position(row.get::<_, i64>(0)?.unsigned_abs()),
        ordinal: row.get::<_, i64>(1)?.unsigned_abs(),
        sink: sink.and_then(|name| name.parse().ok()),
        event,
    };
    Ok((stored, bytes.len()))
}

const LETTER: &str =
    "SELECT id, stage, sink, source, position, reason, attempts, first_at, last_at, raw, attempt FROM dead_letters";
/// The same without what it keeps: a page of bodies may be gigabytes.
const LETTER_WITHOUT_RAW: &str =
    "SELECT id, stage, sink, source, position, reason, attempts, first_at, last_at, x'', attempt FROM dead_letters";

pub(super) fn read_dead_letter(connection: &Connection, id: &str) -> rusqlite::Result<Option<DeadLetter>> {
    connection.query_row(&format!("{LETTER} WHERE id = ?"), [id], read_letter).optional()
}

pub(super) fn read_dead_letters(
    connection: &Connection,
    after: Option<&str>,
    max: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = connection.prepare_cached(&format!("{LETTER_WITHOUT_RAW} WHERE id > ? ORDER BY id LIMIT ?"))?;
    let rows =
        statement.query_map(params![after.unwrap_or_default(), i64::try_from(max).unwrap_or(i64::MAX)], read_letter)?;
    rows.collect()
}

fn read_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let name = |text: String| {
        text.parse::<Name>()
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))
    };
    let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(DeadLetter {
        id: row.get(0)?,
        stage: Stage::of(row.get_ref(1)?.as_str()?),
        sink: row.get::<_, Option<String>>(2)?.map(name).transpose()?,
        source: name(row.get(3)?)?,
        position: Position(row.get::<_, i64>(4)?.unsigned_abs()),
        reason: row.get(5)?,
        attempts: row.get(6)?,
        first_at: at(row.get(7)?),
        last_at: at(row.get(8)?),
        raw: row.get(9)?,
        attempt: row.get::<_, Option<i64>>(10)?.map(i64::unsigned_abs),
    })
}
