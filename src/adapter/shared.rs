//! Readings that several platforms share: words in any spelling, marks of the Traffic Light Protocol, the caller's own reference, the
//! name at the end of a path, the file that a report is about.
//!
//! Invariant: what is read here never decides a verdict.
//!
//! Not here: what belongs to one platform (its own file), JSON by itself (`json`).

use super::json::{Fault, Value};
use crate::event::{LIST_MAX, Subject, TEXT_BYTES_MAX};

/// The file that `file` describes by these fields of it: SHA-256, SHA-1, MD5, name, size, type.
pub(super) fn file_subject<'d>(file: Value<'d>, fields: [Option<Value<'d>>; 6]) -> Result<Subject, Fault> {
    let [sha256, sha1, md5, name, size, kind] = fields;
    let subject = Subject::file(
        sha256.map(Value::hash).transpose()?,
        sha1.map(Value::hash).transpose()?,
        md5.map(Value::hash).transpose()?,
    );
    let mut subject = subject.ok_or_else(|| file.missing("sha256"))?;
    subject.name = name.map(Value::text).transpose()?.map(Into::into);
    subject.size = size.map(Value::whole).transpose()?;
    subject.file_type = kind.map(Value::text).transpose()?.map(Into::into);
    Ok(subject)
}

/// A word without case, spaces, underscores and hyphens.
pub(super) fn letters(word: &str) -> String {
    // The longest word that is known has 25 letters; of a longer text only enough is kept to be unknown.
    let kept = word.chars().filter(|letter| !matches!(letter, ' ' | '_' | '-')).take(64);
    kept.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The mark as FIRST writes it (`TLP:AMBER+STRICT`), if it is one: in any case, with or without its prefix, or as Assemblyline
/// abbreviates it (`TLP:A+S`), perhaps with further markings after `//`.
pub(super) fn tlp_of(mark: &str) -> Option<String> {
    let mark = mark.split("//").next().unwrap_or_default().trim();
    let prefixed = mark.split_at_checked(4).filter(|(prefix, _)| prefix.eq_ignore_ascii_case("TLP:"));
    let word = prefixed.map_or(mark, |(_, word)| word.trim());
    let known = TLP_WORDS.into_iter().find(|(known, short)| {
        known.eq_ignore_ascii_case(word) || prefixed.is_some() && short.eq_ignore_ascii_case(word)
    });
    known.map(|(known, _)| format!("TLP:{known}"))
}

/// The caller's own reference, where the platform echoes any JSON: a text or whole number as it is; of an object its plain values, a
/// single one bare and several as `key=value,key=value`, as many as fit.
pub(super) fn reference_of(given: Value<'_>) -> Option<String> {
    if let Ok(text) = given.id() {
        return Some(text);
    }
    let pairs = given.entries().ok()?.filter_map(|(key, value)| Some((key, value.id().ok()?)));
    let mut pairs: Vec<_> = pairs.take(LIST_MAX).collect();
    if pairs.len() == 1 {
        return pairs.pop().map(|(_, value)| value);
    }
    let mut all = String::new();
    for (key, value) in pairs {
        let comma = if all.is_empty() { "" } else { "," };
        // A cut reference is another reference.
        if all.len() + comma.len() + key.len() + 1 + value.len() <= TEXT_BYTES_MAX {
            all.extend([comma, &key, "=", &value]);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// What stands after the last slash of a path or URL.
pub(super) fn name_in(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Marks of TLP 2.0 and 1.0, with Assemblyline's abbreviations.
const TLP_WORDS: [(&str, &str); 6] =
    [("CLEAR", "C"), ("WHITE", "W"), ("GREEN", "G"), ("AMBER", "A"), ("AMBER+STRICT", "A+S"), ("RED", "R")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::json::Document;

    #[test]
    fn marks_are_written_as_first_does() {
        for (mark, wanted) in [
            ("TLP:C", Some("TLP:CLEAR")),
            ("tlp:a+s", Some("TLP:AMBER+STRICT")),
            ("TLP:A//CMR", Some("TLP:AMBER")),
            ("Amber", Some("TLP:AMBER")),
            ("red", Some("TLP:RED")),
            ("C", None),
            ("UNRESTRICTED", None),
            ("", None),
            ("TLP:", None),
            ("öö", None),
        ] {
            assert_eq!(tlp_of(mark).as_deref(), wanted, "{mark}");
        }
    }

    #[test]
    fn a_reference_is_told_whole_or_not_at_all() {
        let long = format!(r#"{{"a":"{}","b":"1","c":"2"}}"#, "x".repeat(TEXT_BYTES_MAX));
        for (given, wanted) in [
            (r#""build 17""#, Some("build 17")),
            ("17", Some("17")),
            (r#"{"ticket":"INC-42"}"#, Some("INC-42")),
            (r#"{"commit":"abc","build":17,"nested":{"x":1},"none":null,"blank":""}"#, Some("commit=abc,build=17")),
            ("{}", None),
            (r#""""#, None),
            ("[1]", None),
            (long.as_str(), Some("b=1,c=2")),
        ] {
            let document = Document::read(given.as_bytes()).expect("JSON");
            assert_eq!(reference_of(document.root()).as_deref(), wanted, "{given}");
        }
    }
}
