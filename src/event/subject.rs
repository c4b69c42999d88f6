//! What a verdict is about, and the key that one subject has everywhere.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256 as Sha256Hasher};

use super::{Md5, Sha1, Sha256, digest_of_parts};

/// What the verdict is about. At least one identifier is always present: see the constructors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub(super) id: SubjectId,
    /// SHA-1, where the sender gave it beside a stronger identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha1: Option<Sha1>,
    /// MD5, where the sender gave it beside a stronger identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5>,
    /// File name, chosen by whoever made the file: never trusted, at most [`super::TEXT_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Type of the file in the sender's words (`Win32 EXE`, `application/pdf`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<String>,
}

/// The identifier a subject is known by: the strongest one that the sender gave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectId {
    /// A file, by SHA-256.
    Sha256(Sha256),
    /// A file of which only the SHA-1 is known.
    Sha1(Sha1),
    /// A file of which only the MD5 is known.
    Md5(Md5),
    /// A URL, domain or address, as the sender wrote it.
    Url(String),
    /// An object in a store, known by its URL and entity tag.
    Object {
        /// Where it lies.
        url: String,
        /// Which version of it; empty where the sender gave none.
        etag: String,
    },
    /// A mail or chat message, by the sender's id.
    Message(String),
}

impl Subject {
    /// A file known by the strongest of the given hashes; none if there is no hash at all.
    pub fn file(sha256: Option<Sha256>, sha1: Option<Sha1>, md5: Option<Md5>) -> Option<Self> {
        let id = match (sha256, sha1, md5) {
            (Some(hash), _, _) => SubjectId::Sha256(hash),
            (None, Some(hash), _) => SubjectId::Sha1(hash),
            (None, None, Some(hash)) => SubjectId::Md5(hash),
            (None, None, None) => return None,
        };
        Some(Self { sha1, md5, ..Self::of(id) })
    }

    /// Any other subject, known by `id`.
    pub const fn of(id: SubjectId) -> Self {
        Self { id, sha1: None, md5: None, name: None, size: None, file_type: None }
    }

    /// The identifier.
    pub const fn id(&self) -> &SubjectId {
        &self.id
    }

    /// SHA-256, if that is what the file is known by.
    pub const fn sha256(&self) -> Option<Sha256> {
        match self.id {
            SubjectId::Sha256(hash) => Some(hash),
            _ => None,
        }
    }

    /// The URL of a `url` or `object` subject.
    pub fn url(&self) -> Option<&str> {
        match &self.id {
            SubjectId::Url(url) | SubjectId::Object { url, .. } => Some(url),
            _ => None,
        }
    }

    /// `file`, `url`, `object` or `message`.
    pub const fn kind(&self) -> &'static str {
        match self.id {
            SubjectId::Sha256(_) | SubjectId::Sha1(_) | SubjectId::Md5(_) => "file",
            SubjectId::Url(_) => "url",
            SubjectId::Object { .. } => "object",
            SubjectId::Message(_) => "message",
        }
    }

    /// The key of the verdict index and of Kafka: short, printable, without anything that the sender chose.
    pub fn key(&self) -> String {
        let digest = |parts: &[&str]| hex::encode(digest_of_parts(parts.iter().map(|part| part.as_bytes())));
        match &self.id {
            SubjectId::Sha256(hash) => format!("file:{hash}"),
            SubjectId::Sha1(hash) => format!("file:sha1:{hash}"),
            SubjectId::Md5(hash) => format!("file:md5:{hash}"),
            SubjectId::Url(url) => format!("url:{}", hex::encode(Sha256Hasher::digest(url))),
            SubjectId::Object { url, etag } => format!("object:{}", digest(&[url, etag])),
            SubjectId::Message(id) => format!("message:{}", digest(&[id])),
        }
    }

    /// How a person would call it: the file name, else the URL, else the identifier.
    pub fn label(&self) -> std::borrow::Cow<'_, str> {
        match (&self.name, &self.id) {
            (Some(name), _) => name.into(),
            (None, SubjectId::Url(url) | SubjectId::Object { url, .. }) => url.into(),
            (None, SubjectId::Message(id)) => id.into(),
            (None, SubjectId::Sha256(hash)) => hash.to_string().into(),
            (None, SubjectId::Sha1(hash)) => hash.to_string().into(),
            (None, SubjectId::Md5(hash)) => hash.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hash;
    use super::*;

    #[test]
    fn the_strongest_hash_names_the_file() {
        assert!(Subject::file(None, None, None).is_none());
        let both = Subject::file(None, Some(Hash([1; 20])), Some(Hash([2; 16]))).expect("has hashes");
        assert_eq!(both.key(), format!("file:sha1:{}", "01".repeat(20)));
    }
}
