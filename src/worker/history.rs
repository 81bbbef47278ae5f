//! Calls and their results, as a template can tell them. Pure.
//!
//! Templates write the results of calls behind the message that calls, and nowhere else: a result
//! that stands elsewhere would be lost without a word, and a call without one leaves the prompt in
//! the middle of it. Clients shorten their histories and are cut off in the middle of calls, so both
//! happen. What was said stays; what is missing is said to be.

use crate::chat::{Message, Role, ToolCall};

/// The result of a call that has none.
const NO_RESULT: &str = "no result";
/// The function of a result that does not say it.
const UNKNOWN: &str = "unknown";

/// A conversation in which each call has its result behind it, and each result its call before it.
#[derive(Debug, PartialEq)]
pub struct Mended {
    pub messages: Vec<Message>,
    /// For each of them, the client's own that it is or stands beside.
    pub origins: Vec<usize>,
}

/// Puts results behind their calls, and what is missing in its place. `None` if nothing is to be
/// done. Calls at the end have no results yet.
pub fn mended(messages: &[Message]) -> Option<Mended> {
    let calls = |at: usize| !messages[at].tool_calls.is_empty();
    let is_result = |at: usize| messages.get(at).is_some_and(|m| m.role == Role::Tool);
    // The results that stand behind no call.
    let mut strays = vec![];
    let mut behind_calls = false;
    for at in 0..messages.len() {
        if !is_result(at) {
            behind_calls = calls(at);
        } else if !behind_calls {
            strays.push(at);
        }
    }
    let mut out = Mended {
        messages: vec![],
        origins: vec![],
    };
    let mut changed = !strays.is_empty();
    let mut at = 0;
    while at < messages.len() {
        if is_result(at) {
            // Those that belong to a call were taken along with it, or moved to it.
            let run = (at..messages.len()).take_while(|at| is_result(*at)).count();
            let left: Vec<_> = (at..at + run).filter(|at| strays.contains(at)).collect();
            out.orphans(messages, &left);
            at += run;
            continue;
        }
        out.push(messages[at].clone(), at);
        let run = (at + 1..messages.len())
            .take_while(|at| is_result(*at))
            .count();
        let own = if calls(at) { run } else { 0 };
        let results = at + 1..at + 1 + own;
        for result in results.clone() {
            out.push(messages[result].clone(), result);
        }
        let is_last = results.end == messages.len();
        if calls(at) && own < messages[at].tool_calls.len() && !is_last {
            changed = true;
            for call in &messages[at].tool_calls {
                out.missing(messages, (at, call), results.clone(), &mut strays);
            }
        }
        at = results.end;
    }
    changed.then_some(out)
}

impl Mended {
    fn push(&mut self, message: Message, origin: usize) {
        self.messages.push(message);
        self.origins.push(origin);
    }

    /// The result of a call that none of `results` answers: one that stands elsewhere, or that there
    /// is none.
    fn missing(
        &mut self,
        messages: &[Message],
        (at, call): (usize, &ToolCall),
        mut results: std::ops::Range<usize>,
        strays: &mut Vec<usize>,
    ) {
        let answers = |at: usize| messages[at].tool_call_id.as_deref() == Some(call.id.as_str());
        if results.any(answers) {
            return;
        }
        match strays.iter().position(|stray| answers(*stray)) {
            Some(found) => {
                let stray = strays.remove(found);
                self.push(messages[stray].clone(), stray);
            }
            None => {
                let mut result = Message::text(Role::Tool, NO_RESULT);
                result.tool_call_id = Some(call.id.clone());
                result.name = Some(call.name.clone());
                self.push(result, at);
            }
        }
    }

    /// Results whose calls are gone, behind calls of which no more is known.
    fn orphans(&mut self, messages: &[Message], results: &[usize]) {
        let Some(&first) = results.first() else {
            return;
        };
        let call = |&at: &usize| ToolCall {
            id: messages[at].tool_call_id.clone().unwrap_or_default(),
            name: messages[at].name.clone().unwrap_or_else(|| UNKNOWN.into()),
            arguments: "{}".into(),
        };
        let mut caller = Message::text(Role::Assistant, "");
        caller.content.clear();
        caller.tool_calls = results.iter().map(call).collect();
        self.push(caller, first);
        for &at in results {
            self.push(messages[at].clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Message {
        Message::text(Role::User, text)
    }

    fn calls(ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall {
            id: (*id).into(),
            name: format!("f_{id}"),
            arguments: r#"{"a":1}"#.into(),
        };
        let mut message = Message::text(Role::Assistant, "");
        message.content.clear();
        message.tool_calls = ids.iter().map(call).collect();
        message
    }

    fn result(id: &str) -> Message {
        let mut message = Message::text(Role::Tool, format!("of {id}"));
        message.tool_call_id = Some(id.into());
        message
    }

    /// `u`, `a`, `c(ids)`, `r(id)` or `-(id)` for each message, and its origin.
    fn shape(messages: &[Message]) -> Option<String> {
        let Mended { messages, origins } = mended(messages)?;
        let one = |(message, origin): (&Message, &usize)| {
            let id = message.tool_call_id.as_deref().unwrap_or_default();
            let shape = match message.role {
                Role::Tool if *message == result(id) => format!("r({id})"),
                Role::Tool => format!("-({id})"),
                Role::User => "u".to_owned(),
                _ if message.tool_calls.is_empty() => "a".to_owned(),
                _ => {
                    let ids = message
                        .tool_calls
                        .iter()
                        .map(|call| format!("{}:{}", call.name, call.id));
                    format!("c({})", ids.collect::<Vec<_>>().join(","))
                }
            };
            format!("{shape}{origin}")
        };
        let all: Vec<_> = messages.iter().zip(&origins).map(one).collect();
        Some(all.join(" "))
    }

    #[test]
    fn what_is_whole_stays() {
        let answer = Message::text(Role::Assistant, "ok");
        for messages in [
            vec![],
            vec![user("a"), answer.clone(), user("b")],
            vec![
                user("a"),
                calls(&["1", "2"]),
                result("1"),
                result("2"),
                answer.clone(),
            ],
            vec![
                user("a"),
                calls(&["1"]),
                result("1"),
                calls(&["1"]),
                result("1"),
            ],
            vec![user("a"), calls(&["1"])],
            vec![user("a"), calls(&["1", "2"]), result("1")],
            // Some clients have other ids, or none.
            vec![user("a"), calls(&["1"]), result("x"), user("b")],
        ] {
            assert_eq!(shape(&messages), None, "{messages:?}");
        }
    }

    #[test]
    fn a_call_without_a_result_has_none() {
        assert_eq!(
            shape(&[user("a"), calls(&["1"]), user("b")]).as_deref(),
            Some("u0 c(f_1:1)1 -(1)1 u2")
        );
        assert_eq!(
            shape(&[user("a"), calls(&["1", "2"]), result("2"), user("b")]).as_deref(),
            Some("u0 c(f_1:1,f_2:2)1 r(2)2 -(1)1 u3")
        );
    }

    #[test]
    fn a_result_goes_to_its_call() {
        assert_eq!(
            shape(&[user("a"), calls(&["1"]), user("b"), result("1"), user("c")]).as_deref(),
            Some("u0 c(f_1:1)1 r(1)3 u2 u4")
        );
    }

    #[test]
    fn a_result_without_a_call_is_shown() {
        assert_eq!(
            shape(&[user("a"), result("1"), result("2"), user("b")]).as_deref(),
            Some("u0 c(unknown:1,unknown:2)1 r(1)1 r(2)2 u3")
        );
        assert_eq!(
            shape(&[result("1")]).as_deref(),
            Some("c(unknown:1)0 r(1)0")
        );
    }
}
