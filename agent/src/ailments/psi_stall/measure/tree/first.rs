//! Which cgroups a scan reads first: those that readings have named last.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::{OsStr, OsString},
};

use super::Branch;
use crate::kernel::cgroup;

/// Cgroups that are read first. With their files of pressure and CPU time they take a small part
/// of what a scan may take, even if a reading is taken each second.
const MOST: usize = 64;

/// Readings for which a cgroup is read first after it was named last.
const KEPT: u64 = 12;

/// The paths, the latest first.
#[derive(Debug, Default)]
pub(super) struct First {
    paths: Vec<(String, u64)>,
}

impl First {
    /// Names some in a scan, what matters most first.
    pub(super) fn name<'p>(&mut self, scan: u64, paths: impl Iterator<Item = &'p str>) {
        let before = std::mem::take(&mut self.paths);
        let before = before.into_iter().filter(|(_, at)| scan - at < KEPT);
        let named = paths.take(MOST).map(|it| (it.to_owned(), scan));
        let mut known = HashSet::new();
        self.paths = named
            .chain(before)
            .filter(|(path, _)| known.insert(path.clone()))
            .take(MOST)
            .collect();
    }

    /// The paths, what matters most first.
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths.iter().map(|(path, _)| path.clone()).collect()
    }
}

/// The branch with a name as it is shown.
pub(super) fn find<'b>(
    children: &'b mut BTreeMap<OsString, Branch>,
    shown: &str,
) -> Option<(OsString, &'b mut Branch)> {
    // Almost every name is shown as it is.
    if children.contains_key(OsStr::new(shown)) {
        let child = children.get_mut(OsStr::new(shown))?;
        return Some((shown.into(), child));
    }
    let mut escaped = children.iter_mut().filter(|_| shown.contains("\\x"));
    let (name, child) = escaped.find(|(name, _)| cgroup::shown(name) == shown)?;
    Some((name.clone(), child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_first_and_are_forgotten_in_time() {
        let mut first = First::default();
        first.name(1, ["/a", "/b", "/a"].into_iter());
        first.name(2, ["/c", "/a"].into_iter());
        assert_eq!(first.paths(), ["/c", "/a", "/b"]);
        first.name(1 + KEPT, std::iter::empty());
        assert_eq!(first.paths(), ["/c", "/a"]);
        first.name(2 + KEPT, std::iter::empty());
        assert_eq!(first.paths(), Vec::<String>::new());
    }

    #[test]
    fn there_are_never_more_than_a_scan_can_read_first() {
        let mut first = First::default();
        let many = |from: usize| (from..from + 100).map(|i| format!("/{i}"));
        for (scan, from) in [(1, 0), (2, 50)] {
            let all: Vec<_> = many(from).collect();
            first.name(scan, all.iter().map(String::as_str));
        }
        assert_eq!(first.paths.len(), MOST);
        assert_eq!(first.paths()[0], "/50");
    }
}
