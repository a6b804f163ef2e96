//! Names of users and groups, looked up once each.

use std::collections::HashMap;

use cairn_format::limits::LABEL_BYTES_MAX;
use nix::unistd::{Gid, Group, Uid, User};

/// Remembers the names of the owners met, also that one has none.
///
/// A lookup that fails (a directory service that is down) counts as "no name": the numeric owner
/// is always recorded, and a backup must not depend on such a service.
#[derive(Default)]
pub(super) struct OwnerNames {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl OwnerNames {
    pub(super) fn user(&mut self, uid: u32) -> Option<String> {
        self.users
            .entry(uid)
            .or_insert_with(|| {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
                usable(user.name)
            })
            .clone()
    }

    pub(super) fn group(&mut self, gid: u32) -> Option<String> {
        self.groups
            .entry(gid)
            .or_insert_with(|| {
                let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten()?;
                usable(group.name)
            })
            .clone()
    }
}

/// Names the format cannot hold, or that were not UTF-8, are as good as none.
fn usable(name: String) -> Option<String> {
    let fits = name.len() <= LABEL_BYTES_MAX as usize && !name.is_empty();
    (fits && !name.contains(char::REPLACEMENT_CHARACTER)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_an_unused_number_is_not() {
        let mut names = OwnerNames::default();
        for _ in 0..2 {
            assert_eq!(names.user(0).as_deref(), Some("root"));
            assert_eq!(names.group(0).as_deref(), Some("root"));
            assert_eq!(names.user(3_999_999_999), None);
        }
    }
}
