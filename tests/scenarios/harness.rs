//! That the guests are what the other scenarios take for granted.

use std::env;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::{self, Family, Listed, Protocol, Services};
use nodemedic_tests::faults::reuse::{self, Close, Settings};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::tools::{runs_folder, unshared_mounts};

pub(crate) fn the_kernel_describes_its_types(guest: &Guest) -> Result<Verdict> {
    ensure!(guest.has_btf("vmlinux"), "no BTF of the kernel");
    ensure!(
        guest.has_symbol("do_exit")?,
        "no symbol do_exit in kallsyms"
    );
    Ok(Verdict::Passed)
}

pub(crate) fn nf_conntrack_comes_and_goes(guest: &Guest) -> Result<Verdict> {
    ensure!(!guest.is_loaded("nf_conntrack")?, "it is loaded already");
    guest.modprobe("nf_conntrack")?;
    ensure!(guest.is_loaded("nf_conntrack")?, "it is not loaded");
    guest.sysctl("net.netfilter.nf_conntrack_max")?;
    guest.rmmod("nf_conntrack")?;
    ensure!(!guest.is_loaded("nf_conntrack")?, "it is still loaded");
    Ok(Verdict::Passed)
}

pub(crate) fn two_namespaces_reach_each_other(guest: &Guest) -> Result<Verdict> {
    let (a, b) = (guest.netns("a")?, guest.netns("b")?);
    a.connect(("eth0", "10.0.0.1/24"), &b, ("eth0", "10.0.0.2/24"))?;
    let printed = a.sh("ping -c 3 -i 0.2 -W 5 10.0.0.2")?;
    ensure!(printed.contains(" 0% packet loss"), "{printed}");
    let address = a.within(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("open a socket")?;
        socket.connect("10.0.0.2:9").context("choose a way")?;
        Ok(socket.local_addr()?.ip().to_string())
    })?;
    ensure!(
        address == "10.0.0.1",
        "a socket in the namespace is at {address}"
    );
    Ok(Verdict::Passed)
}

/// Both kinds of iptables ask the kernel, and the kernel asks modprobe.
pub(crate) fn masquerade_loads_what_it_needs(guest: &Guest) -> Result<Verdict> {
    let client = guest.netns("client")?;
    client.connect_to_guest(("eth0", "10.0.0.2/24"), ("client", "10.0.0.1/24"))?;
    for iptables in ["iptables", "iptables-legacy"] {
        guest.sh(&format!(
            "{iptables} -t nat -A POSTROUTING -s 10.0.0.0/24 -j MASQUERADE"
        ))?;
        ensure!(
            guest.is_loaded("nf_conntrack")?,
            "{iptables} has not loaded nf_conntrack"
        );
    }
    client.sh("ping -c 1 -W 5 10.0.0.1")?;
    eventually(Duration::from_secs(10), "the ping in the table", || {
        let table = guest.sh("conntrack -L -p icmp 2>/dev/null")?;
        ensure!(table.contains("src=10.0.0.2"), "conntrack lists: {table}");
        Ok(())
    })?;
    // The next but one looks whether this is put back.
    guest.set_sysctl("net.ipv4.ip_forward", "1")?;
    std::mem::forget(client);
    Ok(Verdict::Passed)
}

pub(crate) fn ipvs_counts_its_services(guest: &Guest) -> Result<Verdict> {
    ensure!(!guest.is_loaded("ip_vs")?, "ip_vs is loaded already");
    Services::new(100).destinations(2).add(guest)?;
    Services::new(20).family(Family::V6).add(guest)?;
    Services::new(3).protocol(Protocol::Udp).add(guest)?;
    Services::new(1).protocol(Protocol::Sctp).add(guest)?;
    expect(ipvs::listed(guest)?, 124, 224)?;
    let other = guest.netns("other")?;
    expect(ipvs::listed_in(&other)?, 0, 0)?;
    Services::new(7).add_in(guest, &other)?;
    expect(ipvs::listed_in(&other)?, 7, 7)?;
    ipvs::clear(guest)?;
    expect(ipvs::listed(guest)?, 0, 0)?;
    // The next scenario looks whether these go.
    Services::new(10).add(guest)?;
    guest.set_sysctl("net.ipv4.vs.conntrack", "1")?;
    std::mem::forget(other);
    Ok(Verdict::Passed)
}

fn expect(listed: Listed, services: u32, destinations: u32) -> Result<()> {
    let wanted = Listed {
        services,
        destinations,
    };
    ensure!(
        listed == wanted,
        "the kernel lists {listed:?}, not {wanted:?}"
    );
    Ok(())
}

/// The kernel marks a module that is not signed by who built the kernel.
pub(crate) fn ip_vs_is_of_the_time_that_the_matrix_says(guest: &Guest) -> Result<Verdict> {
    guest.modprobe("ip_vs")?;
    let marks = guest.sh("cat /sys/module/ip_vs/taint")?;
    let built_again = marks.contains('E');
    let kernel = guest.kernel()?;
    ensure!(
        built_again == kernel.ends_with("-unfixed"),
        "kernel {kernel} has an ip_vs with the marks {marks:?}"
    );
    // The schedulers are the stock ones, and take it for theirs.
    Services::new(1).add(guest)?;
    expect(ipvs::listed(guest)?, 1, 1)?;
    Ok(Verdict::Passed)
}

/// What a scenario means by a shape of machine.
pub(crate) fn the_usual_machine_has_one_cpu(guest: &Guest) -> Result<Verdict> {
    expect_cpus(guest, 1, 1)
}

pub(crate) fn two_cpus_are_two(guest: &Guest) -> Result<Verdict> {
    expect_cpus(guest, 2, 2)
}

pub(crate) fn many_cpus_are_possible(guest: &Guest) -> Result<Verdict> {
    expect_cpus(guest, 2, 128)
}

fn expect_cpus(guest: &Guest, online: u32, possible: u32) -> Result<Verdict> {
    let found = (guest.online_cpus()?, guest.possible_cpus()?);
    ensure!(
        found == (online, possible),
        "CPUs online and possible: {found:?}"
    );
    Ok(Verdict::Passed)
}

pub(crate) fn nothing_is_left_of_the_ones_before(guest: &Guest) -> Result<Verdict> {
    ensure!(
        guest.sysctl("net.ipv4.ip_forward")? == "0",
        "ip_forward is still set"
    );
    for module in ["nf_conntrack", "ip_vs", "ip_vs_rr"] {
        ensure!(!guest.is_loaded(module)?, "{module} is still loaded");
    }
    guest.modprobe("ip_vs")?;
    ensure!(
        guest.sysctl("net.ipv4.vs.conntrack")? == "0",
        "net.ipv4.vs.conntrack is still set"
    );
    let namespaces = guest.sh("ip netns list")?;
    ensure!(namespaces.is_empty(), "namespaces are left: {namespaces}");
    let interfaces = guest.sh("ip -brief link")?;
    ensure!(
        interfaces.lines().count() == 1,
        "interfaces are left: {interfaces}"
    );
    Ok(Verdict::Passed)
}

/// A test of the matrix that is as short as any.
const SHORT: &str = "vm::6.12::harness::the_kernel_describes_its_types";

pub(crate) fn a_kernel_that_is_not_there_is_an_error() -> Result<()> {
    let run = this()?.env("NODEMEDIC_VM_KERNEL", "2.4").output();
    let run = run.context("run this program")?;
    says(&run, 2, &["no kernel \"2.4\"", "5.10, 6.1, 6.12, newest"])
}

pub(crate) fn a_qemu_that_is_not_there_is_a_failure() -> Result<()> {
    let run = this()?.env("NODEMEDIC_QEMU", "/nowhere/qemu").output();
    let run = run.context("run this program")?;
    says(&run, 101, &["start QEMU, /nowhere/qemu", "NODEMEDIC_QEMU"])
}

/// The folder of the running machines is on a disk of its own that is soon full.
pub(crate) fn a_full_disk_is_a_failure() -> Result<()> {
    let small = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
    let this = this()?;
    let mut run = unshared_mounts();
    run.args(["sh", "-c", small])
        .arg(runs_folder()?)
        .arg(this.get_program())
        .args(this.get_args());
    let run = run.output().context("run this program")?;
    says(&run, 101, &["No space left on device", "NODEMEDIC_CACHE"])
}

/// This program, to run one short test.
fn this() -> Result<Command> {
    let program = env::current_exe().context("find the running test binary")?;
    let mut command = Command::new(program);
    command.args(["--exact", SHORT]);
    Ok(command)
}

fn says(run: &Output, code: i32, words: &[&str]) -> Result<()> {
    let output = [&run.stdout[..], &run.stderr[..]].concat();
    let output = String::from_utf8_lossy(&output);
    ensure!(run.status.code() == Some(code), "{}: {output}", run.status);
    for word in words {
        ensure!(output.contains(word), "nothing of {word:?}: {output}");
    }
    Ok(())
}

/// What a server still had of clients that vanished kept its namespace, and the next site could not
/// have its interfaces.
pub(crate) fn a_site_goes_with_its_vanished_clients(guest: &Guest) -> Result<Verdict> {
    const LIMIT: Duration = Duration::from_secs(10);
    for _ in 0..2 {
        let site = reuse::Site::build(guest, Family::V4)?;
        site.set(guest, Settings::KUBE_PROXY)?;
        site.add_services(guest, &[8_000])?;
        let connection = site.connect(20_000, 8_000, LIMIT)?;
        connection
            .context("nobody answers")?
            .close(Close::Vanished)?;
        site.clear(guest)?;
        drop(site);
        guest.sh("nft flush ruleset; ip link del vip")?;
    }
    Ok(Verdict::Passed)
}
