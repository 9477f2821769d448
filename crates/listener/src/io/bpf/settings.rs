//! The kernel's settings that the programs depend on.

use std::fs;
use std::io;

use super::layout::Grants;

/// `net.ipv4.*` of the network namespace we live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// `tcp_syncookies`: with 0 the kernel takes no segment with a cookie, ours included.
    pub takes_cookies: bool,
    pub grants: Grants,
}

impl Settings {
    pub(super) fn read() -> io::Result<Settings> {
        let is_on = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            let value = fs::read_to_string(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
            Ok::<bool, io::Error>(value.trim() != "0")
        };
        Ok(Settings {
            takes_cookies: is_on("tcp_syncookies")?,
            grants: Grants {
                timestamps: is_on("tcp_timestamps")?,
                sack: is_on("tcp_sack")?,
                wscale: is_on("tcp_window_scaling")?,
            },
        })
    }
}

/// Nanoseconds of a jiffy: the resolution of the clocks that are read from the tick.
pub(super) fn ns_per_jiffy() -> io::Result<u64> {
    let resolution = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(resolution.tv_sec() as u64 * 1_000_000_000 + resolution.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jiffy_is_one_to_ten_milliseconds() {
        assert!((1_000_000..=10_000_000).contains(&ns_per_jiffy().unwrap()));
    }

    #[test]
    fn settings_are_there() {
        Settings::read().unwrap();
    }
}
