//! Where in a client's request a part of a [`ChatRequest`](crate::chat::ChatRequest) comes from.
//! Pure.

use crate::api::openai::chat::fields;
use crate::chat::Place;

/// What a conversation and its tools were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// For each message, the item of `input`; `None` for what came from elsewhere.
    pub messages: Vec<Option<usize>>,
    /// For each tool, its field.
    pub tools: Vec<String>,
}

impl Places {
    /// The field of this API that a field of a chat request is.
    pub fn field(&self, place: Place) -> String {
        match place {
            Place::Messages => "input".into(),
            Place::Content { message }
            | Place::Part { message, .. }
            | Place::CallName { message, .. } => match self.messages.get(message) {
                Some(Some(item)) => format!("input[{item}]"),
                Some(None) | None => "input".into(),
            },
            Place::Format => "text.format".into(),
            Place::Schema => "text.format.schema".into(),
            Place::MaxTokens => "max_output_tokens".into(),
            Place::ToolName(tool) => format!("{}.name", self.tool(tool)),
            Place::ToolParameters(tool) => format!("{}.parameters", self.tool(tool)),
            place => fields::field(place),
        }
    }

    fn tool(&self, tool: usize) -> &str {
        self.tools.get(tool).map_or("tools", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::PartKind;

    #[test]
    fn fields_are_named_as_the_client_wrote_them() {
        let places = Places {
            messages: vec![None, Some(0), Some(3)],
            tools: vec!["tools[0]".into(), "tools[1].tools[4]".into()],
        };
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
            (Place::ToolName(0), "tools[0].name"),
            (Place::ToolParameters(1), "tools[1].tools[4].parameters"),
            (Place::ToolName(7), "tools.name"),
            (Place::MaxTokens, "max_output_tokens"),
            (Place::Temperature, "temperature"),
        ] {
            assert_eq!(places.field(place), expected, "{place:?}");
        }
    }
}
