//! What a platform's answer means: one word each for what the poller has to do.
//!
//! The tables: VirusTotal's error codes (its reference, page "Errors"), CAPE's errors inside a 200, and plain HTTP for the rest.
//!
//! Invariants: an answer that nobody understands is never taken for "no verdict"; a refused key is told from a missing privilege, because
//! only the first is mended by another key; no text of a platform is told but its own error code and short message.
//!
//! Not here: waiting and retrying (`poll`, `quota`).

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::client::{Failure, Raw};
use super::platform::Platform;
use crate::event::shorten;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Here it is.
    Found(Bytes),
    /// The platform does not have it, or not yet.
    Absent(String),
    /// It exists and is not finished: ask again after this time, if the platform says one.
    NotYet(Option<Duration>),
    /// It will never be there.
    Never(String),
    /// The key is refused: another one may be taken.
    Key(String),
    /// The key is good and lacks a privilege: others of its group lack it, too.
    Forbidden(String),
    /// Too fast: ask again after this time, if the platform says one.
    TooFast(Option<Duration>),
    /// A quota is used up: ask again after this time, or when its window ends.
    Quota(Option<Duration>),
    /// The question is wrong, so the config or this version is.
    Misconfigured(String),
    /// It is not there now.
    Unavailable { reason: String, retry_after: Option<Duration> },
    /// There is no trusted connection to it.
    Tls(String),
    /// We have to wait ourselves until there is quota again, in this time.
    Wait(Duration),
}

/// What the answer to a question means.
pub(super) fn judge(platform: Platform, asked: Result<Raw, Failure>) -> Answer {
    let raw = match asked {
        Ok(raw) => raw,
        Err(Failure::Unavailable(reason)) => return Answer::Unavailable { reason, retry_after: None },
        Err(Failure::Tls(reason)) => return Answer::Tls(reason),
        Err(Failure::TooLarge) => return Answer::Never("the report is larger than this version takes".to_owned()),
        Err(Failure::Key) => return Answer::Key("it holds characters that no header can".to_owned()),
    };
    if raw.status == 200 && raw.is_page {
        let words =
            "answers with a web page instead of JSON: check the URL, and whether the key's user may read reports";
        return Answer::Misconfigured(words.to_owned());
    }
    match (platform, raw.status) {
        (Platform::VirusTotal, 200) => Answer::Found(raw.body),
        (Platform::VirusTotal, _) => virustotal(&raw),
        (Platform::Cape, 200) => cape(raw),
        (Platform::MetaDefender, 200) if is_not_found(&raw.body) => Answer::Absent("not found".to_owned()),
        (_, 200) => Answer::Found(raw.body),
        _ => plain(&raw),
    }
}

/// VirusTotal's own codes: they say more than the status.
fn virustotal(raw: &Raw) -> Answer {
    let error = serde_json::from_slice::<VirusTotalError>(&raw.body).map(|body| body.error).unwrap_or_default();
    let told = || words(raw.status, &error.code, &error.message);
    match error.code.as_str() {
        "NotAvailableYet" => Answer::NotYet(Some(NOT_AVAILABLE_YET)),
        "BadRequestError"
        | "InvalidArgumentError"
        | "UnselectiveContentQueryError"
        | "UnsupportedContentQueryError" => Answer::Misconfigured(told()),
        "AuthenticationRequiredError" => {
            Answer::Misconfigured(format!("{}: no key was sent, which is a fault of ours; please report it", told()))
        }
        "WrongCredentialsError" | "UserNotActiveError" => Answer::Key(told()),
        "ForbiddenError" => Answer::Forbidden(told()),
        "NotFoundError" => Answer::Absent(told()),
        // What should be made is there already.
        "AlreadyExistsError" => Answer::Never(told()),
        "FailedDependencyError" | "TransientError" | "DeadlineExceededError" => {
            Answer::Unavailable { reason: told(), retry_after: raw.retry_after }
        }
        "TooManyRequestsError" => Answer::TooFast(raw.retry_after),
        "QuotaExceededError" => Answer::Quota(raw.retry_after),
        _ => plain(raw),
    }
}

/// CAPE says what is wrong with a status of 200.
fn cape(raw: Raw) -> Answer {
    let error = (raw.body.len() <= CAPE_ERROR_BYTES_MAX).then(|| serde_json::from_slice::<CapeError>(&raw.body).ok());
    let Some(error) = error.flatten().filter(|error| error.error == serde_json::Value::Bool(true)) else {
        return Answer::Found(raw.body);
    };
    let mut told = error.error_value;
    shorten(&mut told, WORDS_BYTES_MAX);
    match told.as_str() {
        "Task is still being analyzed" => Answer::NotYet(None),
        "Task failed" => Answer::Never("the analysis failed there, so there is no report".to_owned()),
        words if words.contains("Disabled") => Answer::Misconfigured(format!("{words}: enable it in its api.conf")),
        _ => Answer::Absent(told),
    }
}

/// What the status alone says.
fn plain(raw: &Raw) -> Answer {
    let error = serde_json::from_slice::<PlainError>(&raw.body).unwrap_or_default();
    let told = words(raw.status, "", error.message());
    let retry_after = raw.retry_after.or_else(|| error.retry_after());
    match raw.status {
        202 | 204 | 409 | 425 => Answer::NotYet(retry_after),
        401 => Answer::Key(told),
        402 | 403 => Answer::Forbidden(told),
        404 | 410 => Answer::Absent(told),
        429 => Answer::TooFast(retry_after),
        300..=399 => {
            Answer::Misconfigured(format!("{told}: redirects are not followed, write the address it leads to"))
        }
        408 | 424 | 500.. => Answer::Unavailable { reason: told, retry_after },
        _ => Answer::Misconfigured(told),
    }
}

/// Status, code and the platform's own words, within a bound and on one line.
fn words(status: u16, code: &str, message: &str) -> String {
    let message: String = message.chars().filter(|letter| !letter.is_control()).collect();
    let mut told = [code, &message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    shorten(&mut told, WORDS_BYTES_MAX);
    if told.is_empty() { format!("it answers {status}") } else { format!("it answers {status} ({told})") }
}

/// Some platforms answer an unknown id with 200 and the words.
fn is_not_found(body: &Bytes) -> bool {
    let answer: Option<serde_json::Map<String, serde_json::Value>> =
        (body.len() <= CAPE_ERROR_BYTES_MAX).then(|| serde_json::from_slice(body).ok()).flatten();
    answer.is_some_and(|answer| answer.len() == 1 && answer.values().all(|value| value == "Not Found"))
}

#[derive(Deserialize)]
struct VirusTotalError {
    error: VirusTotalCode,
}

#[derive(Default, Deserialize)]
struct VirusTotalCode {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct CapeError {
    error: serde_json::Value,
    #[serde(default)]
    error_value: String,
}

/// The error bodies of the other platforms, as far as they are known.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PlainError {
    /// Assemblyline.
    api_error_message: Option<String>,
    /// CAPE (Django REST framework).
    detail: Option<String>,
    /// Triage and others.
    message: Option<String>,
    /// Vile Analyziz: `{code, message, retryAfterSeconds}`; MetaDefender: `{code, messages}`; others: a text.
    error: serde_json::Value,
}

impl PlainError {
    fn message(&self) -> &str {
        let texts = [&self.api_error_message, &self.detail, &self.message].into_iter().flatten().map(String::as_str);
        let inner = || self.error.as_str().or_else(|| self.error["message"].as_str());
        texts.into_iter().next().or_else(inner).unwrap_or_default()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.error["retryAfterSeconds"].as_u64().map(Duration::from_secs)
    }
}

/// A batch of a feed that is not written yet; the wait of VirusTotal's own client.
const NOT_AVAILABLE_YET: Duration = Duration::from_mins(1);
/// CAPE's errors are one sentence; a report is never as short.
const CAPE_ERROR_BYTES_MAX: usize = 4096;
const WORDS_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn raw(status: u16, body: &Value) -> Raw {
        Raw { status, is_page: false, retry_after: None, remaining: None, body: body.to_string().into() }
    }

    /// The kind of an answer, without its words.
    fn word(answer: &Answer) -> &'static str {
        match answer {
            Answer::Found(_) => "found",
            Answer::Absent(_) => "absent",
            Answer::NotYet(_) => "not yet",
            Answer::Never(_) => "never",
            Answer::Key(_) => "key",
            Answer::Forbidden(_) => "forbidden",
            Answer::TooFast(_) => "too fast",
            Answer::Quota(_) => "quota",
            Answer::Misconfigured(_) => "misconfigured",
            Answer::Unavailable { .. } => "unavailable",
            Answer::Tls(_) => "tls",
            Answer::Wait(_) => "wait",
        }
    }

    #[test]
    fn virustotals_errors_mean_row_by_row_what_its_table_says() {
        let table: Value =
            serde_json::from_str(include_str!("../../tests/payloads/virustotal/v3_errors_table.json")).expect("JSON");
        let rows = table.as_array().expect("a list");
        let mut found: Vec<(u64, &str, &str)> = Vec::new();
        for row in rows {
            let status = row["http_status"].as_u64().expect("a status");
            let code = row["body"]["error"]["code"].as_str().expect("a code");
            let answer = judge(Platform::VirusTotal, Ok(raw(u16::try_from(status).expect("small"), &row["body"])));
            found.push((status, code, word(&answer)));
        }
        assert_eq!(
            found,
            [
                (400, "BadRequestError", "misconfigured"),
                (400, "InvalidArgumentError", "misconfigured"),
                (400, "NotAvailableYet", "not yet"),
                (400, "UnselectiveContentQueryError", "misconfigured"),
                (400, "UnsupportedContentQueryError", "misconfigured"),
                (401, "AuthenticationRequiredError", "misconfigured"),
                (401, "UserNotActiveError", "key"),
                (401, "WrongCredentialsError", "key"),
                (403, "ForbiddenError", "forbidden"),
                (404, "NotFoundError", "absent"),
                (409, "AlreadyExistsError", "never"),
                (424, "FailedDependencyError", "unavailable"),
                (429, "QuotaExceededError", "quota"),
                (429, "TooManyRequestsError", "too fast"),
                (503, "TransientError", "unavailable"),
                (504, "DeadlineExceededError", "unavailable"),
            ]
        );
    }

    #[test]
    fn what_has_no_code_is_judged_by_its_status() {
        for (status, meaning) in [
            (204, "not yet"),
            (302, "misconfigured"),
            (400, "misconfigured"),
            (401, "key"),
            (402, "forbidden"),
            (403, "forbidden"),
            (404, "absent"),
            (429, "too fast"),
            (500, "unavailable"),
            (502, "unavailable"),
        ] {
            for platform in [Platform::VirusTotal, Platform::Cape, Platform::Triage] {
                assert_eq!(word(&judge(platform, Ok(raw(status, &json!("x"))))), meaning, "{status} of {platform:?}");
            }
        }
        assert_eq!(word(&judge(Platform::Cape, Err(Failure::TooLarge))), "never");
        assert_eq!(word(&judge(Platform::Cape, Err(Failure::Key))), "key");
        let page = Raw { is_page: true, ..raw(200, &json!({})) };
        assert_eq!(word(&judge(Platform::Cape, Ok(page))), "misconfigured");
    }

    #[test]
    fn cape_says_what_is_wrong_inside_a_good_answer() {
        for (body, meaning) in [
            (json!({"error": true, "error_value": "Task is still being analyzed"}), "not yet"),
            (json!({"error": true, "error_value": "Task does not exist"}), "absent"),
            (json!({"error": true, "error_value": "Task failed"}), "never"),
            (json!({"error": true, "error_value": "Task Report API is Disabled"}), "misconfigured"),
            (json!({"error": false, "data": []}), "found"),
            (json!({"info": {"id": 1}}), "found"),
            (json!([]), "found"),
        ] {
            assert_eq!(word(&judge(Platform::Cape, Ok(raw(200, &body)))), meaning, "{body}");
        }
        assert_eq!(word(&judge(Platform::MetaDefender, Ok(raw(200, &json!({"61df": "Not Found"}))))), "absent");
        assert_eq!(word(&judge(Platform::MetaDefender, Ok(raw(200, &json!({"data_id": "61df"}))))), "found");
    }

    #[test]
    fn the_words_of_a_platform_are_short_and_on_one_line() {
        let long =
            json!({"error": {"code": "BadRequestError", "message": format!("a\nb\u{1b}[31m{}", "x".repeat(5000))}});
        let Answer::Misconfigured(told) = judge(Platform::VirusTotal, Ok(raw(400, &long))) else { panic!("a fault") };
        assert!(told.starts_with("it answers 400 (BadRequestError, ab[31mxx") && told.len() < 250, "{told}");
        let wait = json!({"error": {"code": "rate_limited", "message": "Too Many Requests", "retryAfterSeconds": 30}});
        assert_eq!(judge(Platform::VileAnalyziz, Ok(raw(429, &wait))), Answer::TooFast(Some(Duration::from_secs(30))));
        let Answer::Key(told) = judge(Platform::Cape, Ok(raw(401, &json!({"detail": "Invalid token."})))) else {
            panic!("a refused key")
        };
        assert_eq!(told, "it answers 401 (Invalid token.)");
    }
}
