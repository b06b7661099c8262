//! The UDP services of a network namespace, and what became of the destinations of flows.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    net::SocketAddr,
    time::Instant,
};

use super::{
    DESTINATION, HEADER_LINES, LINES_A_LOOK,
    connections::{Protocol, in_time},
    drained::end,
    is_drained, read_list,
};

/// What became of the destination of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its service has it, with a weight.
    Serving,
    /// Its weight is 0. `translated`: answers pass IPVS, as they do where packets are masqueraded.
    Drained {
        /// See above.
        translated: bool,
    },
    /// Its service does not have it, or is gone.
    Removed,
    /// The service of the flow is not listed, and one by firewall mark may be its.
    Unknown,
}

/// The UDP services of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpServices {
    /// The destinations of each service.
    services: BTreeMap<SocketAddr, BTreeMap<SocketAddr, Fate>>,
    /// Whether there are services by firewall mark.
    has_marks: bool,
}

impl UdpServices {
    /// Those of the namespace of a process; none where there is no IPVS.
    ///
    /// # Errors
    ///
    /// Where the list cannot be read, or takes longer than `until`.
    pub fn read(process: &str, until: Instant) -> io::Result<Self> {
        let services = read_list(process, "ip_vs", |lines| parse(lines, until))?;
        Ok(services.unwrap_or_default())
    }

    /// What became of the destination of a flow. A service or a destination with port 0 stands
    /// for all ports (`ip_vs_service_find` and `ip_vs_find_dest`, ip_vs_ctl.c).
    pub fn fate(&self, service: SocketAddr, destination: SocketAddr) -> Fate {
        let any_port = |of: SocketAddr| SocketAddr::new(of.ip(), 0);
        let services = [service, any_port(service)];
        let Some(destinations) = services.iter().find_map(|it| self.services.get(it)) else {
            return if self.has_marks {
                Fate::Unknown
            } else {
                Fate::Removed
            };
        };
        let ends = [destination, any_port(destination)];
        let found = ends.iter().find_map(|it| destinations.get(it));
        found.copied().unwrap_or(Fate::Removed)
    }
}

pub(super) fn parse(lines: impl BufRead, until: Instant) -> io::Result<UdpServices> {
    let mut all = UdpServices::default();
    let mut service = None;
    for (number, line) in lines.lines().enumerate().skip(HEADER_LINES) {
        let line = line?;
        match line.strip_prefix(DESTINATION) {
            None => {
                all.has_marks |= line.starts_with("FWM");
                service = line.strip_prefix(Protocol::Udp.name()).and_then(end);
                if let Some(service) = service {
                    all.services.entry(service).or_default();
                }
            }
            Some(line) => {
                if let (Some(service), Some(destination)) = (service, end(line)) {
                    let destinations = all.services.entry(service).or_default();
                    destinations.insert(destination, fate_of(line));
                }
            }
        }
        if number % LINES_A_LOOK == 0 {
            in_time(Some(until))?;
        }
    }
    Ok(all)
}

fn fate_of(destination: &str) -> Fate {
    if is_drained(destination) {
        let forward = destination.split_ascii_whitespace().nth(1);
        Fate::Drained {
            translated: forward == Some("Masq"),
        }
    } else {
        Fate::Serving
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIST: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0035 rr
  -> 0A000002:0035      Masq    0      0          12
UDP  0A600001:0035 rr
  -> 0A000002:0035      Masq    1      0          12
  -> 0A000003:0035      Masq    0      0          3
  -> 0A000004:0035      Route   0      0          3
UDP  0A600002:0000 rr persistent 10800
  -> 0A000002:0000      Masq    1      0          12
";

    fn read(list: &str) -> UdpServices {
        let soon = Instant::now() + Duration::from_secs(60);
        parse(list.as_bytes(), soon).expect("a slice cannot fail to read")
    }

    fn fate(list: &str, service: &str, destination: &str) -> Fate {
        let at = |text: &str| text.parse().expect("an address");
        read(list).fate(at(service), at(destination))
    }

    #[test]
    fn each_destination_has_its_fate() {
        let of = |destination| fate(LIST, "10.96.0.1:53", destination);
        assert_eq!(of("10.0.0.2:53"), Fate::Serving);
        assert_eq!(of("10.0.0.3:53"), Fate::Drained { translated: true });
        assert_eq!(of("10.0.0.4:53"), Fate::Drained { translated: false });
        assert_eq!(of("10.0.0.5:53"), Fate::Removed);
    }

    #[test]
    fn port_0_stands_for_all_ports() {
        assert_eq!(fate(LIST, "10.96.0.2:514", "10.0.0.2:514"), Fate::Serving);
        assert_eq!(fate(LIST, "10.96.0.2:514", "10.0.0.9:514"), Fate::Removed);
    }

    #[test]
    fn a_service_that_is_gone_has_removed_all_unless_a_mark_may_stand_for_it() {
        let gone = |list: &str| fate(list, "10.96.0.9:53", "10.0.0.2:53");
        assert_eq!(gone(LIST), Fate::Removed);
        assert_eq!(gone(&format!("{LIST}FWM  00000007 rr\n")), Fate::Unknown);
    }
}
