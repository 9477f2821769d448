//! A hash table of fixed size: two buckets of eight slots for each key, no allocation after the start, no eviction.

use wire::FourTuple;

use super::entry::{Addr, Entry, Slot};

const WIDTH: usize = 8;

/// Every key may stand in either of two buckets; an insertion takes the emptier one. With an eighth of slack that fills
/// to the bound in practice; where it does not, the insertion is refused, as at the bound.
pub(super) struct Table<A> {
    buckets: Box<[[Slot<A>; WIDTH]]>,
    len: usize,
    /// The next bucket that [`sweep`](Table::sweep) looks at.
    cursor: usize,
}

/// What a sweep does with an entry.
pub(crate) enum Swept {
    /// Leave it.
    Keep,
    /// Store this instead.
    Update(Entry),
    /// Free the slot.
    Remove,
}

impl<A: Addr> Table<A> {
    /// A table for `max` entries: `9/8 * max` slots, all from the start.
    pub(super) fn new(max: usize) -> Table<A> {
        let slots = max + max / 8;
        let buckets = slots.div_ceil(WIDTH).max(2);
        Table { buckets: vec![[Slot::default(); WIDTH]; buckets].into_boxed_slice(), len: 0, cursor: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn get(&self, hash: u64, tuple: &FourTuple) -> Option<Entry> {
        self.locate(hash, tuple).map(|(bucket, slot)| self.buckets[bucket][slot].entry())
    }

    /// Stores an entry for a key that is not there yet; `false` if both its buckets are full.
    pub(super) fn insert(&mut self, hash: u64, tuple: &FourTuple, entry: &Entry) -> bool {
        let free = |bucket: usize| self.buckets[bucket].iter().filter(|slot| slot.is_free()).count();
        let [first, second] = self.homes(hash);
        let bucket = if free(first) >= free(second) { first } else { second };
        let Some(slot) = self.buckets[bucket].iter_mut().find(|slot| slot.is_free()) else { return false };
        *slot = Slot::new(tuple, entry);
        self.len += 1;
        true
    }

    /// Changes an entry in its place; `false` if the key is not there.
    pub(super) fn update(&mut self, hash: u64, tuple: &FourTuple, change: impl FnOnce(&mut Entry)) -> bool {
        let Some((bucket, slot)) = self.locate(hash, tuple) else { return false };
        let slot = &mut self.buckets[bucket][slot];
        let mut entry = slot.entry();
        change(&mut entry);
        *slot = Slot::new(tuple, &entry);
        true
    }

    pub(super) fn remove(&mut self, hash: u64, tuple: &FourTuple) -> Option<Entry> {
        let (bucket, slot) = self.locate(hash, tuple)?;
        self.len -= 1;
        Some(std::mem::take(&mut self.buckets[bucket][slot]).entry())
    }

    /// Shows the entries of the next `buckets` buckets to `visit`, which says what becomes of each.
    pub(super) fn sweep(&mut self, buckets: usize, mut visit: impl FnMut(FourTuple, Entry) -> Swept) {
        if self.len == 0 {
            return;
        }
        for _ in 0..buckets.min(self.buckets.len()) {
            if self.cursor == self.buckets.len() {
                self.cursor = 0;
            }
            let bucket = &mut self.buckets[self.cursor];
            self.cursor += 1;
            for slot in bucket.iter_mut().filter(|slot| !slot.is_free()) {
                match visit(slot.tuple(), slot.entry()) {
                    Swept::Keep => {}
                    Swept::Update(entry) => *slot = Slot::new(&slot.tuple(), &entry),
                    Swept::Remove => {
                        *slot = Slot::default();
                        self.len -= 1;
                    }
                }
            }
        }
    }

    /// All entries, in no order.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot<A>> {
        self.buckets.iter().flatten().filter(|slot| !slot.is_free())
    }

    fn locate(&self, hash: u64, tuple: &FourTuple) -> Option<(usize, usize)> {
        self.homes(hash).into_iter().find_map(|bucket| {
            let slot = self.buckets[bucket].iter().position(|slot| slot.holds(tuple))?;
            Some((bucket, slot))
        })
    }

    /// The two buckets of a key, from the two halves of its hash.
    fn homes(&self, hash: u64) -> [usize; 2] {
        let count = self.buckets.len() as u64;
        let scale = |half: u64| ((half * count) >> 32) as usize;
        [scale(hash & 0xffff_ffff), scale(hash >> 32)]
    }
}
