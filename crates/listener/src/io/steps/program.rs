//! The loaded program, its maps, and who has which part of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::BtfTracePoint;
use aya::util::nr_cpus;
use aya::{Btf, Ebpf, EbpfLoader};

use super::{GuardKey, port_of};
use crate::io::bpf::{check_to_look, in_words};
use crate::io::sieve::in_full;
use crate::state::TcpState;
use crate::transition::{Transition, TransitionCounts};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/objects/steps.o"));

/// Listeners of a process whose steps can be counted, `SLOTS` of the program: 256 bytes each and core.
const SLOTS: usize = 64;

/// `STEPS` of the program: the place of a step in [`Transition::ALL`] and one more is its number, and 0 is that of none.
const STEPS: usize = 32;
const _: () = assert!(Transition::ALL.len() < STEPS);

/// `STATES` of the program.
const STATES: u8 = 16;

/// The program of this process, for as long as somebody uses it.
static OF_PROCESS: Mutex<Weak<Program>> = Mutex::new(Weak::new());

/// Dropping it takes the program off the tracepoint.
pub(super) struct Program {
    _ebpf: Ebpf,
    tables: Mutex<Tables>,
}

/// The program's maps.
struct Tables {
    ports: Array<MapData, u64>,
    guards: HashMap<MapData, GuardKey, Owner>,
    counts: PerCpuArray<MapData, [u64; STEPS]>,
    /// What stands in `guards`, and whose it is.
    guarded: BTreeMap<GuardKey, u32>,
    taken: [bool; SLOTS],
}

/// `struct owner` of the program: the slot, and 1 where the kernel's handshakes count.
type Owner = [u32; 2];

impl Program {
    /// The one that is there, or a new one.
    pub(super) fn of_process() -> io::Result<Arc<Program>> {
        let mut of_process = OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = of_process.upgrade() {
            return Ok(program);
        }
        check_to_look()?;
        let program = Arc::new(Program::load().map_err(in_words)?);
        *of_process = Arc::downgrade(&program);
        Ok(program)
    }

    fn load() -> io::Result<Program> {
        let btf = Btf::from_sys_fs().map_err(in_full)?;
        let numbers = step_numbers();
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).override_global("step_numbers", numbers.as_slice(), true);
        let mut ebpf = loader.load(OBJECT).map_err(in_full)?;
        let tables = Tables::of(&mut ebpf)?;
        let program = ebpf.program_mut("count_step").ok_or_else(|| absent("count_step"))?;
        let program: &mut BtfTracePoint = program.try_into().map_err(in_full)?;
        program.load("inet_sock_set_state", &btf).map_err(in_full)?;
        program.attach().map_err(in_full)?;
        Ok(Program { _ebpf: ebpf, tables: Mutex::new(tables) })
    }

    /// A place for a listener's counts, all of them 0.
    pub(super) fn take_slot(&self) -> io::Result<u32> {
        let mut tables = self.tables();
        let Some(slot) = tables.taken.iter().position(|taken| !taken) else {
            let text = format!("the steps of {SLOTS} listeners are counted already, and no more of one process");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        };
        tables.clear(slot as u32)?;
        tables.taken[slot] = true;
        Ok(slot as u32)
    }

    /// The place is free, and what was guarded for it nobody's.
    pub(super) fn give_back(&self, slot: u32) {
        let mut tables = self.tables();
        tables.abandon(slot);
        tables.taken[slot as usize] = false;
    }

    /// Counts what happens at these addresses in this place, from now on.
    pub(super) fn guard(&self, slot: u32, keys: &[GuardKey], counts_handshakes: bool) -> io::Result<()> {
        let mut tables = self.tables();
        let owner = [slot, u32::from(counts_handshakes)];
        let guarded = keys.iter().try_for_each(|key| tables.guard(key, owner));
        if guarded.is_err() {
            tables.abandon(slot);
        }
        guarded
    }

    pub(super) fn counts(&self, slot: u32) -> io::Result<TransitionCounts> {
        let of_each_core = self.tables().counts.get(&slot, 0).map_err(in_full)?;
        Ok(std::array::from_fn(|step| of_each_core.iter().map(|counts| counts[step + 1]).sum()))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // What a panic leaves half done here is no worse than what a system call does that fails.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn of(ebpf: &mut Ebpf) -> io::Result<Tables> {
        let mut take = |name: &str| ebpf.take_map(name).ok_or_else(|| absent(name));
        Ok(Tables {
            ports: Array::try_from(take("ports")?).map_err(in_full)?,
            guards: HashMap::try_from(take("guards")?).map_err(in_full)?,
            counts: PerCpuArray::try_from(take("counts")?).map_err(in_full)?,
            guarded: BTreeMap::new(),
            taken: [false; SLOTS],
        })
    }

    fn clear(&mut self, slot: u32) -> io::Result<()> {
        let cores = nr_cpus().map_err(|(file, error)| io::Error::new(error.kind(), format!("{file}: {error}")))?;
        let zeros = PerCpuValues::try_from(vec![[0; STEPS]; cores])?;
        self.counts.set(slot, zeros, 0).map_err(in_full)
    }

    fn guard(&mut self, key: &GuardKey, owner: Owner) -> io::Result<()> {
        self.guards.insert(key, owner, 0).map_err(in_full)?;
        self.guarded.insert(*key, owner[0]);
        self.show_port(port_of(key))
    }

    fn abandon(&mut self, slot: u32) {
        let is_its = |(_, owner): &(&GuardKey, &u32)| **owner == slot;
        let abandoned: Vec<_> = self.guarded.iter().filter(is_its).map(|(key, _)| *key).collect();
        self.guarded.retain(|_, owner| *owner != slot);
        for key in abandoned {
            // Where one of the two fails, the program counts on for a listener that nobody reads.
            let _ = self.guards.remove(&key);
            let _ = self.show_port(port_of(&key));
        }
    }

    /// Has the program look at sockets of this port if somebody guards it, and only then.
    fn show_port(&mut self, port: u16) -> io::Result<()> {
        let index = u32::from(port / 64);
        let is_in_word = |key: &&GuardKey| u32::from(port_of(key) / 64) == index;
        let word = self.guarded.keys().filter(is_in_word).fold(0, |word, key| word | 1_u64 << (port_of(key) % 64));
        self.ports.set(index, word, 0).map_err(in_full)
    }
}

/// The number of the step between each pair of states, which have Linux's numbers; 0 for what is no step.
fn step_numbers() -> Vec<u8> {
    let state = |number: u8| TcpState::from_linux(number).filter(|_| number < STATES);
    let number = |from: u8, to: u8| {
        let step = Transition { from: state(from)?, to: state(to)? };
        Some(step.index()? as u8 + 1)
    };
    (0..STATES).flat_map(|from| (0..STATES).map(move |to| number(from, to).unwrap_or(0))).collect()
}

fn absent(name: &str) -> io::Error {
    io::Error::other(format!("the eBPF object has no {name}"))
}
