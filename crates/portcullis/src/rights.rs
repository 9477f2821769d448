//! The capabilities that the datapaths need, and what to do without.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};

use crate::config::Datapath;
use crate::failure::Failure;

type Need = (Capability, &'static str);

const NEEDED: [Need; 2] = [
    (Capability::CAP_NET_RAW, "to see the packets of the guarded ports and to answer them"),
    (Capability::CAP_NET_ADMIN, "to make sockets of finished handshakes (TCP_REPAIR)"),
];

const NEEDED_FOR_BPF: [Need; 4] = [
    (Capability::CAP_NET_RAW, "to repeat SYN-ACKs that were not answered"),
    (Capability::CAP_NET_ADMIN, "to attach eBPF programs to interfaces"),
    (Capability::CAP_BPF, "to load eBPF programs (--datapath raw does without)"),
    (Capability::CAP_PERFMON, "for programs that look into sockets (--datapath raw does without)"),
];

/// What CAP_SYS_ADMIN stands for.
const COVERED: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];

const NEEDED_FOR_LOW_PORTS: Need =
    (Capability::CAP_NET_BIND_SERVICE, "to guard a port that the kernel keeps for privileged programs");

/// Puts into effect every capability that this process is permitted: by file capabilities that are permitted alone (`setcap ...+p`).
///
/// With `+ep` the kernel does so itself, but starts no program that may not have all of them, as in a container that was given fewer: not
/// even to say which one is missing.
pub fn take_up() {
    let [permitted, effective] = [CapSet::Permitted, CapSet::Effective].map(|set| caps::read(None, set).ok());
    // What cannot be had is told where it is needed. Where nothing is to be changed a sandbox may forbid to ask.
    if let Some(permitted) = permitted.filter(|permitted| effective.is_some_and(|effective| effective != *permitted)) {
        let _ = caps::set(None, CapSet::Effective, &permitted);
    }
}

/// Whether this process has what a datapath that answers SYNs needs to guard these addresses.
///
/// # Errors
/// [`Failure::Rights`] with what is missing and the command that grants it; [`Failure::Runtime`] if the capabilities
/// cannot be read.
pub fn check<'a>(datapath: Datapath, guarded: impl IntoIterator<Item = &'a SocketAddr>) -> Result<(), Failure> {
    let effective =
        caps::read(None, CapSet::Effective).map_err(|error| Failure::runtime("cannot read own capabilities", error))?;
    let first_free = first_unprivileged_port();
    let low_port = guarded.into_iter().any(|addr| addr.port() < first_free);
    let needed = needs(datapath, low_port);
    let missing = missing_of(&needed, |capability| effective.contains(&capability));
    if missing.is_empty() {
        return Ok(());
    }
    // What cannot be read is told as what can be granted.
    let withheld = match caps::read(None, CapSet::Bounding) {
        Ok(bounding) => missing_of(&missing, |capability| bounding.contains(&capability)),
        Err(_) => Vec::new(),
    };
    Err(Failure::Rights(explain(&needed, &missing, &withheld, &own_path())))
}

/// What this process lacks to guard these addresses, and what each is for.
pub fn lacking<'a>(datapath: Datapath, guarded: impl IntoIterator<Item = &'a SocketAddr>) -> Vec<String> {
    // What cannot be read is told where it is needed.
    let Ok(effective) = caps::read(None, CapSet::Effective) else { return Vec::new() };
    let first_free = first_unprivileged_port();
    let low_port = guarded.into_iter().any(|addr| addr.port() < first_free);
    let needed = match datapath {
        Datapath::Kernel => low_port.then_some(NEEDED_FOR_LOW_PORTS).into_iter().collect(),
        Datapath::Auto | Datapath::Bpf | Datapath::Raw => needs(datapath, low_port),
    };
    let missing = missing_of(&needed, |capability| effective.contains(&capability));
    missing.into_iter().map(|(capability, purpose)| format!("{capability}: {purpose}")).collect()
}

/// What a datapath that answers SYNs needs. `auto` gets by with what raw needs.
fn needs(datapath: Datapath, low_port: bool) -> Vec<Need> {
    let own = if datapath == Datapath::Bpf { &NEEDED_FOR_BPF[..] } else { &NEEDED };
    own.iter().copied().chain(low_port.then_some(NEEDED_FOR_LOW_PORTS)).collect()
}

fn missing_of(needed: &[Need], has: impl Fn(Capability) -> bool) -> Vec<Need> {
    let is_covered = |capability| COVERED.contains(&capability) && has(Capability::CAP_SYS_ADMIN);
    needed.iter().copied().filter(|&(capability, _)| !has(capability) && !is_covered(capability)).collect()
}

/// The failure to listen on a port as an ordinary program does, to which the kernel said EACCES: `None` if the port is
/// not why.
pub fn low_port(addr: SocketAddr, error: &io::Error) -> Option<Failure> {
    let low = error.kind() == io::ErrorKind::PermissionDenied && addr.port() < first_unprivileged_port();
    low.then(|| Failure::Rights(explain_low_port(addr, &own_path())))
}

fn own_path() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "portcullis".into())
}

/// `net.ipv4.ip_unprivileged_port_start`, which holds for IPv6 too.
fn first_unprivileged_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// `withheld` are those that no process here can have, whoever runs it: they are not in the bounding set.
fn explain(needed: &[Need], missing: &[Need], withheld: &[Need], binary: &Path) -> String {
    let mut text = String::from("rights are missing:\n");
    for (capability, purpose) in missing {
        text.push_str(&format!("  {capability}: {purpose}\n"));
    }
    let names = |needs: &[Need]| needs.iter().map(|(capability, _)| capability.to_string()).collect::<Vec<_>>();
    text.push_str("Run it as root, or grant them to the program once:\n");
    let setcap = names(needed).join(",").to_lowercase();
    text.push_str(&format!("  sudo setcap {setcap}+ep {}\n", shell_quoted(binary)));
    if !withheld.is_empty() {
        text.push_str(&format!(
            "Here not even root can have {}: before that, give it to\n",
            names(withheld).join(", ")
        ));
        text.push_str("the container (--cap-add) or the unit (CapabilityBoundingSet=, AmbientCapabilities=).\n");
    }
    text.push_str("Or run without them, and without the protection: the kernel then answers the SYNs.\n");
    text.push_str("  portcullis --datapath kernel");
    text
}

fn explain_low_port(addr: SocketAddr, binary: &Path) -> String {
    let (capability, purpose) = NEEDED_FOR_LOW_PORTS;
    let port = addr.port();
    format!(
        "cannot listen on {addr}: rights are missing:\n  {capability}: {purpose}\n\
         Run it as root, or grant it to the program once:\n  \
         sudo setcap cap_net_bind_service+ep {}\n\
         Or free the ports from {port} on for every program:\n  \
         sudo sysctl net.ipv4.ip_unprivileged_port_start={port}\n\
         Or take a port from {} on.",
        shell_quoted(binary),
        first_unprivileged_port()
    )
}

/// The path as a shell takes it.
pub fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_missing_the_remedy_and_the_way_without() {
        let text = explain(&NEEDED, &NEEDED[1..], &[], Path::new("/opt/it's/portcullis"));
        assert!(!text.contains("CAP_NET_RAW") && text.contains("CAP_NET_ADMIN"), "{text}");
        assert!(text.contains(r"sudo setcap cap_net_raw,cap_net_admin+ep '/opt/it'\''s/portcullis'"), "{text}");
        assert!(text.contains("--datapath kernel"), "{text}");
        let text = explain_low_port("127.0.0.1:80".parse().unwrap(), Path::new("/opt/portcullis"));
        for part in ["127.0.0.1:80", "setcap cap_net_bind_service+ep /opt/portcullis", "ip_unprivileged_port_start=80"]
        {
            assert!(text.contains(part) && !text.contains("CAP_NET_RAW"), "{text}");
        }
        let text = explain(&NEEDED, &NEEDED, &NEEDED[1..], Path::new("/opt/portcullis"));
        assert!(text.contains("Here not even root can have CAP_NET_ADMIN:") && text.contains("--cap-add"), "{text}");
        let all = needs(Datapath::Raw, true);
        let text = explain(&all, &all[2..], &[], Path::new("/opt/portcullis"));
        assert!(text.contains("setcap cap_net_raw,cap_net_admin,cap_net_bind_service+ep /opt/portcullis"), "{text}");
    }

    #[test]
    fn the_message_fits_the_bpf_datapath() {
        let needed = needs(Datapath::Bpf, false);
        let missing = missing_of(&needed, |capability| capability == Capability::CAP_SYS_ADMIN);
        let text = explain(&needed, &missing, &[], Path::new("/opt/portcullis"));
        // What CAP_SYS_ADMIN covers is not missing; but the program would lose that one by the remedy.
        assert!(!text.contains("CAP_BPF:") && !text.contains("TCP_REPAIR"), "{text}");
        assert!(text.contains("CAP_NET_ADMIN: to attach eBPF programs"), "{text}");
        assert!(text.contains("setcap cap_net_raw,cap_net_admin,cap_bpf,cap_perfmon+ep /opt/portcullis"), "{text}");
        let missing = missing_of(&needed, |_| false);
        assert_eq!(missing.len(), 4, "without CAP_SYS_ADMIN all of them");
    }
}
