//! Where in a client's request a part of a [`ChatRequest`](crate::chat::ChatRequest) comes from.
//! Pure.

/// For each message of the conversation, the item of `input` that it was made of; `None` for what
/// came from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub Vec<Option<usize>>);

impl Places {
    /// The field of this API that a field of a chat request is.
    pub fn of(&self, field: &str) -> String {
        if let Some(rest) = field.strip_prefix("messages") {
            let message = rest
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
            let item = message.and_then(|message| *self.0.get(message)?);
            return item.map_or("input".into(), |item| format!("input[{item}]"));
        }
        if let Some(rest) = field.strip_prefix("response_format") {
            return format!(
                "text.format{}",
                rest.strip_prefix(".json_schema").unwrap_or(rest)
            );
        }
        match field {
            "max_tokens" => "max_output_tokens".into(),
            _ if field.starts_with("tools[") => field.replacen("].function", "]", 1),
            _ => field.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_client_wrote_them() {
        let places = Places(vec![None, Some(0), Some(3)]);
        for (field, expected) in [
            ("messages", "input"),
            ("messages[0].content", "input"),
            ("messages[2].content[1].image_url", "input[3]"),
            ("messages[9]", "input"),
            ("response_format", "text.format"),
            ("response_format.json_schema.schema", "text.format.schema"),
            ("tools[1].function.name", "tools[1].name"),
            ("max_tokens", "max_output_tokens"),
            ("temperature", "temperature"),
        ] {
            assert_eq!(places.of(field), expected, "{field}");
        }
    }
}
