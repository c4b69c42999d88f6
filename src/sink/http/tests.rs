//! Against a scripted receiver on loopback that keeps what it was sent.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::answer::{Failure, judge};
use super::*;
use crate::sink::testing::{acceptor, batch, certificates, rendered, ring, secret};

const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY=";

/// One request as it came.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Whether the signature at this place of the list was made with the secret.
    fn is_signed_by(&self, secret: &str, place: usize) -> bool {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
        mac.update(
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body).as_bytes(),
        );
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').nth(place) == Some(&expected)
    }
}

/// What a receiver answers: status, further header lines, body; status 0 breaks the connection off.
type Script = dyn Fn(&Request) -> (u16, &'static str, &'static str) + Send + Sync;

/// A receiver that answers by a script.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Connections that were made.
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: impl Fn(&Request) -> (u16, &'static str, &'static str) + Send + Sync + 'static) -> Self {
        Self::with(None, script).await
    }

    async fn with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&Request) -> (u16, &'static str, &'static str) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (kept, counted, script): (_, _, Arc<Script>) = (requests.clone(), connections.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                counted.fetch_add(1, Ordering::Relaxed);
                let (kept, script, tls) = (kept.clone(), script.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &kept, &*script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &kept, &*script).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, connections, task }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    fn bodies(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.body).collect()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, kept: &Mutex<Vec<Request>>, script: &Script) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await {
        let (status, headers, body) = script(&request);
        kept.lock().expect("no panic").push(request);
        if status == 0 {
            return;
        }
        let answer = format!("HTTP/1.1 {status} Words\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.and(stream.flush().await).is_err() {
            return;
        }
    }
}

async fn request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let mut body = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { line: line.trim().to_owned(), headers, body: String::from_utf8(body).expect("is text") })
}

/// A sink with these keys beside its address and one secret.
async fn sink(url: String, folder: &tempfile::TempDir, more: serde_json::Value) -> HttpSink {
    let mut config = serde_json::json!({"url": url});
    let is_webhook = more.get("profile").is_none();
    if is_webhook && more.get("secrets").is_none() {
        config["secrets"] = serde_json::json!([secret(folder.path(), "old", OLD)]);
    }
    for (key, value) in more.as_object().expect("a table") {
        config[key] = value.clone();
    }
    let config: HttpConfig = serde_json::from_value(config).expect("is a config");
    let plan = config.plan("sinks.soar").expect("is valid");
    let keys = ring(plan.secrets()).await;
    plan.build(&"soar".parse().expect("a name"), keys)
}

async fn opened(server: &Server, folder: &tempfile::TempDir, more: serde_json::Value) -> HttpSink {
    let mut sink = sink(format!("http://{}/hooks?x=y", server.address), folder, more).await;
    assert_eq!(sink.open(Position(0)).await, Ok(Position(0)));
    sink
}

async fn send(sink: &mut HttpSink, events: &[Rendered]) -> Result<Settled, Stop> {
    sink.send(events).await?;
    sink.settled().await
}

/// An event of another position about the same subject.
fn about(subject: u64, position: u64, body: &str) -> Rendered {
    let mut event = (*rendered(subject, "").event).clone();
    event.uid = rendered(position, "").event.uid;
    Rendered { event: Arc::new(event), ..rendered(position, body) }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn an_event_is_one_request_signed_with_every_secret() {
    let (server, folder) = (Server::start(|_| (204, "", "")).await, folder());
    let secrets = [secret(folder.path(), "old", OLD), secret(folder.path(), "new", NEW)];
    let token = secret(folder.path(), "token", "a-token-of-the-receiver");
    let mut sink = opened(&server, &folder, serde_json::json!({"secrets": secrets, "token": token})).await;
    assert_eq!(send(&mut sink, &batch(&[(1, "{\"a\":1}"), (2, "{}")])).await, Ok(Settled::Through(Position(2))));
    let mut requests = server.requests();
    requests.sort_by_key(|request| request.header("webhook-id").to_owned());
    assert_eq!(requests.len(), 2);
    let first = &requests[0];
    assert_eq!((first.line.as_str(), first.body.as_str()), ("POST /hooks?x=y HTTP/1.1", "{\"a\":1}"));
    assert_eq!(first.header("webhook-id"), "01".repeat(16));
    let age = Timestamp::now().as_second() - first.header("webhook-timestamp").parse::<i64>().expect("seconds");
    assert!((0..60).contains(&age), "{age}");
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.header("authorization"), "Bearer a-token-of-the-receiver");
    for request in &requests {
        assert!(request.is_signed_by(OLD, 0) && request.is_signed_by(NEW, 1), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn events_of_a_subject_follow_each_other_and_others_do_not_wait() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, highest) = (now.clone(), most.clone());
    let server = Server::start(move |request| {
        let together = running.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(together, Ordering::SeqCst);
        // The first of each subject is the slowest: whatever overtakes it shows.
        let wait = if request.body.ends_with('1') { 30 } else { 1 };
        std::thread::sleep(Duration::from_millis(wait));
        running.fetch_sub(1, Ordering::SeqCst);
        (200, "", "ok")
    })
    .await;
    let folder = folder();
    let mut sink = opened(&server, &folder, serde_json::json!({"in_flight_max": 3})).await;
    let events: Vec<Rendered> = (0..18).map(|at| about(at / 3, at, &format!("{}-{}", at / 3, at % 3 + 1))).collect();
    assert_eq!(send(&mut sink, &events).await, Ok(Settled::Through(Position(17))));
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 18);
    for subject in 0..6 {
        let begin = format!("{subject}-");
        let of: Vec<_> = bodies.iter().filter(|body| body.starts_with(&begin)).collect();
        assert_eq!(of, [&format!("{subject}-1"), &format!("{subject}-2"), &format!("{subject}-3")]);
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 3, "as many connections as requests at once");
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn what_was_taken_is_not_posted_again_when_a_neighbour_is_refused() {
    let poison = |request: &Request| if request.body == "poison" { (422, "", "no such thing") } else { (200, "", "") };
    let (server, folder) = (Server::start(poison).await, folder());
    let mut sink = opened(&server, &folder, serde_json::json!({"in_flight_max": 1})).await;
    let events = batch(&[(1, "one"), (2, "poison"), (3, "three")]);
    let refused = send(&mut sink, &events).await.expect("is refused");
    let reason = "422: no such thing".to_owned();
    assert_eq!(refused, Settled::Refused { from: Position(2), through: Position(2), suspect: None, reason });
    assert_eq!(server.bodies(), ["one", "poison"]);
    // As `deliver` does it: the refused one is left out, its neighbours come again.
    let rest = batch(&[(1, "one"), (3, "three")]);
    assert_eq!(send(&mut sink, &rest).await, Ok(Settled::Through(Position(3))));
    assert_eq!(server.bodies(), ["one", "poison", "three"]);
    assert!(sink.taken.is_empty());
}

#[tokio::test]
async fn a_later_event_of_a_refused_ones_subject_waits_for_its_fate() {
    let poison = |request: &Request| if request.body == "poison" { (400, "", "") } else { (200, "", "") };
    let (server, folder) = (Server::start(poison).await, folder());
    let mut sink = opened(&server, &folder, serde_json::json!({})).await;
    let refused = send(&mut sink, &[about(7, 1, "poison"), about(7, 2, "later")]).await;
    assert!(matches!(refused, Ok(Settled::Refused { from: Position(1), .. })), "{refused:?}");
    assert_eq!(server.bodies(), ["poison"]);
}

#[tokio::test]
async fn a_receiver_in_trouble_is_waited_for_and_gets_the_same_id() {
    let tries = AtomicUsize::new(0);
    let script = move |_: &Request| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => (429, "retry-after: 7\r\n", "slow down"),
        1 => (500, "", ""),
        2 => (0, "", ""),
        _ => (200, "", ""),
    };
    let (server, folder) = (Server::start(script).await, folder());
    let mut sink = opened(&server, &folder, serde_json::json!({})).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        match send(&mut sink, &batch(&[(1, "one")])).await.expect_err("is in trouble") {
            Stop::Unavailable { retry_after, reason } => {
                assert!(reason.contains(&format!("http://{}", server.address)), "{reason}");
                assert!(!reason.contains("hooks"), "a path may hold a key: {reason}");
                waits.push(retry_after.map(|wait| wait.as_secs()));
            }
            other => panic!("{other:?}"),
        }
        sink.open(Position(0)).await.expect("opens");
    }
    assert_eq!(waits, [Some(7), None, None]);
    assert_eq!(send(&mut sink, &batch(&[(1, "one")])).await, Ok(Settled::Through(Position(1))));
    let ids: BTreeSet<String> =
        server.requests().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn refused_credentials_are_read_again_before_they_stop_the_sink() {
    let good = |request: &Request| {
        if request.header("x-api-key") == "the-new-token-of-june" { (200, "", "") } else { (401, "", "who are you") }
    };
    let (server, folder) = (Server::start(good).await, folder());
    let token = secret(folder.path(), "token", "the-old-token-of-may");
    let more = serde_json::json!({"token": token, "token_header": "X-API-Key"});
    let mut sink = opened(&server, &folder, more).await;
    let stop = send(&mut sink, &batch(&[(1, "one")])).await.expect_err("is refused");
    assert!(matches!(&stop, Stop::Unauthorized { reason } if reason.contains("who are you")), "{stop:?}");
    assert!(!stop.to_string().contains("the-old-token"), "{stop}");
    secret(folder.path(), "token", "the-new-token-of-june");
    assert_eq!(send(&mut sink, &batch(&[(1, "one")])).await, Ok(Settled::Through(Position(1))));
}

#[tokio::test]
async fn without_a_usable_secret_nothing_is_posted() {
    let (server, folder) = (Server::start(|_| (200, "", "")).await, folder());
    let odd = secret(folder.path(), "odd", "whsec_this is no base64, is it");
    let mut sink = opened(&server, &folder, serde_json::json!({"secrets": [odd, "file:/does/not/exist"]})).await;
    let stop = send(&mut sink, &batch(&[(1, "one")])).await.expect_err("cannot sign");
    assert!(matches!(&stop, Stop::Unauthorized { reason } if reason.contains("file:/does/not/exist")), "{stop:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, folder) = (Server::start(|_| (200, "", "")).await, folder());
    let to: &'static str = Box::leak(format!("location: http://{}/\r\n", elsewhere.address).into_boxed_str());
    let server = Server::start(move |_| (307, to, "")).await;
    let mut sink = opened(&server, &folder, serde_json::json!({})).await;
    let stop = send(&mut sink, &batch(&[(1, "one")])).await.expect_err("is a redirect");
    assert!(matches!(&stop, Stop::Misconfigured { reason } if reason.contains("`url`")), "{stop:?}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn qradar_gets_lines_and_a_batch_that_is_too_large_is_refused_as_a_whole() {
    let small = |request: &Request| if request.body.lines().count() > 2 { (413, "", "") } else { (200, "", "") };
    let (server, folder) = (Server::start(small).await, folder());
    let more = serde_json::json!({"profile": "qradar-http", "hostname": "relay-1", "size_max": "1KiB"});
    let mut sink = opened(&server, &folder, more).await;
    let render = sink.plan.render(Style::new("other"));
    let line = |position: u64| {
        let mut one = rendered(position, "");
        render(&one.event, &mut one.body);
        one
    };
    let events = [line(1), line(2), line(3)];
    let refused = send(&mut sink, &events).await;
    assert!(
        matches!(refused, Ok(Settled::Refused { from: Position(1), through: Position(3), suspect: None, .. })),
        "{refused:?}"
    );
    assert_eq!(send(&mut sink, &events[..2]).await, Ok(Settled::Through(Position(2))));
    let request = &server.requests()[1];
    assert_eq!(request.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(request.header("webhook-signature"), "");
    assert!(request.body.ends_with('\n') && request.body.lines().count() == 2);
    for line in request.body.lines() {
        assert!(
            line.starts_with("<131>1 2026-11-21T00:00:00.000Z relay-1 verdict-relay - verdict.malicious - LEEF:2.0|"),
            "{line}"
        );
        assert!(line.len() <= 1024);
    }
    let torn = send(&mut sink, &batch(&[(4, "a\nb")])).await;
    assert!(matches!(torn, Ok(Settled::Refused { suspect: Some(Position(4)), .. })), "{torn:?}");
}

#[tokio::test]
async fn a_probe_proves_the_connection_and_sends_nothing() {
    let (certificates, folder) = (certificates(), folder());
    let pem = |name: &str| certificates.path().join(name).display().to_string();
    let server = Server::with(Some(acceptor(certificates.path(), true)), |_| (200, "", "")).await;
    let url = format!("https://{}", server.address);
    for (tls, words) in [
        (serde_json::json!({"ca": pem("other-ca.pem")}), Some("set tls.ca")),
        (serde_json::json!({"ca": pem("ca.pem")}), Some("wants a client certificate")),
        (
            serde_json::json!({"ca": pem("ca.pem"), "certificate": pem("rogue.pem"), "key": pem("rogue.key")}),
            Some("refused our client certificate"),
        ),
        (serde_json::json!({"ca": pem("ca.pem"), "certificate": pem("client.pem"), "key": pem("client.key")}), None),
    ] {
        let mut sink = sink(url.clone(), &folder, serde_json::json!({"tls": tls})).await;
        let probed = sink.probe().await;
        let Some(words) = words else {
            assert_eq!(probed, Ok(()));
            assert!(server.requests().is_empty());
            sink.open(Position(0)).await.expect("opens");
            assert_eq!(send(&mut sink, &batch(&[(1, "one")])).await, Ok(Settled::Through(Position(1))));
            continue;
        };
        assert!(matches!(&probed, Err(Stop::Tls { reason }) if reason.contains(words)), "{probed:?}");
        sink.open(Position(0)).await.expect("opens");
        let sent = send(&mut sink, &batch(&[(1, "one")])).await;
        assert!(matches!(&sent, Err(Stop::Tls { reason }) if reason.contains(words)), "{sent:?}");
    }
    drop(server);
    let mut gone = sink("http://127.0.0.1:1".to_owned(), &folder, serde_json::json!({})).await;
    assert!(matches!(gone.probe().await, Err(Stop::Unavailable { .. })));
}

#[test]
fn an_answer_blames_the_event_only_where_it_says_so() {
    let judged = |status: u16| match judge("https://soar", status, None, b"words\x1b[2J") {
        Ok(()) => "taken",
        Err(Failure::Refused(reason)) => {
            assert_eq!(reason, format!("{status}: words [2J"));
            "refused"
        }
        Err(Failure::Stop(stop)) => {
            assert!(stop.to_string().contains(&format!("{status}: words [2J")), "{stop}");
            stop.state()
        }
    };
    for (statuses, expected) in [
        (&[200, 201, 202, 204][..], "taken"),
        (&[400, 409, 413, 422], "refused"),
        (&[401, 403, 407], "auth_failed"),
        (&[301, 302, 307, 404, 405, 406, 410, 415, 431], "paused"),
        (&[408, 425, 429, 500, 502, 503, 504], "backoff"),
    ] {
        for status in statuses {
            assert_eq!(judged(*status), expected, "{status}");
        }
    }
    let long = judge("https://soar", 400, None, &[b'x'; 5000]);
    assert!(matches!(long, Err(Failure::Refused(reason)) if reason.len() == 1024));
}

#[test]
fn settings_that_are_wrong_or_mean_nothing_are_told_by_name() {
    for (json, keys) in [
        (serde_json::json!({"url": "https://a"}), &["secrets"][..]),
        (serde_json::json!({"url": "ftp://a", "secrets": ["env:A"]}), &["url"]),
        (serde_json::json!({"url": "https://u:p@a", "secrets": ["whsec_AAAA"]}), &["url", "secrets[0]"]),
        (
            serde_json::json!({"url": "http://a", "secrets": ["env:A"], "token_header": "Host", "size_max": "2KiB",
                "timeout": "0s", "in_flight_max": 0, "tls": {"ca": "c.pem"}}),
            &["token_header", "size_max", "tls", "token_header", "timeout", "in_flight_max"],
        ),
        (
            serde_json::json!({"profile": "qradar-http", "url": "https://a", "secrets": ["env:A"], "token": "env:B",
                "format": "cef", "in_flight_max": 2, "size_max": "64KiB"}),
            &["secrets", "token", "format", "in_flight_max", "size_max"],
        ),
    ] {
        let config: HttpConfig = serde_json::from_value(json).expect("is a config");
        let problems = config.plan("sinks.x").expect_err("is wrong");
        let found: Vec<&str> = problems.iter().map(|problem| problem.key.trim_start_matches("sinks.x.")).collect();
        assert_eq!(found, keys);
        assert!(problems.iter().all(|problem| !problem.message.contains("AAAA") && !problem.message.contains("u:p")));
    }
}
