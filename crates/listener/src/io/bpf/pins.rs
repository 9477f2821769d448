//! What outlives the process: its programs' places on the devices, and the reports that nobody has read.
//!
//! They are pinned in a directory of their own below one on a bpffs, which one process at a time keeps. Programs and their
//! other maps are held by the places, and are replaced by those of the next process in one step: nothing of one version has
//! to be understood by another but the reports, which is why their name has a number.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::io::estate::BpfEstate;
use crate::io::lock::lock_file;
use crate::io::sieve::in_full;

/// Of `struct report`: another one needs another number.
const REPORTS: &str = "reports_1";

/// The ring of a process that has not taken over yet.
const REPORTS_TO_COME: &str = "reports_to_come";

/// How directories begin by which programs change hands.
const PASSING: &str = "portcullis-";

/// Where a bpffs usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// How long a predecessor may take to let go, which it does within milliseconds once it was told to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A directory on a bpffs, ours alone.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    inherited: bool,
    /// Else what is there goes with us.
    lasts: bool,
    lock: OwnedFd,
}

impl Pins {
    /// Opens the directory of this name below `root`, for the network namespace we live in; makes it if there is none.
    ///
    /// # Errors
    /// Where `root` is not on a bpffs; while another process keeps the directory.
    pub(super) fn open(root: &Path, name: &str) -> io::Result<Pins> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        let illegal = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{} {what}", root.display()));
        let existing = if root.exists() { root } else { root.parent().unwrap_or(root) };
        if statfs(existing).map_err(|errno| named(errno.into()))?.filesystem_type() != BPF_FS_MAGIC {
            return Err(illegal("is not on a bpffs (mount -t bpf bpf /sys/fs/bpf)"));
        }
        if root.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'.')) {
            return Err(illegal("has a dot in its last part, which a bpffs does not take"));
        }
        make_dir(root).map_err(named)?;
        let dir = place_of(root, name)?;
        make_dir(&dir).map_err(named)?;
        let lock = lock(&dir)?;
        let inherited = fs::read_dir(&dir)?.next().is_some();
        Ok(Pins { dir, inherited, lasts: inherited, lock })
    }

    /// The directory of a predecessor that lives, and holds the lock as well as we do.
    pub(super) fn inherit(left: BpfEstate) -> Pins {
        let BpfEstate { dir, lock } = left;
        Pins { dir, inherited: true, lasts: true, lock }
    }

    /// A new directory on the bpffs that is usually there, for what only changes hands.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn passing() -> io::Result<Pins> {
        let dir = Path::new(BPFFS).join(format!("{PASSING}{:016x}", getrandom::u64().map_err(io::Error::other)?));
        if statfs(Path::new(BPFFS)).map_err(io::Error::from)?.filesystem_type() != BPF_FS_MAGIC {
            let text = format!(
                "programs change hands on a bpffs, and {BPFFS} is none (mount -t bpf bpf {BPFFS}, or set bpf_pins)"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        make_dir(&dir)?;
        let lock = lock(&dir)?;
        Ok(Pins { dir, inherited: false, lasts: false, lock })
    }

    /// Removes what processes left that died while their programs changed hands: the programs would answer for nobody.
    pub(super) fn sweep() {
        for entry in fs::read_dir(BPFFS).into_iter().flatten().flatten() {
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PASSING));
            // Who lives holds the lock.
            if ours && File::open(entry.path()).is_ok_and(|dir| lock_file(dir).is_ok()) {
                remove(&entry.path());
            }
        }
    }

    /// What a successor needs to [`inherit`](Pins::inherit) this.
    ///
    /// # Errors
    /// Of dup(2).
    pub(super) fn estate(&self) -> io::Result<BpfEstate> {
        Ok(BpfEstate { dir: self.dir.clone(), lock: self.lock.try_clone()? })
    }

    /// Whether [`open`](Pins::open) would open the same directory.
    pub(super) fn is_at(&self, root: &Path, name: &str) -> bool {
        place_of(root, name).is_ok_and(|dir| dir == self.dir)
    }

    /// Whether a predecessor left anything.
    pub(super) fn inherited(&self) -> bool {
        self.inherited
    }

    /// Whether what is there outlives us when this is dropped. Until this is said, what a predecessor left does.
    pub(super) fn leave(&mut self, yes: bool) {
        self.lasts = yes;
    }

    /// Where the ring of reports is, or is to be.
    pub(super) fn reports(&self) -> PathBuf {
        self.dir.join(REPORTS)
    }

    /// Where a new ring is to be, while a predecessor still reads its own: two cannot read one.
    pub(super) fn reports_to_come(&self) -> PathBuf {
        let path = self.dir.join(REPORTS_TO_COME);
        let _ = fs::remove_file(&path); // Of an attempt that failed; most left none.
        path
    }

    /// The new ring is the ring now.
    ///
    /// # Errors
    /// Of rename(2).
    pub(super) fn reports_came(&self) -> io::Result<()> {
        fs::rename(self.dir.join(REPORTS_TO_COME), self.reports())
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

    /// Removes the places on all devices but these.
    pub(super) fn keep_only(&self, devices: &[u32]) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let device = name.split_once('_').filter(|(kind, _)| Kind::ALL.iter().any(|known| known.word() == *kind));
            if let Some(Ok(index)) = device.map(|(_, index)| index.parse())
                && !devices.contains(&index)
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
    /// A start that failed leaves nothing behind, nor does who is dropped without having been told to drain.
    fn drop(&mut self) {
        if !self.lasts {
            remove(&self.dir);
        }
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(dir);
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

/// For us alone: whoever may write there may take the protection away.
fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// An index of a device means something in one network namespace only.
fn place_of(root: &Path, name: &str) -> io::Result<PathBuf> {
    Ok(root.join(dir_name(name, fs::metadata("/proc/thread-self/ns/net")?.ino())))
}

/// A bpffs takes no dots; what is no letter or digit becomes `_` and its code, so that no two names become one.
fn dir_name(listener: &str, namespace: u64) -> String {
    let escaped = listener.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    });
    format!("{}_{namespace}", escaped.collect::<String>())
}

fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let begin = Instant::now();
    let mut file = File::open(dir)?;
    loop {
        match lock_file(file) {
            Ok(lock) => return Ok(lock),
            Err((back, error)) if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {
                file = back
            }
            Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                let text =
                    format!("another process keeps {}: end it first (SIGTERM), then it lets go at once", dir.display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err((_, error)) => return Err(error),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_directory_is_one_that_a_bpffs_takes() {
        assert_eq!(dir_name("web-1", 7), "web-1_7");
        assert_eq!(dir_name("../web", 7), "_2e_2e_2fweb_7");
        assert_ne!(dir_name("web.a", 7), dir_name("web_a", 7));
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = Pins::open(Path::new("/tmp"), "web").unwrap_err();
        assert!(error.to_string().contains("/tmp is not on a bpffs"), "{error}");
    }
}
