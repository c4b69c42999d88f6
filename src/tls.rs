//! TLS as a client: whom we trust, who we are, and what went wrong in an operator's words.
//!
//! Invariants: a connection is verified unless the config says `dangerous_skip_verify` in so many words, and nothing falls back to
//! plain text; files are read at each [`ClientTls::load`], so a rotation needs no restart; TLS 1.2 and 1.3 only.
//!
//! Not here: the receiver's and the API's side (`receive`), Kafka's TLS, which its client library does (`sink/kafka`).

use std::error::Error;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};

use crate::setting::Problem;

/// TLS of one client, as written in the config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTlsConfig {
    /// PEM file with the certificate authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file with our certificate and its chain, for servers that ask for one. Needs `key`.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of `certificate`.
    pub key: Option<PathBuf>,
    /// Name that the server's certificate has to carry, where it is not the host of the address.
    pub server_name: Option<String>,
    /// Takes any certificate of the server, so anyone on the way can read and change what is sent. Only for trying things out.
    #[serde(default)]
    pub dangerous_skip_verify: bool,
}

/// TLS of one client, valid as far as can be seen without reading its files.
#[derive(Debug, Clone)]
pub struct ClientTls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<ServerName<'static>>,
    skip_verify: bool,
}

impl ClientTlsConfig {
    /// Whether nothing is set.
    pub const fn is_default(&self) -> bool {
        self.ca.is_none()
            && self.certificate.is_none()
            && self.key.is_none()
            && self.server_name.is_none()
            && !self.dangerous_skip_verify
    }

    /// Validates without I/O; `key` is the path of this table in the config.
    pub fn plan(self, key: &str) -> Result<ClientTls, Vec<Problem>> {
        let mut problems = Vec::new();
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(private_key)) => Some((certificate, private_key)),
            (None, None) => None,
            (Some(_), None) => {
                problems
                    .push(Problem::new(format!("{key}.key"), "certificate is set, so its private key is needed too"));
                None
            }
            (None, Some(_)) => {
                problems
                    .push(Problem::new(format!("{key}.certificate"), "key is set, so its certificate is needed too"));
                None
            }
        };
        if self.dangerous_skip_verify && (self.ca.is_some() || self.server_name.is_some()) {
            problems.push(Problem::new(
                format!("{key}.dangerous_skip_verify"),
                "ca and server_name mean nothing when the certificate is not verified: remove them or this",
            ));
        }
        let server_name = self.server_name.and_then(|name| {
            let parsed = ServerName::try_from(name.clone());
            if parsed.is_err() {
                problems
                    .push(Problem::new(format!("{key}.server_name"), format!("\"{name}\" is no host name or address")));
            }
            parsed.ok()
        });
        if problems.is_empty() {
            Ok(ClientTls { ca: self.ca, identity, server_name, skip_verify: self.dangerous_skip_verify })
        } else {
            Err(problems)
        }
    }
}

/// Why our side of a TLS connection could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file could not be read.
    #[error("cannot read {path}: {reason}; check the path, its owner and its rights")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A PEM file holds no certificate.
    #[error("{0} holds no certificate: it has to be PEM, with BEGIN CERTIFICATE")]
    Empty(PathBuf),
    /// A certificate of the CA file can't be used.
    #[error("{path} holds a certificate that cannot be trusted as a CA: {reason}")]
    BadCa {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: rustls::Error,
    },
    /// The certificate and the key do not belong together, or are of no use.
    #[error("{certificate} and {key} cannot be used together: {reason}")]
    Identity {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        reason: rustls::Error,
    },
    /// No CA is configured, and the system has none.
    #[error("the system has no certificate authorities: set tls.ca, or install the ca-certificates package")]
    NoSystemRoots,
    /// The address's host can't be the name of a certificate.
    #[error("\"{0}\" cannot be the name in a certificate: set tls.server_name")]
    Name(String),
}

impl ClientTls {
    /// Who checks certificates against the authorities that are trusted, whatever `dangerous_skip_verify` says. Reads the files.
    pub fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = self.ca.as_deref().map_or_else(system_roots, roots_of)?;
        Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("the root store is not empty and there are no revocation lists"))
    }

    /// Reads the files and makes the config of the next connections. Blocks for the time of reading a few small files.
    pub fn load(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if self.skip_verify {
            Arc::new(AnyCertificate(Arc::clone(&provider)))
        } else {
            let inner = self.verifier()?;
            match &self.server_name {
                Some(name) => Arc::new(OtherName { name: name.clone(), inner }),
                None => inner,
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates_of(certificate)?;
        let private_key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| TlsError::Unreadable { path: key.clone(), reason: error.to_string() })?;
        builder.with_client_auth_cert(chain, private_key).map_err(|reason| TlsError::Identity {
            certificate: certificate.clone(),
            key: key.clone(),
            reason,
        })
    }

    /// What the files look like now, to notice a rotation; a file that can't be seen counts as absent.
    pub fn stamp(&self) -> Stamp {
        let (certificate, key) = self.identity.as_ref().map_or((None, None), |(c, k)| (Some(c), Some(k)));
        let file = |path: Option<&PathBuf>| {
            let look = |meta: Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
            path.and_then(|path| std::fs::metadata(path).ok()).map(look)
        };
        Stamp([file(self.ca.as_ref()), file(certificate), file(key)])
    }

    /// The name that a server at `host` has to prove.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned())),
        }
    }

    /// Whether any certificate is taken.
    pub const fn skips_verify(&self) -> bool {
        self.skip_verify
    }

    /// The CA file, for clients that read it themselves.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The files of our certificate and key, for clients that read them themselves.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        self.identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()))
    }
}

/// What the files of a [`ClientTls`] looked like: device, inode, size, time of change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp([Option<FileStamp>; 3]);

type FileStamp = (u64, u64, u64, i64, i64);

/// The config of a client that speaks without TLS only. It is named all the same: the library's own asks the machine for certificate
/// authorities, and fails where there are none.
pub fn trusting_nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// What to mend, where the cause of `error` is TLS; None where it is anything else.
pub fn why(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(words(tls));
        }
        // `source` of an I/O error skips the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map_or_else(|| error.source(), |inner| Some(inner as &(dyn Error + 'static)));
    }
    None
}

fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer => {
                "the server's certificate is signed by no CA that we trust: set tls.ca to the CA's PEM file".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the server's certificate is for another name ({fault}): set tls.server_name, or use that name in the address"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the server's certificate has expired ({fault}): renew it there, or check our clock")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the server's certificate is not valid yet ({fault}): check the clocks")
            }
            CertificateError::Other(OtherError(other)) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the server's certificate is a CA's: self-signed ones need the extension CA:FALSE, or a CA above them"
                    .to_owned()
            }
            _ => format!("the server's certificate is not acceptable: {fault}"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                "the server wants a client certificate: set tls.certificate and tls.key".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => {
                format!(
                    "the server refused our client certificate ({alert:?}): check tls.certificate, tls.key, and which CA and names it accepts"
                )
            }
            AlertDescription::UnrecognisedName => {
                "the server knows no certificate for this name: set tls.server_name".to_owned()
            }
            _ => format!(
                "the server ended the handshake ({alert:?}): check its TLS versions, suites and client certificates"
            ),
        },
        rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS: check the port".to_owned(),
        rustls::Error::PeerIncompatible(reason) => {
            format!("the server speaks no TLS that we accept ({reason:?}): it needs TLS 1.2 or 1.3")
        }
        other => other.to_string(),
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(path)? {
        roots.add(certificate).map_err(|reason| TlsError::BadCa { path: path.to_owned(), reason })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error: rustls::pki_types::pem::Error| TlsError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        certificates.push(certificate.map_err(unreadable)?);
    }
    if certificates.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(certificates) }
}

/// Verifies the certificate for the configured name instead of the address's host: HTTP clients take the name from the URL.
#[derive(Debug)]
struct OtherName {
    name: ServerName<'static>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for OtherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// `dangerous_skip_verify`: takes whatever certificate comes, as long as the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_needs_its_key_and_verification_is_all_or_nothing() {
        for (json, keys) in [
            (serde_json::json!({"certificate": "c.pem"}), vec!["tls.key"]),
            (serde_json::json!({"key": "k.pem"}), vec!["tls.certificate"]),
            (serde_json::json!({"ca": "ca.pem", "dangerous_skip_verify": true}), vec!["tls.dangerous_skip_verify"]),
            (serde_json::json!({"server_name": "not a name"}), vec!["tls.server_name"]),
            (serde_json::json!({}), vec![]),
        ] {
            let config: ClientTlsConfig = serde_json::from_value(json).expect("is a config");
            let problems = config.plan("tls").err().unwrap_or_default();
            assert_eq!(problems.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), keys);
        }
    }

    #[test]
    fn a_file_that_changes_or_vanishes_changes_the_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        let config = ClientTlsConfig { ca: Some(ca.clone()), ..ClientTlsConfig::default() };
        let tls = config.plan("tls").expect("is valid");
        let mut stamps = vec![tls.stamp()];
        for content in ["one", "two!"] {
            std::fs::write(&ca, content).expect("writes");
            stamps.push(tls.stamp());
        }
        assert_eq!(tls.stamp(), stamps[2]);
        assert!(stamps[0] != stamps[1] && stamps[1] != stamps[2]);
    }

    #[test]
    fn the_cause_is_found_behind_the_errors_that_wrap_it() {
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert!(why(&wrapped).is_some_and(|words| words.contains("tls.certificate")));
        assert_eq!(why(&io::Error::from(io::ErrorKind::BrokenPipe)), None);
    }
}
