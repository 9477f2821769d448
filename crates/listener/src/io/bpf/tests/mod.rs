//! The programs, run by the kernel on single packets (`BPF_PROG_TEST_RUN`), against the Rust code.

mod answers;

use aya::TestRunOptions;
use aya::programs::{SchedClassifier, TestRun, Xdp};
use wire::{Checksums, Endpoint, Flags, FourTuple, OptionBlock, OutgoingSegment, Packet, SeqNum};

use super::layout::{Clockwork, Counted, Grants, ListenerWords, State, Target};
use super::programs::{Constants, Programs};
use crate::cookie::{CookieJar, Epoch, MasterKey};

const EPOCH: Epoch = Epoch(1001);
/// The loopback device's: the kernel runs the programs as if the frames had come in there.
const MAC: [u8; 6] = [0; 6];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT: &str = "198.18.0.2:40000";
const CLIENT_V6: &str = "[2001:db8::2]:40000";
const SERVER: &str = "198.18.0.1:80";
const SERVER_V6: &str = "[2001:db8::1]:80";
const WINDOW_SCALE: u8 = 7;

const CONSTANTS: Constants = Constants {
    target_bits: 6,
    target_factors: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f],
    budget_factors: [0x1656_67b1_9e37_79f9, 0x27d4_eb2f_1656_67c5],
    ns_per_jiffy: 4_000_000,
};

const CALM: ListenerWords = ListenerWords {
    state: State::Answers,
    reports: true,
    window_scale: WINDOW_SCALE,
    form_b_always: true,
    grants: Grants { timestamps: true, sack: true, wscale: true },
    looks_up: false,
    replies_max: 20_000,
    bad_cookies_max: 400,
};

/// Loaded programs that guard port 80 of two addresses, and the keys they were given.
struct Bench {
    programs: Programs,
    jar: CookieJar,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Dropped,
    /// Sent back, changed.
    Sent(Vec<u8>),
}

impl Bench {
    /// `None` where tests that need rights are to be skipped.
    fn new(listener: ListenerWords) -> Option<Bench> {
        const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
        if std::env::var(SKIP).is_ok_and(|value| value == "1") {
            println!("skipped, because {SKIP}=1");
            return None;
        }
        let needs = format!("needs Linux 6.9, CAP_BPF and CAP_NET_ADMIN (or {SKIP}=1)");
        let programs = Programs::load(&CONSTANTS).unwrap_or_else(|error| panic!("{needs}: {error}"));
        let jar = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
        let mut bench = Bench { programs, jar };
        bench.give_keys();
        bench.programs.listeners.set(0, listener.to_raw(u64::MAX / 2), 0).unwrap();
        Some(bench)
    }

    fn give_keys(&mut self) {
        let keys = self.jar.key_slots();
        for local in [SERVER, SERVER_V6] {
            let target = Target { local: local.parse().unwrap(), mss: 1460, listener: 0 };
            let states = keys.states(target.local);
            let place = target.places(CONSTANTS.target_factors, CONSTANTS.target_bits)[0];
            self.programs.targets.set(place as u32, target.to_raw(&states), 0).unwrap();
        }
        let clockwork = Clockwork { current: keys.current, accepted: keys.accepted, macs: vec![MAC], offset_ns: 0 };
        self.programs.clockwork.set(0, clockwork.to_raw(), 0).unwrap();
    }

    /// What the program at the driver makes of a frame.
    fn at_xdp(&mut self, frame: &[u8]) -> Fate {
        let xdp: &mut Xdp = self.programs.ebpf.program_mut("guard_xdp").unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 64];
        let run = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = xdp.test_run(run).unwrap();
        out.truncate(result.data_size_out as usize);
        match result.return_value {
            1 => Fate::Dropped,
            2 => {
                assert_eq!(out, frame, "a packet that passes is not changed");
                Fate::Passed
            }
            3 => Fate::Sent(out),
            other => panic!("XDP verdict {other}"),
        }
    }

    /// What the program behind the driver makes of it.
    fn at_tc(&mut self, frame: &[u8]) -> Fate {
        let tc: &mut SchedClassifier = self.programs.ebpf.program_mut("guard_tc").unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 64];
        let run = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = tc.test_run(run).unwrap();
        out.truncate(result.data_size_out as usize);
        match result.return_value as i32 {
            2 => Fate::Dropped,
            -1 => {
                assert_eq!(out, frame, "a packet that passes is not changed");
                Fate::Passed
            }
            7 => Fate::Sent(out),
            other => panic!("tc verdict {other}"),
        }
    }

    fn count(&self, what: Counted) -> u64 {
        let counters = self.programs.counters.get(&0, 0).unwrap();
        counters.iter().map(|counters| counters[what as usize]).sum()
    }
}

/// The tuple as the listener sees it.
fn tuple(client: &str, server: &str) -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    FourTuple { local: end(server), peer: end(client) }
}

/// An Ethernet frame of the peer's with a TCP segment.
fn frame(flow: &FourTuple, flags: Flags, seq: SeqNum, ack: SeqNum, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let segment = OutgoingSegment {
        tuple: FourTuple { local: flow.peer, peer: flow.local },
        hop_limit: 64,
        seq,
        ack,
        flags,
        window: 64_240,
        options: OptionBlock::from_bytes(options).unwrap(),
        payload,
    };
    let mut buffer = [0; 2048];
    let len = segment.emit(&mut buffer).unwrap();
    let ethertype: [u8; 2] = if flow.peer.addr.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
    [&MAC[..], &PEER_MAC, &ethertype, &buffer[..len]].concat()
}

/// The packet in a frame that was sent back, checked in all its sums.
fn packet(frame: &[u8]) -> Packet<'_> {
    assert_eq!((&frame[..6], &frame[6..12]), (&PEER_MAC[..], &MAC[..]), "back to where it came from");
    Packet::parse_ip(&frame[14..], frame.len() - 14, Checksums::Verify).unwrap()
}
