//! So many a second, and no more.

use std::time::Duration;

use crate::time::Time;

/// A ration of something costly that an attacker could ask for.
pub(crate) struct Ration {
    per_second: u32,
    left: u32,
    refills_at: Time,
}

impl Ration {
    pub(crate) fn new(per_second: u32, now: Time) -> Ration {
        Ration { per_second, left: per_second, refills_at: now + Duration::from_secs(1) }
    }

    /// Takes one; `false` when this second's are gone.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        if now >= self.refills_at {
            self.left = self.per_second;
            self.refills_at = now + Duration::from_secs(1);
        }
        let granted = self.left > 0;
        self.left -= u32::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_ration_and_the_next_one_again() {
        let mut ration = Ration::new(3, Time::from_secs(1));
        let taken = |ration: &mut Ration, now| (0..10).filter(|_| ration.take(now)).count();
        assert_eq!(taken(&mut ration, Time::from_secs(1)), 3);
        assert_eq!(taken(&mut ration, Time::from_secs(2)), 3);
    }
}
