//! The addresses of this network namespace by which others know the node.

use std::{fs, io, net::IpAddr, path::Path};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// Interfaces that have the addresses of services, the same ones on every node: of kube-proxy
/// (pkg/proxy/ipvs, `defaultDummyDevice`), kube-router and NodeLocal DNSCache.
const OF_SERVICES: [&str; 3] = ["kube-ipvs0", "kube-dummy-if", "nodelocaldns"];

/// The addresses that only this node has, sorted: no loopback, no link-local address, none
/// of services, and none of a bridge that containers or VMs alone are on (docker0, virbr0), which
/// has the same address on every node.
///
/// # Errors
///
/// Where the kernel does not list them.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let is_of_node = |(name, address): &(String, IpAddr)| {
        is_global(*address) && !OF_SERVICES.contains(&name.as_str()) && !is_inner_bridge(name)
    };
    let of_node = all()?.filter(is_of_node);
    let mut found: Vec<_> = of_node.map(|(_, address)| address).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Each address with the name of its interface.
fn all() -> io::Result<impl Iterator<Item = (String, IpAddr)>> {
    let listed = getifaddrs()?;
    Ok(listed.filter_map(|it| Some((it.interface_name, ip(&it.address?)?))))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| it.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
}

/// Whether others can mean this node by it.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !it.is_loopback() && !it.is_link_local() && !it.is_unspecified(),
        IpAddr::V6(it) => !it.is_loopback() && !it.is_unicast_link_local() && !it.is_unspecified(),
    }
}

/// Whether it is a bridge without a way out: no device is on it, and no default route is through
/// it. One to which the node's own interface belongs (vmbr0, br-ex) has one or the other.
fn is_inner_bridge(name: &str) -> bool {
    let class = Path::new("/sys/class/net");
    let Ok(ports) = fs::read_dir(class.join(name).join("brif")) else {
        return false;
    };
    let is_device = |port: fs::DirEntry| class.join(port.file_name()).join("device").exists();
    !ports.flatten().any(is_device) && !has_default_route(name)
}

fn has_default_route(name: &str) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    is_default(&read("/proc/self/net/route"), name)
        || is_default_6(&read("/proc/self/net/ipv6_route"), name)
}

/// Whether a line is interface, destination 0, five more, mask 0 (net/ipv4/fib_trie.c,
/// `fib_route_seq_show`).
fn is_default(table: &str, name: &str) -> bool {
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of_name = lines.filter(|fields| fields.first() == Some(&name));
    of_name.any(|fields| [1, 7].map(|at| fields.get(at)) == [Some(&"00000000"); 2])
}

/// Whether a line is destination 0, its length 0, and more up to the interface
/// (net/ipv6/route.c, `rt6_info_route`). Those by way of lo reject.
fn is_default_6(table: &str, name: &str) -> bool {
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of_name = lines.filter(|fields| fields.last() == Some(&name));
    of_name
        .any(|fields| fields[0].bytes().all(|digit| digit == b'0') && fields.get(1) == Some(&"00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_mean_is_listed() {
        for (text, is) in [
            ("10.0.0.7", true),
            ("2001:db8::7", true),
            ("fd00::7", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.20.10", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_global(text.parse().unwrap()), is, "{text}");
        }
        let listed = addresses().unwrap();
        assert!(
            listed.iter().all(|address| is_global(*address)),
            "{listed:?}"
        );
    }

    #[test]
    fn the_way_out_is_through_one_interface() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            br-ex\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert!(is_default(routes, "br-ex"));
        assert!(!is_default(routes, "docker0"));
        let zero = "0".repeat(32);
        let line = |to: &str, length, name| {
            format!("{to} {length} {zero} 00 {zero} 00000400 00000002 00000000 00000001 {name}\n")
        };
        let routes =
            line(&zero, "00", "br0") + &line("fd000000000000000000000000000000", "40", "br1");
        assert!(is_default_6(&routes, "br0"));
        assert!(!is_default_6(&routes, "br1"));
        assert!(!is_default("", "br0") && !is_default_6("", "br0"));
    }

    #[test]
    fn every_address_of_the_kernel_is_read() {
        let found: Vec<_> = all().unwrap().collect();
        let loopback = ("lo".to_owned(), IpAddr::from([127, 0, 0, 1]));
        assert!(found.contains(&loopback), "{found:?}");
    }
}
