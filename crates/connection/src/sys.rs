//! The system calls no crate wraps: the options of `TCP_REPAIR`, the state in `TCP_INFO`, the lengths of the queues, and the reset.
//!
//! See [tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html) and `linux/tcp.h`, from which numbers and layouts are.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, c_void, socklen_t};
use listener::TcpState;
use socket2::SockRef;
use tokio::io::ReadBuf;
use wire::SeqNum;

const TCP_INFO: c_int = 11;
const TCP_REPAIR: c_int = 19;
const TCP_REPAIR_QUEUE: c_int = 20;
const TCP_QUEUE_SEQ: c_int = 21;
const TCP_REPAIR_OPTIONS: c_int = 22;
const TCP_TIMESTAMP: c_int = 24;
const TCP_REPAIR_WINDOW: c_int = 29;
/// Both the option and the type of the message.
pub(crate) const TCP_INQ: c_int = 36;

/// The mode a socket is in with regard to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Calls change the socket's state and send no packet. Needs CAP_NET_ADMIN.
    On = 1,
    /// Back to normal, without the window probe that plain "off" sends (`TCP_REPAIR_OFF_NO_WP`, Linux 4.19).
    Off = -1,
}

/// The queue that sequence numbers and `send` mean while in repair mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// What the peer sent and the application has not read.
    Receive = 1,
    /// What the application wrote and the peer has not acknowledged.
    Send = 2,
}

/// `struct tcp_repair_opt`: the kind of a TCP option and a value, whose meaning depends on the kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RepairOption {
    code: u32,
    value: u32,
}

impl RepairOption {
    /// The largest segment the peer accepts.
    pub(crate) fn mss(peer: u16) -> RepairOption {
        RepairOption { code: 2, value: u32::from(peer) }
    }

    /// Both shifts: the peer's windows by `peer`, ours by `local`.
    pub(crate) fn window_scale(peer: u8, local: u8) -> RepairOption {
        RepairOption { code: 3, value: u32::from(peer) | u32::from(local) << 16 }
    }

    /// Selective acknowledgments in use.
    pub(crate) const SACK: RepairOption = RepairOption { code: 4, value: 0 };
    /// Timestamps in use.
    pub(crate) const TIMESTAMPS: RepairOption = RepairOption { code: 8, value: 0 };
}

/// `struct tcp_repair_window`. Kernels that know more fields take this shorter form too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RepairWindow {
    /// Sequence number of the segment that last set `snd_wnd` (SND.WL1).
    pub(crate) snd_wl1: u32,
    /// The peer's window in bytes, scaled already.
    pub(crate) snd_wnd: u32,
    /// The largest `snd_wnd` there ever was.
    pub(crate) max_window: u32,
    /// Our window in bytes, counted from `rcv_wup`.
    pub(crate) rcv_wnd: u32,
    /// What we had acknowledged when we advertised `rcv_wnd`.
    pub(crate) rcv_wup: u32,
}

/// Enters or leaves repair mode (`TCP_REPAIR`).
pub(crate) fn set_repair(socket: &impl AsFd, repair: Repair) -> io::Result<()> {
    set(socket, TCP_REPAIR, &(repair as c_int))
}

/// Selects a queue (`TCP_REPAIR_QUEUE`).
pub(crate) fn set_repair_queue(socket: &impl AsFd, queue: Queue) -> io::Result<()> {
    set(socket, TCP_REPAIR_QUEUE, &(queue as c_int))
}

/// Sets the next sequence number of the selected queue (`TCP_QUEUE_SEQ`). Only before `connect`.
pub(crate) fn set_queue_seq(socket: &impl AsFd, seq: SeqNum) -> io::Result<()> {
    set(socket, TCP_QUEUE_SEQ, &seq.value())
}

/// The next sequence number of the selected queue (`TCP_QUEUE_SEQ`): RCV.NXT for the receive queue.
pub(crate) fn queue_seq(socket: &impl AsFd) -> io::Result<SeqNum> {
    get::<u32>(socket, TCP_QUEUE_SEQ).map(SeqNum::new)
}

/// Puts options into force as if a handshake had agreed on them (`TCP_REPAIR_OPTIONS`). Only before the first byte is sent.
pub(crate) fn set_repair_options(socket: &impl AsFd, options: &[RepairOption]) -> io::Result<()> {
    set(socket, TCP_REPAIR_OPTIONS, options)
}

/// Sets the clock from which the socket's TSval are taken (`TCP_TIMESTAMP`).
///
/// Since Linux 6.7 the lowest bit is not part of the time: it selects a clock that ticks in microseconds.
pub(crate) fn set_timestamp(socket: &impl AsFd, tsval: u32) -> io::Result<()> {
    set(socket, TCP_TIMESTAMP, &tsval)
}

/// The TSval the socket would send now, in milliseconds, with its lowest bit cleared since Linux 6.7 (`TCP_TIMESTAMP`).
pub(crate) fn timestamp(socket: &impl AsFd) -> io::Result<u32> {
    get::<u32>(socket, TCP_TIMESTAMP)
}

/// Sets both windows (`TCP_REPAIR_WINDOW`).
pub(crate) fn set_repair_window(socket: &impl AsFd, window: &RepairWindow) -> io::Result<()> {
    set(socket, TCP_REPAIR_WINDOW, window)
}

/// Loads the eBPF program `return 0`, which as a socket's filter drops all packets
/// ([bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), `BPF_PROG_LOAD`).
///
/// Fails with EPERM without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) in the initial user namespace, unless users may load programs.
pub(crate) fn load_drop_all() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
    /// Eight bytes each, of which only the first, the operation, is not zero: `r0 = 0; exit`.
    const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_SOCKET_FILTER,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        ..ProgramLoad::default()
    };
    // SAFETY: the kernel reads `attributes` for the length given, and through its two addresses `INSTRUCTIONS` and a
    // C string, all of which live until the call is over. It writes nothing: no log was asked for.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<ProgramLoad>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave us a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes those left out for zero.
#[repr(C)]
#[derive(Debug, Default)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
}

/// Makes an eBPF program the socket's filter (`SO_ATTACH_BPF`), in the place of any other.
pub(crate) fn attach_program(socket: &impl AsFd, program: &OwnedFd) -> io::Result<()> {
    set_at(libc::SOL_SOCKET, socket, libc::SO_ATTACH_BPF, &program.as_raw_fd())
}

/// Has the kernel tell with each recvmsg(2) that has room for it how much is left (`TCP_INQ`, Linux 4.18). Connections have it from their listener.
pub(crate) fn tell_when_empty(socket: &impl AsFd) -> io::Result<()> {
    set(socket, TCP_INQ, &1_i32)
}

/// The state of a TCP socket: the first byte of `TCP_INFO`.
pub(crate) fn tcp_state(socket: &impl AsFd) -> io::Result<TcpState> {
    let number = get::<u8>(socket, TCP_INFO)?;
    TcpState::from_linux(number).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Since payload last came or was sent: the less of `tcpi_last_data_sent` and `tcpi_last_data_recv` of `TCP_INFO`, which are milliseconds.
pub(crate) fn quiet(socket: &impl AsFd) -> io::Result<Duration> {
    let words = get::<[u32; 14]>(socket, TCP_INFO)?;
    Ok(Duration::from_millis(words[11].min(words[13]).into()))
}

/// Bytes that came in and were not read, a FIN not counted (`SIOCINQ`).
pub(crate) fn unread_bytes(socket: &impl AsFd) -> io::Result<u32> {
    queued_bytes(socket, libc::FIONREAD)
}

/// Sequence numbers that were written and are not acknowledged (`SIOCOUTQ`): bytes, and one for a FIN.
pub(crate) fn unacked_len(socket: &impl AsFd) -> io::Result<u32> {
    queued_bytes(socket, libc::TIOCOUTQ)
}

/// [ioctl(2)](https://man7.org/linux/man-pages/man2/ioctl.2.html) that tells the length of a queue.
fn queued_bytes(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<u32> {
    let mut len: c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and both requests write one `int`, which `len` is.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(len).unwrap_or(0))
}

/// Ends a connection at once, whoever else holds its descriptor: RST to the peer, both queues emptied, and an error (ECONNRESET) for
/// whoever reads, writes or waits ([connect(2)](https://man7.org/linux/man-pages/man2/connect.2.html) to `AF_UNSPEC`).
pub(crate) fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    // SAFETY: `sockaddr` is integers, for which zero is a value.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let len = size_of::<libc::sockaddr>() as socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel only reads, `len` bytes that `nowhere` has.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads into what is free of a buffer, without zeroing it first.
pub(crate) fn recv(socket: &impl AsFd, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: it is only handed to recv(2), which writes bytes and nothing uninitialised.
    let free = unsafe { buf.unfilled_mut() };
    let len = SockRef::from(socket).recv(free)?;
    // SAFETY: recv(2) has written the first `len` bytes of what was free.
    unsafe { buf.assume_init(len) };
    buf.advance(len);
    Ok(len)
}

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenQueue {
    /// Connections that wait.
    pub waiting: u32,
    /// So many may.
    pub limit: u32,
}

/// The accept queue of a listening socket: of those, `TCP_INFO` tells it in the fields `tcpi_unacked` and `tcpi_sacked`.
pub(crate) fn listen_queue(socket: &impl AsFd) -> io::Result<ListenQueue> {
    let words = get::<[u32; 8]>(socket, TCP_INFO)?;
    // The kernel lets one more wait than the backlog says.
    Ok(ListenQueue { waiting: words[6], limit: words[7].saturating_add(1) })
}

/// [setsockopt(2)](https://man7.org/linux/man-pages/man2/setsockopt.2.html) at level TCP. `T` is plain data of the option's layout.
fn set<T: ?Sized>(socket: &impl AsFd, name: c_int, value: &T) -> io::Result<()> {
    set_at(libc::IPPROTO_TCP, socket, name, value)
}

fn set_at<T: ?Sized>(level: c_int, socket: &impl AsFd, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of_val(value) as socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel only reads, `len` bytes that `value` has.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const *value).cast::<c_void>(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Types of which every bit pattern is a value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl<const N: usize> Plain for [u32; N] {}

/// [getsockopt(2)](https://man7.org/linux/man-pages/man2/getsockopt.2.html) at level TCP; an option longer than `T` is cut off.
fn get<T: Plain>(socket: &impl AsFd, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most `len` bytes, which `value` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            value.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bytes were zeroed, the kernel may have written over them, and `Plain` says that any bytes are a `T`.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn layouts_are_those_of_the_kernel_headers() {
        assert_eq!(size_of::<RepairOption>(), 8);
        assert_eq!(size_of::<RepairWindow>(), 20);
        assert_eq!(RepairOption::window_scale(7, 14).value, 0x000e_0007);
    }

    #[test]
    fn state_is_read_from_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_state(&listener).unwrap(), TcpState::Listen);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(tcp_state(&client).unwrap(), TcpState::Established);
    }

    #[test]
    fn quiet_begins_anew_with_each_byte_in_either_direction() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        let both_quiet = |client: &TcpStream| quiet(client).unwrap().min(quiet(&server).unwrap());
        testnet::eventually("some silence", Duration::from_secs(10), || {
            both_quiet(&client) >= Duration::from_millis(100)
        });
        let before = Instant::now();
        client.write_all(b"x").unwrap();
        server.peek(&mut [0]).unwrap();
        for socket in [&client, &server] {
            let quiet = quiet(socket).unwrap();
            assert!(
                quiet <= before.elapsed() + Duration::from_millis(10),
                "{quiet:?}; a tick of the kernel's is 10 ms at most"
            );
        }
    }

    #[test]
    fn lengths_of_the_queues_are_in_bytes_and_a_reset_empties_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"seven b").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        server.peek(&mut [0; 7]).unwrap();
        assert_eq!((unread_bytes(&server).unwrap(), unacked_len(&server).unwrap()), (7, 0));

        let other_handle = server.try_clone().unwrap();
        disconnect(&other_handle).unwrap();
        assert_eq!(server.read(&mut [0; 7]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(server.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn listening_sockets_tell_their_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).listen(7).unwrap();
        assert_eq!(listen_queue(&listener).unwrap(), ListenQueue { waiting: 0, limit: 8 });
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        assert_eq!(listen_queue(&listener).unwrap().waiting, 3);
    }

    #[test]
    fn program_drops_all_packets_until_it_is_detached() {
        let program = match load_drop_all() {
            // Users, and root in a user namespace, may not load programs.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            program => program.unwrap(),
        };
        let [sender, receiver] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        receiver.set_nonblocking(true).unwrap();
        attach_program(&receiver, &program).unwrap();
        sender.send_to(b"dropped", receiver.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        socket2::SockRef::from(&receiver).detach_filter().unwrap();
        sender.send_to(b"passed", receiver.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 6);
    }

    #[test]
    fn error_of_the_call_comes_back() {
        let not_tcp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(tcp_state(&not_tcp).is_err());
        assert!(set_repair_queue(&not_tcp, Queue::Receive).is_err());
    }
}
