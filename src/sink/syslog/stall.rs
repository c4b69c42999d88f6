//! After a connection came to a standstill: what has to happen before its receiver counts as well again.
//!
//! The kernel of a receiver that hangs still takes new connections, and of each as many bytes as a receive buffer holds. So those bytes say
//! nothing; more of them than the last time do, and so does a connection that stands for a while.
//!
//! Not here: noticing a standstill (`wire`), what is acknowledged (`queue`). The clock is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of one destination.
#[derive(Debug, Clone, Default)]
pub(super) struct Stall {
    /// The fewest bytes after which a connection stood still; none while all is well.
    bytes: Option<u64>,
}

impl Stall {
    /// A connection stood still after so many bytes were written to it, acknowledged or not.
    pub(super) fn stood_still(&mut self, written: u64) {
        self.bytes = Some(self.bytes.unwrap_or(BYTES_MAX).min(written));
    }

    /// Whether the receiver is well, of whose connection since `connected_at` so many bytes are acknowledged. Once it is, the standstill is
    /// forgotten.
    pub(super) fn is_over(&mut self, acknowledged: u64, connected_at: Instant, now: Instant) -> bool {
        let says_nothing = |bytes: &u64| acknowledged <= *bytes && now < connected_at + TIME;
        self.bytes = self.bytes.filter(says_nothing);
        self.bytes.is_none()
    }
}

/// The largest receive buffer that a stock Linux gives one connection: a connection can have taken any number of bytes before it stood still.
const BYTES_MAX: u64 = 32 << 20;
/// Four times what it takes to notice a standstill. A receiver that gets little is well after that.
const TIME: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_bytes_than_before_or_time_end_a_standstill() {
        let (mut stall, began) = (Stall::default(), Instant::now());
        assert!(stall.is_over(0, began, began), "nothing stood still");
        stall.stood_still(10 << 30);
        assert!(!stall.is_over(BYTES_MAX, began, began));
        // The next one shows how much its kernel takes.
        stall.stood_still(200_000);
        stall.stood_still(300_000);
        for (acknowledged, seconds, is_over) in
            [(0, 0, false), (200_000, 0, false), (200_000, 59, false), (200_001, 0, true), (1, 60, true)]
        {
            let (mut stall, now) = (stall.clone(), began + Duration::from_secs(seconds));
            assert_eq!(stall.is_over(acknowledged, began, now), is_over, "{acknowledged} after {seconds} s");
            assert_eq!(stall.is_over(0, began, began), is_over, "it stays as it was found");
        }
    }
}
