//! The receiver over real sockets, with a real journal: what a sender sees, and what is kept.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use actix_server::ServerHandle;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::secret::{Key, Secret, SecretRef};
use crate::store::journal::{DiskJournal, Options};
use crate::trust::{Publisher, TrustPlan};
use crate::verify::{Outgoing, VerifyConfig, sign};

const SECRET: &str = "a-secret-of-thirty-two-characters";
const BODY: &str = r#"{"event":"analysis.completed"}"#;

struct Running {
    address: SocketAddr,
    receiver: Arc<Receiver>,
    journal: Arc<DiskJournal>,
    metrics: Arc<Metrics>,
    handle: ServerHandle,
    ready: watch::Sender<bool>,
    tls: Option<Arc<ServerTls>>,
    _folder: tempfile::TempDir,
}

/// A source by its name and the TOML of its proof; `@` in it stands for a reference to [`SECRET`].
type Given<'a> = (&'a str, &'a str);

const GIVEN: [Given<'_>; 12] = [
    ("portal", "scheme = \"hmac\"\npreset = \"vileanalyziz\"\nsecrets = [\"@\"]"),
    ("bounty", "scheme = \"hmac\"\npreset = \"polyswarm\"\nsecrets = [\"@\"]"),
    ("token", "scheme = \"token\"\nbearer = true\nsecrets = [\"@\"]"),
    ("unset", "scheme = \"token\"\nbearer = true\nsecrets = [\"file:/nowhere/at/all\"]"),
    ("lan", "scheme = \"none\"\nnetworks = [\"192.0.2.0/24\"]"),
    ("pinned", "scheme = \"mtls\"\nsubjects = [\"forwarder\"]"),
    ("slack", "scheme = \"hmac\"\npreset = \"slack\"\nsecrets = [\"@\"]"),
    ("zoom", "scheme = \"hmac\"\npreset = \"zoom\"\nsecrets = [\"@\"]"),
    ("grid", "scheme = \"event-grid\"\nsecret_query = \"code\"\nsecrets = [\"@\"]"),
    ("packed", "scheme = \"hmac\"\npreset = \"vileanalyziz\"\nsecrets = [\"@\"]\nover = \"wire\""),
    ("repacked", "scheme = \"hmac\"\npreset = \"vileanalyziz\"\nsecrets = [\"@\"]\nover = \"decoded\""),
    (
        "sns",
        "scheme = \"sns\"\ntopics = [\"arn:aws:sns:eu-west-1:123456789012:T\"]\ntls = { ca = \"/nowhere/at/all\" }",
    ),
];

fn config() -> ReceiverConfig {
    ReceiverConfig { body_max: crate::setting::Size(64 << 10), ..ReceiverConfig::default() }
}

async fn start(config: &ReceiverConfig, rate_limit: Option<RateLimit>) -> Running {
    let folder = tempfile::tempdir().expect("folder");
    let plan = config.plan("receiver").expect("a plan");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).expect("write");
    let metrics = Arc::new(Metrics::default());
    let mut sources = Vec::new();
    for (name, proof) in GIVEN {
        let proof = proof.replace('@', &format!("file:{}", secret.display()));
        let proof: VerifyConfig = toml::from_str(&proof).expect("TOML");
        let scheme = proof.plan("verify", false).expect("a plan");
        let keys = KeyRing::open(proof.references(), false, Timestamp::now()).await;
        let name: SourceId = name.parse().expect("a name");
        let trust = match &scheme {
            Scheme::Sns(sns) => {
                let publisher = Publisher::Sns(sns.topics().to_vec());
                let tls = proof.tls.clone().plan("tls").expect("a plan");
                Some(Trust::new(&name, &TrustPlan { publisher, tls }))
            }
            _ => None,
        };
        let source = Source::new(name, scheme, keys, &["x-event"], rate_limit, &metrics);
        sources.push(source.trusting(trust).allowing(proof.codings()));
    }
    let options = Options { folder: folder.path().join("journal"), segment_bytes: 4 << 20, sequence_floor: 0 };
    let journal = Arc::new(DiskJournal::open(&options).expect("opens"));
    let (ready, is_ready) = watch::channel(true);
    let receiver = Arc::new(Receiver::new(&plan, sources, journal.clone(), metrics.clone(), is_ready));
    let tls = plan.tls.map(|files| Arc::new(ServerTls::open(files).expect("TLS")));
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let server = listen(&receiver, socket, tls.clone(), 1).expect("listens");
    let handle = server.handle();
    tokio::spawn(server);
    Running { address, receiver, journal, metrics, handle, ready, tls, _folder: folder }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// What comes back until the connection is closed, for these bytes on a new one.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        exchange(&mut self.connect().await, bytes.as_ref()).await
    }

    async fn status(&self, bytes: impl AsRef<[u8]>) -> u16 {
        status(&self.exchange(bytes).await)
    }

    fn kept(&self) -> Vec<Delivery> {
        let mut reader = self.journal.reader(0);
        let (records, _) = reader.read(1000, 16 << 20).expect("readable");
        let read = |record: crate::store::Record| Delivery::from_stored(record.source, record.at, &record.stored);
        records.into_iter().map(|record| read(record).expect("a delivery")).collect()
    }

    fn count(&self, line: &str) -> u64 {
        let text = self.metrics.text();
        let found = text.lines().find_map(|other| other.strip_prefix("verdict_relay_")?.strip_prefix(line));
        found.map_or(0, |number| number.trim().parse().expect("a number"))
    }
}

/// Sends, and reads until the other side closes. A refused write (the answer came first) is no failure.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> String {
    let _cut_short = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match timeout(Duration::from_secs(10), stream.read(&mut piece)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
        }
    }
    String::from_utf8(answer).expect("text")
}

/// Reads one answer of a connection that stays open.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !answer.contains("\r\n\r\n") || answer.ends_with("\r\n\r\n") {
        let count = timeout(Duration::from_secs(10), stream.read(&mut piece)).await.expect("in time").expect("open");
        assert_ne!(count, 0, "closed after {answer}");
        answer.push_str(std::str::from_utf8(&piece[..count]).expect("text"));
    }
    answer
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn problem(answer: &str) -> serde_json::Value {
    assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(problem["status"], status(answer));
    problem
}

fn signed(preset: &str, body: &str) -> String {
    let config = format!("scheme = \"hmac\"\npreset = \"{preset}\"\nsecrets = [\"env:A\"]");
    let scheme = toml::from_str::<VerifyConfig>(&config).expect("TOML").plan("a", false).expect("a plan");
    let keys = [Key { id: SecretRef("env:A".to_owned()), secret: Secret::new(SECRET.into()) }];
    let message = Outgoing { method: "POST", url: "", id: "msg-1", body: body.as_bytes() };
    let headers = sign(&scheme, &keys, &message, Timestamp::now()).expect("signs");
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    lines.concat()
}

fn post(source: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /v1/hooks/{source} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

fn good() -> String {
    post("portal", &signed("vileanalyziz", BODY), BODY)
}

const CLOSE: &str = "Connection: close\r\n";

#[tokio::test]
async fn a_proven_message_is_kept_as_it_came_and_answered_with_its_id() {
    let running = start(&config(), None).await;
    let headers = format!("{}X-Event: done\r\nContent-Type: text/plain\r\n", signed("vileanalyziz", BODY));
    let mut stream = running.connect().await;
    stream.write_all(post("portal", &headers, BODY).as_bytes()).await.expect("sends");
    let first = one_answer(&mut stream).await;
    assert!(first.starts_with("HTTP/1.1 202 Accepted\r\n") && first.ends_with("\r\n\r\n{\"id\":\"1\"}"), "{first}");
    assert!(!first.to_lowercase().contains("server:"), "{first}");

    // The connection stays, another method will do, and an exact repeat gets the same id.
    stream.write_all(post("portal", &headers, BODY).replace("POST", "PUT").as_bytes()).await.expect("sends");
    assert!(one_answer(&mut stream).await.ends_with("{\"id\":\"1\"}"));
    let chunked = format!(
        "POST /v1/hooks/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SECRET}\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    );
    stream.write_all(chunked.as_bytes()).await.expect("sends");
    assert!(one_answer(&mut stream).await.ends_with("{\"id\":\"2\"}"));

    let kept = running.kept();
    let bodies: Vec<_> = kept.iter().map(|delivery| delivery.body().as_ref()).collect();
    assert_eq!(bodies, [BODY.as_bytes(), b"abcdefg"]);
    assert_eq!(kept[0].evidence().headers, [("x-event".to_owned(), "done".to_owned())]);
    assert_eq!(kept[0].evidence().peer.as_deref(), Some("127.0.0.1"));
    assert_eq!(running.count("ingest_requests_total{source=\"portal\",outcome=\"accepted\"}"), 2);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn nobody_outside_can_tell_why_a_message_was_not_believed() {
    let running = start(&config(), None).await;
    let good = signed("vileanalyziz", BODY);
    let cases = [
        ("mismatch", post("portal", &good, "{}")),
        ("missing", post("portal", "", BODY)),
        ("malformed", post("portal", "X-Signature: v1=\r\n", BODY)),
        ("malformed", post("portal", "X-Signature: t=\u{e9},v1=\u{e9}\r\n", BODY)),
        ("duplicate_header", post("portal", &format!("{good}{good}"), BODY)),
        ("timestamp", post("portal", &format!("X-Signature: t=1,v1={}\r\n", "0".repeat(64)), BODY)),
        ("network", post("lan", "X-Forwarded-For: 192.0.2.1\r\n", BODY)),
        ("certificate", post("pinned", "", BODY)),
        ("", post("nobody", &good, BODY)),
        ("", post("%70ortal%00", &good, BODY)),
        ("", post("PORTAL", &good, BODY)),
    ];
    let without_date = |answer: String| -> Vec<String> {
        answer.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect()
    };
    let mut seen = Vec::new();
    for (reason, request) in &cases {
        let answer = running.exchange(request).await;
        assert_eq!(problem(&answer)["title"], "Unauthorized", "{reason}");
        seen.push(without_date(answer));
    }
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
    for reason in ["mismatch", "missing", "duplicate_header", "timestamp"] {
        let line = format!("signature_failures_total{{source=\"portal\",reason=\"{reason}\"}}");
        assert_eq!(running.count(&line), 1, "{reason}");
    }
    assert_eq!(running.count("ingest_requests_total{source=\"_unknown\",outcome=\"unauthorized\"}"), 3);
    assert!(running.kept().is_empty());
    running.handle.stop(true).await;
}

#[tokio::test]
async fn the_other_answers_have_their_status_and_say_so_in_their_body() {
    let running = start(&config(), None).await;
    let big = 64 * 1024 + 1;
    let head = |extra: &str| format!("POST /v1/hooks/portal HTTP/1.1\r\nHost: a\r\n{extra}\r\n");
    let cases = [
        (404, "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (404, format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{CLOSE}\r\n")),
        (404, format!("POST /v1/hooks/portal/more HTTP/1.1\r\nHost: a\r\n{CLOSE}\r\n")),
        (405, "GET /v1/hooks/portal HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (405, "DELETE /v1/hooks/nobody HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (405, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde".to_owned()),
        // Refused before a byte of the body: none is sent.
        (413, head(&format!("Content-Length: {big}\r\n"))),
        (413, head("Content-Length: 18446744073709551615\r\n")),
        (415, post("portal", "Content-Encoding: gzip\r\n", BODY)),
        (415, post("portal", "Content-Encoding: identity\r\nContent-Encoding: br\r\n", BODY)),
        (503, post("unset", &format!("Authorization: Bearer {SECRET}\r\n"), BODY)),
    ];
    for (expected, request) in cases {
        let answer = running.exchange(&request).await;
        assert_eq!(status(&answer), expected, "{request}");
        problem(&answer);
        assert_eq!(answer.contains("\r\nallow: "), expected == 405, "{answer}");
        assert_eq!(answer.contains("\r\nretry-after: "), expected == 503, "{answer}");
    }
    let head = running.exchange("HEAD /v1/hooks/portal HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(status(&head) == 405 && head.ends_with("\r\n\r\n"), "{head}");
    let identity = format!("{}Content-Encoding: Identity\r\n{CLOSE}", signed("vileanalyziz", BODY));
    assert_eq!(running.status(post("portal", &identity, BODY)).await, 202);
    assert_eq!(running.count("ingest_requests_total{source=\"portal\",outcome=\"rejected\"}"), 4);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn a_chunked_body_is_cut_off_at_the_limit_and_not_read_to_an_end_that_never_comes() {
    let running = start(&config(), None).await;
    let mut stream = running.connect().await;
    stream
        .write_all(b"POST /v1/hooks/portal HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .expect("sends");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let (mut reader, mut writer) = stream.split();
    let mut sent = 0_usize;
    let endless = async {
        while writer.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        // The connection is reset under the writer; the answer was read by then.
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let reading = timeout(Duration::from_secs(10), reader.read_to_end(&mut answer));
    tokio::select! {
        () = endless => {}
        closed = reading => drop(closed.expect("the connection closes")),
    }
    let answer = String::from_utf8(answer).expect("text");
    assert_eq!(problem(&answer)["title"], "Content Too Large");
    assert!(running.kept().is_empty());
    running.handle.stop(true).await;
}

#[tokio::test]
async fn broken_framing_and_smuggled_requests_store_nothing() {
    let running = start(&config(), None).await;
    let proof = signed("vileanalyziz", BODY);
    let smuggled = good();
    let chunked = |body: &str| {
        format!("POST /v1/hooks/portal HTTP/1.1\r\nHost: a\r\n{proof}Transfer-Encoding: chunked\r\n\r\n{body}")
    };
    let head = |extra: &str| format!("POST /v1/hooks/portal HTTP/1.1\r\n{extra}{proof}\r\n{BODY}");
    let length = BODY.len();
    let cases = [
        ("length and chunks", head(&format!("Host: a\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n"))),
        ("two lengths", head(&format!("Host: a\r\nContent-Length: {length}\r\nContent-Length: {length}\r\n"))),
        ("a signed length", head(&format!("Host: a\r\nContent-Length: +{length}\r\n"))),
        ("an odd transfer encoding", head("Host: a\r\nTransfer-Encoding: xchunked\r\n")),
        ("no host", head(&format!("Content-Length: {length}\r\n"))),
        ("two hosts", head(&format!("Host: a\r\nHost: b\r\nContent-Length: {length}\r\n"))),
        ("space before the colon", head(&format!("Host: a\r\nContent-Length : {length}\r\n"))),
        ("a folded header", head(&format!("Host: a\r\nContent-Length: {length}\r\nX-A: b\r\n c\r\n"))),
        ("a NUL", head(&format!("Host: a\r\nContent-Length: {length}\r\nX-A: \0\r\n"))),
        ("an overflowing chunk", chunked(&format!("FFFFFFFFFFFFFFFFF\r\n{BODY}\r\n0\r\n\r\n{smuggled}"))),
        ("a hexadecimal prefix", chunked(&format!("0x1e\r\n{BODY}\r\n0\r\n\r\n{smuggled}"))),
        ("no chunk size", chunked(&format!("\r\n{BODY}\r\n0\r\n\r\n{smuggled}"))),
        ("a bare line feed in a chunk", chunked(&format!("1e\n{BODY}\n0\n\n{smuggled}"))),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned()),
    ];
    for (name, request) in cases {
        let answer = running.exchange(&request).await;
        assert_eq!(status(&answer), 400, "{name}: {answer}");
        assert!(!answer.contains(" 202 "), "{name}: {answer}");
    }
    let many = "X-A: a\r\n".repeat(97);
    assert_eq!(running.status(post("portal", &many, BODY)).await, 431);
    assert_eq!(running.status(post("portal", &format!("X-A: {}\r\n", "a".repeat(200_000)), BODY)).await, 431);
    assert!(running.kept().is_empty(), "{:?}", running.kept());
    running.handle.stop(true).await;
}

#[tokio::test]
async fn a_body_that_ends_early_or_trickles_is_refused() {
    let slow = ReceiverConfig { body_timeout: crate::setting::Span(Duration::from_secs(1)), ..config() };
    let running = start(&slow, None).await;
    let request = good();
    let (half, _) = request.split_at(request.len() - 5);

    let mut closed = running.connect().await;
    closed.write_all(half.as_bytes()).await.expect("sends");
    closed.shutdown().await.expect("closes its half");
    let answer = exchange(&mut closed, b"").await;
    assert_eq!(problem(&answer)["title"], "Bad Request");

    let began = Instant::now();
    let answer = running.exchange(half).await;
    assert_eq!(problem(&answer)["title"], "Bad Request");
    assert!(began.elapsed() < Duration::from_secs(5));

    // Closing the half after a whole request is fine: the answer still comes.
    let mut whole = running.connect().await;
    whole.write_all(request.as_bytes()).await.expect("sends");
    whole.shutdown().await.expect("closes its half");
    assert_eq!(status(&exchange(&mut whole, b"").await), 202);
    assert_eq!(running.kept().len(), 1);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn only_proven_requests_use_up_the_rate_limit() {
    let running = start(&config(), Some(RateLimit { per_second: 1, burst: 2 })).await;
    for _ in 0..5 {
        assert_eq!(running.status(post("portal", "", BODY)).await, 401);
    }
    let with = |number: usize| {
        let body = format!("{{\"n\":{number}}}");
        post("portal", &format!("{}{CLOSE}", signed("vileanalyziz", &body)), &body)
    };
    assert_eq!(running.status(with(0)).await, 202);
    assert_eq!(running.status(with(1)).await, 202);
    let answer = running.exchange(with(2)).await;
    assert_eq!(problem(&answer)["title"], "Too Many Requests");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(running.kept().len(), 2);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn a_flood_of_unproven_requests_is_refused_unread() {
    let running = start(&config(), None).await;
    for _ in 0..600 {
        assert_eq!(running.status(post("portal", "", BODY)).await, 401);
    }
    // Only a head: whoever reads the body waits for it in vain.
    let head = "POST /v1/hooks/portal HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let began = Instant::now();
    assert_eq!(running.status(head).await, 401);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    running.handle.stop(true).await;
}

#[tokio::test]
async fn our_own_trouble_is_a_503_and_never_a_word_about_the_message() {
    let running = start(&config(), None).await;
    running.journal.set_full(true);
    let answer = running.exchange(good()).await;
    assert_eq!(problem(&answer)["title"], "Service Unavailable");
    assert!(answer.contains("\r\nretry-after: 10\r\n"), "{answer}");
    // Even then a wrong proof is a wrong proof, so that the store's state does not show.
    assert_eq!(running.status(post("portal", "", BODY)).await, 401);
    running.journal.set_full(false);
    assert_eq!(running.status(good().replace("Host: a\r\n", &format!("Host: a\r\n{CLOSE}"))).await, 202);
    assert_eq!(running.count("ingest_requests_total{source=\"portal\",outcome=\"unavailable\"}"), 1);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn on_the_way_out_half_sent_bodies_end_at_once() {
    let running = start(&config(), None).await;
    let request = good();
    let mut half = running.connect().await;
    half.write_all(&request.as_bytes()[..request.len() - 5]).await.expect("sends");
    let mut idle = running.connect().await;
    idle.write_all(request.as_bytes()).await.expect("sends");
    assert_eq!(status(&one_answer(&mut idle).await), 202);

    let live = |what: &str| format!("GET /{what} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(running.status(live("readyz")).await, 200);
    running.ready.send_replace(false);
    assert_eq!(running.status(live("readyz")).await, 503);
    running.ready.send_replace(true);
    running.receiver.drain();
    assert_eq!(running.status(live("readyz")).await, 503);
    assert_eq!(running.status(live("livez")).await, 200);
    assert_eq!(running.status(&request).await, 503);
    assert_eq!(status(&exchange(&mut half, b"").await), 503);
    let began = Instant::now();
    running.handle.stop(true).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(exchange(&mut idle, b"").await, "");
}

#[tokio::test]
async fn a_ping_is_answered_and_not_kept() {
    let running = start(&config(), None).await;
    let ping =
        |event: &str| post("bounty", &format!("{}X-PolySwarm-Event: {event}\r\n{CLOSE}", signed("polyswarm", "")), "");
    assert_eq!(running.status(ping("ping")).await, 200);
    assert_eq!(running.status(ping("ping").replace("signature: ", "signature: 00")).await, 401);
    assert!(running.kept().is_empty());
    assert_eq!(running.status(ping("bounty")).await, 202);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn handshakes_are_answered_after_their_proof_and_keep_nothing() {
    let running = start(&config(), None).await;
    let slack = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd"}"#;
    let zoom = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let grid = r#"[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6-c7b8"}}]"#;
    let asks = "Aeg-Event-Type: SubscriptionValidation\r\n";
    let in_grid = format!("grid?code={SECRET}");
    let signed = |preset: &str, body: &str| format!("{}{CLOSE}", signed(preset, body));
    for (request, answer) in [
        (post("slack", &signed("slack", slack), slack), r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd"}"#),
        (post("zoom", &signed("zoom", zoom), zoom), r#""plainToken":"qgg8vlvZRS6UYooatFL8Aw"}"#),
        (post(&in_grid, &format!("{asks}{CLOSE}"), grid), r#"{"validationResponse":"512d38b6-c7b8"}"#),
    ] {
        let answered = running.exchange(&request).await;
        assert_eq!(status(&answered), 200, "{answered}");
        assert!(
            answered.contains("\r\ncontent-type: application/json\r\n") && answered.contains("nosniff"),
            "{answered}"
        );
        assert!(answered.ends_with(answer), "{answered}");
    }
    for (request, expected) in [
        (post("slack", "", slack), 401),
        (post("slack", &signed("slack", "{}"), slack), 401),
        (post("grid", asks, grid), 401),
        (post("grid?code=guess", asks, grid), 401),
        (post("portal", asks, grid), 401),
        // A method that reads is none that sends.
        ("GET /v1/hooks/slack?challenge=a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        ("HEAD /v1/hooks/grid HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
    ] {
        let answered = running.exchange(&request).await;
        assert_eq!(status(&answered), expected, "{request}");
        assert!(!answered.contains("512d38b6") && !answered.contains("3eZbrw1a"), "{answered}");
    }
    assert!(running.kept().is_empty());
    // What is proven and no handshake is kept, and of its URL nothing.
    assert_eq!(running.status(post(&in_grid, CLOSE, grid)).await, 202);
    let kept = running.kept();
    assert!(
        !format!("{:?}", kept[0].evidence()).contains(SECRET)
            && !String::from_utf8_lossy(&kept[0].stored()).contains(SECRET)
    );
    running.handle.stop(true).await;
}

#[tokio::test]
async fn the_preflight_of_cloudevents_is_answered_where_it_is_configured_and_nowhere_else() {
    let running = start(&config(), Some(RateLimit { per_second: 2, burst: 10 })).await;
    let ask = |source: &str, origin: &str| {
        format!(
            "OPTIONS /v1/hooks/{source} HTTP/1.1\r\nHost: a\r\nWebHook-Request-Origin: {origin}\r\nWebHook-Request-Rate: 120\r\nWebHook-Request-Callback: https://evil.example/\r\n{CLOSE}\r\n"
        )
    };
    let granted = running.exchange(ask(&format!("grid?code={SECRET}"), "eventgrid.azure.net")).await;
    assert_eq!(status(&granted), 200, "{granted}");
    for header in
        ["webhook-allowed-origin: eventgrid.azure.net", "webhook-allowed-rate: 120", "allow: POST, PUT, OPTIONS"]
    {
        assert!(granted.contains(&format!("\r\n{header}\r\n")), "{granted}");
    }
    let unlimited = start(&config(), None).await;
    assert!(
        unlimited
            .exchange(ask(&format!("grid?code={SECRET}"), "eventgrid.azure.net"))
            .await
            .contains("allowed-rate: *\r\n")
    );
    let without_date =
        |answer: String| answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
    let mut seen = Vec::new();
    for (source, origin) in [
        ("grid?code=guess", "eventgrid.azure.net"),
        ("grid", "eventgrid.azure.net"),
        (&format!("grid?code={SECRET}"), "evil.example"),
        ("portal", "eventgrid.azure.net"),
        (&format!("portal?code={SECRET}"), "eventgrid.azure.net"),
        ("nobody", "eventgrid.azure.net"),
    ] {
        let answered = running.exchange(ask(source, origin)).await;
        assert_eq!(problem(&answered)["title"], "Method Not Allowed", "{source}");
        assert!(!answered.contains("evil.example") && !answered.contains("webhook-"), "{answered}");
        seen.push(without_date(answered));
    }
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
    running.handle.stop(true).await;
    unlimited.handle.stop(true).await;
}

#[tokio::test]
async fn a_compressed_body_is_kept_as_it_was_signed_and_only_where_it_is_allowed() {
    use std::io::Write as _;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let running = start(&config(), None).await;
    let sent = gzip(BODY.as_bytes());
    let post = |source: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/hooks/{source} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{headers}{CLOSE}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let signature = |body: &[u8]| {
        let config = "scheme = \"hmac\"\npreset = \"vileanalyziz\"\nsecrets = [\"env:A\"]";
        let scheme = toml::from_str::<VerifyConfig>(config).expect("TOML").plan("a", false).expect("a plan");
        let keys = [Key { id: SecretRef("env:A".to_owned()), secret: Secret::new(SECRET.into()) }];
        let message = Outgoing { method: "POST", url: "", id: "msg-1", body };
        let headers = sign(&scheme, &keys, &message, Timestamp::now()).expect("signs");
        format!("{}: {}\r\nContent-Encoding: gzip\r\n", headers[0].0, headers[0].1)
    };
    let bomb = gzip(&vec![b' '; 1 << 20]);
    for (source, headers, body, expected) in [
        ("packed", signature(&sent), &sent, 202),
        ("repacked", signature(BODY.as_bytes()), &sent, 202),
        ("packed", signature(BODY.as_bytes()), &sent, 401),
        ("repacked", signature(&sent), &sent, 401),
        ("portal", signature(&sent), &sent, 415),
        ("packed", signature(&sent).replace("gzip", "gzip, gzip"), &sent, 415),
        ("packed", format!("{}Content-Encoding: gzip\r\n", signature(&sent)), &sent, 415),
        ("packed", signature(&sent).replace("gzip", "br"), &sent, 415),
        ("packed", signature(&bomb), &bomb, 413),
        ("repacked", signature(&bomb), &bomb, 413),
        ("nobody", signature(&sent), &sent, 415),
    ] {
        assert_eq!(running.status(post(source, &headers, body)).await, expected, "{source} {headers}");
    }
    let kept = running.kept();
    assert_eq!(kept.iter().map(|delivery| delivery.body().as_ref()).collect::<Vec<_>>(), [BODY.as_bytes(); 2]);
    assert_eq!(kept.iter().map(|delivery| delivery.wire().as_ref()).collect::<Vec<_>>(), [&sent[..], BODY.as_bytes()]);
    running.handle.stop(true).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_fetched_is_our_trouble_and_a_made_up_one_is_not() {
    let running = start(&config(), None).await;
    let message = |topic: &str, host: &str| {
        format!(
            r#"{{"Type":"Notification","MessageId":"a","TopicArn":"arn:aws:sns:eu-west-1:123456789012:{topic}","Message":"{{}}","Timestamp":"{}","SignatureVersion":"2","Signature":"AAAA","SigningCertURL":"https://{host}/SimpleNotificationService-a.pem"}}"#,
            Timestamp::now()
        )
    };
    let host = "sns.eu-west-1.amazonaws.com";
    // Its authorities cannot be read, so that nothing here goes out to the world.
    let answer = running.exchange(post("sns", "Content-Type: text/plain\r\n", &message("T", host))).await;
    assert_eq!(problem(&answer)["title"], "Service Unavailable");
    assert!(answer.contains("\r\nretry-after: 10\r\n"), "{answer}");
    assert_eq!(running.status(post("sns", "", &message("U", host))).await, 401);
    assert_eq!(running.status(post("sns", "", &message("T", "evil.example"))).await, 401);
    for reason in ["key_not_loaded", "pin", "key_place"] {
        assert_eq!(
            running.count(&format!("signature_failures_total{{source=\"sns\",reason=\"{reason}\"}}")),
            1,
            "{reason}"
        );
    }
    assert!(running.kept().is_empty());
    running.handle.stop(true).await;
}

#[tokio::test]
async fn the_peer_is_what_a_trusted_proxy_says() {
    let behind = ReceiverConfig { trusted_proxies: vec!["127.0.0.0/8".to_owned()], ..config() };
    let running = start(&behind, None).await;
    for (forwarded, expected) in
        [("192.0.2.9", 202), ("192.0.2.9, 198.51.100.1", 401), ("198.51.100.1, 192.0.2.9", 202)]
    {
        let request = post("lan", &format!("X-Forwarded-For: {forwarded}\r\n{CLOSE}"), BODY);
        assert_eq!(running.status(request).await, expected, "{forwarded}");
    }
    assert_eq!(running.kept()[0].evidence().peer.as_deref(), Some("192.0.2.9"));
    running.handle.stop(true).await;
}

#[tokio::test]
async fn reloaded_sources_count_from_the_next_request_on() {
    let running = start(&config(), None).await;
    let request = good().replace("Host: a\r\n", &format!("Host: a\r\n{CLOSE}"));
    running.receiver.replace_sources(Vec::new());
    assert_eq!(running.status(&request).await, 401);
    running.handle.stop(true).await;
}

/// A client's TLS configuration, with a certificate of these files.
fn client(certs: &Path, certificate: Option<&str>) -> Arc<rustls::ClientConfig> {
    let read = |name: &str| CertificateDer::from_pem_file(certs.join(name)).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read("ca.pem")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(certs.join(format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![read(&format!("{name}.pem"))], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn over_tls(
    address: SocketAddr,
    client: &Arc<rustls::ClientConfig>,
    server_name: &'static str,
    request: &str,
) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(server_name).expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(client.clone()).connect(name, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(exchange(&mut stream, request.as_bytes()).await)
}

#[tokio::test]
async fn client_certificates_prove_a_source_and_a_new_server_certificate_is_taken_up() {
    let certs = tempfile::tempdir().expect("folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/certs.sh");
    assert!(Command::new("bash").arg(&script).arg(certs.path()).status().expect("runs").success());
    let file = |name: &str| certs.path().join(name);
    let plan = TlsConfig { certificate: file("live.pem"), key: file("live.key"), client_ca: Some(file("ca.pem")) };
    std::fs::copy(file("server.pem"), &plan.certificate).expect("copies");
    std::fs::copy(file("server.key"), &plan.key).expect("copies");
    let running = start(&ReceiverConfig { tls: Some(plan.clone()), ..config() }, None).await;

    let tls = running.tls.clone().expect("TLS");
    let [forwarder, other, rogue] =
        ["client", "server", "rogue"].map(|certificate| client(certs.path(), Some(certificate)));
    let pinned = post("pinned", CLOSE, BODY);
    let send = async |client: &_, name| over_tls(running.address, client, name, &pinned).await;
    assert_eq!(status(&send(&forwarder, "localhost").await.expect("TLS")), 202);
    assert_eq!(running.kept()[0].evidence().how, crate::verify::How::Mtls { subject: "forwarder".to_owned() });
    let without = client(certs.path(), None);
    assert_eq!(status(&send(&without, "localhost").await.expect("TLS")), 401);
    assert_eq!(status(&send(&other, "localhost").await.expect("TLS")), 401, "another name of the same authority");
    // With TLS 1.3 a client may learn of the refusal only when it reads.
    assert!(send(&rogue, "localhost").await.is_ok_and(|answer| answer.is_empty()), "another authority");

    assert!(tls.expires_at() > Timestamp::now());
    let before = tls.current();
    tls.refresh();
    assert!(Arc::ptr_eq(&before, &tls.current()), "nothing changed");
    std::fs::copy(file("client.pem"), &plan.certificate).expect("copies");
    tls.refresh();
    assert!(send(&without, "localhost").await.is_ok(), "a certificate without its key is not taken");
    std::fs::copy(file("client.key"), &plan.key).expect("copies");
    tls.refresh();
    assert!(send(&without, "forwarder").await.is_ok(), "the new one is in use");
    assert!(send(&without, "localhost").await.is_err());
    std::fs::remove_file(&plan.key).expect("removes");
    tls.refresh();
    assert!(send(&without, "forwarder").await.is_ok(), "the last good one stays");
    assert!(ServerTls::open(plan).is_err_and(|error| error.to_string().contains("check the path")));
    running.handle.stop(true).await;
}
