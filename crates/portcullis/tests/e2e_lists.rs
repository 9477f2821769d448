//! The operator's lists at the SYN: who is denied gets no SYN-ACK, and nobody else notices.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use support::battlefield::Battlefield;
use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4, V6, connect_from, echo, exchange};
use testnet::{Flags, FloodKind, Script, Signal, Sources, eventually, isolated};

/// Long enough for an answer that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// The scripted clients of both families; the kernel's own, `198.18.0.2` and `2001:db8::2`, are not on it.
const SCRIPTED: &str = "198.18.0.77 # one alone\n2001:db8::70/124\n";
/// The kernel's own clients too.
const EVERYBODY: &str = "198.18.0.0/24\n2001:db8::/64\n";

/// An `echo` server with a deny list that can be changed.
struct Site {
    scratch: Scratch,
    config: PathBuf,
}

impl Site {
    fn new(deny: &str, limits: &str) -> Site {
        let scratch = Scratch::new();
        let list = scratch.file("deny", deny);
        let text = format!(
            "[[listener]]\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nservice = \"echo\"\n\
             [listener.limits]\ndeny_files = [\"{}\"]\n{limits}\n",
            list.display()
        );
        let config = scratch.file("portcullis.toml", &text);
        Site { scratch, config }
    }

    fn open(&self, lab: &Lab) -> Door {
        Door::configured(lab, &self.config)
    }

    /// Changes the list, and waits until it is in force for the clients who come from then on.
    fn reload(&self, door: &mut Door, deny: &str) {
        fs::write(self.scratch.path().join("deny"), deny).expect("write the list");
        let reloads = |door: &Door| door.metric("portcullis_config_reloads_total");
        let before = reloads(door);
        door.signal(Signal::SIGHUP);
        eventually("the reload", PATIENCE, || reloads(door) > before);
    }
}

fn served(lab: &Lab, server: SocketAddr) {
    assert_eq!(echo(&mut lab.connect(server), b"hello").expect("a served client"), b"hello");
}

fn refused(connected: io::Result<std::net::TcpStream>) -> bool {
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn denied(door: &Door) -> f64 {
    door.metric("portcullis_syns_denied_total")
}

/// The third segment of a handshake that began before the lists were in force.
fn expect_reset(script: &mut Script<'_>) {
    let reset = script.expect("a RST", |frame| frame.flags.has(Flags::RST));
    assert_eq!(reset.seq, script.rcv_nxt, "{reset:?}");
}

#[test]
fn denied_syn_meets_silence_and_others_are_served() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Site::new(SCRIPTED, "at_limit = \"silent\"").open(&lab);
        for (server, count) in [(V4, 2.0), (V6, 4.0)] {
            let host = lab.raw_host(server);
            for mut script in [host.script(2000, server), host.script(2001, server).with_timestamps(1_000_000)] {
                script.syn();
                script.expect_silence(QUIET);
            }
            served(&lab, server);
            eventually("the denied are counted", PATIENCE, || denied(&door) == count);
        }
        let dropped = door.metrics().by_label("portcullis_packets_dropped_total", "reason");
        assert_eq!(dropped.get("denied"), Some(&4.0), "{dropped:?}");
        assert_eq!(door.metric("portcullis_connections_refused_total"), 0.0, "nobody got as far as that");
        door.assert_no_resets();
    });
}

#[test]
fn denied_syn_is_refused_with_rst_and_others_are_served() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Site::new(SCRIPTED, "").open(&lab);
        for server in BOTH {
            let host = lab.raw_host(server);
            for mut script in [host.script(2000, server), host.script(2001, server).with_timestamps(1_000_000)] {
                script.syn();
                let reset = script.expect("an answer", |_| true);
                assert_eq!((reset.flags, reset.seq), (Flags::RST | Flags::ACK, 0), "{reset:?}");
                assert_eq!((reset.ack, reset.window), (script.iss().wrapping_add(1), 0), "{reset:?}");
                script.expect_silence(QUIET);
            }
            served(&lab, server);
        }
        assert_eq!((denied(&door), door.metric("portcullis_resets_sent_total")), (4.0, 4.0));
        door.assert_no_resets();
    });
}

/// It believes our RST, whatever its devices leave to be done about sums; over the cable, and on the host itself.
#[test]
fn a_denied_kernel_client_is_refused_at_once() {
    isolated!(|| {
        let lab = Lab::new();
        let _door = Site::new("198.18.0.0/24\n2001:db8::/64\n127.0.0.1\n::1", "").open(&lab);
        for server in BOTH {
            assert!(refused(connect_from(&lab.client, server)), "{server}");
            // Its source is the server's own address.
            assert!(refused(connect_from(&lab.server, server)), "{server} from its own host");
        }
        for local in ["127.0.0.1", "::1"] {
            let server = SocketAddr::new(local.parse().expect("an address"), PORT);
            assert!(refused(connect_from(&lab.server, server)), "{server}");
        }
    });
}

#[test]
fn who_is_not_on_the_allow_list_is_denied() {
    isolated!(|| {
        let lab = Lab::new();
        let scratch = Scratch::new();
        let allow = scratch.file("allow", "198.18.0.0/26\n2001:db8::/123\n127.0.0.0/8\n");
        let limits = format!("at_limit = \"silent\"\nallow_files = [\"{}\"]", allow.display());
        let door = Site::new("# nobody\n", &limits).open(&lab);
        for server in BOTH {
            let host = lab.raw_host(server);
            let mut script = host.script(2000, server);
            script.syn();
            script.expect_silence(QUIET);
            served(&lab, server);
        }
        assert_eq!(denied(&door), 2.0);
    });
}

#[test]
fn a_reload_adds_and_removes_and_who_is_inside_stays() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::new("# nobody\n", "");
        let mut door = site.open(&lab);
        let mut inside = BOTH.map(|server| lab.connect(server));
        inside.iter_mut().for_each(|stream| assert_eq!(echo(stream, b"in").expect("served"), b"in"));
        for _ in 0..3 {
            site.reload(&mut door, EVERYBODY);
            BOTH.iter().for_each(|server| {
                eventually("the list holds", PATIENCE, || refused(connect_from(&lab.client, *server)));
            });
            inside.iter_mut().for_each(|stream| assert_eq!(echo(stream, b"in").expect("served"), b"in"));
            site.reload(&mut door, SCRIPTED);
            BOTH.iter().for_each(|server| {
                eventually("the list holds no more", PATIENCE, || {
                    connect_from(&lab.client, *server).is_ok_and(|mut stream| exchange(&mut stream, b"x").is_ok())
                });
            });
        }
        // A fault changes nothing.
        site.reload(&mut door, "198.18.0.0/24\nnobody\n");
        BOTH.iter().for_each(|server| served(&lab, *server));
    });
}

#[test]
fn a_handshake_from_before_the_list_is_refused_behind_it() {
    isolated!(|| {
        let lab = Lab::new();
        let site = Site::new("# nobody\n", "");
        let mut door = site.open(&lab);
        let hosts = BOTH.map(|server| lab.raw_host(server));
        let mut scripts =
            [hosts[0].script(2000, V4), hosts[1].script(2000, V6)].map(|it| it.with_timestamps(1_000_000));
        for script in &mut scripts {
            script.syn();
            script.expect_syn_ack();
        }
        site.reload(&mut door, EVERYBODY);
        eventually("the list holds", PATIENCE, || refused(connect_from(&lab.client, V4)));
        for script in &mut scripts {
            script.ack();
            expect_reset(script);
        }
        let refused = door.metrics().get("portcullis_connections_refused_total", &[("reason", "denied")]);
        assert_eq!(refused, Some(2.0));
    });
}

#[test]
fn a_denied_flood_leaves_others_alone() {
    isolated!(|| {
        for limits in ["at_limit = \"silent\"", "at_limit = \"reset\""] {
            let field = Battlefield::new();
            let mut door = Site::new("198.19.0.0/16\n2001:db8:bad::/48\n", limits).open(&field.lab);
            for (server, prefix) in [(V4, "198.19.0.0/16"), (V6, "2001:db8:bad::/48")] {
                let before = denied(&door);
                let flood = field.flood(FloodKind::Syn, server, Sources::random(prefix));
                eventually("10000 denied SYNs", PATIENCE, || denied(&door) - before > 10_000.0);
                for _ in 0..50 {
                    let mut stream = connect_from(&field.lab.client, server).expect("a client beside the flood");
                    assert_eq!(exchange(&mut stream, b"hello").expect("served"), b"hello");
                }
                flood.stop();
            }
            // The queue is for those who are served: the flood has not even turned the mode.
            assert_eq!(door.metric("portcullis_syncookies_active"), 0.0, "{limits}");
            assert_eq!(door.metric("portcullis_mode_switches_total"), 0.0, "{limits}");
            assert!(!door.has_ended());
        }
    });
}
