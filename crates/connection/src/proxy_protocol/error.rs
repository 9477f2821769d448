//! What can be wrong with a header.

use std::io;

use thiserror::Error;

/// Why no header was read. All but [`HeaderError::Io`] are faults of the peer: to be counted, not logged one by one.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The connection failed, or ended within the header (`UnexpectedEof`).
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
    /// The first bytes are those of neither version: what came is no header.
    #[error("no PROXY header: it begins with \"PROXY \" or the signature of version 2")]
    Signature,
    /// A line of version 1 that is not as §2.1 wants it.
    #[error("PROXY header, version 1: {0}")]
    Line(LineFault),
    /// The version in a header with the signature of version 2.
    #[error("PROXY header: version {0}; legal: 2")]
    Version(u8),
    /// The command of a header of version 2.
    #[error("PROXY header, version 2: command {0}; legal: 0 (LOCAL), 1 (PROXY)")]
    Command(u8),
    /// The family and transport of a header of version 2, which "must be rejected as invalid by receivers" when unknown (§2.2).
    #[error("PROXY header, version 2: family and transport {0:#04x}; legal: 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32")]
    Family(u8),
    /// The length of a header of version 2, beyond what is read.
    #[error("PROXY header, version 2: {0} bytes behind the first 16; legal: at most 520")]
    Length(u16),
    /// The length of a header of version 2 that leaves too little room for its addresses.
    #[error("PROXY header, version 2: {len} bytes for addresses of {needed}")]
    Addresses {
        /// Bytes behind the fixed part.
        len: usize,
        /// Bytes that addresses of this family take.
        needed: usize,
    },
    /// The TLVs of a header of version 2 do not fill it exactly.
    #[error("PROXY header, version 2: a TLV reaches beyond the header")]
    Tlv,
    /// The checksum of a header of version 2 is not that of its bytes.
    #[error("PROXY header, version 2: wrong checksum")]
    Checksum,
}

/// What is wrong with a line of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineFault {
    /// No end within the longest legal line.
    #[error("no CRLF within 107 bytes")]
    TooLong,
    /// CR without LF, or LF without CR.
    #[error("CR or LF alone")]
    LineEnd,
    /// Not TCP4, TCP6 or UNKNOWN.
    #[error("unknown protocol; legal: TCP4, TCP6, UNKNOWN")]
    Protocol,
    /// Not two addresses and two ports, with one space in front of each.
    #[error("not exactly two addresses and two ports, each after one space")]
    Fields,
    /// An address that is none of the line's protocol.
    #[error("malformed address")]
    Address,
    /// A port that is none.
    #[error("malformed port; legal: 0 to 65535, in decimal, without leading zeros")]
    Port,
}

impl From<LineFault> for HeaderError {
    fn from(fault: LineFault) -> HeaderError {
        HeaderError::Line(fault)
    }
}
