//! Frames through a cable, counted at the other end.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use testnet::{Counters, eventually, isolated};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn without_ebpf() -> bool {
    let without = std::env::var("TESTNET_USER_NAMESPACE").is_ok_and(|value| value == "1");
    if without {
        println!("skipped, because TESTNET_USER_NAMESPACE=1: no eBPF there");
    }
    without
}

/// Floods until so many are sent, and checks that what the flood says it sent is what came.
fn counted(lab: &Lab, spec: &FloodSpec, at_least: u64) -> FloodReport {
    let before = lab.received();
    let flood = Flood::start(spec, &lab.place).unwrap();
    eventually("frames are sent", PATIENCE, || flood.sent() >= at_least);
    let report = flood.stop();
    eventually("all that were sent came", PATIENCE, || lab.received() - before >= report.sent);
    sleep(Duration::from_millis(50));
    assert_eq!(lab.received() - before, report.sent, "{report:?}");
    println!("{:?} {:.0} frames/s: {report:?}", spec.kind, report.sent as f64 / report.elapsed.as_secs_f64());
    report
}

#[test]
fn what_the_ring_sends_comes() {
    isolated!(|| {
        for family in FAMILIES {
            let lab = Lab::new(family);
            for kind in FRAME_KINDS {
                let report = counted(&lab, &FloodSpec { options: OptionMix::Mixed, ..spec(kind, lab.target) }, 10_000);
                assert_eq!((report.engine, report.due), ("tx-ring", report.sent + report.refused));
            }
            assert_eq!(Counters::of(&lab.server).get("TcpInCsumErrors"), 0);
        }
    });
}

#[test]
fn what_the_program_sends_comes() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        for family in FAMILIES {
            let lab = Lab::new(family);
            take_xdp_frames(&lab.server, lab.far.name()).unwrap();
            for kind in FRAME_KINDS {
                let spec = FloodSpec { options: OptionMix::Mixed, engine: Engine::Xdp, ..spec(kind, lab.target) };
                let report = counted(&lab, &spec, 100_000);
                assert_eq!((report.engine, report.due), ("xdp", report.sent + report.refused));
            }
            assert_eq!(Counters::of(&lab.server).get("TcpInCsumErrors"), 0);
        }
    });
}

#[test]
fn frames_are_counted_where_another_thread_takes_them() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        take_xdp_frames(&lab.server, lab.far.name()).unwrap();
        thread_napi(&lab.server, lab.far.name(), &[1]).unwrap();
        counted(&lab, &FloodSpec { engine: Engine::Xdp, ..spec(FloodKind::Syn, lab.target) }, 100_000);
        counted(&lab, &spec(FloodKind::Syn, lab.target), 100_000);
    });
}

#[test]
fn a_program_in_the_other_ends_driver_gets_the_frames() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let _sink = lab.server.run(|| InDriver::attach("sink", "srv0", None).unwrap());
        counted(&lab, &FloodSpec { engine: Engine::Xdp, ..spec(FloodKind::Syn, lab.target) }, 100_000);
        counted(&lab, &spec(FloodKind::Syn, lab.target), 10_000);
    });
}

#[test]
fn answers_out_of_the_driver_come_back() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let _bounce = lab.server.run(|| InDriver::attach("bounce", "srv0", None).unwrap());
        let _pass = take_xdp_answers(&lab.place.namespace, "fld0", None).unwrap();
        for engine in [Engine::Xdp, Engine::TxRing] {
            let before = received(&lab.place.namespace, "fld0");
            counted(&lab, &FloodSpec { engine, ..spec(FloodKind::Syn, lab.target) }, 10_000);
            // More than the queue would swallow that nobody empties.
            eventually("answers", PATIENCE, || received(&lab.place.namespace, "fld0") - before > 1000);
        }
    });
}

#[test]
fn a_device_that_takes_no_frames_of_programs_gets_them_by_the_ring() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let spec = spec(FloodKind::Syn, lab.target);
        let refused = Flood::start(&FloodSpec { engine: Engine::Xdp, ..spec.clone() }, &lab.place);
        assert!(matches!(refused, Err(FloodError::NoXdp)), "{refused:?}");
        let auto = FloodSpec { engine: Engine::Auto, ..spec };
        assert_eq!(counted(&lab, &auto, 1000).engine, "tx-ring");
        take_xdp_frames(&lab.server, lab.far.name()).unwrap();
        assert_eq!(counted(&lab, &auto, 1000).engine, "xdp");
        let slow = FloodSpec { rate: Some(20_000.0), ..auto };
        assert_eq!(counted(&lab, &slow, 1000).engine, "tx-ring");
    });
}

#[test]
fn no_more_is_sent_than_is_due() {
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        take_xdp_frames(&lab.server, lab.far.name()).unwrap();
        let engines: &[Engine] = if without_ebpf() { &[Engine::TxRing] } else { &[Engine::TxRing, Engine::Xdp] };
        for &engine in engines {
            let rate = 20_000.0;
            let spec = FloodSpec { engine, rate: Some(rate), ..spec(FloodKind::Rst, lab.target) };
            let report = counted(&lab, &spec, 10_000);
            let by_the_clock = rate * report.elapsed.as_secs_f64();
            assert!(report.sent <= report.due && report.due as f64 <= by_the_clock + 2.0, "{report:?} {by_the_clock}");
        }
    });
}

#[test]
fn a_stage_changes_the_rate() {
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let flood =
            Flood::start(&FloodSpec { rate: Some(0.0), ..spec(FloodKind::Syn, lab.target) }, &lab.place).unwrap();
        eventually("the first", PATIENCE, || flood.sent() == 1);
        flood.set_rate(Some(10_000.0));
        eventually("the next", PATIENCE, || flood.sent() > 1000);
        flood.set_rate(Some(0.0));
        eventually("no more are due", PATIENCE, || {
            let due = flood.due();
            sleep(Duration::from_millis(50));
            flood.due() == due
        });
        flood.set_rate(None);
        eventually("as many as can be", PATIENCE, || flood.sent() > 10_000);
    });
}

#[test]
fn several_threads_share_the_frames() {
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let lab = Lab { place: Place { cores: vec![0, 1], ..lab.place.clone() }, ..lab };
        take_xdp_frames(&lab.server, lab.far.name()).unwrap();
        counted(&lab, &spec(FloodKind::Syn, lab.target), 10_000);
        if !without_ebpf() {
            counted(&lab, &FloodSpec { engine: Engine::Xdp, ..spec(FloodKind::Syn, lab.target) }, 10_000);
        }
    });
}

#[test]
fn a_kernel_answers_the_syns_and_refuses_the_replayed_acks() {
    isolated!(|| {
        for family in FAMILIES {
            let lab = Lab::new(family);
            let _listener = lab.server.run(|| TcpListener::bind(lab.target).unwrap());
            lab.server.sysctl("net.ipv4.tcp_syncookies", "2");
            let count = |name| Counters::of(&lab.server).get(name);
            let flood = Flood::start(&spec(FloodKind::HalfOpen, lab.target), &lab.place).unwrap();
            eventually("cookies for the flood", PATIENCE, || count("TcpExtSyncookiesSent") > 1000);
            flood.stop();
            let made = count("TcpExtSyncookiesRecv");
            counted_replay(&lab);
            assert!(count("TcpExtSyncookiesRecv") - made >= 1);
            let flood = Flood::start(&spec(FloodKind::Ack, lab.target), &lab.place).unwrap();
            eventually("guesses refused", PATIENCE, || count("TcpExtSyncookiesFailed") > 1000);
            flood.stop();
            assert_eq!(count("TcpInCsumErrors"), 0);
        }
    });
}

/// Not all that comes is the replay: its handshakes come by the same device.
fn counted_replay(lab: &Lab) {
    let flood = Flood::start(&spec(FloodKind::Replay, lab.target), &lab.place).unwrap();
    let before = lab.received();
    eventually("ACKs", PATIENCE, || flood.sent() > 1000 && lab.received() - before > 500);
    flood.stop();
}

#[test]
fn loopback_is_flooded_from_loopback() {
    isolated!(|| {
        let here = Namespace::current();
        here.sysctl("net.ipv4.tcp_syncookies", "2");
        // What a packet socket sends is routed as if it came from elsewhere.
        here.sysctl("net.ipv4.conf.lo.route_localnet", "1");
        here.sysctl("net.ipv4.conf.lo.accept_local", "1");
        let nobody = Mac([0; 6]);
        let prefix = |text: &str| text.parse().unwrap();
        let place = Place {
            namespace: here.clone(),
            interface: "lo".to_owned(),
            source_mac: nobody,
            gateway_mac: nobody,
            spoofed: prefix("127.1.0.0/16"),
            owned: prefix("127.2.0.0/16"),
            cores: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let flood = Flood::start(&spec(FloodKind::Syn, &target), &place).unwrap();
        let answered = || Counters::of(&here).get("TcpExtSyncookiesSent") > 1000;
        eventually("cookies for the flood", PATIENCE, answered);
        drop(flood);
    });
}

#[test]
fn a_flood_that_could_leave_the_lab_is_refused() {
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        lab.place.namespace.ip("link set dev fld0 alias something-else");
        let refused = Flood::start(&spec(FloodKind::Syn, lab.target), &lab.place);
        assert!(matches!(refused, Err(FloodError::Forbidden(_))), "{refused:?}");
    });
}
