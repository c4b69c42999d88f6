//! How large a batch may be after one was refused as too large (413): half of that one, and slowly more again.
//!
//! A batch is made before it is known which collector takes it, so the smallest limit among them counts for all.
//!
//! Invariants: at least one byte, and one event always travels; a bound that nothing was refused at in a while grows. Pure: no clock and no
//! chance.
//!
//! Not here: sending the refused batch in parts (`deliver`).

/// The bound on the bytes of a batch before compression, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fit {
    bytes_max: usize,
    /// Batches near the bound that were taken since it last changed.
    taken: u32,
}

impl Fit {
    /// Nothing was refused yet.
    pub(super) const fn new() -> Self {
        Self { bytes_max: usize::MAX, taken: 0 }
    }

    /// Most bytes of the next batch.
    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A batch of so many bytes and of more than one event was too large.
    pub(super) fn refused(&mut self, bytes: usize) {
        self.bytes_max = self.bytes_max.min((bytes / 2).max(1));
        self.taken = 0;
    }

    /// A batch of so many bytes was taken. One that is far below the bound says nothing about it.
    pub(super) const fn taken(&mut self, bytes: usize) {
        if self.bytes_max == usize::MAX || bytes < self.bytes_max / 2 {
            return;
        }
        self.taken += 1;
        if self.taken >= TAKEN_BEFORE_MORE {
            self.taken = 0;
            self.bytes_max = self.bytes_max.saturating_add(self.bytes_max / 8 + 1);
        }
    }
}

/// A limit that did not move refuses one batch in some hundred then: it takes six steps of an eighth to come to it again.
const TAKEN_BEFORE_MORE: u32 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_limit_few_batches_are_refused_and_none_stays_small_for_ever(
            limit in 1_usize..2_000_000, wanted in 1_usize..4_000_000, event in 1_usize..4_000,
        ) {
            let (mut fit, mut refused, mut largest) = (Fit::new(), 0, 0);
            for _ in 0..20_000 {
                // As `deliver` fills a batch: the last event may go over the bound.
                let bytes = wanted.min(fit.bytes_max()).div_ceil(event) * event;
                if bytes > limit && bytes > event {
                    fit.refused(bytes);
                    refused += 1;
                } else {
                    fit.taken(bytes);
                    largest = largest.max(bytes);
                }
                prop_assert!(fit.bytes_max() >= 1);
            }
            prop_assert!(refused <= 22 + 20_000 / 64, "{refused} refused");
            // It comes near what can be had.
            prop_assert!(largest >= limit.min(wanted) / 2 || largest >= event, "{largest} at most");
        }
    }

    #[test]
    fn a_refusal_halves_and_many_that_are_taken_give_a_little_back() {
        let mut fit = Fit::new();
        fit.taken(1 << 20);
        assert_eq!(fit.bytes_max(), usize::MAX);
        fit.refused(1000);
        assert_eq!(fit.bytes_max(), 500);
        fit.refused(4000);
        assert_eq!(fit.bytes_max(), 500, "a batch that was made before says nothing new");
        for _ in 0..1000 {
            fit.taken(249);
        }
        assert_eq!(fit.bytes_max(), 500, "small ones say nothing");
        for _ in 0..TAKEN_BEFORE_MORE {
            fit.taken(250);
        }
        assert_eq!(fit.bytes_max(), 563);
    }
}
