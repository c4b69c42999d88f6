//! Files that somebody sends through us to a platform: kept for a moment, hashed, handed over, and their results awaited.
//!
//! Invariants: a file lies in the folder of the store without a name, so it is gone with the request or the process, however either
//! ends; it is at most as large as the platform takes, and never takes the space that deliveries need; what our own verdict index or the
//! platform knows is not sent.
//!
//! Not here: routes and permissions (`api`), the platform's API (`poll`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256 as Hasher};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::{Ops, OpsError, Wanted};
use crate::event::{Hash, Name, Sha256, Verdict};
use crate::poll::{Destination, NotSubmitted, Sample, Submitted, Submitter};
use crate::ranking::Record;
use crate::store::folder::has_room;

/// The sources whose `submit` is on.
pub struct Submissions {
    /// The folder of the store.
    folder: PathBuf,
    submitters: BTreeMap<Name, Submitter>,
    places: Semaphore,
}

/// What became of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Submission {
    /// Its source.
    pub source: Name,
    /// As it was sent.
    pub name: String,
    /// Its hash.
    pub sha256: Sha256,
    /// Its bytes.
    pub size: u64,
    /// Whether it was known, so that it was not sent.
    pub known: bool,
    /// By whom: `index`, our own verdicts of this source, or `platform`.
    pub known_by: Option<&'static str>,
    /// The verdict that stands, where our own index knew it.
    pub verdict: Option<Verdict>,
    /// The platform's id of the analysis.
    pub analysis_id: Option<String>,
    /// Whether the platform is asked if no result comes in time.
    pub expected: bool,
}

/// Why a file was not taken or not sent.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// There is no such source.
    #[error("there is no source of this name")]
    UnknownSource,
    /// Its `submit` is off.
    #[error(
        "files are not sent to this source: set sources.NAME.submit to \"private\" or \"public\" in the config of the service"
    )]
    Off,
    /// It is larger than the platform takes.
    #[error("the file is larger than {0} bytes, the most that this source takes")]
    TooLarge(u64),
    /// It is empty.
    #[error("the file is empty: there is nothing to analyse")]
    Empty,
    /// Many are on their way.
    #[error("{PLACES} files are being sent already: try again when one of them is done")]
    Busy,
    /// The disk has no room for it.
    #[error("the disk of the store has no room for the file beside what deliveries need")]
    NoRoom,
    /// The file did not come to its end.
    #[error("the file did not arrive completely")]
    Incomplete,
    /// The disk refuses.
    #[error("the file could not be kept for a moment; the log says why")]
    Disk,
    /// The platform did not take it.
    #[error(transparent)]
    Platform(#[from] NotSubmitted),
}

/// Files that may be on their way at once.
const PLACES: usize = 4;
/// Written at once.
const PIECE_BYTES: usize = 1 << 20;
/// How soon the report of a file is fetched that the platform knows.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Submissions {
    /// Files are kept in this folder for as long as they are sent.
    pub fn new(folder: PathBuf, submitters: BTreeMap<Name, Submitter>) -> Self {
        Self { folder, submitters, places: Semaphore::new(PLACES) }
    }

    /// Where the files of a source go.
    pub fn destination(&self, ops: &Ops, source: &Name) -> Result<Destination, SubmitError> {
        self.submitter(ops, source).map(Submitter::destination)
    }

    fn submitter(&self, ops: &Ops, source: &Name) -> Result<&Submitter, SubmitError> {
        match self.submitters.get(source) {
            Some(submitter) => Ok(submitter),
            None if ops.sources.contains_key(source) => Err(SubmitError::Off),
            None => Err(SubmitError::UnknownSource),
        }
    }

    /// Makes room for a file of a source; `declared` is its length, if that is known.
    pub fn begin(&self, ops: &Ops, source: &Name, declared: Option<u64>) -> Result<Spool<'_>, SubmitError> {
        let bytes_max = self.submitter(ops, source)?.destination().bytes_max;
        if declared.is_some_and(|bytes| bytes > bytes_max) {
            return Err(SubmitError::TooLarge(bytes_max));
        }
        let place = self.places.try_acquire().map_err(|_| SubmitError::Busy)?;
        if !has_room(&self.folder, declared.unwrap_or_default()).map_err(|error| refused(&error))? {
            return Err(SubmitError::NoRoom);
        }
        let file = tempfile::tempfile_in(&self.folder).map_err(|error| refused(&error))?;
        let kept = Kept { file, hasher: Hasher::new(), piece: Vec::with_capacity(PIECE_BYTES) };
        Ok(Spool { folder: self.folder.clone(), kept: Some(kept), size: 0, bytes_max, place })
    }

    /// Sends what was kept, unless it is known; its result is awaited for `within`.
    pub async fn send(
        &self,
        ops: &Ops,
        source: &Name,
        spooled: Spooled<'_>,
        name: String,
        within: Duration,
    ) -> Result<Submission, SubmitError> {
        let Spooled { sample: (file, size, sha256), .. } = &spooled;
        let (size, sha256) = (*size, *sha256);
        let mut submission = Submission {
            source: source.clone(),
            name: name.clone(),
            sha256,
            size,
            known: true,
            known_by: None,
            verdict: None,
            analysis_id: None,
            expected: false,
        };
        if let Some(verdict) = verdict_of(ops, source, sha256).await {
            return Ok(Submission { known_by: Some("index"), verdict: Some(verdict), ..submission });
        }
        let sample = Sample { file: file.clone(), size, sha256, name };
        let Submitted { known, reported, analysis_id } =
            self.submitter(ops, source)?.submit(&sample, Timestamp::now()).await?;
        submission.known = known;
        submission.known_by = known.then_some("platform");
        let within = if reported { AT_ONCE } else { within };
        submission.expected = expect(ops, source, sha256, analysis_id.as_deref(), within).await;
        tracing::info!(%source, sha256 = %sha256, size, known, "a file was submitted for analysis");
        Ok(Submission { analysis_id, ..submission })
    }
}

/// Awaits the result; whether that is possible. The file was sent either way.
async fn expect(ops: &Ops, source: &Name, sha256: Sha256, analysis_id: Option<&str>, within: Duration) -> bool {
    let wanted = match analysis_id {
        Some(id) => Wanted::Id(id.to_owned()),
        None => Wanted::Sha256(sha256),
    };
    let announced = ops.expect(source, wanted, within, Timestamp::now()).await;
    if let Err(error) = &announced
        && !matches!(error, OpsError::Unpollable(_))
    {
        tracing::warn!(%source, %error, "a submitted file is not awaited: a lost result would not be noticed");
    }
    announced.is_ok()
}

/// The verdict of this source that stands for the file; none that says nothing.
async fn verdict_of(ops: &Ops, source: &Name, sha256: Sha256) -> Option<Verdict> {
    let (ledger, source) = (ops.ledger.clone(), source.clone());
    let subject = format!("file:{sha256}");
    let read = move || ledger.transact(|transaction| Ok(transaction.known(&subject, &source)?.record::<Record>()));
    // A ledger that cannot be read knows nothing.
    let record = spawn_blocking(read).await.ok()?.ok()??;
    (!matches!(record.verdict, Verdict::Unknown | Verdict::Error)).then_some(record.verdict)
}

/// A file that is arriving.
pub struct Spool<'a> {
    folder: PathBuf,
    kept: Option<Kept>,
    size: u64,
    bytes_max: u64,
    place: SemaphorePermit<'a>,
}

struct Kept {
    file: File,
    hasher: Hasher,
    piece: Vec<u8>,
}

/// A file that arrived.
pub struct Spooled<'a> {
    sample: (Arc<File>, u64, Sha256),
    _place: SemaphorePermit<'a>,
}

impl<'a> Spool<'a> {
    /// Takes what came next.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SubmitError> {
        self.size += bytes.len() as u64;
        if self.size > self.bytes_max {
            return Err(SubmitError::TooLarge(self.bytes_max));
        }
        let kept = self.kept.as_mut().ok_or(SubmitError::Disk)?;
        kept.piece.extend_from_slice(bytes);
        if kept.piece.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Writes and hashes what was taken, off the async threads.
    async fn flush(&mut self) -> Result<(), SubmitError> {
        let mut kept = self.kept.take().ok_or(SubmitError::Disk)?;
        let folder = self.folder.clone();
        let written = spawn_blocking(move || {
            if !has_room(&folder, kept.piece.len() as u64)? {
                return Err(io::ErrorKind::StorageFull.into());
            }
            kept.file.write_all(&kept.piece)?;
            kept.hasher.update(&kept.piece);
            kept.piece.clear();
            Ok::<_, io::Error>(kept)
        });
        self.kept = Some(written.await.map_err(io::Error::other).flatten().map_err(|error| refused(&error))?);
        Ok(())
    }

    /// All of it is there.
    pub async fn finish(mut self, declared: Option<u64>) -> Result<Spooled<'a>, SubmitError> {
        if declared.is_some_and(|bytes| bytes != self.size) {
            return Err(SubmitError::Incomplete);
        }
        if self.size == 0 {
            return Err(SubmitError::Empty);
        }
        self.flush().await?;
        let Kept { file, hasher, .. } = self.kept.take().ok_or(SubmitError::Disk)?;
        Ok(Spooled { sample: (Arc::new(file), self.size, Hash(hasher.finalize().into())), _place: self.place })
    }
}

fn refused(error: &io::Error) -> SubmitError {
    if error.kind() == io::ErrorKind::StorageFull {
        return SubmitError::NoRoom;
    }
    tracing::error!(%error, "a submitted file cannot be kept in the folder of the store");
    SubmitError::Disk
}
