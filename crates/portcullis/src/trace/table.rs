//! The flows that are being watched: a bounded number, so chosen that a flood pushes no client out.
//!
//! A flow is on probation until both ends have heard each other. There, the oldest makes room for the newest, and what nobody
//! answered is shown at a bounded rate. What is proven has places of its own, which spoofed packets cannot take.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use wire::FourTuple;

use super::flow::{Flow, Seg, Side, Standing};

/// Flows on probation. Each costs some 1 KiB at three rows, 9 KiB at the bound of rows: at most 36 MiB.
///
/// At the bound the oldest is forgotten, and counted as not shown.
pub const PROBATION_MAX: usize = 4096;

/// Proven flows. Each costs at most 9 KiB: at most 9 MiB.
///
/// At the bound the one that was quiet for longest is shown as far as it came, and forgotten: what it does later is another ladder.
pub const PROVEN_MAX: usize = 1024;

/// Ladders of flows that were not proven, per second, and at once: more is noise, or a flood.
const UNPROVEN_PER_SECOND: f64 = 5.0;
const UNPROVEN_BURST: f64 = 20.0;

/// Flows by 4-tuple.
#[derive(Debug, Default)]
pub struct Table {
    flows: HashMap<FourTuple, Tracked>,
    /// Those that began on probation, the oldest first; some of them may have left it.
    probation: VecDeque<(FourTuple, u64)>,
    proven_count: usize,
    /// One for each flow that ever was, so that a reused 4-tuple is not taken for its predecessor.
    last_serial: u64,
    ended: Vec<Tracked>,
    unproven_ration: Ration,
    unshown_count: u64,
}

/// A flow and what it takes to show it.
#[derive(Debug)]
pub struct Tracked {
    pub tuple: FourTuple,
    pub serial: u64,
    pub flow: Flow,
    /// The number it is shown under, once something of it was shown.
    pub number: Option<u64>,
    /// How often the process was asked about it.
    pub asked_count: u8,
    pub asked_at: Duration,
    proven: bool,
}

impl Tracked {
    /// Whether its rows may be shown before it ends: nobody can make a proven one by spoofing.
    pub fn is_worth_showing(&self) -> bool {
        self.number.is_some() || self.proven && self.flow.is_telling()
    }
}

impl Table {
    /// Takes a segment of the flow of this tuple.
    pub fn on_segment(&mut self, at: Duration, tuple: FourTuple, from: Side, seg: &Seg) {
        let succeeded = self.flows.get(&tuple).is_some_and(|tracked| tracked.flow.is_succeeded_by(from, seg));
        if succeeded {
            self.end(&tuple);
        }
        if let Some(tracked) = self.flows.get_mut(&tuple) {
            tracked.flow.on_segment(at, from, seg);
        } else {
            self.begin(at, tuple, from, seg);
        }
        self.promote(&tuple);
    }

    /// The flow of a tuple, if one is watched.
    pub fn get_mut(&mut self, tuple: &FourTuple) -> Option<&mut Tracked> {
        self.flows.get_mut(tuple)
    }

    /// Moves a flow that has become proven to its place.
    pub fn promote(&mut self, tuple: &FourTuple) {
        let Some(tracked) = self.flows.get_mut(tuple) else { return };
        if tracked.proven || tracked.flow.standing() != Standing::Proven {
            return;
        }
        tracked.proven = true;
        self.proven_count += 1;
        if self.proven_count > PROVEN_MAX {
            let others = self.flows.values().filter(|other| other.proven && other.tuple != *tuple);
            let quietest = others.min_by_key(|other| other.flow.span().1).map(|other| other.tuple);
            quietest.iter().for_each(|tuple| self.end(tuple));
        }
    }

    /// Ends the flows of which nothing more is expected.
    pub fn tick(&mut self, now: Duration) {
        self.unproven_ration.refill(now);
        let quiet = |tracked: &Tracked| now.saturating_sub(tracked.flow.span().1);
        let over: Vec<_> = self
            .flows
            .values()
            .filter(|tracked| tracked.flow.quiet_max().is_some_and(|max| quiet(tracked) >= max))
            .map(|tracked| (tracked.serial, tracked.tuple))
            .collect();
        self.end_all(over);
    }

    /// Ends all flows.
    pub fn finish(&mut self) {
        let all = self.flows.values().map(|tracked| (tracked.serial, tracked.tuple)).collect();
        self.end_all(all);
    }

    /// The flows that have ended and are to be shown, the oldest first.
    pub fn take_ended(&mut self) -> Vec<Tracked> {
        std::mem::take(&mut self.ended)
    }

    /// All flows, in no order.
    pub fn flows_mut(&mut self) -> impl Iterator<Item = &mut Tracked> {
        self.flows.values_mut()
    }

    /// Flows that were forgotten without being shown, because there were too many.
    pub fn unshown_count(&self) -> u64 {
        self.unshown_count
    }

    fn begin(&mut self, at: Duration, tuple: FourTuple, from: Side, seg: &Seg) {
        self.make_room();
        self.last_serial += 1;
        let flow = Flow::begin(at, from, seg);
        let serial = self.last_serial;
        let tracked = Tracked { tuple, serial, flow, number: None, asked_count: 0, asked_at: at, proven: false };
        self.flows.insert(tuple, tracked);
        self.probation.push_back((tuple, serial));
    }

    /// Forgets the oldest flow on probation, if there are too many.
    fn make_room(&mut self) {
        while self.probation.len() >= PROBATION_MAX {
            let Some((tuple, serial)) = self.probation.pop_front() else { return };
            if self.flows.get(&tuple).is_some_and(|tracked| tracked.serial == serial && !tracked.proven) {
                self.flows.remove(&tuple);
                self.unshown_count += 1;
            }
        }
    }

    fn end_all(&mut self, mut list: Vec<(u64, FourTuple)>) {
        list.sort_unstable();
        list.iter().for_each(|(_, tuple)| self.end(tuple));
    }

    fn end(&mut self, tuple: &FourTuple) {
        let Some(mut tracked) = self.flows.remove(tuple) else { return };
        self.proven_count -= usize::from(tracked.proven);
        if !tracked.flow.is_telling() {
            return;
        }
        if tracked.number.is_some() || tracked.proven || self.unproven_ration.take() {
            tracked.flow.finish();
            self.ended.push(tracked);
        } else {
            self.unshown_count += 1;
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Ration {
    left: f64,
    filled_at: Duration,
}

impl Default for Ration {
    fn default() -> Ration {
        Ration { left: UNPROVEN_BURST, filled_at: Duration::ZERO }
    }
}

impl Ration {
    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.left = (self.left + passed * UNPROVEN_PER_SECOND).min(UNPROVEN_BURST);
    }

    fn take(&mut self) -> bool {
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}
