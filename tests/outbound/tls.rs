//! TLS: a certificate counts if a trusted authority made it out to the host of the URL.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tracktags::outbound::{Outbound, OutboundError, OutboundOptions, native_roots};

use super::support::{Names, OK, Server, error_of, fetch, listen, options, read_request};

const ALLOWED: &str = "127.0.0.2";

/// An authority (`ca.crt`) and a certificate by it for `good.test` (`server.crt`, `server.key`).
fn certificates(folder: &Path) {
    let script = "set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt \
            -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey rsa:2048 -nodes -subj /CN=good.test -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:good.test\n' >ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=good.test -keyout own.key -out own.crt \
            -addext subjectAltName=DNS:good.test";
    let output = Command::new("bash").args(["-c", script]).current_dir(folder).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server that shows `{name}.crt`.
fn serving(folder: &Path, name: &str) -> Server {
    let chain = CertificateDer::pem_file_iter(folder.join(format!("{name}.crt"))).expect("a file");
    let chain: Vec<_> = chain.map(|certificate| certificate.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    let config = Arc::new(config);
    Server::speaking(listen(ALLOWED), move |stream, seen| {
        let connection = ServerConnection::new(config.clone()).expect("a valid configuration");
        let mut stream = StreamOwned::new(connection, stream);
        while let Some(request) = read_request(&mut stream) {
            seen(&request);
            if stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn names() -> Arc<Names> {
    Arc::new(Names::default().with("good.test", &[&[ALLOWED]]).with("other.test", &[&[ALLOWED]]))
}

fn outbound(authority: Option<&Path>) -> Outbound {
    let mut roots = RootCertStore::empty();
    if let Some(file) = authority {
        roots.add(CertificateDer::from_pem_file(file).expect("a certificate")).expect("an authority");
    }
    Outbound::new(OutboundOptions { roots, ..options(&[ALLOWED], names()) })
}

#[tokio::test]
async fn only_a_trusted_certificate_for_the_host_is_spoken_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificates(folder.path());
    let (server, own) = (serving(folder.path(), "server"), serving(folder.path(), "own"));
    let trusting = outbound(Some(&folder.path().join("ca.crt")));
    // As the service has it: whom the machine trusts.
    let native = OutboundOptions { roots: native_roots(), ..options(&[ALLOWED], names()) };
    let native = Outbound::new(native);
    let url = |host: &str, server: &Server| format!("https://{host}:{}/path", server.port());
    for (outbound, url) in [
        (&trusting, url("other.test", &server)),
        (&trusting, url(ALLOWED, &server)),
        (&trusting, url("good.test", &own)),
        (&outbound(None), url("good.test", &server)),
        (&native, url("good.test", &own)),
    ] {
        assert_eq!(error_of(outbound, &url).await, OutboundError::Unreachable, "{url}");
    }
    assert_eq!((server.requests().len(), own.requests().len()), (0, 0));
    for _ in 0..2 {
        assert_eq!(fetch(&trusting, &url("good.test", &server)).await.map(|answer| answer.status), Ok(200));
    }
    let seen = server.requests();
    assert!(
        seen.iter().all(|request| request.contains(&format!("host: good.test:{}", server.port()))),
        "{seen:?}"
    );
}
