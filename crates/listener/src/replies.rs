//! The segments a listener sends: SYN-ACK, RST and the ACKs around a handshake.

use wire::{Flags, FourTuple, Reply, ReplyOptions, Segment, SeqNum, TimestampOption};

use crate::accepted::Accepted;
use crate::cookie::{Cookie, Family, Offer};
use crate::young::Header;

/// The window in a SYN-ACK, in bytes: the largest that needs no scaling, which a SYN-ACK never has (RFC 7323 §2.2).
pub(crate) const WINDOW: u16 = u16::MAX;

/// The SYN-ACK for a SYN: never more options than the client offered, except the MSS, which every SYN has to name.
pub(crate) fn syn_ack(
    tuple: &FourTuple,
    irs: SeqNum,
    cookie: &Cookie,
    offer: &Offer,
    window_scale: u8,
    mtu: u32,
) -> Reply {
    Reply {
        tuple: *tuple,
        seq: cookie.isn,
        ack: irs + 1,
        // RFC 3168 §6.1.1: no ECE, because an adopted socket could not do ECN.
        flags: Flags::SYN | Flags::ACK,
        window: WINDOW,
        options: ReplyOptions {
            mss: Some(mss_for(mtu, Family::of(tuple.local.addr))),
            wscale: offer.wscale.map(|_| window_scale),
            sack_permitted: offer.sack,
            timestamps: cookie.tsval.map(|tsval| TimestampOption { tsval, tsecr: offer.tsval.unwrap_or(0) }),
        },
    }
}

/// RFC 9293 §3.7.1: the MTU less the fixed headers, whatever options there will be.
pub(crate) fn mss_for(mtu: u32, family: Family) -> u16 {
    let mss = mtu.saturating_sub(u32::from(family.header_len())).max(u32::from(family.default_mss()));
    u16::try_from(mss).unwrap_or(u16::MAX)
}

/// RFC 9293 §3.10.7.2: "<SEQ=SEG.ACK><CTL=RST>".
pub(crate) fn reset(tuple: &FourTuple, seq: SeqNum) -> Reply {
    plain(tuple, seq, SeqNum::new(0), Flags::RST, 0, None)
}

/// RFC 9293 §3.10.7.1: "<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>", in answer to a segment without ACK.
pub(crate) fn refusal(tuple: &FourTuple, segment: &Segment<'_>) -> Reply {
    plain(tuple, SeqNum::new(0), segment.seq + segment.seg_len(), Flags::RST | Flags::ACK, 0, None)
}

/// RFC 5961 §3.2 and §4.2: "<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>", from SYN-RECEIVED.
pub(crate) fn challenge_ack(
    tuple: &FourTuple,
    iss: SeqNum,
    irs: SeqNum,
    window: u16,
    timestamps: Option<TimestampOption>,
) -> Reply {
    plain(tuple, iss + 1, irs + 1, Flags::ACK, window, timestamps)
}

/// Acknowledges `bytes` that came right behind the handshake and are in the socket now.
///
/// The kernel does not: it did not see the segments that carried them.
pub(crate) fn early_ack(accepted: &Accepted, bytes: u32) -> Reply {
    let options = &accepted.options;
    let window = accepted.local_window.saturating_sub(bytes) >> options.local_wscale.unwrap_or(0);
    let timestamps = options.timestamps.map(|ts| TimestampOption { tsval: ts.local, tsecr: ts.peer });
    let window = u16::try_from(window).unwrap_or(u16::MAX);
    plain(&accepted.tuple, accepted.iss + 1, accepted.irs + 1 + bytes, Flags::ACK, window, timestamps)
}

/// A segment of the client's once more, without its data: from the peer to us.
pub(crate) fn repeated(tuple: &FourTuple, flags: Flags, header: &Header) -> Reply {
    let reversed = FourTuple { local: tuple.peer, peer: tuple.local };
    plain(&reversed, header.seq, header.ack, flags, header.window, header.timestamps)
}

fn plain(
    tuple: &FourTuple,
    seq: SeqNum,
    ack: SeqNum,
    flags: Flags,
    window: u16,
    timestamps: Option<TimestampOption>,
) -> Reply {
    Reply { tuple: *tuple, seq, ack, flags, window, options: ReplyOptions { timestamps, ..ReplyOptions::default() } }
}
