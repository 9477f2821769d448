//! The program as a user meets it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use testnet::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

fn loadtest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    loadtest(arguments).output().expect("run loadtest")
}

/// A directory of this test.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a scratch directory");
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_target_without_cookies_and_room_fails_and_the_report_says_so() {
    let out = scratch("must-fail");
    let ran = output(&["run", "scenarios/must-fail.toml", "--out", out.to_str().expect("a path")]);
    assert_eq!(ran.status.code(), Some(1), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stdout).contains("FAIL"), "{}", text(&ran.stdout));
    for file in ["run.json", "report.html"] {
        assert!(fs::metadata(out.join(file)).is_ok_and(|found| found.len() > 500), "{file}");
    }
    let again =
        output(&["report", out.join("run.json").to_str().expect("a path"), "--out", out.to_str().expect("a path")]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("kernel-cookies-0"));
}

#[test]
fn a_target_that_holds_passes() {
    let out = scratch("holds");
    let scenario = out.join("holds.toml");
    let rounds = "name = \"holds\"\nseconds = 2\npass = [\"success >= 100%\"]\n[clients]\nrate = 50\n\
                  [flood]\nkind = \"syn\"\nengine = \"tx-ring\"\nrates = [0, 5000]\n";
    fs::write(&scenario, rounds).expect("write a scenario");
    let arguments = [
        "run",
        scenario.to_str().expect("a path"),
        "--alternatives",
        "portcullis-raw",
        "--out",
        out.to_str().expect("a path"),
    ];
    let ran = output(&arguments);
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
}

#[test]
fn wrong_words_are_refused_before_anything_starts() {
    for (arguments, words) in [
        (&["run"][..], "FILE"),
        (&["run", "scenarios/none.toml"], "scenarios/none.toml"),
        (&["run", "scenarios/syn-flood.toml", "--alternatives", "apache"], "apache"),
        (&["run", "scenarios/must-fail.toml", "--out", "/dev/shm/out"], "any place but /dev/shm"),
        (&["search", "--slo", "success >> 3"], "--slo"),
        (&["flood", "--target", "192.0.2.1:80"], "192.0.2.1"),
        (&["clients", "--target", "192.0.2.1:80"], "192.0.2.1"),
        (&["flood", "--target", "127.0.0.1:80", "--rate=-3"], "--rate"),
        (&["report", "/nowhere.json"], "/nowhere.json"),
    ] {
        let ran = output(arguments);
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {}", text(&ran.stderr));
        assert!(text(&ran.stderr).contains(words), "{arguments:?}: {}", text(&ran.stderr));
    }
}

/// The processes in any of these network namespaces.
fn inhabitants(namespaces: &BTreeSet<String>) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lives = |path: &Path| {
        fs::read_link(path.join("ns/net")).is_ok_and(|link| namespaces.contains(&link.to_string_lossy().into_owned()))
    };
    let paths = processes.map(|entry| entry.path()).filter(|path| lives(path));
    paths.map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default()).collect()
}

/// A lab that is kept, and its namespaces.
fn kept_lab() -> (Child, BTreeSet<String>) {
    let mut child =
        loadtest(&["lab", "--alternative", "portcullis-raw"]).stdout(Stdio::piped()).spawn().expect("a lab");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok).take(3);
    let paths = lines.filter_map(|line| Some(line.split_once("--net=")?.1.to_owned()));
    let namespaces = paths.map(|path| {
        use std::os::unix::fs::MetadataExt;
        format!("net:[{}]", fs::metadata(&path).expect("a namespace of the lab").ino())
    });
    let namespaces: BTreeSet<String> = namespaces.collect();
    (child, namespaces)
}

#[test]
fn a_lab_that_is_killed_leaves_nothing() {
    let (mut child, namespaces) = kept_lab();
    assert_eq!(namespaces.len(), 2);
    let here = inhabitants(&namespaces);
    assert!(here.iter().any(|name| name.trim() == "portcullis"), "{here:?}");
    child.kill().expect("kill -9");
    child.wait().expect("its end");
    eventually("everybody in the lab is gone", PATIENCE, || inhabitants(&namespaces).is_empty());
}
