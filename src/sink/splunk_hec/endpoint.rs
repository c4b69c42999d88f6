//! One collector: when it may be asked, which session a balancer gave us there, and the channel that it counts our batches under.
//!
//! Invariants: a collector that failed rests, longer each time, and after the rest one batch goes first; where the collector itself said how
//! long, nothing goes before; a session that moved to another node ends the channel.
//!
//! Not here: requests (`session`), what waits on a channel (`acks`).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue, SET_COOKIE};
use tokio::time::Instant;

use super::super::Stop;
use super::Waits;
use super::acks::Channel;
use super::http::guid;
use crate::backoff::Backoff;

/// A collector and what we know about it; kept over every reconnect.
pub(super) struct Endpoint {
    /// Scheme, host, port and what stands before `/services/collector`.
    pub(super) base: String,
    waits: Waits,
    state: Mutex<State>,
}

struct State {
    backoff: Backoff,
    rest: Option<Rest>,
    cookies: Vec<(String, HeaderValue)>,
    /// Sessions that moved one after the other, without an acknowledgement between them.
    moves: u32,
    channel: Option<Arc<Channel>>,
    acks: AckRoute,
    /// Which of the live tokens was taken last.
    token: usize,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    /// The collector said how long.
    is_asked: bool,
}

/// What is known about asking for acknowledgements.
enum AckRoute {
    Open,
    /// They are off (code 14): until then an id in an answer means nothing.
    Off {
        until: Instant,
    },
    /// It was refused under this token: it has to be seen to work before another batch is sent.
    Refused {
        token: HeaderValue,
    },
}

/// Whether a batch may go to an endpoint now; what sorts first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Its rest is over, and this batch is the one that sees whether it is well.
    Probe,
    /// It is well.
    Open,
    /// It rests until then: only when all others fail.
    Last(Instant),
    /// It said that nothing may come before this moment.
    Closed(Instant),
}

impl Endpoint {
    pub(super) fn new(base: &str, waits: Waits) -> Self {
        let state = State {
            backoff: Backoff::new(waits.rest_first, waits.rest_last),
            rest: None,
            cookies: Vec::new(),
            moves: 0,
            channel: None,
            acks: AckRoute::Open,
            token: 0,
        };
        Self { base: base.to_owned(), waits, state: Mutex::new(state) }
    }

    /// Whether a batch may go there at `now`.
    pub(super) fn turn(&self, now: Instant) -> Turn {
        match self.state().rest {
            None => Turn::Open,
            Some(Rest { until, .. }) if until <= now => Turn::Probe,
            Some(Rest { until, is_asked: true }) => Turn::Closed(until),
            Some(Rest { until, is_asked: false }) => Turn::Last(until),
        }
    }

    /// Claims the turn that was seen at `now`; false if another batch is the probe meanwhile.
    pub(super) fn claims(&self, turn: Turn, now: Instant) -> bool {
        let mut state = self.state();
        let (Turn::Probe, Some(rest)) = (turn, state.rest) else { return true };
        if rest.until > now {
            return false;
        }
        // For all others it rests on, until the probe reports; one that never does gives way to the next.
        state.rest = Some(Rest { until: now + self.waits.rest_last, is_asked: false });
        true
    }

    /// It failed: others go first for a while, `asked` long or ours.
    pub(super) fn rests(&self, asked: Option<Duration>, now: Instant) {
        let mut state = self.state();
        let own = state.backoff.wait(fastrand::f64());
        let until = now + asked.unwrap_or(own);
        state.rest = Some(Rest { until, is_asked: asked.is_some() });
    }

    /// It answered as a collector does that works.
    pub(super) fn is_well(&self) {
        let mut state = self.state();
        state.rest = None;
        state.backoff.reset();
    }

    /// The channel for new requests with this token.
    pub(super) fn channel(&self, token: &HeaderValue) -> Arc<Channel> {
        let mut state = self.state();
        match &state.channel {
            Some(channel) if channel.token == *token && channel.is_open() => Arc::clone(channel),
            _ => {
                let channel = Arc::new(Channel::new(guid(), token.clone(), self.waits));
                state.channel = Some(Arc::clone(&channel));
                channel
            }
        }
    }

    /// Keeps the cookies of an answer on `channel`, by which a balancer knows the node that has our acknowledgements. A changed one says that
    /// it is another node now: then the channel ends.
    pub(super) fn keep_session(&self, headers: &HeaderMap, channel: &Channel) {
        let mut state = self.state();
        let State { cookies, moves, .. } = &mut *state;
        let mut has_moved = false;
        for (name, value) in headers.get_all(SET_COOKIE).iter().filter_map(cookie) {
            if let Some((_, known)) = cookies.iter_mut().find(|(known, _)| *known == name) {
                has_moved |= *known != value;
                *known = value;
            } else if cookies.len() < COOKIES_MAX {
                cookies.push((name, value));
            }
        }
        if !has_moved || *moves >= MOVES_MAX {
            return;
        }
        *moves += 1;
        if *moves == MOVES_MAX {
            tracing::warn!(
                endpoint = self.base,
                "{} changes its cookies all the time, so they do not say which node answers; better list the collectors themselves in `endpoints`",
                self.base
            );
        }
        channel.end(Stop::unavailable(format!(
            "the balancer at {} moved our session to another collector; sending again what the first had not acknowledged, under a new channel",
            self.base
        )));
    }

    /// The cookies for the next request, if there are any.
    pub(super) fn session(&self) -> Option<HeaderValue> {
        let state = self.state();
        let mut joined = Vec::new();
        for (name, value) in &state.cookies {
            if !joined.is_empty() {
                joined.extend_from_slice(b"; ");
            }
            joined.extend_from_slice(name.as_bytes());
            joined.push(b'=');
            joined.extend_from_slice(value.as_bytes());
        }
        let mut value = HeaderValue::from_bytes(&joined).ok().filter(|_| !joined.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A batch was acknowledged: acknowledgements work here, and the session is one.
    pub(super) fn acknowledged(&self) {
        let mut state = self.state();
        if state.moves < MOVES_MAX {
            state.moves = 0;
        }
    }

    /// Whether an id in an answer means that an acknowledgement can be had.
    pub(super) fn gives_acks(&self, now: Instant) -> bool {
        !matches!(self.state().acks, AckRoute::Off { until } if until > now)
    }

    /// The token has no acknowledgements, for a while at least.
    pub(super) fn acks_are_off(&self, now: Instant) {
        self.state().acks = AckRoute::Off { until: now + self.waits.acks_off };
    }

    /// Asking for acknowledgements was refused under `token`.
    pub(super) fn acks_are_refused(&self, token: &HeaderValue) {
        self.state().acks = AckRoute::Refused { token: token.clone() };
    }

    /// Asking works, or may work.
    pub(super) fn acks_are_open(&self) {
        self.state().acks = AckRoute::Open;
    }

    /// The token under which asking was refused.
    pub(super) fn refused_acks(&self) -> Option<HeaderValue> {
        match &self.state().acks {
            AckRoute::Refused { token } => Some(token.clone()),
            AckRoute::Open | AckRoute::Off { .. } => None,
        }
    }

    /// Which of the live tokens to try first.
    pub(super) fn token(&self) -> usize {
        self.state().token
    }

    /// This one was taken.
    pub(super) fn took_token(&self, at: usize) {
        self.state().token = at;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }
}

impl fmt::Debug for Endpoint {
    /// Without tokens and cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Name and value of a cookie; what else stands there is for browsers, because nothing of it goes anywhere but back.
fn cookie(header: &HeaderValue) -> Option<(String, HeaderValue)> {
    let pair = header.to_str().ok()?.split(';').next()?;
    let (name, value) = pair.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || pair.len() > COOKIE_BYTES_MAX {
        return None;
    }
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name.to_owned(), value))
}

/// A balancer needs one or two; all of them travel with every request.
const COOKIES_MAX: usize = 8;
/// What browsers take.
const COOKIE_BYTES_MAX: usize = 4096;
/// A cookie that changes more often in a row is renewed with each answer, as some balancers do: believing it, nothing would ever be acknowledged.
const MOVES_MAX: u32 = 3;
