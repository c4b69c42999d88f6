//! Why a message was refused, in a word for metrics and a sentence for the log.
//!
//! Not here: what a sender is told, which is always the same (`receive`).

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
    /// What the config pins (a topic, an issuer, an audience, an application) is something else.
    #[error(
        "the topic, issuer, audience or application is none of those that the config pins: compare them with the sender's"
    )]
    Pin,
    /// The message names a key in a place where its sender publishes none.
    #[error(
        "the message names a certificate or address that is not of Amazon SNS in the topic's region: somebody forges messages"
    )]
    KeyPlace,
    /// A message of SNS as it was published, without its signature.
    #[error("raw message delivery is on, which leaves the signature out: switch it off for this subscription")]
    Unsigned,
    /// A compressed body that becomes too large.
    #[error(
        "the compressed body becomes larger than receiver.body_max, or than any honest one: raise the limit, or look at the sender"
    )]
    TooLarge,
    /// Our own trouble: no secret is loaded, or none has the form that the scheme needs.
    #[error("no usable secret is loaded: check the source's secrets")]
    SecretUnavailable,
    /// Our own trouble: the public key that the message names is not here yet.
    #[error(
        "the public key or certificate that the message names could not be fetched: check the way out to its publisher"
    )]
    KeyNotLoaded,
}

impl Refusal {
    /// Every refusal, so that metrics exist before the first one happens.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Malformed,
        Self::DuplicateHeader,
        Self::Mismatch,
        Self::Timestamp,
        Self::Network,
        Self::Certificate,
        Self::Pin,
        Self::KeyPlace,
        Self::Unsigned,
        Self::TooLarge,
        Self::SecretUnavailable,
        Self::KeyNotLoaded,
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
            Self::Pin => "pin",
            Self::KeyPlace => "key_place",
            Self::Unsigned => "unsigned",
            Self::TooLarge => "too_large",
            Self::SecretUnavailable => "secret_unavailable",
            Self::KeyNotLoaded => "key_not_loaded",
        }
    }

    /// Whether the trouble is ours, so that nothing is said about the message.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::SecretUnavailable | Self::KeyNotLoaded)
    }
}
