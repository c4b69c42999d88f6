//! Hashes as bytes, and as the hexadecimal digits that senders and receivers write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A hash of `N` bytes, written as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Hash<const N: usize>(pub [u8; N]);

/// SHA-256 of a file.
pub type Sha256 = Hash<32>;
/// SHA-1 of a file.
pub type Sha1 = Hash<20>;
/// MD5 of a file.
pub type Md5 = Hash<16>;

/// Why a text is no hash of the expected length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {} hexadecimal digits", N * 2)]
pub struct HashError<const N: usize>;

impl<const N: usize> FromStr for Hash<N> {
    type Err = HashError<N>;

    /// Accepts either case, because senders use both; nothing else is tolerated.
    fn from_str(text: &str) -> Result<Self, HashError<N>> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| HashError)?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> TryFrom<String> for Hash<N> {
    type Error = HashError<N>;

    fn try_from(text: String) -> Result<Self, HashError<N>> {
        text.parse()
    }
}

impl<const N: usize> Hash<N> {
    /// Its digits, in room for those of the longest hash.
    fn digits<'r>(&self, room: &'r mut [u8; 64]) -> &'r str {
        let digits = &mut room[..N * 2];
        hex::encode_to_slice(self.0, digits).expect("two digits a byte");
        std::str::from_utf8(digits).expect("digits")
    }
}

impl<const N: usize> Serialize for Hash<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.digits(&mut [0; 64]))
    }
}

impl<const N: usize> fmt::Display for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits(&mut [0; 64]))
    }
}

impl<const N: usize> fmt::Debug for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_in_either_case_and_shown_in_lower() {
        let upper: Md5 = "44D88612FEA8A8F36DE82E1278ABB02F".parse().expect("32 digits");
        assert_eq!(upper.to_string(), "44d88612fea8a8f36de82e1278abb02f");
        assert!("44d8".parse::<Md5>().is_err());
        assert!("zz".repeat(16).parse::<Md5>().is_err());
    }
}
