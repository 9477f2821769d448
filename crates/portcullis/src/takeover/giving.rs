//! The old process: it gives what it has, stops, and says where.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis::{Control, Estate, HandedOver, KeySchedule};
use serde_json::json;
use zeroize::Zeroizing;

use super::VERSION;
use super::channel::Channel;
use super::message::{ListenerManifest, Manifest, Report, Stopped, TapShape, Tier};
use crate::control::{Refusal, Share, owner};
use crate::master_key::previous;

/// The successor loads its programs, reads its lists and prepares its workers meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process has to give, and who is told when it is gone.
pub struct Giving {
    listeners: Vec<(String, Control)>,
    admin: Option<(SocketAddr, std::os::fd::OwnedFd)>,
    control: Option<Share>,
    /// The keys of the cookies, as they are when they are asked for.
    keys: Box<dyn Fn() -> Option<KeySchedule> + Send + Sync>,
    /// Told before the listeners stop: from here on what comes is the successor's.
    parting: Box<dyn Fn(u32) + Send + Sync>,
    /// One at a time.
    busy: Mutex<()>,
    waiting: Mutex<Option<Sender<Outcome>>>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This process has taken over.
    Taken { pid: u32 },
    /// Why none has. We go on, unless the message says that it was too late for that.
    Failed { message: String },
}

impl Giving {
    /// `parting` is called, with the process number of the successor, once there is no way back.
    pub fn new(
        listeners: Vec<(String, Control)>,
        admin: Option<(SocketAddr, std::os::fd::OwnedFd)>,
        control: Option<Share>,
        keys: impl Fn() -> Option<KeySchedule> + Send + Sync + 'static,
        parting: impl Fn(u32) + Send + Sync + 'static,
    ) -> Giving {
        let (busy, waiting) = (Mutex::default(), Mutex::default());
        Giving { listeners, admin, control, keys: Box::new(keys), parting: Box::new(parting), busy, waiting }
    }

    /// What comes of the next attempt.
    pub fn next(&self) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Speaks with a process that wants to take over, to the end; whether it has. Blocks.
    pub fn serve(&self, stream: UnixStream, version: u32) -> bool {
        let pid = owner(&stream).and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        let outcome = Channel::new(stream, PATIENCE).map_err(|error| error.to_string()).and_then(|channel| {
            let given = self.give(&channel, pid, version);
            if let Err(message) = &given {
                // Whoever did not get so far as to have a line from us gets one; to others it is noise behind the end.
                let _ = channel.send_line(&json!({"error": Refusal::refused(message)}));
            }
            given
        });
        match &outcome {
            Ok(()) => tracing::info!("process {pid} has taken over"),
            Err(message) => tracing::warn!("process {pid} has not taken over: {message}"),
        }
        let taken = outcome.is_ok();
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            let outcome = outcome.map_or_else(|message| Outcome::Failed { message }, |()| Outcome::Taken { pid });
            let _ = waiting.send(outcome);
        }
        taken
    }

    fn give(&self, channel: &Channel, pid: u32, version: u32) -> Result<(), String> {
        let Ok(_busy) = self.busy.try_lock() else { return Err("another process is taking over".to_owned()) };
        if version != VERSION {
            return Err(format!("it speaks version {version} of the takeover, and this process {VERSION}"));
        }
        let estates = self.listeners.iter().map(|(name, control)| Ok((name.as_str(), control.estate()?)));
        let estates = estates.collect::<io::Result<Vec<_>>>().map_err(|error| match error.kind() {
            io::ErrorKind::NotConnected => "this process is ending".to_owned(),
            _ => error.to_string(),
        })?;
        let broken = |error: io::Error| format!("it ended before it took over ({error})");
        channel.send_line(&json!({"take-over": {}})).map_err(broken)?;
        self.send_estates(channel, &estates).map_err(broken)?;
        drop(estates);
        match channel.recv().map_err(broken)? {
            Report::Ready => {}
            Report::Failed { message } => return Err(message),
            Report::Serving => return Err("it serves without being ready".to_owned()),
        }
        (self.parting)(pid);
        let handed_over: Vec<_> = self.listeners.iter().map(|(name, control)| hand_over(name, control)).collect();
        let late = |error: io::Error| format!("it ended while it took over, and nobody answers now ({error})");
        send_stopped(channel, &handed_over).map_err(late)?;
        match channel.recv().map_err(late)? {
            Report::Serving => Ok(()),
            Report::Failed { message } => Err(format!("{message}; nobody answers now")),
            Report::Ready => Err("it was ready twice".to_owned()),
        }
    }

    fn send_estates(&self, channel: &Channel, estates: &[(&str, Estate)]) -> io::Result<()> {
        channel.send(&Manifest {
            pid: std::process::id(),
            listeners: estates.iter().filter_map(|(name, estate)| manifest(name, estate)).collect(),
            admin: self.admin.as_ref().map(|(addr, _)| *addr),
            control: self.control.as_ref().map(|share| share.path.clone()),
        })?;
        channel.send_bytes((self.keys)().map(|keys| key_text(&keys)).unwrap_or_default().as_bytes())?;
        for (_, estate) in estates {
            let sockets = estate.sockets.iter().map(|(_, socket)| socket);
            let taps = estate.taps.iter().flatten().map(|tap| &tap.socket);
            let lock = estate.programs.iter().map(|programs| &programs.lock);
            sockets.chain(taps).chain(lock).try_for_each(|descriptor| channel.send_descriptor(descriptor))?;
        }
        let control = self.control.iter().flat_map(|share| [&share.socket, &share.lock]);
        let admin = self.admin.iter().map(|(_, socket)| socket);
        admin.chain(control).try_for_each(|descriptor| channel.send_descriptor(descriptor))
    }
}

/// As [`previous`] writes those before the last, and that as the last line.
fn key_text(keys: &KeySchedule) -> Zeroizing<String> {
    let mut text = previous::text(keys); // Which has room for one more.
    text.push_str(&keys.last().to_hex());
    text
}

fn manifest(name: &str, estate: &Estate) -> Option<ListenerManifest> {
    let shape = |tap: &portcullis::TapEstate| TapShape { frames: tap.frames, frame_size: tap.frame_size };
    Some(ListenerManifest {
        name: name.to_owned(),
        datapath: Tier::of(estate.datapath)?,
        sockets: estate.sockets.iter().map(|(addr, _)| *addr).collect(),
        taps: estate.taps.iter().map(|taps| taps.each_ref().map(shape)).collect(),
        programs: estate.programs.as_ref().map(|programs| programs.dir.clone()),
    })
}

/// Without a bookmark the successor gives up.
fn hand_over(name: &str, control: &Control) -> Option<HandedOver> {
    let failed = |error| tracing::error!("listener \"{name}\": {error}, so nobody can go on with it");
    control.hand_over().map_err(failed).ok()
}

fn send_stopped(channel: &Channel, handed_over: &[Option<HandedOver>]) -> io::Result<()> {
    let bookmarks = |of: &Option<HandedOver>| of.as_ref().map_or_else(Vec::new, |it| it.bookmarks.clone());
    let of_each: Vec<_> = handed_over.iter().map(bookmarks).collect();
    let next = |bookmarks: &Vec<portcullis::Bookmark>| bookmarks.iter().map(|bookmark| bookmark.next).collect();
    channel.send(&Stopped { listeners: of_each.iter().map(next).collect() })?;
    of_each.iter().flatten().try_for_each(|bookmark| channel.send_bytes(&bookmark.entries))
}
