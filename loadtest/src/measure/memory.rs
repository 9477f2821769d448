//! Memory of processes, by `/proc/PID/status`.

use std::fs;

/// Resident memory of a process and its children (`VmRSS`), with the rings that they share with the kernel. One that ends meanwhile has
/// none.
pub fn resident_bytes(pid: u32) -> u64 {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let children = read(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    parse(&read(format!("/proc/{pid}/status"))) + children.map(resident_bytes).sum::<u64>()
}

fn parse(status: &str) -> u64 {
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes_and_what_is_not_there_is_0() {
        assert_eq!(parse("Name:\tx\nVmRSS:\t    12 kB\n"), 12_288);
        assert_eq!(parse(""), 0);
        assert!(resident_bytes(std::process::id()) > 1 << 20);
    }
}
