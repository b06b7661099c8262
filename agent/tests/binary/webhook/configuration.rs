//! What may stand in `[webhook]`.

use super::setup::{NODE, Setup, alert, decisions, payload, refuses, shown};
use crate::agent::{assert_refused, nodemedic};

#[test]
fn what_makes_no_sense_is_refused_with_what_does() {
    for (line, why) in [
        ("max_body = 1", "max_body_bytes"),
        ("max_body_bytes = 1", "from 1024 to"),
        ("max_requests_per_minute = 0", "from 1 to"),
        ("node_labels = \"node\"", "a list of texts"),
        ("undo_resolved = \"yes\"", "true or false"),
        ("listen = \"everywhere\"", "an IP address with a port"),
    ] {
        let setup = Setup::new();
        let text = format!("[webhook]\n{line}\n");
        let config = shown(&setup.file("config.toml", &text, 0o644));
        let output = nodemedic(&["config", "--check", &config]);
        assert_refused(&output, 64, &["config.toml:2:", why]);
    }
}

#[test]
fn the_labels_and_names_are_what_the_configuration_says() {
    let agent = Setup::new()
        .guarded("node_labels = [\"host\"]\nnode_names = [\"a\", \"b\"]\naccept_unnamed = true");
    let on_host = |host: &str| {
        let mut alert = alert("resolved", NODE, "other");
        alert["labels"]["host"] = host.into();
        alert
    };
    let unnamed = alert("resolved", "node-8", "other");
    let body = payload(&[on_host("a"), on_host("b:80"), on_host(NODE), unnamed]).to_string();
    assert_eq!(
        decisions(&agent.post(&body)),
        [
            "nothing_to_undo",
            "nothing_to_undo",
            "other_node",
            "nothing_to_undo"
        ]
    );
}

#[test]
fn undoing_can_be_switched_off() {
    let agent = Setup::new().guarded("undo_resolved = false");
    let body = payload(&[alert("resolved", NODE, "udp_conntrack")]).to_string();
    assert_eq!(decisions(&agent.post(&body)), ["left_alone"]);
}

#[test]
fn a_port_in_use_is_said_with_the_key() {
    let first = Setup::new().guarded("");
    let setup = Setup::new();
    let text = format!(
        "[webhook]\nenabled = true\nlisten = \"{}\"\n",
        first.address
    );
    let config = setup.file("config.toml", &text, 0o644);
    refuses(
        &setup,
        &config,
        &[],
        2,
        &["[webhook] listen", "Address already in use"],
    );
}
