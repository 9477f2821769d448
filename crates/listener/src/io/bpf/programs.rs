//! The loaded programs and their maps.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, ArrayOfMaps, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, Xdp};
use aya::{Ebpf, EbpfLoader, TestRunOptions};

use super::layout::{RawClockwork, RawCounters, RawListener, RawTarget};
use super::lists::ListsInForce;
use super::object;
use crate::io::sieve::in_full;
use crate::io::worker::clock;
use crate::time::Time;

/// What the programs are told before they are loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    /// The table of targets has two to this many places.
    pub target_bits: u32,
    /// Odd and random.
    pub target_factors: [u64; 2],
    /// Odd and random, and secret.
    pub budget_factors: [u64; 2],
    pub ns_per_jiffy: u64,
}

pub(super) struct Programs {
    pub ebpf: Ebpf,
    pub targets: Array<MapData, RawTarget>,
    pub listeners: Array<MapData, RawListener>,
    pub clockwork: Array<MapData, RawClockwork>,
    pub counters: PerCpuArray<MapData, RawCounters>,
    pub reports: RingBuf<MapData>,
    pub form_b_until: Array<MapData, u64>,
    pub waits_until: Array<MapData, u64>,
    pub lists: Arc<ListsInForce>,
    refused: Refused,
}

impl Programs {
    /// Loads the program that every host needs; it is attached nowhere yet. The others are loaded when they are first asked for: each keeps
    /// the kernel's verifier busy for part of a second. Their reports go into the ring that is pinned there, if one is to be.
    pub(super) fn load(constants: &Constants, reports: Option<&Path>) -> io::Result<Programs> {
        let object = object::for_this_kernel()?;
        let Constants { target_bits, target_factors, budget_factors, ns_per_jiffy } = constants;
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("targets", 1 << target_bits)
            .override_global("target_bits", target_bits, true)
            .override_global("target_factors", target_factors, true)
            .override_global("budget_factors", budget_factors, true)
            .override_global("ns_per_jiffy", ns_per_jiffy, true);
        if let Some(path) = reports {
            loader.map_pin_path("reports", path);
        }
        let mut ebpf = loader.load(&object).map_err(in_full)?;
        let mut take = |name: &str| ebpf.take_map(name).ok_or_else(|| io::Error::other(format!("no map {name}")));
        let [targets, listeners, clockwork] = ["targets", "listeners", "clockwork"].map(&mut take);
        let [counters, reports] = ["counters", "reports"].map(&mut take);
        let [form_b_until, waits_until] = ["form_b_until", "waits_until"].map(&mut take);
        let sources = ArrayOfMaps::try_from(take("sources")?).map_err(in_full)?;
        let mut programs = Programs {
            targets: Array::try_from(targets?).map_err(in_full)?,
            listeners: Array::try_from(listeners?).map_err(in_full)?,
            clockwork: Array::try_from(clockwork?).map_err(in_full)?,
            counters: PerCpuArray::try_from(counters?).map_err(in_full)?,
            reports: RingBuf::try_from(reports?).map_err(in_full)?,
            form_b_until: Array::try_from(form_b_until?).map_err(in_full)?,
            waits_until: Array::try_from(waits_until?).map_err(in_full)?,
            lists: Arc::new(ListsInForce::new(sources)),
            ebpf,
            refused: Refused::default(),
        };
        programs.behind_driver(Link::Ethernet)?;
        Ok(programs)
    }

    /// Loads every program, whether there is a device for it or not.
    ///
    /// # Errors
    /// Of the first that cannot be loaded.
    pub(super) fn load_all(&mut self) -> io::Result<()> {
        self.at_driver()?;
        self.behind_driver(Link::None).map(drop)
    }

    /// The program that answers SYNs in the driver.
    pub(super) fn at_driver(&mut self) -> io::Result<&mut Xdp> {
        const NAME: &str = "guard_xdp";
        let program: &mut Xdp = program(&mut self.ebpf, NAME)?.try_into().map_err(in_full)?;
        if program.fd().is_err() {
            self.refused.unless_lately(NAME, || program.load())?;
        }
        Ok(program)
    }

    /// The program that does so behind it, and makes connections.
    pub(super) fn behind_driver(&mut self, link: Link) -> io::Result<&mut SchedClassifier> {
        self.classifier(match link {
            Link::Ethernet => "guard_tc",
            Link::None => "guard_tc_ip",
        })
    }

    /// The kernel's clock of jiffies, read by a program.
    pub(super) fn jiffies(&mut self) -> io::Result<u64> {
        let reader = self.classifier("read_jiffies")?;
        let frame = [0; 64];
        reader.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() }).map_err(in_full)?;
        let map = self.ebpf.map("jiffies").ok_or_else(|| io::Error::other("no map jiffies"))?;
        let map: Array<_, u64> = Array::try_from(map).map_err(in_full)?;
        map.get(&0, 0).map_err(in_full)
    }

    fn classifier(&mut self, name: &'static str) -> io::Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = program(&mut self.ebpf, name)?.try_into().map_err(in_full)?;
        if program.fd().is_err() {
            self.refused.unless_lately(name, || program.load())?;
        }
        Ok(program)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| io::Error::other(format!("no program {name}")))
}

/// Programs that could not be loaded: when, and why. Devices are looked at again each second, and each attempt keeps the verifier busy.
#[derive(Debug, Default)]
struct Refused(HashMap<&'static str, (Time, io::ErrorKind, String)>);

impl Refused {
    const AGAIN_AFTER: Duration = Duration::from_secs(60);

    /// Loads a program, unless that has failed lately: then it fails with the same words.
    fn unless_lately(&mut self, name: &'static str, load: impl FnOnce() -> Result<(), ProgramError>) -> io::Result<()> {
        let now = clock();
        if let Some((when, kind, why)) = self.0.get(name)
            && now.since(*when) < Refused::AGAIN_AFTER
        {
            return Err(io::Error::new(*kind, why.clone()));
        }
        load().map_err(in_full).inspect_err(|error| {
            self.0.insert(name, (now, error.kind(), error.to_string()));
        })
    }
}

/// What stands before the IP header in a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Ethernet,
    /// Nothing: tun.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_loaded_is_not_tried_again_at_once_and_fails_for_the_same_reason() {
        let (mut refused, mut attempts) = (Refused::default(), 0);
        let mut fail = |refused: &mut Refused, name| {
            let load = || {
                attempts += 1;
                Err(ProgramError::NotLoaded)
            };
            refused.unless_lately(name, load).expect_err("a failure").to_string()
        };
        let first = fail(&mut refused, "one");
        assert_eq!(fail(&mut refused, "one"), first);
        fail(&mut refused, "other");
        let (when, ..) = refused.0.get_mut("one").expect("it is remembered");
        *when = clock() - Refused::AGAIN_AFTER;
        fail(&mut refused, "one");
        assert_eq!(attempts, 3);
        assert!(refused.unless_lately("third", || Ok(())).is_ok() && refused.0.len() == 2);
    }
}
