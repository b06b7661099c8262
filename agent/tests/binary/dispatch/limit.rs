//! How many nodes are treated at once.

use std::thread;

use anyhow::ensure;
use nodemedic_tests::eventually::eventually;

use super::setup::{Fake, Node, Station, alert, nobody, of_nodes, page, post};
use crate::agent::LIMIT;

const RATE_LIMITED: &str = "alert: rate_limited";

#[test]
fn while_as_many_as_may_be_are_treated_no_other_is() {
    let (treating, idle) = (Node::treating("node-1"), Node::start("node-2"));
    let places = [treating.place(), idle.place()];
    let station = Station::of(&places, "max_nodes = 1");
    let answer = station.post(&[alert("firing", "node-2")]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(of_nodes(&answer, &["node-2"]), ["rate_limited"]);
    station.dispatcher.until_log(RATE_LIMITED);
    // Its own node is no further one.
    let answer = station.post(&[alert("firing", "node-1")]);
    assert!(!answer.body.contains("rate_limited"), "{answer:?}");
    // What is resolved is never rate_limited.
    let answer = station.post(&[alert("resolved", "node-2")]);
    assert_eq!(of_nodes(&answer, &["node-2"]), ["nothing_to_undo"]);
    assert_eq!(answer.status, 200);
    let page = page(&station.dispatcher);
    for line in [
        "nodemedic_dispatch_agents{state=\"treating\"} 1",
        "nodemedic_dispatch_agents{state=\"idle\"} 1",
        "nodemedic_dispatch_treating_limit 1",
        "nodemedic_dispatch_alerts_total{decision=\"rate_limited\"} 1",
    ] {
        assert!(page.lines().any(|it| it == line), "no {line} in {page}");
    }
    // And with the limit off, it is asked.
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let answer = station.post(&[alert("firing", "node-2")]);
    assert!(!answer.body.contains("rate_limited"), "{answer:?}");
}

#[test]
fn what_is_resolved_passes_in_the_payload_of_what_is_rate_limited() {
    let (treating, idle) = (Fake::sick("node-1"), Fake::sick("node-2"));
    let station = Station::of(&[treating.place(), idle.place()], "max_nodes = 1");
    assert_eq!(station.post(&[alert("firing", "node-1")]).status, 200);
    let mut resolved = alert("resolved", "node-2");
    resolved["fingerprint"] = "of-another".into();
    let answer = station.post(&[alert("firing", "node-2"), resolved]);
    assert_eq!(
        of_nodes(&answer, &["node-2", "another"]),
        ["rate_limited", "undone"]
    );
    assert!(!idle.treats());
}

#[test]
fn an_agent_that_does_not_answer_counts_as_treating() {
    let idle = Fake::sick("node-1");
    let places = [idle.place(), nobody("node-2")];
    let station = Station::of(&places, "max_nodes = 1");
    let answer = station.post(&[alert("firing", "node-1")]);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["rate_limited"]);
    assert!(!idle.treats());
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let answer = station.post(&[alert("firing", "node-1")]);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["begun"]);
}

#[test]
fn a_restart_forgets_nothing() {
    let (first, second) = (Fake::sick("node-1"), Fake::sick("node-2"));
    let station = Station::of(&[first.place(), second.place()], "max_nodes = 1");
    let answer = station.post(&[alert("firing", "node-1")]);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["begun"]);
    let station = station.again();
    let answer = station.post(&[alert("firing", "node-2")]);
    assert_eq!(of_nodes(&answer, &["node-2"]), ["rate_limited"]);
    assert_eq!(station.post(&[alert("resolved", "node-1")]).status, 200);
    let station = station.again();
    let answer = station.post(&[alert("firing", "node-2")]);
    assert_eq!(of_nodes(&answer, &["node-2"]), ["begun"]);
    assert!(second.treats() && !first.treats());
}

/// What a dispatcher that was killed has sent is still being decided on.
#[test]
fn a_node_that_is_deciding_counts_after_the_dispatcher_was_killed() {
    let (first, second) = (Fake::sick("node-1"), Fake::sick("node-2"));
    first.set_slow(true);
    let station = Station::of(&[first.place(), second.place()], "max_nodes = 1");
    let address = station.address;
    let sender = thread::spawn(move || {
        let body = crate::webhook::setup::payload(&[alert("firing", "node-1")]).to_string();
        let token = Some(crate::webhook::setup::TOKEN);
        let request = crate::webhook::setup::request("POST", "/alertmanager", token, &body);
        let mut stream = crate::webhook::setup::connect(address);
        let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
        // It ends with the dispatcher.
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    });
    eventually(LIMIT, "a decision under way", || {
        ensure!(first.is_deciding());
        Ok(())
    })
    .unwrap();
    let station = station.again();
    sender.join().unwrap();
    let answer = station.post(&[alert("firing", "node-2")]);
    assert_eq!(of_nodes(&answer, &["node-2"]), ["rate_limited"]);
    first.set_slow(false);
    eventually(LIMIT, "the decision", || {
        ensure!(first.treats());
        Ok(())
    })
    .unwrap();
    let answer = station.post(&[alert("firing", "node-2")]);
    assert_eq!(of_nodes(&answer, &["node-2"]), ["rate_limited"]);
    assert!(!second.treats());
}

/// Real agents, which hold to the claim.
#[test]
fn of_two_dispatchers_the_later_one_has_something_begun() {
    let node = Node::start("node-1");
    let station = || Station::of(&[node.place()], "");
    let firing = [alert("firing", "node-1")];
    let first = station();
    assert!(!first.post(&firing).body.contains("dispatcher"));
    let second = station();
    assert!(!second.post(&firing).body.contains("dispatcher"));
    let answer = first.post(&firing);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["rate_limited"]);
    assert!(answer.body.contains("another dispatcher"), "{answer:?}");
    assert_eq!(answer.status, 503);
    first.dispatcher.until_log("run one dispatcher");
    // What is resolved goes through, and the later one is not disturbed.
    let answer = first.post(&[alert("resolved", "node-1")]);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["nothing_to_undo"]);
    assert!(!second.post(&firing).body.contains("dispatcher"));
    // The next one takes over from a killed one at once.
    let third = second.again();
    assert!(!third.post(&firing).body.contains("dispatcher"));
}

#[test]
fn two_agents_that_give_one_name_both_count_and_neither_is_meant() {
    let (idle, treating) = (Node::start("node-1"), Node::treating("node-1"));
    let other = Node::start("node-2");
    let places = [idle.place(), treating.place(), other.place()];
    let station = Station::of(&places, "max_nodes = 1");
    let answer = station.post(&[alert("firing", "node-1"), alert("firing", "node-2")]);
    assert_eq!(
        of_nodes(&answer, &["node-1", "node-2"]),
        ["unknown_node", "rate_limited"]
    );
    for agent in [&idle, &treating] {
        let named = format!("node-1 at http://{}", agent.agent.address);
        assert!(answer.body.contains(&named), "{answer:?}");
    }
    let page = page(&station.dispatcher);
    for line in ["{state=\"treating\"} 1", "{state=\"idle\"} 2"] {
        let line = format!("nodemedic_dispatch_agents{line}");
        assert!(page.lines().any(|it| it == line), "no {line} in {page}");
    }
}

#[test]
fn of_many_at_once_as_many_begin_as_may() {
    let fakes: Vec<_> = (0..8).map(|i| Fake::sick(&format!("node-{i}"))).collect();
    let places: Vec<_> = fakes.iter().map(Fake::place).collect();
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let address = station.address;
    let one_each: Vec<_> = (0..8)
        .map(|i| thread::spawn(move || post(address, &[alert("firing", &format!("node-{i}"))])))
        .collect();
    let answers: Vec<_> = one_each.into_iter().map(|it| it.join().unwrap()).collect();
    let begun = answers
        .iter()
        .filter(|it| it.body.contains("begun"))
        .count();
    let rate_limited = answers
        .iter()
        .filter(|it| it.body.contains("rate_limited"))
        .count();
    assert_eq!((begun, rate_limited), (2, 6));
    assert_eq!(fakes.iter().filter(|it| it.treats()).count(), 2);
}

/// Nodes that turn out to be well do not keep others from being treated.
#[test]
fn who_is_refused_makes_room_for_the_next() {
    let fakes = [
        Fake::healthy("node-1"),
        Fake::healthy("node-2"),
        Fake::sick("node-3"),
        Fake::sick("node-4"),
    ];
    let places: Vec<_> = fakes.iter().map(Fake::place).collect();
    let station = Station::of(&places, "max_nodes = 1");
    let nodes = ["node-1", "node-2", "node-3", "node-4"];
    let answer = station.post(&nodes.map(|node| alert("firing", node)));
    assert_eq!(
        of_nodes(&answer, &nodes),
        ["refused", "refused", "begun", "rate_limited"]
    );
    assert_eq!(answer.status, 503);
    assert_eq!(fakes[3].posts(), 0);
}
