//! Keys of the configuration as flags of the command line: what declares a key declares its flag.

use std::{fmt, marker::PhantomData};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser,
};
use toml::de::DeValue;

use crate::{
    config::{self, Config, renamed},
    keys::{Allowed, Key, Named},
};

/// A verb that takes some keys as flags.
pub(super) trait TakesKeys {
    /// The flags, in the order of its help.
    fn flags() -> Vec<Flag>;
}

/// A key with its flag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    table: &'static str,
    key: Key,
    /// Without its dashes.
    name: &'static str,
    /// What its value is called; a switch has none.
    value: Option<&'static str>,
}

impl Flag {
    /// All flags of a table.
    pub(super) fn all<T: Named>() -> Vec<Self> {
        T::KEYS
            .iter()
            .filter_map(|key| Self::of(T::NAME, *key))
            .collect()
    }

    /// The flag of one key of a table.
    pub(super) fn one<T: Named>(key: &str) -> Vec<Self> {
        let mut flags = Self::all::<T>();
        flags.retain(|flag| flag.key.name == key);
        flags
    }

    fn of(table: &'static str, key: Key) -> Option<Self> {
        let flag = key.flag?.trim_start_matches('-');
        let (name, value) = match flag.split_once(' ') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        Some(Self {
            table,
            key,
            name,
            value,
        })
    }

    fn argument(&self) -> Arg {
        let argument = Arg::new(self.name).long(self.name).help(self.to_string());
        let Some(value) = self.value else {
            return argument.action(ArgAction::SetTrue);
        };
        let argument = argument.value_name(value);
        match self.key.allowed {
            Allowed::OneOf(words) => {
                argument.value_parser(PossibleValuesParser::new(words.iter().copied()))
            }
            allowed => argument.value_parser(move |text: &str| checked(allowed, text)),
        }
    }

    /// What was given.
    fn read(&self, matches: &ArgMatches) -> Option<toml::Value> {
        if self.value.is_none() {
            return matches.get_flag(self.name).then_some(true.into());
        }
        let text = matches.get_one::<String>(self.name)?;
        Some(text.as_str().into())
    }
}

/// Its help: the first sentence on the key, and where the key stands.
impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help = self.key.help;
        let sentence = help.split(". ").next().unwrap_or(help);
        let sentence = sentence.trim_end_matches('.');
        write!(f, "{sentence} ([{}] {})", self.table, self.key.name)
    }
}

fn checked(allowed: Allowed, text: &str) -> Result<String, String> {
    allowed.check(&DeValue::String(text.into()))?;
    Ok(text.to_owned())
}

/// The flags of a verb, as they were given.
#[derive(Debug)]
pub(super) struct Flags<V> {
    given: Vec<(Flag, toml::Value)>,
    verb: PhantomData<V>,
}

impl<V> Flags<V> {
    /// Sets what was given over what the file says.
    ///
    /// # Errors
    ///
    /// When a key cannot be that.
    pub(super) fn set(&self, config: &mut Config) -> Result<(), config::Error> {
        for (flag, value) in &self.given {
            config.set(flag.table, flag.key.name, value.clone())?;
        }
        Ok(())
    }

    /// Whether this flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(flag, _)| flag.name == name)
    }
}

impl<V: TakesKeys> FromArgMatches for Flags<V> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |flag: Flag| Some((flag, flag.read(matches)?));
        Ok(Self {
            given: V::flags().into_iter().filter_map(given).collect(),
            verb: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<V: TakesKeys> Args for Flags<V> {
    fn augment_args(command: Command) -> Command {
        command.args(V::flags().iter().map(Flag::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Refuses the flags of earlier versions, with those that they are now.
pub(super) fn refuse_renamed(command: Command) -> Command {
    renamed::all().fold(command, |command, renamed| match renamed.kind {
        renamed::Kind::FlagOf(verb) => command.mut_subcommand(verb, |verb| {
            let refuse = move |_: &str| Err::<String, _>(renamed.to_string());
            let old = Arg::new(renamed.old).long(renamed.old).hide(true);
            verb.arg(old.value_parser(refuse))
        }),
        _ => command,
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::{
        cmd::Arguments,
        config::{Agent, Log, Metrics},
    };

    #[derive(Debug, Parser)]
    struct Verb {
        #[command(flatten)]
        flags: Flags<Self>,
    }

    impl TakesKeys for Verb {
        fn flags() -> Vec<Flag> {
            [
                Flag::all::<Metrics>(),
                Flag::all::<Log>(),
                Flag::one::<Agent>("interval"),
            ]
            .concat()
        }
    }

    fn config(arguments: &[&str]) -> Result<Config, clap::Error> {
        let verb = Verb::try_parse_from([&["verb"], arguments].concat())?;
        let mut config = Config::default();
        verb.flags.set(&mut config).unwrap();
        Ok(config)
    }

    #[test]
    fn a_flag_sets_its_key_and_no_other() {
        let given = config(&["--interval", "7s", "--bpf-stats", "--log-level=warn"]).unwrap();
        assert_eq!(given.agent.interval, crate::keys::SECOND * 7);
        assert_eq!(given.log.level, config::Level::Warn);
        assert!(given.metrics.bpf_stats);
        assert_eq!(given.agent.listen, Agent::default().listen);
        assert!(!config(&[]).unwrap().metrics.bpf_stats);
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_what_is_allowed() {
        for (arguments, allowed) in [
            (["--interval", "1ms"], r#"a time from "1s" to "1h""#),
            (["--log-level", "loud"], "debug"),
            (["--listen", "127.0.0.1:1"], "unexpected argument"),
        ] {
            let error = config(&arguments).unwrap_err().to_string();
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn the_help_is_the_first_sentence_on_the_key() {
        let help = Verb::command().render_help().to_string();
        assert!(help.contains("--interval <TIME>"), "{help}");
        let interval = Flag::one::<Agent>("interval")[0].to_string();
        assert_eq!(
            interval,
            "Set the time between two readings of all ailments ([agent] interval)"
        );
    }

    #[test]
    fn every_old_flag_is_refused_with_the_one_that_is_taken() {
        for old in renamed::all() {
            let renamed::Kind::FlagOf(verb) = old.kind else {
                continue;
            };
            let value = match old.new {
                "duration" => "5m",
                "treatment" => "udp_timeout",
                _ => "127.0.0.1:1",
            };
            let ailment = (verb == "treat").then_some("udp_conntrack");
            let read = |name: &str| {
                let flag = format!("--{name}={value}");
                let words = ["nodemedic", verb].into_iter().chain(ailment);
                Arguments::read(words.chain([flag.as_str()]))
            };
            let error = read(old.old).unwrap_err().to_string();
            assert!(error.contains(&old.to_string()), "{error}");
            assert!(read(old.new).is_ok(), "{old}");
        }
    }
}
