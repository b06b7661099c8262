//! What can be done against it: what each change does, what it costs, how it is undone.

use super::{judge::BACKLOG_FULL, measure::Reading, support::SOMAXCONN as KEY};
use crate::model::{Bound, Change, Proposal, Treatment};

/// The default from Linux 5.4 on (`SOMAXCONN`, include/linux/socket.h).
const DEFAULT: u64 = 4_096;

/// Safest first.
pub(super) const TREATMENTS: &[&Treatment] = &[&SOMAXCONN];

static SOMAXCONN: Treatment = Treatment {
    name: "somaxconn",
    effect: "processes can listen with longer accept queues",
    cost: "kernel memory for each connection that waits",
    acts: "on sockets that call listen afterwards with a long backlog; those that listen keep theirs",
    applies: "in the agent's network namespace, where net.core.somaxconn is below 4096",
    keys: &[Bound {
        key: KEY,
        allowed: DEFAULT..=DEFAULT,
    }],
    durable: "set net.core.somaxconn in a file of /etc/sysctl.d",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    let change = reading
        .somaxconn
        .filter(|somaxconn| *somaxconn < DEFAULT)
        .map(|somaxconn| Change::new(KEY, reading.netns, somaxconn, DEFAULT));
    vec![Proposal::new(&SOMAXCONN, &[BACKLOG_FULL], change)]
}
