//! The table of errors, row by row: what the loop does, and when it asks again.

use super::*;

/// A bench with two keys and one report that waits.
async fn waiting(platform: &Platform) -> Bench {
    let mut bench = vt(platform, &json!({"keys": ["key", "other"]})).await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.settle();
    bench
}

/// How long until the report is asked for again, in seconds, and how the source stands.
async fn after_one_try(platform: &Platform, bench: &mut Bench) -> (i64, &'static str) {
    bench.step(noon()).await;
    platform.asked();
    let (mut now, end) = (noon(), after(noon(), Duration::from_hours(24 * 40)));
    while now < end {
        let next = bench.step(now).await;
        if !platform.asked().is_empty() {
            break;
        }
        now = next.max(after(now, Duration::from_millis(50)));
    }
    (now.duration_since(noon()).as_secs(), bench.state().state)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_waits_as_long_as_its_row_says() {
    for (status, code, seconds, state) in [
        // A fault of the question: the report waits, an operator reads of it.
        (400, "BadRequestError", 600..=661, "misconfigured"),
        (400, "InvalidArgumentError", 600..=661, "misconfigured"),
        (400, "UnselectiveContentQueryError", 600..=661, "misconfigured"),
        (400, "UnsupportedContentQueryError", 600..=661, "misconfigured"),
        (400, "NotAvailableYet", 60..=67, "ok"),
        (401, "AuthenticationRequiredError", 600..=661, "misconfigured"),
        (403, "ForbiddenError", 600..=661, "misconfigured"),
        (404, "NotFoundError", 5..=6, "ok"),
        (424, "FailedDependencyError", 0..=2, "backoff"),
        // The minute window, with some chance; the other key draws on the same group, so it waits, too.
        (429, "TooManyRequestsError", 60..=67, "backoff"),
        // Until 00:00 UTC, and a tenth of that at most.
        (429, "QuotaExceededError", 43_200..=47_521, "quota"),
        (503, "TransientError", 0..=2, "backoff"),
        (504, "DeadlineExceededError", 0..=2, "backoff"),
    ] {
        let platform = Platform::start().await;
        platform.on("/api/v3/files/", [error(status, code)]);
        let mut bench = waiting(&platform).await;
        let (waited, stands) = after_one_try(&platform, &mut bench).await;
        assert!(seconds.contains(&waited), "{code}: asked again after {waited} s");
        assert_eq!((stands, bench.waiting(), bench.events().len()), (state, 1, 0), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_is_not_asked_for_again() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [error(409, "AlreadyExistsError")]);
    let mut bench = waiting(&platform).await;
    bench.step(noon()).await;
    assert_eq!((bench.waiting(), bench.letters().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_left_at_once_and_tried_again_every_five_minutes() {
    for code in ["WrongCredentialsError", "UserNotActiveError"] {
        let platform = Platform::start().await;
        platform.on("/api/v3/files/", [ok(VT_FILE)]);
        platform.on_key("key-of-more", error(401, code));
        let mut bench = waiting(&platform).await;
        bench.step(noon()).await;
        assert_eq!(
            (bench.events().len(), bench.state().state),
            (1, "ok"),
            "the other key brought it, in the same step"
        );
        let states = |bench: &Bench| bench.state().keys.iter().map(|key| key.state).collect::<Vec<_>>();
        assert_eq!(states(&bench), [KeyState::Bad, KeyState::Active]);
        assert!(bench.state().keys[0].reason.contains(code));

        platform.on_key("other-of-more", error(401, code));
        bench.deliver(signed(), &notification(&SHA256.replace('2', "3"))).await;
        bench.settle();
        let now = after(noon(), Duration::from_secs(1));
        let next = bench.step(now).await;
        assert_eq!((bench.state().state, bench.waiting()), ("auth_failed", 1));
        // The first key is due again 5 minutes after it was refused, and not earlier.
        assert_eq!(next.duration_since(now).as_secs(), 60, "nothing sleeps longer than a minute");
        let before = platform.script.lock().expect("not poisoned").asked.len();
        bench.run_until(now, after(noon(), Duration::from_secs(299))).await;
        assert_eq!(platform.script.lock().expect("not poisoned").asked.len(), before, "nobody knocks in between");
        platform.forgive("key-of-more");
        bench.run_until(after(noon(), Duration::from_secs(299)), after(noon(), Duration::from_secs(310))).await;
        assert_eq!((bench.state().state, states(&bench)[0]), ("ok", KeyState::Active));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_of_a_refused_key_is_tried_at_once() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    for key in ["key-of-more", "other-of-more"] {
        platform.on_key(key, error(401, "WrongCredentialsError"));
    }
    let mut bench = waiting(&platform).await;
    bench.step(noon()).await;
    assert_eq!(bench.state().state, "auth_failed");
    fs::write(bench.folder.path().join("other"), "fresh-value-with-more-than-24-bytes").expect("written");
    bench.step(after(noon(), Duration::from_secs(1))).await;
    assert_eq!(bench.events().len(), 0, "nobody has read it");
    bench.poller.session.refresh_keys().await;
    bench.step(after(noon(), Duration::from_secs(2))).await;
    assert_eq!((bench.events().len(), bench.state().state), (1, "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_privilege_changes_no_key() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [error(403, "ForbiddenError")]);
    let mut bench = waiting(&platform).await;
    bench.step(noon()).await;
    assert_eq!(platform.asked().len(), 1, "the other key was not tried");
    assert_eq!(bench.state().keys[0].state, KeyState::Active);
    assert!(bench.state().reason.contains("lacks the privilege"), "{}", bench.state().reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_that_the_platform_states_is_kept() {
    let platform = Platform::start().await;
    let stated = Answered { headers: vec![("Retry-After", "7200".to_owned())], ..error(429, "QuotaExceededError") };
    platform.on("/api/v3/files/", [stated]);
    let mut bench = waiting(&platform).await;
    let (waited, _) = after_one_try(&platform, &mut bench).await;
    assert!((7200..=7921).contains(&waited), "{waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_larger_than_the_quota_ends() {
    let platform = Platform::start().await;
    platform.on("/api/v3/files/", [ok(VT_FILE)]);
    let quota = |allowed: u64, used: u64| json!({"user": {"allowed": allowed, "used": used}});
    let small = json!({"data": {"api_requests_hourly": quota(240, 237), "api_requests_daily": quota(500, 10)}});
    platform.on(QUOTAS_OF, [ok(&small)]);
    let mut bench = vt(&platform, &json!({})).await;
    for number in 0..8 {
        bench.deliver(signed(), &notification(&format!("{number:064}"))).await;
    }
    bench.settle();
    let hour = after(noon(), Duration::from_mins(59));
    let steps = bench.run_until(noon(), hour).await;
    assert!(steps < 200, "{steps}");
    // Read again within the hour, the quotas still say 3; what we counted stands between.
    let used = json!({"data": {"api_requests_hourly": quota(240, 240), "api_requests_daily": quota(500, 13)}});
    platform.on(QUOTAS_OF, [ok(&used)]);
    let asked = platform.asked().len();
    assert!(asked <= 18, "{asked} requests where 3 were left, read anew six times");
    let fresh = json!({"data": {"api_requests_hourly": quota(240, 0), "api_requests_daily": quota(500, 13)}});
    platform.on(QUOTAS_OF, [ok(&fresh)]);
    bench.run_until(hour, after(noon(), Duration::from_mins(90))).await;
    assert_eq!(bench.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_not_there_is_asked_less_and_less() {
    let platform = Platform::start().await;
    let mut bench = Bench::new(
        "virustotal",
        // Nobody listens on port 1.
        &json!({"poll": {"keys": ["key"], "url": "http://127.0.0.1:1", "timeout": "1s"}}),
    )
    .await;
    bench.deliver(signed(), &notification(SHA256)).await;
    bench.settle();
    let steps = bench.run_until(noon(), after(noon(), Duration::from_mins(30))).await;
    assert!(steps < 60, "{steps}");
    assert_eq!((bench.state().state, bench.waiting()), ("backoff", 1));
    assert!(bench.state().reason.contains("cannot connect to http://127.0.0.1:1"), "{}", bench.state().reason);
    assert!(!bench.state().reason.contains("key-of-more"), "the key is in the path of the quotas");
    // After a day an operator decides.
    bench.run_until(after(noon(), Duration::from_mins(30)), after(noon(), Duration::from_hours(25))).await;
    assert_eq!((bench.waiting(), bench.letters().len()), (0, 1));
    drop(platform);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_given_up() {
    let platform = Platform::start().await;
    let huge = format!("{{\"data\": \"{}\"}}", "x".repeat(33 << 20));
    platform.on("/api/v3/files/", [ok(&huge)]);
    let mut bench = waiting(&platform).await;
    bench.step(noon()).await;
    assert!(bench.letters()[0].reason.contains("larger than this version takes"), "{:?}", bench.letters());
}
