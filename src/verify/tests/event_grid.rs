//! Event Grid: secrets in the URL, tokens of an issuer, and the two handshakes.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::*;

const SECRET: &str = "test-secret-not-a-real-secret";
const ISSUER: &str = "https://login.microsoftonline.com/00000000-0000-4000-8000-000000000001/v2.0";
const AUDIENCE: &str = "00000000-0000-4000-8000-000000000002";

fn event_grid(rest: &str) -> Scheme {
    plan(&format!("scheme = \"event-grid\"\n{rest}")).expect(rest)
}

fn by_query() -> Scheme {
    event_grid("secret_query = \"code\"\nsecrets = [\"env:A\"]")
}

fn with_target(scheme: &Scheme, keys: &[Key], headers: &List, target: &str, body: &[u8]) -> Result<Proven, Refusal> {
    let request = Request { target, ..request(headers) };
    verify(scheme, keys, &request, Bytes::copy_from_slice(body), Timestamp::from_second(NOW).expect("in range"))
}

#[test]
fn a_secret_in_the_url_is_compared_whole_and_kept_nowhere() {
    let (none, keys) = (List::of(&[]), keys(&["another-secret-of-some-length", SECRET]));
    let ask = |target: &str| with_target(&by_query(), &keys, &none, target, b"[]");
    let (body, _, evidence) = ask(&format!("/v1/hooks/a?code={SECRET}")).expect("the secret").into_parts();
    assert_eq!(evidence.how, How::Token { key_id: "env:KEY_1".to_owned() });
    let shown = format!("{evidence:?}{:?}", ask(&format!("/v1/hooks/a?code={SECRET}")));
    assert!(!shown.contains(SECRET) && !shown.contains("code="), "{shown}");
    assert_eq!(&body[..], b"[]");
    for good in ["?a=b&code=@&c", "?code=%74est-secret-not-a-real-secret", "?%63ode=@", "?&&code=@&"] {
        assert!(ask(&format!("/v1/hooks/a{}", good.replace('@', SECRET))).is_ok(), "{good}");
    }
    for (bad, refused) in [
        ("", Refusal::Missing),
        ("?", Refusal::Missing),
        ("?kode=@", Refusal::Missing),
        ("?Code=@", Refusal::Missing),
        ("?a=code=@", Refusal::Missing),
        ("?code", Refusal::Mismatch),
        ("?code=", Refusal::Mismatch),
        ("?code=@x", Refusal::Mismatch),
        ("?code=%", Refusal::Mismatch),
        ("?code=@%2", Refusal::Mismatch),
        ("?code=+@", Refusal::Mismatch),
        ("?code=@&code=@", Refusal::DuplicateHeader),
        ("?code=x&code=@", Refusal::Mismatch),
    ] {
        assert_eq!(refusal(ask(&format!("/v1/hooks/a{}", bad.replace('@', SECRET)))), refused, "{bad}");
    }
    let mut long = String::from("/v1/hooks/a?code=x");
    (0..40).for_each(|number| write!(long, "&a{number}=b").expect("memory"));
    assert!(ask(&long).is_err());
    assert_eq!(refusal(with_target(&by_query(), &[], &none, "/v1/hooks/a?code=x", b"[]")), Refusal::SecretUnavailable);
    // A secret of any signs, as a sender would enter it.
    let odd = super::keys(&["sö/me+secret=with&odd?signs and spaces"]);
    let query = sign_query(&by_query(), &odd).expect("text").expect("a query");
    assert!(
        query.is_ascii() && with_target(&by_query(), &odd, &none, &format!("/v1/hooks/a?{query}"), b"").is_ok(),
        "{query}"
    );
}

#[test]
fn a_reference_in_place_of_the_parameters_name_is_the_secret_itself() {
    let config: VerifyConfig = toml::from_str("scheme = \"event-grid\"\nsecret_query = \"env:GRID\"").expect("TOML");
    assert_eq!(config.references(), [SecretRef("env:GRID".to_owned())]);
    let (scheme, keys, none) = (config.plan("a", false).expect("plan"), keys(&[SECRET]), List::of(&[]));
    for (target, passes) in [("?x=1&any=@", true), ("?@", false), ("?any=@x", false), ("", false)] {
        let target = format!("/v1/hooks/a{}", target.replace('@', SECRET));
        assert_eq!(with_target(&scheme, &keys, &none, &target, b"[]").is_ok(), passes, "{target}");
    }
}

#[test]
fn a_subscription_is_validated_by_header_and_body_and_nothing_else_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/payloads/azure_defender_storage/event_grid_subscription_validation.json");
    let stored = std::fs::read_to_string(file).expect("the payload");
    let keys = keys(&[SECRET]);
    let asked = |kind: Option<&str>, body: &str, target: &str| {
        let headers = kind.map_or_else(|| List::of(&[]), |kind| List::of(&[("aeg-event-type", kind)]));
        with_target(&by_query(), &keys, &headers, target, body.as_bytes()).map(|proven| proven.handshake().cloned())
    };
    let target = format!("/v1/hooks/a?code={SECRET}");
    let yes = Some(Handshake::Answer(r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#.to_owned()));
    let kind = Some("SubscriptionValidation");
    assert_eq!(asked(kind, &stored, &target), Ok(yes));
    assert_eq!(asked(kind, &stored, "/v1/hooks/a?code=guess"), Err(Refusal::Mismatch));
    let doubled = stored.trim().trim_start_matches('[').trim_end_matches(']').to_owned();
    for (kind, body) in [
        (None, stored.clone()),
        (Some("Notification"), stored.clone()),
        (kind, stored.replace("Microsoft.EventGrid.SubscriptionValidationEvent", "Microsoft.Storage.BlobCreated")),
        (kind, format!("[{doubled},{doubled}]")),
        (kind, "[]".to_owned()),
        (kind, doubled.clone()),
        (kind, stored.replace("512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "<script>")),
        (kind, stored.replace("512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "")),
        (kind, stored.replace("\"validationCode\"", "\"validationCode\": \"a\", \"validationCode\"")),
        (kind, format!("{stored}{}", " ".repeat(20_000))),
    ] {
        // Proven, and no handshake: it is kept.
        assert_eq!(asked(kind, &body, &target), Ok(None), "{body:.200}");
    }
    // Other sources do not answer it, unless they say so.
    let token = "scheme = \"token\"\nheader = \"X-Key\"\nsecrets = [\"env:A\"]";
    for (config, answers) in [(token.to_owned(), false), (format!("{token}\nhandshake = \"event-grid\""), true)] {
        let headers = List::of(&[("x-key", SECRET), ("aeg-event-type", "SubscriptionValidation")]);
        let proven =
            with_target(&plan(&config).expect("plan"), &keys, &headers, "/", stored.as_bytes()).expect("the token");
        assert_eq!(proven.handshake().is_some(), answers, "{config}");
    }
}

#[test]
fn the_preflight_of_cloudevents_is_granted_to_named_origins_with_the_secret() {
    let keys = keys(&[SECRET]);
    let asked = |scheme: &Scheme, target: &str, headers: &[(&str, &str)]| {
        let headers = List::of(headers);
        let request = Request { method: "OPTIONS", target, ..request(&headers) };
        preflight(scheme, &keys, &request, Timestamp::from_second(NOW).expect("in range"))
    };
    let target = format!("/v1/hooks/a?code={SECRET}");
    let origin = |name| [("webhook-request-origin", name)];
    let grid = "eventgrid.azure.net";
    assert_eq!(asked(&by_query(), &target, &origin(grid)), Ok(Some(grid.to_owned())));
    assert_eq!(asked(&by_query(), &target, &origin("EventGrid.Azure.net")), Ok(Some(grid.to_owned())));
    for other in ["", "*", "evil.example", "eventgrid.azure.net.evil.example", "eventgrid.azure.net\t"] {
        assert_eq!(asked(&by_query(), &target, &origin(other)), Ok(None), "{other}");
    }
    assert_eq!(asked(&by_query(), &target, &[]), Ok(None));
    assert_eq!(asked(&by_query(), &target, &[origin(grid), origin(grid)].concat()), Ok(None));
    assert_eq!(asked(&by_query(), "/v1/hooks/a", &origin(grid)), Err(Refusal::Missing));
    assert_eq!(asked(&by_query(), "/v1/hooks/a?code=x", &origin(grid)), Err(Refusal::Mismatch));
    let own = event_grid("secret_query = \"code\"\nsecrets = [\"env:A\"]\norigins = [\"Emitter.example\"]");
    assert_eq!(asked(&own, &target, &origin("emitter.example")), Ok(Some("emitter.example".to_owned())));
    assert_eq!(asked(&own, &target, &origin(grid)), Ok(None));
    let github = plan("scheme = \"hmac\"\npreset = \"github\"\nsecrets = [\"env:A\"]").expect("plan");
    assert_eq!(asked(&github, &target, &origin(grid)), Ok(None));
    // With an issuer a token need not be there, and one that is there has to be good.
    let issuer = by_issuer("");
    assert_eq!(asked(&issuer, "/v1/hooks/a", &origin(grid)), Ok(Some(grid.to_owned())));
    let with_token = [origin(grid)[0], ("authorization", "Bearer a.b.c")];
    assert_eq!(asked(&issuer, "/v1/hooks/a", &with_token), Err(Refusal::Malformed));
}

fn by_issuer(more: &str) -> Scheme {
    event_grid(&format!("issuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\n{more}"))
}

fn pair() -> &'static RsaKeyPair {
    static PAIR: OnceLock<RsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a pair"))
}

/// The issuer's keys: ours, as "one".
struct Issued;

impl PublicKeys for Issued {
    fn find(&self, name: &KeyName) -> Option<PublicKey> {
        let KeyName::Issued { id } = name else { return None };
        let der = pair().public_key().as_der().expect("DER");
        let (_, info) = SubjectPublicKeyInfo::from_der(der.as_ref()).expect("SPKI");
        let Ok(Parsed::RSA(numbers)) = info.parsed() else { panic!("an RSA key") };
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = PublicKey::of_jwk(&part(numbers.modulus), &part(numbers.exponent));
        key.filter(|_| id == "one")
    }
}

fn token(header: &Json, claims: &Json) -> String {
    token_of(&header.to_string(), &claims.to_string())
}

fn token_of(header: &str, claims: &str) -> String {
    let part = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
    let mut signature = vec![0; pair().public_modulus_len()];
    pair().sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signs");
    format!("{signed}.{}", part(&signature))
}

fn header() -> Json {
    json!({"typ": "JWT", "alg": "RS256", "kid": "one"})
}

fn claims() -> Json {
    json!({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 3600, "nbf": NOW - 60, "iat": NOW - 60, "azp": "app-1", "ver": "2.0"})
}

fn show(scheme: &Scheme, token: &str) -> Result<How, Refusal> {
    let headers = List::of(&[("authorization", &format!("Bearer {token}"))]);
    let request = Request { public_keys: &Issued, ..request(&headers) };
    let now = Timestamp::from_second(NOW).expect("in range");
    verify(scheme, &[], &request, Bytes::from_static(b"[]"), now).map(|proven| proven.into_parts().2.how)
}

#[test]
fn a_token_of_the_pinned_issuer_for_us_passes_and_no_bit_of_it_can_change() {
    let scheme = by_issuer("");
    let good = token(&header(), &claims());
    assert_eq!(show(&scheme, &good), Ok(How::Token { key_id: "one".to_owned() }));
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        assert!(show(&scheme, std::str::from_utf8(&bad).expect("ASCII")).is_err(), "byte {at}");
        assert!(show(&scheme, &good[..at]).is_err(), "cut at {at}");
    }
    assert!(show(&scheme, &format!("{good}=")).is_err());
    assert!(show(&scheme, &format!("{good}.")).is_err());
    assert!(show(&scheme, &"a".repeat(20_000)).is_err());
}

#[test]
fn claims_that_are_not_ours_are_refused() {
    let with = |field: &str, value: Json| {
        let mut claims = claims();
        claims[field] = value;
        show(&by_issuer(""), &token(&header(), &claims)).map(|_| ())
    };
    for (field, value, answer) in [
        ("iss", json!("https://login.microsoftonline.com/other/v2.0"), Err(Refusal::Pin)),
        ("iss", json!(format!("{ISSUER}/")), Err(Refusal::Pin)),
        ("iss", Json::Null, Err(Refusal::Pin)),
        ("aud", json!("other"), Err(Refusal::Pin)),
        ("aud", json!(["other", AUDIENCE]), Ok(())),
        ("aud", json!(["other"]), Err(Refusal::Pin)),
        ("aud", json!({"a": AUDIENCE}), Err(Refusal::Pin)),
        ("aud", Json::Null, Err(Refusal::Pin)),
        ("exp", json!(NOW - 299), Ok(())),
        ("exp", json!(NOW - 300), Err(Refusal::Timestamp)),
        ("exp", Json::Null, Err(Refusal::Malformed)),
        ("exp", json!("never"), Err(Refusal::Malformed)),
        ("exp", json!(1e300), Err(Refusal::Malformed)),
        ("nbf", json!(NOW + 300), Ok(())),
        ("nbf", json!(NOW + 301), Err(Refusal::Timestamp)),
        ("nbf", Json::Null, Ok(())),
        ("azp", Json::Null, Ok(())),
    ] {
        assert_eq!(with(field, value.clone()), answer, "{field} = {value}");
    }
    let pinned = by_issuer("applications = [\"app-1\", \"app-2\"]");
    for (field, value, passes) in
        [("azp", json!("app-1"), true), ("azp", json!("app-3"), false), ("azp", json!(["app-1"]), false)]
    {
        let mut claims = claims();
        claims[field] = value.clone();
        assert_eq!(show(&pinned, &token(&header(), &claims)).is_ok(), passes, "{value}");
    }
    let mut first_version = claims();
    first_version.as_object_mut().expect("an object").remove("azp");
    assert_eq!(show(&pinned, &token(&header(), &first_version)), Err(Refusal::Pin));
    first_version["appid"] = json!("app-2");
    assert!(show(&pinned, &token(&header(), &first_version)).is_ok());
    // A claim that stands twice is read by one as this and by another as that.
    let twice = claims().to_string().replacen('{', &format!("{{\"aud\":\"{AUDIENCE}\","), 1);
    assert_eq!(show(&by_issuer(""), &token_of(&header().to_string(), &twice)), Err(Refusal::Malformed));
}

#[test]
fn a_token_chooses_neither_algorithm_nor_key() {
    let scheme = by_issuer("");
    let with = |header: Json| show(&scheme, &token(&header, &claims())).map(|_| ());
    for algorithm in ["none", "None", "HS256", "RS384", "RS512", "PS256", "ES256", "rs256", ""] {
        assert_eq!(with(json!({"alg": algorithm, "kid": "one"})), Err(Refusal::Malformed), "{algorithm}");
    }
    assert_eq!(with(json!({"kid": "one"})), Err(Refusal::Malformed));
    assert_eq!(with(json!({"alg": "RS256"})), Err(Refusal::Malformed));
    assert_eq!(with(json!({"alg": "RS256", "kid": "one", "crit": ["b64"]})), Err(Refusal::Malformed));
    assert_eq!(with(json!({"alg": "RS256", "kid": "a".repeat(200)})), Err(Refusal::Malformed));
    assert_eq!(with(json!({"alg": "RS256", "kid": "two"})), Err(Refusal::KeyNotLoaded));
    // Keys that a token brings along are nobody's.
    let own = json!({"alg": "RS256", "kid": "two", "jku": "https://evil.example/k", "jwk": {"kty": "RSA"}, "x5u": "https://evil.example"});
    assert_eq!(with(own.clone()), Err(Refusal::KeyNotLoaded));
    let bearer = format!("Bearer {}", token(&own, &claims()));
    let headers = List::of(&[("authorization", &bearer)]);
    assert_eq!(wanted(&scheme, &request(&headers), b""), Some(KeyName::Issued { id: "two".to_owned() }));
    // Somebody else's token makes us ask nobody.
    let mut other = claims();
    other["iss"] = json!("https://evil.example");
    assert_eq!(show(&scheme, &token(&own, &other)), Err(Refusal::Pin));
    // A shared secret is no key of this scheme, whatever is signed with it.
    assert!(!scheme.needs_keys() && scheme.auth() == Auth::Token);
    let none = List::of(&[]);
    assert_eq!(refusal(check(&scheme, &[], &none, b"[]", NOW)), Refusal::Missing);
}

proptest! {
    #[test]
    fn odd_tokens_and_queries_never_pass_and_never_panic(
        text in "([A-Za-z0-9_-]{0,12}|\\.|=|\\{\\}|é){0,8}",
        query in "(code|=|&|%|%[0-9a-f]{2}|\\+|é|\\?|x){0,20}",
        header in "(\\{|\\}|\"alg\":|\"RS256\"|\"kid\":|\"one\"|,|\"){0,10}",
    ) {
        let scheme = by_issuer("");
        prop_assert!(show(&scheme, &text).is_err());
        prop_assert!(show(&scheme, &token_of(&header, &text)).is_err());
        let keys = keys(&[SECRET]);
        let target = format!("/v1/hooks/a?{query}");
        prop_assert!(with_target(&by_query(), &keys, &List::of(&[]), &target, b"").is_err());
    }
}
