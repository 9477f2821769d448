//! Whole frames: one core makes SYNs, answers them, and drops the answers at the other end of a cable.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use aya::programs::ProgramFd;

use crate::Effort;
use crate::frames::{LAYOUTS, syn_from_anywhere};
use crate::guard::{Guard, PRESSURE};
use crate::replay::{Hook, Replay};

const SERVER: &str = "198.18.1.1:80";
const SOURCES: &str = "198.19.0.0:40000";
const ROWS: [&str; 5] =
    ["kernel, tcp_syncookies=2", "guard at tc", "guard at xdp", "swap the link-layer addresses", "drop"];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Prints the rates, interleaved in one run, of: the kernel's cookies; the guard behind the driver and in it; and for comparison a program
/// that swaps the link-layer addresses, and one that drops.
pub fn measure(effort: Effort) -> io::Result<()> {
    let device = lay_cable()?;
    let server: SocketAddr = SERVER.parse().expect("an address");
    let _listener = TcpListener::bind(server)?;
    let frame = syn_from_anywhere(server, SOURCES.parse().expect("an address"), LAYOUTS[0].1).to(MAC);
    let mut replay = Replay::new(Hook::Xdp, &frame)?;
    let (pass, reflect, drop) = (replay.stub("pass_xdp")?, replay.stub("reflect_xdp")?, replay.base()?);
    let mut guard = Guard::load(&[server], vec![MAC])?;
    guard.order(PRESSURE)?;

    let mut far = Replay::new(Hook::Xdp, &frame)?;
    let in_driver = guard.program(Hook::Xdp).try_clone()?;
    let mut rates: [Vec<f64>; ROWS.len()] = Default::default();
    for _ in 0..effort.rounds {
        let mut rate = |program: &ProgramFd| Ok(replay.live(program, device, effort.runs)? / 1e6);
        // The far end has no program here, as in a container.
        rates[0].push(rate(&pass)?);
        rates[1].push(guard.while_behind("srv0", || rate(&pass))?);
        // And here it has one, without which a veth takes no frames from a program.
        let [guarded, reflected] = far.while_sinking("far0", || Ok([rate(&in_driver)?, rate(&reflect)?]))?;
        rates[2].push(guarded);
        rates[3].push(reflected);
        rates[4].push(rate(&drop)?);
    }
    println!(
        "\nwhole frames, SYN v4 Linux from 65,536 sources, million per second on one core: median (smallest to largest)"
    );
    for (name, mut rates) in ROWS.into_iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        println!("{name:<44} {:.2} ({:.2} to {:.2})", rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    }
    Ok(())
}

/// A veth pair; the index of the near end.
fn lay_cable() -> io::Result<u32> {
    for arguments in [
        "link add srv0 address 02:00:00:00:00:01 type veth peer name far0 address 02:00:00:00:00:99",
        "link set srv0 up",
        "link set far0 up",
        "addr add 198.18.1.1/24 dev srv0",
        "neigh replace 198.18.1.2 lladdr 02:00:00:00:00:02 dev srv0 nud permanent",
        "route add 198.19.0.0/16 via 198.18.1.2",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status()?;
        assert!(status.success(), "ip {arguments}");
    }
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?;
    Ok(nix::net::if_::if_nametoindex("srv0")?)
}
