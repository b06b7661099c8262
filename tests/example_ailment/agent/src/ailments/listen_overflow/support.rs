//! Which probes of the ailment a kernel supports.

use ebpf::listen_overflow::Offsets;

use crate::{
    collector::Support,
    kernel::{
        KernelFacts,
        bpf::{self, PlannedProbe, Probe, fentry_or_kprobe},
        facts::VMLINUX,
    },
    model::{KernelObject, MemberPath, Missing, Needs},
};

pub(super) const SOMAXCONN: &str = "net.core.somaxconn";

const IMAGE: KernelObject = KernelObject(VMLINUX);

pub(super) const NEEDS: Needs = Needs {
    modules: &[],
    functions: &[IMAGE.function("tcp_conn_request")],
    members: &[BACKLOG, MAX_BACKLOG, PORT, NET, INUM],
    sysctls: &[SOMAXCONN],
};

const BACKLOG: MemberPath = IMAGE.member("sock.sk_ack_backlog");
const MAX_BACKLOG: MemberPath = IMAGE.member("sock.sk_max_ack_backlog");
const PORT: MemberPath = IMAGE.member("sock.__sk_common.skc_num");
const NET: MemberPath = IMAGE.member("sock.__sk_common.skc_net.net");
const INUM: MemberPath = IMAGE.member("net.ns.inum");

static DROPS: Probe = Probe {
    name: "drops",
    gives: "which listeners drop connection requests",
    candidates: fentry_or_kprobe![VMLINUX => "request", at entry of "tcp_conn_request"],
};

/// What to attach, and what is known.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The probe. Without offsets it has no candidate.
    pub drops: PlannedProbe,
    /// Where the members lie, if all are known.
    pub offsets: Option<Offsets>,
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    let offsets = offsets(facts);
    Support::Yes(Plan {
        drops: match &offsets {
            Ok(_) => bpf::plan(&DROPS, facts),
            Err(missing) => PlannedProbe::impossible(&DROPS, missing),
        },
        offsets: offsets.ok(),
    })
}

fn offsets(facts: &KernelFacts) -> Result<Offsets, Missing> {
    Ok(Offsets {
        backlog: bpf::offset(facts, BACKLOG, 4)?,
        max_backlog: bpf::offset(facts, MAX_BACKLOG, 4)?,
        port: bpf::offset(facts, PORT, 2)?,
        net: bpf::offset(facts, NET, 8)?,
        net_inum: bpf::offset(facts, INUM, 4)?,
    })
}
