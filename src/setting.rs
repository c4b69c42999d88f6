//! How a setting is written, and what is said when it is wrong.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something wrong in the config: which key, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// Path of the key (`sinks.splunk.batch.events_max`).
    pub key: String,
    /// What is wrong and what to do, in one or two sentences; never the value of a secret.
    pub message: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// An amount of bytes: `"512KiB"`, `"10MiB"`, `"20GiB"`, `"100B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time: `"250ms"`, `"30s"`, `"5m"`, `"12h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// One text, or a list of them where several are meant: `"X-Signature"`, `["X-Signature", "X-Signature-2"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        amount(text, &SIZE_UNITS).map(Self).ok_or_else(|| format!("\"{text}\" is no size: write it like \"10MiB\""))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = amount(text, &SPAN_UNITS).ok_or_else(|| format!("\"{text}\" is no time: write it like \"30s\""))?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

/// A whole number and one of the units; none if it is anything else or too large.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (unit, factor) = units.iter().find(|(unit, _)| {
        text.strip_suffix(unit).is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty())
    })?;
    text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*factor)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, self.0, &SIZE_UNITS, "B")
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPAN_UNITS, "ms")
    }
}

/// In the largest unit that leaves a whole number.
fn write_amount(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], smallest: &str) -> fmt::Result {
    let fits = units.iter().filter(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor));
    match fits.max_by_key(|(_, factor)| *factor) {
        Some((unit, factor)) => write!(f, "{}{unit}", amount / factor),
        None => write!(f, "{amount}{smallest}"),
    }
}

macro_rules! written_as_text {
    ($type:ty, $pattern:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}

written_as_text!(Size, "^[0-9]+(B|KiB|MiB|GiB)$", "10MiB");
written_as_text!(Span, "^[0-9]+(ms|s|m|h|d)$", "30s");

impl From<&str> for Texts {
    fn from(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> serde::de::Visitor<'de> for OneOrMore {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(text.into())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [text] => serializer.serialize_str(text),
            texts => serializer.collect_seq(texts),
        }
    }
}

impl schemars::JsonSchema for Texts {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_numbers_with_a_unit() {
        for (text, bytes) in [("0B", 0), ("10MiB", 10 << 20), ("20GiB", 20 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("7d", 604_800_000)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))));
        }
        assert_eq!(Span(Duration::from_mins(5)).to_string(), "5m");
        for bad in
            ["", "10", "MiB", "1.5MiB", "-1s", "10 MiB", "10MB", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(bad.parse::<Size>().is_err() && bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
