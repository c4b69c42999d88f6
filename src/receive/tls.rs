//! TLS of a listener: its certificate, its clients' authorities, and taking both up when their files change.
//!
//! Invariants: TLS 1.2 and 1.3 only; HTTP/1.1 is all that is offered; what was good stays in use until something better was read,
//! and a change counts for new connections only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::TlsPlan;

/// The live TLS configuration of a listener.
#[derive(Debug)]
pub struct ServerTls {
    plan: TlsPlan,
    live: RwLock<Live>,
    /// What the files held at the last look, and what was wrong with it: each state is told once.
    seen: Mutex<(Files, Option<String>)>,
}

#[derive(Debug, Clone)]
struct Live {
    config: Arc<ServerConfig>,
    expires_at: Timestamp,
}

/// Why a listener's TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{path}: {error}: check the path and who may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The file holds nothing of the expected kind.
    #[error("{path}: no {what} in PEM form in it")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate is not one.
    #[error("{path}: the certificate cannot be read")]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate, key and authorities do not go together.
    #[error("{path}: {error}: check that the key belongs to the certificate")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// The library's words.
        error: String,
    },
}

/// The bytes of the files; the key's are wiped.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

impl ServerTls {
    /// Reads the files; what is wrong with them at the start is an error.
    pub fn open(plan: TlsPlan) -> Result<Self, TlsError> {
        let files = Files::read(&plan)?;
        let live = RwLock::new(build(&plan, &files)?);
        Ok(Self { plan, live, seen: Mutex::new((files, None)) })
    }

    /// What new connections use now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.live().config
    }

    /// When the certificate in use expires.
    pub fn expires_at(&self) -> Timestamp {
        self.live().expires_at
    }

    /// Takes up what changes, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REFRESH_EVERY).await;
            let tls = self.clone();
            // Files may stand on a slow disk; the next look is as good as this one if it fails.
            let _looked = tokio::task::spawn_blocking(move || tls.refresh()).await;
        }
    }

    /// Reads the files again now.
    pub fn refresh(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match Files::read(&self.plan) {
            Ok(files) if files == seen.0 => return,
            Ok(files) => files,
            Err(error) => return tell_once(&mut seen.1, &error),
        };
        match build(&self.plan, &files) {
            Ok(live) => {
                let certificate = self.plan.certificate.display();
                info!(%certificate, expires_at = %live.expires_at, "new certificate in use: {certificate}");
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
                *seen = (files, None);
            }
            // Certificate and key change one after the other: the next look finds them together.
            Err(error) => tell_once(&mut seen.1, &error),
        }
    }

    fn live(&self) -> Live {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn tell_once(told: &mut Option<String>, error: &TlsError) {
    let words = error.to_string();
    if told.as_ref() != Some(&words) {
        warn!("TLS files changed and cannot be used, the last good ones stay in use: {words}");
        *told = Some(words);
    }
}

impl Files {
    fn read(plan: &TlsPlan) -> Result<Self, TlsError> {
        let read = |path: &Path| fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error });
        Ok(Self {
            certificate: read(&plan.certificate)?,
            key: read(&plan.key)?.into(),
            client_ca: plan.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

fn build(plan: &TlsPlan, files: &Files) -> Result<Live, TlsError> {
    let unusable = |error: String| TlsError::Unusable { path: plan.certificate.clone(), error };
    let chain = certificates(&plan.certificate, &files.certificate)?;
    let expires_at = expires_at(&chain[0]).ok_or(TlsError::Certificate { path: plan.certificate.clone() })?;
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| TlsError::Pem { path: plan.key.clone(), what: "private key" })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match (&plan.client_ca, &files.client_ca) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, pem)? {
                roots.add(authority).map_err(|_| TlsError::Certificate { path: path.clone() })?;
            }
            // A source that pins subjects demands a certificate itself; the others on this listener need none.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Live { config: Arc::new(config), expires_at })
}

/// All certificates of a file; at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = || TlsError::Pem { path: path.to_owned(), what: "certificate" };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| none())?;
    if all.is_empty() { Err(none()) } else { Ok(all) }
}

fn expires_at(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The names that a client certificate goes by: its whole subject, its common names, its DNS names and URIs.
///
/// The certificate was checked against its authority before; one that cannot be read has no names.
pub(super) fn names_of(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let mut names = vec![certificate.subject().to_string()];
    names.extend(certificate.subject().iter_common_name().filter_map(|name| Some(name.as_str().ok()?.to_owned())));
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}

/// A change is taken up within 10 s.
const REFRESH_EVERY: Duration = Duration::from_secs(4);
