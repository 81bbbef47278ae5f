//! What all front doors hold their callers to.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::app::Apps;
use super::names::Names;
use super::oidc::Oidc;
use super::quota::{Quota, Share};
use super::token::{Record, Tokens};
use super::{Policy, Principal};

/// Bytes that a user's requests may hold beyond one of the largest size, until they are answered.
const BODIES_BESIDE: u64 = 8 << 20;
/// Users who can hold their full share of those bytes at the same time.
const BODIES_USERS: u64 = 2;

/// One policy and one account for all doors: whoever comes through two of them has no more than
/// through one.
#[derive(Debug)]
pub struct Admission {
    /// Replaced when the configuration is read again.
    policy: RwLock<Policy>,
    /// The tokens that were issued.
    pub tokens: Tokens,
    /// Issuers whose tokens are taken besides.
    pub oidc: Oidc,
    /// Those that have sockets of their own.
    pub apps: Apps,
    /// Whether those who issued tokens are still there.
    pub names: Names,
    /// Bytes of requests that were received and not begun to be answered.
    pub(crate) bodies: Arc<Quota>,
}

impl Admission {
    /// `body_bytes` is the size of the largest request.
    pub fn new(policy: Policy, body_bytes: u64, tokens: Tokens, oidc: Oidc) -> Arc<Self> {
        let per_user = body_bytes.saturating_add(BODIES_BESIDE);
        Arc::new(Self {
            policy: RwLock::new(policy),
            tokens,
            oidc,
            apps: Apps::default(),
            names: Names::default(),
            bodies: Quota::new(per_user.saturating_mul(BODIES_USERS), per_user),
        })
    }

    /// Waits until a request has given back its bytes since the last time. For one who waits.
    pub async fn given_back(&self) {
        self.bodies.given_back().await;
    }

    /// Whether requests hold bytes.
    pub fn is_holding(&self) -> bool {
        self.bodies.in_use() > 0
    }

    /// Goes by another policy from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// See [`Policy::principal`].
    pub fn principal(&self, uid: u32, groups: Arc<[u32]>) -> Principal {
        self.policy().principal(uid, groups)
    }

    /// Somebody who is not connected, with the groups that the system's lists give them now. Blocks on
    /// the lists.
    pub fn absent(&self, who: u32) -> Principal {
        self.principal(who, super::groups_of(who).into())
    }

    /// See [`Policy::may_administer`].
    pub fn may_administer(&self, principal: &Principal) -> bool {
        self.policy().may_administer(principal)
    }

    /// See [`Policy::may_manage_models`].
    pub fn may_manage_models(&self, principal: &Principal) -> bool {
        self.policy().may_manage_models(principal)
    }

    /// See [`Policy::is_gateway`].
    pub fn is_gateway(&self, principal: &Principal) -> bool {
        self.policy().is_gateway(principal)
    }

    /// See [`Policy::holder`].
    pub fn holder(&self, record: Arc<Record>) -> Principal {
        self.policy().holder(record)
    }

    /// An empty share of something for a principal.
    pub fn share(&self, of: &Arc<Quota>, principal: &Principal) -> Share {
        of.share(principal.id(), self.may_administer(principal))
    }

    /// [`Admission::share`] of the bytes that requests hold.
    pub fn share_of_bodies(&self, principal: &Principal) -> Share {
        self.share(&self.bodies, principal)
    }

    /// The user on whose account a user counts: see [`Policy::account_of`].
    pub fn account_of(&self, uid: u32) -> u32 {
        self.policy().account_of(uid)
    }

    fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }
}
