//! Which probes of the ailment a kernel supports.

use ebpf::udp_conntrack::Offsets;

use crate::{
    ailments::Support,
    kernel::{
        Fact, Function, KernelFacts, MemberPath, Needs,
        bpf::{self, At, Candidate, Hook, PlannedProbe, Probe, Program},
        facts::{Member, ModuleState},
    },
    report::Missing,
};

pub(super) const MODULE: &str = "nf_conntrack";
pub(super) const NETLINK_MODULE: &str = "nf_conntrack_netlink";

pub(super) const NEEDS: Needs = Needs {
    modules: &[MODULE, NETLINK_MODULE],
    functions: &[
        function("__nf_conntrack_confirm"),
        function("nf_ct_resolve_clash"),
        function("nf_ct_delete"),
        function("early_drop"),
        // Tells whether a module that shows itself nowhere is built in.
        Function {
            name: "ctnetlink_get_conntrack",
            module: NETLINK_MODULE,
        },
    ],
    members: &[
        SKB_NFCT,
        STATUS,
        TIMEOUT,
        NET,
        SOURCE,
        FAMILY,
        PORT,
        PROTOCOL,
        INUM,
        UDP_TIMEOUTS,
    ],
    sysctls: &[
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_udp_timeout",
        "net.netfilter.nf_conntrack_udp_timeout_stream",
    ],
};

const SKB_NFCT: MemberPath = member("sk_buff._nfct");
const STATUS: MemberPath = member("nf_conn.status");
const TIMEOUT: MemberPath = member("nf_conn.timeout");
const NET: MemberPath = member("nf_conn.ct_net.net");
const SOURCE: MemberPath = member("nf_conn.tuplehash.tuple.src.u3");
const FAMILY: MemberPath = member("nf_conn.tuplehash.tuple.src.l3num");
const PORT: MemberPath = member("nf_conn.tuplehash.tuple.dst.u");
const PROTOCOL: MemberPath = member("nf_conn.tuplehash.tuple.dst.protonum");
const INUM: MemberPath = member("net.ns.inum");
const UDP_TIMEOUTS: MemberPath = member("net.ct.nf_ct_proto.udp.timeouts");

const fn function(name: &'static str) -> Function {
    Function {
        name,
        module: MODULE,
    }
}

const fn member(path: &'static str) -> MemberPath {
    MemberPath {
        path,
        module: MODULE,
    }
}

const fn program(name: &'static str, at: At, function: &'static str) -> Program {
    Program {
        name,
        at,
        function,
        module: MODULE,
    }
}

const CREATIONS: Probe = Probe {
    name: "creations",
    gives: "who makes entries, and how fast",
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[
                program("clash_fexit", At::Return, "nf_ct_resolve_clash"),
                program("confirm_fexit", At::Return, "__nf_conntrack_confirm"),
            ],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("confirm_kretprobe", At::Return, "__nf_conntrack_confirm"),
                program("confirm_kprobe", At::Entry, "__nf_conntrack_confirm"),
            ],
        },
    ],
};

const REMOVALS: Probe = Probe {
    name: "removals",
    gives: "how entries end, how long they lived and how long they stood idle",
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[program("delete_fexit", At::Return, "nf_ct_delete")],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("delete_kretprobe", At::Return, "nf_ct_delete"),
                program("delete_kprobe", At::Entry, "nf_ct_delete"),
            ],
        },
    ],
};

const EARLY_DROPS: Probe = Probe {
    name: "early_drops",
    gives: "which removals were early drops, as the table was full",
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[
                program("early_drop_fentry", At::Entry, "early_drop"),
                program("early_drop_fexit", At::Return, "early_drop"),
            ],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("early_drop_kretprobe", At::Return, "early_drop"),
                program("early_drop_kprobe", At::Entry, "early_drop"),
            ],
        },
    ],
};

/// In the order of attaching: what is counted as an early drop must be known
/// before removals are counted, and removals before creations, so that the count
/// of living entries is never above the truth.
static PROBES: [Probe; 3] = [EARLY_DROPS, REMOVALS, CREATIONS];

/// What to attach, and what is known.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The probes in the order of attaching. Without offsets none has a candidate.
    pub probes: Vec<PlannedProbe>,
    /// Where the members lie, if all are known.
    pub offsets: Option<Offsets>,
    /// Jiffies a second, if known.
    pub hz: Result<u32, Missing>,
    /// When the table can be walked through ctnetlink.
    pub walks: Result<Walks, Missing>,
}

/// When the table can be walked through ctnetlink. Asking for a walk without the
/// module would load it, and the agent changes nothing unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walks {
    /// It is built in.
    Always,
    /// Whenever [`NETLINK_MODULE`] is loaded.
    WhileLoaded,
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    match facts
        .modules
        .get(MODULE)
        .map(|module| (&module.state, module.users))
    {
        None | Some((ModuleState::Absent, _)) => return Support::Waiting,
        // Without a user (nf_nat, a rule, a socket) the module tracks nothing.
        Some((ModuleState::Loaded, Some(0))) => return Support::Waiting,
        Some((ModuleState::Loaded | ModuleState::BuiltIn, _)) => {}
    }
    let offsets = offsets(facts);
    let probes = PROBES.iter().map(|probe| match &offsets {
        Ok(_) => bpf::plan(probe, facts),
        Err(missing) => PlannedProbe {
            probe,
            candidates: Vec::new(),
            missing: vec![missing.clone()],
        },
    });
    Support::Yes(Plan {
        probes: probes.collect(),
        offsets: offsets.as_ref().ok().copied(),
        hz: match &facts.hz {
            Fact::Known(hz) => Ok(*hz),
            Fact::Unknown(why) => Err(Missing {
                what: "the length of a jiffy".to_owned(),
                why: why.clone(),
                remedy: "run as root; until then no idle time of entries is given".to_owned(),
            }),
        },
        walks: walks(facts),
    })
}

fn offsets(facts: &KernelFacts) -> Result<Offsets, Missing> {
    Ok(Offsets {
        skb_nfct: offset(facts, SKB_NFCT, 8)?,
        ct_status: offset(facts, STATUS, 8)?,
        ct_timeout: offset(facts, TIMEOUT, 4)?,
        ct_net: offset(facts, NET, 8)?,
        source_address: offset(facts, SOURCE, 16)?,
        family: offset(facts, FAMILY, 2)?,
        destination_port: offset(facts, PORT, 2)?,
        protocol: offset(facts, PROTOCOL, 1)?,
        net_inum: offset(facts, INUM, 4)?,
        // An array: that of an unreplied flow is its first element.
        net_udp_timeout: offset(facts, UDP_TIMEOUTS, 8)?,
    })
}

/// A member's offset, if it is there and of the size that the probes read it with.
fn offset(facts: &KernelFacts, member: MemberPath, size: u32) -> Result<u32, Missing> {
    let missing = |why: String| Missing {
        what: member.path.to_owned(),
        why,
        remedy: "use a kernel with BTF for vmlinux and modules (CONFIG_DEBUG_INFO_BTF, \
                 CONFIG_DEBUG_INFO_BTF_MODULES); if it has both, please report it"
            .to_owned(),
    };
    match facts.members.get(member.path) {
        Some(Fact::Known(Member {
            offset,
            size: found,
        })) if *found == size => Ok(*offset),
        Some(Fact::Known(Member { size: found, .. })) => Err(missing(format!(
            "it has {found} bytes here, the probes know it with {size}"
        ))),
        Some(Fact::Unknown(why)) => Err(missing(why.clone())),
        None => Err(missing("it was not looked up".to_owned())),
    }
}

fn walks(facts: &KernelFacts) -> Result<Walks, Missing> {
    let held = facts
        .capabilities
        .known()
        .and_then(|held| held.get("CAP_NET_ADMIN"));
    if held == Some(&false) {
        return Err(Missing {
            what: "walks of the table (ctnetlink)".to_owned(),
            why: "this process lacks CAP_NET_ADMIN".to_owned(),
            remedy: "run as root, or give it CAP_NET_ADMIN".to_owned(),
        });
    }
    match facts
        .modules
        .get(NETLINK_MODULE)
        .map(|module| &module.state)
    {
        Some(ModuleState::BuiltIn) => Ok(Walks::Always),
        Some(ModuleState::Loaded | ModuleState::Absent) | None => Ok(Walks::WhileLoaded),
    }
}
