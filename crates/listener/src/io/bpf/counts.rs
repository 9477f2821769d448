//! What the programs counted, in the listener's own terms.

use super::layout::{Counted, RawCounters, TOOK};
use crate::cookie::clock_time;
use crate::stats::{Counter, DropReason, Stats};

/// Adds the programs' counts to those of user space.
pub(super) fn add_to(stats: &mut Stats, counted: &RawCounters) {
    let count = |what: Counted| counted[what as usize];
    for (counter, n) in [
        (Counter::SynsReceived, count(Counted::SynsReceived)),
        (Counter::SynsDenied, count(Counted::SynsDenied)),
        (Counter::SynAcksSent, count(Counted::SynAcksSent)),
        // Without a report there is no entry.
        (Counter::CookiesSent, count(Counted::CookiesSent) + count(Counted::ReportsLost)),
        (Counter::HalfOpenFull, count(Counted::CookiesSent) + count(Counted::ReportsLost)),
        (Counter::CookiesValid, count(Counted::CookiesValid)),
        (Counter::CookiesExpired, count(Counted::CookiesExpired)),
        (Counter::CookiesBadMac, count(Counted::CookiesBadMac)),
        (Counter::CookiesNotExpected, count(Counted::CookiesNotExpected)),
        (Counter::CookiesOverBudget, count(Counted::CookiesOverBudget)),
        (Counter::RepliesOverBudget, count(Counted::RepliesOverBudget)),
        (Counter::ResetsSent, count(Counted::ResetsSent)),
        (Counter::AcceptQueueOverflows, count(Counted::AcceptQueueFull)),
        (Counter::RefusedTupleBusy, count(Counted::TupleBusy)),
        (Counter::RefusedOther, count(Counted::AssignRefused)),
        (Counter::SynsLeftToKernel, count(Counted::LeftToKernel)),
    ] {
        stats.add(counter, n);
    }
    for (n, units) in counted[Counted::Took as usize..].iter().zip(TOOK) {
        stats.add_handshakes(*n, clock_time(units));
    }
    stats.add_handshake_time(clock_time(count(Counted::TookUnits)));
    let by_cookie = count(Counted::CookiesValid).saturating_sub(stats.get(Counter::HandshakesByQueue));
    stats.add(Counter::HandshakesByCookie, by_cookie);
    for (reason, what) in [
        (DropReason::Malformed, Counted::Malformed),
        (DropReason::BadChecksum, Counted::BadChecksum),
        (DropReason::Martian, Counted::Martian),
        (DropReason::Land, Counted::Land),
        (DropReason::PortZero, Counted::PortZero),
        (DropReason::BadFlags, Counted::BadFlags),
        (DropReason::Reset, Counted::Reset),
        (DropReason::BadCookie, Counted::BadCookie),
        (DropReason::UnknownFlow, Counted::UnknownFlow),
        (DropReason::Draining, Counted::Draining),
        (DropReason::Denied, Counted::Denied),
        (DropReason::NotForUs, Counted::NotUnderstood),
        (DropReason::OverBudget, Counted::RepliesOverBudget),
        (DropReason::OverBudget, Counted::CookiesOverBudget),
    ] {
        stats.add_drops(reason, count(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::bpf::layout::COUNTED;

    /// By the programs' steps as by the time itself.
    #[test]
    fn the_time_of_every_handshake_is_in_its_bucket() {
        for units in 0..128 {
            let mut expected = Stats::default();
            expected.record_handshake(clock_time(units));
            let mut counted = [0; COUNTED];
            let step = TOOK.iter().rposition(|&least| units >= least).unwrap();
            counted[Counted::Took as usize + step] = 1;
            counted[Counted::TookUnits as usize] = units;
            let mut stats = Stats::default();
            add_to(&mut stats, &counted);
            assert_eq!(stats.handshake_buckets(), expected.handshake_buckets(), "{units} units");
            assert_eq!(stats.handshake_seconds_sum(), expected.handshake_seconds_sum());
        }
    }
}
