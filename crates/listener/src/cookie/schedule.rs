//! Which master key an epoch's key comes from: how one master key takes the place of another.

use super::key::{Epoch, MasterKey};

/// The master keys by epoch: one from the beginning, others from some epoch on.
///
/// A rotation names the first epoch of the new master key. An epoch's keys then come from one master key alone, so a cookie is still judged
/// by one hash, and the cookies of the old one stay good for exactly as long as cookies of their epoch are taken. Nodes that share their
/// master keys and name the same epoch go on finishing each other's handshakes.
///
/// ```
/// use listener::cookie::{Epoch, KeySchedule, MasterKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (old, new) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
/// let mut keys = KeySchedule::new(old.clone());
/// let from = Epoch::at_unix(1_800_000_000).rotation();
/// keys.rotate(from, new.clone())?;
/// assert!(keys.master_of(Epoch(from.0 - 1)).is(&old) && keys.master_of(from).is(&new));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeySchedule {
    first: MasterKey,
    /// In the order of their epochs.
    later: Vec<(Epoch, MasterKey)>,
}

/// Too many master keys wait for their epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} rotations are under way already; legal: at most that many at a time", KeySchedule::LATER_MAX)]
pub struct ScheduleFull;

impl KeySchedule {
    /// Rotations that can be under way at a time. Rotations without a date of their own never get there: those of one epoch replace each
    /// other, and four epochs later they are [forgotten](KeySchedule::forget_before).
    pub const LATER_MAX: usize = 8;

    /// This master key for every epoch.
    pub const fn new(master: MasterKey) -> KeySchedule {
        KeySchedule { first: master, later: Vec::new() }
    }

    /// From this epoch on, `master`. What was to come at that epoch or later does not come any more.
    ///
    /// The caller sees to it that nobody has made a cookie of that epoch yet: see [`Epoch::rotation`].
    ///
    /// # Errors
    /// With [`LATER_MAX`](KeySchedule::LATER_MAX) under way. Nothing has changed then.
    pub fn rotate(&mut self, from: Epoch, master: MasterKey) -> Result<(), ScheduleFull> {
        let kept = self.later.partition_point(|(epoch, _)| *epoch < from);
        if kept == KeySchedule::LATER_MAX {
            return Err(ScheduleFull);
        }
        self.later.truncate(kept);
        self.later.push((from, master));
        Ok(())
    }

    /// The master key of this epoch.
    pub fn master_of(&self, epoch: Epoch) -> &MasterKey {
        self.later.iter().rev().find(|(from, _)| *from <= epoch).map_or(&self.first, |(_, master)| master)
    }

    /// The master key that is the last to come, or has come.
    pub fn last(&self) -> &MasterKey {
        self.later.last().map_or(&self.first, |(_, master)| master)
    }

    /// The first of all.
    pub fn first(&self) -> &MasterKey {
        &self.first
    }

    /// Those behind the first, with the epochs from which they hold, in their order.
    pub fn later(&self) -> impl Iterator<Item = (Epoch, &MasterKey)> {
        self.later.iter().map(|(from, master)| (*from, master))
    }

    /// Wipes the master keys that no epoch from this one on needs.
    pub fn forget_before(&mut self, epoch: Epoch) {
        let gone = self.later.partition_point(|(from, _)| *from <= epoch);
        if let Some((_, master)) = self.later.drain(..gone).next_back() {
            self.first = master;
        }
    }
}

impl From<MasterKey> for KeySchedule {
    fn from(master: MasterKey) -> KeySchedule {
        KeySchedule::new(master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::from_bytes([byte; 32])
    }

    /// The first bytes of the masters of these epochs.
    fn masters(keys: &KeySchedule, epochs: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let byte = |epoch| (0..=255).find(|byte| keys.master_of(Epoch(epoch)).is(&master(*byte))).unwrap();
        epochs.into_iter().map(byte).collect()
    }

    #[test]
    fn each_epoch_has_the_master_that_holds_for_it() {
        let mut keys = KeySchedule::new(master(1));
        keys.rotate(Epoch(10), master(2)).unwrap();
        keys.rotate(Epoch(12), master(3)).unwrap();
        assert_eq!(masters(&keys, 8..=13), [1, 1, 2, 2, 3, 3]);
        assert!(keys.first().is(&master(1)) && keys.last().is(&master(3)));
        keys.rotate(Epoch(11), master(4)).unwrap();
        assert_eq!(masters(&keys, 8..=13), [1, 1, 2, 4, 4, 4], "what was to come later does not come");
    }

    #[test]
    fn what_no_epoch_needs_is_forgotten_and_nothing_else() {
        let mut keys = KeySchedule::new(master(1));
        keys.rotate(Epoch(10), master(2)).unwrap();
        keys.rotate(Epoch(12), master(3)).unwrap();
        keys.forget_before(Epoch(9));
        assert_eq!(masters(&keys, 9..=12), [1, 2, 2, 3]);
        keys.forget_before(Epoch(11));
        assert_eq!(masters(&keys, 9..=12), [2, 2, 2, 3]);
        keys.forget_before(Epoch(99));
        assert_eq!((masters(&keys, [9]), keys.later().count()), (vec![3], 0));
    }

    #[test]
    fn rotations_under_way_are_bounded() {
        let mut keys = KeySchedule::new(master(1));
        for n in 0..KeySchedule::LATER_MAX as u64 {
            keys.rotate(Epoch(10 + n), master(2)).unwrap();
        }
        assert_eq!(keys.rotate(Epoch(99), master(3)), Err(ScheduleFull));
        assert!(keys.last().is(&master(2)), "nothing has changed");
        keys.rotate(Epoch(17), master(3)).unwrap();
        assert!(keys.last().is(&master(3)), "one of them was replaced");
    }
}
