//! Cables between namespaces.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

use crate::namespace::Namespace;
use crate::packet::{Frame, Mac};
use crate::sys;
use crate::wait::readable;

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
}

/// Lays a cable between two namespaces: a veth pair, up, with its addresses usable on return.
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
    (Interface::new(a.0, a.1), Interface::new(b.0, b.1))
}

/// A tun device: an interface without a link layer, whose other end is this handle.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device, up, with these addresses. `None` when `/dev/net/tun` may not be opened.
    ///
    /// # Panics
    /// When the device can be opened, but no interface made or no address given.
    pub fn new(namespace: &Namespace, name: &str, addresses: &[&str]) -> Option<Tun> {
        let file = namespace.run(|| {
            // The device belongs to the namespace in which the file was opened.
            let mut open = OpenOptions::new();
            let file = open.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").ok()?;
            sys::tun_attach(file.as_fd(), name).expect("make a tun device in a namespace of our own");
            Some(file)
        })?;
        namespace.ip(&format!("link set {name} up"));
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev {name} {nodad}"));
        }
        Some(Tun { file })
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::isolated;
    use crate::packet::{Flags, Segment};

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
    fn a_tun_device_carries_bare_ip_packets() {
        isolated!(|| {
            let namespace = Namespace::new();
            let Some(tun) = Tun::new(&namespace, "tun0", &["198.18.7.1/24"]) else {
                println!("no tun here");
                return;
            };
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
