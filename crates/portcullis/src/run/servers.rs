//! The two servers for operators.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use exporter::{AdminServer, Exporter, Reloads, Reporter};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::heritage::Heritage;
use super::operations::Running;
use crate::control::{ControlServer, ControlSocket};
use crate::failure::Failure;

/// Where the admin server is going to listen, and does not yet.
pub struct AdminSocket {
    /// As it was configured: port 0 where the kernel was to choose.
    addr: SocketAddr,
    socket: OwnedFd,
    share: OwnedFd,
}

impl AdminSocket {
    /// Takes the configured address, or what a predecessor left there.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn take(
        addr: Option<SocketAddr>,
        left: impl FnOnce(SocketAddr) -> Option<OwnedFd>,
    ) -> Result<Option<AdminSocket>, Failure> {
        let Some(addr) = addr else { return Ok(None) };
        let failed = |error| Failure::runtime(format!("cannot listen on {addr} (--admin)"), error);
        let socket = match left(addr) {
            Some(left) => left,
            None => TcpListener::bind(addr).map_err(failed)?.into(),
        };
        let share = socket.try_clone().map_err(failed)?;
        Ok(Some(AdminSocket { addr, socket, share }))
    }
}

/// The admin server, if there is one. It answers to the end, so that the end can be watched.
pub struct Admin {
    pub addr: Option<SocketAddr>,
    /// The listening socket, for a successor, and the address that was configured.
    pub share: Option<(SocketAddr, OwnedFd)>,
    pub stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Admin {
    /// On this socket, if there is to be one.
    ///
    /// # Errors
    /// When it cannot be registered with the runtime.
    pub fn start(
        reporter: Arc<Reporter>,
        reloads: Arc<Reloads>,
        socket: Option<AdminSocket>,
    ) -> Result<Admin, Failure> {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let Some(AdminSocket { addr, socket, share }) = socket else {
            return Ok(Admin { addr: None, share: None, stop, tasks });
        };
        let server = Exporter::of(reporter)
            .and_then(|exporter| AdminServer::inherit(socket, addr, exporter.with_reloads(reloads)))
            .map_err(|error| Failure::Runtime(error.to_string()))?;
        let local = server.local_addr();
        tasks.spawn(watched("admin server", stop.clone(), server.run(stop.clone().cancelled_owned())));
        Ok(Admin { addr: Some(local), share: Some((addr, share)), stop, tasks })
    }

    /// Gives answers under way their time, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The control server, if there is one. It answers to the end, as the admin server does.
pub struct Ctl {
    pub path: Option<PathBuf>,
    pub stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Ctl {
    /// Until `stop` is cancelled.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn start(
        socket: Option<ControlSocket>,
        running: Running,
        succession: Arc<Heritage>,
        stop: CancellationToken,
    ) -> Result<Ctl, Failure> {
        let mut tasks = JoinSet::new();
        let Some(socket) = socket else { return Ok(Ctl { path: None, stop, tasks }) };
        let server = ControlServer::new(socket, Arc::new(running), Arc::new(succession))
            .map_err(|error| Failure::runtime("cannot serve the control socket", error))?;
        let path = Some(server.path().to_owned());
        tasks.spawn(watched("control server", stop.clone(), server.run(stop.clone())));
        Ok(Ctl { path, stop, tasks })
    }

    /// Gives answers under way their time, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves, and says so when that ends before it was to: clients then wait at a socket that nobody accepts from.
async fn watched(what: &'static str, stop: CancellationToken, serve: impl Future<Output = ()> + Send + 'static) {
    let mut task = JoinSet::new();
    task.spawn(serve);
    let Some(outcome) = task.join_next().await else { return };
    if let Some(how) = too_early(&outcome, stop.is_cancelled()) {
        tracing::error!(
            "the {what} answers no more: {how}; connections are served as before, and a restart brings it back"
        );
    }
}

/// How it ended, if that was not what was asked for.
fn too_early(outcome: &Result<(), JoinError>, asked: bool) -> Option<String> {
    match outcome {
        Err(error) if !error.is_cancelled() => Some(error.to_string()),
        Ok(()) if !asked => Some("it ended without being asked to".to_owned()),
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(serve: impl Future<Output = ()> + Send + 'static) -> Result<(), JoinError> {
        tokio::spawn(serve).await
    }

    #[tokio::test]
    async fn a_server_that_ends_too_early_is_told_of_with_what_it_died_of() {
        let died = outcome(async { panic!("no thread") }).await;
        for asked in [false, true] {
            assert!(too_early(&died, asked).unwrap().contains("no thread"));
        }
        let ended = outcome(async {}).await;
        assert!(too_early(&ended, false).is_some());
        assert_eq!(too_early(&ended, true), None);
    }
}
