//! Frames that no stack would send.

use std::net::IpAddr;

use wire::Sum;

pub(super) const IP: usize = 14;

/// Where the segment begins in a frame without IP options or extension headers.
pub(super) fn tcp_at(frame: &[u8]) -> usize {
    IP + if is_v4(frame) { 20 } else { 40 }
}

pub(super) fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0]
}

/// Length of header and data by the IP header.
fn tcp_len(frame: &[u8]) -> usize {
    let field = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if is_v4(frame) { field(IP + 2).saturating_sub(20) } else { field(IP + 4) }
}

/// Sets the IP header's length, so that it says `tcp_len` bytes of TCP.
pub(super) fn set_tcp_len(frame: &mut [u8], tcp_len: u16) {
    let (at, len) = if is_v4(frame) { (IP + 2, tcp_len + 20) } else { (IP + 4, tcp_len) };
    frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
}

pub(super) fn set_data_offset(frame: &mut [u8], words: u8) {
    let at = tcp_at(frame) + 12;
    frame[at] = words << 4 | frame[at] & 15;
}

/// The sum over the pseudo-header.
fn pseudo_header(frame: &[u8]) -> Sum {
    let addr = |at: usize| match is_v4(frame) {
        true => IpAddr::from(<[u8; 4]>::try_from(&frame[IP + 12 + 4 * at..][..4]).unwrap()),
        false => IpAddr::from(<[u8; 16]>::try_from(&frame[IP + 8 + 16 * at..][..16]).unwrap()),
    };
    Sum::pseudo_header(addr(0), addr(1), tcp_len(frame) as u32)
}

/// Puts both sums right, as far as the frame goes.
pub(super) fn finish_sums(frame: &mut [u8]) {
    finish_ip_sum(frame);
    let at = tcp_at(frame);
    let end = frame.len().min(at + tcp_len(frame));
    frame[at + 16..at + 18].fill(0);
    let sum = pseudo_header(frame).bytes(&frame[at..end.max(at)]).finish();
    frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn finish_ip_sum(frame: &mut [u8]) {
    if is_v4(frame) {
        frame[IP + 10..IP + 12].fill(0);
        let len = 4 * usize::from(frame[IP] & 15);
        let sum = Sum::new().bytes(&frame[IP..IP + len]).finish();
        frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a stack leaves in the sum's place for a device to finish: the pseudo-header's.
pub(super) fn unfinished_sum(frame: &[u8]) -> [u8; 2] {
    (!pseudo_header(frame).finish()).to_be_bytes()
}

/// A change of a frame, the sums put right after it.
pub(super) fn with(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    finish_sums(&mut frame);
    frame
}

/// A change of a frame, the sums left as they were.
pub(super) fn damaged(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    frame
}

/// The frame with bytes put in between its IP header and the segment, and the IP header's length to match.
pub(super) fn between(frame: &[u8], inserted: &[u8]) -> Vec<u8> {
    let at = tcp_at(frame);
    let mut longer = [&frame[..at], inserted, &frame[at..]].concat();
    let len = tcp_len(frame) + inserted.len();
    set_tcp_len(&mut longer, len as u16);
    finish_ip_sum(&mut longer);
    longer
}
