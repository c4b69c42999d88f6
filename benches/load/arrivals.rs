//! What arrived at the sinks: receivers on loopback that keep every byte for later, and the count of deliveries in what was kept.
//!
//! Invariant: nothing is counted while the clock runs, so a receiver takes as little from the service beside it as it can.
//!
//! Not here: which sink sends what (`subject`).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use flate2::read::MultiGzDecoder;

use crate::bodies::MARK;
use crate::deliveries::NUMBER_DIGITS;

/// The deliveries that were found somewhere, each counted once.
#[derive(Default)]
pub(crate) struct Arrivals {
    seen: Vec<bool>,
}

impl Arrivals {
    /// How many of these did not arrive.
    pub(crate) fn missing(&self, acknowledged: &[u32]) -> usize {
        acknowledged.iter().filter(|number| !self.seen.get(**number as usize).is_some_and(|seen| *seen)).count()
    }

    /// How many arrived, each counted once.
    pub(crate) fn count(&self) -> usize {
        self.seen.iter().filter(|seen| **seen).count()
    }

    /// Looks for the marks of deliveries in `source`, to its end.
    pub(crate) fn read(&mut self, mut source: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut kept = 0;
        loop {
            let read = source.read(&mut buffer[kept..])?;
            if read == 0 {
                return Ok(());
            }
            let filled = kept + read;
            self.look(&buffer[..filled]);
            // A mark may be cut in two by the end of the buffer; one that is seen twice counts once.
            kept = filled.min(MARK.len() - 1);
            buffer.copy_within(filled - kept..filled, 0);
        }
    }

    /// Looks for the marks of deliveries in `bytes`.
    pub(crate) fn look(&mut self, bytes: &[u8]) {
        let word = &MARK.as_bytes()[..MARK.len() - NUMBER_DIGITS];
        let Some(last) = bytes.len().checked_sub(MARK.len()) else { return };
        let mut at = 0;
        while at <= last {
            if bytes[at] != word[0] || !bytes[at..].starts_with(word) {
                at += 1;
                continue;
            }
            let digits = &bytes[at + word.len()..at + MARK.len()];
            if let Some(number) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok()) {
                if self.seen.len() <= number {
                    self.seen.resize(number + 1, false);
                }
                self.seen[number] = true;
            }
            at += MARK.len();
        }
    }
}

/// The protocols that a receiver here speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Syslog over TCP: reads.
    Syslog,
    /// Splunk's HTTP event collector, without acknowledgements: says that all is well.
    Hec,
}

/// A receiver on loopback that keeps what it gets in files.
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    protocol: Protocol,
    folder: PathBuf,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<io::Result<usize>>>,
}

impl Receiver {
    /// Begins to listen; files go to `folder`.
    pub(crate) fn start(protocol: Protocol, folder: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let (seen_ending, kept_in) = (ending.clone(), folder.to_owned());
        let accepting = std::thread::spawn(move || accept_all(&listener, protocol, &kept_in, &seen_ending));
        Ok(Self { address, protocol, folder: folder.to_owned(), ending, accepting: Some(accepting) })
    }

    /// Waits until the senders have closed their connections, then counts what came.
    pub(crate) fn finish(mut self) -> anyhow::Result<Arrivals> {
        let accepting = self.end().context("a receiver ends once")?;
        let connections = accepting.join().ok().context("the thread of a receiver broke")??;
        let mut arrivals = Arrivals::default();
        for connection in 0..connections {
            let mut file = File::open(kept_file(&self.folder, connection))?;
            match self.protocol {
                Protocol::Syslog => arrivals.read(file)?,
                Protocol::Hec => read_bodies(&mut file, &mut arrivals)?,
            }
        }
        Ok(arrivals)
    }

    fn end(&mut self) -> Option<JoinHandle<io::Result<usize>>> {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the accept; if that fails the listener is gone already.
        drop(TcpStream::connect(self.address));
        self.accepting.take()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // After a failure elsewhere nobody joins it: it ends by itself when the senders are gone.
        drop(self.end());
    }
}

fn kept_file(folder: &Path, connection: usize) -> PathBuf {
    folder.join(format!("received-{connection}"))
}

/// Takes connections until told to end; how many there were.
fn accept_all(listener: &TcpListener, protocol: Protocol, folder: &Path, ending: &AtomicBool) -> io::Result<usize> {
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        let stream = stream?;
        if ending.load(Ordering::Relaxed) {
            break;
        }
        let file = File::create(kept_file(folder, connections.len()))?;
        connections.push(std::thread::spawn(move || match protocol {
            Protocol::Syslog => keep_all(stream, file),
            Protocol::Hec => keep_bodies(stream, file),
        }));
    }
    let count = connections.len();
    for connection in connections {
        connection.join().map_err(|_| io::Error::other("the thread of a connection broke"))??;
    }
    Ok(count)
}

fn keep_all(mut stream: TcpStream, mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            // The service closed without reading on; what it sent before is here.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            read => read?,
        };
        file.write_all(&buffer[..read])?;
    }
}

/// Answers each request, and keeps its body behind its length and whether it is compressed.
fn keep_bodies(mut stream: TcpStream, mut file: File) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1 << 20);
    loop {
        let head = loop {
            if let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break head + 4;
            }
            if !read_more(&mut stream, &mut buffer)? {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        let compressed = field("content-encoding:") == Some("gzip");
        while buffer.len() < head + length {
            if !read_more(&mut stream, &mut buffer)? {
                return Ok(());
            }
        }
        // Kept before it is answered, as one would expect of a collector.
        file.write_all(&(length as u64).to_le_bytes())?;
        file.write_all(&[u8::from(compressed)])?;
        file.write_all(&buffer[head..head + length])?;
        stream.write_all(HEC_SUCCESS)?;
        buffer.drain(..head + length);
    }
}

/// Reads once; false at the end.
fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let filled = buffer.len();
    buffer.resize(filled + (64 << 10), 0);
    let read = match stream.read(&mut buffer[filled..]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
        read => read?,
    };
    buffer.truncate(filled + read);
    Ok(read > 0)
}

/// Counts what [`keep_bodies`] kept.
fn read_bodies(file: &mut File, arrivals: &mut Arrivals) -> io::Result<()> {
    let mut file = io::BufReader::new(file);
    let mut length = [0; 8];
    loop {
        match file.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut compressed = [0];
        file.read_exact(&mut compressed)?;
        let mut body = (&mut file).take(u64::from_le_bytes(length));
        match compressed {
            [1] => arrivals.read(MultiGzDecoder::new(&mut body))?,
            _ => arrivals.read(&mut body)?,
        }
        // What a decoder did not look at.
        io::copy(&mut body, &mut io::sink())?;
    }
}

const HEC_SUCCESS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"text\":\"Success\",\"code\":0}";
