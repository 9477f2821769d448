//! A client that speaks TCP by script.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::link::Interface;
use crate::packet::{Flags, Frame, Mac, Segment, options};
use crate::tap::Tap;

/// How long a scripted client waits for an answer before the test fails. Longer than a few retransmissions, and than a
/// busy machine takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a scripted client sends again: the least timeout of RFC 6298 §2.4. Linux goes below it, but a busy machine may
/// take as long.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(1);

/// A host made of one packet socket.
///
/// Its address belongs to no kernel: nobody else answers for it, neither with RST nor with ARP. The other end of the
/// cable learns its Ethernet address by a permanent neighbour entry.
#[derive(Debug)]
pub struct RawHost {
    tap: Tap,
    address: IpAddr,
    mac: Mac,
    peer_mac: Mac,
}

impl RawHost {
    /// A host with this address at the near end of a cable, known at the far end.
    pub fn new(near: &Interface, far: &Interface, address: &str) -> RawHost {
        let address = address.parse().expect("an IP address");
        far.namespace().neighbour(address, near.mac(), far.name());
        RawHost { tap: Tap::new(near), address, mac: near.mac(), peer_mac: far.mac() }
    }

    /// The socket underneath: sees all frames, not only those for this host.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// An endpoint of this host.
    pub fn endpoint(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Sends a segment to the far end of the cable.
    pub fn send(&self, segment: &Segment) {
        self.tap.send(&segment.frame(self.mac, self.peer_mac));
    }

    /// Sends an IPv4 segment as fragments of `body_len` bytes each.
    pub fn send_fragments(&self, segment: &Segment, body_len: usize) {
        segment.fragments(self.mac, self.peer_mac, body_len).iter().for_each(|fragment| self.tap.send(fragment));
    }

    /// A scripted connection from a port of this host; nothing is sent yet.
    pub fn script(&self, port: u16, server: SocketAddr) -> Script<'_> {
        Script {
            host: self,
            local: self.endpoint(port),
            server,
            iss: 0x1000_0000 | u32::from(port),
            snd_nxt: 0,
            rcv_nxt: 0,
            fin_seen: false,
            clock: None,
        }
    }
}

/// Our side of the timestamp clock (RFC 7323).
#[derive(Clone, Copy, Debug)]
struct Clock {
    base: u32,
    start: Instant,
    echo: u32,
}

impl Clock {
    fn now(&self) -> u32 {
        self.base.wrapping_add(self.start.elapsed().as_millis() as u32)
    }
}

/// One connection of a [`RawHost`], driven segment by segment.
///
/// It keeps the two sequence numbers and the timestamps, and sends nothing but what the script says.
#[derive(Debug)]
pub struct Script<'a> {
    host: &'a RawHost,
    local: SocketAddr,
    server: SocketAddr,
    iss: u32,
    /// The next sequence number to send. A script may set it.
    pub snd_nxt: u32,
    /// The next sequence number expected from the server. A script may set it.
    pub rcv_nxt: u32,
    fin_seen: bool,
    clock: Option<Clock>,
}

impl Script<'_> {
    /// Offers timestamps in the SYN, with a clock that starts here.
    pub fn with_timestamps(mut self, base: u32) -> Self {
        self.clock = Some(Clock { base, start: Instant::now(), echo: 0 });
        self
    }

    /// Another initial sequence number than the one made from the port.
    pub fn with_iss(mut self, iss: u32) -> Self {
        self.iss = iss;
        self
    }

    /// Our initial sequence number.
    pub fn iss(&self) -> u32 {
        self.iss
    }

    /// Our endpoint.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The SYN of this connection, with MSS, SACK-permitted and window scale 7, and timestamps where they are offered.
    pub fn syn_segment(&self) -> Segment {
        let syn = Segment::new(self.local, self.server, Flags::SYN).seq(self.iss);
        match self.clock {
            Some(clock) => syn.options(options::typical_syn(1460, clock.now())),
            None => syn.options(
                [&options::mss(1460)[..], &options::SACK_PERMITTED, &options::NOP, &options::wscale(7)].concat(),
            ),
        }
    }

    /// Sends the SYN.
    pub fn syn(&mut self) {
        self.host.send(&self.syn_segment());
        self.snd_nxt = self.iss.wrapping_add(1);
    }

    /// Waits for the SYN-ACK, checks that it answers our SYN, and notes its sequence number and timestamp.
    pub fn expect_syn_ack(&mut self) -> Frame {
        let frame = self.expect("a SYN-ACK", |frame| frame.flags.is_syn_ack());
        assert_eq!(frame.ack, self.iss.wrapping_add(1), "a SYN-ACK acknowledges the SYN alone: {frame:?}");
        assert_eq!(frame.timestamps().is_some(), self.clock.is_some(), "timestamps only if offered: {frame:?}");
        self.rcv_nxt = frame.seq.wrapping_add(1);
        frame
    }

    /// SYN, SYN-ACK, ACK.
    pub fn handshake(&mut self) {
        self.syn();
        self.expect_syn_ack();
        self.ack();
    }

    /// A segment at the current sequence numbers, with timestamps where they were agreed.
    pub fn segment(&self, flags: Flags) -> Segment {
        let segment = Segment::new(self.local, self.server, flags).seq(self.snd_nxt).ack(self.rcv_nxt).window(u16::MAX);
        match self.clock {
            Some(clock) => segment.options([&[1, 1][..], &options::timestamps(clock.now(), clock.echo)].concat()),
            None => segment,
        }
    }

    /// Sends a segment as it is; the sequence numbers stay.
    pub fn send(&self, segment: &Segment) {
        self.host.send(segment);
    }

    /// Acknowledges all that was received.
    pub fn ack(&self) {
        self.send(&self.segment(Flags::ACK));
    }

    /// Sends data.
    pub fn data(&mut self, bytes: &[u8]) {
        self.send(&self.segment(Flags::ACK | Flags::PSH).payload(bytes));
        self.snd_nxt = self.snd_nxt.wrapping_add(bytes.len() as u32);
    }

    /// Sends FIN.
    pub fn fin(&mut self) {
        self.send(&self.segment(Flags::FIN | Flags::ACK));
        self.snd_nxt = self.snd_nxt.wrapping_add(1);
    }

    /// The next segment of this connection, or `None` when none comes in that time.
    pub fn next(&mut self, within: Duration) -> Option<Frame> {
        let (local, server) = (self.local, self.server);
        let frame = self.host.tap.find(within, |frame| frame.dst == local && frame.src == server)?;
        if let (Some(clock), Some((value, _))) = (&mut self.clock, frame.timestamps()) {
            clock.echo = value;
        }
        Some(frame)
    }

    /// The next segment of this connection for which `wanted` holds; others are passed over.
    ///
    /// # Panics
    /// When none comes in 10 s; the message names `what`, and what came instead.
    pub fn expect(&mut self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let (deadline, mut others) = (Instant::now() + PATIENCE, Vec::new());
        while let Some(frame) = self.next(deadline.saturating_duration_since(Instant::now())) {
            assert_ne!(frame.sum, crate::packet::Sum::Wrong, "a checksum is wrong: {frame:?}");
            if wanted(&frame) {
                return frame;
            }
            others.push(frame);
        }
        panic!("{} waited for {what}, saw {others:#?}", self.local);
    }

    /// Waits for a pure acknowledgment of everything sent.
    pub fn expect_ack(&mut self) -> Frame {
        let all = self.snd_nxt;
        self.expect("an ACK of everything", move |frame| frame.ack == all && frame.flags.has(Flags::ACK))
    }

    /// Reads `len` bytes in order, acknowledges each segment, and returns the bytes.
    ///
    /// A FIN on the last segment is noted and acknowledged too.
    pub fn expect_data(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let expected = self.rcv_nxt;
            let frame = self.expect("data in order", |frame| frame.seq == expected && !frame.payload.is_empty());
            bytes.extend(&frame.payload);
            self.fin_seen = frame.flags.has(Flags::FIN);
            self.rcv_nxt = self.rcv_nxt.wrapping_add(frame.payload.len() as u32 + u32::from(self.fin_seen));
            self.ack();
        }
        assert_eq!(bytes.len(), len, "more than was expected");
        bytes
    }

    /// Sends these segments back to back right now, and reads `len` bytes meanwhile. What is not acknowledged in time
    /// is sent again, as any client would.
    ///
    /// Returns the bytes read, and how often it had to send again.
    pub fn exchange(&mut self, segments: &[&[u8]], len: usize) -> (Vec<u8>, usize) {
        let start = self.snd_nxt;
        segments.iter().for_each(|segment| self.data(segment));
        let (end, deadline) = (self.snd_nxt, Instant::now() + PATIENCE);
        let (mut acked, mut bytes, mut repeats) = (start, Vec::new(), 0);
        while acked != end || bytes.len() < len {
            assert!(Instant::now() < deadline, "{}: {} of {len} bytes, {acked} of {end}", self.local, bytes.len());
            let Some(frame) = self.next(RETRANSMISSION_TIMEOUT) else {
                repeats += 1;
                self.repeat(segments, start, acked);
                continue;
            };
            if frame.ack.wrapping_sub(acked) <= end.wrapping_sub(acked) {
                acked = frame.ack;
            }
            if frame.seq == self.rcv_nxt && !frame.payload.is_empty() {
                bytes.extend(&frame.payload);
                self.rcv_nxt = self.rcv_nxt.wrapping_add(frame.payload.len() as u32);
                self.ack();
            }
        }
        (bytes, repeats)
    }

    /// Sends again the segments from `acked` on; the first began at `start`.
    fn repeat(&mut self, segments: &[&[u8]], start: u32, acked: u32) {
        self.snd_nxt = start;
        for segment in segments {
            let is_new = self.snd_nxt.wrapping_sub(start) >= acked.wrapping_sub(start);
            if is_new {
                self.data(segment);
            } else {
                self.snd_nxt = self.snd_nxt.wrapping_add(segment.len() as u32);
            }
        }
    }

    /// Whether the server's FIN came on the last of the data.
    pub fn has_seen_fin(&self) -> bool {
        self.fin_seen
    }

    /// Waits for the server's FIN behind everything received, and notes it. It is not acknowledged yet.
    pub fn expect_fin(&mut self) -> Frame {
        let expected = self.rcv_nxt;
        let end = |frame: &Frame| frame.seq.wrapping_add(frame.payload.len() as u32);
        let frame = self.expect("a FIN", |frame| frame.flags.has(Flags::FIN) && end(frame) == expected);
        self.rcv_nxt = expected.wrapping_add(1);
        frame
    }

    /// Passes over what still comes, until nothing does for this long.
    pub fn drain(&mut self, quiet: Duration) {
        while self.next(quiet).is_some() {}
    }

    /// Checks that nothing more comes for this connection.
    pub fn expect_silence(&mut self, time: Duration) {
        if let Some(frame) = self.next(time) {
            panic!("{} wanted silence, got {frame:?}", self.local);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::*;
    use crate::{Counters, Namespace, eventually, isolated, veth};

    /// A kernel listener at each family's address, and a raw host at the other end of the cable.
    fn with_listeners(body: impl Fn(&TcpListener, &RawHost, SocketAddr)) {
        let (server, client) = (Namespace::new(), Namespace::new());
        let (far, near) = veth(
            (&server, "srv0", &["198.18.0.1/24", "2001:db8::1/64"]),
            (&client, "cli0", &["198.18.0.2/24", "2001:db8::2/64"]),
        );
        for (address, host) in [("198.18.0.1:80", "198.18.0.77"), ("[2001:db8::1]:80", "2001:db8::77")] {
            let listener = server.run(|| TcpListener::bind(address).unwrap());
            body(&listener, &RawHost::new(&near, &far, host), address.parse().unwrap());
        }
        assert_eq!(Counters::of(&client).get("TcpOutRsts"), 0, "the client's kernel interfered");
        assert_eq!(Counters::of(&server).get("TcpInCsumErrors"), 0);
    }

    #[test]
    fn a_script_lives_a_whole_connection() {
        isolated!(|| {
            with_listeners(|listener, host, server| {
                let mut script = host.script(1025, server).with_timestamps(77);
                script.handshake();
                script.data(b"question");
                let mut stream = listener.accept().unwrap().0;
                let mut question = [0; 8];
                stream.read_exact(&mut question).unwrap();
                assert_eq!(&question, b"question");
                stream.write_all(&[7; 4000]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(script.expect_data(4000), [7; 4000]);
                script.expect_fin();
                script.fin();
                script.expect_ack();
                assert_eq!(stream.read(&mut question).unwrap(), 0);
            });
        });
    }

    #[test]
    fn a_bad_checksum_gets_no_answer() {
        isolated!(|| {
            let (server, client) = (Namespace::new(), Namespace::new());
            let (far, near) = veth((&server, "srv0", &["198.18.0.1/24"]), (&client, "cli0", &["198.18.0.2/24"]));
            let _listener = server.run(|| TcpListener::bind("198.18.0.1:80").unwrap());
            let host = RawHost::new(&near, &far, "198.18.0.77");
            let mut script = host.script(1025, "198.18.0.1:80".parse().unwrap());
            script.send(&script.syn_segment().checksum(crate::Checksum::Wrong));
            let refused = || Counters::of(&server).get("TcpInCsumErrors") == 1;
            eventually("the kernel looked at it", PATIENCE, refused);
            script.expect_silence(Duration::from_millis(100));
        });
    }
}
