//! Histories that a client cannot help sending: calls without results, results without calls,
//! answers that say nothing. Pure.
//!
//! The template shows a result only directly behind the call that it answers, and leaves a call
//! without one open. So results are brought to their calls here, a call that was never answered is
//! said to be so, and a result without a call becomes a text of the user's. What ends with a call
//! has nothing to answer and is refused.

use std::collections::{HashMap, VecDeque};

use crate::chat::{Invalid, Message, Part, Place, Role};

/// What stands for the result of a call that got none.
const NO_RESULT: &str = "Error: there is no result; the call was interrupted.";

/// Brings a history into an order in which the model sees all of it. `places` has an entry for each
/// message and moves with it.
///
/// # Errors
///
/// The last thing in it is a call without its result.
pub fn mend<P: Clone>(messages: &mut Vec<Message>, places: &mut Vec<P>) -> Result<(), Invalid> {
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
    let mut used = vec![false; messages.len()];
    let (mut order, mut absent) = (Vec::with_capacity(messages.len()), vec![]);
    for (i, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            continue;
        }
        for call in &message.tool_calls {
            let found = results.get_mut(&call.id).and_then(|list| {
                while list.front().is_some_and(|at| *at < i) {
                    list.pop_front();
                }
                list.pop_front()
            });
            match found {
                Some(at) => {
                    used[at] = true;
                    order.push((i, Some(at)));
                }
                None if i == last_turn => {
                    let reason = format!(
                        "calls `{}` (`{}`), and there is no result of it; send one, or what the user says",
                        call.name, call.id
                    );
                    return Err(Invalid::new(Place::Content { message: i }, reason));
                }
                None => absent.push((i, call.id.clone())),
            }
        }
    }
    if absent.is_empty() && is_in_order(messages, &used) {
        return Ok(());
    }
    arrange(messages, places, &order, &absent, &used);
    Ok(())
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

/// Puts the results behind their turns. `order`: turns and their results, by number; `absent`:
/// turns and their calls without one.
fn arrange<P: Clone>(
    messages: &mut Vec<Message>,
    places: &mut Vec<P>,
    order: &[(usize, Option<usize>)],
    absent: &[(usize, String)],
    used: &[bool],
) {
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
        while let Some((_, Some(at))) = order.next_if(|(turn, _)| *turn == i) {
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
    fn a_call_at_the_end_is_named_and_an_answer_that_says_nothing_is_taken() {
        let error = mended(vec![user(), calls(&["1", "2"]), result("1")]).unwrap_err();
        assert_eq!(error.place, Place::Content { message: 1 });
        assert!(error.reason.contains("`2`"), "{error}");
        let mut messages = vec![user(), calls(&[]), user()];
        mend(&mut messages, &mut vec![(); 3]).unwrap();
        assert_eq!(messages[1].content, [Part::Text(String::new())]);
    }
}
