//! Flags win over the file.

use std::fmt;

use portcullis::guard::{expand_wildcards, overlap};

use super::reader::Choice;
use super::schema::check_hook;
use super::{Backend, BpfHook, Config};
use crate::cli::RunArgs;

/// A flag that is fine in itself and wrong here.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagError {
    flag: &'static str,
    value: String,
    why: String,
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid value '{}' for '{}': {}", self.value, self.flag, self.why)
    }
}

impl Config {
    /// Puts the flags over what the file, or the default, says.
    ///
    /// `--listen` needs a configuration with one listener; the other flags about listeners change every one.
    ///
    /// # Errors
    /// When `--listen` does not say for which listener it is, two addresses overlap, or `--bpf-hook` is for a datapath without programs.
    pub fn with_flags(mut self, args: &RunArgs) -> Result<Config, FlagError> {
        if let Some(addr) = args.listen.first() {
            let [listener] = self.listeners.as_mut_slice() else {
                let why = format!("the config file has {} listeners: give the address there", self.listeners.len());
                return Err(FlagError { flag: "--listen", value: addr.to_string(), why });
            };
            listener.bind.clone_from(&args.listen);
        }
        self.take_datapath(args)?;
        self.admin = args.admin.map_or(self.admin, |admin| admin.0);
        self.log.format = args.log_format.unwrap_or(self.log.format);
        self.master_key_file = args.master_key_file.clone().or(self.master_key_file);
        for listener in &mut self.listeners {
            let upstream = args.upstream.map(|addr| Backend::Upstreams(vec![addr.into()]));
            if let Some(backend) = upstream.or(args.service.map(Backend::Service)) {
                listener.backend = backend;
            }
            listener.half_open.max = args.half_open.unwrap_or(listener.half_open.max);
            if !args.interface.is_empty() {
                listener.interfaces.clone_from(&args.interface);
            }
        }
        self.check_overlap()?;
        Ok(self)
    }

    fn take_datapath(&mut self, args: &RunArgs) -> Result<(), FlagError> {
        if let Some(datapath) = args.datapath {
            self.datapath = datapath;
            // The file's hook was for the file's datapath.
            if check_hook(self.bpf_hook, datapath).is_err() {
                self.bpf_hook = BpfHook::Auto;
            }
        }
        let Some(hook) = args.bpf_hook else { return Ok(()) };
        self.bpf_hook = hook;
        check_hook(hook, self.datapath).map_err(|why| {
            let value = hook.word().to_owned();
            FlagError { flag: "--bpf-hook", value, why }
        })
    }

    /// The file's addresses do not overlap among themselves, so only the flags can be at fault.
    fn check_overlap(&self) -> Result<(), FlagError> {
        let mut taken = Vec::new();
        for addr in self.listeners.iter().flat_map(|listener| expand_wildcards(&listener.bind)) {
            if let Some(other) = taken.iter().find(|other| overlap(&addr, other)) {
                let why = format!("it overlaps with {other}; each address and port can be given once");
                return Err(FlagError { flag: "--listen", value: addr.to_string(), why });
            }
            taken.push(addr);
        }
        let Some(admin) = self.admin else { return Ok(()) };
        match taken.iter().find(|other| overlap(&admin, other)) {
            Some(other) => {
                let why = format!("it overlaps with the guarded {other}; give another port, or none");
                Err(FlagError { flag: "--admin", value: admin.to_string(), why })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Admin;
    use crate::config::{Datapath, ListenerConfig, Service};

    fn two_listeners() -> Config {
        let web = ListenerConfig { bind: vec!["127.0.0.1:80".parse().unwrap()], ..ListenerConfig::default() };
        Config { listeners: vec![web, ListenerConfig::default()], ..Config::default() }
    }

    #[test]
    fn a_flag_for_the_datapath_overrules_the_files_hook() {
        let file = Config { bpf_hook: BpfHook::Xdp, ..Config::default() };
        let args = RunArgs { datapath: Some(Datapath::Raw), ..RunArgs::default() };
        assert_eq!(file.clone().with_flags(&args).unwrap().bpf_hook, BpfHook::Auto);
        let args = RunArgs { bpf_hook: Some(BpfHook::Tc), ..args };
        assert!(file.with_flags(&args).unwrap_err().to_string().contains("'tc' for '--bpf-hook'"));
    }

    #[test]
    fn no_flag_changes_nothing() {
        assert_eq!(two_listeners().with_flags(&RunArgs::default()).unwrap(), two_listeners());
    }

    #[test]
    fn flags_win_over_the_file() {
        let args = RunArgs {
            service: Some(Service::Echo),
            half_open: Some(5),
            interface: vec!["lo".to_owned()],
            admin: Some(Admin(None)),
            ..RunArgs::default()
        };
        let config = two_listeners().with_flags(&args).unwrap();
        assert_eq!(config.admin, None);
        for listener in &config.listeners {
            assert_eq!(listener.backend, Backend::Service(Service::Echo));
            assert_eq!(listener.half_open.max, 5);
            assert_eq!(listener.interfaces, ["lo"]);
        }
    }

    #[test]
    fn listen_is_refused_where_it_is_ambiguous() {
        let args = RunArgs { listen: vec!["127.0.0.1:1".parse().unwrap()], ..RunArgs::default() };
        let error = two_listeners().with_flags(&args).unwrap_err().to_string();
        assert!(error.contains("--listen") && error.contains("2 listeners"), "{error}");
        let config = Config::default().with_flags(&args).unwrap();
        assert_eq!(config.listeners[0].bind, args.listen);
    }

    #[test]
    fn overlapping_flags_are_refused() {
        let listen = vec!["0.0.0.0:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()];
        let args = RunArgs { listen, ..RunArgs::default() };
        assert!(Config::default().with_flags(&args).unwrap_err().to_string().contains("--listen"));
        let admin = Some(Admin(Some("127.0.0.1:8080".parse().unwrap())));
        let args = RunArgs { admin, ..RunArgs::default() };
        assert!(Config::default().with_flags(&args).unwrap_err().to_string().contains("--admin"));
    }
}
