//! Files of `/proc`, kept open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file of `/proc` that is read again and again through one descriptor.
///
/// The kernel makes the text anew whenever it is read from offset 0. Kept open, so that it can be read when the process has
/// no descriptors left, which is when somebody will look.
pub(super) struct ProcFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl ProcFile {
    /// Opens the file; if that fails, each read tries again.
    pub(super) fn new(path: impl Into<PathBuf>) -> ProcFile {
        let path = path.into();
        ProcFile { file: File::open(&path).ok(), path, buffer: vec![0; SIZE_MAX_BYTES] }
    }

    /// The text as it is now.
    ///
    /// # Errors
    ///
    /// The kernel's; `InvalidData` if the text is not UTF-8 or larger than 64 KiB.
    pub(super) fn read(&mut self) -> io::Result<&str> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path).map_err(|error| named(&self.path, &error))?),
        };
        let mut filled = 0;
        loop {
            match file.read_at(&mut self.buffer[filled..], filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(&self.path, &error)),
            }
        }
        if filled == SIZE_MAX_BYTES {
            return Err(invalid(&self.path, "over 64 KiB"));
        }
        std::str::from_utf8(&self.buffer[..filled]).map_err(|error| invalid(&self.path, &error.to_string()))
    }

    /// An error for a text in which something is not as it should be.
    pub(super) fn invalid(&self, what: &str) -> io::Error {
        invalid(&self.path, what)
    }
}

/// Several times what the files read here hold today.
const SIZE_MAX_BYTES: usize = 64 * 1024;

/// The same error, with the file in its message.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// An error for a file in whose text something is not as it should be.
pub(super) fn invalid(path: &Path, what: &str) -> io::Error {
    named(path, &io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_kept_open_shows_new_values() {
        let mut file = ProcFile::new("/proc/thread-self/status");
        let switches = |text: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse().unwrap()
        };
        let before = switches(file.read().unwrap());
        while switches(file.read().unwrap()) == before {
            // Each sleep is a voluntary switch, so this ends as soon as the text is made anew.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let error = ProcFile::new("/proc/no-such-file").read().unwrap_err();
        assert!(error.to_string().contains("/proc/no-such-file"));
    }
}
