//! Histories that a client cannot help sending: calls without results, results without calls,
//! answers that say nothing. Pure.
//!
//! The template shows a result only directly behind the call that it answers, and leaves a call
//! without one open. So results are brought to their calls here, a call that was never answered is
//! said to be so, and a result without a call becomes a text of the user's. What ends with a call
//! has nothing to answer; most doors refuse it.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::chat::{ChatRequest, Invalid, Message, Part, Place, Role};

/// What stands for the result of a call that got none.
const NO_RESULT: &str = "Error: there is no result; the call was interrupted.";

/// Brings a history into an order in which the model sees all of it. `places` has an entry for each
/// message and moves with it.
///
/// # Errors
///
/// The last thing in it is a call without its result.
pub fn mend<P: Clone>(messages: &mut Vec<Message>, places: &mut Vec<P>) -> Result<(), Invalid> {
    let found = Found::of(messages);
    if let Some((message, call)) = found.open {
        let call = &messages[message].tool_calls[call];
        let reason = format!(
            "calls `{}` (`{}`), and there is no result of it; send one, or what the user says",
            call.name, call.id
        );
        return Err(Invalid::new(Place::Content { message }, reason));
    }
    arrange(messages, places, found);
    Ok(())
}

/// The same for a chat, which may end with a call: clients ask what its prompt is. The worker learns
/// which message of the client's each is.
pub fn settle(request: &mut ChatRequest) {
    let mut origins: Vec<u32> = (0..request.messages.len() as u32).collect();
    let found = Found::of(&mut request.messages);
    arrange(&mut request.messages, &mut origins, found);
    let is_own = |(at, origin): (usize, &u32)| at == *origin as usize;
    if !origins.iter().enumerate().all(is_own) {
        request.origins = origins;
    }
}

/// Which result answers which call. Messages are named by their numbers.
#[derive(Default)]
struct Found {
    /// Turns and the results of their calls.
    order: Vec<(usize, usize)>,
    /// Turns and the ids of their calls without one.
    absent: Vec<(usize, String)>,
    /// The last turn, and the first of its calls without one.
    open: Option<(usize, usize)>,
    /// For each message, whether it is a result of a call.
    used: Vec<bool>,
}

impl Found {
    /// Answers that say nothing, and results whose ids are of no use, are mended on the way.
    fn of(messages: &mut [Message]) -> Self {
        adopt(messages);
        let mut results: HashMap<String, VecDeque<usize>> = HashMap::new();
        let mut last_turn = 0;
        for (i, message) in messages.iter_mut().enumerate() {
            if message.role == Role::Tool {
                let id = message.tool_call_id.clone().unwrap_or_default();
                results.entry(id).or_default().push_back(i);
                continue;
            }
            last_turn = i;
            // An answer that was cut off before it said anything.
            if message.role == Role::Assistant
                && message.content.is_empty()
                && message.tool_calls.is_empty()
            {
                message.content.push(Part::Text(String::new()));
            }
        }
        let mut found = Self {
            used: vec![false; messages.len()],
            ..Self::default()
        };
        for (i, message) in messages.iter().enumerate() {
            for (j, call) in message.tool_calls.iter().enumerate() {
                let result = results.get_mut(&call.id).and_then(|list| {
                    while list.front().is_some_and(|at| *at < i) {
                        list.pop_front();
                    }
                    list.pop_front()
                });
                match result {
                    Some(at) => {
                        found.used[at] = true;
                        found.order.push((i, at));
                    }
                    None if i == last_turn => found.open = found.open.or(Some((i, j))),
                    None => found.absent.push((i, call.id.clone())),
                }
            }
        }
        found
    }
}

/// Some clients give results other ids than their calls, or none. Those that belong to no call of the
/// conversation answer what is open in the turn that they stand directly behind.
fn adopt(messages: &mut [Message]) {
    let calls = messages.iter().flat_map(|message| &message.tool_calls);
    let known: HashSet<String> = calls.map(|call| call.id.clone()).collect();
    let mut open: VecDeque<String> = VecDeque::new();
    for i in 0..messages.len() {
        if messages[i].role != Role::Tool {
            let results = messages[i + 1..]
                .iter()
                .take_while(|m| m.role == Role::Tool);
            let answered: HashSet<_> = results.filter_map(|m| m.tool_call_id.as_deref()).collect();
            let ids = messages[i].tool_calls.iter().map(|call| &call.id);
            open = ids
                .filter(|id| !answered.contains(id.as_str()))
                .cloned()
                .collect();
        } else if !known.contains(messages[i].tool_call_id.as_deref().unwrap_or_default())
            && let Some(id) = open.pop_front()
        {
            messages[i].tool_call_id = Some(id);
        }
    }
}

/// Whether every result is used and stands behind its own turn already.
fn is_in_order(messages: &[Message], used: &[bool]) -> bool {
    let mut open: &[_] = &[];
    messages.iter().zip(used).all(|(message, used)| {
        if message.role != Role::Tool {
            open = &message.tool_calls;
            return true;
        }
        let id = message.tool_call_id.as_deref();
        *used && open.iter().any(|call| Some(call.id.as_str()) == id)
    })
}

/// Puts the results behind their turns.
fn arrange<P: Clone>(messages: &mut Vec<Message>, places: &mut Vec<P>, found: Found) {
    let Found {
        order,
        absent,
        used,
        ..
    } = found;
    if absent.is_empty() && is_in_order(messages, &used) {
        return;
    }
    let mut old: Vec<Option<Message>> = std::mem::take(messages).into_iter().map(Some).collect();
    let old_places = std::mem::take(places);
    let (mut order, mut absent) = (order.iter().peekable(), absent.iter().peekable());
    for i in 0..old.len() {
        if used[i] {
            continue;
        }
        let Some(mut message) = old[i].take() else {
            continue;
        };
        if message.role == Role::Tool {
            orphaned(&mut message);
        }
        messages.push(message);
        places.push(old_places[i].clone());
        while let Some((_, at)) = order.next_if(|(turn, _)| *turn == i) {
            messages.extend(old[*at].take());
            places.push(old_places[*at].clone());
        }
        while let Some((_, id)) = absent.next_if(|(turn, _)| *turn == i) {
            messages.push(Message {
                tool_call_id: Some(id.clone()),
                ..Message::text(Role::Tool, NO_RESULT)
            });
            places.push(old_places[i].clone());
        }
    }
}

/// A result whose call is not in the conversation, as something that the user says.
fn orphaned(message: &mut Message) {
    let of = match (&message.name, &message.tool_call_id) {
        (Some(name), _) => format!("`{name}`"),
        (None, Some(id)) => format!("the call `{id}`"),
        (None, None) => "a call".to_owned(),
    };
    message.role = Role::User;
    (message.tool_call_id, message.name) = (None, None);
    let text = format!("[The result of {of}, which is not in this conversation:]\n");
    message.content.insert(0, Part::Text(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    fn calls(ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall {
            id: (*id).into(),
            name: "f".into(),
            arguments: "{}".into(),
        };
        Message {
            content: vec![],
            tool_calls: ids.iter().map(call).collect(),
            ..Message::text(Role::Assistant, "")
        }
    }

    fn result(id: &str) -> Message {
        Message {
            tool_call_id: Some(id.into()),
            ..Message::text(Role::Tool, id)
        }
    }

    fn user() -> Message {
        Message::text(Role::User, "u")
    }

    /// What comes of it: roles, the ids of results, and the places.
    fn mended(mut messages: Vec<Message>) -> Result<(String, Vec<usize>), Invalid> {
        let mut places: Vec<usize> = (0..messages.len()).collect();
        mend(&mut messages, &mut places)?;
        let shown = messages.iter().map(|message| match message.role {
            Role::System => "s".to_owned(),
            Role::User => "u".to_owned(),
            Role::Assistant => "a".to_owned(),
            Role::Tool => {
                let none = message.content == [Part::Text(NO_RESULT.into())];
                format!(
                    "{}{}",
                    message.tool_call_id.as_deref().unwrap(),
                    if none { "!" } else { "" }
                )
            }
        });
        Ok((shown.collect::<Vec<_>>().join(" "), places))
    }

    #[test]
    fn results_come_to_their_calls() {
        let assistant = || Message::text(Role::Assistant, "text");
        for (messages, shown, places) in [
            (
                vec![user(), calls(&["1", "2"]), result("1"), result("2")],
                "u a 1 2",
                vec![0, 1, 2, 3],
            ),
            (
                vec![user(), calls(&["1"]), assistant(), result("1")],
                "u a 1 a",
                vec![0, 1, 3, 2],
            ),
            (
                vec![calls(&["1"]), calls(&["2"]), result("1"), result("2")],
                "a 1 a 2",
                vec![0, 2, 1, 3],
            ),
            // The same name again, as some clients have it.
            (
                vec![calls(&["1"]), result("1"), calls(&["1"]), result("1")],
                "a 1 a 1",
                vec![0, 1, 2, 3],
            ),
            (vec![calls(&["1"]), user()], "a 1! u", vec![0, 0, 1]),
            (
                vec![calls(&["1", "2"]), result("2"), user()],
                "a 2 1! u",
                vec![0, 1, 0, 2],
            ),
            (vec![user(), result("9")], "u u", vec![0, 1]),
            (
                vec![user(), calls(&["1"]), result("9"), result("1")],
                "u a 1 u",
                vec![0, 1, 3, 2],
            ),
            // Ids of no use.
            (
                vec![calls(&["1"]), result("x"), user()],
                "a 1 u",
                vec![0, 1, 2],
            ),
            (
                vec![
                    calls(&["1", "2", "3"]),
                    result(""),
                    result("2"),
                    result("y"),
                ],
                "a 1 2 3",
                vec![0, 1, 2, 3],
            ),
            (
                vec![calls(&["1"]), calls(&["2"]), result("1"), user()],
                "a 1 a 2! u",
                vec![0, 2, 1, 1, 3],
            ),
        ] {
            assert_eq!(mended(messages).unwrap(), (shown.to_owned(), places));
        }
    }

    #[test]
    fn a_result_without_a_call_says_what_it_is() {
        let mut messages = vec![user(), result("9")];
        mend(&mut messages, &mut vec![(), ()]).unwrap();
        let [Part::Text(note), Part::Text(said)] = &messages[1].content[..] else {
            panic!("{messages:?}");
        };
        assert!(note.contains("`9`") && said == "9" && messages[1].tool_call_id.is_none());
    }

    #[test]
    fn a_chat_says_what_became_of_its_messages() {
        for (messages, roles, origins) in [
            (vec![user(), calls(&["1"])], 2, vec![]),
            (vec![calls(&["1", "2"]), result("1")], 2, vec![]),
            (vec![user(), calls(&["1"]), result("1"), user()], 4, vec![]),
            (vec![calls(&["1"]), user()], 3, vec![0, 0, 1]),
            (vec![calls(&["1"]), user(), result("1")], 3, vec![0, 2, 1]),
        ] {
            let mut request = ChatRequest::new(messages);
            settle(&mut request);
            assert_eq!((request.messages.len(), request.origins), (roles, origins));
        }
    }

    #[test]
    fn a_call_at_the_end_is_named_and_an_answer_that_says_nothing_is_taken() {
        let error = mended(vec![user(), calls(&["1", "2"]), result("1")]).unwrap_err();
        assert_eq!(error.place, Place::Content { message: 1 });
        assert!(error.reason.contains("`2`"), "{error}");
        let mut messages = vec![user(), calls(&[]), user()];
        mend(&mut messages, &mut vec![(); 3]).unwrap();
        assert_eq!(messages[1].content, [Part::Text(String::new())]);
    }
}
