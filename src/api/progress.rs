//! How far a request is, as clients are told that ask for it: `stream_options.include_progress`, or
//! llama.cpp's `return_progress`. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::fields;
use crate::api::parse::Invalid;
use crate::api::parse::json::Object;
use crate::chat::{Reading, Stage, Waiting};

/// The name of the event in APIs whose events have names.
pub const EVENT: &str = "gemmad.progress";

/// What a client wants to hear while its request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Every stage, in gemmad's own form.
    pub stages: bool,
    /// How far the prompt is read, in the form of llama.cpp's server.
    pub prompt: bool,
}

/// One of the forms in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Gemmad,
    LlamaCpp,
}

impl Form {
    /// The field that says it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Gemmad => "progress",
            Self::LlamaCpp => "prompt_progress",
        }
    }
}

impl Wish {
    /// Takes llama.cpp's field; the other one is a member of `stream_options`.
    pub fn take(object: &mut Object) -> Result<Self, Invalid> {
        Ok(Self {
            stages: false,
            prompt: object.switch("return_progress", false)?,
        })
    }

    /// Takes both, at endpoints whose `stream_options` say nothing else.
    pub fn take_with_options(object: &mut Object) -> Result<Self, Invalid> {
        let mut wish = Self::take(object)?;
        if let Some(options) = object.take("stream_options") {
            let mut options = options.object()?;
            wish.take_option(&mut options)?;
            fields::neutral_members(&mut options, "stream_options")?;
            options.finish()?;
        }
        Ok(wish)
    }

    /// Takes the member of `stream_options`.
    pub fn take_option(&mut self, options: &mut Object) -> Result<(), Invalid> {
        self.stages = options.switch("include_progress", false)?;
        Ok(())
    }

    /// Whether there is anything to tell.
    pub fn is_any(self) -> bool {
        self.stages || self.prompt
    }

    /// What is told: `around` makes what stands around it in a form, and it becomes a field of that.
    pub fn told(self, waiting: &Waiting, around: impl Fn(Form) -> Value) -> Vec<Value> {
        let prompt = match waiting.stage {
            Stage::Reading(reading) if self.prompt => Some(prompt_progress(&reading)),
            _ => None,
        };
        let forms = [
            (Form::Gemmad, self.stages.then(|| progress(waiting))),
            (Form::LlamaCpp, prompt),
        ];
        let told = forms.into_iter().filter_map(|(form, what)| {
            let mut value = around(form);
            value[form.field()] = what?;
            Some(value)
        });
        told.collect()
    }
}

/// gemmad's own form.
pub fn progress(waiting: &Waiting) -> Value {
    #[derive(Serialize)]
    #[serde(tag = "phase", rename_all = "snake_case")]
    enum Out {
        Fetching {
            received: u64,
            bytes: Option<u64>,
        },
        Queued {
            position: u32,
        },
        Loading {
            share: Option<f32>,
        },
        Reading {
            tokens_read: u32,
            tokens_to_read: u32,
            tokens_cached: u32,
        },
    }
    let out = match waiting.stage {
        Stage::Fetching { received, bytes } => Out::Fetching { received, bytes },
        Stage::Queued { position } => Out::Queued { position },
        Stage::Loading { share } => Out::Loading { share },
        Stage::Reading(reading) => Out::Reading {
            tokens_read: reading.read(),
            tokens_to_read: reading.to_read(),
            tokens_cached: reading.cached,
        },
    };
    // Numbers and names always serialise.
    let mut value = serde_json::to_value(out).unwrap_or_default();
    value["seconds_left"] = json!(waiting.left.map(|left| left.as_millis() as f64 / 1e3));
    value
}

/// The form of llama.cpp's server: what was cached counts as processed, and is named.
fn prompt_progress(reading: &Reading) -> Value {
    json!({
        "total": reading.total,
        "cache": reading.cached,
        "processed": reading.done,
        "time_ms": reading.time_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::whole;
    use std::time::Duration;

    fn told(wish: Wish, stage: Stage, left: Option<u64>) -> Vec<Value> {
        let left = left.map(Duration::from_millis);
        wish.told(&Waiting { stage, left }, |_| json!({"id": 1}))
    }

    #[test]
    fn each_form_says_what_it_says() {
        let both = Wish {
            stages: true,
            prompt: true,
        };
        let stage = Stage::Queued { position: 3 };
        assert_eq!(
            told(both, stage, None),
            [
                json!({"id": 1, "progress": {"phase": "queued", "position": 3, "seconds_left": null}})
            ]
        );
        let stage = Stage::Fetching {
            received: 5,
            bytes: Some(9),
        };
        assert_eq!(
            told(both, stage, Some(2000)),
            [
                json!({"id": 1, "progress": {"phase": "fetching", "received": 5, "bytes": 9, "seconds_left": 2.0}})
            ]
        );
        let stage = Stage::Loading { share: Some(0.5) };
        assert_eq!(
            told(both, stage, Some(1500)),
            [json!({"id": 1, "progress": {"phase": "loading", "share": 0.5, "seconds_left": 1.5}})]
        );
        let stage = Stage::Reading(Reading {
            total: 100,
            cached: 20,
            done: 60,
            time_ms: 7,
        });
        let theirs = json!({"id": 1, "prompt_progress": {"total": 100, "cache": 20, "processed": 60, "time_ms": 7}});
        assert_eq!(
            told(both, stage, None),
            [
                json!({"id": 1, "progress": {"phase": "reading", "tokens_read": 40, "tokens_to_read": 80,
                    "tokens_cached": 20, "seconds_left": null}}),
                theirs.clone()
            ]
        );
        let only = Wish {
            prompt: true,
            ..Wish::default()
        };
        assert_eq!(told(only, stage, None), [theirs]);
        assert!(told(only, Stage::Loading { share: None }, None).is_empty());
    }

    #[test]
    fn it_is_told_to_those_who_ask() {
        let wish = |json: &str| whole(json, Wish::take_with_options);
        for (json, stages, prompt) in [
            ("{}", false, false),
            (r#"{"return_progress":true}"#, false, true),
            (
                r#"{"stream_options":{"include_progress":true,"include_obfuscation":false}}"#,
                true,
                false,
            ),
        ] {
            assert_eq!(wish(json).unwrap(), Wish { stages, prompt }, "{json}");
        }
        for (json, field) in [
            (r#"{"return_progress":1}"#, "return_progress"),
            (
                r#"{"stream_options":{"include_progress":"yes"}}"#,
                "stream_options.include_progress",
            ),
            (
                r#"{"stream_options":{"include_usage":true}}"#,
                "stream_options.include_usage",
            ),
        ] {
            assert_eq!(wish(json).unwrap_err().field, field, "{json}");
        }
    }
}
