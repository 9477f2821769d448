//! What the engines reach here. For people: `cargo test --release -p loadtest -- --ignored --nocapture how_fast`.

use std::net::TcpListener;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use testnet::isolated;

use super::cable::without_ebpf;
use super::*;

const FOR: Duration = Duration::from_secs(2);

fn measure(what: &str, lab: &Lab, spec: &FloodSpec) {
    let before = lab.received();
    let begun = Instant::now();
    let flood = Flood::start(spec, &lab.place).unwrap();
    let start = begun.elapsed();
    sleep(FOR);
    let begun = Instant::now();
    let report = flood.stop();
    let stop = begun.elapsed();
    let million = |count: u64| count as f64 / report.elapsed.as_secs_f64() / 1e6;
    println!(
        "{what:<44} {:<8} sent {:.3} M/s, came {:.3} M/s, refused {:.3} M/s, start {start:.0?}, stop {stop:.0?}{}",
        report.engine,
        million(report.sent),
        million(lab.received() - before),
        million(report.refused),
        if report.generator_limited { ", the generator was the limit" } else { "" },
    );
}

#[test]
#[ignore = "measures, takes a while, and says nothing on a busy machine"]
fn how_fast() {
    if without_ebpf() {
        return;
    }
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let lab = Lab { place: Place { cores: vec![0], ..lab.place.clone() }, ..lab };
        let syn = spec(FloodKind::Syn, lab.target);
        let xdp = FloodSpec { engine: Engine::Xdp, ..syn.clone() };
        let mixed = FloodSpec { options: OptionMix::Mixed, ..xdp.clone() };
        let at_rate = |spec: &FloodSpec, rate| FloodSpec { rate: Some(rate), ..spec.clone() };

        drop_behind(&lab);
        measure("nft drops at ingress", &lab, &syn);
        take_xdp_frames(&lab.server, lab.far.name()).unwrap();
        measure("the same, NAPI", &lab, &syn);
        measure("the same, NAPI", &lab, &xdp);
        let _sink = lab.server.run(|| InDriver::attach("sink", "srv0", None).unwrap());
        measure("a program drops", &lab, &syn);
        measure("a program drops", &lab, &xdp);
        measure("a program drops, mixed options", &lab, &mixed);
        measure("a program drops, 300 k/s asked", &lab, &at_rate(&syn, 3e5));
        measure("a program drops, 1 M/s asked", &lab, &at_rate(&xdp, 1e6));
        measure("a program drops, 100 M/s asked", &lab, &at_rate(&xdp, 1e8));
        thread_napi(&lab.server, lab.far.name(), &[1]).unwrap();
        measure("a thread of its own for NAPI", &lab, &syn);
        measure("a thread of its own for NAPI", &lab, &xdp);
        measure("a thread of its own for NAPI, 1 M/s asked", &lab, &at_rate(&xdp, 1e6));
    });
}

#[test]
#[ignore = "as the other"]
fn how_fast_connections_are() {
    isolated!(|| {
        let lab = Lab::new(FAMILIES[0]);
        let lab = Lab { place: Place { cores: vec![0], ..lab.place.clone() }, ..lab };
        let listener = lab.server.run(|| TcpListener::bind(lab.target).unwrap());
        thread::spawn(move || listener.incoming().for_each(drop));
        for kind in [FloodKind::Connect, FloodKind::AckSilent, FloodKind::ZeroWindow, FloodKind::SlowWrite] {
            for rate in [None, Some(1000.0)] {
                let flood = Flood::start(&FloodSpec { rate, ..spec(kind, lab.target) }, &lab.place).unwrap();
                sleep(FOR);
                println!("{:?}", flood.stop());
            }
        }
    });
}

fn drop_behind(lab: &Lab) {
    let nft = |command: &str| lab.server.output("nft", command);
    nft("add table netdev sink");
    nft("add chain netdev sink in { type filter hook ingress device srv0 priority 0 ; policy drop ; }");
}
