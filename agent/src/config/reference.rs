//! Prints a configuration with what each key means: as TOML that loads again, and
//! as the page of the documentation.

use super::{Config, ENABLED, keys_of};
use crate::{collector::Configured, keys::Key, render::fill};

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
            if let Some(flag) = key.flag {
                comment(&mut page, &format!("Flag: {flag}"));
            }
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
            let flag = key.flag.map(|flag| format!(" Flag: `{flag}`."));
            let help = help.to_owned() + &flag.unwrap_or_default();
            page.push_str(&format!("| `{name}` | `{value}` | {allowed} | {help} |\n"));
        }
    }
    Ok(page)
}

fn sections(config: &Config) -> Result<Vec<Section>, toml::ser::Error> {
    let mut sections = Vec::new();
    for table in config.tables() {
        let (name, help) = (table.name().to_owned(), table.help().to_owned());
        sections.push(section(name, help, table.keys(), &table.values()?));
    }
    for configured in &config.ailments {
        sections.push(ailment(configured)?);
    }
    Ok(sections)
}

fn section(name: String, help: String, keys: Vec<Key>, values: &toml::Table) -> Section {
    let entry = |key: Key| Some((key, values.get(key.name)?.clone()));
    Section {
        name,
        help,
        entries: keys.into_iter().filter_map(entry).collect(),
    }
}

fn ailment(configured: &Configured) -> Result<Section, toml::ser::Error> {
    let about = configured.collector.about();
    let mut values = configured.collector.settings()?;
    values.insert(ENABLED.name.to_owned(), configured.enabled.into());
    Ok(section(
        format!("ailments.{}", about.name),
        format!("The ailment: {}.", about.summary),
        keys_of(&*configured.collector),
        &values,
    ))
}

fn comment(page: &mut String, text: &str) {
    page.push_str(&fill(text, WIDTH, "# ", "# "));
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Agent, Log, Metrics, load::parse},
        *,
    };
    use crate::keys::Allowed;

    #[test]
    fn the_defaults_load_again_to_the_same() {
        let printed = as_toml(&Config::default()).unwrap();
        let loaded = parse(&printed).unwrap_or_else(|faults| panic!("{faults:?}\n{printed}"));
        assert_eq!(as_toml(&loaded).unwrap(), printed);
        assert_eq!(loaded.agent, Agent::default());
        assert_eq!(loaded.log, Log::default());
        assert_eq!(loaded.metrics, Metrics::default());
    }

    #[test]
    fn every_word_that_a_key_allows_can_be_read() {
        for table in Config::default().tables() {
            for key in table.keys() {
                let Allowed::OneOf(words) = key.allowed else {
                    continue;
                };
                for word in words {
                    let text = format!("[{}]\n{} = '{word}'\n", table.name(), key.name);
                    assert!(parse(&text).is_ok(), "{text}");
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
