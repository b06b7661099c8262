//! Who tells the names of pods.

use tokio::time::timeout;
use tracing::debug;

use super::{Ask, Node, cri, cri::Cri, kubelet::Kubelet, names::PodRecord};

/// Who may be asked, the best first.
#[derive(Debug)]
pub(super) struct Source {
    settings: Node,
    /// Kept from one question to the next: it remembers what need not be asked again.
    cri: Option<Cri>,
    kubelet: Option<Kubelet>,
    /// Who answered last, or failed last.
    last: (&'static str, String),
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
            cri: None,
            kubelet,
            last: ("none", String::new()),
        }))
    }

    /// Its name, and where it is or why there is none.
    pub(super) fn called(&self) -> (&'static str, String) {
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
            Ask::Auto | Ask::Cri => self.runtime(max).await,
            Ask::Kubelet | Ask::Off => None,
        };
        match (by_runtime, &mut self.kubelet) {
            (Some(Ok(pods)), _) => Ok(pods),
            (_, Some(kubelet)) => {
                self.last = ("kubelet", kubelet.url());
                kubelet.pods().await
            }
            (Some(Err(error)), None) => Err(error),
            (None, None) => {
                let why = "no container runtime has a socket here".to_owned();
                self.last = ("none", why);
                Ok(Vec::new())
            }
        }
    }

    async fn runtime(&mut self, max: usize) -> Option<anyhow::Result<Vec<PodRecord>>> {
        let socket = cri::find(&self.settings.cri_socket)?;
        let same = self.cri.take().filter(|cri| cri.socket() == socket);
        let cri = self.cri.insert(same.unwrap_or_else(|| Cri::new(socket)));
        self.last = ("cri", cri.socket().display().to_string());
        let Some(kubelet) = &self.kubelet else {
            return Some(cri.pods(max).await);
        };
        // There has to be time left for the kubelet.
        let answer = timeout(self.settings.timeout / 2, cri.pods(max)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
        if let Err(error) = &answer {
            debug!(kubelet = %kubelet.url(), "nodemedic uses the kubelet instead: {error:#}");
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::Path, time::Duration};

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
        (pods.map(|pods| pods.len()), source.called().0)
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
