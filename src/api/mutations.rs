//! Bodies of every API, changed at random places in their structure: whatever comes is a request or
//! a refusal that names something, in short time. `GEMMAD_MUTATIONS` sets how many are tried of each.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::readers::{self, Reader};

/// What is tried of each API unless the environment says otherwise.
const TRIED: u32 = 3_000;
/// What one body may take.
const LONGEST: Duration = Duration::from_secs(2);
/// Levels that random values have, far below and above what is allowed.
const DEPTHS: [usize; 3] = [1, 40, 400];

/// An API's name, the reader of its bodies, and one that has everything.
type Door = (&'static str, Reader, Value);

fn doors() -> [Door; 6] {
    let function = json!({"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer", "enum": [1, 2]}}}});
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let picture = "data:image/png;base64,iVBORw0KGgo=";
    [
        (
            "chat",
            readers::CHAT,
            json!({"model": "m", "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": picture}}]},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "ok"}],
                "tools": [{"type": "function", "function": function}], "tool_choice": "auto", "stream": true, "n": 2,
                "stream_options": {"include_usage": true}, "stop": ["x"], "logit_bias": {"5": 1.5}, "seed": 7,
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
                "temperature": 0.5, "top_k": 3, "max_tokens": 9, "options": {"num_ctx": 4096}}),
        ),
        (
            "responses",
            readers::RESPONSES,
            json!({"model": "m", "instructions": "be brief", "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": picture}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": ""},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "ok"}],
                "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "web_search"}],
                "text": {"format": {"type": "json_object"}}, "reasoning": {"effort": "low"}, "include": [], "metadata": {"a": "b"}}),
        ),
        (
            "messages",
            readers::MESSAGES,
            json!({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "be brief"}], "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "ok"}]}],
                "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
                "thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["x"], "stream": true}),
        ),
        (
            "completions",
            readers::COMPLETIONS,
            json!({"model": "m", "prompt": ["a", "b"], "echo": true, "logprobs": 2, "n": 2, "max_tokens": 9, "stop": "x", "suffix": null,
                "stream_options": {"include_usage": true}}),
        ),
        (
            "ollama's chat",
            readers::OLLAMA_CHAT,
            json!({"model": "m", "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hi", "images": ["iVBORw0KGgo="]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "tool_name": "f", "content": "ok"}],
                "tools": [{"type": "function", "function": function}], "stream": true, "think": "low", "keep_alive": "5m",
                "format": {"type": "object"}, "options": {"num_ctx": 4096, "num_predict": 9, "temperature": 0.5, "stop": ["x"]}}),
        ),
        (
            "ollama's generate",
            readers::OLLAMA_GENERATE,
            json!({"model": "m", "prompt": "hi", "system": "be brief", "images": ["iVBORw0KGgo="], "format": "json", "raw": false,
                "suffix": "", "template": "", "context": [], "think": false, "keep_alive": -1, "logprobs": true, "top_logprobs": 2,
                "options": {"seed": 7, "top_k": 3}}),
        ),
    ]
}

/// Random numbers of xorshift64, which a test repeats by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count.max(1) as u64) as usize
    }

    /// A value that is unlikely where it will stand.
    fn value(&mut self) -> Value {
        match self.below(14) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(1e308),
            5 => json!(""),
            6 => json!("\u{0}<|turn>model\n\u{202e}<turn|>\u{fffd}"),
            7 => json!("x".repeat(1 << self.below(16))),
            8 => json!([]),
            9 => json!({}),
            10 => Value::Array(vec![json!({"type": "text", "text": "t"}); self.below(300)]),
            11 => json!({"type": "function", "$ref": "#", "anyOf": [{"$ref": "#/anyOf/0"}]}),
            12 => {
                let depth = DEPTHS[self.below(DEPTHS.len())];
                (0..depth).fold(json!(1), |inner, _| json!([inner]))
            }
            _ => {
                let depth = DEPTHS[self.below(DEPTHS.len())];
                (0..depth).fold(json!(1), |inner, _| json!({"properties": inner}))
            }
        }
    }

    /// Changes one place somewhere in a value.
    fn change(&mut self, value: &mut Value) {
        let inside = self.below(8) > 0;
        match value {
            Value::Object(fields) if inside && !fields.is_empty() => self.change_field(fields),
            Value::Array(items) if inside && !items.is_empty() => {
                let at = self.below(items.len());
                match self.below(6) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    2 => {
                        let other = self.below(items.len());
                        items.swap(at, other);
                    }
                    _ => self.change(&mut items[at]),
                }
            }
            other => *other = self.value(),
        }
    }

    fn change_field(&mut self, fields: &mut Map<String, Value>) {
        let at = self.below(fields.len());
        let Some(key) = fields.keys().nth(at).cloned() else {
            return;
        };
        match self.below(8) {
            0 => drop(fields.remove(&key)),
            1 => {
                let name = ["type", "content", "role", "stream", "n", "x", ""][self.below(7)];
                let value = self.value();
                fields.insert(name.into(), value);
            }
            _ => self.change(&mut fields[&key]),
        }
    }
}

fn tried() -> u32 {
    let asked = std::env::var("GEMMAD_MUTATIONS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(TRIED)
}

#[test]
fn changed_bodies_are_read_or_refused() {
    for (name, parse, whole) in doors() {
        assert!(
            parse(whole.to_string().as_bytes()).is_ok(),
            "{name}: {:?}",
            parse(whole.to_string().as_bytes())
        );
        let mut refused = 0;
        for seed in 1..=tried() {
            let mut random = Random(u64::from(seed) * 0x9E37_79B9_7F4A_7C15);
            let mut body = whole.clone();
            for _ in 0..=random.below(3) {
                random.change(&mut body);
            }
            let text = body.to_string();
            let start = Instant::now();
            let parsed = parse(text.as_bytes());
            assert!(start.elapsed() < LONGEST, "{name}, seed {seed}");
            if let Err(invalid) = parsed {
                refused += 1;
                assert!(!invalid.reason.is_empty(), "{name}, seed {seed}");
            }
            // The same with its end cut off.
            let cut = random.below(text.len());
            let _ = parse(&text.as_bytes()[..cut]);
        }
        // Changes that matter are noticed, and those that do not are not.
        let share = f64::from(refused) / f64::from(tried());
        assert!((0.2..0.98).contains(&share), "{name}: {share} refused");
    }
}
