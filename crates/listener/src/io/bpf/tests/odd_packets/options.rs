//! TCP options that are broken, or leave no room.

use super::*;

/// The answer takes the SYN's place, and its options theirs: it names its MSS only to those who named theirs.
#[test]
fn a_syn_without_a_mss_gets_an_answer_without_one() {
    on_bench(CALM, |bench| {
        for (flow, _) in plain_syns() {
            for options in [&[][..], &[3, 3, 7, 0], &[4, 2, 1, 1], &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]] {
                for hook in HOOKS {
                    let answer = check(bench, hook, &format!("{options:?}"), &syn(&flow, IRS, options), Answered);
                    check_answer(bench, &flow, IRS, options, &answer.unwrap());
                }
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
