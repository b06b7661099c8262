//! Prints a configuration with what each key means: as TOML that loads again, and
//! as the page of the documentation.

use serde::Serialize;

use super::{Agent, Config, ENABLED, Key, Log, Metrics, treatment_keys};
use crate::collector::Configured;
use crate::{dispatch::Dispatch, node::Node, render::wrap, treatment::Policy, webhook::Webhook};

const WIDTH: usize = 80;

/// A table of the configuration with its keys and values.
struct Section {
    name: String,
    help: String,
    entries: Vec<(Key, toml::Value)>,
}

/// The configuration as a file of its own.
///
/// # Errors
///
/// When a value has no form in TOML.
pub fn as_toml(config: &Config) -> Result<String, toml::ser::Error> {
    let mut page = String::new();
    for (i, section) in sections(config)?.into_iter().enumerate() {
        if i > 0 {
            page.push('\n');
        }
        comment(&mut page, &section.help);
        page.push_str(&format!("[{}]\n", section.name));
        for (key, value) in section.entries {
            page.push('\n');
            comment(&mut page, key.help);
            comment(&mut page, &format!("Allowed: {}.", key.allowed));
            page.push_str(&format!("{} = {value}\n", key.name));
        }
    }
    Ok(page)
}

/// The configuration as tables in Markdown.
///
/// # Errors
///
/// When a value has no form in TOML.
pub fn as_markdown(config: &Config) -> Result<String, toml::ser::Error> {
    let mut page = String::new();
    for (i, section) in sections(config)?.into_iter().enumerate() {
        if i > 0 {
            page.push('\n');
        }
        page.push_str(&format!("## `[{}]`\n\n{}\n\n", section.name, section.help));
        page.push_str("| Key | Default | Allowed | What it does |\n|---|---|---|---|\n");
        for (key, value) in section.entries {
            let (name, allowed, help) = (key.name, key.allowed, key.help);
            page.push_str(&format!("| `{name}` | `{value}` | {allowed} | {help} |\n"));
        }
    }
    Ok(page)
}

fn sections(config: &Config) -> Result<Vec<Section>, toml::ser::Error> {
    let mut sections = vec![
        section("agent", "The agent itself.", Agent::KEYS, &config.agent)?,
        section(
            "log",
            "What the agent writes to standard error.",
            Log::KEYS,
            &config.log,
        )?,
        section(
            "metrics",
            "What it exports.",
            Metrics::KEYS,
            &config.metrics,
        )?,
    ];
    sections.push(section(
        "node",
        "Who tells the names of pods and containers: docs/operations.md, Names of pods.",
        Node::KEYS,
        &config.node,
    )?);
    sections.push(section(
        "treatment",
        "What the agent may change on this node, for how long, and when it puts it back.",
        Policy::KEYS,
        &config.treatment,
    )?);
    sections.push(modes(&config.treatment));
    sections.push(section(
        "webhook",
        "How Alertmanager asks for treatments: docs/operations.md, Treatments by alert.",
        Webhook::KEYS,
        &config.webhook,
    )?);
    sections.push(section(
        "dispatch",
        "How `nodemedic dispatch` gives alerts to agents, and how many nodes may be treated at \
         once: docs/operations.md, Dispatch.",
        Dispatch::KEYS,
        &config.dispatch,
    )?);
    for configured in &config.ailments {
        sections.push(ailment(configured)?);
    }
    Ok(sections)
}

fn section<T: Serialize>(
    name: &str,
    help: &str,
    keys: &[Key],
    values: &T,
) -> Result<Section, toml::ser::Error> {
    let values = toml::Table::try_from(values)?;
    let entries = keys
        .iter()
        .filter_map(|key| Some((*key, values.get(key.name)?.clone())));
    Ok(Section {
        name: name.to_owned(),
        help: help.to_owned(),
        entries: entries.collect(),
    })
}

fn modes(policy: &Policy) -> Section {
    let keys = treatment_keys().into_iter();
    let entry = |key: Key| {
        let mode = policy.mode(key.name).name();
        (key, mode.into())
    };
    Section {
        name: "treatments".to_owned(),
        help: "Who may have each treatment applied. off: nobody. dry-run: a person who says \
               --apply; the agent only says what it would do. manual: a person, without being \
               told twice. alert: an alert too. auto: the agent by itself too."
            .to_owned(),
        entries: keys.map(entry).collect(),
    }
}

fn ailment(ailment: &Configured) -> Result<Section, toml::ser::Error> {
    let about = ailment.collector.about();
    let name = format!("ailments.{}", about.name);
    let mut section = section(
        &name,
        &format!("The ailment: {}.", about.summary),
        about.keys,
        &ailment.collector.settings()?,
    )?;
    section.entries.insert(0, (ENABLED, ailment.enabled.into()));
    Ok(section)
}

fn comment(page: &mut String, text: &str) {
    for line in wrap(text, WIDTH - 2) {
        page.push_str(&format!("# {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::load::parse, *};

    #[test]
    fn the_defaults_load_again_to_the_same() {
        let printed = as_toml(&Config::default()).unwrap();
        let loaded = parse(&printed).unwrap_or_else(|faults| panic!("{faults:?}\n{printed}"));
        assert_eq!(as_toml(&loaded).unwrap(), printed);
        assert_eq!(loaded.agent, Agent::default());
        assert_eq!(loaded.log, Log::default());
        assert_eq!(loaded.metrics, Metrics::default());
    }

    /// A key without a field would be refused when it is used, a field without a
    /// key could not be set.
    #[test]
    fn each_field_has_its_key() {
        let config = Config::default();
        let mut tables = vec![
            (
                "agent",
                Agent::KEYS,
                toml::Table::try_from(&config.agent).unwrap(),
            ),
            ("log", Log::KEYS, toml::Table::try_from(config.log).unwrap()),
            (
                "metrics",
                Metrics::KEYS,
                toml::Table::try_from(config.metrics).unwrap(),
            ),
        ];
        let node = toml::Table::try_from(&config.node).unwrap();
        tables.push(("node", Node::KEYS, node));
        let policy = toml::Table::try_from(&config.treatment).unwrap();
        tables.push(("treatment", Policy::KEYS, policy));
        let webhook = toml::Table::try_from(&config.webhook).unwrap();
        tables.push(("webhook", Webhook::KEYS, webhook));
        let dispatch = toml::Table::try_from(&config.dispatch).unwrap();
        tables.push(("dispatch", Dispatch::KEYS, dispatch));
        for ailment in &config.ailments {
            let about = ailment.collector.about();
            tables.push((
                about.name,
                about.keys,
                ailment.collector.settings().unwrap(),
            ));
        }
        for (table, keys, fields) in tables {
            let mut keys: Vec<_> = keys.iter().map(|key| key.name).collect();
            keys.sort_unstable();
            let mut fields: Vec<_> = fields.keys().map(String::as_str).collect();
            fields.sort_unstable();
            assert_eq!(keys, fields, "[{table}]");
        }
    }

    #[test]
    fn every_word_that_a_key_allows_can_be_read() {
        for (table, keys) in [
            ("log", Log::KEYS),
            ("node", Node::KEYS),
            ("treatment", Policy::KEYS),
        ] {
            for key in keys {
                let super::super::Allowed::OneOf(words) = key.allowed else {
                    continue;
                };
                for word in words {
                    assert!(parse(&format!("[{table}]\n{} = '{word}'\n", key.name)).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_cell_of_the_page_holds_no_bar() {
        let page = as_markdown(&Config::default()).unwrap();
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
    }
}
