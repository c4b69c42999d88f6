//! Shared tokens: where one stands in a request, and whose it is.
//!
//! Invariants: tokens are compared in constant time, whatever their length; a place that holds two of them holds none; a token in the
//! query is kept nowhere.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Refusal, Request, one_header};
use crate::secret::Key;

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
    /// A parameter of the query.
    Query {
        /// Its name; none if any parameter may hold the token.
        name: Option<String>,
    },
}

impl TokenPlace {
    /// The header that holds the token, where it is one of its own.
    pub(super) fn header(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Bearer | Self::Basic { .. } | Self::Query { .. } => None,
        }
    }

    /// The key whose value the request carries as its token.
    pub(super) fn key<'k>(&self, keys: &'k [Key], request: &Request<'_>) -> Result<&'k Key, Refusal> {
        match self {
            Self::Header { name, prefix } => {
                let sent = one_header(request, name)?.strip_prefix(prefix.as_bytes()).ok_or(Refusal::Malformed)?;
                key_of(keys, sent)
            }
            Self::Bearer => key_of(keys, bearer(request)?),
            Self::Basic { user } => {
                let encoded = after_scheme(one_header(request, AUTHORIZATION)?, "basic ")?;
                let basic = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| Refusal::Malformed)?);
                let colon = basic.iter().position(|byte| *byte == b':').ok_or(Refusal::Malformed)?;
                if basic[..colon] != *user.as_bytes() {
                    return Err(Refusal::Mismatch);
                }
                key_of(keys, &basic[colon + 1..])
            }
            Self::Query { name } => in_query(name.as_deref(), keys, request.target),
        }
    }
}

/// The key that the query holds: in the parameter of this name, which stands once, or in any one.
fn in_query<'k>(name: Option<&str>, keys: &'k [Key], target: &str) -> Result<&'k Key, Refusal> {
    let (_, query) = target.split_once('?').ok_or(Refusal::Missing)?;
    let mut found = None;
    for (index, pair) in query.split('&').enumerate() {
        if index >= PARAMETERS_MAX {
            return Err(Refusal::Malformed);
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = name else {
            // Each one is compared, so that time does not tell which one was right.
            found = found.or(key_of(keys, &percent_decoded(value)).ok());
            continue;
        };
        if *percent_decoded(key) == *name.as_bytes() {
            if found.is_some() {
                return Err(Refusal::DuplicateHeader);
            }
            found = Some(key_of(keys, &percent_decoded(value))?);
        }
    }
    found.ok_or(if name.is_some() { Refusal::Missing } else { Refusal::Mismatch })
}

/// The bytes of a part of a query. What is no escape stands for itself, and so does `+`: this is a URL and no form.
fn percent_decoded(text: &str) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let mut byte = [0];
        match after.split_at_checked(2) {
            Some((digits, further)) if *first == b'%' && hex::decode_to_slice(digits, &mut byte).is_ok() => {
                bytes.push(byte[0]);
                rest = further;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// A value as it stands in a query.
pub(super) fn percent_encoded(value: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if value.bytes().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let encode = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(encode).collect::<String>().into()
}

fn key_of<'k>(keys: &'k [Key], sent: &[u8]) -> Result<&'k Key, Refusal> {
    // Compared as hashes: equal lengths, so that not even the length of a secret shows in the time this takes.
    let sent = Sha256::digest(sent);
    let same = |key: &&Key| bool::from(Sha256::digest(key.secret.expose()).ct_eq(&sent));
    keys.iter().find(same).ok_or(Refusal::Mismatch)
}

/// What `Authorization: Bearer` holds.
pub(super) fn bearer<'a>(request: &Request<'a>) -> Result<&'a [u8], Refusal> {
    after_scheme(one_header(request, AUTHORIZATION)?, "bearer ")
}

/// What follows the name of an authorization scheme, which is written in any case (RFC 9110, 11.1).
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Result<&'a [u8], Refusal> {
    match value.split_at_checked(scheme.len()) {
        Some((name, rest)) if name.eq_ignore_ascii_case(scheme.as_bytes()) => Ok(rest),
        _ => Err(Refusal::Malformed),
    }
}

pub(super) const AUTHORIZATION: &str = "authorization";

/// Most parameters of a query that is looked at: Event Grid sends what was entered there.
const PARAMETERS_MAX: usize = 32;
