//! Who waits for a turn, and whose is next. Pure.
//!
//! Each account has a lane, first come, first served. The next turn goes to the account that holds
//! the fewest, and among those that hold as many, lanes take turns: however much one account asks
//! for, another's one thing is next or second.

use std::collections::{HashMap, VecDeque};

use super::PrincipalId;

/// The turns, and those who wait for one, known by `T`.
#[derive(Debug)]
pub struct Lanes<T> {
    free: usize,
    /// Turns that each account holds; never 0.
    held: HashMap<PrincipalId, usize>,
    /// Never holds an empty lane.
    waiting: VecDeque<(PrincipalId, VecDeque<T>)>,
}

impl<T> Lanes<T> {
    pub fn new(turns: usize) -> Self {
        Self {
            free: turns,
            held: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes a turn, if one is free. Nobody waits then.
    pub fn take(&mut self, account: PrincipalId) -> bool {
        let is_free = self.free > 0;
        if is_free {
            self.free -= 1;
            *self.held.entry(account).or_default() += 1;
        }
        is_free
    }

    /// Puts somebody at the end of their account's lane.
    pub fn wait(&mut self, account: PrincipalId, who: T) {
        match self.waiting.iter_mut().find(|(owner, _)| *owner == account) {
            Some((_, lane)) => lane.push_back(who),
            None => self.waiting.push_back((account, [who].into())),
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(|(_, lane)| lane.len()).sum()
    }

    /// An account's turn is over: passes it on to who is next, or keeps it.
    pub fn pass_on(&mut self, account: PrincipalId) -> Option<(PrincipalId, T)> {
        if let Some(held) = self.held.get_mut(&account) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&account);
            }
        }
        let held = |owner: &PrincipalId| self.held.get(owner).copied().unwrap_or(0);
        let lanes = self.waiting.iter().enumerate();
        let next = lanes.min_by_key(|(_, (owner, _))| held(owner));
        let next = next.map(|(place, _)| place);
        let Some((owner, mut lane)) = next.and_then(|place| self.waiting.remove(place)) else {
            self.free += 1;
            return None;
        };
        let who = lane.pop_front()?;
        if !lane.is_empty() {
            self.waiting.push_back((owner, lane));
        }
        *self.held.entry(owner).or_default() += 1;
        Some((owner, who))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PrincipalId = PrincipalId::User(1);
    const B: PrincipalId = PrincipalId::User(2);
    const C: PrincipalId = PrincipalId::User(3);

    #[test]
    fn turns_are_taken_while_there_are_any() {
        let mut lanes: Lanes<u32> = Lanes::new(2);
        assert!(lanes.take(A) && lanes.take(A) && !lanes.take(B));
        assert_eq!(lanes.pass_on(A), None);
        assert!(lanes.take(B) && !lanes.take(B));
        assert_eq!((lanes.pass_on(A), lanes.pass_on(B)), (None, None));
        assert!(lanes.held.is_empty() && lanes.free == 2);
    }

    #[test]
    fn who_asks_for_much_delays_others_by_one_turn() {
        let mut lanes = Lanes::new(1);
        assert!(lanes.take(A));
        for who in 0..8 {
            lanes.wait(A, who);
        }
        lanes.wait(B, 10);
        lanes.wait(B, 11);
        lanes.wait(C, 20);
        let mut owner = A;
        let mut order = vec![];
        while let Some((next, who)) = lanes.pass_on(owner) {
            owner = next;
            order.push(who);
        }
        assert_eq!(order, [0, 10, 20, 1, 11, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn who_holds_nothing_is_next() {
        let mut lanes = Lanes::new(3);
        assert!(lanes.take(A) && lanes.take(A) && lanes.take(B));
        lanes.wait(A, 0);
        lanes.wait(B, 10);
        lanes.wait(C, 20);
        // A still holds one, B one, C none.
        assert_eq!(lanes.pass_on(A), Some((C, 20)));
        assert_eq!(lanes.pass_on(B), Some((B, 10)));
        assert_eq!(lanes.pass_on(C), Some((A, 0)));
    }
}
