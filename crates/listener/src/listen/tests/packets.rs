//! The checklist: odd packets, and what is never answered.

use super::*;

#[test]
fn spec_27_broadcast_and_multicast_are_silently_discarded() {
    let mut bench = Bench::new();
    for to in ["255.255.255.255:80", "198.18.0.255:80", "224.0.0.1:80", "239.1.2.3:80"] {
        for flags in [Flags::SYN, Flags::ACK, Flags::RST] {
            assert_eq!(dropped(bench.send(Client { to, ..USUAL }, flags, IRS, 1, BARE)), DropReason::NotGuarded);
        }
    }
    let v6 = Client { from: "[2001:db8::2]:40000", to: "[ff02::1]:80" };
    assert_eq!(dropped(bench.send(v6, Flags::SYN, IRS, 0, BARE)), DropReason::NotGuarded);
}

#[test]
fn spec_28_martian_sources_are_dropped() {
    let mut bench = Bench::new();
    let sources = [
        "0.0.0.0:5",
        "0.1.2.3:5",
        "127.0.0.1:5",
        "224.0.0.1:5",
        "240.0.0.1:5",
        "255.255.255.255:5",
        "198.18.0.255:5",
        "198.18.0.3:5",
    ];
    for from in sources {
        assert_eq!(
            dropped(bench.send(Client { from, ..USUAL }, Flags::SYN, IRS, 0, BARE)),
            DropReason::Martian,
            "{from}"
        );
    }
    for from in ["[::]:5", "[::1]:5", "[ff02::1]:5", "[2001:db8::1]:5"] {
        let client = Client { from, to: "[2001:db8::1]:80" };
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::Martian, "{from}");
    }
    // A loopback destination off the wire, and what is right over loopback itself.
    let to_loopback = Client { to: "127.0.0.1:80", ..USUAL };
    assert_eq!(dropped(bench.send(to_loopback, Flags::SYN, IRS, 0, BARE)), DropReason::Martian);
    bench.arrival.loopback = true;
    let _ = bench.syn(Client { from: "127.0.0.1:5", to: "127.0.0.1:80" }, BARE);
    let _ = bench.syn(Client { from: "198.18.0.1:5", to: LOCAL }, BARE);
    let _ = bench.syn(Client { from: "[::1]:5", to: "[::1]:80" }, BARE);
}

#[test]
fn spec_29_land_is_dropped() {
    let mut bench = Bench::new();
    bench.arrival.loopback = true;
    for (from, to) in [(LOCAL, LOCAL), ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80")] {
        assert_eq!(dropped(bench.send(Client { from, to }, Flags::SYN, IRS, 0, BARE)), DropReason::Land);
    }
}

#[test]
fn spec_30_frames_for_others_are_ignored() {
    let mut bench = Bench::new();
    bench.arrival.to_us = false;
    for flags in [Flags::SYN, Flags::ACK, Flags::RST] {
        assert_eq!(dropped(bench.send(USUAL, flags, IRS, 1, BARE)), DropReason::NotOurFrame);
    }
}

#[test]
fn spec_31_port_zero_is_dropped() {
    let mut bench = Bench::new();
    for client in [Client { from: "198.18.0.2:0", ..USUAL }, Client { to: "198.18.0.1:0", ..USUAL }] {
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::PortZero);
    }
}

#[test]
fn spec_32_no_odd_combination_of_flags_gets_a_syn_ack() {
    let mut bench = Bench::new();
    for bits in 0..=255u8 {
        let all = [Flags::FIN, Flags::SYN, Flags::RST, Flags::PSH, Flags::ACK, Flags::URG, Flags::ECE, Flags::CWR];
        let flags = all
            .iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1)
            .fold(None, |sum, (_, flag)| Some(sum.map_or(*flag, |sum| sum | *flag)));
        let Some(flags) = flags else { continue };
        let odd = !flags.contains(Flags::SYN) || flags.intersects(Flags::FIN | Flags::RST | Flags::ACK);
        let answer = bench.send(USUAL_AT.port(1000 + u16::from(bits)), flags, IRS, 1, BARE);
        if let Disposition::Reply(reply) = answer {
            assert!(!odd || !reply.flags.contains(Flags::SYN), "{flags:?} got {reply:?}");
            assert!(!flags.contains(Flags::RST), "a RST is never answered");
        }
    }
    for flags in [Flags::SYN | Flags::FIN, Flags::FIN, Flags::FIN | Flags::PSH | Flags::URG] {
        assert_eq!(dropped(bench.send(USUAL, flags, IRS, 0, BARE)), DropReason::BadFlags);
    }
}

#[test]
fn spec_33_a_bad_checksum_is_dropped_and_an_unfinished_one_accepted() {
    let mut bench = Bench::new();
    let segment = OutgoingSegment {
        tuple: USUAL.into(),
        hop_limit: 64,
        seq: IRS,
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 1000,
        options: OptionBlock::from(EVERYTHING),
        payload: &[],
    };
    let mut buffer = [0; 128];
    let len = segment.emit(&mut buffer).unwrap();
    buffer[36] ^= 0xff;
    assert_eq!(dropped(bench.receive(&buffer[..len])), DropReason::BadChecksum);
    let trusted = Packet::parse_ip(&buffer[..len], len, Checksums::Trust);
    let _ = reply(bench.listen.on_packet(trusted, &bench.arrival, &mut bench.host, bench.now));
}

#[test]
fn spec_36_fragments_are_left_to_the_kernel() {
    let mut bench = Bench::new();
    let fragment = bench.listen.on_packet(Err(ParseError::Fragment), &bench.arrival, &mut bench.host, bench.now);
    assert_eq!(dropped(fragment), DropReason::NotForUs);
}

#[test]
fn spec_41_a_prefix_gets_no_more_replies_than_its_budget() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 1000);
    let mut replies = 0;
    for port in 1..2000 {
        let answer = bench.send(USUAL_AT.port(port), Flags::SYN, IRS, 0, BARE);
        replies += usize::from(matches!(answer, Disposition::Reply(_)));
    }
    assert_eq!(replies, 100);
    let _ = bench.syn(USUAL, BARE);
    assert_eq!(bench.count(Counter::RepliesOverBudget), 1899);
}

#[test]
fn spec_41_completed_handshakes_do_not_use_the_budget_up() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 100);
    for port in 1..200 {
        let client = USUAL_AT.port(port);
        let syn_ack = bench.syn(client, EVERYTHING);
        let accepted = accepted(bench.ack(client, &syn_ack));
        let _ = bench.established(&accepted);
    }
    assert_eq!(bench.count(Counter::HandshakesByQueue), 199);
}

#[test]
fn spec_39_icmp_neither_ends_nor_changes_a_half_open_connection() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    // "Fragmentation needed, MTU 296", from the client's address, quoting the SYN-ACK's header and sequence number.
    let mut quoted = [0; wire::REPLY_MAX_LEN];
    let _ = syn_ack.emit(&mut quoted);
    let mut icmp = vec![0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1];
    icmp.extend_from_slice(&[3, 4, 0, 0, 0, 0, 1, 40]);
    icmp.extend_from_slice(&quoted[..28]);
    let parsed = Packet::parse_ip(&icmp, icmp.len(), Checksums::Trust);
    let judged = bench.listen.on_packet(parsed, &bench.arrival, &mut bench.host, bench.now);
    assert_eq!(dropped(judged), DropReason::NotForUs);
    assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).options.peer_mss, 1460);
}

#[test]
fn spec_41_the_answer_is_never_longer_than_a_syn_with_an_mss() {
    let mut bench = Bench::new();
    for bits in 0..8u8 {
        let options = ReplyOptions {
            mss: Some(1460),
            wscale: (bits & 1 != 0).then_some(7),
            sack_permitted: bits & 2 != 0,
            timestamps: (bits & 4 != 0).then_some(TimestampOption { tsval: 1, tsecr: 0 }),
        };
        let segment = OutgoingSegment {
            tuple: USUAL_AT.port(3000 + u16::from(bits)),
            hop_limit: 64,
            seq: IRS,
            ack: SeqNum::new(0),
            flags: Flags::SYN,
            window: 1000,
            options: OptionBlock::from(options),
            payload: &[],
        };
        let mut buffer = [0; 128];
        let syn_len = segment.emit(&mut buffer).unwrap();
        let answer = reply(bench.receive(&buffer[..syn_len]));
        assert!(answer.emit(&mut [0; wire::REPLY_MAX_LEN]) <= syn_len, "{options:?}");
    }
}

#[test]
fn spec_43_tables_are_keyed_so_that_nobody_can_choose_what_collides() {
    let hashes = |seed: u8| -> Vec<u64> {
        let prefix = |n: u8| crate::budget::prefix_hash(&[seed; 16], IpAddr::from([198, 18, n, 1])).0;
        (0..50).map(prefix).collect()
    };
    assert_eq!(hashes(1), hashes(1));
    assert!(hashes(1).iter().zip(hashes(2)).all(|(one, other)| *one != other));
}

#[test]
fn spec_44_ttl_df_and_id_are_fixed_and_the_flow_label_is_stable() {
    let mut bench = Bench::new();
    let mut buffer = [0; wire::REPLY_MAX_LEN];
    let _ = bench.syn(USUAL, EVERYTHING).emit(&mut buffer);
    let (tos, id, fragment, ttl) = (buffer[1], &buffer[4..6], &buffer[6..8], buffer[8]);
    assert_eq!((tos, id, fragment, ttl), (0, &[0, 0][..], &[0x40, 0][..], 64));
    let v6 = Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" };
    let mut first = [0; wire::REPLY_MAX_LEN];
    let _ = bench.syn(v6, EVERYTHING).emit(&mut first);
    let repeated = bench.pass(Duration::from_millis(1400));
    let again = repeated.iter().find(|reply| reply.tuple.peer.addr.is_ipv6()).unwrap();
    let _ = again.emit(&mut buffer);
    assert_eq!((&first[..4], first[7]), (&buffer[..4], 64));
    assert_ne!(first[1..4], [0, 0, 0], "a label");
}
