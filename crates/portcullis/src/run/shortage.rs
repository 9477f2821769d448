//! Two log lines for a want of descriptors in the raw tier: when it begins, and when it is over.
//!
//! Under a flood, each handshake that cannot become a connection would be a line of its own.

use std::sync::Arc;
use std::time::Duration;

use exporter::Source;
use listener::Counter;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two looks at the counts.
const LOOK: Duration = Duration::from_secs(1);

/// It is over when nobody was refused for this long; so a line comes at most every ten seconds.
const CALM: Duration = Duration::from_secs(10);

/// Watches a listener for as long as it is polled.
pub async fn watch(source: Arc<dyn Source>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shortage = Shortage::default();
    loop {
        let now = looks.tick().await;
        let refused = source.stats().get(Counter::RefusedNoDescriptors);
        match shortage.observe(refused, now) {
            Some(Change::Began) => tracing::warn!(
                listener = source.name(),
                "out of file descriptors: finished handshakes wait half-open; raise the limit of open files \
                 (ulimit -n, LimitNOFILE= of systemd) or lower connections_max"
            ),
            Some(Change::Ended { refused }) => tracing::info!(
                listener = source.name(),
                refused,
                "file descriptors again: nobody was refused for {} s",
                CALM.as_secs()
            ),
            None => {}
        }
    }
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Began,
    Ended {
        /// Refusals since it began.
        refused: u64,
    },
}

#[derive(Debug, Default)]
struct Shortage {
    seen: u64,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    refused_before: u64,
    last: Instant,
}

impl Shortage {
    /// Takes the number of refusals since the start.
    fn observe(&mut self, refused: u64, now: Instant) -> Option<Change> {
        let more = refused > self.seen;
        let before = std::mem::replace(&mut self.seen, refused);
        match &mut self.under_way {
            None if more => {
                self.under_way = Some(UnderWay { refused_before: before, last: now });
                Some(Change::Began)
            }
            Some(under_way) if more => {
                under_way.last = now;
                None
            }
            Some(under_way) if now - under_way.last >= CALM => {
                let refused = refused - under_way.refused_before;
                self.under_way = None;
                Some(Change::Ended { refused })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_when_it_begins_and_when_it_has_been_over_for_a_while() {
        let start = Instant::now();
        let mut shortage = Shortage::default();
        let mut at = |seconds, refused| shortage.observe(refused, start + Duration::from_secs(seconds));
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 5), Some(Change::Began));
        assert_eq!(at(2, 900), None);
        assert_eq!(at(9, 900), None);
        assert_eq!(at(11, 901), None, "it goes on");
        assert_eq!(at(20, 901), None);
        assert_eq!(at(21, 901), Some(Change::Ended { refused: 901 }));
        assert_eq!(at(60, 901), None);
        assert_eq!(at(61, 902), Some(Change::Began));
        assert_eq!(at(71, 902), Some(Change::Ended { refused: 1 }));
    }
}
