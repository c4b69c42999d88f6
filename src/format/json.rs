//! Writes JSON objects field by field, in one pass and without a tree.
//!
//! Invariants: keys are literals of ours. Characters that could disturb a line or a reader (`format::is_hazard`) are written as
//! `\uXXXX`, which every JSON parser gives back unchanged.
//!
//! Not here: which fields there are (`ocsf`, `ecs`, `hec`).

use std::fmt::{self, Display, Write};

use super::{Code, escape_into, push_code};

/// An object that is being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// Appends one object to `out`.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, empty: true });
    out.push(b'}');
}

impl Object<'_> {
    /// A field with a plain value.
    pub(super) fn put(&mut self, key: &'static str, value: impl Scalar) {
        self.key(key);
        value.write(self.out);
    }

    /// A field that is left out where there is no value.
    pub(super) fn put_some(&mut self, key: &'static str, value: Option<impl Scalar>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// A field that is left out where it is false.
    pub(super) fn put_true(&mut self, key: &'static str, flag: bool) {
        if flag {
            self.put(key, true);
        }
    }

    /// A field with a value as people read it.
    pub(super) fn show(&mut self, key: &'static str, value: impl Display) {
        self.put(key, Shown(value));
    }

    /// A number and the words that belong to it.
    pub(super) fn code(&mut self, id_key: &'static str, caption_key: &'static str, code: Code) {
        self.put(id_key, code.0);
        self.put(caption_key, code.1);
    }

    /// A field with an object.
    pub(super) fn nest(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        object(self.out, fill);
    }

    /// A field with one JSON value that `write` appends.
    pub(super) fn embed(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        write(self.out);
    }

    /// A field with a list of plain values; left out where there are none.
    pub(super) fn values<T: Scalar>(&mut self, key: &'static str, items: impl IntoIterator<Item = T>) {
        self.list(key, items, |out, item| item.write(out));
    }

    /// A field with a list of objects; left out where there are none.
    pub(super) fn objects<T>(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object<'_>, T),
    ) {
        self.list(key, items, |out, item| object(out, |o| fill(o, item)));
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) {
        let mut items = items.into_iter();
        let Some(first) = items.next() else { return };
        self.key(key);
        self.out.push(b'[');
        write(self.out, first);
        for item in items {
            self.out.push(b',');
            write(self.out, item);
        }
        self.out.push(b']');
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'@')));
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// A value without parts.
pub(super) trait Scalar {
    /// Appends it as JSON.
    fn write(self, out: &mut Vec<u8>);
}

macro_rules! as_serde_writes_it {
    ($($type:ty),*) => {
        $(impl Scalar for $type {
            fn write(self, out: &mut Vec<u8>) {
                serde_json::to_writer(out, &self).expect("numbers and flags are written to memory");
            }
        })*
    };
}

as_serde_writes_it!(bool, u8, u16, u32, u64, i64, f32);

impl Scalar for &str {
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        inside_quotes(out, self).expect("memory takes every write");
        out.push(b'"');
    }
}

/// A value as people read it, as a text.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Scalar for Shown<T> {
    fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        write!(Inside(out), "{}", self.0).expect("what we show has no errors of its own");
        out.push(b'"');
    }
}

/// Between the quotes of a text.
struct Inside<'a>(&'a mut Vec<u8>);

impl Write for Inside<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        inside_quotes(self.0, text)
    }
}

fn inside_quotes(out: &mut Vec<u8>, text: &str) -> fmt::Result {
    // Looks at every byte where the first odd one would do, so that the compiler can compare many at once.
    let special = |b: u8| u8::from(!matches!(b, b' '..=b'~') || matches!(b, b'"' | b'\\'));
    let is_plain = text.bytes().fold(0, |found, b| found | special(b)) == 0;
    if is_plain {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    let is_special = |c| matches!(c, '"' | '\\');
    escape_into(out, text, is_special, |out, c| {
        out.push(b'\\');
        match c {
            '"' => out.push(b'"'),
            '\\' => out.push(b'\\'),
            '\n' => out.push(b'n'),
            '\r' => out.push(b'r'),
            '\t' => out.push(b't'),
            _ => push_code(out, c)?,
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::is_hazard;

    proptest! {
        #[test]
        fn a_text_is_read_back_by_another_parser_and_holds_no_hazard(text in r#"[\x00-\x20"\\a-c\x7f-\xa0é\u{61c}\u{2028}\u{feff}\u{1f600}]{0,24}"#) {
            let mut out = Vec::new();
            object(&mut out, |json| {
                json.put("as_it_is", text.as_str());
                json.show("in_pieces", format_args!("{text}, {text}"));
            });
            prop_assert!(!std::str::from_utf8(&out).expect("UTF-8").contains(is_hazard));
            let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(&read["as_it_is"], &text);
            prop_assert_eq!(&read["in_pieces"], &format!("{text}, {text}"));
        }
    }
}
