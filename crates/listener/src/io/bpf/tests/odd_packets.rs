//! Packets that no client of ours sends, or hardly any: each has its decided fate at every hook, calm and under pressure.

use std::net::Ipv6Addr;

use super::super::layout::Kind;
use super::answers::check_answer;
use super::craft::*;
use super::*;

const IRS: SeqNum = SeqNum::new(0x1234_5678);
/// More addresses of this host, and a subnet's broadcast: what no packet off the wire can come from.
const OWN: &str = "198.18.0.7:0";
const BROADCAST: &str = "198.18.0.255:0";
const OWN_V6: &str = "[2001:db8::7]:0";
const GUARDED: &[&str] = &[SERVER, SERVER_V6, "127.0.0.1:80", "[::1]:80", OWN, BROADCAST, OWN_V6];

/// What is decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decided {
    /// A SYN-ACK.
    Answered,
    /// The kernel's, and not counted.
    Passed,
    /// The kernel's while calm; under pressure nobody's.
    LeftWhileCalm,
    Dropped(Counted),
}
use Decided::*;

/// Runs a packet at a hook, calm and under pressure, and checks its fate, what was counted and what was reported.
fn check(bench: &mut Bench, hook: Hook, name: &str, frame: &[u8], decided: Decided) -> Option<Vec<u8>> {
    let mut answer = None;
    for listener in [PRESSED, CALM] {
        bench.order(listener);
        let calm = listener.reports;
        let before = bench.counted();
        let fate = bench.at(hook, frame);
        let counted: Vec<usize> = bench.counted_since(&before);
        let reports = bench.take_reports();
        let what = format!("{name} at {hook:?}, {}: {fate:02x?}", if calm { "calm" } else { "pressed" });
        let expected: &[Counted] = match (decided, fate) {
            (Answered, Fate::Sent(sent)) => {
                answer = Some(sent);
                if calm {
                    &[Counted::SynsReceived, Counted::SynAcksSent]
                } else {
                    &[Counted::SynsReceived, Counted::SynAcksSent, Counted::CookiesSent]
                }
            }
            (Passed, Fate::Passed) => &[],
            (LeftWhileCalm, Fate::Passed) if calm => &[Counted::LeftToKernel],
            (LeftWhileCalm, Fate::Dropped) if !calm => &[Counted::NotUnderstood],
            (Dropped(why), Fate::Dropped) => &[why],
            _ => panic!("{what} instead of {decided:?}"),
        };
        assert_eq!(counted, expected.iter().map(|&what| what as usize).collect::<Vec<_>>(), "{what}");
        assert_eq!(reports.len(), usize::from(calm && decided == Answered), "{what}");
    }
    answer
}

/// The same at every hook, and of an answer every field.
fn check_everywhere(bench: &mut Bench, name: &str, frame: &[u8], decided: Decided) {
    for hook in HOOKS {
        check(bench, hook, name, frame, decided);
    }
}

fn plain_syns() -> [(FourTuple, Vec<u8>); 2] {
    PAIRS.map(|(client, server)| {
        let flow = tuple(client, server);
        (flow, syn(&flow, IRS, LINUX))
    })
}

fn syn_from(client: &str, server: &str) -> Vec<u8> {
    syn(&tuple(client, server), IRS, LINUX)
}

/// RFC 1122 §3.2.1.3, RFC 6890, RFC 9293 §3.9.2.3 (MUST-63).
#[test]
fn spec_28_impossible_sources_are_dropped() {
    on_bench_for(GUARDED, CALM, |bench| {
        for addr in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.1.2", "240.0.0.1", "255.255.255.255"] {
            let syn = syn_from(&format!("{addr}:40000"), SERVER);
            check_everywhere(bench, addr, &syn, Dropped(Counted::Martian));
        }
        for addr in ["::", "::2", "::198.18.0.2", "::ffff:198.18.0.2", "ff02::1", "ff0e::2:3"] {
            let source: Ipv6Addr = addr.parse().unwrap();
            let syn = with(&syn_from(CLIENT_V6, SERVER_V6), |frame| {
                frame[IP + 8..IP + 24].copy_from_slice(&source.octets());
            });
            check_everywhere(bench, addr, &syn, Dropped(Counted::Martian));
        }
    });
}

#[test]
fn spec_28_sources_of_this_host_come_over_loopback_alone() {
    on_bench_for(GUARDED, CALM, |bench| {
        let v4 = ["127.0.0.1", "127.255.1.2", "198.18.0.7"].map(|addr| (format!("{addr}:40000"), SERVER));
        let v6 = ["::1", "2001:db8::7"].map(|addr| (format!("[{addr}]:40000"), SERVER_V6));
        for (client, server) in v4.into_iter().chain(v6) {
            let syn = syn_from(&client, server);
            for hook in [Hook::Xdp, Hook::Tc] {
                check(bench, hook, &client, &syn, Dropped(Counted::Martian));
            }
            check(bench, Hook::Loopback, &client, &syn, Answered);
        }
        for hook in [Hook::Xdp, Hook::Tc] {
            check(bench, hook, "broadcast", &syn_from("198.18.0.255:40000", SERVER), Dropped(Counted::Martian));
        }
    });
}

/// RFC 1122 §3.2.1.3 (g): loopback's addresses must not appear outside a host.
#[test]
fn spec_28_a_loopback_destination_off_the_wire_is_not_answered() {
    on_bench_for(GUARDED, CALM, |bench| {
        for (client, server) in [(CLIENT, "127.0.0.1:80"), (CLIENT_V6, "[::1]:80")] {
            let syn = syn_from(client, server);
            check(bench, Hook::Loopback, server, &syn, Answered);
            for hook in [Hook::Xdp, Hook::Tc] {
                for listener in [CALM, PRESSED] {
                    bench.order(listener);
                    assert!(!matches!(bench.at(hook, &syn), Fate::Sent(_)), "{server} answered at {hook:?}");
                }
            }
        }
    });
}

/// RFC 9293 §3.9.2.3, MUST-57: the kernel discards what is for more than one host; we do not answer it.
#[test]
fn spec_27_frames_for_others_and_for_all_pass() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for mac in [[2, 0, 0, 0, 0, 9], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
                let other = damaged(&syn, |frame| frame[..6].copy_from_slice(&mac));
                check_everywhere(bench, &format!("for {mac:02x?}"), &other, Passed);
            }
        }
        for addr in ["198.18.0.255", "224.0.0.1", "255.255.255.255", "198.18.0.9"] {
            check_everywhere(bench, addr, &syn_from(CLIENT, &format!("{addr}:80")), Passed);
        }
        for addr in ["ff02::1", "2001:db8::9"] {
            check_everywhere(bench, addr, &syn_from(CLIENT_V6, &format!("[{addr}]:80")), Passed);
        }
        check_everywhere(bench, "another port", &syn_from(CLIENT, "198.18.0.1:81"), Passed);
        check_everywhere(bench, "another port", &syn_from(CLIENT_V6, "[2001:db8::1]:81"), Passed);
    });
}

#[test]
fn spec_29_land_is_dropped() {
    on_bench_for(GUARDED, CALM, |bench| {
        for server in [SERVER, SERVER_V6, "127.0.0.1:80", "[::1]:80"] {
            check_everywhere(bench, server, &syn_from(server, server), Dropped(Counted::Land));
        }
    });
}

/// Source port 0 is dropped; nothing listens on destination port 0, which the table uses for addresses.
#[test]
fn spec_31_port_zero_is_not_answered() {
    on_bench_for(GUARDED, CALM, |bench| {
        for (client, server, own) in [("198.18.0.2:0", SERVER, OWN), ("[2001:db8::2]:0", SERVER_V6, OWN_V6)] {
            check_everywhere(bench, "from port 0", &syn_from(client, server), Dropped(Counted::PortZero));
            let to_port_zero = syn_from(&client.replace(":0", ":40000"), own);
            check_everywhere(bench, "to port 0", &to_port_zero, Passed);
        }
    });
}

/// SYN with what may stand beside it, ECN's negotiation included (RFC 3168 §6.1.1), which we do not agree to.
#[test]
fn spec_32_a_syn_with_harmless_flags_is_answered() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for more in 0..16u8 {
                let [psh, urg, ece, cwr] = [0, 1, 2, 3].map(|bit| more >> bit & 1);
                let flags = Flags::from_bits(2 | psh << 3 | urg << 5 | ece << 6 | cwr << 7);
                let syn = frame(&flow, flags, IRS, SeqNum::new(0), LINUX, &[]);
                for hook in HOOKS {
                    let answer = check(bench, hook, &format!("{flags:?}"), &syn, Answered).unwrap();
                    check_answer(bench, &flow, IRS, LINUX, &answer);
                }
            }
        }
    });
}

/// Null, FIN, Xmas, SYN+FIN and whatever else has neither an ACK nor the right to none.
#[test]
fn spec_32_flags_that_begin_nothing_are_dropped() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for bits in 0..=255u8 {
                let flags = Flags::from_bits(bits);
                let has = |flag| flags.contains(flag);
                let (syn, ack, fin) = (has(Flags::SYN), has(Flags::ACK), has(Flags::FIN));
                if has(Flags::RST) || (ack && !(syn && fin)) || (syn && !ack && !fin) {
                    continue;
                }
                let odd = frame(&flow, flags, IRS, SeqNum::new(0), LINUX, &[]);
                check_everywhere(bench, &format!("{flags:?}"), &odd, Dropped(Counted::BadFlags));
            }
        }
    });
}

/// RST in any company and SYN+ACK are the kernel's, which discards them; none is ever answered. A RST is told behind the
/// driver, once, for a half-open entry may wait for it.
#[test]
fn spec_32_a_reset_and_a_syn_ack_pass() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for bits in 0..=255u8 {
                let flags = Flags::from_bits(bits);
                let reset = flags.contains(Flags::RST);
                let syn_ack = flags.contains(Flags::SYN) && flags.contains(Flags::ACK) && !flags.contains(Flags::FIN);
                if !reset && !syn_ack {
                    continue;
                }
                let odd = frame(&flow, flags, IRS, SeqNum::new(0), LINUX, &[]);
                for (hook, listener) in HOOKS.into_iter().flat_map(|hook| [(hook, CALM), (hook, PRESSED)]) {
                    bench.order(listener);
                    let before = bench.counted();
                    assert_eq!(bench.at(hook, &odd), Fate::Passed, "{flags:?} at {hook:?}");
                    let mut counted = bench.counted_since(&before);
                    counted.retain(|&what| what != Counted::SampledBogus as usize);
                    let unknown = if hook == Hook::Xdp { vec![] } else { vec![Counted::UnknownPassed as usize] };
                    assert_eq!(counted, unknown, "{flags:?} at {hook:?}");
                    let told = bench.take_reports().into_iter().filter(|report| report.kind == Kind::Reset).count();
                    let expected = usize::from(reset && listener.reports && hook != Hook::Xdp);
                    assert_eq!(told, expected, "{flags:?} at {hook:?}");
                }
            }
        }
    });
}

/// An ACK is none of the driver's business; behind it, one without a cookie is a connection's as far as anybody knows.
#[test]
fn an_ack_without_a_cookie_passes() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for flags in [Flags::ACK, Flags::ACK | Flags::FIN, Flags::ACK | Flags::PSH | Flags::URG] {
                for hook in HOOKS {
                    let ack = frame(&flow, flags, IRS, SeqNum::new(99), LINUX, b"data");
                    assert_eq!(bench.at(hook, &ack), Fate::Passed);
                }
            }
        }
        let (behind, looked_up) = (bench.count(Counted::UnknownPassed), bench.count(Counted::SampledBogus));
        assert_eq!((behind, looked_up), (12, 1), "of 64 the first is looked up");
    });
}

#[test]
fn spec_33_every_damaged_bit_of_a_header_is_noticed() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            let at = tcp_at(&syn);
            // Sequence number to options, but for the data offset and the flags, which decide what the segment is.
            let tcp = (at + 4..syn.len()).filter(|byte| ![at + 12, at + 13].contains(byte));
            // Of the IPv4 header TOS, ID, TTL and the sum itself.
            let ip = [IP + 1, IP + 4, IP + 5, IP + 8, IP + 10, IP + 11].into_iter().filter(|_| is_v4(&syn));
            for (byte, bit) in tcp.chain(ip).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let bad = damaged(&syn, |frame| frame[byte] ^= 1 << bit);
                check_everywhere(bench, &format!("bit {bit} of {byte}"), &bad, Dropped(Counted::BadChecksum));
            }
        }
    });
}

/// A local client's SYN carries the pseudo-header's sum alone: the device that would finish it is us. Behind the driver the
/// packet still says so, and the answer's sum is left to whoever sends it; a frame that the driver sends must be finished.
#[test]
fn spec_33_an_unfinished_sum_is_answered_in_kind() {
    on_bench(CALM, |bench| {
        for (flow, syn) in plain_syns() {
            let at = tcp_at(&syn) + 16;
            let unfinished = damaged(&syn, |frame| frame[at..at + 2].copy_from_slice(&unfinished_sum(&syn)));
            for hook in HOOKS {
                let answer = check(bench, hook, "unfinished", &unfinished, Answered).unwrap();
                if hook == Hook::Xdp {
                    check_answer(bench, &flow, IRS, LINUX, &answer);
                } else {
                    assert_eq!(answer[at..at + 2], unfinished_sum(&answer), "{hook:?}");
                    check_answer(bench, &flow, IRS, LINUX, &with(&answer, |_| ()));
                }
            }
        }
    });
}

#[test]
fn spec_34_padding_behind_the_packet_is_ignored() {
    on_bench(CALM, |bench| {
        for (flow, syn) in plain_syns() {
            let padded = [&syn[..], &[0xa5; 7]].concat();
            for hook in HOOKS {
                let answer = check(bench, hook, "padded", &padded, Answered).unwrap();
                assert_eq!(answer.len(), padded.len());
                check_answer(bench, &flow, IRS, LINUX, &answer);
            }
        }
    });
}

/// Without a whole TCP header nobody knows whose a packet is; without all its options it is nobody's.
#[test]
fn spec_34_a_truncated_packet_is_not_answered() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for (hook, len) in HOOKS.into_iter().flat_map(|hook| (IP..syn.len()).map(move |len| (hook, len))) {
                // The kernel runs no program behind the driver on less than an IP header.
                if hook == Hook::Xdp || len >= tcp_at(&syn) {
                    let decided = if len < tcp_at(&syn) + 20 { Passed } else { Dropped(Counted::Malformed) };
                    check(bench, hook, &format!("{len} bytes"), &syn[..len], decided);
                }
            }
        }
    });
}

#[test]
fn spec_34_the_ip_header_cannot_promise_less_than_the_tcp_header() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for len in [0, 1, 19, 20, 39] {
                let short = with(&syn, |frame| set_tcp_len(frame, len));
                check_everywhere(bench, &format!("{len} bytes of TCP"), &short, Dropped(Counted::Malformed));
            }
            // More than there is: data, for all that can be told from the headers. The kernel discards it.
            let long = with(&syn, |frame| set_tcp_len(frame, 41));
            check_everywhere(bench, "41 bytes of TCP", &long, LeftWhileCalm);
        }
    });
}

#[test]
fn spec_34_an_ipv4_length_below_its_own_header_is_not_answered() {
    on_bench(CALM, |bench| {
        let [(_, syn), _] = plain_syns();
        for len in [0, 1, 19] {
            let short = damaged(&syn, |frame| {
                frame[IP + 2..IP + 4].copy_from_slice(&[0, len]);
                finish_ip_sum(frame);
            });
            check_everywhere(bench, &format!("{len} bytes of IP"), &short, LeftWhileCalm);
        }
    });
}

#[test]
fn spec_34_a_data_offset_that_cannot_be_is_dropped() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for words in (0..5).chain(11..16) {
                let odd = with(&syn, |frame| set_data_offset(frame, words));
                check_everywhere(bench, &format!("offset {words}"), &odd, Dropped(Counted::Malformed));
                // Padding does not make it better.
                let padded = [&odd[..], &[1; 40]].concat();
                check_everywhere(bench, &format!("offset {words}, padded"), &padded, Dropped(Counted::Malformed));
            }
            for words in 5..10 {
                let shorter = with(&syn, |frame| set_data_offset(frame, words));
                check_everywhere(bench, &format!("offset {words}"), &shorter, LeftWhileCalm);
            }
        }
    });
}

#[test]
fn spec_35_a_syn_with_ipv4_options_is_left_to_the_kernel_while_calm() {
    on_bench(CALM, |bench| {
        let [(flow, syn), _] = plain_syns();
        // NOPs; a loose source route; a header of the greatest length.
        for options in [&[1, 1, 1, 0][..], &[131, 7, 4, 198, 18, 0, 9, 0], &[1; 40]] {
            let longer = |frame: &[u8]| between(&damaged(frame, |frame| frame[IP] += options.len() as u8 / 4), options);
            check_everywhere(bench, &format!("options {options:?}"), &longer(&syn), LeftWhileCalm);
            let segment = frame(&flow, Flags::PSH | Flags::ACK, IRS, IRS, &[], b"data");
            check_everywhere(bench, "a segment with options", &longer(&segment), Passed);
        }
        for ihl in 0..5 {
            let odd = damaged(&syn, |frame| frame[IP] = 0x40 | ihl);
            check_everywhere(bench, &format!("header of {ihl} words"), &odd, Passed);
        }
        for version in [0, 5, 6, 15] {
            let odd = damaged(&syn, |frame| frame[IP] = version << 4 | 5);
            check_everywhere(bench, &format!("version {version}"), &odd, Passed);
        }
    });
}

#[test]
fn spec_36_fragments_are_the_kernels() {
    on_bench(CALM, |bench| {
        let [(flow, syn), _] = plain_syns();
        for field in [0x2000u16, 0x2001, 0x0001, 0x00b9, 0x1fff, 0x6000] {
            let part = with(&syn, |frame| frame[IP + 6..IP + 8].copy_from_slice(&field.to_be_bytes()));
            check_everywhere(bench, &format!("fragment {field:04x}"), &part, Passed);
        }
        // DF, nothing, and the reserved bit make none.
        for field in [0x4000u16, 0, 0x8000] {
            let whole = with(&syn, |frame| frame[IP + 6..IP + 8].copy_from_slice(&field.to_be_bytes()));
            for hook in HOOKS {
                let answer = check(bench, hook, &format!("flags {field:04x}"), &whole, Answered).unwrap();
                check_answer(bench, &flow, IRS, LINUX, &answer);
            }
        }
    });
}

/// Extension headers that may stand before a segment, in any order and up to eight.
#[test]
fn spec_37_a_syn_behind_extension_headers_is_left_to_the_kernel_while_calm() {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    on_bench(CALM, |bench| {
        let [_, (flow, syn)] = plain_syns();
        // The headers, each with its length in units of 8 bytes beyond the first.
        let behind = |frame: &[u8], headers: &[(u8, u8)]| {
            let nexts = headers[1..].iter().map(|(kind, _)| *kind).chain([6]);
            let extension = |((_, len), next): (&(u8, u8), u8)| {
                let mut bytes = vec![0; 8 * (1 + usize::from(*len))];
                bytes[..2].copy_from_slice(&[next, *len]);
                bytes
            };
            let inserted: Vec<u8> = headers.iter().zip(nexts).flat_map(extension).collect();
            between(&damaged(frame, |frame| frame[IP + 6] = headers[0].0), &inserted)
        };
        let chains: &[&[(u8, u8)]] = &[
            &[(HOP_BY_HOP, 0)],
            &[(ROUTING, 2)],
            &[(DESTINATION, 0)],
            &[(HOP_BY_HOP, 0), (DESTINATION, 1), (ROUTING, 2), (DESTINATION, 0)],
            &[(ROUTING, 0), (HOP_BY_HOP, 40)],
            &[(DESTINATION, 0); 8],
        ];
        for headers in chains {
            check_everywhere(bench, &format!("{headers:?}"), &behind(&syn, headers), LeftWhileCalm);
            let segment = frame(&flow, Flags::PSH | Flags::ACK, IRS, IRS, &[], b"data");
            check_everywhere(bench, "a segment of a connection", &behind(&segment, headers), Passed);
            // A chain that the frame does not hold to its end is nobody's as far as can be told.
            let whole = behind(&syn, headers);
            check_everywhere(bench, "a cut chain", &whole[..whole.len() - syn.len() + IP + 40], Passed);
        }
        check_everywhere(bench, "nine headers", &behind(&syn, &[(DESTINATION, 0); 9]), Passed);
        // Fragment, ESP, AH, none.
        for header in [44, 50, 51, 59] {
            check_everywhere(bench, &format!("header {header}"), &behind(&syn, &[(header, 0)]), Passed);
            let deeper = behind(&syn, &[(DESTINATION, 0), (header, 0)]);
            check_everywhere(bench, &format!("header {header} behind another"), &deeper, Passed);
        }
        for version in [0, 4, 7] {
            let odd = damaged(&syn, |frame| frame[IP] = version << 4);
            check_everywhere(bench, &format!("version {version}"), &odd, Passed);
        }
    });
}

#[test]
fn spec_38_tagged_frames_and_other_protocols_pass() {
    on_bench(CALM, |bench| {
        for (_, syn) in plain_syns() {
            for (tpid, tci) in [([0x81, 0], [0, 100]), ([0x88, 0xa8], [0, 100]), ([0x81, 0], [0, 0])] {
                let tagged = [&syn[..12], &tpid, &tci, &syn[12..]].concat();
                check_everywhere(bench, "tagged", &tagged, Passed);
            }
            let protocol = if is_v4(&syn) { IP + 9 } else { IP + 6 };
            for other in [1, 17, 58, 132] {
                let odd = with(&syn, |frame| frame[protocol] = other);
                check_everywhere(bench, &format!("protocol {other}"), &odd, Passed);
            }
            let arp = damaged(&syn, |frame| frame[12..14].copy_from_slice(&[8, 6]));
            check_everywhere(bench, "ARP", &arp, Passed);
        }
    });
}

/// What the header of the SYN has besides does not show in the answer: TOS, TTL, flow label, window, urgent pointer.
#[test]
fn spec_44_the_answers_header_is_our_own() {
    on_bench(CALM, |bench| {
        for (flow, syn) in plain_syns() {
            let at = tcp_at(&syn);
            let unusual = with(&syn, |frame| {
                match is_v4(frame) {
                    true => frame[IP + 1..IP + 9].copy_from_slice(&[0xb8, 0, 60, 0x12, 0x34, 0x40, 0, 1]),
                    false => frame[IP..IP + 8].copy_from_slice(&[0x6b, 0x8f, 0xff, 0xff, 0, 40, 6, 1]),
                }
                frame[at + 8..at + 12].fill(0xee);
                frame[at + 14..at + 16].fill(0);
                frame[at + 18..at + 20].fill(0xff);
            });
            for hook in HOOKS {
                let answer = check(bench, hook, "unusual", &unusual, Answered).unwrap();
                check_answer(bench, &flow, IRS, LINUX, &answer);
                match is_v4(&answer) {
                    true => assert_eq!(answer[IP..IP + 10], [0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6]),
                    false => assert_eq!(answer[IP..IP + 8], [0x60, 0, 0, 0, 0, 40, 6, 64]),
                }
                assert_eq!(answer[at + 18..at + 20], [0, 0], "urgent pointer");
            }
        }
    });
}

#[test]
fn spec_9_a_syn_with_data_is_left_to_the_kernel_while_calm() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for data in [&b"x"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 1000]] {
                let syn = frame(&flow, Flags::SYN, IRS, SeqNum::new(0), LINUX, data);
                check_everywhere(bench, &format!("{} bytes", data.len()), &syn, LeftWhileCalm);
            }
        }
    });
}

/// The answer takes the SYN's place, and its options theirs.
#[test]
fn a_syn_without_room_for_the_answer_is_left_to_the_kernel_while_calm() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for options in [&[][..], &[3, 3, 7, 0], &[4, 2, 1, 1], &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]] {
                check_everywhere(bench, &format!("{options:?}"), &syn(&flow, IRS, options), LeftWhileCalm);
            }
        }
    });
}

/// RFC 9293 §3.1, MUST-4 to MUST-7; RFC 7323 §2.3 for the window scale.
#[test]
fn spec_16_broken_options_break_nothing() {
    const BLOCKS: &[&[u8]] = &[
        // Lengths of 0 and 1, and beyond the block; what came before them counts.
        &[2, 4, 5, 180, 8, 0, 0, 0, 1, 3, 3, 7],
        &[2, 4, 5, 180, 3, 1, 7, 0, 4, 2, 1, 1],
        &[2, 4, 5, 180, 254, 255, 0, 0],
        &[2, 4, 5, 180, 1, 1, 1, 8],
        &[2, 4, 5, 180, 1, 1, 3, 3],
        // A known option of a wrong length is unknown.
        &[2, 3, 5, 1, 3, 3, 7, 1],
        &[2, 4, 5, 180, 3, 2, 3, 4, 7, 0, 4, 2],
        &[2, 4, 5, 180, 8, 8, 0, 0, 0, 1, 0, 0, 4, 3, 0, 1],
        // Unknown ones are stepped over; NOPs and the end stand anywhere.
        &[254, 6, 1, 2, 3, 4, 2, 4, 5, 180, 1, 1],
        &[1, 1, 1, 2, 4, 5, 180, 1],
        &[0, 2, 4, 5, 180, 0, 0, 0],
        &[2, 4, 5, 180, 0, 4, 2, 0, 3, 3, 7, 0],
        // The last of two counts.
        &[2, 4, 5, 180, 2, 4, 2, 24],
        // An MSS of 0, of 1, of the most; window scales that cannot be.
        &[2, 4, 0, 0],
        &[2, 4, 0, 1],
        &[2, 4, 255, 255],
        &[2, 4, 5, 180, 1, 3, 3, 14],
        &[2, 4, 5, 180, 1, 3, 3, 15],
        &[2, 4, 5, 180, 3, 3, 255, 0],
        // No MSS at all; a block of the greatest length.
        &[1, 1, 1, 1],
        &[1; 40],
        &[255; 40],
    ];
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for options in BLOCKS {
                for hook in HOOKS {
                    let syn = syn(&flow, IRS, options);
                    let answer = check(bench, hook, &format!("{options:?}"), &syn, Answered).unwrap();
                    check_answer(bench, &flow, IRS, options, &answer);
                }
            }
        }
    });
}
