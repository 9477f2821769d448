//! Handshakes by hand, whose last ACKs are then repeated.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use testnet::{Flags, Frame, Segment, bind_packet, options, packet_socket, set_option};

use super::FloodError;
use super::kinds::{WINDOW, frame, handshakes};
use super::recipe::Recipe;
use super::spec::{FloodSpec, Place};
use super::template::{Template, Varies};

/// Connections whose ACKs are repeated, in turns.
const CONNECTIONS: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(5);
/// When what is unanswered is sent again: the least timeout of RFC 6298 §2.4.
const AGAIN: Duration = Duration::from_secs(1);
const _: () = assert!(CONNECTIONS as usize <= Recipe::TEMPLATES_MAX);

/// Connects from the spoofed prefix, where no kernel interferes, and returns the last ACKs. Call it in the place's namespace.
///
/// # Errors
/// When nobody completes a handshake in 5 s. Some that are missing are no error.
pub fn shake_hands(spec: &FloodSpec, place: &Place) -> Result<Recipe, FloodError> {
    let wire = open(&place.interface).map_err(FloodError::io("open a packet socket"))?;
    let syns = handshakes(spec, place);
    let (mut acks, deadline) = (Vec::<Vec<u8>>::new(), Instant::now() + PATIENCE);
    while (acks.len() as u64) < CONNECTIONS && Instant::now() < deadline {
        let again = (Instant::now() + AGAIN).min(deadline);
        for number in 0..CONNECTIONS {
            transmit(&wire, &syns.bytes(number)).map_err(FloodError::io("send a SYN"))?;
        }
        while (acks.len() as u64) < CONNECTIONS
            && let Some(answer) = receive(&wire, again).map_err(FloodError::io("wait for a SYN-ACK"))?
        {
            let ack = frame(&ack_of(&answer), place.source_mac, place.gateway_mac);
            let is_new = !acks.iter().any(|other| same_connection(other, &ack));
            if is_new && answer.flags.is_syn_ack() && answer.src == spec.target {
                transmit(&wire, &ack).map_err(FloodError::io("send an ACK"))?;
                acks.push(ack);
            }
        }
    }
    if acks.is_empty() {
        return Err(FloodError::NoHandshake(spec.target));
    }
    let templates = acks.iter().map(|ack| Template::new(ack, &Varies::default())).collect();
    Ok(Recipe::new(templates, spec.seed))
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let wire = packet_socket()?;
    set_option(wire.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    bind_packet(wire.as_fd(), if_nametoindex(interface)?, libc::ETH_P_ALL as u16)?;
    Ok(wire)
}

fn transmit(wire: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    match send(wire.as_raw_fd(), frame, MsgFlags::empty()) {
        Ok(_) | Err(Errno::ENOBUFS) => Ok(()), // A SYN that is lost is sent again.
        Err(errno) => Err(errno.into()),
    }
}

/// The next TCP segment, or `None` when none came until then.
fn receive(wire: &OwnedFd, until: Instant) -> io::Result<Option<Frame>> {
    let mut buffer = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis() as u16;
        let ready = poll(&mut [PollFd::new(wire.as_fd(), PollFlags::POLLIN)], PollTimeout::from(left))?;
        if ready == 0 {
            return Ok(None);
        }
        let len = recv(wire.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        if let Some(segment) = Frame::parse(&buffer[..len], None, true) {
            return Ok(Some(segment));
        }
    }
}

/// What completes the handshake, a millisecond later by our clock.
fn ack_of(answer: &Frame) -> Segment {
    let ack =
        Segment::new(answer.dst, answer.src, Flags::ACK).seq(answer.ack).ack(answer.seq.wrapping_add(1)).window(WINDOW);
    match answer.timestamps() {
        Some((theirs, ours)) => ack.options([&[1, 1][..], &options::timestamps(ours.wrapping_add(1), theirs)].concat()),
        None => ack,
    }
}

fn same_connection(a: &[u8], b: &[u8]) -> bool {
    let source = |bytes| Frame::parse(bytes, None, true).map(|frame| frame.src);
    source(a) == source(b)
}
