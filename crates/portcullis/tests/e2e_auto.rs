//! Which datapath `auto` takes, and what it says when that is not the best one.

mod support;

use std::fs;

use nix::unistd::geteuid;
use support::{BOTH, Door, Lab, Scratch, exchange};
use testnet::isolated;

/// Starts with `--datapath auto`, checks that it serves by this tier, and returns what it logged.
fn serve_by(tier: &str, lab: &Lab, arguments: &[&str]) -> String {
    let scratch = Scratch::new();
    let config = scratch.file("portcullis.toml", "[[listener]]\nbind = [\"[::]:8080\"]\nservice = \"echo\"\n");
    let log = scratch.file("log", "");
    let stderr = fs::File::create(&log).expect("open the log");
    let door = Door::with_stderr(lab, stderr, &config, &[&["--datapath", "auto"], arguments].concat());
    let info = door.metrics().by_label("portcullis_build_info", "datapath");
    assert_eq!(info.keys().collect::<Vec<_>>(), [tier]);
    for server in BOTH {
        assert_eq!(exchange(&mut lab.connect(server), b"hello").expect("a served client"), b"hello");
    }
    fs::read_to_string(&log).expect("read the log")
}

/// Whether these tests have, in the initial user namespace, the rights that eBPF takes.
fn may_load_programs() -> bool {
    let outside = fs::read_to_string("/proc/self/uid_map").expect("read the id map");
    let whole = outside.split_whitespace().eq(["0", "0", "4294967295"]);
    geteuid().is_root() && whole
}

#[test]
fn auto_takes_programs_in_the_kernel_where_they_may_be_loaded_and_packet_sockets_where_not() {
    isolated!(|| {
        let lab = Lab::new();
        if may_load_programs() {
            let log = serve_by("bpf", &lab, &[]);
            assert!(!log.contains("does not work here"), "{log}");
        } else {
            let log = serve_by("raw", &lab, &[]);
            assert_eq!(log.matches("bpf does not work here").count(), 1, "{log}");
            assert!(log.contains("CAP_BPF and CAP_PERFMON in the initial user namespace"), "{log}");
        }
    });
}

#[test]
fn auto_says_in_one_line_that_the_kernel_takes_no_cookies() {
    isolated!(|| {
        let lab = Lab::new();
        lab.server.sysctl("net.ipv4.tcp_syncookies", "0");
        let log = serve_by("raw", &lab, &[]);
        let told: Vec<_> = log.lines().filter(|line| line.contains("bpf does not work here")).collect();
        assert_eq!(told.len(), 1, "{log}");
        if may_load_programs() {
            assert!(told[0].contains("net.ipv4.tcp_syncookies is 0; it must be 1 or 2"), "{log}");
        }
    });
}

#[test]
fn auto_with_a_driver_that_is_asked_too_much_names_the_device() {
    isolated!(|| {
        let lab = Lab::new();
        // Frames that a program in a driver would not have in one piece.
        lab.client.ip("link set cli0 mtu 9000");
        let log = serve_by("raw", &lab, &["--bpf-hook", "xdp"]);
        assert_eq!(log.matches("bpf does not work here").count(), 1, "{log}");
        if may_load_programs() {
            assert!(log.contains("srv0: "), "{log}");
        }
    });
}
