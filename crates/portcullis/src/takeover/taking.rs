//! The new process: it takes what the old one has, and goes on where that stops.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use portcullis::{Bookmark, BpfEstate, Estate, KeySchedule, MasterKey, TapEstate};
use serde_json::Value;
use zeroize::Zeroizing;

use super::VERSION;
use super::channel::Channel;
use super::message::{ListenerManifest, Manifest, Report, Stopped};
use crate::control::{Request, Share};
use crate::master_key::previous;

/// The predecessor answers at once, or waits for its workers, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest line that says no.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A process that lives, and whose place is to be taken.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    pid: u32,
    /// In the order of the manifest.
    names: Vec<String>,
    estates: HashMap<String, Estate>,
    /// Which of our listeners has whose estate.
    heirs: HashMap<String, String>,
    guarded: Vec<SocketAddr>,
    admin: Option<(SocketAddr, OwnedFd)>,
    control: Option<Share>,
    keys: Option<KeySchedule>,
}

impl Predecessor {
    /// Asks the process at the other end for all it has. It goes on working.
    ///
    /// # Errors
    /// Why it gives nothing, in words.
    pub fn ask(stream: UnixStream) -> Result<Predecessor, String> {
        let broken = |error: io::Error| format!("it broke off: {error}");
        let channel = Channel::new(stream, PATIENCE).map_err(broken)?;
        channel.send_line(&Request::TakeOver { version: VERSION }).map_err(broken)?;
        let line = channel.recv_line(LINE_BYTES_MAX).map_err(broken)?;
        let answer: Value = serde_json::from_slice(&line).map_err(|error| {
            format!("it answers something that is not of this protocol ({error}): is it portcullis?")
        })?;
        if let Some(refusal) = answer.get("error") {
            return Err(refusal["message"].as_str().unwrap_or("it says no").to_owned());
        }
        Predecessor::receive(channel).map_err(broken)
    }

    fn receive(channel: Channel) -> io::Result<Predecessor> {
        let Manifest { pid, listeners, admin, control } = channel.recv()?;
        let names = listeners.iter().map(|listener| listener.name.clone()).collect();
        let guarded = listeners.iter().flat_map(|listener| listener.sockets.clone()).collect();
        let keys = keys(&Zeroizing::new(channel.recv_bytes()?))?;
        let estate = |of: ListenerManifest| Ok((of.name.clone(), receive_estate(&channel, of)?));
        let estates = listeners.into_iter().map(estate).collect::<io::Result<_>>()?;
        let admin = admin.map(|addr| Ok::<_, io::Error>((addr, channel.recv_descriptor()?))).transpose()?;
        let share = |path| {
            Ok::<_, io::Error>(Share { path, socket: channel.recv_descriptor()?, lock: channel.recv_descriptor()? })
        };
        let control = control.map(share).transpose()?;
        let heirs = HashMap::new();
        Ok(Predecessor { channel, pid, names, estates, heirs, guarded, admin, control, keys })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it guards this address.
    pub fn guards(&self, addr: SocketAddr) -> bool {
        self.guarded.contains(&addr)
    }

    /// What one of its listeners has, for a listener that guards these addresses; once. It is the one that guards most of them, or, where none
    /// guards any, the one of this name. Of the others it gets the sockets of its addresses.
    pub fn estate(&mut self, name: &str, guarded: &[SocketAddr]) -> Option<Estate> {
        let shared = |estate: &Estate| estate.sockets.iter().filter(|(addr, _)| guarded.contains(addr)).count();
        let most = self.estates.iter().map(|(its, estate)| (shared(estate), its)).max();
        let chosen = match most {
            Some((1.., its)) => its.clone(),
            _ => name.to_owned(),
        };
        let mut estate = self.estates.remove(&chosen)?;
        for other in self.estates.values_mut().filter(|other| other.datapath == estate.datapath) {
            let (ours, theirs) =
                mem::take(&mut other.sockets).into_iter().partition(|(addr, _)| guarded.contains(addr));
            other.sockets = theirs;
            estate.sockets.extend::<Vec<_>>(ours);
        }
        self.heirs.insert(name.to_owned(), chosen);
        Some(estate)
    }

    /// The socket of its admin server, if that was configured to have this address.
    pub fn admin(&mut self, addr: SocketAddr) -> Option<OwnedFd> {
        self.admin.take_if(|(its, _)| *its == addr).map(|(_, socket)| socket)
    }

    /// Whether its admin server was configured to have this address.
    pub fn has_admin(&self, addr: SocketAddr) -> bool {
        self.admin.as_ref().is_some_and(|(its, _)| *its == addr)
    }

    /// The keys of its cookies; once.
    pub fn keys(&mut self) -> Option<KeySchedule> {
        self.keys.take()
    }

    /// Its control socket; once.
    pub fn control(&mut self) -> Option<Share> {
        self.control.take()
    }

    /// We have all we need: it stops, and says where, for each of ours that goes on for one of its.
    ///
    /// # Errors
    /// When it is gone, or does not stop. Then nobody knows where it was, and the best is to begin at once.
    pub fn stop(&mut self) -> io::Result<HashMap<String, Vec<Bookmark>>> {
        self.channel.send(&Report::Ready)?;
        let Stopped { listeners } = self.channel.recv()?;
        let mut bookmarks = HashMap::new();
        for (name, workers) in self.names.iter().zip(listeners) {
            let bookmark = |next| Ok(Bookmark { next, entries: self.channel.recv_bytes()? });
            bookmarks.insert(name.clone(), workers.into_iter().map(bookmark).collect::<io::Result<Vec<_>>>()?);
        }
        let of_heir = |(heir, its): (String, String)| Some((heir, bookmarks.remove(&its)?));
        Ok(mem::take(&mut self.heirs).into_iter().filter_map(of_heir).collect())
    }

    /// We answer. It finishes what it has, and ends.
    pub fn served(self) {
        // If it is gone, so much the better.
        let _ = self.channel.send(&Report::Serving);
    }

    /// We cannot: it goes on, if it has not stopped yet.
    pub fn failed(self, why: &str) {
        let _ = self.channel.send(&Report::Failed { message: why.to_owned() });
    }
}

/// Those before the last, a line each, and then that.
fn keys(text: &[u8]) -> io::Result<Option<KeySchedule>> {
    let illegal = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let text = std::str::from_utf8(text).map_err(|error| illegal(error.to_string()))?;
    if text.is_empty() {
        return Ok(None);
    }
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    let last = MasterKey::from_hex(last).map_err(|error| illegal(error.to_string()))?;
    previous::parse(before, last).map(Some).map_err(illegal)
}

fn receive_estate(channel: &Channel, of: ListenerManifest) -> io::Result<Estate> {
    let ListenerManifest { datapath, sockets, taps, programs, .. } = of;
    let socket = |addr| Ok((addr, channel.recv_descriptor()?));
    let sockets = sockets.into_iter().map(socket).collect::<io::Result<_>>()?;
    let mut pairs = Vec::new();
    for shapes in taps {
        let tap = |shape: super::message::TapShape| {
            let socket = channel.recv_descriptor()?;
            Ok::<_, io::Error>(TapEstate { socket, frames: shape.frames, frame_size: shape.frame_size })
        };
        let [syns, others] = shapes;
        pairs.push([tap(syns)?, tap(others)?]);
    }
    let lock = |dir| Ok::<_, io::Error>(BpfEstate { dir, lock: channel.recv_descriptor()? });
    let programs = programs.map(lock).transpose()?;
    Ok(Estate { datapath: datapath.datapath(), sockets, taps: pairs, programs })
}
