//! What followed the same words before: in the prompt, in the answer so far, or in the text that the
//! client predicts. Pure.
//!
//! Nothing is indexed: looking through 100,000 tokens takes less than a thousandth of the step that it
//! may save. Once a place is found it is followed for as long as the answer says what stands there.

use crate::gemma::vocabulary::Token;

/// Tokens that must be the same before a place is followed. One says nothing.
const LEAST: usize = 2;
/// Tokens that are compared. Of places with more in common none is the better one.
const LONGEST: usize = 16;
/// As many tokens count as the same before the prediction's beginning, where the answer begins.
const AT_START: usize = 8;

/// A text in which a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Prediction,
    Prompt,
    Answer,
}

/// Where the answer is in a text, if it goes on as that does.
#[derive(Clone, Copy, Debug)]
struct Place {
    text: Text,
    /// The token of the text that comes next.
    at: usize,
    /// Tokens before it that are the same.
    same: usize,
}

/// What is looked through, beside the prompt.
#[derive(Debug, Default)]
pub struct Lookup {
    prediction: Vec<Token>,
    answer: Vec<Token>,
    /// `None`: it is to be looked for.
    place: Option<Place>,
    /// Where the answer left the text that it followed last: it may come back to what is behind.
    left: Option<Place>,
}

/// What comes next at the place that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub tokens: &'a [Token],
    /// Tokens before it that are the same.
    pub same: usize,
}

impl Lookup {
    /// `prediction`: what the answer may be; the answer is expected to begin with it.
    pub fn new(prediction: Vec<Token>) -> Self {
        let place = Place {
            text: Text::Prediction,
            at: 0,
            same: AT_START,
        };
        Self {
            place: Some(place).filter(|_| !prediction.is_empty()),
            prediction,
            ..Self::default()
        }
    }

    /// The answer goes on with `token`.
    pub fn take(&mut self, prompt: &[Token], token: Token) {
        if let Some(place) = self.place {
            if self.text(place.text, prompt).get(place.at) == Some(&token) {
                self.place = Some(Place {
                    at: place.at + 1,
                    same: place.same + 1,
                    ..place
                });
            } else {
                (self.place, self.left) = (None, Some(place));
            }
        }
        self.answer.push(token);
    }

    /// What may come next, `most` tokens at most.
    pub fn find<'a>(&'a mut self, prompt: &'a [Token], most: usize) -> Option<Found<'a>> {
        let ends = |place: &Place| place.at >= self.text(place.text, prompt).len();
        if self.place.as_ref().is_none_or(ends) {
            self.place = self.search(prompt);
        }
        let Place { text, at, same } = self.place?;
        let text = self.text(text, prompt);
        let tokens = text.get(at..(at + most).min(text.len()))?;
        Some(Found { tokens, same }).filter(|found| !found.tokens.is_empty())
    }

    fn text<'a>(&'a self, text: Text, prompt: &'a [Token]) -> &'a [Token] {
        match text {
            Text::Prediction => &self.prediction,
            Text::Prompt => prompt,
            Text::Answer => &self.answer,
        }
    }

    /// The place with most in common; of several the next one behind the place that was left, else the
    /// last one.
    fn search(&self, prompt: &[Token]) -> Option<Place> {
        let suffix: Vec<Token> = self
            .answer
            .iter()
            .rev()
            .chain(prompt.iter().rev())
            .take(LONGEST)
            .copied()
            .collect();
        let last = *suffix.first()?;
        let mut best: Option<(Place, bool)> = None;
        for text in [Text::Prompt, Text::Answer, Text::Prediction] {
            let tokens = self.text(text, prompt);
            let left = self.left.filter(|left| left.text == text);
            // Behind the last token of a text nothing comes.
            let places = tokens.iter().enumerate().rev().skip(1);
            for (before, _) in places.filter(|(_, token)| **token == last) {
                let at = before + 1;
                let before = tokens[..at].iter().rev();
                let same = before.zip(&suffix).take_while(|(a, b)| a == b).count();
                let is_behind = left.is_some_and(|left| at >= left.at);
                let is_better = best.is_none_or(|(best, best_is_behind)| {
                    same > best.same
                        || same == best.same && is_behind >= best_is_behind && {
                            // Of those behind the place that was left the first is the nearest; of others
                            // the latest was seen first.
                            is_behind || best.text != text
                        }
                });
                if same >= LEAST && is_better {
                    best = Some((Place { text, at, same }, is_behind));
                }
            }
        }
        best.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    fn text(tokens: &[Token]) -> String {
        tokens.iter().map(|&token| token as u8 as char).collect()
    }

    /// What is found after `answer`, with the number of tokens in common.
    fn after(prediction: &str, prompt: &str, answer: &str) -> Option<(String, usize)> {
        let (mut lookup, prompt) = (Lookup::new(tokens(prediction)), tokens(prompt));
        for token in tokens(answer) {
            lookup.find(&prompt, 8);
            lookup.take(&prompt, token);
        }
        lookup
            .find(&prompt, 4)
            .map(|found| (text(found.tokens), found.same))
    }

    fn found(text: &str, same: usize) -> Option<(String, usize)> {
        Some((text.to_owned(), same))
    }

    #[test]
    fn the_longest_match_is_followed() {
        assert_eq!(after("", "abcdefg.", "bcd"), found("efg.", 3));
        assert_eq!(
            after("", "xbcd1 abcd2 ", "abcd"),
            found("2 ", 5),
            "the prompt's end belongs to it"
        );
        assert_eq!(after("", "abcdefg.", "zg"), None, "one token says nothing");
        assert_eq!(after("", "abcdefg.", ""), None);
        assert_eq!(after("", "", "abc abc"), found(" abc", 3));
    }

    #[test]
    fn the_answer_may_begin_as_predicted() {
        assert_eq!(after("abcdefgh", "question?", ""), found("abcd", AT_START));
        assert_eq!(
            after("abcdefgh", "question?", "ab"),
            found("cdef", AT_START + 2)
        );
        // It says something else, and comes back.
        assert_eq!(after("abcdefgh", "question?", "aXcd"), found("efgh", 2));
    }

    #[test]
    fn what_comes_next_behind_the_place_that_was_left_is_preferred() {
        let lines = "a1;end b2;end c3;end d4;end";
        // The second line is changed: the third comes next, not the one after the first.
        assert_eq!(after(lines, "", "a1;end bX;end"), found(" c3;", 4));
        // Without such a place the latest is, behind which something comes.
        assert_eq!(after("", lines, "X;end"), found(" d4;", 4));
    }

    proptest! {
        #[test]
        fn what_is_found_stands_behind_the_same_words(prediction in "[ab]{0,20}", prompt in "[ab]{0,30}", answer in "[ab]{0,30}") {
            let (mut lookup, tokens_of_prompt) = (Lookup::new(tokens(&prediction)), tokens(&prompt));
            let mut said = String::new();
            for token in answer.chars() {
                if let Some(Found { tokens, same }) = lookup.find(&tokens_of_prompt, 8) {
                    prop_assert!((1..=8).contains(&tokens.len()) && same >= LEAST);
                    let next = text(tokens);
                    let before = format!("{prompt}{said}");
                    let common = &before[before.len().saturating_sub(same.min(LEAST))..];
                    let is_there = |place: &str| place.contains(&format!("{common}{next}"));
                    let starts = prediction.starts_with(&format!("{said}{next}"));
                    prop_assert!(starts || [&prediction, &prompt, &said].into_iter().any(|place| is_there(place)), "{next} {same}");
                }
                lookup.take(&tokens_of_prompt, Token::from(token as u8));
                said.push(token);
            }
        }
    }
}
