//! The ledger: everything that is derived from the journal, in one SQLite file.
//!
//! Invariants: one writing connection; an event, its deduplication key, its verdict record, its dead letters and the journal position
//! move in one transaction; every stored event and dead letter carries its own checksum, because SQLite does not check pages.
//! A ledger that cannot be read is set aside and rebuilt from the journal, while cursors go on where they were (`mirror`).
//!
//! Not here: what the rows mean (`normalize`, `deliver`).

mod fetches;
mod jobs;
mod mirror;
pub mod offline;
mod places;
mod reader;
mod rows;
mod times;
mod transaction;

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::event::{Event, Name, Position};

pub use fetches::{EXPECTATIONS_MAX, Expected, FETCHES_MAX, Fetch, Put};
pub use jobs::{Job, JobState, Work};
use mirror::Mirror;
pub use places::Known;
use places::Places;
pub use reader::Reader;
use reader::read_cursors;
use rows::id_as_text;
pub use rows::{Cursor, DeadLetter, Stage};
pub use transaction::{Retention, Transaction};

/// Why the ledger could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No space: reads and, from the reserve, cursors still go on.
    #[error("the disk of the ledger is full")]
    Full,
    /// The file is damaged: the next start sets it aside and rebuilds it.
    #[error(
        "the ledger is damaged ({0}); restart the service: it sets the file aside and rebuilds it from the journal"
    )]
    Damaged(#[source] rusqlite::Error),
    /// Written by a newer version of this program.
    #[error("the store has format {found}, this version reads {FORMAT}: install a newer version; nothing was changed")]
    Format {
        /// What the file says.
        found: i64,
    },
    /// Anything else that SQLite refuses.
    #[error("the ledger: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// The file system refuses.
    #[error("the ledger: {0}")]
    Io(#[source] std::io::Error),
    /// A row that this program wrote and cannot read.
    #[error("a row of the ledger: {0}")]
    Row(#[from] serde_json::Error),
}

impl From<std::io::Error> for LedgerError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull { Self::Full } else { Self::Io(error) }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            _ => Self::Sqlite(error),
        }
    }
}

/// One event of the ledger.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// How many events for every sink there are up to and with this one.
    pub ordinal: u64,
    /// The one sink it is for, if an operator sent it again; none for every sink.
    pub sink: Option<Name>,
    /// The event; none if its row is damaged.
    pub event: Option<Arc<Event>>,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    writer: Mutex<Writer>,
    tail: Mutex<Tail>,
    head: watch::Sender<Head>,
    /// Something is new in what has to be asked of a platform.
    wants: watch::Sender<()>,
    mirror: Mutex<Mirror>,
    rebuilt: bool,
    /// Whether something could not be written for want of space.
    was_full: AtomicBool,
}

/// How far the ledger has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Position of the last event.
    pub position: Position,
    /// How many events for every sink there are.
    pub ordinal: u64,
    /// Everything in the journal up to this sequence is normalized.
    pub sequence: u64,
}

#[derive(Debug)]
struct Writer {
    connection: Connection,
    places: Places,
    /// Cursors that stand after the last event: those of a ledger that is being rebuilt. Empty otherwise.
    ahead: Vec<(Name, Cursor)>,
}

/// The latest events, so that sinks which keep up need not read what was just written.
#[derive(Debug, Default)]
struct Tail {
    /// Each with the size of its row.
    events: VecDeque<(Stored, usize)>,
    bytes: usize,
    /// The tail holds everything after this position.
    after: Position,
}

impl Tail {
    /// Adds the next event, and lets go of the oldest ones where it holds too much.
    fn push(&mut self, stored: Stored, bytes: usize) {
        self.bytes += bytes;
        self.events.push_back((stored, bytes));
        while self.events.len() > TAIL_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some((oldest, bytes)) = self.events.pop_front() else { break };
            self.bytes -= bytes;
            self.after = oldest.position;
        }
    }
}

/// Events of the tail: a few batches of every sink. Most have about 2 KB.
const TAIL_MAX: usize = 4096;
/// Bytes of their rows together: one event may have some 80 KB, and the process has to stay small.
const TAIL_BYTES_MAX: usize = 16 << 20;
/// Version of the tables. A newer one is refused before anything is touched.
const FORMAT: i64 = 3;
/// SQLite before this loses data when two connections checkpoint at once (sqlite.org/wal.html, "WAL reset bug").
const SQLITE_MIN: i32 = 3_051_003;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY, ordinal INTEGER NOT NULL, sink TEXT, at INTEGER NOT NULL, crc INTEGER NOT NULL, event BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS dedup (position INTEGER PRIMARY KEY, uid BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS latest (position INTEGER PRIMARY KEY, key INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY, subject TEXT NOT NULL, source TEXT NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, cursor BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    id TEXT PRIMARY KEY, stage TEXT NOT NULL, sink TEXT, source TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL,
    attempts INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, crc INTEGER NOT NULL, raw BLOB NOT NULL,
    attempt INTEGER);
CREATE INDEX IF NOT EXISTS dead_letters_last_at ON dead_letters (last_at);
CREATE INDEX IF NOT EXISTS dead_letters_size ON dead_letters (stage, sink, length(raw));
";

impl Ledger {
    /// Opens the ledger in `folder`, or begins one. A damaged one is set aside and begun anew: everything in it comes back from the journal.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        assert!(rusqlite::version_number() >= SQLITE_MIN, "the bundled SQLite is recent");
        let path = folder.join("ledger.db");
        let suspect = folder.join("ledger.suspect");
        let mirror = Mirror::open(folder)?;
        let mut damage = suspect.exists().then(|| "an earlier run found it damaged".to_owned());
        if damage.is_none() {
            match Self::try_open(&path, mirror.clone()) {
                Err(LedgerError::Damaged(source)) => damage = Some(source.to_string()),
                result => return result,
            }
        }
        let aside = folder.join(format!("ledger.damaged-{}", Timestamp::now().as_second()));
        let words = damage.unwrap_or_default();
        tracing::error!(aside = %aside.display(), "the ledger is damaged ({words}), set aside as {} and rebuilt from the journal", aside.display());
        for suffix in ["", "-wal", "-shm"] {
            let part = PathBuf::from(format!("{}{suffix}", path.display()));
            if part.exists() {
                fs::rename(&part, format!("{}{suffix}", aside.display()))?;
            }
        }
        let ledger = Self::try_open(&path, mirror)?;
        if suspect.exists() {
            fs::remove_file(suspect)?;
        }
        Ok(Self { rebuilt: true, ..ledger })
    }

    fn try_open(path: &Path, mirror: Mirror) -> Result<Self, LedgerError> {
        // Before SQLite makes it, with the rights that its log then gets as well.
        fs::File::options().append(true).create(true).mode(0o600).open(path)?;
        let connection = connect(path)?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if format > FORMAT {
            return Err(LedgerError::Format { found: format });
        }
        connection.execute_batch(TABLES)?;
        connection.execute_batch(fetches::TABLES)?;
        connection.execute_batch(jobs::TABLES)?;
        connection.execute_batch(times::TABLES)?;
        if format == 1 {
            connection.execute_batch("ALTER TABLE dead_letters ADD COLUMN attempt INTEGER")?;
        }
        if format == 1 || format == 2 {
            connection.execute_batch(times::TAKE_UP)?;
        }
        // A start on a full disk writes nothing that is there already.
        if format != FORMAT {
            connection.pragma_update(None, "user_version", FORMAT)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let head = read_head(&connection)?;
        restore_cursors(&connection, &mirror, head)?;
        let mut ahead = read_cursors(&connection)?;
        ahead.retain(|(_, cursor)| cursor.position > head.position);
        let places = Places::load(&connection)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(Writer { connection, places, ahead }),
            tail: Mutex::new(Tail { after: head.position, ..Tail::default() }),
            head: watch::Sender::new(head),
            wants: watch::Sender::new(()),
            mirror: Mutex::new(mirror),
            rebuilt: false,
            was_full: AtomicBool::new(false),
        })
    }

    /// How far the ledger has come, and news of it.
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// News of something new to ask a platform for.
    pub fn wants(&self) -> watch::Receiver<()> {
        self.wants.subscribe()
    }

    /// The smallest sequence that the journal may give out next: what the ledger or the mirror has seen is never used again.
    pub fn sequence_floor(&self) -> u64 {
        let head = *self.head.borrow();
        self.mirror().sequence().max(head.sequence).max(head.position.sequence())
    }

    /// Whether this start found the ledger damaged and began it anew.
    pub const fn rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Whether something could not be written for want of space since this was last asked.
    pub fn was_full(&self) -> bool {
        self.was_full.swap(false, Ordering::Relaxed)
    }

    /// Runs `work` in one transaction: all of it becomes durable, or nothing. Blocking: not for an async thread under load.
    pub fn transact<T>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { connection, places, ahead } = &mut *guard;
        let begun = Transaction::begin(connection, places, ahead, *self.head.borrow());
        let mut transaction = begun.map_err(|error| self.noted(error.into()))?;
        let result = match work(&mut transaction) {
            Ok(result) => result,
            Err(error) => {
                transaction.abandon();
                return Err(self.noted(error));
            }
        };
        let wants = transaction.wants;
        let (events, head) = transaction.commit().map_err(|error| self.noted(error))?;
        // Before the head moves: a sink that hears of it looks here first. Still under the writer's lock, so in order.
        self.extend_tail(events);
        self.head.send_if_modified(|current| std::mem::replace(current, head) != head);
        if wants {
            self.wants.send_replace(());
        }
        Ok(result)
    }

    /// A connection of one's own to read with; one a sink.
    pub fn reader(self: &Arc<Self>) -> Result<Reader, LedgerError> {
        let connection = connect(&self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Reader::new(self.clone(), connection))
    }

    /// Mirrors the cursors to a file of their own, so that a damaged ledger does not take them along. Called every second.
    pub fn save_mirror(&self) -> Result<(), LedgerError> {
        let head = *self.head.borrow();
        let cursors = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            read_cursors(&writer.connection)?
        };
        self.mirror().save(head, cursors)?;
        Ok(())
    }

    /// Moves what is committed from the write-ahead log into the file; whether all of it could be moved. What the journal forgets after
    /// that is safe from damage to the log.
    pub fn checkpoint(&self) -> Result<bool, LedgerError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (pages, moved): (i64, i64) = writer
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
            .map_err(|error| self.noted(error.into()))?;
        Ok(pages == moved)
    }

    /// Gives at most `pages_max` unused pages of the file back to the disk; how many there were.
    pub fn shrink(&self, pages_max: u32) -> Result<u64, LedgerError> {
        let pages = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let unused = || writer.connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
            let before = unused()?;
            if before > 0 {
                // It gives a row a page, and stops where nobody asks for the next.
                let mut statement = writer.connection.prepare(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
            }
            (before - unused()?).unsigned_abs()
        };
        if pages > 0 {
            // The file ends earlier only once the log is in it.
            self.checkpoint()?;
        }
        Ok(pages)
    }

    /// Bytes of the file and its write-ahead log.
    pub fn bytes(&self) -> u64 {
        let size = |suffix: &str| fs::metadata(format!("{}{suffix}", self.path.display())).map_or(0, |file| file.len());
        size("") + size("-wal")
    }

    /// Copies the ledger to `target` while it is in use (SQLite's online backup).
    pub fn backup(&self, target: &Path) -> Result<(), LedgerError> {
        let source = connect(&self.path)?;
        Ok(source.backup("main", target, None::<fn(rusqlite::backup::Progress)>)?)
    }

    fn extend_tail(&self, events: Tail) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if events.after > Position::default() {
            // More than the tail holds came at once.
            *tail = events;
            return;
        }
        for (stored, bytes) in events.events {
            tail.push(stored, bytes);
        }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that there is no space, for the keeper; leaves a mark on disk for the next start where the file turns out to be damaged.
    fn noted(&self, error: LedgerError) -> LedgerError {
        match &error {
            LedgerError::Full => self.was_full.store(true, Ordering::Relaxed),
            LedgerError::Damaged(_) => {
                if let Err(io) = fs::write(self.path.with_extension("suspect"), b"") {
                    tracing::error!(error = %io, "could not mark the ledger as damaged");
                }
            }
            _ => {}
        }
        error
    }
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    // In a file that has pages already the second of them would write, and whoever is writing then would fail.
    if connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0 {
        connection.execute_batch("PRAGMA page_size = 16384; PRAGMA auto_vacuum = INCREMENTAL;")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 800;
             PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;
             PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;",
    )?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    assert_eq!(synchronous, 2, "every commit is synced");
    Ok(connection)
}

/// Cursors that the ledger has lost, from the mirror. Positions stay what they are, because they come from the journal; the count begins
/// anew where the events before them have to come again.
fn restore_cursors(connection: &Connection, mirror: &Mirror, head: Head) -> Result<(), LedgerError> {
    let known: std::collections::HashMap<Name, Cursor> = read_cursors(connection)?.into_iter().collect();
    let mut restored = 0;
    for (sink, cursor) in mirror.cursors() {
        if known.get(sink).is_none_or(|known| known.position < cursor.position) {
            let anew = cursor.position > head.position;
            let cursor = if anew { cursor.clone().counted_anew(head.ordinal) } else { cursor.clone() };
            transaction::write_cursor(connection, sink, &cursor)?;
            restored += 1;
        }
    }
    if restored > 0 {
        tracing::warn!(
            restored,
            "the ledger is behind what was settled, {restored} cursors restored from their mirror"
        );
    }
    Ok(())
}

fn read_head(connection: &Connection) -> rusqlite::Result<Head> {
    let last = connection
        .query_row("SELECT position, ordinal FROM events ORDER BY position DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
        })
        .optional()?
        .unwrap_or_default();
    let meta = |name: &str| {
        connection
            .query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get::<_, i64>(0))
            .optional()
            .map(|value| value.unwrap_or_default().unsigned_abs())
    };
    // Events may all be pruned, so what is said of the last one is kept beside them too.
    Ok(Head {
        position: Position(last.0.max(meta("position")?)),
        ordinal: last.1.max(meta("ordinal")?),
        sequence: meta("sequence")?,
    })
}

#[cfg(test)]
mod tests;
