//! What the programs counted, in the listener's own terms.

use super::layout::{Counted, RawCounters};
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
