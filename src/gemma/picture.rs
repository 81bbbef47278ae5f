//! The size to which a picture is scaled for the family, and how many tokens it becomes. Pure.
//!
//! A picture is scaled, its proportions kept, to the largest size whose sides are whole tokens and
//! which does not take more tokens than its budget. This is what the family's image processor does
//! (transformers, `Gemma4ImageProcessor`).

pub use crate::chat::BUDGETS;
use crate::chat::Detail;

/// Sides of the square of pixels that becomes one token: 3 × 3 patches of 16.
pub const TOKEN_SIDE: u32 = 48;
/// The family's usual number.
pub const USUAL_BUDGET: u32 = BUDGETS[2];

/// A size in pixels, whole tokens on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    /// Whether a picture that may take so many tokens can have this size.
    pub fn is_within(self, budget: u32) -> bool {
        let is_whole = |side: u32| side > 0 && side.is_multiple_of(TOKEN_SIDE);
        let across = u64::from(self.width / TOKEN_SIDE);
        is_whole(self.width)
            && is_whole(self.height)
            && across * u64::from(self.height / TOKEN_SIDE) <= u64::from(budget)
    }

    pub fn tokens(self) -> u32 {
        self.width / TOKEN_SIDE * (self.height / TOKEN_SIDE)
    }
}

/// Tokens that a picture may take. On its own a picture gets the smallest budget that need not
/// shrink it, up to the usual one: more would only show the same pixels larger.
pub fn budget(detail: Detail, width: u32, height: u32) -> u32 {
    let pixels = u64::from(width) * u64::from(height);
    let holds = |budget: &u32| u64::from(*budget) * u64::from(TOKEN_SIDE).pow(2) >= pixels;
    match detail {
        Detail::Low => BUDGETS[0],
        Detail::High => BUDGETS[BUDGETS.len() - 1],
        Detail::Tokens(tokens) => tokens,
        Detail::Auto => BUDGETS
            .into_iter()
            .find(holds)
            .map_or(USUAL_BUDGET, |budget| budget.min(USUAL_BUDGET)),
    }
}

/// [`budget`] of the largest picture.
pub fn largest_budget(detail: Detail) -> u32 {
    budget(detail, u32::MAX, u32::MAX)
}

/// The size at which a picture of `width` × `height` pixels is shown; both are at least 1.
pub fn size(width: u32, height: u32, budget: u32) -> Size {
    let (wide, high) = (f64::from(width.max(1)), f64::from(height.max(1)));
    let side = f64::from(TOKEN_SIDE);
    let factor = (f64::from(budget) * side * side / (wide * high)).sqrt();
    let whole = |length: f64| (factor * length / side).floor() as u32;
    // A strip that is thinner than a token gets one token's thickness, and its length in
    // thicknesses.
    let strip = |long: u32, short: u32| (long / short.max(1)).clamp(1, budget);
    let (across, down) = match (whole(wide), whole(high)) {
        (across, 0) => (if across == 0 { 1 } else { strip(width, height) }, 1),
        (0, down) => (1, if down == 0 { 1 } else { strip(height, width) }),
        both => both,
    };
    Size {
        width: across * TOKEN_SIDE,
        height: down * TOKEN_SIDE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_those_of_the_familys_processor() {
        // transformers 5.23, get_aspect_ratio_preserving_size(height, width, 16, budget * 9, 3)
        for (width, height, budget, expected) in [
            (480, 336, 70, (480, 336)),
            (480, 336, 280, (960, 672)),
            (672, 240, 70, (672, 240)),
            (768, 768, 280, (768, 768)),
            (1, 1, 70, (384, 384)),
            (4000, 3000, 280, (912, 672)),
            (4000, 3000, 1120, (1824, 1344)),
            (3000, 4000, 140, (480, 624)),
            (16384, 1, 70, (3360, 48)),
            (1, 16384, 280, (48, 13440)),
            (5000, 30, 70, (3360, 48)),
            (3000, 60, 70, (2832, 48)),
        ] {
            let found = size(width, height, budget);
            assert_eq!(
                (found.width, found.height),
                expected,
                "{width} x {height} at {budget}"
            );
        }
    }

    #[test]
    fn detail_becomes_a_budget() {
        assert_eq!(budget(Detail::Low, 4000, 3000), 70);
        assert_eq!(
            (
                budget(Detail::High, 10, 10),
                budget(Detail::Tokens(560), 10, 10)
            ),
            (1120, 560)
        );
        for (width, height, tokens) in [
            (1, 1, 70),
            (480, 336, 70),
            (481, 336, 140),
            (640, 480, 140),
            (800, 600, 280),
            (4000, 3000, 280),
        ] {
            assert_eq!(
                budget(Detail::Auto, width, height),
                tokens,
                "{width} x {height}"
            );
        }
    }

    #[test]
    fn what_no_picture_is_scaled_to_is_known() {
        for (width, height, is_within) in [
            (480, 672, true),
            (480, 720, false),
            (0, 48, false),
            (48, 0, false),
            (49, 48, false),
            (u32::MAX / 48 * 48, u32::MAX / 48 * 48, false),
        ] {
            assert_eq!(
                Size { width, height }.is_within(140),
                is_within,
                "{width} x {height}"
            );
        }
        assert_eq!(largest_budget(Detail::Auto), 280);
        assert_eq!(largest_budget(Detail::Tokens(560)), 560);
    }

    proptest! {
        #[test]
        fn never_more_than_the_budget(width in 1u32..20_000, height in 1u32..20_000, which in 0usize..5) {
            let size = size(width, height, BUDGETS[which]);
            prop_assert!((1..=BUDGETS[which]).contains(&size.tokens()), "{size:?}");
            prop_assert!(size.is_within(BUDGETS[which]), "{size:?}");
            prop_assert!(size.width.is_multiple_of(TOKEN_SIDE) && size.height.is_multiple_of(TOKEN_SIDE));
        }
    }
}
