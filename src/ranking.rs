//! Which record of a (source, subject) is the latest, and what a new event does to the finding that is open for it.
//!
//! The rules:
//! - Latest is by the effective time: the provider's, but never later than the receipt; the receipt where the provider gives none. Of
//!   two at the same time the worse stands; of two alike, the one that came later (an approval that changed).
//! - Weaker proof only ever makes it worse. An event that is proven less well than the record takes effect only if it is worse;
//!   otherwise it is contested if it would soften the verdict, and superseded if it says the same (it must not make a proven record
//!   look younger or less proven either).
//! - The best proven verdict is kept as an anchor beneath the record, so that a weak detour (worse first, then clean) softens nothing.
//! - A late event is judged as if it had come in time: an older, better proven detection takes effect against a newer but weaker "clean".
//!
//! The life cycle: a detection creates the finding of its (source, subject) if none is open, and updates it otherwise; only a clean verdict
//! that takes effect closes it. A detection that came too late to take effect is told all the same, so it opens a finding too: the next
//! clean verdict that takes effect closes it.
//!
//! Invariants: of two events with different times the same verdict stands in the end in whichever order they arrive; a contested event
//! never changes what stands; a finding is created only when none is open and closed only when one is.
//!
//! Not here: identity and duplicates (`event`, `normalize`), the worst verdict of several sources (`policy`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::{Activity, Approval, Auth, Finding, Position, Previous, Standing, Uid, Verdict};

/// The latest record of one (source, subject).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The verdict that stands.
    pub verdict: Verdict,
    /// Its risk score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// When it was analysed: the provider's time, but never later than the receipt; the receipt where there is none.
    pub effective_at: Timestamp,
    /// Whether the provider gave a time.
    pub has_time: bool,
    /// When its delivery was received.
    pub received_at: Timestamp,
    /// Where its event stands in the ledger.
    pub position: Position,
    /// Identity of its event.
    pub uid: Uid,
    /// How it was proven.
    pub auth: Auth,
    /// The platform's own approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Approval>,
    /// The provider's own id of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Whether receivers were told of a finding that was not closed since.
    pub finding_open: bool,
    /// The best proven verdict so far; of several that are proven alike, the latest.
    pub anchor: Anchor,
}

/// What the best proven event said. Nothing that is proven less well makes the record milder than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its verdict.
    pub verdict: Verdict,
    /// How it was proven.
    pub auth: Auth,
    /// Its effective time.
    pub at: Timestamp,
}

/// An event that is about to get its place.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What the analysis said.
    pub finding: &'a Finding,
    /// How it was proven.
    pub auth: Auth,
    /// When its delivery was received.
    pub received_at: Timestamp,
    /// Where it will stand in the ledger.
    pub position: Position,
    /// Its identity.
    pub uid: Uid,
}

/// The place of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The record to store; none if the stored one stays as it is. Its position is not that of the event where only the anchor moved.
    pub record: Option<Record>,
    /// The event's effective time.
    pub effective_at: Timestamp,
    /// Whether the provider's clock is more than five minutes ahead of ours.
    pub clock_suspect: bool,
    /// How the event relates to the record.
    pub standing: Standing,
    /// What it does to the finding.
    pub activity: Activity,
    /// The verdict it replaces or contests, if that is another one.
    pub previous: Option<Previous>,
}

impl Record {
    /// Whether a finding without time and id says nothing new: it equals this record, which has neither too.
    pub fn repeats(&self, finding: &Finding) -> bool {
        let are_nameless =
            !self.has_time && self.event_id.is_none() && finding.analysed_at.is_none() && finding.event_id.is_none();
        are_nameless && (self.verdict, self.score, self.policy) == (finding.verdict, finding.score, finding.policy)
    }
}

/// Gives `new` its place, `current` being the record that is stored for its (source, subject).
pub fn rank(current: Option<&Record>, new: &Candidate<'_>) -> Ranked {
    let incoming = new.record();
    let standing = current.map_or(Standing::Latest, |current| standing(current, &incoming));
    let anchor = current.map_or(incoming.anchor, |current| better_proven(current.anchor, incoming.anchor));
    place(current, new, incoming, standing, anchor)
}

/// Gives `new` the place of the event that it corrects, which is the one that `current` came from: what that said does not count.
pub fn correct(current: &Record, new: &Candidate<'_>) -> Ranked {
    let incoming = new.record();
    let own = Anchor { verdict: current.verdict, auth: current.auth, at: current.effective_at };
    let anchor = if current.anchor == own { incoming.anchor } else { better_proven(current.anchor, incoming.anchor) };
    place(Some(current), new, incoming, Standing::Latest, anchor)
}

fn place(
    current: Option<&Record>,
    new: &Candidate<'_>,
    incoming: Record,
    standing: Standing,
    anchor: Anchor,
) -> Ranked {
    let clock_suspect = new.finding.analysed_at.is_some_and(|at| at.duration_since(new.received_at) > CLOCK_TOLERANCE);
    let takes_effect = standing == Standing::Latest;

    let was_open = current.is_some_and(|current| current.finding_open);
    let activity = match (incoming.verdict, was_open) {
        (verdict, false) if verdict.is_detection() => Activity::Create,
        (verdict, true) if verdict.is_detection() => Activity::Update,
        (Verdict::Clean, true) if takes_effect => Activity::Close,
        _ => Activity::Scan,
    };
    let finding_open = match activity {
        Activity::Create | Activity::Update => true,
        Activity::Close => false,
        Activity::Scan => was_open,
    };

    let previous = current.filter(|current| standing != Standing::Superseded && current.verdict != incoming.verdict);
    let effective_at = incoming.effective_at;
    let after = match current {
        Some(current) if !takes_effect => Record { finding_open, anchor, ..current.clone() },
        _ => Record { finding_open, anchor, ..incoming },
    };
    Ranked {
        effective_at,
        clock_suspect,
        standing,
        activity,
        previous: previous.map(|current| Previous { verdict: current.verdict, analysed_at: current.effective_at }),
        record: (current != Some(&after)).then_some(after),
    }
}

impl Candidate<'_> {
    /// The record it would be if nothing were known before.
    fn record(&self) -> Record {
        let finding = self.finding;
        let effective_at = finding.analysed_at.map_or(self.received_at, |at| at.min(self.received_at));
        Record {
            verdict: finding.verdict,
            score: finding.score,
            effective_at,
            has_time: finding.analysed_at.is_some(),
            received_at: self.received_at,
            position: self.position,
            uid: self.uid,
            auth: self.auth,
            policy: finding.policy,
            event_id: finding.event_id.clone(),
            finding_open: finding.verdict.is_detection(),
            anchor: Anchor { verdict: finding.verdict, auth: self.auth, at: effective_at },
        }
    }
}

fn standing(current: &Record, incoming: &Record) -> Standing {
    let is_later = (incoming.effective_at, incoming.verdict) >= (current.effective_at, current.verdict);
    match is_later {
        true if may_replace(incoming, current) => Standing::Latest,
        // As bad as the record, so there is nothing to contest.
        true if at_least_as_bad(incoming.verdict, current.verdict) => Standing::Superseded,
        true => Standing::Contested,
        false if may_replace(current, incoming) => Standing::Superseded,
        // The record would never have taken effect, had this event come in time.
        false => Standing::Latest,
    }
}

/// Whether the later record may take the place of the earlier one.
fn may_replace(later: &Record, earlier: &Record) -> bool {
    let is_worse = later.verdict != earlier.verdict && at_least_as_bad(later.verdict, earlier.verdict);
    let anchor = earlier.anchor;
    (later.auth >= earlier.auth || is_worse)
        && (later.auth >= anchor.auth || at_least_as_bad(later.verdict, anchor.verdict))
}

/// By severity, but for one step: from "no opinion" to clean is a step towards clean.
fn at_least_as_bad(verdict: Verdict, than: Verdict) -> bool {
    verdict >= than && (verdict != Verdict::Clean || than == Verdict::Clean)
}

fn better_proven(one: Anchor, other: Anchor) -> Anchor {
    if (other.auth, other.at, other.verdict) >= (one.auth, one.at, one.verdict) { other } else { one }
}

/// How far a provider's clock may be ahead before its events are marked (contract, section 4).
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Hash, Subject, SubjectId};

    /// A verdict at a time (in minutes; received after all of them) with a proof.
    #[derive(Debug, Clone, Copy)]
    struct Step(Verdict, i64, Auth);

    /// Steps in the order of their arrival, with the place each should get.
    type History = &'static [(Step, Standing, Activity)];

    const NOON: i64 = 1_774_267_200;
    use Activity::{Close, Create, Scan, Update};
    use Auth::{None as Bare, Signature, Token};
    use Standing::{Contested, Latest, Superseded};
    use Verdict::{Clean, Error, Malicious, Pua, Suspicious, Unknown};

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(NOON + 60 * minute).expect("in range")
    }

    fn finding(Step(verdict, at, _): Step) -> Finding {
        let subject = Subject::of(SubjectId::Sha256(Hash([1; 32])));
        Finding { analysed_at: Some(minute(at)), ..Finding::new(subject, verdict) }
    }

    fn rank_step(current: Option<&Record>, step: Step, position: u64) -> Ranked {
        let uid = Hash([u8::try_from(position % 251).expect("small"); 16]);
        let finding = finding(step);
        let received_at = minute(1000);
        rank(current, &Candidate { finding: &finding, auth: step.2, received_at, position: Position(position), uid })
    }

    /// The places of all steps in the order of their arrival, and the final record.
    fn run(steps: &[(u64, Step)]) -> (Vec<(Standing, Activity)>, Option<Record>) {
        let mut record = None;
        let mut places = Vec::new();
        for (position, step) in steps {
            let ranked = rank_step(record.as_ref(), *step, *position);
            places.push((ranked.standing, ranked.activity));
            record = ranked.record.or(record);
        }
        (places, record)
    }

    #[test]
    fn histories_have_the_life_cycle_they_should() {
        let histories: &[(&str, History)] = &[
            (
                "found, confirmed, cleaned, clean again, found again",
                &[
                    (Step(Suspicious, 1, Signature), Latest, Create),
                    (Step(Malicious, 2, Signature), Latest, Update),
                    (Step(Clean, 3, Signature), Latest, Close),
                    (Step(Clean, 4, Signature), Latest, Scan),
                    (Step(Malicious, 5, Signature), Latest, Create),
                ],
            ),
            (
                "no opinion and no analysis leave a finding open",
                &[
                    (Step(Pua, 1, Signature), Latest, Create),
                    (Step(Unknown, 2, Signature), Latest, Scan),
                    (Step(Error, 3, Signature), Latest, Scan),
                    (Step(Clean, 4, Signature), Latest, Close),
                ],
            ),
            (
                "a late detection is told, and the next clean verdict closes it",
                &[
                    (Step(Clean, 5, Signature), Latest, Scan),
                    (Step(Malicious, 1, Signature), Superseded, Create),
                    (Step(Clean, 2, Signature), Superseded, Scan),
                    (Step(Clean, 6, Signature), Latest, Close),
                ],
            ),
            (
                "a late clean verdict closes nothing",
                &[(Step(Malicious, 5, Signature), Latest, Create), (Step(Clean, 1, Signature), Superseded, Scan)],
            ),
            (
                "of two at one time the worse stands",
                &[
                    (Step(Suspicious, 1, Signature), Latest, Create),
                    (Step(Clean, 1, Signature), Superseded, Scan),
                    (Step(Malicious, 1, Signature), Latest, Update),
                ],
            ),
            (
                "weaker proof does not make it milder, stronger does",
                &[
                    (Step(Malicious, 1, Token), Latest, Create),
                    (Step(Clean, 2, Bare), Contested, Scan),
                    (Step(Suspicious, 3, Bare), Contested, Update),
                    (Step(Clean, 4, Signature), Latest, Close),
                ],
            ),
            (
                "weaker proof makes it worse, but a weak detour does not make it milder than it was",
                &[
                    (Step(Suspicious, 1, Signature), Latest, Create),
                    (Step(Malicious, 2, Bare), Latest, Update),
                    (Step(Clean, 3, Bare), Contested, Scan),
                    (Step(Suspicious, 4, Bare), Latest, Update),
                    (Step(Clean, 5, Signature), Latest, Close),
                ],
            ),
            (
                "the same again with weaker proof changes nothing",
                &[
                    (Step(Clean, 1, Signature), Latest, Scan),
                    (Step(Clean, 2, Bare), Superseded, Scan),
                    (Step(Unknown, 3, Bare), Contested, Scan),
                    (Step(Malicious, 4, Bare), Latest, Create),
                    (Step(Clean, 5, Bare), Latest, Close),
                ],
            ),
            (
                "from no opinion to clean is a step towards clean",
                &[(Step(Unknown, 1, Signature), Latest, Scan), (Step(Clean, 2, Bare), Contested, Scan)],
            ),
            (
                "a late, better proven detection takes effect",
                &[(Step(Clean, 5, Bare), Latest, Scan), (Step(Malicious, 1, Signature), Latest, Create)],
            ),
        ];
        for (name, history) in histories {
            let steps: Vec<_> = (1..).zip(history.iter().map(|(step, ..)| *step)).collect();
            let wanted: Vec<_> = history.iter().map(|(_, standing, activity)| (*standing, *activity)).collect();
            assert_eq!(run(&steps).0, wanted, "{name}");
        }
    }

    #[test]
    fn the_replaced_verdict_comes_with_its_time() {
        let first = rank_step(None, Step(Clean, 1, Signature), 1).record.expect("the first");
        let turned = rank_step(Some(&first), Step(Malicious, 2, Signature), 2);
        assert_eq!(turned.previous, Some(Previous { verdict: Clean, analysed_at: minute(1) }));
        assert_eq!(rank_step(Some(&first), Step(Clean, 2, Signature), 2).previous, None);
        assert_eq!(rank_step(Some(&first), Step(Unknown, 0, Signature), 2).previous, None);
        assert_eq!(rank_step(Some(&first), Step(Unknown, 0, Signature), 2).record, None);
    }

    #[test]
    fn a_clock_ahead_counts_as_the_receipt_and_is_marked_beyond_five_minutes() {
        for (at, suspect) in [(1000, false), (1005, false), (1006, true), (10_000_000, true)] {
            let ranked = rank_step(None, Step(Clean, at, Signature), 1);
            assert_eq!((ranked.effective_at, ranked.clock_suspect), (minute(1000), suspect), "{at}");
        }
    }

    #[test]
    fn without_a_time_the_receipt_counts_and_only_an_equal_message_repeats() {
        let nameless = Finding { analysed_at: None, ..finding(Step(Unknown, 0, Signature)) };
        let candidate = Candidate {
            finding: &nameless,
            auth: Signature,
            received_at: minute(7),
            position: Position(1),
            uid: Hash([1; 16]),
        };
        let ranked = rank(None, &candidate);
        assert_eq!(ranked.effective_at, minute(7));
        let record = ranked.record.expect("the first");
        assert!(record.repeats(&nameless));
        assert!(!record.repeats(&Finding { verdict: Clean, ..nameless.clone() }));
        assert!(!record.repeats(&Finding { policy: Some(Approval::Approved), ..nameless.clone() }));
        assert!(!record.repeats(&finding(Step(Unknown, 0, Signature))));
    }

    #[test]
    fn an_approval_that_changes_without_a_new_analysis_takes_effect() {
        let pending = Finding { policy: Some(Approval::PendingReview), ..finding(Step(Clean, 1, Signature)) };
        let approved = Finding { policy: Some(Approval::Approved), ..pending.clone() };
        let candidate = |finding, auth| Candidate {
            finding,
            auth,
            received_at: minute(9),
            position: Position(1),
            uid: Hash([1; 16]),
        };
        let record = rank(None, &candidate(&pending, Signature)).record.expect("the first");
        let after = rank(Some(&record), &candidate(&approved, Signature)).record.expect("changed");
        assert_eq!(after.policy, Some(Approval::Approved));
        assert_eq!(rank(Some(&record), &candidate(&approved, Token)).record, None);
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let auths = [Bare, Token, Auth::Mtls, Auth::Confirmed, Signature];
        (prop::sample::select(&Verdict::ALL[..]), 0_i64..6, prop::sample::select(auths.to_vec()))
            .prop_map(|(verdict, at, auth)| Step(verdict, at, auth))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_order_of_arrival_of_two_events_does_not_matter(one in any_step(), other in any_step()) {
            prop_assume!(one.1 != other.1);
            let stands = |steps: &[(u64, Step)]| run(steps).1.map(|record| Record { finding_open: false, ..record });
            prop_assert_eq!(stands(&[(1, one), (2, other)]), stands(&[(2, other), (1, one)]));
        }

        #[test]
        fn the_order_of_arrival_of_equally_proven_events_does_not_matter(
            (steps, shuffled) in prop::collection::vec(any_step(), 1..8).prop_flat_map(|steps| {
                let steps: Vec<_> = (1..).zip(steps.into_iter().map(|Step(verdict, at, _)| Step(verdict, at, Token))).collect();
                (Just(steps.clone()), Just(steps).prop_shuffle())
            })
        ) {
            let stands = |steps: &[(u64, Step)]| run(steps).1.map(|record| (record.verdict, record.effective_at, record.anchor));
            prop_assert_eq!(stands(&steps), stands(&shuffled));
        }

        #[test]
        fn an_event_that_is_not_the_latest_never_changes_the_verdict(steps in prop::collection::vec(any_step(), 1..12)) {
            let mut record: Option<Record> = None;
            for (position, step) in (1..).zip(steps) {
                let ranked = rank_step(record.as_ref(), step, position);
                let after = ranked.record.clone().or(record.clone()).expect("there is one after the first");
                if ranked.standing == Latest {
                    prop_assert_eq!((after.verdict, after.auth), (step.0, step.2));
                } else {
                    prop_assert_eq!(after.uid, record.expect("the first is the latest").uid);
                }
                record = Some(after);
            }
        }

        #[test]
        fn a_finding_is_created_once_and_closed_once(steps in prop::collection::vec(any_step(), 1..12)) {
            let mut open = false;
            let mut record: Option<Record> = None;
            for (position, step) in (1..).zip(steps) {
                let ranked = rank_step(record.as_ref(), step, position);
                match ranked.activity {
                    Create => prop_assert!(!std::mem::replace(&mut open, true)),
                    Close => prop_assert!(std::mem::replace(&mut open, false) && step.0 == Clean && ranked.standing == Latest),
                    Update => prop_assert!(step.0.is_detection()),
                    Scan => prop_assert!(!step.0.is_detection()),
                }
                record = ranked.record.or(record);
                let record = record.as_ref().expect("there is one after the first");
                prop_assert_eq!(record.finding_open, open);
                prop_assert!(!record.verdict.is_detection() || open, "what stands as a detection is open");
            }
        }

        #[test]
        fn no_sequence_of_weaker_events_softens_a_proven_verdict(
            proven in prop::sample::select(&[Error, Pua, Suspicious, Malicious][..]),
            at in 0_i64..6,
            steps in prop::collection::vec(any_step(), 0..12),
        ) {
            let weaker = steps.into_iter().map(|Step(verdict, at, auth)| Step(verdict, at, auth.min(Auth::Confirmed)));
            let steps: Vec<_> = (1..).zip([Step(proven, at, Signature)].into_iter().chain(weaker)).collect();
            prop_assert!(run(&steps).1.is_some_and(|record| record.verdict >= proven));
        }
    }
}
