//! Processor time of cores, by `/proc/stat`.

use std::fs;
use std::io;
use std::ops::AddAssign;

/// The kernel shows it in hundredths of a second (`USER_HZ`), on everything Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Watches some cores.
#[derive(Clone, Debug)]
pub struct CpuClock {
    cores: Vec<usize>,
}

/// Seconds of processor time, of all cores watched together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// In user mode.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// In interrupts and their deferred work.
    pub softirq: f64,
    /// Doing nothing.
    pub idle: f64,
}

impl CpuClock {
    /// For these cores.
    pub fn new(cores: &[usize]) -> CpuClock {
        CpuClock { cores: cores.to_vec() }
    }

    /// The time so far.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read.
    pub fn now(&self) -> io::Result<CpuTime> {
        Ok(self.sum(&fs::read_to_string("/proc/stat")?))
    }

    fn sum(&self, text: &str) -> CpuTime {
        let names: Vec<String> = self.cores.iter().map(|core| format!("cpu{core}")).collect();
        let mut sum = CpuTime::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            if !fields.next().is_some_and(|name| names.iter().any(|wanted| wanted == name)) {
                continue;
            }
            let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
            // user nice system idle iowait irq softirq steal: proc_stat(5).
            let at = |index: usize| ticks.get(index).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
            sum.user += at(0) + at(1);
            sum.system += at(2);
            sum.idle += at(3) + at(4);
            sum.softirq += at(5) + at(6);
        }
        sum
    }
}

impl AddAssign for CpuTime {
    fn add_assign(&mut self, more: CpuTime) {
        self.user += more.user;
        self.system += more.system;
        self.softirq += more.softirq;
        self.idle += more.idle;
    }
}

impl CpuTime {
    /// What was used between an earlier moment and this one.
    pub fn since(&self, earlier: &CpuTime) -> CpuTime {
        CpuTime {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            softirq: self.softirq - earlier.softirq,
            idle: self.idle - earlier.idle,
        }
    }

    /// All but idle.
    pub fn busy(&self) -> f64 {
        self.user + self.system + self.softirq
    }

    /// The busy part of the time there was, 0 to 1. What a hypervisor took counts for neither.
    pub fn load(&self) -> f64 {
        let all = self.busy() + self.idle;
        if all > 0.0 { self.busy() / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cores_watched_count() {
        let text = "cpu  9 9 9 9 9 9 9 9\ncpu0 100 100 300 400 100 50 150 7 0 0\ncpu1 1 0 0 0 0 0 0 0\ncpu10 900 0 0 0 0 0 0 0\n";
        let time = CpuClock::new(&[0]).sum(text);
        assert_eq!(time, CpuTime { user: 2.0, system: 3.0, softirq: 2.0, idle: 5.0 });
        assert_eq!(time.busy(), 7.0);
        assert!((time.load() - 7.0 / 12.0).abs() < 1e-9);
        assert_eq!(CpuClock::new(&[0, 1]).sum(text).user, 2.01);
        assert_eq!(time.since(&time).load(), 0.0);
    }
}
