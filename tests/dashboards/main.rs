//! Checks of what users get beside the agent: dashboards, alert rules, manifests, pages.
//!
//! All of these name metrics, labels, flags and files in text that no compiler reads, so a test
//! has to: it holds them against the list of metrics that the agent itself prints, and against
//! Prometheus' and Kubernetes' own checkers.
//!
//! | Variable | Effect |
//! |---|---|
//! | `NODEMEDIC_BIN` | the agent; without it the checks that ask it are ignored |
//! | `NODEMEDIC_CACHE` | where promtool and the schemas of Kubernetes are kept |

mod agent;
mod alertmanager;
mod check;
mod dashboard;
mod deploy;
mod dispatch;
mod expression;
mod kubernetes;
mod layout;
mod names;
mod pages;
mod process;
mod promtool;
mod rules;
mod scrape;
mod shape;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use crate::check::Check;

const CHECKS: [&[Check]; 11] = [
    expression::CHECKS,
    dashboard::CHECKS,
    layout::CHECKS,
    rules::CHECKS,
    promtool::CHECKS,
    scrape::CHECKS,
    alertmanager::CHECKS,
    deploy::CHECKS,
    dispatch::CHECKS,
    names::CHECKS,
    pages::CHECKS,
];

fn main() -> ExitCode {
    let trials = CHECKS.concat().into_iter().map(Check::trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
