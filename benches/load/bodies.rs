//! Bodies for the benches: the reports of the test payloads, grown to a size as real ones are: by more engines and more imports.
//!
//! Invariant: a body has exactly the bytes that were asked for, and is a finished verdict to its adapter.
//!
//! Not here: which body is sent at which size, and what makes each delivery another one (`deliveries`).

use serde_json::{Value, json};

/// A finished analysis of the portal.
pub(crate) fn portal_event(bytes: usize) -> Vec<u8> {
    let mut event: Value = serde_json::from_str(PORTAL_EVENT).expect("the payload is JSON");
    event["eventId"] = json!(format!("evt_{MARK}"));
    let file = &mut event["file"];
    // The descriptions in these are for people, and would be half of a small event.
    for list in ["scoreBreakdown", "detections", "matchedRules"] {
        file[list] = json!([]);
    }
    name_subject(file, "fileName");
    let mut engines = ENGINES.iter().cycle();
    let mut more = |event: &mut Value| {
        let Some(engine) = engines.next() else { return };
        let hit = json!({"engine": engine, "name": "Trojan.Generic", "severity": "high", "category": "malicious"});
        list(&mut event["file"]["detections"]).push(hit);
    };
    grow(&mut event, bytes, |event| &mut event["file"]["tags"], &mut more)
}

/// A VirusTotal file object, in which the first `hits` engines found something.
pub(crate) fn engine_report(bytes: usize, hits: usize) -> Vec<u8> {
    let mut report: Value = serde_json::from_str(ENGINE_REPORT).expect("the payload is JSON");
    let data = &mut report["data"];
    data["id"] = json!(SHA256);
    data["links"]["self"] = json!(format!("https://www.virustotal.com/api/v3/files/{SHA256}"));
    let file = &mut data["attributes"];
    name_subject(file, "meaningful_name");
    file["names"] = json!([]);
    file["last_analysis_results"] = json!({});
    file["last_analysis_stats"] = json!({"malicious": 0, "suspicious": 0, "undetected": 0, "harmless": 0, "timeout": 0,
        "confirmed-timeout": 0, "failure": 0, "type-unsupported": 0});
    let mut grown = 0;
    let mut more = |report: &mut Value| {
        let file = &mut report["data"]["attributes"];
        match ENGINES.get(grown) {
            Some(engine) => add_engine(file, engine, grown < hits),
            None => add_import(file, grown),
        }
        grown += 1;
    };
    grow(&mut report, bytes, |report| &mut report["data"]["attributes"]["tags"], &mut more)
}

/// Puts the placeholders of a file that is another one in each delivery.
fn name_subject(file: &mut Value, name: &str) {
    file["sha256"] = json!(SHA256);
    file["sha1"] = json!(SHA1);
    file["md5"] = json!(MD5);
    file[name] = json!(format!("{MARK}.exe"));
}

fn add_engine(file: &mut Value, engine: &str, hit: bool) {
    let (category, result) =
        if hit { ("malicious", json!("Gen:Variant.Emotet.71")) } else { ("undetected", Value::Null) };
    file["last_analysis_results"][engine] = json!({"category": category, "engine_name": engine, "engine_version": "1.0.14.2",
        "engine_update": "20260322", "method": "blacklist", "result": result});
    let count = &mut file["last_analysis_stats"][category];
    *count = json!(count.as_u64().unwrap_or(0) + 1);
}

fn add_import(file: &mut Value, number: usize) {
    if file.get("pe_info").is_none() {
        file["pe_info"] =
            json!({"imphash": MD5.chars().rev().collect::<String>(), "machine_type": 332, "import_list": []});
    }
    let functions: Vec<String> = (0..12).map(|at| format!("NtQueryObject{number}x{at}")).collect();
    list(&mut file["pe_info"]["import_list"])
        .push(json!({"library_name": format!("api-ms-win-{number}.dll"), "imported_functions": functions}));
}

/// Adds parts until the next one would be too much, then fills up with a tag.
fn grow(
    body: &mut Value,
    bytes: usize,
    tags: fn(&mut Value) -> &mut Value,
    more: &mut dyn FnMut(&mut Value),
) -> Vec<u8> {
    // The tag's quotes and comma, so that there is always room for an empty one.
    let limit = bytes - 3;
    assert!(written(body).len() <= limit, "no report is as small as {bytes} bytes");
    loop {
        let mut larger = body.clone();
        more(&mut larger);
        if written(&larger).len() > limit {
            break;
        }
        *body = larger;
    }
    let missing = limit - written(body).len();
    list(tags(body)).push(json!("x".repeat(missing)));
    let filled = written(body);
    assert_eq!(filled.len(), bytes, "the list of tags was not empty before");
    filled
}

fn written(body: &Value) -> Vec<u8> {
    serde_json::to_vec(body).expect("JSON values can be written")
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it was just made one")
}

/// Stands in file names, which every format shows; its digits are the number of the delivery.
pub(crate) const MARK: &str = "load-000000000000";
/// Placeholders, which each delivery fills with hashes of its own.
pub(crate) const SHA256: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
pub(crate) const SHA1: &str = "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b";
pub(crate) const MD5: &str = "7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c7c";

const PORTAL_EVENT: &str = include_str!("../../tests/payloads/vileanalyziz/analysis_completed_high_risk.json");
const ENGINE_REPORT: &str = include_str!("../../tests/payloads/virustotal/v3_file_report_malicious.json");

/// As many engines as a report of VirusTotal has.
#[rustfmt::skip]
const ENGINES: [&str; 72] = [
    "Bkav", "Lionic", "Elastic", "MicroWorld-eScan", "FireEye", "CAT-QuickHeal", "Skyhigh", "McAfee", "Malwarebytes", "Zillya",
    "Sangfor", "K7AntiVirus", "Alibaba", "K7GW", "Cybereason", "Arcabit", "Baidu", "VirIT", "Symantec", "ESET-NOD32", "Zoner",
    "APEX", "Paloalto", "ClamAV", "Kaspersky", "BitDefender", "NANO-Antivirus", "ViRobot", "Avast", "Tencent", "Emsisoft",
    "F-Secure", "DrWeb", "VIPRE", "TrendMicro", "Trapmine", "Sophos", "SentinelOne", "Jiangmin", "Webroot", "Varist", "Avira",
    "Antiy-AVL", "Kingsoft", "Gridinsoft", "Xcitium", "Microsoft", "SUPERAntiSpyware", "ZoneAlarm", "GData", "Google", "Cynet",
    "AhnLab-V3", "Acronis", "BitDefenderTheta", "ALYac", "TACHYON", "DeepInstinct", "VBA32", "Cylance", "Panda", "Rising",
    "Yandex", "Ikarus", "MaxSecure", "Fortinet", "AVG", "CrowdStrike", "Trustlook", "CMC", "huorong", "alibabacloud",
];
