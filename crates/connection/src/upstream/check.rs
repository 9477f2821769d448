//! Checks: connecting to each server now and then.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::config::HealthConfig;
use super::dial::{dial, is_ours};
use super::pool::Pool;
use crate::proxy_protocol::encode_header;

/// Checks of one pool that run at the same time, each with a descriptor. Further ones wait, so with many servers that do not answer
/// a round takes longer than the interval.
const CHECKS_AT_ONCE: usize = 16;

impl Pool {
    /// Checks each server at once and then at every [`interval`](HealthConfig::interval), until `stop` is cancelled. Returns at once
    /// where no checks are configured. With checks configured it has to run: a server that is down comes up by it.
    ///
    /// At most 16 checks run at the same time. Dropping the future stops them too.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn check_health(self: Arc<Pool>, stop: CancellationToken) {
        let Some(health) = self.config().health else { return };
        let turns = Arc::new(Semaphore::new(CHECKS_AT_ONCE));
        let mut checks = JoinSet::new();
        for index in 0..self.len() {
            checks.spawn(Arc::clone(&self).check_server(index, health, Arc::clone(&turns)));
        }
        stop.cancelled().await;
    }

    async fn check_server(self: Arc<Pool>, index: usize, health: HealthConfig, turns: Arc<Semaphore>) {
        let entropy = RandomState::new();
        for count in 0u64.. {
            {
                let _turn = turns.acquire().await;
                self.check_once(index, health.timeout).await;
            }
            sleep(jittered(health.interval, entropy.hash_one(count))).await;
        }
    }

    async fn check_once(&self, index: usize, limit: Duration) {
        let header = self.config().send_proxy.map(|version| encode_header(version, None)).unwrap_or_default();
        match dial(self.server(index), &header, limit, self.own_ports()).await {
            Ok(_closed) => self.succeeded(index),
            // Nothing was learnt about the server.
            Err(error) if is_ours(&error) => {}
            Err(error) => self.check_failed(index, &error),
        }
    }
}

/// A duration from nine to eleven tenths of this one.
fn jittered(duration: Duration, entropy: u64) -> Duration {
    const STEPS: u32 = 1024;
    duration * 9 / 10 + duration / 5 / STEPS * (entropy % u64::from(STEPS + 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let (interval, millis) = (Duration::from_secs(10), Duration::from_millis(1));
        assert_eq!(jittered(interval, 0), Duration::from_secs(9));
        assert!((jittered(interval, 512).abs_diff(interval)) < millis);
        assert!(jittered(interval, 1024).abs_diff(Duration::from_secs(11)) < millis);
        assert_eq!(jittered(interval, 1025), Duration::from_secs(9));
    }
}
