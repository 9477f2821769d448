//! One process goes on in place of another: no client notices, and what fails leaves everything as it was.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use support::battlefield::Battlefield;
use support::clients::Clients;
use support::{BINARY, BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4, echo, exchange, is_raw, run_ahead};
use testnet::{FloodKind, Signal, Sources, eventually, isolated, states, take_turns};

/// Restarts in a row. A program of the bpf tier takes part of a second to load, on two busy cores seconds.
fn restarts() -> usize {
    if is_raw() { 100 } else { 25 }
}

/// A server whose process changes.
struct Site<'a> {
    lab: &'a Lab,
    config: PathBuf,
    control: PathBuf,
    /// Of the processes that nobody here has started; they are ended with this.
    successors: Vec<u32>,
    _scratch: Scratch,
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab) -> Site<'a> {
        let scratch = Scratch::new();
        let control = scratch.dir("run").join("control.sock");
        let mut site = Site {
            lab,
            config: scratch.file("portcullis.toml", ""),
            control,
            successors: Vec::new(),
            _scratch: scratch,
        };
        site.configure("");
        site
    }

    /// With these lines more, for the listener.
    fn configure(&mut self, more: &str) {
        let text = format!(
            "control = \"{}\"\nshutdown_deadline_seconds = 600\n\
             [[listener]]\nname = \"web\"\nbind = [\"[::]:{PORT}\"]\nservice = \"echo\"\n\
             timeouts = {{ drain_idle_seconds = 0 }}\n{more}",
            self.control.display()
        );
        fs::write(&self.config, text).expect("write the configuration");
    }

    fn open(&self, arguments: &[&str]) -> Door {
        Door::with_stderr(self.lab, std::io::stderr(), &self.config, arguments)
    }

    fn ctl(&self, verb: &[&str]) -> Output {
        let mut command = self.lab.server.command(BINARY);
        command.arg("ctl").args(verb).arg("--json").arg("--socket").arg(&self.control);
        command.output().expect("run ctl")
    }

    /// Has another process take over.
    fn restart(&mut self) -> u32 {
        let output = self.ctl(&["restart"]);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let pid = answer["pid"].as_u64().expect("a process number") as u32;
        self.successors.push(pid);
        pid
    }

    /// What keeps it from restarting.
    fn refused(&self) -> String {
        let output = self.ctl(&["restart"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// Ends the process that serves now, and what is still connected to it.
    fn end(&mut self) {
        let last = self.successors.last().copied().expect("a successor");
        eventually("the last process ends", PATIENCE, || {
            // The second signal ends connections that nobody closes.
            let told = kill(pid(last), Signal::SIGTERM);
            told.is_err() || !lives(last)
        });
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        for &successor in &self.successors {
            // Most have ended. A number that is somebody else's by now is not this program's.
            if lives(successor) {
                let _ = kill(pid(successor), Signal::SIGKILL);
            }
        }
    }
}

/// Directories for programs to pass through, of processes that have no use for them.
fn passing() -> usize {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    let unlocked = |path: PathBuf| fs::File::open(path).is_ok_and(|dir| listener::io::lock_file(dir).is_ok());
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("portcullis-")))
        .filter(|entry| unlocked(entry.path()))
        .count()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32)
}

/// Whether a process of this number runs this program.
fn lives(number: u32) -> bool {
    let is_ours = |file: PathBuf| file.file_name() == Path::new(BINARY).file_name();
    fs::read_link(format!("/proc/{number}/exe")).is_ok_and(is_ours)
}

#[test]
fn a_hundred_restarts_under_a_flood_cost_no_client_anything() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let mut site = Site::new(&field.lab);
        let mut door = site.open(&[]);
        let resets = support::kernel_resets(&field.lab.server);
        let mut held = field.lab.connect(V4);
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        let clients = Clients::default();
        thread::scope(|scope| {
            let _until = clients.come(scope, &field.lab.client, BOTH.into_iter().chain(BOTH));
            for _ in 0..restarts() {
                clients.wait_for(5);
                site.restart();
            }
        });
        println!("{} clients, {:.0} SYNs/s of the flood", clients.served(), flood.stop().rate());
        if is_raw() {
            assert_eq!(support::kernel_resets(&field.lab.server) - resets, 0, "the server's kernel sent RST");
        }
        // The first process still serves what it accepted, and ends with it.
        assert_eq!(echo(&mut held, b"all the while").expect("a held client"), b"all the while");
        assert!(!door.has_ended());
        drop(held);
        assert!(door.wait(PATIENCE).success());
        site.end();
    });
}

#[test]
fn a_handshake_under_way_is_finished_by_the_successor() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let _door = site.open(&[]);
        for (number, server) in (0..).zip(BOTH) {
            let host = lab.raw_host(server);
            let script = |port: u16| host.script(port + number, server);
            let (mut eager, mut silent) = (script(2000).with_timestamps(1_000_000), script(3000));
            for script in [&mut eager, &mut silent] {
                script.syn();
                script.expect_syn_ack();
            }
            site.restart();
            eager.data(b"eager");
            assert_eq!(eager.expect_data(5), b"eager", "{server}");
            // It has an entry, which the successor has now, and its timer: the SYN-ACK comes again.
            silent.expect("the SYN-ACK once more", |frame| frame.flags.is_syn_ack());
            silent.ack();
            silent.data(b"at last");
            assert_eq!(silent.expect_data(7), b"at last", "{server}");
        }
        site.end();
    });
}

#[test]
fn a_handshake_outlives_a_restart_with_another_key() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let door = site.open(&[]);
        let host = lab.raw_host(V4);
        let mut clients = [2000, 2001, 2002].map(|port| host.script(port, V4).with_timestamps(1_000_000));
        for client in &mut clients {
            client.syn();
            client.expect_syn_ack();
        }
        door.replace_key(&"43".repeat(32));
        // One of them keeps its entry; the others have their cookies.
        site.configure("half_open = { max = 1 }\n");
        site.restart();
        site.restart();
        for client in &mut clients {
            client.data(b"still good");
            assert_eq!(client.expect_data(10), b"still good");
        }
        site.end();
    });
}

/// The successor's programs have not seen its SYN.
#[test]
fn what_runs_ahead_of_a_handshakes_end_is_not_refused_by_the_successor() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let _door = site.open(&[]);
        for server in BOTH {
            let host = lab.raw_host(server);
            let mut client = host.script(2000, server).with_timestamps(1_000_000);
            client.syn();
            client.expect_syn_ack();
            site.restart();
            run_ahead(&mut client);
        }
        site.end();
    });
}

/// A successor has its lists before it judges the first packet.
#[test]
fn a_denied_client_gets_no_syn_ack_while_processes_change() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let scratch = Scratch::new();
        let deny = scratch.file("deny", "198.18.0.77\n2001:db8::77\n");
        site.configure(&format!("limits = {{ deny_files = [\"{}\"], at_limit = \"silent\" }}\n", deny.display()));
        let _door = site.open(&[]);
        let clients = Clients::default();
        thread::scope(|scope| {
            let until = clients.come(scope, &lab.client, [V4]);
            let knocking = BOTH.map(|server| {
                let (lab, clients) = (&lab, &clients);
                scope.spawn(move || {
                    let host = lab.raw_host(server);
                    for port in (2000..60_000).take_while(|_| !clients.are_stopped()) {
                        host.script(port, server).syn();
                        let answer =
                            host.tap().find(Duration::from_millis(1), |frame| frame.dst.ip() == host.endpoint(0).ip());
                        assert!(answer.is_none(), "{answer:?}");
                    }
                })
            });
            for _ in 0..restarts().min(10) {
                clients.wait_for(1);
                site.restart();
            }
            drop(until);
            knocking.into_iter().for_each(|thread| thread.join().expect("no answer to a denied client"));
        });
        site.end();
    });
}

#[test]
fn whoever_cannot_take_over_leaves_everything_as_it_was() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let mut door = site.open(&[]);
        let serves = || exchange(&mut lab.connect(V4), b"hello").is_ok_and(|back| back == b"hello");
        // A configuration with a fault is found before anything is started.
        site.configure("accept_queue = 0\n");
        let why = site.refused();
        assert!(why.contains(":8:16: listener.accept_queue"), "{why}");
        assert!(serves());
        // One that only the start finds: another listener's address is taken.
        let taken = lab.server.run(|| std::net::TcpListener::bind("127.0.0.1:8099")).expect("bind");
        site.configure("[[listener]]\nname = \"other\"\nbind = [\"127.0.0.1:8099\"]\nservice = \"echo\"\n");
        let why = site.refused();
        assert!(why.contains("8099"), "{why}");
        assert!(serves());
        // One that finds only late that it cannot: by then it had the control socket in its hands.
        site.configure("");
        let text = fs::read_to_string(&site.config).expect("the configuration");
        fs::write(&site.config, text + "[access_log]\npath = \"/absent/log\"\n").expect("write the configuration");
        let why = site.refused();
        assert!(why.contains("/absent/log"), "{why}");
        assert!(serves() && site.ctl(&["status"]).status.success());
        site.configure("[[listener]]\nname = \"other\"\nbind = [\"127.0.0.1:8099\"]\nservice = \"echo\"\n");
        // One that asks, gets everything, and is gone; one that talks nonsense; one of another time.
        for (request, answer) in [
            ("{\"verb\":\"take-over\",\"version\":1}\n", "{\"take-over\""),
            ("{\"verb\":\"take-over\",\"version\":1}\nxxxxxxxxxxxxxxxx", "{\"take-over\""),
            ("{\"verb\":\"take-over\",\"version\":99}\n", "version 99"),
        ] {
            let mut stream = UnixStream::connect(&site.control).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
            stream.write_all(request.as_bytes()).expect("ask");
            let mut said = [0; 200];
            let read = stream.read(&mut said).expect("an answer");
            assert!(
                String::from_utf8_lossy(&said[..read]).contains(answer),
                "{}",
                String::from_utf8_lossy(&said[..read])
            );
            drop(stream);
            assert!(serves());
        }
        assert!(!door.has_ended() && door.is_ready());
        // Nothing is left of all that, and nobody takes over from a process that ends.
        assert_eq!(passing(), 0, "directories for programs to pass through");
        // And then it works.
        drop(taken);
        let successor = site.restart();
        assert!(door.wait(PATIENCE).success());
        assert!(lives(successor) && serves());
        assert_eq!(states(&lab.server, 8099).get("listen"), Some(&1), "{:?}", states(&lab.server, 8099));
        site.end();
        assert!(!site.control.exists(), "the last one takes its control socket away");
    });
}

const FAKE: &str = "PORTCULLIS_TEST_FAKE_SUCCESSOR";

/// Says that it is ready, and then nothing more: it ends, or it hangs.
fn fake_successor(told: &str) {
    let (path, manner) = told.split_once(' ').expect("a path and a manner");
    let mut stream = UnixStream::connect(path).expect("connect");
    stream.write_all(b"{\"verb\":\"take-over\",\"version\":1}\n").expect("ask");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut all = Vec::new();
    let mut until = |part: &[u8], stream: &mut UnixStream| {
        let mut some = [0; 4096];
        while !all.windows(part.len()).any(|window| window == part) {
            let read = stream.read(&mut some).expect("what the other has, and where it stopped");
            assert!(read > 0, "{}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&some[..read]);
        }
    };
    until(b"{\"take-over\":{}}\n", &mut stream);
    // A frame: its length, and JSON.
    stream.write_all(b"\0\0\0\x07\"ready\"").expect("say so");
    until(b"{\"listeners\":[[", &mut stream);
    if manner == "hangs" {
        loop {
            std::thread::park(); // Until it is ended.
        }
    }
}

#[test]
fn a_successor_that_fails_when_all_has_stopped_is_followed_by_another() {
    // The fake is a process of its own, since it is going to be killed: this program, told to run this test.
    if let Ok(told) = std::env::var(FAKE) {
        return fake_successor(&told);
    }
    isolated!(|| {
        for manner in ["ends", "hangs"] {
            let lab = Lab::new();
            let mut site = Site::new(&lab);
            let mut door = site.open(&[]);
            let mut held = lab.connect(V4);
            assert_eq!(echo(&mut held, b"before").expect("a served client"), b"before");
            let mut fake = lab.server.command(std::env::current_exe().expect("this program"));
            fake.args(["--exact", "a_successor_that_fails_when_all_has_stopped_is_followed_by_another"]);
            fake.env(FAKE, format!("{} {manner}", site.control.display()));
            let mut fake = testnet::Process::spawn(fake).expect("start the fake");
            let first = door.pid();
            let pid = || {
                let output = site.ctl(&["status"]);
                serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()?["pid"].as_u64()
            };
            // Another one is started, by the one that has stopped.
            let mut next = None;
            eventually("somebody else serves", 2 * PATIENCE, || {
                next = pid().filter(|pid| *pid != u64::from(first));
                next.is_some()
            });
            site.successors.push(next.expect("its number") as u32);
            assert!(fake.wait(PATIENCE).is_some(), "the fake is ended");
            for server in BOTH {
                assert_eq!(
                    exchange(&mut lab.connect(server), b"hello").expect("a served client"),
                    b"hello",
                    "{manner}"
                );
            }
            assert_eq!(echo(&mut held, b"after").expect("the first process serves its own"), b"after");
            drop(held);
            assert!(door.wait(PATIENCE).success(), "{manner}");
            site.end();
        }
    });
}

#[test]
fn a_supervisor_starts_the_new_process_itself() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::new(&lab);
        // With nobody there it is an ordinary start.
        let mut old = site.open(&["--takeover"]);
        let mut held = lab.connect(V4);
        assert_eq!(echo(&mut held, b"before").expect("a served client"), b"before");
        let mut new = Door::begin(&lab, std::io::stderr(), &site.config, &["--takeover"]);
        // The old one gives up its place in the moment in which the new one has it.
        let status = || site.ctl(&["status"]).stdout;
        let is_new = || String::from_utf8_lossy(&status()).contains(&format!("\"pid\":{}", new.pid()));
        eventually("the new process answers", PATIENCE, is_new);
        assert_eq!(exchange(&mut lab.connect(V4), b"hello").expect("a served client"), b"hello");
        assert_eq!(echo(&mut held, b"after").expect("the old process serves its own"), b"after");
        assert!(!old.has_ended());
        drop(held);
        assert!(old.wait(PATIENCE).success());
        new.wait_until_ready();
        new.signal(Signal::SIGTERM);
        assert!(new.wait(PATIENCE).success());
        assert_eq!(states(&lab.server, PORT).get("listen"), None, "the last one gives the ports back");
    });
}

#[test]
fn addresses_come_and_go_with_a_restart() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let _door = site.open(&[]);
        let other = || {
            lab.client.run(|| std::net::TcpStream::connect_timeout(&"198.18.0.1:8099".parse().expect("ours"), PATIENCE))
        };
        assert!(other().is_err(), "nobody listens there yet");
        site.configure("[[listener]]\nname = \"other\"\nbind = [\"198.18.0.1:8099\"]\nservice = \"echo\"\n");
        site.restart();
        assert_eq!(exchange(&mut other().expect("connect"), b"hello").expect("a served client"), b"hello");
        // Names change, and addresses change hands.
        let swapped = fs::read_to_string(&site.config).expect("the configuration");
        let swapped =
            swapped.replace("\"web\"", "\"x\"").replace("\"other\"", "\"web\"").replace("\"x\"", "\"renamed\"");
        fs::write(&site.config, swapped).expect("write the configuration");
        site.restart();
        assert_eq!(exchange(&mut other().expect("connect"), b"hello").expect("a served client"), b"hello");
        assert_eq!(exchange(&mut lab.connect(V4), b"hello").expect("a served client"), b"hello");
        site.configure("");
        site.restart();
        eventually("nobody listens there any more", PATIENCE, || other().is_err());
        assert_eq!(exchange(&mut lab.connect(V4), b"hello").expect("a served client"), b"hello");
        site.end();
    });
}

#[test]
fn the_kernels_own_listeners_change_hands_too() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::new(&lab);
        let mut door = site.open(&["--datapath", "kernel"]);
        let clients = Clients::default();
        thread::scope(|scope| {
            let _until = clients.come(scope, &lab.client, BOTH.into_iter().chain(BOTH));
            for _ in 0..20 {
                clients.wait_for(5);
                site.restart();
            }
        });
        assert!(door.wait(PATIENCE).success());
        site.end();
    });
}
