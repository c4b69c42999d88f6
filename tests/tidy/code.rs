//! Rust sources read as text, as far as the house rules need it: no comments, paths with `::`, lengths of functions.
//!
//! Not here: a parser. What formatted code never looks like is not handled.

/// The code with comments and the text of strings and characters blanked out; lines and columns stay.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(text, at);
        for byte in code.iter_mut().take(end).skip(at).filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
        at = end.max(at + 1);
    }
    // Only whole literals and comments are blanked, so no character is cut; what is left over is as it was.
    String::from_utf8(code).expect("blanks replace whole characters")
}

/// Where a comment or literal that begins here ends; `at` itself where none begins.
fn skipped(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    let end_of = |mark: &str, from: usize| {
        text.as_bytes()[from..]
            .windows(mark.len())
            .position(|part| part == mark.as_bytes())
            .map_or(bytes.len(), |found| from + found + mark.len())
    };
    let starts_name = at == 0 || !is_name(char::from(bytes[at - 1]));
    let raw = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r");
    let hashes = raw.map_or(0, |raw| raw.iter().take_while(|byte| **byte == b'#').count());
    if rest.starts_with(b"//") {
        end_of("\n", at) - 1
    } else if rest.starts_with(b"/*") {
        end_of("*/", at)
    } else if starts_name && raw.is_some_and(|raw| raw.get(hashes) == Some(&b'"')) {
        let open = at + text[at..].find('"').expect("just seen");
        end_of(&format!("\"{}", "#".repeat(hashes)), open + 1)
    } else if rest[0] == b'"' {
        quoted(bytes, at, b'"')
    } else if rest[0] == b'\'' && is_character(rest) {
        quoted(bytes, at, b'\'')
    } else {
        at
    }
}

/// A character literal and no lifetime: `'a'`, `'\n'`, `'é'`, but not `'a`.
fn is_character(rest: &[u8]) -> bool {
    rest.get(1) == Some(&b'\\')
        || rest.iter().skip(2).take(4).position(|byte| *byte == b'\'').is_some_and(|at| at == 0 || !rest[1].is_ascii())
}

fn quoted(bytes: &[u8], open: usize, mark: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != mark {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Every path with `::` in the code and every name that `use` brings in, groups taken apart, with its line.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(|c: char| is_name(c)).map(|offset| at + offset) {
        let mut tree = Vec::new();
        let end = path_tree(code, start, &[], &mut tree);
        let imported = code[..start].trim_end().ends_with("use");
        let line = code[..start].matches('\n').count() + 1;
        found.extend(tree.into_iter().filter(|path| path.len() > 1 || imported).map(|path| (line, path)));
        at = end;
    }
    found
}

/// Reads `a::b::{c, d::e}` from `start` on into its paths; returns where it ends.
fn path_tree(code: &str, start: usize, before: &[String], into: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = start;
    loop {
        let length = code[at..].find(|c: char| !is_name(c)).unwrap_or(code.len() - at);
        path.push(code[at..at + length].to_owned());
        at += length;
        let Some(next) = code[at..].strip_prefix("::") else { break };
        at += 2;
        if next.starts_with('{') {
            at += 1;
            while !code[at..].starts_with('}') && at < code.len() {
                let step = code[at..].chars().next().map_or(0, char::len_utf8);
                at = if code[at..].starts_with(is_name) { path_tree(code, at, &path, into) } else { at + step };
            }
            return (at + 1).min(code.len());
        }
        if !next.starts_with(is_name) {
            break;
        }
    }
    into.push(path);
    at
}

/// Line, name and number of lines of each function that has a body.
pub(crate) fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_name)) {
        let name = code[at + 3..].split(|c: char| !is_name(c)).next().unwrap_or_default();
        let Some(open) =
            code[at..].find(['{', ';']).map(|offset| at + offset).filter(|open| code[*open..].starts_with('{'))
        else {
            continue;
        };
        let mut depth = 0;
        let close = code[open..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0
        });
        let Some((length, _)) = close.filter(|_| !name.is_empty()) else { continue };
        found.push((code[..at].matches('\n').count() + 1, name, code[at..=open + length].matches('\n').count() + 1));
    }
    found
}

pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
