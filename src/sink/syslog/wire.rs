//! A connection to a syslog receiver: made, looked at, written to, ended.
//!
//! Invariants: names are resolved and certificates read anew for each connection; a client certificate that the receiver rejects is
//! noticed before the first message (under TLS 1.3 only a read shows it).
//!
//! Not here: what is written and when it counts (`syslog`, `window`).

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::plan::{SyslogPlan, Target, Transport};
use super::queue;
use super::window::SEND_BUFFER_BYTES;
use crate::event::Position;
use crate::sink::{Rendered, Settled, Stop};
use crate::tls;

#[derive(Debug)]
pub(super) enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl SyslogPlan {
    /// Resolves the name and takes the first of its addresses that answers, and agrees on TLS where that is wanted.
    pub(super) async fn connect(&self, target: &Target) -> Result<Wire, Stop> {
        let Target { address, host, port } = target;
        let unknown =
            |why: &dyn std::fmt::Display| Stop::unavailable(format!("cannot resolve {host} of {address}: {why}"));
        let addresses: Vec<SocketAddr> =
            match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host.as_str(), *port))).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => return Err(unknown(&error)),
                Err(_) => return Err(unknown(&"no answer")),
            };
        self.connect_to_one_of(&addresses, target).await
    }

    /// A host with several addresses is well while one of them is.
    pub(super) async fn connect_to_one_of(&self, addresses: &[SocketAddr], target: &Target) -> Result<Wire, Stop> {
        // Read before connecting: a missing file is told even while the receiver is down.
        let connector = match self.transport {
            Transport::Tls => Some(self.connector(target)?),
            Transport::Udp | Transport::Tcp => None,
        };
        let mut stop = stop(target, "connect to", &ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            let attempt = match (self.transport, &connector) {
                (Transport::Udp, _) => connect_udp(*address).await.map(Wire::Udp),
                (Transport::Tcp, _) | (Transport::Tls, None) => connect_tcp(*address).await.map(Wire::Tcp),
                (Transport::Tls, Some(connector)) => match connect_tcp(*address).await {
                    Ok(stream) => match self.handshake(connector, stream, target).await {
                        Ok(wire) => Ok(wire),
                        Err(refused) => {
                            stop = refused;
                            continue;
                        }
                    },
                    Err(error) => Err(error),
                },
            };
            match attempt {
                Ok(wire) => return Ok(wire),
                Err(error) => stop = self::stop(target, "connect to", &error),
            }
        }
        Err(stop)
    }

    fn connector(&self, target: &Target) -> Result<TlsConnector, Stop> {
        let config = self.tls.load().map_err(|error| Stop::Tls { reason: format!("{}: {error}", target.address) })?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn handshake(&self, connector: &TlsConnector, stream: TcpStream, target: &Target) -> Result<Wire, Stop> {
        let name = self
            .tls
            .name_for(&target.host)
            .map_err(|error| Stop::Tls { reason: format!("{}: {error}", target.address) })?;
        let handshake = timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
        let mut stream = handshake
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            .map_err(|error| stop(target, "agree on TLS with", &error))?;
        // Under TLS 1.3 our side is done before the receiver has judged our certificate: its refusal is the next thing to read.
        if stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            read_for(&mut stream, VERDICT_WAIT).await.map_err(|error| stop(target, "agree on TLS with", &error))?;
        }
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// What happened at a destination, in words, with what to look for.
pub(super) fn stop(target: &Target, what: &str, error: &io::Error) -> Stop {
    let address = &target.address;
    if let Some(why) = tls::why(error) {
        return Stop::Tls { reason: format!("{address}: {why}") };
    }
    let hint = match error.kind() {
        ErrorKind::ConnectionRefused => "; is the receiver running, and is this its port?",
        ErrorKind::TimedOut if what == "write to" => {
            "; it acknowledges nothing: does the receiver hang, or is a route or firewall in the way?"
        }
        ErrorKind::TimedOut => "; no answer: check the route and the firewalls",
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if address.starts_with("tls:") => {
            "; does it speak TLS on this port, and does it know our client certificate's CA?"
        }
        _ => "",
    };
    Stop::unavailable(format!("cannot {what} {address}: {error}{hint}"))
}

impl Wire {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Udp(_) => None,
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
        }
    }

    /// Whether the connection is still good; the error says how it ended. Whatever else the receiver says is dropped: syslog has no answers.
    pub(super) async fn look(&mut self) -> io::Result<()> {
        let Some(socket) = self.tcp() else { return Ok(()) };
        // Asks the kernel, not the runtime, which may not have heard of the end yet.
        match rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => match self {
                Self::Udp(_) => Ok(()),
                Self::Tcp(stream) => read_for(stream, CHATTER_WAIT).await,
                Self::Tls(stream) => read_for(stream.as_mut(), CHATTER_WAIT).await,
            },
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the connection ends, and says how: `UnexpectedEof` where the receiver closed it. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Error {
        match self {
            Self::Udp(_) => std::future::pending().await,
            Self::Tcp(stream) => read_to_end(stream).await,
            Self::Tls(stream) => read_to_end(stream.as_mut()).await,
        }
    }

    /// Hands over some of `frames`, at least a byte. Cancel safe.
    pub(super) async fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Udp(_) => Ok(frames.len()),
            Self::Tcp(stream) => stream.write(frames).await,
            Self::Tls(stream) => stream.write(frames).await,
        };
        written.and_then(|bytes| if bytes == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(bytes) })
    }

    /// What TLS has encrypted may still wait in its buffer.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Udp(_) | Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Says that nothing more comes. A receiver that has read everything answers with its own end: the one receipt that syslog has.
    pub(super) async fn half_close(&mut self) -> io::Result<()> {
        match self {
            Self::Udp(_) => Ok(()),
            Self::Tcp(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    /// Bytes that the receiver's kernel has not acknowledged. Where our kernel does not tell, zero: time and the end of the
    /// connection (`TCP_USER_TIMEOUT`) then have to do. It does not tell of a connection that ended: look after asking.
    pub(super) fn queued(&self) -> u64 {
        let Some(stream) = self.tcp() else { return 0 };
        let asked = || queue::unacknowledged(stream.local_addr()?, stream.peer_addr()?);
        asked().unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel does not tell what a syslog receiver acknowledged: {error}");
            0
        })
    }
}

/// Reads and drops what comes within `wait`; an error if the connection ends in it.
async fn read_for(stream: &mut (impl AsyncReadExt + Unpin), wait: Duration) -> io::Result<()> {
    timeout(wait, read_to_end(stream)).await.map_or(Ok(()), Err)
}

/// Reads and drops what comes until the connection ends.
async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Error {
    let mut chatter = [0; 512];
    loop {
        match stream.read(&mut chatter).await {
            Ok(0) => return ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    // What lies in our own kernel is lost with the connection as well, and the window has to hold it.
    sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?;
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

/// Sends each message as one datagram; nothing of a batch that holds one that no datagram can hold.
pub(super) async fn send_datagrams(socket: &UdpSocket, batch: &[Rendered]) -> io::Result<Settled> {
    let (from, through) = (batch[0].position, batch[batch.len() - 1].position);
    let too_long = |position: Position, bytes: usize| Settled::Refused {
        from,
        through,
        suspect: Some(position),
        reason: format!("{bytes} bytes do not fit into a datagram; send it over TCP or TLS"),
    };
    if let Some(long) = batch.iter().find(|rendered| rendered.body.len() > DATAGRAM_BYTES_MAX) {
        return Ok(too_long(long.position, long.body.len()));
    }
    for Rendered { position, body, .. } in batch {
        let outcome = timeout(WRITE_TIMEOUT, socket.send(body)).await;
        match outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {
                return Ok(too_long(*position, body.len()));
            }
            Err(error) => return Err(error),
        }
    }
    // Where nobody listens, the kernel knows by now if the receiver is near.
    socket.take_error()?.map_or(Ok(Settled::Through(through)), Err)
}

/// Longer than a slow handshake over a bad line.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A receiver that takes not a byte for so long is down for us, though its kernel still answers.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
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
/// Most bytes of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
