//! IPVS as procfs lists it. Its virtual services are counted, not kept, for a node can
//! have tens of thousands; connections are gone through one by one.

mod connections;
mod drained;
mod udp;

pub use self::{
    connections::{Connection, Protocol, State, connections},
    drained::Services,
    udp::{Fate, UdpServices},
};

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead, BufReader},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Reading may take this part of the time, so that it costs half a percent of one CPU at
/// the most.
pub const SHARE: u32 = 200;

/// How often the clock is looked at.
const LINES_A_LOOK: usize = 1024;

/// Lines before the first service (net/netfilter/ipvs/ip_vs_ctl.c, `ip_vs_info_seq_show`).
const HEADER_LINES: usize = 3;

/// What a line of a destination begins with.
const DESTINATION: &str = "  -> ";

/// The services of one network namespace, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Virtual services: an address, port and protocol, or a firewall mark.
    pub services: u64,
    /// Destinations of all of them together.
    pub destinations: u64,
    /// Destinations of weight 0, which get no new connection.
    pub drained: u64,
    /// Destinations of UDP services among them.
    #[serde(default)]
    pub drained_udp: u64,
    /// UDP flows on those destinations.
    #[serde(default)]
    pub drained_udp_flows: u64,
    /// Differs where the UDP services have other destinations; says nothing else.
    #[serde(default)]
    pub udp_fingerprint: u64,
    /// Whether the list was read to its end.
    pub complete: bool,
}

/// Takes scans of namespaces when they are due, and keeps the last of each.
#[derive(Debug)]
pub struct Scanner {
    interval: Duration,
    limit: Duration,
    next: Instant,
    last: Vec<Namespace>,
}

/// A network namespace with its scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number, as in `/proc/<pid>/ns/net`.
    pub netns: u32,
    /// A process in it, by which an operator can enter it (`nsenter -t PID -n`).
    pub pid: u32,
    /// Its services.
    pub scan: Scan,
}

impl Scanner {
    /// Scans `interval` apart or more, each of which takes `limit` at the most.
    pub fn new(interval: Duration, limit: Duration) -> Self {
        Self {
            interval,
            limit,
            next: Instant::now(),
            last: Vec::new(),
        }
    }

    /// The namespaces that have services, as of the last scan; it is taken anew where it
    /// is due. The kernel scans its table from the begin for each page that is read, so a
    /// scan of a large one has to wait for longer.
    pub fn scan(&mut self, namespaces: impl Iterator<Item = (u32, u32)>) -> &[Namespace] {
        let began = Instant::now();
        if began < self.next {
            return &self.last;
        }
        let until = began + self.limit;
        let count = |(netns, pid): (u32, u32)| {
            let scan = scan_of(&pid.to_string(), until).ok()??;
            let namespace = Namespace { netns, pid, scan };
            (scan.services > 0).then_some(namespace)
        };
        self.last = namespaces.filter_map(count).collect();
        self.next = Instant::now() + self.interval.max(began.elapsed() * SHARE);
        &self.last
    }

    /// Makes the next scan due, as when something has changed.
    pub fn expire(&mut self) {
        self.next = Instant::now();
    }
}

/// Counts the services in the network namespace of a process, `self` for our own. `None`
/// where there is no IPVS.
///
/// # Errors
///
/// Where the list cannot be read.
pub fn scan_of(process: &str, until: Instant) -> io::Result<Option<Scan>> {
    read_list(process, "ip_vs", |lines| count(lines, until))
}

/// Reads a list of IPVS in the network namespace of a process. `None` where there is no IPVS.
///
/// # Errors
///
/// Where the list cannot be read; the error names it.
fn read_list<T>(
    process: &str,
    list: &str,
    parse: impl FnOnce(BufReader<File>) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let path = format!("/proc/{process}/net/{list}");
    let parsed = match File::open(&path) {
        Ok(file) => parse(BufReader::with_capacity(1 << 16, file)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    parsed.map_err(|error| io::Error::new(error.kind(), format!("read {path}: {error}")))
}

fn count(mut lines: impl BufRead, until: Instant) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut line = String::new();
    // The hash of a UDP service while its destinations are read.
    let mut udp_service = None;
    for number in 0.. {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            scan.complete = true;
            break;
        }
        if number < HEADER_LINES {
            continue;
        }
        match line.strip_prefix(DESTINATION) {
            None => {
                scan.services += 1;
                udp_service = line.strip_prefix("UDP").map(|it| hash_of(0, it));
            }
            Some(destination) => {
                scan.destinations += 1;
                let is_drained = is_drained(destination);
                scan.drained += u64::from(is_drained);
                if let Some(service) = udp_service {
                    // A sum, for the order in which the kernel lists them may change.
                    let more = hash_of(service, destination);
                    scan.udp_fingerprint = scan.udp_fingerprint.wrapping_add(more);
                    if is_drained {
                        scan.drained_udp += 1;
                        scan.drained_udp_flows += connections_at(destination);
                    }
                }
            }
        }
        if number % LINES_A_LOOK == 0 && Instant::now() > until {
            break;
        }
    }
    Ok(scan)
}

/// Of the address that a line begins with.
fn hash_of(seed: u64, line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, line.split_ascii_whitespace().next()).hash(&mut hasher);
    hasher.finish()
}

/// Active and inactive ones together; those of UDP are all inactive (`__ip_vs_update_dest`,
/// ip_vs_ctl.c), and both are an `atomic_t`.
fn connections_at(destination: &str) -> u64 {
    let counts = destination.split_ascii_whitespace().skip(3).take(2);
    counts
        .filter_map(|it| it.parse::<u32>().ok())
        .map(u64::from)
        .sum()
}

/// `address:port  forward  weight  active  inactive`
fn is_drained(destination: &str) -> bool {
    destination.split_ascii_whitespace().nth(2) == Some("0")
}

/// For fuzzing: lists of services and connections of IPVS.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "ipvs",
    read: |bytes| {
        let soon = Instant::now() + Duration::from_secs(60);
        let _ = count(bytes, soon);
        let _ = drained::parse(bytes);
        let _ = udp::parse(bytes, soon);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let _ = connections::list(bytes, protocol, None, |_| true);
        }
    },
    seeds: &[
        b"IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600000:0050 rr\n  -> 0A000000:0050      Masq    1      0          0\nUDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 wrr ops\n  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035      Masq    0      3          1\nFWM  00000001 rr\n",
        b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\nTCP 0A010002 4E20 0A600001 1F40 0A030002 1B58 CLOSE             9\nUDP 0A010002 4E20 0A600001 0035 0A030002 0035 UDP             299\n",
    ],
};

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
UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 wrr persistent 10800
  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035      Route   100    0          0
FWM  00000007 rr
";

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn services_and_destinations_of_every_kind_are_counted() {
        let scan = count(LIST.as_bytes(), soon()).expect("a slice cannot fail to read");
        let wanted = Scan {
            services: 3,
            destinations: 3,
            drained: 1,
            complete: true,
            udp_fingerprint: scan.udp_fingerprint,
            ..Scan::default()
        };
        assert_eq!(scan, wanted);
    }

    #[test]
    fn udp_flows_at_drained_destinations_are_counted_and_others_are_not() {
        let flows = |list: &str| {
            let scan = count(list.as_bytes(), soon()).expect("a slice cannot fail to read");
            (scan.drained_udp, scan.drained_udp_flows)
        };
        assert_eq!(flows(LIST), (0, 0));
        let drained = LIST.replace("Route   100    0          0", "Masq    0      0          7");
        assert_eq!(flows(&drained), (1, 7));
        // No count of the kernel, and too many for a sum.
        let damaged = "18446744073709551615 2 2 ".repeat(2);
        let damaged = LIST.replace("Route   100    0          0", &format!("Masq 0 {damaged}"));
        assert_eq!(flows(&damaged), (1, 2));
    }

    #[test]
    fn the_fingerprint_changes_with_the_destinations_of_udp_alone() {
        let of = |list: &str| {
            let scan = count(list.as_bytes(), soon()).expect("a slice cannot fail to read");
            scan.udp_fingerprint
        };
        let more = LIST.replace("Route   100    0          0", "Masq    0      0          7");
        assert_eq!(of(&more), of(LIST), "the same destination");
        assert_eq!(of(&LIST.replace("0A000003", "0A000009")), of(LIST));
        assert_ne!(of(&LIST.replace("0002]", "0009]")), of(LIST));
    }

    #[test]
    fn an_empty_list_has_no_service() {
        let headers: String = LIST.split_inclusive('\n').take(HEADER_LINES).collect();
        let scan = count(headers.as_bytes(), soon()).expect("a slice cannot fail to read");
        assert_eq!((scan.services, scan.complete), (0, true));
    }

    #[test]
    fn a_list_that_takes_too_long_is_said_to_be_incomplete() {
        let long = LIST.repeat(LINES_A_LOOK);
        let now = Instant::now();
        let scan = count(long.as_bytes(), now - Duration::from_secs(1))
            .expect("a slice cannot fail to read");
        assert!(!scan.complete);
        assert!(scan.services > 0);
    }

    #[test]
    fn a_process_that_is_gone_has_no_services() {
        assert_eq!(scan_of("0", soon()).expect("it is no error"), None);
    }
}
