//! Which cgroup has an id: that of its folder, which the kernel's programs know it by.

use std::collections::{HashMap, HashSet};

/// Names that are remembered.
const MOST: usize = 4_096;

/// Cgroups by id: the inode number of the folder (fs/kernfs/dir.c, `kernfs_ino`; from 5.5 on).
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<u64, String>,
}

impl Names {
    /// Learns the paths of ids that are not known.
    pub(super) fn learn(
        &mut self,
        ids: impl Iterator<Item = u64>,
        find: impl FnOnce(&HashSet<u64>) -> Vec<(u64, String)>,
    ) {
        let unknown: HashSet<_> = ids.filter(|id| !self.known.contains_key(id)).collect();
        if unknown.is_empty() {
            return;
        }
        if self.known.len() > MOST {
            self.known.clear();
        }
        self.known.extend(find(&unknown));
    }

    /// The path of a cgroup below the root of the tree, `/` for the root itself.
    pub(super) fn path(&self, id: u64) -> Option<&str> {
        self.known.get(&id).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_keeps_its_path_and_one_that_is_not_found_has_none() {
        let mut names = Names::default();
        names.learn([1, 2, 3].into_iter(), |ids| {
            assert_eq!(ids.len(), 3);
            vec![(1, "/".to_owned()), (2, "/pods/a".to_owned())]
        });
        names.learn([2, 3].into_iter(), |ids| {
            assert_eq!(ids.len(), 1, "2 is known, though it may have gone");
            Vec::new()
        });
        let paths = [1, 2, 3].map(|id| names.path(id));
        assert_eq!(paths, [Some("/"), Some("/pods/a"), None]);
    }
}
