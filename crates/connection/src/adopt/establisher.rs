//! What the listener's worker calls when a handshake is complete.

use std::io;

use listener::io::sock_diag::SockDiag;
use listener::{Accepted, EarlyData, Establish, Refusal, TcpState};

use super::adopt;
use super::stages::socket_addr;
use crate::accept_queue::{AcceptSender, Arrival, Place};
use crate::connection::Handshake;

/// Adopts each connection and puts it into the accept queue.
///
/// One per worker: it holds a netlink socket of its own, in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct RawEstablisher {
    sender: AcceptSender,
    diag: SockDiag,
}

impl RawEstablisher {
    /// Connections go to the receiver of `sender`.
    ///
    /// # Errors
    ///
    /// Of opening a sock_diag socket; see [`probe`](super::probe) for whether adoption is allowed at all.
    pub fn new(sender: AcceptSender) -> io::Result<RawEstablisher> {
        Ok(RawEstablisher { sender, diag: SockDiag::open()? })
    }
}

/// A connection with its place in the accept queue.
#[derive(Debug)]
pub struct Adoption {
    place: Place,
    arrival: Arrival,
}

impl Establish for RawEstablisher {
    type Connection = Adoption;

    /// Reserves a place in the queue, then adopts: a connection that exists has a place. Never blocks.
    ///
    /// When the kernel holds the 4-tuple in TIME-WAIT, that leftover is destroyed and the adoption tried once more.
    fn establish(&mut self, accepted: &Accepted, early: &mut dyn EarlyData) -> Result<(Adoption, u32), Refusal> {
        let place = self.sender.reserve()?;
        let adopted = match adopt(accepted, early) {
            Err(Refusal::TupleBusy) if end_time_wait(&mut self.diag, accepted) => {
                self.sender.stats().count_time_wait_replaced();
                adopt(accepted, early)
            }
            outcome => outcome,
        }?;
        let arrival = Arrival {
            stream: adopted.stream,
            local: socket_addr(accepted.tuple.local, accepted.scope_id),
            peer: socket_addr(accepted.tuple.peer, accepted.scope_id),
            handshake: Handshake { via: accepted.via, options: Some(accepted.options), duration: accepted.handshake },
        };
        Ok((Adoption { place, arrival }, adopted.received_bytes))
    }

    fn hand_over(&mut self, adoption: Adoption) {
        adoption.place.fill(adoption.arrival);
    }
}

/// Destroys what is left of an earlier connection with this 4-tuple. Says whether the 4-tuple may be free now.
///
/// A new handshake that validated says that the peer has moved on: a late duplicate of an old SYN never gets that far. TIME-WAIT
/// has nothing left to deliver, so ending it takes nothing from anyone (RFC 9293 §3.10.7.4 and RFC 6191 §2 allow the same on a
/// mere SYN, if it is newer). Every other state may still have data on its way to the peer, FIN-WAIT-1, CLOSING and LAST-ACK
/// too, or an application that reads, FIN-WAIT-2; a duplicate of the old connection's own third ACK must not take that away.
/// Those are the listener's to decide, which can compare sequence numbers.
fn end_time_wait(diag: &mut SockDiag, accepted: &Accepted) -> bool {
    match diag.lookup_on(&accepted.tuple, accepted.scope_id) {
        Ok(Some(found)) if found.state == TcpState::TimeWait => diag.destroy(&found).is_ok(),
        Ok(Some(_)) | Err(_) => false,
        // It ended by itself since.
        Ok(None) => true,
    }
}
