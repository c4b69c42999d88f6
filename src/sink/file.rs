//! Events as lines: appended to a file, or on standard output.
//!
//! Invariants: a batch is settled only after its bytes were synced; a file begins every event on a line of its own, whatever an
//! earlier failure left behind; a new file is readable by its owner only; a file that was rotated away is noticed before each batch.
//!
//! Not here: when a file is rotated (`logrotate` by renaming; `copytruncate` can lose lines, as its manual says).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::Access;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Batch, Render, Rendered, Settled, Sink, Stop, refused_for_line_end};
use crate::event::Position;
use crate::format::{Format, Style};
use crate::setting::Problem;

sink_config! {
    /// One event a line, appended to a file and synced.
    pub struct FileConfig {
        /// File to append to; made with mode 0600 if there is none. Its folder has to exist.
        pub path: PathBuf,
        /// How an event is written.
        #[serde(default = "crate::sink::default_format")]
        pub format: Format,
    }
}

sink_config! {
    /// One event a line, on standard output.
    pub struct ConsoleConfig {
        /// How an event is written.
        #[serde(default = "crate::sink::default_format")]
        pub format: Format,
    }
}

/// One sync pays for many events.
pub(super) const BATCH: Batch = Batch { events_max: 1000, bytes_max: 4 << 20, wait_max: Duration::from_millis(50) };
/// Somebody is watching.
pub(super) const CONSOLE_BATCH: Batch = Batch { events_max: 100, bytes_max: 1 << 20, wait_max: Duration::ZERO };

impl FileConfig {
    pub(super) fn plan(self, key: &str) -> Result<FilePlan, Vec<Problem>> {
        if self.path.file_name().is_none() {
            return Err(vec![Problem::new(format!("{key}.path"), "name a file, like \"verdicts.ndjson\"")]);
        }
        Ok(FilePlan { path: self.path, format: self.format })
    }
}

impl ConsoleConfig {
    pub(super) fn plan(self) -> ConsolePlan {
        ConsolePlan { format: self.format }
    }
}

/// A file to append to.
#[derive(Debug, Clone)]
pub struct FilePlan {
    path: PathBuf,
    format: Format,
}

/// Standard output.
#[derive(Debug, Clone)]
pub struct ConsolePlan {
    format: Format,
}

impl FilePlan {
    pub(super) fn render(&self, style: Style) -> Render {
        let format = self.format;
        Box::new(move |event, out| format.render(event, &style, out))
    }

    pub(super) fn build(self) -> FileSink {
        FileSink { path: self.path, file: None, writing: None, refused: None }
    }
}

impl ConsolePlan {
    pub(super) fn render(&self, style: Style) -> Render {
        let format = self.format;
        Box::new(move |event, out| format.render(event, &style, out))
    }

    #[expect(clippy::unused_self, reason = "every plan is built the same way")]
    pub(super) fn build(self) -> ConsoleSink {
        ConsoleSink { written: None }
    }
}

/// Appends to a file.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    /// Open and ready to append; None before `open`, after a failure, and while a batch is being written.
    file: Option<File>,
    /// The last position of the batch that is being written and synced, and the file when that is done.
    writing: Option<(Position, JoinHandle<io::Result<File>>)>,
    refused: Option<Settled>,
}

#[async_trait]
impl Sink for FileSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.refused = None;
        if let Some((_, writing)) = self.writing.take() {
            // It can't be cancelled, and two writers would tear each other's lines. Its outcome is forgotten, as the port asks.
            drop(writing.await);
        }
        let path = self.path.clone();
        let opened = spawn_blocking(move || open_to_append(&path)).await.map_err(io::Error::other).flatten();
        self.file = Some(opened.map_err(|error| stop(&self.path, "open", &error))?);
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.refused = refused_for_line_end(batch);
        if self.refused.is_some() {
            return Ok(());
        }
        let file = self.file.take().ok_or_else(|| Stop::unavailable("the file is not open"))?;
        let (path, bytes) = (self.path.clone(), lines(batch));
        self.writing = Some((last.position, spawn_blocking(move || append(&path, file, &bytes))));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        if let Some(refused) = self.refused.take() {
            return Ok(refused);
        }
        let Some((_, writing)) = &mut self.writing else { return std::future::pending().await };
        let outcome = writing.await.map_err(io::Error::other).flatten();
        let (last, _) = self.writing.take().expect("it was just awaited");
        self.file = Some(outcome.map_err(|error| stop(&self.path, "write", &error))?);
        Ok(Settled::Through(last))
    }

    /// Looks without making the file: made by another user than the service's, it would lock the service out.
    async fn probe(&mut self) -> Result<(), Stop> {
        let path = &self.path;
        let may = |path: &Path, access| rustix::fs::access(path, access).map_err(io::Error::from);
        if path.is_dir() {
            return Err(stop(path, "write", &ErrorKind::IsADirectory.into()));
        }
        let looked = if path.exists() { may(path, Access::WRITE_OK) } else { may(folder_of(path), Access::WRITE_OK) };
        looked.map_err(|error| stop(path, "write", &error))
    }

    async fn close(&mut self, grace: Duration) {
        if let Some((_, writing)) = self.writing.take() {
            // Too slow a disk only means that these lines are written again after the restart.
            drop(tokio::time::timeout(grace, writing).await);
        }
        self.file = None;
    }
}

/// Opens for appending; a file that ends within a line gets that line ended.
fn open_to_append(path: &Path) -> io::Result<File> {
    // Readable too, only to see how it ends; a device or pipe needs no such care and may not be readable.
    let mut options = OpenOptions::new();
    options.append(true).mode(FILE_MODE);
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return options.open(path);
    }
    let is_new = !path.exists();
    let mut file = options.read(true).create(true).open(path)?;
    if is_new {
        File::open(folder_of(path))?.sync_all()?;
    }
    if file.metadata()?.len() > 0 {
        let mut end = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut end)?;
        if end != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes and syncs `bytes`; in a new file, if the old one was moved away.
fn append(path: &Path, mut file: File, bytes: &[u8]) -> io::Result<File> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => {}
        Ok(_) => file = open_to_append(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => file = open_to_append(path)?,
        Err(error) => return Err(error),
    }
    file.write_all(bytes)?;
    if file.metadata()?.is_file() {
        file.sync_data()?;
    }
    Ok(file)
}

fn stop(path: &Path, what: &str, error: &io::Error) -> Stop {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => {
            Stop::Misconfigured { reason: format!("cannot {what} {path}: its folder does not exist; create it") }
        }
        ErrorKind::PermissionDenied => Stop::Misconfigured {
            reason: format!("cannot {what} {path}: no permission; check its owner and rights, and the folder's"),
        },
        ErrorKind::IsADirectory => {
            Stop::Misconfigured { reason: format!("cannot {what} {path}: it is a folder; name a file") }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Stop::unavailable(format!("cannot {what} {path}: the disk is full ({error}); free some space"))
        }
        _ => Stop::unavailable(format!("cannot {what} {path}: {error}")),
    }
}

/// Writes to standard output.
#[derive(Debug)]
pub(super) struct ConsoleSink {
    written: Option<Settled>,
}

#[async_trait]
impl Sink for ConsoleSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.written = None;
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.written = refused_for_line_end(batch);
        if self.written.is_some() {
            return Ok(());
        }
        let bytes = lines(batch);
        let write = move || {
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        };
        let outcome = spawn_blocking(write).await.map_err(io::Error::other).flatten();
        outcome.map_err(|error| Stop::unavailable(format!("cannot write to standard output: {error}")))?;
        self.written = Some(Settled::Through(last.position));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        match self.written.take() {
            Some(settled) => Ok(settled),
            None => std::future::pending().await,
        }
    }

    async fn close(&mut self, _: Duration) {}
}

fn lines(batch: &[Rendered]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.iter().map(|rendered| rendered.body.len() + 1).sum());
    for rendered in batch {
        bytes.extend_from_slice(&rendered.body);
        bytes.push(b'\n');
    }
    bytes
}

/// Verdicts name files and tenants: nobody but the owner reads them, unless the operator opens the file up.
const FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sink::testing::{batch, rendered};

    fn sink(path: &Path) -> FileSink {
        FilePlan { path: path.to_owned(), format: Format::Ocsf }.build()
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).expect("is there")
    }

    #[tokio::test]
    async fn events_are_appended_a_line_each_to_a_file_of_the_owners() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.ndjson");
        let mut sink = sink(&path);
        assert_eq!(sink.open(Position(7)).await, Ok(Position(7)));
        for (batch, through) in [(batch(&[(1, "{\"a\":1}"), (2, "{\"a\":2}")]), 2), (batch(&[(3, "{}")]), 3)] {
            sink.send(&batch).await.expect("is written");
            assert_eq!(sink.settled().await, Ok(Settled::Through(Position(through))));
        }
        assert_eq!(read(&path), "{\"a\":1}\n{\"a\":2}\n{}\n");
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_was_rotated_away_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("out"), folder.path().join("out.1"));
        let mut sink = sink(&path);
        sink.open(Position(0)).await.expect("opens");
        for (position, body) in [(1, "one"), (2, "two")] {
            sink.send(&batch(&[(position, body)])).await.expect("is written");
            sink.settled().await.expect("is synced");
            if position == 1 {
                std::fs::rename(&path, &old).expect("rotates");
            }
        }
        assert_eq!((read(&old), read(&path)), ("one\n".to_owned(), "two\n".to_owned()));
    }

    #[tokio::test]
    async fn what_a_crash_left_of_a_line_never_joins_the_next_event() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        std::fs::write(&path, "{\"torn\":").expect("writes");
        let mut sink = sink(&path);
        sink.open(Position(0)).await.expect("opens");
        sink.send(&batch(&[(1, "{}")])).await.expect("is written");
        sink.settled().await.expect("is synced");
        assert_eq!(read(&path), "{\"torn\":\n{}\n");
    }

    #[tokio::test]
    async fn trouble_with_the_file_is_told_with_what_to_do_and_settles_nothing() {
        let mut full = sink(Path::new("/dev/full"));
        full.open(Position(0)).await.expect("opens");
        full.send(&batch(&[(1, "{}")])).await.expect("is handed over");
        let stop = full.settled().await.expect_err("the disk is full");
        assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("disk is full")), "{stop}");

        let folder = tempfile::tempdir().expect("a folder");
        for (path, words) in [(folder.path().join("no/out"), "create it"), (folder.path().to_owned(), "name a file")] {
            let stop = sink(&path).open(Position(0)).await.expect_err("cannot be opened");
            assert!(matches!(&stop, Stop::Misconfigured { reason } if reason.contains(words)), "{stop}");
        }
    }

    #[tokio::test]
    async fn an_event_with_a_line_end_is_refused_and_nothing_of_its_batch_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let mut sink = sink(&path);
        sink.open(Position(0)).await.expect("opens");
        sink.send(&[rendered(1, "{}"), rendered(2, "{\n}")]).await.expect("is handed over");
        let settled = sink.settled().await.expect("is refused");
        assert!(matches!(settled, Settled::Refused { suspect: Some(Position(2)), .. }), "{settled:?}");
        assert_eq!(read(&path), "");
    }
}
