//! Where in a client's request a part of a [`ChatRequest`](crate::chat::ChatRequest) comes from.
//! Pure.

use crate::api::openai::chat::fields;
use crate::chat::Place;

/// For each message of the conversation, the item of `input` that it was made of; `None` for what
/// came from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub Vec<Option<usize>>);

impl Places {
    /// The field of this API that a field of a chat request is.
    pub fn field(&self, place: Place) -> String {
        match place {
            Place::Messages => "input".into(),
            Place::Content { message }
            | Place::Part { message, .. }
            | Place::CallName { message, .. } => match self.0.get(message) {
                Some(Some(item)) => format!("input[{item}]"),
                Some(None) | None => "input".into(),
            },
            Place::Format => "text.format".into(),
            Place::Schema => "text.format.schema".into(),
            Place::MaxTokens => "max_output_tokens".into(),
            Place::ToolName(tool) => format!("tools[{tool}].name"),
            Place::ToolParameters(tool) => format!("tools[{tool}].parameters"),
            place => fields::field(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::PartKind;

    #[test]
    fn fields_are_named_as_the_client_wrote_them() {
        let places = Places(vec![None, Some(0), Some(3)]);
        let kind = PartKind::Picture;
        for (place, expected) in [
            (Place::Messages, "input"),
            (Place::Content { message: 0 }, "input"),
            (
                Place::Part {
                    message: 2,
                    part: 1,
                    kind,
                },
                "input[3]",
            ),
            (Place::Content { message: 9 }, "input"),
            (Place::Format, "text.format"),
            (Place::Schema, "text.format.schema"),
            (Place::ToolName(1), "tools[1].name"),
            (Place::ToolParameters(1), "tools[1].parameters"),
            (Place::MaxTokens, "max_output_tokens"),
            (Place::Temperature, "temperature"),
        ] {
            assert_eq!(places.field(place), expected, "{place:?}");
        }
    }
}
