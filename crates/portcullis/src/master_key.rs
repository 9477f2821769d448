//! Where the master key comes from.
//!
//! `--master-key-file`, else a systemd credential, else a key that is made once and kept under the state directory.

mod key_file;
pub mod previous;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use listener::MasterKey;
use listener::cookie::{Epoch, KeySchedule};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Name of the systemd credential (`LoadCredential=portcullis.master-key:PATH`).
const CREDENTIAL: &str = "portcullis.master-key";

/// Name of the key in the state directory.
const STATE_FILE: &str = "master.key";

/// Name of those that were before it, beside it.
const PREVIOUS_FILE: &str = "master.key.previous";

/// Where to look, as far as the environment decides it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, set by systemd.
    pub state: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// Whether the effective user is root.
    pub root: bool,
}

impl Environment {
    /// As this process finds it.
    pub fn of_process() -> Environment {
        let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        // With several StateDirectory= systemd separates them by colons; the first one is ours.
        let state = std::env::var("STATE_DIRECTORY").ok();
        let state = state.and_then(|list| list.split(':').next().map(PathBuf::from)).filter(|path| path.is_absolute());
        Environment {
            credentials: directory("CREDENTIALS_DIRECTORY"),
            state,
            xdg_state: directory("XDG_STATE_HOME"),
            home: directory("HOME"),
            root: nix::unistd::geteuid().is_root(),
        }
    }

    /// Whether systemd has put the file there. It shows credentials to one user alone, by means that the mode does not
    /// tell: an ACL, and the mode of the directory.
    fn is_credential(&self, path: &Path) -> bool {
        self.credentials.as_ref().is_some_and(|directory| path.starts_with(directory))
    }

    /// The directory for what outlives a restart, if the environment has a place for it.
    fn state_directory(&self) -> Option<PathBuf> {
        if let Some(state) = &self.state {
            return Some(state.clone());
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/portcullis"));
        }
        let base = self.xdg_state.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(base.join("portcullis"))
    }
}

/// A key file that the operator has named.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The file.
    pub file: &'a Path,
    /// By what: a flag, or a key of the config file.
    pub by: &'static str,
}

/// Where the master key comes from, at the start and at a rotation.
#[derive(Clone, Debug)]
pub struct KeySource {
    place: Place,
    environment: Environment,
}

#[derive(Clone, Debug)]
enum Place {
    /// A file that is somebody else's to write, and what names it.
    Given { file: PathBuf, by: String },
    /// The state directory, and what names it.
    Kept { directory: PathBuf, by: &'static str },
}

/// As the rest of a sentence about a key: what names its file, and the file.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Given { by, .. } => f.write_str(by),
            Place::Kept { directory, by } => write!(f, "{by} {}", directory.join(STATE_FILE).display()),
        }
    }
}

impl KeySource {
    /// Finds the place. What is in it is not looked at.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(
        named: Option<Named<'_>>,
        state_dir: Option<&Path>,
        environment: Environment,
    ) -> Result<KeySource, Failure> {
        if let Some(Named { file, by }) = named {
            let by = format!("{by} {}", file.display());
            return Ok(KeySource { place: Place::Given { file: file.to_owned(), by }, environment });
        }
        let credential = environment.credentials.as_ref().map(|directory| directory.join(CREDENTIAL));
        if let Some(file) = credential.filter(|path| path.exists()) {
            let by = format!("$CREDENTIALS_DIRECTORY/{CREDENTIAL} ({})", file.display());
            return Ok(KeySource { place: Place::Given { file, by }, environment });
        }
        let configured = state_dir.map(|directory| (directory.to_owned(), "state_dir"));
        let usual = || environment.state_directory().map(|found| (found, "the state directory"));
        let Some((directory, by)) = configured.or_else(usual) else {
            let message =
                "there is no place to keep the master key: name a file with --master-key-file, or set state_dir";
            return Err(Failure::Runtime(message.to_owned()));
        };
        Ok(KeySource { place: Place::Kept { directory, by }, environment })
    }

    /// The key, made if it is to be kept in the state directory and is not there; with those before it that a client may yet use.
    ///
    /// # Errors
    /// When the file is not readable, holds no key or can be read by everybody, and when a new key cannot be kept.
    pub fn load(&self) -> Result<KeySchedule, Failure> {
        let Place::Kept { directory, .. } = &self.place else { return self.read().map(KeySchedule::new) };
        if !directory.join(STATE_FILE).exists() {
            make(directory).map_err(|error| self.cannot_keep(&error))?;
        }
        Ok(self.with_previous(directory, self.read()?))
    }

    /// The key that stands there now.
    ///
    /// # Errors
    /// When the file is not readable, holds no key or can be read by everybody.
    pub fn read(&self) -> Result<MasterKey, Failure> {
        let kept;
        let file = match &self.place {
            Place::Given { file, .. } => file,
            Place::Kept { directory, .. } => {
                kept = directory.join(STATE_FILE);
                &kept
            }
        };
        let unusable = |why| Failure::Runtime(format!("cannot use the master key of {self}: {why}"));
        key_file::read(file, &self.environment).map_err(unusable)
    }

    /// A new key, which is nowhere yet.
    ///
    /// # Errors
    /// When the key is somebody else's to write: after the next start the old one would be back. When there is no randomness.
    pub fn fresh(&self) -> Result<MasterKey, Failure> {
        if let Place::Given { .. } = self.place {
            return Err(Failure::Runtime(format!(
                "the master key comes from {self}: write a new one there (`portcullis keygen` makes one) and rotate without --generate"
            )));
        }
        MasterKey::generate().map_err(|error| Failure::runtime("cannot make a key", error))
    }

    /// Puts the last of these keys, which is a [`fresh`](KeySource::fresh) one, in the place of the one that is kept, and those before it
    /// beside it. Each file is whole at any moment at which it exists.
    ///
    /// # Errors
    /// When that fails. The old key is kept then.
    pub fn keep(&self, masters: &KeySchedule) -> Result<(), Failure> {
        let Place::Kept { directory, .. } = &self.place else { return Ok(()) };
        // In this order: behind a crash in between, the old key takes its own place, which changes nothing.
        let kept = replace(directory, PREVIOUS_FILE, &previous::text(masters))
            .and_then(|()| replace(directory, STATE_FILE, &line(masters.last())));
        kept.map_err(|error| self.cannot_keep(&error))
    }

    /// Puts those before the last of these keys beside it, where the state directory is ours. That they cannot be kept is a line in the log: it
    /// matters at a restart alone, and the rotation is somebody's wish.
    pub fn keep_previous(&self, masters: &KeySchedule) {
        let Place::Kept { directory, .. } = &self.place else { return };
        if let Err(error) = replace(directory, PREVIOUS_FILE, &previous::text(masters)) {
            tracing::warn!(%error, "a restart within two minutes loses handshakes: cannot keep the keys of before the rotation");
        }
    }

    /// With the keys that were in use before, if a rotation is not long ago. Without them handshakes under way are lost, and nothing else: so
    /// what is wrong with them is a line in the log.
    fn with_previous(&self, directory: &Path, last: MasterKey) -> KeySchedule {
        let path = directory.join(PREVIOUS_FILE);
        if !path.exists() {
            return last.into();
        }
        let read = key_file::read_text(&path, &self.environment).and_then(|text| previous::parse(&text, last.clone()));
        match read {
            Ok(mut masters) => {
                masters.forget_before(oldest_epoch_now());
                if masters.later().next().is_none() {
                    // What is gone from here is of no use to anybody.
                    let _ = fs::remove_file(&path);
                }
                masters
            }
            Err(why) => {
                tracing::warn!("handshakes of before the last rotation are lost: {}: {why}", path.display());
                last.into()
            }
        }
    }

    fn cannot_keep(&self, error: &io::Error) -> Failure {
        let by = match &self.place {
            Place::Given { by, .. } => by.clone(),
            Place::Kept { directory, by } => format!("{by} {}", directory.display()),
        };
        Failure::Runtime(format!(
            "cannot keep a master key in {by}: {error}\n\
             Make the directory writable, set state_dir, or name a key with --master-key-file \
             (`portcullis keygen` makes one)."
        ))
    }

    /// A place in a directory, for tests.
    #[cfg(test)]
    pub fn kept_in(directory: &Path) -> KeySource {
        KeySource {
            place: Place::Kept { directory: directory.to_owned(), by: "state_dir" },
            environment: Environment::default(),
        }
    }
}

/// The oldest epoch whose cookies may be taken, and one more for SYN-ACKs that are sent again.
fn oldest_epoch_now() -> Epoch {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Epoch(Epoch::at_unix(now.as_secs()).0.saturating_sub(2))
}

/// Makes a key under a name of its own, then gives it the real name unless another process has done so first.
///
/// So the file is whole at any moment at which it exists, and processes that start at once use one key.
fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let key = MasterKey::generate()?;
    let temporary = temporary(directory, STATE_FILE)?;
    let linked =
        write_new(&temporary, &line(&key)).and_then(|()| match fs::hard_link(&temporary, directory.join(STATE_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    let removed = fs::remove_file(&temporary);
    linked.and(removed)?;
    File::open(directory)?.sync_all()
}

/// Writes a file under a name of its own, then gives it the real name, and has both on the disk.
fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = temporary(directory, name)?;
    let renamed = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    File::open(directory)?.sync_all()
}

fn temporary(directory: &Path, name: &str) -> io::Result<PathBuf> {
    Ok(directory.join(format!(".{name}.{:016x}", getrandom::u64().map_err(io::Error::other)?)))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn line(key: &MasterKey) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(65));
    line.push_str(&key.to_hex());
    line.push('\n');
    line
}

#[cfg(test)]
pub mod tests;
