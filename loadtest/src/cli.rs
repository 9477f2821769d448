//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::flood::{Engine, FloodKind, OptionMix, Sources};
use crate::results::RelayPart;
use crate::slo::Slo;
use crate::target::Alternative;

/// Floods, legitimate clients, and every alternative side by side, in namespaces of its own.
///
/// Exit codes: 0 every threshold holds; 1 one does not; 2 the command line or a scenario is wrong; 70 something else failed; 77 rights or
/// programs are missing.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs scenarios against one alternative: the one named, or the first of each scenario.
    Run(RunArgs),
    /// Runs scenarios against every alternative, interleaved, with repetitions.
    Compare(RunArgs),
    /// Finds the highest flood rate at which something still holds.
    Search(SearchArgs),
    /// Measures Portcullis as a relay against HAProxy and nginx: bulk, requests, connections, memory.
    Relay(RelayArgs),
    /// Floods a target on loopback, or in a lab that this program keeps (see `lab`).
    Flood(FloodArgs),
    /// Comes as legitimate clients to a server that echoes.
    Clients(ClientsArgs),
    /// Makes tables and plots again, of one run or of several.
    Report(ReportArgs),
    /// Keeps a lab with a target until Ctrl-C, to look around in.
    Lab(LabArgs),
}

/// Of `run` and `compare`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Scenario files; those that come with the lab are found from everywhere.
    #[arg(required = true, value_name = "FILE")]
    pub scenarios: Vec<PathBuf>,
    /// Only these alternatives, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub alternatives: Vec<Alternative>,
    /// How often the same is asked.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: Option<u32>,
    /// Another length of each round, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<f64>,
    #[command(flatten)]
    pub output: Output,
}

/// Of `relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Only these alternatives, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME",
        default_value = "portcullis-bpf,portcullis-raw,portcullis-kernel,haproxy,nginx-stream"
    )]
    pub alternatives: Vec<Alternative>,
    /// Only these measures, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PART",
        default_value = "upload,download,requests,ping-pong,connects,idle"
    )]
    pub parts: Vec<RelayPart>,
    /// How often each is measured; the medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: u32,
    /// How long each time, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Connections at a time, of requests and of connections that come and go: 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = connections::<1000>)]
    pub connections: usize,
    /// Connections that are held to weigh them: 1 to 7500.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = connections::<7500>)]
    pub idle: usize,
    #[command(flatten)]
    pub output: Output,
}

/// Where it goes, and who is tested.
#[derive(Debug, Args)]
pub struct Output {
    /// The directory for run.json, report.html and the plots.
    #[arg(long, value_name = "DIR", default_value = "target/loadtest")]
    pub out: PathBuf,
    /// The Portcullis under test, instead of the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub portcullis: Option<PathBuf>,
}

/// Of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What has to hold: `success >= 99.9% and p99 <= 50ms`.
    #[arg(long)]
    pub slo: Slo,
    /// The scenario whose flood's rate is varied.
    #[arg(long, value_name = "FILE", default_value = "scenarios/syn-flood.toml")]
    pub scenario: PathBuf,
    /// Who is asked; several are separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_value = "portcullis-bpf")]
    pub alternatives: Vec<Alternative>,
    /// The first rate, in frames per second.
    #[arg(long, value_name = "RATE", default_value_t = 10_000.0, value_parser = rate)]
    pub from: f64,
    /// The last one.
    #[arg(long, value_name = "RATE", default_value_t = 50_000_000.0, value_parser = rate)]
    pub to: f64,
    #[command(flatten)]
    pub output: Output,
}

/// Of `flood`.
#[derive(Debug, Args)]
pub struct FloodArgs {
    /// Whom: on loopback, or in a lab.
    #[arg(long, value_name = "ADDR:PORT")]
    pub target: SocketAddr,
    /// What it is made of.
    #[arg(long, value_enum, default_value = "syn")]
    pub kind: FloodKind,
    /// Where it claims to come from.
    #[arg(long, value_enum, default_value = "random")]
    pub sources: Sources,
    /// The options of its SYNs.
    #[arg(long, value_enum, default_value = "mixed")]
    pub options: OptionMix,
    /// What makes it.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// Frames per second; as many as it can, if it is left out.
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// How long.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// The same seed gives the same frames.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Writes that many frames to a file (pcap) instead of sending any.
    #[arg(long, value_name = "FILE", requires = "count")]
    pub pcap: Option<PathBuf>,
    /// How many frames go into the file.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Of `clients`.
#[derive(Debug, Args)]
pub struct ClientsArgs {
    /// A server that echoes, on loopback or in a lab.
    #[arg(long, value_name = "ADDR:PORT")]
    pub target: SocketAddr,
    /// Connections per second.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    /// Bytes of request and answer.
    #[arg(long, default_value_t = 1000)]
    pub bytes: usize,
    /// How long one may take, in seconds.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub deadline: f64,
    /// How long they come.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
}

/// Of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What `run`, `compare` and `search` wrote.
    #[arg(required = true, value_name = "RUN.JSON")]
    pub files: Vec<PathBuf>,
    /// The directory for what is made.
    #[arg(long, value_name = "DIR", default_value = "target/loadtest")]
    pub out: PathBuf,
}

/// Of `lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Who listens.
    #[arg(long, value_name = "NAME", default_value = "portcullis-bpf")]
    pub alternative: Alternative,
    /// The Portcullis under test, instead of the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub portcullis: Option<PathBuf>,
}

fn connections<const MOST: usize>(text: &str) -> Result<usize, String> {
    let legal = |count: &usize| (1..=MOST).contains(count);
    text.parse().ok().filter(legal).ok_or_else(|| format!("legal is 1 to {MOST}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, "seconds", 3600.0)
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, "a rate per second", 1e9)
}

fn number(text: &str, what: &str, most: f64) -> Result<f64, String> {
    let legal = |value: &f64| *value > 0.0 && *value <= most;
    text.parse().ok().filter(legal).ok_or_else(|| format!("legal is {what}, more than 0 and at most {most}"))
}
