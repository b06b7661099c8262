//! Starts the program, and a running agent.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::ensure;
use nodemedic_tests::{eventually::eventually, http::get};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ends a test that would wait for ever. What is waited for takes milliseconds, but
/// nobody knows how busy the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_nodemedic");

/// Runs the program to its end.
pub(crate) fn nodemedic(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// It has ended with this code, and standard error holds each of these texts.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, exit: i32, texts: &[&str]) {
    let stderr = stderr(output);
    assert_eq!(code(output), Some(exit), "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "no {text:?} in: {stderr}");
    }
}

/// `nodemedic run` on a free port, with a state directory of its own. Ends when it
/// is dropped.
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Ends with the log.
    reader: Option<JoinHandle<()>>,
    state: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_program(Path::new(PROGRAM), None, arguments)
    }

    /// As another user, who needs a copy of the program that can be reached.
    pub(crate) fn start_program(program: &Path, user: Option<u32>, arguments: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(state.path(), user, None).unwrap();
        let mut command = run(program, state.path(), arguments);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self::spawn(command, state)
    }

    /// With another umask than the tests have.
    pub(crate) fn start_with_umask(umask: u32) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut shell = Command::new("/bin/sh");
        let script = format!("umask {umask:03o}; exec \"$@\"");
        shell.args(["-c", &script, "sh", PROGRAM]);
        shell.args(run(Path::new(PROGRAM), state.path(), &[]).get_args());
        Self::spawn(shell, state)
    }

    /// With a state directory in which there is something.
    pub(crate) fn start_in(state: tempfile::TempDir, arguments: &[&str]) -> Self {
        let command = run(Path::new(PROGRAM), state.path(), arguments);
        Self::spawn(command, state)
    }

    /// `nodemedic dispatch` on free ports; the address is that of its pages.
    pub(crate) fn dispatcher(arguments: &[&str]) -> Self {
        Self::dispatch(Command::new(PROGRAM), arguments)
    }

    /// The same in a mount namespace of its own, in which this file is `/etc/hosts`.
    pub(crate) fn dispatcher_with_hosts(hosts: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"");
        command.arg(hosts).arg(PROGRAM);
        Self::dispatch(command, arguments)
    }

    fn dispatch(mut command: Command, arguments: &[&str]) -> Self {
        command.args([
            "dispatch",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--health-listen",
            "127.0.0.1:0",
        ]);
        command.args(["--log-format", "json"]).args(arguments);
        Self::spawn(command, tempfile::tempdir().unwrap())
    }

    fn spawn(mut command: Command, state: tempfile::TempDir) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::default();
        let (reader, address) = follow(child.stderr.take().unwrap(), Arc::clone(&log));
        let Ok(address) = address.recv_timeout(LIMIT) else {
            let _ = child.kill();
            panic!("the agent does not listen: {}", log.lock().unwrap());
        };
        Self {
            child,
            address,
            log,
            reader: Some(reader),
            state,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until every ailment is attached or has said why not.
    pub(crate) fn until_ready(&self) {
        self.until("/readyz", |_| true);
    }

    /// Waits until there is a reading, or the reason why there is none.
    pub(crate) fn until_read(&self) {
        self.until("/report", |report| {
            let report: Value = serde_json::from_str(report).unwrap_or_default();
            let Value::String(state) = &report["ailments"][0]["coverage"]["state"] else {
                return false;
            };
            let attached = ["starting", "full", "partial"].contains(&state.as_str());
            !attached || !report["ailments"][0]["reading"].is_null()
        });
    }

    /// Waits until a page is there and as it should be.
    pub(crate) fn until(&self, path: &str, is_right: impl Fn(&str) -> bool) -> String {
        eventually(LIMIT, path, || {
            let page = get(self.address, path)?;
            ensure!(is_right(&page), "{page}");
            Ok(page)
        })
        .unwrap()
    }

    /// A client whose request has begun and has no end yet. Only the agent's own
    /// limits end its connection.
    pub(crate) fn client_under_way(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n");
        client.write_all(request.as_bytes()).unwrap();
        // Connections are taken in their order: with a later one answered, this one is
        // no longer in the kernel's queue.
        get(self.address, "/healthz").unwrap();
        client
    }

    /// Where a listener is, as the log says: `webhook` or `health`.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.until_log(&format!("\"{name}\":"));
        let log = self.log();
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut addresses = records.filter_map(|record| record[name].as_str()?.parse().ok());
        addresses.next().unwrap()
    }

    /// Waits until the log holds a text.
    pub(crate) fn until_log(&self, text: &str) {
        eventually(LIMIT, text, || {
            ensure!(self.log().contains(text), "{}", self.log());
            Ok(())
        })
        .unwrap();
    }

    /// Waits for the end that a signal has brought about.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let status = eventually(LIMIT, "the agent's end", || {
            self.child
                .try_wait()?
                .ok_or_else(|| anyhow::anyhow!("it runs: {}", self.log()))
        })
        .unwrap();
        // Its last words may not have been read yet.
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &Path, state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--state-dir",
        ])
        .arg(state)
        .args(arguments);
    if !arguments.contains(&"--health-listen") {
        command.args(["--health-listen", "127.0.0.1:0"]);
    }
    command
}

/// Collects the log until it ends; the address is sent once it is there.
fn follow(
    stderr: ChildStderr,
    log: Arc<Mutex<String>>,
) -> (JoinHandle<()>, mpsc::Receiver<SocketAddr>) {
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(address) = address(&line) {
                let _ = sender.send(address);
            }
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    (reader, receiver)
}

fn address(line: &str) -> Option<SocketAddr> {
    let record: Value = serde_json::from_str(line).ok()?;
    (record["message"] == "listening").then(|| record["address"].as_str()?.parse().ok())?
}

/// Reads an answer to its end, which the agent's closing makes. When it has not read
/// all of the request, that looks like a reset.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        Ok(_) | Err(_) => String::from_utf8(bytes).unwrap(),
    }
}
