//! Syslog over UDP, TCP and TLS: frames around rendered messages, and what can be known of their arrival.
//!
//! Syslog has no acknowledgement. On TCP and TLS a batch is settled when all of it was handed to the connection and the receiver
//! had not closed or reset it by then: what a receiver took into its buffer and lost with it, and what was on the way when the
//! network broke, nobody can see from here. UDP is settled when it was sent.
//!
//! Invariants: the connection is looked at before each write and before a batch is settled, so the message after a quiet close is
//! never lost; a client certificate that the receiver rejects is noticed before the first message (under TLS 1.3 only a read shows
//! it); one event is one frame; nothing falls back from TLS to TCP.
//!
//! Not here: header, profile and size budget of a message (`format`).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::{RecvFlags, sockopt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Batch, Rendered, Settled, Sink, Stop, refused_for_line_end};
use crate::event::Position;
use crate::setting::{Problem, Size};
use crate::tls::{self, ClientTls, ClientTlsConfig};

sink_config! {
    /// Syslog over UDP, TCP or TLS.
    pub struct SyslogConfig {
        /// Where to: `udp://host:port`, `tcp://host:port` or `tls://host:port`; without a port 514, with TLS 6514.
        pub address: String,
        /// What receives: `qradar`, `arcsight`, `sentinel`, `sc4s`, `rsyslog` or `plain`. Sets format, header, framing, size budget and time.
        pub profile: Option<String>,
        /// Our host name in the header. Receivers tell log sources apart by it, so it has to be the same on every replica.
        pub hostname: Option<String>,
        /// How an event is written, instead of the profile's: `ocsf`, `ecs`, `cef` or `leef`.
        pub format: Option<String>,
        /// Most bytes of a message, instead of the profile's.
        pub size_max: Option<Size>,
        /// How messages are told apart on TCP and TLS: `octet_counting` (default) or `line_feed`, for receivers that know no other.
        pub framing: Option<Framing>,
        /// TLS, for `tls://`.
        #[serde(default)]
        pub tls: ClientTlsConfig,
    }
}

/// How messages are told apart on a stream (RFC 6587; RFC 5425 wants octet counting). A datagram is a message by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The length in bytes and a space before each message.
    #[default]
    OctetCounting,
    /// A line feed after each message.
    LineFeed,
}

/// Small enough that little has to be sent again after a lost connection.
pub(super) const BATCH: Batch = Batch { events_max: 500, bytes_max: 256 << 10, wait_max: Duration::from_millis(100) };

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Where to send, and how.
#[derive(Debug, Clone)]
pub struct SyslogPlan {
    /// As written in the config, for words.
    address: String,
    transport: Transport,
    host: String,
    port: u16,
    framing: Framing,
    tls: ClientTls,
    /// Word of the profile, if one is set.
    pub profile: Option<String>,
    /// Our host name in the header, if one is set.
    pub hostname: Option<String>,
    /// Word of the format, if it is not the profile's.
    pub format: Option<String>,
    /// Most bytes of a message, if it is not the profile's.
    pub size_max: Option<Size>,
}

impl SyslogConfig {
    pub(super) fn plan(self, key: &str) -> Result<SyslogPlan, Vec<Problem>> {
        let mut problems = Vec::new();
        let target = parse_address(&self.address);
        if let Err(message) = &target {
            problems.push(Problem::new(format!("{key}.address"), message.clone()));
        }
        let transport = target.as_ref().ok().map(|(transport, ..)| *transport);
        if !self.tls.is_default() && matches!(transport, Some(Transport::Udp | Transport::Tcp)) {
            problems.push(Problem::new(
                format!("{key}.tls"),
                "the address has no TLS: write \"tls://host:port\", or remove this table",
            ));
        }
        if self.framing.is_some() && transport == Some(Transport::Udp) {
            problems.push(Problem::new(format!("{key}.framing"), "a datagram is a message by itself: remove this"));
        }
        let tls = self.tls.plan(&format!("{key}.tls"));
        match (target, tls) {
            (Ok((transport, host, port)), Ok(tls)) if problems.is_empty() => Ok(SyslogPlan {
                address: self.address,
                transport,
                host,
                port,
                framing: self.framing.unwrap_or_default(),
                tls,
                profile: self.profile,
                hostname: self.hostname,
                format: self.format,
                size_max: self.size_max,
            }),
            (_, tls) => {
                problems.extend(tls.err().into_iter().flatten());
                Err(problems)
            }
        }
    }
}

fn parse_address(address: &str) -> Result<(Transport, String, u16), String> {
    let wrong =
        || format!("\"{address}\" is no address: write it like \"tls://qradar:6514\", \"tcp://...\" or \"udp://...\"");
    let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
    let (transport, default_port) = match scheme {
        "udp" => (Transport::Udp, 514),
        "tcp" => (Transport::Tcp, 514),
        "tls" => (Transport::Tls, 6514),
        _ => return Err(wrong()),
    };
    let (host, port) = match rest.strip_prefix('[') {
        // An IPv6 address stands in brackets.
        Some(bracketed) => bracketed.split_once(']').ok_or_else(wrong)?,
        None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        None if port.is_empty() => default_port,
        None => return Err(wrong()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(plain) { Err(wrong()) } else { Ok((transport, host.to_owned(), port)) }
}

impl SyslogPlan {
    pub(super) fn build(self) -> SyslogSink {
        SyslogSink { plan: self, wire: None, written: None, answers: VecDeque::new() }
    }
}

/// A syslog receiver.
#[derive(Debug)]
pub(super) struct SyslogSink {
    plan: SyslogPlan,
    wire: Option<Wire>,
    /// First and last position of the batch that was handed to the connection and is not settled yet.
    written: Option<(Position, Position)>,
    /// What `settled` will say next, before it looks at `written`.
    answers: VecDeque<Settled>,
}

#[derive(Debug)]
enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[async_trait]
impl Sink for SyslogSink {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.forget();
        self.wire = Some(self.plan.connect().await?);
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let wire = self.wire.as_mut().ok_or_else(|| Stop::unavailable("the syslog connection is not open"))?;
        if let Wire::Udp(socket) = wire {
            self.answers = send_datagrams(socket, batch).await.map_err(|error| self.plan.stop("send to", &error))?;
            return Ok(());
        }
        if self.plan.framing == Framing::LineFeed
            && let Some(refused) = refused_for_line_end(batch)
        {
            self.answers.push_back(refused);
            return Ok(());
        }
        if let Err(closed) = wire.look().await {
            // Nothing of this batch was written, so a connection that ended quietly costs nothing but a new one.
            return self.rewind(first.position, &closed);
        }
        let frames = frames(self.plan.framing, batch);
        let outcome =
            timeout(WRITE_TIMEOUT, wire.write(&frames)).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        if let Err(error) = outcome {
            let stop = self.plan.stop("write to", &error);
            self.forget();
            return Err(stop);
        }
        self.written = Some((first.position, last.position));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        if let Some(answer) = self.answers.pop_front() {
            return Ok(answer);
        }
        let (Some((first, last)), Some(wire)) = (self.written, &mut self.wire) else {
            return std::future::pending().await;
        };
        let closed = wire.look().await.err();
        self.written = None;
        match closed {
            None => Ok(Settled::Through(last)),
            Some(error) => {
                self.rewind(first, &error)?;
                Ok(self.answers.pop_front().expect("a rewind was just put there"))
            }
        }
    }

    async fn close(&mut self, grace: Duration) {
        match &mut self.wire {
            Some(Wire::Tcp(stream)) => drop(timeout(grace, stream.shutdown()).await),
            Some(Wire::Tls(stream)) => drop(timeout(grace, stream.shutdown()).await),
            Some(Wire::Udp(_)) | None => {}
        }
        self.forget();
    }
}

impl SyslogSink {
    fn forget(&mut self) {
        self.wire = None;
        self.written = None;
        self.answers.clear();
    }

    /// The connection is gone: everything from `first` on has to be sent again. A TLS alert is a stop, because a new connection
    /// would end the same way.
    fn rewind(&mut self, first: Position, error: &io::Error) -> Result<(), Stop> {
        self.forget();
        if tls::why(error).is_some() {
            return Err(self.plan.stop("write to", error));
        }
        tracing::info!(address = %self.plan.address, "{} closed the connection ({error}), connecting again", self.plan.address);
        self.answers.push_back(Settled::Rewind(first));
        Ok(())
    }
}

impl SyslogPlan {
    /// Resolves the name and takes the first of its addresses that answers.
    async fn connect(&self) -> Result<Wire, Stop> {
        let addresses = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((self.host.as_str(), self.port)));
        let addresses: Vec<SocketAddr> = match addresses.await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                return Err(Stop::unavailable(format!("cannot resolve {} of {}: {error}", self.host, self.address)));
            }
            Err(_) => {
                return Err(Stop::unavailable(format!("cannot resolve {} of {}: no answer", self.host, self.address)));
            }
        };
        // Read before connecting: a missing file is told even while the receiver is down.
        let connector = match self.transport {
            Transport::Tls => Some(self.connector()?),
            Transport::Udp | Transport::Tcp => None,
        };
        let mut last_error = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            let attempt = match self.transport {
                Transport::Udp => connect_udp(address).await.map(Wire::Udp),
                Transport::Tcp | Transport::Tls => connect_tcp(address).await.map(Wire::Tcp),
            };
            match (attempt, &connector) {
                (Ok(Wire::Tcp(stream)), Some(connector)) => return self.handshake(connector, stream).await,
                (Ok(wire), _) => return Ok(wire),
                (Err(error), _) => last_error = error,
            }
        }
        Err(self.stop("connect to", &last_error))
    }

    fn connector(&self) -> Result<TlsConnector, Stop> {
        let config = self.tls.load().map_err(|error| Stop::Tls { reason: format!("{}: {error}", self.address) })?;
        Ok(TlsConnector::from(std::sync::Arc::new(config)))
    }

    async fn handshake(&self, connector: &TlsConnector, stream: TcpStream) -> Result<Wire, Stop> {
        let name = self
            .tls
            .name_for(&self.host)
            .map_err(|error| Stop::Tls { reason: format!("{}: {error}", self.address) })?;
        let handshake = timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
        let mut stream = handshake
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            .map_err(|error| self.stop("agree on TLS with", &error))?;
        // Under TLS 1.3 our side is done before the receiver has judged our certificate: its refusal is the next thing to read.
        if stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            read_for(&mut stream, VERDICT_WAIT).await.map_err(|error| self.stop("agree on TLS with", &error))?;
        }
        Ok(Wire::Tls(Box::new(stream)))
    }

    fn stop(&self, what: &str, error: &io::Error) -> Stop {
        let address = &self.address;
        if let Some(why) = tls::why(error) {
            return Stop::Tls { reason: format!("{address}: {why}") };
        }
        let hint = match error.kind() {
            ErrorKind::ConnectionRefused => "; is the receiver running, and is this its port?",
            ErrorKind::TimedOut => "; no answer: check the route and the firewalls",
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if self.transport == Transport::Tls => {
                "; does it speak TLS on this port, and does it know our client certificate's CA?"
            }
            _ => "",
        };
        Stop::unavailable(format!("cannot {what} {address}: {error}{hint}"))
    }
}

impl Wire {
    /// Whether the connection is still good; the error says how it ended. Whatever else the receiver says is dropped: syslog has no answers.
    async fn look(&mut self) -> io::Result<()> {
        let socket = match &*self {
            Self::Udp(_) => return Ok(()),
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // Asks the kernel, not the runtime, which may not have heard of the end yet.
        match rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => match self {
                Self::Udp(_) => Ok(()),
                Self::Tcp(stream) => read_for(stream, CHATTER_WAIT).await,
                Self::Tls(stream) => read_for(stream.as_mut(), CHATTER_WAIT).await,
            },
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(_) => Ok(()),
            Self::Tcp(stream) => stream.write_all(frames).await,
            Self::Tls(stream) => {
                stream.write_all(frames).await?;
                // What TLS has encrypted may still wait in its buffer.
                stream.flush().await
            }
        }
    }
}

/// Reads and drops what comes within `wait`; an error if the connection ends in it.
async fn read_for(stream: &mut (impl AsyncReadExt + Unpin), wait: Duration) -> io::Result<()> {
    let mut chatter = [0; 512];
    let read = async {
        loop {
            match stream.read(&mut chatter).await {
                Ok(0) => return io::Error::from(ErrorKind::UnexpectedEof),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    timeout(wait, read).await.map_or(Ok(()), Err)
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    Ok(stream)
}

async fn connect_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that the kernel tells of a port where nobody listens.
    socket.connect(address).await?;
    Ok(socket)
}

/// Sends each message as one datagram, up to one that no datagram can hold.
async fn send_datagrams(socket: &UdpSocket, batch: &[Rendered]) -> io::Result<VecDeque<Settled>> {
    let mut answers = VecDeque::new();
    let mut sent = None;
    for rendered in batch {
        let outcome = timeout(WRITE_TIMEOUT, socket.send(&rendered.body)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match outcome {
            Ok(_) => sent = Some(rendered.position),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                answers.extend(sent.map(Settled::Through));
                answers.push_back(Settled::Refused {
                    from: rendered.position,
                    through: batch.last().unwrap_or(rendered).position,
                    suspect: Some(rendered.position),
                    reason: format!(
                        "{} bytes do not fit into a datagram; send it over TCP or TLS, or lower size_max",
                        rendered.body.len()
                    ),
                });
                return Ok(answers);
            }
            Err(error) => return Err(error),
        }
    }
    // Where the last one found nobody, the kernel knows by now if the receiver is near.
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    answers.extend(sent.map(Settled::Through));
    Ok(answers)
}

fn frames(framing: Framing, batch: &[Rendered]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(batch.iter().map(|rendered| rendered.body.len() + FRAME_BYTES_MAX).sum());
    for Rendered { body, .. } in batch {
        match framing {
            Framing::OctetCounting => {
                write!(frames, "{} ", body.len()).expect("memory takes every write");
                frames.extend_from_slice(body);
            }
            Framing::LineFeed => {
                frames.extend_from_slice(body);
                frames.push(b'\n');
            }
        }
    }
    frames
}

/// Longer than a slow handshake over a bad line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A receiver that takes nothing for so long is down for us, though its kernel still answers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receiver has to refuse our certificate: a round trip around the world and some work. Paid once a connection.
const VERDICT_WAIT: Duration = Duration::from_millis(500);
/// How long to wait for what the kernel already has; TLS may need the rest of a record.
const CHATTER_WAIT: Duration = Duration::from_millis(50);
/// Written bytes that nobody acknowledges for so long end the connection (`TCP_USER_TIMEOUT`); the kernel's own limit is 15 minutes.
const USER_TIMEOUT_MS: u32 = 15_000;
/// An idle connection is probed after 15 s, every 5 s, three times: a firewall that forgot it is noticed within 30 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// Digits of a length below 10 MB and a space.
const FRAME_BYTES_MAX: usize = 8;
