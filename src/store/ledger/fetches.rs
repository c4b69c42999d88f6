//! What has to be asked of the platforms: reports that a message only pointed to, analyses that were announced, and how far each list
//! and stream was read.
//!
//! Invariants: a fetch is one row a source and id, however often it is asked for; rows a source are bounded; a row goes in the
//! transaction that reads its report, so no crash loses or repeats it. All of it comes back from the journal, but for the times of
//! tries and what only saves a question.
//!
//! Not here: asking (`poll`), what an answer means (`normalize`).

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::reader::Reader;
use super::transaction::integer;
use super::{LedgerError, Transaction};
use crate::adapter::FetchId;
use crate::event::{Name, Position, Uid};

/// `fetches`: what waits to be fetched; `meta` counts them, as `fetches:SOURCE`. `reported`: what was read, so that a list need not be
/// fetched again. `expectations`: analyses that must report. `marks`: how far a stream was read.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS fetches (
    source TEXT NOT NULL, fetch TEXT NOT NULL, position INTEGER NOT NULL, first_at INTEGER NOT NULL, next_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL, PRIMARY KEY (source, fetch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reported (
    source TEXT NOT NULL, fetch TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (source, fetch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expectations (
    sequence INTEGER PRIMARY KEY, source TEXT NOT NULL, wanted TEXT NOT NULL, at INTEGER NOT NULL, due_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS marks (
    source TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (source, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fetches_due ON fetches (source, next_at);
CREATE INDEX IF NOT EXISTS reported_at ON reported (at);
CREATE INDEX IF NOT EXISTS expectations_wanted ON expectations (source, wanted);
CREATE INDEX IF NOT EXISTS expectations_due ON expectations (source, due_at);
CREATE INDEX IF NOT EXISTS marks_at ON marks (at);
";

/// Most reports of one source that may wait: at four requests a minute they take two weeks, and more would never come.
pub const FETCHES_MAX: u64 = 100_000;
/// Most analyses of one source that may be announced at once.
pub const EXPECTATIONS_MAX: u64 = 10_000;

/// A report that waits to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Which one.
    pub id: FetchId,
    /// Where the message stands that pointed to it.
    pub position: Position,
    /// When it was first asked for.
    pub first_at: Timestamp,
    /// When to try next.
    pub next_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// An analysis that must report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Sequence of the record that announced it.
    pub sequence: u64,
    /// What is awaited, as `normalize` writes it.
    pub wanted: String,
    /// When it was announced.
    pub at: Timestamp,
    /// When it is late.
    pub due_at: Timestamp,
}

/// What became of a request to fetch something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits now.
    New,
    /// It waited already.
    Known,
    /// [`FETCHES_MAX`] of this source wait already.
    Full,
}

impl Transaction<'_> {
    /// Asks for a report. One that waits already keeps its place.
    pub fn put_fetch(&mut self, source: &Name, fetch: &Fetch) -> Result<Put, LedgerError> {
        let count_name = count_name(source);
        let count: i64 = self
            .sqlite
            .prepare_cached("SELECT coalesce((SELECT value FROM meta WHERE name = ?), 0)")?
            .query_row([&count_name], |row| row.get(0))?;
        if count.unsigned_abs() >= FETCHES_MAX {
            let known = self
                .sqlite
                .prepare_cached("SELECT 1 FROM fetches WHERE source = ? AND fetch = ?")?
                .exists(params![source.as_str(), fetch.id.as_str()])?;
            return Ok(if known { Put::Known } else { Put::Full });
        }
        let values = params![
            source.as_str(),
            fetch.id.as_str(),
            integer(fetch.position.0),
            fetch.first_at.as_millisecond(),
            fetch.next_at.as_millisecond(),
            fetch.attempts
        ];
        let sql = "INSERT OR IGNORE INTO fetches (source, fetch, position, first_at, next_at, attempts) VALUES (?, ?, ?, ?, ?, ?)";
        if self.sqlite.prepare_cached(sql)?.execute(values)? == 0 {
            return Ok(Put::Known);
        }
        self.count_fetches(&count_name, 1)?;
        self.wants = true;
        Ok(Put::New)
    }

    /// Tries a report again later.
    pub fn delay_fetch(&mut self, source: &Name, id: &FetchId, next_at: Timestamp) -> Result<(), LedgerError> {
        self.execute(
            "UPDATE fetches SET next_at = ?, attempts = attempts + 1 WHERE source = ? AND fetch = ?",
            params![next_at.as_millisecond(), source.as_str(), id.as_str()],
        )
    }

    /// The report was read, or will never be; whether it was waited for.
    pub fn remove_fetch(&mut self, source: &Name, id: &FetchId) -> Result<bool, LedgerError> {
        let sql = "DELETE FROM fetches WHERE source = ? AND fetch = ?";
        let removed = self.sqlite.prepare_cached(sql)?.execute(params![source.as_str(), id.as_str()])? > 0;
        if removed {
            self.count_fetches(&count_name(source), -1)?;
        }
        Ok(removed)
    }

    fn count_fetches(&self, name: &str, more: i64) -> Result<(), LedgerError> {
        self.execute(
            "INSERT INTO meta (name, value) VALUES (?1, max(?2, 0)) ON CONFLICT (name) DO UPDATE SET value = max(value + ?2, 0)",
            params![name, more],
        )
    }

    /// The platform's report with this id was read.
    pub fn put_reported(&mut self, source: &Name, id: &FetchId, at: Timestamp) -> Result<(), LedgerError> {
        self.execute(
            "INSERT OR REPLACE INTO reported (source, fetch, at) VALUES (?, ?, ?)",
            params![source.as_str(), id.as_str(), at.as_millisecond()],
        )
    }

    /// Awaits an analysis; `within` says until when.
    pub fn put_expectation(&mut self, source: &Name, expected: &Expected) -> Result<(), LedgerError> {
        self.wants = true;
        let Expected { sequence, wanted, at, due_at } = expected;
        self.execute(
            "INSERT OR REPLACE INTO expectations (sequence, source, wanted, at, due_at) VALUES (?, ?, ?, ?, ?)",
            params![integer(*sequence), source.as_str(), wanted, at.as_millisecond(), due_at.as_millisecond()],
        )
    }

    /// Something reported: nobody waits for it any more. How many did.
    pub fn meet_expectations(&mut self, source: &Name, wanted: &str) -> Result<usize, LedgerError> {
        let sql = "DELETE FROM expectations WHERE source = ? AND wanted = ?";
        Ok(self.sqlite.prepare_cached(sql)?.execute(params![source.as_str(), wanted])?)
    }

    /// Takes one expectation away and gives what it was, if it still stood.
    pub fn take_expectation(&mut self, sequence: u64) -> Result<Option<Expected>, LedgerError> {
        let sql = "DELETE FROM expectations WHERE sequence = ? RETURNING sequence, wanted, at, due_at";
        let mut statement = self.sqlite.prepare_cached(sql)?;
        let mut rows = statement.query([integer(sequence)])?;
        Ok(rows.next()?.map(read_expected).transpose()?)
    }

    /// The stream of this name was read up to `value`.
    pub fn put_mark(&mut self, source: &Name, name: &str, value: &str, at: Timestamp) -> Result<(), LedgerError> {
        self.execute(
            "INSERT OR REPLACE INTO marks (source, name, value, at) VALUES (?, ?, ?, ?)",
            params![source.as_str(), name, value, at.as_millisecond()],
        )
    }

    /// Whether every one of these identities is known.
    pub fn knows_all(&self, uids: &[Uid]) -> Result<bool, LedgerError> {
        for uid in uids {
            if self.position_of(*uid)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Reader {
    /// Reports of a source that are due, the longest due first.
    pub fn fetches_due(&self, source: &Name, now: Timestamp, max: usize) -> Result<Vec<Fetch>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT fetch, position, first_at, next_at, attempts FROM fetches WHERE source = ? AND next_at <= ? ORDER BY next_at LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![source.as_str(), now.as_millisecond(), max])?;
            let mut fetches = Vec::new();
            while let Some(row) = rows.next()? {
                // A row of another version, or a damaged one, is passed over: the pointer is in the journal.
                fetches.extend(read_fetch(row)?);
            }
            Ok(fetches)
        })
    }

    /// When the next report of a source is due, if any waits.
    pub fn next_fetch(&self, source: &Name) -> Result<Option<Timestamp>, LedgerError> {
        let ms: Option<i64> = self.read(|connection| {
            let sql = "SELECT min(next_at) FROM fetches WHERE source = ?";
            connection.prepare_cached(sql)?.query_row([source.as_str()], |row| row.get(0))
        })?;
        Ok(ms.map(time))
    }

    /// How many reports of a source wait.
    pub fn fetches(&self, source: &Name) -> Result<u64, LedgerError> {
        self.count("SELECT coalesce((SELECT value FROM meta WHERE name = 'fetches:' || ?), 0)", source)
    }

    /// Which of these reports need not be fetched: they were read, or wait already.
    pub fn known_reports(&self, source: &Name, ids: &[FetchId]) -> Result<HashSet<FetchId>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM reported WHERE source = ?1 AND fetch = ?2)
                OR EXISTS (SELECT 1 FROM fetches WHERE source = ?1 AND fetch = ?2)";
            let mut statement = connection.prepare_cached(sql)?;
            let mut known = HashSet::new();
            for id in ids {
                if statement.query_row(params![source.as_str(), id.as_str()], |row| row.get(0))? {
                    known.insert(id.clone());
                }
            }
            Ok(known)
        })
    }

    /// Analyses of a source that are late.
    pub fn expectations_due(&self, source: &Name, now: Timestamp, max: usize) -> Result<Vec<Expected>, LedgerError> {
        self.read(|connection| {
            let sql = "SELECT sequence, wanted, at, due_at FROM expectations WHERE source = ? AND due_at <= ? ORDER BY due_at LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            statement.query_map(params![source.as_str(), now.as_millisecond(), max], read_expected)?.collect()
        })
    }

    /// When the next analysis of a source is late that is not yet, if any is awaited.
    pub fn next_expectation(&self, source: &Name, now: Timestamp) -> Result<Option<Timestamp>, LedgerError> {
        let ms: Option<i64> = self.read(|connection| {
            let sql = "SELECT min(due_at) FROM expectations WHERE source = ? AND due_at > ?";
            connection.prepare_cached(sql)?.query_row(params![source.as_str(), now.as_millisecond()], |row| row.get(0))
        })?;
        Ok(ms.map(time))
    }

    /// How many analyses of a source are awaited.
    pub fn expectations(&self, source: &Name) -> Result<u64, LedgerError> {
        self.count("SELECT count(*) FROM expectations WHERE source = ?", source)
    }

    /// How far a stream was read.
    pub fn mark(&self, source: &Name, name: &str) -> Result<Option<String>, LedgerError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT value FROM marks WHERE source = ? AND name = ?")?;
            let mut rows = statement.query(params![source.as_str(), name])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
    }

    fn count(&self, sql: &str, source: &Name) -> Result<u64, LedgerError> {
        let count: i64 =
            self.read(|connection| connection.prepare_cached(sql)?.query_row([source.as_str()], |row| row.get(0)))?;
        Ok(count.unsigned_abs())
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        self.noted(work(self.connection()).map_err(LedgerError::from))
    }
}

/// Name of the count of a source's fetches in `meta`.
fn count_name(source: &Name) -> String {
    format!("fetches:{source}")
}

fn read_fetch(row: &Row<'_>) -> rusqlite::Result<Option<Fetch>> {
    let Some(id) = FetchId::parse(row.get_ref(0)?.as_str()?) else { return Ok(None) };
    Ok(Some(Fetch {
        id,
        position: Position(row.get::<_, i64>(1)?.unsigned_abs()),
        first_at: time(row.get(2)?),
        next_at: time(row.get(3)?),
        attempts: row.get(4)?,
    }))
}

fn read_expected(row: &Row<'_>) -> rusqlite::Result<Expected> {
    Ok(Expected {
        sequence: row.get::<_, i64>(0)?.unsigned_abs(),
        wanted: row.get(1)?,
        at: time(row.get(2)?),
        due_at: time(row.get(3)?),
    })
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::ledger::Ledger;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn fetch(id: &str, second: i64) -> Fetch {
        let id = FetchId::new("task", id).expect("an id");
        Fetch { id, position: Position::new(7, 0), first_at: at(second), next_at: at(second), attempts: 0 }
    }

    #[test]
    fn a_report_waits_once_and_in_the_order_of_its_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let (cape, other) = (name("cape"), name("other"));
        let news = ledger.wants();
        ledger
            .transact(|transaction| {
                assert_eq!(transaction.put_fetch(&cape, &fetch("2", 20))?, Put::New);
                assert_eq!(transaction.put_fetch(&cape, &fetch("1", 10))?, Put::New);
                assert_eq!(transaction.put_fetch(&cape, &fetch("2", 5))?, Put::Known);
                transaction.put_fetch(&other, &fetch("2", 20))
            })
            .expect("committed");
        assert!(news.has_changed().expect("open"));
        let reader = ledger.reader().expect("opens");
        let due = |now: i64| -> Vec<String> {
            let due = reader.fetches_due(&cape, at(now), 10).expect("readable");
            due.into_iter().map(|fetch| fetch.id.id().to_owned()).collect()
        };
        assert_eq!((due(9), due(10), due(20)), (vec![], vec!["1".to_owned()], vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(reader.next_fetch(&cape).expect("readable"), Some(at(10)));
        assert_eq!((reader.fetches(&cape).expect("readable"), reader.fetches(&other).expect("readable")), (2, 1));
        ledger
            .transact(|transaction| {
                transaction.delay_fetch(&cape, &fetch("1", 0).id, at(40))?;
                assert!(transaction.remove_fetch(&cape, &fetch("2", 0).id)?);
                assert!(!transaction.remove_fetch(&cape, &fetch("2", 0).id)?);
                Ok(())
            })
            .expect("committed");
        assert_eq!(due(39), Vec::<String>::new());
        let kept = reader.fetches_due(&cape, at(40), 10).expect("readable").remove(0);
        assert_eq!((kept.attempts, kept.first_at), (1, at(10)));
        assert_eq!(reader.fetches(&cape).expect("readable"), 1);
    }

    #[test]
    fn a_source_may_not_ask_for_more_than_its_share() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let cape = name("cape");
        ledger
            .transact(|transaction| {
                transaction.put_fetch(&cape, &fetch("1", 1))?;
                // As if all the others were there.
                transaction.count_fetches(&count_name(&cape), integer(FETCHES_MAX) - 1)?;
                assert_eq!(transaction.put_fetch(&cape, &fetch("2", 1))?, Put::Full);
                assert_eq!(transaction.put_fetch(&cape, &fetch("1", 1))?, Put::Known);
                assert_eq!(transaction.put_fetch(&name("other"), &fetch("2", 1))?, Put::New);
                transaction.remove_fetch(&cape, &fetch("1", 1).id)?;
                assert_eq!(transaction.put_fetch(&cape, &fetch("2", 1))?, Put::New);
                Ok(())
            })
            .expect("committed");
    }

    #[test]
    fn what_was_read_or_waits_need_not_be_fetched() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let cape = name("cape");
        ledger
            .transact(|transaction| {
                transaction.put_fetch(&cape, &fetch("1", 1))?;
                transaction.put_reported(&cape, &fetch("2", 1).id, at(1))?;
                transaction.put_reported(&name("other"), &fetch("3", 1).id, at(1))?;
                transaction.put_mark(&cape, "ioc_stream", "1774267300", at(1))
            })
            .expect("committed");
        let reader = ledger.reader().expect("opens");
        let ids: Vec<FetchId> = ["1", "2", "3"].map(|id| fetch(id, 0).id).into();
        let known = reader.known_reports(&cape, &ids).expect("readable");
        assert_eq!(known, HashSet::from([ids[0].clone(), ids[1].clone()]));
        assert_eq!(reader.mark(&cape, "ioc_stream").expect("readable").as_deref(), Some("1774267300"));
        assert_eq!(reader.mark(&cape, "other").expect("readable"), None);
    }

    #[test]
    fn an_expectation_is_met_by_what_it_waits_for_and_told_late_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let cape = name("cape");
        let expected = |sequence: u64, wanted: &str, due: i64| Expected {
            sequence,
            wanted: wanted.to_owned(),
            at: at(1),
            due_at: at(due),
        };
        ledger
            .transact(|transaction| {
                transaction.put_expectation(&cape, &expected(3, "id:1", 30))?;
                transaction.put_expectation(&cape, &expected(4, "id:2", 20))?;
                transaction.put_expectation(&cape, &expected(5, "id:1", 10))?;
                assert_eq!(transaction.meet_expectations(&name("other"), "id:1")?, 0);
                Ok(())
            })
            .expect("committed");
        let reader = ledger.reader().expect("opens");
        assert_eq!(reader.next_expectation(&cape, at(9)).expect("readable"), Some(at(10)));
        assert_eq!(reader.next_expectation(&cape, at(10)).expect("readable"), Some(at(20)));
        let due = reader.expectations_due(&cape, at(20), 10).expect("readable");
        assert_eq!(due.iter().map(|due| due.sequence).collect::<Vec<_>>(), [5, 4]);
        ledger
            .transact(|transaction| {
                assert_eq!(transaction.meet_expectations(&cape, "id:1")?, 2);
                assert_eq!(transaction.take_expectation(4)?, Some(expected(4, "id:2", 20)));
                assert_eq!(transaction.take_expectation(4)?, None);
                Ok(())
            })
            .expect("committed");
        assert_eq!(reader.expectations(&cape).expect("readable"), 0);
    }
}
