//! The promise, through the real sink and the real deliverer with a real ledger, against a collector that does what it likes: every good event
//! is indexed, every poison is one dead letter, and nothing counts as delivered that could still be lost.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::collector::{Collector, Mood, World};
use super::*;
use crate::deliver::{Deliverer, Parts, Progress, State};
use crate::event::{Event, Hash, Verdict, sample};
use crate::route::RouteConfig;
use crate::sink::testing::{ring, secret};
use crate::store::ledger::Ledger;

const TOKEN: &str = "b0221cd8-c4b4-465a-9a3c-273e3a75aa29";
const NEXT_TOKEN: &str = "c1332de9-d5c5-576b-8b4d-384f4b86bb3a";

/// The real waits, a hundred times faster.
pub(super) const QUICK: Waits = Waits {
    ack_first: Duration::from_millis(10),
    ack_last: Duration::from_millis(100),
    ack_gap: Duration::from_millis(5),
    ack_silence: Duration::from_millis(300),
    ack_max: Duration::from_millis(400),
    ack_doubt: Duration::from_millis(150),
    acks_off: Duration::from_secs(6),
    rest_first: Duration::from_millis(2),
    rest_last: Duration::from_millis(20),
    tokens_every: Duration::from_millis(200),
};

/// A sink for these collectors; its token lies in `folder`.
fn plan(collectors: &[Collector], folder: &Path, acks: Acks) -> HecPlan {
    let endpoints: Vec<String> = collectors.iter().map(|one| format!("http://{}", one.address)).collect();
    let tokens = [secret(folder, "token", TOKEN)];
    let config = serde_json::json!({"endpoints": endpoints, "tokens": tokens, "acks": format!("{acks:?}").to_lowercase(), "timeout": "2s"});
    let config: HecConfig = serde_json::from_value(config).expect("is a config");
    HecPlan { waits: QUICK, ..config.plan("sinks.splunk").expect("is valid") }
}

/// A ledger and the deliverer of a HEC sink that reads it.
struct Bench {
    ledger: Arc<Ledger>,
    deliverer: Deliverer,
    state: watch::Receiver<State>,
}

async fn bench(plan: HecPlan, folder: &Path, events_max: usize) -> Bench {
    let ledger = Arc::new(Ledger::open(folder).expect("opens"));
    let (state, seen) = watch::channel(State { word: "ok", reason: String::new() });
    let tokens = ring(plan.secrets()).await;
    let name: Name = "splunk".parse().expect("a name");
    let parts = Parts {
        render: plan.render(Style::new("relay")),
        sink: Box::new(plan.build(&name, tokens)),
        name,
        route: RouteConfig::default().plan("sinks.splunk.where", &[]).expect("is valid"),
        condition: None,
        batch: Batch { events_max, bytes_max: 1 << 20, wait_max: Duration::ZERO },
        ledger: Arc::clone(&ledger),
        state,
    };
    Bench { deliverer: Deliverer::new(parts, false).expect("begins"), ledger, state: seen }
}

fn uid(number: u32) -> Hash<16> {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Hash(bytes)
}

/// Adds the events `first..=last`.
fn fill(ledger: &Ledger, first: u32, last: u32) {
    ledger
        .transact(|transaction| {
            for number in first..=last {
                let event = Event { uid: uid(number), ..sample::event(Verdict::Malicious) };
                transaction.put_event(Position::new(number.into(), 0), None, event)?;
            }
            Ok(())
        })
        .expect("committed");
}

/// What no collector has indexed, of the events up to and with `last`, but for the poison.
fn missing(collectors: &[Collector], last: u32, poison: &HashSet<u32>) -> Vec<u32> {
    let is_indexed =
        |number: u32| collectors.iter().any(|one| one.world().indexed.contains_key(&uid(number).to_string()));
    (1..=last).filter(|number| !poison.contains(number) && !is_indexed(*number)).collect()
}

/// Steps until all of `count` is settled, and looks at each step whether what counts as delivered is indexed.
async fn drain(bench: &mut Bench, collectors: &[Collector], count: u32, poison: &HashSet<u32>) {
    let (_stop, mut stopped) = watch::channel(false);
    while bench.deliverer.cursor().ordinal < u64::from(count) {
        match bench.deliverer.step().await.expect("the ledger works") {
            // The back-off is not waited for.
            Progress::Wait(_) => sleep(Duration::from_millis(2)).await,
            Progress::Idle => drop(bench.deliverer.wait(&mut stopped).await.expect("the ledger works")),
            Progress::Moved => {}
        }
        let settled = u32::try_from(bench.deliverer.cursor().ordinal).expect("few");
        assert_eq!(missing(collectors, settled, poison), [0; 0], "counted as delivered, and not indexed");
    }
}

fn letters(ledger: &Arc<Ledger>) -> Vec<Position> {
    let letters = ledger.reader().expect("opens").dead_letters(None, 1000).expect("readable");
    let mut positions: Vec<_> = letters.iter().map(|letter| letter.position).collect();
    positions.sort();
    positions
}

fn any_post() -> impl Strategy<Value = Mood> {
    use Mood::*;
    let trouble = [
        Busy, Full, Crowded, TooLarge, Fault, Gateway, AnswerLost, Garbled, Reset, Forbidden, NoChannel, NotFound,
        Loses, Lingers, Restarts, Moves,
    ];
    prop_oneof![1 => Just(Well), 1 => prop::sample::select(trouble.to_vec())]
}

fn any_ask() -> impl Strategy<Value = Mood> {
    use Mood::*;
    let trouble = [Busy, Full, Fault, AnswerLost, Garbled, Reset, Forbidden, NoChannel, NotFound, Restarts, Moves];
    prop_oneof![1 => Just(Well), 1 => prop::sample::select(trouble.to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn every_good_event_is_indexed_and_every_poison_is_one_dead_letter_whatever_the_collector_does(
        count in 1_u32..60,
        poison in prop::collection::hash_set(1_u32..60, 0..6),
        (keeps_prefix, names, acks) in any::<(bool, bool, bool)>(),
        ack_delay in 0_u64..30,
        events_max in 1_usize..25,
        scripts in prop::collection::vec(
            (prop::collection::vec(any_post(), 0..14), prop::collection::vec(any_ask(), 0..10)), 1..=2),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
        runtime.block_on(async move { tokio::spawn(async move {
            let folder = tempfile::tempdir().expect("a folder");
            let mut collectors = Vec::new();
            for (posts, asks) in scripts {
                let poison = poison.iter().map(|number| uid(*number).to_string()).collect();
                let (posts, asks, ack_delay) = (posts.into(), asks.into(), Duration::from_millis(ack_delay));
                collectors.push(Collector::start(World { acks, ack_delay, keeps_prefix, names, poison, posts, asks, ..World::default() }).await);
            }
            let plan = plan(&collectors, folder.path(), if acks { Acks::Required } else { Acks::Auto });
            let mut bench = bench(plan, folder.path(), events_max).await;
            fill(&bench.ledger, 1, count);
            let drained = timeout(Duration::from_secs(30), drain(&mut bench, &collectors, count, &poison)).await;
            assert!(drained.is_ok(), "stuck at {:?}: {:?}", bench.deliverer.cursor(), bench.state.borrow());

            let bad: Vec<Position> = (1..=count).filter(|n| poison.contains(n)).map(|n| Position::new(n.into(), 0)).collect();
            assert_eq!(letters(&bench.ledger), bad);
            let cursor = bench.deliverer.cursor();
            assert_eq!((cursor.dead, cursor.delivered), (bad.len() as u64, u64::from(count) - bad.len() as u64));
            for id in collectors.iter().flat_map(|one| one.world().marked.clone()) {
                let times: usize = collectors.iter().filter_map(|one| one.world().took.get(&id).copied()).sum();
                assert!(times > 1, "{id} came for the first time, and marked as a suspect");
            }
            let has_poison = |world: &World| world.poison.iter().any(|id| world.indexed.contains_key(id));
            assert!(!collectors.iter().any(|one| has_poison(&one.world())));
        }).await.expect("no assertion failed"); });
    }
}

/// `HEC_CASES` runs more.
fn cases() -> u32 {
    std::env::var("HEC_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_and_rotated_under_load_loses_nothing_and_drains_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World {
        acks: true,
        ack_delay: Duration::from_millis(20),
        tokens: [TOKEN.to_owned()].into(),
        ..World::default()
    };
    let collectors = [Collector::start(world).await];
    // Reading the tokens again is not hurried here: it is what the bar is about.
    let plan = plan(&collectors, folder.path(), Acks::Required);
    let plan = HecPlan { waits: Waits { tokens_every: Waits::REAL.tokens_every, ..QUICK }, ..plan };
    let Bench { ledger, deliverer, mut state } = bench(plan, folder.path(), 100).await;
    let (stop, stopped) = watch::channel(false);
    let run = tokio::spawn(deliverer.run(stopped));

    let mut last = 0;
    let mut feed = async |ms: u64| {
        for _ in 0..ms / 10 {
            fill(&ledger, last + 1, last + 5);
            last += 5;
            sleep(Duration::from_millis(10)).await;
        }
        last
    };
    feed(300).await;
    collectors[0].world().tokens.clear();
    collectors[0].world().tokens.insert(NEXT_TOKEN.to_owned());
    // Long enough that the back-off alone would be some 4 s. `HEC_REVOKED_SECONDS` makes it longer.
    let seconds = std::env::var("HEC_REVOKED_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(6);
    let count = feed(1000 * seconds).await;
    assert_eq!(state.borrow_and_update().word, "auth_failed");
    let pending = missing(&collectors, count, &HashSet::new()).len();
    assert!(pending > 2000, "{pending} wait");
    secret(folder.path(), "token", NEXT_TOKEN);
    let is_ok = timeout(Duration::from_secs(5), state.wait_for(|state| state.word == "ok")).await;
    is_ok.expect("drains within 5 s").expect("still runs");
    let drained = async {
        while !missing(&collectors, count, &HashSet::new()).is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), drained).await.expect("nothing is lost");
    stop.send_replace(true);
    run.await.expect("no panic").expect("the ledger works");
    let cursor =
        ledger.transact(|transaction| transaction.cursor(&"splunk".parse().expect("a name"))).expect("readable");
    let cursor = cursor.expect("there is one");
    assert!(cursor.dead == 0 && letters(&ledger).is_empty(), "a refused token is nobody's fault: {cursor:?}");
}

/// Drains `count` events, within `seconds`.
async fn drained(
    bench: &mut Bench,
    collectors: &[Collector],
    count: u32,
    poison: &HashSet<u32>,
    seconds: u64,
) -> Duration {
    fill(&bench.ledger, 1, count);
    let began = Instant::now();
    let drained = timeout(Duration::from_secs(seconds), drain(bench, collectors, count, poison)).await;
    assert!(drained.is_ok(), "stuck at {:?}: {:?}", bench.deliverer.cursor(), bench.state.borrow());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_stay_on_the_way_while_earlier_ones_wait_for_their_acknowledgement() {
    let folder = tempfile::tempdir().expect("a folder");
    let collectors =
        [Collector::start(World { acks: true, ack_delay: Duration::from_millis(300), ..World::default() }).await];
    // A tenth of the real waits.
    let (ack_first, ack_gap) = (Duration::from_millis(100), Duration::from_millis(50));
    let plan = plan(&collectors, folder.path(), Acks::Required);
    let plan = HecPlan { waits: Waits { ack_first, ack_gap, ack_max: Duration::from_secs(30), ..QUICK }, ..plan };
    let mut bench = bench(plan, folder.path(), 5).await;
    let took = drained(&mut bench, &collectors, 1000, &HashSet::new(), 20).await;
    let world = collectors[0].world();
    assert!(took < Duration::from_secs(5), "200 batches four at a time would take 15 s; it took {took:?}");
    assert!(world.posted == 200 && world.indexed.values().all(|times| *times == 1), "each was sent once");
    assert!((32..=IN_FLIGHT_MAX).contains(&world.waiting_max), "{} waited at once", world.waiting_max);
    assert!(world.asked < world.posted, "{} questions for {} batches", world.asked, world.posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_collector_that_acknowledges_an_old_id_settles_nothing_that_it_forgot() {
    let folder = tempfile::tempdir().expect("a folder");
    // The second post gets the id of the first, and its acknowledgement is told before its answer comes.
    let (posts, ack_delay) = ([Mood::Well, Mood::Restarts].into(), Duration::from_millis(15));
    let collectors = [Collector::start(World { acks: true, ack_delay, posts, ..World::default() }).await];
    let mut bench = bench(plan(&collectors, folder.path(), Acks::Required), folder.path(), 5).await;
    drained(&mut bench, &collectors, 10, &HashSet::new(), 20).await;
    assert!(collectors[0].world().posted > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_poison_goes_alone_and_after_three_halves_find_the_rest() {
    let poison = HashSet::from([4, 9, 14, 19, 24]);
    for keeps_prefix in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let uids = poison.iter().map(|number| uid(*number).to_string()).collect();
        let collectors =
            [Collector::start(World { keeps_prefix, names: true, poison: uids, ..World::default() }).await];
        let mut bench = bench(plan(&collectors, folder.path(), Acks::Auto), folder.path(), 30).await;
        drained(&mut bench, &collectors, 30, &poison, 20).await;
        assert_eq!(letters(&bench.ledger).len(), 5);
        let world = collectors[0].world();
        let copies = world.indexed.values().max().copied().unwrap_or_default();
        assert!(copies <= if keeps_prefix { 4 } else { 1 }, "{copies} copies of one event");
        assert!(world.posted <= 30, "{} requests", world.posted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    let folder = tempfile::tempdir().expect("a folder");
    let posts = vec![Mood::TooLarge; 40].into();
    let collectors = [Collector::start(World { posts, ..World::default() }).await];
    let mut bench = bench(plan(&collectors, folder.path(), Acks::Auto), folder.path(), 16).await;
    drained(&mut bench, &collectors, 16, &HashSet::new(), 20).await;
    assert_eq!(letters(&bench.ledger), []);
    assert!(collectors[0].world().indexed.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_that_never_acknowledges_gets_a_bounded_number_of_batches_and_none_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let collectors = [Collector::start(World { acks: true, holds_acks: true, ..World::default() }).await];
    let plan = plan(&collectors, folder.path(), Acks::Auto);
    let mut bench = bench(plan, folder.path(), 10).await;
    fill(&bench.ledger, 1, 5000);
    let drained = timeout(Duration::from_secs(3), drain(&mut bench, &collectors, 5000, &HashSet::new())).await;
    assert!(drained.is_err(), "it can't come to an end");
    let cursor = bench.deliverer.cursor();
    assert_eq!((cursor.ordinal, cursor.delivered, cursor.dead), (0, 0, 0));
    assert_eq!(bench.state.borrow().word, "backoff");
    let world = collectors[0].world();
    // The first four, and then one at a time, each until it is given up: 7 rounds of 400 ms.
    assert!((4..=4 + 4 * 8).contains(&world.posted), "{} posts", world.posted);
    assert!(world.indexed.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_owes_acknowledgements_is_told_before_anything_is_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let collectors = [Collector::start(World { acks: true, holds_acks: true, ..World::default() }).await];
    let plan = plan(&collectors, folder.path(), Acks::Required);
    let plan = HecPlan { waits: Waits { ack_max: Duration::from_secs(30), ..QUICK }, ..plan };
    let Bench { ledger, deliverer, mut state } = bench(plan, folder.path(), 10).await;
    fill(&ledger, 1, 40);
    let (stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let run = tokio::spawn(deliverer.run(stopped));
    let told = timeout(Duration::from_secs(10), state.wait_for(|state| state.word == "backoff")).await;
    let reason = told.expect("it is told").expect("still runs").reason.clone();
    assert!(reason.starts_with("the collector has not acknowledged 4 batches for 0 s"), "{reason}");
    assert!(began.elapsed() >= QUICK.ack_silence, "{:?}", began.elapsed());
    // The words are renewed; the state stays as it is, and nothing is sent again.
    let changes = async {
        for _ in 0..6 {
            state.changed().await.expect("still runs");
            assert_eq!(state.borrow_and_update().word, "backoff");
        }
    };
    let later = timeout(QUICK.ack_silence * 5, changes).await;
    assert!(later.is_err(), "words for more than one in {:?}", QUICK.ack_silence);
    assert_eq!(collectors[0].world().posted, 4);
    collectors[0].world().holds_acks = false;
    let is_ok = timeout(Duration::from_secs(10), state.wait_for(|state| state.word == "ok")).await;
    is_ok.expect("it goes on").expect("still runs");
    stop.send_replace(true);
    run.await.expect("no panic").expect("the ledger works");
    let world = collectors[0].world();
    assert_eq!((world.posted, world.marked.len(), world.indexed.len()), (4, 0, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_and_never_acknowledged_is_marked_when_it_comes_again_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let posts = [Mood::Busy, Mood::Loses].into();
    let collectors = [Collector::start(World { acks: true, posts, ..World::default() }).await];
    let mut bench = bench(plan(&collectors, folder.path(), Acks::Required), folder.path(), 5).await;
    drained(&mut bench, &collectors, 5, &HashSet::new(), 20).await;
    fill(&bench.ledger, 6, 10);
    drain(&mut bench, &collectors, 10, &HashSet::new()).await;
    let world = collectors[0].world();
    let lost: HashSet<String> = (1..=5).map(|number| uid(number).to_string()).collect();
    assert_eq!(world.marked, lost);
    assert_eq!((world.indexed.len(), world.took.values().sum::<usize>()), (10, 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_is_learned_and_not_met_with_every_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let collectors = [Collector::start(World { bytes_max: 20_000, ..World::default() }).await];
    let mut bench = bench(plan(&collectors, folder.path(), Acks::Auto), folder.path(), 100).await;
    drained(&mut bench, &collectors, 3000, &HashSet::new(), 60).await;
    assert_eq!(letters(&bench.ledger), []);
    let world = collectors[0].world();
    assert!(world.indexed.values().all(|times| *times == 1));
    // The first batches, which were on the way together, and what was halved of them; and one try to send more again.
    assert!((1..=30).contains(&world.too_large), "{} of {} requests were too large", world.too_large, world.posted);
}
