//! What a service manager is told, by [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/sd_notify.html). Without
//! `$NOTIFY_SOCKET` nobody is.

use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// It serves.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Calls `reload` between the two messages of a reload, and returns what it does.
pub fn reloading<R>(reload: impl FnOnce() -> R) -> R {
    // systemd wants to know since when.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    let done = reload();
    tell(&[NotifyState::Ready]);
    done
}

/// The end has begun, and takes no longer than this.
pub fn stopping(status: &str, within: Duration) {
    let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Another process is the service from now on.
pub fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Says that we live, twice in the time after which the service manager would believe otherwise; until a successor says so in our place.
pub async fn watchdog(succeeded: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return pending().await };
    let mut often = tokio::time::interval(limit / 2);
    loop {
        tokio::select! {
            () = succeeded.cancelled() => return,
            _ = often.tick() => {}
        }
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
