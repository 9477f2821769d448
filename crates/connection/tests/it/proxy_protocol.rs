//! PROXY headers: vectors by hand from the specification, everything that may be wrong with one, and an independent parser as judge.

use std::io::{ErrorKind, Write};
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::connection::proxy_protocol::{
    Client, Header, HeaderError, LineFault, ProxyVersion, V1_HEADER_BYTES_MAX, V2_HEADER_BYTES_MAX, encode_header,
    read_header,
};
use ::connection::{ConnectionStats, KernelListener};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{PATIENCE, block_on};

const BOTH: [ProxyVersion; 2] = [ProxyVersion::V1, ProxyVersion::V2];
/// What the client sends behind the header.
const PAYLOAD: &[u8] = b"\r\nGET / HTTP/1.1\r\n";

/// Reads a header from these bytes, and says what is left of them.
fn read(mut bytes: &[u8]) -> (Result<Header, HeaderError>, &[u8]) {
    let outcome = match pin!(read_header(&mut bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("a slice never makes one wait"),
    };
    (outcome, bytes)
}

/// Reads a header that must be good, with a payload behind it that must be left alone.
fn client_of(header: &[u8]) -> Option<Client> {
    let bytes = [header, PAYLOAD].concat();
    let (outcome, rest) = read(&bytes);
    assert_eq!(rest, PAYLOAD, "read too much or too little: {outcome:?}");
    outcome.unwrap().client
}

fn refusal(header: &[u8]) -> HeaderError {
    let bytes = [header, PAYLOAD].concat();
    read(&bytes).0.expect_err("it is malformed")
}

fn fault(line: &str) -> LineFault {
    match refusal(line.as_bytes()) {
        HeaderError::Line(fault) => fault,
        other => panic!("{line:?}: {other}"),
    }
}

fn client(peer: &str, local: &str) -> Client {
    Client { peer: peer.parse().unwrap(), local: local.parse().unwrap() }
}

fn v4() -> Client {
    client("192.0.2.7:49152", "198.51.100.1:443")
}

fn v6() -> Client {
    client("[2001:db8::7]:49152", "[2001:db8::1]:443")
}

/// A header of version 2, from its 13th byte on.
fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A"[..], &[version_command, family], &len, body].concat()
}

const V4_BODY: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xc0, 0x00, 0x01, 0xbb];

fn v4_body_and(tlvs: &[u8]) -> Vec<u8> {
    [V4_BODY, tlvs].concat()
}

#[test]
fn v1_lines_are_those_of_the_specification() {
    let line = |client: Option<&Client>| String::from_utf8(encode_header(ProxyVersion::V1, client)).unwrap();
    assert_eq!(line(Some(&v4())), "PROXY TCP4 192.0.2.7 198.51.100.1 49152 443\r\n");
    assert_eq!(line(Some(&v6())), "PROXY TCP6 2001:db8::7 2001:db8::1 49152 443\r\n");
    assert_eq!(line(None), "PROXY UNKNOWN\r\n");
}

#[test]
fn v2_bytes_are_those_of_the_specification() {
    assert_eq!(encode_header(ProxyVersion::V2, Some(&v4())), v2(0x21, 0x11, V4_BODY));
    let peer = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let local = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let body = [&peer[..], &local, &[0xc0, 0x00, 0x01, 0xbb]].concat();
    assert_eq!(encode_header(ProxyVersion::V2, Some(&v6())), v2(0x21, 0x21, &body));
    assert_eq!(encode_header(ProxyVersion::V2, None), v2(0x20, 0x00, &[]));
}

#[test]
fn mapped_and_mixed_addresses_become_one_family() {
    let mapped = client("[::ffff:192.0.2.7]:49152", "[::ffff:198.51.100.1]:443");
    for version in BOTH {
        assert_eq!(encode_header(version, Some(&mapped)), encode_header(version, Some(&v4())));
    }
    let mixed = client("192.0.2.7:1", "[2001:db8::1]:2");
    let as_v6 = client("[::ffff:192.0.2.7]:1", "[2001:db8::1]:2");
    for version in BOTH {
        assert_eq!(client_of(&encode_header(version, Some(&mixed))), Some(as_v6));
    }
    assert_eq!(encode_header(ProxyVersion::V1, Some(&mixed)), b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 1 2\r\n");
}

#[test]
fn longest_lines_of_the_specification_are_read() {
    let v4 = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    let all_ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let v6 = format!("PROXY TCP6 {all_ones} {all_ones} 65535 65535\r\n");
    let unknown = format!("PROXY UNKNOWN {all_ones} {all_ones} 65535 65535\r\n");
    assert_eq!((v4.len(), v6.len(), unknown.len()), (56, 104, V1_HEADER_BYTES_MAX), "§2.1 says so");
    assert_eq!(client_of(v4.as_bytes()), Some(client("255.255.255.255:65535", "255.255.255.255:65535")));
    let one = format!("[{all_ones}]:65535");
    assert_eq!(client_of(v6.as_bytes()), Some(client(&one, &one)));
    assert_eq!(client_of(unknown.as_bytes()), None);
}

#[test]
fn shortest_lines_are_read_without_a_byte_of_what_follows() {
    assert_eq!(client_of(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), Some(client("0.0.0.0:0", "0.0.0.0:0")));
    assert_eq!(client_of(b"PROXY TCP6 :: :: 0 0\r\n"), Some(client("[::]:0", "[::]:0")));
    assert_eq!(client_of(b"PROXY UNKNOWN\r\n"), None);
    assert_eq!(client_of(b"PROXY UNKNOWN whatever it says\r\n"), None);
}

#[test]
fn malformed_lines_are_refused_with_their_fault() {
    for (line, expected) in [
        ("PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n", LineFault::Protocol),
        ("PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n", LineFault::Protocol),
        ("PROXY UNKNOWNS\r\n", LineFault::Protocol),
        ("PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n", LineFault::Protocol),
        ("PROXY TCP4\r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.7\t198.51.100.1 1 2\r\n", LineFault::Fields),
        ("PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n", LineFault::Address),
        ("PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n", LineFault::Address),
        ("PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n", LineFault::Address),
        ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", LineFault::Address),
        ("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", LineFault::Address),
        ("PROXY TCP6 2001:db8:::7 2001:db8::1 1 2\r\n", LineFault::Address),
        ("PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n", LineFault::Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 00 2\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 -1 2\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 http\r\n", LineFault::Port),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", LineFault::LineEnd),
        ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\rx", LineFault::LineEnd),
        ("PROXY UNKNOWN \r \r\n", LineFault::LineEnd),
    ] {
        assert_eq!(fault(line), expected, "{line:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 1 \xff\r\n";
    assert!(matches!(refusal(line), HeaderError::Line(LineFault::Fields)));
}

#[test]
fn line_without_end_is_given_up_at_its_bound() {
    for start in ["PROXY UNKNOWN ", "PROXY TCP4 ", "PROXY TCP6 1 2 3 4 5 6 7 8 9 "] {
        let endless = format!("{start}{}", "x".repeat(10_000));
        let (outcome, rest) = read(endless.as_bytes());
        assert!(matches!(outcome, Err(HeaderError::Line(LineFault::TooLong))), "{outcome:?}");
        assert!(endless.len() - rest.len() <= V1_HEADER_BYTES_MAX);
    }
    let one_too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_HEADER_BYTES_MAX - 15));
    assert_eq!(one_too_long.len(), V1_HEADER_BYTES_MAX + 1);
    assert_eq!(fault(&one_too_long), LineFault::TooLong);
}

#[test]
fn what_is_no_header_is_refused_at_its_first_bytes() {
    for bytes in ["GET / HTTP/1.1\r\n\r\n", "PROXY\tTCP4 192.0.2.7", "\r\n\r\n\0\r\nQUIT\r", "proxy TCP4 192.0.2.7"] {
        let (outcome, rest) = read(bytes.as_bytes());
        assert!(matches!(outcome, Err(HeaderError::Signature)), "{outcome:?}");
        assert_eq!(bytes.len() - rest.len(), 12);
    }
}

#[test]
fn every_cut_of_a_header_is_an_unexpected_end() {
    let headers = BOTH
        .into_iter()
        .flat_map(|version| [None, Some(v4()), Some(v6())].map(|client| encode_header(version, client.as_ref())));
    for header in headers.chain([v2(0x21, 0x11, &v4_body_and(&[4, 0, 2, 0, 0]))]) {
        for len in 0..header.len() {
            match read(&header[..len]).0 {
                Err(HeaderError::Io(error)) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
                other => panic!("{len} of {} bytes: {other:?}", header.len()),
            }
        }
    }
}

#[test]
fn v2_local_and_foreign_families_name_no_client() {
    let unix = [1; 216];
    for header in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, V4_BODY),
        v2(0x20, 0xff, &[1, 2, 3]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x00, &[0xff; 7]),
        v2(0x21, 0x12, V4_BODY),
        v2(0x21, 0x22, &[1; 36]),
        v2(0x21, 0x31, &unix),
        v2(0x21, 0x32, &unix),
    ] {
        assert_eq!(client_of(&header), None);
    }
}

#[test]
fn v2_versions_commands_and_families_that_do_not_exist_are_refused() {
    for version in (0..16).filter(|&version| version != 2) {
        let header = v2(version << 4 | 1, 0x11, V4_BODY);
        assert!(matches!(refusal(&header), HeaderError::Version(found) if found == version));
    }
    for command in 2..16 {
        assert!(matches!(refusal(&v2(0x20 | command, 0x11, V4_BODY)), HeaderError::Command(found) if found == command));
    }
    for family in (0..=255).filter(|family| ![0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32].contains(family)) {
        assert!(matches!(refusal(&v2(0x21, family, &[1; 216])), HeaderError::Family(found) if found == family));
    }
}

#[test]
fn v2_addresses_that_do_not_fit_are_refused() {
    for (family, needed) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)] {
        let refusal = refusal(&v2(0x21, family, &vec![0; needed - 1]));
        let as_expected =
            matches!(refusal, HeaderError::Addresses { len, needed: of } if (len, of) == (needed - 1, needed));
        assert!(as_expected, "{refusal}");
    }
}

#[test]
fn v2_length_is_bounded() {
    let room = V2_HEADER_BYTES_MAX - 16 - V4_BODY.len() - 3;
    let filled = |len: usize| {
        let tlv = [&[4], &u16::try_from(len).unwrap().to_be_bytes()[..], &vec![0; len]].concat();
        v2(0x21, 0x11, &v4_body_and(&tlv))
    };
    assert_eq!(filled(room).len(), V2_HEADER_BYTES_MAX);
    assert_eq!(client_of(&filled(room)), Some(v4()));
    assert!(matches!(refusal(&filled(room + 1)), HeaderError::Length(521)));
    assert!(matches!(refusal(&v2(0x20, 0x00, &[0; 0xffff])), HeaderError::Length(0xffff)));
}

#[test]
fn v2_tlvs_are_passed_over_and_must_fill_the_header() {
    for tlvs in [&[4, 0, 0][..], &[1, 0, 2, b'h', b'2', 0xee, 0, 1, 7], &[0x20, 0, 5, 1, 0, 0, 0, 0]] {
        assert_eq!(client_of(&v2(0x21, 0x11, &v4_body_and(tlvs))), Some(v4()));
    }
    for tlvs in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 4], &[1, 0xff, 0xff, b'h', b'2'], &[3, 0, 3, 1, 2, 3]] {
        assert!(matches!(refusal(&v2(0x21, 0x11, &v4_body_and(tlvs))), HeaderError::Tlv), "{tlvs:?}");
    }
}

#[test]
fn v2_checksum_must_be_right_if_there_is_one() {
    /// Computed apart from the code under test, over the header with four zeros in the checksum's place.
    const CHECKSUM: u32 = 0x52ba_71a1;
    let body =
        |checksum: [u8; 4]| v4_body_and(&[&[4, 0, 1, 0, 3, 0, 4][..], &checksum, &[1, 0, 2, b'h', b'2']].concat());
    let good = CHECKSUM.to_be_bytes();
    assert_eq!(client_of(&v2(0x21, 0x11, &body(good))), Some(v4()));
    for bit in 0..32 {
        let header = v2(0x21, 0x11, &body((CHECKSUM ^ 1 << bit).to_be_bytes()));
        assert!(matches!(refusal(&header), HeaderError::Checksum));
    }
    let mut other_client = v2(0x21, 0x11, &body(good));
    other_client[16] ^= 1;
    assert!(matches!(refusal(&other_client), HeaderError::Checksum));
}

#[test]
fn refusals_say_what_is_legal() {
    for (header, text) in [
        (v2(0x31, 0x11, V4_BODY), "version 3; legal: 2"),
        (v2(0x25, 0x11, V4_BODY), "command 5; legal: 0 (LOCAL), 1 (PROXY)"),
        (v2(0x21, 0x13, V4_BODY), "family and transport 0x13; legal: 0x00, 0x11"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 70000\r\n".to_vec(), "malformed port; legal: 0 to 65535"),
    ] {
        let refusal = refusal(&header).to_string();
        assert!(refusal.contains(text), "{refusal}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
    // With runs of zeros, which text shortens, and the forms that mean IPv4.
    let v6 = (any::<u128>(), any::<u128>(), any::<u128>())
        .prop_map(|(a, b, c)| IpAddr::from(Ipv6Addr::from_bits(a & b & c)));
    let mapped = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits).to_ipv6_mapped()));
    prop_oneof![v4, v6, mapped]
}

fn any_client() -> impl Strategy<Value = Client> {
    let endpoint = || (any_address(), any::<u16>()).prop_map(SocketAddr::from);
    (endpoint(), endpoint()).prop_map(|(peer, local)| Client { peer, local })
}

/// The same client with each address in its shortest form.
fn canonical(client: Client) -> Client {
    let one = |endpoint: SocketAddr| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
    Client { peer: one(client.peer), local: one(client.local) }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(client in any_client(), payload: Vec<u8>) {
        for version in BOTH {
            let header = encode_header(version, Some(&client));
            let max = match version {
                ProxyVersion::V1 => V1_HEADER_BYTES_MAX,
                ProxyVersion::V2 => 16 + 36,
            };
            prop_assert!(header.len() <= max);
            let bytes = [header, payload.clone()].concat();
            let (outcome, rest) = read(&bytes);
            let Header { version: found, client: read } = outcome.unwrap();
            prop_assert_eq!((found, read.map(canonical)), (version, Some(canonical(client))));
            prop_assert_eq!(rest, &payload[..]);
        }
    }

    #[test]
    fn an_independent_parser_reads_the_same(client in any_client()) {
        let line = encode_header(ProxyVersion::V1, Some(&client));
        let ours = client_of(&line).unwrap();
        let theirs = match ppp::v1::Header::try_from(&line[..]).unwrap().addresses {
            ppp::v1::Addresses::Tcp4(a) => (a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port),
            ppp::v1::Addresses::Tcp6(a) => (a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port),
            ppp::v1::Addresses::Unknown => panic!("there are addresses"),
        };
        prop_assert_eq!((ours.peer.ip(), ours.peer.port(), ours.local.ip(), ours.local.port()), theirs);

        let header = encode_header(ProxyVersion::V2, Some(&client));
        let ours = client_of(&header).unwrap();
        let theirs = match ppp::v2::Header::try_from(&header[..]).unwrap().addresses {
            ppp::v2::Addresses::IPv4(a) => (a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port),
            ppp::v2::Addresses::IPv6(a) => (a.source_address.into(), a.source_port, a.destination_address.into(), a.destination_port),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!((ours.peer.ip(), ours.peer.port(), ours.local.ip(), ours.local.port()), theirs);
    }

    #[test]
    fn a_header_with_changed_bytes_is_read_or_refused_within_its_bound(
        client in any_client(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        payload in prop::collection::vec(any::<u8>(), 600),
    ) {
        for (version, max) in [(ProxyVersion::V1, V1_HEADER_BYTES_MAX), (ProxyVersion::V2, V2_HEADER_BYTES_MAX)] {
            let mut header = encode_header(version, Some(&client));
            for (at, byte) in &changes {
                let at = at.index(header.len());
                header[at] = *byte;
            }
            let bytes = [header, payload.clone()].concat();
            let (_, rest) = read(&bytes);
            prop_assert!(bytes.len() - rest.len() <= max);
        }
    }
}

#[test]
fn header_that_drips_in_byte_by_byte_is_read() {
    block_on(async {
        for version in BOTH {
            let (mut near, mut far) = tokio::io::duplex(1);
            let header = encode_header(version, Some(&v6()));
            let proxy = tokio::spawn(async move { far.write_all(&header).await });
            assert_eq!(read_header(&mut near).await.unwrap().client, Some(v6()));
            proxy.await.unwrap().unwrap();
        }
    });
}

#[test]
fn header_in_one_segment_with_data_leaves_the_data_to_the_connection() {
    block_on(async {
        for version in BOTH {
            let stats = Arc::new(ConnectionStats::default());
            let mut door = KernelListener::bind("127.0.0.1:0".parse().unwrap(), 16, stats).unwrap();
            let mut proxy = net::TcpStream::connect(door.local_addr()).unwrap();
            let mut connection = door.accept().await.unwrap();
            proxy.write_all(&[&encode_header(version, Some(&v4()))[..], PAYLOAD].concat()).unwrap();
            proxy.shutdown(Shutdown::Write).unwrap();
            let header = timeout(PATIENCE, read_header(&mut connection)).await.unwrap().unwrap();
            assert_eq!((header.version, header.client), (version, Some(v4())));
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, PAYLOAD);
        }
    });
}

#[test]
fn header_that_stops_half_way_is_the_callers_deadline() {
    block_on(async {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"PROXY TCP4 192.0.2.7 ").await.unwrap();
        assert!(timeout(Duration::from_millis(10), read_header(&mut near)).await.is_err());
    });
}
