//! How many nodes are treated at once.

use std::thread;

use super::bed::{Node, Sham, Station, alert, nobody, of_nodes, page, post};

const BRAKED: &str = "alert: braked";

#[test]
fn while_as_many_as_may_be_are_treated_no_other_is() {
    let (treating, idle) = (Node::treating("ward-1"), Node::start("ward-2"));
    let places = [treating.place(), idle.place()];
    let station = Station::of(&places, "max_nodes = 1");
    let answer = station.post(&[alert("firing", "ward-2")]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(of_nodes(&answer, &["ward-2"]), ["braked"]);
    station.dispatcher.until_log(BRAKED);
    // Its own node is no further one.
    let answer = station.post(&[alert("firing", "ward-1")]);
    assert!(!answer.body.contains("braked"), "{answer:?}");
    // What is resolved is never braked.
    let answer = station.post(&[alert("resolved", "ward-2")]);
    assert_eq!(of_nodes(&answer, &["ward-2"]), ["nothing_to_undo"]);
    assert_eq!(answer.status, 200);
    let page = page(&station.dispatcher);
    for line in [
        "nodemedic_dispatch_agents{state=\"treating\"} 1",
        "nodemedic_dispatch_agents{state=\"idle\"} 1",
        "nodemedic_dispatch_treating_limit 1",
        "nodemedic_dispatch_alerts_total{decision=\"braked\"} 1",
    ] {
        assert!(page.lines().any(|it| it == line), "no {line} in {page}");
    }
    // And with the brake off, it is asked.
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let answer = station.post(&[alert("firing", "ward-2")]);
    assert!(!answer.body.contains("braked"), "{answer:?}");
}

#[test]
fn what_is_resolved_passes_in_the_payload_of_what_is_braked() {
    let (treating, idle) = (Sham::sick("ward-1"), Sham::sick("ward-2"));
    let station = Station::of(&[treating.place(), idle.place()], "max_nodes = 1");
    assert_eq!(station.post(&[alert("firing", "ward-1")]).status, 200);
    let mut resolved = alert("resolved", "ward-2");
    resolved["fingerprint"] = "of-another".into();
    let answer = station.post(&[alert("firing", "ward-2"), resolved]);
    assert_eq!(
        of_nodes(&answer, &["ward-2", "another"]),
        ["braked", "undone"]
    );
    assert!(!idle.treats());
}

#[test]
fn an_agent_that_does_not_answer_counts_as_treating() {
    let idle = Sham::sick("ward-1");
    let places = [idle.place(), nobody("ward-2")];
    let station = Station::of(&places, "max_nodes = 1");
    let answer = station.post(&[alert("firing", "ward-1")]);
    assert_eq!(of_nodes(&answer, &["ward-1"]), ["braked"]);
    assert!(!idle.treats());
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let answer = station.post(&[alert("firing", "ward-1")]);
    assert_eq!(of_nodes(&answer, &["ward-1"]), ["begun"]);
}

#[test]
fn a_restart_forgets_nothing() {
    let (first, second) = (Sham::sick("ward-1"), Sham::sick("ward-2"));
    let station = Station::of(&[first.place(), second.place()], "max_nodes = 1");
    let answer = station.post(&[alert("firing", "ward-1")]);
    assert_eq!(of_nodes(&answer, &["ward-1"]), ["begun"]);
    let station = station.again();
    let answer = station.post(&[alert("firing", "ward-2")]);
    assert_eq!(of_nodes(&answer, &["ward-2"]), ["braked"]);
    assert_eq!(station.post(&[alert("resolved", "ward-1")]).status, 200);
    let station = station.again();
    let answer = station.post(&[alert("firing", "ward-2")]);
    assert_eq!(of_nodes(&answer, &["ward-2"]), ["begun"]);
    assert!(second.treats() && !first.treats());
}

#[test]
fn of_many_at_once_as_many_begin_as_may() {
    let shams: Vec<_> = (0..8).map(|i| Sham::sick(&format!("ward-{i}"))).collect();
    let places: Vec<_> = shams.iter().map(Sham::place).collect();
    let station = Station::of(&places, "max_nodes = 2\nmax_percent = 100");
    let address = station.address;
    let one_each: Vec<_> = (0..8)
        .map(|i| thread::spawn(move || post(address, &[alert("firing", &format!("ward-{i}"))])))
        .collect();
    let answers: Vec<_> = one_each.into_iter().map(|it| it.join().unwrap()).collect();
    let begun = answers
        .iter()
        .filter(|it| it.body.contains("begun"))
        .count();
    let braked = answers
        .iter()
        .filter(|it| it.body.contains("braked"))
        .count();
    assert_eq!((begun, braked), (2, 6));
    assert_eq!(shams.iter().filter(|it| it.treats()).count(), 2);
}

/// Nodes that turn out to be well do not keep others from being treated.
#[test]
fn who_is_refused_makes_room_for_the_next() {
    let shams = [
        Sham::healthy("ward-1"),
        Sham::healthy("ward-2"),
        Sham::sick("ward-3"),
        Sham::sick("ward-4"),
    ];
    let places: Vec<_> = shams.iter().map(Sham::place).collect();
    let station = Station::of(&places, "max_nodes = 1");
    let nodes = ["ward-1", "ward-2", "ward-3", "ward-4"];
    let answer = station.post(&nodes.map(|node| alert("firing", node)));
    assert_eq!(
        of_nodes(&answer, &nodes),
        ["refused", "refused", "begun", "braked"]
    );
    assert_eq!(answer.status, 503);
    assert_eq!(shams[3].posts(), 0);
}
