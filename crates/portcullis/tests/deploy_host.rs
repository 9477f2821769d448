//! What `deploy/` has for a host, held against the program and the tools that read it: systemd, nftables, sysctl, the Debian package.
//!
//! Needs the Debian packages systemd (systemd-analyze), nftables, strace and util-linux (setpriv).

mod binary;
mod support;

#[path = "deploy_host/configuration.rs"]
mod configuration;
#[path = "deploy_host/network.rs"]
mod network;
#[path = "deploy_host/package.rs"]
mod package;
#[path = "deploy_host/rights.rs"]
mod rights;
#[path = "deploy_host/unit.rs"]
mod unit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// A file of the repository.
fn text_of(path: &str) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a tool to its end.
fn tool(program: &str, package: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("cannot run {program} (Debian package {package}): {error}"))
}

/// What a tool prints that succeeds.
fn said_by(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = tool(program, package, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}{errors}", output.status);
    text
}
