//! Sends deliveries over kept-alive HTTP/1.1 connections, as fast as answers come or at a fixed rate, and takes the times.
//!
//! Invariants: one thread, no client library, so that the generator takes little from the server beside it; at a fixed rate a
//! delivery's time begins when it was due, so an answer that kept others waiting counts for all of them; an answer other than
//! 202 is counted and never acknowledged.
//!
//! Not here: what is sent (`deliveries`), to which process (`subject`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::deliveries::{Deliveries, Template};

/// How deliveries follow each other.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The next one when the last was answered, for this long, after a warm-up that is not timed.
    Closed { warm_up: Duration, timed: Duration },
    /// One every `interval`, whatever the answers do; the first `warm_up` of them are not timed.
    Open { interval: Duration, warm_up: usize, count: usize },
}

/// What came of it.
pub(crate) struct Outcome {
    /// From the first timed request to the last answer.
    pub(crate) elapsed: Duration,
    /// Timed answers, shortest first.
    pub(crate) latencies: Vec<Duration>,
    /// Numbers of all deliveries that were answered 202, timed or not.
    pub(crate) acknowledged: Vec<u32>,
    /// How many were answered otherwise, by status.
    pub(crate) refused: BTreeMap<u16, usize>,
    /// Connections that broke.
    pub(crate) broken: usize,
    /// Whether the deliveries were used up before the time was.
    pub(crate) used_up: bool,
}

impl Outcome {
    /// Timed answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time within which this part of the answers came, in milliseconds.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (part * last as f64).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Sends until the pace is run through. `repeat` begins again with the first delivery when all were sent: for servers that keep nothing.
pub(crate) fn run(
    server: SocketAddr,
    connections: usize,
    deliveries: &Arc<Deliveries>,
    pace: Pace,
    repeat: bool,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let expected = match pace {
        Pace::Closed { warm_up, timed } => warm_up + timed,
        Pace::Open { interval, warm_up, count } => interval * u32::try_from(warm_up + count)?,
    };
    let limit = expected + PATIENCE;
    runtime.block_on(async {
        let sending = send_all(server, connections, deliveries, pace, repeat);
        tokio::time::timeout(limit, sending).await.context("the server does not keep up, or stopped answering")?
    })
}

async fn send_all(
    server: SocketAddr,
    connections: usize,
    deliveries: &Arc<Deliveries>,
    pace: Pace,
    repeat: bool,
) -> anyhow::Result<Outcome> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(connect(server).await?);
    }
    let start = Instant::now();
    let plan = Arc::new(Plan {
        server,
        deliveries: deliveries.clone(),
        pace,
        repeat,
        start,
        next: AtomicUsize::new(0),
        due: Semaphore::new(0),
    });
    let pacer = match pace {
        Pace::Open { interval, warm_up, count } => {
            let plan = plan.clone();
            Some(std::thread::spawn(move || plan.make_due(interval, warm_up + count, connections)))
        }
        Pace::Closed { .. } => None,
    };
    let mut workers = tokio::task::JoinSet::new();
    for stream in streams {
        workers.spawn(plan.clone().work(stream));
    }
    let mut outcome = Outcome {
        elapsed: Duration::ZERO,
        latencies: Vec::new(),
        acknowledged: Vec::new(),
        refused: BTreeMap::new(),
        broken: 0,
        used_up: false,
    };
    while let Some(worked) = workers.join_next().await {
        outcome.add(worked??);
    }
    if let Some(pacer) = pacer {
        pacer.join().ok().context("the thread that keeps the pace broke")?;
    }
    outcome.elapsed = start.elapsed().saturating_sub(plan.warm_up());
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, worked: Worked) {
        self.latencies.extend(worked.latencies);
        self.acknowledged.extend(worked.acknowledged);
        for (status, count) in worked.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.broken += worked.broken;
        self.used_up |= worked.used_up;
    }
}

/// What all connections share.
struct Plan {
    server: SocketAddr,
    deliveries: Arc<Deliveries>,
    pace: Pace,
    repeat: bool,
    start: Instant,
    /// Number of the next delivery.
    next: AtomicUsize,
    /// Deliveries that are due and not yet taken by a connection.
    due: Semaphore,
}

/// What one connection did.
#[derive(Default)]
struct Worked {
    latencies: Vec<Duration>,
    acknowledged: Vec<u32>,
    refused: BTreeMap<u16, usize>,
    broken: usize,
    used_up: bool,
}

impl Plan {
    fn warm_up(&self) -> Duration {
        match self.pace {
            Pace::Closed { warm_up, .. } => warm_up,
            Pace::Open { interval, warm_up, .. } => interval * u32::try_from(warm_up).unwrap_or(u32::MAX),
        }
    }

    /// Releases each delivery when it is due. A thread of its own, because the timers of the runtime are a millisecond coarse.
    fn make_due(&self, interval: Duration, count: usize, connections: usize) {
        let mut released = 0;
        while released < count {
            let due = self.start.elapsed().as_nanos() / interval.as_nanos() + 1;
            let due = usize::try_from(due).unwrap_or(count).min(count);
            self.due.add_permits(due - released);
            released = due;
            let next = interval * u32::try_from(released).unwrap_or(u32::MAX);
            std::thread::sleep(next.saturating_sub(self.start.elapsed()));
        }
        // One for each connection, to see that it is over.
        self.due.add_permits(connections);
    }

    /// The next delivery and when its time began; none when it is over.
    async fn take(&self, worked: &mut Worked) -> Option<(usize, Instant)> {
        let began = match self.pace {
            Pace::Closed { warm_up, timed } => {
                let now = Instant::now();
                (now - self.start < warm_up + timed).then_some(now)
            }
            Pace::Open { .. } => {
                self.due.acquire().await.ok()?.forget();
                None
            }
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let began = match (self.pace, began) {
            (Pace::Closed { .. }, began) => began?,
            (Pace::Open { warm_up, count, .. }, _) if number >= warm_up + count => return None,
            (Pace::Open { interval, .. }, _) => self.start + interval * u32::try_from(number).ok()?,
        };
        match number {
            new if new < self.deliveries.count() => Some((new, began)),
            old if self.repeat => Some((old % self.deliveries.count(), began)),
            _ => {
                worked.used_up = true;
                None
            }
        }
    }

    async fn work(self: Arc<Self>, mut stream: TcpStream) -> anyhow::Result<Worked> {
        let timed_from = self.start + self.warm_up();
        let mut templates = self.deliveries.templates();
        let (mut worked, mut read) = (Worked::default(), Vec::with_capacity(ANSWER_BYTES_MAX));
        while let Some((number, began)) = self.take(&mut worked).await {
            match exchange(&mut stream, &self.deliveries, number, &mut templates, &mut read).await {
                Ok(ACCEPTED) => {
                    worked.acknowledged.push(u32::try_from(number)?);
                    if began >= timed_from {
                        worked.latencies.push(began.elapsed());
                    }
                }
                Ok(status) => *worked.refused.entry(status).or_default() += 1,
                Err(error) => {
                    worked.broken += 1;
                    if worked.broken > BROKEN_MAX {
                        return Err(error.context("connections break again and again"));
                    }
                    stream = connect(self.server).await?;
                }
            }
        }
        Ok(worked)
    }
}

async fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("no connection to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its answer's status.
async fn exchange(
    stream: &mut TcpStream,
    deliveries: &Deliveries,
    number: usize,
    templates: &mut [Template],
    read: &mut Vec<u8>,
) -> anyhow::Result<u16> {
    stream.write_all(deliveries.fill(number, templates)).await?;
    read.clear();
    loop {
        if stream.read_buf(read).await? == 0 {
            bail!("the server closed the connection");
        }
        if let Some((status, bytes)) = answer(read)?
            && read.len() >= bytes
        {
            return Ok(status);
        }
        if read.len() > ANSWER_BYTES_MAX {
            bail!("an answer of more than {ANSWER_BYTES_MAX} bytes");
        }
    }
}

/// Status and whole length of an answer, once its head is complete.
fn answer(read: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(head) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&read[..head])?;
    let status = text.get(9..12).context("no status line")?.parse()?;
    let mut body = 0;
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body = value.trim().parse()?;
        }
    }
    Ok(Some((status, head + 4 + body)))
}

const ACCEPTED: u16 = 202;
/// More than any answer of a receiver has.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// A server that closes more often than this is not measured, it is broken.
const BROKEN_MAX: usize = 100;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);
