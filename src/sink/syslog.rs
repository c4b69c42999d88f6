//! Syslog over UDP, TCP and TLS: frames around rendered messages, and what can be known of their arrival.
//!
//! Syslog has no acknowledgement. On TCP and TLS a batch stays in a window (`window`) until its receiver must have read it, as far as
//! the kernels tell; a connection that ends before that is made again, and the whole window sent again. What cannot be seen is
//! a receiver that leaves more than the window unread, or loses what it has read. UDP is settled when it was sent.
//!
//! Leaving is the one case with a receipt: we close our direction, and a receiver that has read everything closes its own.
//!
//! Invariants: the connection is looked at before each write and before a batch is settled; one event is one frame, also when a
//! write is interrupted; nothing falls back from TLS to TCP.
//!
//! Not here: header, profile and size budget of a message (`format`).

mod order;
mod plan;
mod queue;
mod stall;
mod window;
mod wire;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Batch, Rendered, Settled, Sink, Stop, refused_for_line_end};
use crate::event::Position;
use crate::format::rfc5424::Framing;
use crate::tls::{self, Stamp};

use self::order::Order;
use self::plan::Transport;
use self::stall::Stall;
use self::window::Window;
use self::wire::{WRITE_TIMEOUT, Wire, send_datagrams, stop};

pub use self::plan::{SyslogConfig, SyslogPlan};

/// Small enough that little has to be sent again after a lost connection.
pub(super) const BATCH: Batch = Batch { events_max: 500, bytes_max: 256 << 10, wait_max: Duration::from_millis(100) };

/// A syslog receiver, or several of which one is used.
#[derive(Debug)]
pub(super) struct SyslogSink {
    plan: Arc<SyslogPlan>,
    order: Order,
    wire: Option<Wire>,
    connected_at: Instant,
    /// Of each destination, whether its connections stood still.
    stalls: Vec<Stall>,
    /// What the connection's certificates looked like when it was made.
    stamp: Stamp,
    /// What was written and may be lost with the connection.
    window: Window,
    /// A batch on its way into the connection.
    outbox: Option<Outbox>,
    /// Whether `deliver` knows that this connection takes what is sent.
    is_alive: bool,
    /// Our direction is closed; the receiver has until then to close its own.
    leaving: Option<Instant>,
    /// When the last look for a better connection was taken.
    considered_at: Instant,
    /// A try whether a better destination is back.
    trial: Option<(usize, JoinHandle<Result<(), Stop>>)>,
    /// What `settled` will say next.
    answers: VecDeque<Settled>,
}

/// Frames of one batch. They outlive a `send` that was dropped in the middle, so that no half frame is the last one.
#[derive(Debug)]
struct Outbox {
    range: (Position, Position),
    frames: Vec<u8>,
    written: usize,
}

#[async_trait]
impl Sink for SyslogSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.forget();
        let mut first_stop = None;
        for index in self.order.to_try(Instant::now()) {
            self.stamp = self.plan.tls.stamp();
            match self.plan.connect(&self.plan.targets[index]).await {
                Ok(wire) => {
                    self.wire = Some(wire);
                    self.connected_at = Instant::now();
                    self.order.use_now(index);
                    self.considered_at = Instant::now();
                    return Ok(from);
                }
                Err(stop) => {
                    self.order.failed(index, Instant::now(), fastrand::f64());
                    first_stop.get_or_insert(stop);
                }
            }
        }
        Err(first_stop.unwrap_or_else(|| Stop::unavailable("no address is configured")))
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let range = (first.position, last.position);
        if !self.answers.is_empty() {
            // The connection was left, and the rewind that is about to be told covers this batch.
            return Ok(());
        }
        let wire = self.wire.as_mut().ok_or_else(|| Stop::unavailable("the syslog connection is not open"))?;
        if let Wire::Udp(socket) = wire {
            let sent = send_datagrams(socket, batch).await;
            self.answers.push_back(sent.map_err(|error| self.stop("send to", &error))?);
            return Ok(());
        }
        if self.plan.profile.framing == Framing::Lf
            && let Some(refused) = refused_for_line_end(batch)
        {
            // Whoever is told this sends everything unsettled again.
            self.window.clear();
            self.answers.push_back(refused);
            return Ok(());
        }
        self.look_for_better().await;
        if self.leaving.is_some() && self.window.len() == 0 {
            self.rewind(range.0);
        }
        let Some(wire) = self.wire.as_mut().filter(|_| self.leaving.is_none()) else { return Ok(()) };
        if let Err(closed) = wire.look().await {
            return self.lost(&closed, range.0);
        }
        self.outbox = Some(Outbox { range, frames: frames(self.plan.profile.framing, batch), written: 0 });
        self.empty_outbox().await.map_err(|error| {
            self.order.failed(self.order.current(), Instant::now(), fastrand::f64());
            self.ended(&error)
        })
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            let (Some(wire), Some(first), Some(due)) = (&mut self.wire, self.window.first(), self.window.due()) else {
                return std::future::pending().await;
            };
            if let Some(until) = self.leaving {
                let end = timeout_at(until, wire.ended()).await.unwrap_or_else(|_| ErrorKind::TimedOut.into());
                self.left(&end, first);
                continue;
            }
            if self.window.is_full() {
                return Ok(self.settle());
            }
            let is_due = due <= Instant::now();
            if is_due || !self.is_alive {
                // In this order: a connection that ended is none that the kernel knows, and nothing of it counts as acknowledged.
                let queued = wire.queued();
                let is_acknowledged = self.window.is_acknowledged(queued);
                if let Err(closed) = wire.look().await {
                    self.lost(&closed, first)?;
                    continue;
                }
                let stall = &mut self.stalls[self.order.current()];
                let acknowledged = self.window.acknowledged(queued);
                let is_well = is_acknowledged && stall.is_over(acknowledged, self.connected_at, Instant::now());
                if is_well && is_due {
                    return Ok(self.settle());
                }
                if is_well {
                    self.is_alive = true;
                    return Ok(Settled::Alive);
                }
            }
            let pause = if is_due || !self.is_alive { ASK_PAUSE } else { due - Instant::now() };
            tokio::select! {
                end = wire.ended() => self.lost(&end, first)?,
                () = sleep(pause.min(CONSIDER_PAUSE)) => self.look_for_better().await,
            }
        }
    }

    async fn probe(&mut self) -> Result<(), Stop> {
        for target in &self.plan.targets {
            self.plan.connect(target).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        // A frame that was begun is ended: a receiver would take half of one for a message.
        if self.wire.is_some() && timeout(LEAVE_MAX, self.empty_outbox()).await.is_ok_and(|written| written.is_ok()) {
            self.leave().await;
        }
    }

    async fn close(&mut self, grace: Duration) {
        if let Some(wire) = &mut self.wire {
            drop(timeout(grace, wire.half_close()).await);
        }
        self.forget();
    }

    fn in_flight_max(&self) -> usize {
        let is_udp = self.plan.transport == Transport::Udp;
        // The window holds as many batches as fit into its bytes; beyond that, and while we leave, the oldest has to go first.
        if is_udp || self.window.is_full() || self.leaving.is_some() { self.window.len().max(1) } else { usize::MAX }
    }
}

impl SyslogSink {
    fn new(plan: Arc<SyslogPlan>) -> Self {
        Self {
            order: Order::new(plan.targets.len()),
            wire: None,
            connected_at: Instant::now(),
            stalls: vec![Stall::default(); plan.targets.len()],
            stamp: plan.tls.stamp(),
            window: Window::new(plan.resend_bytes, plan.resend_time),
            outbox: None,
            is_alive: false,
            leaving: None,
            considered_at: Instant::now(),
            trial: None,
            answers: VecDeque::new(),
            plan,
        }
    }

    fn forget(&mut self) {
        self.wire = None;
        self.window.clear();
        self.outbox = None;
        self.is_alive = false;
        self.leaving = None;
        self.answers.clear();
    }

    fn stop(&self, what: &str, error: &io::Error) -> Stop {
        stop(&self.plan.targets[self.order.current()], what, error)
    }

    /// Lets the oldest batch of the window go.
    fn settle(&mut self) -> Settled {
        self.order.took();
        self.is_alive = true;
        Settled::Through(self.window.settle().expect("only called where the window holds a batch"))
    }

    /// Writes what is left of the batch in hand. Cancel safe.
    async fn empty_outbox(&mut self) -> io::Result<()> {
        let (Some(wire), Some(outbox)) = (&mut self.wire, &mut self.outbox) else { return Ok(()) };
        while let rest @ [_, ..] = &outbox.frames[outbox.written..] {
            let written = timeout(WRITE_TIMEOUT, wire.write(rest)).await;
            outbox.written += written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
        }
        timeout(WRITE_TIMEOUT, wire.flush()).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
        self.window.push(outbox.range, outbox.written, Instant::now());
        self.outbox = None;
        Ok(())
    }

    /// The connection is gone, and why a new one may go the same way.
    fn ended(&mut self, error: &io::Error) -> Stop {
        if error.kind() == ErrorKind::TimedOut {
            let begun = self.outbox.as_ref().map_or(0, |outbox| outbox.written as u64);
            self.stalls[self.order.current()].stood_still(self.window.written() + begun);
        }
        let stop = self.stop("write to", error);
        self.forget();
        stop
    }

    /// The connection is gone: everything in the window, or from `first` on, has to be sent again. A TLS alert and a standstill are a stop,
    /// because a new connection would end the same way.
    fn lost(&mut self, end: &io::Error, first: Position) -> Result<(), Stop> {
        self.order.failed(self.order.current(), Instant::now(), fastrand::f64());
        if tls::why(end).is_some() || end.kind() == ErrorKind::TimedOut {
            return Err(self.ended(end));
        }
        let (address, batches) = (&self.plan.targets[self.order.current()].address, self.window.len());
        tracing::info!(%address, batches, "{address} ended the connection ({end}); {batches} batches that it may not have read are sent again");
        let first = self.window.first().unwrap_or(first);
        self.rewind(first);
        Ok(())
    }

    fn rewind(&mut self, first: Position) {
        self.forget();
        self.answers.push_back(Settled::Rewind(first));
    }

    /// Closes our direction, so that the receiver closes its own once it has read everything.
    async fn leave(&mut self) {
        if let Some(wire) = &mut self.wire {
            let until = Instant::now() + LEAVE_MAX;
            // An error here is one that the wait for the receiver's end meets again.
            drop(timeout_at(until, wire.half_close()).await);
            self.leaving = Some(until);
        }
    }

    /// The receiver ended a connection that we left: if by its own close, it has read everything.
    fn left(&mut self, end: &io::Error, first: Position) {
        let last = self.window.last();
        if end.kind() != ErrorKind::UnexpectedEof {
            let address = &self.plan.targets[self.order.current()].address;
            tracing::info!(%address, "{address} did not say that it has read everything ({end}); what it may not have read is sent again");
        }
        self.rewind(first);
        if let (ErrorKind::UnexpectedEof, Some(last)) = (end.kind(), last) {
            self.answers.push_front(Settled::Through(last));
        }
    }

    /// Leaves the connection where a better one can be had: its certificates changed on disk, or a destination that stands before it
    /// is back.
    async fn look_for_better(&mut self) {
        if self.leaving.is_some() || self.considered_at.elapsed() < CONSIDER_PAUSE {
            return;
        }
        self.considered_at = Instant::now();
        let address = &self.plan.targets[self.order.current()].address;
        let stamp = self.plan.tls.stamp();
        if self.plan.transport == Transport::Tls && stamp != self.stamp {
            self.stamp = stamp;
            match self.plan.tls.load() {
                Ok(_) => {
                    tracing::info!(%address, "the certificates for {address} changed, connecting again");
                    return self.leave().await;
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "the new certificates for {address} cannot be used, the old ones stay: {error}");
                }
            }
        }
        match self.trial.take_if(|(_, trial)| trial.is_finished()) {
            Some((index, trial)) => {
                if matches!(trial.await, Ok(Ok(()))) {
                    let better = &self.plan.targets[index].address;
                    tracing::info!(%address, %better, "{better} is back, leaving {address}");
                    self.leave().await;
                } else {
                    self.order.failed(index, Instant::now(), fastrand::f64());
                }
            }
            None if self.trial.is_none() => {
                self.trial = self.order.better(Instant::now()).map(|index| {
                    let plan = Arc::clone(&self.plan);
                    let trial = tokio::spawn(async move { plan.connect(&plan.targets[index]).await.map(drop) });
                    (index, trial)
                });
            }
            None => {}
        }
    }
}

fn frames(framing: Framing, batch: &[Rendered]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(batch.iter().map(|rendered| rendered.body.len() + FRAME_BYTES_MAX).sum());
    for Rendered { body, .. } in batch {
        match framing {
            Framing::OctetCounting => {
                write!(frames, "{} ", body.len()).expect("memory takes every write");
                frames.extend_from_slice(body);
            }
            Framing::Lf => {
                frames.extend_from_slice(body);
                frames.push(b'\n');
            }
        }
    }
    frames
}

/// Digits of a length below 10 MB and a space.
const FRAME_BYTES_MAX: usize = 8;
/// How often the kernel is asked while an acknowledgement is awaited: about a round trip, and nothing on a processor.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// How often certificates and better destinations are looked for: a changed file has to be taken up within 10 s.
const CONSIDER_PAUSE: Duration = Duration::from_secs(3);
/// How long a receiver that we leave has to read the rest and close; after that its window is sent again.
const LEAVE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
