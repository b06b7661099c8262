//! What an agent says of itself.

use hyper::StatusCode;
use serde::Deserialize;
use tracing::{debug, warn};

use super::{
    AgentAddress,
    agent::AgentState,
    claim::{Claim, claim},
};
use crate::{
    http::Client,
    model::{Routing, RunState},
    webhook::{Fit, fit},
};

/// As much of a report as counts.
#[derive(Deserialize)]
struct Report {
    node: String,
    #[serde(default)]
    also_called: Vec<String>,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    routing: Option<Routing>,
    treatments: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    state: RunState,
}

/// How an agent is, after it has taken the claim of the dispatcher of this number.
pub(super) async fn ask(client: &Client, address: &AgentAddress, number: u64) -> AgentState {
    match claimed(client, address, number).await {
        Ok((
            Report {
                node,
                also_called,
                instance,
                routing,
                treatments,
            },
            claim,
        )) => {
            let active = |it: &Run| {
                matches!(
                    it.state,
                    RunState::Intended | RunState::Applied | RunState::Confirmed
                )
            };
            let is_deciding = routing.is_some_and(|routing| routing.deciding > 0);
            let treats = treatments.iter().any(active);
            if address
                .node
                .as_ref()
                .is_some_and(|named| fit(named, &[&node]) == Fit::No)
            {
                warn!(
                    named = address.node,
                    node, "an agent calls itself otherwise"
                );
            }
            AgentState::Reachable {
                node,
                also_called,
                instance,
                treats,
                decides: is_deciding,
                claim,
            }
        }
        Err(why) => {
            debug!(agent = address.name(), "unreachable: {why}");
            AgentState::Unreachable { why }
        }
    }
}

/// The report of an agent after it has taken the claim: what it does then, it was told to before.
async fn claimed(
    client: &Client,
    address: &AgentAddress,
    number: u64,
) -> Result<(Report, Claim), String> {
    let first = report(client, address).await?;
    let before = Claim::of(first.routing, number);
    if before != Claim::Wanted {
        return Ok((first, before));
    }
    if let Err(why) = claim(client, address, number).await {
        return Ok((first, Claim::Refused { why }));
    }
    let second = report(client, address).await?;
    let after = match Claim::of(second.routing, number) {
        Claim::Wanted => Claim::Refused {
            why: format!("{} takes no claim", address.webhook),
        },
        claim => claim,
    };
    Ok((second, after))
}

async fn report(client: &Client, address: &AgentAddress) -> Result<Report, String> {
    let answer = client.get(&address.report, "/report").await?;
    if answer.code != StatusCode::OK {
        let body = excerpt(&answer.body);
        return Err(format!(
            "{}/report: {}: {body}",
            address.report, answer.code
        ));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{}/report is no report: {error}", address.report))
}

/// As much of an error page as a message needs.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    let text = text.trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_is_quoted_in_part() {
        assert_eq!(excerpt(b" short\n"), "short");
        let long = excerpt("ä".repeat(100_000).as_bytes());
        assert_eq!(long.chars().count(), 301);
    }
}
