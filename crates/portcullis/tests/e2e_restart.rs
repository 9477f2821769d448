//! Programs that outlive the process: a restart, orderly or not, that no client notices but by waiting.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use support::clients::Clients;
use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4, echo, exchange, expect_without_reset, run_ahead};
use testnet::{Flags, Signal, eventually, isolated};

/// A server whose doors outlive their processes.
struct Site {
    lab: Lab,
    scratch: Scratch,
    config: PathBuf,
    pins: PathBuf,
}

impl Site {
    /// `None` where the tests were told to do without the rights in the initial user namespace.
    fn new() -> Option<Site> {
        if std::env::var("TESTNET_USER_NAMESPACE").is_ok_and(|value| value == "1") {
            println!("skipped, because TESTNET_USER_NAMESPACE=1: no eBPF there");
            return None;
        }
        let (lab, scratch) = (Lab::new(), Scratch::new());
        let pins = bpffs(&scratch);
        let config = format!(
            "datapath = \"bpf\"\nbpf_pins = \"{}\"\n\
             [[listener]]\nname = \"web\"\nbind = [\"[::]:{PORT}\"]\nservice = \"echo\"\n",
            pins.display()
        );
        let config = scratch.file("portcullis.toml", &config);
        Some(Site { lab, scratch, config, pins })
    }

    fn open(&self) -> Door {
        Door::with_stderr(&self.lab, std::io::stderr(), &self.config, &["--datapath", "bpf"])
    }

    /// What is pinned, by name.
    fn pinned(&self) -> Vec<String> {
        let entries = |dir: &Path| {
            let entries = std::fs::read_dir(dir).expect("read a directory of the bpffs");
            entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
        };
        // A bpffs has two files of its own.
        let listeners = entries(&self.pins).into_iter().filter(|path| path.is_dir());
        listeners
            .flat_map(|dir| entries(&dir))
            .map(|path| path.file_name().expect("a name").display().to_string())
            .collect()
    }
}

/// A bpffs of this thread's own, and of the processes it starts.
fn bpffs(scratch: &Scratch) -> PathBuf {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare a mount namespace: root is needed");
    let dir = scratch.dir("bpf");
    mount(&["--make-rprivate", "/"]);
    mount(&["-t", "bpf", "bpf", dir.to_str().expect("ours")]);
    dir
}

fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().expect("run mount");
    assert!(status.success(), "mount {arguments:?}: {status}");
}

#[test]
fn every_client_is_served_while_the_process_is_replaced() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        let clients = Clients::default();
        let mut door = site.open();
        thread::scope(|scope| {
            let _until = clients.come(scope, &site.lab.client, BOTH.into_iter().chain(BOTH));
            for _ in 0..3 {
                clients.wait_for(50);
                door.signal(Signal::SIGTERM);
                assert!(door.wait(PATIENCE).success());
                door = site.open();
            }
        });
        door.expect_states(&[]);
    });
}

#[test]
fn a_handshake_that_ends_while_no_process_runs_is_a_connection_of_the_next_one() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        for (number, (server, timestamps)) in BOTH.into_iter().flat_map(|s| [(s, true), (s, false)]).enumerate() {
            let host = site.lab.raw_host(server);
            let script = |port: u16| {
                let script = host.script(port + number as u16, server);
                if timestamps { script.with_timestamps(1_000_000) } else { script }
            };
            let (mut silent, mut eager, mut late) = (script(2000), script(3000), script(4000));
            let door = site.open();
            for early in [&mut silent, &mut eager] {
                early.syn();
                early.expect_syn_ack();
            }
            door.kill();
            // Nobody is there: SYNs are answered, and nothing else.
            late.syn();
            late.expect_syn_ack();
            silent.ack();
            let request = eager.segment(Flags::ACK | Flags::PSH).payload(b"eager");
            eager.data(b"eager");
            late.ack();
            for script in [&mut silent, &mut eager, &mut late] {
                script.expect_silence(Duration::from_millis(200));
            }
            let door = site.open();
            eager.send(&request);
            assert_eq!(eager.expect_data(5), b"eager", "{server}");
            // Who says nothing is sent the SYN-ACK again, answers that, and is in: no other has to follow.
            for script in [&mut silent, &mut late] {
                script.expect("the SYN-ACK once more", |frame| frame.flags.is_syn_ack());
                script.ack();
            }
            let accepted = || door.metric("portcullis_connections_accepted_total");
            eventually("all are served", PATIENCE, || accepted() == 3.0);
            let repeated = door.metric("portcullis_synacks_retransmitted_total");
            assert!(repeated <= 3.0, "{server}: {repeated} SYN-ACKs to three clients");
            for script in [&mut silent, &mut late] {
                script.data(b"at last");
                assert_eq!(script.expect_data(7), b"at last", "{server}");
            }
            door.kill();
        }
    });
}

/// A client whose first segment got lost, or found no socket, may send the second before it repeats the first: Linux' tail loss probe does. That
/// one bears no cookie, and the next process's programs know of no handshake that it could belong to.
#[test]
fn what_runs_ahead_of_a_handshakes_end_is_not_refused_by_the_next_process() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        for (number, server) in (0..).zip(BOTH) {
            let host = site.lab.raw_host(server);
            let script = |port: u16| host.script(port + number, server).with_timestamps(1_000_000);
            let (mut early, mut late) = (script(2000), script(3000));
            let door = site.open();
            early.syn();
            early.expect_syn_ack();
            door.kill();
            late.syn();
            late.expect_syn_ack();
            let door = site.open();
            run_ahead(&mut early);
            run_ahead(&mut late);
            door.kill();
        }
    });
}

/// The time without a process is not its fault: the data that it repeats, ever more seldom, may well come later than the last repeated SYN-ACK.
#[test]
fn who_has_waited_longer_than_a_half_open_connection_lasts_is_not_reset_but_served() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        let text = std::fs::read_to_string(&site.config).expect("the configuration");
        std::fs::write(&site.config, text + "half_open = { synack_retries = 0 }\n").expect("write the configuration");
        let door = site.open();
        door.kill();
        let hosts = BOTH.map(|server| site.lab.raw_host(server));
        let mut clients: Vec<_> =
            hosts.iter().zip(BOTH).map(|(host, server)| host.script(2000, server).with_timestamps(1_000_000)).collect();
        let requests: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                client.syn();
                client.expect_syn_ack();
                let request = client.segment(Flags::ACK | Flags::PSH).payload(b"hello");
                client.data(b"hello");
                request
            })
            .collect();
        let door = site.open();
        eventually("nobody sends the SYN-ACKs again", PATIENCE, || {
            let timed_out = [("listener", "web"), ("reason", "timeout")];
            door.metrics().get("portcullis_half_open_removed_total", &timed_out) == Some(2.0)
        });
        for (client, request) in clients.iter_mut().zip(&requests) {
            client.send(request);
            expect_without_reset(client, b"hello");
        }
        door.kill();
    });
}

/// Half-closed by neither side: it holds its process for the whole of the deadline.
#[test]
fn the_next_process_starts_while_the_old_one_still_serves_a_connection() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        let mut old = site.open();
        let mut held = site.lab.connect(V4);
        assert_eq!(echo(&mut held, b"before").expect("a served client"), b"before");
        old.signal(Signal::SIGTERM);
        let new = site.open(); // Which waits for the old one to let go of its ports.
        for server in BOTH {
            assert_eq!(exchange(&mut site.lab.connect(server), b"hello").expect("a served client"), b"hello");
        }
        assert_eq!(echo(&mut held, b"after").expect("the old process serves its own"), b"after");
        assert!(!old.has_ended());
        drop(held);
        assert!(old.wait(PATIENCE).success());
        new.expect_states(&[]);
    });
}

#[test]
fn a_second_process_does_not_take_what_the_first_one_keeps() {
    isolated!(|| {
        let Some(site) = Site::new() else { return };
        let door = site.open();
        let text = std::fs::read_to_string(&site.config).expect("the configuration").replace("8080", "8081");
        let other = site.scratch.file("other.toml", &text);
        let log = site.scratch.file("log", "");
        let stderr = std::fs::File::create(&log).expect("open the log");
        let mut second = Door::begin(&site.lab, stderr, &other, &["--datapath", "bpf", "--admin", "none"]);
        assert_eq!(second.wait(PATIENCE).code(), Some(1));
        let log = std::fs::read_to_string(&log).expect("read the log");
        assert!(log.contains("another process keeps"), "{log}");
        assert_eq!(exchange(&mut site.lab.connect(V4), b"hello").expect("a served client"), b"hello");
        door.expect_states(&[]);
    });
}

#[test]
fn places_on_devices_that_are_gone_are_given_up() {
    isolated!(|| {
        let Some(mut site) = Site::new() else { return };
        let door = site.open();
        let places = |site: &Site| site.pinned().iter().filter(|name| name.starts_with("tc_")).count();
        assert_eq!(places(&site), 2, "of lo and srv0: {:?}", site.pinned());
        door.kill();
        assert_eq!(places(&site), 2, "they outlive the process");
        site.lab.replace_cable(|_| {});
        let door = site.open();
        assert_eq!(exchange(&mut site.lab.connect(V4), b"hello").expect("a served client"), b"hello");
        assert_eq!(places(&site), 2, "of lo and the new srv0: {:?}", site.pinned());
        door.expect_states(&[]);
    });
}
