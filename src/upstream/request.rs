//! A request in the words of OpenAI's Chat Completions API, as an upstream takes it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::chat::{
    ChatRequest, Detail, Format, Message, Part, Role, Sampling, Thinking, Tool, ToolChoice,
};
use crate::config::Keeps;

/// Thinking budgets, in tokens, up to which an effort is called so.
const EFFORTS: [(u32, &str); 2] = [(1024, "low"), (4096, "medium")];

/// The field by which the service of this host is asked to keep nothing, if it has one.
fn zero_retention(host: &str) -> Option<(&'static str, Value)> {
    let is_of = |end: &str| {
        host.strip_suffix(end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    Some(match host {
        _ if is_of("api.openai.com") => ("store", json!(false)),
        _ if is_of("openrouter.ai") => {
            ("provider", json!({"zdr": true, "data_collection": "deny"}))
        }
        _ if is_of("ai-gateway.vercel.sh") => (
            "providerOptions",
            json!({"gateway": {"zeroDataRetention": true}}),
        ),
        _ => return None,
    })
}

/// The body of a request for a streamed answer of `model`. `host`: the upstream's.
///
/// # Errors
/// What cannot be sent on; continues "`NAME` cannot be asked this: ".
pub fn body(
    request: &ChatRequest,
    model: &str,
    host: &str,
    keeps: Keeps,
) -> Result<Vec<u8>, String> {
    if request.prompt.is_some() {
        return Err("a prompt that is no conversation".to_owned());
    }
    if request.continues {
        return Err("an answer that has begun already".to_owned());
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("model", json!(model));
    let messages = request.messages.iter().map(message);
    put("messages", messages.collect::<Result<_, _>>()?);
    put("stream", json!(true));
    put("stream_options", json!({"include_usage": true}));
    if !request.tools.is_empty() {
        let tools: Result<Vec<_>, _> = request.tools.iter().map(tool).collect();
        put("tools", Value::Array(tools?));
        put("tool_choice", tool_choice(&request.tool_choice));
        if !request.parallel_tool_calls {
            put("parallel_tool_calls", json!(false));
        }
    }
    if let Some(format) = format(&request.format)? {
        put("response_format", format);
    }
    for (name, value) in sampling(&request.sampling) {
        put(name, value);
    }
    let output = &request.output;
    if let Some(most) = output.max_tokens {
        put("max_tokens", json!(most));
    }
    if !output.stop.is_empty() {
        put("stop", json!(output.stop));
    }
    for (name, set, value) in [
        (
            "min_tokens",
            output.min_tokens > 0,
            json!(output.min_tokens),
        ),
        ("ignore_eos", output.ignore_eos, json!(true)),
        ("logprobs", request.logprobs.is_some(), json!(true)),
        (
            "top_logprobs",
            request.logprobs.is_some_and(|most| most > 0),
            json!(request.logprobs),
        ),
    ] {
        if set {
            put(name, value);
        }
    }
    if let Thinking::On { budget } = request.thinking {
        put("reasoning_effort", json!(effort(budget)));
    }
    if keeps == Keeps::Nothing
        && let Some((name, value)) = zero_retention(host)
    {
        put(name, value);
    }
    serde_json::to_vec(&body).map_err(|error| error.to_string())
}

fn message(message: &Message) -> Result<Value, String> {
    let mut out = Map::new();
    out.insert("role".into(), json!(message.role));
    let pieces: Vec<&Part> = message.content.iter().flat_map(Part::pieces).collect();
    let content = match &pieces[..] {
        [] => match message.tool_calls.is_empty() {
            true => json!(""),
            false => Value::Null,
        },
        [Part::Text(text)] => json!(text),
        // Only what a user says may be more than a text everywhere.
        pieces if message.role != Role::User => json!(texts(pieces)?.concat()),
        pieces => Value::Array(
            pieces
                .iter()
                .map(|part| piece(part))
                .collect::<Result<_, _>>()?,
        ),
    };
    out.insert("content".into(), content);
    if let Some(reasoning) = &message.reasoning {
        out.insert("reasoning_content".into(), json!(reasoning));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        out.insert("tool_calls".into(), calls.collect());
    }
    if let Some(id) = &message.tool_call_id {
        out.insert("tool_call_id".into(), json!(id));
    }
    if let Some(name) = &message.name
        && message.role != Role::Tool
    {
        out.insert("name".into(), json!(name));
    }
    Ok(Value::Object(out))
}

fn texts<'a>(pieces: &[&'a Part]) -> Result<Vec<&'a str>, String> {
    let text = |part: &&'a Part| match part {
        Part::Text(text) => Ok(text.as_str()),
        _ => Err("a picture or a sound in a message that is not the user's".to_owned()),
    };
    pieces.iter().map(text).collect()
}

fn piece(part: &Part) -> Result<Value, String> {
    match part {
        Part::Text(text) => Ok(json!({"type": "text", "text": text})),
        Part::Picture(picture) => {
            let kind = picture_kind(&picture.file).ok_or("a picture of an unusual format")?;
            let url = format!(
                "data:image/{kind};base64,{}",
                STANDARD.encode(&picture.file)
            );
            let detail = match picture.detail {
                Detail::Low => "low",
                Detail::High => "high",
                Detail::Auto | Detail::Tokens(_) => "auto",
            };
            Ok(json!({"type": "image_url", "image_url": {"url": url, "detail": detail}}))
        }
        Part::Sound(sound) => {
            let format = sound_format(&sound.file).ok_or("a sound that is neither WAV nor MP3")?;
            Ok(
                json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(&sound.file), "format": format}}),
            )
        }
        Part::Pixels(_) | Part::Samples(_) => Err("a picture or a sound that is decoded".into()),
        Part::Document(_) | Part::Remote(_) | Part::Read(_) => {
            Err("a file that was not read".to_owned())
        }
    }
}

/// The subtype of `image/…`, by a file's first bytes.
fn picture_kind(file: &[u8]) -> Option<&'static str> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("webp"),
        _ => None,
    }
}

/// OpenAI's API has these two alone.
fn sound_format(file: &[u8]) -> Option<&'static str> {
    match file {
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => Some("wav"),
        [b'I', b'D', b'3', ..] | [0xff, 0xe0..=0xff, ..] => Some("mp3"),
        _ => None,
    }
}

fn tool(tool: &Tool) -> Result<Value, String> {
    let mut function = Map::new();
    function.insert("name".into(), json!(tool.name));
    if !tool.description.is_empty() {
        function.insert("description".into(), json!(tool.description));
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".into(), data(parameters)?);
    }
    if tool.strict {
        function.insert("strict".into(), json!(true));
    }
    Ok(json!({"type": "function", "function": function}))
}

fn data(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("a schema that is no JSON: {error}"))
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn format(format: &Format) -> Result<Option<Value>, String> {
    Ok(match format {
        Format::Text => None,
        Format::JsonObject => Some(json!({"type": "json_object"})),
        Format::JsonSchema { schema, strict } => Some(json!({
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": data(schema)?, "strict": strict}
        })),
        Format::Regex(_) => return Err("an answer that fits a regular expression".to_owned()),
        Format::Grammar(_) => return Err("an answer that fits a grammar".to_owned()),
    })
}

/// Fields that every service knows, and others only where they say something.
fn sampling(sampling: &Sampling) -> Vec<(&'static str, Value)> {
    let usual = Sampling::default();
    let mut fields = vec![
        ("temperature", json!(short(sampling.temperature))),
        ("top_p", json!(short(sampling.top_p))),
    ];
    for (name, value, usual) in [
        ("min_p", sampling.min_p, usual.min_p),
        (
            "frequency_penalty",
            sampling.frequency_penalty,
            usual.frequency_penalty,
        ),
        (
            "presence_penalty",
            sampling.presence_penalty,
            usual.presence_penalty,
        ),
        (
            "repeat_penalty",
            sampling.repeat_penalty,
            usual.repeat_penalty,
        ),
    ] {
        if value != usual {
            fields.push((name, json!(short(value))));
        }
    }
    if sampling.top_k != usual.top_k {
        fields.push(("top_k", json!(sampling.top_k)));
    }
    if let Some(seed) = sampling.seed {
        fields.push(("seed", json!(seed)));
    }
    if !sampling.logit_bias.is_empty() {
        let biases = sampling.logit_bias.iter();
        let biases = biases.map(|(token, bias)| (token.to_string(), json!(short(*bias))));
        fields.push(("logit_bias", Value::Object(biases.collect())));
    }
    fields
}

/// As it was written: 0.95 and not 0.949999988079071.
fn short(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(number.into())
}

fn effort(budget: Option<u32>) -> &'static str {
    let budget = budget.unwrap_or(u32::MAX);
    let found = EFFORTS.iter().find(|(most, _)| budget <= *most);
    found.map_or("high", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{OutputLimits, Picture, ToolCall};

    fn sent(request: &ChatRequest, host: &str, keeps: Keeps) -> Value {
        serde_json::from_slice(&body(request, "theirs", host, keeps).unwrap()).unwrap()
    }

    #[test]
    fn a_conversation_is_sent_as_openai_has_it() {
        let call = ToolCall {
            id: "c1".into(),
            name: "f".into(),
            arguments: "{\"a\":1}".into(),
        };
        let mut asked = Message::text(Role::User, "look");
        asked.content.push(Part::Picture(Picture {
            file: vec![0xff, 0xd8, 0xff, 0].into(),
            detail: Detail::Low,
        }));
        let mut request = ChatRequest::new(vec![
            Message::text(Role::System, "be brief"),
            asked,
            Message {
                content: vec![],
                reasoning: Some("hm".into()),
                tool_calls: vec![call],
                ..Message::text(Role::Assistant, "")
            },
            Message {
                tool_call_id: Some("c1".into()),
                ..Message::text(Role::Tool, "2")
            },
        ]);
        request.tools = vec![Tool {
            name: "f".into(),
            description: String::new(),
            parameters: Some("{\"type\":\"object\"}".into()),
            strict: true,
        }];
        request.tool_choice = ToolChoice::Named("f".into());
        request.thinking = Thinking::On { budget: Some(2048) };
        request.output = OutputLimits {
            max_tokens: Some(7),
            stop: vec!["x".into()],
            ..OutputLimits::default()
        };
        let sent = sent(&request, "big.example", Keeps::Nothing);
        assert_eq!(
            sent,
            json!({
                "model": "theirs",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/AA==", "detail": "low"}}
                    ]},
                    {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}
                    ]},
                    {"role": "tool", "content": "2", "tool_call_id": "c1"}
                ],
                "stream": true,
                "stream_options": {"include_usage": true},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "temperature": 1.0,
                "top_p": 0.95,
                "max_tokens": 7,
                "stop": ["x"],
                "reasoning_effort": "medium"
            })
        );
    }

    #[test]
    fn services_that_can_are_asked_to_keep_nothing() {
        let request = ChatRequest::new(vec![Message::text(Role::User, "hi")]);
        let asked = |host, keeps| sent(&request, host, keeps);
        assert_eq!(asked("api.openai.com", Keeps::Nothing)["store"], false);
        assert_eq!(
            asked("openrouter.ai", Keeps::Nothing)["provider"]["zdr"],
            true
        );
        assert!(asked("notopenrouter.ai", Keeps::Nothing)["provider"].is_null());
        assert!(asked("api.openai.com", Keeps::Anything)["store"].is_null());
    }

    #[test]
    fn what_cannot_be_sent_on_is_named() {
        let refused = |request: &ChatRequest| {
            body(request, "theirs", "big.example", Keeps::Nothing).unwrap_err()
        };
        let hi = || ChatRequest::new(vec![Message::text(Role::User, "hi")]);
        let raw = ChatRequest::raw(crate::chat::RawPrompt::Text("x".into()));
        assert!(refused(&raw).contains("no conversation"));
        let mut grammar = hi();
        grammar.format = Format::Grammar("x".into());
        assert!(refused(&grammar).contains("grammar"));
        let mut begun = hi();
        begun.continues = true;
        assert!(refused(&begun).contains("begun"));
    }
}
