//! Two limits: how many proven requests a source may send, and how many unproven ones an address may.
//!
//! Invariants: what cannot be proven never uses up a source's allowance, so strangers cannot lock a sender out; the table of
//! addresses is bounded, and an address that it has no room for is served, because it is a shield for the processor, not a gate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills at a steady rate and lets a burst pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The size of a bucket and how fast it fills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

impl Bucket {
    pub(crate) const fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Takes one token, or says how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second))
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = passed.mul_add(rate.per_second, self.tokens).min(rate.burst);
        self.at = now;
    }
}

/// What is remembered of the addresses that sent something.
#[derive(Debug)]
pub(super) struct Strangers {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    peers: HashMap<IpAddr, Peer>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Peer {
    bucket: Bucket,
    /// When it last proved a message: whoever shares its address is not shut out for it.
    proven_at: Option<Instant>,
}

impl Strangers {
    pub(super) fn new(now: Instant) -> Self {
        Self { table: Mutex::new(Table { peers: HashMap::new(), swept_at: now }) }
    }

    /// Whether this address has used up its failures. Looks only: it is the failure itself that counts.
    pub(super) fn is_limited(&self, peer: IpAddr, now: Instant) -> bool {
        let mut table = self.table();
        let Some(peer) = table.peers.get_mut(&network_of(peer)) else { return false };
        peer.bucket.fill(UNPROVEN, now);
        !peer.is_known_sender(now) && peer.bucket.tokens < 1.0
    }

    /// Counts one request whose proof did not hold.
    pub(super) fn failed(&self, peer: IpAddr, now: Instant) {
        if let Some(peer) = self.table().peer(peer, now) {
            // Below nothing there is nothing to take, and the caller has its answer already.
            let _is_limited = peer.bucket.take(UNPROVEN, now).is_err();
        }
    }

    /// Notes that this address sends proven messages: a flood from behind the same address does not shut it out.
    pub(super) fn proved(&self, peer: IpAddr, now: Instant) {
        if let Some(peer) = self.table().peer(peer, now) {
            peer.proven_at = Some(now);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every update is complete in itself, so a panic of another holder leaves the table whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn is_known_sender(&self, now: Instant) -> bool {
        self.proven_at.is_some_and(|at| now.saturating_duration_since(at) < KNOWN_FOR)
    }
}

impl Table {
    /// What is remembered of an address; none if there is no room for it.
    fn peer(&mut self, peer: IpAddr, now: Instant) -> Option<&mut Peer> {
        let peer = network_of(peer);
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) && !self.make_room(now) {
            return None;
        }
        let new = || Peer { bucket: Bucket::full(UNPROVEN, now), proven_at: None };
        Some(self.peers.entry(peer).or_insert_with(new))
    }

    /// Drops the addresses of which nothing matters any more; at most once a second, because it looks at all of them.
    fn make_room(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.swept_at) < Duration::from_secs(1) {
            return false;
        }
        self.swept_at = now;
        self.peers.retain(|_, peer| {
            peer.bucket.fill(UNPROVEN, now);
            peer.bucket.tokens < UNPROVEN.burst || peer.is_known_sender(now)
        });
        self.peers.len() < PEERS_MAX
    }
}

/// The address itself, or the /64 of a version 6 address: one host has all of it.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// A sender with the wrong secret retries a few times a minute; a flood is thousands a second.
const UNPROVEN: Rate = Rate { per_second: 20.0, burst: 200.0 };

/// Addresses that are remembered, some 80 bytes each.
const PEERS_MAX: usize = 16_384;

/// How long a proven message vouches for its address.
const KNOWN_FOR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate { per_second: 2.0, burst: 3.0 };
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        assert!((0..3).all(|_| bucket.take(rate, start).is_ok()));
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(500)));
        assert!(bucket.take(rate, start + Duration::from_millis(500)).is_ok());
        let later = start + Duration::from_mins(1);
        assert_eq!((0..10).filter(|_| bucket.take(rate, later).is_ok()).count(), 3);
    }

    #[test]
    fn a_flood_is_limited_until_it_rests_and_a_proven_message_vouches_for_its_address() {
        let start = Instant::now();
        let strangers = Strangers::new(start);
        let [flood, other]: [IpAddr; 2] = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| text.parse().expect("address"));
        for _ in 0..200 {
            assert!(!strangers.is_limited(flood, start));
            strangers.failed(flood, start);
        }
        assert!(strangers.is_limited(flood, start));
        assert!(strangers.is_limited("2001:db8::ffff".parse().expect("address"), start), "the same /64");
        assert!(!strangers.is_limited(other, start));
        assert!(!strangers.is_limited(flood, start + Duration::from_secs(1)));
        strangers.proved(flood, start);
        assert!(!strangers.is_limited(flood, start));

        // It vouches before the flood just as well, and for an hour.
        strangers.proved(other, start);
        (0..300).for_each(|_| strangers.failed(other, start));
        assert!(!strangers.is_limited(other, start));
        (0..300).for_each(|_| strangers.failed(other, start + KNOWN_FOR));
        assert!(strangers.is_limited(other, start + KNOWN_FOR));
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let start = Instant::now();
        let strangers = Strangers::new(start);
        let count = u32::try_from(PEERS_MAX).expect("fits") + 100;
        for number in 0..count {
            strangers.failed(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(strangers.table().peers.len(), PEERS_MAX);
        assert!(!strangers.is_limited(IpAddr::from((count - 1).to_be_bytes()), start));
        let later = start + Duration::from_mins(1);
        strangers.failed(IpAddr::from((count - 1).to_be_bytes()), later);
        assert_eq!(strangers.table().peers.len(), 1);
    }
}
