//! The thread that keeps the programs: it takes their reports, gives them keys and orders, and adds up what they count.

mod gave_way;
mod guesses;
mod writing;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gave_way::GaveWay;
use guesses::{Change, Guesses};
use tracing::{info, warn};

use super::attach::{Attached, BpfHook};
use super::counts;
use super::layout::{ALONE, COUNTED, Clockwork, Counted, Kind, ListenerWords, RawCounters, Report, State, WAITS};
use super::programs::Programs;
use super::refresh::Promise;
use super::settings::Settings;
use super::sleeper::Sleeper;
use super::targets::{Placement, Table};
use crate::cookie::{KeySchedule, KeySlots};
use crate::half_open::RTO;
use crate::held::KernelSockets;
use crate::io::estate::{Bookmark, BpfEstate};
use crate::io::host::{Host, SharedInterfaces};
use crate::io::interfaces::Watch;
use crate::io::latest::Latest;
use crate::io::sieve::in_full;
use crate::io::switches::SwitchRecord;
use crate::io::transmit::Transmit;
use crate::io::worker::{clock, epoch};
use crate::listen::Listen;
use crate::pressure::Mode;
use crate::sources::Sources;
use crate::stats::{Counter, SharedStats};
use crate::time::Time;

/// Reports taken between two looks at everything else.
const BATCH: usize = 4096;

/// Time between two looks at the timers and the counts while there is something to look for.
const TICK: Duration = Duration::from_millis(50);

/// The longest sleep.
const IDLE: Duration = Duration::from_secs(1);

/// How often programs that outlive us are told that we are here.
const KEPT: Duration = Duration::from_millis(500);
// With the longest sleep in between.
const _: () = assert!(KEPT.as_millis() + IDLE.as_millis() < ALONE.as_millis());

/// More than the kernel's verifier needs for a program on a busy machine. Should we die in it, the programs find out so much later.
const LOADING: Duration = Duration::from_secs(10);

/// What the engine tells its keeper.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The kernel's listening sockets stand.
    pub open: AtomicBool,
    pub drain: AtomicBool,
    /// The answer: the programs know that they are to drain.
    pub drains: AtomicBool,
    pub stop: AtomicBool,
    /// With `stop`: a successor takes over what is pinned.
    pub leave: AtomicBool,
    /// Nobody needs what was lent.
    pub take_back: AtomicBool,
    /// Somebody wants to know where a successor finds the places.
    pub lend: Mutex<Option<Sender<io::Result<BpfEstate>>>>,
    pub keys: Latest<KeySchedule>,
    /// The programs have them already.
    pub sources: Latest<Sources>,
}

/// What is left of a keeper that was told to stop. The programs stay in their places as long as this lives.
pub(super) struct Remains {
    pub attached: Attached,
    pub bookmark: Bookmark,
}

/// What a keeper has, and what it needs for it.
pub(super) struct Duties {
    pub programs: Programs,
    pub attached: Attached,
    pub placement: Placement,
    pub words: ListenerWords,
    pub clockwork: Clockwork,
    pub listen: Listen,
    pub host: Host,
    pub transmit: Transmit,
    /// What the programs do until the kernel's listening sockets stand.
    pub at_first: State,
    pub interfaces: Arc<SharedInterfaces>,
    pub watch: Watch,
    pub only: Vec<String>,
    pub hook: BpfHook,
    pub bind: Vec<SocketAddr>,
    pub orders: Arc<Orders>,
    pub switches: Arc<SwitchRecord>,
    pub woken: UnixStream,
    pub published: Arc<SharedStats>,
    pub refresh: Promise,
    pub name: Arc<str>,
}

pub(super) struct Keeper {
    has: Duties,
    keys: KeySlots,
    /// The last of the orders about keys that was followed.
    keys_seen: u64,
    /// The same of those about lists.
    sources_seen: u64,
    sleeper: Sleeper,
    /// What stands in the table of targets.
    table: Table,
    written: Option<ListenerWords>,
    counted: RawCounters,
    /// The counts at the last tick.
    ticked: RawCounters,
    guesses: Guesses,
    gave_way: GaveWay,
    /// Until then we look at the reports at every tick: see [`looks_often`](Keeper::looks_often).
    looks_until: Time,
    /// Clients may have been waiting at the last tick.
    waited: bool,
    stale: bool,
    /// The order to drain, as last seen.
    drains: bool,
    /// The kernel takes no cookies.
    resting: bool,
    /// When the programs that outlive us were last told that we are here.
    kept: Time,
}

impl Keeper {
    /// Fills the maps, and brings the programs to the devices: they know what is guarded.
    pub(super) fn new(has: Duties) -> io::Result<Keeper> {
        let keys = has.listen.keys_unless(None).ok_or_else(|| io::Error::other("no keys"))?;
        let table = has.placement.table();
        let sleeper = Sleeper::new(&has.programs.reports, &has.woken, &has.watch)?;
        let zero = [0; COUNTED];
        let mut keeper = Keeper {
            has,
            keys,
            keys_seen: 0,
            sources_seen: 0,
            sleeper,
            table,
            written: None,
            counted: zero,
            ticked: zero,
            guesses: Guesses::new(clock()),
            gave_way: GaveWay::default(),
            looks_until: Time::default(),
            waited: false,
            stale: false,
            drains: false,
            resting: false,
            kept: clock(),
        };
        keeper.has.words.state = keeper.has.at_first;
        if keeper.has.at_first != State::Silent {
            // Which of the handshakes that a predecessor's programs answered wait for their end, these programs cannot know.
            let until = clock() + WAITS;
            keeper.has.programs.waits_until.set(0, until.as_nanos(), 0).map_err(in_full)?;
            keeper.has.listen.spare_waiting_until(until);
        }
        // A predecessor's programs may be about to be replaced by these: first the orders.
        keeper.write_words()?;
        keeper.write_clockwork()?;
        keeper.write_targets()?;
        let Duties { programs, attached, interfaces, only, hook, .. } = &mut keeper.has;
        attached.update(programs, &interfaces.get(), only, *hook)?;
        attached.passed();
        keeper.write_clockwork()?;
        Ok(keeper)
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) -> Remains {
        let (mut ticked, mut reviewed) = (clock(), clock());
        while !self.has.orders.stop.load(Ordering::Relaxed) {
            self.follow_orders();
            self.lend();
            let asked = self.has.refresh.asked();
            let reports = self.take_reports();
            self.read_counts();
            let now = clock();
            self.say_that_we_live(now);
            if now.since(ticked) >= TICK && self.may_tick() {
                self.tick(now, now.since(ticked));
                ticked = now;
            }
            if now.since(reviewed) >= Duration::from_secs(1) {
                self.review(now.since(reviewed));
                reviewed = now;
            }
            self.log_switch();
            self.update_words();
            self.publish();
            if reports < BATCH {
                self.has.refresh.answer(asked);
                self.sleep();
            }
        }
        // Unless they are pinned, the programs go with their links; until the sockets are closed too, the kernel answers by itself.
        if self.has.orders.leave.load(Ordering::Relaxed) {
            self.has.attached.leave(true);
        }
        self.take_reports();
        self.read_counts();
        self.publish();
        let bookmark = Bookmark { next: [0; 2], entries: self.has.listen.entries() };
        Remains { attached: self.has.attached, bookmark }
    }

    fn follow_orders(&mut self) {
        // The programs get the keys that come of it at the next tick.
        if let Some(masters) = self.has.orders.keys.since(&mut self.keys_seen) {
            self.has.listen.set_masters(masters);
        }
        if let Some(sources) = self.has.orders.sources.since(&mut self.sources_seen) {
            self.has.listen.set_sources(sources);
        }
        let Orders { drain, open, .. } = &*self.has.orders;
        let open = open.load(Ordering::Acquire);
        // Seen once: what is told to the programs is what is answered.
        self.drains = drain.load(Ordering::Relaxed);
        if open {
            // Who is told to drain has a successor; whoever just drops us wants us gone.
            self.has.attached.leave(self.drains);
        }
        self.has.words.state = match (open, self.drains) {
            (false, _) => self.has.at_first,
            (true, true) if self.has.words.outlives && self.resting => State::Resting,
            (true, true) if self.has.words.outlives => State::HandsOn,
            (true, true) => State::Draining,
            (true, false) if self.resting => State::Resting,
            (true, false) => State::Answers,
        };
    }

    /// Puts the places where a successor finds them.
    fn lend(&mut self) {
        if self.has.orders.take_back.swap(false, Ordering::Relaxed) {
            self.has.attached.take_back();
        }
        let Some(answer) = self.has.orders.lend.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let lent = self.has.attached.lend();
        if lent.is_err() {
            self.on_links(); // A place may be lost.
        }
        let _ = answer.send(lent);
    }

    /// Takes up to a batch of reports; returns how many there were.
    fn take_reports(&mut self) -> usize {
        self.has.host.update();
        let mut taken = 0;
        while taken < BATCH {
            let Some(item) = self.has.programs.reports.next() else { break };
            let report = Report::parse(&item);
            drop(item);
            taken += 1;
            if let Some(report) = report {
                self.on_report(&report);
            }
        }
        if taken > 0 {
            self.looks_until = clock() + IDLE;
        }
        taken
    }

    fn on_report(&mut self, report: &Report) {
        let Report { tuple, irs, iss, offer, at, .. } = report;
        let listen = &mut self.has.listen;
        match report.kind {
            Kind::Syn => listen.reported_syn(tuple, *irs, *iss, offer, *at),
            Kind::Accepted => listen.reported_accepted(tuple, *iss, offer.tsval, *at),
            // Of a RST the sequence number stands where that of a SYN does.
            Kind::Reset => {
                if let Some(reply) = listen.reported_reset(tuple, *irs, *at) {
                    let scope = self.has.host.scope_of(tuple);
                    self.has.transmit.route(&reply, scope);
                }
            }
            Kind::Full => {
                // Time without a process does not count: the first SYN-ACK is due at once, the others in their time behind that.
                let at = if self.has.words.state == State::HandsOn { (*at).max(clock() - RTO) } else { *at };
                listen.reported_full(tuple, *irs, *iss, offer, at);
            }
            Kind::Held if self.gave_way.has(tuple, *at) => {}
            Kind::Held => {
                if self.has.host.destroy(tuple) {
                    listen.stats_mut().count(Counter::OldSocketsDestroyed);
                }
                self.gave_way.note(*tuple, clock()); // It may have gone by itself.
            }
            // A bogus ACK only wakes us, to count.
            Kind::Bogus => {}
        }
    }

    /// Told so several times in the time after which the programs believe that nobody reads their reports.
    fn say_that_we_live(&mut self, now: Time) {
        if !self.has.words.outlives || now.since(self.kept) < KEPT {
            return;
        }
        self.kept = now;
        let written = self.write_clockwork();
        self.tell(written, "could not tell the programs that we are here");
        self.written = None; // If they did believe that we are gone, they have changed their orders.
    }

    /// Handshakes that a predecessor's programs kept waiting are due when the timers first run: SYN-ACKs go out at once. What their clients
    /// answer has to find a listening socket, and programs that give it to that.
    fn may_tick(&self) -> bool {
        self.written.is_some_and(|words| words.state != State::HandsOn)
    }

    fn tick(&mut self, now: Time, elapsed: Duration) {
        let since = |what: Counted| self.counted[what as usize] - self.ticked[what as usize];
        let waiting = self.are_waiting();
        // Of what was counted since the last look, the programs looked up all also if the wait has ended in between.
        let all = self.has.words.looks_up || !self.has.words.reports || waiting || self.waited;
        self.waited = waiting;
        let guesses = self.guesses.judge(since(Counted::SampledBogus), all, now, elapsed);
        // What the kernel answers for us counts as answered too: a flood of it is one.
        let answered = since(Counted::SynAcksSent) + since(Counted::LeftToKernel);
        let completed = since(Counted::CookiesValid);
        let refused = since(Counted::AssignRefused);
        self.ticked = self.counted;
        self.log_guesses(guesses);
        if refused > 0 {
            self.read_settings(); // They may be why.
        }
        let Duties { listen, host, transmit, .. } = &mut self.has;
        listen.reported_counts(answered, completed);
        let mut due = Vec::new();
        listen.tick(now, epoch(), elapsed, host, |reply| due.push(reply));
        for reply in due {
            // Whoever got in meanwhile by the data behind the handshake is not to be reset.
            let over = reply.flags.contains(wire::Flags::RST) && host.holds(&reply.tuple);
            if !over {
                let scope = host.scope_of(&reply.tuple);
                transmit.route(&reply, scope);
            }
        }
        if let Some(keys) = listen.keys_unless(Some(self.keys.version)) {
            self.keys = keys;
            let written = self.write_keys().and_then(|()| self.write_clockwork());
            self.tell(written, "could not give the programs new keys");
        }
    }

    fn review(&mut self, since_last: Duration) {
        self.has.listen.review_reported(since_last);
        let errors = self.has.transmit.take_errors();
        self.has.listen.stats_mut().add(Counter::TransmitErrors, errors);
        self.read_settings();
        if self.stale || self.has.watch.changed() {
            self.on_links();
        }
    }

    fn read_settings(&mut self) {
        let Ok(settings) = Settings::read() else { return };
        self.has.words.grants = settings.grants;
        if self.resting == settings.takes_cookies {
            self.resting = !settings.takes_cookies;
            if self.resting {
                let name = &self.has.name;
                warn!(listener = %name, "net.ipv4.tcp_syncookies is 0 now: the kernel answers by itself until it is not");
            } else {
                info!(listener = %self.has.name, "net.ipv4.tcp_syncookies is on again: answering");
            }
        }
    }

    fn log_guesses(&self, change: Option<Change>) {
        let listener = &self.has.name;
        match change {
            Some(Change::Begun(rate)) => {
                warn!(%listener, rate, "segments of no connection come in numbers, and are dropped");
            }
            Some(Change::Ended) => info!(%listener, "segments of no connection come in numbers no more"),
            None => {}
        }
    }

    fn log_switch(&mut self) {
        let switched = self.has.listen.take_switch();
        switched.into_iter().for_each(|mode| self.has.switches.note(mode));
        match switched {
            Some(Mode::Cookies) => {
                warn!(listener = %self.has.name, "half-open queue at its high watermark: answering with cookies alone");
            }
            Some(Mode::Queue) => info!(listener = %self.has.name, "calm again: keeping half-open entries"),
            None => {}
        }
    }

    /// Tells the programs what has changed.
    fn update_words(&mut self) {
        self.has.words.reports = self.has.listen.mode() == Mode::Queue;
        self.has.words.has_entries = self.looks_often();
        self.has.words.looks_up = self.guesses.come();
        if self.written != Some(self.has.words) {
            let written = self.write_words();
            self.tell(written, "could not give the programs their orders");
        }
        if self.drains && self.written == Some(self.has.words) {
            self.has.orders.drains.store(true, Ordering::Release);
        }
    }

    /// Whether we look at the reports at every tick, without being woken: while there are half-open connections, and for a second after
    /// each report, lest a stream of short handshakes wakes us for each.
    fn looks_often(&self) -> bool {
        self.has.listen.has_timers() || clock() < self.looks_until
    }

    /// Whether clients may be waiting for room, or for a listening socket: then the programs look all segments of no connection up.
    fn are_waiting(&self) -> bool {
        self.has.programs.waits_until.get(&0, 0).is_ok_and(|until| clock().as_nanos() < until)
    }

    fn read_counts(&mut self) {
        if let Ok(counters) = self.has.programs.counters.get(&0, 0) {
            for (index, sum) in self.counted.iter_mut().enumerate() {
                *sum = counters.iter().map(|cpu| cpu[index]).sum();
            }
        }
    }

    fn publish(&mut self) {
        let mut stats = self.has.listen.stats().clone();
        counts::add_to(&mut stats, &self.counted);
        self.has.published.publish(&stats);
    }

    fn on_links(&mut self) {
        let refreshed = self.has.interfaces.refresh();
        // A device of a kind that was not there before brings a program to load, and meanwhile nobody says that we live.
        self.kept = clock() + LOADING;
        let ahead = self.write_clockwork();
        let Duties { programs, attached, interfaces, only, hook, .. } = &mut self.has;
        let snapshot = interfaces.get();
        // One device that takes no program keeps no address out of the table.
        let attached = attached.update(programs, &snapshot, only, *hook);
        self.kept = clock();
        let (targets, clockwork) = (self.write_targets(), self.write_clockwork());
        let outcome = refreshed.and(ahead).and(attached).and(targets).and(clockwork);
        let failed = outcome.is_err();
        if !self.stale {
            self.tell(outcome, "could not follow a change of the interfaces; trying again each second");
        }
        self.stale = failed;
    }

    fn tell(&self, outcome: io::Result<()>, what: &str) {
        if let Err(error) = outcome {
            warn!(listener = %self.has.name, %error, "{what}");
        }
    }

    /// Until a report comes that does not wait, an order, a change of the links, or the next tick.
    fn sleep(&mut self) {
        // Of segments that are all looked up, no report wakes us.
        let counts = self.has.listen.mode() == Mode::Cookies || self.has.words.looks_up || self.are_waiting();
        let busy = self.looks_often() || counts;
        if self.sleeper.sleep(if busy { TICK } else { IDLE }) {
            let _ = io::Read::read(&mut self.has.woken, &mut [0; 512]);
        }
        if self.has.watch.changed() {
            self.on_links();
        }
    }
}
