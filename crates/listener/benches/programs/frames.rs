//! The packets.

use std::net::SocketAddr;

use wire::{Endpoint, Flags, FourTuple, OptionBlock, OutgoingSegment, SeqNum};

/// The kernel runs the programs as if the frames had come in by the loopback device, whose address this is.
pub const MAC: [u8; 6] = [0; 6];

/// Option blocks of SYNs, as the systems send them.
pub const LAYOUTS: [(&str, &[u8]); 7] = [
    ("Linux", &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0, 1, 3, 3, 8]),
    ("Windows", &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2]),
    ("macOS", &[2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0, 4, 2, 0, 0]),
    ("FreeBSD", &[2, 4, 5, 180, 1, 3, 3, 6, 4, 2, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0]),
    ("OpenBSD", &[2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0]),
    ("MSS alone", &[2, 4, 5, 180]),
    // Nothing begins at a word: read byte by byte, and as long as a block can be.
    (
        "odd",
        &[
            1, 2, 4, 5, 180, 3, 3, 7, 4, 2, 1, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 0,
        ],
    ),
];

/// Of a segment of an established connection: timestamps alone.
pub const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 19, 136, 0x12, 0x34, 0x56, 0x78];

/// A frame, and what of it is to be another for each run.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// Offsets of 16-bit fields: the same random number is combined with each by exclusive or. Empty: each run has the same frame.
    pub varied: Vec<usize>,
}

impl Frame {
    /// The same, for the device with this address.
    pub fn to(mut self, mac: [u8; 6]) -> Frame {
        self.bytes[..6].copy_from_slice(&mac);
        self
    }
}

/// A segment from `peer` to `local`.
pub fn segment(local: SocketAddr, peer: SocketAddr, flags: Flags, options: &[u8]) -> Frame {
    let segment = OutgoingSegment {
        tuple: FourTuple { local: Endpoint::from(peer), peer: Endpoint::from(local) },
        hop_limit: 64,
        seq: SeqNum::new(0x1234_5678),
        ack: SeqNum::new(0x9abc_def0),
        flags,
        window: 64_240,
        options: OptionBlock::from_bytes(options).expect("at most 40 bytes"),
        payload: &[],
    };
    let mut buffer = [0; 256];
    let len = segment.emit(&mut buffer).expect("room for it");
    let ethertype: [u8; 2] = if local.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
    Frame { bytes: [&MAC[..], &[2, 0, 0, 0, 0, 2], &ethertype, &buffer[..len]].concat(), varied: Vec::new() }
}

/// A SYN from a source whose last 16 bits are random, so that what depends on the source is another thing each time.
///
/// The sums stay right: where the source gets a number, the IPv4 identification and half of the sequence number get its complement.
pub fn syn_from_anywhere(local: SocketAddr, peer: SocketAddr, options: &[u8]) -> Frame {
    let mut frame = segment(local, peer, Flags::SYN, options);
    let (source, complements, seq) = if local.is_ipv4() { (28, &[18, 40][..], 40) } else { (36, &[60][..], 60) };
    assert_eq!(frame.bytes[source..source + 2], [0, 0], "host bits of the peer");
    for &at in complements {
        let before = u16::from_be_bytes([frame.bytes[at], frame.bytes[at + 1]]);
        frame.bytes[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        // RFC 1624, equation 3, in the sums that this field is part of.
        let sum = if at == seq { seq + 12 } else { 24 };
        let old = u16::from_be_bytes([frame.bytes[sum], frame.bytes[sum + 1]]);
        let new = u32::from(!old) + u32::from(!before) + 0xffff;
        let folded = (new & 0xffff) + (new >> 16);
        let check = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame.bytes[sum..sum + 2].copy_from_slice(&check.to_be_bytes());
    }
    frame.varied = [&[source], complements].concat();
    frame
}
