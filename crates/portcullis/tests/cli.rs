//! The command line as scripts see it: arguments in; output and exit codes out.

mod binary;

use std::net::TcpListener;
use std::thread;

use caps::{CapSet, Capability};
use portcullis::MasterKey;

use binary::{TempFile, code, output, own_addr, portcullis, stderr, stdout};

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
        for part in ["CAP_NET_RAW", "CAP_NET_ADMIN", &setcap, "--datapath kernel"] {
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
