//! MetaDefender's codes of a scan, as numbers (`scan_all_result_i`) and as words (`scan_all_result_a`, `CoreScanResult`): opswat.com,
//! "Scan result codes and explanations".
//!
//! Invariants: only two codes are clean; a code that is not in the table is an error, and a word that is not in it is refused.
//!
//! Not here: what the verdict is about (`metadefender`).

use crate::adapter::json::{Fault, Value};
use crate::adapter::shared::letters;
use crate::event::Verdict;

/// How far a scan has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// It goes on.
    NotReady,
    /// It ended with this verdict, for this reason if it needs one.
    Ended(Verdict, Option<String>),
}

impl State {
    /// What the code means.
    pub(super) fn of(code: u64) -> Self {
        if code == IN_PROGRESS {
            return Self::NotReady;
        }
        match CODES.iter().find(|(known, ..)| *known == code) {
            Some((_, verdict @ Verdict::Error, words)) => Self::Ended(*verdict, Some((*words).to_owned())),
            Some((_, verdict, _)) => Self::Ended(*verdict, None),
            None => Self::Ended(Verdict::Error, Some(format!("not examined: MetaDefender's code {code}"))),
        }
    }
}

/// What the code of a scan says, if every `progress` is 100; clean needs one of them. `of` is the object with the code.
pub(super) fn said<const N: usize>(
    of: Value<'_>,
    code: Option<Value<'_>>,
    progress: [Option<Value<'_>>; N],
) -> Result<State, Fault> {
    for progress in progress.into_iter().flatten() {
        if progress.percent()? < 100.0 {
            return Ok(State::NotReady);
        }
    }
    let state = State::of(code.ok_or_else(|| of.missing("scan_all_result_i"))?.whole()?);
    if matches!(state, State::Ended(Verdict::Clean, _)) && progress.iter().all(Option::is_none) {
        return Err(of.missing("progress_percentage"));
    }
    Ok(state)
}

/// What the words of a scan's result say.
pub(super) fn verdict_of(result: Value<'_>) -> Result<State, Fault> {
    let word = letters(&result.text()?);
    let known = WORDS.iter().find(|(known, _)| *known == word);
    known.map(|(_, code)| State::of(*code)).ok_or_else(|| result.fault("a result that this version does not know"))
}

const IN_PROGRESS: u64 = 255;

/// Codes with their meaning; the words are the reason of an error.
const CODES: [(u64, Verdict, &str); 24] = [
    (0, Verdict::Clean, "no threat detected"),
    (1, Verdict::Malicious, "infected"),
    (2, Verdict::Suspicious, "suspicious"),
    (3, Verdict::Error, "the scan failed"),
    (4, Verdict::Malicious, "cleaned or deleted"),
    (5, Verdict::Error, "unknown signature"),
    (6, Verdict::Malicious, "quarantined"),
    (7, Verdict::Clean, "on the allow list"),
    (8, Verdict::Malicious, "on the block list"),
    (9, Verdict::Error, "exceeded archive depth"),
    (10, Verdict::Error, "not scanned"),
    (11, Verdict::Error, "aborted"),
    (12, Verdict::Error, "encrypted archive"),
    (13, Verdict::Error, "exceeded archive size"),
    (14, Verdict::Error, "exceeded archive file number"),
    (15, Verdict::Error, "password-protected document"),
    (16, Verdict::Error, "exceeded archive timeout"),
    (17, Verdict::Error, "file type mismatch"),
    (18, Verdict::Error, "potentially vulnerable file"),
    (19, Verdict::Error, "canceled"),
    (20, Verdict::Error, "sensitive data found"),
    (21, Verdict::Error, "YARA rule matched"),
    (22, Verdict::Suspicious, "potentially unwanted program"),
    (23, Verdict::Error, "unsupported file type"),
];

/// The words of all versions, without case and spaces.
const WORDS: [(&str, u64); 33] = [
    ("nothreatdetected", 0),
    ("nothreatsdetected", 0),
    ("nothreatsfound", 0),
    ("infected", 1),
    ("infected/known", 1),
    ("threatdetected", 1),
    ("suspicious", 2),
    ("failed", 3),
    ("failedtoscan", 3),
    ("cleaned/deleted", 4),
    ("quarantined", 6),
    ("allowlisted", 7),
    ("skippedclean", 7),
    ("scanskippedwhitelisted", 7),
    ("blocklisted", 8),
    ("skippedinfected", 8),
    ("scanskippedblacklisted", 8),
    ("exceededarchivedepth", 9),
    ("notscanned", 10),
    ("aborted", 11),
    ("encryptedarchive", 12),
    ("exceededarchivesize", 13),
    ("exceededarchivefilenumber", 14),
    ("passwordprotecteddocument", 15),
    ("exceededarchivetimeout", 16),
    ("filetypemismatch", 17),
    ("potentiallyvulnerablefile", 18),
    ("canceled", 19),
    ("sensitivedatafound", 20),
    ("yararulematched", 21),
    ("potentiallyunwantedprogram", 22),
    ("unsupportedfiletype", 23),
    ("inprogress", IN_PROGRESS),
];
