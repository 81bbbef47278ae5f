//! Subordinate user ids (subuid(5)): the numbers that a user may give to their containers.

use std::fs;

use nix::unistd::User;

/// Where they are assigned.
const FILE: &str = "/etc/subuid";
/// Bytes of that file that are read.
const MOST_BYTES: u64 = 1 << 20;

/// Whose a number is that no user has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubordinateIds {
    /// Sorted by their starts.
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: u32,
    count: u32,
    owner: u32,
}

impl SubordinateIds {
    /// Those of this machine; none where nothing is assigned. A file that cannot be read is logged.
    pub fn read() -> Self {
        use std::io::Read;
        let mut text = String::new();
        let read =
            fs::File::open(FILE).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => Self::parse(&text, |name| {
                User::from_name(name)
                    .ok()
                    .flatten()
                    .map(|user| user.uid.as_raw())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "{FILE} cannot be read: users with containers are not counted as one");
                Self::default()
            }
        }
    }

    /// Lines of `user:start:count`, where `user` is a name or a number. Others are passed over, as
    /// newuidmap(1) does.
    fn parse(text: &str, uid: impl Fn(&str) -> Option<u32>) -> Self {
        let range = |line: &str| {
            let mut fields = line.trim().split(':');
            let (user, start, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Range {
                start: start.parse().ok()?,
                count: count.parse().ok()?,
                owner: user.parse().ok().or_else(|| uid(user))?,
            })
        };
        let mut ranges: Vec<Range> = text.lines().filter_map(range).collect();
        ranges.sort_unstable();
        Self { ranges }
    }

    /// The user to whom `uid` is assigned. Root and numbers that are nobody's have none; of ranges
    /// that overlap the last that begins before it counts.
    pub fn owner(&self, uid: u32) -> Option<u32> {
        let after = self.ranges.partition_point(|range| range.start <= uid);
        let mut before = self.ranges[..after].iter().rev();
        let range = before.find(|range| uid - range.start < range.count)?;
        Some(range.owner).filter(|owner| *owner != uid && uid != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_belong_to_the_users_they_are_assigned_to() {
        let ids = SubordinateIds::parse(
            "alice:100000:65536\n1002:165536:65536\n# a comment\nnobody-here:300000:10\nalice:bad:1\n\nalice:500:0\nroot:0:10\n",
            |name| match name {
                "alice" => Some(1001),
                "root" => Some(0),
                _ => None,
            },
        );
        for (uid, owner) in [
            (0, None),
            (1001, None),
            (99_999, None),
            (100_000, Some(1001)),
            (165_535, Some(1001)),
            (165_536, Some(1002)),
            (231_071, Some(1002)),
            (231_072, None),
            (300_000, None),
            (500, None),
            (u32::MAX, None),
        ] {
            assert_eq!(ids.owner(uid), owner, "{uid}");
        }
    }
}
