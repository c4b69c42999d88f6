//! Bodies of our own for the adapters of MetaDefender, Event Grid, AWS, Assemblyline, CAPE, and for what of VirusTotal is no report: each
//! status that their senders document, and odd ones, with what they have to become.

use serde_json::{Value as Json, json};

use super::{EICAR, Own};

/// Name, adapter, body, outcome in short.
pub(super) fn bodies() -> Vec<Own> {
    let groups = [
        ("metadefender", metadefender_codes()),
        ("metadefender", metadefender_results()),
        ("metadefender", metadefender_storage()),
        ("metadefender", metadefender_archives()),
        ("event_grid", event_grid()),
        ("aws", guardduty()),
        ("aws", sns()),
        ("assemblyline", assemblyline_scores()),
        ("assemblyline", assemblyline_states()),
        ("cape", cape_reports()),
        ("cape", cape_callbacks()),
        ("virustotal", virustotal()),
    ];
    let named = |(adapter, cases): (&'static str, Vec<Case>)| {
        cases.into_iter().map(move |(name, body, wanted)| (name, adapter, body, wanted))
    };
    groups.into_iter().flat_map(named).collect()
}

/// Name, body, outcome in short.
type Case = (&'static str, String, &'static str);

fn scan(code: impl Into<Json>, more: Json) -> String {
    let code = code.into();
    let body = json!({
        "data_id": "d1", "file_info": {"sha256": EICAR.to_uppercase()},
        "process_info": {"progress_percentage": 100, "result": "Allowed"},
        "scan_results": {"scan_all_result_i": code, "progress_percentage": 100},
    });
    merged(body, more).to_string()
}

fn metadefender_codes() -> Vec<Case> {
    let verdicts = [
        ("clean - approved", &[0, 7][..]),
        ("malicious - approved", &[1, 4, 6, 8]),
        ("suspicious - approved", &[2, 22]),
        ("error - approved", &[3, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 99, 254, 256, 1 << 40]),
        ("not_ready", &[255_u64]),
    ];
    let cases = |(wanted, codes): (&'static str, &'static [u64])| {
        codes.iter().map(move |code| ("a code", scan(*code, json!({})), wanted))
    };
    verdicts.into_iter().flat_map(cases).collect()
}

fn metadefender_results() -> Vec<Case> {
    vec![
        ("no code", scan(Json::Null, json!({})), "scan_results.scan_all_result_i is missing"),
        ("a code as text", scan("0", json!({})), "scan_results.scan_all_result_i: expected a whole number"),
        ("all zero, but on its way", scan(0, json!({"scan_results": {"progress_percentage": 99}})), "not_ready"),
        ("all zero, but processed on", scan(0, json!({"process_info": {"progress_percentage": 99}})), "not_ready"),
        (
            "clean without a progress",
            scan(0, json!({"scan_results": {"progress_percentage": null}, "process_info": null})),
            "scan_results.progress_percentage is missing",
        ),
        (
            "malicious without a progress",
            scan(1, json!({"scan_results": {"progress_percentage": null}, "process_info": null})),
            "malicious -",
        ),
        ("blocked for a policy", scan(0, json!({"process_info": {"result": "Blocked"}})), "clean - not_approved"),
        ("no hash", scan(1, json!({"file_info": {"sha256": ""}})), "file_info.sha256 is missing"),
        (
            "no scan",
            json!({"data_id": "d1", "process_info": {"progress_percentage": 100}}).to_string(),
            "scan_results is missing",
        ),
        (
            "only an id",
            json!({"data_id": "bzIwMDUyNlktM09BQ1lkSlk"}).to_string(),
            "pointer data:bzIwMDUyNlktM09BQ1lkSlk",
        ),
        (
            "only a path for an id",
            json!({"data_id": "../apikey"}).to_string(),
            "data_id: an id with characters that no id of MetaDefender has",
        ),
        ("an upload's answer", json!({"data_id": "d1", "status": "inqueue", "in_queue": 3}).to_string(), "not_ready"),
        ("an error of the API", json!({"error": {"code": 404_003, "messages": ["x"]}}).to_string(), "ignore"),
        (
            "something else",
            json!({"x": 1}).to_string(),
            "no message of this platform: neither a result nor a notification of MetaDefender",
        ),
    ]
}

fn metadefender_storage() -> Vec<Case> {
    let storage = |result: &str, state: &str| {
        json!({"FileId": "f1", "FilePath": "in/a.exe", "CoreScanResult": result, "FileState": state, "FileStatus": "Blocked"})
            .to_string()
    };
    vec![
        ("a storage scan of an older version", json!({"ScanId": "s", "Status": "Failed"}).to_string(), "job"),
        ("a file in a storage", storage("No Threat Detected", "Available"), "clean - not_approved"),
        ("a bad file in a storage", storage("Infected", "Failed"), "malicious - not_approved"),
        ("a file in a storage that failed", storage("No Threat Detected", "Failed"), "error - not_approved"),
        ("an encrypted archive in a storage", storage("Encrypted Archive", "Available"), "error - not_approved"),
        (
            "a new word in a storage",
            storage("Fine", "Available"),
            "CoreScanResult: a result that this version does not know",
        ),
        (
            "a file in a storage without a state",
            json!({"FileId": "f1", "FilePath": "a", "CoreScanResult": "No Threat Detected"}).to_string(),
            "FileState is missing",
        ),
        (
            "a file in a storage without a result",
            json!({"FileId": "f1", "FilePath": "a", "FileState": "Available"}).to_string(),
            "CoreScanResult is missing",
        ),
        ("a file in a storage on its way", storage("In Progress", "Processing"), "not_ready"),
    ]
}

fn metadefender_archives() -> Vec<Case> {
    let archive = |code: u64, files: Json| {
        json!({
            "data_id": "d1", "file_info": {"sha256": EICAR, "display_name": "a.zip"},
            "process_info": {"progress_percentage": 100, "result": "Blocked"},
            "scan_results": {"scan_all_result_i": code, "progress_percentage": 100},
            "extracted_files": {"files_in_archive": files},
        })
        .to_string()
    };
    let child = |code: u64, more: Json| {
        let child =
            json!({"data_id": "d2", "display_name": "a.zip/b", "scan_all_result_i": code, "progress_percentage": 100});
        merged(child, more)
    };
    let hash = json!({"sha256": "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"});
    vec![
        ("clean, with a clean file within", archive(0, json!([child(0, json!({}))])), "clean - not_approved"),
        (
            "clean, but a file within says more",
            archive(0, json!([child(0, json!({})), child(1, json!({})), child(2, json!({}))])),
            "malicious - not_approved",
        ),
        (
            "clean, but a locked file within says more",
            archive(0, json!([child(12, json!({}))])),
            "error - not_approved",
        ),
        (
            "suspicious, with a locked file within",
            archive(2, json!([child(12, json!({}))])),
            "suspicious - not_approved",
        ),
        (
            "clean, but a file within is on its way",
            archive(0, json!([child(0, json!({"progress_percentage": 10}))])),
            "not_ready",
        ),
        (
            "clean, with a file within without a code",
            archive(0, json!([child(0, json!({"scan_all_result_i": null}))])),
            "extracted_files.files_in_archive[0].scan_all_result_i is missing",
        ),
        (
            "malicious, with a file within without a code",
            archive(1, json!([child(0, json!({"scan_all_result_i": null}))])),
            "malicious - not_approved",
        ),
        (
            "a file within with a hash",
            archive(1, json!([child(1, hash.clone()), child(0, hash.clone())])),
            "malicious - not_approved; malicious -; clean -",
        ),
        (
            "a file within with a hash of its own place",
            archive(1, json!([child(12, json!({"file_info": hash.clone()}))])),
            "malicious - not_approved; error -",
        ),
        (
            "a file within with half a hash",
            archive(0, json!([child(0, json!({"sha256": "e3b0"}))])),
            "extracted_files.files_in_archive[0].sha256: not the hexadecimal digits of this kind of hash",
        ),
        (
            "an odd file within with a hash",
            archive(1, json!([child(1, merged(hash.clone(), json!({"scan_all_result_i": null}))), child(1, hash)])),
            "malicious - not_approved; item 1: extracted_files.files_in_archive[0].scan_all_result_i is missing; malicious -",
        ),
        ("an empty archive", archive(0, json!([])), "clean - not_approved"),
        ("a list that is none", archive(0, json!({})), "extracted_files.files_in_archive: expected a list"),
    ]
}

fn event_grid() -> Vec<Case> {
    let data = |result: &str, details: Json| json!({"blobUri": "https://a.blob.core.windows.net/c/b", "eTag": "0x1", "scanResultType": result, "scanResultDetails": details});
    let event = |data: Json| json!({"id": "e", "eventType": "Microsoft.Security.MalwareScanningResult", "eventTime": "2026-03-23T11:31:54Z", "data": data});
    let own = |result: &str, details: Json| json!([event(data(result, details))]).to_string();
    let cloud = |more: Json| {
        let body = json!({"specversion": "1.0", "id": "e", "type": "Microsoft.Security.MalwareScanningResult", "source": "/s", "data": data("Malicious", json!({"sha256": EICAR}))});
        merged(body, more).to_string()
    };
    vec![
        ("no threats", own("No threats found", Json::Null), "clean -"),
        ("no threats, as the log has it", own("No Threat Found", json!({"malwareNamesFound": []})), "clean -"),
        (
            "malicious",
            own("Malicious", json!({"malwareNamesFound": ["a", "b"], "sha256": EICAR.to_uppercase()})),
            "malicious -",
        ),
        ("malicious, without details", own("Malicious", Json::Null), "malicious -"),
        ("error", own("Error", Json::Null), "error -"),
        ("not scanned", own("Not Scanned", json!({"notScannedReason": "too large"})), "error -"),
        (
            "a new result",
            own("Fine", Json::Null),
            "item 0: data.scanResultType: a result that this version does not know",
        ),
        (
            "no threats beside the name of one",
            own("No threats found", json!({"malwareNamesFound": ["a"]})),
            "item 0: data.scanResultDetails.malwareNamesFound[0]: malware stands beside a result that says there is none",
        ),
        (
            "half a hash",
            own("Malicious", json!({"sha256": "275a"})),
            "item 0: data.scanResultDetails.sha256: not the hexadecimal digits of this kind of hash",
        ),
        (
            "neither hash nor URL",
            json!([event(json!({"scanResultType": "Malicious"}))]).to_string(),
            "item 0: data.blobUri is missing",
        ),
        ("a CloudEvent", cloud(json!({})), "malicious -"),
        ("a CloudEvent without a type", cloud(json!({"type": null})), "type is missing"),
        (
            "two schemas in one",
            cloud(json!({"eventType": "Microsoft.Security.MalwareScanningResult"})),
            "specversion: stands beside an eventType, so which of two schemas is meant is a guess",
        ),
        ("no data", cloud(json!({"data": null})), "data is missing"),
        ("a created blob", cloud(json!({"type": "Microsoft.Storage.BlobCreated"})), "ignore"),
        (
            "the end of a subscription",
            json!([{"eventType": "Microsoft.EventGrid.SubscriptionDeletedEvent", "data": {}}]).to_string(),
            "ignore",
        ),
        (
            "a new type",
            cloud(json!({"type": "Microsoft.Security.Other"})),
            "no message of this platform: type: an event of a type that this version does not know",
        ),
        (
            "no event",
            json!({"x": 1}).to_string(),
            "no message of this platform: neither an Event Grid event nor a CloudEvent",
        ),
        (
            "an odd event among others",
            json!([1, event(data("Malicious", Json::Null))]).to_string(),
            "item 0: expected an object; malicious -",
        ),
    ]
}

fn object_scan(scan: Option<&str>, status: Option<&str>, more: Json) -> Json {
    let body = json!({
        "id": "e", "detail-type": "GuardDuty Malware Protection Object Scan Result", "time": "2026-03-23T12:00:00Z",
        "account": "111122223333", "detail": {
            "scanStatus": scan, "resourceType": "S3_OBJECT",
            "s3ObjectDetails": {"bucketName": "b", "objectKey": "k/a.exe", "eTag": "1", "versionId": "v"},
            "scanResultDetails": {"scanResultStatus": status, "threats": null},
        },
    });
    merged(body, more)
}

fn guardduty() -> Vec<Case> {
    let status = |scan: &str, status: &str| object_scan(Some(scan), Some(status), json!({})).to_string();
    let threats = |more: Json| object_scan(Some("COMPLETED"), Some("THREATS_FOUND"), json!({"detail": more}));
    let clean = |more: Json| object_scan(Some("COMPLETED"), Some("NO_THREATS_FOUND"), json!({"detail": more}));
    vec![
        ("no threats", status("COMPLETED", "NO_THREATS_FOUND"), "clean -"),
        ("threats", status("COMPLETED", "THREATS_FOUND"), "malicious -"),
        ("a threat, as the type definitions spell it", status("COMPLETED", "THREAT_FOUND"), "malicious -"),
        ("unsupported", status("SKIPPED", "UNSUPPORTED"), "error -"),
        ("access denied", status("SKIPPED", "ACCESS_DENIED"), "error -"),
        ("failed", status("FAILED", "FAILED"), "error -"),
        ("no threats, but not completed", status("SKIPPED", "NO_THREATS_FOUND"), "error -"),
        (
            "no threats, without a status of the scan",
            object_scan(None, Some("NO_THREATS_FOUND"), json!({})).to_string(),
            "detail.scanStatus is missing",
        ),
        (
            "completed, without a result",
            object_scan(Some("COMPLETED"), None, json!({})).to_string(),
            "detail.scanResultDetails.scanResultStatus is missing",
        ),
        ("skipped, without a result", object_scan(Some("SKIPPED"), None, json!({})).to_string(), "error -"),
        (
            "a new result",
            status("COMPLETED", "FINE"),
            "detail.scanResultDetails.scanResultStatus: a result that this version does not know",
        ),
        (
            "no threats beside a threat",
            clean(json!({"scanResultDetails": {"threats": [{"name": "EICAR"}]}})).to_string(),
            "detail.scanResultDetails.threats[0]: a threat stands beside a result that says there is none",
        ),
        (
            "a list of events",
            json!([threats(json!({})), {}]).to_string(),
            "malicious -; item 1: neither an event of EventBridge nor a notification of SNS",
        ),
        (
            "another resource",
            clean(json!({"resourceType": "EBS"})).to_string(),
            "no message of this platform: detail.resourceType: the scan of something else than an object of S3",
        ),
        (
            "no bucket",
            threats(json!({"s3ObjectDetails": {"bucketName": null}})).to_string(),
            "detail.s3ObjectDetails.bucketName is missing",
        ),
        (
            "a key as long as none",
            threats(json!({"s3ObjectDetails": {"objectKey": "x".repeat(3000)}})).to_string(),
            "detail.s3ObjectDetails.objectKey: the URL of the object is longer than 2048 bytes",
        ),
        (
            "the state of a plan",
            json!({"detail-type": "GuardDuty Malware Protection Resource Status Active", "detail": {}}).to_string(),
            "ignore",
        ),
        (
            "another event",
            json!({"detail-type": "EC2 Instance State-change Notification", "detail": {}}).to_string(),
            "no message of this platform: detail-type: an event of a type that this version does not know",
        ),
    ]
}

fn sns() -> Vec<Case> {
    let event = || object_scan(Some("COMPLETED"), Some("THREATS_FOUND"), json!({})).to_string();
    let sns = |message: String| {
        json!({"Type": "Notification", "MessageId": "m", "Message": message, "Timestamp": "2026-03-23T12:00:01.000Z"})
            .to_string()
    };
    vec![
        ("an envelope", sns(event()), "malicious -"),
        ("three envelopes", sns(sns(sns(event()))), "malicious -"),
        (
            "four envelopes",
            sns(sns(sns(sns(event())))),
            "Message: Message: Message: Message: an envelope within too many others",
        ),
        ("an envelope around a text", sns("hello".to_owned()), "not readable JSON: Message: byte 0: expected a value"),
        (
            "an envelope around nothing",
            json!({"Type": "Notification", "MessageId": "m"}).to_string(),
            "Message is missing",
        ),
        (
            "an envelope of a new type",
            json!({"Type": "Other"}).to_string(),
            "no message of this platform: Type: a message of SNS of a type that this version does not know",
        ),
        ("the end of a subscription", json!({"Type": "UnsubscribeConfirmation", "Message": "x"}).to_string(), "ignore"),
    ]
}

fn submission(score: i64, more: Json) -> String {
    let body = json!({
        "is_cache": false, "score": score, "submission": {
            "sid": "s1", "state": "completed", "error_count": 0, "errors": [], "max_score": score,
            "files": [{"name": "a.exe", "sha256": EICAR}],
        },
    });
    merged(body, more).to_string()
}

fn assemblyline_scores() -> Vec<Case> {
    vec![
        ("safe", submission(-1000, json!({})), "clean 0"),
        ("info", submission(299, json!({})), "clean 30"),
        ("suspicious", submission(300, json!({})), "suspicious 30"),
        ("highly suspicious", submission(999, json!({})), "suspicious 100"),
        ("malicious", submission(1000, json!({})), "malicious 100"),
        ("beyond", submission(i64::MAX, json!({})), "malicious 100"),
        (
            "a score with a fraction",
            submission(0, json!({"score": 0.5})),
            "score: expected a whole number of at most 63 bits",
        ),
        (
            "two scores",
            submission(1500, json!({"score": 0})),
            "submission.max_score: another score than the one beside the submission",
        ),
        ("no score", submission(0, json!({"score": null, "submission": {"max_score": null}})), "score is missing"),
    ]
}

fn assemblyline_states() -> Vec<Case> {
    let cached = json!({"is_cache": true, "submission": {"state": null, "error_count": null, "max_score": null}});
    vec![
        ("submitted", submission(0, json!({"submission": {"state": "submitted"}})), "not_ready"),
        ("failed", submission(0, json!({"submission": {"state": "failed"}})), "error -"),
        ("failed, but bad", submission(1500, json!({"submission": {"state": "failed"}})), "malicious 100"),
        ("without a state", submission(0, json!({"submission": {"state": null}})), "submission.state is missing"),
        (
            "a new state",
            submission(0, json!({"submission": {"state": "fine"}})),
            "submission.state: expected submitted, completed or failed",
        ),
        ("services that failed", submission(0, json!({"submission": {"error_count": 1}})), "error -"),
        (
            "services that failed, listed",
            submission(0, json!({"submission": {"error_count": 2, "errors": ["a.b", "c.d"]}})),
            "error -",
        ),
        (
            "services that failed, listed but not counted",
            submission(0, json!({"submission": {"errors": ["a.b"]}})),
            "submission.error_count: fewer errors than are listed",
        ),
        ("services that failed, but bad", submission(1500, json!({"submission": {"error_count": 1}})), "malicious 100"),
        (
            "without a count of errors",
            submission(0, json!({"submission": {"error_count": null}})),
            "submission.error_count is missing",
        ),
        ("from the cache", submission(0, cached.clone()), "clean 0"),
        ("bad, from the cache", submission(500, cached.clone()), "suspicious 50"),
        (
            "failed, from the cache",
            submission(0, merged(cached, json!({"submission": {"state": "failed"}}))),
            "submission.state: an answer from the cache is of a submission that completed",
        ),
        ("no files", submission(0, json!({"submission": {"files": []}})), "submission.files is missing"),
        (
            "no submission",
            json!({"score": 0}).to_string(),
            "no message of this platform: no submission of Assemblyline",
        ),
    ]
}

fn cape_reports() -> Vec<Case> {
    let report = |status: Json, score: Json, more: Json| {
        let body = json!({
            "info": {"id": 7, "ended": "2026-03-23 12:04:10"}, "malstatus": status, "malscore": score,
            "target": {"category": "file", "file": {"sha256": EICAR, "name": "a.exe"}},
        });
        merged(body, more).to_string()
    };
    let errors = |words: &str| json!({"debug": {"errors": [words]}});
    vec![
        ("malicious", report(json!("Malicious"), json!(10.0), json!({})), "malicious 100"),
        ("suspicious", report(json!("Suspicious"), json!(4.25), json!({})), "suspicious 43"),
        ("clean", report(json!("Clean"), json!(0.4), json!({})), "clean 4"),
        ("undetected", report(json!("Undetected"), json!(0), json!({})), "unknown -"),
        ("failed", report(json!("Failed"), json!(0), json!({})), "error -"),
        (
            "a new status",
            report(json!("Fine"), json!(0), json!({})),
            "malstatus: a status that this version does not know",
        ),
        ("no status, a high score", report(Json::Null, json!(7.0), json!({})), "malicious 70"),
        ("no status, some score", report(Json::Null, json!(4), json!({})), "suspicious 40"),
        ("no status, a low score", report(Json::Null, json!(0.5), json!({})), "unknown 5"),
        ("no status, no score", report(Json::Null, Json::Null, json!({})), "malstatus is missing"),
        ("malicious without a score", report(json!("Malicious"), Json::Null, json!({})), "malicious -"),
        ("a score of 11", report(json!("Clean"), json!(11), json!({})), "malscore: expected a number from 0 to 10"),
        ("a score as text", report(json!("Clean"), json!("1"), json!({})), "malscore: expected a number from 0 to 10"),
        ("nothing, and an error", report(json!("Undetected"), json!(0), errors("the guest did not start")), "error -"),
        (
            "clean, but the analysis says more",
            report(json!("Clean"), json!(0), errors("the guest did not start")),
            "error -",
        ),
        ("malicious, and an error", report(json!("Malicious"), json!(8), errors("x")), "malicious 80"),
        ("no errors", report(json!("Clean"), json!(0), json!({"debug": {"errors": []}})), "clean 0"),
        (
            "a URL",
            report(json!("Malicious"), json!(8), json!({"target": {"file": null, "url": "https://example.com/"}})),
            "malicious 80",
        ),
        ("no target", report(json!("Malicious"), json!(8), json!({"target": null})), "target is missing"),
        (
            "no hash",
            report(json!("Malicious"), json!(8), json!({"target": {"file": {"sha256": null}}})),
            "target.file.sha256 is missing",
        ),
        (
            "families of an older version",
            report(
                json!("Malicious"),
                json!(8),
                json!({"detections": "Emotet", "ttps": [{"ttp": "T1055", "signature": "x"}]}),
            ),
            "malicious 80",
        ),
    ]
}

fn cape_callbacks() -> Vec<Case> {
    vec![
        ("a callback", json!({"task_id": 1234}).to_string(), "pointer task:1234"),
        ("a callback with a number as text", json!({"task_id": "1234"}).to_string(), "pointer task:1234"),
        ("a callback with a path", json!({"task_id": "../1"}).to_string(), "task_id: expected the number of a task"),
        (
            "a callback with a negative number",
            json!({"task_id": -1}).to_string(),
            "task_id: expected the number of a task",
        ),
        ("a form", "task_id=7&identifier=x&data=%7B%7D".to_owned(), "pointer task:7"),
        ("a form in another order", "identifier=x&task_id=7".to_owned(), "pointer task:7"),
        ("a form with two tasks", "task_id=7&task_id=8".to_owned(), "task_id: expected the number of one task"),
        ("a form with a path", "task_id=..%2F1".to_owned(), "task_id: expected the number of one task"),
        ("another form", "identifier=x".to_owned(), "not readable JSON: byte 0: expected a value"),
        (
            "still analysed",
            json!({"error": true, "error_value": "Task is still being analyzed"}).to_string(),
            "not_ready",
        ),
        (
            "an error of the API",
            json!({"error": true, "error_value": "Task does not exist"}).to_string(),
            "error: CAPE answered with an error instead of a report: look for the task there",
        ),
        ("an upload's answer", json!({"error": false, "data": {"task_ids": [7]}}).to_string(), "ignore"),
        (
            "something else",
            json!({"x": 1}).to_string(),
            "no message of this platform: neither a callback nor a report of CAPE",
        ),
    ]
}

fn virustotal() -> Vec<Case> {
    vec![
        ("a private analysis without a state", json!({"data": {"type": "private_analysis", "id": "abc", "attributes": {}}}).to_string(), "data.attributes.status is missing"),
        ("a private analysis that runs", json!({"data": {"type": "private_analysis", "id": "abc", "attributes": {"status": "in-progress"}}}).to_string(), "not_ready"),
        ("a private file", json!({"data": {"type": "private_file", "id": EICAR, "attributes": {"threat_verdict": "VERDICT_SUSPICIOUS"}}}).to_string(), "suspicious -"),
        ("a private file in which nothing was seen", json!({"data": {"type": "private_file", "id": EICAR, "attributes": {"threat_verdict": "VERDICT_UNDETECTED", "last_analysis_date": 1}}}).to_string(), "unknown -"),
        ("an older notification", json!({"data": {"type": "hunting_notification", "id": "1-2-3", "attributes": {"rule_name": "r", "tags": ["r", EICAR]}}}).to_string(), "pointer file:275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"),
        ("an older notification of no file", json!({"data": {"type": "hunting_notification", "id": "1-2-3", "attributes": {"tags": ["r"]}}}).to_string(), "data.attributes.tags: expected the SHA-256 of one file among the tags"),
    ]
}

/// Puts what `more` says over what `body` says; null takes away.
fn merge(body: &mut Json, more: Json) {
    match (body, more) {
        (Json::Object(body), Json::Object(more)) => {
            for (key, value) in more {
                merge(body.entry(key).or_insert(Json::Null), value);
            }
        }
        (body, more) => *body = more,
    }
}

fn merged(mut body: Json, more: Json) -> Json {
    merge(&mut body, more);
    body
}
