//! Reads the journal in order, as far as it is durable.
//!
//! Invariant: a record is given out once, in the order of sequences; damage is counted, kept aside and passed over.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::segment::{FRAMES_AT, Scan, Segment, Step};
use crate::store::Record;

/// A place in the journal that only goes forward.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// Sequence of the last record given out.
    sequence: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    file: File,
    scan: Scan,
}

/// What one `read` gave, beside the records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Stretches of bytes that hold no record any more.
    pub damaged: u64,
}

impl Reader {
    pub(super) const fn new(shared: Arc<Shared>, sequence: u64) -> Self {
        Self { shared, sequence, open: None }
    }

    /// The next durable records, at most `records_max` and about `bytes_max`; none if there are no more for now.
    pub fn read(&mut self, records_max: usize, bytes_max: usize) -> io::Result<(Vec<Record>, Tally)> {
        let (mut records, mut tally, mut bytes) = (Vec::new(), Tally::default(), 0);
        while records.len() < records_max && bytes < bytes_max {
            let Some(open) = self.current()? else { break };
            let (salt, end) = (open.segment.header.salt, open.segment.end);
            match open.scan.next(&open.file, salt, end)? {
                Some(Step::Record(record)) => {
                    // Behind the place to begin at, or written a second time after a failed sync.
                    if record.sequence > self.sequence {
                        self.sequence = record.sequence;
                        bytes += record.stored.len();
                        records.push(*record);
                    }
                }
                Some(Step::Damage { from, to }) => {
                    tally.damaged += 1;
                    self.set_aside(from, to)?;
                }
                None => unreachable!("`current` gives a segment with something left"),
            }
        }
        Ok((records, tally))
    }

    /// The segment to read from, with something left in it; none at the durable end.
    fn current(&mut self) -> io::Result<Option<&mut Open>> {
        loop {
            let segments = self.shared.segments();
            let place = match &self.open {
                Some(open) => {
                    segments.iter().position(|one| one.header.sequence_first >= open.segment.header.sequence_first)
                }
                // The last segment that can hold the next sequence.
                None => segments.iter().rposition(|one| one.header.sequence_first <= self.sequence + 1).or(Some(0)),
            };
            let Some(segment) = place.and_then(|place| segments.get(place)) else { return Ok(None) };
            let same = self.open.as_ref().is_some_and(|open| open.segment.path == segment.path);
            let next = segments.get(place.map_or(0, |place| place + 1));
            let done = same && self.open.as_ref().is_some_and(|open| open.scan.at >= segment.end);
            let segment = match (done, next) {
                (true, Some(next)) => next.clone(),
                (true, None) => return Ok(None),
                (false, _) => segment.clone(),
            };
            drop(segments);
            if same && !done {
                let open = self.open.as_mut().expect("it is the same segment");
                open.segment = segment;
            } else {
                match File::open(&segment.path) {
                    Ok(file) => self.open = Some(Open { segment, file, scan: Scan::new(FRAMES_AT) }),
                    // Pruned since the list was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            let open = self.open.as_ref().expect("just set");
            if open.scan.at < open.segment.end {
                return Ok(self.open.as_mut());
            }
            if self.shared.segments().last().is_none_or(|last| last.path == open.segment.path) {
                return Ok(None);
            }
        }
    }

    /// Keeps the damaged bytes for a person to look at, and counts them.
    fn set_aside(&self, from: u64, to: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let open = self.open.as_ref().expect("damage is found in an open segment");
        self.shared.damaged.fetch_add(1, Ordering::Relaxed);
        let name = open.segment.path.with_extension(format!("{from}.damaged"));
        tracing::error!(
            segment = %open.segment.path.display(), from, to,
            "bytes {from} to {to} of {} hold no readable record, kept in {}", open.segment.path.display(), name.display()
        );
        let length = usize::try_from(to - from).expect("a segment fits into memory");
        let mut bytes = vec![0; length];
        open.file.read_exact_at(&mut bytes, from)?;
        // What was kept by an earlier start is the same bytes.
        fs::write(name, bytes)
    }
}
