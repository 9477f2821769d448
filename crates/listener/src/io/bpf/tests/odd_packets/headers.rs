//! What stands around a segment: IP options, fragments, extension headers, tags; and the header of the answer.

use super::*;

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
