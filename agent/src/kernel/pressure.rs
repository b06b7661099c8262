//! Pressure stall information: for how long tasks have waited for CPU, memory or I/O,
//! of the whole node and of each cgroup.
//!
//! Only the totals are read. The averages in the same files lag by two seconds
//! (kernel/sched/psi.c, `PSI_FREQ`), the totals are brought up to date by the reading.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What tasks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// To run.
    Cpu,
    /// For memory to be reclaimed, compacted or read back.
    Memory,
    /// For a disk.
    Io,
    /// For interrupts to leave the CPU. Only where the kernel accounts their time.
    Irq,
}

impl Resource {
    /// All, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Io, Self::Irq];

    /// What files and labels call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Irq => "irq",
        }
    }

    /// The node's file.
    pub fn of_node(self) -> PathBuf {
        Path::new("/proc/pressure").join(self.name())
    }

    /// The file of a cgroup.
    pub const fn of_cgroup(self) -> &'static str {
        match self {
            Self::Cpu => "cpu.pressure",
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
            Self::Irq => "irq.pressure",
        }
    }
}

/// Time for which tasks have waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// At least one task waited.
    pub some: Duration,
    /// All tasks that had something to do waited.
    pub full: Duration,
}

impl Stall {
    /// What has been added since; nothing if the counter began anew.
    pub fn since(self, before: Self) -> Self {
        Self {
            some: self.some.saturating_sub(before.some),
            full: self.full.saturating_sub(before.full),
        }
    }
}

/// Reads a pressure file.
///
/// # Errors
///
/// `NotFound` where the kernel has no such file, `Unsupported` where PSI is off, for this
/// cgroup or at all; else the kernel's error, or that the file has another form.
pub fn read(path: &Path) -> io::Result<Stall> {
    let text = fs::read_to_string(path)?;
    parse(&text).ok_or_else(|| {
        let what = format!("{}: no line some or full with a total", path.display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// The kernel's promise to tell when tasks have waited for too much of a window: its file
/// becomes readable with priority data, once a window at most. Closing it ends it.
#[derive(Debug)]
pub struct Trigger {
    /// What tasks would wait for.
    pub resource: Resource,
    file: File,
}

impl Trigger {
    /// Windows that are asked for: the short one takes CAP_SYS_RESOURCE, without which
    /// the kernel wants a multiple of two seconds, from 6.1 on (psi.c,
    /// `psi_trigger_create`).
    const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

    /// Asks for the node: for some task waiting for more than this share of a window.
    ///
    /// # Errors
    ///
    /// The kernel's: where it has no such file, or lets this process ask for nothing.
    pub fn on_node(resource: Resource, share: f64) -> io::Result<Self> {
        Self::on(&resource.of_node(), resource, share)
    }

    /// The same for the tasks of the cgroup with this folder, and those below it. The kernel has a
    /// thread for each cgroup that somebody asks for, which sleeps while nobody waits there.
    ///
    /// # Errors
    ///
    /// As [`Self::on_node`]; `NotFound` where the cgroup is gone.
    pub fn on_cgroup(folder: &Path, resource: Resource, share: f64) -> io::Result<Self> {
        Self::on(&folder.join(resource.of_cgroup()), resource, share)
    }

    fn on(path: &Path, resource: Resource, share: f64) -> io::Result<Self> {
        let mut refusal = None;
        for window in Self::WINDOWS {
            match Self::open(path, resource, share, window) {
                Ok(trigger) => return Ok(trigger),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
    }

    fn open(path: &Path, resource: Resource, share: f64, window: Duration) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let some = window.mul_f64(share.clamp(0.0, 1.0));
        // The kernel wants the whole in one piece, and takes its last byte for the end
        // (psi.c, `psi_write`).
        let request = format!("some {} {}\0", some.as_micros(), window.as_micros());
        file.write_all(request.as_bytes())?;
        Ok(Self { resource, file })
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Totals are in microseconds. Up to 5.12 the CPU's has no line `full`, and the
/// interrupts' never has `some`.
pub(super) fn parse(text: &str) -> Option<Stall> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let total = line.split(' ').find_map(|it| it.strip_prefix("total="))?;
        total.trim().parse().map(Duration::from_micros).ok()
    };
    match (total("some "), total("full ")) {
        (None, None) => None,
        (Some(some), full) => Some(Stall {
            some,
            full: full.unwrap_or_default(),
        }),
        // Of the interrupts nothing but `full` is known: whoever waits, waits with all.
        (None, Some(full)) => Some(Stall { some: full, full }),
    }
}

/// For fuzzing: pressure files.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "pressure",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = parse(&text);
    },
    seeds: &[
        b"some avg10=0.12 avg60=0.01 avg300=0.00 total=1234567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=89\n",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn both_lines_of_every_kernel_are_read() {
        let memory = "some avg10=0.22 avg60=0.39 avg300=0.68 total=262468953\n\
                      full avg10=0.09 avg60=0.24 avg300=0.61 total=120631785\n";
        let stall = parse(memory).expect("as Linux 6.18 has it");
        assert_eq!((stall.some, stall.full), (US(262_468_953), US(120_631_785)));
        let old_cpu = "some avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";
        let stall = parse(old_cpu).expect("as Linux 5.10 has it");
        assert_eq!((stall.some, stall.full), (US(17), US(0)));
        let irq = "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(parse(irq).expect("as Linux 6.1 has it").some, US(9));
    }

    #[test]
    fn what_is_no_pressure_is_refused() {
        let garbled = [
            "",
            "some",
            "some avg10=0.00 total=",
            "some total=-1",
            "some total=99999999999999999999999",
            "nonsense total=5",
            "\0\u{fffd}",
        ];
        for text in garbled {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_counter_that_began_anew_is_no_stall() {
        let (old, new) = (US(500), US(20));
        let stall = |some| Stall { some, full: some };
        assert_eq!(stall(new).since(stall(old)), Stall::default());
        assert_eq!(stall(old).since(stall(new)).some, US(480));
    }

    #[test]
    fn a_file_that_is_not_there_is_told_from_one_that_is_garbled() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cpu.pressure");
        let kind = |path: &Path| read(path).map_err(|error| error.kind());
        assert_eq!(kind(&path), Err(io::ErrorKind::NotFound));
        fs::write(&path, "garbage\n").expect("written");
        assert_eq!(kind(&path), Err(io::ErrorKind::InvalidData));
    }
}
