//! A dispatcher, real agents behind it, and fake ones.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use nodemedic_tests::http::{Response, get};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    webhook::setup::{Setup, TOKEN, connect, exchange, payload, request, shown, webhook_address},
};

/// A running dispatcher.
pub(crate) struct Station {
    pub(crate) setup: Setup,
    pub(crate) dispatcher: Agent,
    pub(crate) address: SocketAddr,
}

impl Station {
    /// With these lines in `[dispatch]`, and the token for itself and the agents.
    pub(crate) fn start(setup: Setup, lines: &str) -> Self {
        let token = setup.secret("token", TOKEN);
        let text =
            format!("[dispatch]\ntoken_file = {token:?}\nagent_token_file = {token:?}\n{lines}\n");
        setup.file("dispatch.toml", &text, 0o644);
        Self::of_bed(setup)
    }

    fn of_bed(setup: Setup) -> Self {
        let config = shown(&setup.path("dispatch.toml"));
        let dispatcher = Agent::dispatcher(&["--config", &config]);
        let address = webhook_address(&dispatcher);
        Self {
            setup,
            dispatcher,
            address,
        }
    }

    /// The same, with a table of host names of its own in the place of `/etc/hosts`.
    pub(crate) fn start_with_hosts(setup: Setup, lines: &str, hosts: &Path) -> Self {
        let token = setup.secret("token", TOKEN);
        let text =
            format!("[dispatch]\ntoken_file = {token:?}\nagent_token_file = {token:?}\n{lines}\n");
        let config = shown(&setup.file("dispatch.toml", &text, 0o644));
        let dispatcher = Agent::dispatcher_with_hosts(hosts, &["--config", &config]);
        let address = webhook_address(&dispatcher);
        Self {
            setup,
            dispatcher,
            address,
        }
    }

    /// Of these agents.
    pub(crate) fn of(places: &[String], lines: &str) -> Self {
        Self::start(Setup::new(), &format!("agents = {places:?}\n{lines}"))
    }

    /// Another process in the place of this one.
    pub(crate) fn again(self) -> Self {
        let Self {
            setup, dispatcher, ..
        } = self;
        drop(dispatcher);
        Self::of_bed(setup)
    }

    pub(crate) fn post(&self, alerts: &[Value]) -> Response {
        post(self.address, alerts)
    }
}

pub(crate) fn post(address: SocketAddr, alerts: &[Value]) -> Response {
    let body = payload(alerts).to_string();
    let request = request("POST", "/alertmanager", Some(TOKEN), &body);
    exchange(connect(address), &request)
}

/// An alert of a node, another one for each name.
pub(crate) fn alert(status: &str, node: &str) -> Value {
    let mut alert = crate::webhook::setup::alert(status, node, "udp_conntrack");
    alert["fingerprint"] = format!("of-{node}").into();
    alert
}

/// How an agent is listed.
pub(crate) fn place(node: &str, report: SocketAddr, webhook: SocketAddr) -> String {
    format!("{node} http://{report} http://{webhook}")
}

/// One that nobody answers for: port 1 is not among those that the kernel gives to other tests.
pub(crate) fn nobody(node: &str) -> String {
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    place(node, closed, closed)
}

/// A real agent.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) webhook: SocketAddr,
    name: String,
    _bed: Setup,
}

impl Node {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_in(name, tempfile::tempdir().unwrap())
    }

    /// One whose journal has a treatment that is active, and changes nothing.
    pub(crate) fn treating(name: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let run = json!({
            "id": 1, "treatment": "udp_timeout", "ailment": "udp_conntrack", "against": ["table_full"],
            "trigger": {"by": "auto"}, "state": "confirmed", "why": "for a test", "changes": [],
            "began_unix_seconds": now, "ends_unix_seconds": now + 1e6, "boot": boot.trim(),
            "began": 0.0, "watched_until": 0.0, "ends": 1e12, "ended": null, "ending": null,
            "reapplied": 0, "before": [],
        });
        let line = json!({"unix_seconds": now, "run": run});
        let text = format!("{}\n{line}\n", json!({"nodemedic_journal": 1}));
        fs::write(state.path().join("journal"), text).unwrap();
        Self::start_in(name, state)
    }

    fn start_in(name: &str, state: tempfile::TempDir) -> Self {
        let setup = Setup::new();
        let token = setup.secret("token", TOKEN);
        let config = shown(&setup.config_of(name, &format!("token_file = {token:?}")));
        let agent = Agent::start_in(state, &["--config", &config]);
        agent.until_read();
        let webhook = webhook_address(&agent);
        Self {
            agent,
            webhook,
            name: name.to_owned(),
            _bed: setup,
        }
    }

    pub(crate) fn place(&self) -> String {
        place(&self.name, self.agent.address, self.webhook)
    }
}

/// An agent that treats whatever it is told, or refuses.
pub(crate) struct Fake {
    address: SocketAddr,
    node: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    treats: bool,
    healthy: bool,
    posts: usize,
    /// The dispatcher that has claimed it.
    dispatcher: Option<u64>,
    /// Alerts that are being decided on, and whether that takes until somebody says so.
    deciding: usize,
    is_slow: bool,
}

impl Fake {
    pub(crate) fn sick(node: &str) -> Self {
        Self::start(node, false)
    }

    pub(crate) fn healthy(node: &str) -> Self {
        Self::start(node, true)
    }

    fn start(node: &str, healthy: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            healthy,
            ..Seen::default()
        }));
        let (node, shared) = (node.to_owned(), Arc::clone(&seen));
        let name = node.clone();
        // It ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, shared) = (name.clone(), Arc::clone(&shared));
                thread::spawn(move || answer(stream, &name, &shared));
            }
        });
        Self {
            address,
            node,
            seen,
        }
    }

    pub(crate) fn place(&self) -> String {
        place(&self.node, self.address, self.address)
    }

    pub(crate) fn treats(&self) -> bool {
        self.seen.lock().unwrap().treats
    }

    /// Decides on nothing until it is told to.
    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.seen.lock().unwrap().is_slow = is_slow;
    }

    pub(crate) fn is_deciding(&self) -> bool {
        self.seen.lock().unwrap().deciding > 0
    }

    pub(crate) fn posts(&self) -> usize {
        self.seen.lock().unwrap().posts
    }
}

fn answer(mut stream: TcpStream, node: &str, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(&stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        head.push_str(&line.to_lowercase());
        line.clear();
    }
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = reader.read_exact(&mut body);
    let reply = if head.starts_with("post") {
        let payload: Value = serde_json::from_slice(&body).unwrap();
        let number = head.split("nodemedic-dispatcher: ").nth(1);
        let number = number.and_then(|rest| rest.lines().next()?.trim().parse().ok());
        seen.lock().unwrap().dispatcher = number;
        decide(&payload, seen)
    } else {
        let seen = seen.lock().unwrap();
        let state = if seen.treats { "applied" } else { "undone" };
        let routing = json!({"dispatcher": seen.dispatcher, "deciding": seen.deciding});
        json!({
            "node": node, "instance": node, "routing": routing, "treatments": [{"state": state}],
        })
    };
    let reply = reply.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
        reply.len()
    );
}

/// At once, or when it is no longer slow.
fn decide(payload: &Value, seen: &Mutex<Seen>) -> Value {
    let fires = !payload["alerts"].as_array().unwrap().is_empty();
    seen.lock().unwrap().deciding += 1;
    while fires && seen.lock().unwrap().is_slow {
        thread::sleep(Duration::from_millis(20));
    }
    let mut seen = seen.lock().unwrap();
    seen.deciding -= 1;
    rule(payload, &mut seen)
}

fn rule(payload: &Value, seen: &mut Seen) -> Value {
    seen.posts += usize::from(!payload["alerts"].as_array().unwrap().is_empty());
    let rulings = payload["alerts"].as_array().unwrap().iter().map(|alert| {
        let resolved = alert["status"] == "resolved";
        let decision = match (resolved, seen.healthy) {
            (true, _) => "undone",
            (false, true) => "refused",
            (false, false) => "begun",
        };
        seen.treats = !resolved && (seen.treats || !seen.healthy);
        json!({
            "alertname": "Sick", "fingerprint": alert["fingerprint"],
            "starts_at": alert["startsAt"], "decision": decision, "why": "a test",
        })
    });
    json!({"alerts": rulings.collect::<Vec<_>>()})
}

/// The decision on the alert of each node.
pub(crate) fn of_nodes(answer: &Response, nodes: &[&str]) -> Vec<String> {
    let reply: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
    let alerts = reply["alerts"].as_array().unwrap();
    let decision = |node: &&str| {
        let fingerprint = format!("of-{node}");
        let ruling = alerts.iter().find(|it| it["fingerprint"] == *fingerprint);
        ruling.unwrap()["decision"].as_str().unwrap().to_owned()
    };
    nodes.iter().map(decision).collect()
}

pub(crate) fn page(agent: &Agent) -> String {
    get(agent.address, "/metrics").unwrap()
}
