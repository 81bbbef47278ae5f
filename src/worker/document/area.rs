//! Parts of a page, in cells. Pure.

/// Cells across a page, and down.
pub const SIDE: usize = 64;

/// Some of a page's cells: a row from top to bottom has its first cell in its lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area([u64; SIDE]);

/// The first and the last column and row of a part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    pub columns: (usize, usize),
    pub rows: (usize, usize),
}

impl Default for Area {
    fn default() -> Self {
        Self([0; SIDE])
    }
}

impl Area {
    /// Adds the cells whose middle lies in a convex quadrilateral, its corners one after the other;
    /// the page is as wide and as high as it has cells.
    pub fn add(&mut self, corners: [(f64, f64); 4]) {
        for (row, cells) in self.0.iter_mut().enumerate() {
            let (mut left, mut right) = (f64::INFINITY, f64::NEG_INFINITY);
            let y = row as f64 + 0.5;
            for side in 0..4 {
                let (from, to) = (corners[side], corners[(side + 1) % 4]);
                if (from.1 <= y) == (to.1 <= y) {
                    continue;
                }
                let x = from.0 + (to.0 - from.0) * (y - from.1) / (to.1 - from.1);
                (left, right) = (left.min(x), right.max(x));
            }
            // The middles between the two.
            let (first, end) = ((left - 0.5).ceil().max(0.0), (right - 0.5).floor() + 1.0);
            *cells |= bits(first as usize, (end.max(0.0) as usize).min(SIDE));
        }
    }

    /// Adds all cells that a rectangle touches, be it a line; the page is as wide and as high as it
    /// has cells.
    pub fn touch(&mut self, (left, top): (f64, f64), (right, bottom): (f64, f64)) {
        let on_page = |from: f64, to: f64| from <= to && from < SIDE as f64 && to >= 0.0;
        if !on_page(left, right) || !on_page(top, bottom) {
            return;
        }
        let cell = |at: f64| (at.max(0.0) as usize).min(SIDE - 1);
        self.fill(Cells {
            columns: (cell(left), cell(right)),
            rows: (cell(top), cell(bottom)),
        });
    }

    /// Adds these cells.
    pub fn fill(&mut self, cells: Cells) {
        let columns = bits(cells.columns.0, cells.columns.1 + 1);
        for row in &mut self.0[cells.rows.0..=cells.rows.1] {
            *row |= columns;
        }
    }

    /// Its part of the page.
    pub fn share(&self) -> f64 {
        let count: u32 = self.0.iter().map(|row| row.count_ones()).sum();
        f64::from(count) / (SIDE * SIDE) as f64
    }

    /// The part of these cells that it has.
    pub fn share_of(&self, cells: Cells) -> f64 {
        let columns = bits(cells.columns.0, cells.columns.1 + 1);
        let rows = &self.0[cells.rows.0..=cells.rows.1];
        let count: u32 = rows.iter().map(|row| (row & columns).count_ones()).sum();
        f64::from(count) / (f64::from(columns.count_ones()) * rows.len() as f64)
    }

    /// What surrounds each group of cells between which there are no more than twice `gap` others.
    pub fn groups(&self, gap: usize) -> Vec<Cells> {
        let mut wide = *self;
        (0..gap).for_each(|_| wide = wide.grown());
        let mut groups = vec![];
        while let Some(row) = wide.0.iter().position(|row| *row != 0) {
            let mut group = Self::default();
            group.0[row] = wide.0[row] & wide.0[row].wrapping_neg();
            loop {
                let mut more = group.grown();
                more.0.iter_mut().zip(wide.0).for_each(|(a, b)| *a &= b);
                if more == group {
                    break;
                }
                group = more;
            }
            wide.0.iter_mut().zip(group.0).for_each(|(a, b)| *a &= !b);
            group.0.iter_mut().zip(self.0).for_each(|(a, b)| *a &= b);
            groups.extend(group.surrounding());
        }
        groups
    }

    /// With the cells beside each.
    fn grown(&self) -> Self {
        let mut grown = *self;
        for (row, cells) in grown.0.iter_mut().enumerate() {
            let above = row.checked_sub(1).map_or(0, |above| self.0[above]);
            let below = self.0.get(row + 1).copied().unwrap_or(0);
            let column = *cells | above | below;
            *cells = column | column << 1 | column >> 1;
        }
        grown
    }

    fn surrounding(&self) -> Option<Cells> {
        let top = self.0.iter().position(|row| *row != 0)?;
        let bottom = self.0.iter().rposition(|row| *row != 0)?;
        let all = self.0.iter().fold(0, |all, row| all | row);
        let last = SIDE - 1 - all.leading_zeros() as usize;
        Some(Cells {
            columns: (all.trailing_zeros() as usize, last),
            rows: (top, bottom),
        })
    }
}

/// From the bit at `from` on up to the one before `to`.
fn bits(from: usize, to: usize) -> u64 {
    let below = |at: usize| match at {
        SIDE.. => u64::MAX,
        at => (1 << at) - 1,
    };
    below(to) & !below(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rectangle(left: f64, top: f64, right: f64, bottom: f64) -> [(f64, f64); 4] {
        [(left, top), (right, top), (right, bottom), (left, bottom)]
    }

    fn covered(corners: &[[(f64, f64); 4]]) -> f64 {
        let mut area = Area::default();
        corners.iter().for_each(|corners| area.add(*corners));
        area.share()
    }

    #[test]
    fn what_lies_over_each_other_is_counted_once() {
        let half = rectangle(0.0, 0.0, 32.0, 64.0);
        for (corners, share) in [
            (vec![rectangle(0.0, 0.0, 64.0, 64.0)], 1.0),
            (vec![half, half], 0.5),
            (vec![half, rectangle(32.0, 0.0, 99.0, 64.0)], 1.0),
            // Upside down, and as a diamond.
            (vec![rectangle(64.0, 64.0, 32.0, 0.0)], 0.5),
            (
                vec![[(32.0, 0.0), (64.0, 32.0), (32.0, 64.0), (0.0, 32.0)]],
                0.5,
            ),
            // A scan that comes in strips which are thinner than a cell.
            (
                (0..640)
                    .map(|i| rectangle(0.0, f64::from(i) / 10.0, 64.0, f64::from(i + 1) / 10.0))
                    .collect(),
                1.0,
            ),
            (vec![rectangle(-9.0, -9.0, -1.0, -1.0)], 0.0),
            (vec![rectangle(-1e300, -1e300, 1e300, 1e300)], 1.0),
            (vec![[(f64::NAN, 0.0); 4]], 0.0),
            (vec![rectangle(f64::NEG_INFINITY, 0.0, f64::NAN, 64.0)], 0.0),
        ] {
            let found = covered(&corners);
            assert!((found - share).abs() < 0.02, "{found} {share} {corners:?}");
        }
    }

    #[test]
    fn what_is_near_is_one_group() {
        let mut area = Area::default();
        area.touch((10.0, 40.0), (14.9, 49.0));
        area.touch((18.0, 20.0), (22.0, 49.0));
        // A line at the end of the page, and what is on none.
        area.touch((0.0, 63.5), (80.0, 63.5));
        area.touch((70.0, 0.0), (80.0, 9.0));
        area.touch((f64::NAN, 0.0), (80.0, 9.0));
        let chart = Cells {
            columns: (10, 22),
            rows: (20, 49),
        };
        let line = Cells {
            columns: (0, 63),
            rows: (63, 63),
        };
        assert_eq!(area.groups(2), [chart, line]);
        assert_eq!(area.groups(0).len(), 3);
        assert_eq!(area.share_of(line), 1.0);
        assert!((area.share_of(chart) - 200.0 / 390.0).abs() < 1e-9);
        assert_eq!(Area::default().groups(2), []);
    }
}
