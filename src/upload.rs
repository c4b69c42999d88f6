//! A file as the body of an HTTP request, read from disk while it is sent, with what stands before and after it in a form.
//!
//! Invariants: its length is known before it is sent, so nothing has to be chunked; at most one piece of it is in memory; a file that
//! became shorter meanwhile breaks the request instead of sending less than was told.
//!
//! Not here: whom it is sent to (`poll`, `cli`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::format::is_hazard;

/// Read at once: large enough for the disk, small beside everything else in memory.
const PIECE_BYTES: u64 = 256 << 10;
/// What file systems allow for one name.
const NAME_BYTES_MAX: usize = 255;

/// The body.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    head: Bytes,
    tail: Bytes,
    /// What is read next, and where the file ends.
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    sent: Arc<AtomicU64>,
}

impl FileBody {
    /// The first `bytes` of a file.
    pub fn new(file: Arc<File>, bytes: u64) -> Self {
        let (head, tail) = (Bytes::new(), Bytes::new());
        Self { file, head, tail, at: 0, end: bytes, reading: None, sent: Arc::default() }
    }

    /// With this before and after it.
    #[must_use]
    pub fn within(mut self, head: Bytes, tail: Bytes) -> Self {
        self.head = head;
        self.tail = tail;
        self
    }

    /// Bytes of the file that were handed to the connection.
    pub fn sent(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    fn left(&self) -> u64 {
        self.head.len() as u64 + (self.end - self.at) + self.tail.len() as u64
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if !this.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.head)))));
        }
        if this.at < this.end {
            let (file, at, length) = (this.file.clone(), this.at, PIECE_BYTES.min(this.end - this.at));
            let reading = this.reading.get_or_insert_with(|| spawn_blocking(move || piece(&file, at, length)));
            let read = ready!(Pin::new(reading).poll(context));
            this.reading = None;
            return Poll::Ready(Some(read.map_err(io::Error::other).flatten().map(|piece| {
                this.at += piece.len() as u64;
                this.sent.store(this.at, Ordering::Relaxed);
                Frame::data(piece)
            })));
        }
        let tail = std::mem::take(&mut this.tail);
        Poll::Ready((!tail.is_empty()).then_some(Ok(Frame::data(tail))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// That many bytes from there on; an error, if the file has less.
fn piece(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut piece, at).map(|()| piece.into())
}

/// A file's name as it may be told to others: without folders, line ends and characters that reverse or hide what a person reads.
pub fn file_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name: String = last.chars().filter(|c| !is_hazard(*c)).collect();
    crate::event::shorten(&mut name, NAME_BYTES_MAX);
    if matches!(name.trim(), "" | "." | "..") { "file".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn all(mut body: FileBody) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            bytes.extend(frame?.into_data().expect("only data"));
            assert!(body.is_end_stream() == (body.left() == 0));
        }
        Ok(bytes)
    }

    fn file(bytes: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(bytes, 0).expect("written");
        Arc::new(file)
    }

    #[tokio::test]
    async fn every_byte_is_sent_once_and_in_order() {
        for size in [0, 1, 262_143, 262_144, 262_145, 1_000_000_usize] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
            let body = FileBody::new(file(&bytes), size as u64).within("<".into(), ">".into());
            assert_eq!(body.size_hint().exact(), Some(size as u64 + 2));
            let sent = body.sent();
            assert_eq!(all(body).await.expect("read"), [b"<".as_slice(), &bytes, b">"].concat());
            assert_eq!(sent.load(Ordering::Relaxed), size as u64);
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_request() {
        assert_eq!(
            all(FileBody::new(file(b"12345"), 6)).await.expect_err("short").kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_name_has_no_folder_and_no_hazard() {
        for (name, told) in [
            ("invoice.exe", "invoice.exe"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\a\\x.doc", "x.doc"),
            ("a\r\nX-Evil: 1", "aX-Evil: 1"),
            ("exe.\u{202e}fdp", "exe.fdp"),
            ("", "file"),
            ("a/..", "file"),
            ("\0", "file"),
        ] {
            assert_eq!(file_name(name), told);
        }
        assert_eq!(file_name(&"ä".repeat(200)).len(), 254);
    }
}
