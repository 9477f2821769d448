//! Frames that differ in what is random about them.
//!
//! `bpf/flood.bpf.c` makes the same frames of the same templates; a test compares the two.

/// Words of a frame; longer ones there are none.
pub const WORDS: usize = 16;
/// Words of a template as the eBPF program reads it.
pub const RAW_WORDS: usize = 2 * WORDS + 6;
/// The longest frame in bytes.
pub const FRAME_MAX: usize = 8 * WORDS;

const ETHERNET_LEN: usize = 14;
const IPV4_SUM: usize = ETHERNET_LEN + 10;
const IPV4_TCP: usize = ETHERNET_LEN + 20;
const IPV6_TCP: usize = ETHERNET_LEN + 40;
const TCP_SUM: usize = 16;
const PROTOCOL_TCP: u8 = 6;
/// Ports vary in so many bits, below one that is set.
pub const PORT_BITS: u32 = 15;
/// The source address varies in so many bits without repetition. Where more of an IPv6 address vary, the others are just random.
pub const HOST_BITS_MAX: u32 = 48;

/// A frame with zeros in what varies, and sums of what does not.
///
/// Words are little-endian, so the sums are too: the Internet checksum does not mind (RFC 1071 §2, "Byte Order Independence").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    words: [u64; WORDS],
    masks: [u64; WORDS],
    ip_sum: u64,
    tcp_sum: u64,
    host_bits: u32,
    port_bits: u32,
    len: usize,
    v6: bool,
}

/// What varies in a frame.
#[derive(Clone, Debug, Default)]
pub struct Varies {
    /// Bits of the source address, from the last.
    pub host_bits: u32,
    /// Whether the last 15 bits of the source port do.
    pub port: bool,
    /// Random bytes of the TCP header: offset and length.
    pub fields: Vec<(usize, usize)>,
}

impl Template {
    /// Of a frame that is an Ethernet frame with TCP in IP, without IP options, and whose length is 2 more than a multiple of 4; both
    /// checksums may have any value.
    ///
    /// # Panics
    /// When the frame is of another length or too long: frames are made here, not given by users.
    pub fn new(frame: &[u8], varies: &Varies) -> Template {
        assert!(frame.len() <= FRAME_MAX && frame.len() % 4 == 2, "a frame of {} bytes", frame.len());
        let v6 = frame[12..14] == [0x86, 0xdd];
        let tcp = tcp_at(v6);
        let mut bytes = [0; FRAME_MAX];
        bytes[..frame.len()].copy_from_slice(frame);
        let mut masks = [0; FRAME_MAX];
        varies.fields.iter().for_each(|&(at, len)| masks[tcp + at..][..len].fill(0xff));
        if v6 {
            mask_network(&mut masks, varies.host_bits);
        }
        bytes.iter_mut().zip(masks).for_each(|(byte, mask)| *byte &= !mask);
        bytes[tcp + TCP_SUM..][..2].fill(0);
        let ip_sum = if v6 {
            0
        } else {
            bytes[IPV4_SUM..IPV4_SUM + 2].fill(0);
            add(&bytes[ETHERNET_LEN..IPV4_TCP])
        };
        Template {
            words: words(&bytes),
            masks: words(&masks),
            ip_sum,
            tcp_sum: pseudo_header(&bytes[..tcp], v6, frame.len() - tcp) + add(&bytes[tcp..frame.len()]),
            host_bits: varies.host_bits.min(HOST_BITS_MAX),
            port_bits: if varies.port { PORT_BITS } else { 0 },
            len: frame.len(),
            v6,
        }
    }

    /// Length of the frame in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The frame of this number, and behind it zeros.
    #[inline]
    pub fn frame(&self, key: u64, number: u64) -> [u8; FRAME_MAX] {
        let mut bytes = [0; FRAME_MAX];
        let words = self.compose(key, number);
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As the eBPF program reads it.
    pub fn raw(&self) -> [u64; RAW_WORDS] {
        let mut raw = [0; RAW_WORDS];
        raw[..WORDS].copy_from_slice(&self.words);
        raw[WORDS..2 * WORDS].copy_from_slice(&self.masks);
        raw[2 * WORDS..].copy_from_slice(&[
            self.ip_sum,
            self.tcp_sum,
            u64::from(self.host_bits),
            u64::from(self.port_bits),
            self.len as u64,
            u64::from(self.v6),
        ]);
        raw
    }

    #[inline]
    fn compose(&self, key: u64, number: u64) -> [u64; WORDS] {
        let drawn = key.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut words, mut sum) = (self.words, self.tcp_sum);
        for (index, (word, mask)) in words.iter_mut().zip(self.masks).enumerate().filter(|(_, (_, mask))| *mask != 0) {
            let salt = (index as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95);
            let bits = mix(drawn.wrapping_add(salt)) & mask;
            *word |= bits;
            sum += halves(bits);
        }
        let who = self.source(key, number);
        let port = u64::from(((who & ones(self.port_bits)) as u16).swap_bytes());
        let host = who >> self.port_bits;
        if self.v6 {
            let host = host.swap_bytes() >> 16;
            words[4] |= host;
            words[6] |= port << 48;
            words[8] |= finish(sum + halves(host) + port) << 48;
        } else {
            let host = u64::from((host as u32).swap_bytes());
            words[3] |= host << 16 | finish(self.ip_sum + host);
            words[4] |= port << 16;
            words[6] |= finish(sum + host + port) << 16;
        }
        words
    }

    /// Goes through all sources before any comes again: each step has an inverse among numbers of so many bits.
    #[inline]
    fn source(&self, key: u64, number: u64) -> u64 {
        let bits = self.host_bits + self.port_bits;
        let mut x = number.wrapping_add(key) & ones(bits);
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ones(bits);
        x ^= x >> (bits / 2);
        x = x.wrapping_mul(0xd6e8_feb8_6659_fd93) & ones(bits);
        x ^ x >> (bits / 2)
    }
}

/// A key of a seed: neighbouring seeds have nothing in common.
pub fn key_of(seed: u64) -> u64 {
    mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The finaliser of splitmix64: one bit of input changes half of the output.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn ones(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The random bits of an IPv6 source that are beyond [`HOST_BITS_MAX`].
fn mask_network(masks: &mut [u8; FRAME_MAX], host_bits: u32) {
    const SRC: usize = ETHERNET_LEN + 8;
    let all = 1u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
    let mask = all & !u128::from(ones(HOST_BITS_MAX));
    masks[SRC..SRC + 16].copy_from_slice(&mask.to_be_bytes());
}

fn tcp_at(v6: bool) -> usize {
    if v6 { IPV6_TCP } else { IPV4_TCP }
}

fn words(bytes: &[u8; FRAME_MAX]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

/// The sum of what TCP's checksum covers beside the segment (RFC 9293 §3.1, RFC 8200 §8.1): both addresses, which end where TCP begins.
fn pseudo_header(headers: &[u8], v6: bool, tcp_len: usize) -> u64 {
    let addresses_len = if v6 { 32 } else { 8 };
    let [high, low] = (tcp_len as u16).to_be_bytes();
    add(&headers[headers.len() - addresses_len..]) + add(&[0, PROTOCOL_TCP, high, low])
}

fn add(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<2>().0.iter().map(|pair| u64::from(u16::from_le_bytes(*pair))).sum()
}

#[inline]
fn halves(x: u64) -> u64 {
    (x & 0xffff_ffff) + (x >> 32)
}

#[inline]
fn finish(sum: u64) -> u64 {
    let sum = halves(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !sum & 0xffff
}
