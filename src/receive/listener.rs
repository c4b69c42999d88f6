//! The public listener: HTTP/1.1 over TCP or TLS, with the time limits of connections.
//!
//! The service is put together from its parts, because the ready-made TLS listener of actix-web brings HTTP/2.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{Server, ServerBuilder};
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Receiver, ServerTls, routes, tls};

/// The names that the client certificate of a connection goes by; empty without one.
#[derive(Debug, Clone, Default)]
pub struct PeerNames(pub Vec<String>);

/// Serves the receiver on a bound socket, with this many worker threads. The server runs while its future is polled;
/// its handle stops it. Call [`Receiver::drain`] first.
pub fn listen(
    receiver: &Arc<Receiver>,
    socket: TcpListener,
    tls: Option<Arc<ServerTls>>,
    workers: usize,
) -> io::Result<Server> {
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections((CONNECTIONS_MAX / workers).max(1))
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .disable_signals();
    socket.set_nonblocking(true)?;
    let server = match tls {
        None => listen_plain(server, receiver, socket),
        Some(tls) => listen_tls(server, receiver, socket, tls),
    }?;
    Ok(server.run())
}

/// The HTTP service over streams of one type. A macro, because the type of an App cannot be written down.
macro_rules! http_service {
    ($receiver:expr, $stopping:expr, $on_connect:expr) => {{
        let receiver = $receiver.clone();
        let stopping = $stopping.clone();
        HttpService::build()
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(CLOSE_TIMEOUT)
            .keep_alive(KEEP_ALIVE)
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .on_connect_ext($on_connect)
            .h1(map_config(App::new().configure(routes(&receiver)), |()| AppConfig::default()))
    }};
}

fn listen_plain(server: ServerBuilder, receiver: &Arc<Receiver>, socket: TcpListener) -> io::Result<ServerBuilder> {
    let receiver = receiver.clone();
    let stopping = server.graceful_shutdown_signal();
    server.listen("receiver", socket, move || {
        let accept = fn_service(|stream: TcpStream| async move {
            without_delay(&stream);
            let peer = stream.peer_addr().ok();
            Ok::<_, actix_http::error::DispatchError>((stream, peer))
        });
        accept.and_then(http_service!(receiver, stopping, |_, _| {}))
    })
}

fn listen_tls(
    server: ServerBuilder,
    receiver: &Arc<Receiver>,
    socket: TcpListener,
    tls: Arc<ServerTls>,
) -> io::Result<ServerBuilder> {
    let receiver = receiver.clone();
    let stopping = server.graceful_shutdown_signal();
    server.listen("receiver", socket, move || {
        let tls = tls.clone();
        let accept = fn_service(move |stream: TcpStream| {
            let acceptor = TlsAcceptor::from(tls.current());
            async move {
                without_delay(&stream);
                let peer = stream.peer_addr().ok();
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
                let stream = handshake.await.map_err(io::Error::from)??;
                Ok::<_, actix_http::error::DispatchError>((stream, peer))
            }
        });
        let names = |stream: &TlsStream<TcpStream>, data: &mut actix_http::Extensions| {
            let chain = stream.get_ref().1.peer_certificates();
            data.insert(PeerNames(chain.and_then(<[_]>::first).map(|leaf| tls::names_of(leaf)).unwrap_or_default()));
        };
        accept.and_then(http_service!(receiver, stopping, names))
    })
}

/// An answer is one small packet; waiting for more would only delay it.
fn without_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("the connection is gone before it began: {error}");
    }
}

/// From the first byte to the end of the first head. Only senders that have proven themselves get to send a second one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a sender may take to read an early answer before the connection is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer than the minute that most proxies keep a connection, so that they close it and not we under their request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// From the connection to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at once, over all workers. An honest one takes some 20 KiB; one that sends an endless head takes 128 KiB for the
/// 5 s that it has, so all of them together stay within the memory of the process. More wait in the socket's queue.
const CONNECTIONS_MAX: usize = 1024;

/// Half-sent bodies end at once; what waits for the disk has 3 s, and a moment to be answered.
const SHUTDOWN_TIMEOUT_S: u64 = 5;
