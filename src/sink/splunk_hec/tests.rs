//! Against a scripted server on loopback that answers what it is told to and keeps what it was sent.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::{Acked, judge_ack};
use super::collector::{Request, answer, request};
use super::*;
use crate::sink::testing::{batch, certificates, ring, secret};

/// A server that gives each answer once and the last one for ever.
struct Server {
    address: SocketAddr,
    requests: mpsc::Receiver<Request>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn hec(status: u16, code: u32) -> String {
    answer(status, "", &format!("{{\"text\":\"words\",\"code\":{code}}}"))
}

async fn server(answers: Vec<String>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let (sender, requests) = mpsc::channel(100);
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(serve(stream, sender.clone(), Arc::clone(&answers)));
        }
    });
    Server { address, requests, task }
}

async fn serve(stream: tokio::net::TcpStream, sender: mpsc::Sender<Request>, answers: Arc<Mutex<VecDeque<String>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await {
        sender.send(request).await.expect("the test reads");
        let answer = {
            let mut answers = answers.lock().expect("no panic");
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.expect("there is an answer")
        };
        if answer.is_empty() {
            return;
        }
        stream.write_all(answer.as_bytes()).await.expect("the sink reads");
    }
}

fn config(endpoints: &[SocketAddr]) -> HecConfig {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("http://{address}")).collect();
    serde_json::from_value(serde_json::json!({"endpoints": endpoints, "tokens": ["env:HEC_TOKEN"]}))
        .expect("is a config")
}

/// An open sink with these tokens, and the folder that they lie in.
async fn sink(config: HecConfig, tokens: &[&str]) -> (HecSink, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let name = |at: usize| format!("token{at}");
    let references = tokens.iter().enumerate().map(|(at, token)| secret(folder.path(), &name(at), token)).collect();
    let plan = HecConfig { tokens: references, ..config }.plan("sinks.splunk").expect("is valid");
    let tokens = ring(plan.secrets()).await;
    let mut sink = plan.build(&"splunk".parse().expect("a name"), tokens);
    assert_eq!(sink.open(Position(0)).await, Ok(Position(0)));
    (sink, folder)
}

const TOKEN: &str = "b0221cd8-c4b4-465a-9a3c-273e3a75aa29";
const NEXT_TOKEN: &str = "c1332de9-d5c5-576b-8b4d-384f4b86bb3a";

/// What becomes of a batch of the positions 11, 12 and 13.
async fn outcome(sink: &mut HecSink) -> Result<Settled, Stop> {
    sink.send(&batch(&[(11, "{\"a\":1}"), (12, "{\"a\":2}"), (13, "{\"a\":3}")])).await.expect("is on the way");
    timeout(Duration::from_secs(4), sink.settled()).await.expect("is answered")
}

#[tokio::test]
async fn a_batch_is_one_request_of_joined_envelopes_with_token_and_channel() {
    let mut server = server(vec![hec(200, 0)]).await;
    let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
    assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    let request = server.requests.recv().await.expect("a request");
    assert_eq!(request.path, "/services/collector/event");
    assert_eq!(request.header("authorization"), format!("Splunk {TOKEN}"));
    assert_eq!(request.header("x-splunk-request-channel").len(), 36);
    assert_eq!(request.header("content-encoding"), "gzip");
    assert_eq!(request.text(), "{\"a\":1}{\"a\":2}{\"a\":3}");
}

/// What a row of the table expects.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Through,
    Refused(Option<u64>),
    State(&'static str),
}

#[tokio::test]
async fn every_answer_means_what_the_table_says() {
    use Expected::{Refused, State, Through};
    let numbered =
        |code: u32| answer(400, "", &format!("{{\"text\":\"no\",\"code\":{code},\"invalid-event-number\":1}}"));
    let html = |status: u16| answer(status, "content-type: text/html\r\n", "<html>proxy</html>");
    let mut rows = vec![
        (hec(200, 0), Through),
        (hec(200, 24), Through),
        (hec(200, 25), Through),
        (hec(200, 17), State("backoff")),
        (hec(200, 9), State("backoff")),
        (numbered(6), Refused(Some(12))),
        (numbered(12), Refused(Some(12))),
        (numbered(13), Refused(Some(12))),
        (numbered(15), Refused(Some(12))),
        (hec(400, 5), Refused(None)),
        (hec(400, 6), Refused(None)),
        (answer(400, "", "{\"text\":\"no\",\"code\":6,\"invalid-event-number\":99}"), Refused(None)),
        (numbered(7), State("paused")),
        (hec(400, 10), State("backoff")),
        (hec(400, 11), State("backoff")),
        (hec(413, 6), Refused(None)),
        (html(413), Refused(None)),
        (html(200), State("paused")),
        (answer(200, "", ""), State("paused")),
        (answer(200, "", "[]"), State("paused")),
        (answer(302, "location: http://127.0.0.1:1/\r\n", ""), State("paused")),
        (html(400), State("paused")),
        (html(404), State("paused")),
        (html(403), State("auth_failed")),
        (html(408), State("backoff")),
        (html(429), State("backoff")),
        (html(502), State("backoff")),
        (hec(400, 99), State("backoff")),
        (String::new(), State("backoff")),
    ];
    let tokens = [(1, 403), (4, 403), (21, 400), (22, 400), (2, 401), (3, 401), (16, 400)];
    rows.extend(tokens.map(|(code, status)| (hec(status, code), State("auth_failed"))));
    let busy = [(8, 500), (9, 503), (18, 503), (19, 503), (20, 503), (23, 503), (26, 429), (27, 429)];
    rows.extend(busy.map(|(code, status)| (hec(status, code), State("backoff"))));
    for (answer, expected) in rows {
        let server = server(vec![answer.clone()]).await;
        let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
        let outcome = outcome(&mut sink).await;
        let is_expected = match (&outcome, expected) {
            (Ok(Settled::Through(Position(13))), Through) => true,
            (Ok(Settled::Refused { from: Position(11), through: Position(13), suspect, .. }), Refused(expected)) => {
                *suspect == expected.map(Position)
            }
            (Err(stop), State(state)) => stop.state() == state,
            _ => false,
        };
        assert!(is_expected, "{answer:?} gave {outcome:?}, expected {expected:?}");
    }
}

#[tokio::test]
async fn the_wait_that_the_server_asks_for_is_passed_on_within_reason() {
    for (header, expected) in
        [("retry-after: 7\r\n", Some(7)), ("retry-after: 999999999\r\n", Some(300)), ("retry-after: soon\r\n", None)]
    {
        let server = server(vec![answer(503, header, "")]).await;
        let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
        let outcome = outcome(&mut sink).await;
        let expected = expected.map(Duration::from_secs);
        assert!(
            matches!(&outcome, Err(Stop::Unavailable { retry_after, .. }) if *retry_after == expected),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_token_gives_way_to_the_next_one_and_to_a_new_value() {
    let mut server =
        server(vec![hec(403, 4), hec(200, 0), hec(403, 4), hec(403, 4), hec(403, 4), hec(403, 4), hec(200, 0)]).await;
    let (mut sink, folder) = sink(config(&[server.address]), &[TOKEN, NEXT_TOKEN]).await;
    assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    // Both are refused, and the files say nothing new.
    let stop = outcome(&mut sink).await.expect_err("no token is good");
    assert!(matches!(&stop, Stop::Unauthorized { reason } if reason.contains("token0, file:")), "{stop}");
    // Now one of them does, and nobody has told the sink.
    sink.open(Position(0)).await.expect("opens");
    secret(folder.path(), "token0", "d2443efa-e6d6-687c-9c5e-495a5c97cc4b");
    assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    let mut tokens = Vec::new();
    while let Ok(request) = server.requests.try_recv() {
        tokens.push(request.header("authorization").trim_start_matches("Splunk ")[..8].to_owned());
    }
    // The one that was good goes first the next time.
    assert_eq!(tokens, ["b0221cd8", "c1332de9", "c1332de9", "b0221cd8", "c1332de9", "b0221cd8", "d2443efa"]);
}

#[tokio::test]
async fn an_endpoint_that_fails_rests_and_the_others_go_on() {
    let (mut busy, mut good) = (server(vec![hec(503, 9)]).await, server(vec![hec(200, 0)]).await);
    let (mut sink, _folder) = sink(config(&[busy.address, good.address]), &[TOKEN]).await;
    for _ in 0..4 {
        assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    }
    let count = |server: &mut Server| std::iter::from_fn(|| server.requests.try_recv().ok()).count();
    assert_eq!((count(&mut busy), count(&mut good)), (1, 4));
}

#[tokio::test]
async fn what_waiting_does_not_mend_is_told_first() {
    let (busy, denied) = (server(vec![hec(503, 9)]).await, server(vec![hec(403, 4)]).await);
    let (mut sink, _folder) = sink(config(&[denied.address, busy.address]), &[TOKEN]).await;
    let stop = outcome(&mut sink).await.expect_err("neither takes it");
    assert_eq!(stop.state(), "auth_failed");
    assert!(stop.to_string().contains(&denied.address.to_string()), "{stop}");
}

#[tokio::test]
async fn batches_overlap_and_settle_in_order() {
    let server = server(vec![hec(200, 0)]).await;
    let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
    for at in 1..=4 {
        sink.send(&batch(&[(at, "{}")])).await.expect("is on the way");
    }
    for at in 1..=4 {
        assert_eq!(sink.settled().await, Ok(Settled::Through(Position(at))));
    }
    assert!(timeout(Duration::from_millis(20), sink.settled()).await.is_err());
}

#[tokio::test]
async fn nothing_is_delivered_before_the_indexers_say_so() {
    let taken = answer(200, "", "{\"text\":\"Success\",\"code\":0,\"ackId\":0}");
    let acks = |truth: bool| answer(200, "", &format!("{{\"acks\":{{\"0\":{truth}}}}}"));
    let mut server = server(vec![taken, acks(true)]).await;
    let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
    sink.send(&batch(&[(1, "{}")])).await.expect("is on the way");
    let event = server.requests.recv().await.expect("a request");
    assert!(timeout(Duration::from_millis(200), sink.settled()).await.is_err(), "it is only taken yet");
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(1))));
    let question = server.requests.recv().await.expect("a question");
    assert_eq!(question.path, "/services/collector/ack");
    assert_eq!(question.text(), "{\"acks\":[0]}");
    let channel = |request: &Request| request.header("x-splunk-request-channel").to_owned();
    assert_eq!(channel(&question), channel(&event));
}

/// A sink that waits a hundredth.
async fn quick_sink(config: HecConfig) -> (HecSink, tempfile::TempDir) {
    let (mut sink, folder) = sink(config, &[TOKEN]).await;
    sink.close(Duration::ZERO).await;
    sink.plan = Arc::new(HecPlan { waits: promise::QUICK, ..(*sink.plan).clone() });
    sink.open(Position(0)).await.expect("opens");
    (sink, folder)
}

fn taken(ack_id: u64, headers: &str) -> String {
    answer(200, headers, &format!("{{\"text\":\"Success\",\"code\":0,\"ackId\":{ack_id}}}"))
}

#[tokio::test]
async fn a_session_that_moves_is_followed_and_its_batches_are_sent_again_under_a_new_channel() {
    let none = answer(200, "set-cookie: node=\"b\"; Path=/; HttpOnly\r\n", "{\"acks\":{\"0\":false}}");
    let all = answer(200, "", "{\"acks\":{\"0\":true}}");
    let first = taken(0, "set-cookie: node=a; Path=/\r\nset-cookie: zone=1\r\n");
    let mut server = server(vec![first, none, taken(0, ""), all]).await;
    let (mut sink, _folder) = quick_sink(config(&[server.address])).await;
    let stop = outcome(&mut sink).await.expect_err("has moved");
    assert!(matches!(&stop, Stop::Unavailable { reason, .. } if reason.contains("moved our session")), "{stop}");
    sink.open(Position(10)).await.expect("opens");
    assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    let mut seen = Vec::new();
    while let Ok(request) = server.requests.try_recv() {
        seen.push((request.header("cookie").to_owned(), request.header("x-splunk-request-channel").to_owned()));
    }
    let cookies: Vec<&str> = seen.iter().map(|(cookie, _)| cookie.as_str()).collect();
    assert_eq!(cookies, ["", "node=a; zone=1", "node=\"b\"; zone=1", "node=\"b\"; zone=1"]);
    assert!(seen[0].1 == seen[1].1 && seen[1].1 != seen[2].1 && seen[2].1 == seen[3].1, "{seen:?}");
}

#[tokio::test]
async fn a_cookie_that_is_renewed_with_each_answer_is_no_session() {
    let renewed = |value: u32, body: &str| answer(200, &format!("set-cookie: LB={value}\r\n"), body);
    let taken = "{\"text\":\"Success\",\"code\":0,\"ackId\":0}";
    let answers = (0..20).map(|n| renewed(n, if n % 2 == 0 || n < 4 { taken } else { "{\"acks\":{\"0\":true}}" }));
    let server = server(answers.collect()).await;
    let (mut sink, _folder) = quick_sink(config(&[server.address])).await;
    let mut tries = 0;
    while outcome(&mut sink).await.is_err() {
        tries += 1;
        sink.open(Position(10)).await.expect("opens");
    }
    assert_eq!(tries, 3, "then it is not believed any more");
}

#[tokio::test]
async fn what_one_batch_lacks_is_not_sent_again_with_the_others() {
    let no = "{\"text\":\"busy\",\"code\":9}";
    let server = server(vec![hec(200, 0), answer(503, "", no), hec(200, 0)]).await;
    let (mut sink, _folder) = quick_sink(config(&[server.address])).await;
    for position in 1..=3 {
        sink.send(&batch(&[(position, "{}")])).await.expect("is on the way");
    }
    // Whichever came second is the one that fails.
    let mut settled = 0;
    let stop = loop {
        match sink.settled().await {
            Ok(Settled::Through(Position(through))) => settled = through,
            Ok(other) => panic!("{other:?}"),
            Err(stop) => break stop,
        }
    };
    assert_eq!(stop.state(), "backoff");
    assert!(sink.in_flight_max() < 4, "fewer at once, until it is well again");
    sink.open(Position(settled)).await.expect("opens");
    // In another composition, as after a rewind.
    let rest: Vec<(u64, &str)> = (settled + 1..=3).map(|position| (position, "{}")).collect();
    sink.send(&batch(&rest)).await.expect("is on the way");
    assert_eq!(sink.settled().await, Ok(Settled::Through(Position(3))));
    assert_eq!(server.requests.len(), 4, "only the one that failed was sent again");
    assert!(sink.under_way.is_empty());
}

#[tokio::test]
async fn a_refusal_of_a_batch_that_is_composed_otherwise_today_condemns_nobody() {
    let slow = server(vec![answer(400, "", "{\"text\":\"no\",\"code\":6}")]).await;
    let (mut sink, _folder) = quick_sink(config(&[slow.address])).await;
    sink.send(&batch(&[(1, "{}"), (2, "{}")])).await.expect("is on the way");
    // A rewind for another reason, while it is still on its way.
    sink.open(Position(0)).await.expect("opens");
    sink.send(&batch(&[(1, "{}")])).await.expect("is on the way");
    assert_eq!(sink.settled().await, Ok(Settled::Rewind(Position(1))));
    sink.open(Position(0)).await.expect("opens");
    sink.send(&batch(&[(1, "{}")])).await.expect("is on the way");
    let settled = sink.settled().await.expect("is answered");
    assert!(matches!(settled, Settled::Refused { from: Position(1), through: Position(1), .. }), "{settled:?}");
}

#[tokio::test]
async fn a_crowded_collector_gets_fewer_batches_at_once() {
    let server = server(vec![hec(200, 24), hec(200, 0)]).await;
    let (mut sink, _folder) = quick_sink(config(&[server.address])).await;
    assert_eq!(sink.in_flight_max(), 4);
    assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    assert_eq!(sink.in_flight_max(), 2, "half of what was out, and one for what went well");
}

#[tokio::test]
async fn nothing_goes_to_a_collector_before_the_time_it_named() {
    let asked = answer(503, "retry-after: 1\r\n", "{\"text\":\"busy\",\"code\":9}");
    let (mut busy, mut good) = (server(vec![asked, hec(200, 0)]).await, server(vec![hec(200, 0)]).await);
    let (mut sink, _folder) = quick_sink(config(&[busy.address, good.address])).await;
    let count = |server: &mut Server| std::iter::from_fn(|| server.requests.try_recv().ok()).count();
    for _ in 0..6 {
        assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    }
    assert_eq!((count(&mut busy), count(&mut good)), (1, 6));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..4 {
        assert_eq!(outcome(&mut sink).await, Ok(Settled::Through(Position(13))));
    }
    assert_eq!((count(&mut busy), count(&mut good)), (2, 2), "the probe, and then by turns");

    let all = server(vec![answer(429, "retry-after: 7\r\n", ""), hec(200, 0)]).await;
    let (mut sink, _folder) = quick_sink(config(&[all.address])).await;
    for _ in 0..3 {
        let stop = outcome(&mut sink).await.expect_err("has to wait");
        let Stop::Unavailable { retry_after: Some(wait), .. } = stop else { panic!("{stop}") };
        assert!(wait > Duration::from_secs(6) && wait <= Duration::from_secs(7));
        sink.open(Position(10)).await.expect("opens");
    }
    assert_eq!(all.requests.len(), 1);
}

#[tokio::test]
async fn acknowledgements_that_are_off_after_all_are_done_without_or_waited_for_as_configured() {
    let off = hec(400, 14);
    let mut auto = server(vec![taken(0, ""), off.clone(), taken(1, "")]).await;
    let (mut sink_, _folder) = quick_sink(config(&[auto.address])).await;
    let stop = outcome(&mut sink_).await.expect_err("it was not acknowledged, and never will be");
    assert_eq!(stop.state(), "backoff");
    sink_.open(Position(10)).await.expect("opens");
    assert_eq!(outcome(&mut sink_).await, Ok(Settled::Through(Position(13))), "an id means nothing now");
    let channels: Vec<bool> = std::iter::from_fn(|| auto.requests.try_recv().ok())
        .map(|request| request.header("x-splunk-request-channel").is_empty())
        .collect();
    assert_eq!(channels, [false, false, true]);

    let mut required = server(vec![
        taken(0, ""),
        off.clone(),
        off,
        answer(200, "", "{\"acks\":{\"0\":false}}"),
        taken(0, ""),
        answer(200, "", "{\"acks\":{\"0\":true}}"),
    ])
    .await;
    let (mut sink_, _folder) = quick_sink(HecConfig { acks: Acks::Required, ..config(&[required.address]) }).await;
    for _ in 0..2 {
        assert_eq!(outcome(&mut sink_).await.expect_err("there are none").state(), "paused");
        sink_.open(Position(10)).await.expect("opens");
    }
    assert_eq!(outcome(&mut sink_).await, Ok(Settled::Through(Position(13))));
    let paths: Vec<String> =
        std::iter::from_fn(|| required.requests.try_recv().ok()).map(|request| request.path).collect();
    let paths: Vec<&str> = paths.iter().map(|path| path.trim_start_matches("/services/collector/")).collect();
    assert_eq!(
        paths,
        ["event", "ack", "ack", "ack", "event", "ack"],
        "no batch is sent while its acknowledgement can't be had"
    );
}

#[tokio::test]
async fn acks_are_demanded_or_ignored_as_configured() {
    let plain = server(vec![hec(200, 0)]).await;
    let (mut sink_, _folder) = sink(HecConfig { acks: Acks::Required, ..config(&[plain.address]) }, &[TOKEN]).await;
    let stop = outcome(&mut sink_).await.expect_err("there are no acknowledgements");
    assert!(matches!(&stop, Stop::Misconfigured { reason } if reason.contains("acks = \"auto\"")), "{stop}");

    let acking = server(vec![answer(200, "", "{\"text\":\"Success\",\"code\":0,\"ackId\":7}")]).await;
    let (mut sink_, _folder) = sink(HecConfig { acks: Acks::Off, ..config(&[acking.address]) }, &[TOKEN]).await;
    assert_eq!(outcome(&mut sink_).await, Ok(Settled::Through(Position(13))));
}

#[test]
fn an_answer_to_a_question_for_acknowledgements_is_one_of_five() {
    let judged = |status: u16, body: &str| judge_ack("https://splunk", status, body.as_bytes());
    let told = judged(200, "{\"acks\":{\"7\":true,\"8\":false}}");
    assert_eq!(told, Acked::Told([("7".to_owned(), true), ("8".to_owned(), false)].into()));
    for (status, body) in [(503, "{\"text\":\"busy\",\"code\":9}"), (429, ""), (502, "<html>"), (408, "")] {
        assert_eq!(judged(status, body), Acked::NotNow, "{status} {body}");
    }
    for body in ["<html>", "", "{\"acks\":[7]}", "{\"acks\":{\"7\":\"true\"}}"] {
        assert_eq!(judged(200, body), Acked::Lost, "a `true` may have been in it: {body}");
    }
    for (status, code) in [(403, 4), (403, 1), (400, 10), (400, 11), (401, 2)] {
        let judged = judged(status, &format!("{{\"text\":\"no\",\"code\":{code}}}"));
        assert!(matches!(&judged, Acked::Never(Stop::Unavailable { .. })), "{status} {code} {judged:?}");
    }
    let refused =
        [(400, "{\"text\":\"no\",\"code\":14}", true), (404, "", false), (403, "<html>", false), (302, "", false)];
    for (status, body, expected) in refused {
        let judged = judged(status, body);
        assert!(
            matches!(&judged, Acked::Refused { is_disabled, .. } if *is_disabled == expected),
            "{status} {judged:?}"
        );
    }
}

#[tokio::test]
async fn a_server_whose_certificate_we_do_not_trust_gets_no_token() {
    let certificates = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let acceptor = crate::sink::testing::acceptor(certificates.path(), false);
    let server = tokio::spawn(async move {
        let mut bytes = 0;
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.expect("accepts");
            if let Ok(mut stream) = acceptor.accept(stream).await {
                bytes += stream.read(&mut [0; 10]).await.unwrap_or(0);
            }
        }
        bytes
    });
    let other_ca = certificates.path().join("other-ca.pem");
    for tls in [serde_json::json!({}), serde_json::json!({"ca": other_ca})] {
        let tls: ClientTlsConfig = serde_json::from_value(tls).expect("is a config");
        let config = HecConfig { endpoints: vec![format!("https://{address}")], tls, ..config(&[]) };
        let (mut sink, _folder) = sink(config, &[TOKEN]).await;
        let stop = outcome(&mut sink).await.expect_err("is not trusted");
        assert!(matches!(&stop, Stop::Tls { reason } if reason.contains("set tls.ca")), "{stop}");
    }
    assert_eq!(server.await.expect("ends"), 0);
}

#[test]
fn an_endpoint_is_a_url_without_secrets_and_its_path_is_completed() {
    for (endpoint, base) in [
        ("https://splunk:8088", "https://splunk:8088"),
        ("https://splunk:8088/", "https://splunk:8088"),
        ("https://splunk:8088/services/collector", "https://splunk:8088"),
        ("https://splunk:8088/services/collector/event", "https://splunk:8088"),
        ("https://proxy/hec/", "https://proxy/hec"),
    ] {
        assert_eq!(base_of(endpoint).as_deref(), Ok(base));
    }
    for bad in ["splunk:8088", "ftp://splunk", "https://u:hunter2@splunk", "https://splunk?token=x", ""] {
        let message = base_of(bad).expect_err(bad);
        assert!(!message.contains("hunter2"), "{message}");
    }
    let problems = HecConfig {
        endpoints: vec![],
        tokens: vec![SecretRef(TOKEN.to_owned())],
        index: Some("Security Index".to_owned()),
        timeout: Some(Span(Duration::ZERO)),
        in_flight_max: Some(0),
        ..config(&[])
    }
    .plan("sinks.splunk")
    .expect_err("nothing is right");
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    let expected =
        ["endpoints", "tokens[0]", "index", "timeout", "in_flight_max"].map(|key| format!("sinks.splunk.{key}"));
    assert_eq!(keys, expected);
    assert!(problems.iter().all(|problem| !problem.message.contains(TOKEN)), "a token is not shown");
}

#[tokio::test]
async fn a_probe_tells_a_good_token_from_a_bad_one_without_an_event() {
    let mut server = server(vec![hec(400, 5), hec(403, 4)]).await;
    let (mut sink, _folder) = sink(config(&[server.address]), &[TOKEN]).await;
    assert_eq!(sink.probe().await, Ok(()));
    assert_eq!(server.requests.recv().await.expect("a request").text(), "");
    assert_eq!(sink.probe().await.expect_err("is refused").state(), "auth_failed");
}
