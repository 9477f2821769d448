//! Starting each of them as a relay, as well configured as its manual allows for that alone.

use std::net::SocketAddr;

use super::launch::{on_target_cores, prepare_kernel, proxy, scratch, spawn_heard, wait_until_it_serves};
use super::{ADMIN, Alternative, Binary, NGINX_STREAM, Target, TargetConfig, TargetError};
use crate::lab::{Lab, Plan, SCRATCH};

/// Connections that the proxies make room for: as many as with a limit of 20,000 open files, pipes for splice(2) included.
const CONNECTIONS_MAX: usize = 7900;

impl Target {
    /// Starts it in the lab's server namespace on the target's cores, relaying to `upstream`, and waits until it serves.
    ///
    /// # Errors
    /// What is missing, or the last words of what ended. Who is no relay does not serve.
    pub fn start_relay(
        alternative: Alternative,
        lab: &Lab,
        plan: &Plan,
        config: &TargetConfig,
        binary: &Binary,
        upstream: SocketAddr,
    ) -> Result<Target, TargetError> {
        prepare_kernel(alternative, lab, config);
        let (listen, cores) = (plan.server.to_string(), lab.cores.target.len());
        let front = match alternative {
            Alternative::Haproxy => proxy(alternative, lab, &haproxy(&listen, upstream, cores), "haproxy", "haproxy")?,
            Alternative::NginxStream => {
                proxy(alternative, lab, &nginx(&listen, upstream, cores), "nginx", "libnginx-mod-stream")?
            }
            Alternative::Portcullis(_) => {
                let mut command = lab.server.command(binary.path());
                command.args(["run", "--log-format", "json", "--admin", ADMIN, "--listen", &listen]);
                command.args(["--upstream", &upstream.to_string(), "--datapath", alternative.datapath()]);
                command.args(alternative.hook().map(|hook| ["--bpf-hook", hook]).into_iter().flatten());
                let failed = |error| TargetError::Io { alternative, error };
                command.env("STATE_DIRECTORY", scratch().map_err(failed)?);
                on_target_cores(lab, || spawn_heard(command)).map_err(failed)?
            }
            Alternative::KernelCookies(_) | Alternative::NftSynproxy => {
                return Err(TargetError::DoesNotServe { alternative, why: "it is no relay".to_owned() });
            }
        };
        let mut target = Target { alternative, processes: vec![front], namespace: lab.server.clone() };
        wait_until_it_serves(&mut target, lab, plan)?;
        Ok(target)
    }

    /// The process in front.
    pub fn pid(&self) -> u32 {
        self.processes[0].process.pid()
    }
}

fn haproxy(listen: &str, upstream: SocketAddr, cores: usize) -> String {
    format!(
        "global\n  nbthread {cores}\n  maxconn {CONNECTIONS_MAX}\n\
         defaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n\
         listen front\n  bind {listen} backlog 65535\n  server behind {upstream}\n"
    )
}

/// With one core one process: a master would only leave its worker behind when it is killed.
fn nginx(listen: &str, upstream: SocketAddr, cores: usize) -> String {
    let (processes, reuse) = match cores {
        1 => ("master_process off;".to_owned(), ""),
        cores => (format!("worker_processes {cores};"), " reuseport"),
    };
    let connections = 2 * CONNECTIONS_MAX + 100;
    format!(
        "load_module {NGINX_STREAM};\ndaemon off;\n{processes}\npid {SCRATCH}/nginx.pid;\nerror_log stderr crit;\n\
         worker_rlimit_nofile 20000;\nevents {{ worker_connections {connections}; }}\n\
         stream {{ server {{ listen {listen} backlog=65535{reuse}; proxy_half_close on; proxy_timeout 600s; proxy_pass {upstream}; }} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_get_as_many_threads_as_there_are_cores() {
        let upstream = "198.18.1.2:9000".parse().expect("an address");
        assert!(haproxy("198.18.0.1:8080", upstream, 3).contains("nbthread 3\n"));
        assert!(nginx("198.18.0.1:8080", upstream, 3).contains("worker_processes 3;"));
        assert!(nginx("198.18.0.1:8080", upstream, 1).contains("master_process off;"));
    }
}
