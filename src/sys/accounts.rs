//! Users and groups of this system, as far as it matters who else has their rights.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User};

/// The name of a user; its number where it has none.
pub fn user_name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(
        || format!("of number {uid}"),
        |user| format!("`{}`", user.name),
    )
}

/// The name of a group; its number where it has none.
pub fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(
        || format!("of number {gid}"),
        |group| format!("`{}`", group.name),
    )
}

/// All groups that a user is a member of; none of a user without a name.
pub fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return vec![];
    };
    let Ok(name) = CString::new(user.name) else {
        return vec![];
    };
    let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

/// The user whose own a group is: it is the user's first group, bears the user's name, and has no
/// other members.
pub fn private_owner(gid: u32) -> Option<u32> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok()??;
    let user = User::from_name(&group.name).ok()??;
    let is_alone = group.mem.iter().all(|member| *member == user.name);
    (user.gid == group.gid && is_alone).then(|| user.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_else_has_no_name() {
        assert_eq!(
            (user_name(0), group_name(0)),
            ("`root`".into(), "`root`".into())
        );
        assert_eq!(user_name(3_999_999), "of number 3999999");
        assert!(groups_of(0).contains(&0) && groups_of(3_999_999).is_empty());
        assert_eq!(private_owner(3_999_999), None);
    }
}
