//! The loop against a receiver that takes, refuses, loses and stops as it likes: nothing good is lost, poison is alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::event::{Again, Hash, Verdict, sample};
use crate::route::RouteConfig;
use crate::store::ledger::Retention;

/// A receiver at the other end of the port, with a script of moods.
struct Receiver {
    poison: HashSet<Position>,
    /// Whether it names the event that it refuses.
    names: bool,
    in_flight_max: usize,
    moods: Vec<Mood>,
    turn: usize,
    in_flight: VecDeque<Vec<Position>>,
    seen: Arc<Mutex<BTreeMap<Position, usize>>>,
}

/// What the receiver does with the next batch.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Take,
    /// Takes it, but its answer is lost.
    Forget,
    /// Says that it is alive before it says anything of a batch.
    Slow,
    /// Is not there when the batch is sent.
    Away,
}

impl Receiver {
    /// Takes everything but these, one batch at a time.
    fn refusing(poison: impl IntoIterator<Item = u64>) -> Self {
        Self {
            poison: poison.into_iter().map(|number| Position::new(number, 0)).collect(),
            names: false,
            in_flight_max: 1,
            moods: Vec::new(),
            turn: 0,
            in_flight: VecDeque::new(),
            seen: Arc::default(),
        }
    }
}

#[async_trait]
impl Sink for Receiver {
    async fn open(&mut self, from: Position) -> Result<Position, Stop> {
        self.in_flight.clear();
        Ok(from)
    }

    async fn send(&mut self, batch: &[Rendered]) -> Result<(), Stop> {
        assert!(!batch.is_empty() && self.in_flight.len() < self.in_flight_max, "a batch too many");
        assert!(batch.windows(2).all(|pair| pair[0].position < pair[1].position), "positions ascend");
        self.turn += 1;
        if matches!(self.moods.get(self.turn), Some(Mood::Away)) {
            return Err(Stop::unavailable("away"));
        }
        self.in_flight.push_back(batch.iter().map(|rendered| rendered.position).collect());
        Ok(())
    }

    async fn settled(&mut self) -> Result<Settled, Stop> {
        if let Some(mood @ Mood::Slow) = self.moods.get_mut(self.turn) {
            *mood = Mood::Take;
            return Ok(Settled::Alive);
        }
        // Every other time the answer is not there yet.
        if self.turn.is_multiple_of(2) {
            tokio::task::yield_now().await;
        }
        let Some(batch) = self.in_flight.pop_front() else { return std::future::pending().await };
        let (from, through) = (batch[0], batch[batch.len() - 1]);
        if let Some(bad) = batch.iter().find(|position| self.poison.contains(position)) {
            self.in_flight.clear();
            let suspect = self.names.then_some(*bad);
            return Ok(Settled::Refused { from, through, suspect, reason: "poison".to_owned() });
        }
        let mut seen = self.seen.lock().expect("not poisoned");
        for position in batch {
            *seen.entry(position).or_default() += 1;
        }
        if matches!(self.moods.get(self.turn), Some(Mood::Forget)) {
            self.in_flight.clear();
            return Ok(Settled::Rewind(from));
        }
        Ok(Settled::Through(through))
    }

    async fn close(&mut self, _: Duration) {}

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }
}

/// Adds `count` events; those whose number is in `clean` are clean, all others malicious.
fn fill(ledger: &Ledger, count: u8, clean: &HashSet<u8>) {
    fill_from(ledger, 1, count, clean);
}

fn fill_from(ledger: &Ledger, first: u8, last: u8, clean: &HashSet<u8>) {
    ledger
        .transact(|transaction| {
            for number in first..=last {
                let verdict = if clean.contains(&number) { Verdict::Clean } else { Verdict::Malicious };
                let event = Event { uid: Hash([number; 16]), ..sample::event(verdict) };
                transaction.put_event(Position::new(number.into(), 0), None, event)?;
            }
            transaction.set_sequence(last.into(), Timestamp::from_second(1_774_267_200).expect("in range"));
            Ok(())
        })
        .expect("committed");
}

fn deliverer(ledger: &Arc<Ledger>, receiver: Receiver, events_max: usize) -> Deliverer {
    let config = RouteConfig { verdicts: Some(vec![Verdict::Malicious]), ..RouteConfig::default() };
    let parts = Parts {
        name: "lake".parse().expect("a name"),
        sink: Box::new(receiver),
        condition: None,
        route: config.plan("sinks.lake.where", &[]).expect("valid"),
        render: Box::new(|event, out| out.extend_from_slice(event.uid.to_string().as_bytes())),
        batch: Batch { events_max, bytes_max: 1 << 20, wait_max: Duration::ZERO },
        ledger: ledger.clone(),
        state: watch::Sender::new(State { word: "ok", reason: String::new() }),
    };
    Deliverer::new(parts, false).expect("begins")
}

/// Steps until nothing is left; the waits are not waited.
async fn drain(deliverer: &mut Deliverer) {
    let (_stop, mut stopped) = watch::channel(false);
    for _ in 0..10_000 {
        match deliverer.step().await.expect("the ledger works") {
            Progress::Idle if deliverer.in_flight == 0 => return,
            Progress::Idle => {
                deliverer.wait(&mut stopped).await.expect("the ledger works");
            }
            Progress::Moved | Progress::Wait(_) => {}
        }
    }
    panic!("the loop does not come to an end");
}

fn any_mood() -> impl Strategy<Value = Mood> {
    prop_oneof![6 => Just(Mood::Take), 1 => Just(Mood::Forget), 1 => Just(Mood::Slow), 1 => Just(Mood::Away)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_good_event_arrives_every_poison_is_one_dead_letter_and_the_counts_add_up(
        count in 1_u8..40,
        poison in prop::collection::hash_set(1_u8..40, 0..6),
        clean in prop::collection::hash_set(1_u8..40, 0..10),
        names in any::<bool>(),
        in_flight_max in 1_usize..4,
        events_max in 1_usize..20,
        moods in prop::collection::vec(any_mood(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("starts");
        runtime.block_on(async move { tokio::spawn(async move {
            let folder = tempfile::tempdir().expect("a folder");
            let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
            let seen = Arc::new(Mutex::new(BTreeMap::new()));
            let place = |number: &u8| Position::new((*number).into(), 0);
            let receiver = Receiver {
                poison: poison.iter().map(place).collect(),
                names, in_flight_max, moods, turn: 0, in_flight: VecDeque::new(), seen: seen.clone(),
            };
            let mut deliverer = deliverer(&ledger, receiver, events_max);
            fill(&ledger, count, &clean);
            drain(&mut deliverer).await;

            let wanted = |number: &u8| !clean.contains(number);
            let good: Vec<_> = (1..=count).filter(|n| wanted(n) && !poison.contains(n)).map(|n| place(&n)).collect();
            let bad: Vec<_> = (1..=count).filter(|n| wanted(n) && poison.contains(n)).map(|n| place(&n)).collect();
            assert_eq!(seen.lock().expect("not poisoned").keys().copied().collect::<Vec<_>>(), good);
            let reader = ledger.reader().expect("opens");
            let mut letters: Vec<_> =
                reader.dead_letters(None, 100).expect("readable").iter().map(|letter| letter.position).collect();
            letters.sort();
            assert_eq!(letters, bad);
            let cursor = deliverer.cursor();
            assert_eq!(cursor.ordinal, u64::from(count), "everything is settled");
            assert_eq!(cursor.delivered + cursor.dead + cursor.filtered, u64::from(count));
            assert_eq!(cursor.dead, bad.len() as u64);
        }).await.expect("no assertion failed"); });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_sent_again_reaches_its_sink_only_and_is_counted_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let receiver = Receiver { seen: seen.clone(), ..Receiver::refusing([]) };
    let mut deliverer = deliverer(&ledger, receiver, 10);
    fill(&ledger, 1, &HashSet::new());
    let name: Name = "lake".parse().expect("a name");
    // A clean event, which the rule keeps out: the operator wants it there all the same.
    let letter = "d-1.0-lake".to_owned();
    for (number, again) in [(2, Again::Redrive { letter }), (3, Again::Replay)] {
        let event = Event { again: Some(again), ..sample::event(Verdict::Clean) };
        let put = |transaction: &mut crate::store::ledger::Transaction<'_>| {
            transaction.put_event(Position::new(number, 0), Some(&name), event)
        };
        ledger.transact(put).expect("committed");
    }
    drain(&mut deliverer).await;
    assert_eq!(seen.lock().expect("not poisoned").len(), 3);
    let cursor = deliverer.cursor();
    assert_eq!((cursor.delivered, cursor.redriven, cursor.replayed, cursor.ordinal), (1, 1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_counts_each_refusal_and_goes_when_its_sink_has_taken_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let receiver = Receiver::refusing([1, 2]);
    let mut deliverer = deliverer(&ledger, receiver, 10);
    fill(&ledger, 1, &HashSet::new());
    drain(&mut deliverer).await;
    let reader = ledger.reader().expect("opens");
    let letters = || reader.dead_letters(None, 10).expect("readable");
    let first = letters().pop().expect("it was refused");
    let name: Name = "lake".parse().expect("a name");
    for (number, left) in [(2, Some(2)), (3, None)] {
        let again = Some(Again::Redrive { letter: first.id.clone() });
        let event = Event { again, ..sample::event(Verdict::Malicious) };
        let put = |transaction: &mut crate::store::ledger::Transaction<'_>| {
            transaction.put_event(Position::new(number, 0), Some(&name), event)?;
            transaction.begin_attempt(&first.id, number)
        };
        ledger.transact(put).expect("committed");
        assert_eq!(letters()[0].attempt, Some(number));
        drain(&mut deliverer).await;
        let letter = letters().pop();
        assert_eq!(letter.as_ref().map(|letter| letter.attempts), left);
        if let Some(letter) = letter {
            assert_eq!((letter.id, letter.first_at, letter.attempt), (first.id.clone(), first.first_at, None));
        }
    }
    let cursor = deliverer.cursor();
    assert_eq!((cursor.dead, cursor.redriven, cursor.delivered, cursor.ordinal), (1, 1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_comes_back_after_the_retention_counts_what_is_still_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let receiver = || Receiver::refusing([]);
    fill(&ledger, 2, &HashSet::new());
    drain(&mut deliverer(&ledger, receiver(), 10)).await;
    // Then it is removed from the config, and events that it would have wanted grow old.
    fill_from(&ledger, 3, 6, &HashSet::new());
    let later = Timestamp::from_second(1_900_000_000).expect("in range");
    let all = Retention { events: later, dedup: later, verdicts: later, dead_letters: later };
    ledger.transact(|transaction| transaction.prune(Position::new(4, 0), &all, 100)).expect("pruned");
    drop(ledger);
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    let mut deliverer = deliverer(&ledger, receiver(), 10);
    drain(&mut deliverer).await;
    let (cursor, head) = (deliverer.cursor(), *ledger.head().borrow());
    assert_eq!((cursor.delivered, cursor.ordinal), (4, 6));
    assert_eq!(cursor.entered(head.ordinal), 4, "what was never offered to it did not come up for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sink_begins_now_or_with_everything_and_an_old_one_where_it_stood() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 3, &HashSet::new());
    let begin = |name: &str, from_now: bool| {
        let parts = Parts {
            name: name.parse().expect("a name"),
            sink: Box::new(Receiver::refusing([])),
            condition: None,
            route: RouteConfig::default().plan("where", &[]).expect("valid"),
            render: Box::new(|_, _| {}),
            batch: Batch { events_max: 1, bytes_max: 1, wait_max: Duration::ZERO },
            ledger: ledger.clone(),
            state: watch::Sender::new(State { word: "ok", reason: String::new() }),
        };
        Deliverer::new(parts, from_now).expect("begins").cursor().clone()
    };
    assert_eq!(begin("now", true).position, Position::new(3, 0));
    assert_eq!(begin("all", false).ordinal, 0);
    fill_from(&ledger, 4, 5, &HashSet::new());
    assert_eq!(begin("now", true).position, Position::new(3, 0), "a name that is known goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_is_written_down_before_anything_is_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
    fill(&ledger, 20, &HashSet::new());
    let seen = Arc::<Mutex<BTreeMap<Position, usize>>>::default();
    let receiver = Receiver { names: true, seen: seen.clone(), ..Receiver::refusing([15]) };
    // Batches follow each other much faster than the cursor is written.
    let mut deliverer = deliverer(&ledger, receiver, 2);
    drain(&mut deliverer).await;
    let cursor = deliverer.cursor();
    assert_eq!((cursor.delivered, cursor.dead), (19, 1));
    let seen = seen.lock().expect("not poisoned");
    assert!(seen.len() == 19 && seen.values().all(|times| *times == 1), "each was taken once: {seen:?}");
}
