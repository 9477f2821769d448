//! What a cookie remembers of the client's options, and in how many bits.

use wire::Options;

/// The options of a client's SYN that matter to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Maximum segment size in bytes; the family's default where the SYN had none (RFC 9293 §3.7.1, MUST-15).
    pub mss: u16,
    /// Window scale shift, 0 to 14.
    pub wscale: Option<u8>,
    /// SACK permitted.
    pub sack: bool,
    /// The client's TSval, if it offered timestamps.
    pub tsval: Option<u32>,
}

impl Offer {
    /// Whether a SYN-ACK and a socket that suit the one suit the other: all is the same but the time.
    pub(crate) fn agrees_with(&self, other: &Offer) -> bool {
        let lasting = |offer: &Offer| (offer.mss, offer.wscale, offer.sack, offer.tsval.is_some());
        lasting(self) == lasting(other)
    }

    /// What a SYN of this family with these options offers.
    pub fn new(options: &Options, family: Family) -> Offer {
        Offer {
            mss: options.mss.unwrap_or(family.default_mss()),
            wscale: options.wscale,
            sack: options.sack_permitted,
            tsval: options.timestamps.map(|ts| ts.tsval),
        }
    }
}

/// The two address families, where they differ for options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: std::net::IpAddr) -> Family {
        if addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// MSS of a peer that names none: 536, or 1220 over IPv6 (RFC 9293 §3.7.1).
    pub const fn default_mss(self) -> u16 {
        match self {
            Family::V4 => 536,
            Family::V6 => 1220,
        }
    }

    /// Length of the IP and TCP headers without options.
    pub const fn header_len(self) -> u16 {
        match self {
            Family::V4 => 40,
            Family::V6 => 60,
        }
    }

    /// Steps of the MSS in form A. A client below the first gets the first: every host must take a segment that fits
    /// the family's smallest datagram (RFC 1122 §3.3.2: 576 bytes; RFC 8200 §5: 1280).
    const fn mss_wide(self) -> [u16; 8] {
        match self {
            // Ethernet, PPPoE, the common tunnels below them, and jumbo frames.
            Family::V4 => [536, 1200, 1340, 1400, 1440, 1452, 1460, 8960],
            Family::V6 => [1220, 1300, 1340, 1380, 1420, 1432, 1440, 8940],
        }
    }

    /// Steps of the MSS in form B.
    const fn mss_narrow(self) -> [u16; 4] {
        match self {
            Family::V4 => [536, 1300, 1440, 1460],
            Family::V6 => [1220, 1340, 1420, 1440],
        }
    }
}

/// Window scales that form B can say, besides "none": the client's is rounded down, which never lets us send more than
/// it granted.
const WSCALE_NARROW: [u8; 3] = [0, 5, 7];

/// `NONE` in the four bits of a window scale.
const WSCALE_NONE: u16 = 15;

/// Form A's nine bits of options: window scale (4), SACK, ECN, MSS step (3).
///
/// The ECN bit is never set by the `raw` tier, which cannot hand it to the socket it adopts.
pub(crate) fn encode_wide(offer: &Offer, family: Family) -> u16 {
    let wscale = offer.wscale.map_or(WSCALE_NONE, u16::from);
    wscale << 5 | u16::from(offer.sack) << 4 | step_down(&family.mss_wide(), offer.mss)
}

/// The options in form A's nine bits.
pub(crate) fn decode_wide(bits: u16, family: Family) -> Remembered {
    let wscale = bits >> 5 & 15;
    Remembered {
        mss: family.mss_wide()[usize::from(bits & 7)],
        wscale: (wscale != WSCALE_NONE).then_some(wscale as u8),
        sack: bits & 1 << 4 != 0,
    }
}

/// Form B's five bits of options: window scale step (2), SACK, MSS step (2).
pub(crate) fn encode_narrow(offer: &Offer, family: Family) -> u16 {
    let wscale = match offer.wscale {
        None => 0,
        Some(shift) => 1 + step_down(&WSCALE_NARROW.map(u16::from), u16::from(shift)),
    };
    wscale << 3 | u16::from(offer.sack) << 2 | step_down(&family.mss_narrow(), offer.mss)
}

/// The options in form B's five bits.
pub(crate) fn decode_narrow(bits: u16, family: Family) -> Remembered {
    let wscale = usize::from(bits >> 3 & 3);
    Remembered {
        mss: family.mss_narrow()[usize::from(bits & 3)],
        wscale: wscale.checked_sub(1).map(|step| WSCALE_NARROW[step]),
        sack: bits & 1 << 2 != 0,
    }
}

/// Index of the largest step that is not above `value`, or of the first.
fn step_down(steps: &[u16], value: u16) -> u16 {
    steps.iter().rposition(|&step| step <= value).unwrap_or(0) as u16
}

/// What a cookie gave back of the client's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The client's MSS, rounded down to the nearest step.
    pub mss: u16,
    /// The client's window scale: exact in form A, rounded down in form B.
    pub wscale: Option<u8>,
    /// SACK permitted.
    pub sack: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> impl Iterator<Item = Offer> {
        let wscales = std::iter::once(None).chain((0..=14).map(Some));
        wscales.flat_map(|wscale| {
            [0, 500, 536, 1220, 1439, 1440, 1460, 8960, 65495]
                .into_iter()
                .flat_map(move |mss| [false, true].map(|sack| Offer { mss, wscale, sack, tsval: None }))
        })
    }

    #[test]
    fn wide_keeps_scale_and_sack_and_rounds_mss_down() {
        for (offer, family) in offers().flat_map(|offer| [(offer, Family::V4), (offer, Family::V6)]) {
            let kept = decode_wide(encode_wide(&offer, family), family);
            assert_eq!((kept.wscale, kept.sack), (offer.wscale, offer.sack));
            assert!(kept.mss <= offer.mss.max(family.default_mss()), "{offer:?} became {kept:?}");
        }
    }

    #[test]
    fn narrow_keeps_sack_and_rounds_scale_and_mss_down() {
        for (offer, family) in offers().flat_map(|offer| [(offer, Family::V4), (offer, Family::V6)]) {
            let code = encode_narrow(&offer, family);
            assert!(code < 32);
            let kept = decode_narrow(code, family);
            assert_eq!(kept.sack, offer.sack);
            assert_eq!(kept.wscale.is_some(), offer.wscale.is_some());
            assert!(kept.wscale <= offer.wscale);
            assert!(kept.mss <= offer.mss.max(family.default_mss()));
        }
    }

    #[test]
    fn common_clients_lose_nothing_in_form_b() {
        let linux = Offer { mss: 1460, wscale: Some(7), sack: true, tsval: None };
        let kept = decode_narrow(encode_narrow(&linux, Family::V4), Family::V4);
        assert_eq!(kept, Remembered { mss: 1460, wscale: Some(7), sack: true });
    }
}
