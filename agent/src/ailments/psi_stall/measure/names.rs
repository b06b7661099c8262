//! Which cgroup has an id: that of its folder, which the kernel's programs know it by.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::kernel::cgroup;

/// Names that are remembered.
const MOST: usize = 4_096;

/// Cgroups by id.
#[derive(Debug)]
pub(super) struct Names {
    root: Option<PathBuf>,
    known: HashMap<u64, String>,
}

impl Names {
    /// Of the tree of version 2, if there is one.
    pub(super) fn new(root: Option<PathBuf>) -> Self {
        Self {
            root,
            known: HashMap::new(),
        }
    }

    /// Learns the names of ids that are not known, out of cgroups that may have them:
    /// who waits for something is in a cgroup that has. `find` knows those of others.
    pub(super) fn learn<'p>(
        &mut self,
        ids: impl Iterator<Item = u64>,
        candidates: impl Iterator<Item = &'p str>,
        find: impl FnOnce(&[u64]) -> Vec<(u64, String)>,
    ) {
        let Some(root) = &self.root else {
            return;
        };
        let mut unknown: Vec<_> = ids.filter(|id| !self.known.contains_key(id)).collect();
        if unknown.is_empty() {
            return;
        }
        if self.known.len() > MOST {
            self.known.clear();
        }
        for path in std::iter::once("/").chain(candidates) {
            if unknown.is_empty() {
                return;
            }
            if let Some(id) = id(root, path)
                && unknown.contains(&id)
            {
                unknown.retain(|it| *it != id);
                self.known.insert(id, path.to_owned());
            }
        }
        self.known.extend(find(&unknown));
    }

    /// The path of a cgroup below the root of the tree, `/` for the root itself.
    pub(super) fn path(&self, id: u64) -> Option<&str> {
        self.known.get(&id).map(String::as_str)
    }
}

/// The inode number of a cgroup's folder, which is the id (fs/kernfs/dir.c,
/// `kernfs_ino`; from 5.5 on).
fn id(root: &Path, path: &str) -> Option<u64> {
    let folder = cgroup::place(root, path);
    fs::metadata(folder).ok().map(|it| it.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_known_by_its_folder_and_one_that_has_gone_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("pods/a")).expect("made");
        let of = |path: &str| id(root.path(), path).expect("it is there");
        let (a, top) = (of("/pods/a"), of("/"));
        let mut names = Names::new(Some(root.path().to_owned()));
        let candidates = ["/gone", "/pods/a"];
        names.learn(
            [a, top, u64::MAX].into_iter(),
            candidates.into_iter(),
            |_| Vec::new(),
        );
        assert_eq!(names.path(a), Some("/pods/a"));
        assert_eq!(names.path(top), Some("/"));
        assert_eq!(names.path(u64::MAX), None);
        // A scan may not have read it, and the tree knows it all the same.
        let find = |ids: &[u64]| ids.iter().map(|id| (*id, "/unread".to_owned())).collect();
        names.learn([u64::MAX].into_iter(), candidates.into_iter(), find);
        assert_eq!(names.path(u64::MAX), Some("/unread"));
        // It keeps its name while somebody still asks for it.
        fs::remove_dir_all(root.path().join("pods")).expect("removed");
        names.learn([a].into_iter(), candidates.into_iter(), |_| Vec::new());
        assert_eq!(names.path(a), Some("/pods/a"));
    }

    #[test]
    fn without_a_tree_nothing_has_a_name() {
        let mut names = Names::new(None);
        names.learn([1].into_iter(), ["/a"].into_iter(), |_| Vec::new());
        assert_eq!(names.path(1), None);
    }
}
