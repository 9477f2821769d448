//! The unit, its drop-in, and the program that they start.

use std::collections::BTreeSet;
use std::fs;

use super::binary::{TempFile, code, output, portcullis, stdout};
use super::support::{BINARY, Scratch};
use super::{repository, said_by, text_of, tool};

pub const SERVICE: &str = "deploy/systemd/portcullis.service";
pub const DROP_IN: &str = "deploy/systemd/portcullis.service.d/bpf.conf";
const MOUNT: &str = "deploy/systemd/run-portcullis\\x2dbpf.mount";

/// The values of a key in a unit, in their order; a key may be given several times.
pub fn values(unit: &str, key: &str) -> Vec<String> {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}

/// The one value of a key.
pub fn value(unit: &str, key: &str) -> String {
    let values = values(unit, key);
    assert_eq!(values.len(), 1, "{key}= in the unit: {values:?}");
    values[0].clone()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The units as they are installed, but with the program under test in the place of the installed one.
fn installed(with_drop_in: bool) -> Scratch {
    let scratch = Scratch::new();
    let service = text_of(SERVICE).replace("/usr/bin/portcullis", BINARY);
    scratch.file("portcullis.service", &service);
    scratch.file("run-portcullis\\x2dbpf.mount", &text_of(MOUNT));
    if with_drop_in {
        scratch.dir("portcullis.service.d");
        scratch.file("portcullis.service.d/bpf.conf", &text_of(DROP_IN));
    }
    scratch
}

#[test]
fn unit_with_and_without_drop_in_is_good_to_systemd() {
    for with_drop_in in [false, true] {
        let scratch = installed(with_drop_in);
        for unit in ["portcullis.service", "run-portcullis\\x2dbpf.mount"] {
            let path = scratch.path().join(unit);
            let output = tool("systemd-analyze", "systemd", &["verify", "--man=no", path.to_str().unwrap()]);
            let errors = String::from_utf8_lossy(&output.stderr);
            // Faults that systemd would pass over at the start, such as an unknown key, are lines about the file, with exit code 0.
            let ours: Vec<_> = errors.lines().filter(|line| line.contains("portcullis")).collect();
            assert!(output.status.success() && ours.is_empty(), "{unit}: {errors}");
        }
    }
}

#[test]
fn unit_exposure_is_at_most_2_5_with_the_drop_in_too() {
    for with_drop_in in [false, true] {
        let scratch = installed(with_drop_in);
        let path = scratch.path().join("portcullis.service");
        let arguments = ["security", "--offline=true", "--threshold=25", "--no-pager", path.to_str().unwrap()];
        let report = said_by("systemd-analyze", "systemd", &arguments);
        let overall = report.lines().find(|line| line.contains("Overall exposure level"));
        let score = overall
            .and_then(|line| line.split_whitespace().rev().nth(2))
            .expect("→ Overall exposure level for ...: 2.0 OK :-)");
        let install = text_of("docs/install.md");
        let told = if with_drop_in { format!("and {score} with the drop-in") } else { format!("rates it {score},") };
        // Other versions of systemd weigh otherwise, and know more settings.
        if said_by("systemd-analyze", "systemd", &["--version"]).starts_with("systemd 252 ") {
            assert!(install.contains(&told), "{told}");
        }
    }
}

#[test]
fn unit_commands_are_commands_of_the_program() {
    let unit = text_of(SERVICE);
    let commands = [values(&unit, "ExecStart"), values(&unit, "ExecReload")].concat();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in &commands {
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("/usr/bin/portcullis"), "{command}");
        let words: Vec<_> = words.collect();
        let is_path = |word: &&&str| word.starts_with('/');
        let (subcommand, flags): (Vec<&str>, Vec<&str>) =
            words.iter().filter(|word| !is_path(word)).partition(|word| !word.starts_with("--"));
        let help = output(&[&subcommand[..], &["--help"]].concat());
        assert_eq!(code(&help), 0, "{command}");
        flags.iter().for_each(|flag| assert!(stdout(&help).contains(flag), "{command}: no {flag}"));
        for path in words.iter().filter(is_path) {
            let known = ["/etc/portcullis/portcullis.toml", "/run/portcullis/control.sock"];
            assert!(known.contains(path), "{command}: {path}");
        }
    }
    assert!(commands[1].contains(" check "), "a reload begins with a look at the file: {commands:?}");
}

#[test]
fn unit_paths_are_those_that_the_program_takes() {
    let unit = text_of(SERVICE);
    // /run/portcullis/control.sock and /var/lib/portcullis/master.key are the program's defaults under a service manager.
    for key in ["RuntimeDirectory", "StateDirectory", "LogsDirectory", "ConfigurationDirectory", "User", "Group"] {
        assert_eq!(value(&unit, key), "portcullis", "{key}=");
    }
    let defaults = stdout(&output(&["config", "--print-default"]));
    for part in ["control.sock in $RUNTIME_DIRECTORY (systemd: RuntimeDirectory=)", "Default: $STATE_DIRECTORY"] {
        assert!(defaults.contains(part), "{part}");
    }
    let sysusers = text_of("deploy/systemd/portcullis.sysusers");
    assert!(sysusers.contains("\nu portcullis - "), "{sysusers}");
}

#[test]
fn exit_codes_that_no_second_try_mends_are_not_tried_again() {
    let unit = text_of(SERVICE);
    let final_codes = words(&value(&unit, "RestartPreventExitStatus"));
    let bad = TempFile::new("no_such_key = 1\n");
    let run = |file: &TempFile| portcullis(&["run", "--config", file.path()]).output().unwrap();
    assert!(final_codes.contains(&code(&run(&bad)).to_string()), "bad configuration: {final_codes:?}");

    // Without any right, as a unit without AmbientCapabilities= would have it.
    let scratch = Scratch::new();
    let fine = TempFile::new(
        "datapath = \"raw\"\nadmin = \"none\"\ncontrol = \"none\"\n[[listener]]\nname = \"a\"\nbind = [\"127.0.0.1:8080\"]\n",
    );
    let all = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", BINARY, "run", "--config", fine.path()];
    let mut command = std::process::Command::new("setpriv");
    command.args(all).env("STATE_DIRECTORY", scratch.path());
    let refused = command.output().expect("setpriv (Debian package util-linux)");
    assert_eq!(code(&refused), 77, "{refused:?}");
    assert!(final_codes.contains("77"), "{final_codes:?}");

    // A failure that time may mend: the address is not there yet.
    let absent = TempFile::new(
        "datapath = \"kernel\"\nadmin = \"none\"\ncontrol = \"none\"\n[[listener]]\nname = \"a\"\nbind = [\"198.18.0.77:8080\"]\n",
    );
    assert_eq!(code(&run(&absent)), 1);
    assert!(!final_codes.contains("1"), "{final_codes:?}");
    assert_eq!(value(&unit, "Restart"), "on-failure");
}

#[test]
fn capabilities_are_those_of_the_table_in_the_docs() {
    let (unit, drop_in) = (text_of(SERVICE), text_of(DROP_IN));
    let operations = text_of("docs/operations.md");
    let table: Vec<Vec<&str>> = operations
        .split_once("## What it needs")
        .and_then(|(_, rest)| rest.split_once("\n## "))
        .map(|(section, _)| {
            section.lines().filter(|line| line.starts_with('|')).map(|line| line.split('|').collect()).collect()
        })
        .expect("the table of what it needs");
    let capabilities = |cell: &str| -> BTreeSet<String> {
        let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
        cell.split(|c| !is_name(c)).filter(|word| word.starts_with("CAP_")).map(str::to_owned).collect()
    };
    let named: BTreeSet<String> = table.iter().flat_map(|row| capabilities(row[1])).collect();
    // Without which it does not start: the rows of one capability each, with an exit code.
    let required: BTreeSet<String> = table
        .iter()
        .filter(|row| row[3].trim_start().starts_with("exit code 77"))
        .flat_map(|row| capabilities(row[1]))
        .collect();

    let of_unit = words(&value(&unit, "CapabilityBoundingSet"));
    let of_drop_in = words(&value(&drop_in, "CapabilityBoundingSet"));
    assert_eq!(of_unit, required, "datapath raw");
    for (text, set) in [(&unit, &of_unit), (&drop_in, &of_drop_in)] {
        assert_eq!(&words(&value(text, "AmbientCapabilities")), set, "what it may have, it has");
    }
    // Instead of CAP_SYS_NICE, which is more than is needed.
    assert_eq!(value(&unit, "LimitRTPRIO"), "1");
    assert!(values(&unit, "RestrictRealtime").is_empty(), "it would refuse what LimitRTPRIO= allows");
    let mut given: BTreeSet<String> = of_unit.union(&of_drop_in).cloned().collect();
    given.insert("CAP_SYS_NICE".to_owned());
    assert_eq!(given, named, "all that the table names");
}

/// What must stand in the unit, and what is lost without it. Other tests have derived the rest: capabilities, system calls, address families.
const MUST_STAND: [(&str, &str, &str); 16] = [
    ("Type", "notify", "active means that SYNs are answered"),
    ("NotifyAccess", "main", "READY, WATCHDOG and MAINPID are heard, of the main process alone"),
    ("LimitCORE", "0", "no key in a core file"),
    ("UMask", "0077", "what it writes is its own"),
    ("StateDirectoryMode", "0700", "nobody else sees the master key"),
    ("RuntimeDirectoryMode", "0750", "nobody else reaches the control socket"),
    ("LogsDirectoryMode", "0750", "addresses of clients are in the access log"),
    ("NoNewPrivileges", "yes", "no program gives it more"),
    ("ProtectSystem", "strict", "the system is read-only"),
    ("ProtectHome", "yes", "homes are out of sight"),
    ("PrivateTmp", "yes", "so is everybody's /tmp"),
    ("PrivateDevices", "yes", "so are devices"),
    ("ProtectProc", "invisible", "so are other processes"),
    ("ProtectKernelTunables", "yes", "CAP_NET_ADMIN changes no sysctl"),
    ("MemoryDenyWriteExecute", "yes", "no code is made of what comes in"),
    ("RestrictNamespaces", "yes", "no other network is made"),
];

/// What must not, with the reason.
const MUST_NOT_STAND: [(&str, &str); 4] = [
    ("PrivateNetwork", "its network is the host's"),
    ("PrivateUsers", "its capabilities count in the host's network"),
    ("DynamicUser", "the key and the mount of bpf.conf belong to a user that stays"),
    ("IPAddressDeny", "clients come from everywhere"),
];

#[test]
fn unit_has_each_line_that_something_rests_on() {
    let unit = text_of(SERVICE);
    for (key, expected, reason) in MUST_STAND {
        assert_eq!(value(&unit, key), expected, "{key}=: {reason}");
    }
    for (key, reason) in MUST_NOT_STAND {
        assert!(values(&unit, key).is_empty() && values(&text_of(DROP_IN), key).is_empty(), "{key}=: {reason}");
    }
}

/// The value of a key of this kind at which the program's default is.
fn default(key: &str) -> u64 {
    let defaults: toml::Table = stdout(&output(&["config", "--print-default"])).parse().unwrap();
    let number = defaults.get(key).unwrap_or_else(|| &defaults["listener"][0][key]);
    number.as_integer().unwrap().try_into().unwrap()
}

#[test]
fn times_and_limits_of_the_unit_fit_the_program() {
    let unit = text_of(SERVICE);
    let number = |key: &str| value(&unit, key).parse::<u64>().unwrap_or_else(|error| panic!("{key}=: {error}"));
    // Two descriptors for each connection of a relay, and as much again for a second listener.
    assert!(number("LimitNOFILE") >= 4 * default("connections_max"), "{}", default("connections_max"));
    // The end takes the deadline and up to ten seconds, even for a process that asks for no more time.
    assert!(number("TimeoutStopSec") >= default("shutdown_deadline_seconds") + 10);
    // It is there, and leaves time to a process on a core that is flooded.
    assert!((5..=30).contains(&number("WatchdogSec")));
    // A minute of failures in a row, as the comment says: a crash now and then must not be the last.
    assert_eq!(value(&unit, "RestartSec"), "500ms");
    assert_eq!(number("StartLimitBurst"), 60 * 1000 / 500);
    assert!(number("StartLimitIntervalSec") > 60);
}

#[test]
fn install_md_says_what_the_unit_does() {
    let (unit, install) = (text_of(SERVICE), text_of("docs/install.md"));
    let codes = value(&unit, "RestartPreventExitStatus").replace(' ', " or ");
    let minutes = value(&unit, "StartLimitIntervalSec");
    assert_eq!(minutes, "300", "five minutes, below");
    for said in [
        format!("| exit code {codes} |"),
        format!("after {} starts in five minutes", value(&unit, "StartLimitBurst")),
        format!("its watchdog ends it after {} s", value(&unit, "WatchdogSec")),
        format!("by `LimitRTPRIO={}`", value(&unit, "LimitRTPRIO")),
        format!("`/var/lib/{}/master.key`", value(&unit, "StateDirectory")),
        format!("`/run/{}/control.sock`", value(&unit, "RuntimeDirectory")),
    ] {
        assert!(install.contains(&said), "{said}");
    }
}

#[test]
fn the_drop_in_protects_by_name_what_it_takes_the_protection_of() {
    let drop_in = text_of(DROP_IN);
    let places = words(&values(&drop_in, "ReadOnlyPaths").join(" "));
    let hidden = words(&value(&drop_in, "InaccessiblePaths"));
    assert_eq!(value(&drop_in, "ProtectKernelTunables"), "no", "else the place is read-only");
    // systemd's src/core/namespace.c, protect_kernel_tunables_proc_table and _sys_table.
    for place in [
        "acpi",
        "apm",
        "asound",
        "bus",
        "fs",
        "irq",
        "latency_stats",
        "mtrr",
        "scsi",
        "sys",
        "sysrq-trigger",
        "timer_stats",
    ] {
        let place = format!("/proc/{place}");
        assert!(places.contains(&place) || places.contains(&format!("-{place}")), "{place}");
    }
    assert!(places.contains("/sys"));
    for place in ["-/proc/kallsyms", "-/proc/kcore"] {
        assert!(hidden.contains(place), "{place}");
    }
}

#[test]
fn the_drop_in_has_the_place_where_the_program_looks_for_a_bpffs() {
    let drop_in = text_of(DROP_IN);
    let mount = text_of(MOUNT);
    let place = value(&mount, "Where");
    assert_eq!(value(&drop_in, "RequiresMountsFor"), place);
    assert_eq!(value(&drop_in, "BindPaths"), format!("{place}:/sys/fs/bpf"));
    assert!(value(&mount, "Options").contains("uid=portcullis"));
    let escaped = said_by("systemd-escape", "systemd", &["--path", "--suffix=mount", &place]);
    let file = repository().join("deploy/systemd").join(escaped.trim());
    assert!(fs::exists(&file).unwrap(), "the mount unit's name follows from its place: {}", file.display());
}
