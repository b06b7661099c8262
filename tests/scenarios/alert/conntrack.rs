//! Entries of DNS queries: as many as fill the table, a quarter of that, and as many again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::json;

use super::{Phase, follow, of, start};

const MAX: &str = "net.netfilter.nf_conntrack_max";

/// Each from a port of its own, to a resolver that answers at once.
const QUERIES_A_SECOND: u32 = 40;

/// Longer than an entry stands after its only exchange.
const FULL_LOAD: Duration = Duration::from_secs(40);

/// A query that is not answered is an error, and there is none.
pub(crate) fn entries(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.set_sysctl(MAX, "1700")?;
    guest.modprobe("nf_conntrack_netlink")?;
    let settings = "[ailments.udp_conntrack]\nscan_interval = \"1s\"\ntable_filling_within = \"1s\"\n\
                    table_filling_ratio = 0.45\nidle_entries_usage_ratio = 0.45";
    let before = count(guest)?;
    site.while_asking(QUERIES_A_SECOND, || {
        let begun = Instant::now();
        while begun.elapsed() < FULL_LOAD {
            sleep(Duration::from_secs(1));
            count(guest)?;
        }
        let sick = count(guest)?;
        let agent = start(guest, "udp_timeout", Duration::from_secs(60), settings)?;
        let look = || {
            sleep(Duration::from_secs(1));
            count(guest)
        };
        let back = |looks: &[(Phase, u32)]| {
            let again = of(looks, Phase::Undone).into_iter().max();
            again.is_some_and(|again| again * 10 > sick * 9)
        };
        let looks = follow(guest, Duration::from_secs(400), look, back)?;
        drop(agent);
        let treated = of(&looks, Phase::Treated).into_iter().min();
        let treated = treated.context("nobody looked while it was treated")?;
        let again = of(&looks, Phase::Undone).into_iter().max();
        ensure!(treated * 2 <= sick, "{sick} entries, treated {treated}");
        Ok(Verdict::Measured(json!({
            "before": before,
            "sick": sick,
            "treated": treated,
            "again": again,
        })))
    })
}

/// A scan of the table has the kernel drop what has expired, which it does seldom by itself where
/// there is little else to do.
fn count(guest: &Guest) -> Result<u32> {
    guest.sh("conntrack -L -p udp > /dev/null 2>&1")?;
    Ok(guest.sh("conntrack -C")?.trim().parse()?)
}
