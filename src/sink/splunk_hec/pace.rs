//! How many batches may be on the way: slowly up while all goes well, half when the collector is crowded, one after a failure.
//!
//! Invariants: at least one, at most the bound it was made with. Pure: no clock and no chance.
//!
//! Not here: which batches those are (`splunk_hec`), and which collector rests (`endpoint`).

/// The bound on batches on the way, as it stands now. TCP's congestion window, counted in batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    limit: usize,
    max: usize,
    /// Up to here it doubles with each round; beyond, a round adds one.
    doubles_to: usize,
    /// Batches that went well since the last step beyond `doubles_to`.
    well: usize,
    /// How often it was lowered for a crowd.
    lowered: u64,
}

impl Pace {
    /// Begins with `first` and never exceeds `max`.
    pub(super) fn new(first: usize, max: usize) -> Self {
        let max = max.max(1);
        Self { limit: first.clamp(1, max), max, doubles_to: max, well: 0, lowered: 0 }
    }

    /// Most batches on the way.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// What a request notes when it begins, for [`Pace::crowded`].
    pub(super) const fn round(&self) -> u64 {
        self.lowered
    }

    /// A batch was delivered.
    pub(super) const fn delivered(&mut self) {
        if self.limit >= self.max {
            return;
        }
        if self.limit < self.doubles_to {
            self.limit += 1;
            return;
        }
        self.well += 1;
        if self.well >= self.limit {
            self.well = 0;
            self.limit += 1;
        }
    }

    /// The collector says that it is filling up, to a request that began in `round` while `under_way` batches were out.
    ///
    /// Answers to requests of one round say the same thing once.
    pub(super) fn crowded(&mut self, round: u64, under_way: usize) {
        if round == self.lowered {
            self.lowered += 1;
            self.limit = (self.limit.min(under_way) / 2).max(1);
            self.doubles_to = self.limit;
            self.well = 0;
        }
    }

    /// Nobody took a batch: one goes first, to see whether that changed.
    pub(super) const fn failed(&mut self) {
        self.limit = 1;
        self.well = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_each_round_up_to_its_bound() {
        let mut pace = Pace::new(4, 20);
        let mut limits = Vec::new();
        for _ in 0..4 {
            limits.push(pace.limit());
            for _ in 0..pace.limit() {
                pace.delivered();
            }
        }
        assert_eq!(limits, [4, 8, 16, 20]);
        pace.failed();
        assert_eq!(pace.limit(), 1);
        pace.delivered();
        assert_eq!(pace.limit(), 2);
    }

    #[test]
    fn a_crowd_halves_what_is_out_once_a_round_and_then_a_round_adds_one() {
        let mut pace = Pace::new(64, 256);
        let round = pace.round();
        for _ in 0..4 {
            pace.crowded(round, 16);
        }
        assert_eq!(pace.limit(), 8);
        for _ in 0..8 {
            pace.delivered();
        }
        assert_eq!(pace.limit(), 9);
        for _ in 0..20 {
            pace.crowded(pace.round(), 16);
        }
        assert_eq!(pace.limit(), 1, "never none");
        assert_eq!(Pace::new(4, 0).limit(), 1);
    }
}
