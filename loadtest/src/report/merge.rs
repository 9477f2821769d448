//! Several files as one, to be shown in the same plots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::results::{FORMAT, Machine, Results, Round, ScenarioResults};

/// Puts the rounds of scenarios of the same name together, in the order of the files.
///
/// An alternative that several files have in the same scenario is told apart by the file: `haproxy (before)`. Where it ran is
/// taken from the first file; another machine is named among the placement.
pub fn merge(files: Vec<(PathBuf, Results)>) -> Results {
    let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
    let mut all: Vec<Results> = files.into_iter().map(|(_, results)| results).collect();
    if all.len() > 1 {
        tell_apart(&mut all, &labels(&paths));
    }
    let mut rest = all.into_iter();
    let mut merged = rest.next().unwrap_or_else(nothing);
    rest.for_each(|other| add(&mut merged, other));
    merged
}

/// What no file at all has.
fn nothing() -> Results {
    let machine =
        Machine { kernel: String::new(), cpu: String::new(), cores: 0, memory_bytes: 0, placement: Vec::new() };
    Results {
        format: FORMAT,
        command: String::new(),
        started_unix: 0,
        machine,
        scenarios: Vec::new(),
        relay: Vec::new(),
    }
}

/// Adds one file to those before.
fn add(merged: &mut Results, other: Results) {
    merged.command = format!("{}\n{}", merged.command, other.command);
    merged.started_unix = merged.started_unix.min(other.started_unix);
    add_machine(&mut merged.machine, other.machine);
    merged.relay.extend(other.relay);
    for scenario in other.scenarios {
        match merged.scenarios.iter_mut().find(|known| known.name == scenario.name) {
            Some(known) => add_scenario(known, scenario),
            None => merged.scenarios.push(scenario),
        }
    }
}

/// Adds what another file says about where it ran.
fn add_machine(merged: &mut Machine, other: Machine) {
    if (&merged.kernel, &merged.cpu, merged.cores) != (&other.kernel, &other.cpu, other.cores) {
        merged.placement.push(format!("Another machine too: {}, {} cores, {}.", other.cpu, other.cores, other.kernel));
    }
    add_new(&mut merged.placement, other.placement);
}

/// Adds the rounds of the same scenario.
fn add_scenario(known: &mut ScenarioResults, other: ScenarioResults) {
    add_new(&mut known.pass, other.pass);
    known.rounds.extend(other.rounds);
}

/// Adds the sentences that are not there yet.
fn add_new(known: &mut Vec<String>, other: Vec<String>) {
    let new: Vec<String> = other.into_iter().filter(|sentence| !known.contains(sentence)).collect();
    known.extend(new);
}

/// Adds the file's label to the names of alternatives that are in several files.
fn tell_apart(all: &mut [Results], labels: &[String]) {
    let shared = shared_names(all);
    for (results, label) in all.iter_mut().zip(labels) {
        for scenario in &mut results.scenarios {
            let name = scenario.name.clone();
            let is_shared = |round: &&mut Round| shared.contains(&(name.clone(), round.alternative.clone()));
            scenario.rounds.iter_mut().filter(is_shared).for_each(|round| round.alternative += &format!(" ({label})"));
        }
    }
}

/// Scenario and alternative of which more than one file has rounds.
fn shared_names(all: &[Results]) -> BTreeSet<(String, String)> {
    let mut files: BTreeMap<(String, String), usize> = BTreeMap::new();
    for results in all {
        let rounds = |scenario: &ScenarioResults| {
            let names = scenario.rounds.iter().map(|round| (scenario.name.clone(), round.alternative.clone()));
            names.collect::<Vec<_>>()
        };
        let names: BTreeSet<_> = results.scenarios.iter().flat_map(rounds).collect();
        names.into_iter().for_each(|name| *files.entry(name).or_default() += 1);
    }
    files.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect()
}

/// The shortest names that tell files apart: the name, then the directory (most are called `run.json`), then the whole path, and
/// for the same path twice a number.
fn labels(paths: &[PathBuf]) -> Vec<String> {
    let whole = |path: &Path| path.display().to_string();
    let kinds: [&dyn Fn(&Path) -> String; 3] = [&file_name, &directory, &whole];
    for kind in kinds {
        let labels: Vec<String> = paths.iter().map(|path| kind(path)).collect();
        if labels.iter().collect::<BTreeSet<_>>().len() == labels.len() && labels.iter().all(|label| !label.is_empty())
        {
            return labels;
        }
    }
    paths.iter().enumerate().map(|(i, path)| format!("{} #{}", path.display(), i + 1)).collect()
}

/// `before` of `out/before.json`.
fn file_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// `before` of `out/before/run.json`.
fn directory(path: &Path) -> String {
    path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
}
