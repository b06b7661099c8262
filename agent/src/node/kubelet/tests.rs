use std::{fs, io::ErrorKind, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf};
use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const PODS: &str = r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [
  {"metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
   "spec": {"containers": [{"name": "app", "image": "web:1"}]},
   "status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
     "containerStatuses": [{"name": "app", "containerID": "containerd://c1", "ready": true},
                           {"name": "late", "ready": false}],
     "initContainerStatuses": [{"name": "init", "containerID": "containerd://c0"}]}},
  {"metadata": {"name": "proxy", "namespace": "kube-system", "uid": "u2"},
   "spec": {"hostNetwork": true}, "status": {"phase": "Running", "podIP": "192.0.2.1"}},
  {"metadata": {"name": "job", "namespace": "shop", "uid": "u3"},
   "spec": {}, "status": {"phase": "Succeeded", "podIP": "10.0.0.7"}},
  {"metadata": {"name": "new", "namespace": "shop", "uid": "u4", "labels": null}}
]}"#;

/// Files of somebody who vouches for a kubelet, and of a token.
struct Fixture {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let fixture = Self { folder, issuer };
        fs::write(fixture.path("ca.pem"), fixture.issuer.pem()).unwrap();
        fs::write(fixture.path("token"), "hunter2\n").unwrap();
        fs::set_permissions(fixture.path("token"), fs::Permissions::from_mode(0o600)).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What takes connections with a certificate for this name.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config).into()
    }

    fn kubelet(&self, at: SocketAddr) -> Kubelet {
        Kubelet::open(&Node {
            kubelet_url: format!("https://{at}"),
            kubelet_ca_file: self.path("ca.pem"),
            kubelet_token_file: self.path("token"),
            timeout: Duration::from_secs(20),
            ..Node::default()
        })
        .unwrap()
    }
}

/// Answers each connection with a status and a body, if the token is the right one.
async fn serve(acceptor: TlsAcceptor, status: &'static str, body: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /pods HTTP/1.1"), "{request}");
            let knows = request.contains("authorization: Bearer hunter2");
            let status = if knows { status } else { "401 Unauthorized" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

async fn refusal(status: &'static str, body: &[u8]) -> String {
    let fixture = Fixture::new();
    let at = serve(fixture.acceptor("127.0.0.1"), status, body.to_owned()).await;
    format!("{:#}", fixture.kubelet(at).pods().await.unwrap_err())
}

#[tokio::test]
async fn the_right_certificate_and_token_give_pods() {
    let fixture = Fixture::new();
    let at = serve(fixture.acceptor("127.0.0.1"), "200 OK", PODS.into()).await;
    let pods = fixture.kubelet(at).pods().await.unwrap();
    let [web, proxy, job, new] = &pods[..] else {
        panic!("{pods:?}")
    };
    assert_eq!(
        (web.namespace.as_str(), web.name.as_str()),
        ("shop", "web-0")
    );
    let addresses: Vec<_> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.7", "fd00::7"]);
    let containers: Vec<_> = web
        .containers
        .iter()
        .map(|it| (&*it.id, &*it.name))
        .collect();
    assert_eq!(containers, [("c0", "init"), ("c1", "app")]);
    assert_eq!(
        web.labels,
        HashMap::from([("app".to_owned(), "web".to_owned())])
    );
    for without in [proxy, job, new] {
        assert!(without.labels.is_empty(), "{without:?}");
        assert!(without.addresses.is_empty(), "{without:?}");
    }
}

#[tokio::test]
async fn a_kubelet_without_pods_has_none() {
    let fixture = Fixture::new();
    let empty = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":null}"#;
    let at = serve(fixture.acceptor("127.0.0.1"), "200 OK", empty.into()).await;
    assert_eq!(fixture.kubelet(at).pods().await.unwrap(), Vec::new());
}

/// Of another authority, or for another name: nothing is sent to it, the token least.
#[tokio::test]
async fn a_wrong_certificate_is_refused() {
    let fixture = Fixture::new();
    for acceptor in [
        Fixture::new().acceptor("127.0.0.1"),
        fixture.acceptor("192.0.2.1"),
    ] {
        let at = serve(acceptor, "200 OK", PODS.into()).await;
        let error = format!("{:#}", fixture.kubelet(at).pods().await.unwrap_err());
        assert!(
            error.contains("handshake") && error.contains("certificate"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn who_may_not_ask_is_told_what_it_takes() {
    for (status, hint) in [
        ("401 Unauthorized", "kubelet_token_file"),
        ("403 Forbidden", "nodes/pods"),
        ("404 Not Found", "does a kubelet listen there?"),
    ] {
        let why = refusal(status, b"no").await;
        assert!(why.contains(hint), "{why}");
    }
}

#[tokio::test]
async fn a_changed_token_is_shown_and_a_wrong_one_is_not_enough() {
    let fixture = Fixture::new();
    let at = serve(fixture.acceptor("127.0.0.1"), "200 OK", PODS.into()).await;
    let kubelet = fixture.kubelet(at);
    fs::write(fixture.path("token"), "wrong").unwrap();
    let why = format!("{:#}", kubelet.pods().await.unwrap_err());
    assert!(why.contains("401"), "{why}");
    fs::write(fixture.path("token"), "hunter2").unwrap();
    assert_eq!(kubelet.pods().await.unwrap().len(), 4);
}

#[tokio::test]
async fn garbage_is_an_error() {
    for body in ["", "<html>", "{\"items\": 7}", "[]"] {
        let why = refusal("200 OK", body.as_bytes()).await;
        assert!(
            why.contains("its answer is no list of pods"),
            "{body}: {why}"
        );
    }
}

#[tokio::test]
async fn one_that_hangs_is_given_up() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut kubelet = fixture.kubelet(listener.local_addr().unwrap());
    kubelet.client = Client::open(&ClientConfig {
        table: "node",
        whom: "kubelet",
        token_file: PathBuf::new(),
        ca_file: fixture.path("ca.pem"),
        server_name: String::new(),
        cert_file: PathBuf::new(),
        key_file: PathBuf::new(),
        is_https: true,
        within: Duration::from_millis(100),
        largest: 1,
    })
    .unwrap();
    let why = format!("{:#}", kubelet.pods().await.unwrap_err());
    assert!(why.contains("no answer within 100ms"), "{why}");
}
