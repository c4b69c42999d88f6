//! What senders ask before or beside their news, and what they want back.
//!
//! Invariants: an answer is made only for a request whose proof held (the one exception is the preflight of CloudEvents, which its
//! sender may send without a token); what a request chose is echoed only in a form that is nothing but a code, inside JSON; whatever is
//! not exactly a handshake is a message, and is kept.
//!
//! Not here: what is sent over the wire (`receive`), subscriptions that have to be confirmed by a visit (`verify/sns`).

use serde_json::json;

use super::config::Algorithm;
use super::hmac::KeyForm;
use super::sns::SubscribeUrl;
use super::{Found, Request};
use crate::json::{Document, Value};
use crate::secret::Key;

/// What a proven request wants instead of being kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// The sender only tries whether we are there.
    Ping,
    /// It wants this JSON back.
    Answer(String),
    /// Amazon SNS wants this URL visited before it sends what is published to the topic.
    Subscription {
        /// Where to go.
        url: SubscribeUrl,
        /// The topic, which is one of the pinned ones.
        topic: String,
    },
    /// Amazon SNS has ended our subscription of this topic.
    Unsubscribed {
        /// The topic.
        topic: String,
    },
}

/// How a sender that signs asks for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// A header and its value mark a message that only tries whether we are there.
    Ping(&'static str, &'static str),
    /// `url_verification` of Slack's Events API.
    Slack,
    /// `endpoint.url_validation` of Zoom.
    Zoom,
}

impl Asks {
    /// What this request, whose proof held, asks for; `key` is the secret that proved it.
    pub(super) fn of(self, request: &Request<'_>, body: &[u8], key: Option<&Key>) -> Option<Handshake> {
        match self {
            Self::Ping(name, value) => {
                (request.headers.find(name) == Found::One(value.as_bytes())).then_some(Handshake::Ping)
            }
            Self::Slack => {
                let challenge = challenge(body, "type", "url_verification", |root| {
                    let [challenge] = root.fields(["challenge"]).ok()?;
                    challenge
                })?;
                Some(Handshake::Answer(json!({ "challenge": challenge }).to_string()))
            }
            Self::Zoom => {
                let plain = challenge(body, "event", "endpoint.url_validation", |root| {
                    let [payload] = root.fields(["payload"]).ok()?;
                    let [plain] = payload?.fields(["plainToken"]).ok()?;
                    plain
                })?;
                let key = KeyForm::Text.bytes_of(key?)?;
                let encrypted = hex::encode(Algorithm::Sha256.tag(&key, &[plain.as_bytes()]));
                Some(Handshake::Answer(json!({ "plainToken": plain, "encryptedToken": encrypted }).to_string()))
            }
        }
    }
}

/// The code that a body of this kind wants back.
///
/// Only a word of letters, digits, `-` and `_`: so it is no markup, and no text that a signature of ours could be taken for.
fn challenge(
    body: &[u8],
    kind_field: &str,
    kind: &str,
    code: impl FnOnce(Value<'_>) -> Option<Value<'_>>,
) -> Option<String> {
    if body.len() > HANDSHAKE_BYTES_MAX {
        return None;
    }
    let document = Document::read(body).ok()?;
    let root = document.root();
    let [found] = root.fields([kind_field]).ok()?;
    if found?.text().ok()? != kind {
        return None;
    }
    code(root).and_then(code_of)
}

/// A code, if the value is one.
fn code_of(value: Value<'_>) -> Option<String> {
    let text = value.text().ok()?;
    let is_code = (1..=CODE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_code.then(|| text.into_owned())
}

/// The handshakes of Azure Event Grid and of CloudEvents: which senders may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventGrid {
    /// Names that a sender may give in WebHook-Request-Origin, in lower case.
    pub(super) origins: Vec<String>,
}

impl EventGrid {
    /// The answer to `SubscriptionValidation`, which a proven request asks by its header and its only event.
    pub(super) fn validation(request: &Request<'_>, body: &[u8]) -> Option<Handshake> {
        let Found::One(kind) = request.headers.find("aeg-event-type") else { return None };
        if !kind.eq_ignore_ascii_case(b"SubscriptionValidation") || body.len() > HANDSHAKE_BYTES_MAX {
            return None;
        }
        let document = Document::read(body).ok()?;
        let mut events = document.root().list().ok()?;
        let (event, None) = (events.next()?, events.next()) else { return None };
        let [kind, data] = event.fields(["eventType", "data"]).ok()?;
        if kind?.text().ok()? != "Microsoft.EventGrid.SubscriptionValidationEvent" {
            return None;
        }
        let [code] = data?.fields(["validationCode"]).ok()?;
        let code = code.and_then(code_of)?;
        Some(Handshake::Answer(json!({ "validationResponse": code }).to_string()))
    }

    /// The origin that may send, if this preflight (CloudEvents HTTP 1.1 Web Hooks, section 4) is by one of those that may.
    pub(super) fn allowed_origin(&self, request: &Request<'_>) -> Option<String> {
        let Found::One(origin) = request.headers.find("webhook-request-origin") else { return None };
        let origin = std::str::from_utf8(origin).ok()?;
        // What is echoed is our own text, whatever was sent.
        self.origins.iter().find(|allowed| allowed.eq_ignore_ascii_case(origin)).cloned()
    }
}

/// A handshake has a few hundred bytes; what is larger is not even looked at.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

/// Codes in use have 22 to 60 characters.
const CODE_BYTES_MAX: usize = 256;
