//! The files within an archive, as MetaDefender lists them under `extracted_files`.
//!
//! Invariants: a file with a hash is a finding of its own; one without is not lost: it makes the archive's verdict as bad as its own,
//! and an archive is not clean while such a file is still scanned or can't be read.
//!
//! Not here: the archive by itself (`metadefender`).

use super::code::{State, said};
use super::{Scan, describe, hashes, policy};
use crate::adapter::Outcome;
use crate::adapter::json::{Fault, Value};
use crate::event::{Subject, Verdict};

/// What was within.
#[derive(Default)]
pub(super) struct Within {
    /// The files that have a hash.
    pub(super) own: Vec<Result<Outcome, Fault>>,
    /// The worst of the files that have none, and why.
    worst: Option<(Verdict, String)>,
    is_pending: bool,
    odd: Option<Fault>,
}

impl Within {
    /// The files within the result, if it lists any.
    pub(super) fn read(root: Value<'_>, scan: &Scan) -> Result<Self, Fault> {
        let mut within = Self::default();
        let [extracted] = root.fields(["extracted_files"])?;
        let Some(extracted) = extracted else { return Ok(within) };
        let [files] = extracted.fields(["files_in_archive"])?;
        let Some(files) = files else { return Ok(within) };
        for file in files.list()? {
            match child(file, scan) {
                Ok(Child::Own(outcome)) => within.own.push(Ok(outcome)),
                Ok(Child::Pending) => within.is_pending = true,
                Ok(Child::Part(verdict, words)) => {
                    if within.worst.as_ref().is_none_or(|(worst, _)| verdict > *worst) {
                        within.worst = Some((verdict, words));
                    }
                }
                Err((fault, true)) => within.own.push(Err(fault)),
                Err((fault, false)) => within.odd = Some(fault),
            }
        }
        Ok(within)
    }

    /// The archive's own state, made as bad as the files without a hash are.
    pub(super) fn worsens(&self, own: State) -> Result<State, Fault> {
        let State::Ended(verdict, reason) = own else { return Ok(own) };
        let (verdict, reason) = match &self.worst {
            // Also where the archive is as bad: it says which file made it so.
            Some((worst, words)) if *worst >= verdict && *worst != Verdict::Clean => (*worst, Some(words.clone())),
            _ => (verdict, reason),
        };
        match self.odd {
            Some(fault) if !verdict.is_detection() => Err(fault),
            _ if self.is_pending && !verdict.is_detection() => Ok(State::NotReady),
            _ => Ok(State::Ended(verdict, reason)),
        }
    }
}

/// One file within.
enum Child {
    /// It has a hash.
    Own(Outcome),
    /// It has none: its verdict, and what that says of the archive.
    Part(Verdict, String),
    /// It has none, and is still scanned.
    Pending,
}

/// Reads a file within; what is wrong with it, and whether it has a hash.
fn child(file: Value<'_>, scan: &Scan) -> Result<Child, (Fault, bool)> {
    let subject = identity(file).map_err(|fault| (fault, false))?;
    let has_hash = subject.is_some();
    let read = || {
        let [code, progress, process, name] =
            file.fields(["scan_all_result_i", "progress_percentage", "process_info", "display_name"])?;
        let [process_progress] = process.map_or(Ok([None]), |process| process.fields(["progress_percentage"]))?;
        let state = said(file, code, [progress, process_progress])?;
        let Some(mut subject) = subject else {
            let State::Ended(verdict, reason) = state else { return Ok(Child::Pending) };
            let name = name.map_or(Ok("a file within".into()), Value::text)?;
            let why = reason.unwrap_or_else(|| verdict.word().to_owned());
            return Ok(Child::Part(verdict, format!("{why}: {name}")));
        };
        let State::Ended(verdict, reason) = state else { return Ok(Child::Own(Outcome::NotReady)) };
        describe(file, &mut subject)?;
        let [data_id, detected_by, scanned_with] = file.fields(["data_id", "detected_by", "scanned_with"])?;
        let mut finding = scan.finding(subject, verdict, data_id)?;
        finding.reason = reason.or_else(|| scan.name.as_ref().map(|archive| format!("from within {archive}")));
        finding.policy = process.map_or(Ok(None), policy)?;
        finding.hits = detected_by.map_or(Ok(0), Value::count)?;
        finding.engines = scanned_with.map(Value::count).transpose()?;
        Ok(Child::Own(Outcome::Verdict(Box::new(finding.within_bounds()))))
    };
    read().map_err(|fault| (fault, has_hash))
}

/// The hashes, which stand in the entry itself or in a `file_info` of its own.
fn identity(file: Value<'_>) -> Result<Option<Subject>, Fault> {
    let [info] = file.fields(["file_info"])?;
    match hashes(file)? {
        None => info.map_or(Ok(None), hashes),
        subject => Ok(subject),
    }
}
