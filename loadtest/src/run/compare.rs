//! All rounds of some scenarios, interleaved.

use std::collections::VecDeque;

use super::{Keep, Progress, RunError, Setting, run_round};
use crate::results::ScenarioResults;
use crate::scenario::{RoundPlan, Scenario};
use crate::target::{Alternative, TargetError};

/// What the command line changes in a scenario.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// These alternatives instead.
    pub alternatives: Vec<Alternative>,
    /// So many repetitions instead.
    pub repetitions: Option<u32>,
}

/// The rounds of a scenario, and what ended them early.
#[derive(Debug)]
pub struct Outcome {
    /// Of all rounds that came to their end.
    pub results: ScenarioResults,
    /// Why there are no more.
    pub stopped: Option<RunError>,
}

/// What an alternative that cannot be had here means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The end.
    Fails,
    /// The others go on without it, which is said.
    IsLeftOut,
}

/// Asks the scenario's first alternative once.
pub fn run(
    scenario: &Scenario,
    asked: &Asked,
    setting: &Setting,
    progress: &mut Progress,
    keep: &mut Keep<'_>,
) -> Outcome {
    let first = asked.alternatives.first().unwrap_or(&scenario.alternatives[0]);
    let plans = (0..asked.repetitions.unwrap_or(1)).flat_map(|repetition| scenario.rounds(*first, repetition));
    ask(scenario, plans.collect(), Missing::Fails, setting, progress, keep)
}

/// Asks all of them, as often as the scenario says, each rate one after the other by all alternatives: what drifts on the machine
/// drifts for all of them. Who cannot be had is left out, which is said.
pub fn compare(
    scenario: &Scenario,
    asked: &Asked,
    setting: &Setting,
    progress: &mut Progress,
    keep: &mut Keep<'_>,
) -> Outcome {
    ask(scenario, interleaved(scenario, asked), Missing::IsLeftOut, setting, progress, keep)
}

fn ask(
    scenario: &Scenario,
    mut plans: VecDeque<RoundPlan>,
    missing: Missing,
    setting: &Setting,
    progress: &mut Progress,
    keep: &mut Keep<'_>,
) -> Outcome {
    let (mut rounds, mut stopped) = (Vec::new(), None);
    let (mut number, all) = (0, plans.len());
    while let Some(plan) = plans.pop_front() {
        number += 1;
        progress.begin(number, all, &title(scenario, &plan));
        let kept = run_round(&plan, scenario, setting, progress).and_then(|round| {
            rounds.push(round);
            Ok(keep(&results(scenario, rounds.clone()))?)
        });
        match kept {
            Ok(()) => {}
            Err(error) if missing == Missing::IsLeftOut && is_of_the_alternative(&error) => {
                progress.say(&error.to_string());
                plans.retain(|other| other.alternative != plan.alternative);
            }
            Err(error) => {
                stopped = Some(error);
                break;
            }
        }
    }
    progress.end();
    Outcome { results: results(scenario, rounds), stopped }
}

/// Whether others can still be asked.
fn is_of_the_alternative(error: &RunError) -> bool {
    matches!(error, RunError::Target(TargetError::NotInstalled { .. } | TargetError::DoesNotServe { .. }))
}

fn interleaved(scenario: &Scenario, asked: &Asked) -> VecDeque<RoundPlan> {
    let alternatives = if asked.alternatives.is_empty() { &scenario.alternatives } else { &asked.alternatives };
    let repetitions = asked.repetitions.unwrap_or(scenario.repetitions);
    let mut plans = VecDeque::new();
    for repetition in 0..repetitions {
        let each: Vec<Vec<RoundPlan>> = (0..alternatives.len())
            .map(|step| (step + repetition as usize) % alternatives.len()) // Nobody is always the first.
            .map(|index| scenario.rounds(alternatives[index], repetition))
            .collect();
        let rates = each.first().map_or(0, Vec::len);
        plans.extend((0..rates).flat_map(|rate| each.iter().map(move |rounds| rounds[rate].clone())));
    }
    plans
}

fn results(scenario: &Scenario, rounds: Vec<crate::results::Round>) -> ScenarioResults {
    ScenarioResults {
        name: scenario.name.clone(),
        description: scenario.description.clone(),
        pass: scenario.pass.iter().map(ToString::to_string).collect(),
        rounds,
    }
}

fn title(scenario: &Scenario, plan: &RoundPlan) -> String {
    let rate = match plan.flood_rate {
        None => "as fast as it can".to_owned(),
        Some(0.0) => "no flood".to_owned(),
        Some(rate) => format!("{rate:.0}/s"),
    };
    format!("{} {} {rate}", scenario.name, plan.alternative)
}
