//! Proves that a message comes from its source, over the raw bytes and before anything reads them.
//!
//! Invariants: only [`verify`] makes a [`Proven`] out of a request; the algorithm, the headers and the keys come from the config,
//! never from the request; signatures and tokens are compared in constant time; nothing here panics, whatever the bytes.
//! A source whose keys are not loaded refuses with [`Refusal::SecretUnavailable`], never with a word about the signature.
//!
//! Not here: how the config is written (`verify/config`), what known senders do (`verify/preset`), the template engine of signatures (`verify/hmac`), what
//! a sender has to be told (`verify/sender`), what a refusal is answered with (`receive`).

mod config;
mod hmac;
mod preset;
mod sender;

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::delivery::Evidence;
use crate::event::Auth;
use crate::secret::Key;

pub(crate) use self::config::parse_network;
pub use self::config::{Algorithm, Encoding, Over, Parts, SchemeName, TimestampUnit, VerifyConfig};
pub use self::hmac::HmacScheme;
pub use self::preset::Preset;

/// How a message was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A signature over the body, by the key with this id (the reference it was loaded by, never its value).
    Signature {
        /// Which of the live secrets matched.
        key_id: String,
    },
    /// A client certificate with this subject.
    Mtls {
        /// The subject that was pinned.
        subject: String,
    },
    /// A shared token.
    Token {
        /// Which of the live secrets matched.
        key_id: String,
    },
    /// Fetched by us from this origin.
    Confirmed {
        /// Scheme, host and port.
        origin: String,
    },
    /// Nothing but the network it came from.
    Network,
}

impl How {
    /// The strength of this proof.
    pub const fn auth(&self) -> Auth {
        match self {
            Self::Signature { .. } => Auth::Signature,
            Self::Mtls { .. } => Auth::Mtls,
            Self::Token { .. } => Auth::Token,
            Self::Confirmed { .. } => Auth::Confirmed,
            Self::Network => Auth::None,
        }
    }
}

/// A body whose proof held. Only [`verify`] and an authenticated fetch of our own make one.
#[derive(Debug)]
pub struct Proven {
    body: Bytes,
    evidence: Evidence,
    /// Identifies an exact repeat.
    repeat: Option<[u8; 16]>,
    ping: bool,
}

impl Proven {
    /// The proof's own value, shortened: a second request with the same one is an exact repeat.
    ///
    /// None where equal proofs say nothing about equal messages: the proof does not cover the body (a token), or neither a time
    /// nor a delivery id stands beside it, so that the same words may be a new message.
    pub const fn repeat(&self) -> Option<[u8; 16]> {
        self.repeat
    }

    /// Whether the sender only tries whether we are there: nothing to keep.
    pub const fn is_ping(&self) -> bool {
        self.ping
    }

    /// The body, and what is kept of the request.
    pub fn into_parts(self) -> (Bytes, Evidence) {
        (self.body, self.evidence)
    }
}

/// How a source proves its messages: the config, validated.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A keyed hash over the body and what the template puts around it.
    Hmac(HmacScheme),
    /// A shared token in a header.
    Token(TokenPlace),
    /// A client certificate that goes by one of these names.
    Mtls {
        /// Each is a common name, a whole subject (`CN=a, O=b`), or a DNS name or URI of the certificate.
        subjects: Vec<String>,
    },
    /// Nothing but the sender's network.
    Network {
        /// Where messages may come from.
        networks: Vec<IpNet>,
    },
}

/// Where a token stands in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// A header of its own, lower-case name, that holds the prefix and the token.
    Header {
        /// Name of the header, in lower case.
        name: String,
        /// What stands before the token; usually nothing.
        prefix: String,
    },
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `Authorization: Basic`, with this user name; the secret is the password.
    Basic {
        /// The user name; it may not hold a colon.
        user: String,
    },
}

impl Scheme {
    /// The strength of a proof by this scheme.
    pub const fn auth(&self) -> Auth {
        match self {
            Self::Hmac(_) => Auth::Signature,
            Self::Token(_) => Auth::Token,
            Self::Mtls { .. } => Auth::Mtls,
            Self::Network { .. } => Auth::None,
        }
    }

    /// Whether it needs live keys; where it does not, an empty key ring is no trouble.
    pub const fn needs_keys(&self) -> bool {
        matches!(self, Self::Hmac(_) | Self::Token(_))
    }

    /// Whether the public URL is part of what is signed, so that `receiver.public_url` has to be set.
    pub fn signs_url(&self) -> bool {
        matches!(self, Self::Hmac(scheme) if scheme.signs_url())
    }

    /// What is wrong with the form of a loaded key, for `check`; none if it can be used.
    pub fn key_problem(&self, key: &Key) -> Option<&'static str> {
        match self {
            Self::Hmac(scheme) => scheme.key_problem(key),
            Self::Token(_) | Self::Mtls { .. } | Self::Network { .. } => None,
        }
    }
}

/// What a header lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// The header is not there.
    Nothing,
    /// It is there once; the bytes as sent, which need not be text.
    One(&'a [u8]),
    /// It is there more than once: whoever reads the first and whoever reads the last would disagree.
    Several,
}

/// The headers of a request, by lower-case name.
pub trait Headers {
    /// Looks one header up.
    fn find(&self, name: &str) -> Found<'_>;
}

/// What a proof may look at beside the body.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The headers as sent.
    pub headers: &'a dyn Headers,
    /// The method, upper case.
    pub method: &'a str,
    /// Scheme, host and path prefix by which senders reach us, without a slash at the end; empty where none is configured.
    pub public_url: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// The sender, behind any trusted proxies.
    pub peer: IpAddr,
    /// The names that the client certificate goes by; empty without one.
    pub certificate_names: &'a [String],
    /// Headers, in lower case, that the source's adapter reads: kept as evidence.
    pub headers_kept: &'a [&'a str],
}

/// Why a message was refused: for metrics and one log line, never for the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The header that carries the proof is not there.
    #[error("the header with the proof is missing: check that the sender signs, and which header it uses")]
    Missing,
    /// The header is there, but not in the form of this scheme.
    #[error("the header with the proof is not in the form of this scheme: check preset, prefix, parts and encoding")]
    Malformed,
    /// A header that must stand once stands twice.
    #[error("a header of the proof was sent more than once: look for a proxy that adds it")]
    DuplicateHeader,
    /// No live secret gives this signature or token.
    #[error("no live secret matches: compare the secrets of both sides, and look for a proxy that changes the body")]
    Mismatch,
    /// The signed time is too far from now.
    #[error("the signed time is outside the tolerance: compare the clocks, and look for queues before us")]
    Timestamp,
    /// The sender's address is in none of the networks.
    #[error("the sender's address is in none of the allowed networks: check networks and trusted_proxies")]
    Network,
    /// No client certificate, or one with other names.
    #[error("no client certificate with a pinned subject: check subjects and the sender's certificate")]
    Certificate,
    /// Our own trouble: no secret is loaded, or none has the form that the scheme needs.
    #[error("no usable secret is loaded: check the source's secrets")]
    SecretUnavailable,
}

impl Refusal {
    /// Every refusal, so that metrics exist before the first one happens.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::Malformed,
        Self::DuplicateHeader,
        Self::Mismatch,
        Self::Timestamp,
        Self::Network,
        Self::Certificate,
        Self::SecretUnavailable,
    ];

    /// The word that metrics use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::DuplicateHeader => "duplicate_header",
            Self::Mismatch => "mismatch",
            Self::Timestamp => "timestamp",
            Self::Network => "network",
            Self::Certificate => "certificate",
            Self::SecretUnavailable => "secret_unavailable",
        }
    }
}

/// Checks a message against its source's scheme and the keys that are live now.
pub fn verify(
    scheme: &Scheme,
    keys: &[Key],
    request: &Request<'_>,
    body: Bytes,
    now: Timestamp,
) -> Result<Proven, Refusal> {
    if scheme.needs_keys() && keys.is_empty() {
        return Err(Refusal::SecretUnavailable);
    }
    let proof = match scheme {
        Scheme::Hmac(hmac) => hmac.prove(keys, request, &body, now)?,
        Scheme::Token(place) => Proof::of(How::Token { key_id: token_key(place, keys, request)?.id.0.clone() }),
        Scheme::Mtls { subjects } => {
            let pinned = subjects.iter().find(|subject| request.certificate_names.contains(subject));
            Proof::of(How::Mtls { subject: pinned.ok_or(Refusal::Certificate)?.clone() })
        }
        Scheme::Network { networks } => {
            let peer = request.peer.to_canonical();
            if !networks.iter().any(|network| network.contains(&peer)) {
                return Err(Refusal::Network);
            }
            Proof::of(How::Network)
        }
    };
    let evidence = Evidence {
        how: proof.how,
        signed_at: proof.signed_at,
        sender_id: proof.sender_id,
        peer: Some(request.peer.to_canonical().to_string()),
        content_type: text_header(request, "content-type"),
        headers: kept_headers(scheme, request),
    };
    Ok(Proven { body, evidence, repeat: proof.repeat, ping: proof.ping })
}

/// The headers by which that source's sender would prove `body`, with the first of the keys: for `send`.
///
/// Empty for a scheme whose proof is not in the request (a client certificate, a network).
pub fn sign(
    scheme: &Scheme,
    keys: &[Key],
    message: &Outgoing<'_>,
    now: Timestamp,
) -> Result<Vec<(String, String)>, Refusal> {
    let key = || keys.first().ok_or(Refusal::SecretUnavailable);
    let credential = |prefix: &str, value: &[u8]| {
        std::str::from_utf8(value).map(|text| format!("{prefix}{text}")).map_err(|_| Refusal::SecretUnavailable)
    };
    match scheme {
        Scheme::Hmac(hmac) => hmac.sign(key()?, message, now),
        Scheme::Token(TokenPlace::Header { name, prefix }) => {
            Ok(vec![(name.clone(), credential(prefix, key()?.secret.expose())?)])
        }
        Scheme::Token(TokenPlace::Bearer) => {
            Ok(vec![(AUTHORIZATION.to_owned(), credential("Bearer ", key()?.secret.expose())?)])
        }
        Scheme::Token(TokenPlace::Basic { user }) => {
            let pair = [user.as_bytes(), b":", key()?.secret.expose()].concat();
            Ok(vec![(AUTHORIZATION.to_owned(), format!("Basic {}", STANDARD.encode(pair)))])
        }
        Scheme::Mtls { .. } | Scheme::Network { .. } => Ok(Vec::new()),
    }
}

/// A message that [`sign`] proves.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The receiver's public URL, with path and query.
    pub url: &'a str,
    /// The sender's id of this delivery; it may not hold a dot.
    pub id: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What a scheme found, before the request's other evidence joins it.
struct Proof {
    how: How,
    signed_at: Option<Timestamp>,
    sender_id: Option<String>,
    repeat: Option<[u8; 16]>,
    ping: bool,
}

impl Proof {
    const fn of(how: How) -> Self {
        Self { how, signed_at: None, sender_id: None, repeat: None, ping: false }
    }
}

/// The one value of a header that must stand exactly once.
fn one_header<'a>(request: &Request<'a>, name: &str) -> Result<&'a [u8], Refusal> {
    match request.headers.find(name) {
        Found::One(value) => Ok(value),
        Found::Nothing => Err(Refusal::Missing),
        Found::Several => Err(Refusal::DuplicateHeader),
    }
}

/// A header as text, if it stands once and is text.
fn text_header(request: &Request<'_>, name: &str) -> Option<String> {
    match request.headers.find(name) {
        Found::One(value) => std::str::from_utf8(value).ok().map(str::to_owned),
        Found::Nothing | Found::Several => None,
    }
}

/// The headers that the adapter declared, but for those that carry credentials.
fn kept_headers(scheme: &Scheme, request: &Request<'_>) -> Vec<(String, String)> {
    let is_token =
        |name: &str| matches!(scheme, Scheme::Token(TokenPlace::Header { name: token, .. }) if token == name);
    let may_keep = request.headers_kept.iter().filter(|name| !CREDENTIALS.contains(name) && !is_token(name));
    may_keep.filter_map(|name| Some(((*name).to_owned(), text_header(request, name)?))).collect()
}

/// The key whose value the request carries as its token.
fn token_key<'k>(place: &TokenPlace, keys: &'k [Key], request: &Request<'_>) -> Result<&'k Key, Refusal> {
    let basic;
    let sent = match place {
        TokenPlace::Header { name, prefix } => {
            one_header(request, name)?.strip_prefix(prefix.as_bytes()).ok_or(Refusal::Malformed)?
        }
        TokenPlace::Bearer => after_scheme(one_header(request, AUTHORIZATION)?, "bearer ")?,
        TokenPlace::Basic { user } => {
            let encoded = after_scheme(one_header(request, AUTHORIZATION)?, "basic ")?;
            basic = zeroize::Zeroizing::new(STANDARD.decode(encoded).map_err(|_| Refusal::Malformed)?);
            let colon = basic.iter().position(|byte| *byte == b':').ok_or(Refusal::Malformed)?;
            if basic[..colon] != *user.as_bytes() {
                return Err(Refusal::Mismatch);
            }
            &basic[colon + 1..]
        }
    };
    // Compared as hashes: equal lengths, so that not even the length of a secret shows in the time this takes.
    let sent = Sha256::digest(sent);
    let same = |key: &&Key| bool::from(Sha256::digest(key.secret.expose()).ct_eq(&sent));
    keys.iter().find(same).ok_or(Refusal::Mismatch)
}

/// What follows the name of an authorization scheme, which is written in any case (RFC 9110, 11.1).
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Result<&'a [u8], Refusal> {
    match value.split_at_checked(scheme.len()) {
        Some((name, rest)) if name.eq_ignore_ascii_case(scheme.as_bytes()) => Ok(rest),
        _ => Err(Refusal::Malformed),
    }
}

const AUTHORIZATION: &str = "authorization";

/// Headers that are never kept, whatever an adapter declares.
const CREDENTIALS: [&str; 3] = [AUTHORIZATION, "proxy-authorization", "cookie"];

#[cfg(test)]
mod tests;
