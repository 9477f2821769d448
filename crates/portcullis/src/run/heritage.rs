//! What a successor gets from this process, and how an operator has one started.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::control::Succession;
use crate::takeover::{Giving, Outcome};

/// How long a new process may take until it has taken over: it loads its programs, and reads its lists.
const PATIENCE: Duration = Duration::from_secs(130);

/// Time between two looks at whether the new process still lives.
const LOOK: Duration = Duration::from_millis(50);

/// This process as its successor sees it.
pub struct Heritage {
    giving: Giving,
    program: Program,
    /// Where a successor asks; `None` without a control socket.
    path: Option<PathBuf>,
    /// Cancelled when one has taken over.
    served: CancellationToken,
    restarting: Mutex<()>,
}

impl Heritage {
    /// `served` is cancelled when a successor serves in place of this process.
    pub fn new(giving: Giving, program: Program, path: Option<PathBuf>, served: CancellationToken) -> Heritage {
        Heritage { giving, program, path, served, restarting: Mutex::default() }
    }

    /// Starts the program anew, and waits until it has taken over; returns its process number.
    ///
    /// # Errors
    /// Why it has not, in words.
    pub fn restart(&self) -> Result<u32, String> {
        let Ok(_restarting) = self.restarting.try_lock() else { return Err("a restart is under way".to_owned()) };
        if std::process::id() == 1 {
            let text =
                "this process is the first of its PID namespace, a container's, which would end with it: restart that";
            return Err(text.to_owned());
        }
        let path = self.path.as_ref().ok_or("there is no control socket, by which to take over")?;
        let outcome = self.giving.next();
        let begun = Instant::now();
        let mut child = self.program.start(path).map_err(|error| format!("cannot start {self}: {error}"))?;
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(Outcome::Taken { pid }) => {
                    reap(child);
                    return Ok(pid);
                }
                Ok(Outcome::Failed { message }) => {
                    reap(child);
                    return Err(message);
                }
                Err(RecvTimeoutError::Disconnected) => return Err("another process was faster".to_owned()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(match outcome.recv_timeout(LOOK) {
                    Ok(Outcome::Failed { message }) => message,
                    _ => format!("the new process ended before it took over ({status}); the log has its last words"),
                });
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                reap(child);
                return Err(format!(
                    "the new process has not taken over within {} s, and was ended",
                    PATIENCE.as_secs()
                ));
            }
        }
    }
}

impl std::fmt::Display for Heritage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.file.display())
    }
}

impl Succession for Heritage {
    fn serve(&self, stream: UnixStream, version: u32) {
        if self.giving.serve(stream, version) {
            self.served.cancel();
        }
    }
}

/// Whoever is done with a child waits for it, lest it stays as a zombie for as long as our connections last.
fn reap(mut child: Child) {
    thread::spawn(move || child.wait());
}

/// This program, as it was started.
#[derive(Clone, Debug)]
pub struct Program {
    file: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start: what lies at the place of our file later is the next version.
    ///
    /// # Errors
    /// Without `/proc`.
    pub fn of_process() -> io::Result<Program> {
        Ok(Program { file: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    fn start(&self, path: &std::path::Path) -> io::Result<Child> {
        let mut takeover = OsString::from(TAKEOVER);
        takeover.push("=");
        takeover.push(path);
        let ours = |argument: &&OsString| !argument.as_encoded_bytes().starts_with(TAKEOVER.as_bytes());
        // The supervisor's watchdog is told of one process only: the new one is to answer it.
        Command::new(&self.file)
            .args(self.arguments.iter().filter(ours))
            .arg(takeover)
            .env_remove("WATCHDOG_PID")
            .spawn()
    }
}

const TAKEOVER: &str = "--takeover";
