//! Messages that only point to a report, and those that nothing proves.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_becomes_the_confirmed_report_that_it_points_to() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    let mut bench = vt(&platform, &json!({})).await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.settle();
    assert_eq!((bench.events().len(), bench.waiting()), (0, 1), "asked for twice, fetched once");
    assert_eq!(bench.count("verdict_relay_deliveries_total{source=\"s\",outcome=\"fetching\"}"), 2);
    bench.step(noon()).await;
    let events = bench.events();
    assert_eq!((events.len(), bench.waiting(), bench.letters().len()), (1, 0, 0));
    assert_eq!(
        (events[0].auth, events[0].finding.subject.sha256().map(|hash| hash.to_string())),
        (Auth::Confirmed, Some(SHA256.to_owned()))
    );
    let request = platform.script.lock().expect("not poisoned").asked.last().expect("asked").clone();
    assert_eq!(request.0, format!("/api/v3/files/{SHA256}"));
    assert!(
        request.1.to_ascii_lowercase().contains("x-apikey: key-of-more-than-twenty-four-bytes\r\n"),
        "{}",
        request.1
    );
    bench.step(after(noon(), Duration::from_mins(1))).await;
    assert_eq!(platform.asked().len(), 1, "and never again");
    assert_eq!(bench.state().state, "ok");
    assert_eq!(bench.count("verdict_relay_api_quota_remaining{source=\"s\",quota=\"api_requests_hourly\"}"), 359_987);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_pointer_and_report_loses_nothing() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    let mut bench = vt(&platform, &json!({})).await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.settle();
    let asked = json!({"poll": {"keys": ["key"], "url": platform.url()}});
    // The ledger is lost along with the process: everything in it comes from the journal.
    let Bench { folder, journal, ledger, normalizer, poller, .. } = bench;
    drop((journal, ledger, normalizer, poller));
    for part in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        drop(fs::remove_file(folder.path().join(part)));
    }
    let mut bench = Bench::open(folder, "virustotal", &asked).await;
    bench.settle();
    assert_eq!(bench.waiting(), 1);
    // Fetched and in the journal, and the process ends before it is normalized: it is fetched again, and is one event.
    bench.poller.step(noon()).await.expect("works");
    bench.restart().await;
    bench.poller.step(noon()).await.expect("works");
    bench.settle();
    assert_eq!((bench.events().len(), bench.waiting()), (1, 0));
    assert_eq!(bench.count("verdict_relay_deliveries_total{source=\"s\",outcome=\"duplicate\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nothing_proves_says_nothing_before_it_is_confirmed() {
    let platform = Platform::start().await;
    let mut bench = vt(&platform, &json!({})).await;
    // Somebody claims that the file is clean; the platform knows better.
    let lie = include_str!("../../../tests/payloads/virustotal/v3_file_report_clean.json");
    let clean: Value = serde_json::from_str(lie).expect("JSON");
    let sha256 = clean["data"]["attributes"]["sha256"].as_str().expect("a hash").to_owned();
    let mut truth: Value = clean.clone();
    truth["data"]["attributes"]["last_analysis_stats"]["malicious"] = 40.into();
    truth["data"]["attributes"]["last_analysis_date"] = 1_774_267_080.into();
    platform.on(&sha256, [ok(&truth)]);
    bench.deliver(How::Network, lie).await;
    bench.settle();
    assert_eq!((bench.events().len(), bench.waiting()), (0, 1));
    bench.step(noon()).await;
    let events = bench.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].auth.word(), events[0].finding.verdict.word()), ("confirmed", "malicious"));
    // What cannot be asked for is told for what it is.
    let address = json!({"data": {"type": "ip_address", "id": "2001:db8::1", "attributes": {
        "last_analysis_stats": {"malicious": 9, "suspicious": 0, "harmless": 0, "undetected": 0}, "last_analysis_date": 1_774_267_080}}});
    bench.deliver(How::Network, &address).await;
    // A signed one needs no confirmation.
    bench.deliver(signed(), VT_FILE).await;
    bench.settle();
    let auths: Vec<_> = bench.events().iter().map(|event| event.auth.word()).collect();
    assert_eq!(auths, ["confirmed", "none", "signature"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_not_finished_is_waited_for_and_not_stored() {
    let platform = Platform::start().await;
    let queued = include_str!("../../../tests/payloads/virustotal/v3_analysis_queued.json");
    let completed = include_str!("../../../tests/payloads/virustotal/v3_analysis_completed.json");
    platform.on("/item", [ok(queued), ok(queued), ok(completed)]);
    let mut bench = vt(&platform, &json!({})).await;
    let private =
        json!({"data": {"type": "private_analysis", "id": "NDRkODg2", "attributes": {"status": "completed"}}});
    bench.deliver(signed(), &private).await;
    bench.settle();
    let before = bench.sequence();
    let mut now = noon();
    let mut waits = Vec::new();
    while bench.events().is_empty() {
        bench.step(now).await;
        if bench.waiting() > 0 {
            let next = bench.ledger.reader().expect("opens").next_fetch(&source()).expect("readable").expect("waits");
            waits.push(next.duration_since(now).as_secs());
            now = next;
        }
    }
    assert!(matches!(waits[..], [5, 10 | 11]), "{waits:?}");
    assert_eq!(bench.sequence() - before, 1, "only the finished report is in the journal");
    assert_eq!(platform.asked(), ["/api/v3/private/analyses/NDRkODg2/item"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_never_comes_is_left_to_an_operator_who_may_try_again() {
    let platform = Platform::start().await;
    let mut bench = vt(&platform, &json!({})).await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.settle();
    let steps = bench.run_until(noon(), after(noon(), Duration::from_hours(2))).await;
    assert!(steps < 300, "{steps}");
    let asked = platform.asked().len();
    assert!((8..20).contains(&asked), "asked {asked} times within the hour that an unknown report is waited for");
    let letters = bench.letters();
    assert_eq!((letters.len(), bench.waiting(), letters[0].stage), (1, 0, Stage::Fetch));
    assert!(letters[0].id.starts_with("f-") && letters[0].reason.contains("NotFoundError"), "{:?}", letters[0]);
    assert_eq!(bench.count("verdict_relay_deliveries_total{source=\"s\",outcome=\"dead\"}"), 1);

    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    let later = after(noon(), Duration::from_hours(5));
    let redrive = Operation::Redrive { id: letters[0].id.clone() };
    bench.append(Kind::Operator, Vec::new(), serde_json::to_string(&redrive).expect("plain data"), later).await;
    bench.settle();
    assert_eq!((bench.letters().len(), bench.waiting()), (0, 1));
    bench.step(later).await;
    assert_eq!((bench.events().len(), bench.waiting()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_platform_is_not_asked_keeps_its_pointers_for_an_operator() {
    let platform = Platform::start().await;
    let mut bench = vt(&platform, &json!({})).await;
    bench.normalizer.sources.get_mut(&source()).expect("there").asks = false;
    let sequence = bench.deliver(signed(), &notification(SHA256)).await;
    bench.deliver(How::Network, VT_FILE).await;
    bench.settle();
    let letters = bench.letters();
    assert_eq!((letters.len(), bench.events().len(), bench.events()[0].auth), (1, 1, Auth::None));
    assert!(letters[0].reason.contains("confirm = {"), "{}", letters[0].reason);
    // Once it is asked, a redrive brings it.
    bench.normalizer.sources.get_mut(&source()).expect("there").asks = true;
    let redrive = Operation::Redrive { id: format!("n-{sequence}") };
    bench.append(Kind::Operator, Vec::new(), serde_json::to_string(&redrive).expect("plain data"), noon()).await;
    bench.settle();
    assert_eq!((bench.letters().len(), bench.waiting()), (0, 1));
}
