//! Which record of a subject is its latest, and what an event does to the finding that receivers know of.
//!
//! Invariants: the latest is by the time of the analysis, never by arrival; nobody with a weaker proof turns a record towards clean;
//! the order in which two equally proven analyses arrive does not change the record that stands in the end.
//!
//! Not here: where records are kept (`store/ledger`), the combination over sources (the gate).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::{Activity, Approval, Auth, Finding, Position, Previous, Standing, Uid, Verdict};

/// The latest record of one (source, subject).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The verdict that stands.
    pub verdict: Verdict,
    /// Its score.
    pub score: Option<u8>,
    /// When the analysis ended, or when it was received where the provider gave no time or one after the receipt.
    pub effective_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// Where its event stands.
    pub position: Position,
    /// Identity of its event.
    pub uid: Uid,
    /// The proof that a change towards clean needs at least: the strongest since the last such change, so that a weak repeat
    /// of the verdict does not open the way for a weak all-clear.
    pub auth: Auth,
    /// The platform's own approval.
    pub policy: Option<Approval>,
    /// The provider's id of the event.
    pub event_id: Option<String>,
    /// Whether receivers were told of a finding that was not closed since.
    pub finding_open: bool,
}

impl Record {
    /// Whether a finding without a time or an id says just what this record says.
    pub fn repeats(&self, finding: &Finding) -> bool {
        (self.verdict, self.score, self.policy) == (finding.verdict, finding.score, finding.policy)
    }
}

/// An event that is about to be ranked.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What the analysis said.
    pub finding: &'a Finding,
    /// How it was proven.
    pub auth: Auth,
    /// When it was received.
    pub received_at: Timestamp,
    /// Where its event will stand.
    pub position: Position,
    /// Its identity.
    pub uid: Uid,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// How it relates to the latest record.
    pub standing: Standing,
    /// What it does to the finding that receivers know of.
    pub activity: Activity,
    /// The verdict that it replaces, or contests, if that is another one.
    pub previous: Option<Previous>,
    /// When the analysis ended, as far as we believe it.
    pub effective_at: Timestamp,
    /// Whether the provider's clock is far ahead of ours.
    pub clock_suspect: bool,
    /// The record that stands now, if it changed.
    pub record: Option<Record>,
}

/// A clock further ahead than this is marked: two clocks that are kept well differ by less.
const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Ranks a candidate against the latest record of its source and subject.
pub fn rank(current: Option<&Record>, new: &Candidate<'_>) -> Ranked {
    let analysed_at = new.finding.analysed_at.unwrap_or(new.received_at);
    let effective_at = analysed_at.min(new.received_at);
    let standing = current.map_or(Standing::Latest, |current| standing(current, new, effective_at));
    let was_open = current.is_some_and(|current| current.finding_open);
    let activity = activity(new.finding.verdict, standing, was_open);
    let finding_open = match activity {
        Activity::Create | Activity::Update => true,
        Activity::Close => false,
        Activity::Scan => was_open,
    };
    let record = match (standing, current) {
        (Standing::Latest, _) => Some(Record { finding_open, ..record_of(current, new, effective_at) }),
        // A detection that came late is told all the same, so there is a finding to close one day.
        (_, Some(current)) if current.finding_open != finding_open => Some(Record { finding_open, ..current.clone() }),
        _ => None,
    };
    let replaced = current.filter(|current| standing != Standing::Superseded && current.verdict != new.finding.verdict);
    Ranked {
        standing,
        activity,
        previous: replaced.map(|current| Previous { verdict: current.verdict, analysed_at: current.effective_at }),
        effective_at,
        clock_suspect: analysed_at.duration_since(new.received_at) > CLOCK_AHEAD_MAX,
        record,
    }
}

fn standing(current: &Record, new: &Candidate<'_>, effective_at: Timestamp) -> Standing {
    let verdict = new.finding.verdict;
    // Of two analyses of the same moment the worse one stands.
    let latest = (effective_at, verdict) >= (current.effective_at, current.verdict);
    if !latest {
        Standing::Superseded
    } else if verdict < current.verdict && new.auth < current.auth {
        Standing::Contested
    } else {
        Standing::Latest
    }
}

/// What receivers are told: a detection opens a finding or updates the open one, and only a clean verdict that stands closes it.
const fn activity(verdict: Verdict, standing: Standing, was_open: bool) -> Activity {
    match (verdict, standing) {
        _ if verdict.is_detection() => {
            if was_open {
                Activity::Update
            } else {
                Activity::Create
            }
        }
        (Verdict::Clean, Standing::Latest) if was_open => Activity::Close,
        _ => Activity::Scan,
    }
}

fn record_of(current: Option<&Record>, new: &Candidate<'_>, effective_at: Timestamp) -> Record {
    let stronger = current.filter(|current| new.finding.verdict >= current.verdict).map(|current| current.auth);
    Record {
        verdict: new.finding.verdict,
        score: new.finding.score,
        effective_at,
        received_at: new.received_at,
        position: new.position,
        uid: new.uid,
        auth: stronger.map_or(new.auth, |auth| auth.max(new.auth)),
        policy: new.finding.policy,
        event_id: new.finding.event_id.clone(),
        finding_open: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Hash, Subject, SubjectId};

    /// Analysed `second` seconds after the epoch, received at 1,000 or later.
    fn finding(verdict: Verdict, second: Option<i64>) -> Finding {
        let at = second.map(|second| Timestamp::from_second(second).expect("in range"));
        Finding { analysed_at: at, ..Finding::new(Subject::of(SubjectId::Message("m".to_owned())), verdict) }
    }

    /// Ranks one after the other; what each became, and the record that stands in the end.
    fn ranked(steps: &[(Verdict, Option<i64>, Auth)]) -> (Vec<Ranked>, Record) {
        let (mut record, mut all) = (None, Vec::new());
        for (number, (verdict, second, auth)) in (0_u8..).zip(steps) {
            let candidate = Candidate {
                finding: &finding(*verdict, *second),
                auth: *auth,
                received_at: Timestamp::from_second(1000 + i64::from(number)).expect("in range"),
                position: Position::new(number.into(), 0),
                uid: Hash([number; 16]),
            };
            let ranked = rank(record.as_ref(), &candidate);
            record = ranked.record.clone().or(record);
            all.push(ranked);
        }
        (all, record.expect("there was a step"))
    }

    #[test]
    fn a_finding_is_created_updated_and_closed() {
        let signed = Auth::Signature;
        let (all, record) = ranked(&[
            (Verdict::Clean, Some(1), signed),
            (Verdict::Suspicious, Some(2), signed),
            (Verdict::Malicious, Some(3), signed),
            (Verdict::Unknown, Some(4), signed),
            (Verdict::Clean, Some(5), signed),
            (Verdict::Malicious, Some(6), signed),
        ]);
        let activities: Vec<_> = all.iter().map(|ranked| ranked.activity).collect();
        use Activity::{Close, Create, Scan, Update};
        assert_eq!(activities, [Scan, Create, Update, Scan, Close, Create]);
        assert_eq!(all[4].previous.map(|previous| previous.verdict), Some(Verdict::Unknown));
        assert!(record.finding_open);
    }

    #[test]
    fn an_older_analysis_that_comes_late_is_told_and_does_not_stand() {
        let (all, record) = ranked(&[
            (Verdict::Clean, Some(20), Auth::Signature),
            (Verdict::Malicious, Some(10), Auth::Signature),
            (Verdict::Clean, Some(30), Auth::Signature),
        ]);
        assert_eq!((all[1].standing, all[1].activity), (Standing::Superseded, Activity::Create));
        assert_eq!(all[2].activity, Activity::Close);
        assert_eq!(record.verdict, Verdict::Clean);
    }

    #[test]
    fn nobody_with_a_weaker_proof_turns_a_record_towards_clean() {
        let (all, record) = ranked(&[
            (Verdict::Malicious, Some(1), Auth::Signature),
            (Verdict::Malicious, Some(2), Auth::None),
            (Verdict::Clean, Some(3), Auth::None),
            (Verdict::Unknown, Some(4), Auth::Token),
        ]);
        assert_eq!(all[1].standing, Standing::Latest);
        assert_eq!((all[2].standing, all[2].activity), (Standing::Contested, Activity::Scan));
        assert_eq!(all[3].standing, Standing::Contested);
        assert_eq!(record.verdict, Verdict::Malicious);
        let (all, record) =
            ranked(&[(Verdict::Malicious, Some(1), Auth::Signature), (Verdict::Clean, Some(2), Auth::Signature)]);
        assert_eq!((all[1].standing, record.verdict), (Standing::Latest, Verdict::Clean));
    }

    #[test]
    fn a_clean_verdict_from_the_future_counts_from_its_receipt() {
        let (all, record) = ranked(&[
            (Verdict::Clean, Some(4_000_000_000), Auth::Signature),
            (Verdict::Malicious, Some(1001), Auth::Signature),
        ]);
        assert!(all[0].clock_suspect && !all[1].clock_suspect);
        assert_eq!(record.verdict, Verdict::Malicious);
    }

    #[test]
    fn of_the_same_moment_the_worse_stands() {
        for steps in [[Verdict::Clean, Verdict::Malicious], [Verdict::Malicious, Verdict::Clean]] {
            let steps = steps.map(|verdict| (verdict, Some(1), Auth::Signature));
            assert_eq!(ranked(&steps).1.verdict, Verdict::Malicious);
        }
    }

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        prop::sample::select(Verdict::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_change_what_stands(
            analyses in prop::collection::vec((any_verdict(), 1_i64..50), 1..8), seed in any::<u64>()
        ) {
            let forward: Vec<_> = analyses.iter().map(|(verdict, at)| (*verdict, Some(*at), Auth::Signature)).collect();
            let mut shuffled = forward.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            let (one, other) = (ranked(&forward).1, ranked(&shuffled).1);
            prop_assert_eq!((one.verdict, one.effective_at), (other.verdict, other.effective_at));
        }

        #[test]
        fn without_a_strong_all_clear_a_signed_detection_stands(
            later in prop::collection::vec((any_verdict(), 2_i64..900, prop::sample::select(vec![Auth::None, Auth::Token])), 0..8)
        ) {
            let mut steps = vec![(Verdict::Malicious, Some(1), Auth::Signature)];
            steps.extend(later.iter().map(|(verdict, at, auth)| (*verdict, Some(*at), *auth)));
            prop_assert_eq!(ranked(&steps).1.verdict, Verdict::Malicious);
        }
    }
}
