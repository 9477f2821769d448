//! One test for each row of the passive opener's checklist that is this crate's (`spec_NN_...`), then the rest.
//!
//! Segments are written and parsed as bytes, so that the wire crate is part of what is tested.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use wire::{Checksums, Endpoint, OptionBlock, OutgoingSegment, ReplyOptions, SeqNum};

use super::*;
use crate::accepted::{Negotiated, Refusal, Via};
use crate::config::AcceptCookies;
use crate::cookie::Offer;

const LOCAL: &str = "198.18.0.1:80";
const CLIENT: &str = "198.18.0.2:40000";
const IRS: SeqNum = SeqNum::new(0xffff_fff0);
const EPOCH: Epoch = Epoch(1000);
const EVERYTHING: ReplyOptions = ReplyOptions {
    mss: Some(1460),
    wscale: Some(8),
    sack_permitted: true,
    timestamps: Some(TimestampOption { tsval: 5000, tsecr: 0 }),
};
const BARE: ReplyOptions = ReplyOptions { mss: None, wscale: None, sack_permitted: false, timestamps: None };

fn end(text: &str) -> Endpoint {
    Endpoint::from(text.parse::<SocketAddr>().unwrap())
}

/// This host: a few addresses, and the sockets its kernel holds.
#[derive(Default)]
struct FakeHost {
    sockets: HashSet<FourTuple>,
    questions: usize,
    destroyed: Vec<FourTuple>,
}

impl LocalAddresses for FakeHost {
    fn is_local(&self, addr: IpAddr) -> bool {
        let local = ["198.18.0.1", "198.18.0.3", "127.0.0.1", "127.9.9.9", "2001:db8::1", "::1", "fe80::1"];
        local.iter().any(|text| text.parse::<IpAddr>().unwrap() == addr)
    }

    fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        addr == Ipv4Addr::new(198, 18, 0, 255)
    }

    fn mtu_of(&self, addr: IpAddr) -> Option<u32> {
        self.is_local(addr).then_some(1500)
    }
}

impl KernelSockets for FakeHost {
    fn holds(&mut self, tuple: &FourTuple) -> bool {
        self.questions += 1;
        self.sockets.contains(tuple)
    }

    fn destroy(&mut self, tuple: &FourTuple) -> bool {
        self.destroyed.push(*tuple);
        self.sockets.remove(tuple)
    }
}

/// A listener, its host and the hands of its clock.
struct Bench {
    listen: Listen,
    host: FakeHost,
    now: Time,
    epoch: Epoch,
    arrival: Arrival,
}

/// What a client sends; `..Client::default()` fills in the rest.
#[derive(Clone, Copy)]
struct Client {
    from: &'static str,
    to: &'static str,
}

const USUAL: Client = Client { from: CLIENT, to: LOCAL };

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ListenConfig)) -> Bench {
        let bind = ["0.0.0.0:80", "[::]:80", "198.18.0.1:81"].map(|addr| addr.parse().unwrap()).to_vec();
        let mut config = ListenConfig { bind, ..ListenConfig::default() };
        change(&mut config);
        config.validate().unwrap();
        let now = Time::from_secs(100);
        let shared = Arc::new(ListenShared::new(&config, now));
        let seat = WorkerSeat { workers: 1, seed: [1; 16] };
        let listen = Listen::new(config, shared, MasterKey::from_bytes([7; 32]), seat, EPOCH, now);
        let arrival = Arrival { to_us: true, loopback: false, interface: 2, mtu: 1500 };
        // Old enough that no predecessor's cookie can be outstanding.
        Bench { listen, host: FakeHost::default(), now: Time::from_secs(1000), epoch: EPOCH, arrival }
    }

    /// A listener under pressure: its queue is past the high watermark.
    fn under_pressure() -> Bench {
        let mut bench = Bench::with(|config| {
            config.half_open_max = 8;
            config.prefix_share_percent = 100;
        });
        for port in 1..=8 {
            let _ = bench.send(Client { from: "198.18.9.9:1", ..USUAL }.port(port), Flags::SYN, IRS, 0, EVERYTHING);
        }
        assert_eq!(bench.listen.shared.mode(), Mode::Cookies);
        bench
    }

    fn receive(&mut self, packet: &[u8]) -> Disposition {
        let parsed = Packet::parse_ip(packet, packet.len(), Checksums::Verify);
        self.listen.on_packet(parsed, &self.arrival, &mut self.host, self.now)
    }

    fn send_data(
        &mut self,
        tuple: FourTuple,
        flags: Flags,
        seq: SeqNum,
        ack: u32,
        options: ReplyOptions,
        payload: &[u8],
    ) -> Disposition {
        let segment = OutgoingSegment {
            tuple,
            hop_limit: 64,
            seq,
            ack: SeqNum::new(ack),
            flags,
            window: 1000,
            options: OptionBlock::from(options),
            payload,
        };
        let mut buffer = [0; 2048];
        let len = segment.emit(&mut buffer).unwrap();
        self.receive(&buffer[..len])
    }

    fn send(
        &mut self,
        tuple: impl Into<FourTuple>,
        flags: Flags,
        seq: SeqNum,
        ack: u32,
        options: ReplyOptions,
    ) -> Disposition {
        self.send_data(tuple.into(), flags, seq, ack, options, &[])
    }

    /// SYN in, SYN-ACK out.
    fn syn(&mut self, client: impl Into<FourTuple>, options: ReplyOptions) -> Reply {
        reply(self.send(client, Flags::SYN, IRS, 0, options))
    }

    /// The client's answer to a SYN-ACK.
    fn ack(&mut self, client: impl Into<FourTuple>, syn_ack: &Reply) -> Disposition {
        self.send(client, Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), echo(syn_ack))
    }

    fn established(&mut self, accepted: &Accepted) -> Aftermath {
        self.host.sockets.insert(accepted.tuple);
        let early = self.listen.early_data(&accepted.tuple).len() as u32;
        self.listen.established(accepted, early, self.now)
    }

    fn pass(&mut self, span: Duration) -> Vec<Reply> {
        let mut sent = Vec::new();
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(200);
            self.listen.tick(self.now, self.epoch, Duration::from_millis(200), &self.host, |reply| sent.push(reply));
        }
        sent
    }

    fn count(&self, counter: Counter) -> u64 {
        self.listen.stats().get(counter)
    }
}

impl Client {
    fn port(self, port: u16) -> FourTuple {
        let mut tuple = FourTuple::from(self);
        tuple.local.port = port;
        tuple
    }
}

impl From<Client> for FourTuple {
    /// As the client sees it: it is the local end.
    fn from(client: Client) -> FourTuple {
        FourTuple { local: end(client.from), peer: end(client.to) }
    }
}

/// The tuple as the listener sees it.
fn seen(client: Client) -> FourTuple {
    FourTuple { local: end(client.to), peer: end(client.from) }
}

fn reply(disposition: Disposition) -> Reply {
    match disposition {
        Disposition::Reply(reply) => reply,
        other => panic!("expected a reply, not {other:?}"),
    }
}

fn accepted(disposition: Disposition) -> Accepted {
    match disposition {
        Disposition::Accept(accepted) => accepted,
        other => panic!("expected Accept, not {other:?}"),
    }
}

fn dropped(disposition: Disposition) -> DropReason {
    match disposition {
        Disposition::Drop(reason) => reason,
        other => panic!("expected a drop, not {other:?}"),
    }
}

/// The options with which a client answers this SYN-ACK.
fn echo(syn_ack: &Reply) -> ReplyOptions {
    let timestamps = syn_ack.options.timestamps.map(|ts| TimestampOption { tsval: 5001, tsecr: ts.tsval });
    ReplyOptions { timestamps, ..BARE }
}

// ---------------------------------------------------------------------------------------------------- the checklist

#[test]
fn spec_01_listen_rst_is_ignored_and_a_bad_ack_is_reset_with_its_own_number() {
    let mut bench = Bench::new();
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS, 0, BARE)), DropReason::Reset);
    assert_eq!(dropped(bench.send(USUAL, Flags::RST | Flags::ACK, IRS, 9, BARE)), DropReason::Reset);
    let rst = reply(bench.send(USUAL, Flags::ACK, IRS, 0xdead_beef, BARE));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(0xdead_beef)));
    let rst = reply(bench.send(USUAL, Flags::FIN | Flags::ACK, IRS, 7, BARE));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(7)));
    assert_eq!(bench.syn(USUAL, BARE).flags, Flags::SYN | Flags::ACK);
}

#[test]
fn spec_02_a_port_that_is_not_guarded_is_left_to_the_kernel() {
    let mut bench = Bench::new();
    for to in ["198.18.0.1:82", "198.18.0.3:81"] {
        let client = Client { to, ..USUAL };
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::NotGuarded);
        assert_eq!(dropped(bench.send(client, Flags::ACK, IRS, 5, BARE)), DropReason::NotGuarded);
    }
}

#[test]
fn spec_03_syn_received_rst_is_judged_by_rfc_5961() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    // Outside the window: dropped.
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS, 0, BARE)), DropReason::Reset);
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS + 1 + 65535, 0, BARE)), DropReason::Reset);
    assert_eq!(bench.listen.half_open.len(), 1);
    // In the window but not exact: a challenge ACK.
    let challenge = reply(bench.send(USUAL, Flags::RST, IRS + 2, 0, BARE));
    assert_eq!((challenge.flags, challenge.seq, challenge.ack), (Flags::ACK, syn_ack.seq + 1, IRS + 1));
    assert_eq!(u32::from(challenge.window) << 7 | 0x7f, 65535, "scaled, as all but a SYN-ACK's is");
    assert_eq!(challenge.options.timestamps.unwrap().tsecr, 5000);
    assert_eq!(bench.listen.half_open.len(), 1);
    // Exact: back to LISTEN, silently.
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS + 1, 0, BARE)), DropReason::Reset);
    assert_eq!(bench.listen.half_open.len(), 0);
    assert_eq!((bench.count(Counter::HalfOpenReset), bench.count(Counter::ChallengeAcksSent)), (1, 1));
}

#[test]
fn spec_04_syn_received_ack_out_of_range_is_reset_while_calm_and_dropped_under_pressure() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    for wrong in [syn_ack.seq, syn_ack.seq + 2, syn_ack.seq + 1000] {
        let rst = reply(bench.send(USUAL, Flags::ACK, IRS + 1, wrong.value(), echo(&syn_ack)));
        assert_eq!((rst.flags, rst.seq), (Flags::RST, wrong));
    }
    assert_eq!(bench.listen.half_open.len(), 1);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
    let mut bench = Bench::under_pressure();
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS + 1, 77, BARE)), DropReason::BadCookie);
}

#[test]
fn spec_05_a_repeated_syn_gets_the_same_syn_ack_and_a_new_isn_a_new_handshake() {
    for mut bench in [Bench::new(), Bench::under_pressure()] {
        let first = bench.syn(USUAL, EVERYTHING);
        bench.now = bench.now + Duration::from_secs(1);
        let again = bench.syn(USUAL, EVERYTHING);
        assert_eq!((again.seq, again.ack), (first.seq, first.ack));
        let other = reply(bench.send(USUAL, Flags::SYN, IRS + 100, 0, EVERYTHING));
        assert_ne!(other.seq, first.seq);
        assert_eq!(other.ack, IRS + 101);
        // Either can be completed.
        let ack = bench.send(USUAL, Flags::ACK, IRS + 101, (other.seq + 1).value(), echo(&other));
        assert_eq!(accepted(ack).irs, IRS + 100);
    }
}

#[test]
fn spec_05_a_second_syn_on_the_tuple_does_not_undo_the_first() {
    let mut bench = Bench::new();
    let first = bench.syn(USUAL, EVERYTHING);
    let _ = bench.send(USUAL, Flags::SYN, IRS + 100, 0, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &first));
    assert_eq!((accepted.via, accepted.irs), (Via::Queue, IRS));
}

#[test]
fn spec_06_a_syn_for_a_connection_of_the_kernel_is_the_kernels() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS, 1, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN | Flags::ACK, IRS, 1, EVERYTHING)), DropReason::KernelOwns);
}

#[test]
fn spec_06_an_adopted_connection_is_the_kernels_under_pressure_too() {
    let mut bench = Bench::under_pressure();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS + 5, 0, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.ack(USUAL, &syn_ack)), DropReason::KernelOwns);
    assert!(bench.host.destroyed.is_empty());
}

#[test]
fn spec_08_challenge_acks_are_limited_by_the_prefix_not_by_a_global_count() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 50);
    let near = Client { from: "198.18.7.7:1", ..USUAL };
    let _ = bench.syn(near, EVERYTHING);
    let _ = bench.syn(USUAL, EVERYTHING);
    let mut challenges = 0;
    while matches!(bench.send(near, Flags::RST, IRS + 2, 0, BARE), Disposition::Reply(_)) {
        challenges += 1;
    }
    assert!(challenges <= 10, "{challenges}");
    let _ = reply(bench.send(USUAL, Flags::RST, IRS + 2, 0, BARE));
}

#[test]
fn spec_09_data_in_a_syn_is_not_acknowledged_and_comes_again() {
    let mut bench = Bench::new();
    let syn_ack = reply(bench.send_data(USUAL.into(), Flags::SYN, IRS, 0, EVERYTHING, b"early"));
    assert_eq!(syn_ack.ack, IRS + 1);
    let ack = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), echo(&syn_ack), b"early");
    let accepted = accepted(ack);
    assert_eq!(bench.listen.early_data(&accepted.tuple), b"early");
}

#[test]
fn spec_10_data_with_and_behind_the_third_segment_is_kept_once_and_in_order() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let tuple = FourTuple::from(USUAL);
    let accepted = accepted(bench.send_data(tuple, Flags::ACK, IRS + 1, ack, echo(&syn_ack), b"one "));
    let mut more = |offset: u32, payload: &[u8]| {
        let data = bench.send_data(tuple, Flags::ACK, IRS + 1 + offset, ack, echo(&syn_ack), payload);
        assert!(matches!(data, Disposition::Captured));
    };
    more(8, b"later");
    more(4, b"two ");
    more(0, b"one two ");
    more(2, b"e two three");
    assert_eq!(bench.listen.early_data(&accepted.tuple), b"one two three");
    let after = bench.established(&accepted);
    let ack = after.ack.unwrap();
    assert_eq!((ack.flags, ack.seq, ack.ack), (Flags::ACK, syn_ack.seq + 1, IRS + 1 + 13));
    let [clock, fin] = after.repeated;
    assert_eq!((clock.unwrap().seq, fin), (IRS + 1, None));
}

#[test]
fn spec_10_early_data_is_bounded() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    for offset in (0..40_000).step_by(1000) {
        let ack = (syn_ack.seq + 1).value();
        let _ = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1 + offset, ack, echo(&syn_ack), &[1; 1000]);
    }
    assert_eq!(bench.listen.early_data(&accepted.tuple).len(), crate::EARLY_DATA_MAX_BYTES);
}

#[test]
fn spec_11_a_syn_ack_out_of_the_blue_is_refused() {
    let mut bench = Bench::new();
    let rst = reply(bench.send(USUAL, Flags::SYN | Flags::ACK, IRS, 4242, EVERYTHING));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(4242)));
}

#[test]
fn spec_12_a_fin_behind_the_handshake_is_repeated_to_the_socket() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let fin = Flags::FIN | Flags::ACK;
    let _ = bench.send_data(USUAL.into(), fin, IRS + 1, ack, echo(&syn_ack), b"bye");
    let after = bench.established(&accepted);
    let repeated = after.repeated[1].unwrap();
    assert_eq!((repeated.flags, repeated.seq, repeated.ack), (fin, IRS + 4, syn_ack.seq + 1));
    assert_eq!(repeated.tuple, FourTuple::from(USUAL), "in the client's name");
    assert!(after.ack.is_none(), "the kernel acknowledges the FIN and all before it");
}

#[test]
fn spec_12_a_reset_behind_the_handshake_reaches_the_socket() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    assert!(matches!(bench.send(USUAL, Flags::RST, IRS + 1, 0, BARE), Disposition::Captured));
    let [reset, none] = bench.established(&accepted).repeated;
    assert_eq!((reset.unwrap().flags, reset.unwrap().seq, none), (Flags::RST, IRS + 1, None));
}

#[test]
fn spec_18_the_socket_learns_the_clients_clock_from_its_last_segment() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let [repeated, none] = bench.established(&accepted).repeated;
    let repeated = repeated.unwrap();
    assert_eq!(repeated.tuple, FourTuple::from(USUAL), "in the client's name");
    assert_eq!((repeated.flags, repeated.seq, repeated.ack), (Flags::ACK, IRS + 1, syn_ack.seq + 1));
    assert_eq!((repeated.options.timestamps, none), (echo(&syn_ack).timestamps, None));
    // Without timestamps there is nothing to learn.
    let syn_ack = bench.syn(USUAL_AT, BARE);
    let accepted = self::accepted(bench.ack(USUAL_AT, &syn_ack));
    assert_eq!(bench.established(&accepted).repeated, [None, None]);
}

#[test]
fn spec_13_14_time_wait_is_the_kernels_until_it_lets_go() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    // The kernel answers a SYN that TIME-WAIT does not accept, and removes the socket for one it does (RFC 6191).
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::KernelOwns);
    bench.host.sockets.clear();
    let _ = bench.syn(USUAL, EVERYTHING);
}

#[test]
fn spec_14_a_new_handshake_completed_on_a_held_tuple_removes_the_old_socket() {
    let mut bench = Bench::under_pressure();
    let first = bench.syn(USUAL, EVERYTHING);
    let old = accepted(bench.ack(USUAL, &first));
    let _ = bench.established(&old);
    // The client reboots; its SYN slips through while the cache has forgotten the connection.
    bench.listen.held.forget(&old.tuple);
    let second = reply(bench.send(USUAL, Flags::SYN, IRS + 9999, 0, EVERYTHING));
    bench.listen.held.adopted(&old.tuple, old.iss, bench.now);
    let ack = bench.send(USUAL, Flags::ACK, IRS + 10_000, (second.seq + 1).value(), echo(&second));
    assert_eq!(accepted(ack).irs, IRS + 9999);
    assert_eq!(bench.host.destroyed, [old.tuple]);
    assert_eq!(bench.count(Counter::OldSocketsDestroyed), 1);
}

#[test]
fn a_guessed_cookie_without_timestamps_ends_nobodys_connection() {
    let mut bench = Bench::under_pressure();
    let first = bench.syn(USUAL, EVERYTHING);
    let old = accepted(bench.ack(USUAL, &first));
    let _ = bench.established(&old);
    // As if one of 2^25 guesses had hit.
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 536, wscale: None, sack: false, tsval: None };
    let hit = node.mint(&seen(USUAL), IRS + 77, &offer, bench.now);
    let guess = bench.send(USUAL, Flags::ACK, IRS + 78, (hit.isn + 1).value(), BARE);
    assert_eq!(dropped(guess), DropReason::KernelOwns);
    assert!(bench.host.destroyed.is_empty());
    // Once the kernel has let go, the same cookie is a handshake like any other.
    bench.host.sockets.clear();
    let _ = accepted(bench.send(USUAL, Flags::ACK, IRS + 78, (hit.isn + 1).value(), BARE));
}

#[test]
fn connections_known_from_before_are_not_charged_for_bad_cookies_when_the_ration_is_gone() {
    let mut bench = Bench::with(|config| config.bad_cookies_per_prefix = 100);
    bench.host.sockets.insert(seen(USUAL));
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS, 7, BARE)), DropReason::KernelOwns);
    bench.now = bench.now + Duration::from_secs(30);
    while bench.listen.questions.take(bench.now) {}
    for n in 0..100 {
        assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS + n, 7, BARE)), DropReason::KernelOwns);
    }
    let syn_ack = bench.syn(USUAL_AT, EVERYTHING);
    let _ = accepted(bench.ack(USUAL_AT, &syn_ack));
}

#[test]
fn spec_15_mss_is_the_mtu_less_headers_and_the_peers_default_is_kept() {
    let mut bench = Bench::new();
    for (mtu, mss) in [(1500, 1460), (9000, 8960), (65536, 65496), (1280, 1240), (100, 536)] {
        bench.arrival.mtu = mtu;
        assert_eq!(bench.syn(USUAL, BARE).options.mss, Some(mss));
    }
    bench.arrival.mtu = 1500;
    let v6 = Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" };
    let syn_ack = bench.syn(v6, BARE);
    assert_eq!(syn_ack.options.mss, Some(1440));
    assert_eq!(accepted(bench.ack(v6, &syn_ack)).options.peer_mss, 1220);
    let syn_ack = bench.syn(USUAL, BARE);
    assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).options.peer_mss, 536);
}

#[test]
fn spec_16_broken_options_neither_crash_nor_stop_the_handshake() {
    let mut bench = Bench::new();
    for bytes in [&[2u8, 0, 0, 0][..], &[2, 1, 5, 180], &[3, 200, 1, 1], &[255, 255, 255, 255], &[0, 2, 4, 5]] {
        let options = OptionBlock::from_bytes(bytes).unwrap();
        let segment = OutgoingSegment {
            tuple: USUAL.into(),
            hop_limit: 64,
            seq: IRS,
            ack: SeqNum::new(0),
            flags: Flags::SYN,
            window: 1000,
            options,
            payload: &[],
        };
        let mut buffer = [0; 128];
        let len = segment.emit(&mut buffer).unwrap();
        let _ = reply(bench.receive(&buffer[..len]));
    }
}

#[test]
fn spec_17_window_scale_only_if_offered_capped_and_the_syn_ack_unscaled() {
    let mut bench = Bench::new();
    let with = |wscale| ReplyOptions { wscale, ..EVERYTHING };
    assert_eq!(bench.syn(Client { from: "198.18.1.1:1", ..USUAL }, with(None)).options.wscale, None);
    let client = Client { from: "198.18.1.1:2", ..USUAL };
    let syn_ack = bench.syn(client, with(Some(3)));
    assert_eq!((syn_ack.options.wscale, syn_ack.window), (Some(7), 65535));
    let accepted = accepted(bench.ack(client, &syn_ack));
    assert_eq!(accepted.options.peer_wscale, Some(3));
    assert_eq!((accepted.peer_window, accepted.local_window), (1000 << 3, 65535));
}

#[test]
fn spec_18_timestamps_only_if_offered_echoed_and_monotone() {
    let mut bench = Bench::new();
    assert_eq!(bench.syn(Client { from: "198.18.1.1:1", ..USUAL }, BARE).options.timestamps, None);
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ours = syn_ack.options.timestamps.unwrap();
    assert_eq!(ours.tsecr, 5000);
    bench.now = bench.now + Duration::from_millis(250);
    let clocks = accepted(bench.ack(USUAL, &syn_ack)).options.timestamps.unwrap();
    let advanced = clocks.local.wrapping_sub(ours.tsval);
    assert!((249..=251).contains(&advanced), "{advanced} ms");
    assert_eq!(clocks.peer, 5001);
}

#[test]
fn spec_18_a_third_segment_that_echoes_another_clock_is_challenged() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let mut wrong = echo(&syn_ack);
    wrong.timestamps.as_mut().unwrap().tsecr ^= 1;
    let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), wrong);
    assert_eq!(reply(ack).flags, Flags::ACK);
    // And one without the option, though it was agreed on, is let in.
    let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), BARE);
    assert!(accepted(ack).options.timestamps.is_some());
}

#[test]
fn spec_19_the_timestamp_clock_differs_between_connections() {
    let mut bench = Bench::new();
    let tsvals: HashSet<u32> = (1..=50)
        .map(|port| bench.syn(USUAL_AT.port(port), EVERYTHING).options.timestamps.unwrap().tsval >> 16)
        .collect();
    assert!(tsvals.len() > 45, "{} different", tsvals.len());
}

const USUAL_AT: Client = Client { from: "198.18.1.1:1", to: LOCAL };

#[test]
fn spec_20_sack_only_if_offered() {
    let mut bench = Bench::new();
    for sack_permitted in [true, false] {
        let client = USUAL_AT.port(100 + u16::from(sack_permitted));
        let syn_ack = bench.syn(client, ReplyOptions { sack_permitted, ..EVERYTHING });
        assert_eq!(syn_ack.options.sack_permitted, sack_permitted);
        assert_eq!(accepted(bench.ack(client, &syn_ack)).options.sack, sack_permitted);
    }
}

#[test]
fn spec_21_ecn_is_never_agreed_to() {
    let mut bench = Bench::new();
    let syn_ack = reply(bench.send(USUAL, Flags::SYN | Flags::ECE | Flags::CWR, IRS, 0, EVERYTHING));
    assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
}

#[test]
fn spec_22_a_fast_open_request_is_answered_as_an_ordinary_syn() {
    let mut bench = Bench::new();
    // Kind 34, length 2: a request for a cookie (RFC 7413).
    let options = OptionBlock::from_bytes(&[2, 4, 5, 180, 34, 2, 1, 1]).unwrap();
    let segment = OutgoingSegment {
        tuple: USUAL.into(),
        hop_limit: 64,
        seq: IRS,
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 1000,
        options,
        payload: b"GET / HTTP/1.0\r\n\r\n",
    };
    let mut buffer = [0; 128];
    let len = segment.emit(&mut buffer).unwrap();
    let syn_ack = reply(bench.receive(&buffer[..len]));
    assert_eq!(syn_ack.ack, IRS + 1);
}

#[test]
fn spec_23_isns_of_neighbouring_connections_are_unrelated() {
    let mut bench = Bench::new();
    let isns: Vec<u32> =
        (1..=200).map(|port| bench.syn(USUAL_AT.port(port), EVERYTHING).seq.value() & 0x3fff_ffff).collect();
    let steps: HashSet<u32> = isns.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps.len(), 199);
    let ones: u32 = isns.iter().map(|isn| isn.count_ones()).sum();
    // 200 draws of 30 fair bits: mean 3000, standard deviation 39.
    assert!((2800..=3200).contains(&ones), "{ones} of 6000 bits set");
}

#[test]
fn spec_24_every_syn_ack_is_a_cookie_whether_or_not_an_entry_is_kept() {
    for timestamps in [EVERYTHING.timestamps, None] {
        let options = ReplyOptions { timestamps, ..EVERYTHING };
        let mut bench = Bench::new();
        let syn_ack = bench.syn(USUAL, options);
        // The entry is lost, as in a restart within a cookie's lifetime.
        bench.listen.half_open.remove(&seen(USUAL));
        bench.listen.shared.pressure.cookie_sent(bench.now);
        let accepted = accepted(bench.ack(USUAL, &syn_ack));
        assert_eq!(accepted.via, Via::Cookie);
        assert_eq!((accepted.irs, accepted.iss), (IRS, syn_ack.seq));
        assert_eq!(accepted.options.peer_mss, 1460);
        assert!(accepted.options.sack);
    }
}

#[test]
fn spec_25_the_syn_ack_is_repeated_with_backoff_and_then_given_up() {
    for client in [USUAL, Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" }] {
        repeated_and_given_up(client);
    }
}

fn repeated_and_given_up(client: Client) {
    let mut bench = Bench::new();
    let first = bench.syn(client, EVERYTHING);
    let start = bench.now;
    let mut times = Vec::new();
    for _ in 0..100 {
        for again in bench.pass(Duration::from_millis(200)) {
            assert_eq!(again, first);
            times.push(bench.now.since(start).as_secs_f64().round() as u64);
        }
    }
    assert_eq!(times, [1, 3, 7]);
    assert_eq!(bench.listen.half_open.len(), 0);
    assert_eq!((bench.count(Counter::SynAcksRetransmitted), bench.count(Counter::HalfOpenTimedOut)), (3, 1));
}

#[test]
fn spec_25_a_cookie_without_an_entry_is_not_repeated() {
    let mut bench = Bench::under_pressure();
    let before = bench.listen.half_open.len();
    let _ = bench.syn(USUAL, EVERYTHING);
    assert_eq!(bench.listen.half_open.len(), before);
    let repeated = bench.pass(Duration::from_secs(20));
    assert!(repeated.iter().all(|reply| reply.tuple != seen(USUAL)));
}

#[test]
fn spec_26_a_lost_third_segment_is_made_up_for_by_data_or_by_the_repeated_syn_ack() {
    let mut bench = Bench::new();
    let _ = bench.syn(USUAL, EVERYTHING);
    // A client in ESTABLISHED answers the repeated SYN-ACK with a challenge ACK, which is the lost segment once more.
    let repeated = bench.pass(Duration::from_millis(1400));
    assert_eq!(repeated.len(), 1);
    let _ = accepted(bench.ack(USUAL, &repeated[0]));
    let mut bench = Bench::under_pressure();
    let other = bench.syn(USUAL, EVERYTHING);
    let ack = (other.seq + 1).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK | Flags::PSH, IRS + 1, ack, echo(&other), b"hello");
    let accepted = accepted(data);
    assert_eq!((accepted.via, bench.listen.early_data(&accepted.tuple)), (Via::Cookie, &b"hello"[..]));
}

#[test]
fn spec_26_a_keepalive_makes_up_for_a_lost_third_segment() {
    let mut bench = Bench::under_pressure();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let keepalive = bench.send(USUAL, Flags::ACK, IRS, ack, echo(&syn_ack));
    assert_eq!(accepted(keepalive).irs, IRS);
}

#[test]
fn data_on_a_connection_that_is_no_more_is_reset_even_if_it_is_the_first() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    bench.host.sockets.clear();
    bench.now = bench.now + Duration::from_secs(5);
    let ack = (syn_ack.seq + 1).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1, ack, echo(&syn_ack), b"anyone?");
    assert_eq!(reply(data).flags, Flags::RST);
}

#[test]
fn spec_27_broadcast_and_multicast_are_silently_discarded() {
    let mut bench = Bench::new();
    for to in ["255.255.255.255:80", "198.18.0.255:80", "224.0.0.1:80", "239.1.2.3:80"] {
        for flags in [Flags::SYN, Flags::ACK, Flags::RST] {
            assert_eq!(dropped(bench.send(Client { to, ..USUAL }, flags, IRS, 1, BARE)), DropReason::NotGuarded);
        }
    }
    let v6 = Client { from: "[2001:db8::2]:40000", to: "[ff02::1]:80" };
    assert_eq!(dropped(bench.send(v6, Flags::SYN, IRS, 0, BARE)), DropReason::NotGuarded);
}

#[test]
fn spec_28_martian_sources_are_dropped() {
    let mut bench = Bench::new();
    let sources = [
        "0.0.0.0:5",
        "0.1.2.3:5",
        "127.0.0.1:5",
        "224.0.0.1:5",
        "240.0.0.1:5",
        "255.255.255.255:5",
        "198.18.0.255:5",
        "198.18.0.3:5",
    ];
    for from in sources {
        assert_eq!(
            dropped(bench.send(Client { from, ..USUAL }, Flags::SYN, IRS, 0, BARE)),
            DropReason::Martian,
            "{from}"
        );
    }
    for from in ["[::]:5", "[::1]:5", "[ff02::1]:5", "[2001:db8::1]:5"] {
        let client = Client { from, to: "[2001:db8::1]:80" };
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::Martian, "{from}");
    }
    // A loopback destination off the wire, and what is right over loopback itself.
    let to_loopback = Client { to: "127.0.0.1:80", ..USUAL };
    assert_eq!(dropped(bench.send(to_loopback, Flags::SYN, IRS, 0, BARE)), DropReason::Martian);
    bench.arrival.loopback = true;
    let _ = bench.syn(Client { from: "127.0.0.1:5", to: "127.0.0.1:80" }, BARE);
    let _ = bench.syn(Client { from: "198.18.0.1:5", to: LOCAL }, BARE);
    let _ = bench.syn(Client { from: "[::1]:5", to: "[::1]:80" }, BARE);
}

#[test]
fn spec_29_land_is_dropped() {
    let mut bench = Bench::new();
    bench.arrival.loopback = true;
    for (from, to) in [(LOCAL, LOCAL), ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80")] {
        assert_eq!(dropped(bench.send(Client { from, to }, Flags::SYN, IRS, 0, BARE)), DropReason::Land);
    }
}

#[test]
fn spec_30_frames_for_others_are_ignored() {
    let mut bench = Bench::new();
    bench.arrival.to_us = false;
    for flags in [Flags::SYN, Flags::ACK, Flags::RST] {
        assert_eq!(dropped(bench.send(USUAL, flags, IRS, 1, BARE)), DropReason::NotOurFrame);
    }
}

#[test]
fn spec_31_port_zero_is_dropped() {
    let mut bench = Bench::new();
    for client in [Client { from: "198.18.0.2:0", ..USUAL }, Client { to: "198.18.0.1:0", ..USUAL }] {
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::PortZero);
    }
}

#[test]
fn spec_32_no_odd_combination_of_flags_gets_a_syn_ack() {
    let mut bench = Bench::new();
    for bits in 0..=255u8 {
        let all = [Flags::FIN, Flags::SYN, Flags::RST, Flags::PSH, Flags::ACK, Flags::URG, Flags::ECE, Flags::CWR];
        let flags = all
            .iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1)
            .fold(None, |sum, (_, flag)| Some(sum.map_or(*flag, |sum| sum | *flag)));
        let Some(flags) = flags else { continue };
        let odd = !flags.contains(Flags::SYN) || flags.intersects(Flags::FIN | Flags::RST | Flags::ACK);
        let answer = bench.send(USUAL_AT.port(1000 + u16::from(bits)), flags, IRS, 1, BARE);
        if let Disposition::Reply(reply) = answer {
            assert!(!odd || !reply.flags.contains(Flags::SYN), "{flags:?} got {reply:?}");
            assert!(!flags.contains(Flags::RST), "a RST is never answered");
        }
    }
    for flags in [Flags::SYN | Flags::FIN, Flags::FIN, Flags::FIN | Flags::PSH | Flags::URG] {
        assert_eq!(dropped(bench.send(USUAL, flags, IRS, 0, BARE)), DropReason::BadFlags);
    }
}

#[test]
fn spec_33_a_bad_checksum_is_dropped_and_an_unfinished_one_accepted() {
    let mut bench = Bench::new();
    let segment = OutgoingSegment {
        tuple: USUAL.into(),
        hop_limit: 64,
        seq: IRS,
        ack: SeqNum::new(0),
        flags: Flags::SYN,
        window: 1000,
        options: OptionBlock::from(EVERYTHING),
        payload: &[],
    };
    let mut buffer = [0; 128];
    let len = segment.emit(&mut buffer).unwrap();
    buffer[36] ^= 0xff;
    assert_eq!(dropped(bench.receive(&buffer[..len])), DropReason::BadChecksum);
    let trusted = Packet::parse_ip(&buffer[..len], len, Checksums::Trust);
    let _ = reply(bench.listen.on_packet(trusted, &bench.arrival, &mut bench.host, bench.now));
}

#[test]
fn spec_36_fragments_are_left_to_the_kernel() {
    let mut bench = Bench::new();
    let fragment = bench.listen.on_packet(Err(ParseError::Fragment), &bench.arrival, &mut bench.host, bench.now);
    assert_eq!(dropped(fragment), DropReason::NotForUs);
}

#[test]
fn spec_41_a_prefix_gets_no_more_replies_than_its_budget() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 1000);
    let mut replies = 0;
    for port in 1..2000 {
        let answer = bench.send(USUAL_AT.port(port), Flags::SYN, IRS, 0, BARE);
        replies += usize::from(matches!(answer, Disposition::Reply(_)));
    }
    assert_eq!(replies, 100);
    let _ = bench.syn(USUAL, BARE);
    assert_eq!(bench.count(Counter::RepliesOverBudget), 1899);
}

#[test]
fn spec_41_completed_handshakes_do_not_use_the_budget_up() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 100);
    for port in 1..200 {
        let client = USUAL_AT.port(port);
        let syn_ack = bench.syn(client, EVERYTHING);
        let accepted = accepted(bench.ack(client, &syn_ack));
        let _ = bench.established(&accepted);
    }
    assert_eq!(bench.count(Counter::HandshakesByQueue), 199);
}

#[test]
fn spec_39_icmp_neither_ends_nor_changes_a_half_open_connection() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    // "Fragmentation needed, MTU 296", from the client's address, quoting the SYN-ACK's header and sequence number.
    let mut quoted = [0; wire::REPLY_MAX_LEN];
    let _ = syn_ack.emit(&mut quoted);
    let mut icmp = vec![0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1];
    icmp.extend_from_slice(&[3, 4, 0, 0, 0, 0, 1, 40]);
    icmp.extend_from_slice(&quoted[..28]);
    let parsed = Packet::parse_ip(&icmp, icmp.len(), Checksums::Trust);
    let judged = bench.listen.on_packet(parsed, &bench.arrival, &mut bench.host, bench.now);
    assert_eq!(dropped(judged), DropReason::NotForUs);
    assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).options.peer_mss, 1460);
}

#[test]
fn spec_41_the_answer_is_never_longer_than_a_syn_with_an_mss() {
    let mut bench = Bench::new();
    for bits in 0..8u8 {
        let options = ReplyOptions {
            mss: Some(1460),
            wscale: (bits & 1 != 0).then_some(7),
            sack_permitted: bits & 2 != 0,
            timestamps: (bits & 4 != 0).then_some(TimestampOption { tsval: 1, tsecr: 0 }),
        };
        let segment = OutgoingSegment {
            tuple: USUAL_AT.port(3000 + u16::from(bits)),
            hop_limit: 64,
            seq: IRS,
            ack: SeqNum::new(0),
            flags: Flags::SYN,
            window: 1000,
            options: OptionBlock::from(options),
            payload: &[],
        };
        let mut buffer = [0; 128];
        let syn_len = segment.emit(&mut buffer).unwrap();
        let answer = reply(bench.receive(&buffer[..syn_len]));
        assert!(answer.emit(&mut [0; wire::REPLY_MAX_LEN]) <= syn_len, "{options:?}");
    }
}

#[test]
fn spec_43_tables_are_keyed_so_that_nobody_can_choose_what_collides() {
    let hashes = |seed: u8| -> Vec<u64> {
        let prefix = |n: u8| crate::budget::prefix_hash(&[seed; 16], IpAddr::from([198, 18, n, 1])).0;
        (0..50).map(prefix).collect()
    };
    assert_eq!(hashes(1), hashes(1));
    assert!(hashes(1).iter().zip(hashes(2)).all(|(one, other)| *one != other));
}

#[test]
fn spec_44_ttl_df_and_id_are_fixed_and_the_flow_label_is_stable() {
    let mut bench = Bench::new();
    let mut buffer = [0; wire::REPLY_MAX_LEN];
    let _ = bench.syn(USUAL, EVERYTHING).emit(&mut buffer);
    let (tos, id, fragment, ttl) = (buffer[1], &buffer[4..6], &buffer[6..8], buffer[8]);
    assert_eq!((tos, id, fragment, ttl), (0, &[0, 0][..], &[0x40, 0][..], 64));
    let v6 = Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" };
    let mut first = [0; wire::REPLY_MAX_LEN];
    let _ = bench.syn(v6, EVERYTHING).emit(&mut first);
    let repeated = bench.pass(Duration::from_millis(1400));
    let again = repeated.iter().find(|reply| reply.tuple.peer.addr.is_ipv6()).unwrap();
    let _ = again.emit(&mut buffer);
    assert_eq!((&first[..4], first[7]), (&buffer[..4], 64));
    assert_ne!(first[1..4], [0, 0, 0], "a label");
}

// ---------------------------------------------------------------------------------------------------- gates and modes

#[test]
fn form_b_is_accepted_only_while_a_cookie_can_be_outstanding() {
    let no_timestamps = ReplyOptions { timestamps: None, ..EVERYTHING };
    let outcome = |accept_cookies, age: u64| {
        let mut bench = Bench::with(|config| config.accept_cookies = accept_cookies);
        bench.now = Time::from_secs(100 + age);
        // Made by another node with the same key.
        let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
        let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: None };
        let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
        let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (cookie.isn + 1).value(), BARE);
        (matches!(ack, Disposition::Accept(_)), bench.count(Counter::CookiesNotExpected))
    };
    assert_eq!(no_timestamps.timestamps, None);
    assert_eq!(outcome(AcceptCookies::WhenExpected, 10), (true, 0), "a young process");
    assert_eq!(outcome(AcceptCookies::WhenExpected, 1000), (false, 1));
    assert_eq!(outcome(AcceptCookies::Always, 1000), (true, 0));
}

#[test]
fn form_a_of_another_node_is_accepted_any_time() {
    let mut bench = Bench::new();
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(1) };
    let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
    let timestamps = Some(TimestampOption { tsval: 2, tsecr: cookie.tsval.unwrap() });
    let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (cookie.isn + 1).value(), ReplyOptions { timestamps, ..BARE });
    assert_eq!(accepted(ack).options.peer_wscale, Some(8));
}

#[test]
fn a_flood_turns_to_cookies_and_calm_turns_back_each_once() {
    let mut bench = Bench::with(|config| config.half_open_max = 100);
    for n in 0..10_000u32 {
        let mut tuple = FourTuple::from(USUAL);
        tuple.local.addr = Ipv4Addr::from_bits(0xc612_0000 + 0x100 + n).into();
        let _ = bench.syn(tuple, EVERYTHING);
        assert!(bench.listen.half_open.len() <= 75);
    }
    assert_eq!(bench.listen.take_switch(), Some(Mode::Cookies));
    let client = Client { from: "198.19.1.1:7", ..USUAL };
    let syn_ack = bench.syn(client, EVERYTHING);
    assert_eq!(accepted(bench.ack(client, &syn_ack)).via, Via::Cookie);
    for _ in 0..30 {
        let _ = bench.pass(Duration::from_secs(1));
        bench.listen.review(Duration::from_secs(1));
    }
    assert_eq!(bench.listen.take_switch(), Some(Mode::Queue));
    assert_eq!(
        (bench.count(Counter::SwitchesToCookies), bench.count(Counter::SwitchesToQueue), bench.listen.half_open.len()),
        (1, 1, 0)
    );
    assert_eq!(bench.listen.shared.half_open(), 0);
}

#[test]
fn bad_cookies_of_one_prefix_are_soon_not_checked_any_more() {
    let mut bench = Bench::with(|config| config.bad_cookies_per_prefix = 500);
    for port in 1..500 {
        let _ = bench.send(
            USUAL_AT.port(port),
            Flags::ACK,
            IRS,
            5,
            ReplyOptions { timestamps: EVERYTHING.timestamps, ..BARE },
        );
    }
    let checked = bench.count(Counter::CookiesBadMac) + bench.count(Counter::CookiesExpired);
    assert_eq!((checked, bench.count(Counter::CookiesOverBudget)), (50, 449));
    // Another prefix is not the worse for it.
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn questions_to_the_kernel_are_rationed() {
    let mut bench = Bench::new();
    for n in 0..50_000u32 {
        let mut tuple = FourTuple::from(USUAL);
        tuple.local.addr = Ipv4Addr::from_bits(0xc612_0000 + 0x100 + n).into();
        let _ = bench.send(tuple, Flags::ACK, IRS, n, BARE);
    }
    assert!(bench.host.questions <= QUESTIONS_PER_SECOND as usize);
}

#[test]
fn established_traffic_costs_one_question_in_seconds() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    for n in 0..1000 {
        let ack = bench.send(USUAL, Flags::ACK, IRS + n, 7, BARE);
        assert_eq!(dropped(ack), DropReason::KernelOwns);
    }
    assert_eq!(bench.host.questions, 1);
    assert_eq!(bench.count(Counter::CookiesBadMac) + bench.count(Counter::CookiesNotExpected), 0);
}

#[test]
fn the_ack_of_a_last_fin_is_not_reset_but_data_to_a_closed_connection_is() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    bench.now = bench.now + Duration::from_secs(60);
    bench.host.sockets.clear();
    let last = bench.send(USUAL, Flags::ACK, IRS + 500, (syn_ack.seq + 900).value(), echo(&syn_ack));
    assert_eq!(dropped(last), DropReason::KernelOwns);
    let ack = (syn_ack.seq + 900).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK, IRS + 500, ack, echo(&syn_ack), b"anyone?");
    assert_eq!(reply(data).flags, Flags::RST);
    bench.now = bench.now + Duration::from_secs(2);
    let late = bench.send(USUAL, Flags::ACK, IRS + 500, ack, echo(&syn_ack));
    assert_eq!(reply(late).flags, Flags::RST);
}

// ---------------------------------------------------------------------------------------------------- no room

#[test]
fn a_full_accept_queue_keeps_the_handshake_until_there_is_room() {
    for mut bench in [Bench::new(), Bench::with(|config| config.prefix_share_percent = 100)] {
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let first = accepted(bench.ack(USUAL, &syn_ack));
        assert!(bench.listen.refused(&first, Refusal::AcceptQueueFull, bench.now).is_none());
        assert_eq!(bench.listen.half_open.len(), 1);
        // The repeated SYN-ACK makes the client ask again, and now there is room.
        let repeated = bench.pass(Duration::from_millis(1400));
        assert_eq!(repeated.len(), 1);
        let again = accepted(bench.ack(USUAL, &repeated[0]));
        assert_eq!(
            (again.iss, again.irs, again.options),
            (first.iss, first.irs, Negotiated { timestamps: again.options.timestamps, ..first.options })
        );
        let _ = bench.established(&again);
        assert_eq!(bench.listen.half_open.len(), 0);
        assert_eq!(bench.count(Counter::AcceptQueueOverflows), 1);
    }
}

#[test]
fn a_cookie_that_finds_no_room_becomes_an_entry_whose_syn_ack_is_the_same() {
    let mut bench = Bench::new();
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(5000) };
    let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
    bench.now = bench.now + Duration::from_millis(100);
    let timestamps = Some(TimestampOption { tsval: 5001, tsecr: cookie.tsval.unwrap() });
    let ack = (cookie.isn + 1).value();
    let first = accepted(bench.send(USUAL, Flags::ACK, IRS + 1, ack, ReplyOptions { timestamps, ..BARE }));
    assert!(bench.listen.refused(&first, Refusal::NoDescriptors, bench.now).is_none());
    let repeated = bench.pass(Duration::from_millis(1400));
    assert_eq!((repeated[0].seq, repeated[0].options.timestamps.unwrap().tsval), (cookie.isn, cookie.tsval.unwrap()));
    let _ = accepted(bench.ack(USUAL, &repeated[0]));
}

#[test]
fn a_client_that_nobody_takes_is_told_so_in_the_end() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    assert!(bench.listen.refused(&accepted, Refusal::NoMemory, bench.now).is_none());
    let sent = bench.pass(Duration::from_secs(20));
    let last = sent.last().unwrap();
    assert_eq!((last.flags, last.seq), (Flags::RST, syn_ack.seq + 1));
    assert_eq!(bench.listen.half_open.len(), 0);
}

#[test]
fn a_refusal_without_hope_is_a_reset_and_a_busy_tuple_is_left_alone() {
    for (refusal, reset) in [(Refusal::Closed, true), (Refusal::System(5), true), (Refusal::TupleBusy, false)] {
        let mut bench = Bench::new();
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let accepted = accepted(bench.ack(USUAL, &syn_ack));
        let reply = bench.listen.refused(&accepted, refusal, bench.now);
        assert_eq!(reply.map(|reply| reply.flags), reset.then_some(Flags::RST));
    }
}

#[test]
fn draining_answers_no_syn_but_finishes_what_was_begun() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    bench.listen.drain();
    assert_eq!(dropped(bench.send(USUAL_AT, Flags::SYN, IRS, 0, BARE)), DropReason::Draining);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn a_link_local_client_keeps_its_interface() {
    let mut bench = Bench::new();
    let client = Client { from: "[fe80::2]:40000", to: "[fe80::1]:80" };
    let syn_ack = bench.syn(client, EVERYTHING);
    assert_eq!(accepted(bench.ack(client, &syn_ack)).scope_id, 2);
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).scope_id, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever order: nothing panics, the queue keeps its bound, and the accounts add up.
    #[test]
    fn any_traffic_keeps_the_invariants(
        frames in proptest::collection::vec((0u8..=255, 0u16..6, 0u32..4, 0u32..4, any::<bool>()), 1..400)
    ) {
        let mut bench = Bench::with(|config| {
            config.half_open_max = 4;
            config.prefix_share_percent = 100;
        });
        let mut last_isn = [SeqNum::new(0); 6];
        let all = [Flags::FIN, Flags::SYN, Flags::RST, Flags::PSH, Flags::ACK, Flags::URG];
        for (bits, who, seq, ack, timestamps) in frames {
            let flags = all.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, flag)| *flag);
            let flags = flags.fold(Flags::PSH, |sum, flag| sum | flag);
            let options = if timestamps { EVERYTHING } else { BARE };
            let client = USUAL_AT.port(500 + who);
            let isn = last_isn[usize::from(who)];
            match bench.send(client, flags, IRS + seq, (isn + ack).value(), options) {
                Disposition::Reply(reply) => last_isn[usize::from(who)] = reply.seq,
                Disposition::Accept(accepted) if bits & 64 == 0 => { let _ = bench.established(&accepted); }
                Disposition::Accept(accepted) => {
                    let _ = bench.listen.refused(&accepted, Refusal::AcceptQueueFull, bench.now);
                }
                Disposition::Captured | Disposition::Drop(_) => {}
            }
            if bits & 128 != 0 {
                let _ = bench.pass(Duration::from_millis(600));
                bench.host.sockets.clear();
            }
            let entries = bench.listen.half_open.len() as u64;
            prop_assert!(entries <= 4);
            prop_assert_eq!(entries, bench.listen.shared.half_open());
            let removed = bench.count(Counter::HalfOpenCompleted)
                + bench.count(Counter::HalfOpenTimedOut)
                + bench.count(Counter::HalfOpenReset);
            prop_assert_eq!(entries, bench.count(Counter::HalfOpenInserted) - removed);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
        let mut bench = Bench::new();
        let mut packet = packet;
        if let Some(first) = packet.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let parsed = Packet::parse_ip(&packet, packet.len(), Checksums::Trust);
        let _ = bench.listen.on_packet(parsed, &bench.arrival, &mut bench.host, bench.now);
    }
}
