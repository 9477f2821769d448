//! Lengths that do not agree: of the frame, the IP header, the TCP header.

use super::*;

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
