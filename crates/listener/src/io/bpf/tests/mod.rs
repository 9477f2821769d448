//! The programs, run by the kernel on single packets (`BPF_PROG_TEST_RUN`), against the Rust code.

mod acks;
mod answers;
mod budgets;
mod connections;
mod craft;
mod epochs;
mod grants;
mod guesses;
mod held;
mod lists;
mod namespace;
mod odd_packets;
mod outliving;
mod reports;
mod vectors;

use aya::TestRunOptions;
use aya::maps::{Array, PerCpuArray, PerCpuValues};
use aya::programs::TestRun;
use aya::util::nr_cpus;
use wire::{Checksums, Endpoint, Flags, FourTuple, OptionBlock, OutgoingSegment, Packet, SeqNum};

use super::layout::{
    COUNTED, Clockwork, Counted, Grants, ListenerWords, RawCounters, Report, State, TARGET_WORDS, Target,
};
use super::lists::PreparedLists;
use super::programs::{Constants, Link, Programs};
use super::targets::Placement;
use crate::cookie::{CookieJar, Epoch, KeySchedule, MasterKey};
use crate::sources::Sources;
use crate::time::Time;
use namespace::{WIRE, on_bench, on_bench_for};

const EPOCH: Epoch = Epoch(1001);
const NOW: Time = Time::from_secs(1_000_000);
/// Of both devices in the namespace.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT: &str = "198.18.0.2:40000";
const CLIENT_V6: &str = "[2001:db8::2]:40000";
const SERVER: &str = "198.18.0.1:80";
const SERVER_V6: &str = "[2001:db8::1]:80";
const PAIRS: [(&str, &str); 2] = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)];
/// A listener besides the usual one, number 0.
const OTHER_LISTENER: u32 = 63;
const WINDOW_SCALE: u8 = 7;
const MSS: u16 = 1460;

const CONSTANTS: Constants = Constants {
    target_bits: 6,
    target_factors: [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f],
    budget_factors: [0x1656_67b1_9e37_79f9, 0x27d4_eb2f_1656_67c5],
    // The clock of jiffies stands still: time is what the test says it is.
    ns_per_jiffy: 0,
};

const CALM: ListenerWords = ListenerWords {
    state: State::Answers,
    reports: true,
    window_scale: WINDOW_SCALE,
    form_b_always: true,
    grants: Grants { timestamps: true, sack: true, wscale: true },
    looks_up: false,
    has_entries: false,
    outlives: false,
    replies_max: 20_000,
    bad_cookies_max: 400,
};

const PRESSED: ListenerWords = ListenerWords { reports: false, ..CALM };

const LINUX: &[u8] = &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0, 1, 3, 3, 8];
const WINDOWS: &[u8] = &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];

/// Loaded programs that guard some addresses, and the keys they were given.
struct Bench {
    programs: Programs,
    jar: CookieJar,
    guarded: Vec<Target>,
    now: Time,
    /// When user space was last here; `None`: the programs go with it.
    kept: Option<Time>,
}

/// Where a packet meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    /// In the driver.
    Xdp,
    /// Behind the driver of a device with a cable.
    Tc,
    /// Behind the loopback device.
    Loopback,
}

const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::Tc, Hook::Loopback];

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Dropped,
    /// Sent back, changed.
    Sent(Vec<u8>),
}

impl Bench {
    /// With programs that may have run before, of which no trace is left.
    fn new(programs: Programs, guarded: &[&str], listener: ListenerWords) -> Bench {
        let jar = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
        let target = |local: &&str| Target { local: local.parse().unwrap(), mss: MSS, listener: 0 };
        let mut bench = Bench { programs, jar, guarded: guarded.iter().map(target).collect(), now: NOW, kept: None };
        bench.take_reports();
        bench.list(&Sources::default());
        bench.programs.waits_until.set(0, 0, 0).unwrap();
        bench.clear_counts();
        bench.give_keys();
        bench.order(listener);
        bench
    }

    fn clear_counts(&mut self) {
        let cpus = nr_cpus().unwrap();
        for listener in [0, OTHER_LISTENER] {
            let zero = PerCpuValues::try_from(vec![[0; COUNTED]; cpus]).unwrap();
            self.programs.counters.set(listener, zero, 0).unwrap();
        }
        for name in ["reply_budget", "cookie_budget"] {
            let map = self.programs.ebpf.map_mut(name).unwrap();
            let mut cells: PerCpuArray<_, u32> = map.try_into().unwrap();
            for cell in 0..cells.len() {
                cells.set(cell, PerCpuValues::try_from(vec![0; cpus]).unwrap(), 0).unwrap();
            }
        }
        for name in ["lately", "begun"] {
            let mut marks: Array<_, u64> = self.programs.ebpf.map_mut(name).unwrap().try_into().unwrap();
            (0..marks.len()).for_each(|place| marks.set(place, 0, 0).unwrap());
        }
    }

    /// Writes the table of targets, with the jar's keys, and the clock.
    fn give_keys(&mut self) {
        let keys = self.jar.key_slots();
        let placement = Placement { factors: CONSTANTS.target_factors, bits: CONSTANTS.target_bits };
        let placed = placement.place(&placement.table(), &self.guarded).unwrap();
        for (index, target) in placed.into_iter().enumerate() {
            let raw = target.map_or([0; TARGET_WORDS], |target| target.to_raw(&keys.states(target.local)));
            self.programs.targets.set(index as u32, raw, 0).unwrap();
        }
        let (current, accepted) = (keys.current, keys.accepted);
        let clockwork =
            Clockwork { current, accepted, macs: vec![MAC], offset_ns: self.now.as_nanos(), kept: self.kept };
        self.programs.clockwork.set(0, clockwork.to_raw(), 0).unwrap();
    }

    fn set_time(&mut self, now: Time) {
        self.now = now;
        self.give_keys();
    }

    /// Gives the listener its orders; no cookie of form B was sent yet.
    fn order(&mut self, listener: ListenerWords) {
        self.programs.listeners.set(0, listener.to_raw(), 0).unwrap();
        self.programs.form_b_until.set(0, 0, 0).unwrap();
    }

    /// Puts lists into force.
    fn list(&mut self, sources: &Sources) {
        let lists = PreparedLists::new(sources).unwrap();
        self.programs.lists.put(&lists).unwrap();
    }

    fn at(&mut self, hook: Hook, frame: &[u8]) -> Fate {
        match hook {
            Hook::Xdp => self.at_xdp(frame),
            Hook::Tc => self.behind(WIRE, frame),
            Hook::Loopback => self.behind(1, frame),
        }
    }

    /// What the program at the driver makes of a frame.
    fn at_xdp(&mut self, frame: &[u8]) -> Fate {
        let xdp = self.programs.at_driver().unwrap();
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

    /// What the program behind a cable's driver makes of it.
    fn at_tc(&mut self, frame: &[u8]) -> Fate {
        self.behind(WIRE, frame)
    }

    fn behind(&mut self, device: u32, frame: &[u8]) -> Fate {
        let tc = self.programs.behind_driver(Link::Ethernet).unwrap();
        let mut out = vec![0; frame.len() + 64];
        let context = context(device);
        let run = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
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

    fn counted(&self) -> RawCounters {
        let by_cpu = self.programs.counters.get(&0, 0).unwrap();
        std::array::from_fn(|index| by_cpu.iter().map(|counters| counters[index]).sum())
    }

    fn count(&self, what: Counted) -> u64 {
        self.counted()[what as usize]
    }

    /// What was counted since `before`, each as often as it was.
    fn counted_since(&self, before: &RawCounters) -> Vec<usize> {
        let now = self.counted();
        (0..COUNTED).flat_map(|index| std::iter::repeat_n(index, (now[index] - before[index]) as usize)).collect()
    }

    /// The reports that wait in the ring.
    fn take_reports(&mut self) -> Vec<Report> {
        let mut taken = Vec::new();
        while let Some(item) = self.programs.reports.next() {
            taken.push(Report::parse(&item).expect("a report of our own"));
        }
        taken
    }
}

/// The beginning of a `struct __sk_buff` that came in by this device.
fn context(device: u32) -> [u8; 44] {
    let mut context = [0; 44];
    context[40..].copy_from_slice(&device.to_ne_bytes());
    context
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

/// A SYN with these options.
fn syn(flow: &FourTuple, irs: SeqNum, options: &[u8]) -> Vec<u8> {
    frame(flow, Flags::SYN, irs, SeqNum::new(0), options, &[])
}

/// The packet in a frame that was sent back, checked in all its sums.
fn packet(frame: &[u8]) -> Packet<'_> {
    assert_eq!((&frame[..6], &frame[6..12]), (&PEER_MAC[..], &MAC[..]), "back to where it came from");
    Packet::parse_ip(&frame[14..], frame.len() - 14, Checksums::Verify).unwrap()
}
