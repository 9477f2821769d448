//! Which core does whose work.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of flood, clients and target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of the flood's generator.
    pub flood: Vec<usize>,
    /// Of the clients.
    pub clients: Vec<usize>,
    /// Of the target, and of the reception of its frames.
    pub target: Vec<usize>,
}

impl Cores {
    /// Shares out the cores this process may use: half to the target, the other half to flood and clients; with fewer than four, flood
    /// and clients share one; a single one has everything.
    ///
    /// # Errors
    /// Of sched_getaffinity(2).
    pub fn share_out() -> nix::Result<Cores> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cores: Vec<usize> = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect();
        Ok(Cores::among(&cores))
    }

    fn among(cores: &[usize]) -> Cores {
        let (outside, target) = match cores.len() {
            0 | 1 => (cores, cores),
            count => cores.split_at(count / 2),
        };
        let (flood, clients) = match outside.len() {
            0 | 1 => (outside, outside),
            count => outside.split_at(count / 2),
        };
        Cores { flood: flood.to_vec(), clients: clients.to_vec(), target: target.to_vec() }
    }

    /// All of them, each once.
    pub fn count(&self) -> usize {
        let mut all = [&self.flood[..], &self.clients, &self.target].concat();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// A sentence for each. `receives_apart`: see [`Lab`](super::Lab).
    pub fn sentences(&self, receives_apart: bool) -> Vec<String> {
        let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        vec![
            format!("flood generator: core {}", list(&self.flood)),
            format!("legitimate clients: core {}", list(&self.clients)),
            match receives_apart {
                true => format!("target, with the reception of all its frames: core {}", list(&self.target)),
                false => format!(
                    "target: core {}; its frames are received on the core of whoever sends, at the sender's expense",
                    list(&self.target)
                ),
            },
        ]
    }
}

/// Binds the calling thread, and what it starts from now on, to these cores.
pub fn bind_to(cores: &[usize]) -> nix::Result<()> {
    let mut wanted = CpuSet::new();
    cores.iter().try_for_each(|&core| wanted.set(core))?;
    sched_setaffinity(Pid::from_raw(0), &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_has_half_and_nobody_has_none() {
        let of = |count: usize| Cores::among(&(0..count).collect::<Vec<_>>());
        assert_eq!(of(1), Cores { flood: vec![0], clients: vec![0], target: vec![0] });
        assert_eq!(of(2), Cores { flood: vec![0], clients: vec![0], target: vec![1] });
        assert_eq!(of(4), Cores { flood: vec![0], clients: vec![1], target: vec![2, 3] });
        assert_eq!(of(8).target, [4, 5, 6, 7]);
        assert_eq!(of(8).count(), 8);
    }
}
