//! What a threshold can be about.

use crate::report::measure;
use crate::results::Round;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// The part of the clients that did all they should, in per cent.
    Success,
    /// The time to connect that half of those who connected needed at most.
    P50,
    /// That 90 % needed at most.
    P90,
    /// That 99 % needed at most.
    P99,
    /// That 99.9 % needed at most; also written `p99.9`.
    P999,
    /// The longest.
    Max,
    /// Connections per second that did all they should.
    Connections,
    /// Bytes the target sent towards the flood for each byte of it.
    Amplification,
    /// The most resident memory of the target.
    Rss,
    /// Time of the target's cores for each frame of the flood.
    Cpu,
    /// From the first frame of the flood to cookies alone.
    SwitchIn,
    /// From the last frame of the flood to entries again.
    SwitchOut,
    /// How many clients did not do all they should.
    Failed,
}

/// A unit, and how many of the metric's native unit it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    /// As it is written; empty for a plain number.
    pub(super) word: &'static str,
    /// Values are divided by this before they are compared, so that `99.9` found equals `99.9` written.
    pub(super) size: f64,
}

/// What a round says about a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found {
    /// In the metric's native unit.
    Value(f64),
    /// The metric is about the flood, and there was none.
    NoFlood,
    /// It should be there and is not.
    NotMeasured,
}

impl Metric {
    /// All of them, as an error lists them.
    pub(super) const ALL: [Self; 13] = [
        Self::Success,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Max,
        Self::Connections,
        Self::Amplification,
        Self::Rss,
        Self::Cpu,
        Self::SwitchIn,
        Self::SwitchOut,
        Self::Failed,
    ];

    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p999",
            Self::Max => "max",
            Self::Connections => "connections",
            Self::Amplification => "amplification",
            Self::Rss => "rss",
            Self::Cpu => "cpu",
            Self::SwitchIn => "switch-in",
            Self::SwitchOut => "switch-out",
            Self::Failed => "failed",
        }
    }

    /// The metric of that name.
    pub(super) fn named(word: &str) -> Option<Self> {
        let word = if word == "p99.9" { "p999" } else { word };
        Self::ALL.into_iter().find(|metric| metric.word() == word)
    }

    /// Its units. The native one has size 1.
    pub(super) fn units(self) -> &'static [Unit] {
        match self {
            Self::Success => &PERCENT,
            Self::P50 | Self::P90 | Self::P99 | Self::P999 | Self::Max => &TIMES,
            Self::Connections => &RATES,
            Self::Amplification | Self::Failed => &PLAIN,
            Self::Rss => &SIZES,
            Self::Cpu => &NANOSECONDS,
            Self::SwitchIn | Self::SwitchOut => &MILLISECONDS,
        }
    }

    /// What a round says about it.
    pub(super) fn measure(self, round: &Round) -> Found {
        if self.is_about_flood() && !measure::has_flood(round) {
            return Found::NoFlood;
        }
        match self.value(round).filter(|value| value.is_finite()) {
            Some(value) => Found::Value(value),
            None => Found::NotMeasured,
        }
    }

    /// Whether it has a meaning only while there is a flood.
    fn is_about_flood(self) -> bool {
        matches!(self, Self::Amplification | Self::Cpu | Self::SwitchIn | Self::SwitchOut)
    }

    /// The value in the native unit, where the round has one.
    fn value(self, round: &Round) -> Option<f64> {
        match self {
            Self::Success => measure::success_percent(round),
            Self::P50 => measure::connect(round, |q| q.p50),
            Self::P90 => measure::connect(round, |q| q.p90),
            Self::P99 => measure::connect(round, |q| q.p99),
            Self::P999 => measure::connect(round, |q| q.p999),
            Self::Max => measure::connect(round, |q| q.max),
            Self::Connections => measure::connections_per_s(round),
            Self::Amplification => measure::amplification(round),
            Self::Rss => Some(round.target.rss_peak_bytes as f64),
            Self::Cpu => round.target.cpu_ns_per_frame,
            Self::SwitchIn => round.target.switch_in_ms,
            Self::SwitchOut => round.target.switch_out_ms,
            Self::Failed => Some(measure::failed(round) as f64),
        }
    }
}

/// Of [`Metric::units`].
const PERCENT: [Unit; 1] = [unit("%", 1.0)];
/// Of [`Metric::units`].
const TIMES: [Unit; 3] = [unit("us", 1.0), unit("ms", 1e3), unit("s", 1e6)];
/// Of [`Metric::units`].
const RATES: [Unit; 2] = [unit("/s", 1.0), unit("", 1.0)];
/// Of [`Metric::units`].
const PLAIN: [Unit; 1] = [unit("", 1.0)];
/// Of [`Metric::units`].
const SIZES: [Unit; 4] =
    [unit("B", 1.0), unit("KiB", 1024.0), unit("MiB", 1024.0 * 1024.0), unit("GiB", 1024.0 * 1024.0 * 1024.0)];
/// Of [`Metric::units`].
const NANOSECONDS: [Unit; 1] = [unit("ns", 1.0)];
/// Of [`Metric::units`].
const MILLISECONDS: [Unit; 1] = [unit("ms", 1.0)];

/// A unit of a table.
const fn unit(word: &'static str, size: f64) -> Unit {
    Unit { word, size }
}
