//! The template engine of signed webhooks: one way of checking a signature, with everything that senders do differently as data.
//!
//! Invariants: what is signed can be read in one way only, so nothing can move from one field to its neighbour: an id holds no
//! character that separates, a timestamp holds digits only, and the body stands last. A tag has exactly the length of its
//! algorithm; shorter ones never match. Lists have at most [`CANDIDATES_MAX`] entries, and entries of unknown versions are skipped.
//!
//! Not here: which sender does it how (`verify/preset`), keyed hashes (`verify/hmac`), public keys (`verify/public_key`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::config::{Algorithm, Encoding, Over, TimestampUnit};
use super::handshake::Asks;
use super::hmac::KeyForm;
use super::public_key::{Kind, PublicKey, RsaHash};
use super::{Found, How, Outgoing, Proof, Refusal, Request, one_header, repeat_of};
use crate::secret::Key;

/// How one kind of sender signs.
#[derive(Debug, Clone)]
pub struct SignatureScheme {
    /// The headers it uses; later entries are tried only where the signature headers of the earlier ones are absent.
    pub(super) headers: Vec<HeaderNames>,
    pub(super) method: Method,
    pub(super) encoding: Encoding,
    /// What stands before each signature.
    pub(super) prefix: String,
    pub(super) shape: Shape,
    /// What is signed, piece by piece; the body is the last one.
    pub(super) template: Vec<Piece>,
    pub(super) timestamp_unit: TimestampUnit,
    /// Most seconds or milliseconds (as the unit is) between the signed time and now, either way.
    pub(super) tolerance: i64,
    /// Which bytes are signed where a body is compressed.
    pub(super) over: Over,
    /// How the sender asks for an answer instead of sending news, if it does.
    pub(super) asks: Option<Asks>,
}

/// What makes a signature, and what checks it.
#[derive(Debug, Clone)]
pub(super) enum Method {
    /// A keyed hash.
    Hmac(Algorithm, KeyForm),
    /// A private key of the sender.
    PublicKey(Kind, FixedKeys),
}

/// The public keys that stand in the config itself, each with its name in evidence.
pub(super) type FixedKeys = Arc<[(String, PublicKey)]>;

/// The headers that one form of a sender's requests uses, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderNames {
    /// Those with signatures: one of them at least is there, and during a roll a sender may use several.
    pub(super) signatures: Vec<String>,
    pub(super) timestamp: Option<String>,
    pub(super) id: Option<String>,
}

/// How signatures stand in their header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// The whole value is one signature.
    Single,
    /// Signatures stand between spaces; those with another prefix are of other versions.
    SpaceList,
    /// `k=v` pairs stand between commas.
    Parts {
        /// Name of the pair with the time, which must stand exactly once.
        timestamp: Option<String>,
        /// Name of the pairs with signatures.
        signature: String,
    },
}

/// One piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Id,
    Timestamp,
    Url,
    Method,
    Body,
}

/// What one request says about its signature.
struct Claim<'a> {
    timestamp: &'a str,
    id: &'a str,
    tags: Vec<Tag>,
}

/// A decoded signature.
enum Tag {
    /// Of a keyed hash or an Ed25519 key: exactly as long as its algorithm's output.
    Short { bytes: [u8; SHORT_BYTES], length: usize },
    /// Of an RSA key, as long as the key.
    Long(Vec<u8>),
}

impl Tag {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { bytes, length } => &bytes[..*length],
            Self::Long(bytes) => bytes,
        }
    }
}

/// The key that made one of a request's tags.
struct Match<'k> {
    key_id: String,
    tag: usize,
    /// The secret itself, where there is one.
    key: Option<&'k Key>,
}

impl SignatureScheme {
    pub(super) fn signs_url(&self) -> bool {
        self.template.contains(&Piece::Url)
    }

    /// Whether only the sender can sign.
    pub(super) const fn is_by_public_key(&self) -> bool {
        matches!(self.method, Method::PublicKey(..))
    }

    /// Whether keys have to be loaded: those that stand in the config are always there.
    pub(super) fn needs_keys(&self) -> bool {
        matches!(&self.method, Method::Hmac(..)) || self.fixed_keys().is_empty()
    }

    pub(super) fn key_problem(&self, key: &Key) -> Option<&'static str> {
        let is_good = match &self.method {
            Method::Hmac(_, form) => form.bytes_of(key).is_some(),
            Method::PublicKey(kind, _) => PublicKey::read(*kind, key.secret.expose()).is_some(),
        };
        let words = match &self.method {
            Method::Hmac(..) => "not standard base64 after \"whsec_\": copy it as the sender shows it",
            Method::PublicKey(Kind::Ed25519, _) => {
                "no Ed25519 public key: \"whpk_\" and standard base64 of 32 bytes, or PEM with BEGIN PUBLIC KEY"
            }
            Method::PublicKey(Kind::Rsa, _) => {
                "no RSA public key of at least 2048 bits: one PEM block, BEGIN RSA PUBLIC KEY, PUBLIC KEY or CERTIFICATE"
            }
        };
        (!is_good).then_some(words)
    }

    fn fixed_keys(&self) -> &[(String, PublicKey)] {
        match &self.method {
            Method::Hmac(..) => &[],
            Method::PublicKey(_, fixed) => fixed,
        }
    }

    /// Finds the key that signed this request.
    pub(super) fn prove(
        &self,
        keys: &[Key],
        request: &Request<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proof, Refusal> {
        let claim = self.claim(request)?;
        let signed_at = self.signed_at(claim.timestamp, now)?;
        self.check_fields(&claim, request)?;
        let content = Content {
            timestamp: claim.timestamp,
            id: claim.id,
            method: request.method,
            url: [request.public_url, request.target],
            body,
        };
        let found = self.matching(keys, &self.signed_parts(&content), &claim.tags)?;
        let repeat = repeat_of(claim.tags[found.tag].as_slice(), claim.timestamp, claim.id);
        Ok(Proof {
            signed_at,
            sender_id: (!claim.id.is_empty()).then(|| claim.id.to_owned()),
            repeat,
            handshake: self.asks.and_then(|asks| asks.of(request, body, found.key)),
            ..Proof::of(How::Signature { key_id: found.key_id })
        })
    }

    /// The first key that made one of the tags over `parts`.
    fn matching<'k>(&self, keys: &'k [Key], parts: &[&[u8]], tags: &[Tag]) -> Result<Match<'k>, Refusal> {
        let mut usable = false;
        match &self.method {
            Method::Hmac(algorithm, form) => {
                for key in keys {
                    let Some(bytes) = form.bytes_of(key) else { continue };
                    usable = true;
                    if let Some(tag) = algorithm.first_match(&bytes, parts, tags.iter().map(Tag::as_slice)) {
                        return Ok(Match { key_id: key.id.0.clone(), tag, key: Some(key) });
                    }
                }
            }
            Method::PublicKey(kind, fixed) => {
                let message = parts.concat();
                let signed = |key: &PublicKey, tag: &Tag| match kind {
                    Kind::Ed25519 => key.signed_ed25519(&message, tag.as_slice()),
                    Kind::Rsa => key.signed_rsa(RsaHash::Sha256, &message, tag.as_slice()),
                };
                let loaded = keys
                    .iter()
                    .filter_map(|key| Some((key.id.0.as_str(), PublicKey::read(*kind, key.secret.expose())?)));
                let fixed = fixed.iter().map(|(id, key)| (id.as_str(), key.clone()));
                for (id, key) in fixed.chain(loaded) {
                    usable = true;
                    if let Some(tag) = tags.iter().position(|tag| signed(&key, tag)) {
                        return Ok(Match { key_id: id.to_owned(), tag, key: None });
                    }
                }
            }
        }
        Err(if usable { Refusal::Mismatch } else { Refusal::SecretUnavailable })
    }

    /// The headers that prove `message`, with one signature; none where only the sender has the key for it.
    pub(super) fn sign(
        &self,
        key: &Key,
        message: &Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let Method::Hmac(algorithm, form) = &self.method else { return Ok(Vec::new()) };
        let names = &self.headers[0];
        let timestamp = match self.timestamp_unit {
            TimestampUnit::S => now.as_second().to_string(),
            TimestampUnit::Ms => now.as_millisecond().to_string(),
        };
        let content = Content {
            timestamp: &timestamp,
            id: message.id,
            method: message.method,
            url: [message.url, ""],
            body: message.body,
        };
        let bytes = form.bytes_of(key).ok_or(Refusal::SecretUnavailable)?;
        let tag = algorithm.tag(&bytes, &self.signed_parts(&content));
        let signature = format!("{}{}", self.prefix, self.encoding.encode(&tag));
        let value = match &self.shape {
            Shape::Single | Shape::SpaceList => signature,
            Shape::Parts { timestamp: Some(t), signature: s } => format!("{t}={timestamp},{s}={signature}"),
            Shape::Parts { timestamp: None, signature: s } => format!("{s}={signature}"),
        };
        let mut headers = vec![(names.signatures[0].clone(), value)];
        headers.extend(names.timestamp.clone().map(|name| (name, timestamp.clone())));
        headers.extend(names.id.clone().map(|name| (name, message.id.to_owned())));
        Ok(headers)
    }

    /// Reads the headers, strictly.
    fn claim<'a>(&self, request: &Request<'a>) -> Result<Claim<'a>, Refusal> {
        let is_there = |name: &&String| request.headers.find(name) != Found::Nothing;
        let names = self.headers.iter().find(|names| names.signatures.iter().any(|name| is_there(&name)));
        let names = names.ok_or(Refusal::Missing)?;
        let (mut timestamp, mut tags) = ("", Vec::with_capacity(1));
        for name in names.signatures.iter().filter(is_there) {
            let (in_header, found) = self.split(text(one_header(request, name)?)?)?;
            // Each header of a list has the time that its own signatures are over; two that disagree are two messages.
            if !timestamp.is_empty() && timestamp != in_header {
                return Err(Refusal::Malformed);
            }
            timestamp = in_header;
            tags.extend(found);
        }
        if matches!(self.method, Method::PublicKey(..)) && tags.len() > PUBLIC_KEY_CANDIDATES_MAX {
            return Err(Refusal::Malformed);
        }
        if let Some(name) = &names.timestamp {
            timestamp = text(one_header(request, name)?)?;
        }
        let id = match &names.id {
            Some(name) if self.template.contains(&Piece::Id) => text(one_header(request, name)?)?,
            // An id that is not signed is only kept; where it is missing or odd, nothing hangs on it.
            Some(name) => match request.headers.find(name) {
                Found::One(id) if id.len() <= ID_BYTES_MAX => text(id).unwrap_or_default(),
                _ => "",
            },
            None => "",
        };
        Ok(Claim { timestamp, id, tags })
    }

    /// Time and signatures out of a signature header.
    fn split<'a>(&self, value: &'a str) -> Result<(&'a str, Vec<Tag>), Refusal> {
        let mut tags = Vec::with_capacity(1);
        let mut timestamp = None;
        match &self.shape {
            Shape::Single => tags.extend(self.tag(value)),
            Shape::SpaceList => {
                for (index, item) in value.split(' ').enumerate() {
                    if index >= CANDIDATES_MAX {
                        return Err(Refusal::Malformed);
                    }
                    tags.extend(self.tag(item));
                }
            }
            Shape::Parts { timestamp: timestamp_name, signature } => {
                for (index, item) in value.split(',').enumerate() {
                    let (name, value) = item.trim_matches(' ').split_once('=').ok_or(Refusal::Malformed)?;
                    if index >= CANDIDATES_MAX {
                        return Err(Refusal::Malformed);
                    }
                    if name == signature {
                        tags.extend(self.tag(value));
                    } else if timestamp_name.as_deref() == Some(name) && timestamp.replace(value).is_some() {
                        return Err(Refusal::Malformed);
                    }
                }
                if timestamp_name.is_some() && timestamp.is_none() {
                    return Err(Refusal::Malformed);
                }
            }
        }
        if tags.is_empty() { Err(Refusal::Malformed) } else { Ok((timestamp.unwrap_or_default(), tags)) }
    }

    /// One signature, decoded; none if it is of another version or not exactly as long as one of its kind.
    fn tag(&self, text: &str) -> Option<Tag> {
        let encoded = text.strip_prefix(self.prefix.as_str())?;
        let length = match &self.method {
            Method::Hmac(algorithm, _) => algorithm.tag_bytes(),
            Method::PublicKey(Kind::Ed25519, _) => SHORT_BYTES,
            Method::PublicKey(Kind::Rsa, _) => {
                return (encoded.len() <= LONG_TEXT_MAX)
                    .then(|| self.encoding.decode(encoded))
                    .flatten()
                    .map(Tag::Long);
            }
        };
        let mut bytes = [0; SHORT_BYTES];
        let decoded = match self.encoding {
            Encoding::Hex => hex::decode_to_slice(encoded, &mut bytes[..length]).ok().map(|()| length),
            // A text longer than the longest tag does not fit, which is an error as well.
            Encoding::Base64 => STANDARD.decode_slice(encoded, &mut bytes).ok(),
            Encoding::Base64url => URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).ok(),
        };
        (decoded? == length).then_some(Tag::Short { bytes, length })
    }

    /// The signed time, if it is within the tolerance.
    fn signed_at(&self, digits: &str, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
        if !self.template.contains(&Piece::Timestamp) {
            return Ok(None);
        }
        // `parse` alone would take a sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::Malformed);
        }
        let signed: i64 = digits.parse().map_err(|_| Refusal::Malformed)?;
        let (now, at) = match self.timestamp_unit {
            TimestampUnit::S => (now.as_second(), Timestamp::from_second(signed)),
            TimestampUnit::Ms => (now.as_millisecond(), Timestamp::from_millisecond(signed)),
        };
        // Inclusive on both sides, as the senders' own libraries do it.
        if now.saturating_sub(signed).saturating_abs() > self.tolerance {
            return Err(Refusal::Timestamp);
        }
        at.map(Some).map_err(|_| Refusal::Timestamp)
    }

    /// Refuses fields that would let bytes move to their neighbour without changing what is signed.
    fn check_fields(&self, claim: &Claim<'_>, request: &Request<'_>) -> Result<(), Refusal> {
        for (index, piece) in self.template.iter().enumerate() {
            let separator = match self.template.get(index + 1) {
                Some(Piece::Literal(literal)) => literal.chars().next(),
                _ => None,
            };
            let holds_separator = |field: &str| separator.is_some_and(|separator| field.contains(separator));
            match piece {
                Piece::Id => {
                    let is_token = !claim.id.is_empty() && claim.id.bytes().all(|byte| byte.is_ascii_graphic());
                    if !is_token || claim.id.len() > ID_BYTES_MAX || claim.id.contains('.') || holds_separator(claim.id)
                    {
                        return Err(Refusal::Malformed);
                    }
                }
                // The path is the source's own; only the query is the sender's to choose.
                Piece::Url => {
                    if let Some((_, query)) = request.target.split_once('?')
                        && (separator.is_none() || holds_separator(query))
                    {
                        return Err(Refusal::Malformed);
                    }
                }
                Piece::Literal(_) | Piece::Timestamp | Piece::Method | Piece::Body => {}
            }
        }
        Ok(())
    }

    /// Everything that the template names, in its order.
    fn signed_parts<'c>(&'c self, content: &Content<'c>) -> Vec<&'c [u8]> {
        let mut parts = Vec::with_capacity(self.template.len() + 1);
        for piece in &self.template {
            match piece {
                Piece::Literal(text) => parts.push(text.as_bytes()),
                Piece::Id => parts.push(content.id.as_bytes()),
                Piece::Timestamp => parts.push(content.timestamp.as_bytes()),
                Piece::Url => parts.extend(content.url.iter().map(|part| part.as_bytes())),
                Piece::Method => parts.push(content.method.as_bytes()),
                Piece::Body => parts.push(content.body),
            }
        }
        parts
    }
}

impl Encoding {
    fn encode(self, tag: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(tag),
            Self::Base64 => STANDARD.encode(tag),
            Self::Base64url => URL_SAFE_NO_PAD.encode(tag),
        }
    }

    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => hex::decode(text).ok(),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64url => URL_SAFE_NO_PAD.decode(text).ok(),
        }
    }
}

/// What the pieces of a template stand for in one message.
struct Content<'a> {
    timestamp: &'a str,
    id: &'a str,
    method: &'a str,
    /// The URL, in two parts so that they need not be joined.
    url: [&'a str; 2],
    body: &'a [u8],
}

fn text(value: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::Malformed)
}

/// Most entries of a signature list: a roll has two, and each entry costs a hash.
const CANDIDATES_MAX: usize = 16;

/// Most signatures of our own version where each costs a public-key operation and a hash of the whole body.
const PUBLIC_KEY_CANDIDATES_MAX: usize = 4;

/// Longest delivery id that is kept or accepted: real ones have under 64 bytes.
const ID_BYTES_MAX: usize = 256;

/// Output of the longest keyed hash, SHA-512, and of Ed25519.
const SHORT_BYTES: usize = 64;

/// An RSA signature of 8192 bits in hexadecimal.
const LONG_TEXT_MAX: usize = 2048;
