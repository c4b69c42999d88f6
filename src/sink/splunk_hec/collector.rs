//! A HEC for tests: HTTP on loopback, acknowledgements as Splunk gives them, and a script of what goes wrong.
//!
//! It keeps what a searcher would find: with acknowledgements an event counts as indexed only from the moment its `true` was there to be
//! told, and a batch that it loses never does.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// One request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.header("content-encoding") == "gzip" {
            GzDecoder::new(self.body.as_slice()).read_to_string(&mut text).expect("is gzip");
        } else {
            text.push_str(std::str::from_utf8(&self.body).expect("is text"));
        }
        text
    }
}

/// The next request of a connection; none at its end.
pub(super) async fn request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { path, headers, body })
}

/// An answer: status line, further headers, body.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Some Words\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be.
    Well,
    /// 503, code 9.
    Busy,
    /// 429, code 26.
    Full,
    /// 200, code 24: taken, but the queue fills up.
    Crowded,
    /// 413 to whatever holds more than one event.
    TooLarge,
    /// 500 without a body; nothing was taken.
    Fault,
    /// 504 from a proxy; it was taken all the same.
    Gateway,
    /// The connection ends after the request did its work.
    AnswerLost,
    /// A 200 that is no HEC's; it did its work all the same.
    Garbled,
    /// The connection ends before anything is done.
    Reset,
    /// 403, code 4.
    Forbidden,
    /// 400, code 10: the channel is missing.
    NoChannel,
    /// 404 of a proxy that does not know the path.
    NotFound,
    /// It is taken and then lost on the way to the index: never acknowledged.
    Loses,
    /// It did its work, and answers later: other questions overtake it.
    Lingers,
    /// Before this request it restarts: what was not acknowledged is lost, and it counts from 0. The answer lingers.
    Restarts,
    /// Before this request the balancer moves the session to another node, with a new cookie.
    Moves,
}

/// How it is set up, and how it stands.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct World {
    pub(super) acks: bool,
    /// How long until a batch is indexed.
    pub(super) ack_delay: Duration,
    /// Nothing is ever acknowledged.
    pub(super) holds_acks: bool,
    /// Whether the events before a bad one are indexed.
    pub(super) keeps_prefix: bool,
    /// Whether it says which event is bad.
    pub(super) names: bool,
    /// Events that it will not take.
    pub(super) poison: HashSet<String>,
    /// Most bytes of a request before compression; 0 is no limit.
    pub(super) bytes_max: usize,
    /// Tokens that it takes; all if there are none.
    pub(super) tokens: HashSet<String>,
    /// For posts of events, and for questions for acknowledgements; then all is well.
    pub(super) posts: VecDeque<Mood>,
    pub(super) asks: VecDeque<Mood>,
    /// How often each event was indexed.
    pub(super) indexed: BTreeMap<String, usize>,
    /// How often it took each event, and those that came with the mark of a suspect.
    pub(super) took: BTreeMap<String, usize>,
    pub(super) marked: HashSet<String>,
    /// How many requests were too large.
    pub(super) too_large: usize,
    /// How many posts of events, and how many questions, came.
    pub(super) posted: usize,
    pub(super) asked: usize,
    /// Most batches that waited for an acknowledgement at once.
    pub(super) waiting_max: usize,
    pub(super) nodes: Vec<Node>,
}

/// One node behind the address; the last one has the session.
#[derive(Debug, Default)]
pub(super) struct Node {
    channels: HashMap<String, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    next: u64,
    waiting: HashMap<u64, Batch>,
}

#[derive(Debug)]
struct Batch {
    events: Vec<String>,
    ready_at: Option<Instant>,
}

/// A running one; it ends with this.
pub(super) struct Collector {
    pub(super) address: SocketAddr,
    world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    pub(super) async fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let world = Arc::new(Mutex::new(World { nodes: vec![Node::default()], ..world }));
        let shared = Arc::clone(&world);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, world, task }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }
}

/// Several questions for acknowledgements, in tests.
const LINGERS: Duration = Duration::from_millis(40);

async fn serve(stream: TcpStream, world: Arc<Mutex<World>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await {
        let (answer, delay) = world.lock().expect("no panic").take(&request);
        tokio::time::sleep(delay).await;
        let Some(answer) = answer else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn code(status: u16, code: u32) -> String {
    answer(status, "", &format!("{{\"text\":\"words\",\"code\":{code}}}"))
}

impl World {
    /// The answer, and how long it takes; none ends the connection.
    fn take(&mut self, request: &Request) -> (Option<String>, Duration) {
        let is_ask = request.path.ends_with("/ack");
        *(if is_ask { &mut self.asked } else { &mut self.posted }) += 1;
        let mood = if is_ask { &mut self.asks } else { &mut self.posts }.pop_front().unwrap_or(Mood::Well);
        let token = request.header("authorization").trim_start_matches("Splunk ");
        if !self.tokens.is_empty() && !self.tokens.contains(token) {
            return (Some(code(403, 4)), Duration::ZERO);
        }
        let refusal = match mood {
            Mood::Busy => Some(code(503, 9)),
            Mood::Full => Some(code(429, 26)),
            Mood::Fault => Some(answer(500, "", "")),
            Mood::Reset => return (None, Duration::ZERO),
            Mood::Forbidden => Some(code(403, 4)),
            Mood::NoChannel => Some(code(400, 10)),
            Mood::NotFound => Some(answer(404, "", "<html>")),
            _ => None,
        };
        if refusal.is_some() {
            return (refusal, Duration::ZERO);
        }
        match mood {
            Mood::Restarts => self.nodes = vec![Node::default()],
            Mood::Moves => self.nodes.push(Node::default()),
            _ => {}
        }
        let channel = request.header("x-splunk-request-channel").to_owned();
        let answered = if is_ask { self.ask(&channel, request) } else { self.post(channel, request, mood) };
        match mood {
            Mood::AnswerLost => (None, Duration::ZERO),
            Mood::Garbled => (Some(answer(200, "", "<html>")), Duration::ZERO),
            Mood::Gateway => (Some(answer(504, "", "<html>")), Duration::ZERO),
            Mood::Lingers | Mood::Restarts => (Some(answered), LINGERS),
            _ => (Some(answered), Duration::ZERO),
        }
    }

    /// The header by which a client stays with its node, if it is not there already.
    fn session(&self, request: &Request) -> String {
        let node = format!("node={}", self.nodes.len());
        if !self.acks || request.header("cookie") == node {
            String::new()
        } else {
            format!("set-cookie: {node}; Path=/\r\n")
        }
    }

    fn post(&mut self, channel: String, request: &Request, mood: Mood) -> String {
        let text = request.text();
        let envelopes: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
        let Ok(envelopes) = envelopes else { return code(400, 6) };
        if envelopes.is_empty() {
            return code(400, 5);
        }
        let is_over = self.bytes_max > 0 && text.len() > self.bytes_max;
        if is_over || mood == Mood::TooLarge && envelopes.len() > 1 {
            self.too_large += 1;
            return answer(413, "", "<html>");
        }
        let ids: Vec<String> =
            envelopes.iter().map(|one| one["fields"]["event_id"].as_str().expect("has an id").to_owned()).collect();
        if let Some(bad) = ids.iter().position(|id| self.poison.contains(id)) {
            if self.keeps_prefix {
                self.index(&ids[..bad]);
            }
            let named = if self.names { format!(",\"invalid-event-number\":{bad}") } else { String::new() };
            return answer(400, "", &format!("{{\"text\":\"Invalid data format\",\"code\":6{named}}}"));
        }
        for envelope in envelopes.iter().filter(|one| one["fields"]["suspect_duplicate"] == "true") {
            self.marked.insert(envelope["fields"]["event_id"].as_str().expect("has an id").to_owned());
        }
        for id in &ids {
            *self.took.entry(id.clone()).or_default() += 1;
        }
        let number = if mood == Mood::Crowded { 24 } else { 0 };
        if !self.acks {
            self.index(&ids);
            return code(200, number);
        }
        let ready_at = (mood != Mood::Loses).then(|| Instant::now() + self.ack_delay);
        let node = self.nodes.last_mut().expect("there is one");
        let channel = node.channels.entry(channel).or_default();
        let id = channel.next;
        channel.next += 1;
        channel.waiting.insert(id, Batch { events: ids, ready_at });
        let waiting = node.channels.values().map(|channel| channel.waiting.len()).sum();
        self.waiting_max = self.waiting_max.max(waiting);
        answer(200, &self.session(request), &format!("{{\"text\":\"Success\",\"code\":{number},\"ackId\":{id}}}"))
    }

    /// Says `true` once, and forgets it.
    fn ask(&mut self, channel: &str, request: &Request) -> String {
        if !self.acks {
            return code(400, 14);
        }
        let question: Value = serde_json::from_str(&request.text()).expect("is JSON");
        let ids = question["acks"].as_array().expect("is a list");
        let mut answers = Vec::new();
        for id in ids {
            let id = id.as_u64().expect("is a number");
            let node = self.nodes.last_mut().expect("there is one");
            let waiting = node.channels.get_mut(channel).map(|channel| &mut channel.waiting);
            let is_ready = |batch: &Batch| batch.ready_at.is_some_and(|at| at <= Instant::now());
            let batch = waiting
                .filter(|_| !self.holds_acks)
                .and_then(|waiting| waiting.get(&id).is_some_and(is_ready).then(|| waiting.remove(&id)).flatten());
            answers.push(format!("\"{id}\":{}", batch.is_some()));
            self.index(&batch.map(|batch| batch.events).unwrap_or_default());
        }
        answer(200, &self.session(request), &format!("{{\"acks\":{{{}}}}}", answers.join(",")))
    }

    fn index(&mut self, ids: &[String]) {
        for id in ids {
            *self.indexed.entry(id.clone()).or_default() += 1;
        }
    }
}
