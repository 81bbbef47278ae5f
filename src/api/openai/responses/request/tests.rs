use super::*;
use crate::chat::{Message, Role, ToolChoice};

fn with(rest: &str) -> Result<ResponsesCall, Invalid> {
    parse(format!(r#"{{"input":"hi"{rest}}}"#).as_bytes())
}

#[test]
fn the_least_request_keeps_nothing() {
    let call = with("").unwrap();
    assert_eq!(
        (call.model.as_str(), call.delivery, call.truncates),
        ("auto", Delivery::Complete { keep: false }, false)
    );
    assert_eq!(call.request, ChatRequest::new(vec![]));
    assert_eq!(call.input.messages, [Message::text(Role::User, "hi")]);
    assert_eq!(call.shown.tools.get(), "[]");
}

#[test]
fn everything_at_once() {
    let call = with(
        r#","model":"Tiny","instructions":"Be brief","previous_response_id":"resp_1","store":true,"stream":true,"stream_options":
            {"include_obfuscation":false,"include_usage":true},"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":true}],
            "tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false,"text":{"format":{"type":"json_schema","name":"n",
            "schema":{"type":"object"},"strict":true},"verbosity":"medium"},"temperature":0.5,"top_p":0.5,"seed":7,"max_output_tokens":9,
            "reasoning":{"effort":"low","summary":"auto"},"include":["message.output_text.logprobs","reasoning.encrypted_content"],
            "top_logprobs":2,"truncation":"auto","background":false,"metadata":{"a":"b"},"user":"u","service_tier":"auto""#,
    )
    .unwrap();
    assert_eq!(
        (call.model.as_str(), call.delivery, call.truncates),
        ("Tiny", Delivery::Stream { keep: true }, true)
    );
    assert_eq!(
        (call.instructions.as_deref(), call.previous.as_deref()),
        (Some("Be brief"), Some("resp_1"))
    );
    let r = &call.request;
    assert_eq!(
        (r.tools[0].name.as_str(), &r.tool_choice),
        ("f", &ToolChoice::Named("f".into()))
    );
    assert!(
        matches!(&r.format, Format::JsonSchema { schema, .. } if schema == r#"{"type":"object"}"#)
    );
    assert_eq!(
        (
            r.output.max_tokens,
            r.logprobs,
            r.sampling.seed,
            r.parallel_tool_calls
        ),
        (Some(9), Some(2), Some(7), false)
    );
    assert!(r.thinking.is_on());
    assert_eq!(
        (
            call.shown.metadata["a"].as_str(),
            call.shown.reasoning.effort.as_deref()
        ),
        ("b", Some("low"))
    );
    assert_eq!(
        with(r#","background":true,"stream":true"#)
            .unwrap()
            .delivery,
        Delivery::Background { stream: true }
    );
    assert_eq!(
        with(r#","background":true,"store":true"#).unwrap().delivery,
        Delivery::Background { stream: false }
    );
    let call = with(
        r#","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],
            "tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}"#,
    )
    .unwrap();
    assert_eq!(
        (call.request.tools.len(), &call.request.tool_choice),
        (1, &ToolChoice::Required)
    );
}

#[test]
fn errors_name_the_field() {
    for (rest, field) in [
        (r#","model":7"#, "model"),
        (r#","tools":[{"type":"web"}]"#, "tools[0].type"),
        (r#","tools":[{"type":"function"}]"#, "tools[0].name"),
        (
            r#","tools":[{"type":"function","name":"f","function":{}}]"#,
            "tools[0].function",
        ),
        (r#","tool_choice":"any""#, "tool_choice"),
        (
            r#","tool_choice":{"type":"file_search"}"#,
            "tool_choice.type",
        ),
        (
            r#","tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}"#,
            "tool_choice.tools[0].name",
        ),
        (r#","text":{"format":{"type":"yaml"}}"#, "text.format.type"),
        (
            r#","text":{"format":{"type":"json_schema","name":"n"}}"#,
            "text.format.schema",
        ),
        (r#","text":{"verbosity":"lower"}"#, "text.verbosity"),
        (r#","max_tokens":5"#, "max_tokens"),
        (r#","max_output_tokens":0"#, "max_output_tokens"),
        (r#","reasoning":{"effort":"much"}"#, "reasoning.effort"),
        (r#","reasoning":{"summary":"long"}"#, "reasoning.summary"),
        (r#","include":["everything"]"#, "include[0]"),
        (r#","context_management":{}"#, "context_management"),
        (r#","max_tool_calls":-1"#, "max_tool_calls"),
        (r#","truncation":"middle""#, "truncation"),
        (r#","background":true,"store":false"#, "background"),
        (
            r#","background":true,"stream":true,"stream_options":{"include_progress":true}"#,
            "background",
        ),
        (r#","background":true,"return_progress":true"#, "background"),
        (r#","stream_options":{}"#, "stream_options"),
        (r#","metadata":{"a":7}"#, "metadata.a"),
        (r#","conversation":"c""#, "conversation"),
        (r#","prompt":{"id":"p"}"#, "prompt"),
        (r#","messages":[]"#, "messages"),
    ] {
        assert_eq!(with(rest).expect_err(rest).field, field, "{rest}");
    }
    assert_eq!(parse(b"{}").unwrap_err().field, "input");
}

#[test]
fn what_agents_send_is_taken_and_what_was_left_out_is_said() {
    let call = with(
        r#","tools":[{"type":"function","name":"f","strict":false,"parameters":{"type":"object"}},
            {"type":"namespace","name":"agents","description":"Helpers.","tools":[{"type":"function","name":"close"}]},
            {"type":"web_search","external_web_access":false}],"tool_choice":"auto","parallel_tool_calls":true,
            "reasoning":{"summary":"auto"},"store":false,"include":["reasoning.encrypted_content","web_search_call.results"],
            "prompt_cache_key":"k","client_metadata":{"turn_id":"t"},"text":{"verbosity":"low"},"max_tool_calls":3,
            "context_management":[{"type":"compaction","compact_threshold":1000}],"safety_identifier":"s""#,
    )
    .unwrap();
    assert_eq!(
        call.ignored.value().as_deref(),
        Some("tools[2] web_search, text.verbosity, context_management[0] compaction")
    );
    assert_eq!(call.request.tools[1].name, "close");
    assert_eq!(call.tools, ["tools[0]", "tools[1].tools[0]"]);
    let shown = serde_json::to_value(&call.shown).unwrap();
    for (field, value) in [
        (
            "text",
            serde_json::json!({"format": {"type": "text"}, "verbosity": "low"}),
        ),
        ("max_tool_calls", 3.into()),
        ("safety_identifier", "s".into()),
        ("prompt_cache_key", "k".into()),
        ("presence_penalty", 0.0.into()),
        (
            "reasoning",
            serde_json::json!({"effort": null, "summary": "auto"}),
        ),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["tools"].as_array().unwrap().len(), 2);
    assert!(call.shown.look.summary && call.shown.look.sealed);
    assert!(shown.get("look").is_none());
}
