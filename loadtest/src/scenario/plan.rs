//! From a scenario to its rounds.

use std::net::SocketAddr;

use clap::ValueEnum;

use super::{FloodConfig, Rate, Scenario};
use crate::flood::FloodSpec;
use crate::lab::Plan;
use crate::target::Alternative;

/// One round to be run.
#[derive(Clone, Debug)]
pub struct RoundPlan {
    /// Who listens.
    pub alternative: Alternative,
    /// From 0.
    pub repetition: u32,
    /// The kinds of its floods, joined by `+`; empty without one.
    pub flood_kind: String,
    /// The rate all of them ask for together, as in [`Round`](crate::results::Round).
    pub flood_rate: Option<f64>,
    /// One after the other.
    pub phases: Vec<Phase>,
}

/// A part of a round.
#[derive(Clone, Debug)]
pub struct Phase {
    /// How long.
    pub seconds: f64,
    /// All at once.
    pub floods: Vec<FloodSpec>,
}

impl Scenario {
    /// One round for each rate, or the one that its stages make.
    pub fn rounds(&self, alternative: Alternative, repetition: u32) -> Vec<RoundPlan> {
        let target = Plan::of(self.family).server;
        let Some(flood) = &self.flood else {
            let phases = self.stages.iter().map(|stage| {
                let floods = stage.floods.iter().flat_map(|flood| spec(flood, flood.rates[0], target));
                Phase { seconds: stage.seconds, floods: floods.collect() }
            });
            return vec![round(alternative, repetition, phases.collect())];
        };
        let phases = |rate: &Rate| {
            let floods = spec(flood, *rate, target).into_iter().collect();
            vec![Phase { seconds: self.seconds, floods }]
        };
        flood.rates.iter().map(|rate| round(alternative, repetition, phases(rate))).collect()
    }
}

fn spec(flood: &FloodConfig, Rate(rate): Rate, target: SocketAddr) -> Option<FloodSpec> {
    let FloodConfig { kind, sources, options, engine, seed, .. } = *flood;
    (rate != Some(0.0)).then_some(FloodSpec { kind, sources, options, engine, rate, seed, target })
}

fn round(alternative: Alternative, repetition: u32, phases: Vec<Phase>) -> RoundPlan {
    let floods = || phases.iter().flat_map(|phase| &phase.floods);
    let name = |flood: &FloodSpec| flood.kind.to_possible_value().map(|value| value.get_name().to_owned());
    let mut kinds: Vec<String> = floods().filter_map(name).collect();
    kinds.dedup();
    let flood_kind = kinds.join("+");
    let of_phase = |phase: &Phase| phase.floods.iter().map(|flood| flood.rate).sum::<Option<f64>>();
    // Of stages, the fiercest.
    let flood_rate = phases.iter().map(of_phase).collect::<Option<Vec<f64>>>();
    let flood_rate = flood_rate.map(|rates| rates.into_iter().fold(0.0, f64::max));
    RoundPlan { alternative, repetition, flood_kind, flood_rate, phases }
}
