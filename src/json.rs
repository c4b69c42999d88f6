//! A strict reader of JSON: what two readers could understand in two ways is refused, and no number or id changes on its way in.
//!
//! A generic parser rounds 2^64, keeps the last of two equal keys and quotes the sender's text in its errors. This one reads a body in
//! one pass without recursion into a flat index of its values; an adapter or a proof then asks for the fields it knows, and what it does
//! not ask for is never copied. Numbers and ids stay text until they are asked for.
//!
//! Invariants: time and memory are linear in the body; errors name the path of a field and never hold a value; an object from which
//! fields are read holds each of them once, in one spelling.
//!
//! Not here: what a field means (`adapter`, `verify`), syntax (`json/scan`).

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

use crate::event::{Hash, TEXT_BYTES_MAX, URL_BYTES_MAX};

mod scan;

pub(super) use scan::Kind;
use scan::{Node, scan, unescape};

/// One body, checked as a whole.
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

impl<'a> Document<'a> {
    /// Reads exactly one JSON value.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, NotJson> {
        let text = std::str::from_utf8(body).map_err(|error| NotJson { at: error.valid_up_to(), what: "not UTF-8" })?;
        match scan(text) {
            Ok(nodes) => Ok(Self { text, nodes }),
            Err((at, what)) => Err(NotJson { at, what }),
        }
    }

    /// The outermost value.
    pub(super) fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }
}

/// Why a body is no JSON value that can be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub(super) struct NotJson {
    at: usize,
    what: &'static str,
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    at: usize,
}

impl<'d> Value<'d> {
    /// The named fields of an object; none where one is missing or null.
    ///
    /// A key that differs from a name only in case is refused, and so is a name that stands twice: which one is meant is a guess.
    pub(super) fn fields<const N: usize>(self, names: [&str; N]) -> Result<[Option<Self>; N], Fault> {
        self.fields_by(names, |key, name| key.eq_ignore_ascii_case(name).then(|| key == name))
    }

    /// The named fields of an object in any spelling: `trustScore`, `trust_score`, `TrustScore`. Two spellings in one object are refused.
    pub(super) fn fields_in_any_spelling<const N: usize>(self, names: [&str; N]) -> Result<[Option<Self>; N], Fault> {
        self.fields_by(names, |key, name| same_letters(key, name).then_some(true))
    }

    /// The named fields of an object, spelled exactly so, whatever else stands there: to tell what it is. A name that stands twice is refused.
    pub(super) fn fields_exactly<const N: usize>(self, names: [&str; N]) -> Result<[Option<Self>; N], Fault> {
        self.fields_by(names, |key, name| (key == name).then_some(true))
    }

    /// `matches` tells whether a key is a name (`true`), too much like it (`false`), or another.
    fn fields_by<const N: usize>(
        self,
        names: [&str; N],
        matches: impl Fn(&str, &str) -> Option<bool>,
    ) -> Result<[Option<Self>; N], Fault> {
        let mut found = [None; N];
        for (key, value) in self.entries()? {
            for (slot, name) in found.iter_mut().zip(names) {
                match matches(&key, name) {
                    Some(true) if slot.is_none() => *slot = Some(value),
                    Some(_) => {
                        return Err(value
                            .ambiguous("this key stands twice or in two spellings, so which one is meant is a guess"));
                    }
                    None => {}
                }
            }
        }
        Ok(found.map(|value| value.filter(|value| value.node().kind != Kind::Null)))
    }

    /// Keys and values of an object, in the order they were written. Keys may repeat.
    pub(super) fn entries(self) -> Result<impl Iterator<Item = (Cow<'d, str>, Self)>, Fault> {
        if self.node().kind != Kind::Object {
            return Err(self.fault("expected an object"));
        }
        // Keys and values are siblings: every key is followed by its value.
        let mut children = self.children();
        Ok(std::iter::from_fn(move || Some((children.next()?.unescaped(), children.next()?))))
    }

    /// Items of a list.
    pub(super) fn list(self) -> Result<impl Iterator<Item = Self>, Fault> {
        match self.node().kind {
            Kind::List => Ok(self.children()),
            _ => Err(self.fault("expected a list")),
        }
    }

    /// The texts of a list, at most `max` of them.
    pub(super) fn texts(self, max: usize) -> Result<Vec<String>, Fault> {
        self.list()?.take(max).map(|item| item.text().map(Cow::into_owned)).collect()
    }

    /// A text.
    pub(super) fn text(self) -> Result<Cow<'d, str>, Fault> {
        match self.node().kind {
            Kind::Text | Kind::EscapedText => Ok(self.unescaped()),
            _ => Err(self.fault("expected a text")),
        }
    }

    /// A text; a number or truth value as it was written.
    pub(super) fn scalar(self) -> Result<Cow<'d, str>, Fault> {
        match self.node().kind {
            Kind::Text | Kind::EscapedText => Ok(self.unescaped()),
            Kind::Number | Kind::True | Kind::False => Ok(Cow::Borrowed(self.raw())),
            Kind::Null | Kind::List | Kind::Object => Err(self.fault("expected a text or a number")),
        }
    }

    /// An id: a text, or a whole number digit by digit as it was written. Too long for an event is refused, because a cut id is another id.
    pub(super) fn id(self) -> Result<String, Fault> {
        let id = match self.node().kind {
            Kind::Number if self.raw().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => self.raw().into(),
            Kind::Text | Kind::EscapedText => self.unescaped(),
            _ => return Err(self.fault("expected an id: a text or a whole number")),
        };
        match id.len() {
            0 => Err(self.fault("the id is empty")),
            length if length > TEXT_BYTES_MAX => Err(self.fault("the id is longer than 512 bytes")),
            _ => Ok(id.into_owned()),
        }
    }

    /// A URL, domain or address that a verdict is about. Too long for an event is refused, because a cut URL is another URL.
    pub(super) fn subject_url(self) -> Result<String, Fault> {
        let url = self.text()?;
        match url.len() {
            0 => Err(self.fault("the URL is empty")),
            length if length > URL_BYTES_MAX => Err(self.fault("the URL is longer than 2048 bytes")),
            _ => Ok(url.into_owned()),
        }
    }

    /// A web address for a person to open; none if it is anything else (`javascript:`), because it ends up as a link.
    pub(super) fn link(self) -> Result<Option<String>, Fault> {
        let link = self.text()?;
        let is_web = ["https://", "http://"].iter().any(|scheme| link.starts_with(scheme));
        Ok((is_web && link.len() <= URL_BYTES_MAX).then(|| link.into_owned()))
    }

    /// A whole number from 0, written without fraction or exponent.
    pub(super) fn whole(self) -> Result<u64, Fault> {
        match self.node().kind {
            Kind::Number => self.raw().parse().map_err(|_| self.fault("expected a whole number from 0 to 2^64 - 1")),
            _ => Err(self.fault("expected a whole number")),
        }
    }

    /// A count of engines or hits.
    pub(super) fn count(self) -> Result<u32, Fault> {
        u32::try_from(self.whole()?).map_err(|_| self.fault("the count is too large"))
    }

    /// A whole number, perhaps below 0, written without fraction or exponent.
    pub(super) fn integer(self) -> Result<i64, Fault> {
        match self.node().kind {
            Kind::Number => self.raw().parse().map_err(|_| self.fault("expected a whole number of at most 63 bits")),
            _ => Err(self.fault("expected a whole number")),
        }
    }

    /// A number from 0 to 100.
    pub(super) fn percent(self) -> Result<f64, Fault> {
        self.number(100.0).ok_or_else(|| self.fault("expected a number from 0 to 100"))
    }

    /// A number from 0 to `max`; none if it is anything else.
    pub(super) fn number(self, max: f64) -> Option<f64> {
        let raw = Some(self.raw()).filter(|_| self.node().kind == Kind::Number)?;
        raw.parse::<f64>().ok().filter(|number| (0.0..=max).contains(number))
    }

    /// A hash in hexadecimal.
    pub(super) fn hash<const N: usize>(self) -> Result<Hash<N>, Fault> {
        self.text()?.parse().map_err(|_| self.fault("not the hexadecimal digits of this kind of hash"))
    }

    /// A time as RFC 3339 with a zone.
    pub(super) fn instant(self) -> Result<Timestamp, Fault> {
        self.text()?.parse().map_err(|_| self.fault("expected a time like 2026-03-23T12:00:00Z"))
    }

    /// A time as above, or as some platforms write it, without a zone: then it is UTC.
    pub(super) fn instant_or_utc(self) -> Result<Timestamp, Fault> {
        let text = self.text()?;
        let without_zone = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
        let instant = text.parse().ok().or_else(|| Some(without_zone()?.timestamp()));
        instant.ok_or_else(|| self.fault("expected a time like 2026-03-23 12:00:00"))
    }

    /// A time in whole seconds since 1970.
    pub(super) fn epoch(self) -> Result<Timestamp, Fault> {
        let seconds = i64::try_from(self.whole()?).ok();
        let instant = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        instant.ok_or_else(|| self.fault("expected a time in seconds since 1970"))
    }

    /// Whether this is an object.
    pub(super) fn is_object(self) -> bool {
        self.node().kind == Kind::Object
    }

    /// Whether this is a list.
    pub(super) fn is_list(self) -> bool {
        self.node().kind == Kind::List
    }

    /// This value, unless it is an empty text: some platforms write one where they have nothing.
    pub(super) fn filled(self) -> Option<Self> {
        let is_text = matches!(self.node().kind, Kind::Text | Kind::EscapedText);
        Some(self).filter(|value| !is_text || !value.raw().is_empty())
    }

    /// What it is.
    pub(super) fn kind(self) -> Kind {
        self.node().kind
    }

    /// Whether this is null.
    pub(super) fn is_null(self) -> bool {
        self.node().kind == Kind::Null
    }

    /// Whether this is a number.
    pub(super) fn is_number(self) -> bool {
        self.node().kind == Kind::Number
    }

    /// Whether this is exactly `true`.
    pub(super) fn is_true(self) -> bool {
        self.node().kind == Kind::True
    }

    /// What is wrong with this value.
    pub(super) const fn fault(self, what: &'static str) -> Fault {
        Fault { at: self.at, field: "", what, kind: FaultKind::Field }
    }

    /// A field of this object that is not there.
    pub(super) const fn missing(self, field: &'static str) -> Fault {
        Fault { at: self.at, field, what: "is missing", kind: FaultKind::Field }
    }

    /// This value is nothing that the adapter knows.
    pub(super) const fn unknown(self, what: &'static str) -> Fault {
        Fault { at: self.at, field: "", what, kind: FaultKind::Unknown }
    }

    /// This value could be read in two ways.
    pub(super) const fn ambiguous(self, what: &'static str) -> Fault {
        Fault { at: self.at, field: "", what, kind: FaultKind::Ambiguous }
    }

    fn node(self) -> Node {
        self.document.nodes[self.at]
    }

    pub(super) fn raw(self) -> &'d str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }

    fn unescaped(self) -> Cow<'d, str> {
        match self.node().kind {
            Kind::EscapedText => Cow::Owned(unescape(self.raw())),
            _ => Cow::Borrowed(self.raw()),
        }
    }

    fn children(self) -> impl Iterator<Item = Self> {
        let past = self.node().next as usize;
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let child = (at < past).then_some(Self { at, ..self })?;
            at = child.node().next as usize;
            Some(child)
        })
    }

    /// The path from this value to the one at `at`, as people write it: `data[3].attributes.size`.
    fn path_to(self, at: usize) -> String {
        let mut path = String::new();
        let mut here = self;
        while here.at != at {
            let is_object = here.is_object();
            let Some((index, child)) =
                here.children().enumerate().find(|(_, child)| (child.at..child.node().next as usize).contains(&at))
            else {
                break;
            };
            // In an object the child before a value is its key.
            if !is_object {
                path.extend(["[", &index.to_string(), "]"]);
            } else if let Some(key) = here.children().nth(index & !1) {
                let key = key.raw();
                // The sender chooses the keys of a map (engines, section names): only what looks like a field is shown.
                let is_plain =
                    key.len() <= 40 && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(if is_plain { key } else { "*" });
            }
            here = child;
        }
        path
    }
}

/// Why a value could not be used. Small and without text of the sender, because there may be very many of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    at: usize,
    field: &'static str,
    what: &'static str,
    kind: FaultKind,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A field is missing, or of another type or range.
    Field,
    /// Which of two keys is meant is a guess.
    Ambiguous,
    /// Nothing that the reader knows.
    Unknown,
}

impl Fault {
    /// What kind of fault it is.
    pub(super) const fn kind(self) -> FaultKind {
        self.kind
    }

    /// In words, with the path from `root`.
    pub(super) fn words(self, root: Value<'_>) -> String {
        let mut words = root.path_to(self.at);
        if !self.field.is_empty() {
            words.push_str(if words.is_empty() { "" } else { "." });
            words.push_str(self.field);
            words.push(' ');
        } else if !words.is_empty() {
            words.push_str(": ");
        }
        words + self.what
    }
}

/// Whether two keys are the same but for case and underscores.
fn same_letters(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(|&byte| byte != b'_').map(|byte| byte.to_ascii_lowercase())
    }
    letters(one).eq(letters(other))
}
