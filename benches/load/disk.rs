//! How long the disk of the stores takes for one overwrite and its data sync, as the journal does them: by itself, and beside a load.
//!
//! Invariant: beside a load the time begins when the sync was due, so a stall of the disk counts as it does for the requests.
//!
//! Not here: what the times are compared with (`report`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A file whose blocks are written already, so that a data sync needs no change of metadata.
pub(crate) struct Disk {
    file: File,
}

impl Disk {
    /// Prepares a file in this folder; it has no name, and goes with the process.
    pub(crate) fn prepare(folder: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file })
    }

    /// Times of some syncs, one after the other.
    pub(crate) fn times(&self) -> io::Result<Vec<Duration>> {
        let one = |number| {
            let began = Instant::now();
            self.sync(number)?;
            Ok(began.elapsed())
        };
        (0..SYNCS).map(one).collect()
    }

    /// Times of syncs at a slow and steady pace, until told to end.
    pub(crate) fn times_until(&self, ending: &AtomicBool) -> io::Result<Vec<Duration>> {
        let start = Instant::now();
        let mut times = Vec::new();
        while !ending.load(Ordering::Relaxed) {
            let due = start + PACE * u32::try_from(times.len()).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sync(times.len())?;
            times.push(due.elapsed());
        }
        Ok(times)
    }

    fn sync(&self, number: usize) -> io::Result<()> {
        self.file.write_all_at(&[1; SYNC_BYTES], (number * SYNC_BYTES % FILE_BYTES) as u64)?;
        self.file.sync_data()
    }
}

/// The time within which this part of them returned, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = (part * times.len().saturating_sub(1) as f64).round() as usize;
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

const SYNCS: usize = 40;
/// Little beside what the store itself syncs.
const PACE: Duration = Duration::from_millis(5);
const SYNC_BYTES: usize = 4096;
const FILE_BYTES: usize = 1 << 20;
