//! Keys of an identity provider: found by its discovery document, taken from its key set (RFC 7517).
//!
//! Invariants: the document has to call the issuer by the name that the config pins; only RSA keys for signatures are taken; every
//! question goes over verified TLS.

use std::time::Duration;

use jiff::Timestamp;

use super::web::{Web, host_of};
use super::{FetchError, Found};
use crate::json::{Document, Value};
use crate::verify::{KeyName, PublicKey};

/// Every key that the issuer signs tokens with now.
pub(super) async fn fetch(web: &Web, issuer: &str, now: Timestamp) -> Result<Found, FetchError> {
    let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery = web.get(&place, ANSWER_BYTES_MAX).await.map_err(present)?;
    let keys_at = keys_place(&discovery, issuer)?;
    let keys = web.get(&keys_at, ANSWER_BYTES_MAX).await.map_err(present)?;
    let found: Found =
        keys_of(&keys)?.into_iter().map(|(id, key)| (KeyName::Issued { id }, key, now + KEPT_FOR)).collect();
    if found.is_empty() {
        return Err(unusable(&format!("{} publishes no RSA key for signatures", host_of(&keys_at))));
    }
    Ok(found)
}

/// A document that is not there is no word about a key: the issuer is written wrongly, or not well.
fn present(error: FetchError) -> FetchError {
    match error {
        FetchError::Absent => {
            unusable("the issuer has no /.well-known/openid-configuration, or not what it names: check verify.issuer")
        }
        other => other,
    }
}

/// Where the keys are, by the issuer's own word.
fn keys_place(discovery: &[u8], issuer: &str) -> Result<String, FetchError> {
    let odd = || unusable("the issuer's discovery document cannot be read");
    let document = Document::read(discovery).map_err(|_| odd())?;
    let [named, keys_at] = document.root().fields(["issuer", "jwks_uri"]).map_err(|_| odd())?;
    let text = |value: Option<Value<'_>>| value.and_then(|value| value.text().ok().map(std::borrow::Cow::into_owned));
    let (named, keys_at) = (text(named).ok_or_else(odd)?, text(keys_at).ok_or_else(odd)?);
    if named != issuer {
        return Err(unusable(&format!(
            "the issuer calls itself by another name than verify.issuer: {}",
            shown(&named)
        )));
    }
    let has_host = keys_at.starts_with("https://") && !host_of(&keys_at).is_empty();
    let is_plain =
        keys_at.len() <= URL_BYTES_MAX && keys_at.bytes().all(|byte| byte.is_ascii_graphic()) && !keys_at.contains('@');
    if has_host && is_plain { Ok(keys_at) } else { Err(unusable("the issuer's jwks_uri is no https URL")) }
}

/// The RSA keys for signatures, with their ids. Others are passed over: a set may hold what we know nothing of.
fn keys_of(set: &[u8]) -> Result<Vec<(String, PublicKey)>, FetchError> {
    let odd = || unusable("the issuer's key set cannot be read");
    let document = Document::read(set).map_err(|_| odd())?;
    let [keys] = document.root().fields(["keys"]).map_err(|_| odd())?;
    let keys = keys.and_then(|keys| keys.list().ok()).ok_or_else(odd)?;
    Ok(keys.take(KEYS_MAX).filter_map(key_of).collect())
}

fn key_of(key: Value<'_>) -> Option<(String, PublicKey)> {
    let [kind, id, n, e, purpose, algorithm] = key.fields(["kty", "kid", "n", "e", "use", "alg"]).ok()?;
    let is = |value: Option<Value<'_>>, wanted: &str| {
        value.is_none_or(|value| value.text().is_ok_and(|text| text == wanted))
    };
    let is_rsa = kind.is_some() && is(kind, "RSA") && is(purpose, "sig") && is(algorithm, "RS256");
    let key = is_rsa.then(|| PublicKey::of_jwk(&n?.text().ok()?, &e?.text().ok()?)).flatten()?;
    Some((id?.text().ok()?.into_owned(), key))
}

/// An issuer's name for words: without what a terminal could take for more than letters.
fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(200).collect()
}

fn unusable(words: &str) -> FetchError {
    FetchError::Unusable(words.to_owned())
}

/// Entra's documents have 2 to 20 KiB.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// More keys of one set are not looked at.
const KEYS_MAX: usize = 64;
const URL_BYTES_MAX: usize = 2048;

/// How long a set is used before it is fetched again: Entra asks for once a day.
const KEPT_FOR: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_discovery_document_names_the_issuer_and_an_https_place() {
        let issuer = "https://issuer.example/t/v2.0";
        let document = |named: &str, place: &str| format!(r#"{{"issuer":"{named}","jwks_uri":"{place}","x":1}}"#);
        let good = document(issuer, "https://keys.example/k");
        assert_eq!(keys_place(good.as_bytes(), issuer).expect("good"), "https://keys.example/k");
        for bad in [
            document("https://issuer.example/t/v2.0/", "https://keys.example/k"),
            document(issuer, "http://keys.example/k"),
            document(issuer, "https://"),
            document(issuer, "https:///k"),
            document(issuer, "https://a@keys.example/k"),
            document(issuer, "file:///etc/passwd"),
            "{}".to_owned(),
            "[]".to_owned(),
            format!(r#"{{"issuer":"{issuer}","issuer":"x","jwks_uri":"https://keys.example/k"}}"#),
        ] {
            assert!(keys_place(bad.as_bytes(), issuer).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_set_may_hold_keys_that_are_of_no_use() {
        let n = "w".to_owned() + &"A".repeat(341);
        let set = format!(
            r#"{{"keys":[
                {{"kty":"RSA","kid":"good","use":"sig","alg":"RS256","n":"{n}","e":"AQAB","x5c":["a"]}},
                {{"kty":"RSA","kid":"plain","n":"{n}","e":"AQAB"}},
                {{"kty":"RSA","kid":"enc","use":"enc","n":"{n}","e":"AQAB"}},
                {{"kty":"RSA","kid":"other","alg":"PS256","n":"{n}","e":"AQAB"}},
                {{"kty":"RSA","kid":"weak","n":"AQAB","e":"AQAB"}},
                {{"kty":"RSA","n":"{n}","e":"AQAB"}},
                {{"kty":"EC","kid":"ec","crv":"P-256","x":"a","y":"b"}},
                {{"kty":"oct","kid":"shared","k":"c2VjcmV0"}},
                7]}}"#
        );
        let ids: Vec<String> = keys_of(set.as_bytes()).expect("a set").into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["good", "plain"]);
        assert!(keys_of(b"{\"keys\":{}}").is_err());
    }

    proptest! {
        #[test]
        fn odd_documents_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(\\{|\\}|\\[|\\]|:|,|\"keys\"|\"kid\"|\"n\"|\"kty\"|\"RSA\"|1){0,30}") {
            for document in [bytes.as_slice(), text.as_bytes()] {
                let _answer = keys_of(document);
                let _answer = keys_place(document, "a");
            }
        }
    }
}
