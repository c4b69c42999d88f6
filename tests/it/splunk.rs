//! A Splunk collector whose indexers acknowledge nothing, under load: nothing counts, memory stays as it is, and everything arrives once
//! they do.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::peers::Hec;
use crate::service::{Book, Load, PATIENCE, Site, wait_until};

/// Small batches: so the most that may wait for an acknowledgement do.
const BATCH: u64 = 20;
/// Most batches that wait for an acknowledgement.
const BATCHES_MAX: u64 = 256;
/// How long memory is looked at while none comes.
const SILENCE: Duration = Duration::from_secs(12);
/// What the service may grow by meanwhile: what the allocator and the ledger's bounded caches take; and for each event what every one costs
/// for a while, whatever the sinks do: its entries among the identities and among the proofs that may come again (0.4 KiB were measured with
/// this collector and with one that acknowledges). An event that was kept would be some 2 KiB as it is sent, and as much again as it is read.
const GROWTH_KIB: u64 = 24 << 10;
const GROWTH_BYTES_AN_EVENT: u64 = 1024;

/// What is read of a line of the collector.
#[derive(Deserialize)]
struct Line {
    envelope: Envelope,
}

#[derive(Deserialize)]
struct Envelope {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
    original_event_uid: String,
}

/// Our uid of each event that the collector has, by the provider's id, and how many came again.
fn arrived(hec: &Hec) -> (HashMap<String, String>, usize) {
    let (mut events, mut again) = (HashMap::new(), 0);
    for line in hec.written().lines() {
        let Line { envelope } = serde_json::from_str(line).expect("a line of the collector");
        let Metadata { uid, original_event_uid } = envelope.event.metadata;
        if let Some(first) = events.insert(original_event_uid, uid.clone()) {
            assert_eq!(first, uid, "one event with two identities");
            again += 1;
        }
    }
    (events, again)
}

#[test]
fn indexers_that_acknowledge_nothing_cost_no_memory_and_no_event_and_nothing_counts() {
    let hec = Hec::start(true);
    let (mut site, book) = (Site::new(), Arc::new(Book::default()));
    let token = site.folder.path().join("token");
    fs::write(&token, Hec::TOKEN).expect("written");
    site.more = format!(
        "[sinks.splunk]\ntype = \"splunk_hec\"\nendpoints = [{:?}]\ntokens = [\"file:{}\"]\nacks = \"required\"\ncompression = false\nstart = \"earliest\"\nbatch = {{ events_max = {BATCH} }}\n",
        hec.url(),
        token.display()
    );
    let service = site.start();
    let load = Load::start(service.receiver, 8, &book);
    // Each batch that is acknowledged lets one more be on the way.
    wait_until("the most batches may overlap", PATIENCE, || {
        service.counts("splunk").delivered > BATCH * (BATCHES_MAX + 20)
    });
    hec.steer("hold-acks", Some(""));
    // What was acknowledged before is on its way to us; and as many batches as may wait do.
    let known = book.acknowledged();
    wait_until("the most batches wait", PATIENCE, || book.acknowledged() > known + 5000);
    let (delivered, known, rss) = (service.counts("splunk").delivered, book.acknowledged(), service.rss_kib());
    let (began, mut most) = (Instant::now(), rss);
    while began.elapsed() < SILENCE {
        most = most.max(service.rss_kib());
        sleep(Duration::from_millis(100));
    }
    let (counts, events) = (service.counts("splunk"), (book.acknowledged() - known) as u64);
    load.stop();
    assert_eq!((counts.delivered, counts.dead), (delivered, 0), "nothing counts without its acknowledgement");
    let taken = hec.written().lines().count() as u64 - delivered;
    eprintln!(
        "{events} events came while none was acknowledged, {} wait, {taken} are at the collector; memory grew from {rss} by {} KiB",
        counts.pending,
        most - rss
    );
    assert!(taken <= BATCHES_MAX * BATCH, "{taken} events are at the collector");
    let bound = GROWTH_KIB + events * GROWTH_BYTES_AN_EVENT / 1024;
    assert!(most - rss <= bound, "memory grew by {} KiB; at most {bound}", most - rss);
    hec.steer("hold-acks", None);
    wait_until("all is acknowledged", PATIENCE, || service.counts("splunk").pending == 0);
    let (arrived, again) = arrived(&hec);
    let missing = book.snapshot().into_iter().filter(|id| !arrived.contains_key(id)).count();
    assert_eq!(missing, 0, "of {}", book.acknowledged());
    let counts = service.counts("splunk");
    counts.assert_they_add_up();
    assert_eq!((counts.delivered, counts.dead), (arrived.len() as u64, 0));
    eprintln!("{} events arrived, {again} came again", arrived.len());
}
