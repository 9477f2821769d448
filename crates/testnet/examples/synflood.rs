//! A lab in a box: a kernel listener with SYN cookies always on, flooded from a second namespace.
//!
//! `cargo run --release -p testnet --example synflood -- [SECONDS]` prints what was sent and what the kernel did with
//! it. Everything happens in namespaces that vanish with the program.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use testnet::{Counters, Flood, FloodKind, FloodSpec, Namespace, Sources, enter_namespaces, veth};

fn main() -> std::io::Result<()> {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    enter_namespaces()?;
    let (server, attacker) = (Namespace::new(), Namespace::new());
    let (far, near) =
        veth((&server, "srv0", &["198.18.0.1/24", "198.19.0.1/16"]), (&attacker, "fld0", &["198.19.0.2/16"]));
    let _listener = server.run(|| TcpListener::bind("198.18.0.1:80"))?;
    server.sysctl("net.ipv4.tcp_syncookies", "2");

    let spec = FloodSpec {
        kind: FloodKind::Syn,
        target: ([198, 18, 0, 1], 80).into(),
        sources: Sources::random("198.19.0.0/16"),
        seed: 1,
    };
    let flood = Flood::start(&near, &far, spec);
    sleep(Duration::from_secs(seconds));
    let report = flood.stop();
    let cookies = Counters::of(&server).get("TcpExtSyncookiesSent");
    println!("{} SYNs in {:.1?}: {:.0}/s", report.sent, report.elapsed, report.rate());
    println!("{cookies} cookies sent by the kernel");
    Ok(())
}
