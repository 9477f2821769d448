use tokio::time::Instant;

use super::*;
use crate::config::LogLevel;
use crate::control::{Conns, Drained, Killed, LevelChanged, Prefix, Reloaded, Restarted, Rotated, Status, Top};

/// A process with more to say than a socket holds, and a bug.
struct Talkative;

impl Operations for Talkative {
    fn status(&self) -> Status {
        Status {
            version: "x".repeat(4 * 1024 * 1024),
            pid: 1,
            uptime_seconds: 0,
            clock_seconds: 0.0,
            unix_seconds: 0,
            draining: false,
            log_level: "info".to_owned(),
            access_log: None,
            keys: None,
            listeners: Vec::new(),
        }
    }

    fn conns(&self, _: Option<&str>, _: Option<Prefix>, _: usize) -> Result<Conns, Refusal> {
        Err(Refusal::refused("no"))
    }

    fn top(&self, _: usize) -> Top {
        panic!("as an operation with a bug does");
    }

    fn drain(&self) -> Drained {
        Drained { already: false, open: 0, deadline_seconds: 0 }
    }

    fn reload(&self) -> Result<Reloaded, Refusal> {
        Err(Refusal::refused("no"))
    }

    fn restart(&self) -> Result<Restarted, Refusal> {
        Err(Refusal::refused("no"))
    }

    fn kill_ids(&self, ids: &[u64]) -> Killed {
        Killed { killed: 0, unknown: ids.to_vec() }
    }

    fn kill_peers(&self, _: Prefix) -> Killed {
        Killed { killed: 0, unknown: Vec::new() }
    }

    fn set_log_level(&self, _: LogLevel) -> Result<LevelChanged, Refusal> {
        Err(Refusal::refused("no"))
    }

    fn rotate_keys(&self, _: bool, _: Option<u64>) -> Result<Rotated, Refusal> {
        Err(Refusal::refused("no"))
    }
}

/// Says which version the other side speaks.
struct Echo;

impl Succession for Echo {
    fn serve(&self, mut stream: std::os::unix::net::UnixStream, version: u32) {
        use std::io::Write;
        stream.set_nonblocking(false).unwrap();
        writeln!(stream, "{{\"error\":{{\"kind\":\"refused\",\"message\":\"version {version}\"}}}}").unwrap();
    }
}

/// A client's end, and the task that serves it.
fn client() -> (UnixStream, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let owner = nix::unistd::geteuid().as_raw();
    (ours, tokio::spawn(serve(theirs, Arc::new(Talkative), Arc::new(Echo), owner)))
}

#[tokio::test]
async fn who_wants_to_take_over_speaks_with_somebody_else() {
    let answer = answer_to("{\"verb\":\"take-over\",\"version\":7}\n").await;
    assert!(matches!(answer, Answer::Error(refusal) if refusal.message == "version 7"));
}

async fn answer_to(line: &str) -> Answer {
    let (mut stream, served) = client();
    stream.write_all(line.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    served.await.unwrap();
    assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test]
async fn one_line_has_one_line_as_its_answer() {
    let drained = Answer::Drain(Drained { already: false, open: 0, deadline_seconds: 0 });
    assert_eq!(answer_to("{\"verb\":\"drain\"}\n").await, drained);
    assert_eq!(answer_to("{\"verb\":\"drain\"}\n{\"verb\":\"drain\"}\n").await, drained, "no more than one is read");
    assert!(
        matches!(answer_to("{\"verb\":\"status\"}\n").await, Answer::Status(status) if status.version.len() > 4_000_000)
    );
    assert_eq!(answer_to("{\"verb\":\"conns\",\"limit\":1}\n").await, Answer::Error(Refusal::refused("no")));
    let refusal = Refusal::refused("no open connection has the number 3, 4");
    assert_eq!(answer_to("{\"verb\":\"kill\",\"ids\":[3,4]}\n").await, Answer::Error(refusal));
}

#[tokio::test]
async fn an_operation_that_panics_is_an_answer_as_well() {
    let Answer::Error(refusal) = answer_to("{\"verb\":\"top\",\"limit\":1}\n").await else { panic!("an error") };
    assert!(refusal.message.contains("failed"), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_line_is_hung_up_on() {
    for said in ["", "{\"verb\":"] {
        let (mut stream, served) = client();
        stream.write_all(said.as_bytes()).await.unwrap();
        let began = Instant::now();
        served.await.unwrap();
        assert!(began.elapsed() >= REQUEST_TIME && began.elapsed() < 2 * REQUEST_TIME);
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.ok().unwrap_or(0), 0, "no answer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_hung_up_on() {
    let (mut stream, served) = client();
    stream.write_all(b"{\"verb\":\"status\"}\n").await.unwrap();
    let began = Instant::now();
    served.await.unwrap();
    assert!(began.elapsed() >= ANSWER_TIME && began.elapsed() < 2 * ANSWER_TIME);
}
