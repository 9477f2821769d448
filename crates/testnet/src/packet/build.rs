//! Writing segments, well-formed by default and as odd as asked.

use std::net::{IpAddr, SocketAddr};

use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Flags, Mac, PROTOCOL_TCP};
use crate::checksum;

/// What to write into the TCP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right sum.
    Right,
    /// The right sum with one bit flipped.
    Wrong,
}

/// A TCP segment to be sent, with all that surrounds it.
///
/// Each method changes one thing and returns the segment. Nothing is checked: odd packets are the point.
#[derive(Clone, Debug)]
pub struct Segment {
    src: SocketAddr,
    dst: SocketAddr,
    flags: Flags,
    seq: u32,
    ack: u32,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
    checksum: Checksum,
    data_offset: Option<u8>,
    ip_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    vlan: Option<u16>,
    dst_mac: Option<Mac>,
    frame_len_min: usize,
}

impl Segment {
    /// A segment without options or payload, with sequence number 0 and a window of 65535.
    ///
    /// # Panics
    /// When the addresses are of two families.
    pub fn new(src: SocketAddr, dst: SocketAddr, flags: Flags) -> Segment {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "{src} and {dst} are of two families");
        Segment {
            src,
            dst,
            flags,
            seq: 0,
            ack: 0,
            window: u16::MAX,
            options: Vec::new(),
            payload: Vec::new(),
            checksum: Checksum::Right,
            data_offset: None,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            vlan: None,
            dst_mac: None,
            frame_len_min: 0,
        }
    }

    /// The control bits.
    pub fn flags(mut self, flags: Flags) -> Segment {
        self.flags = flags;
        self
    }

    /// The sequence number.
    pub fn seq(mut self, seq: u32) -> Segment {
        self.seq = seq;
        self
    }

    /// The acknowledgment number.
    pub fn ack(mut self, ack: u32) -> Segment {
        self.ack = ack;
        self
    }

    /// The window field, as it stands in the header.
    pub fn window(mut self, window: u16) -> Segment {
        self.window = window;
        self
    }

    /// The option bytes; zero bytes fill the last word. See [`options`].
    pub fn options(mut self, bytes: Vec<u8>) -> Segment {
        self.options = bytes;
        self
    }

    /// The payload.
    pub fn payload(mut self, bytes: &[u8]) -> Segment {
        self.payload = bytes.to_vec();
        self
    }

    /// Another TCP checksum than the right one.
    pub fn checksum(mut self, checksum: Checksum) -> Segment {
        self.checksum = checksum;
        self
    }

    /// A data offset in words that may contradict the header's real length.
    pub fn data_offset(mut self, words: u8) -> Segment {
        self.data_offset = Some(words);
        self
    }

    /// IPv4 option bytes; zero bytes fill the last word.
    pub fn ip_options(mut self, bytes: Vec<u8>) -> Segment {
        self.ip_options = bytes;
        self
    }

    /// Adds an IPv6 extension header: its number, and its bytes behind the length field (6, 14, 22, ... of them).
    pub fn extension(mut self, number: u8, body: Vec<u8>) -> Segment {
        self.extensions.push((number, body));
        self
    }

    /// An 802.1Q tag with this tag control information (priority and VLAN number).
    pub fn vlan(mut self, tci: u16) -> Segment {
        self.vlan = Some(tci);
        self
    }

    /// A destination Ethernet address other than the neighbour's.
    pub fn dst_mac(mut self, mac: Mac) -> Segment {
        self.dst_mac = Some(mac);
        self
    }

    /// Ethernet padding up to this frame length in bytes. The padding is not zero: some hardware leaks old bytes.
    pub fn pad_to(mut self, frame_len: usize) -> Segment {
        self.frame_len_min = frame_len;
        self
    }

    /// The Ethernet frame.
    pub fn frame(&self, src_mac: Mac, dst_mac: Mac) -> Vec<u8> {
        let mut frame = self.link_header(src_mac, dst_mac);
        frame.extend(self.packet());
        self.pad(frame)
    }

    /// The IP packet, for a device without a link layer.
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = self.ip_header(self.tcp_len(), 0);
        packet.extend(self.tcp());
        packet
    }

    /// The Ethernet frames of the IPv4 packet cut into fragments that carry `body_len` bytes each.
    ///
    /// # Panics
    /// When `body_len` is no multiple of 8, or the packet is IPv6.
    pub fn fragments(&self, src_mac: Mac, dst_mac: Mac, body_len: usize) -> Vec<Vec<u8>> {
        assert!(body_len.is_multiple_of(8) && self.src.is_ipv4());
        let tcp = self.tcp();
        let fragment = |(index, body): (usize, &[u8])| {
            let offset = index * body_len;
            let more = offset + body.len() < tcp.len();
            let mut frame = self.link_header(src_mac, dst_mac);
            frame.extend(self.ip_header(body.len(), (offset / 8) as u16 | u16::from(more) << 13));
            frame.extend(body);
            self.pad(frame)
        };
        tcp.chunks(body_len).enumerate().map(fragment).collect()
    }

    fn link_header(&self, src_mac: Mac, dst_mac: Mac) -> Vec<u8> {
        let mut header = Vec::with_capacity(128 + self.payload.len());
        header.extend(self.dst_mac.unwrap_or(dst_mac).0);
        header.extend(src_mac.0);
        if let Some(tci) = self.vlan {
            header.extend(ETHERTYPE_VLAN.to_be_bytes());
            header.extend(tci.to_be_bytes());
        }
        header.extend(if self.src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }.to_be_bytes());
        header
    }

    fn pad(&self, mut frame: Vec<u8>) -> Vec<u8> {
        frame.resize(frame.len().max(self.frame_len_min), 0xa5);
        frame
    }

    fn ip_header(&self, body_len: usize, fragment: u16) -> Vec<u8> {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let options = padded_to_words(&self.ip_options);
                let header_len = 20 + options.len();
                let mut header = vec![0x40 | (header_len / 4) as u8, 0];
                header.extend(((header_len + body_len) as u16).to_be_bytes());
                header.extend(0x1234u16.to_be_bytes());
                header.extend(fragment.to_be_bytes());
                header.extend([64, PROTOCOL_TCP, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(options);
                let sum = checksum::finish(checksum::add(0, &header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let extensions = self.extension_headers();
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(((extensions.len() + body_len) as u16).to_be_bytes());
                header.extend([self.extensions.first().map_or(PROTOCOL_TCP, |(number, _)| *number), 64]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(extensions);
                header
            }
            _ => unreachable!("new() refuses two families"),
        }
    }

    fn extension_headers(&self) -> Vec<u8> {
        let next = self.extensions.iter().skip(1).map(|(number, _)| *number).chain([PROTOCOL_TCP]);
        let mut headers = Vec::new();
        for ((_, body), next) in self.extensions.iter().zip(next) {
            headers.extend([next, ((body.len() + 2) / 8 - 1) as u8]);
            headers.extend(body);
        }
        headers
    }

    fn tcp_len(&self) -> usize {
        20 + self.options.len().next_multiple_of(4) + self.payload.len()
    }

    fn tcp(&self) -> Vec<u8> {
        let options = padded_to_words(&self.options);
        let words = self.data_offset.unwrap_or((5 + options.len() / 4) as u8);
        let mut tcp = Vec::with_capacity(self.tcp_len());
        tcp.extend(self.src.port().to_be_bytes());
        tcp.extend(self.dst.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([words << 4, self.flags.0]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let right = checksum::finish(checksum::add(pseudo_header(self.src.ip(), self.dst.ip(), tcp.len()), &tcp));
        let sum = if self.checksum == Checksum::Right { right } else { right ^ 1 };
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }
}

/// The sum of what TCP's checksum covers beside the segment (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, tcp_len: usize) -> u64 {
    let address = |sum, address| match address {
        IpAddr::V4(v4) => checksum::add(sum, &v4.octets()),
        IpAddr::V6(v6) => checksum::add(sum, &v6.octets()),
    };
    address(address(tcp_len as u64 + u64::from(PROTOCOL_TCP), src), dst)
}

fn padded_to_words(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// TCP options as bytes, to be joined in any order.
pub mod options {
    /// No-operation: one byte of filling.
    pub const NOP: [u8; 1] = [1];
    /// SACK-permitted (RFC 2018 §2).
    pub const SACK_PERMITTED: [u8; 2] = [4, 2];

    /// Maximum segment size in bytes (RFC 9293 §3.7.1).
    pub fn mss(bytes: u16) -> [u8; 4] {
        let [high, low] = bytes.to_be_bytes();
        [2, 4, high, low]
    }

    /// Window scale (RFC 7323 §2.2).
    pub fn wscale(shift: u8) -> [u8; 3] {
        [3, 3, shift]
    }

    /// Timestamps (RFC 7323 §3.2).
    pub fn timestamps(value: u32, echo: u32) -> [u8; 10] {
        let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo.to_be_bytes());
        [8, 10, a, b, c, d, e, f, g, h]
    }

    /// What Linux sends in a SYN: MSS, SACK-permitted, timestamps, window scale 7.
    pub fn typical_syn(mss_bytes: u16, timestamp: u32) -> Vec<u8> {
        [&mss(mss_bytes)[..], &SACK_PERMITTED, &timestamps(timestamp, 0), &NOP, &wscale(7)].concat()
    }
}
