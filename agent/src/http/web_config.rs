//! The file that says how to speak TLS. Its keys are those of Prometheus' own tools, so
//! that `promtool check web-config` understands it; of them, those that we know.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::files;

/// What the file says, paths relative to it made whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebConfig {
    tls_server_config: TlsServer,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsServer {
    /// Our certificate, and those that lead from it to a root.
    pub(super) cert_file: PathBuf,
    /// Its key.
    pub(super) key_file: PathBuf,
    /// Whether clients have to have a certificate.
    #[serde(default)]
    pub(super) client_auth_type: ClientAuth,
    /// Who vouches for clients.
    pub(super) client_ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) min_version: Version,
    #[serde(default = "newest")]
    pub(super) max_version: Version,
}

/// The names are those of Go. Of its five, those that ask for a certificate and do not
/// look at it are left out: they prove nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[default]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// Older ones are not spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Version {
    #[default]
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

const fn newest() -> Version {
    Version::Tls13
}

/// Reads the file, and holds what it says against itself.
pub(super) fn load(path: &Path) -> anyhow::Result<TlsServer> {
    let text = String::from_utf8(files::read(path)?).context("it is no text");
    let tls = text.and_then(|text| parse(&text));
    let mut tls = tls.with_context(|| format!("read the web configuration {}", path.display()))?;
    let beside = path.parent().unwrap_or(Path::new(""));
    tls.cert_file = beside.join(&tls.cert_file);
    tls.key_file = beside.join(&tls.key_file);
    tls.client_ca_file = tls.client_ca_file.map(|file| beside.join(file));
    Ok(tls)
}

fn parse(text: &str) -> anyhow::Result<TlsServer> {
    let WebConfig {
        tls_server_config: tls,
    } = serde_saphyr::from_str(text).context(
        "known are tls_server_config with cert_file, key_file, client_auth_type, client_ca_file, \
         min_version and max_version",
    )?;
    match (tls.client_auth_type, &tls.client_ca_file) {
        (ClientAuth::NoClientCert, Some(_)) => bail!(
            "client_ca_file is of no use without client_auth_type: set that to \
             RequireAndVerifyClientCert"
        ),
        (ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert, None) => {
            bail!(
                "client_auth_type requires client_ca_file, the file of the CA certificates for \
                 clients"
            )
        }
        (ClientAuth::NoClientCert, None) | (_, Some(_)) => {}
    }
    if tls.min_version > tls.max_version {
        bail!("min_version is above max_version");
    }
    Ok(tls)
}

/// For fuzzing: web configuration files.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "web_config",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = parse(&text);
    },
    seeds: &[
        b"tls_server_config:\n  cert_file: a.pem\n  key_file: b.pem\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: c.pem\n  min_version: TLS12\n",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_prometheus_tools_is_understood() {
        let tls = parse(
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
             min_version: TLS13\n",
        )
        .unwrap();
        assert_eq!(tls.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
        assert_eq!(tls.min_version, Version::Tls13);
        let least = parse("tls_server_config: {cert_file: a, key_file: b}").unwrap();
        assert_eq!(least.client_auth_type, ClientAuth::NoClientCert);
        assert_eq!(
            (least.min_version, least.max_version),
            (Version::Tls12, Version::Tls13)
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is() {
        for (text, why) in [
            ("{}", "tls_server_config"),
            ("tls_server_config: {cert_file: a}", "key_file"),
            (
                "tls_server_config: {cert_file: a, key_file: b, cipher_suites: []}",
                "client_auth_type",
            ),
            ("basic_auth_users: {a: b}", "known are tls_server_config"),
            (
                "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
                "TLS12",
            ),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
                "RequireAndVerifyClientCert",
            ),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
                "client_auth_type",
            ),
            (
                "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
                "client_ca_file",
            ),
            (
                "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}",
                "above",
            ),
            (": [", "known are"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
