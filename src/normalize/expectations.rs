//! Analyses that were announced and have to report: `POST /v1/expect`, and the event when one does not.
//!
//! Invariants: what is announced and what is found late both come from the journal, so a ledger that is rebuilt tells the same; an
//! analysis is late once; what reports late still comes as its own event.
//!
//! Not here: asking the platform once more (`poll`).

use jiff::{SignedDuration, Timestamp};
use sha2::Digest;
use tracing::error;

use super::{Message, Normalizer, Read};
use crate::adapter::FetchId;
use crate::delivery::{Expectation, Wanted};
use crate::event::{
    Activity, Auth, Event, Finding, Hash, Position, SourceId, Standing, Subject, SubjectId, Topic, Verdict, overdue_uid,
};
use crate::ranking::Record;
use crate::store::ledger::{Expected, LedgerError, Transaction};

/// What a record says; none if it is not readable.
pub(super) fn read(stored: &[u8]) -> Option<Expectation> {
    serde_json::from_slice(stored).ok()
}

/// Whether a verdict on the awaited file came just before it was announced: whoever uploads a file and then announces it may be overtaken.
/// An analysis that is awaited by its id is looked for at the platform anyway before it is called late.
fn was_met(
    transaction: &Transaction<'_>,
    source: &SourceId,
    wanted: &Wanted,
    at: Timestamp,
) -> Result<bool, LedgerError> {
    let Wanted::Sha256(hash) = wanted else { return Ok(false) };
    let latest: Option<Record> = transaction.known(&format!("file:{hash}"), source)?.record();
    Ok(latest.is_some_and(|latest| at.duration_since(latest.received_at) <= OVERTAKEN))
}

/// How long before its announcement a report counts.
const OVERTAKEN: SignedDuration = SignedDuration::from_mins(10);

/// Whoever waits for this finding need not wait any more.
pub(super) fn meet(
    transaction: &mut Transaction<'_>,
    message: &Message,
    finding: &Finding,
    report: Option<&FetchId>,
) -> Result<(), LedgerError> {
    let event_id = finding.event_id.as_deref();
    // Adapters that have several kinds of ids put the kind before it.
    let bare = event_id.and_then(|id| id.split_once(':')).map(|(_, id)| id);
    let fetched = [report, message.fetched.as_ref()].into_iter().flatten().map(FetchId::id);
    let mut met = transaction.meet_expectations(&message.source, &Wanted::key_of_subject(&finding.subject.key()))?;
    for id in event_id.into_iter().chain(bare).chain(fetched) {
        met += transaction.meet_expectations(&message.source, &Wanted::key_of_id(id))?;
    }
    if met > 0 {
        tracing::debug!(source = %message.source, met, "awaited analyses reported");
    }
    Ok(())
}

impl Normalizer {
    /// Awaits an analysis, or tells that it is late.
    pub(super) fn apply_expectation(
        &self,
        transaction: &mut Transaction<'_>,
        read: &Read,
        source: &SourceId,
        expectation: Option<&Expectation>,
    ) -> Result<(), LedgerError> {
        match expectation {
            None => {
                error!(sequence = read.sequence, "an announced analysis in the journal is not readable, passed over");
                Ok(())
            }
            Some(Expectation::Expect { wanted, within_ms }) => {
                if was_met(transaction, source, wanted, read.at)? {
                    return Ok(());
                }
                let due_at = read.at.checked_add(std::time::Duration::from_millis(*within_ms)).unwrap_or(read.at);
                let expected = Expected { sequence: read.sequence, wanted: wanted.key(), at: read.at, due_at };
                transaction.put_expectation(source, &expected)
            }
            Some(Expectation::Overdue { sequence, reason, answered }) => {
                // Met meanwhile, or told already: then there is nothing to tell.
                let Some(expected) = transaction.take_expectation(*sequence)? else { return Ok(()) };
                let event = self.overdue(read, source, &expected, reason, *answered);
                tracing::warn!(%source, expectation = sequence, "an awaited analysis of source {source} is overdue: {reason}");
                transaction.put_event(Position::new(read.sequence, 0), None, event)
            }
        }
    }

    fn overdue(&self, read: &Read, source: &SourceId, expected: &Expected, reason: &str, answered: bool) -> Event {
        let wanted = Wanted::of_key(&expected.wanted);
        let (subject, event_id) = match wanted {
            Some(Wanted::Sha256(hash)) => (Subject::of(SubjectId::Sha256(hash)), None),
            Some(Wanted::Id(id)) => (Subject::of(SubjectId::Message(id.clone())), Some(id)),
            None => (Subject::of(SubjectId::Message(expected.wanted.clone())), None),
        };
        let awaited = expected.due_at.duration_since(expected.at).as_secs();
        let mut finding = Finding::new(subject, Verdict::Unknown);
        finding.reason = Some(format!("no report within {awaited} s: {reason}"));
        finding.event_id = event_id;
        let provider = self.sources.get(source).map_or(source.as_str(), |reading| reading.adapter.provider());
        Event {
            uid: overdue_uid(source, &expected.wanted, expected.sequence),
            source: source.clone(),
            provider: provider.to_owned(),
            // What the platform itself told us, or nothing that anybody did.
            auth: if answered { Auth::Confirmed } else { Auth::None },
            received_at: read.at,
            effective_at: read.at,
            clock_suspect: false,
            raw_sha256: Hash(sha2::Sha256::digest(&expected.wanted).into()),
            raw_size: expected.wanted.len() as u64,
            finding: finding.within_bounds(),
            activity: Activity::Scan,
            standing: Standing::Latest,
            previous: None,
            again: None,
            corrects: None,
            topic: Topic::Overdue,
        }
    }
}
