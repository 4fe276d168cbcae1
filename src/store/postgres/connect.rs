//! Where the database is and how to get there: the URL, TLS, one connection.
//!
//! | `sslmode` | encrypted | certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer` (default) | if the server can | not looked at |
//! | `require` | yes | not looked at; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | signed by a trusted authority |
//! | `verify-full` | yes | and made out to the host of the URL |
//!
//! The meanings are libpq's (PostgreSQL manual, "SSL Mode Descriptions"); trusted is who is in the file `sslrootcert`,
//! else whom the operating system trusts. Parameters that the driver does not know (`pgbouncer=true`, say) are left out
//! with a word in the log. Nothing here is bound to a session, so a pooler in transaction mode may be in between.
//!
//! Neither URL nor password is ever in an error or a log line.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::refused;
use crate::store::StoreError;

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is given up when sent bytes stay unacknowledged for so long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a schema: `NAMEDATALEN - 1` of PostgreSQL.
const SCHEMA_BYTES_MAX: usize = 63;

/// Parameters that `tokio_postgres` reads itself.
const DRIVER_PARAMETERS: &[&str] = &[
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// A database and a schema in it.
#[derive(Clone)]
pub struct Target {
    pub(super) config: Config,
    tls: Option<MakeRustlsConnect>,
    schema: String,
}

impl Target {
    /// Reads a URL, `postgres://user:password@host:port/database?sslmode=...`. The error is a sentence.
    pub fn new(url: &str, schema: &str) -> Result<Target, StoreError> {
        let wrong = |why: &str| StoreError::Fatal(format!("--database-url cannot be used: {why}"));
        if !["postgres://", "postgresql://"].iter().any(|prefix| url.starts_with(prefix)) {
            return Err(wrong("it must begin with postgres:// (user:password@host:port/database)"));
        }
        let schema_fits = schema.len() <= SCHEMA_BYTES_MAX
            && schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            && schema.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !schema_fits || schema.starts_with("pg_") {
            return Err(StoreError::Fatal(format!(
                "--database-schema is {schema}: it must be 1 to {SCHEMA_BYTES_MAX} of a-z 0-9 _, not begin with a digit \
                 or pg_"
            )));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut kept, mut mode, mut root_file) = (Vec::new(), "prefer", None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sslmode", value) => mode = value,
                ("sslrootcert", value) => root_file = Some(value.replace("%2F", "/").replace("%2f", "/")),
                (name, _) if DRIVER_PARAMETERS.contains(&name) => kept.push(pair),
                (name, _) => tracing::warn!(parameter = name, "left out of --database-url: it is not known"),
            }
        }
        let mut config: Config =
            format!("{base}?{}", kept.join("&")).parse().map_err(|error: tokio_postgres::Error| {
                let why = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                wrong(if why.is_empty() { "it is not a URL of a database" } else { &why })
            })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host"));
        }
        if config.get_application_name().is_none() {
            config.application_name("tracktags");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        let (ssl_mode, check) = match (mode, &root_file) {
            ("disable", _) => (SslMode::Disable, None),
            ("prefer" | "allow", _) => (SslMode::Prefer, Some(Check::Nothing)),
            ("require", None) => (SslMode::Require, Some(Check::Nothing)),
            ("require" | "verify-ca", _) => (SslMode::Require, Some(Check::Authority)),
            ("verify-full", _) => (SslMode::Require, Some(Check::Everything)),
            _ => return Err(wrong("sslmode must be disable, prefer, require, verify-ca or verify-full")),
        };
        config.ssl_mode(ssl_mode);
        let tls = check.map(|check| connector(check, root_file.as_deref()).map_err(|why| wrong(&why)));
        Ok(Target { config, tls: tls.transpose()?, schema: schema.to_owned() })
    }

    /// `sql` for this schema: every `{schema}` is its quoted name.
    pub(super) fn sql(&self, sql: &str) -> String {
        sql.replace("{schema}", &format!("\"{}\"", self.schema))
    }

    /// The schema's name.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// A new connection, and the task that moves its bytes; the connection ends with the task.
    pub(super) async fn connect(&self) -> Result<(Client, tokio::task::JoinHandle<()>), StoreError> {
        // Why a connection ends is told to whoever waits for an answer on it.
        Ok(match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.config.connect(tls.clone()).await.map_err(|error| refused(&error))?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
            None => {
                let (client, connection) =
                    self.config.connect(NoTls).await.map_err(|error| refused(&error))?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
        })
    }

    /// A manager of pooled connections.
    pub(super) fn manager(&self) -> deadpool_postgres::Manager {
        match &self.tls {
            Some(tls) => deadpool_postgres::Manager::new(self.config.clone(), tls.clone()),
            None => deadpool_postgres::Manager::new(self.config.clone(), NoTls),
        }
    }
}

/// What of a certificate is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    Everything,
}

fn connector(check: Check, root_file: Option<&str>) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match check {
        Check::Nothing => {
            let verifier = Lenient { provider, authority: None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Check::Authority => {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_file)?), provider.clone())
                    .build()
                    .map_err(|error| error.to_string())?;
            let verifier = Lenient { provider, authority: Some(verifier) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Check::Everything => builder.with_root_certificates(roots(root_file)?).with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

/// The trusted authorities.
fn roots(file: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match file.filter(|file| *file != "system") {
        Some(file) => {
            let unusable = |why: &dyn std::fmt::Display| format!("sslrootcert {file}: {why}");
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"there is no certificate in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("this machine trusts no authority: name a file with sslrootcert".into());
            }
        }
    }
    Ok(roots)
}

/// Looks at less than everything: never at the name, and without `authority` only at whether the server holds the key of
/// the certificate it shows.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, name, stapled, now) {
            // The name is looked at last: everything else is right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(url: &str, schema: &str) -> String {
        Target::new(url, schema).err().expect("refused").to_string()
    }

    #[test]
    fn a_wrong_url_is_a_sentence_without_the_password() {
        let root_file = "postgres://u:canary@h/d?sslmode=verify-full&sslrootcert=%2Fno%2Fsuch";
        for (url, part) in [
            ("mysql://u:canary@h/d", "postgres://"),
            ("postgres://u:canary@h:port/d", "port"),
            ("postgres://", "no host"),
            ("postgres://u:canary@h/d?sslmode=sometimes", "verify-full"),
            ("postgres://u:canary@h/d?connect_timeout=soon", "connect_timeout"),
            (root_file, "/no/such"),
        ] {
            let sentence = wrong(url, "tracktags");
            assert!(sentence.contains("--database-url") && sentence.contains(part), "{sentence}");
            assert!(!sentence.contains("canary"), "{sentence}");
        }
    }

    #[test]
    fn a_schema_is_a_plain_lower_case_name() {
        for schema in ["", "1a", "Upper", "a-b", "a\"b", "pg_x", &"a".repeat(64)] {
            let sentence = wrong("postgres://h/d", schema);
            assert!(sentence.contains("--database-schema"), "{sentence}");
        }
    }

    #[test]
    fn what_the_driver_does_not_know_is_left_out() {
        let target = Target::new("postgres://u@h/d?pgbouncer=true&connect_timeout=3&sslmode=disable", "s")
            .expect("usable");
        assert_eq!(target.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(target.config.get_application_name(), Some("tracktags"));
        assert_eq!(target.sql("SELECT 1 FROM {schema}.t"), "SELECT 1 FROM \"s\".t");
    }
}
