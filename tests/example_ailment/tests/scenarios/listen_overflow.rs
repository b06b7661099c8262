//! `listen_overflow`: a listener that accepts nothing, beside one that does, and each place where
//! users meet the ailment.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::agent::{Agent, SOON, check, verb};

const AILMENT: &str = "listen_overflow";
const KIND: &str = "backlog_full";
const DROPS: &str = "nodemedic_listen_overflow_drops_total";
const SOMAXCONN: &str = "net.core.somaxconn";

const ACCEPTED: u16 = 20_001;
const FULL: u16 = 20_002;

const fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn tcp(flags: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).context("open a socket")
}

/// Listens, and accepts nothing: the queue has room for two.
fn full_listener() -> Result<OwnedFd> {
    let listener = tcp(SocketFlags::empty())?;
    bind(&listener, &at(FULL)).context("bind")?;
    listen(&listener, 1).context("listen")?;
    Ok(listener)
}

/// A request for a connection, repeated by the kernel until it is closed.
fn request() -> Result<OwnedFd> {
    let client = tcp(SocketFlags::NONBLOCK)?;
    match connect(&client, &at(FULL)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(client),
        Err(error) => Err(error).context("connect"),
    }
}

/// `ListenOverflows`: the kernel's own count of the same.
fn overflows(guest: &Guest) -> Result<f64> {
    let count = guest.sh(
        "awk '/^TcpExt:/ { if (column) { print $column; exit } \
         for (i = 1; i <= NF; i++) if ($i == \"ListenOverflows\") column = i }' /proc/net/netstat",
    )?;
    count.trim().parse().context("read ListenOverflows")
}

pub(crate) fn a_full_listener_is_found(guest: &Guest) -> Result<Verdict> {
    guest.set_sysctl(SOMAXCONN, "128")?;
    let agent = Agent::start_for(guest, AILMENT, "min_drops = 10")?;
    is_attached(guest, &agent)?;

    let accepting = TcpListener::bind(at(ACCEPTED)).context("listen")?;
    for _ in 0..50 {
        let _client = TcpStream::connect(at(ACCEPTED)).context("connect")?;
        accepting.accept().context("accept")?;
    }
    agent.finds(&[], SOON)?;
    let healthy = check(guest, &[AILMENT])?;
    ensure!(
        healthy.status.code() == Some(0) && healthy.stdout.contains("listen_overflow: healthy"),
        "{}",
        healthy.stdout
    );

    let _listener = full_listener()?;
    let before = overflows(guest)?;
    let clients = (0..40).map(|_| request()).collect::<Result<Vec<_>>>()?;
    agent.finds_one(KIND, SOON)?;
    drop(clients);
    let dropped = overflows(guest)? - before;
    ensure!(dropped >= 38.0, "the kernel counts {dropped}");
    agent.shows("the kernel's count", SOON, |metrics| {
        let port = FULL.to_string();
        let counted = metrics.sum(DROPS, &[("port", &port)]);
        ensure!(
            counted == dropped,
            "{counted}, and the kernel counts {dropped}"
        );
        let of_others = metrics.sum(DROPS, &[("port", &ACCEPTED.to_string())]);
        ensure!(of_others == 0.0, "{of_others} of the one that accepts");
        Ok(())
    })?;
    agent.finds(&[], SOON)?;

    while_it_is_full(|| {
        agent.finds_one(KIND, SOON)?;
        every_surface_shows_it(guest, &agent)?;
        it_is_treated_and_undone(guest, &agent)
    })?;
    Ok(Verdict::Passed)
}

/// Twenty requests a second, for at most four minutes.
fn while_it_is_full(f: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4_800 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let _client = request();
                sleep(Duration::from_millis(50));
            }
        });
        let result = f();
        over.store(true, Ordering::Relaxed);
        result
    })
}

fn is_attached(guest: &Guest, agent: &Agent) -> Result<()> {
    let report = agent.report()?;
    let hook = if guest.has_btf("vmlinux") {
        "fentry"
    } else {
        "kprobe"
    };
    let probe = &report["probes"][0];
    ensure!(
        probe["name"] == "drops" && probe["hook"] == hook,
        "{probe}, and not {hook}"
    );
    let table = verb(guest, &["probes"])?.ok()?;
    shows("nodemedic probes", &table, &[AILMENT, "drops", hook])
}

fn every_surface_shows_it(guest: &Guest, agent: &Agent) -> Result<()> {
    let full = FULL.to_string();
    let sick = check(guest, &[AILMENT])?;
    ensure!(sick.status.code() == Some(1), "{}", sick.stdout);
    let remedy = "nodemedic treat listen_overflow --treatment somaxconn";
    shows(
        "nodemedic check",
        &sick.stdout,
        &["listen_overflow: critical", &full, remedy],
    )?;
    shows("the page", &agent.page("/")?, &[AILMENT, &full])?;
    shows(
        "/metrics",
        &agent.page("/metrics")?,
        &[
            "nodemedic_listen_overflow_overflows_total",
            "nodemedic_ailment_findings{ailment=\"listen_overflow\",kind=\"backlog_full\"} 1",
            "nodemedic_ailment_verdict{ailment=\"listen_overflow\",verdict=\"critical\"} 1",
        ],
    )?;
    let calls: [(&[&str], &[&str]); 3] = [
        (
            &["config", "--default"],
            &["[ailments.listen_overflow]", "min_drops = 10"],
        ),
        (&["metrics", "--list"], &[DROPS]),
        (&["treatments"], &["somaxconn", SOMAXCONN]),
    ];
    for (arguments, words) in calls {
        shows(&arguments.join(" "), &verb(guest, arguments)?.ok()?, words)?;
    }
    Ok(())
}

fn it_is_treated_and_undone(guest: &Guest, agent: &Agent) -> Result<()> {
    verb(guest, &["treat", AILMENT, "--apply"])?.ok()?;
    ensure!(guest.sysctl(SOMAXCONN)? == "4096", "it is not set");
    agent.shows("the treatment", SOON, |metrics| {
        let labels = [("treatment", "somaxconn")];
        let active = metrics.sum("nodemedic_treatment_active", &labels);
        ensure!(active == 1.0, "{active} are active");
        Ok(())
    })?;
    verb(guest, &["undo"])?.ok()?;
    eventually(SOON, "the value is restored", || {
        let value = guest.sysctl(SOMAXCONN)?;
        ensure!(value == "128", "it is {value}");
        Ok(())
    })
}

fn shows(surface: &str, text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{surface} lacks {word:?}: {text}");
    }
    Ok(())
}
