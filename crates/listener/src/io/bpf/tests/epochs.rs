//! Whose keys' cookies are taken.

use super::acks::{IRS, LOOKS_UP, OFFER_A, OFFERS, assert_refused, is_taken, listen, third_ack};
use super::*;

fn jar_at(epoch: Epoch) -> CookieJar {
    CookieJar::new(MasterKey::from_bytes([7; 32]), epoch)
}

#[test]
fn cookies_of_the_previous_the_current_and_the_next_epoch_are_taken() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        // Each of the four slots is the current one once.
        for current in EPOCH.0..EPOCH.0 + 4 {
            bench.jar.advance(Epoch(current), NOW);
            bench.give_keys();
            for (client, server) in PAIRS {
                for (offer, epoch) in OFFERS.into_iter().flat_map(|o| (current - 4..=current + 4).map(move |e| (o, e)))
                {
                    let flow = tuple(client, server);
                    let cookie = jar_at(Epoch(epoch)).mint(&flow, IRS, &offer, NOW);
                    let ack = third_ack(&flow, IRS, &cookie, &[]);
                    if epoch.abs_diff(current) <= 1 {
                        assert!(is_taken(bench, &ack), "epoch {epoch} at {current}");
                    } else {
                        assert_refused(bench, &ack, &format!("epoch {epoch} at {current}"));
                    }
                }
            }
        }
    });
}

#[test]
fn another_masters_cookie_is_refused() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        let mut other = CookieJar::new(MasterKey::from_bytes([8; 32]), EPOCH);
        for (client, server) in PAIRS {
            for offer in OFFERS {
                let flow = tuple(client, server);
                assert_refused(
                    bench,
                    &third_ack(&flow, IRS, &other.mint(&flow, IRS, &offer, NOW), &[]),
                    "a stranger's",
                );
            }
        }
    });
}

/// Across a rotation of the master key: at each epoch, the previous', the current's and the next one's cookies, each of the master
/// that holds for it, and no others.
#[test]
fn each_epochs_cookies_are_taken_if_made_by_the_master_that_holds_for_it() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        let masters = [MasterKey::from_bytes([7; 32]), MasterKey::from_bytes([9; 32])];
        let from = EPOCH.rotation();
        let mut schedule = KeySchedule::new(masters[0].clone());
        schedule.rotate(from, masters[1].clone()).unwrap();
        let version = bench.jar.version();
        bench.jar.set_masters(schedule);
        assert_ne!(bench.jar.version(), version, "the keeper has to notice");
        for current in EPOCH.0..from.0 + 3 {
            bench.jar.advance(Epoch(current), NOW);
            bench.give_keys();
            for (client, server) in PAIRS {
                let flow = tuple(client, server);
                for (offer, epoch) in OFFERS.into_iter().flat_map(|o| (current - 1..=current + 1).map(move |e| (o, e)))
                {
                    for (index, master) in masters.iter().enumerate() {
                        let mut maker = CookieJar::new(master.clone(), Epoch(epoch));
                        let ack = third_ack(&flow, IRS, &maker.mint(&flow, IRS, &offer, NOW), &[]);
                        let told = format!("master {index}, epoch {epoch} at {current}, new from {from:?}");
                        if index == usize::from(Epoch(epoch) >= from) {
                            assert!(is_taken(bench, &ack), "{told}");
                        } else {
                            assert_refused(bench, &ack, &told);
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_jump_of_the_clock_refuses_no_cookie_that_was_valid() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        for far in [Epoch(EPOCH.0 + 4001), Epoch(EPOCH.0 - 900)] {
            bench.jar = jar_at(EPOCH);
            bench.jar.advance(far, NOW);
            bench.give_keys();
            for (client, server) in PAIRS {
                for offer in OFFERS {
                    let flow = tuple(client, server);
                    let ack_of =
                        |epoch| third_ack(&flow, IRS, &jar_at(Epoch(epoch)).mint(&flow, IRS, &offer, NOW), &[]);
                    for base in [EPOCH.0, far.0] {
                        for epoch in [base - 1, base, base + 1] {
                            assert!(is_taken(bench, &ack_of(epoch)), "epoch {epoch} at {far:?}");
                        }
                        for epoch in [base - 2, base + 2] {
                            assert_refused(bench, &ack_of(epoch), &format!("epoch {epoch} at {far:?}"));
                        }
                    }
                }
            }
            // Once the old cookies have died, their keys are gone.
            bench.jar.advance(far, NOW + crate::cookie::COOKIE_LIFETIME);
            bench.give_keys();
            let flow = tuple(CLIENT, SERVER);
            let old = jar_at(EPOCH).mint(&flow, IRS, &OFFER_A, NOW);
            assert_refused(bench, &third_ack(&flow, IRS, &old, &[]), "after its time");
        }
    });
}
