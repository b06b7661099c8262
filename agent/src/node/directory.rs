//! The directory of the node: what pods and containers are called, kept by a thread of its
//! own. Readings take what is known and never wait; what they do not find is asked for.

use std::{
    cmp::Reverse,
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Name, Names, Node, Owner, PodLabels,
    names::{PodRecord, Unknown},
    source::{Called, Source},
};
use crate::{
    kernel::{cgroup, netns},
    model::DirectoryReport,
    time::unix_seconds,
};

/// The least time between two questions, however much is unknown.
const PAUSE: Duration = Duration::from_secs(5);

/// Unknown ones that are remembered as asked for, so that they are not asked for at each
/// reading.
const MAX_ASKED: usize = 4_096;

/// Names that nobody has confirmed for so many times of a refresh are forgotten as far as
/// another may have taken them over since: addresses and network namespaces.
const STALE: u32 = 5;

/// What is known of the node's pods and containers. Its clones share it.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    shared: Option<Arc<Shared>>,
    labels: Arc<PodLabels>,
}

#[derive(Debug)]
struct Shared {
    names: RwLock<Known>,
    asked: Mutex<HashSet<Unknown>>,
    wanted: Notify,
    state: RwLock<DirectoryReport>,
    stale_after: Duration,
}

#[derive(Clone, Debug, Default)]
struct Known {
    names: Arc<Names>,
    taken: Option<Instant>,
}

impl Directory {
    /// Begins to keep one, as the configuration has it.
    ///
    /// # Errors
    ///
    /// When a file that is named cannot be used, or there can be no thread.
    pub fn start(settings: &Node) -> anyhow::Result<Self> {
        let labels = Arc::new(settings.pod_labels.clone());
        let Some(source) = Source::of(settings)? else {
            return Ok(Self {
                shared: None,
                labels,
            });
        };
        let shared = Arc::new(Shared {
            names: RwLock::default(),
            asked: Mutex::default(),
            wanted: Notify::new(),
            state: RwLock::default(),
            stale_after: settings.refresh * STALE,
        });
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            source,
            settings: settings.clone(),
            last_error: None,
            last_others: Vec::new(),
        };
        keeper.begin()?;
        Ok(Self {
            shared: Some(shared),
            labels,
        })
    }

    /// Whether one could be kept.
    ///
    /// # Errors
    ///
    /// When a file that is named cannot be used.
    pub fn check(settings: &Node) -> anyhow::Result<()> {
        Source::of(settings).map(drop)
    }

    /// The labels of pods that go along with their names, whether or not any is known.
    pub fn labels(&self) -> &PodLabels {
        &self.labels
    }

    /// Of what is in a cgroup, by its path.
    pub fn of_cgroup(&self, path: &str) -> Option<Name> {
        let shared = self.shared.as_ref()?;
        let (name, unknown) = shared.known().names.of_owner(&Owner::of(path));
        if let Some(unknown) = unknown {
            shared.want(unknown);
        }
        name
    }

    /// The pod that has an address of its own.
    pub fn of_address(&self, address: IpAddr) -> Option<Name> {
        self.shared.as_ref()?.fresh()?.of_address(address)
    }

    /// The pod that has a network namespace of its own. Where nobody tells of it, a process
    /// in it, if one is known, tells by its cgroup.
    pub fn of_netns(&self, netns: u32, process: Option<u32>) -> Option<Name> {
        let shared = self.shared.as_ref()?;
        let known = shared.fresh().and_then(|names| names.of_netns(netns));
        known.or_else(|| self.of_process(process?))
    }

    /// The pod of a process that has a network namespace of its own.
    fn of_process(&self, pid: u32) -> Option<Name> {
        let is_nodes = netns::of_process(pid).ok()? == netns::own().ok()?;
        let paths = cgroup::of_process(pid).ok()?;
        (!is_nodes).then(|| self.pod_of(&paths))?
    }

    /// Which of a pod's containers a process is in says nothing of their network. A process has a
    /// path in each tree; of a pod within a pod the one that shows both counts, wherever it comes.
    fn pod_of(&self, paths: &[String]) -> Option<Name> {
        let mut paths: Vec<_> = paths.iter().collect();
        paths.sort_by_key(|path| (Reverse(Owner::of(path).levels().count()), *path));
        let name = paths.into_iter().find_map(|path| self.of_cgroup(path))?;
        Some(Name {
            container: String::new(),
            inside: String::new(),
            ..name
        })
    }

    /// How well names are known; `None` where nobody is to be asked.
    pub fn report(&self) -> Option<DirectoryReport> {
        let shared = self.shared.as_ref()?;
        let state = shared.state.read();
        Some(state.unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits until the first question has got an answer or none, on a thread that may block.
    pub fn settle(&self, within: Duration) {
        const LOOK: Duration = Duration::from_millis(10);
        let end = Instant::now() + within;
        let asked = || self.report().is_none_or(|it| it.answers + it.errors > 0);
        while !asked() && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }

    /// Of these pods, for tests.
    #[cfg(test)]
    pub fn fake(pods: &[(&str, Name, &str, u32)]) -> Self {
        let record = |(uid, name, address, netns): &(&str, Name, &str, u32)| PodRecord {
            uid: (*uid).to_owned(),
            namespace: name.namespace.clone(),
            name: name.pod.clone(),
            labels: name.labels.clone().into_iter().collect(),
            addresses: address.parse().into_iter().collect(),
            netns: Some(*netns),
            ..PodRecord::default()
        };
        let labels = PodLabels::usual();
        let names = Names::of(pods.iter().map(record).collect(), pods.len(), &labels);
        let known = Known {
            names: Arc::new(names),
            taken: Some(Instant::now()),
        };
        let shared = Shared {
            names: RwLock::new(known),
            asked: Mutex::default(),
            wanted: Notify::new(),
            state: RwLock::default(),
            stale_after: Duration::MAX,
        };
        Self {
            shared: Some(Arc::new(shared)),
            labels: Arc::new(labels),
        }
    }
}

impl Shared {
    fn known(&self) -> Known {
        let known = self.names.read();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fresh(&self) -> Option<Arc<Names>> {
        let known = self.known();
        let fresh = known
            .taken
            .is_some_and(|at| at.elapsed() < self.stale_after);
        fresh.then_some(known.names)
    }

    /// Once for each, until all are asked for anyhow.
    fn want(&self, unknown: Unknown) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < MAX_ASKED && asked.insert(unknown) {
            self.wanted.notify_one();
        }
    }

    /// What is known by now may go, and be asked for again should it be forgotten; all at a
    /// refresh that nobody had to ask for.
    fn settle(&self, names: &Names, all: bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|unknown| !all && !names.knows(unknown));
    }

    fn report(&self, change: impl FnOnce(&mut DirectoryReport)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Asks, again and again.
struct Keeper {
    shared: Arc<Shared>,
    source: Source,
    settings: Node,
    last_error: Option<String>,
    last_others: Vec<String>,
}

impl Keeper {
    /// On a thread with a runtime of its own: a large answer is taken apart while the
    /// agent's goes on.
    fn begin(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("directory".to_owned());
        thread.spawn(move || runtime.block_on(self.keep()))?;
        Ok(())
    }

    /// Until nobody else has the directory.
    async fn keep(mut self) {
        let mut pause = PAUSE;
        let mut due = true;
        while Arc::strong_count(&self.shared) > 1 {
            let asked = Instant::now();
            match self.ask(due).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    self.failed(&error);
                    pause = (pause * 2).min(self.settings.refresh.max(PAUSE));
                }
            }
            sleep(pause).await;
            let rest = self.settings.refresh.saturating_sub(asked.elapsed());
            due = timeout(rest, self.shared.wanted.notified()).await.is_err();
        }
    }

    async fn ask(&mut self, due: bool) -> anyhow::Result<()> {
        let began = Instant::now();
        let within = self.settings.timeout;
        let max = self.settings.max_pods;
        let answer = timeout(within, self.source.pods(max)).await;
        let Called {
            name,
            place,
            others,
        } = self.source.called();
        self.say_others(&others);
        self.shared.report(|it| {
            name.clone_into(&mut it.source);
            it.place.clone_from(&place);
            it.others = others;
        });
        let pods: Vec<PodRecord> = answer.map_err(|_| {
            let within = humantime::format_duration(within);
            anyhow::anyhow!("{name} {place}: no answer within {within} ([node] timeout)")
        })??;
        let names = Arc::new(Names::of(pods, max, &self.settings.pod_labels));
        self.shared.settle(&names, due);
        self.shared.report(|it| {
            it.pods = names.pods();
            it.containers = names.containers();
            it.cut = names.cut().pods + names.cut().containers;
            it.answer_seconds = began.elapsed().as_secs_f64();
            it.answers += 1;
            it.answered_unix_seconds = Some(unix_seconds(SystemTime::now()));
            it.error = None;
        });
        let known = Known {
            names,
            taken: Some(Instant::now()),
        };
        *self
            .shared
            .names
            .write()
            .unwrap_or_else(PoisonError::into_inner) = known;
        if self.last_error.take().is_some() {
            info!("the names of pods are known again, by {name} {place}");
        }
        Ok(())
    }

    /// Which other runtimes were asked, said when it is new.
    fn say_others(&mut self, others: &[String]) {
        if self.last_others != others {
            for other in others {
                info!("names of pods: not by {other}; [node] cri_socket selects one");
            }
            self.last_others = others.to_vec();
        }
    }

    /// Said when it is new.
    fn failed(&mut self, error: &anyhow::Error) {
        let why = format!("{error:#}");
        self.shared.report(|it| {
            it.errors += 1;
            it.error = Some(why.clone());
        });
        if self.last_error.as_ref() != Some(&why) {
            warn!("names of pods: {why}");
            self.last_error = Some(why);
        }
    }
}

#[cfg(test)]
mod tests;
