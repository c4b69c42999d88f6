//! The token of SASL OAUTHBEARER: until when it is good, and whom it names.
//!
//! Invariants: nothing here decides whether a token is genuine: the broker does.
//!
//! Not here: where it is kept and read again (`secret`); fetching one from an issuer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

/// What the library wants to know of a token. A JWT says when it ends; another one is asked for again after [`OPAQUE_MS`].
pub(super) fn read(token: &[u8], now: Timestamp) -> Result<OAuthToken, &'static str> {
    let text = std::str::from_utf8(token).map_err(|_| "is no token: it is no text")?.trim();
    // RFC 6750: what a bearer token is made of; anything else would end the message that carries it.
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("is no token: it holds what no bearer token does");
    }
    let now = now.as_millisecond();
    let claims = claims(text);
    let lifetime_ms = claims.as_ref().and_then(|claims| claims.exp).map_or(now + OPAQUE_MS, |seconds| {
        // Of seconds with a fraction, and beyond all clocks, the part that counts.
        #[expect(clippy::cast_possible_truncation, reason = "a float becomes the nearest number that there is")]
        let ms = (seconds * 1000.0) as i64;
        ms
    });
    if lifetime_ms <= now {
        return Err("has run out: let whatever writes it write a new one");
    }
    // Only for the library's own log.
    let principal_name = claims.and_then(|claims| claims.sub).filter(|name| !name.contains('\0'));
    let principal_name = principal_name.unwrap_or_else(|| "verdict-relay".to_owned());
    Ok(OAuthToken { token: text.to_owned(), principal_name, lifetime_ms })
}

/// The claims of a JWT (RFC 7519), not verified.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[derive(Debug, Deserialize)]
struct Claims {
    exp: Option<f64>,
    sub: Option<String>,
}

/// Often enough that a short-lived token is not used for long after its end.
const OPAQUE_MS: i64 = 5 * 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.sig", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_jwt_is_good_until_it_says_and_another_token_for_a_while() {
        let now = Timestamp::from_second(1_000).expect("in range");
        for (token, expected) in [
            (jwt(r#"{"exp":1060,"sub":"relay"}"#), Ok((1_060_000, "relay"))),
            (jwt(r#"{"exp":1060.5}"#), Ok((1_060_500, "verdict-relay"))),
            (jwt(r#"{"sub":"relay"}"#), Ok((1_300_000, "relay"))),
            (jwt(r#"{"exp":1e300}"#), Ok((i64::MAX, "verdict-relay"))),
            ("opaque-token-0123456789\n".to_owned(), Ok((1_300_000, "verdict-relay"))),
            (jwt(r#"{"exp":999}"#), Err("has run out")),
            ("two words".to_owned(), Err("is no token")),
            ("x\u{1}auth=y".to_owned(), Err("is no token")),
            (String::new(), Err("is no token")),
        ] {
            match (read(token.as_bytes(), now), expected) {
                (Ok(read), Ok((until, name))) => {
                    assert_eq!(
                        (read.lifetime_ms, read.principal_name.as_str(), read.token.as_str()),
                        (until, name, token.trim())
                    );
                }
                (Err(words), Err(expected)) => assert!(words.starts_with(expected), "{words}"),
                (read, _) => panic!("{token}: {:?}", read.map(|read| read.lifetime_ms)),
            }
        }
    }
}
