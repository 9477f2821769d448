//! The Unix socket: taken from the dead, never from the living.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use listener::io::lock_file;
use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::{TimeVal, TimeValLike};

/// Clients that may wait for their turn.
const BACKLOG: i32 = 128;

/// A listening control socket, and its place.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) place: Place,
}

/// The right to a path. Dropping it removes the socket there.
///
/// Beside the socket lies a file with `.lock` at its end, which is locked as long as the process lives. It stays behind: who
/// removed it could have another process lock a file that is no longer there.
#[derive(Debug)]
pub struct Place {
    pub(super) path: PathBuf,
    lock: OwnedFd,
    left: Arc<AtomicBool>,
}

/// What a successor needs to [`inherit`](ControlSocket::inherit) a control socket.
#[derive(Debug)]
pub struct Share {
    /// Where it is.
    pub path: PathBuf,
    /// It.
    pub socket: OwnedFd,
    /// The lock of its place.
    pub lock: OwnedFd,
}

/// Why a place could not be taken.
#[derive(Debug)]
pub enum TakeError {
    /// Another process has it.
    Alive { path: PathBuf, pid: Option<i32> },
    /// Something that we have not put there.
    NotASocket { path: PathBuf },
    /// Each place of the directory is another process's.
    Full { directory: PathBuf },
    /// A system call failed.
    Io { doing: &'static str, path: PathBuf, error: io::Error },
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::Alive { path, pid: Some(pid) } => {
                write!(f, "{} is the control socket of another process, {pid}", path.display())
            }
            TakeError::Alive { path, pid: None } => {
                write!(f, "{} is the control socket of another process", path.display())
            }
            TakeError::NotASocket { path } => write!(f, "{} is there, and no socket", path.display()),
            TakeError::Full { directory } => write!(f, "no place is left in {}", directory.display()),
            TakeError::Io { doing, path, error } => write!(f, "cannot {doing} {}: {error}", path.display()),
        }
    }
}

impl ControlSocket {
    /// Listens at a path, with mode 0600. What a dead process left there is replaced.
    ///
    /// # Errors
    /// When a living process listens there, something other than a socket is there, or the directory does not let us.
    pub fn take(path: &Path) -> Result<ControlSocket, TakeError> {
        let failed = |doing| move |error: io::Error| TakeError::Io { doing, path: path.to_owned(), error };
        let lock = lock(path)?;
        clear(path)?;
        // Made before the socket: what is removed when that fails has just been found not to be there.
        let place = Place { path: path.to_owned(), lock, left: Arc::default() };
        let listener = listen(path).map_err(failed("listen on"))?;
        Ok(ControlSocket { listener, place })
    }

    /// A predecessor's, which listens too until it stops, and whose it stays until [`left`](ControlSocket::left) is unset.
    ///
    /// # Errors
    /// Of listen(2).
    pub fn inherit(Share { path, socket, lock }: Share) -> io::Result<ControlSocket> {
        // So that clients are told our process number, and not that of whoever did so first.
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
        let place = Place { path, lock, left: Arc::new(AtomicBool::new(true)) };
        Ok(ControlSocket { listener: socket.into(), place })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// For a successor.
    ///
    /// # Errors
    /// Of dup(2).
    pub fn share(&self) -> io::Result<Share> {
        let socket = self.listener.try_clone()?.into();
        Ok(Share { path: self.place.path.clone(), socket, lock: self.place.lock.try_clone()? })
    }

    /// Set, it leaves the socket where it is: it is a successor's.
    pub fn left(&self) -> Arc<AtomicBool> {
        self.place.left.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left.load(Ordering::Relaxed) {
            // It is ours: the lock is still held.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Of two processes that start at once one alone gets the lock, and only who has it touches the socket.
fn lock(path: &Path) -> Result<OwnedFd, TakeError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let mut options = OpenOptions::new();
    // Not truncated, not read: it is there to be locked.
    options.append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = options.open(&lock).map_err(|error| TakeError::Io { doing: "open", path: lock.clone(), error })?;
    lock_file(file).map_err(|(_, error)| match error.kind() {
        io::ErrorKind::WouldBlock => {
            TakeError::Alive { path: path.to_owned(), pid: connect(path, PROBE).ok().and_then(|it| owner(&it)) }
        }
        _ => TakeError::Io { doing: "lock", path: lock, error },
    })
}

/// Removes the socket of a dead process.
fn clear(path: &Path) -> Result<(), TakeError> {
    let failed = |doing| move |error: io::Error| TakeError::Io { doing, path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(TakeError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    // The lock is ours, so no other portcullis listens there; but another program might.
    match connect(path, PROBE) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(stream) => Err(TakeError::Alive { path: path.to_owned(), pid: owner(&stream) }),
        Err(error) => Err(failed("look at")(error)),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = unix_socket()?;
    // The file of a Unix socket gets the mode that the socket has when it is bound, so it is never open to others, and the umask,
    // which is the whole process's, is left alone.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// How long a process that lives may take to let us in, when all we want to know is whether it lives.
const PROBE: Duration = Duration::from_secs(1);

/// Connects, and waits for a place among those that wait for at most this long.
///
/// # Errors
/// `WouldBlock` when the time is over: somebody listens, and does not come round to it. Else those of connect(2).
pub fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let socket = unix_socket()?;
    let limit = TimeVal::milliseconds(within.as_millis() as i64);
    socket::setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// The process that listens at the other end.
pub fn owner(stream: &UnixStream) -> Option<i32> {
    socket::getsockopt(stream, sockopt::PeerCredentials).ok().map(|credentials| credentials.pid())
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("portcullis-control-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir(&directory).unwrap();
        directory
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_goes_with_its_handle() {
        let directory = directory();
        let path = directory.join("c");
        let socket = ControlSocket::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = directory();
        let path = directory.join("c");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind, as by a process that was killed");
        let socket = ControlSocket::take(&path).unwrap();
        let error = ControlSocket::take(&path).unwrap_err();
        let own = std::process::id() as i32;
        assert!(matches!(error, TakeError::Alive { pid: Some(pid), .. } if pid == own), "{error}");
        assert!(path.exists() && connect(&path, PROBE).is_ok(), "the first one is as it was");
        drop(socket);
        let stranger = UnixListener::bind(&path).unwrap();
        let error = ControlSocket::take(&path).unwrap_err().to_string();
        assert!(
            error.contains("another process") && error.contains(&own.to_string()),
            "no lock, but it lives: {error}"
        );
        drop(stranger);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = directory();
        let path = directory.join("c");
        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::take(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let error = ControlSocket::take(&directory.join("absent/c")).unwrap_err().to_string();
        assert!(error.contains("absent/c.lock"), "{error}");
        let long = directory.join("x".repeat(120));
        assert!(ControlSocket::take(&long).unwrap_err().to_string().contains("listen on"));
        fs::remove_dir_all(directory).unwrap();
    }
}
