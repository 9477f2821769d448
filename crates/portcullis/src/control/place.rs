//! Where the control socket is, when nobody says so.
//!
//! In `$RUNTIME_DIRECTORY`, which systemd sets for a unit with `RuntimeDirectory=`, else, for root, in `/run/portcullis`. The first
//! process there has `control.sock`; further ones have `control-2.sock` and so on, so that two on one host do not fight. A client
//! that was given no path asks the one that lives, and with several has to be told which.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{find, unreachable_at};
use super::socket::{ControlSocket, Share, TakeError, connect};
use crate::config::ControlPath;
use crate::failure::Failure;

/// Processes that can have a socket in one directory without being told where.
const SLOTS: u32 = 16;

const RUN_DIRECTORY: &str = "/run/portcullis";

/// How long a predecessor may take to let go, when it has handed its programs on and is finishing its connections.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the process that is to be succeeded, if one runs. `named`: by its control socket; else by where ours is to be.
///
/// # Errors
/// When it cannot be said which, or when it does not let us in.
pub fn running(named: Option<&Path>, path: &ControlPath) -> Result<Option<UnixStream>, Failure> {
    let own = match path {
        ControlPath::At(path) => Some(&**path),
        ControlPath::Usual | ControlPath::None => None,
    };
    let found = match (named.or(own), path) {
        (Some(path), _) => connect(path, PATIENCE).map_err(|error| unreachable_at(path, &error)),
        (None, ControlPath::None) => {
            let text = "--takeover: the configuration has control = \"none\"; legal: --takeover=PATH, of the control socket of \
                        the process that runs";
            return Err(Failure::Usage(text.to_owned()));
        }
        (None, _) => find(&of_client()).map(|(stream, _)| stream),
    };
    match found {
        Ok(stream) => Ok(Some(stream)),
        // Whoever names a process means that one.
        Err(Failure::Unavailable(_)) if named.is_none() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Takes the socket's place; `None` if there is to be none. `patient`: a predecessor is about to let go of it; or it has left it to us.
///
/// # Errors
/// When a path was given and cannot be had. Of the usual place, that is one line in the log: nobody has asked for it.
pub fn take(path: &ControlPath, patient: bool, left: Option<Share>) -> Result<Option<ControlSocket>, Failure> {
    let left = left.filter(|share| match path {
        ControlPath::None => false,
        ControlPath::At(path) => *path == share.path,
        ControlPath::Usual => true,
    });
    if let Some(left) = left {
        let failed = |error| Failure::runtime("cannot go on with the predecessor's control socket", error);
        return ControlSocket::inherit(left).map(Some).map_err(failed);
    }
    match path {
        ControlPath::None => Ok(None),
        ControlPath::At(path) => {
            let named = |error| Failure::Runtime(format!("control: {error}; legal: another path, or \"none\""));
            insist(path, patient).map(Some).map_err(named)
        }
        ControlPath::Usual => {
            let Some(directory) = of_server(runtime_directory(), nix::unistd::geteuid().is_root()) else {
                return Ok(None);
            };
            let taken = take_usual(&directory);
            if let Err(error) = &taken {
                tracing::warn!("no control socket, so no `portcullis ctl`: {error} (control = \"none\" for none)");
            }
            Ok(taken.ok())
        }
    }
}

fn insist(path: &Path, patient: bool) -> Result<ControlSocket, TakeError> {
    let begin = Instant::now();
    loop {
        match ControlSocket::take(path) {
            Err(TakeError::Alive { .. }) if patient && begin.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// The first free place.
fn take_usual(directory: &Path) -> Result<ControlSocket, TakeError> {
    if directory == Path::new(RUN_DIRECTORY) {
        // It may be there already; if it cannot be made, the socket says so.
        let _ = DirBuilder::new().mode(0o755).create(directory);
    }
    for path in slots(directory) {
        match ControlSocket::take(&path) {
            Err(TakeError::Alive { .. }) => {}
            done => return done,
        }
    }
    Err(TakeError::Full { directory: directory.to_owned() })
}

/// Where sockets are looked for by a client.
pub fn of_client() -> PathBuf {
    of_server(runtime_directory(), true).unwrap_or_else(|| PathBuf::from(RUN_DIRECTORY))
}

/// Every path that a process may have taken.
pub fn slots(directory: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=SLOTS)
        .map(move |n| directory.join(if n == 1 { "control.sock".to_owned() } else { format!("control-{n}.sock") }))
}

fn of_server(runtime: Option<impl AsRef<OsStr>>, root: bool) -> Option<PathBuf> {
    // With several RuntimeDirectory= systemd separates them by colons; the first one is ours.
    let runtime = runtime.and_then(|list| Some(PathBuf::from(list.as_ref().to_str()?.split(':').next()?)));
    runtime.filter(|path| path.is_absolute()).or_else(|| root.then(|| PathBuf::from(RUN_DIRECTORY)))
}

fn runtime_directory() -> Option<std::ffi::OsString> {
    std::env::var_os("RUNTIME_DIRECTORY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_is_systemds_else_roots_else_none() {
        for (runtime, root, expected) in [
            (Some("/run/a:/run/b"), false, Some("/run/a")),
            (Some("/run/a"), true, Some("/run/a")),
            (Some("relative"), true, Some(RUN_DIRECTORY)),
            (Some(""), false, None),
            (None, true, Some(RUN_DIRECTORY)),
            (None, false, None),
        ] {
            assert_eq!(of_server(runtime, root), expected.map(PathBuf::from), "{runtime:?} {root}");
        }
    }

    #[test]
    fn the_first_slot_has_the_plain_name() {
        let slots: Vec<_> = slots(Path::new("/r")).collect();
        assert_eq!(slots.len(), 16);
        assert_eq!(slots[..2], [PathBuf::from("/r/control.sock"), PathBuf::from("/r/control-2.sock")]);
    }

    #[test]
    fn the_patient_wait_for_a_predecessor_to_let_go() {
        let directory = std::env::temp_dir().join(format!("portcullis-place-{:016x}", getrandom::u64().unwrap()));
        std::fs::create_dir(&directory).unwrap();
        let path = ControlPath::At(directory.join("c"));
        let predecessor = take(&path, false, None).unwrap();
        let refusal = take(&path, false, None).unwrap_err().to_string();
        assert!(refusal.starts_with("control: ") && refusal.contains("legal: another path, or \"none\""), "{refusal}");
        thread::scope(|scope| {
            let successor = scope.spawn(|| take(&path, true, None));
            drop(predecessor);
            assert!(successor.join().unwrap().unwrap().is_some());
        });
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_directory_has_a_place_for_each_until_it_is_full() {
        let directory = std::env::temp_dir().join(format!("portcullis-place-{:016x}", getrandom::u64().unwrap()));
        std::fs::create_dir(&directory).unwrap();
        let taken: Vec<_> = (0..SLOTS).map(|_| take_usual(&directory).unwrap()).collect();
        assert!(take_usual(&directory).is_err());
        drop(taken);
        assert!(take_usual(&directory).is_ok());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
