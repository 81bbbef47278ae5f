//! Whether users are still who they were. The system's lists say it; they may be slow, so that it is gone by for a minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::User;

/// How long it is gone by what the lists said.
const FRESH: Duration = Duration::from_secs(60);
/// Users of whom it is known.
const MOST: usize = 1024;

/// The names that users had when they were looked for.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<u32, (Instant, Option<String>)>>);

impl Names {
    /// The user's name (`Some(None)`: there is no such user); `None`: the lists are to be asked.
    pub fn known(&self, uid: u32, now: Instant) -> Option<Option<String>> {
        let all = self.all();
        let (at, name) = all.get(&uid)?;
        (now.duration_since(*at) < FRESH).then(|| name.clone())
    }

    /// What the lists say.
    pub fn learn(&self, uid: u32, name: Option<String>, now: Instant) {
        let mut all = self.all();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(uid, (now, name));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u32, (Instant, Option<String>)>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a user, if they have one. Blocks on the system's lists.
///
/// # Errors
///
/// The lists cannot be read.
pub fn name_of(uid: u32) -> nix::Result<Option<String>> {
    Ok(User::from_uid(uid.into())?.map(|user| user.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_so_for_a_minute() {
        let (names, now) = (Names::default(), Instant::now());
        assert_eq!(names.known(7, now), None);
        names.learn(7, Some("anna".into()), now);
        names.learn(8, None, now);
        let later = now + FRESH - Duration::from_secs(1);
        assert_eq!(names.known(7, later), Some(Some("anna".into())));
        assert_eq!(names.known(8, later), Some(None));
        assert_eq!(names.known(7, now + FRESH), None);
        for uid in 0..3 * MOST as u32 {
            names.learn(uid, None, now);
        }
        assert!(names.all().len() <= MOST);
    }

    #[test]
    fn root_has_a_name_and_a_number_that_nobody_has_none() {
        assert_eq!(name_of(0), Ok(Some("root".into())));
        assert_eq!(name_of(3_999_999_999), Ok(None));
    }
}
