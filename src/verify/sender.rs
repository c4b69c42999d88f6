//! What to enter at the sender so that its messages pass: the scheme, told to a person.
//!
//! Invariant: no value of a secret is here, only its form.

use super::config::{Algorithm, Encoding, TimestampUnit};
use super::hmac::KeyForm;
use super::public_key::Kind;
use super::template::{Method, Piece, Shape, SignatureScheme};
use super::{EventGrid, GridProof, JwtScheme, Scheme, SnsScheme, TokenPlace};
use crate::setting::Span;

impl Scheme {
    /// The settings of the sender, in the order one enters them: what each is, and what it has to be.
    pub fn sender_settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Signature(signature) => signature.sender_settings(),
            Self::Sns(sns) => sns.sender_settings(),
            Self::Token(place) => place.sender_settings(),
            Self::EventGrid { proof, handshake } => {
                let mut settings = match proof {
                    GridProof::Secret(place) => place.sender_settings(),
                    GridProof::Issuer(jwt) => jwt.sender_settings(),
                };
                settings.push(handshake.sender_setting());
                settings
            }
            Self::Mtls { subjects } => {
                let words = "signed by an authority of receiver.tls.client_ca, for one of";
                vec![("certificate", format!("{words} {}", subjects.join(", ")))]
            }
            Self::Network { networks } => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                vec![("from", format!("{}; nothing else proves these messages", networks.join(", ")))]
            }
            Self::Closed => Vec::new(),
        }
    }
}

impl TokenPlace {
    fn sender_settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Header { name, prefix } => {
                vec![("header", format!("{name}: {prefix}SECRET")), ("secret", TEXT_FORM.to_owned())]
            }
            Self::Bearer => {
                vec![("header", "authorization: Bearer SECRET".to_owned()), ("secret", TEXT_FORM.to_owned())]
            }
            Self::Basic { user } => vec![("login", format!("basic, user {user}")), ("password", TEXT_FORM.to_owned())],
            Self::Query { name } => {
                let name = name.as_deref().unwrap_or("secret");
                let form = "letters, digits, - and _ of at least 24 bytes; others percent-encoded";
                vec![("url ends with", format!("?{name}=SECRET")), ("secret", form.to_owned())]
            }
        }
    }
}

impl EventGrid {
    fn sender_setting(&self) -> (&'static str, String) {
        let words = "SubscriptionValidation is answered, and the CloudEvents preflight of";
        ("handshake", format!("{words} {}", self.origins.join(", ")))
    }
}

impl JwtScheme {
    fn sender_settings(&self) -> Vec<(&'static str, String)> {
        let who = if self.pins_applications() {
            self.applications.join(", ")
        } else {
            "any that gets a token; pin them with applications".to_owned()
        };
        vec![
            ("header", "authorization: Bearer TOKEN, signed with RS256".to_owned()),
            ("issuer", self.issuer.clone()),
            ("audience", format!("{}; in Entra, the application id of this webhook", self.audience)),
            ("application", who),
        ]
    }
}

impl SnsScheme {
    fn sender_settings(&self) -> Vec<(&'static str, String)> {
        let topics: Vec<&str> = self.topics.iter().map(super::TopicArn::as_str).collect();
        let tolerance = Span(self.tolerance.unsigned_abs());
        let certificates = if self.is_pinned() {
            "those of the config".to_owned()
        } else {
            let hosts: std::collections::BTreeSet<String> = self.topics.iter().map(super::TopicArn::host).collect();
            let hosts: Vec<String> = hosts.into_iter().collect();
            format!("fetched from {}, their issuer's from crt.*.amazontrust.com", hosts.join(", "))
        };
        vec![
            ("subscription", "protocol HTTPS, raw message delivery off: raw messages are not signed".to_owned()),
            ("topics", topics.join(", ")),
            ("signature", "SignatureVersion 2 of the topic; 1 is taken too".to_owned()),
            ("time", format!("published at most {tolerance} from now")),
            ("certificates", certificates),
            ("confirmation", "done by itself when SNS asks for it".to_owned()),
        ]
    }
}

impl SignatureScheme {
    fn sender_settings(&self) -> Vec<(&'static str, String)> {
        let names = &self.headers[0];
        let algorithm = match &self.method {
            Method::Hmac(Algorithm::Sha1, _) => "HMAC-SHA1",
            Method::Hmac(Algorithm::Sha256, _) => "HMAC-SHA256",
            Method::Hmac(Algorithm::Sha512, _) => "HMAC-SHA512",
            Method::PublicKey(Kind::Ed25519, _) => "Ed25519",
            Method::PublicKey(Kind::Rsa, _) => "RSA-SHA256, PKCS #1 v1.5",
        };
        let encoding = match self.encoding {
            Encoding::Hex => "hex",
            Encoding::Base64 => "base64",
            Encoding::Base64url => "base64url",
        };
        let (unit, tolerance) = match self.timestamp_unit {
            TimestampUnit::S => ("seconds", self.tolerance.unsigned_abs().saturating_mul(1000)),
            TimestampUnit::Ms => ("milliseconds", self.tolerance.unsigned_abs()),
        };
        let signature = format!("{}{encoding}({algorithm})", self.prefix);
        let value = match &self.shape {
            Shape::Single | Shape::SpaceList => signature,
            Shape::Parts { timestamp: Some(time), signature: part } => format!("{time}=TIME,{part}={signature}"),
            Shape::Parts { timestamp: None, signature: part } => format!("{part}={signature}"),
        };
        let mut settings =
            vec![("signature", format!("{}: {value}", names.signatures.join(" or "))), ("signed", self.template())];
        if self.template.contains(&Piece::Timestamp) {
            let place = names.timestamp.as_ref().map_or_else(String::new, |name| format!("{name}: TIME, "));
            let tolerance = Span(std::time::Duration::from_millis(tolerance));
            settings.push(("time", format!("{place}{unit} since 1970, at most {tolerance} from ours")));
        }
        settings.extend(names.id.as_ref().map(|name| ("delivery id", format!("{name}: ID"))));
        settings.push(match &self.method {
            Method::Hmac(_, KeyForm::Text) => ("secret", TEXT_FORM.to_owned()),
            Method::Hmac(_, KeyForm::Whsec) => ("secret", "base64 after whsec_, as the sender shows it".to_owned()),
            Method::PublicKey(Kind::Ed25519, _) => {
                ("public key", "whpk_ and base64, as the sender shows it; the sender keeps the private one".to_owned())
            }
            Method::PublicKey(Kind::Rsa, _) => {
                ("public key", "the one that the sender publishes, in PEM form".to_owned())
            }
        });
        settings
    }

    /// What is signed, as the config writes it.
    fn template(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Id => "{id}".to_owned(),
            Piece::Timestamp => "{timestamp}".to_owned(),
            Piece::Url => "{url}".to_owned(),
            Piece::Method => "{method}".to_owned(),
            Piece::Body => "{body}".to_owned(),
        };
        self.template.iter().map(piece).collect()
    }
}

const TEXT_FORM: &str = "any text of at least 24 bytes, the same on both sides";

#[cfg(test)]
mod tests {
    use crate::verify::VerifyConfig;

    #[test]
    fn every_scheme_says_what_to_enter_at_the_sender() {
        for (written, told) in [
            (
                r#"scheme = "hmac"
                   preset = "standard-webhooks"
                   secrets = ["env:A"]"#,
                "signature=webhook-signature: v1,base64(HMAC-SHA256); signed={id}.{timestamp}.{body}; time=webhook-timestamp: TIME, seconds since 1970, at most 5m from ours; delivery id=webhook-id: ID; secret=base64 after whsec_, as the sender shows it",
            ),
            (
                r#"scheme = "hmac"
                   preset = "stripe"
                   secrets = ["env:A"]
                   tolerance = "90s""#,
                "signature=stripe-signature: t=TIME,v1=hex(HMAC-SHA256); signed={timestamp}.{body}; time=seconds since 1970, at most 90s from ours; secret=any text of at least 24 bytes, the same on both sides",
            ),
            (
                r#"scheme = "hmac"
                   preset = "github"
                   secrets = ["env:A"]"#,
                "signature=x-hub-signature-256: sha256=hex(HMAC-SHA256); signed={body}; delivery id=x-github-delivery: ID; secret=any text of at least 24 bytes, the same on both sides",
            ),
            (
                r#"scheme = "token"
                   bearer = true
                   secrets = ["env:A"]"#,
                "header=authorization: Bearer SECRET; secret=any text of at least 24 bytes, the same on both sides",
            ),
            (
                r#"scheme = "token"
                   header = "X-Key"
                   handshake = "event-grid"
                   secrets = ["env:A"]"#,
                "header=x-key: SECRET; secret=any text of at least 24 bytes, the same on both sides; handshake=SubscriptionValidation is answered, and the CloudEvents preflight of eventgrid.azure.net",
            ),
            (
                r#"scheme = "ed25519"
                   preset = "svix"
                   public_key = "keys/a.pub""#,
                "signature=svix-signature: v1a,base64(Ed25519); signed={id}.{timestamp}.{body}; time=svix-timestamp: TIME, seconds since 1970, at most 5m from ours; delivery id=svix-id: ID; public key=whpk_ and base64, as the sender shows it; the sender keeps the private one",
            ),
            (
                r#"scheme = "rsa"
                   tenant = "t-1"
                   public_key = "keys/a.pem""#,
                "signature=x-signature: hex(RSA-SHA256, PKCS #1 v1.5); signed={timestamp}.t-1.{url}.{body}; time=x-timestamp: TIME, milliseconds since 1970, at most 5m from ours; public key=the one that the sender publishes, in PEM form",
            ),
            (
                r#"scheme = "sns"
                   topics = ["arn:aws:sns:eu-west-1:123456789012:a"]"#,
                "subscription=protocol HTTPS, raw message delivery off: raw messages are not signed; topics=arn:aws:sns:eu-west-1:123456789012:a; signature=SignatureVersion 2 of the topic; 1 is taken too; time=published at most 90m from now; certificates=fetched from sns.eu-west-1.amazonaws.com, their issuer's from crt.*.amazontrust.com; confirmation=done by itself when SNS asks for it",
            ),
            (
                r#"scheme = "event-grid"
                   secret_query = "code"
                   secrets = ["env:A"]"#,
                "url ends with=?code=SECRET; secret=letters, digits, - and _ of at least 24 bytes; others percent-encoded; handshake=SubscriptionValidation is answered, and the CloudEvents preflight of eventgrid.azure.net",
            ),
            (
                r#"scheme = "event-grid"
                   issuer = "https://a"
                   audience = "b""#,
                "header=authorization: Bearer TOKEN, signed with RS256; issuer=https://a; audience=b; in Entra, the application id of this webhook; application=any that gets a token; pin them with applications; handshake=SubscriptionValidation is answered, and the CloudEvents preflight of eventgrid.azure.net",
            ),
            (
                r#"scheme = "mtls"
                   subjects = ["a.example.com"]"#,
                "certificate=signed by an authority of receiver.tls.client_ca, for one of a.example.com",
            ),
            (
                r#"scheme = "none"
                   networks = ["10.1.0.0/16"]"#,
                "from=10.1.0.0/16; nothing else proves these messages",
            ),
        ] {
            let config: VerifyConfig = toml::from_str(written).expect(written);
            let settings = config.plan("verify", false).expect(written).sender_settings();
            let all: Vec<String> = settings.into_iter().map(|(what, value)| format!("{what}={value}")).collect();
            assert_eq!(all.join("; "), told);
        }
    }
}
