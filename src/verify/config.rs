//! How a proof is written in the config.
//!
//! Not here: what makes it valid, and the plan that comes out of it (`verify/plan`), what known senders do (`verify/preset`).

use serde::{Deserialize, Serialize};

use super::plan::material;
use super::preset::Preset;
use crate::delivery::Coding;
use crate::secret::SecretRef;
use crate::setting::{Span, Texts};
use crate::tls::ClientTlsConfig;

/// `verify` of a source, as written. Flat rather than one struct a scheme, so that an environment variable can override any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyConfig {
    /// How the source proves its messages.
    pub scheme: SchemeName,
    /// `hmac`, `ed25519`: the sender whose way of signing is meant; the fields below override it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// `hmac`, `token`, `event-grid`: references of the live secrets; any match passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
    /// Take secrets under 24 bytes, which can be guessed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_short_secret: bool,
    /// `rsa`, `ed25519`: the sender's public key, which is no secret: the key itself (PEM or `whpk_`), a reference, or the path of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// `rsa`, `ed25519`: the same, where several are live; any match passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public_keys: Vec<String>,
    /// `rsa`: our tenant at the sender, which it signs; no other tenant's messages pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `hmac`, `ed25519`, `rsa`: how far the signed time may be from now, either way; 5m where it is not set. `sns`: the same of the
    /// time of publishing; 90m, because SNS tries for an hour. `event-grid`: how far the issuer's clock may be from ours; 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Span>,
    /// `hmac`, `ed25519`, `rsa`: the header with the signature, or a list where a sender uses several during a roll. `token`: the header
    /// with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Texts>,
    /// `hmac`: the hash; sha256 where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// `hmac`, `ed25519`, `rsa`: how signatures are written; hex where neither this nor the preset says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// `hmac`, `ed25519`, `token`: what stands before the signature or token (`sha256=`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `hmac`, `ed25519`: names of the `k=v` pairs, where the header is a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// `hmac`, `ed25519`: what is signed, of {id}, {timestamp}, {url}, {method} and {body}; `{body}` where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// `hmac`, `ed25519`, `rsa`: the header with the signed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// `hmac`, `ed25519`, `rsa`: the unit of the signed time; s where neither this nor the scheme says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_unit: Option<TimestampUnit>,
    /// `hmac`, `ed25519`: the header with the sender's id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_header: Option<String>,
    /// `hmac`, `ed25519`, `rsa`: the sender compresses with gzip, and signs the bytes as they are sent (`wire`) or as they were before
    /// (`decoded`). Without this a compressed body is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Over>,
    /// Which Content-Encodings the sender may use, where `over` does not say it; none where neither is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encodings: Option<Vec<Coding>>,
    /// `token`: the token stands in `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bearer: bool,
    /// `token`: the token is the password of this user, in `Authorization: Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<String>,
    /// `token`: the handshake that the sender wants before it sends; `event-grid` answers those of Azure Event Grid and of CloudEvents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeName>,
    /// `sns`: the topics that may send, by their whole ARN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// `sns`: the signing certificates, where they are not fetched from SNS: PEM, references or paths of files. Only these are believed,
    /// whatever their names and dates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// `event-grid`: the parameter of the webhook's URL that holds one of `secrets`. A reference here is itself the secret, in any parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_query: Option<String>,
    /// `event-grid`: who issues the bearer tokens, as they say it (`https://login.microsoftonline.com/TENANT/v2.0`). Needs `audience`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `event-grid`: for whom the bearer tokens are: the application id (or its URI) of this webhook in Entra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `event-grid`: the applications whose bearer tokens are taken (`appid` or `azp`); where it is empty, every one that gets a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// `event-grid`: who may ask for the handshake of CloudEvents; `eventgrid.azure.net` where it is not set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// `sns`, `event-grid` with `issuer`: TLS towards those who publish certificates and keys.
    #[serde(default, skip_serializing_if = "ClientTlsConfig::is_default")]
    pub tls: ClientTlsConfig,
    /// `mtls`: names that the client certificate may go by: common name, whole subject, DNS name or URI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// `none`: networks that messages may come from (`10.1.0.0/16`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// The kinds of proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SchemeName {
    /// A keyed hash over the body.
    #[default]
    Hmac,
    /// A shared token in a header.
    Token,
    /// A client certificate.
    Mtls,
    /// Only the sender's network.
    None,
    /// An Ed25519 signature: `v1a` of Standard Webhooks.
    Ed25519,
    /// An RSA signature over time, tenant, URL and body, as attachmentAV makes it.
    Rsa,
    /// Messages of Amazon SNS.
    Sns,
    /// Deliveries of Azure Event Grid.
    EventGrid,
}

/// Handshakes that are asked for beside the preset's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HandshakeName {
    /// `SubscriptionValidation` of Azure Event Grid, and the preflight of CloudEvents.
    EventGrid,
}

/// Hashes that senders sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// HMAC-SHA-1, for old senders only.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// How a signature is written. Each has one alphabet and one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal in either case.
    Hex,
    /// Standard base64 with padding.
    Base64,
    /// URL-safe base64 without padding.
    Base64url,
}

/// The unit of a signed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since 1970.
    S,
    /// Milliseconds since 1970.
    Ms,
}

/// Which bytes a signature is over, where a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The bytes as they were sent.
    Wire,
    /// The bytes before compression.
    Decoded,
}

/// Names of the pairs in a signature header such as `t=1700000000,v1=5f…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// The pair with the time; none where the header has only signatures, or the time has a header of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The pairs with signatures.
    pub signature: String,
}

impl VerifyConfig {
    /// The references of everything that has to be loaded for this proof.
    pub fn references(&self) -> Vec<SecretRef> {
        let written = self.public_key.iter().chain(&self.public_keys).chain(&self.certificates);
        let loaded = written.filter_map(|text| material(text).err());
        let in_query =
            self.secret_query.as_ref().map(|text| SecretRef(text.clone())).filter(|text| text.check().is_ok());
        self.secrets.iter().cloned().chain(loaded).chain(in_query).collect()
    }

    /// How the sender may compress bodies.
    pub fn codings(&self) -> Vec<Coding> {
        match (&self.content_encodings, self.over) {
            (Some(codings), _) => codings.clone(),
            (None, Some(_)) => vec![Coding::Gzip],
            (None, None) => Vec::new(),
        }
    }
}
