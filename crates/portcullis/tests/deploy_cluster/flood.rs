//! deploy/container/flood, in a network namespace that has a way out.
//!
//! The program that it starts, loadtest, is another crate's. In its place stands a script: a client of the forged sources, which hears no answer.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use testnet::{Frame, Namespace, Process, Signal, Tap, eventually, isolated};

use crate::cluster::files::repository;
use crate::support::{Door, Lab, PATIENCE, Scratch};

/// Of the sources that the script has a route for.
const FORGED: &str = "198.18.200.1";

/// In place of loadtest: SYNs of a forged source to the target, `$3`, and nobody who hears what comes back.
const LOADTEST: &str = r#"#!/bin/bash
set -e
target=$3
ip addr add 198.18.200.1/32 dev flood0
ip route replace "${target%:*}/32" dev flood0 src 198.18.200.1
nft add table inet deaf
nft add chain inet deaf input '{ type filter hook prerouting priority raw; policy drop; }'
exec bash -c "exec 3<>/dev/tcp/${target%:*}/${target#*:}"
"#;

/// The door's namespace, whose default route leads to the client's, and the script as it runs there.
struct Flooded {
    lab: Lab,
    door: Door,
    /// What leaves by that route.
    outside: Tap,
    script: Process,
    _scratch: Scratch,
}

impl Flooded {
    fn begin() -> Flooded {
        let lab = Lab::new();
        lab.server.ip("route add default via 198.18.0.2");
        let door = Door::open(&lab, "echo");
        let outside = Tap::new(&lab.client_end);
        let scratch = Scratch::new();
        let loadtest = scratch.file("loadtest", LOADTEST);
        std::fs::set_permissions(&loadtest, Permissions::from_mode(0o755)).unwrap();
        let mut command = lab.server.command("sh");
        command.arg(repository("deploy/container/flood")).args(["8080", "100", "60"]);
        command.env("PATH", format!("{}:{}", scratch.path().display(), std::env::var("PATH").unwrap()));
        let script = Process::spawn(command).expect("sh");
        let flooded = Flooded { lab, door, outside, script, _scratch: scratch };
        eventually("a forged SYN has been answered", PATIENCE, || flooded.door.half_open() == 1.0);
        flooded
    }

    /// Where a packet to a forged source would go now.
    fn way(&self) -> Option<String> {
        let output = self.lab.server.command("ip").args(["route", "get", FORGED]).output().expect("ip");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What of the flood is seen outside for so long.
    fn strays(&self, within: Duration) -> Vec<Frame> {
        let deadline = Instant::now() + within;
        let is_forged = |frame: &Frame| frame.dst.ip().to_string() == FORGED || frame.src.ip().to_string() == FORGED;
        std::iter::from_fn(|| self.outside.next(deadline)).filter(is_forged).collect()
    }
}

/// SYN-ACKs are repeated one, three and seven seconds after the first.
const REPEATS: Duration = Duration::from_secs(5);

#[test]
fn what_a_flood_forges_and_what_answers_it_takes_no_other_way_than_its_cable() {
    isolated!(|| {
        let mut flooded = Flooded::begin();
        let way = flooded.way().expect("by the cable");
        assert!(way.contains("dev lab0"), "{way}");
        let ends = [&way, &flooded.lab.server.output("ip", "-o -4 addr show dev lab0")];
        assert!(ends.iter().all(|end| end.contains(" 198.18.64.")), "of what no network routes: {ends:?}");
        assert_eq!(flooded.strays(Duration::from_millis(1500)), []);

        // By `docker stop`, which waits for nothing else than the first process.
        flooded.script.signal(Signal::SIGTERM);
        let status = flooded.script.wait(Duration::from_secs(5)).expect("it ends at a signal");
        assert_eq!(status.code(), Some(143));
        assert!(!has_cable(&flooded.lab.server), "the cable goes with it");
        assert_eq!(flooded.door.half_open(), 1.0, "else nothing is repeated");
        assert_eq!(flooded.strays(REPEATS), [], "what is repeated goes nowhere");
        assert_eq!(flooded.way(), None);
    });
}

fn has_cable(namespace: &Namespace) -> bool {
    namespace.output("ip", "-o link").contains("lab0")
}
