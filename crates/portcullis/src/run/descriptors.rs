//! How many descriptors there are, and how many connections that allows.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that come and go: the clients of the admin server, and what its answers and `nft` need for a moment.
const PASSING: u64 = exporter::AdminServer::CONNECTIONS_MAX as u64 + 16;

/// Checks of upstreams that run at the same time.
const CHECKS: u64 = 16;

/// Fewer connections than this serve nobody: a browser alone opens six.
const CONNECTIONS_FEW: usize = 16;

/// Raises the soft limit of descriptors to the hard one and returns it.
///
/// The soft limit's usual 1024 is there for programs that use select(2); this one does not.
pub fn raise_limit() -> u64 {
    const USUAL: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "cannot raise the limit of open files");
            soft
        }
    }
}

/// The accept queue of one of `listeners` listeners: as configured, or less, so that the connections that wait in all
/// queues together take at most an eighth of the descriptors, and leave the others to those that are served.
pub fn accept_queue(configured: usize, limit: u64, listeners: usize) -> usize {
    let part = limit / 8 / listeners.max(1) as u64;
    configured.min(usize::try_from(part).unwrap_or(usize::MAX)).max(1)
}

/// What is left for connections, once everything has started.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    limit: u64,
    open: u64,
}

/// How many connections of one listener the descriptors allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// As many as configured.
    All,
    /// Fewer; at least one.
    Fewer(usize),
    /// So few that the limit is a mistake; maybe none.
    HardlyAny(usize),
}

impl Descriptors {
    /// Counts those that are open now.
    pub fn now(limit: u64) -> Descriptors {
        // If /proc is not there, a machine with 16 workers.
        let open = fs::read_dir("/proc/self/fd").map_or(256, |open| open.count() as u64);
        Descriptors { limit, open }
    }

    /// For one of `listeners` listeners, with an accept queue of this length.
    ///
    /// A connection takes one descriptor, or two with an upstream; one in the accept queue has its own already. Upstreams take some
    /// more for their checks, and all relays together for pipes: see [`relay`](connection::relay()).
    pub fn connections(&self, configured: usize, accept_queue: usize, relayed: bool, listeners: usize) -> Allowed {
        let of_relays = if relayed { CHECKS + self.limit / 32 } else { 0 };
        let free = self.limit.saturating_sub(self.open + PASSING + of_relays) / listeners.max(1) as u64;
        let free = usize::try_from(free).unwrap_or(usize::MAX).saturating_sub(accept_queue);
        match if relayed { free / 2 } else { free } {
            max if max >= configured => Allowed::All,
            max if max >= CONNECTIONS_FEW => Allowed::Fewer(max),
            max => Allowed::HardlyAny(max),
        }
    }

    /// The limit under which all this came about.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plenty_of_descriptors_leave_the_configured_numbers() {
        let descriptors = Descriptors { limit: 1_048_576, open: 100 };
        assert_eq!(descriptors.connections(65_536, 4096, true, 2), Allowed::All);
        assert_eq!(accept_queue(4096, 1_048_576, 2), 4096);
    }

    #[test]
    fn what_is_allowed_fits_into_the_limit_with_everything_else() {
        for (limit, listeners, relayed) in [(1024, 1, false), (1024, 3, true), (4096, 2, true), (200, 1, false)] {
            let descriptors = Descriptors { limit, open: 40 };
            let queue = accept_queue(4096, limit, listeners);
            let Allowed::Fewer(max) = descriptors.connections(65_536, queue, relayed, listeners) else {
                panic!("{limit} {listeners}");
            };
            let each = queue + max * if relayed { 2 } else { 1 };
            let of_relays = if relayed { CHECKS + limit / 32 } else { 0 };
            let taken = 40 + PASSING + of_relays + (listeners * each) as u64;
            assert!(taken <= limit && taken + 4 * listeners as u64 > limit, "{taken} of {limit}");
        }
    }

    #[test]
    fn a_limit_that_leaves_next_to_nothing_is_told_from_a_small_one() {
        let descriptors = |limit| Descriptors { limit, open: 30 };
        assert_eq!(descriptors(64).connections(65_536, 8, false, 1), Allowed::HardlyAny(0));
        assert_eq!(descriptors(109).connections(65_536, 8, false, 1), Allowed::HardlyAny(15));
        assert_eq!(descriptors(110).connections(65_536, 8, false, 1), Allowed::Fewer(16));
        assert_eq!(descriptors(90).connections(2, 8, false, 1), Allowed::All, "two were wanted");
    }

    #[test]
    fn open_descriptors_are_counted() {
        let before = Descriptors::now(1024).open;
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close some beside this one.
        assert!(Descriptors::now(1024).open >= before + 50);
        drop(files);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, limit);
        assert_eq!(raise_limit(), limit);
    }
}
