//! The real Alertmanager: it understands the configuration that the pages tell, and agents
//! understand it.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::http;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::tools::{self, ALERTMANAGER};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent;
use crate::check::{Available, Check, Verdict, read, root};
use crate::process::{Agent, Process, SOON};
use crate::promtool;

const PAGE: &str = "docs/operations.md";

/// What the agent is called.
const NODE: &str = "ward-7";
const TOKEN: &str = "hunter2";

/// Debian's package, whose service is not installed.
fn package() -> Available<PathBuf> {
    match tools::debian_package(ALERTMANAGER) {
        Ok(folder) => Available::Yes(folder),
        Err(error) => Available::No {
            why: format!("{ALERTMANAGER} cannot be fetched: {error:#}"),
        },
    }
}

fn alertmanager() -> Available<PathBuf> {
    let Available::Yes(package) = package() else {
        return package();
    };
    match tools::alertmanager(&package).arg("--version").output() {
        Ok(output) if output.status.success() => Available::Yes(package),
        Ok(output) => Available::No {
            why: format!(
                "a mount namespace is not allowed here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        },
        Err(error) => Available::No {
            why: format!("no unshare on the path: {error}"),
        },
    }
}

/// The blocks of a kind on a page that have a text in them, without the indent of a list.
fn blocks(page: &str, kind: &str, with: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() != format!("```{kind}") {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        let inside = inside.map(|line| line.get(indent..).unwrap_or_default());
        blocks.push(inside.collect::<Vec<_>>().join("\n") + "\n");
    }
    blocks.retain(|block| block.contains(with));
    blocks
}

/// The one block on the page for operators that has a text in it.
fn documented(kind: &str, with: &str) -> Result<String> {
    let page = read(&root().join(PAGE))?;
    let mut found = blocks(&page, kind, with);
    ensure!(
        found.len() == 1,
        "{} blocks have {with} in {PAGE}",
        found.len()
    );
    found.pop().context("no block")
}

fn its_own_checker_takes_the_documented_configuration() -> Result<Verdict> {
    package().then(|package| {
        let amtool = package.join("usr/bin/amtool");
        let config = documented("yaml", "webhook_configs")?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let file = folder.path().join("alertmanager.yaml");
        fs::write(&file, &config).context("write a configuration")?;
        check_config(&amtool, &file)?;
        fs::write(&file, config.replace("max_alerts", "most_alerts")).context("spoil it")?;
        ensure!(
            check_config(&amtool, &file).is_err(),
            "nobody objects to most_alerts"
        );
        Ok(Verdict::Passed)
    })
}

fn check_config(amtool: &Path, file: &Path) -> Result<()> {
    let output = Command::new(amtool).arg("check-config").arg(file).output();
    let output = output.context("start amtool")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

/// A folder with what a web configuration names, and the token.
struct Desk(TempDir);

impl Desk {
    fn new() -> Result<Self> {
        let desk = Self(tempfile::tempdir().context("make a folder")?);
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        desk.file("tls.crt", &certificate.pem())?;
        desk.file("clients.crt", &certificate.pem())?;
        desk.file("tls.key", &key.serialize_pem())?;
        desk.file("token", TOKEN)?;
        Ok(desk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Only its owner can read it.
    fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {name}"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("close it")?;
        Ok(path)
    }
}

/// What the page tells is understood by Prometheus' own checker and by the agent alike.
fn promtool_and_the_agent_take_the_documented_web_configuration() -> Result<Verdict> {
    promtool::find().then(|promtool| {
        agent::program().then(|program| {
            let desk = Desk::new()?;
            let file = desk.file("web.yaml", &documented("yaml", "tls_server_config")?)?;
            let output = Command::new(&promtool)
                .args(["check", "web-config"])
                .arg(&file)
                .output()
                .context("start promtool")?;
            let said = [output.stdout, output.stderr].concat();
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&said)
            );
            let text = format!("[webhook]\nenabled = true\nweb_config = {file:?}\n");
            let config = desk.file("nodemedic.toml", &text)?;
            let output = Command::new(&program)
                .args(["run", "--check-config", "--config"])
                .arg(config)
                .output()
                .context("start the agent")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{said}");
            Ok(Verdict::Passed)
        })
    })
}

/// An agent that speaks TLS, and wants a token.
fn agent_with_tls(program: &OsString, desk: &Desk) -> Result<Agent> {
    let web = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}";
    let web = desk.file("web.yaml", web)?;
    agent(program, desk, &format!("web_config = {web:?}\n"))
}

fn agent(program: &OsString, desk: &Desk, more: &str) -> Result<Agent> {
    let token = desk.path("token");
    let text = format!(
        "[agent]\nnode_name = \"{NODE}\"\ninterval = \"1s\"\n[webhook]\nenabled = true\nlisten = \
         \"127.0.0.1:0\"\ntoken_file = {token:?}\n{more}"
    );
    let config = desk.file("agent.toml", &text)?;
    Agent::start(program, &["--config", &config.to_string_lossy()])
}

/// Alertmanager with one receiver.
struct Alertmanager {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Alertmanager {
    fn start(package: &Path, desk: &Desk, url: &str, token: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let config = json!({
            "route": {
                "receiver": "nodemedic", "group_by": ["instance"], "group_wait": "100ms",
                "group_interval": "1s", "repeat_interval": "1h",
            },
            "receivers": [{"name": "nodemedic", "webhook_configs": [{
                "url": url, "send_resolved": true, "max_alerts": 0,
                "http_config": {
                    "authorization": {"credentials_file": token},
                    "tls_config": {"ca_file": desk.path("tls.crt")},
                },
            }]}],
        });
        let file = folder.path().join("alertmanager.yaml");
        // JSON is YAML.
        fs::write(&file, config.to_string()).context("write a configuration")?;
        let mut command = tools::alertmanager(package);
        command.args([
            "--cluster.listen-address=",
            "--web.listen-address=127.0.0.1:0",
        ]);
        command.arg("--config.file").arg(&file);
        command.arg("--storage.path").arg(folder.path());
        let process = Process::start(&mut command)?;
        let address = process.told("where Alertmanager listens", |line| {
            let (_, rest) = line.split_once("Listening on")?;
            let (_, address) = rest.split_once("address=")?;
            address.split_whitespace().next()?.parse().ok()
        })?;
        Ok(Self {
            address,
            _process: process,
            _folder: folder,
        })
    }

    /// As Prometheus does it.
    fn alert(&self, is_over: bool) -> Result<()> {
        let mut alert = json!({
            "labels": {
                "alertname": "ConntrackTableFull", "instance": format!("{NODE}:19110"),
                "ailment": "udp_conntrack", "kind": "table_full",
            },
            "startsAt": "2026-01-01T00:00:00Z",
        });
        if is_over {
            alert["endsAt"] = "2026-01-01T00:00:01Z".into();
        }
        let body = Value::from(vec![alert]).to_string();
        let answer = http::post_json(self.address, "/api/v2/alerts", &body)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }
}

/// Waits until something was counted under one of these values of its label.
fn until(address: SocketAddr, metric: &str, label: &str, values: &[&str]) -> Result<()> {
    eventually(SOON, &format!("{metric} {values:?}"), || {
        let page = http::get(address, "/metrics")?;
        let counts = Metrics::parse(&page)?;
        let of = |value: &&str| counts.sum(metric, &[(label, value)]);
        ensure!(values.iter().any(|value| of(value) > 0.0), "{page}");
        Ok(())
    })
}

/// Nothing is allowed to alerts, so whatever this machine is like it is left alone.
fn it_is_heard_and_answered(
    alertmanager: &Alertmanager,
    address: SocketAddr,
    of: &str,
) -> Result<()> {
    let metric = format!("nodemedic_{of}_alerts_total");
    alertmanager.alert(false)?;
    until(address, &metric, "decision", &["refused", "dry-run"])?;
    alertmanager.alert(true)?;
    until(address, &metric, "decision", &["nothing_to_undo"])
}

fn an_agent_hears_it_over_tls_and_knows_it_by_its_token() -> Result<Verdict> {
    alertmanager().then(|package| {
        agent::program().then(|program| {
            let desk = Desk::new()?;
            let agent = agent_with_tls(&program, &desk)?;
            let url = format!("https://{}/alertmanager", agent.webhook()?);
            let wrong = desk.file("wrong", "password")?;
            let stranger = Alertmanager::start(&package, &desk, &url, &wrong)?;
            stranger.alert(false)?;
            until(
                agent.address,
                "nodemedic_webhook_requests_total",
                "code",
                &["401"],
            )?;
            drop(stranger);
            let right = Alertmanager::start(&package, &desk, &url, &desk.path("token"))?;
            it_is_heard_and_answered(&right, agent.address, "webhook")?;
            Ok(Verdict::Passed)
        })
    })
}

fn a_dispatcher_passes_it_on() -> Result<Verdict> {
    alertmanager().then(|package| {
        agent::program().then(|program| {
            let desk = Desk::new()?;
            let agent = agent_with_tls(&program, &desk)?;
            let (token, ca) = (desk.path("token"), desk.path("tls.crt"));
            let place = format!(
                "{NODE} http://{} https://{}",
                agent.address,
                agent.webhook()?
            );
            let text = format!(
                "[dispatch]\ntoken_file = {token:?}\nagent_token_file = {token:?}\nagent_ca_file = \
                 {ca:?}\nagents = [{place:?}]\n"
            );
            let config = desk.file("dispatch.toml", &text)?;
            let dispatcher = Agent::dispatcher(&program, &["--config", &config.to_string_lossy()])?;
            let url = format!("http://{}/alertmanager", dispatcher.webhook()?);
            let right = Alertmanager::start(&package, &desk, &url, &token)?;
            it_is_heard_and_answered(&right, dispatcher.address, "dispatch")?;
            until(
                agent.address,
                "nodemedic_webhook_alerts_total",
                "decision",
                &["nothing_to_undo"],
            )?;
            Ok(Verdict::Passed)
        })
    })
}

fn a_block_of_a_page_is_found() -> Result<Verdict> {
    let page =
        "text\n```yaml\na: 1\n```\n- item\n\n  ```yaml\n  b:\n    c: 2\n  ```\n```\nd\n```\n";
    ensure!(blocks(page, "yaml", "a") == ["a: 1\n"]);
    ensure!(blocks(page, "yaml", "b") == ["b:\n  c: 2\n"]);
    ensure!(blocks(page, "yaml", "d").is_empty());
    Ok(Verdict::Passed)
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("alertmanager::its_own_checker_takes_the_documented_configuration", its_own_checker_takes_the_documented_configuration),
    Check::new("alertmanager::promtool_and_the_agent_take_the_documented_web_configuration", promtool_and_the_agent_take_the_documented_web_configuration),
    Check::new("alertmanager::an_agent_hears_it_over_tls_and_knows_it_by_its_token", an_agent_hears_it_over_tls_and_knows_it_by_its_token),
    Check::new("alertmanager::a_dispatcher_passes_it_on", a_dispatcher_passes_it_on),
    Check::new("alertmanager::a_block_of_a_page_is_found", a_block_of_a_page_is_found),
];
