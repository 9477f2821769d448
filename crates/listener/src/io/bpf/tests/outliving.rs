//! Programs that outlive user space: what they do while nobody keeps them, and for how long.

use std::time::Duration;

use super::super::layout::{ALONE, Kind, LEASE, WAITS};
use super::acks::{IRS, OFFER_A, OFFERS, listen, minted, third_ack};
use super::*;

const PINNED: ListenerWords = ListenerWords { outlives: true, ..CALM };
const A_BIT: Duration = Duration::from_millis(1);

impl Bench {
    /// As if user space had been here for the last time so long ago.
    fn leave_alone_for(&mut self, alone: Duration) {
        let ago = NOW.as_nanos() - alone.as_nanos() as u64;
        self.kept = Some(Time::from_nanos(ago));
        self.give_keys();
    }

    fn reports(&self) -> bool {
        self.programs.listeners.get(&0, 0).unwrap()[0].to_ne_bytes()[1] != 0
    }
}

#[test]
fn what_ends_a_handshake_waits_and_is_told_while_no_socket_listens() {
    on_bench(PINNED, |bench| {
        for (client, server) in PAIRS {
            for offer in OFFERS {
                let flow = tuple(client, server);
                let cookie = minted(bench, &flow, &offer);
                let ack = third_ack(&flow, IRS, &cookie, b"hello");
                assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
                let [report] = bench.take_reports()[..] else { panic!("not one report") };
                assert_eq!((report.kind, report.tuple, report.irs, report.iss), (Kind::Full, flow, IRS, cookie.isn));
                // What comes right behind it is no cookie; refused, it would end the client's connection.
                let behind = frame(&flow, Flags::FIN | Flags::ACK, IRS + 6, cookie.isn + 1, &[], &[]);
                assert_eq!(bench.at(Hook::Loopback, &behind), Fate::Dropped);
            }
        }
        // Where the programs go with the process, the kernel refuses.
        bench.order(CALM);
        let flow = tuple(CLIENT, SERVER);
        let cookie = minted(bench, &flow, &OFFER_A);
        let ack = third_ack(&flow, IRS, &cookie, &[]);
        assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
        assert_eq!(bench.take_reports(), []);
    });
}

#[test]
fn orders_that_were_on_their_way_do_not_end_the_wait() {
    on_bench(PINNED, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let cookie = minted(bench, &flow, &OFFER_A);
            let ack = third_ack(&flow, IRS, &cookie, b"hello");
            let behind = frame(&flow, Flags::PSH | Flags::ACK, IRS + 6, cookie.isn + 1, &[], b"again");
            assert_eq!(bench.at(Hook::Loopback, &behind), Fate::Passed, "nobody waits yet");
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
            // User space, which has not read the report yet, says again what it said before.
            bench.order(PINNED);
            assert_eq!(bench.at(Hook::Loopback, &behind), Fate::Dropped);
            bench.set_time(NOW + WAITS + 2 * Duration::from_secs(1));
            assert_eq!(bench.at(Hook::Loopback, &behind), Fate::Passed, "it has given up long ago");
            bench.set_time(NOW);
            bench.programs.waits_until.set(0, 0, 0).unwrap();
        }
    });
}

#[test]
fn handed_on_the_ends_of_handshakes_wait_although_a_socket_listens() {
    on_bench(PINNED, |bench| {
        let _listening = listen();
        bench.order(ListenerWords { state: State::HandsOn, ..PINNED });
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            for hook in HOOKS {
                assert!(matches!(bench.at(hook, &syn(&flow, IRS, LINUX)), Fate::Sent(_)), "SYNs are answered");
            }
            bench.take_reports();
            let cookie = minted(bench, &flow, &OFFER_A);
            let ack = third_ack(&flow, IRS, &cookie, b"hello");
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
            let [report] = bench.take_reports()[..] else { panic!("not one report") };
            assert_eq!((report.kind, report.iss), (Kind::Full, cookie.isn));
        }
    });
}

#[test]
fn left_alone_they_answer_and_report_no_more_syns() {
    on_bench(PINNED, |bench| {
        let flow = tuple(CLIENT, SERVER);
        bench.leave_alone_for(ALONE - A_BIT);
        assert!(matches!(bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)), Fate::Sent(_)));
        assert_eq!(bench.take_reports().len(), 1);
        bench.leave_alone_for(ALONE);
        for hook in HOOKS {
            assert!(matches!(bench.at(hook, &syn(&flow, IRS, LINUX)), Fate::Sent(_)));
        }
        assert_eq!(bench.take_reports(), []);
        assert!(!bench.reports(), "user space sees that it was missed");
    });
}

#[test]
fn left_alone_beside_another_server_they_leave_everything_to_it() {
    on_bench(PINNED, |bench| {
        bench.order(ListenerWords { state: State::HandsOn, ..PINNED });
        let _listening = listen();
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let cookie = minted(bench, &flow, &OFFER_A);
            let ack = third_ack(&flow, IRS, &cookie, &[]);
            bench.leave_alone_for(ALONE - A_BIT);
            assert!(matches!(bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)), Fate::Sent(_)));
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
            bench.leave_alone_for(ALONE);
            for hook in HOOKS {
                assert_eq!(bench.at(hook, &syn(&flow, IRS, LINUX)), Fate::Passed);
            }
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
        }
    });
}

#[test]
fn when_the_lease_has_ended_all_is_the_kernels() {
    on_bench(PINNED, |bench| {
        let flow = tuple(CLIENT, SERVER);
        let cookie = minted(bench, &flow, &OFFER_A);
        let ack = third_ack(&flow, IRS, &cookie, &[]);
        bench.leave_alone_for(LEASE - A_BIT);
        assert!(matches!(bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)), Fate::Sent(_)));
        assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
        bench.leave_alone_for(LEASE);
        for hook in HOOKS {
            assert_eq!(bench.at(hook, &syn(&flow, IRS, LINUX)), Fate::Passed);
        }
        assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
    });
}

#[test]
fn programs_that_go_with_the_process_need_nobody() {
    on_bench(CALM, |bench| {
        bench.kept = None;
        bench.set_time(Time::from_secs(1 << 30));
        assert!(matches!(bench.at(Hook::Tc, &syn(&tuple(CLIENT, SERVER), IRS, LINUX)), Fate::Sent(_)));
        assert!(bench.reports());
    });
}
