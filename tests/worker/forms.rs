//! Answers of a given form: calls, data, thoughts that end in time. By the real model, also at a
//! temperature at which it has forgotten what it was taught.

use std::time::{Duration, Instant};

use gemmad::chat::{
    ChatError, ChatEvent, ChatRequest, Constraint, Finish, Format, OutputLimits, PrincipalId,
    Sampling, Thinking, Tool, ToolChoice,
};
use gemmad::ipc::{ServeEvent, ServeRequest};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};

use crate::client::{Answer, Worker, user};
use crate::schemas;

fn tool(name: &str, parameters: Value) -> Tool {
    Tool {
        name: name.into(),
        description: format!("The function {name}"),
        parameters: Some(parameters.to_string()),
        strict: true,
    }
}

fn light() -> Tool {
    let parameters = json!({"type": "object", "properties": {"room": {"type": "string", "description": "Name of the room"},
        "state": {"type": "string", "description": "on or off", "enum": ["on", "off"]}}, "required": ["room", "state"]});
    Tool {
        description: "Turn a light on or off".into(),
        ..tool("set_light", parameters)
    }
}

const KITCHEN: &str = "Turn on the light in the kitchen.";

/// Drawn at a temperature of 2, with this seed.
fn hot(mut request: ChatRequest, seed: u32) -> ChatRequest {
    request.sampling = Sampling {
        temperature: 2.0,
        top_p: 1.0,
        seed: Some(seed),
        ..Sampling::default()
    };
    request.output = OutputLimits {
        max_tokens: Some(700),
        ..OutputLimits::default()
    };
    request
}

fn of(format: Format, text: &str) -> ChatRequest {
    ChatRequest {
        format,
        ..user(text)
    }
}

fn schema(schema: &Value) -> Format {
    Format::JsonSchema {
        schema: schema.to_string(),
        strict: true,
    }
}

/// Random values, the same with each run.
fn random<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    });
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

fn fits(schema: &Value, text: &str) -> bool {
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap();
    serde_json::from_str(text).is_ok_and(|value| validator.is_valid(&value))
}

/// Whether nothing can fit a schema.
fn impossible(answer: &Answer) -> bool {
    let reason = answer
        .error
        .as_ref()
        .map(ChatError::to_string)
        .unwrap_or_default();
    reason.contains("nsatisfiable") || reason.contains("nothing")
}

#[test]
fn data_is_what_its_schema_says() {
    let mut worker = Worker::tiny();
    let person = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": false});
    let answer = worker.ask(of(
        schema(&person),
        "Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.",
    ));
    assert!(fits(&person, &answer.text), "{}", answer.text);
    assert_eq!(answer.done().finish, Finish::Stop);
    let answer = worker.ask(of(
        Format::Regex("[A-Z]{3}-[0-9]{4}".into()),
        "What is the capital of France?",
    ));
    assert!(
        answer.text.len() == 8 && answer.text.as_bytes()[3] == b'-',
        "{}",
        answer.text
    );
    let answer = worker.ask(of(
        Format::Grammar("start: \"Paris\" | \"Rome\"".into()),
        "What is the capital of Italy?",
    ));
    assert!(
        ["Paris", "Rome"].contains(&answer.text.as_str()),
        "{}",
        answer.text
    );
}

#[test]
fn hot_answers_fit_random_schemas() {
    let mut worker = Worker::tiny();
    let (mut whole, mut cut) = (0, 0);
    for (i, form) in random(schemas::schema(&["uuid", "ipv4", "time"]), 60)
        .iter()
        .enumerate()
    {
        let answer = worker.ask(hot(of(schema(form), "Tell me something."), i as u32));
        match &answer.done {
            None => assert!(impossible(&answer), "{form}: {answer:?}"),
            Some(done) if done.finish == Finish::Length => cut += 1,
            Some(_) => {
                whole += 1;
                assert!(
                    fits(form, &answer.text),
                    "{} does not fit {form}",
                    answer.text
                );
            }
        }
    }
    assert!(whole > 20, "{whole} whole, {cut} cut off");
}

#[test]
fn hot_calls_fit_random_functions() {
    let mut worker = Worker::tiny();
    let (mut whole, mut cut) = (0, 0);
    for (i, form) in random(schemas::parameters(&["date", "email", "uri"]), 60)
        .iter()
        .enumerate()
    {
        let request = ChatRequest {
            tools: vec![tool("f", form.clone()), light()],
            tool_choice: ToolChoice::Required,
            ..user(KITCHEN)
        };
        let answer = worker.ask(hot(request, i as u32));
        match &answer.done {
            None => assert!(impossible(&answer), "{form}: {answer:?}"),
            Some(done) => {
                assert_eq!(answer.text, "", "nothing but calls");
                assert_eq!(
                    done.finish == Finish::Length,
                    answer.ended_calls < answer.calls.len() || done.usage.completion_tokens == 700
                );
                cut += usize::from(done.finish == Finish::Length);
                for call in &answer.calls[..answer.ended_calls] {
                    whole += 1;
                    let parameters = if call.name == "f" {
                        form.clone()
                    } else {
                        serde_json::from_str(&light().parameters.unwrap()).unwrap()
                    };
                    assert!(
                        fits(&parameters, &call.arguments),
                        "{} {} does not fit {form}",
                        call.name,
                        call.arguments
                    );
                }
            }
        }
    }
    assert!(whole > 20, "{whole} whole, {cut} cut off");
}

#[test]
fn calls_can_be_forced_and_counted() {
    let mut worker = Worker::tiny();
    let tools = vec![
        light(),
        tool(
            "get_weather",
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
        ),
    ];
    let offered = |text: &str, tool_choice| ChatRequest {
        tools: tools.clone(),
        tool_choice,
        ..user(text)
    };

    let free = worker.ask(offered("What is the capital of France?", ToolChoice::Auto));
    assert_eq!(
        (free.text.as_str(), free.calls.len()),
        ("The capital of France is Paris.", 0)
    );
    let called = worker.ask(offered(KITCHEN, ToolChoice::Auto));
    assert_eq!(
        (called.done().finish, called.calls[0].name.as_str()),
        (Finish::ToolCalls, "set_light")
    );

    let forced = worker.ask(offered(
        "What is the capital of France?",
        ToolChoice::Required,
    ));
    assert_eq!((forced.text.as_str(), forced.calls.is_empty()), ("", false));
    let named = worker.ask(offered(KITCHEN, ToolChoice::Named("get_weather".into())));
    assert_eq!(
        (named.ended_calls, named.calls[0].name.as_str()),
        (1, "get_weather")
    );
    assert!(fits(
        &json!({"type": "object", "required": ["city"]}),
        &named.calls[0].arguments
    ));

    let both = "Turn on the light in the kitchen and turn off the light in the garden.";
    assert!(worker.ask(offered(both, ToolChoice::Auto)).ended_calls >= 1);
    let one = ChatRequest {
        parallel_tool_calls: false,
        ..offered(both, ToolChoice::Auto)
    };
    assert_eq!(worker.ask(one).ended_calls, 1);

    let thinking = ChatRequest {
        thinking: Thinking::On { budget: None },
        ..offered(KITCHEN, ToolChoice::Required)
    };
    let answer = worker.ask(thinking);
    assert!(
        answer.text.is_empty() && answer.ended_calls >= 1,
        "{answer:?}"
    );
}

#[test]
fn a_limit_inside_a_call_is_told() {
    let mut worker = Worker::tiny();
    let whole = worker.ask(ChatRequest {
        tools: vec![light()],
        ..user(KITCHEN)
    });
    let tokens = whole.usage().completion_tokens;
    for max in 1..tokens - 2 {
        let output = OutputLimits {
            max_tokens: Some(max),
            ..OutputLimits::default()
        };
        let answer = worker.ask(ChatRequest {
            tools: vec![light()],
            output: output.clone(),
            ..user(KITCHEN)
        });
        assert_eq!(
            (
                answer.done().finish,
                answer.ended_calls,
                answer.text.as_str()
            ),
            (Finish::Length, 0, ""),
            "{max} tokens"
        );
        let arguments = answer
            .calls
            .first()
            .map_or("", |call| call.arguments.as_str());
        assert!(
            whole.calls[0].arguments.starts_with(arguments),
            "{arguments}"
        );
        let json = worker.ask(ChatRequest {
            output,
            ..of(
                schema(&json!({"const": "a long text that takes many tokens"})),
                "Hi",
            )
        });
        assert!(
            json.done().finish == Finish::Length || fits(&json!({"type": "string"}), &json.text)
        );
    }
}

#[test]
fn thoughts_end_in_time() {
    let mut worker = Worker::tiny();
    let sum = |budget, max_tokens| ChatRequest {
        thinking: Thinking::On { budget },
        output: OutputLimits {
            max_tokens,
            ..OutputLimits::default()
        },
        ..user("What is 27 + 35?")
    };
    let free = worker.ask(sum(None, None));
    let tokens = free.usage().reasoning_tokens;
    assert!(tokens > 10, "{tokens}");
    let mut answered = false;
    for budget in [6, 8, 10] {
        let answer = worker.ask(sum(Some(budget), None));
        assert!(
            (1..=budget).contains(&answer.usage().reasoning_tokens),
            "{:?} of {budget}",
            answer.usage()
        );
        assert!(
            free.thought.starts_with(answer.thought.trim_end()),
            "{answer:?}"
        );
        answered |= !answer.text.is_empty();
    }
    assert!(
        answered,
        "no thought that was ended had an answer behind it"
    );
    let tiny = worker.ask(sum(Some(3), None));
    assert_eq!(
        (tiny.usage().reasoning_tokens, tiny.thought.as_str()),
        (0, "")
    );
    let plenty = worker.ask(sum(Some(tokens + 70), None));
    assert_eq!((plenty.text, plenty.thought), (free.text, free.thought));
    // A quarter of the tokens is kept for the answer.
    let short = worker.ask(sum(None, Some(24)));
    assert!(short.usage().reasoning_tokens <= 18, "{short:?}");
}

/// Schemas that take much work or have no end, each with whether it may be kept to all the same.
fn hostile_schemas() -> Vec<(Value, bool)> {
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "array", "items": deep});
    }
    let many: serde_json::Map<String, Value> = (0..5000)
        .map(|i| (format!("p{i}"), json!({"type": "string"})))
        .collect();
    let branches: Vec<Value> = (0..14)
        .map(|i| {
            let option = |name: &str| json!({"type": "object", "properties": {format!("{name}{i}"): {"type": "string"}}});
            json!({"anyOf": [option("a"), option("b")]})
        })
        .collect();
    vec![
        (
            json!({"enum": (0..20_000).map(|i| format!("value-{i}")).collect::<Vec<_>>()}),
            true,
        ),
        (json!({"type": "object", "properties": many}), true),
        // These say nothing.
        (json!({"$ref": "#"}), true),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            true,
        ),
        (json!({"allOf": branches}), false),
        (json!({"$ref": "file:///etc/passwd"}), false),
        (json!({"type": "string", "pattern": "("}), false),
        (
            json!({"type": "object", "properties": {"a": {"if": {}}}}),
            true,
        ),
        (deep, true),
        (
            json!({"type": "string", "pattern": "^(a|aa|aaa)*(b?){1000}c$"}),
            true,
        ),
        (
            json!({"type": "string", "pattern": "^((((a{1,50}){1,50}){1,50}){1,50}){1,50}$"}),
            true,
        ),
        (json!({"type": "string", "minLength": 1_000_000_000}), true),
    ]
}

/// Grammars and regular expressions that take much work.
fn hostile_texts() -> Vec<Format> {
    vec![
        Format::Regex("(".repeat(60_000)),
        Format::Regex("(a{1,1000}){1,1000}".repeat(20)),
        Format::Grammar(format!(
            "start: {}\"a\"{}",
            "(".repeat(30_000),
            ")".repeat(30_000)
        )),
        Format::Grammar("start: a\na: a a | \"x\" | \"\"".into()),
        Format::Grammar("start: <|channel>".into()),
        Format::Grammar("start: ((\"a\"{1,1000}){1,1000}){1,1000}".into()),
    ]
}

#[test]
fn hostile_forms_are_refused_and_hold_up_nobody() {
    let mut worker = Worker::tiny();
    // The vocabulary's tree is there from now on.
    worker.ask(of(Format::JsonObject, "Hi"));
    let schemas = hostile_schemas().into_iter();
    let schemas = schemas.map(|(form, may_work)| (schema(&form), may_work));
    let texts = hostile_texts().into_iter().map(|form| (form, true));
    for (form, may_work) in schemas.chain(texts) {
        let short = OutputLimits {
            max_tokens: Some(8),
            ..OutputLimits::default()
        };
        let start = Instant::now();
        let hostile = worker.begin(ChatRequest {
            output: short,
            ..of(form.clone(), "Hi")
        });
        let honest = worker.begin(user("What is the capital of France?"));
        let answers = worker.collect(&[hostile, honest]);
        assert_eq!(answers[1].text, "The capital of France is Paris.");
        let refused = matches!(
            &answers[0].error,
            Some(ChatError::Constraint {
                part: Constraint::Format,
                ..
            })
        );
        let name: String = format!("{form:?}").chars().take(60).collect();
        assert!(
            refused || (may_work && answers[0].done.is_some()),
            "{name}: {:?}",
            answers[0]
        );
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{name} took {:?}",
            start.elapsed()
        );
    }
    assert!(
        worker.anonymous() < 400 << 20,
        "{} bytes",
        worker.anonymous()
    );
}

#[test]
fn a_cancelled_request_leaves_before_its_grammar_is_there() {
    let mut worker = Worker::tiny();
    let many: serde_json::Map<String, Value> = (0..900)
        .map(|i| (format!("p{i}"), json!({"type": "string"})))
        .collect();
    let slow = worker.begin(of(
        schema(&json!({"type": "object", "properties": many})),
        "Hi",
    ));
    worker.send(&ServeRequest::Cancel { id: slow });
    let start = Instant::now();
    assert!(
        worker
            .ask(of(Format::Regex("yes|no".into()), "Hi"))
            .done
            .is_some()
    );
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn slow_schemas_of_one_user_delay_another_by_one() {
    let mut worker = Worker::tiny();
    // The vocabulary's tree is there from now on.
    worker.ask(of(Format::JsonObject, "Hi"));
    let wide = |number: usize| {
        let many: serde_json::Map<String, Value> = (0..300)
            .map(|i| (format!("p{number}-{i}"), json!({"type": "string"})))
            .collect();
        let short = OutputLimits {
            max_tokens: Some(2),
            ..OutputLimits::default()
        };
        ChatRequest {
            output: short,
            ..of(schema(&json!({"type": "object", "properties": many})), "Hi")
        }
    };
    let (greedy, honest) = (PrincipalId::User(1), PrincipalId::User(2));
    let many: Vec<_> = (0..20)
        .map(|number| worker.begin_as(greedy, wide(number)))
        .collect();
    // A schema's turn is over when its answer begins, or when it is refused for what it takes.
    let ended = |event: ServeEvent| match event {
        ServeEvent::Event {
            id,
            event: ChatEvent::Started { .. },
        }
        | ServeEvent::Failed { id, .. } => Some(id),
        _ => None,
    };
    let mut before = 0;
    while before == 0 {
        before += usize::from(ended(worker.receive()).is_some());
    }
    // All others wait by now.
    let one = worker.begin_as(honest, of(Format::Regex("yes|no".into()), "Hi"));
    let begun = Instant::now();
    let mut meanwhile = 0;
    loop {
        match ended(worker.receive()) {
            Some(id) if id == one => break,
            Some(_) => meanwhile += 1,
            None => {}
        }
    }
    println!(
        "{before} before, {meanwhile} meanwhile, {:?}",
        begun.elapsed()
    );
    // One was being compiled, and another's turn may have come before this one was there.
    assert!(
        before + meanwhile < many.len() / 2 && meanwhile <= 2,
        "{before} before, {meanwhile} meanwhile"
    );
}
