//! Who upstreams are for: whom the system's lists of users and groups have among those that the configuration names. A list may be
//! another machine's (LDAP), so nobody waits for it but who asks.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::access::admission::Admission;
use crate::attachments::aside;
use crate::chat::PrincipalId;
use crate::upstream::Rights;

/// Looks at the lists at the same time. Threads are for other work as well.
const LOOKS: usize = 4;

/// Asks the lists.
pub fn by_lists(admission: &Arc<Admission>) -> Rights {
    static TURNS: Semaphore = Semaphore::const_new(LOOKS);
    let admission = admission.clone();
    Arc::new(move |who: PrincipalId, users, groups| {
        let admission = admission.clone();
        async move {
            let Some(user) = who.uid() else {
                return Some(false);
            };
            // It comes back with the thread, however long that hangs.
            let turn = TURNS.acquire().await.ok()?;
            let look = move || {
                let is_one = admission.absent(user).is_one_of(&users, &groups);
                drop(turn);
                is_one
            };
            aside(look).await.ok()
        }
        .boxed()
    })
}
