//! Which of several upstreams is asked next. Pure.

use std::sync::Arc;

use crate::config::Upstream;

/// Takes the next one out of `left`: one of those with the smallest priority, as often as its weight
/// says. `random`: any number.
pub fn next<T>(
    left: &mut Vec<Arc<T>>,
    settings: impl Fn(&T) -> &Upstream,
    random: u64,
) -> Option<Arc<T>> {
    let first = left.iter().map(|one| settings(one).priority).min()?;
    let is_first = |one: &Arc<T>| settings(one).priority == first;
    let weight = |one: &Arc<T>| u64::from(settings(one).weight.max(1));
    let total: u64 = left.iter().filter(|one| is_first(one)).map(weight).sum();
    let mut at = random % total.max(1);
    let place = left.iter().position(|one| {
        if !is_first(one) {
            return false;
        }
        let found = at < weight(one);
        at = at.saturating_sub(weight(one));
        found
    })?;
    Some(left.remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_priority_comes_first_and_weights_are_shares() {
        let upstream = |name: &str, priority, weight| {
            Arc::new(Upstream {
                name: name.into(),
                priority,
                weight,
                ..Upstream::default()
            })
        };
        let all = vec![
            upstream("late", 5, 1000),
            upstream("light", 1, 1),
            upstream("heavy", 1, 3),
        ];
        let mut heavy = 0;
        for random in 0..40 {
            let mut left = all.clone();
            let mut names = vec![];
            while let Some(one) = next(&mut left, |one| one, random) {
                names.push(one.name.clone());
            }
            assert_eq!(names.len(), 3);
            assert_eq!(names[2], "late");
            heavy += u32::from(names[0] == "heavy");
        }
        assert_eq!(heavy, 30);
    }
}
