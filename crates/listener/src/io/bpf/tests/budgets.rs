//! Answers to one prefix in 134 ms: nobody can make a reflector of us.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

const PERIOD: Duration = Duration::from_nanos(1 << 27);

/// Addresses of which no more than this many SYNs were seen may have more than the prefix's budget.
const QUIET_MAX: u64 = 16;

/// How many of so many SYNs from an address are answered.
fn answered(bench: &mut Bench, hook: Hook, addr: IpAddr, count: u16) -> u64 {
    let mut flow = if addr.is_ipv4() { tuple(CLIENT, SERVER) } else { tuple(CLIENT_V6, SERVER_V6) };
    flow.peer.addr = addr;
    let before = (bench.count(Counted::SynAcksSent), bench.count(Counted::RepliesOverBudget));
    for port in 1..=count {
        flow.peer.port = port;
        let fate = bench.at(hook, &syn(&flow, SeqNum::new(1), LINUX));
        assert_ne!(fate, Fate::Passed);
    }
    let refused = bench.count(Counted::RepliesOverBudget) - before.1;
    let answered = bench.count(Counted::SynAcksSent) - before.0;
    assert_eq!(answered + refused, u64::from(count), "every SYN is answered or counted as refused");
    answered
}

/// Address `host` of prefix `prefix`, in both families.
fn addresses(prefix: u8, host: u8) -> [IpAddr; 2] {
    let v6 = [0x2001, 0xdb8, 0, prefix.into(), 0, 0, 0, host.into()];
    [IpAddr::from([198, 18, prefix, host]), IpAddr::from(v6)]
}

/// Both families, both hooks, calm and under pressure; each in a period of its own.
fn in_every_way(replies_max: u32, test: fn(&mut Bench, Hook, usize)) {
    on_bench(CALM, |bench| {
        for listener in [CALM, PRESSED] {
            bench.order(ListenerWords { replies_max, ..listener });
            for hook in HOOKS {
                for family in [0, 1] {
                    bench.set_time(bench.now + PERIOD);
                    test(bench, hook, family);
                    bench.take_reports();
                }
            }
        }
    });
}

#[test]
fn one_address_gets_the_prefixs_budget_and_no_more() {
    in_every_way(40, |bench, hook, family| {
        let addr = |prefix, host| addresses(prefix, host)[family];
        assert_eq!(answered(bench, hook, addr(1, 1), 100), 40);
        assert_eq!(answered(bench, hook, addr(1, 1), 10), 0);
        assert_eq!(answered(bench, hook, addr(2, 1), 30), 30, "another prefix is not affected");
    });
}

/// So that one of its addresses cannot shut a whole prefix out.
#[test]
fn quiet_addresses_of_a_spent_prefix_get_as_much_again() {
    in_every_way(40, |bench, hook, family| {
        let addr = |host| addresses(1, host)[family];
        assert_eq!(answered(bench, hook, addr(1), 100), 40);
        assert_eq!(answered(bench, hook, addr(2), 100), QUIET_MAX);
        assert_eq!(answered(bench, hook, addr(3), 100), QUIET_MAX);
        assert_eq!(answered(bench, hook, addr(4), 100), 80 - 40 - 2 * QUIET_MAX, "twice the budget is the end");
        assert_eq!(answered(bench, hook, addr(5), 100), 0);
    });
}

#[test]
fn a_new_period_brings_a_new_budget() {
    on_bench(ListenerWords { replies_max: 40, ..PRESSED }, |bench| {
        let period = PERIOD.as_nanos() as u64;
        bench.set_time(Time::from_nanos(bench.now.as_nanos().next_multiple_of(period)));
        for addr in addresses(1, 1) {
            assert_eq!(answered(bench, Hook::Xdp, addr, 100), 40);
            bench.set_time(bench.now + (PERIOD - Duration::from_nanos(1)));
            assert_eq!(answered(bench, Hook::Xdp, addr, 100), 0, "the period has not ended");
            bench.set_time(bench.now + Duration::from_nanos(1));
            assert_eq!(answered(bench, Hook::Xdp, addr, 100), 40);
            bench.set_time(bench.now + 10 * PERIOD);
            assert_eq!(answered(bench, Hook::Xdp, addr, 100), 40, "nothing is saved up");
            bench.set_time(bench.now + PERIOD);
        }
    });
}

/// Whatever the hooks, it is the same prefix's budget.
#[test]
fn the_hooks_share_the_budget() {
    on_bench(ListenerWords { replies_max: 40, ..PRESSED }, |bench| {
        let [addr, _] = addresses(1, 1);
        let sum: u64 = HOOKS.map(|hook| answered(bench, hook, addr, 30)).iter().sum();
        assert_eq!(sum, 40);
    });
}
