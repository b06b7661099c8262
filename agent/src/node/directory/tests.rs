use std::path::Path;

use super::*;
use crate::node::Ask;

/// Ends a test that would wait for ever.
const LONG: Duration = Duration::from_secs(60);

const POD: &str = "/kubepods/pod1858680e-b044-4fd5-9dd4-f137e30e2180";

fn settings(socket: &Path) -> Node {
    Node {
        names: Ask::Cri,
        cri_socket: socket.to_owned(),
        timeout: Duration::from_millis(100),
        ..Node::default()
    }
}

/// A runtime that takes connections and says nothing: nobody waits for it but the directory.
#[test]
fn a_runtime_that_hangs_is_told_and_delays_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let directory = Directory::start(&settings(&socket)).unwrap();
    assert_eq!(directory.of_cgroup(POD), None);
    directory.settle(LONG);
    let report = directory.report().unwrap();
    assert_eq!((report.answers, report.errors), (0, 1));
    assert_eq!(report.source, "cri");
    let why = report.error.unwrap();
    assert!(why.contains("no answer within 100ms"), "{why}");
    assert_eq!(report.answered_unix_seconds, None);
}

#[test]
fn without_anybody_to_ask_there_is_nothing_to_report() {
    let off = Node {
        names: Ask::Off,
        ..Node::default()
    };
    let directory = Directory::start(&off).unwrap();
    assert_eq!(directory.report(), None);
    assert_eq!(directory.of_cgroup(POD), None);
    directory.settle(LONG);
}

#[test]
fn the_kubelets_files_are_looked_at_when_the_agent_starts() {
    let settings = Node {
        names: Ask::Kubelet,
        kubelet_url: "https://127.0.0.1:10250".to_owned(),
        ..Node::default()
    };
    let error = Directory::start(&settings).unwrap_err();
    assert!(
        format!("{error:#}").contains("kubelet_ca_file"),
        "{error:#}"
    );
}

/// What is not known is asked for once, however often it is met.
#[test]
fn an_unknown_pod_is_asked_for_once() {
    let directory = Directory::fake(&[]);
    let shared = directory.shared.as_ref().unwrap();
    let asked = || shared.asked.lock().unwrap().len();
    for _ in 0..3 {
        assert_eq!(directory.of_cgroup(POD), None);
    }
    assert_eq!(asked(), 1);
    shared.settle(&Names::default(), false);
    assert_eq!(
        asked(),
        1,
        "it is not known yet, and nobody asks again for it"
    );
    shared.settle(&Names::default(), true);
    assert_eq!(asked(), 0);
    for i in 0..2 * MAX_ASKED {
        shared.want(Unknown::Pod(i.to_string()));
    }
    assert_eq!(asked(), MAX_ASKED);
}

/// A kubelet tells of no network namespace, but a process in one is in a pod's cgroup.
#[test]
fn a_process_tells_whose_its_network_namespace_is() {
    let uid = "1858680e-b044-4fd5-9dd4-f137e30e2180";
    let name = Name {
        namespace: "shop".to_owned(),
        pod: "web-0".to_owned(),
        ..Name::default()
    };
    let directory = Directory::fake(&[(uid, name.clone(), "10.0.0.7", 7)]);
    let paths = ["/", &format!("{POD}/{}", "c".repeat(64))].map(str::to_owned);
    assert_eq!(directory.pod_of(&paths), Some(name.clone()));
    assert_eq!(directory.pod_of(&paths[..1]), None);
    assert_eq!(directory.of_netns(7, None), Some(name));
    // One that is gone, and one in the namespace of the node.
    for process in [u32::MAX, std::process::id()] {
        assert_eq!(directory.of_netns(8, Some(process)), None);
    }
}

/// A cluster inside a pod: the outer pod is the owner, whatever order the paths come in.
#[test]
fn a_process_of_a_pod_in_a_pod_is_of_the_outer_one() {
    let inner = "2858680e-b044-4fd5-9dd4-f137e30e2181";
    let name = |pod: &str| Name {
        namespace: "ci".to_owned(),
        pod: pod.to_owned(),
        ..Name::default()
    };
    let outer = POD.trim_start_matches("/kubepods/pod");
    let directory = Directory::fake(&[
        (outer, name("kind"), "10.0.0.7", 7),
        (inner, name("within"), "10.0.0.8", 8),
    ]);
    let id = "c".repeat(64);
    let both = format!("{POD}/{id}/kubelet/kubepods/pod{inner}/{id}");
    let one = format!("/kubelet/kubepods/pod{inner}/{id}");
    for paths in [[both.clone(), one.clone()], [one, both]] {
        assert_eq!(directory.pod_of(&paths), Some(name("kind")), "{paths:?}");
    }
}
