//! Which of several destinations to take: the first one that is well.
//!
//! Invariants: one that failed rests, longer each time, until it was seen to take something again; while all of them rest, the one
//! whose rest ends first is tried. The clock and chance are arguments.
//!
//! Not here: connections (`wire`), how long to wait when none can be reached (`deliver`).

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

#[derive(Debug)]
pub(super) struct Order {
    places: Vec<Place>,
    current: usize,
}

#[derive(Debug)]
struct Place {
    backoff: Backoff,
    rests_until: Option<Instant>,
}

impl Order {
    pub(super) fn new(count: usize) -> Self {
        let place = || Place { backoff: Backoff::new(REST.0, REST.1), rests_until: None };
        Self { places: (0..count).map(|_| place()).collect(), current: 0 }
    }

    /// The destinations to try now, in this order.
    pub(super) fn to_try(&self, now: Instant) -> Vec<usize> {
        let well: Vec<usize> = (0..self.places.len()).filter(|index| self.is_well(*index, now)).collect();
        if !well.is_empty() {
            return well;
        }
        (0..self.places.len()).min_by_key(|index| self.places[*index].rests_until).into_iter().collect()
    }

    /// One that stands before the one in use and is well.
    pub(super) fn better(&self, now: Instant) -> Option<usize> {
        (0..self.current).find(|index| self.is_well(*index, now))
    }

    fn is_well(&self, index: usize, now: Instant) -> bool {
        self.places[index].rests_until.is_none_or(|until| until <= now)
    }

    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// A connection to it was made.
    pub(super) const fn use_now(&mut self, index: usize) {
        self.current = index;
    }

    /// It could not be reached, or its connection was lost.
    pub(super) fn failed(&mut self, index: usize, now: Instant, chance: f64) {
        let place = &mut self.places[index];
        place.rests_until = Some(now + place.backoff.wait(chance));
    }

    /// The one in use took something for good.
    pub(super) fn took(&mut self) {
        let place = &mut self.places[self.current];
        place.rests_until = None;
        place.backoff.reset();
    }
}

/// First and longest rest of a destination that failed. A first one that comes and goes is gone back to once in five minutes at most.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_that_is_well_is_taken_and_gone_back_to() {
        let (mut order, now) = (Order::new(3), Instant::now());
        assert_eq!(order.to_try(now), [0, 1, 2]);
        order.failed(0, now, 1.0);
        assert_eq!(order.to_try(now), [1, 2]);
        order.use_now(1);
        assert_eq!(order.better(now), None);
        let later = now + REST.0;
        assert_eq!(order.better(later), Some(0));
        // Failing again, it rests twice as long.
        order.failed(0, later, 1.0);
        assert_eq!(order.better(later + REST.0), None);
        assert_eq!(order.better(later + REST.0 * 2), Some(0));
    }

    #[test]
    fn while_all_rest_the_one_whose_rest_ends_first_is_tried() {
        let (mut order, now) = (Order::new(2), Instant::now());
        order.failed(0, now, 1.0);
        order.failed(1, now, 0.0);
        assert_eq!(order.to_try(now), [1]);
        order.failed(1, now, 1.0);
        assert_eq!(order.to_try(now), [0]);
    }

    #[test]
    fn one_that_takes_something_rests_no_longer_than_at_first() {
        let (mut order, now) = (Order::new(2), Instant::now());
        for _ in 0..10 {
            order.failed(0, now, 1.0);
        }
        order.use_now(0);
        order.took();
        assert_eq!(order.to_try(now), [0, 1]);
        order.failed(0, now, 1.0);
        assert_eq!(order.to_try(now + REST.0), [0, 1]);
    }
}
