//! Who is let in, on the kernel tier, which needs no rights. `e2e_limits.rs` has what the other tiers add.

mod binary;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use binary::{PATIENCE, Server, TempFile, own_addr, portcullis};
use socket2::{Domain, Socket, Type};
use testnet::{Metrics, Namespace, http_get};

/// An echo server with these lines in its listener's table.
fn server(lines: &str) -> Server {
    let addr = own_addr(8080);
    let file = TempFile::new(&config(addr, lines));
    let mut command = portcullis(&["--config", file.path()]);
    command.args(["--datapath", "kernel", "--admin", "127.0.0.1:0"]);
    Server::spawn(command, addr)
}

fn config(addr: SocketAddr, lines: &str) -> String {
    format!("[[listener]]\nbind = [\"{addr}\"]\nservice = \"echo\"\n{lines}\n")
}

/// A connection from an address of 127/8 over which a byte has come back; `None` if it was reset, which may be before `connect`
/// is done.
fn served_from(source: [u8; 4], server: &Server) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((IpAddr::from(source), 0)).into()).unwrap();
    let echoed = socket.connect_timeout(&server.addr.into(), PATIENCE).and_then(|()| {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = TcpStream::from(socket);
        echo(&mut stream).map(|()| stream)
    });
    match echoed {
        Ok(stream) => Some(stream),
        Err(error) => {
            let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
            assert!(reset, "{error}");
            None
        }
    }
}

fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]))
}

const HERE: [u8; 4] = Ipv4Addr::LOCALHOST.octets();

#[test]
fn one_too_many_waits_until_somebody_leaves() {
    let server = server("connections_max = 1");
    let first = served_from(HERE, &server).unwrap();
    let mut second = server.connect();
    second.write_all(b"y").unwrap();
    drop(first);
    let mut byte = [0];
    second.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"y");
}

#[test]
fn one_too_many_is_reset_where_the_limit_says_so() {
    let server = server("connections_max = 1\nlimits = { at_limit = \"reset\" }");
    let mut first = served_from(HERE, &server).unwrap();
    assert!(served_from(HERE, &server).is_none());
    echo(&mut first).expect("who is inside stays");
    drop(first);
    // The place is free once the server has seen the end of the first.
    while served_from(HERE, &server).is_none() {}
}

/// Connections of the server that ended for this reason.
fn closed(server: &Server, reason: &str) -> f64 {
    let (status, text) = http_get(&Namespace::current(), server.admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    let labels = [("listener", "default"), ("reason", reason)];
    Metrics::parse(&text).get("portcullis_connections_closed_total", &labels).unwrap()
}

#[test]
fn who_fills_the_listener_and_does_nothing_makes_room_for_others() {
    let server = server("connections_max = 4\nlimits = { at_limit = \"displace\", displace_idle_seconds = 1 }");
    let mut attackers: Vec<_> = (1..5).map(|host| served_from([127, 1, 1, host], &server).unwrap()).collect();
    // They are spared for a second.
    let mut client = None;
    testnet::eventually("a client of another prefix gets in", PATIENCE, || {
        client = served_from([127, 1, 2, 1], &server);
        client.is_some()
    });
    testnet::eventually("who made room has gone", PATIENCE, || closed(&server, "overload") == 1.0);
    let mut second = served_from([127, 1, 3, 1], &server).expect("the others have been idle for as long");
    for host in 5..20 {
        assert!(served_from([127, 1, 1, host], &server).is_none(), "their prefix has more than any other");
    }
    for stream in [client.as_mut().unwrap(), &mut second] {
        echo(stream).expect("who came in stays");
    }
    testnet::eventually("who made room has gone", PATIENCE, || closed(&server, "overload") == 2.0);
    let reset = attackers.iter_mut().filter_map(|attacker| echo(attacker).err()).count();
    assert_eq!(reset, 2);
}

#[test]
fn one_prefix_has_its_share_and_another_its_own() {
    let server = server("limits = { per_prefix = 2 }");
    let inside = [[127, 1, 1, 1], [127, 1, 1, 200]].map(|source| served_from(source, &server));
    assert!(inside.iter().all(Option::is_some));
    assert!(served_from([127, 1, 1, 3], &server).is_none());
    assert!(served_from([127, 1, 2, 3], &server).is_some());
}

#[test]
fn lists_say_who_is_served() {
    let allow = TempFile::new("127.0.0.0/16\n127.5.0.0/16 # a branch\n");
    let deny = TempFile::new("127.5.7.0/24\n");
    let lines = format!("limits = {{ allow_files = [\"{}\"], deny_files = [\"{}\"] }}", allow.path(), deny.path());
    let server = server(&lines);
    for (source, served) in [(HERE, true), ([127, 5, 6, 1], true), ([127, 5, 7, 1], false), ([127, 6, 0, 1], false)] {
        assert_eq!(served_from(source, &server).is_some(), served, "{source:?}");
    }
}

#[test]
fn a_list_with_a_fault_keeps_it_from_starting_and_is_told_with_its_line() {
    let list = TempFile::new("127.0.0.0/8\n127.0.0.1/8\n");
    let lines = format!("limits = {{ deny_files = [\"{}\", \"/nowhere/list\"] }}", list.path());
    let file = TempFile::new(&config(own_addr(8080), &lines));
    let output = binary::output(&["--config", file.path(), "--datapath", "kernel", "--admin", "none"]);
    assert_eq!(binary::code(&output), 2);
    let said = binary::stderr(&output);
    for part in [&format!("{}:2: \"127.0.0.1/8\" is no prefix", list.path()), "/nowhere/list: cannot be read"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = binary::output(&["check", file.path()]);
    assert_eq!(binary::code(&output), 2, "check finds it too");
    assert!(binary::stderr(&output).contains(":2: "), "{}", binary::stderr(&output));
}
