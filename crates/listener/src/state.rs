//! The eleven states of a TCP connection.

use core::fmt;

/// A state of the TCP connection state machine.
///
/// Reference: RFC 9293 §3.3.2. [`Display`](fmt::Display) spells the names as the RFC does; [`label`](TcpState::label)
/// spells them as `ss` and node_exporter do, which is what dashboards expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The RFC's names are the documentation.
pub enum TcpState {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

impl TcpState {
    /// Every state, in the order of the enum; `ALL[state as usize] == state`.
    pub const ALL: [TcpState; 11] = [
        TcpState::Closed,
        TcpState::Listen,
        TcpState::SynSent,
        TcpState::SynReceived,
        TcpState::Established,
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::CloseWait,
        TcpState::Closing,
        TcpState::LastAck,
        TcpState::TimeWait,
    ];

    /// The state for a number of Linux's `enum` in `net/tcp_states.h`, as `tcp_info` and sock_diag report it.
    ///
    /// Linux has a twelfth, `TCP_NEW_SYN_RECV`, for a request that has no full socket yet: that is SYN-RECEIVED here.
    /// `None` for a number Linux does not use.
    pub fn from_linux(number: u8) -> Option<TcpState> {
        Some(match number {
            1 => TcpState::Established,
            2 => TcpState::SynSent,
            3 | 12 => TcpState::SynReceived,
            4 => TcpState::FinWait1,
            5 => TcpState::FinWait2,
            6 => TcpState::TimeWait,
            7 => TcpState::Closed,
            8 => TcpState::CloseWait,
            9 => TcpState::LastAck,
            10 => TcpState::Listen,
            11 => TcpState::Closing,
            _ => return None,
        })
    }

    /// The value of a `state` label: node_exporter's spelling, for example `syn_recv`, `fin_wait1`, `close`.
    pub fn label(self) -> &'static str {
        match self {
            TcpState::Closed => "close",
            TcpState::Listen => "listen",
            TcpState::SynSent => "syn_sent",
            TcpState::SynReceived => "syn_recv",
            TcpState::Established => "established",
            TcpState::FinWait1 => "fin_wait1",
            TcpState::FinWait2 => "fin_wait2",
            TcpState::CloseWait => "close_wait",
            TcpState::Closing => "closing",
            TcpState::LastAck => "last_ack",
            TcpState::TimeWait => "time_wait",
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TcpState::Closed => "CLOSED",
            TcpState::Listen => "LISTEN",
            TcpState::SynSent => "SYN-SENT",
            TcpState::SynReceived => "SYN-RECEIVED",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait1 => "FIN-WAIT-1",
            TcpState::FinWait2 => "FIN-WAIT-2",
            TcpState::CloseWait => "CLOSE-WAIT",
            TcpState::Closing => "CLOSING",
            TcpState::LastAck => "LAST-ACK",
            TcpState::TimeWait => "TIME-WAIT",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TcpState;

    #[test]
    fn every_state_sits_at_its_own_index() {
        for (index, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
        }
    }

    #[test]
    fn every_linux_number_but_the_alias_maps_to_a_state_of_its_own() {
        let mut seen: Vec<_> = (1..=11).map(|n| TcpState::from_linux(n).unwrap()).collect();
        seen.sort();
        assert_eq!(seen, TcpState::ALL);
        assert_eq!(TcpState::from_linux(12), Some(TcpState::SynReceived));
        assert_eq!(TcpState::from_linux(0), None);
        assert_eq!(TcpState::from_linux(13), None);
    }
}
