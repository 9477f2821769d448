//! Adoption: a kernel socket in ESTABLISHED for a handshake the kernel has not seen.
//!
//! The kernel's `TCP_REPAIR` mode, made for the restoring of checkpointed processes, lets a socket be given its sequence numbers,
//! options and windows, and connects it without a packet. `stages` holds the order of the steps as types; this
//! file fills in the early data.

mod establisher;
mod stages;

use std::io;
use std::net::TcpStream;

use listener::{Accepted, EarlyData, Refusal};
use socket2::{Domain, Socket, Type};

use crate::sys::{self, Repair};
pub use establisher::{Adoption, RawEstablisher};
use stages::{Live, Muted, Prepared, refusal};

/// How often bytes that were dropped just before the socket began to hear are looked for. A second round is rare, a third has
/// not been seen; what is missing after the last comes again by the client's retransmission.
const CATCH_UP_ROUNDS_MAX: usize = 4;

/// Sockets made for one connection at most. A second one is needed once in some hundred thousand adoptions, see [`Caught::Twice`].
const SOCKETS_MAX: usize = 3;

/// Makes the socket for a finished handshake, with the early data in its receive queue. Sends no packet, does not block.
///
/// The socket is non-blocking and has `TCP_NODELAY` and `SO_REUSEADDR` set; otherwise it has the system's defaults. It continues the
/// handshake exactly: sequence numbers, windows, window scales, SACK, and the clock of the timestamps. Three things a
/// repaired socket cannot have: ECN, a first estimate of the round-trip time, and the peer's last TSval, for which the first
/// segment we send echoes 0 if the peer has not sent anything since. An MSS below 88 bytes is taken for 88, the least Linux works with.
///
/// Needs CAP_NET_ADMIN. Where the kernel also lets the process load eBPF programs, the first call loads one and keeps its
/// descriptor; an adoption then costs about a third less (`cargo bench -p connection`).
///
/// # Errors
///
/// As [`Refusal`] says; `AcceptQueueFull` and `Closed` do not come from here. EPERM (CAP_NET_ADMIN is missing) is `System(EPERM)`;
/// ask [`probe`] beforehand. EADDRNOTAVAIL for a local address that has been removed is `System` too, and so is ECONNABORTED, for a client
/// whose bytes came by two ways and could not be told apart on three sockets: it has been sent a RST.
pub fn adopt(accepted: &Accepted, early: &mut dyn EarlyData) -> Result<Adopted, Refusal> {
    let mut accepted = accepted.clone();
    let mut sockets = 1;
    loop {
        match make_socket(&accepted, early)? {
            Caught::Up(live, received) => return release(live, received),
            Caught::Twice(muted, injected) if sockets < SOCKETS_MAX => {
                start_over(muted, injected, &mut accepted, early)?;
            }
            Caught::Twice(muted, _) => return Err(give_up(muted)),
        }
        sockets += 1;
    }
}

fn make_socket(accepted: &Accepted, early: &mut dyn EarlyData) -> Result<Caught, Refusal> {
    let prepared = Prepared::new(accepted).map_err(|error| refusal(&error))?;
    let connected = prepared.connect(accepted)?;
    let muted = connected.configure(accepted).map_err(|error| refusal(&error))?;
    let given = muted.inject(early.collect()).map_err(|error| refusal(&error))?;
    let live = muted.unmute().map_err(|error| refusal(&error))?;
    catch_up(live, given, early)
}

fn release(live: Live, received: usize) -> Result<Adopted, Refusal> {
    let stream = live.release().map_err(|error| refusal(&error))?;
    Ok(Adopted { stream, received_bytes: received as u32 })
}

/// Has the socket vanish without a packet, and prepares the next: its clock goes on where this one's stands.
///
/// What this one had without the second copy it may have acknowledged, and it will not come again: the next socket must be given
/// as much. When the tap has less, the connection cannot be had.
fn start_over(
    muted: Muted,
    injected: usize,
    accepted: &mut Accepted,
    early: &mut dyn EarlyData,
) -> Result<(), Refusal> {
    let acknowledged = muted.received_data().map_err(|error| refusal(&error))?.saturating_sub(injected);
    if early.collect().len() < acknowledged {
        return Err(give_up(muted));
    }
    if let Some(timestamps) = &mut accepted.options.timestamps {
        timestamps.local = muted.clock().map_err(|error| refusal(&error))?;
    }
    Ok(())
}

/// Better no connection than a wrong byte.
fn give_up(muted: Muted) -> Refusal {
    match muted.reset() {
        Ok(()) => Refusal::System(libc::ECONNABORTED),
        Err(error) => refusal(&error),
    }
}

/// A connection that was adopted.
#[derive(Debug)]
pub struct Adopted {
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// How far behind `irs + 1` the socket is known to have received: the bytes that were injected, and what the kernel was
    /// seen to take in beyond these (its FIN counted as one). The kernel acknowledges only what it took in itself.
    pub received_bytes: u32,
}

/// Whether this process may adopt connections: whether the kernel lets it put a socket into repair mode.
///
/// # Errors
///
/// EPERM without CAP_NET_ADMIN in the user namespace that owns the network namespace; others from `socket(2)`.
pub fn probe() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    sys::set_repair(&socket, Repair::On)
}

/// How the socket and the tap agree in the end on what the client has sent.
enum Caught {
    /// The socket takes packets in, and is known to have this many bytes.
    Up(Live, usize),
    /// A segment had passed the filter before it was attached, and was appended just before its bytes were injected: the
    /// queue has some twice. So many were injected last.
    Twice(Muted, usize),
}

/// Finds the bytes that fell between two stools: seen by the tap after the last look, dropped before the socket was unmuted.
///
/// `given` is what was injected so far. In nearly all cases the tap has seen no more than that, and this costs no system call.
fn catch_up(mut live: Live, given: usize, early: &mut dyn EarlyData) -> Result<Caught, Refusal> {
    let mut has = given;
    for _ in 0..CATCH_UP_ROUNDS_MAX {
        if early.collect().len() <= has {
            break;
        }
        has = live.received().map_err(|error| refusal(&error))?;
        if early.collect().len() <= has {
            break; // The socket got them itself.
        }
        let muted = match live.mute() {
            Ok(muted) => muted,
            Err(unchanged) => return Ok(Caught::Up(unchanged, has)),
        };
        // Read again: a segment may have come in just before.
        has = muted.received().map_err(|error| refusal(&error))?;
        let missing = early.collect().get(has..).unwrap_or_default();
        let injected = muted.inject(missing).map_err(|error| refusal(&error))?;
        if injected > 0 && muted.received().map_err(|error| refusal(&error))? != has + injected {
            return Ok(Caught::Twice(muted, injected));
        }
        has += injected;
        live = muted.unmute().map_err(|error| refusal(&error))?;
    }
    Ok(Caught::Up(live, has))
}
