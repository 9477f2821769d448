//! Where the server's end of the cable does its work.
//!
//! A veth's reception runs by itself on the core of whoever sends, and the flood's core would then do the target's work. Given a thread of
//! its own (threaded NAPI), it runs where we say, from a queue of 256 frames, much as a network card has one.

use testnet::Interface;

use crate::flood::{send_through_queue, take_xdp_frames, thread_napi};

/// Moves the reception of `end` to these cores; all that its `peer` sends waits in one queue there, whoever sent it. Says whether it
/// went: where the machine does not let us (a user namespace, an old kernel), it stays with the sender.
pub fn give_to(end: &Interface, peer: &Interface, cores: &[usize]) -> bool {
    let (namespace, name) = (end.namespace(), end.name());
    take_xdp_frames(namespace, name).is_ok()
        && send_through_queue(peer.namespace(), peer.name()).is_ok()
        && thread_napi(namespace, name, cores).is_ok()
}
