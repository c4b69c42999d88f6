//! Looks at a journal without running it: what `store inspect`, `verify` and `backup` need, beside a service that may write meanwhile.
//!
//! Invariants: nothing in the folder is changed; bytes after the last good frame of a segment without a footer are no damage: they
//! were never acknowledged.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::segment::{self, FRAMES_AT, Opened, Scan, Step};

/// One file of a journal.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What it holds; none if both copies of its header are damaged.
    pub content: Option<SegmentContent>,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentContent {
    /// No record of it has a smaller sequence.
    pub sequence_first: u64,
    /// Sequence of its last record; one less than `sequence_first` if it holds none.
    pub sequence_last: u64,
    /// Whether it is complete: nothing more goes into it.
    pub sealed: bool,
    /// Where its last good frame ends; what follows was not acknowledged when this was read.
    pub end: u64,
}

/// What a journal's folder holds.
#[derive(Debug, Clone, Default)]
pub struct JournalFiles {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentFile>,
    /// Files with damage that was found earlier and kept for a person.
    pub set_aside: Vec<PathBuf>,
}

/// What walking a segment found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// Records that hold.
    pub records: u64,
    /// Stretches of bytes that hold no record and should: from where to where.
    pub damage: Vec<(u64, u64)>,
}

/// Lists a journal's folder; nothing, if there is none yet. Reads only headers, footers and the segment that is being written.
pub fn list(folder: &Path) -> io::Result<JournalFiles> {
    let mut files = JournalFiles::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => paths.push(path),
            Some("damaged") => files.set_aside.push(path),
            _ => {}
        }
    }
    paths.sort();
    files.set_aside.sort();
    for path in paths {
        let Some(file) = open_if_there(&path)? else { continue };
        let content = segment::open(&path, &file)?.map(|Opened { segment, sealed, .. }| SegmentContent {
            sequence_first: segment.header.sequence_first,
            sequence_last: segment.sequence_last,
            sealed,
            end: segment.end,
        });
        files.segments.push(SegmentFile { bytes: file.metadata()?.len(), path, content });
    }
    Ok(files)
}

/// Reads every frame of a segment; none if the segment is gone meanwhile. One whose header is damaged is damage as a whole.
pub fn walk(path: &Path) -> io::Result<Option<Walk>> {
    let Some(file) = open_if_there(path)? else { return Ok(None) };
    let mut walk = Walk::default();
    let Some(Opened { segment, .. }) = segment::open(path, &file)? else {
        walk.damage.push((0, file.metadata()?.len()));
        return Ok(Some(walk));
    };
    let mut scan = Scan::new(FRAMES_AT);
    while let Some(step) = scan.next(&file, segment.header.salt, segment.end)? {
        match step {
            Step::Record(_) => walk.records += 1,
            Step::Damage { from, to } => walk.damage.push((from, to)),
        }
    }
    Ok(Some(walk))
}

/// A segment that was pruned since it was listed is none.
fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
