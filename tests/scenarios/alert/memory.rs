//! Readers that fill the page cache faster than kswapd empties it: they reclaim by themselves, hardly
//! do so while kswapd begins earlier, and do so again.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::cgroup::Cgroup;
use nodemedic_tests::faults::reader::{self, Use};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::json;

use super::{Phase, follow, of, start};

/// As many as make kswapd fall behind where it begins late, and only there.
const READERS: usize = 6;

/// Of one look.
const LOOK: Duration = Duration::from_secs(5);

/// The part of the time for which readers waited for memory, as the kernel accounts it.
pub(crate) fn reclaim(guest: &Guest) -> Result<Verdict> {
    reader::prepare(guest)?;
    let cgroup = Cgroup::create("/readers")?;
    let look = || {
        let before = cgroup.waited_for("memory")?;
        sleep(LOOK);
        Ok((cgroup.waited_for("memory")? - before).div_duration_f64(LOOK))
    };
    let healthy = look()?;
    // Sick it is some 8 % of the time here, and treated 2 %.
    let settings = "[ailments.psi_stall]\nmemory_ratio = 0.035";
    let agent = start(guest, "watermark_scale", Duration::from_secs(15), settings)?;
    let readers = (0..READERS).map(|_| reader::start(guest, &cgroup, Use::Works));
    let readers = readers.collect::<Result<Vec<_>>>()?;
    let back = |looks: &[(Phase, f64)]| {
        let [sick, again] = [Phase::Untreated, Phase::Undone].map(|phase| mean(&of(looks, phase)));
        sick.zip(again)
            .is_some_and(|(sick, again)| again * 2.0 > sick)
    };
    let looks = follow(guest, Duration::from_secs(400), look, back)?;
    drop((agent, readers));
    let part = |phase| {
        // Nobody waits before the memory is full.
        let parts = of(&looks, phase).into_iter();
        let parts = parts.skip_while(|part| phase == Phase::Untreated && *part == 0.0);
        mean(&parts.collect::<Vec<_>>()).with_context(|| format!("no look while {phase:?}"))
    };
    let [sick, treated, again] = [
        part(Phase::Untreated)?,
        part(Phase::Treated)?,
        part(Phase::Undone)?,
    ];
    println!("{looks:?}");
    ensure!(healthy == 0.0, "{healthy} before there were readers");
    ensure!(
        treated * 1.5 < sick.max(again),
        "{sick}, treated {treated}, again {again}"
    );
    Ok(Verdict::Measured(json!({
        "healthy": healthy,
        "sick": sick,
        "treated": treated,
        "again": again,
    })))
}

fn mean(parts: &[f64]) -> Option<f64> {
    (!parts.is_empty()).then(|| parts.iter().sum::<f64>() / parts.len() as f64)
}
