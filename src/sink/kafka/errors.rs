//! What an error of Kafka means for the sink: one pure table, as measured against librdkafka.
//!
//! Invariants: an event is blamed only for what a broker says of records; permissions and topics are configuration; an error that
//! leaves open whether the broker has the event is "unknown", and the event is sent again.
//!
//! Not here: acting on it (`kafka`).

use rdkafka::error::RDKafkaErrorCode as Code;

use super::super::Stop;

/// What an error means for the events it was told for; where there are several, the greatest counts. What concerns the whole sink goes before
/// what concerns an event, because a poisoned batch shows itself again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Nobody knows whether the broker has it.
    Unknown,
    /// The producer is beyond repair: a new one is needed.
    Fatal,
    /// The broker will not take one of the records that travelled together. What followed them on the same connection then fails as out of
    /// order, which is fatal by itself.
    Poison,
    /// No trusted connection.
    Tls,
    /// Topic, permission or option.
    Setup,
    /// Credentials.
    Unauthorized,
}

/// The class of an error.
pub(super) const fn class(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => Class::Poison,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedFeature
        | Code::InvalidArgument
        | Code::InvalidConfig => Class::Setup,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::UnacceptableCredential => Class::Unauthorized,
        Code::SSL => Class::Tls,
        Code::Fatal
        | Code::Fenced
        | Code::ProducerFenced
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId => Class::Fatal,
        _ => Class::Unknown,
    }
}

/// The class of what the library says about a connection. A certificate of ours that a broker refuses under TLS 1.3 shows only in the words:
/// the handshake was over for our side, and the next read fails.
pub(super) fn class_of_connection(code: Option<Code>, words: &str) -> Class {
    match code.map_or(Class::Unknown, class) {
        Class::Unknown if words.contains("SSL alert number") => Class::Tls,
        class => class,
    }
}

/// Whether a message only failed because another one did before it, and the producer dropped what it had.
pub(super) const fn is_consequence(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight)
}

/// The stop for a class; `words` are the library's or the broker's, `brokers` and `topic` are the configured ones.
pub(super) fn stop(class: Class, words: &str, brokers: &str, topic: &str) -> Stop {
    match class {
        Class::Setup => Stop::Misconfigured {
            reason: format!(
                "Kafka at {brokers} does not take events for topic \"{topic}\" ({words}): check that it exists, and that our user may Write and Describe it"
            ),
        },
        Class::Unauthorized => Stop::Unauthorized {
            reason: format!(
                "Kafka at {brokers} refused our credentials ({words}): check the sasl.* options and the secrets they name"
            ),
        },
        Class::Tls => Stop::Tls {
            reason: format!(
                "no trusted connection to Kafka at {brokers} ({words}): check tls.ca, tls.certificate and tls.key, the names in the brokers' certificates, and that this is their TLS port"
            ),
        },
        Class::Fatal => Stop::unavailable(format!("Kafka's producer has to be made anew ({words}); nothing is lost")),
        Class::Unknown | Class::Poison => {
            Stop::unavailable(format!("Kafka at {brokers} did not confirm events for topic \"{topic}\" ({words})"))
        }
    }
}
