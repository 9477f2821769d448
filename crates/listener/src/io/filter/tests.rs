use std::net::SocketAddr;

use libc::sock_filter;
use wire::{Endpoint, Flags, FourTuple, REPLY_MAX_LEN, Reply, ReplyOptions, SeqNum};

use super::super::classic::JA;
use super::*;

/// What the kernel would do: a classic BPF machine for the instructions used here.
fn run(program: &[sock_filter], packet: &[u8], len: u32) -> u32 {
    let (mut a, mut x, mut at, mut memory) = (0u32, 0u32, 0usize, [None; 16]);
    let load = |offset: usize, size: usize| -> Option<u32> {
        let bytes = packet.get(offset..offset + size)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |hit: bool| usize::from(if hit { jt } else { jf });
        let loaded = match code {
            LD_ABS => load(k as usize, 4),
            LDH_ABS => load(k as usize, 2),
            LDB_ABS => load(k as usize, 1),
            LDH_IND => load((x + k) as usize, 2),
            LDB_IND => load((x + k) as usize, 1),
            LD_IND => load((x + k) as usize, 4),
            LD_LEN => Some(len),
            LD_IMM => Some(k),
            ADD_X => Some(a.wrapping_add(x)),
            MUL => Some(a.wrapping_mul(k)),
            RSH => Some(a >> k),
            AND => Some(a & k),
            TXA => Some(x),
            _ => {
                match code {
                    LDX_IHL => x = 4 * (load(k as usize, 1).unwrap() & 15),
                    LDX_MEM => x = memory[k as usize].expect("stored before"),
                    ST => memory[k as usize] = Some(a),
                    TAX => x = a,
                    JA => at += k as usize,
                    JEQ => at += jump(a == k),
                    JGT => at += jump(a > k),
                    JSET => at += jump(a & k != 0),
                    RET => return k,
                    RET_A => return a,
                    other => panic!("instruction {other:#x}"),
                }
                continue;
            }
        };
        // A load beyond the packet ends the program with "drop", as in the kernel.
        let Some(loaded) = loaded else { return 0 };
        a = loaded;
    }
}

#[test]
fn a_flow_has_one_worker_and_syns_a_tap_of_their_own() {
    const WORKERS: u32 = 3;
    let program = share_out(WORKERS, [0x9e37_79b9, 0x85eb_ca6b]);
    for to in ["198.18.0.1:80", "[2001:db8::1]:80"] {
        let mut flows = [0; WORKERS as usize];
        for number in 0..3000u16 {
            // Where the source address and the ports are; both vary, and the port alone.
            let of_flow = |flags| {
                let mut packet = segment(to, flags);
                let (source, port) = if packet[0] >> 4 == 4 { (14, 20) } else { (22, 40) };
                packet[source..source + 2].copy_from_slice(&(number / 3).to_be_bytes());
                packet[port..port + 2].copy_from_slice(&number.to_be_bytes());
                packet
            };
            let tap = |flags| run(&program, &of_flow(flags), 60);
            let worker = tap(Flags::SYN);
            flows[worker as usize] += 1;
            for others in [Flags::ACK, Flags::SYN | Flags::ACK, Flags::RST, Flags::FIN | Flags::ACK, Flags::NONE] {
                assert_eq!(tap(others), WORKERS + worker, "{to} {others:?}");
            }
            assert_eq!(tap(Flags::SYN | Flags::ECE | Flags::CWR), worker);
        }
        assert!(flows.iter().all(|count| (850..1150).contains(count)), "{to}: {flows:?}");
    }
}

#[test]
fn which_worker_has_a_flow_is_secret() {
    let packets: Vec<_> = (0..64u8)
        .map(|number| {
            let mut packet = segment("198.18.0.1:80", Flags::SYN);
            packet[15] = number;
            packet
        })
        .collect();
    let workers = |secrets| packets.iter().map(|packet| run(&share_out(2, secrets), packet, 60)).collect::<Vec<_>>();
    assert_ne!(workers([1 << 20 | 5, 77 << 16]), workers([3 << 21 | 9, 123 << 17]));
}

#[test]
fn what_is_no_tcp_goes_to_one_of_the_others() {
    let program = share_out(2, [3, 5]);
    let mut extended = segment("[2001:db8::1]:80", Flags::SYN);
    extended[6] = libc::IPPROTO_HOPOPTS as u8;
    for packet in [&extended[..], &[0x10; 40]] {
        assert!((2..4).contains(&run(&program, packet, 60)));
    }
    // Too short to be taken apart: it goes to the first tap, whose filter drops it.
    assert_eq!(run(&program, &[0x45; 12], 12), 0);
}

fn end(text: &str) -> Endpoint {
    Endpoint::from(text.parse::<SocketAddr>().unwrap())
}

/// A segment to `to`, as the tap sees it.
fn segment(to: &str, flags: Flags) -> Vec<u8> {
    let to = end(to);
    let from = if to.addr.is_ipv4() { end("198.18.0.9:40000") } else { end("[2001:db8::9]:40000") };
    let reply = Reply {
        tuple: FourTuple { local: from, peer: to },
        seq: SeqNum::new(1),
        ack: SeqNum::new(2),
        flags,
        window: 100,
        options: ReplyOptions::default(),
    };
    let mut buffer = [0; REPLY_MAX_LEN];
    let len = reply.emit(&mut buffer);
    buffer[..len].to_vec()
}

fn passes(guarded: &[&str], packet: &[u8], len: u32) -> bool {
    let guarded: Vec<SocketAddr> = guarded.iter().map(|addr| addr.parse().unwrap()).collect();
    let [syns, others] = [Share::Syns, Share::Others].map(|share| run(&tap(&guarded, share, 1500), packet, len) != 0);
    assert!(!(syns && others), "no packet is seen twice");
    syns || others
}

#[test]
fn syns_have_a_tap_of_their_own() {
    let guarded: Vec<SocketAddr> = GUARDED.iter().map(|addr| addr.parse().unwrap()).collect();
    for to in GUARDED {
        for (flags, share) in [
            (Flags::SYN, Share::Syns),
            (Flags::SYN | Flags::ECE | Flags::CWR, Share::Syns),
            (Flags::SYN | Flags::ACK, Share::Others),
            (Flags::ACK, Share::Others),
            (Flags::RST, Share::Others),
        ] {
            assert_ne!(run(&tap(&guarded, share, 1500), &segment(to, flags), 60), 0, "{to} {flags:?}");
        }
    }
}

const GUARDED: [&str; 3] = ["198.18.0.1:80", "198.18.0.1:443", "[2001:db8::1]:80"];

#[test]
fn syn_rst_and_fin_to_guarded_ports_pass_at_any_size() {
    for to in GUARDED {
        for flags in [Flags::SYN, Flags::RST, Flags::FIN | Flags::ACK] {
            assert!(passes(&GUARDED, &segment(to, flags), 60_000), "{to} {flags:?}");
        }
    }
}

#[test]
fn other_ports_addresses_and_protocols_do_not() {
    for to in ["198.18.0.1:81", "[2001:db8::1]:443", "198.18.0.2:80"] {
        assert!(!passes(&GUARDED, &segment(to, Flags::SYN), 60), "{to}");
    }
    let mut udp = segment("198.18.0.1:80", Flags::SYN);
    udp[9] = 17;
    assert!(!passes(&GUARDED, &udp, 60));
    assert!(!passes(&GUARDED, &[0x45], 1));
}

#[test]
fn a_wildcard_takes_every_address() {
    assert!(passes(&["0.0.0.0:80"], &segment("198.18.0.77:80", Flags::SYN), 60));
    assert!(!passes(&["0.0.0.0:80"], &segment("[2001:db8::1]:80", Flags::SYN), 60));
}

#[test]
fn aggregated_bulk_does_not_pass_but_single_and_pushed_segments_do() {
    for to in ["198.18.0.1:80", "[2001:db8::1]:80"] {
        assert!(passes(&GUARDED, &segment(to, Flags::ACK), 52));
        assert!(passes(&GUARDED, &segment(to, Flags::ACK), 1500));
        assert!(!passes(&GUARDED, &segment(to, Flags::ACK), 1501));
        assert!(passes(&GUARDED, &segment(to, Flags::ACK | Flags::PSH), 1500));
        assert!(passes(&GUARDED, &segment(to, Flags::ACK | Flags::PSH), 8000));
        assert!(!passes(&GUARDED, &segment(to, Flags::ACK | Flags::PSH), 40_000));
    }
}

#[test]
fn fragments_are_left_to_the_kernel() {
    for fragment_word in [0x2000u16, 0x0001, 0x3fff] {
        let mut packet = segment("198.18.0.1:80", Flags::SYN);
        packet[6..8].copy_from_slice(&fragment_word.to_be_bytes());
        assert!(!passes(&GUARDED, &packet, 60));
    }
}

#[test]
fn ipv6_with_walkable_extension_headers_passes() {
    for (header, expected) in [(0, true), (43, true), (60, true), (44, false), (50, false), (17, false)] {
        let mut packet = segment("[2001:db8::1]:80", Flags::SYN);
        packet[6] = header;
        assert_eq!(passes(&GUARDED, &packet, 80), expected, "next header {header}");
    }
}

#[test]
fn the_ipv4_header_length_is_followed() {
    let plain = segment("198.18.0.1:80", Flags::SYN);
    let mut packet = plain[..20].to_vec();
    packet[0] = 0x46;
    packet.extend_from_slice(&[1, 1, 1, 1]);
    packet.extend_from_slice(&plain[20..]);
    assert!(passes(&GUARDED, &packet, 64));
}

#[test]
fn many_guards_fit_the_reach_of_jumps() {
    let guarded: Vec<SocketAddr> = (1..=1000).map(|port| SocketAddr::from(([198, 18, 0, 1], port))).collect();
    for (share, flags) in [(Share::Syns, Flags::SYN), (Share::Others, Flags::ACK)] {
        let program = tap(&guarded, share, 1500);
        assert!(program.len() <= 4096, "the kernel's limit, {} used", program.len());
        assert_ne!(run(&program, &segment("198.18.0.1:1000", flags), 60), 0);
        assert_eq!(run(&program, &segment("198.18.0.1:1001", flags), 60), 0);
    }
}

#[test]
fn drop_all_drops() {
    assert_eq!(run(&drop_all(), &segment("198.18.0.1:80", Flags::SYN), 60), 0);
}

#[test]
fn a_segment_is_as_long_as_the_largest_link_allows_within_what_is_captured() {
    for (mtu, expected) in [(0, 1500), (1280, 1500), (1500, 1500), (4000, 4000), (9000, 9000), (65536, 16256)] {
        assert_eq!(segment_max(mtu), expected);
    }
}
