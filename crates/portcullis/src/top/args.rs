//! The command line of `top`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::config::socket_path;

const AFTER_HELP: &str = "Keys:
  q, Esc, Ctrl-C       quit
  Tab, Right, Down     the next listener; Shift-Tab, Left, Up: the one before
  p, Space             pause, and go on
  s                    sort prefixes by connections, bytes received, bytes sent

Exit codes:
  0   done
  1   the process said no, or the terminal failed
  2   bad usage; also if there is no terminal and no --once, or several processes run here and --socket does not say which
  69  no process answers there
  77  this user may not ask: only root and the user that the process runs as may";

/// Watch a running process: rates, queues and their bounds, states, prefixes, modes, upstreams.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct TopArgs {
    /// The control socket (`control` of the config file) [default: the one in $RUNTIME_DIRECTORY, else in /run/portcullis]
    #[arg(long, value_name = "PATH", value_parser = socket_path)]
    pub socket: Option<PathBuf>,
    /// Time between two looks, in seconds: 0.5 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    pub interval: Interval,
    /// Look twice, an interval apart, print what is seen, and end: for scripts
    #[arg(long)]
    pub once: bool,
    /// With --once: as one line of JSON
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Time between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Interval, String> {
        let seconds = text.parse().ok().filter(|seconds: &f64| (0.5..=3600.0).contains(seconds));
        let seconds = seconds.ok_or_else(|| "legal: 0.5 to 3600 seconds".to_owned())?;
        Ok(Interval(Duration::from_secs_f64(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds() {
        assert_eq!("0.5".parse(), Ok(Interval(Duration::from_millis(500))));
        assert_eq!("3600".parse(), Ok(Interval(Duration::from_secs(3600))));
        for text in ["0", "0.4", "3601", "-1", "nan", "inf", "", "2s"] {
            assert!(text.parse::<Interval>().unwrap_err().contains("0.5 to 3600"), "{text}");
        }
    }
}
