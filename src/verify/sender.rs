//! What to enter at the sender so that its messages pass: the scheme, told to a person.
//!
//! Invariant: no value of a secret is here, only its form.

use super::config::{Algorithm, Encoding, TimestampUnit};
use super::hmac::{HmacScheme, KeyForm, Piece, Shape};
use super::{Scheme, TokenPlace};
use crate::setting::Span;

impl Scheme {
    /// The settings of the sender, in the order one enters them: what each is, and what it has to be.
    pub fn sender_settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Hmac(hmac) => hmac.sender_settings(),
            Self::Token(TokenPlace::Header { name, prefix }) => {
                vec![("header", format!("{name}: {prefix}SECRET")), ("secret", TEXT_FORM.to_owned())]
            }
            Self::Token(TokenPlace::Bearer) => {
                vec![("header", "authorization: Bearer SECRET".to_owned()), ("secret", TEXT_FORM.to_owned())]
            }
            Self::Token(TokenPlace::Basic { user }) => {
                vec![("login", format!("basic, user {user}")), ("password", TEXT_FORM.to_owned())]
            }
            Self::Mtls { subjects } => {
                let words = "signed by an authority of receiver.tls.client_ca, for one of";
                vec![("certificate", format!("{words} {}", subjects.join(", ")))]
            }
            Self::Network { networks } => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                vec![("from", format!("{}; nothing else proves these messages", networks.join(", ")))]
            }
        }
    }
}

impl HmacScheme {
    fn sender_settings(&self) -> Vec<(&'static str, String)> {
        let names = &self.headers[0];
        let algorithm = match self.algorithm {
            Algorithm::Sha1 => "HMAC-SHA1",
            Algorithm::Sha256 => "HMAC-SHA256",
            Algorithm::Sha512 => "HMAC-SHA512",
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
        let mut settings = vec![("signature", format!("{}: {value}", names.signature)), ("signed", self.template())];
        if self.template.contains(&Piece::Timestamp) {
            let place = names.timestamp.as_ref().map_or_else(String::new, |name| format!("{name}: TIME, "));
            let tolerance = Span(std::time::Duration::from_millis(tolerance));
            settings.push(("time", format!("{place}{unit} since 1970, at most {tolerance} from ours")));
        }
        settings.extend(names.id.as_ref().map(|name| ("delivery id", format!("{name}: ID"))));
        let form = match self.key_form {
            KeyForm::Text => TEXT_FORM,
            KeyForm::Whsec => "base64 after whsec_, as the sender shows it",
        };
        settings.push(("secret", form.to_owned()));
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
