//! TCP control bits.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// The control bits of a TCP header (RFC 9293 §3.1), ECE and CWR of RFC 3168 included.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No bit set.
    pub const NONE: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(1);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(1 << 1);
    /// Reset the connection.
    pub const RST: Flags = Flags(1 << 2);
    /// Push.
    pub const PSH: Flags = Flags(1 << 3);
    /// The acknowledgment field is significant.
    pub const ACK: Flags = Flags(1 << 4);
    /// The urgent pointer is significant.
    pub const URG: Flags = Flags(1 << 5);
    /// ECN echo.
    pub const ECE: Flags = Flags(1 << 6);
    /// Congestion window reduced.
    pub const CWR: Flags = Flags(1 << 7);

    /// The flags of this header byte; every value has a meaning.
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits)
    }

    /// The flags as they stand in the header.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        *self = *self | other;
    }
}

impl fmt::Debug for Flags {
    /// `SYN|ACK`, lowest bit first; `NONE` when empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Flags::NONE {
            return f.write_str("NONE");
        }
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        Ok(())
    }
}

const NAMES: [(Flags, &str); 8] = [
    (Flags::FIN, "FIN"),
    (Flags::SYN, "SYN"),
    (Flags::RST, "RST"),
    (Flags::PSH, "PSH"),
    (Flags::ACK, "ACK"),
    (Flags::URG, "URG"),
    (Flags::ECE, "ECE"),
    (Flags::CWR, "CWR"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn contains_wants_all_and_intersects_any() {
        let syn_ack = Flags::SYN | Flags::ACK;
        assert!(syn_ack.contains(Flags::SYN) && syn_ack.contains(syn_ack) && syn_ack.contains(Flags::NONE));
        assert!(!Flags::SYN.contains(syn_ack));
        assert!(Flags::SYN.intersects(syn_ack) && !Flags::SYN.intersects(Flags::ACK | Flags::RST));
        assert!(!syn_ack.intersects(Flags::NONE));
    }

    #[test]
    fn debug_names_every_bit_in_header_order() {
        assert_eq!(format!("{:?}", Flags::ACK | Flags::SYN), "SYN|ACK");
        assert_eq!(format!("{:?}", Flags::NONE), "NONE");
        assert_eq!(format!("{:?}", Flags::from_bits(0xff)), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
    }

    #[test]
    fn names_and_bits_agree() {
        for (index, (flag, _)) in NAMES.iter().enumerate() {
            assert_eq!(flag.bits(), 1 << index);
        }
    }
}
