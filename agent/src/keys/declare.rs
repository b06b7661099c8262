//! A key is declared once, in [`settings!`]: its name, type, default, bounds, help and flag. The
//! field, the `Default`, the [`Key`] and the form in TOML are made of that.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize as _, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use toml::de::ValueDeserializer;

use super::key::{Allowed, Key};

pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// Declares the settings of a part of the agent, one key after another:
///
/// ```ignore
/// settings! {
///     /// What the table is about, in a sentence for the reference.
///     pub struct Metrics as "metrics" {
///         /// What the key does: for rustdoc, for the reference and for `--help`.
///         max_series: usize = 5_000, in count(500..=50_000), flag "--max-series COUNT";
///     }
/// }
/// ```
///
/// `as` makes it a table of the file by itself, a [`Named`]. `in` says what is allowed where the
/// type alone does not ([`Value::ALLOWED`]). `flag` lets verbs take it on the command line. What
/// follows as `beside them { … }` are fields that nobody configures.
macro_rules! settings {
    (
        $(#[doc = $about:expr])+
        $(#[derive($extra:ident)])?
        $visible:vis struct $name:ident $(as $table:literal)? {
            $(
                $(#[doc = $help:expr])+
                $key:ident: $type:ty = $default:expr $(, in $allowed:expr)? $(, flag $flag:literal)?;
            )+
        }
        $(beside them {
            $($(#[doc = $doc:expr])+ $field:ident: $field_type:ty;)+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[derive($extra)])?
        #[serde(default, deny_unknown_fields)]
        $visible struct $name {
            $(
                $(#[doc = $help])+
                #[serde(with = "crate::keys::form")]
                $visible $key: $type,
            )+
            $($($(#[doc = $doc])+ #[serde(skip)] $visible $field: $field_type,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($key: $default,)+
                    $($($field: Default::default(),)+)?
                }
            }
        }

        impl $crate::keys::Keyed for $name {
            const HELP: &'static str = concat!($($about),+).trim_ascii_start();

            const KEYS: &'static [$crate::keys::Key] = &[$(
                $crate::keys::Key {
                    name: stringify!($key),
                    allowed: $crate::keys::allowed(
                        &[$($allowed)?],
                        <$type as $crate::keys::Value>::ALLOWED,
                    ),
                    help: concat!($($help),+).trim_ascii_start(),
                    flag: $crate::keys::flag(&[$($flag)?]),
                },
            )+];

            fn set(&mut self, key: &str, value: toml::Value) -> Result<(), toml::de::Error> {
                match key {
                    $(stringify!($key) => self.$key = $crate::keys::Value::read(value)?,)+
                    _ => {}
                }
                Ok(())
            }
        }

        $(impl $crate::keys::Named for $name {
            const NAME: &'static str = $table;
        })?
    };
}
pub(crate) use settings;

/// Declares the words that a key's value may be, each with the variant that it stands for.
macro_rules! words {
    (
        $(#[$about:meta])+
        $visible:vis enum $name:ident {
            $($(#[$doc:meta])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$about])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
        )]
        $visible enum $name {
            $($(#[$doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $crate::keys::Value for $name {
            const ALLOWED: Option<$crate::keys::Allowed> =
                Some($crate::keys::Allowed::OneOf(&[$($word),+]));
        }

        impl $crate::keys::Word for $name {
            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}
pub(crate) use words;

/// The help of keys that several tables have.
macro_rules! shared_help {
    (hooks) => {
        "List the hooks that the probes may use, in order of preference. Empty: no probes; the agent \
         measures the baseline alone."
    };
    (scan_timeout) => {
        "Limit the time for one scan. The next scan waits for at least 200 times as long as this one \
         took."
    };
    (web_config) => {
        "Configure TLS with a file in the format of Prometheus' web configuration (`promtool check \
         web-config` checks it): tls_server_config with cert_file, key_file, client_auth_type, \
         client_ca_file, min_version, max_version. nodemedic reads the certificates again when they \
         change. Empty: no TLS."
    };
    (token_file) => {
        "Require the bearer token in this file. No one but the owner may have access to the file. \
         nodemedic reads the file again when it changes. Empty: no token."
    };
    (health_listen) => {
        "Set the address of /healthz and /readyz alone, for the kubelet: a flood of the other \
         listeners does not reach it. Empty: only the pages answer them."
    };
    (max_body_bytes) => {
        "Limit the size of a request body, bytes. An alert has about 1,000 bytes."
    };
    (max_requests_per_minute) => {
        "Limit the requests per minute. nodemedic answers further requests with status 503, and \
         Alertmanager sends them again."
    };
    (node_labels) => {
        "List the labels that can name the node of an alert, in order of preference. The first label \
         that the alert has counts."
    };
}
pub(crate) use shared_help;

/// Settings that [`settings!`] declares.
pub trait Keyed: Default + Serialize + DeserializeOwned {
    /// What they are about, in a sentence.
    const HELP: &'static str;

    /// Its keys, in the order of the reference.
    const KEYS: &'static [Key];

    /// Sets one key; a key that is none of these changes nothing.
    ///
    /// # Errors
    ///
    /// When the value has not the key's type.
    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), toml::de::Error>;
}

/// Settings that are a table of the file by themselves.
pub trait Named: Keyed {
    /// As written in the file.
    const NAME: &'static str;
}

/// A table of the file, whatever its type is.
pub trait Table {
    /// As written in the file.
    fn name(&self) -> &'static str;

    /// What it is about, in a sentence.
    fn help(&self) -> &'static str;

    /// What may stand in it.
    fn keys(&self) -> Vec<Key>;

    /// What each key is set to.
    ///
    /// # Errors
    ///
    /// When a value has no form in TOML.
    fn values(&self) -> Result<toml::Table, toml::ser::Error>;

    /// Takes the values of a file, and the defaults of the keys that are not in it.
    ///
    /// # Errors
    ///
    /// When a key is unknown, or a value has not its type.
    fn read(&mut self, table: ValueDeserializer<'_>) -> Result<(), toml::de::Error>;

    /// As [`Keyed::set`].
    ///
    /// # Errors
    ///
    /// When the value has not the key's type.
    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), toml::de::Error>;
}

impl<T: Named> Table for T {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn help(&self) -> &'static str {
        T::HELP
    }

    fn keys(&self) -> Vec<Key> {
        T::KEYS.to_vec()
    }

    fn values(&self) -> Result<toml::Table, toml::ser::Error> {
        toml::Table::try_from(self)
    }

    fn read(&mut self, table: ValueDeserializer<'_>) -> Result<(), toml::de::Error> {
        *self = T::deserialize(table)?;
        Ok(())
    }

    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), toml::de::Error> {
        Keyed::set(self, key, value)
    }
}

/// A type that a key may have.
pub trait Value: Serialize + DeserializeOwned {
    /// What may be written, where the type alone says it.
    const ALLOWED: Option<Allowed> = None;

    /// Writes it as the file has it.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }

    /// Reads it as the file has it.
    ///
    /// # Errors
    ///
    /// When that is no value of this type.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// A value that is one word.
pub trait Word: Copy {
    /// As written in the file.
    fn word(self) -> &'static str;
}

/// For `serde(with)`: a field as its [`Value`] is written and read.
pub mod form {
    use super::{Deserializer, Serializer, Value};

    pub fn serialize<T: Value, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.write(to)
    }

    pub fn deserialize<'de, T: Value, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::read(from)
    }
}

/// Types that allow the same whatever the key is.
macro_rules! allow {
    ($($type:ty: $allowed:expr;)+) => {
        $(impl Value for $type {
            const ALLOWED: Option<Allowed> = $allowed;
        })+
    };
}

allow! {
    bool: Some(Allowed::Switch);
    String: Some(Allowed::Text);
    PathBuf: Some(Allowed::Text);
    SocketAddr: Some(Allowed::Address);
    Vec<String>: Some(Allowed::Texts);
    f64: Some(Allowed::Share);
    u16: None;
    u32: None;
    usize: None;
}

/// As people write it: `"1m 30s"`.
impl Value for Duration {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(self, serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        humantime_serde::deserialize(deserializer)
    }
}

/// Empty where there is none.
impl Value for Option<SocketAddr> {
    const ALLOWED: Option<Allowed> = Some(Allowed::AddressOrNone);

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.map(|address| address.to_string());
        serializer.serialize_str(&text.unwrap_or_default())
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = (!text.is_empty()).then(|| text.parse());
        address.transpose().map_err(serde::de::Error::custom)
    }
}

/// A whole number in this range.
pub const fn count(range: RangeInclusive<u64>) -> Allowed {
    Allowed::Count {
        min: *range.start(),
        max: *range.end(),
    }
}

/// A time in this range.
pub const fn time(range: RangeInclusive<Duration>) -> Allowed {
    Allowed::Time {
        min: *range.start(),
        max: *range.end(),
    }
}

/// A port of this machine that the network does not reach.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What the declaration says, else what the type does.
pub const fn allowed(declared: &[Allowed], of_the_type: Option<Allowed>) -> Allowed {
    match (declared, of_the_type) {
        ([declared], _) => *declared,
        (_, Some(allowed)) => allowed,
        _ => panic!("the type alone does not say what is allowed: add `in`"),
    }
}

/// The flag, if the declaration has one.
pub const fn flag(declared: &[&'static str]) -> Option<&'static str> {
    match declared {
        [flag] => Some(flag),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    words! {
        /// How fast.
        #[derive(Default)]
        enum Pace {
            /// At once.
            #[default]
            Fast = "fast",
            /// After a while.
            Slow = "very-slow",
        }
    }

    settings! {
        /// A table that
        /// two lines tell of.
        struct Example as "example" {
            /// Set the time
            /// to wait.
            wait: Duration = SECOND, in time(Duration::ZERO..=MINUTE), flag "--wait TIME";
            /// Set the pace.
            pace: Pace = Pace::default();
            /// Set the share.
            share: f64 = 0.5;
        }
        beside them {
            /// Nobody configures this.
            runs: u32;
        }
    }

    fn read(text: &str) -> Result<Example, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_declaration_makes_keys_in_its_order() {
        let [wait, pace, share] = Example::KEYS else {
            panic!("{:?}", Example::KEYS);
        };
        assert_eq!((wait.name, wait.help), ("wait", "Set the time to wait."));
        assert_eq!(wait.allowed.to_string(), r#"a time from "0s" to "1m""#);
        assert_eq!(wait.flag, Some("--wait TIME"));
        assert_eq!(pace.allowed.to_string(), r#"one of "fast", "very-slow""#);
        assert_eq!((share.name, share.flag), ("share", None));
        let table: &dyn Table = &Example::default();
        assert_eq!(table.name(), "example");
        assert_eq!(table.help(), "A table that two lines tell of.");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "wait = \"1s\"\npace = \"fast\"\nshare = 0.5\n";
        assert_eq!(toml::to_string(&Example::default()).unwrap(), text);
        let example = read("wait = '1m 30s'\npace = 'very-slow'").unwrap();
        assert_eq!((example.wait, example.pace), (SECOND * 90, Pace::Slow));
        assert_eq!(example.share, 0.5);
        assert_eq!(example.pace.word(), "very-slow");
    }

    #[test]
    fn what_has_no_key_is_refused() {
        for text in ["runs = 1", "wiat = '1s'", "pace = 'Slow'", "wait = 1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_key_is_set_and_the_others_stay() {
        let mut example = Example {
            runs: 7,
            ..Example::default()
        };
        Keyed::set(&mut example, "wait", "2s".into()).unwrap();
        assert_eq!((example.wait, example.runs), (SECOND * 2, 7));
        assert!(Keyed::set(&mut example, "wait", 2.into()).is_err());
    }
}
