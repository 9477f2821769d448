//! `portcullis top`: snapshots, and the live view on a terminal of its own.

mod binary;
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use serde_json::Value;
use testnet::{FloodKind, Process, Signal, Sources, eventually, isolated, take_turns};

use binary::{PATIENCE, Server, code, output, own_addr, portcullis, stderr, stdout};
use support::battlefield::Battlefield;
use support::{Door, Scratch, V4};

/// Where a process of this test can be asked.
fn socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("portcullis-top-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// A process of the kernel tier with two listeners.
fn server(socket: &std::path::Path) -> Server {
    let (addr, other) = (own_addr(8080), own_addr(8081));
    let file = binary::TempFile::new(&format!(
        "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\ncontrol = \"{}\"\n\
         [[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\nservice = \"echo\"\n\
         [[listener]]\nname = \"other\"\nbind = [\"{other}\"]\nservice = \"echo\"\n",
        socket.display()
    ));
    Server::spawn(portcullis(&["--config", file.path()]), addr)
}

fn top(socket: &std::path::Path, args: &[&str]) -> std::process::Output {
    output(&[&["top", "--socket", socket.to_str().unwrap()], args].concat())
}

#[test]
fn without_a_terminal_it_is_2_and_says_what_is_legal() {
    let output = top(&socket(), &[]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("needs a terminal") && stderr(&output).contains("--once"), "{}", stderr(&output));
    for args in [&["--once", "--interval", "0"][..], &["--json"], &["--once", "--interval", "4000"]] {
        assert_eq!(code(&top(&socket(), args)), 2, "{args:?}");
    }
    let output = top(&socket(), &["--once"]);
    assert_eq!(code(&output), 69);
    assert!(stderr(&output).contains("no process answers there"), "{}", stderr(&output));
}

#[test]
fn once_looks_twice_and_prints_text_or_json() {
    let socket = socket();
    let server = server(&socket);
    let mut stream = server.connect();
    stream.write_all(b"1").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let text = stdout(&top(&socket, &["--once", "--interval", "0.5"]));
    for part in
        [&format!("web: {}", server.addr), "datapath       kernel, mode kernel", "1 ESTABLISHED", "other: ", "1 open"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Value = serde_json::from_slice(&top(&socket, &["--once", "--json", "--interval", "0.5"]).stdout).unwrap();
    assert!(json["interval_seconds"].as_f64().unwrap() >= 0.5);
    assert_eq!(json["per_second"]["web"]["syns"], 0.0);
    assert_eq!(json["status"]["listeners"][0]["states"]["ESTABLISHED"], 1);
    assert_eq!(json["status"]["listeners"][0]["states"].as_object().unwrap().len(), 11);
    assert_eq!(json["top"]["top"][0]["open"], 1);
}

/// A process as it was before `top`: it answers every `status` and every `top` the same way.
#[test]
fn an_older_version_is_shown_with_what_it_says() {
    let socket = socket();
    let listener = UnixListener::bind(&socket).unwrap();
    let status = r#"{"status":{"version":"0.0.9","pid":7,"uptime_seconds":60,"draining":false,"log_level":"info","access_log":null,
        "listeners":[{"name":"we\u001b[2Jb","bind":["127.0.0.1:80"],"tier":"raw","mode":"queue","half_open":1,"half_open_max":64,
        "accept_queue":0,"accept_queue_max":10,"open":3,"accepted":3,"closed":{},"traffic":{"received_bytes":0,"sent_bytes":0},"syns":3,
        "cookies_sent":0,"cookies_valid":0,"cookies_bad":0,"dropped":{},"ring_dropped":0}]}}"#;
    let top_answer = r#"{"top":{"prefixes":0,"top":[]}}"#;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let answer = if line.contains("status") { status } else { top_answer };
            let _ = writeln!(stream, "{}", answer.replace('\n', ""));
        }
    });
    let output = top(&socket, &["--once", "--interval", "0.5"]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(text.contains("we?[2Jb: 127.0.0.1:80") && text.contains("SYNs           0/s"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("states"), "{text}");
    fs::remove_file(socket).unwrap();
}

#[test]
fn during_a_flood_once_shows_its_rate_and_the_mode() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let (scratch, socket) = (Scratch::new(), socket());
        let config = scratch.file(
            "c.toml",
            &format!(
                "control = \"{}\"\n[[listener]]\nname = \"web\"\nbind = [\"{V4}\"]\nservice = \"echo\"\nhalf_open.max = 1024\n",
                socket.display()
            ),
        );
        let door = Door::configured(&field.lab, &config);
        let _flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        eventually("cookie mode", PATIENCE, || door.metric("portcullis_syncookies_active") == 1.0);
        let output = top(&socket, &["--once", "--json", "--interval", "1"]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        let (web, rates) = (&json["status"]["listeners"][0], &json["per_second"]["web"]);
        assert!(rates["syns"].as_f64().unwrap() > 100.0 && rates["cookies_sent"].as_f64().unwrap() > 100.0, "{rates}");
        assert_eq!((&web["mode"], &web["switches"][0]["to"]), (&Value::from("cookies"), &Value::from("cookies")));
        assert_eq!(web["states"]["SYN-RECEIVED"], web["half_open"]);
        let text = stdout(&top(&socket, &["--once", "--interval", "1"]));
        assert!(text.contains("mode cookies") && text.contains("switched       to cookies, "), "{text}");
    });
}

/// A terminal of 80 by 24, and a `top` on it.
struct Live {
    process: Process,
    master: File,
    slave: OwnedFd,
    before: Termios,
    /// All that was written to the terminal.
    seen: Arc<Mutex<String>>,
}

impl Live {
    fn start(socket: &std::path::Path) -> Live {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        // With the terminal as its own, as a shell would have it.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_portcullis"), "top", "--interval", "0.5", "--socket"]).arg(socket);
        command.env("TERM", "xterm").stdin(Stdio::from(pty.slave.try_clone().unwrap()));
        command.stdout(Stdio::from(pty.slave.try_clone().unwrap())).stderr(Stdio::from(pty.slave.try_clone().unwrap()));
        let process = Process::spawn(command).unwrap();
        let (master, seen) = (File::from(pty.master), Arc::<Mutex<String>>::default());
        let (mut reader, shared) = (master.try_clone().unwrap(), seen.clone());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut piece) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..len]));
            }
        });
        Live { process, master, slave: pty.slave, before, seen }
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until this has been drawn since the last time.
    fn expect(&self, part: &str) {
        eventually(part, PATIENCE, || self.seen().contains(part));
        self.seen.lock().unwrap().clear();
    }

    fn press(&mut self, key: &str) {
        self.master.write_all(key.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits for the end, and sees that the terminal is as it was.
    fn ends_well(mut self) {
        let status = self.process.wait(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.seen());
        assert_eq!(tcgetattr(&self.slave).unwrap(), self.before);
        // Back from the alternate screen, and the cursor is there again.
        eventually("the screen is back", PATIENCE, || self.seen().contains("\u{1b}[?1049l"));
        assert!(self.seen().contains("\u{1b}[?25h"), "{:?}", self.seen());
    }
}

#[test]
fn keys_work_and_q_gives_the_terminal_back() {
    let socket = socket();
    let server = server(&socket);
    let mut live = Live::start(&socket);
    live.expect(&server.addr.to_string());
    assert!(live.is_raw());
    live.press("p");
    live.expect("paused");
    live.press("p");
    live.expect("every");
    live.press("\t");
    let size = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&live.slave));
    let terminal = fs::read_link(size).unwrap();
    for (columns, rows) in [("1", "1"), ("40", "10"), ("200", "60"), ("80", "24")] {
        let resized =
            Command::new("stty").arg("-F").arg(&terminal).args(["cols", columns, "rows", rows]).status().unwrap();
        assert!(resized.success());
        // All is drawn anew at another size, and only what is another at the same one.
        match columns {
            "1" => {}
            "40" => live.expect("half-open"),
            _ => live.expect(":8081"),
        }
    }
    live.press("q");
    live.ends_well();
}

#[test]
fn sigterm_gives_the_terminal_back() {
    let socket = socket();
    let _server = server(&socket);
    let mut live = Live::start(&socket);
    live.expect("half-open");
    live.process.signal(Signal::SIGTERM);
    live.ends_well();
}

#[test]
fn a_stop_gives_the_terminal_back_and_going_on_takes_it_again() {
    let socket = socket();
    let _server = server(&socket);
    let mut live = Live::start(&socket);
    live.expect("half-open");
    for by_key in [false, true] {
        match by_key {
            true => live.press("\u{1a}"),
            false => live.process.signal(Signal::SIGTSTP),
        }
        let stat = format!("/proc/{}/stat", live.process.pid());
        eventually("it is stopped", PATIENCE, || fs::read_to_string(&stat).unwrap().contains(") T "));
        assert_eq!(tcgetattr(&live.slave).unwrap(), live.before);
        live.seen.lock().unwrap().clear();
        live.process.signal(Signal::SIGCONT);
        live.expect("half-open");
        eventually("the terminal is taken again", PATIENCE, || live.is_raw());
    }
    live.press("q");
    live.ends_well();
}

#[test]
fn a_process_that_goes_away_and_comes_back_is_shown_again() {
    let socket = socket();
    let mut first = server(&socket);
    let mut live = Live::start(&socket);
    live.expect(&format!("process {}", first.process.pid()));
    first.process.signal(Signal::SIGKILL);
    first.process.wait(PATIENCE).unwrap();
    live.expect("trying again");
    let second = server(&socket);
    // Digits that are the same as before are not drawn anew.
    eventually("the next process", PATIENCE, || live.seen().contains("tab listener"));
    live.press("\u{3}");
    live.ends_well();
    drop(second);
}
