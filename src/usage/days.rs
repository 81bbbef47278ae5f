//! What principals have used, day by day: sums alone, of so many days and principals at most. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backend::{Entry, Outcome, Used};
use crate::chat::PrincipalId;

/// Principals of one day that are told apart. Those who come later count on their account, if it is there, and else together.
const A_DAY: usize = 256;
/// Of all days together; the oldest day goes first.
const ALL: usize = 2048;
const FORM: u32 = 1;

/// The sums. A day is so many days after the first of 1970.
#[derive(Debug, Default, PartialEq)]
pub struct Days(BTreeMap<(u32, Option<PrincipalId>), Sums>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    requests: u64,
    failed: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// As a file has it.
#[derive(Serialize, Deserialize)]
struct Written {
    form: u32,
    days: Vec<(u32, Option<PrincipalId>, Sums)>,
}

impl Days {
    /// Adds a request of this day.
    pub fn add(&mut self, day: u32, entry: &Entry) {
        let who = self.place(day, entry.owner);
        let sums = self.0.entry((day, who)).or_default();
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut sums.requests, 1);
        let failed = matches!(entry.outcome, Outcome::Failed(_));
        add(&mut sums.failed, failed.into());
        add(&mut sums.prompt_tokens, entry.prompt_tokens.into());
        add(&mut sums.completion_tokens, entry.completion_tokens.into());
        while self.0.len() > ALL
            && let Some((&(oldest, _), _)) = self.0.first_key_value()
        {
            self.0.retain(|(day, _), _| *day != oldest);
        }
    }

    /// Under whom somebody's requests count.
    fn place(&self, day: u32, who: PrincipalId) -> Option<PrincipalId> {
        let is_there = |who: PrincipalId| self.0.contains_key(&(day, Some(who)));
        let of_day = (day, None)..(day + 1, None);
        if is_there(who) || self.0.range(of_day).count() < A_DAY {
            return Some(who);
        }
        Some(who.account()).filter(|account| is_there(*account))
    }

    /// Forgets days that are over for so long, and such as have not come, which a clock had that was wrong.
    pub fn forget(&mut self, today: u32, kept: u32) {
        let since = today.saturating_sub(kept.saturating_sub(1));
        self.0
            .retain(|(day, _), _| (since..=today.saturating_add(1)).contains(day));
    }

    /// All of it, the oldest first.
    pub fn used(&self) -> Vec<Used> {
        let used = |(&(day, who), sums): (&(u32, Option<PrincipalId>), &Sums)| Used {
            day,
            who,
            requests: sums.requests,
            failed: sums.failed,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
        };
        self.0.iter().map(used).collect()
    }

    /// For a file.
    pub fn write(&self) -> Vec<u8> {
        let days = self.0.iter().map(|(&(day, who), sums)| (day, who, *sums));
        let written = Written {
            form: FORM,
            days: days.collect(),
        };
        // Plain numbers always can be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// What a file has; `None`: it is damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(bytes).ok()?;
        let is_whole = written.form == FORM && written.days.len() <= ALL;
        let days = written.days.into_iter();
        is_whole.then(|| Self(days.map(|(day, who, sums)| ((day, who), sums)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(owner: PrincipalId, outcome: Outcome) -> Entry {
        Entry {
            owner,
            model: None,
            upstream: None,
            prompt_tokens: 7,
            completion_tokens: 2,
            took: Duration::ZERO,
            outcome,
        }
    }

    #[test]
    fn each_principal_has_a_line_a_day() {
        let mut days = Days::default();
        let token = PrincipalId::Token { id: 3, owner: 1000 };
        let subject = PrincipalId::Subject {
            subject: u128::MAX,
            rights: 1,
            owner: None,
        };
        for (day, who) in [
            (20_000, PrincipalId::User(1000)),
            (20_000, token),
            (20_000, PrincipalId::User(1000)),
            (20_001, subject),
        ] {
            days.add(day, &entry(who, Outcome::Answered));
        }
        days.add(20_001, &entry(subject, Outcome::Failed("queue_full")));
        days.add(20_001, &entry(subject, Outcome::Left));
        let used = days.used();
        let first = Used {
            day: 20_000,
            who: Some(PrincipalId::User(1000)),
            requests: 2,
            failed: 0,
            prompt_tokens: 14,
            completion_tokens: 4,
        };
        assert_eq!((used.len(), &used[0]), (3, &first));
        assert_eq!((used[2].requests, used[2].failed), (3, 1));
        assert_eq!(Days::read(&days.write()), Some(days));
        assert_eq!(Days::read(b"{}"), None);
    }

    #[test]
    fn there_are_only_so_many_lines_and_days() {
        let mut days = Days::default();
        let user = PrincipalId::User;
        for uid in 0..1000 {
            days.add(5, &entry(user(uid), Outcome::Answered));
        }
        // Whose account is there counts on it.
        let token = PrincipalId::Token { id: 3, owner: 7 };
        days.add(5, &entry(token, Outcome::Answered));
        let used = days.used();
        assert_eq!(used.len(), A_DAY + 1);
        let of = |who| used.iter().find(|used| used.who == who).unwrap().requests;
        assert_eq!((of(Some(user(7))), of(None)), (2, 1000 - A_DAY as u64));
        for day in 6..40 {
            for uid in 0..1000 {
                days.add(day, &entry(user(uid), Outcome::Answered));
            }
        }
        let used = days.used();
        assert!(used.len() <= ALL && used[used.len() - 1].day == 39);
        days.add(u32::MAX - 1, &entry(user(1), Outcome::Answered));
        days.forget(39, 2);
        let mut left: Vec<_> = days.used().iter().map(|used| used.day).collect();
        left.dedup();
        assert_eq!(left, [38, 39]);
    }
}
