//! The journal: an append-only log in segments of a fixed size, and the only thing on the sender's clock.
//!
//! One writer thread takes what queued during the last sync, writes it, syncs once and answers all; it never waits for more to come.
//!
//! Invariants:
//! - An answer leaves after the sync that covers its record has returned; readers see a record only after that sync, too.
//! - A sequence is never used twice, over restarts and failures; gaps are allowed.
//! - After a failed write or sync the segment is left as it is and never synced again: Linux may report the loss once and then
//!   forget it. What was not yet acknowledged is written anew, under new sequences, into a new segment.
//! - Damage costs the damaged records and never the start.
//!
//! Not here: the bytes of a frame (`segment`), what a record means (`normalize`).

mod answers;
pub mod offline;
mod reader;
mod segment;
mod writer;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::store::{AppendError, Appended, Draft, Journal};

use answers::Waiting;
pub use reader::{Reader, Tally};
use segment::{Opened, Segment, Torn};
use writer::{Pending, Writer};

/// How the journal is laid out and bounded.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the segments.
    pub folder: PathBuf,
    /// Size of a segment: large enough that changing to the next one is rare, small enough that space comes back soon.
    pub segment_bytes: u64,
    /// No sequence below this is given out: what the ledger and the cursors have seen already.
    pub sequence_floor: u64,
}

/// Requests that may wait for the disk: some ten batches. More are answered "busy" at once.
const QUEUE_MAX: usize = 4096;
/// Bytes that may wait for the disk, so that large bodies do not fill the memory first.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The journal on disk.
#[derive(Debug)]
pub struct DiskJournal {
    queue: SyncSender<Pending<Waiting>>,
    queued_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    segment_bytes: u64,
}

/// What the writer publishes and everyone else reads.
#[derive(Debug)]
struct Shared {
    /// All segments, oldest first; the last one is being written.
    segments: Mutex<Vec<Segment>>,
    /// Sequence of the last durable record.
    durable: watch::Sender<u64>,
    /// The latest durable groups.
    recent: Mutex<Recent>,
    /// Set while undelivered data has reached the cap, or the disk is full: appends are refused.
    full: AtomicBool,
    /// Set while there is no space to prepare the next segment.
    short: AtomicBool,
    /// True while records are refused for want of a segment.
    starved: watch::Sender<bool>,
    /// Set once the disk refused twice in a row: the process should end and recover from what is on disk.
    failed: watch::Sender<bool>,
    /// Records that were lost to damage, as found by opening and reading.
    damaged: AtomicU64,
    folder: PathBuf,
}

impl Shared {
    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        // A panic of another holder leaves the list whole: it is only ever pushed to, popped from or updated in one field.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // The same: a group more or less only costs a read from the file.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest durable groups, so that a reader who keeps up reads nothing back from the disk.
#[derive(Debug, Default)]
struct Recent {
    /// Oldest first; none before there is a reader.
    groups: VecDeque<Group>,
    bytes: usize,
    is_wanted: bool,
}

/// Whole frames as they stand in the file, from a place on.
#[derive(Debug, Clone)]
struct Group {
    /// The first sequence of the segment, which tells segments apart.
    segment: u64,
    at: u64,
    frames: Bytes,
}

impl Recent {
    fn push(&mut self, group: Group) {
        self.bytes += group.frames.len();
        self.groups.push_back(group);
        while self.bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.groups.pop_front()
        {
            self.bytes -= oldest.frames.len();
        }
    }

    /// The group that the frame at this place stands in.
    fn find(&self, segment: u64, at: u64) -> Option<Group> {
        let holds =
            |group: &&Group| group.segment == segment && group.at <= at && at < group.at + group.frames.len() as u64;
        self.groups.iter().rev().find(holds).cloned()
    }
}

/// Bytes of groups kept in memory for readers: what comes in while normalize works on one batch.
const RECENT_BYTES_MAX: usize = 8 << 20;

impl DiskJournal {
    /// Opens the journal, or begins one, and starts its writer. Damage is counted and set aside; only a folder that cannot be read or written fails.
    pub fn open(options: &Options) -> io::Result<Self> {
        fs::create_dir_all(&options.folder)?;
        let Found { segments, active, damaged, sequence_floor } = open_segments(&options.folder)?;
        let last = segments.last().map_or(0, |segment| segment.sequence_last).max(options.sequence_floor);
        let shared = Arc::new(Shared {
            segments: Mutex::new(segments),
            durable: watch::Sender::new(last),
            recent: Mutex::default(),
            full: AtomicBool::new(false),
            short: AtomicBool::new(false),
            starved: watch::Sender::new(false),
            failed: watch::Sender::new(false),
            damaged: AtomicU64::new(damaged),
            folder: options.folder.clone(),
        });
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let (queue, requests) = std::sync::mpsc::sync_channel(QUEUE_MAX);
        let writer = Writer::new(shared.clone(), options.segment_bytes, active, last.max(sequence_floor) + 1)?;
        let bytes = queued_bytes.clone();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&requests, &bytes))?;
        Ok(Self { queue, queued_bytes, shared, segment_bytes: options.segment_bytes })
    }

    /// Sequence of the last durable record, and news of the next ones.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }

    /// Turns true once the disk refuses for good.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// A reader that begins after `sequence`.
    pub fn reader(&self, sequence: u64) -> Reader {
        self.shared.recent().is_wanted = true;
        Reader::new(self.shared.clone(), sequence)
    }

    /// Refuses appends, or takes them again: `store.size_max` is reached by undelivered data, or the disk is full. Meanwhile no segment is
    /// prepared: the space is the ledger's.
    pub fn set_full(&self, full: bool) {
        self.shared.full.store(full, Ordering::Relaxed);
    }

    /// Whether appends are refused for want of space.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// True while records are refused because the disk has no room for another segment, and news of that.
    pub fn starved(&self) -> watch::Receiver<bool> {
        self.shared.starved.subscribe()
    }

    /// Records found damaged so far.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.shared.segments().iter().map(|segment| segment.bytes).sum()
    }

    /// The complete segments, oldest first: last sequence, time of the last record, size.
    pub fn sealed(&self) -> Vec<(u64, Timestamp, u64)> {
        let segments = self.shared.segments();
        let complete = segments.len().saturating_sub(1);
        segments[..complete].iter().map(|one| (one.sequence_last, one.last_at, one.bytes)).collect()
    }

    /// Removes complete segments whose last sequence is at most `sequence`, oldest first. The caller knows that nobody needs them.
    pub fn prune(&self, sequence: u64) -> io::Result<usize> {
        let mut removed = 0;
        loop {
            let path = {
                let mut segments = self.shared.segments();
                match segments.first() {
                    Some(oldest) if segments.len() > 1 && oldest.sequence_last <= sequence => segments.remove(0).path,
                    _ => break,
                }
            };
            fs::remove_file(path)?;
            removed += 1;
        }
        if removed > 0 {
            sync_folder(&self.shared.folder)?;
        }
        Ok(removed)
    }
}

#[async_trait]
impl Journal for DiskJournal {
    async fn append(&self, draft: Draft) -> Result<Appended, AppendError> {
        if self.is_full() {
            return Err(AppendError::Full);
        }
        let bytes = usize::try_from(segment::frame_bytes(&draft)).map_err(|_| AppendError::TooLarge)?;
        if bytes as u64 > segment::frames_end(self.segment_bytes) - segment::FRAMES_AT {
            return Err(AppendError::TooLarge);
        }
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(AppendError::Busy);
        }
        let (answer, answered) = Waiting::here();
        if let Err(refused) = self.queue.try_send(Pending { draft, bytes, answer }) {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(match refused {
                TrySendError::Full(_) => AppendError::Busy,
                TrySendError::Disconnected(_) => AppendError::Stopping,
            });
        }
        // The writer answers every request it took; it only goes away when the process does.
        answered.await.unwrap_or(Err(AppendError::Stopping))
    }
}

/// What is in the folder.
#[derive(Default)]
struct Found {
    /// All segments, oldest first.
    segments: Vec<Segment>,
    /// The file of the last one, if it can be written on.
    active: Option<File>,
    /// Records that cannot be read.
    damaged: u64,
    /// No sequence below this may be given out, because nobody can read any more which were.
    sequence_floor: u64,
}

impl Found {
    /// There were records after this sequence, at most as many as fit these bytes.
    fn lost_after(&mut self, sequence: u64, bytes: u64) {
        self.sequence_floor = self.sequence_floor.max(sequence + segment::records_max(bytes) + 1);
    }
}

/// Opens what is in the folder, counts and sets aside what is damaged, and completes what nothing more goes into.
fn open_segments(folder: &Path) -> io::Result<Found> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => paths.push(path),
            // A segment that was being prepared when the process ended.
            Some("new") => fs::remove_file(path)?,
            _ => {}
        }
    }
    // Their names are their first sequences.
    paths.sort();
    let mut found = Found::default();
    let last = paths.last().cloned();
    for path in paths {
        let file = File::options().read(true).write(true).open(&path)?;
        let Some(Opened { segment, sealed, torn }) = segment::open(&path, &file)? else {
            // Without a header there is no salt, and without the salt nothing in it can be believed.
            tracing::error!(segment = %path.display(), "the header of segment {} is damaged, set aside", path.display());
            let first = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()).unwrap_or_default();
            found.lost_after(first, file.metadata()?.len());
            fs::rename(&path, path.with_extension("damaged"))?;
            found.damaged += 1;
            continue;
        };
        if let Some(torn) = torn {
            found.damaged += torn.records;
            found.lost_after(segment.sequence_last, segment.header.bytes - segment.end);
            keep_torn(&path, torn);
        }
        if last.as_ref() == Some(&path) && !sealed && torn.is_none() {
            found.active = Some(file);
        } else if !sealed && let Err(error) = segment::complete(&file, &segment) {
            tracing::warn!(%error, "segment {} could not be completed, the next start scans it again", path.display());
        }
        found.segments.push(segment);
    }
    Ok(found)
}

/// A write that a crash cut short was acknowledged to nobody; damage may have been. Nothing tells them apart.
fn keep_torn(path: &Path, Torn { from, to, records }: Torn) {
    let kept = segment::keep(path, from, to).map(|kept| kept.display().to_string());
    let kept = kept.unwrap_or_else(|error| format!("nowhere ({error})"));
    tracing::error!(
        segment = %path.display(), from, to, records,
        "segment {} ends in what is no whole record: cut short by a crash, or damaged; kept in {kept}", path.display()
    );
}

/// Makes the creation, renaming or removal of files in `folder` durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
