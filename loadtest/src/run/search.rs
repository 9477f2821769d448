//! The highest flood rate at which something still holds.

use super::{Keep, Outcome, Progress, RunError, Setting, run_round};
use crate::results::{Round, ScenarioResults};
use crate::scenario::{Rate, Scenario};
use crate::slo::Slo;
use crate::target::Alternative;

/// The search ends when the rates that hold and fail are no farther apart than this.
const NEAR_ENOUGH: f64 = 1.1;

/// What is searched.
#[derive(Clone, Debug)]
pub struct Search {
    /// Who listens.
    pub alternative: Alternative,
    /// What has to hold.
    pub slo: Slo,
    /// The first rate that is tried.
    pub from: f64,
    /// And the last one.
    pub to: f64,
}

/// Doubles the rate until it fails or the generator can no more, then halves the distance. Gives the highest rate that held, `None` if not
/// even the first one did, and all rounds with what ended them early.
pub fn search(
    search: &Search,
    scenario: &Scenario,
    setting: &Setting,
    progress: &mut Progress,
    keep: &mut Keep<'_>,
) -> (Option<f64>, Outcome) {
    let (mut rounds, mut stopped) = (Vec::new(), None);
    let mut interval = Interval { holds: None, fails: None };
    while let Some(rate) = interval.next(search.from, search.to) {
        let round = match at_rate(rate, search, scenario, setting, progress, rounds.len()) {
            Ok(round) => round,
            Err(error) => {
                stopped = Some(error);
                break;
            }
        };
        let holds = round.checks.iter().all(|check| check.passed);
        let limited = round.flood.generator_limited;
        progress.say(&format!(
            "{rate:>12.0}/s  {}  {}",
            if holds { "holds" } else { "fails" },
            round.checks.iter().map(|check| check.found.as_str()).collect::<Vec<_>>().join(", ")
        ));
        interval.learn(rate, holds);
        let sent = round.flood.sent as f64 / round.seconds;
        rounds.push(round);
        if let Err(error) = keep(&results(search, scenario, rounds.clone())) {
            stopped = Some(error.into());
            break;
        }
        if limited && holds {
            progress.say(&format!("{sent:>12.0}/s  is all the generator can: the target's limit lies beyond"));
            interval.holds = Some(sent);
            break;
        }
    }
    progress.end();
    (interval.holds, Outcome { results: results(search, scenario, rounds), stopped })
}

fn results(search: &Search, scenario: &Scenario, rounds: Vec<Round>) -> ScenarioResults {
    ScenarioResults {
        name: format!("{}-search", scenario.name),
        description: format!("The highest rate at which {} holds.", search.slo),
        pass: vec![search.slo.to_string()],
        rounds,
    }
}

fn at_rate(
    rate: f64,
    search: &Search,
    scenario: &Scenario,
    setting: &Setting,
    progress: &mut Progress,
    number: usize,
) -> Result<Round, RunError> {
    let mut scenario = scenario.clone();
    scenario.pass = vec![search.slo.clone()];
    scenario.judge = vec![search.alternative];
    if let Some(flood) = &mut scenario.flood {
        flood.rates = vec![Rate(Some(rate))];
    }
    let plan = scenario.rounds(search.alternative, 0).remove(0);
    progress.begin(number + 1, number + 1, &format!("{} {rate:.0}/s", search.alternative));
    run_round(&plan, &scenario, setting, progress)
}

/// The highest rate that held, the lowest that failed.
#[derive(Debug)]
struct Interval {
    holds: Option<f64>,
    fails: Option<f64>,
}

impl Interval {
    fn next(&self, from: f64, to: f64) -> Option<f64> {
        match (self.holds, self.fails) {
            (None, None) => Some(from),
            (None, Some(_)) => None,
            (Some(holds), None) => (holds < to).then_some((2.0 * holds).min(to)),
            (Some(holds), Some(fails)) => (fails / holds > NEAR_ENOUGH).then(|| (holds * fails).sqrt()),
        }
    }

    fn learn(&mut self, rate: f64, held: bool) {
        if held {
            self.holds = Some(rate);
        } else {
            self.fails = Some(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_found() {
        for limit in [1.0, 1_000.0, 12_345.0, 99_000.0] {
            let mut interval = Interval { holds: None, fails: None };
            let mut steps = 0;
            while let Some(rate) = interval.next(1_000.0, 100_000.0) {
                interval.learn(rate, rate <= limit);
                steps += 1;
                assert!(steps < 30);
            }
            match interval.holds {
                Some(found) => assert!(found <= limit && (limit / found <= NEAR_ENOUGH), "{found} of {limit}"),
                None => assert!(limit < 1_000.0),
            }
        }
    }

    #[test]
    fn what_always_holds_ends_at_the_last_rate() {
        let mut interval = Interval { holds: None, fails: None };
        while let Some(rate) = interval.next(1_000.0, 5_000.0) {
            interval.learn(rate, true);
        }
        assert_eq!(interval.holds, Some(5_000.0));
    }
}
