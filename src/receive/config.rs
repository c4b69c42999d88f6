//! How the receiver is written in the config, and the plan that comes out of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::setting::{Problem, Size, Span};
use crate::verify::parse_network;

/// `[receiver]`, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Address and port that senders reach.
    pub listen: String,
    /// The URL by which senders reach us, for schemes that sign it and for what `check` prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Largest body.
    pub body_max: Size,
    /// Longest time for a body to arrive.
    pub body_timeout: Span,
    /// Networks of proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<String>,
    /// TLS; without it the listener speaks plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            public_url: None,
            body_max: Size(10 << 20),
            body_timeout: Span(Duration::from_secs(30)),
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// Files of a TLS listener, in PEM form; a change is taken up within 10 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate with its chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates; needed for sources with `scheme = "mtls"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// How many proven requests a source may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run, at least 1.
    pub per_second: u32,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
}

/// The receiver, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverPlan {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Scheme, host and path prefix, without a slash at the end; empty where none is set.
    pub public_url: String,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Longest time for a body to arrive.
    pub body_timeout: Duration,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Files of the TLS listener.
    pub tls: Option<TlsPlan>,
}

/// Files of a TLS listener.
pub type TlsPlan = TlsConfig;

impl ReceiverConfig {
    /// The validated receiver, or what is wrong. `key` is the path of this table in the config.
    pub fn plan(&self, key: &str) -> Result<ReceiverPlan, Problem> {
        let problem = |name: &str, message: &str| Err(Problem::new(format!("{key}.{name}"), message));
        let Ok(listen) = self.listen.parse() else {
            return problem("listen", "not an address with a port: write it like \"0.0.0.0:8080\" or \"[::]:8080\"");
        };
        let public_url = self.public_url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        let is_http = public_url.starts_with("https://") || public_url.starts_with("http://");
        if (!public_url.is_empty() || self.public_url.is_some()) && (!is_http || public_url.contains(['?', '#', ' '])) {
            return problem("public_url", "not a base URL: write it like \"https://hooks.example.com\"");
        }
        let Some(body_bytes_max) = usize::try_from(self.body_max.0).ok().filter(|bytes| BODY_MAX.contains(bytes))
        else {
            return problem("body_max", "between \"1KiB\" and \"256MiB\"");
        };
        if !BODY_TIMEOUT.contains(&self.body_timeout.0) {
            return problem("body_timeout", "between \"1s\" and \"5m\"");
        }
        let mut trusted_proxies = Vec::with_capacity(self.trusted_proxies.len());
        for text in &self.trusted_proxies {
            let Some(network) = parse_network(text) else {
                return problem("trusted_proxies", "not a network: write it like \"10.0.0.0/8\"");
            };
            trusted_proxies.push(network);
        }
        Ok(ReceiverPlan {
            listen,
            public_url,
            body_bytes_max,
            body_timeout: self.body_timeout.0,
            trusted_proxies,
            tls: self.tls.clone(),
        })
    }
}

impl RateLimit {
    /// This limit, if anything could pass it. `key` is the path of this table in the config.
    pub fn plan(self, key: &str) -> Result<Self, Problem> {
        if self.per_second == 0 || self.burst == 0 {
            return Err(Problem::new(key, "per_second and burst are at least 1; leave rate_limit out for no limit"));
        }
        Ok(self)
    }
}

/// Smaller than this no verdict is; larger than this a body is a file and not a message about one.
const BODY_MAX: std::ops::RangeInclusive<usize> = 1 << 10..=256 << 20;

/// Past five minutes every sender has long given up.
const BODY_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_plan_and_mistakes_are_named() {
        let plan = ReceiverConfig::default().plan("receiver").expect("a plan");
        assert_eq!((plan.body_bytes_max, plan.public_url.as_str()), (10 << 20, ""));
        for (toml, words) in [
            ("listen = \"8080\"", "receiver.listen: not an address"),
            ("public_url = \"hooks.example.com\"", "receiver.public_url: not a base URL"),
            ("public_url = \"\"", "receiver.public_url: not a base URL"),
            ("public_url = \"https://a?b\"", "receiver.public_url: not a base URL"),
            ("body_max = \"1B\"", "receiver.body_max: between"),
            ("body_timeout = \"1h\"", "receiver.body_timeout: between"),
            ("trusted_proxies = [\"10.0\"]", "receiver.trusted_proxies: not a network"),
        ] {
            let config: ReceiverConfig = toml::from_str(toml).expect(toml);
            assert!(config.plan("receiver").expect_err(toml).to_string().starts_with(words), "{toml}");
        }
        assert!(toml::from_str::<ReceiverConfig>("lisen = \"a\"").is_err());
        let config: ReceiverConfig = toml::from_str("public_url = \"https://hooks.example.com/in/\"").expect("TOML");
        assert_eq!(config.plan("receiver").expect("a plan").public_url, "https://hooks.example.com/in");
        assert!(RateLimit { per_second: 0, burst: 1 }.plan("sources.a.rate_limit").is_err());
    }
}
