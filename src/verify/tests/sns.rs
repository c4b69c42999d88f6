//! Messages of Amazon SNS: signed here with a key of our own, as SNS does it, and changed as a forger would.

use std::sync::OnceLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value as Json, json};

use super::*;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:MyTopic";
const CERTIFICATE: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem";
const SUBSCRIBE: &str = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-west-1:123456789012:MyTopic&Token=2336412f37";
/// 2023-11-14T22:13:20Z.
const TIME: &str = "2023-11-14T22:13:20.000Z";

fn pair() -> &'static RsaKeyPair {
    static PAIR: OnceLock<RsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a pair"))
}

/// Our public key in PEM form.
fn pem() -> String {
    let der = pair().public_key().as_der().expect("DER");
    let lines: Vec<String> = STANDARD
        .encode(der.as_ref())
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// What SNS signs, written down once more, after its documentation.
fn canonical(message: &Json) -> String {
    let names: &[&str] = match message["Type"].as_str() {
        Some("Notification") => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
        _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
    };
    names.iter().filter_map(|name| Some(format!("{name}\n{}\n", message[*name].as_str()?))).collect()
}

fn sign_message(mut message: Json) -> Json {
    let text = canonical(&message);
    let mut signature = vec![0; pair().public_modulus_len()];
    pair().sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signs");
    message["Signature"] = json!(STANDARD.encode(signature));
    message
}

fn notification() -> Json {
    json!({
        "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": TOPIC, "Subject": "My subject",
        "Message": "{\"status\": \"infected\"}\nand a second line", "Timestamp": TIME, "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE, "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    })
}

fn subscription(kind: &str) -> Json {
    json!({
        "Type": kind, "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b", "TopicArn": TOPIC, "Token": "2336412f37",
        "Message": "You have chosen to subscribe ...", "SubscribeURL": SUBSCRIBE, "Timestamp": TIME, "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE,
    })
}

/// The scheme that believes our key alone.
fn pinned() -> Scheme {
    plan(&format!("scheme = \"sns\"\ntopics = [\"{TOPIC}\"]\ncertificates = [\"{}\"]", pem().replace('\n', "\\n")))
        .expect("plan")
}

fn fetched() -> Scheme {
    plan(&format!("scheme = \"sns\"\ntopics = [\"{TOPIC}\"]")).expect("plan")
}

fn prove(scheme: &Scheme, message: &Json) -> Result<Proven, Refusal> {
    check(scheme, &[], &List::of(&[]), message.to_string().as_bytes(), NOW)
}

/// Keys that were fetched: ours, under one name.
struct Fetched(KeyName);

impl PublicKeys for Fetched {
    fn find(&self, name: &KeyName) -> Option<PublicKey> {
        (*name == self.0).then(|| PublicKey::read(public_key::Kind::Rsa, pem().as_bytes()).expect("a key"))
    }
}

#[test]
fn a_signed_message_passes_and_no_signed_field_can_change() {
    let scheme = pinned();
    for message in [notification(), subscription("SubscriptionConfirmation"), subscription("UnsubscribeConfirmation")] {
        let good = sign_message(message);
        let (_, _, evidence) = prove(&scheme, &good).expect("signed").into_parts();
        assert_eq!(evidence.sender_id.as_deref(), good["MessageId"].as_str());
        assert_eq!(evidence.signed_at.map(Timestamp::as_second), Some(NOW));
        assert!(matches!(evidence.how, How::Signature { key_id } if key_id.starts_with("sha256:")));
        for field in [
            "Type",
            "MessageId",
            "TopicArn",
            "Subject",
            "Message",
            "Timestamp",
            "Token",
            "SubscribeURL",
            "Signature",
            "SignatureVersion",
        ] {
            let Some(text) = good[field].as_str() else { continue };
            for at in 0..text.len() {
                let mut bad = good.clone();
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'2' { b'3' } else { b'2' };
                bad[field] = json!(String::from_utf8(bytes).expect("ASCII"));
                assert!(prove(&scheme, &bad).is_err(), "byte {at} of {field}");
                bad[field] = json!(text[..at]);
                assert!(prove(&scheme, &bad).is_err(), "{field} cut at {at}");
            }
            let mut bad = good.clone();
            bad[field] = Json::Null;
            assert!(prove(&scheme, &bad).is_err(), "without {field}");
        }
    }
    // A subject that is not there is not signed, and cannot be put in.
    let mut plain = notification();
    plain.as_object_mut().expect("an object").remove("Subject");
    let mut good = sign_message(plain);
    assert!(prove(&scheme, &good).is_ok());
    good["Subject"] = json!("a");
    assert_eq!(refusal(prove(&scheme, &good)), Refusal::Mismatch);
}

#[test]
fn version_1_is_sha1_and_a_version_cannot_be_taken_for_the_other() {
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str| folder.path().join(name);
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair().as_der().expect("DER");
    std::fs::write(file("key.der"), private.as_ref()).expect("written");
    let mut message = notification();
    message["SignatureVersion"] = json!("1");
    std::fs::write(file("text"), canonical(&message)).expect("written");
    // aws-lc signs nothing with SHA-1 any more; openssl is another program, which is all the better.
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["dgst", "-sha1", "-keyform", "DER", "-sign"]).arg(file("key.der")).arg("-out").arg(file("signature"));
    assert!(openssl.arg(file("text")).status().expect("openssl runs").success());
    message["Signature"] = json!(STANDARD.encode(std::fs::read(file("signature")).expect("signed")));
    assert!(prove(&pinned(), &message).is_ok());
    message["SignatureVersion"] = json!("2");
    assert_eq!(refusal(prove(&pinned(), &message)), Refusal::Mismatch);
    let mut second = sign_message(notification());
    second["SignatureVersion"] = json!("1");
    assert_eq!(refusal(prove(&pinned(), &second)), Refusal::Mismatch);
    second["SignatureVersion"] = json!("3");
    assert_eq!(refusal(prove(&pinned(), &second)), Refusal::Malformed);
}

#[test]
fn only_pinned_topics_are_believed_and_only_they_make_us_ask_for_a_certificate() {
    let headers = List::of(&[]);
    let asks = |message: &Json| wanted(&fetched(), &request(&headers), message.to_string().as_bytes());
    let good = sign_message(notification());
    let Some(name @ KeyName::Certificate(_)) = asks(&good) else { panic!("{:?}", asks(&good)) };
    assert_eq!(refusal(prove(&fetched(), &good)), Refusal::KeyNotLoaded);
    let keys = Fetched(name.clone());
    let with = |message: &Json| {
        let request = Request { public_keys: &keys, ..request(&headers) };
        let now = Timestamp::from_second(NOW).expect("in range");
        verify(&fetched(), &[], &request, message.to_string().into(), now)
    };
    assert_eq!(with(&good).expect("fetched").into_parts().2.how, How::Signature { key_id: CERTIFICATE.to_owned() });
    let KeyName::Certificate(url) = name else { unreachable!() };
    assert_eq!(
        (url.as_str(), url.names()),
        (CERTIFICATE, &["sns.amazonaws.com".to_owned(), "sns-signing.eu-west-1.amazonaws.com".to_owned()][..])
    );
    assert_eq!(asks(&good).filter(|_| pinned().needs_keys()), None);
    assert_eq!(wanted(&pinned(), &request(&headers), good.to_string().as_bytes()), None);

    let mut foreign = notification();
    foreign["TopicArn"] = json!("arn:aws:sns:eu-west-1:999999999999:MyTopic");
    let foreign = sign_message(foreign);
    assert_eq!(refusal(with(&foreign)), Refusal::Pin);
    assert_eq!(asks(&foreign), None);
    for tail in ["", "-raw", "*", ":sub"] {
        let mut like = good.clone();
        like["TopicArn"] = json!(format!("{}{tail}", &TOPIC[..TOPIC.len() - 1]));
        assert_eq!(refusal(with(&like)), Refusal::Pin, "{tail}");
    }
}

#[test]
fn certificates_come_from_sns_in_the_topics_region_and_nowhere_else() {
    let hostile = [
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "HTTPS://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com.cn/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-a.pem",
        "https://evil.example@sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com:443/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com./SimpleNotificationService-a.pem",
        "https://SNS.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com\\@evil.example/SimpleNotificationService-a.pem",
        "https://evil.example/sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://evil.example#sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://evil.example?https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns-eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://s3.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.s3.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com//SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/bucket/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem?x=y",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem#x",
        "https://sns.eu-west-1.amazonaws.com/?x=/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-%2e%2e.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-../a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem ",
        " https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a\n.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.der",
        "https://sns.eu-west-1.amazonaws.com/key.pem",
        "https://169.254.169.254/SimpleNotificationService-a.pem",
        "https://localhost/SimpleNotificationService-a.pem",
        "file:///etc/SimpleNotificationService-a.pem",
        "//sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
        "",
    ];
    let headers = List::of(&[]);
    for url in hostile {
        let mut message = notification();
        message["SigningCertURL"] = json!(url);
        let message = sign_message(message);
        // The signature is good, and is over none of this.
        for scheme in [pinned(), fetched()] {
            assert_eq!(refusal(prove(&scheme, &message)), Refusal::KeyPlace, "{url}");
        }
        assert_eq!(wanted(&fetched(), &request(&headers), message.to_string().as_bytes()), None, "{url}");

        let mut message = subscription("SubscriptionConfirmation");
        message["SubscribeURL"] =
            json!(url.replace("/SimpleNotificationService-a.pem", "/?Action=ConfirmSubscription&Token=a"));
        assert!(prove(&pinned(), &sign_message(message)).is_err(), "{url}");
    }
    for (arn, url, name) in [
        (
            "arn:aws-cn:sns:cn-north-1:123456789012:T",
            "https://sns.cn-north-1.amazonaws.com.cn/",
            "sns-cn-north-1.amazonaws.com.cn",
        ),
        (
            "arn:aws-us-gov:sns:us-gov-east-1:123456789012:T",
            "https://sns.us-gov-east-1.amazonaws.com/",
            "sns-us-gov-west-1.amazonaws.com",
        ),
        (
            "arn:aws:sns:af-south-1:123456789012:T.fifo",
            "https://sns.af-south-1.amazonaws.com/",
            "sns-signing.af-south-1.amazonaws.com",
        ),
    ] {
        let scheme = plan(&format!("scheme = \"sns\"\ntopics = [\"{arn}\"]")).expect(arn);
        let mut message = notification();
        (message["TopicArn"], message["SigningCertURL"]) =
            (json!(arn), json!(format!("{url}SimpleNotificationService-a.pem")));
        let Some(KeyName::Certificate(url)) =
            wanted(&scheme, &request(&headers), sign_message(message).to_string().as_bytes())
        else {
            panic!("{arn}")
        };
        assert!(url.names().iter().any(|other| other == name), "{:?}", url.names());
    }
}

#[test]
fn a_subscription_is_confirmed_where_sns_says_and_an_end_is_only_told() {
    let handshake = |message: Json| prove(&pinned(), &sign_message(message)).map(|proven| proven.handshake().cloned());
    assert_eq!(handshake(notification()), Ok(None));
    let Ok(Some(Handshake::Subscription { url, topic })) = handshake(subscription("SubscriptionConfirmation")) else {
        panic!()
    };
    assert_eq!((url.as_str(), topic.as_str()), (SUBSCRIBE, TOPIC));
    let ended = handshake(subscription("UnsubscribeConfirmation"));
    assert_eq!(ended, Ok(Some(Handshake::Unsubscribed { topic: TOPIC.to_owned() })));
    // A header that anybody can write decides nothing.
    let headers = List::of(&[("x-amz-sns-message-type", "SubscriptionConfirmation")]);
    let proven =
        check(&pinned(), &[], &headers, sign_message(notification()).to_string().as_bytes(), NOW).expect("signed");
    assert_eq!(proven.handshake(), None);
    for url in [
        "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe&Token=a",
        "https://sns.eu-west-1.amazonaws.com/?Token=Action=ConfirmSubscription",
        "https://sns.eu-west-1.amazonaws.com/x?Action=ConfirmSubscription",
        "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=a b",
        "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription#a",
    ] {
        let mut message = subscription("SubscriptionConfirmation");
        message["SubscribeURL"] = json!(url);
        assert_eq!(handshake(message), Err(Refusal::KeyPlace), "{url}");
    }
}

#[test]
fn old_raw_and_ambiguous_messages_are_refused() {
    let good = sign_message(notification());
    let body = good.to_string();
    let at = |now| check(&pinned(), &[], &List::of(&[]), body.as_bytes(), now).map(|_| ());
    for (offset, passes) in [(-5401, false), (-5400, true), (5400, true), (5401, false)] {
        assert_eq!(at(NOW + offset), if passes { Ok(()) } else { Err(Refusal::Timestamp) }, "{offset}");
    }
    let raw = List::of(&[("x-amz-sns-rawdelivery", "true")]);
    assert_eq!(refusal(check(&pinned(), &[], &raw, body.as_bytes(), NOW)), Refusal::Unsigned);
    for (bad, why) in [
        (body.replacen('{', "{\"Message\":\"clean\",", 1), "a field twice"),
        (body.replacen('{', "{\"message\":\"clean\",", 1), "a field in two spellings"),
        (format!("{body}{{}}"), "two values"),
        (format!("[{body}]"), "a list"),
        ("{}".to_owned(), "nothing"),
        (String::new(), "no body"),
        (body.replace("\"Notification\"", "\"notification\""), "another type"),
    ] {
        let refused = refusal(check(&pinned(), &[], &List::of(&[]), bad.as_bytes(), NOW));
        assert!(matches!(refused, Refusal::Malformed | Refusal::Pin), "{why}: {refused:?}");
    }
    assert_eq!(at(NOW), Ok(()));
    let repeat = |message: &Json| prove(&pinned(), message).expect("signed").repeat();
    let mut other = notification();
    other["MessageId"] = json!("another");
    assert!(repeat(&good).is_some() && repeat(&good) == repeat(&good.clone()));
    assert_ne!(repeat(&good), repeat(&sign_message(other)));
}

#[test]
fn lines_cannot_move_from_one_field_to_another() {
    // Signed: a message whose own text looks like the fields that follow it. Its author may choose it; he may not choose more.
    let mut signed = notification();
    signed.as_object_mut().expect("an object").remove("Subject");
    signed["Message"] = json!("clean\nMessageId\nfake\nSubject\nx");
    let signed = sign_message(signed);
    assert!(prove(&pinned(), &signed).is_ok());
    let mut moved = signed.clone();
    moved["Message"] = json!("clean");
    moved["MessageId"] = json!("fake");
    moved["Subject"] = json!(format!("x\nMessageId\n{}", signed["MessageId"].as_str().expect("text")));
    assert_eq!(canonical(&moved), canonical(&signed), "the same text is signed");
    assert_eq!(refusal(prove(&pinned(), &moved)), Refusal::Malformed);
}

proptest! {
    #[test]
    fn a_changed_text_never_passes(at in any::<proptest::sample::Index>(), byte in any::<u8>(), drop in any::<bool>()) {
        let good = sign_message(notification());
        let mut body = good.to_string().into_bytes();
        let at = at.index(body.len());
        if drop { body.remove(at); } else { body[at] = byte; }
        let proven = check(&pinned(), &[], &List::of(&[]), &body, NOW);
        // What passes says the same in every field that SNS signs; the others prove nothing.
        if proven.is_ok() {
            let changed: Json = serde_json::from_slice(&body).expect("JSON");
            for field in ["Type", "MessageId", "TopicArn", "Subject", "Message", "Timestamp", "Signature", "SignatureVersion"] {
                prop_assert_eq!(&changed[field], &good[field]);
            }
        }
    }

    #[test]
    fn odd_texts_never_panic(text in "(\\{|\\}|\"Type\":|\"Notification\"|\"TopicArn\":|\"arn:aws:sns:eu-west-1:123456789012:MyTopic\"|,|\"Signature\":|\"|\\\\|é){0,20}", arn in "(arn|:|aws|sns|eu-west-1|123456789012|T|é|-cn){0,12}") {
        prop_assert!(check(&pinned(), &[], &List::of(&[]), text.as_bytes(), NOW).is_err());
        let _topic = TopicArn::parse(&arn);
    }
}
