//! Room for one more in a full listener, at the cost of a connection that does least with its place.
//!
//! Whoever fills a listener with connections that do nothing shuts everybody else out, at the price of a few packets each. So where the
//! rules say [`AtLimit::Displace`](super::AtLimit), a newcomer takes the place of one that has been idle for long, of a source prefix that
//! has more than its share. The same prefix comes out of it with at least as many as the newcomer's, so nobody gets more than his share
//! this way, and no two prefixes take places from each other in turn.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::prefixes::Known;
use super::{AtLimit, Gate, Inside};
use crate::stats::CloseReason;

/// Connections that were displaced and whose tasks have not let go of them yet, at most. For so many, and that moment, there are more
/// than `connections_max`. At the bound nobody is displaced, and newcomers are refused.
pub const DISPLACED_MAX: usize = 16;

/// Of so many prefixes, those with the most connections, is one displaced.
const PREFIXES_MAX: usize = 4;
/// So many connections of each are looked at for one newcomer: a system call of less than a microsecond each.
const LOOKS_MAX: usize = 8;

impl Gate {
    /// Ends a connection for one from `peer`, if there is one that may be ended.
    pub(super) fn make_room(&self, peer: IpAddr, now: Instant) {
        let (idle_min, candidates) = {
            let mut inside = self.lock();
            (inside.rules.displace_idle_min, inside.displaceable(peer, now))
        };
        // Without the lock: a handle that was the last to hold a connection gives its ticket back.
        let Some(worst) = candidates.into_iter().find_map(|of_prefix| idlest(of_prefix, idle_min)) else { return };
        if worst.handle.abort(CloseReason::Overload) {
            self.lock().displace(&worst);
        }
    }
}

impl Inside {
    /// Connections that might go for one from `peer`: by prefix, that with the most first.
    fn displaceable(&mut self, peer: IpAddr, now: Instant) -> Vec<Vec<Known>> {
        let refused_anyway = self.rate.as_ref().is_some_and(|rate| rate.wait(now).is_some());
        if self.rules.at_limit != AtLimit::Displace || self.displaced.len() >= DISPLACED_MAX || refused_anyway {
            return Vec::new();
        }
        // With the newcomer, its prefix has one more than now; to take a place from another, that has to have more still.
        let with_newcomer = self.prefixes.count(peer).saturating_add(1);
        self.prefixes.largest(with_newcomer, PREFIXES_MAX, LOOKS_MAX)
    }

    /// From here on its place is free, though it may take its task a moment to let go of it.
    fn displace(&mut self, ended: &Known) {
        // It may have been quicker than we.
        if self.prefixes.knows(ended.peer, ended.number) {
            self.leave(ended.peer, ended.number);
            self.displaced.push(ended.number);
        }
    }
}

fn idlest(of_prefix: Vec<Known>, idle_min: Duration) -> Option<Known> {
    let idle = of_prefix.into_iter().filter_map(|known| Some((known.handle.idle()?, known)));
    idle.filter(|(idle, _)| *idle >= idle_min).max_by_key(|(idle, _)| *idle).map(|(_, known)| known)
}
