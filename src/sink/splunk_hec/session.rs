//! A batch's way: to one collector after the other, with one token after the other, until it is final.
//!
//! Invariants: a batch goes to each endpoint at most once; a token is tried once with each value it has; nothing that a server leaves
//! open is taken for a yes.
//!
//! Not here: what an answer means (`answer`), which collector rests (`endpoint`), whom an acknowledgement is for (`acks`), the order of batches
//! (`splunk_hec`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderValue};
use reqwest::{Client, RequestBuilder};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{Stop, root_cause};
use super::acks::{Channel, Next, Told};
use super::answer::{Acked, Receipt, Refusal, judge, judge_ack, leaves_open};
use super::endpoint::{Endpoint, Turn};
use super::flight::{Outcome, Report};
use super::http::{authorization, client, guid, gzip, is_refused, reply_to};
use super::pace::Pace;
use super::{Acks, HecPlan, POSTS};
use crate::event::Name;
use crate::secret::{Key, KeyRing};
use crate::setting::Span;
use crate::tls::{self, Stamp};

/// Everything that requests share. It lives as long as the sink: what is known about a collector outlasts a reconnect.
#[derive(Debug)]
pub(super) struct Session {
    plan: Arc<HecPlan>,
    name: Name,
    tokens: KeyRing,
    endpoints: Vec<Endpoint>,
    /// Endpoint of the next batch.
    next: AtomicUsize,
    pace: Mutex<Pace>,
    acknowledged_at: Mutex<Instant>,
    /// One more reference than batches that are on the way.
    under_way: Arc<()>,
    /// The tokens that were refused everywhere.
    refused: Mutex<Option<Arc<Vec<Key>>>>,
    tls: Mutex<Tls>,
}

/// A client and the TLS files that it was made with.
#[derive(Debug)]
struct Tls {
    client: Client,
    stamp: Stamp,
    looked_at: Instant,
}

/// A batch that a collector took, and who tells when it is final; none if it is.
struct Taken<'a> {
    endpoint: &'a Endpoint,
    told: Option<oneshot::Receiver<Told>>,
}

/// Why a batch was not taken.
enum Failure {
    Refused { event: Option<usize>, reason: String, is_too_large: bool },
    Stop(Stop),
}

impl Session {
    pub(super) fn new(plan: &Arc<HecPlan>, name: &Name, tokens: KeyRing) -> Result<Self, Stop> {
        let tls = Tls { stamp: plan.tls.stamp(), client: client(plan)?, looked_at: Instant::now() };
        Ok(Self {
            plan: Arc::clone(plan),
            name: name.clone(),
            tokens,
            endpoints: plan.endpoints.iter().map(|base| Endpoint::new(base, plan.waits)).collect(),
            next: AtomicUsize::new(0),
            pace: Mutex::new(Pace::new(POSTS, plan.in_flight_max)),
            acknowledged_at: Mutex::new(Instant::now()),
            under_way: Arc::new(()),
            refused: Mutex::new(None),
            tls: Mutex::new(tls),
        })
    }

    /// Takes up TLS files that changed; looked at now if it `is_urgent`, else at most every [`FILES_EVERY`].
    pub(super) fn renew(&self, is_urgent: bool) -> Result<(), Stop> {
        let mut tls = self.tls.lock().expect("nothing panics while holding it");
        if !is_urgent && tls.looked_at.elapsed() < FILES_EVERY {
            return Ok(());
        }
        tls.looked_at = Instant::now();
        let stamp = self.plan.tls.stamp();
        if stamp != tls.stamp {
            // Requests that are on their way keep the client that they began with.
            tls.client = client(&self.plan)?;
            tls.stamp = stamp;
        }
        Ok(())
    }

    /// Most batches on the way now.
    pub(super) fn in_flight_max(&self) -> usize {
        self.pace().limit()
    }

    /// Waits until there is a token that was not there when all were refused; for ever if none was.
    pub(super) async fn has_other_tokens(&self) {
        let refused = self.refused().clone();
        let Some(refused) = refused else { return std::future::pending().await };
        while Arc::ptr_eq(&refused, &self.tokens.keys()) {
            tokio::time::sleep(self.plan.waits.tokens_every).await;
            self.tokens.refresh().await;
        }
        // Said once: what the next try finds may be something else than the tokens.
        self.refused().take();
    }

    /// When the last acknowledgement came; before the first, when we began.
    pub(super) fn acknowledged_at(&self) -> Instant {
        *self.acknowledged_at.lock().expect("nothing panics while holding it")
    }

    /// Brings a batch to one of the endpoints, and waits until it is final.
    pub(super) async fn deliver(self: Arc<Self>, body: Vec<u8>, report: &mut Report) -> Outcome {
        let _under_way = Arc::clone(&self.under_way);
        let body = Bytes::from(if self.plan.compression { gzip(&body) } else { body });
        let taken = self.bring(body).await;
        if taken.is_ok() {
            report.taken();
        }
        let outcome = match taken {
            Ok(Taken { told: None, .. }) => Outcome::Delivered,
            Ok(Taken { told: Some(told), endpoint }) => match told.await {
                Ok(Ok(())) => {
                    endpoint.acknowledged();
                    *self.acknowledged_at.lock().expect("nothing panics while holding it") = Instant::now();
                    Outcome::Delivered
                }
                Ok(Err(stop)) => Outcome::Stop(stop),
                Err(_) => {
                    Outcome::Stop(Stop::unavailable("nobody asks for its acknowledgement any more; sending it again"))
                }
            },
            Err(Failure::Refused { event, reason, is_too_large }) => Outcome::Refused { event, reason, is_too_large },
            Err(Failure::Stop(stop)) => Outcome::Stop(stop),
        };
        match &outcome {
            Outcome::Delivered => self.pace().delivered(),
            Outcome::Stop(_) => self.pace().failed(),
            Outcome::Refused { .. } => {}
        }
        outcome
    }

    /// Asks every endpoint whether it takes one of our tokens, with a request that holds no event: a collector looks at the token first.
    pub(super) async fn probe(self: &Arc<Self>) -> Result<(), Stop> {
        let nothing = Bytes::from(if self.plan.compression { gzip(b"") } else { Vec::new() });
        for endpoint in 0..self.endpoints.len() {
            match self.post(endpoint, &nothing).await {
                // "No data" is what a collector says that would have taken some.
                Ok(_) | Err(Failure::Refused { .. }) => {}
                Err(Failure::Stop(stop)) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Tries the endpoints from the one whose turn it is; those that rest come last, those that said until when not at all.
    async fn bring(self: &Arc<Self>, body: Bytes) -> Result<Taken<'_>, Failure> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len();
        let mut left: Vec<usize> = (first..self.endpoints.len()).chain(0..first).collect();
        let mut worst: Option<Stop> = None;
        loop {
            let now = Instant::now();
            let best = left.iter().enumerate().min_by_key(|(_, at)| self.endpoints[**at].turn(now));
            let Some((place, at)) = best.map(|(place, at)| (place, *at)) else { break };
            let endpoint = &self.endpoints[at];
            let turn = endpoint.turn(now);
            if let Turn::Closed(until) = turn {
                let stop = Stop::Unavailable {
                    retry_after: Some(until - now),
                    reason: format!("{} asked us to wait", endpoint.base),
                };
                return Err(Failure::Stop(worse(worst, stop)));
            }
            if !endpoint.claims(turn, now) {
                continue;
            }
            left.remove(place);
            let stop = match self.post(at, &body).await {
                Ok(taken) => {
                    endpoint.is_well();
                    return Ok(taken);
                }
                Err(Failure::Stop(stop)) => stop,
                Err(refused @ Failure::Refused { .. }) => {
                    endpoint.is_well();
                    return Err(refused);
                }
            };
            let asked = if let Stop::Unavailable { retry_after, .. } = &stop { *retry_after } else { None };
            endpoint.rests(asked, Instant::now());
            worst = Some(worse(worst, stop));
        }
        Err(Failure::Stop(worst.unwrap_or_else(|| Stop::unavailable("there is no endpoint"))))
    }

    /// Posts the batch with one token after the other, until one is good.
    async fn post(self: &Arc<Self>, at: usize, body: &Bytes) -> Result<Taken<'_>, Failure> {
        let endpoint = &self.endpoints[at];
        self.acks_work(endpoint).await.map_err(Failure::Stop)?;
        let mut refused: Vec<Arc<Vec<Key>>> = Vec::new();
        let mut words = "no token could be read".to_owned();
        for is_fresh in [false, true] {
            if is_fresh {
                self.tokens.refresh().await;
            }
            let keys = self.tokens.keys();
            // The one that was taken last goes first: one that is refused would cost a request with every batch.
            let good = endpoint.token().min(keys.len());
            for index in (good..keys.len()).chain(0..good) {
                let key = &keys[index];
                let value = key.secret.expose();
                if refused.iter().flat_map(|keys| keys.iter()).any(|known| known.secret.expose() == value) {
                    continue;
                }
                let Some(token) = authorization(value) else {
                    words = format!("{} is no token: it holds characters that no header can", key.id);
                    continue;
                };
                match self.post_with(at, &token, body.clone()).await {
                    Ok(told) => {
                        endpoint.took_token(index);
                        self.refused().take();
                        return Ok(Taken { endpoint, told });
                    }
                    Err(Refusal::Token { reason }) => words = reason,
                    Err(Refusal::Event { event, reason }) => {
                        return Err(Failure::Refused { event, reason, is_too_large: false });
                    }
                    Err(Refusal::Size { reason }) => {
                        return Err(Failure::Refused { event: None, reason, is_too_large: true });
                    }
                    Err(Refusal::Stop(stop)) => return Err(Failure::Stop(stop)),
                    Err(Refusal::NoAcks { reason }) => {
                        return Err(Failure::Stop(self.without_acks(endpoint, &token, true, reason)));
                    }
                    Err(Refusal::Channel { reason }) => {
                        let stop = Stop::unavailable(reason);
                        endpoint.channel(&token).end(stop.clone());
                        endpoint.acks_are_open();
                        return Err(Failure::Stop(stop));
                    }
                }
            }
            refused.push(keys);
        }
        *self.refused() = refused.pop();
        let names: Vec<&str> = self.plan.tokens.iter().map(|token| token.0.as_str()).collect();
        Err(Failure::Stop(Stop::Unauthorized {
            reason: format!(
                "{} accepts no token ({words}); check {}, and that the token exists and is enabled there",
                endpoint.base,
                names.join(", ")
            ),
        }))
    }

    /// Posts the batch once. Ok is who tells when it is final, or none if it is.
    async fn post_with(
        self: &Arc<Self>,
        at: usize,
        token: &HeaderValue,
        body: Bytes,
    ) -> Result<Option<oneshot::Receiver<Told>>, Refusal> {
        let endpoint = &self.endpoints[at];
        let channel = endpoint.channel(token);
        let mut request = self.request(endpoint, "event", &channel);
        if self.plan.compression {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let round = self.pace().round();
        let posting = channel.begin();
        let reply = match reply_to(request.body(body)).await {
            Ok(reply) => reply,
            Err(error) => {
                if error.is_connect() {
                    // Nothing was sent.
                    posting.answered();
                }
                return Err(Refusal::Stop(self.stop(endpoint, &error)));
            }
        };
        let place = &endpoint.base;
        let judged = judge(place, self.plan.index.as_deref(), reply.status, reply.retry_after(), &reply.body);
        let Receipt { ack_id, is_crowded } = match judged {
            Ok(receipt) => receipt,
            Err(refusal) => {
                if !leaves_open(reply.status, &reply.body) {
                    posting.answered();
                }
                return Err(refusal);
            }
        };
        if is_crowded {
            self.is_crowded(endpoint, round);
        }
        let ack_id = ack_id.filter(|_| self.plan.acks != Acks::Off && endpoint.gives_acks(Instant::now()));
        let Some(ack_id) = ack_id else {
            posting.answered();
            if self.plan.acks == Acks::Required {
                return Err(Refusal::NoAcks {
                    reason: format!(
                        "{place} took events without offering an acknowledgement: enable indexer acknowledgement for the token, or set acks = \"auto\""
                    ),
                });
            }
            return Ok(None);
        };
        endpoint.keep_session(&reply.headers, &channel);
        let told = posting.taken(ack_id, Instant::now());
        if channel.takes_over() {
            tokio::spawn(Arc::clone(self).ask(at, channel));
        }
        Ok(Some(told))
    }

    /// Asks for the acknowledgements of a channel until nothing waits there: one question for all of them.
    async fn ask(self: Arc<Self>, at: usize, channel: Arc<Channel>) {
        let endpoint = &self.endpoints[at];
        loop {
            let ids = match channel.next(Instant::now()) {
                Next::Nothing => return,
                Next::Ask(ids) => ids,
                Next::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = channel.changed.notified() => {}
                    }
                    continue;
                }
            };
            let list: Vec<String> = ids.iter().map(u64::to_string).collect();
            let question = format!("{{\"acks\":[{}]}}", list.join(","));
            match reply_to(self.request(endpoint, "ack", &channel).body(question)).await {
                Ok(reply) => {
                    endpoint.keep_session(&reply.headers, &channel);
                    match judge_ack(&endpoint.base, reply.status, &reply.body) {
                        Acked::Told(answer) => channel.answered(&answer),
                        Acked::NotNow => {}
                        Acked::Lost => channel.lost(&ids, Instant::now()),
                        Acked::Never(stop) => channel.end(stop),
                        Acked::Refused { is_disabled, reason } => {
                            channel.end(self.without_acks(endpoint, &channel.token, is_disabled, reason));
                        }
                    }
                }
                // Nobody is there, so nobody remembers what was taken.
                Err(error) if is_refused(&error) => channel.end(self.stop(endpoint, &error)),
                Err(error) if error.is_connect() => {}
                Err(_) => channel.lost(&ids, Instant::now()),
            }
        }
    }

    /// There are no acknowledgements after all. What waits for one is sent again, and counts as it then will.
    fn without_acks(&self, endpoint: &Endpoint, token: &HeaderValue, is_disabled: bool, reason: String) -> Stop {
        if is_disabled && self.plan.acks == Acks::Auto {
            tracing::error!(sink = %self.name, "{reason}; until then events count as delivered when {} took them", endpoint.base);
            endpoint.acks_are_off(Instant::now());
            return Stop::unavailable(format!("{reason}; sending again what was not acknowledged"));
        }
        endpoint.acks_are_refused(token);
        Stop::Misconfigured { reason }
    }

    /// Where asking was refused, sees whether it is still: a batch that is sent and can't be acknowledged would only be sent again and again.
    async fn acks_work(&self, endpoint: &Endpoint) -> Result<(), Stop> {
        let Some(token) = endpoint.refused_acks() else { return Ok(()) };
        // A channel of its own: a `true` that the question gets is said to nobody else.
        let channel = Channel::new(guid(), token, self.plan.waits);
        let reply = reply_to(self.request(endpoint, "ack", &channel).body("{\"acks\":[0]}"));
        let reply = reply.await.map_err(|error| self.stop(endpoint, &error))?;
        match judge_ack(&endpoint.base, reply.status, &reply.body) {
            Acked::Refused { is_disabled: false, reason } => Err(Stop::Misconfigured { reason }),
            Acked::Refused { is_disabled: true, reason } if self.plan.acks == Acks::Required => {
                Err(Stop::Misconfigured { reason })
            }
            Acked::NotNow => Err(Stop::unavailable(format!("{} answered {}", endpoint.base, reply.status))),
            _ => {
                endpoint.acks_are_open();
                Ok(())
            }
        }
    }

    fn is_crowded(&self, endpoint: &Endpoint, round: u64) {
        tracing::warn!(sink = %self.name, "{} says that its queues are nearly full; fewer batches at once", endpoint.base);
        self.pace().crowded(round, Arc::strong_count(&self.under_way) - 1);
    }

    fn request(&self, endpoint: &Endpoint, what: &str, channel: &Channel) -> RequestBuilder {
        let client = self.tls.lock().expect("nothing panics while holding it").client.clone();
        let mut request = client
            .post(format!("{}/services/collector/{what}", endpoint.base))
            .header(AUTHORIZATION, &channel.token)
            .header(CONTENT_TYPE, "application/json");
        // A token without acknowledgements needs no channel, and may not like one.
        if endpoint.gives_acks(Instant::now()) {
            request = request.header("X-Splunk-Request-Channel", &channel.guid);
        }
        if let Some(session) = endpoint.session() {
            request = request.header(COOKIE, session);
        }
        request
    }

    fn stop(&self, endpoint: &Endpoint, error: &reqwest::Error) -> Stop {
        let place = &endpoint.base;
        if let Some(why) = tls::why(error) {
            return Stop::Tls { reason: format!("{place}: {why}") };
        }
        if error.is_timeout() && !error.is_connect() {
            return Stop::unavailable(format!("{place} gave no answer within {}", Span(self.plan.timeout)));
        }
        let what = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
        Stop::unavailable(format!("{what} {place}: {}", root_cause(error)))
    }

    fn refused(&self) -> MutexGuard<'_, Option<Arc<Vec<Key>>>> {
        self.refused.lock().expect("nothing panics while holding it")
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("nothing panics while holding it")
    }
}

/// The one that an operator has to see first: what waiting does not mend. Of two waits the shorter one, because then one of them can go on.
fn worse(known: Option<Stop>, new: Stop) -> Stop {
    let gravity = |stop: &Stop| match stop {
        Stop::Unavailable { .. } => 0,
        Stop::Tls { .. } => 1,
        Stop::Misconfigured { .. } => 2,
        Stop::Unauthorized { .. } => 3,
    };
    match (known, new) {
        (None, new) => new,
        (Some(Stop::Unavailable { retry_after: known, reason }), Stop::Unavailable { retry_after: new, .. }) => {
            Stop::Unavailable { retry_after: known.zip(new).map(|(known, new)| known.min(new)), reason }
        }
        (Some(known), new) => {
            if gravity(&known) < gravity(&new) {
                new
            } else {
                known
            }
        }
    }
}

/// Contract 5: a certificate file that changes is taken up within 10 s.
const FILES_EVERY: Duration = Duration::from_secs(5);
