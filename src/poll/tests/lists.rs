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
