//! What a running listener leaves to the process that takes its place.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listener::io::{self, Bookmark, BpfEstate, BpfRemains, Engine, TapEstate};

use crate::Datapath;

/// What a [`Listener`](crate::Listener) has and its successor needs: descriptors, to be sent over a Unix socket. The listener goes on
/// working until it [hands over](crate::Control::hand_over).
#[derive(Debug)]
pub struct Estate {
    /// The datapath in use: the successor has the same.
    pub datapath: Datapath,
    /// The listening sockets by their address: the kernel's own, or, with [`Datapath::Raw`], those that hear nothing.
    pub sockets: Vec<(SocketAddr, OwnedFd)>,
    /// With [`Datapath::Raw`], the packet sockets of each worker.
    pub taps: Vec<[TapEstate; 2]>,
    /// With [`Datapath::Bpf`], where the programs' places are.
    pub programs: Option<BpfEstate>,
}

impl Estate {
    pub(crate) fn raw(left: io::Estate) -> Estate {
        Estate { datapath: Datapath::Raw, sockets: left.reserved, taps: left.taps, programs: None }
    }

    pub(crate) fn into_raw(self) -> io::Estate {
        io::Estate { reserved: self.sockets, taps: self.taps }
    }
}

/// A listener that was handed over: where its successor begins.
#[derive(Debug)]
pub struct HandedOver {
    /// Of each worker; empty where the kernel keeps all there is to know.
    pub bookmarks: Vec<Bookmark>,
    /// To be kept until the successor says that it has started.
    pub(crate) _remains: Remains,
}

/// What is let go of in its own time.
#[derive(Debug)]
pub(crate) enum Remains {
    None,
    Raw(#[expect(dead_code, reason = "held for its drop")] Box<Engine>),
    Bpf(#[expect(dead_code, reason = "held for its drop")] BpfRemains),
}
