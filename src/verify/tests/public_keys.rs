//! Ed25519 and RSA, against vectors that were made apart from this program, and against what a forger would try.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// Key, signature and id of a vector that was made apart from this program, over `NOW` and `BODY`.
const WHPK: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
const V1A: &str = "v1a,jxwa43cVy1z9Rg9JTkERtXNgglJ05LedhsITpLeAd2w9VZp21b++9lI4V+S8hSQG0dYMo69UAn8jzs6Vb23oBw==";

fn v1a(signature: &str) -> List {
    List::of(&[("webhook-id", "msg_1"), ("webhook-timestamp", "1700000000"), ("webhook-signature", signature)])
}

/// A pair whose seed is this byte, over and over: its public key as senders write it, and its signature as one entry of a list.
fn pair(seed: u8, id: &str, body: &[u8]) -> (String, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed");
    let signature = pair.sign(&[format!("{id}.{NOW}.").as_bytes(), body].concat());
    let public = format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()));
    (public, format!("v1a,{}", STANDARD.encode(signature)))
}

#[test]
fn the_vector_of_standard_webhooks_passes_and_no_bit_of_it_can_change() {
    let scheme = plan(&format!("scheme = \"ed25519\"\npublic_keys = [\"{WHPK}\"]")).expect("plan");
    let good = v1a(V1A);
    let (.., evidence) = check(&scheme, &[], &good, BODY, NOW).expect("the vector").into_parts();
    let How::Signature { key_id } = evidence.how else { panic!("{:?}", evidence.how) };
    assert!(key_id.starts_with("sha256:") && key_id.len() == 39, "{key_id}");
    assert_eq!(
        (evidence.sender_id.as_deref(), evidence.signed_at.map(Timestamp::as_second)),
        (Some("msg_1"), Some(NOW))
    );
    for bit in 0..BODY.len() * 8 {
        let mut body = BODY.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(check(&scheme, &[], &good, &body, NOW)), Refusal::Mismatch, "bit {bit}");
    }
    for (index, (name, value)) in good.0.iter().enumerate() {
        for bit in 0..value.len() * 8 {
            let mut bad = List(good.0.clone());
            bad.0[index].1[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&scheme, &[], &bad, BODY, NOW).is_err(), "bit {bit} of {name}");
        }
    }
    for (now, passes) in [(NOW - 301, false), (NOW - 300, true), (NOW + 300, true), (NOW + 301, false)] {
        assert_eq!(check(&scheme, &[], &good, BODY, now).is_ok(), passes, "{now}");
    }
}

#[test]
fn several_keys_are_live_and_a_list_may_hold_what_they_do_not_know() {
    let (written, by_written) = pair(7, "msg_1", BODY);
    let (loaded, by_loaded) = pair(8, "msg_1", BODY);
    let (_, by_stranger) = pair(9, "msg_1", BODY);
    let scheme =
        plan(&format!("scheme = \"ed25519\"\npublic_keys = [\"{written}\", \"file:keys/next.pub\"]")).expect("plan");
    let keys = keys(&[&loaded]);
    let with = |signatures: &str| check(&scheme, &keys, &v1a(signatures), BODY, NOW);
    let key_id = |proven: Proven| match proven.into_parts().2.how {
        How::Signature { key_id } => key_id,
        other => panic!("{other:?}"),
    };
    assert!(key_id(with(&by_written).expect("written out")).starts_with("sha256:"));
    assert_eq!(key_id(with(&by_loaded).expect("loaded")), "env:KEY_0");
    assert!(with(&format!("v1,AAAA {by_stranger} {by_loaded}")).is_ok());
    assert_eq!(refusal(with(&by_stranger)), Refusal::Mismatch);
    assert_eq!(refusal(with("v1,AAAA")), Refusal::Malformed);
    assert_eq!(refusal(with(&by_loaded.replace("v1a,", "v1,"))), Refusal::Malformed);
    // Each one costs a hash of the whole body, so a list of many is none that an honest sender makes.
    assert_eq!(refusal(with(&format!("{}{by_loaded}", format!("{by_stranger} ").repeat(4)))), Refusal::Malformed);
    assert!(with(&format!("{}{by_loaded}", format!("{by_stranger} ").repeat(3))).is_ok());
    // The keys that are written out are there even where no file can be read.
    assert!(check(&scheme, &[], &v1a(&by_written), BODY, NOW).is_ok());
    let only_loaded = plan("scheme = \"ed25519\"\npublic_key = \"env:A\"").expect("plan");
    assert_eq!(refusal(check(&only_loaded, &[], &v1a(&by_loaded), BODY, NOW)), Refusal::SecretUnavailable);
    let broken = super::keys(&["whpk_ and then something else entirely"]);
    assert!(only_loaded.key_problem(&broken[0]).is_some() && only_loaded.key_problem(&keys[0]).is_none());
    assert_eq!(refusal(check(&only_loaded, &broken, &v1a(&by_loaded), BODY, NOW)), Refusal::SecretUnavailable);
}

#[test]
fn svix_headers_and_ids_with_dots_are_treated_as_with_a_shared_secret() {
    let (public, signature) = pair(7, "msg_1", BODY);
    let scheme = plan(&format!("scheme = \"ed25519\"\npreset = \"svix\"\npublic_key = \"{public}\"")).expect("plan");
    let svix = List::of(&[("svix-id", "msg_1"), ("svix-timestamp", "1700000000"), ("svix-signature", &signature)]);
    assert!(check(&scheme, &[], &svix, BODY, NOW).is_ok());
    assert!(check(&scheme, &[], &v1a(&signature), BODY, NOW).is_ok());
    // Signed for the id "a" and a body that begins like a time: no byte may move.
    let (_, moved) = pair(7, "a", b"1700000000.x");
    let headers =
        List::of(&[("webhook-id", "a.1700000000"), ("webhook-timestamp", "1700000000"), ("webhook-signature", &moved)]);
    assert_eq!(refusal(check(&scheme, &[], &headers, b"x", NOW)), Refusal::Malformed);
    // A shared secret's signature is none of a public key, and the other way round.
    let hmac = plan(STANDARD_WEBHOOKS).expect("plan");
    let shared = signed(&hmac, &keys(&[STANDARD_KEY]), BODY, "msg_1");
    assert_eq!(refusal(check(&scheme, &[], &shared, BODY, NOW)), Refusal::Malformed);
    assert_eq!(refusal(check(&hmac, &keys(&[STANDARD_KEY]), &v1a(&signature), BODY, NOW)), Refusal::Malformed);
}

/// The stored vector of attachmentAV: key, headers, body.
fn attachment_av() -> (String, List, Vec<u8>) {
    let payloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
    let vectors = std::fs::read(payloads.join("signature_vectors.json")).expect("vectors");
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&vectors).expect("JSON");
    let vector = vectors.iter().find(|vector| vector["name"] == "attachmentav_rsa").expect("the vector");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let headers = vector["headers"].as_object().expect("headers").iter();
    let headers = headers.map(|(name, value)| (name.clone(), text(value).into_bytes())).collect();
    let body = std::fs::read(payloads.join(text(&vector["body_file"]))).expect("body");
    (text(&vector["public_key_pem"]), List(headers), body)
}

#[test]
fn an_rsa_signature_covers_time_tenant_url_and_body() {
    const AT: i64 = 1_774_267_200;
    let (pem, good, body) = attachment_av();
    let written = pem.replace('\n', "\\n");
    let scheme = |tenant: &str| {
        plan(&format!("scheme = \"rsa\"\npublic_key = \"{written}\"\ntenant = \"{tenant}\"")).expect("plan")
    };
    let with = |scheme: &Scheme, headers: &List, target, body: &[u8], now| {
        let request = Request { public_url: "https://recv.example.com/in", target, ..request(headers) };
        let now = Timestamp::from_second(now).expect("in range");
        verify(scheme, &[], &request, Bytes::copy_from_slice(body), now).map(|_| ())
    };
    let ours = scheme("tenant-1");
    assert!(ours.signs_url() && !ours.needs_keys());
    assert_eq!(with(&ours, &good, "/attachmentav", &body, AT), Ok(()));
    assert_eq!(with(&scheme("tenant-2"), &good, "/attachmentav", &body, AT), Err(Refusal::Mismatch));
    assert_eq!(with(&ours, &good, "/attachmentaw", &body, AT), Err(Refusal::Mismatch));
    assert_eq!(with(&ours, &good, "/attachmentav?a=b", &body, AT), Err(Refusal::Mismatch));
    assert_eq!(with(&ours, &good, "/attachmentav?a=.", &body, AT), Err(Refusal::Malformed));
    for (now, passes) in [(AT - 301, false), (AT - 300, true), (AT + 300, true), (AT + 301, false)] {
        assert_eq!(with(&ours, &good, "/attachmentav", &body, now).is_ok(), passes, "{now}");
    }
    for bit in 0..body.len() * 8 {
        let mut body = body.clone();
        body[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(with(&ours, &good, "/attachmentav", &body, AT), Err(Refusal::Mismatch), "bit {bit}");
    }
    for (index, (name, value)) in good.0.iter().enumerate() {
        for (at, byte) in value.iter().enumerate() {
            let mut bad = List(good.0.clone());
            bad.0[index].1[at] = if *byte == b'1' { b'2' } else { b'1' };
            assert!(with(&ours, &bad, "/attachmentav", &body, AT).is_err(), "byte {at} of {name}");
            bad.0[index].1.truncate(at);
            assert!(with(&ours, &bad, "/attachmentav", &body, AT).is_err(), "{name} cut at {at}");
        }
    }
    let long = List::of(&[("x-timestamp", "1774267200000"), ("x-signature", &"ab".repeat(5000))]);
    assert_eq!(with(&ours, &long, "/attachmentav", &body, AT), Err(Refusal::Malformed));
}

proptest! {
    #[test]
    fn odd_lists_and_bodies_never_pass_and_never_panic(
        value in "(v1a,|v1,| |[A-Za-z0-9+/]{1,90}|=|é){0,12}",
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let scheme = plan(&format!("scheme = \"ed25519\"\npublic_key = \"{WHPK}\"")).expect("plan");
        prop_assert!(check(&scheme, &[], &v1a(&value), &body, NOW).is_err());
        prop_assert!(body == BODY || check(&scheme, &[], &v1a(V1A), &body, NOW).is_err());
    }
}
