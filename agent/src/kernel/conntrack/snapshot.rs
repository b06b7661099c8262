//! A snapshot of the table through ctnetlink: what its entries are, not only how
//! many. It scans every entry, so it is bounded in time and taken rarely.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, conntrack::ConntrackMessage,
};
use serde::{Deserialize, Serialize};

use super::ctnetlink::{invalid, open, packet};

/// The kernel fills a buffer of this size at each call (include/linux/netlink.h,
/// `NLMSG_GOODSIZE` and up to 32 KiB where the reader has room).
const BUFFER: usize = 32 * 1024;

/// Sources that are told apart; all further ones are counted together.
const MAX_SOURCES: usize = 16 * 1024;

/// Culprits that a snapshot names.
const TOP: usize = 10;

// Attributes of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;
const IPPROTO_UDP: u8 = 17;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nfgenmsg` before the attributes.
const NFGENMSG: usize = 4;

/// What the entries of the table are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// UDP entries by state.
    pub udp: TableState,
    /// Entries of other protocols by state.
    pub other: TableState,
    /// UDP entries by destination port, most first.
    pub udp_ports: Vec<(u16, u64)>,
    /// UDP entries by source, most first.
    pub udp_sources: Vec<(IpAddr, u64)>,
    /// Wall time that the scan took, seconds.
    pub seconds: f64,
    /// False where the time was up before the end of the table.
    pub complete: bool,
}

/// Entries by what their flow has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// Nothing came back yet.
    pub unreplied: u64,
    /// An answer came.
    pub replied: u64,
    /// Kept longer, and never pushed out.
    pub assured: u64,
}

impl TableState {
    /// All of them.
    pub fn total(self) -> u64 {
        self.unreplied + self.replied + self.assured
    }
}

/// Scans the table of this network namespace, for at most `limit`.
///
/// The caller makes sure that `nf_conntrack_netlink` is there: asking for it would
/// load the module, and the agent changes nothing unasked.
///
/// # Errors
///
/// Where the socket fails or the kernel refuses the dump (it wants CAP_NET_ADMIN).
pub fn snapshot(limit: Duration) -> io::Result<Snapshot> {
    let begin = Instant::now();
    let socket = open()?;
    socket.send(&request(), 0)?;
    let mut count = Count::default();
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut complete = false;
    while !complete && begin.elapsed() < limit {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        complete = count.messages(&buffer)?;
    }
    Ok(count.finish(begin.elapsed(), complete))
}

fn request() -> Vec<u8> {
    let message = NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        ConntrackMessage::Get(Vec::new()),
    );
    packet(message, NLM_F_REQUEST | NLM_F_DUMP, 0)
}

#[derive(Default)]
struct Count {
    udp: TableState,
    other: TableState,
    ports: BTreeMap<u16, u64>,
    sources: HashMap<IpAddr, u64>,
}

/// The attributes of an entry that matter here.
#[derive(Default)]
struct Entry {
    protocol: u8,
    port: u16,
    source: Option<IpAddr>,
    status: u32,
}

impl Count {
    /// Counts the messages of one datagram; true at the end of the dump.
    fn messages(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let message = NetlinkBuffer::new_checked(bytes).map_err(invalid)?;
            match message.message_type() {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(refusal(message.payload())),
                _ => self.entry(&entry(message.payload())?),
            }
            // Messages are aligned to four bytes; the last may end without padding.
            let length = (message.length() as usize)
                .next_multiple_of(4)
                .min(bytes.len());
            bytes = &bytes[length..];
        }
        Ok(false)
    }

    fn entry(&mut self, entry: &Entry) {
        let udp = entry.protocol == IPPROTO_UDP;
        let table = if udp { &mut self.udp } else { &mut self.other };
        if entry.status & IPS_ASSURED != 0 {
            table.assured += 1;
        } else if entry.status & IPS_SEEN_REPLY != 0 {
            table.replied += 1;
        } else {
            table.unreplied += 1;
        }
        if udp {
            *self.ports.entry(entry.port).or_default() += 1;
            if let Some(source) = entry.source
                && (self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source))
            {
                *self.sources.entry(source).or_default() += 1;
            }
        }
    }

    fn finish(self, took: Duration, complete: bool) -> Snapshot {
        Snapshot {
            udp: self.udp,
            other: self.other,
            udp_ports: top(self.ports),
            udp_sources: top(self.sources),
            seconds: took.as_secs_f64(),
            complete,
        }
    }
}

fn top<K: Ord>(counts: impl IntoIterator<Item = (K, u64)>) -> Vec<(K, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    counts.truncate(TOP);
    counts
}

fn entry(payload: &[u8]) -> io::Result<Entry> {
    let attributes = payload
        .get(NFGENMSG..)
        .ok_or_else(|| invalid("a message without header"))?;
    let mut entry = Entry::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(invalid)?;
        match attribute.kind() {
            CTA_TUPLE_ORIG => tuple(attribute.value(), &mut entry)?,
            CTA_STATUS => entry.status = u32::from_be_bytes(bytes(attribute.value())?),
            _ => {}
        }
    }
    Ok(entry)
}

fn tuple(value: &[u8], entry: &mut Entry) -> io::Result<()> {
    for part in NlasIterator::new(value) {
        let part = part.map_err(invalid)?;
        for field in NlasIterator::new(part.value()) {
            let field = field.map_err(invalid)?;
            match (part.kind(), field.kind()) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC) => {
                    entry.source = Some(Ipv4Addr::from(bytes::<4>(field.value())?).into());
                }
                (CTA_TUPLE_IP, CTA_IP_V6_SRC) => {
                    entry.source = Some(Ipv6Addr::from(bytes::<16>(field.value())?).into());
                }
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => entry.protocol = bytes::<1>(field.value())?[0],
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                    entry.port = u16::from_be_bytes(bytes(field.value())?);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn bytes<const N: usize>(value: &[u8]) -> io::Result<[u8; N]> {
    value
        .try_into()
        .map_err(|_| invalid(format!("an attribute of {} bytes, not {N}", value.len())))
}

/// `struct nlmsgerr` begins with the negative error number.
fn refusal(payload: &[u8]) -> io::Error {
    match payload
        .first_chunk::<4>()
        .map(|code| i32::from_ne_bytes(*code))
    {
        Some(code) => io::Error::from_raw_os_error(code.wrapping_neg()),
        None => invalid("an error without a number"),
    }
}

/// For fuzzing: messages of ctnetlink.
#[cfg(any(test, fuzzing))]
pub(in crate::kernel) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "netlink",
    read: |bytes| {
        let _ = Count::default().messages(bytes);
        let _ = super::ctnetlink::read_entry(bytes);
    },
    seeds: &[
        b"\x5c\0\0\0\0\x01\x02\0\0\0\0\0\0\0\0\0\x02\0\0\0\x34\0\x01\x80\x14\0\x01\x80\x08\0\x01\0\x0a\x01\x02\x03\x08\0\x02\0\x0a\x60\0\x0a\x1c\0\x02\x80\x05\0\x01\0\x11\0\0\0\x06\0\x02\0\x80\0\0\0\x06\0\x03\0\0\x35\0\0\x08\0\x03\0\0\0\0\x08\x08\0\x07\0\0\0\0\x1e",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((payload.len() as u32 + 16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    fn udp_entry(source: [u8; 4], port: u16, status: u32) -> Vec<u8> {
        let ip = attribute(CTA_TUPLE_IP, &attribute(CTA_IP_V4_SRC, &source));
        let ports = [
            attribute(CTA_PROTO_NUM, &[IPPROTO_UDP]),
            attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes()),
        ];
        let proto = attribute(CTA_TUPLE_PROTO, &ports.concat());
        let payload = [
            vec![2, 0, 0, 0],
            attribute(CTA_TUPLE_ORIG, &[ip, proto].concat()),
            attribute(CTA_STATUS, &status.to_be_bytes()),
        ];
        message(0x100, &payload.concat())
    }

    #[test]
    fn entries_are_counted_by_state_port_and_source() {
        let dump = [
            udp_entry([10, 0, 0, 1], 53, 0b1000),
            udp_entry([10, 0, 0, 1], 53, 0b1010),
            udp_entry([10, 0, 0, 2], 443, 0b1110),
        ];
        let mut count = Count::default();
        assert!(!count.messages(&dump.concat()).expect("well formed"));
        assert!(
            count
                .messages(&message(NLMSG_DONE, &[0; 4]))
                .expect("well formed")
        );
        let snapshot = count.finish(Duration::from_millis(1), true);
        assert_eq!(
            snapshot.udp,
            TableState {
                unreplied: 1,
                replied: 1,
                assured: 1
            }
        );
        assert_eq!(snapshot.other.total(), 0);
        assert_eq!(snapshot.udp_ports, [(53, 2), (443, 1)]);
        assert_eq!(snapshot.udp_sources[0], (IpAddr::from([10, 0, 0, 1]), 2));
    }

    #[test]
    fn a_refusal_is_the_kernels_error_and_a_torn_answer_is_one_too() {
        let mut count = Count::default();
        let refused = count.messages(&message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes()));
        assert_eq!(
            refused.expect_err("EPERM").raw_os_error(),
            Some(libc::EPERM)
        );
        let whole = udp_entry([10, 0, 0, 1], 53, 0);
        assert!(count.messages(&whole[..whole.len() - 6]).is_err());
    }
}
