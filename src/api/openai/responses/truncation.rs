//! Leaving out the oldest turns of a conversation that is too long. Pure.

use crate::chat::{Message, Part, Role};

/// What a picture or a sound counts for: about the tokens that it usually becomes, in bytes of
/// text.
const MEDIUM_BYTES: usize = 1200;

/// Leaves out as many of the oldest turns as it takes to save `share` of the conversation (0 to 1),
/// but never what the model was told before the first turn, nor the last turn. A turn begins with
/// what the user says, so a function's result never loses its call. `false` if there is nothing to
/// leave out.
pub fn drop_oldest(messages: &mut Vec<Message>, share: f64) -> bool {
    let first = messages
        .iter()
        .position(|message| message.role != Role::System)
        .unwrap_or(messages.len());
    let turns = &messages[first..];
    let all: usize = turns.iter().map(weight).sum();
    let mut saved = 0;
    let mut cut = None;
    for (i, message) in turns.iter().enumerate() {
        if i > 0 && message.role == Role::User && turns[i - 1].role != Role::User {
            cut = Some(i);
            if saved as f64 >= share * all as f64 {
                break;
            }
        }
        saved += weight(message);
    }
    match cut {
        Some(cut) => {
            messages.drain(first..first + cut);
            true
        }
        None => false,
    }
}

fn weight(message: &Message) -> usize {
    let piece = |piece: &Part| match piece {
        Part::Text(text) => text.len(),
        _ => MEDIUM_BYTES,
    };
    let part = |part: &Part| part.pieces().iter().map(piece).sum::<usize>();
    let calls: usize = message
        .tool_calls
        .iter()
        .map(|call| call.name.len() + call.arguments.len())
        .sum();
    message.content.iter().map(part).sum::<usize>()
        + calls
        + message.reasoning.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s`ystem, `u`ser, `a`ssistant, `t`ool; each weighs 10.
    fn conversation(roles: &str) -> Vec<Message> {
        let role = |c| match c {
            's' => Role::System,
            'u' => Role::User,
            'a' => Role::Assistant,
            _ => Role::Tool,
        };
        roles
            .chars()
            .map(|c| Message::text(role(c), "x".repeat(10)))
            .collect()
    }

    #[test]
    fn whole_turns_go_from_the_front() {
        for (roles, share, left) in [
            ("suauau", 0.1, "suauau"[..1].to_owned() + "uau"),
            ("suauau", 0.5, "su".into()),
            ("suauau", 1.0, "su".into()),
            ("uatatauau", 0.1, "uau".into()),
            ("auau", 0.1, "uau".into()),
            ("uuauu", 0.1, "uu".into()),
        ] {
            let mut messages = conversation(roles);
            assert!(drop_oldest(&mut messages, share), "{roles}");
            assert_eq!(messages, conversation(&left), "{roles} {share}");
        }
        for roles in ["su", "u", "uata", "suu", "s", ""] {
            assert!(!drop_oldest(&mut conversation(roles), 0.5), "{roles}");
        }
    }
}
