//! Proves that a message comes from its source, over the raw bytes and before anything reads them.
//!
//! Invariants: only [`verify`] makes a [`Proven`] out of a request; the algorithm, the headers and the keys come from the config,
//! never from the request (where a message names a key, the config pins who may have published it); signatures and tokens are compared
//! in constant time; nothing here panics, whatever the bytes. Where a key is not there yet the refusal says that the trouble is ours,
//! never a word about the signature.
//!
//! Not here: how the config is written (`verify/config`), what known senders do (`verify/preset`), each way of proving
//! (`verify/template`, `verify/sns`, `verify/jwt`, `verify/token`), proving as a sender would (`verify/sign`), what a sender has to be
//! told (`verify/sender`), fetching keys (`trust`), what a refusal is answered with (`receive`).

mod config;
mod handshake;
mod hmac;
mod jwt;
mod plan;
mod preset;
mod public_key;
mod refusal;
mod sender;
mod sign;
mod sns;
mod template;
mod token;

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adapter::FetchId;
use crate::delivery::{Coding, Evidence, Mark, Undecoded};
use crate::event::Auth;
use crate::secret::Key;

pub use self::config::{Algorithm, Encoding, HandshakeName, Over, Parts, SchemeName, TimestampUnit, VerifyConfig};
pub use self::handshake::{EventGrid, Handshake};
pub use self::jwt::JwtScheme;
pub(crate) use self::plan::parse_network;
pub use self::preset::Preset;
pub use self::public_key::PublicKey;
pub use self::refusal::Refusal;
pub use self::sign::{Outgoing, sign, sign_event, sign_query};
pub use self::sns::{CertificateUrl, SnsScheme, SubscribeUrl, TopicArn};
pub use self::template::SignatureScheme;
pub use self::token::TokenPlace;

/// How a message was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A signature over the body, by the key with this id (the reference or URL it was loaded by, never a secret's value).
    Signature {
        /// Which of the live keys matched.
        key_id: String,
    },
    /// A client certificate with this subject.
    Mtls {
        /// The subject that was pinned.
        subject: String,
    },
    /// A shared token, or one that a pinned issuer signed.
    Token {
        /// Which of the live secrets matched, or which of the issuer's keys.
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
    /// As it was signed, or where nothing is signed, as it was sent.
    body: Bytes,
    /// What `body` says, where that is compressed.
    decoded: Option<Bytes>,
    evidence: Evidence,
    /// Identifies an exact repeat.
    repeat: Option<[u8; 16]>,
    handshake: Option<Handshake>,
}

impl Proven {
    /// The proof's own value, shortened: a second request with the same one is an exact repeat.
    ///
    /// None where equal proofs say nothing about equal messages: the proof does not cover the body (a token), or neither a time
    /// nor a delivery id stands beside it, so that the same words may be a new message.
    pub const fn repeat(&self) -> Option<[u8; 16]> {
        self.repeat
    }

    /// What the sender wants instead of having the message kept.
    pub const fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    /// What we fetched ourselves from `origin` (scheme, host and port), with a key of ours over a connection of ours.
    pub fn confirmed(body: Bytes, origin: &str, fetch: Option<FetchId>, mark: Option<Mark>) -> Self {
        let evidence = Evidence {
            how: How::Confirmed { origin: origin.to_owned() },
            signed_at: None,
            sender_id: None,
            peer: None,
            content_type: None,
            coding: None,
            headers: Vec::new(),
            fetch,
            mark,
        };
        Self { body, decoded: None, evidence, repeat: None, handshake: None }
    }

    /// The body as it was signed, what it says, and what is kept of the request.
    pub fn into_parts(self) -> (Bytes, Bytes, Evidence) {
        let decoded = self.decoded.unwrap_or_else(|| self.body.clone());
        (self.body, decoded, self.evidence)
    }
}

/// How a source proves its messages: the config, validated.
#[derive(Debug, Clone)]
pub enum Scheme {
    /// A signature over the body and what the template puts around it, by a shared secret or a private key of the sender.
    Signature(SignatureScheme),
    /// A message of Amazon SNS, signed by its certificate.
    Sns(SnsScheme),
    /// A shared token.
    Token(TokenPlace),
    /// Azure Event Grid: a token, and the handshakes of Event Grid and CloudEvents.
    EventGrid {
        /// What proves a request.
        proof: GridProof,
        /// Who may ask for which handshake.
        handshake: EventGrid,
    },
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
    /// No message is taken: we fetch the results ourselves.
    Closed,
}

/// What proves a request of Event Grid. Its bodies are not signed.
#[derive(Debug, Clone)]
pub enum GridProof {
    /// A secret of ours, in the URL or a header that the subscription was given.
    Secret(TokenPlace),
    /// A bearer token of the tenant.
    Issuer(JwtScheme),
}

impl Scheme {
    /// The strength of a proof by this scheme.
    pub const fn auth(&self) -> Auth {
        match self {
            Self::Signature(_) | Self::Sns(_) => Auth::Signature,
            Self::Token(_) | Self::EventGrid { .. } => Auth::Token,
            Self::Mtls { .. } => Auth::Mtls,
            Self::Network { .. } => Auth::None,
            Self::Closed => Auth::Confirmed,
        }
    }

    /// Whether it needs live keys; where it does not, an empty key ring is no trouble.
    pub fn needs_keys(&self) -> bool {
        match self {
            Self::Signature(scheme) => scheme.needs_keys(),
            Self::Sns(scheme) => scheme.needs_keys(),
            Self::Token(_) | Self::EventGrid { proof: GridProof::Secret(_), .. } => true,
            Self::EventGrid { proof: GridProof::Issuer(_), .. }
            | Self::Mtls { .. }
            | Self::Network { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the public URL is part of what is signed, so that `receiver.public_url` has to be set.
    pub fn signs_url(&self) -> bool {
        matches!(self, Self::Signature(scheme) if scheme.signs_url())
    }

    /// Whether a copy of one request is enough to send others: it travels with each of them.
    pub const fn shows_its_secret(&self) -> bool {
        matches!(self, Self::Token(_) | Self::EventGrid { .. })
    }

    /// What is wrong with the form of a loaded key, for `check`; none if it can be used.
    pub fn key_problem(&self, key: &Key) -> Option<&'static str> {
        match self {
            Self::Signature(scheme) => scheme.key_problem(key),
            Self::Sns(_) => SnsScheme::key_problem(key),
            Self::Token(_) | Self::EventGrid { .. } | Self::Mtls { .. } | Self::Network { .. } | Self::Closed => None,
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
    /// How the body is compressed, if it is.
    pub coding: Option<Coding>,
    /// Most bytes that a compressed body may become.
    pub decoded_bytes_max: usize,
    /// The public keys that messages name and the config does not hold.
    pub public_keys: &'a dyn PublicKeys,
}

/// Which public key a message names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyName {
    /// That of a certificate of SNS.
    Certificate(CertificateUrl),
    /// One of the pinned issuer's.
    Issued {
        /// Its id in the issuer's set.
        id: String,
    },
}

/// The public keys that are there now, of those that somebody else publishes.
pub trait PublicKeys {
    /// Looks one up, without fetching it.
    fn find(&self, name: &KeyName) -> Option<PublicKey>;
}

/// No public keys: for schemes that need none but those of the config.
#[derive(Debug, Clone, Copy)]
pub struct NoPublicKeys;

impl PublicKeys for NoPublicKeys {
    fn find(&self, _: &KeyName) -> Option<PublicKey> {
        None
    }
}

/// Checks a message against its source's scheme and the keys that are live now. `body` is as it came over the wire.
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
    let mut coding = request.coding;
    let mut body = body;
    if let (Scheme::Signature(signature), Some(coded)) = (scheme, coding)
        && signature.over == Over::Decoded
    {
        body = coded.decode(&body, request.decoded_bytes_max).map_err(|undecoded| match undecoded {
            Undecoded::TooLarge => Refusal::TooLarge,
            Undecoded::Broken => Refusal::Malformed,
        })?;
        coding = None;
    }
    let proof = prove(scheme, keys, request, &body, now)?;
    let decoded = match coding.map(|coding| coding.decode(&body, request.decoded_bytes_max)) {
        Some(Err(Undecoded::TooLarge)) => return Err(Refusal::TooLarge),
        Some(Ok(decoded)) => Some(decoded),
        // A proven message is kept whatever it is: one that cannot be decoded is for the adapter to refuse.
        Some(Err(Undecoded::Broken)) | None => None,
    };
    let evidence = Evidence {
        how: proof.how,
        signed_at: proof.signed_at,
        sender_id: proof.sender_id,
        peer: Some(request.peer.to_canonical().to_string()),
        content_type: text_header(request, "content-type"),
        coding,
        headers: kept_headers(scheme, request),
        fetch: None,
        mark: None,
    };
    Ok(Proven { body, decoded, evidence, repeat: proof.repeat, handshake: proof.handshake })
}

fn prove(scheme: &Scheme, keys: &[Key], request: &Request<'_>, body: &[u8], now: Timestamp) -> Result<Proof, Refusal> {
    let by_token =
        |place: &TokenPlace| place.key(keys, request).map(|key| Proof::of(How::Token { key_id: key.id.0.clone() }));
    match scheme {
        Scheme::Signature(signature) => signature.prove(keys, request, body, now),
        Scheme::Sns(sns) => sns.prove(keys, request, body, now),
        Scheme::Token(place) => by_token(place),
        Scheme::EventGrid { proof, .. } => {
            let proof = match proof {
                GridProof::Secret(place) => by_token(place)?,
                GridProof::Issuer(jwt) => jwt.prove(request, now)?,
            };
            Ok(Proof { handshake: EventGrid::validation(request, body), ..proof })
        }
        Scheme::Mtls { subjects } => {
            let pinned = subjects.iter().find(|subject| request.certificate_names.contains(subject));
            Ok(Proof::of(How::Mtls { subject: pinned.ok_or(Refusal::Certificate)?.clone() }))
        }
        Scheme::Network { networks } => {
            let peer = request.peer.to_canonical();
            let is_inside = networks.iter().any(|network| network.contains(&peer));
            if is_inside { Ok(Proof::of(How::Network)) } else { Err(Refusal::Network) }
        }
        Scheme::Closed => Err(Refusal::Missing),
    }
}

/// The public key that this message names and that has to be fetched before it can be proven: asked after [`Refusal::KeyNotLoaded`].
pub fn wanted(scheme: &Scheme, request: &Request<'_>, body: &[u8]) -> Option<KeyName> {
    match scheme {
        Scheme::Sns(sns) => sns.wanted(body),
        Scheme::EventGrid { proof: GridProof::Issuer(_), .. } => JwtScheme::wanted(request),
        _ => None,
    }
}

/// The origin that may send, if this is the preflight of a CloudEvents sender and the source has that handshake.
///
/// A secret in the URL is part of what is registered, so it has to be there. A bearer token need not: the handshake is no matter of
/// authorization (CloudEvents HTTP 1.1 Web Hooks, section 4). One that is there has to be good.
pub fn preflight(
    scheme: &Scheme,
    keys: &[Key],
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Option<String>, Refusal> {
    let Scheme::EventGrid { proof, handshake } = scheme else { return Ok(None) };
    match proof {
        GridProof::Secret(place) => {
            place.key(keys, request)?;
        }
        GridProof::Issuer(jwt) if request.headers.find(token::AUTHORIZATION) != Found::Nothing => {
            jwt.prove(request, now)?;
        }
        GridProof::Issuer(_) => {}
    }
    Ok(handshake.allowed_origin(request))
}

/// What a scheme found, before the request's other evidence joins it.
struct Proof {
    how: How,
    signed_at: Option<Timestamp>,
    sender_id: Option<String>,
    repeat: Option<[u8; 16]>,
    handshake: Option<Handshake>,
}

impl Proof {
    const fn of(how: How) -> Self {
        Self { how, signed_at: None, sender_id: None, repeat: None, handshake: None }
    }
}

/// Identifies an exact repeat; none for a message that carries neither a time nor an id, which may honestly be sent twice.
fn repeat_of(tag: &[u8], timestamp: &str, id: &str) -> Option<[u8; 16]> {
    if timestamp.is_empty() && id.is_empty() {
        return None;
    }
    // The lengths say where a part ends, so the parts cannot run into each other.
    let mut digest = Sha256::new();
    for part in [tag, timestamp.as_bytes(), id.as_bytes()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().first_chunk().copied()
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
    let token = match scheme {
        Scheme::Token(place) | Scheme::EventGrid { proof: GridProof::Secret(place), .. } => place.header(),
        _ => None,
    };
    let may_keep = request.headers_kept.iter().filter(|name| !CREDENTIALS.contains(name) && token != Some(**name));
    may_keep.filter_map(|name| Some(((*name).to_owned(), text_header(request, name)?))).collect()
}

/// Headers that are never kept, whatever an adapter declares.
const CREDENTIALS: [&str; 3] = [token::AUTHORIZATION, "proxy-authorization", "cookie"];

#[cfg(test)]
mod tests;
