//! What Alertmanager sends, as far as we look at it, and Grafana, which sends the same and more.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

use crate::model::{Resolution, Trigger};

/// The version of Alertmanager's payload (notify/webhook/webhook.go).
const VERSION: &str = "4";

/// That of Grafana's own alerting (grafana/alerting, receivers/webhook/v1/webhook.go).
const OF_GRAFANA: &str = "1";

/// Alerts of Grafana for a rule that it could not evaluate. They have the rule's labels, and say
/// nothing about the node.
const NOT_EVALUATED: [&str; 2] = ["DatasourceNoData", "DatasourceError"];

/// What is taken for true of `truncatedAlerts`. A sender of more has a broken counter, which must not
/// break ours.
const MOST_TRUNCATED: u64 = 1_000_000;

/// Fingerprints are 16 characters, times some 30; both end up in the journal.
const LONGEST_NAME: usize = 64;

/// Labels that say what an alert wants.
const AILMENT: &str = "ailment";
const KIND: &str = "kind";
const TREATMENT: &str = "treatment";

/// A group of alerts. Its own status is not looked at: it tells of the alerts that were
/// left out, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    version: &'static str,
    /// The group.
    pub group_key: String,
    /// How many alerts `max_alerts` has cut off.
    pub truncated_alerts: u64,
    /// Those that are left.
    pub alerts: Vec<Alert>,
}

/// A payload before its alerts are looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(default)]
    group_key: String,
    #[serde(default)]
    truncated_alerts: u64,
    /// `null` is how Go writes that there are none.
    #[serde(borrow, deserialize_with = "required")]
    alerts: Option<Vec<&'a RawValue>>,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Whether it is over.
    pub status: Status,
    /// All its labels.
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: String,
    /// When it ended, if it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// A hash of its labels.
    #[serde(default)]
    pub fingerprint: String,
}

/// Whether an alert is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is.
    Resolved,
    /// It is not.
    Firing,
}

impl Payload {
    /// Reads a payload: all of it, or nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let not_read = |error: serde_json::Error| {
            format!("this is no payload of Alertmanager's webhook_configs: {error}")
        };
        #[derive(Deserialize)]
        struct Head {
            version: Option<String>,
        }
        let Head { version } = serde_json::from_slice(body).map_err(not_read)?;
        if !version
            .as_deref()
            .is_some_and(|version| [VERSION, OF_GRAFANA].contains(&version))
        {
            return Err(format!(
                "this payload is of version {}; only \"{VERSION}\" (Alertmanager) and \"{OF_GRAFANA}\" \
                 (Grafana) are understood: send it by webhook_configs of Alertmanager, or by a \
                 webhook contact point of Grafana",
                version.map_or("none".to_owned(), |version| format!("{version:?}"))
            ));
        }
        let raw: Raw<'_> = serde_json::from_slice(body).map_err(not_read)?;
        let alerts = raw.alerts.unwrap_or_default();
        let count = alerts.len();
        let alert = |(index, value)| {
            Alert::parse(value)
                .map_err(|why| format!("alert {} of {count}: {why}; nothing was done", index + 1))
        };
        Ok(Self {
            version: VERSION,
            group_key: raw.group_key,
            truncated_alerts: raw.truncated_alerts.min(MOST_TRUNCATED),
            alerts: alerts
                .into_iter()
                .enumerate()
                .map(alert)
                .collect::<Result<_, _>>()?,
        })
    }

    /// A payload with these alerts of a group.
    pub fn of(group_key: &str, alerts: Vec<Alert>) -> Self {
        Self {
            version: VERSION,
            group_key: group_key.to_owned(),
            truncated_alerts: 0,
            alerts,
        }
    }
}

impl Alert {
    fn parse(text: &RawValue) -> Result<Self, String> {
        let mut alert: Self = match serde_json::from_str(text.get()) {
            Ok(alert) => alert,
            Err(error) => return Err(Self::fault(text).unwrap_or_else(|| error.to_string())),
        };
        if alert.fingerprint.is_empty() {
            alert.fingerprint = fingerprint(&alert.labels);
        }
        let parts = [&alert.fingerprint, &alert.starts_at];
        let is_short = |part: &&String| {
            (1..=LONGEST_NAME).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_graphic())
        };
        match parts.iter().all(is_short) {
            true => Ok(alert),
            false => Err(format!(
                "it has the fingerprint {:?} and startsAt {:?}: each must have 1 to \
                 {LONGEST_NAME} ASCII characters",
                alert.fingerprint, alert.starts_at
            )),
        }
    }

    /// What is wrong with one that cannot be read, where the parser alone does not say it well.
    fn fault(text: &RawValue) -> Option<String> {
        let value: Value = serde_json::from_str(text.get()).ok()?;
        if let Some(Value::Object(labels)) = value.get("labels")
            && let Some((name, value)) = labels.iter().find(|(_, value)| !value.is_string())
        {
            return Some(format!(
                "its label {name} is {value}, and a label must be a string"
            ));
        }
        let status = value.get("status")?;
        Status::deserialize(status)
            .is_err()
            .then(|| format!("its status is {status}, and must be \"firing\" or \"resolved\""))
    }

    /// Which one it is.
    pub fn id(&self) -> (&str, &str) {
        (&self.fingerprint, &self.starts_at)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }

    /// The ailment that it is of.
    pub fn ailment(&self) -> Option<&str> {
        self.wants(AILMENT)
    }

    /// The kind of finding that it is of.
    pub fn kind(&self) -> Option<&str> {
        self.wants(KIND)
    }

    /// What is to be done about it.
    pub fn treatment(&self) -> Option<&str> {
        self.wants(TREATMENT)
    }

    /// Whether it only says that Grafana could not evaluate its rule.
    pub fn is_not_evaluated(&self) -> bool {
        NOT_EVALUATED.contains(&self.name())
    }

    /// Who it is.
    pub fn trigger(&self) -> Trigger {
        Trigger::Alert {
            fingerprint: self.fingerprint.clone(),
            starts_at: self.starts_at.clone(),
            until: None,
        }
    }

    /// Who is over.
    pub fn resolution(&self) -> Resolution {
        Resolution {
            fingerprint: self.fingerprint.clone(),
            starts_at: self.starts_at.clone(),
            ends_at: self.ends_at.clone(),
        }
    }

    fn wants(&self, label: &str) -> Option<&str> {
        let value = self.labels.get(label)?;
        (!value.is_empty()).then_some(value)
    }
}

/// A field that may be `null`, and must be there.
fn required<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Vec<&'de RawValue>>, D::Error> {
    Option::deserialize(field)
}

fn null_is_empty<'de, D: Deserializer<'de>>(
    field: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Option::deserialize(field).map(Option::unwrap_or_default)
}

/// What an Alertmanager before 0.19 keeps to itself: FNV-1a, 64 bits, of all labels in the order
/// of their names (prometheus/common, model/signature.go, `labelSetToFingerprint`).
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    const SEPARATOR: u8 = 255;
    let parts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = parts.flat_map(|part| part.bytes().chain([SEPARATOR]));
    let hash = bytes.fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

/// For fuzzing: bodies of alerts.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "alerts",
    read: |bytes| {
        if let Ok(payload) = Payload::parse(bytes) {
            for alert in &payload.alerts {
                let _ = (alert.name(), alert.ailment(), alert.kind(), alert.treatment());
            }
        }
    },
    seeds: &[
        br#"{"version":"4","groupKey":"{}:{alertname=\"A\"}","truncatedAlerts":0,"status":"firing","receiver":"r","alerts":[{"status":"firing","labels":{"alertname":"A","node":"n","ailment":"udp_conntrack","kind":"table_full"},"annotations":{},"startsAt":"2026-11-30T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"f"}]}"#,
        br#"{"version":"1","groupKey":"{}","alerts":[{"status":"resolved","labels":{"node":"n"},"startsAt":"2026-11-30T00:00:00Z","endsAt":"2026-11-30T01:00:00Z"}],"truncatedAlerts":18446744073709551615}"#,
    ],
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As Alertmanager sends it, shortened.
    pub(crate) const PAYLOAD: &str = r#"{"receiver":"nodemedic","status":"resolved","alerts":[
        {"status":"firing","labels":{"alertname":"ConntrackTableFull","ailment":"udp_conntrack",
         "instance":"node-7:19110","kind":"table_full"},"annotations":{},
         "startsAt":"2026-11-25T10:00:00.1Z","endsAt":"0001-01-01T00:00:00Z",
         "generatorURL":"","fingerprint":"c0ffee00c0ffee00"}],
        "groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"",
        "version":"4","groupKey":"{}:{}","truncatedAlerts":3}"#;

    #[test]
    fn a_payload_is_read() {
        let payload = Payload::parse(PAYLOAD.as_bytes()).unwrap();
        assert_eq!(payload.truncated_alerts, 3);
        let alert = &payload.alerts[0];
        assert_eq!(alert.status, Status::Firing);
        assert_eq!(alert.ailment(), Some("udp_conntrack"));
        assert_eq!(alert.kind(), Some("table_full"));
        assert_eq!(alert.treatment(), None);
        assert_eq!(alert.name(), "ConntrackTableFull");
    }

    #[test]
    fn what_is_no_payload_is_refused_with_what_is_wrong() {
        let long = "f".repeat(65);
        for (from, to, why) in [
            ("\"version\":\"4\"", "\"version\":\"3\"", "version \"3\""),
            ("\"version\":\"4\",", "", "version none"),
            ("\"alerts\"", "\"alert\"", "alerts"),
            ("\"firing\",\"labels\"", "\"burning\",\"labels\"", "burning"),
            ("\"version\":\"4\"", "\"version\":1", "expected a string"),
            (
                "\"instance\":\"node-7:19110\"",
                "\"instance\":7",
                "its label instance is 7",
            ),
            (
                "\"firing\",\"labels\"",
                "\"suppressed\",\"labels\"",
                "alert 1 of 1: ",
            ),
            ("c0ffee00c0ffee00", &long, "fingerprint"),
            ("c0ffee00c0ffee00", "\\n", "fingerprint"),
            ("\"startsAt\"", "\"since\"", "startsAt"),
            ("truncatedAlerts\":3}", "truncatedAlerts\":3", "no payload"),
        ] {
            assert!(PAYLOAD.contains(from), "{from}");
            let error = Payload::parse(PAYLOAD.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.contains(why), "{from} -> {to}: {error}");
        }
        for text in ["", "[]", "\u{0}", &"[".repeat(100_000)] {
            assert!(Payload::parse(text.as_bytes()).is_err());
        }
    }

    fn read(from: &str, to: &str) -> Payload {
        assert!(PAYLOAD.contains(from), "{from}");
        Payload::parse(PAYLOAD.replace(from, to).as_bytes()).unwrap()
    }

    #[test]
    fn grafana_s_own_alerting_is_read_as_alertmanager() {
        let of_grafana = read(
            "\"version\":\"4\"",
            "\"orgId\":1,\"title\":\"[FIRING:1]\",\"state\":\"alerting\",\"version\":\"1\"",
        );
        assert_eq!(of_grafana, Payload::parse(PAYLOAD.as_bytes()).unwrap());
        let no_data = read("ConntrackTableFull", "DatasourceNoData");
        assert!(no_data.alerts[0].is_not_evaluated());
        assert!(!of_grafana.alerts[0].is_not_evaluated());
    }

    #[test]
    fn what_go_leaves_out_is_empty() {
        let none = br#"{"version":"4","groupKey":"g","truncatedAlerts":0,"alerts":null}"#;
        assert_eq!(Payload::parse(none).unwrap().alerts, []);
        let alert = br#"{"version":"4","alerts":[{"status":"firing","labels":null,
            "startsAt":"2026-11-29T20:00:07Z","fingerprint":"a"}]}"#;
        let alert = &Payload::parse(alert).unwrap().alerts[0];
        assert_eq!((alert.labels.len(), alert.ailment()), (0, None));
    }

    /// The labels and the fingerprint are those of a webhook of Alertmanager 0.21.
    #[test]
    fn an_alert_without_a_fingerprint_has_that_of_its_labels() {
        let labels = [
            ("alertname", "DemoAlert"),
            ("server", "ni3"),
            ("severity", "critical"),
        ];
        let labels = labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(fingerprint(&labels), "8a07086b74f3ba78");
        let given = &read("", "").alerts[0].fingerprint;
        assert_eq!(given, "c0ffee00c0ffee00");
        let own = read(",\"fingerprint\":\"c0ffee00c0ffee00\"", "");
        let empty = read("c0ffee00c0ffee00", "");
        assert_eq!(own, empty);
        assert_eq!(
            own.alerts[0].fingerprint,
            fingerprint(&own.alerts[0].labels)
        );
    }

    #[test]
    fn what_is_sent_on_is_read_again() {
        let payload = Payload::parse(PAYLOAD.as_bytes()).unwrap();
        let sent = serde_json::to_vec(&Payload::of("g", payload.alerts.clone())).unwrap();
        assert_eq!(Payload::parse(&sent).unwrap().alerts, payload.alerts);
    }
}
