//! Signed deliveries, each another one, as cheap to send as bytes can be: one request a template, with places that are filled in.
//!
//! Invariant: every delivery has its own file, event id, webhook-id and signature, all made before the clock runs.
//!
//! Not here: what the bodies say (`bodies`), who sends them when (`generator`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::bodies::{MARK, MD5, SHA1, SHA256, engine_report, portal_event};

/// Deliveries of one size that are ready to be sent.
pub(crate) struct Deliveries {
    templates: Vec<Template>,
    all: Vec<Unique>,
    /// Bytes of a body.
    pub(crate) body_bytes: usize,
}

/// A request with the places in it that differ.
#[derive(Clone)]
pub(crate) struct Template {
    request: Vec<u8>,
    places: Vec<(usize, Part)>,
}

#[derive(Clone, Copy)]
enum Part {
    Number,
    Sha256,
    Sha1,
    Md5,
    Signature,
}

/// What differs, beside the number.
struct Unique {
    sha256: [u8; 64],
    signature: [u8; SIGNATURE_BYTES],
}

impl Deliveries {
    /// Signs `count` deliveries of this size at this time (seconds since 1970), as Standard Webhooks has it.
    pub(crate) fn prepare(body_bytes: usize, count: usize, key: &[u8], seconds: i64) -> Self {
        let mut templates = if body_bytes < REPORT_BYTES_MIN {
            vec![Template::new("vileanalyziz", &portal_event(body_bytes), seconds)]
        } else {
            // A malicious one and a clean one by turns.
            [HITS, 0].map(|hits| Template::new("virustotal", &engine_report(body_bytes, hits), seconds)).to_vec()
        };
        let all = (0..count).map(|number| {
            let turn = number % templates.len();
            templates[turn].sign(number, key, body_bytes, seconds)
        });
        let all = all.collect();
        Self { templates, all, body_bytes }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Templates of one's own, to be filled by [`Deliveries::fill`].
    pub(crate) fn templates(&self) -> Vec<Template> {
        self.templates.clone()
    }

    /// The request of this delivery.
    pub(crate) fn fill<'t>(&self, number: usize, templates: &'t mut [Template]) -> &'t [u8] {
        let turn = number % templates.len();
        let template = &mut templates[turn];
        template.fill(number, &self.all[number]);
        &template.request
    }
}

impl Template {
    /// `adapter` is the name of the source, too.
    fn new(adapter: &str, body: &[u8], seconds: i64) -> Self {
        let head = format!(
            "POST /v1/hooks/{adapter} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nContent-Type: application/json\r\n\
             webhook-id: {MARK}\r\nwebhook-timestamp: {seconds}\r\nwebhook-signature: v1,{SIGNATURE}\r\nContent-Length: {}\r\n\r\n",
            body.len(),
        );
        let request = [head.as_bytes(), body].concat();
        let mut places = Vec::new();
        for (placeholder, part) in [
            (&MARK[..MARK.len() - NUMBER_DIGITS], Part::Number),
            (SHA256, Part::Sha256),
            (SHA1, Part::Sha1),
            (MD5, Part::Md5),
            (SIGNATURE, Part::Signature),
        ] {
            let wanted = placeholder.as_bytes();
            let found = request.windows(wanted.len()).enumerate().filter(|(_, bytes)| *bytes == wanted);
            // The number follows its mark; everything else stands where its placeholder does.
            let shift = if matches!(part, Part::Number) { wanted.len() } else { 0 };
            places.extend(found.map(|(at, _)| (at + shift, part)));
        }
        Self { request, places }
    }

    fn sign(&mut self, number: usize, key: &[u8], body_bytes: usize, seconds: i64) -> Unique {
        let mut unique = Unique { sha256: [0; 64], signature: [b'A'; SIGNATURE_BYTES] };
        let hash = Sha256::digest(number.to_le_bytes());
        hex::encode_to_slice(hash, &mut unique.sha256).expect("64 digits");
        self.fill(number, &unique);
        let mark = &MARK[..MARK.len() - NUMBER_DIGITS];
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
        mac.update(format!("{mark}{number:0NUMBER_DIGITS$}.{seconds}.").as_bytes());
        mac.update(&self.request[self.request.len() - body_bytes..]);
        STANDARD.encode_slice(mac.finalize().into_bytes(), &mut unique.signature).expect("32 bytes are 44 letters");
        unique
    }

    fn fill(&mut self, number: usize, unique: &Unique) {
        let mut digits = [b'0'; NUMBER_DIGITS];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789"[rest % 10];
            rest /= 10;
        }
        for (at, part) in &self.places {
            let value: &[u8] = match part {
                Part::Number => &digits,
                Part::Sha256 => &unique.sha256,
                Part::Sha1 => &unique.sha256[..40],
                Part::Md5 => &unique.sha256[..32],
                Part::Signature => &unique.signature,
            };
            self.request[*at..*at + value.len()].copy_from_slice(value);
        }
    }
}

/// How many engines find something in a malicious report; all that fit, in a small one.
const HITS: usize = 14;
/// Below this an engine report has no room for its engines.
const REPORT_BYTES_MIN: usize = 2_500;
/// Digits of a delivery's number in [`MARK`].
pub(crate) const NUMBER_DIGITS: usize = 12;
const SIGNATURE_BYTES: usize = 44;
/// Stands where the signature goes.
const SIGNATURE: &str = "sssssssssssssssssssssssssssssssssssssssssss=";
const _: () = assert!(SIGNATURE.len() == SIGNATURE_BYTES);
