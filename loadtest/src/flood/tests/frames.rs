//! The frames, by a parser that is not ours.

use std::collections::HashSet;
use std::net::SocketAddr;

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use testnet::isolated;

use super::super::kinds::recipe;
use super::super::xdp::Xdp;
use super::*;

const COUNT: u64 = 500;

/// What a frame says of itself, once its lengths and sums were found right.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Seen {
    source: SocketAddr,
    target: SocketAddr,
    flags: String,
    seq: u32,
    ack: u32,
    options: Vec<u8>,
    payload: Vec<u8>,
}

fn see(frame: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP in {frame:02x?}") };
    let (addresses, ip_len, sum) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "IPv4 sum");
            assert!(header.dont_fragment() && header.ttl() == 64);
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap();
            ((header.source_addr().into(), header.destination_addr().into()), usize::from(header.total_len()), sum)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let sum = tcp.calc_checksum_ipv6(header.source(), header.destination()).unwrap();
            let len = 40 + usize::from(header.payload_length());
            ((header.source_addr().into(), header.destination_addr().into()), len, sum)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ip_len, frame.len() - 14, "length");
    assert_eq!(tcp.checksum(), sum, "TCP sum");
    Seen {
        source: SocketAddr::new(addresses.0, tcp.source_port()),
        target: SocketAddr::new(addresses.1, tcp.destination_port()),
        flags: flags(&tcp),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        options: tcp.options().to_vec(),
        payload: tcp.payload().to_vec(),
    }
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let all = [
        ('F', tcp.fin()),
        ('S', tcp.syn()),
        ('R', tcp.rst()),
        ('P', tcp.psh()),
        ('A', tcp.ack()),
        ('U', tcp.urg()),
        ('E', tcp.ece()),
        ('C', tcp.cwr()),
    ];
    all.iter().filter(|(_, is_set)| *is_set).map(|(letter, _)| letter).collect()
}

fn frames(spec: &FloodSpec, spoofed: &str) -> Vec<Vec<u8>> {
    let recipe = recipe(spec, &nowhere(spoofed)).unwrap();
    (0..COUNT).map(|number| recipe.bytes(number)).collect()
}

fn distinct<T: std::hash::Hash + Eq>(seen: &[Seen], field: impl Fn(&Seen) -> T) -> usize {
    seen.iter().map(field).collect::<HashSet<_>>().len()
}

/// Each kind in each family with all sources and options.
fn for_all(mut check: impl FnMut(&FloodSpec, &str)) {
    for [target, spoofed, _] in FAMILIES {
        for kind in FRAME_KINDS {
            for sources in ALL_SOURCES {
                for options in MIXES {
                    check(&FloodSpec { sources, options, ..spec(kind, target) }, spoofed);
                }
            }
        }
    }
}

#[test]
fn every_frame_is_well_formed_and_what_was_asked_for() {
    for_all(|spec, spoofed| {
        let prefix: Prefix = spoofed.parse().unwrap();
        for frame in frames(spec, spoofed) {
            let seen = see(&frame);
            assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            assert_eq!(seen.target, spec.target);
            assert!(prefix.contains(seen.source.ip()) && seen.source.port() >= 32_768, "{seen:?}");
            let (flags, payload): (&str, &[u8]) = match spec.kind {
                FloodKind::Syn | FloodKind::HalfOpen => ("S", b""),
                FloodKind::SynData => ("S", b"GET / HTTP/1.0\r\n\r\n\r\n"),
                FloodKind::Ack => ("A", b""),
                FloodKind::Rst => ("R", b""),
                FloodKind::Fin => ("F", b""),
                FloodKind::Null => ("", b""),
                FloodKind::Xmas => ("FPU", b""),
                _ => unreachable!("not made of frames"),
            };
            assert_eq!((&*seen.flags, &*seen.payload), (flags, payload));
        }
    });
}

#[test]
fn what_should_vary_does() {
    let half = COUNT as usize / 2;
    for_all(|spec, spoofed| {
        let seen: Vec<_> = frames(spec, spoofed).iter().map(|frame| see(frame)).collect();
        assert_eq!(distinct(&seen, |one| one.seq), COUNT as usize, "{spec:?}");
        assert_eq!(distinct(&seen, |one| one.ack) == COUNT as usize, spec.kind == FloodKind::Ack, "{spec:?}");
        let (hosts, ports) = (distinct(&seen, |one| one.source.ip()), distinct(&seen, |one| one.source.port()));
        match spec.sources {
            _ if spec.kind == FloodKind::HalfOpen => assert_eq!(distinct(&seen, |one| one.source), COUNT as usize),
            Sources::Random => assert!(hosts > half && ports > half, "{spec:?} {hosts} {ports}"),
            Sources::One => assert!(hosts == 1 && ports > half, "{spec:?} {hosts} {ports}"),
            Sources::Prefix => {
                let len = if spec.target.is_ipv4() { 24 } else { 64 };
                assert!(hosts > half / 2 && ports > half, "{spec:?} {hosts} {ports}");
                assert_eq!(distinct(&seen, |one| Prefix::of(one.source.ip(), len).network()), 1);
            }
            Sources::Tuple => assert_eq!((hosts, ports), (1, 1)),
        }
    });
}

#[test]
fn random_ipv6_sources_are_of_many_networks() {
    let [target, spoofed, _] = FAMILIES[1];
    let frames = frames(&spec(FloodKind::Syn, target), spoofed);
    let networks: HashSet<_> = frames.iter().map(|frame| Prefix::of(see(frame).source.ip(), 64).network()).collect();
    assert!(networks.len() > COUNT as usize * 9 / 10, "{}", networks.len());
}

#[test]
fn no_source_comes_again_before_all_have_come() {
    let spec = FloodSpec { sources: Sources::One, ..spec(FloodKind::Syn, FAMILIES[0][0]) };
    let recipe = recipe(&spec, &nowhere(FAMILIES[0][1])).unwrap();
    let port = |number| recipe.bytes(number)[34..36].to_vec();
    assert_eq!((0..32_768).map(port).collect::<HashSet<_>>().len(), 32_768);
    assert_eq!(port(0), port(32_768));
}

#[test]
fn options_are_those_of_the_systems() {
    let timestamps = |options: &[u8], at: usize| u32::from_be_bytes(options[at..at + 4].try_into().unwrap());
    let of = |kind, options| {
        let spec = FloodSpec { options, ..spec(kind, FAMILIES[0][0]) };
        frames(&spec, FAMILIES[0][1]).iter().map(|frame| see(frame).options).collect::<Vec<_>>()
    };
    let linux = of(FloodKind::Syn, OptionMix::Linux);
    assert!(linux.iter().all(|one| one[..8] == [2, 4, 5, 180, 4, 2, 8, 10] && one[12..] == [0, 0, 0, 0, 1, 3, 3, 8]));
    assert_eq!(linux.iter().map(|one| timestamps(one, 8)).collect::<HashSet<_>>().len(), COUNT as usize);
    assert!(of(FloodKind::Syn, OptionMix::None).iter().all(|one| *one == [2, 4, 5, 180]));
    let acks = of(FloodKind::Ack, OptionMix::Macos);
    assert!(acks.iter().all(|one| one[..4] == [1, 1, 8, 10] && one.len() == 12));
    assert_eq!(acks.iter().map(|one| timestamps(one, 8)).collect::<HashSet<_>>().len(), COUNT as usize);
    let lens: HashSet<_> = of(FloodKind::Syn, OptionMix::Mixed).iter().map(Vec::len).collect();
    assert_eq!(lens, HashSet::from([20, 12, 24, 4]));
}

#[test]
fn the_same_seed_gives_the_same_frames_and_another_others() {
    for_all(|spec, spoofed| {
        assert_eq!(frames(spec, spoofed), frames(spec, spoofed));
        let other = FloodSpec { seed: 8, ..spec.clone() };
        assert!(frames(spec, spoofed).iter().zip(frames(&other, spoofed)).all(|(a, b)| *a != b));
    });
}

#[test]
fn the_program_makes_the_same_frames() {
    if std::env::var("TESTNET_USER_NAMESPACE").is_ok_and(|value| value == "1") {
        println!("skipped, because TESTNET_USER_NAMESPACE=1: no eBPF there");
        return;
    }
    isolated!(|| {
        for_all(|spec, spoofed| {
            // Loading a program takes longer than all the rest; these are enough to have each field and length once.
            if spec.sources == Sources::Random || spec.kind == FloodKind::Syn && spec.options == OptionMix::Mixed {
                let recipe = recipe(spec, &nowhere(spoofed)).unwrap();
                let mut program = Xdp::open("lo", &recipe, 3, 7).unwrap();
                for index in 0..20 {
                    assert_eq!(program.next_frame().unwrap(), recipe.bytes(3 + 7 * index), "{spec:?} {index}");
                }
            }
        });
    });
}
