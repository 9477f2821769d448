//! Writing TCP/IP packets: each word is stored and summed in one go, so that nothing just stored is read back.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::error::EmitError;
use crate::flags::Flags;
use crate::flow_label::flow_label;
use crate::ip::TCP;
use crate::seq::SeqNum;
use crate::tuple::FourTuple;

/// The fields of an outgoing packet that are not options or data.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) tuple: FourTuple,
    pub(crate) hop_limit: u8,
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
}

/// TCP options on their way out.
pub(crate) trait WriteOptions {
    /// Header words that [`write`](WriteOptions::write) will write, at most 10.
    fn word_count(&self) -> usize;
    fn write(&self, out: &mut Writer<'_>);
}

/// Stores header words and sums them.
pub(crate) struct Writer<'b> {
    rest: &'b mut [u8],
    sum: Sum,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buf: &'b mut [u8]) -> Writer<'b> {
        Writer { rest: buf, sum: Sum::new() }
    }

    /// Writes one word, most significant byte first.
    #[inline]
    pub(crate) fn word(&mut self, word: u32) {
        self.sum = self.sum.word(word);
        if let Some(to) = self.reserve() {
            *to = word.to_be_bytes();
        }
    }

    /// Leaves room for a word that is known only at the end. It counts as zero in the sum.
    #[inline]
    fn reserve(&mut self) -> Option<&'b mut [u8; 4]> {
        let (word, rest) = core::mem::take(&mut self.rest).split_first_chunk_mut()?;
        self.rest = rest;
        Some(word)
    }

    /// Writes the data, to the end of the packet.
    #[inline]
    fn payload(&mut self, payload: &[u8]) {
        self.sum = self.sum.bytes(payload);
        for (to, from) in self.rest.iter_mut().zip(payload) {
            *to = *from;
        }
    }
}

/// Writes an IP packet to the start of `buf` and returns its length. On an error `buf` is unchanged.
#[inline]
pub(crate) fn emit(
    header: &Header,
    options: &impl WriteOptions,
    payload: &[u8],
    buf: &mut [u8],
) -> Result<usize, EmitError> {
    let tcp_len = TCP_FIXED_LEN + options.word_count() * 4 + payload.len();
    let (packet_len, mut out) = match (header.tuple.local.addr, header.tuple.peer.addr) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total_len = u16::try_from(IPV4_LEN + tcp_len).map_err(|_| EmitError::TooLong)?;
            let mut out = writer(buf, total_len.into())?;
            write_v4(&mut out, source, destination, total_len, header.hop_limit);
            (total_len.into(), out)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload_len = u16::try_from(tcp_len).map_err(|_| EmitError::TooLong)?;
            let packet_len = IPV6_LEN + tcp_len;
            let mut out = writer(buf, packet_len)?;
            let flow = flow_label(source, destination, ports(header.tuple));
            write_v6(&mut out, source, destination, payload_len, header.hop_limit, flow);
            (packet_len, out)
        }
        _ => return Err(EmitError::MixedFamilies),
    };
    out.sum = Sum::pseudo_header(header.tuple.local.addr, header.tuple.peer.addr, tcp_len as u32);
    write_tcp(&mut out, header, options, payload);
    Ok(packet_len)
}

#[inline]
fn writer(buf: &mut [u8], packet_len: usize) -> Result<Writer<'_>, EmitError> {
    let buf = buf.get_mut(..packet_len).ok_or(EmitError::BufferTooSmall { needed_len: packet_len })?;
    Ok(Writer::new(buf))
}

/// RFC 791 §3.1: TOS 0, DF, no options. RFC 6864 §4.1: a datagram that is never fragmented needs no ID.
#[inline]
fn write_v4(out: &mut Writer<'_>, source: Ipv4Addr, destination: Ipv4Addr, total_len: u16, ttl: u8) {
    out.word(0x4500 << 16 | u32::from(total_len));
    out.word(IPV4_DONT_FRAGMENT);
    let checksummed = out.reserve();
    let ttl_protocol = u32::from_be_bytes([ttl, TCP, 0, 0]);
    out.word(source.to_bits());
    out.word(destination.to_bits());
    if let Some(to) = checksummed {
        *to = (ttl_protocol | u32::from(out.sum.word(ttl_protocol).finish())).to_be_bytes();
    }
}

/// RFC 8200 §3: traffic class 0, no extension headers.
#[inline]
fn write_v6(
    out: &mut Writer<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    payload_len: u16,
    hop_limit: u8,
    flow_label: u32,
) {
    out.word(6 << 28 | flow_label);
    out.word(u32::from(payload_len) << 16 | u32::from_be_bytes([0, 0, TCP, hop_limit]));
    for address in [source, destination] {
        let bits = address.to_bits();
        for shift in [96, 64, 32, 0] {
            out.word((bits >> shift) as u32);
        }
    }
}

/// RFC 9293 §3.1: urgent pointer 0. `out` has summed the pseudo-header.
#[inline]
fn write_tcp(out: &mut Writer<'_>, header: &Header, options: &impl WriteOptions, payload: &[u8]) {
    let offset_words = (TCP_FIXED_LEN / 4 + options.word_count()) as u32;
    out.word(ports(header.tuple));
    out.word(header.seq.value());
    out.word(header.ack.value());
    out.word(offset_words << 28 | u32::from(header.flags.bits()) << 16 | u32::from(header.window));
    let checksum = out.reserve();
    options.write(out);
    out.payload(payload);
    if let Some(to) = checksum {
        *to = (u32::from(out.sum.finish()) << 16).to_be_bytes();
    }
}

#[inline]
fn ports(tuple: FourTuple) -> u32 {
    u32::from(tuple.local.port) << 16 | u32::from(tuple.peer.port)
}

pub(crate) const IPV4_LEN: usize = 20;
pub(crate) const IPV6_LEN: usize = 40;
pub(crate) const TCP_FIXED_LEN: usize = 20;

/// Identification 0, flag DF, offset 0.
const IPV4_DONT_FRAGMENT: u32 = 0x4000;
