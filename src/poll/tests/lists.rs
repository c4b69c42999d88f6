//! Analyses whose callback was lost.

use super::*;

const LIST: &str = include_str!("../../../tests/payloads/vileanalyziz/files_list_poll.json");

async fn vile(platform: &Platform) -> Bench {
    let asked = json!({
        "confirm": {"url": platform.url(), "key": "key", "timeout": "5s"},
        "reconcile": {"every": "5m"},
    });
    Bench::new("vileanalyziz", &asked).await
}

const CAPE_REPORT: &str = include_str!("../../../tests/payloads/cape/report_trimmed.json");

async fn cape(platform: &Platform) -> Bench {
    let asked = json!({
        "confirm": {"url": platform.url(), "key": "key", "timeout": "5s"},
        "reconcile": {"every": "5m"},
    });
    Bench::new("cape", &asked).await
}

/// CAPE's report of a task, about a file of its own.
fn cape_report(task: u64) -> String {
    CAPE_REPORT.replace("\"id\": 1234", &format!("\"id\": {task}")).replace(SHA256, &format!("{task:064}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn capes_tasks_are_listed_and_only_those_of_which_nothing_was_heard_are_fetched() {
    let platform = Platform::start().await;
    platform.on("/apiv2/tasks/list/100/0/", [ok(&json!({"data": [{"id": 3}, {"id": 2}, {"id": 1}]}))]);
    platform.on("/apiv2/tasks/list/100/3/", [ok(&json!({"data": []}))]);
    for task in 1..=3 {
        platform.on(&format!("/report/{task}/"), [ok(&cape_report(task))]);
    }
    let analyzing = json!({"error": true, "error_value": "Task is still being analyzed"});
    platform.on("/report/2/", [ok(&analyzing), ok(&cape_report(2))]);
    let mut bench = cape(&platform).await;
    // The callback of one of them came, and its report is fetched for that.
    bench.deliver(How::Network, r#"{"task_id": 2}"#).await;
    bench.settle();
    bench.run_until(noon(), minutes(1)).await;
    let events = bench.events();
    assert_eq!((events.len(), bench.waiting()), (3, 0));
    assert!(events.iter().all(|event| event.auth == Auth::Confirmed));
    let asked = platform.asked();
    let of = |part: &str| asked.iter().filter(|path| path.contains(part)).count();
    assert_eq!((of("/report/1/"), of("/report/2/"), of("/report/3/"), of("/list/")), (1, 2, 1, 2), "{asked:?}");
    assert_eq!(asked[0], "/apiv2/tasks/get/report/2/json/");
    bench.restart().await;
    let stored = bench.sequence();
    bench.run_until(minutes(1), minutes(130)).await;
    assert_eq!((bench.events().len(), bench.sequence()), (3, stored), "known over a restart and a deep round");
    assert!(platform.asked().iter().all(|path| path.contains("/list/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_failed_there_is_left_to_an_operator_at_once() {
    let platform = Platform::start().await;
    platform.on("/report/7/", [ok(&json!({"error": true, "error_value": "Task failed"}))]);
    platform.on("/list/", [ok(&json!({"data": []}))]);
    let mut bench = cape(&platform).await;
    bench.deliver(How::Network, r#"{"task_id": 7}"#).await;
    bench.settle();
    bench.step(noon()).await;
    assert_eq!((bench.waiting(), bench.letters().len()), (0, 1));
    assert!(bench.letters()[0].reason.contains("the analysis failed there"), "{:?}", bench.letters());
}

#[tokio::test(flavor = "multi_thread")]
async fn assemblylines_submission_is_one_event_by_webhook_and_by_list() {
    let platform = Platform::start().await;
    let webhook = include_str!("../../../tests/payloads/assemblyline/webhook_submission_completed.json");
    let submission = serde_json::from_str::<Value>(webhook).expect("JSON")["submission"].clone();
    let mut other = submission.clone();
    other["sid"] = "5gYlVbCaMqM2UODrGrGiWG".into();
    other["files"][0]["sha256"] = "a".repeat(64).into();
    let item = |of: &Value| json!({"sid": of["sid"], "state": "completed"});
    let list = json!({"api_response": {"items": [item(&other), item(&submission)], "total": 2, "offset": 0}});
    platform.on("/api/v4/submission/list/group/ALL/", [ok(&list)]);
    platform.on("/api/v4/submission/5gY", [ok(&json!({"api_response": other, "api_status_code": 200}))]);
    platform.on("/api/v4/submission/4fX", [ok(&json!({"api_response": submission, "api_status_code": 200}))]);
    let asked = json!({
        "confirm": {"url": platform.url(), "key": "key", "user": "relay", "timeout": "5s"},
        "reconcile": {"every": "5m"},
    });
    let mut bench = Bench::new("assemblyline", &asked).await;
    bench.deliver(signed(), webhook).await;
    bench.settle();
    bench.run_until(noon(), minutes(20)).await;
    let auths: Vec<_> = bench.events().iter().map(|event| event.auth.word()).collect();
    assert_eq!((auths, bench.letters().len()), (vec!["signature", "confirmed"], 0));
    let asked = platform.asked();
    assert_eq!(asked.iter().filter(|path| !path.contains("/list/")).count(), 1, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn triages_samples_are_listed_and_an_unproven_overview_is_asked_for() {
    let platform = Platform::start().await;
    let overview = include_str!("../../../adapters/triage/bodies/overview.json");
    let other = overview.replace("260323-abcdefghij", "260323-klmnopqrst").replace(SHA256, &"a".repeat(64));
    let running = include_str!("../../../adapters/triage/bodies/overview_running.json");
    let item = |id: &str, status: &str| json!({"id": id, "status": status, "submitted": noon(), "completed": noon()});
    let listed = [
        item("260323-uvwxyz0123", "running"),
        item("260323-klmnopqrst", "reported"),
        item("260323-abcdefghij", "reported"),
    ];
    platform.on("/v0/samples?subset=owned", [ok(&json!({"data": listed, "next": null}))]);
    platform.on("/v0/samples/260323-abcdefghij/overview.json", [ok(&running), ok(&overview)]);
    platform.on("/v0/samples/260323-klmnopqrst/overview.json", [ok(&other)]);
    let asked = json!({
        "confirm": {"url": platform.url(), "key": "key", "timeout": "5s"},
        "reconcile": {"every": "5m"},
    });
    let mut bench = Bench::new("triage", &asked).await;
    // Anyone could have written it, so it is no event before Triage says the same.
    bench.deliver(How::Network, overview).await;
    bench.settle();
    assert_eq!((bench.events().len(), bench.waiting()), (0, 1));
    bench.run_until(noon(), minutes(20)).await;
    let auths: Vec<_> = bench.events().iter().map(|event| event.auth.word()).collect();
    assert_eq!((auths, bench.waiting(), bench.letters().len()), (vec!["confirmed", "confirmed"], 0, 0));
    let asked = platform.asked();
    let of = |part: &str| asked.iter().filter(|path| path.contains(part)).count();
    assert_eq!((of("abcdefghij"), of("klmnopqrst"), of("uvwxyz")), (2, 1, 0), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadefenders_unproven_callback_is_confirmed_by_its_id() {
    let platform = Platform::start().await;
    let infected = include_str!("../../../tests/payloads/metadefender/core_callback_infected_archive.json");
    let pending = include_str!("../../../tests/payloads/metadefender/core_result_in_progress.json");
    platform.on("/file/", [ok(pending), ok(infected)]);
    let asked = json!({"confirm": {"url": platform.url(), "key": "key", "timeout": "5s"}});
    let mut bench = Bench::new("metadefender", &asked).await;
    bench.deliver(How::Network, infected).await;
    bench.settle();
    assert_eq!((bench.events().len(), bench.waiting()), (0, 1));
    bench.run_until(noon(), minutes(1)).await;
    assert!(!bench.events().is_empty() && bench.events().iter().all(|event| event.auth == Auth::Confirmed));
    assert_eq!(platform.asked().len(), 2);
}

fn minutes(minutes: u64) -> Timestamp {
    after(noon(), Duration::from_mins(minutes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_callback_is_found_once_and_an_unchanged_list_is_not_stored_again() {
    let platform = Platform::start().await;
    platform.on("/v1/files", [ok(LIST)]);
    let mut bench = vile(&platform).await;
    bench.step(noon()).await;
    let events = bench.events();
    assert_eq!((events.len(), events[0].auth.word()), (1, "confirmed"));
    let stored = bench.sequence();
    bench.run_until(noon(), minutes(60)).await;
    bench.restart().await;
    bench.run_until(minutes(60), minutes(130)).await;
    assert_eq!((bench.events().len(), bench.sequence()), (1, stored));
    assert!(platform.asked().len() > 20, "it was read every five minutes all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_analysis_found_by_webhook_and_by_list_is_one_event() {
    let platform = Platform::start().await;
    platform.on("/v1/files", [ok(LIST)]);
    let mut bench = vile(&platform).await;
    let list: Value = serde_json::from_str(LIST).expect("JSON");
    bench.deliver(signed(), &list["files"][0]).await;
    bench.settle();
    let stored = bench.sequence();
    bench.step(noon()).await;
    assert_eq!(
        (bench.events().len(), bench.sequence()),
        (1, stored),
        "the webhook came first, so the list says nothing new"
    );

    // A new one on top of the known one: the page is stored once more, and is one more event.
    let mut longer = list.clone();
    let mut new = list["files"][0].clone();
    new["sha256"] = "a".repeat(64).into();
    new["analyzedAt"] = "2026-03-24T11:59:00Z".into();
    longer["files"].as_array_mut().expect("a list").insert(0, new.clone());
    platform.on("/v1/files", [ok(&longer)]);
    bench.run_until(minutes(5), minutes(20)).await;
    assert_eq!((bench.events().len(), bench.sequence()), (2, stored + 1));
    // And its webhook, late.
    bench.deliver(signed(), &new).await;
    bench.settle();
    assert_eq!(bench.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_to_the_page_that_is_older_than_the_round() {
    let platform = Platform::start().await;
    let page = |number: u64, at: &str, next: Value| {
        json!({"files": [{"sha256": format!("{number:064}"), "status": "completed", "verdict": "Clean", "trustScore": 90,
            "analyzedAt": at}], "nextCursor": next})
    };
    platform.on("cursor=c2", [ok(&page(3, "2026-03-22T00:00:00Z", json!("c3")))]);
    platform.on("cursor=c1", [ok(&page(2, "2026-03-24T01:00:00Z", json!("c2")))]);
    platform.on("limit=100 ", [ok("{}")]);
    platform.on("/v1/files?limit=100", [ok(&page(1, "2026-03-24T11:00:00Z", json!("c1")))]);
    for (cursor, body) in
        [("c1", page(2, "2026-03-24T01:00:00Z", json!("c2"))), ("c2", page(3, "2026-03-22T00:00:00Z", json!("c3")))]
    {
        platform.on(&format!("cursor={cursor}"), [ok(&body)]);
    }
    let mut bench = vile(&platform).await;
    bench.step(noon()).await;
    assert_eq!(
        platform.asked(),
        ["/v1/files?limit=100", "/v1/files?limit=100&cursor=c1", "/v1/files?limit=100&cursor=c2"],
        "the third page is older than a day"
    );
    assert_eq!(bench.events().len(), 3);
    bench.run_until(after(noon(), Duration::from_secs(1)), minutes(6)).await;
    assert_eq!(
        platform.asked(),
        ["/v1/files?limit=100", "/v1/files?limit=100&cursor=c1"],
        "the next round ends an hour before the first one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_given_rests_for_an_hour_and_stops_no_fetch() {
    for answer in [error(403, "x"), ok("[1, 2]")] {
        let platform = Platform::start().await;
        platform.on("/v1/files", [answer]);
        let mut bench = vile(&platform).await;
        bench.run_until(noon(), minutes(59)).await;
        assert_eq!((platform.asked().len(), bench.state().state), (1, "misconfigured"));
        platform.on("/v1/files", [ok(LIST)]);
        bench.run_until(minutes(59), minutes(62)).await;
        assert_eq!((bench.events().len(), bench.state().state), (1, "ok"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_is_kept_for_an_operator_once() {
    let platform = Platform::start().await;
    platform.on("/v1/files", [ok(r#"{"files": [{"sha256": "x", "status": "completed", "verdict": "Clean"}]}"#)]);
    let mut bench = vile(&platform).await;
    bench.run_until(noon(), minutes(30)).await;
    assert_eq!((bench.letters().len(), bench.sequence()), (1, 1));
}
