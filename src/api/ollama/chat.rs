//! A request to `/api/chat`: a conversation.

use crate::api::fields::{self, Level};
use crate::api::ollama::request::{Call, Common, Endpoint, Kind, images};
use crate::api::openai::chat::messages;
use crate::api::openai::tools::{self, Offer, Shape};
use crate::api::parse::Invalid;
use crate::api::parse::json::{self, Json};
use crate::chat::{ChatRequest, Message, Role};

/// Reads a body. Every bound of the request has been checked when this returns.
pub fn parse(body: &[u8]) -> Result<Call, Invalid> {
    let mut object = json::body(body)?;
    let said = object.take("messages").map_or(Ok(vec![]), |messages| {
        messages.array()?.iter().map(message).collect()
    });
    let mut said: Vec<Message> = said?;
    let Offer {
        tools,
        choice: tool_choice,
        parallel: parallel_tool_calls,
    } = tools::offered(&mut object, Shape::Nested)?;
    let common = Common::take(&mut object)?;
    // Ollama has it for texts; Open WebUI sends it for both.
    let system = object.string("system")?.filter(|text| !text.is_empty());
    let mut endpoint = Endpoint {
        kind: Kind::Chat,
        system: false,
    };
    let Some(first) = said.first() else {
        return common.idle(object, endpoint);
    };
    if let Some(system) = system
        && first.role != Role::System
    {
        said.insert(0, Message::text(Role::System, system));
        endpoint.system = true;
    }
    link(&mut said);
    common.asking(object, endpoint, |request| ChatRequest {
        messages: said,
        tools,
        tool_choice,
        parallel_tool_calls,
        ..request
    })
}

fn message(json: &Json) -> Result<Message, Invalid> {
    let (mut object, mut message) = messages::open(json)?;
    let files = images(&mut object)?;
    fields::labels(object, Level::Message)?;
    // Where Ollama puts them.
    message.content.splice(..0, files);
    Ok(message)
}

/// Calls have no ids here, or not always: a result is known by its function's name, or by its place.
fn link(messages: &mut [Message]) {
    for (i, message) in messages.iter_mut().enumerate() {
        for (j, call) in message.tool_calls.iter_mut().enumerate() {
            if call.id.is_empty() {
                call.id = format!("call_{i}_{j}");
            }
        }
        message.tool_call_id = message.tool_call_id.take().filter(|id| !id.is_empty());
    }
    let mut open: Vec<(String, String)> = vec![];
    for message in messages {
        if message.role != Role::Tool {
            let calls = message.tool_calls.iter();
            open = calls
                .map(|call| (call.id.clone(), call.name.clone()))
                .collect();
            continue;
        }
        let answers = |(id, name): &(String, String)| match &message.tool_call_id {
            Some(own) => own == id,
            None => message.name.as_ref().is_none_or(|own| own == name),
        };
        if let Some(at) = open.iter().position(answers) {
            message.tool_call_id = Some(open.remove(at).0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ollama::request::Wish;
    use crate::api::parse::json::assert_refused;
    use crate::chat::{Format, Part, Thinking};

    fn request(call: Call) -> ChatRequest {
        match call.wish {
            Wish::Answer(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_at_once() {
        let body = r#"{"model":"gemma4:e2b","messages":[
            {"role":"system","content":"be brief"},
            {"role":"user","content":"what is it?","images":["iVBORw0KGgo=","T2dnUw=="]},
            {"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"index":0,"name":"f","arguments":{"a":1}}},
              {"id":"own","function":{"name":"g","arguments":{}}}]},
            {"role":"tool","tool_name":"g","content":"2"},{"role":"tool","content":"1"}],
            "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],
            "format":{"type":"object"},"think":"low","keep_alive":"5m","logprobs":true,"top_logprobs":2,
            "options":{"num_ctx":8192,"num_predict":7,"temperature":0.5,"top_k":3,"top_p":0.5,"min_p":0.1,"seed":4,"stop":["x"],
              "repeat_penalty":1.1,"mirostat":0,"typical_p":1.0,"repeat_last_n":64}}"#;
        let call = parse(body.as_bytes()).unwrap();
        assert_eq!((call.model.as_str(), call.stream), ("gemma4:e2b", true));
        assert_eq!(
            call.ignored.value().as_deref(),
            Some("options.num_ctx, keep_alive")
        );
        let r = request(call);
        assert!(matches!(
            r.messages[1].content[..],
            [Part::Picture(_), Part::Sound(_), Part::Text(_)]
        ));
        let ids: Vec<_> = r.messages[3..]
            .iter()
            .map(|result| result.tool_call_id.as_deref())
            .collect();
        assert_eq!(ids, [Some("own"), Some("call_2_0")]);
        assert_eq!(r.messages[2].reasoning.as_deref(), Some("hm"));
        assert_eq!(r.messages[2].tool_calls[0].arguments, r#"{"a":1}"#);
        assert_eq!(Some(r.thinking), Thinking::of_effort("low"));
        assert_eq!(
            (r.output.max_tokens, &r.output.stop[..], r.logprobs),
            (Some(7), &["x".to_owned()][..], Some(2))
        );
        assert_eq!(
            (r.sampling.temperature, r.sampling.top_k, r.sampling.seed),
            (0.5, 3, Some(4))
        );
        assert!(matches!(r.format, Format::JsonSchema { .. }));
    }

    #[test]
    fn what_clients_leave_out_or_add() {
        let of = |rest: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
            request(parse(body.as_bytes()).unwrap())
        };
        let json = of(r#","format":"json","stream":false,"options":null,"metadata":{"a":1}"#);
        assert_eq!(json.format, Format::JsonObject);
        assert_eq!(of(r#","format":"","think":true"#).format, Format::Text);
        assert!(of(r#","think":"max""#).thinking.is_on());
        assert!(!of(r#","think":false"#).thinking.is_on());
        let effort = of(r#","options":{"reasoning_effort":"low"}"#).thinking;
        assert_eq!(Some(effort), Thinking::of_effort("low"));
        // Open WebUI's.
        let beside = of(r#","num_predict":5,"system":"be brief""#);
        assert_eq!(beside.output.max_tokens, Some(5));
        assert_eq!(beside.messages[0], Message::text(Role::System, "be brief"));
        assert_eq!(
            of(r#","options":{"num_predict":-1}"#).output.max_tokens,
            None
        );
    }

    #[test]
    fn nothing_is_asked() {
        let wish = |body: &str| parse(body.as_bytes()).unwrap().wish;
        for (keep, unloads) in [
            ("0", true),
            (r#""0s""#, true),
            (r#""0""#, true),
            ("-1", false),
            (r#""-1m""#, false),
            (r#""1h30m""#, false),
            ("300", false),
            ("null", false),
        ] {
            let wished = wish(&format!(
                r#"{{"model":"m","messages":[],"keep_alive":{keep}}}"#
            ));
            let expected = if unloads { Wish::Unload } else { Wish::Load };
            assert_eq!(wished, expected, "{keep}");
        }
        assert_eq!(wish(r#"{"model":"m"}"#), Wish::Load);
    }

    #[test]
    fn errors_name_the_field() {
        let user =
            |rest: &str| format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
        for (rest, field) in [
            (r#","temperature":1"#, "temperature"),
            (r#","options":{"temperature":9}"#, "options.temperature"),
            (r#","options":{"tempratur":1}"#, "options.tempratur"),
            (r#","options":{"mirostat":2}"#, "options.mirostat"),
            (r#","options":{"num_predict":0}"#, "options.num_predict"),
            (r#","options":{"stop":[""]}"#, "options.stop[0]"),
            (r#","format":"yaml""#, "format"),
            (r#","think":"much""#, "think"),
            (r#","keep_alive":"soon""#, "keep_alive"),
            (r#","keep_alive":[]"#, "keep_alive"),
            (r#","template":"{{ x }}""#, "template"),
            (r#","top_logprobs":3"#, "top_logprobs"),
            (
                r#","tools":[{"type":"function","function":{"name":"f g"}}]"#,
                "tools[0].function.name",
            ),
        ] {
            assert_refused(parse, &[(&user(rest), field)]);
        }
        assert_refused(
            parse,
            &[
                (
                    r#"{"messages":[{"role":"user","content":"","images":["?"]}]}"#,
                    "messages[0].images[0]",
                ),
                (
                    r#"{"messages":[{"role":"user","content":"","images":[""]}]}"#,
                    "messages[0].images[0]",
                ),
                (
                    r#"{"messages":[{"role":"user","content":""}]}"#,
                    "messages[0].content",
                ),
            ],
        );
    }
}
