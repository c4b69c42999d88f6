//! A sink that is away delays nobody: senders get their answers, other sinks their events; when it is back it gets everything, fast.
//!
//! `VERDICT_RELAY_AWAY=600` keeps it away for that many seconds; a figure is printed, and only a bound far from it is asserted.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::service::{Book, Message, PATIENCE, Sender, Service, Site, arrived, wait_until};

/// Events a second, as in the project's own bar.
const RATE: u32 = 500;
const AWAY: u64 = 6;

fn state(service: &Service, sink: &str, state: &str) -> u64 {
    service.metric("verdict_relay_sink_state", &[&format!("sink=\"{sink}\""), &format!("state=\"{state}\"")])
}

/// Posts at a steady rate until it is told to stop; how many.
fn post(service: &Service, book: &Book, writer: usize, stop: &AtomicBool) -> u64 {
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let (began, mut number) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        book.post(&mut sender, &Message::new(writer, number));
        number += 1;
        let due = began + Duration::from_secs(1) * u32::try_from(number).expect("small") / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    number
}

/// Times from the answer to the arrival at the sink `local` of some messages, in the middle of the load.
fn median_delay(site: &Site, service: &Service, book: &Book, writer: usize) -> Duration {
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let mut delays: Vec<Duration> = (0..40)
        .map(|number| {
            let message = Message::new(writer, number);
            book.post(&mut sender, &message);
            let answered = Instant::now();
            let from = fs::metadata(&site.sink).map_or(0, |file| file.len()).saturating_sub(1 << 16);
            let id = format!("\"{}\"", message.id);
            while !written_since(&site.sink, from).contains(&id) {
                assert!(answered.elapsed() < PATIENCE, "{id} does not arrive");
                std::thread::sleep(Duration::from_millis(1));
            }
            answered.elapsed()
        })
        .collect();
    delays.sort();
    delays[delays.len() / 2]
}

fn written_since(path: &Path, from: u64) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes)).expect("readable");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_sink_that_is_away_delays_nobody_and_drains_fast_when_it_is_back() {
    let away: u64 = std::env::var("VERDICT_RELAY_AWAY").map_or(AWAY, |text| text.parse().expect("seconds"));
    let mut site = Site::new();
    let folder = site.folder.path().join("away");
    let path = folder.join("late.ndjson");
    site.more = format!("[sinks.late]\ntype = \"file\"\npath = {path:?}\nstart = \"earliest\"\n");
    fs::create_dir(&folder).expect("made");
    let service = site.start();
    let (book, stop) = (Arc::new(Book::default()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| post(&service, &book, 0, &stop));
        let before = median_delay(&site, &service, &book, 1);
        // Gone, and in its place what no file can be opened under.
        fs::rename(&folder, folder.with_extension("gone")).expect("moved");
        fs::write(&folder, "").expect("written");
        let gone_at = Instant::now();
        let during = median_delay(&site, &service, &book, 2);
        std::thread::sleep(Duration::from_secs(away).saturating_sub(gone_at.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let posted = load.join().expect("every message was answered with 202");
        eprintln!("{posted} events; median delay at the other sink {before:?} before, {during:?} while one is away");
    });
    wait_until("the other sink has all", PATIENCE, || service.counts("local").pending == 0);
    book.settle(&site, &service);
    let waiting = service.counts("late").pending;
    if waiting > 0 {
        assert_eq!(state(&service, "late", "backoff") + state(&service, "late", "paused"), 1, "{}", service.log());
    }
    fs::remove_file(&folder).expect("removed");
    fs::rename(folder.with_extension("gone"), &folder).expect("moved");
    let before = service.counts("late").pending;
    wait_until("it is back", PATIENCE, || service.counts("late").pending < before);
    let began = Instant::now();
    wait_until("it has all", PATIENCE, || service.counts("late").pending == 0);
    let took = began.elapsed();
    eprintln!("{before} events waited for the sink that was away and were there within {took:?} of the first");
    assert!(took < Duration::from_secs(away), "the drain is slower than the arrival: {before} events in {took:?}");
    book.check(&arrived(&path), &std::collections::HashSet::new());
    service.counts("late").assert_they_add_up();
}
