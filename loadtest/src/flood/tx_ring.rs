//! Frames by a packet socket's ring.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;

use nix::net::if_::if_nametoindex;
use testnet::{bind_packet, packet_socket, set_option};

use super::progress::{Stopped, Work};
use super::recipe::Recipe;
use super::sys::{self, TxMemory};

/// Frames handed to the kernel per system call: more brings nothing, fewer cost.
const BATCH: u64 = 128;
/// A veth gives a slot back while the frame still waits at its other end, in a queue of 256 or, without NAPI, 1000 frames
/// (`net.core.netdev_max_backlog`), and the frame's bytes are still those in the slot. By the time a slot's turn comes again, so many
/// frames later, that one is gone.
const SLOTS: usize = 4096;

/// One thread's engine.
#[derive(Debug)]
pub struct TxRing {
    socket: OwnedFd,
    memory: TxMemory,
    /// The oldest slot that waits, and how many do.
    head: usize,
    waiting: u64,
    recipe: Recipe,
    number: u64,
    stride: u64,
}

impl TxRing {
    /// Out of an interface of the calling thread's namespace: every `stride`th frame from `first` on.
    pub fn open(interface: &str, recipe: &Recipe, first: u64, stride: u64) -> io::Result<TxRing> {
        let socket = packet_socket()?;
        set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        let memory = TxMemory::new(socket.as_fd(), SLOTS)?;
        bind_packet(socket.as_fd(), if_nametoindex(interface)?, 0)?;
        Ok(TxRing { socket, memory, head: 0, waiting: 0, recipe: recipe.clone(), number: first, stride })
    }

    /// Sends what is due until the flood ends.
    pub fn run(&mut self, mut work: Work<'_>) -> Stopped {
        loop {
            let wanted = match work.todo() {
                Ok(todo) => todo.unwrap_or(BATCH).min(BATCH),
                Err(stopped) => return stopped,
            };
            if wanted == 0 {
                sleep(work.nap());
                continue;
            }
            self.fill(wanted);
            let (sent, refused) = self.send();
            work.did(sent, refused);
        }
    }

    /// Puts frames into the ring until `wanted` wait, or there is no room.
    fn fill(&mut self, wanted: u64) {
        while self.waiting < wanted {
            let slot = (self.head + self.waiting as usize) % self.memory.slots();
            let (frame, len) = self.recipe.frame(self.number);
            if !self.memory.put(slot, &frame, len) {
                return;
            }
            self.number = self.number.wrapping_add(self.stride);
            self.waiting += 1;
        }
    }

    /// Returns how many frames the device took, and how many it did not.
    ///
    /// At the first that it does not take the kernel leaves off, and comes back to that slot the next time. For us that frame is lost,
    /// and what is in its slot is the next one.
    fn send(&mut self) -> (u64, u64) {
        let result = sys::send_ring(self.socket.as_fd());
        let before = self.waiting;
        while self.waiting > 0 && !self.memory.is_waiting(self.head) {
            self.head = (self.head + 1) % self.memory.slots();
            self.waiting -= 1;
        }
        (before - self.waiting, u64::from(result.is_err()))
    }
}
