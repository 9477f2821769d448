//! RST: ends a half-open connection if it hits its sequence number exactly.

use wire::{FourTuple, Segment};

use super::{Disposition, Listen};
use crate::replies::WINDOW;
use crate::stats::{Counter, DropReason};
use crate::time::Time;

impl Listen {
    /// RFC 5961 §3.2 in SYN-RECEIVED; in LISTEN a RST is ignored (RFC 9293 §3.10.7.2, first).
    pub(super) fn on_rst(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        if self.young.capture(tuple, segment) {
            return Disposition::Captured;
        }
        let Some(entry) = self.half_open.get(tuple) else { return Disposition::Drop(DropReason::Reset) };
        if segment.seq == entry.irs + 1 {
            // Whoever guesses at an entry of its own gets no fresh one for a RST and another SYN.
            match entry.guesses {
                0 => self.forget(tuple, Counter::HalfOpenReset),
                _ => self.half_open.shut(tuple, self.config.synack_retries),
            }
            return Disposition::Drop(DropReason::Reset);
        }
        if segment.seq.in_window(entry.irs + 1, u32::from(WINDOW)) {
            return self.challenge(tuple, &entry, now);
        }
        Disposition::Drop(DropReason::Reset)
    }
}
