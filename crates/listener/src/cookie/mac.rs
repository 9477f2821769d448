//! The keyed hash of a cookie.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;
use wire::{Endpoint, FourTuple, SeqNum};
use zeroize::Zeroizing;

use super::Form;
use super::key::{Epoch, MasterKey};

/// 64 bits of SipHash-2-4 over the connection's names, from which both fields of a cookie are cut.
#[derive(Clone, Copy)]
pub(super) struct Mac(u64);

impl Mac {
    /// Bits for form A's sequence number.
    pub(super) fn isn_wide(self) -> u32 {
        (self.0 & 0x3fff_ffff) as u32
    }

    /// Bits for form B's sequence number.
    pub(super) fn isn_narrow(self) -> u32 {
        (self.0 & 0x01ff_ffff) as u32
    }

    /// The 16 bits for TSval. The clock's bits are bound by a multiplication with a secret odd factor, so that one hash
    /// serves every moment of an epoch and yet no bit of the clock can be flipped without the tag changing.
    pub(super) fn timestamp_tag(self, clock: u16) -> u16 {
        let start = (self.0 >> 30) as u16;
        let factor = (self.0 >> 46) as u16 | 1;
        start.wrapping_add(factor.wrapping_mul(clock))
    }
}

/// The key of one epoch, with the hash's state after the part of the input that hardly ever changes.
pub(super) struct EpochKey {
    pub(super) epoch: Epoch,
    /// For the programs in the kernel, which have hash states of their own.
    pub(super) secret: Zeroizing<[u8; 16]>,
    keyed: SipHasher24,
    /// State after our own endpoint, for the endpoint that was asked for last.
    prefix: (Endpoint, SipHasher24),
}

impl EpochKey {
    pub(super) fn derive(master: &MasterKey, epoch: Epoch) -> EpochKey {
        let secret = master.epoch_key(epoch);
        let keyed = SipHasher24::new_with_key(&secret);
        let nowhere = Endpoint { addr: IpAddr::from([0; 4]), port: 0 };
        EpochKey { epoch, secret, keyed, prefix: (nowhere, absorb_local(keyed, nowhere)) }
    }

    /// The MAC over both endpoints, the client's ISN, the form and the encoded options.
    ///
    /// Input, in this order, addresses in network order and numbers little-endian: our address, our port, two zero bytes
    /// (eight in all for IPv4; six zero bytes make it 24 for IPv6); the client's address and ISN; its port, the options
    /// (two bytes), the form. The families' inputs differ in length, which SipHash takes in.
    pub(super) fn mac(&mut self, tuple: &FourTuple, irs: SeqNum, form: Form, options: u16) -> Mac {
        if self.prefix.0 != tuple.local {
            self.prefix = (tuple.local, absorb_local(self.keyed, tuple.local));
        }
        let mut hash = self.prefix.1;
        let [i0, i1, i2, i3] = irs.value().to_le_bytes();
        let [p0, p1] = tuple.peer.port.to_le_bytes();
        let [o0, o1] = options.to_le_bytes();
        match tuple.peer.addr {
            IpAddr::V4(addr) => {
                let [a, b, c, d] = addr.octets();
                hash.write(&[a, b, c, d, i0, i1, i2, i3, p0, p1, o0, o1, form as u8]);
            }
            IpAddr::V6(addr) => {
                let mut input = [0; 25];
                input[..16].copy_from_slice(&addr.octets());
                input[16..].copy_from_slice(&[i0, i1, i2, i3, p0, p1, o0, o1, form as u8]);
                hash.write(&input);
            }
        }
        Mac(hash.finish())
    }
}

fn absorb_local(mut hash: SipHasher24, local: Endpoint) -> SipHasher24 {
    let [p0, p1] = local.port.to_le_bytes();
    match local.addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            hash.write(&[a, b, c, d, p0, p1, 0, 0]);
        }
        IpAddr::V6(addr) => {
            let mut input = [0; 24];
            input[..16].copy_from_slice(&addr.octets());
            input[16..18].copy_from_slice(&[p0, p1]);
            hash.write(&input);
        }
    }
    hash
}
