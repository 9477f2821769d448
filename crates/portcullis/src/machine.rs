//! What this machine, and this user on it, lacks to run a configuration: for `check`.
//!
//! What is in use says nothing here: whoever checks a configuration often has the last one running.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use connection::upstream::Server;
use listener::io::interfaces::Interfaces;
use listener::io::{BpfEngine, EngineError, check_reservable, find_nft};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};
use portcullis::guard::expand_wildcards;

use crate::config::{AccessLogPath, Backend, Config, ControlPath, Datapath, ListenerConfig};
use crate::rights;

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// A sentence, which begins with the key that wants it.
    pub text: String,
    /// Whether it keeps the program from starting; else it makes do.
    pub fatal: bool,
}

impl Lack {
    fn fatal(text: String) -> Lack {
        Lack { text, fatal: true }
    }

    fn bearable(text: String) -> Lack {
        Lack { text, fatal: false }
    }

    fn of(self, listener: &ListenerConfig) -> Lack {
        Lack { text: format!("listener \"{}\": {}", listener.name, self.text), ..self }
    }
}

/// Everything that is missing.
pub fn lacks(config: &Config) -> Vec<Lack> {
    let mut lacks = Vec::new();
    rights_and_datapath(config, &mut lacks);
    files(config, &mut lacks);
    for listener in &config.listeners {
        lacks.extend(of_listener(config, listener).into_iter().map(|lack| lack.of(listener)));
    }
    lacks.extend(descriptors(config));
    lacks
}

fn rights_and_datapath(config: &Config, lacks: &mut Vec<Lack>) {
    let guarded = || config.listeners.iter().flat_map(|listener| &listener.bind);
    let rights = rights::lacking(config.datapath, guarded());
    let may_try_bpf = rights::lacking(Datapath::Bpf, guarded()).is_empty();
    lacks.extend(rights.into_iter().map(|right| Lack::fatal(format!("datapath: {right}"))));
    if matches!(config.datapath, Datapath::Auto | Datapath::Bpf) && may_try_bpf {
        match (BpfEngine::check(), config.datapath) {
            (Ok(()), _) => {}
            (Err(error), Datapath::Bpf) => {
                lacks.push(Lack::fatal(format!("datapath: bpf does not work here: {error}")));
            }
            (Err(error), _) => {
                lacks
                    .push(Lack::bearable(format!("datapath: auto takes raw here, because bpf does not work: {error}")));
            }
        }
    } else if config.datapath == Datapath::Auto {
        lacks.push(Lack::bearable("datapath: auto takes raw for this user, who may not load eBPF programs".to_owned()));
    }
    if matches!(config.datapath, Datapath::Auto | Datapath::Raw)
        && rights::lacking(Datapath::Raw, guarded()).is_empty()
        && let Err(error) = connection::adopt::probe()
    {
        lacks.push(Lack::fatal(format!("datapath: raw cannot make connections here: {error}")));
    }
}

fn files(config: &Config, lacks: &mut Vec<Lack>) {
    if let Some(key) = &config.master_key_file
        && let Err(error) = File::open(key)
    {
        lacks.push(Lack::fatal(format!("master_key_file: {}: {error}", key.display())));
    }
    if let Some(pins) = &config.bpf_pins {
        let existing = pins.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
        if !statfs(existing).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
            lacks.push(Lack::fatal(format!(
                "bpf_pins: {} is not on a bpffs (mount -t bpf bpf /sys/fs/bpf)",
                pins.display()
            )));
        }
    }
    let written = [
        ("state_dir", config.state_dir.as_deref()),
        ("control", if let ControlPath::At(path) = &config.control { path.parent() } else { None }),
        ("access_log.path", if let AccessLogPath::File(path) = &config.access_log.path { path.parent() } else { None }),
    ];
    for (key, directory) in written {
        let Some(directory) = directory else { continue };
        // A state directory is made; the others are not.
        let existing =
            if key == "state_dir" { directory.ancestors().find(|place| place.exists()) } else { Some(directory) };
        let writable = existing.map(|place| access(place, AccessFlags::W_OK | AccessFlags::X_OK));
        if let Some(Err(errno)) = writable {
            lacks.push(Lack::fatal(format!("{key}: cannot write into {}: {}", directory.display(), errno.desc())));
        }
    }
}

fn of_listener(config: &Config, listener: &ListenerConfig) -> Vec<Lack> {
    let mut lacks = Vec::new();
    if config.datapath != Datapath::Kernel {
        let known = Interfaces::read();
        let missing = |name: &&String| known.as_ref().is_ok_and(|known| known.by_name(name).is_none());
        let missing = listener.interfaces.iter().filter(missing);
        lacks.extend(missing.map(|name| Lack::fatal(format!("interfaces: there is no \"{name}\""))));
        if listener.fail_closed
            && let Err(error) = find_nft()
        {
            lacks.push(Lack::fatal(format!("fail_closed: {error}")));
        }
    }
    lacks.extend(expand_wildcards(&listener.bind).into_iter().filter_map(unreachable));
    if let Backend::Upstreams(servers) = &listener.backend {
        lacks.extend(servers.iter().filter_map(absent));
    }
    lacks
}

/// An address that is none of this host's.
fn unreachable(addr: SocketAddr) -> Option<Lack> {
    match check_reservable(&[addr]) {
        Err(EngineError::Reserve { source, .. }) if source.kind() == ErrorKind::AddrNotAvailable => {
            Some(Lack::fatal(format!("bind: {} is no address of this host", addr.ip())))
        }
        _ => None,
    }
}

fn absent(server: &Server) -> Option<Lack> {
    let Server::Unix(path) = server else { return None };
    let missing = fs::symlink_metadata(path).err();
    missing.map(|error| Lack::bearable(format!("upstreams: {}: {error}", path.display())))
}

/// The default is as many as there may be.
fn descriptors(config: &Config) -> Option<Lack> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let usual = ListenerConfig::default().connections_max;
    if config.listeners.iter().all(|listener| listener.connections_max == usual) {
        return None;
    }
    let each = |listener: &ListenerConfig| {
        let ends = if matches!(listener.backend, Backend::Upstreams(_)) { 2 } else { 1 };
        (listener.connections_max * ends + listener.accept_queue) as u64
    };
    let wanted: u64 = config.listeners.iter().map(each).sum();
    (hard < wanted).then(|| {
        Lack::bearable(format!(
            "connections_max: the limit of open files is {hard}, and all connections with their queues take {wanted}: fewer are \
             served at once (ulimit -n, LimitNOFILE= of systemd)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks_of(text: &str) -> Vec<String> {
        let lacks = lacks(&Config::from_bytes(text.as_bytes()).unwrap());
        lacks.into_iter().map(|lack| format!("{}{}", if lack.fatal { "" } else { "(" }, lack.text)).collect()
    }

    #[test]
    fn each_thing_that_is_missing_is_named_with_its_key() {
        let lacks = lacks_of(
            r#"
            datapath = "kernel"
            master_key_file = "/absent/key"
            bpf_pins = "/tmp/pins"
            control = "/absent/control.sock"
            access_log = { path = "/absent/log" }
            [[listener]]
            name = "web"
            bind = ["203.0.113.1:8080"]
            upstreams = ["unix:/absent/app.sock"]
            connections_max = 16777216
            "#,
        );
        for part in [
            "master_key_file: /absent/key: No such file",
            "bpf_pins: /tmp/pins is not on a bpffs",
            "control: cannot write into /absent: No such file",
            "access_log.path: cannot write into /absent: No such file",
            "listener \"web\": bind: 203.0.113.1 is no address of this host",
            "(listener \"web\": upstreams: /absent/app.sock: No such file",
            "(connections_max: the limit of open files is ",
        ] {
            assert!(lacks.iter().any(|lack| lack.starts_with(part)), "{part}: {lacks:#?}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let lacks = lacks_of(
            "datapath = \"raw\"\n[[listener]]\nbind = [\"127.0.0.1:8080\"]\ninterfaces = [\"lo\", \"absent0\"]\n",
        );
        assert!(lacks.iter().any(|lack| lack.contains("interfaces: there is no \"absent0\"")), "{lacks:#?}");
        assert!(!lacks.iter().any(|lack| lack.contains("\"lo\"")), "{lacks:#?}");
    }

    #[test]
    fn what_is_in_use_is_not_missing() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let lacks = lacks_of(&format!(
            "datapath = \"kernel\"\n[[listener]]\nbind = [\"{addr}\"]\nconnections_max = 1\naccept_queue = 1\n"
        ));
        assert_eq!(lacks, Vec::<String>::new());
    }
}
