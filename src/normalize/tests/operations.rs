//! What an operator asks for: dead letters again, events again, deliveries read again.

use super::*;
use crate::event::{Activity, Again, sample};
use crate::format::Style;
use crate::store::ledger::{Cursor, Job, JobState, Work};

fn lake() -> Name {
    "lake".parse().expect("a name")
}

/// A time before everything.
fn since() -> Timestamp {
    Timestamp::from_second(1_000_000_000).expect("in range")
}

impl Bench {
    fn jobs(&self) -> Jobs {
        let (journal, ledger) = (self.journal.clone(), self.ledger.clone());
        Jobs::new(journal, ledger, self.normalizer.sources.clone(), Style::new("relay")).expect("opens")
    }

    fn job(&self) -> Job {
        self.ledger.reader().expect("opens").jobs().expect("readable").pop().expect("there is one")
    }

    /// Lets the job come to its end, with a sink that takes everything at once; how many steps it took.
    async fn work_off(&mut self, jobs: &mut Jobs) -> usize {
        for steps in 1..50 {
            jobs.step().await.expect("the store works");
            self.settle();
            if self.job().state == JobState::Done {
                return steps;
            }
            self.move_lake_to_the_end();
        }
        panic!("the job does not come to an end");
    }

    fn move_lake_to_the_end(&self) {
        let position = self.ledger.head().borrow().position;
        let cursor = Cursor { position, ..Cursor::default() };
        self.ledger.transact(|transaction| transaction.put_cursor(&lake(), &cursor)).expect("committed");
    }

    fn told_lake(&self) -> Vec<Arc<Event>> {
        let reader = self.ledger.reader().expect("opens");
        let stored = reader.events_after(Position::default(), &lake(), 10_000, 1 << 30).expect("readable");
        stored.into_iter().filter(|stored| stored.sink.is_some()).filter_map(|stored| stored.event).collect()
    }

    /// Reads as VirusTotal's from now on: malicious from so many engines.
    fn read_as_virustotal(&mut self, malicious_min: u32) {
        let options = serde_json::from_value(serde_json::json!({ "malicious_min": malicious_min })).expect("options");
        let adapter = adapter::plan("sources.ci", &AdapterName("virustotal".to_owned()), &options).expect("built");
        self.normalizer.sources.insert(source(), Reading { adapter, asks: false, remembers: false });
    }
}

fn report(malicious: u32, second: i64) -> String {
    let at = 1_774_267_200 - 1000 + second;
    format!(
        r#"{{"data":{{"type":"file","id":"{SHA256}","attributes":{{"sha256":"{SHA256}","last_analysis_date":{at},
            "last_analysis_stats":{{"malicious":{malicious},"suspicious":0,"harmless":0,"undetected":60}}}}}}}}"#
    )
}

#[tokio::test]
async fn a_refused_event_is_sent_again_once_at_a_time_and_its_letter_stays() {
    let mut bench = Bench::new();
    let letter = DeadLetter {
        id: "d-1.0-lake".to_owned(),
        stage: Stage::Deliver,
        sink: Some(lake()),
        source: source(),
        position: Position::new(1, 0),
        reason: "code 6".to_owned(),
        attempts: 1,
        first_at: since(),
        last_at: since(),
        attempt: None,
        raw: serde_json::to_vec(&sample::event(Verdict::Malicious)).expect("plain data"),
    };
    bench.ledger.transact(|transaction| transaction.put_dead_letter(&letter)).expect("committed");
    for _ in 0..2 {
        bench.operate(&Operation::Redrive { id: letter.id.clone() }).await;
    }
    bench.settle();
    let told = bench.told_lake();
    assert_eq!(told.len(), 1, "the second request found the first under way");
    assert_eq!(told[0].again, Some(Again::Redrive { letter: letter.id.clone() }));
    assert_eq!(bench.letters()[0].attempt, Some(1));
    // It is refused once more: the letter is the same, and can be sent again.
    bench.ledger.transact(|transaction| transaction.put_dead_letter(&letter)).expect("committed");
    assert_eq!((bench.letters()[0].attempt, bench.letters()[0].attempts), (None, 2));
    bench.operate(&Operation::Redrive { id: letter.id.clone() }).await;
    bench.settle();
    assert_eq!((bench.told_lake().len(), bench.letters()[0].attempt), (2, Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_tells_one_sink_what_it_asked_for_in_order_at_the_sinks_pace() {
    let mut bench = Bench::new();
    for second in 0..600 {
        let verdict = if second % 2 == 0 { "malicious" } else { "clean" };
        bench.deliver(true, &item(&second.to_string(), verdict, second)).await;
    }
    bench.settle();
    bench.move_lake_to_the_end();
    let work = Work::Replay { sink: lake(), since: since(), until: None, condition: None };
    let until = bench.ledger.head().borrow().position.0;
    bench.operate(&Operation::Begin { work, until }).await;
    bench.settle();
    let mut jobs = bench.jobs();
    jobs.step().await.expect("the store works");
    bench.settle();
    assert_eq!(bench.told_lake().len(), 250);
    for _ in 0..3 {
        jobs.step().await.expect("the store works");
        bench.settle();
    }
    assert_eq!(bench.told_lake().len(), 250, "the sink has not taken the first ones");
    bench.move_lake_to_the_end();
    // A restart: it goes on where it stood.
    let mut jobs = bench.jobs();
    bench.work_off(&mut jobs).await;
    let told = bench.told_lake();
    assert_eq!((told.len(), bench.job().found), (600, 600));
    let ids: Vec<_> = told.iter().filter_map(|event| event.finding.event_id.clone()).collect();
    assert_eq!(ids, (0..600).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(told.iter().all(|event| event.again == Some(Again::Replay)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_bounds_in_time_and_can_be_stopped() {
    let mut bench = Bench::new();
    bench.deliver(true, &item("a", "malicious", 1)).await;
    bench.settle();
    bench.move_lake_to_the_end();
    let received = bench.events()[0].received_at;
    let second = jiff::SignedDuration::from_secs(1);
    for (since, until, found) in [(received, None, 1), (received + second, None, 0), (since(), Some(received), 0)] {
        let work = Work::Replay { sink: lake(), since, until, condition: None };
        bench.operate(&Operation::Begin { work, until: u64::MAX >> 1 }).await;
        bench.settle();
        let mut jobs = bench.jobs();
        bench.work_off(&mut jobs).await;
        assert_eq!(bench.job().found, found, "{since} {until:?}");
    }
    let work = Work::Replay { sink: lake(), since: since(), until: None, condition: None };
    bench.operate(&Operation::Begin { work, until: u64::MAX >> 1 }).await;
    bench.settle();
    let told = bench.told_lake().len();
    bench.operate(&Operation::Stop { job: bench.job().id }).await;
    bench.settle();
    bench.jobs().step().await.expect("the store works");
    bench.settle();
    assert_eq!((bench.job().state, bench.told_lake().len()), (JobState::Stopped, told));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_again_emits_what_differs_names_what_it_corrects_and_nothing_twice() {
    let mut bench = Bench::new();
    bench.read_as_virustotal(3);
    bench.deliver(true, &report(5, 1)).await;
    bench.deliver(true, &report(20, 2)).await;
    bench.deliver(true, &report(20, 2)).await;
    bench.settle();
    let first = bench.events();
    assert_eq!(first.iter().map(|event| event.finding.verdict).collect::<Vec<_>>(), [Verdict::Malicious; 2]);
    for (malicious_min, corrected) in [(3, 0), (10, 1), (10, 0), (3, 0), (30, 1)] {
        bench.read_as_virustotal(malicious_min);
        let work = Work::Renormalize { source: source(), since: since() };
        let until = *bench.journal.durable().borrow();
        bench.operate(&Operation::Begin { work, until }).await;
        bench.settle();
        let before = bench.events().len();
        let mut jobs = bench.jobs();
        bench.work_off(&mut jobs).await;
        let new = &bench.events()[before..];
        assert_eq!((new.len(), bench.job().found), (corrected, corrected as u64), "from {malicious_min} engines");
        for event in new {
            let was = first.iter().find(|was| Some(was.uid) == event.corrects).expect("it names one of the first");
            assert_eq!(was.finding.analysed_at, event.finding.analysed_at);
            assert_eq!((event.finding.verdict, event.received_at), (Verdict::Suspicious, was.received_at));
            assert_eq!(event.auth, was.auth);
        }
    }
    // The last correction is of the report that stood: it stands now, though it is milder and as old.
    let last = bench.events().pop().expect("there are some");
    assert_eq!((last.standing, last.activity), (Standing::Latest, Activity::Update));
    assert_eq!(last.previous.map(|previous| previous.verdict), Some(Verdict::Malicious));
}
