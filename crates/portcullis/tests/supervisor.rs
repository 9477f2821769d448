//! What a service manager is told.

mod binary;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use binary::{PATIENCE, Server, own_addr, portcullis, stdout};
use testnet::Signal;

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    directory: PathBuf,
}

impl Manager {
    fn new() -> Manager {
        let directory = std::env::temp_dir().join(format!("portcullis-notify-{}", own_addr(1).ip()));
        fs::create_dir(&directory).unwrap();
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, directory }
    }

    /// The next message with this part; those before it are passed over.
    fn hears(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let mut message = [0; 1024];
            let Ok(length) = self.socket.recv(&mut message) else { panic!("no {part:?} in {seen:#?}") };
            let message = String::from_utf8(message[..length].to_vec()).unwrap();
            if message.contains(part) {
                return message;
            }
            seen.push(message);
        }
    }

    /// Starts the kernel tier with a configuration file.
    fn start(&self, watchdog_usec: &str) -> Server {
        let addr = own_addr(8080);
        let config = self.directory.join("portcullis.toml");
        let control = self.directory.join("control.sock");
        let text = format!(
            "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\ncontrol = \"{}\"\n\
             [[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\nservice = \"echo\"\n",
            control.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = portcullis(&["run", "--config", config.to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", self.directory.join("notify")).env("WATCHDOG_USEC", watchdog_usec);
        Server::spawn(command, addr)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Should a test have failed, a successor may live yet.
        let control = self.directory.join("control.sock");
        let _ = portcullis(&["ctl", "drain", "--socket", control.to_str().unwrap()]).output();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_manager_hears_of_the_start_of_reloads_and_of_the_end() {
    let manager = Manager::new();
    let mut server = manager.start("0");
    let ready = manager.hears("READY=1");
    assert!(ready.contains("STATUS=guarding 1 listener"), "{ready}");
    server.process.signal(Signal::SIGHUP);
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1");
    server.process.signal(Signal::SIGTERM);
    let stopping = manager.hears("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=40000000"), "{stopping}");
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn the_watchdog_is_fed_and_a_successor_is_the_main_process() {
    let manager = Manager::new();
    let mut server = manager.start("200000");
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    let control = manager.directory.join("control.sock");
    let output = portcullis(&["ctl", "restart", "--json", "--socket", control.to_str().unwrap()]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let main = manager.hears("MAINPID=");
    assert_eq!(main.trim(), format!("MAINPID={}", answer["pid"]));
    manager.hears("READY=1");
    assert_eq!(server.exit_code(), 0, "the old process ends, and tells nobody");
    // The successor, which is fed from its own hand.
    manager.hears("WATCHDOG=1");
    let drained = portcullis(&["ctl", "drain", "--socket", control.to_str().unwrap()]).output().unwrap();
    assert!(drained.status.success());
    manager.hears("STOPPING=1");
}
