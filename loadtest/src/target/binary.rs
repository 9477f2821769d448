//! The Portcullis under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the binary is.
#[derive(Clone, Debug)]
pub struct Binary(PathBuf);

impl Binary {
    /// The one that was asked for; else the one beside this program, which cargo, if that is who started us, builds first.
    ///
    /// # Errors
    /// When there is none: a sentence that says where one was looked for, and how to get it.
    pub fn find(asked: Option<&Path>) -> Result<Binary, String> {
        if let Some(asked) = asked {
            let found = asked.is_file().then(|| Binary(asked.to_owned()));
            return found.ok_or_else(|| format!("--portcullis {}: no such file", asked.display()));
        }
        let beside = env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
        let beside = beside.with_file_name("portcullis");
        if let Some(cargo) = env::var_os("CARGO") {
            build(&cargo, &beside)?;
        }
        let missing = || {
            format!(
                "no portcullis at {}: build it (cargo build --release -p portcullis) or name one (--portcullis FILE)",
                beside.display()
            )
        };
        beside.is_file().then(|| Binary(beside.clone())).ok_or_else(missing)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// In the profile this program was built in: the directory says which.
fn build(cargo: &std::ffi::OsStr, beside: &Path) -> Result<(), String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "portcullis", "--manifest-path", manifest]);
    if beside.parent().is_some_and(|directory| directory.ends_with("release")) {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo build --package portcullis: {status}")),
        Err(error) => Err(format!("cargo: {error}")),
    }
}
