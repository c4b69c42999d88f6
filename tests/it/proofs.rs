//! Proofs that need somebody else's public key, against the real program: certificates of Amazon SNS that the config pins, and tokens of
//! an identity provider that this test plays on the loopback interface.
//!
//! What is signed here is signed with openssl, not with the program's own code.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{Answer, Sender, Service, Site, lock, wait_until};

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:MyTopic";
const AUDIENCE: &str = "00000000-0000-4000-8000-000000000002";

/// Runs openssl, which has to succeed.
fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The PKCS #1 v1.5 signature of a key over `bytes`.
fn sign(folder: &Path, key: &str, hash: &str, bytes: &[u8]) -> Vec<u8> {
    fs::write(folder.join("text"), bytes).expect("written");
    openssl(folder, &["dgst", hash, "-sign", key, "-out", "signature", "text"]);
    fs::read(folder.join("signature")).expect("signed")
}

fn post(service: &Service, target: &str, headers: &str, body: &str) -> Answer {
    request(service, "POST", target, headers, body)
}

fn request(service: &Service, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let mut sender = Sender::connect(service.receiver).expect("connects");
    let length = body.len();
    let head = format!(
        "{method} /v1/hooks/{target} HTTP/1.1\r\nHost: relay\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    sender.send(format!("{head}{body}").as_bytes()).expect("sends");
    sender.answer().expect("an answer")
}

/// A message of SNS, signed as its documentation says.
fn sns(folder: &Path, kind: &str, version: &str, time: Timestamp) -> Value {
    let mut message = json!({
        "Type": kind, "MessageId": format!("id-{kind}-{version}"), "TopicArn": TOPIC, "Message": "{\"status\": \"infected\"}",
        "Timestamp": time.to_string(), "SignatureVersion": version, "Token": "2336412f37",
        "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    });
    let names: &[&str] = match kind {
        "Notification" => &["Message", "MessageId", "Timestamp", "TopicArn", "Type"],
        _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
    };
    let lines = names.iter().map(|name| format!("{name}\n{}\n", message[*name].as_str().expect("text")));
    let hash = if version == "1" { "-sha1" } else { "-sha256" };
    let signature = sign(folder, "sns.key", hash, lines.collect::<String>().as_bytes());
    message["Signature"] = json!(STANDARD.encode(signature));
    message
}

#[test]
fn messages_of_sns_are_proven_by_the_pinned_certificate() {
    let mut site = Site::new();
    let folder = site.folder.path().to_owned();
    let make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=sns.test.example"];
    openssl(&folder, &[&make[..], &["-keyout", "sns.key", "-out", "sns.pem"]].concat());
    // Authorities that cannot be read: whatever goes wrong here, nothing goes out to the world.
    site.more = format!(
        "[sources.sns]\nadapter = \"native\"\n[sources.sns.verify]\nscheme = \"sns\"\ntopics = [\"{TOPIC}\"]\n\
         certificates = [\"{}\"]\ntls = {{ ca = \"/nowhere/at/all.pem\" }}\n",
        folder.join("sns.pem").display()
    );
    let service = site.start();
    let text = "Content-Type: text/plain; charset=UTF-8\r\nx-amz-sns-message-type: Notification\r\n";
    let now = Timestamp::now();
    for version in ["1", "2"] {
        let good = sns(&folder, "Notification", version, now).to_string();
        assert_eq!(post(&service, "sns", text, &good).status, 202, "version {version}");
        assert_eq!(post(&service, "sns", text, &good.replace("infected", "harmless")).status, 401);
        assert_eq!(post(&service, "sns", "x-amz-sns-rawdelivery: true\r\n", &good).status, 401);
    }
    let repeated = post(&service, "sns", text, &sns(&folder, "Notification", "2", now).to_string());
    let again = post(&service, "sns", text, &sns(&folder, "Notification", "2", now).to_string());
    assert_eq!((repeated.status, &repeated.body), (202, &again.body), "an exact repeat is the same delivery");
    let old = sns(&folder, "Notification", "2", now - Duration::from_hours(2));
    assert_eq!(post(&service, "sns", text, &old.to_string()).status, 401);
    let accepted = service.metric("verdict_relay_deliveries_total", &["source=\"sns\""]);

    let asked = post(&service, "sns", text, &sns(&folder, "SubscriptionConfirmation", "2", now).to_string());
    let ended = post(&service, "sns", text, &sns(&folder, "UnsubscribeConfirmation", "2", now).to_string());
    assert_eq!((asked.status, ended.status), (200, 200), "{asked:?} {ended:?}");
    wait_until("the end of a subscription is told", Duration::from_secs(10), || {
        service.log().contains("subscribe again in AWS")
    });
    assert_eq!(
        service.metric("verdict_relay_deliveries_total", &["source=\"sns\""]),
        accepted,
        "handshakes are not kept"
    );
    assert!(!service.log().contains("2336412f37"), "the token of a subscription is in the log");
    assert!(service.stop().0.success());
}

/// An identity provider on the loopback interface.
struct Provider {
    folder: TempDir,
    address: SocketAddr,
    pages: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/certs.sh");
        assert!(Command::new("bash").arg(&script).arg(folder.path()).status().expect("runs").success());
        let read = |name: &str| folder.path().join(name);
        let chain = vec![CertificateDer::from_pem_file(read("server.pem")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(read("server.key")).expect("a key");
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.local_addr().expect("bound");
        let provider = Self { folder, address, pages: Arc::default(), asked: Arc::default() };
        let (pages, asked) = (provider.pages.clone(), provider.asked.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let connection = rustls::ServerConnection::new(config.clone()).expect("a good config");
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let (mut head, mut piece) = (Vec::new(), [0; 4096]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => head.extend_from_slice(&piece[..count]),
                    }
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head).into_owned();
                let page = lock(&pages).get(head.split(' ').nth(1).unwrap_or_default()).cloned();
                let (status, body) = page.map_or(("503 Later", String::new()), |body| ("200 OK", body));
                let length = body.len();
                let _gone =
                    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                stream.conn.send_close_notify();
                let _gone = stream.flush();
            }
        });
        provider
    }

    fn issuer(&self) -> String {
        format!("https://localhost:{}/tenant/v2.0", self.address.port())
    }

    /// Makes a key and publishes it alone.
    fn publish(&self, id: &str) {
        let folder = self.folder.path();
        let key = format!("{id}.issuer");
        openssl(folder, &["genrsa", "-out", &key, "2048"]);
        let modulus =
            Command::new("openssl").args(["rsa", "-noout", "-modulus", "-in", &key]).current_dir(folder).output();
        let modulus = String::from_utf8(modulus.expect("openssl runs").stdout).expect("text");
        let digits = modulus.trim().strip_prefix("Modulus=").expect("its modulus").to_lowercase();
        let n = URL_SAFE_NO_PAD.encode(hex::decode(digits).expect("digits"));
        let set = json!({"keys": [{"kty": "RSA", "use": "sig", "kid": id, "n": n, "e": "AQAB"}]});
        let keys_at = format!("https://localhost:{}/keys", self.address.port());
        let document = json!({"issuer": self.issuer(), "jwks_uri": keys_at});
        let mut pages = lock(&self.pages);
        pages.insert("/tenant/v2.0/.well-known/openid-configuration".to_owned(), document.to_string());
        pages.insert("/keys".to_owned(), set.to_string());
    }

    /// The header with a token by the key of this id.
    fn bearer(&self, id: &str, audience: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let now = Timestamp::now().as_second();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": id});
        let claims =
            json!({"iss": self.issuer(), "aud": audience, "exp": now + 3600, "nbf": now - 10, "azp": "event-grid"});
        let signed = format!("{}.{}", part(&header.to_string()), part(&claims.to_string()));
        let signature = sign(self.folder.path(), &format!("{id}.issuer"), "-sha256", signed.as_bytes());
        format!("Authorization: Bearer {signed}.{}\r\n", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[test]
fn events_of_event_grid_are_proven_by_the_tokens_of_the_tenant() {
    let provider = Provider::start();
    let mut site = Site::new();
    site.more = format!(
        "[sources.grid]\nadapter = \"native\"\n[sources.grid.verify]\nscheme = \"event-grid\"\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\n\
         applications = [\"event-grid\"]\ntls = {{ ca = \"{}\" }}\n",
        provider.issuer(),
        provider.folder.path().join("ca.pem").display()
    );
    let service = site.start();
    openssl(provider.folder.path(), &["genrsa", "-out", "one.issuer", "2048"]);
    let body = "[]";

    // Without its keys the trouble is ours, and it is asked again only after a moment.
    let early = provider.bearer("one", AUDIENCE);
    for _ in 0..5 {
        let answer = post(&service, "grid", &early, body);
        assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true), "{answer:?}");
    }
    assert!(provider.asked.load(Ordering::SeqCst) <= 2);
    assert!(service.log().contains("answered 503"), "{}", service.log());

    provider.publish("one");
    let good = provider.bearer("one", AUDIENCE);
    wait_until("the keys are fetched", Duration::from_secs(30), || post(&service, "grid", &good, body).status == 202);
    assert_eq!(post(&service, "grid", &early, body).status, 401, "the key of the same name was another one");
    assert_eq!(post(&service, "grid", &provider.bearer("one", "somebody-else"), body).status, 401);
    assert_eq!(post(&service, "grid", "", body).status, 401);
    assert_eq!(post(&service, "grid", &good.replace("\r\n", "x\r\n"), body).status, 401);

    // A new key is found by its name, and the old one is gone with the old set.
    provider.publish("two");
    assert_eq!(post(&service, "grid", &provider.bearer("two", AUDIENCE), body).status, 202);
    assert_ne!(post(&service, "grid", &good, body).status, 202);

    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/payloads/azure_defender_storage/event_grid_subscription_validation.json");
    let validation = fs::read_to_string(file).expect("the payload");
    let asks = format!("{}aeg-event-type: SubscriptionValidation\r\n", provider.bearer("two", AUDIENCE));
    let answer = post(&service, "grid", &asks, &validation);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    let preflight = request(&service, "OPTIONS", "grid", "WebHook-Request-Origin: eventgrid.azure.net\r\n", "");
    assert_eq!(preflight.headers.get("webhook-allowed-origin").map(String::as_str), Some("eventgrid.azure.net"));

    let log = service.log();
    for token in [&good, &asks] {
        let signature = token.split('.').nth(2).and_then(|rest| rest.get(..40)).expect("a signature");
        assert!(!log.contains(signature), "a token is in the log:\n{log}");
    }
    assert!(service.stop().0.success());
}
