//! Packets with spoofed sources, as fast as one core makes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::link::Interface;
use crate::packet::{Flags, Mac, Segment, options};
use crate::random::XorShift;
use crate::{checksum, sys};

/// Frames handed to the kernel per system call: more brings nothing, fewer cost.
const BATCH: usize = 128;

/// What each packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodKind {
    /// A SYN as Linux sends it, with a random sequence number.
    Syn,
    /// An ACK with random sequence and acknowledgment numbers and timestamps: a guess at a cookie.
    Ack,
}

/// Where the packets claim to come from: a prefix, whose host bits are random, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    network: IpAddr,
    host_bits: u32,
    port: Option<u16>,
}

impl Sources {
    /// Random addresses of a prefix, written as `198.19.0.0/16`, and random ports.
    ///
    /// # Panics
    /// When that is no prefix.
    pub fn random(prefix: &str) -> Sources {
        let parsed = prefix.split_once('/').and_then(|(network, len)| {
            let network: IpAddr = network.parse().ok()?;
            let bits = if network.is_ipv4() { 32u32 } else { 128 };
            Some(Sources { network, host_bits: bits.checked_sub(len.parse().ok()?)?, port: None })
        });
        parsed.unwrap_or_else(|| panic!("not a prefix: {prefix}"))
    }

    /// One address, random ports.
    pub fn one(address: IpAddr) -> Sources {
        Sources { network: address, host_bits: 0, port: None }
    }

    /// One address and port: the same 4-tuple over and over.
    pub fn same_tuple(source: SocketAddr) -> Sources {
        Sources { network: source.ip(), host_bits: 0, port: Some(source.port()) }
    }
}

/// A flood to be started.
#[derive(Clone, Copy, Debug)]
pub struct FloodSpec {
    /// What each packet is.
    pub kind: FloodKind,
    /// Where the packets go.
    pub target: SocketAddr,
    /// Where they claim to come from; of the target's family.
    pub sources: Sources,
    /// The same seed gives the same packets.
    pub seed: u64,
}

/// What a flood did.
#[derive(Clone, Copy, Debug)]
pub struct FloodReport {
    /// Packets the kernel took.
    pub sent: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl FloodReport {
    /// Packets per second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64()
    }
}

/// A running flood: one thread that does nothing else. It ends when the handle is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    start: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts flooding from the near end of a cable to the far end.
    ///
    /// # Panics
    /// When sources and target are of two families, and without CAP_NET_RAW.
    pub fn start(near: &Interface, far: &Interface, spec: FloodSpec) -> Flood {
        let socket = near.namespace().run(|| {
            let socket = sys::packet_socket().expect("packet socket: CAP_NET_RAW is needed");
            sys::bind_packet(socket.as_fd(), near.index(), 0).expect("bind packet socket");
            sys::set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1).expect("qdisc bypass");
            socket
        });
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut batch = Batch::new(spec, near.mac(), far.mac());
        let (thread_stop, thread_sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            while !thread_stop.load(Ordering::Relaxed) {
                batch.renew();
                thread_sent.fetch_add(send(&socket, &batch.frames, batch.frame_len), Ordering::Relaxed);
            }
        });
        Flood { stop, sent, start: Instant::now(), thread: Some(thread) }
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and tells what was done.
    ///
    /// # Panics
    /// When sending failed for another reason than a full queue.
    pub fn stop(mut self) -> FloodReport {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood's thread");
        }
        FloodReport { sent: self.sent(), elapsed: self.start.elapsed() }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was printed; a second one while dropping would abort.
            let _ = thread.join();
        }
    }
}

/// Sends what the queue takes; a full queue is no error, the packets are just not sent.
fn send(socket: &OwnedFd, frames: &[u8], frame_len: usize) -> u64 {
    match sys::send_frames(socket.as_fd(), frames, frame_len) {
        Ok(sent) => sent as u64,
        Err(error) if matches!(Errno::from_raw(error.raw_os_error().unwrap_or(0)), Errno::ENOBUFS | Errno::EAGAIN) => 0,
        Err(error) => panic!("flood: {error}"),
    }
}

/// A batch of frames that differ in what is random about them.
///
/// All frames are copies of one template whose variable fields are zero, and so are not in its checksums; a frame
/// gets the fields, and their words added to the sums.
struct Batch {
    spec: FloodSpec,
    random: XorShift,
    template: Vec<u8>,
    frames: Vec<u8>,
    frame_len: usize,
    ip_sum: u64,
    tcp_sum: u64,
}

/// Where the fields are in a frame of either family, and where IPv4 has its header checksum.
struct Layout {
    src: Range<usize>,
    tcp: usize,
}

const ETHERNET_LEN: usize = 14;
const IPV4_SUM: usize = ETHERNET_LEN + 10;
const V4: Layout = Layout { src: 26..30, tcp: 34 };
const V6: Layout = Layout { src: 22..38, tcp: 54 };

impl Batch {
    fn new(spec: FloodSpec, src_mac: Mac, dst_mac: Mac) -> Batch {
        assert_eq!(spec.sources.network.is_ipv4(), spec.target.is_ipv4(), "sources and target of two families");
        let unspecified = match spec.target {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let segment = match spec.kind {
            FloodKind::Syn => Segment::new(unspecified, spec.target, Flags::SYN).options(options::typical_syn(1460, 0)),
            FloodKind::Ack => Segment::new(unspecified, spec.target, Flags::ACK)
                .options([&[1, 1][..], &options::timestamps(0, 0)].concat()),
        };
        let template = segment.frame(src_mac, dst_mac);
        let frame_len = template.len();
        let tcp = layout(spec.target).tcp;
        let sum_at = |at: usize| u64::from(!u16::from_be_bytes([template[at], template[at + 1]]));
        Batch {
            spec,
            random: XorShift::new(spec.seed),
            frames: template.repeat(BATCH),
            frame_len,
            ip_sum: sum_at(IPV4_SUM),
            tcp_sum: sum_at(tcp + 16),
            template,
        }
    }

    /// Gives every frame new fields.
    fn renew(&mut self) {
        for index in 0..BATCH {
            self.renew_frame(index * self.frame_len);
        }
    }

    fn renew_frame(&mut self, at: usize) {
        let Layout { src, tcp } = layout(self.spec.target);
        let frame = &mut self.frames[at..at + self.frame_len];
        frame.copy_from_slice(&self.template);
        match source(&self.spec.sources, &mut self.random) {
            IpAddr::V4(source) => frame[src.clone()].copy_from_slice(&source.octets()),
            IpAddr::V6(source) => frame[src.clone()].copy_from_slice(&source.octets()),
        }
        // Never port 0, which is dropped for its own reason.
        let port = self.spec.sources.port.unwrap_or((self.random.next_u64() as u16).max(1));
        frame[tcp..tcp + 2].copy_from_slice(&port.to_be_bytes());
        let mut tcp_sum = checksum::add(checksum::add(self.tcp_sum, &frame[src.clone()]), &port.to_be_bytes());
        for &(offset, len) in random_fields(self.spec.kind) {
            let field = &mut frame[tcp + offset..][..len];
            self.random.fill(field);
            tcp_sum = checksum::add(tcp_sum, field);
        }
        frame[tcp + 16..tcp + 18].copy_from_slice(&checksum::finish(tcp_sum).to_be_bytes());
        if self.spec.target.is_ipv4() {
            let sum = checksum::finish(checksum::add(self.ip_sum, &frame[src]));
            frame[IPV4_SUM..IPV4_SUM + 2].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// What is random in a TCP header, as (offset, length): the sequence number; for an ACK its acknowledgment and its timestamps too.
fn random_fields(kind: FloodKind) -> &'static [(usize, usize)] {
    match kind {
        FloodKind::Syn => &[(4, 4)],
        FloodKind::Ack => &[(4, 8), (24, 8)],
    }
}

fn layout(target: SocketAddr) -> Layout {
    if target.is_ipv4() { V4 } else { V6 }
}

fn source(sources: &Sources, random: &mut XorShift) -> IpAddr {
    let low = random.next_u64();
    match sources.network {
        IpAddr::V4(network) => {
            let host = low & ((1 << sources.host_bits) - 1);
            Ipv4Addr::from_bits(network.to_bits() | host as u32).into()
        }
        IpAddr::V6(network) => {
            let wide = u128::from(low) | u128::from(random.next_u64()) << 64;
            let host = wide & 1u128.checked_shl(sources.host_bits).unwrap_or(0).wrapping_sub(1);
            Ipv6Addr::from_bits(network.to_bits() | host).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;
    use crate::packet::{Frame, Sum};
    use crate::{Counters, Namespace, eventually, isolated, veth};

    const MAC: Mac = Mac([2; 6]);

    fn frames(kind: FloodKind, target: &str, sources: Sources) -> Vec<Frame> {
        let spec = FloodSpec { kind, target: target.parse().unwrap(), sources, seed: 7 };
        let mut batch = Batch::new(spec, MAC, MAC);
        let len = batch.frame_len;
        batch.renew();
        batch.frames.chunks(len).map(|frame| Frame::parse(frame, None, false).unwrap()).collect()
    }

    #[test]
    fn every_frame_is_well_formed_and_different() {
        let cases = [
            (FloodKind::Syn, "198.18.0.1:80", "198.19.0.0/16"),
            (FloodKind::Ack, "198.18.0.1:80", "198.19.0.0/16"),
            (FloodKind::Syn, "[2001:db8::1]:80", "2001:db8:7::/48"),
            (FloodKind::Ack, "[2001:db8::1]:80", "2001:db8:7::/48"),
        ];
        for (kind, target, prefix) in cases {
            let frames = frames(kind, target, Sources::random(prefix));
            assert!(frames.iter().all(|frame| frame.sum == Sum::Right && frame.dst.to_string() == target));
            assert_eq!(frames.iter().map(|frame| (frame.src, frame.seq)).collect::<HashSet<_>>().len(), BATCH);
            let inside = prefix.split("0.0/").next().unwrap().trim_end_matches("::/48").to_owned();
            assert!(frames.iter().all(|frame| frame.src.ip().to_string().starts_with(&inside)), "{frames:?}");
        }
    }

    #[test]
    fn the_narrow_variants_are_narrow() {
        let one = frames(FloodKind::Syn, "198.18.0.1:80", Sources::one("198.19.0.9".parse().unwrap()));
        assert!(one.iter().all(|frame| frame.src.ip().to_string() == "198.19.0.9"));
        let source = "198.19.0.9:1025".parse().unwrap();
        let same = frames(FloodKind::Syn, "198.18.0.1:80", Sources::same_tuple(source));
        assert!(same.iter().all(|frame| frame.src == source));
    }

    #[test]
    fn a_kernel_listener_takes_the_syns_and_refuses_the_guesses() {
        isolated!(|| {
            let (server, attacker) = (Namespace::new(), Namespace::new());
            let (far, near) =
                veth((&server, "srv0", &["198.18.0.1/24", "198.19.0.1/16"]), (&attacker, "fld0", &["198.19.0.2/16"]));
            let _listener = server.run(|| TcpListener::bind("198.18.0.1:80").unwrap());
            server.sysctl("net.ipv4.tcp_syncookies", "2");
            let mut spec = FloodSpec {
                kind: FloodKind::Syn,
                target: "198.18.0.1:80".parse().unwrap(),
                sources: Sources::random("198.19.0.0/16"),
                seed: 1,
            };
            let count = |name| Counters::of(&server).get(name);
            let flood = Flood::start(&near, &far, spec);
            eventually("cookies for the flood", Duration::from_secs(10), || count("TcpExtSyncookiesSent") > 1000);
            let report = flood.stop();
            assert!(report.sent as i64 >= count("TcpExtSyncookiesSent"), "{report:?}");

            spec.kind = FloodKind::Ack;
            let flood = Flood::start(&near, &far, spec);
            eventually("guesses refused", Duration::from_secs(10), || count("TcpExtSyncookiesFailed") > 1000);
            println!("{:.0} ACK/s", flood.stop().rate());
            assert_eq!(count("TcpInCsumErrors"), 0);
        });
    }
}
