//! The system calls that have no safe wrapper elsewhere: one function each.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::Arc;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_ll, socklen_t};

use crate::packet::Mac;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Set to 1, root too gets a user namespace: what needs rights in the initial one, as eBPF does, is then missing.
const USER_NAMESPACE: &str = "TESTNET_USER_NAMESPACE";

/// The lines that map root of a new user namespace to the user who makes it.
pub(crate) struct IdMaps {
    uid: String,
    gid: String,
    /// Whether a network namespace alone will do.
    stays_root: bool,
}

impl IdMaps {
    pub(crate) fn of_caller() -> IdMaps {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let wanted = std::env::var(USER_NAMESPACE).is_ok_and(|value| value == "1");
        IdMaps { uid: format!("0 {uid} 1"), gid: format!("0 {gid} 1"), stays_root: uid.is_root() && !wanted }
    }
}

/// Moves the calling process, which must have one thread, into a new network namespace with `lo` up; for users, and where
/// root may not do that, together with a user namespace.
///
/// Uses nothing but system calls, so that it may run between fork and exec.
pub(crate) fn enter_namespaces(maps: &IdMaps) -> io::Result<()> {
    if !(maps.stays_root && unshare(libc::CLONE_NEWNET).is_ok()) {
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", maps.uid.as_bytes())?;
        write_file(c"/proc/self/gid_map", maps.gid.as_bytes())?;
    }
    loopback_up()
}

fn unshare(namespaces: c_int) -> io::Result<()> {
    // SAFETY: unshare takes a number and touches no memory of ours.
    check(unsafe { libc::unshare(namespaces) }).map(drop)
}

fn write_file(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the path ends in NUL, and the descriptor that comes back is ours alone.
    let file = unsafe { OwnedFd::from_raw_fd(check(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?) };
    // SAFETY: the pointer and the length are those of a live slice.
    let written = unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: the descriptor that comes back is ours alone.
    let socket =
        unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?) };
    // SAFETY: ifreq is plain data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })?;
    Ok(())
}

/// Has the command's process make namespaces of its own before it becomes the program, and die with the calling thread.
pub(crate) fn isolate_child(command: &mut Command, maps: IdMaps) {
    // SAFETY: between fork and exec both functions only make system calls; the maps were formatted before.
    unsafe {
        command.pre_exec(move || enter_namespaces(&maps).and_then(|()| die_with_parent()));
    }
}

/// Has the command's process join a network namespace before it becomes the program, and die with the calling thread.
pub(crate) fn place_child(command: &mut Command, namespace: Arc<OwnedFd>) {
    // SAFETY: between fork and exec both functions only make system calls.
    unsafe {
        command.pre_exec(move || {
            check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)).and_then(|_| die_with_parent())
        });
    }
}

fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// Duplicates a descriptor of this process by its number; `EBADF` when there is none. fcntl(2).
pub(crate) fn duplicate(number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes numbers, and the descriptor that comes back is ours alone.
    unsafe { check(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0)).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Opens a packet socket that receives nothing until it is bound. packet(7).
pub fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor that comes back is ours alone.
    unsafe {
        check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Binds a packet socket to an interface; `protocol` 0 receives nothing, `ETH_P_ALL` everything.
pub fn bind_packet(socket: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zero bytes are a value.
    let mut addr: sockaddr_ll = unsafe { zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = protocol.to_be();
    addr.sll_ifindex = interface as i32;
    let len = size_of::<sockaddr_ll>() as socklen_t;
    // SAFETY: the address lives until the call returns, and the length is its own.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) }).map(drop)
}

/// The link-layer address of the interface a packet socket is bound to.
pub(crate) fn packet_mac(socket: BorrowedFd<'_>) -> io::Result<Mac> {
    // SAFETY: sockaddr_ll is plain data, for which zero bytes are a value.
    let mut addr: sockaddr_ll = unsafe { zeroed() };
    let mut len = size_of::<sockaddr_ll>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to an address of that size.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut addr).cast(), &raw mut len) })?;
    let mut mac = [0; 6];
    mac.copy_from_slice(&addr.sll_addr[..6]);
    Ok(Mac(mac))
}

/// Sets an integer option of a socket. setsockopt(2).
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value lives until the call returns, and the length is its own.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// What the kernel tells about a frame beside its bytes.
pub(crate) struct Auxdata {
    pub(crate) len: usize,
    pub(crate) vlan_tci: Option<u16>,
    pub(crate) checksum_unfinished: bool,
}

/// Receives one frame from a packet socket with `PACKET_AUXDATA` on. Does not wait: `WouldBlock` when there is none.
pub(crate) fn receive_frame(socket: BorrowedFd<'_>, frame: &mut [u8]) -> io::Result<Auxdata> {
    let mut iov = iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    let mut control = [0u64; 16]; // Of u64, because control messages are aligned so.
    // SAFETY: msghdr is plain data, for which zero bytes are a value.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the buffers named in the message live until the call returns, with the lengths given.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut aux = Auxdata { len: len as usize, vlan_tci: None, checksum_unfinished: false };
    // SAFETY: the kernel filled the control buffer, which is still alive, and set its length in the message.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    if let Some(header) = header.filter(|h| h.cmsg_level == libc::SOL_PACKET && h.cmsg_type == libc::PACKET_AUXDATA) {
        // SAFETY: a message of this type carries a tpacket_auxdata.
        let data: libc::tpacket_auxdata = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
        aux.checksum_unfinished = data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
        aux.vlan_tci = (data.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some(data.tp_vlan_tci);
    }
    Ok(aux)
}

/// Sends frames of equal length that lie one behind the other; returns how many the kernel took. sendmmsg(2).
pub(crate) fn send_frames(socket: BorrowedFd<'_>, frames: &[u8], frame_len: usize) -> io::Result<usize> {
    let mut iovs: Vec<iovec> = frames
        .chunks_exact(frame_len)
        .map(|frame| iovec { iov_base: frame.as_ptr().cast_mut().cast::<c_void>(), iov_len: frame_len })
        .collect();
    let mut messages: Vec<mmsghdr> = iovs
        .iter_mut()
        .map(|iov| {
            // SAFETY: mmsghdr is plain data, for which zero bytes are a value.
            let mut message: mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_iov = iov;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: every message names one live iovec, which names one live frame; the kernel only reads the frames.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT) };
    check(sent).map(|count| count as usize)
}

/// Makes a tun device of this name in the calling thread's namespace: frames without a link layer. tun(4).
pub(crate) fn tun_attach(tun: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: ifreq is plain data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map(drop)
}
