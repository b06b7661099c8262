//! Reads a file, holds all of it against the lists of keys, and only then makes
//! values of it: so every fault is reported at once, each at its place.

use std::{io, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue, ValueDeserializer},
};

use super::{
    Config, ENABLED, Error, Fault, keys_of,
    renamed::{self, Kind},
};
use crate::{
    collector::Configured,
    files,
    keys::{Key, Table},
};

/// The file's configuration, or the defaults where there is none.
///
/// # Errors
///
/// When the file cannot be read, or anything in it is not allowed.
pub fn load(file: Option<&Path>) -> Result<Config, Error> {
    let Some(file) = file else {
        return Ok(Config::default());
    };
    let text = files::read(file).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    let text = text.map_err(|cause| Error::Unreadable {
        file: file.to_owned(),
        cause,
    })?;
    parse(&text).map_err(|mut faults| {
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Error::Faulty {
            file: file.to_owned(),
            faults,
        }
    })
}

pub(super) fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    let document = DeTable::parse(text).map_err(|error| vec![misread(text, 0..0, &error)])?;
    let mut reader = Reader {
        text,
        faults: Vec::new(),
    };
    let config = reader.document(document.into_inner());
    if reader.faults.is_empty() {
        Ok(config)
    } else {
        Err(reader.faults)
    }
}

/// What the parser or serde says, at the place it names, else at the given one.
fn misread(text: &str, fallback: Range<usize>, error: &toml::de::Error) -> Fault {
    Fault::at(text, error.span().unwrap_or(fallback), error.message())
}

/// The table that has one for each ailment.
const AILMENTS: &str = "ailments";

type Name<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

struct Reader<'i> {
    text: &'i str,
    faults: Vec<Fault>,
}

impl<'i> Reader<'i> {
    fn document(&mut self, document: DeTable<'i>) -> Config {
        let mut config = Config::default();
        for (name, value) in document {
            let current = match self.renamed(Kind::Table, &name) {
                Some(current) => current,
                None => name.get_ref().as_ref(),
            };
            let mut tables = config.tables_mut().into_iter();
            if current == AILMENTS {
                self.ailments(value, &mut config.ailments);
            } else if let Some(table) = tables.find(|it| it.name() == current) {
                self.table(table, value);
            } else {
                let names = config.tables().into_iter().map(|table| table.name());
                self.unknown("table", &name, names.chain([AILMENTS]));
            }
        }
        config
    }

    fn table(&mut self, into: &mut dyn Table, value: Value<'i>) {
        let Some((table, span)) = self.checked(into.name(), &into.keys(), value) else {
            return;
        };
        if let Err(error) = into.read(deserializer(table, span.clone())) {
            self.faults.push(misread(self.text, span, &error));
        }
    }

    fn ailments(&mut self, value: Value<'i>, configured: &mut [Configured]) {
        let Some((tables, _)) = self.as_table(AILMENTS, value) else {
            return;
        };
        for (name, value) in tables {
            match configured
                .iter_mut()
                .find(|ailment| ailment.collector.about().name == name.get_ref())
            {
                Some(ailment) => self.ailment(value, ailment),
                None => {
                    let names: Vec<_> = configured
                        .iter()
                        .map(|ailment| ailment.collector.about().name)
                        .collect();
                    self.unknown("ailment", &name, names);
                }
            }
        }
    }

    fn ailment(&mut self, value: Value<'i>, ailment: &mut Configured) {
        let about = ailment.collector.about();
        let path = format!("{AILMENTS}.{}", about.name);
        let Some((mut table, span)) = self.checked(&path, &keys_of(&*ailment.collector), value)
        else {
            return;
        };
        if let Some(enabled) = table.remove(ENABLED.name) {
            ailment.enabled = enabled.get_ref().as_bool().unwrap_or(ailment.enabled);
        }
        if let Err(error) = ailment
            .collector
            .configure(deserializer(table, span.clone()))
        {
            self.faults.push(misread(self.text, span, &error));
        }
    }

    /// The new name of an old one, which is a fault.
    fn renamed(&mut self, kind: Kind<'_>, name: &Name<'_>) -> Option<&'static str> {
        let renamed = renamed::find(kind, name.get_ref())?;
        let fault = Fault::at(self.text, name.span(), renamed.to_string());
        self.faults.push(fault);
        Some(renamed.new)
    }

    /// The table, if it has none but known keys with allowed values.
    fn checked(
        &mut self,
        path: &str,
        keys: &[Key],
        value: Value<'i>,
    ) -> Option<(DeTable<'i>, Range<usize>)> {
        let (table, span) = self.as_table(path, value)?;
        let faults_before = self.faults.len();
        let kind = Kind::KeyOf(path);
        for (name, value) in &table {
            match keys.iter().find(|key| key.name == name.get_ref()) {
                Some(key) => self.check(path, key, value),
                None if self.renamed(kind, name).is_some() => {}
                None => self.unknown("key", name, keys.iter().map(|key| key.name)),
            }
        }
        (self.faults.len() == faults_before).then_some((table, span))
    }

    fn check(&mut self, path: &str, key: &Key, value: &Value<'i>) {
        if let Err(message) = key.allowed.check(value.get_ref()) {
            let word = value.get_ref().as_str();
            let renamed = word.and_then(|word| renamed::find(Kind::WordIn(path), word));
            let message = renamed.map_or(message, |renamed| renamed.to_string());
            let message = format!("{path}.{}: {message}", key.name);
            self.faults
                .push(Fault::at(self.text, value.span(), message));
        }
    }

    fn as_table(&mut self, path: &str, value: Value<'i>) -> Option<(DeTable<'i>, Range<usize>)> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some((table, span)),
            other => {
                let message = format!("{path}: {} is not a table", other.type_str());
                self.faults.push(Fault::at(self.text, span, message));
                None
            }
        }
    }

    fn unknown(
        &mut self,
        what: &str,
        name: &Name<'_>,
        allowed: impl IntoIterator<Item = &'static str>,
    ) {
        let allowed: Vec<_> = allowed.into_iter().collect();
        let message = format!(
            "unknown {what} `{}`, allowed are: {}",
            name.get_ref(),
            allowed.join(", ")
        );
        self.faults.push(Fault::at(self.text, name.span(), message));
    }
}

fn deserializer(table: DeTable<'_>, span: Range<usize>) -> ValueDeserializer<'_> {
    Spanned::new(span, DeValue::Table(table)).into()
}

/// For fuzzing: configuration files.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "config",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = parse(&text);
    },
    seeds: &[
        b"[agent]\nlisten = \"127.0.0.1:19110\"\nnode_name = \"n\"\n[log]\nlevel = \"info\"\n[treatments]\nudp_timeout = \"auto\"\n[ailments.psi_stall]\ncpu_ratio = 0.1\nhooks = [\"fentry\"]\n",
    ],
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::Agent, node::Node, treatment::Mode};

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(text).expect_err("the text is faulty");
        let shown = |fault: &Fault| format!("{}:{}: {}", fault.line, fault.column, fault.message);
        faults.iter().map(shown).collect()
    }

    #[test]
    fn what_stands_in_the_file_wins_over_the_default() {
        let config = parse(
            "[agent]\nlisten = '[::1]:1'\ninterval = '7s'\n[log]\nformat = 'json'\n\
             [ailments.udp_conntrack]\nenabled = false\n",
        )
        .unwrap();
        assert_eq!(config.agent.listen.port(), 1);
        assert_eq!(config.agent.interval, Duration::from_secs(7));
        assert_eq!(
            config.agent.shutdown_timeout,
            Agent::default().shutdown_timeout
        );
        assert_eq!(config.log.format, crate::config::Format::Json);
        assert!(!config.ailments[0].enabled);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap().agent, Agent::default());
    }

    #[test]
    fn broken_toml_is_placed() {
        assert_eq!(
            faults("[agent]\nlisten = \n")[0].split(": ").next(),
            Some("2:10")
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        assert_eq!(
            faults("[agent]\n  intervall = '5s'\n"),
            ["2:3: unknown key `intervall`, allowed are: \
                 listen, health_listen, allowed_hosts, interval, node_name, shutdown_timeout, state_dir"]
        );
    }

    #[test]
    fn an_unknown_table_is_refused_with_the_known_ones() {
        assert_eq!(
            faults("[agents]\n"),
            [
                "1:2: unknown table `agents`, allowed are: agent, log, metrics, node, treatment_policy, \
             treatments, webhook, dispatch, ailments"
            ]
        );
        assert_eq!(
            faults("interval = '5s'\n"),
            [
                "1:1: unknown table `interval`, allowed are: agent, log, metrics, node, treatment_policy, \
             treatments, webhook, dispatch, ailments"
            ]
        );
    }

    #[test]
    fn an_unknown_ailment_is_refused() {
        let fault = &faults("[ailments.flu]\n")[0];
        assert!(fault.starts_with("1:11: unknown ailment `flu`"), "{fault}");
        assert!(fault.contains("udp_conntrack"), "{fault}");
    }

    #[test]
    fn a_wrong_type_is_refused() {
        assert_eq!(
            faults("agent = 5\n"),
            ["1:9: agent: integer is not a table"]
        );
        assert_eq!(
            faults("[metrics]\nbpf_stats = 'yes'\n"),
            ["2:13: metrics.bpf_stats: \"yes\" is not true or false"]
        );
    }

    #[test]
    fn an_impossible_value_is_refused_with_its_range() {
        assert_eq!(
            faults("[agent]\ninterval = '1ms'\n"),
            ["2:12: agent.interval: \"1ms\" is not a time from \"1s\" to \"1h\""]
        );
    }

    #[test]
    fn a_treatment_has_its_mode_and_the_others_the_default() {
        let config = parse("[treatments]\nudp_timeout = 'auto'\n").unwrap();
        let policy = config.treatment_policy.with(config.treatments);
        assert_eq!(policy.mode("udp_timeout"), Mode::Auto);
        assert_eq!(policy.mode("run_estimation"), Mode::DryRun);
        let fault = &faults("[treatments]\nudp_timeout = 'yes'\n")[0];
        assert!(fault.contains("\"dry-run\", \"manual\""), "{fault}");
        let fault = &faults("[treatments]\nvm_swappiness = 'auto'\n")[0];
        assert!(fault.contains("run_estimation"), "{fault}");
    }

    #[test]
    fn an_agent_that_is_none_is_refused_with_what_one_is() {
        let faults = faults("[dispatch]\nagents = ['collector-7 http://a:1 a:2']\n");
        assert!(faults[0].starts_with("2:"), "{faults:?}");
        assert!(faults[0].contains("http://HOST:PORT"), "{faults:?}");
    }

    #[test]
    fn labels_that_cannot_be_carried_are_refused_with_those_that_can() {
        let config = parse("[node]\npod_labels = ['team', 'example.com/costCenter']\n").unwrap();
        assert_ne!(config.node.pod_labels, Node::default().pod_labels);
        assert!(parse("[node]\npod_labels = []\n").is_ok());
        for (labels, why) in [
            (
                "['app', 'my app']",
                "2:14: node.pod_labels: \"my app\" is no key of a label",
            ),
            (
                "['a-b', 'a.b']",
                "\"a-b\" and \"a.b\" would both be label_a_b in metrics",
            ),
            ("'app'", "\"app\" is not a list of up to 10 keys"),
        ] {
            let fault = &faults(&format!("[node]\npod_labels = {labels}\n"))[0];
            assert!(fault.contains(why), "{fault}");
            assert!(
                fault.contains("such as \"app.kubernetes.io/name\""),
                "{fault}"
            );
        }
    }

    #[test]
    fn all_faults_are_found_at_once() {
        assert_eq!(
            faults("[agent]\nx = 1\nlisten = 1\n[log]\nlevel = 'loud'\n").len(),
            3
        );
    }
}
