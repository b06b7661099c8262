//! Switches of tasks, which the tracepoints of the scheduler are dear for.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::bench::figures::{SwitchRounds, Switches};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::measured;
use crate::agent::SOON;

/// Each is two switches.
const ROUND_TRIPS: u32 = 20_000;

/// Rounds of each.
const ROUNDS: usize = 5;

/// The agent as it comes, but for one thing: it does not begin to watch.
const AT_REST: &str = "[ailments.psi_stall]\ntrace_duration = \"0s\"\n";

/// It traces for as long as the rounds take, and begins at the least pressure.
const TRACING: &str = "[agent]\ninterval = \"1s\"\n[ailments.psi_stall]\ntrace_duration = \"60s\"\n\
                        trace_cooldown = \"1s\"\ncpu_ratio = 0.001\n";

pub(crate) fn switches_with_and_without_it(guest: &Guest) -> Result<Verdict> {
    // What the boot has left to do is over after a few.
    run(&mut SwitchRounds::of("warm-up"))?;
    let mut rounds = vec![SwitchRounds::of("nothing")];
    run(&mut rounds[0])?;
    for (name, config) in [
        ("nodemedic, at rest", AT_REST),
        ("nodemedic, tracing", TRACING),
    ] {
        let agent = Agent::start(guest, config)?;
        eventually(SOON, "a first reading", || {
            let report = agent.report_of("psi_stall")?;
            report["reading"].as_object().context("none").map(drop)
        })?;
        let traces = config == TRACING;
        if traces {
            eventually(SOON, "it traces", || {
                ping_pong(1_000)?;
                ensure!(is_tracing(&agent)?, "it does not");
                Ok(())
            })?;
        }
        let mut with = SwitchRounds::of(name);
        run(&mut with)?;
        ensure!(is_tracing(&agent)? == traces, "{name}: that has changed");
        rounds.push(with);
        agent.stop()?;
        run(&mut rounds[0])?;
    }
    measured(&Switches {
        round_trips: ROUND_TRIPS,
        rounds,
    })
}

fn run(rounds: &mut SwitchRounds) -> Result<()> {
    for _ in 0..ROUNDS {
        rounds.seconds.push(ping_pong(ROUND_TRIPS)?);
    }
    Ok(())
}

fn is_tracing(agent: &Agent) -> Result<bool> {
    let metrics = Metrics::parse(&agent.scrape()?)?;
    Ok(metrics.value("nodemedic_psi_stall_tracing_active", &[])? == 1.0)
}

/// How long a byte takes that many times there and back between two threads of one CPU, seconds.
fn ping_pong(round_trips: u32) -> Result<f64> {
    let (there_end, there) = std::io::pipe().context("make a pipe")?;
    let (back_end, back) = std::io::pipe().context("make a pipe")?;
    let other = thread::spawn(move || answer(there_end, back));
    let began = Instant::now();
    let result = ask(there, back_end, round_trips);
    let took = began.elapsed().as_secs_f64();
    let answered = other.join().ok().context("the other thread panicked")?;
    result.and(answered).context("send a byte")?;
    Ok(took)
}

fn ask(mut there: PipeWriter, mut back: PipeReader, round_trips: u32) -> std::io::Result<()> {
    let mut byte = [0];
    for _ in 0..round_trips {
        there.write_all(&byte)?;
        back.read_exact(&mut byte)?;
    }
    Ok(())
}

/// Until there is nothing more to come.
fn answer(mut there: PipeReader, mut back: PipeWriter) -> std::io::Result<()> {
    let mut byte = [0];
    while there.read(&mut byte)? == 1 {
        back.write_all(&byte)?;
    }
    Ok(())
}
