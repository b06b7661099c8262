//! A strict reader of Prometheus' text format, version 0.0.4: what the agent
//! writes must be right in every detail, not just readable.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::metrics::{Labels, Sample, number};

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: String,
    series: Vec<Sample>,
}

impl Family {
    /// Of each series the names of its labels, but for the bounds of buckets.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = Vec<String>> {
        self.series.iter().map(|series| {
            let names = series.labels.iter().map(|(name, _)| name.clone());
            names.filter(|name| name != "le").collect()
        })
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.series.is_empty(), "{} has no series", self.name);
        let mut seen = HashSet::new();
        for series in &self.series {
            let mut labels = series.labels.clone();
            labels.sort();
            ensure!(
                seen.insert((&series.name, labels)),
                "{series:?} is there twice"
            );
            ensure!(!series.value.is_nan(), "{series:?} has no value");
        }
        if self.kind == "counter" {
            ensure!(
                self.series.iter().all(|series| series.value >= 0.0),
                "{} falls",
                self.name
            );
        }
        if self.kind == "histogram" {
            self.check_buckets()?;
        }
        Ok(())
    }

    /// Bounds rise, counts do not fall, and the last bucket holds all.
    fn check_buckets(&self) -> Result<()> {
        let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for Sample {
            name,
            labels,
            value,
        } in &self.series
        {
            let mut labels = labels.clone();
            if name.ends_with("_bucket") {
                let at = labels.iter().position(|(name, _)| name == "le");
                let (_, bound) = labels.remove(at.context("a bucket without its bound")?);
                histograms
                    .entry(labels)
                    .or_default()
                    .push((number(&bound)?, *value));
            } else if name.ends_with("_count") {
                counts.insert(labels, *value);
            } else {
                ensure!(name.ends_with("_sum"), "{name} in a histogram");
            }
        }
        for (labels, buckets) in histograms {
            let rises = buckets
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
            ensure!(rises, "{} {labels:?}: {buckets:?}", self.name);
            let last = buckets.last().copied();
            let count = counts
                .get(&labels)
                .copied()
                .context("a histogram without its count")?;
            ensure!(
                last == Some((f64::INFINITY, count)),
                "{}: {last:?}, {count}",
                self.name
            );
        }
        Ok(())
    }
}

/// All families; an error names the line, or the family, that is wrong.
pub(crate) fn parse(page: &str) -> Result<Vec<Family>> {
    ensure!(page.ends_with('\n'), "the last line has no end");
    let mut families: Vec<Family> = Vec::new();
    for line in page.lines() {
        read(line, &mut families).with_context(|| format!("line {line:?}"))?;
    }
    let mut names = HashSet::new();
    for family in &families {
        ensure!(names.insert(&family.name), "{} is there twice", family.name);
        family.check()?;
    }
    Ok(families)
}

fn read(line: &str, families: &mut Vec<Family>) -> Result<()> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ').context("no help")?;
        let (name, help) = (name.to_owned(), help.to_owned());
        families.push(Family {
            name,
            help,
            kind: String::new(),
            series: Vec::new(),
        });
        return Ok(());
    }
    let family = families.last_mut().context("before any HELP")?;
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        let kind = rest
            .strip_prefix(&family.name)
            .context("TYPE of another family")?;
        ensure!(
            family.kind.is_empty() && family.series.is_empty(),
            "TYPE comes late"
        );
        family.kind = kind.trim_start().to_owned();
        return Ok(());
    }
    let series = Sample::parse(line)?;
    let ending = series
        .name
        .strip_prefix(&family.name)
        .context("of another family")?;
    match (family.kind.as_str(), ending) {
        ("counter" | "gauge", "") | ("histogram", "_bucket" | "_sum" | "_count") => {}
        (kind, ending) => bail!("{ending:?} in a {kind:?}"),
    }
    family.series.push(series);
    Ok(())
}

#[test]
fn the_reader_itself_is_strict() {
    let good = "# HELP a Help.\n# TYPE a gauge\na{b=\"c\\\"d\"} 1\n";
    assert!(parse(good).is_ok());
    let bad = [
        "a 1\n",
        "# HELP a Help.\na 1\n",
        "# HELP a Help.\n# TYPE a gauge\n",
        "# HELP a Help.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a Help.\n# TYPE a gauge\nb 1\n",
        "# HELP a Help.\n# TYPE a gauge\na{b=\"c} 1\n",
        "# HELP a Help.\n# TYPE a gauge\na NaN\n",
        "# HELP a Help.\n# TYPE a counter\na -1\n",
        "# HELP a Help.\n# TYPE a gauge\na 1",
        "# HELP a Help.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
    ];
    for page in bad {
        assert!(parse(page).is_err(), "{page}");
    }
}
