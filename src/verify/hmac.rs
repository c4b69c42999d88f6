//! The template engine of signed webhooks: one way of checking a keyed hash, with everything that senders do differently as data.
//!
//! Invariants: what is signed can be read in one way only, so nothing can move from one field to its neighbour: an id holds no
//! character that separates, a timestamp holds digits only, and the body stands last. A tag has exactly the length of its
//! algorithm; shorter ones never match. Lists have at most [`CANDIDATES_MAX`] entries, and entries of unknown versions are skipped.
//!
//! Not here: which sender does it how (`verify/preset`).

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::config::{Algorithm, Encoding, TimestampUnit};
use super::{Found, How, Outgoing, Proof, Refusal, Request, one_header};
use crate::secret::Key;

/// How one kind of sender signs.
#[derive(Debug, Clone)]
pub struct HmacScheme {
    /// The headers it uses; later entries are tried only where the signature header of the earlier ones is absent.
    pub(super) headers: Vec<HeaderNames>,
    pub(super) algorithm: Algorithm,
    pub(super) encoding: Encoding,
    /// What stands before each signature.
    pub(super) prefix: String,
    pub(super) shape: Shape,
    /// What is signed, piece by piece; the body is the last one.
    pub(super) template: Vec<Piece>,
    pub(super) timestamp_unit: TimestampUnit,
    /// Most seconds or milliseconds (as the unit is) between the signed time and now, either way.
    pub(super) tolerance: i64,
    pub(super) key_form: KeyForm,
    /// The header and value by which the sender marks a message that only tries whether we are there.
    pub(super) ping: Option<(&'static str, &'static str)>,
}

/// The headers that one form of a sender's requests uses, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderNames {
    pub(super) signature: String,
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

/// How the key's bytes come out of the secret's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// They are the text.
    Text,
    /// Base64, after an optional `whsec_`.
    Whsec,
}

/// What one request says about its signature.
struct Claim<'a> {
    timestamp: &'a str,
    id: &'a str,
    tags: Vec<Tag>,
}

/// A decoded signature: exactly as long as its algorithm's output.
#[derive(Clone, Copy)]
struct Tag {
    bytes: [u8; TAG_BYTES_MAX],
    length: usize,
}

impl Tag {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl HmacScheme {
    pub(super) fn signs_url(&self) -> bool {
        self.template.contains(&Piece::Url)
    }

    pub(super) fn key_problem(&self, key: &Key) -> Option<&'static str> {
        self.key_bytes(key).is_none().then_some("not standard base64 after \"whsec_\": copy it as the sender shows it")
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
        let mut usable = false;
        for key in keys {
            let Some(bytes) = self.key_bytes(key) else { continue };
            usable = true;
            if let Some(tag) = self.first_match(&bytes, &content, &claim.tags) {
                let repeat = repeat_of(tag.as_slice(), claim.timestamp, claim.id);
                let sender_id = (!claim.id.is_empty()).then(|| claim.id.to_owned());
                let is_ping = |(name, value): (_, &str)| request.headers.find(name) == Found::One(value.as_bytes());
                return Ok(Proof {
                    how: How::Signature { key_id: key.id.0.clone() },
                    signed_at,
                    sender_id,
                    repeat,
                    ping: self.ping.is_some_and(is_ping),
                });
            }
        }
        Err(if usable { Refusal::Mismatch } else { Refusal::SecretUnavailable })
    }

    /// The headers that prove `message`, with one signature.
    pub(super) fn sign(
        &self,
        key: &Key,
        message: &Outgoing<'_>,
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, Refusal> {
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
        let bytes = self.key_bytes(key).ok_or(Refusal::SecretUnavailable)?;
        let tag = match self.algorithm {
            Algorithm::Sha1 => self.mac::<Hmac<Sha1>>(&bytes, &content).finalize().into_bytes().to_vec(),
            Algorithm::Sha256 => self.mac::<Hmac<Sha256>>(&bytes, &content).finalize().into_bytes().to_vec(),
            Algorithm::Sha512 => self.mac::<Hmac<Sha512>>(&bytes, &content).finalize().into_bytes().to_vec(),
        };
        let signature = format!("{}{}", self.prefix, self.encoding.encode(&tag));
        let value = match &self.shape {
            Shape::Single | Shape::SpaceList => signature,
            Shape::Parts { timestamp: Some(t), signature: s } => format!("{t}={timestamp},{s}={signature}"),
            Shape::Parts { timestamp: None, signature: s } => format!("{s}={signature}"),
        };
        let mut headers = vec![(names.signature.clone(), value)];
        headers.extend(names.timestamp.clone().map(|name| (name, timestamp.clone())));
        headers.extend(names.id.clone().map(|name| (name, message.id.to_owned())));
        Ok(headers)
    }

    /// Reads the headers, strictly.
    fn claim<'a>(&self, request: &Request<'a>) -> Result<Claim<'a>, Refusal> {
        let is_there = |names: &&HeaderNames| request.headers.find(&names.signature) != Found::Nothing;
        let names = self.headers.iter().find(is_there).ok_or(Refusal::Missing)?;
        let signature = text(one_header(request, &names.signature)?)?;
        let (mut timestamp, tags) = self.split(signature)?;
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

    /// Time and signatures out of the signature header.
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

    /// One signature, decoded; none if it is of another version or not exactly one tag long.
    fn tag(&self, text: &str) -> Option<Tag> {
        let encoded = text.strip_prefix(self.prefix.as_str())?;
        let mut bytes = [0; TAG_BYTES_MAX];
        let length = self.algorithm.tag_bytes();
        let decoded = match self.encoding {
            Encoding::Hex => hex::decode_to_slice(encoded, &mut bytes[..length]).ok().map(|()| length),
            Encoding::Base64 => decode_base64(&STANDARD, encoded, &mut bytes),
            Encoding::Base64url => decode_base64(&URL_SAFE_NO_PAD, encoded, &mut bytes),
        };
        (decoded? == length).then_some(Tag { bytes, length })
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

    fn key_bytes<'k>(&self, key: &'k Key) -> Option<KeyBytes<'k>> {
        let text = key.secret.expose();
        let bytes = match self.key_form {
            KeyForm::Text => KeyBytes::Text(text),
            KeyForm::Whsec => {
                let encoded = text.strip_prefix(b"whsec_").unwrap_or(text);
                KeyBytes::Decoded(Zeroizing::new(STANDARD.decode(encoded).ok()?))
            }
        };
        // A keyed hash takes an empty key, and then proves nothing.
        (!bytes.is_empty()).then_some(bytes)
    }

    fn first_match<'t>(&self, key: &[u8], content: &Content<'_>, tags: &'t [Tag]) -> Option<&'t Tag> {
        match self.algorithm {
            Algorithm::Sha1 => first_match(&self.mac::<Hmac<Sha1>>(key, content), tags),
            Algorithm::Sha256 => first_match(&self.mac::<Hmac<Sha256>>(key, content), tags),
            Algorithm::Sha512 => first_match(&self.mac::<Hmac<Sha512>>(key, content), tags),
        }
    }

    /// The keyed hash over everything that the template names, not yet finished.
    fn mac<M: Mac + KeyInit>(&self, key: &[u8], content: &Content<'_>) -> M {
        let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        for piece in &self.template {
            match piece {
                Piece::Literal(text) => mac.update(text.as_bytes()),
                Piece::Id => mac.update(content.id.as_bytes()),
                Piece::Timestamp => mac.update(content.timestamp.as_bytes()),
                Piece::Url => content.url.iter().for_each(|part| mac.update(part.as_bytes())),
                Piece::Method => mac.update(content.method.as_bytes()),
                Piece::Body => mac.update(content.body),
            }
        }
        mac
    }
}

impl Algorithm {
    const fn tag_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => TAG_BYTES_MAX,
        }
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

/// The bytes of a key, borrowed or wiped after use.
enum KeyBytes<'k> {
    Text(&'k [u8]),
    Decoded(Zeroizing<Vec<u8>>),
}

impl std::ops::Deref for KeyBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Decoded(bytes) => bytes,
        }
    }
}

fn first_match<'t, M: Mac + Clone>(mac: &M, tags: &'t [Tag]) -> Option<&'t Tag> {
    // `verify_slice` compares whole tags in constant time.
    tags.iter().find(|tag| mac.clone().verify_slice(tag.as_slice()).is_ok())
}

/// Identifies an exact repeat; none for a message that carries neither a time nor an id, which may honestly be sent twice.
fn repeat_of(tag: &[u8], timestamp: &str, id: &str) -> Option<[u8; 16]> {
    if timestamp.is_empty() && id.is_empty() {
        return None;
    }
    // The tag has a fixed length and a time has no colon, so the parts cannot run into each other.
    let digest = Sha256::new().chain_update(tag).chain_update(timestamp).chain_update(":").chain_update(id).finalize();
    digest.first_chunk().copied()
}

fn text(value: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::Malformed)
}

/// How many bytes were decoded; none if the text is not in the engine's one form.
fn decode_base64(engine: &GeneralPurpose, text: &str, bytes: &mut [u8; TAG_BYTES_MAX]) -> Option<usize> {
    // A text longer than the longest tag does not fit, which is an error as well.
    engine.decode_slice(text, bytes).ok()
}

/// Most entries of a signature list: a roll has two, and each entry costs a hash.
const CANDIDATES_MAX: usize = 16;

/// Longest delivery id that is kept or accepted: real ones have under 64 bytes.
const ID_BYTES_MAX: usize = 256;

/// Output of the longest algorithm, SHA-512.
const TAG_BYTES_MAX: usize = 64;
