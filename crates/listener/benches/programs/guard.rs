//! The guard's programs, loaded as the listener loads them, with maps of our own making.

use std::io;
use std::net::SocketAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, MapData, RingBuf};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramFd, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

use crate::cookie::KeyedState;
use crate::layout::{Clockwork, Grants, KEYS, ListenerWords, RawClockwork, RawListener, RawTarget, State, Target};
use crate::object;
use crate::replay::{Hook, load};

const BITS: u32 = 6;
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];
const BUDGET_FACTORS: [u64; 2] = [0x1656_67b1_9e37_79f9, 0x27d4_eb2f_1656_67c5];
const NS_PER_JIFFY: u64 = 4_000_000;

/// Answering, while calm, with budgets that are never used up and gates that are open.
pub const CALM: ListenerWords = ListenerWords {
    state: State::Answers,
    reports: true,
    window_scale: 7,
    form_b_always: true,
    grants: Grants { timestamps: true, sack: true, wscale: true },
    looks_up: false,
    has_entries: false,
    outlives: false,
    replies_max: 1 << 30,
    bad_cookies_max: 1 << 30,
};

/// Under pressure: SYNs are answered and forgotten.
pub const PRESSURE: ListenerWords = ListenerWords { reports: false, ..CALM };

pub struct Guard {
    ebpf: Ebpf,
    reports: RingBuf<aya::maps::MapData>,
    xdp: ProgramFd,
    tc: ProgramFd,
    /// Lists were given; from then on no lists are empty ones.
    pub denies: bool,
}

impl Guard {
    /// With the addresses that it guards, and those of the devices that it guards them on.
    pub fn load(guarded: &[SocketAddr], macs: Vec<[u8; 6]>) -> io::Result<Guard> {
        let object = object::for_this_kernel()?;
        let mut ebpf = EbpfLoader::new()
            .override_global("target_bits", &BITS, true)
            .override_global("target_factors", &FACTORS, true)
            .override_global("budget_factors", &BUDGET_FACTORS, true)
            .override_global("ns_per_jiffy", &NS_PER_JIFFY, true)
            .load(&object)
            .map_err(io::Error::other)?;
        let xdp = load(&mut ebpf, "guard_xdp", Hook::Xdp)?;
        let tc = load(&mut ebpf, "guard_tc", Hook::Tc)?;
        let reports = ebpf.take_map("reports").expect("reports");
        let mut guard =
            Guard { ebpf, reports: RingBuf::try_from(reports).map_err(io::Error::other)?, xdp, tc, denies: false };
        guard.fill(guarded, macs)?;
        Ok(guard)
    }

    fn fill(&mut self, guarded: &[SocketAddr], macs: Vec<[u8; 6]>) -> io::Result<()> {
        let clockwork = Clockwork {
            current: 1,
            accepted: [true, true, true, true, false, false, false, false],
            macs,
            offset_ns: 0,
            kept: None,
        };
        self.set::<RawClockwork>("clockwork", 0, clockwork.to_raw())?;
        // Any state of the hash is as good as another here.
        let keys: [KeyedState; KEYS] = std::array::from_fn(|n| KeyedState([n as u64 + 1, 2, 3, 4]));
        for &local in guarded {
            let target = Target { local, mss: 1460, listener: 0 };
            let place = target.places(FACTORS, BITS)[0] as u32;
            self.set::<RawTarget>("targets", place, target.to_raw(&keys))?;
        }
        Ok(())
    }

    /// Denies these prefixes in silence.
    pub fn deny(&mut self, prefixes: &[([u8; 16], u32)]) -> io::Result<()> {
        const ON_DEMAND: u32 = 1; // BPF_F_NO_PREALLOC
        type Trie = LpmTrie<MapData, [u8; 16], u32>;
        let mut trie = Trie::create(prefixes.len().max(1) as u32, ON_DEMAND).map_err(io::Error::other)?;
        for (addr, len) in prefixes {
            trie.insert(&Key::new(*len, *addr), 1, 0).map_err(io::Error::other)?;
        }
        let map = self.ebpf.map_mut("sources").ok_or_else(|| io::Error::other("no map sources"))?;
        let mut map: ArrayOfMaps<_, Trie> = ArrayOfMaps::try_from(map).map_err(io::Error::other)?;
        self.denies = true;
        map.set(0, &trie, 0).map_err(io::Error::other)
    }

    /// Gives the orders by which packets are judged from now on.
    pub fn order(&mut self, words: ListenerWords) -> io::Result<()> {
        self.set::<RawListener>("listeners", 0, words.to_raw())
    }

    pub fn program(&self, hook: Hook) -> &ProgramFd {
        match hook {
            Hook::Xdp => &self.xdp,
            Hook::Tc => &self.tc,
        }
    }

    /// With the program behind the driver of a device meanwhile.
    pub fn while_behind<R>(&mut self, device: &str, body: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let program = self.ebpf.program_mut("guard_tc").expect("guard_tc");
        let program: &mut SchedClassifier = program.try_into().map_err(io::Error::other)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(device, TcAttachType::Ingress, options).map_err(io::Error::other)?;
        let result = body();
        program.detach(link).map_err(io::Error::other)?;
        result
    }

    /// Makes room for reports.
    pub fn forget_reports(&mut self) {
        while self.reports.next().is_some() {}
    }

    fn set<T: aya::Pod>(&mut self, map: &str, index: u32, value: T) -> io::Result<()> {
        let map = self.ebpf.map_mut(map).ok_or_else(|| io::Error::other(format!("no map {map}")))?;
        let mut map: Array<_, T> = Array::try_from(map).map_err(io::Error::other)?;
        map.set(index, value, 0).map_err(io::Error::other)
    }
}
