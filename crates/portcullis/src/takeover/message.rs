//! What the two processes say to each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis::Datapath;
use serde::{Deserialize, Serialize};

/// What the old process has. The keys of its cookies follow in a frame of their own, empty if it has none. In this order come the descriptors: of each listener its sockets, its taps and the lock of its programs'
/// directory; the admin server's socket; the control socket and its lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub pid: u32,
    pub listeners: Vec<ListenerManifest>,
    /// As it was configured: port 0 where the kernel was to choose.
    pub admin: Option<SocketAddr>,
    pub control: Option<PathBuf>,
}

/// What one listener has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerManifest {
    pub name: String,
    pub datapath: Tier,
    pub sockets: Vec<SocketAddr>,
    /// Of each worker's two taps.
    pub taps: Vec<[TapShape; 2]>,
    pub programs: Option<PathBuf>,
}

/// The shape of a tap's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapShape {
    pub frames: u32,
    pub frame_size: u32,
}

/// A datapath in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Bpf,
    Raw,
    Kernel,
}

impl Tier {
    pub fn of(datapath: Datapath) -> Option<Tier> {
        match datapath {
            Datapath::Bpf => Some(Tier::Bpf),
            Datapath::Raw => Some(Tier::Raw),
            Datapath::Kernel => Some(Tier::Kernel),
            Datapath::Auto => None,
        }
    }

    pub fn datapath(self) -> Datapath {
        match self {
            Tier::Bpf => Datapath::Bpf,
            Tier::Raw => Datapath::Raw,
            Tier::Kernel => Datapath::Kernel,
        }
    }
}

/// How far the new process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// It has all it needs.
    Ready,
    /// It answers.
    Serving,
    /// It gives up.
    Failed { message: String },
}

/// Where the old process has stopped: of each listener, in the manifest's order, and each of its workers, the next frame of both rings.
/// The half-open entries of each worker follow, in a frame of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub listeners: Vec<Vec<[u32; 2]>>,
}
