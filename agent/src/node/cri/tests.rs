use std::{os::unix::fs::symlink, time::Duration};

use prost::Message as _;
use tokio::time::timeout;

use super::{
    fake::{Answer, Fake, Runtime},
    messages::{
        Container, ContainerMetadata, LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxMetadata,
        PodSandboxNetworkStatus, PodSandboxStatus,
    },
    *,
};

/// Ends a test that would wait for ever.
const LONG: Duration = Duration::from_secs(60);

fn sandbox(id: &str, uid: &str, created_at: i64) -> PodSandbox {
    PodSandbox {
        id: id.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: "web".to_owned(),
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
        }),
        created_at,
        labels: HashMap::from([("app".to_owned(), format!("web-of-{id}"))]),
    }
}

fn container(id: &str, sandbox: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        pod_sandbox_id: sandbox.to_owned(),
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
        }),
    }
}

fn status(addresses: &[&str], mode: i32, info: &str) -> PodSandboxStatusResponse {
    let options = NamespaceOption { network: mode };
    let (first, more) = addresses.split_first().unwrap_or((&"", &[]));
    PodSandboxStatusResponse {
        status: Some(PodSandboxStatus {
            network: Some(PodSandboxNetworkStatus {
                ip: (*first).to_owned(),
                additional_ips: more
                    .iter()
                    .map(|ip| PodIp {
                        ip: (*ip).to_owned(),
                    })
                    .collect(),
            }),
            linux: Some(LinuxPodSandboxStatus {
                namespaces: Some(Namespace {
                    options: Some(options),
                }),
            }),
        }),
        info: HashMap::from([("info".to_owned(), info.to_owned())]),
    }
}

/// A runtime with pods of these UIDs, each with a container.
pub(in crate::node) fn with_pods(uids: &[&str]) -> Runtime {
    let pods = uids
        .iter()
        .map(|uid| sandbox(&format!("{uid}-sandbox"), uid, 1));
    let containers = uids
        .iter()
        .map(|uid| container(&format!("{uid}-app"), &format!("{uid}-sandbox"), "app"));
    answers(
        pods.collect(),
        containers.collect(),
        &status(&[], NamespaceOption::NODE, ""),
    )
}

fn answers(
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
    status: &PodSandboxStatusResponse,
) -> Runtime {
    let sandboxes = ListPodSandboxResponse { items: sandboxes };
    let containers = ListContainersResponse { containers };
    Runtime::Answers(HashMap::from([
        ("ListPodSandbox", Answer::of(&sandboxes)),
        ("ListContainers", Answer::of(&containers)),
        ("PodSandboxStatus", Answer::of(status)),
    ]))
}

async fn ask(cri: &mut Cri) -> anyhow::Result<Vec<PodRecord>> {
    timeout(LONG, cri.pods(100)).await.expect("an end")
}

async fn refusal(runtime: Runtime) -> String {
    let fake = Fake::serve(runtime);
    let error = ask(&mut Cri::new(fake.socket())).await.unwrap_err();
    format!("{error:#}")
}

#[tokio::test]
async fn pods_and_containers_are_told_with_their_addresses() {
    let status = status(&["10.0.0.7", "fd00::7"], 0, "{}");
    let sandboxes = vec![sandbox("s1", "u1", 1), sandbox("s2", "u2", 2)];
    let containers = vec![container("c1", "s1", "app"), container("c2", "s1", "log")];
    let fake = Fake::serve(answers(sandboxes, containers, &status));
    let mut cri = Cri::new(fake.socket());
    let mut pods = ask(&mut cri).await.unwrap();
    pods.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert_eq!(pods.len(), 2);
    assert_eq!(
        (pods[0].namespace.as_str(), pods[0].name.as_str()),
        ("shop", "web")
    );
    assert_eq!(pods[0].sandbox.as_deref(), Some("s1"));
    let apps: Vec<_> = pods.iter().map(|pod| pod.labels["app"].as_str()).collect();
    assert_eq!(apps, ["web-of-s1", "web-of-s2"]);
    let names: Vec<_> = pods[0].containers.iter().map(|it| &it.name).collect();
    assert_eq!(names, ["app", "log"]);
    let addresses: Vec<_> = pods[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.7", "fd00::7"]);
    assert_eq!(fake.calls(), 4);
    ask(&mut cri).await.unwrap();
    assert_eq!(fake.calls(), 6, "a sandbox's network is asked for once");
}

#[tokio::test]
async fn a_pod_in_the_nodes_network_has_no_address_of_its_own() {
    let status = status(&["192.0.2.1"], NamespaceOption::NODE, "{}");
    let fake = Fake::serve(answers(vec![sandbox("s1", "u1", 1)], Vec::new(), &status));
    let pods = ask(&mut Cri::new(fake.socket())).await.unwrap();
    assert_eq!(pods[0].addresses, Vec::<IpAddr>::new());
}

#[tokio::test]
async fn of_a_pod_that_was_made_anew_the_newer_sandbox_counts() {
    let sandboxes = vec![sandbox("old", "u1", 1), sandbox("new", "u1", 2)];
    let fake = Fake::serve(answers(sandboxes, Vec::new(), &status(&[], 0, "{}")));
    let pods = ask(&mut Cri::new(fake.socket())).await.unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].sandbox.as_deref(), Some("new"));
}

#[tokio::test]
async fn what_does_not_fit_together_is_passed_over() {
    let nameless = PodSandbox {
        metadata: None,
        ..sandbox("s2", "u2", 1)
    };
    let stray = container("c9", "no such sandbox", "app");
    let status = status(&["no address", "10.0.0.7"], 0, "{ not JSON");
    let fake = Fake::serve(answers(
        vec![sandbox("s1", "u1", 1), nameless],
        vec![stray],
        &status,
    ));
    let pods = ask(&mut Cri::new(fake.socket())).await.unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].containers, Vec::new());
    assert_eq!(pods[0].addresses, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
}

/// A process that is not in the pod, and a file that is no namespace, name no namespace.
#[tokio::test]
async fn a_namespace_that_is_not_the_pods_is_not_believed() {
    let pid = std::process::id();
    for info in [
        format!("{{\"pid\": {pid}}}"),
        "{\"pid\": 4294967295}".to_owned(),
        "{\"runtimeSpec\": {\"linux\": {\"namespaces\": \
         [{\"type\": \"network\", \"path\": \"/etc/passwd\"}]}}}"
            .to_owned(),
        "{\"runtimeSpec\": {\"linux\": {\"namespaces\": \
         [{\"type\": \"network\", \"path\": \"/proc/self/ns/net\"}]}}}"
            .to_owned(),
    ] {
        assert_eq!(netns_of(&info, "s1", "u1"), None, "{info}");
    }
}

#[tokio::test]
async fn a_sandbox_that_goes_in_between_is_no_error() {
    let gone = Answer::Status(5, "not found");
    let sandboxes = ListPodSandboxResponse {
        items: vec![sandbox("s1", "u1", 1)],
    };
    let fake = Fake::serve(Runtime::Answers(HashMap::from([
        ("ListPodSandbox", Answer::of(&sandboxes)),
        ("ListContainers", Answer::Message(Vec::new())),
        ("PodSandboxStatus", gone),
    ])));
    assert_eq!(ask(&mut Cri::new(fake.socket())).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_runtime_without_cri_says_what_to_do() {
    let why = refusal(Runtime::Answers(HashMap::new())).await;
    assert!(why.contains("no CRI of version 1"), "{why}");
}

#[tokio::test]
async fn garbage_is_an_error() {
    let why = refusal(Runtime::Garbage).await;
    assert!(why.contains("ask the container runtime at"), "{why}");
    let garbled = Answer::Message(b"\xff\xff\xff\xff\xff\xff".to_vec());
    let why = refusal(Runtime::Answers(HashMap::from([(
        "ListPodSandbox",
        garbled,
    )])))
    .await;
    assert!(why.contains("ListPodSandbox"), "{why}");
}

#[tokio::test]
async fn a_huge_answer_is_refused() {
    let huge = Answer::Message(vec![0; LARGEST_ANSWER + 1]);
    let why = refusal(Runtime::Answers(HashMap::from([("ListPodSandbox", huge)]))).await;
    assert!(why.contains("larger than any"), "{why}");
}

#[tokio::test]
async fn nobody_behind_the_socket_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let why = |error: anyhow::Error| format!("{error:#}");
    let absent = why(ask(&mut Cri::new(socket.clone())).await.unwrap_err());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = why(ask(&mut Cri::new(socket)).await.unwrap_err());
    for why in [absent, dead] {
        assert!(why.contains("is it running?"), "{why}");
    }
}

#[tokio::test]
async fn no_more_is_asked_about_pods_than_there_is_room_for() {
    let sandboxes = (0..50).map(|i| sandbox(&format!("s{i}"), &format!("u{i}"), i));
    let fake = Fake::serve(answers(
        sandboxes.collect(),
        Vec::new(),
        &status(&[], 0, "{}"),
    ));
    let mut cri = Cri::new(fake.socket());
    let pods = timeout(LONG, cri.pods(10)).await.unwrap().unwrap();
    assert_eq!(pods.len(), 50, "they are there to be counted");
    assert_eq!(fake.calls(), 2 + 10);
}

/// As on a large node: each container with the labels and annotations that a kubelet gives it,
/// which are passed over.
fn large_node(pods: usize, containers: usize) -> Runtime {
    let padding = "x".repeat(700);
    let item = |message: &[u8], field: u32| {
        let mut padded = message.to_vec();
        prost::encoding::string::encode(99, &padding, &mut padded);
        let mut framed = Vec::new();
        prost::encoding::bytes::encode(field, &padded, &mut framed);
        framed
    };
    let mut sandboxes = Vec::new();
    let mut all = Vec::new();
    for pod in 0..pods {
        let id = format!("{pod:064x}");
        let uid = format!("{pod:08x}-b044-4fd5-9dd4-f137e30e2180");
        sandboxes.extend(item(&sandbox(&id, &uid, 1).encode_to_vec(), 1));
        for container_of_pod in 0..containers {
            let name = format!("container-{container_of_pod}");
            let number = pods + pod * containers + container_of_pod;
            let container = container(&format!("{number:064x}"), &id, &name);
            all.extend(item(&container.encode_to_vec(), 1));
        }
    }
    // The JSON of a runtime is some 10 KiB a sandbox.
    let info = format!("{{\"pid\": 0, \"config\": \"{}\"}}", padding.repeat(15));
    Runtime::Answers(HashMap::from([
        ("ListPodSandbox", Answer::Message(sandboxes)),
        ("ListContainers", Answer::Message(all)),
        (
            "PodSandboxStatus",
            Answer::of(&status(&["10.0.0.7"], 0, &info)),
        ),
    ]))
}

#[tokio::test]
async fn a_large_node_is_told_whole() {
    let fake = Fake::serve(large_node(500, 10));
    let mut cri = Cri::new(fake.socket());
    let pods = timeout(LONG, cri.pods(1_000)).await.unwrap().unwrap();
    let names = crate::node::Names::of(pods, 1_000, &crate::node::PodLabels::usual());
    assert_eq!((names.pods(), names.containers()), (500, 5_500));
}

#[test]
fn a_socket_under_two_names_is_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        std::os::unix::net::UnixListener::bind(path(name)).unwrap();
    }
    symlink(path("a"), path("c")).unwrap();
    symlink(path("gone"), path("d")).unwrap();
    let places = ["gone", "a", "c", "d", "b"].map(path);
    assert_eq!(once_each(places.into_iter()), [path("a"), path("b")]);
    assert_eq!(find(&path("gone")), [path("gone")], "as it is told to");
}
