//! What user space is told.

use super::super::layout::Kind;
use super::super::programs::Link;
use super::answers::offer_of;
use super::*;
use crate::io::worker::clock;

#[test]
fn a_syn_is_reported_as_it_was_answered() {
    on_bench(CALM, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            for options in [LINUX, WINDOWS, &[2, 4, 2, 24], &[1, 1, 1, 1], &[2, 4, 5, 180, 1, 3, 3, 15]] {
                for hook in HOOKS {
                    let irs = SeqNum::new(0xffff_fff0);
                    let before = clock();
                    let Fate::Sent(answer) = bench.at(hook, &syn(&flow, irs, options)) else { panic!("no answer") };
                    let after = clock();
                    let [report] = bench.take_reports()[..] else { panic!("not one report") };
                    assert!((before..=after).contains(&report.at), "{before:?} {report:?} {after:?}");
                    let Report { kind, listener, tuple, at, .. } = report;
                    assert_eq!((kind, listener, tuple), (Kind::Syn, 0, flow));
                    assert_eq!((report.irs, report.offer), (irs, offer_of(&flow, options)));
                    let sent = packet(&answer).segment;
                    assert_eq!(report.iss, sent.seq);
                    // User space makes the same cookie again from the report, when it retransmits.
                    let again = bench.jar.mint(&flow, irs, &report.offer, at);
                    assert_eq!(again.tsval, sent.options().timestamps.map(|ts| ts.tsval));
                }
            }
        }
        assert_eq!(bench.count(Counted::ReportsLost), 0);
    });
}

#[test]
fn a_reset_is_reported_with_its_sequence_number() {
    on_bench(CALM, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            bench.order(ListenerWords { has_entries: true, ..CALM });
            for hook in [Hook::Tc, Hook::Loopback] {
                let reset = frame(&flow, Flags::RST, SeqNum::new(0xdead_beef), SeqNum::new(0), &[], &[]);
                assert_eq!(bench.at(hook, &reset), Fate::Passed);
                let mut reports = bench.take_reports();
                // The first segment of no connection in so many is told besides.
                reports.retain(|report| report.kind != Kind::Bogus);
                let [report] = reports[..] else { panic!("not one report") };
                assert_eq!((report.kind, report.listener, report.tuple), (Kind::Reset, 0, flow));
                assert_eq!(report.irs, SeqNum::new(0xdead_beef));
            }
        }
    });
}

#[test]
fn under_pressure_nothing_is_reported() {
    on_bench(PRESSED, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            for (hook, flags) in HOOKS.into_iter().flat_map(|hook| [(hook, Flags::SYN), (hook, Flags::RST)]) {
                bench.at(hook, &frame(&flow, flags, SeqNum::new(1), SeqNum::new(0), LINUX, &[]));
            }
        }
        // But for the first segment of no connection in so many.
        assert!(bench.take_reports().iter().all(|report| report.kind == Kind::Bogus));
        assert_eq!((bench.count(Counted::SynAcksSent), bench.count(Counted::CookiesSent)), (6, 6));
    });
}

/// Listeners of one worker share the ring; a report says whose it is.
#[test]
fn a_report_names_its_listener() {
    on_bench(CALM, |bench| {
        bench.guarded[1].listener = OTHER_LISTENER as u8;
        bench.give_keys();
        bench.programs.listeners.set(OTHER_LISTENER, CALM.to_raw(), 0).unwrap();
        for (client, server) in PAIRS {
            assert!(matches!(bench.at_tc(&syn(&tuple(client, server), SeqNum::new(1), LINUX)), Fate::Sent(_)));
        }
        let told: Vec<_> = bench.take_reports().iter().map(|report| report.listener).collect();
        assert_eq!(told, [0, OTHER_LISTENER as u8]);
        assert_eq!(bench.count(Counted::SynAcksSent), 1, "the other is counted for the other listener");
    });
}

/// RSTs fill the ring fastest: they are not changed, and so one packet can be run many times over.
#[test]
fn a_full_ring_costs_the_report_and_not_the_answer() {
    on_bench(CALM, |bench| {
        bench.order(ListenerWords { has_entries: true, ..CALM });
        let flow = tuple(CLIENT, SERVER);
        let reset = frame(&flow, Flags::RST, SeqNum::new(1), SeqNum::new(0), &[], &[]);
        let run = TestRunOptions { data_in: Some(&reset), repeat: 20_000, ..TestRunOptions::default() };
        bench.programs.behind_driver(Link::Ethernet).unwrap().test_run(run).unwrap();
        for (lost, hook) in (1..).zip(HOOKS) {
            assert!(matches!(bench.at(hook, &syn(&flow, SeqNum::new(lost), LINUX)), Fate::Sent(_)));
            assert_eq!(bench.count(Counted::ReportsLost), u64::from(lost));
        }
        let reports = bench.take_reports();
        assert!(reports.iter().all(|report| report.kind != Kind::Syn), "no SYN got in");
        assert!((10_000..20_000).contains(&reports.len()), "{} reports in the ring", reports.len());
        // With room again, the next is told.
        assert!(matches!(bench.at_tc(&syn(&flow, SeqNum::new(9), LINUX)), Fate::Sent(_)));
        assert_eq!(bench.take_reports().len(), 1);
        assert_eq!(bench.count(Counted::ReportsLost), 3);
    });
}
