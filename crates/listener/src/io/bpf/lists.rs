//! The lists of denied and allowed sources, as the programs look them up: byte for byte as `bpf/guard/sources.h` has them.

use std::io;
use std::sync::{Mutex, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{ArrayOfMaps, MapData};
use ipnet::Ipv6Net;

use crate::io::sieve::in_full;
use crate::sources::{Denial, Sources};

type Trie = LpmTrie<MapData, [u8; 16], u32>;

/// `BPF_F_NO_PREALLOC`, which a trie must have.
const ON_DEMAND: u32 = 1;

/// `enum standing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Standing {
    Served,
    Denied,
    Refused,
}

/// Lists that no program looks at yet.
#[derive(Debug)]
pub(super) struct PreparedLists(Trie);

impl PreparedLists {
    /// Fills a trie, which takes about a microsecond for each prefix.
    ///
    /// # Errors
    /// Of bpf(2): no memory.
    pub(super) fn new(sources: &Sources) -> io::Result<PreparedLists> {
        let standings = standings(sources);
        let mut trie = Trie::create(standings.len().max(1) as u32, ON_DEMAND).map_err(in_full)?;
        for (prefix, standing) in standings {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.addr().octets());
            trie.insert(&key, standing as u32, 0).map_err(in_full)?;
        }
        Ok(PreparedLists(trie))
    }
}

/// Which prefix says what. The longest that has an address counts, and of one that is named twice the later.
fn standings(sources: &Sources) -> Vec<(Ipv6Net, Standing)> {
    let (allow, deny) = (sources.allow(), sources.deny());
    let denied = match sources.denial() {
        Denial::Reset => Standing::Refused,
        Denial::Silent => Standing::Denied,
    };
    // Of the allowed those that are denied as a whole would be the longer ones.
    let allowed =
        allow.as_ipv6().iter().filter(|prefix| !deny.covers(prefix)).map(|prefix| (*prefix, Standing::Served));
    let rest = (!allow.is_empty()).then_some((Ipv6Net::default(), denied));
    rest.into_iter().chain(allowed).chain(deny.as_ipv6().iter().map(|prefix| (*prefix, denied))).collect()
}

/// What the programs look at.
#[derive(Debug)]
pub(super) struct ListsInForce(Mutex<ArrayOfMaps<MapData, Trie>>);

impl ListsInForce {
    pub(super) fn new(places: ArrayOfMaps<MapData, Trie>) -> ListsInForce {
        ListsInForce(Mutex::new(places))
    }

    /// Puts other lists in the place of those in force; returns when no program looks at the old ones any more, some milliseconds later.
    ///
    /// # Errors
    /// Of bpf(2): none is known where the place has been there all along.
    pub(super) fn put(&self, lists: &PreparedLists) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(0, &lists.0, 0).map_err(in_full)
    }
}
