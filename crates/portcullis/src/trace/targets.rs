//! What is watched: the guarded addresses, and which end of a segment is one of them.

use std::net::SocketAddr;
use std::path::Path;

use listener::io::interfaces::{Interfaces, Watch};
use wire::{Endpoint, FourTuple};

use super::args::TraceArgs;
use super::flow::Side;
use crate::config::{Config, ControlPath};
use crate::control::{Answer, Caller, Request};
use crate::failure::Failure;

/// The guarded addresses and where the process is asked, if anywhere.
///
/// # Errors
/// Of the configuration file, or of the question to the process when nothing else says what is guarded.
pub fn find(args: &TraceArgs) -> Result<(Vec<SocketAddr>, Asked), Failure> {
    let named = args.socket.clone().map(|path| Asked::At(Some(path)));
    if let Some(file) = &args.config {
        let config = crate::read_config(file)?;
        let asked = named.unwrap_or_else(|| control_of(&config));
        return Ok((config.listeners.into_iter().flat_map(|listener| listener.bind).collect(), asked));
    }
    let asked = named.unwrap_or(Asked::At(None));
    if !args.listen.is_empty() {
        return Ok((args.listen.clone(), asked));
    }
    Ok((ask(args.socket.as_deref())?, asked))
}

/// Where the process is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Nowhere,
    /// `None`: in the usual place.
    At(Option<std::path::PathBuf>),
}

fn control_of(config: &Config) -> Asked {
    match &config.control {
        ControlPath::None => Asked::Nowhere,
        ControlPath::Usual => Asked::At(None),
        ControlPath::At(path) => Asked::At(Some(path.clone())),
    }
}

fn ask(socket: Option<&Path>) -> Result<Vec<SocketAddr>, Failure> {
    match Caller::new(socket.map(Path::to_owned)).ask(&Request::Status {}) {
        Ok(Answer::Status(status)) => Ok(status.listeners.into_iter().flat_map(|listener| listener.bind).collect()),
        Ok(_) => Err(Failure::Runtime("the process answers another question than the one it was asked".to_owned())),
        Err(Failure::Unavailable(message)) => Err(Failure::Unavailable(format!(
            "{message}\nOr say what is guarded: --config FILE, or --listen ADDR:PORT"
        ))),
        Err(failure) => Err(failure),
    }
}

/// Tells which end of a segment is guarded.
pub struct Targets {
    guarded: Vec<SocketAddr>,
    interfaces: Interfaces,
    watch: Watch,
}

impl Targets {
    /// Those of this network namespace.
    ///
    /// # Errors
    /// When the kernel does not tell its interfaces.
    pub fn new(guarded: Vec<SocketAddr>) -> std::io::Result<Targets> {
        let watch = Watch::open()?;
        Ok(Targets { guarded, interfaces: Interfaces::read()?, watch })
    }

    /// Reads the interfaces again if the kernel says that they have changed.
    pub fn refresh(&mut self) {
        if self.watch.changed()
            && let Ok(interfaces) = Interfaces::read()
        {
            self.interfaces = interfaces;
        }
    }

    /// The connection a segment belongs to, `local` being the server, and who sent it; `None` if it is none of ours, or if it is
    /// shown by the device above this one too.
    pub fn judge(&self, interface: u32, seen: FourTuple, is_first: bool) -> Option<(FourTuple, Side)> {
        let below = self.interfaces.by_index(interface).is_some_and(|link| link.master.is_some());
        if below {
            return None;
        }
        let back = FourTuple { local: seen.peer, peer: seen.local };
        match (self.is_guarded(seen.local), self.is_guarded(seen.peer)) {
            // Two guarded ports of this host: a SYN-ACK goes the other way; a segment in the middle might.
            (true, false) => Some((seen, Side::Client)),
            (false, true) => Some((back, Side::Server)),
            (true, true) if is_first => Some((back, Side::Server)),
            (true, true) => Some((seen, Side::Client)),
            (false, false) => None,
        }
    }

    fn is_guarded(&self, end: Endpoint) -> bool {
        let fits = |guard: &SocketAddr| {
            let guards = if guard.ip().is_unspecified() {
                (guard.is_ipv6() || end.addr.is_ipv4()) && self.interfaces.is_local(end.addr)
            } else {
                guard.ip().to_canonical() == end.addr
            };
            guard.port() == end.port && guards
        };
        self.guarded.iter().any(fits)
    }
}
