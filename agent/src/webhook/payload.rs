//! What Alertmanager sends, as far as we look at it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Trigger;

/// The version of the payload.
const VERSION: &str = "4";

/// Fingerprints are 16 characters, times some 30; both end up in the journal.
const LONGEST_NAME: usize = 64;

/// Labels that say what an alert wants.
const AILMENT: &str = "ailment";
const KIND: &str = "kind";
const TREATMENT: &str = "treatment";

/// A group of alerts. Its own status is not looked at: it tells of the alerts that were
/// left out, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// Always [`VERSION`].
    version: String,
    /// The group.
    #[serde(default)]
    pub group_key: String,
    /// How many alerts `max_alerts` has cut off.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// Those that are left.
    pub alerts: Vec<Alert>,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Whether it is over.
    pub status: Status,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: String,
    /// A hash of its labels.
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
    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to do.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            version: Option<String>,
        }
        let not_read = |error: serde_json::Error| {
            format!("this is no payload of Alertmanager's webhook_configs: {error}")
        };
        let Head { version } = serde_json::from_slice(body).map_err(not_read)?;
        if version.as_deref() != Some(VERSION) {
            return Err(format!(
                "this payload is of version {}, and version \"{VERSION}\" alone is understood: send \
                 it by webhook_configs of Alertmanager",
                version.map_or("none".to_owned(), |version| format!("{version:?}"))
            ));
        }
        let payload: Self = serde_json::from_slice(body).map_err(not_read)?;
        match payload.alerts.iter().find(|alert| !alert.has_an_identity()) {
            Some(alert) => Err(format!(
                "an alert has the fingerprint {:?} and startsAt {:?}: each must have 1 to \
                 {LONGEST_NAME} ASCII characters",
                alert.fingerprint, alert.starts_at
            )),
            None => Ok(payload),
        }
    }

    /// A payload with these alerts of a group.
    pub fn of(group_key: &str, alerts: Vec<Alert>) -> Self {
        Self {
            version: VERSION.to_owned(),
            group_key: group_key.to_owned(),
            truncated_alerts: 0,
            alerts,
        }
    }
}

impl Alert {
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

    /// Who it is.
    pub fn trigger(&self) -> Trigger {
        Trigger::Alert {
            fingerprint: self.fingerprint.clone(),
            starts_at: self.starts_at.clone(),
        }
    }

    fn wants(&self, label: &str) -> Option<&str> {
        let value = self.labels.get(label)?;
        (!value.is_empty()).then_some(value)
    }

    fn has_an_identity(&self) -> bool {
        [&self.fingerprint, &self.starts_at]
            .into_iter()
            .all(|part| {
                (1..=LONGEST_NAME).contains(&part.len())
                    && part.bytes().all(|b| b.is_ascii_graphic())
            })
    }
}

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
            ("c0ffee00c0ffee00", "", "fingerprint"),
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

    #[test]
    fn what_is_sent_on_is_read_again() {
        let payload = Payload::parse(PAYLOAD.as_bytes()).unwrap();
        let sent = serde_json::to_vec(&Payload::of("g", payload.alerts.clone())).unwrap();
        assert_eq!(Payload::parse(&sent).unwrap().alerts, payload.alerts);
    }
}
