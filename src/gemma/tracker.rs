//! Which part of an answer a token belongs to: a thought, the text or a call. Pure.
//!
//! ```text
//!   Start, Text, Called ──── <|channel> ─────▶ Thought ──── <channel|> ────▶ Start
//!   any part ────────────── <|tool_call> ────▶ Call ────── <tool_call|> ───▶ Called
//!   Start ────────────── any other token ────▶ Text
//! ```
//!
//! [`AnswerTracker`] alone knows what the markers of the format do. The parser makes events of its
//! steps, and the worker's guide decides by them what may be sampled next. Markers out of place move
//! nothing, and what ends a turn closes a thought or a call that is open.

use super::marker;

/// One token of an answer.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// A control token, by its exact text.
    Control(&'a str),
    /// Any other token's bytes, which may be a part of a character.
    Bytes(&'a [u8]),
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    /// Nothing was written yet, or a thought has ended.
    Start,
    Thought,
    Text,
    Call,
    /// Behind a call.
    Called,
}

/// What one token did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerStep {
    pub from: AnswerPart,
    pub to: AnswerPart,
    /// The part `from` has ended and `to` has begun, which may be another of the same kind.
    pub is_new: bool,
}

impl AnswerStep {
    /// A token of an answer that has no parts: all of it is text.
    pub const TEXT: Self = Self {
        from: AnswerPart::Text,
        to: AnswerPart::Text,
        is_new: false,
    };
}

/// Follows one answer from part to part.
#[derive(Clone, Debug)]
pub struct AnswerTracker {
    part: AnswerPart,
}

impl AnswerTracker {
    /// `in_thought`: the prompt ends inside an open thinking channel.
    pub fn new(in_thought: bool) -> Self {
        let part = if in_thought {
            AnswerPart::Thought
        } else {
            AnswerPart::Start
        };
        Self { part }
    }

    /// The part that the next token finds.
    pub fn part(&self) -> AnswerPart {
        self.part
    }

    /// Takes the next token.
    pub fn take(&mut self, token: Token<'_>) -> AnswerStep {
        use AnswerPart::{Call, Called, Start, Text, Thought};
        let control = match token {
            Token::Control(text) => text,
            Token::Bytes(_) => "",
        };
        let from = self.part;
        let begun = match (from, control) {
            (_, marker::TOOL_CALL) => Some(Call),
            (Start | Text | Called | Thought, marker::CHANNEL) => Some(Thought),
            (Thought, marker::CHANNEL_END | marker::TURN | marker::TURN_END | marker::EOS) => {
                Some(Start)
            }
            (
                Call,
                marker::TOOL_CALL_END
                | marker::TURN
                | marker::TURN_END
                | marker::TOOL_RESPONSE
                | marker::EOS,
            ) => Some(Called),
            (Start, _) => Some(Text),
            _ => None,
        };
        self.part = begun.unwrap_or(from);
        AnswerStep {
            from,
            to: self.part,
            is_new: begun.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AnswerPart::{Call, Called, Start, Text, Thought};

    fn parts(in_thought: bool, tokens: &[&str]) -> Vec<AnswerPart> {
        let mut tracker = AnswerTracker::new(in_thought);
        let take = |token: &&str| {
            let before = tracker.part();
            let step = tracker.take(match token.starts_with('<') {
                true => Token::Control(token),
                false => Token::Bytes(token.as_bytes()),
            });
            assert_eq!((step.from, step.to), (before, tracker.part()));
            assert!(step.is_new || step.from == step.to);
            step.to
        };
        tokens.iter().map(take).collect()
    }

    #[test]
    fn an_answer_goes_from_part_to_part() {
        assert_eq!(
            parts(
                false,
                &[
                    marker::CHANNEL,
                    "thought\n",
                    marker::CHANNEL_END,
                    "Hi",
                    marker::TOOL_CALL,
                    "call:f{}",
                    marker::TOOL_CALL_END,
                    marker::TOOL_CALL,
                ]
            ),
            [Thought, Thought, Start, Text, Call, Call, Called, Call]
        );
        assert_eq!(
            parts(true, &["a", marker::TOOL_CALL, "b"]),
            [Thought, Call, Call]
        );
        assert_eq!(
            parts(false, &["Hi", marker::CHANNEL, "x"]),
            [Text, Thought, Thought]
        );
    }

    #[test]
    fn markers_out_of_place_move_nothing() {
        assert_eq!(
            parts(
                false,
                &[marker::CHANNEL_END, marker::TOOL_CALL_END, marker::TURN]
            ),
            [Text; 3]
        );
        assert_eq!(
            parts(false, &[marker::TOOL_CALL, marker::CHANNEL, marker::QUOTE]),
            [Call; 3]
        );
    }

    #[test]
    fn the_end_of_a_turn_closes_what_is_open() {
        assert_eq!(parts(true, &[marker::TURN_END]), [Start]);
        assert_eq!(
            parts(false, &[marker::TOOL_CALL, marker::TOOL_RESPONSE]),
            [Call, Called]
        );
    }

    #[test]
    fn a_part_may_begin_behind_one_of_its_kind() {
        for marker in [marker::CHANNEL, marker::TOOL_CALL] {
            let mut tracker = AnswerTracker::new(false);
            let first = tracker.take(Token::Control(marker));
            let second = tracker.take(Token::Control(marker));
            assert!(first.is_new && second.is_new && second.from == second.to);
            assert!(!tracker.take(Token::Bytes(b"x")).is_new);
        }
    }
}
