//! Conntrack's own events: TCP entries that were reset, as it happens.
//!
//! The kernel makes events only while somebody listens, and a filter on the socket lets
//! it keep all others. Entries have events where `nf_conntrack_events` was 1 when they
//! were made, or (the default from Linux 6.0 on, 2) where somebody was listening then.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use libc::{
    BPF_ABS, BPF_B, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MISC, BPF_RET,
    BPF_TAX, BPF_W, sock_filter, sock_fprog,
};
use netlink_sys::Socket;
use rustix::{io::Errno, net::sockopt};

use super::{
    ctnetlink::{open, read_entry},
    tcp::{TcpEntry, TcpState},
};

/// `NFNLGRP_CONNTRACK_UPDATE` of include/uapi/linux/netfilter/nfnetlink_compat.h.
const UPDATES: u32 = 2;

/// Room for some thousand resets that come at once: an event takes 1 to 1.3 KiB of it. The kernel takes
/// memory only for events that wait.
const ROOM: usize = 4 << 20;

/// More than one event has.
const BUFFER: usize = 4096;

/// `struct nlmsghdr` and `struct nfgenmsg`, before the attributes.
const HEADERS: u32 = 20;
/// The header of an attribute.
const HEADER: u32 = 4;
// Attributes of include/uapi/linux/netfilter/nfnetlink_conntrack.h, each in the one before.
const PROTOINFO: u32 = 4;
const PROTOINFO_TCP: u32 = 1;
const PROTOINFO_TCP_STATE: u32 = 1;

// Loads of include/uapi/linux/filter.h that find an attribute of type X, among those from
// A on, or in the one at A; zero where there is none.
const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12) as u32;
const FIND_IN_ATTRIBUTE: u32 = (-0x1000_i32 + 16) as u32;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry was reset.
    Reset(TcpEntry),
    /// The kernel had no room for some.
    Lost,
}

/// Listens while it lives.
pub struct Resets {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Resets {
    /// Listens in the network namespace of the calling thread. The caller makes sure that
    /// `nf_conntrack_netlink` is there, see [`super::netlink_is_there`].
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it (it wants CAP_NET_ADMIN).
    pub fn listen() -> io::Result<Self> {
        let socket = open()?;
        socket.set_non_blocking(true)?;
        make_room(&socket)?;
        attach(&socket, &filter())?;
        socket.add_membership(UPDATES)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    ///
    /// Where the socket fails, or an event is malformed.
    pub fn take(&mut self) -> io::Result<Option<Event>> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Some(Event::Lost));
            }
            Err(error) => return Err(error),
        }
        read_entry(&self.buffer).map(|entry| Some(Event::Reset(entry)))
    }
}

impl AsFd for Resets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

impl std::fmt::Debug for Resets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resets").finish_non_exhaustive()
    }
}

/// Beyond `net.core.rmem_max`, which has room for some 400 events by default, where this process may.
fn make_room(socket: &Socket) -> io::Result<()> {
    // SAFETY: the socket is open for as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    match sockopt::set_socket_recv_buffer_size_force(fd, ROOM) {
        Err(Errno::PERM) => Ok(sockopt::set_socket_recv_buffer_size(fd, ROOM)?),
        other => Ok(other?),
    }
}

/// Lets events pass whose state is [`TcpState::Close`].
fn filter() -> Vec<sock_filter> {
    let step = |code: u32, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let find = |what, kind, ends_in: u8| {
        [
            step(BPF_LDX | BPF_W | BPF_IMM, kind),
            step(BPF_LD | BPF_W | BPF_ABS, what),
            sock_filter {
                jt: ends_in,
                ..step(BPF_JMP | BPF_JEQ | BPF_K, 0)
            },
        ]
    };
    let mut steps = vec![step(BPF_LD | BPF_W | BPF_IMM, HEADERS)];
    // Where there is no such attribute it goes to the last step.
    steps.extend(find(FIND_ATTRIBUTE, PROTOINFO, 10));
    steps.extend(find(FIND_IN_ATTRIBUTE, PROTOINFO_TCP, 7));
    steps.extend(find(FIND_IN_ATTRIBUTE, PROTOINFO_TCP_STATE, 4));
    steps.extend([
        step(BPF_MISC | BPF_TAX, 0),
        step(BPF_LD | BPF_B | BPF_IND, HEADER),
        sock_filter {
            jf: 1,
            ..step(BPF_JMP | BPF_JEQ | BPF_K, TcpState::Close as u32)
        },
        step(BPF_RET | BPF_K, u32::MAX),
        step(BPF_RET | BPF_K, 0),
    ]);
    steps
}

fn attach(socket: &Socket, filter: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives until then, and does not write.
    let attached = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    match attached {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_search_that_fails_ends_at_the_step_that_refuses() {
        let filter = filter();
        let last = filter.len() - 1;
        let jumps = filter.iter().enumerate();
        let fails = jumps.filter(|(_, step)| step.jt > 0);
        let ends: Vec<_> = fails
            .map(|(at, step)| at + 1 + usize::from(step.jt))
            .collect();
        assert_eq!(ends, [last; 3]);
        assert_eq!(filter[last].k, 0);
    }
}
