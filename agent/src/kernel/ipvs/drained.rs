//! Which virtual services there are, and which of their destinations get no new
//! connection.

use std::{
    collections::BTreeSet,
    io::{self, BufRead},
    net::SocketAddr,
};

use super::{
    DESTINATION, HEADER_LINES,
    connections::{address, port},
    is_drained, read_list,
};

/// The TCP services of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Virtual addresses and ports.
    services: BTreeSet<SocketAddr>,
    /// Of a service and a destination of weight 0.
    drained: BTreeSet<(SocketAddr, SocketAddr)>,
}

impl Services {
    /// Those of the calling thread's namespace; none where there is no IPVS.
    ///
    /// # Errors
    ///
    /// Where the list cannot be read.
    pub fn read() -> io::Result<Self> {
        Ok(read_list("thread-self", "ip_vs", parse)?.unwrap_or_default())
    }

    /// Whether this is one of them. Those by firewall mark are not known.
    pub fn have(&self, service: SocketAddr) -> bool {
        self.services.contains(&service)
    }

    /// Whether a destination of a service is drained. One that is not listed is not known
    /// to be.
    pub fn is_drained(&self, service: SocketAddr, destination: SocketAddr) -> bool {
        self.drained.contains(&(service, destination))
    }
}

pub(super) fn parse(lines: impl BufRead) -> io::Result<Services> {
    let mut all = Services::default();
    let mut service = None;
    for line in lines.lines().skip(HEADER_LINES) {
        let line = line?;
        match line.strip_prefix(DESTINATION) {
            None => {
                service = line.strip_prefix("TCP").and_then(end);
                all.services.extend(service);
            }
            Some(destination) if is_drained(destination) => {
                all.drained.extend(service.zip(end(destination)));
            }
            Some(_) => {}
        }
    }
    Ok(all)
}

/// What a line begins with: `0A600001:0050` or `[fd00:…:0001]:0050`.
pub(super) fn end(text: &str) -> Option<SocketAddr> {
    let (ip, number) = text.split_ascii_whitespace().next()?.rsplit_once(':')?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddr::new(address(ip)?, port(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr
  -> 0A000002:0050      Masq    1      0          12
  -> 0A000003:0050      Masq    0      3          0
UDP  0A600002:0035 rr
  -> 0A000003:0035      Masq    0      3          0
TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 wrr persistent 10800
  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035      Route   0    0          0
FWM  00000007 rr
  -> 0A000004:0050      Masq    0      3          0
";

    #[test]
    fn drained_destinations_are_told_by_their_service() {
        let services = parse(LIST.as_bytes()).expect("a slice cannot fail to read");
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(services.have(at("10.96.0.1:80")));
        assert!(!services.have(at("10.96.0.2:53")), "it is of UDP");
        assert!(services.is_drained(at("10.96.0.1:80"), at("10.0.0.3:80")));
        assert!(!services.is_drained(at("10.96.0.1:80"), at("10.0.0.2:80")));
        assert!(!services.is_drained(at("10.96.0.2:53"), at("10.0.0.3:53")));
        assert!(services.is_drained(at("[fd00::1]:53"), at("[fd00::2]:53")));
        assert_eq!(services.drained.len(), 2);
    }
}
