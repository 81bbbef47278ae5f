//! How much memory a model may take of what is free. Pure.

use crate::memory::probe::{Bound, Room};

/// What is left to other programs by default: this part of the RAM, within these bytes. Nobody else
/// lives in the group of a service: of a limit it is the same part, however small.
const RESERVE: u64 = 16;
const LEAST_RESERVE: u64 = 64 << 20;
const MOST_RESERVE: u64 = 1 << 30;

/// The memory that a model may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub bytes: u64,
    /// Bytes that are left to others.
    pub reserve: u64,
    pub room: Room,
}

impl Budget {
    /// What `room` leaves for a model. `reserve`: `None` for the default.
    pub fn of(room: Room, reserve: Option<u64>) -> Self {
        let least = match room.bound {
            Bound::Machine => LEAST_RESERVE,
            Bound::Group(_) => 0,
        };
        let reserve = reserve.unwrap_or((room.whole / RESERVE).clamp(least, MOST_RESERVE));
        Self {
            bytes: room.free.saturating_sub(reserve),
            reserve,
            room,
        }
    }

    /// What sets the bound, behind the number of free bytes.
    pub fn bound(&self) -> String {
        match &self.room.bound {
            Bound::Machine => "available on this machine".to_owned(),
            Bound::Group(group) => {
                format!("left of the limit of the control group {}", group.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_groups_reserve_follows_its_limit() {
        let reserve = |bound, whole| {
            Budget::of(
                Room {
                    free: whole,
                    bound,
                    whole,
                },
                None,
            )
            .reserve
                >> 20
        };
        let group = || Bound::Group("/sys/fs/cgroup/system.slice/gemmad.service".into());
        assert_eq!(
            [60, 512, 8192, 65_536].map(|mib| reserve(Bound::Machine, mib << 20)),
            [64, 64, 512, 1024]
        );
        assert_eq!(
            [60, 512, 8192, 65_536].map(|mib| reserve(group(), mib << 20)),
            [3, 32, 512, 1024]
        );
        let chosen = Budget::of(
            Room {
                free: 9 << 20,
                bound: group(),
                whole: 60 << 20,
            },
            Some(5 << 20),
        );
        assert_eq!(
            (chosen.reserve, chosen.bytes),
            (5 << 20, 4 << 20),
            "what the administrator says counts"
        );
    }
}
