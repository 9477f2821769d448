//! Each step from one state to the next is counted, once, where the kernel lets us see it: every order of closing, every way to break.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use exporter::Source;
use listener::TcpState::{self, *};
use listener::Transition;
use nix::sys::socket::{setsockopt, sockopt};
use portcullis::{Builder, Connection, Datapath, Listener};
use support::{BOTH, Lab, PATIENCE, PORT, V4};
use testnet::{Flags, RawHost, Script, eventually, eventually_seen, isolated, set_option, states};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

type Step = (TcpState, TcpState);

/// Whether eBPF programs can be had: not by the rights of a user namespace.
fn in_first_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("read the user namespace's map");
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// A listener of this process in the server's namespace, and the steps that it should have counted.
struct Site {
    runtime: Runtime,
    listener: Listener,
    source: Arc<dyn Source>,
    expected: BTreeMap<Step, u64>,
}

impl Site {
    /// With the datapath under test.
    fn open(lab: &Lab) -> Site {
        Site::of(lab, datapath_under_test())
    }

    fn of(lab: &Lab, datapath: Datapath) -> Site {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = lab.server.run(|| runtime.block_on(builder().datapath(datapath).build())).expect("a listener");
        Site::with(runtime, listener)
    }

    fn with(runtime: Runtime, listener: Listener) -> Site {
        let source = listener.source("web");
        Site { runtime, listener, source, expected: BTreeMap::new() }
    }

    /// What goes on in our place; we keep the connections that we have.
    fn succeed(&self, lab: &Lab) -> Site {
        let control = self.listener.control();
        let estate = control.estate().expect("an estate");
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = lab.server.run(|| {
            let _inside = runtime.enter();
            let successor = builder().succeed(estate).expect("a successor");
            let handed_over = control.hand_over().expect("to be handed over");
            successor.start(&handed_over.bookmarks).expect("to go on")
        });
        Site::with(runtime, listener)
    }

    /// The next connection.
    fn accept(&mut self) -> Connection {
        let accepted = self.runtime.block_on(async { timeout(PATIENCE, self.listener.accept()).await });
        accepted.expect("a connection in time").expect("a listener that goes on").expect("a connection")
    }

    /// A scripted client's connection in ESTABLISHED, and our end of it.
    fn established<'a>(&mut self, host: &'a RawHost, port: u16, server: SocketAddr) -> (Script<'a>, Connection) {
        let mut script = host.script(port, server).with_timestamps(1_000_000);
        script.handshake();
        let connection = self.accept();
        if self.source.tier() == "kernel" {
            self.expect(&[(Listen, SynReceived), (SynReceived, Established)]);
        }
        (script, connection)
    }

    /// Half-closes: FIN from us.
    fn shut(&self, connection: &mut Connection) {
        self.runtime.block_on(connection.shutdown_write()).expect("send FIN");
    }

    /// Waits until these steps were counted beside those of before, and no others.
    fn expect(&mut self, steps: &[Step]) {
        for step in steps {
            *self.expected.entry(*step).or_default() += 1;
        }
        if !in_first_user_namespace() {
            assert_eq!(self.source.transitions(), None, "a user namespace's rights are none to load programs");
            return;
        }
        let what = format!("{:?} counted", self.expected);
        eventually_seen(&what, PATIENCE, || self.counted(), |counted| *counted == self.expected);
    }

    fn counted(&self) -> BTreeMap<Step, u64> {
        let counts = self.source.transitions().expect("the kernel lets us see them");
        let steps = Transition::ALL.into_iter().map(|step| (step.from, step.to)).zip(counts);
        steps.filter(|(_, count)| *count != 0).collect()
    }
}

impl Drop for Site {
    /// At the end of a case nothing more has been counted.
    fn drop(&mut self) {
        if !thread::panicking() && in_first_user_namespace() {
            assert_eq!(self.counted(), self.expected, "counted beside what was expected");
        }
    }
}

/// Of a listener at the guarded port of all addresses.
fn builder() -> Builder {
    let wildcards: [SocketAddr; 2] = [([0, 0, 0, 0], PORT).into(), ([0; 8], PORT).into()];
    Listener::builder().bind(&wildcards[..])
}

fn datapath_under_test() -> Datapath {
    match support::datapath().as_str() {
        "raw" => Datapath::Raw,
        "bpf" => Datapath::Bpf,
        "kernel" => Datapath::Kernel,
        other => panic!("no datapath: {other}"),
    }
}

/// Runs a scenario for both families: a connection in ESTABLISHED, and what happens to it.
fn each_family(scenario: impl Fn(&mut Site, Script<'_>, Connection)) {
    let lab = Lab::new();
    let mut site = Site::open(&lab);
    for server in BOTH {
        let host = lab.raw_host(server);
        let (script, connection) = site.established(&host, 2000, server);
        scenario(&mut site, script, connection);
    }
}

fn reset(script: &Script<'_>) {
    script.send(&script.segment(Flags::RST));
}

#[test]
fn the_client_closes_first() {
    isolated!(|| {
        each_family(|site, mut script, connection| {
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            drop(connection);
            script.expect_fin();
            site.expect(&[(CloseWait, LastAck)]);
            script.ack();
            site.expect(&[(LastAck, Closed)]);
        });
    });
}

#[test]
fn we_close_first() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            site.expect(&[(Established, FinWait1)]);
            script.ack();
            site.expect(&[(FinWait1, FinWait2)]);
            script.fin();
            script.expect_ack();
            site.expect(&[(FinWait2, TimeWait)]);
        });
    });
}

#[test]
fn a_fin_that_acknowledges_ours_goes_by_fin_wait_2() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            script.fin();
            script.expect_ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, TimeWait)]);
        });
    });
}

#[test]
fn a_closed_socket_whose_client_closes_at_once_is_in_time_wait_too() {
    isolated!(|| {
        each_family(|site, mut script, connection| {
            drop(connection);
            script.expect_fin();
            script.fin();
            script.expect_ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, TimeWait)]);
        });
    });
}

#[test]
fn both_close_at_once() {
    isolated!(|| {
        for closes in [false, true] {
            each_family(|site, mut script, mut connection| {
                site.shut(&mut connection);
                let _open = (!closes).then_some(connection); // A socket that is closed goes the same way.
                script.expect_fin();
                site.expect(&[(Established, FinWait1)]);
                cross(&mut script);
                site.expect(&[(FinWait1, Closing)]);
                script.ack();
                site.expect(&[(Closing, TimeWait)]);
            });
        }
    });
}

/// The client's FIN leaves before it has seen the server's: it does not acknowledge it.
fn cross(script: &mut Script<'_>) {
    script.rcv_nxt = script.rcv_nxt.wrapping_sub(1);
    script.fin();
    script.expect_ack();
    script.rcv_nxt = script.rcv_nxt.wrapping_add(1);
}

#[test]
fn a_half_closed_client_still_receives() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            site.runtime.block_on(connection.write_all(b"answer")).expect("write");
            assert_eq!(script.expect_data(6), b"answer");
            site.shut(&mut connection);
            script.expect_fin();
            site.expect(&[(CloseWait, LastAck)]);
            script.ack();
            site.expect(&[(LastAck, Closed)]);
        });
    });
}

#[test]
fn a_half_closed_server_still_receives() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            script.ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
            script.data(b"question");
            let mut question = [0; 8];
            site.runtime.block_on(connection.read_exact(&mut question)).expect("read");
            assert_eq!(&question, b"question");
            script.fin();
            script.expect_ack();
            site.expect(&[(FinWait2, TimeWait)]);
        });
    });
}

#[test]
fn a_reset_in_established_leads_to_closed() {
    isolated!(|| {
        each_family(|site, script, _connection| {
            reset(&script);
            site.expect(&[(Established, Closed)]);
        });
    });
}

#[test]
fn a_reset_in_close_wait_leads_to_closed() {
    isolated!(|| {
        each_family(|site, mut script, _connection| {
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            reset(&script);
            site.expect(&[(CloseWait, Closed)]);
        });
    });
}

#[test]
fn a_reset_in_last_ack_leads_to_closed() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            site.shut(&mut connection);
            script.expect_fin();
            reset(&script);
            site.expect(&[(CloseWait, LastAck), (LastAck, Closed)]);
        });
    });
}

#[test]
fn a_reset_in_fin_wait_1_leads_to_closed() {
    isolated!(|| {
        for closes in [false, true] {
            each_family(|site, mut script, mut connection| {
                site.shut(&mut connection);
                let _open = (!closes).then_some(connection);
                script.expect_fin();
                reset(&script);
                site.expect(&[(Established, FinWait1), (FinWait1, Closed)]);
            });
        }
    });
}

#[test]
fn a_reset_in_fin_wait_2_leads_to_closed() {
    isolated!(|| {
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            script.ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
            reset(&script);
            site.expect(&[(FinWait2, Closed)]);
        });
    });
}

#[test]
fn a_reset_in_closing_leads_to_closed() {
    isolated!(|| {
        for closes in [false, true] {
            each_family(|site, mut script, mut connection| {
                site.shut(&mut connection);
                let _open = (!closes).then_some(connection);
                script.expect_fin();
                cross(&mut script);
                site.expect(&[(Established, FinWait1), (FinWait1, Closing)]);
                reset(&script);
                site.expect(&[(Closing, Closed)]);
            });
        }
    });
}

#[test]
fn an_abort_of_ours_leads_to_closed_from_anywhere() {
    isolated!(|| {
        each_family(|site, _script, connection| {
            connection.abort();
            site.expect(&[(Established, Closed)]);
        });
        each_family(|site, mut script, connection| {
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            connection.abort();
            site.expect(&[(CloseWait, Closed)]);
        });
        each_family(|site, _script, mut connection| {
            site.shut(&mut connection);
            connection.abort();
            site.expect(&[(Established, FinWait1), (FinWait1, Closed)]);
        });
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            script.ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
            connection.abort();
            site.expect(&[(FinWait2, Closed)]);
        });
        each_family(|site, mut script, mut connection| {
            site.shut(&mut connection);
            script.expect_fin();
            cross(&mut script);
            site.expect(&[(Established, FinWait1), (FinWait1, Closing)]);
            connection.abort();
            site.expect(&[(Closing, Closed)]);
        });
    });
}

#[test]
fn a_close_with_unread_data_leads_to_closed() {
    isolated!(|| {
        each_family(|site, mut script, connection| {
            script.data(b"that nobody reads");
            script.expect_ack();
            drop(connection);
            script.expect("a RST", |frame| frame.flags.has(Flags::RST));
            site.expect(&[(Established, Closed)]);
        });
    });
}

#[test]
fn a_timeout_leads_to_closed() {
    isolated!(|| {
        let impatient = |connection: &Connection| {
            setsockopt(connection, sockopt::TcpUserTimeout, &300).expect("TCP_USER_TIMEOUT");
        };
        each_family(|site, mut script, mut connection| {
            impatient(&connection);
            site.shut(&mut connection);
            script.expect_fin();
            site.expect(&[(Established, FinWait1), (FinWait1, Closed)]);
        });
        each_family(|site, mut script, mut connection| {
            impatient(&connection);
            site.shut(&mut connection);
            script.expect_fin();
            cross(&mut script);
            site.expect(&[(Established, FinWait1), (FinWait1, Closing), (Closing, Closed)]);
        });
        each_family(|site, mut script, mut connection| {
            impatient(&connection);
            script.fin();
            site.expect(&[(Established, CloseWait)]);
            site.shut(&mut connection);
            site.expect(&[(CloseWait, LastAck), (LastAck, Closed)]);
        });
    });
}

/// The socket is gone; the kernel keeps a small entry, which is in FIN-WAIT-2 and of which no step is shown any more.
#[test]
fn a_socket_closed_in_fin_wait_2_or_before_leaves_it_unseen() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::open(&lab);
        for (server, port) in BOTH.into_iter().zip(2000..) {
            let host = lab.raw_host(server);
            for (port, acknowledged_first) in [(port, true), (port + 100, false)] {
                let (mut script, mut connection) = site.established(&host, port, server);
                site.shut(&mut connection);
                script.expect_fin();
                if acknowledged_first {
                    script.ack();
                    site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
                    drop(connection);
                } else {
                    site.expect(&[(Established, FinWait1)]);
                    drop(connection);
                    script.ack();
                    site.expect(&[(FinWait1, FinWait2)]);
                }
                let count = |state| states(&lab.server, PORT).get(state).copied().unwrap_or(0);
                let before = count("time_wait");
                eventually("the entry is in FIN-WAIT-2", PATIENCE, || count("fin_wait2") == 1);
                script.fin();
                script.expect_ack();
                eventually("the entry is in TIME-WAIT", PATIENCE, || count("time_wait") == before + 1);
                site.expect(&[]);
            }
        }
    });
}

/// Where `tcp_fin_timeout` is more than the minute of an entry, the kernel keeps the socket itself for the rest of the time.
#[test]
fn a_closed_socket_that_the_kernel_keeps_in_fin_wait_2_is_counted_on() {
    isolated!(|| {
        let lab = Lab::new();
        lab.server.sysctl("net.ipv4.tcp_fin_timeout", "120");
        let mut site = Site::open(&lab);
        for server in BOTH {
            let host = lab.raw_host(server);
            let mut closed = |port| {
                let (mut script, connection) = site.established(&host, port, server);
                drop(connection);
                script.expect_fin();
                script.ack();
                site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
                script
            };
            let (mut finishes, breaks, mut goes_on) = (closed(2000), closed(2001), closed(2002));
            finishes.fin();
            finishes.expect_ack();
            site.expect(&[(FinWait2, TimeWait)]);
            reset(&breaks);
            site.expect(&[(FinWait2, Closed)]);
            goes_on.data(b"that nobody will read");
            goes_on.expect("a RST", |frame| frame.flags.has(Flags::RST));
            site.expect(&[(FinWait2, Closed)]);
        }
    });
}

/// With a negative `TCP_LINGER2` the kernel resets at the close instead of waiting in FIN-WAIT-2.
#[test]
fn a_close_that_may_not_wait_in_fin_wait_2_leads_to_closed() {
    isolated!(|| {
        let impatient = |connection: &Connection| {
            set_option(connection.as_fd(), nix::libc::IPPROTO_TCP, nix::libc::TCP_LINGER2, -1).expect("TCP_LINGER2");
        };
        each_family(|site, mut script, mut connection| {
            impatient(&connection);
            site.shut(&mut connection);
            script.expect_fin();
            script.ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2)]);
            drop(connection);
            script.expect("a RST", |frame| frame.flags.has(Flags::RST));
            site.expect(&[(FinWait2, Closed)]);
        });
        each_family(|site, mut script, connection| {
            impatient(&connection);
            drop(connection);
            script.expect_fin();
            script.ack();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Closed)]);
        });
    });
}

#[test]
fn sockets_of_others_are_not_counted() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::open(&lab);
        // Another port, and the other end of a connection to it.
        live_and_die(&lab.server.run(|| TcpListener::bind(("127.0.0.1", PORT + 1)).expect("bind")), |addr| {
            lab.server.run(|| TcpStream::connect(addr).expect("connect"))
        });
        // The same port and address, in another network namespace; connected to from ours: its port is there the peer's.
        live_and_die(&lab.client.run(|| TcpListener::bind(("198.18.0.2", PORT)).expect("bind")), |addr| {
            lab.server.run(|| TcpStream::connect(addr).expect("connect"))
        });
        live_and_die(&lab.client.run(|| TcpListener::bind(("127.0.0.1", PORT)).expect("bind")), |addr| {
            lab.client.run(|| TcpStream::connect(addr).expect("connect"))
        });
        site.expect(&[]);
        // And what is counted after all that is one connection.
        let host = lab.raw_host(V4);
        let (script, _connection) = site.established(&host, 2000, V4);
        reset(&script);
        site.expect(&[(Established, Closed)]);
    });
}

/// A client of this host goes by the guarded port at its far end alone.
#[test]
fn a_client_of_the_same_host_is_not_counted_beside_the_server() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::open(&lab);
        let mut client = lab.server.run(|| TcpStream::connect(("127.0.0.1", PORT)).expect("connect"));
        client.write_all(b"?").expect("write");
        let mut connection = site.accept();
        if site.source.tier() == "kernel" {
            site.expect(&[(Listen, SynReceived), (SynReceived, Established)]);
        }
        site.runtime.block_on(connection.read_exact(&mut [0])).expect("read");
        site.shut(&mut connection);
        assert_eq!(client.read(&mut [0]).expect("the FIN"), 0);
        drop(client);
        site.expect(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, TimeWait)]);
    });
}

fn live_and_die(listener: &TcpListener, connect: impl Fn(SocketAddr) -> TcpStream) {
    let mut client = connect(listener.local_addr().expect("its address"));
    let mut server = listener.accept().expect("accept").0;
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(server.read(&mut [0]).expect("the FIN"), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("the other FIN"), 0);
}

/// The kernel makes a socket of a handshake with its third segment, and shows both steps then; before, none.
#[test]
fn in_the_kernel_tier_a_handshake_counts_when_it_is_complete() {
    isolated!(|| {
        let lab = Lab::new();
        let mut site = Site::of(&lab, Datapath::Kernel);
        for (server, port) in BOTH.into_iter().zip(2000..) {
            let host = lab.raw_host(server);
            let mut script = host.script(port, server);
            script.syn();
            script.expect_syn_ack();
            site.expect(&[]);
            script.ack();
            let connection = site.accept();
            site.expect(&[(Listen, SynReceived), (SynReceived, Established)]);
            drop(connection);
            script.expect_fin();
            script.fin();
            site.expect(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, TimeWait)]);
        }
    });
}

#[test]
fn a_port_that_the_kernel_chose_is_counted_too() {
    isolated!(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let building = Listener::builder().bind("127.0.0.1:0").datapath(Datapath::Kernel).build();
        let listener = runtime.block_on(building).expect("a listener");
        let addr = listener.local_addrs()[0];
        let mut site = Site::with(runtime, listener);
        let _client = TcpStream::connect(addr).expect("connect");
        site.accept().abort();
        site.expect(&[(Listen, SynReceived), (SynReceived, Established), (Established, Closed)]);
    });
}

#[test]
fn each_listener_of_a_process_has_counts_of_its_own() {
    isolated!(|| {
        let lab = Lab::new();
        let mut any = Site::open(&lab);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let building = Listener::builder().bind("127.0.0.1:0").datapath(Datapath::Kernel).build();
        let listener = lab.server.run(|| runtime.block_on(building)).expect("a listener");
        let addr = listener.local_addrs()[0];
        let mut other = Site::with(runtime, listener);

        let _client = lab.server.run(|| TcpStream::connect(addr).expect("connect"));
        other.accept().abort();
        other.expect(&[(Listen, SynReceived), (SynReceived, Established), (Established, Closed)]);
        let host = lab.raw_host(V4);
        let (script, _connection) = any.established(&host, 2000, V4);
        reset(&script);
        any.expect(&[(Established, Closed)]);
        other.expect(&[]);

        // When a listener goes, the others count on.
        drop(other);
        let (mut script, connection) = any.established(&host, 2001, V4);
        script.fin();
        any.expect(&[(Established, CloseWait)]);
        drop(connection);
        any.expect(&[(CloseWait, LastAck)]);
    });
}

#[test]
fn a_successor_begins_at_nothing_and_counts_what_is_left_to_end_too() {
    isolated!(|| {
        for datapath in [Datapath::Raw, Datapath::Kernel] {
            let lab = Lab::new();
            let mut old = Site::of(&lab, datapath);
            let host = lab.raw_host(V4);
            let (mut script, connection) = old.established(&host, 2000, V4);
            script.fin();
            old.expect(&[(Established, CloseWait)]);
            let mut new = old.succeed(&lab);
            new.expect(&[]);
            drop(connection);
            script.expect_fin();
            new.expect(&[(CloseWait, LastAck)]);
            let (script, _connection) = new.established(&host, 2001, V4);
            reset(&script);
            new.expect(&[(Established, Closed)]);
        }
    });
}
