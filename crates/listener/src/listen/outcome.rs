//! From SYN-RECEIVED to ESTABLISHED, or not: the handshake is handed over, and what came of it.

use std::time::Duration;

use wire::{Flags, FourTuple, Reply, Segment, SeqNum};

use super::{Aftermath, Disposition, Listen};
use crate::accepted::{Accepted, Negotiated, Refusal, Via};
use crate::admission::Arrival;
use crate::cookie::Offer;
use crate::half_open::{Entry, Full};
use crate::replies::{self, WINDOW};
use crate::stats::{Counter, DropReason};
use crate::time::Time;

impl Listen {
    #[allow(clippy::too_many_arguments)] // Each is a field; a struct in between would be `Accepted` again.
    pub(super) fn accepted(
        &self,
        tuple: &FourTuple,
        irs: SeqNum,
        iss: SeqNum,
        options: Negotiated,
        segment: &Segment<'_>,
        arrival: &Arrival,
        via: Via,
        handshake: Option<Duration>,
    ) -> Accepted {
        Accepted {
            tuple: *tuple,
            scope_id: scope_of(tuple, arrival),
            iss,
            irs,
            options,
            peer_window: u32::from(segment.window) << options.peer_wscale.unwrap_or(0),
            local_window: u32::from(WINDOW),
            via,
            handshake,
        }
    }

    /// The handshake is complete. A half-open entry stays until the connection stands.
    pub(super) fn accept(&mut self, accepted: Accepted, segment: &Segment<'_>) -> Disposition {
        if self.young.is_full() {
            return Disposition::Drop(DropReason::NoRoom);
        }
        self.young.begin(accepted.tuple, accepted.irs + 1);
        let captured = self.young.capture(&accepted.tuple, segment);
        debug_assert!(captured, "the flow was begun one line above");
        Disposition::Accept(accepted)
    }

    /// The bytes a connection's client has sent behind the handshake so far, from `irs + 1` on.
    pub fn early_data(&self, tuple: &FourTuple) -> &[u8] {
        self.young.data(tuple)
    }

    /// The connection stands; `early_bytes` of early data are in its receive queue.
    pub fn established(&mut self, accepted: &Accepted, early_bytes: u32, now: Time) -> Aftermath {
        let tuple = &accepted.tuple;
        let ending = self.young.end(tuple);
        self.forget(tuple, Counter::HalfOpenCompleted);
        self.held.adopted(tuple, accepted.iss, now);
        self.replies.refund(tuple.peer.addr);
        self.unanswered -= 1;
        self.stats.add(Counter::EarlyDataBytes, u64::from(early_bytes));
        self.stats.count(match accepted.via {
            Via::Queue => Counter::HandshakesByQueue,
            Via::Cookie | Via::Kernel => Counter::HandshakesByCookie,
        });
        if let Some(took) = accepted.handshake {
            self.stats.record_handshake(took);
        }
        let repeat = |flags, header| replies::repeated(tuple, flags, &header);
        if let Some(reset) = ending.reset {
            // It met the socket's closed filter, and the client will not repeat it.
            return Aftermath { ack: None, repeated: [Some(repeat(Flags::RST, reset)), None] };
        }
        // Without the client's clock the first segments of the socket would echo 0.
        let with_clock = ending.first.filter(|first| first.timestamps.is_some() && first.seq == accepted.irs + 1);
        let first = with_clock.map(|first| repeat(Flags::ACK, first));
        // The FIN makes the kernel acknowledge everything; alone, data needs an ACK of ours.
        let complete = ending.bytes as u32 == early_bytes;
        let fin = ending.fin.filter(|_| complete).map(|fin| repeat(Flags::FIN | Flags::ACK, fin));
        let ack = (early_bytes > 0 && fin.is_none()).then(|| replies::early_ack(accepted, early_bytes));
        Aftermath { ack, repeated: [first, fin] }
    }

    /// No connection could be made. The client, which believes in one, is not left hanging: where there may be room
    /// later its handshake is kept half-open, so that the repeated SYN-ACK makes it ask again; else it gets a RST.
    pub fn refused(&mut self, accepted: &Accepted, refusal: Refusal, now: Time) -> Option<Reply> {
        self.young.end(&accepted.tuple);
        self.stats.count(match refusal {
            Refusal::AcceptQueueFull => Counter::AcceptQueueOverflows,
            Refusal::NoDescriptors => Counter::RefusedNoDescriptors,
            Refusal::NoMemory => Counter::RefusedNoMemory,
            Refusal::TupleBusy => Counter::RefusedTupleBusy,
            Refusal::Closed | Refusal::System(_) => Counter::RefusedOther,
        });
        let hopeless = match refusal {
            Refusal::AcceptQueueFull | Refusal::NoDescriptors | Refusal::NoMemory => {
                self.stats.count_drop(DropReason::NoRoom);
                self.park(accepted, now).is_err()
            }
            // A RST would hit the connection that the kernel holds.
            Refusal::TupleBusy => {
                self.held.confirmed(&accepted.tuple, now);
                false
            }
            Refusal::Closed | Refusal::System(_) => true,
        };
        hopeless.then(|| {
            self.stats.count(Counter::ResetsSent);
            replies::reset(&accepted.tuple, accepted.iss + 1)
        })
    }

    /// Keeps a finished handshake half-open: its own entry, or a new one made from what the cookie told.
    fn park(&mut self, accepted: &Accepted, now: Time) -> Result<(), Full> {
        let own = self.half_open.get(&accepted.tuple);
        if let Some(entry) = own.filter(|entry| entry.iss == accepted.iss) {
            self.half_open.replace(&accepted.tuple, &Entry { parked: true, ..entry });
            return Ok(());
        }
        let options = &accepted.options;
        // Dated back to the SYN-ACK, so that its TSval can be made again.
        let age = accepted.handshake.unwrap_or_default().as_nanos() as u64;
        let entry = Entry {
            irs: accepted.irs,
            iss: accepted.iss,
            offer: Offer {
                mss: options.peer_mss,
                wscale: options.peer_wscale,
                sack: options.sack,
                tsval: options.timestamps.map(|ts| ts.peer),
            },
            arrived: Time::from_nanos(now.as_nanos().saturating_sub(age)).stamp(),
            retransmissions: 0,
            parked: true,
            guesses: 0,
        };
        // An entry for another SYN gives way to a handshake that is complete.
        if self.half_open.replace(&accepted.tuple, &entry) { Ok(()) } else { self.keep(&accepted.tuple, &entry) }
    }
}

/// A link-local peer is reached over the interface it was heard on.
fn scope_of(tuple: &FourTuple, arrival: &Arrival) -> u32 {
    match tuple.peer.addr {
        std::net::IpAddr::V6(addr) if addr.is_unicast_link_local() => arrival.interface,
        _ => 0,
    }
}
