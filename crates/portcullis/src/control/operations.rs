//! What can be asked of a running process.

use super::prefix::Prefix;
use super::protocol::{
    Answer, Conns, Drained, Killed, LevelChanged, Refusal, Reloaded, Request, Restarted, Rotated, Status, Top,
};
use super::protocol::{CONNS_MAX, KILL_IDS_MAX, TOP_MAX};
use crate::config::{Choice, LogLevel};

/// The process behind the control socket.
///
/// The methods are called on a thread that may block, several at a time. To add a verb: a variant of [`Request`] and of
/// [`Answer`], a method here, a line in [`answer`], and one each in `args.rs` and `table.rs`.
pub trait Operations: Send + Sync + 'static {
    /// The process and its listeners.
    fn status(&self) -> Status;

    /// Open connections: of one listener, of some clients, or all; at most `limit`.
    ///
    /// # Errors
    /// When there is no such listener.
    fn conns(&self, listener: Option<&str>, peer: Option<Prefix>, limit: usize) -> Result<Conns, Refusal>;

    /// The source prefixes with the most open connections; at most `limit`.
    fn top(&self, limit: usize) -> Top;

    /// Begins the end, as SIGTERM does. A second time changes nothing.
    fn drain(&self) -> Drained;

    /// Reads the configuration again, as SIGHUP does, and brings it into force whole or not at all.
    ///
    /// # Errors
    /// Why the old one is still in force.
    fn reload(&self) -> Result<Reloaded, Refusal>;

    /// Starts the program anew, and returns when that has taken over.
    ///
    /// # Errors
    /// Why it has not; this process goes on then.
    fn restart(&self) -> Result<Restarted, Refusal>;

    /// Ends the connections with these numbers with RST.
    fn kill_ids(&self, ids: &[u64]) -> Killed;

    /// Ends all connections of these clients with RST.
    fn kill_peers(&self, peers: Prefix) -> Killed;

    /// Has the log written from this level on.
    ///
    /// # Errors
    /// When there is no log to change.
    fn set_log_level(&self, level: LogLevel) -> Result<LevelChanged, Refusal>;

    /// Has another master key take the place of the last: a new one, or what stands where the first came from; from `at` on, or as soon as
    /// is possible.
    ///
    /// # Errors
    /// Why the keys are as they were.
    fn rotate_keys(&self, generate: bool, at: Option<u64>) -> Result<Rotated, Refusal>;
}

/// Does what a request says.
pub(super) fn answer(request: Request, operations: &dyn Operations) -> Answer {
    let done = match request {
        Request::Status {} => Ok(Answer::Status(operations.status())),
        Request::Conns { listener, peer, limit } => within("limit", limit, CONNS_MAX)
            .and_then(|()| operations.conns(listener.as_deref(), peer, limit))
            .map(Answer::Conns),
        Request::Top { limit } => within("limit", limit, TOP_MAX).map(|()| Answer::Top(operations.top(limit))),
        Request::Drain {} => Ok(Answer::Drain(operations.drain())),
        Request::Reload {} => operations.reload().map(Answer::Reload),
        Request::Restart {} => operations.restart().map(Answer::Restart),
        // The server has taken that for itself.
        Request::TakeOver { .. } => Err(Refusal::usage("take-over: no process asks for it here")),
        Request::Kill { ids, peer } => kill(&ids, peer, operations).map(Answer::Kill),
        Request::RotateKeys { generate, at } => operations.rotate_keys(generate, at).map(Answer::RotateKeys),
        Request::LogLevel { level } => log_level(&level, operations).map(Answer::LogLevel),
    };
    done.unwrap_or_else(Answer::Error)
}

fn kill(ids: &[u64], peer: Option<Prefix>, operations: &dyn Operations) -> Result<Killed, Refusal> {
    match (ids, peer) {
        ([], None) | ([_, ..], Some(_)) => Err(Refusal::usage("kill: legal: ids or peer, one of them")),
        ([], Some(peers)) => Ok(operations.kill_peers(peers)),
        (ids, None) => {
            within("number of ids", ids.len(), KILL_IDS_MAX)?;
            let killed = operations.kill_ids(ids);
            if killed.killed > 0 { Ok(killed) } else { Err(Refusal::refused(no_such_connection(&killed.unknown))) }
        }
    }
}

fn no_such_connection(ids: &[u64]) -> String {
    const SHOWN_MAX: usize = 10;
    let shown: Vec<_> = ids.iter().take(SHOWN_MAX).map(u64::to_string).collect();
    let more = if ids.len() > SHOWN_MAX { " ..." } else { "" };
    format!("no open connection has the number {}{more}", shown.join(", "))
}

fn log_level(level: &str, operations: &dyn Operations) -> Result<LevelChanged, Refusal> {
    let illegal = || Refusal::usage(format!("log level \"{level}\" is not legal; legal: one of {}", LogLevel::legal()));
    operations.set_log_level(LogLevel::from_word(level).ok_or_else(illegal)?)
}

fn within(what: &str, value: usize, max: usize) -> Result<(), Refusal> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(Refusal::usage(format!("{what}: {value} is not legal; legal: 1 to {max}")))
}
