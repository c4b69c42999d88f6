//! Reads the ledger beside its writer: events from memory where they are recent, everything else from the file.
//!
//! Invariant: damage that a reader meets is noted as the writer's is, so that the next start rebuilds the file.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Cursor, DeadLetter, Ledger, LedgerError, Stored, transaction};
use crate::event::{Name, Position};

/// Reads events and cursors, beside the writer.
#[derive(Debug)]
pub struct Reader {
    ledger: Arc<Ledger>,
    connection: Connection,
}

impl Reader {
    pub(super) const fn new(ledger: Arc<Ledger>, connection: Connection) -> Self {
        Self { ledger, connection }
    }

    /// The events after `position` that are for every sink or for `sink`, in order: at most `events_max` and about `bytes_max`.
    pub fn events_after(
        &self,
        position: Position,
        sink: &Name,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, LedgerError> {
        match self.tail_after(position, sink, events_max) {
            Some(events) => Ok(events),
            None => self.noted(self.rows_after(position, sink, events_max, bytes_max)),
        }
    }

    fn rows_after(
        &self,
        position: Position,
        sink: &Name,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Stored>, LedgerError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT position, ordinal, sink, crc, event FROM events WHERE position > ? AND (sink IS NULL OR sink = ?) ORDER BY position LIMIT ?",
            )?;
        let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![transaction::integer(position.0), sink.as_str(), limit])?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let (stored, size) = transaction::read_event(row)?;
            bytes += size;
            events.push(stored);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(events)
    }

    fn tail_after(&self, position: Position, sink: &Name, events_max: usize) -> Option<Vec<Stored>> {
        let tail = self.ledger.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if position < tail.after {
            return None;
        }
        let first = tail.events.partition_point(|(stored, _)| stored.position <= position);
        let fits = tail
            .events
            .range(first..)
            .map(|(stored, _)| stored)
            .filter(|stored| stored.sink.as_ref().is_none_or(|name| name == sink));
        Some(fits.take(events_max).cloned().collect())
    }

    /// When the oldest event after `position` was received.
    pub fn oldest_after(&self, position: Position) -> Result<Option<Timestamp>, LedgerError> {
        let mut statement =
            self.connection.prepare_cached("SELECT at FROM events WHERE position > ? ORDER BY position LIMIT 1")?;
        let at = statement.query_row([transaction::integer(position.0)], |row| row.get::<_, i64>(0)).optional();
        let at = self.noted(at.map_err(LedgerError::from))?;
        Ok(at.and_then(|ms| Timestamp::from_millisecond(ms).ok()))
    }

    /// The cursor of every sink that ever had one.
    pub fn cursors(&self) -> Result<Vec<(Name, Cursor)>, LedgerError> {
        self.noted(read_cursors(&self.connection).map_err(LedgerError::from))
    }

    /// Dead letters by id, beginning after `after`; without their raw bytes, which only `dead_letter` gives.
    pub fn dead_letters(&self, after: Option<&str>, max: usize) -> Result<Vec<DeadLetter>, LedgerError> {
        self.noted(transaction::read_dead_letters(&self.connection, after, max).map_err(LedgerError::from))
    }

    /// One dead letter.
    pub fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>, LedgerError> {
        self.noted(transaction::read_dead_letter(&self.connection, id).map_err(LedgerError::from))
    }

    /// How many dead letters there are, by stage and sink.
    pub fn dead_letter_counts(&self) -> Result<Vec<(String, Option<String>, u64)>, LedgerError> {
        let mut statement =
            self.connection.prepare_cached("SELECT stage, sink, count(*) FROM dead_letters GROUP BY stage, sink")?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs())))?;
        self.noted(rows.collect::<Result<_, _>>().map_err(LedgerError::from))
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn noted<T>(&self, result: Result<T, LedgerError>) -> Result<T, LedgerError> {
        result.map_err(|error| self.ledger.noted(error))
    }
}

pub(super) fn read_cursors(connection: &Connection) -> rusqlite::Result<Vec<(Name, Cursor)>> {
    let mut statement = connection.prepare_cached("SELECT sink, cursor FROM cursors ORDER BY sink")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut cursors = Vec::new();
    for row in rows {
        let (sink, cursor) = row?;
        // What cannot be read comes back from the mirror; without it the sink begins anew: it gets events twice, and loses none.
        if let (Ok(sink), Some(cursor)) = (sink.parse(), transaction::read_cursor(&cursor)) {
            cursors.push((sink, cursor));
        }
    }
    Ok(cursors)
}
