//! One virtual machine: how it is made, started and stopped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::archive::Archive;
use super::elf::Elf;
use super::guest_root;
use super::kernel_image::{self, KernelImage};
use super::kernels::{Kernel, Matrix};
use super::machine::{Clock, Machine};
use super::madt;
use super::qemu::{self, Qemu};
use super::run_folder::RunFolder;
use crate::files;
use crate::protocol::{self, Job};

/// `panic=-1` restarts at once, which ends QEMU. The rest takes away what costs time under
/// emulation, or moves the addresses in a report about.
const CMDLINE: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off nokaslr tsc=reliable";

/// All that QEMU emulates, without what says that copying by single bytes is fast (`rep movsb`,
/// `rep stosb`), and without long vectors: the kernel then copies and clears by words, and has less to
/// save of each task. That takes an emulator a quarter off a scenario.
const CPU: &str = "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc,-avx,-avx2,-fma,-f16c,-vaes,-vpclmulqdq";

/// The guest's calendar: the same in each boot, and as fast as its other clocks.
const CALENDAR: &str = "base=2026-01-01T00:00:00,clock=vm";

/// All that a guest is made of.
#[derive(Debug, Clone)]
pub(crate) struct Vm {
    pub(crate) machine: Machine,
    /// TCP ports of the host's loopback that lead to the same port in the guest.
    forwards: Vec<u16>,
    qemu: Qemu,
    kernel: KernelImage,
    /// The archives that make up its file system, without the job.
    archives: Vec<PathBuf>,
    /// This becomes PID 1.
    init: PathBuf,
    agent: Option<PathBuf>,
}

impl Vm {
    /// Fetches and prepares what is not in the cache. `init` is a static build of the test binary.
    pub(crate) fn prepare(
        matrix: &Matrix,
        kernel: &Kernel,
        machine: Machine,
        init: &Path,
    ) -> Result<Self> {
        let kernel = kernel_image::prepare(kernel)?;
        let archives = vec![
            kernel.modules.clone(),
            guest_root::prepare(matrix)?,
            guest_root::prepare_stress(matrix)?,
        ];
        Ok(Self {
            machine,
            forwards: Vec::new(),
            qemu: qemu::prepare(&matrix.qemu)?,
            kernel,
            archives,
            init: init.to_owned(),
            agent: None,
        })
    }

    /// Takes the agent along, which must be static, too.
    pub(crate) fn agent(&mut self, path: &Path) -> Result<()> {
        ensure_static(path)?;
        self.agent = Some(path.to_owned());
        Ok(())
    }

    /// Lets something on the host reach these TCP ports of the guest, whose clock then must not leap
    /// ahead of the host's.
    pub(crate) fn forward(&mut self, ports: &[u16]) {
        self.forwards.extend(ports);
        if let Clock::Virtual(shift) = self.machine.clock {
            self.machine.clock = Clock::Paced(shift);
        }
    }

    pub(crate) fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// Takes bpftrace along. It and its libraries are big: the guest needs 2 GiB.
    pub(crate) fn bpftrace(&mut self, matrix: &Matrix) -> Result<()> {
        self.archives.push(guest_root::prepare_bench(matrix)?);
        self.machine.memory_mib = self.machine.memory_mib.max(2048);
        Ok(())
    }

    /// Takes a container runtime along.
    pub(crate) fn containers(&mut self, matrix: &Matrix) -> Result<()> {
        self.archives.push(guest_root::prepare_containers(matrix)?);
        Ok(())
    }

    /// Takes a service manager along.
    pub(crate) fn systemd(&mut self, matrix: &Matrix) -> Result<()> {
        self.archives.push(guest_root::prepare_systemd(matrix)?);
        Ok(())
    }

    /// Takes file systems along.
    pub(crate) fn disks(&mut self, matrix: &Matrix) -> Result<()> {
        self.archives.push(guest_root::prepare_disks(matrix)?);
        Ok(())
    }

    /// Starts it with its console in a file.
    pub(crate) fn start(&self, job: &Job) -> Result<Running> {
        let folder = RunFolder::create()?;
        let mut command = self.command(job, &folder)?;
        command
            .arg("-serial")
            .arg(format!("file:{}", folder.console().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(create(&folder.complaints())?);
        let child = command.spawn().with_context(|| self.qemu.advice())?;
        Ok(Running { child, folder })
    }

    /// Runs it to its end with its console on this terminal. Ctrl-A X ends it.
    pub(crate) fn attach(&self, job: &Job) -> Result<ExitStatus> {
        let folder = RunFolder::create()?;
        let mut command = self.command(job, &folder)?;
        command.args(["-serial", "mon:stdio"]);
        command.status().with_context(|| self.qemu.advice())
    }

    fn command(&self, job: &Job, folder: &RunFolder) -> Result<Command> {
        let job = Job {
            network: !self.forwards.is_empty(),
            ..job.clone()
        };
        self.initrd(&job, folder).context("make the initrd")?;
        let mut command = self.qemu.command()?;
        command
            .args(clock(&self.machine))
            .args([
                "-cpu",
                CPU,
                "-machine",
                "q35",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-display", "none", "-no-reboot"])
            .args(["-smp", &self.machine.cpus.to_string()])
            .args(["-m", &self.machine.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&self.kernel.vmlinuz)
            .arg("-initrd")
            .arg(folder.initrd())
            .args(["-append", &format!("{CMDLINE} {}", self.machine.words())])
            // Without ioeventfd the guest's own thread does what the guest asks of the device, at the
            // same instruction each time.
            .args(["-device", "virtio-serial-pci,ioeventfd=off"])
            .arg("-chardev")
            .arg(format!("file,id=events,path={}", folder.events().display()))
            .arg("-device")
            .arg(format!(
                "virtserialport,chardev=events,name={}",
                protocol::PORT
            ));
        self.more_cpus(&mut command, folder)?;
        self.network(&mut command);
        die_with_us(&mut command);
        Ok(command)
    }

    fn more_cpus(&self, command: &mut Command, folder: &RunFolder) -> Result<()> {
        let Some(cpus) = self.machine.listed_cpus() else {
            return Ok(());
        };
        let path = folder.path().join("madt");
        fs::write(&path, madt::table(cpus)).with_context(|| format!("write {}", path.display()))?;
        let option = madt::option(&path.display().to_string());
        command.args(["-acpitable", &option]);
        Ok(())
    }

    fn network(&self, command: &mut Command) {
        if self.forwards.is_empty() {
            return;
        }
        let forwards = self.forwards.iter();
        let forwards = forwards.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:{port}"));
        command
            .arg("-netdev")
            .arg(format!(
                "user,id=host,ipv6=off{}",
                forwards.collect::<String>()
            ))
            // Its boot ROM is in another package, and nothing is booted from it.
            .args(["-device", "virtio-net-pci,netdev=host,romfile="]);
    }

    /// The kernel unpacks archives one after the other. Only the last is made for each start.
    fn initrd(&self, job: &Job, folder: &RunFolder) -> Result<()> {
        let own = folder.path().join("job.cpio");
        self.job_archive(job, &own)?;
        let mut initrd = create(&folder.initrd())?;
        for part in self.archives.iter().chain([&own]) {
            let context = || format!("copy {}", part.display());
            let mut part = File::open(part).with_context(context)?;
            io::copy(&mut part, &mut initrd).with_context(context)?;
        }
        fs::remove_file(&own).with_context(|| format!("remove {}", own.display()))
    }

    fn job_archive(&self, job: &Job, target: &Path) -> Result<()> {
        let mut archive = Archive::create(target)?;
        archive.file("init", 0o755, &files::read(&self.init)?)?;
        if let Some(agent) = &self.agent {
            archive.file(protocol::AGENT, 0o755, &files::read(agent)?)?;
        }
        let job = serde_json::to_vec(job).context("write the job")?;
        archive.file(protocol::JOB, 0o644, &job)?;
        archive.finish()
    }
}

fn clock(machine: &Machine) -> Vec<String> {
    let (shift, pace) = match machine.clock {
        Clock::Host => return words(&["-accel", "tcg,thread=multi,tb-size=256"]),
        // Without `align` a busy guest leaps ahead, as a host executes more than an instruction in 4 ns.
        Clock::Paced(shift) => (shift, "sleep=on,align=on"),
        Clock::Virtual(shift) => (shift, "sleep=off"),
    };
    let mut options = words(&["-accel", "tcg,thread=single,tb-size=256", "-icount"]);
    options.push(format!("shift={},{pace}", shift.0));
    options.extend(words(&["-rtc", CALENDAR, "-seed"]));
    options.push(machine.seed.to_string());
    options
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("create {}", path.display()))
}

/// However we end, the program ends too: a guest that hangs would keep a CPU busy for ever.
pub(super) fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only this one system call is made.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
}

/// A guest has no C library for it.
pub(crate) fn ensure_static(program: &Path) -> Result<()> {
    let bytes = files::read(program)?;
    let elf = Elf::parse(&bytes).with_context(|| format!("look at {}", program.display()))?;
    ensure!(
        elf.is_static(),
        "{} is linked dynamically and cannot run in a VM: `cargo xtask test` and `cargo xtask vm` \
         build it statically; NODEMEDIC_VM=off leaves the VMs out",
        program.display()
    );
    Ok(())
}

/// A started VM. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    folder: RunFolder,
}

impl Running {
    pub(crate) fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// QEMU's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for QEMU")
    }

    /// What QEMU itself said.
    pub(crate) fn complaints(&self) -> String {
        fs::read_to_string(self.folder.complaints()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do, and nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
