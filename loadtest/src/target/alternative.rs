//! The names of those who are compared.

use std::fmt;
use std::str::FromStr;

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// Portcullis.
    Portcullis(Tier),
    /// The kernel's own listener with `net.ipv4.tcp_syncookies` at this value.
    KernelCookies(u8),
    /// Netfilter's SYNPROXY before the kernel's own listener.
    NftSynproxy,
    /// HAProxy in tcp mode.
    Haproxy,
    /// nginx's stream module.
    NginxStream,
}

/// A datapath of Portcullis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// At tc, which is what `auto` takes on a veth.
    Bpf,
    /// In the driver, which is what `auto` takes on a network card.
    BpfXdp,
    Raw,
    Kernel,
}

impl Alternative {
    /// In the order of the tables.
    pub const ALL: [Alternative; 10] = [
        Alternative::Portcullis(Tier::BpfXdp),
        Alternative::Portcullis(Tier::Bpf),
        Alternative::Portcullis(Tier::Raw),
        Alternative::Portcullis(Tier::Kernel),
        Alternative::KernelCookies(0),
        Alternative::KernelCookies(1),
        Alternative::KernelCookies(2),
        Alternative::NftSynproxy,
        Alternative::Haproxy,
        Alternative::NginxStream,
    ];

    /// As scenarios and results name it.
    pub fn name(self) -> &'static str {
        match self {
            Alternative::Portcullis(Tier::BpfXdp) => "portcullis-bpf-xdp",
            Alternative::Portcullis(Tier::Bpf) => "portcullis-bpf",
            Alternative::Portcullis(Tier::Raw) => "portcullis-raw",
            Alternative::Portcullis(Tier::Kernel) => "portcullis-kernel",
            Alternative::KernelCookies(0) => "kernel-cookies-0",
            Alternative::KernelCookies(1) => "kernel-cookies-1",
            Alternative::KernelCookies(_) => "kernel-cookies-2",
            Alternative::NftSynproxy => "nft-synproxy",
            Alternative::Haproxy => "haproxy",
            Alternative::NginxStream => "nginx-stream",
        }
    }

    /// Whether Portcullis itself decides over SYNs.
    pub fn is_guarded(self) -> bool {
        matches!(self, Alternative::Portcullis(Tier::BpfXdp | Tier::Bpf | Tier::Raw))
    }

    /// Whether the process in front is Portcullis, which tells its metrics.
    pub fn is_ours(self) -> bool {
        !matches!(self, Alternative::Haproxy | Alternative::NginxStream)
    }

    /// The kernel's SYN cookies for it: the default, but where they are what is compared.
    pub fn syncookies(self) -> u8 {
        match self {
            Alternative::KernelCookies(value) => value,
            _ => 1,
        }
    }

    /// Where its programs hook in, if it has any.
    pub fn hook(self) -> Option<&'static str> {
        match self {
            Alternative::Portcullis(Tier::BpfXdp) => Some("xdp"),
            Alternative::Portcullis(Tier::Bpf) => Some("tc"),
            _ => None,
        }
    }

    /// The datapath of the Portcullis that listens, or that serves behind who listens: always the same application.
    pub fn datapath(self) -> &'static str {
        match self {
            Alternative::Portcullis(Tier::BpfXdp | Tier::Bpf) => "bpf",
            Alternative::Portcullis(Tier::Raw) => "raw",
            _ => "kernel",
        }
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Alternative {
    type Err = String;

    fn from_str(text: &str) -> Result<Alternative, String> {
        Alternative::ALL.into_iter().find(|alternative| alternative.name() == text).ok_or_else(|| {
            let names = Alternative::ALL.map(Alternative::name).join(", ");
            format!("no alternative is called \"{text}\"; there are {names}")
        })
    }
}

impl<'de> serde::Deserialize<'de> for Alternative {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Alternative, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        for alternative in Alternative::ALL {
            assert_eq!(alternative.name().parse(), Ok(alternative));
        }
        assert!("apache".parse::<Alternative>().unwrap_err().contains("nginx-stream"));
    }
}
