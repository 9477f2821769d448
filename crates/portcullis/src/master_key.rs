//! Where the master key comes from.
//!
//! `--master-key-file`, else a systemd credential, else a key that is made once and kept under the state directory.

mod key_file;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use listener::MasterKey;

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

/// Finds the key, or makes it.
///
/// # Errors
/// When a file that is named is not readable, holds no key or can be read by everybody, and when a new key cannot be kept.
pub fn load(
    named: Option<Named<'_>>,
    state_dir: Option<&Path>,
    environment: &Environment,
) -> Result<MasterKey, Failure> {
    if let Some(Named { file, by }) = named {
        return key_file::read(file, environment).map_err(|why| unusable(&format!("{by} {}", file.display()), &why));
    }
    let credential = environment.credentials.as_ref().map(|directory| directory.join(CREDENTIAL));
    if let Some(credential) = credential.filter(|path| path.exists()) {
        let source = format!("$CREDENTIALS_DIRECTORY/{CREDENTIAL} ({})", credential.display());
        return key_file::read(&credential, environment).map_err(|why| unusable(&source, &why));
    }
    let configured = state_dir.map(|directory| (directory.to_owned(), "state_dir"));
    let Some((directory, by)) =
        configured.or_else(|| environment.state_directory().map(|found| (found, "the state directory")))
    else {
        let message = "there is no place to keep the master key: name a file with --master-key-file, or set state_dir";
        return Err(Failure::Runtime(message.to_owned()));
    };
    kept_in(&directory, by, environment)
}

fn unusable(source: &str, why: &str) -> Failure {
    Failure::Runtime(format!("cannot use the master key of {source}: {why}"))
}

/// The key of the state directory, made if it is not there.
fn kept_in(directory: &Path, by: &str, environment: &Environment) -> Result<MasterKey, Failure> {
    let path = directory.join(STATE_FILE);
    if !path.exists() {
        make(directory, &path).map_err(|error| {
            Failure::Runtime(format!(
                "cannot keep a master key in {by} {}: {error}\n\
                 Make the directory writable, set state_dir, or name a key with --master-key-file \
                 (`portcullis keygen` makes one).",
                directory.display()
            ))
        })?;
    }
    key_file::read(&path, environment).map_err(|why| unusable(&format!("{by} {}", path.display()), &why))
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

#[cfg(test)]
mod tests;
