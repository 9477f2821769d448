//! What time brings: SYN-ACKs sent again, entries given up, key epochs, the way back to calm.

use std::time::Duration;

use wire::{FourTuple, Reply};

use super::Listen;
use crate::admission::LocalAddresses;
use crate::cookie::Epoch;
use crate::half_open::{Entry, Swept};
use crate::pressure::Mode;
use crate::replies;
use crate::stats::Counter;
use crate::time::Time;

/// MTU where nobody knows better: the address has just left this host.
const ETHERNET_MTU: u32 = 1500;

impl Listen {
    /// What time brings: SYN-ACKs sent again, entries given up, key epochs, the mode. `elapsed` since the last call.
    ///
    /// The replies take the way that routing gives them: an entry does not know its frame's.
    pub fn tick(
        &mut self,
        now: Time,
        epoch: Epoch,
        elapsed: Duration,
        host: &impl LocalAddresses,
        mut send: impl FnMut(Reply),
    ) {
        self.cookies.advance(epoch, now);
        self.shared.pressure.report_unanswered(std::mem::take(&mut self.unanswered));
        let mut due = Vec::new();
        let retries = self.config.synack_retries;
        let (stats, pressure) = (&mut self.stats, &self.shared.pressure);
        self.half_open.sweep(elapsed, |tuple, mut entry| {
            if !entry.is_due(now) {
                return Swept::Keep;
            }
            due.push((tuple, entry));
            if entry.retransmissions >= retries {
                stats.count(Counter::HalfOpenTimedOut);
                pressure.left(1);
                return Swept::Remove;
            }
            entry.retransmissions += 1;
            Swept::Update(entry)
        });
        for (tuple, entry) in due {
            if let Some(reply) = self.on_due(&tuple, &entry, host, now) {
                send(reply);
            }
        }
    }

    /// A timer ran out for `entry`, as it was before: once more the SYN-ACK, or the end.
    fn on_due(&mut self, tuple: &FourTuple, entry: &Entry, host: &impl LocalAddresses, now: Time) -> Option<Reply> {
        if entry.retransmissions >= self.config.synack_retries {
            // A client whose handshake was complete learns that nobody took its connection.
            return (entry.parked && now >= self.spares_until).then(|| {
                self.stats.count(Counter::ResetsSent);
                replies::reset(tuple, entry.iss + 1)
            });
        }
        if self.sources.denies(tuple.peer.addr) {
            return None;
        }
        // Under pressure most entries are a flood's, and a SYN is worth one answer. A client that lives sends its own SYN again, or the data
        // that completes the handshake; one that has proved that it lives is not forgotten.
        if self.shared.mode() == Mode::Cookies && !entry.parked {
            return None;
        }
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return None;
        }
        self.stats.count(Counter::SynAcksSent);
        self.stats.count(Counter::SynAcksRetransmitted);
        let cookie = self.cookie_of(tuple, entry);
        let mtu = host.mtu_of(tuple.local.addr).unwrap_or(ETHERNET_MTU);
        Some(replies::syn_ack(tuple, entry.irs, &cookie, &entry.offer, self.config.window_scale, mtu))
    }

    /// Before then no client is told that nobody took its connection. It may have repeated its data for long while no process was here, does so
    /// ever more seldom, and is let in by the next time: its cookie is good without an entry.
    pub(crate) fn spare_waiting_until(&mut self, until: Time) {
        self.spares_until = until;
    }

    /// Turns the mode back to [`Mode::Queue`](crate::Mode::Queue) if all is calm. One of the workers calls this, about once a second.
    pub fn review(&mut self, since_last: Duration) {
        if let Some(mode) = self.shared.pressure.review(since_last) {
            self.switch(mode);
        }
    }

    /// Whether there are timers to wait for.
    pub fn has_timers(&self) -> bool {
        self.half_open.len() > 0
    }

    /// From now on SYNs are not answered; handshakes that were answered may still complete.
    pub fn drain(&mut self) {
        self.draining = true;
    }
}
