//! The half-open queue: connections in SYN-RECEIVED, bounded, with a share for each source prefix.
//!
//! It holds what a cookie cannot: the timer that repeats a SYN-ACK, the client's exact options, the time the SYN came.
//! Nothing is ever evicted: a SYN that finds no room is answered all the same, by a cookie alone.

mod entry;
mod table;

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use wire::FourTuple;

use entry::Slot;
pub(crate) use entry::{Entry, RTO};
pub(crate) use table::Swept;
use table::Table;

use crate::budget::prefix_hash;
use crate::cookie::{Family, Offer};

/// Time in which a full sweep of the queue passes: how late a timer can be.
const SWEEP: Duration = Duration::from_millis(200);

/// The half-open entries of one worker.
pub(crate) struct HalfOpen {
    v4: Table<[u8; 4]>,
    v6: Table<[u8; 16]>,
    max: usize,
    key: [u8; 16],
    shares: Shares,
}

/// Why there is no entry for a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The queue has as many entries as it may.
    Queue,
    /// The source's prefix has its share.
    Prefix,
}

impl HalfOpen {
    /// An empty queue of at most `max` entries, of which one prefix gets at most `prefix_max`.
    ///
    /// Takes 36 bytes for each entry there may be of IPv4, and 63 of IPv6, of those `families` that are named, all from the start: the
    /// entry and an eighth of slack.
    pub(crate) fn new(max: usize, prefix_max: usize, key: [u8; 16], families: &[Family]) -> HalfOpen {
        let room = |family| if families.contains(&family) { max } else { 0 };
        HalfOpen {
            v4: Table::new(room(Family::V4)),
            v6: Table::new(room(Family::V6)),
            max,
            key,
            shares: Shares::new(max, prefix_max),
        }
    }

    /// All entries as a message for another process: of each family their number, and then they.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut message = vec![FORMAT];
        write_all(&self.v4, &mut message);
        write_all(&self.v6, &mut message);
        message
    }

    /// The entries of such a message, as far as it makes sense: one that was written by another version tells nothing.
    pub(crate) fn read(message: &[u8]) -> Vec<(FourTuple, Entry)> {
        let mut entries = Vec::new();
        if let Some((&FORMAT, mut message)) = message.split_first() {
            read_all::<[u8; 4]>(&mut message, &mut entries);
            read_all::<[u8; 16]>(&mut message, &mut entries);
        }
        entries
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(crate) fn get(&self, tuple: &FourTuple) -> Option<Entry> {
        let hash = self.hash(tuple);
        match tuple.peer.addr {
            IpAddr::V4(_) => self.v4.get(hash, tuple),
            IpAddr::V6(_) => self.v6.get(hash, tuple),
        }
    }

    /// Adds an entry for a tuple that has none.
    pub(crate) fn insert(&mut self, tuple: &FourTuple, entry: &Entry) -> Result<(), Full> {
        debug_assert!(self.get(tuple).is_none(), "one entry for each 4-tuple");
        if self.len() >= self.max {
            return Err(Full::Queue);
        }
        let prefix = self.prefix(tuple.peer.addr);
        if self.shares.is_full(prefix) {
            return Err(Full::Prefix);
        }
        let hash = self.hash(tuple);
        let stored = match tuple.peer.addr {
            IpAddr::V4(_) => self.v4.insert(hash, tuple, entry),
            IpAddr::V6(_) => self.v6.insert(hash, tuple, entry),
        };
        if !stored {
            return Err(Full::Queue);
        }
        self.shares.enter(prefix);
        Ok(())
    }

    pub(crate) fn remove(&mut self, tuple: &FourTuple) -> Option<Entry> {
        let hash = self.hash(tuple);
        let removed = match tuple.peer.addr {
            IpAddr::V4(_) => self.v4.remove(hash, tuple),
            IpAddr::V6(_) => self.v6.remove(hash, tuple),
        };
        if removed.is_some() {
            self.shares.leave(self.prefix(tuple.peer.addr));
        }
        removed
    }

    /// Puts this entry in the place of the one that the tuple has; `false` if it has none.
    pub(crate) fn replace(&mut self, tuple: &FourTuple, fresh: &Entry) -> bool {
        self.update(tuple, |entry| *entry = *fresh)
    }

    /// Replaces the options of the entry of this tuple, if there is one.
    pub(crate) fn amend(&mut self, tuple: &FourTuple, offer: &Offer) {
        self.update(tuple, |entry| entry.offer = *offer);
    }

    /// Notes a wrong acknowledgment number for the entry of this tuple; `true` if that was the one too many.
    pub(crate) fn guessed(&mut self, tuple: &FourTuple) -> bool {
        let mut shut = false;
        self.update(tuple, |entry| {
            shut = entry.guesses + 1 == Entry::GUESSES_MAX;
            entry.guesses = (entry.guesses + 1).min(Entry::GUESSES_MAX);
        });
        shut
    }

    /// Lets no ACK complete the handshake by the entry of this tuple, and says nothing for it any more; it keeps its place
    /// until its time is over, which is with the last of `retries` repetitions.
    pub(crate) fn shut(&mut self, tuple: &FourTuple, retries: u8) {
        self.update(tuple, |entry| {
            entry.guesses = Entry::GUESSES_MAX;
            entry.retransmissions = retries;
            entry.parked = false;
        });
    }

    fn update(&mut self, tuple: &FourTuple, change: impl FnOnce(&mut Entry)) -> bool {
        let hash = self.hash(tuple);
        match tuple.peer.addr {
            IpAddr::V4(_) => self.v4.update(hash, tuple, change),
            IpAddr::V6(_) => self.v6.update(hash, tuple, change),
        }
    }

    /// Looks at a part of the queue, as large as `elapsed` is of 200 ms, and lets `visit` judge each entry there.
    pub(crate) fn sweep(&mut self, elapsed: Duration, mut visit: impl FnMut(FourTuple, Entry) -> Swept) {
        let (key, shares) = (self.key, &mut self.shares);
        let mut visit = |tuple: FourTuple, entry: Entry| {
            let verdict = visit(tuple, entry);
            if matches!(verdict, Swept::Remove) {
                shares.leave(prefix_hash(&key, tuple.peer.addr).0);
            }
            verdict
        };
        self.v4.sweep(portion(self.v4.bucket_count(), elapsed), &mut visit);
        self.v6.sweep(portion(self.v6.bucket_count(), elapsed), &mut visit);
    }

    /// A keyed hash, so that nobody can choose tuples that crowd one bucket.
    fn hash(&self, tuple: &FourTuple) -> u64 {
        let mut hash = SipHasher13::new_with_key(&self.key);
        match (tuple.peer.addr, tuple.local.addr) {
            (IpAddr::V4(peer), IpAddr::V4(local)) => {
                hash.write(&(u64::from(peer.to_bits()) << 32 | u64::from(local.to_bits())).to_le_bytes());
            }
            (peer, local) => {
                hash.write(&<[u8; 16] as entry::Addr>::of(peer));
                hash.write(&<[u8; 16] as entry::Addr>::of(local));
            }
        }
        hash.write(&(u32::from(tuple.peer.port) << 16 | u32::from(tuple.local.port)).to_le_bytes());
        hash.finish()
    }

    fn prefix(&self, source: IpAddr) -> u64 {
        prefix_hash(&self.key, source).0
    }
}

/// Of what [`HalfOpen::write`] writes; another layout of it, or of an entry, needs another number.
const FORMAT: u8 = 1;

fn write_all<A: entry::Addr>(table: &Table<A>, message: &mut Vec<u8>) {
    message.extend_from_slice(&(table.len() as u32).to_be_bytes());
    table.slots().for_each(|slot| slot.write(message));
}

fn read_all<A: entry::Addr>(message: &mut &[u8], entries: &mut Vec<(FourTuple, Entry)>) {
    let count = message.split_off(..4).and_then(|count| count.try_into().ok()).map_or(0, u32::from_be_bytes);
    let slots = (0..count).map_while(|_| Slot::<A>::read(message)).filter(|slot| !slot.is_free());
    entries.extend(slots.map(|slot| (slot.tuple(), slot.entry())));
}

fn portion(buckets: usize, elapsed: Duration) -> usize {
    let share = elapsed.as_nanos() * buckets as u128 / SWEEP.as_nanos();
    usize::try_from(share).unwrap_or(buckets).clamp(1, buckets)
}

/// How many entries each source prefix has: one counter for each cell of a keyed hash.
///
/// There are at least as many cells as entries. Prefixes that collide share one share, and get cookies a little early:
/// that costs them nothing but the exactness of their options.
struct Shares {
    cells: Box<[u16]>,
    max: u16,
}

impl Shares {
    fn new(entries_max: usize, prefix_max: usize) -> Shares {
        let cells = entries_max.next_power_of_two().max(64);
        Shares { cells: vec![0; cells].into_boxed_slice(), max: u16::try_from(prefix_max).unwrap_or(u16::MAX) }
    }

    fn is_full(&self, prefix: u64) -> bool {
        self.cells[self.cell(prefix)] >= self.max
    }

    fn enter(&mut self, prefix: u64) {
        self.cells[self.cell(prefix)] += 1;
    }

    fn leave(&mut self, prefix: u64) {
        let cell = self.cell(prefix);
        debug_assert!(self.cells[cell] > 0, "what leaves has entered");
        self.cells[cell] = self.cells[cell].saturating_sub(1);
    }

    fn cell(&self, prefix: u64) -> usize {
        prefix as usize & (self.cells.len() - 1)
    }
}

#[cfg(test)]
mod tests;
