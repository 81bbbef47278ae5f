//! Which model fits. Pure.

/// The model that `auto` means: the largest file that the available memory holds whole, else the smallest.
/// `models` are ids with their files' bytes, a projector's included.
pub fn choose<'a>(models: &[(&'a str, u64)], available: u64) -> Option<&'a str> {
    let largest_that_fits = models.iter().filter(|(_, size)| *size <= available).max_by_key(|(id, size)| (*size, std::cmp::Reverse(*id)));
    largest_that_fits.or_else(|| models.iter().min_by_key(|(_, size)| *size)).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_else_the_smallest() {
        let models = [("e2b", 3), ("e4b", 5), ("12b", 7)];
        assert_eq!(choose(&models, 6), Some("e4b"));
        assert_eq!(choose(&models, 100), Some("12b"));
        assert_eq!(choose(&models, 1), Some("e2b"));
        assert_eq!(choose(&[], 1), None);
    }
}
