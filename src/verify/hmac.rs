//! Keyed hashes: how a secret's text becomes a key, and which of several signatures is made with it.
//!
//! Invariants: an empty key is no key; whole tags are compared, in constant time.
//!
//! Not here: what is hashed, and where tags stand in a request (`verify/template`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use super::config::Algorithm;
use crate::secret::Key;

/// How the key's bytes come out of the secret's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// They are the text.
    Text,
    /// Base64, after an optional `whsec_`.
    Whsec,
}

impl KeyForm {
    /// The bytes of a key; none if the secret is not in this form.
    pub(super) fn bytes_of(self, key: &Key) -> Option<KeyBytes<'_>> {
        let text = key.secret.expose();
        let bytes = match self {
            Self::Text => KeyBytes::Text(text),
            Self::Whsec => {
                let encoded = text.strip_prefix(b"whsec_").unwrap_or(text);
                KeyBytes::Decoded(Zeroizing::new(STANDARD.decode(encoded).ok()?))
            }
        };
        // A keyed hash takes an empty key, and then proves nothing.
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// The bytes of a key, borrowed or wiped after use.
pub(super) enum KeyBytes<'k> {
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

impl Algorithm {
    /// Length of its output.
    pub(super) const fn tag_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The keyed hash over `parts`, one after the other.
    pub(super) fn tag(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key, parts).finalize().into_bytes().to_vec(),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, parts).finalize().into_bytes().to_vec(),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, parts).finalize().into_bytes().to_vec(),
        }
    }

    /// Place of the first of the tags that this key made over `parts`.
    pub(super) fn first_match<'t>(
        self,
        key: &[u8],
        parts: &[&[u8]],
        tags: impl Iterator<Item = &'t [u8]>,
    ) -> Option<usize> {
        match self {
            Self::Sha1 => first_match(&mac::<Hmac<Sha1>>(key, parts), tags),
            Self::Sha256 => first_match(&mac::<Hmac<Sha256>>(key, parts), tags),
            Self::Sha512 => first_match(&mac::<Hmac<Sha512>>(key, parts), tags),
        }
    }
}

/// The keyed hash over `parts`, not yet finished.
fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn first_match<'t, M: Mac + Clone>(mac: &M, mut tags: impl Iterator<Item = &'t [u8]>) -> Option<usize> {
    // `verify_slice` compares whole tags in constant time.
    tags.position(|tag| mac.clone().verify_slice(tag).is_ok())
}
