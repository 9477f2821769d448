//! The program itself, run by the kernel on single packets (`BPF_PROG_TEST_RUN`).

use aya::TestRunOptions;
use aya::programs::TestRun;
use wire::{Endpoint, Flags, OptionBlock, OutgoingSegment, SeqNum};

use super::*;

const CLIENT: &str = "198.18.0.2:40000";
const CLIENT_V6: &str = "[2001:db8::2]:40000";
const SNAP: u32 = Share::Others.snap_len();
const ACK: Flags = Flags::ACK;

/// A sieve for 0.0.0.0:80, 198.18.0.1:81 and [2001:db8::1]:80; `None` where tests that need rights are to be skipped.
fn sieve() -> Option<Sieve> {
    const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("skipped, because {SKIP}=1");
        return None;
    }
    let guarded = ["0.0.0.0:80", "198.18.0.1:81", "[2001:db8::1]:80"].map(|addr| addr.parse().unwrap());
    Some(Sieve::load(&guarded).unwrap_or_else(|error| panic!("needs CAP_BPF and CAP_NET_ADMIN (or {SKIP}=1): {error}")))
}

fn tuple(client: &str, server: &str) -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
    FourTuple { local: end(server), peer: end(client) }
}

/// An Ethernet frame with a TCP segment of this flow, as the listener sees it.
fn frame(flow: &FourTuple, flags: Flags) -> Vec<u8> {
    let segment = OutgoingSegment {
        tuple: FourTuple { local: flow.peer, peer: flow.local },
        hop_limit: 64,
        seq: SeqNum::new(1),
        ack: SeqNum::new(2),
        flags,
        window: 100,
        options: OptionBlock::from_bytes(&[]).unwrap(),
        payload: b"hello",
    };
    let mut buffer = [0; 200];
    let len = segment.emit(&mut buffer).unwrap();
    let ethertype: [u8; 2] = if flow.peer.addr.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
    [&[0; 12][..], &ethertype, &buffer[..len]].concat()
}

/// Bytes of the packet that the tap for SYNs takes, and the other one. In a group it goes to one of them: that for SYNs with a SYN.
fn judge(sieve: &mut Sieve, frame: &[u8], share: Share) -> u32 {
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
    program(&mut sieve.ebpf, share).unwrap().test_run(options).unwrap().return_value
}

fn takes(sieve: &mut Sieve, flow: &FourTuple, flags: Flags) -> bool {
    let syn = flags.contains(Flags::SYN) && !flags.contains(ACK);
    let (own, other, whole) =
        if syn { (Share::Syns, Share::Others, Share::Syns.snap_len()) } else { (Share::Others, Share::Syns, SNAP) };
    assert_eq!(judge(sieve, &frame(flow, flags), other), 0, "no packet is for both");
    match judge(sieve, &frame(flow, flags), own) {
        0 => false,
        taken => {
            assert_eq!(taken, whole, "neither all nor nothing");
            true
        }
    }
}

#[test]
fn only_what_is_guarded_is_taken() {
    let Some(mut sieve) = sieve() else { return };
    for (client, server, taken) in [
        (CLIENT, "198.18.0.1:80", true),
        (CLIENT, "198.18.0.9:80", true),
        (CLIENT, "198.18.0.1:81", true),
        (CLIENT, "198.18.0.9:81", false),
        (CLIENT, "198.18.0.1:82", false),
        (CLIENT, "198.18.0.1:144", false),
        (CLIENT_V6, "[2001:db8::1]:80", true),
        (CLIENT_V6, "[2001:db8::9]:80", false),
        (CLIENT_V6, "[2001:db8::1]:81", false),
    ] {
        assert_eq!(takes(&mut sieve, &tuple(client, server), ACK), taken, "{client} to {server}");
    }
}

#[test]
fn a_settled_flow_is_spared_until_it_is_unsettled() {
    let Some(mut sieve) = sieve() else { return };
    for (client, neighbour, server) in
        [(CLIENT, "198.18.0.2:40001", "198.18.0.1:80"), (CLIENT_V6, "[2001:db8::3]:40000", "[2001:db8::1]:80")]
    {
        let flow = tuple(client, server);
        let mut settled = sieve.settled().unwrap();
        settled.settle(&flow);
        assert!(!takes(&mut sieve, &flow, ACK));
        assert!(takes(&mut sieve, &tuple(neighbour, server), ACK));
        for flags in [Flags::RST, ACK | Flags::FIN, ACK | Flags::SYN] {
            assert!(takes(&mut sieve, &flow, flags), "{flags:?}");
        }
        assert!(!takes(&mut sieve, &flow, ACK | Flags::PSH));
        assert!(takes(&mut sieve, &flow, Flags::SYN));
        assert!(!takes(&mut sieve, &flow, ACK), "who answers the SYN says whether a new handshake has begun");
        settled.unsettle(&flow);
        assert!(takes(&mut sieve, &flow, ACK));
    }
}

#[test]
fn a_settled_flow_is_shown_once_in_a_while() {
    let Some(mut sieve) = sieve() else { return };
    let flow = tuple(CLIENT, "198.18.0.1:80");
    let mut settled = sieve.settled().unwrap();
    settled.0.insert(flow_key(&flow), now_ns() - 1_500_000_000, 0).unwrap();
    assert!(takes(&mut sieve, &flow, ACK));
    assert!(!takes(&mut sieve, &flow, ACK));
}

#[test]
fn odd_packets_are_left_to_the_kernel_or_to_the_parser() {
    let Some(mut sieve) = sieve() else { return };
    let v4 = frame(&tuple(CLIENT, "198.18.0.1:80"), ACK);
    let v6 = frame(&tuple(CLIENT_V6, "[2001:db8::1]:80"), ACK);
    let with = |frame: &[u8], at: usize, byte: u8| {
        let mut changed = frame.to_vec();
        changed[at] = byte;
        changed
    };
    for (what, frame, taken) in [
        ("UDP", with(&v4, 14 + 9, 17), 0),
        ("the first fragment", with(&v4, 14 + 6, 0x20), 0),
        ("a later fragment", with(&v4, 14 + 7, 1), 0),
        ("no IPv4", with(&v4, 14, 0x65), 0),
        ("cut in the TCP header", v4[..14 + 20 + 12].to_vec(), 0),
        ("UDP over IPv6", with(&v6, 14 + 6, 17), 0),
        ("a fragment header", with(&v6, 14 + 6, 44), 0),
        ("hop-by-hop options", with(&v6, 14 + 6, 0), SNAP),
        ("destination options", with(&v6, 14 + 6, 60), SNAP),
        ("neither IPv4 nor IPv6", with(&v6, 12, 0x88), 0),
    ] {
        assert_eq!(judge(&mut sieve, &frame, Share::Others), taken, "{what}");
        assert_eq!(judge(&mut sieve, &frame, Share::Syns), 0, "{what}");
    }
    // IPv4 options move the TCP header.
    let options = [&with(&v4, 14, 0x46)[..34], &[1; 4], &v4[34..]].concat();
    assert_eq!(judge(&mut sieve, &options, Share::Others), SNAP);
}
