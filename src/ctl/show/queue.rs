//! Whose requests wait, as far as the daemon tells whoever asks.

use nix::unistd::{Uid, User};
use serde::Deserialize;

use super::show_time;

/// Who waits, as far as the daemon tells us.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Queue {
    users: Vec<QueueUser>,
    others: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct QueueUser {
    uid: Option<u32>,
    subject: String,
    app: String,
    waiting: u64,
    longest_wait_s: f64,
}

/// Whose requests wait, a line for each user. `name`: what a number is called.
pub fn queue_lines(queue: &Queue, name: impl Fn(u32) -> String) -> Vec<(&'static str, String)> {
    let user = |user: &QueueUser| {
        let longest = show_time(user.longest_wait_s);
        let name = match user.uid {
            Some(uid) => name(uid),
            None if !user.app.is_empty() => format!("app {}", user.app),
            None => format!("subject {}", user.subject),
        };
        format!(
            "{name}: {} waiting, the longest for {longest}",
            user.waiting
        )
    };
    let others = match queue.others {
        0 => None,
        others if queue.users.is_empty() => Some(format!("{others} waiting, none of them yours")),
        others => Some(format!("others: {others} waiting")),
    };
    let lines = queue.users.iter().map(user).chain(others);
    lines.map(|line| ("queue", line)).collect()
}

/// A user's name, or the number where there is none.
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_queue_is_shown_by_user() {
        let lines = |json| {
            let queue: Queue = parse(json).unwrap();
            let name = |uid| {
                if uid == 0 {
                    "root".into()
                } else {
                    format!("user {uid}")
                }
            };
            let lines = queue_lines(&queue, name).into_iter();
            lines.map(|(_, line)| line).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(
                json!({"users": [{"uid": 0, "waiting": 2, "longest_wait_s": 3.4}, {"uid": 7, "waiting": 1, "longest_wait_s": 150.0}], "others": 0})
            ),
            [
                "root: 2 waiting, the longest for 3 s",
                "user 7: 1 waiting, the longest for 2 min"
            ]
        );
        assert_eq!(
            lines(json!({"users": [{"uid": 0, "waiting": 1, "longest_wait_s": 0.0}], "others": 4})),
            ["root: 1 waiting, the longest for 0 s", "others: 4 waiting"]
        );
        assert_eq!(
            lines(json!({"users": [], "others": 4})),
            ["4 waiting, none of them yours"]
        );
        assert_eq!(
            lines(json!({"users": [{"app": "notes", "waiting": 1, "longest_wait_s": 1.0}]})),
            ["app notes: 1 waiting, the longest for 1 s"]
        );
        assert!(lines(json!({})).is_empty());
        assert_eq!(user_name(0), "root");
    }
}
