//! Any request at any proof: the check never panics, and what it takes with a signature it takes with no other body.
//!
//! The first line of the input names the proof (or its first byte chooses one); then come lines of `name: value`, an empty line, the body.
//! The line `target: ...` is the request's path and query.

#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use bytes::Bytes;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use verdict_relay::delivery::Coding;
use verdict_relay::event::Auth;
use verdict_relay::secret::{Key, Secret, SecretRef};
use verdict_relay::verify::{Found, Headers, NoPublicKeys, Request, Scheme, VerifyConfig, verify, wanted};

static SCHEMES: LazyLock<Vec<(String, Scheme)>> = LazyLock::new(|| {
    let configs: BTreeMap<String, VerifyConfig> = toml::from_str(include_str!("proofs.toml")).expect("TOML");
    let plan = |(name, config): (String, VerifyConfig)| (name, config.plan("verify", true).expect("a valid proof"));
    configs.into_iter().map(plan).collect()
});

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let key = |value: &str| Key { id: SecretRef("env:KEY".to_owned()), secret: Secret::new(value.into()) };
    ["test-secret-not-a-real-secret", "whsec_glTDKakoUPbVOd03b0gW7idkUX2l4CNV"].map(key).into()
});

/// When the recorded signatures are fresh.
const NOW: i64 = 1_774_267_200;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (name, rest) = (&data[..end], &data[end + 1..]);
    let named = SCHEMES.iter().find(|(known, _)| known.as_bytes() == name);
    let any = usize::from(data[0]) % SCHEMES.len();
    let (_, scheme) = named.unwrap_or(&SCHEMES[any]);
    let end = rest.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((rest, &b""[..]), |end| (&rest[..end], &rest[end + 2..]));
    let headers = Lines(head.split(|byte| *byte == b'\n').filter_map(pair).collect());
    if !accepts(scheme, &headers, body) || scheme.auth() != Auth::Signature {
        return;
    }
    let mut other = body.to_vec();
    match other.last_mut() {
        Some(last) => *last ^= 1,
        None => other.push(b'x'),
    }
    assert!(!accepts(scheme, &headers, &other), "the same signature for another body");
});

fn accepts(scheme: &Scheme, headers: &Lines<'_>, body: &[u8]) -> bool {
    let found = |name: &str| match headers.find(name) {
        Found::One(value) => Some(value),
        Found::Nothing | Found::Several => None,
    };
    let request = Request {
        headers,
        method: "POST",
        public_url: "https://recv.example.com/in",
        target: found("target").and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("/attachmentav"),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        certificate_names: &[],
        headers_kept: &["content-type"],
        coding: found("content-encoding").and_then(Coding::named),
        decoded_bytes_max: 1 << 20,
        public_keys: &NoPublicKeys,
    };
    let _key = wanted(scheme, &request, body);
    let now = Timestamp::from_second(NOW).expect("in range");
    verify(scheme, &KEYS, &request, Bytes::copy_from_slice(body), now).is_ok()
}

/// A header line; the name in lower case, as a server gives it.
fn pair(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?.to_ascii_lowercase();
    Some((name, line[colon + 1..].trim_ascii()))
}

struct Lines<'a>(Vec<(String, &'a [u8])>);

impl Headers for Lines<'_> {
    fn find(&self, name: &str) -> Found<'_> {
        let mut found = self.0.iter().filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (None, _) => Found::Nothing,
            (Some((_, value)), None) => Found::One(value),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}
