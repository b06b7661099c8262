//! Reads of IPVS connections.

use ebpf::{
    ipvs_conn_reuse::{Flow, IpvsSettings, Tuple},
    shared::{global, read},
};

use crate::OFFSETS;

const AF_INET: u8 = 2;

/// `IP_VS_DEST_F_AVAILABLE`, later `IP_VS_DEST_CF_AVAILABLE`.
const AVAILABLE: u8 = 1;

/// A `struct ip_vs_conn`, by its address.
#[derive(Clone, Copy)]
pub(super) struct Connection(pub(super) u64);

/// What is read of a `struct ip_vs_dest`.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) weight: u32,
    /// Whether it is still in its service.
    pub(super) available: bool,
}

/// The address of a destination.
pub(super) struct Endpoint {
    pub(super) family: u8,
    pub(super) address: [u8; 16],
    /// Host order.
    pub(super) port: u16,
}

impl Connection {
    #[inline(always)]
    pub(super) fn flags(self) -> Result<u32, i32> {
        self.read(global(&OFFSETS.flags))
    }

    #[inline(always)]
    pub(super) fn state(self) -> Result<u16, i32> {
        self.read(global(&OFFSETS.state))
    }

    #[inline(always)]
    pub(super) fn protocol(self) -> Result<u16, i32> {
        self.read(global(&OFFSETS.protocol))
    }

    /// In host order.
    #[inline(always)]
    pub(super) fn client_port(self) -> Result<u16, i32> {
        self.port(global(&OFFSETS.client_port))
    }

    /// As IPVS does, this takes a connection without a destination for one whose
    /// destination is available.
    #[inline(always)]
    pub(super) fn destination(self) -> Result<Destination, i32> {
        let dest = self.read::<u64>(global(&OFFSETS.dest))? as *const u8;
        if dest.is_null() {
            return Ok(Destination {
                weight: 1,
                available: true,
            });
        }
        // SAFETY: integers.
        unsafe {
            Ok(Destination {
                weight: read(dest, global(&OFFSETS.dest_weight))?,
                available: read::<u8>(dest, global(&OFFSETS.dest_available))? & AVAILABLE != 0,
            })
        }
    }

    #[inline(always)]
    pub(super) fn settings(self) -> Result<IpvsSettings, i32> {
        let ipvs = self.ipvs()?;
        // SAFETY: the low bytes of integers whose values are small.
        unsafe {
            Ok(IpvsSettings {
                conn_reuse_mode: read(ipvs, global(&OFFSETS.conn_reuse_mode))?,
                expire_nodest_conn: read(ipvs, global(&OFFSETS.expire_nodest_conn))?,
                conntrack: read(ipvs, global(&OFFSETS.conntrack))?,
                expire_quiescent_template: read(ipvs, global(&OFFSETS.expire_quiescent_template))?,
            })
        }
    }

    /// The inode number of its network namespace.
    #[inline(always)]
    pub(super) fn netns(self) -> Result<u32, i32> {
        netns(self.ipvs()?)
    }

    #[inline(always)]
    pub(super) fn tuple(self, netns: u32) -> Result<Tuple, i32> {
        let family: u8 = self.read(global(&OFFSETS.family))?;
        Ok(Tuple {
            netns,
            family: u16::from(family),
            client_port: self.client_port()?,
            virtual_port: self.port(global(&OFFSETS.virtual_port))?,
            unused: 0,
            client: self.address(global(&OFFSETS.client), family)?,
            virtual_address: self.address(global(&OFFSETS.virtual_address), family)?,
        })
    }

    #[inline(always)]
    pub(super) fn flow(self) -> Result<Flow, i32> {
        let family: u8 = self.read(global(&OFFSETS.family))?;
        let destination = self.endpoint()?;
        Ok(Flow {
            netns: self.netns()?,
            family: u16::from(family),
            destination_family: u16::from(destination.family),
            virtual_port: self.port(global(&OFFSETS.virtual_port))?,
            destination_port: destination.port,
            virtual_address: self.address(global(&OFFSETS.virtual_address), family)?,
            destination: destination.address,
        })
    }

    /// Where its packets go.
    #[inline(always)]
    pub(super) fn endpoint(self) -> Result<Endpoint, i32> {
        let family: u8 = self.read(global(&OFFSETS.destination_family))?;
        Ok(Endpoint {
            family,
            address: self.address(global(&OFFSETS.destination), family)?,
            port: self.port(global(&OFFSETS.destination_port))?,
        })
    }

    #[inline(always)]
    fn ipvs(self) -> Result<*const u8, i32> {
        Ok(self.read::<u64>(global(&OFFSETS.ipvs))? as *const u8)
    }

    #[inline(always)]
    fn port(self, offset: u32) -> Result<u16, i32> {
        Ok(u16::from_be(self.read(offset)?))
    }

    #[inline(always)]
    fn address(self, offset: u32, family: u8) -> Result<[u8; 16], i32> {
        if family != AF_INET {
            return self.read(offset);
        }
        // The kernel clears the rest, but a key must not depend on it.
        let mut address = [0; 16];
        let short: [u8; 4] = self.read(offset)?;
        address[..4].copy_from_slice(&short);
        Ok(address)
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Result<T, i32> {
        // SAFETY: integers and arrays of them only, see the callers.
        unsafe { read(self.0 as *const u8, offset) }
    }
}

/// The inode number of the network namespace of a `struct netns_ipvs`.
#[inline(always)]
pub(super) fn netns(ipvs: *const u8) -> Result<u32, i32> {
    // SAFETY: integers.
    unsafe {
        let net: u64 = read(ipvs, global(&OFFSETS.ipvs_net))?;
        read(net as *const u8, global(&OFFSETS.net_inum))
    }
}
