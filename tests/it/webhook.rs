//! The HTTP sink against receivers that go away, refuse, limit and dislike single events: signed webhooks, and lines for QRadar.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use serde_json::Value;
use syslog_rfc5424::SyslogMessage;

use crate::service::{Arrived, Book, Load, PATIENCE, Sender, Site, lock, signed_for, wait_until};

const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY=";
/// Instead of an answer the connection is closed.
const HANG_UP: u16 = 0;

#[cfg(feature = "peers")]
#[test]
fn the_official_library_verifies_each_request_with_either_secret() {
    let receiver = Receiver::start(0, |_| (200, ""));
    let (mut site, book) = (Site::new(), Book::default());
    site.more = webhook(&site, &receiver);
    let service = site.start();
    book.post_all(&service, 0, 0..40);
    settle(&service, 40);
    let posts = lock(&receiver.taken).clone();
    assert_eq!(posts.len(), 40);
    for (secret, expected) in [(OLD, true), (NEW, true), ("whsec_bm9ib2R5IGtub3dzIHRoaXMgb25lIGF0IGFsbA==", false)] {
        let request = |post: &Post| serde_json::json!({"secret": secret, "headers": post.headers, "body": post.body});
        let requests: Vec<Value> = posts.iter().map(request).collect();
        assert_eq!(crate::peers::verified(&requests), vec![expected; 40], "{secret}");
    }
    for post in &posts {
        let event: Value = serde_json::from_str(&post.body).expect("OCSF");
        assert_eq!(post.headers["webhook-id"], event["metadata"]["uid"].as_str().expect("a uid"));
        assert_eq!(post.headers["content-type"], "application/json");
    }
}

#[test]
fn nothing_is_lost_while_a_receiver_limits_fails_hangs_up_goes_away_and_we_crash() {
    let status = Arc::new(AtomicU16::new(200));
    let now = status.clone();
    let answers = move |_: &Post| match now.load(Ordering::Relaxed) {
        429 => (429, "Retry-After: 1\r\n"),
        other => (other, ""),
    };
    let receiver = Receiver::start(0, answers.clone());
    let (mut site, book) = (Site::new(), Arc::new(Book::default()));
    site.more = webhook(&site, &receiver);
    let service = site.start();
    let load = Load::start(service.receiver, 4, &book);
    for answer in [200, 500, 200, 429, 200, HANG_UP, 200] {
        status.store(answer, Ordering::Relaxed);
        sleep(Duration::from_millis(700));
    }
    let (port, before) = (receiver.address.port(), receiver.stop());
    wait_until("the sink says so", PATIENCE, || {
        service.metric("verdict_relay_sink_state", &["sink=\"soar\"", "state=\"backoff\""]) == 1
    });
    service.kill();
    let service = site.start();
    load.moved_to(&service);
    let receiver = Receiver::start(port, answers);
    sleep(Duration::from_secs(1));
    load.stop();
    wait_until("all is delivered", PATIENCE, || {
        let counts = service.counts("soar");
        counts.pending == 0 && counts.entered > 0
    });
    let posts = [before, lock(&receiver.taken).clone()].concat();
    let arrived = arrived(&posts);
    book.check(&arrived, &HashSet::new());
    for (post, (_, uid)) in posts.iter().zip(&arrived.events) {
        assert_eq!(&post.headers["webhook-id"], uid, "what comes again has the same id");
    }
    let counts = service.counts("soar");
    counts.assert_they_add_up();
    assert_eq!((counts.dead, counts.delivered), (0, arrived.ids().len() as u64));
    // What the receiver had taken is only posted again after a crash, at most a batch of it.
    assert!(arrived.repeated() <= 500, "{} of {}", arrived.repeated(), arrived.events.len());
}

#[test]
fn an_event_that_a_receiver_dislikes_is_the_only_dead_letter() {
    let dislikes = |post: &Post| if post.body.contains("w000-0000033") { (422, "") } else { (204, "") };
    let receiver = Receiver::start(0, dislikes);
    let (mut site, book) = (Site::new(), Book::default());
    site.more = webhook(&site, &receiver);
    let service = site.start();
    book.post_all(&service, 0, 0..100);
    settle(&service, 100);
    let counts = service.counts("soar");
    counts.assert_they_add_up();
    assert_eq!((counts.delivered, counts.dead), (99, 1));
    let arrived = arrived(&lock(&receiver.taken));
    assert_eq!((arrived.ids().len(), arrived.repeated()), (99, 0), "each neighbour once");
    book.check(&arrived, &HashSet::from(["w000-0000033".to_owned()]));
    let letters: Value = serde_json::from_str(&service.page("/v1/dead-letters")).expect("JSON");
    let reason = letters["dead_letters"][0]["reason"].as_str().expect("words");
    assert!(reason.starts_with("422: this asset is unknown here") && reason.len() <= 1024, "{reason}");
}

#[test]
fn qradar_gets_one_line_an_event_whatever_a_file_is_called() {
    let dislikes = |post: &Post| if post.body.contains("poison.bin") { (400, "") } else { (200, "") };
    let receiver = Receiver::start(0, dislikes);
    let (mut site, book) = (Site::new(), Book::default());
    site.more = format!(
        "[sinks.soar]\ntype = \"http\"\nprofile = \"qradar-http\"\nurl = \"http://{}\"\nhostname = \"relay-1\"\nstart = \"earliest\"\n",
        receiver.address
    );
    let service = site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    book.post_all(&service, 0, 0..40);
    for (number, name) in
        ["a\n<134>1 2026-01-01T00:00:00Z x y - - - LEEF:2.0|x.exe", "poison.bin", "^verdict=clean|"].iter().enumerate()
    {
        let body = serde_json::json!({
            "id": format!("h{number}"), "verdict": "malicious", "analysed_at": "2026-03-23T12:00:00Z",
            "subject": {"type": "file", "sha256": hex::encode([u8::try_from(number).expect("small"); 32]), "name": name},
        });
        sender.send(&signed_for("portal", &format!("h{number}"), body.to_string().as_bytes())).expect("sent");
        assert_eq!(sender.answer().expect("an answer").status, 202);
    }
    settle(&service, 43);
    assert_eq!((service.counts("soar").delivered, service.counts("soar").dead), (42, 1));
    let mut uids = HashSet::new();
    for line in lock(&receiver.taken).iter().flat_map(|post| post.body.lines()) {
        let message: SyslogMessage = line.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message.hostname.as_deref(), Some("relay-1"));
        // LEEF as its description has it: split on the delimiter, then on the first `=`.
        let fields: HashMap<&str, &str> =
            message.msg.split('^').skip(1).filter_map(|pair| pair.trim_start_matches('|').split_once('=')).collect();
        assert!(message.msg.starts_with("LEEF:2.0|Verdict Relay|verdict-relay|"), "{line}");
        assert_ne!(fields["verdict"], "", "{line}");
        if fields.get("resource").is_some_and(|name| name.contains("verdict")) {
            assert_eq!((fields["verdict"], fields["resource"]), ("malicious", "_verdict=clean_"));
        }
        uids.insert(fields["eventUid"].to_owned());
    }
    assert_eq!(uids.len(), 42);
}

/// A sink `soar` that signs with two secrets.
fn webhook(site: &Site, receiver: &Receiver) -> String {
    let path = |name: &str| site.folder.path().join(name);
    for (name, secret) in [("old", OLD), ("new", NEW)] {
        fs::write(path(name), secret).expect("written");
    }
    format!(
        "[sinks.soar]\ntype = \"http\"\nurl = \"http://{}/hooks\"\nsecrets = [\"file:{}\", \"file:{}\"]\nstart = \"earliest\"\n",
        receiver.address,
        path("old").display(),
        path("new").display()
    )
}

fn settle(service: &crate::service::Service, events: u64) {
    wait_until("all is settled", PATIENCE, || {
        let counts = service.counts("soar");
        counts.entered == events && counts.pending == 0
    });
}

/// The events in the order in which the receiver took them.
fn arrived(posts: &[Post]) -> Arrived {
    let event = |post: &Post| {
        let event: Value = serde_json::from_str(&post.body).expect("OCSF");
        let text = |name: &str| event["metadata"][name].as_str().expect("a text").to_owned();
        (text("original_event_uid"), text("uid"))
    };
    Arrived { events: posts.iter().map(event).collect(), torn: 0 }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Post {
    /// Names in lower case.
    headers: HashMap<String, String>,
    /// What was posted.
    pub body: String,
}

/// What a receiver answers to a request: a status, or `HANG_UP`, and further header lines.
type Answers = dyn Fn(&Post) -> (u16, &'static str) + Send + Sync;

/// A receiver that keeps what it answered with 2xx.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Post>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Starts one at this port, 0 for any, with these answers.
    pub fn start(port: u16, answers: impl Fn(&Post) -> (u16, &'static str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (taken, open, ends) =
            (Arc::default(), Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, streams, told, answers): (_, _, _, Arc<Answers>) =
            (Arc::clone(&taken), Arc::clone(&open), ends.clone(), Arc::new(answers));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                let stream = stream.expect("accepts");
                lock(&streams).push(stream.try_clone().expect("a handle"));
                let (kept, answers) = (Arc::clone(&kept), answers.clone());
                std::thread::spawn(move || drop(serve(stream, &kept, &*answers)));
            }
        });
        Self { address, taken, open, ends, thread: Some(thread) }
    }

    /// Closes its port and all connections; what it took.
    pub fn stop(mut self) -> Vec<Post> {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.thread.take().expect("it runs").join().expect("no panic");
        for stream in lock(&self.open).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        lock(&self.taken).clone()
    }
}

/// Answers one request after the other until the client goes.
fn serve(stream: TcpStream, taken: &Mutex<Vec<Post>>, answers: &Answers) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut headers, mut line) = (HashMap::new(), String::new());
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let post = Post { headers, body: String::from_utf8(body).expect("text") };
        let (status, more) = answers(&post);
        if status == HANG_UP {
            return Ok(());
        }
        // Held while it answers: what is cut off after this was taken.
        let mut kept = lock(taken);
        if (200..300).contains(&status) {
            kept.push(post);
        }
        let words =
            if status == 422 { format!("this asset is unknown here{}", "!".repeat(3000)) } else { String::new() };
        let answer = format!("HTTP/1.1 {status} Words\r\n{more}Content-Length: {}\r\n\r\n{words}", words.len());
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}
