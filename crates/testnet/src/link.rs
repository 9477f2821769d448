//! Cables between namespaces.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

use crate::isolated::SKIP;
use crate::namespace::Namespace;
use crate::packet::{Frame, Mac};
use crate::sys;
use crate::wait::{eventually, readable};

/// One end of a veth pair that [`veth`] made.
#[derive(Clone, Debug)]
pub struct Interface {
    namespace: Namespace,
    name: String,
    index: u32,
    mac: Mac,
}

impl Interface {
    fn new(namespace: &Namespace, name: &str) -> Interface {
        let (index, mac) = namespace.run(|| {
            let index = if_nametoindex(name).expect("index of an interface just made");
            let socket = sys::packet_socket().expect("packet socket: CAP_NET_RAW is needed");
            sys::bind_packet(socket.as_fd(), index, 0).expect("bind to an interface just made");
            (index, sys::packet_mac(socket.as_fd()).expect("address of an interface just made"))
        });
        Interface { namespace: namespace.clone(), name: name.to_owned(), index, mac }
    }

    /// The namespace this end is in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name in that namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index in that namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The Ethernet address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sets the MTU in bytes of this end. The other end keeps its own.
    pub fn set_mtu(&self, bytes: u32) {
        self.namespace.ip(&format!("link set {} mtu {bytes}", self.name));
    }

    /// Has TCP of this end's namespace cut its data into single segments, as before a device without offloads.
    ///
    /// Holds for connections made from now on.
    pub fn send_single_segments(&self) {
        self.namespace.ip(&format!("link set {} gso_max_segs 1", self.name));
    }

    /// Switches this end off, which takes its IPv6 addresses away.
    pub fn down(&self) {
        self.namespace.ip(&format!("link set {} down", self.name));
    }

    /// Switches this end on again. It may take a moment until it carries frames: see [`wait_until_up`](Self::wait_until_up).
    pub fn up(&self) {
        self.namespace.ip(&format!("link set {} up", self.name));
    }

    /// Waits until frames that are sent through this end are not lost: the kernel takes notice of a carrier by the way,
    /// and on a busy machine that can be seconds later.
    pub fn wait_until_up(&self) {
        const PATIENCE: Duration = Duration::from_secs(30);
        let show = format!("-oneline link show {}", self.name);
        let is_up = || self.namespace.output("ip", &show).contains(" state UP ");
        eventually("the interface is up", PATIENCE, is_up);
    }

    /// Pulls the cable out: both ends are gone, with their addresses.
    pub fn remove(self) {
        self.namespace.ip(&format!("link del {}", self.name));
    }
}

/// Lays a cable between two namespaces: a veth pair, up, with its addresses usable on return, and known to the other end:
/// on a busy machine the question for an address may stay unanswered until a client gives up.
///
/// Each end is (namespace, interface name, addresses with prefix length). Offloads stay as the kernel sets them, so
/// frames of a kernel at the other end arrive with unfinished checksums and larger than the MTU.
///
/// # Panics
/// When `ip` is missing or refuses.
pub fn veth(a: (&Namespace, &str, &[&str]), b: (&Namespace, &str, &[&str])) -> (Interface, Interface) {
    a.0.ip(&format!("link add name {} type veth peer name {} netns {}", a.1, b.1, b.0.path()));
    for (namespace, name, addresses) in [a, b] {
        namespace.ip(&format!("link set {name} up"));
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev {name} {nodad}"));
        }
    }
    let ends = (Interface::new(a.0, a.1), Interface::new(b.0, b.1));
    for (near, far, addresses) in [(&ends.0, &ends.1, b.2), (&ends.1, &ends.0, a.2)] {
        near.wait_until_up();
        for address in addresses {
            let (address, _prefix_len) = address.split_once('/').expect("an address with a prefix length");
            near.namespace.neighbour(address.parse().expect("an IP address"), far.mac, &near.name);
        }
    }
    ends
}

/// A tun device: an interface without a link layer, whose other end is this handle.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device, up, with these addresses.
    ///
    /// # Panics
    /// When it cannot be made; if that is because `/dev/net/tun` cannot be opened, the message says what to do.
    pub fn new(namespace: &Namespace, name: &str, addresses: &[&str]) -> Tun {
        let file = namespace.run(|| {
            // The device belongs to the namespace in which the file was opened.
            let mut open = OpenOptions::new();
            let file = open.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
            let file = file.unwrap_or_else(|error| panic!("{}", explain_no_tun(&error)));
            sys::tun_attach(file.as_fd(), name).expect("make a tun device in a namespace of our own");
            file
        });
        namespace.ip(&format!("link set {name} up"));
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev {name} {nodad}"));
        }
        Tun { file }
    }

    /// Hands an IP packet to the kernel, as if it came in through the device.
    pub fn send(&self, packet: &[u8]) {
        let sent = (&self.file).write(packet).expect("write to a tun device");
        assert_eq!(sent, packet.len());
    }

    /// The next TCP segment that goes out through the device, waiting for one `within` this time.
    pub fn next(&self, within: Duration) -> Option<Frame> {
        let deadline = Instant::now() + within;
        let mut packet = [0; 70_000];
        loop {
            match (&self.file).read(&mut packet) {
                Ok(len) => {
                    let frame = Frame::parse_packet(&packet[..len]);
                    if frame.is_some() {
                        return frame;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !readable(self.file.as_fd(), deadline) {
                        return None;
                    }
                }
                Err(error) => panic!("read from a tun device: {error}"),
            }
        }
    }
}

fn explain_no_tun(error: &io::Error) -> String {
    format!(
        "cannot open /dev/net/tun: {error}\n\
         It needs the module `tun`, and in a container the device (--device /dev/net/tun), readable for this user.\n\
         To go on without the tests that need rights, this one among them, set {SKIP}=1."
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::packet::{Flags, Segment};
    use crate::{Tap, isolated};

    #[test]
    fn kernels_talk_over_a_veth_in_both_families() {
        isolated!(|| {
            let (a, b) = (Namespace::new(), Namespace::new());
            let ends = veth(
                (&a, "veth-a", &["198.18.0.1/24", "2001:db8::1/64"]),
                (&b, "veth-b", &["198.18.0.2/24", "2001:db8::2/64"]),
            );
            assert_ne!(ends.0.mac(), ends.1.mac());
            for address in ["198.18.0.1:80", "[2001:db8::1]:80"] {
                let listener = a.run(|| TcpListener::bind(address).unwrap());
                let mut client = b.run(|| TcpStream::connect(address).unwrap());
                client.write_all(b"hello").unwrap();
                drop(client);
                let mut text = String::new();
                listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
                assert_eq!(text, "hello");
            }
        });
    }

    #[test]
    fn single_segments_are_what_is_asked_for() {
        isolated!(|| {
            let (a, b) = (Namespace::new(), Namespace::new());
            let (far, near) = veth((&a, "veth-a", &["198.18.0.1/24"]), (&b, "veth-b", &["198.18.0.2/24"]));
            let listener = a.run(|| TcpListener::bind("198.18.0.1:80").unwrap());
            let largest = || {
                let tap = Tap::new(&far);
                b.run(|| TcpStream::connect("198.18.0.1:80").unwrap()).write_all(&[7; 9000]).unwrap();
                listener.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap();
                let (mut most, end) = (0, Duration::from_secs(5));
                tap.find(end, |frame| {
                    most = most.max(frame.ip_len);
                    frame.flags.has(Flags::FIN)
                });
                most
            };
            assert!(largest() > 1500);
            near.send_single_segments();
            assert_eq!(largest(), 1500);
        });
    }

    #[test]
    fn a_cable_can_be_pulled_and_laid_again() {
        isolated!(|| {
            let (a, b) = (Namespace::new(), Namespace::new());
            for _ in 0..2 {
                let (far, _near) = veth((&a, "veth-a", &["198.18.0.1/24"]), (&b, "veth-b", &["198.18.0.2/24"]));
                let listener = a.run(|| TcpListener::bind("198.18.0.1:80").unwrap());
                b.run(|| TcpStream::connect("198.18.0.1:80").unwrap());
                listener.accept().unwrap();
                far.remove();
                assert!(a.run(|| TcpListener::bind("198.18.0.1:81")).is_err());
            }
        });
    }

    #[test]
    fn a_tun_device_carries_bare_ip_packets() {
        isolated!(|| {
            let namespace = Namespace::new();
            let tun = Tun::new(&namespace, "tun0", &["198.18.7.1/24"]);
            let listener = namespace.run(|| TcpListener::bind("198.18.7.1:80").unwrap());
            let (client, server) = ("198.18.7.2:1025".parse().unwrap(), listener.local_addr().unwrap());
            // A device that has just come up may lose the first packets: a client repeats its SYN.
            let knock = |_| {
                tun.send(&Segment::new(client, server, Flags::SYN).seq(7).packet());
                tun.next(Duration::from_millis(200))
            };
            let answer = (0..50).find_map(knock).expect("an answer to one of 50 SYNs");
            assert_eq!((answer.src, answer.dst, answer.ack), (server, client, 8));
            assert!(answer.flags.is_syn_ack());
        });
    }
}
