//! The bytes on disk are damaged while the service is down: it starts all the same, what is damaged is missing and counted, and
//! nothing else is.
//!
//! The store is damaged from outside. What these tests know of a segment is that a body stands in it as it was sent.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::service::{Book, Message, PATIENCE, Sender, Service, Site, wait_until};

/// Records of the journal that is damaged.
const RECORDS: u64 = 24;

/// A store that holds these records only in its journal: the ledger has seen none of them.
struct Journal {
    site: Site,
    book: Book,
}

impl Journal {
    fn new() -> Self {
        let (mut site, book) = (Site::new(), Book::default());
        site.arguments = vec!["--roles".to_owned(), "receive".to_owned()];
        let service = site.start();
        book.post_all(&service, 0, 0..RECORDS);
        service.kill();
        site.arguments.clear();
        Self { site, book }
    }

    /// The one segment, and where the body of each record begins and ends in it.
    fn segment(&self) -> (PathBuf, Vec<u8>, Vec<(usize, usize)>) {
        let path = self.site.segments().pop().expect("one");
        let bytes = fs::read(&path).expect("readable");
        let places = (0..RECORDS).map(|number| {
            let body = Message::new(0, number).body;
            let at = bytes.windows(body.len()).position(|window| window == body).expect("stored as it was sent");
            (at, at + body.len())
        });
        let places = places.collect();
        (path, bytes, places)
    }

    /// Starts a service on a copy of the store in which the last segment is `bytes`, and lets it deliver.
    fn restarted_with(&self, bytes: &[u8]) -> (Site, Service) {
        let site = Site::new();
        copy(&self.site.store, &site.store);
        fs::write(site.segments().pop().expect("one"), bytes).expect("written");
        let service = site.start();
        (site, service)
    }

    /// Starts on a damaged copy: exactly the `lost` records are missing, and counted; new messages come through; the next start, too.
    fn assert_costs(&self, what: &str, bytes: &[u8], lost: &[u64]) {
        let (site, service) = self.restarted_with(bytes);
        self.book.post(&mut Sender::connect(service.receiver).expect("connects"), &Message::new(1, 0));
        let expected: HashSet<String> = (0..RECORDS)
            .filter(|number| !lost.contains(number))
            .map(|number| Message::new(0, number).id)
            .chain([Message::new(1, 0).id])
            .collect();
        wait_until(&format!("{what}: all that is left has arrived"), PATIENCE, || {
            let arrived = site.arrived();
            arrived.ids().len() >= expected.len() && service.counts("local").pending == 0
        });
        let arrived = site.arrived();
        let ids: HashSet<String> = arrived.ids().into_iter().map(str::to_owned).collect();
        assert_eq!(ids, expected, "{what}");
        let counted = service.metric("verdict_relay_store_corrupt_records_total", &[]);
        assert_eq!(counted, lost.len() as u64, "{what}: counted");
        service.counts("local").assert_they_add_up();
        service.kill();
        let service = site.start();
        service.counts("local").assert_they_add_up();
        assert_eq!(site.arrived().ids().len(), expected.len(), "{what}: after another start");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else if entry.file_name() != "reserve" {
            fs::copy(&path, &copied).expect("copied");
        }
    }
}

#[test]
fn a_journal_that_is_cut_anywhere_in_its_last_record_loses_that_record_only() {
    let journal = Journal::new();
    let (_, bytes, places) = journal.segment();
    let (before, last) = (places[places.len() - 2], places[places.len() - 1]);
    // The frame ends with zeros up to a multiple of eight.
    let frame = before.1.next_multiple_of(8);
    let mut cuts: Vec<_> = (frame..last.1).step_by((last.1 - frame) / 12).collect();
    cuts.extend([frame + 1, frame + 4, frame + 39, frame + 40, last.0, last.1 - 1]);
    for cut in cuts {
        journal.assert_costs(&format!("cut at {cut}"), &bytes[..cut], &[RECORDS - 1]);
    }
}

#[test]
fn flipped_bits_cost_the_record_they_are_in() {
    let journal = Journal::new();
    let (_, bytes, places) = journal.segment();
    let frame = |number: usize| if number == 0 { 4096 } else { places[number - 1].1.next_multiple_of(8) };
    // The last record, one in the middle, and the first: in the marker, the checksums, the sequence, the length, the evidence, the body.
    for number in [23, 12, 0] {
        let body = places[number].0 - frame(number);
        for offset in [0, 5, 9, 24, 33, 45, 60, body, body + 100] {
            let mut damaged = bytes.clone();
            damaged[frame(number) + offset] ^= 1 << (offset % 8);
            journal.assert_costs(&format!("record {number}, byte {offset}"), &damaged, &[number as u64]);
        }
    }
}

#[test]
fn a_damaged_page_costs_the_records_on_it_and_a_damaged_header_none() {
    let journal = Journal::new();
    let (_, bytes, places) = journal.segment();
    let mut header = bytes.clone();
    header[..4096].fill(0);
    journal.assert_costs("the first page", &header, &[]);
    let mut tail = bytes.clone();
    let end = bytes.len();
    tail[end - 100..].fill(0xee);
    journal.assert_costs("the end of the file", &tail, &[]);
    let mut page = bytes.clone();
    let (from, to) = (8192, 12288);
    page[from..to].fill(0);
    let on_page = |number: &u64| {
        let index = usize::try_from(*number).expect("small");
        let begin = if index == 0 { 4096 } else { places[index - 1].1.next_multiple_of(8) };
        begin < to && places[index].1 > from
    };
    let lost: Vec<_> = (0..RECORDS).filter(on_page).collect();
    assert!((2..RECORDS).contains(&(lost.len() as u64)), "{lost:?}");
    journal.assert_costs("a page of frames", &page, &lost);
}

#[test]
fn a_body_that_holds_frames_is_never_taken_for_records() {
    let mut journal = Journal::new();
    // A sender who has our very files: the bytes of this segment as a body, at every offset to its frame.
    let (path, bytes, places) = journal.segment();
    let stolen = &bytes[4096..places[places.len() - 1].1.next_multiple_of(8)];
    journal.site.arguments = vec!["--roles".to_owned(), "receive".to_owned()];
    let service = journal.site.start();
    let mut sender = Sender::connect(service.receiver).expect("connects");
    for shift in 0..8 {
        let mut body = vec![b' '; shift];
        body.extend_from_slice(stolen);
        let answer = sender.post(&Message { id: format!("stolen-{shift}"), body }).expect("an answer");
        assert_eq!(answer.status, 202);
    }
    journal.book.post(&mut sender, &Message::new(2, 0));
    service.kill();
    let damaged = fs::read(&path).expect("readable");
    // The true records, and the headers around the stolen ones.
    let file = File::options().write(true).open(&path).expect("opens");
    let copies: Vec<_> =
        damaged.windows(64).enumerate().filter(|(_, w)| *w == &stolen[..64]).map(|(at, _)| at).collect();
    assert_eq!(copies.len(), 9, "the true ones and eight copies");
    file.write_all_at(&vec![0; stolen.len()], 4096).expect("written");
    for copy in &copies[1..] {
        file.write_all_at(&[0; 200], u64::try_from(copy - 200).expect("small")).expect("written");
    }
    journal.site.arguments.clear();
    let service = journal.site.start();
    journal.book.post(&mut sender_to(&service), &Message::new(1, 0));
    wait_until("what came after the damage is there", PATIENCE, || journal.site.arrived().events.len() >= 2);
    wait_until("nothing is pending", PATIENCE, || service.counts("local").pending == 0);
    let arrived = journal.site.arrived();
    assert_eq!(arrived.ids(), HashSet::from([Message::new(1, 0).id.as_str(), Message::new(2, 0).id.as_str()]));
    assert_eq!(service.metric("verdict_relay_store_corrupt_records_total", &[]), RECORDS + 8);
    service.counts("local").assert_they_add_up();
}

fn sender_to(service: &Service) -> Sender {
    Sender::connect(service.receiver).expect("connects")
}

#[test]
fn a_damaged_or_lost_ledger_is_rebuilt_and_sinks_go_on_where_they_were() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("lost", |ledger| fs::remove_file(ledger).expect("removed")),
        ("lost with its log", |ledger| {
            fs::remove_file(ledger).expect("removed");
            let _folded_in = fs::remove_file(ledger.with_extension("db-wal"));
        }),
        ("empty", |ledger| fs::write(ledger, b"").expect("written")),
        ("cut in half", |ledger| {
            let file = File::options().write(true).open(ledger).expect("opens");
            file.set_len(file.metadata().expect("there").len() / 2).expect("cut");
        }),
        ("garbage", |ledger| {
            let garbage: Vec<u8> =
                (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            fs::write(ledger, garbage).expect("written");
        }),
        ("a page in the middle zeroed", |ledger| zero(ledger, 2)),
        ("its last page zeroed", |ledger| zero(ledger, 1)),
    ];
    for (what, damage) in damages {
        let (site, book) = (Site::new(), Book::default());
        let service = site.start();
        book.post_all(&service, 0, 0..300);
        book.settle(&site, &service);
        let (status, _) = service.stop();
        assert!(status.success(), "{what}");
        // What is damaged is the file: after a clean stop the log beside it is folded into it.
        damage(&site.store.join("ledger.db"));
        let service = restarted(&site);
        book.post_all(&service, 1, 0..30);
        let arrived = book.settle(&site, &service);
        assert_eq!(arrived.repeated(), 0, "{what}: nothing comes twice");
        assert_eq!(service.counts("local").delivered, 330, "{what}");
        // And once more after a crash, with what the ledger holds now.
        service.kill();
        let service = restarted(&site);
        let arrived = book.settle(&site, &service);
        assert_eq!(arrived.repeated(), 0, "{what}: nothing comes twice after another start");
    }
}

/// Zeroes the page at the end of each `1/share` of the file.
fn zero(ledger: &Path, share: u64) {
    const PAGE: u64 = 16 << 10;
    let file = File::options().write(true).open(ledger).expect("opens");
    let pages = file.metadata().expect("there").len() / PAGE;
    assert!(pages > 4, "{pages} pages");
    file.write_all_at(&vec![0; usize::try_from(PAGE).expect("small")], (pages / share - 1) * PAGE).expect("written");
}

/// Starts the service as whoever supervises it would: where it finds damage it ends with words, and its next start repairs it.
fn restarted(site: &Site) -> Service {
    for _ in 0..3 {
        match site.try_start() {
            Ok(mut service) => {
                std::thread::sleep(Duration::from_millis(300));
                if !service.has_ended() {
                    return service;
                }
            }
            Err((_, log)) => assert!(log.contains("restart the service"), "{log}"),
        }
    }
    panic!("the service does not stay up");
}
