//! The cookie's keys as a program in the kernel needs them: SipHash states that have our own endpoint in them already.

use std::net::SocketAddr;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{CookieJar, Epoch, KeySet};

/// Slots for keys: four consecutive epochs, each at the index of its low bits, and four from before the clock jumped.
pub(crate) const KEY_SLOTS: usize = 8;

/// The state of SipHash-2-4 after key and local endpoint: `v0` to `v3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Zeroize)]
pub(crate) struct KeyedState(pub [u64; 4]);

/// The keys that make and accept cookies at a moment.
#[derive(ZeroizeOnDrop)]
pub(crate) struct KeySlots {
    keys: [[u8; 16]; KEY_SLOTS],
    /// Whether a cookie of that slot is accepted.
    #[zeroize(skip)]
    pub accepted: [bool; KEY_SLOTS],
    /// The slot that makes cookies, 0 to 3.
    #[zeroize(skip)]
    pub current: u8,
    /// What tells these keys from those of another moment.
    #[zeroize(skip)]
    pub version: KeyVersion,
}

/// The current epoch, that of before the clock jumped, and how often the master keys were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyVersion(Epoch, Option<Epoch>, u64);

impl CookieJar {
    /// What [`KeySlots::version`] would be.
    pub(crate) fn version(&self) -> KeyVersion {
        KeyVersion(self.keys.current, self.before_jump.as_ref().map(|(keys, _)| keys.current), self.set_count)
    }

    pub(crate) fn key_slots(&self) -> KeySlots {
        let mut slots =
            KeySlots { keys: Default::default(), accepted: [false; KEY_SLOTS], current: 0, version: self.version() };
        slots.current = self.keys.current.bits() as u8;
        slots.fill(0, &self.keys);
        if let Some((keys, _)) = &self.before_jump {
            slots.fill(4, keys);
        }
        slots
    }
}

impl KeySlots {
    fn fill(&mut self, first: usize, keys: &KeySet) {
        for (index, key) in keys.keys.iter().enumerate() {
            self.keys[first + index] = *key.secret;
            self.accepted[first + index] = keys.accepts(key.epoch);
        }
    }

    /// The states for this endpoint of ours; those of slots without a key mean nothing.
    pub(crate) fn states(&self, local: SocketAddr) -> [KeyedState; KEY_SLOTS] {
        self.keys.each_ref().map(|key| absorb_local(key, local))
    }
}

/// SipHash-2-4's initialisation and its compression of whole words (Aumasson and Bernstein 2012, §2).
fn absorb_local(key: &[u8; 16], local: SocketAddr) -> KeyedState {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let constants = Zeroizing::new([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let mut state = KeyedState(*constants);
    let port = u64::from(local.port());
    match local {
        SocketAddr::V4(addr) => {
            let [a, b, c, d] = addr.ip().octets();
            absorb(&mut state.0, u64::from(u32::from_le_bytes([a, b, c, d])) | port << 32);
        }
        SocketAddr::V6(addr) => {
            let octets = addr.ip().octets();
            absorb(&mut state.0, word(&octets[..8]));
            absorb(&mut state.0, word(&octets[8..]));
            absorb(&mut state.0, port);
        }
    }
    state
}

fn absorb(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32).wrapping_add(v[3]);
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use siphasher::sip::SipHasher24;

    use super::*;
    use crate::cookie::MasterKey;

    /// The rest of SipHash, for an input that ended with the absorbed words.
    fn finish(mut state: KeyedState, len: u64) -> u64 {
        absorb(&mut state.0, len << 56);
        state.0[2] ^= 0xff;
        (0..4).for_each(|_| round(&mut state.0));
        state.0.iter().fold(0, |sum, word| sum ^ word)
    }

    #[test]
    fn states_are_those_of_siphash() {
        let key: [u8; 16] = std::array::from_fn(|index| index as u8 * 7 + 1);
        for (local, input) in [
            ("198.18.0.1:8080", vec![198, 18, 0, 1, 0x90, 0x1f, 0, 0]),
            (
                "[2001:db8::1]:443",
                vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xbb, 1, 0, 0, 0, 0, 0, 0],
            ),
        ] {
            let mut reference = SipHasher24::new_with_key(&key);
            reference.write(&input);
            assert_eq!(finish(absorb_local(&key, local.parse().unwrap()), input.len() as u64), reference.finish());
        }
    }

    #[test]
    fn slots_follow_the_jar() {
        let master = MasterKey::from_bytes([7; 32]);
        let mut jar = CookieJar::new(master, Epoch(1001));
        let slots = jar.key_slots();
        assert_eq!((slots.current, slots.accepted), (1, [true, true, true, false, false, false, false, false]));
        jar.advance(Epoch(5000), crate::time::Time::from_secs(1));
        let jumped = jar.key_slots();
        assert_eq!((jumped.current, &jumped.accepted[4..]), (0, &slots.accepted[..4]));
        assert_eq!(jumped.keys[4..], slots.keys[..4]);
        assert_ne!(jumped.version, slots.version);
    }
}
