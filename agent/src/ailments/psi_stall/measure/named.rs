//! The cgroups that a reading names.

use std::collections::BTreeSet;

use super::CgroupReading;

/// Cgroups that a reading names for each thing that they can be first in.
const NAMED: usize = 10;

const MEASURES: [fn(&CgroupReading) -> f64; 10] = [
    |it| it.waits.cpu.some,
    |it| it.waits.memory.some,
    |it| it.waits.io.some,
    |it| it.throttled_seconds,
    |it| it.own_cpu_seconds,
    |it| it.limit_events() as f64,
    |it| it.allocated() as f64,
    |it| it.io_bytes() as f64,
    |it| it.memory.map_or(0.0, |memory| memory.dirty as f64),
    // What an older figure is of is not known to be its own.
    |it| if it.is_older() { it.cpu_seconds } else { 0.0 },
];

/// Those that are among the first in anything, with those above them, by path; and their paths,
/// the first in anything first. Of those with older figures there are as many again.
pub(super) fn named(all: Vec<CgroupReading>) -> (Vec<CgroupReading>, Vec<String>) {
    let mut ranks: Vec<Vec<&CgroupReading>> = Vec::new();
    for is_older in [false, true] {
        for measure in MEASURES {
            let of_age = all.iter().filter(|it| it.is_older() == is_older);
            let values = of_age.map(|it| (measure(it), it));
            let mut first: Vec<_> = values.filter(|(value, _)| *value > 0.0).collect();
            first.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            ranks.push(first.into_iter().take(NAMED).map(|(_, it)| it).collect());
        }
    }
    let mut order: Vec<String> = Vec::new();
    for rank in 0..NAMED {
        for it in ranks.iter().filter_map(|first| first.get(rank)) {
            if !order.contains(&it.path) {
                order.push(it.path.clone());
            }
        }
    }
    let above = order.iter().flat_map(|path| ancestors(path));
    let kept: BTreeSet<String> = order
        .iter()
        .map(String::as_str)
        .chain(above)
        .map(str::to_owned)
        .collect();
    let mut named: Vec<_> = all
        .into_iter()
        .filter(|it| kept.contains(&it.path))
        .collect();
    named.sort_by(|a, b| a.path.cmp(&b.path));
    (named, order)
}

/// The cgroups above one, the nearest first, without the root.
pub(in crate::ailments::psi_stall) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut path = path;
    std::iter::from_fn(move || {
        path = &path[..path.rfind('/')?];
        (!path.is_empty()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_first_in_each_thing_and_no_more() {
        let cgroup = |i: u32| CgroupReading {
            path: format!("/pods/{i}"),
            own_cpu_seconds: f64::from(i),
            ..CgroupReading::default()
        };
        let parent = CgroupReading {
            path: "/pods".to_owned(),
            ..CgroupReading::default()
        };
        let all = (0..100).map(cgroup).chain([parent]).collect();
        let (named, order) = named(all);
        assert_eq!(named.len(), NAMED + 1);
        assert_eq!(named[0].path, "/pods");
        assert!(named.iter().any(|it| it.path == "/pods/99"));
        assert_eq!(order[..2], ["/pods/99", "/pods/98"]);
    }

    #[test]
    fn an_older_figure_takes_no_place_of_a_new_one() {
        let new = (0..20).map(|i| CgroupReading {
            path: format!("/new/{i}"),
            own_cpu_seconds: 0.5,
            ..CgroupReading::default()
        });
        let old = (0..20).map(|i| CgroupReading {
            path: format!("/old/{i}"),
            cpu_seconds: 50.0 + f64::from(i),
            window_seconds: Some(100.0),
            ..CgroupReading::default()
        });
        let (named, order) = named(old.chain(new).collect());
        let of = |prefix: &str| {
            named
                .iter()
                .filter(|it| it.path.starts_with(prefix))
                .count()
        };
        assert_eq!((of("/new"), of("/old")), (NAMED, NAMED));
        assert_eq!(order[..2], ["/new/0", "/old/19"]);
    }

    #[test]
    fn ancestors_are_named_from_below() {
        let above: Vec<_> = ancestors("/a/b/c").collect();
        assert_eq!(above, ["/a/b", "/a"]);
        assert_eq!(ancestors("/a").count(), 0);
    }
}
