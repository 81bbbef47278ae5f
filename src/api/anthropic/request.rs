//! A request of the Messages API, made into a [`ChatRequest`] or refused with the field's name.

use crate::api::anthropic::blocks;
use crate::api::openai::chat::fields;
use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, quote};
use crate::chat::{
    ChatRequest, Format, Message, OutputLimits, Place, Role, Thinking, Tool, ToolChoice,
};

/// Parameters that need no honouring here, each with the reason.
const IGNORED: [(&str, &str); 4] = [
    ("metadata", "the kernel says who the caller is"),
    ("service_tier", "there is one tier"),
    ("inference_geo", "there is one place"),
    (
        "cache_control",
        "the prefix cache finds its entries by content",
    ),
];

#[derive(Debug)]
pub struct MessagesCall {
    pub model: String,
    pub request: ChatRequest,
    pub stream: bool,
    pub places: Places,
}

/// For each message of the conversation, the client's own that it was made of; `None` for `system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Option<usize>>);

impl Places {
    /// The field of this API that a field of a chat request is.
    pub fn field(&self, place: Place) -> String {
        match place {
            Place::Content { message }
            | Place::Part { message, .. }
            | Place::CallName { message, .. } => match self.0.get(message) {
                Some(Some(message)) => format!("messages[{message}]"),
                Some(None) => "system".into(),
                None => "messages".into(),
            },
            Place::Stops => "stop_sequences".into(),
            Place::Stop(stop) => format!("stop_sequences[{stop}]"),
            Place::Format | Place::Schema => "output_config.format".into(),
            Place::ToolName(tool) => format!("tools[{tool}].name"),
            Place::ToolParameters(tool) => format!("tools[{tool}].input_schema"),
            place => fields::field(place),
        }
    }
}

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<MessagesCall, Invalid> {
    let mut object = json::body(body)?;
    let max_tokens = Some(object.need("max_tokens")?.u32(1, u32::MAX)?);
    let stop = object.take("stop_sequences").map_or(Ok(vec![]), |stop| {
        stop.array()?.iter().map(Json::string).collect()
    })?;
    let stream = object.switch("stream", false)?;
    let mut sampling = common::sampling(&mut object)?;
    if sampling.temperature > 1.0 {
        // Anthropic's bound; more is likely meant for another API.
        return Err(Invalid::new("temperature", "must be between 0 and 1"));
    }
    sampling.logit_bias.clear();
    let mut call = prompt(object)?;
    call.request.sampling = sampling;
    call.request.output = OutputLimits {
        max_tokens,
        stop,
        ..OutputLimits::default()
    };
    call.stream = stream;
    call.checked()
}

/// Reads the body of a request to count, which has nothing to say about the answer.
pub fn parse_count(body: &[u8]) -> Result<MessagesCall, Invalid> {
    prompt(json::body(body)?)?.checked()
}

impl MessagesCall {
    fn checked(self) -> Result<Self, Invalid> {
        match self.request.check() {
            Ok(()) => Ok(self),
            Err(invalid) => Err(Invalid::at(invalid, |place| self.places.field(place))),
        }
    }
}

/// What the model is to read, and how it may answer.
fn prompt(mut object: Object) -> Result<MessagesCall, Invalid> {
    let model = common::model(&mut object)?;
    let (mut messages, places) = blocks::messages(&object.need("messages")?)?;
    let mut places: Vec<_> = places.into_iter().map(Some).collect();
    let system = object
        .take("system")
        .map(|system| blocks::system(&system))
        .transpose()?;
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        messages.insert(0, Message::text(Role::System, system));
        places.insert(0, None);
    }
    let mut request = ChatRequest::new(messages);
    request.tools = object.take("tools").map_or(Ok(vec![]), |tools| {
        tools.array()?.iter().map(tool).collect()
    })?;
    choice(&mut object, &mut request)?;
    let budget = thinking(&mut object)?;
    let (effort, format) = config(&mut object)?;
    request.format = format;
    request.thinking = match (budget, effort) {
        (Some(Thinking::On { budget: None }), Some(effort)) if effort.is_on() => effort,
        (Some(thinking), _) => thinking,
        // An effort alone is about the answer; thoughts are asked for by `thinking`.
        (None, _) => Thinking::Off,
    };
    for (name, _) in IGNORED {
        object.take(name);
    }
    object.finish()?;
    Ok(MessagesCall {
        model,
        request,
        stream: false,
        places: Places(places),
    })
}

fn tool(json: &Json) -> Result<Tool, Invalid> {
    let mut object = json.object()?;
    if let Some(kind) = object.take("type")
        && kind.string()? != "custom"
    {
        return kind.wrong(format!(
            "is `{}`: tools that the service itself runs are not supported; only `custom` ones are",
            quote(&kind.string()?)
        ));
    }
    let name = object.need("name")?.string()?;
    let description = object.string("description")?.unwrap_or_default();
    let parameters = Some(object.need("input_schema")?.opaque_object()?);
    let strict = object.switch("strict", false)?;
    // The prefix cache finds its entries by itself.
    for idle in ["cache_control", "input_examples", "eager_input_streaming"] {
        object.take(idle);
    }
    object.finish()?;
    Ok(Tool {
        name,
        description,
        parameters,
        strict,
    })
}

fn choice(object: &mut Object, request: &mut ChatRequest) -> Result<(), Invalid> {
    let Some(choice) = object.take("tool_choice") else {
        return Ok(());
    };
    let mut fields = choice.object()?;
    let kind = fields.need("type")?;
    match kind.string()?.as_str() {
        "auto" => {}
        "any" => request.tool_choice = ToolChoice::Required,
        "tool" => request.tool_choice = ToolChoice::Named(fields.need("name")?.string()?),
        "none" => request.tools.clear(),
        other => {
            return kind.wrong(format!(
                "must be `auto`, `any`, `tool` or `none`, not `{}`",
                quote(other)
            ));
        }
    }
    if let Some(one) = fields.take("disable_parallel_tool_use") {
        request.parallel_tool_calls = !one.boolean()?;
    }
    fields.finish()
}

fn thinking(object: &mut Object) -> Result<Option<Thinking>, Invalid> {
    let Some(thinking) = object.take("thinking") else {
        return Ok(None);
    };
    let mut fields = thinking.object()?;
    let kind = fields.need("type")?;
    let thinking = match kind.string()?.as_str() {
        "enabled" => Thinking::On {
            budget: Some(fields.need("budget_tokens")?.u32(1, u32::MAX)?),
        },
        "adaptive" => Thinking::On { budget: None },
        "disabled" => Thinking::Off,
        other => {
            return kind.wrong(format!(
                "must be `enabled`, `adaptive` or `disabled`, not `{}`",
                quote(other)
            ));
        }
    };
    // Thoughts are shown as they are.
    fields.take("display");
    fields.finish()?;
    Ok(Some(thinking))
}

fn config(object: &mut Object) -> Result<(Option<Thinking>, Format), Invalid> {
    let Some(config) = object.take("output_config") else {
        return Ok((None, Format::Text));
    };
    let mut fields = config.object()?;
    let effort = fields.take("effort");
    let effort = effort.map(|effort| match effort.string()?.as_str() {
        "max" => Ok(Thinking::On { budget: None }),
        _ => common::effort(&effort),
    });
    let format = fields.take("format");
    fields.finish()?;
    let Some(format) = format else {
        return Ok((effort.transpose()?, Format::Text));
    };
    let mut fields = format.object()?;
    let kind = fields.need("type")?;
    if kind.string()? != "json_schema" {
        return kind.wrong(format!(
            "must be `json_schema`, not `{}`",
            quote(&kind.string()?)
        ));
    }
    let schema = fields.need("schema")?.opaque_object()?;
    fields.finish()?;
    let strict = false;
    Ok((effort.transpose()?, Format::JsonSchema { schema, strict }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rest: &str) -> Result<MessagesCall, Invalid> {
        parse(
            format!(r#"{{"max_tokens":5,"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#)
                .as_bytes(),
        )
    }

    #[test]
    fn everything_at_once() {
        let call = with(
            r#","model":"Tiny","system":[{"type":"text","text":"a"},{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}],
            "stop_sequences":["x"],"stream":true,"temperature":0.5,"top_p":0.5,"top_k":7,"tools":[{"name":"f","input_schema":{"type":"object"},
            "type":"custom","strict":true}],"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
            "thinking":{"type":"enabled","budget_tokens":2000},"metadata":{"user_id":"u"},"service_tier":"auto""#,
        )
        .unwrap();
        assert_eq!((call.model.as_str(), call.stream), ("Tiny", true));
        let r = call.request;
        assert_eq!(
            r.messages,
            [
                Message::text(Role::System, "a\nb"),
                Message::text(Role::User, "hi")
            ]
        );
        assert_eq!(
            (r.output.max_tokens, r.output.stop, r.sampling.top_k),
            (Some(5), vec!["x".to_owned()], 7)
        );
        assert_eq!(
            (r.tool_choice, r.parallel_tool_calls),
            (ToolChoice::Named("f".into()), false)
        );
        assert_eq!(r.thinking, Thinking::On { budget: Some(2000) });
        let call = with(r#","output_config":{"format":{"type":"json_schema","schema":{"type":"object"}},"effort":"max"}"#).unwrap();
        assert_eq!(
            (call.request.format, call.request.thinking),
            (
                Format::JsonSchema {
                    schema: "{\"type\":\"object\"}".into(),
                    strict: false,
                },
                Thinking::Off
            )
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (rest, field) in [
            (r#","max_token":5"#, "max_token"),
            (r#","stop_sequences":"x""#, "stop_sequences"),
            (r#","stop_sequences":[""]"#, "stop_sequences[0]"),
            (r#","temperature":1.5"#, "temperature"),
            (r#","system":7"#, "system"),
            (r#","tools":[{"name":"f"}]"#, "tools[0].input_schema"),
            (
                r#","tools":[{"name":"f g","input_schema":{}}]"#,
                "tools[0].name",
            ),
            (
                r#","tools":[{"type":"web_search_20260101","name":"web_search"}]"#,
                "tools[0].type",
            ),
            (r#","tool_choice":"auto""#, "tool_choice"),
            (r#","tool_choice":{"type":"any"}"#, "tool_choice"),
            (
                r#","thinking":{"type":"enabled"}"#,
                "thinking.budget_tokens",
            ),
            (r#","thinking":{"type":"much"}"#, "thinking.type"),
            (
                r#","output_config":{"format":{"type":"xml"}}"#,
                "output_config.format.type",
            ),
            (r#","container":"c""#, "container"),
            (r#","mcp_servers":[]"#, "mcp_servers"),
        ] {
            assert_eq!(with(rest).expect_err(rest).field, field, "{rest}");
        }
        assert_eq!(
            parse(br#"{"messages":[]}"#).unwrap_err().field,
            "max_tokens"
        );
        assert_eq!(
            parse_count(br#"{"messages":[]}"#).unwrap_err().field,
            "messages"
        );
        let said = r#"{"max_tokens":5,"system":"s","messages":[{"role":"user","content":"a"},{"role":"user","content":""}]}"#;
        assert_eq!(parse(said.as_bytes()).unwrap_err().field, "messages[1]");
        assert!(parse_count(br#"{"messages":[{"role":"user","content":"a"}]}"#).is_ok());
    }
}
