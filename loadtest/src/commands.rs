//! What each command does.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::{ClientsArgs, Command, FloodArgs, LabArgs, Output, RelayArgs, ReportArgs, RunArgs, SearchArgs};
use crate::clients::{ClientSpec, Clients};
use crate::flood::{self, Flood, FloodError, FloodSpec};
use crate::lab::{Cores, Family, Lab, Plan, SCRATCH, loopback_takes_frames, permit_clients, place_here, seclude};
use crate::relay::{self, RelaySpec};
use crate::report;
use crate::results::{FORMAT, RelayRound, Results, ScenarioResults};
use crate::run::{self, Asked, Keep, Outcome, Progress, RunError, Search, Setting};
use crate::scenario::{Scenario, ScenarioError, expand};
use crate::target::{Alternative, Binary, Target, TargetConfig};

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every threshold holds, or there is none.
    Passed,
    /// One does not.
    Failed,
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or a scenario.
    #[error("{0}")]
    Usage(String),
    /// Rights, or a program that is not there.
    #[error("{0}")]
    Missing(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Missing(_) => 77,
            Failure::Other(_) => 70,
        }
    }

    fn other(error: impl ToString) -> Failure {
        Failure::Other(error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        match error {
            RunError::Scenario(error) => Failure::Usage(error.to_string()),
            RunError::Target(error) => Failure::Missing(error.to_string()),
            RunError::Flood(error @ FloodError::NoEbpf(_)) => Failure::Missing(error.to_string()),
            error => Failure::other(error),
        }
    }
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Does it.
///
/// # Errors
/// See [`Failure`].
pub fn execute(command: Command) -> Result<Verdict, Failure> {
    match command {
        Command::Run(args) => {
            if let [_, second, ..] = args.alternatives[..] {
                let message = format!("--alternatives: run asks one, and {second} is the second; compare asks several");
                return Err(Failure::Usage(message));
            }
            rounds(&args, run::run)
        }
        Command::Compare(args) => rounds(&args, run::compare),
        Command::Relay(args) => relay(args),
        Command::Search(args) => search(&args),
        Command::Flood(args) => flood(&args),
        Command::Clients(args) => clients(&args),
        Command::Report(args) => report(&args),
        Command::Lab(args) => lab(&args),
    }
}

/// `run` or `compare` of one scenario.
type Ask = fn(&Scenario, &Asked, &Setting, &mut Progress, &mut Keep<'_>) -> Outcome;

fn rounds(args: &RunArgs, ask: Ask) -> Result<Verdict, Failure> {
    let mut scenarios = Vec::new();
    for file in expand(&args.scenarios) {
        let mut scenario = Scenario::load(&file)?;
        scenario.seconds = args.seconds.unwrap_or(scenario.seconds);
        scenarios.push(scenario);
    }
    named_once(&args.alternatives)?;
    let setting = set_up(&args.output)?;
    let asked = Asked { alternatives: args.alternatives.clone(), repetitions: args.repetitions };
    let mut progress = Progress::default();
    let (mut found, mut stopped) = (Vec::new(), None);
    for scenario in &scenarios {
        let outcome = {
            let mut keep = |so_far: &_| keep(&found, so_far, &setting, &args.output.out);
            ask(scenario, &asked, &setting, &mut progress, &mut keep)
        };
        found.push(outcome.results);
        stopped = outcome.stopped;
        if stopped.is_some() {
            break;
        }
    }
    match stopped {
        // Nothing was measured: no report takes the place of an older one.
        Some(error) if found.iter().all(|scenario| scenario.rounds.is_empty()) => Err(error.into()),
        // What was measured before is not lost.
        Some(error) => conclude(found, &setting, &args.output.out).and(Err(error.into())),
        None => conclude(found, &setting, &args.output.out),
    }
}

/// The same one twice would be one series with both its rounds.
fn named_once(alternatives: &[Alternative]) -> Result<(), Failure> {
    let twice = |index: &usize| alternatives[..*index].contains(&alternatives[*index]);
    match (0..alternatives.len()).find(twice) {
        Some(index) => {
            Err(Failure::Usage(format!("--alternatives: {} is named twice; legal: once", alternatives[index])))
        }
        None => Ok(()),
    }
}

/// After each round: who interrupts a run has the rounds before, and `report` makes tables and plots of them.
fn keep(before: &[ScenarioResults], so_far: &ScenarioResults, setting: &Setting, out: &Path) -> io::Result<()> {
    let scenarios = before.iter().chain([so_far]).cloned().collect();
    report::json::write(&out.join("run.json"), &results(scenarios, setting))
}

fn search(args: &SearchArgs) -> Result<Verdict, Failure> {
    named_once(&args.alternatives)?;
    if args.from > args.to {
        return Err(Failure::Usage(format!("--from {}: legal: at most --to, {}", args.from, args.to)));
    }
    let scenario = Scenario::load(&args.scenario)?;
    if scenario.flood.is_none() {
        return Err(Failure::Usage(format!("{}: a search needs a scenario with [flood]", args.scenario.display())));
    }
    let setting = set_up(&args.output)?;
    let mut progress = Progress::default();
    let (mut found, mut answers, mut verdict) = (Vec::new(), Vec::new(), Verdict::Passed);
    for &alternative in &args.alternatives {
        let search = Search { alternative, slo: args.slo.clone(), from: args.from, to: args.to };
        progress.say(&format!("{alternative}: {}", args.slo));
        let (rate, outcome) = {
            let mut keep = |so_far: &_| keep(&found, so_far, &setting, &args.output.out);
            run::search(&search, &scenario, &setting, &mut progress, &mut keep)
        };
        found.push(outcome.results);
        if let Some(error) = outcome.stopped {
            return match found.iter().all(|scenario| scenario.rounds.is_empty()) {
                true => Err(error.into()),
                false => conclude(found, &setting, &args.output.out).and(Err(error.into())),
            };
        }
        answers.push(match rate {
            Some(rate) => format!("{alternative}: holds up to {rate:.0}/s"),
            None => {
                verdict = Verdict::Failed;
                format!("{alternative}: does not even hold at {:.0}/s", args.from)
            }
        });
    }
    conclude(found, &setting, &args.output.out)?;
    say(&answers.join("\n"))?;
    Ok(verdict)
}

fn relay(args: RelayArgs) -> Result<Verdict, Failure> {
    named_once(&args.alternatives)?;
    let setting = set_up(&args.output)?;
    let spec = RelaySpec {
        alternatives: args.alternatives,
        parts: args.parts,
        repetitions: args.repetitions,
        measured: Duration::from_secs_f64(args.seconds),
        connections: args.connections,
        idle: args.idle,
    };
    let (out, mut progress) = (&args.output.out, Progress::default());
    let found = |rounds: &[RelayRound]| Results { relay: rounds.to_vec(), ..results(Vec::new(), &setting) };
    let mut keep = |so_far: &[RelayRound]| report::json::write(&out.join("run.json"), &found(so_far));
    let rounds = relay::compare(&spec, &setting, &mut progress, &mut keep)?;
    if rounds.is_empty() {
        return Err(Failure::Missing("none of the alternatives can be had: nothing was measured".to_owned()));
    }
    show(&found(&rounds), out)?;
    Ok(Verdict::Passed)
}

/// The binary first: cargo may want the network that is out of reach from then on.
fn set_up(output: &Output) -> Result<Setting, Failure> {
    let setting = setting(output.portcullis.as_deref())?;
    stays_visible("--out", &output.out)?;
    probe(&output.out).map_err(|error| Failure::Other(format!("--out {}: {error}", output.out.display())))?;
    go_into_seclusion()?;
    // Tells early what cannot be laid here, too.
    let lab = Lab::new(setting.cores.clone());
    if let Some(why) = &lab.not_apart_because {
        eprintln!(
            "the target's frames are received on the cores of who sends them, which costs the flood what is the target's: {why}"
        );
    }
    Ok(Setting { receives_apart: lab.receives_apart, ..setting })
}

fn setting(portcullis: Option<&Path>) -> Result<Setting, Failure> {
    let wrong = if portcullis.is_some() { Failure::Usage } else { Failure::Missing };
    let binary = Binary::find(portcullis).map_err(wrong)?;
    stays_visible("--portcullis", binary.path())?;
    Ok(Setting { binary, cores: Cores::share_out().map_err(Failure::other)?, receives_apart: false })
}

/// The lab has [`SCRATCH`] for itself: what others have there it does not see, and what it writes there nobody would.
fn stays_visible(flag: &str, path: &Path) -> Result<(), Failure> {
    let real = path.canonicalize().or_else(|_not_there_yet| std::path::absolute(path)).map_err(Failure::other)?;
    if real.starts_with(SCRATCH) {
        return Err(Failure::Usage(format!("{flag} {}: legal is any place but {SCRATCH}", path.display())));
    }
    Ok(())
}

fn go_into_seclusion() -> Result<(), Failure> {
    for program in ["ip", "ss"] {
        if std::process::Command::new(program).arg("-V").output().is_err() {
            return Err(Failure::Missing(format!("no `{program}` on this machine (apt-get install iproute2)")));
        }
    }
    seclude().map_err(|error| {
        Failure::Missing(format!(
            "cannot make namespaces: {error}; it takes root with CAP_SYS_ADMIN and CAP_NET_ADMIN, or user namespaces for users"
        ))
    })
}

fn conclude(scenarios: Vec<ScenarioResults>, setting: &Setting, out: &Path) -> Result<Verdict, Failure> {
    let results = results(scenarios, setting);
    show(&results, out)?;
    let mut checks = results.scenarios.iter().flat_map(|scenario| &scenario.rounds).flat_map(|round| &round.checks);
    Ok(if checks.all(|check| check.passed) { Verdict::Passed } else { Verdict::Failed })
}

fn results(scenarios: Vec<ScenarioResults>, setting: &Setting) -> Results {
    Results {
        format: FORMAT,
        command: command_line(),
        started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        machine: run::describe(&setting.cores, setting.receives_apart),
        scenarios,
        relay: Vec::new(),
    }
}

fn show(results: &Results, out: &Path) -> Result<(), Failure> {
    let written = report::write(out, results).map_err(Failure::other)?;
    say(&report::summary(results, report::BASELINE, io::stdout().is_terminal()))?;
    let (json, html, plots) = (written.json.display(), written.html.display(), written.plots.len());
    say(&format!("wrote {json} and {html}, with {plots} plots"))
}

/// Prints a line. Who closes the pipe has read enough, which changes no verdict.
fn say(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether files can be written where they are to go; better told now than after an hour.
fn probe(out: &Path) -> io::Result<()> {
    let file = out.join(format!(".probe-{}", std::process::id()));
    std::fs::create_dir_all(out)?;
    std::fs::write(&file, "probe")?;
    std::fs::remove_file(&file)
}

/// As somebody would type it.
fn command_line() -> String {
    let quoted = |argument: String| if argument.contains(' ') { format!("'{argument}'") } else { argument };
    let arguments: Vec<String> = env::args().skip(1).map(quoted).collect();
    format!("cargo run --release -p loadtest -- {}", arguments.join(" "))
}

fn report(args: &ReportArgs) -> Result<Verdict, Failure> {
    let mut read = Vec::new();
    for file in &args.files {
        let results = report::json::read(file).map_err(|error| Failure::Usage(error.to_string()))?;
        read.push((file.clone(), results));
    }
    show(&report::merge(read), &args.out)?;
    Ok(Verdict::Passed)
}

fn flood(args: &FloodArgs) -> Result<Verdict, Failure> {
    let spec = FloodSpec {
        kind: args.kind,
        sources: args.sources,
        options: args.options,
        engine: args.engine,
        rate: args.rate,
        seed: args.seed,
        target: args.target,
    };
    let cores = Cores::share_out().map_err(Failure::other)?;
    let place = place_here(args.target, cores.flood).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some((file, count)) = args.pcap.as_ref().zip(args.count) {
        flood::write_pcap(&spec, &place, count, file).map_err(Failure::other)?;
        println!("wrote {}", file.display());
        return Ok(Verdict::Passed);
    }
    if !spec.kind.needs_sockets() {
        loopback_takes_frames(args.target).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let flood = Flood::start(&spec, &place).map_err(|error| match error {
        FloodError::NoEbpf(_) => Failure::Missing(error.to_string()),
        error => Failure::Usage(error.to_string()),
    })?;
    thread::sleep(Duration::from_secs_f64(args.seconds));
    let report = flood.stop();
    let seconds = report.elapsed.as_secs_f64();
    let what = if spec.kind.needs_sockets() { "connections tried" } else { "frames" };
    println!(
        "engine {}: {} {what} in {seconds:.2} s, {:.0}/s",
        report.engine,
        report.sent,
        report.sent as f64 / seconds
    );
    if spec.kind.needs_sockets() {
        println!("{} were made, {} refused or not made in time", report.connected, report.failed);
    }
    if report.refused > 0 {
        println!("{} more found the queue of the device full", report.refused);
    }
    if report.generator_limited {
        println!("the generator fell behind: {} were due", report.due);
    }
    Ok(Verdict::Passed)
}

fn clients(args: &ClientsArgs) -> Result<Verdict, Failure> {
    permit_clients(args.target).map_err(|error| Failure::Usage(error.to_string()))?;
    let spec = ClientSpec {
        target: args.target,
        rate: args.rate,
        bytes: args.bytes,
        deadline: Duration::from_secs_f64(args.deadline),
        seed: 1,
    };
    let cores = Cores::share_out().map_err(Failure::other)?;
    let clients = Clients::start(spec, testnet::Namespace::current(), cores.clients, |_| None);
    thread::sleep(Duration::from_secs_f64(args.seconds));
    let results = clients.finish();
    println!("{} clients, {:.2} % ok", results.attempts, 100.0 * results.success());
    results.outcomes.iter().for_each(|(outcome, count)| println!("  {outcome:<16}{count}"));
    for (what, times) in [("connect", results.connect_us), ("whole", results.total_us)] {
        let ms = |us: f64| us / 1e3;
        println!(
            "  {what:<8} p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            ms(times.p50),
            ms(times.p90),
            ms(times.p99),
            ms(times.p999),
            ms(times.max)
        );
    }
    Ok(if results.success() == 1.0 { Verdict::Passed } else { Verdict::Failed })
}

fn lab(args: &LabArgs) -> Result<Verdict, Failure> {
    let setting = setting(args.portcullis.as_deref())?;
    go_into_seclusion()?;
    let lab = Lab::new(setting.cores.clone());
    let plan = Plan::of(Family::Ipv4);
    let _answers = lab.take_answers_of(args.alternative, true).map_err(Failure::other)?;
    let target = Target::start(args.alternative, &lab, &plan, &TargetConfig::default(), &setting.binary);
    let _target = target.map_err(RunError::from)?;
    println!("{} serves at {} until Ctrl-C; in other shells:", args.alternative, plan.server);
    for (place, namespace) in [("outside", &lab.outside), ("server ", &lab.server)] {
        println!("  {place}  nsenter --net={}", namespace.path());
    }
    loop {
        thread::park();
    }
}
