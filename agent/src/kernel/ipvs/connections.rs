//! The connections of IPVS as procfs lists them, one at a time: a node can have hundreds
//! of thousands.

use std::{
    io::{self, BufRead},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use super::{LINES_A_LOOK, read_list};

/// A protocol that IPVS keeps connections of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP: what IPVS calls a connection is a client's port and where its datagrams go.
    Udp,
}

impl Protocol {
    /// As procfs calls it (`ip_vs_proto_name`, ip_vs_core.c).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A connection of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: SocketAddr,
    /// Virtual address and port.
    pub service: SocketAddr,
    /// The destination that it leads to.
    pub destination: SocketAddr,
    /// How far it is; of UDP always [`State::Other`].
    pub state: State,
    /// When IPVS expires it without another packet, seconds from now.
    pub expires: u64,
}

/// How far a connection is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server has sent a FIN.
    FinWait,
    /// Both sides have.
    TimeWait,
    /// One side has reset it.
    Close,
    /// Any other.
    Other,
}

impl State {
    /// As procfs calls it (net/netfilter/ipvs/ip_vs_proto_tcp.c, `tcp_state_name_table`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::Other => "another",
        }
    }
}

/// Goes through the connections of a protocol in the network namespace of a process,
/// `thread-self` for that of the calling thread, until `each` returns false. Nothing where there
/// is no IPVS.
///
/// # Errors
///
/// Where the list cannot be read, or takes longer than `until`.
pub fn connections(
    process: &str,
    protocol: Protocol,
    until: Option<Instant>,
    each: impl FnMut(Connection) -> bool,
) -> io::Result<()> {
    let parse = |lines| list(lines, protocol, until, each);
    read_list(process, "ip_vs_conn", parse).map(Option::unwrap_or_default)
}

pub(super) fn list(
    mut lines: impl BufRead,
    protocol: Protocol,
    until: Option<Instant>,
    mut each: impl FnMut(Connection) -> bool,
) -> io::Result<()> {
    let mut line = String::new();
    let mut read = 0;
    while lines.read_line(&mut line)? > 0 {
        read += 1;
        if read % LINES_A_LOOK == 0 {
            in_time(until)?;
        }
        // The head, other protocols, and templates, which are no connections.
        if let Some(connection) = parse(&line, protocol)
            && !each(connection)
        {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// An error where it is later.
pub(super) fn in_time(until: Option<Instant>) -> io::Result<()> {
    if until.is_some_and(|until| Instant::now() > until) {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "reading takes longer than scan_timeout",
        ));
    }
    Ok(())
}

/// `TCP 0A010002 4E20 0A600001 1F40 0A030002 1B58 CLOSE             9`
fn parse(line: &str, protocol: Protocol) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace();
    if fields.next() != Some(protocol.name()) {
        return None;
    }
    let mut end = || {
        Some(SocketAddr::new(
            address(fields.next()?)?,
            port(fields.next()?)?,
        ))
    };
    let (client, service, destination) = (end()?, end()?, end()?);
    if client.port() == 0 {
        return None;
    }
    let state = match fields.next()? {
        "FIN_WAIT" => State::FinWait,
        "TIME_WAIT" => State::TimeWait,
        "CLOSE" => State::Close,
        _ => State::Other,
    };
    Some(Connection {
        client,
        service,
        destination,
        state,
        expires: fields.next()?.parse().ok()?,
    })
}

/// IPv4 in hexadecimal, the first part first; IPv6 as usual.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok().map(IpAddr::V6);
    }
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(Ipv4Addr::from(number).into())
}

pub(super) fn port(text: &str) -> Option<u16> {
    u16::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIST: &str = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A010002 4E20 0A600001 1F40 0A030002 1B58 CLOSE             9
UDP 0A010002 4E20 0A600001 0035 0A030002 0035 UDP             299
TCP 0A010002 0000 0A600001 1F40 0A030002 1B58 NONE             59
TCP fd00:0001:0000:0000:0000:0000:0000:0002 4E21 fd00:0096:0000:0000:0000:0000:0000:0001 1F40 fd00:0003:0000:0000:0000:0000:0000:0002 1B58 TIME_WAIT       119
TCP 0A010002 4E22 0A600001 1F40 0A030002 1B58 ESTABLISHED     899
TCP torn
";

    fn all(text: &str, protocol: Protocol) -> Vec<Connection> {
        let mut all = Vec::new();
        list(text.as_bytes(), protocol, None, |connection| {
            all.push(connection);
            true
        })
        .expect("a slice cannot fail to read");
        all
    }

    #[test]
    fn connections_of_both_families_are_read_and_nothing_else() {
        let all = all(LIST, Protocol::Tcp);
        let first = Connection {
            client: "10.1.0.2:20000".parse().unwrap(),
            service: "10.96.0.1:8000".parse().unwrap(),
            destination: "10.3.0.2:7000".parse().unwrap(),
            state: State::Close,
            expires: 9,
        };
        assert_eq!(all[0], first);
        let second = ("[fd00:1::2]:20001".parse().unwrap(), State::TimeWait);
        assert_eq!((all[1].client, all[1].state), second);
        assert_eq!((all.len(), all[2].state), (3, State::Other));
    }

    #[test]
    fn flows_of_udp_are_read_by_themselves() {
        let all = all(LIST, Protocol::Udp);
        let client = "10.1.0.2:20000".parse().unwrap();
        assert_eq!((all.len(), all[0].client, all[0].expires), (1, client, 299));
    }

    #[test]
    fn a_list_that_takes_too_long_is_an_error() {
        let long = LIST.repeat(LINES_A_LOOK);
        let now = Instant::now();
        let read = |until| list(long.as_bytes(), Protocol::Udp, Some(until), |_| true);
        let late = read(now - Duration::from_secs(1)).expect_err("it is late");
        assert!(late.to_string().contains("scan_timeout"), "{late}");
        assert!(read(now + Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn whoever_has_seen_enough_is_shown_no_more() {
        let mut seen = 0;
        list(LIST.as_bytes(), Protocol::Tcp, None, |_| {
            seen += 1;
            false
        })
        .expect("a slice cannot fail to read");
        assert_eq!(seen, 1);
    }
}
