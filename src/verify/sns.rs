//! Messages of Amazon SNS: the signature stands in the body, over its fields, by a certificate that the body names.
//!
//! Invariants: only topics that the config pins are believed, and only they can make us fetch anything; a certificate's URL and the URL
//! that confirms a subscription are of SNS in the region of the topic, and are types that nothing else makes; what is signed can be
//! read in one way only: of the fields before it, only the message may hold a line end.
//! Fields that SNS does not sign (`MessageAttributes`, `UnsubscribeURL`) prove nothing: no adapter may read them.
//!
//! Not here: fetching certificates, trusting them and visiting URLs (`trust`).
//! After <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use super::public_key::{Kind, PublicKey, RsaHash};
use super::template::FixedKeys;
use super::{Found, Handshake, How, KeyName, Proof, Refusal, Request, repeat_of};
use crate::json::{Document, Value};
use crate::secret::Key;

/// How messages of SNS are checked.
#[derive(Debug, Clone)]
pub struct SnsScheme {
    /// The topics that may send.
    pub(super) topics: Vec<TopicArn>,
    /// How far the time of a message may be from now, either way.
    pub(super) tolerance: SignedDuration,
    /// Where certificates come from.
    pub(super) certificates: Certificates,
}

/// Where the certificates of SNS come from.
#[derive(Debug, Clone)]
pub(super) enum Certificates {
    /// From SNS, by the URL in a message.
    Fetched,
    /// From the config and its files alone; nothing is fetched.
    Pinned(FixedKeys),
}

/// The name of a topic: `arn:PARTITION:sns:REGION:ACCOUNT:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicArn {
    text: String,
    region: String,
    is_china: bool,
}

impl TopicArn {
    /// A topic, if the text is the name of one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let arn: [&str; 6] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        let [prefix, partition, service, region, account, name] = arn;
        let is_china = match partition {
            "aws" | "aws-us-gov" => false,
            "aws-cn" => true,
            _ => return None,
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_named = (1..=256).contains(&name.len()) && name.bytes().all(is_name);
        let is_arn = prefix == "arn" && service == "sns" && parts.next().is_none();
        (is_arn && is_region(region) && is_account && is_named).then(|| Self {
            text: text.to_owned(),
            region: region.to_owned(),
            is_china,
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host of SNS in the topic's region.
    pub fn host(&self) -> String {
        format!("sns.{}.{}", self.region, self.domain())
    }

    const fn domain(&self) -> &'static str {
        if self.is_china { "amazonaws.com.cn" } else { "amazonaws.com" }
    }

    /// What follows the host in a URL of SNS in this region; none for any other URL.
    fn path_of<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (host, path) = url.strip_prefix("https://")?.split_at_checked(self.host().len())?;
        // Nothing but a slash may follow the host: no port, and no `@` that would make a user of it.
        (host == self.host() && path.starts_with('/')).then_some(path)
    }
}

/// The URL of a certificate of SNS, in the region of a pinned topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateUrl {
    url: String,
    names: Vec<String>,
}

impl CertificateUrl {
    /// The URL, if SNS could have signed with what stands there. It is fetched as it stands here, so nothing in it may be read in two ways.
    fn parse(url: &str, topic: &TopicArn) -> Option<Self> {
        let file = topic.path_of(url)?.strip_prefix("/SimpleNotificationService-")?.strip_suffix(".pem")?;
        let is_file = (1..=64).contains(&file.len()) && file.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_file.then(|| Self { url: url.to_owned(), names: signing_names(topic) })
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The names of which a signing certificate of this region carries one.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Under which names SNS signs in a region: one for the first regions, one each for those that came later, and those of China and
/// GovCloud. After the `SnsHostProvider` of the AWS SDK for Java 2.
fn signing_names(topic: &TopicArn) -> Vec<String> {
    let (region, domain) = (&topic.region, topic.domain());
    if topic.is_china {
        vec![format!("sns-{region}.{domain}")]
    } else if region.starts_with("us-gov-") {
        vec!["sns-us-gov-west-1.amazonaws.com".to_owned()]
    } else {
        vec![format!("sns.{domain}"), format!("sns-signing.{region}.{domain}")]
    }
}

/// The URL that confirms a subscription, signed by SNS and in the region of a pinned topic. Its `Debug` shows nothing of the token in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SubscribeUrl(String);

impl std::fmt::Debug for SubscribeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubscribeUrl([redacted])")
    }
}

impl SubscribeUrl {
    /// The URL, if it is one of SNS in the topic's region that confirms a subscription.
    fn parse(url: &str, topic: &TopicArn) -> Option<Self> {
        let query = topic.path_of(url)?.strip_prefix("/?")?;
        let is_query = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:&=+/".contains(&byte);
        let confirms = query.split('&').any(|pair| pair == "Action=ConfirmSubscription");
        (confirms && url.len() <= URL_BYTES_MAX && query.bytes().all(is_query)).then(|| Self(url.to_owned()))
    }

    /// The URL. It holds a token: not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SnsScheme {
    /// The topics that may send.
    pub fn topics(&self) -> &[TopicArn] {
        &self.topics
    }

    /// Whether certificates come from the config alone.
    pub const fn is_pinned(&self) -> bool {
        matches!(self.certificates, Certificates::Pinned(_))
    }

    pub(super) fn needs_keys(&self) -> bool {
        matches!(&self.certificates, Certificates::Pinned(fixed) if fixed.is_empty())
    }

    pub(super) fn key_problem(key: &Key) -> Option<&'static str> {
        let is_good = PublicKey::read(Kind::Rsa, key.secret.expose()).is_some();
        (!is_good).then_some("no certificate of SNS: one PEM block, BEGIN CERTIFICATE, with an RSA key")
    }

    /// The certificate that a message of a pinned topic names; none where nothing has to be fetched for it.
    pub(super) fn wanted(&self, body: &[u8]) -> Option<KeyName> {
        let document = Document::read(body).ok()?;
        let message = Message::read(document.root(), &self.topics).ok()?;
        (!self.is_pinned()).then_some(KeyName::Certificate(message.certificate))
    }

    pub(super) fn prove(
        &self,
        keys: &[Key],
        request: &Request<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proof, Refusal> {
        if request.headers.find("x-amz-sns-rawdelivery") != Found::Nothing {
            return Err(Refusal::Unsigned);
        }
        let document = Document::read(body).map_err(|_| Refusal::Malformed)?;
        let message = Message::read(document.root(), &self.topics)?;
        if now.duration_since(message.signed_at).abs() > self.tolerance {
            return Err(Refusal::Timestamp);
        }
        let key_id = self.signer(&message, keys, request)?;
        Ok(Proof {
            signed_at: Some(message.signed_at),
            sender_id: Some(message.id.clone().into_owned()),
            repeat: repeat_of(&message.signature, &message.time, &message.id),
            handshake: message.handshake()?,
            ..Proof::of(How::Signature { key_id })
        })
    }

    /// Whose certificate signed the message.
    fn signer(&self, message: &Message<'_>, keys: &[Key], request: &Request<'_>) -> Result<String, Refusal> {
        let signed = message.signed();
        let is_its = |key: &PublicKey| key.signed_rsa(message.hash, signed.as_bytes(), &message.signature);
        let Certificates::Pinned(fixed) = &self.certificates else {
            let name = KeyName::Certificate(message.certificate.clone());
            let key = request.public_keys.find(&name).ok_or(Refusal::KeyNotLoaded)?;
            return if is_its(&key) { Ok(message.certificate.url.clone()) } else { Err(Refusal::Mismatch) };
        };
        let mut usable = false;
        let loaded =
            keys.iter().filter_map(|key| Some((key.id.0.as_str(), PublicKey::read(Kind::Rsa, key.secret.expose())?)));
        for (id, key) in fixed.iter().map(|(id, key)| (id.as_str(), key.clone())).chain(loaded) {
            usable = true;
            if is_its(&key) {
                return Ok(id.to_owned());
            }
        }
        Err(if usable { Refusal::Mismatch } else { Refusal::SecretUnavailable })
    }
}

/// A message with every field that counts, strictly read.
struct Message<'d> {
    kind: MessageKind<'d>,
    id: Cow<'d, str>,
    topic: &'d TopicArn,
    text: Cow<'d, str>,
    time: Cow<'d, str>,
    signed_at: Timestamp,
    hash: RsaHash,
    signature: Vec<u8>,
    certificate: CertificateUrl,
}

enum MessageKind<'d> {
    Notification { subject: Option<Cow<'d, str>> },
    Subscription { url: Cow<'d, str>, token: Cow<'d, str>, ends: bool },
}

impl<'d> Message<'d> {
    /// The message, if its form is that of SNS and its topic is pinned.
    fn read(root: Value<'d>, topics: &'d [TopicArn]) -> Result<Self, Refusal> {
        let names = ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "Subject", "Token", "SubscribeURL"];
        let fields = root.fields(names).map_err(|_| Refusal::Malformed)?;
        let text = |field: Option<Value<'d>>| field.and_then(|field| field.text().ok()).ok_or(Refusal::Malformed);
        let line = |field| text(field).and_then(line_of);
        let [kind, id, arn, message, time, subject, token, subscribe_url] = fields;
        let arn = line(arn)?;
        let topic = topics.iter().find(|topic| topic.text == arn).ok_or(Refusal::Pin)?;
        let kind = match text(kind)?.as_ref() {
            "Notification" => {
                MessageKind::Notification { subject: subject.map(|field| line(Some(field))).transpose()? }
            }
            kind @ ("SubscriptionConfirmation" | "UnsubscribeConfirmation") => MessageKind::Subscription {
                url: line(subscribe_url)?,
                token: line(token)?,
                ends: kind == "UnsubscribeConfirmation",
            },
            _ => return Err(Refusal::Malformed),
        };
        let proof = root.fields(["SignatureVersion", "Signature", "SigningCertURL"]).map_err(|_| Refusal::Malformed)?;
        let [version, signature, url] = proof;
        let hash = match text(version)?.as_ref() {
            "1" => RsaHash::Sha1,
            "2" => RsaHash::Sha256,
            _ => return Err(Refusal::Malformed),
        };
        let time = line(time)?;
        Ok(Self {
            kind,
            id: line(id)?,
            topic,
            text: text(message)?,
            signed_at: time.parse().map_err(|_| Refusal::Malformed)?,
            time,
            hash,
            signature: STANDARD.decode(text(signature)?.as_bytes()).map_err(|_| Refusal::Malformed)?,
            certificate: CertificateUrl::parse(&text(url)?, topic).ok_or(Refusal::KeyPlace)?,
        })
    }

    /// What SNS signs: each field's name and value on lines of their own, in the order of the names.
    fn signed(&self) -> String {
        let mut fields: Vec<(&str, &str)> = vec![("Message", &self.text), ("MessageId", &self.id)];
        match &self.kind {
            MessageKind::Notification { subject } => {
                fields.extend(subject.as_deref().map(|subject| ("Subject", subject)));
                fields.push(("Timestamp", &self.time));
            }
            MessageKind::Subscription { url, token, .. } => {
                fields.extend([("SubscribeURL", url.as_ref()), ("Timestamp", &self.time), ("Token", token)]);
            }
        }
        fields.extend([("TopicArn", self.topic.as_str()), ("Type", self.kind.word())]);
        let mut signed = String::with_capacity(self.text.len() + 512);
        for (name, value) in fields {
            signed.extend([name, "\n", value, "\n"]);
        }
        signed
    }

    /// What a message that is no news wants. A proven one that asks for a foreign URL is refused: SNS would never.
    fn handshake(&self) -> Result<Option<Handshake>, Refusal> {
        let topic = self.topic.text.clone();
        match &self.kind {
            MessageKind::Notification { .. } => Ok(None),
            MessageKind::Subscription { ends: true, .. } => Ok(Some(Handshake::Unsubscribed { topic })),
            MessageKind::Subscription { url, .. } => {
                let url = SubscribeUrl::parse(url, self.topic).ok_or(Refusal::KeyPlace)?;
                Ok(Some(Handshake::Subscription { url, topic }))
            }
        }
    }
}

impl MessageKind<'_> {
    const fn word(&self) -> &'static str {
        match self {
            Self::Notification { .. } => "Notification",
            Self::Subscription { ends: false, .. } => "SubscriptionConfirmation",
            Self::Subscription { ends: true, .. } => "UnsubscribeConfirmation",
        }
    }
}

/// A field of one line. With a line end in it, a part of it could be taken for the field that follows.
fn line_of(text: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    let is_line = !text.is_empty() && text.len() <= LINE_BYTES_MAX && !text.chars().any(char::is_control);
    if is_line { Ok(text) } else { Err(Refusal::Malformed) }
}

/// The name of a region: `eu-west-1`.
fn is_region(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=32).contains(&text.len()) && text.bytes().all(is_part)
}

/// Longest field of one line: tokens and URLs have under 600 bytes, a subject at most 100 characters.
const LINE_BYTES_MAX: usize = 2048;

/// Longest URL that is visited.
const URL_BYTES_MAX: usize = 2048;
