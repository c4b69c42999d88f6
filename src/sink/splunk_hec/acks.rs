//! The acknowledgements of one channel: which batches wait for one, when to ask, and whom a `true` is for.
//!
//! Splunk counts the ids of a channel from 0, says `true` once, and forgets everything when it restarts. So nothing but a `true` for an id
//! that can be no other batch's settles a batch, and whatever else happens sends it again under another channel.
//!
//! Invariants: an id that does not grow ends the channel, because it is counted anew; a `true` is final only when every request that
//! was open when it came is answered, because one of them could have been given the same id by a collector that restarted; every
//! batch that waits is told something, at the latest after `Waits::ack_max`.
//!
//! Not here: HTTP (`session`), what an answer means (`answer`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use reqwest::header::HeaderValue;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::super::Stop;
use super::Waits;

/// What a batch that waits is told: it is acknowledged, or why it has to be sent again.
pub(super) type Told = Result<(), Stop>;

/// A GUID that one collector counts our requests under, with one token.
#[derive(Debug)]
pub(super) struct Channel {
    /// The GUID.
    pub(super) guid: String,
    /// The token; acknowledgements are told to the same one only.
    pub(super) token: HeaderValue,
    /// There is something new to wait for.
    pub(super) changed: Notify,
    waits: Waits,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Why nothing true can be learned here any more.
    ended: Option<Stop>,
    /// New requests need another channel.
    is_retired: bool,
    /// How many requests were begun.
    begun: u64,
    /// Numbers of the requests that are not answered yet.
    open: BTreeSet<u64>,
    /// How many requests will never be answered. A collector that restarted has given them the ids below this number, if any.
    unanswered: u64,
    /// The highest id so far.
    highest: Option<u64>,
    waiting: BTreeMap<u64, Waiting>,
    asked_at: Option<Instant>,
    /// Whether somebody asks for us.
    is_asked: bool,
}

#[derive(Debug)]
struct Waiting {
    tell: oneshot::Sender<Told>,
    /// When to ask for it, and how long to wait after that.
    ask_at: Instant,
    wait: std::time::Duration,
    /// When to give up.
    until: Instant,
    /// How many requests had been begun when the collector said `true`.
    yes_at: Option<u64>,
}

/// What to do for a channel now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for these ids.
    Ask(Vec<u64>),
    /// Nothing before this moment, or before [`Channel::changed`].
    Wait(Instant),
    /// Nothing waits any more.
    Nothing,
}

/// A request on a channel that is not answered yet. Dropped, it counts as one that never will be.
#[derive(Debug)]
pub(super) struct Posting {
    channel: Arc<Channel>,
    number: u64,
    /// The highest id when it began: its own one is higher.
    floor: Option<u64>,
    is_closed: bool,
}

impl Channel {
    pub(super) fn new(guid: String, token: HeaderValue, waits: Waits) -> Self {
        Self { guid, token, changed: Notify::new(), waits, book: Mutex::default() }
    }

    /// Whether new requests may use it.
    pub(super) fn is_open(&self) -> bool {
        let book = self.book();
        !book.is_retired && book.ended.is_none()
    }

    /// Notes a request that is about to be sent.
    pub(super) fn begin(self: &Arc<Self>) -> Posting {
        let mut book = self.book();
        let number = book.begun;
        book.begun += 1;
        book.open.insert(number);
        Posting { channel: Arc::clone(self), number, floor: book.highest, is_closed: false }
    }

    /// Whether the caller is the one who has to ask from now on, until [`Next::Nothing`].
    pub(super) fn takes_over(&self) -> bool {
        !std::mem::replace(&mut self.book().is_asked, true)
    }

    /// What to do at `now`. Whoever is asked for is asked for again later.
    pub(super) fn next(&self, now: Instant) -> Next {
        let mut book = self.book();
        // Nobody wants to know any more what the sink forgot.
        book.waiting.retain(|_, waiting| !waiting.tell.is_closed());
        let late: Vec<u64> =
            book.waiting.iter().filter(|(_, waiting)| waiting.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            // What comes later on this channel may still be acknowledged; what is sent again needs another one.
            book.is_retired = true;
            book.tell(
                id,
                Err(Stop::unavailable(
                    "its indexers did not acknowledge a batch in time; sending it again under a new channel",
                )),
            );
        }
        let asked: Vec<u64> =
            book.waiting.iter().filter(|(_, waiting)| waiting.yes_at.is_none()).map(|(id, _)| *id).collect();
        let Some(due) = asked.iter().map(|id| book.waiting[id].ask_at).min() else {
            let Some(until) = book.waiting.values().map(|waiting| waiting.until).min() else {
                book.is_asked = false;
                return Next::Nothing;
            };
            return Next::Wait(until);
        };
        let due = book.asked_at.map_or(due, |last| due.max(last + self.waits.ack_gap));
        if due > now {
            let until = book.waiting.values().map(|waiting| waiting.until).min().unwrap_or(due);
            return Next::Wait(due.min(until));
        }
        book.asked_at = Some(now);
        // The question costs the same for one and for all.
        for waiting in book.waiting.values_mut().filter(|waiting| waiting.ask_at <= now) {
            waiting.ask_at = now + waiting.wait;
            waiting.wait = (waiting.wait * 2).min(self.waits.ack_last);
        }
        Next::Ask(asked)
    }

    /// Takes the collector's answer: only a plain `true` counts.
    pub(super) fn answered(&self, answer: &HashMap<String, bool>) {
        let mut book = self.book();
        let begun = book.begun;
        for (id, waiting) in &mut book.waiting {
            if answer.get(&id.to_string()) == Some(&true) {
                waiting.yes_at.get_or_insert(begun);
            }
        }
        book.settle();
    }

    /// The answer to a question for these ids was lost: a `true` may have been in it, and is not said again.
    pub(super) fn lost(&self, ids: &[u64], now: Instant) {
        let mut book = self.book();
        let until = now + self.waits.ack_doubt;
        for id in ids {
            if let Some(waiting) = book.waiting.get_mut(id) {
                waiting.until = waiting.until.min(until);
            }
        }
    }

    /// Nothing true can be learned here any more: everything that waits is sent again.
    pub(super) fn end(&self, why: Stop) {
        self.book().end(why);
        self.changed.notify_one();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while holding it")
    }
}

impl Book {
    fn tell(&mut self, id: u64, told: Told) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // Nobody listens when the sink was closed meanwhile.
            drop(waiting.tell.send(told));
        }
    }

    fn end(&mut self, why: Stop) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            drop(waiting.tell.send(Err(why.clone())));
        }
        self.ended.get_or_insert(why);
    }

    /// Tells those whose `true` is final: every request that was open when it came is answered.
    fn settle(&mut self) {
        let oldest = self.open.first().copied().unwrap_or(u64::MAX);
        let is_final = |waiting: &Waiting| waiting.yes_at.is_some_and(|begun| begun <= oldest);
        let done: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| is_final(waiting)).map(|(id, _)| *id).collect();
        for id in done {
            self.tell(id, Ok(()));
        }
    }
}

impl Posting {
    /// It was answered, and no id was given.
    pub(super) fn answered(mut self) {
        self.close(|_| {});
    }

    /// It was taken under this id: what is told of it is known later.
    pub(super) fn taken(mut self, id: u64, now: Instant) -> oneshot::Receiver<Told> {
        let (tell, told) = oneshot::channel();
        let (waits, floor) = (self.channel.waits, self.floor);
        self.close(|book| {
            let is_counted_anew = floor.is_some_and(|floor| id <= floor) || book.waiting.contains_key(&id);
            if is_counted_anew {
                book.end(Stop::unavailable(
                    "it counts its acknowledgements anew (restarted, or another one behind the same address); sending again what it had not acknowledged, under a new channel",
                ));
            }
            if let Some(why) = &book.ended {
                drop(tell.send(Err(why.clone())));
                return;
            }
            book.highest = book.highest.max(Some(id));
            if id < book.unanswered {
                drop(tell.send(Err(Stop::unavailable(SHARED_ID))));
                return;
            }
            let (ask_at, wait) = (now + waits.ack_first, (waits.ack_first * 2).min(waits.ack_last));
            book.waiting.insert(id, Waiting { tell, ask_at, wait, until: now + waits.ack_max, yes_at: None });
        });
        told
    }

    fn close(&mut self, note: impl FnOnce(&mut Book)) {
        self.is_closed = true;
        let mut book = self.channel.book();
        book.open.remove(&self.number);
        note(&mut book);
        book.settle();
        drop(book);
        self.channel.changed.notify_one();
    }
}

impl Drop for Posting {
    /// Nobody will know which id it was given. Those that a collector after a restart can have given are no longer ours alone, and
    /// what waits may wait in vain.
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let doubt = Instant::now() + self.channel.waits.ack_doubt;
        self.close(|book| {
            book.is_retired = true;
            book.unanswered += 1;
            let shared: Vec<u64> = book.waiting.range(..book.unanswered).map(|(id, _)| *id).collect();
            for id in shared {
                book.tell(id, Err(Stop::unavailable(SHARED_ID)));
            }
            for waiting in book.waiting.values_mut() {
                waiting.until = waiting.until.min(doubt);
            }
        });
    }
}

const SHARED_ID: &str =
    "a request got no answer, so this acknowledgement could be another batch's; sending it again under a new channel";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn channel() -> Arc<Channel> {
        Arc::new(Channel::new("c".to_owned(), HeaderValue::from_static("Splunk t"), Waits::REAL))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn yes(ids: &[u64]) -> HashMap<String, bool> {
        ids.iter().map(|id| (id.to_string(), true)).collect()
    }

    /// What was told: nothing yet, that it is acknowledged, or words.
    fn told(receiver: &mut oneshot::Receiver<Told>) -> Option<Result<(), String>> {
        receiver.try_recv().ok().map(|told| told.map_err(|stop| stop.to_string()))
    }

    #[test]
    fn one_batch_is_asked_for_after_1_2_4_8_and_10_seconds_and_given_up_after_5_minutes() {
        let (channel, now) = (channel(), Instant::now());
        let mut batch = channel.begin().taken(0, now);
        let (mut at, mut asked) = (now, Vec::new());
        let given_up = loop {
            match channel.next(at) {
                Next::Ask(ids) => {
                    assert_eq!(ids, [0]);
                    asked.push((at - now).as_secs());
                }
                Next::Wait(until) => at = until,
                Next::Nothing => break at - now,
            }
        };
        assert_eq!(asked[..7], [1, 3, 7, 15, 25, 35, 45]);
        assert_eq!(given_up, seconds(300));
        assert!(told(&mut batch).is_some_and(|told| told.is_err_and(|words| words.contains("in time"))));
        assert!(!channel.is_open(), "it is sent again under another channel");
    }

    #[test]
    fn one_question_asks_for_all_and_questions_keep_a_distance() {
        let (channel, now) = (channel(), Instant::now());
        let receivers: Vec<_> = (0..3).map(|id| channel.begin().taken(id, now + seconds(id) / 10)).collect();
        assert_eq!(channel.next(now), Next::Wait(now + seconds(1)));
        assert_eq!(channel.next(now + seconds(1)), Next::Ask(vec![0, 1, 2]));
        // The next one is due 100 ms later, and was asked for with the first.
        assert_eq!(channel.next(now + seconds(1)), Next::Wait(now + seconds(1) + Waits::REAL.ack_gap));
        drop(receivers);
        assert_eq!(channel.next(now + seconds(2)), Next::Nothing, "nobody wants to know");
    }

    #[test]
    fn a_yes_waits_for_requests_that_could_have_been_given_the_same_id() {
        let (channel, now) = (channel(), Instant::now());
        let mut old = channel.begin().taken(0, now);
        let open = channel.begin();
        channel.answered(&yes(&[0]));
        assert_eq!(told(&mut old), None, "the collector may have restarted and mean the open one");
        let later = channel.begin();
        let _new = open.taken(1, now);
        assert_eq!(told(&mut old), Some(Ok(())), "it was not; what began after the answer does not matter");
        later.answered();

        let channel = self::channel();
        let mut old = channel.begin().taken(0, now);
        let open = channel.begin();
        channel.answered(&yes(&[0]));
        let mut new = open.taken(0, now);
        for batch in [&mut old, &mut new] {
            assert!(told(batch).is_some_and(|told| told.is_err_and(|words| words.contains("anew"))));
        }
        assert!(!channel.is_open());
    }

    #[test]
    fn ids_that_repeat_or_go_back_end_the_channel_and_late_answers_do_not() {
        let now = Instant::now();
        for (first, second) in [(7, 7), (7, 6), (7, 0)] {
            let channel = channel();
            let mut one = channel.begin().taken(first, now);
            let mut two = channel.begin().taken(second, now);
            assert!(told(&mut one).is_some_and(|told| told.is_err()), "{second} after {first}");
            assert!(told(&mut two).is_some_and(|told| told.is_err()));
            let mut three = channel.begin().taken(9, now);
            assert!(told(&mut three).is_some_and(|told| told.is_err()), "it is over");
        }
        let channel = channel();
        let (one, two) = (channel.begin(), channel.begin());
        let mut two = two.taken(1, now);
        let mut one = one.taken(0, now);
        assert!(
            told(&mut one).is_none() && told(&mut two).is_none() && channel.is_open(),
            "answers may overtake each other"
        );
        let (three, four) = (channel.begin(), channel.begin());
        let mut three = three.taken(2, now);
        drop(four.taken(2, now));
        assert!(told(&mut three).is_some_and(|told| told.is_err()), "one id for two");
    }

    #[test]
    fn a_request_without_an_answer_makes_low_ids_doubtful_and_all_others_urgent() {
        let (channel, now) = (channel(), Instant::now());
        let mut batches: Vec<_> = (0..3).map(|id| channel.begin().taken(id, now)).collect();
        let late = channel.begin();
        drop(channel.begin());
        assert!(!channel.is_open());
        assert!(
            told(&mut batches[0]).is_some_and(|told| told.is_err()),
            "a collector that restarted would have given id 0"
        );
        channel.answered(&yes(&[0, 1]));
        let mut late = late.taken(3, now);
        assert_eq!(told(&mut batches[1]), Some(Ok(())));
        let doubt = now + Waits::REAL.ack_doubt + seconds(2);
        channel.next(doubt);
        assert!(told(&mut batches[2]).is_some_and(|told| told.is_err()), "it may wait in vain");
        assert_eq!(told(&mut late), None, "it was taken after that");
    }

    #[test]
    fn an_answer_that_was_lost_shortens_the_wait_of_those_it_was_about() {
        let (channel, now) = (channel(), Instant::now());
        let mut asked = channel.begin().taken(0, now);
        assert_eq!(channel.next(now + seconds(1)), Next::Ask(vec![0]));
        let mut other = channel.begin().taken(1, now + seconds(1));
        channel.lost(&[0], now + seconds(1));
        channel.next(now + seconds(1) + Waits::REAL.ack_doubt);
        assert!(told(&mut asked).is_some_and(|told| told.is_err()));
        assert_eq!(told(&mut other), None);
        channel.answered(&yes(&[0, 1]));
        assert_eq!(told(&mut other), Some(Ok(())));
        assert_eq!(channel.next(now + seconds(70)), Next::Nothing);
    }

    #[test]
    fn what_ends_a_channel_is_told_to_everything_that_waits_there() {
        let (channel, now) = (channel(), Instant::now());
        let mut batches: Vec<_> = (0..2).map(|id| channel.begin().taken(id, now)).collect();
        channel.answered(&HashMap::from([("0".to_owned(), false), ("7".to_owned(), true)]));
        channel.end(Stop::unavailable("moved"));
        for batch in &mut batches {
            assert_eq!(told(batch), Some(Err("moved".to_owned())));
        }
        assert_eq!(channel.next(now + seconds(1)), Next::Nothing);
    }
}
