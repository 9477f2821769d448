//! Who may come in, and how many: what a listener grants its clients once their handshake is complete.
//!
//! Where SYNs are judged by us, the [lists](Rules::sources) are asked there before. What got past them, because the kernel answered its SYN or
//! lists have come into force since, is asked here.
//!
//! A [`Gate`] knows the rules and how many are inside. It is asked for each connection that was accepted and gives a [`Ticket`], which
//! is kept as long as the connection, or says why not. Rules can be changed while it stands; who is inside stays.

mod displace;
mod prefixes;
mod rate;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use listener::{ConfigError, Denial, Sources};
pub use listener::{PrefixList, PrefixListError, parse_prefix};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub use displace::DISPLACED_MAX;
use prefixes::Prefixes;
pub use prefixes::source_prefix;
use rate::Rate;

use crate::connection::{ConnectionHandle, Refuse};

/// What a listener grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Connections served at once, all together; at least 1 is granted.
    pub connections_max: usize,
    /// New connections in a second, with as many at once; `None`: no limit.
    pub per_second: Option<NonZeroU32>,
    /// Connections of one source prefix (/24, /64) served at once; `None`: no limit.
    pub per_prefix_max: Option<NonZeroU32>,
    /// If not empty, who is not on it is refused.
    pub allow: PrefixList,
    /// Who is on it is refused, be he on the other list or not.
    pub deny: PrefixList,
    /// What becomes of a connection that is one too many for `connections_max` or `per_second`; and whether the denied are told.
    pub at_limit: AtLimit,
    /// [`AtLimit::Displace`] spares whom a byte has come from or gone to in this time. 10 s by default.
    pub displace_idle_min: Duration,
}

/// What becomes of a connection that finds no place, or comes too soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// It waits in the accept queue, and when that is full, in the client's retransmissions.
    #[default]
    Queue,
    /// It is refused with RST.
    Reset,
    /// It is closed without a word, and so is one that a list denies, or its SYN not answered. With the others the denied are reset.
    Silent,
    /// It takes the place of one that is idle, of a source prefix that has more connections than its own would then have. That one gets
    /// RST, and counts as [`CloseReason::Overload`](crate::CloseReason::Overload). Where there is none such, or it comes too soon
    /// for `per_second`, it is refused with RST.
    ///
    /// Looked at are the four prefixes with the most connections and eight connections of each, in turn; of the largest prefix that has
    /// any idle enough among them, the idlest goes. So a newcomer costs 32 looks at most, of less than a microsecond each.
    Displace,
}

impl Default for Rules {
    /// Everybody may come in, and all of them.
    fn default() -> Rules {
        Rules::up_to(usize::MAX)
    }
}

impl Rules {
    /// Nothing is limited but the number of connections.
    pub fn up_to(connections_max: usize) -> Rules {
        Rules {
            connections_max,
            per_second: None,
            per_prefix_max: None,
            allow: PrefixList::default(),
            deny: PrefixList::default(),
            at_limit: AtLimit::default(),
            displace_idle_min: Duration::from_secs(10),
        }
    }

    /// How somebody is told that he was refused for this reason. Who has the share of his prefix is reset, whatever [`AtLimit`] is.
    pub fn manner(&self, refused: Refused) -> Refuse {
        match (refused, self.at_limit) {
            (Refused::Connections | Refused::Rate | Refused::Denied, AtLimit::Silent) => Refuse::Silent,
            (
                Refused::Connections | Refused::Rate | Refused::Denied,
                AtLimit::Queue | AtLimit::Reset | AtLimit::Displace,
            )
            | (Refused::Prefix, _) => Refuse::Reset,
        }
    }

    /// The lists, for whoever judges SYNs.
    ///
    /// # Errors
    /// More prefixes than [`Sources::PREFIXES_MAX`].
    pub fn sources(&self) -> Result<Sources, ConfigError> {
        let denial = match self.manner(Refused::Denied) {
            Refuse::Reset => Denial::Reset,
            Refuse::Silent => Denial::Silent,
        };
        Sources::new(self.allow.clone(), self.deny.clone(), denial)
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It is on the list of the denied, or not on that of the allowed.
    Denied,
    /// Its prefix has as many connections as it may.
    Prefix,
    /// There are as many connections as there may be.
    Connections,
    /// There have been as many in this second as there may be.
    Rate,
}

impl Refused {
    /// Every reason, in the order of the enum; `ALL[reason as usize] == reason`.
    pub const ALL: [Refused; 4] = [Refused::Denied, Refused::Prefix, Refused::Connections, Refused::Rate];

    /// The value of a `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Denied => "denied",
            Refused::Prefix => "prefix_limit",
            Refused::Connections => "connection_limit",
            Refused::Rate => "rate_limit",
        }
    }
}

/// Counts who is inside, and lets in whom the rules allow.
///
/// Memory: some 100 bytes for each connection inside, and as many for each source prefix that has one, so for `connections_max` of them
/// at most; and the lists.
#[derive(Debug)]
pub struct Gate {
    inside: Mutex<Inside>,
    /// Told when a place becomes free, or the rules change.
    changed: Notify,
}

#[derive(Debug)]
struct Inside {
    rules: Arc<Rules>,
    rate: Option<Rate>,
    connections: usize,
    prefixes: Prefixes,
    /// The number of the next ticket; they begin at 1.
    next_number: u64,
    /// Tickets whose places others have taken already: [`DISPLACED_MAX`] at most.
    displaced: Vec<u64>,
    refused: [u64; Refused::ALL.len()],
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    gate: Arc<Gate>,
    peer: IpAddr,
    number: u64,
}

impl Gate {
    /// Nobody is inside.
    pub fn new(rules: Rules) -> Arc<Gate> {
        let inside = Inside {
            rate: rules.per_second.map(|rate| Rate::new(rate.get())),
            rules: Arc::new(rules),
            connections: 0,
            prefixes: Prefixes::default(),
            next_number: 1,
            displaced: Vec::new(),
            refused: [0; Refused::ALL.len()],
        };
        Arc::new(Gate { inside: Mutex::new(inside), changed: Notify::new() })
    }

    /// Returns when one more may come in, with [`AtLimit::Queue`]; at once with the others, whose clients are not to wait. Cancel safe.
    ///
    /// To be awaited before a connection is accepted, by one task: it promises nothing to a second.
    pub async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            let wait = self.lock().wait(Instant::now());
            match wait {
                Wait::No => return,
                Wait::ForPlace => changed.await,
                Wait::Until(then) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(then) => {}
                },
            }
        }
    }

    /// Lets a connection in, or says why not, which is counted.
    ///
    /// # Errors
    /// The first rule that is against it.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Ticket, Refused> {
        let now = Instant::now();
        let mut admitted = self.lock().admit(peer, now);
        if admitted == Err(Refused::Connections) {
            self.make_room(peer, now);
            admitted = self.lock().admit(peer, now);
        }
        match admitted {
            Ok(number) => Ok(Ticket { gate: self.clone(), peer, number }),
            Err(refused) => {
                self.lock().refused[refused as usize] += 1;
                Err(refused)
            }
        }
    }

    /// Changes the rules for those who come from now on.
    pub fn set_rules(&self, rules: Rules) {
        let mut inside = self.lock();
        if inside.rules.per_second != rules.per_second {
            inside.rate = rules.per_second.map(|rate| Rate::new(rate.get()));
        }
        inside.rules = Arc::new(rules);
        drop(inside);
        self.changed.notify_waiters();
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.lock().rules.clone()
    }

    /// Connections inside.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Connections refused for this reason.
    pub fn refused(&self, reason: Refused) -> u64 {
        self.lock().refused[reason as usize]
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing under the lock leaves it half done.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Wait {
    No,
    ForPlace,
    Until(Instant),
}

impl Inside {
    fn wait(&mut self, now: Instant) -> Wait {
        match self.rules.at_limit {
            AtLimit::Reset | AtLimit::Silent | AtLimit::Displace => Wait::No,
            AtLimit::Queue if self.connections >= self.rules.connections_max.max(1) => Wait::ForPlace,
            AtLimit::Queue => self.rate.as_ref().and_then(|rate| rate.wait(now)).map_or(Wait::No, Wait::Until),
        }
    }

    /// The number of the ticket.
    fn admit(&mut self, peer: IpAddr, now: Instant) -> Result<u64, Refused> {
        let rules = &self.rules;
        if rules.deny.contains(peer) || (!rules.allow.is_empty() && !rules.allow.contains(peer)) {
            return Err(Refused::Denied);
        }
        if rules.per_prefix_max.is_some_and(|max| self.prefixes.count(peer) >= max.get()) {
            return Err(Refused::Prefix);
        }
        if self.connections >= rules.connections_max.max(1) {
            return Err(Refused::Connections);
        }
        // The last question: a rate must not be used up by those who are refused for something else.
        if self.rate.as_mut().is_some_and(|rate| !rate.take(now)) {
            return Err(Refused::Rate);
        }
        self.connections += 1;
        self.prefixes.enter(peer);
        self.next_number += 1;
        Ok(self.next_number - 1)
    }

    fn leave(&mut self, peer: IpAddr, number: u64) {
        match self.displaced.iter().position(|displaced| *displaced == number) {
            Some(index) => {
                self.displaced.swap_remove(index);
            }
            None => {
                self.connections -= 1;
                self.prefixes.leave(peer, number);
            }
        }
    }
}

impl Ticket {
    /// Tells the gate which connection it is for.
    pub(crate) fn hold(&mut self, handle: ConnectionHandle) {
        self.gate.lock().prefixes.know(self.peer, self.number, handle);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.lock().leave(self.peer, self.number);
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
