//! The program as a user meets it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testnet::{Namespace, eventually, isolated, veth};

const PATIENCE: Duration = Duration::from_secs(60);

/// As a shell starts it in the foreground: what runs in the background of a script ignores SIGINT, and so do its children.
fn loadtest(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_loadtest")]);
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
        (&["run", "scenarios/must-fail.toml", "--alternatives", "haproxy,nginx-stream"], "nginx-stream is the second"),
        (&["compare", "scenarios/must-fail.toml", "--alternatives", "haproxy,haproxy"], "haproxy is named twice"),
        (&["run", "scenarios/must-fail.toml", "--portcullis", "/nowhere"], "/nowhere: no such file"),
        (&["search", "--slo", "success >> 3"], "--slo"),
        (&["search", "--slo", "success >= 99%", "--from", "5000", "--to", "100"], "--from 5000"),
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

/// A scenario of several short rounds.
fn short_rounds(directory: &Path) -> PathBuf {
    let path = directory.join("short.toml");
    let rounds = "name = \"short\"\nseconds = 0.5\nalternatives = [\"portcullis-raw\"]\n[clients]\nrate = 20\n\
                  [flood]\nkind = \"syn\"\nrates = [0, 1000, 0, 1000, 0, 1000, 0, 1000]\n";
    fs::write(&path, rounds).expect("write a scenario");
    path
}

#[test]
fn only_those_who_are_judged_can_fail() {
    let out = scratch("judged");
    let file = out.join("judged.toml");
    for (judge, expected) in [("", 1), ("judge = [\"portcullis-raw\"]\n", 0), ("judge = [\"kernel-cookies-1\"]\n", 1)] {
        // Nobody serves more clients than come.
        let scenario = format!(
            "name = \"judged\"\nseconds = 0.5\nalternatives = [\"kernel-cookies-1\"]\npass = [\"success > 100%\"]\n{judge}\
             [clients]\nrate = 20\n[flood]\nkind = \"syn\"\nrates = [0]\n"
        );
        fs::write(&file, scenario).expect("write a scenario");
        let ran = output(&["run", file.to_str().expect("a path"), "--out", out.to_str().expect("a path")]);
        assert_eq!(ran.status.code(), Some(expected), "{judge}: {}", text(&ran.stderr));
    }
}

#[test]
fn an_interrupted_run_keeps_its_rounds() {
    let out = scratch("interrupted");
    let (json, scenario) = (out.join("run.json"), short_rounds(&out));
    let arguments = ["run", scenario.to_str().expect("a path"), "--out", out.to_str().expect("a path")];
    let mut child = loadtest(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
    eventually("a round is kept", PATIENCE, || json.exists());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a signal to our own child");
    assert!(!child.wait().expect("its end").success());
    let again = output(&["report", json.to_str().expect("a path"), "--out", out.to_str().expect("a path")]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("short: portcullis-raw"), "{}", text(&again.stdout));
}

#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let out = scratch("full");
    let scenario = short_rounds(&out);
    let arguments = ["run", scenario.to_str().expect("a path"), "--out", out.to_str().expect("a path")];
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let ran = loadtest(&arguments).stdout(full).output().expect("a run");
    assert_eq!(ran.status.code(), Some(70), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("standard output"), "{}", text(&ran.stderr));
    assert!(out.join("report.html").exists(), "files come first");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let json = out.join("run.json");
    let arguments = ["report", json.to_str().expect("a path"), "--out", out.to_str().expect("a path")];
    let ran = loadtest(&arguments).stdout(writer).output().expect("a report");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let nowhere =
        loadtest(&["run", scenario.to_str().expect("a path"), "--out", "/proc/self"]).output().expect("a run");
    assert_eq!(nowhere.status.code(), Some(70));
    assert!(text(&nowhere.stderr).contains("--out /proc/self"), "{}", text(&nowhere.stderr));
}

/// The children of a process, by their directories in `/proc`.
fn children_of(parent: u32) -> impl Iterator<Item = PathBuf> {
    let is_child = move |path: &PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == parent.to_string()))
    };
    fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path()).filter(is_child)
}

#[test]
fn a_target_that_dies_fails_its_round() {
    let out = scratch("dies");
    let scenario = out.join("dies.toml");
    let rounds = "name = \"dies\"\nseconds = 3\nalternatives = [\"portcullis-raw\"]\n[clients]\nrate = 20\n\
                  [flood]\nkind = \"syn\"\nrates = [0]\n";
    fs::write(&scenario, rounds).expect("write a scenario");
    let arguments = ["run", scenario.to_str().expect("a path"), "--out", out.to_str().expect("a path")];
    let child = loadtest(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a run");
    let target = || {
        let mut children = children_of(child.id());
        let is_it =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "portcullis");
        children.find(is_it)?.file_name()?.to_str()?.parse().ok().map(Pid::from_raw)
    };
    eventually("the target runs", PATIENCE, || target().is_some());
    std::thread::sleep(Duration::from_secs(1));
    kill(target().expect("it still runs"), Signal::SIGKILL).expect("a signal to our target");
    let ran = child.wait_with_output().expect("its end");
    assert_eq!(ran.status.code(), Some(1), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stdout).contains("the target lives; found it has ended"), "{}", text(&ran.stdout));
}

#[test]
fn a_program_without_rights_is_missing_rights() {
    let out = scratch("no-rights");
    let scenario = out.join("xdp.toml");
    let rounds = "name = \"xdp\"\nseconds = 0.5\nalternatives = [\"portcullis-raw\"]\n[clients]\nrate = 20\n\
                  [flood]\nkind = \"syn\"\nengine = \"xdp\"\nrates = [1000]\n";
    fs::write(&scenario, rounds).expect("write a scenario");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_loadtest"), "run"]);
    command.args([scenario.as_os_str(), "--out".as_ref(), out.as_os_str()]);
    let ran = command.stdin(Stdio::null()).output().expect("run loadtest");
    assert_eq!(ran.status.code(), Some(77), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stderr).contains("CAP_BPF"), "{}", text(&ran.stderr));
}

#[test]
fn what_is_not_installed_is_left_out() {
    let out = scratch("left-out");
    let scenario = short_rounds(&out);
    // A mount namespace in which nft is no file but a device, so that no program of that name is found.
    let script = "for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft; do \
                  if [ -e $nft ]; then mount --bind /dev/null $nft 2>/dev/null; fi; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_loadtest"), "compare"]);
    command.args([scenario.as_os_str(), "--out".as_ref(), out.as_os_str()]);
    command.args(["--repetitions", "1", "--alternatives", "nft-synproxy,kernel-cookies-1"]);
    let ran = command.stdin(Stdio::null()).output().expect("run loadtest");
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stderr).contains("nft-synproxy is left out: no `nft`"), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("kernel-cookies-1"), "{}", text(&ran.stdout));
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

/// The name of a network namespace, as its links in `/proc` say it.
fn namespace_name(path: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(format!("net:[{}]", fs::metadata(path).ok()?.ino()))
}

/// A lab that is kept, and its namespaces; without any, if the alternative is not to be had here.
fn kept_lab(alternative: &str) -> (Child, BTreeSet<String>) {
    let mut child = loadtest(&["lab", "--alternative", alternative])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a lab");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok).take(3);
    let paths = lines.filter_map(|line| Some(line.split_once("--net=")?.1.to_owned()));
    let namespaces = paths.map(|path| namespace_name(&path).expect("a namespace of the lab")).collect();
    (child, namespaces)
}

const ALTERNATIVES: [&str; 10] = [
    "portcullis-bpf-xdp",
    "portcullis-bpf",
    "portcullis-raw",
    "portcullis-kernel",
    "kernel-cookies-0",
    "kernel-cookies-1",
    "kernel-cookies-2",
    "nft-synproxy",
    "haproxy",
    "nginx-stream",
];

#[test]
fn a_lab_that_is_ended_by_a_signal_leaves_nothing() {
    let end_all_by = |signal: Signal| {
        let mut seen = 0;
        for alternative in ALTERNATIVES {
            let (mut child, namespaces) = kept_lab(alternative);
            if namespaces.len() == 2 {
                seen += 1;
                assert!(!inhabitants(&namespaces).is_empty(), "{alternative}");
                kill(Pid::from_raw(child.id() as i32), signal).expect("a signal to our own child");
            }
            child.wait().expect("its end");
            let gone = format!("everybody in the lab of {alternative} is gone after {signal}");
            eventually(&gone, PATIENCE, || inhabitants(&namespaces).is_empty());
        }
        assert!(seen >= 5, "{seen} alternatives served here");
    };
    std::thread::scope(|scope| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            scope.spawn(move || end_all_by(signal));
        }
    });
}

/// The network namespaces of a process's children, apart from our own.
fn namespaces_of_children(parent: u32) -> BTreeSet<String> {
    let ours = namespace_name("/proc/self/ns/net");
    let children = children_of(parent);
    let names =
        children.filter_map(|path| Some(fs::read_link(path.join("ns/net")).ok()?.to_string_lossy().into_owned()));
    names.filter(|name| Some(name) != ours.as_ref()).collect()
}

#[test]
fn a_run_that_comes_to_its_end_leaves_nothing() {
    let out = scratch("ends");
    let (out, scenario) = (out.to_str().expect("a path"), out.join("quiet.toml"));
    fs::write(
        &scenario,
        "name = \"quiet\"\nseconds = 0.5\n[clients]\nrate = 20\n[flood]\nkind = \"syn\"\nrates = [0]\n",
    )
    .expect("write a scenario");
    let mut command = loadtest(&["compare", scenario.to_str().expect("a path"), "--repetitions", "1", "--out", out]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
    let mut namespaces = BTreeSet::new();
    while child.try_wait().expect("its end").is_none() {
        namespaces.append(&mut namespaces_of_children(child.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(namespaces.len() >= 5, "{namespaces:?}");
    eventually("everybody of every round is gone", PATIENCE, || inhabitants(&namespaces).is_empty());
}

#[test]
fn a_flood_by_hand_says_when_it_does_nothing() {
    isolated!(|| {
        let here = Namespace::current();
        let flood = |more: &[&str]| {
            let mut arguments = vec!["flood", "--target", "127.0.0.1:9", "--rate", "100", "--seconds", "0.3"];
            arguments.extend(more);
            here.command(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().expect("run loadtest")
        };
        let unseen = flood(&[]);
        assert_eq!(unseen.status.code(), Some(2), "{}", text(&unseen.stdout));
        let said = text(&unseen.stderr);
        assert!(said.contains("net.ipv4.conf.lo.route_localnet=1 net.ipv4.conf.lo.accept_local=1"), "{said}");
        here.sysctl("net.ipv4.conf.lo.route_localnet", "1");
        here.sysctl("net.ipv4.conf.lo.accept_local", "1");
        assert_eq!(flood(&[]).status.code(), Some(0));
        // Nobody listens.
        let refused = flood(&["--kind", "connect"]);
        let said = text(&refused.stdout);
        assert!(said.contains("connections tried") && said.contains("\n0 were made, "), "{said}");
    });
}

#[test]
fn clients_and_floods_go_by_the_cable_of_a_lab_alone() {
    isolated!(|| {
        let (server, outside) = (Namespace::new(), Namespace::new());
        veth((&server, "srv0", &["198.18.0.1/24"]), (&outside, "out0", &["198.18.0.2/24"]));
        let code = |command: &str, kind: &[&str]| {
            let mut command = vec![command, "--target", "198.18.0.1:8080", "--seconds", "0.2"];
            command.extend(kind);
            let output = outside.command(env!("CARGO_BIN_EXE_loadtest")).args(command).output().expect("run loadtest");
            output.status.code()
        };
        let clients: &[&str] = &["--deadline", "0.5"];
        let connections: &[&str] = &["--kind", "connect", "--rate", "50"];
        // An address of a lab, by a device that is nobody's lab.
        assert_eq!(code("clients", clients), Some(2));
        assert_eq!(code("flood", connections), Some(2));
        outside.ip("link set dev out0 alias portcullis-lab");
        // Nobody listens there: the clients fail, but they went.
        assert_eq!(code("clients", clients), Some(1));
        outside.ip("route add default via 198.18.0.1");
        assert_eq!(code("clients", clients), Some(2));
        assert_eq!(code("flood", connections), Some(2));
    });
}
