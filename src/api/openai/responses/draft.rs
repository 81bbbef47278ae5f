//! A response in the making: what it shows of the request, and the answer as far as it has come.

use crate::api::generation::now;
use crate::api::id;
use crate::api::openai::responses::request::Shown;
use crate::api::openai::responses::response::{self, ErrorOut, Incomplete, ResponseOut, Status};
use crate::api::parts::{Kind, Parts};
use crate::chat::{Done, Message, Part, Role, ToolCall};

#[derive(Debug)]
pub struct Draft {
    pub id: String,
    created: u64,
    pub model: String,
    background: bool,
    store: bool,
    shown: Shown,
    pub parts: Parts,
}

impl Draft {
    pub fn new(model: String, background: bool, store: bool, shown: Shown) -> Self {
        Self {
            id: id::random("resp_"),
            created: now(),
            model,
            background,
            store,
            shown,
            parts: Parts::default(),
        }
    }

    /// The response while it is not over. Nothing is shown of what is not complete.
    pub fn standing(&self, status: Status) -> ResponseOut<'_> {
        ResponseOut {
            id: &self.id,
            object: "response",
            created_at: self.created,
            status,
            background: self.background,
            error: None,
            incomplete_details: None,
            model: &self.model,
            output: vec![],
            service_tier: "default",
            store: self.store,
            shown: &self.shown,
            usage: None,
            timings: None,
        }
    }

    pub fn finished(&self, done: &Done) -> ResponseOut<'_> {
        ResponseOut {
            incomplete_details: Incomplete::of(done),
            output: self.parts.list().iter().map(response::ended).collect(),
            usage: Some(done.usage.into()),
            timings: Some(done.into()),
            ..self.standing(Status::of(done.finish))
        }
    }

    /// The response that broke off, with what it had said.
    pub fn broken<'a>(&'a self, status: Status, error: Option<ErrorOut<'a>>) -> ResponseOut<'a> {
        ResponseOut {
            error,
            output: self.parts.list().iter().map(response::ended).collect(),
            ..self.standing(status)
        }
    }

    /// The answer as the model's turn of a conversation. A call that was cut off never was.
    pub fn turn(&self) -> Message {
        let mut turn = Message {
            content: vec![],
            ..Message::text(Role::Assistant, "")
        };
        for part in self.parts.list() {
            match &part.kind {
                Kind::Thought => turn.reasoning.get_or_insert_default().push_str(&part.text),
                Kind::Text => turn.content.push(Part::Text(part.text.clone())),
                Kind::Call { name } if part.complete => {
                    turn.tool_calls.push(ToolCall {
                        id: response::call_id(part),
                        name: name.clone(),
                        arguments: part.text.clone(),
                    });
                }
                Kind::Call { .. } => {}
            }
        }
        if turn.content.is_empty() && turn.tool_calls.is_empty() {
            turn.content.push(Part::Text(String::new()));
        }
        turn
    }
}
