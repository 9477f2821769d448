//! The program under the rights of the unit: another user, its capabilities and no more, and a watch on its system calls.
//!
//! The filter itself is systemd's to set, and `deploy/systemd/try` runs under it. Here what it allows is asked of `systemd-analyze`, and held
//! against what the program was seen to call, which needs no service manager.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use testnet::{Process, eventually, isolated};

use super::support::{BINARY, Lab, PATIENCE, V4, echo};
use super::unit::{DROP_IN, SERVICE, value, values};
use super::{said_by, text_of};

/// Some user that owns nothing.
const NOBODY: &str = "65534";

/// What the filter refuses and the program does without, with EPERM.
const REFUSED: [(&str, &str); 2] = [
    ("bpf", "datapath raw: classic filters take its place"),
    ("capset", "fail_closed: nft has the capability already, from the ambient set"),
];

/// All system calls of a group of systemd's, those of its groups included.
fn group(name: &str, into: &mut BTreeSet<String>) {
    let text = said_by("systemd-analyze", "systemd", &["syscall-filter", "--no-pager", name]);
    let members = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for member in members {
        add(member, into);
    }
}

fn add(word: &str, into: &mut BTreeSet<String>) {
    if word.starts_with('@') {
        group(word, into);
    } else {
        into.insert(word.to_owned());
    }
}

/// What the lines of a filter leave: they add, or with `~` take away, in their order.
fn allowed(lines: &[String]) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in lines {
        let (removes, names) = line.strip_prefix('~').map_or((false, line.as_str()), |names| (true, names));
        let mut of_line = BTreeSet::new();
        names.split_whitespace().for_each(|name| add(name, &mut of_line));
        if removes {
            allowed = allowed.difference(&of_line).cloned().collect();
        } else {
            allowed.extend(of_line);
        }
    }
    allowed
}

/// The names in strace's table of counts, `% time seconds usecs/call calls errors syscall`, behind its lines of calls.
fn called(trace: &str) -> BTreeSet<String> {
    let (_, table) = trace.split_once("\n% time").expect("a table at the end");
    let rows = table.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    let names = rows.filter_map(|row| row.split_whitespace().last()).filter(|name| *name != "total");
    names.map(str::to_owned).collect()
}

/// Of which address families sockets were made: what stands in `socket(AF_INET, ` and `socketpair(AF_UNIX, `.
fn families(trace: &str) -> BTreeSet<String> {
    let calls =
        trace.lines().filter_map(|line| line.split_once(" socket(").or_else(|| line.split_once(" socketpair(")));
    calls.filter_map(|(_, arguments)| Some(arguments.split_once(',')?.0.to_owned())).collect()
}

/// For setpriv: `+net_raw,+net_admin`.
fn for_setpriv(capabilities: &str) -> String {
    let names = capabilities.split_whitespace().map(|name| name.strip_prefix("CAP_").expect("a capability"));
    let names: Vec<_> = names.map(|name| format!("+{}", name.to_lowercase())).collect();
    format!("-all,{}", names.join(","))
}

/// Lives from start to end under those rights: clients, a reload, a restart, the end. Returns strace's lines of
/// what was called, and its table of counts.
fn live(capabilities: &str, datapath: &str) -> String {
    let lab = Lab::new();
    // Where anybody may go, whoever checked the repository out.
    let home = std::env::temp_dir().join(format!("portcullis-rights-{}-{datapath}", std::process::id()));
    let home = Removed(home);
    fs::create_dir(&home.0).expect("a directory");
    fs::set_permissions(&home.0, Permissions::from_mode(0o777)).expect("open it");
    let program = home.0.join("portcullis");
    fs::copy(BINARY, &program).expect("copy the program");
    let config = home.0.join("portcullis.toml");
    let write = |service: &str| {
        let fail_closed = datapath == "raw";
        let text = format!(
            "datapath = \"{datapath}\"\n[[listener]]\nname = \"web\"\nbind = [\"{V4}\"]\nservice = \"{service}\"\nfail_closed = {fail_closed}\n"
        );
        fs::write(&config, text).expect("write the configuration");
    };
    write("discard");

    let capabilities = for_setpriv(capabilities);
    // A bpffs of the user's own in the usual place, as the drop-in has it, that only the program sees.
    let mut command = lab.server.command("unshare");
    let mount = format!("mount -t bpf -o mode=0700,uid={NOBODY},gid={NOBODY} bpf /sys/fs/bpf && exec setpriv \"$@\"");
    command.args(["--mount", "sh", "-c", &mount, "setpriv"]);
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"]);
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.args([set, &capabilities]);
    }
    command.args(["strace", "--follow-forks", "--summary", "--output"]).arg(home.0.join("trace")).arg(&program);
    command.args(["run", "--config"]).arg(&config);
    command.env("STATE_DIRECTORY", &home.0).env("RUNTIME_DIRECTORY", &home.0).stdin(Stdio::null());
    let mut process = Process::spawn(command).expect("setpriv and strace (Debian packages util-linux, strace)");

    let ctl = |verb: &str| -> String {
        let mut command: Command = lab.server.command(BINARY);
        command.args(["ctl", verb, "--socket"]).arg(home.0.join("control.sock")).stdin(Stdio::null());
        let output = command.output().expect("ctl");
        assert!(output.status.success(), "ctl {verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("it serves", PATIENCE, || {
        assert!(!process.has_ended(), "it ended before it served; its last words are above");
        is_ready(&lab)
    });
    assert!(ctl("status").contains(&format!("datapath       {datapath},")), "{}", ctl("status"));
    write("echo");
    assert!(ctl("reload").contains("1 changed"));
    let mut stream = lab.connect(V4);
    assert_eq!(echo(&mut stream, b"one").expect("echo"), b"one");
    assert!(ctl("restart").contains("has taken over"));
    assert_eq!(echo(&mut stream, b"two").expect("echo by the process before"), b"two");
    drop(stream);
    let mut stream = lab.connect(V4);
    assert_eq!(echo(&mut stream, b"three").expect("echo by its successor"), b"three");
    drop(stream);
    ctl("drain");
    // strace ends with the last process that it follows.
    let status = process.wait(PATIENCE).expect("it ends");
    assert!(status.success(), "{status}");
    fs::read_to_string(home.0.join("trace")).expect("strace's output")
}

fn is_ready(lab: &Lab) -> bool {
    let admin = "127.0.0.1:9464".parse().expect("an address");
    matches!(testnet::http_get(&lab.server, admin, "/readyz"), Ok((200, _)))
}

/// A directory that goes with its handle.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn expect_within_filter(called: &BTreeSet<String>, lines: &[String], refused: &[(&str, &str)]) {
    let allowed = allowed(lines);
    assert!(called.len() > 40 && called.contains("setsockopt"), "strace saw little: {called:?}");
    let beyond: Vec<_> = called.difference(&allowed).collect();
    let unknown: Vec<_> = beyond.iter().filter(|name| !refused.iter().any(|(known, _)| known == **name)).collect();
    assert!(unknown.is_empty(), "called, and refused by the unit's filter: {unknown:?}");
}

#[test]
fn raw_serves_reloads_restarts_and_ends_within_the_rights_of_the_unit() {
    isolated!(|| {
        let unit = text_of(SERVICE);
        let trace = live(&value(&unit, "AmbientCapabilities"), "raw");
        let called = called(&trace);
        let allowed = value(&unit, "RestrictAddressFamilies");
        let allowed: BTreeSet<String> = allowed.split_whitespace().map(str::to_owned).collect();
        assert_eq!(allowed, families(&trace), "sockets are made of these families, and of no other");
        assert_eq!(value(&unit, "SystemCallErrorNumber"), "EPERM", "else a refusal would kill it");
        expect_within_filter(&called, &values(&unit, "SystemCallFilter"), &REFUSED);
    });
}

#[test]
fn bpf_serves_reloads_restarts_and_ends_within_the_rights_of_the_drop_in() {
    isolated!(|| {
        let (unit, drop_in) = (text_of(SERVICE), text_of(DROP_IN));
        let capabilities = [value(&unit, "AmbientCapabilities"), value(&drop_in, "AmbientCapabilities")].join(" ");
        let lines = [values(&unit, "SystemCallFilter"), values(&drop_in, "SystemCallFilter")].concat();
        let trace = live(&capabilities, "bpf");
        let called = called(&trace);
        let allowed = value(&unit, "RestrictAddressFamilies");
        let beyond: Vec<_> = families(&trace).into_iter().filter(|family| !allowed.contains(family.as_str())).collect();
        assert!(beyond.is_empty(), "sockets that the unit refuses: {beyond:?}");
        assert!(called.contains("bpf"), "{called:?}");
        expect_within_filter(&called, &lines, &[]);
    });
}

#[test]
fn filter_takes_groups_apart_in_the_order_of_its_lines() {
    let lines = ["@system-service".to_owned(), "~@privileged @resources".to_owned(), "sched_setscheduler".to_owned()];
    let allowed = allowed(&lines);
    for (name, expected) in
        [("read", true), ("sched_setscheduler", true), ("sched_setaffinity", false), ("bpf", false), ("chown", false)]
    {
        assert_eq!(allowed.contains(name), expected, "{name}");
    }
}
