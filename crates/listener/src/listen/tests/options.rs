//! The checklist: what a SYN-ACK offers for what a SYN offered.

use super::*;

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
