//! The journal's writer: one thread, one group of requests after the other, one sync a group.
//!
//! Not here: how requests get into the queue and what readers see of the files (`journal`, `reader`).

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::OFlags;
use tokio::sync::oneshot;

use super::segment::{self, FRAMES_AT, Header, Segment, TAIL_BYTES};
use super::{Shared, sync_folder};
use crate::event::Name;
use crate::store::folder::Space;
use crate::store::{AppendError, Appended, Draft};

/// Requests of one group: more would make the first one wait for the copying of the last.
const GROUP_MAX: usize = 512;
/// Bytes of one group.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Proof values remembered: the exact repeats of several minutes at full rate. Older ones are found by normalize, by uid.
const REPEATS_MAX: usize = 1 << 16;

/// How soon it is seen that the store is not full any more.
const FULL_LOOK: Duration = Duration::from_millis(20);
/// Pause before another try to prepare a segment.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a record waits before it asks whether there is space at all.
const SPACE_ASKED_AFTER: Duration = Duration::from_millis(10);

/// One request, with the way to answer it.
#[derive(Debug)]
pub(super) struct Pending<A> {
    pub(super) draft: Draft,
    pub(super) bytes: usize,
    pub(super) answer: A,
}

/// How a group's requests are answered. A trait only so that the group commit can be run under every thread schedule.
pub(super) trait Answer {
    fn answer(self, result: Result<Appended, AppendError>);
}

impl Answer for oneshot::Sender<Result<Appended, AppendError>> {
    fn answer(self, result: Result<Appended, AppendError>) {
        // A client that went away does not undo the write.
        let _gone = self.send(result);
    }
}

/// Where a group goes: written and synced before it becomes visible.
pub(super) trait Log {
    /// Writes the drafts and syncs; gives the sequence of each. On an error none of them counts.
    fn store(&mut self, drafts: &[&Draft]) -> Result<Vec<u64>, AppendError>;
    /// Lets readers see what `store` made durable.
    fn publish(&mut self);
}

/// Commits one group: writes what is no repeat, syncs, publishes, remembers, and only then answers.
pub(super) fn commit<A: Answer>(log: &mut impl Log, repeats: &mut Repeats, group: Vec<Pending<A>>) {
    // For each request: the place in `drafts` that its answer comes from, or the sequence it repeats.
    let mut drafts: Vec<&Draft> = Vec::with_capacity(group.len());
    let mut places = Vec::with_capacity(group.len());
    let mut fresh: HashMap<(&Name, [u8; 16]), usize> = HashMap::new();
    for Pending { draft, .. } in &group {
        let known = draft.repeat.and_then(|repeat| repeats.sequence(&draft.source, repeat));
        let twin = draft.repeat.and_then(|repeat| fresh.get(&(&draft.source, repeat)).copied());
        let place = match (known, twin) {
            (Some(sequence), _) => Place::Known(sequence),
            (None, Some(index)) => Place::Repeats(index),
            (None, None) => {
                if let Some(repeat) = draft.repeat {
                    fresh.insert((&draft.source, repeat), drafts.len());
                }
                drafts.push(draft);
                Place::Written(drafts.len() - 1)
            }
        };
        places.push(place);
    }
    let stored = if drafts.is_empty() { Ok(Vec::new()) } else { log.store(&drafts) };
    if stored.is_ok() {
        log.publish();
    }
    for (Pending { draft, answer, .. }, place) in group.into_iter().zip(places) {
        let result = match (place, &stored) {
            (Place::Known(sequence), _) => Ok(Appended { sequence, repeat: true }),
            (Place::Repeats(index), Ok(sequences)) => Ok(Appended { sequence: sequences[index], repeat: true }),
            (Place::Written(index), Ok(sequences)) => {
                if let Some(repeat) = draft.repeat {
                    repeats.remember(draft.source, repeat, sequences[index]);
                }
                Ok(Appended { sequence: sequences[index], repeat: false })
            }
            (_, Err(error)) => Err(*error),
        };
        answer.answer(result);
    }
}

enum Place {
    /// Durable since an earlier group.
    Known(u64),
    /// The same as another one of this group.
    Repeats(usize),
    /// Written by this group.
    Written(usize),
}

/// The proof values of the latest durable records.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    sequences: HashMap<(Name, [u8; 16]), u64>,
    order: VecDeque<(Name, [u8; 16])>,
}

impl Repeats {
    fn sequence(&self, source: &Name, repeat: [u8; 16]) -> Option<u64> {
        self.sequences.get(&(source.clone(), repeat)).copied()
    }

    fn remember(&mut self, source: Name, repeat: [u8; 16], sequence: u64) {
        if self.order.len() == REPEATS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sequences.remove(&oldest);
        }
        self.order.push_back((source.clone(), repeat));
        self.sequences.insert((source, repeat), sequence);
    }
}

/// The writer's own state: the segment it writes, and the one that waits.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// The segment being written; none after a failure, or before the first record.
    active: Option<Active>,
    sequence_next: u64,
    /// Asks for the next prepared file, and takes it.
    prepare: SyncSender<()>,
    prepared: Receiver<io::Result<(PathBuf, File)>>,
    buffer: Vec<u8>,
    /// What the last `store` made durable, for `publish`.
    stored: Vec<Segment>,
}

#[derive(Debug)]
struct Active {
    file: File,
    segment: Segment,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        segment_bytes: u64,
        active: Option<File>,
        sequence_next: u64,
    ) -> io::Result<Self> {
        let active = active.map(|file| {
            let segment = shared.segments().last().cloned().expect("an open file belongs to the last segment");
            Active { file, segment }
        });
        let (prepare, orders) = std::sync::mpsc::sync_channel(1);
        let (deliver, prepared) = std::sync::mpsc::sync_channel(1);
        let preparing = shared.clone();
        std::thread::Builder::new()
            .name("journal-prepare".to_owned())
            .spawn(move || prepare_files(&preparing, segment_bytes, &orders, &deliver))?;
        prepare.send(()).expect("the thread was just started");
        Ok(Self {
            shared,
            segment_bytes,
            active,
            sequence_next,
            prepare,
            prepared,
            buffer: Vec::with_capacity(GROUP_BYTES_MAX),
            stored: Vec::new(),
        })
    }

    /// Takes what is queued, commits it, and so on until the last handle of the journal is gone.
    pub(super) fn run(
        mut self,
        requests: &Receiver<Pending<oneshot::Sender<Result<Appended, AppendError>>>>,
        queued_bytes: &AtomicUsize,
    ) {
        let mut repeats = Repeats::default();
        while let Ok(first) = requests.recv() {
            let mut bytes = first.bytes;
            let mut group = vec![first];
            while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(next) = requests.try_recv() else { break };
                bytes += next.bytes;
                group.push(next);
            }
            commit(&mut self, &mut repeats, group);
            queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Writes and syncs the drafts, into as many segments as they need. An error leaves the active segment behind for good.
    fn try_store(&mut self, drafts: &[&Draft]) -> io::Result<Vec<u64>> {
        self.stored.clear();
        let mut sequences = Vec::with_capacity(drafts.len());
        let mut rest = drafts;
        while !rest.is_empty() {
            let mut active = self.take_active(segment::frame_bytes(rest[0]))?;
            let room = active.segment.bytes - TAIL_BYTES - active.segment.end;
            self.buffer.clear();
            let mut taken = 0;
            for draft in rest {
                if self.buffer.len() as u64 + segment::frame_bytes(draft) > room {
                    break;
                }
                let Segment { end, header, .. } = active.segment;
                segment::write_frame(&mut self.buffer, end, header.salt, self.sequence_next, draft);
                active.segment.sequence_last = self.sequence_next;
                active.segment.last_at = draft.at;
                sequences.push(self.sequence_next);
                self.sequence_next += 1;
                taken += 1;
            }
            rest = &rest[taken..];
            let end = active.segment.end + self.buffer.len() as u64;
            // To the end of the page: of a page that is written whole, nothing has to be read from the disk first.
            let padded = end.next_multiple_of(PAGE as u64).min(active.segment.bytes - TAIL_BYTES).max(end);
            self.buffer.resize(usize::try_from(padded - active.segment.end).expect("a group fits memory"), 0);
            active.file.write_all_at(&self.buffer, active.segment.end)?;
            active.file.sync_data()?;
            active.segment.end = end;
            self.stored.push(active.segment.clone());
            self.active = Some(active);
        }
        Ok(sequences)
    }

    /// The active segment, out of `self` so that an error on the way loses it; a new one if it has no room for `bytes`.
    fn take_active(&mut self, bytes: u64) -> io::Result<Active> {
        if let Some(active) = self.active.take() {
            if active.segment.end + bytes <= active.segment.bytes - TAIL_BYTES {
                return Ok(active);
            }
            segment::write_footer(&active.file, &active.segment)?;
            active.file.sync_data()?;
        }
        self.begin_segment()
    }

    /// Turns the prepared file into the active segment, durably, and orders the next one.
    fn begin_segment(&mut self) -> io::Result<Active> {
        let gone = || io::Error::other("the preparing thread is gone");
        let (path, file) = loop {
            match self.prepared.recv_timeout(SPACE_ASKED_AFTER) {
                Ok(prepared) => break prepared?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if self.shared.full.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Err(RecvTimeoutError::Timeout) if self.shared.short.load(Ordering::Relaxed) => {
                    self.shared.starved.send_if_modified(|starved| !std::mem::replace(starved, true));
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        self.prepare.send(()).map_err(|_| gone())?;
        let bytes = self.segment_bytes;
        let header = Header { salt: random_salt(), sequence_first: self.sequence_next, created_at: now(), bytes };
        header.write(&file)?;
        file.sync_data()?;
        let name = self.shared.folder.join(format!("{:020}.seg", header.sequence_first));
        fs::rename(path, &name)?;
        sync_folder(&self.shared.folder)?;
        let segment = Segment {
            path: name,
            header,
            end: FRAMES_AT,
            sequence_last: header.sequence_first - 1,
            last_at: header.created_at,
            bytes,
        };
        Ok(Active { file, segment })
    }
}

impl Log for Writer {
    fn store(&mut self, drafts: &[&Draft]) -> Result<Vec<u64>, AppendError> {
        let first = match self.try_store(drafts) {
            Ok(sequences) => return Ok(sequences),
            Err(error) => error,
        };
        if first.kind() == io::ErrorKind::StorageFull {
            tracing::error!(error = %first, "no space for the journal in {}", self.shared.folder.display());
            return Err(AppendError::Full);
        }
        tracing::error!(error = %first, "the journal could not be written, going on in a new segment");
        match self.try_store(drafts) {
            Ok(sequences) => Ok(sequences),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(AppendError::Full),
            Err(error) => {
                tracing::error!(%error, "the journal could not be written in a new segment either, the service ends");
                self.shared.failed.send_replace(true);
                Err(AppendError::Unwritable)
            }
        }
    }

    fn publish(&mut self) {
        let mut segments = self.shared.segments();
        for segment in self.stored.drain(..) {
            match segments.last_mut() {
                Some(last) if last.path == segment.path => *last = segment,
                _ => segments.push(segment),
            }
        }
        drop(segments);
        self.shared.durable.send_replace(self.sequence_next - 1);
    }
}

/// Prepares one file an order, and goes on trying where it can't.
fn prepare_files(
    shared: &Shared,
    bytes: u64,
    orders: &Receiver<()>,
    prepared: &SyncSender<io::Result<(PathBuf, File)>>,
) {
    let mut number = 0;
    while orders.recv().is_ok() {
        loop {
            if shared.full.load(Ordering::Relaxed) {
                // What space there is, is the ledger's.
                std::thread::sleep(FULL_LOOK);
                continue;
            }
            let file = prepare_file(&shared.folder, number, bytes);
            let again = file.is_err();
            let short = file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
            shared.short.store(short, Ordering::Relaxed);
            if !short {
                shared.starved.send_if_modified(|starved| std::mem::replace(starved, false));
            }
            if !short && prepared.send(file).is_err() {
                return;
            }
            if !again {
                break;
            }
            std::thread::sleep(RETRY_AFTER);
        }
        number += 1;
    }
}

/// A file of `bytes` zeros: data written over them needs no change of metadata, so a data sync is all it takes.
fn prepare_file(folder: &Path, number: u64, bytes: u64) -> io::Result<(PathBuf, File)> {
    // It takes no space that the ledger may need, and never fills the disk to see whether it fits.
    let space = Space::of(folder)?;
    if space.free < bytes + space.low {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let path = folder.join(format!("{number}.new"));
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.open(&path)?;
    // Zeros past the page cache cost no copy and push nothing out of it. Not every file system can do that.
    let direct = options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path);
    let filled = match direct.and_then(|direct| fill_with_zeros(&direct, bytes)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fill_with_zeros(&file, bytes),
        filled => filled,
    };
    match filled {
        Ok(()) => Ok((path, file)),
        Err(error) => {
            // Half a segment is of no use to anyone, and its space is to the ledger.
            fs::remove_file(&path)?;
            Err(error)
        }
    }
}

/// Writes `bytes` zeros in whole pages from aligned memory, as writing past the page cache wants it, and syncs them.
fn fill_with_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let memory = vec![0; ZEROS_BYTES + PAGE];
    let zeros = &memory[memory.as_ptr().align_offset(PAGE)..][..ZEROS_BYTES];
    let mut at = 0;
    while at < bytes {
        let chunk = usize::try_from((bytes - at).min(zeros.len() as u64)).expect("bounded by the chunk");
        file.write_all_at(&zeros[..chunk], at)?;
        at += chunk as u64;
    }
    file.sync_all()
}

/// Zeros written at once: small enough that a group's sync does not wait long behind them.
const ZEROS_BYTES: usize = 256 << 10;
/// Page of the page cache, and at least the block of every disk.
const PAGE: usize = 4096;

/// Unpredictable for a sender: the keys of a `RandomState` come from the system's randomness.
fn random_salt() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).expect("32 bits are left")
}

/// When a segment was begun. It serves the retention alone, so nothing hangs on this clock being right.
fn now() -> Timestamp {
    Timestamp::now()
}
