//! File names as an attacker writes them, through every sink and format: one frame an event, equal values by parsers that nobody here
//! wrote, no key more than with a plain name, no control character.
//!
//! Independent here are rsyslog, syslog-ng, liblognorm, ParCEFone, Kafka's Java client, Python's JSON (the HEC receiver) and
//! serde_json. LEEF has no parser to be had: it is split as IBM's description says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::peers::{Hec, Kafka, Rsyslog, SyslogNg, parse_cef_lines};
use crate::service::{Book, Message, PATIENCE, Sender, Site, wait_until};
use crate::webhook::Receiver;

/// What a name may be made of: controls, line ends, escapes of terminals, marks of direction, the delimiters of every format, what
/// looks like a header, a field or a frame, and bytes that were no UTF-8.
const PIECES: [&str; 56] = [
    "\0",
    "\u{1}",
    "\u{7}",
    "\u{8}",
    "\t",
    "\n",
    "\u{b}",
    "\u{c}",
    "\r",
    "\r\n",
    "\u{1b}[31m",
    "\u{1b}]0;owned\u{7}",
    "\u{1b}[2J\u{1b}[H",
    "\u{7f}",
    "\u{80}",
    "\u{85}",
    "\u{9b}31m",
    "\u{9f}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}cod.exe",
    "\u{202a}",
    "\u{2066}",
    "\u{2069}",
    "\u{200e}",
    "\u{200f}",
    "\u{61c}",
    "\u{feff}",
    "\u{fffd}\u{fffd}",
    "|",
    "||",
    "=",
    " a=b",
    "\\",
    "\\\\",
    "\\n",
    "\\|",
    "\\=",
    "\"",
    "'",
    "]",
    "[x@1 y=\"z\"]",
    "^",
    "^verdict=clean",
    " cs6=clean",
    " cs6Label=verdict",
    "CEF:0|a|b|1|c|d|1|msg=",
    "LEEF:2.0|a|b|1|c|^|verdict=clean",
    "<134>1 2026-11-21T00:00:00Z h a - - - x",
    "12 <134>1 - - - - - - x",
    "\"},\"verdict\":\"clean",
    "@cee:{\"verdict\":\"clean\"}",
    "%5E%7C",
    "--help",
    "../../etc/passwd",
    "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
];
/// What stands in no output as it is, beside C0 and C1.
const HAZARDS: [char; 15] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
    '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];
/// Most bytes of a name in an event.
const NAME_BYTES_MAX: usize = 512;

/// At least 300 names: each piece alone, within a name, at its end, and next to others.
fn names() -> Vec<String> {
    let mut names = BTreeSet::new();
    for (at, piece) in PIECES.iter().enumerate() {
        let other = PIECES[(at * 7 + 3) % PIECES.len()];
        names.insert((*piece).to_owned());
        names.insert(format!("a{piece}b.exe"));
        names.insert(format!("invoice.pdf{piece}"));
        names.insert(format!("{piece}{other}.exe"));
        names.insert(format!("a{other}{piece}{piece}b"));
        names.insert(format!("{other} {piece} {other}.scr"));
        names.insert(piece.repeat(40).chars().take(120).collect::<String>() + ".bin");
    }
    // Longer than an event keeps, with a character across the boundary.
    names.extend([format!("{}.exe", "x".repeat(5000)), "é".repeat(300), format!("x{}", "é".repeat(300))]);
    names.into_iter().collect()
}

/// The name as an event keeps it.
fn kept(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// What a CEF or LEEF receiver reads where the file was called `name`: what has no escape there is spelled out.
fn visible(name: &str, special: impl Fn(char) -> Option<char>) -> String {
    let mut text = String::new();
    for c in kept(name).chars() {
        match special(c) {
            Some(other) => text.push(other),
            None if is_hazard(c) => write!(text, "\\u{:04x}", u32::from(c)).expect("memory takes every write"),
            None => text.push(c),
        }
    }
    text
}

fn as_cef(name: &str) -> String {
    visible(name, |c| matches!(c, '\r' | '\n').then_some(c))
}

fn as_leef(name: &str) -> String {
    visible(name, |c| match c {
        '^' | '|' => Some('_'),
        '\r' | '\n' | '\t' => Some(' '),
        _ => None,
    })
}

fn is_hazard(c: char) -> bool {
    c.is_control() || HAZARDS.contains(&c)
}

fn message(number: usize, name: &str) -> Message {
    let id = format!("w000-{number:07}");
    let sha256 = format!("{number:064x}");
    let body = json!({
        "id": id,
        "subject": {"type": "file", "sha256": sha256, "name": name},
        "verdict": "malicious",
        "analysed_at": "2026-03-23T12:00:00Z",
    });
    Message { id, body: body.to_string().into_bytes() }
}

/// Who receives.
struct Peers {
    kafka: Kafka,
    hec: Hec,
    rsyslog: Rsyslog,
    syslog_ng: SyslogNg,
    webhook: Receiver,
    qradar: Receiver,
}

/// One output: its lines, each of one event.
struct Output {
    sink: &'static str,
    format: &'static str,
    lines: Vec<String>,
}

impl Output {
    /// Fails unless every line is of another event, has the name as it should read, and no key more than the plain event's.
    fn check(&self, names: &[String]) {
        let Self { sink, format, lines } = self;
        assert_eq!(lines.len(), names.len(), "{sink}: frames");
        // The HEC receiver keeps what it has read, not the bytes that came.
        for line in lines.iter().filter(|_| *sink != "hec") {
            assert!(!line.chars().any(is_hazard), "{sink}: {line:?}");
        }
        let read: Vec<(String, String, BTreeSet<String>)> = match *format {
            "ocsf" | "ecs" => lines.iter().map(|line| json_event(format, line)).collect(),
            "cef" => cef_events(lines),
            _ => lines.iter().map(|line| leef_event(line)).collect(),
        };
        // A datagram holds 1 KiB: what does not fit is left out and cut as a whole, and the event says so.
        let is_cut = |keys: &BTreeSet<String>| sink.ends_with("-udp") && keys.iter().any(|key| is_mark(key));
        let lasting = |keys: &BTreeSet<String>| keys.iter().filter(|key| !depends(key)).cloned().collect();
        let plain: BTreeSet<String> =
            read.iter().map(|(.., keys)| keys).find(|keys| !is_cut(keys)).map(lasting).expect("most fit");
        let (mut seen, mut cut) = (BTreeSet::new(), 0);
        for (sha256, name, keys) in read {
            let number = usize::from_str_radix(&sha256, 16).expect("a hash of ours");
            let wanted = match *format {
                "cef" => as_cef(&names[number]),
                "leef" => as_leef(&names[number]),
                _ => kept(&names[number]).to_owned(),
            };
            let lasting: BTreeSet<String> = lasting(&keys);
            if is_cut(&keys) {
                cut += 1;
                assert!(wanted.starts_with(&name), "{sink}: {name:?} of {:?}", names[number]);
                assert!(lasting.is_subset(&plain), "{sink}: {:?}", names[number]);
            } else {
                assert_eq!(name, wanted, "{sink}: {:?}", names[number]);
                assert_eq!(lasting, plain, "{sink}: {:?}", names[number]);
            }
            assert!(seen.insert(number), "{sink}: event {number} twice");
        }
        assert!(cut < names.len() / 5, "{sink}: {cut} names were cut");
    }
}

/// Says that something was left out.
fn is_mark(key: &str) -> bool {
    ["truncated", "verdictRelayTruncated"].contains(&key)
}

/// Keys that hang on the length of a name, or on the dot in it.
fn depends(key: &str) -> bool {
    ["truncated", "verdictRelayTruncated", "extension", "ext"].iter().any(|word| key.ends_with(word))
}

fn json_event(format: &str, line: &str) -> (String, String, BTreeSet<String>) {
    let line = line.trim_start().trim_start_matches("@cee:");
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut keys = BTreeSet::new();
    paths(&event, "", &mut keys);
    if format == "ecs" {
        (text(&event["file"]["hash"]["sha256"]), text(&event["file"]["name"]), keys)
    } else {
        let file = &event["osint"][0]["file"];
        let file = if file.is_null() { &event["file"] } else { file };
        let sha256 = file["hashes"].as_array().and_then(|all| all.iter().find(|hash| hash["algorithm_id"] == 3));
        (text(&sha256.unwrap_or(&Value::Null)["value"]), text(&file["name"]), keys)
    }
}

fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}.{key}"), into)),
        Value::Array(items) => items.iter().for_each(|value| paths(value, &format!("{path}[]"), into)),
        _ => drop(into.insert(path.to_owned())),
    }
}

/// By liblognorm; and ParCEFone has to accept each line with the same keys.
fn cef_events(lines: &[String]) -> Vec<(String, String, BTreeSet<String>)> {
    let others = parse_cef_lines("parcefone", lines);
    let read = |(event, other): (Value, Value)| {
        let extensions = event["extensions"].as_object().unwrap_or_else(|| panic!("{event}"));
        let text = |key: &str| extensions[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(event["header"]["SignatureID"], "verdict.malicious");
        assert_eq!(text("cs6"), "malicious");
        assert!(other["error"].is_null(), "ParCEFone: {other}");
        (text("fileHash"), text("fname"), extensions.keys().cloned().collect())
    };
    parse_cef_lines("lognorm", lines).into_iter().zip(others).map(read).collect()
}

fn leef_event(line: &str) -> (String, String, BTreeSet<String>) {
    let (header, attributes) = line.split_once("|^|").expect("the delimiter is always sent");
    assert_eq!(header.matches('|').count(), 4, "{line}");
    let pairs: Vec<_> = attributes.split('^').map(|pair| pair.split_once('=').expect("a pair")).collect();
    let values: BTreeMap<_, _> = pairs.iter().copied().collect();
    assert_eq!(values.len(), pairs.len(), "a key twice: {line}");
    assert_eq!(values["verdict"], "malicious");
    let text = |key: &str| values[key].to_owned();
    (text("fileHash"), text("resource"), values.keys().map(|key| (*key).to_owned()).collect())
}

/// The sinks: what the contract lists, in every format that it has.
fn sinks(folder: &Path, peers: &Peers) -> String {
    let Peers { kafka, hec, rsyslog, syslog_ng, webhook, qradar } = peers;
    let mut sinks = String::new();
    let mut sink = |name: &str, text: String| {
        write!(sinks, "[sinks.{name}]\nstart = \"earliest\"\n{text}\n").expect("memory takes every write");
    };
    for format in ["ecs", "cef", "leef"] {
        let path = folder.join(format).display().to_string();
        sink(&format!("file-{format}"), format!("type = \"file\"\npath = {path:?}\nformat = \"{format}\""));
    }
    sink("console", "type = \"console\"".to_owned());
    let token = folder.join("token");
    fs::write(&token, Hec::TOKEN).expect("written");
    let tokens = format!("file:{}", token.display());
    sink(
        "hec",
        format!("type = \"splunk_hec\"\nendpoints = [{:?}]\ntokens = [{tokens:?}]\nindex = \"main\"", hec.url()),
    );
    sink("kafka", format!("type = \"kafka\"\nbrokers = [{:?}]\ntopic = \"verdicts\"", kafka.broker()));
    let secret = folder.join("secret-of-the-webhook");
    fs::write(&secret, "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("written");
    sink(
        "webhook",
        format!("type = \"http\"\nurl = \"http://{}\"\nsecrets = [\"file:{}\"]", webhook.address, secret.display()),
    );
    sink("qradar", format!("type = \"http\"\nprofile = \"qradar-http\"\nurl = \"http://{}\"", qradar.address));
    let mut syslog = |name: &str, address: String, more: &str| {
        // A datagram is never sent again.
        let resend = if address.starts_with("udp") { "" } else { "resend = { time = \"0s\" }\n" };
        sink(name, format!("type = \"syslog\"\nhostname = \"{name}\"\naddress = \"{address}\"\n{resend}{more}"));
    };
    let loopback = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
    let tls = |certificates: &Path| {
        let file = |name: &str| certificates.join(name).display().to_string();
        let [ca, pem, key] = ["ca.pem", "client.pem", "client.key"].map(file);
        format!("tls = {{ ca = {ca:?}, certificate = {pem:?}, key = {key:?}, server_name = \"localhost\" }}")
    };
    let (at_rsyslog, at_syslog_ng) = (tls(&rsyslog.certificates()), tls(&syslog_ng.certificates()));
    syslog("r-plain", loopback("tcp", rsyslog.tcp), "profile = \"plain\"");
    syslog("r-cee", loopback("tcp", rsyslog.tcp), "profile = \"rsyslog\"\nframing = \"lf\"");
    syslog("r-arcsight", loopback("tls", rsyslog.tls), &format!("profile = \"arcsight\"\n{at_rsyslog}"));
    syslog("r-old", loopback("tcp", rsyslog.tcp), "profile = \"sc4s\"\nheader = \"rfc3164\"");
    syslog("r-udp", loopback("udp", rsyslog.udp), "profile = \"arcsight\"");
    syslog("n-udp", loopback("udp", syslog_ng.udp), "profile = \"qradar\"");
    syslog("n-qradar", loopback("tls", syslog_ng.tls), &format!("profile = \"qradar\"\n{at_syslog_ng}"));
    syslog("n-ecs", loopback("tcp", syslog_ng.octet), "profile = \"plain\"\nformat = \"ecs\"");
    syslog("n-sentinel", loopback("tcp", syslog_ng.line), "profile = \"sentinel\"\nframing = \"lf\"");
    sinks
}

const ALL: [&str; 18] = [
    "local",
    "console",
    "file-ecs",
    "file-cef",
    "file-leef",
    "hec",
    "kafka",
    "webhook",
    "qradar",
    "r-plain",
    "r-cee",
    "r-arcsight",
    "r-old",
    "r-udp",
    "n-udp",
    "n-qradar",
    "n-ecs",
    "n-sentinel",
];

fn outputs(site: &Site, count: usize, peers: Peers) -> Vec<Output> {
    let Peers { kafka, hec, rsyslog, syslog_ng, webhook, qradar } = peers;
    let file = |path: &Path| -> Vec<String> {
        fs::read_to_string(path).expect("UTF-8").split_terminator('\n').map(str::to_owned).collect()
    };
    let folder = site.folder.path();
    let mut all = vec![
        Output { sink: "local", format: "ocsf", lines: file(&site.sink) },
        // On a terminal, nothing of a name may act.
        Output { sink: "console", format: "ocsf", lines: file(&folder.join("console")) },
        Output { sink: "file-ecs", format: "ecs", lines: file(&folder.join("ecs")) },
        Output { sink: "file-cef", format: "cef", lines: file(&folder.join("cef")) },
        Output { sink: "file-leef", format: "leef", lines: file(&folder.join("leef")) },
    ];
    let of_hec = hec.received(count).iter().map(|line| line["envelope"]["event"].to_string()).collect();
    all.push(Output { sink: "hec", format: "ocsf", lines: of_hec });
    let text = |line: &Value, key: &str| line[key].as_str().expect("a text").to_owned();
    let of_kafka = kafka.read("verdicts", count).iter().map(|record| text(record, "value")).collect();
    all.push(Output { sink: "kafka", format: "ocsf", lines: of_kafka });
    let of_webhook = webhook.stop().into_iter().map(|post| post.body).collect();
    all.push(Output { sink: "webhook", format: "ocsf", lines: of_webhook });
    let leef = |line: &str| line.split_once("LEEF:").map(|(_, leef)| format!("LEEF:{leef}")).expect("LEEF in a line");
    let of_qradar = qradar.stop().iter().flat_map(|post| post.body.lines().map(leef).collect::<Vec<_>>()).collect();
    all.push(Output { sink: "qradar", format: "leef", lines: of_qradar });
    let (at_rsyslog, at_syslog_ng) = (rsyslog.received(5 * count), syslog_ng.received(4 * count));
    assert_eq!((at_rsyslog.len(), at_syslog_ng.len()), (5 * count, 4 * count), "one frame or datagram an event");
    for (sink, format, received) in [
        ("r-plain", "ocsf", &at_rsyslog),
        ("r-cee", "ocsf", &at_rsyslog),
        ("r-arcsight", "cef", &at_rsyslog),
        ("r-old", "cef", &at_rsyslog),
        ("r-udp", "cef", &at_rsyslog),
        ("n-udp", "leef", &at_syslog_ng),
        ("n-qradar", "leef", &at_syslog_ng),
        ("n-ecs", "ecs", &at_syslog_ng),
        ("n-sentinel", "cef", &at_syslog_ng),
    ] {
        let of_sink = received.iter().filter(|line| line["host"] == sink);
        let lines = of_sink.map(|line| text(line, "msg").trim_start_matches(' ').to_owned()).collect();
        all.push(Output { sink, format, lines });
    }
    all
}

#[test]
fn hostile_file_names_change_no_frame_no_key_and_no_value_in_any_sink_and_format() {
    let names = names();
    assert!(names.len() >= 300, "{}", names.len());
    let peers = Peers {
        kafka: Kafka::start(),
        hec: Hec::start(true),
        rsyslog: Rsyslog::start(),
        syslog_ng: SyslogNg::start(),
        webhook: Receiver::start(0, |_| (200, "")),
        qradar: Receiver::start(0, |_| (200, "")),
    };
    peers.kafka.create_topic("verdicts", 1, &[]);
    let mut site = Site::new();
    site.more = sinks(site.folder.path(), &peers);
    site.output = Some(site.folder.path().join("console"));
    let (service, book) = (site.start(), Book::default());
    let mut sender = Sender::connect(service.receiver).expect("connects");
    for (number, name) in names.iter().enumerate() {
        book.post(&mut sender, &message(number, name));
        // Datagrams that come faster than they are read are lost.
        if number % 20 == 0 {
            for sink in ["r-udp", "n-udp"] {
                wait_until(sink, PATIENCE, || service.counts(sink).delivered == number as u64 + 1);
            }
        }
    }
    for sink in ALL {
        wait_until(sink, PATIENCE, || service.counts(sink).delivered == names.len() as u64);
    }
    for output in outputs(&site, names.len(), peers) {
        output.check(&names);
    }
    assert!(service.stop().0.success());
}
