//! The plan of a signature by template: a preset's rules, with what the config overrides.
//!
//! Invariant: a time that is not signed, and fields that could run into each other, are refused here, before the first message.

use std::time::Duration;

use super::{TOLERANCE_DEFAULT, checked, fixed_keys, header_name, unused};
use crate::setting::{Problem, Texts};
use crate::verify::config::{Algorithm, Over, Parts, TimestampUnit, VerifyConfig};
use crate::verify::preset::{ATTACHMENT_AV, Preset, RuleShape, Rules, SPELLED_OUT};
use crate::verify::public_key::Kind;
use crate::verify::template::{HeaderNames, Method, Piece, Shape, SignatureScheme};

impl VerifyConfig {
    pub(super) fn plan_hmac(&self, key: &str) -> Result<SignatureScheme, Problem> {
        self.check_secrets(key)?;
        let rules = self.preset.map_or(SPELLED_OUT, Preset::rules);
        let algorithm = self.algorithm.unwrap_or(Algorithm::Sha256);
        self.plan_signature(&rules, rules.signed, Method::Hmac(algorithm, rules.key_form), key)
    }

    pub(super) fn plan_ed25519(&self, key: &str) -> Result<SignatureScheme, Problem> {
        let Some(rules) = self.preset.unwrap_or(Preset::StandardWebhooks).rules_of_ed25519() else {
            let words = "with ed25519, \"standard-webhooks\" or \"svix\": this sender signs with a shared secret, so the scheme is hmac";
            return Err(Problem::new(format!("{key}.preset"), words));
        };
        let method = self.by_public_key(Kind::Ed25519, key)?;
        self.plan_signature(&rules, rules.signed, method, key)
    }

    pub(super) fn plan_rsa(&self, key: &str) -> Result<SignatureScheme, Problem> {
        let method = self.by_public_key(Kind::Rsa, key)?;
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let is_tenant = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if tenant.is_empty() || !tenant.bytes().all(is_tenant) {
            let words = "name our tenant at the sender, which it signs: the key is the same for all of its customers";
            return Err(Problem::new(format!("{key}.tenant"), words));
        }
        let signed = ATTACHMENT_AV.signed.replace("{tenant}", tenant);
        self.plan_signature(&ATTACHMENT_AV, &signed, method, key)
    }

    fn by_public_key(&self, kind: Kind, key: &str) -> Result<Method, Problem> {
        let texts: Vec<&String> = self.public_key.iter().chain(&self.public_keys).collect();
        let at = format!("{key}.public_key");
        if texts.is_empty() && self.secrets.is_empty() {
            let example = match kind {
                Kind::Ed25519 => "\"whpk_...\"",
                Kind::Rsa => "\"file:keys/sender.pem\"",
            };
            let words =
                format!("no public key of the sender is named, so nothing could be proven: add it, like {example}");
            return Err(Problem::new(at, words));
        }
        checked(&self.secrets, &format!("{key}.secrets"))?;
        Ok(Method::PublicKey(kind, fixed_keys(&texts, kind, &at)?))
    }

    fn plan_signature(
        &self,
        rules: &Rules,
        signed: &str,
        method: Method,
        key: &str,
    ) -> Result<SignatureScheme, Problem> {
        let headers = self.header_names(key, rules)?;
        let shape = self.shape(rules);
        let template = parse_template(self.signed.as_deref().unwrap_or(signed), &format!("{key}.signed"))?;
        let unit = self.timestamp_unit.unwrap_or(rules.timestamp_unit);
        let scheme = SignatureScheme {
            tolerance: self.tolerance_in(unit, template.contains(&Piece::Timestamp), key)?,
            headers,
            method,
            encoding: self.encoding.unwrap_or(rules.encoding),
            prefix: self.prefix.as_deref().unwrap_or(rules.prefix).to_owned(),
            shape,
            template,
            timestamp_unit: unit,
            over: self.over.unwrap_or(Over::Wire),
            asks: rules.asks,
        };
        check_sources_of_fields(&scheme, key)?;
        if self.over == Some(Over::Decoded) && self.codings().is_empty() {
            return Err(unused(key, "over"));
        }
        Ok(scheme)
    }

    /// The preset's headers with what the config overrides; an overridden signature header ends the preset's other forms.
    fn header_names(&self, key: &str, rules: &Rules) -> Result<Vec<HeaderNames>, Problem> {
        let name_of = |own: &Option<String>, setting: &str, preset: &str| match own {
            Some(name) => header_name(name, &format!("{key}.{setting}")).map(Some),
            None => Ok((!preset.is_empty()).then(|| preset.to_owned())),
        };
        let own: Option<Vec<String>> = match &self.header {
            Some(Texts(names)) => {
                Some(names.iter().map(|name| header_name(name, &format!("{key}.header"))).collect::<Result<_, _>>()?)
            }
            None => None,
        };
        let mut names = Vec::new();
        for (signatures, timestamp, id) in rules.headers {
            names.push(HeaderNames {
                signatures: own.clone().unwrap_or_else(|| signatures.iter().map(ToString::to_string).collect()),
                timestamp: name_of(&self.timestamp_header, "timestamp_header", timestamp)?,
                id: name_of(&self.id_header, "id_header", id)?,
            });
        }
        names.dedup_by(|later, earlier| later.signatures == earlier.signatures);
        if names[0].signatures.is_empty() {
            return Err(Problem::new(
                format!("{key}.header"),
                "name the header with the signature, or a preset that knows it",
            ));
        }
        Ok(names)
    }

    fn shape(&self, rules: &Rules) -> Shape {
        match (&self.parts, rules.shape) {
            (Some(Parts { timestamp, signature }), _) => {
                Shape::Parts { timestamp: timestamp.clone(), signature: signature.clone() }
            }
            (None, RuleShape::Parts { timestamp, signature }) => {
                Shape::Parts { timestamp: Some(timestamp.to_owned()), signature: signature.to_owned() }
            }
            (None, RuleShape::SpaceList) => Shape::SpaceList,
            (None, RuleShape::Single) => Shape::Single,
        }
    }

    fn tolerance_in(&self, unit: TimestampUnit, signs_time: bool, key: &str) -> Result<i64, Problem> {
        if self.tolerance.is_some() && !signs_time {
            return Err(Problem::new(
                format!("{key}.tolerance"),
                "this sender signs no time, so there is nothing to tolerate: remove it",
            ));
        }
        let tolerance = self.tolerance.map_or(TOLERANCE_DEFAULT, |span| span.0);
        if tolerance < Duration::from_secs(1) {
            return Err(Problem::new(format!("{key}.tolerance"), "at least \"1s\": clocks are never equal"));
        }
        let amount = match unit {
            TimestampUnit::S => i64::try_from(tolerance.as_secs()),
            TimestampUnit::Ms => i64::try_from(tolerance.as_millis()),
        };
        Ok(amount.unwrap_or(i64::MAX))
    }
}

/// The pieces of what is signed, if no two of them could run into each other.
fn parse_template(text: &str, key: &str) -> Result<Vec<Piece>, Problem> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let field = FIELDS.iter().find_map(|(name, piece)| Some((piece, rest.strip_prefix(name)?)));
        if let Some((piece, after)) = field {
            pieces.push(piece.clone());
            rest = after;
        } else {
            let brace = rest.char_indices().skip(1).find(|(_, sign)| *sign == '{');
            let (literal, after) = rest.split_at(brace.map_or(rest.len(), |(at, _)| at));
            if literal.contains(['{', '}']) {
                return Err(Problem::new(
                    key,
                    "only {id}, {timestamp}, {url}, {method} and {body} can stand in braces",
                ));
            }
            pieces.push(Piece::Literal(literal.to_owned()));
            rest = after;
        }
    }
    let bodies = pieces.iter().filter(|piece| **piece == Piece::Body).count();
    if bodies != 1 || pieces.last() != Some(&Piece::Body) {
        return Err(Problem::new(
            key,
            "{body} has to stand in it, once and last; or else something could pass as part of it",
        ));
    }
    for pair in pieces.windows(2) {
        let separated = match (&pair[0], &pair[1]) {
            (Piece::Id, next) => matches!(next, Piece::Literal(_)),
            (Piece::Timestamp, Piece::Literal(next)) => !next.starts_with(|c: char| c.is_ascii_digit()),
            (Piece::Timestamp, _) => false,
            _ => true,
        };
        if !separated {
            return Err(Problem::new(
                key,
                "{id} and {timestamp} need a sign after them, like \"{id}.{timestamp}.{body}\"",
            ));
        }
    }
    Ok(pieces)
}

/// A field that is signed must come from somewhere, and a time that comes must be signed.
fn check_sources_of_fields(scheme: &SignatureScheme, key: &str) -> Result<(), Problem> {
    let names = &scheme.headers[0];
    let in_parts = matches!(&scheme.shape, Shape::Parts { timestamp: Some(_), .. });
    let signs = |piece: &Piece| scheme.template.contains(piece);
    if in_parts && names.timestamp.is_some() {
        return Err(Problem::new(
            format!("{key}.timestamp_header"),
            "parts names the time already: keep one of the two",
        ));
    }
    match (in_parts || names.timestamp.is_some(), signs(&Piece::Timestamp)) {
        (true, false) => Err(Problem::new(
            format!("{key}.signed"),
            "the time is not signed, so anybody could change it: add {timestamp}",
        )),
        (false, true) => {
            Err(Problem::new(format!("{key}.signed"), "{timestamp} needs timestamp_header, or timestamp in parts"))
        }
        _ if signs(&Piece::Id) && names.id.is_none() => {
            Err(Problem::new(format!("{key}.signed"), "{id} needs id_header"))
        }
        _ => Ok(()),
    }
}

const FIELDS: [(&str, Piece); 5] = [
    ("{id}", Piece::Id),
    ("{timestamp}", Piece::Timestamp),
    ("{url}", Piece::Url),
    ("{method}", Piece::Method),
    ("{body}", Piece::Body),
];
