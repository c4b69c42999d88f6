//! Reads the journal in order, as far as it is durable.
//!
//! Invariant: a record is given out once, in the order of sequences; damage is counted, kept aside and passed over.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::segment::{self, FRAMES_AT, Scan, Segment, Step};
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
    /// Sequence of the last record found, or of what stands before the first.
    found: u64,
    /// Whether damage was passed since then.
    damage: bool,
}

impl Open {
    /// How many records stood between the last one found and `sequence`: within a segment there are no other gaps.
    fn lost_before(&mut self, sequence: u64) -> u64 {
        let lost = if self.damage { sequence.saturating_sub(self.found + 1).max(1) } else { 0 };
        (self.found, self.damage) = (sequence, false);
        lost
    }

    /// Keeps the damaged bytes for a person to look at. Where that fails, on a full disk say, reading goes on all the same.
    fn set_aside(&self, from: u64, to: u64) {
        let path = &self.segment.path;
        match segment::keep(path, from, to) {
            Ok(kept) => tracing::error!(
                segment = %path.display(), from, to,
                "bytes {from} to {to} of {} hold no readable record, kept in {}", path.display(), kept.display()
            ),
            Err(error) => tracing::error!(
                segment = %path.display(), from, to, %error,
                "bytes {from} to {to} of {} hold no readable record, and could not be kept aside", path.display()
            ),
        }
    }
}

/// What one `read` gave, beside the records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Records that cannot be read any more.
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
                    tally.damaged += open.lost_before(record.sequence);
                    // Behind the place to begin at, or written a second time after a failed sync.
                    if record.sequence > self.sequence {
                        self.sequence = record.sequence;
                        bytes += record.stored.len();
                        records.push(*record);
                    }
                }
                Some(Step::Damage { from, to }) => {
                    open.damage = true;
                    if to >= end {
                        tally.damaged += open.lost_before(open.segment.sequence_last + 1);
                    }
                    open.set_aside(from, to);
                }
                None => unreachable!("`current` gives a segment with something left"),
            }
        }
        self.shared.damaged.fetch_add(tally.damaged, Ordering::Relaxed);
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
                match segment::open_to_read(&segment.path) {
                    Ok(file) => {
                        let found = segment.header.sequence_first.saturating_sub(1);
                        self.open = Some(Open { segment, file, scan: Scan::new(FRAMES_AT), found, damage: false });
                    }
                    // Pruned since the list was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            let open = self.open.as_ref().expect("just set");
            if open.scan.at < open.segment.end {
                return Ok(self.loaded());
            }
            if self.shared.segments().last().is_none_or(|last| last.path == open.segment.path) {
                return Ok(None);
            }
        }
    }

    /// What is open, with its next frame out of memory where the writer still has it there.
    fn loaded(&mut self) -> Option<&mut Open> {
        let open = self.open.as_mut()?;
        if open.scan.is_empty()
            && let Some(group) = self.shared.recent().find(open.segment.header.sequence_first, open.scan.at)
        {
            open.scan.offer(group.at, group.frames);
        }
        Some(open)
    }
}
