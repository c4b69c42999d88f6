//! An identity provider on this machine, over TLS: what is asked of it, how often, and what is believed.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::ClientTlsConfig;

/// A provider that answers with what a test puts there.
struct Provider {
    issuer: String,
    certs: tempfile::TempDir,
    pages: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<AtomicUsize>,
    delay: Arc<Mutex<Duration>>,
}

async fn provider() -> Provider {
    let certs = tempfile::tempdir().expect("folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/certs.sh");
    assert!(Command::new("bash").arg(&script).arg(certs.path()).status().expect("runs").success());
    let chain = vec![CertificateDer::from_pem_file(certs.path().join("server.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certs.path().join("server.key")).expect("a key");
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let issuer = format!("https://localhost:{}/tenant/v2.0", listener.local_addr().expect("bound").port());
    let provider = Provider {
        issuer,
        certs,
        pages: Arc::default(),
        asked: Arc::default(),
        delay: Arc::new(Mutex::new(Duration::ZERO)),
    };
    let (pages, asked, delay) = (provider.pages.clone(), provider.asked.clone(), provider.delay.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, pages, asked, delay) = (acceptor.clone(), pages.clone(), asked.clone(), delay.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let (mut head, mut piece) = (Vec::new(), [0; 4096]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => head.extend_from_slice(&piece[..count]),
                    }
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let wait = *delay.lock().expect("no panic");
                tokio::time::sleep(wait).await;
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let page = pages.lock().expect("no panic").get(path).cloned();
                let answer = page.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned());
                let _closed_early = stream.write_all(answer.as_bytes()).await;
                let _closed_early = stream.shutdown().await;
            });
        }
    });
    provider
}

impl Provider {
    fn put(&self, path: &str, status: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.pages.lock().expect("no panic").insert(path.to_owned(), answer);
    }

    /// Publishes keys of these ids.
    fn publish(&self, ids: &[&str]) {
        let base = self.issuer.trim_end_matches("/tenant/v2.0");
        let discovery = format!(r#"{{"issuer":"{}","jwks_uri":"{base}/keys"}}"#, self.issuer);
        self.put("/tenant/v2.0/.well-known/openid-configuration", "200 OK", &discovery);
        let n = "w".to_owned() + &"A".repeat(341);
        let keys: Vec<String> =
            ids.iter().map(|id| format!(r#"{{"kty":"RSA","use":"sig","kid":"{id}","n":"{n}","e":"AQAB"}}"#)).collect();
        self.put("/keys", "200 OK", &format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
    }

    fn trust(&self) -> Trust {
        let tls = ClientTlsConfig { ca: Some(self.certs.path().join("ca.pem")), ..ClientTlsConfig::default() };
        trust_with(tls, &self.issuer)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn trust_with(tls: ClientTlsConfig, issuer: &str) -> Trust {
    let plan = TrustPlan { publisher: Publisher::Issuer(issuer.to_owned()), tls: tls.plan("tls").expect("a plan") };
    Trust::new(&"grid".parse().expect("a name"), &plan)
}

fn name(id: &str) -> KeyName {
    KeyName::Issued { id: id.to_owned() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

#[tokio::test]
async fn a_crowd_asks_once_and_a_new_set_replaces_the_old_one() {
    let provider = provider().await;
    provider.publish(&["one"]);
    let trust = provider.trust();
    assert!(trust.at(NOW).find(&name("one")).is_none());
    let (one, deadline) = (name("one"), soon());
    let crowd = (0..50).map(|_| trust.bring(&one, NOW, deadline));
    assert!(futures_util::future::join_all(crowd).await.iter().all(Result::is_ok));
    assert_eq!(provider.asked(), 2, "the document and the keys");
    assert!(trust.at(NOW).find(&name("one")).is_some());
    assert_eq!(trust.bring(&name("one"), NOW, soon()).await, Ok(()));
    assert_eq!(provider.asked(), 2);

    // A name that is nobody's is asked for once in a while, however often it is shown.
    for _ in 0..20 {
        assert_eq!(trust.bring(&name("made-up"), NOW, soon()).await, Err(NoKey::Absent));
    }
    assert_eq!(provider.asked(), 4);
    assert!(trust.at(NOW).find(&name("one")).is_some(), "what was known goes on");

    provider.publish(&["two"]);
    assert_eq!(trust.bring(&name("two"), NOW, soon()).await, Ok(()));
    assert!(trust.at(NOW).find(&name("one")).is_none(), "taken back by its issuer");

    // After its time a key is looked up again.
    let next_day = NOW + Duration::from_hours(24);
    assert!(trust.at(next_day).find(&name("two")).is_none());
    assert_eq!(trust.bring(&name("two"), next_day, soon()).await, Ok(()));
    assert!(trust.at(next_day).find(&name("two")).is_some());
    assert_eq!(provider.asked(), 8);
}

#[tokio::test]
async fn names_that_strangers_make_up_cost_a_bounded_number_of_questions() {
    let provider = provider().await;
    provider.publish(&["one"]);
    let trust = provider.trust();
    assert_eq!(trust.bring(&name("one"), NOW, soon()).await, Ok(()));
    let began = Instant::now();
    let mut absent = 0_u32;
    for number in 0..500 {
        match trust.bring(&name(&format!("made-up-{number}")), NOW, soon()).await {
            Err(NoKey::Absent) => absent += 1,
            Err(NoKey::NotNow) => {}
            Ok(()) => panic!("nobody has it"),
        }
    }
    let earned = began.elapsed().as_secs_f64() * FETCHES.per_second;
    assert!(f64::from(absent) <= FETCHES.burst + earned, "{absent}");
    assert!(provider.asked() <= 2 + 2 * usize::try_from(absent).expect("few"));
    assert!(trust.at(NOW).find(&name("one")).is_some());
}

#[tokio::test]
async fn who_waits_too_long_goes_away_and_the_key_comes_all_the_same() {
    let provider = provider().await;
    provider.publish(&["one"]);
    *provider.delay.lock().expect("no panic") = Duration::from_millis(400);
    let trust = provider.trust();
    let deadline = Instant::now() + Duration::from_millis(100);
    assert_eq!(trust.bring(&name("one"), NOW, deadline).await, Err(NoKey::NotNow));
    assert_eq!(trust.bring(&name("one"), NOW, soon()).await, Ok(()));
    assert_eq!(provider.asked(), 2, "the second one waited for the first one's question");
}

#[tokio::test]
async fn nothing_is_believed_from_an_issuer_that_is_not_the_pinned_one() {
    let provider = provider().await;
    provider.publish(&["one"]);
    let document = "/tenant/v2.0/.well-known/openid-configuration";
    let good = provider.pages.lock().expect("no panic")[document].clone();
    let ask = async |trust: Trust| (trust.bring(&name("one"), NOW, soon()).await, trust.probe(NOW).await);

    // Its certificate is of no authority that we trust.
    let (brought, probed) = ask(trust_with(ClientTlsConfig::default(), &provider.issuer)).await;
    assert_eq!(brought, Err(NoKey::NotNow));
    assert!(probed.expect_err("untrusted").contains("tls.ca"));

    // Its certificate is for another name.
    let ca = ClientTlsConfig { ca: Some(provider.certs.path().join("other-ca.pem")), ..ClientTlsConfig::default() };
    assert_eq!(ask(trust_with(ca, &provider.issuer)).await.0, Err(NoKey::NotNow));

    let evil = provider.issuer.replace("tenant", "other");
    for (status, body, words) in [
        ("200 OK", format!(r#"{{"issuer":"{evil}","jwks_uri":"https://localhost/keys"}}"#), "another name"),
        ("200 OK", format!(r#"{{"issuer":"{}","jwks_uri":"http://localhost/keys"}}"#, provider.issuer), "no https URL"),
        ("200 OK", "<html>".to_owned(), "cannot be read"),
        ("200 OK", " ".repeat(300 << 10), "more than"),
        ("302 Found\r\nLocation: /elsewhere", String::new(), "answered 302"),
        ("500 Oops", String::new(), "answered 500"),
        ("404 Not Found", String::new(), "verify.issuer"),
    ] {
        provider.put(document, status, &body);
        let (brought, probed) = ask(provider.trust()).await;
        assert!(brought.is_err(), "{status} {body:.60}");
        let probed = probed.expect_err(status);
        assert!(probed.contains(words), "{status} {body:.60}: {probed}");
    }

    provider.pages.lock().expect("no panic").insert(document.to_owned(), good);
    let trust = provider.trust();
    assert_eq!(trust.probe(NOW).await, Ok(format!("{} publishes 1 key(s) for RS256", provider.issuer)));
    assert_eq!(trust.bring(&name("one"), NOW, soon()).await, Ok(()));
}

#[tokio::test]
async fn when_nobody_answers_nobody_is_asked_for_a_moment() {
    let provider = provider().await;
    provider.put("/tenant/v2.0/.well-known/openid-configuration", "503 Later", "");
    let trust = provider.trust();
    for _ in 0..20 {
        assert_eq!(trust.bring(&name("one"), NOW, soon()).await, Err(NoKey::NotNow));
    }
    assert_eq!(provider.asked(), 1);
}
