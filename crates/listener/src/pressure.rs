//! When to keep half-open entries and when to answer by cookie alone: two watermarks with hysteresis.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::cookie::COOKIE_LIFETIME;
use crate::time::Time;

/// How a listener answers SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Calm: an entry for each half-open connection, whose ISN is a cookie all the same.
    Queue,
    /// Pressure: no new entries; the cookie is all there is.
    Cookies,
}

/// Where a listener turns from [`Mode::Queue`] to [`Mode::Cookies`] and may turn back, in half-open entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// With so many entries it turns to cookies.
    pub high: u64,
    /// With more than so many it does not turn back.
    pub low: u64,
}

/// The mode of one listener, shared by its workers.
///
/// It turns to [`Mode::Cookies`] as soon as the queue reaches the high watermark. It turns back when the queue is at or
/// below the low one *and* the SYNs of the last second that nobody completed would, at that rate, not fill it up again.
/// Without the second condition a flood would switch the mode each time the entries it left behind expire.
#[derive(Debug)]
pub(crate) struct Pressure {
    high: u64,
    low: u64,
    /// How long an entry nobody completes stays in the queue.
    entry_lifetime: Duration,
    half_open: AtomicU64,
    cookies: AtomicBool,
    /// SYNs answered minus handshakes completed, since the last look.
    unanswered: AtomicI64,
    /// Nanoseconds of the last moment a SYN-ACK without an entry was sent; 0: never.
    cookie_sent: AtomicU64,
    started: Time,
}

impl Pressure {
    pub(crate) fn new(high: usize, low: usize, entry_lifetime: Duration, now: Time) -> Pressure {
        Pressure {
            high: high as u64,
            low: low.min(high.saturating_sub(1)) as u64,
            entry_lifetime,
            half_open: AtomicU64::new(0),
            cookies: AtomicBool::new(false),
            unanswered: AtomicI64::new(0),
            cookie_sent: AtomicU64::new(0),
            started: now,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.cookies.load(Ordering::Relaxed) { Mode::Cookies } else { Mode::Queue }
    }

    /// From how many entries on cookies are all there is, and at how many that may end.
    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks { high: self.high, low: self.low }
    }

    /// Half-open entries of all workers.
    pub(crate) fn half_open(&self) -> u64 {
        self.half_open.load(Ordering::Relaxed)
    }

    /// An entry was made. `Some` for the one caller whose entry turned the mode.
    pub(crate) fn entered(&self) -> Option<Mode> {
        let entries = self.half_open.fetch_add(1, Ordering::Relaxed) + 1;
        let turned = entries >= self.high && !self.cookies.swap(true, Ordering::Relaxed);
        turned.then_some(Mode::Cookies)
    }

    /// `entries` entries were removed.
    pub(crate) fn left(&self, entries: u64) {
        self.half_open.fetch_sub(entries, Ordering::Relaxed);
    }

    /// A worker's account since its last: SYNs it answered less handshakes that were completed, be it of earlier SYNs.
    pub(crate) fn report_unanswered(&self, syns: i64) {
        self.unanswered.fetch_add(syns, Ordering::Relaxed);
    }

    /// Called by one worker, once a second: turns the mode back if all is calm.
    pub(crate) fn review(&self, second: Duration) -> Option<Mode> {
        self.judge(self.steady(second))
    }

    /// The same, and turns to cookies when the SYNs that nobody completes would fill the queue many times over.
    pub(crate) fn review_or_turn(&self, second: Duration) -> Option<Mode> {
        const MANY: f64 = 8.0;
        let steady = self.steady(second);
        if steady < MANY * self.high as f64 {
            return self.judge(steady);
        }
        (!self.cookies.swap(true, Ordering::Relaxed)).then_some(Mode::Cookies)
    }

    /// Entries there would be, if all SYNs were kept that nobody has completed lately.
    fn steady(&self, second: Duration) -> f64 {
        let unanswered = self.unanswered.swap(0, Ordering::Relaxed).max(0) as f64;
        unanswered * self.entry_lifetime.as_secs_f64() / second.as_secs_f64().max(0.001)
    }

    fn judge(&self, steady: f64) -> Option<Mode> {
        let calm = self.half_open() <= self.low && steady < (self.high - self.low).max(1) as f64;
        let turned = calm && self.cookies.swap(false, Ordering::Relaxed);
        turned.then_some(Mode::Queue)
    }

    /// A SYN-ACK went out that no entry stands for.
    pub(crate) fn cookie_sent(&self, now: Time) {
        let last = self.cookie_sent.load(Ordering::Relaxed);
        // Once a millisecond is exact enough, and keeps the cache line quiet under a flood.
        if now.as_nanos().saturating_sub(last) > 1_000_000 || last == 0 {
            self.cookie_sent.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
    }

    /// Whether a cookie of ours without an entry may be outstanding: one was sent within a cookie's lifetime, or this
    /// process is younger than that and its predecessor may have sent one.
    pub(crate) fn cookies_outstanding(&self, now: Time) -> bool {
        let last = self.cookie_sent.load(Ordering::Relaxed);
        let lately = last != 0 && now.since(Time::from_nanos(last)) <= COOKIE_LIFETIME;
        lately || now.since(self.started) <= COOKIE_LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pressure() -> Pressure {
        Pressure::new(10, 4, Duration::from_secs(15), Time::from_secs(1))
    }

    #[test]
    fn high_watermark_turns_to_cookies_once() {
        let pressure = pressure();
        let turns: Vec<_> = (0..12).filter_map(|_| pressure.entered()).collect();
        assert_eq!(turns, [Mode::Cookies]);
        assert_eq!((pressure.mode(), pressure.half_open()), (Mode::Cookies, 12));
    }

    #[test]
    fn between_the_watermarks_the_mode_stays() {
        let pressure = pressure();
        for _ in 0..10 {
            pressure.entered();
        }
        pressure.left(5);
        assert_eq!(pressure.review(SECOND), None);
        assert_eq!(pressure.mode(), Mode::Cookies);
        pressure.left(1);
        assert_eq!(pressure.review(SECOND), Some(Mode::Queue));
        assert_eq!(pressure.review(SECOND), None);
    }

    #[test]
    fn an_ongoing_flood_keeps_cookies_on_though_the_queue_is_empty() {
        let pressure = pressure();
        for _ in 0..10 {
            pressure.entered();
        }
        pressure.left(10);
        pressure.report_unanswered(1000);
        assert_eq!(pressure.review(SECOND), None);
        assert_eq!(pressure.review(SECOND), Some(Mode::Queue));
    }

    #[test]
    fn cookies_are_outstanding_when_young_and_after_one_was_sent() {
        let pressure = pressure();
        assert!(pressure.cookies_outstanding(Time::from_secs(2)));
        let later = Time::from_secs(1000);
        assert!(!pressure.cookies_outstanding(later));
        pressure.cookie_sent(later);
        assert!(pressure.cookies_outstanding(later + COOKIE_LIFETIME));
        assert!(!pressure.cookies_outstanding(later + COOKIE_LIFETIME + SECOND));
    }
}
