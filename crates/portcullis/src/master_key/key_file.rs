//! A file with a master key: what it must be, who may read it, and its text.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use listener::MasterKey;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::Environment;
use crate::rights::shell_quoted;

/// Reads the key of a file that exists.
///
/// # Errors
/// Why not, as the end of a sentence that has named the file.
pub fn read(path: &Path, environment: &Environment) -> Result<MasterKey, String> {
    let text = read_text(path, environment)?;
    MasterKey::from_hex(&text).map_err(|error| error.to_string())
}

/// Reads the text of such a file.
///
/// # Errors
/// The same.
pub fn read_text(path: &Path, environment: &Environment) -> Result<Zeroizing<String>, String> {
    let (file, metadata) = open(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        let kind = kind(&metadata);
        return Err(format!("it is {kind}; legal: a regular file, which no pipe and no process substitution is"));
    }
    match exposure(&metadata) {
        _ if environment.is_credential(path) => {}
        Exposure::None => {}
        Exposure::Group => tracing::warn!(
            "the master key in {} can be read by group {} (mode {:04o}): unless that is meant, chmod 600 {}",
            path.display(),
            metadata.gid(),
            metadata.mode() & 0o7777,
            shell_quoted(path)
        ),
        Exposure::Others => {
            return Err(format!(
                "others can read or change it (mode {:04o}), and who knows the key can forge cookies\n\
                 Close it to them, and make a new key if somebody may have seen this one:\n  \
                 chmod 600 {}",
                metadata.mode() & 0o7777,
                shell_quoted(path)
            ));
        }
    }
    read_bounded(file).map_err(|error| error.to_string())
}

/// Opens whatever it is, without waiting: a FIFO has nobody at its other end, and a terminal has somebody who does not type.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() => "a character device",
        () if kind.is_block_device() => "a block device",
        () => "no regular file",
    }
}

/// Who beside the owner can get at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposure {
    None,
    /// The group may read, which can be meant: a secret volume of Kubernetes with `fsGroup` has mode 0440.
    Group,
    /// Everybody may read, or somebody else may write.
    Others,
}

/// Judged by the mode. A group bit on a file of root's own group is no exposure.
pub(super) fn exposure(metadata: &Metadata) -> Exposure {
    let mode = metadata.mode();
    if mode & 0o026 != 0 {
        return Exposure::Others;
    }
    match mode & 0o040 != 0 && metadata.gid() != 0 {
        true => Exposure::Group,
        false => Exposure::None,
    }
}

/// Reads at most a little more than a key, into memory that never moves and is wiped.
fn read_bounded(file: File) -> io::Result<Zeroizing<String>> {
    const BYTES_MAX: usize = 4096;
    let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX + 1));
    file.take(BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}
