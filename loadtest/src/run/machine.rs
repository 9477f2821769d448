//! Where it ran.

use std::fs;

use nix::sys::utsname::uname;

use crate::lab::Cores;
use crate::results::Machine;

/// This machine, with who works where.
pub fn describe(cores: &Cores, receives_apart: bool) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kib = value(&meminfo, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
    Machine {
        kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
        cpu: value(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
        cores: cores.count(),
        memory_bytes: kib.unwrap_or(0) * 1024,
        placement: cores.sentences(receives_apart),
    }
}
