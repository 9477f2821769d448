//! The command line of `ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::prefix::Prefix;
use super::protocol::{CONNS_MAX, KILL_IDS_MAX, Request, TOP_MAX};
use crate::config::{Choice, LogLevel, socket_path};

const EXIT_CODES: &str = "Exit codes:
  0   done
  1   the process said no: no such listener, no connection with that number, a configuration with faults, ...
  2   bad usage; also if several processes run here and --socket does not say which
  69  no process answers there
  77  this user may not ask: only root and the user that the process runs as may";

/// Ask a running process, or tell it what to do.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
pub struct CtlArgs {
    /// The control socket (`control` of the config file) [default: the one in $RUNTIME_DIRECTORY, else in /run/portcullis]
    #[arg(long, value_name = "PATH", global = true, value_parser = socket_path)]
    pub socket: Option<PathBuf>,
    /// Print the answer as one line of JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to ask or tell.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the process and its listeners: mode, queues and their bounds, connections, cookies, drops
    #[command(after_help = EXIT_CODES)]
    Status,
    /// List open connections, the oldest first
    #[command(after_help = EXIT_CODES)]
    Conns {
        /// Of this listener alone
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// Of this client address or prefix alone, as 192.0.2.0/24
        #[arg(long, value_name = "CIDR")]
        peer: Option<Prefix>,
        /// Show at most this many, 1 to 10000
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = conns_limit)]
        limit: usize,
    },
    /// Show which source prefixes (/24, /64) have the most open connections
    #[command(after_help = EXIT_CODES)]
    Top {
        /// Show at most this many, 1 to 1000
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = top_limit)]
        limit: usize,
    },
    /// Begin the end, as SIGTERM does: no new connections, and those that are open have until the shutdown deadline
    #[command(after_help = EXIT_CODES)]
    Drain,
    /// Read the configuration file and the lists again, as at SIGHUP: all of it comes into force, or nothing
    #[command(after_help = EXIT_CODES)]
    Reload,
    /// Start the program anew, as it is on disk now and with its configuration as it is now; it takes over without a lost connection, and
    /// the old process finishes those that are open. If it cannot, the old one goes on
    #[command(after_help = EXIT_CODES)]
    Restart,
    /// End connections with RST, by their numbers (`conns` shows them) or by client
    #[command(after_help = EXIT_CODES)]
    Kill {
        /// Numbers of connections, at most 1000
        #[arg(value_name = "ID", required_unless_present = "peer", conflicts_with = "peer", num_args = 1..=KILL_IDS_MAX)]
        ids: Vec<u64>,
        /// All connections of this client address or prefix, as 192.0.2.0/24
        #[arg(long, value_name = "CIDR")]
        peer: Option<Prefix>,
    },
    /// Have another master key make the cookies, without losing a handshake: the one that stands in the key's file now
    ///
    /// It is used from the next epoch but one on, which begins in 32 to 64 seconds; cookies that were made before are taken for as long as ever.
    /// Nodes that share the key are given the same --at.
    #[command(after_help = EXIT_CODES)]
    RotateKeys {
        /// Make a new key and keep it in the state directory; refused if the key comes from elsewhere
        #[arg(long)]
        generate: bool,
        /// Not before this time (Unix seconds), which lies at least 64 seconds and at most a day ahead
        #[arg(long, value_name = "UNIX_SECONDS")]
        at: Option<u64>,
    },
    /// Write the log from this level on, until it is changed again or the process ends
    #[command(after_help = EXIT_CODES)]
    LogLevel {
        /// The least important level that is written
        #[arg(value_name = "error|warn|info|debug", value_parser = level)]
        level: String,
    },
}

impl Verb {
    /// As it is sent.
    pub fn into_request(self) -> Request {
        match self {
            Verb::Status => Request::Status {},
            Verb::Conns { listener, peer, limit } => Request::Conns { listener, peer, limit },
            Verb::Top { limit } => Request::Top { limit },
            Verb::Drain => Request::Drain {},
            Verb::Reload => Request::Reload {},
            Verb::Restart => Request::Restart {},
            Verb::Kill { ids, peer } => Request::Kill { ids, peer },
            Verb::RotateKeys { generate, at } => Request::RotateKeys { generate, at },
            Verb::LogLevel { level } => Request::LogLevel { level },
        }
    }
}

fn conns_limit(text: &str) -> Result<usize, String> {
    limit(text, CONNS_MAX)
}

fn top_limit(text: &str) -> Result<usize, String> {
    limit(text, TOP_MAX)
}

fn limit(text: &str, max: usize) -> Result<usize, String> {
    text.parse().ok().filter(|limit| (1..=max).contains(limit)).ok_or_else(|| format!("legal: 1 to {max}"))
}

fn level(text: &str) -> Result<String, String> {
    LogLevel::from_word(text)
        .map(|level| level.word().to_owned())
        .ok_or_else(|| format!("legal: one of {}", LogLevel::legal()))
}
