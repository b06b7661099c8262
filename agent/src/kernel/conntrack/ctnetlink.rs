//! Single TCP entries by way of ctnetlink, in the network namespace of the thread that
//! opens the channel.
//!
//! A request while `nf_conntrack_netlink` is absent would load it, so callers ask
//! [`is_there`] first.

use std::{io, net::SocketAddr, sync::OnceLock};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
        Protocol, TCPFlags, Tuple,
    },
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::tcp::{TcpEntry, TcpState, TcpTuple};
use crate::kernel::{facts::ModuleState, modules};

/// The module that answers.
const MODULE: &str = "nf_conntrack_netlink";

/// What to say where it is not there.
pub const MISSING: &str = "conntrack cannot be asked for single entries, as the module \
     nf_conntrack_netlink is not loaded, and nothing loads one unasked: modprobe \
     nf_conntrack_netlink";

/// A function of it.
const FUNCTION: &str = "ctnetlink_get_conntrack";

/// `IP_CT_TCP_FLAG_CLOSE_INIT` of include/uapi/linux/netfilter/nf_conntrack_tcp.h.
const CLOSE_INIT: u8 = 0x04;

/// More than one entry needs.
const BUFFER: usize = 4096;

/// Whether asking loads no module.
pub fn is_there() -> bool {
    // Whether it is part of the kernel image, which takes a while to find out and does
    // not change.
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    let built_in = || {
        let before = modules::stage(MODULE);
        let has_symbol = modules::has_function(FUNCTION);
        modules::state(MODULE, before, has_symbol) == ModuleState::BuiltIn
    };
    modules::instance(MODULE).is_some() || *BUILT_IN.get_or_init(built_in)
}

/// Asks for entries, and changes them.
pub struct Ctnetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Ctnetlink {
    /// A channel to the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Where there is no such socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open()?,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// The entry of a tuple, if there is one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses (it wants CAP_NET_ADMIN), or answers something else.
    pub fn find(&mut self, tuple: TcpTuple) -> io::Result<Option<TcpEntry>> {
        let get = ConntrackMessage::Get(vec![attribute(tuple)]);
        let answer = self.ask(tuple, get, NLM_F_REQUEST);
        unless_gone(answer.and_then(|answer| match answer {
            Some(message) => entry(&message).map(Some),
            None => Ok(None),
        }))
    }

    /// Makes an entry one that the next SYN of its client replaces: what it translates,
    /// and for whom, stays until then. False where it is gone already.
    ///
    /// The flag alone changes nothing for a connection that lives. A state that is not
    /// yet one of the last is set to `TIME_WAIT`, so the caller has to be sure that the
    /// connection is dead. Nobody can have replaced the entry since it was looked up: it
    /// is the very thing about those states that a SYN does not.
    ///
    /// # Errors
    ///
    /// As [`Self::find`].
    pub fn open_to_syns(&mut self, entry: &TcpEntry) -> io::Result<bool> {
        let flags = TCPFlags::parse(&[CLOSE_INIT, CLOSE_INIT]).map_err(invalid)?;
        let mut changes = vec![ProtoInfoTCP::OriginalFlags(flags)];
        if !matches!(entry.state, TcpState::TimeWait | TcpState::Close) {
            changes.push(ProtoInfoTCP::State(TcpState::TimeWait as u8));
        }
        let changes = ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(changes)]);
        let change = ConntrackMessage::New(vec![attribute(entry.tuple), changes]);
        // Without NLM_F_CREATE one that is gone is not made anew.
        let answer = self.ask(entry.tuple, change, NLM_F_REQUEST | NLM_F_ACK);
        Ok(unless_gone(answer.map(Some))?.is_some())
    }

    /// The answer to one request; none where it is an acknowledgement alone.
    fn ask(
        &mut self,
        tuple: TcpTuple,
        message: ConntrackMessage,
        flags: u16,
    ) -> io::Result<Option<NetfilterMessage>> {
        let family = match tuple.server {
            SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
            SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
        self.socket
            .send(&packet(message, flags, self.sequence), 0)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let answer = read_message(&self.buffer)?;
            // What is left of a request that was given up.
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                NetlinkPayload::Error(error) => match error.code {
                    None => Ok(None),
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                },
                other => Err(invalid(format!("{other:?}"))),
            };
        }
    }
}

impl std::fmt::Debug for Ctnetlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctnetlink").finish_non_exhaustive()
    }
}

/// A socket that speaks to the kernel.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A request as it is sent.
pub(super) fn packet(message: NetfilterMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes
}

/// A message of the kernel. Those of other subsystems than connection tracking are refused unread:
/// nobody has asked for them, and the library panics at some that are damaged.
pub(super) fn read_message(bytes: &[u8]) -> io::Result<NetlinkMessage<NetfilterMessage>> {
    let kind = NetlinkBuffer::new_checked(bytes)
        .map_err(invalid)?
        .message_type();
    let subsystem = i32::from(kind >> 8);
    if i32::from(kind) >= libc::NLMSG_MIN_TYPE && subsystem != libc::NFNL_SUBSYS_CTNETLINK {
        return Err(invalid(format!("a message of type {kind:#x}")));
    }
    NetlinkMessage::deserialize(bytes).map_err(invalid)
}

pub(super) fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("an answer of ctnetlink is malformed: {why}"),
    )
}

/// No such entry is an answer.
fn unless_gone<T>(answer: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => other,
    }
}

fn attribute(tuple: TcpTuple) -> ConntrackAttribute {
    let TcpTuple { client, server } = tuple;
    ConntrackAttribute::CtaTupleOrig(vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(client.ip()),
            IPTuple::DestinationAddress(server.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(client.port()),
            ProtoTuple::DestinationPort(server.port()),
        ]),
    ])
}

/// What a message of ctnetlink says of a TCP entry.
pub(super) fn entry(message: &NetfilterMessage) -> io::Result<TcpEntry> {
    let attributes = match &message.inner {
        NetfilterMessageInner::Conntrack(
            ConntrackMessage::New(attributes) | ConntrackMessage::Get(attributes),
        ) => attributes,
        other => return Err(invalid(format!("{other:?}"))),
    };
    let (mut tuple, mut state, mut flags) = (None, None, 0);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => tuple = tuple_of(parts),
            ConntrackAttribute::CtaProtoInfo(parts) => {
                for part in parts.iter().flat_map(of_tcp) {
                    match part {
                        ProtoInfoTCP::State(number) => state = TcpState::of(*number),
                        ProtoInfoTCP::OriginalFlags(more) | ProtoInfoTCP::ReplyFlags(more) => {
                            flags |= more.flags;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    match (tuple, state) {
        (Some(tuple), Some(state)) => Ok(TcpEntry {
            tuple,
            state,
            closing: flags & CLOSE_INIT != 0,
        }),
        _ => Err(invalid("an entry without a tuple or a state of TCP")),
    }
}

fn of_tcp(part: &ProtoInfo) -> &[ProtoInfoTCP] {
    match part {
        ProtoInfo::TCP(parts) => parts,
        _ => &[],
    }
}

fn tuple_of(parts: &[Tuple]) -> Option<TcpTuple> {
    let (mut addresses, mut ports) = ((None, None), (None, None));
    for part in parts {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => addresses.0 = Some(*address),
                        IPTuple::DestinationAddress(address) => addresses.1 = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(TcpTuple {
        client: SocketAddr::new(addresses.0?, ports.0?),
        server: SocketAddr::new(addresses.1?, ports.1?),
    })
}

/// The entry that an event tells of.
pub(super) fn read_entry(bytes: &[u8]) -> io::Result<TcpEntry> {
    match read_message(bytes)?.payload {
        NetlinkPayload::InnerMessage(message) => entry(&message),
        other => Err(invalid(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple() -> TcpTuple {
        TcpTuple {
            client: "[fd00:1::2]:20000".parse().unwrap(),
            server: "[fd00:96::1]:8000".parse().unwrap(),
        }
    }

    /// As the kernel sends it, and as it is read.
    fn read(attributes: Vec<ConntrackAttribute>) -> io::Result<TcpEntry> {
        let message = NetfilterMessage::new(
            NetfilterHeader::new(NetfilterProtoFamily::IPv6, 0, 0),
            ConntrackMessage::New(attributes),
        );
        let bytes = packet(message, NLM_F_REQUEST, 7);
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(&bytes).unwrap();
        match message.payload {
            NetlinkPayload::InnerMessage(message) => entry(&message),
            other => panic!("{other:?}"),
        }
    }

    fn of_tcp(parts: Vec<ProtoInfoTCP>) -> ConntrackAttribute {
        ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(parts)])
    }

    #[test]
    fn an_entry_is_whose_it_is_how_far_and_whether_either_side_closes() {
        for (flags, closing) in [([0x08, 0], false), ([0x0c, 0], true)] {
            let info = of_tcp(vec![
                ProtoInfoTCP::State(8),
                ProtoInfoTCP::OriginalFlags(TCPFlags::parse(&[0x08, 0]).unwrap()),
                ProtoInfoTCP::ReplyFlags(TCPFlags::parse(&flags).unwrap()),
            ]);
            let wanted = TcpEntry {
                tuple: tuple(),
                state: TcpState::Close,
                closing,
            };
            assert_eq!(read(vec![attribute(tuple()), info]).unwrap(), wanted);
            assert_eq!(wanted.is_open(), closing);
        }
    }

    #[test]
    fn a_damaged_message_of_another_subsystem_is_an_error() {
        let nftables = [
            0x21, 0, 0, 0, 0x09, 0x0a, 0, 0x76, 0x19, 0, 0, 0, 0x0f, 0x05, 0, 0, 0, 0, 0, 0, 0x05,
            0, 0x11, 0, 0, 0x10, 0, 0, 0, 0, 0, 0xff, 0x17, 0x94,
        ];
        let error = read_message(&nftables).expect_err("nobody asked for it");
        assert!(
            error.to_string().ends_with("a message of type 0xa09"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_tcp_entry_is_an_error() {
        let state = || of_tcp(vec![ProtoInfoTCP::State(8)]);
        let unknown = || of_tcp(vec![ProtoInfoTCP::State(99)]);
        assert!(read(vec![attribute(tuple())]).is_err());
        assert!(read(vec![state()]).is_err());
        assert!(read(vec![attribute(tuple()), unknown()]).is_err());
        assert!(read(vec![attribute(tuple()), state()]).is_ok());
    }
}
