//! The command line of `trace`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{guarded_address, socket_path};
use crate::control::Prefix;

const AFTER_HELP: &str = "Client to the left, server to the right; each row shows the state of either end once the segment has arrived. \
A ladder is printed when its connection is over, or when tracing ends. Larger data segments are not looked at: how many bytes went by, \
the sequence and acknowledgment numbers tell. In a flood only a part of the flows is looked at, and the last line says how much was \
left out; --peer keeps the flood away in the kernel.

Exit codes:
  0   done: N connections or seconds, Ctrl-C, SIGTERM, or nobody reads the output any more
  1   failed while running
  2   bad usage; also if several processes run here and --socket does not say which
  69  no process answers there, and neither --config nor --listen says what is guarded
  77  CAP_NET_RAW is missing, or this user may not ask the process";

/// Draw handshakes and teardowns.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TraceArgs {
    /// Of this client address or prefix alone, as 192.0.2.0/24
    #[arg(long, value_name = "CIDR")]
    pub peer: Option<Prefix>,
    /// End after this many connections, 1 to 1000000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub count: Option<u64>,
    /// End after this many seconds, 1 to 86400
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Print rows as they happen, each with the number of its connection
    #[arg(long, conflicts_with = "json")]
    pub live: bool,
    /// Print one JSON object per event, as they happen
    #[arg(long)]
    pub json: bool,
    /// Watch the addresses that this configuration guards [default: those of the running process]
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    pub config: Option<PathBuf>,
    /// Watch this address; may be given several times. [::]:PORT stands for IPv4 as well
    #[arg(long, value_name = "ADDR:PORT", value_parser = guarded_address)]
    pub listen: Vec<SocketAddr>,
    /// The control socket of the process [default: the one in $RUNTIME_DIRECTORY, else in /run/portcullis]
    #[arg(long, value_name = "PATH", value_parser = socket_path)]
    pub socket: Option<PathBuf>,
}
