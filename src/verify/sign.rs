//! Proving as a sender would, for `send` and `demo`, and as the sender that we are to a webhook's receiver: the other side of `verify`.
//!
//! Not here: signatures that only a sender has the key for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::config::Algorithm;
use super::hmac::KeyForm;
use super::token::{AUTHORIZATION, percent_encoded};
use super::{GridProof, Refusal, Scheme, TokenPlace};
use crate::secret::Key;

impl Scheme {
    /// Why we can't prove as this source's sender would; none if we can.
    pub const fn why_not_signed(&self) -> Option<&'static str> {
        match self {
            Self::Signature(scheme) if scheme.is_by_public_key() => {
                Some("its sender signs with a private key that only it has")
            }
            Self::Sns(_) => Some("Amazon SNS signs with a private key that only it has: publish to the topic"),
            Self::EventGrid { proof: GridProof::Issuer(_), .. } => {
                Some("its sender shows a token that only the issuer can sign: send an event through Event Grid")
            }
            _ => None,
        }
    }
}

/// The headers by which that source's sender would prove `body`, with the first of the keys: for `send`.
///
/// Empty where the proof is in no header: a client certificate, a network, a secret in the URL ([`sign_query`]), or a signature that
/// only the sender has the key for ([`Scheme::why_not_signed`]).
pub fn sign(
    scheme: &Scheme,
    keys: &[Key],
    message: &Outgoing<'_>,
    now: Timestamp,
) -> Result<Vec<(String, String)>, Refusal> {
    let key = || keys.first().ok_or(Refusal::SecretUnavailable);
    let credential = |prefix: &str, value: &[u8]| {
        std::str::from_utf8(value).map(|text| format!("{prefix}{text}")).map_err(|_| Refusal::SecretUnavailable)
    };
    let authorization = |value: String| vec![(AUTHORIZATION.to_owned(), value)];
    let place = match scheme {
        Scheme::Signature(signature) => return signature.sign(key()?, message, now),
        Scheme::Token(place) | Scheme::EventGrid { proof: GridProof::Secret(place), .. } => place,
        _ => return Ok(Vec::new()),
    };
    Ok(match place {
        TokenPlace::Header { name, prefix } => vec![(name.clone(), credential(prefix, key()?.secret.expose())?)],
        TokenPlace::Bearer => authorization(credential("Bearer ", key()?.secret.expose())?),
        TokenPlace::Basic { user } => {
            let pair = [user.as_bytes(), b":", key()?.secret.expose()].concat();
            authorization(format!("Basic {}", STANDARD.encode(pair)))
        }
        TokenPlace::Query { .. } => Vec::new(),
    })
}

/// The query that that source's sender would have in its URL, with the first of the keys: for `send`.
pub fn sign_query(scheme: &Scheme, keys: &[Key]) -> Result<Option<String>, Refusal> {
    let Scheme::EventGrid { proof: GridProof::Secret(TokenPlace::Query { name }), .. } = scheme else {
        return Ok(None);
    };
    let key = keys.first().ok_or(Refusal::SecretUnavailable)?;
    let value = std::str::from_utf8(key.secret.expose()).map_err(|_| Refusal::SecretUnavailable)?;
    Ok(Some(format!("{}={}", name.as_deref().unwrap_or("secret"), percent_encoded(value))))
}

/// The headers of a webhook of ours after Standard Webhooks 1.0.0, signed with each of the keys, so that its receiver can change over to
/// another secret when it likes. `id` may not hold a dot. A key that is no base64 signs nothing; none that does is an error.
pub fn sign_event<'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    id: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<[(&'static str, String); 3], Refusal> {
    let time = now.as_second().to_string();
    let signed: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let signature = |key| {
        let bytes = KeyForm::Whsec.bytes_of(key)?;
        Some(format!("v1,{}", STANDARD.encode(Algorithm::Sha256.tag(&bytes, &signed))))
    };
    let signatures: Vec<String> = keys.into_iter().filter_map(signature).collect();
    if signatures.is_empty() {
        return Err(Refusal::SecretUnavailable);
    }
    let id = id.to_owned();
    Ok([("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signatures.join(" "))])
}

/// A message that [`sign`] proves.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The receiver's public URL, with path and query.
    pub url: &'a str,
    /// The sender's id of this delivery; it may not hold a dot.
    pub id: &'a str,
    /// The body.
    pub body: &'a [u8],
}
