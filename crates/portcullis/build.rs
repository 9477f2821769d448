//! Finds out what the program is to say of itself: the commit of its sources, what it is compiled for, and by what.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PORTCULLIS_COMMIT");
    let unknown = || "unknown".to_owned();
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    for (name, value) in
        [("PORTCULLIS_COMMIT", commit()), ("PORTCULLIS_TARGET", env::var("TARGET").ok()), ("PORTCULLIS_RUSTC", rustc)]
    {
        println!("cargo::rustc-env={name}={}", value.unwrap_or_else(unknown));
    }
}

/// As whoever packages it says, who may have no repository; else the repository's own, of a release.
///
/// A debug build is made anew many times a day, and does not want to be for each commit.
fn commit() -> Option<String> {
    if let Some(given) = env::var("PORTCULLIS_COMMIT").ok().filter(|given| !given.is_empty()) {
        return Some(given);
    }
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // The log of HEAD grows with each commit and each checkout.
    let log = output("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

/// What a program prints, if it succeeds; without the line's end.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let done = Command::new(program).args(args).output().ok().filter(|done| done.status.success())?;
    let text = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
