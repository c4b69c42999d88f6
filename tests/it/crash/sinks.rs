//! A sink that is gone, and a sink that refuses one event.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::service::{Book, Load, Message, PATIENCE, Sender, Site, arrived, lock, wait_until};

#[test]
fn dead_sinks_change_neither_the_answers_nor_what_another_sink_gets() {
    let (mut site, book) = (Site::new(), Arc::new(Book::default()));
    let folder = site.folder.path().join("later");
    let late = folder.join("late.ndjson");
    // Nobody listens on a port that was just closed.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    site.more = format!(
        "[sinks.gone]\ntype = \"syslog\"\nprofile = \"plain\"\naddress = \"tcp://{closed}\"\nstart = \"earliest\"\n\
         [sinks.late]\ntype = \"file\"\npath = \"{}\"\nstart = \"earliest\"\n",
        late.display()
    );
    let service = site.start();
    let load = Load::start(service.receiver, 8, &book);
    std::thread::sleep(Duration::from_secs(2));
    load.stop();
    assert_eq!(book.unavailable(), 0, "a sender felt it");
    let all = book.settle(&site, &service).ids().len() as u64;
    for sink in ["gone", "late"] {
        let counts = service.counts(sink);
        counts.assert_they_add_up();
        assert_eq!((counts.pending, counts.delivered), (all, 0), "{sink}");
        let ok = service.metric("verdict_relay_sink_state", &[&format!("sink=\"{sink}\""), "state=\"ok\""]);
        assert_eq!(ok, 0, "{sink} is said to be well");
    }
    fs::create_dir(&folder).expect("made");
    wait_until("the late sink has caught up", PATIENCE, || service.counts("late").pending == 0);
    book.check(&arrived(&late), &std::collections::HashSet::new());
    assert_eq!(service.counts("gone").pending, all);
}

#[test]
fn a_poisoned_batch_loses_only_the_poison() {
    let collector = Collector::start("w000-0000033");
    let (mut site, book) = (Site::new(), Book::default());
    let token = site.folder.path().join("token");
    fs::write(&token, "11111111-2222-3333-4444-555555555555").expect("written");
    site.more = format!(
        "[sinks.splunk]\ntype = \"splunk_hec\"\nendpoints = [\"http://{}\"]\ntokens = [\"file:{}\"]\ncompression = false\nin_flight_max = 1\nstart = \"earliest\"\n",
        collector.address,
        token.display()
    );
    let service = site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    for number in 0..100 {
        book.post(&mut sender, &Message::new(0, number));
    }
    wait_until("all is settled", PATIENCE, || {
        let counts = service.counts("splunk");
        counts.entered == 100 && counts.pending == 0
    });
    let counts = service.counts("splunk");
    counts.assert_they_add_up();
    assert_eq!((counts.entered, counts.delivered, counts.dead), (100, 99, 1));
    let taken = lock(&collector.taken).clone();
    let expected: Vec<_> = (0..100).filter(|number| *number != 33).map(|number| Message::new(0, number).id).collect();
    assert_eq!(taken, expected, "each neighbour once, in order");
    let letters: Value = serde_json::from_str(&service.page("/v1/dead-letters")).expect("JSON");
    let letters = letters["dead_letters"].as_array().expect("a list");
    assert_eq!(letters.len(), 1);
    assert!(letters[0]["reason"].as_str().is_some_and(|reason| reason.contains("not today")), "{letters:?}");
    // The other sink knows nothing of it.
    assert_eq!(book.settle(&site, &service).ids().len(), 100);
}

/// A receiver at Splunk's address that refuses every batch with one certain event in it, and does not say which.
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start(poison: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, taken) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Vec::new())));
        let kept = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.expect("accepts"), kept.clone());
                std::thread::spawn(move || serve(stream, poison, &kept));
            }
        });
        Self { address, taken }
    }
}

/// Answers one request after the other until the client goes.
fn serve(stream: TcpStream, poison: &str, taken: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).expect("a whole request");
        let body = String::from_utf8(body).expect("text");
        let ids = body.split("\"original_event_uid\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        let ids: Vec<_> = ids.map(str::to_owned).collect();
        let (status, words) = if ids.iter().any(|id| id == poison) {
            ("400 Bad Request", r#"{"text":"not today","code":6}"#)
        } else {
            lock(taken).extend(ids);
            ("200 OK", r#"{"text":"Success","code":0}"#)
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{words}",
            words.len()
        );
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
