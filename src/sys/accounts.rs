//! Users and groups of this system, as far as it matters who else has their rights.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User};

use super::shortage::is_shortage;

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
///
/// # Errors
///
/// The system has no descriptor or memory to look it up.
pub fn groups_of(uid: u32) -> io::Result<Vec<u32>> {
    let Some(user) = found(User::from_uid(Uid::from_raw(uid)))? else {
        return Ok(vec![]);
    };
    let Ok(name) = CString::new(user.name) else {
        return Ok(vec![]);
    };
    let groups = found(nix::unistd::getgrouplist(&name, user.gid).map(Some))?;
    Ok(groups
        .unwrap_or_default()
        .into_iter()
        .map(Gid::as_raw)
        .collect())
}

/// The user whose own a group is: it is the user's first group, bears the user's name, and has no
/// other members.
///
/// # Errors
///
/// The system has no descriptor or memory to look it up.
pub fn private_owner(gid: u32) -> io::Result<Option<u32>> {
    let Some(group) = found(Group::from_gid(Gid::from_raw(gid)))? else {
        return Ok(None);
    };
    let Some(user) = found(User::from_name(&group.name))? else {
        return Ok(None);
    };
    let is_alone = group.mem.iter().all(|member| *member == user.name);
    Ok((user.gid == group.gid && is_alone).then(|| user.uid.as_raw()))
}

/// What was looked for. That there is none is an error to some systems; that it could not be looked
/// for is one here.
fn found<T>(looked_up: nix::Result<Option<T>>) -> io::Result<Option<T>> {
    match looked_up.map_err(io::Error::from) {
        Err(error) if is_shortage(&error) => Err(error),
        found => Ok(found.unwrap_or_default()),
    }
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
        assert!(groups_of(0).unwrap().contains(&0));
        assert!(groups_of(3_999_999).unwrap().is_empty());
        assert_eq!(private_owner(3_999_999).unwrap(), None);
    }
}
