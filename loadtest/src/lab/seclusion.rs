//! What this process has for itself, so that nothing stays when it is gone, however it goes.

use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where files may be put that nobody else sees and that are gone with the process.
pub const SCRATCH: &str = "/dev/shm";

/// Moves this process, which must have one thread, into namespaces of its own: of the network, from which no way leads out, and of
/// mounts, with an empty [`SCRATCH`]; for users, too, where the caller is not root.
///
/// # Errors
/// Mostly permissions.
pub fn seclude() -> io::Result<()> {
    testnet::enter_namespaces()?;
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("lab"), SCRATCH, Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(())
}
