//! How a platform is asked, as written in the config and as planned: `confirm`, `reconcile` and `poll` of a source.
//!
//! Not here: what each platform's API looks like (`platform`), asking (`poll`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::client::Base;
use super::platform::Platform;
use crate::event::Hash;
use crate::secret::SecretRef;
use crate::setting::{Problem, Span};
use crate::tls::{ClientTls, ClientTlsConfig};

/// `confirm`: fetching the report that a callback points to, or that nothing proves.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmConfig {
    /// Where the platform's API is: `https://cape.internal`, with the path before the API's own where there is one.
    pub url: String,
    /// Reference to the key of its API.
    pub key: SecretRef,
    /// The user that the key belongs to; Assemblyline asks for it.
    #[serde(default)]
    pub user: Option<String>,
    /// Longest wait for an answer, 1s to 5m; default 1m, because reports are large.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Whether the key may travel without TLS to another machine.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// TLS to the platform.
    #[serde(default)]
    pub tls: ClientTlsConfig,
}

/// `reconcile`: finding finished analyses whose callback was lost, with the URL and key of `confirm`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReconcileConfig {
    /// How often the list of recent analyses is read, 1s to 1d.
    pub every: Span,
    /// How far back it is read once an hour and after a start, 1h to 30d, less than `store.dedup`; default 24h.
    #[serde(default)]
    pub look_back: Option<Span>,
}

/// `poll`: reading VirusTotal, which sends nothing by itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollConfig {
    /// References to API keys. The first that is accepted is used; when one is refused, the next is, at once.
    #[serde(default)]
    pub keys: Vec<SecretRef>,
    /// How often the streams are read, 1s to 1d; default 1m.
    #[serde(default)]
    pub every: Option<Span>,
    /// Where the API is; default `https://www.virustotal.com`.
    #[serde(default)]
    pub url: Option<String>,
    /// What is read: `ioc_stream`, `retrohunt`; nothing by default, then only reports that are asked for are fetched.
    #[serde(default)]
    pub streams: Vec<String>,
    /// How far back a stream begins that was never read, 1h to 7d; default 1d. VirusTotal forgets after 7 days.
    #[serde(default)]
    pub look_back: Option<Span>,
    /// Longest wait for an answer, 1s to 5m; default 1m.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Whether the key may travel without TLS to another machine.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// TLS to VirusTotal.
    #[serde(default)]
    pub tls: ClientTlsConfig,
}

/// A platform that can be asked, validated.
#[derive(Debug, Clone)]
pub struct PollPlan {
    /// Which one it is.
    pub(super) platform: Platform,
    /// Scheme, host, port and path before the API's own, without a slash at the end.
    pub(super) base: Base,
    pub(super) keys: Vec<SecretRef>,
    pub(super) user: Option<String>,
    pub(super) timeout: Duration,
    pub(super) tls: ClientTls,
    pub(super) reconcile: Option<Every>,
    pub(super) streams: Option<(Every, Vec<Stream>)>,
    /// Whether files may be sent to it, and who sees them there.
    pub(super) submit: Option<super::submit::Audience>,
}

/// How often something is read, and how far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Every {
    pub(super) every: Duration,
    pub(super) look_back: Duration,
}

/// What VirusTotal has to be read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    IocStream,
    Retrohunt,
}

impl Stream {
    const ALL: [Self; 2] = [Self::IocStream, Self::Retrohunt];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::IocStream => "ioc_stream",
            Self::Retrohunt => "retrohunt",
        }
    }
}

/// What a source says about asking its platform.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `confirm`.
    pub confirm: Option<ConfirmConfig>,
    /// `reconcile`.
    pub reconcile: Option<ReconcileConfig>,
    /// `poll`.
    pub poll: Option<PollConfig>,
}

impl Asked {
    /// The plan, if anything is to be asked. `key` is the path of the source (`sources.cape`), `adapter` what it is read by, `dedup` how
    /// long identities are remembered: what is found twice after that would be taken for new.
    pub fn plan(self, key: &str, adapter: &str, dedup: Duration) -> Result<Option<PollPlan>, Vec<Problem>> {
        let named = [
            ("confirm", self.confirm.is_some()),
            ("reconcile", self.reconcile.is_some()),
            ("poll", self.poll.is_some()),
        ];
        let Some((first, _)) = named.into_iter().find(|(_, is_named)| *is_named) else { return Ok(None) };
        let Some(platform) = Platform::of(adapter) else {
            let words = format!(
                "adapter \"{adapter}\" has no API that this version can ask: remove this key. It can ask {}",
                Platform::names()
            );
            return Err(vec![Problem::new(format!("{key}.{first}"), words)]);
        };
        match (platform, self) {
            (Platform::VirusTotal, Self { poll: Some(poll), confirm: None, reconcile: None }) => {
                poll.plan(&format!("{key}.poll")).map(Some)
            }
            (Platform::VirusTotal, Self { confirm, .. }) => {
                let wrong = if confirm.is_some() { "confirm" } else { "reconcile" };
                let words =
                    "VirusTotal is asked with poll = { keys = [\"env:VT_KEY\"] } alone; it fetches reports, too";
                Err(vec![Problem::new(format!("{key}.{wrong}"), words)])
            }
            (_, Self { poll: Some(_), .. }) => {
                let words = "only VirusTotal has streams: use confirm = { url, key }, and reconcile = { every }";
                Err(vec![Problem::new(format!("{key}.poll"), words)])
            }
            (_, Self { confirm: None, .. }) => {
                let words = "it needs confirm = { url = \"https://...\", key = \"env:...\" }, which says where to ask";
                Err(vec![Problem::new(format!("{key}.reconcile"), words)])
            }
            (platform, Self { confirm: Some(confirm), reconcile, .. }) => {
                confirm.plan(key, platform, reconcile, dedup).map(Some)
            }
        }
    }
}

impl ConfirmConfig {
    fn plan(
        self,
        source: &str,
        platform: Platform,
        reconcile: Option<ReconcileConfig>,
        dedup: Duration,
    ) -> Result<PollPlan, Vec<Problem>> {
        let key = format!("{source}.confirm");
        let mut problems = Vec::new();
        match (platform, &self.user) {
            (Platform::Assemblyline, None) => {
                problems.push(Problem::new(format!("{key}.user"), "name the user that the key belongs to"));
            }
            (Platform::Assemblyline, Some(user)) if !is_header_text(user) => {
                problems.push(Problem::new(format!("{key}.user"), "a user name has printable ASCII characters only"));
            }
            (Platform::Assemblyline, _) | (_, None) => {}
            (_, Some(_)) => {
                problems.push(Problem::new(format!("{key}.user"), "only Assemblyline asks for a user: remove it"));
            }
        }
        if reconcile.is_some() && !platform.lists() {
            let words =
                format!("{} lists no results: announce each analysis with POST /v1/expect instead", platform.name());
            problems.push(Problem::new(format!("{source}.reconcile"), words));
        }
        let reconcile = reconcile.map(|reconcile| reconcile.plan(&format!("{source}.reconcile"), dedup, &mut problems));
        let common = Common {
            url: &self.url,
            keys: vec![self.key],
            timeout: self.timeout,
            allow_plaintext: self.allow_plaintext,
            tls: self.tls,
        };
        match common.plan(&key, "key", platform, &mut problems) {
            Some(plan) if problems.is_empty() => Ok(PollPlan { user: self.user, reconcile, ..plan }),
            _ => Err(problems),
        }
    }
}

impl ReconcileConfig {
    fn plan(self, key: &str, dedup: Duration, problems: &mut Vec<Problem>) -> Every {
        check_every(key, self.every, problems);
        let look_back = self.look_back.map_or(LOOK_BACK, |span| span.0);
        if !(HOUR..=DAY * 30).contains(&look_back) || look_back >= dedup {
            let words =
                "use \"1h\" to \"30d\", less than store.dedup: what is found again after that would be taken for new";
            problems.push(Problem::new(format!("{key}.look_back"), words));
        }
        Every { every: self.every.0, look_back }
    }
}

impl PollConfig {
    fn plan(self, key: &str) -> Result<PollPlan, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut streams = Vec::new();
        for (at, word) in self.streams.iter().enumerate() {
            match Stream::ALL.into_iter().find(|stream| stream.word() == word) {
                Some(stream) if !streams.contains(&stream) => streams.push(stream),
                Some(_) => {}
                None => problems.push(Problem::new(
                    format!("{key}.streams[{at}]"),
                    "there is no stream of this name: use \"ioc_stream\" or \"retrohunt\"",
                )),
            }
        }
        let every = self.every.unwrap_or(Span(EVERY));
        check_every(key, every, &mut problems);
        let look_back = self.look_back.map_or(DAY, |span| span.0);
        if !(HOUR..=DAY * 7).contains(&look_back) {
            problems
                .push(Problem::new(format!("{key}.look_back"), "use \"1h\" to \"7d\": VirusTotal forgets after that"));
        }
        let common = Common {
            url: self.url.as_deref().unwrap_or(VIRUSTOTAL),
            keys: self.keys,
            timeout: self.timeout,
            allow_plaintext: self.allow_plaintext,
            tls: self.tls,
        };
        let streams = (!streams.is_empty()).then_some((Every { every: every.0, look_back }, streams));
        match common.plan(key, "keys", Platform::VirusTotal, &mut problems) {
            Some(plan) if problems.is_empty() => Ok(PollPlan { streams, ..plan }),
            _ => Err(problems),
        }
    }
}

/// What both tables have.
struct Common<'a> {
    url: &'a str,
    keys: Vec<SecretRef>,
    timeout: Option<Span>,
    allow_plaintext: bool,
    tls: ClientTlsConfig,
}

impl Common<'_> {
    fn plan(self, key: &str, keys_name: &str, platform: Platform, problems: &mut Vec<Problem>) -> Option<PollPlan> {
        let base = match Base::parse(self.url) {
            Ok(base) => {
                if base.is_plain() && !base.is_loopback() && !self.allow_plaintext {
                    let words =
                        "the key would travel without TLS: write \"https://...\", or set allow_plaintext = true";
                    problems.push(Problem::new(format!("{key}.url"), words));
                }
                if base.is_plain() && !self.tls.is_default() {
                    let words = "the URL uses no TLS: write \"https://...\", or remove this table";
                    problems.push(Problem::new(format!("{key}.tls"), words));
                }
                Some(base)
            }
            Err(words) => {
                problems.push(Problem::new(format!("{key}.url"), words));
                None
            }
        };
        if self.keys.is_empty() {
            problems.push(Problem::new(format!("{key}.{keys_name}"), "name at least one, like \"env:VT_KEY\""));
        }
        for (at, reference) in self.keys.iter().enumerate() {
            if let Err(error) = reference.check() {
                let place =
                    if keys_name == "keys" { format!("{key}.keys[{at}]") } else { format!("{key}.{keys_name}") };
                problems.push(Problem::new(place, error.to_string()));
            }
        }
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        if !(Duration::from_secs(1)..=Duration::from_mins(5)).contains(&timeout) {
            problems.push(Problem::new(format!("{key}.timeout"), "use \"1s\" to \"5m\""));
        }
        let tls = match self.tls.plan(&format!("{key}.tls")) {
            Ok(tls) => Some(tls),
            Err(found) => {
                problems.extend(found);
                None
            }
        };
        let (base, tls) = (base?, tls?);
        Some(PollPlan {
            platform,
            base,
            keys: self.keys,
            user: None,
            timeout,
            tls,
            reconcile: None,
            streams: None,
            submit: None,
        })
    }
}

fn check_every(key: &str, every: Span, problems: &mut Vec<Problem>) {
    if !(Duration::from_secs(1)..=DAY).contains(&every.0) {
        problems.push(Problem::new(format!("{key}.every"), "use \"1s\" to \"1d\""));
    }
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl PollPlan {
    /// Scheme, host and port: what events that were fetched from there name.
    pub fn origin(&self) -> String {
        self.base.origin()
    }

    /// The references to its keys.
    pub fn secrets(&self) -> Vec<SecretRef> {
        self.keys.clone()
    }

    /// Whether lists of it are read, so that it is of use to know which reports were.
    pub const fn remembers(&self) -> bool {
        self.reconcile.is_some()
    }

    /// Whether keys travel without TLS to another machine.
    pub fn is_in_the_clear(&self) -> bool {
        self.base.is_plain() && !self.base.is_loopback()
    }

    /// Whether the certificate of its API is not verified.
    pub const fn skips_verify(&self) -> bool {
        self.tls.skips_verify()
    }

    /// Whether it can be asked about a file of which only the hash is known: by a question of its own, or by its list.
    pub fn can_ask_by_hash(&self) -> bool {
        self.platform.by_hash(Hash([0; 32])).is_some() || self.reconcile.is_some()
    }

    /// What it is asked for, in words.
    pub fn words(&self) -> String {
        let mut words = vec!["reports that messages point to".to_owned()];
        if let Some(Every { every, .. }) = self.reconcile {
            words.push(format!("finished analyses, every {}", Span(every)));
        }
        if let Some((Every { every, .. }, streams)) = &self.streams {
            let streams: Vec<_> = streams.iter().map(|stream| stream.word()).collect();
            words.push(format!("{}, every {}", streams.join(" and "), Span(*every)));
        }
        words.join("; ")
    }
}

const VIRUSTOTAL: &str = "https://www.virustotal.com";
const TIMEOUT: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const LOOK_BACK: Duration = DAY;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(adapter: &str, written: &Value) -> Result<Option<PollPlan>, Vec<String>> {
        let table = |name: &str| written.get(name).cloned();
        let asked = Asked {
            confirm: table("confirm").map(|table| serde_json::from_value(table).expect("is a config")),
            reconcile: table("reconcile").map(|table| serde_json::from_value(table).expect("is a config")),
            poll: table("poll").map(|table| serde_json::from_value(table).expect("is a config")),
        };
        let keys = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.key).collect();
        asked.plan("sources.a", adapter, DAY * 7).map_err(keys)
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_key() {
        let confirm = json!({"url": "https://cape.internal", "key": "env:K"});
        let with = |name: &str, value: Value| {
            let mut table = confirm.clone();
            table[name] = value;
            json!({ "confirm": table })
        };
        let vt = |name: &str, value: Value| json!({"poll": {"keys": ["env:K"], name: value}});
        for (adapter, written, keys) in [
            ("native", json!({"confirm": confirm}), vec!["sources.a.confirm"]),
            ("virustotal", json!({"confirm": confirm}), vec!["sources.a.confirm"]),
            ("virustotal", json!({"reconcile": {"every": "5m"}}), vec!["sources.a.reconcile"]),
            ("cape", json!({"poll": {"keys": ["env:K"]}}), vec!["sources.a.poll"]),
            ("cape", json!({"reconcile": {"every": "5m"}}), vec!["sources.a.reconcile"]),
            ("metadefender", json!({"confirm": confirm, "reconcile": {"every": "5m"}}), vec!["sources.a.reconcile"]),
            ("assemblyline", json!({"confirm": confirm}), vec!["sources.a.confirm.user"]),
            ("cape", with("user", json!("x")), vec!["sources.a.confirm.user"]),
            ("cape", with("url", json!("http://cape.internal")), vec!["sources.a.confirm.url"]),
            ("cape", with("url", json!("https://u:p@cape")), vec!["sources.a.confirm.url"]),
            ("cape", with("url", json!("ftp://cape")), vec!["sources.a.confirm.url"]),
            ("cape", with("key", json!("hunter2")), vec!["sources.a.confirm.key"]),
            ("cape", with("timeout", json!("1h")), vec!["sources.a.confirm.timeout"]),
            ("cape", json!({"confirm": confirm, "reconcile": {"every": "0s"}}), vec!["sources.a.reconcile.every"]),
            (
                "cape",
                json!({"confirm": confirm, "reconcile": {"every": "5m", "look_back": "7d"}}),
                vec!["sources.a.reconcile.look_back"],
            ),
            ("virustotal", vt("streams", json!(["ioc"])), vec!["sources.a.poll.streams[0]"]),
            ("virustotal", vt("look_back", json!("8d")), vec!["sources.a.poll.look_back"]),
            ("virustotal", vt("keys", json!([])), vec!["sources.a.poll.keys"]),
        ] {
            assert_eq!(plan(adapter, &written).expect_err("is wrong"), keys, "{adapter} {written}");
        }
    }

    #[test]
    fn a_path_before_the_api_and_plain_http_on_loopback_are_fine() {
        let written =
            json!({"confirm": {"url": "https://private.tria.ge/api/", "key": "env:K"}, "reconcile": {"every": "5m"}});
        let planned = plan("triage", &written).expect("valid").expect("is asked");
        assert_eq!(planned.base, Base::parse("https://private.tria.ge/api").expect("a URL"));
        assert_eq!(planned.origin(), "https://private.tria.ge");
        assert_eq!(planned.reconcile, Some(Every { every: Duration::from_mins(5), look_back: DAY }));
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            assert!(plan("cape", &json!({"confirm": {"url": url, "key": "env:K"}})).is_ok(), "{url}");
        }
        let written = json!({"poll": {"keys": ["env:K"], "streams": ["ioc_stream", "retrohunt"]}});
        let planned = plan("virustotal", &written).expect("valid").expect("is asked");
        assert_eq!(planned.origin(), "https://www.virustotal.com");
        assert!(planned.words().contains("ioc_stream and retrohunt, every 1m"));
        assert!(plan("native", &json!({})).expect("valid").is_none());
    }
}
