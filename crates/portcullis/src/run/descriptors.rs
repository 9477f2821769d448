//! How many descriptors there are, and how many connections that allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are no connections: packet rings, netlink, the admin server and its clients, files. A third more
/// than a large machine with 64 workers needs.
const RESERVED: u64 = 512;

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

/// The connections one listener may serve at once: as many as configured, or its part of the descriptors if those are
/// fewer.
///
/// A connection takes one descriptor, or two with an upstream; connections in the accept queue have theirs already.
pub fn connections_max(configured: usize, accept_queue: usize, relayed: bool, limit: u64, listeners: usize) -> usize {
    let part = limit.saturating_sub(RESERVED.min(limit / 2)) / listeners.max(1) as u64;
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let left = part.saturating_sub(accept_queue).max(part / 2);
    configured.min(if relayed { left / 2 } else { left }).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plenty_of_descriptors_leave_the_configured_number() {
        assert_eq!(connections_max(65_536, 4096, true, 1_048_576, 2), 65_536);
    }

    #[test]
    fn few_descriptors_are_shared_out() {
        assert_eq!(connections_max(65_536, 4096, false, 10_512, 1), 5904);
        assert_eq!(connections_max(65_536, 4096, true, 10_512, 2), 1250);
        assert_eq!(connections_max(65_536, 4096, true, 0, 1), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, limit);
        assert_eq!(raise_limit(), limit);
    }
}
