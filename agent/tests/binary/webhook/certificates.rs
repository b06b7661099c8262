//! Certificates for tests, and a client that shows one.

use std::{net::TcpStream, sync::Arc};

use nodemedic_tests::http::Response;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName},
};

use super::setup::exchange;

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// Somebody who is vouched for.
pub(crate) struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Valid until the end of a year.
    pub(crate) fn vouch(&self, name: &str, until: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key }
    }
}

impl Identity {
    pub(crate) fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Posts over TLS, showing a certificate or none.
///
/// # Errors
///
/// When there is no handshake.
pub(crate) fn post(
    mut stream: TcpStream,
    server_is_of: &Authority,
    client: Option<&Identity>,
    request: &str,
) -> std::io::Result<Response> {
    let mut roots = RootCertStore::empty();
    roots.add(server_is_of.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(client) => {
            let chain = vec![client.certificate.der().clone()];
            let key = PrivateKeyDer::try_from(client.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let server = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), server).unwrap();
    connection.complete_io(&mut stream)?;
    // With TLS 1.3 the server's objection to a certificate comes after the handshake.
    let mut stream = StreamOwned::new(connection, stream);
    std::io::Write::write_all(&mut stream, request.as_bytes())?;
    let mut first = [0];
    std::io::Read::read_exact(&mut stream, &mut first)?;
    let rest = std::io::Cursor::new(first);
    Ok(exchange(Joined(rest, stream), ""))
}

/// What was read already, and then the rest.
struct Joined(
    std::io::Cursor<[u8; 1]>,
    StreamOwned<ClientConnection, TcpStream>,
);

impl std::io::Read for Joined {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match std::io::Read::read(&mut self.0, into)? {
            0 => std::io::Read::read(&mut self.1, into),
            read => Ok(read),
        }
    }
}

impl std::io::Write for Joined {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut self.1, bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::Write::flush(&mut self.1)
    }
}
