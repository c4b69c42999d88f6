//! A syslog receiver that is killed, hangs and is killed, is restarted, or whose network drops everything: with the resend window
//! nothing that was acknowledged to a sender is missing in the end, and what came twice came with the same uid.
//!
//! The receiver is rsyslog, the service the real program. `VERDICT_RELAY_DROP` is how many seconds the network is silent (20; it has
//! to be more than the 15 after which a connection counts as dead). That test makes a network namespace and so needs root.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::peers::Rsyslog;
use crate::service::{Arrived, Book, Load, PATIENCE, Service, Site, run, wait_until};

/// A service whose one syslog sink sends OCSF to rsyslog.
fn site(address: &str, resend: &str, more: &str) -> Site {
    let mut site = Site::new();
    site.more = format!(
        "[sinks.siem]\ntype = \"syslog\"\nprofile = \"plain\"\naddress = \"{address}\"\nresend = {{ {resend} }}\nstart = \"earliest\"\n{more}\n"
    );
    site
}

fn tls_of(certificates: &Path) -> String {
    let file = |name: &str| certificates.join(name).display().to_string();
    format!(
        "tls = {{ ca = {:?}, certificate = {:?}, key = {:?}, server_name = \"localhost\" }}",
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    )
}

/// The events in rsyslog's file, in its order.
pub fn at(rsyslog: &Rsyslog) -> Arrived {
    let mut arrived = Arrived::default();
    for line in rsyslog.written() {
        let event = line["msg"].as_str().and_then(|text| serde_json::from_str::<Event>(text.trim()).ok());
        match event {
            Some(Event { metadata }) => arrived.events.push((metadata.original_event_uid, metadata.uid)),
            None => arrived.torn += 1,
        }
    }
    arrived
}

#[derive(Deserialize)]
struct Event {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    original_event_uid: String,
    uid: String,
}

/// Waits until rsyslog has written all that was acknowledged, and checks it: nothing missing, one uid each, in order by subject.
fn all_there(rsyslog: &Rsyslog, book: &Book) -> Arrived {
    let acknowledged = book.snapshot();
    let missing = |arrived: &Arrived| {
        let ids = arrived.ids();
        acknowledged.iter().filter(|id| !ids.contains(id.as_str())).count()
    };
    let until = std::time::Instant::now() + PATIENCE;
    let mut arrived = at(rsyslog);
    while missing(&arrived) > 0 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        arrived = at(rsyslog);
    }
    book.check(&arrived, &HashSet::new());
    arrived
}

/// Until the receiver is well again and everything went out once more.
fn is_well(service: &Service) -> bool {
    service.metric("verdict_relay_sink_state", &["sink=\"siem\"", "state=\"ok\""]) == 1
}

#[test]
fn a_receiver_that_is_killed_under_load_misses_nothing() {
    let mut rsyslog = Rsyslog::start();
    let site = site(&format!("tcp://127.0.0.1:{}", rsyslog.tcp), "time = \"30s\"", "");
    let (service, book) = (site.start(), Arc::new(Book::default()));
    let load = Load::start(service.receiver, 4, &book);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        rsyslog.kill();
        std::thread::sleep(Duration::from_millis(300));
        rsyslog.resume();
    }
    load.stop();
    all_there(&rsyslog, &book);
    wait_until("the sink is well", PATIENCE, || is_well(&service));
    service.counts("siem").assert_they_add_up();
    assert!(service.stop().0.success());
}

#[test]
fn a_receiver_that_hangs_and_is_killed_misses_nothing_and_nothing_counts_as_delivered_before() {
    for over_tls in [false, true] {
        let mut rsyslog = Rsyslog::start();
        let (address, tls) = if over_tls {
            (format!("tls://127.0.0.1:{}", rsyslog.tls), tls_of(&rsyslog.certificates()))
        } else {
            (format!("tcp://127.0.0.1:{}", rsyslog.tcp), String::new())
        };
        let site = site(&address, "time = \"12s\"", &tls);
        let (service, book) = (site.start(), Book::default());
        book.post_all(&service, 0, 0..10);
        all_there(&rsyslog, &book);
        rsyslog.freeze();
        book.post_all(&service, 1, 0..200);
        // Its kernel takes all of it, and nobody reads it.
        std::thread::sleep(Duration::from_secs(2));
        let counts = service.counts("siem");
        assert_eq!((counts.delivered, counts.pending), (0, 210), "over TLS: {over_tls}");
        rsyslog.kill();
        rsyslog.resume();
        let arrived = all_there(&rsyslog, &book);
        assert_eq!(arrived.torn, 0);
        service.counts("siem").assert_they_add_up();
        // Its own end is the receipt for what a good connection took.
        assert!(service.stop().0.success());
        let service = site.start();
        let counts = service.counts("siem");
        assert_eq!((counts.delivered, counts.pending), (210, 0), "each event settles once");
    }
}

/// So small that one fits into the buffer of a connection that nobody accepts.
const SMALL_BATCHES: &str = "batch = { events_max = 10 }";

#[test]
fn a_receiver_that_hangs_with_full_buffers_is_away_until_it_reads_again_and_the_log_says_so_once() {
    let rsyslog = Rsyslog::start();
    let site = site(&format!("tcp://127.0.0.1:{}", rsyslog.tcp), "time = \"1s\"", SMALL_BATCHES);
    let (service, book) = (site.start(), Arc::new(Book::default()));
    let load = Load::start(service.receiver, 4, &book);
    std::thread::sleep(Duration::from_secs(1));
    wait_until("the sink is well", PATIENCE, || is_well(&service));
    rsyslog.freeze();
    // A standstill is noticed after 15 s, and then a new connection is made, whose bytes the kernel takes. The state is to be steady.
    let mut states = vec![true];
    let mut watch = |patience: Duration, enough: usize| {
        let until = std::time::Instant::now() + patience;
        while std::time::Instant::now() < until && states.len() < enough {
            let now = is_well(&service);
            if states.last() != Some(&now) {
                states.push(now);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        states.clone()
    };
    assert_eq!(watch(Duration::from_secs(30), 2), [true, false], "it hangs");
    assert_eq!(watch(Duration::from_secs(6), 9), [true, false], "it still hangs");
    rsyslog.thaw();
    assert_eq!(watch(PATIENCE, 3), [true, false, true], "it reads again");
    load.stop();
    all_there(&rsyslog, &book);
    wait_until("all is settled", PATIENCE, || service.counts("siem").pending == 0);
    service.counts("siem").assert_they_add_up();
    let log = service.log();
    assert_eq!((log.matches("sink siem waits").count(), log.matches("sink siem is well again").count()), (1, 1));
    assert!(log.contains("does the receiver hang"), "{log}");
    assert!(service.stop().0.success());
}

#[test]
fn a_receiver_that_is_restarted_between_messages_misses_nothing() {
    let mut rsyslog = Rsyslog::start();
    let certificates = rsyslog.certificates();
    let site = site(&format!("tls://127.0.0.1:{}", rsyslog.tls), "time = \"1s\"", &tls_of(&certificates));
    let (service, book) = (site.start(), Book::default());
    for round in 0..5 {
        book.post_all(&service, round, 0..10);
        let sent = || at(&rsyslog).ids().len() == 10 * (round + 1);
        wait_until("they are written", PATIENCE, sent);
        rsyslog.end();
        rsyslog.resume();
    }
    book.post_all(&service, 9, 0..10);
    all_there(&rsyslog, &book);
    wait_until("all is settled", PATIENCE, || service.counts("siem").pending == 0);
    assert!(service.stop().0.success());
}

#[test]
fn a_clean_restart_of_the_service_sends_nothing_twice() {
    let rsyslog = Rsyslog::start();
    for (scheme, port, tls) in
        [("tcp", rsyslog.tcp, String::new()), ("tls", rsyslog.tls, tls_of(&rsyslog.certificates()))]
    {
        let before = at(&rsyslog).events.len();
        // Only the receiver's own end can settle anything within this test.
        let site = site(&format!("{scheme}://127.0.0.1:{port}"), "time = \"1h\"", &tls);
        let book = Book::default();
        for round in 0..3 {
            let service = site.start();
            book.post_all(&service, round, 0..50);
            let sent = || at(&rsyslog).events.len() - before >= 50 * (round + 1);
            wait_until("all is written", PATIENCE, sent);
            let (status, took) = service.stop();
            assert!(status.success() && took < Duration::from_secs(4), "{status}, {took:?}");
        }
        let service = site.start();
        let counts = service.counts("siem");
        assert_eq!((counts.delivered, counts.pending), (150, 0), "{scheme}");
        assert!(service.stop().0.success());
        assert_eq!(at(&rsyslog).events.len() - before, 150, "{scheme}: each came once");
    }
}

/// A network of two machines: this one, and a namespace that can be cut off without a word. Goes when it is dropped.
struct Network {
    namespace: String,
    link: String,
}

/// Addresses of a documentation network: nobody else's.
const HERE: &str = "203.0.113.1/30";
const THERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const THERE_MAC: &str = "02:00:00:00:00:02";

impl Network {
    fn new() -> Self {
        let id = std::process::id();
        let network = Self { namespace: format!("relay-{id}"), link: format!("relay{id}") };
        let (namespace, link) = (network.namespace.as_str(), network.link.as_str());
        run("ip", &["netns", "add", namespace]);
        run(
            "ip",
            &["link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", namespace, "address", THERE_MAC],
        );
        run("ip", &["addr", "add", HERE, "dev", link]);
        run("ip", &["link", "set", link, "up"]);
        run("ip", &["-n", namespace, "addr", "add", &format!("{THERE}/30"), "dev", "uplink"]);
        run("ip", &["-n", namespace, "link", "set", "uplink", "up"]);
        run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        // Its address in Ethernet stays known, or a silence would end with "no route" after a few seconds.
        run("ip", &["neigh", "replace", &THERE.to_string(), "lladdr", THERE_MAC, "dev", link, "nud", "permanent"]);
        network
    }

    /// Drops everything that goes there, without a word to anyone.
    fn is_silent(&self, silent: bool) {
        let address = THERE.to_string();
        let local = ["local", &address, "dev", "uplink", "table", "local"];
        let hole = ["blackhole", &address, "table", "local"];
        let (goes, comes): (&[&str], &[&str]) = if silent { (&local, &hole) } else { (&hole, &local) };
        let ip = |what: &str, route: &[&str]| run("ip", &[&["-n", &self.namespace, "route", what], route].concat());
        ip("del", goes);
        ip("add", comes);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link goes with its other end. A failure is one that the next test run would meet with words.
        let gone = |arguments: &[&str]| drop(std::process::Command::new("ip").args(arguments).status());
        gone(&["link", "del", &self.link]);
        gone(&["netns", "del", &self.namespace]);
    }
}

#[test]
fn a_network_that_drops_everything_for_a_while_loses_nothing() {
    let seconds = std::env::var("VERDICT_RELAY_DROP").map_or(20, |text| text.parse().expect("a number of seconds"));
    let network = Network::new();
    let rsyslog = Rsyslog::start_in(&network.namespace, THERE);
    // The time is short: what was not acknowledged stays all the same.
    let site = site(&format!("tcp://{THERE}:{}", rsyslog.tcp), "time = \"1s\"", "");
    let (service, book) = (site.start(), Arc::new(Book::default()));
    let load = Load::start(service.receiver, 2, &book);
    std::thread::sleep(Duration::from_secs(1));
    network.is_silent(true);
    std::thread::sleep(Duration::from_secs(2));
    load.stop();
    std::thread::sleep(Duration::from_secs(seconds - 3));
    assert!(!is_well(&service), "nobody answers");
    assert!(at(&rsyslog).ids().len() < book.acknowledged(), "the network was silent");
    network.is_silent(false);
    all_there(&rsyslog, &book);
    wait_until("all is settled", PATIENCE, || service.counts("siem").pending == 0);
    service.counts("siem").assert_they_add_up();
    assert!(service.stop().0.success());
}
