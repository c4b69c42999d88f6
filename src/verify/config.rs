//! How a proof is written in the config, and the plan that comes out of it.
//!
//! Invariants: a plan exists only for a proof that pins something: a key, a subject or a network. A time that is not signed,
//! and fields that could run into each other, are refused here, before the first message.
//!
//! Not here: what known senders do (`verify/preset`), how a message is checked (`verify`, `verify/hmac`).

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::hmac::{HeaderNames, HmacScheme, Piece, Shape};
use super::preset::{Preset, RuleShape, Rules, SPELLED_OUT};
use super::{Scheme, TokenPlace};
use crate::secret::SecretRef;
use crate::setting::{Problem, Span};

/// `verify` of a source, as written. Flat rather than one struct a scheme, so that an environment variable can override any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyConfig {
    /// How the source proves its messages.
    pub scheme: SchemeName,
    /// `hmac`: the sender whose way of signing is meant; the fields below override it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// `hmac`, `token`: references of the live secrets; any match passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
    /// Take secrets under 24 bytes, which can be guessed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_short_secret: bool,
    /// `hmac`: how far the signed time may be from now, either way; 5m where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Span>,
    /// `hmac`: the header with the signature. `token`: the header with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// `hmac`: the hash; sha256 where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// `hmac`: how signatures are written; hex where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// `hmac`, `token`: what stands before the signature or token (`sha256=`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `hmac`: names of the `k=v` pairs, where the header is a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// `hmac`: what is signed, of {id}, {timestamp}, {url}, {method} and {body}; `{body}` where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// `hmac`: the header with the signed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// `hmac`: the unit of the signed time; s where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_unit: Option<TimestampUnit>,
    /// `hmac`: the header with the sender's id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_header: Option<String>,
    /// `hmac`: whether the bytes are signed as they were sent, or before they were compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
    /// `token`: the token stands in `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bearer: bool,
    /// `token`: the token is the password of this user, in `Authorization: Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<String>,
    /// `mtls`: names that the client certificate may go by: common name, whole subject, DNS name or URI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// `none`: networks that messages may come from (`10.1.0.0/16`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// The kinds of proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SchemeName {
    /// A keyed hash over the body.
    #[default]
    Hmac,
    /// A shared token in a header.
    Token,
    /// A client certificate.
    Mtls,
    /// Only the sender's network.
    None,
    /// An Ed25519 signature; not built yet.
    Ed25519,
    /// An RSA signature; not built yet.
    Rsa,
    /// Amazon SNS messages; not built yet.
    Sns,
    /// Azure Event Grid deliveries; not built yet.
    EventGrid,
}

/// Hashes that senders sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// HMAC-SHA-1, for old senders only.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// How a signature is written. Each has one alphabet and one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal in either case.
    Hex,
    /// Standard base64 with padding.
    Base64,
    /// URL-safe base64 without padding.
    Base64url,
}

/// The unit of a signed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since 1970.
    S,
    /// Milliseconds since 1970.
    Ms,
}

/// Which bytes a signature is over, where a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The bytes as they were sent.
    Wire,
    /// The bytes before compression; not built yet.
    Decoded,
}

/// Names of the pairs in a signature header such as `t=1700000000,v1=5f…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// The pair with the time; none where the header has only signatures, or the time has a header of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The pairs with signatures.
    pub signature: String,
}

impl VerifyConfig {
    /// The validated proof, or what is wrong with it. `key` is the path of this table in the config.
    ///
    /// `loopback` says that the receiver listens on loopback only, where any network may be allowed.
    pub fn plan(&self, key: &str, loopback: bool) -> Result<Scheme, Problem> {
        self.check_belongings(key)?;
        match self.scheme {
            SchemeName::Hmac => self.plan_hmac(key).map(Scheme::Hmac),
            SchemeName::Token => self.plan_token(key).map(Scheme::Token),
            SchemeName::Mtls => self.plan_subjects(key),
            SchemeName::None => self.plan_networks(key, loopback),
            SchemeName::Ed25519 | SchemeName::Rsa | SchemeName::Sns | SchemeName::EventGrid => Err(Problem::new(
                format!("{key}.scheme"),
                "this scheme is planned and not built yet; use hmac, token, mtls or none",
            )),
        }
    }

    /// Refuses settings that the scheme would not look at: whoever wrote them believes that they do something.
    fn check_belongings(&self, key: &str) -> Result<(), Problem> {
        use SchemeName::{Hmac, Mtls, None, Token};
        let belongings: [(&str, bool, &[SchemeName]); 18] = [
            ("preset", self.preset.is_some(), &[Hmac]),
            ("secrets", !self.secrets.is_empty(), &[Hmac, Token]),
            ("allow_short_secret", self.allow_short_secret, &[Hmac, Token]),
            ("tolerance", self.tolerance.is_some(), &[Hmac]),
            ("header", self.header.is_some(), &[Hmac, Token]),
            ("algorithm", self.algorithm.is_some(), &[Hmac]),
            ("encoding", self.encoding.is_some(), &[Hmac]),
            ("prefix", self.prefix.is_some(), &[Hmac, Token]),
            ("parts", self.parts.is_some(), &[Hmac]),
            ("signed", self.signed.is_some(), &[Hmac]),
            ("timestamp_header", self.timestamp_header.is_some(), &[Hmac]),
            ("timestamp_unit", self.timestamp_unit.is_some(), &[Hmac]),
            ("id_header", self.id_header.is_some(), &[Hmac]),
            ("over", self.over.is_some(), &[Hmac]),
            ("bearer", self.bearer, &[Token]),
            ("basic", self.basic.is_some(), &[Token]),
            ("subjects", !self.subjects.is_empty(), &[Mtls]),
            ("networks", !self.networks.is_empty(), &[None]),
        ];
        let is_built = [Hmac, Token, Mtls, None].contains(&self.scheme);
        match belongings.iter().find(|(_, set, schemes)| is_built && *set && !schemes.contains(&self.scheme)) {
            Some((name, ..)) => {
                Err(Problem::new(format!("{key}.{name}"), "the scheme does not use this setting: remove it"))
            }
            Option::None => Ok(()),
        }
    }

    fn plan_hmac(&self, key: &str) -> Result<HmacScheme, Problem> {
        self.check_secrets(key)?;
        if self.over == Some(Over::Decoded) {
            return Err(Problem::new(
                format!("{key}.over"),
                "signatures over decoded bodies are planned and not built yet; switch compression off at the sender",
            ));
        }
        let rules = self.preset.map_or(SPELLED_OUT, Preset::rules);
        let headers = self.header_names(key, &rules)?;
        let shape = self.shape(&rules);
        let template = parse_template(self.signed.as_deref().unwrap_or(rules.signed), &format!("{key}.signed"))?;
        let unit = self.timestamp_unit.unwrap_or(TimestampUnit::S);
        let scheme = HmacScheme {
            tolerance: self.tolerance_in(unit, template.contains(&Piece::Timestamp), key)?,
            headers,
            algorithm: self.algorithm.unwrap_or(rules.algorithm),
            encoding: self.encoding.unwrap_or(rules.encoding),
            prefix: self.prefix.as_deref().unwrap_or(rules.prefix).to_owned(),
            shape,
            template,
            timestamp_unit: unit,
            key_form: rules.key_form,
            ping: rules.ping,
        };
        check_sources_of_fields(&scheme, key)?;
        Ok(scheme)
    }

    fn check_secrets(&self, key: &str) -> Result<(), Problem> {
        if self.secrets.is_empty() {
            return Err(Problem::new(
                format!("{key}.secrets"),
                "no secret is named, so nothing could be proven: add one, like [\"env:PORTAL_SECRET\"]",
            ));
        }
        let broken = |reference: &SecretRef| reference.check().err();
        match self.secrets.iter().find_map(broken) {
            Some(error) => Err(Problem::new(format!("{key}.secrets"), error.to_string())),
            None => Ok(()),
        }
    }

    /// The preset's headers with what the config overrides; an overridden signature header ends the preset's other forms.
    fn header_names(&self, key: &str, rules: &Rules) -> Result<Vec<HeaderNames>, Problem> {
        let name_of = |own: &Option<String>, setting: &str, preset: &str| match own {
            Some(name) => header_name(name, &format!("{key}.{setting}")),
            None => Ok(preset.to_owned()),
        };
        let mut names = Vec::new();
        for [signature, timestamp, id] in rules.headers {
            let optional = |name: String| (!name.is_empty()).then_some(name);
            names.push(HeaderNames {
                signature: name_of(&self.header, "header", signature)?,
                timestamp: optional(name_of(&self.timestamp_header, "timestamp_header", timestamp)?),
                id: optional(name_of(&self.id_header, "id_header", id)?),
            });
        }
        names.dedup_by(|later, earlier| later.signature == earlier.signature);
        if names[0].signature.is_empty() {
            return Err(Problem::new(
                format!("{key}.header"),
                "name the header with the signature, or a preset that knows it",
            ));
        }
        Ok(names)
    }

    fn shape(&self, rules: &Rules) -> Shape {
        match (&self.parts, rules.shape) {
            (Some(Parts { timestamp, signature }), _) => {
                Shape::Parts { timestamp: timestamp.clone(), signature: signature.clone() }
            }
            (None, RuleShape::Parts { timestamp, signature }) => {
                Shape::Parts { timestamp: Some(timestamp.to_owned()), signature: signature.to_owned() }
            }
            (None, RuleShape::SpaceList) => Shape::SpaceList,
            (None, RuleShape::Single) => Shape::Single,
        }
    }

    fn tolerance_in(&self, unit: TimestampUnit, signs_time: bool, key: &str) -> Result<i64, Problem> {
        if self.tolerance.is_some() && !signs_time {
            return Err(Problem::new(
                format!("{key}.tolerance"),
                "this sender signs no time, so there is nothing to tolerate: remove it",
            ));
        }
        let tolerance = self.tolerance.map_or(TOLERANCE_DEFAULT, |span| span.0);
        if tolerance < Duration::from_secs(1) {
            return Err(Problem::new(format!("{key}.tolerance"), "at least \"1s\": clocks are never equal"));
        }
        let amount = match unit {
            TimestampUnit::S => i64::try_from(tolerance.as_secs()),
            TimestampUnit::Ms => i64::try_from(tolerance.as_millis()),
        };
        Ok(amount.unwrap_or(i64::MAX))
    }

    fn plan_token(&self, key: &str) -> Result<TokenPlace, Problem> {
        self.check_secrets(key)?;
        match (&self.header, self.bearer, &self.basic) {
            (Some(name), false, None) => Ok(TokenPlace::Header {
                name: header_name(name, &format!("{key}.header"))?,
                prefix: self.prefix.clone().unwrap_or_default(),
            }),
            (None, ..) if self.prefix.is_some() => {
                Err(Problem::new(format!("{key}.prefix"), "a prefix goes with header only: remove it"))
            }
            (None, true, None) => Ok(TokenPlace::Bearer),
            (None, false, Some(user)) if user.contains(':') => {
                Err(Problem::new(format!("{key}.basic"), "a user name holds no colon"))
            }
            (None, false, Some(user)) => Ok(TokenPlace::Basic { user: user.clone() }),
            _ => Err(Problem::new(
                key,
                "say once where the token stands: header = \"X-Api-Key\", bearer = true, or basic = \"USER\"",
            )),
        }
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

/// The pieces of what is signed, if no two of them could run into each other.
fn parse_template(text: &str, key: &str) -> Result<Vec<Piece>, Problem> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let field = FIELDS.iter().find_map(|(name, piece)| Some((piece, rest.strip_prefix(name)?)));
        if let Some((piece, after)) = field {
            pieces.push(piece.clone());
            rest = after;
        } else {
            let brace = rest.char_indices().skip(1).find(|(_, sign)| *sign == '{');
            let (literal, after) = rest.split_at(brace.map_or(rest.len(), |(at, _)| at));
            if literal.contains(['{', '}']) {
                return Err(Problem::new(
                    key,
                    "only {id}, {timestamp}, {url}, {method} and {body} can stand in braces",
                ));
            }
            pieces.push(Piece::Literal(literal.to_owned()));
            rest = after;
        }
    }
    let bodies = pieces.iter().filter(|piece| **piece == Piece::Body).count();
    if bodies != 1 || pieces.last() != Some(&Piece::Body) {
        return Err(Problem::new(
            key,
            "{body} has to stand in it, once and last; or else something could pass as part of it",
        ));
    }
    for pair in pieces.windows(2) {
        let separated = match (&pair[0], &pair[1]) {
            (Piece::Id, next) => matches!(next, Piece::Literal(_)),
            (Piece::Timestamp, Piece::Literal(next)) => !next.starts_with(|c: char| c.is_ascii_digit()),
            (Piece::Timestamp, _) => false,
            _ => true,
        };
        if !separated {
            return Err(Problem::new(
                key,
                "{id} and {timestamp} need a sign after them, like \"{id}.{timestamp}.{body}\"",
            ));
        }
    }
    Ok(pieces)
}

/// A field that is signed must come from somewhere, and a time that comes must be signed.
fn check_sources_of_fields(scheme: &HmacScheme, key: &str) -> Result<(), Problem> {
    let names = &scheme.headers[0];
    let in_parts = matches!(&scheme.shape, Shape::Parts { timestamp: Some(_), .. });
    let signs = |piece: &Piece| scheme.template.contains(piece);
    if in_parts && names.timestamp.is_some() {
        return Err(Problem::new(
            format!("{key}.timestamp_header"),
            "parts names the time already: keep one of the two",
        ));
    }
    match (in_parts || names.timestamp.is_some(), signs(&Piece::Timestamp)) {
        (true, false) => Err(Problem::new(
            format!("{key}.signed"),
            "the time is not signed, so anybody could change it: add {timestamp}",
        )),
        (false, true) => {
            Err(Problem::new(format!("{key}.signed"), "{timestamp} needs timestamp_header, or timestamp in parts"))
        }
        _ if signs(&Piece::Id) && names.id.is_none() => {
            Err(Problem::new(format!("{key}.signed"), "{id} needs id_header"))
        }
        _ => Ok(()),
    }
}

const FIELDS: [(&str, Piece); 5] = [
    ("{id}", Piece::Id),
    ("{timestamp}", Piece::Timestamp),
    ("{url}", Piece::Url),
    ("{method}", Piece::Method),
    ("{body}", Piece::Body),
];

/// What the senders' own libraries allow.
const TOLERANCE_DEFAULT: Duration = Duration::from_mins(5);
