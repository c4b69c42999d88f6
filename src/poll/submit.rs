//! Sending a file to a platform for analysis: `submit` of a source.
//!
//! VirusTotal takes a form, above 32 MB at an address that it names first (API v3, "Upload a file", "Get a URL for uploading large files",
//! and the same under `private`). Vile Analyziz names an address for every file, takes the bytes there, and wants to be told when they are
//! all there (its quickstart). What its answers hold beside `uploadUrl` is not published; an id in them is used.
//!
//! Invariants: nothing is sent unless the config says so, and to whom; a file that the platform knows is not sent; a key that is refused
//! is replaced by the next one, and nothing else is tried twice; what a platform says is told within a bound and without our key.
//!
//! Not here: who may submit (`api`), the file on disk and what is expected afterwards (`ops`).

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Answer, judge};
use super::client::{Client, Content, Failure, Raw};
use super::config::PollPlan;
use super::platform::{LIST_BYTES_MAX, Platform, Question};
use super::session::without;
use crate::adapter::FetchId;
use crate::event::{Sha256, shorten};
use crate::secret::KeyRing;
use crate::setting::Problem;
use crate::upload::FileBody;

/// `submit`: who may see what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Our account alone: VirusTotal's private scanning, Vile Analyziz.
    Private,
    /// Everybody with an account at the platform, who may download it: VirusTotal.
    Public,
}

impl Audience {
    /// Whether this source can be sent files; what to do, otherwise. `key` is the path of the source.
    pub fn plan(self, key: &str, adapter: &str, poll: Option<&mut PollPlan>) -> Result<(), Problem> {
        let wrong = |words: String| Err(Problem::new(format!("{key}.submit"), words));
        let platform = Platform::of(adapter);
        let Some(platform @ (Platform::VirusTotal | Platform::VileAnalyziz)) = platform else {
            return wrong(format!(
                "this version sends files to \"virustotal\" and \"vileanalyziz\", not to \"{adapter}\": remove this key"
            ));
        };
        if platform == Platform::VileAnalyziz && self == Self::Public {
            return wrong(
                "Vile Analyziz shows files to the account alone and publishes none: write \"private\"".to_owned(),
            );
        }
        let Some(poll) = poll else {
            return wrong(match platform {
                Platform::VirusTotal => "files need an API key: add poll = { keys = [\"env:VT_KEY\"] }".to_owned(),
                _ => "files need an API: add confirm = { url = \"https://...\", key = \"env:KEY\" }".to_owned(),
            });
        };
        poll.submit = Some(self);
        Ok(())
    }
}

/// Where files go, for whoever is about to send some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The platform, as users know it.
    pub platform: &'static str,
    /// Scheme, host and port of its API.
    pub origin: String,
    /// Who may see them there.
    pub submit: Audience,
    /// The largest file.
    pub bytes_max: u64,
}

/// A file to send.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its bytes.
    pub file: Arc<File>,
    /// How many.
    pub size: u64,
    /// Their hash.
    pub sha256: Sha256,
    /// Its name, sanitised ([`crate::upload::file_name`]).
    pub name: String,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Whether the platform had it, so that it was not sent.
    pub known: bool,
    /// Whether its report is there, so that it can be fetched at once.
    pub reported: bool,
    /// The platform's id of the analysis, or of its file where its analyses have none.
    pub analysis_id: Option<String>,
}

/// Why a file was not sent, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSubmitted {
    /// The platform refuses it, and would again.
    #[error("{0}")]
    Refused(String),
    /// It is larger than the platform takes.
    #[error("{0}")]
    TooLarge(String),
    /// A quota is used up, or it is asked too fast.
    #[error("{0}")]
    Quota(String, Duration),
    /// It cannot be reached, or takes no key of ours.
    #[error("{0}")]
    Unavailable(String, Duration),
}

/// Sends files to the platform of one source.
pub struct Submitter {
    plan: PollPlan,
    audience: Audience,
    keys: KeyRing,
}

impl Submitter {
    /// Of a source whose `submit` is on; none, otherwise.
    pub fn new(plan: &PollPlan, keys: KeyRing) -> Option<Self> {
        Some(Self { audience: plan.submit?, plan: plan.clone(), keys })
    }

    /// Where files go.
    pub fn destination(&self) -> Destination {
        Destination {
            platform: self.plan.platform.name(),
            origin: self.plan.origin(),
            submit: self.audience,
            bytes_max: BYTES_MAX,
        }
    }

    /// Sends the file, unless the platform knows it.
    pub async fn submit(&self, sample: &Sample, now: Timestamp) -> Result<Submitted, NotSubmitted> {
        let mut refused = None;
        for is_fresh in [false, true] {
            if is_fresh {
                // A refused key is read again once: perhaps it was replaced this minute.
                self.keys.refresh().await;
            }
            for key in self.keys.keys().iter() {
                let key = key.secret.expose();
                match self.errand(sample, key, now).run().await.map_err(|answer| without(answer, key)) {
                    Ok(submitted) => return Ok(submitted),
                    Err(Answer::Key(reason)) => refused = Some(reason),
                    Err(answer) => return Err(self.told(answer)),
                }
            }
        }
        let reason = refused.unwrap_or_else(|| "no key can be read: check the secret".to_owned());
        Err(self.told(Answer::Key(reason)))
    }

    fn errand<'a>(&self, sample: &'a Sample, key: &'a [u8], now: Timestamp) -> Errand<'a> {
        let PollPlan { platform, base, user, timeout, tls, .. } = self.plan.clone();
        let client = Client::new(base, platform, user, timeout, tls);
        Errand { client, platform, audience: self.audience, sample, key, now }
    }

    /// Why there is no analysis, for whoever sent the file.
    fn told(&self, answer: Answer) -> NotSubmitted {
        let name = self.plan.platform.name();
        let words = |what: &str, reason: &str| {
            let mut told = format!("{name} {what}");
            if !reason.is_empty() {
                told = format!("{told}: {reason}");
            }
            shorten(&mut told, WORDS_BYTES_MAX);
            told
        };
        match answer {
            Answer::TooFast(wait) => {
                NotSubmitted::Quota(words("is asked too fast", "it answers 429"), wait.unwrap_or(PAUSE))
            }
            Answer::Quota(wait) => NotSubmitted::Quota(
                words("has no quota left for the key or its group", "it answers 429"),
                wait.unwrap_or(QUOTA_PAUSE),
            ),
            Answer::Unavailable { reason, retry_after } => {
                NotSubmitted::Unavailable(words("cannot take the file now", &reason), retry_after.unwrap_or(PAUSE))
            }
            Answer::Tls(reason) => NotSubmitted::Unavailable(words("is not trusted", &reason), QUOTA_PAUSE),
            Answer::Key(reason) => {
                NotSubmitted::Unavailable(words("refuses every key of this source", &reason), QUOTA_PAUSE)
            }
            Answer::Forbidden(reason) => NotSubmitted::Refused(words(
                "takes the key and refuses the file; the key's account lacks the right to upload",
                &reason,
            )),
            Answer::Never(reason) if reason == TOO_LARGE => {
                NotSubmitted::TooLarge(words("refuses the file", "it is too large for it"))
            }
            Answer::Never(reason) | Answer::Misconfigured(reason) | Answer::Absent(reason) => {
                NotSubmitted::Refused(words("refuses the file", &reason))
            }
            Answer::NotYet(wait) => {
                NotSubmitted::Unavailable(words("cannot take the file now", ""), wait.unwrap_or(PAUSE))
            }
            Answer::Wait(wait) => NotSubmitted::Unavailable(words("has to be left alone", ""), wait),
            Answer::Found(_) => NotSubmitted::Refused(words("gave an answer that this version does not read", "")),
        }
    }
}

impl PollPlan {
    /// Kind of the report of an analysis that is known by its id alone: of a source that submits privately, a private one.
    pub(super) fn analysis_kind(&self) -> &'static str {
        match (self.platform, self.submit) {
            (Platform::VirusTotal, Some(Audience::Private)) => "private_analysis",
            _ => self.platform.analysis_kind(),
        }
    }

    /// Where files may be sent, in words; none where they are not.
    pub fn submit_words(&self) -> Option<String> {
        let who = match self.submit? {
            Audience::Private => "for the account alone",
            Audience::Public => "where everybody with an account can download them",
        };
        Some(format!("files may be sent to {} at {}, {who}", self.platform.name(), self.origin()))
    }
}

/// One attempt with one key.
struct Errand<'a> {
    client: Client,
    platform: Platform,
    audience: Audience,
    sample: &'a Sample,
    key: &'a [u8],
    now: Timestamp,
}

impl Errand<'_> {
    async fn run(mut self) -> Result<Submitted, Answer> {
        if let Some(known) = self.known().await? {
            return Ok(known);
        }
        match self.platform {
            Platform::VirusTotal => self.virustotal().await,
            _ => self.vile_analyziz().await,
        }
    }

    /// What the platform says of the hash.
    async fn known(&mut self) -> Result<Option<Submitted>, Answer> {
        let hash = self.sample.sha256;
        let question = self.platform.by_hash(hash).unwrap_or_else(|| {
            let path = ["v1", "files"].map(str::to_owned).into();
            Question { path, query: vec![("sha256", hash.to_string())], bytes_max: LIST_BYTES_MAX }
        });
        let asked = self.client.ask(&question, self.key, self.now).await;
        match judge(self.platform, asked) {
            // It exists: the whole report is not needed here, however large it is.
            Answer::Found(_) if self.platform == Platform::VirusTotal => {
                Ok(Some(Submitted { known: true, reported: true, analysis_id: None }))
            }
            Answer::Found(body) => Ok(listed(&body, hash)),
            Answer::Absent(_) | Answer::NotYet(_) => Ok(None),
            other => Err(other),
        }
    }

    async fn virustotal(&mut self) -> Result<Submitted, Answer> {
        let kind = match self.audience {
            Audience::Private => &["api", "v3", "private", "files"][..],
            Audience::Public => &["api", "v3", "files"][..],
        };
        let (form, content_type, length) = self.form();
        let content = Content::File(form, content_type, length);
        let sent = if self.sample.size <= DIRECT_BYTES_MAX {
            self.client.post(kind, self.key, content, self.now).await
        } else {
            let path = kind.iter().chain(&["upload_url"]).map(|segment| (*segment).to_owned()).collect();
            let question = Question { path, query: Vec::new(), bytes_max: LIST_BYTES_MAX };
            let asked = self.client.ask(&question, self.key, self.now).await;
            let answer = self.json(asked)?;
            let place = self.place(answer["data"].as_str())?;
            self.client.hand_over(&place, false, self.key, content, self.now).await
        };
        let answer = self.json(sent)?;
        let id = answer["data"]["id"].as_str().filter(|id| FetchId::new("analysis", id).is_some());
        let id = id.ok_or_else(|| Answer::Misconfigured("its answer names no analysis".to_owned()))?;
        Ok(Submitted { known: false, reported: false, analysis_id: Some(id.to_owned()) })
    }

    /// The file as the one field of a form.
    fn form(&self) -> (FileBody, String, u64) {
        let boundary = format!("verdict-relay-{:032x}", fastrand::u128(..));
        // As browsers write it (WHATWG, "multipart/form-data encoding algorithm").
        let name = self.sample.name.replace('"', "%22");
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {BYTES}\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let body = FileBody::new(self.sample.file.clone(), self.sample.size).within(head.into(), tail.into());
        (body, format!("multipart/form-data; boundary={boundary}"), self.sample.size)
    }

    async fn vile_analyziz(&mut self) -> Result<Submitted, Answer> {
        let Sample { file, size, sha256, name } = self.sample;
        let announced = json!({ "fileName": name, "contentType": BYTES, "sha256": sha256.to_string() });
        let begun = match self.tell(&["v1", "upload"], &announced).await {
            // Conflict: it has this file.
            Err(Answer::NotYet(_)) => return Ok(Submitted { known: true, reported: false, analysis_id: None }),
            begun => begun?,
        };
        let place = self.place(begun["uploadUrl"].as_str().or_else(|| begun["upload_url"].as_str()))?;
        let content = Content::File(FileBody::new(file.clone(), *size), BYTES.to_owned(), *size);
        let put = self.client.hand_over(&place, true, self.key, content, self.now).await;
        if let Ok(Raw { status: status @ (401 | 403), .. }) = &put {
            // This is about the address, which is signed, and not about our key.
            return Err(Answer::Misconfigured(format!("the address it named for the upload answers {status}")));
        }
        self.good(put)?;
        let done = self.tell(&["v1", "upload", "complete"], &json!({ "sha256": sha256.to_string() })).await?;
        Ok(Submitted { known: false, reported: false, analysis_id: id_in(&done).or_else(|| id_in(&begun)) })
    }

    /// Posts this to the API; the answer, if it is a good one.
    async fn tell(&mut self, path: &[&str], what: &Value) -> Result<Value, Answer> {
        let content = Content::Json(what.to_string().into_bytes());
        let sent = self.client.post(path, self.key, content, self.now).await;
        // Its answer may be empty.
        self.good(sent).map(|body| serde_json::from_slice(&body).unwrap_or_default())
    }

    fn place(&self, named: Option<&str>) -> Result<super::client::Place, Answer> {
        let text =
            named.ok_or_else(|| Answer::Misconfigured("its answer names no address for the upload".to_owned()))?;
        self.client.place(text).map_err(Answer::Misconfigured)
    }

    fn good(&self, sent: Result<Raw, Failure>) -> Result<bytes::Bytes, Answer> {
        if let Ok(Raw { status: 413, .. }) = sent {
            return Err(Answer::Never(TOO_LARGE.to_owned()));
        }
        match judge(self.platform, sent) {
            Answer::Found(body) => Ok(body),
            other => Err(other),
        }
    }

    fn json(&self, sent: Result<Raw, Failure>) -> Result<Value, Answer> {
        let body = self.good(sent)?;
        serde_json::from_slice(&body).map_err(|_| Answer::Misconfigured("its answer is no JSON".to_owned()))
    }
}

/// Whether a list of Vile Analyziz has this file. The list may ignore what it was asked for.
fn listed(body: &[u8], hash: Sha256) -> Option<Submitted> {
    let list: Value = serde_json::from_slice(body).ok()?;
    let is_it =
        |file: &&Value| file["sha256"].as_str().is_some_and(|given| given.eq_ignore_ascii_case(&hash.to_string()));
    let file = list["files"].as_array()?.iter().find(is_it)?;
    let reported = file["status"] == "completed";
    Some(Submitted { known: true, reported, analysis_id: id_in(file) })
}

fn id_in(answer: &Value) -> Option<String> {
    let places = [&answer["analysisId"], &answer["fileId"], &answer["id"], &answer["file"]["id"]];
    let id = places.into_iter().find_map(Value::as_str)?;
    FetchId::new("file", id).map(|_| id.to_owned())
}

/// The largest file that VirusTotal takes; what Vile Analyziz takes is not published.
const BYTES_MAX: u64 = 650_000_000;
/// Larger ones need an address of their own at VirusTotal.
const DIRECT_BYTES_MAX: u64 = 32_000_000;
const BYTES: &str = "application/octet-stream";
const TOO_LARGE: &str = "too large";
/// Of what is told.
const WORDS_BYTES_MAX: usize = 512;
/// When to try again, where the platform does not say.
const PAUSE: Duration = Duration::from_mins(1);
const QUOTA_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Hash;
    use crate::poll::{Asked, ConfirmConfig};

    fn plan(adapter: &str, audience: Audience, is_asked: bool) -> Result<PollPlan, String> {
        let (confirm, poll) = match (is_asked, adapter) {
            (true, "virustotal") => (None, Some(json!({"keys": ["env:K"]}))),
            (true, _) => (Some(json!({"url": "https://vile.example", "key": "env:K"})), None),
            _ => (None, None),
        };
        let confirm: Option<ConfirmConfig> = confirm.map(|table| serde_json::from_value(table).expect("a config"));
        let poll = poll.map(|table| serde_json::from_value(table).expect("a config"));
        let asked = Asked { confirm, reconcile: None, poll };
        let mut poll = asked.plan("sources.a", adapter, Duration::from_hours(24 * 7)).expect("valid");
        audience.plan("sources.a", adapter, poll.as_mut()).map_err(|problem| problem.to_string())?;
        poll.ok_or_else(String::new)
    }

    #[test]
    fn who_cannot_be_sent_files_says_why() {
        for (adapter, audience, is_asked, words) in [
            ("cape", Audience::Private, true, "not to \"cape\""),
            ("native", Audience::Private, false, "not to \"native\""),
            ("vileanalyziz", Audience::Public, true, "write \"private\""),
            ("vileanalyziz", Audience::Private, false, "add confirm"),
            ("virustotal", Audience::Public, false, "add poll"),
        ] {
            let problem = plan(adapter, audience, is_asked).expect_err("cannot");
            assert!(problem.starts_with("sources.a.submit: ") && problem.contains(words), "{problem}");
        }
        let private = plan("virustotal", Audience::Private, true).expect("can");
        assert_eq!(private.analysis_kind(), "private_analysis");
        assert!(private.submit_words().expect("on").contains("for the account alone"));
        let public = plan("virustotal", Audience::Public, true).expect("can");
        assert_eq!(public.analysis_kind(), "analysis");
        assert!(public.submit_words().expect("on").contains("everybody with an account can download them"));
        assert!(plan("vileanalyziz", Audience::Private, true).is_ok());
    }

    #[test]
    fn a_list_that_ignores_the_question_is_no_answer() {
        let hash: Sha256 = Hash([0xab; 32]);
        let list = |sha256: &str| json!({"files": [{"id": "x", "sha256": sha256}]}).to_string();
        let known =
            |id: Option<&str>| Some(Submitted { known: true, reported: false, analysis_id: id.map(str::to_owned) });
        assert_eq!(listed(list(&"AB".repeat(32)).as_bytes(), hash), known(Some("x")));
        assert_eq!(listed(list(&"00".repeat(32)).as_bytes(), hash), None);
        assert_eq!(listed(b"<html>", hash), None);
        let odd = json!({"files": [{"id": "../x", "sha256": "ab".repeat(32)}]}).to_string();
        assert_eq!(listed(odd.as_bytes(), hash), known(None), "an id that no path can hold is none");
    }
}
