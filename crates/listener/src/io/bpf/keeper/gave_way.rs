//! Which connections gave way to their client's next one.

use std::collections::VecDeque;

use wire::FourTuple;

use crate::time::Time;

/// As many 4-tuples are remembered. Should more give way while reports of one of them wait in the ring, a report of its old connection may destroy
/// the new one, whose client then begins again.
const REMEMBERED: usize = 64;

/// A client that has moved on says so in more than one segment, and each may be reported. Only one report is about the old connection: when the
/// next is read, the new one may be there.
#[derive(Debug, Default)]
pub(super) struct GaveWay {
    /// When each gave way, the last one last.
    last: VecDeque<(FourTuple, Time)>,
}

impl GaveWay {
    /// Whether what was seen on the 4-tuple at that time was the connection that has given way since.
    pub(super) fn has(&self, tuple: &FourTuple, seen: Time) -> bool {
        self.last.iter().any(|(gone, when)| gone == tuple && seen <= *when)
    }

    /// It has given way.
    pub(super) fn note(&mut self, tuple: FourTuple, now: Time) {
        self.last.retain(|(gone, _)| *gone != tuple);
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back((tuple, now));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use wire::Endpoint;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let end = |port| Endpoint::from(SocketAddr::from(([198, 18, 0, 1], port)));
        FourTuple { local: end(80), peer: end(port) }
    }

    #[test]
    fn what_was_seen_before_is_the_old_connection_and_what_is_seen_later_the_new_one() {
        let mut gave_way = GaveWay::default();
        assert!(!gave_way.has(&tuple(1), Time::from_secs(1)));
        gave_way.note(tuple(1), Time::from_secs(2));
        assert!(gave_way.has(&tuple(1), Time::from_secs(1)));
        assert!(!gave_way.has(&tuple(1), Time::from_secs(3)));
        assert!(!gave_way.has(&tuple(2), Time::from_secs(1)), "another client's");
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut gave_way = GaveWay::default();
        let all = REMEMBERED as u16 + 1;
        for port in (0..all).chain([1]) {
            gave_way.note(tuple(port), Time::from_secs(2));
        }
        assert_eq!(gave_way.last.len(), REMEMBERED);
        let remembered = |port| gave_way.has(&tuple(port), Time::from_secs(1));
        assert!(!remembered(0) && (1..all).all(remembered));
    }
}
