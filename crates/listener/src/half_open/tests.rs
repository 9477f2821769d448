use std::collections::HashMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use wire::{Endpoint, SeqNum};

use super::*;
use crate::cookie::Offer;
use crate::time::Time;

const KEY: [u8; 16] = [9; 16];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn tuple(prefix: u16, host: u8, port: u16, v6: bool) -> FourTuple {
    let [a, b] = prefix.to_be_bytes();
    let (local, peer): (SocketAddr, SocketAddr) = if v6 {
        let peer = format!("[2001:db8:{a:x}:{b:x}::{host:x}]:{port}");
        ("[2001:db8::1]:80".parse().unwrap(), peer.parse().unwrap())
    } else {
        ("198.18.0.1:80".parse().unwrap(), SocketAddr::from(([198, a, b, host], port)))
    };
    FourTuple { local: Endpoint::from(local), peer: Endpoint::from(peer) }
}

fn entry(irs: u32) -> Entry {
    Entry {
        irs: SeqNum::new(irs),
        iss: SeqNum::new(!irs),
        offer: Offer { mss: 1460, wscale: Some(7), sack: true, tsval: Some(irs) },
        arrived: Time::from_secs(1).stamp(),
        retransmissions: 0,
        parked: false,
        guesses: 0,
    }
}

#[test]
fn the_bound_is_never_exceeded_and_both_families_share_it() {
    let mut queue = HalfOpen::new(100, 100, KEY, &FAMILIES);
    let mut stored = 0;
    for n in 0..1000 {
        let result = queue.insert(&tuple(n, 1, 1000, n % 2 == 0), &entry(u32::from(n)));
        stored += usize::from(result.is_ok());
        assert!(queue.len() <= 100);
    }
    assert_eq!((queue.len(), stored), (100, 100));
    assert_eq!(queue.insert(&tuple(5000, 1, 1, false), &entry(1)), Err(Full::Queue));
}

#[test]
fn it_fills_to_its_bound_in_practice() {
    for max in [1, 7, 64, 4096, 100_000] {
        let mut queue = HalfOpen::new(max, max, KEY, &FAMILIES);
        let mut n = 0u32;
        while queue.len() < max && n < 2 * max as u32 {
            let _ = queue.insert(&tuple((n >> 8) as u16, n as u8, (n >> 16) as u16 + 1, false), &entry(n));
            n += 1;
        }
        assert_eq!(queue.len(), max, "after {n} tries");
    }
}

#[test]
fn one_prefix_gets_its_share_and_leaves_room_for_others() {
    let mut queue = HalfOpen::new(100, 10, KEY, &FAMILIES);
    let stored = (1..=100).filter(|&port| queue.insert(&tuple(1, port as u8, port, false), &entry(1)).is_ok()).count();
    assert_eq!(stored, 10);
    assert_eq!(queue.insert(&tuple(1, 200, 7, false), &entry(1)), Err(Full::Prefix));
    assert_eq!(queue.insert(&tuple(2, 1, 7, false), &entry(1)), Ok(()));
    // A place that becomes free can be taken again.
    assert!(queue.remove(&tuple(1, 1, 1, false)).is_some());
    assert_eq!(queue.insert(&tuple(1, 200, 7, false), &entry(1)), Ok(()));
}

#[test]
fn a_sweep_sees_every_entry_once_in_200_ms_and_frees_what_it_removes() {
    let mut queue = HalfOpen::new(1000, 1000, KEY, &FAMILIES);
    for n in 0..1000 {
        let _ = queue.insert(&tuple(n, 1, 1, n % 3 == 0), &entry(u32::from(n)));
    }
    let before = queue.len();
    let mut seen = HashMap::new();
    for _ in 0..20 {
        queue.sweep(Duration::from_millis(10), |tuple, _| {
            *seen.entry(tuple).or_insert(0) += 1;
            Swept::Keep
        });
    }
    // Ten-millisecond steps round down to whole buckets: a few may be left for the next.
    assert!(seen.len() >= before * 9 / 10 && seen.values().all(|&times| times <= 1), "{} of {before}", seen.len());
    queue.sweep(Duration::from_millis(200), |_, entry| {
        if entry.irs.value() % 2 == 0 { Swept::Remove } else { Swept::Update(Entry { retransmissions: 3, ..entry }) }
    });
    assert!(queue.get(&tuple(2, 1, 1, false)).is_none());
    assert_eq!(queue.get(&tuple(1, 1, 1, false)).unwrap().retransmissions, 3);
    queue.sweep(Duration::from_secs(1), |_, _| Swept::Remove);
    assert_eq!(queue.len(), 0);
    assert_eq!(queue.insert(&tuple(1, 1, 1, false), &entry(1)), Ok(()));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Remove(u16),
    Sweep(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u16..60).prop_map(Step::Insert),
        2 => (0u16..60).prop_map(Step::Remove),
        1 => (0u8..4).prop_map(Step::Sweep),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Against a plain map with the same bounds.
    #[test]
    fn behaves_as_a_bounded_map(steps in steps()) {
        let (max, share) = (20, 6);
        let mut queue = HalfOpen::new(max, share, KEY, &FAMILIES);
        let mut model: HashMap<FourTuple, u32> = HashMap::new();
        let key = |n: u16| tuple(n % 7, n as u8, n, n.is_multiple_of(2));
        for step in steps {
            match step {
                Step::Insert(n) if queue.get(&key(n)).is_none() => {
                    match queue.insert(&key(n), &entry(u32::from(n))) {
                        Ok(()) => { model.insert(key(n), u32::from(n)); }
                        Err(Full::Queue) => prop_assert!(model.len() >= max * 8 / 10),
                        Err(Full::Prefix) => prop_assert!(model.len() >= share),
                    }
                }
                Step::Insert(_) => {}
                Step::Remove(n) => {
                    let removed = queue.remove(&key(n)).map(|entry| entry.irs.value());
                    prop_assert_eq!(removed, model.remove(&key(n)));
                }
                Step::Sweep(rest) => {
                    let keep = |irs: u32| irs % 4 != u32::from(rest);
                    queue.sweep(Duration::from_secs(1), |_, entry| {
                        if keep(entry.irs.value()) { Swept::Keep } else { Swept::Remove }
                    });
                    model.retain(|_, irs| keep(*irs));
                }
            }
            prop_assert_eq!(queue.len(), model.len());
            for (tuple, irs) in &model {
                prop_assert_eq!(queue.get(tuple).map(|entry| entry.irs.value()), Some(*irs));
            }
        }
    }
}
