//! Who is flooded: Portcullis in each of its tiers, and what people use instead.

mod alternative;
mod binary;
mod launch;
mod relay;
mod switches;

use std::io;
use std::time::{Duration, Instant};

use testnet::{Metrics, Process, http_get};

use crate::lab::{Lab, Plan};
use crate::measure::resident_bytes;
pub use alternative::Alternative;
pub use binary::Binary;
use launch::NGINX_STREAM;
pub use launch::TargetError;
pub use switches::Switches;

/// Where Portcullis is asked for its metrics, inside the server's namespace.
const ADMIN: &str = "127.0.0.1:9464";

/// What a scenario may say about the target.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TargetConfig {
    /// Half-open connections that Portcullis keeps at most.
    pub half_open: usize,
    /// The kernel's bound on half-open connections and on the accept queue (`net.ipv4.tcp_max_syn_backlog`, `net.core.somaxconn`).
    pub backlog: u32,
}

impl Default for TargetConfig {
    fn default() -> TargetConfig {
        TargetConfig { half_open: 4096, backlog: 4096 }
    }
}

/// A target that serves. Dropped, its processes are killed.
#[derive(Debug)]
pub struct Target {
    alternative: Alternative,
    /// The one in front first.
    processes: Vec<Heard>,
    namespace: testnet::Namespace,
}

/// A process, and what it says.
#[derive(Debug)]
struct Heard {
    process: Process,
    log: Switches,
}

impl Target {
    /// Starts it in the lab's server namespace on the target's cores, and waits until it serves.
    ///
    /// # Errors
    /// What is missing, or the last words of what ended.
    pub fn start(
        alternative: Alternative,
        lab: &Lab,
        plan: &Plan,
        config: &TargetConfig,
        binary: &Binary,
    ) -> Result<Target, TargetError> {
        launch::prepare_kernel(alternative, lab, config);
        let mut target = launch::spawn(alternative, lab, plan, config, binary)?;
        launch::wait_until_it_serves(&mut target, lab, plan)?;
        Ok(target)
    }

    /// Which one it is.
    pub fn alternative(&self) -> Alternative {
        self.alternative
    }

    /// Resident memory of what is in front, with its children.
    pub fn resident_bytes(&self) -> u64 {
        self.processes.first().map_or(0, |front| resident_bytes(front.process.pid()))
    }

    /// When it went into cookie mode and out of it.
    pub fn switches(&self) -> &Switches {
        &self.processes[0].log
    }

    /// What Portcullis tells of itself; `None` for others, or when it does not answer.
    pub fn metrics(&self) -> Option<Metrics> {
        if !self.alternative.is_ours() {
            return None;
        }
        let admin = ADMIN.parse().expect("a constant");
        let (status, text) = http_get(&self.namespace, admin, "/metrics").ok()?;
        (status == 200).then(|| Metrics::parse(&text))
    }

    /// What the first process that has ended said at last; `None` while all of them run.
    pub fn last_words_of_the_dead(&mut self) -> Option<String> {
        let dead = self.processes.iter_mut().find_map(|heard| heard.process.has_ended().then_some(&heard.log))?;
        let said = dead.last_words();
        Some(if said.is_empty() {
            "it has ended, and said nothing".to_owned()
        } else {
            format!("it has ended; it said: {said}")
        })
    }

    /// Whether every process still runs.
    pub fn is_alive(&mut self) -> bool {
        !self.processes.iter_mut().any(|heard| heard.process.has_ended())
    }
}

/// Connects until somebody accepts.
fn answers(lab: &Lab, plan: &Plan) -> bool {
    const PATIENCE: Duration = Duration::from_millis(500);
    let connect = || -> io::Result<()> { std::net::TcpStream::connect_timeout(&plan.server, PATIENCE).map(drop) };
    lab.outside.run(connect).is_ok()
}

/// How long a target may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(15);

fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
