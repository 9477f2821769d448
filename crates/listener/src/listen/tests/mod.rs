//! One test for each row of the passive opener's checklist that is this crate's (`spec_NN_...`), then the rest.
//!
//! Segments are written and parsed as bytes, so that the wire crate is part of what is tested.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use wire::{Checksums, Endpoint, OptionBlock, OutgoingSegment, ReplyOptions, SeqNum};

mod handshake;
mod lists;
mod modes;
mod no_room;
mod options;
mod packets;
mod properties;
mod reported;

use super::*;
use crate::accepted::{Negotiated, Refusal, Via};
use crate::config::AcceptCookies;
use crate::cookie::MasterKey;
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
/// Somebody else, of another prefix; see [`Client::port`] for other services.
const USUAL_AT: Client = Client { from: "198.18.1.1:1", to: LOCAL };

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

    /// A listener that looks at all cookies, but at no more than fifty bad ones of a prefix in a tenth of a second.
    fn guessed_at() -> Bench {
        Bench::with(|config| {
            config.accept_cookies = AcceptCookies::Always;
            config.bad_cookies_per_prefix = 500;
        })
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
