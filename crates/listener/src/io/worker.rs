//! A worker: one thread, one tap, one core. It reads frames, sends replies, has connections made, and keeps time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};
use wire::{FourTuple, Packet};

use super::estate::Bookmark;
use super::host::Host;
use super::latest::Latest;
use super::ring::{Captured, Ring};
use super::switches::SwitchRecord;
use super::sys;
use super::transmit::Transmit;
use super::urgency::Urgency;
use crate::accepted::{Accepted, EarlyData, Establish, Refusal};
use crate::cookie::{Epoch, KeySchedule};
use crate::listen::{Disposition, Listen};
use crate::pressure::Mode;
use crate::sources::Sources;
use crate::stats::{Counter, DropReason, SharedStats};
use crate::time::Time;
use crate::young::Young;

/// Packets of each tap judged between two looks at everything else.
const BATCH: usize = 128;

/// Time between two looks at the timers while there are any.
const TICK: Duration = Duration::from_millis(50);

/// How long a worker makes no connection after it found no descriptor left. One that somebody closes, or that the admin
/// server gives up to answer a scrape, is then not at once taken from under their hands.
const ABSTAIN: Duration = Duration::from_millis(20);

/// The longest a worker sleeps: key epochs go on even when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// What the engine tells its workers.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub drain: AtomicBool,
    pub stop: AtomicBool,
    pub keys: Latest<KeySchedule>,
    pub sources: Latest<Sources>,
}

/// A worker's two taps: see [`Share`](super::filter::Share).
pub(super) struct Taps {
    pub syns: Ring,
    pub others: Ring,
}

/// Everything a worker has but the maker of connections.
pub(super) struct Station {
    pub listen: Listen,
    pub taps: Taps,
    pub host: Host,
    pub transmit: Transmit,
    /// Finished handshakes that wait for a connection, at most [`Young::MAX`].
    pub pending: VecDeque<Accepted>,
    pub now: Time,
    /// No connection is made before: see [`ABSTAIN`].
    pub abstains_until: Time,
}

pub(super) struct Worker<E> {
    pub station: Station,
    pub establish: E,
    pub orders: Arc<Orders>,
    /// The last of the orders about keys that was followed.
    pub keys_seen: u64,
    /// The same of those about lists.
    pub sources_seen: u64,
    pub switches: Arc<SwitchRecord>,
    pub wake: UnixStream,
    pub published: Arc<SharedStats>,
    /// One worker of an engine reviews the mode and counts for all.
    pub leads: bool,
    pub name: Arc<str>,
}

impl<E: Establish> Worker<E> {
    /// Until it is told to stop; says where.
    pub(super) fn run(&mut self) -> Bookmark {
        let (mut ticked, mut reviewed) = (self.station.now, self.station.now);
        let mut urgency = Urgency::of_this_thread();
        if let (true, Some(error)) = (self.leads, urgency.refused()) {
            info!(
                listener = %self.name,
                %error,
                "no real-time priority (CAP_SYS_NICE?): in a flood the workers may be short of time beside reception"
            );
        }
        while !self.orders.stop.load(Ordering::Relaxed) {
            let received = self.station.receive();
            self.make_connections();
            self.station.transmit.flush();
            let now = self.station.now;
            if now.since(ticked) >= TICK {
                self.station.tick(now.since(ticked));
                ticked = now;
            }
            if now.since(reviewed) >= Duration::from_secs(1) {
                self.review(now.since(reviewed));
                reviewed = now;
            }
            self.log_switch();
            urgency.follow(self.station.listen.mode(), received.syns == BATCH, now);
            self.published.publish(self.station.listen.stats());
            if received.syns + received.others == 0 {
                self.sleep();
            }
        }
        self.published.publish(self.station.listen.stats());
        self.station.bookmark()
    }

    fn make_connections(&mut self) {
        while let Some(accepted) = self.station.pending.pop_front() {
            let result = self.make_connection(&accepted);
            let station = &mut self.station;
            match result {
                Ok((connection, early_bytes)) => {
                    station.host.settle(&accepted.tuple);
                    let after = station.listen.established(&accepted, early_bytes, station.now);
                    for reply in after.repeated.iter().flatten().chain(&after.ack) {
                        station.transmit.route(reply, accepted.scope_id);
                    }
                    self.establish.hand_over(connection);
                }
                Err(refusal) => {
                    if let Some(reply) = station.listen.refused(&accepted, refusal, station.now) {
                        station.transmit.route(&reply, accepted.scope_id);
                    }
                }
            }
        }
    }

    fn make_connection(&mut self, accepted: &Accepted) -> Result<(E::Connection, u32), Refusal> {
        if self.station.now < self.station.abstains_until {
            return Err(Refusal::NoDescriptors);
        }
        let mut early = Watching { station: &mut self.station, tuple: accepted.tuple };
        let result = self.establish.establish(accepted, &mut early);
        if matches!(result, Err(Refusal::NoDescriptors)) {
            self.station.abstains_until = self.station.now + ABSTAIN;
        }
        result
    }

    fn review(&mut self, since_last: Duration) {
        self.follow_orders();
        let station = &mut self.station;
        if self.leads {
            station.listen.review(since_last);
        }
        let drops = station.taps.syns.take_drops() + station.taps.others.take_drops();
        let errors = station.transmit.take_errors();
        station.listen.stats_mut().add(Counter::RingDropped, drops);
        station.listen.stats_mut().add(Counter::TransmitErrors, errors);
    }

    fn follow_orders(&mut self) {
        if self.orders.drain.load(Ordering::Relaxed) {
            self.station.listen.drain();
        }
        if let Some(masters) = self.orders.keys.since(&mut self.keys_seen) {
            self.station.listen.set_masters(masters);
        }
        if let Some(sources) = self.orders.sources.since(&mut self.sources_seen) {
            self.station.listen.set_sources(sources);
        }
    }

    fn log_switch(&mut self) {
        let switched = self.station.listen.take_switch();
        switched.into_iter().for_each(|mode| self.switches.note(mode));
        match switched {
            Some(Mode::Cookies) => {
                warn!(listener = %self.name, "half-open queue at its high watermark: answering with cookies alone");
            }
            Some(Mode::Queue) => info!(listener = %self.name, "calm again: keeping half-open entries"),
            None => {}
        }
    }

    /// Until a frame comes, an order, or the next timer.
    fn sleep(&mut self) {
        let longest = if self.station.listen.has_timers() { TICK } else { IDLE };
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::from(50u8));
        let mut fds = [
            PollFd::new(self.station.taps.syns.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.station.taps.others.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted or failed poll only means one look too many.
        let woken = poll(&mut fds, timeout).is_ok() && fds[2].any().unwrap_or(false);
        if woken {
            let mut sink = [0; 16];
            let _ = io::Read::read(&mut self.wake, &mut sink);
            self.follow_orders();
        }
        self.station.now = clock();
    }
}

/// How many packets of each tap there were.
struct Received {
    syns: usize,
    others: usize,
}

impl Station {
    /// Goes on where a predecessor's worker stopped.
    pub(super) fn begin_at(&mut self, bookmark: &Bookmark) {
        let [syns, others] = bookmark.next.map(|next| next as usize);
        self.taps.syns.begin_at(syns);
        self.taps.others.begin_at(others);
        self.listen.take_entries(&bookmark.entries);
    }

    fn bookmark(&self) -> Bookmark {
        let next = [&self.taps.syns, &self.taps.others].map(|tap| tap.next() as u32);
        Bookmark { next, entries: self.listen.entries() }
    }

    /// Judges up to a batch of each tap's packets. What may complete a handshake comes
    /// before what begins one.
    fn receive(&mut self) -> Received {
        self.now = clock();
        self.host.update();
        let others = self.receive_from(|taps| &mut taps.others, BATCH);
        Received { others, syns: self.receive_from(|taps| &mut taps.syns, BATCH) }
    }

    /// Judges all packets but SYNs that are there at this moment; what comes meanwhile belongs to the next look.
    fn receive_early_data(&mut self) {
        self.now = clock();
        let most = self.taps.others.capacity();
        self.receive_from(|taps| &mut taps.others, most);
    }

    fn receive_from(&mut self, tap: impl Fn(&mut Taps) -> &mut Ring, max: usize) -> usize {
        let Station { listen, taps, host, transmit, pending, now, .. } = self;
        let ring = tap(taps);
        let mut frames = 0;
        // What would find no room waits in the ring.
        while frames < max
            && pending.len() < Young::MAX
            && ring.with_next(|captured| {
                judge(&captured, listen, host, transmit, pending, *now);
            })
        {
            frames += 1;
        }
        listen.stats_mut().add(Counter::RingReceived, frames as u64);
        frames
    }

    fn tick(&mut self, elapsed: Duration) {
        let Station { listen, transmit, host, .. } = self;
        listen.tick(self.now, epoch(), elapsed, host, |reply| {
            let scope = host.scope_of(&reply.tuple);
            transmit.route(&reply, scope);
        });
    }
}

fn judge(
    captured: &Captured<'_>,
    listen: &mut Listen,
    host: &mut Host,
    transmit: &mut Transmit,
    pending: &mut VecDeque<Accepted>,
    now: Time,
) {
    let packet = Packet::parse_ip(captured.bytes, captured.wire_len, captured.checksums);
    let tuple = packet.as_ref().ok().map(|packet| &packet.tuple);
    let vlan = captured.vlan.map(|tag| tag.id());
    let Some(origin) = host.origin(captured.from.interface, vlan, captured.to_us, tuple) else {
        // An interface so new that its addresses have not been read yet: the client will ask again.
        return listen.stats_mut().count_drop(DropReason::NotOurFrame);
    };
    match listen.on_packet(packet, &origin.arrival, host, now) {
        Disposition::Reply(reply) if origin.routed => transmit.route(&reply, origin.arrival.interface),
        Disposition::Reply(reply) => transmit.answer(&reply, captured.from, captured.vlan),
        Disposition::Accept(accepted) => pending.push_back(accepted),
        Disposition::Captured | Disposition::Drop(_) => {}
    }
}

/// What [`Establish`] sees of the wire while it makes one connection.
struct Watching<'a> {
    station: &'a mut Station,
    tuple: FourTuple,
}

impl EarlyData for Watching<'_> {
    fn collect(&mut self) -> &[u8] {
        self.station.receive_early_data();
        self.station.listen.early_data(&self.tuple)
    }
}

/// The monotonic clock of everything here.
pub(super) fn clock() -> Time {
    Time::from_nanos(sys::boot_nanos())
}

/// The key epoch, from the wall clock: the one thing nodes have to agree on.
pub(super) fn epoch() -> Epoch {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Epoch::at_unix(unix.as_secs())
}
