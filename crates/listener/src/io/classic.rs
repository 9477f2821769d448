//! An assembler of classic BPF, for the filters of packet sockets.
//!
//! What an opcode does is in `linux/bpf_common.h`, what can be loaded beside the packet in `linux/filter.h`.

use std::fmt::Debug;

use libc::sock_filter;

/// A program under construction, whose jumps go to labels of type `L`.
///
/// All jumps go forward, as the kernel wants it. Conditional ones reach 255 instructions only, so each goes to an unconditional one beside
/// it.
#[derive(Debug)]
pub struct Assembler<L> {
    program: Vec<sock_filter>,
    labels: Vec<(L, usize)>,
    /// Unconditional jumps whose distance is still to be filled in.
    pending: Vec<(usize, L)>,
}

impl<L> Default for Assembler<L> {
    fn default() -> Assembler<L> {
        Assembler { program: Vec::new(), labels: Vec::new(), pending: Vec::new() }
    }
}

impl<L: Debug + PartialEq> Assembler<L> {
    /// An instruction that is no jump.
    pub fn op(&mut self, code: u16, k: u32) {
        self.program.push(statement(code, k));
    }

    /// Names the next instruction.
    pub fn label(&mut self, label: L) {
        self.labels.push((label, self.program.len()));
    }

    /// Goes there.
    pub fn jump(&mut self, to: L) {
        self.pending.push((self.program.len(), to));
        self.op(JA, 0);
    }

    /// Goes to one of the two, by a comparison of A with `k`: [`JEQ`], [`JGT`] or [`JSET`].
    pub fn branch(&mut self, comparison: u16, k: u32, then: L, otherwise: L) {
        self.program.push(sock_filter { code: comparison, jt: 0, jf: 1, k });
        self.jump(then);
        self.jump(otherwise);
    }

    /// Goes there if A is `k`, else on to the next instruction.
    pub fn jump_if_equal(&mut self, k: u32, then: L) {
        self.program.push(sock_filter { code: JEQ, jt: 0, jf: 1, k });
        self.jump(then);
    }

    /// Goes there unless A is `k`, else on to the next instruction.
    pub fn jump_if_not_equal(&mut self, k: u32, then: L) {
        self.program.push(sock_filter { code: JEQ, jt: 1, jf: 0, k });
        self.jump(then);
    }

    /// The finished program.
    ///
    /// # Panics
    ///
    /// In builds with debug assertions, when a jump goes back, or to a label that does not exist.
    pub fn assemble(mut self) -> Vec<sock_filter> {
        for (at, label) in &self.pending {
            let target = self.labels.iter().find(|(known, _)| known == label).map(|(_, target)| *target);
            debug_assert!(target.is_some_and(|target| target > *at), "a jump goes forward, to a label: {label:?}");
            self.program[*at].k = (target.unwrap_or(*at + 1) - at - 1) as u32;
        }
        self.program
    }
}

/// An instruction that is no jump.
pub(super) fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A = the word at `k`.
pub const LD_ABS: u16 = 0x20;
/// A = the half word at `k`.
pub const LDH_ABS: u16 = 0x28;
/// A = the byte at `k`.
pub const LDB_ABS: u16 = 0x30;
/// A = the word at `X + k`.
pub const LD_IND: u16 = 0x40;
/// A = the half word at `X + k`.
pub const LDH_IND: u16 = 0x48;
/// A = the byte at `X + k`.
pub const LDB_IND: u16 = 0x50;
/// A = the packet's length.
pub const LD_LEN: u16 = 0x80;
/// A = `k`.
pub const LD_IMM: u16 = 0x00;
/// X = word `k` of the program's memory.
pub const LDX_MEM: u16 = 0x61;
/// Word `k` of the program's memory = A.
pub const ST: u16 = 0x02;
/// X = 4 * (byte at `k` & 15): the length of an IPv4 header.
pub const LDX_IHL: u16 = 0xb1;
/// A &= `k`.
pub const AND: u16 = 0x54;
/// A += X.
pub const ADD_X: u16 = 0x0c;
/// A *= `k`.
pub const MUL: u16 = 0x24;
/// A >>= `k`.
pub const RSH: u16 = 0x74;
/// Whether A is `k`.
pub const JEQ: u16 = 0x15;
/// Whether A is greater than `k`.
pub const JGT: u16 = 0x25;
/// Whether A and `k` have a bit in common.
pub const JSET: u16 = 0x45;
/// Passes `k` bytes.
pub const RET: u16 = 0x06;
/// Gives A.
pub const RET_A: u16 = 0x16;
/// X = A.
pub const TAX: u16 = 0x07;
/// A = X.
pub const TXA: u16 = 0x87;

pub(super) const JA: u16 = 0x05;
