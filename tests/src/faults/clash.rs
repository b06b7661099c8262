//! Two packets that want an equal entry at once, as two pods behind one address, or two threads
//! that ask by one socket. Both are held between translation and the insertion of their entries,
//! so that each pair meets.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context as _, Result};
use nfq::{Queue, Verdict};

use super::dns::{CLIENT, RESOLVER, Site};
use crate::guest::Guest;

/// Another address of the client's network, which is translated to the same one.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);

/// After the translation of sources (100), before entries are inserted (the last hook).
const HOLD: &str = "\
add table ip hold
add chain ip hold post { type filter hook postrouting priority 150; }
add rule ip hold post udp sport 20000-29999 queue num 0";

/// Holds packets until both of a pair are there.
pub struct Clashes<'s> {
    site: &'s Site,
    queue: Queue,
}

impl std::fmt::Debug for Clashes<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clashes").finish_non_exhaustive()
    }
}

impl<'s> Clashes<'s> {
    /// From now on the guest holds what leaves the client's ports from 20,000 to 29,999.
    pub fn begin(guest: &Guest, site: &'s Site) -> Result<Self> {
        site.add_sources(&[OTHER])?;
        guest.modprobe("nfnetlink_queue")?;
        let mut queue = Queue::open().context("open a netfilter queue")?;
        queue.bind(0).context("bind netfilter queue 0")?;
        guest.sh(&format!("nft '{HOLD}'"))?;
        Ok(Self { site, queue })
    }

    /// For each port one packet from each of two sources. Both are translated to one address and
    /// this port, so the second finds its reply direction taken, and is dropped.
    pub fn between_sources(&mut self, ports: Range<u16>) -> Result<()> {
        for port in ports {
            self.site.client().within(|| {
                for source in [CLIENT, OTHER] {
                    ask(&bind(source, port)?)?;
                }
                Ok(())
            })?;
            self.let_both_go()?;
        }
        Ok(())
    }

    /// For each port two packets of one socket: the second goes on with the entry of the first.
    pub fn of_one_socket(&mut self, ports: Range<u16>) -> Result<()> {
        for port in ports {
            self.site.client().within(|| {
                let socket = bind(CLIENT, port)?;
                ask(&socket)?;
                ask(&socket)
            })?;
            self.let_both_go()?;
        }
        Ok(())
    }

    fn let_both_go(&mut self) -> Result<()> {
        let mut receive = || self.queue.recv().context("receive a held packet");
        let pair = [receive()?, receive()?];
        for mut packet in pair {
            packet.set_verdict(Verdict::Accept);
            self.queue.verdict(packet).context("let a packet go")?;
        }
        Ok(())
    }
}

/// For each port two packets of one socket, sent by two threads at once.
pub fn race_from_one_socket(site: &Site, ports: Range<u16>) -> Result<()> {
    site.client().within(|| {
        for port in ports {
            let socket = bind(CLIENT, port)?;
            let together = Barrier::new(2);
            let send = || {
                together.wait();
                ask(&socket)
            };
            thread::scope(|scope| {
                let other = scope.spawn(send);
                let sent = send();
                other.join().unwrap_or_else(|panic| resume_unwind(panic))?;
                sent
            })?;
        }
        Ok(())
    })
}

fn bind(source: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    UdpSocket::bind((source, port)).with_context(|| format!("bind UDP port {port} of {source}"))
}

fn ask(socket: &UdpSocket) -> Result<()> {
    socket.send_to(b"?", (RESOLVER, 53)).context("send")?;
    Ok(())
}
