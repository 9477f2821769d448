//! Odd packets on the wire: the exact answer, or none.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{BOTH, Door, Lab, PATIENCE, PORT, V4, V6};
use testnet::{Checksum, Flags, Frame, Mac, RawHost, Script, Segment, Tun, isolated, options};

/// How much longer than the answer to the next good SYN an answer to an odd packet is waited for.
const QUIET: Duration = Duration::from_millis(100);

/// A lab, a door with the echo service, and a raw client of each family.
struct Field {
    lab: Lab,
    door: Door,
    v4: RawHost,
    v6: RawHost,
}

impl Field {
    fn new() -> Field {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let (v4, v6) = (lab.raw_host(V4), lab.raw_host(V6));
        Field { lab, door, v4, v6 }
    }

    fn host(&self, server: SocketAddr) -> &RawHost {
        if server.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// A client that has sent nothing yet.
    fn script(&self, port: u16, server: SocketAddr) -> Script<'_> {
        self.host(server).script(port, server)
    }

    /// A SYN that any server would answer, to be made odd.
    fn syn(&self, server: SocketAddr) -> Segment {
        self.script(3000, server).syn_segment()
    }

    /// All that comes back for what was sent before: up to the answer to a good SYN sent now, and a little longer.
    ///
    /// Every half-open connection is reset again, so that it neither repeats its SYN-ACK nor meets the next SYN.
    fn answers(&self, server: SocketAddr) -> Vec<Frame> {
        const SENTINEL: u16 = 4000;
        let host = self.host(server);
        self.script(SENTINEL, server).syn();
        let mut answers = Vec::new();
        let mut collect = |frame: &Frame| {
            self.forget(frame);
            let is_sentinel = frame.dst == host.endpoint(SENTINEL);
            if !is_sentinel && frame.src.is_ipv4() == server.is_ipv4() {
                answers.push(frame.clone());
            }
            is_sentinel
        };
        host.tap().find(PATIENCE, &mut collect).expect("an answer to a good SYN");
        host.tap().find(QUIET, |frame| {
            collect(frame);
            false
        });
        answers
    }

    fn assert_silent(&self, what: &str, server: SocketAddr, segment: &Segment) {
        self.host(server).send(segment);
        let answers = self.answers(server);
        assert!(answers.is_empty(), "{what} at {server} got {answers:?}");
    }

    /// Sends a segment and returns its one answer.
    fn answer(&self, what: &str, server: SocketAddr, segment: &Segment) -> Frame {
        let host = self.host(server);
        host.send(segment);
        let answer = host.tap().find(PATIENCE, |frame| frame.src.is_ipv4() == server.is_ipv4());
        let answer = answer.unwrap_or_else(|| panic!("{what} at {server} got no answer"));
        self.forget(&answer);
        let more = self.answers(server);
        assert!(more.is_empty(), "{what} at {server} got {answer:?}, and then {more:?}");
        answer
    }

    /// Resets what a SYN-ACK has begun.
    fn forget(&self, answer: &Frame) {
        if answer.flags.is_syn_ack() {
            self.host(answer.src).send(&Segment::new(answer.dst, answer.src, Flags::RST).seq(answer.ack));
        }
    }

    /// Frames that the door has dropped for this reason.
    fn dropped(&self, reason: &str) -> f64 {
        let dropped = self.door.metrics().get("portcullis_packets_dropped_total", &[("reason", reason)]);
        dropped.expect("portcullis_packets_dropped_total")
    }

    /// Checks that a segment is answered by a SYN-ACK, as a good SYN is.
    fn assert_syn_ack(&self, what: &str, server: SocketAddr, segment: &Segment) -> Frame {
        let answer = self.answer(what, server, segment);
        assert!(answer.flags == Flags::SYN | Flags::ACK, "{what} at {server} got {answer:?}");
        answer
    }
}

#[test]
fn a_good_syn_gets_a_good_syn_ack() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let answer = field.assert_syn_ack("a good SYN", server, &field.syn(server));
            assert_eq!((answer.src, answer.dst), (server, field.host(server).endpoint(3000)));
            assert_eq!(answer.sum, testnet::Sum::Right, "a raw answer carries its checksum");
            assert_eq!(answer.dst_mac, field.lab.client_end.mac());
            assert_eq!(answer.src_mac, field.lab.server_end.mac());
            assert_eq!(answer.mss(), Some(if server.is_ipv4() { 1460 } else { 1440 }), "row 15: MTU - 40 or 60");
            assert!(answer.sack_permitted() && answer.wscale().is_some() && answer.timestamps().is_none());
            assert!(answer.ttl >= 64);
        }
    });
}

#[test]
fn options_are_answered_only_if_offered() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let bare = field.assert_syn_ack("a SYN without options", server, &field.syn(server).options(Vec::new()));
            assert!(!bare.sack_permitted() && bare.wscale().is_none() && bare.timestamps().is_none());
            let odd =
                [&options::NOP[..], &options::NOP, &options::timestamps(77, 0), &[253, 4, 1, 2], &options::mss(900)];
            let odd = field.assert_syn_ack("odd options", server, &field.syn(server).options(odd.concat()));
            assert_eq!(odd.timestamps().map(|(_, echo)| echo), Some(77));
            assert!(odd.wscale().is_none());
        }
    });
}

#[test]
fn options_that_lie_about_their_length_do_no_harm() {
    isolated!(|| {
        let field = Field::new();
        for bytes in [vec![2, 0], vec![2, 1], vec![8, 200, 1, 2], vec![3], vec![2, 4, 5], vec![0, 2, 4, 5]] {
            field.host(V4).send(&field.syn(V4).options(bytes.clone()));
            let answers = field.answers(V4);
            assert!(answers.iter().all(|answer| answer.flags.is_syn_ack()), "{bytes:?} got {answers:?}");
        }
    });
}

#[test]
fn ecn_is_not_promised() {
    isolated!(|| {
        let field = Field::new();
        let syn = field.syn(V4).flags(Flags::SYN | Flags::ECE | Flags::CWR);
        field.assert_syn_ack("a SYN that offers ECN", V4, &syn); // Checks that neither ECE nor CWR is set.
    });
}

#[test]
fn bad_checksums_and_lengths_get_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            field.assert_silent("a bad checksum", server, &field.syn(server).checksum(Checksum::Wrong));
            field.assert_silent("a data offset of 4", server, &field.syn(server).data_offset(4));
            field.assert_silent("a data offset beyond the end", server, &field.syn(server).data_offset(15));
        }
    });
}

#[test]
fn frames_for_other_hosts_get_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let to = |mac| field.syn(server).dst_mac(mac);
            field.assert_silent("another host's frame", server, &to(Mac([2, 0, 0, 0, 0, 0x77])));
            field.assert_silent("a broadcast frame", server, &to(Mac::BROADCAST));
            field.assert_silent("a multicast frame", server, &to(Mac([1, 0, 0x5e, 0, 0, 1])));
        }
    });
}

#[test]
fn spec_27_broadcast_and_multicast_destinations_get_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for destination in ["198.18.0.255", "255.255.255.255", "224.0.0.1", "198.18.0.0"] {
            let to = SocketAddr::new(destination.parse().unwrap(), PORT);
            let syn = Segment::new(field.v4.endpoint(3000), to, Flags::SYN).seq(7);
            field.assert_silent(destination, V4, &syn);
        }
        let to = format!("[ff02::1]:{PORT}").parse().unwrap();
        field.assert_silent("ff02::1", V6, &Segment::new(field.v6.endpoint(3000), to, Flags::SYN).seq(7));
    });
}

#[test]
fn spec_28_impossible_sources_get_no_answer() {
    isolated!(|| {
        let field = Field::new();
        let v4 = [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "198.18.0.255",
            "198.18.0.1",
        ];
        let v6 = ["::", "::1", "ff02::1", "::ffff:198.18.0.77", "2001:db8::1"];
        for (sources, server) in [(&v4[..], V4), (&v6[..], V6)] {
            for source in sources {
                let from = SocketAddr::new(source.parse().unwrap(), 3000);
                field.assert_silent(source, server, &Segment::new(from, server, Flags::SYN).seq(7));
            }
        }
    });
}

#[test]
fn spec_29_land_gets_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            field.assert_silent("land", server, &Segment::new(server, server, Flags::SYN).seq(7));
        }
    });
}

#[test]
fn spec_31_port_zero_gets_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let syn = Segment::new(field.host(server).endpoint(0), server, Flags::SYN).seq(7);
            field.assert_silent("source port 0", server, &syn);
        }
    });
}

#[test]
fn spec_32_flags_that_start_nothing_get_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            for flags in [
                Flags::NONE,
                Flags::SYN | Flags::FIN,
                Flags::SYN | Flags::RST,
                Flags::FIN,
                Flags::FIN | Flags::PSH | Flags::URG,
                Flags::RST,
                Flags::RST | Flags::ACK,
                Flags::SYN | Flags::FIN | Flags::ACK,
            ] {
                field.assert_silent(&format!("{flags:?}"), server, &field.syn(server).flags(flags));
            }
        }
    });
}

#[test]
fn spec_01_a_stray_ack_or_syn_ack_is_reset_by_its_own_number() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            for flags in [Flags::ACK, Flags::SYN | Flags::ACK] {
                let stray = field.syn(server).options(Vec::new()).flags(flags).ack(0x1234_5678);
                let answer = field.answer(&format!("{flags:?}"), server, &stray);
                assert_eq!((answer.flags, answer.seq), (Flags::RST, 0x1234_5678), "RFC 9293 §3.10.7.2: {answer:?}");
            }
        }
        field.door.assert_no_resets(); // They were ours, not the kernel's.
    });
}

#[test]
fn spec_35_ipv4_options_are_skipped_and_source_routes_refused() {
    isolated!(|| {
        let field = Field::new();
        field.assert_syn_ack("NOP options", V4, &field.syn(V4).ip_options(vec![1; 8]));
        field.assert_syn_ack("router alert", V4, &field.syn(V4).ip_options(vec![148, 4, 0, 0]));
        let [a, b, c, d] = [198, 18, 0, 9];
        field.assert_silent("a loose source route", V4, &field.syn(V4).ip_options(vec![131, 7, 4, a, b, c, d]));
    });
}

#[test]
fn spec_36_fragments_are_left_to_the_kernel() {
    isolated!(|| {
        let field = Field::new();
        let syn = field.script(3000, V4).with_timestamps(5).syn_segment();
        if !support::is_raw() {
            return; // The kernel puts them together, and answers.
        }
        field.v4.send_fragments(&syn, 16);
        assert_eq!(field.answers(V4), [], "a tiny first fragment");
        field.v4.send_fragments(&syn, 24);
        assert_eq!(field.answers(V4), [], "a first fragment with the whole fixed header");
        field.door.assert_no_resets();
    });
}

#[test]
fn spec_37_ipv6_extension_headers_are_walked() {
    isolated!(|| {
        let field = Field::new();
        // PadN of six bytes. Linux refuses more than seven bytes of padding in a row.
        let padding = || vec![1, 4, 0, 0, 0, 0];
        let hop_by_hop = field.syn(V6).extension(0, padding());
        field.assert_syn_ack("hop-by-hop", V6, &hop_by_hop);
        field.assert_syn_ack("hop-by-hop and destination", V6, &hop_by_hop.extension(60, padding()));
        let routing_0 = field.syn(V6).extension(43, vec![0, 1, 0, 0, 0, 0]);
        field.assert_silent("routing type 0 (RFC 5095)", V6, &routing_0);
        let endless = (0..40).fold(field.syn(V6), |syn, _| syn.extension(60, padding()));
        if support::is_raw() {
            field.assert_silent("forty extension headers", V6, &endless);
        }
    });
}

#[test]
fn spec_34_ethernet_padding_is_not_part_of_the_segment() {
    isolated!(|| {
        let field = Field::new();
        field.assert_syn_ack("a padded SYN", V4, &field.syn(V4).options(Vec::new()).pad_to(60));
        // Padding must not become data either: the third ACK of a bare stack is padded too.
        let mut script = field.script(3001, V4);
        script.syn();
        script.expect_syn_ack();
        script.send(&script.segment(Flags::ACK).pad_to(60));
        script.data(b"x");
        assert_eq!(script.expect_data(1), b"x");
    });
}

#[test]
fn spec_38_a_priority_tag_is_no_vlan() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let answer = field.assert_syn_ack("a priority tag", server, &field.syn(server).vlan(5 << 13));
            assert_eq!(answer.vlan.map(|tci| tci & 0xfff).unwrap_or(0), 0);
        }
    });
}

#[test]
fn spec_38_a_vlan_without_a_device_here_gets_no_answer() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            for tci in [1, 100, 5 << 13 | 100, 4094] {
                let before = field.dropped("not_our_frame");
                field.assert_silent(&format!("a frame tagged {tci:#06x}"), server, &field.syn(server).vlan(tci));
                // Silence alone could mean that the frame never arrived. What passes to the kernel is not counted.
                let seen = || field.dropped("not_our_frame") > before || !support::is_raw();
                testnet::eventually("the door saw the frame and refused it", PATIENCE, seen);
            }
        }
        assert_eq!(field.door.half_open(), 0.0);
        field.door.assert_no_resets();
    });
}

#[test]
fn spec_05_a_repeated_syn_gets_the_same_syn_ack() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let mut script = field.script(3000, server).with_timestamps(9);
            let syn = script.syn_segment();
            script.send(&syn);
            let first = script.expect_syn_ack();
            script.send(&syn);
            let second = script.expect_syn_ack();
            assert!(support::say_the_same(&first, &second), "{first:?} then {second:?}");
            let entries = f64::from(u8::from(server == V6)) + 1.0;
            testnet::eventually("one entry for both", PATIENCE, || field.door.half_open() == entries);
        }
    });
}

#[test]
fn spec_05_a_syn_with_another_isn_is_another_handshake() {
    isolated!(|| {
        let field = Field::new();
        let mut old = field.script(3000, V4);
        old.syn();
        let first = old.expect_syn_ack();
        let mut new = field.script(3000, V4).with_iss(old.iss() + 77_777);
        new.syn();
        assert_ne!(new.expect_syn_ack().seq, first.seq);
        new.ack();
        new.data(b"new");
        assert_eq!(new.expect_data(3), b"new");
    });
}

#[test]
fn spec_03_a_reset_with_the_exact_number_kills_a_half_open_connection() {
    isolated!(|| {
        let field = Field::new();
        for server in BOTH {
            let mut script = field.script(3000, server);
            script.syn();
            script.expect_syn_ack();
            assert_eq!(field.door.half_open(), 1.0);
            script.send(&script.segment(Flags::RST));
            testnet::eventually("the entry is gone", PATIENCE, || field.door.half_open() == 0.0);
            script.expect_silence(QUIET);
        }
    });
}

#[test]
fn spec_03_a_reset_elsewhere_in_the_window_gets_a_challenge_ack() {
    isolated!(|| {
        let field = Field::new();
        let mut script = field.script(3000, V4);
        script.syn();
        script.expect_syn_ack();
        script.send(&script.segment(Flags::RST).seq(script.snd_nxt + 1000));
        let answer = script.expect("a challenge ACK", |_| true);
        assert_eq!((answer.flags, answer.seq, answer.ack), (Flags::ACK, script.rcv_nxt, script.snd_nxt));
        assert_eq!(field.door.half_open(), 1.0);
        script.ack();
        script.data(b"alive");
        assert_eq!(script.expect_data(5), b"alive");
    });
}

#[test]
fn spec_03_a_reset_outside_the_window_gets_nothing() {
    isolated!(|| {
        let field = Field::new();
        let mut script = field.script(3000, V4);
        script.syn();
        script.expect_syn_ack();
        for seq in [script.snd_nxt.wrapping_sub(1), script.snd_nxt.wrapping_add(1 << 20)] {
            script.send(&script.segment(Flags::RST).seq(seq));
        }
        script.expect_silence(QUIET);
        assert_eq!(field.door.half_open(), 1.0);
    });
}

#[test]
fn spec_04_an_ack_of_something_never_sent_is_reset() {
    isolated!(|| {
        let field = Field::new();
        let mut script = field.script(3000, V4);
        script.syn();
        script.expect_syn_ack();
        let wrong = script.rcv_nxt.wrapping_add(1);
        script.send(&script.segment(Flags::ACK).ack(wrong));
        let answer = script.expect("a RST", |_| true);
        assert_eq!((answer.flags, answer.seq), (Flags::RST, wrong), "RFC 9293 §3.10.7.4: {answer:?}");
        assert_eq!(field.door.half_open(), 1.0, "the real client may still come");
    });
}

#[test]
fn spec_25_a_syn_ack_is_repeated_and_then_given_up() {
    isolated!(|| {
        let field = Field::new();
        let mut script = field.script(3000, V4);
        script.syn();
        let first = script.expect_syn_ack();
        let again = script.expect_syn_ack();
        assert!(support::say_the_same(&first, &again), "{first:?} then {again:?}");
        testnet::eventually("the entry expires", Duration::from_secs(40), || field.door.half_open() == 0.0);
    });
}

const BARE: [(&str, &str); 2] =
    [("198.18.7.2:3000", "198.18.7.1:8080"), ("[2001:db8:7::2]:3000", "[2001:db8:7::1]:8080")];

/// A client behind a device without a link layer is served.
fn be_served_bare(tun: &Tun, (client, server): (&str, &str)) {
    let (client, server): (SocketAddr, SocketAddr) = (client.parse().unwrap(), server.parse().unwrap());
    let next = || loop {
        let frame = tun.next(PATIENCE).expect("a packet out of the tun device");
        if (frame.src, frame.dst) == (server, client) {
            return frame;
        }
    };
    tun.send(&Segment::new(client, server, Flags::SYN).seq(6).packet());
    let answer = next();
    assert_eq!((answer.flags, answer.ack, answer.src), (Flags::SYN | Flags::ACK, 7, server), "{answer:?}");
    let data = Segment::new(client, server, Flags::ACK | Flags::PSH).seq(7).ack(answer.seq + 1).payload(b"bare");
    tun.send(&data.packet());
    let echoed = loop {
        let frame = next();
        assert!(!frame.flags.has(Flags::RST), "{frame:?}");
        if !frame.payload.is_empty() {
            break frame;
        }
    };
    assert_eq!((echoed.seq, echoed.payload), (answer.seq + 1, b"bare".to_vec()));
}

fn tun(lab: &Lab) -> Tun {
    Tun::new(&lab.server, "tun0", &["198.18.7.1/24", "2001:db8:7::1/64"])
}

#[test]
fn a_device_without_a_link_layer_is_guarded_too() {
    isolated!(|| {
        let lab = Lab::new();
        let tun = tun(&lab);
        let door = Door::open(&lab, "echo");
        BARE.into_iter().for_each(|ends| be_served_bare(&tun, ends));
        door.assert_no_resets();
    });
}

/// In datapath bpf its program is loaded then.
#[test]
fn a_device_without_a_link_layer_that_comes_later_is_guarded_too() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let tun = tun(&lab);
        let [(_, server), _] = BARE;
        let mut knocking =
            (5000..).map(|port| Segment::new(([198, 18, 7, 3], port).into(), server.parse().unwrap(), Flags::SYN));
        testnet::eventually("its SYNs are ours", PATIENCE, || {
            tun.send(&knocking.next().expect("another port").packet());
            door.metric("portcullis_syns_received_total") > 0.0
        });
        BARE.into_iter().for_each(|ends| be_served_bare(&tun, ends));
        assert_eq!(lab.connect(V4).peer_addr().ok(), Some(V4), "the others are served as before");
    });
}
