//! A strict reader of JSON: what two readers could understand in two ways is refused, and no number or id changes on its way in.
//!
//! A generic parser rounds 2^64, keeps the last of two equal keys and quotes the sender's text in its errors. This one reads a body in
//! one pass without recursion into a flat index of its values; an adapter then asks for the fields it knows, and what it does not ask
//! for is never copied. Numbers and ids stay text until they are asked for.
//!
//! Invariants: time and memory are linear in the body; errors name the path of a field and never hold a value; an object from which
//! fields are read holds each of them once, in one spelling.
//!
//! Not here: what a field means (the adapters).

use std::borrow::Cow;

use jiff::Timestamp;

use super::{ItemError, NormalizeError, Outcome};
use crate::event::{Hash, Position, TEXT_BYTES_MAX, URL_BYTES_MAX};

/// One body, checked as a whole.
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

impl<'a> Document<'a> {
    /// Reads exactly one JSON value.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, NormalizeError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| NormalizeError::Json(format!("byte {}: not UTF-8", error.valid_up_to())))?;
        // Real reports have a value or key every 12 to 20 bytes; a better guess would only save a copy.
        let nodes = Vec::with_capacity((text.len() / 12).min(NODES_MAX) + 1);
        let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, nodes, open: Vec::new() };
        match scanner.document() {
            Ok(()) => Ok(Self { text, nodes: scanner.nodes }),
            Err(what) => Err(NormalizeError::Json(format!("byte {}: {what}", scanner.at))),
        }
    }

    /// The outermost value.
    pub(super) fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }
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

    /// A number from 0 to 100.
    pub(super) fn percent(self) -> Result<f64, Fault> {
        if self.node().kind != Kind::Number {
            return Err(self.fault("expected a number from 0 to 100"));
        }
        match self.raw().parse::<f64>() {
            Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
            _ => Err(self.fault("expected a number from 0 to 100")),
        }
    }

    /// A hash in hexadecimal.
    pub(super) fn hash<const N: usize>(self) -> Result<Hash<N>, Fault> {
        self.text()?.parse().map_err(|_| self.fault("not the hexadecimal digits of this kind of hash"))
    }

    /// A time as RFC 3339 with a zone.
    pub(super) fn instant(self) -> Result<Timestamp, Fault> {
        self.text()?.parse().map_err(|_| self.fault("expected a time like 2026-03-23T12:00:00Z"))
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

    const fn ambiguous(self, what: &'static str) -> Fault {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    Field,
    Ambiguous,
    Unknown,
}

impl Fault {
    /// In words, with the path from `root`.
    fn words(self, root: Value<'_>) -> String {
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

/// What a message with one item says.
pub(super) fn one(root: Value<'_>, outcome: Result<Outcome, Fault>) -> Result<Outcomes, NormalizeError> {
    match outcome {
        Ok(outcome) => Ok(vec![Ok(outcome)]),
        Err(fault) => Err(refusal(root, fault)),
    }
}

/// What a message with many items says: each is read by itself.
pub(super) fn each<'d>(
    root: Value<'d>,
    items: Value<'d>,
    read: impl Fn(Value<'d>) -> Result<Outcome, Fault>,
) -> Result<Outcomes, NormalizeError> {
    let mut outcomes = Gathered::default();
    for item in items.list().map_err(|fault| refusal(root, fault))? {
        outcomes.add(read(item).map_err(|fault| move || fault.words(item)))?;
    }
    Ok(outcomes.finish())
}

/// The outcomes of a delivery, as [`super::Adapter::normalize`] returns them.
pub(super) type Outcomes = Vec<Result<Outcome, ItemError>>;

/// A whole message that can't be used because of `fault`.
pub(super) fn refusal(root: Value<'_>, fault: Fault) -> NormalizeError {
    let words = fault.words(root);
    match fault.kind {
        FaultKind::Field => NormalizeError::Field(words),
        FaultKind::Ambiguous => NormalizeError::Json(words),
        FaultKind::Unknown => NormalizeError::Unknown(words),
    }
}

/// Outcomes of many items, within bounds.
#[derive(Default)]
pub(super) struct Gathered {
    outcomes: Outcomes,
    items: usize,
    odd: usize,
    odd_more: usize,
}

impl Gathered {
    /// Takes the next item's outcome, or what is wrong with it (put into words only if it is told).
    pub(super) fn add(&mut self, outcome: Result<Outcome, impl FnOnce() -> String>) -> Result<(), NormalizeError> {
        let index = self.items;
        self.items += 1;
        if index as u64 > Position::INDEX_MAX {
            return Err(NormalizeError::Field(format!("more than {} items in one message", Position::INDEX_MAX)));
        }
        match outcome {
            Ok(outcome) => self.outcomes.push(Ok(outcome)),
            Err(_) if self.odd == ODD_ITEMS_MAX => self.odd_more += 1,
            Err(reason) => {
                self.odd += 1;
                self.outcomes.push(Err(ItemError { index, reason: reason() }));
            }
        }
        Ok(())
    }

    /// All outcomes; the odd items beyond [`ODD_ITEMS_MAX`] are one error that counts them, and an empty list is nothing for us.
    pub(super) fn finish(mut self) -> Outcomes {
        if self.odd_more > 0 {
            let reason =
                format!("this and other items, {} of them, are odd like the {ODD_ITEMS_MAX} before", self.odd_more);
            self.outcomes.push(Err(ItemError { index: self.items - 1, reason }));
        }
        if self.items == 0 {
            self.outcomes.push(Ok(Outcome::Ignore));
        }
        self.outcomes
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    /// Where the text of the value begins and ends in the body; of a text, without its quotes.
    start: u32,
    end: u32,
    /// The node after this value and all within it.
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    True,
    False,
    Number,
    Text,
    EscapedText,
    List,
    Object,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// The containers around the current place, outermost first.
    open: Vec<usize>,
}

type Scan = Result<(), &'static str>;

impl Scanner<'_> {
    fn document(&mut self) -> Scan {
        if u32::try_from(self.bytes.len()).is_err() {
            return Err("larger than 4 GiB");
        }
        match self.peek() {
            None => return Err("the body is empty"),
            Some(0xEF) => return Err("begins with a byte order mark"),
            Some(_) => {}
        }
        loop {
            if self.value()? {
                continue; // Inside a container that was just opened.
            }
            if self.after_value()? {
                break;
            }
        }
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("something follows the end of the JSON value"),
        }
    }

    /// Reads a value; true if it opened a container whose first value is next.
    fn value(&mut self) -> Result<bool, &'static str> {
        match self.peek() {
            Some(b'{') => {
                self.enter(Kind::Object)?;
                if self.peek() == Some(b'}') {
                    self.leave();
                    return Ok(false);
                }
                self.key().map(|()| true)
            }
            Some(b'[') => {
                self.enter(Kind::List)?;
                if self.peek() == Some(b']') {
                    self.leave();
                    return Ok(false);
                }
                Ok(true)
            }
            Some(b'"') => self.string().map(|()| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.literal("true", Kind::True).map(|()| false),
            Some(b'f') => self.literal("false", Kind::False).map(|()| false),
            Some(b'n') => self.literal("null", Kind::Null).map(|()| false),
            Some(_) => Err("expected a value"),
            None => Err("ends where a value should be"),
        }
    }

    /// What may follow a value; true at the end of the document.
    fn after_value(&mut self) -> Result<bool, &'static str> {
        while let Some(&container) = self.open.last() {
            let is_object = self.nodes[container].kind == Kind::Object;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if is_object {
                        self.peek();
                        self.key()?;
                    }
                    return Ok(false);
                }
                Some(b'}') if is_object => self.leave(),
                Some(b']') if !is_object => self.leave(),
                Some(_) => return Err("expected a comma or the end of the list or object"),
                None => return Err("ends within a list or object"),
            }
        }
        Ok(true)
    }

    fn key(&mut self) -> Scan {
        if self.peek() != Some(b'"') {
            return Err("expected a key in quotes");
        }
        self.string()?;
        if self.peek() != Some(b':') {
            return Err("expected a colon after the key");
        }
        self.at += 1;
        Ok(())
    }

    /// Skips white space and looks at the next byte.
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn enter(&mut self, kind: Kind) -> Scan {
        if self.open.len() == DEPTH_MAX {
            return Err("nested deeper than 64 levels");
        }
        self.open.push(self.nodes.len());
        self.at += 1;
        self.push(kind, self.at, self.at)
    }

    fn leave(&mut self) {
        self.at += 1;
        let container = self.open.pop().expect("called at the end of an open container");
        self.nodes[container].next = index(self.nodes.len());
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) -> Scan {
        if self.nodes.len() == NODES_MAX {
            return Err("more than 2 million keys and values");
        }
        let next = index(self.nodes.len() + 1);
        self.nodes.push(Node { kind, start: index(start), end: index(end), next });
        Ok(())
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Scan {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err("expected a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(kind, start, self.at)
    }

    fn string(&mut self) -> Scan {
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(plain) = rest.iter().position(|&byte| ENDS_PLAIN_TEXT[usize::from(byte)]) else {
                return Err("ends within a text");
            };
            self.at += plain;
            match rest[plain] {
                b'"' => break,
                b'\\' => {
                    kind = Kind::EscapedText;
                    self.at += escape(&rest[plain..])?.1;
                }
                _ => return Err("a control character within a text"),
            }
        }
        self.push(kind, start, self.at)?;
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Scan {
        let start = self.at;
        self.at += usize::from(self.bytes[self.at] == b'-');
        let whole = self.digits();
        let is_padded = whole > 1 && self.bytes[self.at - whole] == b'0';
        if whole == 0 || is_padded {
            return Err("not a number as JSON writes it");
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err("not a number as JSON writes it");
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err("not a number as JSON writes it");
            }
        }
        self.push(Kind::Number, start, self.at)
    }

    /// Skips digits; how many.
    fn digits(&mut self) -> usize {
        let digits = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }
}

/// The character that an escape stands for, and how many bytes it takes; `bytes` begin with the backslash.
fn escape(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    let simple = match bytes.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let first = unit(bytes).ok_or("an escape without its four digits")?;
            let second = bytes.get(6..).and_then(unit);
            let mut pair = char::decode_utf16([first].into_iter().chain(second));
            return match pair.next() {
                // Only a surrogate takes the second escape with it; the decoder leaves any other for the next call.
                Some(Ok(character)) => Ok((character, 6 * character.len_utf16())),
                _ => Err("half of a surrogate pair"),
            };
        }
        _ => return Err("not an escape of JSON"),
    };
    Ok((simple, 2))
}

/// The code unit of a `\uXXXX`.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let (character, length) =
            escape(&rest.as_bytes()[at..]).expect("every escape was checked when the body was read");
        plain.push(character);
        rest = &rest[at + length..];
    }
    plain + rest
}

/// Whether two keys are the same but for case and underscores.
fn same_letters(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(|&byte| byte != b'_').map(|byte| byte.to_ascii_lowercase())
    }
    letters(one).eq(letters(other))
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("bodies are at most 4 GiB, and a node is at least one byte")
}

const ENDS_PLAIN_TEXT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Deepest nesting: real reports stay under 20, and parsers behind us stop at 64 to 128.
pub(super) const DEPTH_MAX: usize = 64;
/// Most keys and values of one body: they take 16 bytes each, so 32 MiB, whatever the size limit of the receiver.
pub(super) const NODES_MAX: usize = 1 << 21;
/// Most odd items of one message that get a dead letter each; a body of a million wrong items must not become a million dead letters.
pub(super) const ODD_ITEMS_MAX: usize = 1000;
