//! An answer that says the same for ever comes to an end, at every door; what may go on does.

mod harness;

use harness::{Daemon, Events, Options};
use serde_json::{Value, json};

/// Tokens that an answer may repeat, about.
const LAST: u64 = 2048;
const SOONER: u64 = LAST - LAST / 50;
const LONGER: u64 = LAST + 200;

fn daemon() -> Daemon {
    Daemon::with(Options {
        inference: "slots = 2\ncontext = 4096".into(),
        ..Options::default()
    })
}

/// A request whose answer is one token again and again.
fn stuck(daemon: &Daemon) -> Value {
    let tokens = daemon.post("/tokenize", &json!({"content": "a"})).json();
    let token = tokens["tokens"][0].to_string();
    json!({"temperature": 0, "logit_bias": {token: 100}})
}

fn with(base: &Value, more: Value) -> Value {
    let mut body = base.clone();
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_loop_is_ended_and_said_to_be_one_by_each_api() {
    let daemon = daemon();
    let stuck = stuck(&daemon);
    let details = json!({"type": "repetition"});
    let messages = json!([{"role": "user", "content": "Write."}]);

    let body = with(
        &stuck,
        json!({"messages": messages, "stream": true, "stream_options": {"include_usage": true}}),
    );
    let chunks: Vec<Value> = daemon
        .stream(&body)
        .take_while(|data| data != "[DONE]")
        .map(|data| serde_json::from_str(&data).unwrap())
        .collect();
    let is_end = |chunk: &&Value| chunk["choices"][0]["finish_reason"].is_string();
    let end = &chunks.iter().find(is_end).unwrap()["choices"][0];
    assert_eq!(
        (&end["finish_reason"], &end["finish_details"]),
        (&json!("length"), &details)
    );
    let tokens = chunks.last().unwrap()["usage"]["completion_tokens"].as_u64();
    assert!((SOONER..LONGER).contains(&tokens.unwrap()), "{tokens:?}");

    let whole = daemon.post(
        "/v1/chat/completions",
        &with(&stuck, json!({"messages": messages})),
    );
    let choice = &whole.json()["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["finish_details"]),
        (&json!("length"), &details)
    );

    let body = with(&stuck, json!({"input": "Write.", "stream": true}));
    let last = Events::read(daemon.send("/v1/responses", body.to_string().as_bytes()))
        .last()
        .unwrap();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.incomplete"), &json!("incomplete"))
    );
    assert_eq!(
        last["response"]["incomplete_details"],
        json!({"reason": "max_output_tokens", "details": details})
    );

    let ended = daemon.post("/completion", &with(&stuck, json!({"prompt": "Write."})));
    let ended = ended.json();
    assert_eq!(
        (&ended["stop_type"], &ended["finish_details"]),
        (&json!("limit"), &details)
    );
}

#[test]
fn what_may_go_on_goes_on() {
    let daemon = daemon();
    let stuck = with(
        &stuck(&daemon),
        json!({"messages": [{"role": "user", "content": "Write."}], "max_tokens": LONGER}),
    );
    for more in [
        json!({"repetition_guard": false}),
        json!({"regex": "a+"}),
        json!({"ignore_eos": true}),
        json!({"min_tokens": LONGER}),
    ] {
        let whole = daemon
            .post("/v1/chat/completions", &with(&stuck, more.clone()))
            .json();
        let choice = &whole["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], choice.get("finish_details")),
            (&json!("length"), None),
            "{more}"
        );
        assert_eq!(whole["usage"]["completion_tokens"], LONGER, "{more}");
    }
    let refused = daemon.post(
        "/v1/chat/completions",
        &with(&stuck, json!({"repetition_guard": 1})),
    );
    assert_eq!(refused.refusal().1, "repetition_guard");
}
