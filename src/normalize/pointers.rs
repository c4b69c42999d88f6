//! Messages that only point to a report, and those that nothing proves: what they say has to be fetched.
//!
//! Invariants: a report is asked for in the transaction that reads its pointer, and no longer in the one that reads the report; a report
//! that points to itself is not fetched again; what cannot be asked for is a dead letter with the reason.
//!
//! Not here: asking (`poll`), the table of what waits (`store/ledger/fetches`).

use std::sync::Arc;

use super::{Message, Read, Tally, expectations};
use crate::adapter::{Adapter, FetchId};
use crate::event::{Auth, Finding, Position};
use crate::store::ledger::{DeadLetter, FETCHES_MAX, Fetch, LedgerError, Put, Transaction};

/// How a source is read.
#[derive(Clone)]
pub struct Reading {
    /// What understands its payloads.
    pub adapter: Arc<dyn Adapter>,
    /// Whether its platform can be asked for a report.
    pub asks: bool,
    /// Whether its platform is asked for lists, so that it is of use to know which reports were read.
    pub remembers: bool,
}

impl Message {
    /// Whether nothing proves it and its platform can be asked itself.
    pub(super) fn is_hearsay(&self) -> bool {
        self.raw.as_ref().is_some_and(|raw| raw.asks && raw.auth == Auth::None)
    }
}

/// Asks for a report that a message points to; why not, if it cannot be.
pub(super) fn put(
    transaction: &mut Transaction<'_>,
    position: Position,
    message: &Message,
    id: FetchId,
    tally: &mut Tally,
) -> Result<Option<String>, LedgerError> {
    if !message.raw.as_ref().is_some_and(|raw| raw.asks) {
        return Ok(Some(NOT_ASKED.to_owned()));
    }
    if message.fetched.as_ref() == Some(&id) {
        return Ok(Some("the platform's report points to itself, so there is nothing more to fetch".to_owned()));
    }
    let at = message.received_at;
    let fetch = Fetch { id, position, first_at: at, next_at: at, attempts: 0 };
    match transaction.put_fetch(&message.source, &fetch)? {
        Put::New | Put::Known => {
            tally.delivery(&message.source, "fetching");
            Ok(None)
        }
        Put::Full => Ok(Some(format!(
            "{FETCHES_MAX} reports of this source wait to be fetched already; redrive this when they are fewer"
        ))),
    }
}

const NOT_ASKED: &str = "the message only points to a report: let this source fetch it, with \
    confirm = { url = \"https://...\", key = \"env:...\" } (poll for VirusTotal), and redrive this";

/// Notes that something reported: whoever waits for it need not any more, and its report need not be fetched.
pub(super) fn note(
    transaction: &mut Transaction<'_>,
    message: &Message,
    finding: &Finding,
    report: Option<FetchId>,
) -> Result<(), LedgerError> {
    let Some(raw) = message.raw.as_ref().filter(|raw| raw.asks) else { return Ok(()) };
    expectations::meet(transaction, message, finding, report.as_ref())?;
    match report.filter(|_| raw.remembers) {
        Some(report) => transaction.put_reported(&message.source, &report, message.received_at),
        None => Ok(()),
    }
}

/// A report that was fetched is not waited for any more, unless it says that it is not finished; a page moves the mark of its stream.
pub(super) fn settle(transaction: &mut Transaction<'_>, message: &Message, waits: bool) -> Result<(), LedgerError> {
    if let Some(id) = message.fetched.as_ref().filter(|_| !waits) {
        transaction.remove_fetch(&message.source, id)?;
        if message.raw.as_ref().is_some_and(|raw| raw.remembers) {
            transaction.put_reported(&message.source, id, message.received_at)?;
        }
    }
    match &message.mark {
        Some(mark) => transaction.put_mark(&message.source, &mark.stream, &mark.value, message.received_at),
        None => Ok(()),
    }
}

/// Tries a report again that could not be fetched: it waits from now on, with its full time.
pub(super) fn redrive(transaction: &mut Transaction<'_>, read: &Read, letter: &DeadLetter) -> Result<(), LedgerError> {
    let Some(id) = std::str::from_utf8(&letter.raw).ok().and_then(FetchId::parse) else {
        let reason = "the id of the report that it keeps is not readable; its message is in the journal".to_owned();
        return transaction.put_dead_letter(&DeadLetter { reason, attempts: 1, ..letter.clone() });
    };
    let fetch = Fetch { id, position: letter.position, first_at: read.at, next_at: read.at, attempts: 0 };
    if transaction.put_fetch(&letter.source, &fetch)? == Put::Full {
        let reason = format!("{FETCHES_MAX} reports of this source wait to be fetched already; redrive it later");
        return transaction.put_dead_letter(&DeadLetter { reason, attempts: 1, last_at: read.at, ..letter.clone() });
    }
    transaction.remove_dead_letter(&letter.id).map(|_| ())
}
