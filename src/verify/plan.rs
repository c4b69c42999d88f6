//! The plan that comes out of a proof as it is written.
//!
//! Invariants: a plan exists only for a proof that pins something: a key, a topic, an issuer and an audience, a subject or a network.
//! What is written and would not be looked at is refused here, before the first message.
//!
//! Not here: signatures by template (`verify/plan/signature`), how a message is checked (`verify`).

mod signature;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;

use super::config::{SchemeName, VerifyConfig};
use super::handshake::EventGrid;
use super::jwt::JwtScheme;
use super::public_key::{Kind, PublicKey};
use super::sns::{Certificates, SnsScheme, TopicArn};
use super::template::FixedKeys;
use super::{GridProof, Scheme, TokenPlace};
use crate::secret::SecretRef;
use crate::setting::{Problem, Texts};

impl VerifyConfig {
    /// The validated proof, or what is wrong with it. `key` is the path of this table in the config.
    ///
    /// `loopback` says that the receiver listens on loopback only, where any network may be allowed.
    pub fn plan(&self, key: &str, loopback: bool) -> Result<Scheme, Problem> {
        self.check_belongings(key)?;
        match self.scheme {
            SchemeName::Hmac => self.plan_hmac(key).map(Scheme::Signature),
            SchemeName::Ed25519 => self.plan_ed25519(key).map(Scheme::Signature),
            SchemeName::Rsa => self.plan_rsa(key).map(Scheme::Signature),
            SchemeName::Sns => self.plan_sns(key).map(Scheme::Sns),
            SchemeName::EventGrid => self.plan_event_grid(key),
            SchemeName::Token => self.plan_token(key),
            SchemeName::Mtls => self.plan_subjects(key),
            SchemeName::None => self.plan_networks(key, loopback),
        }
    }

    /// Refuses settings that the scheme would not look at: whoever wrote them believes that they do something.
    fn check_belongings(&self, key: &str) -> Result<(), Problem> {
        use SchemeName::{Ed25519, EventGrid, Hmac, Mtls, None, Rsa, Sns, Token};
        let belongings: [(&str, bool, &[SchemeName]); 31] = [
            ("preset", self.preset.is_some(), &[Hmac, Ed25519]),
            ("secrets", !self.secrets.is_empty(), &[Hmac, Token, EventGrid, Ed25519]),
            ("allow_short_secret", self.allow_short_secret, &[Hmac, Token, EventGrid]),
            ("public_key", self.public_key.is_some(), &[Rsa, Ed25519]),
            ("public_keys", !self.public_keys.is_empty(), &[Rsa, Ed25519]),
            ("tenant", self.tenant.is_some(), &[Rsa]),
            ("tolerance", self.tolerance.is_some(), &[Hmac, Ed25519, Rsa, Sns, EventGrid]),
            ("header", self.header.is_some(), &[Hmac, Ed25519, Rsa, Token]),
            ("algorithm", self.algorithm.is_some(), &[Hmac]),
            ("encoding", self.encoding.is_some(), &[Hmac, Ed25519, Rsa]),
            ("prefix", self.prefix.is_some(), &[Hmac, Ed25519, Token]),
            ("parts", self.parts.is_some(), &[Hmac, Ed25519]),
            ("signed", self.signed.is_some(), &[Hmac, Ed25519]),
            ("timestamp_header", self.timestamp_header.is_some(), &[Hmac, Ed25519, Rsa]),
            ("timestamp_unit", self.timestamp_unit.is_some(), &[Hmac, Ed25519, Rsa]),
            ("id_header", self.id_header.is_some(), &[Hmac, Ed25519]),
            ("over", self.over.is_some(), &[Hmac, Ed25519, Rsa]),
            (
                "content_encodings",
                self.content_encodings.is_some(),
                &[Hmac, Ed25519, Rsa, Token, EventGrid, Mtls, None],
            ),
            ("bearer", self.bearer, &[Token]),
            ("basic", self.basic.is_some(), &[Token]),
            ("handshake", self.handshake.is_some(), &[Token]),
            ("topics", !self.topics.is_empty(), &[Sns]),
            ("certificates", !self.certificates.is_empty(), &[Sns]),
            ("secret_query", self.secret_query.is_some(), &[EventGrid]),
            ("issuer", self.issuer.is_some(), &[EventGrid]),
            ("audience", self.audience.is_some(), &[EventGrid]),
            ("applications", !self.applications.is_empty(), &[EventGrid]),
            ("origins", !self.origins.is_empty(), &[EventGrid, Token]),
            ("tls", !self.tls.is_default(), &[Sns, EventGrid]),
            ("subjects", !self.subjects.is_empty(), &[Mtls]),
            ("networks", !self.networks.is_empty(), &[None]),
        ];
        match belongings.iter().find(|(_, set, schemes)| *set && !schemes.contains(&self.scheme)) {
            Some((name, ..)) => Err(unused(key, name)),
            Option::None => Ok(()),
        }
    }

    fn check_secrets(&self, key: &str) -> Result<(), Problem> {
        if self.secrets.is_empty() {
            return Err(Problem::new(
                format!("{key}.secrets"),
                "no secret is named, so nothing could be proven: add one, like [\"env:PORTAL_SECRET\"]",
            ));
        }
        checked(&self.secrets, &format!("{key}.secrets"))
    }

    fn plan_token(&self, key: &str) -> Result<Scheme, Problem> {
        self.check_secrets(key)?;
        let place = match (&self.header, self.bearer, &self.basic) {
            (Some(Texts(names)), false, None) if names.len() == 1 => TokenPlace::Header {
                name: header_name(&names[0], &format!("{key}.header"))?,
                prefix: self.prefix.clone().unwrap_or_default(),
            },
            (None, ..) if self.prefix.is_some() => {
                return Err(Problem::new(format!("{key}.prefix"), "a prefix goes with header only: remove it"));
            }
            (None, true, None) => TokenPlace::Bearer,
            (None, false, Some(user)) if user.contains(':') => {
                return Err(Problem::new(format!("{key}.basic"), "a user name holds no colon"));
            }
            (None, false, Some(user)) => TokenPlace::Basic { user: user.clone() },
            _ => {
                return Err(Problem::new(
                    key,
                    "say once where the token stands: header = \"X-Api-Key\", bearer = true, or basic = \"USER\"",
                ));
            }
        };
        match self.handshake {
            None if !self.origins.is_empty() => Err(unused(key, "origins")),
            None => Ok(Scheme::Token(place)),
            Some(_) => Ok(Scheme::EventGrid { proof: GridProof::Secret(place), handshake: self.plan_origins(key)? }),
        }
    }

    fn plan_sns(&self, key: &str) -> Result<SnsScheme, Problem> {
        let at = format!("{key}.topics");
        if self.topics.is_empty() {
            let words = "name the topics that may send, like [\"arn:aws:sns:eu-west-1:123456789012:verdicts\"]: SNS signs for every customer of AWS";
            return Err(Problem::new(at, words));
        }
        let topic = |text: &String| {
            let words = "not the ARN of a topic: write it like \"arn:aws:sns:eu-west-1:123456789012:verdicts\"";
            TopicArn::parse(text).ok_or_else(|| Problem::new(at.as_str(), words))
        };
        let certificates: Vec<&String> = self.certificates.iter().collect();
        let certificates = match certificates.as_slice() {
            [] => Certificates::Fetched,
            texts => Certificates::Pinned(fixed_keys(texts, Kind::Rsa, &format!("{key}.certificates"))?),
        };
        Ok(SnsScheme {
            topics: self.topics.iter().map(topic).collect::<Result<_, _>>()?,
            tolerance: self.span_of_tolerance(SNS_TOLERANCE_DEFAULT, key)?,
            certificates,
        })
    }

    fn plan_event_grid(&self, key: &str) -> Result<Scheme, Problem> {
        let handshake = self.plan_origins(key)?;
        let problem = |name: &str, words: &str| Err(Problem::new(format!("{key}.{name}"), words));
        let proof = match (&self.secret_query, &self.issuer, &self.audience) {
            (Some(_), None, None) => GridProof::Secret(self.plan_query(key)?),
            (None, Some(issuer), Some(audience)) => GridProof::Issuer(self.plan_issuer(issuer, audience, key)?),
            (None, Some(_), None) => {
                return problem(
                    "audience",
                    "name the application id of this webhook in Entra: tokens for others prove nothing",
                );
            }
            (None, None, Some(_)) => {
                return problem(
                    "issuer",
                    "name who issues the tokens, like \"https://login.microsoftonline.com/TENANT/v2.0\"",
                );
            }
            (None, None, None) => {
                return problem(
                    "secret_query",
                    "Event Grid signs no bodies: name the URL parameter with a secret, or issuer and audience of its bearer tokens",
                );
            }
            (Some(_), ..) => return problem("issuer", "secret_query proves the requests already: keep one of the two"),
        };
        Ok(Scheme::EventGrid { proof, handshake })
    }

    /// Where the secret in a URL stands.
    fn plan_query(&self, key: &str) -> Result<TokenPlace, Problem> {
        for (name, set) in [
            ("applications", !self.applications.is_empty()),
            ("tolerance", self.tolerance.is_some()),
            ("tls", !self.tls.is_default()),
        ] {
            if set {
                return Err(unused(key, name));
            }
        }
        let text = self.secret_query.as_deref().unwrap_or_default();
        if SecretRef(text.to_owned()).check().is_ok() {
            checked(&self.secrets, &format!("{key}.secrets"))?;
            return Ok(TokenPlace::Query { name: None });
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_name) {
            let words = "name the URL parameter that holds the secret, like \"code\", and the secret in secrets; or write the reference of the secret";
            return Err(Problem::new(format!("{key}.secret_query"), words));
        }
        self.check_secrets(key)?;
        Ok(TokenPlace::Query { name: Some(text.to_owned()) })
    }

    fn plan_issuer(&self, issuer: &str, audience: &str, key: &str) -> Result<JwtScheme, Problem> {
        if !self.secrets.is_empty() || self.allow_short_secret {
            return Err(unused(key, "secrets"));
        }
        let host = issuer.strip_prefix("https://").map_or("", |rest| rest.split('/').next().unwrap_or_default());
        if host.is_empty() || issuer.contains(['?', '#', '@', ' ']) {
            let words = "write it as the tokens do, like \"https://login.microsoftonline.com/TENANT/v2.0\"";
            return Err(Problem::new(format!("{key}.issuer"), words));
        }
        if audience.is_empty() {
            return Err(Problem::new(format!("{key}.audience"), "name the application id of this webhook in Entra"));
        }
        Ok(JwtScheme {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            applications: self.applications.clone(),
            leeway: self.span_of_tolerance(TOLERANCE_DEFAULT, key)?,
        })
    }

    fn plan_origins(&self, key: &str) -> Result<EventGrid, Problem> {
        if self.origins.is_empty() {
            return Ok(EventGrid { origins: vec![EVENT_GRID_ORIGIN.to_owned()] });
        }
        let is_name = |text: &String| {
            let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !text.is_empty() && text.len() <= 253 && text.bytes().all(is_label)
        };
        if !self.origins.iter().all(is_name) {
            return Err(Problem::new(format!("{key}.origins"), "names of senders, like [\"eventgrid.azure.net\"]"));
        }
        Ok(EventGrid { origins: self.origins.iter().map(|text| text.to_ascii_lowercase()).collect() })
    }

    fn span_of_tolerance(&self, default: Duration, key: &str) -> Result<SignedDuration, Problem> {
        let tolerance = self.tolerance.map_or(default, |span| span.0);
        if tolerance < Duration::from_secs(1) {
            return Err(Problem::new(format!("{key}.tolerance"), "at least \"1s\": clocks are never equal"));
        }
        Ok(SignedDuration::try_from(tolerance).unwrap_or(SignedDuration::MAX))
    }

    fn plan_subjects(&self, key: &str) -> Result<Scheme, Problem> {
        if self.subjects.is_empty() || self.subjects.iter().any(String::is_empty) {
            return Err(Problem::new(
                format!("{key}.subjects"),
                "name the certificates that may send, like [\"forwarder.example.com\"]: every client of the CA would pass",
            ));
        }
        Ok(Scheme::Mtls { subjects: self.subjects.clone() })
    }

    fn plan_networks(&self, key: &str, loopback: bool) -> Result<Scheme, Problem> {
        let at = format!("{key}.networks");
        if self.networks.is_empty() {
            return Err(Problem::new(at, "without a proof, say where messages may come from, like [\"10.1.0.0/16\"]"));
        }
        let mut networks = Vec::with_capacity(self.networks.len());
        for text in &self.networks {
            let network = parse_network(text).ok_or_else(|| {
                Problem::new(at.as_str(), format!("\"{text}\" is no network: write it like \"10.1.0.0/16\""))
            })?;
            if network.prefix_len() == 0 && !loopback {
                return Err(Problem::new(at, format!("\"{text}\" lets everybody in: name the sender's own networks")));
            }
            networks.push(network);
        }
        Ok(Scheme::Network { networks })
    }
}

/// A public key or certificate that is written out, or else where it is kept.
pub(super) fn material(text: &str) -> Result<&str, SecretRef> {
    if text.starts_with("whpk_") || text.contains("-----BEGIN ") {
        return Ok(text);
    }
    // What names no place is the path of a file, as everywhere else that a PEM file is named.
    Err(SecretRef(if text.contains(':') { text.to_owned() } else { format!("file:{text}") }))
}

/// The public keys or certificates that stand in the config itself; the others are loaded, and have to be references.
fn fixed_keys(texts: &[&String], kind: Kind, key: &str) -> Result<FixedKeys, Problem> {
    let mut fixed = Vec::new();
    for text in texts {
        match material(text) {
            Err(reference) => checked(&[reference], key)?,
            Ok(literal) => {
                let public = PublicKey::read(kind, literal.as_bytes()).ok_or_else(|| {
                    let words = match kind {
                        Kind::Ed25519 => "not an Ed25519 public key: \"whpk_\" and standard base64 of 32 bytes",
                        Kind::Rsa => "not one PEM block with an RSA key of 2048 bits or more",
                    };
                    Problem::new(key, words)
                })?;
                fixed.push((public.fingerprint(), public));
            }
        }
    }
    Ok(fixed.into())
}

fn checked(references: &[SecretRef], key: &str) -> Result<(), Problem> {
    match references.iter().find_map(|reference| reference.check().err()) {
        Some(error) => Err(Problem::new(key, error.to_string())),
        None => Ok(()),
    }
}

fn unused(key: &str, name: &str) -> Problem {
    Problem::new(format!("{key}.{name}"), "the scheme does not use this setting: remove it")
}

/// A network, or one address.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|address| address.to_canonical().into()))
}

/// A header name in lower case.
fn header_name(name: &str, key: &str) -> Result<String, Problem> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Problem::new(key, "not a header name: write it like \"X-Signature\""));
    }
    Ok(name.to_ascii_lowercase())
}

/// What the senders' own libraries allow.
const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);

/// SNS tries for at most an hour, and each of its tries may wait 15 s for us; a copy of a message is known by its id for days.
const SNS_TOLERANCE_DEFAULT: Duration = Duration::from_mins(90);

/// How Event Grid of the public cloud calls itself.
const EVENT_GRID_ORIGIN: &str = "eventgrid.azure.net";
