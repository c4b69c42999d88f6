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

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::OFlags;

use super::answers::Waiting;
use super::segment::{self, FRAMES_AT, Header, PAGE, PAGE_BYTES, Segment};
use super::{Group, Shared, sync_folder};
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

/// What a request is told.
pub(super) type Outcome = Result<Appended, AppendError>;

/// How a group's requests are answered. A trait only so that the group commit can be run under every thread schedule.
pub(super) trait Answer: Sized {
    fn answer(group: Vec<(Self, Outcome)>);
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
    let mut fresh: HashMap<Repeat, usize> = HashMap::with_capacity(group.len());
    for Pending { draft, .. } in &group {
        let repeat = draft.repeat.map(|repeat| repeats.key(&draft.source, repeat));
        let known = repeat.and_then(|repeat| repeats.sequences.get(&repeat).copied());
        let twin = repeat.and_then(|repeat| fresh.get(&repeat).copied());
        let place = match (known, twin) {
            (Some(sequence), _) => Place::Known(sequence),
            (None, Some(index)) => Place::Repeats(index),
            (None, None) => {
                if let Some(repeat) = repeat {
                    fresh.insert(repeat, drafts.len());
                }
                drafts.push(draft);
                Place::Written(drafts.len() - 1)
            }
        };
        places.push(place);
    }
    let stored = if drafts.is_empty() { Ok(Vec::new()) } else { log.store(&drafts) };
    if let Ok(sequences) = &stored {
        log.publish();
        for (repeat, index) in fresh {
            repeats.remember(repeat, sequences[index]);
        }
    }
    let outcome = |place| match (place, &stored) {
        (Place::Known(sequence), _) => Ok(Appended { sequence, repeat: true }),
        (Place::Repeats(index), Ok(sequences)) => Ok(Appended { sequence: sequences[index], repeat: true }),
        (Place::Written(index), Ok(sequences)) => Ok(Appended { sequence: sequences[index], repeat: false }),
        (_, Err(error)) => Err(*error),
    };
    A::answer(group.into_iter().zip(places).map(|(Pending { answer, .. }, place)| (answer, outcome(place))).collect());
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
    /// Each source by a number: names are shared with the threads that receive, and counting their references costs more than all else here.
    sources: HashMap<Name, u32>,
    sequences: HashMap<Repeat, u64>,
    order: VecDeque<Repeat>,
}

/// A source, and a proof value of it.
type Repeat = (u32, [u8; 16]);

impl Repeats {
    fn key(&mut self, source: &Name, repeat: [u8; 16]) -> Repeat {
        if let Some(number) = self.sources.get(source) {
            return (*number, repeat);
        }
        let number = u32::try_from(self.sources.len()).expect("there are not that many sources");
        self.sources.insert(source.clone(), number);
        (number, repeat)
    }

    fn remember(&mut self, repeat: Repeat, sequence: u64) {
        if self.order.len() == REPEATS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sequences.remove(&oldest);
        }
        self.order.push_back(repeat);
        self.sequences.insert(repeat, sequence);
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
    prepared: Receiver<io::Result<Prepared>>,
    buffer: Vec<u8>,
    /// What the last `store` made durable, for `publish`.
    stored: Vec<(Segment, Option<Group>)>,
}

/// A file full of zeros that will be a segment.
#[derive(Debug)]
struct Prepared {
    path: PathBuf,
    file: File,
    pages: File,
}

/// The segment being written.
#[derive(Debug)]
struct Active {
    segment: Segment,
    /// For header and footer.
    file: File,
    /// The same file, for whole pages; past the page cache where the file system can do that.
    pages: File,
    /// The bytes of frames in the page that `segment.end` stands in. The next group writes them once more, unchanged.
    partial: Vec<u8>,
}

impl Active {
    /// Goes on with a segment of an earlier start.
    fn resume(file: File, segment: Segment) -> io::Result<Self> {
        let mut partial = vec![0; usize::try_from(segment.end % PAGE).expect("less than a page")];
        file.read_exact_at(&mut partial, segment.end / PAGE * PAGE)?;
        let pages = open_direct(&segment.path).or_else(|_| file.try_clone())?;
        Ok(Self { segment, file, pages, partial })
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        segment_bytes: u64,
        active: Option<File>,
        sequence_next: u64,
    ) -> io::Result<Self> {
        let active = active.and_then(|file| {
            let segment = shared.segments().last().cloned().expect("an open file belongs to the last segment");
            let resumed = Active::resume(file, segment);
            resumed
                .inspect_err(|error| tracing::warn!(%error, "the last segment cannot be written on, a new one begins"))
                .ok()
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
            buffer: Vec::new(),
            stored: Vec::new(),
        })
    }

    /// Takes what is queued, commits it, and so on until the last handle of the journal is gone.
    pub(super) fn run(mut self, requests: &Receiver<Pending<Waiting>>, queued_bytes: &AtomicUsize) {
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
        while let Some(first) = rest.first() {
            let mut active = self.take_active(segment::frame_bytes(first))?;
            let (group, later) = rest.split_at(fitting(rest, &active.segment));
            let sequence_first = self.sequence_next;
            let begin = self.lay_out(&mut active, group);
            sequences.extend(sequence_first..self.sequence_next);
            let frames_end = self.buffer.len();
            // To the end of the page: of a page that is written whole, nothing has to be read from the disk first.
            self.buffer.resize(begin + (frames_end - begin).next_multiple_of(PAGE_BYTES), 0);
            let at = active.segment.end - active.partial.len() as u64;
            active.pages.write_all_at(&self.buffer[begin..], at)?;
            active.pages.sync_data()?;
            let bytes = frames_end - begin;
            active.segment.end = at + bytes as u64;
            active.partial.clear();
            active.partial.extend_from_slice(&self.buffer[frames_end - bytes % PAGE_BYTES..frames_end]);
            let kept = self.shared.recent().is_wanted.then(|| {
                let frames = Bytes::from(std::mem::take(&mut self.buffer)).slice(begin..frames_end);
                Group { segment: active.segment.header.sequence_first, at, frames }
            });
            self.stored.push((active.segment.clone(), kept));
            self.active = Some(active);
            rest = later;
        }
        Ok(sequences)
    }

    /// Puts the frames into `buffer`, from the beginning of the page on that they begin in, and gives the place of that page there:
    /// an aligned address, as writing past the page cache wants it.
    fn lay_out(&mut self, active: &mut Active, drafts: &[&Draft]) -> usize {
        let Segment { end, header, .. } = active.segment;
        let bytes: u64 = drafts.iter().map(|draft| segment::frame_bytes(draft)).sum();
        self.buffer.clear();
        // Room for all of it, so that it does not move again.
        self.buffer.reserve(usize::try_from(bytes).expect("a group fits memory") + 3 * PAGE_BYTES);
        let begin = self.buffer.as_ptr().align_offset(PAGE_BYTES);
        self.buffer.resize(begin, 0);
        self.buffer.extend_from_slice(&active.partial);
        let base = end - self.buffer.len() as u64;
        for draft in drafts {
            segment::write_frame(&mut self.buffer, base, header.salt, self.sequence_next, draft);
            active.segment.sequence_last = self.sequence_next;
            active.segment.last_at = draft.at;
            // Used up, even if the write fails.
            self.sequence_next += 1;
        }
        begin
    }

    /// The active segment, out of `self` so that an error on the way loses it; a new one if it has no room for `bytes`.
    fn take_active(&mut self, bytes: u64) -> io::Result<Active> {
        if let Some(active) = self.active.take() {
            if active.segment.end + bytes <= segment::frames_end(active.segment.bytes) {
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
        let Prepared { path, file, pages } = loop {
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
        Ok(Active { segment, file, pages, partial: Vec::new() })
    }
}

/// How many of the drafts the segment has room for.
fn fitting(drafts: &[&Draft], segment: &Segment) -> usize {
    let mut room = segment::frames_end(segment.bytes).saturating_sub(segment.end);
    let fits = |draft: &&&Draft| {
        let left = room.checked_sub(segment::frame_bytes(draft));
        room = left.unwrap_or(0);
        left.is_some()
    };
    drafts.iter().take_while(fits).count()
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
        for (segment, group) in self.stored.drain(..) {
            if let Some(group) = group {
                self.shared.recent().push(group);
            }
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
fn prepare_files(shared: &Shared, bytes: u64, orders: &Receiver<()>, prepared: &SyncSender<io::Result<Prepared>>) {
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
fn prepare_file(folder: &Path, number: u64, bytes: u64) -> io::Result<Prepared> {
    // It takes no space that the ledger may need, and never fills the disk to see whether it fits.
    let space = Space::of(folder)?;
    if space.free < bytes + space.low {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let path = folder.join(format!("{number}.new"));
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    // Not every file system can write past the page cache.
    let direct = open_direct(&path).and_then(|pages| fill_with_zeros(&pages, bytes).map(|()| pages));
    let filled = match direct {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            fill_with_zeros(&file, bytes).and_then(|()| file.try_clone())
        }
        filled => filled,
    };
    match filled {
        Ok(pages) => Ok(Prepared { path, file, pages }),
        Err(error) => {
            // Half a segment is of no use to anyone, and its space is to the ledger.
            fs::remove_file(&path)?;
            Err(error)
        }
    }
}

/// Opens a file for writing whole pages past the page cache: that costs no copy and pushes nothing out of it.
fn open_direct(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)
}

/// Writes `bytes` zeros in whole pages from aligned memory, as writing past the page cache wants it, and syncs them.
fn fill_with_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let memory = vec![0; ZEROS_BYTES + PAGE_BYTES];
    let zeros = &memory[memory.as_ptr().align_offset(PAGE_BYTES)..][..ZEROS_BYTES];
    // A single page first: where that is too little, groups cannot be written so.
    let mut chunk = PAGE_BYTES;
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from((bytes - at).min(chunk as u64)).expect("bounded by the chunk");
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
        chunk = ZEROS_BYTES;
    }
    file.sync_all()
}

/// Zeros written at once: small enough that a group's sync does not wait long behind them.
const ZEROS_BYTES: usize = 256 << 10;

/// Unpredictable for a sender: the keys of a `RandomState` come from the system's randomness.
fn random_salt() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).expect("32 bits are left")
}

/// When a segment was begun. It serves the retention alone, so nothing hangs on this clock being right.
fn now() -> Timestamp {
    Timestamp::now()
}
