//! `store backup`: a copy of the store that is consistent although the service goes on writing.
//!
//! The order makes it so. First the complete journal files are linked: whatever the service prunes from now on, the copy keeps. Then the
//! mirror of the cursors and the ledger, each as of one moment. Then the journal files that are new since, and last the one being
//! written. So the copied ledger is never ahead of the copied journal, and what it is behind is normalized again at the first start.
//!
//! Invariants: the target has its name only once it is whole and synced; nothing in the store is changed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{GOOD, size};
use crate::cli::Code;
use crate::cli::terminal::Terminal;
use crate::store::journal::offline::list;
use crate::store::ledger::offline::LedgerFile;

/// Copies the store in `store` to `target`.
pub(super) fn run(store: &Path, target: &Path, terminal: &mut Terminal) -> anyhow::Result<Code> {
    if target.exists() {
        bail!("{} exists already: name a new folder, so that no backup is written over", target.display());
    }
    let partial = PathBuf::from(format!("{}.partial", target.display()));
    if partial.exists() {
        // Left behind by a backup that was killed: nothing in it can be trusted to be of the same moment.
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove the half backup {}", partial.display()))?;
    }
    let journal = partial.join("journal");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&journal)
        .with_context(|| format!("cannot make {}: check the path and who may write there", journal.display()))?;
    let result = copy(store, &partial, &journal, terminal).and_then(|()| {
        sync(&journal)?;
        sync(&partial)?;
        fs::rename(&partial, target).context("the new folder cannot get its name")?;
        sync(target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    });
    if let Err(error) = result {
        // Half a backup is none; if it can't be removed, its name says so.
        let _left_behind = fs::remove_dir_all(&partial);
        return Err(error.context(format!("no backup was made of {}", store.display())));
    }
    terminal.line(target.display())?;
    terminal.say(format_args!("check it with: verdict-relay store verify --path {}", target.display()));
    Ok(GOOD)
}

fn copy(store: &Path, partial: &Path, journal: &Path, terminal: &mut Terminal) -> anyhow::Result<()> {
    let from = store.join("journal");
    let linked = take_segments(&from, journal, false)?;
    terminal.say(format_args!("{linked} complete journal files"));
    let mirror = store.join("cursors");
    if mirror.exists() {
        fs::copy(&mirror, partial.join("cursors")).context("the cursors")?;
        sync(&partial.join("cursors"))?;
    }
    if let Some(ledger) = LedgerFile::open(store)? {
        terminal.say(format_args!("the ledger, {}", size(ledger.bytes())));
        ledger.copy_to(&partial.join("ledger.db"))?;
        sync(&partial.join("ledger.db"))?;
    }
    let more = take_segments(&from, journal, true)?;
    terminal.say(format_args!("{more} journal files written meanwhile"));
    Ok(())
}

/// Takes the segments that the target lacks: complete ones by a link where that goes, and with `is_last` the others by a copy.
fn take_segments(from: &Path, to: &Path, is_last: bool) -> anyhow::Result<usize> {
    let mut taken = 0;
    for segment in list(from)?.segments {
        let target = to.join(segment.path.file_name().expect("it was listed in a folder"));
        let sealed = segment.content.is_some_and(|content| content.sealed);
        if target.exists() || !sealed && !is_last {
            continue;
        }
        // A complete file never changes again, so a link is as good as a copy of it.
        let result = match segment.content {
            Some(content) if !content.sealed => copy_begun(&segment.path, &target, content.end, segment.bytes),
            _ if fs::hard_link(&segment.path, &target).is_ok() => Ok(()),
            _ => fs::copy(&segment.path, &target).map(|_| ()),
        };
        match result {
            Ok(()) => {}
            // Pruned since it was listed: every sink and normalize had done with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot copy {}", segment.path.display())),
        }
        sync(&target)?;
        taken += 1;
    }
    Ok(taken)
}

/// Copies a segment that may be written right now: up to `end`, and zeros from there on. What a whole copy would catch of a
/// write that is on its way would look like damage.
fn copy_begun(from: &Path, to: &Path, end: u64, bytes: u64) -> io::Result<()> {
    let mut begun = File::open(from)?.take(end);
    let mut target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut begun, &mut target)?;
    target.set_len(bytes)
}

fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("cannot sync {}", path.display()))
}
