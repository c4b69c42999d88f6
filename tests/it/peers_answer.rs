//! Each real peer starts, takes a message that no code of ours made, and shows it in its own file.
//!
//! So a failure here is the peer's or the machine's, and a failure elsewhere is ours.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};

use crate::peers::{Hec, Kafka, Rsyslog, SyslogNg, http};

const LINE: &str =
    "<134>1 2026-11-21T00:00:00.123456Z host.example relay 42 VERDICT [verdict@32473 id=\"7\"] CEF:0|V|P|1|100|n|8|";

fn udp(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a local port");
    socket.send_to(LINE.as_bytes(), ("127.0.0.1", port)).expect("loopback");
}

fn tcp(port: u16, frame: &str) {
    TcpStream::connect(("127.0.0.1", port))
        .expect("the peer listens")
        .write_all(frame.as_bytes())
        .expect("the peer reads");
}

#[test]
fn kafka_keeps_what_it_took_over_a_kill() {
    let mut kafka = Kafka::start();
    kafka.create_topic("verdicts", 2, &[]);
    kafka.write("verdicts", "{\"n\":1}\n{\"n\":2}\n");
    kafka.kill();
    kafka.resume();
    let mut values: Vec<_> = kafka.read("verdicts", 2).into_iter().map(|record| record["value"].to_string()).collect();
    values.sort();
    assert_eq!(values, [r#""{\"n\":1}""#, r#""{\"n\":2}""#]);
    assert!(kafka.broker().starts_with("127.0.0.1:"));
}

#[test]
fn rsyslog_takes_udp_and_both_framings_of_tcp() {
    let rsyslog = Rsyslog::start();
    udp(rsyslog.udp);
    tcp(rsyslog.tcp, &format!("{} {LINE}", LINE.len()));
    tcp(rsyslog.tcp, &format!("{LINE}\n"));
    let received = rsyslog.received(3);
    assert_eq!(received.iter().filter(|line| line["input"] == "udp").count(), 1, "{received:?}");
    assert!(
        received.iter().all(|line| line["msgid"] == "VERDICT" && line["msg"] == "CEF:0|V|P|1|100|n|8|"),
        "{received:?}"
    );
    assert!(rsyslog.certificates().join("client.pem").exists());
    assert_ne!(rsyslog.tls, rsyslog.tcp);
}

#[test]
fn syslog_ng_takes_udp_and_each_framing_on_its_own_port() {
    let syslog_ng = SyslogNg::start();
    udp(syslog_ng.udp);
    tcp(syslog_ng.octet, &format!("{} {LINE}", LINE.len()));
    tcp(syslog_ng.line, &format!("{LINE}\n"));
    let received = syslog_ng.received(3);
    for input in ["s_udp", "s_octet", "s_lf"] {
        let lines: Vec<_> = received.iter().filter(|line| line["input"] == input).collect();
        assert!(matches!(lines[..], [line] if line["host"] == "host.example"), "{input}: {received:?}");
    }
    assert!(syslog_ng.certificates().join("client.pem").exists());
    assert_ne!(syslog_ng.tls, syslog_ng.octet);
}

#[test]
fn the_hec_receiver_takes_an_event_acknowledges_it_and_can_be_steered() {
    let hec = Hec::start(true);
    let token = format!("Splunk {}", Hec::TOKEN);
    let headers =
        [("Authorization", token.as_str()), ("X-Splunk-Request-Channel", "37d3c8c6-0000-4000-8000-000000000001")];
    let send = || {
        http(hec.port, "POST /services/collector/event", &headers, r#"{"event":{"n":1},"fields":{"event_id":"e1"}}"#)
    };
    assert!(send().contains(r#""ackId":0"#));
    assert_eq!(hec.received(1)[0]["envelope"]["event"]["n"], 1);
    hec.steer("busy", Some(""));
    assert!(send().starts_with("HTTP/1.1 503 "));
    hec.steer("busy", None);
    assert!(send().contains(r#""ackId":1"#));
    assert_eq!(hec.received(2).len(), 2);
    assert!(hec.url().ends_with(&hec.port.to_string()));
}
