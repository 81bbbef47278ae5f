//! Pure: which parts of a file are here, and which connection fetches what of the rest.
//!
//! Every connection gets a piece in the order of the file, so that what is hashed from the file's start follows closely. When
//! nothing is left to give, who has nothing to do takes half of what the slowest still has to fetch.

use std::ops::Range;

/// Bytes that a connection is asked for at most: what was written and waits to be hashed shall still be in memory.
const MOST: u64 = 64 << 20;
/// Bytes below which a piece is not worth a connection of its own.
const LEAST: u64 = 4 << 20;

/// A file that several connections fetch.
#[derive(Debug)]
pub struct Spread {
    bytes: u64,
    piece: u64,
    /// What is written, in order, with gaps between.
    here: Vec<Range<u64>>,
    /// What each connection has yet to fetch.
    tasks: Vec<Option<Range<u64>>>,
}

impl Spread {
    /// Whether `left` bytes are worth more than one connection.
    pub fn is_worth(left: u64) -> bool {
        left >= 4 * LEAST
    }

    /// Of `bytes` bytes the first `front` are here, and those of `apart`, which are in order.
    pub fn new(bytes: u64, front: u64, apart: &[(u64, u64)], connections: usize) -> Self {
        let mut here = vec![];
        for part in std::iter::once((0, front)).chain(apart.iter().copied()) {
            add(&mut here, part.0..part.1);
        }
        Self {
            bytes,
            piece: (bytes / connections.max(1) as u64).clamp(LEAST, MOST),
            here,
            tasks: vec![None; connections],
        }
    }

    /// Bytes from the start on that are here.
    pub fn front(&self) -> u64 {
        let first = self.here.first();
        first
            .filter(|part| part.start == 0)
            .map_or(0, |part| part.end)
    }

    /// What is here behind the first gap.
    pub fn apart(&self) -> Vec<(u64, u64)> {
        let parts = self.here.iter().filter(|part| part.start > 0);
        parts.map(|part| (part.start, part.end)).collect()
    }

    /// Bytes that are here.
    pub fn written(&self) -> u64 {
        self.here.iter().map(|part| part.end - part.start).sum()
    }

    /// What this connection is to fetch now; `None`: there is nothing left for it.
    pub fn claim(&mut self, connection: usize) -> Option<Range<u64>> {
        self.tasks[connection] = None;
        let piece = self.gap().or_else(|| self.half())?;
        self.tasks[connection] = Some(piece.clone());
        Some(piece)
    }

    /// The first piece that is neither here nor fetched.
    fn gap(&self) -> Option<Range<u64>> {
        let mut taken: Vec<_> = self
            .here
            .iter()
            .chain(self.tasks.iter().flatten())
            .collect();
        taken.sort_by_key(|part| part.start);
        let mut start = 0;
        for part in taken {
            if part.start > start {
                return Some(start..part.start.min(start + self.piece));
            }
            start = start.max(part.end);
        }
        (start < self.bytes).then(|| start..self.bytes.min(start + self.piece))
    }

    /// The second half of the largest piece that is fetched, taken from who fetches it.
    fn half(&mut self) -> Option<Range<u64>> {
        let tasks = self.tasks.iter_mut().flatten();
        let largest = tasks.max_by_key(|task| task.end - task.start)?;
        let left = largest.end - largest.start;
        if left < 2 * LEAST {
            return None;
        }
        let (middle, end) = (largest.start + left / 2, largest.end);
        largest.end = middle;
        Some(middle..end)
    }

    /// What this connection has yet to fetch: empty when it is done, which may be sooner than it was told at first.
    pub fn task(&self, connection: usize) -> Range<u64> {
        self.tasks[connection].clone().unwrap_or(0..0)
    }

    /// So many bytes of its task are written.
    pub fn wrote(&mut self, connection: usize, bytes: u64) {
        if let Some(task) = &mut self.tasks[connection] {
            let start = task.start;
            task.start = task.end.min(start + bytes);
            add(&mut self.here, start..task.start);
        }
    }

    /// This connection fetches nothing any more.
    pub fn release(&mut self, connection: usize) {
        self.tasks[connection] = None;
    }
}

/// Adds a part to others, of which those that touch become one.
fn add(here: &mut Vec<Range<u64>>, part: Range<u64>) {
    if part.is_empty() {
        return;
    }
    // Almost always it goes on where one ends.
    let mut merged = part;
    here.retain(|other| {
        let touches = other.start <= merged.end && merged.start <= other.end;
        if touches {
            merged = merged.start.min(other.start)..merged.end.max(other.end);
        }
        !touches
    });
    let place = here.partition_point(|other| other.start < merged.start);
    here.insert(place, merged);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn pieces_are_given_in_order_and_make_the_whole() {
        let mut spread = Spread::new(100 * MIB, 0, &[], 2);
        assert_eq!(spread.claim(0), Some(0..50 * MIB));
        assert_eq!(spread.claim(1), Some(50 * MIB..100 * MIB));
        spread.wrote(1, 50 * MIB);
        assert_eq!((spread.front(), spread.written()), (0, 50 * MIB));
        assert_eq!(spread.apart(), [(50 * MIB, 100 * MIB)]);
        // The first is slow; the second helps.
        spread.wrote(0, 10 * MIB);
        assert_eq!(spread.claim(1), Some(30 * MIB..50 * MIB));
        assert_eq!(spread.task(0), 10 * MIB..30 * MIB);
        spread.wrote(0, 20 * MIB);
        assert!(spread.task(0).is_empty());
        spread.wrote(1, 20 * MIB);
        assert_eq!((spread.front(), spread.claim(0)), (100 * MIB, None));
    }

    #[test]
    fn what_came_before_is_not_fetched_again() {
        let apart = [(20 * MIB, 30 * MIB), (32 * MIB, 40 * MIB)];
        let mut spread = Spread::new(40 * MIB, 3 * MIB, &apart, 2);
        assert_eq!(spread.claim(0), Some(3 * MIB..20 * MIB));
        assert_eq!(spread.claim(1), Some(30 * MIB..32 * MIB));
        // What one leaves is another's.
        spread.wrote(0, MIB);
        spread.release(0);
        spread.wrote(1, 2 * MIB);
        assert_eq!(spread.claim(1), Some(4 * MIB..20 * MIB));
        spread.wrote(1, 16 * MIB);
        assert_eq!((spread.front(), spread.apart()), (40 * MIB, vec![]));
    }

    #[test]
    fn little_is_not_divided() {
        let mut spread = Spread::new(6 * MIB, 0, &[], 2);
        assert_eq!(spread.claim(0), Some(0..4 * MIB));
        assert_eq!(spread.claim(1), Some(4 * MIB..6 * MIB));
        spread.wrote(1, 2 * MIB);
        assert_eq!(spread.claim(1), None);
        assert!(!Spread::is_worth(6 * MIB) && Spread::is_worth(16 * MIB));
    }
}
