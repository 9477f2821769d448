//! The command line. It is a contract: others script against it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{
    BpfHook, Choice, Datapath, LogFormat, Service, admin_address, guarded_address, interface_name, socket_path,
    upstream_address,
};
use crate::control::CtlArgs;
use crate::top::TopArgs;
use crate::trace::TraceArgs;

const ABOUT: &str = "A SYN-flood-resistant TCP front door.

Answers SYNs itself, with SYN cookies and a bounded half-open queue, and hands the handshakes that complete to a \
built-in service or to an upstream. Without a command it runs: with no arguments at all, it guards 127.0.0.1:8080 with \
a small web page behind it, and shows metrics on 127.0.0.1:9464.";

const EXIT_CODES: &str = "Exit codes:
  0   done, or stopped by SIGTERM or SIGINT after the connections had finished or the deadline had passed
  1   failed while running: address in use, no such interface, unreadable key file, a worker died, ...
  2   bad flags or configuration
  77  CAP_NET_RAW or CAP_NET_ADMIN is missing (--datapath kernel needs neither), CAP_BPF or CAP_PERFMON with
      --datapath bpf, CAP_NET_BIND_SERVICE for a low port";

const CHECK_EXIT_CODES: &str = "Exit codes:
  0   the file and its lists are good
  1   they are, but with --strict: the program could not start on this machine, by this user
  2   they are not: every error is shown";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about = "A SYN-flood-resistant TCP front door", long_about = ABOUT)]
#[command(after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Guard addresses (the default command)
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Check a config file without starting, and say what this machine lacks for it
    #[command(after_help = CHECK_EXIT_CODES)]
    Check {
        /// The file to check
        file: PathBuf,
        /// Fail if the program could not start on this machine, by this user
        #[arg(long)]
        strict: bool,
    },
    /// Write a new master cookie key to standard output, as --master-key-file takes it
    Keygen,
    /// Print the completions for a shell
    Completions {
        /// Which
        #[arg(value_name = "bash|elvish|fish|powershell|zsh", value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write the pages of all commands
    Man {
        /// Write them into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Show the configuration's keys
    Config {
        /// Print every key with its meaning, unit, range and default, as a valid config file
        #[arg(long, required = true)]
        print_default: bool,
    },
    /// Ask a running process over its control socket, or tell it what to do
    Ctl(CtlArgs),
    /// Watch a running process in the terminal: rates, queues, states, prefixes, modes, upstreams
    Top(TopArgs),
    /// Draw the handshakes and teardowns of guarded connections as ladder diagrams, live
    Trace(TraceArgs),
}

/// The flags of `run`. A flag wins over the config file.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Read this TOML file (`portcullis config --print-default` documents its keys)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Guard this address; may be given several times. [::]:PORT guards IPv4 as well [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT", value_parser = guarded_address)]
    pub listen: Vec<SocketAddr>,
    /// How packets are reached: raw answers SYNs itself, bpf has the kernel do so by programs of ours, kernel lets the
    /// kernel do as it does, auto takes bpf where that works, else raw, and never kernel [default: auto]
    #[arg(long, value_name = "auto|bpf|raw|kernel", value_parser = word::<Datapath>)]
    pub datapath: Option<Datapath>,
    /// Where bpf answers SYNs: xdp in the driver of every device, tc behind it, auto in drivers of real cards [default: auto]
    #[arg(long, value_name = "auto|xdp|tc", value_parser = word::<BpfHook>)]
    pub bpf_hook: Option<BpfHook>,
    /// Connect each accepted connection to this TCP server and copy both ways
    #[arg(long, value_name = "ADDR:PORT", value_parser = upstream_address, conflicts_with = "service")]
    pub upstream: Option<SocketAddr>,
    /// Answer with a built-in service [default: http]
    #[arg(long, value_name = "http|echo|discard", value_parser = word::<Service>)]
    pub service: Option<Service>,
    /// Serve the live page, /metrics, /healthz, /readyz and more here; `none` for no admin server [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR:PORT", value_parser = admin)]
    pub admin: Option<Admin>,
    /// Watch only this network interface; may be given several times [default: all]
    #[arg(long, value_name = "NAME", value_parser = interface_name)]
    pub interface: Vec<String>,
    /// Half-open connections kept before the answer is a cookie alone, 1 to 4194304 [default: 4096]
    #[arg(long, value_name = "N", value_parser = half_open)]
    pub half_open: Option<usize>,
    /// Read the master cookie key from this file (64 hexadecimal digits, as `portcullis keygen` writes)
    #[arg(long, value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// Take over from the process that runs, without a lost connection; it is found by its control socket (`control` of the config file), and if
    /// none runs there this is an ordinary start. With a SOCKET, from the process that has that one, and no other
    #[arg(long, value_name = "SOCKET", value_parser = socket, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub takeover: Option<Socket>,
    /// How log lines look on standard error [default: text]
    #[arg(long, value_name = "text|json", value_parser = word::<LogFormat>)]
    pub log_format: Option<LogFormat>,
}

/// The value of `--admin`. clap takes an `Option` for "may be absent", which this is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin(pub Option<SocketAddr>);

/// The value of `--takeover`: a path, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket(pub Option<PathBuf>);

fn socket(text: &str) -> Result<Socket, String> {
    // Without a value clap gives the empty one.
    if text.is_empty() { Ok(Socket(None)) } else { socket_path(text).map(|path| Socket(Some(path))) }
}

fn admin(text: &str) -> Result<Admin, String> {
    admin_address(text).map(Admin)
}

fn half_open(text: &str) -> Result<usize, String> {
    let legal = 1..=4_194_304;
    text.parse().ok().filter(|max| legal.contains(max)).ok_or_else(|| "legal: 1 to 4194304 entries".to_owned())
}

fn word<T: Choice>(text: &str) -> Result<T, String> {
    T::from_word(text).ok_or_else(|| format!("legal: one of {}", T::legal()))
}

impl Cli {
    /// The command, `run` if none was named.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run_args(args: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from([&["portcullis"], args].concat()).unwrap();
        match cli.into_command() {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(args: &[&str]) -> String {
        let error = Cli::try_parse_from([&["portcullis"], args].concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
        error.to_string()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_command_when_none_is_named() {
        assert!(run_args(&[]).listen.is_empty());
        assert_eq!(run_args(&["--service", "echo"]).service, Some(Service::Echo));
        assert_eq!(run_args(&["run", "--service", "echo"]).service, Some(Service::Echo));
    }

    #[test]
    fn every_flag_of_the_contract_is_understood() {
        let args = run_args(&[
            "run",
            "--config",
            "f.toml",
            "--listen",
            "0.0.0.0:80",
            "--listen",
            "[::1]:81",
            "--datapath",
            "raw",
            "--upstream",
            "127.0.0.1:8000",
            "--admin",
            "127.0.0.1:9000",
            "--interface",
            "eth0",
            "--interface",
            "lo",
            "--half-open",
            "7",
            "--master-key-file",
            "k",
            "--log-format",
            "json",
        ]);
        assert_eq!(args.config, Some("f.toml".into()));
        assert_eq!(args.listen, ["0.0.0.0:80".parse().unwrap(), "[::1]:81".parse().unwrap()]);
        assert_eq!(args.datapath, Some(Datapath::Raw));
        assert_eq!(args.upstream, Some("127.0.0.1:8000".parse().unwrap()));
        assert_eq!(args.admin, Some(Admin(Some("127.0.0.1:9000".parse().unwrap()))));
        assert_eq!(args.interface, ["eth0", "lo"]);
        assert_eq!(args.half_open, Some(7));
        assert_eq!(args.master_key_file, Some("k".into()));
        assert_eq!(args.log_format, Some(LogFormat::Json));
    }

    #[test]
    fn a_bad_value_is_refused_with_flag_value_and_range() {
        for (args, expected) in [
            (["--listen", "127.0.0.1"], ["--listen", "127.0.0.1", "127.0.0.1:PORT"]),
            (["--listen", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "1 to 65535"]),
            (["--datapath", "fast"], ["--datapath", "fast", r#""auto", "bpf", "raw", "kernel""#]),
            (["--service", "ftp"], ["--service", "ftp", r#""http", "echo", "discard""#]),
            (["--half-open", "0"], ["--half-open", "0", "1 to 4194304"]),
            (["--half-open", "many"], ["--half-open", "many", "1 to 4194304"]),
            (["--interface", "a/b"], ["--interface", "a/b", "1 to 15"]),
            (["--admin", "here"], ["--admin", "here", "no numeric address"]),
            (["--log-format", "xml"], ["--log-format", "xml", r#""text", "json""#]),
        ] {
            let message = refusal(&args);
            for part in expected {
                assert!(message.contains(part), "{args:?}: {message}");
            }
        }
    }

    #[test]
    fn unknown_flags_and_contradictions_are_refused() {
        assert!(refusal(&["--frobnicate"]).contains("--frobnicate"));
        assert!(refusal(&["--service", "http", "--upstream", "127.0.0.1:1"]).contains("--upstream"));
        refusal(&["config"]);
        refusal(&["check"]);
        refusal(&["--service", "http", "keygen"]);
    }

    #[test]
    fn the_long_help_documents_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["0 ", "1 ", "2 ", "77 "] {
            assert!(help.contains(&format!("\n  {code}")), "{help}");
        }
    }
}
