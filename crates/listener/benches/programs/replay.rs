//! Runs a program on the same frame again and again, and takes the time.

use std::io;
use std::time::Instant;

use aya::maps::{Array, ProgramArray};
use aya::programs::TestRunAttrs;
use aya::programs::{ProgramFd, SchedClassifier, TestRun, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRunOptions};

use crate::frames::Frame;

static OBJECT: &[u8] = aya::include_bytes_aligned!("replay.o");

const LINK_LEN: usize = 14;
/// As many as a driver takes from a ring at a time.
const LIVE_BATCH: u32 = 64;
/// As `struct frame` has it.
const WORDS: usize = 13;
type RawFrame = [u64; 2 + 2 * WORDS];

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
}

/// A frame, ready to be put before programs of one kind.
pub struct Replay {
    ebpf: Ebpf,
    frame: Vec<u8>,
    hook: Hook,
    nothing: ProgramFd,
}

impl Replay {
    pub fn new(hook: Hook, frame: &Frame) -> io::Result<Replay> {
        let len = frame.bytes.len() as u32;
        let vary = u8::from(!frame.varied.is_empty());
        let mut loader = EbpfLoader::new();
        loader.override_global("frame_len", &len, true).override_global("vary", &vary, true);
        let mut ebpf = loader.load(OBJECT).map_err(io::Error::other)?;
        let mut map: Array<_, RawFrame> =
            Array::try_from(ebpf.map_mut("frame").expect("frame")).map_err(io::Error::other)?;
        map.set(0, raw(frame), 0).map_err(io::Error::other)?;
        let [replay, nothing] = match hook {
            Hook::Xdp => ["replay_xdp", "nothing_xdp"],
            Hook::Tc => ["replay_tc", "nothing_tc"],
        };
        load(&mut ebpf, replay, hook)?;
        let nothing = load(&mut ebpf, nothing, hook)?;
        Ok(Replay { ebpf, frame: frame.bytes.clone(), hook, nothing })
    }

    /// Nanoseconds of a run without and with the program, one after the other, and the program's verdict.
    ///
    /// By the kernel's own clock, which gives whole ones: seen from here, setting up a run at the XDP hook takes milliseconds.
    pub fn time(&mut self, program: &ProgramFd, runs: u32) -> io::Result<(i64, i64, u32)> {
        let nothing = self.base()?;
        self.go_on_to(&nothing)?;
        let (base, _) = self.run(runs)?;
        self.go_on_to(program)?;
        let (whole, verdict) = self.run(runs)?;
        Ok((base, whole, verdict))
    }

    /// Frames per second, when the kernel makes frames and hands them to the program as if they had come in by this device, and
    /// does with them what it says.
    pub fn live(&mut self, program: &ProgramFd, device: u32, frames: u32) -> io::Result<f64> {
        self.go_on_to(program)?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let len = self.frame.len() as u32;
        let context: Vec<u8> = [0, len, 0, device, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
            ..TestRunOptions::default()
        };
        let xdp: &mut Xdp = self.ebpf.program_mut("replay_xdp").expect("it").try_into().map_err(io::Error::other)?;
        let begun = Instant::now();
        xdp.test_run(options).map_err(io::Error::other)?;
        Ok(f64::from(frames) / begun.elapsed().as_secs_f64())
    }

    /// One of the programs that stand beside the guard's for comparison.
    pub fn stub(&mut self, name: &str) -> io::Result<ProgramFd> {
        load(&mut self.ebpf, name, self.hook)
    }

    /// The program that does nothing.
    pub fn base(&self) -> io::Result<ProgramFd> {
        self.nothing.try_clone()
    }

    /// With a program in the driver of a device meanwhile that drops all that comes.
    pub fn while_sinking<R>(&mut self, device: &str, body: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let drop: &mut Xdp = self.ebpf.program_mut("nothing_xdp").expect("it").try_into().map_err(io::Error::other)?;
        let link = drop.attach(device, XdpMode::Driver).map_err(io::Error::other)?;
        let result = body();
        drop.detach(link).map_err(io::Error::other)?;
        result
    }

    fn go_on_to(&mut self, program: &ProgramFd) -> io::Result<()> {
        let name = match self.hook {
            Hook::Xdp => "next_xdp",
            Hook::Tc => "next_tc",
        };
        let mut next = ProgramArray::try_from(self.ebpf.map_mut(name).expect(name)).map_err(io::Error::other)?;
        next.set(0, program, 0).map_err(io::Error::other)
    }

    fn run(&mut self, repeat: u32) -> io::Result<(i64, u32)> {
        let mut out = vec![0; self.frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = match self.hook {
            Hook::Xdp => <&mut Xdp>::try_from(self.ebpf.program_mut("replay_xdp").expect("it"))
                .and_then(|program| program.test_run(options)),
            Hook::Tc => <&mut SchedClassifier>::try_from(self.ebpf.program_mut("replay_tc").expect("it"))
                .and_then(|program| program.test_run(options)),
        };
        let result = result.map_err(io::Error::other)?;
        Ok((result.duration.as_nanos() as i64, result.return_value))
    }
}

/// Loads a program of an object.
pub fn load(ebpf: &mut Ebpf, name: &str, hook: Hook) -> io::Result<ProgramFd> {
    let program = ebpf.program_mut(name).ok_or_else(|| io::Error::other(format!("no program {name}")))?;
    let fd = match hook {
        Hook::Xdp => <&mut Xdp>::try_from(program).and_then(|program| {
            program.load()?;
            program.fd()?.try_clone().map_err(Into::into)
        }),
        Hook::Tc => <&mut SchedClassifier>::try_from(program).and_then(|program| {
            program.load()?;
            program.fd()?.try_clone().map_err(Into::into)
        }),
    };
    fd.map_err(io::Error::other)
}

fn raw(frame: &Frame) -> RawFrame {
    let mut bytes = [0; 16 + 8 * WORDS];
    bytes[..LINK_LEN].copy_from_slice(&frame.bytes[..LINK_LEN]);
    bytes[16..16 + frame.bytes.len() - LINK_LEN].copy_from_slice(&frame.bytes[LINK_LEN..]);
    let mut raw = [0; 2 + 2 * WORDS];
    for (word, bytes) in raw.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    }
    for at in frame.varied.iter().map(|offset| offset - LINK_LEN) {
        raw[2 + WORDS + at / 8] |= 1 << (8 * (at % 8));
    }
    raw
}
