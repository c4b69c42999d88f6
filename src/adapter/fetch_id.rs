//! The platform's own id of a report that has to be fetched.
//!
//! Invariant: an id can stand in a path as it is. It becomes a part of a request of ours and is never a URL, so a payload can choose
//! which report is fetched, and nothing else.
//!
//! Not here: where the report lies (`poll`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to fetch: the kind of the object and its id, as one text `kind:id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FetchId(String);

/// Most bytes of an id: the longest in use are analyses of VirusTotal with some 80.
const ID_BYTES_MAX: usize = 256;
/// Most bytes of a kind: the longest of ours has 16.
const KIND_BYTES_MAX: usize = 32;

impl FetchId {
    /// The object of this kind with this id; none if the id holds anything that a path would need to escape.
    pub fn new(kind: &'static str, id: &str) -> Option<Self> {
        (is_kind(kind) && is_id(id)).then(|| Self(format!("{kind}:{id}")))
    }

    /// Reads `kind:id` back.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        (is_kind(kind) && is_id(id)).then(|| Self(text.to_owned()))
    }

    /// What kind of object it is (`task`, `file`).
    pub fn kind(&self) -> &str {
        self.parts().0
    }

    /// Its id at the platform.
    pub fn id(&self) -> &str {
        self.parts().1
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').expect("it was made of two parts")
    }
}

fn is_kind(kind: &str) -> bool {
    (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'=' | b'-');
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) && !matches!(id, "." | "..")
}

impl fmt::Display for FetchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`FetchId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not of the form kind:id")]
pub struct FetchIdError;

impl TryFrom<String> for FetchId {
    type Error = FetchIdError;

    fn try_from(text: String) -> Result<Self, FetchIdError> {
        Self::parse(&text).ok_or(FetchIdError)
    }
}

impl From<FetchId> for String {
    fn from(id: FetchId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_can_stand_in_a_path_as_it_is() {
        for good in ["1234", "NDRk==", "u-abc_1.2", "260323-abcdefghij", &"a".repeat(256), "..."] {
            let id = FetchId::new("task", good).expect(good);
            assert_eq!((id.kind(), id.id(), FetchId::parse(id.as_str())), ("task", good, Some(id.clone())));
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a?b", "a#b", "a%2fb", "a b", "é", "a\n", &"a".repeat(257)] {
            assert_eq!(FetchId::new("task", bad), None, "{bad}");
        }
        for bad in ["task", ":1", "Task:1", "task:", "task:..", "https://x"] {
            assert_eq!(FetchId::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_read_reads_back(text in ".{0,300}") {
            if let Some(id) = FetchId::parse(&text) {
                let json = serde_json::to_string(&id).expect("a text");
                prop_assert_eq!(serde_json::from_str::<FetchId>(&json).expect("reads back"), id);
            }
        }
    }
}
