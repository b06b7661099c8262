//! Public reports, replayed: each folder of `tests/cases/` is a fake node, and `nodemedic check` has
//! to say of it what an operator expects. `tests/cases/README.md` describes the files; a new case is
//! a new folder and nothing else.
//!
//! | Variable | Effect |
//! |---|---|
//! | `NODEMEDIC_BIN` | the agent; without it no case is replayed |

mod case;
mod node;
mod txtar;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Trial};

use crate::case::Case;

/// A case waits for most of its time.
const AT_ONCE: usize = 16;

fn main() -> ExitCode {
    if let Some(fake) = env::var_os(node::FAKE_ENV) {
        return node::enter(&fake);
    }
    match trials() {
        Ok(trials) => {
            let mut arguments = Arguments::from_args();
            arguments.test_threads.get_or_insert(AT_ONCE);
            libtest_mimic::run(&arguments, trials).exit_code()
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let hindrance = hindrance();
    let cases = Case::all().context("read the cases")?;
    let trial = |case: Case| {
        let name = format!("case::{}", case.name());
        let hindrance = hindrance.clone();
        Trial::ignorable_test(name, move || match hindrance {
            Err(why) => Ok(Completion::ignored_with(why)),
            Ok(agent) => match case.replay(&agent) {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(format!("{error:#}").into()),
            },
        })
    };
    Ok(cases.into_iter().map(trial).collect())
}

/// The agent, or why no case can be replayed here.
fn hindrance() -> Result<OsString, String> {
    let agent = env::var_os("NODEMEDIC_BIN");
    let agent = agent.ok_or("NODEMEDIC_BIN names no agent; `cargo xtask test` sets it")?;
    node::can_be_faked().map_err(|error| format!("no fake node on this machine: {error:#}"))?;
    Ok(agent)
}
