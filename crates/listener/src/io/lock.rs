//! File locks that can change hands.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{Flock, FlockArg};

/// Locks a file, by [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html). The lock belongs to the open file: it ends when the
/// last descriptor of it is closed, in whichever process that is.
///
/// # Errors
/// `WouldBlock` while somebody else has locked it; others of flock(2) and dup(2). The file comes back.
pub fn lock_file(file: File) -> Result<OwnedFd, (File, io::Error)> {
    let held = match file.try_clone() {
        Ok(held) => held,
        Err(error) => return Err((file, error)),
    };
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| (file, errno.into()))?;
    // Dropped, it would unlock the file for every process that holds it; closed, it leaves the lock to the others.
    let raw = lock.as_raw_fd();
    mem::forget(lock);
    let _ = nix::unistd::close(raw);
    Ok(held.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_last_descriptor() {
        let path = std::env::temp_dir().join(format!("portcullis-lock-{:016x}", getrandom::u64().unwrap()));
        let open = || File::options().append(true).create(true).open(&path).unwrap();
        let lock = lock_file(open()).unwrap();
        let other_hand = lock.try_clone().unwrap();
        drop(lock);
        let (_, error) = lock_file(open()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(other_hand);
        assert!(lock_file(open()).is_ok());
        std::fs::remove_file(path).unwrap();
    }
}
