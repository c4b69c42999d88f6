//! Bearer tokens that an identity provider signed (JSON Web Tokens, RFC 7519): who issued it, for whom, until when, by which key.
//!
//! Invariants: the algorithm is RS256 whatever a token says; issuer and audience are pinned; a token without an end is refused; header
//! and claims are read strictly, so no field stands twice. A token does not cover the body: it proves the sender, not the message.
//!
//! Not here: fetching the issuer's keys (`trust`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::public_key::RsaHash;
use super::token::bearer;
use super::{How, KeyName, Proof, Refusal, Request};
use crate::json::{Document, Value};

/// How bearer tokens of an issuer are checked.
#[derive(Debug, Clone)]
pub struct JwtScheme {
    /// Who issues them, letter by letter as they say it.
    pub(super) issuer: String,
    /// For whom they have to be issued.
    pub(super) audience: String,
    /// The applications that may show one; empty for every one that gets one.
    pub(super) applications: Vec<String>,
    /// How far the issuer's clock may be from ours.
    pub(super) leeway: SignedDuration,
}

impl JwtScheme {
    /// Who issues the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it is pinned which applications may show a token.
    pub fn pins_applications(&self) -> bool {
        !self.applications.is_empty()
    }

    /// The key that the request's token names.
    pub(super) fn wanted(request: &Request<'_>) -> Option<KeyName> {
        let token = Token::split(bearer(request).ok()?)?;
        token.key_name().ok()
    }

    pub(super) fn prove(&self, request: &Request<'_>, now: Timestamp) -> Result<Proof, Refusal> {
        let token = Token::split(bearer(request)?).ok_or(Refusal::Malformed)?;
        // What costs least first: a token of somebody else asks nobody for a key.
        self.check_claims(&token.claims, now)?;
        let name = token.key_name()?;
        let key = request.public_keys.find(&name).ok_or(Refusal::KeyNotLoaded)?;
        if !key.signed_rsa(RsaHash::Sha256, token.signed, &token.signature) {
            return Err(Refusal::Mismatch);
        }
        let KeyName::Issued { id } = name else { return Err(Refusal::Malformed) };
        Ok(Proof::of(How::Token { key_id: id }))
    }

    fn check_claims(&self, claims: &[u8], now: Timestamp) -> Result<(), Refusal> {
        let document = Document::read(claims).map_err(|_| Refusal::Malformed)?;
        let fields = document.root().fields(["iss", "aud", "exp", "nbf", "appid", "azp"]);
        let [issuer, audience, expires, begins, app_v1, app_v2] = fields.map_err(|_| Refusal::Malformed)?;
        let is_text = |value: Value<'_>, wanted: &str| value.text().is_ok_and(|text| text == wanted);
        if !issuer.is_some_and(|issuer| is_text(issuer, &self.issuer)) {
            return Err(Refusal::Pin);
        }
        let audience = audience.ok_or(Refusal::Pin)?;
        let is_for_us = match audience.list() {
            Ok(mut audiences) => audiences.any(|one| is_text(one, &self.audience)),
            Err(_) => is_text(audience, &self.audience),
        };
        let application = app_v2.or(app_v1);
        let may_show = |application: Value<'_>| self.applications.iter().any(|allowed| is_text(application, allowed));
        if !is_for_us || (self.pins_applications() && !application.is_some_and(may_show)) {
            return Err(Refusal::Pin);
        }
        let time = |value: Value<'_>| value.epoch().map_err(|_| Refusal::Malformed);
        let expires = time(expires.ok_or(Refusal::Malformed)?)?;
        let begins = begins.map(time).transpose()?;
        let is_over = now.duration_since(expires) >= self.leeway;
        let is_early = begins.is_some_and(|begins| begins.duration_since(now) > self.leeway);
        if is_over || is_early { Err(Refusal::Timestamp) } else { Ok(()) }
    }
}

/// A token in its three parts.
struct Token<'a> {
    /// Header and claims as they were signed.
    signed: &'a [u8],
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// The parts; none if this is no token in compact form.
    fn split(token: &'a [u8]) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            signed: &token[..header.len() + 1 + claims.len()],
            header: decode(header)?,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }

    /// The key that the header names, if it names one and the one algorithm.
    fn key_name(&self) -> Result<KeyName, Refusal> {
        let document = Document::read(&self.header).map_err(|_| Refusal::Malformed)?;
        let header = document.root().fields(["alg", "kid", "crit"]).map_err(|_| Refusal::Malformed)?;
        let [Some(algorithm), Some(id), None] = header else { return Err(Refusal::Malformed) };
        let text = |value: Value<'_>| value.text().map(std::borrow::Cow::into_owned).map_err(|_| Refusal::Malformed);
        let id = text(id)?;
        let is_id = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        if text(algorithm)? != "RS256" || !is_id {
            return Err(Refusal::Malformed);
        }
        Ok(KeyName::Issued { id })
    }
}

/// Tokens of Entra have 1 to 3 KiB.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Key ids in use have under 64 bytes.
const ID_BYTES_MAX: usize = 128;
