//! Asks the process by which path it made a connection: on a thread of its own, so that a busy process holds up no packet.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use wire::{Endpoint, FourTuple};

use super::flow::Via;
use crate::control::{Answer, Caller, Request};

/// Questions that wait. At the bound further connections are not asked about until there is room.
const WAITING_MAX: usize = 32;

/// Least time between two questions, so that they cost the process nothing to speak of: 20 a second.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections of one client that are looked through: its answer is some 40 KB.
const LIMIT: usize = 100;

/// What the process knows of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub tuple: FourTuple,
    pub serial: u64,
    pub made: Made,
}

/// What the process says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// By which path, and how long ago.
    By(Via, Duration),
    /// It has no such connection.
    Unknown,
    /// The client has more connections than are looked through.
    Untold,
}

/// What the thread has heard.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// All connections of the process are made by this path.
    Always(Via),
    Of(Known),
}

/// The thread that asks. It ends with the handle, or when nobody answers.
pub struct Asker {
    questions: SyncSender<(FourTuple, u64)>,
    answers: Receiver<Heard>,
}

impl Asker {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(socket: Option<PathBuf>) -> std::io::Result<Asker> {
        let (questions, waiting) = sync_channel::<(FourTuple, u64)>(WAITING_MAX);
        let (tell, answers) = sync_channel(WAITING_MAX);
        thread::Builder::new().name("trace-ask".to_owned()).spawn(move || {
            if let Some(via) = ask_tier(socket.as_ref())
                && tell.send(Heard::Always(via)).is_err()
            {
                return;
            }
            for (tuple, serial) in waiting {
                let Some(made) = ask(socket.as_ref(), &tuple) else { return };
                if tell.send(Heard::Of(Known { tuple, serial, made })).is_err() {
                    return;
                }
                thread::sleep(PAUSE);
            }
        })?;
        Ok(Asker { questions, answers })
    }

    /// Asks about a flow; `false` if too many questions wait.
    pub fn ask(&self, tuple: FourTuple, serial: u64) -> bool {
        self.questions.try_send((tuple, serial)).is_ok()
    }

    /// The next answer that is there.
    pub fn answer(&self) -> Option<Heard> {
        self.answers.try_recv().ok()
    }
}

/// The path of all connections, where the datapath has one only.
fn ask_tier(socket: Option<&PathBuf>) -> Option<Via> {
    let Ok(Answer::Status(status)) = Caller::new(socket.cloned()).ask(&Request::Status {}) else { return None };
    let paths = status.listeners.iter().map(|listener| match listener.tier.as_str() {
        "bpf" => Some(Via::Cookie),
        "kernel" => Some(Via::Kernel),
        _ => None,
    });
    paths.reduce(|one, other| one.filter(|_| one == other)).flatten()
}

/// What the process says; `None` if it does not answer.
fn ask(socket: Option<&PathBuf>, tuple: &FourTuple) -> Option<Made> {
    let peer = tuple.peer.addr.to_string().parse().ok()?;
    let request = Request::Conns { listener: None, peer: Some(peer), limit: LIMIT };
    let Ok(Answer::Conns(conns)) = Caller::new(socket.cloned()).ask(&request) else { return None };
    let found = conns
        .connections
        .iter()
        .find(|conn| Endpoint::from(conn.peer) == tuple.peer && Endpoint::from(conn.local) == tuple.local);
    Some(match found {
        Some(conn) => {
            let age = Duration::try_from_secs_f64(conn.age_seconds).unwrap_or_default();
            Via::from_word(&conn.via).map_or(Made::Untold, |via| Made::By(via, age))
        }
        None if conns.matching > conns.connections.len() => Made::Untold,
        None => Made::Unknown,
    })
}
