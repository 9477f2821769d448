//! Starting each of them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use testnet::Process;

use super::{ADMIN, Alternative, Binary, Heard, START_PATIENCE, Switches, Target, TargetConfig, answers, within};
use crate::lab::{Lab, PORT, Plan, SCRATCH, bind_to};

/// Where the application is behind a proxy.
const BEHIND: &str = "127.0.0.1:9000";

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Its program is not there.
    #[error("{alternative} is left out: no `{program}` on this machine (apt-get install {package})")]
    NotInstalled {
        /// Which one.
        alternative: Alternative,
        /// The program that is missing.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// It did not serve.
    #[error("{alternative} did not begin to serve: {why}")]
    DoesNotServe {
        /// Which one.
        alternative: Alternative,
        /// Its last words, or what it did.
        why: String,
    },
    /// A system call failed.
    #[error("starting {alternative}: {error}")]
    Io {
        /// Which one.
        alternative: Alternative,
        /// What failed.
        error: io::Error,
    },
}

/// What the kernel of the server's namespace is to do.
pub fn prepare_kernel(alternative: Alternative, lab: &Lab, config: &TargetConfig) {
    let server = &lab.server;
    server.sysctl("net.ipv4.tcp_syncookies", &alternative.syncookies().to_string());
    server.sysctl("net.ipv4.tcp_max_syn_backlog", &config.backlog.to_string());
    server.sysctl("net.core.somaxconn", &config.backlog.to_string());
}

/// Starts the processes.
pub fn spawn(
    alternative: Alternative,
    lab: &Lab,
    plan: &Plan,
    config: &TargetConfig,
    binary: &Binary,
) -> Result<Target, TargetError> {
    let failed = |error| TargetError::Io { alternative, error };
    let listen = plan.server.to_string();
    let front = match alternative {
        Alternative::Haproxy => Some(proxy(alternative, lab, &haproxy(&listen), "haproxy", "haproxy")?),
        Alternative::NginxStream => Some(proxy(alternative, lab, &nginx(&listen), "nginx", "libnginx-mod-stream")?),
        Alternative::NftSynproxy => {
            synproxy(lab)?;
            None
        }
        Alternative::Portcullis(_) | Alternative::KernelCookies(_) => None,
    };
    let listen = if front.is_some() { BEHIND } else { &listen };
    let mut command = lab.server.command(binary.path());
    command.args(["run", "--service", "echo", "--log-format", "json", "--admin", ADMIN, "--listen", listen]);
    command.args(["--datapath", alternative.datapath(), "--half-open", &config.half_open.to_string()]);
    command.args(alternative.hook().map(|hook| ["--bpf-hook", hook]).into_iter().flatten());
    command.env("STATE_DIRECTORY", scratch().map_err(failed)?);
    let application = on_target_cores(lab, || spawn_heard(command)).map_err(failed)?;
    let processes = front.into_iter().chain([application]).collect();
    Ok(Target { alternative, processes, namespace: lab.server.clone() })
}

/// Waits, and explains.
pub fn wait_until_it_serves(target: &mut Target, lab: &Lab, plan: &Plan) -> Result<(), TargetError> {
    let alternative = target.alternative;
    let mut ended = false;
    let serves = within(START_PATIENCE, || {
        ended = !target.is_alive();
        ended || answers(lab, plan)
    });
    if serves && !ended {
        return Ok(());
    }
    let why = if ended { "it has ended" } else { "nobody answers" };
    let said = target.processes.first().map_or_else(String::new, |front| front.log.last_words());
    Err(TargetError::DoesNotServe {
        alternative,
        why: if said.is_empty() { format!("{why}, and said nothing") } else { format!("{why}; it said: {said}") },
    })
}

/// Threads and processes inherit the cores of who starts them.
pub(super) fn on_target_cores<R>(lab: &Lab, start: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let before = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    bind_to(&lab.cores.target)?;
    let started = start();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &before)?;
    started
}

pub(super) fn spawn_heard(mut command: Command) -> io::Result<Heard> {
    let (reader, writer) = io::pipe()?;
    command.stderr(writer).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Heard { process: Process::spawn(command)?, log: Switches::read(reader) })
}

/// A place for the state of what is started.
pub(super) fn scratch() -> io::Result<PathBuf> {
    let path = PathBuf::from(SCRATCH);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

pub(super) fn proxy(
    alternative: Alternative,
    lab: &Lab,
    config: &str,
    program: &'static str,
    package: &'static str,
) -> Result<Heard, TargetError> {
    let failed = |error| TargetError::Io { alternative, error };
    let not_installed = TargetError::NotInstalled { alternative, program, package };
    let Some(path) = find_program(program) else { return Err(not_installed) };
    if program == "nginx" && !std::path::Path::new(NGINX_STREAM).is_file() {
        return Err(not_installed);
    }
    let file = scratch().map_err(failed)?.join(format!("{program}.conf"));
    std::fs::write(&file, config).map_err(failed)?;
    let mut command = lab.server.command(path);
    match program {
        "haproxy" => command.arg("-db").arg("-f").arg(file),
        _ => command.arg("-c").arg(file),
    };
    on_target_cores(lab, || spawn_heard(command)).map_err(failed)
}

/// Also where only root's path leads.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories.map(|directory| PathBuf::from(directory).join(name)).find(|path| path.is_file())
}

fn haproxy(listen: &str) -> String {
    format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen front\n  bind {listen} backlog 65535\n  server echo {BEHIND}\n"
    )
}

/// Debian's module.
pub(super) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// One process, as it has one worker by default: a master would leave its worker behind when it is killed.
fn nginx(listen: &str) -> String {
    format!(
        "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {SCRATCH}/nginx.pid;\nerror_log stderr crit;\nworker_rlimit_nofile 65535;\n\
         events {{ worker_connections 20000; }}\n\
         stream {{ server {{ listen {listen} backlog=65535; proxy_half_close on; proxy_pass {BEHIND}; }} }}\n"
    )
}

/// As the manual of nft has it, with the options that our clients offer.
fn synproxy(lab: &Lab) -> Result<(), TargetError> {
    let alternative = Alternative::NftSynproxy;
    let failed = |error| TargetError::Io { alternative, error };
    let not_installed = TargetError::NotInstalled { alternative, program: "nft", package: "nftables" };
    let script = format!(
        "table inet proxy {{
            chain raw {{ type filter hook prerouting priority raw; tcp dport {PORT} tcp flags syn notrack; }}
            chain input {{
                type filter hook input priority filter;
                tcp dport {PORT} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
                ct state invalid drop
            }}
        }}\n"
    );
    let program = find_program("nft").ok_or(not_installed)?;
    load_rules(lab, &program, &script).map_err(failed)?.map_err(|said| TargetError::DoesNotServe {
        alternative,
        // The rules are the same everywhere: what refuses them is a kernel without the modules, or without the rights to load them.
        why: format!("nft takes no rules of conntrack and synproxy: {said}"),
    })?;
    // The handshake's last ACK of a connection nobody tracked must not be taken for the middle of one.
    lab.server.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0");
    Ok(())
}

/// What nft said, if it did not take them.
fn load_rules(lab: &Lab, nft: &std::path::Path, script: &str) -> io::Result<Result<(), String>> {
    let mut command = lab.server.command(nft);
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()))?;
    let output = child.wait_with_output()?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(if output.status.success() { Ok(()) } else { Err(said()) })
}
