//! Every scheme against signatures that were made apart from this program, and against what a forger would try.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::secret::{Secret, SecretRef};
use crate::setting::Span;

#[cfg(test)]
mod event_grid;
#[cfg(test)]
mod public_keys;
#[cfg(test)]
mod sns;

/// Headers as a list, so that a test can send one twice.
struct List(Vec<(String, Vec<u8>)>);

impl Headers for List {
    fn find(&self, name: &str) -> Found<'_> {
        let mut found = self.0.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Found::Nothing,
            (Some((_, value)), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

impl List {
    fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }
}

fn keys(values: &[&str]) -> Vec<Key> {
    let key = |(index, value): (usize, &&str)| Key {
        id: SecretRef(format!("env:KEY_{index}")),
        secret: Secret::new(value.as_bytes().to_vec()),
    };
    values.iter().enumerate().map(key).collect()
}

fn plan(toml: &str) -> Result<Scheme, String> {
    let config: VerifyConfig = toml::from_str(toml).map_err(|error| error.to_string())?;
    config.plan("sources.a.verify", false).map_err(|problem| problem.to_string())
}

fn request(headers: &List) -> Request<'_> {
    Request {
        headers,
        method: "POST",
        public_url: "https://hooks.example.com",
        target: "/v1/hooks/a",
        peer: IpAddr::from([10, 1, 2, 3]),
        certificate_names: &[],
        headers_kept: &[],
        coding: None,
        decoded_bytes_max: 1 << 20,
        public_keys: &NoPublicKeys,
    }
}

fn check(scheme: &Scheme, keys: &[Key], headers: &List, body: &[u8], now_s: i64) -> Result<Proven, Refusal> {
    let now = Timestamp::from_second(now_s).expect("in range");
    verify(scheme, keys, &request(headers), Bytes::copy_from_slice(body), now)
}

fn refusal(result: Result<Proven, Refusal>) -> Refusal {
    result.map(|_| ()).expect_err("refused")
}

const BODY: &[u8] = br#"{"type":"analysis.complete"}"#;
const NOW: i64 = 1_700_000_000;
const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

const STANDARD_WEBHOOKS: &str = "scheme = \"hmac\"\npreset = \"standard-webhooks\"\nsecrets = [\"env:A\"]";
const STANDARD_KEY: &str = "whsec_glTDKakoUPbVOd03b0gW7idkUX2l4CNV";

#[test]
fn every_stored_vector_gives_the_stated_answer() {
    let payloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let vectors = std::fs::read(payloads.join("signature_vectors.json")).expect("vectors");
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&vectors).expect("JSON");
    assert_eq!(vectors.len(), 17);
    for vector in vectors {
        let text = |field: &str| vector[field].as_str();
        let name = text("name").expect("name");
        let mut body = match (text("body_file"), text("body_inline")) {
            (Some(file), _) => std::fs::read(payloads.join(file)).expect(file),
            (None, inline) => inline.expect("a body").as_bytes().to_vec(),
        };
        let secrets = "secrets = [\"env:A\"]";
        let (scheme, key) = match text("scheme").expect("scheme") {
            "timestamped-v1" => (format!("scheme = \"hmac\"\npreset = \"vileanalyziz\"\n{secrets}"), text("secret")),
            "prefix-hex" => {
                let header = "header = \"X-Webhook-Signature\"\nprefix = \"sha256=\"";
                (format!("scheme = \"hmac\"\n{header}\n{secrets}"), text("secret"))
            }
            "standard-webhooks" => {
                (format!("scheme = \"hmac\"\npreset = \"standard-webhooks\"\n{secrets}"), text("secret"))
            }
            "plain-hex" => (format!("scheme = \"hmac\"\npreset = \"polyswarm\"\n{secrets}"), text("secret")),
            "static-basic" => (format!("scheme = \"token\"\nbasic = \"xyz\"\n{secrets}"), text("secret")),
            "static-bearer" => (format!("scheme = \"token\"\nbearer = true\n{secrets}"), text("secret")),
            "rsa-sha256-pkcs1v15" => {
                let tenant = text("tenant_id").expect("tenant");
                let scheme = format!("scheme = \"rsa\"\npublic_key = \"env:A\"\ntenant = \"{tenant}\"");
                (scheme, text("public_key_pem"))
            }
            "aws-sns-v2" => {
                let signature = text("replace_signature_with").expect("signature");
                body =
                    String::from_utf8(body).expect("text").replace("\"EXAMPLE\"", &format!("\"{signature}\"")).into();
                let message: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                let topic = message["TopicArn"].as_str().expect("topic");
                let file = payloads.join(text("certificate_pem_file").expect("certificate"));
                let certificates = format!(
                    "certificates = [\"{}\"]",
                    std::fs::read_to_string(file).expect("PEM").replace('\n', "\\n")
                );
                (format!("scheme = \"sns\"\ntopics = [\"{topic}\"]\n{certificates}"), None)
            }
            other => panic!("unknown scheme {other}"),
        };
        let scheme = plan(&scheme).expect(name);
        let headers = vector["headers"].as_object().expect("headers").iter();
        let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
        let headers = List::of(&headers);
        let keys = key.map_or_else(Vec::new, |key| keys(&[key]));
        let now = Timestamp::from_second(vector["verify_at_unix"].as_i64().expect("time")).expect("in range");
        let (public_url, target) = text("callback_url").map_or(("", "/v1/hooks/a"), |url| url.split_at(url.len() - 13));
        let request = Request { public_url, target, ..request(&headers) };
        let result = verify(&scheme, &keys, &request, body.into(), now);
        assert_eq!(result.is_ok(), vector["expect"] == "valid", "{name}: {:?}", result.err());
    }
}

/// Preset, secret, headers, body, time.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, i64);

#[test]
fn the_senders_published_examples_pass() {
    let slack = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let slack_tag = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let svix = r#"{"email":"test@example.com","username":"test_user"}"#;
    let svix_tag = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    let svix_id = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    let own = std::str::from_utf8(BODY).expect("text");
    let own_hex = "45393868b3a0239e5805cef3c844164fab3fd63f71a121948a5d869f95200990";
    let stripe_tag = format!("t=1700000000,v0=00,v1={own_hex}");
    let cases: &[Case<'_>] = &[
        (
            "standard-webhooks",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            &[("webhook-id", svix_id), ("webhook-timestamp", "1649367553"), ("webhook-signature", svix_tag)],
            svix,
            1_649_367_553,
        ),
        (
            "svix",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            &[("svix-id", svix_id), ("svix-timestamp", "1649367553"), ("svix-signature", svix_tag)],
            svix,
            1_649_367_853,
        ),
        (
            "github",
            "It's a Secret to Everybody",
            &[("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")],
            "Hello, World!",
            0,
        ),
        (
            "github",
            "mysecret",
            &[("X-Hub-Signature-256", "sha256=4864d2759938a15468b5df9ade20bf161da9b4f737ea61794142f3484236bda3")],
            r#"{"foo":"bar"}"#,
            0,
        ),
        (
            "slack",
            "8f742231b10e8888abcd99yyyzzz85a5",
            &[("X-Slack-Signature", slack_tag), ("X-Slack-Request-Timestamp", "1531420618")],
            slack,
            1_531_420_618,
        ),
        ("stripe", KEY, &[("Stripe-Signature", &stripe_tag)], own, NOW),
        ("shopify", KEY, &[("shopify-hmac-sha256", "I3z8fGeNV2xMhnKHSjFdDskSLxOp3MgQan9qaQQzz3A=")], own, NOW),
        (
            "github",
            KEY,
            &[("X-Hub-Signature-256", "sha256=237cfc7c678d576c4c8672874a315d0ec9122f13a9dcc8106a7f6a690433cf70")],
            own,
            NOW,
        ),
        (
            "slack",
            KEY,
            &[
                ("X-Slack-Signature", "v0=57c98b14d23344e55607616f399b4d4a08785267afee347471d9ecdf60df70d0"),
                ("X-Slack-Request-Timestamp", "1700000000"),
            ],
            own,
            NOW,
        ),
    ];
    for (preset, key, headers, body, now) in cases {
        let scheme = plan(&format!("scheme = \"hmac\"\npreset = \"{preset}\"\nsecrets = [\"env:A\"]")).expect(preset);
        let result = check(&scheme, &keys(&[key]), &List::of(headers), body.as_bytes(), *now);
        assert!(result.is_ok(), "{preset}: {:?}", result.err());
    }
}

/// Every built-in way of signing, and two spelled out.
fn schemes() -> Vec<(String, Scheme)> {
    let presets = [
        "standard-webhooks",
        "svix",
        "github",
        "stripe",
        "slack",
        "zoom",
        "shopify",
        "hookdeck",
        "polyswarm",
        "vileanalyziz",
    ];
    let mut configs: Vec<String> = presets.map(|preset| format!("preset = \"{preset}\"")).into();
    configs.push(
        "header = \"X-S\"\nalgorithm = \"sha512\"\nencoding = \"base64url\"\nid_header = \"X-Id\"\n\
         timestamp_header = \"X-T\"\ntimestamp_unit = \"ms\"\nsigned = \"{method} {url}.{id}.{timestamp}.{body}\""
            .to_owned(),
    );
    configs.push("header = \"X-S\"\nalgorithm = \"sha1\"\nencoding = \"base64\"\nsigned = \"{url}{body}\"".to_owned());
    let build = |config: String| {
        let scheme = plan(&format!("scheme = \"hmac\"\nsecrets = [\"env:A\"]\n{config}")).expect(&config);
        (config, scheme)
    };
    configs.into_iter().map(build).collect()
}

fn signed(scheme: &Scheme, keys: &[Key], body: &[u8], id: &str) -> List {
    let url = "https://hooks.example.com/v1/hooks/a";
    let now = Timestamp::from_second(NOW).expect("in range");
    let headers = sign(scheme, keys, &Outgoing { method: "POST", url, id, body }, now).expect("signs");
    List(headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect())
}

#[test]
fn what_sign_makes_verify_takes_and_nothing_else_of_it() {
    let keys = keys(&[STANDARD_KEY]);
    for (config, scheme) in schemes() {
        let headers = signed(&scheme, &keys, BODY, "msg_1");
        assert!(check(&scheme, &keys, &headers, BODY, NOW).is_ok(), "{config}");
        for bit in 0..BODY.len() * 8 {
            let mut body = BODY.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(refusal(check(&scheme, &keys, &headers, &body, NOW)), Refusal::Mismatch, "{config}: bit {bit}");
        }
        for cut in 0..BODY.len() {
            assert!(check(&scheme, &keys, &headers, &BODY[..cut], NOW).is_err(), "{config}: cut at {cut}");
        }
        assert!(check(&scheme, &keys, &headers, &[BODY, b"\n"].concat(), NOW).is_err(), "{config}: grown");
    }
}

#[test]
fn no_bit_of_the_headers_can_change() {
    let keys = keys(&[STANDARD_KEY]);
    for (config, scheme) in schemes() {
        let good = signed(&scheme, &keys, BODY, "msg_1");
        let is_signed = |name: &str| !(name.contains("id") || name.contains("delivery")) || config.contains("{id}");
        let is_hex = !config.contains("base64") && !config.contains("webhooks") && !config.contains("svix");
        for (index, (name, value)) in good.0.iter().enumerate().filter(|(_, (name, _))| is_signed(name)) {
            for bit in 0..value.len() * 8 {
                let mut bad = List(good.0.clone());
                bad.0[index].1[bit / 8] ^= 1 << (bit % 8);
                let changed = &bad.0[index].1;
                // Hex is the one encoding in which two texts mean the same bytes.
                let same_hex = is_hex && changed.eq_ignore_ascii_case(value) && value[bit / 8].is_ascii_hexdigit();
                if !same_hex {
                    assert!(check(&scheme, &keys, &bad, BODY, NOW).is_err(), "{config}: bit {bit} of {name}");
                }
            }
            for cut in 0..value.len() {
                let mut bad = List(good.0.clone());
                bad.0[index].1.truncate(cut);
                assert!(check(&scheme, &keys, &bad, BODY, NOW).is_err(), "{config}: {name} cut at {cut}");
            }
        }
    }
}

#[test]
fn any_live_secret_passes_and_the_evidence_names_it() {
    let scheme = plan(STANDARD_WEBHOOKS).expect("plan");
    let old = keys(&[STANDARD_KEY]);
    let headers = signed(&scheme, &old, BODY, "msg_1");
    let both = keys(&["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", STANDARD_KEY]);
    let (.., evidence) = check(&scheme, &both, &headers, BODY, NOW).expect("the second key").into_parts();
    assert_eq!(evidence.how, How::Signature { key_id: "env:KEY_1".to_owned() });
    assert_eq!(evidence.sender_id.as_deref(), Some("msg_1"));
    assert_eq!(evidence.signed_at.map(Timestamp::as_second), Some(NOW));
    assert_eq!(evidence.peer.as_deref(), Some("10.1.2.3"));
    assert_eq!(refusal(check(&scheme, &both[..1], &headers, BODY, NOW)), Refusal::Mismatch);
}

#[test]
fn a_roll_may_carry_several_signatures_and_unknown_versions_are_skipped() {
    let scheme = plan(STANDARD_WEBHOOKS).expect("plan");
    let keys = keys(&[STANDARD_KEY]);
    let good = signed(&scheme, &keys, BODY, "msg_1");
    let with = |value: &str| {
        let mut headers = List(good.0.clone());
        headers.0[0].1 = value.as_bytes().to_vec();
        check(&scheme, &keys, &headers, BODY, NOW)
    };
    let tag = std::str::from_utf8(&good.0[0].1).expect("text").to_owned();
    let other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(with(&format!("v1a,hnO3f9T8 v9,x {other} {tag}")).is_ok());
    assert_eq!(refusal(with(other)), Refusal::Mismatch);
    for bad in ["", "v1,", "v1", "v1a,hnO3f9T8", &tag.replace("v1,", "v2,"), &tag[..tag.len() - 1], &format!("{tag}=")]
    {
        assert_eq!(refusal(with(bad)), Refusal::Malformed, "{bad}");
    }
    assert_eq!(refusal(with(&format!("{}{tag}", "v1,x ".repeat(16)))), Refusal::Malformed);
    assert!(with(&format!("{}{tag}", "v1,x ".repeat(15))).is_ok());
}

#[test]
fn the_tolerance_counts_both_ways_and_includes_its_end() {
    for (config, scheme) in schemes().into_iter().filter(|(config, _)| !config.contains("sha1")) {
        let keys = keys(&[STANDARD_KEY]);
        let headers = signed(&scheme, &keys, BODY, "msg_1");
        let timed = check(&scheme, &keys, &headers, BODY, NOW).expect("now").into_parts().2.signed_at.is_some();
        for (offset, passes) in [(-301, !timed), (-300, true), (300, true), (301, !timed)] {
            let result = check(&scheme, &keys, &headers, BODY, NOW + offset);
            assert_eq!(result.is_ok(), passes, "{config}: {offset}");
            assert!(passes || refusal(result) == Refusal::Timestamp);
        }
    }
}

#[test]
fn bytes_cannot_move_between_id_time_and_body() {
    let scheme = plan(STANDARD_WEBHOOKS).expect("plan");
    let keys = keys(&[STANDARD_KEY]);
    // Signed by the holder of the key for the id "a" and the body "1700000000.x".
    let headers = signed(&scheme, &keys, b"1700000000.x", "a");
    assert!(check(&scheme, &keys, &headers, b"1700000000.x", NOW).is_ok());
    let mut moved = List(headers.0.clone());
    moved.0.iter_mut().find(|(name, _)| name == "webhook-id").expect("id").1 = b"a.1700000000".to_vec();
    assert_eq!(refusal(check(&scheme, &keys, &moved, b"x", NOW)), Refusal::Malformed);
    for timestamp in
        ["", "+1700000000", "-1", " 1700000000", "1700000000.0", "1e9", "１７００００００００", "99999999999999999999"]
    {
        let mut odd = List(headers.0.clone());
        odd.0.iter_mut().find(|(name, _)| name == "webhook-timestamp").expect("time").1 = timestamp.into();
        assert_eq!(refusal(check(&scheme, &keys, &odd, b"1700000000.x", NOW)), Refusal::Malformed, "{timestamp}");
    }
}

#[test]
fn a_query_cannot_take_bytes_of_the_body_where_the_url_is_signed() {
    let keys = keys(&[KEY]);
    let scheme =
        plan("scheme = \"hmac\"\nheader = \"X-S\"\nsigned = \"{url}.{body}\"\nsecrets = [\"env:A\"]").expect("plan");
    let sign_with = |url: &str| {
        let message = Outgoing { method: "POST", url, id: "", body: b"a.b" };
        let headers = sign(&scheme, &keys, &message, Timestamp::UNIX_EPOCH).expect("signs");
        List(headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect())
    };
    let headers = sign_with("https://hooks.example.com/v1/hooks/a?k=1");
    let check = |target, body: &'static [u8]| {
        let request = Request { target, ..request(&headers) };
        verify(&scheme, &keys, &request, Bytes::from_static(body), Timestamp::UNIX_EPOCH).map(|_| ())
    };
    assert_eq!(check("/v1/hooks/a?k=1", b"a.b"), Ok(()));
    assert_eq!(check("/v1/hooks/a?k=1.a", b"b"), Err(Refusal::Malformed));
    assert_eq!(check("/v1/hooks/a", b"a.b"), Err(Refusal::Mismatch));
}

#[test]
fn a_header_of_the_proof_stands_exactly_once() {
    let keys = keys(&[STANDARD_KEY]);
    for (config, scheme) in schemes() {
        let good = signed(&scheme, &keys, BODY, "msg_1");
        for (index, (name, _)) in good.0.iter().enumerate() {
            let is_signed = !(name.contains("id") || name.contains("delivery")) || config.contains("{id}");
            if !is_signed && !config.contains("webhooks") && !config.contains("svix") {
                continue;
            }
            let mut twice = List(good.0.clone());
            twice.0.push(good.0[index].clone());
            assert_eq!(refusal(check(&scheme, &keys, &twice, BODY, NOW)), Refusal::DuplicateHeader, "{config}: {name}");
            let mut none = List(good.0.clone());
            none.0.remove(index);
            assert_eq!(refusal(check(&scheme, &keys, &none, BODY, NOW)), Refusal::Missing, "{config}: {name}");
        }
        let mut odd = List(good.0.clone());
        odd.0[0].1 = b"\xff\xfe".to_vec();
        assert_eq!(refusal(check(&scheme, &keys, &odd, BODY, NOW)), Refusal::Malformed, "{config}");
    }
}

#[test]
fn svix_falls_back_to_the_standard_names_only_where_its_own_are_absent() {
    let svix = plan("scheme = \"hmac\"\npreset = \"svix\"\nsecrets = [\"env:A\"]").expect("plan");
    let standard = plan(STANDARD_WEBHOOKS).expect("plan");
    let keys = keys(&[STANDARD_KEY]);
    let mut headers = signed(&standard, &keys, BODY, "msg_1");
    assert!(check(&svix, &keys, &headers, BODY, NOW).is_ok());
    headers.0.push(("svix-signature".to_owned(), b"v1,AAAA".to_vec()));
    assert_eq!(refusal(check(&svix, &keys, &headers, BODY, NOW)), Refusal::Malformed);
}

#[test]
fn without_a_usable_key_the_trouble_is_ours() {
    let keys_none = keys(&[]);
    for (config, scheme) in schemes() {
        let headers = List::of(&[]);
        assert_eq!(refusal(check(&scheme, &keys_none, &headers, BODY, NOW)), Refusal::SecretUnavailable, "{config}");
    }
    let scheme = plan(STANDARD_WEBHOOKS).expect("plan");
    let headers = signed(&scheme, &keys(&[STANDARD_KEY]), BODY, "msg_1");
    for broken in ["whsec_not base64!", "whsec_", ""] {
        let keys = keys(&[broken]);
        assert!(scheme.key_problem(&keys[0]).is_some(), "{broken}");
        assert_eq!(refusal(check(&scheme, &keys, &headers, BODY, NOW)), Refusal::SecretUnavailable, "{broken}");
    }
}

#[test]
fn an_exact_repeat_is_known_by_its_proof_and_a_resend_is_not_one() {
    let scheme = plan(STANDARD_WEBHOOKS).expect("plan");
    let keys_both = keys(&[STANDARD_KEY]);
    let repeat = |headers: &List, body: &[u8]| check(&scheme, &keys_both, headers, body, NOW).expect("passes").repeat();
    let first = signed(&scheme, &keys_both, BODY, "msg_1");
    assert!(repeat(&first, BODY).is_some());
    assert_eq!(repeat(&first, BODY), repeat(&first, BODY));
    assert_ne!(repeat(&first, BODY), repeat(&signed(&scheme, &keys_both, BODY, "msg_2"), BODY));
    assert_ne!(repeat(&first, BODY), repeat(&signed(&scheme, &keys_both, b"{}", "msg_1"), b"{}"));

    // Without a time or an id the same words may be news: clean, malicious, clean again.
    let github = plan("scheme = \"hmac\"\npreset = \"github\"\nsecrets = [\"env:A\"]").expect("plan");
    let mut headers = signed(&github, &keys_both, BODY, "delivery-1");
    assert!(check(&github, &keys_both, &headers, BODY, NOW).expect("passes").repeat().is_some());
    headers.0.pop();
    assert!(check(&github, &keys_both, &headers, BODY, NOW).expect("passes").repeat().is_none());
}

#[test]
fn tokens_are_compared_whole() {
    let secret = "test-secret-not-a-real-secret";
    let keys = keys(&["another-secret-of-some-length", secret]);
    let places = [
        ("header = \"X-Api-Key\"", "x-api-key", secret.to_owned()),
        ("header = \"Authorization\"\nprefix = \"Token \"", "authorization", format!("Token {secret}")),
        ("bearer = true", "authorization", format!("bearer {secret}")),
        ("basic = \"xyz\"", "authorization", format!("Basic {}", STANDARD.encode(format!("xyz:{secret}")))),
    ];
    for (config, name, value) in places {
        let scheme = plan(&format!("scheme = \"token\"\nsecrets = [\"env:A\"]\n{config}")).expect(config);
        let headers = List::of(&[(name, &value)]);
        let proven = check(&scheme, &keys, &headers, BODY, NOW).expect(config);
        assert_eq!(proven.repeat(), None);
        assert_eq!(proven.into_parts().2.how, How::Token { key_id: "env:KEY_1".to_owned() });
        for bad in [String::new(), value[..value.len() - 1].to_owned(), format!("{value}x"), secret.to_uppercase()] {
            let result = check(&scheme, &keys, &List::of(&[(name, &bad)]), BODY, NOW);
            assert!(matches!(refusal(result), Refusal::Malformed | Refusal::Mismatch), "{config}: {bad}");
        }
        assert_eq!(refusal(check(&scheme, &keys, &List::of(&[]), BODY, NOW)), Refusal::Missing);
        let twice = List::of(&[(name, &value), (name, &value)]);
        assert_eq!(refusal(check(&scheme, &keys, &twice, BODY, NOW)), Refusal::DuplicateHeader);
        let made = signed(&scheme, &keys[1..], BODY, "");
        assert!(check(&scheme, &keys, &made, BODY, NOW).is_ok(), "{config}");
    }
    let scheme = plan("scheme = \"token\"\nbasic = \"xyz\"\nsecrets = [\"env:A\"]").expect("plan");
    let other_user = format!("Basic {}", STANDARD.encode(format!("abc:{secret}")));
    let headers = List::of(&[("authorization", &other_user)]);
    assert_eq!(refusal(check(&scheme, &keys, &headers, BODY, NOW)), Refusal::Mismatch);
}

#[test]
fn certificates_and_networks_have_to_be_named() {
    let headers = List::of(&[]);
    let pinned = plan("scheme = \"mtls\"\nsubjects = [\"forwarder\"]").expect("plan");
    let names = ["CN=forwarder, O=Acme".to_owned(), "forwarder".to_owned()];
    let with = |certificate_names| {
        let request = Request { certificate_names, ..request(&headers) };
        verify(&pinned, &[], &request, Bytes::new(), Timestamp::UNIX_EPOCH)
    };
    assert_eq!(with(&names).expect("pinned").into_parts().2.how, How::Mtls { subject: "forwarder".to_owned() });
    assert_eq!(refusal(with(&names[..1])), Refusal::Certificate);
    assert_eq!(refusal(with(&[])), Refusal::Certificate);

    let inside = plan("scheme = \"none\"\nnetworks = [\"10.1.0.0/16\", \"fd00::/8\", \"192.0.2.7\"]").expect("plan");
    let from = |peer: &str| {
        let request = Request { peer: peer.parse().expect("address"), ..request(&headers) };
        verify(&inside, &[], &request, Bytes::new(), Timestamp::UNIX_EPOCH).map(|proven| proven.into_parts().2.how)
    };
    for peer in ["10.1.255.255", "::ffff:10.1.0.1", "fd00::1", "192.0.2.7"] {
        assert_eq!(from(peer), Ok(How::Network), "{peer}");
    }
    for peer in ["10.2.0.1", "::1", "192.0.2.8", "::ffff:10.2.0.1"] {
        assert_eq!(from(peer), Err(Refusal::Network), "{peer}");
    }
}

#[test]
fn kept_headers_are_those_the_adapter_reads_and_never_credentials() {
    let scheme = plan("scheme = \"token\"\nheader = \"X-Key\"\nsecrets = [\"env:A\"]").expect("plan");
    let headers = List::of(&[
        ("x-key", "test-secret-not-a-real-secret"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-event", "bounty"),
        ("x-other", "c"),
        ("content-type", "application/json"),
    ]);
    let headers_kept = &["x-event", "authorization", "cookie", "x-key", "x-absent"][..];
    let request = Request { headers_kept, ..request(&headers) };
    let keys = keys(&["test-secret-not-a-real-secret"]);
    let proven = verify(&scheme, &keys, &request, Bytes::new(), Timestamp::UNIX_EPOCH).expect("passes");
    let (.., evidence) = proven.into_parts();
    assert_eq!(evidence.headers, [("x-event".to_owned(), "bounty".to_owned())]);
    assert_eq!(evidence.content_type.as_deref(), Some("application/json"));
}

#[test]
fn a_plan_without_a_pin_or_with_a_hole_is_refused_with_words() {
    let secrets = "secrets = [\"env:A\"]";
    let cases = [
        ("scheme = \"hmac\"\npreset = \"github\"".to_owned(), "verify.secrets: no secret is named"),
        (format!("scheme = \"hmac\"\n{secrets}"), "verify.header: name the header"),
        (format!("scheme = \"hmac\"\nheader = \"a b\"\n{secrets}"), "verify.header: not a header name"),
        (format!("scheme = \"hmac\"\npreset = \"github\"\ntolerance = \"5m\"\n{secrets}"), "signs no time"),
        (format!("scheme = \"hmac\"\npreset = \"stripe\"\ntolerance = \"0s\"\n{secrets}"), "at least \"1s\""),
        (format!("scheme = \"hmac\"\npreset = \"stripe\"\nsigned = \"{{body}}\"\n{secrets}"), "the time is not signed"),
        (format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{id}}.{{body}}\"\n{secrets}"), "needs id_header"),
        (
            format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{timestamp}}.{{body}}\"\n{secrets}"),
            "needs timestamp_header",
        ),
        (
            format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{timestamp}}{{body}}\"\n{secrets}"),
            "need a sign after",
        ),
        (
            format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{timestamp}}1{{body}}\"\n{secrets}"),
            "need a sign after",
        ),
        (format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{body}}.{{url}}\"\n{secrets}"), "once and last"),
        (format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"{{url}}\"\n{secrets}"), "once and last"),
        (format!("scheme = \"hmac\"\nheader = \"a\"\nsigned = \"é{{bodi}}{{body}}\"\n{secrets}"), "in braces"),
        (
            format!("scheme = \"hmac\"\npreset = \"github\"\nbearer = true\n{secrets}"),
            "verify.bearer: the scheme does not use",
        ),
        (format!("scheme = \"token\"\n{secrets}"), "say once where the token stands"),
        (format!("scheme = \"token\"\nbearer = true\nbasic = \"a\"\n{secrets}"), "say once where the token stands"),
        ("scheme = \"token\"\nbearer = true".to_owned(), "no secret is named"),
        ("scheme = \"mtls\"".to_owned(), "name the certificates"),
        ("scheme = \"mtls\"\nsubjects = [\"\"]".to_owned(), "name the certificates"),
        ("scheme = \"none\"".to_owned(), "say where messages may come from"),
        ("scheme = \"none\"\nnetworks = [\"0.0.0.0/0\"]".to_owned(), "lets everybody in"),
        ("scheme = \"none\"\nnetworks = [\"::/0\"]".to_owned(), "lets everybody in"),
        ("scheme = \"none\"\nnetworks = [\"10.1\"]".to_owned(), "is no network"),
        (format!("scheme = \"token\"\nbearer = true\norigins = [\"a\"]\n{secrets}"), "verify.origins: the scheme"),
        (format!("scheme = \"token\"\nheader = [\"a\", \"b\"]\n{secrets}"), "say once where the token stands"),
        (
            format!("scheme = \"hmac\"\npreset = \"github\"\nover = \"decoded\"\ncontent_encodings = []\n{secrets}"),
            "verify.over: the scheme does not use",
        ),
        ("scheme = \"ed25519\"".to_owned(), "verify.public_key: no public key of the sender is named"),
        ("scheme = \"ed25519\"\npublic_keys = [\"whpk_AAAA\"]".to_owned(), "not an Ed25519 public key"),
        ("scheme = \"ed25519\"\npublic_keys = [\"vault:a/b#c\"]".to_owned(), "not built yet"),
        ("scheme = \"ed25519\"\npreset = \"github\"\npublic_key = \"a.pub\"".to_owned(), "the scheme is hmac"),
        ("scheme = \"rsa\"\ntenant = \"t\"".to_owned(), "verify.public_key: no public key"),
        ("scheme = \"rsa\"\npublic_key = \"a.pem\"".to_owned(), "verify.tenant: name our tenant"),
        ("scheme = \"rsa\"\npublic_key = \"a.pem\"\ntenant = \"a.b\"".to_owned(), "verify.tenant: name our tenant"),
        ("scheme = \"rsa\"\npublic_key = \"-----BEGIN X\"\ntenant = \"t\"".to_owned(), "not one PEM block"),
        ("scheme = \"sns\"".to_owned(), "verify.topics: name the topics"),
        ("scheme = \"sns\"\ntopics = [\"arn:aws:sns:eu-west-1:123456789012:*\"]".to_owned(), "not the ARN of a topic"),
        (format!("scheme = \"sns\"\n{secrets}"), "verify.secrets: the scheme does not use"),
        ("scheme = \"event-grid\"".to_owned(), "Event Grid signs no bodies"),
        ("scheme = \"event-grid\"\nsecret_query = \"code\"".to_owned(), "no secret is named"),
        (format!("scheme = \"event-grid\"\nsecret_query = \"a b\"\n{secrets}"), "name the URL parameter"),
        (
            format!("scheme = \"event-grid\"\nsecret_query = \"code\"\nissuer = \"https://a\"\n{secrets}"),
            "keep one of the two",
        ),
        (
            format!("scheme = \"event-grid\"\nsecret_query = \"code\"\napplications = [\"a\"]\n{secrets}"),
            "verify.applications: the scheme",
        ),
        ("scheme = \"event-grid\"\nissuer = \"https://a\"".to_owned(), "verify.audience: name"),
        ("scheme = \"event-grid\"\naudience = \"a\"".to_owned(), "verify.issuer: name who issues"),
        ("scheme = \"event-grid\"\nissuer = \"http://a\"\naudience = \"a\"".to_owned(), "write it as the tokens do"),
        ("scheme = \"event-grid\"\nissuer = \"https://a@b\"\naudience = \"a\"".to_owned(), "write it as the tokens do"),
        ("scheme = \"token\"\nbearer = true\nsecrets = [\"hunter2\"]".to_owned(), "is named by a reference"),
        ("scheme = \"hmac\"\nheadr = \"a\"".to_owned(), "unknown field `headr`"),
    ];
    for (toml, words) in cases {
        let problem = plan(&toml).expect_err(&toml);
        assert!(problem.contains(words), "{toml}\n{problem}");
    }
    let open =
        VerifyConfig { scheme: SchemeName::None, networks: vec!["0.0.0.0/0".to_owned()], ..VerifyConfig::default() };
    assert!(open.plan("a", true).is_ok());
}

#[test]
fn a_preset_can_be_overridden_field_by_field() {
    let config = VerifyConfig {
        preset: Some(Preset::Vileanalyziz),
        header: Some("X-Other".into()),
        tolerance: Some(Span(Duration::from_secs(10))),
        secrets: vec![SecretRef("env:A".to_owned())],
        ..VerifyConfig::default()
    };
    let scheme = config.plan("a", false).expect("plan");
    let keys = keys(&[KEY]);
    let headers = signed(&scheme, &keys, BODY, "");
    assert_eq!(headers.0[0].0, "x-other");
    assert!(check(&scheme, &keys, &headers, BODY, NOW + 10).is_ok());
    assert_eq!(refusal(check(&scheme, &keys, &headers, BODY, NOW + 11)), Refusal::Timestamp);
}

#[test]
fn slack_and_zoom_get_the_answer_they_ask_for_and_only_as_a_code() {
    let keys = keys(&[KEY]);
    let asked = |preset: &str, body: &str| {
        let scheme = plan(&format!("scheme = \"hmac\"\npreset = \"{preset}\"\nsecrets = [\"env:A\"]")).expect(preset);
        let headers = signed(&scheme, &keys, body.as_bytes(), "");
        check(&scheme, &keys, &headers, body.as_bytes(), NOW).expect("signed").handshake().cloned()
    };
    let slack = |challenge: &str| format!(r#"{{"token":"x","type":"url_verification","challenge":"{challenge}"}}"#);
    let zoom = |plain: &str| {
        format!(
            r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{plain}"}},"event_ts":1700000000000}}"#
        )
    };
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    let answer = |text: String| Some(Handshake::Answer(text));
    assert_eq!(asked("slack", &slack(challenge)), answer(format!(r#"{{"challenge":"{challenge}"}}"#)));
    let (plain, encrypted) =
        ("qgg8vlvZRS6UYooatFL8Aw", "4105751c1e3b7b0c64f655fd0a1e5573ed1c0de461b252f850fc4efee7f35648");
    let expected = format!(r#"{{"encryptedToken":"{encrypted}","plainToken":"{plain}"}}"#);
    assert_eq!(asked("zoom", &zoom(plain)), answer(expected));
    // Neither markup nor what a signature could be over is ever given back.
    for odd in ["", "<script>alert(1)</script>", "v0:1700000000:{}", "a b", "\\u0000", &"a".repeat(257)] {
        assert_eq!(asked("slack", &slack(odd)), None, "{odd}");
        assert_eq!(asked("zoom", &zoom(odd)), None, "{odd}");
    }
    // What is asked of one sender is no question of another.
    for (preset, body) in [("slack", zoom(plain)), ("zoom", slack(challenge)), ("github", slack(challenge))] {
        assert_eq!(asked(preset, &body), None, "{preset}");
    }
    assert_eq!(asked("slack", r#"{"type":"event_callback","challenge":"a"}"#), None);
    assert_eq!(asked("slack", r#"{"type":"url_verification","type":"a","challenge":"a"}"#), None);
}

#[test]
fn a_compressed_body_is_proven_as_it_was_signed() {
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let keys = keys(&[KEY]);
    let base = "scheme = \"hmac\"\npreset = \"vileanalyziz\"\nsecrets = [\"env:A\"]";
    let [wire, decoded] = ["wire", "decoded"].map(|over| plan(&format!("{base}\nover = \"{over}\"")).expect(over));
    let sent = gzip(BODY);
    let with = |scheme: &Scheme, headers: &List, body: &[u8], coding, decoded_bytes_max| {
        let request = Request { coding, decoded_bytes_max, ..request(headers) };
        let now = Timestamp::from_second(NOW).expect("in range");
        verify(scheme, &keys, &request, Bytes::copy_from_slice(body), now).map(Proven::into_parts)
    };
    let coded = Some(Coding::Gzip);
    let over_wire = signed(&wire, &keys, &sent, "");
    let (stored, says, evidence) = with(&wire, &over_wire, &sent, coded, 1000).expect("wire");
    assert_eq!((&stored[..], &says[..], evidence.coding), (&sent[..], BODY, coded));
    let over_body = signed(&decoded, &keys, BODY, "");
    let (stored, says, evidence) = with(&decoded, &over_body, &sent, coded, 1000).expect("decoded");
    assert_eq!((&stored[..], &says[..], evidence.coding), (BODY, BODY, None));
    // Uncompressed, both are the same.
    for scheme in [&wire, &decoded] {
        assert!(with(scheme, &over_body, BODY, None, 1000).is_ok());
    }
    assert_eq!(with(&wire, &over_body, &sent, coded, 1000).map(|_| ()), Err(Refusal::Mismatch));
    assert_eq!(with(&decoded, &over_wire, &sent, coded, 1000).map(|_| ()), Err(Refusal::Mismatch));
    // Size counts after decompression, too, and content only where it is signed.
    for (scheme, headers) in [(&wire, &over_wire), (&decoded, &over_body)] {
        assert_eq!(with(scheme, headers, &sent, coded, BODY.len() - 1).map(|_| ()), Err(Refusal::TooLarge));
    }
    let broken = signed(&wire, &keys, BODY, "");
    let (stored, says, _) = with(&wire, &broken, BODY, coded, 1000).expect("proven, and no gzip");
    assert_eq!((&stored[..], &says[..]), (BODY, BODY));
    assert_eq!(with(&decoded, &over_body, BODY, coded, 1000).map(|_| ()), Err(Refusal::Malformed));
}

#[test]
fn a_roll_may_use_two_headers_and_any_of_them_passes() {
    let both = keys(&[KEY, STANDARD_KEY]);
    let own = "header = [\"X-Hookdeck-Signature\", \"X-Hookdeck-Signature-2\"]\nencoding = \"base64\"";
    for config in ["preset = \"hookdeck\"", own] {
        let scheme = plan(&format!("scheme = \"hmac\"\nsecrets = [\"env:A\"]\n{config}")).expect(config);
        let [old, new] = [&both[..1], &both[1..]].map(|keys| signed(&scheme, keys, BODY, "evt_1").0[0].1.clone());
        let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        let (first, second) = ("x-hookdeck-signature", "x-hookdeck-signature-2");
        let rolling = List(vec![header(first, &new), header(second, &old)]);
        for keys in [&both[..1], &both[1..]] {
            assert!(check(&scheme, keys, &rolling, BODY, NOW).is_ok(), "{config}");
            assert_eq!(refusal(check(&scheme, keys, &rolling, b"{}", NOW)), Refusal::Mismatch);
        }
        assert!(check(&scheme, &both, &List(vec![header(second, &old)]), BODY, NOW).is_ok());
        let twice = List(vec![header(first, &new), header(second, &old), header(second, &old)]);
        assert_eq!(refusal(check(&scheme, &both, &twice, BODY, NOW)), Refusal::DuplicateHeader);
        assert_eq!(refusal(check(&scheme, &both, &List(Vec::new()), BODY, NOW)), Refusal::Missing);
    }
}

#[test]
fn a_signature_may_stand_in_authorization_and_is_never_kept() {
    let config = "scheme = \"hmac\"\nheader = \"Authorization\"\nprefix = \"HMAC-SHA256 \"\nsecrets = [\"env:A\"]";
    let scheme = plan(config).expect("plan");
    let keys = keys(&[KEY]);
    let headers = signed(&scheme, &keys, BODY, "");
    assert!(headers.0[0].1.starts_with(b"HMAC-SHA256 "));
    let request = Request { headers_kept: &["authorization"], ..request(&headers) };
    let proven = verify(&scheme, &keys, &request, Bytes::from_static(BODY), Timestamp::UNIX_EPOCH).expect("passes");
    assert!(proven.into_parts().2.headers.is_empty());
}

proptest! {
    #[test]
    fn arbitrary_header_bytes_never_pass_and_never_panic(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 3),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let keys = keys(&[STANDARD_KEY]);
        for (config, scheme) in schemes() {
            let mut headers = signed(&scheme, &keys, &body, "msg_1");
            for (header, value) in headers.0.iter_mut().zip(&values) {
                header.1.clone_from(value);
            }
            prop_assert!(check(&scheme, &keys, &headers, &body, NOW).is_err(), "{}", config);
        }
    }

    #[test]
    fn lists_of_odd_items_never_panic(value in "(v1|v1a|t|=|,| |[0-9a-f]{1,8}|é){0,40}") {
        let keys = keys(&[STANDARD_KEY]);
        for (config, scheme) in schemes() {
            let mut headers = signed(&scheme, &keys, BODY, "msg_1");
            headers.0[0].1 = value.clone().into_bytes();
            prop_assert!(check(&scheme, &keys, &headers, BODY, NOW).is_err(), "{}", config);
        }
    }

    #[test]
    fn any_body_and_id_that_is_signed_passes(body in proptest::collection::vec(any::<u8>(), 0..300), id in "[a-zA-Z0-9_-]{1,40}") {
        let keys = keys(&[STANDARD_KEY]);
        for (config, scheme) in schemes() {
            let headers = signed(&scheme, &keys, &body, &id);
            prop_assert!(check(&scheme, &keys, &headers, &body, NOW).is_ok(), "{}", config);
        }
    }
}
