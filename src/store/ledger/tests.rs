//! The ledger over restarts, damage and loss.

use std::os::unix::fs::FileExt;

use super::*;
use crate::event::{Activity, Auth, Finding, Hash, Standing, Subject, SubjectId, Uid, Verdict};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn event(number: u8) -> Event {
    let at = Timestamp::from_second(1_774_267_200 + i64::from(number)).expect("in range");
    Event {
        uid: Hash([number; 16]),
        source: name("portal"),
        provider: "Native".to_owned(),
        auth: Auth::Signature,
        received_at: at,
        effective_at: at,
        clock_suspect: false,
        raw_sha256: Hash([0; 32]),
        raw_size: 1,
        finding: Finding::new(Subject::of(SubjectId::Message(number.to_string())), Verdict::Clean),
        activity: Activity::Scan,
        standing: Standing::Latest,
        previous: None,
        again: None,
        corrects: None,
        topic: crate::event::Topic::Verdict,
    }
}

/// Adds events 1 to `count`, each at the position of its number, as normalize would.
fn fill(ledger: &Ledger, count: u8) {
    put(ledger, 1..=count);
}

fn put(ledger: &Ledger, numbers: std::ops::RangeInclusive<u8>) {
    let count = *numbers.end();
    ledger
        .transact(|transaction| {
            for number in numbers {
                let position = Position::new(number.into(), 0);
                let event = event(number);
                transaction.claim(event.uid, position)?;
                transaction.put_event(position, None, event)?;
            }
            transaction.set_sequence(count.into(), event(count).received_at);
            Ok(())
        })
        .expect("committed");
}

fn positions(ledger: &Arc<Ledger>, after: u64) -> Vec<u64> {
    let reader = ledger.reader().expect("opens");
    let events = reader.events_after(Position::new(after, 0), &name("a"), 100, 1 << 20).expect("readable");
    events.iter().map(|stored| stored.position.sequence()).collect()
}

#[test]
fn events_are_read_in_order_from_memory_and_from_disk_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 5);
    assert_eq!(positions(&ledger, 2), [3, 4, 5]);
    drop(ledger);
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    assert_eq!(positions(&ledger, 2), [3, 4, 5]);
    assert_eq!(*ledger.head().borrow(), Head { position: Position::new(5, 0), ordinal: 5, sequence: 5 });
    assert_eq!(ledger.sequence_floor(), 5);
}

#[test]
fn an_event_for_one_sink_reaches_no_other_and_counts_for_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 1);
    let redriven =
        |transaction: &mut Transaction<'_>| transaction.put_event(Position::new(2, 0), Some(&name("b")), event(1));
    ledger.transact(redriven).expect("committed");
    assert_eq!(positions(&ledger, 0), [1]);
    let reader = ledger.reader().expect("opens");
    assert_eq!(reader.events_after(Position::default(), &name("b"), 100, 1 << 20).expect("readable").len(), 2);
    assert_eq!(ledger.head().borrow().ordinal, 1);
}

#[test]
fn an_identity_is_known_within_the_transaction_after_it_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    let known =
        |ledger: &Ledger, uid: Uid| ledger.transact(|transaction| transaction.position_of(uid)).expect("readable");
    fill(&ledger, 2);
    assert_eq!(known(&ledger, event(2).uid), Some(Position::new(2, 0)));
    let mut sharing_a_prefix = event(2).uid;
    sharing_a_prefix.0[15] ^= 1;
    assert_eq!(known(&ledger, sharing_a_prefix), None);
    let rolled_back: Result<(), _> = ledger.transact(|transaction| {
        transaction.claim(event(9).uid, Position::new(9, 0))?;
        assert_eq!(transaction.position_of(event(9).uid)?, Some(Position::new(9, 0)));
        Err(LedgerError::Full)
    });
    assert!(rolled_back.is_err());
    assert_eq!(known(&ledger, event(9).uid), None);
    drop(ledger);
    let ledger = Ledger::open(folder.path()).expect("opens");
    assert_eq!(known(&ledger, event(1).uid), Some(Position::new(1, 0)));
}

#[test]
fn a_damaged_file_is_set_aside_and_the_cursors_go_on_where_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    fill(&ledger, 5);
    let cursor = Cursor { position: Position::new(4, 0), ordinal: 4, delivered: 3, dead: 1, ..Cursor::default() };
    ledger.transact(|transaction| transaction.put_cursor(&name("a"), &cursor)).expect("committed");
    ledger.save_mirror().expect("written");
    drop(ledger);
    fs::write(folder.path().join("ledger.db"), b"no database at all").expect("written");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens all the same"));
    assert!(ledger.rebuilt());
    assert_eq!(ledger.head().borrow().sequence, 0, "everything is read from the journal again");
    assert_eq!(ledger.sequence_floor(), 5, "and no sequence is used again");
    let cursors = |ledger: &Arc<Ledger>| ledger.reader().expect("opens").cursors().expect("readable");
    let counts = |ledger: &Arc<Ledger>| {
        let (cursor, head) = (cursors(ledger).remove(0).1, *ledger.head().borrow());
        (cursor.position.sequence(), cursor.entered(head.ordinal), head.ordinal - cursor.ordinal)
    };
    assert_eq!(counts(&ledger), (4, 4, 0), "what is settled stays settled");
    fill(&ledger, 5);
    assert_eq!(cursors(&ledger), [(name("a"), cursor)], "all events are there again, and the count is what it was");
    drop(ledger);
    // Lost rather than damaged is the same. Half of the journal is gone, too.
    fs::remove_file(folder.path().join("ledger.db")).expect("removed");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    put(&ledger, 3..=5);
    assert_eq!(counts(&ledger), (4, 5, 1), "settled and pending are what came up");
    put(&ledger, 6..=7);
    assert_eq!(counts(&ledger), (4, 7, 3));
}

#[test]
fn a_cursor_whose_row_is_damaged_comes_back_from_the_mirror() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    fill(&ledger, 5);
    let cursor = Cursor { position: Position::new(2, 0), ordinal: 2, delivered: 2, ..Cursor::default() };
    ledger.transact(|transaction| transaction.put_cursor(&name("a"), &cursor)).expect("committed");
    ledger.save_mirror().expect("written");
    drop(ledger);
    let connection = Connection::open(folder.path().join("ledger.db")).expect("opens");
    // One digit of the position.
    let flip = "UPDATE cursors SET cursor = CAST(replace(CAST(cursor AS TEXT), '2097152', '9097152') AS BLOB)";
    assert_eq!(connection.execute(flip, []).expect("updated"), 1);
    drop(connection);
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    assert_eq!(ledger.reader().expect("opens").cursors().expect("readable"), [(name("a"), cursor)]);
}

#[test]
fn either_slot_of_the_mirror_may_be_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    for sequence in 1..=2 {
        put(&ledger, sequence..=sequence);
        ledger.save_mirror().expect("written");
    }
    for (slot, expected) in [(0, 1), (1, 2)] {
        let folder_copy = tempfile::tempdir().expect("a folder");
        let copy = folder_copy.path().join("cursors");
        fs::copy(folder.path().join("cursors"), &copy).expect("copied");
        let copied = fs::File::options().write(true).open(&copy).expect("opens");
        copied.write_all_at(b"????", slot * (32 << 10) + 20).expect("written");
        assert_eq!(Mirror::open(folder_copy.path()).expect("readable").sequence(), expected, "slot {slot}");
    }
}

#[test]
fn a_damaged_event_has_its_place_and_no_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 3);
    drop(ledger);
    let connection = Connection::open(folder.path().join("ledger.db")).expect("opens");
    connection.execute("UPDATE events SET event = zeroblob(length(event)) WHERE ordinal = 2", []).expect("updated");
    drop(connection);
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let reader = ledger.reader().expect("opens");
    let events = reader.events_after(Position::default(), &name("a"), 100, 1 << 20).expect("readable");
    let sound: Vec<bool> = events.iter().map(|stored| stored.event.is_some()).collect();
    assert_eq!(sound, [true, false, true]);
}

#[test]
fn a_newer_format_is_refused_before_anything_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = Connection::open(folder.path().join("ledger.db")).expect("opens");
    connection.pragma_update(None, "user_version", FORMAT + 1).expect("written");
    drop(connection);
    assert!(matches!(Ledger::open(folder.path()), Err(LedgerError::Format { found }) if found == FORMAT + 1));
    assert!(folder.path().join("ledger.db").exists());
}

#[test]
fn a_ledger_of_the_first_format_is_taken_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 2);
    drop(ledger);
    let connection = Connection::open(folder.path().join("ledger.db")).expect("opens");
    connection
        .execute_batch(
            "ALTER TABLE dead_letters DROP COLUMN attempt; DROP TABLE jobs; DROP TABLE times;
             ALTER TABLE dedup ADD COLUMN at INTEGER NOT NULL DEFAULT 0; CREATE INDEX dedup_at ON dedup (at);
             ALTER TABLE latest ADD COLUMN at INTEGER NOT NULL DEFAULT 0; CREATE INDEX latest_at ON latest (at);
             CREATE INDEX events_at ON events (at);",
        )
        .expect("as it was");
    connection.pragma_update(None, "user_version", 1).expect("written");
    drop(connection);
    for _ in 0..2 {
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        assert_eq!(positions(&ledger, 0), [1, 2]);
        let reader = ledger.reader().expect("opens");
        assert!(reader.dead_letters(None, 10).expect("readable").is_empty());
        assert!(reader.jobs().expect("readable").is_empty());
    }
}

#[test]
fn retention_takes_settled_events_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 5);
    let later = Timestamp::from_second(1_900_000_000).expect("in range");
    let all = Retention { events: later, dedup: later, verdicts: later, dead_letters: later };
    ledger.transact(|transaction| transaction.prune(Position::new(3, 0), &all, 100)).expect("pruned");
    drop(ledger);
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    assert_eq!(positions(&ledger, 0), [4, 5]);
    ledger.transact(|transaction| transaction.prune(Position::new(5, 0), &all, 100)).expect("pruned");
    drop(ledger);
    let ledger = Ledger::open(folder.path()).expect("opens");
    assert_eq!(ledger.head().borrow().ordinal, 5, "the count goes on where all events are gone");
}

#[test]
fn a_dead_letter_that_fails_again_keeps_its_first_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let letter = |second: i64, reason: &str| DeadLetter {
        id: "n-1".to_owned(),
        stage: Stage::Normalize,
        sink: None,
        source: name("portal"),
        position: Position::new(1, 0),
        reason: reason.to_owned(),
        attempts: 1,
        first_at: Timestamp::from_second(second).expect("in range"),
        last_at: Timestamp::from_second(second).expect("in range"),
        attempt: None,
        raw: b"raw".to_vec(),
    };
    for (second, reason) in [(1, "first"), (2, "second")] {
        ledger.transact(|transaction| transaction.put_dead_letter(&letter(second, reason))).expect("committed");
    }
    let kept = ledger.reader().expect("opens").dead_letter("n-1").expect("readable").expect("kept");
    assert_eq!(
        (kept.attempts, kept.reason.as_str(), kept.first_at.as_second(), kept.last_at.as_second()),
        (2, "second", 1, 2)
    );
    assert!(ledger.transact(|transaction| transaction.remove_dead_letter("n-1")).expect("committed"));
    assert!(!ledger.transact(|transaction| transaction.remove_dead_letter("n-1")).expect("committed"));
}

#[test]
fn a_look_for_old_rows_costs_the_same_however_much_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    let letter = |number: u64| DeadLetter {
        id: format!("n-{number}"),
        stage: Stage::Normalize,
        sink: None,
        source: name("portal"),
        position: Position::new(number, 0),
        reason: String::new(),
        attempts: 1,
        first_at: event(1).received_at,
        last_at: event(1).received_at,
        attempt: None,
        raw: vec![0; 64],
    };
    let steps_with_more = |numbers: std::ops::Range<u64>| {
        let put = |transaction: &mut Transaction<'_>| {
            for number in numbers {
                let (position, event) = (Position::new(number, 0), event(1));
                transaction.claim(event.uid, position)?;
                let subject = number.to_string();
                let known = transaction.known(&subject, &event.source)?;
                transaction.put_record(&known, position, &0)?;
                transaction.put_event(position, None, event)?;
                transaction.put_dead_letter(&letter(number))?;
            }
            Ok(())
        };
        ledger.transact(put).expect("committed");
        let writer = ledger.writer.lock().expect("not poisoned");
        [transaction::FORGET.as_slice(), &transaction::FORGET_TIMED]
            .concat()
            .into_iter()
            .map(|sql| {
                let mut statement = writer.connection.prepare(sql).expect("SQL");
                assert_eq!(statement.execute([0, 100]).expect("runs"), 0, "nothing is that old");
                statement.get_status(rusqlite::StatementStatus::VmStep)
            })
            .collect::<Vec<_>>()
    };
    let few = steps_with_more(1..100);
    assert_eq!(steps_with_more(100..3000), few);
}

#[test]
fn dead_letters_stay_within_their_bytes_and_the_oldest_go_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let letter = |number: u8| DeadLetter {
        id: format!("n-{number}"),
        stage: Stage::Normalize,
        sink: None,
        source: name("portal"),
        position: Position::new(number.into(), 0),
        reason: String::new(),
        attempts: 1,
        first_at: event(number).received_at,
        last_at: event(number).received_at,
        attempt: None,
        raw: vec![7; 100],
    };
    let ids = || -> Vec<String> {
        let letters = ledger.reader().expect("opens").dead_letters(None, 100).expect("readable");
        letters.into_iter().map(|letter| letter.id).collect()
    };
    for number in 1..=5 {
        ledger.transact(|transaction| transaction.put_dead_letter(&letter(number))).expect("committed");
    }
    ledger.transact(|transaction| transaction.prune_dead_letters(350, 1)).expect("pruned");
    assert_eq!(ids(), ["n-2", "n-3", "n-4", "n-5"], "as many as one transaction may");
    ledger.transact(|transaction| transaction.prune_dead_letters(350, 100)).expect("pruned");
    assert_eq!(ids(), ["n-3", "n-4", "n-5"]);
    let all = ledger.reader().expect("opens").dead_letters(None, 100).expect("readable");
    assert!(all.iter().all(|letter| letter.raw.is_empty()), "a list leaves out what each keeps: that may be gigabytes");
    assert_eq!(ledger.reader().expect("opens").dead_letter("n-3").expect("readable").expect("kept").raw.len(), 100);
}

#[test]
fn the_latest_events_are_kept_in_memory_within_a_bound_of_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let put = |transaction: &mut Transaction<'_>| {
        for number in 1..=100 {
            let mut event = event(1);
            event.finding.reason = Some("x".repeat(TAIL_BYTES_MAX / 50));
            transaction.put_event(Position::new(number, 0), None, event)?;
        }
        Ok(())
    };
    ledger.transact(put).expect("committed");
    let held = ledger.tail.lock().expect("not poisoned").events.len();
    assert!((40..=50).contains(&held), "{held}");
    let reader = ledger.reader().expect("opens");
    let all = reader.events_after(Position::default(), &name("a"), 1000, usize::MAX).expect("readable");
    assert_eq!(all.len(), 100, "the others come from disk");
}

#[test]
fn nobody_else_may_read_the_files_from_the_first_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(folder.path()).expect("opens");
    fill(&ledger, 1);
    for part in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = fs::metadata(folder.path().join(part)).expect(part).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{part}");
    }
}

#[test]
fn a_reader_that_opens_does_not_disturb_the_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let work = |transaction: &mut Transaction<'_>| {
        assert_eq!(transaction.position_of(event(1).uid)?, None);
        assert_eq!(transaction.cursor(&name("a"))?, None, "now the transaction has a view of its own");
        ledger.reader().expect("opens");
        transaction.put_event(Position::new(1, 0), None, event(1))
    };
    ledger.transact(work).expect("committed");
}

#[test]
fn identities_and_records_are_found_in_memory_and_beyond_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(folder.path()).expect("opens");
    let sources = [name("a"), name("b")];
    let at = event(1).received_at;
    let uid = |number: u64| Hash(u128::from(number).to_le_bytes());
    let found = |ledger: &Ledger| {
        ledger
            .transact(|transaction| {
                let mut found = Vec::new();
                for number in 0..100 {
                    let subject = (number / 2).to_string();
                    let [a, b] = sources.each_ref().map(|source| transaction.known(&subject, source));
                    let place = transaction.position_of(uid(number))?.map(Position::sequence);
                    found.push((place, a?.record::<u64>(), b?.record::<u64>()));
                }
                Ok(found)
            })
            .expect("readable")
    };
    // Each subject twice, so that the second record takes the place of the first; source b knows half of the subjects.
    for number in 0..100 {
        let put = |transaction: &mut Transaction<'_>| {
            let (position, subject) = (Position::new(number + 1, 0), (number / 2).to_string());
            transaction.claim(uid(number), position)?;
            let known = transaction.known(&subject, &sources[0])?;
            transaction.put_record(&known, position, &number)?;
            if number < 50 {
                let known = transaction.known(&subject, &sources[1])?;
                transaction.put_record(&known, Position::new(number + 1, 1), &(number + 1000))?;
            }
            transaction.set_sequence(number + 1, at);
            Ok(())
        };
        ledger.transact(put).expect("committed");
        if number == 40 {
            // So early everything is in memory, and comes back there.
            let before = found(&ledger);
            drop(ledger);
            ledger = Ledger::open(folder.path()).expect("opens");
            assert_eq!(found(&ledger), before);
        }
    }
    let expected: Vec<_> = (0..100)
        .map(|number| (Some(number + 1), Some(number | 1), (number < 50).then_some((number | 1) + 1000)))
        .collect();
    assert_eq!(found(&ledger), expected);
    drop(ledger);
    let ledger = Ledger::open(folder.path()).expect("opens");
    assert_eq!(found(&ledger), expected);
    let later = event(2).received_at;
    let all = Retention { events: later, dedup: later, verdicts: later, dead_letters: later };
    ledger.transact(|transaction| transaction.prune(Position::default(), &all, 1000)).expect("pruned");
    assert_eq!(found(&ledger), vec![(None, None, None); 100]);
    let writer = ledger.writer.lock().expect("not poisoned");
    for table in ["dedup", "latest", "records"] {
        let rows: i64 = writer
            .connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .expect("readable");
        assert_eq!(rows, 0, "{table}");
    }
}
