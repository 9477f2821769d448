use std::net::SocketAddr;

use proptest::prelude::*;
use wire::Endpoint;

use super::*;

pub(crate) const NOW: Time = Time::from_secs(1000);
const EPOCH: Epoch = Epoch(52_000_000);
pub(crate) const IRS: SeqNum = SeqNum::new(0x1234_5678);

pub(crate) fn jar() -> CookieJar {
    CookieJar::new(MasterKey::from_bytes([42; 32]), EPOCH)
}

pub(crate) fn tuple(v6: bool) -> FourTuple {
    let (local, peer) =
        if v6 { ("[2001:db8::1]:80", "[2001:db8::2]:40000") } else { ("198.18.0.1:80", "198.18.0.2:40000") };
    let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
    FourTuple { local: end(local), peer: end(peer) }
}

/// The timestamps option with which a client answers.
fn echo(cookie: &Cookie) -> Option<TimestampOption> {
    cookie.tsval.map(|tsecr| TimestampOption { tsval: 99, tsecr })
}

fn offers() -> impl Strategy<Value = Offer> {
    let wscale = proptest::option::of(0u8..=14);
    (any::<u16>(), wscale, any::<bool>(), proptest::option::of(any::<u32>()))
        .prop_map(|(mss, wscale, sack, tsval)| Offer { mss, wscale, sack, tsval })
}

fn tuples() -> impl Strategy<Value = FourTuple> {
    let pair = |v6: bool| {
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>()).prop_map(move |(a, b, p, q)| {
            let end = |bytes: [u8; 16], port| Endpoint {
                addr: if v6 { bytes.into() } else { <[u8; 4]>::try_from(&bytes[..4]).unwrap().into() },
                port,
            };
            FourTuple { local: end(a, p), peer: end(b, q) }
        })
    };
    prop_oneof![pair(false), pair(true)]
}

proptest! {
    #[test]
    fn every_cookie_validates_and_gives_back_what_fits(
        tuple in tuples(), irs: u32, offer in offers(), nanos in 0..1u64 << 62
    ) {
        let (mut jar, now) = (jar(), Time::from_nanos(nanos));
        let irs = SeqNum::new(irs);
        let cookie = jar.mint(&tuple, irs, &offer, now);
        let data = jar.check(&tuple, irs, cookie.isn, echo(&cookie), now).unwrap();
        prop_assert_eq!(data.form, if offer.tsval.is_some() { Form::A } else { Form::B });
        prop_assert_eq!(data.offer.sack, offer.sack);
        prop_assert_eq!(data.offer.wscale.is_some(), offer.wscale.is_some());
        prop_assert!(data.offer.wscale <= offer.wscale);
        prop_assert!(data.offer.mss <= offer.mss.max(Family::of(tuple.peer.addr).default_mss()));
        if offer.tsval.is_some() {
            prop_assert_eq!(data.offer.wscale, offer.wscale);
        }
    }

    #[test]
    fn every_flipped_bit_is_refused(tuple in tuples(), irs: u32, offer in offers(), bit in 0u32..32) {
        let mut jar = jar();
        let irs = SeqNum::new(irs);
        let cookie = jar.mint(&tuple, irs, &offer, NOW);
        let ts = echo(&cookie);
        let flip = |seq: SeqNum| SeqNum::new(seq.value() ^ 1 << bit);
        prop_assert!(jar.check(&tuple, irs, flip(cookie.isn), ts, NOW).is_err(), "ISN");
        prop_assert!(jar.check(&tuple, flip(irs), cookie.isn, ts, NOW).is_err(), "client's ISN");
        if let Some(ts) = ts {
            let bent = Some(TimestampOption { tsecr: ts.tsecr ^ 1 << bit, ..ts });
            prop_assert!(jar.check(&tuple, irs, cookie.isn, bent, NOW).is_err(), "TSecr");
        }
        let mut other = tuple;
        other.peer.port ^= 1 << (bit % 16);
        prop_assert!(jar.check(&other, irs, cookie.isn, ts, NOW).is_err(), "client's port");
        let mut other = tuple;
        other.local.port ^= 1 << (bit % 16);
        prop_assert!(jar.check(&other, irs, cookie.isn, ts, NOW).is_err(), "our port");
    }

    #[test]
    fn off_by_one_never_validates(tuple in tuples(), irs: u32, offer in offers()) {
        let mut jar = jar();
        let irs = SeqNum::new(irs);
        let cookie = jar.mint(&tuple, irs, &offer, NOW);
        for isn in [cookie.isn + 1, cookie.isn - 1] {
            prop_assert!(jar.check(&tuple, irs, isn, echo(&cookie), NOW).is_err());
        }
    }

    #[test]
    fn no_form_passes_for_the_other(tuple in tuples(), irs: u32, offer in offers(), tsecr: u32) {
        let mut jar = jar();
        let irs = SeqNum::new(irs);
        let cookie = jar.mint(&tuple, irs, &offer, NOW);
        let other = match cookie.tsval {
            Some(_) => None,
            None => Some(TimestampOption { tsval: 0, tsecr }),
        };
        prop_assert!(jar.check(&tuple, irs, cookie.isn, other, NOW).is_err());
    }

    #[test]
    fn every_bit_of_either_address_counts(v6: bool, bit in 0usize..128, with_timestamps: bool) {
        let mut jar = jar();
        let offer = Offer { mss: 1460, wscale: Some(7), sack: true, tsval: with_timestamps.then_some(5) };
        let tuple = tuple(v6);
        let cookie = jar.mint(&tuple, IRS, &offer, NOW);
        for local in [true, false] {
            let mut other = tuple;
            let end = if local { &mut other.local } else { &mut other.peer };
            end.addr = match end.addr {
                std::net::IpAddr::V4(addr) => std::net::Ipv4Addr::from_bits(addr.to_bits() ^ 1 << (bit % 32)).into(),
                std::net::IpAddr::V6(addr) => std::net::Ipv6Addr::from_bits(addr.to_bits() ^ 1 << bit).into(),
            };
            prop_assert!(jar.check(&other, IRS, cookie.isn, echo(&cookie), NOW).is_err());
        }
    }
}

pub(crate) fn linux_offer(timestamps: bool) -> Offer {
    Offer { mss: 1460, wscale: Some(7), sack: true, tsval: timestamps.then_some(7) }
}

/// Whether a cookie made in `made` is accepted by a jar of the same master in epoch `checked`.
fn accepted(made: Epoch, checked: Epoch) -> Result<CookieData, BadCookie> {
    let cookie =
        CookieJar::new(MasterKey::from_bytes([42; 32]), made).mint(&tuple(false), IRS, &linux_offer(true), NOW);
    let mut jar = CookieJar::new(MasterKey::from_bytes([42; 32]), checked);
    jar.check(&tuple(false), IRS, cookie.isn, echo(&cookie), NOW)
}

#[test]
fn another_node_accepts_previous_current_and_next_epoch_only() {
    for ahead in 0..8 {
        let ok = accepted(Epoch(100), Epoch(96 + ahead)).is_ok();
        assert_eq!(ok, (3..=5).contains(&ahead), "made in 100, checked in {}", 96 + ahead);
    }
    assert_eq!(accepted(Epoch(100), Epoch(102)), Err(BadCookie::Expired));
}

#[test]
fn advancing_through_epochs_expires_a_cookie_after_its_lifetime() {
    let mut jar = jar();
    let cookie = jar.mint(&tuple(false), IRS, &linux_offer(false), NOW);
    let check = |jar: &mut CookieJar| jar.check(&tuple(false), IRS, cookie.isn, None, NOW).is_ok();
    for (steps, expected) in [(0, true), (1, true), (2, false), (3, false), (4, false), (9, false)] {
        jar.advance(Epoch(EPOCH.0 + steps), NOW);
        assert_eq!(check(&mut jar), expected, "{steps} epochs later");
    }
}

#[test]
fn a_clock_jump_either_way_rejects_no_valid_cookie() {
    for target in [EPOCH.0 + 1000, EPOCH.0 - 1000, EPOCH.0 + 2, EPOCH.0 - 2, 0] {
        let mut jar = jar();
        let cookie = jar.mint(&tuple(true), IRS, &linux_offer(true), NOW);
        jar.advance(Epoch(target), NOW);
        let check = |jar: &mut CookieJar, now| {
            jar.advance(Epoch(target), now);
            jar.check(&tuple(true), IRS, cookie.isn, echo(&cookie), now).is_ok()
        };
        assert!(check(&mut jar, NOW), "to {target}");
        assert!(check(&mut jar, NOW + (COOKIE_LIFETIME - Duration::from_secs(1))), "to {target}, late");
        // Two epochs ahead the new keys still hold the old ones' next; a longer jump has none in common.
        if target.abs_diff(EPOCH.0) > 2 {
            assert!(!check(&mut jar, NOW + COOKIE_LIFETIME), "to {target}, expired");
        }
        let fresh = jar.mint(&tuple(true), IRS, &linux_offer(true), NOW);
        assert!(jar.check(&tuple(true), IRS, fresh.isn, echo(&fresh), NOW).is_ok());
    }
}

#[test]
fn another_master_key_accepts_nothing() {
    let cookie = jar().mint(&tuple(false), IRS, &linux_offer(true), NOW);
    let mut other = CookieJar::new(MasterKey::from_bytes([43; 32]), EPOCH);
    assert_eq!(other.check(&tuple(false), IRS, cookie.isn, echo(&cookie), NOW), Err(BadCookie::Mac));
}

/// A jar whose master key is another one from the earliest epoch on, and that epoch.
fn rotated(mut jar: CookieJar) -> (CookieJar, Epoch) {
    let from = jar.keys.current.rotation();
    let mut masters = jar.masters.clone();
    masters.rotate(from, MasterKey::from_bytes([43; 32])).unwrap();
    jar.set_masters(masters);
    (jar, from)
}

#[test]
fn a_rotation_refuses_no_cookie_within_its_lifetime() {
    let (mut jar, _) = rotated(jar());
    let mut out: Vec<(Epoch, FourTuple, Cookie)> = Vec::new();
    for epoch in EPOCH.0..EPOCH.0 + 9 {
        jar.advance(Epoch(epoch), NOW);
        for (v6, timestamps) in GOLDEN_INPUTS {
            out.push((Epoch(epoch), tuple(v6), jar.mint(&tuple(v6), IRS, &linux_offer(timestamps), NOW)));
        }
        for (made, tuple, cookie) in &out {
            let ok = jar.check(tuple, IRS, cookie.isn, echo(cookie), NOW).is_ok();
            assert_eq!(ok, epoch - made.0 <= 1, "made in {made:?}, checked in {epoch}");
        }
    }
}

#[test]
fn a_rotation_leaves_alone_what_nodes_may_have_made_already() {
    let mint = |epoch| {
        let mut node = CookieJar::new(MasterKey::from_bytes([42; 32]), Epoch(epoch));
        node.mint(&tuple(false), IRS, &linux_offer(true), NOW)
    };
    let made = [EPOCH.0 - 1, EPOCH.0, EPOCH.0 + 1].map(mint);
    let (mut jar, _) = rotated(jar());
    for cookie in made {
        assert!(jar.check(&tuple(false), IRS, cookie.isn, echo(&cookie), NOW).is_ok());
    }
}

#[test]
fn after_a_rotation_the_old_master_makes_nothing_that_is_taken() {
    let (mut jar, from) = rotated(jar());
    jar.advance(Epoch(EPOCH.0 + 1), NOW);
    for epoch in from.0..from.0 + 4 {
        jar.advance(Epoch(epoch), NOW);
        for made in epoch - 1..=epoch + 1 {
            let mut thief = CookieJar::new(MasterKey::from_bytes([42; 32]), Epoch(made));
            let cookie = thief.mint(&tuple(false), IRS, &linux_offer(true), NOW);
            let taken = jar.check(&tuple(false), IRS, cookie.isn, echo(&cookie), NOW);
            assert_eq!(taken.is_ok(), made < from.0, "made in {made}, checked in {epoch}, new from {from:?}");
        }
    }
    assert_eq!(jar.masters.later().count(), 0, "the old master is wiped");
}

#[test]
fn nodes_that_rotate_at_the_same_epoch_take_each_others_cookies_all_the_time() {
    let ((mut ahead, _), (mut behind, _)) = (rotated(jar()), rotated(jar()));
    for epoch in EPOCH.0..EPOCH.0 + 6 {
        ahead.advance(Epoch(epoch + 1), NOW);
        behind.advance(Epoch(epoch), NOW);
        let (offer, tuple) = (linux_offer(true), tuple(true));
        let cookie = ahead.mint(&tuple, IRS, &offer, NOW);
        assert!(behind.check(&tuple, IRS, cookie.isn, echo(&cookie), NOW).is_ok(), "made ahead of {epoch}");
        let cookie = behind.mint(&tuple, IRS, &offer, NOW);
        assert!(ahead.check(&tuple, IRS, cookie.isn, echo(&cookie), NOW).is_ok(), "made in {epoch}");
    }
}

#[test]
fn a_clock_that_jumps_over_the_rotation_and_back_rejects_no_valid_cookie() {
    let (mut jar, from) = rotated(jar());
    for target in [from.0 + 1000, EPOCH.0] {
        let cookie = jar.mint(&tuple(true), IRS, &linux_offer(true), NOW);
        jar.advance(Epoch(target), NOW);
        assert!(jar.check(&tuple(true), IRS, cookie.isn, echo(&cookie), NOW).is_ok(), "to {target}");
    }
    assert!(jar.masters.first().is(&MasterKey::from_bytes([42; 32])), "nothing was forgotten for a jump");
}

#[test]
fn twenty_rotations_in_a_row_refuse_no_cookie_within_its_lifetime() {
    let mut jar = jar();
    let mut last: Option<Cookie> = None;
    for step in 0..60u64 {
        jar.advance(Epoch(EPOCH.0 + step), NOW);
        if let Some(cookie) = last {
            assert!(jar.check(&tuple(false), IRS, cookie.isn, echo(&cookie), NOW).is_ok(), "step {step}");
        }
        last = Some(jar.mint(&tuple(false), IRS, &linux_offer(true), NOW));
        // More often than epochs change, and never twice the same.
        for half in 0..2 {
            let mut masters = jar.masters.clone();
            let new = MasterKey::from_bytes([100 + (2 * step + half) as u8 % 150; 32]);
            masters.rotate(jar.keys.current.rotation(), new).unwrap();
            jar.set_masters(masters);
        }
    }
    assert!(jar.masters.later().count() <= 5);
}

#[test]
fn the_clock_dates_the_syn_ack() {
    let mut jar = jar();
    let cookie = jar.mint(&tuple(false), IRS, &linux_offer(true), NOW);
    let later = NOW + Duration::from_millis(300);
    let age = jar.check(&tuple(false), IRS, cookie.isn, echo(&cookie), later).unwrap().age.unwrap();
    assert!(age.abs_diff(Duration::from_millis(300)) <= clock_time(2), "{age:?}");
}

#[test]
fn the_same_syn_in_the_same_epoch_gets_the_same_isn_whenever_it_comes() {
    let mut jar = jar();
    for timestamps in [true, false] {
        let first = jar.mint(&tuple(false), IRS, &linux_offer(timestamps), NOW);
        let again = jar.mint(&tuple(false), IRS, &linux_offer(timestamps), NOW + Duration::from_millis(777));
        assert_eq!(first.isn, again.isn);
    }
}

#[test]
fn a_syn_ack_can_be_made_again_two_epochs_later() {
    let mut jar = jar();
    let offer = linux_offer(true);
    let first = jar.mint(&tuple(false), IRS, &offer, NOW);
    for steps in [1, 2] {
        jar.advance(Epoch(EPOCH.0 + steps), NOW);
        assert_eq!(jar.remint(&tuple(false), IRS, first.isn, &offer, NOW.stamp()), first, "{steps} epochs later");
    }
    jar.advance(Epoch(EPOCH.0 + 5000), NOW);
    assert_eq!(jar.remint(&tuple(false), IRS, first.isn, &offer, NOW.stamp()), first, "after a jump of the clock");
}

/// Of which inputs the golden vectors are made, as `(v6, timestamps)`.
pub(crate) const GOLDEN_INPUTS: [(bool, bool); 4] = [(false, true), (false, false), (true, true), (true, false)];

/// Fixed inputs and outputs. Whoever implements the cookie once more has to produce these, as the programs of the bpf tier do.
#[test]
fn golden_vectors() {
    let vector = |(v6, timestamps)| golden_vector(&jar().mint(&tuple(v6), IRS, &linux_offer(timestamps), NOW));
    assert_eq!(GOLDEN_INPUTS.map(vector), GOLDEN);
}

pub(crate) fn golden_vector(cookie: &Cookie) -> String {
    format!("{:08x} {:08x}", cookie.isn.value(), cookie.tsval.unwrap_or(0))
}

pub(crate) const GOLDEN: [&str; 4] =
    ["37566844 f77a7b29", "3e55ac95 00000000", "27c53dc2 051c7b29", "3ef4085a 00000000"];
