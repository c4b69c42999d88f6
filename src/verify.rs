//! Proves that a message comes from its source.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::delivery::Evidence;
use crate::event::Auth;

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
}

impl Proven {
    /// The proof's own value, shortened: a second request with the same one is an exact repeat.
    /// None where the proof does not cover the body (a token), so that equal proofs say nothing about equal messages.
    pub const fn repeat(&self) -> Option<[u8; 16]> {
        self.repeat
    }

    /// The body, and what is kept of the request.
    pub fn into_parts(self) -> (Bytes, Evidence) {
        (self.body, self.evidence)
    }
}
