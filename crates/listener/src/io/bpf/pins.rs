//! What outlives the process: its programs' places on the devices, and the reports that nobody has read.
//!
//! They are pinned in a directory of their own below one on a bpffs, which one process at a time keeps. Programs and their
//! other maps are held by the places, and are replaced by those of the next process in one step: nothing of one version has
//! to be understood by another but the reports, which is why their name has a number.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::io::interfaces::Interfaces;
use crate::io::sieve::in_full;

/// Of `struct report`: another one needs another number.
const REPORTS: &str = "reports_1";

/// How long a predecessor may take to let go, which it does within milliseconds once it was told to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory on a bpffs, ours alone.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    inherited: bool,
    /// Else what is there goes with us.
    lasts: bool,
    _lock: Flock<File>,
}

impl Pins {
    /// Opens the directory of this name below `root`, for the network namespace we live in; makes it if there is none.
    ///
    /// # Errors
    /// Where `root` is not on a bpffs; while another process keeps the directory.
    pub(super) fn open(root: &Path, name: &str) -> io::Result<Pins> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        fs::create_dir_all(root).map_err(named)?;
        if statfs(root).map_err(|errno| named(errno.into()))?.filesystem_type() != BPF_FS_MAGIC {
            let text = format!("{} is not on a bpffs (mount -t bpf bpf /sys/fs/bpf)", root.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let dir = root.join(dir_name(name, fs::metadata("/proc/thread-self/ns/net")?.ino()));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(error)),
            _ => {}
        }
        let lock = lock(&dir)?;
        let inherited = fs::read_dir(&dir)?.next().is_some();
        Ok(Pins { dir, inherited, lasts: inherited, _lock: lock })
    }

    /// Whether a predecessor left anything.
    pub(super) fn inherited(&self) -> bool {
        self.inherited
    }

    /// From now on what is there outlives us. Before, only what a predecessor left does.
    pub(super) fn leave(&mut self) {
        self.lasts = true;
    }

    /// Where the ring of reports is, or is to be.
    pub(super) fn reports(&self) -> PathBuf {
        self.dir.join(REPORTS)
    }

    /// The place of a program of this kind on a device, if one was left there.
    pub(super) fn take(&self, kind: Kind, device: u32) -> Option<FdLink> {
        PinnedLink::from_pin(self.place(kind, device)).ok().map(FdLink::from)
    }

    /// Leaves a place to the next process.
    pub(super) fn keep(&self, kind: Kind, device: u32, link: FdLink) -> io::Result<FdLink> {
        link.pin(self.place(kind, device)).map(FdLink::from).map_err(in_full)
    }

    /// A place that is none any more, or shall be none.
    pub(super) fn remove(&self, kind: Kind, device: u32) {
        let _ = fs::remove_file(self.place(kind, device)); // Most were not there.
    }

    /// Removes the places on devices that are gone.
    pub(super) fn remove_gone(&self, interfaces: &Interfaces) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let device = name.split_once('_').filter(|(kind, _)| Kind::ALL.iter().any(|known| known.word() == *kind));
            if let Some(Ok(index)) = device.map(|(_, index)| index.parse())
                && interfaces.by_index(index).is_none()
            {
                Kind::ALL.into_iter().for_each(|kind| self.remove(kind, index));
            }
        }
    }

    fn place(&self, kind: Kind, device: u32) -> PathBuf {
        self.dir.join(format!("{}_{device}", kind.word()))
    }
}

impl Drop for Pins {
    /// A start that failed leaves nothing behind.
    fn drop(&mut self) {
        if self.lasts {
            return;
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where on a device a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tc,
    Xdp,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Tc, Kind::Xdp];

    fn word(self) -> &'static str {
        match self {
            Kind::Tc => "tc",
            Kind::Xdp => "xdp",
        }
    }
}

/// A bpffs takes no dots. An index of a device means something in one namespace only.
fn dir_name(listener: &str, namespace: u64) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    format!("{}_{namespace}", listener.chars().map(plain).collect::<String>())
}

fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let begin = Instant::now();
    let mut file = File::open(dir)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if begin.elapsed() < PATIENCE => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                let text =
                    format!("another process keeps {}: end it first (SIGTERM), then it lets go at once", dir.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err((_, errno)) => return Err(errno.into()),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_directory_is_one_that_a_bpffs_takes() {
        assert_eq!(dir_name("0.0.0.0:80, [::]:80", 7), "0_0_0_0_80_______80_7");
        assert_eq!(dir_name("../web", 7), "___web_7");
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = Pins::open(Path::new("/tmp"), "web").unwrap_err();
        assert!(error.to_string().contains("/tmp is not on a bpffs"), "{error}");
    }
}
