//! What the other end of the cable has to do.

use std::os::fd::AsFd;
use std::{fs, io};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use testnet::{Mac, Namespace, packet_socket};

use super::sys::{self, Offload};
use super::xdp::InDriver;

/// Readies a veth for frames of an eBPF program at its other end: it takes them only with NAPI, which it has with receive offload
/// switched on, or with an XDP program of its own in the driver (then this is not needed, and does no harm).
///
/// A device that does not have it refuses the XDP engine's frames, and [`Engine::Auto`](super::Engine::Auto) makes do with the ring.
///
/// # Errors
/// When there is no such device.
pub fn take_xdp_frames(namespace: &Namespace, interface: &str) -> io::Result<()> {
    set_offload(namespace, interface, Offload::GenericReceive, true)
}

/// Has what sockets send by a veth wait in the queue of its other end, as frames of eBPF programs do. As long as the sender has
/// segmentation offload, a veth lets them pass that queue by, unless there is an XDP program behind it: then floods and clients
/// would meet in one queue before some targets and not before others.
///
/// # Errors
/// When there is no such device.
pub fn send_through_queue(namespace: &Namespace, interface: &str) -> io::Result<()> {
    set_offload(namespace, interface, Offload::TcpSegmentation, false)
}

fn set_offload(namespace: &Namespace, interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    namespace.run(|| {
        let socket = packet_socket()?;
        sys::set_offload(socket.as_fd(), interface, offload, on)
    })
}

/// Readies the flood's own end for answers that a program at the other end makes in its driver (`XDP_TX`), until the result is dropped:
/// a veth takes them only where it has a program too. Without one they are lost, the first 256 of them not even counted. Answers to
/// `nobody` end there, unseen by anything else.
///
/// # Errors
/// When there is no such device, or eBPF is not to be had.
pub fn take_xdp_answers(namespace: &Namespace, interface: &str, nobody: Option<Mac>) -> io::Result<InDriver> {
    namespace.run(|| InDriver::attach("pass", interface, nobody))
}

/// Has threads of their own take what comes in by a veth that has NAPI, so that this is no work of whoever sends, and lets them run on
/// these cores alone. Returns them. Their queue has room for 256 frames: what comes while it is full is refused, as by a network card.
///
/// # Errors
/// When there is no such device or no NAPI on it, when `/sys` cannot be mounted, and when the threads are not to be seen: they are the
/// kernel's, and not in another PID namespace than the first.
pub fn thread_napi(namespace: &Namespace, interface: &str, cores: &[usize]) -> io::Result<Vec<Pid>> {
    let before = napi_threads(interface)?;
    // `/sys` shows the devices of the namespace in which it was mounted.
    let script = format!("mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{interface}/threaded");
    let output = namespace.command("unshare").args(["--mount", "sh", "-c", &script]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    // Devices of other namespaces may have the same name.
    let ours = napi_threads(interface)?.into_iter().filter(|thread| !before.contains(thread));
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        return Err(io::Error::other(format!("no thread of {interface} is to be seen")));
    }
    ours.iter().try_for_each(|&thread| pin(thread, cores))?;
    Ok(ours)
}

/// The kernel calls them `napi/srv0-8193`.
fn napi_threads(interface: &str) -> io::Result<Vec<Pid>> {
    let ours = format!("napi/{interface}-");
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile has no name, and is not looked for.
        if fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|comm| comm.starts_with(&ours)) {
            threads.push(Pid::from_raw(number));
        }
    }
    Ok(threads)
}

fn pin(thread: Pid, cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|&core| set.set(core))?;
    Ok(sched_setaffinity(thread, &set)?)
}
