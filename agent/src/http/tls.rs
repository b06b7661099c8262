//! TLS, for the listeners that want it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    files,
    renewed::Renewed,
    web_config::{self, ClientAuth, TlsServer, Version},
};

/// TLS with the certificates that are in their files now. These may be changed at any
/// time; the web configuration itself is read at the start.
#[derive(Debug)]
pub struct Tls {
    identifies_clients: bool,
    config: Renewed<Arc<ServerConfig>>,
}

impl Tls {
    /// As a web configuration has it.
    ///
    /// # Errors
    ///
    /// When that file, or one that it names, cannot be used.
    pub fn open(web_config: &Path) -> anyhow::Result<Self> {
        let settings = web_config::load(web_config)?;
        let files = [&settings.cert_file, &settings.key_file].into_iter();
        let files = files.chain(&settings.client_ca_file).cloned().collect();
        Ok(Self {
            identifies_clients: settings.client_auth_type == ClientAuth::RequireAndVerifyClientCert,
            config: Renewed::new(files, move || server(&settings).map(Arc::new))?,
        })
    }

    /// Whether nobody is talked to without a certificate that somebody vouches for.
    pub fn identifies_clients(&self) -> bool {
        self.identifies_clients
    }

    /// What takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.current().into()
    }
}

fn server(settings: &TlsServer) -> anyhow::Result<ServerConfig> {
    let provider = provider();
    let chain = certificates(&settings.cert_file)?;
    let key = key(&settings.key_file)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(settings))
        .context("choose the versions of TLS")?;
    let builder = match clients(settings, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).with_context(|| {
        format!(
            "use {} with {}",
            settings.cert_file.display(),
            settings.key_file.display()
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that goes on would carry a certificate that has expired since, or that
    // somebody else vouched for.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions(settings: &TlsServer) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)];
    let wanted = settings.min_version..=settings.max_version;
    let chosen = all.into_iter().filter(|(name, _)| wanted.contains(name));
    chosen.map(|(_, version)| version).collect()
}

/// What holds a client's certificate against those who may vouch for it.
fn clients(
    settings: &TlsServer,
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(file) = &settings.client_ca_file else {
        return Ok(None);
    };
    let roots = Arc::new(roots(file)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match settings.client_auth_type {
        ClientAuth::VerifyClientCertIfGiven => builder.allow_unauthenticated(),
        ClientAuth::NoClientCert | ClientAuth::RequireAndVerifyClientCert => builder,
    };
    let verifier = builder.build();
    let verifier = verifier.with_context(|| format!("use {}", file.display()))?;
    Ok(Some(verifier))
}

/// Those who vouch for others.
fn roots(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.with_context(|| format!("use {}", file.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = files::read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.with_context(|| format!("read {}", file.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{} holds no certificate in PEM",
        file.display()
    );
    Ok(certificates)
}

fn key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = files::read_secret(file)?;
    PrivateKeyDer::from_pem_slice(&text)
        .with_context(|| format!("read a private key in PEM from {}", file.display()))
}

/// TLS towards others.
#[derive(Debug)]
pub struct TlsClient {
    config: Renewed<Arc<ClientConfig>>,
}

impl TlsClient {
    /// Trusts those whom a file of certificates vouches for, and shows `own`, a
    /// certificate and its key, to who asks for one. All may be changed at any time.
    ///
    /// # Errors
    ///
    /// When a file cannot be used.
    pub fn open(ca_file: &Path, own: Option<(PathBuf, PathBuf)>) -> anyhow::Result<Self> {
        let ca_file = ca_file.to_owned();
        let mut files = vec![ca_file.clone()];
        files.extend(
            own.iter()
                .flat_map(|(chain, key)| [chain.clone(), key.clone()]),
        );
        let make = move || client(&ca_file, own.as_ref()).map(Arc::new);
        Ok(Self {
            config: Renewed::new(files, make)?,
        })
    }

    /// What makes the next connection.
    pub fn connector(&self) -> TlsConnector {
        self.config.current().into()
    }
}

fn client(ca_file: &Path, own: Option<&(PathBuf, PathBuf)>) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .context("choose the versions of TLS")?
        .with_root_certificates(roots(ca_file)?);
    let mut config = match own {
        Some((chain, key_file)) => builder
            .with_client_auth_cert(certificates(chain)?, key(key_file)?)
            .with_context(|| format!("use {} with {}", chain.display(), key_file.display()))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
