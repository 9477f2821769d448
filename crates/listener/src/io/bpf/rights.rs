//! What a process must be allowed to load the programs.

use std::io;

use caps::{CapSet, Capability};

use crate::io::sieve::VERIFIER;

/// A capability, and what the kernel wants it for. CAP_SYS_ADMIN stands for both of the first two.
type Need = (Capability, &'static str);
const TO_LOAD: Need = (Capability::CAP_BPF, "to load eBPF programs");
const TO_LOOK: Need = (Capability::CAP_PERFMON, "for programs that look into sockets");
const TO_ATTACH: Need = (Capability::CAP_NET_ADMIN, "to attach them to interfaces");

/// Checks this thread's effective capabilities.
///
/// In a user namespace they may be there and be worth nothing: then the kernel says so at loading, see [`in_words`].
///
/// # Errors
/// `PermissionDenied` with the names of those that are missing.
pub(super) fn check() -> io::Result<()> {
    check_for(&[TO_LOAD, TO_LOOK, TO_ATTACH])
}

/// The same for programs that see sockets and are attached to no interface.
pub(in crate::io) fn check_to_look() -> io::Result<()> {
    check_for(&[TO_LOAD, TO_LOOK])
}

fn check_for(needs: &[Need]) -> io::Result<()> {
    let effective = caps::read(None, CapSet::Effective).map_err(io::Error::other)?;
    let has = |capability: Capability| {
        let covered = capability != Capability::CAP_NET_ADMIN && effective.contains(&Capability::CAP_SYS_ADMIN);
        covered || effective.contains(&capability)
    };
    let missing = needs.iter().filter(|(capability, _)| !has(*capability));
    let missing: Vec<_> = missing.map(|(capability, purpose)| format!("{capability} is missing ({purpose})")).collect();
    if missing.is_empty() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::PermissionDenied, missing.join(", "))) }
}

/// The kernel says no more than that the operation is not permitted, unless it is the verifier that objects.
pub(in crate::io) fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied if error.to_string().contains(VERIFIER) => io::Error::other(error),
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            "not permitted: it takes CAP_BPF and CAP_PERFMON in the initial user namespace, and no seccomp filter against bpf(2)",
        ),
        _ => error,
    }
}
