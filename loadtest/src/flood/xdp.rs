//! Frames by an eBPF program that the kernel runs again and again, and whose verdict sends them out of a device.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::{RawTracePoint, TestRun, TestRunAttrs, Xdp as XdpProgram, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRunOptions};
use nix::net::if_::if_nametoindex;
use nix::time::{ClockId, clock_gettime};
use testnet::{Mac, Namespace};

use super::progress::{Stopped, Work};
use super::recipe::Recipe;
use super::template::RAW_WORDS;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/flood.o");

/// Frames made before the device gets the last of them. Its queue has room for 256, and empties when the batch is complete.
const BATCH: u32 = 64;

/// So many times as fast as asked for, until what is late has been sent.
const CATCH_UP: f64 = 1.5;
/// How long one system call should take: changes of the rate and the end of the flood wait for it.
const RUN: Duration = Duration::from_millis(20);
/// How often the program runs in that time: some 3000 times when every frame goes all the way into a busy kernel, half a million times
/// when nothing is due.
const REPEAT: std::ops::RangeInclusive<f64> = 4096.0..=4_194_304.0;

/// As `struct state` has it.
#[derive(Clone, Copy, Debug)]
struct State {
    made: u64,
    taken: u64,
    allowed: u64,
    since_ns: u64,
    due_then: u64,
    rate: u64,
    task: u64,
}

/// One thread's engine. Loaded and run in the device's namespace: the program names it by number.
pub struct Xdp {
    ebpf: Ebpf,
    blank: Vec<u8>,
    repeat: f64,
    /// Where the program, once ready, is attached to a device by which nothing ever comes. Otherwise the kernel would change its dispatcher of XDP
    /// programs at the beginning and end of each call, and wait both times until no core is in it: 20 ms without a frame.
    attached: Option<Namespace>,
}

impl Xdp {
    /// Loads the program: every `stride`th frame from `first` on.
    pub fn open(interface: &str, recipe: &Recipe, first: u64, stride: u64) -> io::Result<Xdp> {
        let longest = recipe.templates().iter().map(|template| template.len()).max().unwrap_or(0);
        let (count, frame_max) = (recipe.templates().len() as u32, longest as u32);
        let device = if_nametoindex(interface)?;
        let mut ebpf = EbpfLoader::new()
            .override_global("key", &recipe.key(), true)
            .override_global("first", &first, true)
            .override_global("stride", &stride, true)
            .override_global("template_count", &count, true)
            .override_global("frame_max", &frame_max, true)
            .override_global("device", &device, true)
            .override_global("burst", &u64::from(BATCH), true)
            .load(OBJECT)
            .map_err(io::Error::other)?;
        set_templates(&mut ebpf, recipe)?;
        program(&mut ebpf)?.load().map_err(io::Error::other)?;
        Ok(Xdp { ebpf, blank: vec![0; longest], repeat: *REPEAT.start(), attached: None })
    }

    /// Sees to it that sending goes quickly, and that the kernel tells how many frames the device takes.
    pub fn get_ready(&mut self) -> io::Result<()> {
        let (quiet, program) = (Namespace::new(), program(&mut self.ebpf)?);
        quiet.run(|| program.attach("lo", XdpMode::Skb)).map_err(io::Error::other)?;
        self.attached = Some(quiet);
        let taken = self.ebpf.program_mut("taken").ok_or_else(|| io::Error::other("no program taken"))?;
        let taken: &mut RawTracePoint = taken.try_into().map_err(io::Error::other)?;
        taken.load().map_err(io::Error::other)?;
        taken.attach("xdp_devmap_xmit").map(drop).map_err(io::Error::other)
    }

    /// Sends the first frame: whether the device takes it.
    pub fn knock(&mut self) -> io::Result<bool> {
        self.write(State { allowed: 1, ..self.read()? })?;
        self.repeat(BATCH)?;
        let state = self.read()?;
        // The calling thread knocks for others too, and will not go on with this one.
        self.write(State { task: 0, ..state })?;
        Ok(state.taken == 1)
    }

    /// Sends what is due until the flood ends.
    pub fn run(&mut self, mut work: Work<'_>) -> Stopped {
        let knocked = self.read().unwrap_or_default();
        work.did(knocked.taken, knocked.made.saturating_sub(knocked.taken));
        loop {
            match work.todo() {
                Ok(todo) => self.step(todo, &mut work),
                Err(stopped) => return stopped,
            }
        }
    }

    /// One system call. A failure is frames that were not made, which is then seen in the numbers; a signal may end it early.
    fn step(&mut self, todo: Option<u64>, work: &mut Work<'_>) {
        let Ok(before) = self.read() else { return };
        let begun = Instant::now();
        let due = todo.map_or(u64::MAX, |_| work.due());
        let rate = work.rate().map_or(0.0, |rate| rate * 2f64.powi(32) / 1e9);
        // What is late, because somebody else had the core, comes faster and not all at once: no link delivers a burst like that.
        let late = todo.is_some() && due > before.made + u64::from(BATCH);
        let (due, rate) = if late { (before.made + u64::from(BATCH), CATCH_UP * rate) } else { (due, rate) };
        let orders = State { allowed: due, due_then: due, since_ns: monotonic_ns(), rate: rate as u64, ..before };
        let ran = self.write(orders).and_then(|()| self.repeat(self.repeat as u32));
        let after = self.read().unwrap_or(before);
        let (made, taken) = (after.made - before.made, after.taken - before.taken);
        work.did(taken, made.saturating_sub(taken));
        if ran.is_err() {
            sleep(work.nap());
        }
        let change = RUN.as_secs_f64() / begun.elapsed().as_secs_f64();
        self.repeat = (self.repeat * change.clamp(0.5, 2.0)).clamp(*REPEAT.start(), *REPEAT.end());
    }

    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), `BPF_PROG_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`.
    fn repeat(&mut self, repeat: u32) -> io::Result<()> {
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let options = TestRunOptions { data_in: Some(&self.blank), repeat, attrs, ..TestRunOptions::default() };
        program(&mut self.ebpf)?.test_run(options).map(drop).map_err(io::Error::other)
    }

    /// The next frame as the program makes it, without sending it.
    #[cfg(test)]
    pub fn next_frame(&mut self) -> io::Result<Vec<u8>> {
        self.write(State { allowed: u64::MAX, ..self.read()? })?;
        let mut out = vec![0; 256];
        let options =
            TestRunOptions { data_in: Some(&self.blank), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program(&mut self.ebpf)?.test_run(options).map_err(io::Error::other)?;
        out.truncate(result.data_size_out as usize);
        Ok(out)
    }

    fn read(&self) -> io::Result<State> {
        let map = self.ebpf.map("state").ok_or_else(|| io::Error::other("no map state"))?;
        let map: Array<&MapData, [u64; 7]> = Array::try_from(map).map_err(io::Error::other)?;
        map.get(&0, 0).map(State::from).map_err(io::Error::other)
    }

    fn write(&mut self, state: State) -> io::Result<()> {
        let map = self.ebpf.map_mut("state").ok_or_else(|| io::Error::other("no map state"))?;
        let mut map: Array<&mut MapData, [u64; 7]> = Array::try_from(map).map_err(io::Error::other)?;
        map.set(0, <[u64; 7]>::from(state), 0).map_err(io::Error::other)
    }
}

/// A program in the driver of a device, for as long as this lives.
#[derive(Debug)]
pub struct InDriver {
    _ebpf: Ebpf,
}

impl InDriver {
    /// Attaches the program of this name to an interface of the calling thread's namespace. Frames to `nobody` end there.
    pub fn attach(name: &str, interface: &str, nobody: Option<Mac>) -> io::Result<InDriver> {
        let nobody = nobody.map_or(0, |Mac([a, b, c, d, e, f])| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let mut loader = EbpfLoader::new();
        let mut ebpf = loader.override_global("nobody", &nobody, true).load(OBJECT).map_err(io::Error::other)?;
        let program = ebpf.program_mut(name).ok_or_else(|| io::Error::other(format!("no program {name}")))?;
        let program: &mut XdpProgram = program.try_into().map_err(io::Error::other)?;
        program.load().map_err(io::Error::other)?;
        program.attach(interface, XdpMode::Driver).map_err(io::Error::other)?;
        Ok(InDriver { _ebpf: ebpf })
    }
}

impl Default for State {
    fn default() -> State {
        State::from([0; 7])
    }
}

impl From<[u64; 7]> for State {
    fn from([made, taken, allowed, since_ns, due_then, rate, task]: [u64; 7]) -> State {
        State { made, taken, allowed, since_ns, due_then, rate, task }
    }
}

impl From<State> for [u64; 7] {
    fn from(state: State) -> [u64; 7] {
        let State { made, taken, allowed, since_ns, due_then, rate, task } = state;
        [made, taken, allowed, since_ns, due_then, rate, task]
    }
}

fn program(ebpf: &mut Ebpf) -> io::Result<&mut XdpProgram> {
    let program = ebpf.program_mut("flood").ok_or_else(|| io::Error::other("no program flood"))?;
    program.try_into().map_err(io::Error::other)
}

fn set_templates(ebpf: &mut Ebpf, recipe: &Recipe) -> io::Result<()> {
    let map = ebpf.map_mut("templates").ok_or_else(|| io::Error::other("no map templates"))?;
    let mut map: Array<&mut MapData, [u64; RAW_WORDS]> = Array::try_from(map).map_err(io::Error::other)?;
    for (index, template) in recipe.templates().iter().enumerate() {
        map.set(index as u32, template.raw(), 0).map_err(io::Error::other)?;
    }
    Ok(())
}

/// As `bpf_ktime_get_ns` has it.
fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
