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

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Batch, Render, Rendered, Settled, Sink, Stop, refused_for_line_end};
use crate::event::Position;
use crate::format::rfc5424::{Framing, Header, Profile, Receiver, SIZE_MIN, UDP_SIZE_MAX};
use crate::format::{Format, Style};
use crate::setting::{Problem, Size};
use crate::tls::{self, ClientTls, ClientTlsConfig};

sink_config! {
    /// Syslog over UDP, TCP or TLS.
    pub struct SyslogConfig {
        /// Where to: `udp://host:port`, `tcp://host:port` or `tls://host:port`; without a port 514, with TLS 6514.
        pub address: String,
        /// What receives. Sets format, header, framing, size budget and time.
        #[serde(default = "plain")]
        pub profile: Receiver,
        /// Our host name in the header. Receivers tell log sources apart by it, so it has to be the same on every replica.
        pub hostname: Option<String>,
        /// How an event is written, instead of the profile's way.
        pub format: Option<Format>,
        /// Header before the event, instead of the profile's.
        pub header: Option<Header>,
        /// How messages are told apart on TCP and TLS, instead of the profile's way.
        pub framing: Option<Framing>,
        /// Most bytes of a message, instead of the profile's: 1KiB to 64KiB, over UDP at most 1KiB.
        pub size_max: Option<Size>,
        /// TLS, for `tls://`.
        #[serde(default)]
        pub tls: ClientTlsConfig,
    }
}

const fn plain() -> Receiver {
    Receiver::Plain
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
    tls: ClientTls,
    profile: Profile,
    hostname: Option<String>,
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
        let size_max = self.size_max.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let size_most = if transport == Some(Transport::Udp) { UDP_SIZE_MAX } else { SIZE_MOST };
        if size_max.is_some_and(|size| !(SIZE_MIN..=size_most).contains(&size)) {
            let most = Size(size_most as u64);
            problems.push(Problem::new(format!("{key}.size_max"), format!("use \"1KiB\" to \"{most}\"")));
        }
        let Profile { format, header, framing, size_max: budget, cee } = self.profile.profile();
        let profile = Profile {
            format: self.format.unwrap_or(format),
            header: self.header.unwrap_or(header),
            framing: self.framing.unwrap_or(framing),
            size_max: size_max.unwrap_or(budget),
            cee,
        };
        match (target, self.tls.plan(&format!("{key}.tls"))) {
            (Ok((transport, host, port)), Ok(tls)) if problems.is_empty() => Ok(SyslogPlan {
                address: self.address,
                profile: if transport == Transport::Udp { profile.for_udp() } else { profile },
                transport,
                host,
                port,
                tls,
                hostname: self.hostname,
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
    pub(super) fn render(&self, style: Style) -> Render {
        let style = self.hostname.as_deref().map_or(style, Style::new);
        let profile = self.profile.clone();
        Box::new(move |event, out| profile.render(event, &style, out))
    }

    pub(super) fn build(self) -> SyslogSink {
        SyslogSink { plan: self, wire: None, written: None, answer: None }
    }
}

/// A syslog receiver.
#[derive(Debug)]
pub(super) struct SyslogSink {
    plan: SyslogPlan,
    wire: Option<Wire>,
    /// First and last position of the batch that was handed to the connection and is not settled yet.
    written: Option<(Position, Position)>,
    /// What `settled` will say, where that is known already.
    answer: Option<Settled>,
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
            let sent = send_datagrams(socket, batch).await;
            self.answer = Some(sent.map_err(|error| self.plan.stop("send to", &error))?);
            return Ok(());
        }
        if self.plan.profile.framing == Framing::Lf
            && let Some(refused) = refused_for_line_end(batch)
        {
            self.answer = Some(refused);
            return Ok(());
        }
        if let Err(closed) = wire.look().await {
            // Nothing of this batch was written, so a connection that ended quietly costs nothing but a new one.
            return self.rewind(first.position, &closed);
        }
        let frames = frames(self.plan.profile.framing, batch);
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
        if let Some(answer) = self.answer.take() {
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
                Ok(self.answer.take().expect("a rewind was just put there"))
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
        self.answer = None;
    }

    /// The connection is gone: everything from `first` on has to be sent again. A TLS alert is a stop, because a new connection
    /// would end the same way.
    fn rewind(&mut self, first: Position, error: &io::Error) -> Result<(), Stop> {
        self.forget();
        if tls::why(error).is_some() {
            return Err(self.plan.stop("write to", error));
        }
        tracing::info!(address = %self.plan.address, "{} closed the connection ({error}), connecting again", self.plan.address);
        self.answer = Some(Settled::Rewind(first));
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
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
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

/// Sends each message as one datagram; nothing of a batch that holds one that no datagram can hold.
async fn send_datagrams(socket: &UdpSocket, batch: &[Rendered]) -> io::Result<Settled> {
    let (from, through) = (batch[0].position, batch[batch.len() - 1].position);
    let too_long = |rendered: &Rendered| Settled::Refused {
        from,
        through,
        suspect: Some(rendered.position),
        reason: format!("{} bytes do not fit into a datagram; send it over TCP or TLS", rendered.body.len()),
    };
    if let Some(rendered) = batch.iter().find(|rendered| rendered.body.len() > DATAGRAM_BYTES_MAX) {
        return Ok(too_long(rendered));
    }
    for rendered in batch {
        let outcome = timeout(WRITE_TIMEOUT, socket.send(&rendered.body)).await;
        match outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => return Ok(too_long(rendered)),
            Err(error) => return Err(error),
        }
    }
    // Where nobody listens, the kernel knows by now if the receiver is near.
    socket.take_error()?.map_or(Ok(Settled::Through(through)), Err)
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
/// What receivers take at most (SC4S); OCSF has at most 9 KiB.
const SIZE_MOST: usize = 64 << 10;
/// Most bytes of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Digits of a length below 10 MB and a space.
const FRAME_BYTES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::sink::testing::{acceptor, batch, certificates};

    fn config(address: &str) -> SyslogConfig {
        serde_json::from_value(serde_json::json!({"address": address})).expect("is a config")
    }

    fn sink(config: SyslogConfig) -> SyslogSink {
        config.plan("sinks.qradar").expect("is valid").build()
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("is bound").port();
        (listener, port)
    }

    async fn send(sink: &mut SyslogSink, events: &[(u64, &str)]) -> Result<Settled, Stop> {
        sink.send(&batch(events)).await?;
        sink.settled().await
    }

    /// Accepts one connection and reads it to its end.
    fn reads_all(listener: TcpListener) -> JoinHandle<String> {
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("reads");
            text
        })
    }

    #[tokio::test]
    async fn messages_are_told_apart_by_their_length_or_by_a_line_feed() {
        for (framing, expected) in [(Framing::OctetCounting, "4 <1>a5 <1>ä"), (Framing::Lf, "<1>a\n<1>ä\n")] {
            let (listener, port) = listener().await;
            let received = reads_all(listener);
            let mut sink = sink(SyslogConfig { framing: Some(framing), ..config(&format!("tcp://127.0.0.1:{port}")) });
            sink.open(Position(0)).await.expect("connects");
            assert_eq!(send(&mut sink, &[(1, "<1>a"), (2, "<1>ä")]).await, Ok(Settled::Through(Position(2))));
            sink.close(Duration::from_secs(1)).await;
            assert_eq!(received.await.expect("ends"), expected);
        }
    }

    #[tokio::test]
    async fn a_line_feed_in_a_message_never_makes_two_of_it() {
        let (listener, port) = listener().await;
        let received = reads_all(listener);
        let mut sink = sink(SyslogConfig { framing: Some(Framing::Lf), ..config(&format!("tcp://127.0.0.1:{port}")) });
        sink.open(Position(0)).await.expect("connects");
        let settled = send(&mut sink, &[(1, "<1>a"), (2, "<1>a\n<1>b")]).await.expect("is refused");
        assert!(matches!(settled, Settled::Refused { suspect: Some(Position(2)), .. }), "{settled:?}");
        sink.close(Duration::from_secs(1)).await;
        assert_eq!(received.await.expect("ends"), "");
    }

    #[tokio::test]
    async fn a_close_between_messages_loses_none_that_is_not_sent_again() {
        let (listener, port) = listener().await;
        let mut sink = sink(config(&format!("tcp://127.0.0.1:{port}")));
        let mut received = Vec::new();
        let mut next = 1;
        while next <= 20 {
            sink.open(Position(0)).await.expect("connects");
            let (mut stream, _) = listener.accept().await.expect("accepts");
            // Two messages a connection, then the receiver hangs up.
            for _ in 0..2 {
                let body = format!("{next:02}");
                assert_eq!(send(&mut sink, &[(next, &body)]).await, Ok(Settled::Through(Position(next))));
                let mut frame = [0; 4];
                stream.read_exact(&mut frame).await.expect("reads");
                received.push(String::from_utf8_lossy(&frame).into_owned());
                next += 1;
            }
            drop(stream);
            assert_eq!(send(&mut sink, &[(next, "lost?")]).await, Ok(Settled::Rewind(Position(next))));
        }
        let expected: Vec<String> = (1..=20).map(|at| format!("2 {at:02}")).collect();
        assert_eq!(received, expected);
    }

    #[tokio::test]
    async fn a_close_after_the_write_is_seen_before_the_batch_is_settled() {
        let (listener, port) = listener().await;
        let mut sink = sink(config(&format!("tcp://127.0.0.1:{port}")));
        sink.open(Position(0)).await.expect("connects");
        let (stream, _) = listener.accept().await.expect("accepts");
        sink.send(&batch(&[(1, "a"), (2, "b")])).await.expect("is written");
        drop(stream);
        assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    }

    #[tokio::test]
    async fn what_the_receiver_says_is_dropped_and_changes_nothing() {
        let (listener, port) = listener().await;
        let mut sink = sink(config(&format!("tcp://127.0.0.1:{port}")));
        sink.open(Position(0)).await.expect("connects");
        let (mut stream, _) = listener.accept().await.expect("accepts");
        stream.write_all(&[b'?'; 2000]).await.expect("writes");
        for at in 1..=2 {
            assert_eq!(send(&mut sink, &[(at, "a")]).await, Ok(Settled::Through(Position(at))));
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_told_with_what_to_look_for() {
        let (listener, port) = listener().await;
        drop(listener);
        let stop =
            sink(config(&format!("tcp://127.0.0.1:{port}"))).open(Position(0)).await.expect_err("nobody listens");
        assert!(
            matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("is the receiver running")),
            "{stop}"
        );
        let stop =
            sink(config("tcp://does-not-exist.invalid:514")).open(Position(0)).await.expect_err("has no address");
        assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("cannot resolve")), "{stop}");
    }

    #[tokio::test]
    async fn a_datagram_is_a_message_and_one_that_is_too_long_is_refused() {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let port = receiver.local_addr().expect("is bound").port();
        let mut sink = sink(config(&format!("udp://127.0.0.1:{port}")));
        sink.open(Position(0)).await.expect("opens");
        assert_eq!(send(&mut sink, &[(1, "<1>a"), (2, "<1>b")]).await, Ok(Settled::Through(Position(2))));
        let long = "x".repeat(70_000);
        let settled = send(&mut sink, &[(3, "<1>c"), (4, &long)]).await.expect("is refused");
        assert!(matches!(settled, Settled::Refused { suspect: Some(Position(4)), .. }), "{settled:?}");
        let mut datagram = [0; 100];
        for expected in [b"<1>a", b"<1>b"] {
            let length = receiver.recv(&mut datagram).await.expect("arrives");
            assert_eq!(&datagram[..length], expected);
        }
        drop(receiver);
        let stop = send(&mut sink, &[(3, "<1>c")]).await.expect_err("nobody listens");
        assert!(matches!(stop, Stop::Unavailable { .. }), "{stop}");
    }

    fn with_tls(port: u16, folder: &Path, tls: &[(&str, &str)]) -> SyslogConfig {
        let file =
            |name: &str| if name.contains('.') { folder.join(name).display().to_string() } else { name.to_owned() };
        let tls = tls.iter().map(|(key, name)| ((*key).to_owned(), file(name).into()));
        let tls = serde_json::Value::Object(tls.collect());
        let config = serde_json::json!({"address": format!("tls://127.0.0.1:{port}"), "tls": tls});
        serde_json::from_value(config).expect("is a config")
    }

    #[tokio::test]
    async fn a_client_certificate_that_the_receiver_rejects_is_noticed_before_the_first_message() {
        let certificates = certificates();
        let folder = certificates.path();
        let (listener, port) = listener().await;
        let acceptor = acceptor(folder, true);
        let server = tokio::spawn(async move {
            let mut received = Vec::new();
            for _ in 0..3 {
                let (stream, _) = listener.accept().await.expect("accepts");
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.read_to_end(&mut received).await);
                }
            }
            String::from_utf8(received).expect("is text")
        });
        let ca = ("ca", "ca.pem");
        for (tls, words) in [
            (vec![ca, ("certificate", "rogue.pem"), ("key", "rogue.key")], "refused our client certificate"),
            (vec![ca], "wants a client certificate"),
        ] {
            let stop = sink(with_tls(port, folder, &tls)).open(Position(0)).await.expect_err("is rejected");
            assert!(matches!(&stop, Stop::Tls { reason } if reason.contains(words)), "{stop}");
        }
        let tls = [ca, ("certificate", "client.pem"), ("key", "client.key")];
        let mut sink = sink(with_tls(port, folder, &tls));
        sink.open(Position(0)).await.expect("connects");
        assert_eq!(send(&mut sink, &[(1, "<1>a")]).await, Ok(Settled::Through(Position(1))));
        sink.close(Duration::from_secs(1)).await;
        assert_eq!(server.await.expect("ends"), "4 <1>a");
    }

    #[tokio::test]
    async fn certificates_are_read_again_at_each_connection() {
        let certificates = certificates();
        let folder = certificates.path();
        let (listener, port) = listener().await;
        let acceptor = acceptor(folder, true);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.read(&mut [0; 1]).await);
                }
            }
        });
        for (from, to) in [("rogue.pem", "now.pem"), ("rogue.key", "now.key")] {
            std::fs::copy(folder.join(from), folder.join(to)).expect("copies");
        }
        let mut sink =
            sink(with_tls(port, folder, &[("ca", "ca.pem"), ("certificate", "now.pem"), ("key", "now.key")]));
        assert_eq!(sink.open(Position(0)).await.expect_err("is rejected").state(), "tls_failed");
        for (from, to) in [("client.pem", "now.pem"), ("client.key", "now.key")] {
            std::fs::copy(folder.join(from), folder.join(to)).expect("copies");
        }
        assert_eq!(sink.open(Position(0)).await, Ok(Position(0)));
        server.abort();
    }

    #[tokio::test]
    async fn a_server_that_is_not_who_we_want_gets_nothing() {
        let certificates = certificates();
        let folder = certificates.path();
        let (listener, port) = listener().await;
        let acceptor = acceptor(folder, false);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.read(&mut [0; 1]).await);
                }
            }
        });
        for (tls, words) in [
            (vec![("ca", "other-ca.pem")], "set tls.ca"),
            (vec![("ca", "ca.pem"), ("server_name", "qradar")], "for another name"),
            (vec![("ca", "server.key")], "holds no certificate"),
            (vec![("ca", "missing.pem")], "cannot read"),
            (vec![("ca", "ca.pem"), ("certificate", "client.pem"), ("key", "rogue.key")], "cannot be used together"),
        ] {
            let stop = sink(with_tls(port, folder, &tls)).open(Position(0)).await.expect_err(words);
            assert!(matches!(&stop, Stop::Tls { reason } if reason.contains(words)), "{stop}");
        }
        let mut config = with_tls(port, folder, &[("ca", "ca.pem"), ("server_name", "localhost")]);
        assert_eq!(sink(config.clone()).open(Position(0)).await, Ok(Position(0)));
        config.tls = ClientTlsConfig { dangerous_skip_verify: true, ..ClientTlsConfig::default() };
        assert_eq!(sink(config).open(Position(0)).await, Ok(Position(0)));
        server.abort();
    }

    #[tokio::test]
    async fn a_port_that_speaks_no_tls_is_told_apart() {
        let (listener, port) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            stream.write_all(b"220 mail.example.com ESMTP\r\n").await.expect("writes");
            drop(stream.read_to_end(&mut Vec::new()).await);
        });
        let stop = sink(with_tls(port, Path::new("/"), &[])).open(Position(0)).await.expect_err("is no TLS");
        assert!(matches!(&stop, Stop::Tls { reason } if reason.contains("check the port")), "{stop}");
        server.abort();
    }

    #[test]
    fn an_address_has_a_scheme_a_host_and_perhaps_a_port() {
        for (address, expected) in [
            ("tls://qradar", (Transport::Tls, "qradar", 6514)),
            ("tcp://qradar:601", (Transport::Tcp, "qradar", 601)),
            ("udp://10.0.0.1", (Transport::Udp, "10.0.0.1", 514)),
            ("tls://[::1]:6515", (Transport::Tls, "::1", 6515)),
        ] {
            let (transport, host, port) = parse_address(address).expect(address);
            assert_eq!((transport, host.as_str(), port), expected);
        }
        for bad in [
            "qradar:6514",
            "http://qradar",
            "tls://",
            "tls://:6514",
            "tcp://a:0",
            "tcp://a:b",
            "tcp://a/b",
            "tcp://[::1",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_without_meaning_are_refused_by_name() {
        let json =
            serde_json::json!({"address": "udp://a", "framing": "lf", "size_max": "2KiB", "tls": {"key": "k.pem"}});
        let config: SyslogConfig = serde_json::from_value(json).expect("is a config");
        let problems = config.plan("sinks.q").expect_err("four mistakes");
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["sinks.q.tls", "sinks.q.framing", "sinks.q.size_max", "sinks.q.tls.certificate"]);
    }
}
