//! The steps from state to state: the kernel's and our own, put together.

use listener::{Counter, Stats, TcpState, Transition, TransitionCounts};

use crate::source::KERNEL_TIER;

/// Every step of a listener of this tier, as [`Transition::ALL`] has them; those that nobody sees are 0.
///
/// Where we do the handshakes, the kernel's sockets begin in ESTABLISHED, and the steps before it are ours to count.
pub(crate) fn counts(tier: &str, kernels: Option<&TransitionCounts>, stats: &Stats) -> TransitionCounts {
    let mut counts = kernels.copied().unwrap_or_default();
    if tier != KERNEL_TIER {
        for (count, step) in counts.iter_mut().zip(Transition::ALL) {
            if let Some(ours) = own(step) {
                *count = ours.iter().map(|counter| stats.get(*counter)).sum();
            }
        }
    }
    counts
}

/// What counts a step of the handshake; `None` for a step behind it.
fn own(step: Transition) -> Option<&'static [Counter]> {
    match (step.from, step.to) {
        (TcpState::Listen, TcpState::SynReceived) => Some(&[Counter::HalfOpenInserted]),
        (TcpState::Listen, TcpState::Established) => Some(&[Counter::HandshakesByCookie]),
        (TcpState::SynReceived, TcpState::Established) => Some(&[Counter::HalfOpenCompleted]),
        (TcpState::SynReceived, TcpState::Closed) => Some(&[Counter::HalfOpenTimedOut, Counter::HalfOpenReset]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(counts: &TransitionCounts, from: TcpState, to: TcpState) -> u64 {
        counts[Transition { from, to }.index().unwrap()]
    }

    #[test]
    fn what_enters_syn_received_leaves_it_or_is_there() {
        let mut stats = Stats::default();
        stats.add(Counter::HalfOpenInserted, 10);
        stats.add(Counter::HalfOpenCompleted, 3);
        stats.add(Counter::HalfOpenTimedOut, 4);
        stats.add(Counter::HalfOpenReset, 1);
        stats.add(Counter::HandshakesByCookie, 7);
        let counts = counts("raw", None, &stats);
        assert_eq!(count(&counts, TcpState::Listen, TcpState::SynReceived), 10);
        assert_eq!(count(&counts, TcpState::SynReceived, TcpState::Established), 3);
        assert_eq!(count(&counts, TcpState::SynReceived, TcpState::Closed), 5);
        assert_eq!(count(&counts, TcpState::Listen, TcpState::Established), 7);
        assert_eq!(count(&counts, TcpState::Established, TcpState::FinWait1), 0);
    }

    #[test]
    fn the_kernels_steps_stand_where_it_does_the_handshakes_and_behind_ours() {
        let mut stats = Stats::default();
        stats.add(Counter::HalfOpenInserted, 10);
        let kernels = std::array::from_fn(|index| 100 + index as u64);
        assert_eq!(counts(KERNEL_TIER, Some(&kernels), &stats), kernels);
        let ours = counts("raw", Some(&kernels), &stats);
        assert_eq!(ours[..4], [10, 0, 0, 0]);
        assert_eq!(ours[4..], kernels[4..]);
    }
}
