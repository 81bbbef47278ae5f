//! A response in the making: what it shows of the request, and the answer as far as it has come.

use std::sync::OnceLock;

use crate::api::generation::now;
use crate::api::id;
use crate::api::openai::responses::request::Shown;
use crate::api::openai::responses::response::{
    self, ErrorOut, Incomplete, ItemOut, ResponseOut, Status,
};
use crate::api::parts::{Kind, Parts};
use crate::chat::{Done, Message, Part, Role, ToolCall};

#[derive(Debug)]
pub struct Draft {
    pub id: String,
    created: u64,
    pub model: String,
    background: bool,
    store: bool,
    pub shown: Shown,
    pub parts: Parts,
    /// When it came to its end: Unix seconds.
    completed: OnceLock<u64>,
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
            completed: OnceLock::new(),
        }
    }

    /// The response while it is not over. Nothing is shown of what is not complete.
    pub fn standing(&self, status: Status) -> ResponseOut<'_> {
        ResponseOut {
            id: &self.id,
            object: "response",
            created_at: self.created,
            completed_at: None,
            status,
            background: self.background,
            error: None,
            incomplete_details: None,
            model: &self.model,
            output: vec![],
            store: self.store,
            conversation: (),
            shown: &self.shown,
            usage: None,
            timings: None,
        }
    }

    pub fn finished(&self, done: &Done) -> ResponseOut<'_> {
        let status = Status::of(done.finish);
        let completed = *self.completed.get_or_init(now);
        ResponseOut {
            completed_at: (status == Status::Completed).then_some(completed),
            incomplete_details: Incomplete::of(done),
            output: self.output(),
            usage: Some(done.usage.into()),
            timings: Some(done.into()),
            ..self.standing(status)
        }
    }

    fn output(&self) -> Vec<ItemOut<'_>> {
        let ended = |part| response::ended(part, &self.shown.look);
        self.parts.list().iter().map(ended).collect()
    }

    /// The response that broke off, with what it had said.
    pub fn broken<'a>(&'a self, status: Status, error: Option<ErrorOut<'a>>) -> ResponseOut<'a> {
        ResponseOut {
            error,
            output: self.output(),
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
