//! The sink against receivers that read, hang up, freeze and refuse.

use std::path::Path;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::plan::{Target, parse_address};
use super::*;
use crate::sink::testing::{acceptor, batch, certificates};
use crate::tls::ClientTlsConfig;

/// A sink for which the acknowledgement of the receiver's kernel is enough.
fn config(address: &str) -> SyslogConfig {
    let mut config = serde_json::json!({"address": address});
    if !address.starts_with("udp://") {
        config["resend"] = serde_json::json!({"time": "0s"});
    }
    serde_json::from_value(config).expect("is a config")
}

/// A sink whose window holds a batch for so long.
fn patient(addresses: &[&str], time: &str) -> SyslogSink {
    let config = serde_json::json!({"address": addresses, "resend": {"time": time}});
    sink(serde_json::from_value(config).expect("is a config"))
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
    let stop = sink(config(&format!("tcp://127.0.0.1:{port}"))).open(Position(0)).await.expect_err("nobody listens");
    assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("is the receiver running")), "{stop}");
    let stop = sink(config("tcp://does-not-exist.invalid:514")).open(Position(0)).await.expect_err("has no address");
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
    let file = |name: &str| if name.contains('.') { folder.join(name).display().to_string() } else { name.to_owned() };
    let tls = tls.iter().map(|(key, name)| ((*key).to_owned(), file(name).into()));
    let tls = serde_json::Value::Object(tls.collect());
    let address = format!("tls://127.0.0.1:{port}");
    let config = serde_json::json!({"address": address, "tls": tls, "resend": {"time": "0s"}});
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
    let mut sink = sink(with_tls(port, folder, &[("ca", "ca.pem"), ("certificate", "now.pem"), ("key", "now.key")]));
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
    for bad in
        ["qradar:6514", "http://qradar", "tls://", "tls://:6514", "tcp://a:0", "tcp://a:b", "tcp://a/b", "tcp://[::1"]
    {
        assert!(parse_address(bad).is_err(), "{bad}");
    }
}

#[test]
fn settings_without_meaning_are_refused_by_name() {
    for (json, expected) in [
        (
            serde_json::json!({"address": "udp://a", "framing": "lf", "size_max": "2KiB", "tls": {"key": "k.pem"}}),
            vec!["tls", "framing", "size_max", "tls.certificate"],
        ),
        (serde_json::json!({"address": "udp://a", "resend": {}}), vec!["resend"]),
        (serde_json::json!({"address": "tcp://a", "resend": {"bytes": "2GiB"}}), vec!["resend"]),
        (serde_json::json!({"address": "tcp://a", "resend": {"time": "2h"}}), vec!["resend"]),
        (serde_json::json!({"address": []}), vec!["address"]),
        (serde_json::json!({"address": ["udp://a", "udp://b"]}), vec!["address"]),
        (serde_json::json!({"address": ["tls://a", "tcp://b"]}), vec!["address"]),
        (serde_json::json!({"address": vec!["tcp://a"; 9]}), vec!["address"]),
        (serde_json::json!({"address": ["tcp://a", "b"]}), vec!["address"]),
        (serde_json::json!({"address": ["tls://a", "tls://b"], "resend": {"bytes": "0B", "time": "1h"}}), vec![]),
    ] {
        let config: SyslogConfig = serde_json::from_value(json.clone()).expect("is a config");
        let problems = config.plan("sinks.q").err().unwrap_or_default();
        let keys: Vec<&str> = problems.iter().map(|problem| &problem.key["sinks.q.".len()..]).collect();
        assert_eq!(keys, expected, "{json}");
    }
}

/// A receiver that listens with a receive buffer of a few kilobytes, so that a few batches fill it.
fn narrow_listener() -> (TcpListener, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("can be set");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let listener = socket.listen(8).expect("listens");
    let port = listener.local_addr().expect("is bound").port();
    (listener, port)
}

async fn takes(sink: &mut SyslogSink, listener: &TcpListener) -> TcpStream {
    sink.open(Position(0)).await.expect("connects");
    listener.accept().await.expect("accepts").0
}

/// What `settled` says within a moment, or nothing.
async fn says(sink: &mut SyslogSink) -> Option<Result<Settled, Stop>> {
    timeout(Duration::from_millis(200), sink.settled()).await.ok()
}

#[tokio::test]
async fn what_the_kernel_took_is_not_settled_before_its_time_and_sent_again_when_the_receiver_dies() {
    let (listener, port) = listener().await;
    let mut sink = patient(&[&format!("tcp://127.0.0.1:{port}")], "1h");
    let stream = takes(&mut sink, &listener).await;
    for at in 1..=3 {
        sink.send(&batch(&[(at, "<1>a")])).await.expect("is written");
    }
    // All of it lies in the receiver's kernel, and nobody has read it.
    assert_eq!(says(&mut sink).await, Some(Ok(Settled::Alive)));
    assert_eq!(says(&mut sink).await, None);
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("can be set");
    drop(stream);
    assert_eq!(says(&mut sink).await, Some(Ok(Settled::Rewind(Position(1)))));
    assert_eq!(says(&mut sink).await, None);
}

#[tokio::test]
async fn time_settles_what_was_acknowledged_and_a_good_connection_goes_on() {
    let (listener, port) = listener().await;
    let mut sink = patient(&[&format!("tcp://127.0.0.1:{port}")], "300ms");
    let _stream = takes(&mut sink, &listener).await;
    let began = Instant::now();
    for at in [1, 2] {
        sink.send(&batch(&[(at, "<1>a")])).await.expect("is written");
    }
    assert_eq!(sink.settled().await, Ok(Settled::Alive));
    for at in [1, 2] {
        assert_eq!(sink.settled().await, Ok(Settled::Through(Position(at))));
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn time_settles_nothing_that_still_lies_in_our_own_kernel() {
    let (listener, port) = narrow_listener();
    let mut sink = patient(&[&format!("tcp://127.0.0.1:{port}")], "0s");
    let mut stream = takes(&mut sink, &listener).await;
    // More than the receive buffer there, less than the send buffer here.
    let long = "x".repeat(50_000);
    sink.send(&batch(&[(1, &long)])).await.expect("is written");
    assert_eq!(says(&mut sink).await, None);
    let read = tokio::spawn(async move {
        stream.read_exact(&mut vec![0; 50_006]).await.expect("reads");
        stream
    });
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(1))));
    drop(read.await);
}

#[tokio::test]
async fn bytes_settle_without_waiting_for_time_and_the_window_stays_within_them() {
    let (listener, port) = listener().await;
    let config =
        serde_json::json!({"address": format!("tcp://127.0.0.1:{port}"), "resend": {"bytes": "1MiB", "time": "1h"}});
    let mut sink = sink(serde_json::from_value(config).expect("is a config"));
    sink.open(Position(0)).await.expect("connects");
    let received = reads_all(listener);
    let long = "x".repeat(64 << 10);
    let (mut sent, mut settled) = (0, 0);
    while sent < 100 {
        if sent - settled < sink.in_flight_max() as u64 {
            sent += 1;
            sink.send(&batch(&[(sent, &long)])).await.expect("is written");
        } else {
            settled += 1;
            assert_eq!(says(&mut sink).await, Some(Ok(Settled::Through(Position(settled)))));
        }
        assert!(sent - settled <= 21, "{sent} sent, {settled} settled");
    }
    assert!(settled >= 79, "{settled}");
    sink.finish().await;
    assert_eq!(says(&mut sink).await, Some(Ok(Settled::Through(Position(100)))));
    assert_eq!(received.await.expect("ends").len(), 100 * ((64 << 10) + 6));
}

#[tokio::test]
async fn a_clean_end_settles_what_the_receiver_has_read_and_nothing_it_has_not() {
    for reads in [true, false] {
        let (listener, port) = listener().await;
        let mut sink = patient(&[&format!("tcp://127.0.0.1:{port}")], "1h");
        let mut stream = takes(&mut sink, &listener).await;
        sink.send(&batch(&[(1, "<1>a"), (2, "<1>b")])).await.expect("is written");
        let receiver = tokio::spawn(async move {
            if reads {
                stream.read_to_end(&mut Vec::new()).await.expect("reads to our end");
            }
            drop(stream);
        });
        if !reads {
            receiver.await.expect("hangs up on what it had not read");
        }
        sink.finish().await;
        let expected = if reads { Settled::Through(Position(2)) } else { Settled::Rewind(Position(1)) };
        assert_eq!(says(&mut sink).await, Some(Ok(expected)), "reads: {reads}");
        sink.close(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_write_that_is_interrupted_leaves_no_half_frame_behind() {
    let (listener, port) = narrow_listener();
    let mut sink = patient(&[&format!("tcp://127.0.0.1:{port}")], "1h");
    let mut stream = takes(&mut sink, &listener).await;
    let long = "x".repeat(1 << 20);
    // The receiver does not read, so this cannot end; a stop of the service drops it.
    let sending = timeout(Duration::from_millis(200), sink.send(&batch(&[(1, &long)]))).await;
    assert!(sending.is_err());
    let receiver = tokio::spawn(async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("reads");
        received.len()
    });
    sink.finish().await;
    let settled = timeout(Duration::from_secs(5), sink.settled()).await.expect("the receiver has read all");
    assert_eq!(settled, Ok(Settled::Through(Position(1))));
    assert_eq!(receiver.await.expect("ends"), (1 << 20) + 8);
}

#[tokio::test]
async fn the_next_destination_takes_over_and_the_first_is_gone_back_to() {
    let (first, first_port) = listener().await;
    let (second, second_port) = listener().await;
    let addresses = [first_port, second_port].map(|port| format!("tcp://127.0.0.1:{port}"));
    let mut sink = patient(&[&addresses[0], &addresses[1]], "1h");
    let stream = takes(&mut sink, &first).await;
    sink.send(&batch(&[(1, "<1>a")])).await.expect("is written");
    drop((stream, first));
    assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    let mut stream = takes(&mut sink, &second).await;
    sink.send(&batch(&[(1, "<1>a")])).await.expect("is written");
    assert_eq!(sink.settled().await, Ok(Settled::Alive));
    // The first is back, and has rested.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("can be set");
    socket.bind(([127, 0, 0, 1], first_port).into()).expect("binds");
    let first = socket.listen(8).expect("listens");
    let receiver = tokio::spawn(async move {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads to the end");
        text
    });
    let settled = timeout(Duration::from_secs(20), sink.settled()).await.expect("leaves the second");
    assert_eq!(settled, Ok(Settled::Through(Position(1))));
    assert_eq!(receiver.await.expect("ends"), "4 <1>a", "nothing was lost, and nothing sent twice");
    assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    sink.open(Position(1)).await.expect("connects");
    // The trial came first, and then we did.
    for _ in 0..2 {
        timeout(Duration::from_secs(1), first.accept()).await.expect("is connected to").expect("accepts");
    }
}

#[tokio::test]
async fn a_host_is_well_while_one_of_its_addresses_is() {
    let (listener, port) = listener().await;
    let (gone, closed) = self::listener().await;
    drop(gone);
    let sink = sink(config(&format!("tcp://127.0.0.1:{port}")));
    let addresses = [closed, port].map(|port| ([127, 0, 0, 1], port).into());
    let target = Target { address: "tcp://siem".to_owned(), host: "siem".to_owned(), port };
    sink.plan.connect_to_one_of(&addresses, &target).await.expect("the second is there");
    listener.accept().await.expect("accepts");
    let stop = sink.plan.connect_to_one_of(&addresses[..1], &target).await.expect_err("nobody is there");
    assert!(stop.to_string().contains("is the receiver running"), "{stop}");
}

#[tokio::test]
async fn a_certificate_that_changes_on_disk_is_taken_up_by_a_connection_that_lives() {
    let certificates = certificates();
    let folder = certificates.path();
    let (listener, port) = listener().await;
    let acceptor = acceptor(folder, true);
    let server = tokio::spawn(async move {
        let mut received = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = acceptor.accept(stream).await.expect("agrees");
            stream.read_to_end(&mut received).await.expect("reads");
            stream.shutdown().await.expect("ends");
        }
        String::from_utf8(received).expect("is text")
    });
    let renew = || {
        for (from, to) in [("client.pem", "now.pem"), ("client.key", "now.key")] {
            std::fs::copy(folder.join(from), folder.join(to)).expect("copies");
        }
    };
    renew();
    let mut config = with_tls(port, folder, &[("ca", "ca.pem"), ("certificate", "now.pem"), ("key", "now.key")]);
    config.resend = Some(serde_json::from_value(serde_json::json!({"time": "1h"})).expect("is a config"));
    let mut sink = sink(config);
    sink.open(Position(0)).await.expect("connects");
    sink.send(&batch(&[(1, "<1>a")])).await.expect("is written");
    assert_eq!(sink.settled().await, Ok(Settled::Alive));
    // A pair that cannot be used changes nothing.
    std::fs::write(folder.join("now.key"), "half writ").expect("writes");
    assert!(timeout(CONSIDER_PAUSE + Duration::from_secs(1), sink.settled()).await.is_err());
    renew();
    let settled = timeout(CONSIDER_PAUSE + Duration::from_secs(2), sink.settled()).await.expect("leaves");
    assert_eq!(settled, Ok(Settled::Through(Position(1))));
    assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    sink.open(Position(1)).await.expect("connects with the new one");
    sink.send(&batch(&[(2, "<1>b")])).await.expect("is written");
    sink.finish().await;
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(2))));
    assert_eq!(server.await.expect("ends"), "4 <1>a4 <1>b");
}
