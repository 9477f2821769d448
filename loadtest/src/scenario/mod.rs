//! What a scenario file says.

mod plan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::flood::{Engine, FloodKind, OptionMix, Sources};
use crate::lab::Family;
use crate::slo::Slo;
use crate::target::{Alternative, TargetConfig};
pub use plan::{Phase, RoundPlan};

/// A scenario: one question, asked of one alternative or of several.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// In tables and file names.
    pub name: String,
    /// What it asks, in a sentence or two.
    #[serde(default)]
    pub description: String,
    /// Of flood and clients.
    #[serde(default)]
    pub family: Family,
    /// How long a round lasts, of a scenario with `[flood]`.
    #[serde(default = "five")]
    pub seconds: f64,
    /// How often `compare` asks the same.
    #[serde(default = "three")]
    pub repetitions: u32,
    /// Whom `compare` asks, and `run` the first of them; all, if it is left out.
    #[serde(default = "everybody")]
    pub alternatives: Vec<Alternative>,
    /// Thresholds, which every round has to meet.
    #[serde(default)]
    pub pass: Vec<Slo>,
    /// Whose rounds have to; the others are there to be compared with. All, if it is left out.
    #[serde(default = "everybody")]
    pub judge: Vec<Alternative>,
    /// The legitimate clients.
    #[serde(default)]
    pub clients: ClientsConfig,
    /// Who listens.
    #[serde(default)]
    pub target: TargetConfig,
    /// One flood, at each of some rates, a round each.
    pub flood: Option<FloodConfig>,
    /// Or a round of several stages, one after the other.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// The legitimate clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClientsConfig {
    /// Connections per second.
    pub rate: f64,
    /// Bytes of request and answer.
    pub bytes: usize,
    /// How long one may take, in seconds.
    pub deadline_seconds: f64,
    /// Whether their kernel offers timestamps (`net.ipv4.tcp_timestamps`).
    pub timestamps: bool,
}

/// A flood.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FloodConfig {
    /// What it is made of.
    pub kind: FloodKind,
    /// Where it claims to come from.
    #[serde(default = "random")]
    pub sources: Sources,
    /// The options of its SYNs.
    #[serde(default = "mixed")]
    pub options: OptionMix,
    /// What makes it.
    #[serde(default = "auto")]
    pub engine: Engine,
    /// Frames (or connections) per second, a round each; 0 is a round without a flood. For a flood of a stage: one.
    pub rates: Vec<Rate>,
    /// The same seed gives the same frames.
    #[serde(default = "one")]
    pub seed: u64,
}

/// A part of a round.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stage {
    /// How long it lasts.
    pub seconds: f64,
    /// What runs meanwhile, at the first rate of each.
    #[serde(default)]
    pub floods: Vec<FloodConfig>,
}

/// A rate: a number, or `"max"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub Option<f64>);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of frames per second, 0 or more, or \"max\"")]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(rate) if rate >= 0.0 && rate.is_finite() => Ok(Rate(Some(rate))),
            Written::Word(word) if word == "max" => Ok(Rate(None)),
            _ => Err(serde::de::Error::custom("a rate is a number of frames per second, 0 or more, or \"max\"")),
        }
    }
}

impl Default for ClientsConfig {
    fn default() -> ClientsConfig {
        ClientsConfig { rate: 200.0, bytes: 1000, deadline_seconds: 5.0, timestamps: true }
    }
}

fn five() -> f64 {
    5.0
}

fn three() -> u32 {
    3
}

fn one() -> u64 {
    1
}

fn everybody() -> Vec<Alternative> {
    Alternative::ALL.to_vec()
}

fn random() -> Sources {
    Sources::Random
}

fn mixed() -> OptionMix {
    OptionMix::Mixed
}

fn auto() -> Engine {
    Engine::Auto
}

/// So that the name of a plot, which has more in it, is still one for a file.
const NAME_MAX: usize = 64;
/// What Portcullis takes at most (`--half-open`).
const HALF_OPEN_MAX: u64 = 4_194_304;
/// More than any machine sends.
const RATE_MAX: f64 = 1e9;

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// As it was given.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not a scenario.
    #[error("{path}: {why}")]
    Wrong {
        /// As it was given.
        path: String,
        /// With line and column where there is one, and what is legal.
        why: String,
    },
}

impl Scenario {
    /// Reads a file. A path that leads nowhere from here is tried from the lab's own directory, where the scenarios are that come
    /// with it.
    ///
    /// # Errors
    /// When there is none, and when it is no scenario.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        let named = path.display().to_string();
        let text = std::fs::read_to_string(found(path))
            .map_err(|error| ScenarioError::Unreadable { path: named.clone(), error })?;
        Scenario::parse(&text).map_err(|why| ScenarioError::Wrong { path: named, why })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong, where, and what is legal.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let positive = |key: &str, value: f64, most: f64| {
            let legal = value > 0.0 && value <= most;
            if legal { Ok(()) } else { Err(format!("{key} = {value}: legal is more than 0, and at most {most}")) }
        };
        positive("seconds", self.seconds, 3600.0)?;
        positive("clients.deadline-seconds", self.clients.deadline_seconds, 600.0)?;
        positive("clients.rate", self.clients.rate, 100_000.0)?;
        if self.clients.bytes == 0 || self.clients.bytes > 16 << 20 {
            return Err(format!("clients.bytes = {}: legal is 1 to 16777216", self.clients.bytes));
        }
        if self.name.is_empty() || self.name.len() > NAME_MAX {
            return Err(format!(
                "name = {:?}: legal are 1 to {NAME_MAX} bytes, which are part of file names",
                self.name
            ));
        }
        // Each client of a second has its request and its answer in memory, at both ends.
        positive("clients.rate times clients.bytes", self.clients.rate * self.clients.bytes as f64, 1e9)?;
        let within = |key: &str, value: u64, least: u64, most: u64| {
            let legal = (least..=most).contains(&value);
            if legal { Ok(()) } else { Err(format!("{key} = {value}: legal is {least} to {most}")) }
        };
        // The kernel keeps somaxconn as a signed number.
        within("target.backlog", self.target.backlog.into(), 1, i32::MAX as u64)?;
        within("target.half-open", self.target.half_open as u64, 1, HALF_OPEN_MAX)?;
        let floods = self.flood.iter().chain(self.stages.iter().flat_map(|stage| &stage.floods));
        for Rate(rate) in floods.flat_map(|flood| &flood.rates) {
            if rate.is_some_and(|rate| rate > RATE_MAX) {
                return Err(format!("rates = {}: legal is 0 to {RATE_MAX:e}, or \"max\"", rate.unwrap_or_default()));
            }
        }
        if self.repetitions == 0 || self.alternatives.is_empty() {
            return Err("repetitions and alternatives: at least one of each".into());
        }
        match (&self.flood, self.stages.is_empty()) {
            (Some(_), false) => return Err("either [flood] or [[stages]], not both".into()),
            (None, true) => return Err("neither [flood] nor [[stages]]: a round without a flood is rates = [0]".into()),
            (Some(flood), true) if flood.rates.is_empty() => return Err("flood.rates: at least one".into()),
            _ => {}
        }
        for stage in &self.stages {
            positive("stages.seconds", stage.seconds, 3600.0)?;
            if stage.floods.iter().any(|flood| flood.rates.len() != 1) {
                return Err("stages.floods.rates: exactly one for a flood of a stage".into());
            }
        }
        Ok(())
    }
}

fn found(path: &Path) -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if !path.exists() && ours.exists() { ours } else { path.to_owned() }
}

/// The files that these arguments name; `scenarios/*.toml` that the shell found nowhere is looked for in the lab's directory.
pub fn expand(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in paths {
        let matches = matching(path);
        if matches.is_empty() {
            all.push(path.clone());
        }
        all.extend(matches);
    }
    all
}

/// Those that end as the pattern does, if its last part begins with a star.
fn matching(path: &Path) -> Vec<PathBuf> {
    let Some(ending) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('*')) else { return Vec::new() };
    let directory = found(path.parent().unwrap_or(Path::new("")));
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|file| file.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}
