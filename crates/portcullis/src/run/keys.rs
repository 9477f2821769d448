//! The master keys of the running process, and how another one takes the place of the last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use exporter::KeyRotations;
use listener::cookie::Epoch;
use portcullis::{Control, KeySchedule};

use crate::control::{Refusal, Rotated};
use crate::master_key::KeySource;

/// The farthest that a rotation can be set ahead, in seconds: who plans further can ask later.
const AHEAD_SECONDS_MAX: u64 = 86_400;

/// The keys, and whom to tell of new ones.
///
/// Told are the listeners in one go, under one lock: of two rotations, one comes after the other everywhere.
pub struct Keys {
    source: KeySource,
    controls: Vec<Control>,
    state: Mutex<State>,
}

struct State {
    masters: KeySchedule,
    rotations: KeyRotations,
}

impl Keys {
    /// For listeners that were started with `masters`, which came from `source`.
    pub fn new(source: KeySource, masters: KeySchedule, controls: Vec<Control>) -> Keys {
        Keys { source, controls, state: Mutex::new(State { masters, rotations: KeyRotations::default() }) }
    }

    /// The keys as they are now.
    pub fn masters(&self) -> KeySchedule {
        self.lock().masters.clone()
    }

    /// What became of rotations so far.
    pub fn rotations(&self) -> KeyRotations {
        self.lock().rotations
    }

    /// Takes the master key that stands where the first one came from, or a new one, from the epoch that begins at `at` (Unix time, seconds) or
    /// behind it, or from the first that is possible.
    ///
    /// # Errors
    /// Why the keys are as they were.
    pub fn rotate(&self, generate: bool, at: Option<u64>) -> Result<Rotated, Refusal> {
        self.rotate_at(unix_seconds(), generate, at)
            .inspect(|rotated| {
                let Rotated { from_unix_seconds, in_seconds, source } = rotated;
                tracing::info!(
                    from_unix_seconds,
                    generated = generate,
                    "ctl rotate-keys: another master key in {in_seconds} s, from {source}"
                );
            })
            .inspect_err(|refusal| {
                tracing::warn!("ctl rotate-keys refused, the keys are as they were: {}", refusal.message)
            })
    }

    fn rotate_at(&self, now: u64, generate: bool, at: Option<u64>) -> Result<Rotated, Refusal> {
        let from = first_epoch(now, at)?;
        let mut state = self.lock();
        let mut masters = state.masters.clone();
        masters.forget_before(Epoch::at_unix(now));
        let refused = |failure: crate::failure::Failure| Refusal::refused(failure.to_string());
        let new = if generate { self.source.fresh() } else { self.source.read() }.map_err(refused)?;
        if new.is(masters.last()) {
            return Err(Refusal::refused(format!(
                "the master key of {} is the one in use: put another one there first, or --generate one",
                self.source
            )));
        }
        masters.rotate(from, new).map_err(|full| Refusal::refused(full.to_string()))?;
        if generate {
            // Before anybody uses it: the next process is to find it.
            self.source.keep(&masters).map_err(refused)?;
        } else {
            self.source.keep_previous(&masters);
        }
        self.controls.iter().for_each(|control| control.set_master_keys(masters.clone()));
        state.masters = masters;
        state.rotations.count += 1;
        state.rotations.from_unix_seconds = from.begins_unix();
        let in_seconds = from.begins_unix().saturating_sub(now);
        Ok(Rotated { from_unix_seconds: from.begins_unix(), in_seconds, source: self.source.to_string() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is under the lock is replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoch from which a new key can hold, or the first that does not begin before `at`.
fn first_epoch(now: u64, at: Option<u64>) -> Result<Epoch, Refusal> {
    let first = Epoch::at_unix(now).rotation();
    let Some(at) = at else { return Ok(first) };
    let (least, most) = (first.begins_unix(), now.saturating_add(AHEAD_SECONDS_MAX));
    if !(least..=most).contains(&at) {
        return Err(Refusal::usage(format!("at: {at} is not legal; legal: Unix time from {least} to {most}")));
    }
    Ok(Epoch(at.div_ceil(Epoch::SECONDS)))
}

/// The wall clock, which nodes agree on.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The keys of a process that takes over, whose own source says `loaded`: those of its predecessor, so that every cookie that is out stays
/// good; and if the last one of them is another than the source's, that one from the first epoch that is possible.
///
/// With as many rotations under way as there can be, the predecessor's hold as they are.
pub fn inherited(left: KeySchedule, loaded: &KeySchedule, now: u64) -> KeySchedule {
    let mut masters = left;
    masters.forget_before(Epoch::at_unix(now));
    if !masters.last().is(loaded.last()) {
        match masters.rotate(Epoch::at_unix(now).rotation(), loaded.last().clone()) {
            Ok(()) => tracing::info!("the master key is another one than the predecessor's: a rotation"),
            Err(full) => {
                tracing::warn!("the master key is another one than the predecessor's, whose keys hold on: {full}")
            }
        }
    }
    masters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master_key::tests::Directory;

    /// Half way through an epoch.
    const NOW: u64 = 1_800_000_016;

    fn keys(directory: &Directory) -> Keys {
        let source = KeySource::kept_in(directory.path());
        let masters = source.load().unwrap();
        Keys::new(source, masters, Vec::new())
    }

    #[test]
    fn a_fresh_key_is_kept_and_used_from_the_next_epoch_but_one() {
        let directory = Directory::new();
        let keys = keys(&directory);
        let old = keys.source.read().unwrap();
        let rotated = keys.rotate_at(NOW, true, None).unwrap();
        assert_eq!((rotated.from_unix_seconds, rotated.in_seconds), (NOW + 48, 48));
        let kept = keys.source.read().unwrap();
        let masters = keys.lock().masters.clone();
        assert!(masters.first().is(&old) && masters.last().is(&kept) && !kept.is(&old));
        assert_eq!(keys.rotations(), KeyRotations { count: 1, from_unix_seconds: NOW + 48 });
        // One epoch later the one before is no longer needed but as what was first.
        keys.rotate_at(NOW + 1000, true, None).unwrap();
        assert!(keys.lock().masters.first().is(&kept));
    }

    #[test]
    fn the_same_key_is_refused_and_a_date_has_bounds() {
        let directory = Directory::new();
        let keys = keys(&directory);
        let refusal = keys.rotate_at(NOW, false, None).unwrap_err();
        assert!(refusal.message.contains("is the one in use"), "{refusal:?}");
        for (at, from) in [(NOW + 48, NOW + 48), (NOW + 49, NOW + 80), (NOW + 86_400, NOW + 86_400 + 16)] {
            assert_eq!(first_epoch(NOW, Some(at)).unwrap().begins_unix(), from, "{at}");
        }
        for at in [0, NOW, NOW + 47, NOW + 86_401, u64::MAX] {
            let refusal = keys.rotate_at(NOW, true, Some(at)).unwrap_err();
            assert!(refusal.message.contains(&format!("at: {at} is not legal; legal: ")), "{refusal:?}");
        }
        assert_eq!(keys.rotations(), KeyRotations::default());
    }

    #[test]
    fn a_successor_goes_on_with_its_predecessors_keys_and_rotates_to_its_own() {
        let key = |byte| portcullis::MasterKey::from_bytes([byte; 32]);
        let mut left = KeySchedule::new(key(1));
        left.rotate(Epoch::at_unix(NOW).rotation(), key(2)).unwrap();
        // The same source: all stays as it is.
        let same = inherited(left.clone(), &KeySchedule::new(key(2)), NOW);
        assert!(same.master_of(Epoch::at_unix(NOW)).is(&key(1)) && same.last().is(&key(2)));
        // Another key was put there: nobody's cookie is lost over it.
        let other = inherited(left, &KeySchedule::new(key(3)), NOW);
        assert!(other.master_of(Epoch::at_unix(NOW)).is(&key(1)) && other.last().is(&key(3)));
    }

    #[test]
    fn what_cannot_be_kept_is_not_used() {
        let directory = Directory::new();
        let keys = keys(&directory);
        let before = keys.lock().masters.last().clone();
        let _in_the_way = directory.in_the_way_of_the_new_key();
        let refusal = keys.rotate_at(NOW, true, None).unwrap_err();
        assert!(refusal.message.contains("cannot keep"), "{refusal:?}");
        assert!(keys.lock().masters.last().is(&before));
    }
}
