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
    pub(crate) remains: Remains,
}

impl HandedOver {
    /// Makes the estate good for another successor, if the first one has failed. With [`Datapath::Raw`] that one begins with taps of its own:
    /// how far the first one came in the rings, nobody knows. The ports stay reserved.
    ///
    /// # Errors
    /// With [`Datapath::Bpf`], as [`estate`](crate::Control::estate).
    pub fn renew(&mut self, estate: &mut Estate) -> std::io::Result<()> {
        match &mut self.remains {
            Remains::Bpf(remains) => estate.programs = Some(remains.estate()?),
            Remains::Raw(_) | Remains::None => {
                estate.taps.clear();
                self.bookmarks.clear();
                self.remains = Remains::None;
            }
        }
        Ok(())
    }
}

/// What is let go of in its own time.
#[derive(Debug)]
pub(crate) enum Remains {
    None,
    Raw(#[expect(dead_code, reason = "held for its drop")] Box<Engine>),
    Bpf(BpfRemains),
}
