//! Which probes of the ailment a kernel supports.

use ebpf::ipvs_conn_reuse::Offsets;

use super::layout::{self, Layout};
use crate::{
    collector::Support,
    kernel::{
        Fact, KernelFacts,
        bpf::{self, Candidate, PlannedProbe, Probe, fentry_or_kprobe, programs},
        facts::{ModuleState, VMLINUX},
    },
    model::{KernelObject, MemberPath, Missing, Needs},
};

pub(super) const MODULE: &str = "ip_vs";

const IP_VS: KernelObject = KernelObject(MODULE);
const IMAGE: KernelObject = KernelObject(VMLINUX);

pub(super) const NEEDS: Needs = Needs {
    modules: &[MODULE],
    functions: &[
        IP_VS.function("ip_vs_conn_expire_now"),
        IP_VS.function("ip_vs_schedule"),
        IP_VS.function("ip_vs_conn_new"),
        IP_VS.function("__ip_vs_del_dest"),
        IP_VS.function("ip_vs_edit_dest"),
        IP_VS.function("ip_vs_conn_in_get_proto"),
        IP_VS.function("ip_vs_in_hook"),
        IP_VS.function("ip_vs_remote_request4"),
        IP_VS.function("ip_vs_local_request4"),
        IP_VS.function("ip_vs_remote_request6"),
        IP_VS.function("ip_vs_local_request6"),
        IP_VS.function("udp_dnat_handler"),
        IP_VS.function("udp_snat_handler"),
    ],
    members: &[
        FAMILY,
        DESTINATION_FAMILY,
        PROTOCOL,
        CLIENT,
        CLIENT_PORT,
        VIRTUAL_ADDRESS,
        VIRTUAL_PORT,
        DESTINATION,
        DESTINATION_PORT,
        FLAGS,
        STATE,
        DEST,
        IPVS,
        WEIGHT,
        DEST_CFLAGS,
        DEST_FLAGS,
        NET,
        CONNTRACK,
        CONN_REUSE_MODE,
        EXPIRE_NODEST_CONN,
        EXPIRE_QUIESCENT_TEMPLATE,
        INUM,
        SERVICE_IPVS,
        WANTED_WEIGHT,
        HEADER_FLAGS,
        HEADER_LENGTH,
        HEADER_PROTOCOL,
        SKB_DATA,
    ],
    sysctls: &[],
};

const FAMILY: MemberPath = IP_VS.member("ip_vs_conn.af");
const DESTINATION_FAMILY: MemberPath = IP_VS.member("ip_vs_conn.daf");
const PROTOCOL: MemberPath = IP_VS.member("ip_vs_conn.protocol");
const CLIENT: MemberPath = IP_VS.member("ip_vs_conn.caddr");
const CLIENT_PORT: MemberPath = IP_VS.member("ip_vs_conn.cport");
const VIRTUAL_ADDRESS: MemberPath = IP_VS.member("ip_vs_conn.vaddr");
const VIRTUAL_PORT: MemberPath = IP_VS.member("ip_vs_conn.vport");
const DESTINATION: MemberPath = IP_VS.member("ip_vs_conn.daddr");
const DESTINATION_PORT: MemberPath = IP_VS.member("ip_vs_conn.dport");
const FLAGS: MemberPath = IP_VS.member("ip_vs_conn.flags");
const STATE: MemberPath = IP_VS.member("ip_vs_conn.state");
const DEST: MemberPath = IP_VS.member("ip_vs_conn.dest");
const IPVS: MemberPath = IP_VS.member("ip_vs_conn.ipvs");
const WEIGHT: MemberPath = IP_VS.member("ip_vs_dest.weight");
const DEST_CFLAGS: MemberPath = IP_VS.member("ip_vs_dest.cflags");
const DEST_FLAGS: MemberPath = IP_VS.member("ip_vs_dest.flags");
const NET: MemberPath = IP_VS.member("netns_ipvs.net");
const CONNTRACK: MemberPath = IP_VS.member("netns_ipvs.sysctl_conntrack");
const CONN_REUSE_MODE: MemberPath = IP_VS.member("netns_ipvs.sysctl_conn_reuse_mode");
const EXPIRE_NODEST_CONN: MemberPath = IP_VS.member("netns_ipvs.sysctl_expire_nodest_conn");
const EXPIRE_QUIESCENT_TEMPLATE: MemberPath =
    IP_VS.member("netns_ipvs.sysctl_expire_quiescent_template");
pub(super) const INUM: MemberPath = IMAGE.member("net.ns.inum");
const SERVICE_IPVS: MemberPath = IP_VS.member("ip_vs_service.ipvs");
const WANTED_WEIGHT: MemberPath = IP_VS.member("ip_vs_dest_user_kern.weight");
const HEADER_FLAGS: MemberPath = IP_VS.member("ip_vs_iphdr.hdr_flags");
const HEADER_LENGTH: MemberPath = IP_VS.member("ip_vs_iphdr.len");
const HEADER_PROTOCOL: MemberPath = IP_VS.member("ip_vs_iphdr.protocol");
pub(super) const SKB_DATA: MemberPath = IMAGE.member("sk_buff.data");

const CONNECTIONS: Probe = Probe {
    name: "connections",
    gives: "how long clients wait, and to which destination they connect in the end",
    candidates: fentry_or_kprobe![MODULE =>
        "schedule", at return of "ip_vs_schedule"
    ],
};

const REUSES: Probe = Probe {
    name: "reuses",
    gives: "the SYNs for which IPVS expires a connection",
    candidates: fentry_or_kprobe![MODULE =>
        "expire", at entry of "ip_vs_conn_expire_now"
    ],
};

const CHANGES: Probe = Probe {
    name: "changes",
    gives: "tracing of the packet hook from the moment when a destination is drained or removed, \
         not from the next reading",
    candidates: fentry_or_kprobe![MODULE =>
        "removal", at entry of "__ip_vs_del_dest",
        "edit", at entry of "ip_vs_edit_dest"
    ],
};

/// What the packet hook returns is asked first: a note that nobody would take must not
/// be left.
static KEPT: Probe = Probe {
    name: "kept",
    gives: "the SYNs that go to drained destinations, and the SYNs and UDP datagrams that IPVS \
         drops silently",
    candidates: &[
        Candidate::fentry(programs![MODULE =>
            "hook_fexit", at return of "ip_vs_in_hook",
            "lookup_fexit", at return of "ip_vs_conn_in_get_proto"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "hook_kretprobe", at return of "ip_vs_in_hook",
            "lookup_kretprobe", at return of "ip_vs_conn_in_get_proto",
            "lookup_kprobe", at entry of "ip_vs_conn_in_get_proto"
        ]),
        // Through 5.15 the hook had a function for each place and family.
        Candidate::kprobe(programs![MODULE =>
            "hook_kretprobe", at return of "ip_vs_remote_request4",
            "hook_kretprobe", at return of "ip_vs_local_request4",
            "hook_kretprobe", at return of "ip_vs_remote_request6",
            "hook_kretprobe", at return of "ip_vs_local_request6",
            "lookup_kretprobe", at return of "ip_vs_conn_in_get_proto",
            "lookup_kprobe", at entry of "ip_vs_conn_in_get_proto"
        ]),
    ],
};

static ANSWERS: Probe = Probe {
    name: "answers",
    gives: "whether drained destinations still answer UDP datagrams",
    candidates: fentry_or_kprobe![MODULE =>
        "sent", at entry of "udp_dnat_handler",
        "answered", at entry of "udp_snat_handler"
    ],
};

/// Attached for as long as it takes to know a recorded layout.
static SPECIMENS: Probe = Probe {
    name: "layout",
    gives: "the proof that a recorded layout fits the running module",
    candidates: &[Candidate::kprobe(programs![MODULE =>
        "new_kretprobe", at return of "ip_vs_conn_new",
        "new_kprobe", at entry of "ip_vs_conn_new"
    ])],
};

/// In the order of attaching: who waits is noted only once it will be noticed that the
/// wait is over.
static ALWAYS: [Probe; 3] = [CONNECTIONS, REUSES, CHANGES];

/// Of these each would count wrongly without the other.
pub(super) const NEEDED: [&str; 2] = [CONNECTIONS.name, REUSES.name];

/// What to attach, and what is known.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The probes that are always attached, in the order of attaching. Without offsets
    /// none has a candidate.
    pub always: Vec<PlannedProbe>,
    /// The one that is attached while there is something for it to see.
    pub kept: PlannedProbe,
    /// The one that has turns while UDP flows to drained destinations stand.
    pub answers: PlannedProbe,
    /// Where the members lie, if all are known.
    pub offsets: Option<Offsets>,
    /// What is to be checked before anything else is attached.
    pub unchecked: Option<Unchecked>,
}

/// A layout that was recorded, for a module that does not say itself how its structures
/// are laid out.
#[derive(Clone, Debug)]
pub struct Unchecked {
    /// What was recorded.
    pub layout: &'static Layout,
    /// The probe by which it is checked.
    pub probe: PlannedProbe,
    /// Jiffies a second, if known.
    pub hz: Option<u32>,
}

impl Plan {
    /// All probes.
    pub fn probes(&self) -> impl Iterator<Item = &PlannedProbe> {
        self.always.iter().chain([&self.kept, &self.answers])
    }
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    // Every service holds a reference.
    if !facts.is_used(MODULE) {
        return Support::Waiting;
    }
    let recorded = recorded(facts);
    let offsets = match recorded {
        Some(layout) => layout.offsets(facts),
        None => offsets(facts),
    };
    let planned = |probe| match &offsets {
        Ok(_) => bpf::plan(probe, facts),
        Err(missing) => PlannedProbe::impossible(probe, missing),
    };
    Support::Yes(Plan {
        always: ALWAYS.iter().map(planned).collect(),
        kept: planned(&KEPT),
        answers: planned(&ANSWERS),
        unchecked: recorded.map(|layout| Unchecked {
            layout,
            probe: planned(&SPECIMENS),
            hz: facts.hz.known().copied(),
        }),
        offsets: offsets.as_ref().ok().copied(),
    })
}

/// What was recorded of the series of a module that has no types of its own.
fn recorded(facts: &KernelFacts) -> Option<&'static Layout> {
    let module = facts.modules.get(MODULE)?;
    match (&module.state, &module.btf) {
        (ModuleState::Loaded, Fact::Unknown(_)) => layout::of(facts),
        _ => None,
    }
}

fn offsets(facts: &KernelFacts) -> Result<Offsets, Missing> {
    let of = |member, size: u32| bpf::offset(facts, member, size);
    Ok(Offsets {
        // 16 bits up to 6.12, 8 from 7.2: the low byte is enough.
        family: bpf::offset(facts, FAMILY, None)?,
        destination_family: bpf::offset(facts, DESTINATION_FAMILY, None)?,
        protocol: of(PROTOCOL, 2)?,
        client: of(CLIENT, 16)?,
        client_port: of(CLIENT_PORT, 2)?,
        virtual_address: of(VIRTUAL_ADDRESS, 16)?,
        virtual_port: of(VIRTUAL_PORT, 2)?,
        destination: of(DESTINATION, 16)?,
        destination_port: of(DESTINATION_PORT, 2)?,
        flags: of(FLAGS, 4)?,
        state: of(STATE, 2)?,
        dest: of(DEST, 8)?,
        ipvs: of(IPVS, 8)?,
        dest_weight: of(WEIGHT, 4)?,
        // Split off within the stable series (5.15.224, 6.1.192, 6.12.117).
        dest_available: of(DEST_CFLAGS, 8).or_else(|_| of(DEST_FLAGS, 4))?,
        ipvs_net: of(NET, 8)?,
        conntrack: of(CONNTRACK, 4)?,
        conn_reuse_mode: of(CONN_REUSE_MODE, 4)?,
        expire_nodest_conn: of(EXPIRE_NODEST_CONN, 4)?,
        expire_quiescent_template: of(EXPIRE_QUIESCENT_TEMPLATE, 4)?,
        net_inum: of(INUM, 4)?,
        service_ipvs: of(SERVICE_IPVS, 8)?,
        wanted_weight: of(WANTED_WEIGHT, 4)?,
        header_flags: of(HEADER_FLAGS, 4)?,
        header_length: of(HEADER_LENGTH, 4)?,
        header_protocol: of(HEADER_PROTOCOL, 2)?,
        skb_data: of(SKB_DATA, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{bpf::Hook, facts::Member, recorded};

    fn plan(facts: &KernelFacts) -> Plan {
        match support(facts) {
            Support::Yes(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    /// The first hook that is tried for each probe.
    fn first_hooks(plan: &Plan) -> Vec<Option<Hook>> {
        let first = |probe: &PlannedProbe| probe.candidates.first().map(|it| it.hook);
        plan.probes().map(first).collect()
    }

    fn reasons(plan: &Plan) -> String {
        let missing = plan.probes().flat_map(|probe| &probe.missing);
        format!("{:?}", missing.collect::<Vec<_>>())
    }

    #[test]
    fn every_recorded_kernel_has_its_cheapest_hook_and_all_offsets() {
        let wanted = [Hook::Kprobe, Hook::Fentry, Hook::Fentry, Hook::Fentry];
        for (facts, hook) in recorded::all().zip(wanted) {
            let plan = plan(&facts);
            let release = &facts.release;
            assert!(plan.offsets.is_some(), "{release}: {}", reasons(&plan));
            let hooks = first_hooks(&plan);
            assert_eq!(hooks, [Some(hook); 5], "{release}: {}", reasons(&plan));
        }
    }

    #[test]
    fn a_recorded_layout_is_taken_where_the_module_says_nothing_and_is_to_be_checked() {
        for facts in recorded::all() {
            let types = facts.modules[MODULE].btf.known().is_some();
            let plan = plan(&facts);
            assert_eq!(plan.unchecked.is_none(), types, "{}", facts.release);
        }
    }

    #[test]
    fn of_a_series_that_was_not_recorded_nothing_is_guessed() {
        let mut facts = recorded::all().next().expect("5.10 is recorded");
        facts.release = "5.11.0-1-cloud-amd64".to_owned();
        let plan = plan(&facts);
        assert!(plan.offsets.is_none() && plan.unchecked.is_none());
        assert_eq!(first_hooks(&plan), [None; 5]);
        assert!(reasons(&plan).contains("ip_vs_conn"), "{}", reasons(&plan));
    }

    #[test]
    fn whether_a_destination_is_there_is_found_in_either_place() {
        let mut facts = recorded::newest();
        let at = |offset, size| Fact::Known(Member { offset, size });
        let none = || Fact::Unknown("it is not there".to_owned());
        let mut available = |cflags, flags| {
            facts.members.insert(DEST_CFLAGS.path.to_owned(), cflags);
            facts.members.insert(DEST_FLAGS.path.to_owned(), flags);
            plan(&facts).offsets.map(|offsets| offsets.dest_available)
        };
        assert_eq!(available(at(72, 8), at(52, 4)), Some(72));
        assert_eq!(available(none(), at(52, 4)), Some(52));
        assert_eq!(available(none(), none()), None);
    }

    #[test]
    fn a_missing_member_is_named_and_no_probe_is_planned_without_it() {
        for member in NEEDS.members {
            if [DEST_CFLAGS, DEST_FLAGS].contains(member) {
                continue;
            }
            let mut facts = recorded::newest();
            let why = Fact::Unknown("the structure has no such member".to_owned());
            facts.members.insert(member.path.to_owned(), why);
            let plan = plan(&facts);
            assert_eq!(plan.offsets, None);
            assert_eq!(first_hooks(&plan), [None; 5], "{member:?}");
            assert!(reasons(&plan).contains(member.path), "{}", reasons(&plan));
        }
    }
}
