//! Writes JSON objects field by field, in one pass and without a tree.
//!
//! Invariants: serde serializes every value; this places keys, which are literals of ours, commas and braces. Characters that
//! could disturb a line or a reader (`format::is_hazard`) are written as `\uXXXX`, which every JSON parser gives back unchanged.
//!
//! Not here: which fields there are (`ocsf`, `ecs`, `hec`).

use std::fmt::Display;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::{Code, is_hazard};

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
    pub(super) fn put(&mut self, key: &'static str, value: impl Serialize) {
        self.key(key);
        scalar(self.out, value);
    }

    /// A field that is left out where there is no value.
    pub(super) fn put_some(&mut self, key: &'static str, value: Option<impl Serialize>) {
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
    pub(super) fn values<T: Serialize>(&mut self, key: &'static str, items: impl IntoIterator<Item = T>) {
        self.list(key, items, |out, item| scalar(out, item));
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

/// Serializes what it shows, without a text in between.
pub(super) struct Shown<T>(pub(super) T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn scalar(out: &mut Vec<u8>, value: impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, LineSafe);
    value.serialize(&mut serializer).expect("numbers, flags and texts are written to memory");
}

/// Compact JSON whose texts hold no hazard. `serde_json` has escaped quotes, backslashes and C0 controls before it asks.
struct LineSafe;

impl Formatter for LineSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Every hazard that is left is DEL or begins with one of these bytes.
        if !fragment.bytes().any(|b| matches!(b, 0x7f | 0xc2 | 0xd8 | 0xe2 | 0xef)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_hazard(*c)) {
            writer.write_all(&fragment.as_bytes()[written..at])?;
            write!(writer, "\\u{:04x}", u32::from(c))?;
            written = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}
