//! Characters that a page draws more than once. Pure.

use std::collections::HashMap;

/// Of the size of a character: the same one that is drawn again no further off than this, along its
/// line …
const AGAIN_ALONG: f64 = 0.1;
/// … and across it, only makes the first one bold or gives it a shadow.
const AGAIN_ACROSS: f64 = 0.2;

/// A character, its size in 64ths, and the field in which it begins.
type Place = (char, i64, i64, i64);

/// Where each character was drawn. A field is as large as what counts as the same place, so that it
/// holds one character of a kind and a look at its neighbours is enough, whatever a page draws.
#[derive(Debug, Default)]
pub struct Drawn(HashMap<Place, (f64, f64)>);

impl Drawn {
    /// Whether the page has drawn this character here before; notes it if not.
    pub fn again(&mut self, text: &str, x: f64, y: f64, size: f64) -> bool {
        let Some(first) = text.chars().next() else {
            return false;
        };
        let (along, across) = (AGAIN_ALONG * size, AGAIN_ACROSS * size);
        let sized = (size * 64.0).round() as i64;
        let (column, row) = ((x / along).floor() as i64, (y / across).floor() as i64);
        let near = |(right, down): (i64, i64)| {
            let place = (
                first,
                sized,
                column.saturating_add(right),
                row.saturating_add(down),
            );
            self.0.get(&place).is_some_and(|(there_x, there_y)| {
                (there_x - x).abs() <= along && (there_y - y).abs() <= across
            })
        };
        let again = (-1..=1)
            .flat_map(|right| (-1..=1).map(move |down| (right, down)))
            .any(near);
        if !again {
            self.0.insert((first, sized, column, row), (x, y));
        }
        again
    }
}
