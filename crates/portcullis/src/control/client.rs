//! The side that asks: `portcullis ctl`.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::args::CtlArgs;
use super::place;
use super::protocol::{ANSWER_BYTES_MAX, Answer, RefusalKind, Request};
use super::socket::{connect, owner};
use super::table;
use crate::failure::Failure;

/// From the first attempt to the last byte of the answer. The process may be busy with a flood, and others may be before us.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks, and returns what is to be printed.
///
/// # Errors
/// When nobody is there, or says no.
pub fn ctl(args: CtlArgs) -> Result<String, Failure> {
    match query(args.socket.as_deref(), &args.verb.into_request())? {
        answer if args.json => table::json(&answer).map_err(|error| Failure::runtime("cannot write JSON", error)),
        answer => Ok(table::text(&answer)),
    }
}

/// Asks the process whose control socket is there, or the one that is found; an answer is never a refusal.
///
/// # Errors
/// When nobody is there, or says no.
pub fn query(socket: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let (stream, path) = match socket {
        Some(path) => (connect(path, PATIENCE).map_err(|error| unreachable_at(path, &error))?, path.to_owned()),
        None => find(&place::of_client())?,
    };
    let line =
        ask(stream, request, deadline).map_err(|error| Failure::Unavailable(format!("{}: {error}", path.display())))?;
    let answer = serde_json::from_slice(&line)
        .map_err(|error| Failure::Runtime(format!("{}: the answer makes no sense: {error}", path.display())))?;
    match answer {
        Answer::Error(refusal) => Err(match refusal.kind {
            RefusalKind::Usage => Failure::Usage(refusal.message),
            RefusalKind::Refused => Failure::Runtime(refusal.message),
            RefusalKind::Rights => Failure::Rights(refusal.message),
        }),
        answer => Ok(answer),
    }
}

fn unreachable_at(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Failure::Rights(format!("{path}: this user may not ask: run it as root or as the user of the process"))
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Failure::Unavailable(format!("{path}: no process answers there ({error})"))
        }
        ErrorKind::WouldBlock => Failure::Unavailable(format!("{path}: the process lets nobody in")),
        _ => Failure::Unavailable(format!("{path}: {error}")),
    }
}

/// The one process that has its socket in a directory.
fn find(directory: &Path) -> Result<(UnixStream, PathBuf), Failure> {
    let mut alive = Vec::new();
    let mut barred = None;
    for path in place::slots(directory) {
        match connect(&path, PATIENCE) {
            Ok(stream) => alive.push((stream, path)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => barred = barred.or(Some((path, error))),
            Err(_) => {}
        }
    }
    if alive.len() > 1 {
        let list: Vec<_> = alive.iter().map(|(stream, path)| describe(stream, path)).collect();
        return Err(Failure::Usage(format!("several processes run here: name one\n{}", list.join("\n"))));
    }
    match (alive.pop(), barred) {
        (Some(found), _) => Ok(found),
        (None, Some((path, error))) => Err(unreachable_at(&path, &error)),
        (None, None) => Err(Failure::Unavailable(format!(
            "no process has its control socket in {}: is one running, and is its `control` elsewhere? (--socket PATH)",
            directory.display()
        ))),
    }
}

fn describe(stream: &UnixStream, path: &Path) -> String {
    let pid = owner(stream).map_or_else(String::new, |pid| format!("  (process {pid})"));
    format!("  --socket {}{pid}", path.display())
}

/// Sends a request and reads the answer.
fn ask(mut stream: UnixStream, request: &Request, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A process that says no before it has read everything has its answer waiting all the same.
    let sent = stream.write_all(&line);
    let mut answer = Vec::new();
    let mut piece = [0; 64 * 1024];
    while answer.last() != Some(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(ErrorKind::TimedOut, format!("no answer in {} s", PATIENCE.as_secs())));
            }
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::Error::other(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    if answer.is_empty() {
        sent?;
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
