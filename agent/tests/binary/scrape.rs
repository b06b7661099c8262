//! A real scrape, held against the agent's own list of metrics.

use std::collections::{BTreeMap, BTreeSet};

use nodemedic_tests::http::get;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    agent::{Agent, nodemedic, stdout},
    exposition::{Family, parse},
};

#[derive(Debug, Deserialize)]
struct Definition {
    name: String,
    kind: String,
    help: String,
    labels: Vec<String>,
}

fn definitions() -> BTreeMap<String, Definition> {
    let json = stdout(&nodemedic(&["metrics", "--list", "--json"]));
    let all: Vec<Definition> = serde_json::from_str(&json).unwrap();
    all.into_iter()
        .map(|definition| (definition.name.clone(), definition))
        .collect()
}

fn scrape(agent: &Agent) -> Vec<Family> {
    let page = get(agent.address, "/metrics").unwrap();
    parse(&page).unwrap_or_else(|error| panic!("{error}\n{page}"))
}

#[test]
fn every_series_of_a_scrape_is_as_it_is_listed() {
    let agent = Agent::start(&["--interval", "1s"]);
    agent.until_read();
    let definitions = definitions();
    for family in scrape(&agent) {
        let definition = &definitions[&family.name];
        assert_eq!(
            (&family.kind, &family.help),
            (&definition.kind, &definition.help)
        );
        // Of whom pods are named by, the labels that the configuration chooses come last.
        let chosen: &[&str] = match definition.help.contains("label_*") {
            true => &["label_app_kubernetes_io_name", "label_app", "label_k8s_app"],
            false => &[],
        };
        let listed = definition.labels.iter().map(String::as_str);
        let wanted: Vec<_> = listed.chain(chosen.iter().copied()).collect();
        for labels in family.label_names() {
            assert_eq!(labels, wanted, "{}", family.name);
        }
    }
}

#[test]
fn a_scrape_before_the_first_report_is_one() {
    let agent = Agent::start(&[]);
    let names: Vec<_> = scrape(&agent)
        .into_iter()
        .map(|family| family.name)
        .collect();
    assert!(
        names.iter().any(|name| name == "nodemedic_build_info"),
        "{names:?}"
    );
    assert!(
        names.iter().any(|name| name == "process_cpu_seconds_total"),
        "{names:?}"
    );
}

#[test]
fn scrapes_start_no_reading() {
    const SCRAPES: usize = 20;
    let agent = Agent::start(&["--interval", "1h"]);
    agent.until_ready();
    let taken = (0..SCRAPES).map(|_| {
        scrape(&agent);
        let report: Value = serde_json::from_str(&get(agent.address, "/report").unwrap()).unwrap();
        report["unix_seconds"].to_string()
    });
    let taken: BTreeSet<_> = taken.collect();
    // The one that attaches, and the first that reads, which may come in between.
    assert!(taken.len() <= 2, "{taken:?}");
}
