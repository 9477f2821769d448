//! Which engine makes a flood, and its threads.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::FloodError;
use super::kinds::recipe;
use super::progress::{Shared, Work};
use super::recipe::Recipe;
use super::replay::shake_hands;
use super::sockets::Sockets;
use super::spec::{Engine, FloodSpec, Place};
use super::tx_ring::TxRing;
use super::xdp::Xdp;

/// Up to this rate [`Engine::Auto`] takes the ring, which leaves its core to others while nothing is due.
const EASY_RATE: f64 = 100_000.0;

/// One thread's part of a flood.
pub enum Maker {
    /// See [`TxRing`].
    TxRing(TxRing),
    /// See [`Xdp`].
    Xdp(Box<Xdp>),
    /// See [`Sockets`].
    Sockets(Sockets),
}

/// Everything that can fail, done before the first frame is due; and the engine's name.
pub fn prepare(spec: &FloodSpec, place: &Place) -> Result<(Vec<Maker>, &'static str), FloodError> {
    place.namespace.run(|| {
        if spec.kind.needs_sockets() {
            let sockets = Sockets::open(spec.kind, spec.target, place.owned, spec.seed);
            return Ok((vec![Maker::Sockets(sockets.map_err(FloodError::io("make a runtime"))?)], "sockets"));
        }
        let recipe = match recipe(spec, place) {
            Some(recipe) => recipe,
            None => shake_hands(spec, place)?,
        };
        match spec.engine {
            Engine::Xdp => xdp(&recipe, place),
            Engine::TxRing => tx_ring(&recipe, place, spec.rate),
            Engine::Auto if spec.rate.is_some_and(|rate| rate <= EASY_RATE) => tx_ring(&recipe, place, spec.rate),
            Engine::Auto => xdp(&recipe, place).or_else(|_| tx_ring(&recipe, place, spec.rate)),
        }
    })
}

fn xdp(recipe: &Recipe, place: &Place) -> Result<(Vec<Maker>, &'static str), FloodError> {
    let threads = place.cores.len().max(1) as u64;
    let open = |first| {
        let mut xdp = Xdp::open(&place.interface, recipe, first, threads).map_err(FloodError::NoEbpf)?;
        xdp.get_ready().map_err(FloodError::NoEbpf)?;
        let takes = xdp.knock().map_err(FloodError::NoEbpf)?;
        if takes { Ok(Maker::Xdp(Box::new(xdp))) } else { Err(FloodError::NoXdp) }
    };
    Ok(((0..threads).map(open).collect::<Result<_, _>>()?, "xdp"))
}

fn tx_ring(recipe: &Recipe, place: &Place, rate: Option<f64>) -> Result<(Vec<Maker>, &'static str), FloodError> {
    /// What one thread does without trouble.
    const OF_ONE: f64 = 300_000.0;
    let needed = rate.map_or(usize::MAX, |rate| (rate / OF_ONE).ceil() as usize);
    let threads = place.cores.len().min(needed).max(1) as u64;
    let open = |first| {
        let ring = TxRing::open(&place.interface, recipe, first, threads);
        ring.map(Maker::TxRing).map_err(FloodError::io("make a transmit ring"))
    };
    Ok(((0..threads).map(open).collect::<Result<_, _>>()?, "tx-ring"))
}

/// Runs a part on its core until the flood ends.
pub fn spawn(maker: Maker, shared: &Arc<Shared>, index: usize, place: &Place) -> JoinHandle<()> {
    let (shared, namespace, core) = (Arc::clone(shared), place.namespace.clone(), place.cores.get(index).copied());
    thread::spawn(move || {
        namespace.run(|| {
            if let Some(core) = core {
                pin(core);
            }
            match maker {
                Maker::TxRing(mut ring) => drop(ring.run(Work::new(&shared, index))),
                Maker::Xdp(mut xdp) => drop(xdp.run(Work::new(&shared, index))),
                Maker::Sockets(sockets) => sockets.run(&shared, index),
            }
        });
    })
}

/// A core that is not there leaves the thread where it is: slower, but as right.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    let _ = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}
