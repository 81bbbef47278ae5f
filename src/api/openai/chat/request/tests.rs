use super::*;
use crate::chat::{Message, Retention, Role, Sampling, Speculation, Thinking};

fn with(rest: &str) -> Result<ChatCall, Invalid> {
    parse(format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#).as_bytes())
}

fn request(rest: &str) -> ChatRequest {
    with(rest).unwrap().request
}

#[test]
fn the_least_request_has_gemmas_defaults() {
    let call = with("").unwrap();
    assert_eq!(call.model, "auto");
    assert_eq!(call.delivery, Delivery::Complete);
    assert_eq!(
        call.request,
        ChatRequest::new(vec![Message::text(Role::User, "hi")])
    );
}

#[test]
fn everything_at_once() {
    let call = with(
        r#","model":"Tiny","max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":0.5,"top_k":3,"min_p":0.25,
            "seed":7,"stop":["a","b"],"n":1,"frequency_penalty":1,"presence_penalty":-1,"repetition_penalty":1.5,
            "logit_bias":{"5":-100,"6":2.5},"logprobs":true,"top_logprobs":3,"stream":true,
            "stream_options":{"include_usage":true,"include_obfuscation":false},"response_format":{"type":"text"},
            "ignore_eos":true,"min_tokens":2,"cache_prompt":false,"chat_template_kwargs":{"enable_thinking":true},
            "user":"u","metadata":{"a":"b"},"store":false,"prompt_cache_retention":"24h","service_tier":"auto","modalities":[ "text" ],"verbosity":"medium""#,
    )
    .unwrap();
    assert_eq!(call.model, "Tiny");
    assert_eq!(
        call.delivery,
        Delivery::Stream {
            usage: true,
            progress: Wish::default()
        }
    );
    let r = call.request;
    assert_eq!(
        r.sampling,
        Sampling {
            temperature: 0.5,
            top_k: 3,
            top_p: 0.5,
            min_p: 0.25,
            seed: Some(7),
            frequency_penalty: 1.0,
            presence_penalty: -1.0,
            repeat_penalty: 1.5,
            logit_bias: vec![(5, -100.0), (6, 2.5)],
        }
    );
    assert_eq!(
        r.output,
        OutputLimits {
            max_tokens: Some(7),
            min_tokens: 2,
            stop: vec!["a".into(), "b".into()],
            ignore_eos: true,
            may_repeat: false,
        }
    );
    assert_eq!(
        (r.thinking, r.logprobs, r.cache_prompt, r.retention),
        (
            Thinking::On { budget: None },
            Some(3),
            false,
            Retention::Day
        )
    );
}

#[test]
fn how_long_a_prompt_is_kept_is_one_of_two() {
    let retention = |value: &str| with(&format!(r#","prompt_cache_retention":{value}"#));
    for (value, kept) in [
        ("null", Retention::InMemory),
        (r#""in_memory""#, Retention::InMemory),
        (r#""in-memory""#, Retention::InMemory),
        (r#""24h""#, Retention::Day),
    ] {
        assert_eq!(retention(value).unwrap().request.retention, kept, "{value}");
    }
    for value in [r#""7d""#, "24", "{}"] {
        let refused = retention(value).unwrap_err();
        assert_eq!(refused.field, "prompt_cache_retention", "{value}");
    }
}

#[test]
fn null_is_absent() {
    let nulls: String = [
        "model",
        "tools",
        "tool_choice",
        "temperature",
        "top_k",
        "seed",
        "stop",
        "n",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "response_format",
        "reasoning_effort",
        "chat_template_kwargs",
        "user",
        "store",
        "speculation",
        "functions",
        "audio",
    ]
    .iter()
    .map(|name| format!(",\"{name}\":null"))
    .collect();
    assert_eq!(with(&nulls).unwrap(), with("").unwrap());
}

fn assert_fields(table: &[(&str, &str)]) {
    for (rest, field) in table {
        let error = with(rest).expect_err(rest);
        assert_eq!(error.field, *field, "{rest}: {error}");
    }
}

#[test]
fn errors_of_sampling_name_the_field() {
    assert_fields(&[
        (r#","model":5"#, "model"),
        (r#","temperature":"hot""#, "temperature"),
        (r#","temperature":-0.1"#, "temperature"),
        (r#","temperature":2.1"#, "temperature"),
        (r#","temperature":1e400"#, "temperature"),
        (r#","temperature":NaN"#, "temperature"),
        (r#","top_p":1.5"#, "top_p"),
        (r#","top_k":-2"#, "top_k"),
        (r#","top_k":1.5"#, "top_k"),
        (r#","min_p":-1"#, "min_p"),
        (r#","frequency_penalty":3"#, "frequency_penalty"),
        (r#","repeat_penalty":0"#, "repeat_penalty"),
        (
            r#","repeat_penalty":1,"repetition_penalty":2"#,
            "repetition_penalty",
        ),
        (r#","typical_p":0.5"#, "typical_p"),
        (r#","mirostat":2"#, "mirostat"),
    ]);
}

#[test]
fn errors_of_output_name_the_field() {
    assert_fields(&[
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_tokens":-3"#, "max_tokens"),
        (r#","max_tokens":1e20"#, "max_tokens"),
        (r#","max_tokens":99999999999"#, "max_tokens"),
        (r#","max_completion_tokens":0"#, "max_completion_tokens"),
        (r#","max_tokens":3,"min_tokens":4"#, "min_tokens"),
        (r#","seed":"x""#, "seed"),
        (r#","seed":99999999999999999999"#, "seed"),
        (r#","stop":5"#, "stop"),
        (r#","stop":["a",5]"#, "stop[1]"),
        (r#","stop":["a",""]"#, "stop[1]"),
        (
            r#","stop":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"]"#,
            "stop",
        ),
        (r#","n":9"#, "n"),
        (r#","n":0"#, "n"),
        (r#","logit_bias":7"#, "logit_bias"),
        (r#","logit_bias":[[7]]"#, "logit_bias[0]"),
        (r#","logit_bias":{"x":1}"#, "logit_bias.x"),
        (r#","logit_bias":{"-1":1}"#, "logit_bias.-1"),
        (r#","logit_bias":{"7":101}"#, "logit_bias.7"),
        (r#","logit_bias":{"7":"a"}"#, "logit_bias.7"),
        (r#","logprobs":3"#, "logprobs"),
        (r#","top_logprobs":3"#, "top_logprobs"),
        (r#","logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#","logprobs":true,"top_logprobs":-1"#, "top_logprobs"),
    ]);
}

#[test]
fn errors_of_everything_else_name_the_field() {
    assert_fields(&[
        (r#","stream":1"#, "stream"),
        (r#","stream_options":7"#, "stream_options"),
        (
            r#","stream":true,"stream_options":{"include_usage":1}"#,
            "stream_options.include_usage",
        ),
        (
            r#","stream":true,"stream_options":{"usage":true}"#,
            "stream_options.usage",
        ),
        (r#","response_format":"text""#, "response_format"),
        (
            r#","response_format":{"type":"json_object"},"ignore_eos":true"#,
            "ignore_eos",
        ),
        (r#","regex":"a+","min_tokens":3"#, "min_tokens"),
        (r#","tool_choice":"required""#, "tool_choice"),
        (
            r#","tool_choice":{"type":"function","function":{"name":"f"}}"#,
            "tool_choice",
        ),
        (r#","reasoning_effort":"much""#, "reasoning_effort"),
        (r#","thinking_budget_tokens":-2"#, "thinking_budget_tokens"),
        (
            r#","chat_template_kwargs":{"enable_thinking":1}"#,
            "chat_template_kwargs.enable_thinking",
        ),
        (
            r#","chat_template_kwargs":{"x":1}"#,
            "chat_template_kwargs.x",
        ),
        (r#","modalities":["text","audio"]"#, "modalities"),
        (r#","functions":[{}]"#, "functions"),
        (r#","function_call":{"name":"f"}"#, "function_call"),
        (r#","audio":{}"#, "audio"),
        (r#","web_search_options":{}"#, "web_search_options"),
        (r#","tempersture":1"#, "tempersture"),
        (r#","messages":[]"#, "messages"),
    ]);
}

#[test]
fn what_is_missing_or_misspelt_is_said() {
    assert_eq!(parse(b"{}").unwrap_err().field, "messages");
    assert_eq!(parse(br#"{"messages":[]}"#).unwrap_err().field, "messages");
    assert_eq!(
        parse(br#"{"messages":[{"role":"user","content":""}]}"#)
            .unwrap_err()
            .field,
        "messages[0].content"
    );
    assert!(
        with(r#","tempersture":1"#)
            .unwrap_err()
            .reason
            .contains("did you mean `temperature`?")
    );
    assert!(
        !with(r#","web_search_options":{}"#)
            .unwrap_err()
            .reason
            .contains("did you mean")
    );
}

#[test]
fn thinking_is_asked_for_in_three_ways() {
    const ENDLESS: Thinking = Thinking::On { budget: None };
    let on = |budget| Thinking::On {
        budget: Some(budget),
    };
    for (rest, thinking) in [
        ("", Thinking::Off),
        (r#","reasoning_effort":"none""#, Thinking::Off),
        (r#","reasoning_effort":"minimal""#, Thinking::Off),
        (r#","reasoning_effort":"low""#, on(512)),
        (r#","reasoning_effort":"high""#, on(8192)),
        (r#","reasoning_effort":"xhigh""#, ENDLESS),
        (r#","chat_template_kwargs":{}"#, Thinking::Off),
        (
            r#","chat_template_kwargs":{"enable_thinking":true}"#,
            ENDLESS,
        ),
        (
            r#","reasoning_effort":"high","chat_template_kwargs":{"enable_thinking":false}"#,
            Thinking::Off,
        ),
        (
            r#","reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true}"#,
            ENDLESS,
        ),
        (
            r#","reasoning_effort":"low","chat_template_kwargs":{"enable_thinking":true}"#,
            on(512),
        ),
        (
            r#","reasoning_effort":"high","chat_template_kwargs":{"enable_thinking":null}"#,
            on(8192),
        ),
        (r#","thinking_budget_tokens":100"#, on(100)),
        (
            r#","thinking_budget_tokens":100,"reasoning_effort":"high""#,
            on(100),
        ),
        (
            r#","thinking_budget_tokens":100,"chat_template_kwargs":{"enable_thinking":false}"#,
            Thinking::Off,
        ),
        (
            r#","thinking_budget_tokens":0,"reasoning_effort":"high""#,
            Thinking::Off,
        ),
    ] {
        assert_eq!(request(rest).thinking, thinking, "{rest}");
    }
}

#[test]
fn thinking_is_asked_for_in_everybodys_words() {
    const ENDLESS: Thinking = Thinking::On { budget: None };
    let on = |budget| Thinking::On {
        budget: Some(budget),
    };
    for (rest, thinking) in [
        (r#","reasoning_effort":"max""#, ENDLESS),
        (r#","reasoning":{"effort":"low"}"#, on(512)),
        (r#","reasoning":{"max_tokens":70,"exclude":false}"#, on(70)),
        (r#","reasoning":{"enabled":true}"#, ENDLESS),
        (r#","think":true"#, ENDLESS),
        (r#","think":"low""#, on(512)),
        (r#","think":false,"reasoning_effort":"high""#, Thinking::Off),
        (
            r#","thinking":{"type":"enabled","budget_tokens":70}"#,
            on(70),
        ),
        (r#","thinking":{"type":"disabled"}"#, Thinking::Off),
        (r#","enable_thinking":true,"thinking_budget":70"#, on(70)),
        (r#","reasoning_budget":-1"#, Thinking::Off),
        (r#","reasoning_budget":0"#, Thinking::Off),
        (
            r#","chat_template_kwargs":{"thinking":true,"thinking_budget":70}"#,
            on(70),
        ),
    ] {
        assert_eq!(request(rest).thinking, thinking, "{rest}");
    }
    for (rest, hides) in [
        (r#","reasoning":{"effort":"low","exclude":true}"#, true),
        (r#","include_reasoning":false,"think":true"#, true),
        (r#","include_reasoning":true"#, false),
    ] {
        assert_eq!(with(rest).unwrap().hides_thoughts, hides, "{rest}");
    }
    assert_fields(&[
        (r#","reasoning":{"effort":"much"}"#, "reasoning.effort"),
        (r#","reasoning":"high""#, "reasoning"),
        (r#","think":7"#, "think"),
        (r#","thinking":{"type":"much"}"#, "thinking.type"),
        (r#","reasoning_format":"none""#, "reasoning_format"),
    ]);
}

#[test]
fn seeds_fold_and_top_k_switches_off() {
    for (seed, folded) in [
        ("0", 0),
        ("42", 42),
        ("4294967295", u32::MAX),
        ("4294967296", 1),
        ("-2", 1),
        ("18446744073709551615", 0),
    ] {
        assert_eq!(
            request(&format!(",\"seed\":{seed}")).sampling.seed,
            Some(folded),
            "{seed}"
        );
    }
    assert_eq!(request(r#","seed":-1"#).sampling.seed, None);
    assert_eq!(request(r#","top_k":-1"#).sampling.top_k, 0);
    assert_eq!(request(r#","top_k":0"#).sampling.top_k, 0);
    assert_eq!(request(r#","stop":"end""#).output.stop, ["end"]);
    assert_eq!(request(r#","logprobs":true"#).logprobs, Some(0));
    assert_eq!(request(r#","logprobs":false"#).logprobs, None);
    let guessed = request(r#","prediction":{"type":"content","content":"x"},"speculation":"off""#);
    assert_eq!(guessed.prediction.as_deref(), Some("x"));
    assert_eq!(guessed.speculation, Some(Speculation::Off));
}

#[test]
fn what_changes_nothing_is_taken() {
    let plain = with("").unwrap();
    for rest in [
        r#","max_tokens":-1"#,
        r#","max_completion_tokens":-1,"n_predict":-2"#,
        r#","typical_p":1,"mirostat":0,"timings_per_token":true,"return_progress":true,"keep_alive":"5m""#,
        r#","id_slot":0,"cache_control":{"type":"ephemeral"},"verbosity":"low","store":true,"prediction":null"#,
        r#","best_of":1,"use_beam_search":false,"skip_special_tokens":true,"repetition_penalty":1.0"#,
        r#","provider":{"order":["x"]},"transforms":[],"usage":{"include":true},"safety_identifier":"x""#,
        r#","prompt_cache_key":"k","service_tier":"auto","modalities":["text"],"stream_options":{"include_usage":true}"#,
        r#","top_logprobs":0,"logprobs":false,"functions":[],"function_call":"none","logit_bias":[],"n":1"#,
        r#","reasoning":{"effort":"none"},"think":false,"thinking":{"type":"disabled"},"include_reasoning":true"#,
        r#","options":{"num_ctx":4096},"stop":[],"tools":[],"reasoning_format":"auto","speculative.n_max":8"#,
    ] {
        assert_eq!(with(rest).unwrap(), plain, "{rest}");
    }
    assert_eq!(
        with(r#","stream":true,"usage":{"include":true}"#)
            .unwrap()
            .delivery,
        Delivery::Stream {
            usage: true,
            progress: Wish::default()
        }
    );
    let biased = request(r#","logit_bias":[[5,-1.5],[6,false]]"#)
        .sampling
        .logit_bias;
    assert_eq!(biased, [(5, -1.5), (6, -100.0)]);
    assert_eq!(with(r#","n":8"#).unwrap().choices, 8);
}

proptest::proptest! {
    /// Whatever comes, the answer is a request or a refusal.
    #[test]
    fn no_body_does_harm(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse(&body);
    }

    /// The same for what looks like a request: one that was cut, or in which one byte is
    /// another.
    #[test]
    fn no_damage_does_harm(at in 0usize..400, byte in proptest::num::u8::ANY) {
        let mut body = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"h\u00e9"}]},{"role":"assistant","tool_calls":[{"id":"c",
                "type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}],"tools":[{"type":"function","function":{"name":"f",
                "parameters":{"type":"object"}}}],"stop":["x"],"logit_bias":{"1":2},"seed":-5,"temperature":0.5e0}"#.to_vec();
        let at = at % body.len();
        let _ = parse(&body[..at]);
        body[at] = byte;
        let _ = parse(&body);
    }
}

#[test]
fn what_is_told_before_an_answer_and_what_ends_it() {
    let call = |rest: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
        parse(body.as_bytes())
    };
    let told = call(
        r#","stream":true,"stream_options":{"include_progress":true},"return_progress":true,"repetition_guard":false"#,
    )
    .unwrap();
    let progress = Wish {
        stages: true,
        prompt: true,
    };
    assert_eq!(
        told.delivery,
        Delivery::Stream {
            usage: false,
            progress
        }
    );
    assert!(told.request.output.may_repeat);
    // Where there is no stream there is nothing to tell.
    let whole = call(r#","return_progress":true"#).unwrap();
    assert_eq!(whole.delivery, Delivery::Complete);
    assert!(!whole.request.output.may_repeat);
    for (rest, field) in [
        (
            r#","stream_options":{"include_progress":1}"#,
            "stream_options.include_progress",
        ),
        (r#","return_progress":"yes""#, "return_progress"),
        (r#","repetition_guard":0"#, "repetition_guard"),
    ] {
        assert_eq!(call(rest).unwrap_err().field, field);
    }
}
