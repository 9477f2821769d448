//! The steps from one state of a connection to the next.

use crate::TcpState::{self, *};

/// A step that a passively opened connection can take.
///
/// Reference: RFC 9293 §3.3.2, Figure 5, the arrows that can be reached from LISTEN; and those by which Linux and we differ from it: a
/// cookie leads from LISTEN to ESTABLISHED, since nothing is kept in between, and RST, a timeout or an abort leads to CLOSED from
/// anywhere.
///
/// Three that the figure or its notes have are not here. From SYN-RECEIVED to FIN-WAIT-1: nobody can close what he is not told of before it is
/// established. From FIN-WAIT-1 to TIME-WAIT, by a FIN that acknowledges ours: Linux takes the acknowledgment first, and goes by FIN-WAIT-2.
/// From TIME-WAIT to CLOSED: the kernel tells nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state before.
    pub from: TcpState,
    /// The state after.
    pub to: TcpState,
}

impl Transition {
    /// Every transition there is.
    pub const ALL: [Transition; 17] = [
        step(Listen, SynReceived),
        step(Listen, Established),
        step(SynReceived, Established),
        step(SynReceived, Closed),
        step(Established, FinWait1),
        step(Established, CloseWait),
        step(Established, Closed),
        step(FinWait1, FinWait2),
        step(FinWait1, Closing),
        step(FinWait1, Closed),
        step(FinWait2, TimeWait),
        step(FinWait2, Closed),
        step(Closing, TimeWait),
        step(Closing, Closed),
        step(CloseWait, LastAck),
        step(CloseWait, Closed),
        step(LastAck, Closed),
    ];

    /// Its place in [`ALL`](Transition::ALL); `None` for a step that no passively opened connection takes, or none that is counted.
    pub fn index(self) -> Option<usize> {
        Transition::ALL.into_iter().position(|known| known == self)
    }
}

const fn step(from: TcpState, to: TcpState) -> Transition {
    Transition { from, to }
}

/// Counts of transitions, indexed as [`Transition::ALL`].
pub type TransitionCounts = [u64; Transition::ALL.len()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_once_and_leads_elsewhere() {
        for (index, transition) in Transition::ALL.into_iter().enumerate() {
            assert_eq!(transition.index(), Some(index));
            assert_ne!(transition.from, transition.to);
        }
        assert_eq!(step(TimeWait, Listen).index(), None);
    }
}
