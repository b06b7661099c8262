//! What a person can do against it, beside the treatments.

use ebpf::udp_conntrack::Refusal;

use super::measure::{DNS, Reading};

/// Advice for a table that fills or is full of idle entries.
pub(super) fn advice(reading: &Reading) -> Vec<String> {
    let dns = reading.dns_dominates().then(|| {
        "answer DNS on the node (NodeLocal DNSCache): the queries of its pods then need no entry"
            .to_owned()
    });
    dns.into_iter().collect()
}

/// Advice against packets that lose a race for an entry.
pub(super) fn against_clashes(reading: &Reading) -> Vec<String> {
    let lost = reading.probed.iter().flat_map(|it| &it.refused.flows);
    let mut lost = lost.filter(|flow| flow.refusal == Refusal::ClashLost.name());
    let known = lost.clone().next().is_some();
    let dns = !known || lost.any(|flow| flow.port == DNS);
    let translated = "where several sources are translated to one address: let NAT choose random \
                      ports, `iptables ... -j MASQUERADE --random-fully`, or `masquerade \
                      fully-random` of nft; kube-proxy does so where iptables has the option"
        .to_owned();
    let dns = dns.then_some([
        "for DNS: run a cache on the node (NodeLocal DNSCache), which asks upstream over TCP and \
         needs no translation",
        "for DNS of glibc: set `options single-request-reopen` in the pods' resolv.conf \
         (dnsConfig), so that A and AAAA do not leave one socket at once",
    ]);
    let dns = dns.into_iter().flatten().map(str::to_owned);
    std::iter::once(translated).chain(dns).collect()
}
