//! What a listener can be told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::budget::Budget;

/// When a cookie is accepted although this process may not have sent one lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptCookies {
    /// A cookie of form B only within a cookie's lifetime of one that was sent, or of this process's start. Form A is
    /// strong enough to need no such gate.
    #[default]
    WhenExpected,
    /// Any time: for several nodes that share a master key and a virtual address, where this one may have to finish
    /// what another began.
    Always,
}

/// Settings of one listener. [`Default`] gives the documented defaults and guards nothing.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Addresses and ports to guard; `0.0.0.0` and `[::]` stand for all local addresses of their family.
    pub bind: Vec<SocketAddr>,
    /// Half-open connections kept before SYNs are answered by cookie alone.
    ///
    /// Default 4096. An IPv4 entry takes 36 bytes and an IPv6 one 63, slack included, and two more count its prefix; both
    /// tables are allocated at the start, about 414 KB with the default. When full, nothing is evicted: the next SYN gets
    /// a cookie.
    pub half_open_max: usize,
    /// Percentage of `half_open_max` at which the listener turns to cookies. Default 75.
    pub high_watermark_percent: u8,
    /// Percentage of `half_open_max` at or below which it may turn back. Default 25.
    pub low_watermark_percent: u8,
    /// Percentage of `half_open_max` that one source prefix (/24, /64) may have. Default 25.
    pub prefix_share_percent: u8,
    /// SYN-ACK retransmissions, after 1, 2, 4... s, before a half-open connection is given up. 0 to 5, default 3.
    ///
    /// Only connections with an entry have any; a cookie has none (RFC 4987 §3.6).
    pub synack_retries: u8,
    /// Replies per second to one source prefix, of all workers together, that no completed handshake has paid for. Default
    /// 200 000; 10 to 327 670, counted by tenths of a second. A SYN-ACK is no longer than its SYN, so this bounds how much
    /// of a flood can be passed on to somebody else, not by how much it grows: it does not.
    ///
    /// A completed handshake gives its reply back, so real clients never meet the limit.
    pub replies_per_prefix: u32,
    /// Bad cookies per second from one source prefix, to all workers together, before its ACKs without timestamps are dropped
    /// unchecked. Default 4096. Form A needs no such bound.
    pub bad_cookies_per_prefix: u32,
    /// Whether form B is accepted at any time.
    pub accept_cookies: AcceptCookies,
    /// The window scale offered to clients that offer one. Default 7: windows up to 8 MB.
    ///
    /// Nodes that share a master key must agree on it: a cookie does not say what its maker offered.
    pub window_scale: u8,
}

impl Default for ListenConfig {
    fn default() -> ListenConfig {
        ListenConfig {
            bind: Vec::new(),
            half_open_max: 4096,
            high_watermark_percent: 75,
            low_watermark_percent: 25,
            prefix_share_percent: 25,
            synack_retries: 3,
            replies_per_prefix: 200_000,
            bad_cookies_per_prefix: 4096,
            accept_cookies: AcceptCookies::default(),
            window_scale: 7,
        }
    }
}

/// A setting outside its legal range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: must be {legal}")]
pub struct ConfigError {
    /// The setting's name, as in [`ListenConfig`].
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would be legal.
    pub legal: &'static str,
}

impl ListenConfig {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check =
            |ok: bool, key, value: String, legal| if ok { Ok(()) } else { Err(ConfigError { key, value, legal }) };
        check(!self.bind.is_empty(), "bind", "[]".into(), "at least one address and port")?;
        for addr in &self.bind {
            check(addr.port() != 0, "bind", addr.to_string(), "an address with a port from 1 to 65535")?;
            let multi = addr.ip().is_multicast() || addr.ip() == std::net::Ipv4Addr::BROADCAST;
            check(!multi, "bind", addr.to_string(), "a unicast or wildcard address")?;
        }
        let entries = self.half_open_max;
        check((1..=4_194_304).contains(&entries), "half_open_max", entries.to_string(), "1 to 4194304 entries")?;
        let percent = |key, value: u8| check((1..=100).contains(&value), key, value.to_string(), "1 to 100 percent");
        percent("high_watermark_percent", self.high_watermark_percent)?;
        percent("prefix_share_percent", self.prefix_share_percent)?;
        let low = self.low_watermark_percent;
        let below = low < self.high_watermark_percent;
        check(below, "low_watermark_percent", low.to_string(), "less than high_watermark_percent")?;
        let retries = self.synack_retries;
        check(retries <= 5, "synack_retries", retries.to_string(), "0 to 5")?;
        let budget = |key, value: u32| {
            check((10..=Budget::LIMIT_MAX).contains(&value), key, value.to_string(), "10 to 327670 per second")
        };
        budget("replies_per_prefix", self.replies_per_prefix)?;
        budget("bad_cookies_per_prefix", self.bad_cookies_per_prefix)?;
        check(self.window_scale <= 14, "window_scale", self.window_scale.to_string(), "0 to 14 (RFC 7323)")
    }

    /// How long a half-open entry lives that nobody completes.
    pub(crate) fn entry_lifetime(&self) -> Duration {
        Duration::from_secs((2 << self.synack_retries) - 1)
    }

    /// `percent` of the queue, one entry at least.
    pub(crate) fn share(&self, percent: u8) -> usize {
        (self.half_open_max * usize::from(percent) / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ListenConfig {
        ListenConfig { bind: vec!["127.0.0.1:8080".parse().unwrap()], ..ListenConfig::default() }
    }

    #[test]
    fn defaults_with_an_address_are_valid() {
        assert_eq!(good().validate(), Ok(()));
        assert_eq!(good().entry_lifetime(), Duration::from_secs(15));
    }

    #[test]
    fn every_setting_out_of_range_is_named() {
        type Spoil = fn(&mut ListenConfig);
        let cases: [(&str, Spoil); 10] = [
            ("bind", |c| c.bind.clear()),
            ("bind", |c| c.bind[0].set_port(0)),
            ("bind", |c| c.bind[0].set_ip([224, 0, 0, 1].into())),
            ("half_open_max", |c| c.half_open_max = 0),
            ("high_watermark_percent", |c| c.high_watermark_percent = 101),
            ("low_watermark_percent", |c| c.low_watermark_percent = 75),
            ("prefix_share_percent", |c| c.prefix_share_percent = 0),
            ("synack_retries", |c| c.synack_retries = 6),
            ("replies_per_prefix", |c| c.replies_per_prefix = 400_000),
            ("window_scale", |c| c.window_scale = 15),
        ];
        for (key, spoil) in cases {
            let mut config = good();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }
}
