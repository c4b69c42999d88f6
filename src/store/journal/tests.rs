//! The journal against crashes: cuts, flips, failures of the disk, every schedule of the group commit.

use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use proptest::prelude::*;

use super::segment::{FRAMES_AT, Scan, Step};
use super::writer::{Answer, Log, Outcome, Pending, Repeats, commit};
use super::*;
use crate::event::Name;
use crate::store::{Kind, Record};

fn options(folder: &Path) -> Options {
    Options { folder: folder.to_owned(), segment_bytes: 1 << 20, sequence_floor: 0 }
}

fn draft(body: &[u8]) -> Draft {
    Draft {
        kind: Kind::Delivery,
        source: "portal".parse().expect("a name"),
        at: Timestamp::from_second(1_774_267_200).expect("in range"),
        head: b"head:".to_vec(),
        body: Bytes::copy_from_slice(body),
        repeat: None,
    }
}

fn read_all(journal: &DiskJournal) -> (Vec<Record>, u64) {
    let mut reader = journal.reader(0);
    let (mut all, mut damaged) = (Vec::new(), 0);
    loop {
        let (records, tally) = reader.read(100, 1 << 20).expect("readable");
        damaged += tally.damaged;
        if records.is_empty() && tally.damaged == 0 {
            return (all, damaged);
        }
        all.extend(records);
    }
}

fn bodies(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(|record| record.stored["head:".len()..].to_vec()).collect()
}

/// The one file of the folder that is being written.
fn only_segment(folder: &Path) -> PathBuf {
    let mut segments: Vec<_> = fs::read_dir(folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    segments.pop().expect("there is one")
}

/// A copy of the folder as a crash would leave it: taken while the journal is open, so without a footer.
fn crashed_copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    let segment = only_segment(folder);
    fs::copy(&segment, copy.path().join(segment.file_name().expect("a file"))).expect("copied");
    copy
}

#[tokio::test]
async fn what_was_appended_is_read_back_in_order_over_segments_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut expected = Vec::new();
    for round in 0..3_u8 {
        let journal = DiskJournal::open(&options(folder.path())).expect("opens");
        for number in 0..9 {
            let body = vec![round * 16 + number; 200_000];
            journal.append(draft(&body)).await.expect("durable");
            expected.push(body);
        }
        let (records, damaged) = read_all(&journal);
        assert_eq!(damaged, 0);
        assert!(bodies(&records) == expected, "round {round}");
        assert!(records.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        assert!(journal.sealed().len() >= usize::from(round), "the segments are full after five records");
    }
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_first_ones_sequence_and_written_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    let repeated = Draft { repeat: Some([7; 16]), ..draft(b"a") };
    let other_source = Draft { source: "other".parse().expect("a name"), ..repeated.clone() };
    let answers = futures_util::future::join_all((0..20).map(|_| journal.append(repeated.clone()))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("durable")).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.repeat).count(), 1);
    assert!(answers.iter().all(|answer| answer.sequence == answers[0].sequence));
    assert!(!journal.append(other_source).await.expect("durable").repeat);
    assert_eq!(read_all(&journal).0.len(), 2);
}

#[tokio::test]
async fn every_cut_of_the_tail_keeps_exactly_the_whole_records_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    let mut ends = vec![FRAMES_AT];
    for number in 0..4_u8 {
        journal.append(draft(&[number; 21])).await.expect("durable");
        ends.push(journal.shared.segments().last().expect("one").end);
    }
    let copy = crashed_copy(folder.path());
    let whole = fs::read(only_segment(copy.path())).expect("readable");
    let end = usize::try_from(ends[4]).expect("small");
    for cut in usize::try_from(FRAMES_AT).expect("small")..=end {
        let mut bytes = whole.clone();
        bytes[cut..end].fill(0);
        fs::write(only_segment(copy.path()), &bytes).expect("written");
        let file = File::open(only_segment(copy.path())).expect("opens");
        let opened = segment::open(&only_segment(copy.path()), &file).expect("readable").expect("a header");
        let kept = ends.iter().filter(|end| **end <= cut as u64).max().expect("the first");
        // A frame's padding and empty tail are zeros as well: a cut there cuts nothing.
        assert!(opened.segment.end >= *kept && opened.segment.end <= ends[4], "cut {cut}");
        assert!(
            opened.segment.end == *kept
                || whole[cut..usize::try_from(opened.segment.end).expect("small")].iter().all(|b| *b == 0)
        );
    }
}

#[tokio::test]
async fn every_flipped_bit_costs_the_record_it_is_in_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    let mut ends = vec![FRAMES_AT];
    for number in 0..3_u8 {
        journal.append(draft(&[number; 21])).await.expect("durable");
        ends.push(journal.shared.segments().last().expect("one").end);
    }
    let copy = crashed_copy(folder.path());
    let path = only_segment(copy.path());
    let header = segment::Header::read(&File::open(&path).expect("opens")).expect("readable").expect("sound");
    let whole = fs::read(&path).expect("readable");
    for at in FRAMES_AT..ends[3] {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            let index = usize::try_from(at).expect("small");
            bytes[index] ^= 1 << bit;
            fs::write(&path, &bytes).expect("written");
            let file = File::open(&path).expect("opens");
            let mut scan = Scan::new(FRAMES_AT);
            let mut sequences = Vec::new();
            while let Some(step) = scan.next(&file, header.salt, ends[3]).expect("readable") {
                if let Step::Record(record) = step {
                    sequences.push(record.sequence);
                }
            }
            let hit = ends.windows(2).position(|pair| at < pair[1]).expect("within") as u64 + 1;
            let others: Vec<u64> = (1..=3).filter(|sequence| *sequence != hit).collect();
            // A flip in the padding or in a reserved byte that no checksum covers harms nothing.
            assert!(sequences == others || sequences == [1, 2, 3], "byte {at} bit {bit}: {sequences:?}");
        }
    }
}

#[tokio::test]
async fn a_frame_inside_a_body_is_never_taken_for_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    // A sender who knew our format, and even an old salt of ours, but not this segment's.
    let mut forged = vec![0; 3];
    segment::write_frame(&mut forged, 0, 0x1234_5678, 77, &draft(b"forged"));
    for shift in 0..8 {
        let mut body = vec![b'x'; shift];
        body.extend_from_slice(&forged);
        journal.append(draft(&body)).await.expect("durable");
    }
    let copy = crashed_copy(folder.path());
    let path = only_segment(copy.path());
    // The headers of all frames are damaged, so the scan looks at every byte of their bodies.
    let file = File::options().read(true).write(true).open(&path).expect("opens");
    let header = segment::Header::read(&file).expect("readable").expect("sound");
    let mut scan = Scan::new(FRAMES_AT);
    let mut places = Vec::new();
    let end = journal.shared.segments().last().expect("one").end;
    while scan.at < end {
        places.push(scan.at);
        scan.next(&file, header.salt, end).expect("readable");
    }
    for place in places {
        file.write_all_at(&[0xff], place + 9).expect("written");
    }
    let journal = DiskJournal::open(&options(copy.path())).expect("opens");
    assert!(read_all(&journal).0.is_empty());
}

#[tokio::test]
async fn damage_in_the_middle_is_counted_and_kept_and_the_rest_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    for number in 0..5_u8 {
        journal.append(draft(&[number; 100])).await.expect("durable");
    }
    drop(journal);
    let path = only_segment(folder.path());
    let file = File::options().write(true).open(&path).expect("opens");
    file.write_all_at(b"!", FRAMES_AT + 60).expect("written");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    let (records, damaged) = read_all(&journal);
    assert_eq!((records.len(), damaged, journal.damaged()), (4, 1, 1));
    let kept = path.with_extension(format!("{FRAMES_AT}.damaged"));
    assert!(fs::read(kept).expect("kept aside").len() > 100);
    journal.append(draft(b"goes on")).await.expect("durable");
    assert_eq!(read_all(&journal).0.len(), 5);
}

#[tokio::test]
async fn a_segment_without_a_header_is_set_aside_and_the_start_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    journal.append(draft(b"a")).await.expect("durable");
    drop(journal);
    let path = only_segment(folder.path());
    fs::write(&path, vec![0xee; 1 << 20]).expect("written");
    let journal = DiskJournal::open(&Options { sequence_floor: 40, ..options(folder.path()) }).expect("opens");
    assert_eq!(journal.damaged(), 1);
    let sequence = journal.append(draft(b"b")).await.expect("durable").sequence;
    assert!(sequence > 40 + 1, "no sequence is used twice, also none that only the damaged segment knew: {sequence}");
    assert_eq!(*journal.durable().borrow(), sequence);
}

#[tokio::test]
async fn pruning_takes_whole_segments_that_nobody_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    for _ in 0..12 {
        journal.append(draft(&vec![0; 200_000])).await.expect("durable");
    }
    let sealed = journal.sealed();
    assert_eq!(journal.prune(sealed[0].0).expect("removed"), 1);
    assert_eq!(journal.sealed().len(), sealed.len() - 1);
    let (records, damaged) = read_all(&journal);
    assert_eq!((records.first().expect("some").sequence, damaged), (sealed[0].0 + 1, 0));
}

#[tokio::test]
async fn who_keeps_up_reads_nothing_back_from_the_disk_and_who_does_not_reads_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    journal.append(draft(b"before there is a reader")).await.expect("durable");
    let mut reader = journal.reader(0);
    assert_eq!(reader.read(100, 1 << 20).expect("readable").0.len(), 1);
    journal.append(draft(b"kept")).await.expect("durable");
    // Nothing of it is on the disk any more.
    let path = only_segment(folder.path());
    let whole = fs::read(&path).expect("readable");
    let file = File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&vec![0; 8192], FRAMES_AT).expect("written");
    assert_eq!(bodies(&reader.read(100, 1 << 20).expect("readable").0), [b"kept"]);
    file.write_all_at(&whole, 0).expect("written");
    // More than is kept in memory: what came first is read from the files.
    for number in 0..60_u8 {
        journal.append(draft(&vec![number; 200_000])).await.expect("durable");
    }
    assert!(journal.shared.recent().bytes <= RECENT_BYTES_MAX);
    let mut rest = Vec::new();
    while let (records, _) = reader.read(7, 1 << 20).expect("readable")
        && !records.is_empty()
    {
        rest.extend(bodies(&records));
    }
    assert!(rest == (0..60).map(|number| vec![number; 200_000]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_store_refuses_and_takes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = DiskJournal::open(&options(folder.path())).expect("opens");
    journal.set_full(true);
    assert_eq!(journal.append(draft(b"a")).await, Err(AppendError::Full));
    journal.set_full(false);
    assert!(journal.append(draft(b"a")).await.is_ok());
    assert_eq!(journal.append(draft(&vec![0; 2 << 20])).await, Err(AppendError::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_in_place_of_the_frames_are_read_to_the_end(noise in prop::collection::vec(any::<u8>(), 0..4000)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("noise");
        fs::write(&path, &noise).expect("written");
        let file = File::open(&path).expect("opens");
        let mut scan = Scan::new(0);
        let limit = noise.len() as u64 / 8 * 8;
        while let Some(step) = scan.next(&file, 1, limit).expect("readable") {
            prop_assert!(matches!(step, Step::Damage { .. }), "noise was taken for a record");
        }
        prop_assert_eq!(scan.at, limit);
    }
}

/// The group commit itself under random schedules: what a reader sees, and what a client is told, was synced before.
#[test]
fn no_schedule_lets_an_answer_or_a_reader_overtake_the_sync() {
    use shuttle::sync::{Arc, Mutex, mpsc};

    #[derive(Default)]
    struct Disk {
        written: Mutex<u64>,
        synced: AtomicU64,
        visible: AtomicU64,
    }
    struct MemoryLog(Arc<Disk>);
    impl Log for MemoryLog {
        fn store(&mut self, drafts: &[&Draft]) -> Result<Vec<u64>, AppendError> {
            let mut written = self.0.written.lock().expect("not poisoned");
            let sequences = drafts
                .iter()
                .map(|_| {
                    *written += 1;
                    *written
                })
                .collect();
            let through = *written;
            drop(written);
            shuttle::thread::yield_now();
            self.0.synced.store(through, Ordering::SeqCst);
            Ok(sequences)
        }

        fn publish(&mut self) {
            let synced = self.0.synced.load(Ordering::SeqCst);
            shuttle::thread::yield_now();
            self.0.visible.store(synced, Ordering::SeqCst);
        }
    }
    struct Client(mpsc::Sender<Appended>);
    impl Answer for Client {
        fn answer(group: Vec<(Self, Outcome)>) {
            for (client, outcome) in group {
                client.0.send(outcome.expect("memory does not fail")).expect("the client waits");
            }
        }
    }

    shuttle::check_random(
        || {
            let disk = Arc::new(Disk::default());
            let (queue, requests) = mpsc::sync_channel::<Pending<Client>>(4);
            let clients: Vec<_> = (0..3_u8)
                .map(|number| {
                    let (queue, disk) = (queue.clone(), disk.clone());
                    shuttle::thread::spawn(move || {
                        let (answer, answered) = mpsc::channel();
                        let draft = Draft { repeat: Some([number / 2; 16]), ..draft(&[number]) };
                        queue.send(Pending { draft, bytes: 1, answer: Client(answer) }).expect("the writer runs");
                        let sequence = answered.recv().expect("answered").sequence;
                        assert!(sequence <= disk.synced.load(Ordering::SeqCst), "answered before it was synced");
                        assert!(disk.visible.load(Ordering::SeqCst) <= disk.synced.load(Ordering::SeqCst));
                    })
                })
                .collect();
            drop(queue);
            let writer = shuttle::thread::spawn({
                let disk = disk.clone();
                move || {
                    let (mut log, mut repeats) = (MemoryLog(disk), Repeats::default());
                    while let Ok(first) = requests.recv() {
                        let mut group = vec![first];
                        while let Ok(next) = requests.try_recv() {
                            group.push(next);
                        }
                        commit(&mut log, &mut repeats, group);
                    }
                }
            });
            for client in clients {
                client.join().expect("no assertion failed");
            }
            writer.join().expect("no assertion failed");
            assert_eq!(*disk.written.lock().expect("not poisoned"), 2, "two of the three are the same message");
        },
        2_000,
    );
}

#[test]
fn names_of_any_length_fit_a_frame() {
    let name: Name = "a".repeat(63).parse().expect("a name");
    let mut out = Vec::new();
    let long = Draft { source: name.clone(), ..draft(b"x") };
    segment::write_frame(&mut out, 0, 9, 1, &long);
    assert_eq!(out.len() as u64, segment::frame_bytes(&long));
}
