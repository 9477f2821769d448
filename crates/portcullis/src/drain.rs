//! When nothing more can come after a listener has stopped to answer SYNs.

use std::time::Duration;

use listener::Counter;
use listener::io::EngineView;
use tokio::time::{Instant, sleep};

/// A client whose SYN was answered by a cookie alone completes within a round trip, and we do not know whether it will:
/// this is how long it may take.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// A half-open entry may wait for a client whose SYN-ACK was lost; under a flood, nearly all wait for nobody. This is long
/// enough for the first retransmission and its answer.
const HALF_OPEN_WAIT_MAX: Duration = Duration::from_secs(3);

/// How often to look. The workers publish their counts faster.
const LOOK: Duration = Duration::from_millis(20);

/// Returns when no handshake is under way any more, or has taken too long since the drain `began`.
pub(crate) async fn handshakes_settled(view: &EngineView, began: Instant) {
    loop {
        sleep(LOOK).await;
        let cookies_pending = began.elapsed() < ROUND_TRIP_MAX && cookies_outstanding(view);
        let entries_pending = began.elapsed() < HALF_OPEN_WAIT_MAX && view.half_open() > 0;
        if !cookies_pending && !entries_pending {
            return;
        }
    }
}

/// Returns when every handshake that ends from now on is the next process's, and those that had ended are in the accept queue.
pub(crate) async fn handed_on(began: Instant, hands_on: impl Fn() -> bool) {
    let mut said = false;
    // One look more: programs that began before they were told have ended, and the runtime has heard of what they accepted.
    while !said && began.elapsed() < HALF_OPEN_WAIT_MAX {
        said = hands_on();
        sleep(LOOK).await;
    }
}

/// Whether a cookie was ever sent that did not come back. After a flood that stays so, which costs a second, no more.
fn cookies_outstanding(view: &EngineView) -> bool {
    let stats = view.stats();
    stats.get(Counter::CookiesSent) > stats.get(Counter::HandshakesByCookie)
}
