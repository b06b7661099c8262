//! Which probes of the ailment a kernel supports.

use ebpf::udp_conntrack::{ENTRY_WORDS, EntryOffsets, Offsets};

use crate::{
    collector::Support,
    kernel::{
        Fact, KernelFacts,
        bpf::{self, Candidate, PlannedProbe, Probe, programs},
        facts::ModuleState,
    },
    model::{KernelObject, MemberPath, Missing, Needs},
};

pub(super) const MODULE: &str = "nf_conntrack";
pub(super) const NETLINK_MODULE: &str = "nf_conntrack_netlink";

const NF_CONNTRACK: KernelObject = KernelObject(MODULE);

pub(super) const NEEDS: Needs = Needs {
    modules: &[MODULE, NETLINK_MODULE],
    functions: &[
        NF_CONNTRACK.function("__nf_conntrack_confirm"),
        NF_CONNTRACK.function("nf_ct_resolve_clash"),
        NF_CONNTRACK.function("nf_ct_destroy"),
        NF_CONNTRACK.function("destroy_conntrack"),
        NF_CONNTRACK.function("nf_ct_delete"),
        NF_CONNTRACK.function("nf_ct_delete.part.0"),
        NF_CONNTRACK.function("early_drop"),
        // Tells whether a module that shows itself nowhere is built in.
        KernelObject(NETLINK_MODULE).function("ctnetlink_get_conntrack"),
    ],
    members: &[
        SKB_NFCT,
        GENERAL,
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

const SKB_NFCT: MemberPath = NF_CONNTRACK.member("sk_buff._nfct");
const GENERAL: MemberPath = NF_CONNTRACK.member("nf_conn.ct_general");
const STATUS: MemberPath = NF_CONNTRACK.member("nf_conn.status");
const TIMEOUT: MemberPath = NF_CONNTRACK.member("nf_conn.timeout");
const NET: MemberPath = NF_CONNTRACK.member("nf_conn.ct_net.net");
const SOURCE: MemberPath = NF_CONNTRACK.member("nf_conn.tuplehash.tuple.src.u3");
const FAMILY: MemberPath = NF_CONNTRACK.member("nf_conn.tuplehash.tuple.src.l3num");
const PORT: MemberPath = NF_CONNTRACK.member("nf_conn.tuplehash.tuple.dst.u");
const PROTOCOL: MemberPath = NF_CONNTRACK.member("nf_conn.tuplehash.tuple.dst.protonum");
const INUM: MemberPath = NF_CONNTRACK.member("net.ns.inum");
const UDP_TIMEOUTS: MemberPath = NF_CONNTRACK.member("net.ct.nf_ct_proto.udp.timeouts");

pub(super) const CREATIONS: Probe = Probe {
    name: "creations",
    gives: "which flows create entries, how fast, and which the table refuses",
    candidates: &[
        Candidate::fentry(programs![MODULE =>
            "clash_fexit", at return of "nf_ct_resolve_clash",
            "confirm_fexit", at return of "__nf_conntrack_confirm"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "clash_kretprobe", at return of "nf_ct_resolve_clash",
            "confirm_kretprobe", at return of "__nf_conntrack_confirm",
            "confirm_kprobe", at entry of "__nf_conntrack_confirm"
        ]),
        // Where `nf_ct_resolve_clash` has no symbol, a lost clash counts as not inserted.
        Candidate::kprobe(programs![MODULE =>
            "confirm_kretprobe", at return of "__nf_conntrack_confirm",
            "confirm_kprobe", at entry of "__nf_conntrack_confirm"
        ]),
    ],
};

/// An entry is destroyed once, by whatever way it went; who deleted it is noted
/// before. Up to 5.10 the function was static and had another name, and there gcc
/// has split `nf_ct_delete`.
pub(super) const REMOVALS: Probe = Probe {
    name: "removals",
    gives: "how entries end, how long they lived and how long they were idle",
    candidates: &[
        Candidate::fentry(programs![MODULE =>
            "delete_fentry", at entry of "nf_ct_delete",
            "destroy_fentry", at entry of "nf_ct_destroy"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "delete_kprobe", at entry of "nf_ct_delete",
            "destroy_kprobe", at entry of "nf_ct_destroy"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "delete_kprobe", at entry of "nf_ct_delete.part.0",
            "destroy_kprobe", at entry of "destroy_conntrack"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "delete_kprobe", at entry of "nf_ct_delete",
            "destroy_kprobe", at entry of "destroy_conntrack"
        ]),
    ],
};

pub(super) const EARLY_DROPS: Probe = Probe {
    name: "early_drops",
    gives: "which removals were early drops of a full table, and which connections found none",
    candidates: &[
        Candidate::fentry(programs![MODULE =>
            "early_drop_fentry", at entry of "early_drop",
            "early_drop_fexit", at return of "early_drop"
        ]),
        Candidate::kprobe(programs![MODULE =>
            "early_drop_kretprobe", at return of "early_drop",
            "early_drop_kprobe", at entry of "early_drop"
        ]),
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
    /// When the table can be scanned through ctnetlink.
    pub scans: Result<Scans, Missing>,
}

/// When the table can be scanned through ctnetlink. Asking for a scan without the
/// module would load it, and the agent changes nothing unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// It is built in.
    Always,
    /// Whenever [`NETLINK_MODULE`] is loaded.
    WhileLoaded,
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    // Without a user (nf_nat, a rule, a socket) the module tracks nothing.
    if !facts.is_used(MODULE) {
        return Support::Waiting;
    }
    let offsets = offsets(facts);
    let probes = PROBES.iter().map(|probe| match &offsets {
        Ok(_) => bpf::plan(probe, facts),
        Err(missing) => PlannedProbe::impossible(probe, missing),
    });
    Support::Yes(Plan {
        probes: probes.collect(),
        offsets: offsets.as_ref().ok().copied(),
        hz: match &facts.hz {
            Fact::Known(hz) => Ok(*hz),
            Fact::Unknown(why) => Err(Missing {
                what: "the length of a jiffy".to_owned(),
                why: why.clone(),
                remedy: "none known; until then nodemedic does not measure idle times of entries"
                    .to_owned(),
            }),
        },
        scans: scans(facts),
    })
}

fn offsets(facts: &KernelFacts) -> Result<Offsets, Missing> {
    let (ct_part, ct) = entry(facts)?;
    Ok(Offsets {
        skb_nfct: bpf::offset(facts, SKB_NFCT, 8)?,
        ct_general: bpf::offset(facts, GENERAL, 4)?,
        ct_part,
        ct,
        net_inum: bpf::offset(facts, INUM, 4)?,
        // An array: that of an unreplied flow is its first element.
        net_udp_timeout: bpf::offset(facts, UDP_TIMEOUTS, 8)?,
    })
}

/// Where the part of an entry begins that the probes read, and the members in it. They
/// read no more than [`ENTRY_WORDS`], and each member where it is aligned.
fn entry(facts: &KernelFacts) -> Result<(u32, EntryOffsets), Missing> {
    const MEMBERS: [(MemberPath, u32, u32); 7] = [
        // With their sizes and alignments.
        (STATUS, 8, 8),
        (TIMEOUT, 4, 4),
        (NET, 8, 8),
        (SOURCE, 16, 4),
        (FAMILY, 2, 2),
        (PORT, 2, 2),
        (PROTOCOL, 1, 1),
    ];
    let mut at = [0; MEMBERS.len()];
    for (at, (member, size, _)) in at.iter_mut().zip(MEMBERS) {
        *at = bpf::offset(facts, member, size)?;
    }
    let begin = at.into_iter().min().unwrap_or_default() / 8 * 8;
    for (at, (member, size, alignment)) in at.iter_mut().zip(MEMBERS) {
        let found = *at;
        *at -= begin;
        if *at + size > ENTRY_WORDS as u32 * 8 || !at.is_multiple_of(alignment) {
            return Err(bpf::unreadable(
                facts,
                member,
                format!(
                    "it is at offset {found} here, outside of what the probes read from \
                     {begin} on"
                ),
            ));
        }
    }
    let [
        status,
        timeout,
        net,
        source_address,
        family,
        destination_port,
        protocol,
    ] = at;
    let members = EntryOffsets {
        status,
        timeout,
        net,
        source_address,
        family,
        destination_port,
        protocol,
    };
    Ok((begin, members))
}

fn scans(facts: &KernelFacts) -> Result<Scans, Missing> {
    let held = facts
        .capabilities
        .known()
        .and_then(|held| held.get("CAP_NET_ADMIN"));
    if held == Some(&false) {
        return Err(Missing {
            what: "scans of the table (ctnetlink)".to_owned(),
            why: "this process lacks CAP_NET_ADMIN".to_owned(),
            remedy: "run as root, or give it CAP_NET_ADMIN".to_owned(),
        });
    }
    match facts
        .modules
        .get(NETLINK_MODULE)
        .map(|module| &module.state)
    {
        Some(ModuleState::BuiltIn) => Ok(Scans::Always),
        Some(ModuleState::Loaded | ModuleState::Absent) | None => Ok(Scans::WhileLoaded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        bpf::Hook,
        facts::{Member, ProgramType, Symbol},
        recorded,
    };

    /// The kernels of the matrix, with the hook that is the cheapest there.
    fn recorded_with_hooks() -> impl Iterator<Item = (KernelFacts, Hook)> {
        let hooks = [Hook::Kprobe, Hook::Fentry, Hook::Fentry, Hook::Fentry];
        recorded::all().zip(hooks)
    }

    /// A kernel that has all.
    fn capable() -> KernelFacts {
        recorded::newest()
    }

    fn plan(facts: &KernelFacts) -> Plan {
        match support(facts) {
            Support::Yes(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn hooks(plan: &Plan) -> Vec<Vec<Hook>> {
        let candidates = |probe: &PlannedProbe| {
            let hooks = probe.candidates.iter().map(|candidate| candidate.hook);
            let mut hooks: Vec<_> = hooks.collect();
            hooks.dedup();
            hooks
        };
        plan.probes.iter().map(candidates).collect()
    }

    /// All that is said to be missing.
    fn reasons(plan: &Plan) -> String {
        let missing = plan.probes.iter().flat_map(|probe| &probe.missing);
        format!("{:?}", missing.collect::<Vec<_>>())
    }

    #[test]
    fn every_recorded_kernel_has_its_cheapest_hook_and_all_offsets() {
        for (facts, hook) in recorded_with_hooks() {
            let plan = plan(&facts);
            assert!(
                plan.offsets.is_some(),
                "{}: {}",
                facts.release,
                reasons(&plan)
            );
            for hooks in hooks(&plan) {
                assert_eq!(
                    hooks.first(),
                    Some(&hook),
                    "{}: {}",
                    facts.release,
                    reasons(&plan)
                );
            }
        }
    }

    #[test]
    fn a_capable_kernel_misses_nothing() {
        let plan = plan(&capable());
        for probe in &plan.probes {
            assert_eq!(probe.report(Some(Hook::Fentry), Vec::new()).missing, []);
        }
        assert_eq!(plan.hz, Ok(250));
        assert_eq!(plan.scans, Ok(Scans::WhileLoaded));
    }

    #[test]
    fn a_missing_member_is_named_and_no_probe_is_planned_without_it() {
        for member in NEEDS.members {
            let mut facts = capable();
            let why = "the structure has no such member".to_owned();
            facts
                .members
                .insert(member.path.to_owned(), Fact::Unknown(why));
            let plan = plan(&facts);
            assert_eq!(plan.offsets, None);
            assert!(hooks(&plan).iter().all(Vec::is_empty), "{member:?}");
            assert!(reasons(&plan).contains(member.path), "{}", reasons(&plan));
        }
    }

    #[test]
    fn a_member_of_another_size_is_refused() {
        let mut facts = capable();
        let member = Fact::Known(Member { offset: 8, size: 8 });
        facts.members.insert("nf_conn.timeout".to_owned(), member);
        let plan = plan(&facts);
        assert_eq!(plan.offsets, None);
        assert!(
            reasons(&plan).contains("has 8 bytes here"),
            "{}",
            reasons(&plan)
        );
    }

    #[test]
    fn members_of_an_entry_that_the_probes_cannot_read_at_once_are_refused() {
        let with_status_at = |offset| {
            let mut facts = capable();
            let member = Fact::Known(Member { offset, size: 8 });
            facts.members.insert("nf_conn.status".to_owned(), member);
            plan(&facts)
        };
        // The expiry lies at 8 on every recorded kernel.
        let last = 8 + ENTRY_WORDS as u32 * 8 - 8;
        assert_eq!(
            with_status_at(last).offsets.map(|all| all.ct.status),
            Some(last - 8)
        );
        for out_of_reach in [last + 8, 132] {
            let plan = with_status_at(out_of_reach);
            assert_eq!(plan.offsets, None);
            for wanted in ["nf_conn.status", &format!("at offset {out_of_reach} here")] {
                assert!(reasons(&plan).contains(wanted), "{}", reasons(&plan));
            }
        }
    }

    #[test]
    fn without_btf_of_a_function_its_probe_falls_back_to_kprobes_and_says_so() {
        for (function, probe) in [
            ("early_drop", 0),
            ("nf_ct_delete", 1),
            ("nf_ct_resolve_clash", 2),
        ] {
            let mut facts = capable();
            let known = facts.functions.get_mut(function).expect("it is needed");
            known.btf = Fact::Unknown("the BTF has no such function".to_owned());
            let plan = plan(&facts);
            assert_eq!(hooks(&plan)[probe], [Hook::Kprobe], "{function}");
            assert!(reasons(&plan).contains(function), "{}", reasons(&plan));
        }
    }

    #[test]
    fn a_function_that_the_compiler_has_split_is_not_probed() {
        let mut facts = capable();
        let known = facts.functions.get_mut("early_drop").expect("it is needed");
        known.symbol = Fact::Known(Symbol::Split);
        let plan = plan(&facts);
        assert_eq!(hooks(&plan)[0], []);
        assert!(
            reasons(&plan).contains("has split it"),
            "{}",
            reasons(&plan)
        );
    }

    #[test]
    fn a_function_under_another_name_is_told_and_used_where_its_arguments_are_in_place() {
        let with = |function: &str, name: &str| {
            let mut facts = capable();
            facts
                .program_types
                .insert(ProgramType::Tracing, Fact::Known(false));
            let known = facts.functions.get_mut(function).expect("it is needed");
            known.symbol = Fact::Known(Symbol::Renamed(name.to_owned()));
            plan(&facts)
        };
        let lto = with("early_drop", "early_drop.llvm.1122334455");
        assert_eq!(hooks(&lto)[0], [Hook::Kprobe]);
        let taken_apart = with("early_drop", "early_drop.isra.0");
        assert_eq!(hooks(&taken_apart)[0], []);
        assert!(reasons(&taken_apart).contains("another name, early_drop.isra.0"));
        // Of this one the return alone is probed.
        let copied = with("nf_ct_resolve_clash", "nf_ct_resolve_clash.constprop.0");
        assert_eq!(copied.probes[2].candidates.len(), 2, "{}", reasons(&copied));
    }

    #[test]
    fn without_btf_and_symbol_a_probe_has_no_hook_and_the_others_keep_theirs() {
        let mut facts = capable();
        let known = facts.functions.get_mut("early_drop").expect("it is needed");
        known.btf = Fact::Unknown("inlined".to_owned());
        known.symbol = Fact::Known(Symbol::Absent);
        let plan = plan(&facts);
        assert_eq!(hooks(&plan)[0], []);
        assert_eq!(hooks(&plan)[1].first(), Some(&Hook::Fentry));
    }

    /// On a kernel whose perf events are open to CAP_PERFMON.
    fn with_capabilities(names: &[&str]) -> KernelFacts {
        let mut facts = capable();
        let held = facts
            .capabilities
            .known()
            .expect("recorded")
            .keys()
            .cloned();
        let held = held.map(|name| (name.clone(), names.contains(&name.as_str())));
        facts.capabilities = Fact::Known(held.collect());
        facts.perf_event_paranoid = Fact::Known(2);
        facts
    }

    #[test]
    fn perfmon_is_not_enough_where_perf_events_are_closed() {
        let mut facts = with_capabilities(&["CAP_BPF", "CAP_PERFMON"]);
        facts.perf_event_paranoid = Fact::Known(3);
        let plan = plan(&facts);
        assert!(hooks(&plan).iter().all(Vec::is_empty));
        assert!(
            reasons(&plan).contains("perf_event_paranoid is 3"),
            "{}",
            reasons(&plan)
        );
    }

    #[test]
    fn bpf_and_perfmon_are_enough_for_kprobes_but_not_for_a_modules_functions() {
        let plan = plan(&with_capabilities(&[
            "CAP_BPF",
            "CAP_PERFMON",
            "CAP_NET_ADMIN",
        ]));
        assert!(
            hooks(&plan).iter().all(|hooks| *hooks == [Hook::Kprobe]),
            "{:?}",
            hooks(&plan)
        );
        assert!(
            reasons(&plan).contains("CAP_SYS_ADMIN"),
            "{}",
            reasons(&plan)
        );
        assert_eq!(plan.scans, Ok(Scans::WhileLoaded));
    }

    #[test]
    fn each_missing_capability_is_named() {
        for missing in ["CAP_BPF", "CAP_PERFMON"] {
            let all = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];
            let held: Vec<_> = all.into_iter().filter(|name| *name != missing).collect();
            let plan = plan(&with_capabilities(&held));
            assert!(hooks(&plan).iter().all(Vec::is_empty));
            assert!(reasons(&plan).contains(missing), "{}", reasons(&plan));
        }
        let scans = plan(&with_capabilities(&["CAP_SYS_ADMIN"])).scans;
        assert!(scans.is_err_and(|missing| missing.why.contains("CAP_NET_ADMIN")));
    }

    #[test]
    fn a_locked_down_kernel_is_called_so() {
        let mut facts = capable();
        facts.lockdown = Fact::Known("confidentiality".to_owned());
        for program_type in [ProgramType::Tracing, ProgramType::Kprobe] {
            facts.program_types.insert(program_type, Fact::Known(false));
        }
        let plan = plan(&facts);
        assert!(hooks(&plan).iter().all(Vec::is_empty));
        assert!(
            reasons(&plan).contains("locked down to confidentiality: it refuses them"),
            "{}",
            reasons(&plan)
        );
    }

    #[test]
    fn a_kernel_without_kprobes_keeps_fentry() {
        let mut facts = capable();
        facts.kprobes = Fact::Known(false);
        let fentry = hooks(&plan(&facts));
        assert!(fentry.iter().all(|hooks| *hooks == [Hook::Fentry]));
        facts
            .program_types
            .insert(ProgramType::Tracing, Fact::Known(false));
        let plan = plan(&facts);
        assert!(
            reasons(&plan).contains("CONFIG_KPROBE_EVENTS"),
            "{}",
            reasons(&plan)
        );
    }

    #[test]
    fn an_unknown_jiffy_costs_the_idle_time_alone() {
        let mut facts = capable();
        facts.hz = Fact::Unknown("the coarse clock claims a resolution of 0".to_owned());
        let plan = plan(&facts);
        assert!(
            plan.hz
                .is_err_and(|missing| missing.why.contains("coarse clock"))
        );
        assert!(plan.offsets.is_some());
    }
}
