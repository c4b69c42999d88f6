//! The receivers of the demo: syslog over TCP with octet counting (RFC 6587), and the lines of a file as they come.
//!
//! Written apart from the sink, so that what the demo shows is what a receiver sees.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;

/// In which form an event arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Ocsf,
    Cef,
    Leef,
}

impl Form {
    pub(super) const ALL: [Self; 3] = [Self::Ocsf, Self::Cef, Self::Leef];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ocsf => "OCSF",
            Self::Cef => "CEF",
            Self::Leef => "LEEF",
        }
    }

    /// The event's identity, read out of one record of this form.
    fn uid(self, line: &str) -> Option<String> {
        let after = |key: &str| line.split_once(key).and_then(|(_, rest)| rest.get(..UID_DIGITS)).map(str::to_owned);
        match self {
            Self::Ocsf => {
                let event: serde_json::Value = serde_json::from_str(line).ok()?;
                event["metadata"]["uid"].as_str().map(str::to_owned)
            }
            Self::Cef => after("externalId="),
            Self::Leef => after("eventUid="),
        }
    }
}

/// An event as one receiver got it.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) form: Form,
    pub(super) uid: String,
    pub(super) line: String,
}

/// Takes connections and gives every message on, until nobody wants them.
pub(super) async fn syslog(listener: TcpListener, form: Form, arrivals: Sender<Arrival>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("the demo's syslog receiver")?;
        if let Err(error) = messages(stream, form, &arrivals).await {
            tracing::warn!("the demo's syslog receiver got no message: {error}");
        }
        if arrivals.is_closed() {
            return Ok(());
        }
    }
}

/// Every message of a connection: its length in digits, a space, and as many bytes.
async fn messages(stream: TcpStream, form: Form, arrivals: &Sender<Arrival>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut count = Vec::new();
        if (&mut stream).take(COUNT_DIGITS_MAX).read_until(b' ', &mut count).await? == 0 {
            return Ok(());
        }
        let count: usize = std::str::from_utf8(&count)?.strip_suffix(' ').context("no count")?.parse()?;
        if count > MESSAGE_BYTES_MAX {
            bail!("a message of {count} bytes");
        }
        let mut message = vec![0; count];
        stream.read_exact(&mut message).await?;
        give(String::from_utf8(message)?, form, arrivals).await?;
    }
}

/// Gives on every line of a file as it is appended, until nobody wants them.
pub(super) async fn lines(path: PathBuf, arrivals: Sender<Arrival>) -> anyhow::Result<()> {
    let mut at = 0;
    while !arrivals.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        for line in appended(&path, &mut at).await? {
            give(line, Form::Ocsf, &arrivals).await?;
        }
    }
    Ok(())
}

/// The complete lines behind `at`, which moves past them.
async fn appended(path: &Path, at: &mut u64) -> anyhow::Result<Vec<String>> {
    let Ok(mut file) = File::open(path).await else { return Ok(Vec::new()) };
    file.seek(SeekFrom::Start(*at)).await?;
    let mut text = String::new();
    file.read_to_string(&mut text).await?;
    let complete = text.rfind('\n').map_or(0, |end| end + 1);
    *at += complete as u64;
    Ok(text[..complete].lines().map(str::to_owned).collect())
}

async fn give(line: String, form: Form, arrivals: &Sender<Arrival>) -> anyhow::Result<()> {
    let uid = form.uid(&line).with_context(|| format!("a record without identity, as {}", form.word()))?;
    // Nobody wants it once the demo is over.
    let _over = arrivals.send(Arrival { form, uid, line }).await;
    Ok(())
}

const UID_DIGITS: usize = 32;
/// Seven digits and a space.
const COUNT_DIGITS_MAX: u64 = 8;
/// Far above every profile's size.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(50);
