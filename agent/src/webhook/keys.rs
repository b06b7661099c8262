//! Keys that every table has by which alerts come in.

use crate::config::{Allowed, Key};

/// How to speak TLS.
pub(crate) const WEB_CONFIG: Key = Key {
    name: "web_config",
    allowed: Allowed::Text,
    help: "A file in the form of Prometheus' own tools (`promtool check web-config` checks it) \
           with tls_server_config: cert_file, key_file, client_auth_type, client_ca_file, \
           min_version, max_version. The certificates are read again when they change. Empty: \
           no TLS.",
};

/// Who may come in.
pub(crate) const TOKEN_FILE: Key = Key {
    name: "token_file",
    allowed: Allowed::Text,
    help: "A file with the bearer token that a request must carry, readable by its owner alone. \
           It is read again when it changes. Empty: no token.",
};

/// How much may come in at once.
pub(crate) const MAX_BODY: Key = Key {
    name: "max_body_bytes",
    allowed: Allowed::Count {
        min: 1 << 10,
        max: 16 << 20,
    },
    help: "The largest payload. An alert has some 1,000 bytes.",
};

/// How often something may come in.
pub(crate) const PER_MINUTE: Key = Key {
    name: "per_minute",
    allowed: Allowed::Count {
        min: 1,
        max: 60_000,
    },
    help: "How many requests a minute are looked at. OtherNode are answered by 503, after which \
           Alertmanager tries again.",
};

/// How alerts name nodes.
pub(crate) const NODE_LABELS: Key = Key {
    name: "node_labels",
    allowed: Allowed::Texts,
    help: "The labels of an alert that may name its node, in this order: the first that it has \
           counts.",
};

/// Their usual names.
pub(crate) fn node_labels() -> Vec<String> {
    ["node", "instance"].map(str::to_owned).to_vec()
}
