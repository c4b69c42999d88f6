//! `check --online`: whether each API key is taken, in words that say what to mend.
//!
//! Invariant: one small question a key, which changes nothing there; no key is in the words.

use jiff::Timestamp;

use super::answer::{Answer, judge};
use super::client::Client;
use super::config::PollPlan;
use super::platform::Platform;
use super::quota::Told;
use crate::secret::{KeyRing, SecretRef};

/// Asks the platform once with every key: what is good, or what to mend.
pub async fn probe(plan: &PollPlan, keys: &KeyRing, now: Timestamp) -> Vec<(SecretRef, Result<String, String>)> {
    let PollPlan { platform, base, user, timeout, tls, .. } = plan.clone();
    let mut client = Client::new(base, platform, user, timeout, tls);
    let mut found = Vec::new();
    for key in keys.keys().iter() {
        let question = platform.probe(key.secret.expose(), now);
        let answer = judge(platform, client.ask(&question, key.secret.expose(), now).await);
        found.push((key.id.clone(), words(platform, answer)));
    }
    found
}

fn words(platform: Platform, answer: Answer) -> Result<String, String> {
    let name = platform.name();
    match answer {
        Answer::Found(body) => Ok(taken(platform, &body)),
        Answer::Key(reason) => Err(format!(
            "{name} refuses the key: {reason}. Compare the secret with the key there, or make a new one"
        )),
        Answer::Forbidden(reason) => Err(format!(
            "{reason}: the key is good and lacks a privilege. Give its user the right to read reports; another key of the same group lacks it, too"
        )),
        Answer::Absent(reason) | Answer::Never(reason) => Err(format!(
            "{reason}: there is no such API at this address. Check url, and the path before the API's own"
        )),
        Answer::TooFast(_) => Err("it answers 429: it is asked too fast, by us or by others with this key. It passes; the service waits by itself".to_owned()),
        Answer::Quota(_) => Err("it answers 429: the quota of the key or its group is used up. It begins anew at 00:00 UTC or on the first of the month; the service waits by itself".to_owned()),
        Answer::Misconfigured(reason) => {
            let hint = if platform == Platform::VirusTotal { " (version 3 of the API, where 400 is never an unknown hash and 403 never a wrong key)" } else { "" };
            Err(format!("{reason}: it does not understand the question{hint}. Check url, and report it if that is right"))
        }
        Answer::Unavailable { reason, .. } => Err(format!("{reason}: is the address right, and is it running?")),
        Answer::Tls(reason) => Err(reason),
        Answer::NotYet(_) | Answer::Wait(_) => Err("it does not answer now: try again".to_owned()),
    }
}

/// What is told of a key that is taken.
fn taken(platform: Platform, body: &[u8]) -> String {
    let told = if platform == Platform::VirusTotal { Told::read(body).unwrap_or_default() } else { Told::default() };
    let left: Vec<String> = told
        .tightest()
        .iter()
        .filter(|(name, _)| name.starts_with("api_requests_"))
        .map(|(name, quota)| format!("{name} {} of {}", quota.remaining(), quota.allowed))
        .collect();
    if left.is_empty() { "the key is taken".to_owned() } else { format!("the key is taken; left: {}", left.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::client::Raw;

    #[test]
    fn each_refusal_says_what_it_means_there_and_what_to_do() {
        for (status, code, wanted) in [
            (400, "BadRequestError", "never an unknown hash"),
            (401, "WrongCredentialsError", "refuses the key"),
            (403, "ForbiddenError", "lacks a privilege"),
            (404, "NotFoundError", "Check url"),
            (429, "QuotaExceededError", "used up"),
            (429, "TooManyRequestsError", "too fast"),
            (503, "TransientError", "is it running"),
        ] {
            let body = format!(r#"{{"error": {{"code": "{code}", "message": "m"}}}}"#);
            let raw = Raw { status, is_page: false, retry_after: None, remaining: None, body: body.into() };
            let words = words(Platform::VirusTotal, judge(Platform::VirusTotal, Ok(raw))).expect_err("bad");
            assert!(words.contains(wanted), "{code}: {words}");
        }
        let quotas = include_bytes!("../../tests/payloads/virustotal/v3_user_overall_quotas.json");
        let raw =
            Raw { status: 200, is_page: false, retry_after: None, remaining: None, body: quotas.as_slice().into() };
        let good = words(Platform::VirusTotal, judge(Platform::VirusTotal, Ok(raw))).expect("good");
        assert_eq!(
            good,
            "the key is taken; left: api_requests_daily 463 of 500, api_requests_hourly 237 of 240, api_requests_monthly 15363 of 15500"
        );
    }
}
