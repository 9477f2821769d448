//! The command line as scripts see it: arguments in; output and exit codes out.

mod binary;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use caps::{CapSet, Capability};
use portcullis::MasterKey;
use testnet::{Namespace, Process, Signal, isolated};

use binary::{PATIENCE, Server, TempFile, code, output, own_addr, portcullis, stderr, stdout};

#[test]
fn check_of_a_good_file_is_0() {
    let file = TempFile::new("[[listener]]\nbind = [\"127.0.0.1:80\", \"[::1]:80\"]\n");
    let output = output(&["check", file.path()]);
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output), format!("{}: good, 1 listener\n", file.path()));
}

#[test]
fn check_of_a_bad_file_is_2_with_every_error_on_a_line_of_its_own() {
    let file = TempFile::new("workers = 9999\n[[listener]]\nbinds = []\n");
    let output = output(&["check", file.path()]);
    assert_eq!(code(&output), 2);
    let text = stderr(&output);
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(file.path()).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with(":1:11: workers: 9999"), "{text}");
    assert!(lines[1].starts_with(":2:1: listener.bind: missing"), "{text}");
    assert!(lines[2].starts_with(":3:1: listener.binds: unknown key"), "{text}");
    assert_eq!(lines[3], ": 3 errors");
}

#[test]
fn a_config_file_that_is_not_there_is_2() {
    for args in [["check", "/nonexistent"], ["--config", "/nonexistent"]] {
        let output = output(&args);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("/nonexistent: cannot read"), "{}", stderr(&output));
    }
}

#[test]
fn run_with_a_bad_file_says_what_check_says() {
    let file = TempFile::new("workers = 9999\n");
    let (check, run) = (output(&["check", file.path()]), output(&["run", "--config", file.path()]));
    assert_eq!(code(&run), 2);
    assert_eq!(stderr(&run), stderr(&check));
}

#[test]
fn the_printed_default_passes_the_check() {
    let default = output(&["config", "--print-default"]);
    assert_eq!(code(&default), 0);
    let file = TempFile::new(&stdout(&default));
    assert_eq!(code(&output(&["check", file.path()])), 0);
}

#[test]
fn keygen_makes_a_new_master_key_each_time() {
    let keys = [(); 2].map(|()| stdout(&output(&["keygen"])));
    for key in &keys {
        assert_eq!(key.len(), 65);
        MasterKey::from_hex(key).unwrap();
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn bad_usage_is_2_and_names_flag_and_value() {
    for (args, parts) in [
        (vec!["--frobnicate"], vec!["--frobnicate"]),
        (vec!["frobnicate"], vec!["frobnicate"]),
        (vec!["run", "--half-open", "0"], vec!["--half-open", "'0'", "1 to 4194304"]),
        (vec!["run", "--listen", "127.0.0.1:0"], vec!["--listen", "127.0.0.1:0", "1 to 65535"]),
        (vec!["--listen", "[::1]:80", "--listen", "[::]:80"], vec!["--listen", "[::]:80", "overlaps"]),
        (vec!["--admin", "127.0.0.1:8080"], vec!["--admin", "127.0.0.1:8080", "overlaps"]),
    ] {
        let output = output(&args);
        assert_eq!(code(&output), 2, "{args:?}");
        for part in parts {
            assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        }
    }
}

#[test]
fn help_is_0_and_documents_the_exit_codes() {
    for args in [["--help"].as_slice(), &["run", "--help"]] {
        let output = output(args);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("77  CAP_NET_RAW or CAP_NET_ADMIN is missing"), "{}", stdout(&output));
    }
}

#[test]
fn without_the_capabilities_it_is_77_with_remedy_and_way_out() {
    for datapath in ["auto", "raw"] {
        let addr = own_addr(8080).to_string();
        // A capability that is not in the bounding set is not gained by exec, not even by root. The set is the thread's.
        let output = thread::spawn(move || {
            for capability in [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN] {
                // Without CAP_SETPCAP it cannot be dropped; but who lacks that one lacks the others as well.
                let _ = caps::drop(None, CapSet::Bounding, capability);
            }
            portcullis(&["--datapath", datapath, "--listen", &addr]).output().unwrap()
        });
        let output = output.join().unwrap();
        let text = stderr(&output);
        assert_eq!(code(&output), 77, "{text}");
        let setcap = format!("sudo setcap cap_net_raw,cap_net_admin+ep {}", env!("CARGO_BIN_EXE_portcullis"));
        for part in ["CAP_NET_RAW", "CAP_NET_ADMIN", &setcap, "not even root can have", "--datapath kernel"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn an_address_in_use_is_1_and_named() {
    let holder = TcpListener::bind(own_addr(0)).unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    let output = output(&["--datapath", "kernel", "--listen", &addr, "--admin", "none"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&addr) && stderr(&output).contains("in use"), "{}", stderr(&output));
    drop(holder);
}

#[test]
fn an_admin_address_in_use_is_1_and_named() {
    let holder = TcpListener::bind(own_addr(0)).unwrap();
    let admin = holder.local_addr().unwrap().to_string();
    let listen = own_addr(8080).to_string();
    let output = output(&["--datapath", "kernel", "--listen", &listen, "--admin", &admin]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&admin) && stderr(&output).contains("in use"), "{}", stderr(&output));
}

/// A key file with this mode.
fn key_file(mode: u32) -> TempFile {
    let file = TempFile::new(&format!("{}\n", "42".repeat(32)));
    fs::set_permissions(&file.0, Permissions::from_mode(mode)).unwrap();
    file
}

/// Runs to the end without a capability, which exec does not give back, not even to root.
fn output_without(capability: Capability, args: &[&str]) -> Output {
    // The bounding set is the thread's.
    thread::scope(|scope| {
        let without = scope.spawn(|| {
            caps::drop(None, CapSet::Bounding, capability).unwrap();
            portcullis(args).output().unwrap()
        });
        without.join().unwrap()
    })
}

/// Starts it, reads standard error up to the last line of the start, and ends it.
fn lines_of_start(mut command: Command) -> Vec<String> {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer);
    let process = Process::spawn(command).unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        lines.push(line);
        if lines.last().is_some_and(|line| line.contains("  stop ")) {
            break;
        }
    }
    drop(process);
    lines
}

/// The command, under a limit of open files.
fn limited(descriptors: u32, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_portcullis")]);
    command.args(args).stdin(Stdio::null());
    command
}

#[test]
fn a_file_that_is_no_text_is_2_with_the_place() {
    let file = TempFile::new("");
    fs::write(&file.0, b"workers = 1\n# \xff\n").unwrap();
    for args in [["check", file.path()], ["--config", file.path()]] {
        let output = output(&args);
        assert_eq!(code(&output), 2);
        let place = format!("{}:2:3: the byte 0xff at offset 14 is not UTF-8", file.path());
        assert!(stderr(&output).starts_with(&place), "{}", stderr(&output));
    }
}

#[test]
fn a_low_port_of_the_kernel_tier_is_77_with_what_helps_there() {
    isolated!(|| {
        for (listen, admin) in [("127.0.0.1:80", "none"), ("127.0.0.1:8080", "127.0.0.1:80")] {
            let args = ["--datapath", "kernel", "--listen", listen, "--admin", admin];
            let output = output_without(Capability::CAP_NET_BIND_SERVICE, &args);
            let text = stderr(&output);
            assert_eq!(code(&output), 77, "{text}");
            for part in ["127.0.0.1:80", "setcap cap_net_bind_service+ep", "net.ipv4.ip_unprivileged_port_start=80"] {
                assert!(text.contains(part) && !text.contains("CAP_NET_RAW"), "{part}: {text}");
            }
        }
    });
}

#[test]
fn what_the_kernel_tier_ignores_is_said_in_one_line() {
    let listen = own_addr(8080).to_string();
    let kernel = ["--datapath", "kernel", "--listen", &listen, "--admin", "127.0.0.1:0"];
    let ignored = ["--half-open", "7", "--interface", "lo", "--master-key-file", "/nonexistent"];
    let lines = lines_of_start(portcullis(&[kernel, ignored].concat()));
    let told: Vec<_> = lines.iter().filter(|line| line.contains("ignores")).collect();
    assert_eq!(told.len(), 1, "{lines:#?}");
    assert!(told[0].contains("ignores half_open, master_key_file, interfaces:"), "{told:?}");
}

#[test]
fn a_hook_beside_a_datapath_without_programs_is_2_and_says_what_is_legal() {
    for datapath in ["raw", "kernel"] {
        let output = output(&["--datapath", datapath, "--bpf-hook", "tc", "--admin", "none"]);
        let text = stderr(&output);
        assert_eq!(code(&output), 2, "{text}");
        for part in ["--bpf-hook", "'tc'", &format!("datapath {datapath}"), "legal: auto, or datapath bpf or auto"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_key_file_that_everybody_can_read_is_1_with_the_remedy() {
    isolated!(|| {
        let file = key_file(0o644);
        let output = output(&["--admin", "none", "--master-key-file", file.path()]);
        assert_eq!(code(&output), 1);
        let (source, remedy) = (format!("--master-key-file {}", file.path()), format!("chmod 600 {}", file.path()));
        assert!(stderr(&output).contains(&source) && stderr(&output).contains(&remedy), "{}", stderr(&output));
    });
}

#[test]
fn a_limit_of_open_files_that_is_too_small_is_1_and_a_small_one_is_told() {
    let listen = own_addr(8080).to_string();
    let args = ["--datapath", "kernel", "--listen", &listen, "--admin", "127.0.0.1:0"];
    let output = limited(60, &args).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("limit of open files, 60, leaves none"), "{}", stderr(&output));

    let upstream = own_addr(8081).to_string();
    let lines = lines_of_start(limited(300, &[&args[..], &["--upstream", &upstream]].concat()));
    let line = lines.iter().find(|line| line.contains("serving at most")).expect("a line about the limit");
    let max: usize = line.split_once("at most ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let queue: usize = line.split_once("with ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    // Two for each connection, one for each that waits, and 32 clients of the admin server.
    assert!(2 * max + queue + 32 < 300, "{line}");
    assert!(max > 50, "{line}");
}

#[test]
fn sighup_without_a_file_changes_nothing_and_says_so() {
    let mut server = Server::start(&[]);
    for _ in 0..2 {
        server.process.signal(Signal::SIGHUP);
        server.line("started without --config");
    }
    drop(server.connect());
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}

/// Starts the raw tier on this address.
fn raw(listen: SocketAddr, key: &TempFile, fail_closed: bool) -> Server {
    let file = TempFile::new(&format!(
        "datapath = \"raw\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\nmaster_key_file = \"{}\"\n\
         [[listener]]\nbind = [\"{listen}\"]\nservice = \"echo\"\nfail_closed = {fail_closed}\n",
        key.path()
    ));
    Server::spawn(portcullis(&["--config", file.path()]), listen)
}

#[test]
fn a_rule_that_a_crash_left_is_cleared_by_whoever_takes_the_port_over() {
    isolated!(|| {
        let key = key_file(0o600);
        let tables = || Namespace::current().output("nft", "list tables");
        let crash = |mut server: Server| {
            server.process.signal(Signal::SIGKILL);
            server.process.wait(PATIENCE).expect("it ends");
        };
        let [one, other, all]: [SocketAddr; 3] =
            ["127.0.0.1:8080", "127.0.0.2:8080", "0.0.0.0:8080"].map(|addr| addr.parse().unwrap());
        let lives_on = raw("127.0.0.1:8081".parse().unwrap(), &key, true);
        crash(raw(one, &key, true));
        crash(raw(other, &key, true));
        for port in ["127_0_0_1_8080", "127_0_0_2_8080", "127_0_0_1_8081"] {
            assert!(tables().contains(&format!("portcullis_{port}\n")), "{}", tables());
        }
        crash(raw(all, &key, true));
        assert_eq!(tables().matches("_8080").count(), 1, "taken over: {}", tables());
        drop(raw(one, &key, false));
        assert_eq!(tables().matches("_8080").count(), 0, "cleared: {}", tables());
        assert_eq!(tables().matches("_8081").count(), 1, "that of a live one is left alone: {}", tables());
        drop(lives_on);
    });
}

#[test]
fn a_want_of_descriptors_is_told_and_survived() {
    isolated!(|| {
        let key = key_file(0o600);
        let mut server = raw("127.0.0.1:8080".parse().unwrap(), &key, false);
        // From now on, none more.
        let limit = format!("--nofile={0}:{0}", server.process.open_descriptors());
        let pid = server.process.pid().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
        let connections: Vec<_> = (0..20).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
        server.line("out of file descriptors");
        drop(connections);
        assert!(!server.process.has_ended());
    });
}
