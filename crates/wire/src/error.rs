//! Why bytes were not a packet for us, or a segment could not be written.

use core::error::Error;
use core::fmt;

/// Why a frame gave no [`Packet`](crate::Packet).
///
/// All of these are the peer's doing, or simply not our business: count them, log none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The headers contradict themselves or the length of the packet.
    Malformed(Malformed),
    /// A checksum is wrong. Only with [`Checksums::Verify`](crate::Checksums::Verify).
    BadChecksum(ChecksumOf),
    /// Neither IPv4 nor IPv6 (or more than two VLAN tags).
    NotIp,
    /// IP, but not TCP.
    NotTcp,
    /// A fragment, the first one included (RFC 791 §3.2, RFC 8200 §4.5). An IPv6 "atomic fragment" (RFC 6946) is none.
    Fragment,
    /// The sender chose the way: IPv4 LSRR or SSRR, or an IPv6 routing header with segments left (RFC 5095).
    SourceRoute,
    /// An IPv6 extension header that is not ours to walk (AH, ESP, unknown), that asks to be discarded by who does not know
    /// it, or that is one too many.
    ExtensionHeader,
    /// The capture is too short to judge: a header is incomplete, or a checksum is wanted and bytes are missing.
    Truncated,
}

/// Which rule a malformed packet broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Ends inside its Ethernet header, VLAN tag or fixed IP header.
    TooShort,
    /// The IP version is not the one that the EtherType announced.
    Version,
    /// IPv4 header length below 5 words or beyond the total length.
    HeaderLength,
    /// IPv4 total length or IPv6 payload length beyond the packet, or a zero that no large GSO packet explains.
    IpLength,
    /// An IPv4 option whose length is below 2 or runs beyond the header.
    IpOption,
    /// An IPv6 extension header, or an option in it, runs beyond the packet.
    ExtensionLength,
    /// An IPv4-mapped address (`::ffff:0:0/96`) in an IPv6 header, where it stands for no host (RFC 4291 §2.5.5.2).
    MappedAddress,
    /// Fewer than 20 bytes of TCP.
    TcpLength,
    /// TCP data offset below 5 words or beyond the segment.
    DataOffset,
}

/// Which checksum did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumOf {
    /// The IPv4 header's own (RFC 791 §3.1).
    Ipv4Header,
    /// TCP's, with the pseudo-header (RFC 9293 §3.1).
    Tcp,
}

/// Why a segment could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmitError {
    /// The buffer is too small.
    BufferTooSmall {
        /// Bytes that the packet takes.
        needed_len: usize,
    },
    /// Longer than the IP length field can say: 65,535 bytes with the IPv4 header, without the IPv6 header.
    TooLong,
    /// One end of the tuple is IPv4, the other IPv6.
    MixedFamilies,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Malformed(what) => write!(f, "malformed packet: {what}"),
            ParseError::BadChecksum(whose) => write!(f, "bad {whose} checksum"),
            ParseError::NotIp => f.write_str("not IP"),
            ParseError::NotTcp => f.write_str("not TCP"),
            ParseError::Fragment => f.write_str("fragment"),
            ParseError::SourceRoute => f.write_str("source-routed packet"),
            ParseError::ExtensionHeader => f.write_str("IPv6 extension header that is not walked"),
            ParseError::Truncated => f.write_str("captured part too short"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::TooShort => "ends inside a header",
            Malformed::Version => "IP version contradicts the EtherType",
            Malformed::HeaderLength => "IPv4 header length",
            Malformed::IpLength => "IP length",
            Malformed::IpOption => "IPv4 option length",
            Malformed::ExtensionLength => "IPv6 extension header length",
            Malformed::MappedAddress => "IPv4-mapped address in an IPv6 header",
            Malformed::TcpLength => "ends inside the TCP header",
            Malformed::DataOffset => "TCP data offset",
        })
    }
}

impl fmt::Display for ChecksumOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChecksumOf::Ipv4Header => "IPv4 header",
            ChecksumOf::Tcp => "TCP",
        })
    }
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmitError::BufferTooSmall { needed_len } => {
                write!(f, "buffer too small: the packet takes {needed_len} bytes")
            }
            EmitError::TooLong => f.write_str("longer than an IP packet can be"),
            EmitError::MixedFamilies => f.write_str("one end is IPv4, the other IPv6"),
        }
    }
}

impl Error for ParseError {}
impl Error for EmitError {}
