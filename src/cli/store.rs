//! `store`: looks at the folder of the store, checks it and copies it, whether a service runs on it or not.
//!
//! Not here: what stands in the files (`store`).

mod backup;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal::Terminal;
use super::{BAD, Code, Files, GOOD};
use crate::setting::Size;
use crate::store::folder;
use crate::store::journal::offline::{JournalFiles, list, walk};
use crate::store::ledger::offline::LedgerFile;

/// Inspect, verify or back up the folder of the store.
#[derive(Debug, Args)]
#[command(after_help = "Example: verdict-relay store inspect")]
pub(super) struct Store {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show size, segments, cursors and damage that was found.
    #[command(
        after_help = "Example: verdict-relay store inspect --json\n\nReads the folder alone; the service may run or not."
    )]
    Inspect {
        #[command(flatten)]
        folder: Folder,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Read every record and every event, and check their checksums.
    #[command(
        after_help = "Example: verdict-relay store verify\n\nExit code: 0 if all is whole, 1 on damage. The service may run or not."
    )]
    Verify {
        #[command(flatten)]
        folder: Folder,
    },
    /// Copy the store to a new folder, also while the service runs.
    #[command(after_help = "Example: verdict-relay store backup backups/2026-11-21\n\n\
        The copy is a store: to restore it, stop the service and put it where store.path points.\n\
        On the same file system complete journal files are linked, not copied: copy the backup to another disk afterwards.")]
    Backup {
        #[command(flatten)]
        folder: Folder,
        /// The new folder; it must not exist.
        #[arg(value_name = "TARGET")]
        target: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Folder {
    /// The folder of the store. Default: store.path of the config.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

impl Folder {
    fn find(self, files: &Files) -> anyhow::Result<PathBuf> {
        let path = match self.path {
            Some(path) => path,
            None => files.config()?.store.path,
        };
        if !path.is_dir() {
            bail!("there is no store in {}: check store.path, or name the folder with --path", path.display());
        }
        Ok(path)
    }
}

impl Store {
    pub(super) fn run(self, files: &Files, terminal: &mut Terminal) -> anyhow::Result<Code> {
        match self.action {
            Action::Inspect { folder, json } => inspect(&folder.find(files)?, json, terminal),
            Action::Verify { folder } => verify(&folder.find(files)?, terminal),
            Action::Backup { folder, target } => backup::run(&folder.find(files)?, &target, terminal),
        }
    }
}

fn inspect(path: &Path, is_json: bool, terminal: &mut Terminal) -> anyhow::Result<Code> {
    let holder = folder::holder(path).with_context(|| unreadable(path))?;
    let ledger = LedgerFile::open(path).with_context(|| unreadable(path))?;
    let journal = list(&path.join("journal")).with_context(|| unreadable(path))?;
    let journal_bytes: u64 = journal.segments.iter().map(|segment| segment.bytes).sum();
    let sequence = last_sequence(&journal);
    let (mut head, mut cursors, mut numbers) = (None, Vec::new(), [0; 3]);
    if let Some(ledger) = &ledger {
        head = Some(ledger.head()?);
        cursors = ledger.cursors()?;
        numbers = [ledger.bytes(), ledger.events_kept()?, ledger.dead_letters()?];
    }
    let [ledger_bytes, events, dead_letters] = numbers;
    let head = head.unwrap_or_default();
    let set_aside: Vec<String> =
        journal.set_aside.iter().chain(&old_ledgers(path)?).map(|path| path.display().to_string()).collect();
    if is_json {
        let segments: Vec<_> = journal.segments.iter().map(|segment| {
            let content = segment.content;
            json!({
                "file": segment.path.display().to_string(), "bytes": segment.bytes, "sealed": content.map(|content| content.sealed),
                "sequence_first": content.map(|content| content.sequence_first), "sequence_last": content.map(|content| content.sequence_last),
            })
        }).collect();
        let cursors: Vec<_> = cursors.iter().map(|(sink, cursor)| json!({ "sink": sink, "cursor": cursor })).collect();
        terminal.json(&json!({
            "path": path.display().to_string(), "held_by": holder, "bytes": journal_bytes + ledger_bytes, "sequence": sequence,
            "normalized": head.sequence, "events": events, "dead_letters": dead_letters, "segments": segments, "cursors": cursors,
            "set_aside": set_aside,
        }), true)?;
        return Ok(GOOD);
    }
    let held = holder.map_or_else(|| "by no service".to_owned(), |pid| format!("by process {pid}"));
    for (what, value) in [
        ("store", path.display().to_string()),
        ("held", held),
        ("bytes", format!("{} journal, {} ledger", size(journal_bytes), size(ledger_bytes))),
        ("journal", format!("{} segments, sequence {sequence}", journal.segments.len())),
        ("normalized", format!("through sequence {}", head.sequence)),
        ("events", format!("{events} kept of {}", head.ordinal)),
        ("dead letters", dead_letters.to_string()),
        ("set aside", if set_aside.is_empty() { "no damage".to_owned() } else { set_aside.join(", ") }),
    ] {
        terminal.line(format_args!("{what:<13} {value}"))?;
    }
    let row = |(sink, cursor): &(crate::event::Name, crate::store::ledger::Cursor)| {
        let pending = head.ordinal.saturating_sub(cursor.ordinal);
        let counts = [cursor.delivered, pending, cursor.filtered, cursor.dead].map(|count| count.to_string());
        let [delivered, pending, filtered, dead] = counts;
        [sink.to_string(), cursor.position.to_string(), delivered, pending, filtered, dead]
    };
    let rows: Vec<_> = cursors.iter().map(row).collect();
    if !rows.is_empty() {
        terminal.line("")?;
        terminal.table(["CURSOR", "POSITION", "DELIVERED", "PENDING", "FILTERED", "DEAD"], &rows)?;
    }
    Ok(GOOD)
}

fn verify(path: &Path, terminal: &mut Terminal) -> anyhow::Result<Code> {
    // The ledger first: the journal is never behind it, so what a service adds meanwhile makes no difference.
    let ledger = LedgerFile::open(path).with_context(|| unreadable(path))?;
    let head = ledger.as_ref().map(LedgerFile::head).transpose()?.unwrap_or_default();
    let mut damage = Vec::new();
    let journal = list(&path.join("journal")).with_context(|| unreadable(path))?;
    let mut records = 0;
    for (at, segment) in journal.segments.iter().enumerate() {
        terminal.say(format_args!("segment {} of {} ...", at + 1, journal.segments.len()));
        let Some(walked) = walk(&segment.path).with_context(|| format!("cannot read {}", segment.path.display()))?
        else {
            continue;
        };
        records += walked.records;
        let name = segment.path.display();
        damage.extend(
            walked.damage.iter().map(|(from, to)| format!("{name}: bytes {from} to {to} hold no readable record")),
        );
    }
    if last_sequence(&journal) < head.sequence {
        let words = "the end of the journal is lost";
        damage.push(format!(
            "the ledger knows sequence {}, the journal ends at {}: {words}",
            head.sequence,
            last_sequence(&journal)
        ));
    }
    let mut checked = crate::store::ledger::offline::Checked::default();
    if let Some(ledger) = ledger {
        terminal.say("ledger ...");
        match ledger.check(|events| terminal.say(format_args!("ledger, {events} events ..."))) {
            Ok(result) => checked = result,
            Err(error) => damage.push(error.to_string()),
        }
    }
    damage.extend(checked.damage);
    for words in &damage {
        terminal.line(format_args!("damage: {words}"))?;
    }
    terminal.line(format_args!(
        "{records} records, {} events, {} dead letters read",
        checked.events, checked.dead_letters
    ))?;
    if damage.is_empty() {
        terminal.say("all of it is whole");
        return Ok(GOOD);
    }
    terminal.say(format_args!(
        "{} damaged: the service passes over damaged records and rebuilds a damaged ledger at its next start; what the journal lost, only the senders still have",
        damage.len()
    ));
    Ok(BAD)
}

/// Sequence of the journal's last record.
fn last_sequence(journal: &JournalFiles) -> u64 {
    journal.segments.iter().filter_map(|segment| Some(segment.content?.sequence_last)).max().unwrap_or(0)
}

/// Ledgers that were found damaged and set aside.
fn old_ledgers(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in path.read_dir().with_context(|| unreadable(path))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ledger.damaged-") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read the store in {}: run this as the service's user", path.display())
}

/// In the largest unit that leaves at least two digits.
fn size(bytes: u64) -> Size {
    let rounded =
        [30, 20, 10].into_iter().find(|shift| bytes >> shift >= 10).map_or(bytes, |shift| bytes >> shift << shift);
    Size(rounded)
}
