//! Grammars that took too long, or whose request has left, and that are still being made: no thread
//! can be stopped from outside. By account, so that one's keep nobody else from theirs. Pure.

use crate::chat::PrincipalId;

/// Of all accounts, and of one.
const MOST: usize = 6;
const MOST_OF_ONE: usize = 2;

/// An entry for each.
#[derive(Debug, Default)]
pub struct Abandoned(Vec<PrincipalId>);

impl Abandoned {
    pub fn add(&mut self, account: PrincipalId) {
        self.0.push(account);
    }

    /// One has come to its end.
    pub fn remove(&mut self, account: PrincipalId) {
        if let Some(place) = self.0.iter().position(|other| *other == account) {
            self.0.swap_remove(place);
        }
    }

    /// Why none can be made for `account` now, if so; continues "the grammar …".
    pub fn refusal(&self, account: PrincipalId) -> Option<&'static str> {
        let own = self.0.iter().filter(|other| **other == account).count();
        if own >= MOST_OF_ONE {
            Some("has to wait: earlier ones of yours that took too long still take time; try again")
        } else if self.0.len() >= MOST {
            Some("has to wait: others that take too long are being looked at; try again")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_accounts_keep_nobody_else_waiting() {
        let user = PrincipalId::User;
        let mut abandoned = Abandoned::default();
        for _ in 0..MOST_OF_ONE {
            assert_eq!(abandoned.refusal(user(1)), None);
            abandoned.add(user(1));
        }
        assert!(abandoned.refusal(user(1)).unwrap().contains("yours"));
        assert_eq!(abandoned.refusal(user(2)), None);
        abandoned.remove(user(1));
        assert_eq!(abandoned.refusal(user(1)), None);
    }

    #[test]
    fn all_have_a_bound_together() {
        let mut abandoned = Abandoned::default();
        for uid in 0..MOST as u32 {
            assert_eq!(abandoned.refusal(PrincipalId::User(uid)), None);
            abandoned.add(PrincipalId::User(uid));
        }
        assert!(abandoned.refusal(PrincipalId::User(100)).is_some());
    }
}
