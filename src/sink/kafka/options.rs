//! Options of librdkafka, as the config gives them: which are refused and why, and which hold secrets.
//!
//! Invariants: nothing that an option says can make the producer lose events, run foreign code, talk to somebody whom it has not
//! verified, or put a secret into the config file.
//!
//! Not here: the values of secrets (`secret`); the options that this sink sets by itself (`kafka`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::secret::SecretRef;
use crate::setting::Problem;

/// A value of an option; numbers and booleans may stand without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue(pub String);

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;

        impl Visitor<'_> for AnyScalar {
            type Value = OptionValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<OptionValue, E> {
                Ok(OptionValue(value.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<OptionValue, E> {
                Ok(OptionValue(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<OptionValue, E> {
                Ok(OptionValue(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<OptionValue, E> {
                Ok(OptionValue(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<OptionValue, E> {
                Ok(OptionValue(value.to_string()))
            }
        }

        deserializer.deserialize_any(AnyScalar)
    }
}

impl schemars::JsonSchema for OptionValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OptionValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "number", "boolean"]})
    }
}

/// Options that passed: those with a plain value, and those whose value is a secret.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) plain: BTreeMap<String, String>,
    pub(super) secret: BTreeMap<String, SecretRef>,
    /// `message.timeout.ms`: the sink gives up all messages at once, never the library one before another.
    pub(super) give_up: Option<Duration>,
}

impl Options {
    /// Says how we prove who we are, in librdkafka's words: what follows from the mechanism and from `token`, over this protocol.
    pub(super) fn add_sasl(&mut self, has_token: bool, protocol: &str, key: &str) -> Vec<Problem> {
        if let Some(mechanism) = self.plain.remove("sasl.mechanisms") {
            self.plain.insert("sasl.mechanism".to_owned(), mechanism);
        }
        if has_token {
            self.plain.entry("sasl.mechanism".to_owned()).or_insert_with(|| "OAUTHBEARER".to_owned());
        }
        let Some(mechanism) = self.plain.get("sasl.mechanism") else { return Vec::new() };
        let wrong = match (mechanism.as_str(), has_token) {
            ("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512", false) | ("OAUTHBEARER", true) => None,
            ("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512", true) => {
                Some("`token` is for OAUTHBEARER: remove one of the two")
            }
            ("OAUTHBEARER", false) => Some("it needs a token: add token = \"file:PATH\", a file that is kept fresh"),
            _ => Some("use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; Kerberos is not built in"),
        };
        self.plain.entry("security.protocol".to_owned()).or_insert_with(|| protocol.to_owned());
        wrong.map(|words| Problem::new(format!("{key}.options.\"sasl.mechanism\""), words)).into_iter().collect()
    }
}

/// Sorts the options, or says what is wrong with each; `key` is the path of the sink in the config.
pub(super) fn sort(options: BTreeMap<String, OptionValue>, key: &str) -> Result<Options, Vec<Problem>> {
    let mut sorted = Options::default();
    let mut problems = Vec::new();
    for (name, OptionValue(value)) in options {
        let key = format!("{key}.options.\"{name}\"");
        if let Some(why) = refused(&name, &value) {
            problems.push(Problem::new(key, why));
        } else if matches!(name.as_str(), "message.timeout.ms" | "delivery.timeout.ms") {
            match value.trim().parse() {
                Ok(ms @ GIVE_UP_MS_MIN..=GIVE_UP_MS_MAX) => sorted.give_up = Some(Duration::from_millis(ms)),
                _ => problems.push(Problem::new(key, "use 1000 to 900000: milliseconds until all is sent again")),
            }
        } else if let Some(reference) = reference(&value) {
            match reference.check() {
                Ok(()) => drop(sorted.secret.insert(name, reference)),
                Err(error) => problems.push(Problem::new(key, error.to_string())),
            }
        } else if is_secret(&name) {
            problems.push(Problem::new(
                key,
                "this is a secret: write a reference to it, like \"env:KAFKA_PASSWORD\" or \"file:PATH\"",
            ));
        } else {
            sorted.plain.insert(name, value);
        }
    }
    if problems.is_empty() { Ok(sorted) } else { Err(problems) }
}

/// Why an option is not accepted.
fn refused(name: &str, value: &str) -> Option<&'static str> {
    let is_off = |words: &[&str]| words.contains(&value.to_ascii_lowercase().as_str());
    match name {
        "acks" | "request.required.acks" => {
            Some("always \"all\": with less a broker that dies takes acknowledged events along; remove it")
        }
        "enable.idempotence" => Some("always on: without it a retry doubles or reorders events; remove it"),
        "retries" | "message.send.max.retries" => {
            Some("never limited: events are tried until they are delivered; remove it")
        }
        "max.in.flight" | "max.in.flight.requests.per.connection" => {
            Some("set for idempotence, which keeps the order of events; remove it")
        }
        "transactional.id" | "transaction.timeout.ms" => Some("transactions are not used; remove it"),
        "plugin.library.paths" | "ssl.engine.location" | "ssl.engine.id" | "ssl.providers" => {
            Some("it loads foreign code into this process; remove it")
        }
        "sasl.kerberos.kinit.cmd" => Some("it runs a shell command; remove it"),
        "enable.gapless.guarantee" => Some("always on: without it events overtake one that failed; remove it"),
        "delivery.report.only.error" | "log.queue" | "enabled_events" | "opaque" => {
            Some("this sink relies on its default; remove it")
        }
        _ if name.starts_with("sasl.oauthbearer.") => {
            Some("the library fetches no tokens here: let something keep one in a file, and name it by `token`")
        }
        "bootstrap.servers" | "metadata.broker.list" => Some("name the brokers in `brokers` instead"),
        "enable.ssl.certificate.verification" if is_off(&["false", "0", "f", "no"]) => {
            Some("the brokers' certificates are always verified; set `tls.ca` to the CA that signed them")
        }
        "ssl.endpoint.identification.algorithm" if is_off(&["none"]) => {
            Some("the brokers' names are always verified; use the names that stand in their certificates")
        }
        "enable.sasl.oauthbearer.unsecure.jwt" if !is_off(&["false", "0", "f", "no"]) => {
            Some("a token that nobody signed proves nothing; remove it")
        }
        _ if name.starts_with("test.") => Some("it replaces the brokers by a toy that forgets everything; remove it"),
        _ => None,
    }
}

/// A value that names a secret.
fn reference(value: &str) -> Option<SecretRef> {
    let is_reference = ["env:", "file:", "vault:", "aws:"].iter().any(|scheme| value.starts_with(scheme));
    is_reference.then(|| SecretRef(value.to_owned()))
}

fn is_secret(name: &str) -> bool {
    name.ends_with("password") || name.ends_with("secret") || name.ends_with("passphrase") || name == "ssl.key.pem"
}

/// Shorter than a broker needs to answer on a bad day is only good for tests; longer than a quarter of an hour nobody wants to wait.
const GIVE_UP_MS_MIN: u64 = 1_000;
const GIVE_UP_MS_MAX: u64 = 900_000;
