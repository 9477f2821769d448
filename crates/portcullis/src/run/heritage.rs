//! What a successor gets from this process, and how an operator has one started.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::control::Succession;
use crate::takeover::{Giving, Outcome};

/// How long a new process may take until it has taken over: it loads its programs, and reads its lists.
const PATIENCE: Duration = Duration::from_secs(130);

/// Time between two looks at whether the new process still lives.
const LOOK: Duration = Duration::from_millis(50);

/// Successors that are tried after one that failed when we had stopped for it.
const TRIES: u32 = 3;

/// This process as its successor sees it.
pub struct Heritage {
    giving: Giving,
    program: Program,
    /// Where a successor asks; `None` without a control socket.
    path: Option<PathBuf>,
    /// A successor serves.
    served: Box<dyn Fn() + Send + Sync>,
    /// None does, though we have stopped, and none will.
    lost: CancellationToken,
    restarting: Mutex<()>,
    recovering: AtomicBool,
}

impl Heritage {
    /// `served` is called when a successor serves in place of this process; `lost` cancelled when we have stopped for one, and neither it nor
    /// those that were started then have come to serve.
    pub fn new(
        giving: Giving,
        program: Program,
        path: Option<PathBuf>,
        served: impl Fn() + Send + Sync + 'static,
        lost: CancellationToken,
    ) -> Heritage {
        Heritage {
            giving,
            program,
            path,
            served: Box::new(served),
            lost,
            restarting: Mutex::default(),
            recovering: AtomicBool::default(),
        }
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
        self.attempt()
    }

    fn attempt(&self) -> Result<u32, String> {
        let path = self.path.as_ref().ok_or("there is no control socket, by which to take over")?;
        let outcome = self.giving.next();
        let begun = Instant::now();
        let started = self.program.start(path);
        let mut child = started.map_err(|error| format!("cannot start {}: {error}", self.program.file.display()))?;
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(Outcome::Taken { pid }) => {
                    reap(child);
                    return Ok(pid);
                }
                Ok(Outcome::Refused { message } | Outcome::Lost { message }) => {
                    reap(child);
                    return Err(message);
                }
                Err(RecvTimeoutError::Disconnected) => return Err("another process was faster".to_owned()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(match outcome.recv_timeout(LOOK) {
                    Ok(Outcome::Refused { message } | Outcome::Lost { message }) => message,
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

    /// Has somebody else take what we have stopped with.
    fn recover(&self) {
        for _ in 0..TRIES {
            match self.attempt() {
                Ok(_) => return,
                Err(why) => tracing::error!("starting another one: {why}"),
            }
        }
        self.lost.cancel();
    }
}

impl Succession for Arc<Heritage> {
    fn serve(&self, stream: UnixStream, version: u32) {
        match self.giving.serve(stream, version) {
            Outcome::Taken { .. } => (self.served)(),
            Outcome::Refused { .. } => {}
            // Of those that are started for that, the one who starts them hears.
            Outcome::Lost { .. } if self.recovering.swap(true, Ordering::Relaxed) => {}
            Outcome::Lost { .. } => {
                let heritage = self.clone();
                thread::spawn(move || heritage.recover());
            }
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
