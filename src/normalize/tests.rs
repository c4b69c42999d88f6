//! Deliveries through a real journal into a real ledger.

mod operations;

use super::*;
use crate::adapter::{self, AdapterName, Options};
use crate::event::{Standing, Verdict};
use crate::store::journal::{DiskJournal, Options as JournalOptions};
use crate::store::ledger::Stored;
use crate::store::{Draft, Journal as _};
use crate::verify::How;

const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

/// The store and the loop, with one source of our own events.
struct Bench {
    journal: Arc<DiskJournal>,
    ledger: Arc<Ledger>,
    normalizer: Normalizer,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options =
            JournalOptions { folder: folder.path().join("journal"), segment_bytes: 1 << 20, sequence_floor: 0 };
        let journal = Arc::new(DiskJournal::open(&options).expect("opens"));
        let ledger = Arc::new(Ledger::open(folder.path()).expect("opens"));
        let adapter = adapter::plan("sources.ci", &AdapterName("native".to_owned()), &Options::default());
        let normalizer = Normalizer {
            reader: journal.reader(0),
            durable: journal.durable(),
            ledger: ledger.clone(),
            sources: HashMap::from([(
                source(),
                Reading { adapter: adapter.expect("built"), asks: false, remembers: false },
            )]),
            metrics: Arc::new(Metrics::default()),
            waiting: Vec::new(),
        };
        Self { journal, ledger, normalizer, _folder: folder }
    }

    async fn append(&self, kind: Kind, head: Vec<u8>, body: &str) -> u64 {
        let at = Timestamp::from_second(1_774_267_200).expect("in range");
        let body = Bytes::copy_from_slice(body.as_bytes());
        let draft = Draft { kind, source: source(), at, head, body, repeat: None };
        self.journal.append(draft).await.expect("durable").sequence
    }

    /// A delivery, proven by a signature or by its network alone.
    async fn deliver(&self, signed: bool, body: &str) -> u64 {
        let how = if signed { How::Signature { key_id: "env:A".to_owned() } } else { How::Network };
        let mut head = vec![1, 0, 0, 0, 0];
        head.extend(serde_json::to_vec(&serde_json::json!({ "how": how })).expect("plain data"));
        let length = u32::try_from(head.len() - 5).expect("short");
        head[1..5].copy_from_slice(&length.to_le_bytes());
        self.append(Kind::Delivery, head, body).await
    }

    async fn operate(&self, operation: &Operation) {
        self.append(Kind::Operator, Vec::new(), &serde_json::to_string(operation).expect("plain data")).await;
    }

    fn settle(&mut self) {
        while self.normalizer.step().expect("the store works") != Step::Nothing {}
    }

    fn events(&self) -> Vec<Arc<Event>> {
        let reader = self.ledger.reader().expect("opens");
        let stored: Vec<Stored> = reader.events_after(Position::default(), &source(), 100, 1 << 20).expect("readable");
        stored.into_iter().map(|stored| stored.event.expect("sound")).collect()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        let reader = self.ledger.reader().expect("opens");
        let ids = reader.dead_letters(None, 100).expect("readable").into_iter().map(|letter| letter.id);
        ids.map(|id| reader.dead_letter(&id).expect("readable").expect("there")).collect()
    }

    fn count(&self, metric: &str) -> u64 {
        let text = self.normalizer.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
        line.unwrap_or_default()
    }
}

fn source() -> Name {
    "ci".parse().expect("a name")
}

fn item(id: &str, verdict: &str, second: i64) -> String {
    let at = Timestamp::from_second(1_774_267_200 - 1000 + second).expect("in range");
    format!(
        r#"{{"id":"{id}","subject":{{"type":"file","sha256":"{SHA256}"}},"verdict":"{verdict}","analysed_at":"{at}"}}"#
    )
}

#[tokio::test]
async fn a_repeated_analysis_is_one_event_whatever_surrounds_it() {
    let mut bench = Bench::new();
    bench.deliver(true, &item("a", "malicious", 1)).await;
    bench.deliver(true, &format!("[{},{}]", item("b", "clean", 2), item("a", "malicious", 1))).await;
    bench.settle();
    let verdicts: Vec<_> = bench.events().iter().map(|event| event.finding.verdict).collect();
    assert_eq!(verdicts, [Verdict::Malicious, Verdict::Clean]);
    assert_eq!(bench.count("verdict_relay_deliveries_total{source=\"ci\",outcome=\"duplicate\"}"), 1);
    let closing = &bench.events()[1];
    assert_eq!(closing.previous.map(|previous| previous.verdict), Some(Verdict::Malicious));
    assert_eq!(closing.activity, crate::event::Activity::Close);
}

#[tokio::test]
async fn an_odd_item_is_a_dead_letter_and_its_neighbours_go_on() {
    let mut bench = Bench::new();
    let odd = r#"{"id":"x","subject":{},"verdict":"perhaps"}"#;
    let sequence = bench.deliver(true, &format!("[{odd},{}]", item("a", "clean", 1))).await;
    bench.deliver(true, "no JSON at all").await;
    bench.settle();
    assert_eq!(bench.events().len(), 1);
    let letters = bench.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].id, format!("n-{sequence}"));
    assert!(!letters[0].reason.contains("perhaps"), "what the sender chose is not repeated: {}", letters[0].reason);
}

#[tokio::test]
async fn a_redrive_brings_what_can_be_read_now_and_keeps_what_cannot() {
    let mut bench = Bench::new();
    let sources = std::mem::take(&mut bench.normalizer.sources);
    bench.deliver(true, &item("a", "malicious", 1)).await;
    let odd = bench.deliver(true, "{}").await;
    bench.settle();
    assert_eq!((bench.events().len(), bench.letters().len()), (0, 2));
    bench.normalizer.sources = sources;
    for letter in bench.letters() {
        bench.operate(&Operation::Redrive { id: letter.id }).await;
    }
    bench.settle();
    let events = bench.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].again.is_some(), "a redriven event says so");
    let letters = bench.letters();
    assert_eq!((letters.len(), letters[0].id.clone(), letters[0].attempts), (1, format!("n-{odd}"), 2));
    bench.operate(&Operation::Drop { id: format!("n-{odd}") }).await;
    bench.settle();
    assert!(bench.letters().is_empty());
}

#[tokio::test]
async fn an_unproven_all_clear_is_told_and_does_not_stand() {
    let mut bench = Bench::new();
    bench.deliver(true, &item("a", "malicious", 1)).await;
    bench.deliver(false, &item("b", "clean", 2)).await;
    bench.deliver(true, &item("c", "malicious", 3)).await;
    bench.settle();
    let standings: Vec<_> = bench.events().iter().map(|event| event.standing).collect();
    assert_eq!(standings, [Standing::Latest, Standing::Contested, Standing::Latest]);
}

#[tokio::test]
async fn the_same_id_with_another_content_is_two_events_and_counted() {
    let mut bench = Bench::new();
    bench.deliver(true, &item("a", "clean", 1)).await;
    bench.deliver(true, &item("a", "malicious", 1)).await;
    bench.settle();
    assert_eq!(bench.events().len(), 2);
    assert_eq!(bench.count("verdict_relay_dedup_conflicts_total{source=\"ci\"}"), 1);
}

#[tokio::test]
async fn a_lost_ledger_comes_back_the_same() {
    let mut bench = Bench::new();
    for (number, verdict) in ["malicious", "clean", "suspicious"].into_iter().enumerate() {
        bench.deliver(true, &item(verdict, verdict, i64::try_from(number).expect("small"))).await;
    }
    bench.deliver(true, "{}").await;
    bench.settle();
    let again = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(again.path()).expect("opens"));
    let (events, letters) = (bench.events(), bench.letters());
    bench.normalizer.reader = bench.journal.reader(0);
    bench.normalizer.ledger = ledger.clone();
    bench.ledger = ledger;
    bench.settle();
    assert_eq!((bench.events(), bench.letters()), (events, letters));
}

#[tokio::test]
async fn no_poisoning_hides_the_malicious_event_from_a_sink_or_softens_what_stands() {
    let of = |id: &str, verdict: &str, second: i64| item(id, verdict, second);
    let malicious = of("a", "malicious", 10);
    // What a stranger or a replayer sends before and after the signed malicious one, and whether it is signed itself.
    let tries = [
        ("its id was posted first as clean, unproven", vec![(false, of("a", "clean", 10))], vec![]),
        (
            "its id was posted first as clean, with the very same time, signed",
            vec![(true, of("a", "clean", 10))],
            vec![],
        ),
        ("an unproven clean from 2099 came first", vec![(false, of("z", "clean", 2_300_000_000))], vec![]),
        ("an unproven clean from 2099 comes after", vec![], vec![(false, of("z", "clean", 2_300_000_000))]),
        ("an old signed clean is replayed", vec![(true, of("o", "clean", 1))], vec![(true, of("o", "clean", 1))]),
        ("an unproven clean comes after", vec![], vec![(false, of("n", "clean", 20))]),
        (
            "an unproven worse, then clean",
            vec![],
            vec![(false, of("w", "malicious", 20)), (false, of("n", "clean", 30))],
        ),
        (
            "an unproven unknown and error come after",
            vec![],
            vec![(false, of("u", "unknown", 20)), (false, of("e", "error", 30))],
        ),
    ];
    for (name, before, after) in tries {
        let mut bench = Bench::new();
        for (signed, body) in before {
            bench.deliver(signed, &body).await;
        }
        bench.deliver(true, &malicious).await;
        for (signed, body) in after {
            bench.deliver(signed, &body).await;
        }
        bench.settle();
        let events = bench.events();
        let told =
            events.iter().find(|event| event.finding.verdict == Verdict::Malicious && event.auth == Auth::Signature);
        let told = told.unwrap_or_else(|| panic!("{name}: no sink hears of it"));
        assert_eq!(told.standing, Standing::Latest, "{name}");
        let (key, source) = (told.finding.subject.key(), source());
        let record = |transaction: &mut Transaction<'_>| Ok(transaction.known(&key, &source)?.record::<Latest>());
        let record = bench.ledger.transact(record).expect("readable").expect("kept");
        assert_eq!(record.verdict, Verdict::Malicious, "{name}");
        assert!(record.finding_open, "{name}");
    }
}

/// An adapter that takes its time, as a user's jq may.
struct Slow;

impl Adapter for Slow {
    fn provider(&self) -> &'static str {
        "slow"
    }

    fn normalize(&self, _: &Delivery) -> Result<Vec<Result<Outcome, adapter::ItemError>>, NormalizeError> {
        std::thread::sleep(BATCH_TIME_MAX / 2);
        Err(NormalizeError::Field("jq: stopped".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_messages_hold_the_ledger_for_a_moment_at_a_time() {
    let mut bench = Bench::new();
    bench.normalizer.sources.insert(source(), Reading { adapter: Arc::new(Slow), asks: false, remembers: false });
    let mut last = 0;
    for _ in 0..7 {
        last = bench.deliver(true, "{}").await;
    }
    let mut steps = 0;
    while bench.ledger.head().borrow().sequence < last {
        let began = Instant::now();
        bench.normalizer.step().expect("reads");
        assert!(began.elapsed() < BATCH_TIME_MAX * 4, "a step of {:?}", began.elapsed());
        steps += 1;
    }
    assert!(steps >= 2, "{steps} steps");
    assert_eq!(bench.ledger.reader().expect("opens").dead_letters(None, 100).expect("reads").len(), 7);
    assert_eq!(bench.normalizer.step().expect("reads"), Step::Nothing);
}
