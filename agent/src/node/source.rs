//! Who tells the names of pods.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::debug;

use super::{Ask, Node, cri, cri::Cri, kubelet::Kubelet, names::PodRecord, on_node};

/// Who may be asked, the best first.
#[derive(Debug)]
pub(super) struct Source {
    settings: Node,
    /// Kept from one question to the next: they remember what need not be asked again.
    runtimes: HashMap<PathBuf, Cri>,
    kubelet: Option<Kubelet>,
    /// The runtime that last had pods.
    winner: Option<PathBuf>,
    /// Who answered last, or failed last.
    last: Called,
}

/// Who tells the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    /// cri, kubelet or none.
    pub(super) name: &'static str,
    /// Where that is, or why there is none.
    pub(super) place: String,
    /// Sockets of other runtimes, each with what came of it.
    pub(super) others: Vec<String>,
}

/// What a runtime said.
struct Answer {
    socket: PathBuf,
    pods: anyhow::Result<Vec<PodRecord>>,
}

impl Source {
    /// `None` where nobody is to be asked.
    ///
    /// # Errors
    ///
    /// When a file that is named cannot be used.
    pub(super) fn of(settings: &Node) -> anyhow::Result<Option<Self>> {
        let kubelet = match settings.names {
            Ask::Off => return Ok(None),
            Ask::Cri => None,
            Ask::Auto if settings.kubelet_url.is_empty() => None,
            Ask::Auto | Ask::Kubelet => Some(Kubelet::open(settings)?),
        };
        Ok(Some(Self {
            settings: settings.clone(),
            runtimes: HashMap::new(),
            kubelet,
            winner: None,
            last: Called::new("none", String::new()),
        }))
    }

    /// Its name, and where it is or why there is none.
    pub(super) fn called(&self) -> Called {
        self.last.clone()
    }

    /// All pods that somebody tells of. On a node without a runtime there are none, which
    /// is no error unless the configuration wants one.
    ///
    /// # Errors
    ///
    /// Why nobody answers, with what to do.
    pub(super) async fn pods(&mut self, max: usize) -> anyhow::Result<Vec<PodRecord>> {
        let by_runtime = match self.settings.names {
            Ask::Auto | Ask::Cri => self.by_runtime(max).await,
            Ask::Kubelet | Ask::Off => None,
        };
        match (by_runtime, &mut self.kubelet) {
            (Some(Ok(pods)), _) => Ok(pods),
            (failed, Some(kubelet)) => {
                if let Some(Err(error)) = &failed {
                    let kubelet = kubelet.url();
                    debug!(kubelet, "nodemedic uses the kubelet instead: {error:#}");
                }
                let others = std::mem::take(&mut self.last.others);
                self.last = Called {
                    others,
                    ..Called::new("kubelet", kubelet.url())
                };
                kubelet.pods().await
            }
            (Some(Err(error)), None) => Err(error),
            (None, None) => {
                let why = "no container runtime has a socket here".to_owned();
                self.last = Called::new("none", why);
                Ok(Vec::new())
            }
        }
    }

    /// Asks all runtimes at once, and takes the one that has the kubelet's pods. `None` where
    /// there is none to ask.
    async fn by_runtime(&mut self, max: usize) -> Option<anyhow::Result<Vec<PodRecord>>> {
        self.by_sockets(cri::find(&self.settings.cri_socket), max)
            .await
    }

    async fn by_sockets(
        &mut self,
        sockets: Vec<PathBuf>,
        max: usize,
    ) -> Option<anyhow::Result<Vec<PodRecord>>> {
        let first = sockets.first()?;
        self.last = Called::new("cri", first.display().to_string());
        self.runtimes.retain(|socket, _| sockets.contains(socket));
        for socket in &sockets {
            let runtime = || Cri::new(socket.clone());
            self.runtimes.entry(socket.clone()).or_insert_with(runtime);
        }
        // There has to be time left for the kubelet, and one that hangs is none of the others'.
        let alone = sockets.len() == 1 && self.kubelet.is_none();
        let within = self.settings.timeout / if alone { 1 } else { 2 };
        let asked = self.runtimes.values_mut();
        let asked = asked.map(|runtime| ask(runtime, max, within, alone));
        let mut answers = join_all(asked).await;
        // In the order of the places, whatever that of the map.
        let place = |answer: &Answer| sockets.iter().position(|it| *it == answer.socket);
        answers.sort_by_key(place);
        let best = self.failed_winner(&answers).or_else(|| best(&answers))?;
        let Answer { socket, pods } = answers.remove(best);
        if pods.as_ref().is_ok_and(|pods| !pods.is_empty()) {
            self.winner = Some(socket.clone());
        }
        let place = socket.display().to_string();
        let others = answers.iter().map(Answer::outcome).collect();
        self.last = Called {
            others,
            ..Called::new("cri", place)
        };
        Some(pods.map_err(|error| match answers.is_empty() {
            true => error,
            // Each failed: none is better than another.
            false => {
                let whys: Vec<_> = answers.iter().map(Answer::outcome).collect();
                self.last.others.clear();
                error.context(format!("no runtime answers ({})", whys.join("; ")))
            }
        }))
    }

    /// The runtime that had the pods and fails now, where no other has any: what one without pods
    /// says must not end what is known.
    fn failed_winner(&self, answers: &[Answer]) -> Option<usize> {
        let winner = self.winner.as_ref()?;
        let fails = |it: &Answer| it.socket == *winner && it.pods.is_err();
        match answers.iter().all(|it| it.count() == 0) {
            true => answers.iter().position(fails),
            false => None,
        }
    }
}

async fn ask(runtime: &mut Cri, max: usize, within: Duration, alone: bool) -> Answer {
    let socket = runtime.socket().to_owned();
    let pods = match alone {
        // With one runtime the limit of the caller is enough.
        true => runtime.pods(max).await,
        false => match timeout(within, runtime.pods(max)).await {
            Ok(pods) => pods,
            Err(_) => {
                let within = humantime::format_duration(within);
                Err(anyhow::anyhow!("no answer within {within}"))
            }
        },
    };
    Answer { socket, pods }
}

/// The place of the answer with the most pods of which the node has cgroups, as the kubelet has
/// made them; of several the one with the most pods, then the first.
fn best(answers: &[Answer]) -> Option<usize> {
    let with_pods = answers.iter().filter(|it| it.count() > 0).count();
    // One runtime is the rule, and costs no look at the cgroups.
    let here = match with_pods > 1 {
        true => on_node::pods(),
        false => HashSet::new(),
    };
    let rank = |answer: &Answer| {
        let pods = answer.pods.as_deref().unwrap_or_default();
        let theirs = pods.iter().filter(|pod| here.contains(&pod.uid)).count();
        (answer.pods.is_ok(), theirs, pods.len())
    };
    // Of equals the last is the highest.
    let ranked = answers.iter().enumerate().rev();
    ranked
        .max_by_key(|(_, answer)| rank(answer))
        .map(|(place, _)| place)
}

impl Answer {
    fn count(&self) -> usize {
        self.pods.as_ref().map_or(0, Vec::len)
    }

    /// For a sentence.
    fn outcome(&self) -> String {
        let socket = self.socket.display();
        match &self.pods {
            Ok(pods) if pods.is_empty() => format!("{socket}: it has no pods"),
            Ok(pods) => format!(
                "{socket}: it has {} pods, and fewer of this node",
                pods.len()
            ),
            Err(error) => format!("{socket}: {}", error.root_cause()),
        }
    }
}

impl Called {
    const fn new(name: &'static str, place: String) -> Self {
        Self {
            name,
            place,
            others: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::Path, time::Duration};

    use super::cri::{
        fake::{Fake, Runtime},
        tests::with_pods,
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A kubelet with one pod, without TLS, at a URL.
    async fn kubelet() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1_024]).await;
                let pods =
                    r#"{"items": [{"metadata": {"name": "a", "namespace": "b", "uid": "u"}}]}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", pods.len());
                let _ = stream.write_all((head + pods).as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    fn settings(socket: &Path, kubelet_url: String) -> Node {
        Node {
            cri_socket: socket.to_owned(),
            kubelet_url,
            timeout: Duration::from_secs(2),
            ..Node::default()
        }
    }

    async fn ask(settings: &Node) -> (anyhow::Result<usize>, &'static str) {
        let mut source = Source::of(settings).unwrap().unwrap();
        let pods = source.pods(10).await;
        (pods.map(|pods| pods.len()), source.called().name)
    }

    #[tokio::test]
    async fn the_kubelet_stands_in_for_a_runtime_that_is_gone_or_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let settings = settings(&socket, kubelet().await);
        let gone = ask(&settings).await;
        let _listener = UnixListener::bind(&socket).unwrap();
        let hangs = ask(&settings).await;
        for (pods, source) in [gone, hangs] {
            assert_eq!((pods.unwrap(), source), (1, "kubelet"));
        }
    }

    fn answer(socket: &str, pods: anyhow::Result<Vec<&str>>) -> Answer {
        let record = |uid: &str| PodRecord {
            uid: uid.to_owned(),
            ..PodRecord::default()
        };
        Answer {
            socket: socket.into(),
            pods: pods.map(|pods| pods.into_iter().map(record).collect()),
        }
    }

    #[test]
    fn the_runtime_with_the_pods_wins_wherever_it_is() {
        let docker = || answer("/docker", Err(anyhow::anyhow!("unknown service")));
        let idle = || answer("/idle", Ok(Vec::new()));
        let k3s = || answer("/k3s", Ok(vec!["a", "b"]));
        let old = || answer("/old", Ok(vec!["c"]));
        for (answers, wins) in [
            (vec![docker(), k3s()], "/k3s"),
            (vec![k3s(), docker(), idle()], "/k3s"),
            (vec![old(), k3s()], "/k3s"),
            (vec![docker(), idle()], "/idle"),
            (vec![docker()], "/docker"),
        ] {
            let best = best(&answers).unwrap();
            assert_eq!(answers[best].socket.to_str(), Some(wins));
        }
        assert_eq!(best(&[]), None);
        assert_eq!(docker().outcome(), "/docker: unknown service");
        assert_eq!(idle().outcome(), "/idle: it has no pods");
    }

    /// Docker's containerd has no CRI, one hangs, one is gone, and one has the pods.
    #[tokio::test]
    async fn all_runtimes_are_asked_and_each_that_fails_is_told_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let hangs = folder.path().join("hangs");
        let _listener = UnixListener::bind(&hangs).unwrap();
        let gone = folder.path().join("gone");
        let docker = Fake::serve(Runtime::Answers(HashMap::new()));
        let k3s = Fake::serve(with_pods(&["u1", "u2"]));
        let settings = Node {
            timeout: Duration::from_secs(2),
            ..Node::default()
        };
        let mut source = Source::of(&settings).unwrap().unwrap();
        let all = vec![docker.socket(), hangs.clone(), gone.clone(), k3s.socket()];
        // Twice, as a runtime may remember what it was asked.
        for _ in 0..2 {
            let pods = source.by_sockets(all.clone(), 10).await.unwrap().unwrap();
            assert_eq!(pods.len(), 2);
            let Called { place, others, .. } = source.called();
            assert_eq!(place, k3s.socket().display().to_string());
            assert_eq!(others.len(), 3, "{others:?}");
            assert!(others[0].contains("it has no CRI"), "{others:?}");
            assert!(others[0].contains("cri_socket"), "{others:?}");
            let no_answer = format!("{}: no answer within 1s", hangs.display());
            assert_eq!(others[1], no_answer);
            assert!(others[2].starts_with(gone.to_str().unwrap()), "{others:?}");
        }
        let none = source
            .by_sockets(vec![gone.clone(), docker.socket()], 10)
            .await;
        let why = format!("{:#}", none.unwrap().unwrap_err());
        for part in ["cri_socket", "it has no CRI", gone.to_str().unwrap()] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(source.by_sockets(Vec::new(), 10).await.is_none());
    }

    #[tokio::test]
    async fn a_runtime_without_pods_ends_nothing_while_the_one_with_them_fails() {
        let idle = Fake::serve(with_pods(&[]));
        let k3s = Fake::serve(with_pods(&["u1"]));
        let mut source = Source::of(&Node::default()).unwrap().unwrap();
        let all = vec![idle.socket(), k3s.socket()];
        let ask = async |source: &mut Source| source.by_sockets(all.clone(), 10).await.unwrap();
        assert_eq!(ask(&mut source).await.unwrap().len(), 1);
        drop(k3s);
        assert!(ask(&mut source).await.is_err());
        // On a node where it never had any, none is the answer.
        let mut other = Source::of(&Node::default()).unwrap().unwrap();
        assert_eq!(ask(&mut other).await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn who_asks_one_alone_gets_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let auto = settings(&folder.path().join("sock"), kubelet().await);
        let cri = Node {
            names: Ask::Cri,
            ..auto.clone()
        };
        let (pods, source) = ask(&cri).await;
        assert!(pods.is_err());
        assert_eq!(source, "cri");
        let kubelet = Node {
            names: Ask::Kubelet,
            ..auto
        };
        assert_eq!(ask(&kubelet).await.1, "kubelet");
    }
}
