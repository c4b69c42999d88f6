//! Public keys of senders: read from what people and platforms write them as, and asked whether a signature is theirs.
//!
//! Invariants: a key is of one kind and answers for that kind alone; RSA keys have 2048 to 8192 bits; nothing here panics, whatever the
//! bytes. Public keys are no secrets: they may stand in the config and in evidence.
//!
//! Not here: what is signed (`verify/template`, `verify/sns`, `verify/jwt`), where keys come from (`trust`).

use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// A public key, in the form of its kind.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Ed25519([u8; ED25519_BYTES]),
    /// DER of an RSAPublicKey (RFC 8017) or of a SubjectPublicKeyInfo (RFC 5280) that holds one.
    Rsa(Vec<u8>),
    /// Modulus and exponent, big endian, without leading zeros.
    RsaNumbers {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Kinds of public keys that the config can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 32 bytes, as `whpk_` and base64, or in PEM form.
    Ed25519,
    /// A key or a certificate in PEM form.
    Rsa,
}

/// The hash under an RSA signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RsaHash {
    /// SNS signs with it where a topic's SignatureVersion is 1, which is its default.
    Sha1,
    /// Everywhere else.
    Sha256,
}

impl PublicKey {
    /// The key that `text` holds, if it is of this kind.
    pub(super) fn read(kind: Kind, text: &[u8]) -> Option<Self> {
        match kind {
            Kind::Ed25519 => Self::ed25519(text),
            Kind::Rsa => Self::rsa(text),
        }
    }

    fn ed25519(text: &[u8]) -> Option<Self> {
        let bytes = match text.trim_ascii().strip_prefix(b"whpk_") {
            Some(encoded) => STANDARD.decode(encoded).ok()?,
            None => ed25519_pem(text)?,
        };
        Some(Self(Form::Ed25519(bytes.try_into().ok()?)))
    }

    fn rsa(text: &[u8]) -> Option<Self> {
        let pem = one_pem(text)?;
        match pem.label.as_str() {
            "RSA PUBLIC KEY" | "PUBLIC KEY" => Self::rsa_der(pem.contents),
            "CERTIFICATE" => Self::of_certificate(&pem.contents),
            _ => None,
        }
    }

    /// The RSA key of a certificate in DER form. Nothing else of it is looked at.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Self::rsa_der(certificate.public_key().raw.to_vec())
    }

    fn rsa_der(der: Vec<u8>) -> Option<Self> {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der.as_slice());
        key.parse().ok()?;
        Some(Self(Form::Rsa(der)))
    }

    /// An RSA key out of a JSON Web Key's `n` and `e` (RFC 7518, 6.3.1).
    pub fn of_jwk(n: &str, e: &str) -> Option<Self> {
        let number = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            Some(bytes[zeros..].to_vec()).filter(|bytes| !bytes.is_empty())
        };
        let (n, e) = (number(n)?, number(e)?);
        (RSA_BYTES.contains(&n.len()) && e.len() <= EXPONENT_BYTES_MAX).then_some(Self(Form::RsaNumbers { n, e }))
    }

    /// Whether this is an Ed25519 key and the signature over `message` is its own.
    pub(super) fn signed_ed25519(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Form::Ed25519(bytes) => UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature).is_ok(),
            Form::Rsa(_) | Form::RsaNumbers { .. } => false,
        }
    }

    /// Whether this is an RSA key and the PKCS #1 v1.5 signature over `message` is its own.
    pub(super) fn signed_rsa(&self, hash: RsaHash, message: &[u8], signature: &[u8]) -> bool {
        let parameters: &'static RsaParameters = match hash {
            RsaHash::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            RsaHash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        match &self.0 {
            Form::Ed25519(_) => false,
            Form::Rsa(der) => UnparsedPublicKey::new(parameters, der).verify(message, signature).is_ok(),
            Form::RsaNumbers { n, e } => RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok(),
        }
    }

    /// What evidence calls a key that no reference or URL names: the beginning of its SHA-256.
    pub(super) fn fingerprint(&self) -> String {
        let digest = match &self.0 {
            Form::Ed25519(bytes) => Sha256::digest(bytes),
            Form::Rsa(der) => Sha256::digest(der),
            Form::RsaNumbers { n, e } => Sha256::new().chain_update(n).chain_update(e).finalize(),
        };
        format!("sha256:{}", hex::encode(&digest[..16]))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// The one block of a PEM text; none where there are several, because which one is meant would be a guess.
fn one_pem(text: &[u8]) -> Option<Pem> {
    let mut blocks = Pem::iter_from_buffer(text);
    let block = blocks.next()?.ok()?;
    blocks.next().is_none().then_some(block)
}

/// The 32 bytes of an Ed25519 key in PEM form (RFC 8410).
fn ed25519_pem(text: &[u8]) -> Option<Vec<u8>> {
    let pem = one_pem(text).filter(|pem| pem.label == "PUBLIC KEY")?;
    let (rest, info) = SubjectPublicKeyInfo::from_der(&pem.contents).ok()?;
    let is_ed25519 = rest.is_empty() && info.algorithm.algorithm.to_id_string() == ED25519_OID;
    is_ed25519.then(|| info.subject_public_key.data.to_vec())
}

const ED25519_BYTES: usize = 32;
const ED25519_OID: &str = "1.3.101.112";
/// 2048 to 8192 bits: shorter ones can be factored, longer ones are only slow.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Every exponent in use is 65537; a long one would only cost time.
const EXPONENT_BYTES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_PEM: &str = "-----BEGIN RSA PUBLIC KEY-----\nMIIBCgKCAQEA1mJPh10LSvUGyDJ0irWs7ToQaFHrhNAb6qE0SqYBoM9xipY64KDR\n8jOHD9tyssk7E5+Spzq1JIMb6Thi1BEPYKDXVwZyxD/ps0pCIogyDE3w6Uz/4AFs\nc0qy2F0YaQ47xLQXCuT/zemu4qaUQ4pKELHy+1SoHtjGzEe+vWZmYbelYUNXWAkd\n+ObL8J0BRtS5xjeMNBSWaHrKlYZiMS0lygZjkjvua2vrNT/4W4GUYSVjL1Kb41/j\nFKMTP51Y+5wwOxYyJiZpwhVNNhTSBak4bPSGHFWwIpCpniS6G1eMUMMESM9p1o3o\n0jCdtPTZrKq/dUQcjuhV7knI732o5dBP5wIDAQAB\n-----END RSA PUBLIC KEY-----\n";
    const WHPK: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

    #[test]
    fn a_key_is_read_in_its_own_form_and_no_other() {
        assert!(PublicKey::read(Kind::Rsa, RSA_PEM.as_bytes()).is_some());
        assert!(PublicKey::read(Kind::Ed25519, WHPK.as_bytes()).is_some());
        assert!(PublicKey::read(Kind::Ed25519, format!("{WHPK}\n").as_bytes()).is_some(), "a line end of a file");
        let ed25519_pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PUBLIC KEY-----\n";
        assert_eq!(
            PublicKey::read(Kind::Ed25519, ed25519_pem.as_bytes()),
            PublicKey::read(Kind::Ed25519, WHPK.as_bytes())
        );
        for (kind, text) in [
            (Kind::Rsa, WHPK.to_owned()),
            (Kind::Rsa, ed25519_pem.to_owned()),
            (Kind::Rsa, RSA_PEM.repeat(2)),
            (Kind::Rsa, RSA_PEM.replace("MIIB", "MIIC")),
            (Kind::Rsa, RSA_PEM.replace("RSA PUBLIC", "RSA PRIVATE")),
            (Kind::Rsa, String::new()),
            (Kind::Ed25519, RSA_PEM.to_owned()),
            (Kind::Ed25519, WHPK.replace("whpk_", "whsk_")),
            (Kind::Ed25519, WHPK.replace("whpk_", "")),
            (Kind::Ed25519, WHPK[..WHPK.len() - 5].to_owned()),
            (Kind::Ed25519, "whpk_".to_owned()),
            (Kind::Ed25519, "whpk_AAAA".to_owned()),
        ] {
            assert_eq!(PublicKey::read(kind, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn weak_and_odd_web_keys_are_refused() {
        let n = |bytes: usize| URL_SAFE_NO_PAD.encode([[0xC1].as_slice(), &vec![7; bytes - 1]].concat());
        assert!(PublicKey::of_jwk(&n(256), "AQAB").is_some());
        assert!(PublicKey::of_jwk(&URL_SAFE_NO_PAD.encode([0; 300]), "AQAB").is_none());
        for (n, e) in [(n(255), "AQAB"), (n(1025), "AQAB"), (n(256), ""), (n(256), "AAAA"), (n(256), "A QAB")] {
            assert_eq!(PublicKey::of_jwk(&n, e), None, "{e}");
        }
        assert_eq!(PublicKey::of_jwk(&n(256), &URL_SAFE_NO_PAD.encode([1; 9])), None);
    }
}
