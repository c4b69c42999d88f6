//! Checks the syntax of a whole body and notes where its values are: one pass over the bytes, without recursion.
//!
//! Invariants: it accepts what JSON's grammar accepts and nothing else, within bounds of depth and number of values; every escape of a
//! text it accepted can be read, so unescaping never fails.
//!
//! Not here: what keys and values mean (`json`).

/// Where the values of a body are: containers before what they contain, keys as texts before their values.
pub(super) fn scan(text: &str) -> Result<Vec<Node>, (usize, &'static str)> {
    // Real reports have a value or key every 12 to 20 bytes; a better guess would only save a copy.
    let nodes = Vec::with_capacity((text.len() / 12).min(NODES_MAX) + 1);
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, nodes, open: Vec::new() };
    match scanner.document() {
        Ok(()) => Ok(scanner.nodes),
        Err(what) => Err((scanner.at, what)),
    }
}

/// One value, or one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// What it is.
    pub(super) kind: Kind,
    /// Where the text of the value begins and ends in the body; of a text, without its quotes.
    pub(super) start: u32,
    /// See `start`.
    pub(super) end: u32,
    /// The node after this value and all within it.
    pub(super) next: u32,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
            let Some(plain) = plain_bytes(rest) else { return Err("ends within a text") };
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

/// The text that a checked one with escapes stands for.
pub(super) fn unescape(text: &str) -> String {
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

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("bodies are at most 4 GiB, and a node is at least one byte")
}

/// How many bytes stand before the next quote, backslash or control character; none if there is none.
fn plain_bytes(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let ends = ends_of_plain(u64::from_le_bytes(*word));
        if ends != 0 {
            return Some(index * 8 + ends.trailing_zeros() as usize / 8);
        }
    }
    let ends = rest.iter().position(|&byte| byte < b' ' || matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + ends)
}

/// The top bit of each byte of a word that is a quote, a backslash or a control character. Bytes above the lowest such one may be marked
/// wrongly, because a subtraction borrows from them.
const fn ends_of_plain(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const fn below(word: u64, bound: u8) -> u64 {
        word.wrapping_sub(ONES * bound as u64) & !word
    }
    let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    (below(word, b' ') | below(quote, 1) | below(backslash, 1)) & (ONES << 7)
}

/// Deepest nesting: real reports stay under 20, and parsers behind us stop at 64 to 128.
const DEPTH_MAX: usize = 64;
/// Most keys and values of one body: they take 16 bytes each, so 32 MiB, whatever the size limit of the receiver.
const NODES_MAX: usize = 1 << 21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_end_of_plain_text_is_the_first_byte_that_ends_it(
            plain in prop::collection::vec(0x20..=0xff_u8, 0..40),
            rest in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let text = [plain, rest].concat();
            let ends = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            prop_assert_eq!(plain_bytes(&text), text.iter().position(ends));
        }
    }
}
