//! How much is looked at: all flows while they are few, else one in 2, 4, 8, ... of them.
//!
//! SYNs are sampled apart from the rest: in a flood of them, a client whose SYN was left out is seen from its ACK on. What is sampled
//! are flows, not packets, so that what is seen is seen whole.

use std::time::Duration;

/// Segments of one tap that are looked at in one interval: 20 000 a second, some hundredths of a core.
const BUDGET: u64 = 2000;

/// How often the shares are looked at again.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Intervals with little to do before twice as much is looked at: a second.
const CALM_INTERVALS: u32 = 10;

/// One flow in 65 536.
const SHIFT_MAX: u32 = 16;

/// The share of one tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    shift: u32,
    calm: u32,
    seen: u64,
    last_drops: u64,
    unseen: u64,
}

impl Share {
    /// One flow in `2^shift` is looked at.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// Segments that were read.
    pub fn on_seen(&mut self, count: usize) {
        self.seen += count as u64;
    }

    /// An interval is over; `drops` is what was lost so far. Whether the shift is another one now.
    pub fn on_interval(&mut self, drops: u64) -> bool {
        let seen = std::mem::take(&mut self.seen);
        let dropped = drops.saturating_sub(self.last_drops);
        self.last_drops = drops;
        let offered = seen + dropped;
        // Of what the filter left out nobody has the count; there was as much of it as of the rest, flow by flow.
        self.unseen += (offered << self.shift) - seen;
        let before = self.shift;
        if offered > BUDGET {
            self.shift = (self.shift + offered.div_ceil(BUDGET).next_power_of_two().trailing_zeros()).min(SHIFT_MAX);
            self.calm = 0;
        } else if self.shift > 0 && offered < BUDGET / 4 {
            self.calm += 1;
            if self.calm >= CALM_INTERVALS {
                self.shift -= 1;
                self.calm = 0;
            }
        } else {
            self.calm = 0;
        }
        self.shift != before
    }

    /// What had come by a wider share, and was read for nobody: it must not be taken for what the narrower one leaves.
    pub fn on_discarded(&mut self, count: usize, drops: u64) {
        self.unseen += count as u64 + drops.saturating_sub(self.last_drops);
        self.last_drops = drops;
    }

    /// About how many segments were not looked at.
    pub fn unseen(&self) -> u64 {
        self.unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(share: &mut Share, seen: usize, drops: u64) -> bool {
        share.on_seen(seen);
        share.on_interval(drops)
    }

    #[test]
    fn calm_everything_is_looked_at() {
        let mut share = Share::default();
        assert!((0..100).all(|_| !interval(&mut share, 2000, 0)));
        assert_eq!((share.shift(), share.unseen()), (0, 0));
    }

    #[test]
    fn flood_share_fits_the_budget_at_once_and_grows_back_slowly() {
        let mut share = Share::default();
        assert!(interval(&mut share, 4000, 12_000), "16 000 were offered");
        assert_eq!((share.shift(), share.unseen()), (3, 12_000));
        assert!(!interval(&mut share, 2000, 12_000));
        assert_eq!(share.unseen(), 12_000 + 14_000, "one in eight was seen");
        let changes = (0..30).filter(|_| interval(&mut share, 0, 12_000)).count();
        assert_eq!((changes, share.shift()), (3, 0));
    }

    #[test]
    fn what_was_left_from_a_wider_share_counts_once() {
        let mut share = Share::default();
        interval(&mut share, 4000, 12_000);
        share.on_discarded(5000, 14_000);
        assert_eq!(share.unseen(), 12_000 + 5000 + 2000);
        interval(&mut share, 0, 14_000);
        assert_eq!(share.unseen(), 19_000);
    }

    #[test]
    fn endless_flood_has_a_last_share() {
        let mut share = Share::default();
        let mut drops = 0;
        for _ in 0..1000 {
            drops += 1_000_000;
            interval(&mut share, 4000, drops);
        }
        assert_eq!(share.shift(), 16);
    }
}
