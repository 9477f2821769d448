//! SIGHUP, on the kernel tier, which needs no rights.

mod binary;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use binary::{PATIENCE, Server, TempFile, own_addr, portcullis};
use testnet::{Metrics, Namespace, Signal, http_get};

/// A server with a file that can be changed.
struct Reloadable {
    server: Server,
    file: TempFile,
}

impl Reloadable {
    fn start(lines: &str) -> Reloadable {
        let addr = own_addr(8080);
        let file = TempFile::new(&text(addr, lines));
        let mut command = portcullis(&["--config", file.path()]);
        command.args(["--datapath", "kernel", "--admin", "127.0.0.1:0"]);
        Reloadable { server: Server::spawn(command, addr), file }
    }

    /// Changes the lines of the listener, asks for a reload, and waits for the line of the log that has `part`.
    fn reload(&mut self, lines: &str, part: &str) -> String {
        fs::write(self.file.path(), text(self.server.addr, lines)).unwrap();
        self.server.process.signal(Signal::SIGHUP);
        self.server.line(part)
    }

    /// Whether the last reload was good, and how many there were of either kind.
    fn counts(&self) -> [f64; 3] {
        let (status, text) = http_get(&Namespace::current(), self.server.admin, "/metrics").unwrap();
        assert_eq!(status, 200);
        let metrics = Metrics::parse(&text);
        let total = |outcome| metrics.get("portcullis_config_reloads_total", &[("outcome", outcome)]).unwrap();
        let last = metrics.get("portcullis_config_last_reload_successful", &[]).unwrap();
        [last, total("success"), total("failure")]
    }
}

fn text(addr: SocketAddr, lines: &str) -> String {
    format!("[[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\n{lines}\n")
}

/// Sends a byte and reads one, if one comes.
fn answer(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).ok().map(|()| byte[0])
}

#[test]
fn what_has_changed_is_for_new_connections_and_old_ones_go_on() {
    let mut reloadable = Reloadable::start("service = \"echo\"");
    let mut old = reloadable.server.connect();
    assert_eq!(answer(&mut old), Some(b'x'));
    let line = reloadable.reload("service = \"discard\"\nlimits = { per_prefix = 9 }", "service\" from=");
    assert!(line.contains("from=\"echo\" to=\"discard\""), "{line}");
    reloadable.server.line("limits.per_prefix");
    reloadable.server.line("reloaded");
    let mut new = reloadable.server.connect();
    new.write_all(b"x").unwrap();
    new.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    new.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "discard answers nothing");
    assert_eq!(answer(&mut old), Some(b'x'), "the old one is still served as it began");
    assert_eq!(reloadable.counts(), [1.0, 1.0, 0.0]);
}

#[test]
fn a_file_with_a_fault_leaves_the_old_configuration_in_force() {
    let mut reloadable = Reloadable::start("service = \"echo\"");
    let line = reloadable.reload("service = \"ftp\"", "reload refused");
    assert!(line.contains("still in force") && line.contains("listener.service: \"ftp\""), "{line}");
    assert_eq!(reloadable.counts(), [0.0, 0.0, 1.0]);
    assert_eq!(answer(&mut reloadable.server.connect()), Some(b'x'));
    reloadable.reload("service = \"echo\"", "reloaded");
    assert_eq!(reloadable.counts(), [1.0, 1.0, 1.0]);
}

#[test]
fn a_change_that_takes_a_restart_is_refused_whole() {
    let mut reloadable = Reloadable::start("service = \"echo\"");
    let line = reloadable.reload("service = \"discard\"\nwindow_scale = 3", "reload refused");
    assert!(line.contains("listener \"web\": window_scale: 7 -> 3") && line.contains("restart"), "{line}");
    assert_eq!(answer(&mut reloadable.server.connect()), Some(b'x'), "the service has not changed either");
}

#[test]
fn lists_are_read_again_though_the_file_is_the_same() {
    let list = TempFile::new("# nobody\n");
    let lines = format!("service = \"echo\"\nlimits = {{ deny_files = [\"{}\"] }}", list.path());
    let mut reloadable = Reloadable::start(&lines);
    let mut old = reloadable.server.connect();
    assert_eq!(answer(&mut old), Some(b'x'));
    fs::write(list.path(), "127.0.0.0/8\n").unwrap();
    let line = reloadable.reload(&lines, "reload: changed");
    assert!(line.contains("limits.deny_files") && line.contains("0 prefixes") && line.contains("1 prefixes"), "{line}");
    // A reset may come before connect is done.
    let denied = TcpStream::connect_timeout(&reloadable.server.addr, PATIENCE).ok();
    assert_eq!(denied.and_then(|mut stream| answer(&mut stream)), None);
    assert_eq!(answer(&mut old), Some(b'x'), "who is inside stays");
    fs::write(list.path(), "not a prefix\n").unwrap();
    let line = reloadable.reload(&lines, "reload refused");
    assert!(line.contains(":1: \"not a prefix\""), "{line}");
}
