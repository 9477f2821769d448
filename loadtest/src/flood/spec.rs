//! What is asked for, and where from.

use std::net::SocketAddr;

use clap::ValueEnum;
use serde::Deserialize;
use testnet::{Mac, Namespace};

use super::prefix::Prefix;

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FloodKind {
    /// SYNs.
    Syn,
    /// ACKs with random numbers: guesses at cookies.
    Ack,
    /// The last ACKs of real handshakes, again and again.
    Replay,
    /// RST alone.
    Rst,
    /// FIN alone.
    Fin,
    /// No flag at all.
    Null,
    /// FIN, PSH and URG.
    Xmas,
    /// SYNs that carry data.
    SynData,
    /// SYNs that are never followed by an ACK, none with a source of one before.
    HalfOpen,
    /// Real connections, closed at once.
    Connect,
    /// Real connections that say nothing.
    AckSilent,
    /// Real connections that ask for data and never read any.
    ZeroWindow,
    /// Real connections that ask for data and read a byte a second.
    SlowRead,
    /// Real connections that send a byte a second.
    SlowWrite,
}

impl FloodKind {
    /// Whether it is made of a kernel's connections, and not of frames.
    pub fn needs_sockets(self) -> bool {
        match self {
            FloodKind::Connect
            | FloodKind::AckSilent
            | FloodKind::ZeroWindow
            | FloodKind::SlowRead
            | FloodKind::SlowWrite => true,
            FloodKind::Syn
            | FloodKind::Ack
            | FloodKind::Replay
            | FloodKind::Rst
            | FloodKind::Fin
            | FloodKind::Null
            | FloodKind::Xmas
            | FloodKind::SynData
            | FloodKind::HalfOpen => false,
        }
    }
}

/// Where frames claim to come from. Ports are random among 32768 to 65535, as those of clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sources {
    /// All addresses of [`Place::spoofed`], none again before all have come; of IPv6, all that differ in their last 48 bits.
    #[default]
    Random,
    /// One address.
    One,
    /// One /24, or one /64 of IPv6.
    Prefix,
    /// One address and port.
    Tuple,
}

/// The options of SYNs, and whether ACKs have timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptionMix {
    /// MSS, SACK, timestamps, window scale.
    #[default]
    Linux,
    /// MSS, window scale, SACK; no timestamps.
    Windows,
    /// MSS, window scale, timestamps, SACK, end of list.
    Macos,
    /// MSS, window scale, SACK, timestamps.
    Freebsd,
    /// MSS alone.
    None,
    /// All of these, evenly.
    Mixed,
}

/// What makes the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// `TxRing` up to 100,000 frames a second, which is easy for it; beyond, `Xdp` where it works, else `TxRing` too.
    #[default]
    Auto,
    /// A packet socket's ring: works everywhere, and sleeps when nothing is due.
    TxRing,
    /// An eBPF program under `BPF_PROG_RUN`: several times as fast, but keeps its core busy at any rate.
    Xdp,
}

/// A flood to be started.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FloodSpec {
    /// What it is made of.
    pub kind: FloodKind,
    /// Where frames claim to come from. Means nothing to half-open SYNs, which are from everywhere, to replayed ACKs and to sockets.
    #[serde(default)]
    pub sources: Sources,
    /// What options they have.
    #[serde(default)]
    pub options: OptionMix,
    /// What makes them. Means nothing to sockets.
    #[serde(default)]
    pub engine: Engine,
    /// Frames a second, or connections. `None`: as many as it can.
    #[serde(default)]
    pub rate: Option<f64>,
    /// The same seed gives the same frames.
    #[serde(default)]
    pub seed: u64,
    /// Where they go.
    pub target: SocketAddr,
}

/// Where a flood starts from.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where its sockets are made and its device is.
    pub namespace: Namespace,
    /// The device: an end of a veth pair; or `lo`, of which `route_localnet` and `accept_local` have to be set for frames to be taken.
    pub interface: String,
    /// The device's own address.
    pub source_mac: Mac,
    /// That of the server's end.
    pub gateway_mac: Mac,
    /// Where nobody answers; the server has a route to it by the cable.
    pub spoofed: Prefix,
    /// Any address of which sockets can be bound to: routed `local` in the namespace, and by the cable at the server.
    pub owned: Prefix,
    /// Where its threads run. Empty: one, anywhere.
    pub cores: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_names_what_it_wants() {
        let spec: FloodSpec = toml::from_str(
            "kind = \"syn-data\"\nsources = \"prefix\"\noptions = \"mixed\"\ntarget = \"198.18.0.1:80\"",
        )
        .unwrap();
        assert_eq!((spec.kind, spec.sources), (FloodKind::SynData, Sources::Prefix));
        assert_eq!((spec.options, spec.engine, spec.rate), (OptionMix::Mixed, Engine::Auto, None));
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for line in ["rat = 5", "engine = \"dpdk\"", "kind = \"udp\""] {
            let text = format!("target = \"198.18.0.1:80\"\n{line}");
            assert!(toml::from_str::<FloodSpec>(&text).is_err(), "{line}");
        }
    }
}
