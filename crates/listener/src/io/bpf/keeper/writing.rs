//! What the keeper writes into the programs' maps.

use std::io;

use super::Keeper;
use crate::io::bpf::layout::TARGET_WORDS;
use crate::io::bpf::targets::targets_of;
use crate::io::sieve::in_full;

impl Keeper {
    /// The orders.
    pub(super) fn write_words(&mut self) -> io::Result<()> {
        self.has.programs.listeners.set(0, self.has.words.to_raw(), 0).map_err(in_full)?;
        self.written = Some(self.has.words);
        Ok(())
    }

    /// Keys before the numbers that say which of them count.
    pub(super) fn write_clockwork(&mut self) -> io::Result<()> {
        let clockwork = &mut self.has.clockwork;
        clockwork.current = self.keys.current;
        clockwork.accepted = self.keys.accepted;
        clockwork.macs = self.has.attached.macs();
        clockwork.kept = self.has.words.outlives.then_some(self.kept);
        self.has.programs.clockwork.set(0, clockwork.to_raw(), 0).map_err(in_full)
    }

    pub(super) fn write_targets(&mut self) -> io::Result<()> {
        let targets = targets_of(&self.has.bind, &self.has.interfaces.get(), 0);
        let Some(placed) = self.has.placement.place(&self.table, &targets) else {
            return Err(io::Error::other(format!("no room for {} guarded addresses", targets.len())));
        };
        // Free places first: who moves stands in both for a moment, and never in none.
        let changed = |index: &usize| self.table[*index] != placed[*index];
        let (free, taken): (Vec<_>, Vec<_>) =
            (0..placed.len()).filter(changed).partition(|&index| self.table[index].is_none());
        for index in free.into_iter().chain(taken) {
            self.table[index].clone_from(&placed[index]);
            self.write_place(index)?;
        }
        Ok(())
    }

    /// New keys for all that stands.
    pub(super) fn write_keys(&mut self) -> io::Result<()> {
        for index in 0..self.table.len() {
            if self.table[index].is_some() {
                self.write_place(index)?;
            }
        }
        Ok(())
    }

    fn write_place(&mut self, index: usize) -> io::Result<()> {
        let target = self.table[index].as_ref();
        let raw = target.map_or([0; TARGET_WORDS], |target| target.to_raw(&self.keys.states(target.local)));
        self.has.programs.targets.set(index as u32, raw, 0).map_err(in_full)
    }
}
