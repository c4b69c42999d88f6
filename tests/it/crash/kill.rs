//! The process is killed, stopped, started twice, or started with much left to do.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::service::{Book, Load, Message, PATIENCE, Sender, Site, arrived, signed, wait_until};

/// Longest time from the start of the process to the first good answer of `/readyz`.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// How often the process is killed: `VERDICT_RELAY_KILLS=1000` for the long run.
fn kills() -> usize {
    std::env::var("VERDICT_RELAY_KILLS").map_or(50, |number| number.parse().expect("VERDICT_RELAY_KILLS is a number"))
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let mut service = site.start();
    let load = Load::start(service.receiver, 16, &book);
    let mut slowest = Duration::ZERO;
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_millis(fastrand::u64(5..500)));
        service.kill();
        service = site.start();
        load.moved_to(&service);
        slowest = slowest.max(service.ready_after);
        assert!(service.ready_after < READY_WITHIN, "ready only after {:?}", service.ready_after);
    }
    load.stop();
    let arrived = book.settle(&site, &service);
    println!(
        "{} kills: {} acknowledged, {} arrived, {} of them again, {} torn lines, ready within {slowest:?}",
        kills(),
        book.acknowledged(),
        arrived.ids().len(),
        arrived.repeated(),
        arrived.torn
    );
    assert!(book.acknowledged() > 5 * kills(), "the load was no load");
}

#[test]
fn told_to_stop_under_load_it_ends_in_time_and_delivers_nothing_twice() {
    let (site, book) = (Site::new(), Arc::new(Book::default()));
    let mut service = site.start();
    let load = Load::start(service.receiver, 16, &book);
    for _ in 0..3 {
        wait_until("messages are acknowledged", PATIENCE, || book.acknowledged() > 100);
        // Somebody who never finishes what he began to send.
        let mut half = Sender::connect(service.receiver).expect("connects");
        let request = signed(&Message::new(99, 0));
        half.send(&request[..request.len() - 10]).expect("sent");
        std::thread::sleep(Duration::from_millis(300));
        let (status, took) = service.stop();
        assert!(status.success() && took < STOPPED_WITHIN, "{status} after {took:?}");
        assert_eq!(half.answer().expect("it is told").status, 503);
        service = site.start();
        load.moved_to(&service);
    }
    load.stop();
    let arrived = book.settle(&site, &service);
    assert_eq!((arrived.repeated(), arrived.torn), (0, 0), "batches in flight are settled before the end");
}

/// Longest time from SIGTERM to the end: whoever supervises the service gives it at least ten seconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn a_second_service_on_the_same_store_is_refused_and_told_who_has_it() {
    let (site, book) = (Site::new(), Book::default());
    let first = site.start();
    let began = Instant::now();
    let Err((status, log)) = site.try_start() else { panic!("two services share a store") };
    assert!(!status.success() && began.elapsed() < READY_WITHIN, "{status} after {:?}", began.elapsed());
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");
    book.post_all(&first, 0, 0..10);
    book.settle(&site, &first);
}

/// Most memory of the process, whatever the backlog.
const RSS_MIB_MAX: u64 = 200;
/// Events of one message of the backlog.
const EVENTS_EACH: usize = 500;

/// How many events wait: `VERDICT_RELAY_BACKLOG=1000000` for the long run.
fn backlog() -> usize {
    std::env::var("VERDICT_RELAY_BACKLOG")
        .map_or(50_000, |number| number.parse().expect("VERDICT_RELAY_BACKLOG is a number"))
}

#[test]
fn a_large_backlog_neither_delays_the_start_nor_fills_the_memory() {
    let mut site = Site::new();
    // A file in a folder that is not there yet: the sink waits, and everything stays pending.
    let folder = site.folder.path().join("later");
    site.sink = folder.join("verdicts.ndjson");
    let service = site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    for number in 0..backlog() / EVENTS_EACH {
        let answer = sender.post(&list(number)).expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let all = u64::try_from(backlog() / EVENTS_EACH * EVENTS_EACH).expect("fits");
    wait_until("all is normalized", PATIENCE * 10, || service.counts("local").entered == all);
    let while_filled = service.rss_peak_mib();
    service.kill();
    let service = site.start();
    let (ready_after, at_start) = (service.ready_after, service.rss_peak_mib());
    assert_eq!(service.counts("local").pending, all);
    fs::create_dir(&folder).expect("made");
    let began = Instant::now();
    wait_until("all is delivered", PATIENCE * 10, || service.counts("local").pending == 0);
    let while_drained = service.rss_peak_mib();
    println!(
        "{all} events: ready after {ready_after:?}; most MiB: {while_filled} filled, {at_start} started, {while_drained} drained; drained in {:?}",
        began.elapsed()
    );
    assert_eq!(arrived(&site.sink).ids().len() as u64, all);
    assert!(ready_after < READY_WITHIN, "ready only after {ready_after:?}");
    assert!(while_filled.max(at_start).max(while_drained) < RSS_MIB_MAX, "more than {RSS_MIB_MAX} MiB");
}

/// A message with many events.
fn list(number: usize) -> Message {
    let events: Vec<_> = (0..EVENTS_EACH)
        .map(|index| {
            let id = format!("l{number:05}-{index:04}");
            json!({ "id": id, "subject": { "message_id": id }, "verdict": "clean", "analysed_at": "2026-03-23T12:00:00Z" })
        })
        .collect();
    Message { id: format!("list-{number}"), body: serde_json::to_vec(&events).expect("JSON") }
}
