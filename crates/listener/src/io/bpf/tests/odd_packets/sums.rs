//! Checksums: damaged, and unfinished.

use super::*;

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
