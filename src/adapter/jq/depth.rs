//! How deep an expression leads whoever reads and compiles it: both take stack frames a level, and a stack that overflows ends the
//! process.
//!
//! Invariant: an upper bound, found in one pass without recursion, whether or not the text is jq.
//!
//! Not here: what the text means.

/// Whether the text could overflow the stack of a thread (2 MiB, unoptimized).
pub(super) fn is_too_deep(jq: &str) -> bool {
    let mut reader = Reader { levels: vec![Level { open: b'.', cost: 0 }], cost: 0, cost_max: 0 };
    reader.read(jq.as_bytes());
    reader.cost_max > COST_MAX
}

/// A bracket, text or `if` that is open, and what the operators in it cost so far: they nest to the right.
struct Level {
    open: u8,
    cost: usize,
}

struct Reader {
    levels: Vec<Level>,
    /// Of all open levels.
    cost: usize,
    cost_max: usize,
}

impl Reader {
    fn read(&mut self, jq: &[u8]) {
        let mut at = 0;
        while at < jq.len() {
            at += if self.top() == b'"' { self.text(&jq[at..]) } else { self.code(&jq[at..]) };
        }
    }

    /// Reads on within a text; how many bytes.
    fn text(&mut self, rest: &[u8]) -> usize {
        match rest {
            [b'\\', b'(', ..] => {
                self.pay(OPERATOR);
                self.open(b'(');
                2
            }
            [b'\\', _, ..] => 2,
            [b'"', ..] => {
                self.close();
                1
            }
            _ => 1,
        }
    }

    fn code(&mut self, rest: &[u8]) -> usize {
        match rest[0] {
            b'#' => return rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
            open @ (b'(' | b'[' | b'{' | b'"') => self.open(open),
            b')' | b']' | b'}' => self.close(),
            b'-' => self.pay(PREFIX),
            b',' if self.top() == b'{' => {}
            b'|' | b',' | b'+' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => self.pay(OPERATOR),
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let word = &rest[..rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
                match word {
                    b"if" => self.open(b'i'),
                    b"end" if self.top() == b'i' => self.close(),
                    b"try" | b"def" | b"reduce" | b"foreach" | b"label" | b"as" => self.pay(PREFIX),
                    b"and" | b"or" => self.pay(OPERATOR),
                    _ => {}
                }
                return word.len();
            }
            _ => {}
        }
        1
    }

    fn top(&self) -> u8 {
        self.levels.last().map_or(b'.', |level| level.open)
    }

    fn open(&mut self, open: u8) {
        self.levels.push(Level { open, cost: 0 });
        self.pay(PREFIX);
    }

    fn close(&mut self) {
        // The outermost level stays: a text may close more than it opens.
        if self.levels.len() > 1
            && let Some(level) = self.levels.pop()
        {
            self.cost -= level.cost;
            self.pay(CLOSED);
        }
    }

    fn pay(&mut self, cost: usize) {
        if let Some(level) = self.levels.last_mut() {
            level.cost += cost;
        }
        self.cost += cost;
        self.cost_max = self.cost_max.max(self.cost);
    }
}

/// Costs by what was measured in an unoptimized build with a stack of 2 MiB: over 100 brackets or prefixes, 200 operators, and 800
/// closed brackets in a row.
const PREFIX: usize = 8;
const OPERATOR: usize = 4;
const CLOSED: usize = 1;
const COST_MAX: usize = 800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_is_counted_and_what_follows_is_not() {
        let times = |text: &str, count: usize| text.repeat(count);
        for (jq, too_deep) in [
            (times("(", 101), true),
            (format!("{}1{}", times("[", 99), times("]", 99)), false),
            (times(".a|", 199), false),
            (times(".a|", 201), true),
            (format!("{{{}}}", times("a: 1, ", 400)), false),
            (format!("\"{}\"", times("([{|", 400)), false),
            (format!("\"{}", times("\\(\"", 100)), true),
            (format!("# {}\n.", times("(", 400)), false),
            (times("def f: 1; ", 90), false),
            (times("if . then 1 else 2 end ", 400), false),
            (times("if . then ", 101), true),
            (times(")", 400), false),
            (".éé\\\"".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_too_deep(&jq), too_deep, "{jq:.60}");
        }
    }
}
