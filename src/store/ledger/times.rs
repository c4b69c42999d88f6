//! When what stands in the ledger was received, as a mark a while and not a column and an index a row.
//!
//! Positions are given out in the order of arrival, so a row is at least as old as the first mark behind it. That is all a retention asks.
//!
//! Invariant: a later mark has a later time and a later position, whatever the clock does.
//!
//! Not here: what is forgotten (`transaction`).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::transaction::integer;
use crate::event::Position;

/// A mark says that everything up to `position` was received by `at`. There is one for each span of time in which something came.
pub(super) const TABLES: &str =
    "CREATE TABLE IF NOT EXISTS times (span INTEGER PRIMARY KEY, at INTEGER NOT NULL, position INTEGER NOT NULL);";

/// What an earlier format timed by row counts from now: it is kept longer, never shorter.
pub(super) const TAKE_UP: &str = "
DROP INDEX IF EXISTS events_at;
DROP INDEX IF EXISTS dedup_at;
DROP INDEX IF EXISTS latest_at;
ALTER TABLE dedup DROP COLUMN at;
ALTER TABLE latest DROP COLUMN at;
INSERT INTO times SELECT unixepoch() / 600, unixepoch() * 1000, value FROM meta WHERE name = 'position';
";

/// One mark covers this much: fifty thousand of them a year, and nothing goes more than that too late.
const SPAN_MS: i64 = 10 * 60 * 1000;

/// Everything up to `position` was received by `at`, or by the last mark where the clock went back: a time that is too late keeps something for
/// too long, one that is too early would forget what is still asked for.
pub(super) fn mark(connection: &Connection, at: Timestamp, position: Position) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO times (span, at, position) SELECT at / ?3, at, ?2
             FROM (SELECT max(?1, coalesce((SELECT at FROM times ORDER BY span DESC LIMIT 1), 0)) AS at)",
        )?
        .execute(params![at.as_millisecond(), integer(position.0), SPAN_MS])?;
    Ok(())
}

/// What is up to there was received before `at`; none where nothing was.
pub(super) fn position_before(connection: &Connection, at: Timestamp) -> rusqlite::Result<Option<Position>> {
    let at = at.as_millisecond();
    let place: Option<i64> = connection
        .prepare_cached("SELECT position FROM times WHERE span <= ?1 AND at < ?2 ORDER BY span DESC LIMIT 1")?
        .query_row([span(at), at], |row| row.get(0))
        .optional()?;
    Ok(place.map(|position| Position(position.unsigned_abs())))
}

/// Forgets the marks that no retention asks for any more. The last one before `at` still says what goes.
pub(super) fn forget(connection: &Connection, at: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM times WHERE span < (SELECT max(span) FROM times WHERE span < ?)")?
        .execute([span(at.as_millisecond())])?;
    Ok(())
}

const fn span(at_ms: i64) -> i64 {
    at_ms.div_euclid(SPAN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is up to where was received before minute `minute` of a day.
    fn before(connection: &Connection, minute: i64) -> Option<u64> {
        position_before(connection, at(minute)).expect("readable").map(Position::sequence)
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_774_267_200 + 60 * minute).expect("in range")
    }

    #[test]
    fn marks_say_what_was_received_before_a_time_whatever_the_clock_did_meanwhile() {
        let connection = Connection::open_in_memory().expect("opens");
        connection.execute_batch(TABLES).expect("SQL");
        let received = |sequence, at| mark(&connection, at, Position::new(sequence, 0)).expect("written");
        assert_eq!(before(&connection, 0), None);
        for sequence in 1..=90 {
            received(sequence, at(sequence.cast_signed()));
        }
        // A span at a time, and never too early.
        assert_eq!(
            [1, 10, 11, 35, 91].map(|minute| before(&connection, minute)),
            [None, Some(9), Some(9), Some(29), Some(90)]
        );
        // A clock that is weeks behind for a while, or not set at all, makes nothing older than it is.
        received(91, at(-60 * 24 * 21));
        received(92, Timestamp::UNIX_EPOCH);
        assert_eq!([60, 90, 91].map(|minute| before(&connection, minute)), [Some(59), Some(89), Some(92)]);
        // One that was a year ahead keeps what came since, and the size cap can free it all the same.
        received(93, at(60 * 24 * 365));
        received(94, at(100));
        assert_eq!(before(&connection, 101), Some(92));
        let all = position_before(&connection, Timestamp::MAX).expect("readable");
        assert_eq!(all, Some(Position::new(94, 0)));
        forget(&connection, at(50)).expect("forgotten");
        assert_eq!([10, 50].map(|minute| before(&connection, minute)), [None, Some(49)]);
    }
}
