//! The old process: it gives what it has, stops, and says where.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// From the word that it is ready, a successor has this long to serve. Clients wait meanwhile.
const SERVING_PATIENCE: Duration = Duration::from_secs(15);

/// What a process has to give, and who is told when it is gone.
pub struct Giving {
    listeners: Vec<(String, Control)>,
    admin: Option<(SocketAddr, OwnedFd)>,
    control: Option<Share>,
    /// The keys of the cookies, as they are when they are asked for.
    keys: Box<dyn Fn() -> Option<KeySchedule> + Send + Sync>,
    /// Whether the end has begun, for which nobody takes over.
    ending: Box<dyn Fn() -> bool + Send + Sync>,
    /// Told before the listeners stop: from here on what comes is the successor's.
    parting: Box<dyn Fn(u32) + Send + Sync>,
    /// What has stopped, and nobody goes on with yet. Locked while a successor is spoken with: one at a time.
    stopped: Mutex<Option<Vec<Kept>>>,
    waiting: Mutex<Option<Sender<Outcome>>>,
}

/// A listener that has stopped.
struct Kept {
    name: String,
    estate: Estate,
    /// `None` where a worker had died.
    handed_over: Option<HandedOver>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This process has taken over.
    Taken { pid: u32 },
    /// None has, and we go on.
    Refused { message: String },
    /// None has, and we have stopped: what we had waits for another one.
    Lost { message: String },
}

/// Why a successor has not come to serve.
enum Failed {
    Before(String),
    /// We had stopped for it.
    After(String),
}

impl Giving {
    /// `keys` tells the master keys; `ending`, whether the end has begun. `parting` is called, with the process number of the successor,
    /// once we stop.
    pub fn new(
        listeners: Vec<(String, Control)>,
        (admin, control): (Option<(SocketAddr, OwnedFd)>, Option<Share>),
        keys: impl Fn() -> Option<KeySchedule> + Send + Sync + 'static,
        ending: impl Fn() -> bool + Send + Sync + 'static,
        parting: impl Fn(u32) + Send + Sync + 'static,
    ) -> Giving {
        let (keys, ending, parting) = (Box::new(keys), Box::new(ending), Box::new(parting));
        let (stopped, waiting) = (Mutex::default(), Mutex::default());
        Giving { listeners, admin, control, keys, ending, parting, stopped, waiting }
    }

    /// What comes of the next attempt.
    pub fn next(&self) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Speaks with a process that wants to take over, to the end. Blocks.
    pub fn serve(&self, stream: UnixStream, version: u32) -> Outcome {
        let pid = owner(&stream).and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        let outcome = match Channel::new(stream, PATIENCE) {
            Ok(channel) => self.speak(&channel, pid, version),
            Err(error) => Outcome::Refused { message: error.to_string() },
        };
        match &outcome {
            Outcome::Taken { pid } => tracing::info!("process {pid} has taken over"),
            Outcome::Refused { message } => tracing::warn!("process {pid} has not taken over: {message}"),
            Outcome::Lost { message } => {
                tracing::error!("process {pid} has not taken over, and nobody answers: {message}")
            }
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome.clone());
        }
        outcome
    }

    fn speak(&self, channel: &Channel, pid: u32, version: u32) -> Outcome {
        match self.give(channel, pid, version) {
            Ok(()) => Outcome::Taken { pid },
            Err(Failed::Before(message)) => {
                self.listeners.iter().for_each(|(_, control)| control.take_back());
                // Whoever did not get so far as to have a line from us gets one; to others it is noise behind the end.
                let _ = channel.send_line(&json!({"error": Refusal::refused(&message)}));
                Outcome::Refused { message }
            }
            Err(Failed::After(message)) => {
                // It must not come to itself later, beside another one.
                if let Ok(pid) = i32::try_from(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                Outcome::Lost { message }
            }
        }
    }

    fn give(&self, channel: &Channel, pid: u32, version: u32) -> Result<(), Failed> {
        let before = |why: &str| Err(Failed::Before(why.to_owned()));
        let Ok(mut stopped) = self.stopped.try_lock() else { return before("another process is taking over") };
        if version != VERSION {
            return before(&format!("it speaks version {version} of the takeover, and this process {VERSION}"));
        }
        if stopped.is_none() && (self.ending)() {
            return before("this process is ending");
        }
        let kept = match stopped.take() {
            Some(kept) => {
                let given = self.give_again(channel, kept, &mut stopped);
                given.map_err(|error| Failed::After(error.to_string()))?
            }
            None => self.give_first(channel).map_err(Failed::Before)?,
        };
        (self.parting)(pid);
        let kept = kept.into_iter().map(|(name, estate, handed_over)| Kept {
            handed_over: handed_over.or_else(|| self.stop(&name)),
            name,
            estate,
        });
        let kept = stopped.insert(kept.collect());
        let late = |error: io::Error| Failed::After(format!("it ended while it took over ({error})"));
        channel.set_patience(SERVING_PATIENCE).map_err(late)?;
        send_stopped(channel, kept).map_err(late)?;
        match channel.recv().map_err(late)? {
            Report::Serving => {
                *stopped = None;
                Ok(())
            }
            Report::Failed { message } => Err(Failed::After(message)),
            Report::Ready => Err(Failed::After("it was ready twice".to_owned())),
        }
    }

    /// Of a process that works.
    fn give_first(&self, channel: &Channel) -> Result<Vec<Given>, String> {
        let estates = self.listeners.iter().map(|(name, control)| Ok((name.clone(), control.estate()?, None)));
        let estates = estates.collect::<io::Result<Vec<Given>>>().map_err(|error| match error.kind() {
            io::ErrorKind::NotConnected => "this process is ending".to_owned(),
            _ => error.to_string(),
        })?;
        self.until_ready(channel, &estates)?;
        Ok(estates)
    }

    /// Of one that has stopped already, for a successor that failed. What it has stays, whatever becomes of the next one.
    fn give_again(&self, channel: &Channel, kept: Vec<Kept>, back: &mut Option<Vec<Kept>>) -> io::Result<Vec<Given>> {
        let mut given: Vec<Given> = kept.into_iter().map(|kept| (kept.name, kept.estate, kept.handed_over)).collect();
        let renew = |(_, estate, handed_over): &mut Given| handed_over.as_mut().map_or(Ok(()), |it| it.renew(estate));
        let ready = given.iter_mut().try_for_each(renew).map_err(|error| error.to_string());
        match ready.and_then(|()| self.until_ready(channel, &given)) {
            Ok(()) => Ok(given),
            Err(why) => {
                let kept = |(name, estate, handed_over)| Kept { name, estate, handed_over };
                *back = Some(given.into_iter().map(kept).collect());
                Err(io::Error::other(why))
            }
        }
    }

    /// Sends all there is, and waits until the successor has made something of it.
    fn until_ready(&self, channel: &Channel, estates: &[Given]) -> Result<(), String> {
        let broken = |error: io::Error| format!("it ended before it took over ({error})");
        channel.send_line(&json!({"take-over": {}})).map_err(broken)?;
        self.send_estates(channel, estates).map_err(broken)?;
        match channel.recv().map_err(broken)? {
            Report::Ready => Ok(()),
            Report::Failed { message } => Err(message),
            Report::Serving => Err("it serves without being ready".to_owned()),
        }
    }

    fn send_estates(&self, channel: &Channel, estates: &[Given]) -> io::Result<()> {
        channel.send(&Manifest {
            pid: std::process::id(),
            listeners: estates.iter().filter_map(|(name, estate, _)| manifest(name, estate)).collect(),
            admin: self.admin.as_ref().map(|(addr, _)| *addr),
            control: self.control.as_ref().map(|share| share.path.clone()),
        })?;
        channel.send_bytes((self.keys)().map(|keys| key_text(&keys)).unwrap_or_default().as_bytes())?;
        for (_, estate, _) in estates {
            let sockets = estate.sockets.iter().map(|(_, socket)| socket);
            let taps = estate.taps.iter().flatten().map(|tap| &tap.socket);
            let lock = estate.programs.iter().map(|programs| &programs.lock);
            sockets.chain(taps).chain(lock).try_for_each(|descriptor| channel.send_descriptor(descriptor))?;
        }
        let control = self.control.iter().flat_map(|share| [&share.socket, &share.lock]);
        let admin = self.admin.iter().map(|(_, socket)| socket);
        admin.chain(control).try_for_each(|descriptor| channel.send_descriptor(descriptor))
    }

    /// Without a bookmark a successor gives up.
    fn stop(&self, name: &str) -> Option<HandedOver> {
        let (_, control) = self.listeners.iter().find(|(its, _)| its == name)?;
        let failed = |error| tracing::error!("listener \"{name}\": {error}, so nobody can go on with it");
        control.hand_over().map_err(failed).ok()
    }
}

/// A listener's name, what it has, and what is left of it if it has stopped.
type Given = (String, Estate, Option<HandedOver>);

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

fn send_stopped(channel: &Channel, kept: &[Kept]) -> io::Result<()> {
    let bookmarks = |of: &Kept| of.handed_over.as_ref().map_or_else(Vec::new, |it| it.bookmarks.clone());
    let of_each: Vec<_> = kept.iter().map(bookmarks).collect();
    let next = |bookmarks: &Vec<portcullis::Bookmark>| bookmarks.iter().map(|bookmark| bookmark.next).collect();
    channel.send(&Stopped { listeners: of_each.iter().map(next).collect() })?;
    of_each.iter().flatten().try_for_each(|bookmark| channel.send_bytes(&bookmark.entries))
}
