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
const ROWS: [&str; 7] = [
    "kernel, tcp_syncookies=1",
    "kernel, tcp_syncookies=2",
    "nft synproxy",
    "guard at tc",
    "guard at xdp",
    "swap the link-layer addresses",
    "drop",
];
/// As the manual of nft has it, with the options that our clients offer.
const SYNPROXY: &str = "table ip proxy {
    chain raw { type filter hook prerouting priority raw; tcp dport 80 tcp flags syn notrack; }
    chain input {
        type filter hook input priority filter;
        tcp dport 80 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
        ct state invalid drop
    }
}
";
const SYNCOOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Prints the rates, interleaved in one run, of: the kernel's cookies (1: as it does by default, when its queue is full, which it is after
/// the first moment; 2: always); netfilter's; the guard behind the driver and in it; and for comparison a program that swaps the
/// link-layer addresses, and one that drops. And which part of the frames was answered.
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
    let mut runs: [Vec<Live>; ROWS.len()] = Default::default();
    for _ in 0..effort.rounds {
        let mut live = |program: &ProgramFd| {
            let sent = sent()?;
            let per_second = replay.live(program, device, effort.runs)?;
            Ok(Live { per_second, answered: (sent_at_rest()? - sent) as f64 / f64::from(effort.runs) })
        };
        // The far end has no program here, as in a container.
        for (row, cookies) in [(0, "1"), (1, "2")] {
            std::fs::write(SYNCOOKIES, cookies)?;
            runs[row].push(live(&pass)?);
        }
        nft(SYNPROXY)?;
        runs[2].push(live(&pass)?);
        nft("delete table ip proxy")?;
        runs[3].push(guard.while_behind("srv0", || live(&pass))?);
        // And here it has one, without which a veth takes no frames from a program.
        let [guarded, reflected] = far.while_sinking("far0", || Ok([live(&in_driver)?, live(&reflect)?]))?;
        runs[4].push(guarded);
        runs[5].push(reflected);
        runs[6].push(live(&drop)?);
    }
    println!(
        "\nwhole frames, SYN v4 Linux from 65,536 sources, million per second on one core: median (smallest to largest); answered"
    );
    for (name, mut runs) in ROWS.into_iter().zip(runs) {
        runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let rate = |index: usize| runs[index].per_second / 1e6;
        let answered = 100.0 * runs.iter().map(|run| run.answered).fold(f64::INFINITY, f64::min);
        println!(
            "{name:<44} {:.2} ({:.2} to {:.2})  {answered:.1} %",
            rate(runs.len() / 2),
            rate(0),
            rate(runs.len() - 1)
        );
    }
    Ok(())
}

/// One run: frames in a second, and the part of them that was answered.
struct Live {
    per_second: f64,
    answered: f64,
}

/// Frames that left by the near end.
fn sent() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("srv0:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    packets.ok_or_else(|| io::Error::other("no srv0 in /proc/net/dev"))
}

/// The same, once the last answers are out.
fn sent_at_rest() -> io::Result<u64> {
    let mut last = sent()?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        assert!(std::time::Instant::now() < deadline, "answers still leave ten seconds after the last frame");
        std::thread::sleep(std::time::Duration::from_millis(50));
        if std::mem::replace(&mut last, sent()?) == last {
            return Ok(last);
        }
    }
}

fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn()?;
    child.stdin.take().map_or(Ok(()), |mut stdin| io::Write::write_all(&mut stdin, script.as_bytes()))?;
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("nft: {status}"))) }
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
    // The repeats of SYN-ACKs, which the kernel without cookies sends, are not what is counted.
    std::fs::write("/proc/sys/net/ipv4/tcp_synack_retries", "0")?;
    Ok(nix::net::if_::if_nametoindex("srv0")?)
}
