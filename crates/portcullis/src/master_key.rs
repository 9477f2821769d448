//! Where the master key comes from.
//!
//! `--master-key-file`, else a systemd credential, else a key that is made once and kept under the state directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use listener::MasterKey;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Name of the systemd credential (`LoadCredential=portcullis.master-key:PATH`).
const CREDENTIAL: &str = "portcullis.master-key";

/// Name of the key in the state directory.
const STATE_FILE: &str = "master.key";

/// Where to look, as far as the environment decides it.
#[derive(Debug, Default)]
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

/// Finds the key, or makes it.
///
/// # Errors
/// When a file that is named is not readable or holds no key, and when a new key cannot be kept.
pub fn load(file: Option<&Path>, state_dir: Option<&Path>, environment: &Environment) -> Result<MasterKey, Failure> {
    if let Some(file) = file {
        return read(file);
    }
    let credential = environment.credentials.as_ref().map(|directory| directory.join(CREDENTIAL));
    if let Some(credential) = credential.filter(|path| path.exists()) {
        return read(&credential);
    }
    let Some(directory) = state_dir.map(Path::to_owned).or_else(|| environment.state_directory()) else {
        let message = "there is no place to keep the master key: name a file with --master-key-file, or set state_dir";
        return Err(Failure::Runtime(message.to_owned()));
    };
    kept_in(&directory)
}

/// The key of the state directory, made if it is not there.
fn kept_in(directory: &Path) -> Result<MasterKey, Failure> {
    let path = directory.join(STATE_FILE);
    if !path.exists() {
        make(directory, &path).map_err(|error| {
            Failure::Runtime(format!(
                "cannot keep a master key in {}: {error}\n\
                 Make the directory writable, set state_dir, or name a key with --master-key-file \
                 (`portcullis keygen` makes one).",
                directory.display()
            ))
        })?;
    }
    read(&path)
}

/// Makes a key under a name of its own, then gives it the real name unless another process has done so first.
///
/// So the file is whole at any moment at which it exists, and processes that start at once use one key.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let key = MasterKey::generate()?;
    let temporary = directory.join(format!(".{STATE_FILE}.{:016x}", getrandom::u64().map_err(io::Error::other)?));
    let written = write_new(&temporary, &key).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&temporary);
    written.and(removed)?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, key: &MasterKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.to_hex().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn read(path: &Path) -> Result<MasterKey, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Runtime(format!("cannot use the master key in {} (--master-key-file): {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if metadata.is_file() && exposed(&metadata) {
        let mode = metadata.permissions().mode() & 0o7777;
        tracing::warn!("the master key in {} can be read by others (mode {mode:04o}): chmod 600 it", path.display());
    }
    let text = read_bounded(file).map_err(|error| failed(&error))?;
    MasterKey::from_hex(&text).map_err(|error| failed(&error))
}

/// Whether others than the owner may read the file. systemd keeps credentials readable by root and one user through
/// an ACL, which shows as a group bit on a file of root: that is not exposure.
fn exposed(metadata: &fs::Metadata) -> bool {
    let forbidden = if metadata.uid() == 0 && metadata.gid() == 0 { 0o007 } else { 0o077 };
    metadata.permissions().mode() & forbidden != 0
}

/// Reads at most a little more than a key, into memory that never moves and is wiped.
fn read_bounded(file: File) -> io::Result<Zeroizing<String>> {
    const BYTES_MAX: usize = 4096;
    let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX + 1));
    file.take(BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
