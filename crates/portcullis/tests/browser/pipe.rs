//! The DevTools protocol through two pipes: JSON messages, each ended by a NUL.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testnet::Process;

/// No command here takes longer, on a busy machine and with the browser's start before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our ends of the pipes, and what has happened so far.
pub struct Pipe {
    commands: PipeWriter,
    messages: Receiver<Value>,
    /// All of it: a test is short, and asks what ever happened.
    events: Vec<Value>,
    last_id: u64,
}

impl Pipe {
    /// Starts a command that speaks the protocol through its standard input and output.
    pub fn spawn(mut command: Command) -> (Pipe, Process) {
        let (their_commands, commands) = pipe().expect("a pipe");
        let (answers, their_answers) = pipe().expect("a pipe");
        command.stdin(their_commands).stdout(their_answers);
        let process = Process::spawn(command).expect("start the browser");
        let pipe = Pipe { commands, messages: read(answers), events: Vec::new(), last_id: 0 };
        (pipe, process)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// What the browser says against it, or that it is gone or silent.
    pub fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, String> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).map_err(|error| format!("the browser is gone: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message =
                self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| {
                    match error {
                        RecvTimeoutError::Timeout => format!("no answer in {PATIENCE:?}"),
                        RecvTimeoutError::Disconnected => "the browser is gone".to_owned(),
                    }
                })?;
            if message["id"] != json!(self.last_id) {
                self.events.push(message);
            } else if message["error"].is_null() {
                return Ok(message["result"].clone());
            } else {
                return Err(message["error"].to_string());
            }
        }
    }

    /// What has happened of this name in a session, the oldest first.
    pub fn events(&self, session: &str, method: &str) -> Vec<Value> {
        let wanted = |event: &&Value| event["sessionId"] == json!(session) && event["method"] == json!(method);
        self.events.iter().filter(wanted).map(|event| event["params"].clone()).collect()
    }
}

/// Reads messages on a thread of its own, which ends with the browser.
fn read(answers: PipeReader) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for message in BufReader::new(answers).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("a JSON message of the browser");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
