//! Counters: in all, by flow and by client.

use aya_ebpf::{macros::map, maps::LruHashMap};
use ebpf::{
    ipvs_conn_reuse::{
        Client, ClientCounts, DELAY_UNIT_NS, Flow, FlowCounts, IpvsSettings, Loss, Outcome, Reason,
        SynCounts, Totals, Tuple,
    },
    shared::{PerCpu, add_atomic, get_or_insert, histogram::Histogram},
};

use super::connection::Connection;

#[map]
pub(crate) static TOTALS: PerCpu<Totals> = PerCpu::new();

/// The agent sets the size of this map and of the next.
#[map]
static FLOWS: LruHashMap<Flow, FlowCounts> = LruHashMap::with_max_entries(1, 0);

#[map]
static CLIENTS: LruHashMap<Client, ClientCounts> = LruHashMap::with_max_entries(1, 0);

const NO_SYNS: SynCounts = [0; Outcome::ALL.len()];

/// Counts a SYN in all, for its flow and for its client. By the numbers of an [`Outcome`] and
/// a [`Reason`].
#[inline(always)]
pub(super) fn count(outcome: u32, reason: u32, flow: &Flow, tuple: &Tuple, settings: IpvsSettings) {
    let (outcome, reason) = (outcome as usize, reason as usize);
    if outcome >= Outcome::ALL.len() || reason >= Reason::ALL.len() {
        return;
    }
    if let Some(totals) = TOTALS.get() {
        // SAFETY: a value of the map. Several programs count here, so atomically.
        unsafe { add_atomic(&raw mut (*totals).syns[outcome][reason], 1) };
    }
    count_flow(outcome, flow, settings);
    let client = Client {
        netns: tuple.netns,
        family: tuple.family,
        unused: 0,
        address: tuple.client,
    };
    count_client(outcome, &client);
}

#[inline(always)]
fn count_flow(outcome: usize, flow: &Flow, settings: IpvsSettings) {
    let nothing = || FlowCounts {
        syns: NO_SYNS,
        new_destination: [0; 16],
        new_family: 0,
        new_port: 0,
        settings,
    };
    let Some(sum) = get_or_insert(&FLOWS, flow, nothing) else {
        TOTALS.lost(Loss::Name, 1);
        return;
    };
    // SAFETY: a value of the map.
    unsafe {
        add_atomic(&raw mut (*sum).syns[outcome], 1);
        (*sum).settings = settings;
    }
}

#[inline(always)]
fn count_client(outcome: usize, client: &Client) {
    let Some(sum) = get_or_insert(&CLIENTS, client, || ClientCounts { syns: NO_SYNS }) else {
        TOTALS.lost(Loss::Name, 1);
        return;
    };
    // SAFETY: a value of the map.
    unsafe { add_atomic(&raw mut (*sum).syns[outcome], 1) };
}

/// Counts the time from a client's first dropped SYN to its new connection, nanoseconds.
/// Only the program at the return of `ip_vs_schedule` may call it.
#[inline(always)]
pub(super) fn count_delay(ns: u64) {
    if let Some(totals) = TOTALS.get() {
        // SAFETY: this CPU's own value. One program writes the field, and the kernel does not
        // enter it again on a CPU where it is running.
        unsafe { Histogram::record(&raw mut (*totals).delays, ns, DELAY_UNIT_NS) };
    }
}

/// Notes where a new connection of a client of the flow goes. Two CPUs may write at the
/// same time, and leave a mixture of both: it is shown to people, and nothing depends on it.
#[inline(always)]
pub(super) fn name_new_destination(flow: &Flow, connection: Connection) -> Result<(), i32> {
    let new = connection.endpoint()?;
    if let Some(sum) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: a value of the map.
        unsafe {
            (*sum).new_destination = new.address;
            (*sum).new_family = u16::from(new.family);
            (*sum).new_port = new.port;
        }
    }
    Ok(())
}
