//! Combinations of control bits, all 256 of them.

use super::*;
use crate::io::bpf::layout::Kind;

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
                if has(Flags::RST) || (ack && !syn) || (syn && !fin) {
                    continue;
                }
                let odd = frame(&flow, flags, IRS, SeqNum::new(0), LINUX, &[]);
                check_everywhere(bench, &format!("{flags:?}"), &odd, Dropped(Counted::BadFlags));
            }
        }
    });
}

/// RST in any company and SYN+ACK are the kernel's while calm, and are never answered here. Under pressure those of no connection are
/// dropped. A RST is told, behind the driver and once, while there are half-open entries that may wait for it.
#[test]
fn spec_32_a_reset_and_a_syn_ack_pass_while_calm() {
    const WAITING: ListenerWords = ListenerWords { has_entries: true, ..CALM };
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
                for (hook, listener) in HOOKS.into_iter().flat_map(|hook| [CALM, WAITING, PRESSED].map(|l| (hook, l))) {
                    bench.order(listener);
                    let before = bench.counted();
                    let passes = listener.reports || hook == Hook::Xdp;
                    let fate = if passes { Fate::Passed } else { Fate::Dropped };
                    assert_eq!(bench.at(hook, &odd), fate, "{flags:?} at {hook:?}");
                    let mut counted = bench.counted_since(&before);
                    let sampled = [Counted::SampledBogus as usize, Counted::UnknownPassed as usize];
                    counted.retain(|what| !sampled.contains(what));
                    let why = if reset { Counted::Reset } else { Counted::UnknownFlow };
                    let expected = if passes { vec![] } else { vec![why as usize] };
                    assert_eq!(counted, expected, "{flags:?} at {hook:?}");
                    let told = bench.take_reports().into_iter().filter(|report| report.kind == Kind::Reset).count();
                    let expected = usize::from(reset && listener.has_entries && hook != Hook::Xdp);
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
        assert_eq!(bench.count(Counted::UnknownPassed) + bench.count(Counted::SampledBogus), 12);
    });
}
