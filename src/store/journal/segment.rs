//! One file of the journal: its header, frames and footer, byte for byte.
//!
//! Invariants: a frame is believed only if its header checksum, its body checksum and its place hold; every checksum is seeded with the
//! segment's random salt and the frame's place, so neither a frame of the file's former life nor one that a sender hid in a body,
//! not even a copy of one of ours, is ever taken for one. A damaged frame costs that frame: the scan goes on at the next one that holds.
//!
//! Not here: which file comes next, syncs, threads (`store/journal`).

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::event::Name;
use crate::store::{Draft, Kind, Record};

/// Where frames begin. The header stands before it, and once more at the end of the file: no damaged page takes both.
pub(super) const FRAMES_AT: u64 = 4096;
/// Bytes at the end of the file that belong to the second header and the footer.
pub(super) const TAIL_BYTES: u64 = 128;
const FOOTER: usize = 64;
/// Page of the page cache, and at least the block of every disk: groups of frames are written in whole ones.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// The same as a size in memory.
pub(super) const PAGE_BYTES: usize = 4096;
/// Frames begin at multiples of this, which bounds the scan for the next one after damage.
const ALIGN: u64 = 8;
const HEADER_BYTES: usize = 48;
const FRAME_BYTES: usize = 40;
const SEGMENT_MAGIC: &[u8; 8] = b"VRJRNL01";
const FOOTER_MAGIC: &[u8; 8] = b"VRSEALED";
const FRAME_MARKER: u32 = u32::from_le_bytes(*b"VRF1");

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Seeds every checksum of this segment.
    pub(super) salt: u32,
    /// No frame of this segment has a smaller sequence.
    pub(super) sequence_first: u64,
    /// When the segment was begun.
    pub(super) created_at: Timestamp,
    /// Size of the file: one that is shorter was cut.
    pub(super) bytes: u64,
}

/// What a segment holds, as far as it is durable.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Where the durable frames end.
    pub(super) end: u64,
    /// Sequence of the last durable frame; one less than `sequence_first` while there is none.
    pub(super) sequence_last: u64,
    /// When its last record was received, for the retention.
    pub(super) last_at: Timestamp,
    /// Size of the file.
    pub(super) bytes: u64,
}

impl Header {
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence_first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_at.as_microsecond().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&bytes, 0)?;
        file.write_all_at(&bytes, self.bytes - TAIL_BYTES)
    }

    /// Reads either copy; none if both are damaged.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let bytes = file.metadata()?.len();
        for at in [0, bytes.saturating_sub(TAIL_BYTES)] {
            let mut bytes = [0; HEADER_BYTES];
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(header) = Self::parse(&bytes) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            salt: u32_at(bytes, 8),
            sequence_first: u64_at(bytes, 16),
            created_at: timestamp_at(bytes, 24),
            bytes: u64_at(bytes, 32),
        };
        let sound = &bytes[..8] == SEGMENT_MAGIC && u32_at(bytes, 44) == crc32fast::hash(&bytes[..44]);
        (sound && header.bytes >= FRAMES_AT + TAIL_BYTES).then_some(header)
    }
}

/// Bytes that a frame of this draft takes.
pub(super) fn frame_bytes(draft: &Draft) -> u64 {
    let bytes = FRAME_BYTES + draft.source.as_str().len() + draft.head.len() + draft.body.len();
    (bytes as u64).next_multiple_of(ALIGN)
}

/// More records than a file of this size can hold.
pub(super) const fn records_max(bytes: u64) -> u64 {
    bytes / FRAME_BYTES as u64
}

/// Where the frames of a file of this size end at the latest: the last page belongs to the second header and the footer.
pub(super) const fn frames_end(bytes: u64) -> u64 {
    (bytes - TAIL_BYTES) / PAGE * PAGE
}

/// Appends the frame of `draft` to `out`, which will stand at `at` in the segment.
pub(super) fn write_frame(out: &mut Vec<u8>, at: u64, salt: u32, sequence: u64, draft: &Draft) {
    let seed = seed(salt, at + out.len() as u64);
    let source = draft.source.as_str().as_bytes();
    let body_bytes = draft.head.len() + draft.body.len();
    let start = out.len();
    out.extend_from_slice(&FRAME_MARKER.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&draft.at.as_microsecond().to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(body_bytes).expect("`append` refuses what a segment cannot hold").to_le_bytes(),
    );
    out.extend_from_slice(&[draft.kind as u8, u8::try_from(source.len()).expect("a name has at most 63 bytes"), 0, 0]);
    let mut body_crc = seeded(seed);
    body_crc.update(&draft.head);
    body_crc.update(&draft.body);
    out.extend_from_slice(&body_crc.finalize().to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(source);
    let mut header_crc = seeded(seed);
    header_crc.update(&out[start + 8..]);
    let header_crc = header_crc.finalize();
    out[start + 4..start + 8].copy_from_slice(&header_crc.to_le_bytes());
    out.extend_from_slice(&draft.head);
    out.extend_from_slice(&draft.body);
    out.resize(start + (out.len() - start).next_multiple_of(usize::try_from(ALIGN).expect("small")), 0);
}

/// What stands at a place of a segment.
#[derive(Debug)]
enum Found {
    /// A record that holds, and how many bytes its frame takes.
    Record(Box<Record>, u64),
    /// A frame whose header holds and whose body does not, and how many bytes it takes.
    DamagedBody { next: u64 },
    /// No frame that holds.
    Nothing,
}

/// The frame may hold, but the bytes given end within it.
struct Short {
    needs: u64,
}

/// Reads the frame that begins at `bytes`; `limit` is what is left of the segment from there.
fn read_frame(bytes: &Bytes, seed: u32, limit: u64) -> Result<Found, Short> {
    let enough = |needs: u64| if bytes.len() as u64 >= needs { Ok(()) } else { Err(Short { needs }) };
    if limit < FRAME_BYTES as u64 {
        return Ok(Found::Nothing);
    }
    enough(FRAME_BYTES as u64)?;
    let body_at = FRAME_BYTES + usize::from(bytes[29]);
    if u32_at(bytes, 0) != FRAME_MARKER || limit < body_at as u64 {
        return Ok(Found::Nothing);
    }
    enough(body_at as u64)?;
    let mut crc = seeded(seed);
    crc.update(&bytes[8..body_at]);
    let body_bytes = u32_at(bytes, 24) as usize;
    let total = ((body_at + body_bytes) as u64).next_multiple_of(ALIGN);
    if crc.finalize() != u32_at(bytes, 4) || total > limit {
        return Ok(Found::Nothing);
    }
    enough(total)?;
    let stored = bytes.slice(body_at..body_at + body_bytes);
    let mut body_crc = seeded(seed);
    body_crc.update(&stored);
    let source = std::str::from_utf8(&bytes[FRAME_BYTES..body_at]).ok().and_then(|text| text.parse::<Name>().ok());
    Ok(match (Kind::from_number(bytes[28]), source) {
        (Some(kind), Some(source)) if body_crc.finalize() == u32_at(bytes, 32) => {
            let record = Record { sequence: u64_at(bytes, 8), kind, source, at: timestamp_at(bytes, 16), stored };
            Found::Record(Box::new(record), total)
        }
        _ => Found::DamagedBody { next: total },
    })
}

/// Opens a segment for reading whole pages past the page cache, which nobody reads twice. Not every file system can do that.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let direct = File::options().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    direct.and_then(|file| Scan::new(0).load(&file, 0, PAGE, PAGE).map(|()| file)).or_else(|_| File::open(path))
}

/// Marks the segment as complete, so that opening it needs no scan. The caller syncs.
pub(super) fn write_footer(file: &File, segment: &Segment) -> io::Result<()> {
    let mut bytes = [0; FOOTER];
    bytes[..8].copy_from_slice(FOOTER_MAGIC);
    bytes[8..16].copy_from_slice(&segment.end.to_le_bytes());
    bytes[16..24].copy_from_slice(&segment.sequence_last.to_le_bytes());
    bytes[24..32].copy_from_slice(&segment.last_at.as_microsecond().to_le_bytes());
    let crc = footer_crc(&bytes, segment.header.salt);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&bytes, segment.header.bytes - FOOTER as u64)
}

fn footer_crc(bytes: &[u8; FOOTER], salt: u32) -> u32 {
    let mut crc = seeded(salt);
    crc.update(&bytes[..60]);
    crc.finalize()
}

/// What opening a segment found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) segment: Segment,
    /// Whether its footer holds: nothing more goes into it.
    pub(super) sealed: bool,
    /// What stands after its last good frame where that should be nothing: a write that was cut short, or damage.
    pub(super) torn: Option<Torn>,
}

/// The end of a segment that no record can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) from: u64,
    pub(super) to: u64,
    /// How many records these were, at least.
    pub(super) records: u64,
}

/// Opens a segment by its footer, or by a scan where it has none. None if both copies of its header are damaged.
pub(super) fn open(path: &Path, file: &File) -> io::Result<Option<Opened>> {
    let Some(header) = Header::read(file)? else { return Ok(None) };
    let bytes = file.metadata()?.len();
    let mut segment = Segment {
        path: path.to_owned(),
        header,
        end: FRAMES_AT,
        sequence_last: header.sequence_first.saturating_sub(1),
        last_at: header.created_at,
        bytes,
    };
    let whole = bytes >= header.bytes;
    if whole {
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, header.bytes - FOOTER as u64)?;
        if &footer[..8] == FOOTER_MAGIC && footer_crc(&footer, header.salt) == u32_at(&footer, 60) {
            segment.end = u64_at(&footer, 8);
            segment.sequence_last = u64_at(&footer, 16);
            segment.last_at = timestamp_at(&footer, 24);
            return Ok(Some(Opened { segment, sealed: true, torn: None }));
        }
    }
    let mut scan = Scan::new(FRAMES_AT);
    // Of a file that was cut, every byte that is left may belong to a record.
    let limit = if whole { header.bytes - TAIL_BYTES } else { bytes };
    while let Some(step) = scan.next(file, header.salt, limit)? {
        if let Step::Record(record) = step {
            segment.end = scan.at;
            segment.sequence_last = segment.sequence_last.max(record.sequence);
            segment.last_at = record.at;
        }
    }
    let torn = torn(file, &segment, limit)?.or((!whole).then_some(Torn { from: bytes, to: bytes, records: 1 }));
    Ok(Some(Opened { segment, sealed: false, torn }))
}

/// Looks at what follows the last good frame: frames whose body is damaged are one record each, and whatever comes then is one more.
fn torn(file: &File, segment: &Segment, limit: u64) -> io::Result<Option<Torn>> {
    let mut scan = Scan::new(segment.end);
    let (mut to, mut records) = (segment.end, 0);
    while to < limit {
        let Found::DamagedBody { next } = scan.frame_at(file, segment.header.salt, to, limit)? else { break };
        records += 1;
        to += next;
    }
    if let Some(written) = written_to(file, to, limit)? {
        records += 1;
        to = written;
    }
    Ok((records > 0).then_some(Torn { from: segment.end, to, records }))
}

/// Completes a segment that nothing more goes into, so that the next start need not scan it. The caller can live without.
pub(super) fn complete(file: &File, segment: &Segment) -> io::Result<()> {
    if file.metadata()?.len() < segment.header.bytes {
        file.set_len(segment.header.bytes)?;
    }
    write_footer(file, segment)?;
    file.sync_data()
}

/// Copies the bytes from `from` to `to` into a file of their own, for a person to look at.
pub(super) fn keep(segment: &Path, from: u64, to: u64) -> io::Result<PathBuf> {
    let file = File::open(segment)?;
    let name = segment.with_extension(format!("{from}.damaged"));
    // What was kept by an earlier start is the same bytes.
    let copy = File::options().write(true).create(true).truncate(true).mode(0o600).open(&name)?;
    let mut buffer = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let want = usize::try_from((to - at).min(buffer.len() as u64)).expect("bounded by the buffer");
        file.read_exact_at(&mut buffer[..want], at)?;
        copy.write_all_at(&buffer[..want], at - from)?;
        at += want as u64;
    }
    Ok(name)
}

/// Where the last byte ends that is not zero, between the two places; none in a fresh stretch.
fn written_to(file: &File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; 1 << 16];
    let (mut at, mut written) = (from, None);
    while at < to {
        let want = usize::try_from((to - at).min(buffer.len() as u64)).expect("bounded by the buffer");
        file.read_exact_at(&mut buffer[..want], at)?;
        if let Some(index) = buffer[..want].iter().rposition(|byte| *byte != 0) {
            written = Some(at + index as u64 + 1);
        }
        at += want as u64;
    }
    Ok(written)
}

/// One step of a [`Scan`].
#[derive(Debug)]
pub(super) enum Step {
    /// A record that holds.
    Record(Box<Record>),
    /// Bytes that hold no record: from where to where.
    Damage { from: u64, to: u64 },
}

/// Walks the frames of a segment in order, over damage.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the next frame is expected.
    pub(super) at: u64,
    window: Bytes,
    window_at: u64,
}

/// Bytes read at once: some hundred records of a usual size.
const WINDOW_BYTES: u64 = 1 << 20;

impl Scan {
    pub(super) const fn new(at: u64) -> Self {
        Self { at, window: Bytes::new(), window_at: 0 }
    }

    /// Whether the next frame has yet to be read from the file.
    pub(super) const fn is_empty(&self) -> bool {
        self.at < self.window_at || self.at >= self.window_at + self.window.len() as u64
    }

    /// Takes bytes of the file that someone has in memory, whole frames from `at` on, instead of reading them.
    pub(super) fn offer(&mut self, at: u64, bytes: Bytes) {
        (self.window_at, self.window) = (at, bytes);
    }

    /// The next record or stretch of damage before `limit`; none at the limit.
    pub(super) fn next(&mut self, file: &File, salt: u32, limit: u64) -> io::Result<Option<Step>> {
        let from = self.at;
        let mut probe = from;
        while probe < limit {
            match self.frame_at(file, salt, probe, limit)? {
                Found::Record(record, bytes) if probe == from => {
                    self.at = probe + bytes;
                    return Ok(Some(Step::Record(record)));
                }
                Found::Record(..) => break,
                Found::DamagedBody { next } => probe += next,
                Found::Nothing => probe = self.next_marker(file, probe + ALIGN, limit)?,
            }
        }
        self.at = probe;
        Ok((probe > from).then_some(Step::Damage { from, to: probe }))
    }

    fn frame_at(&mut self, file: &File, salt: u32, at: u64, limit: u64) -> io::Result<Found> {
        let mut want = FRAME_BYTES as u64;
        loop {
            self.load(file, at, want, limit)?;
            let offset = usize::try_from(at - self.window_at).expect("within the window");
            match read_frame(&self.window.slice(offset..), seed(salt, at), limit - at) {
                Ok(found) => return Ok(found),
                Err(Short { needs }) => want = needs,
            }
        }
    }

    /// Where the next word that looks like a frame's marker stands, from `at` on; `limit` if there is none.
    fn next_marker(&mut self, file: &File, mut at: u64, limit: u64) -> io::Result<u64> {
        while at < limit {
            self.load(file, at, ALIGN, limit)?;
            let offset = usize::try_from(at - self.window_at).expect("within the window");
            let words = self.window[offset..].chunks(usize::try_from(ALIGN).expect("small"));
            let marker = FRAME_MARKER.to_le_bytes();
            if let Some(index) = words.into_iter().position(|word| word.starts_with(&marker)) {
                return Ok(at + index as u64 * ALIGN);
            }
            at = (self.window_at + self.window.len() as u64).next_multiple_of(ALIGN);
        }
        Ok(limit)
    }

    /// Makes sure that the window holds `want` bytes from `at` on, as far as the limit allows.
    fn load(&mut self, file: &File, at: u64, want: u64, limit: u64) -> io::Result<()> {
        let window_end = self.window_at + self.window.len() as u64;
        if at >= self.window_at && (at + want <= window_end || window_end >= limit && at < limit) {
            return Ok(());
        }
        // Whole pages into aligned memory, as reading past the page cache wants it.
        let from = at / PAGE * PAGE;
        let needed = usize::try_from((limit - from).min(WINDOW_BYTES.max(at - from + want)))
            .expect("a segment fits into memory");
        let mut memory = vec![0; needed.next_multiple_of(PAGE_BYTES) + PAGE_BYTES];
        let begin = memory.as_ptr().align_offset(PAGE_BYTES);
        let mut read = 0;
        while read < needed {
            let rest = &mut memory[begin + read..][..needed.next_multiple_of(PAGE_BYTES) - read];
            match file.read_at(rest, from + read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        let skipped = usize::try_from(at - from).expect("less than a page");
        self.window = Bytes::from(memory).slice(begin + skipped..begin + needed);
        self.window_at = at;
        Ok(())
    }
}

/// What the checksums of the frame at this place begin with. Two places of a segment never share it: a segment has at most 1 GiB.
fn seed(salt: u32, at: u64) -> u32 {
    salt ^ u32::try_from(at / ALIGN).expect("a segment has at most 1 GiB")
}

fn seeded(seed: u32) -> crc32fast::Hasher {
    crc32fast::Hasher::new_with_initial(seed)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The time that a checked field holds; a value out of range cannot pass a checksum, and would only shift the retention.
fn timestamp_at(bytes: &[u8], at: usize) -> Timestamp {
    let micros = i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
