//! `portcullis ctl` and the access log, on the kernel tier, which needs no rights.

mod binary;

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;

use serde_json::Value;
use testnet::{Signal, isolated};

use binary::{PATIENCE, Server, TempFile, code, output, own_addr, portcullis, stderr, stdout};

/// A directory that everybody may enter, and that goes with its handle.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("portcullis-ctl-{}-{}", std::process::id(), own_addr(1).ip()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process, and where it can be asked.
struct Guard {
    server: Server,
    socket: PathBuf,
    directory: Directory,
}

/// The text of a config file whose socket and whose address are known.
fn config(socket: &Path, listener: &str, more: &str) -> (TempFile, std::net::SocketAddr) {
    let addr = own_addr(8080);
    let socket = socket.display();
    let file = TempFile::new(&format!(
        "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\ncontrol = \"{socket}\"\n{more}\n\
         [[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\n{listener}\n"
    ));
    (file, addr)
}

impl Guard {
    fn start(listener: &str) -> Guard {
        Guard::start_with(Directory::new(), listener, "")
    }

    fn start_with(directory: Directory, listener: &str, more: &str) -> Guard {
        let socket = directory.file("c.sock");
        let (file, addr) = config(&socket, listener, more);
        let server = Server::spawn(portcullis(&["--config", file.path()]), addr);
        Guard { server, socket, directory }
    }

    fn ctl(&self, args: &[&str]) -> Output {
        ctl(&self.socket, args)
    }

    /// What a verb prints.
    fn text(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// What a verb prints for scripts.
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[&["--json"], args].concat())).unwrap()
    }

    /// A connection that is being served: its first byte has been echoed.
    fn echoing(&self) -> TcpStream {
        let mut stream = self.server.connect();
        stream.write_all(b"1").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    }
}

fn ctl(socket: &Path, args: &[&str]) -> Output {
    output(&[&["ctl", "--socket", socket.to_str().unwrap()], args].concat())
}

/// What the process says to a line; nothing, if it hangs up.
fn say(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have heard enough before it has heard all.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// What a peer of a connection that was reset sees.
fn is_reset(mut stream: TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn status_shows_the_process_and_its_listeners() {
    let guard = Guard::start("service = \"echo\"\nconnections_max = 100");
    let _open = guard.echoing();
    drop(guard.echoing());
    testnet::eventually("one has closed", PATIENCE, || {
        guard.json(&["status"])["listeners"][0]["closed"]["client_fin"] == 1
    });
    let status = guard.json(&["status"]);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], guard.server.process.pid());
    assert_eq!((&status["draining"], &status["log_level"]), (&Value::Bool(false), &Value::from("info")));
    let listener = &status["listeners"][0];
    for (key, expected) in [
        ("name", Value::from("web")),
        ("bind", Value::from(vec![guard.server.addr.to_string()])),
        ("tier", "kernel".into()),
        ("mode", "kernel".into()),
        ("open", 1.into()),
        ("accepted", 2.into()),
        ("half_open", 0.into()),
    ] {
        assert_eq!(listener[key], expected, "{key}");
    }
    assert_eq!(listener["traffic"]["received_bytes"], 2);
    let text = guard.text(&["status"]);
    for part in
        ["running", "1 open, 2 accepted", "1 client_fin", &guard.server.addr.to_string(), "datapath       kernel"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn conns_lists_what_is_open_and_top_where_it_comes_from() {
    let guard = Guard::start("service = \"echo\"");
    let streams = [guard.echoing(), guard.echoing(), guard.echoing()];
    let conns = guard.json(&["conns"]);
    assert_eq!((&conns["matching"], conns["connections"].as_array().unwrap().len()), (&Value::from(3), 3));
    for (conn, stream) in conns["connections"].as_array().unwrap().iter().zip(&streams) {
        assert_eq!(conn["peer"], stream.local_addr().unwrap().to_string());
        assert_eq!(conn["local"], guard.server.addr.to_string());
        assert_eq!(conn["traffic"]["received_bytes"], 1);
        for (key, expected) in [("listener", "web"), ("state", "ESTABLISHED"), ("via", "kernel"), ("service", "echo")] {
            assert_eq!(conn[key], expected);
        }
    }
    assert_eq!(guard.json(&["conns", "--limit", "1"])["connections"][0]["id"], 1, "the oldest first");
    assert!(guard.text(&["conns", "--limit", "1"]).contains("\n1 of 3 "));
    // Linux takes 127.0.0.1 as the source, whichever of 127.0.0.0/8 is the destination.
    for (args, expected) in [
        (["--peer", "127.0.0.0/8"], 3),
        (["--peer", "198.18.0.0/15"], 0),
        (["--peer", "::/0"], 0),
        (["--listener", "web"], 3),
    ] {
        assert_eq!(guard.json(&[&["conns"], &args[..]].concat())["matching"], expected, "{args:?}");
    }
    let output = guard.ctl(&["conns", "--listener", "nobody"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no listener is named \"nobody\"; there are: web"), "{}", stderr(&output));

    let top = guard.json(&["top"]);
    assert_eq!((&top["prefixes"], &top["top"][0]["open"]), (&Value::from(1), &Value::from(3)));
    assert!(guard.text(&["top"]).contains("/24"));
    drop(streams);
    testnet::eventually("none is open", PATIENCE, || guard.json(&["conns"])["matching"] == 0);
}

#[test]
fn kill_ends_the_named_ones_with_rst_and_leaves_the_others() {
    let guard = Guard::start("service = \"echo\"");
    let (first, mut second) = (guard.echoing(), guard.echoing());
    let answer = guard.json(&["kill", "1", "999"]);
    assert_eq!((&answer["killed"], &answer["unknown"][0]), (&Value::from(1), &Value::from(999)));
    assert!(is_reset(first));
    second.write_all(b"2").unwrap();
    second.read_exact(&mut [0]).unwrap();
    assert_eq!(guard.text(&["kill", "--peer", "198.18.0.0/15"]), "0 killed\n");
    assert_eq!(guard.text(&["kill", "--peer", "127.0.0.0/8"]), "1 killed\n");
    assert!(is_reset(second));
    testnet::eventually("none is open", PATIENCE, || guard.json(&["conns"])["matching"] == 0);
    let output = guard.ctl(&["kill", "1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no open connection has the number 1"), "{}", stderr(&output));
}

#[test]
fn kill_resets_the_client_of_every_service_and_of_the_relay() {
    let upstream = TcpListener::bind(own_addr(0)).unwrap();
    let relay = format!("upstream = \"{}\"", upstream.local_addr().unwrap());
    for behind in ["service = \"http\"", "service = \"discard\"", &relay] {
        let guard = Guard::start(behind);
        let stream = guard.server.connect();
        let backend = behind.starts_with("upstream").then(|| upstream.accept().unwrap());
        testnet::eventually("it is served", PATIENCE, || guard.json(&["conns"])["matching"] == 1);
        if let Some((mut backend, _)) = backend {
            let addr = upstream.local_addr().unwrap().to_string();
            testnet::eventually("its server is told", PATIENCE, || {
                guard.json(&["conns"])["connections"][0]["upstream"] == addr
            });
            // It is in the middle of the relay, not still connecting.
            backend.set_read_timeout(Some(PATIENCE)).unwrap();
            backend.write_all(b"x").unwrap();
            (&stream).read_exact(&mut [0]).unwrap();
            assert_eq!(guard.text(&["kill", "1"]), "1 killed\n");
            assert_ne!(backend.read(&mut [0]).ok(), Some(1), "its server is told as well");
        } else {
            assert_eq!(guard.text(&["kill", "1"]), "1 killed\n");
        }
        assert!(is_reset(stream), "{behind}");
    }
}

#[test]
fn kill_ends_a_connection_that_is_closing() {
    let guard = Guard::start("service = \"http\"");
    let mut stream = guard.server.connect();
    write!(stream, "GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap(); // Its FIN has come, ours has not gone.
    let killed = guard.ctl(&["kill", "1"]);
    // It waits for our FIN for two seconds, and then resets by itself.
    assert!(code(&killed) == 0 || stderr(&killed).contains("no open connection"));
    testnet::eventually("it is gone", PATIENCE, || guard.json(&["conns"])["matching"] == 0);
}

#[test]
fn log_level_changes_what_is_written_and_says_what_it_was() {
    let upstream = TcpListener::bind(own_addr(0)).unwrap();
    let guard = Guard::start(&format!("upstream = \"{}\"", upstream.local_addr().unwrap()));
    assert_eq!(guard.text(&["log-level", "debug"]), "log level debug (was info)\n");
    let stream = guard.server.connect();
    drop(upstream.accept().unwrap());
    drop(stream);
    assert!(guard.server.line("relay ended").contains("DEBUG"));
    assert_eq!(guard.text(&["log-level", "error"]), "log level error (was debug)\n");
    assert_eq!(guard.json(&["status"])["log_level"], "error");
    let answer = guard.json(&["log-level", "info"]);
    assert_eq!((&answer["old"], &answer["new"]), (&Value::from("error"), &Value::from("info")));
}

#[test]
fn drain_is_what_sigterm_does_and_twice_is_once() {
    let mut guard = Guard::start("service = \"echo\"");
    let mut stream = guard.echoing();
    let answer = guard.json(&["drain"]);
    assert_eq!((&answer["already"], &answer["open"]), (&Value::Bool(false), &Value::from(1)));
    assert_eq!(answer["deadline_seconds"], 30);
    guard.server.line("ctl drain: no new connections");
    assert_eq!(guard.json(&["drain"])["already"], true);
    testnet::eventually("status says so", PATIENCE, || guard.json(&["status"])["draining"] == true);
    testnet::eventually("nobody listens", PATIENCE, || TcpStream::connect(guard.server.addr).is_err());
    stream.write_all(b"still here").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"still here");
    drop(stream);
    assert_eq!(guard.server.exit_code(), 0);
    assert!(!guard.socket.exists(), "the socket goes with the process");
    assert_eq!(code(&guard.ctl(&["status"])), 69);
}

#[test]
fn reload_brings_the_file_into_force_or_says_why_not() {
    let directory = Directory::new();
    let socket = directory.file("c.sock");
    let (file, addr) = config(&socket, "service = \"echo\"", "");
    let text = fs::read_to_string(file.path()).unwrap();
    let server = Server::spawn(portcullis(&["--config", file.path()]), addr);
    let guard = Guard { server, socket, directory };
    assert_eq!(guard.text(&["reload"]), "reloaded, 0 changed\n");
    fs::write(file.path(), format!("log.level = \"debug\"\n{text}").replace("echo", "discard")).unwrap();
    let changes = guard.json(&["reload"]);
    assert_eq!(changes["changes"].as_array().unwrap().len(), 2, "{changes}");
    assert_eq!(guard.json(&["status"])["log_level"], "debug");
    let _open = guard.server.connect();
    testnet::eventually("it is served", PATIENCE, || guard.json(&["conns"])["matching"] == 1);
    assert_eq!(guard.json(&["conns"])["connections"][0]["service"], "discard");
    for (text, part) in [
        (format!("bogus = 1\n{text}"), "bogus"),
        (format!("access_log.path = \"stderr\"\n{text}"), "access_log.path"),
        (text.replace("c.sock", "d.sock"), "control"),
    ] {
        fs::write(file.path(), text).unwrap();
        let output = guard.ctl(&["reload"]);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert_eq!(guard.json(&["status"])["log_level"], "debug", "nothing was changed");
}

#[test]
fn the_first_signal_behind_a_drain_changes_nothing_and_the_second_ends_it_at_once() {
    let mut guard = Guard::start("service = \"echo\"");
    let mut stream = guard.echoing();
    guard.text(&["drain"]);
    guard.server.line("ctl drain");
    guard.server.process.signal(Signal::SIGTERM);
    guard.server.line("SIGTERM: ending already");
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    guard.server.process.signal(Signal::SIGTERM);
    guard.server.line("SIGTERM again: ending at once");
    assert_eq!(guard.server.exit_code(), 0);
    assert!(is_reset(stream));
}

/// As at the end of a pod: a hook that drains, and SIGTERM right behind it.
#[test]
fn the_first_signal_behind_a_drain_leaves_clients_their_time_before_it() {
    let mut guard = Guard::start_with(Directory::new(), "service = \"echo\"", "pre_stop_seconds = 86400\n");
    guard.text(&["drain"]);
    guard.server.line("ctl drain: not ready any more");
    guard.server.process.signal(Signal::SIGTERM);
    guard.server.line("SIGTERM: ending already");
    drop(guard.echoing());
    guard.server.process.signal(Signal::SIGTERM);
    guard.server.line("no new connections");
    assert_eq!(guard.server.exit_code(), 0);
}

#[test]
fn bad_usage_is_2_and_says_what_is_legal() {
    for (args, parts) in [
        (vec![], vec!["Usage"]),
        (vec!["fly"], vec!["fly"]),
        (vec!["conns", "--limit", "0"], vec!["--limit", "'0'", "1 to 10000"]),
        (vec!["top", "--limit", "1001"], vec!["--limit", "'1001'", "1 to 1000"]),
        (vec!["conns", "--peer", "nowhere"], vec!["--peer", "\"nowhere\"", "192.0.2.0/24"]),
        (vec!["kill"], vec!["<ID>"]),
        (vec!["kill", "one"], vec!["one"]),
        (vec!["kill", "1", "--peer", "::1"], vec!["--peer"]),
        (vec!["log-level", "loud"], vec!["'loud'", r#""error", "warn", "info", "debug""#]),
    ] {
        let output = ctl(Path::new("/nonexistent"), &args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        }
    }
}

#[test]
fn the_help_documents_the_exit_codes() {
    for args in [["ctl", "--help"].as_slice(), &["ctl", "status", "--help"]] {
        let output = output(args);
        assert_eq!(code(&output), 0);
        for code in ["0  ", "1  ", "2  ", "69 ", "77 "] {
            assert!(stdout(&output).contains(&format!("\n  {code}")), "{}", stdout(&output));
        }
    }
}

#[test]
fn a_path_that_no_socket_can_have_is_bad_usage() {
    let long = format!("/{}", "x".repeat(107));
    for path in ["", &long] {
        for command in ["ctl", "top", "trace", "run"] {
            let flag = if command == "run" { "--takeover" } else { "--socket" };
            if path.is_empty() && command == "run" {
                continue; // There it means: find the process yourself.
            }
            let output =
                output(&[command, &format!("{flag}={path}"), "status"][..if command == "ctl" { 3 } else { 2 }]);
            assert_eq!(code(&output), 2, "{command}");
            let told = stderr(&output);
            assert!(told.contains(flag) && told.contains("1 to 107 bytes"), "{command}: {told}");
        }
    }
}

#[test]
fn without_a_process_it_is_69() {
    let directory = Directory::new();
    let stale = directory.file("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    for socket in [directory.file("absent"), stale] {
        let output = ctl(&socket, &["status"]);
        assert_eq!(code(&output), 69);
        assert!(stderr(&output).contains(socket.to_str().unwrap()), "{}", stderr(&output));
    }
    let output = portcullis(&["ctl", "status"]).env("RUNTIME_DIRECTORY", &directory.0).output().unwrap();
    assert_eq!(code(&output), 69);
    assert!(stderr(&output).contains("no process has its control socket in"), "{}", stderr(&output));
}

#[test]
fn a_user_without_the_right_gets_77_from_the_file_and_from_the_process() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can be somebody else.
    }
    let guard = Guard::start("service = \"echo\"");
    // The program may lie where only root may go.
    let program = guard.directory.file("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
    let stranger = || {
        let mut command = std::process::Command::new(&program);
        command.args(["ctl", "--socket", guard.socket.to_str().unwrap(), "drain"]).uid(65_534).gid(65_534);
        // As long as a child that another test is just starting has the copy open for writing, the kernel does not run it.
        let mut output = command.output();
        while output.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
            thread::yield_now();
            output = command.output();
        }
        output.unwrap()
    };
    assert_eq!(fs::metadata(&guard.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let output = stranger();
    assert_eq!(code(&output), 77, "{}", stderr(&output));
    fs::set_permissions(&guard.socket, Permissions::from_mode(0o666)).unwrap();
    let output = stranger();
    assert_eq!(code(&output), 77, "{}", stderr(&output));
    assert!(stderr(&output).contains("only root"), "{}", stderr(&output));
    assert_eq!(guard.json(&["status"])["draining"], false);
}

#[test]
fn a_path_that_a_living_process_has_is_1_and_the_first_one_goes_on() {
    let guard = Guard::start("service = \"echo\"");
    let (file, _) = config(&guard.socket, "", "");
    let output = output(&["--config", file.path()]);
    assert_eq!(code(&output), 1);
    let text = stderr(&output);
    for part in
        ["control: ", guard.socket.to_str().unwrap(), &guard.server.process.pid().to_string(), "legal: another path"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(guard.json(&["status"])["pid"], guard.server.process.pid());
}

#[test]
fn a_file_in_the_sockets_place_is_1_and_is_left_alone() {
    let directory = Directory::new();
    let path = directory.file("precious");
    fs::write(&path, "x").unwrap();
    let (file, _) = config(&path, "", "");
    let output = output(&["--config", file.path()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no socket"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");
}

#[test]
fn the_socket_of_a_killed_process_is_replaced() {
    let mut guard = Guard::start("service = \"echo\"");
    guard.server.process.signal(Signal::SIGKILL);
    guard.server.process.wait(PATIENCE).expect("it ends");
    assert!(guard.socket.exists());
    assert_eq!(code(&guard.ctl(&["status"])), 69);
    let next = Guard::start_with(guard.directory, "service = \"echo\"", "");
    assert_eq!(next.json(&["status"])["pid"], next.server.process.pid());
}

#[test]
fn in_the_usual_place_each_process_has_a_socket_and_ctl_wants_to_know_which() {
    let directory = Directory::new();
    let start = || {
        let addr = own_addr(8080);
        let args = ["--datapath", "kernel", "--listen", &addr.to_string(), "--admin", "127.0.0.1:0"];
        let mut command = portcullis(&args);
        command.env("RUNTIME_DIRECTORY", &directory.0);
        Server::spawn(command, addr)
    };
    let status = || portcullis(&["ctl", "--json", "status"]).env("RUNTIME_DIRECTORY", &directory.0).output().unwrap();
    let pid = |output: &Output| serde_json::from_str::<Value>(&stdout(output)).unwrap()["pid"].as_u64().unwrap();
    let mut first = start();
    assert_eq!(pid(&status()), u64::from(first.process.pid()));
    let second = start();
    let both = status();
    assert_eq!(code(&both), 2);
    for server in [&first, &second] {
        assert!(stderr(&both).contains(&format!("(process {})", server.process.pid())), "{}", stderr(&both));
    }
    let named = ctl(&directory.file("control-2.sock"), &["--json", "status"]);
    assert_eq!(pid(&named), u64::from(second.process.pid()));
    first.process.signal(Signal::SIGTERM);
    assert_eq!(first.exit_code(), 0);
    assert_eq!(pid(&status()), u64::from(second.process.pid()));
}

#[test]
fn a_usual_place_that_cannot_be_had_is_a_warning_and_none_is_none() {
    let addr = own_addr(8080);
    let mut command = portcullis(&["--datapath", "kernel", "--listen", &addr.to_string(), "--admin", "127.0.0.1:0"]);
    command.env("RUNTIME_DIRECTORY", "/nonexistent");
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer);
    let process = testnet::Process::spawn(command).unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader)).map_while(Result::ok);
    let warning = lines.find(|line| line.contains("no control socket")).expect("a warning");
    assert!(warning.contains("/nonexistent/control.sock.lock"), "{warning}");
    lines.find(|line| line.contains("  stop ")).expect("it runs all the same");
    drop(process);
}

#[test]
fn garbage_is_told_so_and_harms_nobody() {
    let guard = Guard::start("service = \"echo\"");
    for (line, part) in [
        (b"garbage\n".to_vec(), "does not understand"),
        (b"\n".to_vec(), "does not understand"),
        (b"\xff\xfe\0\n".to_vec(), "does not understand"),
        (b"{\"verb\":\"fly\"}\n".to_vec(), "`fly`"),
        (b"{\"verb\":\"conns\",\"limit\":10001}\n".to_vec(), "limit: 10001 is not legal; legal: 1 to 10000"),
        (b"{\"verb\":\"kill\"}\n".to_vec(), "legal: ids or peer"),
        (b"{\"verb\":\"log-level\",\"level\":\"loud\"}\n".to_vec(), "is not legal; legal: one of"),
        ([b'['; 1_000_000].to_vec(), "too long; legal: at most 32768 bytes"),
        ([&[b'['; 20_000][..], b"\n"].concat(), "does not understand"),
    ] {
        let answer = say(&guard.socket, &line);
        let refusal: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{part}: {answer}"));
        assert_eq!(refusal["error"]["kind"], "usage");
        assert!(refusal["error"]["message"].as_str().unwrap().contains(part), "{answer}");
    }
    assert_eq!(guard.json(&["status"])["pid"], guard.server.process.pid());
}

#[test]
fn clients_that_say_nothing_or_leave_make_way_for_one_that_asks() {
    let guard = Guard::start("service = \"echo\"");
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&guard.socket).unwrap()).collect();
    for _ in 0..20 {
        let mut leaves = UnixStream::connect(&guard.socket).unwrap();
        leaves.write_all(b"{\"verb\":\"status\"}\n").unwrap();
    }
    assert_eq!(guard.json(&["status"])["pid"], guard.server.process.pid());
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "hung up on");
    }
}

#[test]
fn a_hundred_clients_at_once_are_all_answered() {
    let guard = Guard::start("service = \"echo\"");
    let socket = guard.socket.as_path();
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..100).map(|_| scope.spawn(|| say(socket, b"{\"verb\":\"conns\",\"limit\":10000}\n"))).collect();
        for client in clients {
            let answer: Value = serde_json::from_str(&client.join().unwrap()).unwrap();
            assert_eq!(answer["conns"]["matching"], 0);
        }
    });
    // The descriptors are all given back.
    let descriptors = guard.server.process.open_descriptors();
    testnet::eventually("no client is left", PATIENCE, || {
        say(&guard.socket, b"{}\n");
        guard.server.process.open_descriptors() <= descriptors
    });
}

#[test]
fn each_connection_is_a_line_of_the_access_log_when_it_has_closed() {
    let directory = Directory::new();
    let path = directory.file("access.log");
    fs::write(&path, "what was there before\n").unwrap();
    let access_log = format!("access_log.path = \"{}\"", path.display());
    let mut guard = Guard::start_with(directory, "service = \"echo\"", &access_log);
    let (first, second) = (guard.echoing(), guard.echoing());
    let peers = [&first, &second].map(|stream| stream.local_addr().unwrap().to_string());
    drop(first);
    testnet::eventually("the first is told", PATIENCE, || fs::read_to_string(&path).unwrap().lines().count() == 2);
    guard.text(&["kill", "2"]);
    assert!(is_reset(second));
    let log = &guard.json(&["status"])["access_log"];
    assert_eq!(log["dropped"], 0, "{log}");
    guard.server.process.signal(Signal::SIGTERM);
    assert_eq!(guard.server.exit_code(), 0);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, peer) in lines.iter().zip(peers) {
        assert_eq!(line["peer"], peer);
        assert_eq!(line["local"], guard.server.addr.to_string());
        assert_eq!((&line["listener"], &line["via"]), (&Value::from("web"), &Value::from("kernel")));
        assert_eq!((&line["service"], &line["upstream"]), (&Value::from("echo"), &Value::Null));
        assert!(line["duration_seconds"].as_f64().unwrap() > 0.0);
        let time = line["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
    }
    for (line, reason) in lines.iter().zip(["client_fin", "aborted"]) {
        assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&Value::from(1), &Value::from(1)));
        assert_eq!(line["close_reason"], reason);
    }
    assert_eq!(lines[0]["states"], serde_json::json!(["ESTABLISHED", "CLOSE-WAIT", "LAST-ACK"]));
    assert_eq!(lines[1]["states"], serde_json::json!(["ESTABLISHED", "CLOSED"]));
}

#[test]
fn the_access_log_may_be_rotated_by_copying_and_truncating() {
    let directory = Directory::new();
    let path = directory.file("access.log");
    let access_log = format!("access_log.path = \"{}\"", path.display());
    let guard = Guard::start_with(directory, "service = \"echo\"", &access_log);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0o000, "not everybody's to read");
    for _ in 0..2 {
        drop(guard.echoing());
        testnet::eventually("a line at the beginning", PATIENCE, || fs::read(&path).unwrap().starts_with(b"{"));
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    }
}

#[test]
fn a_full_disk_costs_lines_and_not_the_service() {
    let guard = Guard::start_with(Directory::new(), "service = \"echo\"", "access_log.path = \"/dev/full\"");
    for _ in 0..5 {
        drop(guard.echoing());
    }
    testnet::eventually("all are lost", PATIENCE, || guard.json(&["status"])["access_log"]["dropped"] == 5);
    assert!(guard.server.line("lines of the access log are lost").contains("No space left"));
    drop(guard.echoing());
}

#[test]
fn the_access_log_can_go_to_standard_error() {
    let guard = Guard::start_with(Directory::new(), "service = \"echo\"", "access_log.path = \"stderr\"");
    drop(guard.echoing());
    let line: Value = serde_json::from_str(&guard.server.line("\"listener\":\"web\"")).unwrap();
    assert_eq!(line["id"], 1);
}

#[test]
fn a_reader_of_the_access_log_that_goes_away_costs_lines_and_not_the_service() {
    let directory = Directory::new();
    let fifo = directory.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened for both, since opening for reading alone waits for who writes.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let access_log = format!("access_log.path = \"{}\"", fifo.display());
    let guard = Guard::start_with(directory, "service = \"echo\"", &access_log);
    drop(guard.echoing());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&reader), &mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], 1);
    drop(reader);
    drop(guard.echoing());
    testnet::eventually("the line is lost", PATIENCE, || guard.json(&["status"])["access_log"]["dropped"] == 1);
    drop(guard.echoing());
}

/// Where we answer SYNs ourselves.
#[test]
fn on_the_raw_tier_status_has_the_queue_and_conns_say_who_made_the_handshake() {
    isolated!(|| {
        let directory = Directory::new();
        let (socket, key) = (directory.file("c.sock"), directory.file("key"));
        fs::write(&key, format!("{}\n", "42".repeat(32))).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let addr = "127.0.0.1:8080".parse().unwrap();
        let file = TempFile::new(&format!(
            "datapath = \"raw\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\ncontrol = \"{}\"\nmaster_key_file = \"{}\"\n\
             [[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\nservice = \"echo\"\nhalf_open.max = 64\n",
            socket.display(),
            key.display()
        ));
        let server = Server::spawn(portcullis(&["--config", file.path()]), addr);
        let guard = Guard { server, socket, directory };
        let stream = guard.echoing();
        let status = &guard.json(&["status"])["listeners"][0];
        for (key, expected) in [("tier", Value::from("raw")), ("mode", "queue".into()), ("half_open_max", 64.into())] {
            assert_eq!(status[key], expected, "{key}");
        }
        assert_eq!((&status["syns"], &status["open"]), (&Value::from(1), &Value::from(1)));
        let text = guard.text(&["status"]);
        assert!(text.contains("half-open      0 of 64") && text.contains("0 sent, 0 valid, 0 bad"), "{text}");
        let conn = &guard.json(&["conns"])["connections"][0];
        assert_eq!((&conn["via"], &conn["state"]), (&Value::from("queue"), &Value::from("ESTABLISHED")));
        guard.text(&["kill", "1"]);
        assert!(is_reset(stream));
    });
}

#[test]
fn a_key_file_with_another_key_is_rotated_to_and_what_is_wrong_with_it_is_said() {
    isolated!(|| {
        let directory = Directory::new();
        let (socket, key) = (directory.file("c.sock"), directory.file("key"));
        let write = |text: &str, mode: u32| {
            let _ = fs::remove_file(&key);
            fs::write(&key, text).unwrap();
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        };
        write(&"42".repeat(32), 0o600);
        let addr = "127.0.0.1:8080".parse().unwrap();
        let file = TempFile::new(&format!(
            "datapath = \"raw\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\ncontrol = \"{}\"\nmaster_key_file = \"{}\"\n\
             [[listener]]\nname = \"web\"\nbind = [\"{addr}\"]\nservice = \"echo\"\n",
            socket.display(),
            key.display()
        ));
        let server = Server::spawn(portcullis(&["--config", file.path()]), addr);
        let guard = Guard { server, socket, directory };
        let metric = |name: &str| metrics(guard.server.admin).get(name, &[]).unwrap();
        let named = key.display().to_string();
        let refused = |args: &[&str], expected: i32, part: &str| {
            let output = guard.ctl(&[&["rotate-keys"], args].concat());
            assert_eq!(code(&output), expected, "{}", stderr(&output));
            assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
            assert_eq!(metric("portcullis_key_rotations_total"), 0.0);
        };
        refused(&[], 1, "is the one in use");
        refused(&["--generate"], 1, "rotate without --generate");
        refused(&["--at", "5"], 2, "at: 5 is not legal; legal: Unix time from ");
        refused(&["--at", "soon"], 2, "invalid value 'soon'");
        write("43", 0o600);
        refused(&[], 1, "64 hexadecimal digits");
        write(&"43".repeat(32), 0o644);
        refused(&[], 1, "chmod 600");
        fs::remove_file(&key).unwrap();
        refused(&[], 1, &named);
        let _still = guard.echoing();

        write(&"43".repeat(32), 0o600);
        let rotated = guard.json(&["rotate-keys"]);
        let (from, in_seconds) = (&rotated["from_unix_seconds"], rotated["in_seconds"].as_u64().unwrap());
        assert!((32..=64).contains(&in_seconds) && from.as_u64().unwrap() % 32 == 0, "{rotated}");
        assert_eq!(rotated["source"], format!("master_key_file {named}"));
        assert_eq!(metric("portcullis_key_rotations_total"), 1.0);
        assert_eq!(metric("portcullis_syncookies_key_rotation_timestamp_seconds"), from.as_f64().unwrap());
        let line = guard.server.line("ctl rotate-keys: another master key in ");
        assert!(line.contains(&named) && !line.contains("4343"), "{line}");
        let status = guard.json(&["status"]);
        assert_eq!((&status["keys"]["rotations"], &status["keys"]["from_unix_seconds"]), (&Value::from(1), from));
        assert!(guard.text(&["status"]).contains("master key: 1 rotations, the last one in use in "));
        let _served = guard.echoing();
    });
}

#[test]
fn where_the_kernel_answers_there_is_no_key_to_rotate() {
    let guard = Guard::start("service = \"echo\"");
    let output = guard.ctl(&["rotate-keys"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("there is no master key"), "{}", stderr(&output));
    assert!(guard.json(&["status"])["keys"].is_null());
}

/// Everything that the admin server counts.
fn metrics(admin: std::net::SocketAddr) -> testnet::Metrics {
    let (status, text) = testnet::http_get(&testnet::Namespace::current(), admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    testnet::Metrics::parse(&text)
}

#[test]
fn upstreams_are_in_status_and_in_the_metrics() {
    let upstream = TcpListener::bind(own_addr(0)).unwrap();
    let (alive, dead) = (upstream.local_addr().unwrap().to_string(), "unix:/nowhere/app.sock");
    let guard = Guard::start(&format!("upstreams = [\"{alive}\", \"{dead}\"]"));
    let _clients: Vec<_> = (0..4).map(|_| (guard.server.connect(), upstream.accept().unwrap())).collect();
    testnet::eventually("all are passed on", PATIENCE, || {
        guard.json(&["status"])["listeners"][0]["upstreams"][0]["connections"] == 4
    });
    let servers = guard.json(&["status"])["listeners"][0]["upstreams"].clone();
    assert_eq!((&servers[0]["server"], &servers[0]["up"]), (&Value::from(alive.as_str()), &Value::Bool(true)));
    assert_eq!((&servers[0]["connects"], &servers[0]["connect_failures"]), (&Value::from(4), &Value::from(0)));
    let failures = servers[1]["connect_failures"].as_u64().unwrap();
    assert!(failures >= 1 && servers[1]["last_error"].as_str().unwrap().contains("No such file"), "{servers}");
    let text = guard.text(&["status"]);
    assert!(text.contains(&format!("upstream       {alive} up, 4 open, 4 connects, 0 failed")), "{text}");
    let metrics = metrics(guard.server.admin);
    let get = |name: &str, server: &str| metrics.get(&format!("portcullis_upstream_{name}"), &[("server", server)]);
    assert_eq!((get("up", &alive), get("connections", &alive)), (Some(1.0), Some(4.0)));
    assert_eq!((get("connects_total", &alive), get("connect_failures_total", &alive)), (Some(4.0), Some(0.0)));
    assert_eq!(get("connect_failures_total", dead), Some(failures as f64));
}

#[test]
fn the_client_that_a_proxy_names_is_beside_the_peer() {
    let directory = Directory::new();
    let log = directory.file("access.log");
    let guard = Guard::start_with(
        directory,
        "service = \"echo\"\nproxy_protocol = { accept_from = [\"127.0.0.0/8\"] }",
        &format!("access_log.path = \"{}\"", log.display()),
    );
    let mut stream = guard.server.connect();
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 49152 80\r\n1").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let conn = guard.json(&["conns"])["connections"][0].clone();
    assert_eq!(
        (&conn["client"], &conn["peer"]),
        (&Value::from("192.0.2.7:49152"), &Value::from(stream.local_addr().unwrap().to_string()))
    );
    assert!(guard.text(&["conns"]).contains("192.0.2.7:49152"));
    drop(stream);
    testnet::eventually("the line", PATIENCE, || fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["client"], "192.0.2.7:49152");
    assert_eq!(metrics(guard.server.admin).get("portcullis_access_log_lines_total", &[]), Some(1.0));
    assert_eq!(metrics(guard.server.admin).get("portcullis_access_log_dropped_total", &[]), Some(0.0));
}

#[test]
fn an_access_log_that_cannot_be_opened_is_1_and_named() {
    let directory = Directory::new();
    let (file, _) = config(&directory.file("c"), "", "access_log.path = \"/nonexistent/log\"");
    let output = output(&["--config", file.path()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("access_log.path /nonexistent/log"), "{}", stderr(&output));
}
