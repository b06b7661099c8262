//! Idle clients, agents that were killed, and others than the owner.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::geteuid;
use tokio::sync::watch;

use super::{server::PEERS, *};
use crate::{
    state::Lock,
    treatment::{Mode, tests::TestEngine},
};

/// Does something in a folder where an agent answers commands.
fn with_agent(work: impl FnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let control = |path: &Path| Control::bind(path).unwrap().unwrap();
    serve(folder.path(), control, work);
}

/// Does something while this control socket is served.
fn serve(
    path: &Path,
    control: impl FnOnce(&Path) -> Control,
    work: impl FnOnce(&Path) + Send + 'static,
) {
    let service = Arc::new(TestEngine::new(Mode::Manual).service());
    let (_sender, reports) = watch::channel(None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let control = control(path);
        let path = path.to_owned();
        let work = tokio::task::spawn_blocking(move || work(&path));
        tokio::select! {
            never = control.serve(service, reports) => match never {},
            done = work => done.unwrap(),
        }
    });
}

fn status(directory: &Path) {
    let answer = call(directory, &Request::Status).unwrap();
    assert!(matches!(answer, Some(Answer::Status { .. })), "{answer:?}");
}

#[test]
fn clients_that_say_nothing_delay_nobody() {
    with_agent(|directory| {
        let idle = || UnixStream::connect(directory.join(SOCKET)).unwrap();
        let mut idle: Vec<_> = (1..PEERS).map(|_| idle()).collect();
        idle[0].write_all(b"{\"request\":").unwrap();
        let asked = Instant::now();
        status(directory);
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    });
}

#[test]
fn more_clients_than_are_served_at_once_are_served_later() {
    with_agent(|directory| {
        let idle = || UnixStream::connect(directory.join(SOCKET)).unwrap();
        let _idle: Vec<_> = (0..2 * PEERS).map(|_| idle()).collect();
        status(directory);
    });
}

#[test]
fn the_socket_is_its_owners_whatever_the_umask() {
    with_agent(|directory| {
        let socket = directory.join(SOCKET).metadata().unwrap();
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn root_and_the_agents_user_may_ask_and_nobody_else() {
    let own = geteuid().as_raw();
    assert!(server::is_allowed(0));
    assert!(server::is_allowed(own));
    assert!(!server::is_allowed(own + 1));
}

/// An agent that was killed holds its socket and its lock for a while: it accepts nothing, or
/// resets.
fn dying(directory: &Path) -> thread::JoinHandle<()> {
    let lock = Lock::take(directory).unwrap().unwrap();
    let listener = UnixListener::bind(directory.join(SOCKET)).unwrap();
    thread::spawn(move || {
        for _ in 0..3 {
            drop(listener.accept().unwrap());
        }
        drop(listener);
        thread::sleep(Duration::from_millis(200));
        drop(lock);
    })
}

#[test]
fn after_a_kill_an_undo_waits_and_does_it_itself() {
    let folder = tempfile::tempdir().unwrap();
    let agent = dying(folder.path());
    let asked = call_or_lock(folder.path(), &Request::Undo { id: None }).unwrap();
    assert!(matches!(asked, Asked::Alone(_)), "{asked:?}");
    agent.join().unwrap();
}

#[test]
fn after_a_kill_a_status_waits_and_reads_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let agent = dying(folder.path());
    assert_eq!(call(folder.path(), &Request::Status).unwrap(), None);
    agent.join().unwrap();
}

#[test]
fn an_agent_that_has_the_lock_and_does_not_listen_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let _lock = Lock::take(&path).unwrap().unwrap();
    let agent = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        let listener = UnixListener::bind(path.join(SOCKET)).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        // To close a socket with something unread resets it.
        BufReader::new(&peer).read_line(&mut String::new()).unwrap();
        let answer = line_of(&Answer::Undone { runs: Vec::new() }).unwrap();
        peer.write_all(answer.as_bytes()).unwrap();
    });
    let asked = call_or_lock(folder.path(), &Request::Undo { id: None }).unwrap();
    assert!(matches!(asked, Asked::Answered(_)), "{asked:?}");
    agent.join().unwrap();
}

#[test]
fn where_the_disk_takes_no_socket_one_in_memory_stands_in() {
    let folder = tempfile::tempdir().unwrap();
    let stand_in = stand_in(&Directory::open(folder.path()).unwrap()).unwrap();
    let path = folder.path();
    let control = |_: &Path| {
        let made = Directory::make(&stand_in).unwrap();
        Control::bind_in(made, Some(stand_in.clone())).unwrap()
    };
    serve(path, control, status);
    assert!(!stand_in.exists(), "it is left at {}", stand_in.display());
    assert_eq!(call(path, &Request::Status).unwrap(), None);

    // Made by another user, or open to all.
    std::fs::create_dir(&stand_in).unwrap();
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&stand_in, all).unwrap();
    let other = UnixListener::bind(stand_in.join(SOCKET)).unwrap();
    let outcome = call(path, &Request::Status);
    drop(other);
    std::fs::remove_dir_all(&stand_in).unwrap();
    assert_eq!(outcome.unwrap(), None);
}
