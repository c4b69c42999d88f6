//! Certificates of Amazon SNS: fetched by their URL, and believed only with a chain to an authority that we trust and one of the names
//! under which SNS signs. And the visit that confirms a subscription.
//!
//! Invariants: only URLs that `verify` has made a type of are visited, and the issuer's certificate only from Amazon Trust Services.
//! SNS publishes its certificate alone, so its issuer's is fetched by the URL in it; it comes over plain HTTP, as all of them do, and
//! the chain says whether it is the right one.

use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::web::Web;
use super::{FetchError, Found};
use crate::verify::{CertificateUrl, KeyName, PublicKey, SubscribeUrl, TopicArn};

/// The certificate's key, if the certificate is one of SNS.
pub(super) async fn fetch(web: &Web, url: &CertificateUrl, now: Timestamp) -> Result<Found, FetchError> {
    let pem = web.get(url.as_str(), PEM_BYTES_MAX).await?;
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem).take(CHAIN_MAX) {
        chain.push(certificate.map_err(|_| unusable("what SNS publishes there is no PEM"))?);
    }
    let [leaf, intermediates @ ..] = chain.as_slice() else {
        return Err(unusable("what SNS publishes there holds no certificate"));
    };
    let parsed = parse(leaf)?;
    let mut intermediates = intermediates.to_vec();
    if intermediates.is_empty()
        && let Some(place) = issuer_url(&parsed)
    {
        intermediates.push(web.get(&place, ISSUER_BYTES_MAX).await?.into());
    }
    let verifier = web.tls().verifier().map_err(|error| FetchError::Unreachable(error.to_string()))?;
    check_chain(verifier.as_ref(), leaf, &intermediates, url.names(), now)?;
    let key = PublicKey::of_certificate(leaf).ok_or_else(|| unusable("the certificate holds no RSA key"))?;
    let ends = Timestamp::from_second(parsed.validity().not_after.timestamp()).unwrap_or(now);
    let until = ends.min(now + KEPT_FOR);
    Ok(vec![(KeyName::Certificate(url.clone()), key, until)])
}

/// Lets SNS know that the subscription is wanted.
pub(super) async fn confirm(web: &Web, url: &SubscribeUrl) -> Result<(), FetchError> {
    web.get(url.as_str(), CONFIRMED_BYTES_MAX).await.map(|_| ())
}

/// Whether SNS can be reached in every region of the topics.
pub(super) async fn probe(web: &Web, topics: &[TopicArn]) -> Result<String, FetchError> {
    let hosts: std::collections::BTreeSet<String> = topics.iter().map(TopicArn::host).collect();
    for host in &hosts {
        web.reach(&format!("https://{host}/")).await?;
    }
    let hosts: Vec<String> = hosts.into_iter().collect();
    Ok(format!("{} can be reached", hosts.join(", ")))
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, FetchError> {
    X509Certificate::from_der(leaf).map(|(_, parsed)| parsed).map_err(|_| unusable("the certificate cannot be read"))
}

/// Whether the certificate leads to an authority that we trust, is valid now, and is for one of these names.
fn check_chain(
    verifier: &dyn ServerCertVerifier,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    names: &[String],
    now: Timestamp,
) -> Result<(), FetchError> {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let mut refused = None;
    for name in names {
        let Ok(name) = ServerName::try_from(name.as_str()) else { continue };
        match verifier.verify_server_cert(leaf, intermediates, &name, &[], at) {
            Ok(_) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    let words = refused.map_or_else(|| "it has no name".to_owned(), |error| error.to_string());
    Err(FetchError::Unusable(format!(
        "the certificate that SNS publishes is not acceptable ({words}): let this machine reach crt.*.amazontrust.com over HTTP, or pin the certificate with verify.certificates"
    )))
}

/// Where the issuer's certificate is, if that is a place of Amazon Trust Services.
fn issuer_url(leaf: &X509Certificate<'_>) -> Option<String> {
    let access = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    })?;
    let places = access.iter().filter(|place| place.access_method.to_id_string() == CA_ISSUERS);
    places.into_iter().find_map(|place| match place.access_location {
        GeneralName::URI(url) if is_amazon_trust(url) => Some(url.to_owned()),
        _ => None,
    })
}

/// `http://crt.NAME.amazontrust.com/NAME.cer`
fn is_amazon_trust(url: &str) -> bool {
    let is_name = |text: &str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let parts = url.strip_prefix("http://crt.").and_then(|rest| rest.split_once(".amazontrust.com/"));
    parts.is_some_and(|(host, file)| {
        let name = file.strip_suffix(".cer").or_else(|| file.strip_suffix(".crt"));
        is_name(host) && name.is_some_and(is_name)
    })
}

fn unusable(words: &str) -> FetchError {
    FetchError::Unusable(words.to_owned())
}

/// OID of "CA issuers" (RFC 5280, 4.2.2.1).
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// A certificate has 2 KiB, a chain of four with cross signatures 8.
const PEM_BYTES_MAX: usize = 32 << 10;
const ISSUER_BYTES_MAX: usize = 8 << 10;
const CHAIN_MAX: usize = 6;

/// The answer to a confirmation is half a KiB of XML.
const CONFIRMED_BYTES_MAX: usize = 64 << 10;

/// How long a certificate is used before it is looked at again.
const KEPT_FOR: Duration = Duration::from_hours(24 * 7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_fetched_from_amazon_trust_services_alone() {
        for good in ["http://crt.r2m01.amazontrust.com/r2m01.cer", "http://crt.sca1b.amazontrust.com/sca1b.crt"] {
            assert!(is_amazon_trust(good), "{good}");
        }
        for bad in [
            "https://crt.r2m01.amazontrust.com/r2m01.cer",
            "http://crt.r2m01.amazontrust.com.evil.example/r2m01.cer",
            "http://crt.r2m01.amazontrust.com:8080/r2m01.cer",
            "http://crt.a@evil.example/.amazontrust.com/r2m01.cer",
            "http://crt.evil.example/.amazontrust.com/r2m01.cer",
            "http://crt.r2m01.amazontrust.com/../r2m01.cer",
            "http://crt.r2m01.amazontrust.com/r2m01.cer?x",
            "http://crt..amazontrust.com/r2m01.cer",
            "http://evil.example/crt.r2m01.amazontrust.com/r2m01.cer",
            "ldap://crt.r2m01.amazontrust.com/r2m01.cer",
            "",
        ] {
            assert!(!is_amazon_trust(bad), "{bad}");
        }
    }

    /// Makes authorities and certificates as Amazon's are: a root, an authority below it, and what that issued.
    const MAKE: &str = r#"
        set -eu
        new="-newkey rsa:2048 -nodes"
        root() { openssl req -x509 $new -days 30 -subj "/CN=$1" -keyout $1.key -out $1.pem; }
        issue() { # NAME ISSUER CN EXTENSIONS
            openssl req $new -subj "/CN=$3" -keyout $1.key -out $1.csr
            printf '%b' "$4" > $1.ext
            openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 30 -out $1.pem -extfile $1.ext
        }
        root root; root other
        issue middle root "Amazon RSA 2048 M01" "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign"
        issue leaf middle sns.amazonaws.com "subjectAltName=DNS:sns.amazonaws.com\nextendedKeyUsage=serverAuth\nauthorityInfoAccess=OCSP;URI:http://ocsp.r2m01.amazontrust.com,caIssuers;URI:http://crt.r2m01.amazontrust.com/r2m01.cer"
        issue regional middle sns-signing.af-south-1.amazonaws.com "subjectAltName=DNS:sns-signing.af-south-1.amazonaws.com\nextendedKeyUsage=serverAuth"
        issue foreign middle s3.amazonaws.com "subjectAltName=DNS:s3.amazonaws.com\nextendedKeyUsage=serverAuth\nauthorityInfoAccess=caIssuers;URI:http://evil.example/r2m01.cer"
        issue client middle sns.amazonaws.com "subjectAltName=DNS:sns.amazonaws.com\nextendedKeyUsage=clientAuth"
        issue forged other sns.amazonaws.com "subjectAltName=DNS:sns.amazonaws.com\nextendedKeyUsage=serverAuth"
    "#;

    #[test]
    fn a_certificate_needs_a_chain_to_an_authority_a_name_of_sns_and_its_time() {
        let folder = tempfile::tempdir().expect("folder");
        let made =
            std::process::Command::new("bash").args(["-c", MAKE]).current_dir(folder.path()).output().expect("runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let read = |name: &str| CertificateDer::from_pem_file(folder.path().join(format!("{name}.pem"))).expect("PEM");
        let config = crate::tls::ClientTlsConfig { ca: Some(folder.path().join("root.pem")), ..Default::default() };
        let verifier = config.plan("tls").expect("a plan").verifier().expect("an authority");
        let (now, names) = (Timestamp::now(), ["sns.amazonaws.com", "sns-signing.af-south-1.amazonaws.com"]);
        let names = names.map(str::to_owned);
        let check = |leaf: &str, chain: &[&str], now| {
            let chain: Vec<_> = chain.iter().map(|name| read(name)).collect();
            check_chain(verifier.as_ref(), &read(leaf), &chain, &names, now).map_err(|error| error.to_string())
        };
        assert_eq!(check("leaf", &["middle"], now), Ok(()));
        assert_eq!(check("regional", &["middle"], now), Ok(()));
        for (leaf, chain, now, words) in [
            ("leaf", &[][..], now, "UnknownIssuer"),
            ("leaf", &["other"], now, "UnknownIssuer"),
            ("foreign", &["middle"], now, "not valid for name"),
            ("client", &["middle"], now, "extended key usage"),
            ("forged", &["other"], now, "UnknownIssuer"),
            ("forged", &["middle"], now, "UnknownIssuer"),
            ("leaf", &["middle"], now + Duration::from_hours(24 * 31), "expired"),
            ("leaf", &["middle"], now - Duration::from_hours(24), "not valid yet"),
        ] {
            let refused = check(leaf, chain, now).expect_err(leaf);
            assert!(refused.contains(words) && refused.contains("verify.certificates"), "{leaf} {chain:?}: {refused}");
        }
        let at = |name: &str| issuer_url(&parse(&read(name)).expect("a certificate"));
        assert_eq!(at("leaf").as_deref(), Some("http://crt.r2m01.amazontrust.com/r2m01.cer"));
        assert_eq!((at("foreign"), at("regional")), (None, None));
    }
}
