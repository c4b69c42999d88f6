//! What a jq program may call: everything that only computes, and nothing that reads the environment, the clock, files or other
//! messages, writes a log or ends the process.
//!
//! Invariant: a function that is not listed here does not exist for a program, also one that a later version of the library adds.
//!
//! Not here: time and memory that a program may take (`sandbox`).

use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::native::Fun;
use jaq_json::Val;

/// The functions written in Rust.
pub(super) fn functions() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    all_functions().filter(|(name, _, _)| ALLOWED.contains(name))
}

fn all_functions() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs())
}

/// The functions written in jq: those of the library that need nothing else, and a few of jq that it lacks.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    all_definitions().filter(|definition| !FORBIDDEN_DEFINITIONS.contains(&definition.name)).chain(own_definitions())
}

fn all_definitions() -> impl Iterator<Item = Def<&'static str>> {
    jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs())
}

fn own_definitions() -> Vec<Def<&'static str>> {
    jaq_core::load::parse(OWN_DEFINITIONS, |parser| parser.defs()).expect("a test compiles it")
}

const OWN_DEFINITIONS: &str = "
def IN(values): any(values == .; .);
def IN(inputs; values): any(inputs == values; .);
def INDEX(rows; key): reduce rows as $row ({}; .[$row | key | tostring] = $row);
def INDEX(key): INDEX(.[]; key);
def toarray: if isarray then . else [.] end;
";

/// They call what is not in [`ALLOWED`].
const FORBIDDEN_DEFINITIONS: [&str; 4] = ["debug", "stderr", "halt", "halt_error"];

/// Left out of [`ALLOWED`], each for its reason; a test holds both lists against the library.
#[cfg(test)]
pub(super) const FORBIDDEN: [(&str, &str); 7] = [
    ("env", "reads the environment"),
    ("now", "reads the clock"),
    ("localtime", "reads the machine's time zone"),
    ("strflocaltime", "reads the machine's time zone"),
    ("halt", "ends the process"),
    ("debug_empty", "writes a log"),
    ("stderr_empty", "writes a log"),
];

const ALLOWED: [&str; 107] = [
    // The language.
    "error_empty",
    "path",
    "path_value",
    "range",
    "keys_unsorted",
    "key_values",
    "first",
    "last",
    "limit",
    "skip",
    // Numbers, texts and lists.
    "floor",
    "round",
    "ceil",
    "utf8bytelength",
    "explode",
    "implode",
    "ascii_downcase",
    "ascii_upcase",
    "reverse",
    "sort",
    "sort_by",
    "group_by",
    "min_by_or_empty",
    "max_by_or_empty",
    "startswith",
    "endswith",
    "ltrimstr",
    "rtrimstr",
    "trim",
    "ltrim",
    "rtrim",
    "escape_sh",
    "fromjson",
    "tojson",
    "tobytes",
    "length",
    "contains",
    "has",
    "indices",
    "bsearch",
    // Formats.
    "escape_html",
    "unescape_html",
    "encode_uri",
    "decode_uri",
    "encode_base64",
    "decode_base64",
    // Mathematics.
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp10",
    "exp2",
    "expm1",
    "fabs",
    "frexp",
    "ilogb",
    "j0",
    "j1",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "modf",
    "nearbyint",
    "rint",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "tgamma",
    "trunc",
    "y0",
    "y1",
    "atan2",
    "copysign",
    "fdim",
    "fmax",
    "fmin",
    "fmod",
    "hypot",
    "jn",
    "ldexp",
    "nextafter",
    "pow",
    "remainder",
    "scalbln",
    "yn",
    "fma",
    // Regular expressions, in time linear to the text.
    "matches",
    "split_matches",
    "split_",
    // Times, without a clock or the machine's zone.
    "fromdateiso8601",
    "todateiso8601",
    "strftime",
    "gmtime",
    "strptime",
    "mktime",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_library_is_allowed_or_forbidden() {
        let known: Vec<&str> = all_functions().map(|(name, ..)| name).collect();
        let forbidden = FORBIDDEN.map(|(name, _)| name);
        for name in &known {
            assert!(ALLOWED.contains(name) ^ forbidden.contains(name), "{name}: decide about it");
        }
        for name in ALLOWED.iter().chain(&forbidden) {
            assert!(known.contains(name), "{name} is gone");
        }
        for name in FORBIDDEN_DEFINITIONS {
            assert!(all_definitions().any(|definition| definition.name == name), "{name} is gone");
        }
    }
}
