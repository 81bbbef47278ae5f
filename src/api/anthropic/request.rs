//! A request of the Messages API, made into a [`ChatRequest`] or refused with the field's name.

use crate::api::anthropic::blocks::{self, Conversation};
use crate::api::anthropic::tools;
use crate::api::conversation;
use crate::api::fields::{self as known, Level};
use crate::api::ignored::Ignored;
use crate::api::openai::chat::fields;
use crate::api::openai::chat::request::may_repeat;
use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json, Object, quote};
use crate::api::progress::Wish;
use crate::api::speculation;
use crate::chat::{ChatRequest, Format, OutputLimits, Part, Place, Role, Thinking};

/// What a client asks for that has a conversation kept, and takes as an answer.
pub const THREAD: &str = "thread";

#[derive(Debug)]
pub struct MessagesCall {
    pub model: String,
    pub request: ChatRequest,
    pub stream: bool,
    /// What is told while the request waits.
    pub progress: Wish,
    pub places: Places,
    pub show: Show,
    /// What was left out of the request.
    pub ignored: Ignored,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Thoughts are sent sealed, in their signatures, and not to be read.
    pub omits_thoughts: bool,
    /// The answer says which edits were made to the conversation.
    pub edits: bool,
}

/// Where a request's parts come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// For each message of the conversation, the client's own that it was made of; `None` for
    /// `system`.
    messages: Vec<Option<usize>>,
    /// For each tool, its field.
    tools: Vec<String>,
}

impl Places {
    /// The field of this API that a field of a chat request is.
    pub fn field(&self, place: Place) -> String {
        match place {
            Place::Content { message }
            | Place::Part { message, .. }
            | Place::CallName { message, .. } => match self.messages.get(message) {
                Some(Some(message)) => format!("messages[{message}]"),
                Some(None) => "system".into(),
                None => "messages".into(),
            },
            Place::Stops => "stop_sequences".into(),
            Place::Stop(stop) => format!("stop_sequences[{stop}]"),
            Place::Format | Place::Schema => "output_config.format".into(),
            Place::ToolName(tool) => format!("{}.name", self.tool(tool)),
            Place::ToolParameters(tool) => format!("{}.input_schema", self.tool(tool)),
            place => fields::field(place),
        }
    }

    fn tool(&self, tool: usize) -> &str {
        self.tools.get(tool).map_or("tools", String::as_str)
    }
}

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<MessagesCall, Invalid> {
    let mut object = json::body(body)?;
    let max_tokens = object.need("max_tokens")?.u32(1, u32::MAX)?;
    with_wishes(object, Some(max_tokens))
}

/// Reads the body of a request to count, which may leave out what it would say about the answer.
pub fn parse_count(body: &[u8]) -> Result<MessagesCall, Invalid> {
    let mut object = json::body(body)?;
    let max_tokens = object.u32("max_tokens", 1, u32::MAX)?;
    with_wishes(object, max_tokens)
}

/// Reads what is said about the answer, and the rest.
fn with_wishes(mut object: Object, max_tokens: Option<u32>) -> Result<MessagesCall, Invalid> {
    let stop = object.take("stop_sequences").map_or(Ok(vec![]), |stop| {
        stop.array()?.iter().map(Json::string).collect()
    })?;
    let stream = object.switch("stream", false)?;
    let progress = Wish::take_with_options(&mut object)?;
    let may_repeat = may_repeat(&mut object)?;
    let mut sampling = common::sampling(&mut object)?;
    if sampling.temperature > 1.0 {
        // Anthropic's bound; more is likely meant for another API.
        return Err(Invalid::new("temperature", "must be between 0 and 1"));
    }
    sampling.logit_bias.clear();
    let (speculation, prediction) = speculation::take(&mut object)?;
    let mut call = prompt(object)?;
    (call.request.speculation, call.request.prediction) = (speculation, prediction);
    call.request.sampling = sampling;
    call.request.output = OutputLimits {
        max_tokens,
        stop,
        may_repeat,
        ..OutputLimits::default()
    };
    call.stream = stream;
    call.progress = progress;
    call.checked()
}

impl MessagesCall {
    fn checked(mut self) -> Result<Self, Invalid> {
        let Self {
            request, places, ..
        } = &mut self;
        conversation::mend(&mut request.messages, &mut places.messages)
            .and_then(|()| request.check())
            .map_err(|invalid| Invalid::at(invalid, |place| places.field(place)))?;
        Ok(self)
    }
}

/// What the model is to read, and how it may answer.
fn prompt(mut object: Object) -> Result<MessagesCall, Invalid> {
    let mut ignored = Ignored::default();
    if let Some(thread) = object.take(THREAD) {
        return thread
            .wrong("is not served: no conversation is kept here; send all of its messages");
    }
    let model = common::model(&mut object)?;
    let (messages, system) = (object.need("messages")?, object.take("system"));
    let Conversation {
        messages: said,
        places,
        changes,
    } = blocks::conversation(&messages, system.as_ref(), &mut ignored)?;
    let mut request = ChatRequest::new(said);
    let tools = tools::tools(&mut object, &mut ignored)?;
    let places = Places {
        messages: places,
        tools: tools.offer(&mut object, &mut request, changes)?,
    };
    let (budget, omits_thoughts) = thinking(&mut object)?;
    let (effort, format) = config(&mut object, &mut ignored)?;
    request.format = format;
    request.thinking = match (budget, effort) {
        (Some(Thinking::On { budget: None }), Some(effort)) if effort.is_on() => effort,
        (Some(thinking), _) => thinking,
        // An effort alone is about the answer; thoughts are asked for by `thinking`.
        (None, _) => Thinking::Off,
    };
    request.tier = common::tier(&mut object)?.unwrap_or_default();
    go_on(&messages, &mut request)?;
    let edits = edits(&mut object, &mut ignored)?;
    servers(&mut object, &mut ignored)?;
    known::neutral(&mut object, Level::Request)?;
    object.finish()?;
    Ok(MessagesCall {
        model,
        request,
        stream: false,
        progress: Wish::default(),
        places,
        show: Show {
            omits_thoughts,
            edits,
        },
        ignored,
    })
}

/// An answer that was begun by the client is gone on with.
fn go_on(messages: &Json, request: &mut ChatRequest) -> Result<(), Invalid> {
    let Some(last) = request.messages.last() else {
        return Ok(());
    };
    if last.role != Role::Assistant || !last.tool_calls.is_empty() {
        return Ok(());
    }
    let says = |part: &Part| matches!(part, Part::Text(text) if !text.is_empty());
    if !last.content.iter().any(says) {
        // Nothing was begun: it is answered anew.
        request.messages.pop();
        return match request.messages.is_empty() {
            true => messages.wrong("must have something to answer"),
            false => Ok(()),
        };
    }
    if request.format != Format::Text {
        return messages.wrong(
            "must end with what the user says: an answer of a given form (`output_config.format`) is not begun by the client",
        );
    }
    request.continues = true;
    // What there was to think was thought before.
    request.thinking = Thinking::Off;
    Ok(())
}

/// `context_management`: whether it was asked for. Nothing is taken out of a conversation here but
/// the thoughts of earlier turns, which the model never sees.
fn edits(object: &mut Object, ignored: &mut Ignored) -> Result<bool, Invalid> {
    let Some(management) = object.take("context_management") else {
        return Ok(false);
    };
    let mut fields = management.object()?;
    if let Some(edits) = fields.take("edits") {
        for edit in edits.array()? {
            let kind = edit.object()?.need("type")?.string()?;
            if !kind.starts_with("clear_thinking_") {
                ignored.note(edit.path(), &kind);
            }
        }
    }
    fields.finish()?;
    Ok(true)
}

/// `mcp_servers`: the service itself would ask them.
fn servers(object: &mut Object, ignored: &mut Ignored) -> Result<(), Invalid> {
    if let Some(servers) = object.take("mcp_servers") {
        for server in servers.array()? {
            ignored.note(server.path(), "");
        }
    }
    Ok(())
}

/// How much the model thinks, and whether its thoughts are left out of the answer.
fn thinking(object: &mut Object) -> Result<(Option<Thinking>, bool), Invalid> {
    let Some(thinking) = object.take("thinking") else {
        return Ok((None, false));
    };
    let mut fields = thinking.object()?;
    let kind = fields.need("type")?;
    let thinking = match kind.string()?.as_str() {
        "enabled" | "adaptive" => Thinking::On {
            budget: fields.u32("budget_tokens", 1, u32::MAX)?,
        },
        "disabled" => {
            fields.take("budget_tokens");
            Thinking::Off
        }
        other => {
            return kind.wrong(format!(
                "must be `enabled`, `adaptive` or `disabled`, not `{}`",
                quote(other)
            ));
        }
    };
    let omits = match fields.take("display") {
        None => false,
        Some(display) => match display.string()?.as_str() {
            "omitted" => true,
            // Thoughts are shown as they are.
            "summarized" | "updates" | "full" => false,
            other => {
                return display.wrong(format!(
                    "must be `summarized`, `updates` or `omitted`, not `{}`",
                    quote(other)
                ));
            }
        },
    };
    // Thoughts are bound to no conversation.
    fields.take("block_binding");
    fields.finish()?;
    Ok((Some(thinking), omits))
}

fn config(
    object: &mut Object,
    ignored: &mut Ignored,
) -> Result<(Option<Thinking>, Format), Invalid> {
    // Its older name.
    let old = object.take("output_format");
    let Some(config) = object.take("output_config") else {
        return Ok((None, old.map_or(Ok(Format::Text), |json| format(&json))?));
    };
    let mut fields = config.object()?;
    let effort = fields.take("effort");
    let effort = effort.map(|effort| match effort.string()?.as_str() {
        "max" => Ok(Thinking::On { budget: None }),
        _ => common::effort(&effort),
    });
    if let Some(budget) = fields.take("task_budget") {
        ignored.note(budget.path(), "");
    }
    let form = fields.take("format").or(old);
    fields.finish()?;
    let form = form.map_or(Ok(Format::Text), |json| format(&json))?;
    Ok((effort.transpose()?, form))
}

fn format(json: &Json) -> Result<Format, Invalid> {
    let mut fields = json.object()?;
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
    Ok(Format::JsonSchema { schema, strict })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, ToolChoice};

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
                r#","tools":[{"type":"websearch","name":"web_search"}]"#,
                "tools[0].type",
            ),
            (r#","tool_choice":"auto""#, "tool_choice"),
            (r#","tool_choice":{"type":"any"}"#, "tool_choice"),
            (
                r#","thinking":{"type":"enabled","budget_tokens":0}"#,
                "thinking.budget_tokens",
            ),
            (
                r#","thinking":{"type":"enabled","display":"loud"}"#,
                "thinking.display",
            ),
            (r#","thread":{"type":"create"}"#, "thread"),
            (
                r#","context_management":{"edits":{}}"#,
                "context_management.edits",
            ),
            (r#","compaction":{"type":"summarize"}"#, "compaction"),
            (r#","thinking":{"type":"much"}"#, "thinking.type"),
            (
                r#","output_config":{"format":{"type":"xml"}}"#,
                "output_config.format.type",
            ),
            (r#","container":"c""#, "container"),
            (r#","mcp_servers":{}"#, "mcp_servers"),
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

    #[test]
    fn what_agents_send_is_taken_and_what_was_left_out_is_said() {
        let call = with(
            r#","system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}],"thinking":{"type":"adaptive","display":"omitted"},
            "context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"},{"type":"clear_tool_uses_20250919"}]},
            "output_config":{"effort":"high","task_budget":{"type":"tokens","total":9}},"betas":["x"],"mcp_servers":[],"container":null,"speed":"standard",
            "metadata":{"user_id":"x"},"tools":[{"name":"f","input_schema":{},"defer_loading":true},{"type":"web_search_20250305","name":"web_search","max_uses":8}]"#,
        )
        .unwrap();
        assert_eq!(
            call.ignored.value().as_deref(),
            Some(
                "tools[1] web_search_20250305, output_config.task_budget, context_management.edits[1] clear_tool_uses_20250919"
            )
        );
        assert_eq!(Some(call.request.thinking), Thinking::of_effort("high"));
        assert_eq!(
            call.show,
            Show {
                omits_thoughts: true,
                edits: true
            }
        );
        assert_eq!(call.request.tools.len(), 1);
        assert_eq!(
            with(r#","thinking":{"type":"enabled"}"#)
                .unwrap()
                .request
                .thinking,
            Thinking::On { budget: None }
        );
    }

    #[test]
    fn a_begun_answer_is_gone_on_with() {
        let parse = |messages: &str, rest: &str| {
            parse(format!(r#"{{"max_tokens":5,"messages":[{{"role":"user","content":"Count"}}{messages}]{rest}}}"#).as_bytes())
        };
        let begun = r#",{"role":"assistant","content":"1, 2,"}"#;
        let call = parse(begun, r#","thinking":{"type":"enabled"}"#).unwrap();
        assert!(call.request.continues && !call.request.thinking.is_on());
        let empty = parse(r#",{"role":"assistant","content":[]}"#, "").unwrap();
        assert!(!empty.request.continues);
        assert_eq!(empty.request.messages, [Message::text(Role::User, "Count")]);
        for (messages, rest, field) in [
            (
                begun,
                r#","output_config":{"format":{"type":"json_schema","schema":{}}}"#,
                "messages",
            ),
            (
                r#",{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]}"#,
                "",
                "messages[1]",
            ),
        ] {
            assert_eq!(
                parse(messages, rest).unwrap_err().field,
                field,
                "{messages}"
            );
        }
    }

    #[test]
    fn counting_takes_what_answering_takes() {
        let body = r#"{"max_tokens":5,"stream":true,"temperature":0.5,"stop_sequences":["x"],"messages":[{"role":"user","content":"a"}]}"#;
        assert!(parse_count(body.as_bytes()).is_ok());
        assert_eq!(
            parse_count(br#"{"messages":[],"x":1}"#).unwrap_err().field,
            "x"
        );
    }
}
