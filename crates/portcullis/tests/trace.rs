//! `portcullis trace`: what a real door and real clients do, as a ladder.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::battlefield::Battlefield;
use support::{Door, Lab, PATIENCE, PORT, Scratch, V4, V6, connect_from, is_raw};
use testnet::{Flags, FloodKind, Process, RawHost, Script, Segment, Signal, Sources, eventually, isolated, take_turns};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// A configuration with a control socket that is known.
struct Settings {
    _scratch: Scratch,
    path: PathBuf,
    socket: PathBuf,
}

impl Settings {
    fn new(listener: &str) -> Settings {
        let scratch = Scratch::new();
        let socket = scratch.dir("run").join("control.sock");
        let bind = format!("[[listener]]\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n");
        let text = format!("control = \"{}\"\n{bind}{listener}\n", socket.display());
        let path = scratch.file("portcullis.toml", &text);
        Settings { _scratch: scratch, path, socket }
    }
}

/// A running `portcullis trace` in the server's namespace, and what it has printed.
struct Trace {
    process: Process,
    _scratch: Scratch,
    out: PathBuf,
}

impl Trace {
    /// Starts, and waits until it watches.
    fn start(lab: &Lab, arguments: &[&str]) -> Trace {
        let scratch = Scratch::new();
        let (out, err) = (scratch.file("out", ""), scratch.file("err", ""));
        let mut command = lab.server.command(BINARY);
        command.arg("trace").args(arguments).stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut process = Process::spawn(command).unwrap();
        eventually("trace watches", PATIENCE, || {
            let said = fs::read_to_string(&err).unwrap();
            assert!(!process.has_ended(), "{said}");
            said.contains("watching")
        });
        Trace { process, _scratch: scratch, out }
    }

    /// Of the door with these settings.
    fn of(lab: &Lab, settings: &Settings, arguments: &[&str]) -> Trace {
        let config = ["--config", settings.path.to_str().unwrap()];
        Trace::start(lab, &[&config, arguments].concat())
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// Waits until all of these have been printed, in this order, and returns everything.
    fn expect(&self, parts: &[&str]) -> String {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            last = self.text();
            if in_order(&last, parts) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{parts:#?} in\n{last}");
    }

    /// Ends it as Ctrl-C does, and returns everything.
    fn stop(mut self) -> String {
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait(PATIENCE).expect("trace ends at SIGINT");
        assert_eq!(status.code(), Some(0));
        self.text()
    }

    /// Waits for its own end.
    fn ended(mut self) -> String {
        let status = self.process.wait(PATIENCE).expect("trace ends by itself");
        assert_eq!(status.code(), Some(0));
        self.text()
    }
}

/// Whether a text has these parts, one behind the other. Spaces and the shafts of arrows do not matter.
fn in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = &*plain(text);
    parts.iter().all(|part| {
        let Some((_, behind)) = rest.split_once(&plain(part)) else { return false };
        rest = behind;
        true
    })
}

fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || "─┄".contains(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn established<'a>(host: &'a RawHost, port: u16, server: SocketAddr) -> Script<'a> {
    let mut script = host.script(port, server);
    script.handshake();
    script
}

fn door(lab: &Lab, listener: &str) -> (Settings, Door) {
    let settings = Settings::new(listener);
    let door = Door::configured(lab, &settings.path);
    (settings, door)
}

/// A door with this service, and a trace of it without flags.
fn watched(service: &str) -> (Lab, (Settings, Door), Trace) {
    let lab = Lab::new();
    let (settings, door) = door(&lab, &format!("service = \"{service}\""));
    let trace = Trace::of(&lab, &settings, &[]);
    (lab, (settings, door), trace)
}

#[test]
fn handshake_by_an_entry_and_a_half_close_are_drawn() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, _door) = door(&lab, "service = \"echo\"");
        let whole = Trace::of(&lab, &settings, &["--count", "1"]);
        let live = Trace::of(&lab, &settings, &["--live"]);
        let mut client = lab.connect(V4);
        let via = if is_raw() { "by an entry of the half-open queue" } else { "by " };
        live.expect(&["ACK seq 1 ack 1", via]);
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        let shown = whole.ended();
        let rows = [
            "CLOSED LISTEN",
            "SYN-SENT SYN seq 0 mss 1460 sack ts ws 10 ► SYN-RECEIVED",
            "ESTABLISHED ◄ SYN ACK seq 0 ack 1",
            "ESTABLISHED ACK seq 1 ack 1 ► ESTABLISHED",
            via,
            "FIN-WAIT-1 FIN ACK seq 9 ack",
            "► CLOSE-WAIT",
            "TIME-WAIT ◄ FIN ACK seq 9 ack 10 LAST-ACK",
            "TIME-WAIT ACK seq 10 ack 10 ► CLOSED",
        ];
        assert!(in_order(&shown, &rows), "{shown}");
    });
}

#[test]
fn handshake_by_a_cookie_is_told_apart() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, door) = door(&lab, "service = \"echo\"\n[listener.half_open]\nmax = 2");
        let host = lab.raw_host(V4);
        if is_raw() {
            // The queue is full: from now on the answer is a cookie alone.
            for port in 3000..3020 {
                host.script(port, V4).syn();
            }
            eventually("entries", PATIENCE, || door.half_open() > 0.0);
        }
        let trace = Trace::of(&lab, &settings, &["--peer", "198.18.0.2", "--live"]);
        let client = lab.connect(V4);
        let expected = if support::is_kernel() { "by the kernel" } else { "by a cookie" };
        trace.expect(&["ACK seq 1 ack 1", expected]);
        drop(client);
        trace.expect(&["FIN-WAIT-1", "CLOSED"]);
        assert!(!trace.stop().contains("198.18.0.77"), "others were not asked for");
    });
}

#[test]
fn server_closes_first_and_stays_in_time_wait() {
    isolated!(|| {
        let (lab, _door, trace) = watched("http");
        for (server, port) in [(V4, 2000), (V6, 2001)] {
            let host = lab.raw_host(server);
            let mut script = established(&host, port, server);
            script.data(b"GET / HTTP/1.0\r\n\r\n");
            while !script.has_seen_fin() {
                let expected = script.rcv_nxt;
                let frame = script.expect("the page", |frame| frame.seq == expected);
                let len = frame.payload.len() as u32 + u32::from(frame.flags.has(Flags::FIN));
                script.rcv_nxt = expected.wrapping_add(len);
                if frame.flags.has(Flags::FIN) {
                    break;
                }
                script.ack();
            }
            script.ack();
            script.fin();
            script.expect_ack();
        }
        let teardown =
            ["CLOSE-WAIT ◄ FIN", "FIN-WAIT-1", "CLOSE-WAIT ACK", "FIN-WAIT-2", "LAST-ACK FIN ACK", "TIME-WAIT"];
        trace.expect(&[&teardown[..], &["#2"], &teardown[..]].concat());
    });
}

#[test]
fn simultaneous_close_goes_through_closing() {
    isolated!(|| {
        let (lab, _door, trace) = watched("http");
        let host = lab.raw_host(V4);
        let mut script = established(&host, 2000, V4);
        script.data(b"GET / HTTP/1.0\r\n\r\n");
        let before = script.rcv_nxt;
        let fin = loop {
            let frame = script.expect("the server's FIN", |_| true);
            if frame.flags.has(Flags::FIN) {
                break frame;
            }
        };
        // The client's FIN knows of the page, not of the FIN behind it.
        let page_end = fin.seq.wrapping_add(fin.payload.len() as u32);
        assert!(page_end != before);
        script.rcv_nxt = page_end;
        script.fin();
        script.expect_ack();
        script.rcv_nxt = page_end.wrapping_add(1);
        script.ack();
        trace.expect(&[
            "FIN-WAIT-1",
            "CLOSING",
            "CLOSING",
            "the FINs crossed: a simultaneous close",
            "TIME-WAIT ◄ ACK",
            "CLOSING",
            "TIME-WAIT ACK",
            "TIME-WAIT",
        ]);
    });
}

#[test]
fn refusals_by_rst_and_by_silence_say_so() {
    isolated!(|| {
        let lab = Lab::new();
        // Nobody guards this port: the kernel refuses.
        let closed = SocketAddr::new(V4.ip(), 9);
        let trace = Trace::start(&lab, &["--listen", "198.18.0.1:9", "--listen", "198.18.0.1:10"]);
        assert!(connect_from(&lab.client, closed).is_err());
        trace.expect(&[
            "SYN-SENT SYN seq 0",
            "CLOSED ◄ RST ACK seq 0 ack 1",
            "CLOSED",
            "refused: RST in answer to the SYN",
        ]);
        // And on this one all is dropped.
        lab.server.output("nft", "add table inet t");
        lab.server.output("nft", "add chain inet t in { type filter hook input priority 0 ; }");
        lab.server.output("nft", "add rule inet t in tcp dport 10 drop");
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, SocketAddr::new(V4.ip(), 10));
        script.syn();
        script.syn();
        // Everything is sent in order, so the SYNs are there when this has been refused.
        assert!(connect_from(&lab.client, closed).is_err());
        trace.expect(&["#2", "refused"]);
        let shown = trace.stop();
        assert!(in_order(&shown, &["#3", "SYN-SENT SYN seq 0", "the same SYN again", "no answer was seen"]), "{shown}");
    });
}

#[test]
fn denied_client_is_refused_at_its_syn() {
    isolated!(|| {
        let lab = Lab::new();
        let scratch = Scratch::new();
        let deny = scratch.file("deny", "127.0.0.0/8\n");
        let (settings, _door) =
            door(&lab, &format!("service = \"echo\"\n[listener.limits]\ndeny_files = [\"{}\"]", deny.display()));
        let trace = Trace::of(&lab, &settings, &[]);
        // Where the answer passes the tap: over a cable it may leave below it.
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], V4.port()));
        assert!(connect_from(&lab.server, local).is_err());
        trace.expect(&["SYN-SENT SYN seq 0", "CLOSED ◄ RST ACK seq 0 ack 1", "refused: RST in answer to the SYN"]);
    });
}

#[test]
fn client_beyond_the_share_of_its_prefix_is_refused_behind_the_handshake() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, _door) = door(&lab, "service = \"echo\"\n[listener.limits]\nper_prefix = 1");
        let mut inside = lab.connect(V4);
        assert_eq!(support::echo(&mut inside, b"in").expect("a served client"), b"in");
        let trace = Trace::of(&lab, &settings, &[]);
        // The RST may come before the client's own call has returned.
        if let Ok(mut client) = connect_from(&lab.client, V4) {
            assert!(support::is_closed(&mut client));
        }
        trace.expect(&[
            "ACK seq 1 ack 1 ► ESTABLISHED",
            "CLOSED ◄ RST ACK",
            "refused: RST before the server has sent anything",
        ]);
    });
}

#[test]
fn withheld_ack_shows_the_syn_ack_again() {
    isolated!(|| {
        let (lab, _door, trace) = watched("echo");
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, V4);
        script.syn();
        script.expect_syn_ack();
        script.expect("the SYN-ACK again", |frame| frame.flags.is_syn_ack());
        script.expect("and again", |frame| frame.flags.is_syn_ack());
        let shown = trace.stop();
        assert!(
            in_order(&shown, &["SYN seq 0", "SYN-ACK retransmitted", "the handshake was not completed"]),
            "{shown}"
        );
    });
}

#[test]
fn bad_cookie_is_named_whether_the_refusal_is_seen_or_not() {
    isolated!(|| {
        let (lab, _door, trace) = watched("echo");
        let host = lab.raw_host(V4);
        let guess = Segment::new(host.endpoint(2000), V4, Flags::ACK).seq(77).ack(4_000_000_000);
        host.send(&guess);
        let mut script = host.script(2000, V4);
        script.expect("the refusal", |frame| frame.flags.has(Flags::RST));
        trace.expect(&["ACK seq 1 ack 1", "bad cookie"]);
    });
}

#[test]
fn rst_outside_the_window_is_refused_and_one_inside_challenged() {
    isolated!(|| {
        let (lab, _door, trace) = watched("echo");
        let host = lab.raw_host(V4);
        let mut script = established(&host, 2000, V4);
        script.data(b"hello");
        assert_eq!(script.expect_data(5), b"hello");
        let at = script.snd_nxt;
        let rst = |seq| script.send(&script.segment(Flags::RST).seq(seq));
        rst(at.wrapping_sub(1000));
        rst(at.wrapping_add(1000));
        let challenge =
            host.script(2000, V4).expect("a challenge ACK", |frame| frame.flags == Flags::ACK && frame.ack == at);
        assert!(challenge.payload.is_empty());
        rst(at);
        trace.expect(&[
            "RST seq -994",
            "RST refused",
            "RST seq 1006",
            "it calls for a challenge ACK",
            "challenge ACK: the connection stands",
            "CLOSED RST seq 6",
            "reset by the client",
        ]);
    });
}

#[test]
fn lost_last_ack_shows_the_fin_again() {
    isolated!(|| {
        let (lab, _door, trace) = watched("echo");
        let host = lab.raw_host(V4);
        let mut script = established(&host, 2000, V4);
        script.fin();
        script.expect_fin();
        script.expect("the FIN once more", |frame| frame.flags.has(Flags::FIN));
        script.ack();
        trace.expect(&["TIME-WAIT ◄ FIN ACK", "LAST-ACK", "the server's FIN again", "TIME-WAIT ACK", "CLOSED"]);
    });
}

#[test]
fn json_has_an_object_for_each_event() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, _door) = door(&lab, "service = \"echo\"");
        let socket = settings.socket.to_str().unwrap();
        let trace = Trace::start(&lab, &["--socket", socket, "--json", "--count", "1"]);
        drop(lab.connect(V6));
        let shown = trace.ended();
        let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let first = &lines[0];
        assert_eq!(
            (&first["event"], &first["flags"], &first["from"]),
            (&"segment".into(), &"SYN".into(), &"client".into())
        );
        assert_eq!(first["before"]["server"], "LISTEN");
        assert_eq!(first["after"]["client"], "SYN-SENT");
        assert!(first["options"]["mss"].is_u64() && first["client"].as_str().unwrap().starts_with("[2001:db8::2]:"));
        let states: Vec<_> = lines.iter().filter_map(|line| line["after"]["client"].as_str()).collect();
        assert!(states.contains(&"ESTABLISHED") && states.contains(&"TIME-WAIT"), "{shown}");
        assert_eq!(lines[lines.len() - 2]["event"], "end");
        assert_eq!(lines[lines.len() - 1]["event"], "summary");
    });
}

#[test]
fn live_rows_come_while_the_connection_stands() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, _door) = door(&lab, "service = \"echo\"");
        let trace = Trace::of(&lab, &settings, &["--live"]);
        let mut clients = [lab.connect(V4), lab.connect(V4)];
        for client in &mut clients {
            assert_eq!(support::echo(client, b"x").unwrap(), b"x");
        }
        trace.expect(&["#1", "ACK seq 1 ack 1 ► ESTABLISHED"]);
        trace.expect(&["#2", "ACK seq 1 ack 1 ► ESTABLISHED"]);
        drop(clients);
        trace.expect(&["FIN-WAIT-1", "end", "end"]);
    });
}

#[test]
fn flood_hides_no_client_and_grows_nothing() {
    isolated!(|| {
        let _turn = take_turns();
        let field = Battlefield::new();
        let lab = &field.lab;
        let (settings, door) = door(lab, "service = \"echo\"\n[listener.half_open]\nmax = 1024");
        let syns = || door.metric("portcullis_syns_received_total");
        for (server, sources) in [(V4, "198.19.0.0/16"), (V6, "2001:db8:bad::/48")] {
            let trace = Trace::of(lab, &settings, &[]);
            let one =
                Trace::of(lab, &settings, &["--peer", &lab.connect(server).local_addr().unwrap().ip().to_string()]);
            let rss_before = trace.process.rss_bytes();
            let flood = field.flood(FloodKind::Syn, server, Sources::random(sources));
            let enough = syns() + 100_000.0;
            eventually("the flood", PATIENCE, || syns() > enough);
            let mut client = lab.connect(server);
            assert_eq!(support::echo(&mut client, b"hello").unwrap(), b"hello");
            let local = client.local_addr().unwrap().to_string();
            drop(client);
            trace.expect(&[&local, "FIN-WAIT-1", "CLOSED"]);
            // What the kernel keeps away hides nothing: the SYN is there.
            one.expect(&[&local, "CLOSED LISTEN", "SYN-SENT SYN seq 0", "ACK seq 1 ack 1", "CLOSED"]);
            let enough = syns() + 100_000.0;
            eventually("more of the flood", PATIENCE, || syns() > enough);
            let grown = trace.process.rss_bytes().saturating_sub(rss_before);
            drop(flood);
            assert!(grown < 48 << 20, "grown by {grown} bytes");
            expect_most_left_out(&trace.stop());
            let shown = one.stop();
            assert!(!shown.contains("not shown"), "{shown}");
        }
    });
}

/// Checks that a flood has made few ladders, and that the last line says what was left out.
fn expect_most_left_out(shown: &str) {
    let summary = shown.lines().last().unwrap();

    let count = summary.split_once(" segments not shown").expect("what was left out").0.replace(',', "");
    assert!(count.parse::<u64>().unwrap() > 50_000, "{summary}");
    let ladders = shown.lines().filter(|line| line.starts_with('#')).count();
    assert!(ladders < 300, "{ladders} ladders of a flood");
}

#[test]
fn peers_are_told_apart_by_the_kernels_filter() {
    isolated!(|| {
        let lab = Lab::new();
        let (settings, _door) = door(&lab, "service = \"echo\"");
        for (peer, server, other) in [
            ("198.18.0.64/26", V4, "198.18.0.2"),
            ("2001:db8::70/124", V6, "2001:db8::2"),
            ("2001:db8::77", V6, "2001:db8::2"),
        ] {
            let trace = Trace::of(&lab, &settings, &["--peer", peer]);
            drop(lab.connect(server));
            let host = lab.raw_host(server);
            let mut script = established(&host, 2000, server);
            script.fin();
            script.expect_fin();
            script.ack();
            trace.expect(&["SYN-SENT", "ESTABLISHED", "CLOSED"]);
            let shown = trace.stop();
            assert!(shown.contains(&host.endpoint(2000).to_string()), "{shown}");
            assert!(!shown.contains(&format!("{other}:")) && !shown.contains(&format!("[{other}]")), "{shown}");
        }
    });
}

#[test]
fn manual_and_completions_know_the_command() {
    let output = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(output(&["completions", "fish"]).contains("Draw the handshakes and teardowns"));
    assert!(output(&["man"]).contains("portcullis\\-trace(1)"));
    let scratch = Scratch::new();
    let dir = scratch.dir("man");
    output(&["man", "--dir", dir.to_str().unwrap()]);
    let page = fs::read_to_string(dir.join("portcullis-trace.1")).unwrap();
    for part in ["\\-\\-peer", "\\-\\-json", "69  no process answers"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn without_rights_or_a_process_the_exit_code_says_so() {
    isolated!(|| {
        let run = |command: &mut Command| {
            let output = command.env("RUNTIME_DIRECTORY", "/nonexistent").stdin(Stdio::null()).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, said) = run(Command::new(BINARY).arg("trace"));
        assert_eq!(code, 69, "{said}");
        assert!(said.contains("--config FILE") && said.contains("--listen"), "{said}");
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw", BINARY]);
        let (code, said) = run(unprivileged.args(["trace", "--listen", "127.0.0.1:80"]));
        assert_eq!(code, 77, "{said}");
        assert!(said.contains("CAP_NET_RAW") && said.contains("setcap cap_net_raw+ep"), "{said}");
        for (arguments, legal) in
            [(["--count", "0"], "1..=1000000"), (["--seconds", "x"], "invalid digit"), (["--peer", "1.2.3"], "legal: ")]
        {
            let (code, said) = run(Command::new(BINARY).arg("trace").args(arguments));
            assert!(code == 2 && said.contains(arguments[0]) && said.contains(legal), "{code}: {said}");
        }
    });
}

#[test]
fn time_is_up_or_nobody_reads_ends_quietly() {
    isolated!(|| {
        let lab = Lab::new();
        assert_eq!(Trace::start(&lab, &["--listen", "198.18.0.1:80", "--seconds", "1"]).ended(), "");
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = lab.server.command(BINARY);
        command.args(["trace", "--listen", "198.18.0.1:80"]).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        let mut process = Process::spawn(command).unwrap();
        drop(reader);
        assert_eq!(process.wait(PATIENCE).expect("it ends").code(), Some(0));
    });
}
