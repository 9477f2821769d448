//! From the first request to end to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exporter::Readiness;
use portcullis::Control;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reload::Reloader;
use super::servers::{Admin, Ctl};
use super::stop::{FIN_GRACE, Signals, Stop};
use super::supervisor;
use crate::failure::Failure;
use crate::registry::Registry;

/// Goes on serving new clients for a while, so that whoever sends them here has time to notice. A second signal, or the failure of a
/// listener, ends that.
async fn pre_stop(by: &str, pre_stop: Duration, signals: &mut Signals, stop: &Stop) {
    if pre_stop.is_zero() {
        return;
    }
    tracing::info!("{by}: not ready any more; new clients are served for {} s yet", pre_stop.as_secs());
    tokio::select! {
        () = tokio::time::sleep(pre_stop) => {}
        () = stop.failed.cancelled() => {}
        _ = signals.again(no_reload) => {}
    }
}

/// How long the end may wait for the access log.
const LOG_GRACE: Duration = Duration::from_secs(2);

/// What comes behind the deadline takes no longer: the last FINs, answers under way, the access log, the workers.
const END_MAX: Duration = Duration::from_secs(10);

/// What runs, and how it is told to end.
pub struct Serving {
    pub reloader: Arc<Reloader>,
    pub readiness: Arc<Readiness>,
    pub registry: Arc<Registry>,
    /// One for each listener.
    pub fronts: JoinSet<Result<(), Failure>>,
    pub controls: Vec<Control>,
    pub admin: Admin,
    pub ctl: Ctl,
    /// Somebody has asked for the end by `ctl`.
    pub drain_asked: CancellationToken,
    pub succession: Succession,
    pub stop: Stop,
    /// They end when this is dropped.
    pub _watches: JoinSet<()>,
}

/// How it stands with a process that goes on in our place.
pub struct Succession {
    /// One takes over, and needs nothing from us but that we finish.
    pub taken: CancellationToken,
    /// We have stopped for one, and nobody has come to serve.
    pub lost: CancellationToken,
    /// Set, the control socket stays where it is when we end.
    pub socket: Option<Arc<AtomicBool>>,
}

impl Succession {
    /// The control socket is ours alone: if a predecessor has left it to us, it needs it no more.
    pub fn keep_socket(&self) {
        self.socket.iter().for_each(|left| left.store(false, Ordering::Relaxed));
    }
}

/// By what the end was asked for.
enum Asked {
    By(&'static str),
    Taken,
}

impl Serving {
    /// Serves until the end, and takes its steps.
    ///
    /// # Errors
    /// Of a listener that fails for good.
    pub async fn serve_out(mut self, signals: &mut Signals) -> Result<(), Failure> {
        let ended = self.until_stopped(signals).await.and(self.until_succeeded().await);
        self.admin.stop().await;
        self.ctl.stop().await;
        if let Some(log) = self.registry.log() {
            log.clone().finish(LOG_GRACE).await;
        }
        ended
    }

    /// With what we have stopped, another process may yet go on.
    async fn until_succeeded(&self) -> Result<(), Failure> {
        if !self.succession.taken.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = self.ctl.stop.cancelled() => Ok(()),
            () = self.succession.lost.cancelled() => {
                Err(Failure::Runtime("no other process has come to serve in place of this one".to_owned()))
            }
        }
    }

    async fn until_stopped(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let ended = self.until_asked(signals).await;
        // In this order: a listener that ends before it was told to has failed.
        self.stop.drain.cancel();
        if !self.succession.taken.is_cancelled() {
            self.controls.iter().for_each(Control::drain);
            if self.reloader.config().bpf_pins.is_some() {
                self.admin.stop.cancel(); // The next process may start now, and wants its port.
                self.ctl.stop.cancel();
            }
        }
        self.finish_connections(signals, ended).await
    }

    /// Until the first signal, somebody asks for the end, or a successor takes over.
    async fn until_asked(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let deadline = || self.reloader.config().shutdown_deadline.as_secs();
        tokio::select! {
            biased; // Of fronts that end because a successor has what they had, nothing is to be learnt.
            asked = asked_to_end(&self.reloader, signals, &self.drain_asked, &self.succession.taken) => {
                match asked {
                    Asked::Taken => tracing::info!("taken over from: connections that are open have {} s to finish", deadline()),
                    Asked::By(by) => {
                        self.readiness.set_draining(true);
                        let config = self.reloader.config();
                        supervisor::stopping("finishing connections", config.pre_stop + config.shutdown_deadline + END_MAX);
                        pre_stop(by, config.pre_stop, signals, &self.stop).await;
                        tracing::info!(
                            "{by}: no new connections; those open have {} s to finish, and end at once at a second signal",
                            deadline()
                        );
                    }
                }
                Ok(())
            }
            // Without a signal, a front ends only by failing. Clients wait for a restart: nobody is given time to finish.
            failed = self.fronts.join_next() => {
                self.stop.deadline.cancel();
                outcome(failed)
            }
            () = self.stop.failed.cancelled() => {
                self.stop.deadline.cancel();
                Ok(())
            }
        }
    }

    async fn finish_connections(&mut self, signals: &mut Signals, ended: Result<(), Failure>) -> Result<(), Failure> {
        let (mut ended, stop, fronts) = (ended, &self.stop, &mut self.fronts);
        tokio::select! {
            () = finish(fronts, &mut ended) => return ended,
            () = stop.deadline.cancelled() => {}
            () = stop.failed.cancelled() => {}
            // Nobody answers: a service manager is to start us anew, and soon.
            () = self.succession.lost.cancelled() => {}
            () = tokio::time::sleep(self.reloader.config().shutdown_deadline) => tracing::info!("deadline: closing what is still open"),
            signal = signals.again(no_reload) => {
                tracing::info!("{signal} again: ending at once");
                stop.everything();
            }
        }
        stop.deadline.cancel();
        tokio::select! {
            () = finish(fronts, &mut ended) => return ended,
            () = tokio::time::sleep(FIN_GRACE) => tracing::info!("resetting what has not closed"),
            _ = signals.again(no_reload) => {}
        }
        stop.everything();
        finish(fronts, &mut ended).await;
        ended
    }
}

async fn asked_to_end(
    reloader: &Reloader,
    signals: &mut Signals,
    drain_asked: &CancellationToken,
    taken: &CancellationToken,
) -> Asked {
    tokio::select! {
        biased;
        () = taken.cancelled() => Asked::Taken,
        signal = signals.next(|| drop(supervisor::reloading(|| reloader.reload()))) => Asked::By(signal),
        () = drain_asked.cancelled() => Asked::By("ctl drain"),
    }
}

/// At the end there is nothing left for a new configuration.
fn no_reload() {
    tracing::warn!("SIGHUP ignored: it is ending");
}

async fn finish(fronts: &mut JoinSet<Result<(), Failure>>, ended: &mut Result<(), Failure>) {
    while let Some(front) = fronts.join_next().await {
        let front = outcome(Some(front));
        if ended.is_ok() {
            *ended = front;
        }
    }
}

/// What a front's task came to. A panic is a failure, and no reason to leave the other fronts as they are.
fn outcome(joined: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match joined {
        None => Ok(()),
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(Failure::runtime("a listener failed", error)),
    }
}
