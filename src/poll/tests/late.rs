//! Analyses that were announced.

use super::*;

async fn announce(bench: &mut Bench, wanted: Wanted, within_ms: u64) {
    let expect = Expectation::Expect { wanted, within_ms };
    bench.append(Kind::Expect, Vec::new(), serde_json::to_string(&expect).expect("plain data"), noon()).await;
    bench.settle();
}

fn seconds(seconds: u64) -> Timestamp {
    after(noon(), Duration::from_secs(seconds))
}

fn overdue(bench: &Bench) -> Vec<(String, &'static str)> {
    let overdue = bench.events().into_iter().filter(|event| event.topic == Topic::Overdue);
    overdue.map(|event| (event.finding.reason.clone().expect("says why"), event.auth.word())).collect()
}

const COMPLETED: &str = include_str!("../../../tests/payloads/virustotal/v3_analysis_completed.json");
const ID: &str = "NDRkODg2MTJmZWE4YThmMzZkZTgyZTEyNzhhYmIwMmY6MTc3NDI2NzA4MA==";

#[tokio::test(flavor = "multi_thread")]
async fn what_reports_in_time_is_not_asked_for() {
    let platform = Platform::start().await;
    let mut bench = vt(&platform, &json!({})).await;
    announce(&mut bench, Wanted::Id(ID.to_owned()), 10_000).await;
    announce(&mut bench, Wanted::Sha256(SHA256.parse().expect("a hash")), 10_000).await;
    bench.deliver(signed(), COMPLETED).await;
    bench.settle();
    bench.run_until(noon(), seconds(120)).await;
    assert_eq!((bench.events().len(), platform.asked().len()), (1, 0));
    // Announced just after it reported, by its hash.
    announce(&mut bench, Wanted::Sha256(SHA256.parse().expect("a hash")), 10_000).await;
    bench.run_until(seconds(120), seconds(240)).await;
    assert_eq!((bench.events().len(), platform.asked().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_result_is_asked_for_once_and_comes() {
    let platform = Platform::start().await;
    platform.on("/api/v3/analyses/", [ok(COMPLETED)]);
    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    let mut bench = vt(&platform, &json!({})).await;
    announce(&mut bench, Wanted::Id(ID.to_owned()), 10_000).await;
    bench.run_until(noon(), seconds(9)).await;
    assert!(platform.asked().is_empty(), "it has its time");
    bench.run_until(seconds(9), seconds(120)).await;
    assert_eq!(platform.asked(), [format!("/api/v3/analyses/{ID}")]);
    announce(&mut bench, Wanted::Sha256("a".repeat(64).parse().expect("a hash")), 180_000).await;
    let mut other: Value = serde_json::from_str(VT_FILE).expect("JSON");
    other["data"]["id"] = "a".repeat(64).into();
    other["data"]["attributes"]["sha256"] = "a".repeat(64).into();
    platform.on("/api/v3/files/", [ok(&other)]);
    bench.run_until(seconds(120), seconds(300)).await;
    let told: Vec<_> = bench.events().iter().map(|event| (event.topic, event.auth.word())).collect();
    assert_eq!(told, [(Topic::Verdict, "confirmed"); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_does_not_have_either_is_overdue_once_and_may_still_come() {
    let queued = include_str!("../../../tests/payloads/virustotal/v3_analysis_queued.json");
    for (answer, words, auth) in [
        (error(404, "NotFoundError"), "does not know it", "confirmed"),
        (ok(queued), "has not finished it", "confirmed"),
        (ok("no JSON"), "could not be read", "confirmed"),
        (error(403, "ForbiddenError"), "ForbiddenError", "confirmed"),
        (error(503, "TransientError"), "cannot be asked", "none"),
        (error(401, "WrongCredentialsError"), "cannot be asked", "none"),
    ] {
        let platform = Platform::start().await;
        platform.on("/api/v3/analyses/", [answer]);
        let mut bench = vt(&platform, &json!({})).await;
        announce(&mut bench, Wanted::Id("dGhpcy1vbmU=".to_owned()), 10_000).await;
        bench.run_until(noon(), seconds(200)).await;
        let told = overdue(&bench);
        assert_eq!(told.len(), 1, "{words}");
        assert!(told[0].0.starts_with("no report within 10 s: ") && told[0].0.contains(words), "{told:?}");
        assert_eq!(told[0].1, auth, "{words}");
        bench.restart().await;
        bench.run_until(seconds(200), seconds(400)).await;
        assert_eq!(overdue(&bench).len(), 1, "told once");
        let late = COMPLETED.replace(ID, "dGhpcy1vbmU=");
        let before = bench.events().len();
        bench.deliver(signed(), &late).await;
        bench.settle();
        assert_eq!(bench.events().len(), before + 1, "a late report is an event of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_and_called_overdue_is_the_same_after_the_ledger_is_lost() {
    let platform = Platform::start().await;
    let mut bench = vt(&platform, &json!({})).await;
    announce(&mut bench, Wanted::Id("a".to_owned()), 10_000).await;
    announce(&mut bench, Wanted::Id("b".to_owned()), 600_000).await;
    bench.run_until(noon(), seconds(100)).await;
    let events = bench.events();
    assert_eq!(events.len(), 1);
    let again = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(Ledger::open(again.path()).expect("opens"));
    bench.normalizer.reader = bench.journal.reader(0);
    bench.normalizer.ledger = ledger.clone();
    bench.ledger = ledger;
    bench.settle();
    assert_eq!(bench.events(), events);
    assert_eq!(bench.ledger.reader().expect("opens").expectations(&source()).expect("readable"), 1);
}
