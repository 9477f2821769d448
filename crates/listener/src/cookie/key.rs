//! The master secret and the epoch keys derived from it.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The secret from which all cookie keys are derived: 256 bits.
///
/// Every node with the same master key and a clock within one epoch makes and accepts the same cookies. Wiped on drop;
/// `Debug` shows nothing of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

/// Why a text is not a master key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MasterKeyError {
    /// Not 64 characters.
    #[error("a master key is 64 hexadecimal digits (256 bits); this has {0} characters")]
    Length(usize),
    /// A character that is no hexadecimal digit.
    #[error("a master key is 64 hexadecimal digits; character {position} is none")]
    Digit {
        /// Position of the first bad character, from 1.
        position: usize,
    },
    /// All zeros: an empty device or a placeholder, not a secret.
    #[error("a master key of zeros is no secret; `portcullis keygen` makes a good one")]
    Zero,
}

impl MasterKey {
    /// A new key from the operating system's entropy.
    ///
    /// # Errors
    /// When the system has none to give (`getrandom(2)`).
    pub fn generate() -> std::io::Result<MasterKey> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(MasterKey(bytes))
    }

    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> MasterKey {
        MasterKey(bytes)
    }

    /// Reads 64 hexadecimal digits, white space around them ignored.
    ///
    /// # Errors
    /// [`MasterKeyError`], which never quotes the text.
    pub fn from_hex(text: &str) -> Result<MasterKey, MasterKeyError> {
        let text = text.trim();
        let length = text.chars().count();
        if length != 64 {
            return Err(MasterKeyError::Length(length));
        }
        let mut key = MasterKey([0; 32]);
        for (index, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).ok_or(MasterKeyError::Digit { position: index + 1 })? as u8;
            key.0[index / 2] = (key.0[index / 2] << 4) | value;
        }
        if key.0 == [0; 32] {
            return Err(MasterKeyError::Zero);
        }
        Ok(key)
    }

    /// The key as 64 hexadecimal digits, in memory that is wiped on drop.
    pub fn to_hex(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in self.0 {
            text.push(DIGITS[usize::from(byte >> 4)] as char);
            text.push(DIGITS[usize::from(byte & 15)] as char);
        }
        text
    }

    /// Whether it is the same. Not for comparing with what a peer says: the time it takes tells where they differ.
    pub fn is(&self, other: &MasterKey) -> bool {
        self.0 == other.0
    }

    /// The key of one epoch.
    ///
    /// HKDF-SHA-256 (RFC 5869) without salt, `info` = a fixed label and the epoch number, big-endian: nothing of the
    /// host goes in, so that every node derives the same.
    pub(super) fn epoch_key(&self, epoch: Epoch) -> Zeroizing<[u8; 16]> {
        let mut info = *b"portcullis syn cookie v1 \0\0\0\0\0\0\0\0";
        let label = info.len() - 8;
        info[label..].copy_from_slice(&epoch.0.to_be_bytes());
        let mut key = Zeroizing::new([0; 16]);
        let expanded = Hkdf::<Sha256>::new(None, &self.0).expand(&info, key.as_mut());
        debug_assert!(expanded.is_ok(), "16 bytes are within HKDF's limit of 255 hashes");
        key
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The number of a key's period: Unix time divided by [`Epoch::SECONDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Length of an epoch in seconds. A cookie lives for one to two of them, three on a node whose clock is behind.
    pub const SECONDS: u64 = 32;

    /// The epoch at this Unix time.
    pub const fn at_unix(seconds: u64) -> Epoch {
        Epoch(seconds / Epoch::SECONDS)
    }

    /// The Unix time at which it begins, in seconds.
    pub const fn begins_unix(self) -> u64 {
        self.0.saturating_mul(Epoch::SECONDS)
    }

    /// The first epoch that a new master key can have, in this one: the next but one.
    ///
    /// Cookies of the next are made already by nodes whose clocks are ahead, and each worker has at least an epoch's length to hear of it.
    pub const fn rotation(self) -> Epoch {
        Epoch(self.0.saturating_add(2))
    }

    /// The low bits that ride in a cookie.
    pub(super) const fn bits(self) -> u32 {
        (self.0 & 3) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_white_space_is_ignored() {
        let key = MasterKey::generate().unwrap();
        let text = format!("  {}\n", *key.to_hex());
        assert_eq!(MasterKey::from_hex(&text).unwrap().0, key.0);
    }

    #[test]
    fn bad_hex_is_refused_with_what_is_wrong() {
        assert_eq!(MasterKey::from_hex("abc").unwrap_err(), MasterKeyError::Length(3));
        let text = format!("{}g{}", "a".repeat(10), "a".repeat(53));
        assert_eq!(MasterKey::from_hex(&text).unwrap_err(), MasterKeyError::Digit { position: 11 });
        assert_eq!(MasterKey::from_hex(&"0".repeat(64)).unwrap_err(), MasterKeyError::Zero);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", MasterKey::from_bytes([7; 32])), "MasterKey(..)");
    }

    #[test]
    fn epoch_keys_differ_and_do_not_depend_on_the_host() {
        let master = MasterKey::from_bytes([1; 32]);
        assert_ne!(*master.epoch_key(Epoch(1)), *master.epoch_key(Epoch(2)));
        assert_eq!(*master.epoch_key(Epoch(1)), *MasterKey::from_bytes([1; 32]).epoch_key(Epoch(1)));
    }
}
