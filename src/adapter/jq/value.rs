//! JSON to jq's values and back.
//!
//! Invariants: what goes in has passed the strict reader, so its depth is bounded, and an object in which a key stands twice is
//! refused; numbers keep every digit both ways; what comes out is JSON of bounded depth and size.
//!
//! Not here: what the values mean.

use jaq_core::ValT as _;
use jaq_json::{Num, Rc, Val};

use crate::json::{Document, Fault, Kind, Value};

/// The value as jq has it.
pub(super) fn read(value: Value<'_>) -> Result<Val, Fault> {
    // The reader stops at a depth of 64, so this recursion ends.
    Ok(match value.kind() {
        Kind::Null => Val::Null,
        Kind::True => Val::Bool(true),
        Kind::False => Val::Bool(false),
        Kind::Number => number(value.raw()),
        Kind::Text | Kind::EscapedText => Val::from(value.text()?.into_owned()),
        Kind::List => Val::Arr(Rc::new(value.list()?.map(read).collect::<Result<_, _>>()?)),
        Kind::Object => {
            let mut count = 0;
            let entries = value.entries()?.inspect(|_| count += 1);
            let entries = entries.map(|(key, value)| Ok((Val::from(key.into_owned()), read(value)?)));
            let object = Val::obj(entries.collect::<Result<_, Fault>>()?);
            match &object {
                Val::Obj(map) if map.len() < count => {
                    return Err(value.ambiguous("a key stands twice in this object, so which one is meant is a guess"));
                }
                _ => object,
            }
        }
    })
}

fn number(text: &str) -> Val {
    // A whole number is read digit by digit into one of any size, which takes the square of its length.
    let number = if text.len() <= NUMBER_BYTES_MAX { Val::from_num(text).ok() } else { None };
    number.unwrap_or_else(|| Val::Num(Num::Dec(Rc::new(text.to_owned()))))
}

/// Writes a value as JSON.
pub(super) fn write(value: &Val, json: &mut Vec<u8>, bytes_max: usize) -> Result<(), &'static str> {
    write_at(value, json, bytes_max, 0)
}

fn write_at(value: &Val, json: &mut Vec<u8>, bytes_max: usize, depth: usize) -> Result<(), &'static str> {
    if depth > DEPTH_MAX {
        return Err("gave a value nested deeper than 60 levels");
    }
    if json.len() > bytes_max {
        return Err("gave more than 16 MiB");
    }
    match value {
        Val::Null => json.extend_from_slice(b"null"),
        Val::Bool(truth) => json.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Val::Num(number) => write_number(number, json),
        Val::TStr(text) | Val::BStr(text) => write_text(text, json),
        Val::Arr(items) => {
            json.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                write_at(item, json, bytes_max, depth + 1)?;
            }
            json.push(b']');
        }
        Val::Obj(entries) => {
            json.push(b'{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                let (Val::TStr(key) | Val::BStr(key)) = key else {
                    return Err("gave an object with a key that is no text");
                };
                write_text(key, json);
                json.push(b':');
                write_at(value, json, bytes_max, depth + 1)?;
            }
            json.push(b'}');
        }
    }
    Ok(())
}

fn write_number(number: &Num, json: &mut Vec<u8>) {
    let text = match number {
        Num::Int(int) => int.to_string(),
        Num::BigInt(int) => int.to_string(),
        // As it stood in the message. In an expression it may be written in ways that JSON does not know (`.5`).
        Num::Dec(text) if is_json(text) => text.to_string(),
        Num::Dec(text) => float(text.parse().unwrap_or(f64::NAN)),
        Num::Float(float) => self::float(*float),
    };
    json.extend_from_slice(text.as_bytes());
}

fn is_json(number: &str) -> bool {
    Document::read(number.as_bytes()).is_ok_and(|document| document.root().is_number())
}

fn float(number: f64) -> String {
    // What is no number in JSON is nothing.
    if number.is_finite() { format!("{number:?}") } else { "null".to_owned() }
}

/// Writes a text as JSON; bytes that are not UTF-8 are replaced.
pub(super) fn write_text(text: &[u8], json: &mut Vec<u8>) {
    serde_json::to_writer(json, &*String::from_utf8_lossy(text))
        .expect("memory takes every write, and a text is always JSON");
}

/// Depth of an answer's part: with what stands around it the reader's 64.
const DEPTH_MAX: usize = 60;
/// Digits of a whole number that jq may calculate with: more than any id has.
const NUMBER_BYTES_MAX: usize = 100;
