//! A number of turns that accounts share fairly; see [`Lanes`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::backend::Failure;
use crate::chat::PrincipalId;
use crate::chat::lanes::Lanes;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns {
    lanes: Arc<Mutex<Lanes<oneshot::Sender<Turn>>>>,
}

/// Somebody's turn; dropping it passes it on.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    account: PrincipalId,
    /// It was taken back, because who waited for it has left.
    refused: bool,
}

/// Who waits, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub account: PrincipalId,
    /// What the request may take, for the message.
    pub limit: Duration,
    pub end: Instant,
}

impl Turns {
    pub fn new(count: usize) -> Self {
        Self {
            lanes: Arc::new(Mutex::new(Lanes::new(count))),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// There is none in time.
    pub async fn turn(&self, waiting: &Waiting) -> Result<Turn, Failure> {
        let account = waiting.account.account();
        let passed = {
            let mut lanes = self.lanes();
            if lanes.take(account) {
                return Ok(self.of(account));
            }
            let (pass, passed) = oneshot::channel();
            lanes.wait(account, pass);
            passed
        };
        match timeout_at(waiting.end, passed).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(Failure::ShuttingDown),
            Err(_) => Err(Failure::TimedOut {
                limit: waiting.limit,
            }),
        }
    }

    fn of(&self, account: PrincipalId) -> Turn {
        Turn {
            turns: self.clone(),
            account,
            refused: false,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<oneshot::Sender<Turn>>> {
        // Nothing panics while it is held.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.refused {
            return;
        }
        let mut account = self.account;
        loop {
            let next = self.turns.lanes().pass_on(account);
            let Some((owner, pass)) = next else { return };
            match pass.send(self.turns.of(owner)) {
                Ok(()) => return,
                Err(mut turn) => {
                    turn.refused = true;
                    account = owner;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn waiting(uid: u32) -> Waiting {
        let limit = Duration::from_secs(600);
        Waiting {
            account: PrincipalId::User(uid),
            limit,
            end: Instant::now() + limit,
        }
    }

    /// A look at what waits; the turn if it is there.
    fn look(turn: Pin<&mut impl Future<Output = Result<Turn, Failure>>>) -> Option<Turn> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn.unwrap()),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn one_accounts_many_delay_anothers_one_by_one_turn_at_most() {
        let turns = Turns::new(1);
        let (many, one) = (waiting(1), waiting(2));
        let held = turns.turn(&many).await.unwrap();
        let mut queue: Vec<_> = (0..8).map(|_| Box::pin(turns.turn(&many))).collect();
        assert!(queue.iter_mut().all(|turn| look(turn.as_mut()).is_none()));
        let mut other = pin!(turns.turn(&one));
        assert!(look(other.as_mut()).is_none());
        drop(held);
        let first = look(queue[0].as_mut()).expect("who came first is first");
        assert!(look(other.as_mut()).is_none());
        drop(first);
        assert!(look(other.as_mut()).is_some(), "the other is second");
    }

    #[tokio::test]
    async fn the_turn_of_who_has_left_is_passed_on() {
        let turns = Turns::new(1);
        let (a, b) = (waiting(1), waiting(2));
        let held = turns.turn(&a).await.unwrap();
        let mut leaves = Box::pin(turns.turn(&a));
        let mut leaves_late = Box::pin(turns.turn(&b));
        let mut stays = pin!(turns.turn(&b));
        assert!(look(leaves.as_mut()).is_none() && look(leaves_late.as_mut()).is_none());
        assert!(look(stays.as_mut()).is_none());
        drop(leaves);
        drop(held);
        // It was handed over, and never looked at.
        drop(leaves_late);
        let turn = look(stays.as_mut()).expect("nobody else is left");
        drop(turn);
        assert!(turns.lanes().take(PrincipalId::User(3)), "it is free again");
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_request_may_take() {
        let turns = Turns::new(1);
        let _held = turns.turn(&waiting(1)).await.unwrap();
        let limit = Duration::from_millis(1);
        let late = Waiting {
            limit,
            end: Instant::now() + limit,
            ..waiting(2)
        };
        assert_eq!(
            turns.turn(&late).await.unwrap_err(),
            Failure::TimedOut { limit }
        );
    }
}
