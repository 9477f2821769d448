//! `portcullis trace`: the ladder diagram of TCP courses, drawn live of guarded connections.
//!
//! It is a program beside the server: packet sockets of its own (`tap`) with a filter in the kernel (`filter`) give it copies of the
//! handshakes, teardowns and short segments of the guarded ports; `flow`, the core, makes rows of them, without I/O and clock; `table`
//! bounds how many connections are watched; and `output` writes them. The control socket is asked, seldom, by which path a connection
//! was made (`ask`).
//!
//! Deliberately absent: data, which is counted by its sequence numbers; reassembly; anything that the process itself does not say on
//! its control socket.

mod args;
mod ask;
mod draw;
mod filter;
mod flow;
mod json;
mod output;
mod sampling;
mod table;
mod tap;
mod targets;

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use wire::Flags;

pub use args::TraceArgs;

use crate::failure::Failure;
use ask::{Asker, Heard, Made};
use flow::Via;
use output::Output;
use sampling::INTERVAL;
use table::{Table, Tracked};
use tap::{Seen, Tap};
use targets::{Asked, Targets};

/// Batches of one tap that are read before rows are made of them: what comes in order on two taps is put in order again.
const BATCHES_MAX: usize = 32;

/// Least time from one round to the next, so that many packets that come one by one cost a round each 2 ms, and not a round each: a
/// round looks at every flow.
const ROUND: Duration = Duration::from_millis(2);

/// When a flow is asked about: at once, and again where the process was not done with making it.
const ASK_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(400)];

/// Watches until it was enough.
///
/// # Errors
/// [`Failure::Rights`] without CAP_NET_RAW, [`Failure::Unavailable`] when nothing says what is guarded.
pub fn trace(args: &TraceArgs) -> Result<(), Failure> {
    let (guarded, asked) = targets::find(args)?;
    // Before there is a second thread, which would be given them.
    let signals = signals().map_err(|error| Failure::runtime("cannot wait for signals", error))?;
    let tracer = Tracer::new(args, guarded, asked)?;
    tracer.notice();
    match tracer.run(output::standard(args), args, &signals) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::runtime("cannot trace", error)),
        Ok(()) => Ok(()),
    }
}

fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// One of the two taps, and how much of what comes to it is looked at.
struct Watcher {
    tap: Tap,
    share: sampling::Share,
}

impl Watcher {
    /// Reads what came by a wider filter, for nobody: in a flood it is old, and hides what comes now.
    fn discard(&mut self) -> io::Result<()> {
        let mut nobody = Vec::new();
        for _ in 0..DISCARDED_BATCHES_MAX {
            let count = self.tap.read(&mut nobody)?;
            self.share.on_discarded(count, self.tap.drop_count());
            nobody.clear();
            if count == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// A full buffer, and as much again that came meanwhile.
const DISCARDED_BATCHES_MAX: usize = 256;

struct Tracer {
    guarded: Vec<std::net::SocketAddr>,
    peer: Option<IpNet>,
    secrets: [u32; 3],
    targets: Targets,
    handshakes: Watcher,
    others: Watcher,
    asker: Option<Asker>,
    /// By which path all connections are made, where the process says that there is one only.
    always: Option<Via>,
    table: Table,
    pending: Vec<Seen>,
}

impl Tracer {
    fn new(args: &TraceArgs, guarded: Vec<std::net::SocketAddr>, asked: Asked) -> Result<Tracer, Failure> {
        let open = |share| {
            let tap = Tap::open(share).map_err(explain_tap)?;
            Ok(Watcher { tap, share: sampling::Share::default() })
        };
        let failed = |error: io::Error| Failure::runtime("cannot start to trace", error);
        let word = || getrandom::u32().map_err(|error| Failure::runtime("no random numbers", error));
        let asker = match asked {
            Asked::Nowhere => None,
            Asked::At(socket) => Some(Asker::start(socket).map_err(failed)?),
        };
        let tracer = Tracer {
            peer: args.peer.map(|prefix| filter::canonical(prefix.into())),
            secrets: [word()?, word()?, word()?],
            targets: Targets::new(guarded.clone()).map_err(failed)?,
            guarded,
            handshakes: open(filter::Share::Handshakes)?,
            others: open(filter::Share::Others)?,
            asker,
            always: None,
            table: Table::default(),
            pending: Vec::new(),
        };
        tracer.set_filters().map_err(failed)?;
        Ok(tracer)
    }

    /// Says on standard error what is watched, so that one knows when to begin.
    fn notice(&self) {
        let list: Vec<_> = self.guarded.iter().map(ToString::to_string).collect();
        let _ = writeln!(io::stderr(), "watching {}; Ctrl-C ends", list.join(", "));
    }

    fn set_filters(&self) -> io::Result<()> {
        let others = self.others.share.shift();
        // A flow whose ACK is left out must not be shown as one that never came to anything.
        let handshakes = self.handshakes.share.shift().max(others);
        for (tap, shift) in [(&self.handshakes.tap, handshakes), (&self.others.tap, others)] {
            tap.filter(&self.guarded, self.peer, filter::Sample { shift, secrets: self.secrets })?;
        }
        Ok(())
    }

    fn run<W: Write>(mut self, mut output: Output<W>, args: &TraceArgs, signals: &SignalFd) -> io::Result<()> {
        let end = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut next_interval = Instant::now() + INTERVAL;
        let mut next_round = Instant::now();
        let enough = |output: &Output<W>| args.count.is_some_and(|count| output.ended_count() >= count);
        loop {
            let until = end.map_or(next_interval, |end| end.min(next_interval));
            let called = self.wait(until, signals)?;
            thread::sleep(next_round.saturating_duration_since(Instant::now()));
            next_round = Instant::now() + ROUND;
            self.take_segments(called)?;
            self.take_answers();
            if Instant::now() >= next_interval {
                next_interval = Instant::now() + INTERVAL;
                self.on_interval()?;
            }
            self.show(&mut output, args.count)?;
            if called || enough(&output) || end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
        }
        if !enough(&output) {
            self.take_segments(true)?;
            self.table.finish();
            self.show(&mut output, args.count)?;
        }
        let unseen = self.handshakes.share.unseen() + self.others.share.unseen();
        output.summary(unseen, self.table.unshown_count())
    }

    /// Waits for a segment, the end of the interval, or a reason to end: `true` for a signal.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody reads standard output any more.
    fn wait(&self, until: Instant, signals: &SignalFd) -> io::Result<bool> {
        let stdout = io::stdout();
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
            PollFd::new(self.handshakes.tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.others.tap.as_fd(), PollFlags::POLLIN),
        ];
        let left = until.saturating_duration_since(Instant::now()).as_millis() + 1;
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has = |index: usize, flag| fds[index].revents().is_some_and(|flags| flags.contains(flag));
        if has(1, PollFlags::POLLERR) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(has(0, PollFlags::POLLIN))
    }

    /// Reads both taps and hands on, in the order of time, what came before that: what one tap got in the meantime may be
    /// the answer to something that the other did not have yet.
    fn take_segments(&mut self, all: bool) -> io::Result<()> {
        let horizon = now();
        for watcher in [&mut self.handshakes, &mut self.others] {
            for _ in 0..BATCHES_MAX {
                let count = watcher.tap.read(&mut self.pending)?;
                watcher.share.on_seen(count);
                if count == 0 {
                    break;
                }
            }
        }
        self.pending.sort_by_key(|seen| seen.at);
        let ready = if all { self.pending.len() } else { self.pending.partition_point(|seen| seen.at <= horizon) };
        for Seen { at, interface, tuple, seg } in self.pending.drain(..ready) {
            let is_answer = seg.flags.contains(Flags::SYN | Flags::ACK);
            let Some((tuple, from)) = self.targets.judge(interface, tuple, is_answer) else { continue };
            if self.peer.is_none_or(|peer| peer.contains(&tuple.peer.addr)) {
                self.table.on_segment(at, tuple, from, &seg);
            }
        }
        Ok(())
    }

    fn on_interval(&mut self) -> io::Result<()> {
        self.targets.refresh();
        self.table.tick(now());
        let mut changed = false;
        let mut narrower = [false; 2];
        for (watcher, narrower) in [&mut self.handshakes, &mut self.others].into_iter().zip(&mut narrower) {
            let before = watcher.share.shift();
            changed |= watcher.share.on_interval(watcher.tap.drop_count());
            *narrower = watcher.share.shift() > before;
        }
        if changed {
            self.set_filters()?;
        }
        for (watcher, _) in [&mut self.handshakes, &mut self.others].into_iter().zip(narrower).filter(|(_, it)| *it) {
            watcher.discard()?;
        }
        Ok(())
    }

    /// Asks about the flows whose handshake is done.
    fn ask(&mut self) {
        let Some(asker) = &self.asker else { return };
        let now = now();
        for tracked in self.table.flows_mut() {
            let Some(pause) = ASK_AFTER.get(usize::from(tracked.asked_count)) else { continue };
            let due = now.saturating_sub(tracked.asked_at) >= *pause;
            if due && tracked.flow.wants_via() {
                if !asker.ask(tracked.tuple, tracked.serial) {
                    return;
                }
                tracked.asked_count += 1;
                tracked.asked_at = now;
            }
        }
    }

    fn take_answers(&mut self) {
        self.ask();
        let Some(asker) = &self.asker else { return };
        while let Some(heard) = asker.answer() {
            let known = match heard {
                Heard::Always(via) => {
                    self.always = Some(via);
                    continue;
                }
                Heard::Of(known) => known,
            };
            let Some(tracked) = self.table.get_mut(&known.tuple).filter(|tracked| tracked.serial == known.serial)
            else {
                continue;
            };
            let is_last = usize::from(tracked.asked_count) >= ASK_AFTER.len();
            match known.made {
                Made::By(via, age) => {
                    tracked.asked_count = u8::MAX;
                    tracked.flow.on_via(now(), via, age);
                }
                Made::Unknown if is_last => tracked.flow.on_unknown(now()),
                Made::Unknown | Made::Untold => {}
            }
            self.table.promote(&known.tuple);
        }
    }

    /// Writes what is to be written now.
    fn show<W: Write>(&mut self, output: &mut Output<W>, count: Option<u64>) -> io::Result<()> {
        let always = self.always;
        let tell = |tracked: &mut Tracked| always.iter().for_each(|via| tracked.flow.on_always(*via));
        for mut ended in self.table.take_ended() {
            tell(&mut ended);
            if count.is_some_and(|count| output.ended_count() >= count) {
                break;
            }
            output.end(ended)?;
        }
        if output.is_live() {
            for tracked in self.table.flows_mut().filter(|tracked| tracked.is_worth_showing()) {
                tell(tracked);
                output.progress(tracked)?;
            }
        }
        output.flush()
    }
}

fn explain_tap(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::PermissionDenied {
        let binary = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
        let binary = crate::rights::shell_quoted(&binary);
        return Failure::Rights(format!(
            "rights are missing:\n  CAP_NET_RAW: to see the packets of the guarded ports\n\
             Run it as root, or grant it to the program once:\n  sudo setcap cap_net_raw+ep {binary}"
        ));
    }
    Failure::runtime("cannot open a packet socket", error)
}

/// Since the Unix epoch, as the kernel stamps packets.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
