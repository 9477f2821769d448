//! What follows from the numbers of one round. `None` is "was not measured", never a guess.

use crate::results::{Quantiles, Round};

/// Whether there was a flood.
pub fn has_flood(round: &Round) -> bool {
    match round.flood_rate {
        // A rate that is no number was asked for all the same.
        Some(rate) => rate > 0.0 || rate.is_nan(),
        None => !round.flood_kind.is_empty() || round.flood.sent > 0,
    }
}

/// The part of the clients that did all they should. One division, so that 999 of 1000 is 99.9 and not 99.90000000000001.
pub fn success_percent(round: &Round) -> Option<f64> {
    let clients = &round.clients;
    (clients.attempts > 0).then(|| 100.0 * clients.ok() as f64 / clients.attempts as f64)
}

/// How many clients did not do all they should.
pub fn failed(round: &Round) -> u64 {
    round.clients.attempts.saturating_sub(round.clients.ok())
}

/// Clients per second that did all they should.
pub fn connections_per_s(round: &Round) -> Option<f64> {
    per_second(round.clients.ok(), round)
}

/// Frames per second that came up to the target's queue, whether there was room in it or not.
pub fn offered_pps(round: &Round) -> Option<f64> {
    of_flood(round, per_second(round.flood.sent.saturating_add(round.flood.refused), round))
}

/// Frames per second that the target's interface took, where there was a flood.
pub fn taken_pps(round: &Round) -> Option<f64> {
    of_flood(round, received_pps(round))
}

/// Frames per second that the target sent towards the flood.
pub fn answered_pps(round: &Round) -> Option<f64> {
    of_flood(round, per_second(round.flood.replies, round))
}

/// Nanoseconds of the target's cores for each frame sent towards the flood: of who drops what it cannot answer, this shows it.
pub fn cpu_ns_per_answer(round: &Round) -> Option<f64> {
    let (frames, answers) = (round.flood.received as f64, round.flood.replies as f64);
    (answers > 0.0).then_some(cpu_ns(round)? * frames / answers)
}

fn of_flood(round: &Round, value: Option<f64>) -> Option<f64> {
    value.filter(|_| has_flood(round))
}

/// Frames per second that the target's interface received from the flood.
pub fn received_pps(round: &Round) -> Option<f64> {
    per_second(round.flood.received, round)
}

/// Bytes sent towards the flood for each byte of it.
pub fn amplification(round: &Round) -> Option<f64> {
    let (flood, some) = (&round.flood, round.flood.bytes_in > 0);
    some.then(|| flood.bytes_out as f64 / flood.bytes_in as f64)
}

/// The median of [`connect`].
pub fn connect_p50(round: &Round) -> Option<f64> {
    connect(round, |q| q.p50)
}

/// 99 % of [`connect`].
pub fn connect_p99(round: &Round) -> Option<f64> {
    connect(round, |q| q.p99)
}

/// 99.9 % of [`connect`].
pub fn connect_p999(round: &Round) -> Option<f64> {
    connect(round, |q| q.p999)
}

/// The longest of [`connect`].
pub fn connect_max(round: &Round) -> Option<f64> {
    connect(round, |q| q.max)
}

/// Nanoseconds of the target's cores for each frame received.
pub fn cpu_ns(round: &Round) -> Option<f64> {
    round.target.cpu_ns_per_frame.filter(|ns| ns.is_finite())
}

/// The most resident memory of the target.
pub fn rss_peak(round: &Round) -> Option<f64> {
    Some(round.target.rss_peak_bytes as f64)
}

/// The most half-open connections.
pub fn half_open_peak(round: &Round) -> Option<f64> {
    round.target.half_open_peak.map(|count| count as f64)
}

/// The largest part by which two of the three counts of the flood differ (of the larger of the two); `None` without a flood of
/// frames.
pub fn disagreement(round: &Round) -> Option<f64> {
    let flood = &round.flood;
    // A connection is more than one frame.
    if !has_flood(round) || flood.engine.contains("sockets") {
        return None;
    }
    let counts = [Some(flood.sent), Some(flood.received), flood.counted];
    let (least, most) = (counts.iter().flatten().min()?, counts.iter().flatten().max()?);
    Some(if *most == 0 { 0.0 } else { (most - least) as f64 / *most as f64 })
}

/// A count of the round as a rate.
fn per_second(count: u64, round: &Round) -> Option<f64> {
    (round.seconds > 0.0 && round.seconds.is_finite()).then(|| count as f64 / round.seconds)
}

/// A percentile of the time to connect in microseconds, if anybody connected.
pub fn connect(round: &Round, pick: fn(&Quantiles) -> f64) -> Option<f64> {
    percentile(&round.clients.connect_us, pick)
}

/// The same of the time until the last byte was there.
pub fn whole(round: &Round, pick: fn(&Quantiles) -> f64) -> Option<f64> {
    percentile(&round.clients.total_us, pick)
}

fn percentile(quantiles: &Quantiles, pick: fn(&Quantiles) -> f64) -> Option<f64> {
    (quantiles.count > 0).then(|| pick(quantiles)).filter(|micros| micros.is_finite())
}
