//! IPv6 extension headers: a bounded walk to the TCP header.

use crate::capture::Capture;
use crate::error::{Malformed, ParseError};
use crate::ip::TCP;

/// Skips the extension headers between the IPv6 header and TCP.
///
/// RFC 8200 §4.1: "IPv6 nodes must accept and attempt to process extension headers in any order and occurring any number of
/// times in the same packet, except for the Hop-by-Hop Options header". Here "any number" ends at [`HEADERS_MAX`]: a sender
/// must not choose how long we work.
#[inline]
pub(crate) fn skip(first: u8, payload: Capture<'_>) -> Result<Capture<'_>, ParseError> {
    if first == TCP { Ok(payload) } else { walk(first, payload) }
}

fn walk(first: u8, payload: Capture<'_>) -> Result<Capture<'_>, ParseError> {
    let jumbo_len = payload.wire_len();
    let (mut next, mut rest) = match first {
        HOP_BY_HOP => skip_options(payload, Some(jumbo_len))?,
        _ => (first, payload),
    };
    let mut walked_count = usize::from(first == HOP_BY_HOP);
    while next != TCP {
        if walked_count == HEADERS_MAX {
            return Err(ParseError::ExtensionHeader);
        }
        (next, rest) = step(next, rest)?;
        walked_count += 1;
    }
    Ok(rest)
}

/// Skips one header that is not hop-by-hop; returns the next header's number and what lies behind.
fn step(kind: u8, at: Capture<'_>) -> Result<(u8, Capture<'_>), ParseError> {
    match kind {
        DESTINATION_OPTIONS => skip_options(at, None),
        ROUTING => skip_routing(at),
        FRAGMENT => skip_atomic_fragment(at),
        // RFC 8200 §4: an unrecognized header discards the packet, and "the same action should be taken if a node
        // encounters a Next Header value of zero in any header other than an IPv6 header."
        HOP_BY_HOP | ESP | AH | MOBILITY | HIP | SHIM6 | EXPERIMENT_1 | EXPERIMENT_2 => {
            Err(ParseError::ExtensionHeader)
        }
        _ => Err(ParseError::NotTcp),
    }
}

/// RFC 8200 §4.3 and §4.6. `jumbo_len` is the payload length a jumbogram's option must state; `None` where none may stand.
fn skip_options(at: Capture<'_>, jumbo_len: Option<usize>) -> Result<(u8, Capture<'_>), ParseError> {
    let (next, header, rest) = split_header(at)?;
    let (_, mut options) = header.split_at_checked(2).unwrap_or_default();
    for _ in 0..OPTIONS_MAX {
        let Some(kind) = options.first() else { return Ok((next, rest)) };
        let (option, behind) = split_option(*kind, options).ok_or(ParseError::Malformed(Malformed::ExtensionLength))?;
        if !may_skip(*kind, option, jumbo_len) {
            return Err(ParseError::ExtensionHeader);
        }
        options = behind;
    }
    if options.is_empty() { Ok((next, rest)) } else { Err(ParseError::ExtensionHeader) }
}

fn split_option(kind: u8, options: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = if kind == OPTION_PAD1 { 1 } else { 2 + usize::from(*options.get(1)?) };
    options.split_at_checked(len)
}

/// RFC 8200 §4.2: the two highest bits say what becomes of a packet whose receiver does not know the option; 00 skips it.
///
/// The jumbo payload option (RFC 2675 §2) demands more, but all it says is a length, which the frame has told already.
fn may_skip(kind: u8, option: &[u8], jumbo_len: Option<usize>) -> bool {
    match (kind, option) {
        (OPTION_JUMBO, &[_, 4, l0, l1, l2, l3]) => {
            let stated = u32::from_be_bytes([l0, l1, l2, l3]);
            stated > u32::from(u16::MAX) && usize::try_from(stated).ok() == jumbo_len
        }
        _ => kind & OPTION_ACTION_BITS == 0,
    }
}

/// RFC 8200 §4.4: with no segments left the header is ignored, whatever its type. With segments left we are not where the
/// packet is going: type 0 is an amplifier (RFC 5095), and forwarding is not our trade.
fn skip_routing(at: Capture<'_>) -> Result<(u8, Capture<'_>), ParseError> {
    let (next, header, rest) = split_header(at)?;
    match header {
        [_, _, _, 0, ..] => Ok((next, rest)),
        _ => Err(ParseError::SourceRoute),
    }
}

/// RFC 6946 §4: a fragment that is first and last at once is processed apart from all others, so it can be walked over.
fn skip_atomic_fragment(at: Capture<'_>) -> Result<(u8, Capture<'_>), ParseError> {
    let (&[next, _, o0, o1, ..], rest) = at.take::<8>(Malformed::ExtensionLength)?;
    if u16::from_be_bytes([o0, o1]) & OFFSET_OR_MORE_FRAGMENTS != 0 {
        return Err(ParseError::Fragment);
    }
    Ok((next, rest))
}

/// A header that states its length in units of 8 bytes, not counting the first.
fn split_header(at: Capture<'_>) -> Result<(u8, &[u8], Capture<'_>), ParseError> {
    let &[next, len] = at.peek::<2>(Malformed::ExtensionLength)?;
    let (header, rest) = at.split((usize::from(len) + 1) * 8, Malformed::ExtensionLength)?;
    Ok((next, header, rest))
}

/// The order that RFC 8200 §4.1 recommends has five headers of those we walk; nobody is known to need more.
const HEADERS_MAX: usize = 8;
/// Options in one header, padding included: without a bound a header could hold 2,046 of them. RFC 8504 §5.3 permits one.
const OPTIONS_MAX: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;
const EXPERIMENT_1: u8 = 253;
const EXPERIMENT_2: u8 = 254;

const OPTION_PAD1: u8 = 0;
const OPTION_JUMBO: u8 = 0xc2;
const OPTION_ACTION_BITS: u8 = 0xc0;

const OFFSET_OR_MORE_FRAGMENTS: u16 = 0xfff9;
