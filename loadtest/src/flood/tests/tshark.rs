//! The frames, by Wireshark's dissectors.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

/// What tshark prints of a frame.
const FIELDS: [&str; 4] = ["ip.checksum.status", "tcp.checksum.status", "_ws.malformed", "tcp.flags"];
/// As tshark says that a sum is right.
const GOOD: &str = "1";

fn dissect(capture: &Path) -> String {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    tshark.args(["-o", "tcp.analyze_sequence_numbers:FALSE", "-T", "fields", "-E", "separator=|"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("run `tshark`: install the package of that name");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tshark_finds_no_fault() {
    const COUNT: u64 = 50;
    let dir = std::env::temp_dir().join(format!("portcullis-flood-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for [target, spoofed, _] in FAMILIES {
        for kind in FRAME_KINDS {
            let spec = FloodSpec { options: OptionMix::Mixed, ..spec(kind, target) };
            let capture = dir.join("frames.pcap");
            write_pcap(&spec, &nowhere(spoofed), COUNT, &capture).unwrap();
            let text = dissect(&capture);
            assert_eq!(text.lines().count() as u64, COUNT, "{text}");
            for line in text.lines() {
                check(&spec, line);
            }
        }
    }
    fs::remove_dir_all(&dir).unwrap();
}

fn check(spec: &FloodSpec, line: &str) {
    let fields: Vec<&str> = line.split('|').collect();
    let [ip, tcp, malformed, flags] = fields[..] else { panic!("{line}") };
    let ip_is_good = if spec.target.is_ipv4() { ip == GOOD } else { ip.is_empty() };
    assert!(ip_is_good && tcp == GOOD && malformed.is_empty(), "{:?}: {line}", spec.kind);
    let expected = match spec.kind {
        FloodKind::Ack => "0x0010",
        FloodKind::Rst => "0x0004",
        FloodKind::Fin => "0x0001",
        FloodKind::Null => "0x0000",
        FloodKind::Xmas => "0x0029",
        _ => "0x0002",
    };
    assert_eq!(flags, expected, "{:?}", spec.kind);
}
