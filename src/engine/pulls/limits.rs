//! How many downloads one user may have, so that the others have some too. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::backend::{Failure, PullFault};
use crate::chat::PrincipalId;

/// Models that are fetched at the same time; one of these places is kept for administrators.
const MAX_RUNNING: usize = 4;
/// Of these, those of one user.
const MAX_RUNNING_OF_ONE: usize = 2;
/// Downloads that one user has begun and not ended: those that go on, and those of which something is kept.
const MAX_BEGUN_OF_ONE: usize = 4;
/// Questions to servers, what a download would consist of, that wait for their answers at the same time: of one user, and of all
/// users. Administrators' do not count.
const MAX_PLANS_OF_ONE: usize = 2;
const MAX_PLANS: usize = 8;

/// A download that is begun and not done.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// On whose account; `None`: on that of the machine.
    pub account: Option<PrincipalId>,
    pub running: bool,
}

/// Whether one more may be begun on this account.
///
/// # Errors
/// It may not, and what to do.
pub fn check(begun: &[Begun], account: Option<PrincipalId>) -> Result<(), Failure> {
    let running = begun.iter().filter(|one| one.running);
    let places = match account {
        Some(_) => MAX_RUNNING - 1,
        None => MAX_RUNNING,
    };
    let all = running.clone().count();
    if all >= places {
        return Err(busy(format!(
            "{all} models are fetched already; try again when one is done"
        )));
    }
    if account.is_none() {
        return Ok(());
    }
    let own = running.filter(|one| one.account == account).count();
    if own >= MAX_RUNNING_OF_ONE {
        return Err(busy(format!(
            "{own} models are fetched for you already; try again when one is done"
        )));
    }
    let kept = begun.iter().filter(|one| one.account == account).count();
    if kept >= MAX_BEGUN_OF_ONE {
        return Err(busy(format!(
            "{kept} downloads of yours are not done; `gemmactl pull --cancel ID` forgets one, and `gemmactl pull --status` lists them"
        )));
    }
    Ok(())
}

fn busy(text: String) -> Failure {
    Failure::Pull {
        fault: PullFault::Busy,
        text,
    }
}

/// Who waits for servers to say what a download would consist of. Cheap to clone.
#[derive(Clone, Default)]
pub struct Planning(Arc<Mutex<BTreeMap<PrincipalId, usize>>>);

/// One who waits. Dropped when the servers have answered.
pub struct Waits(Option<(Planning, PrincipalId)>);

impl Planning {
    /// # Errors
    /// Too many wait.
    pub fn begin(&self, account: Option<PrincipalId>) -> Result<Waits, Failure> {
        let Some(account) = account else {
            return Ok(Waits(None));
        };
        let mut waiting = lock(&self.0);
        let all: usize = waiting.values().sum();
        let own = waiting.entry(account).or_default();
        if *own >= MAX_PLANS_OF_ONE || all >= MAX_PLANS {
            return Err(busy(
                "servers are asked what other downloads consist of; try again when they have answered"
                    .to_owned(),
            ));
        }
        *own += 1;
        Ok(Waits(Some((self.clone(), account))))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some((planning, account)) = &self.0 {
            let mut waiting = lock(&planning.0);
            if let Some(own) = waiting.get_mut(account) {
                *own -= 1;
            }
            waiting.retain(|_, own| *own > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Option<PrincipalId> = Some(PrincipalId::User(1000));
    const BOB: Option<PrincipalId> = Some(PrincipalId::User(1001));
    const CAY: Option<PrincipalId> = Some(PrincipalId::User(1002));

    fn begun(accounts: &[(Option<PrincipalId>, bool)]) -> Vec<Begun> {
        let one = |&(account, running)| Begun { account, running };
        accounts.iter().map(one).collect()
    }

    #[test]
    fn one_user_leaves_places_to_the_others_and_one_is_the_administrators() {
        let two = begun(&[(ANN, true), (ANN, true)]);
        assert!(check(&two, ANN).is_err());
        assert!(check(&two, BOB).is_ok() && check(&two, None).is_ok());
        let three = begun(&[(ANN, true), (ANN, true), (BOB, true)]);
        assert!(check(&three, CAY).is_err() && check(&three, BOB).is_err());
        assert!(check(&three, None).is_ok());
        let four = begun(&[(None, true); 4]);
        assert!(check(&four, None).is_err());
    }

    #[test]
    fn what_is_kept_counts_for_its_owner() {
        let kept = begun(&[(ANN, false); 4]);
        let refused = check(&kept, ANN).unwrap_err().to_string();
        assert!(refused.contains("--cancel"), "{refused}");
        assert!(check(&kept, BOB).is_ok() && check(&kept, None).is_ok());
        let kept = begun(&[(None, false); 9]);
        assert!(check(&kept, None).is_ok() && check(&kept, ANN).is_ok());
    }

    #[test]
    fn few_wait_for_servers_at_the_same_time() {
        let planning = Planning::default();
        let two = [(); 2].map(|()| planning.begin(ANN).unwrap());
        assert!(planning.begin(ANN).is_err());
        let more: Vec<_> = (2000..2006)
            .map(|uid| planning.begin(Some(PrincipalId::User(uid))).unwrap())
            .collect();
        assert!(planning.begin(BOB).is_err());
        assert!(planning.begin(None).is_ok());
        drop((two, more));
        assert!(planning.begin(ANN).is_ok());
        assert!(lock(&planning.0).is_empty());
    }
}
