//! VirusTotal's IoC stream and retrohunts.

use super::*;

/// A page of the IoC stream with these notifications: id, date, and how many engines hit.
fn page(entries: &[(u64, i64)], cursor: Option<&str>) -> Value {
    let entry = |(id, date): &(u64, i64)| {
        let mut file: Value = serde_json::from_str::<Value>(VT_FILE).expect("JSON")["data"].clone();
        file["id"] = format!("{id:064}").into();
        file["attributes"]["sha256"] = format!("{id:064}").into();
        file["context_attributes"] =
            json!({"notification_id": id.to_string(), "notification_date": date, "origin": "hunting"});
        file
    };
    json!({"data": entries.iter().map(entry).collect::<Vec<_>>(), "meta": {"cursor": cursor}})
}

const NOON: i64 = 1_774_353_600;

async fn stream(platform: &Platform, stream: &str) -> Bench {
    vt(platform, &json!({"streams": [stream], "every": "1m"})).await
}

fn decoded(path: &str) -> String {
    path.replace("%3A", ":").replace("%2B", "+")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ioc_stream_is_read_page_by_page_and_goes_on_where_it_was() {
    assert_eq!(noon().as_second(), NOON);
    let platform = Platform::start().await;
    platform.on("/ioc_stream", [ok(&page(&[(1, NOON - 300), (2, NOON - 200)], Some("c1")))]);
    platform.on("cursor=c1", [ok(&page(&[(3, NOON - 100)], None))]);
    let mut bench = stream(&platform, "ioc_stream").await;
    bench.step(noon()).await;
    assert_eq!(bench.events().len(), 3);
    let asked: Vec<String> = platform.asked().iter().map(|path| decoded(path)).collect();
    assert_eq!(
        asked,
        [
            "/api/v3/ioc_stream?limit=40&order=date+&filter=date:2026-03-23T12:00:00+",
            "/api/v3/ioc_stream?limit=40&order=date+&filter=date:2026-03-23T12:00:00+&cursor=c1"
        ]
    );
    // What stands on the second of the mark comes again, is known, and is not stored.
    platform.on("/ioc_stream", [ok(&page(&[(3, NOON - 100)], None))]);
    let stored = bench.sequence();
    bench.run_until(after(noon(), Duration::from_secs(1)), after(noon(), Duration::from_mins(10))).await;
    assert_eq!((bench.events().len(), bench.sequence()), (3, stored));
    assert!(decoded(&platform.asked()[0]).contains("filter=date:2026-03-24T11:58:20+"));

    bench.restart().await;
    platform.on("/ioc_stream", [ok(&page(&[(3, NOON - 100), (4, NOON + 700)], None))]);
    let later = after(noon(), Duration::from_mins(12));
    bench.step(later).await;
    assert!(
        decoded(&platform.asked()[0]).contains("filter=date:2026-03-24T11:58:20+"),
        "the mark is kept over a restart"
    );
    assert_eq!(bench.events().len(), 4);
    let lag = bench.poller.metrics.text();
    assert!(lag.contains("verdict_relay_poll_lag_seconds{source=\"s\",stream=\"ioc_stream\"} 0.0"), "{lag}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_days_behind_is_an_alarm_before_the_entries_vanish() {
    let platform = Platform::start().await;
    platform.on("/ioc_stream", [ok(&page(&[(1, NOON - 100)], None)), error(503, "TransientError")]);
    let mut bench = stream(&platform, "ioc_stream").await;
    bench.step(noon()).await;
    let day = Duration::from_hours(24);
    for (days, alarmed) in [(4, false), (5, true), (6, true)] {
        bench.step(after(noon(), day * days)).await;
        assert_eq!(bench.poller.streams.is_alarmed(), alarmed, "{days} days");
        let lag = format!("verdict_relay_poll_lag_seconds{{source=\"s\",stream=\"ioc_stream\"}} {}.0", 86_400 * days);
        assert!(bench.poller.metrics.text().contains(&lag), "{lag}");
    }
    platform.on("/ioc_stream", [ok(&page(&[], None))]);
    bench.step(after(noon(), day * 7)).await;
    assert!(!bench.poller.streams.is_alarmed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_too_old_is_dropped_and_a_wrong_question_rests_for_an_hour() {
    let platform = Platform::start().await;
    let pages: Vec<Answered> = (1..=6)
        .map(|id| ok(&page(&[(id, NOON - 600 + i64::try_from(id).expect("small"))], Some(&format!("c{id}")))))
        .collect();
    platform.on("/ioc_stream", pages);
    let mut bench = stream(&platform, "ioc_stream").await;
    bench.step(noon()).await;
    assert_eq!(bench.events().len(), 5, "five pages at most a step");
    platform.on("/ioc_stream", [error(400, "InvalidArgumentError")]);
    platform.asked();
    bench.run_until(after(noon(), Duration::from_mins(1)), after(noon(), Duration::from_hours(1))).await;
    let asked = platform.asked();
    assert_eq!(asked.len(), 2, "once with the cursor, once without: {asked:?}");
    assert!(asked[0].contains("cursor=c5") && !asked[1].contains("cursor"));
    assert_eq!(bench.state().state, "misconfigured");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matches_of_a_finished_retrohunt_come_once() {
    let platform = Platform::start().await;
    let job = |id: &str, status: &str, finished: i64| json!({"type": "retrohunt_job", "id": id, "attributes": {"status": status, "finish_date": finished}});
    let jobs = json!({"data": [
        job("user-2", "running", NOON), job("user-1", "finished", NOON - 60), job("user-0", "finished", NOON - 10 * 86_400),
        job("../users/me", "finished", NOON - 60),
    ]});
    platform.on("/retrohunt_jobs", [ok(&jobs)]);
    let matches = |ids: &[(u64, i64)], cursor| {
        let mut page = page(ids, cursor);
        for file in page["data"].as_array_mut().expect("a list") {
            file.as_object_mut().expect("an object").remove("context_attributes");
        }
        page
    };
    platform.on("/user-1/matching_files", [ok(&matches(&[(1, 0), (2, 0)], Some("m1")))]);
    platform.on("cursor=m1", [ok(&matches(&[(3, 0)], None))]);
    let mut bench = stream(&platform, "retrohunt").await;
    bench.step(noon()).await;
    assert_eq!(bench.events().len(), 3);
    let asked = platform.asked();
    assert_eq!(asked.len(), 3, "one job of four, two pages: {asked:?}");
    bench.restart().await;
    bench.run_until(after(noon(), Duration::from_mins(1)), after(noon(), Duration::from_mins(5))).await;
    assert!(platform.asked().iter().all(|path| !path.contains("matching_files")), "the job is done, over a restart");
}
