//! Packets that no client of ours sends, or hardly any: each has its decided fate at every hook, calm and under pressure.

mod addresses;
mod flags;
mod headers;
mod lengths;
mod options;
mod sums;

use super::answers::check_answer;
use super::craft::*;
use super::*;

const IRS: SeqNum = SeqNum::new(0x1234_5678);

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

/// The same at every hook.
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
