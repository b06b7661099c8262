//! Clients that come back on the port of an old connection: a client, a director (IPVS as
//! kube-proxy sets it up: NAT, and masquerade of what goes to virtual services) and two servers
//! that say which one they are, each in a network namespace of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt,
    shutdown, socket, sockopt,
};

use super::ipvs::Family;
use crate::guest::{Guest, NetNs, Process};

/// Where both servers listen.
pub const SERVER_PORT: u16 = 7_000;

/// How long a server may take to say who it is; under emulation, beside other work.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Long enough for the packets of a closing connection to have passed everywhere.
const SETTLED: Duration = Duration::from_millis(300);

const RULES: &str = "/tmp/reuse-services";

/// The client, the servers, and the director between them.
#[derive(Debug)]
pub struct Site {
    family: Family,
    client: NetNs,
    director: Director,
    servers: [Server; 2],
    syns: SynCounter,
}

/// Where IPVS is.
#[derive(Debug)]
enum Director {
    /// In the guest's own namespace, as on a node.
    Guest,
    /// In one of its own, with a process by which the agent finds it.
    Apart {
        namespace: NetNs,
        _inhabitant: Process,
    },
}

/// A real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The one that old connections lead to.
    Old,
    /// The one that comes after it.
    New,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    ClientFin,
    ServerFin,
    ClientReset,
    ServerReset,
    /// The client is gone without a word, as after a power cut.
    Vanished,
    /// The same, and then the server closes. For a port whose acknowledgements are lost, see
    /// [`Site::lose_acknowledgements`].
    Unanswered,
}

impl Close {
    pub const ALL: [Self; 5] = [
        Self::ClientFin,
        Self::ServerFin,
        Self::ClientReset,
        Self::ServerReset,
        Self::Vanished,
    ];
}

/// From 7.3 on the table of connections grows while it is in use, and connections that are made
/// at that moment may be lost (docs/kernels.md). With this load factor, 2^8 connections a bucket,
/// there are never enough.
const LEAST_GROWTH: u8 = 8;

/// The sysctls `net.ipv4.vs.*` that decide about SYNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub conn_reuse_mode: u8,
    pub expire_nodest_conn: u8,
    pub conntrack: u8,
}

impl Settings {
    /// As kube-proxy sets them on a kernel that it takes for fixed.
    pub const KUBE_PROXY: Self = Self {
        conn_reuse_mode: 1,
        expire_nodest_conn: 1,
        conntrack: 1,
    };
}

/// A connection, and who accepted it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    pub server: Name,
    /// From the first SYN to the end of the handshake.
    pub took: Duration,
}

impl Site {
    /// With IPVS in the guest's own namespace. Loads ip_vs, if it is not there yet.
    pub fn build(guest: &Guest, family: Family) -> Result<Self> {
        Self::join(guest, family, Director::Guest, "")
    }

    /// With IPVS in a namespace of its own. The names of all namespaces end in `suffix`.
    pub fn apart(guest: &Guest, family: Family, suffix: &str) -> Result<Self> {
        let director = guest.netns(&format!("director{suffix}"))?;
        let mut sleep = director.command("sleep");
        let inhabitant = guest.start(&format!("sleep{suffix}"), sleep.arg("86400"))?;
        let director = Director::Apart {
            namespace: director,
            _inhabitant: inhabitant,
        };
        Self::join(guest, family, director, suffix)
    }

    fn join(guest: &Guest, family: Family, director: Director, suffix: &str) -> Result<Self> {
        guest.modprobe("ip_vs_wlc")?;
        let namespace = |name| guest.netns(&format!("{name}{suffix}"));
        let (client, old, new) = (namespace("client")?, namespace("old")?, namespace("new")?);
        for (namespace, network) in [(&client, CLIENT), (&old, OLD), (&new, NEW)] {
            director.connect(guest, family, namespace, network)?;
        }
        // Who has closed would keep the port for a minute, and a server answer for it.
        for end in [&client, &old, &new] {
            end.set_sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
            // Nor is a namespace to outlive the scenario for what its vanished peers owe it.
            end.set_sysctl("net.ipv4.tcp_orphan_retries", "1")?;
        }
        client.sh(&count_syns("output"))?;
        old.sh(&count_syns("input"))?;
        new.sh(&count_syns("input"))?;
        let site = Self {
            family,
            servers: [
                Server::start(old, Name::Old)?,
                Server::start(new, Name::New)?,
            ],
            client,
            director,
            syns: SynCounter::default(),
        };
        site.masquerade(guest)?;
        Ok(site)
    }

    /// What goes to virtual addresses is masqueraded by way of a mark. What the guest says to
    /// itself, as a test to the agent, is not tracked.
    fn masquerade(&self, guest: &Guest) -> Result<()> {
        let (iptables, forwarding) = match self.family {
            Family::V4 => ("iptables", "net.ipv4.ip_forward"),
            Family::V6 => ("ip6tables", "net.ipv6.conf.all.forwarding"),
        };
        let service = self.virtual_address();
        self.director.sh(
            guest,
            &format!(
                "set -e
                sysctl -q {forwarding}=1
                ip link add vip type dummy
                ip addr add {service} dev vip nodad
                ip link set vip up
                {iptables} -t raw -A OUTPUT -o lo -j CT --notrack
                {iptables} -t raw -A PREROUTING -i lo -j CT --notrack
                {iptables} -t nat -A PREROUTING -d {service} -j MARK --set-xmark 0x4000/0x4000
                {iptables} -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE"
            ),
        )?;
        Ok(())
    }

    /// Where the virtual services are.
    pub fn virtual_address(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(10, 96, 0, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// A virtual service, as the agent calls it.
    pub fn service(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.virtual_address(), port)
    }

    pub fn client_address(&self) -> IpAddr {
        host(self.family, CLIENT, 2)
    }

    /// A server, as the agent calls it.
    pub fn server(&self, name: Name) -> SocketAddr {
        let network = match name {
            Name::Old => OLD,
            Name::New => NEW,
        };
        SocketAddr::new(host(self.family, network, 2), SERVER_PORT)
    }

    /// The namespace of the client.
    pub fn client(&self) -> &NetNs {
        &self.client
    }

    /// The namespace of a server.
    pub fn namespace(&self, name: Name) -> &NetNs {
        &self.real_server(name).namespace
    }

    fn real_server(&self, name: Name) -> &Server {
        let [old, new] = &self.servers;
        match name {
            Name::Old => old,
            Name::New => new,
        }
    }

    /// Inode number of the namespace that IPVS is in.
    pub fn netns(&self, guest: &Guest) -> Result<String> {
        Ok(self
            .sh(guest, "stat -Lc %i /proc/self/ns/net")?
            .trim()
            .to_owned())
    }

    /// What a shell prints that runs where IPVS is.
    pub fn sh(&self, guest: &Guest, script: &str) -> Result<String> {
        self.director.sh(guest, script)
    }

    pub fn set(&self, guest: &Guest, settings: Settings) -> Result<()> {
        let Settings {
            conn_reuse_mode,
            expire_nodest_conn,
            conntrack,
        } = settings;
        self.sh(
            guest,
            &format!(
                "cd /proc/sys/net/ipv4/vs && echo {conn_reuse_mode} > conn_reuse_mode &&
                echo {expire_nodest_conn} > expire_nodest_conn && echo {conntrack} > conntrack &&
                echo 1 > expire_quiescent_template &&
                if [ -e conn_lfactor ]; then echo {LEAST_GROWTH} > conn_lfactor; fi"
            ),
        )
        .map(drop)
    }

    /// A service on each of these ports, which the old server alone has.
    pub fn add_services(&self, guest: &Guest, ports: &[u16]) -> Result<()> {
        let mut rules = String::new();
        for port in ports {
            let service = self.service(*port);
            // Writing to a String cannot fail.
            let _ = writeln!(rules, "-A -t {service} -s wlc");
            let _ = writeln!(
                rules,
                "-a -t {service} -r {} -m -w 1",
                self.server(Name::Old)
            );
        }
        self.restore(guest, &rules)
    }

    /// Lets the new server have what is new: it has the weight, and no connection yet.
    pub fn add_new_server(&self, guest: &Guest, ports: &[u16]) -> Result<()> {
        let line = |port| {
            let (service, server) = (self.service(port), self.server(Name::New));
            format!("-a -t {service} -r {server} -m -w 1000\n")
        };
        self.restore(guest, &ports.iter().copied().map(line).collect::<String>())
    }

    /// Gives the old server no new connections.
    pub fn drain_old_server(&self, guest: &Guest, ports: &[u16]) -> Result<()> {
        let line = |port| {
            let (service, server) = (self.service(port), self.server(Name::Old));
            format!("-e -t {service} -r {server} -m -w 0\n")
        };
        self.restore(guest, &ports.iter().copied().map(line).collect::<String>())
    }

    /// Takes the old server away.
    pub fn remove_old_server(&self, guest: &Guest, ports: &[u16]) -> Result<()> {
        let line = |port| {
            let (service, server) = (self.service(port), self.server(Name::Old));
            format!("-d -t {service} -r {server}\n")
        };
        self.restore(guest, &ports.iter().copied().map(line).collect::<String>())
    }

    fn restore(&self, guest: &Guest, rules: &str) -> Result<()> {
        fs::write(RULES, rules).with_context(|| format!("write {RULES}"))?;
        self.sh(guest, &format!("ipvsadm --restore < {RULES}"))
            .map(drop)
    }

    /// Takes all services away.
    pub fn clear(&self, guest: &Guest) -> Result<()> {
        self.sh(guest, "ipvsadm --clear").map(drop)
    }

    /// The ports of clients of whom IPVS has a connection.
    pub fn connected_ports(&self, guest: &Guest) -> Result<BTreeSet<u16>> {
        let table = self.sh(guest, "cat /proc/net/ip_vs_conn")?;
        let lines = table.lines().filter(|line| line.starts_with("TCP"));
        let ports = lines.filter_map(|line| line.split_whitespace().nth(2));
        ports
            .map(|port| u16::from_str_radix(port, 16).with_context(|| format!("port {port}")))
            .collect()
    }

    /// Connects from this port of the client. `None` where nobody answers within the limit.
    pub fn connect(&self, from: u16, port: u16, limit: Duration) -> Result<Option<Connection>> {
        let socket = self.socket(from)?;
        Connection::open(socket, self.service(port), limit)
            .with_context(|| format!("connect from port {from} to {}", self.service(port)))
    }

    /// The same from each of these pairs of a client's port and a service's, all at once.
    pub fn connect_all(
        &self,
        ports: &[(u16, u16)],
        limit: Duration,
    ) -> Result<Vec<Option<Connection>>> {
        self.try_connect_all(ports, limit)?.into_iter().collect()
    }

    /// The same, with what became of each by itself.
    pub fn try_connect_all(
        &self,
        ports: &[(u16, u16)],
        limit: Duration,
    ) -> Result<Vec<Result<Option<Connection>>>> {
        let sockets = ports.iter().map(|(from, _)| self.socket(*from));
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        Ok(thread::scope(|scope| {
            let connecting = sockets
                .into_iter()
                .zip(ports)
                .map(|(socket, (from, port))| {
                    let service = self.service(*port);
                    scope.spawn(move || {
                        Connection::open(socket, service, limit)
                            .with_context(|| format!("connect from port {from} to {service}"))
                    })
                });
            // All are started before the first is waited for.
            let connecting = connecting.collect::<Vec<_>>();
            let results = connecting.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.collect()
        }))
    }

    /// Connects from each of these ports and closes, one after the other, as quickly as it goes.
    pub fn connect_in_turn(&self, from: Range<u16>, port: u16) -> Result<()> {
        self.client.within(|| {
            for client in from {
                let socket = self.socket_here(client)?;
                let connection = Connection::open(socket, self.service(port), ANSWER_LIMIT)?;
                let connection =
                    connection.with_context(|| format!("nobody answers port {client}"))?;
                connection.close(Close::ClientFin)?;
            }
            Ok(())
        })
    }

    /// A socket of the client that is bound to this port.
    fn socket(&self, port: u16) -> Result<OwnedFd> {
        self.client.within(|| self.socket_here(port))
    }

    /// The same, on a thread that is in the client's namespace.
    fn socket_here(&self, port: u16) -> Result<OwnedFd> {
        let client = SocketAddr::new(self.client_address(), port);
        let family = match self.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None).context("make a socket")?;
        setsockopt(&socket, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(client))
            .with_context(|| format!("bind {client}"))?;
        Ok(socket)
    }

    /// From now on no acknowledgement and no reset leaves the client from these ports, but for
    /// those that come with data, a SYN or a FIN.
    pub fn lose_acknowledgements(&self, from: Range<u16>) -> Result<()> {
        let (first, last) = (from.start, from.end - 1);
        self.client
            .sh(&format!(
                "nft -f - <<'END'
table inet lose {{
    chain acknowledgements {{
        type filter hook output priority 1;
        tcp sport {first}-{last} tcp flags & (syn | fin | psh) == 0 drop
    }}
}}
END"
            ))
            .map(drop)
    }

    /// From now on no reset comes to these ports of the client.
    pub fn lose_resets(&self, to: Range<u16>) -> Result<()> {
        let (first, last) = (to.start, to.end - 1);
        self.client
            .sh(&format!(
                "nft -f - <<'END'
table inet lose {{
    chain resets {{
        type filter hook input priority 1;
        tcp dport {first}-{last} tcp flags & rst == rst drop
    }}
}}
END"
            ))
            .map(drop)
    }

    /// SYNs that have left the client since the last call, by its port; the kernel counts them.
    pub fn syns(&self) -> Result<BTreeMap<u16, u32>> {
        Ok(by_port(&self.attempts()?))
    }

    /// The same by attempt to connect: one that is counted twice was repeated.
    pub fn attempts(&self) -> Result<BTreeMap<Attempt, u32>> {
        self.syns.take(&self.client)
    }

    /// SYNs that have come to a server since the last call, by the client's port.
    pub fn syns_at(&self, name: Name) -> Result<BTreeMap<u16, u32>> {
        let server = self.real_server(name);
        Ok(by_port(&server.syns.take(&server.namespace)?))
    }
}

/// The client's port, and the sequence number that a repeated SYN repeats.
pub type Attempt = (u16, u32);

fn by_port(attempts: &BTreeMap<Attempt, u32>) -> BTreeMap<u16, u32> {
    let mut ports = BTreeMap::new();
    for ((port, _), syns) in attempts {
        *ports.entry(*port).or_default() += syns;
    }
    ports
}

/// A kernel's counters of SYNs. They only rise, so that none is lost between two looks.
#[derive(Debug, Default)]
struct SynCounter {
    before: Mutex<BTreeMap<Attempt, u32>>,
}

impl SynCounter {
    /// What has come since the last call.
    fn take(&self, namespace: &NetNs) -> Result<BTreeMap<Attempt, u32>> {
        let now = parse_syns(&namespace.sh("nft list set inet count syns")?)?;
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |(attempt, syns): (&Attempt, &u32)| {
            let new = syns - before.get(attempt).copied().unwrap_or(0);
            (new > 0).then_some((*attempt, new))
        };
        let new = now.iter().filter_map(since).collect();
        *before = now;
        Ok(new)
    }
}

impl Director {
    fn connect(&self, guest: &Guest, family: Family, leaf: &NetNs, network: u8) -> Result<()> {
        let prefix = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        let inside = format!("{}/{prefix}", host(family, network, 2));
        let outside = format!("{}/{prefix}", host(family, network, 1));
        let link = format!("net{network}");
        match self {
            Self::Guest => leaf.connect_to_guest(("eth0", &inside), (&link, &outside))?,
            Self::Apart { namespace, .. } => {
                leaf.connect(("eth0", &inside), namespace, (&link, &outside))?;
            }
        }
        // Else the kernel would take packets for spoofed whose way back it does not see.
        self.set_sysctl(guest, &format!("net.ipv4.conf.{link}.rp_filter"), "0")?;
        leaf.sh(&format!(
            "ip route add default via {}",
            host(family, network, 1)
        ))
        .map(drop)
    }

    fn sh(&self, guest: &Guest, script: &str) -> Result<String> {
        match self {
            Self::Guest => guest.sh(script),
            Self::Apart { namespace, .. } => namespace.sh(script),
        }
    }

    fn set_sysctl(&self, guest: &Guest, name: &str, value: &str) -> Result<()> {
        match self {
            Self::Guest => guest.set_sysctl(name, value),
            Self::Apart { namespace, .. } => namespace.set_sysctl(name, value),
        }
    }
}

/// Networks of the site: 10.N.0.0/24 or fd00:N::/64; the director is host 1 of each.
const CLIENT: u8 = 1;
const OLD: u8 = 3;
const NEW: u8 = 4;

fn host(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, network, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// One counter for each attempt, where it leaves or where it arrives: masquerading keeps the port.
fn count_syns(hook: &str) -> String {
    format!(
        "nft -f - <<'END'
table inet count {{
    set syns {{ typeof tcp sport . tcp sequence; size 65535; flags dynamic; counter; }}
    chain syns {{
        type filter hook {hook} priority 0;
        tcp flags & (syn | ack) == syn update @syns {{ tcp sport . tcp sequence counter }}
    }}
}}
END"
    )
}

/// `elements = { 20001 . 3141592653 counter packets 2 bytes 120, … }`
fn parse_syns(listed: &str) -> Result<BTreeMap<Attempt, u32>> {
    let Some((_, elements)) = listed.split_once("elements = {") else {
        return Ok(BTreeMap::new());
    };
    let elements = elements.split('}').next().unwrap_or_default().split(',');
    elements
        .map(|element| {
            let words = element.split_whitespace().collect::<Vec<_>>();
            match words[..] {
                [port, ".", sequence, "counter", "packets", packets, ..] => {
                    Ok(((port.parse()?, sequence.parse()?), packets.parse()?))
                }
                _ => bail!("nft lists {element:?}"),
            }
        })
        .collect()
}

impl Connection {
    fn open(socket: OwnedFd, to: SocketAddr, limit: Duration) -> Result<Option<Self>> {
        let began = Instant::now();
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error).context("begin to connect"),
        }
        let timeout = PollTimeout::try_from(limit).context("a limit that is too long")?;
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut polled, timeout).context("wait for the handshake")? == 0 {
            return Ok(None);
        }
        let took = began.elapsed();
        let mut stream = TcpStream::from(socket);
        // After a handshake a reset is ECONNRESET, before one it is ECONNREFUSED.
        if let Some(error) = stream.take_error()? {
            return Err(error).context("connect");
        }
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut name = [0];
        stream.write_all(&[SAY_NAME])?;
        stream
            .read_exact(&mut name)
            .context("read the server's name")?;
        Ok(Some(Self {
            stream,
            server: Name::of(name[0])?,
            took,
        }))
    }

    /// Ends it so that both sides know, unless that is the point.
    pub fn close(mut self, how: Close) -> Result<()> {
        match how {
            Close::ClientFin => {
                self.stream.shutdown(std::net::Shutdown::Write)?;
                self.until_its_end()?;
            }
            Close::ServerFin => {
                self.stream.write_all(&[SEND_FIN])?;
                self.until_its_end()?;
            }
            Close::ClientReset => reset(&self.stream)?,
            Close::ServerReset => {
                self.stream.write_all(&[SEND_RESET])?;
                let end = self.stream.read(&mut [0]);
                ensure!(
                    end.as_ref()
                        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
                    "the server was to reset the connection: {end:?}"
                );
            }
            Close::Vanished => self.vanish()?,
            Close::Unanswered => {
                self.stream.write_all(&[SEND_FIN])?;
                self.until_its_end()?;
                self.vanish()?;
            }
        }
        Ok(())
    }

    /// The kernel forgets it, and says nothing.
    fn vanish(&self) -> Result<()> {
        setsockopt(&self.stream, sockopt::TcpRepair, &1).context("set TCP_REPAIR")
    }

    /// Has the server reset it, of which the client learns nothing if resets are lost.
    pub fn reset_unseen(&mut self) -> Result<()> {
        self.stream.write_all(&[SEND_RESET]).context("ask for it")
    }

    /// Says something that nobody expects an answer to.
    pub fn speak(&mut self) -> Result<()> {
        self.stream.write_all(&[SAY_NAME]).context("speak")
    }

    /// Has the server say its name once more.
    pub fn ask_again(&mut self) -> Result<Name> {
        let mut name = [0];
        self.stream.write_all(&[SAY_NAME])?;
        self.stream
            .read_exact(&mut name)
            .context("read the server's name again")?;
        Name::of(name[0])
    }

    /// Lets the server say that it is done.
    fn until_its_end(&mut self) -> Result<()> {
        let length = self
            .stream
            .read(&mut [0])
            .context("wait for the server's FIN")?;
        ensure!(length == 0, "the server says more than its name");
        Ok(())
    }
}

/// Closes all in the ways given, and waits until the director has seen it.
pub fn close_all(connections: impl IntoIterator<Item = (Connection, Close)>) -> Result<()> {
    for (connection, how) in connections {
        connection
            .close(how)
            .with_context(|| format!("close by {how:?}"))?;
    }
    thread::sleep(SETTLED);
    Ok(())
}

// What a client asks of a server, each with one byte.
const SAY_NAME: u8 = b'?';
const SEND_FIN: u8 = b'f';
const SEND_RESET: u8 = b'r';
/// A client that speaks HTTP.
const GET: u8 = b'G';

/// Says its name to whoever asks, and ends as it is asked to.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
    served: Arc<Mutex<Vec<Weak<TcpStream>>>>,
    namespace: NetNs,
    syns: SynCounter,
}

impl Server {
    fn start(namespace: NetNs, name: Name) -> Result<Self> {
        let listener = namespace
            .within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, SERVER_PORT)).context("listen"))?;
        let accepting = listener.try_clone().context("copy a listener")?;
        let served = Arc::<Mutex<Vec<Weak<TcpStream>>>>::default();
        let serving = Arc::clone(&served);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let stream = Arc::new(stream);
                let mut serving = serving.lock().unwrap_or_else(PoisonError::into_inner);
                serving.retain(|stream| stream.strong_count() > 0);
                serving.push(Arc::downgrade(&stream));
                // A client that goes away is no error of the server's.
                thread::spawn(move || serve(&stream, name));
            }
        });
        Ok(Self {
            listener,
            served,
            namespace,
            syns: SynCounter::default(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It makes the thread that accepts end.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        // And the threads of clients that have vanished: their sockets would keep the namespace.
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in served.iter().filter_map(Weak::upgrade) {
            let _ = reset(&stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Until the client has closed, or wants it to.
fn serve(mut stream: &TcpStream, name: Name) -> Result<()> {
    let mut asked = [0];
    while stream.read(&mut asked)? == 1 {
        match asked[0] {
            SAY_NAME => stream.write_all(&[name.byte()])?,
            SEND_RESET => return reset(stream),
            GET => return answer_http(stream, name),
            _ => break,
        }
    }
    Ok(())
}

/// The name is the page. As HTTP/1.0 has it, the server closes; it hears the client out, for without
/// TIME_WAIT its kernel answers whatever comes after both ends of a closed socket with a reset.
fn answer_http(mut stream: &TcpStream, name: Name) -> Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "half a request");
        request.extend_from_slice(&part[..length]);
    }
    let page = char::from(name.byte());
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n{page}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    while stream.read(&mut part)? > 0 {}
    Ok(())
}

/// From now on it closes with a reset instead of a FIN.
fn reset(stream: &TcpStream) -> Result<()> {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &at_once).context("set SO_LINGER")
}

impl Name {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Old => b'1',
            Self::New => b'2',
        }
    }

    pub(super) fn of(byte: u8) -> Result<Self> {
        match byte {
            b'1' => Ok(Self::Old),
            b'2' => Ok(Self::New),
            other => bail!("no server is called {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_attempts_are_read() {
        let listed = "table inet count {\n\tset syns {\n\t\ttypeof tcp sport . tcp sequence\n\
            \t\tsize 65535\n\t\tflags dynamic\n\t\tcounter\n\
            \t\telements = { 20001 . 3141592653 counter packets 2 bytes 120,\n\
            \t\t\t     20001 . 27 counter packets 1 bytes 60 }\n\t}\n}\n";
        let attempts = parse_syns(listed).unwrap();
        let wanted = [((20_001, 27), 1), ((20_001, 3_141_592_653), 2)];
        assert_eq!(attempts, BTreeMap::from(wanted));
        assert_eq!(by_port(&attempts), BTreeMap::from([(20_001, 3)]));
        assert_eq!(parse_syns("set syns {\n}").unwrap(), BTreeMap::new());
    }
}
