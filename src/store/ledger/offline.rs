//! Looks at a ledger without running it: what `store inspect`, `verify` and `backup` need, beside a service that may write meanwhile.
//!
//! Invariant: nothing is changed, created anew or set aside, whatever state the file is in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, params};

use super::{Cursor, FORMAT, Head, LedgerError, Stage, read_cursors, read_head};
use crate::event::{Event, Name, Position};

/// A ledger, opened to be read only.
#[derive(Debug)]
pub struct LedgerFile {
    connection: Connection,
    path: PathBuf,
}

/// What checking a ledger found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Events that were read.
    pub events: u64,
    /// Dead letters that were read.
    pub dead_letters: u64,
    /// What is damaged, one line each, at most [`DAMAGE_MAX`].
    pub damage: Vec<String>,
}

/// Beyond this, more lines of damage tell nothing new.
pub const DAMAGE_MAX: usize = 100;

impl LedgerFile {
    /// Opens the ledger of a store's folder; none if it has none yet.
    pub fn open(store: &Path) -> Result<Option<Self>, LedgerError> {
        let path = store.join("ledger.db");
        if !path.exists() {
            return Ok(None);
        }
        let connection =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > FORMAT {
            return Err(LedgerError::Format { found });
        }
        Ok(Some(Self { connection, path }))
    }

    /// How far it has come.
    pub fn head(&self) -> Result<Head, LedgerError> {
        Ok(read_head(&self.connection)?)
    }

    /// The cursor of every sink that ever had one.
    pub fn cursors(&self) -> Result<Vec<(Name, Cursor)>, LedgerError> {
        Ok(read_cursors(&self.connection)?)
    }

    /// How many events for every sink are still kept, as their numbers say.
    pub fn events_kept(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT coalesce(max(position), 0), coalesce(min(position), 0) FROM events";
        let (last, first): (i64, i64) = self.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ordinal = |position: i64| {
            self.connection.query_row("SELECT ordinal FROM events WHERE position = ?", [position], |row| row.get(0))
        };
        if last == 0 {
            return Ok(0);
        }
        let (last, first): (i64, i64) = (ordinal(last)?, ordinal(first)?);
        Ok(last.abs_diff(first) + 1)
    }

    /// How many dead letters there are.
    pub fn dead_letters(&self) -> Result<u64, LedgerError> {
        let count: i64 = self.connection.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Bytes of the file and its write-ahead log.
    pub fn bytes(&self) -> u64 {
        let size = |suffix: &str| fs::metadata(format!("{}{suffix}", self.path.display())).map_or(0, |file| file.len());
        size("") + size("-wal")
    }

    /// Checks SQLite's own structure, and the checksum of every event and dead letter. `progress` hears of every 100,000 rows.
    pub fn check(&self, mut progress: impl FnMut(u64)) -> Result<Checked, LedgerError> {
        let mut checked = Checked::default();
        self.check_structure(&mut checked)?;
        let mut after = i64::MIN;
        loop {
            // In pages, so that a service beside us can fold its write-ahead log in between.
            let sql = "SELECT position, crc, event FROM events WHERE position > ? ORDER BY position LIMIT ?";
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![after, ROWS])?;
            let mut read = 0;
            while let Some(row) = rows.next()? {
                after = row.get(0)?;
                let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
                let sound = row.get::<_, i64>(1)? == i64::from(crc32fast::hash(bytes));
                if !sound || serde_json::from_slice::<Event>(bytes).is_err() {
                    checked.note(format!("event {}: its checksum does not hold", Position(after.unsigned_abs())));
                }
                read += 1;
            }
            checked.events += read;
            if read == 0 {
                break;
            }
            if checked.events.is_multiple_of(100_000) {
                progress(checked.events);
            }
        }
        self.check_dead_letters(&mut checked)?;
        Ok(checked)
    }

    fn check_structure(&self, checked: &mut Checked) -> Result<(), LedgerError> {
        let mut statement = self.connection.prepare(&format!("PRAGMA integrity_check({DAMAGE_MAX})"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let words: String = row.get(0)?;
            if words != "ok" {
                checked.note(format!("SQLite: {words}"));
            }
        }
        Ok(())
    }

    fn check_dead_letters(&self, checked: &mut Checked) -> Result<(), LedgerError> {
        let mut statement = self.connection.prepare("SELECT id, stage, crc, raw FROM dead_letters ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let raw = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            let known = [Stage::Normalize.word(), Stage::Fetch.word(), Stage::Deliver.word()];
            let stage: String = row.get(1)?;
            if row.get::<_, i64>(2)? != i64::from(crc32fast::hash(raw)) || !known.contains(&stage.as_str()) {
                checked.note(format!("dead letter {}: its checksum does not hold", row.get::<_, String>(0)?));
            }
            checked.dead_letters += 1;
        }
        Ok(())
    }

    /// Copies the ledger to `target`, as it stands at one moment, while a service may go on writing.
    pub fn copy_to(&self, target: &Path) -> Result<(), LedgerError> {
        let mut copy = Connection::open(target)?;
        fs::set_permissions(target, fs::Permissions::from_mode(0o600))?;
        // All pages in one step: in several, a write of the service between two of them would begin the copy anew, for ever under load.
        let result = Backup::new(&self.connection, &mut copy)?.step(-1)?;
        if result != StepResult::Done {
            return Err(std::io::Error::from(std::io::ErrorKind::ResourceBusy).into());
        }
        Ok(())
    }
}

impl Checked {
    fn note(&mut self, words: String) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(words);
        }
    }
}

/// Rows of one statement; a divisor of what progress is told at.
const ROWS: i64 = 10_000;
