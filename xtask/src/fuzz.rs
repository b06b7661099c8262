//! Looks for bytes that make a parser of the agent panic, or hang, with libFuzzer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::{build_dir, cargo, paths};

/// What libFuzzer goes by: each edge and each comparison is counted. A stable compiler has them.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Which parser reads a file of a case, by what its path has in it.
const CASES: [(&str, &str); 13] = [
    ("/proc/stat", "machine"),
    ("/proc/diskstats", "machine"),
    ("/proc/meminfo", "machine"),
    ("/proc/vmstat", "machine"),
    ("/proc/softirqs", "machine"),
    (".pressure", "pressure"),
    ("/proc/pressure/", "pressure"),
    ("/mountinfo", "mountinfo"),
    ("/stat/nf_conntrack", "conntrack_stat"),
    ("/net/ip_vs", "ipvs"),
    ("/kallsyms", "kallsyms"),
    ("cpu.stat", "cgroup"),
    ("io.stat", "cgroup"),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes for each parser.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// So many parsers at a time [default: one a CPU].
    #[arg(long)]
    jobs: Option<std::num::NonZero<usize>>,
    /// Only these parsers [default: all].
    parsers: Vec<String>,
}

/// What came of one parser.
struct Outcome {
    executions: u64,
    coverage: u64,
    corpus: u64,
    failure: Option<String>,
}

impl Outcome {
    /// Prints the figures as docs/reliability.md has them.
    fn tell(self, name: &str) -> Option<String> {
        let failed = u8::from(self.failure.is_some());
        let Self {
            executions,
            coverage,
            corpus,
            failure,
        } = self;
        println!("| `{name}` | {executions} | {coverage} | {corpus} | {failed} |");
        failure
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let program = build()?;
    let known = names(&program)?;
    for name in &args.parsers {
        ensure!(
            known.contains(name),
            "{name} is no parser: {}",
            known.join(", ")
        );
    }
    let mut names = if args.parsers.is_empty() {
        known
    } else {
        args.parsers
    };
    names.sort();
    let from_cases = cases()?;
    let seconds = (args.minutes * 60.0).max(1.0) as u64;
    let todo = Mutex::new(names.into_iter());
    let failures = Mutex::new(Vec::new());
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok());
    let next = || todo.lock().ok()?.next();
    println!("| Parser | Executions | Edges | Inputs kept | Failures |");
    println!("|---|---|---|---|---|");
    let work = || {
        while let Some(name) = next() {
            let outcome = fuzz(&program, &name, from_cases.get(name.as_str()), seconds);
            let failure = match outcome {
                Ok(outcome) => outcome.tell(&name),
                Err(error) => Some(format!("fuzz {name}: {error:#}")),
            };
            if let Ok(mut failures) = failures.lock() {
                failures.extend(failure);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// In a folder of its own: nothing else is built with these flags.
fn build() -> Result<PathBuf> {
    let folder = paths::target_dir().join("fuzz");
    let mut build = Command::new(cargo::program());
    build.current_dir(paths::root()).arg("build");
    build.arg("--target-dir").arg(&folder);
    build.env(build_dir::VARIABLE, &folder);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    build.env("RUSTFLAGS", format!("{flags} {COVERAGE}"));
    // Named although it is the host's: only then do the flags spare build scripts.
    build.args(["--target", cargo::TARGET]);
    build.args(["--profile=fuzz", "--package=nodemedic", "--bin=nodemedic"]);
    cargo::run(&mut build)
        .context("build for libFuzzer: it takes a C++ compiler (apt install g++)")?;
    Ok(folder.join(cargo::TARGET).join("fuzz/nodemedic"))
}

fn names(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).env("NODEMEDIC_FUZZ", "list").output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    let names = String::from_utf8(output.stdout).context("read the names of the parsers")?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Files of the cases, by the parser that reads them.
fn cases() -> Result<BTreeMap<&'static str, Vec<Vec<u8>>>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let folder = paths::root().join("tests/cases");
    let cases = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    for case in cases {
        let case = case.context("list the cases")?.path();
        // Not each case has both.
        let texts = ["before.txtar", "after.txtar"].map(|name| fs::read_to_string(case.join(name)));
        for section in texts.iter().flatten().flat_map(|text| text.split("\n-- ")) {
            let section = section.trim_start_matches("-- ").split_once(" --\n");
            let Some((path, content)) = section else {
                continue;
            };
            if let Some((_, parser)) = CASES.iter().find(|(part, _)| path.contains(part)) {
                found
                    .entry(*parser)
                    .or_default()
                    .push(content.as_bytes().to_vec());
            }
        }
    }
    Ok(found)
}

fn fuzz(program: &Path, name: &str, seeds: Option<&Vec<Vec<u8>>>, seconds: u64) -> Result<Outcome> {
    let folder = paths::target_dir().join("fuzz/corpus").join(name);
    let artifacts = paths::target_dir().join("fuzz/failures").join(name);
    for folder in [&folder, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    for (number, seed) in seeds.into_iter().flatten().enumerate() {
        let file = folder.join(format!("case-{number}"));
        fs::write(&file, seed).with_context(|| format!("write {}", file.display()))?;
    }
    eprintln!("{name}: {seconds} s");
    let output = Command::new(program)
        .env("NODEMEDIC_FUZZ", name)
        .env("NODEMEDIC_FUZZ_SEEDS", &folder)
        .arg(&folder)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args([
            "-max_len=65536",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
        ])
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let last = |key: &str| {
        let words = log.split_whitespace().collect::<Vec<_>>();
        let mut values = words.windows(2).filter(|pair| pair[0] == key);
        values
            .next_back()
            .and_then(|pair| pair[1].split('/').next()?.parse().ok())
    };
    let failure = (!output.status.success()).then(|| {
        let lines: Vec<_> = log.lines().collect();
        format!(
            "{name}: see {}\n{}",
            artifacts.display(),
            lines[lines.len().saturating_sub(30)..].join("\n")
        )
    });
    Ok(Outcome {
        executions: last("stat::number_of_executed_units:").unwrap_or_default(),
        coverage: last("cov:").unwrap_or_default(),
        corpus: last("corp:").unwrap_or_default(),
        failure,
    })
}
