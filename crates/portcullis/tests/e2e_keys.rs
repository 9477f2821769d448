//! Rotations of the master key: no handshake notices.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::battlefield::Battlefield;
use support::clients::Clients;
use support::{BINARY, Lab, PATIENCE, Scratch, V4};
use testnet::{FloodKind, Process, Script, Signal, Sources, eventually, isolated, take_turns};

const ROTATIONS: usize = 20;

/// A process that keeps its key in a state directory.
struct Keeping<'a> {
    lab: &'a Lab,
    scratch: &'a Scratch,
    config: PathBuf,
    socket: PathBuf,
    process: Process,
}

impl Keeping<'_> {
    fn start<'a>(lab: &'a Lab, scratch: &'a Scratch) -> Keeping<'a> {
        let socket = scratch.path().join("c.sock");
        let datapath = support::datapath();
        let config = scratch.file(
            "c.toml",
            &format!(
                "datapath = \"{datapath}\"\nadmin = \"none\"\ncontrol = \"{}\"\nstate_dir = \"{}\"\n[[listener]]\nname = \"web\"\n\
                 bind = [\"{V4}\"]\nservice = \"echo\"\nhalf_open.max = 1024\ncookies.accept = \"always\"\n",
                socket.display(),
                scratch.path().display()
            ),
        );
        let process = Keeping::spawn(lab, &config, &socket);
        Keeping { lab, scratch, config, socket, process }
    }

    fn spawn(lab: &Lab, config: &std::path::Path, socket: &std::path::Path) -> Process {
        let mut command = lab.server.command(BINARY);
        command.arg("--config").arg(config);
        let process = Process::spawn(command).expect("start portcullis");
        eventually("it answers", PATIENCE, || ctl(socket, &["status"]).status.success());
        process
    }

    /// `kill -9`, and the next one.
    fn restart(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(PATIENCE).expect("it is dead");
        self.process = Keeping::spawn(self.lab, &self.config, &self.socket);
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = ctl(&self.socket, &[&["--json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        self.json(&["status"])["listeners"][0].clone()
    }

    /// From when the latest key is used.
    fn rotate(&self) -> u64 {
        self.json(&["rotate-keys", "--generate"])["from_unix_seconds"].as_u64().unwrap()
    }

    fn key(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("master.key")).unwrap()
    }
}

fn ctl(socket: &std::path::Path, args: &[&str]) -> Output {
    Command::new(BINARY).args(["ctl", "--socket"]).arg(socket).args(args).output().unwrap()
}

fn until(unix_seconds: u64) {
    let until = UNIX_EPOCH + Duration::from_secs(unix_seconds);
    if let Ok(left) = until.duration_since(SystemTime::now()) {
        thread::sleep(left);
    }
}

/// The first two segments. In a flood the SYN may have to be sent again, as by any client.
fn begin(client: &mut Script<'_>) {
    for _ in 0..3 {
        client.syn();
        if let Some(answer) = client.next(Duration::from_millis(500)) {
            assert!(answer.flags.is_syn_ack(), "{answer:?}");
            client.rcv_nxt = answer.seq.wrapping_add(1);
            return;
        }
    }
    panic!("no SYN-ACK");
}

/// Takes as long as it takes until a new key is used: some 70 s. The clock of epochs is the wall clock, which no namespace has of its own.
#[test]
fn twenty_rotations_under_a_flood_fail_no_client_and_no_handshake_under_way() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let (lab, scratch) = (&field.lab, Scratch::new());
        let mut door = Keeping::start(lab, &scratch);
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        eventually("cookie mode", PATIENCE, || door.status()["mode"] == "cookies");

        let clients = Clients::default();
        let last = thread::scope(|scope| {
            let _until = clients.come(scope, &lab.client, [V4, V4]);
            let first = door.rotate();
            // Some for the same epoch, the last of which counts; some for the epochs behind it, where the time passes a boundary.
            let pause = Duration::from_secs((first - 2).saturating_sub(unix_now())) / ROTATIONS as u32;
            for _ in 1..ROTATIONS {
                thread::sleep(pause);
                door.rotate();
            }
            until(first - 3);
            // Made only now: it would have heard all the others.
            let host = lab.raw_host(V4);
            let mut held = host.script(50_000, V4).with_timestamps(1);
            begin(&mut held);
            let accepted = door.status()["accepted"].as_u64().unwrap();
            assert!(unix_now() < first, "the handshake began too late");
            until(first + 1);
            assert_eq!(held.exchange(&[b"held"], 4).0, b"held", "the handshake across the rotation");
            assert!(door.status()["accepted"].as_u64().unwrap() > accepted);
            // Under the new key for some time.
            until(first + 3);
            first
        });
        assert!(clients.served() > 100, "{clients:?}");
        assert_eq!(door.json(&["status"])["keys"]["rotations"], ROTATIONS);
        flood.stop();

        // What is kept is what is used: a handshake that began before a crash ends behind it.
        let key = door.key();
        let host = lab.raw_host(V4);
        let mut begun = host.script(50_001, V4).with_timestamps(1);
        begin(&mut begun);
        door.restart();
        assert_eq!(door.key(), key);
        assert_eq!(begun.exchange(&[b"begun"], 5).0, b"begun", "the handshake across the crash");
        assert!(last <= unix_now());
    });
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
