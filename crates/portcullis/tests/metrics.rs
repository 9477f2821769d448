//! What the admin server says of a running process is true: counts add up, states are those that `ss` sees, and every view tells the same.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::battlefield::Battlefield;
use support::clients::Clients;
use support::{BINARY, Door, Lab, PATIENCE, PORT, Scratch, V4, echo, is_closed};
use testnet::{Flags, FloodKind, Metrics, Sources, eventually, http_get, isolated, states};

const ADMIN: &str = "127.0.0.1:9464";

/// A door with one listener, `web`, that has these lines more in its table or behind it.
struct Site {
    door: Door,
    scratch: Scratch,
    lab_server: testnet::Namespace,
}

impl Site {
    fn open(lab: &Lab, lines: &str) -> Site {
        let scratch = Scratch::new();
        let control = scratch.path().join("control.sock");
        let config = format!(
            "control = \"{}\"\n[[listener]]\nname = \"web\"\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n{lines}",
            control.display()
        );
        let door = Door::configured(lab, &scratch.file("portcullis.toml", &config));
        Site { door, scratch, lab_server: lab.server.clone() }
    }

    /// Behind the door is the test itself.
    fn relayed(lab: &Lab, lines: &str) -> (Site, TcpListener) {
        let (upstream, address) = lab.upstream();
        (Site::open(lab, &format!("upstream = \"{address}\"\n{lines}")), upstream)
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = http_get(&self.lab_server, ADMIN.parse().unwrap(), path).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn scrape(&self) -> Sums {
        Sums(Metrics::parse(&self.get("/metrics")))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/status")).expect("JSON")
    }

    fn control(&self) -> PathBuf {
        self.scratch.path().join("control.sock")
    }

    /// Waits until one scrape fulfils this, and nothing is under way any more.
    fn eventually(&self, what: &str, holds: impl Fn(&Sums) -> bool) {
        eventually(what, PATIENCE, || holds(&self.scrape()));
    }
}

/// One scrape; a name stands for all of its series.
struct Sums(Metrics);

impl Sums {
    fn of(&self, name: &str) -> f64 {
        self.part(name, &[])
    }

    fn part(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0.get(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} among {:?}", self.0.names()))
    }

    fn half_open_adds_up(&self) -> bool {
        let inserted = self.of("portcullis_half_open_inserted_total");
        self.of("portcullis_half_open") == inserted - self.of("portcullis_half_open_removed_total")
            && self.of("portcullis_half_open_occupancy_count") == inserted
    }

    fn step(&self, from: &str, to: &str) -> f64 {
        self.part("portcullis_state_transitions_total", &[("from", from), ("to", to)])
    }

    fn connections_add_up(&self, open: f64) -> bool {
        let closed = self.of("portcullis_connections_closed_total");
        self.of("portcullis_connections_accepted_total") - closed == open
            && self.of("portcullis_connections_open") == open
            && self.of("portcullis_connection_duration_seconds_count") == closed
    }
}

/// Everything but the values.
fn series(exposition: &str) -> BTreeSet<String> {
    let samples = exposition.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

#[test]
fn half_open_is_what_was_inserted_less_what_was_removed() {
    isolated!(|| {
        let field = Battlefield::new();
        let site = Site::open(&field.lab, "service = \"echo\"\n[listener.half_open]\nmax = 1024\n");
        // Some complete, one is reset, and the flood's stay.
        for _ in 0..5 {
            assert_eq!(echo(&mut field.lab.connect(V4), b"hello").expect("an echo"), b"hello");
        }
        let host = field.lab.raw_host(V4);
        let mut reset = host.script(2000, V4);
        reset.syn();
        reset.expect_syn_ack();
        reset.send(&reset.segment(Flags::RST));
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        site.eventually("cookies alone", |sums| sums.of("portcullis_syncookies_active") == 1.0);
        flood.stop();
        site.eventually("it adds up, with entries in the queue", |sums| {
            sums.of("portcullis_half_open") > 0.0 && sums.half_open_adds_up()
        });
        let sums = site.scrape();
        let removed = |reason| sums.part("portcullis_half_open_removed_total", &[("reason", reason)]);
        assert_eq!((removed("completed"), removed("reset")), (5.0, 1.0));
        assert_eq!(sums.step("listen", "syn_recv"), sums.of("portcullis_half_open_inserted_total"));
        assert_eq!(sums.step("syn_recv", "established"), 5.0);
        // The high watermark is 75 percent; of the insertion that reached it a trace must be left, though it was over in no time.
        let below = |le| sums.part("portcullis_half_open_occupancy_bucket", &[("le", le)]);
        assert!(below("0.75") > below("0.6"), "{} {}", below("0.6"), below("0.75"));
        assert_eq!(below("+Inf"), below("1"), "more than all is not there");
        let high = sums.of("portcullis_half_open_high_watermark");
        assert_eq!((high, sums.of("portcullis_half_open_low_watermark")), (768.0, 256.0));
    });
}

#[test]
fn open_connections_are_those_accepted_less_those_closed() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::open(&lab, "service = \"echo\"\n");
        let mut clients: Vec<TcpStream> = (0..7).map(|_| lab.connect(V4)).collect();
        site.eventually("seven are open", |sums| sums.connections_add_up(7.0));
        // One says goodbye, one is cut off, one has both sides closed in turn.
        let orderly = clients.pop().unwrap();
        let rude = clients.pop().unwrap();
        let mut polite = clients.pop().unwrap();
        drop(orderly);
        socket2::SockRef::from(&rude).set_linger(Some(Duration::ZERO)).unwrap();
        drop(rude);
        polite.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut polite));
        site.eventually("four are open", |sums| sums.connections_add_up(4.0));
        let sums = site.scrape();
        assert_eq!(sums.part("portcullis_connections_closed_total", &[("reason", "client_reset")]), 1.0);
        assert_eq!(sums.part("portcullis_connections_closed_total", &[("reason", "client_fin")]), 2.0);
        assert_eq!(site.status()["listeners"][0]["open"], 4);
        assert_eq!(states(&lab.server, PORT)["established"], 4);
    });
}

#[test]
fn cookies_valid_and_invalid_are_the_acks_that_carried_one() {
    const GOOD: u16 = 5;
    const BAD: u16 = 7;
    isolated!(|| {
        let lab = Lab::new();
        let half_open = "[listener.half_open]\nmax = 1\nhigh_percent = 100\nprefix_share_percent = 100\n";
        let site = Site::open(&lab, &format!("service = \"echo\"\n{half_open}"));
        let host = lab.raw_host(V4);
        // The only entry there is.
        let mut first = host.script(2000, V4);
        first.syn();
        first.expect_syn_ack();
        site.eventually("cookies alone", |sums| sums.of("portcullis_syncookies_active") == 1.0);
        for port in 3000..3000 + GOOD {
            let mut script = host.script(port, V4);
            script.handshake();
            script.data(b"hello");
            assert_eq!(script.expect_data(5), b"hello");
        }
        for port in 4000..4000 + BAD {
            let mut script = host.script(port, V4);
            script.syn();
            script.expect_syn_ack();
            script.rcv_nxt ^= 1 << (port % 20);
            script.ack();
        }
        site.eventually("as many as there were", |sums| {
            let valid = sums.of("portcullis_syncookies_valid_total");
            (valid, sums.of("portcullis_syncookies_invalid_total")) == (GOOD.into(), BAD.into())
        });
        let sums = site.scrape();
        assert_eq!(sums.part("portcullis_handshakes_completed_total", &[("via", "cookie")]), f64::from(GOOD));
        assert_eq!(sums.step("listen", "established"), f64::from(GOOD));
        assert_eq!(sums.of("portcullis_syncookies_sent_total"), f64::from(GOOD + BAD));
        let web = &site.status()["listeners"][0];
        assert_eq!((&web["cookies_valid"], &web["cookies_bad"]), (&GOOD.into(), &BAD.into()));
    });
}

/// A client of the relay, and what the upstream has of it.
fn joined(lab: &Lab, upstream: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = lab.connect(V4);
    client.write_all(b"x").unwrap();
    let mut server = upstream.accept().expect("the relay's connection").0;
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_exact(&mut [0]).unwrap();
    (client, server)
}

#[test]
fn states_are_those_that_ss_sees_in_every_state_there_can_be_at_rest() {
    isolated!(|| {
        let lab = Lab::new();
        let (site, upstream) = Site::relayed(&lab, "[listener.timeouts]\nhalf_close_seconds = 0\n");
        let _established: Vec<_> = (0..3).map(|_| joined(&lab, &upstream)).collect();
        // The client has said goodbye, and the upstream has more to say.
        let close_wait: Vec<_> = (0..2).map(|_| joined(&lab, &upstream)).collect();
        close_wait.iter().for_each(|(client, _)| client.shutdown(Shutdown::Write).unwrap());
        // The upstream has said goodbye, and the client has more to say.
        let fin_wait: Vec<_> = (0..4).map(|_| joined(&lab, &upstream)).collect();
        fin_wait.iter().for_each(|(_, server)| server.shutdown(Shutdown::Write).unwrap());
        // The upstream first, then the client.
        let (mut client, server) = joined(&lab, &upstream);
        server.shutdown(Shutdown::Write).unwrap();
        assert!(is_closed(&mut client));
        drop(client);
        // Handshakes that stay open: ours, which no socket stands for.
        let host = lab.raw_host(V4);
        for port in 2000..2005 {
            let mut script = host.script(port, V4);
            script.syn();
            script.expect_syn_ack();
        }
        let held = BTreeMap::from(
            [("established", 3), ("close_wait", 2), ("fin_wait2", 4), ("time_wait", 1)]
                .map(|(state, count)| (state.to_owned(), count)),
        );
        let mut seen = BTreeMap::new();
        eventually("the kernel is at rest", PATIENCE, || {
            seen = states(&lab.server, PORT);
            held.iter().all(|(state, count)| seen.get(state) == Some(count))
        });
        let listening = seen["listen"];
        assert_eq!(seen.len(), held.len() + 1, "nothing else: {seen:?}");
        let mut expected = seen.clone();
        expected.insert("syn_recv".to_owned(), 5);
        eventually("and /metrics has seen it", PATIENCE, || site.door.states() == expected);
        assert_eq!(states(&lab.server, PORT), seen, "at rest all the time");
        let told = &site.status()["listeners"][0]["states"];
        let by_rfc = serde_json::json!({
            "CLOSED": 0, "LISTEN": listening, "SYN-SENT": 0, "SYN-RECEIVED": 5, "ESTABLISHED": 3, "FIN-WAIT-1": 0,
            "FIN-WAIT-2": 4, "CLOSE-WAIT": 2, "CLOSING": 0, "LAST-ACK": 0, "TIME-WAIT": 1
        });
        assert_eq!(*told, by_rfc);
    });
}

#[test]
fn connects_to_upstreams_are_those_that_took_their_time_and_those_that_failed() {
    isolated!(|| {
        let lab = Lab::new();
        let (upstream, alive) = lab.upstream();
        let dead = {
            let (closed, address) = lab.upstream();
            drop(closed);
            address
        };
        let site = Site::open(&lab, &format!("upstreams = [\"{dead}\", \"{alive}\"]\n"));
        let mut begun = Vec::new();
        for _ in 0..6 {
            begun.push(joined(&lab, &upstream));
        }
        let sums = site.scrape();
        let [connects, failures, took] = ["connects_total", "connect_failures_total", "connect_duration_seconds_count"]
            .map(|name| sums.of(&format!("portcullis_upstream_{name}")));
        assert!(failures > 0.0 && connects == failures + took, "{connects} {failures} {took}");
        let refused = [("server", &*dead.to_string()), ("reason", "refused")];
        assert_eq!(sums.part("portcullis_upstream_connect_failures_total", &refused), failures);
        assert_eq!(took, 6.0);
        check_by_promtool(&site.get("/metrics"));
    });
}

#[test]
fn no_series_comes_with_traffic_and_promtool_has_nothing_to_say() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::open(&lab, "service = \"echo\"\n");
        let first = site.get("/metrics");
        check_by_promtool(&first);
        for _ in 0..3 {
            assert_eq!(echo(&mut lab.connect(V4), b"hello").expect("an echo"), b"hello");
        }
        let host = lab.raw_host(V4);
        let mut stray = host.script(2000, V4);
        stray.syn();
        stray.expect_syn_ack();
        stray.send(&stray.segment(Flags::RST));
        site.eventually("three were served and one was reset", |sums| {
            sums.of("portcullis_connections_closed_total") == 3.0
                && sums.part("portcullis_half_open_removed_total", &[("reason", "reset")]) == 1.0
        });
        let later = site.get("/metrics");
        assert_eq!(series(&first), series(&later));
        let addresses = ["198.18.0.2", "198.18.0.77", "2001:db8::2"];
        assert!(addresses.iter().all(|client| !later.contains(client)), "no client's address in a label");
    });
}

fn check_by_promtool(exposition: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian: apt-get install prometheus)");
    promtool.stdin.take().expect("its input").write_all(exposition.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}\n{exposition}");
}

#[test]
fn the_admin_server_and_ctl_tell_the_same_status() {
    isolated!(|| {
        let lab = Lab::new();
        let (site, upstream) = Site::relayed(&lab, "");
        let _held = joined(&lab, &upstream);
        let ask = || {
            let socket = site.control();
            let args = ["ctl", "--socket", socket.to_str().expect("ours"), "status", "--json"];
            let output = Command::new(BINARY).args(args).output().expect("run ctl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
        };
        let timeless = |mut status: Value| {
            for clock in ["uptime_seconds", "clock_seconds", "unix_seconds"] {
                assert!(status.as_object_mut().expect("an object").remove(clock).is_some(), "{clock}");
            }
            status
        };
        // The states may be a second old, so the first of the two answers may not have the client yet.
        eventually("the same, at rest", PATIENCE, || timeless(site.status()) == timeless(ask()));
        assert_eq!(site.status()["listeners"][0]["upstreams"][0]["connections"], 1);
    });
}

#[test]
fn events_are_statuses_of_a_flood_while_it_lasts() {
    isolated!(|| {
        let field = Battlefield::new();
        let site = Site::open(&field.lab, "service = \"echo\"\n");
        let mut events = Events::of(&field.lab, "/api/v1/events");
        let before = events.next();
        let clients = Clients::default();
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        thread::scope(|scope| {
            let _until = clients.come(scope, &field.lab.client, [V4]);
            clients.wait_for(20);
            let mut last = before.clone();
            loop {
                let next = events.next();
                let clock = |status: &Value| status["clock_seconds"].as_f64().expect("a number");
                assert!(clock(&next) > clock(&last), "of another moment");
                last = next;
                let web = &last["listeners"][0];
                if web["mode"] == "cookies" && web["handshakes"]["cookie"].as_u64() > Some(0) {
                    assert!(web["syns"].as_u64() > before["listeners"][0]["syns"].as_u64());
                    break;
                }
                assert!(clock(&last) - clock(&before) < PATIENCE.as_secs_f64(), "no cookies: {web}");
            }
        });
        flood.stop();
        drop(site);
    });
}

/// A stream of events.
struct Events {
    client: TcpStream,
    read: Vec<u8>,
}

impl Events {
    fn of(lab: &Lab, path: &str) -> Events {
        let admin: SocketAddr = ADMIN.parse().unwrap();
        let mut client = support::connect_from(&lab.server, admin).expect("connect to the admin server");
        write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        Events { client, read: Vec::new() }
    }

    fn next(&mut self) -> Value {
        const END: &[u8] = b"}\n\n";
        loop {
            if let Some(end) = self.read.windows(END.len()).position(|bytes| bytes == END) {
                let event: Vec<u8> = self.read.drain(..end + END.len()).collect();
                let event = String::from_utf8(event).expect("text");
                let data = event.rsplit_once("event: status\ndata: ").expect("a status").1;
                return serde_json::from_str(data).expect("JSON");
            }
            let mut bytes = [0; 4096];
            let length = self.client.read(&mut bytes).expect("an event in time");
            assert!(length > 0, "the stream has ended");
            self.read.extend(&bytes[..length]);
        }
    }
}

#[test]
fn the_configuration_in_force_is_told_without_the_key() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::open(&lab, "service = \"echo\"\nconnections_max = 77\n");
        let config = site.get("/config");
        assert!(config.contains("connections_max = 77\n"), "{config}");
        assert!(config.contains("\nmaster_key_file = \""), "{config}");
        // `Door` has a key of 42 over and over.
        assert!(!config.contains("4242"), "{config}");
        let again = site.scratch.file("again.toml", &config);
        let output = Command::new(BINARY).arg("check").arg(again).output().expect("run check");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let version: Value = serde_json::from_str(&site.get("/version")).expect("JSON");
        assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(version["pid"], site.door.pid());
        assert!(version["rustc"].as_str().expect("text").starts_with("rustc "), "{version}");
    });
}
