//! Where the server's end of the cable does its work.
//!
//! A veth's reception runs by itself on the core of whoever sends, and the flood's core would then do the target's work. Given a thread of
//! its own (threaded NAPI), it runs where we say, from a queue of 256 frames, much as a network card has one.

use std::io;

use nix::unistd::Pid;
use testnet::Interface;

use crate::flood::{send_through_queue, take_xdp_frames, thread_napi};
use crate::measure::LINK_HEADER_LEN;

/// How far the machine let us go.
#[derive(Debug)]
pub struct Reception {
    /// Whether what comes waits in a queue, whoever sent it.
    pub queued: bool,
    /// The threads of its own, on the cores asked for, that empty it; if there are none, why not: a user namespace, an old kernel. It stays with
    /// the sender then.
    pub apart: io::Result<Vec<Pid>>,
}

/// Moves the reception of `end` to these cores; all that its `peer` sends waits in one queue there.
pub fn give_to(end: &Interface, peer: &Interface, cores: &[usize]) -> Reception {
    let (namespace, name) = (end.namespace(), end.name());
    let queue = take_xdp_frames(namespace, name).and_then(|()| send_through_queue(peer.namespace(), peer.name()));
    let queued = queue.is_ok();
    Reception { queued, apart: queue.and_then(|()| thread_napi(namespace, name, cores)) }
}

/// Has what `end` receives handled on these cores, whoever sends it (receive packet steering, RPS). For an end without a queue of its own,
/// whose reception would else be work of the sender's core.
///
/// # Errors
/// When `/sys` cannot be mounted or the device's queue is not there.
pub fn steer_to(end: &Interface, cores: &[usize]) -> io::Result<()> {
    let mask = cores.iter().filter(|&&core| core < 32).fold(0_u32, |mask, core| mask | 1 << core);
    let script =
        format!("mount -t sysfs sysfs /sys && echo {mask:x} > /sys/class/net/{}/queues/rx-0/rps_cpus", end.name());
    let output = end.namespace().command("unshare").args(["--mount", "sh", "-c", &script]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Bytes that a veth leaves out of its count of what it received: the link's header of each frame that a socket sent and that waited in
/// its queue. What passed the queue by was counted whole by the sender, and a program's frame has its header in the queue too.
pub fn bytes_left_out(queued: bool, frames: u64, by_program: u64) -> u64 {
    if queued { LINK_HEADER_LEN * frames.saturating_sub(by_program) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use testnet::{Mac, Namespace, isolated, veth};

    use super::*;
    use crate::flood::{ALIAS, Engine, Flood, FloodKind, FloodSpec, OptionMix, Place, Sources};
    use crate::measure::LinkClock;

    /// Ethernet, IPv4, TCP, and twenty bytes of options.
    const SYN_LEN: u64 = 14 + 20 + 40;

    fn bytes_per_frame(end: &Interface, peer: &Interface, engine: Engine, queued: bool) -> u64 {
        let place = Place {
            namespace: peer.namespace().clone(),
            interface: peer.name().to_owned(),
            source_mac: Mac([2, 0, 0, 0, 0, 9]),
            gateway_mac: end.mac(),
            spoofed: "198.18.128.0/17".parse().expect("a prefix"),
            owned: "198.18.64.0/18".parse().expect("a prefix"),
            cores: Vec::new(),
        };
        let spec = FloodSpec {
            kind: FloodKind::Syn,
            sources: Sources::Random,
            options: OptionMix::Linux,
            engine,
            rate: Some(2000.0),
            seed: 1,
            target: "198.18.0.1:8080".parse().expect("an address"),
        };
        let clock = LinkClock::new(end).expect("counters");
        let before = clock.now().expect("counters");
        let flood = Flood::start(&spec, &place).expect("a flood");
        sleep(Duration::from_millis(300));
        let report = flood.stop();
        sleep(Duration::from_millis(100));
        let counts = clock.now().expect("counters").since(&before);
        let by_program = if report.engine == "xdp" { report.sent } else { 0 };
        assert!(counts.rx_frames > 100, "{report:?}");
        let bytes = counts.rx_bytes + bytes_left_out(queued, counts.rx_frames, by_program);
        // What the kernel says of its own accord, in ARP and the like, is little beside a flood.
        (bytes as f64 / counts.rx_frames as f64).round() as u64
    }

    #[test]
    fn a_frame_counts_with_its_header_however_it_came() {
        isolated!(|| {
            let cable = || {
                let (server, outside) = (Namespace::new(), Namespace::new());
                let ends = veth((&server, "far", &["198.18.1.1/24"]), (&outside, "near", &["198.18.1.2/24"]));
                outside.ip(&format!("link set near alias {ALIAS}"));
                ends
            };
            let user_namespace = std::env::var("TESTNET_USER_NAMESPACE").is_ok_and(|value| value == "1");
            // Without a queue, programs cannot send.
            let (end, peer) = cable();
            assert_eq!(bytes_per_frame(&end, &peer, Engine::TxRing, false), SYN_LEN);
            // With one that the sender empties, and with one that a thread does.
            for threads in [false, true] {
                let (end, peer) = cable();
                take_xdp_frames(end.namespace(), end.name()).expect("offload");
                send_through_queue(peer.namespace(), peer.name()).expect("offload");
                if threads && thread_napi(end.namespace(), end.name(), &[0]).is_err() {
                    continue; // Not for a user namespace.
                }
                assert_eq!(bytes_per_frame(&end, &peer, Engine::TxRing, true), SYN_LEN, "threads: {threads}");
                if !user_namespace {
                    assert_eq!(bytes_per_frame(&end, &peer, Engine::Xdp, true), SYN_LEN, "threads: {threads}");
                }
            }
        });
    }
}
