//! The side that answers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::operations::{Operations, answer};
use super::protocol::{Answer, REQUEST_BYTES_MAX, Refusal, Request};
use super::socket::{ControlSocket, Place};

/// Clients that are served at a time. Each costs a descriptor and, while it is answered, up to some MiB of memory; further ones wait.
const CLIENTS_MAX: usize = 8;

/// From accept to the end of the request. `ctl` sends it at once; who does not keeps others waiting.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// For the answer to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// After a failure to accept, which is nearly always that there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// For answers under way, once the server is to stop.
const FINISH_TIME: Duration = Duration::from_secs(1);

/// A process that can go on in place of this one speaks with it.
pub trait Succession: Send + Sync + 'static {
    /// To the end of their conversation, on a thread that may block.
    fn serve(&self, stream: std::os::unix::net::UnixStream, version: u32);
}

/// Answers on a control socket.
pub struct ControlServer {
    listener: UnixListener,
    place: Place,
    operations: Arc<dyn Operations>,
    succession: Arc<dyn Succession>,
    /// Who may ask, beside root.
    owner: u32,
}

impl ControlServer {
    /// Takes over a socket. Nothing is answered before [`run`](ControlServer::run).
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        socket: ControlSocket,
        operations: Arc<dyn Operations>,
        succession: Arc<dyn Succession>,
    ) -> io::Result<ControlServer> {
        let ControlSocket { listener, place } = socket;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(ControlServer { listener, place, operations, succession, owner: nix::unistd::geteuid().as_raw() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Answers until it is told to stop, then gives answers under way a second, and removes the socket.
    pub async fn run(self, stop: CancellationToken) {
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = clients.join_next() => continue,
                accepted = self.listener.accept(), if clients.len() < CLIENTS_MAX => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (operations, succession) = (self.operations.clone(), self.succession.clone());
                    clients.spawn(serve(stream, operations, succession, self.owner));
                }
                Err(error) => {
                    tracing::debug!(%error, "control socket: a client could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // From here on the next process may have its place.
        drop((self.listener, self.place));
        // Past the time, dropping the set ends what is left.
        let _ = timeout(FINISH_TIME, async { while clients.join_next().await.is_some() {} }).await;
    }
}

/// One client: one line, one line back. Whatever goes wrong is the client's doing, and nobody else's concern.
async fn serve(mut stream: UnixStream, operations: Arc<dyn Operations>, succession: Arc<dyn Succession>, owner: u32) {
    let answer = match stream.peer_cred() {
        Ok(client) if client.uid() == 0 || client.uid() == owner => {
            let Ok(Ok(line)) = timeout(REQUEST_TIME, read_line(&mut stream)).await else { return };
            if line.is_empty() {
                return; // It only looked whether somebody lives here.
            }
            match parse(&line) {
                Ok(Request::TakeOver { version }) => return succeed(stream, succession, version).await,
                Ok(request) => reply(request, operations).await,
                Err(refusal) => Answer::Error(refusal),
            }
        }
        _ => Answer::Error(Refusal::rights("only root and the user of the process may ask")),
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else { return };
    line.push(b'\n');
    let _ = timeout(ANSWER_TIME, async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    })
    .await;
}

/// The rest of the conversation has a form of its own.
async fn succeed(stream: UnixStream, succession: Arc<dyn Succession>, version: u32) {
    let Ok(stream) = stream.into_std() else { return };
    let _ = tokio::task::spawn_blocking(move || succession.serve(stream, version)).await;
}

/// Up to the newline or the end; one byte more than is allowed, if there is more.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX as u64 + 1)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    if line.len() > REQUEST_BYTES_MAX {
        return Err(Refusal::usage(format!("the request is too long; legal: at most {REQUEST_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(line).map_err(|error| {
        let version = env!("CARGO_PKG_VERSION");
        Refusal::usage(format!("portcullis {version} does not understand the request: {error}"))
    })
}

/// It walks over all connections and asks the kernel: not on a thread that serves them.
async fn reply(request: Request, operations: Arc<dyn Operations>) -> Answer {
    match tokio::task::spawn_blocking(move || answer(request, &*operations)).await {
        Ok(answer) => answer,
        Err(error) => Answer::Error(Refusal::refused(format!("it failed: {error}"))),
    }
}

#[cfg(test)]
mod tests;
