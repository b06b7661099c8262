//! An agent with a webhook, and requests to it.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nodemedic_tests::http::{Response, get};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, LIMIT, assert_refused, nodemedic};

/// What the agent is called.
pub(crate) const NODE: &str = "node-7";
pub(crate) const TOKEN: &str = "hunter2";

/// A folder with a configuration and what it names.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        self.file(name, content, 0o600)
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A configuration with these lines in `[webhook]`.
    pub(crate) fn config(&self, webhook: &str) -> PathBuf {
        self.config_of(NODE, webhook)
    }

    /// The same of another node.
    pub(crate) fn config_of(&self, node: &str, webhook: &str) -> PathBuf {
        let text = format!(
            "[agent]\nnode_name = \"{node}\"\n[webhook]\nenabled = true\nlisten = \"127.0.0.1:0\"\n\
             {webhook}\n"
        );
        self.file("config.toml", &text, 0o644)
    }

    pub(crate) fn start(self, webhook: &str) -> Collector {
        let config = self.config(webhook);
        let agent = Agent::start(&["--config", config.to_str().unwrap()]);
        let address = webhook_address(&agent);
        Collector {
            setup: self,
            agent,
            address,
        }
    }

    /// With a token.
    pub(crate) fn guarded(self, more: &str) -> Collector {
        let token = self.secret("token", TOKEN);
        self.start(&format!("token_file = {token:?}\n{more}"))
    }
}

/// The log says where.
pub(crate) fn webhook_address(agent: &Agent) -> SocketAddr {
    agent.listener("webhook")
}

/// A running agent.
pub(crate) struct Collector {
    pub(crate) setup: Setup,
    pub(crate) agent: Agent,
    pub(crate) address: SocketAddr,
}

impl Collector {
    /// Posts with the token.
    pub(crate) fn post(&self, body: &str) -> Response {
        self.ask("POST", "/alertmanager", Some(TOKEN), body)
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> Response {
        exchange(self.connect(), &request(method, path, token, body))
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// The value of a series on the pages.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.agent, series)
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The value of a series on the pages.
pub(crate) fn metric(agent: &Agent, series: &str) -> f64 {
    let page = get(agent.address, "/metrics").unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    value.trim().parse().unwrap()
}

/// A request as Alertmanager makes it.
pub(crate) fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> String {
    let credentials = token.map_or(String::new(), |it| {
        format!("Authorization: Bearer {it}\r\n")
    });
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{credentials}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What comes back on a connection, to its end.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> Response {
    // Who is refused early may find the connection closed.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.flush();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    parse(&String::from_utf8(answer).unwrap())
}

fn parse(answer: &str) -> Response {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    Response {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: head.to_owned(),
        body: body.to_owned(),
    }
}

/// An alert of an ailment of a node.
pub(crate) fn alert(status: &str, node: &str, ailment: &str) -> Value {
    json!({
        "status": status,
        "labels": {"alertname": "Sick", "instance": node, "ailment": ailment},
        "annotations": {},
        "startsAt": "2026-11-25T10:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "c0ffee00c0ffee00",
    })
}

pub(crate) fn payload(alerts: &[Value]) -> Value {
    json!({
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "nodemedic",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": alerts,
    })
}

/// `nodemedic run` with a configuration, which ends at once with this code.
pub(crate) fn refuses(setup: &Setup, config: &Path, more: &[&str], exit: i32, texts: &[&str]) {
    let (config, state) = (shown(config), shown(setup.folder.path()));
    let arguments = [
        "run",
        "--listen",
        "127.0.0.1:0",
        "--health-listen",
        "127.0.0.1:0",
        "--state-dir",
        &state,
        "--config",
        &config,
    ];
    assert_refused(&nodemedic(&[&arguments[..], more].concat()), exit, texts);
}

/// What was decided of each alert.
pub(crate) fn decisions(answer: &Response) -> Vec<String> {
    let reply: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    let alerts = reply["alerts"].as_array().unwrap().iter();
    alerts
        .map(|alert| alert["decision"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
