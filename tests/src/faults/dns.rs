//! DNS behind NAT, as the pods of a node see it: a client and a resolver in network namespaces of
//! their own, and the guest between them, whose table gets an entry for each exchange.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::eventually::eventually;
use crate::guest::{Guest, NetNs, Process};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
const CLIENT_SIDE: &str = "10.1.0.1";
const RESOLVER_SIDE: &str = "10.2.0.1";

/// How long an answer may take; under emulation, beside other work.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer may take before it is asked again, as long as dnsmasq starts.
const STARTING: Duration = Duration::from_millis(200);

/// A client, a resolver (dnsmasq), and the guest that masquerades between them.
#[derive(Debug)]
pub struct Site {
    client: NetNs,
    resolver: NetNs,
    _dnsmasq: Process,
}

impl Site {
    /// Builds it. The kernel loads nf_conntrack for the rule, if it is not there yet.
    pub fn build(guest: &Guest) -> Result<Self> {
        let site = Self::without_rules(guest)?;
        site.masquerade(guest)?;
        Ok(site)
    }

    /// The network alone: nothing is tracked yet.
    pub fn without_rules(guest: &Guest) -> Result<Self> {
        let (client, resolver) = (guest.netns("client")?, guest.netns("resolver")?);
        let inside = |address: Ipv4Addr| format!("{address}/24");
        client.connect_to_guest(
            ("eth0", &inside(CLIENT)),
            ("client", &format!("{CLIENT_SIDE}/24")),
        )?;
        resolver.connect_to_guest(
            ("eth0", &inside(RESOLVER)),
            ("resolver", &format!("{RESOLVER_SIDE}/24")),
        )?;
        client.sh(&format!("ip route add default via {CLIENT_SIDE}"))?;
        resolver.sh(&format!("ip route add default via {RESOLVER_SIDE}"))?;
        guest.set_sysctl("net.ipv4.ip_forward", "1")?;
        let dnsmasq = serve(guest, &resolver)?;
        let site = Self {
            client,
            resolver,
            _dnsmasq: dnsmasq,
        };
        eventually(Duration::from_secs(20), "an answer of dnsmasq", || {
            // In its own namespace, where nothing is tracked.
            site.resolver.within(|| {
                let socket = bind(0)?;
                // One that does not listen yet never answers.
                socket
                    .set_read_timeout(Some(STARTING))
                    .context("set a time limit")?;
                exchange(&socket, RESOLVER)
            })
        })?;
        Ok(site)
    }

    /// From now on every exchange is tracked and translated. What the guest says to itself, as a
    /// test to the agent, is not.
    pub fn masquerade(&self, guest: &Guest) -> Result<()> {
        guest.sh("iptables -t raw -A OUTPUT -o lo -j CT --notrack")?;
        guest.sh("iptables -t raw -A PREROUTING -i lo -j CT --notrack")?;
        guest
            .sh(&format!(
                "iptables -t nat -A POSTROUTING -s {CLIENT}/24 -d {RESOLVER}/24 -j MASQUERADE"
            ))
            .map(drop)
    }

    /// Takes the rules away again, with their tables.
    pub fn forget_rules(&self, guest: &Guest) -> Result<()> {
        guest.sh("nft flush ruleset").map(drop)
    }

    /// One exchange from each of these ports, one after the other; each makes an entry, and nothing
    /// more is ever said on it.
    pub fn one_shots(&self, ports: Range<u16>) -> Result<()> {
        self.client.within(|| {
            for port in ports {
                let socket = bind(port)?;
                exchange(&socket, RESOLVER).with_context(|| format!("from port {port}"))?;
            }
            Ok(())
        })
    }

    /// One query from each of these ports, answered or not: where the table is full, some are
    /// dropped, and nobody waits for their answers.
    pub fn flood(&self, ports: Range<u16>) -> Result<()> {
        self.client.within(|| {
            for port in ports {
                bind(port)?
                    .send_to(QUESTION, (RESOLVER, 53))
                    .context("ask")?;
            }
            Ok(())
        })
    }

    /// Makes so many exchanges a second, each from a port of its own, while something else is done.
    pub fn while_asking<T>(&self, a_second: u32, f: impl FnOnce() -> Result<T>) -> Result<T> {
        /// Each port once: a port that comes back before its entry has gone makes no new one.
        const PORTS: Range<u16> = 2_000..20_000;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                self.client.within(|| {
                    for port in PORTS {
                        if done.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        exchange(&bind(port)?, RESOLVER)?;
                        thread::sleep(Duration::from_secs(1) / a_second);
                    }
                    bail!("all ports are used up")
                })
            });
            let result = f();
            done.store(true, Ordering::Relaxed);
            asking.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            result
        })
    }

    /// One flow that talks for this long.
    pub fn talk(&self, port: u16, length: Duration) -> Result<()> {
        self.client.within(|| {
            let socket = bind(port)?;
            let begin = Instant::now();
            loop {
                exchange(&socket, RESOLVER)?;
                if begin.elapsed() > length {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(100));
            }
        })
    }

    /// A query to a port where nobody answers, and no error comes back either.
    pub fn ask_nobody(&self, port: u16) -> Result<()> {
        self.resolver.sh("iptables -A OUTPUT -p icmp -j DROP")?;
        self.client.within(|| {
            let socket = bind(port)?;
            socket
                .send_to(b"?", (RESOLVER, 9))
                .context("send to the port discard")?;
            Ok(())
        })
    }

    /// More addresses of the client, of the network that it is in.
    pub fn add_sources(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let add = |address| format!("ip addr add {address}/24 dev eth0\n");
        let script = addresses.iter().map(add).collect::<String>();
        self.client.sh(&format!("set -e\n{script}")).map(drop)
    }

    /// A packet to each of these ports of the resolver, from one of the client's addresses.
    pub fn knock(&self, source: Ipv4Addr, ports: Range<u16>) -> Result<()> {
        self.client.within(|| {
            let socket =
                UdpSocket::bind((source, 0)).with_context(|| format!("bind a port of {source}"))?;
            for port in ports {
                socket
                    .send_to(b"?", (RESOLVER, port))
                    .with_context(|| format!("send to port {port}"))?;
            }
            Ok(())
        })
    }

    /// The namespace of the resolver.
    pub fn resolver(&self) -> &NetNs {
        &self.resolver
    }

    /// The namespace of the client.
    pub fn client(&self) -> &NetNs {
        &self.client
    }
}

fn serve(guest: &Guest, resolver: &NetNs) -> Result<Process> {
    let mut command = resolver.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--group=root",
        "--log-facility=-",
        "--address=/test/192.0.2.1",
    ]);
    guest.start("dnsmasq", &mut command)
}

fn bind(port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("bind UDP port {port}"))?;
    socket
        .set_read_timeout(Some(ANSWER_LIMIT))
        .context("set a time limit")?;
    Ok(socket)
}

/// A question for the address of `a.test` (RFC 1035, section 4.1).
const QUESTION: &[u8] =
    b"\x4e\x6d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

/// One question and its answer.
fn exchange(socket: &UdpSocket, resolver: Ipv4Addr) -> Result<()> {
    const ANSWERS: usize = 7;
    socket.send_to(QUESTION, (resolver, 53)).context("ask")?;
    let mut answer = [0; 512];
    let (length, _) = socket
        .recv_from(&mut answer)
        .context("wait for an answer")?;
    ensure!(
        length > ANSWERS && answer[..2] == QUESTION[..2],
        "the answer is to another question"
    );
    if answer[ANSWERS] != 1 {
        bail!("{} answers instead of one", answer[ANSWERS]);
    }
    Ok(())
}
