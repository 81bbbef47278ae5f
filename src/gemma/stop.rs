//! Stop strings in a text that arrives in pieces.

/// What may be said of the text held so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The stop string of this number begins at this byte: what is before it is the rest of the
    /// answer.
    Stop { at: usize, which: u8 },
    /// No stop string; this many bytes can no longer become a part of one.
    Free(usize),
}

/// The strings that end an answer. Of several, the one that is complete first counts, so that it
/// does not matter how the text was cut into tokens.
#[derive(Debug)]
pub struct Stops(Vec<(u8, String)>);

impl Stops {
    /// Empty strings are left out: they would end every answer at once.
    pub fn new(stops: Vec<String>) -> Self {
        Self(
            (0..)
                .zip(stops)
                .filter(|(_, stop)| !stop.is_empty())
                .collect(),
        )
    }

    /// Looks at all text that was not released yet.
    pub fn look(&self, text: &str) -> Found {
        let complete = self
            .0
            .iter()
            .filter_map(|(which, stop)| {
                text.find(stop.as_str())
                    .map(|at| (at + stop.len(), at, *which))
            })
            .min();
        if let Some((_, at, which)) = complete {
            return Found::Stop { at, which };
        }
        let held = self
            .0
            .iter()
            .map(|(_, stop)| begun(stop, text))
            .max()
            .unwrap_or(0);
        Found::Free(text.len() - held)
    }
}

/// Bytes of the longest suffix of `text` that begins `stop` without completing it.
fn begun(stop: &str, text: &str) -> usize {
    let longest = (stop.len() - 1).min(text.len());
    (1..=longest)
        .rev()
        .find(|len| {
            text.as_bytes().ends_with(&stop.as_bytes()[..*len]) && stop.is_char_boundary(*len)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(stops: &[&str], text: &str) -> Found {
        Stops::new(stops.iter().map(|s| s.to_string()).collect()).look(text)
    }

    #[test]
    fn holds_back_what_may_become_a_stop() {
        assert_eq!(look(&[], "abc"), Found::Free(3));
        assert_eq!(look(&["xyz"], "abcxy"), Found::Free(3));
        assert_eq!(look(&["xyz"], "xyx"), Found::Free(2));
        assert_eq!(look(&["xyz", "cxyq"], "abcxy"), Found::Free(2));
        assert_eq!(look(&["aab"], "aaa"), Found::Free(1));
        assert_eq!(look(&["", "äö"], "xä"), Found::Free(1));
    }

    #[test]
    fn takes_the_stop_that_is_complete_first() {
        assert_eq!(look(&["b"], "abc"), Found::Stop { at: 1, which: 0 });
        assert_eq!(
            look(&["abcd", "bc"], "abcd"),
            Found::Stop { at: 1, which: 1 }
        );
        assert_eq!(
            look(&["bc", "", "abc"], "abc"),
            Found::Stop { at: 0, which: 2 }
        );
    }
}
