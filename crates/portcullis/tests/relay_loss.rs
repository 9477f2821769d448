//! The relay between a kernel's client and a kernel's upstream, where the network loses a part of all packets: every byte arrives, once and
//! in order, and each side's FIN reaches the other, whoever closes first.
//!
//! ```text
//!   client ─── router ═══ the door      client and upstream are behind one router, which drops one packet in so many of all that it
//!   upstream ──┘                        forwards, on the way to the door and on the way back
//! ```

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::{Domain, SockRef, Socket, Type};
use support::{Door, Lab, PATIENCE, PORT, Scratch, V4};
use testnet::{Namespace, XorShift, eventually, isolated, veth};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
const UPSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 3, 2)), 9000);

/// The client's port of the first case; the others follow. Upstreams learn it from the header of the PROXY protocol, and so which case it is.
const FIRST_PORT: u16 = 20_000;

/// Nothing moves for so long only if it hangs. It is seldom, but happens, that a kernel that has repeated a segment in vain some ten times
/// moves nothing for tens of seconds: each repetition waits twice as long as the one before.
const STALLED: Duration = Duration::from_secs(80);

/// Who ends its direction first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The client sends and closes; the upstream answers when it has read to the end.
    ClientFirst,
    /// The upstream sends and closes; the client, which has greeted it with a byte, sends the rest when it has read to the end.
    UpstreamFirst,
    /// Both send at once.
    Together,
}

/// One connection, and what passes over it.
#[derive(Clone, Copy, Debug)]
struct Case {
    number: u16,
    order: Order,
    up_bytes: usize,
    down_bytes: usize,
}

/// What one end sent and what it received.
#[derive(Debug)]
struct Seen {
    sent: [u8; 32],
    received: [u8; 32],
    received_bytes: usize,
}

/// One of each order for each pair of sizes, but for clients that have nothing to greet with.
///
/// Without a greeting, an upstream that is to speak first is not reached when the handshake's last ACK is lost and each one that answers a
/// repeated SYN-ACK is lost as well: the client takes itself for connected and waits. That is so with any TCP server (RFC 9293 §3.5), and
/// with one packet of five lost it happens in one handshake of some hundred.
fn cases(bulk_bytes: usize) -> Vec<Case> {
    let sizes = [
        (0, 0),
        (0, bulk_bytes),
        (bulk_bytes, 1),
        (1, 5000),
        (bulk_bytes / 2, bulk_bytes / 2),
        (bulk_bytes, bulk_bytes),
    ];
    let orders = [Order::ClientFirst, Order::UpstreamFirst, Order::Together];
    let all = sizes.into_iter().flat_map(|size| orders.map(|order| (size, order)));
    let case = |(number, ((up_bytes, down_bytes), order))| Case { number: number as u16, order, up_bytes, down_bytes };
    let greets = |&((up_bytes, _), order): &((usize, usize), Order)| up_bytes > 0 || order != Order::UpstreamFirst;
    all.filter(greets).enumerate().map(case).collect()
}

/// The three hosts around the router.
struct Net {
    lab: Lab,
    client: Namespace,
    upstream: Namespace,
}

impl Net {
    fn new() -> Net {
        let lab = Lab::new();
        let (client, upstream) = (Namespace::new(), Namespace::new());
        let router = &lab.client;
        router.sysctl("net.ipv4.ip_forward", "1");
        for (host, name, subnet) in [(&client, "to-client", "198.18.2"), (&upstream, "to-upstream", "198.18.3")] {
            let (near, far) = (format!("{subnet}.2/24"), format!("{subnet}.1/24"));
            let (near, _far) = veth((host, "eth0", &[&near]), (router, name, &[&far]));
            // What the router drops is to be one segment each time.
            near.send_single_segments();
            host.ip(&format!("route add default via {subnet}.1 rto_min 5ms quickack 1"));
            lab.server.ip(&format!("route add {subnet}.0/24 via 198.18.0.2 rto_min 5ms quickack 1"));
        }
        lab.server_end.send_single_segments();
        for host in [&lab.server, &client, &upstream] {
            // Always there. BBR, which some machines have as their default, takes so much loss for a way of a few bytes per second.
            host.sysctl("net.ipv4.tcp_congestion_control", "reno");
            // Where the kernel can be told (Linux 6.15), nobody waits long for a repetition; for that he repeats more often.
            if Path::new("/proc/sys/net/ipv4/tcp_rto_max_ms").exists() {
                host.sysctl("net.ipv4.tcp_rto_max_ms", "1000");
            }
            host.sysctl("net.ipv4.tcp_syn_retries", "30");
            host.sysctl("net.ipv4.tcp_orphan_retries", "30");
        }
        Net { lab, client, upstream }
    }

    /// From now on so many of a hundred packets that pass the router are lost, whichever way they go.
    fn lose(&self, percent: u32) {
        let rules = format!(
            "add table ip loss; add chain ip loss way {{ type filter hook forward priority 0; }}; \
             add rule ip loss way numgen random mod 100 < {percent} counter drop"
        );
        let output = self.lab.client.command("nft").arg(rules).output().expect("run nft (package nftables)");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "nft takes no rule with numgen, which this test needs: {said}");
    }

    /// Packets lost so far.
    fn lost(&self) -> u64 {
        let rules = self.lab.client.output("nft", "list table ip loss");
        let count = rules.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no counter in {rules}"))
    }
}

/// The relay under test, which tells its upstream who the client is.
fn door(net: &Net) -> Door {
    let scratch = Scratch::new();
    let config = format!(
        "[[listener]]\nbind = [\"0.0.0.0:{PORT}\"]\nupstream = \"{UPSTREAM}\"\nproxy_protocol = {{ send = \"v1\" }}\n\
         timeouts = {{ connect_seconds = 80, idle_seconds = 110, half_close_seconds = 110 }}\n"
    );
    Door::configured(&net.lab, &scratch.file("portcullis.toml", &config))
}

fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    (&*stream).write_all(bytes)?;
    stream.shutdown(Shutdown::Write)
}

/// Reads to FIN. A RST is an error: a direction that was cut short must not pass for a whole one.
fn receive(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// When one end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    /// After reading to the end, but for so many bytes.
    Last {
        greeting_len: usize,
    },
    AtOnce,
}

/// Sends and receives at one end.
fn converse(stream: &TcpStream, reader: impl Read + Send, bytes: &[u8], turn: Turn) -> io::Result<Seen> {
    let received = match turn {
        Turn::First => {
            send(stream, bytes)?;
            receive(reader)?
        }
        Turn::Last { greeting_len } => {
            let (greeting, rest) = bytes.split_at(greeting_len);
            (&*stream).write_all(greeting)?;
            let received = receive(reader)?;
            send(stream, rest)?;
            received
        }
        Turn::AtOnce => thread::scope(|scope| {
            let receiving = scope.spawn(|| receive(reader));
            send(stream, bytes)?;
            receiving.join().expect("the reading thread")
        })?,
    };
    Ok(Seen {
        sent: Sha256::digest(bytes).into(),
        received: Sha256::digest(&received).into(),
        received_bytes: received.len(),
    })
}

fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))
}

fn client_end(case: Case) -> io::Result<Seen> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((CLIENT, FIRST_PORT + case.number)).into())?;
    socket.connect_timeout(&V4.into(), STALLED)?;
    let stream = TcpStream::from(socket);
    patient(&stream)?;
    let bytes = XorShift::new(u64::from(case.number)).bytes(case.up_bytes);
    let turn = match case.order {
        Order::ClientFirst => Turn::First,
        Order::UpstreamFirst => Turn::Last { greeting_len: 1 },
        Order::Together => Turn::AtOnce,
    };
    converse(&stream, &stream, &bytes, turn)
}

/// `PROXY TCP4 198.18.2.2 198.18.0.1 20007 8080`: the fifth word tells the case.
fn case_of(header: &str, cases: &[Case]) -> Option<Case> {
    let port: u16 = header.split(' ').nth(4)?.parse().ok()?;
    cases.get(usize::from(port.checked_sub(FIRST_PORT)?)).copied()
}

fn upstream_end(stream: &TcpStream, cases: &[Case]) -> io::Result<(Case, Seen)> {
    patient(stream)?;
    let mut reader = BufReader::new(stream);
    let mut header = String::new();
    reader.read_line(&mut header)?;
    let case = case_of(&header, cases).ok_or_else(|| io::Error::other(format!("a stranger: {header:?}")))?;
    let bytes = XorShift::new(!u64::from(case.number)).bytes(case.down_bytes);
    let turn = match case.order {
        Order::ClientFirst => Turn::Last { greeting_len: 0 },
        Order::UpstreamFirst => Turn::First,
        Order::Together => Turn::AtOnce,
    };
    Ok((case, converse(stream, reader, &bytes, turn)?))
}

/// All connections at once; what was seen at both ends of each.
fn run(net: &Net, cases: &[Case]) -> Vec<(Case, Seen, Seen)> {
    let listener = net.upstream.run(|| TcpListener::bind(UPSTREAM)).expect("bind the upstream");
    SockRef::from(&listener).set_read_timeout(Some(STALLED)).expect("a limit for accept");
    thread::scope(|scope| {
        let upstreams: Vec<_> = cases
            .iter()
            .map(|_| {
                let listener = &listener;
                scope.spawn(move || {
                    let (stream, _relay) = listener.accept()?;
                    upstream_end(&stream, cases)
                })
            })
            .collect();
        let clients: Vec<_> =
            cases.iter().map(|&case| scope.spawn(move || net.client.run(|| client_end(case)))).collect();
        let of_clients: Vec<_> = clients.into_iter().map(|thread| thread.join().expect("a client's thread")).collect();
        let of_upstreams: Vec<_> = upstreams.into_iter().map(|thread| thread.join().expect("an upstream's")).collect();
        for (case, seen) in cases.iter().zip(&of_clients) {
            seen.as_ref().err().into_iter().for_each(|error| println!("at the client of {case:?}: {error}"));
        }
        let failed = of_upstreams.iter().filter_map(|seen| seen.as_ref().err());
        failed.for_each(|error| println!("at an upstream: {error}"));
        // What failed is told above, with all that failed by it.
        let mut of_upstreams: Vec<_> = of_upstreams.into_iter().map(|seen| seen.expect("an upstream")).collect();
        of_upstreams.sort_by_key(|(case, _)| case.number);
        let of_clients = of_clients.into_iter().map(|seen| seen.expect("a client"));
        of_clients.zip(of_upstreams).map(|(client, (case, upstream))| (case, client, upstream)).collect()
    })
}

fn everything_passes(percent: u32, bulk_bytes: usize) {
    let net = Net::new();
    let door = door(&net);
    net.lose(percent);
    let cases = cases(bulk_bytes);
    let seen = run(&net, &cases);
    assert_eq!(seen.len(), cases.len());
    for (expected, (case, client, upstream)) in cases.iter().zip(seen) {
        assert_eq!(case.number, expected.number, "each client has one upstream");
        assert_eq!((upstream.received_bytes, client.received_bytes), (case.up_bytes, case.down_bytes), "{case:?}");
        assert_eq!((upstream.received, client.received), (client.sent, upstream.sent), "{case:?}");
    }
    // At the least loss, chance spares every packet of such a run less often than once in a billion times.
    assert!(net.lost() > 0, "nothing was lost");
    // Whoever has sent FIN and got one is gone; only TIME-WAIT stays, with the one who was first.
    let gone = || door.states().keys().all(|state| matches!(state.as_str(), "listen" | "time_wait"));
    eventually("no connection stays", PATIENCE, gone);
}

#[test]
fn one_packet_in_a_hundred_lost_and_every_byte_and_fin_arrives() {
    isolated!(|| everything_passes(1, 2 << 20));
}

#[test]
fn one_packet_in_twenty_lost_and_every_byte_and_fin_arrives() {
    isolated!(|| everything_passes(5, 1 << 20));
}

#[test]
fn one_packet_in_five_lost_and_every_byte_and_fin_arrives() {
    isolated!(|| everything_passes(20, 40_000));
}
