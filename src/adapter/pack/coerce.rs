//! From what a jq expression gave to typed facts. jq only selects and reshapes; how platforms write times, hashes, scores and words is
//! known here.
//!
//! Invariants: every function is total and bounded; an error says what was expected and never holds the value; a null or blank value
//! is an absent one, never a zero.
//!
//! Not here: which expression gives what (`pack/table`), what the facts make together (`pack`).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::Offset;

use crate::adapter::score_of;
use crate::event::{Approval, Hash, LIST_MAX, TEXT_BYTES_MAX, Verdict};
use crate::json::{Fault, Value};

/// A text; a number or truth value as it was written. None where it is blank.
pub(super) fn text(value: Value<'_>) -> Result<Option<String>, Fault> {
    let text = value.scalar()?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// An id: every digit of a number is kept, and one that is too long for an event is refused, because a cut id is another id.
pub(super) fn id(value: Value<'_>) -> Result<Option<String>, Fault> {
    match text(value)? {
        Some(id) if id.len() > TEXT_BYTES_MAX => Err(value.fault("the id is longer than 512 bytes")),
        id => Ok(id),
    }
}

/// The texts of a list, or one text by itself; without blanks and repeats, and one more than events keep, so that they know of the cut.
pub(super) fn texts(value: Value<'_>) -> Result<Vec<String>, Fault> {
    if !value.is_list() {
        return Ok(text(value)?.into_iter().collect());
    }
    let mut texts = Vec::new();
    for item in value.list()?.filter(|item| !item.is_null()) {
        if let Some(text) = text(item)?
            && !texts.contains(&text)
        {
            texts.push(text);
        }
        if texts.len() > LIST_MAX {
            break;
        }
    }
    Ok(texts)
}

/// A word as tables compare it: without case and the white space around it.
pub(super) fn word(value: Value<'_>) -> Result<Option<String>, Fault> {
    Ok(text(value)?.map(|word| word.to_lowercase()))
}

/// One of our own verdict words, in any case.
pub(super) fn own_verdict(word: &str) -> Option<Verdict> {
    Verdict::ALL.into_iter().find(|verdict| verdict.word() == word)
}

/// The platform's approval: the word in any case, with spaces or hyphens for the underscore.
pub(super) fn approval(value: Value<'_>) -> Result<Option<Approval>, Fault> {
    let Some(word) = word(value)? else { return Ok(None) };
    let word = word.replace([' ', '-'], "_");
    let all = [Approval::Approved, Approval::NotApproved, Approval::PendingReview];
    let known = all.into_iter().find(|policy| policy.word() == word);
    known.map(Some).ok_or_else(|| value.fault("expected approved, not_approved or pending_review"))
}

/// A hash in hexadecimal, in either case, perhaps with the name of its algorithm in front (`sha256:`).
pub(super) fn hash<const N: usize>(value: Value<'_>) -> Result<Option<Hash<N>>, Fault> {
    let Some(text) = text(value)? else { return Ok(None) };
    let digits = match text.split_once(':') {
        Some((algorithm, digits)) if is_algorithm::<N>(algorithm) => digits,
        _ => &text,
    };
    digits.parse().map(Some).map_err(|_| value.fault("not the hexadecimal digits of this kind of hash"))
}

fn is_algorithm<const N: usize>(name: &str) -> bool {
    let names: &[&str] = match N {
        32 => &["sha256", "sha-256"],
        20 => &["sha1", "sha-1"],
        16 => &["md5"],
        _ => &[],
    };
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A size in bytes: a whole number, or its digits as text.
pub(super) fn size(value: Value<'_>) -> Result<Option<u64>, Fault> {
    let Some(text) = text(value)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| value.fault("expected a whole number from 0 to 2^64 - 1"))
}

/// A count of engines.
pub(super) fn count(value: Value<'_>) -> Result<Option<u32>, Fault> {
    let Some(size) = size(value)? else { return Ok(None) };
    u32::try_from(size).map(Some).map_err(|_| value.fault("the count is too large"))
}

/// How a platform's score becomes a risk of 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// The platform's largest score; above 0.
    pub(super) max: f64,
    /// Whether its largest score is its best.
    pub(super) invert: bool,
}

impl Scale {
    /// The risk. What lies outside of the scale is taken for its end.
    pub(super) fn risk(self, value: Value<'_>) -> Result<Option<u8>, Fault> {
        let Some(text) = text(value)? else { return Ok(None) };
        let Some(score) = text.parse::<f64>().ok().filter(|score| score.is_finite()) else {
            return Err(value.fault("expected a number"));
        };
        let share = (score / self.max).clamp(0.0, 1.0);
        Ok(Some(score_of(100.0 * if self.invert { 1.0 - share } else { share })))
    }
}

/// A time, however it is written: seconds, milliseconds, micro- or nanoseconds since 1970 (told apart by their size), ISO 8601 with any
/// fraction of a second, or as HTTP writes it. Without a zone it is UTC.
pub(super) fn time(value: Value<'_>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = text(value)? else { return Ok(None) };
    let time = if text.len() > TIME_BYTES_MAX {
        None
    } else if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        epoch(&text)
    } else if value.is_number() {
        // With an exponent. What a double loses here is less than a microsecond.
        text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0).and_then(|seconds| epoch(&format!("{seconds:.6}")))
    } else {
        iso(&text).or_else(|| rfc2822::DateTimeParser::new().parse_timestamp(&text).ok())
    };
    time.map(Some).ok_or_else(|| {
        value.fault("expected a time: seconds or milliseconds since 1970, 2026-03-23T12:00:00Z, or Mon, 23 Mar 2026 12:00:00 GMT")
    })
}

/// Whole digits and perhaps a fraction, exactly.
fn epoch(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i128 = whole.parse::<u64>().ok()?.into();
    // Up to the year 5138 in each unit, and from 1973 on.
    let unit: i128 = match whole.trim_start_matches('0').len() {
        ..=11 => 1_000_000_000,
        12..=14 => 1_000_000,
        15..=17 => 1_000,
        _ => 1,
    };
    let digits = &fraction[..fraction.len().min(9)];
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse::<u64>().ok()?.into() };
    let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    Timestamp::from_nanosecond(number * unit + part * unit / scale).ok()
}

fn iso(text: &str) -> Option<Timestamp> {
    let text = text
        .strip_suffix(" UTC")
        .or_else(|| text.strip_suffix(" GMT"))
        .map_or_else(|| text.to_owned(), |time| format!("{time}Z"));
    // A date by itself is a whole day, and no time of an analysis.
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (time, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, ""),
    };
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = &fraction[..if is_fraction { fraction.len().min(9) } else { return None }];
    let local: DateTime = format!("{date}T{seconds}.{fraction}").parse().ok()?;
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") {
        return Offset::UTC.to_timestamp(local).ok();
    }
    format!("{date}T{seconds}.{fraction}{zone}").parse().ok()
}

/// The longest form of a time has 45 bytes.
const TIME_BYTES_MAX: usize = 64;
