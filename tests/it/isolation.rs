//! A sink that is away delays nobody: senders get their answers, other sinks their events; when it is back it gets everything, fast.
//!
//! Away is a syslog server, killed and started again; not delayed is a file. `VERDICT_RELAY_AWAY=600` keeps it away for that many seconds.
//! From a minute on the project's own bars are asserted, for which `VERDICT_RELAY_PROGRAM` has to name a release build. A shorter run, which
//! shares its machine with others, asserts bounds far from them, and so does one of a debug build.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::peers::Rsyslog;
use crate::service::{Book, Message, PATIENCE, Sender, Service, Site, wait_until};
use crate::syslog_loss;

/// Events a second, as in the project's own bar.
const RATE: u32 = 500;
/// Each waits for its answer before it posts again, so one alone does not come to that rate.
const SENDERS: u32 = 8;
const AWAY: u64 = 8;
/// The median delay may grow by a tenth, and by what a machine with other things to do adds to any median of some milliseconds.
const NOISE: Duration = Duration::from_millis(2);

fn state(service: &Service, sink: &str, state: &str) -> u64 {
    service.metric("verdict_relay_sink_state", &[&format!("sink=\"{sink}\""), &format!("state=\"{state}\"")])
}

/// Posts its share of the rate until it is told to stop.
fn post(service: &Service, book: &Book, writer: usize, posted: &AtomicU64, stop: &AtomicBool) {
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let (began, mut number) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        book.post(&mut sender, &Message::new(writer, number));
        number += 1;
        posted.fetch_add(1, Ordering::Relaxed);
        let due = began + Duration::from_secs(1) * SENDERS * u32::try_from(number).expect("small") / RATE;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The median time from the answer to the arrival at the sink `local`, of messages in the middle of the load, for that long.
fn median_delay(site: &Site, service: &Service, book: &Book, writer: usize, at_least: Duration) -> Duration {
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let (began, mut delays) = (Instant::now(), Vec::new());
    while began.elapsed() < at_least || delays.len() < 40 {
        let message = Message::new(writer, delays.len() as u64);
        book.post(&mut sender, &message);
        let answered = Instant::now();
        let from = fs::metadata(&site.sink).map_or(0, |file| file.len()).saturating_sub(1 << 16);
        let id = format!("\"{}\"", message.id);
        while !written_since(&site.sink, from).contains(&id) {
            assert!(answered.elapsed() < PATIENCE, "{id} does not arrive");
            sleep(Duration::from_millis(1));
        }
        delays.push(answered.elapsed());
        // In no step with anything.
        sleep(Duration::from_millis(fastrand::u64(10..40)));
    }
    delays.sort();
    delays[delays.len() / 2]
}

fn written_since(path: &Path, from: u64) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes)).expect("readable");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn per_second(events: u64, within: Duration) -> f64 {
    f64::from(u32::try_from(events).expect("fewer than billions")) / within.as_secs_f64()
}

/// Waits until a sink that is back has caught up with the load, which goes on: how many events a second it got since the first of them.
///
/// An event counts here a second after it was taken, the first one as well as the last one: so that second is in no figure.
fn drain(service: &Service, sink: &str, patience: Duration) -> f64 {
    let before = service.counts(sink).delivered;
    wait_until("it is back", PATIENCE, || service.counts(sink).delivered > before);
    let (began, before) = (Instant::now(), service.counts(sink).delivered);
    loop {
        let counts = service.counts(sink);
        // What came within the last two seconds waits at a sink that keeps up.
        if counts.pending <= u64::from(2 * RATE) {
            return per_second(counts.delivered - before, began.elapsed());
        }
        assert!(began.elapsed() < patience, "{counts:?}: it does not catch up");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_sink_that_is_away_delays_nobody_and_drains_fast_when_it_is_back() {
    let away: u64 = std::env::var("VERDICT_RELAY_AWAY").map_or(AWAY, |text| text.parse().expect("seconds"));
    let (is_asked, is_long) = (std::env::var_os("VERDICT_RELAY_AWAY").is_some(), away >= 60);
    let mut rsyslog = Rsyslog::start();
    let mut site = Site::new();
    site.more = format!(
        "[sinks.late]\ntype = \"syslog\"\nprofile = \"plain\"\naddress = \"tcp://127.0.0.1:{}\"\nresend = {{ time = \"1s\" }}\nstart = \"earliest\"\n",
        rsyslog.tcp
    );
    let service = site.start();
    let (book, stop, posted) = (Arc::new(Book::default()), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (began, until) = (Instant::now(), Duration::from_secs(away));
        for writer in 0..SENDERS {
            let (service, book, stop, posted) = (&service, &book, &stop, &posted);
            scope.spawn(move || post(service, book, writer as usize, posted, stop));
        }
        sleep(Duration::from_secs(2));
        let sample = Duration::from_secs(if is_long { 20 } else { 2 });
        let before = median_delay(&site, &service, &book, 100, sample);
        rsyslog.kill();
        let gone_at = Instant::now();
        let during = median_delay(&site, &service, &book, 101, sample.max(until.saturating_sub(sample)));
        sleep(until.saturating_sub(gone_at.elapsed()));
        assert_eq!(state(&service, "late", "backoff"), 1, "{}", service.log());
        assert_eq!(state(&service, "local", "ok"), 1);
        let rate = per_second(posted.load(Ordering::Relaxed), began.elapsed());
        let (backlog, behind) = (service.counts("late").pending, service.counts("local").pending);
        rsyslog.resume();
        let drained = drain(&service, "late", PATIENCE + until);
        stop.store(true, Ordering::Relaxed);
        eprintln!(
            "{rate:.0} events/s; median delay at the other sink {before:?} before, {during:?} while one is away for {away} s; \
             {backlog} events waited for that one ({behind} for the other), and went out at {drained:.0} events/s, {:.1} times the arrival",
            drained / rate
        );
        assert!(!is_asked || rate >= 0.9 * f64::from(RATE), "the load is only {rate:.0} events/s");
        let is_release = std::env::var_os("VERDICT_RELAY_PROGRAM").is_some();
        let (times, slower) =
            if is_long && is_release { (5.0, before / 10 + NOISE) } else { (1.0, before + 25 * NOISE) };
        assert!(drained >= times * rate, "the drain is only {drained:.0} events/s, at an arrival of {rate:.0}");
        assert!(during <= before + slower, "the other sink is delayed: {during:?} instead of {before:?}");
    });
    for sink in ["local", "late"] {
        wait_until("a sink has all", PATIENCE, || service.counts(sink).pending == 0);
    }
    book.settle(&site, &service);
    book.check(&syslog_loss::at(&rsyslog), &std::collections::HashSet::new());
    service.counts("late").assert_they_add_up();
}
